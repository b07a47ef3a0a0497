/*
 * run_score_batch: sequences with targets, packed into batches, to what the model says at the
 * targets. Sequences are taken in order; a batch is computed when the next one would not fit. One
 * thread.
 */
#ifndef JOBS_RUN_SCORE_BATCH_H
#define JOBS_RUN_SCORE_BATCH_H

#include "modelfile/modeldir.h"

/* id: of the sequence; out[n]: log-probabilities over its range, or scores of the regression head.
 * Called in order. */
typedef void (*score_fn)(void *self, size_t id, int target, const float *out, int n);
struct score_batch;
#define SCORE_TARGETS_MAX 256            /* of one sequence */
#define SCORE_ROWS_MAX ((size_t)1 << 16) /* of one sequence */
/* Rows that a sequence of the model's template may have, with `more` beyond its max_length; what is
 * longer is not scored. */
size_t score_sequence_max(const struct model *m, size_t more);
/* Batches of RUN_SCORE_ROWS rows, or of one sequence as long as `longest`, at most SCORE_ROWS_MAX:
 * a model's context may be far longer than what is read with it. stride: the widest range hi - lo of
 * a target (a regression head has its own). m is borrowed. */
struct score_batch *score_batch_new(const struct model *m, size_t longest, size_t stride,
                                    uint64_t *heartbeat, void *self, score_fn fn);
void score_batch_free(struct score_batch *b);
/* n tokens, at most longest; targets in order of rows. */
void score_batch_add(struct score_batch *b, size_t id, const int32_t *ids, size_t n,
                     const struct template_target *target, int targets);
void score_batch_flush(struct score_batch *b);
uint64_t score_batch_rows(const struct score_batch *b); /* computed so far */

#endif
