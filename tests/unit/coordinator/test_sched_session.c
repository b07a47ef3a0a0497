/* Training sessions: who hosts and who computes, and what begins them again. */
#include "sched_fixture.h"

static void partition_check(const struct sched_stage *st)
{
    const struct sched_session *ss = st->session;
    uint32_t chunks = (uint32_t)((st->phase.session.params + st->phase.session.chunk_elems - 1) /
                                 st->phase.session.chunk_elems);

    assert_true(ss->hosts_n > 0 && ss->slots_n > 0);
    for (int i = 0; i < ss->hosts_n; i++) {
        assert_int_equal(ss->host[i].chunk_begin, i == 0 ? 0 : ss->host[i - 1].chunk_end);
        assert_true(ss->host[i].chunk_end - ss->host[i].chunk_begin >= (ss->hosts_n > 1 ? 2 : 1));
    }
    assert_int_equal(ss->host[ss->hosts_n - 1].chunk_end, chunks);
    for (int i = 0; i < ss->slots_n; i++) {
        assert_int_equal(ss->slot[i].leaf_begin, i == 0 ? 0 : ss->slot[i - 1].leaf_end);
        assert_true(ss->slot[i].leaf_end > ss->slot[i].leaf_begin);
    }
    assert_int_equal(ss->slot[ss->slots_n - 1].leaf_end, st->phase.session.units);
}

static void test_hosts_and_slots_are_partitions_for_any_fleet(void **state)
{
    (void)state;
    for (int workers = 1; workers <= 12; workers++) {
        for (uint32_t threads = 1; threads <= 5; threads += 2) {
            struct fixture f;
            struct sched_stage *st = fixture_training(&f, workers, threads);
            uint32_t most = 0, want = 0;

            partition_check(st);
            for (int i = 0; i < st->session->slots_n; i++) {
                uint32_t span = st->session->slot[i].leaf_end - st->session->slot[i].leaf_begin;

                most = span > most ? span : most;
            }
            want = (8 + (uint32_t)st->session->slots_n - 1) / (uint32_t)st->session->slots_n;
            assert_true((most + threads - 1) / threads <=
                        (want + threads - 1) /
                            threads); /* the longest share is as short as it can be */
            fixture_close(&f);
        }
    }
}

static void test_compute_workers_come_and_go_inside_an_attempt(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 2, 1);

    (void)state;
    fixture_up(&f, "extra", 1, 1, "c"); /* compute only: may join, cannot host */
    assert_int_equal(st->session->assignment, 2);
    assert_int_equal(st->session->slots_n, 3);
    assert_int_equal(fixture_count(&f, SCHED_SEND_OPEN), 1);
    assert_int_equal(fixture_count(&f, SCHED_SEND_ASSIGN), 3);
    partition_check(st);
    fixture_mark(&f, SCHED_WORKER_GONE, "extra", true);
    assert_int_equal(st->session->assignment, 3);
    assert_int_equal(st->session->attempt, 1);
    assert_int_equal(st->session->slots_n, 2);
    partition_check(st);
    fixture_close(&f);
}

static void test_a_lost_host_restarts_from_the_last_checkpoint(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 3, 1);

    (void)state;
    assert_int_equal(st->session->hosts_n, 3);
    fixture_session(&f, st, SCHED_SESSION_STATUS, 1, 7);
    assert_int_equal(st->session->version, 7);
    fixture_session(&f, st, SCHED_SESSION_CHECKPOINT, 1, 5);
    assert_int_equal(st->session->manifest_version, 5);
    fixture_mark(&f, SCHED_WORKER_GONE, "w1", true);
    assert_int_equal(st->session->attempt, 2);
    assert_int_equal(st->session->version, 5);
    assert_int_equal(st->session->hosts_n, 2);
    partition_check(st);
    fixture_session(&f, st, SCHED_SESSION_STATUS, 1, 39); /* of the attempt that is over */
    fixture_session(&f, st, SCHED_SESSION_DONE, 1, 40);
    assert_int_equal(st->session->version, 5);
    assert_int_equal(f.sched.counters.stale, 2);
    fixture_session(&f, st, SCHED_SESSION_DONE, 2, 39); /* not the last step: not done */
    assert_int_equal(st->session->open, false);
    fixture_tick(&f, 1000);
    assert_int_equal(st->session->attempt, 3);
    fixture_close(&f);
}

