/* eval/stats.h against hand-worked and textbook values. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "eval/stats.h"

#define N(a) (sizeof(a) / sizeof *(a))
#define assert_near(a, b, tol) assert_float_equal((float)(a), (float)(b), (float)(tol))

static void test_means_skip_missing_values(void **state)
{
    double x[] = {2, 4, (double)NAN, 4, 4, 5, 5, 7, 9};
    (void)state;

    assert_near(stats_mean(x, N(x)), 5.0, 1e-9);
    assert_near(stats_sd(x, N(x)), 2.1380899, 1e-6); /* sqrt(32 / 7) */
    assert_true(isnan(stats_mean(x + 2, 1)));
    assert_true(isnan(stats_sd(x, 1)));
}

static void test_percentile_interpolates(void **state)
{
    double x[] = {1, 2, 3, 4};
    (void)state;

    assert_near(stats_percentile(x, 4, 0.25), 1.75, 1e-12); /* numpy.percentile([1,2,3,4], 25) */
    assert_near(stats_percentile(x, 4, 0.0), 1.0, 1e-12);
    assert_near(stats_percentile(x, 4, 1.0), 4.0, 1e-12);
}

static void test_ranks_and_spearman_average_ties(void **state)
{
    double x[] = {10, 20, 20, 30}, rank[4];
    /* IQ against hours of television, the example of Wikipedia's article on Spearman: rho =
     * -29/165. */
    double iq[] = {106, 100, 86, 101, 99, 103, 97, 113, 112, 110},
           tv[] = {7, 27, 2, 50, 28, 29, 20, 12, 6, 17};
    double flat[] = {1, 1, 1, 1};
    (void)state;

    stats_ranks(x, 4, rank);
    assert_near(rank[0], 1.0, 0);
    assert_near(rank[1], 2.5, 0);
    assert_near(rank[2], 2.5, 0);
    assert_near(rank[3], 4.0, 0);
    assert_near(stats_spearman(iq, tv, 10), -29.0 / 165.0, 1e-6);
    assert_true(isnan(stats_spearman(x, flat, 4)));
    tv[3] = (double)NAN; /* the pair is left out: 9 pairs remain */
    assert_true(!isnan(stats_spearman(iq, tv, 10)));
}

static void test_pearson(void **state)
{
    double x[] = {1, 2, 3, 4, 5}, y[] = {2, 4, 5, 4, 5};
    (void)state;

    assert_near(stats_pearson(x, y, 5), 6.0 / sqrt(60.0), 1e-6); /* xx 10, yy 6, xy 6 */
}

static void test_agreement_of_tables(void **state)
{
    double table[] = {20, 5, 10, 15};              /* po .7, pe .5 */
    double three[] = {10, 2, 0, 3, 8, 1, 0, 2, 4}; /* 30 rows, 22 agree */
    double one[] = {7, 0, 0, 0};
    (void)state;

    assert_near(stats_accuracy(table, 2), 0.7, 1e-9);
    assert_near(stats_kappa(table, 2), 0.4, 1e-9);
    /* f1 = 40/(25+30), 30/(25+20) */
    assert_near(stats_macro_f1(table, 2), (40.0 / 55.0 + 30.0 / 45.0) / 2.0, 1e-9);
    /* rows 12 12 6, columns 13 12 5: chance (156 + 144 + 30) / 30 = 11; kappa = (22 - 11) / (30 -
     * 11) */
    assert_near(stats_kappa(three, 3), 11.0 / 19.0, 1e-6);
    /* weighted disagreement 8; by chance ((12*12 + 12*13 + 12*5 + 6*12) + 4 * (12*5 + 6*13)) / 30 =
     * 984 / 30 */
    assert_near(stats_quadratic_kappa(three, 3), 1.0 - 8.0 / 32.8, 1e-6);
    assert_true(isnan(stats_kappa(one, 2)));
}

static void test_fleiss_textbook(void **state)
{
    /* Fleiss's example as on Wikipedia: 14 raters, 10 subjects, 5 classes: 0.210. */
    double r[] = {0, 0, 0, 0, 14, 0, 2, 6, 4, 2, 0, 0, 3, 5, 6, 0, 3, 9, 2, 0, 2, 2, 8, 1, 1,
                  7, 7, 0, 0, 0,  3, 2, 6, 3, 0, 2, 5, 3, 2, 2, 6, 5, 2, 1, 0, 0, 2, 2, 3, 7};
    (void)state;

    assert_near(stats_fleiss_kappa(r, 10, 5), 0.2099, 1e-4);
}

