/*
 * logreg: logistic regression with an L2 penalty, over sparse rows: minimises
 *   sum over rows of cross entropy + |W|^2 / (2 C)      (the intercepts are not penalised),
 * sigmoid for two classes, softmax with one weight row a class for more: the objective of
 * scikit-learn's LogisticRegression. Optimiser: L-BFGS (Nocedal & Wright 2006, algorithm 7.5,
 * memory 10) with a backtracking Armijo search from step 1, in double. The problem is strictly
 * convex in W, so there is one answer; one thread and one order of sums make its bits repeat.
 */
#ifndef EVAL_LOGREG_H
#define EVAL_LOGREG_H

#include "eval/tfidf.h"

struct logreg {
    int classes;
    int outputs; /* 1 for two classes, else classes */
    size_t columns;
    double *weight; /* [columns][outputs], then the intercepts [outputs] */
    int iterations;
    double objective,
        gradient; /* at the end: value, and largest component divided by the number of rows */
};

struct logreg_options {
    double c;         /* 1.0: as scikit-learn */
    double tolerance; /* on `gradient`; scikit-learn stops at 1e-4 of it */
    int iterations_max;
};
#define LOGREG_OPTIONS ((struct logreg_options){1.0, 1e-6, 300})

/* y[i] in 0..classes-1, or negative: the row is left out. classes 2..16. */
void logreg_fit(const struct csr *x, const int *y, int classes, const struct logreg_options *o,
                struct logreg *out);
void logreg_fini(struct logreg *m);
void logreg_predict(const struct logreg *m, const struct csr *x,
                    double *probability); /* [rows][classes] */

#endif
