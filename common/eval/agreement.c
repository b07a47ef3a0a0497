/* The agreement half of eval/stats.h: everything that is read off a table of counts. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "eval/stats.h"

struct margins {
    double row[STATS_CLASSES_MAX], column[STATS_CLASSES_MAX], diagonal, total;
};

static void margins_of(const double *count, int k, struct margins *m)
{
    CHECK(k >= 1 && k <= STATS_CLASSES_MAX);
    memset(m, 0, sizeof *m);
    for (int t = 0; t < k; t++) {
        for (int p = 0; p < k; p++) {
            m->row[t] += count[t * k + p];
            m->column[p] += count[t * k + p];
        }
        m->diagonal += count[t * k + t];
        m->total += m->row[t];
    }
}

double stats_accuracy(const double *count, int k)
{
    struct margins m;

    margins_of(count, k, &m);
    return m.total > 0.0 ? m.diagonal / m.total : (double)NAN;
}

double stats_kappa(const double *count, int k)
{
    struct margins m;
    double chance = 0.0;

    margins_of(count, k, &m);
    for (int i = 0; i < k; i++)
        chance += m.row[i] * m.column[i];
    chance /= m.total; /* expected agreements, as a count */
    return m.total > chance ? (m.diagonal - chance) / (m.total - chance) : (double)NAN;
}

double stats_quadratic_kappa(const double *count, int k)
{
    struct margins m;
    double seen = 0.0, chance = 0.0;

    margins_of(count, k, &m);
    for (int t = 0; t < k; t++) {
        for (int p = 0; p < k; p++) {
            double weight = (double)(t - p) * (double)(t - p);
            seen += weight * count[t * k + p];
            chance += weight * m.row[t] * m.column[p] / m.total;
        }
    }
    return chance > 0.0 ? 1.0 - seen / chance : (double)NAN;
}

double stats_macro_f1(const double *count, int k)
{
    struct margins m;
    double sum = 0.0;
    int classes = 0;

    margins_of(count, k, &m);
    for (int i = 0; i < k; i++) {
        if (m.row[i] + m.column[i] > 0.0) {
            sum += 2.0 * count[i * k + i] / (m.row[i] + m.column[i]);
            classes++;
        }
    }
    return classes > 0 ? sum / classes : (double)NAN;
}

void stats_confusion(const int *truth, const int *predicted, size_t n, int k, double *count)
{
    CHECK(k >= 1 && k <= STATS_CLASSES_MAX);
    memset(count, 0, (size_t)k * (size_t)k * sizeof *count);
    for (size_t i = 0; i < n; i++) {
        if (truth[i] < 0 || predicted[i] < 0)
            continue;
        CHECK(truth[i] < k && predicted[i] < k);
        count[truth[i] * k + predicted[i]] += 1.0;
    }
}

double stats_fleiss_kappa(const double *rating, size_t n, int k)
{
    double share[STATS_CLASSES_MAX] = {0}, raters = 0.0, agreed = 0.0, chance = 0.0;

    CHECK(n >= 1 && k >= 1 && k <= STATS_CLASSES_MAX);
    for (int j = 0; j < k; j++)
        raters += rating[j];
    CHECK(raters >= 2.0);
    for (size_t i = 0; i < n; i++) {
        double squares = 0.0;
        for (int j = 0; j < k; j++) {
            double r = rating[i * (size_t)k + (size_t)j];
            squares += r * r;
            share[j] += r;
        }
        agreed += (squares - raters) / (raters * (raters - 1.0));
    }
    agreed /= (double)n;
    for (int j = 0; j < k; j++)
        chance += share[j] / ((double)n * raters) * (share[j] / ((double)n * raters));
    return chance < 1.0 ? (agreed - chance) / (1.0 - chance) : (double)NAN;
}
