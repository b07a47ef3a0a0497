/*
 * Cache layout, per slot, layer and key/value head: keys in blocks of VM_LANES positions, each
 * [head_dim][VM_LANES], so that the scores of a block are one vector and a short text touches
 * little memory; values [positions][head_dim padded to whole vectors]. Heads are CACHE_SKEW
 * elements further apart than they need be: a power of two would put all of them on the same cache
 * sets. Scores and the sum of values run over positions 0..p in an order that depends on p alone.
 */
#include "model/cached.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/buf.h"
#include "base/err.h"
#include "model/ops.h"
#include "model/panel.h"
#include "model/panel_q8.h"
#include "model/vmath.h"

#define CACHE_SKEW 16
#define CHAINS                                                                                     \
    4 /* independent sums over positions, so that an fma does not wait for the one before it */
#define FETCH_LINES 16
#define HUGE_PAGE ((size_t)2 << 20) /* weights are read end to end: fewer translations */

struct matrix { /* a linear layer's weights, packed: one of the two */
    size_t in, out;
    real *full;
    unsigned char *q8;
};
struct block {
    size_t input_norm, q, k, v, o, post_norm, gate, up, down; /* offsets in params */
    struct matrix qkv, output, gate_up, back;
};

struct cached {
    struct dims d;
    bool int8;
    struct team *team;
    int32_t slots, positions, rows_max; /* positions: context_max in whole vectors */
    size_t width, heads, kv_heads, head_dim, head_dim_pad, ffn, qkv_cols;
    size_t keys_of_head, values_of_head; /* elements */
    size_t embed, final_norm, lm_head;
    const real *params;
    struct block *block;
    struct matrix head;
    size_t weight_bytes; /* the front of the arena */
    real *keys, *values;
    real *table;
    real *x, *norm, *qkv, *mixed, *gate_up, *hidden, *picked, *logits;
    real *score; /* [parts of the team][positions] */
    void *codes; /* rows for panel_q8.h */
    int32_t *position, *token, *place;
    unsigned char *arena;
    uint64_t *progress;
};

/* Takes `count` elements of an arena; with no arena, only counts. 64-byte steps. */
static real *arena_take(unsigned char *arena, size_t *used, size_t count)
{
    size_t at = *used;

    *used = at + (count * sizeof(real) + 63) / 64 * 64;
    return arena == NULL ? NULL : (real *)(void *)(arena + at);
}

static void matrix_take(const struct cached *x, unsigned char *arena, size_t *used, size_t in,
                        size_t out, struct matrix *m)
{
    *m = (struct matrix){.in = in, .out = out};
    if (!x->int8) {
        m->full = arena_take(arena, used, panel_count(in, out));
        return;
    }
    m->q8 = arena == NULL ? NULL : arena + *used;
    *used += panel_q8_bytes(in, out);
}

static void sizes_fill(struct cached *x, const struct dims *d, int32_t slots, int32_t context_max,
                       int32_t rows_max, bool int8)
{
    x->d = *d;
    x->int8 = int8;
    x->slots = slots;
    x->positions = (int32_t)vm_round((size_t)context_max);
    x->rows_max = rows_max;
    x->width = (size_t)d->width;
    x->heads = (size_t)d->heads;
    x->kv_heads = (size_t)d->kv_heads;
    x->head_dim = (size_t)d->head_dim;
    x->head_dim_pad = vm_round(x->head_dim);
    x->keys_of_head = x->head_dim * (size_t)x->positions + CACHE_SKEW;
    x->values_of_head = x->head_dim_pad * (size_t)x->positions + CACHE_SKEW;
    x->ffn = (size_t)d->ffn;
    x->qkv_cols = (x->heads + 2 * x->kv_heads) * x->head_dim;
}

