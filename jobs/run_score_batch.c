#include "jobs/run_score_batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "jobs/run_score.h"
#include "model/transformer.h"

enum { SEQS_MAX = 512 };
#define ANSWERS_MAX ((size_t)16 << 20) /* floats of what comes out of one batch */

struct note { /* whose target it is */
    size_t id;
    int target, n;
};

struct score_batch {
    const struct model *model;
    void *self;
    score_fn fn;
    struct batch batch;
    struct workspace *work;
    struct note *note;
    float *out;
    size_t stride;
    uint64_t rows;
};

size_t score_sequence_max(const struct model *m, size_t more)
{
    size_t most = (size_t)m->dims.context, length = (size_t)m->steer.template_config.max_length;

    if (m->steer.template_config.max_length > 0 && length + more < most)
        most = length + more;
    return most < SCORE_ROWS_MAX ? most : SCORE_ROWS_MAX;
}

struct score_batch *score_batch_new(const struct model *m, size_t longest, size_t stride,
                                    uint64_t *heartbeat, void *self, score_fn fn)
{
    struct score_batch *b = mem_zalloc(1, sizeof(*b));
    int32_t targets = SEQS_MAX * SCHEMA_LABELS_MAX;
    int32_t rows = longest > RUN_SCORE_ROWS ? (int32_t)longest : RUN_SCORE_ROWS;

    if (m->dims.head == HEAD_REGRESSION)
        stride = (size_t)m->dims.head_out;
    if ((size_t)targets * stride > ANSWERS_MAX)
        targets = (int32_t)(ANSWERS_MAX / stride);
    if (targets < SCORE_TARGETS_MAX)
        targets = SCORE_TARGETS_MAX;
    CHECK(longest <= SCORE_ROWS_MAX);
    b->model = m;
    b->self = self;
    b->fn = fn;
    b->stride = stride;
    batch_init(&b->batch, rows, SEQS_MAX, targets,
               m->dims.head == HEAD_REGRESSION ? SEQS_MAX * m->dims.head_out : 0);
    b->work = workspace_new_lean(&m->dims, rows, SEQS_MAX, targets);
    workspace_set_progress(b->work, heartbeat);
    b->note = mem_zalloc((size_t)targets, sizeof(*b->note));
    b->out = mem_zalloc((size_t)targets * b->stride, sizeof(*b->out));
    return b;
}

void score_batch_free(struct score_batch *b)
{
    if (b == NULL)
        return;
    batch_fini(&b->batch);
    workspace_free(b->work);
    free(b->note);
    free(b->out);
    free(b);
}

uint64_t score_batch_rows(const struct score_batch *b)
{
    return b->rows;
}

static void target_add(struct score_batch *b, size_t id, int i, const struct template_target *t,
                       int32_t first_row)
{
    struct batch *x = &b->batch;
    bool regression = b->model->dims.head == HEAD_REGRESSION;
    struct batch_target *out = &x->target[x->targets];

    /* What should come out does not matter here, but must be in range. */
    *out = (struct batch_target){
        .row = first_row + (int32_t)t->row, .id = t->lo, .lo = t->lo, .hi = t->hi, .weight = 1.0f};
    if (regression)
        out->id = x->seqs;
    b->note[x->targets] =
        (struct note){id, i, regression ? b->model->dims.head_out : t->hi - t->lo};
    CHECK(b->note[x->targets].n >= 1 && (size_t)b->note[x->targets].n <= b->stride);
    x->targets++;
}

void score_batch_add(struct score_batch *b, size_t id, const int32_t *ids, size_t n,
                     const struct template_target *target, int targets)
{
    struct batch *x = &b->batch;
    int32_t first_row;

    CHECK(n >= 1 && n <= (size_t)x->rows_cap && targets <= SCORE_TARGETS_MAX);
    if (x->rows + (int32_t)n > x->rows_cap || x->seqs == SEQS_MAX ||
        x->targets + targets > x->targets_cap)
        score_batch_flush(b);
    first_row = x->rows;
    memcpy(x->token + first_row, ids, n * sizeof(int32_t));
    x->rows += (int32_t)n;
    for (int i = 0; i < targets; i++)
        target_add(b, id, i, &target[i], first_row);
    x->seq_begin[++x->seqs] = x->rows;
}

void score_batch_flush(struct score_batch *b)
{
    struct batch *x = &b->batch;

    if (x->seqs > 0) {
        transformer_outputs(&b->model->dims, b->model->params, x, b->out, b->stride, b->work);
        for (int32_t t = 0; t < x->targets; t++)
            b->fn(b->self, b->note[t].id, b->note[t].target, b->out + (size_t)t * b->stride,
                  b->note[t].n);
        b->rows += (uint64_t)x->rows;
    }
    x->rows = x->seqs = x->targets = 0;
    x->seq_begin[0] = 0;
}
