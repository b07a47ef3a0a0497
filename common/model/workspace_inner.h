/*
 * The workspace, for those who fill it: transformer.c (forward and backward) and workspace.c (its memory).
 *
 * It holds what the backward needs of every layer; a lean one keeps each layer's input alone: all layers share the rest.
 */
#ifndef MODEL_WORKSPACE_INNER_H
#define MODEL_WORKSPACE_INNER_H

#include "model/attn.h"
#include "model/head.h"
#include "model/linear.h"
#include "model/transformer.h"

struct layer_state {
    real *x;           /* [N, C] input */
    real *inv1, *inv2; /* [N] reciprocal roots of the two norms */
    real *qkv;         /* [N, (H + 2 G) D], positions applied */
    real *lse;         /* [H, N] */
    real *att;         /* [N, H D] */
    real *mid;         /* [N, C] after attention */
    real *gu, *h;      /* [N, 2 F], [N, F] */
};

struct workspace {
    struct dims dims;
    struct offsets at;
    struct attn_shape attn;
    int32_t rows_max, seqs_max, targets_max;
    bool lean;
    uint64_t *progress;
    const struct param_source *source; /* may be NULL */
    enum gemm_kind kind;
    struct linear *linear;
    /* parts of the batch: their rows, of these the wanted ones; set: the gradient is written, not added to */
    struct parts rows, wants;
    bool set;
    int32_t parts_max;
    real *gain; /* [parts_max, C]: gradients of a norm */
    int32_t *touched,
        *touch_of; /* [N] tokens of the batch, ascending; [N] each row's place among them */
    real *kept;    /* [parts, touched, C] their rows of the head's gradient */
    size_t n_touched;
    size_t positions; /* rows of rope */
    real *rope;
    int32_t *pos;              /* [N] */
    struct layer_state *layer; /* [L] */
    unsigned char *wanted;     /* [N] a target reads this row */
    int32_t *place;            /* [N] its index among the wanted rows */
    int32_t *row;              /* [wanted] back again */
    size_t n_wanted;
    real *last_att,
        *last; /* [wanted, H D], [wanted, C]: input of the last o projection, output of the last layer */
    real *norm, *dnorm, *dx; /* [N, C] */
    real *dqkv, *datt, *dh;
    struct head_work head;
};

#endif
