/*
 * head: targets are first ordered so that those with the same [lo, hi) are neighbours (stable, ranges in order of first
 * appearance), their rows gathered and normed; each run of equal ranges is then walked in chunks of rows:
 * logits = y W^T, cross entropy, and when training dlogits in place, dy = dlogits W, dW += dlogits^T y.
 */
#include "model/head.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "model/ops.h"
#include "model/vmath.h"

#define CHUNK_ELEMS ((size_t)1 << 24)
#define VOCAB_BLOCK 1536
#define CHUNK_ROWS_MIN 64
#define CHUNK_ROWS_MAX 256

size_t head_chunk(const struct dims *d)
{
    size_t rows = CHUNK_ELEMS / (size_t)d->vocab;

    return rows < CHUNK_ROWS_MIN ? CHUNK_ROWS_MIN : rows > CHUNK_ROWS_MAX ? CHUNK_ROWS_MAX : rows;
}

void head_carve(struct head_work *h, struct carve *c, const struct dims *d, size_t targets_max)
{
    size_t width = (size_t)d->width, chunk = head_chunk(d);
    size_t logits = d->head == HEAD_REGRESSION
                        ? targets_max * (size_t)d->head_out
                        : (chunk < targets_max ? chunk : targets_max) * (size_t)d->vocab;

    h->order = carve_int(c, targets_max);
    h->x = carve_real(c, targets_max * width);
    h->y = carve_real(c, targets_max * width);
    h->dy = carve_real(c, targets_max * width);
    h->inv = carve_real(c, targets_max);
    h->loss = carve_bytes(c, targets_max * sizeof *h->loss);
    h->logits = carve_real(c, logits);
}

static void progress_bump(const struct head_work *h)
{
    if (h->progress != NULL)
        __atomic_fetch_add(h->progress, 1, __ATOMIC_RELAXED);
}

static bool same_range(const struct batch_target *a, const struct batch_target *b)
{
    return a->lo == b->lo && a->hi == b->hi;
}

static void order_targets(struct head_work *h, const struct dims *d, const struct batch *b,
                          bool weighted_only)
{
    size_t kept = 0, done = 0;

    for (int32_t i = 0; i < b->targets; i++)
        if (!weighted_only || b->target[i].weight != 0.0f)
            h->order[kept++] = i;
    h->targets = kept;
    while (d->head == HEAD_LM &&
           done < kept) { /* rotate the targets of the next range to the front */
        const struct batch_target *first = &b->target[h->order[done]];
        size_t end = done + 1, at;

        while (end < kept && same_range(first, &b->target[h->order[end]]))
            end++;
        for (at = end; at < kept; at++) {
            int32_t id = h->order[at];

            if (!same_range(first, &b->target[id]))
                continue;
            memmove(h->order + end + 1, h->order + end, (at - end) * sizeof *h->order);
            h->order[end++] = id;
        }
        done = end;
    }
}

static size_t target_place(const struct head_work *h, const struct head_rows *rows,
                           const struct batch *b, size_t i)
{
    return (size_t)rows->place[b->target[h->order[i]].row];
}

static void rows_gather(struct head_work *h, const struct dims *d, const struct offsets *o,
                        const real *params, const struct head_rows *rows, const struct batch *b)
{
    size_t c = (size_t)d->width;

    for (size_t i = 0; i < h->targets; i++)
        memcpy(h->x + i * c, rows->hidden + target_place(h, rows, b, i) * c, c * sizeof *h->x);
    ops_rmsnorm(h->x, params + o->final_norm, h->y, h->inv, h->targets, c, (real)d->norm_eps);
}

/* Targets [begin, end) of order[], all of one range, a chunk. */
struct run {
    size_t begin, end;
    size_t lo, n, whole; /* vocabulary rows [lo, lo + n) of so many */
};

static bool run_next(const struct head_work *h, const struct dims *d, const struct batch *b,
                     struct run *r)
{
    size_t most = head_chunk(d), left, chunks;
    const struct batch_target *first;

    if (r->end == h->targets)
        return false;
    r->begin = r->end;
    first = &b->target[h->order[r->begin]];
    while (r->end < h->targets && same_range(first, &b->target[h->order[r->end]]))
        r->end++;
    /* Equal chunks: a product of a few rows costs about as much as one of many. Even, so that bfloat16 has whole pairs. */
    left = r->end - r->begin;
    chunks = (left + most - 1) / most;
    left = ((left + chunks - 1) / chunks + 1) / 2 * 2;
    left = left < most ? left : most;
    if (r->end - r->begin > left)
        r->end = r->begin + left;
    r->lo = (size_t)first->lo;
    r->n = (size_t)(first->hi - first->lo);
    return true;
}

static void run_logits(const struct head_work *h, const struct dims *d, const struct offsets *o,
                       const real *params, const struct run *r)
{
    size_t c = (size_t)d->width;

    linear_forward(h->linear, h->y + r->begin * c, c, params + o->head + r->lo * c, h->logits, r->n,
                   r->end - r->begin, c, r->n, false);
    progress_bump(h);
}

