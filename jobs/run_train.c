/*
 * Merging. The leaves of a node are computed from left to right, several at once where that pays and one chunk of the head
 * has all their targets (transformer_joins()); what follows takes such a piece for a leaf. A leaf's gradient goes on a stack;
 * while the two on top are siblings they become their parent (a binary counter), so at most one
 * buffer a level is held. The last leaf of a node closes the chain: whatever is on the stack is
 * added from the top down. That chain is cut into chunks: as soon as the backward of the last leaf
 * leaves a chunk, it is merged through the stack, checked and pushed, while the backward goes on
 * below it. Chunk 0 is always pushed last, after the backward has returned, because the loss goes
 * with it.
 */
#include "jobs/run_train.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fault.h"
#include "base/team.h"
#include "ps/half.h"
#include "ps/units.h"
#include "ps/values.h"

#define PUSH_BYTES_MIN ((size_t)512 << 10) /* smaller pieces of a gradient wait for more */
#define PIECE_BYTES ((size_t)2 << 20) /* merged, checked and hashed while a cache still has it */

struct level {
    uint32_t level, index; /* of the node that the buffer holds */
    float *grad;
    struct fold_sums sums;
};

struct train {
    const struct train_task *task;
    const struct train_env *env;
    struct err *e;
    int rc; /* of a wait or a push inside the forward and backward */
    const float *params;
    bool whole;    /* all parameters of the step have been waited for */
    uint32_t join; /* units that are computed together where they can be: 1 or 2, 4, ... */
    struct batch batch;
    struct workspace *workspace;
    struct param_source source;
    struct unit_sample *sample; /* [global_batch] of this step */
    bool *done;                 /* [units] pushed in this step */
    float **buffer;             /* all gradient buffers; [0, used) hold something of this step */
    size_t buffers, used;
    struct level stack[34];
    uint32_t depth;
    /* the node that is being closed */
    uint64_t step;
    struct tree_node node;
    float *last;           /* gradient of its last leaf */
    size_t final_begin;    /* elements from here on are final */
    uint32_t pushed_begin; /* chunks from here on are pushed */
};

/* ---- sizes ----------------------------------------------------------------------------------- */

static int longest_first(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;

    return x > y ? -1 : x < y;
}

/* units_deal() gives a sample to the least loaded unit, so no unit gets above the mean plus one
 * sample; the mean is at most that of the longest examples, each as often as there are passes that
 * a step may touch. */
void run_train_bounds(const struct train_task *task, int32_t *rows, int32_t *seqs, int32_t *targets)
{
    uint32_t n = examples_count(task->examples);
    uint32_t passes = task->global_batch / n + 2;
    uint32_t *length = mem_alloc((size_t)n * sizeof *length);
    uint64_t sum = 0;
    uint64_t most;

    for (uint32_t i = 0; i < n; i++)
        length[i] = examples_length(task->examples, i);
    qsort(length, n, sizeof *length, longest_first);
    for (uint32_t j = 0; j < task->global_batch; j++)
        sum += length[j / passes];
    most = sum / task->units + 1 + length[0];
    if (most > sum)
        most = sum;
    free(length);
    CHECK(most <= INT32_MAX);
    *rows = most > 0 ? (int32_t)most : 1;
    *seqs = (int32_t)task->global_batch;
    most = (uint64_t)task->global_batch * examples_targets_max(task->examples);
    if (most > 2 * (uint64_t)*rows) /* a row has at most one of its text and one of the list */
        most = 2 * (uint64_t)*rows;
    CHECK(most <= INT32_MAX);
    *targets = most > 0 ? (int32_t)most : 1;
}

struct tree_span run_train_part(struct tree_span span, uint32_t part, uint32_t parts)
{
    uint64_t n = span.end - span.begin;

    CHECK(part < parts);
    return (struct tree_span){span.begin + (uint32_t)(n * part / parts),
                              span.begin + (uint32_t)(n * (part + 1) / parts)};
}

static float *floats_new(size_t n)
{
    return mem_large(n * sizeof(float));
}

/* Joined units read the weights once, and their gradients are added up before they get to memory. Below JOIN_PARAMS_MIN the
 * caches hold the weights anyway; beyond JOIN_ROWS_MAX rows a unit makes use of them by itself. */
#define JOIN_PARAMS_MIN ((size_t)1 << 25)
#define JOIN_ROWS_MAX 512

