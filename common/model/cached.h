/*
 * cached: the forward of a few rows against a key/value cache: what one decode step computes.
 *
 * A row is the next position of one slot. Rows of many slots, and several rows of one slot (its
 * prompt), go through together; what comes out for a row depends on its slot's tokens and the
 * weights alone, bit for bit: linear layers are panel.h or panel_q8.h, all else works on one row at a
 * time in an order fixed by its position. So the cache of a prefix may be copied instead of computed
 * again (cached_copy()), and a team of threads changes no bit either. Weights are packed by
 * cached_load(); one arena holds everything. Used by decode.c; one thread, or one thread and its
 * team.
 */
#ifndef MODEL_CACHED_H
#define MODEL_CACHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/team.h"
#include "model/dims.h"
#include "model/real.h"

struct cached_row {
    int32_t slot, position,
        token;      /* positions of a slot come in order, from 0; a position may be computed anew */
    int32_t logits; /* row of cached_logits() that gets this row's logits; -1: not wanted */
};

struct cached;
/* Requires HEAD_LM. rows_max rows a step; context_max positions a slot. int8: weights of the linear
 * layers and the head as in panel_q8.h; embedding, norms and the cache stay as they are. */
struct cached *cached_new(const struct dims *d, int32_t slots, int32_t context_max,
                          int32_t rows_max, bool int8);
void cached_free(struct cached *x);
size_t cached_bytes(const struct dims *d, int32_t slots, int32_t context_max, int32_t rows_max,
                    bool int8);
/* Who helps with each step; borrowed, NULL: nobody. Pays when few rows wait for memory. */
void cached_set_team(struct cached *x, struct team *team);
void cached_load(struct cached *x, const real *params); /* packs; params are not needed afterwards
                                                           but for the embedding: borrowed */
void cached_set_progress(struct cached *x, uint64_t *counter);
/* rows in any order of slots; rows of one slot ascending. n <= rows_max. At most `slots` rows want
 * logits. */
void cached_step(struct cached *x, const struct cached_row *rows, size_t n);
/* Positions [0, positions) of slot `from` become those of slot `to`, as if its tokens had been
 * read there. */
void cached_copy(struct cached *x, int32_t from, int32_t to, int32_t positions);
size_t cached_weight_bytes(const struct cached *x); /* of packed weights: what a step reads once */
real *
cached_logits(struct cached *x,
              int32_t row); /* [V], written to by the sampler as well; valid until asked for anew */

#endif
