/*
 * results: everything that an evaluation found, as numbers; what reports are written from. Filled
 * by eval/steering.h (replies, effects, loss gaps), eval/judged.h (attribute model against
 * baseline) and eval/figures.h (promises kept or not).
 *
 * Words: a *measure* is a ruler (data/measure.h) or the attribute model's reading of one attribute,
 * named am_<attribute>. A *cell* is all replies of one model, guidance, attribute under test and
 * level, one a context. An *effect* is the mean difference of a measure between the highest and the
 * lowest level asked for, over the same contexts.
 */
#ifndef EVAL_RESULTS_H
#define EVAL_RESULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/schema.h"
#include "eval/stats.h"

#define RESULTS_MODELS_MAX 16
#define RESULTS_GUIDANCES_MAX 8
#define RESULTS_LEVELS_MAX SCHEMA_LEVELS_MAX
#define RESULTS_MEASURES_MAX 40
#define RESULTS_JUDGED_MAX SCHEMA_ATTRS_MAX /* a question has an attribute of its own */
#define RESULTS_SAMPLES_MAX 512
#define RESULTS_FIGURES_MAX 512
#define RESULTS_NAME_MAX 64

struct results_measure {
    char name[RESULTS_NAME_MAX];
    bool judged; /* read by the attribute model */
    bool score;  /* judged on a scale: an expected number, no probability, wherever it lies */
    bool rate;   /* a share or probability in [0, 1]; set by steering_replies() */
    int attr; /* the attribute that it reads by definition (judged, or computed from the text); -1
               */
};

struct results_cell {
    size_t replies;
    struct interval mean[RESULTS_MEASURES_MAX];
    double distinct2, unique_words; /* over the replies of the cell; words a reply */
    double tokens;                  /* mean length */
    double nll, base_nll; /* nats a token under the same model without attributes, and under a base
                             model; NaN */
};

struct results_effect {
    struct interval measure[RESULTS_MEASURES_MAX];
    double rho[RESULTS_MEASURES_MAX]; /* Spearman, requested level against measure, over single
                                         replies */
};

struct results_gap { /* held-out replies of humans, nats a token */
    size_t rows;
    double tokens, nll_true, nll_shuffled, nll_missing;
    struct interval shuffled; /* shuffled - true; interval over responses */
    struct interval missing;  /* missing - true */
};

struct results_scores {
    double accuracy, kappa, macro_f1, auc;
};
struct results_judged { /* one human label, on responses that no part of the judge has seen */
    char label[SCHEMA_NAME_MAX];
    int classes;
    char class_name[SCHEMA_CLASSES_MAX][SCHEMA_NAME_MAX];
    size_t tuned_on, tested_on;
    double majority; /* accuracy of always saying the class that is most frequent where tuned */
    bool has_baseline;
    struct results_scores model, model_raw, baseline,
        baseline_raw; /* raw: the most probable class */
    double model_knob,
        baseline_knob; /* what tuning chose: power of the prior divided out, or cut (two classes) */
    struct interval model_kappa, baseline_kappa, difference; /* difference: model - baseline */
};

struct results_human {
    size_t replies[RESULTS_LEVELS_MAX]; /* by level asked for */
    double mean[RESULTS_LEVELS_MAX][RESULTS_MEASURES_MAX];
};

struct results_sample {
    size_t context;
    int model, guidance, attr, level; /* attr -1: nothing asked for */
    char *prompt, *text;              /* owned */
};

struct results_figure {
    char name[160];
    char bound[96];
    double value, lo, hi; /* lo, hi NaN where it has no interval */
    bool ok;
};

struct results {
    char name[RESULTS_NAME_MAX];
    uint64_t seed;
    int models, guidances, attrs, levels, measures;
    char model[RESULTS_MODELS_MAX][RESULTS_NAME_MAX];
    double guidance[RESULTS_GUIDANCES_MAX];
    char attr[SCHEMA_ATTRS_MAX][SCHEMA_NAME_MAX];
    bool computed[SCHEMA_ATTRS_MAX];
    int level[RESULTS_LEVELS_MAX]; /* ascending */
    struct results_measure measure[RESULTS_MEASURES_MAX];
    size_t contexts;
    char others[16];
    double temperature;
    int max_new_tokens;

    struct results_cell *cell;           /* results_cell() */
    struct results_effect *effect;       /* results_effect() */
    double spread[RESULTS_MEASURES_MAX]; /* standard deviation of each measure over human replies,
                                            else over generated ones */

    bool has_human;
    struct results_human human[SCHEMA_ATTRS_MAX];
    size_t human_replies;
    double human_distinct2;
    int lead[SCHEMA_ATTRS_MAX]; /* the ruler that shows an attribute (steering_leads()); -1 */
    int sign[SCHEMA_ATTRS_MAX]; /* direction in which it goes in human replies */

    struct results_gap gap[RESULTS_MODELS_MAX];
    int judged_n, samples_n, figures_n;
    struct results_judged judged[RESULTS_JUDGED_MAX];
    struct results_sample sample[RESULTS_SAMPLES_MAX];
    struct results_figure figure[RESULTS_FIGURES_MAX];
};

/* Allocates cells and effects for the counts that are set; zero replies, NaN values. */
void results_prepare(struct results *r);
void results_fini(struct results *r);
/* attr -1: the model's replies with all attributes missing (guidance and level are then not looked
 * at). */
struct results_cell *results_cell(const struct results *r, int model, int guidance, int attr,
                                  int level);
struct results_effect *results_effect(const struct results *r, int model, int guidance, int attr);
/* Means over the settings of a model at one guidance; NaN if nothing was written. */
double results_mean_distinct2(const struct results *r, int model, int guidance);
double results_mean_nll(const struct results *r, int model, int guidance);
/* How much less likely replies become under the base model when attributes are asked for, against the same model asked for nothing; NaN
 * without a base model. */
double results_base_rise(const struct results *r, int model, int guidance);
/* Models whose labels differ only in "-<number>" at the end are training seeds of one: "steer",
 * "steer-2". */
bool results_same_group(const char *a, const char *b);
/* Loss gap (shuffled - true) over the training seeds of `first`'s group: a t interval over the
 * models, so it covers the draw of the training as well as that of the replies. seeds: how many;
 * 0 unless `first` is the first of its group and at least two were measured. */
struct interval results_gap_over_seeds(const struct results *r, int first, int *seeds);
bool results_is_control(const char *label); /* of group "control" */
void results_guidance_text(double g, char out[24]); /* "g1.5" */

#endif
