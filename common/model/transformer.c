/*
 * transformer: forward and backward over a workspace (workspace_inner.h); without a gradient all layers share the first
 * layer's buffers. Normed rows are made again in the backward (cheaper than keeping them); dgu takes gu's place.
 * q, k, v are one matrix and one GEMM, gate and up another, because their weights are neighbours in the layout.
 * After the last attention only rows that a target reads go on: they are gathered, and their gradients scattered back.
 * A lean workspace keeps each layer's input alone: all layers share the rest, which the backward computes again, by the
 * same calls on the same numbers; the last layer's is still there.
 */
#include "model/workspace_inner.h"

#include <string.h>

#include "base/err.h"
#include "model/ops.h"

static bool params_need(const struct workspace *w, size_t begin, size_t end)
{
    return w->source == NULL || w->source->need(w->source->self, begin, end);
}

static void progress_bump(const struct workspace *w)
{
    if (w->progress != NULL)
        __atomic_fetch_add(w->progress, 1, __ATOMIC_RELAXED);
}

static bool dims_same(const struct dims *a, const struct dims *b)
{
    return a->vocab == b->vocab && a->width == b->width && a->layers == b->layers &&
           a->heads == b->heads && a->kv_heads == b->kv_heads && a->head_dim == b->head_dim &&
           a->ffn == b->ffn && a->context == b->context && a->norm_eps == b->norm_eps &&
           a->rope_theta == b->rope_theta && a->tied == b->tied && a->head == b->head &&
           a->head_out == b->head_out;
}

/* A batch is made by us from data that was checked: what is wrong here is our mistake. */
static void batch_check(const struct workspace *w, const struct dims *d, const struct batch *b)
{
    CHECK(dims_same(d, &w->dims));
    CHECK(b->rows >= 0 && b->rows <= w->rows_max && b->seqs <= w->seqs_max &&
          b->targets <= w->targets_max);
    CHECK(b->seq_begin[0] == 0 && b->seq_begin[b->seqs] == b->rows);
    for (int32_t i = 0; i < b->seqs; i++)
        CHECK(b->seq_begin[i] <= b->seq_begin[i + 1] &&
              b->seq_begin[i + 1] - b->seq_begin[i] <= d->context);
    for (int32_t i = 0; i < b->rows; i++)
        CHECK(b->token[i] >= 0 && b->token[i] < d->vocab);
    for (int32_t i = 0; i < b->targets; i++) {
        const struct batch_target *t = &b->target[i];

        CHECK(t->row >= 0 && t->row < b->rows && t->weight >= 0.0f);
        if (d->head == HEAD_LM)
            CHECK(t->lo >= 0 && t->lo <= t->id && t->id < t->hi && t->hi <= d->vocab);
        else
            CHECK(t->id >= 0 && t->id < b->scores_cap / d->head_out);
    }
}

/* ---- rows that targets read ---- */

static void rows_want(struct workspace *w, const struct batch *b, bool weighted_only)
{
    memset(w->wanted, 0, (size_t)b->rows);
    w->n_wanted = 0;
    for (int32_t i = 0; i < b->targets; i++)
        if (!weighted_only || b->target[i].weight != 0.0f)
            w->wanted[b->target[i].row] = 1;
    for (int32_t r = 0; r < b->rows; r++) {
        w->place[r] = (int32_t)w->n_wanted;
        if (w->wanted[r])
            w->row[w->n_wanted++] = r;
    }
}

static void rows_gather(const struct workspace *w, const real *all, real *wanted, size_t width)
{
    for (size_t i = 0; i < w->n_wanted; i++)
        memcpy(wanted + i * width, all + (size_t)w->row[i] * width, width * sizeof *all);
}

static void rows_scatter(const struct workspace *w, const real *wanted, real *all, size_t rows,
                         size_t width)
{
    memset(all, 0, rows * width * sizeof *all);
    for (size_t i = 0; i < w->n_wanted; i++)
        memcpy(all + (size_t)w->row[i] * width, wanted + i * width, width * sizeof *all);
}

