/*
 * workspace: all arrays of a workspace lie in one allocation, carved twice: to count it, then to place it. A lean workspace
 * has one set of buffers for all layers, besides the input of each. Batches' arrays are here too.
 */
#include "model/workspace_inner.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "model/carve.h"
#include "model/ops.h"

/* All but the input. */
static void layer_carve(struct carve *c, const struct workspace *w, struct layer_state *s)
{
    size_t n = (size_t)w->rows_max, width = (size_t)w->dims.width, f = (size_t)w->dims.ffn;
    size_t hd = w->attn.heads * w->attn.head_dim, gd = w->attn.kv_heads * w->attn.head_dim;

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
    struct layer_state counted, *s = &counted;

    w->layer = carve_bytes(c, layers * sizeof *w->layer);
    w->rope = carve_real(c, w->positions * w->attn.head_dim);
    w->pos = carve_int(c, n);
    for (size_t i = 0; i < layers; i++) {
        if (c->base != NULL)
            s = &w->layer[i];
        if (i == 0 || !w->lean)
            layer_carve(c, w, s);
        else if (c->base != NULL)
            *s = w->layer[0];
        s->x = carve_real(c, n * width);
    }
    w->wanted = carve_bytes(c, n);
    w->place = carve_int(c, n);
    w->row = carve_int(c, n);
    w->last_att = carve_real(c, n * hd);
    w->last = carve_real(c, n * width);
    w->norm = carve_real(c, n * width);
    w->dnorm = carve_real(c, n * width);
    w->dx = carve_real(c, n * width);
    w->dqkv = carve_real(c, n * (hd + 2 * gd));
    w->datt = carve_real(c, n * hd);
    w->dh = carve_real(c, n * (size_t)w->dims.ffn);
    head_carve(&w->head, c, &w->dims, (size_t)w->targets_max);
}

static void workspace_shape(struct workspace *w, const struct dims *d, int32_t rows_max,
                            int32_t seqs_max, int32_t targets_max, bool lean)
{
    CHECK(rows_max > 0 && seqs_max > 0 && targets_max >= 0);
    memset(w, 0, sizeof *w);
    w->dims = *d;
    w->rows_max = rows_max;
    w->seqs_max = seqs_max;
    w->targets_max = targets_max;
    w->lean = lean;
    w->positions = (size_t)(d->context < rows_max ? d->context : rows_max);
    w->attn = (struct attn_shape){(size_t)d->heads, (size_t)d->kv_heads, (size_t)d->head_dim};
    dims_offsets(d, &w->at);
}

size_t workspace_bytes(const struct dims *d, int32_t rows_max, int32_t seqs_max,
                       int32_t targets_max, bool lean)
{
    struct workspace w;
    struct carve c = {NULL, 0};

    workspace_shape(&w, d, rows_max, seqs_max, targets_max, lean);
    workspace_carve(&w, &c);
    return c.used + sizeof w + linear_bytes(GEMM_F32, 1);
}

static struct workspace *workspace_make(const struct dims *d, int32_t rows_max, int32_t seqs_max,
                                        int32_t targets_max, bool lean)
{
    struct workspace *w = mem_alloc(sizeof *w);
    struct carve c = {NULL, 0};

    workspace_shape(w, d, rows_max, seqs_max, targets_max, lean);
    workspace_carve(w, &c);
    c = (struct carve){mem_large(c.used), 0};
    workspace_carve(w, &c);
    ops_rope_table(w->rope, w->positions, w->attn.head_dim, (double)d->rope_theta);
    w->parts_max = 1;
    workspace_set_gemm(w, GEMM_F32);
    return w;
}

struct workspace *workspace_new(const struct dims *d, int32_t rows_max, int32_t seqs_max,
                                int32_t targets_max)
{
    return workspace_make(d, rows_max, seqs_max, targets_max, false);
}

struct workspace *workspace_new_lean(const struct dims *d, int32_t rows_max, int32_t seqs_max,
                                     int32_t targets_max)
{
    return workspace_make(d, rows_max, seqs_max, targets_max, true);
}

void workspace_free(struct workspace *w)
{
    if (w == NULL)
        return;
    linear_free(w->linear);
    free(w->gain);
    free(w->touched);
    free(w->kept);
    free(w->layer); /* the first array of the one allocation */
    free(w);
}

static void linear_make(struct workspace *w, struct team *team)
{
    size_t scratch = attn_scratch(&w->attn, (size_t)w->rows_max);

    linear_free(w->linear);
    w->linear = linear_new(w->kind, team, scratch);
    w->head.linear = w->linear;
}

void workspace_set_gemm(struct workspace *w, enum gemm_kind kind)
{
    w->kind = kind;
    linear_make(w, w->linear != NULL ? linear_team(w->linear) : NULL);
}

void workspace_set_team(struct workspace *w, struct team *team, int32_t parts_max)
{
    size_t n = (size_t)w->rows_max, c = (size_t)w->dims.width, parts = (size_t)parts_max;

    CHECK(w->parts_max == 1 && parts_max >= 1 && parts_max <= PARTS_MAX);
    w->parts_max = parts_max;
    linear_make(w, team);
    if (parts_max == 1)
        return;
    w->gain = mem_large(parts * c * sizeof *w->gain);
    w->touched = mem_zalloc(2 * n, sizeof *w->touched);
    w->touch_of = w->touched + n;
    w->kept = mem_large(parts * n * c * sizeof *w->kept);
}

void workspace_set_progress(struct workspace *w, uint64_t *counter)
{
    w->progress = counter;
    w->head.progress = counter;
}

void workspace_set_source(struct workspace *w, const struct param_source *source)
{
    w->source = source;
}

/* ---- batches ---- */

void batch_init(struct batch *b, int32_t rows_cap, int32_t seqs_cap, int32_t targets_cap,
                int32_t scores_cap)
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
