/*
 * ops: the operations of the decoder but the matrix products (gemm.h), each forward with its backward beside it.
 *
 * Rows are tokens; matrices are row-major; ld* are row strides in elements. Backward of a parameter ADDS INTO its
 * gradient. Pure: no allocation, no global, no I/O; fixed order of every sum, so equal inputs give equal bits.
 * Tests: tests/unit/model/test_ops.c, grad_ops.c (central differences in the double build).
 */
#ifndef MODEL_OPS_H
#define MODEL_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/real.h"

/* y = x / sqrt(mean(x^2) + eps) * w per row of c; inv[n] gets the reciprocal roots (NULL: not wanted). y may be x. */
void ops_rmsnorm(const real *x, const real *w, real *y, real *inv, size_t n, size_t c, real eps);
/* y from the saved inv: the same bits as ops_rmsnorm() gave. */
void ops_rmsnorm_again(const real *x, const real *w, const real *inv, real *y, size_t n, size_t c);
/* dx += (residual stream), dw += . */
void ops_rmsnorm_backward(const real *dy, const real *x, const real *w, const real *inv, real *dx,
                          real *dw, size_t n, size_t c);

/* Rotary positions. table[positions, d]: for each position d/2 cosines, then d/2 sines of p * theta^(-2i/d). */
void ops_rope_table(real *table, size_t positions, size_t d, double theta);
/* Rotates `heads` heads of d in each of n rows of x (stride ldx), in place: pair (i, i + d/2), Hugging Face convention.
 * pos[n]: position of each row, a row of the table. */
void ops_rope(real *x, size_t ldx, const real *table, const int32_t *pos, size_t n, size_t heads,
              size_t d);
/* Gradient in place: the rotation by minus the angle. */
void ops_rope_backward(real *dx, size_t ldx, const real *table, const int32_t *pos, size_t n,
                       size_t heads, size_t d);

/* h[n,f] = silu(g) * u where gu[n,2f] holds g, then u, in each row. */
void ops_swiglu(const real *gu, real *h, size_t n, size_t f);
/* dgu overwritten; may be gu itself. */
void ops_swiglu_backward(const real *dh, const real *gu, real *dgu, size_t n, size_t f);

/* log(sum(exp(x))) of one row, shifted by its maximum. n >= 1. */
real ops_logsumexp(const real *x, size_t n);
/* x -= logsumexp(x): log-probabilities in place; returns the log-sum-exp. */
real ops_logsoftmax(real *x, size_t n);
/* Probabilities in place; returns the log-sum-exp. */
real ops_softmax(real *x, size_t n);

/* x[i] = emb[token[i]]. 0 <= token < rows of emb (the caller has checked). */
void ops_embed(const real *emb, const int32_t *token, real *x, size_t n, size_t c);
/* demb[token[i]] += dx[i], rows in order. */
void ops_embed_backward(const real *dx, const int32_t *token, real *demb, size_t n, size_t c);

/* Sum of products in VM_LANES fixed lanes. */
real ops_dot(const real *a, const real *b, size_t n);
/* y += a x. */
void ops_axpy(real a, const real *x, real *y, size_t n);

#endif