static uint32_t touched_find(const struct workspace *w, int32_t token)
{
    size_t low = 0, high = w->n_touched;

    while (high - low > 1) {
        size_t middle = (low + high) / 2;

        if (w->touched[middle] <= token)
            low = middle;
        else
            high = middle;
    }
    return (uint32_t)low;
}

/* Tokens of the batch, each once, ascending. Insertion: they are few. */
static void tokens_touch(struct workspace *w, const struct batch *b)
{
    for (int32_t r = 0; r < b->rows; r++) {
        size_t at = w->n_touched;

        while (at > 0 && w->touched[at - 1] > b->token[r])
            at--;
        if (at > 0 && w->touched[at - 1] == b->token[r])
            continue;
        memmove(w->touched + at + 1, w->touched + at, (w->n_touched - at) * sizeof *w->touched);
        w->touched[at] = b->token[r];
        w->n_touched++;
    }
    for (int32_t r = 0; r < b->rows; r++)
        w->touch_of[r] = (int32_t)touched_find(w, b->token[r]);
}

/* Parts of the batch, for this call: rows, wanted rows, tokens. */
static void parts_find(struct workspace *w, const struct batch *b)
{
    uint32_t parts = b->parts > 0 ? (uint32_t)b->parts : 1;

    w->rows.n = w->wants.n = parts;
    for (uint32_t p = 0; p <= parts; p++) {
        int32_t row = p == 0 ? 0 : p == parts ? b->rows : b->seq_begin[b->part_seq[p]];

        w->rows.begin[p] = (size_t)row;
        w->wants.begin[p] = row == b->rows ? w->n_wanted : (size_t)w->place[row];
    }
    w->n_touched = 0;
    if (parts > 1)
        tokens_touch(w, b);
}

/* ---- the team's shares ---- */

struct rows_work {
    const struct workspace *w;
    const struct layer_state *s;
    size_t n;
};

static void rows_run(const struct workspace *w, void (*item)(void *self, size_t part, size_t parts),
                     const struct layer_state *s, size_t n)
{
    team_run(linear_team(w->linear), item, &(struct rows_work){w, s, n});
}

static void swiglu_item(void *self, size_t part, size_t parts)
{
    const struct rows_work *x = self;
    size_t f = (size_t)x->w->dims.ffn, begin, end;

    linear_share(x->n, 1, part, parts, &begin, &end);
    ops_swiglu(x->s->gu + begin * 2 * f, x->s->h + begin * f, end - begin, f);
}

static void swiglu_backward_item(void *self, size_t part, size_t parts)
{
    const struct rows_work *x = self;
    size_t f = (size_t)x->w->dims.ffn, begin, end;
    real *gu;

    linear_share(x->n, 1, part, parts, &begin, &end);
    gu = x->s->gu + begin * 2 * f;
    ops_swiglu_backward(x->w->dh + begin * f, gu, gu, end - begin, f);
}

struct heads {
    const struct workspace *w;
    const struct layer_state *s;
    struct attn_rows rows;
};

/* Key/value heads of this thread's share. False: none. */
static bool heads_share(const struct heads *x, size_t part, size_t parts, struct attn_rows *rows)
{
    *rows = x->rows;
    linear_share(x->w->attn.kv_heads, 1, part, parts, &rows->group_begin, &rows->group_end);
    return rows->group_begin < rows->group_end;
}

static void attn_forward_item(void *self, size_t part, size_t parts)
{
    const struct heads *x = self;
    struct attn_rows rows;

    if (heads_share(x, part, parts, &rows))
        attn_forward(&x->w->attn, &rows, x->s->qkv, x->s->att, x->s->lse,
                     linear_scratch(x->w->linear, part));
}

static void attn_backward_item(void *self, size_t part, size_t parts)
{
    const struct heads *x = self;
    struct attn_rows rows;

    if (heads_share(x, part, parts, &rows))
        attn_backward(&x->w->attn, &rows, x->s->qkv, x->s->att, x->s->lse, x->w->datt, x->w->dqkv,
                      linear_scratch(x->w->linear, part));
}

