#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/job_id.h"
#include "coordinator/roster.h"

static struct roster_actions acts;

static struct roster_worker who(const char *id, uint64_t boot)
{
    struct roster_worker w = {.boot = boot, .roles = 3, .threads = 2};

    snprintf(w.id, sizeof w.id, "%s", id);
    return w;
}

static void hello(struct roster *r, const struct roster_worker *w, uint64_t now)
{
    acts.n = 0;
    roster_step(
        r, &(struct roster_event){.type = ROSTER_HELLO, .now_ms = now, .worker = w->id, .hello = w},
        &acts);
}

static void happen(struct roster *r, enum roster_event_type type, const char *id, uint64_t now)
{
    acts.n = 0;
    roster_step(r, &(struct roster_event){.type = type, .now_ms = now, .worker = id}, &acts);
}

static void expect(enum roster_action_type type)
{
    assert_int_equal(acts.n, 1);
    assert_int_equal(acts.v[0].type, type);
}

static struct roster fresh(void)
{
    struct roster r;

    roster_init(&r, (struct roster_config){1500, 2500, 10000});
    return r;
}

static void test_silence_makes_suspect_then_lost(void **state)
{
    struct roster r = fresh();
    struct roster_worker w = who("a", 1);

    (void)state;
    hello(&r, &w, 1000);
    expect(ROSTER_IS_UP);
    happen(&r, ROSTER_TICK, "", 2499);
    assert_int_equal(acts.n, 0);
    happen(&r, ROSTER_TICK, "", 2500);
    expect(ROSTER_IS_SUSPECT);
    happen(&r, ROSTER_TICK, "", 2600); /* said once */
    assert_int_equal(acts.n, 0);
    happen(&r, ROSTER_HEARTBEAT, "a", 2700);
    expect(ROSTER_IS_OK);
    happen(&r, ROSTER_TICK, "", 5199);
    expect(ROSTER_IS_SUSPECT);
    happen(&r, ROSTER_TICK, "", 5200);
    expect(ROSTER_IS_LOST);
    assert_false(roster_is_here(roster_find(&r, "a")));
    happen(&r, ROSTER_HEARTBEAT, "a", 5300); /* it was not dead: it has to say hello */
    expect(ROSTER_UNKNOWN);
    hello(&r, &w, 5400);
    expect(ROSTER_IS_UP);
    assert_true(acts.v[0].returned);
    assert_int_equal(roster_find(&r, "a")->losses, 1);
    roster_fini(&r);
}

static void test_only_who_was_lost_and_is_the_same_process_has_returned(void **state)
{
    struct roster r = fresh();
    struct roster_worker w = who("a", 1);

    (void)state;
    hello(&r, &w, 1000);
    assert_false(acts.v[0].returned); /* it is new */
    hello(&r, &w, 1100);
    assert_false(acts.v[0].returned); /* it was never lost */
    happen(&r, ROSTER_TICK, "", 5000);
    expect(ROSTER_IS_LOST);
    w.boot = 2;
    hello(&r, &w, 5100);
    expect(ROSTER_IS_UP);
    assert_false(acts.v[0].returned); /* the process before it did die */
    happen(&r, ROSTER_BYE, "a", 5200);
    hello(&r, &w, 5300);
    expect(ROSTER_IS_UP);
    assert_false(acts.v[0].returned); /* it had said good-bye */
    roster_fini(&r);
}

static void test_a_new_process_replaces_the_old_one(void **state)
{
    struct roster r = fresh();
    struct roster_worker w = who("a", 1);

    (void)state;
    hello(&r, &w, 0);
    hello(&r, &w, 100); /* the same process again: it reconnected */
    expect(ROSTER_IS_UP);
    w.boot = 2;
    hello(&r, &w, 200);
    assert_int_equal(acts.n, 2);
    assert_int_equal(acts.v[0].type, ROSTER_IS_REPLACED);
    assert_int_equal(acts.v[1].type, ROSTER_IS_UP);
    assert_int_equal(r.n, 1);
    roster_fini(&r);
}

static void test_our_own_pause_is_not_their_silence(void **state)
{
    struct roster r = fresh();
    struct roster_worker w = who("a", 1);

    (void)state;
    hello(&r, &w, 0);
    happen(&r, ROSTER_REARM, "", 60000);
    happen(&r, ROSTER_TICK, "", 60100);
    assert_int_equal(acts.n, 0);
    roster_fini(&r);
}

