#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "jobs/scale.h"

#define NEAR(a, b) assert_true(fabs((a) - (b)) <= 1e-9 * fabs(b))
#define PAYLOAD (1448.0 / (1538.0 + 45.0))

/* 40 chunks of 25,000: bytes are easily counted. */
static struct scale_measured measured(void)
{
    return (struct scale_measured){.params = 1000000,
                                   .threads = 1,
                                   .unit_rows = 2,
                                   .unit_s = 0.1,
                                   .fold_bytes_s = 1e12,
                                   .apply_params_s = 1e8,
                                   .crypt_bytes_s = 1e12};
}

static struct scale_plan plan_of(uint32_t workers, uint32_t units)
{
    return (struct scale_plan){.workers = workers,
                               .threads = 1,
                               .units = units,
                               .unit_rows = 2,
                               .chunk_elems = 25000,
                               .replicate = false};
}

static const struct scale_link slow = {.bits_s = 1e8, .latency_s = 0.001, .encrypted = false};

static void test_one_worker_needs_no_wire(void **state)
{
    const struct scale_measured m = measured();
    const struct scale_plan p = plan_of(1, 8);
    struct scale_step s;

    (void)state;
    scale_predict(&m, &p, &slow, &s);
    NEAR(s.part_s[SCALE_COMPUTE], 0.8);
    NEAR(s.part_s[SCALE_APPLY], 0.01);
    assert_true(s.part_s[SCALE_PUSH] == 0 && s.part_s[SCALE_PULL] == 0 &&
                s.part_s[SCALE_LATENCY] == 0 && s.part_s[SCALE_REPLICA] == 0);
    assert_int_equal(s.rules, SCALE_COMPUTE);
    assert_int_equal(s.hosts, 1);
}

static void test_bytes_are_those_of_the_tree_and_the_hosts(void **state)
{
    const struct scale_measured m = measured();
    struct scale_plan p = plan_of(4, 8);
    struct scale_step s;
    double fills;

    (void)state;
    scale_predict(&m, &p, &slow, &s);
    /* A worker's two units are one node; a host takes three of a quarter. */
    NEAR(s.push_bytes, 4e6 * 0.75);
    NEAR(s.pull_bytes, 4e6 * 0.75);
    NEAR(s.part_s[SCALE_PULL], 3e6 / (1e8 / 8 * PAYLOAD));
    NEAR(s.part_s[SCALE_COMPUTE], 0.2);
    NEAR(s.part_s[SCALE_LATENCY], 0.004);
    p.units = 12; /* spans of three are two nodes each */
    scale_predict(&m, &p, &slow, &s);
    NEAR(s.push_bytes, 4e6 * 0.75 * 2);
    NEAR(s.part_s[SCALE_COMPUTE], 0.3);
    p.replicate = true;
    scale_predict(&m, &p, &slow, &s);
    NEAR(s.part_s[SCALE_REPLICA], 1e6 / (1e8 / 8 * PAYLOAD));
    fills = 1e8 / 8 * PAYLOAD * 0.002; /* more than the one connection of a copy begins with */
    NEAR(s.part_s[SCALE_LATENCY], 0.006 + 0.002 * (log2(fills / 14480) - 1 + 14480 / fills));
    NEAR(s.part_s[SCALE_APPLY], 0.005);
}

static void test_a_wire_in_bf16_halves_what_travels_and_not_the_copies(void **state)
{
    const struct scale_measured m = measured();
    struct scale_plan p = plan_of(4, 8);
    struct scale_step full, half;

    (void)state;
    p.replicate = true;
    scale_predict(&m, &p, &slow, &full);
    p.half = true;
    scale_predict(&m, &p, &slow, &half);
    NEAR(half.push_bytes, 4e6 * 0.75 / 2);
    NEAR(half.pull_bytes, 4e6 * 0.75 / 2);
    NEAR(half.part_s[SCALE_PULL], full.part_s[SCALE_PULL] / 2);
    NEAR(half.part_s[SCALE_REPLICA], full.part_s[SCALE_REPLICA]);
    NEAR(half.part_s[SCALE_COMPUTE], full.part_s[SCALE_COMPUTE]);
}

static void test_a_fast_link_is_bound_by_the_cipher(void **state)
{
    struct scale_measured m = measured();
    const struct scale_plan p = plan_of(2, 8);
    const struct scale_link fast = {.bits_s = 1e11, .latency_s = 0, .encrypted = true};
    struct scale_step s;

    (void)state;
    m.crypt_bytes_s = 1e8;
    scale_predict(&m, &p, &fast, &s);
    NEAR(s.part_s[SCALE_PULL], 2e6 / 5e7); /* in and out at once */
    m.forward = m.later = m.backward = m.early = 1;
    scale_predict(&m, &p, &fast, &s); /* hidden behind computing, but the same core does both */
    NEAR(s.part_s[SCALE_PULL], 2e6 / 5e7);
    NEAR(s.part_s[SCALE_PUSH], 2e6 / 5e7);
}

