/* What a host does with pushes that are damaged, double, contradictory or audited. One chunk, two units. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ps/host.h"

#define ELEMS 4

static struct tensor tensor = {.name = "w", .rows = ELEMS, .cols = 1, .decay = true};
static struct layout layout = {.count = ELEMS, .tensors = 1, .tensor = &tensor};
static const struct fold_sums sums = {1, 1, 3};

static struct host *host_of(double audit)
{
    const struct host_plan plan = {.layout = &layout,
                                   .units = 2,
                                   .chunks = 1,
                                   .chunk_end = 1,
                                   .chunk_elems = ELEMS,
                                   .steps = 9,
                                   .seed = 3,
                                   .audit = audit,
                                   .lr = 0.1,
                                   .clip = 0.5,
                                   .adamw = {0.9f, 0.95f, 1e-8f, 0.1f},
                                   .schedule = {SCHEDULE_LINEAR, 2, 0.1}};
    const float start[ELEMS] = {0};

    return host_new(&plan, start, 0, NULL);
}

/* Unit `unit` of the open step, as `who` says it: every element is `value`. */
static enum host_verdict push(struct host *h, uint64_t who, uint32_t unit, float value,
                              uint64_t hash_off, unsigned *events)
{
    const float g[ELEMS] = {value, value, value, value};
    enum host_verdict verdict = HOST_STALE;
    struct err e;

    assert_int_equal(host_push(h, host_version(h), who, (struct tree_node){0, unit}, 0, g, ELEMS,
                               &sums, fold_hash(g, ELEMS, &sums) + hash_off, &verdict, events, &e),
                     0);
    return verdict;
}

static void test_a_damaged_push_is_refused_and_the_next_one_taken(void **state)
{
    struct host *h = host_of(0);
    unsigned events;

    (void)state;
    assert_int_equal(push(h, 1, 0, 1, 1, &events), HOST_CORRUPT);
    assert_int_equal(push(h, 1, 0, 1, 0, &events), HOST_ACCEPTED);
    assert_int_equal(push(h, 1, 0, 1, 0, &events), HOST_DUPLICATE);
    assert_int_equal(push(h, 2, 1, 1, 0, &events), HOST_ACCEPTED);
    assert_int_equal(host_version(h), 1);
    host_free(h);
}

static void test_a_conflict_after_the_sum_was_told_is_said_aloud(void **state)
{
    static struct tensor two_tensor = {.name = "w", .rows = 2 * ELEMS, .cols = 1, .decay = true};
    static struct layout two = {.count = 2 * ELEMS, .tensors = 1, .tensor = &two_tensor};
    const struct host_plan plan = {.layout = &two,
                                   .units = 2,
                                   .chunks = 2,
                                   .chunk_begin = 1,
                                   .chunk_end = 2,
                                   .chunk_elems = ELEMS,
                                   .steps = 9,
                                   .lr = 0.1,
                                   .clip = 0.5,
                                   .adamw = {0.9f, 0.95f, 1e-8f, 0.1f},
                                   .schedule = {SCHEDULE_LINEAR, 2, 0.1}};
    const float start[ELEMS] = {0}, one[ELEMS] = {1, 1, 1, 1}, other[ELEMS] = {1, 1, 1, 2};
    struct host *h = host_new(&plan, start, 0, NULL);
    const struct tree_node unit[2] = {{0, 0}, {0, 1}};
    enum host_verdict verdict;
    unsigned events;
    struct err e;

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(host_push(h, 0, 0xaa, unit[i], 1, one, ELEMS, NULL,
                                   fold_hash(one, ELEMS, NULL), &verdict, &events, &e),
                         0);
    assert_true((events & HOST_ROOTS) != 0);
    assert_int_equal(host_push(h, 0, 0xbb, unit[1], 1, one, ELEMS, NULL,
                               fold_hash(one, ELEMS, NULL), &verdict, &events, &e),
                     0);
    assert_int_equal(verdict, HOST_DUPLICATE);
    assert_int_equal(host_push(h, 0, 0xbb, unit[1], 1, other, ELEMS, NULL,
                               fold_hash(other, ELEMS, NULL), &verdict, &events, &e),
                     ERR_CONFLICT);
    assert_non_null(strstr(e.msg, "00000000000000aa and 00000000000000bb"));
    assert_non_null(strstr(e.msg, "step 1, units [1, 2)"));
    host_free(h);
}

static void test_an_audited_step_stays_open_until_two_workers_agree(void **state)
{
    struct host *h = host_of(1);
    unsigned events;

    (void)state;
    push(h, 1, 0, 1, 0, &events);
    assert_true((events & HOST_OPINION) != 0);
    push(h, 2, 1, 2, 0, &events);
    assert_int_equal(host_version(h), 0);
    push(h, 2, 0, 1, 0, &events);
    assert_int_equal(host_version(h), 0);
    push(h, 1, 1, 2, 0, &events);
    assert_int_equal(host_version(h), 1);
    assert_int_equal(host_audited(h), 2);
    assert_int_equal(host_judged_n(h), 0);
    assert_int_equal(opinions_n(host_opinions(h)), 0);
    host_free(h);
}

