/* Every operation against a plain loop in double; sizes around a vector, strides, aliases, repeated bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "model/ops.h"
#include "tests/unit/model/model_fixture.h"

static const size_t widths[] = {1, 3, 7, 8, 9, 16, 31, 64, 172};
#define EACH_WIDTH(c)                                                                              \
    for (size_t c##_i = 0, c;                                                                      \
         c##_i < sizeof widths / sizeof widths[0] && (c = widths[c##_i], true); c##_i++)

static void near(real got, double want, double scale)
{
    if (!(fabs((double)got - want) <= 1e-5 * (1.0 + scale)))
        fail_msg("got %.9g, want %.9g", (double)got, want);
}

static void test_rmsnorm(void **state)
{
    (void)state;
    EACH_WIDTH(c)
    {
        real *x = fixture_normals(2 * c, 1, 2.0), *w = fixture_normals(c, 2, 1.0),
             *y = fixture_reals(2 * c);
        real *again = fixture_reals(2 * c), inv[2];

        ops_rmsnorm(x, w, y, inv, 2, c, (real)1e-5);
        ops_rmsnorm_again(x, w, inv, again, 2, c);
        assert_memory_equal(y, again, 2 * c * sizeof *y);
        for (size_t r = 0; r < 2; r++) {
            double sum = 0.0;

            for (size_t i = 0; i < c; i++)
                sum += (double)x[r * c + i] * (double)x[r * c + i];
            for (size_t i = 0; i < c; i++)
                near(y[r * c + i],
                     (double)x[r * c + i] / sqrt(sum / (double)c + 1e-5) * (double)w[i], 1.0);
        }
        ops_rmsnorm(x, w, x, NULL, 2, c, (real)1e-5); /* in place */
        assert_memory_equal(x, y, 2 * c * sizeof *y);
        free(x), free(w), free(y), free(again);
    }
}

static void test_rope_turns_pairs_by_position(void **state)
{
    static const size_t sizes[] = {2, 6, 8, 64};
    static const int32_t pos[] = {0, 1, 200};

    (void)state;
    for (size_t k = 0; k < 4; k++) {
        size_t d = sizes[k], ld = 3 * d + 1;
        real *table = fixture_reals(201 * d), *x = fixture_normals(3 * ld, 1, 1.0),
             *was = fixture_normals(3 * ld, 1, 1.0);

        ops_rope_table(table, 201, d, 10000.0);
        ops_rope(x, ld, table, pos, 3, 3, d);
        assert_memory_equal(x, was, ld * sizeof *x); /* position 0 */
        for (size_t r = 0; r < 3; r++) {
            for (size_t h = 0; h < 3; h++)
                for (size_t i = 0; i < d / 2; i++) {
                    double angle = (double)pos[r] * pow(10000.0, -2.0 * (double)i / (double)d);
                    double a = (double)was[r * ld + h * d + i],
                           b = (double)was[r * ld + h * d + i + d / 2];

                    near(x[r * ld + h * d + i], a * cos(angle) - b * sin(angle), 1.0);
                    near(x[r * ld + h * d + i + d / 2], b * cos(angle) + a * sin(angle), 1.0);
                }
            assert_true(x[r * ld + 3 * d] == was[r * ld + 3 * d]);
        }
        ops_rope_backward(x, ld, table, pos, 3, 3, d);
        for (size_t i = 0; i < 3 * ld; i++)
            near(x[i], (double)was[i], 1.0);
        free(table), free(x), free(was);
    }
}

static void test_swiglu(void **state)
{
    (void)state;
    EACH_WIDTH(f)
    {
        real *gu = fixture_normals(4 * f, 1, 3.0), *h = fixture_reals(2 * f);

        ops_swiglu(gu, h, 2, f);
        for (size_t r = 0; r < 2; r++)
            for (size_t i = 0; i < f; i++) {
                double g = (double)gu[2 * r * f + i], u = (double)gu[2 * r * f + f + i];

                near(h[r * f + i], g / (1.0 + exp(-g)) * u, fabs(g * u));
            }
        free(gu), free(h);
    }
}

static void test_softmax_rows(void **state)
{
    (void)state;
    EACH_WIDTH(n)
    {
        real *x = fixture_normals(n, 1, 30.0), *p = fixture_normals(n, 1, 30.0),
             *l = fixture_normals(n, 1, 30.0), lse;
        double top = -1e30, sum = 0.0, total = 0.0;

        for (size_t i = 0; i < n; i++)
            top = fmax(top, (double)x[i]);
        for (size_t i = 0; i < n; i++)
            sum += exp((double)x[i] - top);
        lse = ops_logsumexp(x, n);
        near(lse, top + log(sum), fabs(top));
        assert_true(ops_softmax(p, n) == lse && ops_logsoftmax(l, n) == lse);
        for (size_t i = 0; i < n; i++) {
            near(l[i], (double)x[i] - top - log(sum), fabs((double)x[i]));
            near(p[i], exp((double)x[i] - top - log(sum)), 1.0);
            total += (double)p[i];
        }
        near((real)total, 1.0, 1.0);
        x[n / 2] = (real)NAN;
        assert_true(isnan(ops_logsumexp(x, n)));
        free(x), free(p), free(l);
    }
}

static void test_softmax_of_large_logits_is_finite(void **state)
{
    real x[9] = {1000, 999, -1000, 1000, (real)-INFINITY, 0, 0, 0, 998};

    (void)state;
    near(ops_softmax(x, 9), 1000.0 + log(2.0 + exp(-1.0) + exp(-2.0)), 1000.0);
    assert_true(x[2] == 0 && x[4] == 0 && x[0] == x[3]);
}

static void test_embedding(void **state)
{
    static const int32_t token[] = {2, 0, 2};
    real *emb = fixture_normals(3 * 9, 1, 1.0), *x = fixture_reals(3 * 9),
         *demb = fixture_reals(3 * 9);

    (void)state;
    ops_embed(emb, token, x, 3, 9);
    assert_memory_equal(x + 9, emb, 9 * sizeof *x);
    assert_memory_equal(x, x + 18, 9 * sizeof *x);
    ops_embed_backward(x, token, demb, 3, 9);
    ops_embed_backward(x, token, demb, 3, 9);
    for (size_t i = 0; i < 9; i++) {
        assert_true(demb[i] == 2 * emb[i] && demb[9 + i] == 0);
        near(demb[18 + i], 4.0 * (double)emb[18 + i], 4.0);
    }
    free(emb), free(x), free(demb);
}

static void test_dot_and_axpy(void **state)
{
    (void)state;
    EACH_WIDTH(n)
    {
        real *a = fixture_normals(n, 1, 1.0), *b = fixture_normals(n + 1, 2, 1.0),
             *was = fixture_normals(n + 1, 2, 1.0);
        double sum = 0.0;

        for (size_t i = 0; i < n; i++)
            sum += (double)a[i] * (double)b[i];
        near(ops_dot(a, b, n), sum, 10.0);
        ops_axpy((real)0.5, a, b, n);
        for (size_t i = 0; i < n; i++)
            near(b[i], 0.5 * (double)a[i] + (double)was[i], 1.0);
        assert_true(b[n] == was[n]);
        free(a), free(b), free(was);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_rope_turns_pairs_by_position),
        cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_softmax_rows),
        cmocka_unit_test(test_softmax_of_large_logits_is_finite),
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_dot_and_axpy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
