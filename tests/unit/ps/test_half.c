/* bf16: rounding against a slow definition, sums along the tree, and what travels. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ps/fold.h"
#include "ps/half.h"
#include "ps/shard.h"
#include "tests/lib/float_bits.h"

/* The nearest of the two neighbours, the even one when both are as near; in double. */
static float slow_round(float x)
{
    uint32_t low = bits_of(x) & 0xffff0000u;
    double down = (double)float_of(low), up;

    if (!isfinite(x) || bits_of(x) == low)
        return x;
    up = (low & 0x7fff0000u) == 0x7f7f0000u ? copysign(ldexp(1, 128), (double)x)
                                            : (double)float_of(low + 0x10000u);
    if (fabs((double)x - down) != fabs(up - (double)x))
        return fabs((double)x - down) < fabs(up - (double)x) ? (float)down : (float)up;
    return (low >> 16) % 2 == 0 ? (float)down : (float)up;
}

static void test_rounds_to_nearest_even(void **state)
{
    uint32_t h = 1;

    (void)state;
    for (int i = 0; i < 2000000; i++) {
        float x, want;
        h = h * 1664525u + 1013904223u;
        x = float_of(i % 4 == 0 ? (h & 0xffff0000u) | 0x8000u : h ^ (h >> 13)); /* ties too */
        if (isnan(x))
            continue;
        want = slow_round(x);
        half_round(&x, 1);
        assert_int_equal(bits_of(x), bits_of(want));
    }
}

static void test_nan_stays_and_infinity_too(void **state)
{
    float x[4] = {float_of(0x7f800001u), float_of(0xffffffffu), INFINITY, -INFINITY};

    (void)state;
    half_round(x, 4);
    assert_true(isnan(x[0]) && isnan(x[1]));
    assert_true(x[2] == INFINITY && x[3] == -INFINITY);
}

static void test_packing_what_is_rounded_loses_nothing(void **state)
{
    float x[1000], back[1000];
    uint16_t packed[1000];

    (void)state;
    for (int i = 0; i < 1000; i++)
        x[i] = sinf((float)i) * expf((float)(i % 40) - 20);
    half_round(x, 1000);
    half_pack(packed, x, 1000);
    half_unpack(back, packed, 1000);
    assert_memory_equal(back, x, sizeof x);
}

/* Five units of a chunk in every grouping that two workers may make of them. */
static void test_a_sum_does_not_depend_on_who_added_what(void **state)
{
    static const struct tree_node ways[][5] = {
        {{0, 0}, {0, 1}, {0, 2}, {0, 3}, {0, 4}},
        {{1, 0}, {1, 1}, {0, 4}},
        {{2, 0}, {2, 1}},
        {{0, 4}, {0, 3}, {1, 0}, {0, 2}},
        {{3, 0}},
    };
    static const int counts[] = {5, 3, 2, 4, 1};
    float unit[5][8], first[8];

    (void)state;
    for (int u = 0; u < 5; u++)
        for (int i = 0; i < 8; i++)
            unit[u][i] = sinf((float)(u * 8 + i));
    for (int u = 0; u < 5; u++)
        half_round(unit[u], 8);
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        struct fold *f = fold_new(5, 8, 8);
        fold_use_half(f);
        for (int k = 0; k < counts[w]; k++) {
            struct tree_span leaves = tree_leaves(5, ways[w][k]);
            float pair[2][8], sum[8];
            memcpy(sum, unit[leaves.begin], sizeof sum);
            for (uint32_t u = leaves.begin + 1; u < leaves.end && leaves.end - leaves.begin <= 2;
                 u++)
                half_add(sum, unit[u], 8);
            if (leaves.end - leaves.begin >= 4) { /* two pairs, and the fifth above them */
                memcpy(pair[0], unit[0], sizeof pair[0]);
                memcpy(pair[1], unit[2], sizeof pair[1]);
                half_add(pair[0], unit[1], 8);
                half_add(pair[1], unit[3], 8);
                memcpy(sum, pair[0], sizeof sum);
                half_add(sum, pair[1], 8);
                if (leaves.end - leaves.begin == 5)
                    half_add(sum, unit[4], 8);
            }
            assert_int_equal(fold_add(f, 0, ways[w][k], sum, NULL, fold_hash(sum, 8, NULL)),
                             FOLD_ACCEPTED);
        }
        assert_non_null(fold_root(f, 0, NULL));
        if (w == 0)
            memcpy(first, fold_root(f, 0, NULL), sizeof first);
        assert_memory_equal(fold_root(f, 0, NULL), first, sizeof first);
        fold_free(f);
    }
}

static const float *gradient_of(void *self, uint32_t chunk)
{
    return (const float *)self + chunk;
}

/* Workers see rounded parameters; the real ones go on unrounded. */
static void test_a_shard_shows_what_is_rounded(void **state)
{
    struct tensor tensor = {.name = "w", .rows = 100, .cols = 1, .decay = true};
    struct layout layout = {.count = 100, .tensors = 1, .tensor = &tensor};
    const struct adamw a = {0.9f, 0.98f, 1e-8f, 0.01f};
    float p[100], place[100], want[100];
    struct shard *plain, *half;

    (void)state;
    for (int i = 0; i < 100; i++)
        p[i] = sinf((float)i);
    plain = shard_new(&layout, 0, 100, 32, p, 0);
    half = shard_new(&layout, 0, 100, 32, p, 0);
    shard_show(half, place, true);
    for (int step = 0; step < 3; step++) {
        for (uint32_t c = 0; c < shard_chunks(half); c++) {
            size_t n = shard_chunk_len(half, c);
            assert_memory_equal(shard_params(half, c), shard_params(plain, c), n * sizeof *p);
            half_copy(want, shard_params(plain, c), n);
            assert_memory_equal(shard_shown(half, c), want, n * sizeof *p);
        }
        if (step == 0) {
            shard_set(plain, 1, p, NULL, NULL);
            shard_set(half, 1, p, NULL, NULL);
        }
        shard_apply(plain, &a, gradient_of, p, 0.5f, 0.01f);
        shard_apply(half, &a, gradient_of, p, 0.5f, 0.01f);
    }
    shard_free(plain);
    shard_free(half);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounds_to_nearest_even),
        cmocka_unit_test(test_nan_stays_and_infinity_too),
        cmocka_unit_test(test_packing_what_is_rounded_loses_nothing),
        cmocka_unit_test(test_a_sum_does_not_depend_on_who_added_what),
        cmocka_unit_test(test_a_shard_shows_what_is_rounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