static size_t arena_carve(struct cached *x, unsigned char *arena, struct block *block)
{
    size_t used = 0, rows = (size_t)x->rows_max, layers = (size_t)x->d.layers,
           slots = (size_t)x->slots;
    size_t positions = (size_t)x->positions, vocab = (size_t)x->d.vocab,
           mixed = x->heads * x->head_dim, widest = x->width;
    struct block counted;

    for (size_t l = 0; l < layers; l++) {
        struct block *b = block != NULL ? &block[l] : &counted;
        matrix_take(x, arena, &used, x->width, x->qkv_cols, &b->qkv);
        matrix_take(x, arena, &used, mixed, x->width, &b->output);
        matrix_take(x, arena, &used, x->width, 2 * x->ffn, &b->gate_up);
        matrix_take(x, arena, &used, x->ffn, x->width, &b->back);
    }
    matrix_take(x, arena, &used, x->width, vocab, &x->head);
    x->weight_bytes = used;
    x->table = arena_take(arena, &used, positions * x->head_dim);
    x->x = arena_take(arena, &used, rows * x->width);
    x->norm = arena_take(arena, &used, rows * x->width);
    x->qkv = arena_take(arena, &used, rows * x->qkv_cols);
    x->mixed = arena_take(arena, &used, rows * mixed);
    x->gate_up = arena_take(arena, &used, rows * 2 * x->ffn);
    x->hidden = arena_take(arena, &used, rows * x->ffn);
    x->picked = arena_take(arena, &used, slots * x->width);
    x->logits = arena_take(arena, &used, slots * vocab);
    widest = mixed > widest ? mixed : widest;
    widest = x->ffn > widest ? x->ffn : widest;
    x->codes = arena == NULL ? NULL : arena + used;
    used += x->int8 ? panel_q8_rows_bytes(rows, widest) : 0;
    x->keys = arena_take(arena, &used, slots * layers * x->kv_heads * x->keys_of_head);
    x->values = arena_take(arena, &used, slots * layers * x->kv_heads * x->values_of_head);
    return used;
}

size_t cached_bytes(const struct dims *d, int32_t slots, int32_t context_max, int32_t rows_max,
                    bool int8)
{
    struct cached x = {0};

    sizes_fill(&x, d, slots, context_max, rows_max, int8);
    return arena_carve(&x, NULL, NULL) + sizeof(struct cached) +
           (size_t)d->layers * sizeof(struct block) +
           ((size_t)rows_max * 2 + (size_t)slots) * sizeof(int32_t) +
           (size_t)x.positions * sizeof(real);
}

static size_t offset_of(const struct layout *l, int32_t layer, const char *suffix)
{
    char name[LAYOUT_NAME_MAX];
    const struct tensor *t;

    if (layer < 0)
        (void)snprintf(name, sizeof(name), "%s", suffix);
    else
        (void)snprintf(name, sizeof(name), "model.layers.%d.%s", (int)layer, suffix);
    t = layout_find(l, name);
    CHECK(t != NULL); /* layout_init() names them so */
    return t->begin;
}

static void offsets_fill(struct cached *x)
{
    struct layout l;

    layout_init(&l, &x->d);
    x->embed = offset_of(&l, -1, "model.embed_tokens.weight");
    x->final_norm = offset_of(&l, -1, "model.norm.weight");
    x->lm_head = x->d.tied ? x->embed : offset_of(&l, -1, "lm_head.weight");
    for (int32_t i = 0; i < x->d.layers; i++) {
        struct block *b = &x->block[i];
        b->input_norm = offset_of(&l, i, "input_layernorm.weight");
        b->q = offset_of(&l, i, "self_attn.q_proj.weight");
        b->k = offset_of(&l, i, "self_attn.k_proj.weight");
        b->v = offset_of(&l, i, "self_attn.v_proj.weight");
        b->o = offset_of(&l, i, "self_attn.o_proj.weight");
        b->post_norm = offset_of(&l, i, "post_attention_layernorm.weight");
        b->gate = offset_of(&l, i, "mlp.gate_proj.weight");
        b->up = offset_of(&l, i, "mlp.up_proj.weight");
        b->down = offset_of(&l, i, "mlp.down_proj.weight");
    }
    layout_fini(&l);
}

