/*
 * transformer: one workspace holds what the backward needs of every layer; without a gradient all layers share the
 * first layer's buffers. Normed rows are made again in the backward (cheaper than keeping them); dgu takes gu's place.
 * q, k, v are one matrix and one GEMM, gate and up another, because their weights are neighbours in the layout.
 */
#include "model/transformer.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "model/attn.h"
#include "model/carve.h"
#include "model/head.h"
#include "model/ops.h"

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
    uint64_t *progress;
    size_t positions; /* rows of rope */
    real *rope;
    int32_t *pos;              /* [N] */
    struct layer_state *layer; /* [L] */
    real *last;                /* [N, C] output of the last layer */
    real *norm, *dnorm, *dx;   /* [N, C] */
    real *dqkv, *datt, *dh;
    real *scratch;
    struct head_work head;
};

static void layer_carve(struct carve *c, const struct workspace *w, struct layer_state *s)
{
    size_t n = (size_t)w->rows_max, width = (size_t)w->dims.width, f = (size_t)w->dims.ffn;
    size_t hd = w->attn.heads * w->attn.head_dim, gd = w->attn.kv_heads * w->attn.head_dim;

    s->x = carve_real(c, n * width);
    s->inv1 = carve_real(c, n);
    s->inv2 = carve_real(c, n);
    s->qkv = carve_real(c, n * (hd + 2 * gd));
    s->lse = carve_real(c, n * w->attn.heads);
    s->att = carve_real(c, n * hd);
    s->mid = carve_real(c, n * width);
    s->gu = carve_real(c, n * 2 * f);
    s->h = carve_real(c, n * f);
}

static void workspace_carve(struct workspace *w, struct carve *c)
{
    size_t n = (size_t)w->rows_max, width = (size_t)w->dims.width, layers = (size_t)w->dims.layers;
    size_t hd = w->attn.heads * w->attn.head_dim, gd = w->attn.kv_heads * w->attn.head_dim;
    struct layer_state counted;

    w->layer = carve_bytes(c, layers * sizeof *w->layer);
    w->rope = carve_real(c, w->positions * w->attn.head_dim);
    w->pos = carve_int(c, n);
    for (size_t i = 0; i < layers; i++)
        layer_carve(c, w, c->base == NULL ? &counted : &w->layer[i]);
    w->last = carve_real(c, n * width);
    w->norm = carve_real(c, n * width);
    w->dnorm = carve_real(c, n * width);
    w->dx = carve_real(c, n * width);
    w->dqkv = carve_real(c, n * (hd + 2 * gd));
    w->datt = carve_real(c, n * hd);
    w->dh = carve_real(c, n * (size_t)w->dims.ffn);
    w->scratch = carve_real(c, attn_scratch(&w->attn, n));
    head_carve(&w->head, c, &w->dims, (size_t)w->targets_max);
}

static void workspace_shape(struct workspace *w, const struct dims *d, int32_t rows_max, int32_t seqs_max,
                            int32_t targets_max)
{
    CHECK(rows_max > 0 && seqs_max > 0 && targets_max >= 0);
    memset(w, 0, sizeof *w);
    w->dims = *d;
    w->rows_max = rows_max;
    w->seqs_max = seqs_max;
    w->targets_max = targets_max;
    w->positions = (size_t)(d->context < rows_max ? d->context : rows_max);
    w->attn = (struct attn_shape){(size_t)d->heads, (size_t)d->kv_heads, (size_t)d->head_dim};
    dims_offsets(d, &w->at);
}

size_t workspace_bytes(const struct dims *d, int32_t rows_max, int32_t seqs_max, int32_t targets_max)
{
    struct workspace w;
    struct carve c = {NULL, 0};

    workspace_shape(&w, d, rows_max, seqs_max, targets_max);
    workspace_carve(&w, &c);
    return c.used + sizeof w;
}

struct workspace *workspace_new(const struct dims *d, int32_t rows_max, int32_t seqs_max, int32_t targets_max)
{
    struct workspace *w = mem_alloc(sizeof *w);
    size_t bytes = workspace_bytes(d, rows_max, seqs_max, targets_max) - sizeof *w;
    struct carve c = {aligned_alloc(CARVE_ALIGN, bytes), 0};

    CHECK(c.base != NULL);
    workspace_shape(w, d, rows_max, seqs_max, targets_max);
    workspace_carve(w, &c);
    ops_rope_table(w->rope, w->positions, w->attn.head_dim, (double)d->rope_theta);
    model_blas_init();
    return w;
}

void workspace_free(struct workspace *w)
{
    if (w == NULL)
        return;
    free(w->layer); /* the first array of the one allocation */
    free(w);
}

