/*
 * steering: from single replies to effects. Does the text change as asked, by how much, and what
 * else changes with it? All functions fill parts of a prepared struct results (results_prepare()).
 * Intervals are over contexts (replies) and over responses (loss gaps), 2,000 resamples, keyed by
 * the results' seed.
 */
#ifndef EVAL_STEERING_H
#define EVAL_STEERING_H

#include "eval/results.h"

struct steering_reply {
    int model, guidance, attr, level; /* indices into struct results; attr -1: all missing */
    size_t context;                   /* 0 .. contexts - 1, the same for all settings */
    const double *value;              /* [measures], NaN where not measured; borrowed */
    struct stats_text text;           /* borrowed */
    double tokens;                    /* length as written */
    double nll,
        nll_tokens; /* nats over so many tokens under the same model with all attributes missing */
    double base_nll, base_tokens; /* under a base model; 0, 0 without one */
};
/* Cells, effects, rates and (without human replies) spreads. A (cell, context) must come once
 * (CHECKed). */
void steering_replies(struct results *r, const struct steering_reply *reply, size_t n);

struct steering_human {
    const int8_t *level; /* [attrs] levels given by annotation, -1 = missing; borrowed */
    const double *value; /* [measures] */
    struct stats_text text;
};
/* What human replies of each level look like: the scale that effects are read on. Call before
 * steering_replies(). */
void steering_humans(struct results *r, const struct steering_human *reply, size_t n);

/* Which ruler shows each attribute: for a computed attribute the measure itself; else the ruler
 * that separates human replies of the highest and lowest level most, in standard deviations;
 * without human replies none. */
void steering_leads(struct results *r);

struct steering_loss {
    int model;
    uint32_t
        group; /* replies of one conversation are alike: intervals resample groups, not replies */
    double tokens, nll_true, nll_shuffled, nll_missing; /* sums over one held-out reply */
};
void steering_gaps(struct results *r, const struct steering_loss *loss, size_t n);

#endif