/* Weights begin zeroed, as panel.h wants them. The cache, by far the largest part, is left as it
 * comes: pages that no text reaches cost nothing. */
static void arena_make(struct cached *x)
{
    size_t bytes = arena_carve(x, NULL, NULL);

    bytes = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    x->arena = aligned_alloc(HUGE_PAGE, bytes);
    CHECK(x->arena != NULL); /* the caller has asked cached_bytes() whether it fits */
    (void)madvise(x->arena, bytes, MADV_HUGEPAGE); /* or small pages, where there are none */
    (void)arena_carve(x, x->arena, x->block);
    memset(x->arena, 0, x->weight_bytes);
}

static void matrix_clear(const struct matrix *m)
{
    if (m->q8 != NULL)
        panel_q8_clear(m->q8, m->in, m->out);
}

static void matrices_clear(struct cached *x)
{
    for (int32_t i = 0; i < x->d.layers; i++) {
        matrix_clear(&x->block[i].qkv);
        matrix_clear(&x->block[i].output);
        matrix_clear(&x->block[i].gate_up);
        matrix_clear(&x->block[i].back);
    }
    matrix_clear(&x->head);
}

struct cached *cached_new(const struct dims *d, int32_t slots, int32_t context_max,
                          int32_t rows_max, bool int8)
{
    struct cached *x = mem_zalloc(1, sizeof(*x));

    CHECK(d->head == HEAD_LM && slots >= 1 && context_max >= 1 && rows_max >= slots);
    sizes_fill(x, d, slots, context_max, rows_max, int8);
    x->block = mem_zalloc((size_t)d->layers, sizeof(*x->block));
    arena_make(x);
    matrices_clear(x);
    x->position = mem_zalloc((size_t)rows_max, sizeof(*x->position));
    x->token = mem_zalloc((size_t)rows_max, sizeof(*x->token));
    x->place = mem_zalloc((size_t)slots, sizeof(*x->place));
    offsets_fill(x);
    ops_rope_table(x->table, (size_t)x->positions, x->head_dim, (double)d->rope_theta);
    cached_set_team(x, NULL);
    return x;
}

void cached_free(struct cached *x)
{
    if (x == NULL)
        return;
    free(x->score);
    free(x->place);
    free(x->token);
    free(x->position);
    free(x->arena);
    free(x->block);
    free(x);
}

void cached_set_progress(struct cached *x, uint64_t *counter)
{
    x->progress = counter;
}

void cached_set_team(struct cached *x, struct team *team)
{
    size_t count = team_parts(team) * (size_t)x->positions;

    x->team = team;
    free(x->score);
    x->score = aligned_alloc(64, (count * sizeof(real) + 63) / 64 * 64);
    CHECK(x->score != NULL);
}

size_t cached_weight_bytes(const struct cached *x)
{
    return x->weight_bytes;
}

real *cached_logits(struct cached *x, int32_t row)
{
    CHECK(row >= 0 && row < x->slots);
    return x->logits + (size_t)row * (size_t)x->d.vocab;
}

static void matrix_pack(const struct matrix *m, const real *w, size_t rows, size_t at)
{
    if (m->q8 != NULL)
        panel_q8_pack(w, rows, m->in, at, m->q8);
    else
        panel_pack(w, rows, m->in, at, m->full);
}

void cached_load(struct cached *x, const real *params)
{
    size_t q = x->heads * x->head_dim, kv = x->kv_heads * x->head_dim;

    x->params = params;
    for (int32_t i = 0; i < x->d.layers; i++) {
        struct block *b = &x->block[i];
        matrix_pack(&b->qkv, params + b->q, q, 0);
        matrix_pack(&b->qkv, params + b->k, kv, q);
        matrix_pack(&b->qkv, params + b->v, kv, q + kv);
        matrix_pack(&b->output, params + b->o, x->width, 0);
        matrix_pack(&b->gate_up, params + b->gate, x->ffn, 0);
        matrix_pack(&b->gate_up, params + b->up, x->ffn, x->ffn);
        matrix_pack(&b->back, params + b->down, x->width, 0);
    }
    matrix_pack(&x->head, params + x->lm_head, (size_t)x->d.vocab, 0);
}