void workspace_set_progress(struct workspace *w, uint64_t *counter)
{
    w->progress = counter;
    w->head.progress = counter;
}

static void progress_bump(const struct workspace *w)
{
    if (w->progress != NULL)
        __atomic_fetch_add(w->progress, 1, __ATOMIC_RELAXED);
}

void batch_init(struct batch *b, int32_t rows_cap, int32_t seqs_cap, int32_t targets_cap, int32_t scores_cap)
{
    CHECK(rows_cap >= 0 && seqs_cap >= 0 && targets_cap >= 0 && scores_cap >= 0);
    memset(b, 0, sizeof *b);
    b->rows_cap = rows_cap;
    b->seqs_cap = seqs_cap;
    b->targets_cap = targets_cap;
    b->scores_cap = scores_cap;
    b->token = mem_zalloc((size_t)rows_cap + 1, sizeof *b->token);
    b->seq_begin = mem_zalloc((size_t)seqs_cap + 1, sizeof *b->seq_begin);
    b->target = mem_zalloc((size_t)targets_cap + 1, sizeof *b->target);
    b->score = mem_zalloc((size_t)scores_cap + 1, sizeof *b->score);
}

void batch_fini(struct batch *b)
{
    free(b->token);
    free(b->seq_begin);
    free(b->target);
    free(b->score);
    memset(b, 0, sizeof *b);
}

static bool dims_same(const struct dims *a, const struct dims *b)
{
    return a->vocab == b->vocab && a->width == b->width && a->layers == b->layers && a->heads == b->heads &&
           a->kv_heads == b->kv_heads && a->head_dim == b->head_dim && a->ffn == b->ffn && a->context == b->context &&
           a->norm_eps == b->norm_eps && a->rope_theta == b->rope_theta && a->tied == b->tied && a->head == b->head &&
           a->head_out == b->head_out;
}