static void heads_run(const struct workspace *w,
                      void (*item)(void *self, size_t part, size_t parts), struct heads *x)
{
    team_run(linear_team(w->linear), item, x);
}

/* From w->dnorm, into w->dx; the gradient of the norm's own weights, part by part. */
static void norm_backward(const struct workspace *w, const real *x, const real *weight,
                          const real *inv, real *g, const struct parts *parts)
{
    struct tree_adder adder = {0};
    size_t c = (size_t)w->dims.width;

    for (uint32_t p = 0; p < parts->n; p++) {
        size_t at = parts->begin[p], n = parts->begin[p + 1] - at;
        real *to = p == 0 ? g : w->gain + p * c;

        if (w->set)
            memset(to, 0, c * sizeof *to);
        ops_rmsnorm_backward(w->dnorm + at * c, x + at * c, weight, inv + at, w->dx + at * c, to, n,
                             c);
        tree_adder_leaf(&adder, p, to, c, 1, c);
    }
    tree_adder_end(&adder, 1, c);
}

/* ---- one layer: attention over all rows, then the rest row by row ---- */

static void attention_forward(const struct workspace *w, const real *p, const struct batch *b,
                              const struct layer_state *s, const unsigned char *wanted)
{
    const struct offsets *at = &w->at;
    size_t n = (size_t)b->rows, c = (size_t)w->dims.width, d = w->attn.head_dim;
    size_t ld = (w->attn.heads + 2 * w->attn.kv_heads) * d;

    ops_rmsnorm(s->x, p + at->norm1, w->norm, s->inv1, n, c, (real)w->dims.norm_eps);
    linear_forward(w->linear, w->norm, c, p + at->qkv, s->qkv, ld, n, c, ld, false);
    ops_rope(s->qkv, ld, w->rope, w->pos, n, w->attn.heads + w->attn.kv_heads, d);
    heads_run(w, attn_forward_item,
              &(struct heads){w, s, {b->seq_begin, (size_t)b->seqs, wanted, 0, 0}});
}

/* From w->datt and w->dx (gradient of the residual stream after attention) to w->dx before it. */
static void attention_backward(const struct workspace *w, const real *p, const struct batch *b,
                               const struct layer_state *s, const unsigned char *wanted, real *g)
{
    const struct offsets *at = &w->at;
    size_t n = (size_t)b->rows, c = (size_t)w->dims.width, d = w->attn.head_dim;
    size_t ld = (w->attn.heads + 2 * w->attn.kv_heads) * d;

    heads_run(w, attn_backward_item,
              &(struct heads){w, s, {b->seq_begin, (size_t)b->seqs, wanted, 0, 0}});
    ops_rope_backward(w->dqkv, ld, w->rope, w->pos, n, w->attn.heads + w->attn.kv_heads, d);
    ops_rmsnorm_again(s->x, p + at->norm1, s->inv1, w->norm, n, c);
    linear_dw(w->linear, w->dqkv, ld, w->norm, c, g + at->qkv, &w->rows, c, ld, w->set, NULL);
    linear_dx(w->linear, w->dqkv, ld, p + at->qkv, w->dnorm, c, n, c, ld, false);
    norm_backward(w, s->x, p + at->norm1, s->inv1, g + at->norm1, &w->rows);
}

/* s->mid holds the residual stream of n rows and gets att's projection added; s->h from it. */
static void mlp_hidden(const struct workspace *w, const real *p, const struct layer_state *s,
                       const real *att, size_t n)
{
    const struct offsets *at = &w->at;
    size_t c = (size_t)w->dims.width, f = (size_t)w->dims.ffn,
           hd = w->attn.heads * w->attn.head_dim;

    linear_forward(w->linear, att, hd, p + at->o, s->mid, c, n, hd, c, true);
    ops_rmsnorm(s->mid, p + at->norm2, w->norm, s->inv2, n, c, (real)w->dims.norm_eps);
    linear_forward(w->linear, w->norm, c, p + at->gate_up, s->gu, 2 * f, n, c, 2 * f, false);
    rows_run(w, swiglu_item, s, n);
}

