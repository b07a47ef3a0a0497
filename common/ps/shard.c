#include "ps/shard.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"

#define ALIGN 64

/* A count in front of the floats, one cache line long so that they stay aligned. */
struct held {
    atomic_uint refs;
};

struct shard {
    const struct layout *layout;
    size_t begin, elems, chunk_elems;
    uint32_t chunks;
    uint64_t version;
    float **p;    /* [chunks] floats behind a struct held */
    float *m, *v; /* [elems] */
};

static struct held *head_of(const float *floats)
{
    return (struct held *)((char *)(uintptr_t)floats - ALIGN);
}

static float *floats_new(size_t n)
{
    size_t bytes = (n * sizeof(float) + ALIGN - 1) / ALIGN * ALIGN + ALIGN;
    struct held *h = aligned_alloc(ALIGN, bytes);

    CHECK(h != NULL);
    atomic_init(&h->refs, 1);
    return (float *)(void *)((char *)h + ALIGN);
}

void shard_release(const float *held)
{
    struct held *h = head_of(held);

    if (atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel) == 1)
        free(h);
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
        memcpy(s->p[i], params + (size_t)i * chunk_elems, shard_chunk_len(s, i) * sizeof(float));
    }
    return s;
}

void shard_free(struct shard *s)
{
    if (s == NULL)
        return;
    for (uint32_t i = 0; i < s->chunks; i++)
        shard_release(s->p[i]);
    free(s->p);
    free(s->m);
    free(s->v);
    free(s);
}

void shard_set_moments(struct shard *s, uint32_t chunk, const float *m, const float *v)
{
    size_t at = (size_t)chunk * s->chunk_elems;

    memcpy(s->m + at, m, shard_chunk_len(s, chunk) * sizeof(float));
    memcpy(s->v + at, v, shard_chunk_len(s, chunk) * sizeof(float));
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
    atomic_fetch_add_explicit(&head_of(s->p[chunk])->refs, 1, memory_order_relaxed);
    return s->p[chunk];
}

/* The chunk's floats, ours alone. */
static float *floats_own(struct shard *s, uint32_t chunk)
{
    float *mine = s->p[chunk];

    if (atomic_load_explicit(&head_of(mine)->refs, memory_order_acquire) > 1) {
        mine = floats_new(shard_chunk_len(s, chunk));
        memcpy(mine, s->p[chunk], shard_chunk_len(s, chunk) * sizeof(float));
        shard_release(s->p[chunk]);
        s->p[chunk] = mine;
    }
    return mine;
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
