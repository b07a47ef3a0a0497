/*
 * sampler: from logits to one token. Restrictions first (banned ids, a grammar's list), then
 * guidance, then temperature, top-k, top-p and one draw.
 *
 * A restricted id has the logit -INFINITY and can never come out. Weights are in single precision,
 * all sums in double, in a fixed order; the cost is a few passes over the vocabulary whatever is cut
 * off. The draw is a pure function of the logits and (seed, key, sample, position). Pure:
 * no allocation, no global, no I/O. Tests: tests/unit/model/test_sampler.c.
 */
#ifndef MODEL_SAMPLER_H
#define MODEL_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "model/decode.h"
#include "model/real.h"

enum {
    SAMPLER_NONE = -1 /* every id is restricted */,
    SAMPLER_NOT_FINITE = -2 /* a logit is NaN or +infinity */
};

struct sampler_draw {
    int32_t id;     /* or SAMPLER_NONE, SAMPLER_NOT_FINITE */
    double logprob; /* nats, under the softmax of the logits as given: temperature 1, neither top-k
                       nor top-p */
};

/* Sets the logits of ids[0..n) to -INFINITY. Ids outside [0, V) are ignored (a grown vocabulary's
 * list on a small model). */
void sampler_ban(real *logits, size_t V, const int32_t *ids, size_t n);
/* Sets all logits but those of ids[0..n) (ascending) to -INFINITY. */
void sampler_allow(real *logits, size_t V, const int32_t *ids, size_t n);
/*
 * cond becomes uncond + g (cond - uncond); where cond was -INFINITY it stays. For g > 1, ids whose
 * cond is more than cut below the best cond are dropped: far from where the model was trained,
 * extrapolated logits of unlikely tokens mean nothing.
 */
void sampler_guide(real *cond, const real *uncond, size_t V, float g, float cut);
/*
 * temperature 0: the id of the highest logit, the lowest such id on ties. Else softmax at the
 * temperature, cut to the top_k best (0: off), then to the shortest prefix in falling order whose
 * share is at least top_p (1: off), ties in rising order of id; one draw from what is left. work:
 * sampler_work_bytes(V), aligned as double.
 */
struct sampler_draw sampler_pick(const real *logits, size_t V, const struct sampling *s,
                                 uint64_t seed, uint64_t key, uint32_t sample, uint32_t position,
                                 void *work);
size_t sampler_work_bytes(size_t V);

#endif
