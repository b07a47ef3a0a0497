#include "ps/shard.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL /* built for this room's vectors, which the packaged library is not */
#include <xxhash.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/pages.h"
#include "ps/floats.h"
#include "ps/half.h"

struct shard {
    const struct layout *layout;
    size_t begin, elems, chunk_elems;
    uint32_t chunks;
    uint64_t version;
    float **p;    /* [chunks] each counted, but for a shard that is shown in fp32: in its place */
    float *m, *v; /* [elems] */
    float *place; /* NULL: not shown */
    bool half;
    struct spread spread;
};

void shard_release(const float *held)
{
    floats_release(held);
}

struct shard *shard_new(const struct layout *layout, size_t begin, size_t elems, size_t chunk_elems,
                        const float *params, uint64_t version)
{
    struct shard *s = mem_zalloc(1, sizeof *s);

    CHECK(elems > 0 && begin % chunk_elems == 0 && begin + elems <= layout->count);
    s->layout = layout;
    s->begin = begin;
    s->elems = elems;
    s->chunk_elems = chunk_elems;
    s->chunks = (uint32_t)((elems + chunk_elems - 1) / chunk_elems);
    s->version = version;
    s->p = mem_zalloc(s->chunks, sizeof *s->p);
    s->m = pages_new(elems * sizeof *s->m);
    s->v = pages_new(elems * sizeof *s->v);
    for (uint32_t i = 0; i < s->chunks; i++) {
        s->p[i] = floats_new(shard_chunk_len(s, i));
        if (params != NULL)
            memcpy(s->p[i], params + (size_t)i * chunk_elems,
                   shard_chunk_len(s, i) * sizeof(float));
        else
            memset(s->p[i], 0, shard_chunk_len(s, i) * sizeof(float));
    }
    return s;
}

/* Parameters live where they are shown. */
static bool is_in_place(const struct shard *s)
{
    return s->place != NULL && !s->half;
}

static void half_or_copy(const struct shard *s, float *to, const float *from, size_t n)
{
    if (s->half)
        half_copy(to, from, n);
    else
        memcpy(to, from, n * sizeof *to);
}

void shard_free(struct shard *s)
{
    if (s == NULL)
        return;
    for (uint32_t i = 0; i < s->chunks && !is_in_place(s); i++)
        floats_release(s->p[i]);
    free(s->p);
    pages_free(s->m, s->elems * sizeof *s->m);
    pages_free(s->v, s->elems * sizeof *s->v);
    free(s);
}

void shard_show(struct shard *s, float *place, bool half)
{
    s->place = place;
    s->half = half;
    for (uint32_t i = 0; i < s->chunks; i++) {
        float *shown = place + (size_t)i * s->chunk_elems;
        half_or_copy(s, shown, s->p[i], shard_chunk_len(s, i));
        if (!half) {
            floats_release(s->p[i]);
            s->p[i] = shown;
        }
    }
}

bool shard_is_shown(const struct shard *s)
{
    return s->place != NULL;
}

void shard_use_spread(struct shard *s, struct spread spread)
{
    s->spread = spread;
}

/* The chunk's floats, ours alone. */
static float *floats_own(struct shard *s, uint32_t chunk)
{
    float *mine = s->p[chunk];

    if (!is_in_place(s) && floats_is_shared(mine)) {
        mine = floats_new(shard_chunk_len(s, chunk));
        memcpy(mine, s->p[chunk], shard_chunk_len(s, chunk) * sizeof(float));
        floats_release(s->p[chunk]);
        s->p[chunk] = mine;
    }
    return mine;
}

void shard_set(struct shard *s, uint32_t chunk, const float *p, const float *m, const float *v)
{
    size_t at = (size_t)chunk * s->chunk_elems;
    size_t bytes = shard_chunk_len(s, chunk) * sizeof(float);

    if (p != NULL)
        memcpy(floats_own(s, chunk), p, bytes);
    if (p != NULL && s->half)
        half_copy(s->place + at, p, shard_chunk_len(s, chunk));
    if (m != NULL)
        memcpy(s->m + at, m, bytes);
    if (v != NULL)
        memcpy(s->v + at, v, bytes);
}

uint32_t shard_chunks(const struct shard *s)
{
    return s->chunks;
}

size_t shard_chunk_len(const struct shard *s, uint32_t chunk)
{
    size_t at = (size_t)chunk * s->chunk_elems;

    CHECK(chunk < s->chunks);
    return s->elems - at < s->chunk_elems ? s->elems - at : s->chunk_elems;
}

uint64_t shard_version(const struct shard *s)
{
    return s->version;
}

const float *shard_shown(const struct shard *s, uint32_t chunk)
{
    CHECK(chunk < s->chunks);
    return s->place != NULL ? s->place + (size_t)chunk * s->chunk_elems : s->p[chunk];
}

const float *shard_params(const struct shard *s, uint32_t chunk)
{
    CHECK(chunk < s->chunks);
    return s->p[chunk];
}

const float *shard_hold(struct shard *s, uint32_t chunk)
{
    CHECK(chunk < s->chunks && s->place == NULL);
    floats_hold(s->p[chunk]);
    return s->p[chunk];
}

struct applying {
    struct shard *s;
    const struct adamw *a;
    const float *(*grad)(void *self, uint32_t chunk);
    void *self;
    float scale, lr;
};

static void chunk_apply(void *arg, uint32_t i)
{
    const struct applying *x = arg;
    struct shard *s = x->s;
    size_t at = (size_t)i * s->chunk_elems, n = shard_chunk_len(s, i);
    float *p = floats_own(s, i);

    adamw_step(x->a, s->layout, s->begin + at, n, p, s->m + at, s->v + at, x->grad(x->self, i),
               x->scale, x->lr, s->version + 1);
    if (s->half)
        half_copy(s->place + at, p, n);
}

void shard_apply(struct shard *s, const struct adamw *a,
                 const float *(*grad)(void *self, uint32_t chunk), void *self, float scale,
                 float lr)
{
    struct applying x = {s, a, grad, self, scale, lr};

    spread_each(&s->spread, s->chunks, chunk_apply, &x);
    s->version++;
}

void shard_copy(const struct shard *s, uint32_t chunk, float *out)
{
    size_t n = shard_chunk_len(s, chunk);
    size_t at = (size_t)chunk * s->chunk_elems;

    memcpy(out, s->p[chunk], n * sizeof(float));
    memcpy(out + n, s->m + at, n * sizeof(float));
    memcpy(out + 2 * n, s->v + at, n * sizeof(float));
}

void shard_moments(const struct shard *s, uint32_t chunk, const float **m, const float **v)
{
    *m = s->m + (size_t)chunk * s->chunk_elems;
    *v = s->v + (size_t)chunk * s->chunk_elems;
}

uint64_t shard_hash(const struct shard *s, uint32_t chunk)
{
    return XXH3_64bits(s->p[chunk], shard_chunk_len(s, chunk) * sizeof(float));
}

uint64_t shard_parts_hash(const float *p, const float *m, const float *v, size_t n)
{
    uint64_t hash = XXH3_64bits(p, n * sizeof *p);

    hash = XXH3_64bits_withSeed(m, n * sizeof *m, hash);
    return XXH3_64bits_withSeed(v, n * sizeof *v, hash);
}
