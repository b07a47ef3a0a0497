#include "ps/replica.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "ps/fold.h"

struct replica {
    struct shard *shard;
    uint32_t begin, chunks, have;
    size_t chunk_elems;
    float *root;    /* [chunks * chunk_elems] */
    bool *has;      /* [chunks] */
    uint64_t *hash; /* [chunks] of the roots that are here */
};

struct replica *replica_new(const struct layout *layout, uint32_t begin, uint32_t end,
                            size_t chunk_elems, uint64_t version)
{
    struct replica *r = mem_zalloc(1, sizeof *r);
    size_t at = begin * chunk_elems;
    size_t to = end * chunk_elems < layout->count ? end * chunk_elems : layout->count;

    CHECK(begin < end);
    r->shard = shard_new(layout, at, to - at, chunk_elems, NULL, version);
    r->begin = begin;
    r->chunks = end - begin;
    r->chunk_elems = chunk_elems;
    r->root = mem_zalloc(r->chunks * chunk_elems, sizeof *r->root);
    r->has = mem_zalloc(r->chunks, sizeof *r->has);
    r->hash = mem_zalloc(r->chunks, sizeof *r->hash);
    return r;
}

void replica_free(struct replica *r)
{
    if (r == NULL)
        return;
    shard_free(r->shard);
    free(r->root);
    free(r->has);
    free(r->hash);
    free(r);
}

int replica_take(struct replica *r, uint32_t chunk, const float *values,
                 const struct fold_sums *sums, uint64_t hash, uint64_t state,
                 enum replica_verdict *verdict, struct err *e)
{
    size_t n = shard_chunk_len(r->shard, chunk);

    *verdict = REPLICA_DAMAGED;
    if (fold_hash(values, n, sums) != hash)
        return 0;
    if (shard_hash(r->shard, chunk) != state)
        return err_set(e, ERR_CORRUPT,
                       "version %" PRIu64
                       ": the copy of chunk %u is not equal to its owner's: damaged memory, or a "
                       "machine of another numerics class",
                       shard_version(r->shard), r->begin + chunk);
    if (r->has[chunk] && r->hash[chunk] != hash)
        return err_set(e, ERR_CORRUPT, "step %" PRIu64 ": two different roots of chunk %u",
                       shard_version(r->shard) + 1, r->begin + chunk);
    *verdict = r->has[chunk] ? REPLICA_KNOWN : REPLICA_TAKEN;
    if (r->has[chunk])
        return 0;
    memcpy(r->root + chunk * r->chunk_elems, values, n * sizeof *values);
    r->has[chunk] = true;
    r->hash[chunk] = hash;
    r->have++;
    return 0;
}

bool replica_is_complete(const struct replica *r)
{
    return r->have == r->chunks;
}

static const float *root_of(void *self, uint32_t chunk)
{
    const struct replica *r = self;

    return r->root + chunk * r->chunk_elems;
}

void replica_apply(struct replica *r, const struct adamw *a, float scale, float lr)
{
    CHECK(replica_is_complete(r));
    shard_apply(r->shard, a, root_of, r, scale, lr);
    memset(r->has, 0, r->chunks * sizeof *r->has);
    r->have = 0;
}

struct shard *replica_shard(struct replica *r)
{
    return r->shard;
}
