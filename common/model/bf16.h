/*
 * bf16: matrix products of fp32 matrices whose elements are rounded to bfloat16 on the way in; sums in fp32.
 *
 * c(i, j) starts from c or from 0 and takes the products of k = 1, 0, 3, 2, 5, 4, ... one after the other, each by one
 * fused multiply-add rounded to nearest even; subnormal numbers count as 0 and become 0 (of their sign). An odd k ends with a
 * product of zeros. That is what the instruction vdpbf16ps does, and the software path does the same with AVX2 and FMA,
 * so the bits do not depend on the machine, nor on block sizes. (NaN stays NaN; which of its bits are set may differ.)
 * Rounding to bfloat16 is to nearest even; NaN stays NaN, subnormal numbers become 0.
 * Pure otherwise: no allocation, no I/O. Tests: tests/unit/model/test_bf16.c.
 */
#ifndef MODEL_BF16_H
#define MODEL_BF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum bf16_how {
    BF16_NONE,     /* neither: not x86, or no AVX2 and FMA */
    BF16_SOFTWARE, /* AVX2 and FMA: about 0.8 of the speed of fp32 */
    BF16_CPU       /* AVX512_BF16 */
};

/* The best that this machine has, and what bf16_gemm() uses unless bf16_limit() has asked for less. */
enum bf16_how bf16_how(void);
const char *bf16_how_name(enum bf16_how how); /* none, software, cpu */
/* Nothing better than `most` from now on, in the whole process; before any product is made. */
void bf16_limit(enum bf16_how most);

/* Element (i, k) is p[i * ld + k], or with k_strided p[k * ld + i]. */
struct bf16_matrix {
    const float *p;
    size_t ld;
    bool k_strided;
};

/* Space for packed operands, of any product; align it to BF16_ALIGN bytes. */
#define BF16_ALIGN 64
size_t bf16_work_bytes(void);

/* c[m, n] (rows of ldc floats) = sum over k of a(i, k) b(j, k), or += with add. c overlaps neither a nor b. CHECKs that
 * bf16_how() is not BF16_NONE. */
void bf16_gemm(const struct bf16_matrix *a, const struct bf16_matrix *b, float *c, size_t ldc,
               size_t m, size_t n, size_t k, bool add, void *work);

/* One element, by integer arithmetic: the definition of the rounding. */
uint16_t bf16_round(float x);

#endif