static void test_a_waived_audit_holds_nothing(void **state)
{
    struct host *h = host_of(1);
    unsigned events;
    struct err e;

    (void)state;
    push(h, 1, 0, 1, 0, &events);
    push(h, 1, 1, 2, 0, &events);
    assert_int_equal(host_waive(h, 0, (struct tree_node){0, 0}, &events, &e), 0);
    assert_int_equal(host_version(h), 0);
    assert_int_equal(host_waive(h, 0, (struct tree_node){0, 1}, &events, &e), 0);
    assert_int_equal(host_version(h), 1);
    assert_true((events & HOST_VERSION) != 0);
    assert_int_equal(host_waive(h, 0, (struct tree_node){0, 1}, &events, &e), ERR_STALE);
    host_free(h);
}

static void test_a_wrong_value_that_was_added_up_never_closes_its_step(void **state)
{
    struct host *h = host_of(0);
    unsigned events;

    (void)state;
    push(h, 3, 0, 9, 0, &events); /* wrong, and first */
    assert_int_equal(push(h, 1, 0, 1, 0, &events), HOST_CONFLICT);
    push(h, 2, 1, 2, 0, &events);
    assert_int_equal(host_version(h), 0);
    push(h, 2, 0, 1, 0, &events);
    assert_int_equal(host_version(h), 0); /* settled, but the sum is of no use */
    assert_int_equal(host_judged_n(h), 1);
    assert_true(host_judged(h, 0)->opinion.odd == 3);
    assert_true(host_judged(h, 0)->opinion.tainted);
    host_free(h);
}

static void test_a_wrong_value_that_comes_second_is_outvoted_and_the_step_closes(void **state)
{
    struct host *h = host_of(0);
    unsigned events;

    (void)state;
    push(h, 1, 0, 1, 0, &events);
    assert_int_equal(push(h, 3, 0, 9, 0, &events), HOST_CONFLICT);
    push(h, 2, 1, 2, 0, &events);
    assert_int_equal(host_version(h), 0);
    push(h, 2, 0, 1, 0, &events);
    assert_int_equal(host_version(h), 1);
    assert_true(host_judged(h, 0)->opinion.odd == 3); /* told although its step is closed */
    assert_int_equal(host_judged(h, 0)->step, 0);
    host_free(h);
}

/* Memory that was lent and added to comes again, and a bit of the hash that goes with it was damaged. */
static void test_a_damaged_repetition_contradicts_nobody(void **state)
{
    struct host *h = host_of(0);
    float g[2][ELEMS] = {{1, 1, 1, 1}, {2, 2, 2, 2}};
    unsigned events;
    struct err e;

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct host_push p = {.step = 0, .who = 1, .node = {0, 0}, .sums = sums, .lent = i < 2, .count = 1};
        p.values[0] = g[0];
        p.n[0] = ELEMS;
        p.hash[0] = i == 0 ? fold_hash(g[0], ELEMS, &sums) : 0;
        if (i == 1) { /* as a sibling that is added to it */
            g[0][0] = 3;
            p.hash[0] = 77;
        }
        if (i == 2)
            p.hash[0] = fold_hash((float[ELEMS]){1, 1, 1, 1}, ELEMS, &sums);
        assert_int_equal(host_push_begin(h, &p, &e), 0);
        host_push_fold(h, &p, 0);
        assert_int_equal(host_push_end(h, &p, &events, &e), 0);
        assert_int_equal(p.out[0].verdict, i == 0   ? HOST_ACCEPTED
                                           : i == 1 ? HOST_CORRUPT
                                                    : HOST_DUPLICATE);
    }
    assert_int_equal(opinions_n(host_opinions(h)), 0);
    host_free(h);
}

static void test_sums_that_no_run_has_are_refused(void **state)
{
    static const struct fold_sums bad[] = {{1, 1, 1ull << 60}, {1, -1, 3}, {1, NAN, 3}};
    struct host *h = host_of(0);
    const float g[ELEMS] = {1, 1, 1, 1};
    enum host_verdict verdict;
    unsigned events;
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(host_push(h, 0, 1, (struct tree_node){0, 0}, 0, g, ELEMS, &bad[i],
                                   fold_hash(g, ELEMS, &bad[i]), &verdict, &events, &e),
                         ERR_INVALID);
    host_free(h);
}

static void test_with_several_classes_nothing_is_compared(void **state)
{
    struct host *h = host_of(-1);
    unsigned events;

    (void)state;
    push(h, 1, 0, 1, 0, &events);
    push(h, 2, 0, 9, 0, &events);
    assert_int_equal(events & HOST_OPINION, 0);
    push(h, 2, 1, 2, 0, &events);
    assert_int_equal(host_version(h), 1);
    host_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_damaged_push_is_refused_and_the_next_one_taken),
        cmocka_unit_test(test_a_conflict_after_the_sum_was_told_is_said_aloud),
        cmocka_unit_test(test_an_audited_step_stays_open_until_two_workers_agree),
        cmocka_unit_test(test_a_waived_audit_holds_nothing),
        cmocka_unit_test(test_a_wrong_value_that_was_added_up_never_closes_its_step),
        cmocka_unit_test(test_a_wrong_value_that_comes_second_is_outvoted_and_the_step_closes),
        cmocka_unit_test(test_a_damaged_repetition_contradicts_nobody),
        cmocka_unit_test(test_sums_that_no_run_has_are_refused),
        cmocka_unit_test(test_with_several_classes_nothing_is_compared),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
