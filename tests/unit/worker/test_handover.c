/*
 * Parameter hosts change while a session runs, over real sockets: hosts are lost, join and leave;
 * chunks come from the memory of those that stand still. The result is that of the straight loop.
 */
#include <string.h>

#include "base/clock.h"

#include "tests/unit/worker/session_cluster.h"

/* `lost` (-1: nobody) is lost once `at` is there; the next attempt runs on `next` places, survivors
 * first, and the rest new. */
static void handover(struct cluster *c, uint64_t at, int lost, bool edge, int next)
{
    int order[HOSTS_MAX];
    int n = 0;
    struct err e = {0};

    cluster_threads_start(c, STEPS);
    cluster_version_wait(c, at);
    if (lost >= 0)
        cluster_lose(c, lost);
    cluster_freeze(c, edge);
    cluster_threads_join(c, true);
    for (int i = 0; i < c->places && n < next; i++)
        if (c->host[i] != NULL && i != lost)
            order[n++] = i;
    while (n < next)
        order[n++] = cluster_add(c);
    if (cluster_reopen(c, order, n, &e) != 0)
        fail_msg("%s", e.msg);
}

static void finish(struct cluster *c)
{
    cluster_run(c, STEPS);
    cluster_manifest_wait(c, &c->last_manifest);
    cluster_check(c);
    assert_int_equal(c->failed_code, 0);
    cluster_stop(c);
}

static void begin(struct cluster *c, int hosts, int threads)
{
    cluster_start(c, hosts, threads);
    c->replicate = true;
    for (int i = 0; i < hosts; i++)
        cluster_open(c, i, NULL);
}

static void test_any_host_may_be_lost_at_any_version(void **state)
{
    struct cluster c;

    (void)state;
    for (int lost = 0; lost < 3; lost++) {
        for (uint64_t at = 0; at < STEPS; at += 3) {
            begin(&c, 3, 2);
            handover(&c, at, lost, false, lost == 1 ? 4 : 2);
            finish(&c);
        }
    }
}

static void test_with_two_hosts_the_other_one_has_everything(void **state)
{
    struct cluster c;

    (void)state;
    for (int lost = 0; lost < 2; lost++) {
        begin(&c, 2, 3);
        handover(&c, 5, lost, false, 1);
        finish(&c);
    }
}

static void test_hosts_join_and_leave_at_a_step_edge(void **state)
{
    struct cluster c;

    (void)state;
    begin(&c, 1, 2);
    handover(&c, 2, -1, true, 3); /* alone, without a copy, and then three */
    handover(&c, 5, -1, true, 5);
    handover(&c, 8, -1, true, 2);
    finish(&c);
}

static void test_one_loss_after_the_other(void **state)
{
    struct cluster c;

    (void)state;
    begin(&c, 3, 3);
    handover(&c, 2, 0, false, 3);
    handover(&c, 4, 1, false, 3);
    handover(&c, 7, 3, false, 2);
    handover(&c, 9, 2, false, 1);
    finish(&c);
}

/* Attempt 2 never closes a step; attempt 3 starts from the memory of attempt 1, as attempt 2 did.
 */
static void test_a_frozen_attempt_is_there_until_it_is_closed(void **state)
{
    const int order[] = {0, 1};
    struct ps_report kept[HOSTS_MAX];
    struct cluster c;
    struct err e = {0};

    (void)state;
    begin(&c, 3, 2);
    handover(&c, 4, 2, false, 2);
    memcpy(kept, c.frozen, sizeof kept);
    c.attempt = 1; /* as if nothing had come of it */
    c.hosts = 3;
    c.order[2] = 2;
    c.attempt = 1;
    clock_sleep_ms(50);
    assert_int_equal(cluster_reopen(&c, order, 2, &e), 0);
    assert_int_equal(c.attempt, 2);
    cluster_freeze(&c, false);
    ps_host_close(c.host[0], 9, 1);
    ps_host_close(c.host[1], 9, 1);
    memcpy(c.frozen, kept, sizeof kept);
    c.attempt = 1;
    assert_int_equal(cluster_reopen(&c, order, 2, &e), ERR_NOT_FOUND);
    cluster_stop(&c);
}

/* Two neighbours lost: nobody has the chunks of the first. */
static void test_what_nobody_has_is_named(void **state)
{
    const int order[] = {2};
    struct cluster c;
    struct err e = {0};

    (void)state;
    begin(&c, 3, 2);
    cluster_run(&c, 3);
    cluster_lose(&c, 0);
    cluster_lose(&c, 1);
    cluster_freeze(&c, false);
    assert_int_equal(cluster_reopen(&c, order, 1, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.msg, "chunk 0 of version 3"));
    cluster_stop(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_host_may_be_lost_at_any_version),
        cmocka_unit_test(test_with_two_hosts_the_other_one_has_everything),
        cmocka_unit_test(test_hosts_join_and_leave_at_a_step_edge),
        cmocka_unit_test(test_one_loss_after_the_other),
        cmocka_unit_test(test_a_frozen_attempt_is_there_until_it_is_closed),
        cmocka_unit_test(test_what_nobody_has_is_named),
    };
    return cluster_main(tests, sizeof tests / sizeof tests[0]);
}