/* p -> weight (p - 1 at the target). */
static void xent_gradient(real *p, size_t n, size_t target, real weight)
{
    size_t i = 0;
    vreal w = vm_set(weight);

    for (; i + VM_LANES <= n; i += VM_LANES)
        vm_store(p + i, vm_load(p + i) * w);
    for (; i < n; i++)
        p[i] *= weight;
    p[target] -= weight;
}

/* By blocks of the vocabulary: what the one product read of dlogits is still in the cache for the other. */
static void run_backward(const struct head_work *h, size_t c, const real *w, real *dw,
                         const struct run *r, const struct head_rows *rows)
{
    struct parts parts = {1, {0, r->end - r->begin}};
    struct linear_keep keep = rows->keep != NULL ? *rows->keep : (struct linear_keep){0};
    size_t n = r->end - r->begin;
    bool set = rows->set && r->begin == 0 && r->n == r->whole;

    if (rows->parts != NULL && rows->parts->n > 1)
        parts = h->parts; /* one run has them all */
    for (size_t v = 0; v < r->n; v += VOCAB_BLOCK) {
        size_t words = r->n - v < VOCAB_BLOCK ? r->n - v : VOCAB_BLOCK;

        keep.first = v;
        linear_dx(h->linear, h->logits + v, r->n, w + v * c, h->dy + r->begin * c, c, n, c, words,
                  v > 0);
        linear_dw(h->linear, h->logits + v, r->n, h->y + r->begin * c, c, dw + v * c, &parts, c,
                  words, set, rows->keep != NULL ? &keep : NULL);
    }
}

/* Softmax and, for a gradient, dlogits of this thread's share of a run's rows. */
struct softening {
    struct head_work *h;
    const struct batch *b;
    const struct run *r;
    bool grad;
};

static void soften_item(void *self, size_t part, size_t parts)
{
    const struct softening *x = self;
    struct head_work *h = x->h;
    const struct run *r = x->r;
    size_t begin, end;

    linear_share(r->end - r->begin, 1, part, parts, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const struct batch_target *t = &x->b->target[h->order[r->begin + i]];
        size_t id = (size_t)t->id - r->lo;
        real *row = h->logits + i * r->n, logit = row[id];
        real lse = x->grad ? ops_softmax(row, r->n) : ops_logsumexp(row, r->n);

        h->loss[r->begin + i] = (double)lse - (double)logit;
        if (x->grad)
            xent_gradient(row, r->n, id, (real)t->weight);
    }
}

/* Which targets are of which part of the batch: h->parts. */
static void parts_find(struct head_work *h, const struct head_rows *rows, const struct batch *b)
{
    uint32_t part = 0;

    h->parts = (struct parts){.n = rows->parts != NULL ? rows->parts->n : 1};
    for (size_t i = 0; i < h->targets && h->parts.n > 1; i++)
        while ((size_t)b->target[h->order[i]].row >= rows->parts->begin[part + 1])
            h->parts.begin[++part] = i;
    while (part < h->parts.n)
        h->parts.begin[++part] = h->targets;
}

static void lm_train(struct head_work *h, const struct dims *d, const struct offsets *o,
                     const real *params, const struct batch *b, const struct head_rows *rows,
                     real *grad, struct loss_out *out)
{
    size_t c = (size_t)d->width;
    struct run r = {.whole = (size_t)d->vocab};
    uint32_t part = 0;

    while (run_next(h, d, b, &r)) {
        struct softening x = {h, b, &r, grad != NULL};

        if (rows->set && r.begin == 0 && r.n != r.whole)
            memset(grad + o->head, 0, r.whole * c * sizeof *grad);
        run_logits(h, d, o, params, &r);
        team_run(linear_team(h->linear), soften_item, &x);
        for (size_t i = r.begin; i < r.end; i++) {
            double weight = (double)b->target[h->order[i]].weight;

            while (i >= h->parts.begin[part + 1])
                part++;
            out[part].loss_sum += weight * h->loss[i];
            out[part].weight_sum += weight;
        }
        if (grad != NULL)
            run_backward(h, c, params + o->head + r.lo * c, grad + o->head + r.lo * c, &r, rows);
    }
}

/* Sum of squared errors of the present scores; pred becomes d(weight * loss)/d(pred); present counts them. */
static double squared_error(real *pred, const float *score, size_t k, real weight, size_t *present)
{
    double sum = 0.0;

    *present = 0;
    for (size_t j = 0; j < k; j++) {
        real error = pred[j] - (real)score[j];

        if (isnan(score[j])) {
            pred[j] = 0;
            continue;
        }
        sum += (double)error * (double)error;
        pred[j] = 2 * weight * error;
        ++*present;
    }
    return sum;
}

