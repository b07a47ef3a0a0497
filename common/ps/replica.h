/*
 * replica: the copy that a host keeps of its neighbour's chunks: parameters, moments, and the root
 * gradients of the open step until the step is closed.
 *
 * The owner sends a chunk's root as soon as it has it, and counts it only once it is here; so when
 * a step is closed every root is at two hosts, and both make the same update of it. With a root
 * comes a hash of the owner's parameters before the update: a copy that is not equal to what it is
 * a copy of is worse than none. Pure. Nothing is allocated after replica_new().
 */
#ifndef PS_REPLICA_H
#define PS_REPLICA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "ps/fold.h" /* struct fold_sums */
#include "ps/shard.h"

struct replica;
/* Chunks [begin, end) of the whole vector, at `version`, all zero: fill replica_shard(). layout is
 * borrowed. */
struct replica *replica_new(const struct layout *layout, uint32_t begin, uint32_t end,
                            size_t chunk_elems, uint64_t version);
void replica_free(struct replica *r);

enum replica_verdict { REPLICA_TAKEN, REPLICA_KNOWN, REPLICA_DAMAGED };
/* The root of a chunk (counted from 0) of the open step; values [shard_chunk_len] are copied.
 * hash: fold_hash() of them and of sums (NULL = zero) as the owner took it. state: shard_hash() of
 * the owner's parameters. ERR_CORRUPT: they are not ours, or another root is here. */
int replica_take(struct replica *r, uint32_t chunk, const float *values,
                 const struct fold_sums *sums, uint64_t hash, uint64_t state,
                 enum replica_verdict *verdict, struct err *e);
bool replica_is_complete(const struct replica *r); /* all roots of the open step are here */
/* The open step is closed: applies its roots (CHECKed to be complete). */
void replica_apply(struct replica *r, const struct adamw *a, float scale, float lr);
struct shard *replica_shard(struct replica *r);

#endif
