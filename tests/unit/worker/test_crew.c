/* Every item once, whoever does it, and nothing of a work after it is over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/crew.h"

#define ITEMS 1000

struct sheet {
    atomic_int times[ITEMS];
    atomic_bool over;
    atomic_int late;
};

static void tick(void *arg, uint32_t i)
{
    struct sheet *s = arg;

    atomic_fetch_add(&s->late, atomic_load(&s->over));
    atomic_fetch_add(&s->times[i], 1);
}

static void test_every_item_is_done_once(void **state)
{
    static const uint32_t counts[] = {1, 2, 3, 7, ITEMS};

    (void)state;
    for (uint32_t helpers = 0; helpers < 4; helpers++) {
        struct crew *c = crew_new(helpers);
        struct spread spread = crew_spread(c);
        for (int round = 0; round < 200; round++) {
            uint32_t n = counts[round % 5];
            struct sheet *s = calloc(1, sizeof *s);
            spread_each(&spread, n, tick, s);
            atomic_store(&s->over, true);
            for (uint32_t i = 0; i < ITEMS; i++)
                assert_int_equal(atomic_load(&s->times[i]), i < n ? 1 : 0);
            assert_int_equal(atomic_load(&s->late), 0);
            free(s); /* a sanitizer would see who comes later */
        }
        crew_free(c);
    }
}

static void test_without_a_crew_the_caller_does_it(void **state)
{
    struct spread none = {NULL, NULL};
    struct sheet s;

    (void)state;
    memset(&s, 0, sizeof s);
    spread_each(&none, 5, tick, &s);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(atomic_load(&s.times[i]), i < 5 ? 1 : 0);
    crew_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_item_is_done_once),
        cmocka_unit_test(test_without_a_crew_the_caller_does_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
