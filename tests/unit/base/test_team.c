#include "base/team.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct sums {
    int round;
    uint64_t in[TEAM_MAX * 8], out[TEAM_MAX * 8]; /* a line of memory each */
    size_t parts;
};

static void part_sum(void *self, size_t part, size_t parts)
{
    struct sums *s = self;

    if (part == 0)
        s->parts = parts;
    for (size_t i = part; i < TEAM_MAX; i += parts)
        s->out[i * 8] = s->in[i * 8] + (uint64_t)s->round;
}

static void rounds_check(struct team *t, int rounds, useconds_t pause_us)
{
    static struct sums s;

    memset(&s, 0, sizeof(s));
    for (s.round = 1; s.round <= rounds; s.round++) {
        for (size_t i = 0; i < TEAM_MAX; i++)
            s.in[i * 8] = i * 1000;
        team_run(t, part_sum, &s);
        assert_int_equal(s.parts, team_parts(t));
        for (size_t i = 0; i < TEAM_MAX; i++)
            assert_int_equal(s.out[i * 8], i * 1000 + (uint64_t)s.round);
        if (pause_us > 0)
            usleep(pause_us);
    }
}

static void test_every_part_runs_once_and_is_seen(void **state)
{
    (void)state;
    rounds_check(NULL, 10, 0);
    for (int threads = 1; threads <= 5; threads++) {
        struct team *t = team_new(threads);
        rounds_check(t, 2000, 0);
        team_free(t);
    }
}

/* Longer pauses than members spin: they sleep and must be woken every time. */
static void test_sleeping_members_are_woken(void **state)
{
    struct team *t = team_new(3);

    (void)state;
    rounds_check(t, 100, 2000);
    team_free(t);
    team_free(NULL);
}

static void part_slow(void *self, size_t part, size_t parts)
{
    int *done = self;

    (void)parts;
    if (part > 0)
        usleep(3000); /* the caller sleeps meanwhile */
    __atomic_fetch_add(done, 1, __ATOMIC_RELAXED);
}

static void test_the_caller_waits_for_slow_members(void **state)
{
    struct team *t = team_new(3);
    int done = 0;

    (void)state;
    for (int i = 1; i <= 20; i++) {
        team_run(t, part_slow, &done);
        assert_int_equal(done, 3 * i);
    }
    team_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_part_runs_once_and_is_seen),
        cmocka_unit_test(test_sleeping_members_are_woken),
        cmocka_unit_test(test_the_caller_waits_for_slow_members),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