static void test_a_session_without_hosts_waits(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 1, 1);

    (void)state;
    fixture_mark(&f, SCHED_WORKER_GONE, "w0", false);
    assert_false(st->session->open);
    assert_int_equal(st->state, RUN_RECOVERING);
    fixture_up(&f, "c1", 1, 1, "c"); /* compute alone is not enough */
    assert_false(st->session->open);
    fixture_up(&f, "p1", 1, 2, "c");
    assert_true(st->session->open);
    assert_string_equal(st->session->host[0].worker, "p1");
    assert_string_equal(st->session->slot[0].worker, "c1");
    assert_int_equal(st->state, RUN_RUNNING);
    fixture_close(&f);
}

static void test_a_stalled_session_starts_again(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 2, 1);

    (void)state;
    fixture_tick(&f, 59000);
    assert_int_equal(st->session->attempt, 1);
    fixture_session(&f, st, SCHED_SESSION_STATUS, 1, 1);
    fixture_tick(&f, 59000);
    assert_int_equal(st->session->attempt, 1);
    fixture_tick(&f, 2000);
    fixture_tick(&f, 1000);
    assert_int_equal(st->session->attempt, 2);
    fixture_close(&f);
}

static void test_a_session_that_never_steps_fails(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 1, 1);
    struct sched_job *j = st->job;

    (void)state;
    for (int i = 0; i < 3; i++) {
        fixture_mark(&f, SCHED_WORKER_GONE, "w0", true);
        fixture_up(&f, "w0", 1, 3, "c");
    }
    assert_int_equal(st->session->attempt, 4);
    fixture_session(&f, st, SCHED_SESSION_STATUS, 4, 1); /* a step: all is forgiven */
    for (int i = 0; i < 6; i++) {
        assert_int_equal(j->state == RUN_FAILED, false);
        fixture_mark(&f, SCHED_WORKER_GONE, "w0", true);
        fixture_up(&f, "w0", 1, 3, "c");
        fixture_tick(&f, 9000);
    }
    assert_int_equal(j->state, RUN_RUNNING);
    fixture_mark(&f, SCHED_WORKER_GONE, "w0", true);
    assert_int_equal(j->state, RUN_FAILED);
    assert_non_null(strstr(j->failure.message, "6 attempts in a row"));
    fixture_close(&f);
}

static void failed(struct fixture *f, const struct sched_stage *st, const char *worker, int code)
{
    struct sched_event ev = {.type = SCHED_SESSION_FAILED,
                             .session = st->session->id,
                             .attempt = st->session->attempt,
                             .code = code,
                             .text = "because"};

    snprintf(ev.worker, sizeof ev.worker, "%s", worker);
    fixture_step(f, &ev);
}

/* It stays full until somebody makes room: neither losses nor barren attempts count. */
static void test_a_full_disk_only_makes_a_session_wait(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 1, 1);
    struct sched_session *ss = st->session;

    (void)state;
    for (int i = 0; i < 20; i++) {
        assert_true(ss->open);
        failed(&f, st, "w0", ERR_NO_SPACE);
        assert_false(ss->open);
        assert_int_equal(st->state, RUN_RECOVERING);
        if (i > 10)
            fixture_tick(&f, 29000); /* the usual most */
        assert_false(ss->open);
        fixture_tick(&f, i > 10 ? 1000 : 30000);
    }
    assert_int_equal(ss->losses, 0);
    assert_int_equal(ss->barren, 0);
    fixture_session(&f, st, SCHED_SESSION_STATUS, ss->attempt, 1);
    fixture_session(&f, st, SCHED_SESSION_CHECKPOINT, ss->attempt, 1);
    failed(&f, st, "w0", ERR_NO_SPACE); /* full again, and it was not meanwhile */
    fixture_tick(&f, 500);
    assert_true(ss->open);
    fixture_close(&f);
}

static bool is_member(const struct fixture *f, const struct sched_stage *st, const char *worker)
{
    return sched_find_worker(&f->sched, worker)->in == st;
}

/* It is the only one that leaves; when it comes back to fail again, it does so ever less often. */
static void test_a_worker_that_cannot_take_part_stops_nobody_else(void **state)
{
    static const int codes[] = {ERR_NO_SPACE, ERR_SYSTEM, ERR_UNREACHABLE};

    (void)state;
    for (size_t k = 0; k < sizeof codes / sizeof codes[0]; k++) {
        struct fixture f;
        struct sched_stage *st = fixture_training(&f, 2, 1);
        struct sched_session *ss = st->session;

        fixture_up(&f, "bad", 1, 1, "c"); /* compute only */
        for (uint64_t i = 1; i <= 7; i++) {
            assert_true(is_member(&f, st, "bad"));
            failed(&f, st, "bad", codes[k]);
            assert_true(ss->open);
            assert_int_equal(ss->attempt, 1);
            assert_int_equal(ss->slots_n, 2);
            partition_check(st);
            failed(&f, st, "bad", codes[k]); /* said twice */
            assert_true(ss->open);
            fixture_session(&f, st, SCHED_SESSION_STATUS, 1, i);
            fixture_tick(&f, i > 5 ? 29000 : 900);
            assert_false(is_member(&f, st, "bad"));
            fixture_tick(&f, 31000);
        }
        assert_int_equal(st->job->state, RUN_RUNNING);
        assert_int_equal(ss->losses, 0);
        assert_int_equal(f.sched.counters.rolled_back, 0);
        fixture_session(&f, st, SCHED_SESSION_CHECKPOINT, 1, 8); /* it takes part: all is well */
        failed(&f, st, "bad", codes[k]);
        fixture_tick(&f, 1100);
        assert_true(is_member(&f, st, "bad"));
        fixture_close(&f);
    }
}

