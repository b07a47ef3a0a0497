#include "ps/shard.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL /* built for this room's vectors, which the packaged library is not */
#include <xxhash.h>

#include "base/buf.h"
#include "base/err.h"
#include "ps/floats.h"

struct shard {
    const struct layout *layout;
    size_t begin, elems, chunk_elems;
    uint32_t chunks;
    uint64_t version;
    float **p;    /* [chunks] each counted */
    float *m, *v; /* [elems] */
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
    s->m = mem_zalloc(elems, sizeof *s->m);
    s->v = mem_zalloc(elems, sizeof *s->v);
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

void shard_free(struct shard *s)
{
    if (s == NULL)
        return;
    for (uint32_t i = 0; i < s->chunks; i++)
        floats_release(s->p[i]);
    free(s->p);
    free(s->m);
    free(s->v);
    free(s);
}

/* The chunk's floats, ours alone. */
static float *floats_own(struct shard *s, uint32_t chunk)
{
    float *mine = s->p[chunk];

    if (floats_is_shared(mine)) {
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

const float *shard_hold(struct shard *s, uint32_t chunk)
{
    CHECK(chunk < s->chunks);
    floats_hold(s->p[chunk]);
    return s->p[chunk];
}

void shard_apply(struct shard *s, const struct adamw *a,
                 const float *(*grad)(void *self, uint32_t chunk), void *self, float scale,
                 float lr)
{
    for (uint32_t i = 0; i < s->chunks; i++) {
        size_t at = (size_t)i * s->chunk_elems;
        adamw_step(a, s->layout, s->begin + at, shard_chunk_len(s, i), floats_own(s, i), s->m + at,
                   s->v + at, grad(self, i), scale, lr, s->version + 1);
    }
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