static void test_confusion_skips_missing(void **state)
{
    int t[] = {0, 1, -1, 1}, p[] = {0, 0, 1, -1};
    double c[4];
    (void)state;

    stats_confusion(t, p, 4, 2, c);
    assert_near(c[0], 1, 0);
    assert_near(c[2], 1, 0);
    assert_near(c[1] + c[3], 0, 0);
}

static void test_auc(void **state)
{
    double s[] = {0.1, 0.4, 0.35, 0.8}, tied[] = {1, 1, 1, 1};
    bool y[] = {false, false, true, true}, none[] = {false, false, false, false};
    (void)state;

    assert_near(stats_auc(s, y, 4), 0.75, 1e-9); /* scikit-learn's example */
    assert_near(stats_auc(tied, y, 4), 0.5, 1e-9);
    assert_true(isnan(stats_auc(s, none, 4)));
}

static int level_of(const double *edge, int levels, double x)
{
    int level = 0;

    for (int i = 0; i < levels - 1; i++)
        level += edge[i] <= x;
    return level;
}

static void test_quantile_edges_keep_ties_together(void **state)
{
    double even[] = {9, 0, 1, 8, 2, 7, 3, 6, 4, 5}, edge[4];
    double ties[] = {0, 0, 0, 0, 0, 0, 0, 1, 2, 3}; /* 70 % zeros */
    double flat[] = {2, 2, 2};
    (void)state;

    stats_quantile_edges(even, 10, 5, edge);
    for (int i = 0; i < 4; i++)
        assert_near(edge[i], 2 * (i + 1), 0); /* two values a level */
    stats_quantile_edges(ties, 10, 5, edge);
    for (int i = 1; i < 4; i++)
        assert_true(edge[i] >= edge[i - 1]);
    assert_int_equal(level_of(edge, 5, 0),
                     0); /* zeros stay together, and the others each get a level */
    assert_int_equal(level_of(edge, 5, 1), 1);
    assert_int_equal(level_of(edge, 5, 2), 2);
    assert_int_equal(level_of(edge, 5, 3), 3);
    stats_quantile_edges(flat, 3, 5, edge);
    assert_int_equal(level_of(edge, 5, 2), 0); /* one value: one level */
    assert_true(isfinite(edge[3]));
}

static void test_intervals_have_the_known_width(void **state)
{
    enum { UNITS = 400 };
    static double x[UNITS], y[UNITS], one[UNITS];
    struct boot *b = boot_new(UNITS, STATS_RESAMPLES, 7, 0);
    struct interval i, j;
    double se;
    (void)state;

    for (uint32_t u = 0; u < UNITS; u++) {
        double shared = rng_normal(1, RNG_TEST, 0, 0, u);
        x[u] = shared + 0.1 * rng_normal(1, RNG_TEST, 1, 0, u) + 0.5;
        y[u] = shared + 0.1 * rng_normal(1, RNG_TEST, 2, 0, u);
        one[u] = 1.0;
    }
    i = boot_mean(b, x);
    se = stats_sd(x, UNITS) / 20.0;
    assert_near(i.hi - i.lo, 2 * 1.96 * se, 0.1 * se * 4);
    assert_true(interval_has(&i, stats_mean(x, UNITS)));
    j = boot_ratio(b, x, one);
    assert_memory_equal(&i, &j, sizeof i);
    i = boot_paired(b, x, y); /* the shared part cancels: sd .14, so half-width .014 */
    assert_near(i.value, 0.5, 0.03);
    assert_near(i.hi - i.lo, 4 * 0.1414 / 20 * 0.98, 0.006);
    j = stats_boot_diff(x, UNITS, y, UNITS, 500, 3, 0); /* unpaired is ten times wider */
    assert_true(j.hi - j.lo > 5 * (i.hi - i.lo));
    assert_true(interval_has(&j, 0.5));
    boot_free(b);
}

static void test_intervals_cover_as_promised(void **state)
{
    int covered = 0;
    (void)state;

    for (uint32_t trial = 0; trial < 200; trial++) {
        double x[60];
        struct boot *b = boot_new(60, 400, 11, trial);
        struct interval i;
        for (uint32_t u = 0; u < 60; u++)
            x[u] = rng_unit(5, RNG_TEST, trial, 0, u) < 0.3 ? 1.0 : 0.0;
        i = boot_mean(b, x);
        covered += interval_has(&i, 0.3);
        boot_free(b);
    }
    assert_in_range(covered, 180, 198); /* 95 % of 200 is 190, sd 3 */
}

