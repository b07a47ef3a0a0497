/* The set of task numbers against a plain array of flags, and how much of it is looked at. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/task_set.h"

static uint32_t draw(uint64_t *state, uint32_t below)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*state >> 33) % below);
}

static void agrees(const struct task_set *s, const bool *flag, uint32_t bound)
{
    uint32_t at = task_set_next(s, 0), count = 0;

    for (uint32_t i = 0; i < bound; i++) {
        assert_true(task_set_has(s, i) == flag[i]);
        count += flag[i];
        if (!flag[i])
            continue;
        assert_int_equal(at, i);
        at = task_set_next(s, i + 1);
    }
    assert_int_equal(at, TASK_SET_NONE);
    assert_int_equal(s->count, count);
}

static void test_it_holds_what_a_plain_array_holds(void **state)
{
    static const uint32_t bounds[] = {1, 2, 63, 64, 65, 127, 128, 4095, 4096, 4097, 70000};
    uint64_t seed = 1;

    (void)state;
    for (size_t b = 0; b < sizeof bounds / sizeof bounds[0]; b++) {
        uint32_t bound = bounds[b];
        struct task_set s = {.bound = 0};
        bool *flag = calloc(bound, sizeof *flag);

        for (int full = 0; full < 2; full++) {
            task_set_init(&s, bound, full);
            for (uint32_t i = 0; i < bound; i++)
                flag[i] = full;
            agrees(&s, flag, bound);
            for (int k = 0; k < 6; k++) {
                for (uint32_t i = 0; i < bound; i++) {
                    uint32_t n = draw(&seed, bound);

                    flag[n] = draw(&seed, 8) >= (k < 3 ? 6u : 1u);
                    (flag[n] ? task_set_add : task_set_drop)(&s, n);
                }
                agrees(&s, flag, bound);
            }
        }
        free(flag);
        task_set_fini(&s);
        task_set_fini(&s); /* no harm */
    }
}

static void test_an_empty_set_has_no_member(void **state)
{
    struct task_set s = {.bound = 0};

    (void)state;
    assert_int_equal(task_set_next(&s, 0), TASK_SET_NONE);
    assert_false(task_set_has(&s, 0));
    task_set_init(&s, 0, true);
    assert_int_equal(task_set_next(&s, 0), TASK_SET_NONE);
    task_set_drop(&s, 5);
    task_set_fini(&s);
}

/* The one member at the far end of a large set is found by looking at a few words. */
static void test_a_lonely_member_is_found_at_once(void **state)
{
    struct task_set s = {.bound = 0};
    uint64_t before;

    (void)state;
    task_set_init(&s, TASK_SET_MAX, false);
    task_set_add(&s, TASK_SET_MAX - 1);
    before = task_set_looks();
    assert_int_equal(task_set_next(&s, 0), TASK_SET_MAX - 1);
    task_set_drop(&s, TASK_SET_MAX - 1);
    assert_int_equal(task_set_next(&s, 0), TASK_SET_NONE);
    assert_true(task_set_looks() - before <= 3 * TASK_SET_LEVELS);
    task_set_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_holds_what_a_plain_array_holds),
        cmocka_unit_test(test_an_empty_set_has_no_member),
        cmocka_unit_test(test_a_lonely_member_is_found_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