/* The same; next = mid + mlp(mid). */
static void mlp_forward(const struct workspace *w, const real *p, const struct layer_state *s,
                        const real *att, size_t n, real *next)
{
    size_t c = (size_t)w->dims.width, f = (size_t)w->dims.ffn;

    mlp_hidden(w, p, s, att, n);
    memcpy(next, s->mid, n * c * sizeof *next);
    linear_forward(w->linear, s->h, f, p + w->at.down, next, c, n, f, c, true);
}

/* w->dx [n, C]: gradient of next, becomes that of the residual stream; datt [n, H D] gets that of att. */
static void mlp_backward(const struct workspace *w, const real *p, const struct layer_state *s,
                         const real *att, const struct parts *parts, real *datt, real *g)
{
    const struct offsets *at = &w->at;
    size_t c = (size_t)w->dims.width, f = (size_t)w->dims.ffn,
           hd = w->attn.heads * w->attn.head_dim, n = parts->begin[parts->n];

    linear_dw(w->linear, w->dx, c, s->h, f, g + at->down, parts, f, c, w->set, NULL);
    linear_dx(w->linear, w->dx, c, p + at->down, w->dh, f, n, f, c, false);
    rows_run(w, swiglu_backward_item, s, n);
    ops_rmsnorm_again(s->mid, p + at->norm2, s->inv2, w->norm, n, c);
    linear_dw(w->linear, s->gu, 2 * f, w->norm, c, g + at->gate_up, parts, c, 2 * f, w->set, NULL);
    linear_dx(w->linear, s->gu, 2 * f, p + at->gate_up, w->dnorm, c, n, c, 2 * f, false);
    norm_backward(w, s->mid, p + at->norm2, s->inv2, g + at->norm2, parts);
    linear_dw(w->linear, w->dx, c, att, hd, g + at->o, parts, hd, c, w->set, NULL);
    linear_dx(w->linear, w->dx, c, p + at->o, datt, hd, n, hd, c, false);
}

/* next [N, C] = layer(s->x); next may be s->x, which is read before next is written. */
static void layer_forward(const struct workspace *w, const real *p, const struct batch *b,
                          const struct layer_state *s, real *next)
{
    size_t n = (size_t)b->rows;

    attention_forward(w, p, b, s, NULL);
    memcpy(s->mid, s->x, n * (size_t)w->dims.width * sizeof *s->mid);
    mlp_forward(w, p, s, s->att, n, next);
    progress_bump(w);
}

/* What layer_forward() left in *s, without the next layer's input. */
static void layer_again(const struct workspace *w, const real *p, const struct batch *b,
                        const struct layer_state *s)
{
    size_t n = (size_t)b->rows;

    attention_forward(w, p, b, s, NULL);
    memcpy(s->mid, s->x, n * (size_t)w->dims.width * sizeof *s->mid);
    mlp_hidden(w, p, s, s->att, n);
    progress_bump(w);
}

static void layer_backward(const struct workspace *w, const real *p, const struct batch *b,
                           const struct layer_state *s, real *g)
{
    if (w->lean)
        layer_again(w, p, b, s);
    mlp_backward(w, p, s, s->att, &w->rows, w->datt, g);
    attention_backward(w, p, b, s, NULL, g);
    progress_bump(w);
}

/* w->last [wanted, C]. */
static void last_forward(const struct workspace *w, const real *p, const struct batch *b,
                         const struct layer_state *s)
{
    attention_forward(w, p, b, s, w->wanted);
    rows_gather(w, s->x, s->mid, (size_t)w->dims.width);
    rows_gather(w, s->att, w->last_att, w->attn.heads * w->attn.head_dim);
    mlp_forward(w, p, s, w->last_att, w->n_wanted, w->last);
    progress_bump(w);
}

