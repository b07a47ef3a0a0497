/*
 * attn: causal grouped-query attention over packed sequences, forward and backward.
 *
 * A row of qkv holds H query heads, G key heads, G value heads of D, rotary positions already applied. Each sequence sees
 * itself only. The forward keeps one number per row and head (log-sum-exp); the backward recomputes probabilities from it
 * in blocks, so nothing of size T x T exists. Deterministic: fixed blocks, fixed order of every sum.
 * Tests: tests/unit/model/test_attn.c (against a plain loop), grad_attn.c.
 */
#ifndef MODEL_ATTN_H
#define MODEL_ATTN_H

#include <stddef.h>
#include <stdint.h>

#include "model/real.h"

struct attn_shape {
    size_t heads, kv_heads, head_dim; /* heads is a multiple of kv_heads */
};

/* Elements of scratch that sequences of up to rows_max rows need. */
size_t attn_scratch(const struct attn_shape *s, size_t rows_max);

struct attn_rows {
    const int32_t *seq_begin; /* [seqs + 1]; N = seq_begin[seqs] */
    size_t seqs;
    const unsigned char *wanted; /* [N]: 0 = this row's output is not read; NULL: all are */
    size_t group_begin,
        group_end; /* key/value heads to do, with the query heads that read them; 0, 0: all */
};

/* qkv [N, (H + 2 G) D]; out [N, H D]; lse [H, N]. out and lse of rows not wanted are written or not. */
void attn_forward(const struct attn_shape *s, const struct attn_rows *rows, const real *qkv,
                  real *out, real *lse, real *scratch);
/* dqkv [N, (H + 2 G) D] overwritten, from dout and what the forward had and gave, with the same rows wanted; dout of rows
 * not wanted must be 0. */
void attn_backward(const struct attn_shape *s, const struct attn_rows *rows, const real *qkv,
                   const real *out, const real *lse, const real *dout, real *dqkv, real *scratch);

#endif
