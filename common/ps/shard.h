/*
 * shard: parameters and AdamW moments of a range of chunks, and the version they are at.
 *
 * Parameters live in one reference-counted buffer a chunk, so that a chunk can be on its way to
 * somebody (zero-copy) while the next version is made: an update writes in place when nobody else
 * holds the buffer and into a fresh one otherwise. Moments never leave, except as copies into a
 * checkpoint. Pure; one thread, but shard_release() may be called from any.
 */
#ifndef PS_SHARD_H
#define PS_SHARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/optim.h"
#include "ps/spread.h"

struct shard;
/* Elements [begin, begin + elems) of the flat vector; begin is a multiple of chunk_elems. params
 * [elems] are copied (NULL: zero), moments are zero, layout is borrowed (whole model: weight decay
 * is by tensor). */
struct shard *shard_new(const struct layout *layout, size_t begin, size_t elems, size_t chunk_elems,
                        const float *params, uint64_t version);
void shard_free(struct shard *s);
/* Before the first shard_set(): the parameters are shown at place [elems], which is borrowed, for
 * those who read them there while the version lasts; half: as bf16 holds them (ps/half.h), beside
 * the real ones, else they live there. Such a shard is updated in place and cannot be held. */
void shard_show(struct shard *s, float *place, bool half);
bool shard_is_shown(const struct shard *s);
void shard_use_spread(struct shard *s, struct spread spread); /* for shard_apply() */
/* A chunk as it was elsewhere, at the version of this shard. Copied; what is NULL stays. */
void shard_set(struct shard *s, uint32_t chunk, const float *p, const float *m, const float *v);

uint32_t shard_chunks(const struct shard *s);
size_t shard_chunk_len(const struct shard *s, uint32_t chunk);
uint64_t shard_version(const struct shard *s);
/* A chunk's parameters as they are shown to workers, until the next shard_apply(). */
const float *shard_shown(const struct shard *s, uint32_t chunk);
const float *shard_params(const struct shard *s, uint32_t chunk); /* the real ones, until then */
/* The same, held until shard_release(). Not of a shard that is shown (CHECKed). */
const float *shard_hold(struct shard *s, uint32_t chunk);
void shard_release(const float *held);

/* One optimiser step: version v -> v + 1. grad(self, chunk): summed gradient. scale: clip scale /
 * global weight. */
void shard_apply(struct shard *s, const struct adamw *a,
                 const float *(*grad)(void *self, uint32_t chunk), void *self, float scale,
                 float lr);
/* Copies p, m, v of a chunk, one after the other, into out [3 * shard_chunk_len]. */
void shard_copy(const struct shard *s, uint32_t chunk, float *out);
/* The moments as they are now, until the next shard_apply(). */
void shard_moments(const struct shard *s, uint32_t chunk, const float **m, const float **v);
uint64_t shard_hash(const struct shard *s, uint32_t chunk); /* of the chunk's parameters */
/* Of all three parts of a chunk of n elements, on the way from one host to another. */
uint64_t shard_parts_hash(const float *p, const float *m, const float *v, size_t n);

#endif
