/*
 * Slots of a chunk lie level by level in one array. A slot is EMPTY, HELD (owns a buffer: filled,
 * its parent is not) or SPENT (filled, its value has moved into its parent, or it lies below a node
 * that was pushed whole). Only HELD slots own memory, and at most one in each pair of siblings
 * stays HELD for long, because two held siblings merge at once.
 */
#include "ps/fold.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL /* built for this room's vectors, which the packaged library is not */
#include <xxhash.h>

#include "base/buf.h"
#include "base/err.h"
#include "ps/floats.h"
#include "ps/half.h"
#include "ps/values.h"

enum slot_state { SLOT_EMPTY, SLOT_HELD, SLOT_SPENT };

struct slot {
    enum slot_state state;
    bool hashed; /* false: spent below a bigger node, never seen itself */
    bool lent;   /* value is somebody else's */
    uint64_t hash, who;
    float *value;
    struct fold_sums sums;
};

struct fold {
    uint32_t m, height, chunks;
    uint32_t nodes;        /* slots of one chunk */
    uint32_t level_at[33]; /* where a level begins */
    size_t elems, chunk_elems;
    bool half;
    atomic_flag spare_busy; /* guards spare, spare_n, buffers: held for a few instructions */
    struct slot *slot;       /* [chunks * nodes] */
    float **spare;           /* free buffers */
    bool *lacks;             /* [m] scratch of fold_missing() */
    size_t spare_n, buffers; /* buffers: all that exist */
};

struct fold *fold_new(uint32_t m, size_t elems, size_t chunk_elems)
{
    struct fold *f = mem_zalloc(1, sizeof *f);

    CHECK(elems > 0 && chunk_elems > 0);
    atomic_flag_clear(&f->spare_busy);
    f->m = m;
    f->height = tree_height(m);
    f->elems = elems;
    f->chunk_elems = chunk_elems;
    f->chunks = (uint32_t)((elems + chunk_elems - 1) / chunk_elems);
    for (uint32_t level = 0; level <= f->height; level++) {
        f->level_at[level] = f->nodes;
        f->nodes += (m + (1u << level) - 1) >> level;
    }
    f->slot = mem_zalloc((size_t)f->chunks * f->nodes, sizeof *f->slot);
    f->lacks = mem_zalloc(m, sizeof *f->lacks);
    return f;
}

void fold_free(struct fold *f)
{
    if (f == NULL)
        return;
    fold_reset(f);
    for (size_t i = 0; i < f->spare_n; i++)
        floats_release(f->spare[i]);
    free(f->spare);
    free(f->slot);
    free(f->lacks);
    free(f);
}

void fold_use_half(struct fold *f)
{
    f->half = true;
}

static void spare_lock(struct fold *f)
{
    while (atomic_flag_test_and_set_explicit(&f->spare_busy, memory_order_acquire))
        ;
}

static void spare_unlock(struct fold *f)
{
    atomic_flag_clear_explicit(&f->spare_busy, memory_order_release);
}

static float *buffer_take(struct fold *f)
{
    float *taken = NULL;

    spare_lock(f);
    if (f->spare_n > 0) {
        taken = f->spare[--f->spare_n];
    } else {
        f->buffers++;
        f->spare = mem_grow(f->spare, f->buffers, sizeof *f->spare);
    }
    spare_unlock(f);
    return taken != NULL ? taken : floats_new(f->chunk_elems);
}

static void slot_spend(struct fold *f, struct slot *s)
{
    if (s->value != NULL && !s->lent) {
        bool shared = floats_is_shared(s->value); /* a root that is still being sent */
        spare_lock(f);
        if (shared)
            f->buffers--;
        else
            f->spare[f->spare_n++] = s->value;
        spare_unlock(f);
        if (shared)
            floats_release(s->value);
    }
    s->value = NULL;
    s->lent = false;
    s->state = SLOT_SPENT;
}

void fold_reset(struct fold *f)
{
    for (size_t i = 0; i < (size_t)f->chunks * f->nodes; i++) {
        slot_spend(f, &f->slot[i]);
        f->slot[i].state = SLOT_EMPTY;
        f->slot[i].hashed = false;
        f->slot[i].who = 0;
    }
}

uint32_t fold_chunks(const struct fold *f)
{
    return f->chunks;
}

size_t fold_chunk_len(const struct fold *f, uint32_t chunk)
{
    size_t begin = (size_t)chunk * f->chunk_elems;

    CHECK(chunk < f->chunks);
    return f->elems - begin < f->chunk_elems ? f->elems - begin : f->chunk_elems;
}

uint64_t fold_hash(const float *values, size_t n, const struct fold_sums *sums)
{
    uint64_t words[3] = {0, 0, 0};

    if (sums != NULL) {
        memcpy(&words[0], &sums->loss, sizeof words[0]);
        memcpy(&words[1], &sums->weight, sizeof words[1]);
        words[2] = sums->tokens;
    }
    return XXH3_64bits_withSeed(values, n * sizeof(float), XXH3_64bits(words, sizeof words));
}

static struct slot *slot_at(const struct fold *f, uint32_t chunk, struct tree_node node)
{
    return &f->slot[(size_t)chunk * f->nodes + f->level_at[node.level] + node.index];
}

/* A node came whole: what was collected below it is not needed any more. */
static void spend_below(struct fold *f, uint32_t chunk, struct tree_node node)
{
    for (uint32_t level = 0; level < node.level; level++) {
        struct tree_span leaves = tree_leaves(f->m, node);
        uint32_t last = (leaves.end - 1) >> level;
        for (uint32_t i = leaves.begin >> level; i <= last; i++) {
            struct slot *s = slot_at(f, chunk, (struct tree_node){level, i});
            if (s->state != SLOT_SPENT)
                slot_spend(f, s);
        }
    }
}

