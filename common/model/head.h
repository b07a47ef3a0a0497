/*
 * head: what comes after the last layer: final norm, projection, loss. Only target rows are looked at.
 *
 * HEAD_LM: vocabulary projection fused with cross entropy over [lo, hi), in chunks of rows, so that a
 * [rows, vocabulary] matrix never exists. HEAD_REGRESSION: scores and masked squared error (NaN = missing).
 * Source: Dong et al. 2023 (arXiv 2310.05344), training objective; HelpSteer (arXiv 2311.09528) for the regression head.
 */
#ifndef MODEL_HEAD_H
#define MODEL_HEAD_H

#include "model/carve.h"
#include "model/dims.h"
#include "model/linear.h"
#include "model/transformer.h"

struct head_work {
    int32_t *order; /* targets, those of one range [lo, hi) together */
    real *x, *y, *dy,
        *inv; /* [targets, C] three times, [targets]: gathered rows, normed rows, their gradient */
    double *loss;       /* [targets] unweighted */
    real *logits;       /* [chunk, V] or [targets, head_out] */
    struct parts parts; /* of the targets in order[] */
    size_t targets;     /* in order[]; rows of weight 0 are left out when training */
    const struct linear *linear;
    uint64_t *progress; /* may be NULL */
};

/* Rows of one chunk of logits: enough for a GEMM that pays, few enough to stay in cache for small vocabularies. */
size_t head_chunk(const struct dims *d);
void head_carve(struct head_work *h, struct carve *c, const struct dims *d, size_t targets_max);

/* Output of the last layer, for the rows that targets read only. */
struct head_rows {
    const real *hidden;   /* [n, C] */
    const int32_t *place; /* [N]: row r of the batch is hidden[place[r]] */
    size_t n;
    /* For head_train(): rows of the batch that are parts; the head's gradient that is wanted of each; set: gradients
     * are overwritten. Several parts: transformer_joins(). */
    const struct parts *parts;
    const struct linear_keep *keep;
    real *gain; /* [parts, C] scratch */
    bool set;
};

/* dhidden [n, C] is overwritten, and gradients of norm and head are added into grad, or set; with grad NULL only the loss
 * is made and dhidden may be NULL. out[parts]: loss and weight are added. */
void head_train(struct head_work *h, const struct dims *d, const real *params,
                const struct head_rows *rows, const struct batch *b, real *dhidden, real *grad,
                struct loss_out *out);
void head_losses(struct head_work *h, const struct dims *d, const real *params,
                 const struct head_rows *rows, const struct batch *b, real *loss);
void head_outputs(struct head_work *h, const struct dims *d, const real *params,
                  const struct head_rows *rows, const struct batch *b, real *out, size_t stride);

#endif
