/* eval/tfidf.h and eval/logreg.h: hand values, the optimum, and what scikit-learn gives on the same
 * rows. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/beat.h"
#include "base/rng.h"
#include "eval/logreg.h"
#include "eval/tfidf.h"
#include "eval/words.h"

#define assert_near(a, b, tol) assert_float_equal((float)(a), (float)(b), (float)(tol))

static struct stats_text text_of(const char *s)
{
    return (struct stats_text){s, strlen(s)};
}

static void test_words_fold_case_and_keep_marks(void **state)
{
    struct words w;
    uint64_t a[8], b[8], h;
    size_t na = 0, nb = 0;
    (void)state;

    words_begin(&w, "Don't STOP, now?!", 17, true);
    while (words_next(&w, &h))
        a[na++] = h;
    words_begin(&w, "  don't...stop now ? !", 22, true);
    while (words_next(&w, &h))
        b[nb++] = h;
    assert_int_equal(na, 5);
    assert_int_equal(nb, 5);
    assert_memory_equal(a, b, sizeof(uint64_t) * 5);
    words_begin(&w, "Don't STOP, now?!", 17, false);
    for (na = 0; words_next(&w, &h); na++)
        ;
    assert_int_equal(na, 3);
    assert_true(words_join(a[0], a[1]) != words_join(a[1], a[0]));
}

static void test_map_numbers_by_first_appearance(void **state)
{
    struct words_map m;
    uint32_t id;
    (void)state;

    words_map_init(&m, 1);
    for (uint64_t i = 0; i < 5000; i++) /* grows several times */
        assert_int_equal(words_map_add(&m, i * 77), i);
    for (uint64_t i = 0; i < 5000; i++)
        assert_int_equal(words_map_add(&m, i * 77), i);
    assert_false(words_map_find(&m, 78, &id));
    words_map_fini(&m);
}

static void test_rows_match_sklearn_by_hand(void **state)
{
    struct stats_text docs[] = {text_of("good movie!"), text_of("bad movie"),
                                text_of("good good book!")};
    struct stats_text unseen[] = {text_of("nothing known"), text_of("GOOD!")};
    struct tfidf *t = tfidf_fit(docs, 3, 2);
    struct csr x;
    double idf = log(4.0 / 3.0) + 1.0; /* every feature that is left is in 2 of 3 texts */
    (void)state;

    assert_int_equal(tfidf_features(t), 3); /* good, movie, ! ; every pair is in one text only */
    tfidf_rows(t, docs, 3, &x);
    assert_int_equal(x.begin[1], 3);
    for (size_t j = 0; j < 3; j++)
        assert_near(x.value[j], 1.0 / sqrt(3.0), 1e-6);
    assert_int_equal(x.begin[2] - x.begin[1], 1);
    assert_near(x.value[3], 1.0, 1e-6);
    assert_near(x.value[4], 2.0 * idf / (idf * sqrt(5.0)), 1e-6); /* good twice, ! once */
    csr_fini(&x);
    tfidf_rows(t, unseen, 2, &x);
    assert_int_equal(x.begin[1], 0);
    assert_int_equal(x.begin[2], 2);
    csr_fini(&x);
    tfidf_free(t);
}

/* 200 rows of 6 dense features. */
static void rows_make(struct csr *x, int *y, int classes)
{
    x->rows = 200;
    x->columns = 6;
    x->begin = calloc(201, sizeof *x->begin);
    x->column = calloc(1200, sizeof *x->column);
    x->value = calloc(1200, sizeof *x->value);
    for (uint32_t i = 0; i < 200; i++) {
        double best = -1e9;
        for (uint32_t j = 0; j < 6; j++) {
            x->column[i * 6 + j] = j;
            x->value[i * 6 + j] = (float)rng_normal(3, RNG_TEST, 0, i, j);
        }
        x->begin[i + 1] = (size_t)(i + 1) * 6;
        for (int c = 0; c < classes; c++) {
            double s = (double)x->value[i * 6 + (uint32_t)c] +
                       0.5 * rng_normal(3, RNG_TEST, 1, i, (uint32_t)c);
            if (s > best) {
                best = s;
                y[i] = c;
            }
        }
    }
}

static double objective(const struct csr *x, const int *y, const struct logreg *m)
{
    double *p = calloc(x->rows * (size_t)m->classes, sizeof *p), sum = 0.0;

    logreg_predict(m, x, p);
    for (size_t i = 0; i < x->rows; i++)
        sum -= log(p[i * (size_t)m->classes + (size_t)y[i]]);
    for (size_t i = 0; i < m->columns * (size_t)m->outputs; i++)
        sum += 0.5 * m->weight[i] * m->weight[i];
    free(p);
    return sum;
}

static void test_fit_reaches_the_minimum(void **state)
{
    (void)state;
    for (int classes = 2; classes <= 4; classes++) {
        struct csr x;
        int y[200];
        struct logreg m;
        double best;
        rows_make(&x, y, classes);
        logreg_fit(&x, y, classes, &LOGREG_OPTIONS, &m);
        best = objective(&x, y, &m);
        assert_near(best, m.objective, 1e-3);
        assert_true(m.gradient <= 1e-6);
        for (size_t i = 0; i < (m.columns + 1) * (size_t)m.outputs;
             i++) { /* no direction goes down */
            for (int sign = -1; sign <= 1; sign += 2) {
                m.weight[i] += sign * 0.05;
                assert_true(objective(&x, y, &m) > best);
                m.weight[i] -= sign * 0.05;
            }
        }
        logreg_fini(&m);
        csr_fini(&x);
    }
}

static void test_missing_labels_are_left_out_and_bits_repeat(void **state)
{
    struct csr x;
    int y[200], z[200];
    struct logreg a, b;
    uint64_t beats = 0;
    (void)state;

    rows_make(&x, y, 3);
    beat_to(&beats);
    for (size_t i = 0; i < 200; i++)
        z[i] = i % 2 == 0 ? y[i] : -1;
    logreg_fit(&x, z, 3, &LOGREG_OPTIONS, &a);
    beat_to(NULL);
    logreg_fit(&x, z, 3, &LOGREG_OPTIONS, &b);
    assert_true(beats > 2);
    assert_memory_equal(a.weight, b.weight, sizeof(double) * 21);
    logreg_fini(&b);
    for (size_t i = 0; i < 200; i++)
        z[i] = -1;
    logreg_fit(&x, z, 3, &LOGREG_OPTIONS, &b); /* nothing to learn from: all weights zero */
    assert_near(b.weight[0], 0, 0);
    assert_int_equal(b.iterations, 0);
    logreg_fini(&a);
    logreg_fini(&b);
    csr_fini(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words_fold_case_and_keep_marks),
        cmocka_unit_test(test_map_numbers_by_first_appearance),
        cmocka_unit_test(test_rows_match_sklearn_by_hand),
        cmocka_unit_test(test_fit_reaches_the_minimum),
        cmocka_unit_test(test_missing_labels_are_left_out_and_bits_repeat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
