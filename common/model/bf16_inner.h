/*
 * bf16_inner: what the two ways of making bfloat16 products have in common with bf16.c, and only with it.
 *
 * A word holds two bfloat16 numbers: an even k in its lower half, the next k in its upper half. Packed operands are panels:
 * of a, BF16_ROWS rows, panel[pair][row]; of b, BF16_COLUMNS rows (columns of c), panel[pair][column]. Missing rows and
 * a missing last k are zeros.
 */
#ifndef MODEL_BF16_INNER_H
#define MODEL_BF16_INNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BF16_ROWS 12
#define BF16_COLUMNS 32

struct bf16_way {
    /* k elements of `rows` rows from p on, into as many panels of a as that takes. May write BF16_SLACK words behind. */
    void (*pack_a)(const float *p, size_t ld, bool k_strided, size_t rows, size_t k, uint32_t *to);
    /* The same of at most BF16_COLUMNS rows into one panel of b. */
    void (*pack_b)(const float *p, size_t ld, bool k_strided, size_t rows, size_t k, uint32_t *to);
    /* c[rows, columns] = (load ? c : 0) + panel of a times panel of b. */
    void (*tile)(const uint32_t *a, const uint32_t *b, size_t pairs, float *c, size_t ldc,
                 size_t rows, size_t columns, bool load);
    bool flushes; /* tile() wants subnormal numbers off in the control register */
};

#define BF16_SLACK 16

/* NULL where the compiler or the target has no such instructions; the caller asks the CPU. */
extern const struct bf16_way *const bf16_way_cpu, *const bf16_way_software;

#endif
