/*
 * transformer: forward, loss and backward of the decoder over packed rows.
 *
 * A batch packs S sequences into one [N, C] matrix; attention and positions start anew at each sequence. Loss positions
 * are listed: a row, what should come out there, a weight. Rows without a target cost nothing in the head, and of the
 * last layer only their keys and values.
 * What a batch holds is CHECKed (tokens in the vocabulary, rows in range, sizes within the workspace): whoever builds one
 * from outside data has refused bad data before. All functions are pure: no allocation, no global, no I/O, one thread,
 * fixed order of operations; the same inputs give the same bits on one numerics class. Tests: tests/unit/model, tests/golden.
 */
#ifndef MODEL_TRANSFORMER_H
#define MODEL_TRANSFORMER_H

#include <stdbool.h>

#include "model/dims.h"
#include "model/gemm.h"
#include "model/linear.h"
#include "model/real.h"

struct batch_target {
    int32_t row; /* position in [0, N) whose hidden state is read */
    int32_t
        id; /* HEAD_LM: token that should come out, lo <= id < hi. HEAD_REGRESSION: index into scores */
    int32_t lo,
        hi; /* HEAD_LM: softmax over vocabulary rows [lo, hi); the whole vocabulary is [0, V) */
    float weight; /* >= 0; a target of weight 0 is left out of training */
};

struct batch {
    int32_t rows, seqs, targets;
    int32_t rows_cap, seqs_cap, targets_cap, scores_cap; /* capacities of the arrays below */
    int32_t *token;                                      /* [rows] */
    int32_t *
        seq_begin; /* [seqs + 1], seq_begin[0] = 0, seq_begin[seqs] = rows; a sequence has at most context rows */
    struct batch_target *target; /* [targets], rows ascending */
    int32_t parts;               /* 0 or 1: the batch is one */
    int32_t
        part_seq[PARTS_MAX + 1]; /* where part p begins; part_seq[0] = 0, part_seq[parts] = seqs */
    float *
        score; /* HEAD_REGRESSION: [.. * head_out], target.id selects a group of head_out; NaN = missing, masked */
};

void batch_init(struct batch *b, int32_t rows_cap, int32_t seqs_cap, int32_t targets_cap,
                int32_t scores_cap);
void batch_fini(struct batch *b);

struct loss_out {
    double loss_sum; /* sum of weight * loss: nats (LM) or squared error (regression) */
    double
        weight_sum; /* LM: sum of weights. Regression: sum of weight * (number of present scores) */
    int64_t tokens; /* rows processed, every token of the sequences */
};

/* Where a gradient becomes final while the backward runs: elements [begin, end) will not change again. Called from the
 * end of the vector down, without gaps: final norm and head, each layer, the embedding. May be NULL. */
struct grad_sink {
    void *self;
    void (*ready)(void *self, size_t begin, size_t end);
};

/* Where parameters come from while the forward of transformer_train() runs: called before elements [begin, end) are read
 * for the first time, from the beginning of the vector up, without gaps: the embedding, each layer, final norm and head.
 * False: they will not come; then the call returns at once, nothing was added to grad, and out is zero. */
struct param_source {
    void *self;
    bool (*need)(void *self, size_t begin, size_t end);
};

struct workspace; /* sized once for (dims, rows, seqs, targets), used for ever */
struct workspace *workspace_new(const struct dims *d, int32_t rows_max, int32_t seqs_max,
                                int32_t targets_max);
/* The same bits in less memory: the backward computes each layer's forward again but for the last. */
struct workspace *workspace_new_lean(const struct dims *d, int32_t rows_max, int32_t seqs_max,
                                     int32_t targets_max);
void workspace_free(struct workspace *w);
size_t workspace_bytes(const struct dims *d, int32_t rows_max, int32_t seqs_max,
                       int32_t targets_max, bool lean);
/* The arithmetic of all matrix products from now on; GEMM_F32 until then. Not inside a step: it allocates. */
void workspace_set_gemm(struct workspace *w, enum gemm_kind kind);
/* Threads that share the work of every call from now on; batches for transformer_train_set() may have up to parts_max
 * parts. Once, before the first call. */
void workspace_set_team(struct workspace *w, struct team *team, int32_t parts_max);
/* A counter that the numerics bump at least once per layer, read by the control thread (liveness). May stay NULL. */
void workspace_set_progress(struct workspace *w, uint64_t *counter);
/* Borrowed; NULL (at first): the parameters are there. */
void workspace_set_source(struct workspace *w, const struct param_source *source);

/* Adds d(loss_sum)/d(params) into grad [layout.count]; not divided by any weight. grad NULL: forward and loss only. */
void transformer_train(const struct dims *d, const real *params, const struct batch *b, real *grad,
                       const struct grad_sink *sink, struct workspace *w, struct loss_out *out);
/* The same, but grad is overwritten, all of it; and the batch may have parts, leaves of an aligned subtree of the canonical
 * tree (types/tree.h): then grad is the sum of their gradients along it, with the bits of computing each by itself and adding
 * them up, and out[parts] is told apart. Several parts need transformer_joins(). When the parameters will not come
 * grad is not touched. */
void transformer_train_set(const struct dims *d, const real *params, const struct batch *b,
                           real *grad, const struct grad_sink *sink, struct workspace *w,
                           struct loss_out *out);
/* The parts of a batch can be computed together: they fit the workspace, its arithmetic allows it, and one chunk of the
 * head has all targets, each over the whole vocabulary. */
bool transformer_joins(const struct workspace *w, const struct batch *b);
/* Loss of each target by itself, unweighted: loss[targets]. */
void transformer_losses(const struct dims *d, const real *params, const struct batch *b, real *loss,
                        struct workspace *w);
/* Log-probabilities over [lo, hi) (HEAD_LM) or raw scores (HEAD_REGRESSION: head_out of them) at each target row:
 * out[t * stride + j]. stride >= hi - lo or head_out. */
void transformer_outputs(const struct dims *d, const real *params, const struct batch *b, real *out,
                         size_t stride, struct workspace *w);

#endif