static void test_a_long_link_must_be_filled_first(void **state)
{
    const struct scale_measured m = measured();
    struct scale_plan p = plan_of(4, 8);
    struct scale_link l = {.bits_s = 1e9, .latency_s = 5e-5, .encrypted = false};
    double rate = 1e9 / 8 * PAYLOAD, fills, first = 4 * 14480.0;
    struct scale_step s;

    (void)state;
    scale_predict(&m, &p, &l, &s);
    NEAR(s.part_s[SCALE_LATENCY], 4 * 5e-5); /* a room: the first window fills it */
    l.latency_s = 0.02;
    fills = rate * 0.04;
    scale_predict(&m, &p, &l, &s);
    NEAR(s.part_s[SCALE_LATENCY], 4 * 0.02 + 2 * 0.04 * (log2(fills / first) - 1 + first / fills));
    assert_true(s.part_s[SCALE_LATENCY] > 0.4);
    p.replicate = true;
    first = 14480;
    scale_predict(&m, &p, &l, &s);
    NEAR(s.part_s[SCALE_LATENCY],
         6 * 0.02 + 2 * 0.04 * (log2(fills / (4 * first)) - 1 + 4 * first / fills) +
             0.04 * (log2(fills / first) - 1 + first / fills));
    p.workers = 1;
    scale_predict(&m, &p, &l, &s);
    assert_true(s.part_s[SCALE_LATENCY] == 0);
}

static void test_what_leaves_early_hides_behind_the_backward(void **state)
{
    struct scale_measured m = measured();
    const struct scale_plan p = plan_of(2, 8);
    struct scale_step before, after;

    (void)state;
    scale_predict(&m, &p, &slow, &before);
    m.backward = 0.5;
    m.early = 0.2;
    scale_predict(&m, &p, &slow, &after);
    NEAR(after.part_s[SCALE_PUSH], before.part_s[SCALE_PUSH] * 0.8);
    m.early = 1.0; /* more than the backward takes cannot hide */
    scale_predict(&m, &p, &slow, &after);
    NEAR(after.part_s[SCALE_PUSH], before.part_s[SCALE_PUSH] - 0.05);
}

static void test_more_workers_than_units_help_no_more(void **state)
{
    const struct scale_measured m = measured();
    struct scale_plan p = plan_of(8, 8);
    struct scale_step eight, sixty;

    (void)state;
    scale_predict(&m, &p, &slow, &eight);
    p.workers = 60;
    scale_predict(&m, &p, &slow, &sixty);
    NEAR(sixty.part_s[SCALE_COMPUTE], eight.part_s[SCALE_COMPUTE]);
    assert_true(sixty.efficiency < eight.efficiency);
    assert_int_equal(sixty.hosts, 20); /* two chunks each */
}

static void test_quantities_have_units(void **state)
{
    struct err e = {0};
    double v;

    (void)state;
    assert_int_equal(scale_rate_parse("1Gb/s", &v, &e), 0);
    NEAR(v, 1e9);
    assert_int_equal(scale_rate_parse("2.5Mb/s", &v, &e), 0);
    NEAR(v, 2.5e6);
    assert_int_equal(scale_time_parse("0.5ms", &v, &e), 0);
    NEAR(v, 5e-4);
    assert_int_equal(scale_rate_parse("1", &v, &e), ERR_INVALID);
    assert_int_equal(scale_rate_parse("0Gb/s", &v, &e), ERR_INVALID);
    assert_int_equal(scale_rate_parse("-1Gb/s", &v, &e), ERR_INVALID);
    assert_int_equal(scale_rate_parse("nanGb/s", &v, &e), ERR_INVALID);
    assert_int_equal(scale_rate_parse("Gb/s", &v, &e), ERR_INVALID);
    assert_int_equal(scale_time_parse("5 min", &v, &e), ERR_INVALID);
}

static void test_nothing_is_invented(void **state)
{
    static const char whole[] =
        "{\"params\":10,\"threads\":2,\"unit_rows\":2,\"unit_s\":0.5,\"backward\":0.3,\"early\":0."
        "4,"
        "\"forward\":0.2,\"later\":0.5,\"fold_bytes_s\":1e9,\"apply_params_s\":1e9,\"crypt_bytes_"
        "s\":1e9}";
    struct scale_measured m;
    struct err e = {0};
    cJSON *j;

    (void)state;
    assert_int_equal(json_parse(whole, strlen(whole), JSON_LIMITS_BODY, &j, &e), 0);
    assert_int_equal(scale_measured_read(j, &m, &e), 0);
    assert_int_equal(m.threads, 2);
    for (int i = 0; i < cJSON_GetArraySize(j); i++) { /* each key must be there */
        cJSON *copy = cJSON_Duplicate(j, true);
        char key[32];
        strcpy(key, cJSON_GetArrayItem(copy, i)->string);
        cJSON_DeleteItemFromArray(copy, i);
        assert_int_equal(scale_measured_read(copy, &m, &e), ERR_INVALID);
        assert_non_null(strstr(e.msg, key));
        cJSON_Delete(copy);
    }
    cJSON_ReplaceItemInObject(j, "early", cJSON_CreateNumber(1.5));
    assert_int_equal(scale_measured_read(j, &m, &e), ERR_INVALID);
    cJSON_Delete(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_worker_needs_no_wire),
        cmocka_unit_test(test_bytes_are_those_of_the_tree_and_the_hosts),
        cmocka_unit_test(test_a_wire_in_bf16_halves_what_travels_and_not_the_copies),
        cmocka_unit_test(test_a_fast_link_is_bound_by_the_cipher),
        cmocka_unit_test(test_a_long_link_must_be_filled_first),
        cmocka_unit_test(test_what_leaves_early_hides_behind_the_backward),
        cmocka_unit_test(test_more_workers_than_units_help_no_more),
        cmocka_unit_test(test_quantities_have_units),
        cmocka_unit_test(test_nothing_is_invented),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
