#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/pulse.h"

struct threads {
    struct pulse pulse;
    struct pulse_thread thread[2];
    uint64_t counter[2];
};

static uint64_t tick(struct threads *t, int excused)
{
    for (int i = 0; i < 2; i++)
        pulse_thread_take(&t->pulse, &t->thread[i], &t->counter[i], i == excused);
    pulse_end(&t->pulse);
    return t->pulse.rounds;
}

static void test_one_hung_thread_stops_the_rounds(void **state)
{
    struct threads t = {0};
    uint64_t before, stood;

    (void)state;
    for (int i = 0; i < 10; i++) {
        t.counter[0]++;
        t.counter[1] += 3;
        tick(&t, -1);
    }
    before = t.pulse.rounds;
    assert_int_equal(before, 10);
    stood = t.thread[1].moved;
    for (int i = 0; i < 100; i++) { /* the first goes on */
        t.counter[0]++;
        assert_true(tick(&t, -1) <= before + 1);
    }
    assert_true(t.thread[0].moved > stood + 50);
    assert_int_equal(t.thread[1].moved, stood);
    before = t.pulse.rounds;
    t.counter[1]++;
    assert_int_equal(tick(&t, -1), before + 1); /* as soon as it moves */
}

static void test_slow_threads_and_idle_ones_do_not_look_hung(void **state)
{
    struct threads t = {0};
    uint64_t before;

    (void)state;
    for (int i = 0; i < 60; i++) { /* by turns, never in the same tick */
        t.counter[i % 2]++;
        tick(&t, -1);
    }
    assert_true(t.pulse.rounds >= 29);
    before = t.pulse.rounds;
    for (int i = 0; i < 10; i++) { /* the second has nothing to do */
        t.counter[0]++;
        tick(&t, 1);
    }
    assert_int_equal(t.pulse.rounds, before + 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_hung_thread_stops_the_rounds),
        cmocka_unit_test(test_slow_threads_and_idle_ones_do_not_look_hung),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
