#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ps/opinion.h"

#define UNITS 7

static const struct tree_node leaf = {0, 3}, pair = {1, 1};

static const struct opinion *say(struct opinions *o, bool audited, uint64_t who, uint64_t hash,
                                 uint64_t first_who, uint64_t first)
{
    return opinions_take(o, leaf, 0, audited, (struct opinion_voice){who, hash},
                         (struct opinion_voice){first_who, first});
}

static void test_nobody_questions_what_nobody_audits_or_contradicts(void **state)
{
    struct opinions *o = opinions_new(UNITS, 2);

    (void)state;
    assert_null(say(o, false, 1, 10, 1, 10));
    assert_null(say(o, false, 2, 10, 1, 10));
    assert_false(opinions_hold(o));
    assert_int_equal(opinions_n(o), 0);
    opinions_free(o);
}

static void test_an_audited_node_waits_for_another_worker(void **state)
{
    struct opinions *o = opinions_new(UNITS, 2);
    const struct opinion *op = say(o, true, 1, 10, 1, 10);

    (void)state;
    assert_int_equal(op->state, OPINION_WAITING);
    assert_true(opinions_hold(o));
    op = say(o, true, 1, 10, 1, 10); /* the same worker again is no second opinion */
    assert_int_equal(op->state, OPINION_WAITING);
    op = say(o, true, 2, 10, 1, 10);
    assert_int_equal(op->state, OPINION_SETTLED);
    assert_true(op->news && !op->disputed && !op->tainted && op->odd == 0);
    assert_false(opinions_hold(o));
    op = say(o, true, 2, 10, 1, 10);
    assert_false(op->news);
    opinions_reset(o);
    assert_int_equal(say(o, true, 2, 10, 2, 10)->state, OPINION_WAITING);
    opinions_free(o);
}

static void test_the_outvoted_one_is_odd_and_taints_what_it_came_first_with(void **state)
{
    static const struct {
        uint64_t order[3]; /* who speaks when; worker 3 is wrong */
        bool tainted;
    } cases[] = {{{1, 3, 2}, false}, {{3, 1, 2}, true}, {{1, 2, 3}, false}, {{3, 2, 1}, true}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct opinions *o = opinions_new(UNITS, 1);
        uint64_t first = cases[i].order[0] == 3 ? 99 : 10;
        const struct opinion *op = NULL;
        for (int k = 0; k < 3; k++)
            op = say(o, true, cases[i].order[k], cases[i].order[k] == 3 ? 99 : 10,
                     cases[i].order[0], first);
        assert_int_equal(op->state, OPINION_SETTLED);
        assert_true(op->odd == 3);
        assert_true(op->agreed == 10);
        assert_int_equal(op->tainted, cases[i].tainted);
        assert_int_equal(opinions_hold(o), cases[i].tainted); /* its sum must not be used */
        opinions_free(o);
    }
}

/* Parts that were added up here are of nobody in particular: perhaps of the one who is asked now. */
static void test_a_sum_of_parts_confirms_nobody(void **state)
{
    struct opinions *o = opinions_new(UNITS, 1);
    const struct opinion *op;

    (void)state;
    op = say(o, false, 3, 10, 0, 99);
    assert_int_equal(op->state, OPINION_DISPUTED);
    op = say(o, false, 7, 99, 0, 99); /* who made the parts says the same again */
    assert_int_equal(op->state, OPINION_DISPUTED);
    op = say(o, false, 4, 10, 0, 99);
    assert_int_equal(op->state, OPINION_SETTLED);
    assert_true(op->agreed == 10 && op->tainted && op->news && op->odd == 7);
    opinions_free(o);
}

static void test_a_sum_of_parts_that_is_outvoted_is_news_and_names_nobody(void **state)
{
    struct opinions *o = opinions_new(UNITS, 1);
    const struct opinion *op;

    (void)state;
    say(o, false, 1, 10, 0, 99);
    op = say(o, false, 2, 10, 0, 99);
    assert_int_equal(op->state, OPINION_SETTLED);
    assert_true(op->tainted && op->news && op->odd == 0);
    assert_true(opinions_hold(o));
    opinions_free(o);
}

