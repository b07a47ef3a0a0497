/*
 * cached: the forward of a few rows against a key/value cache: what one decode step computes.
 *
 * A row is the next position of one slot. Rows of many slots, and several rows of one slot (its
 * prompt), go through together; what comes out for a row depends on its slot's tokens and the
 * weights alone, bit for bit: linear layers are panel.h, all else works on one row at a time in an
 * order fixed by its position. Weights are packed by cached_load(); one arena holds everything.
 * Used by decode.c; one thread.
 */
#ifndef MODEL_CACHED_H
#define MODEL_CACHED_H

#include <stddef.h>
#include <stdint.h>

#include "model/dims.h"
#include "model/real.h"

struct cached_row {
    int32_t slot, position,
        token;      /* positions of a slot come in order, from 0; a position may be computed anew */
    int32_t logits; /* row of cached_logits() that gets this row's logits; -1: not wanted */
};

struct cached;
/* Requires HEAD_LM. rows_max rows a step; context_max positions a slot. */
struct cached *cached_new(const struct dims *d, int32_t slots, int32_t context_max,
                          int32_t rows_max);
void cached_free(struct cached *x);
size_t cached_bytes(const struct dims *d, int32_t slots, int32_t context_max, int32_t rows_max);
void cached_load(struct cached *x, const real *params); /* packs; params are not needed afterwards
                                                           but for the embedding: borrowed */
void cached_set_progress(struct cached *x, uint64_t *counter);
/* rows in any order of slots; rows of one slot ascending. n <= rows_max. At most `slots` rows want
 * logits. */
void cached_step(struct cached *x, const struct cached_row *rows, size_t n);
real *
cached_logits(struct cached *x,
              int32_t row); /* [V], written to by the sampler as well; valid until asked for anew */

#endif
