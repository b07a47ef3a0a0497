/*
 * opinion: what several workers say about the same tree nodes of one open step, chunk by chunk.
 *
 * A gradient's bits depend only on the node, so two workers that compute it must say the same. A
 * node is questioned when the run's audit picks it (opinions_audits()), or when two of its values
 * differ. It is settled as soon as two different workers have said the same; until then the step
 * must not be closed. Who said otherwise is `odd`. When what had been added up meanwhile was the
 * outvoted value the step is tainted: its sum is of no use, and the step must be started again.
 *
 *   WAITING   one value, or several by one worker     -> a second opinion is wanted
 *   DISPUTED  different values, none of them twice    -> one more is wanted
 *   SETTLED   two workers agree, or nobody could be asked (waived)
 *
 * Pure; grows in the first steps, then allocates nothing.
 */
#ifndef PS_OPINION_H
#define PS_OPINION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "types/tree.h"

#define OPINION_VOICES_MAX 8

enum opinion_state { OPINION_WAITING, OPINION_DISPUTED, OPINION_SETTLED };

struct opinion_voice {
    uint64_t who; /* 0: several, whose parts were added up */
    uint64_t hash;
};

struct opinion {
    struct tree_node node;
    uint32_t chunk;
    enum opinion_state state;
    uint64_t folded; /* hash of what was added up */
    uint64_t agreed; /* SETTLED: hash that two said */
    uint32_t voices_n;
    struct opinion_voice voice[OPINION_VOICES_MAX];
    bool disputed; /* at any time */
    bool tainted;
    bool waived;
    bool news;    /* the last opinions_take() has settled it, or found somebody odd */
    uint64_t odd; /* 0 = nobody was outvoted */
};

struct opinions;
struct opinions *opinions_new(uint32_t units, uint32_t chunks);
void opinions_free(struct opinions *o);
void opinions_reset(struct opinions *o); /* the next step */

/* Must two workers agree about this node? A pure function, the same at every host; share 0..1. */
bool opinions_audits(uint64_t seed, double share, uint64_t step, struct tree_node node);

/* A value has come for a node whose sum holds `folded` (said by folded_who; of a first value both
 * are its own). audited: see above. Gives the entry, or NULL while nobody questions the node. */
const struct opinion *opinions_take(struct opinions *o, struct tree_node node, uint32_t chunk,
                                    bool audited, struct opinion_voice voice,
                                    struct opinion_voice folded);
/* There is nobody to ask: what is only waited for is settled, in all chunks; disputes stay. Should somebody say otherwise
 * while the step is open, it is a dispute like any other. */
void opinions_waive(struct opinions *o, struct tree_node node);

bool opinions_hold(const struct opinions *o); /* the step must stay open */
uint32_t opinions_n(const struct opinions *o);
const struct opinion *opinions_at(const struct opinions *o, uint32_t i);

#endif