/* A batch is made by us from data that was checked: what is wrong here is our mistake. */
static void batch_check(const struct workspace *w, const struct dims *d, const struct batch *b)
{
    CHECK(dims_same(d, &w->dims));
    CHECK(b->rows >= 0 && b->rows <= w->rows_max && b->seqs <= w->seqs_max && b->targets <= w->targets_max);
    CHECK(b->seq_begin[0] == 0 && b->seq_begin[b->seqs] == b->rows);
    for (int32_t i = 0; i < b->seqs; i++)
        CHECK(b->seq_begin[i] <= b->seq_begin[i + 1] && b->seq_begin[i + 1] - b->seq_begin[i] <= d->context);
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

/* ---- one layer ---- */

/* next [N, C] = layer(s->x). */
static void layer_forward(const struct workspace *w, const real *p, const struct batch *b, struct layer_state *s,
                          real *next)
{
    const struct offsets *at = &w->at;
    size_t n = (size_t)b->rows, c = (size_t)w->dims.width, f = (size_t)w->dims.ffn, d = w->attn.head_dim;
    size_t hd = w->attn.heads * d, gd = w->attn.kv_heads * d, ld = hd + 2 * gd;
    real eps = (real)w->dims.norm_eps;

    ops_rmsnorm(s->x, p + at->norm1, w->norm, s->inv1, n, c, eps);
    ops_linear(w->norm, c, p + at->qkv, s->qkv, ld, n, c, ld, false);
    ops_rope(s->qkv, ld, w->rope, w->pos, n, w->attn.heads + w->attn.kv_heads, d);
    attn_forward(&w->attn, s->qkv, b->seq_begin, (size_t)b->seqs, s->att, s->lse, w->scratch);
    memcpy(s->mid, s->x, n * c * sizeof *s->mid);
    ops_linear(s->att, hd, p + at->o, s->mid, c, n, hd, c, true);

    ops_rmsnorm(s->mid, p + at->norm2, w->norm, s->inv2, n, c, eps);
    ops_linear(w->norm, c, p + at->gate_up, s->gu, 2 * f, n, c, 2 * f, false);
    ops_swiglu(s->gu, s->h, n, f);
    memcpy(next, s->mid, n * c * sizeof *next);
    ops_linear(s->h, f, p + at->down, next, c, n, f, c, true);
    progress_bump(w);
}

/* w->dx: gradient of the layer's output, becomes that of its input. */
static void layer_backward(const struct workspace *w, const real *p, const struct batch *b, const struct layer_state *s,
                           real *g)
{
    const struct offsets *at = &w->at;
    size_t n = (size_t)b->rows, c = (size_t)w->dims.width, f = (size_t)w->dims.ffn, d = w->attn.head_dim;
    size_t hd = w->attn.heads * d, gd = w->attn.kv_heads * d, ld = hd + 2 * gd;

    ops_linear_dw(w->dx, c, s->h, f, g + at->down, n, f, c);
    ops_linear_dx(w->dx, c, p + at->down, w->dh, f, n, f, c, false);
    ops_swiglu_backward(w->dh, s->gu, s->gu, n, f);
    ops_rmsnorm_again(s->mid, p + at->norm2, s->inv2, w->norm, n, c);
    ops_linear_dw(s->gu, 2 * f, w->norm, c, g + at->gate_up, n, c, 2 * f);
    ops_linear_dx(s->gu, 2 * f, p + at->gate_up, w->dnorm, c, n, c, 2 * f, false);
    ops_rmsnorm_backward(w->dnorm, s->mid, p + at->norm2, s->inv2, w->dx, g + at->norm2, n, c);

    ops_linear_dw(w->dx, c, s->att, hd, g + at->o, n, hd, c);
    ops_linear_dx(w->dx, c, p + at->o, w->datt, hd, n, hd, c, false);
    attn_backward(&w->attn, s->qkv, b->seq_begin, (size_t)b->seqs, s->att, s->lse, w->datt, w->dqkv, w->scratch);
    ops_rope_backward(w->dqkv, ld, w->rope, w->pos, n, w->attn.heads + w->attn.kv_heads, d);
    ops_rmsnorm_again(s->x, p + at->norm1, s->inv1, w->norm, n, c);
    ops_linear_dw(w->dqkv, ld, w->norm, c, g + at->qkv, n, c, ld);
    ops_linear_dx(w->dqkv, ld, p + at->qkv, w->dnorm, c, n, c, ld, false);
    ops_rmsnorm_backward(w->dnorm, s->x, p + at->norm1, s->inv1, w->dx, g + at->norm1, n, c);
    progress_bump(w);
}

/* ---- the whole ---- */

/* Runs all layers; keep: every layer's state for a backward. Returns the hidden rows after the last layer. */
static const real *trunk_forward(struct workspace *w, const real *params, const struct batch *b, bool keep)
{
    size_t layers = (size_t)w->dims.layers, c = (size_t)w->dims.width;

    for (int32_t i = 0; i < b->seqs; i++)
        for (int32_t r = b->seq_begin[i]; r < b->seq_begin[i + 1]; r++)
            w->pos[r] = r - b->seq_begin[i];
    ops_embed(params + w->at.embed, b->token, w->layer[0].x, (size_t)b->rows, c);
    for (size_t l = 0; l < layers; l++) {
        const real *p = params + w->at.layers + l * w->at.layer_size;

        if (keep)
            layer_forward(w, p, b, &w->layer[l], l + 1 < layers ? w->layer[l + 1].x : w->last);
        else /* mid is read before the output is written, and x only before mid is */
            layer_forward(w, p, b, &w->layer[0], w->layer[0].x);
    }
    return keep ? w->last : w->layer[0].x;
}

static void sink_ready(const struct grad_sink *sink, size_t begin, size_t end)
{
    if (sink != NULL && begin < end)
        sink->ready(sink->self, begin, end);
}

void transformer_train(const struct dims *d, const real *params, const struct batch *b, real *grad,
                       const struct grad_sink *sink, struct workspace *w, struct loss_out *out)
{
    const real *hidden;
    const struct offsets *at = &w->at;

    batch_check(w, d, b);
    hidden = trunk_forward(w, params, b, grad != NULL);
    head_train(&w->head, d, params, hidden, b, w->dx, grad, out);
    if (grad == NULL)
        return;
    sink_ready(sink, at->final_norm, at->count);
    for (size_t l = (size_t)d->layers; l-- > 0;) {
        size_t begin = at->layers + l * at->layer_size;

        layer_backward(w, params + begin, b, &w->layer[l], grad + begin);
        sink_ready(sink, begin, begin + at->layer_size);
    }
    ops_embed_backward(w->dx, b->token, grad + at->embed, (size_t)b->rows, (size_t)d->width);
    sink_ready(sink, at->embed, at->layers);
}

void transformer_losses(const struct dims *d, const real *params, const struct batch *b, real *loss,
                        struct workspace *w)
{
    batch_check(w, d, b);
    head_losses(&w->head, d, params, trunk_forward(w, params, b, false), b, loss);
}

void transformer_outputs(const struct dims *d, const real *params, const struct batch *b, real *out,
                         size_t stride, struct workspace *w)
{
    batch_check(w, d, b);
    head_outputs(&w->head, d, params, trunk_forward(w, params, b, false), b, out, stride);
}