static void regression_train(struct head_work *h, const struct dims *d, const struct offsets *o,
                             const real *params, const struct batch *b,
                             const struct head_rows *rows, real *grad, struct loss_out *out)
{
    const struct parts all = {1, {0, h->targets}};
    size_t c = (size_t)d->width, k = (size_t)d->head_out, present;

    linear_forward(h->linear, h->y, c, params + o->head, h->logits, k, h->targets, c, k, false);
    for (size_t i = 0; i < h->targets; i++) {
        const struct batch_target *t = &b->target[h->order[i]];
        double sum = squared_error(h->logits + i * k, b->score + (size_t)t->id * k, k,
                                   (real)t->weight, &present);

        out->loss_sum += (double)t->weight * sum;
        out->weight_sum += (double)t->weight * (double)present;
    }
    progress_bump(h);
    if (grad == NULL)
        return;
    linear_dx(h->linear, h->logits, k, params + o->head, h->dy, c, h->targets, c, k, false);
    linear_dw(h->linear, h->logits, k, h->y, c, grad + o->head, &all, c, k, rows->set, NULL);
}

/* Adds to dhidden: a row may have several targets. The norm's own gradient, part by part. */
static void norm_backward(const struct head_work *h, const struct head_rows *rows,
                          const struct batch *b, const real *weight, real *dhidden, real *g,
                          size_t c)
{
    struct tree_adder adder = {0};

    for (uint32_t p = 0; p < h->parts.n; p++) {
        real *to = p == 0 ? g : rows->gain + p * c;

        if (rows->set)
            memset(to, 0, c * sizeof *to);
        for (size_t i = h->parts.begin[p]; i < h->parts.begin[p + 1]; i++)
            ops_rmsnorm_backward(h->dy + i * c, h->x + i * c, weight, h->inv + i,
                                 dhidden + target_place(h, rows, b, i) * c, to, 1, c);
        tree_adder_leaf(&adder, p, to, c, 1, c);
    }
    tree_adder_end(&adder, 1, c);
}

void head_train(struct head_work *h, const struct dims *d, const real *params,
                const struct head_rows *rows, const struct batch *b, real *dhidden, real *grad,
                struct loss_out *out)
{
    struct offsets o;
    size_t c = (size_t)d->width;

    dims_offsets(d, &o);
    order_targets(h, d, b, true);
    parts_find(h, rows, b);
    rows_gather(h, d, &o, params, rows, b);
    if (h->targets > 0) {
        if (d->head == HEAD_REGRESSION)
            regression_train(h, d, &o, params, b, rows, grad, out);
        else
            lm_train(h, d, &o, params, b, rows, grad, out);
    }
    if (grad == NULL)
        return;
    memset(dhidden, 0, rows->n * c * sizeof *dhidden);
    norm_backward(h, rows, b, params + o.final_norm, dhidden, grad + o.final_norm, c);
}

void head_losses(struct head_work *h, const struct dims *d, const real *params,
                 const struct head_rows *rows, const struct batch *b, real *loss)
{
    struct offsets o;
    struct run r = {0};
    size_t c = (size_t)d->width, k = (size_t)d->head_out, present;

    dims_offsets(d, &o);
    order_targets(h, d, b, false);
    rows_gather(h, d, &o, params, rows, b);
    if (d->head == HEAD_REGRESSION) {
        linear_forward(h->linear, h->y, c, params + o.head, h->logits, k, h->targets, c, k, false);
        for (size_t i = 0; i < h->targets; i++)
            loss[h->order[i]] = (real)squared_error(
                h->logits + i * k, b->score + (size_t)b->target[h->order[i]].id * k, k, 1,
                &present);
        return;
    }
    while (run_next(h, d, b, &r)) {
        run_logits(h, d, &o, params, &r);
        for (size_t i = r.begin; i < r.end; i++) {
            const real *row = h->logits + (i - r.begin) * r.n;

            loss[h->order[i]] =
                ops_logsumexp(row, r.n) - row[(size_t)b->target[h->order[i]].id - r.lo];
        }
    }
}

void head_outputs(struct head_work *h, const struct dims *d, const real *params,
                  const struct head_rows *rows, const struct batch *b, real *out, size_t stride)
{
    struct offsets o;
    struct run r = {0};
    size_t c = (size_t)d->width, k = (size_t)d->head_out;

    dims_offsets(d, &o);
    order_targets(h, d, b, false);
    rows_gather(h, d, &o, params, rows, b);
    if (d->head == HEAD_REGRESSION) {
        CHECK(stride >= k);
        linear_forward(h->linear, h->y, c, params + o.head, h->logits, k, h->targets, c, k, false);
        for (size_t i = 0; i < h->targets; i++)
            memcpy(out + (size_t)h->order[i] * stride, h->logits + i * k, k * sizeof *out);
        return;
    }
    while (run_next(h, d, b, &r)) {
        CHECK(stride >= r.n);
        run_logits(h, d, &o, params, &r);
        for (size_t i = r.begin; i < r.end; i++) {
            real *row = h->logits + (i - r.begin) * r.n;

            ops_logsoftmax(row, r.n);
            memcpy(out + (size_t)h->order[i] * stride, row, r.n * sizeof *out);
        }
    }
}