/* ---- a linear layer, by the whole team ---- */

struct product {
    const struct matrix *m;
    const real *x;
    struct panel_q8_rows codes;
    real *y;
    const int32_t *place;
    size_t n;
    bool add;
};

static void product_part(void *self, size_t part, size_t parts)
{
    const struct product *p = self;
    const struct matrix *m = p->m;
    size_t panels = m->q8 != NULL ? panel_q8_panels(m->out) : panel_panels(m->out);
    size_t first = panels * part / parts, end = panels * (part + 1) / parts;

    if (m->q8 != NULL)
        panel_q8_linear(&p->codes, m->q8, p->y, m->out, p->place, p->n, m->in, m->out, p->add,
                        first, end);
    else
        panel_linear_some(p->x, m->in, m->full, p->y, m->out, p->place, p->n, m->in, m->out, p->add,
                          first, end);
}

/* y[place[r]] (+)= in[r] W^T for n rows; rows of `in` and y lie close. */
static void linear(const struct cached *x, const struct matrix *m, const real *in, real *y,
                   const int32_t *place, size_t n, bool add)
{
    struct product p = {.m = m, .x = in, .y = y, .place = place, .n = n, .add = add};

    if (n == 0)
        return;
    if (m->q8 != NULL) {
        p.codes = panel_q8_rows_at(x->codes, n, m->in);
        panel_q8_rows_fill(&p.codes, in, m->in, n, m->in);
    }
    team_run(x->team, product_part, &p);
}

/* ---- attention ---- */

static real *keys_of(struct cached *x, int32_t slot, int32_t layer, size_t g)
{
    size_t at = ((size_t)slot * (size_t)x->d.layers + (size_t)layer) * x->kv_heads + g;

    return x->keys + at * x->keys_of_head;
}

static real *values_of(struct cached *x, int32_t slot, int32_t layer, size_t g)
{
    size_t at = ((size_t)slot * (size_t)x->d.layers + (size_t)layer) * x->kv_heads + g;

    return x->values + at * x->values_of_head;
}

static void cache_put(struct cached *x, int32_t layer, const struct cached_row *row,
                      const real *qkv)
{
    const real *k = qkv + x->heads * x->head_dim, *v = k + x->kv_heads * x->head_dim;

    for (size_t g = 0; g < x->kv_heads; g++) {
        size_t p = (size_t)row->position;
        real *keys =
            keys_of(x, row->slot, layer, g) + p / VM_LANES * VM_LANES * x->head_dim + p % VM_LANES;
        real *values = values_of(x, row->slot, layer, g) + p * x->head_dim_pad;
        for (size_t i = 0; i < x->head_dim; i++) {
            keys[i * VM_LANES] = k[g * x->head_dim + i];
            values[i] = v[g * x->head_dim + i];
        }
    }
}

/* Scores of `blocks` (1 or 4) neighbouring blocks of positions: sums that don't wait for each other.
 */
VM_INLINE void scores_of_blocks(const real *q, const real *keys, size_t head_dim, real scale,
                                real *score, const size_t blocks)
{
    vreal s[4] = {{0}};

    for (size_t i = 0; i < head_dim; i++) {
        vreal v = q[i] - (vreal){0};
#pragma GCC unroll 4
        for (size_t b = 0; b < blocks; b++)
            s[b] = vm_fma(v, vm_load(keys + (b * head_dim + i) * VM_LANES), s[b]);
    }
#pragma GCC unroll 4
    for (size_t b = 0; b < blocks; b++)
        vm_store(score + b * VM_LANES, s[b] * scale);
}