static void test_a_worker_that_contradicts_itself_is_odd(void **state)
{
    struct opinions *o = opinions_new(UNITS, 1);
    const struct opinion *op;

    (void)state;
    say(o, false, 1, 10, 1, 10);
    op = say(o, false, 2, 99, 1, 10);
    assert_int_equal(op->state, OPINION_DISPUTED);
    op = say(o, false, 1, 10, 1, 10); /* asked again: says the same, which proves nothing */
    assert_int_equal(op->state, OPINION_DISPUTED);
    op = say(o, false, 2, 10, 1, 10);
    assert_int_equal(op->state, OPINION_SETTLED);
    assert_true(op->odd == 2 && !op->tainted);
    opinions_free(o);
}

static void test_only_what_is_waited_for_is_waived(void **state)
{
    struct opinions *o = opinions_new(UNITS, 2);

    (void)state;
    say(o, true, 1, 10, 1, 10);
    opinions_take(o, leaf, 1, true, (struct opinion_voice){1, 11}, (struct opinion_voice){1, 11});
    opinions_take(o, pair, 0, true, (struct opinion_voice){2, 13}, (struct opinion_voice){1, 12});
    opinions_waive(o, leaf);
    opinions_waive(o, pair);
    assert_int_equal(opinions_at(o, 0)->state, OPINION_SETTLED);
    assert_true(opinions_at(o, 1)->waived);
    assert_int_equal(opinions_at(o, 2)->state, OPINION_DISPUTED);
    assert_true(opinions_hold(o));
    opinions_reset(o);
    assert_false(opinions_hold(o));
    opinions_free(o);
}

/* Worker 1 was believed because nobody else was there: worker 2 is no odd one for that, and neither is right yet. */
static void test_who_was_waived_may_still_be_contradicted(void **state)
{
    struct opinions *o = opinions_new(UNITS, 2);
    const struct opinion *op;

    (void)state;
    say(o, true, 1, 10, 1, 10);
    opinions_waive(o, leaf);
    assert_false(opinions_hold(o));
    op = say(o, true, 2, 11, 1, 10);
    assert_int_equal(op->state, OPINION_DISPUTED);
    assert_int_equal(op->odd, 0);
    assert_true(opinions_hold(o));
    op = say(o, true, 3, 11, 1, 10);
    assert_int_equal(op->state, OPINION_SETTLED);
    assert_int_equal(op->odd, 1);
    assert_true(op->tainted);
    opinions_free(o);
}

static void test_the_audit_is_a_share_that_depends_on_the_node_only(void **state)
{
    uint32_t n = 0;

    (void)state;
    for (uint64_t step = 0; step < 1000; step++) {
        bool is = opinions_audits(5, 0.25, step, leaf);
        assert_int_equal(is, opinions_audits(5, 0.25, step, leaf));
        assert_false(opinions_audits(5, 0, step, leaf));
        assert_true(opinions_audits(5, 1, step, leaf));
        n += is;
    }
    assert_true(n > 200 && n < 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_questions_what_nobody_audits_or_contradicts),
        cmocka_unit_test(test_an_audited_node_waits_for_another_worker),
        cmocka_unit_test(test_the_outvoted_one_is_odd_and_taints_what_it_came_first_with),
        cmocka_unit_test(test_a_sum_of_parts_confirms_nobody),
        cmocka_unit_test(test_a_sum_of_parts_that_is_outvoted_is_news_and_names_nobody),
        cmocka_unit_test(test_a_worker_that_contradicts_itself_is_odd),
        cmocka_unit_test(test_only_what_is_waited_for_is_waived),
        cmocka_unit_test(test_who_was_waived_may_still_be_contradicted),
        cmocka_unit_test(test_the_audit_is_a_share_that_depends_on_the_node_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