/* The attempt ends, because a host is needed; the next one is without it. */
static void test_a_host_that_cannot_take_part_is_done_without(void **state)
{
    static const int codes[] = {ERR_NO_SPACE, ERR_SYSTEM};

    (void)state;
    for (size_t k = 0; k < sizeof codes / sizeof codes[0]; k++) {
        struct fixture f;
        struct sched_stage *st = fixture_training(&f, 3, 1);
        struct sched_session *ss = st->session;

        assert_int_equal(ss->hosts_n, 3);
        for (uint64_t i = 1; i <= 7; i++) {
            failed(&f, st, "w1", codes[k]);
            fixture_tick(&f, 500);
            assert_true(ss->open);
            assert_int_equal(ss->attempt, 2);
            assert_int_equal(ss->hosts_n, 2);
            assert_string_equal(ss->host[0].worker, "w0");
            assert_string_equal(ss->host[1].worker, "w2");
            fixture_session(&f, st, SCHED_SESSION_STATUS, 2, i);
            fixture_tick(&f, 60000); /* it comes back, to compute */
            assert_true(is_member(&f, st, "w1"));
        }
        assert_int_equal(st->job->state, RUN_RUNNING);
        assert_int_equal(f.sched.counters.rolled_back, 1);
        fixture_close(&f);
    }
}

/* Who sits out is taken in all the same when nobody else can host, or compute. */
static void test_who_sits_out_serves_where_nobody_else_can(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 1, 1);
    struct sched_session *ss = st->session;

    (void)state;
    fixture_up(&f, "c1", 1, 1, "c"); /* compute only */
    failed(&f, st, "w0", ERR_SYSTEM);
    assert_false(ss->open);
    fixture_tick(&f, 500);
    assert_true(ss->open);
    assert_string_equal(ss->host[0].worker, "w0");
    fixture_mark(&f, SCHED_WORKER_GONE, "w0", false);
    fixture_up(&f, "p1", 1, 2, "c"); /* hosts only */
    assert_true(ss->open);
    failed(&f, st, "c1", ERR_SYSTEM); /* the only one that computes */
    assert_false(ss->open);
    fixture_tick(&f, 500);
    assert_true(ss->open);
    assert_true(is_member(&f, st, "c1"));
    fixture_close(&f);
}

static void test_two_sessions_share_no_worker(void **state)
{
    struct fixture f;
    struct sched_job *b = NULL;
    struct sched_stage *st = fixture_training(&f, 2, 4), *other = NULL;

    (void)state;
    b = fixture_submit(&f, fixture_smoke());
    fixture_up(&f, "w9", 8, 3,
               "c"); /* the first has all the threads it can use: this one serves the second */
    other = fixture_stage(b, "attribute-model");
    fixture_done(&f, &b->stage[0].task[0], 1);
    fixture_done(&f, &other->task[0], 1);
    assert_true(other->session->open);
    assert_int_equal(other->session->hosts_n, 1);
    assert_string_equal(other->session->host[0].worker, "w9");
    assert_int_equal(st->session->slots_n, 2);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hosts_and_slots_are_partitions_for_any_fleet),
        cmocka_unit_test(test_compute_workers_come_and_go_inside_an_attempt),
        cmocka_unit_test(test_a_lost_host_restarts_from_the_last_checkpoint),
        cmocka_unit_test(test_a_session_without_hosts_waits),
        cmocka_unit_test(test_a_stalled_session_starts_again),
        cmocka_unit_test(test_a_session_that_never_steps_fails),
        cmocka_unit_test(test_a_full_disk_only_makes_a_session_wait),
        cmocka_unit_test(test_a_worker_that_cannot_take_part_stops_nobody_else),
        cmocka_unit_test(test_a_host_that_cannot_take_part_is_done_without),
        cmocka_unit_test(test_who_sits_out_serves_where_nobody_else_can),
        cmocka_unit_test(test_two_sessions_share_no_worker),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
