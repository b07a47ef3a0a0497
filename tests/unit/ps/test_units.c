/* Dealing samples to units: complete, balanced, a pure function of its arguments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/rng.h"
#include "ps/units.h"

static uint32_t length_of(void *self, uint32_t example)
{
    return *(uint32_t *)self + rng_below(5, RNG_TEST, 0, 0, example, 60);
}

static void test_every_stream_position_is_dealt_once_in_order(void **state)
{
    static const struct {
        uint32_t batch, m, examples;
    } cases[] = {{1, 1, 1}, {48, 8, 100}, {48, 7, 1000}, {10, 16, 50}, {64, 4, 5}};
    uint32_t shortest = 1;

    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct unit_sample *out = mem_zalloc(cases[c].batch, sizeof *out);
        bool *seen = mem_zalloc(cases[c].batch, sizeof *seen);
        uint64_t step = 3;
        units_deal(9, step, cases[c].batch, cases[c].m, cases[c].examples, length_of, &shortest,
                   out);
        for (uint32_t i = 0; i < cases[c].batch; i++) {
            uint64_t j = out[i].draw - step * cases[c].batch;
            assert_true(j < cases[c].batch && !seen[j]);
            seen[j] = true;
            assert_true(out[i].unit < cases[c].m && out[i].example < cases[c].examples);
            if (i > 0 && out[i].unit == out[i - 1].unit)
                assert_true(out[i].draw > out[i - 1].draw);
            else if (i > 0)
                assert_true(out[i].unit > out[i - 1].unit);
        }
        free(out);
        free(seen);
    }
}

static void test_a_pass_shows_every_example_once(void **state)
{
    struct unit_sample out[10];
    uint32_t shortest = 1;
    int count[30] = {0};

    (void)state;
    for (uint64_t step = 0; step < 6; step++) { /* two passes over 30 examples */
        units_deal(4, step, 10, 3, 30, length_of, &shortest, out);
        for (int i = 0; i < 10; i++)
            count[out[i].example]++;
    }
    for (int i = 0; i < 30; i++)
        assert_int_equal(count[i], 2);
}

static void test_no_unit_is_above_the_mean_by_more_than_one_sample(void **state)
{
    struct unit_sample out[48];
    uint32_t shortest = 10;

    (void)state;
    for (uint64_t step = 0; step < 50; step++) {
        uint32_t load[8] = {0};
        uint32_t sum = 0;
        units_deal(4, step, 48, 8, 500, length_of, &shortest, out);
        for (int i = 0; i < 48; i++) {
            load[out[i].unit] += length_of(&shortest, out[i].example);
            sum += length_of(&shortest, out[i].example);
        }
        for (int u = 0; u < 8; u++)
            assert_true(load[u] <= sum / 8 + 70 && load[u] + 25 >= sum / 8);
    }
}

/* Pinned: a change here changes every run's bits. */
static void test_the_deal_does_not_change(void **state)
{
    struct unit_sample out[6];
    uint32_t shortest = 1;
    uint64_t hash = 0;

    (void)state;
    units_deal(1, 2, 6, 3, 100, length_of, &shortest, out);
    for (int i = 0; i < 6; i++)
        hash = hash * 1000003 + out[i].example * 31 + out[i].unit * 7 + out[i].draw;
    assert_int_equal(hash, 0x19cf753168cc9fa1u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_stream_position_is_dealt_once_in_order),
        cmocka_unit_test(test_a_pass_shows_every_example_once),
        cmocka_unit_test(test_no_unit_is_above_the_mean_by_more_than_one_sample),
        cmocka_unit_test(test_the_deal_does_not_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
