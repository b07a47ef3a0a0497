/*
 * gemm: the three matrix products of a linear layer y = x W^T, behind one choice of arithmetic.
 *
 * Rows are tokens; matrices are row-major; ld* are row strides in elements; a weight is [out, in] as in a checkpoint.
 * A struct gemm belongs to one thread: it holds the arithmetic and the space that operands are packed into, sized once.
 * The products are pure otherwise: no allocation, no I/O; fixed order of every sum, so equal inputs give equal bits on one
 * numerics class. Tests: tests/unit/model/test_gemm.c, grad_ops.c (central differences in the double build).
 */
#ifndef MODEL_GEMM_H
#define MODEL_GEMM_H

#include <stdbool.h>
#include <stddef.h>

#include "model/real.h"

enum gemm_kind {
    GEMM_F32,  /* products and sums in `real` */
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

/* BLAS runs inside the calling thread. Call once per process before any numerics; thread-safe, later calls do nothing. */
void model_blas_init(void);
const char *
model_blas_core(void); /* kernel family of OpenBLAS, "Haswell": part of the numerics class */

#endif