static uint32_t units_joined(const struct train_task *task, int32_t rows)
{
    uint32_t join = 1;

    if (task->join != 0)
        return task->half ? 1 : task->join;
    if (task->half || task->dims->head != HEAD_LM || task->params < JOIN_PARAMS_MIN)
        return 1;
    while (2 * join <= PARTS_MAX && join < task->units && 2 * (int32_t)join * rows <= JOIN_ROWS_MAX)
        join *= 2;
    return join;
}

static void train_init(struct train *t, const struct train_task *task, const struct train_env *env,
                       struct err *e)
{
    struct train_task all = *task;
    int32_t rows, seqs, targets, step_rows;
    int32_t scores = 0;

    memset(t, 0, sizeof *t);
    t->task = task;
    t->env = env;
    t->e = e;
    run_train_bounds(task, &rows, &seqs, &targets);
    t->join = units_joined(task, rows);
    if (t->join > 1) {
        all.units = 1;
        run_train_bounds(&all, &step_rows, &seqs, &targets);
        rows = rows < step_rows / (int32_t)t->join ? rows * (int32_t)t->join : step_rows;
        targets = targets < 2 * rows ? targets : 2 * rows;
    }
    if (task->dims->head == HEAD_REGRESSION)
        scores = targets * task->dims->head_out;
    batch_init(&t->batch, rows, seqs, targets, scores);
    t->workspace =
        (task->recompute ? workspace_new_lean : workspace_new)(task->dims, rows, seqs, targets);
    if (task->arithmetic != GEMM_F32)
        workspace_set_gemm(t->workspace, task->arithmetic);
    if (env->team != NULL || t->join > 1)
        workspace_set_team(t->workspace, env->team, (int32_t)t->join);
    workspace_set_progress(t->workspace, env->progress);
    t->sample = mem_zalloc(task->global_batch, sizeof *t->sample);
    t->done = mem_zalloc(task->units, sizeof *t->done);
}

static void train_fini(struct train *t)
{
    for (size_t i = 0; i < t->buffers && t->env->floats_new == NULL; i++)
        free(t->buffer[i]);
    free(t->buffer);
    free(t->done);
    free(t->sample);
    workspace_free(t->workspace);
    batch_fini(&t->batch);
}

/* A gradient, not written to before all parameters of the step are there: until then the hosts may still read
 * what was pushed in it. NULL: no memory. Given back all at once when the step is over; a buffer
 * that was merged away is handed back by buffer_drop(). */
static float *buffer_take(struct train *t)
{
    float *g;

    if (t->used == t->buffers) {
        g = t->env->floats_new != NULL ? t->env->floats_new(t->env->self)
                                       : floats_new(t->task->params);
        if (g == NULL)
            return NULL;
        t->buffer = mem_grow(t->buffer, t->buffers + 1, sizeof *t->buffer);
        t->buffer[t->buffers++] = g;
    }
    return t->buffer[t->used++];
}

static void buffer_drop(struct train *t, const float *g)
{
    for (size_t i = t->used; i-- > 0;) {
        if (t->buffer[i] == g) {
            float *swap = t->buffer[--t->used];
            t->buffer[t->used] = t->buffer[i];
            t->buffer[i] = swap;
            return;
        }
    }
    CHECK(!"a buffer of ours");
}

/* ---- one node -------------------------------------------------------------------------------- */

/* What damaged memory does; the value stays finite. */
static void bit_flip(float *x)
{
    uint32_t bits;

    memcpy(&bits, x, sizeof bits);
    bits ^= 1u << 22;
    memcpy(x, &bits, sizeof bits);
}

static void values_merge(const struct train *t, float *into, const float *from, size_t n)
{
    if (t->task->half)
        half_add(into, from, n);
    else
        values_add(into, from, n);
}

/* What was computed of these parameters counts. */
static bool is_still(const struct train *t)
{
    return t->env->params_still == NULL || t->env->params_still(t->env->self, t->step);
}

struct closing {
    struct train *t;
    size_t at, to;
    atomic_bool finite; /* all of it */
};