/* Moves filled slots up as far as they go. */
static void rise(struct fold *f, uint32_t chunk, struct tree_node node)
{
    size_t n = fold_chunk_len(f, chunk);

    while (node.level < f->height) {
        struct tree_node above = tree_parent(node);
        struct slot *s = slot_at(f, chunk, node);
        struct slot *up = slot_at(f, chunk, above);
        if (tree_has_right(f->m, above)) {
            struct slot *other = slot_at(f, chunk, tree_sibling(node));
            const struct slot *left = (node.index & 1) == 0 ? s : other;
            const struct slot *right = left == s ? other : s;
            if (other->state == SLOT_EMPTY)
                return;
            up->sums = (struct fold_sums){left->sums.loss + right->sums.loss,
                                          left->sums.weight + right->sums.weight,
                                          left->sums.tokens + right->sums.tokens};
            if (f->half)
                half_add(s->value, other->value, n);
            else
                values_add(s->value, other->value, n);
            slot_spend(f, other);
            up->hash = fold_hash(s->value, n, &up->sums);
        } else {
            up->sums = s->sums;
            up->hash = s->hash;
        }
        up->value = s->value;
        up->lent = s->lent;
        up->state = SLOT_HELD;
        up->hashed = true;
        s->value = NULL;
        s->lent = false;
        s->state = SLOT_SPENT;
        node = above;
    }
}

/* lent NULL: values are copied. */
static enum fold_verdict slot_fill(struct fold *f, uint32_t chunk, struct tree_node node,
                                   const float *values, float *lent, const struct fold_sums *sums,
                                   uint64_t hash)
{
    struct slot *s;

    CHECK(chunk < f->chunks && tree_node_is_valid(f->m, node));
    s = slot_at(f, chunk, node);
    if (s->state != SLOT_EMPTY)
        return s->hashed && s->hash != hash ? FOLD_CONFLICT : FOLD_DUPLICATE;
    spend_below(f, chunk, node);
    s->value = lent != NULL ? lent : buffer_take(f);
    s->lent = lent != NULL;
    if (lent == NULL)
        memcpy(s->value, values, fold_chunk_len(f, chunk) * sizeof *values);
    s->sums = sums != NULL ? *sums : (struct fold_sums){0};
    s->hash = hash;
    s->hashed = true;
    s->state = SLOT_HELD;
    rise(f, chunk, node);
    return FOLD_ACCEPTED;
}

enum fold_verdict fold_add(struct fold *f, uint32_t chunk, struct tree_node node,
                           const float *values, const struct fold_sums *sums, uint64_t hash)
{
    return slot_fill(f, chunk, node, values, NULL, sums, hash);
}

enum fold_verdict fold_lend(struct fold *f, uint32_t chunk, struct tree_node node, float *values,
                            const struct fold_sums *sums, uint64_t hash)
{
    return slot_fill(f, chunk, node, values, values, sums, hash);
}

bool fold_has(const struct fold *f, uint32_t chunk, struct tree_node node)
{
    CHECK(chunk < f->chunks && tree_node_is_valid(f->m, node));
    return slot_at(f, chunk, node)->state != SLOT_EMPTY;
}

const float *fold_root(const struct fold *f, uint32_t chunk, struct fold_sums *sums)
{
    const struct slot *s;

    CHECK(chunk < f->chunks);
    s = slot_at(f, chunk, (struct tree_node){f->height, 0});
    if (s->state != SLOT_HELD)
        return NULL;
    if (sums != NULL)
        *sums = s->sums;
    return s->value;
}

void fold_note(struct fold *f, uint32_t chunk, struct tree_node node, uint64_t who)
{
    slot_at(f, chunk, node)->who = who;
}

bool fold_said(const struct fold *f, uint32_t chunk, struct tree_node node, uint64_t *hash,
               uint64_t *who)
{
    const struct slot *s = slot_at(f, chunk, node);

    *hash = s->hash;
    *who = s->who;
    return s->state != SLOT_EMPTY && s->hashed;
}

static bool leaf_is_there(const struct fold *f, uint32_t chunk, uint32_t leaf)
{
    for (uint32_t level = 0; level <= f->height; level++)
        if (slot_at(f, chunk, (struct tree_node){level, leaf >> level})->state != SLOT_EMPTY)
            return true;
    return false;
}

/* All chunks come in nearly the same order, so that a part of very many says enough. */
#define MISSING_LOOKS ((size_t)1 << 17)

size_t fold_missing(struct fold *f, struct tree_span *out, size_t cap)
{
    size_t looks = 0, n = 0;

    memset(f->lacks, 0, f->m * sizeof *f->lacks);
    for (uint32_t chunk = 0; chunk < f->chunks && looks < MISSING_LOOKS; chunk++) {
        if (fold_root(f, chunk, NULL) != NULL)
            continue;
        looks += f->m;
        for (uint32_t leaf = 0; leaf < f->m; leaf++)
            f->lacks[leaf] = f->lacks[leaf] || !leaf_is_there(f, chunk, leaf);
    }
    for (uint32_t leaf = 0; leaf < f->m; leaf++) {
        if (!f->lacks[leaf])
            continue;
        if (n > 0 && (n == cap || out[n - 1].end == leaf))
            out[n - 1].end = leaf + 1;
        else
            out[n++] = (struct tree_span){leaf, leaf + 1};
    }
    return n;
}

uint64_t fold_root_hash(const struct fold *f, uint32_t chunk)
{
    return slot_at(f, chunk, (struct tree_node){f->height, 0})->hash;
}

bool fold_root_is_lent(const struct fold *f, uint32_t chunk)
{
    return slot_at(f, chunk, (struct tree_node){f->height, 0})->lent;
}
