#include "model/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/rng.h"

#define V_MAX 600

static struct sampling plain(float temperature)
{
    struct sampling s = {temperature, 0, 1.0f, 1.0f, 3.9f, 10};

    return s;
}

static struct sampler_draw pick(const real *logits, size_t V, const struct sampling *s,
                                uint64_t seed, uint64_t key, uint32_t sample, uint32_t position)
{
    _Alignas(16) static unsigned char work[64 * V_MAX];

    assert_true(sampler_work_bytes(V) <= sizeof(work));
    return sampler_pick(logits, V, s, seed, key, sample, position, work);
}

static void logits_fill(real *logits, size_t V, uint32_t which)
{
    for (size_t i = 0; i < V; i++)
        logits[i] = (real)(1.5 * rng_normal(7, RNG_TEST, which, 0, (uint32_t)i));
}

/* Pearson's statistic of `draws` draws against p; ids of p == 0 must not come out. */
static double chi_square(const real *logits, size_t V, const struct sampling *s, const double *p,
                         int draws)
{
    int count[V_MAX] = {0};
    double x = 0.0;

    for (int i = 0; i < draws; i++) {
        struct sampler_draw d =
            pick(logits, V, s, 11, (uint64_t)i << 30, (uint32_t)(i % 3), (uint32_t)(i % 7));
        assert_in_range(d.id, 0, V - 1);
        count[d.id]++;
    }
    for (size_t i = 0; i < V; i++) {
        double expected = p[i] * draws;
        if (p[i] <= 0.0)
            assert_int_equal(count[i], 0);
        else
            x += (count[i] - expected) * (count[i] - expected) / expected;
    }
    return x;
}

static void softmax(const real *logits, size_t V, double temperature, double *p)
{
    double sum = 0.0;

    for (size_t i = 0; i < V; i++)
        sum += p[i] = exp((double)logits[i] / temperature);
    for (size_t i = 0; i < V; i++)
        p[i] /= sum;
}

/* 11 degrees of freedom: a right sampler is above 45 in fewer than 1 of 100,000 runs; the draws are
 * fixed by the seed anyway. */
static void test_draws_follow_the_softmax(void **state)
{
    static const float temperatures[] = {0.5f, 0.8f, 1.0f, 1.7f};
    real logits[12];
    double p[12];

    (void)state;
    for (size_t t = 0; t < 4; t++) {
        struct sampling s = plain(temperatures[t]);
        logits_fill(logits, 12, (uint32_t)t);
        softmax(logits, 12, (double)temperatures[t], p);
        assert_true(chi_square(logits, 12, &s, p, 30000) < 45.0);
    }
}

static void test_a_wrong_distribution_is_noticed(void **state)
{
    real logits[12];
    double p[12];
    struct sampling s = plain(1.0f);

    (void)state;
    logits_fill(logits, 12, 0);
    softmax(logits, 12, 1.2, p);
    assert_true(chi_square(logits, 12, &s, p, 30000) > 200.0);
}

static void test_top_k_and_top_p_renormalise_what_they_keep(void **state)
{
    real logits[8] = {0, 3, 1, 2, -1, 2.5, -2, 0.5};
    double p[8], kept[8] = {0};
    struct sampling s = plain(0.9f);
    double sum;

    (void)state;
    softmax(logits, 8, 0.9, p);
    s.top_k = 3; /* ids 1, 5, 3 */
    sum = p[1] + p[5] + p[3];
    kept[1] = p[1] / sum, kept[5] = p[5] / sum, kept[3] = p[3] / sum;
    assert_true(chi_square(logits, 8, &s, kept, 20000) < 35.0);

    s.top_k = 0;
    s.top_p = (float)(p[1] + 0.5 * p[5]); /* the shortest prefix that reaches it: ids 1 and 5 */
    sum = p[1] + p[5];
    kept[1] = p[1] / sum, kept[5] = p[5] / sum, kept[3] = 0.0;
    assert_true(chi_square(logits, 8, &s, kept, 20000) < 35.0);

    s.top_k = 3; /* shares are of what top_k left, so a smaller top_p is reached by the first id */
    s.top_p = (float)(0.99 * p[1] / (p[1] + p[5] + p[3]));
    for (int i = 0; i < 50; i++)
        assert_int_equal(pick(logits, 8, &s, 1, (uint64_t)i, 0, 0).id, 1);
}