static void test_missing_units_count_nothing(void **state)
{
    double x[] = {1, (double)NAN, 3}, none[] = {(double)NAN, (double)NAN, (double)NAN};
    struct boot *b = boot_new(3, 100, 1, 0);
    struct interval i = boot_mean(b, x);
    (void)state;

    assert_near(i.value, 2.0, 0);
    assert_true(i.lo >= 1.0 && i.hi <= 3.0);
    i = boot_mean(b, none);
    assert_true(isnan(i.value) && isnan(i.lo) && !interval_has(&i, 0.0));
    boot_free(b);
}

static double picked_max(void *self, const uint32_t *pick, size_t n)
{
    const double *x = self;
    double most = x[pick[0]];

    for (size_t i = 1; i < n; i++)
        most = x[pick[i]] > most ? x[pick[i]] : most;
    return most;
}

static void test_any_statistic_and_repeatable_bits(void **state)
{
    double x[] = {3, 1, 4, 1, 5};
    struct boot *a = boot_new(5, 50, 9, 2), *b = boot_new(5, 50, 9, 2), *c = boot_new(5, 50, 9, 3);
    struct interval i = boot_any(a, picked_max, x), j = boot_any(b, picked_max, x), k, l;
    (void)state;

    assert_near(i.value, 5, 0);
    assert_true(i.hi <= 5 && i.lo >= 1);
    assert_memory_equal(&i, &j, sizeof i);
    k = boot_mean(a, x);
    l = boot_mean(c, x);
    assert_true(memcmp(&k, &l, sizeof k) != 0); /* another stream, other draws */
    boot_free(a);
    boot_free(b);
    boot_free(c);
}

static void test_distinct_and_unique(void **state)
{
    const char *a = "The cat sat. The cat ran!", *b = "the CAT sat";
    struct stats_text t[] = {{a, strlen(a)}, {b, strlen(b)}, {"", 0}};
    (void)state;

    assert_near(stats_distinct(t, 3, 1), 4.0 / 9.0, 1e-6); /* the cat sat ran of nine words */
    assert_near(stats_distinct(t, 3, 2), 4.0 / 7.0,
                1e-6); /* the-cat cat-sat sat-the cat-ran of 5 + 2 */
    assert_near(stats_unique_words(t, 2), 3.5, 1e-6);
    assert_true(isnan(stats_distinct(t + 2, 1, 1)));
}

static void test_t_interval_over_a_few_values(void **state)
{
    const double three[] = {1, 2, 3, (double)NAN};
    const double one[] = {5};
    double many[12];
    struct interval v = stats_t_interval(three, 4);

    (void)state;
    assert_true(fabs(v.value - 2) < 1e-12);
    assert_true(fabs(v.hi - 2 - 4.303 / sqrt(3)) < 1e-9 && fabs(2 - v.lo - 4.303 / sqrt(3)) < 1e-9);
    v = stats_t_interval(one, 1);
    assert_true(v.value == 5 && isnan(v.lo) && isnan(v.hi));
    for (int i = 0; i < 12; i++)
        many[i] = i % 2;
    v = stats_t_interval(many, 12); /* t(11) = 2.201, sd = sqrt(3/11) */
    assert_true(fabs(v.hi - 0.5 - 2.201 * sqrt(3.0 / 11) / sqrt(12)) < 2e-3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_t_interval_over_a_few_values),
        cmocka_unit_test(test_means_skip_missing_values),
        cmocka_unit_test(test_percentile_interpolates),
        cmocka_unit_test(test_ranks_and_spearman_average_ties),
        cmocka_unit_test(test_pearson),
        cmocka_unit_test(test_agreement_of_tables),
        cmocka_unit_test(test_fleiss_textbook),
        cmocka_unit_test(test_confusion_skips_missing),
        cmocka_unit_test(test_auc),
        cmocka_unit_test(test_quantile_edges_keep_ties_together),
        cmocka_unit_test(test_intervals_have_the_known_width),
        cmocka_unit_test(test_intervals_cover_as_promised),
        cmocka_unit_test(test_missing_units_count_nothing),
        cmocka_unit_test(test_any_statistic_and_repeatable_bits),
        cmocka_unit_test(test_distinct_and_unique),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
