/*
 * stats: means, intervals, rank and agreement statistics of reports. Pure and deterministic: the
 * same numbers give the same bits.
 *
 * NaN is "not measured": means and intervals skip it, pairs with a NaN are left out of
 * correlations. Intervals are 95 % percentile bootstrap (Efron & Tibshirani 1993, chapter 13) from
 * Philox stream RNG_BOOT; the ends are interpolated linearly between order statistics. They cover
 * the choice of units (contexts, responses), not training seeds.
 */
#ifndef EVAL_STATS_H
#define EVAL_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STATS_RESAMPLES 2000u
#define STATS_CLASSES_MAX 64

struct interval {
    double value, lo, hi; /* NaN when nothing was measured */
};
bool interval_has(const struct interval *i, double x); /* lo <= x <= hi; false with NaN */

double stats_mean(const double *x, size_t n); /* NaN if no value is present */
double stats_sd(const double *x,
                size_t n); /* n - 1 in the denominator; NaN for fewer than two values */

/* Mean with a 95 % t interval over n values (n - 1 degrees of freedom): what a few training seeds
 * say about the next one. lo and hi are NaN for fewer than two values; NaN values are skipped. */
struct interval stats_t_interval(const double *x, size_t n);

/* Resamples of n units, drawn once and used for many statistics, so that comparisons share their
 * draws. */
struct boot;
struct boot *boot_new(size_t n, uint32_t resamples, uint64_t seed,
                      uint32_t stream); /* 1 <= n < 2^32 */
void boot_free(struct boot *b);
struct interval boot_mean(const struct boot *b, const double *x);
struct interval boot_paired(const struct boot *b, const double *a,
                            const double *c); /* mean of a - c over units where both are present */
struct interval boot_ratio(const struct boot *b, const double *num,
                           const double *den); /* sum num / sum den */
/* Any statistic: value of pick[0..n) (unit indices with repeats). Called once with 0..n-1 and once
 * a resample. */
typedef double (*boot_fn)(void *self, const uint32_t *pick, size_t n);
struct interval boot_any(const struct boot *b, boot_fn fn, void *self);
/* Unpaired: mean(a) - mean(c), the two samples resampled each by itself. */
struct interval stats_boot_diff(const double *a, size_t na, const double *c, size_t nc,
                                uint32_t resamples, uint64_t seed, uint32_t stream);
/* Percentile p in [0, 1] of sorted values, linear between order statistics. */
double stats_percentile(const double *sorted, size_t n, double p);

void stats_ranks(const double *x, size_t n,
                 double *rank); /* 1-based, ties get their average; x without NaN */
double stats_pearson(const double *x, const double *y, size_t n); /* NaN when a side is constant */
double stats_spearman(const double *x, const double *y, size_t n);
/* Area under the ROC curve: chance that a positive scores above a negative, ties a half. NaN
 * without both kinds. */
double stats_auc(const double *score, const bool *positive, size_t n);

/* Agreement from a table: count[t * k + p] of truth t and prediction p. 1 <= k <=
 * STATS_CLASSES_MAX. */
double stats_accuracy(const double *count, int k);
double stats_kappa(const double *count, int k); /* Cohen 1960; NaN when chance agreement is 1 */
double stats_quadratic_kappa(const double *count, int k); /* Cohen 1968, weights (t - p)^2 */
double stats_macro_f1(const double *count,
                      int k); /* over classes that occur as truth or prediction */
void stats_confusion(const int *truth, const int *predicted, size_t n, int k,
                     double *count); /* overwrites; negative = missing, skipped */
/* Fleiss 1971: rating[i * k + j] raters put item i in class j; the same number (>= 2) of raters for
 * every item. */
double stats_fleiss_kappa(const double *rating, size_t n, int k);

/*
 * Edges of `levels` quantile bins, level = number of edges <= value (data/schema.h). Equal values
 * stay together: each cut falls between two different values, as near to an equal share of the rows
 * left above the last cut as ties allow (a tie of distances goes down), so that one crowded value
 * (no dialogue at all) gets a level of its own and the others share the rest. Edges do not fall and
 * are finite; equal edges mean an empty level, which only happens above the largest value. values
 * is sorted in place; NaN is not allowed (CHECKed).
 */
void stats_quantile_edges(double *values, size_t n, int levels, double *edge);

/* Distinct n-grams of words over all of them (Li et al. 2016), over the whole set of texts. NaN if
 * there is no n-gram. */
struct stats_text {
    const char *text;
    size_t len;
};
double stats_distinct(const struct stats_text *texts, size_t count, int gram);
/* Mean number of different words a text (the paper's appendix A.7). */
double stats_unique_words(const struct stats_text *texts, size_t count);

#endif
