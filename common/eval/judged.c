#include "eval/judged.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"

#define KNOBS 100
enum { STREAM_KAPPA = 3 };

void judged_classify(const double *p, size_t n, int classes, const double *prior, double knob,
                     int *out)
{
    double weight[SCHEMA_CLASSES_MAX];

    CHECK(classes >= 2 && classes <= SCHEMA_CLASSES_MAX);
    for (int c = 0; c < classes; c++)
        weight[c] = prior[c] > 0.0 ? pow(prior[c], -knob) : knob > 0.0 ? 0.0 : 1.0;
    for (size_t i = 0; i < n; i++) {
        const double *row = p + i * (size_t)classes;
        out[i] = 0;
        if (classes == 2) {
            out[i] = row[1] > knob;
            continue;
        }
        for (int c = 1; c < classes; c++) {
            if (row[c] * weight[c] > row[out[i]] * weight[out[i]])
                out[i] = c;
        }
    }
}

static double kappa_of(const int *truth, const int *guess, size_t n, int classes)
{
    double table[SCHEMA_CLASSES_MAX * SCHEMA_CLASSES_MAX], kappa;

    stats_confusion(truth, guess, n, classes, table);
    kappa = stats_kappa(table, classes);
    return isnan(kappa) ? 0.0 : kappa; /* one class only: no agreement beyond chance */
}

double judged_tune(const int *truth, const double *p, size_t n, int classes, const double *prior)
{
    int *guess = mem_zalloc(n + 1, sizeof *guess);
    double best = classes == 2 ? 0.5 : 0.0, best_kappa;

    judged_classify(p, n, classes, prior, best, guess);
    best_kappa = kappa_of(truth, guess, n, classes);
    for (int i = 1; i < KNOBS; i++) {
        double knob = (double)i / KNOBS, kappa;
        judged_classify(p, n, classes, prior, knob, guess);
        kappa = kappa_of(truth, guess, n, classes);
        if (kappa > best_kappa + 1e-12) {
            best = knob;
            best_kappa = kappa;
        }
    }
    free(guess);
    return best;
}

static double auc_of(const struct judged_rows *rows, const double *p, int classes)
{
    double *score = mem_zalloc(rows->n + 1, sizeof *score), sum = 0.0;
    bool *positive = mem_zalloc(rows->n + 1, sizeof *positive);
    int present = 0;

    for (int c = classes == 2 ? 1 : 0; c < classes;
         c++) { /* more than two: the mean of one against the rest */
        double auc;
        for (size_t i = 0; i < rows->n; i++) {
            score[i] = p[i * (size_t)classes + (size_t)c];
            positive[i] = rows->truth[i] == c;
        }
        auc = stats_auc(score, positive, rows->n);
        if (!isnan(auc)) {
            sum += auc;
            present++;
        }
    }
    free(score);
    free(positive);
    return present > 0 ? sum / present : (double)NAN;
}

static void scores_fill(const struct judged_rows *rows, const double *p, int classes,
                        const double *prior, double knob, int *guess, struct results_scores *out)
{
    double table[SCHEMA_CLASSES_MAX * SCHEMA_CLASSES_MAX];

    judged_classify(p, rows->n, classes, prior, knob, guess);
    stats_confusion(rows->truth, guess, rows->n, classes, table);
    out->accuracy = stats_accuracy(table, classes);
    out->kappa = stats_kappa(table, classes);
    out->macro_f1 = stats_macro_f1(table, classes);
    out->auc = auc_of(rows, p, classes);
}

struct
    paired { /* what a resample needs: a confusion table of each group, for two sets of guesses */
    double *a, *b;
    size_t groups;
    int classes;
};