/* w->dx: [wanted, C] before, [N, C] after. dqkv and dnorm are free in between and lend their space. */
static void last_backward(const struct workspace *w, const real *p, const struct batch *b,
                          const struct layer_state *s, real *g)
{
    size_t n = (size_t)b->rows, c = (size_t)w->dims.width, hd = w->attn.heads * w->attn.head_dim;

    mlp_backward(w, p, s, w->last_att, &w->wants, w->dqkv, g);
    rows_scatter(w, w->dqkv, w->datt, n, hd);
    memcpy(w->dnorm, w->dx, w->n_wanted * c * sizeof *w->dnorm);
    rows_scatter(w, w->dnorm, w->dx, n, c);
    attention_backward(w, p, b, s, w->wanted, g);
    progress_bump(w);
}

/* ---- the whole ---- */

/* Runs all layers; keep: every layer's state for a backward. False: parameters will not come. */
static bool trunk_forward(struct workspace *w, const real *params, const struct batch *b, bool keep,
                          struct head_rows *out)
{
    size_t layers = (size_t)w->dims.layers, c = (size_t)w->dims.width;

    for (int32_t i = 0; i < b->seqs; i++)
        for (int32_t r = b->seq_begin[i]; r < b->seq_begin[i + 1]; r++)
            w->pos[r] = r - b->seq_begin[i];
    if (!params_need(w, 0, w->at.layers))
        return false;
    ops_embed(params + w->at.embed, b->token, w->layer[0].x, (size_t)b->rows, c);
    for (size_t l = 0; l < layers; l++) {
        const real *p = params + w->at.layers + l * w->at.layer_size;

        if (!params_need(w, (size_t)(p - params), (size_t)(p - params) + w->at.layer_size))
            return false;
        if (l + 1 == layers)
            last_forward(w, p, b, &w->layer[keep ? l : 0]);
        else
            layer_forward(w, p, b, &w->layer[keep ? l : 0], w->layer[keep ? l + 1 : 0].x);
    }
    *out = (struct head_rows){.hidden = w->last, .place = w->place, .n = w->n_wanted};
    return params_need(w, w->at.final_norm, w->at.count);
}

/* The embedding's gradient from w->dx. Tied, it holds the head's; of several parts, what each had is in w->kept. */
static void embed_backward(const struct workspace *w, const struct batch *b, real *grad)
{
    size_t c = (size_t)w->dims.width, touched = w->n_touched;

    if (w->set && !w->dims.tied)
        memset(grad, 0, (size_t)w->dims.vocab * c * sizeof *grad);
    if (w->rows.n > 1 && !w->dims.tied) {
        memset(w->kept, 0, w->rows.n * touched * c * sizeof *w->kept);
    }
    if (w->rows.n == 1) {
        ops_embed_backward(w->dx, b->token, grad, (size_t)b->rows, c);
        return;
    }
    for (uint32_t p = 0; p < w->rows.n; p++)
        ops_embed_backward(w->dx + w->rows.begin[p] * c, w->touch_of + w->rows.begin[p],
                           w->kept + p * touched * c, w->rows.begin[p + 1] - w->rows.begin[p], c);
    for (size_t i = 0; i < touched; i++) {
        struct tree_adder adder = {0};

        for (uint32_t p = 0; p < w->rows.n; p++)
            tree_adder_leaf(&adder, p, w->kept + (p * touched + i) * c, c, 1, c);
        tree_adder_end(&adder, 1, c);
        memcpy(grad + (size_t)w->touched[i] * c, w->kept + i * c, c * sizeof *grad);
    }
}

/* From w->dx, the gradient of the wanted rows. */
static void trunk_backward(struct workspace *w, const real *params, const struct batch *b,
                           real *grad, const struct grad_sink *sink)
{
    for (size_t l = (size_t)w->dims.layers; l-- > 0;) {
        size_t begin = w->at.layers + l * w->at.layer_size;

        if (l + 1 == (size_t)w->dims.layers)
            last_backward(w, params + begin, b, &w->layer[l], grad + begin);
        else
            layer_backward(w, params + begin, b, &w->layer[l], grad + begin);
        if (sink != NULL)
            sink->ready(sink->self, begin, begin + w->at.layer_size);
    }
    embed_backward(w, b, grad + w->at.embed);
}

