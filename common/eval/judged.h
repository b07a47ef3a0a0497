/*
 * judged: is the attribute model any good? Its class probabilities against human labels, next to
 * the bag-of-words baseline and the majority class. Both get one knob tuned for kappa on the same
 * rows, because raw argmax of rare classes says little: for two classes the cut on the probability;
 * for more the power (0..1) of the class prior that is divided out.
 */
#ifndef EVAL_JUDGED_H
#define EVAL_JUDGED_H

#include "eval/results.h"

struct judged_rows {
    size_t n;
    const int *truth;       /* class, all >= 0 */
    const double *model;    /* [n * classes] probabilities */
    const double *baseline; /* the same, or NULL */
    const uint32_t *group; /* rows of one conversation are alike: intervals resample groups; from 0,
                               without holes; NULL: every row by itself */
};
/* label, classes and class names of out are set by the caller; everything else is filled. tune.n
 * and test.n >= 1. */
void judged_compare(const struct judged_rows *tune, const struct judged_rows *test, uint64_t seed,
                    struct results_judged *out);
/* The knob that gives the best kappa (ties: the smaller), and the classes that a knob gives. */
double judged_tune(const int *truth, const double *p, size_t n, int classes, const double *prior);
void judged_classify(const double *p, size_t n, int classes, const double *prior, double knob,
                     int *out);

#endif
