/*
 * panel_q8: y = x W^T with weights of 8 bits, for decoding where memory is the bound.
 *
 * Weights and inputs are cut into blocks of PANEL_Q8_BLOCK along `in`; a block is whole numbers
 * -127..127 and one scale (weights: bfloat16, rounded up; inputs: float). The products of a block
 * are summed exactly in integers, and blocks are added by one chain of fma in order, so an output
 * has the same bits in every kernel (scalar, AVX2, AVX-512), for any number of rows and threads.
 * 8.5 bits a weight. A block with a number that is not finite gives NaN. Pure; no allocation.
 * Tests: tests/unit/model/test_panel_q8.c.
 */
#ifndef MODEL_PANEL_Q8_H
#define MODEL_PANEL_Q8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/real.h"

#define PANEL_Q8_BLOCK 32
#define PANEL_Q8_COLS 16

size_t panel_q8_bytes(size_t in, size_t out); /* of a packed [out, in] matrix; a multiple of 64 */
size_t panel_q8_panels(size_t out);
/* Zero weights; then panel_q8_pack() as panel_pack(). packed: 64-byte aligned. */
void panel_q8_clear(unsigned char *packed, size_t in, size_t out);
void panel_q8_pack(const real *w, size_t rows, size_t in, size_t at, unsigned char *packed);

/* Inputs in the form that the product wants; arrays in memory of the caller. */
struct panel_q8_rows {
    int8_t *code;  /* [rows, blocks * PANEL_Q8_BLOCK] */
    int32_t *bias; /* [rows, blocks]: -128 times the sum of the block's codes */
    float *scale;  /* [rows, blocks] */
};
size_t panel_q8_rows_bytes(size_t rows, size_t in); /* of the three arrays, carved from one */
struct panel_q8_rows panel_q8_rows_at(void *memory, size_t rows, size_t in); /* 64-byte aligned */
void panel_q8_rows_fill(const struct panel_q8_rows *q, const real *x, size_t ldx, size_t n,
                        size_t in);

/* y[n,out] = x W^T (y += with add), outputs of panels [first, end) alone, by the best kernel of
 * this machine. place as in panel_linear_some(). */
void panel_q8_linear(const struct panel_q8_rows *x, const unsigned char *packed, real *y,
                     size_t ldy, const int32_t *place, size_t n, size_t in, size_t out, bool add,
                     size_t first, size_t end);

/* What this machine has; the first is the one that panel_q8_linear() takes, the last is plain C. */
enum { PANEL_Q8_KERNELS_MAX = 3 };
typedef void (*panel_q8_fn)(const struct panel_q8_rows *x, const unsigned char *packed, real *y,
                            size_t ldy, const int32_t *place, size_t n, size_t in, size_t out,
                            bool add, size_t first, size_t end);
size_t panel_q8_kernels(const char **name, panel_q8_fn *fn); /* arrays of PANEL_Q8_KERNELS_MAX */

#endif