static void test_top_p_boundaries(void **state)
{
    /* Exact halves, quarters, eighths: weights are powers of two up to rounding of the logarithm.
     */
    real logits[4] = {(real)log(4.0), (real)log(2.0), 0, 0};
    struct sampling s = plain(1.0f);
    int seen[4] = {0};

    (void)state;
    s.top_p = 0.49f; /* below the share of the best, 1/2 */
    for (int i = 0; i < 200; i++)
        assert_int_equal(pick(logits, 4, &s, 1, (uint64_t)i, 0, 0).id, 0);
    s.top_p = 0.51f; /* one more is needed */
    for (int i = 0; i < 400; i++)
        seen[pick(logits, 4, &s, 1, (uint64_t)i, 0, 0).id]++;
    assert_true(seen[0] > 200 && seen[1] > 80 && seen[2] == 0 && seen[3] == 0);
    memset(seen, 0, sizeof(seen));
    s.top_p = 0.8f; /* of the two equal ones the lower id is kept */
    for (int i = 0; i < 400; i++)
        seen[pick(logits, 4, &s, 1, (uint64_t)i, 0, 0).id]++;
    assert_true(seen[2] > 20 && seen[3] == 0);
    s.top_p = 1e-6f; /* at least one is always kept */
    assert_int_equal(pick(logits, 4, &s, 1, 5, 0, 0).id, 0);
}

