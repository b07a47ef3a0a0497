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

#include "base/buf.h"
#include "base/err.h"
#include "model/ops.h"
#include "model/panel.h"
#include "model/vmath.h"

#define CACHE_SKEW 16
#define CHAINS                                                                                     \
    4 /* independent sums over positions, so that an fma does not wait for the one before it */

struct block {
    size_t input_norm, q, k, v, o, post_norm, gate, up, down; /* offsets in params */
    real *qkv, *out, *gate_up, *back;                         /* packed */
};

struct cached {
    struct dims d;
    int32_t slots, positions, rows_max; /* positions: context_max in whole vectors */
    size_t width, heads, kv_heads, head_dim, head_dim_pad, ffn, qkv_cols;
    size_t keys_of_head, values_of_head; /* elements */
    size_t embed, final_norm, lm_head;
    const real *params;
    struct block *block;
    real *head; /* packed */
    real *keys, *values;
    real *table;
    real *x, *norm, *qkv, *mixed, *gate_up, *hidden, *picked, *logits, *score;
    int32_t *position, *token;
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

static void sizes_fill(struct cached *x, const struct dims *d, int32_t slots, int32_t context_max,
                       int32_t rows_max)
{
    x->d = *d;
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
           mixed = x->heads * x->head_dim;

    for (size_t l = 0; l < layers; l++) {
        struct block b = {0};
        b.qkv = arena_take(arena, &used, panel_count(x->width, x->qkv_cols));
        b.out = arena_take(arena, &used, panel_count(mixed, x->width));
        b.gate_up = arena_take(arena, &used, panel_count(x->width, 2 * x->ffn));
        b.back = arena_take(arena, &used, panel_count(x->ffn, x->width));
        if (block != NULL)
            block[l] = b;
    }
    x->head = arena_take(arena, &used, panel_count(x->width, vocab));
    x->keys = arena_take(arena, &used, slots * layers * x->kv_heads * x->keys_of_head);
    x->values = arena_take(arena, &used, slots * layers * x->kv_heads * x->values_of_head);
    x->table = arena_take(arena, &used, positions * x->head_dim);
    x->x = arena_take(arena, &used, rows * x->width);
    x->norm = arena_take(arena, &used, rows * x->width);
    x->qkv = arena_take(arena, &used, rows * x->qkv_cols);
    x->mixed = arena_take(arena, &used, rows * mixed);
    x->gate_up = arena_take(arena, &used, rows * 2 * x->ffn);
    x->hidden = arena_take(arena, &used, rows * x->ffn);
    x->picked = arena_take(arena, &used, slots * x->width);
    x->logits = arena_take(arena, &used, 2 * slots * vocab); /* of a step, and kept by slot */
    x->score = arena_take(arena, &used, positions);
    return used;
}

size_t cached_bytes(const struct dims *d, int32_t slots, int32_t context_max, int32_t rows_max)
{
    struct cached x = {0};

    sizes_fill(&x, d, slots, context_max, rows_max);
    return arena_carve(&x, NULL, NULL) + sizeof(struct cached) +
           (size_t)d->layers * sizeof(struct block) + 2 * (size_t)rows_max * sizeof(int32_t);
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

struct cached *cached_new(const struct dims *d, int32_t slots, int32_t context_max,
                          int32_t rows_max)
{
    struct cached *x = mem_zalloc(1, sizeof(*x));
    size_t bytes;

    CHECK(d->head == HEAD_LM && slots >= 1 && context_max >= 1 && rows_max >= slots);
    sizes_fill(x, d, slots, context_max, rows_max);
    x->block = mem_zalloc((size_t)d->layers, sizeof(*x->block));
    bytes = arena_carve(x, NULL, NULL);
    x->arena = aligned_alloc(64, bytes);
    CHECK(x->arena != NULL); /* the caller has asked cached_bytes() whether it fits */
    memset(x->arena, 0, bytes);
    (void)arena_carve(x, x->arena, x->block);
    x->position = mem_zalloc((size_t)rows_max, sizeof(*x->position));
    x->token = mem_zalloc((size_t)rows_max, sizeof(*x->token));
    offsets_fill(x);
    ops_rope_table(x->table, (size_t)x->positions, x->head_dim, (double)d->rope_theta);
    return x;
}

void cached_free(struct cached *x)
{
    if (x == NULL)
        return;
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

real *cached_logits(struct cached *x, int32_t row)
{
    CHECK(row >= 0 && row < x->slots);
    return x->logits + ((size_t)x->slots + (size_t)row) * (size_t)x->d.vocab;
}

void cached_load(struct cached *x, const real *params)
{
    size_t q = x->heads * x->head_dim, kv = x->kv_heads * x->head_dim;

    x->params = params;
    for (int32_t i = 0; i < x->d.layers; i++) {
        struct block *b = &x->block[i];
        panel_pack(params + b->q, q, x->width, 0, b->qkv);
        panel_pack(params + b->k, kv, x->width, q, b->qkv);
        panel_pack(params + b->v, kv, x->width, q + kv, b->qkv);
        panel_pack(params + b->o, x->width, q, 0, b->out);
        panel_pack(params + b->gate, x->ffn, x->width, 0, b->gate_up);
        panel_pack(params + b->up, x->ffn, x->width, x->ffn, b->gate_up);
        panel_pack(params + b->down, x->width, x->ffn, 0, b->back);
    }
    panel_pack(params + x->lm_head, (size_t)x->d.vocab, x->width, 0, x->head);
}

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

/* score[t] = exp(scale q.k_t - max) for t < n, 0 up to the whole vector; returns 1 / their sum. */
static real scores_fill(const struct cached *x, const real *q, const real *keys, size_t n,
                        real scale)
{
    size_t whole = n / VM_LANES * VM_LANES;
    vreal best = vm_set(-(real)__builtin_inf()), sum = {0};

    for (size_t t = 0; t < n; t += VM_LANES) {
        const real *block = keys + t * x->head_dim;
        vreal s = {0};
        for (size_t i = 0; i < x->head_dim; i++)
            s = vm_fma(q[i] - (vreal){0}, vm_load(block + i * VM_LANES), s);
        s *= scale;
        vm_store(x->score + t, s);
        if (t < whole)
            best = vm_max(s, best);
    }
    if (whole < n) {
        vreal s = vm_load_part(x->score + whole, n - whole, -(real)__builtin_inf());
        vm_store(x->score + whole, s);
        best = vm_max(s, best);
    }
    best = vm_set(vm_max_lane(best));
    for (size_t t = 0; t < n; t += VM_LANES) {
        vreal e = vm_exp(vm_load(x->score + t) - best);
        vm_store(x->score + t, e);
        sum += e;
    }
    return (real)1 / vm_sum(sum);
}

/* out[i] = scale * sum over t < n of score[t] * values[t][i]. */
static void values_mix(const struct cached *x, const real *values, size_t n, real scale, real *out)
{
    for (size_t i = 0; i < x->head_dim; i += VM_LANES) {
        vreal sum[CHAINS] = {{0}};
        const real *v = values + i;
        size_t t = 0, left = x->head_dim - i;
        vreal all;
        for (; t + CHAINS <= n; t += CHAINS) {
            for (size_t c = 0; c < CHAINS; c++)
                sum[c] = vm_fma(x->score[t + c] - (vreal){0},
                                vm_load(v + (t + c) * x->head_dim_pad), sum[c]);
        }
        for (size_t c = 0; t < n; t++, c++)
            sum[c] = vm_fma(x->score[t] - (vreal){0}, vm_load(v + t * x->head_dim_pad), sum[c]);
        all = ((sum[0] + sum[2]) + (sum[1] + sum[3])) * scale;
        if (left >= VM_LANES)
            vm_store(out + i, all);
        else
            vm_store_part(out + i, left, all);
    }
}

static void row_attend(struct cached *x, int32_t layer, const struct cached_row *row, const real *q,
                       real *out)
{
    size_t group = x->heads / x->kv_heads, n = (size_t)row->position + 1;
    real scale = (real)(1.0 / __builtin_sqrt((double)x->head_dim));

    for (size_t h = 0; h < x->heads; h++) {
        real share =
            scores_fill(x, q + h * x->head_dim, keys_of(x, row->slot, layer, h / group), n, scale);
        values_mix(x, values_of(x, row->slot, layer, h / group), n, share, out + h * x->head_dim);
    }
}

static void block_step(struct cached *x, int32_t layer, const struct cached_row *rows, size_t n)
{
    const struct block *b = &x->block[layer];
    size_t C = x->width, mixed = x->heads * x->head_dim;
    real eps = (real)x->d.norm_eps;

    ops_rmsnorm(x->x, x->params + b->input_norm, x->norm, NULL, n, C, eps);
    panel_linear(x->norm, C, b->qkv, x->qkv, x->qkv_cols, n, C, x->qkv_cols, false);
    ops_rope(x->qkv, x->qkv_cols, x->table, x->position, n, x->heads + x->kv_heads, x->head_dim);
    for (size_t r = 0; r < n; r++)
        cache_put(x, layer, &rows[r], x->qkv + r * x->qkv_cols);
    for (size_t r = 0; r < n; r++)
        row_attend(x, layer, &rows[r], x->qkv + r * x->qkv_cols, x->mixed + r * mixed);
    panel_linear(x->mixed, mixed, b->out, x->x, C, n, mixed, C, true);
    ops_rmsnorm(x->x, x->params + b->post_norm, x->norm, NULL, n, C, eps);
    panel_linear(x->norm, C, b->gate_up, x->gate_up, 2 * x->ffn, n, C, 2 * x->ffn, false);
    ops_swiglu(x->gate_up, x->hidden, n, x->ffn);
    panel_linear(x->hidden, x->ffn, b->back, x->x, C, n, x->ffn, C, true);
    if (x->progress != NULL)
        __atomic_fetch_add(x->progress, 1, __ATOMIC_RELAXED);
}

static void logits_fill(struct cached *x, const struct cached_row *rows, size_t n)
{
    size_t C = x->width, V = (size_t)x->d.vocab, picked = 0;

    for (size_t r = 0; r < n; r++) {
        if (rows[r].logits < 0)
            continue;
        CHECK(picked < (size_t)x->slots);
        ops_rmsnorm(x->x + r * C, x->params + x->final_norm, x->picked + picked * C, NULL, 1, C,
                    (real)x->d.norm_eps);
        picked++;
    }
    panel_linear(x->picked, C, x->head, x->logits, V, picked, C, V, false);
    picked = 0;
    for (size_t r = 0; r < n; r++) {
        if (rows[r].logits >= 0)
            memcpy(cached_logits(x, rows[r].logits), x->logits + picked++ * V, V * sizeof(real));
    }
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
