/*
 * gemm: the three matrix products of a linear layer y = x W^T, behind one choice of arithmetic.
 *
 * Rows are tokens; matrices are row-major; ld* are row strides in elements; a weight is [out, in] as in a checkpoint.
 * A struct gemm belongs to one thread: it holds the arithmetic and the space that operands are packed into, sized once.
 * The products are pure otherwise: no allocation, no I/O; fixed order of every sum. Bits of an element depend on the
 * elements along k alone, so a row by itself and in a batch gets the same (not with "openblas"). Tests: tests/unit/model/test_gemm.c, grad_ops.c (central differences in the double build).
 */
#ifndef MODEL_GEMM_H
#define MODEL_GEMM_H

#include <stdbool.h>
#include <stddef.h>

#include "model/real.h"

enum gemm_kind {
    GEMM_F32, /* products and sums in `real` */
    GEMM_BF16, /* operands rounded to bfloat16, sums in fp32 (model/bf16.h); not in the double build */
};

struct gemm;
struct gemm *gemm_new(enum gemm_kind kind);
void gemm_free(struct gemm *g);
size_t gemm_bytes(enum gemm_kind kind); /* what gemm_new() allocates */

/* y[n,out] = x[n,in] W^T, or y += with add. */
void gemm_linear(const struct gemm *g, const real *x, size_t ldx, const real *w, real *y,
                 size_t ldy, size_t n, size_t in, size_t out, bool add);
/* dx[n,in] = dy[n,out] W, or dx += with add. */
void gemm_linear_dx(const struct gemm *g, const real *dy, size_t ldy, const real *w, real *dx,
                    size_t ldx, size_t n, size_t in, size_t out, bool add);
/* dw[out,in] += dy^T x. */
void gemm_linear_dw(const struct gemm *g, const real *dy, size_t ldy, const real *x, size_t ldx,
                    real *dw, size_t n, size_t in, size_t out);

/* Columns of a weight and of its gradient: [out, in] with rows of ldw. n, in and out are at least 1. */
void gemm_linear_dx_part(const struct gemm *g, const real *dy, size_t ldy, const real *w,
                         size_t ldw, real *dx, size_t ldx, size_t n, size_t in, size_t out,
                         bool add);
void gemm_linear_dw_part(const struct gemm *g, const real *dy, size_t ldy, const real *x,
                         size_t ldx, real *dw, size_t ldw, size_t n, size_t in, size_t out,
                         bool add);
/* A product made in parts has the bits of the whole: all but "openblas". */
bool gemm_parts_alike(const struct gemm *g);

/*
 * What GEMM_F32 runs on in this process: "own" (the default) is the widest of our cores that the CPU has, "plain" the one
 * in vectors of vmath.h whatever the CPU has: both give the same bits, on every machine. "openblas" is OpenBLAS, whose
 * bits depend on its kernel family, the shape and the neighbours in it: a numerics class of its own for each family. The
 * choice is the operator's, never made by timing. As measured (one thread, GFLOP/s of forward, dx, dw on every shape that a
 * training step of width 64, 288 or 768 has) own with AVX-512 is 3 to 12 % ahead of OpenBLAS's AVX-512 kernels or within
 * 5 %, plain is ahead of its AVX2 kernels forward and within 5 % in dx and dw (8 % in the one shape that fits no panel).
 * Call before the first gemm_new(), while there is one thread; false: there is no such name.
 */
bool gemm_kernels_set(const char *name);
const char *gemm_kernels(void); /* "avx512", "plain", or OpenBLAS's kernel family, "Haswell" */

/* BLAS runs inside the calling thread. Thread-safe, later calls do nothing; gemm_new() calls it. */
void model_blas_init(void);

#endif