/* score[t] = exp(scale q.k_t - max) for t < n, 0 up to the whole vector; returns 1 / their sum. */
static real scores_fill(const struct cached *x, const real *q, const real *keys, size_t n,
                        real scale, real *score)
{
    size_t whole = n / VM_LANES * VM_LANES, t = 0;
    vreal best = vm_set(-(real)__builtin_inf()), sum = {0};

    for (; t + 4 * VM_LANES <= n; t += 4 * VM_LANES)
        scores_of_blocks(q, keys + t * x->head_dim, x->head_dim, scale, score + t, 4);
    for (; t < n; t += VM_LANES)
        scores_of_blocks(q, keys + t * x->head_dim, x->head_dim, scale, score + t, 1);
    for (t = 0; t < whole; t += VM_LANES)
        best = vm_max(vm_load(score + t), best);
    if (whole < n) {
        vreal s = vm_load_part(score + whole, n - whole, -(real)__builtin_inf());
        vm_store(score + whole, s);
        best = vm_max(s, best);
    }
    best = vm_set(vm_max_lane(best));
    for (t = 0; t < n; t += VM_LANES) {
        vreal e = vm_exp(vm_load(score + t) - best);
        vm_store(score + t, e);
        sum += e;
    }
    return (real)1 / vm_sum(sum);
}

VM_INLINE void mix_put(real *out, size_t left, vreal all)
{
    if (left >= VM_LANES)
        vm_store(out, all);
    else
        vm_store_part(out, left, all);
}

/* out[i] = scale * sum over t < n of score[t] * values[t][i], for `wide` vectors of i. */
VM_INLINE void values_mix_some(const real *score, const real *v, size_t apart, size_t n, real scale,
                               real *out, size_t left, const size_t wide)
{
    vreal sum[CHAINS][2] = {{{0}}};
    size_t t = 0;

    for (; t + CHAINS <= n; t += CHAINS) {
#pragma GCC unroll 4
        for (size_t c = 0; c < CHAINS; c++) {
            vreal s = score[t + c] - (vreal){0};
#pragma GCC unroll 2
            for (size_t j = 0; j < wide; j++)
                sum[c][j] = vm_fma(s, vm_load(v + (t + c) * apart + j * VM_LANES), sum[c][j]);
        }
    }
    for (size_t c = 0; t < n; t++, c++)
        for (size_t j = 0; j < wide; j++)
            sum[c][j] =
                vm_fma(score[t] - (vreal){0}, vm_load(v + t * apart + j * VM_LANES), sum[c][j]);
#pragma GCC unroll 2
    for (size_t j = 0; j < wide; j++)
        mix_put(out + j * VM_LANES, left - j * VM_LANES,
                ((sum[0][j] + sum[2][j]) + (sum[1][j] + sum[3][j])) * scale);
}

static void values_mix(const struct cached *x, const real *score, const real *values, size_t n,
                       real scale, real *out)
{
    size_t i = 0, d = x->head_dim;

    for (; i + VM_LANES < d; i += 2 * VM_LANES)
        values_mix_some(score, values + i, x->head_dim_pad, n, scale, out + i, d - i, 2);
    if (i < d)
        values_mix_some(score, values + i, x->head_dim_pad, n, scale, out + i, d - i, 1);
}

static void fetch_begin(const real *at)
{
    for (size_t i = 0; i < FETCH_LINES; i++)
        __builtin_prefetch((const char *)at + i * 64, 0, 2);
}

struct attention {
    struct cached *x;
    int32_t layer;
    const struct cached_row *rows;
    size_t n;
};

/* A part takes a stretch of (row, head), row by row. */
static void attention_part(void *self, size_t part, size_t parts)
{
    const struct attention *a = self;
    struct cached *x = a->x;
    size_t group = x->heads / x->kv_heads, all = a->n * x->heads, D = x->head_dim;
    size_t end = all * (part + 1) / parts;
    real scale = (real)(1.0 / __builtin_sqrt((double)D)), *score;

    score = x->score + part * (size_t)x->positions;
    for (size_t i = all * part / parts; i < end; i++) {
        const struct cached_row *row = &a->rows[i / x->heads];
        size_t h = i % x->heads, n = (size_t)row->position + 1;
        const real *q = x->qkv + i / x->heads * x->qkv_cols + h * D;
        real share;
        /* Keys and values of a head are stretches of their own; nothing else fetches how they begin.
         */
        fetch_begin(values_of(x, row->slot, a->layer, h / group));
        share = scores_fill(x, q, keys_of(x, row->slot, a->layer, h / group), n, scale, score);
        if (i + 1 < end) {
            const struct cached_row *next = &a->rows[(i + 1) / x->heads];
            fetch_begin(keys_of(x, next->slot, a->layer, (i + 1) % x->heads / group));
        }
        values_mix(x, score, values_of(x, row->slot, a->layer, h / group), n, share,
                   x->mixed + i * D);
    }
}