/* A part of a piece: merged through the stack and checked while a cache has it. */
static void piece_part(void *self, size_t part, size_t parts)
{
    struct closing *p = self;
    const struct train *t = p->t;
    size_t n = p->to - p->at, at = p->at + n * part / parts, len = p->at + n * (part + 1) / parts - at;
    float *top = t->last;

    if (t->task->half)
        half_round(top + at, len);
    for (uint32_t i = t->depth; i-- > 0;) {
        values_merge(t, t->stack[i].grad + at, top + at, len);
        top = t->stack[i].grad;
    }
    if (!values_finite(top + at, len))
        atomic_store_explicit(&p->finite, false, memory_order_relaxed);
}

/* Merges elements [at, to) of the closing node and checks them. */
static int piece_close(struct train *t, size_t at, size_t to, float **sum)
{
    struct closing p = {.t = t, .at = at, .to = to, .finite = true};

    *sum = t->depth > 0 ? t->stack[0].grad : t->last;
    team_run(t->env->team, piece_part, &p);
    if (!p.finite && is_still(t)) {
        struct tree_span units = tree_leaves(t->task->units, t->node);
        return err_set(t->e, ERR_NUMERIC,
                       "step %" PRIu64
                       ", units [%u, %u): the gradient of elements [%zu, %zu) is not finite",
                       t->step + 1, units.begin, units.end, at, to);
    }
    return 0;
}

/* Merges chunks [begin, end) of the closing node and pushes them, from the end down. */
static int chunks_close(struct train *t, uint32_t begin, uint32_t end, const struct fold_sums *sums)
{
    size_t chunk_elems = t->task->chunk_elems;
    uint32_t most = (uint32_t)(PIECE_BYTES / (chunk_elems * sizeof(float)));
    int rc = 0;

    most = most < 1 ? 1 : most;
    while (rc == 0 && end > begin) {
        uint32_t first = end - begin > most ? end - most : begin;
        size_t at = first * chunk_elems, to = end * chunk_elems;
        float *sum;

        if (to > t->task->params)
            to = t->task->params;
        rc = piece_close(t, at, to, &sum);
        if (rc != 0)
            break;
        if (!is_still(t))
            return TRAIN_OVER;
        if (fault_hit(FAULT_WORKER_GRAD_CORRUPT))
            bit_flip(sum + at);
        rc = t->env->grads_push(t->env->self, t->step, t->node, first, end, sum,
                                first == 0 ? sums : NULL, t->e);
        end = first;
    }
    return rc;
}

/* struct grad_sink: elements [begin, end) of the last leaf are final. */
static void on_ready(void *self, size_t begin, size_t end)
{
    struct train *t = self;
    uint32_t whole;

    if (end < t->final_begin)
        return; /* a gap above: wait for it, or for the end */
    if (begin < t->final_begin)
        t->final_begin = begin;
    whole = (uint32_t)((t->final_begin + t->task->chunk_elems - 1) / t->task->chunk_elems);
    if (whole == 0)
        whole = 1;
    if (t->rc != 0 || whole >= t->pushed_begin ||
        (size_t)(t->pushed_begin - whole) * t->task->chunk_elems * sizeof(float) < PUSH_BYTES_MIN)
        return;
    t->rc = chunks_close(t, whole, t->pushed_begin, NULL);
    t->pushed_begin = whole;
}

/* struct param_source: the forward comes to parameters [begin, end). */
static bool on_need(void *self, size_t begin, size_t end)
{
    struct train *t = self;

    if (t->rc == 0 && !t->whole && t->env->params_need != NULL)
        t->rc = t->env->params_need(t->env->self, t->step, begin, end, t->e);
    if (t->rc != 0)
        return false; /* and nothing is written to a gradient that was pushed in the step before */
    t->whole = t->whole || end == t->task->params;
    return true;
}

static void batch_clear(struct train *t)
{
    struct batch *b = &t->batch;

    b->rows = b->seqs = b->targets = b->parts = 0;
    b->seq_begin[0] = 0;
    b->part_seq[0] = 0;
}

/* One more part of the batch. */
static void batch_fill(struct train *t, uint32_t unit)
{
    struct batch *b = &t->batch;

    for (uint32_t j = 0; j < t->task->global_batch; j++)
        if (t->sample[j].unit == unit)
            examples_append(t->task->examples, t->sample[j].example, t->task->seed,
                            t->sample[j].draw, &t->task->drop, b);
    b->part_seq[++b->parts] = b->seqs;
}

