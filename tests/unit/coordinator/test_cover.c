/* cover: what hosts hold, laid together. A brute-force reference asks for every chunk who has it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "coordinator/cover.h"

#define HOSTS 4
#define CHUNKS 10

/* Hosts with equal ranges, all at version 7, each with the copy of the one before. */
static void lay_out(struct cover_report *r, int n, uint32_t chunks)
{
    for (int i = 0; i < n; i++)
        r[i] = (struct cover_report){.here = true,
                                     .version = 7,
                                     .closed = true,
                                     .begin = chunks * (uint32_t)i / (uint32_t)n,
                                     .end = chunks * (uint32_t)(i + 1) / (uint32_t)n};
    for (int i = 0; i < n; i++) {
        int before = 0;

        if (cover_copy_of(i, n, &before)) {
            r[i].copy_begin = r[before].begin;
            r[i].copy_end = r[before].end;
        }
    }
}

static void test_everybody_alive_is_covered(void **state)
{
    struct cover_report r[HOSTS];
    struct cover c;

    (void)state;
    for (int n = 1; n <= HOSTS; n++) {
        lay_out(r, n, CHUNKS);
        assert_true(cover_find(r, n, CHUNKS, 0, &c));
        assert_int_equal(c.version, 7);
        assert_int_equal(c.missing, CHUNKS);
        assert_false(c.behind);
    }
}

static void test_one_lost_is_covered_by_its_buddy(void **state)
{
    struct cover_report r[HOSTS];
    struct cover c;

    (void)state;
    for (int n = 2; n <= HOSTS; n++) {
        for (int lost = 0; lost < n; lost++) {
            lay_out(r, n, CHUNKS);
            r[lost].here = false;
            assert_true(cover_find(r, n, CHUNKS, 0, &c));
            assert_int_equal(r[lost].usable, 0);
        }
    }
    lay_out(r, 1, CHUNKS); /* alone: nobody has a copy */
    r[0].here = false;
    assert_false(cover_find(r, 1, CHUNKS, 0, &c));
    assert_int_equal(c.missing, 0);
}

static void test_two_lost_are_covered_unless_they_are_neighbours(void **state)
{
    struct cover_report r[HOSTS];
    struct cover c;

    (void)state;
    for (int i = 0; i < HOSTS; i++) {
        for (int k = 0; k < HOSTS; k++) {
            bool neighbours = (i + 1) % HOSTS == k || (k + 1) % HOSTS == i;

            if (i == k)
                continue;
            lay_out(r, HOSTS, CHUNKS);
            r[i].here = r[k].here = false;
            assert_int_equal(cover_find(r, HOSTS, CHUNKS, 0, &c), !neighbours);
            if (neighbours) /* the first of the two lost both its owner and its copy */
                assert_int_equal(c.missing, r[(i + 1) % HOSTS == k ? i : k].begin);
        }
    }
}

static void test_who_is_one_behind_needs_roots_and_a_close(void **state)
{
    struct cover_report r[3];
    struct cover c;

    (void)state;
    lay_out(r, 3, CHUNKS);
    r[1].version = 6;
    r[1].roots = COVER_OWN | COVER_COPY;
    assert_true(cover_find(r, 3, CHUNKS, 0, &c));
    assert_int_equal(c.version, 7);
    assert_true(c.behind);
    assert_int_equal(r[1].usable, COVER_OWN | COVER_COPY);
    r[1].roots = COVER_COPY; /* its own range comes from its buddy then */
    assert_true(cover_find(r, 3, CHUNKS, 0, &c));
    assert_int_equal(r[1].usable, COVER_COPY);
    r[2].here = false; /* ... and the buddy is lost */
    assert_false(cover_find(r, 3, CHUNKS, 0, &c));
    assert_int_equal(c.missing, r[1].begin);
    r[1].roots = COVER_OWN;
    r[0].closed = false; /* nobody knows how step 6 was closed */
    assert_false(cover_find(r, 3, CHUNKS, 0, &c));
    r[0].closed = true;
    r[1].version = 5; /* two behind: the roots of 5 do not lead to 7 */
    assert_false(cover_find(r, 3, CHUNKS, 0, &c));
}

static void test_a_settled_version_is_kept(void **state)
{
    struct cover_report r[3];
    struct cover c;

    (void)state;
    lay_out(r, 3, CHUNKS);
    r[1].version = r[2].version = 6;
    r[1].roots = r[2].roots = COVER_OWN | COVER_COPY;
    r[0].here = false; /* the only one who was at 7 is lost after the plan for 7 was made */
    assert_true(cover_find(r, 3, CHUNKS, 7, &c));
    assert_int_equal(c.version, 7);
    assert_int_equal(c.ahead, -1);
    assert_true(cover_find(r, 3, CHUNKS, 0, &c)); /* without such a plan 6 is as good */
    assert_int_equal(c.version, 6);
    assert_false(c.behind);
}

static void test_agrees_with_asking_for_every_chunk(void **state)
{
    struct cover_report r[HOSTS];
    struct cover c;
    int yes = 0, no = 0;

    (void)state;
    for (uint32_t seed = 0; seed < 20000; seed++) {
        int n = 1 + (int)rng_below(seed, RNG_TEST, 0, 0, 0, HOSTS);
        uint64_t top = 0;
        bool close = false, all = true;

        lay_out(r, n, CHUNKS);
        for (int i = 0; i < n; i++) {
            uint32_t d = rng_below(seed, RNG_TEST, 1, (uint32_t)i, 0, 64);

            r[i].here = (d & 3) != 0;
            r[i].version = 6 + ((d >> 2) & 1);
            r[i].closed = ((d >> 3) & 1) != 0;
            r[i].roots = (d >> 4) & 3;
            top = r[i].here && r[i].version > top ? r[i].version : top;
        }
        for (int i = 0; i < n; i++)
            close = close || (r[i].here && r[i].version == top && r[i].closed);
        for (uint32_t chunk = 0; chunk < CHUNKS; chunk++) {
            bool held = false;

            for (int i = 0; i < n; i++) {
                bool own = r[i].begin <= chunk && chunk < r[i].end,
                     copy = r[i].copy_begin <= chunk && chunk < r[i].copy_end,
                     at = r[i].version == top, up = r[i].version + 1 == top && close;

                held = held ||
                       (r[i].here && ((own && (at || (up && (r[i].roots & COVER_OWN) != 0))) ||
                                      (copy && (at || (up && (r[i].roots & COVER_COPY) != 0)))));
            }
            all = all && held;
        }
        assert_int_equal(cover_find(r, n, CHUNKS, 0, &c), all);
        yes += all;
        no += !all;
    }
    assert_true(yes > 1000 && no > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everybody_alive_is_covered),
        cmocka_unit_test(test_one_lost_is_covered_by_its_buddy),
        cmocka_unit_test(test_two_lost_are_covered_unless_they_are_neighbours),
        cmocka_unit_test(test_who_is_one_behind_needs_roots_and_a_close),
        cmocka_unit_test(test_a_settled_version_is_kept),
        cmocka_unit_test(test_agrees_with_asking_for_every_chunk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