/* True: there is a batch to learn from. */
static bool train_begin(struct workspace *w, const struct dims *d, const struct batch *b, bool set,
                        struct loss_out *out)
{
    uint32_t parts = b->parts > 0 ? (uint32_t)b->parts : 1;

    batch_check(w, d, b);
    rows_want(w, b, true);
    w->set = set;
    parts_find(w, b);
    for (uint32_t p = 0; p < parts; p++)
        out[p] = (struct loss_out){.tokens = (int64_t)(w->rows.begin[p + 1] - w->rows.begin[p])};
    return w->n_wanted > 0;
}

static void train_run(struct workspace *w, const struct dims *d, const real *params,
                      const struct batch *b, real *grad, const struct grad_sink *sink,
                      struct loss_out *out)
{
    const struct linear_keep keep = {w->touched, d->tied ? w->n_touched : 0, 0, w->kept};
    struct head_rows rows;

    if (!trunk_forward(w, params, b, grad != NULL, &rows)) {
        memset(out, 0, w->rows.n * sizeof *out);
        return;
    }
    rows.parts = &w->rows;
    rows.keep = w->rows.n > 1 ? &keep : NULL;
    rows.gain = w->gain;
    rows.set = w->set;
    head_train(&w->head, d, params, &rows, b, w->dx, grad, out);
    if (grad == NULL)
        return;
    if (sink != NULL)
        sink->ready(sink->self, w->at.final_norm, w->at.count);
    trunk_backward(w, params, b, grad, sink);
    if (sink != NULL)
        sink->ready(sink->self, w->at.embed, w->at.layers);
}

bool transformer_joins(const struct workspace *w, const struct batch *b)
{
    size_t targets = 0;

    if (b->parts > w->parts_max || w->dims.head != HEAD_LM || !linear_joins(w->linear) ||
        b->rows > w->rows_max || b->seqs > w->seqs_max || b->targets > w->targets_max)
        return false;
    for (int32_t i = 0; i < b->targets; i++) {
        const struct batch_target *t = &b->target[i];

        if (t->weight != 0.0f && (t->lo != 0 || t->hi != w->dims.vocab))
            return false;
        targets += t->weight != 0.0f;
    }
    return targets <= head_chunk(&w->dims);
}

void transformer_train_set(const struct dims *d, const real *params, const struct batch *b,
                           real *grad, const struct grad_sink *sink, struct workspace *w,
                           struct loss_out *out)
{
    CHECK(b->parts <= 1 || transformer_joins(w, b));
    if (train_begin(w, d, b, true, out)) {
        train_run(w, d, params, b, grad, sink, out);
        return;
    }
    if (!params_need(w, 0, w->at.count))
        return;
    memset(grad, 0, w->at.count * sizeof *grad);
    if (sink != NULL)
        sink->ready(sink->self, 0, w->at.count);
}

void transformer_train(const struct dims *d, const real *params, const struct batch *b, real *grad,
                       const struct grad_sink *sink, struct workspace *w, struct loss_out *out)
{
    CHECK(b->parts <= 1);
    if (train_begin(w, d, b, false, out))
        train_run(w, d, params, b, grad, sink, out);
    else if (grad != NULL && sink != NULL)
        sink->ready(sink->self, 0, w->at.count); /* nothing to learn here */
}

void transformer_losses(const struct dims *d, const real *params, const struct batch *b, real *loss,
                        struct workspace *w)
{
    struct head_rows rows;

    batch_check(w, d, b);
    rows_want(w, b, false);
    CHECK(trunk_forward(w, params, b, false, &rows));
    head_losses(&w->head, d, params, &rows, b, loss);
}

void transformer_outputs(const struct dims *d, const real *params, const struct batch *b, real *out,
                         size_t stride, struct workspace *w)
{
    struct head_rows rows;

    batch_check(w, d, b);
    rows_want(w, b, false);
    CHECK(trunk_forward(w, params, b, false, &rows));
    head_outputs(&w->head, d, params, &rows, b, out, stride);
}