/* Fills the batch with the next units of [at, end): how many. */
static uint32_t piece_fill(struct train *t, uint32_t at, uint32_t end)
{
    uint32_t n = end - at < t->join ? end - at : t->join;

    batch_clear(t);
    if (at % t->join == 0 && n > 1) {
        for (uint32_t i = 0; i < n; i++)
            batch_fill(t, at + i);
        if (transformer_joins(t->workspace, &t->batch))
            return n;
        batch_clear(t);
    }
    batch_fill(t, at);
    return 1;
}

/* Nothing computed, to measure all the rest. */
static void piece_skip(struct train *t, float *grad, struct loss_out *out)
{
    if (on_need(t, 0, t->task->params))
        memset(grad, 0, t->task->params * sizeof *grad);
    memset(out, 0, PARTS_MAX * sizeof *out);
    out->weight_sum = (double)t->batch.rows;
}

static struct fold_sums sums_add(struct fold_sums a, struct fold_sums b)
{
    return (struct fold_sums){a.loss + b.loss, a.weight + b.weight, a.tokens + b.tokens};
}

/* Of n leaves of an aligned subtree, in place. */
static struct fold_sums sums_tree(struct fold_sums *sums, uint32_t n)
{
    for (; n > 1; n = (n + 1) / 2)
        for (uint32_t i = 0; i < (n + 1) / 2; i++)
            sums[i] = 2 * i + 1 < n ? sums_add(sums[2 * i], sums[2 * i + 1]) : sums[2 * i];
    return sums[0];
}

/* Forward and backward of the units in the batch into grad, which is overwritten. */
static int piece_run(struct train *t, uint32_t unit, float *grad, bool closes,
                     struct fold_sums *sums)
{
    const struct grad_sink sink = {t, on_ready};
    struct loss_out out[PARTS_MAX] = {{0, 0, 0}};
    struct fold_sums each[PARTS_MAX];
    const struct batch *b = &t->batch;

    if (t->env->cancelled(t->env->self))
        return err_set(t->e, ERR_CANCELLED, "step %" PRIu64 ": told to stop", t->step + 1);
    for (int32_t i = 0; i < b->parts; i++)
        fault_hit(FAULT_WORKER_COMPUTE_SLOW);
    if (fault_hit(FAULT_WORKER_COMPUTE_HANG))
        for (;;)
            pause();
    if (fault_hit(FAULT_WORKER_COMPUTE_SKIP))
        piece_skip(t, grad, out);
    else
        transformer_train_set(t->task->dims, t->params, b, grad, closes ? &sink : NULL,
                              t->workspace, out);
    if (t->rc == 0 && !is_still(t))
        t->rc = TRAIN_OVER;
    if (t->rc != 0)
        return t->rc;
    if (t->task->half && !closes)
        half_round(grad, t->task->params);
    for (int32_t i = 0; i < b->parts; i++) {
        int32_t rows = b->seq_begin[b->part_seq[i + 1]] - b->seq_begin[b->part_seq[i]];

        each[i] = (struct fold_sums){out[i].loss_sum, out[i].weight_sum, (uint64_t)rows};
        if (!isfinite(out[i].loss_sum))
            return err_set(t->e, ERR_NUMERIC, "step %" PRIu64 ", unit %u: the loss is %g",
                           t->step + 1, unit + (uint32_t)i, out[i].loss_sum);
    }
    *sums = sums_tree(each, (uint32_t)b->parts);
    return 0;
}

/* Units that are not the node's last: on the stack, and up while the top two are siblings. n is 1, 2, 4, ... */
static void piece_stack(struct train *t, uint32_t unit, uint32_t n, float *grad,
                        struct fold_sums sums)
{
    uint32_t level = (uint32_t)__builtin_ctz(n);

    t->stack[t->depth++] = (struct level){level, unit >> level, grad, sums};
    while (t->depth >= 2) {
        struct level *right = &t->stack[t->depth - 1];
        struct level *left = &t->stack[t->depth - 2];
        if (left->level != right->level || (left->index & 1) != 0)
            break;
        values_merge(t, left->grad, right->grad, t->task->params);
        left->sums = sums_add(left->sums, right->sums);
        left->level++;
        left->index >>= 1;
        buffer_drop(t, right->grad);
        t->depth--;
    }
}

static int no_memory(const struct train *t)
{
    return err_set(t->e, ERR_LIMIT, "no memory for %zu gradients of %zu floats", t->buffers + 1,
                   t->task->params);
}

