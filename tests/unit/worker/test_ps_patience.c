/* How long a silent host is waited for: by what its link has shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "worker/ps_patience.h"

static struct ps_patience p;

static int setup(void **state)
{
    (void)state;
    ps_patience_init(&p, 0);
    return 0;
}

static void test_a_question_is_repeated_after_silence_only(void **state)
{
    (void)state;
    assert_false(ps_patience_is_over(&p, 5000, 5999));
    assert_true(ps_patience_is_over(&p, 5000, 6000));
    ps_patience_heard(&p, 5500);
    assert_false(ps_patience_is_over(&p, 5000, 6499));
    assert_true(ps_patience_is_over(&p, 5000, 6500));
}

/* Many are looked at by one clock, while sending them hears the host, and sends the first of them. */
static void test_what_was_heard_or_sent_after_the_clock_was_read_is_no_silence(void **state)
{
    (void)state;
    ps_patience_heard(&p, 6001);
    assert_false(ps_patience_is_over(&p, 5000, 6000));
    assert_false(ps_patience_is_over(&p, 6002, 6000));
}

static void test_more_bytes_may_be_later_but_not_without_end(void **state)
{
    (void)state;
    ps_patience_init(&p, 8000000);
    assert_int_equal(p.wait_ms, 3000);
    ps_patience_init(&p, UINT64_MAX);
    assert_int_equal(p.wait_ms, PS_PATIENCE_MOST_MS);
}

static void test_repetitions_double_what_is_waited_for_up_to_a_bound(void **state)
{
    (void)state;
    for (uint64_t wait = 1000; wait < PS_PATIENCE_MOST_MS; wait *= 2) {
        assert_int_equal(p.wait_ms, wait);
        ps_patience_repeated(&p);
    }
    ps_patience_repeated(&p);
    assert_int_equal(p.wait_ms, PS_PATIENCE_MOST_MS);
}

static void test_a_slow_link_is_given_twice_what_it_has_shown(void **state)
{
    (void)state;
    ps_patience_renew(&p, 10000);
    ps_patience_heard(&p, 11500);
    ps_patience_heard(&p, 11600);
    ps_patience_renew(&p, 20000);
    assert_int_equal(p.wait_ms, 3000);
    ps_patience_heard(&p, 20010); /* the time between two questions is no silence of the host's */
    ps_patience_renew(&p, 30000);
    assert_int_equal(p.wait_ms, PS_PATIENCE_LEAST_MS);
    ps_patience_renew(&p, 40000); /* nothing was heard: nothing was shown */
    assert_int_equal(p.wait_ms, PS_PATIENCE_LEAST_MS);
}

/* By halves, and never below twice what the answer took. */
static void test_quick_answers_take_back_what_losses_made_longer(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        ps_patience_repeated(&p);
    assert_int_equal(p.wait_ms, 8000);
    ps_patience_ease(&p, 50000, 50010);
    assert_int_equal(p.wait_ms, 4000);
    ps_patience_ease(&p, 50000, 51500);
    assert_int_equal(p.wait_ms, 3000);
    ps_patience_ease(&p, 50000, 59000); /* slower than was waited for: no reason to wait less */
    assert_int_equal(p.wait_ms, 3000);
    for (int i = 0; i < 5; i++)
        ps_patience_ease(&p, 60000, 60001);
    assert_int_equal(p.wait_ms, PS_PATIENCE_LEAST_MS);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, NULL)
    const struct CMUnitTest tests[] = {
        T(test_a_question_is_repeated_after_silence_only),
        T(test_what_was_heard_or_sent_after_the_clock_was_read_is_no_silence),
        T(test_more_bytes_may_be_later_but_not_without_end),
        T(test_repetitions_double_what_is_waited_for_up_to_a_bound),
        T(test_a_slow_link_is_given_twice_what_it_has_shown),
        T(test_quick_answers_take_back_what_losses_made_longer),
    };
    return cmocka_run_group_tests_name("ps_patience", tests, NULL, NULL);
}
