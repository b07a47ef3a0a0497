/* AdamW against the formula in double, independence of how the vector is split, schedules, clipping. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "model/optim.h"
#include "tests/unit/model/model_fixture.h"

static const struct dims small = {11, 6, 2, 3, 1, 2, 5, 16, 1e-5f, 1e4f, false, HEAD_LM, 0};
static const struct adamw adamw = {0.9f, 0.95f, 1e-8f, 0.1f};

static bool decays(const struct layout *l, size_t i)
{
    for (int32_t t = 0; t < l->tensors; t++)
        if (i < l->tensor[t].begin + tensor_count(&l->tensor[t]))
            return l->tensor[t].cols != 0;
    return false;
}

static void test_adamw_is_the_formula(void **state)
{
    struct layout l;
    float *p, *m, *v, *grad;
    double *pd, *md, *vd;

    (void)state;
    layout_init(&l, &small);
    p = fixture_normals(l.count, 1, 1.0);
    m = fixture_reals(l.count);
    v = fixture_reals(l.count);
    pd = mem_zalloc(l.count, sizeof *pd);
    md = mem_zalloc(l.count, sizeof *md);
    vd = mem_zalloc(l.count, sizeof *vd);
    for (size_t i = 0; i < l.count; i++)
        pd[i] = (double)p[i];
    for (uint64_t step = 1; step <= 30; step++) {
        grad = fixture_normals(l.count, 10 + (uint32_t)step, 3.0);
        adamw_step(&adamw, &l, 0, l.count, p, m, v, grad, 0.25f, 1e-2f, step);
        for (size_t i = 0; i < l.count; i++) {
            double g = 0.25 * (double)grad[i];

            md[i] = 0.9 * md[i] + 0.1 * g;
            vd[i] = 0.95 * vd[i] + 0.05 * g * g;
            if (decays(&l, i))
                pd[i] -= 1e-2 * 0.1 * pd[i];
            pd[i] -= 1e-2 * (md[i] / (1 - pow(0.9, (double)step))) /
                     (sqrt(vd[i] / (1 - pow(0.95, (double)step))) + 1e-8);
            assert_true(fabs((double)p[i] - pd[i]) <= 1e-5);
        }
        free(grad);
    }
    layout_fini(&l);
    free(p), free(m), free(v), free(pd), free(md), free(vd);
}

static void test_any_split_gives_the_same_bits(void **state)
{
    static const size_t pieces[] = {1, 7, 64, 100};
    struct layout l;
    float *grad, *want[3], *got[3];

    (void)state;
    layout_init(&l, &small);
    grad = fixture_normals(l.count, 2, 1.0);
    for (size_t k = 0; k < sizeof pieces / sizeof pieces[0]; k++) {
        for (int j = 0; j < 3; j++) {
            want[j] = j == 0 ? fixture_normals(l.count, 1, 1.0) : fixture_reals(l.count);
            got[j] = j == 0 ? fixture_normals(l.count, 1, 1.0) : fixture_reals(l.count);
        }
        for (uint64_t step = 1; step <= 3; step++) {
            adamw_step(&adamw, &l, 0, l.count, want[0], want[1], want[2], grad, 0.5f, 1e-3f, step);
            for (size_t at = 0; at < l.count; at += pieces[k]) {
                size_t n = l.count - at < pieces[k] ? l.count - at : pieces[k];

                adamw_step(&adamw, &l, at, n, got[0] + at, got[1] + at, got[2] + at, grad + at,
                           0.5f, 1e-3f, step);
            }
        }
        for (int j = 0; j < 3; j++) {
            assert_memory_equal(want[j], got[j], l.count * sizeof(float));
            free(want[j]);
            free(got[j]);
        }
    }
    adamw_step(&adamw, &l, l.count, 0, NULL, NULL, NULL, NULL, 1.0f, 1.0f,
               1); /* an empty range is no work */
    layout_fini(&l);
    free(grad);
}

static void test_nan_stays_visible(void **state)
{
    struct layout l;
    float p = 1.0f, m = 0.0f, v = 0.0f, grad = NAN;

    (void)state;
    layout_init(&l, &small);
    adamw_step(&adamw, &l, 5, 1, &p, &m, &v, &grad, 1.0f, 1e-3f, 1);
    assert_true(isnan(p) && isnan(m) && isnan(v));
    layout_fini(&l);
}

static void test_schedules(void **state)
{
    static const struct {
        struct schedule s;
        uint64_t step, total;
        double want; /* of a peak of 2 */
    } row[] = {
        {{SCHEDULE_CONSTANT, 0, 0.0}, 1, 10, 2.0},
        {{SCHEDULE_CONSTANT, 4, 0.0}, 1, 10, 0.5},
        {{SCHEDULE_CONSTANT, 4, 0.0}, 4, 10, 2.0},
        {{SCHEDULE_CONSTANT, 4, 0.5}, 9, 10, 2.0},
        {{SCHEDULE_LINEAR, 0, 0.0}, 5, 10, 1.0},
        {{SCHEDULE_LINEAR, 0, 0.0}, 10, 10, 0.0},
        {{SCHEDULE_LINEAR, 2, 0.1}, 6, 10, 1.1},
        {{SCHEDULE_LINEAR, 2, 0.1}, 10, 10, 0.2},
        {{SCHEDULE_COSINE, 0, 0.0}, 5, 10, 1.0},
        {{SCHEDULE_COSINE, 0, 0.0}, 10, 10, 0.0},
        {{SCHEDULE_COSINE, 100, 0.02}, 50, 1000, 1.0},
        {{SCHEDULE_COSINE, 100, 0.02}, 100, 1000, 2.0},
        {{SCHEDULE_COSINE, 100, 0.02}, 550, 1000, 1.02},
        {{SCHEDULE_COSINE, 100, 0.02}, 1000, 1000, 0.04},
        {{SCHEDULE_COSINE, 100, 0.02}, 1200, 1000, 0.04},
        {{SCHEDULE_COSINE, 20, 0.1}, 21, 10, 0.2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
        assert_true(fabs(schedule_lr(&row[i].s, 2.0, row[i].step, row[i].total) - row[i].want) <=
                    1e-12);
}

static void test_clip(void **state)
{
    (void)state;
    assert_true(clip_scale(0.5, 1.0) == 1.0);
    assert_true(clip_scale(1.0, 1.0) == 1.0);
    assert_true(clip_scale(4.0, 1.0) == 0.25);
    assert_true(clip_scale(4.0, 0.0) == 1.0);
    assert_true(clip_scale(4.0, -1.0) == 1.0);
    assert_true(clip_scale(0.0, 1.0) == 1.0);
}

static void test_sum_squares(void **state)
{
    float x[100];

    (void)state;
    for (int i = 0; i < 100; i++)
        x[i] = (float)i - 10.0f;
    for (size_t n = 0; n <= 100; n++) {
        double want = 0.0;

        for (size_t i = 0; i < n; i++)
            want += (double)x[i] * (double)x[i];
        assert_true(sum_squares(x, n) == want); /* whole numbers: exact in any order */
    }
    x[3] = NAN;
    assert_true(isnan(sum_squares(x, 100)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adamw_is_the_formula),
        cmocka_unit_test(test_any_split_gives_the_same_bits),
        cmocka_unit_test(test_nan_stays_visible),
        cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_clip),
        cmocka_unit_test(test_sum_squares),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