static int node_run(struct train *t, struct tree_node node)
{
    struct tree_span units = tree_leaves(t->task->units, node);
    uint32_t chunks =
        (uint32_t)((t->task->params + t->task->chunk_elems - 1) / t->task->chunk_elems);
    struct fold_sums sums;
    int rc = 0;

    t->node = node;
    t->depth = 0;
    t->rc = 0;
    t->final_begin = t->task->params;
    t->pushed_begin = chunks;
    for (uint32_t u = units.begin, n; u < units.end; u += n) {
        n = piece_fill(t, u, units.end);
        t->last = buffer_take(t);
        rc = t->last == NULL ? no_memory(t) : piece_run(t, u, t->last, u + n == units.end, &sums);
        if (rc != 0)
            return rc;
        if (u + n < units.end)
            piece_stack(t, u, n, t->last, sums);
    }
    for (uint32_t i = t->depth; i-- > 0;)
        sums = sums_add(t->stack[i].sums, sums);
    if (t->pushed_begin > 1)
        rc = chunks_close(t, 1, t->pushed_begin, NULL);
    if (rc == 0)
        rc = chunks_close(t, 0, 1, &sums);
    /* What was merged into stack[0] is free again; the node itself is held until the step is over.
     */
    for (uint32_t i = 1; i < t->depth; i++)
        buffer_drop(t, t->stack[i].grad);
    if (t->depth > 0)
        buffer_drop(t, t->last);
    for (uint32_t u = units.begin; rc == 0 && u < units.end; u++)
        t->done[u] = true;
    return rc;
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* All units of the span that this thread has not pushed in this step. */
static int span_run(struct train *t, struct tree_span span)
{
    uint32_t at = span.begin;
    int rc = 0;

    while (rc == 0 && at < span.end) {
        struct tree_node node[TREE_COVER_MAX];
        struct tree_span run = {at, at};
        size_t n;
        if (t->done[at]) {
            at++;
            continue;
        }
        while (run.end < span.end && !t->done[run.end])
            run.end++;
        n = tree_cover(t->task->units, run, node, TREE_COVER_MAX);
        for (size_t i = 0; rc == 0 && i < n; i++)
            rc = node_run(t, node[i]);
        at = run.end;
    }
    return rc;
}

/* A span of this step only, whatever was done before. */
static int extra_run(struct train *t, struct tree_span span)
{
    struct tree_node node[TREE_COVER_MAX];
    size_t n = tree_cover(t->task->units, span, node, TREE_COVER_MAX);
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = node_run(t, node[i]);
    return rc;
}

static uint32_t length_of(void *self, uint32_t example)
{
    return examples_length(self, example);
}

/* One step: ends when the next version is there. *version: in: of t->params; out: what came. */
static int step_run(struct train *t, uint64_t *version)
{
    int rc = TRAIN_REASSIGNED;

    t->step = *version;
    t->used = 0;
    t->whole = false;
    memset(t->done, 0, t->task->units * sizeof *t->done);
    units_deal(t->task->seed, t->step, t->task->global_batch, t->task->units,
               examples_count(t->task->examples), length_of, (void *)(uintptr_t)t->task->examples,
               t->sample);
    while (rc == TRAIN_REASSIGNED) {
        struct tree_span span = t->env->span(t->env->self);
        CHECK(span.begin <= span.end && span.end <= t->task->units);
        rc = span_run(t, span);
        while (rc == 0 && t->env->extra != NULL && t->env->extra(t->env->self, t->step, &span)) {
            CHECK(span.begin < span.end && span.end <= t->task->units);
            rc = extra_run(t, span);
        }
        if (rc == 0 || rc == TRAIN_OVER)
            rc = t->env->params_wait(t->env->self, t->step + 1, &t->params, version, t->e);
    }
    return rc;
}

int run_train(const struct train_task *task, uint64_t start, const struct train_env *env,
              struct err *e)
{
    struct train t;
    uint64_t version = start;
    int rc = TRAIN_REASSIGNED;

    train_init(&t, task, env, e);
    t.source = (struct param_source){&t, on_need};
    workspace_set_source(t.workspace, &t.source);
    while (rc == TRAIN_REASSIGNED)
        rc = env->params_wait(env->self, start, &t.params, &version, e);
    while (rc == 0 && version < task->steps)
        rc = step_run(&t, &version);
    train_fini(&t);
    return rc;
}