static void paired_init(struct paired *x, const struct judged_rows *rows, int classes)
{
    size_t cells = (size_t)classes * (size_t)classes;

    *x = (struct paired){.groups = 0, .classes = classes};
    for (size_t i = 0; i < rows->n; i++) {
        size_t group = rows->group != NULL ? rows->group[i] : i;
        x->groups = group + 1 > x->groups ? group + 1 : x->groups;
    }
    x->a = mem_zalloc(2 * x->groups * cells + 1, sizeof *x->a);
    x->b = x->a + x->groups * cells;
}

static void paired_count(const struct paired *x, const struct judged_rows *rows, const int *guess,
                         double *table)
{
    size_t cells = (size_t)x->classes * (size_t)x->classes;

    for (size_t i = 0; i < rows->n; i++) {
        size_t group = rows->group != NULL ? rows->group[i] : i;
        table[group * cells + (size_t)(rows->truth[i] * x->classes + guess[i])] += 1.0;
    }
}

static double picked_kappa(const struct paired *x, const double *tables, const uint32_t *pick,
                           size_t n)
{
    double table[SCHEMA_CLASSES_MAX * SCHEMA_CLASSES_MAX];
    size_t cells = (size_t)x->classes * (size_t)x->classes;

    memset(table, 0, sizeof table);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < cells; k++)
            table[k] += tables[pick[i] * cells + k];
    return stats_kappa(table, x->classes);
}

static double kappa_first(void *self, const uint32_t *pick, size_t n)
{
    const struct paired *x = self;

    return picked_kappa(x, x->a, pick, n);
}

static double kappa_second(void *self, const uint32_t *pick, size_t n)
{
    const struct paired *x = self;

    return picked_kappa(x, x->b, pick, n);
}

static double kappa_difference(void *self, const uint32_t *pick, size_t n)
{
    return kappa_first(self, pick, n) - kappa_second(self, pick, n);
}

void judged_compare(const struct judged_rows *tune, const struct judged_rows *test, uint64_t seed,
                    struct results_judged *out)
{
    double prior[SCHEMA_CLASSES_MAX] = {0}, raw = out->classes == 2 ? 0.5 : 0.0;
    int *guess = mem_zalloc(3 * test->n + 1, sizeof *guess), *other = guess + test->n,
        *scratch = other + test->n;
    struct boot *boot;
    struct paired paired;
    int major = 0;
    size_t hits = 0;

    for (size_t i = 0; i < tune->n; i++)
        prior[tune->truth[i]] += 1.0 / (double)tune->n;
    for (int c = 1; c < out->classes; c++)
        major = prior[c] > prior[major] ? c : major;
    for (size_t i = 0; i < test->n; i++)
        hits += test->truth[i] == major;
    out->majority = (double)hits / (double)test->n;
    out->tuned_on = tune->n;
    out->tested_on = test->n;
    out->model_knob = judged_tune(tune->truth, tune->model, tune->n, out->classes, prior);
    scores_fill(test, test->model, out->classes, prior, raw, scratch, &out->model_raw);
    scores_fill(test, test->model, out->classes, prior, out->model_knob, guess, &out->model);
    paired_init(&paired, test, out->classes);
    paired_count(&paired, test, guess, paired.a);
    boot = boot_new(paired.groups, STATS_RESAMPLES, seed, STREAM_KAPPA);
    out->model_kappa = boot_any(boot, kappa_first, &paired);
    out->has_baseline = tune->baseline != NULL && test->baseline != NULL;
    if (out->has_baseline) {
        out->baseline_knob = judged_tune(tune->truth, tune->baseline, tune->n, out->classes, prior);
        scores_fill(test, test->baseline, out->classes, prior, raw, scratch, &out->baseline_raw);
        scores_fill(test, test->baseline, out->classes, prior, out->baseline_knob, other,
                    &out->baseline);
        paired_count(&paired, test, other, paired.b);
        out->baseline_kappa = boot_any(boot, kappa_second, &paired);
        out->difference = boot_any(boot, kappa_difference, &paired);
    }
    boot_free(boot);
    free(paired.a);
    free(guess);
}