static void test_draining_and_leaving(void **state)
{
    struct roster r = fresh();
    struct roster_worker w = who("a", 1);

    (void)state;
    hello(&r, &w, 0);
    happen(&r, ROSTER_DRAIN, "a", 10);
    expect(ROSTER_IS_DRAINING);
    happen(&r, ROSTER_DRAIN, "a", 20);
    assert_int_equal(acts.n, 0);
    happen(&r, ROSTER_BYE, "a", 30);
    expect(ROSTER_IS_GONE);
    happen(&r, ROSTER_BYE, "a", 40);
    assert_int_equal(acts.n, 0);
    happen(&r, ROSTER_TICK, "", 10100); /* forgotten */
    assert_null(roster_find(&r, "a"));
    roster_fini(&r);
}

static void test_nonsense_is_rejected(void **state)
{
    static const struct {
        const char *id;
        uint32_t roles, threads;
    } bad[] = {{"", 3, 1},  {"a b", 3, 1}, {"../x", 3, 1}, {"a\n", 3, 1},
               {"a", 0, 1}, {"a", 4, 1},   {"a", 3, 0},    {"a", 3, 1025}};
    struct roster r = fresh();

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct roster_worker w = who(bad[i].id, 1);

        w.roles = bad[i].roles;
        w.threads = bad[i].threads;
        hello(&r, &w, 0);
        expect(ROSTER_REJECTED);
        assert_int_equal(r.n, 0);
    }
    happen(&r, ROSTER_HEARTBEAT, "nobody", 0);
    expect(ROSTER_UNKNOWN);
    happen(&r, ROSTER_BYE, "nobody", 0);
    assert_int_equal(acts.n, 0);
    roster_fini(&r);
}

static void test_there_is_a_bound(void **state)
{
    struct roster r = fresh();
    struct roster_worker late;
    char id[16];

    (void)state;
    for (int i = 0; i <= ROSTER_WORKERS_MAX; i++) {
        struct roster_worker w;

        snprintf(id, sizeof id, "w%d", i);
        w = who(id, 1);
        hello(&r, &w, 0);
        expect(i < ROSTER_WORKERS_MAX ? ROSTER_IS_UP : ROSTER_REJECTED);
    }
    happen(&r, ROSTER_BYE, "w8", 10);
    happen(&r, ROSTER_BYE, "w7", 20);
    late = who("late", 1);
    hello(&r, &late, 30);
    expect(ROSTER_IS_UP);
    assert_null(roster_find(&r, "w8")); /* it was gone longest */
    assert_non_null(roster_find(&r, "w7"));
    late = who("w8", 1);
    hello(&r, &late, 40);
    expect(ROSTER_IS_UP);
    hello(&r, &(struct roster_worker){.id = "more", .threads = 1, .roles = 1}, 50);
    expect(ROSTER_REJECTED);
    happen(&r, ROSTER_TICK, "", 100000); /* all at once */
    assert_int_equal(acts.n, ROSTER_WORKERS_MAX);
    roster_fini(&r);
}

static void test_ids_of_jobs(void **state)
{
    static const uint64_t ids[] = {0, 1, 31, 32, 1882631933145382912u, INT64_MAX, UINT64_MAX};
    static const char *const bad[] = {"",
                                      "job_",
                                      "job_123",
                                      "job_zzzzzzzzzzzzz",
                                      "job_g000000000000",
                                      "job_0000000000u00",
                                      "jobs0000000000000",
                                      "job_00000000000000",
                                      "job_000000000000-"};
    char text[JOB_ID_TEXT], before[JOB_ID_TEXT] = "";
    uint64_t id = 0;

    (void)state;
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        job_id_format(ids[i], text);
        assert_true(strcmp(before, text) < 0); /* texts sort as numbers do */
        memcpy(before, text, sizeof before);
        assert_true(job_id_parse(text, &id));
        assert_true(id == ids[i]);
    }
    assert_true(job_id_parse("job_000000000ILo1", &id)); /* as Crockford says */
    assert_true(id == ((1u << 15) | (1u << 10) | 1u));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(job_id_parse(bad[i], &id));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_silence_makes_suspect_then_lost),
        cmocka_unit_test(test_only_who_was_lost_and_is_the_same_process_has_returned),
        cmocka_unit_test(test_a_new_process_replaces_the_old_one),
        cmocka_unit_test(test_our_own_pause_is_not_their_silence),
        cmocka_unit_test(test_draining_and_leaving),
        cmocka_unit_test(test_nonsense_is_rejected),
        cmocka_unit_test(test_there_is_a_bound),
        cmocka_unit_test(test_ids_of_jobs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