/* Ids in falling order, the lower of equals first; then the shares of what the cuts keep. */
static void cut_by_sorting(const real *logits, size_t V, const struct sampling *s, double *p)
{
    size_t order[V_MAX], kept = s->top_k > 0 && (size_t)s->top_k < V ? (size_t)s->top_k : V;
    double all = 0.0, sum = 0.0;
    size_t n = 0;

    for (size_t i = 0; i < V; i++) {
        size_t at = i;
        for (; at > 0 && logits[order[at - 1]] < logits[i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    softmax(logits, V, (double)s->temperature, p);
    for (size_t i = 0; i < kept; i++)
        all += p[order[i]];
    while (n < kept && (n == 0 || sum < (double)s->top_p * all))
        sum += p[order[n++]];
    for (size_t i = n; i < V; i++)
        p[order[i]] = 0.0;
    for (size_t i = 0; i < n; i++)
        p[order[i]] /= sum;
}

static void test_cuts_are_those_of_a_sorted_list(void **state)
{
    static const struct {
        int32_t top_k;
        float top_p, temperature;
    } cases[] = {{50, 1.0f, 1.0f}, {0, 0.9f, 0.8f},   {0, 0.37f, 1.0f}, {120, 0.61f, 1.3f},
                 {7, 1.0f, 0.5f},  {599, 1.0f, 1.0f}, {0, 0.999f, 1.0f}};
    static real logits[V_MAX];
    static double p[V_MAX];

    (void)state;
    for (size_t c = 0; c < 2 * sizeof(cases) / sizeof(cases[0]); c++) {
        struct sampling s = plain(cases[c / 2].temperature);
        size_t kept = 0;
        s.top_k = cases[c / 2].top_k;
        s.top_p = cases[c / 2].top_p;
        logits_fill(logits, V_MAX, (uint32_t)c);
        for (size_t i = 0; i < V_MAX && c % 2 != 0; i++) /* many that are equal, of both signs */
            logits[i] = (real)(rint(4.0 * (double)logits[i]) / 4.0);
        cut_by_sorting(logits, V_MAX, &s, p);
        for (size_t i = 0; i < V_MAX; i++)
            kept += p[i] > 0.0;
        assert_true(chi_square(logits, V_MAX, &s, p, 30000) <
                    (double)kept + 6.0 * sqrt(2.0 * (double)kept) + 10.0);
    }
}

static void test_top_k_one_is_greedy_and_ties_go_to_the_lowest_id(void **state)
{
    real logits[V_MAX];
    struct sampling greedy = plain(0.0f), one = plain(1.3f);

    (void)state;
    one.top_k = 1;
    for (uint32_t which = 0; which < 200; which++) {
        size_t V = 1 + which * 3 % V_MAX;
        logits_fill(logits, V, which);
        assert_int_equal(pick(logits, V, &greedy, 1, which, 0, 0).id,
                         pick(logits, V, &one, 1, which, 0, 0).id);
    }
    for (size_t i = 0; i < V_MAX; i++)
        logits[i] = i % 5 == 3 ? 2.0f : 1.0f;
    assert_int_equal(pick(logits, V_MAX, &greedy, 1, 0, 0, 0).id, 3);
    assert_int_equal(pick(logits, V_MAX, &one, 1, 0, 0, 0).id, 3);
}

static void test_logprob_is_of_the_uncut_distribution(void **state)
{
    real logits[V_MAX];
    double p[V_MAX];
    struct sampling s = plain(0.7f);

    (void)state;
    s.top_k = 5;
    s.top_p = 0.9f;
    for (uint32_t which = 0; which < 50; which++) {
        struct sampler_draw d;
        size_t V = 20 + which * 11;
        logits_fill(logits, V, which);
        softmax(logits, V, 1.0, p);
        d = pick(logits, V, &s, 3, which, 0, 0);
        assert_true(fabs(d.logprob - log(p[d.id])) < 5e-7); /* weights are floats */
    }
}

static void test_a_draw_depends_on_seed_key_sample_and_position(void **state)
{
    real logits[V_MAX];
    struct sampling s = plain(1.0f);
    int same[5] = {0};

    (void)state;
    logits_fill(logits, V_MAX, 1);
    for (uint32_t i = 0; i < 300; i++) {
        int32_t id = pick(logits, V_MAX, &s, 1, i, 2, 3).id;
        same[0] += id == pick(logits, V_MAX, &s, 1, i, 2, 3).id;
        same[1] += id == pick(logits, V_MAX, &s, 2, i, 2, 3).id;
        same[2] += id == pick(logits, V_MAX, &s, 1, (uint64_t)i | (uint64_t)1 << 40, 2, 3).id;
        same[3] += id == pick(logits, V_MAX, &s, 1, i, 3, 3).id;
        same[4] += id == pick(logits, V_MAX, &s, 1, i, 2, 4).id;
    }
    assert_int_equal(same[0], 300);
    for (int i = 1; i < 5; i++)
        assert_in_range(same[i], 0, 30); /* chance */
}

static void test_banned_ids_never_come_out(void **state)
{
    real logits[6] = {9, 1, 8, 1, 7, 1};
    const int32_t banned[] = {-4, 0, 2, 4, 17};
    const int32_t allowed[] = {3};
    struct sampling s = plain(1.0f);
    int seen[6] = {0};

    (void)state;
    sampler_ban(logits, 6, banned, 5);
    for (int i = 0; i < 300; i++)
        seen[pick(logits, 6, &s, 1, (uint64_t)i, 0, 0).id]++;
    assert_int_equal(seen[0] + seen[2] + seen[4], 0);
    assert_true(seen[1] > 50 && seen[3] > 50 && seen[5] > 50);
    sampler_allow(logits, 6, allowed, 1);
    assert_int_equal(pick(logits, 6, &s, 1, 0, 0, 0).id, 3);
    sampler_allow(logits, 6, allowed, 0);
    assert_int_equal(pick(logits, 6, &s, 1, 0, 0, 0).id, SAMPLER_NONE);
}

static void test_guidance_combines_and_drops(void **state)
{
    const real base[4] = {2.0, 1.0, -3.0, -(real)INFINITY};
    const real uncond[4] = {1.0, 2.0, -9.0, 4.0};
    real c[4];

    (void)state;
    memcpy(c, base, sizeof(c));
    sampler_guide(c, uncond, 4, 1.5f, 3.9f);
    assert_true(c[0] == (real)2.5 && c[1] == (real)0.5);
    assert_true(isinf(c[2]) && c[2] < 0); /* 5 nats below the best: without the cut it would be 0 */
    assert_true(isinf(c[3]) && c[3] < 0);
    memcpy(c, base, sizeof(c));
    sampler_guide(c, uncond, 4, 1.5f, 5.0f); /* exactly at the bound: kept */
    assert_true(c[2] == (real)0.0);
    memcpy(c, base, sizeof(c));
    sampler_guide(c, uncond, 4, 0.5f, 3.9f); /* weaker than plain: nothing is dropped */
    assert_true(c[0] == (real)1.5 && c[2] == (real)-6.0);
    memcpy(c, base, sizeof(c));
    sampler_guide(c, uncond, 4, 0.0f, 3.9f);
    assert_true(c[0] == uncond[0] && c[1] == uncond[1]);
}

static void test_bad_logits_are_refused(void **state)
{
    static const struct {
        real bad;
        int32_t want;
    } cases[] = {{(real)NAN, SAMPLER_NOT_FINITE},
                 {(real)INFINITY, SAMPLER_NOT_FINITE},
                 {-(real)INFINITY, 0}};
    struct sampling s[3] = {plain(0.0f), plain(1.0f), plain(0.8f)};

    (void)state;
    s[2].top_k = 2;
    for (size_t i = 0; i < 3; i++) {
        real logits[3] = {1.0, 1.0, 1.0};
        logits[2] = cases[i].bad;
        for (size_t j = 0; j < 3; j++) {
            int32_t id = pick(logits, 3, &s[j], 1, 1, 1, 1).id;
            if (cases[i].want < 0)
                assert_int_equal(id, cases[i].want);
            else
                assert_in_range(id, 0, 1);
        }
    }
}

static void test_wide_ranges_do_not_overflow(void **state)
{
    real logits[5] = {3e38f, -3e38f, 2.9e38f, 0.0f, 3e38f};
    struct sampling s = plain(0.01f);
    struct sampler_draw d = pick(logits, 5, &s, 1, 1, 1, 1);

    (void)state;
    assert_true(d.id == 0 || d.id == 4);
    assert_true(fabs(d.logprob - log(0.5)) < 1e-12);
    s.temperature = 1e-44f; /* its reciprocal is no float */
    d = pick(logits, 5, &s, 1, 1, 1, 1);
    assert_true(d.id == 0 || d.id == 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draws_follow_the_softmax),
        cmocka_unit_test(test_a_wrong_distribution_is_noticed),
        cmocka_unit_test(test_top_k_and_top_p_renormalise_what_they_keep),
        cmocka_unit_test(test_top_p_boundaries),
        cmocka_unit_test(test_cuts_are_those_of_a_sorted_list),
        cmocka_unit_test(test_top_k_one_is_greedy_and_ties_go_to_the_lowest_id),
        cmocka_unit_test(test_logprob_is_of_the_uncut_distribution),
        cmocka_unit_test(test_a_draw_depends_on_seed_key_sample_and_position),
        cmocka_unit_test(test_banned_ids_never_come_out),
        cmocka_unit_test(test_guidance_combines_and_drops),
        cmocka_unit_test(test_bad_logits_are_refused),
        cmocka_unit_test(test_wide_ranges_do_not_overflow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