/* ---- a step ---- */

static void block_step(struct cached *x, int32_t layer, const struct cached_row *rows, size_t n)
{
    const struct block *b = &x->block[layer];
    struct attention attention = {x, layer, rows, n};
    size_t C = x->width;
    real eps = (real)x->d.norm_eps;

    ops_rmsnorm(x->x, x->params + b->input_norm, x->norm, NULL, n, C, eps);
    linear(x, &b->qkv, x->norm, x->qkv, NULL, n, false);
    ops_rope(x->qkv, x->qkv_cols, x->table, x->position, n, x->heads + x->kv_heads, x->head_dim);
    for (size_t r = 0; r < n; r++)
        cache_put(x, layer, &rows[r], x->qkv + r * x->qkv_cols);
    team_run(x->team, attention_part, &attention);
    linear(x, &b->output, x->mixed, x->x, NULL, n, true);
    ops_rmsnorm(x->x, x->params + b->post_norm, x->norm, NULL, n, C, eps);
    linear(x, &b->gate_up, x->norm, x->gate_up, NULL, n, false);
    ops_swiglu(x->gate_up, x->hidden, n, x->ffn);
    linear(x, &b->back, x->hidden, x->x, NULL, n, true);
    if (x->progress != NULL)
        __atomic_fetch_add(x->progress, 1, __ATOMIC_RELAXED);
}

static void logits_fill(struct cached *x, const struct cached_row *rows, size_t n)
{
    size_t C = x->width, picked = 0;

    for (size_t r = 0; r < n; r++) {
        if (rows[r].logits < 0)
            continue;
        CHECK(picked < (size_t)x->slots && rows[r].logits < x->slots);
        ops_rmsnorm(x->x + r * C, x->params + x->final_norm, x->picked + picked * C, NULL, 1, C,
                    (real)x->d.norm_eps);
        x->place[picked++] = rows[r].logits;
    }
    linear(x, &x->head, x->picked, x->logits, x->place, picked, false);
}

void cached_step(struct cached *x, const struct cached_row *rows, size_t n)
{
    CHECK(n <= (size_t)x->rows_max && x->params != NULL);
    for (size_t r = 0; r < n; r++) {
        CHECK(rows[r].slot >= 0 && rows[r].slot < x->slots && rows[r].position >= 0 &&
              rows[r].position < x->positions && rows[r].token >= 0 && rows[r].token < x->d.vocab);
        x->position[r] = rows[r].position;
        x->token[r] = rows[r].token;
    }
    ops_embed(x->params + x->embed, x->token, x->x, n, x->width);
    for (int32_t layer = 0; layer < x->d.layers; layer++)
        block_step(x, layer, rows, n);
    logits_fill(x, rows, n);
}

void cached_copy(struct cached *x, int32_t from, int32_t to, int32_t positions)
{
    size_t keys = vm_round((size_t)positions) * x->head_dim * sizeof(real);
    size_t values = (size_t)positions * x->head_dim_pad * sizeof(real);

    CHECK(from >= 0 && from < x->slots && to >= 0 && to < x->slots && from != to);
    CHECK(positions >= 0 && positions <= x->positions);
    for (int32_t layer = 0; layer < x->d.layers; layer++)
        for (size_t g = 0; g < x->kv_heads; g++) {
            memcpy(keys_of(x, to, layer, g), keys_of(x, from, layer, g), keys);
            memcpy(values_of(x, to, layer, g), values_of(x, from, layer, g), values);
        }
}
