/* Changes of parameter hosts as the scheduler decides them: losses, joins, drains, restarts. Hosts
 * are answered for by hand. */
#include "handover_fixture.h"

static void test_a_lost_host_is_taken_over_from_memory(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 3, 1);
    struct sched_session *ss = st->session;

    (void)state;
    step(&f, st, 7);
    fixture_session(&f, st, SCHED_SESSION_CHECKPOINT, 1, 5);
    fixture_mark(&f, SCHED_WORKER_GONE, "w1", true);
    assert_int_equal(ss->change, CHANGE_LOSS);
    assert_int_equal(fixture_count(&f, SCHED_SEND_FREEZE), 2);
    assert_true(find(&f, SCHED_SEND_FREEZE, "w0")->value == 0);
    fixture_tick(&f, 1000); /* asked again */
    assert_int_equal(fixture_count(&f, SCHED_SEND_FREEZE), 2);
    frozen(&f, st, "w0", 1, 9);
    assert_true(ss->open && ss->attempt == 1);
    fixture_tick(&f, 1000); /* only the one who has not answered */
    assert_int_equal(fixture_count(&f, SCHED_SEND_FREEZE), 1);
    frozen(&f, st, "w2", 1, 8);
    assert_true(noted(&f, "session.promote"));
    assert_int_equal(ss->attempt, 2);
    assert_int_equal(ss->from_attempt, 1);
    assert_int_equal(ss->start_version, 9);
    assert_int_equal(ss->start.close_step, 8);
    assert_int_equal(ss->sources_n, 2);
    assert_int_equal(ss->hosts_n, 2);
    assert_int_equal(fixture_count(&f, SCHED_SEND_OPEN), 2);
    assert_int_equal(st->state, RUN_RUNNING);
    assert_int_equal(f.sched.counters.promoted, 1);
    assert_int_equal(f.sched.counters.rolled_back, 0);
    step(&f, st, 9); /* nothing closed yet */
    assert_int_equal(ss->from_attempt, 1);
    step(&f, st, 10);
    assert_int_equal(ss->from_attempt, 0);
    assert_int_equal(find(&f, SCHED_SEND_CLOSE, "w0")->epoch, 1);
    assert_int_equal(find(&f, SCHED_SEND_CLOSE, "w2")->epoch, 1);
    fixture_close(&f);
}

static void test_neighbours_lost_together_roll_back(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 3, 1);
    struct sched_session *ss = st->session;

    (void)state;
    step(&f, st, 7);
    fixture_session(&f, st, SCHED_SESSION_CHECKPOINT, 1, 5);
    fixture_mark(&f, SCHED_WORKER_GONE, "w1", true);
    fixture_mark(&f, SCHED_WORKER_GONE, "w2", true);
    frozen(&f, st, "w0", 1, 8);
    assert_true(noted(&f, "session.recover"));
    assert_int_equal(f.sched.counters.rolled_back, 1);
    assert_int_equal(f.sched.counters.promoted, 0);
    fixture_tick(&f, 100);
    assert_int_equal(ss->attempt, 2);
    assert_int_equal(ss->from_attempt, 0);
    assert_int_equal(ss->start_version, 5);
    fixture_close(&f);
}

static void test_before_the_first_step_it_starts_again(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 3, 1);

    (void)state;
    fixture_mark(&f, SCHED_WORKER_GONE, "w1", true);
    assert_int_equal(fixture_count(&f, SCHED_SEND_FREEZE), 0);
    assert_int_equal(st->session->attempt, 2);
    assert_int_equal(st->session->start_version, 0);
    fixture_close(&f);
}

static void test_who_does_not_answer_is_done_without(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 4, 1);

    (void)state;
    step(&f, st, 7);
    fixture_mark(&f, SCHED_WORKER_GONE, "w0", true);
    frozen(&f, st, "w1", 1, 8); /* has the copy of w0 */
    frozen(&f, st, "w3", 1, 8); /* has the copy of w2, which is silent */
    fixture_tick(&f, 4900);
    assert_int_equal(st->session->attempt, 1);
    fixture_tick(&f, 200);
    assert_int_equal(st->session->attempt, 2);
    assert_int_equal(st->session->from_attempt, 1);
    assert_int_equal(st->session->sources_n, 2);
    fixture_close(&f);
}

static void test_nobody_answers_rolls_back(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 3, 1);

    (void)state;
    step(&f, st, 7);
    fixture_mark(&f, SCHED_WORKER_GONE, "w0", true);
    fixture_tick(&f, 5000);
    assert_int_equal(f.sched.counters.rolled_back, 1);
    assert_int_equal(st->session->start_version, 0);
    fixture_close(&f);
}

static void test_a_second_loss_plans_again_from_the_same_memory(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 4, 1);
    struct sched_session *ss = st->session;

    (void)state;
    step(&f, st, 7);
    fixture_mark(&f, SCHED_WORKER_GONE, "w0", true);
    frozen(&f, st, "w1", 1, 9);
    frozen(&f, st, "w2", 1, 8);
    frozen(&f, st, "w3", 1, 8);
    assert_int_equal(ss->attempt, 2);
    assert_int_equal(ss->hosts_n, 3);
    fixture_mark(&f, SCHED_WORKER_GONE, "w2", true); /* w3 has its copy; no neighbour of w0 */
    assert_int_equal(ss->attempt, 3);
    assert_int_equal(ss->from_attempt, 1);
    assert_int_equal(ss->start_version, 9);
    assert_int_equal(ss->hosts_n, 2);
    fixture_mark(&f, SCHED_WORKER_GONE, "w3", true); /* that was the last copy of w2's */
    assert_int_equal(ss->from_attempt, 0);
    assert_int_equal(f.sched.counters.promoted, 2);
    assert_int_equal(f.sched.counters.rolled_back, 1);
    fixture_close(&f);
}

static void test_no_step_on_the_new_hosts_rolls_back(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 2, 1);

    (void)state;
    f.sched.config.first_ms = 20000;
    step(&f, st, 7);
    fixture_mark(&f, SCHED_WORKER_GONE, "w1", true);
    frozen(&f, st, "w0", 1, 8);
    assert_int_equal(st->session->attempt, 2);
    assert_int_equal(st->session->hosts_n, 1);
    assert_false(st->session->replicated);
    fixture_tick(&f, 19000);
    assert_int_equal(f.sched.counters.rolled_back, 0);
    assert_true(fixture_count(&f, SCHED_SEND_OPEN) > 0); /* said again */
    fixture_tick(&f, 1100);
    assert_int_equal(f.sched.counters.rolled_back, 1);
    fixture_close(&f);
}

static void test_a_joiner_is_given_its_share_at_the_edge(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 2, 1);
    struct sched_session *ss = st->session;

    (void)state;
    fixture_up(&f, "w2", 1, 3, "c");
    assert_int_equal(ss->change, CHANGE_NONE); /* not before a step is closed */
    f.now_ms += 900;
    step(&f, st, 1);
    assert_int_equal(ss->change, CHANGE_NONE); /* not so soon */
    fixture_tick(&f, 200);
    assert_int_equal(ss->change, CHANGE_SPREAD);
    assert_int_equal(fixture_count(&f, SCHED_SEND_FREEZE), 1);
    assert_true(find(&f, SCHED_SEND_FREEZE, "w0")->value > 0);
    frozen(&f, st, "w0", 1, 2);
    frozen(&f, st, "w1", 1, 2);
    assert_true(noted(&f, "session.respread"));
    assert_int_equal(ss->hosts_n, 3);
    assert_int_equal(f.sched.counters.respread, 1);
    assert_int_equal(fixture_count(&f, SCHED_SEND_OPEN), 3);
    step(&f, st, 3);
    fixture_up(&f, "w3", 1, 3, "c");
    fixture_tick(&f, 500);
    assert_int_equal(ss->change, CHANGE_NONE); /* again not so soon */
    step(&f, st, st->phase.session.steps - 5);
    fixture_tick(&f, 5000);
    assert_int_equal(ss->change, CHANGE_NONE); /* nearly over */
    fixture_close(&f);
}

static void test_an_edge_that_does_not_come_is_not_awaited(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 2, 1);

    (void)state;
    step(&f, st, 1);
    fixture_mark(&f, SCHED_WORKER_DRAIN, "w0", false);
    assert_int_equal(st->session->change, CHANGE_SPREAD);
    fixture_tick(&f, 5100);
    assert_int_equal(fixture_count(&f, SCHED_SEND_FREEZE), 2);
    assert_true(find(&f, SCHED_SEND_FREEZE, "w0")->value == 0);
    frozen(&f, st, "w1", 1, 1);
    frozen(&f, st, "w0", 1, 1);
    assert_int_equal(st->session->attempt, 2);
    fixture_close(&f);
}

static void test_a_drained_host_leaves_when_others_hold_what_it_held(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 2, 1);
    struct sched_session *ss = st->session;

    (void)state;
    step(&f, st, 1);
    fixture_mark(&f, SCHED_WORKER_DRAIN, "w0", false);
    assert_int_equal(fixture_count(&f, SCHED_SEND_CLOSE), 0);
    frozen(&f, st, "w0", 1, 2);
    frozen(&f, st, "w1", 1, 2);
    assert_int_equal(ss->hosts_n, 1);
    assert_string_equal(ss->host[0].worker, "w1");
    assert_non_null(find(&f, SCHED_SEND_OPEN, "w0")); /* it is a source */
    assert_ptr_equal(sched_find_worker(&f.sched, "w0")->in, st);
    step(&f, st, 3);
    assert_null(sched_find_worker(&f.sched, "w0")->in);
    assert_int_equal(f.acts.v[0].type == SCHED_SAVE_STAGE, true);
    assert_int_equal(f.sched.counters.rolled_back, 0);
    fixture_mark(&f, SCHED_WORKER_GONE, "w0", false);
    assert_int_equal(ss->attempt, 2);
    fixture_close(&f);
}

static void test_the_only_host_drains_and_nobody_is_there(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 1, 1);

    (void)state;
    step(&f, st, 1);
    fixture_mark(&f, SCHED_WORKER_DRAIN, "w0", false);
    assert_false(st->session->open);
    assert_non_null(find(&f, SCHED_SEND_CLOSE, "w0"));
    assert_int_equal(st->state, RUN_RECOVERING);
    fixture_close(&f);
}

static void test_frozen_of_another_attempt_is_stale(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 2, 1);

    (void)state;
    step(&f, st, 7);
    frozen(&f, st, "w0", 1, 7); /* nobody has asked */
    assert_int_equal(f.sched.counters.stale, 1);
    fixture_mark(&f, SCHED_WORKER_GONE, "w1", true);
    frozen(&f, st, "w0", 2, 7);
    frozen(&f, st, "w1", 1, 7); /* it is gone */
    assert_int_equal(f.sched.counters.stale, 3);
    assert_int_equal(st->session->attempt, 1);
    fixture_close(&f);
}

/* ---- restarts: the row is written, and read into a session as a new process would ------------ */

static void restart(struct fixture *f, struct sched_stage *st)
{
    struct sched_session *ss = st->session;

    while (f->sched.workers_n > 0) { /* the new process knows nobody */
        free(f->sched.worker[0]);
        memmove(&f->sched.worker[0], &f->sched.worker[1],
                (size_t)--f->sched.workers_n * sizeof f->sched.worker[0]);
    }
    ss->version =
        ss->manifest_version > ss->start_version ? ss->manifest_version : ss->start_version;
    ss->adopting = ss->hosts_n > 0;
    if (ss->from_attempt == 0)
        ss->sources_n = 0;
    sched_restored(&f->sched, f->now_ms);
}

static void test_after_a_restart_a_missing_host_is_done_without(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 3, 1);
    struct sched_session *ss = st->session;

    (void)state;
    step(&f, st, 7);
    restart(&f, st);
    hello(&f, "w0", ss->id, 1);
    hello(&f, "w2", ss->id, 1);
    assert_true(ss->adopting);
    fixture_tick(&f, 6000);
    assert_false(ss->adopting);
    assert_int_equal(ss->change, CHANGE_LOSS);
    frozen(&f, st, "w0", 1, 9);
    frozen(&f, st, "w2", 1, 9);
    assert_int_equal(ss->attempt, 2);
    assert_int_equal(ss->start_version, 9);
    assert_int_equal(f.sched.counters.rolled_back, 0);
    fixture_close(&f);
}

static void test_after_a_restart_a_new_process_is_noticed_at_once(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 3, 1);
    struct sched_session *ss = st->session;

    (void)state;
    step(&f, st, 7);
    restart(&f, st);
    hello(&f, "w0", ss->id, 1);
    hello(&f, "w1", 0, 0);
    hello(&f, "w2", ss->id, 1);
    assert_int_equal(ss->change, CHANGE_LOSS);
    frozen(&f, st, "w0", 1, 9);
    frozen(&f, st, "w2", 1, 9);
    assert_int_equal(ss->attempt, 2);
    assert_int_equal(ss->hosts_n, 3); /* the new process may host again */
    fixture_close(&f);
}

/* A gap of the coordinator's own right after its start is none of the hosts' silence. */
static void test_a_gap_after_a_restart_does_not_count_as_silence_of_the_hosts(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 3, 1);
    struct sched_session *ss = st->session;

    (void)state;
    step(&f, st, 7);
    restart(&f, st);
    f.now_ms = 60000;
    sched_renew(&f.sched, f.now_ms);
    fixture_tick(&f, 100);
    assert_true(ss->adopting);
    hello(&f, "w0", ss->id, 1);
    hello(&f, "w1", ss->id, 1);
    hello(&f, "w2", ss->id, 1);
    assert_true(ss->open);
    assert_int_equal(ss->attempt, 1);
    assert_int_equal(f.sched.counters.adopted, 1);
    assert_int_equal(f.sched.counters.rolled_back, 0);
    fixture_close(&f);
}

static void test_a_restart_while_hosts_freeze_asks_again(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 3, 1);
    struct sched_session *ss = st->session;

    (void)state;
    step(&f, st, 7);
    fixture_mark(&f, SCHED_WORKER_GONE, "w1", true);
    frozen(&f, st, "w0", 1, 8);
    restart(&f, st);
    hello(&f, "w0", ss->id, 1);
    hello(&f, "w2", ss->id, 1);
    assert_int_equal(ss->change, CHANGE_LOSS);
    assert_int_equal(fixture_count(&f, SCHED_SEND_FREEZE), 2);
    frozen(&f, st, "w0", 1, 8);
    frozen(&f, st, "w2", 1, 8);
    assert_int_equal(ss->attempt, 2);
    assert_int_equal(f.sched.counters.rolled_back, 0);
    fixture_close(&f);
}

static void test_a_restart_before_the_first_step_keeps_the_memory(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 3, 1);
    struct sched_session *ss = st->session;

    (void)state;
    step(&f, st, 7);
    fixture_mark(&f, SCHED_WORKER_GONE, "w1", true);
    frozen(&f, st, "w0", 1, 8);
    frozen(&f, st, "w2", 1, 8);
    assert_int_equal(ss->attempt, 2);
    restart(&f, st);
    hello(&f, "w0", ss->id, 1); /* has not heard of attempt 2 */
    assert_null(find(&f, SCHED_SEND_CLOSE, "w0"));
    hello(&f, "w2", ss->id, 2);
    assert_true(ss->open);
    assert_int_equal(ss->attempt, 2);
    assert_non_null(find(&f, SCHED_SEND_OPEN, "w0"));
    fixture_mark(&f, SCHED_WORKER_GONE, "w2", true); /* w0 has all: its own and the copy of w2 */
    assert_int_equal(ss->attempt, 3);                /* but w1's own chunks were w2's to keep */
    assert_int_equal(ss->from_attempt, 0);
    fixture_close(&f);
}

static void full(struct fixture *f, const struct sched_stage *st, const char *worker)
{
    struct sched_event ev = {.type = SCHED_SESSION_FAILED,
                             .session = st->session->id,
                             .attempt = st->session->attempt,
                             .code = ERR_NO_SPACE,
                             .text = "full"};

    snprintf(ev.worker, sizeof ev.worker, "%s", worker);
    fixture_step(f, &ev);
}

/* A step that is closed after a while, so that a change of hosts would be worth it. */
static void slow_step(struct fixture *f, const struct sched_stage *st, uint64_t version)
{
    f->now_ms += 2000;
    step(f, st, version);
    fixture_tick(f, 100);
}

/* A full disk shows when a checkpoint is written: hosting again at once would cost what was done since the last one, each time. */
static void test_a_host_that_failed_hosts_again_after_a_checkpoint(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 2, 1);
    struct sched_session *ss = st->session;

    (void)state;
    full(&f, st, "w1");
    fixture_tick(&f, 500);
    assert_int_equal(ss->attempt, 2);
    assert_int_equal(ss->hosts_n, 1);
    for (uint64_t v = 1; v <= 3; v++) {
        slow_step(&f, st, v);
        assert_int_equal(ss->change, CHANGE_NONE);
    }
    assert_ptr_equal(sched_find_worker(&f.sched, "w1")->in, st); /* it computes */
    fixture_session(&f, st, SCHED_SESSION_CHECKPOINT, 2, 3);
    slow_step(&f, st, 4);
    assert_int_equal(ss->change, CHANGE_SPREAD);
    fixture_close(&f);
}

/* Checkpoints that others write are no sign that its own disk has room. */
static void test_a_host_that_fails_again_waits_for_twice_as_many_checkpoints(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 2, 1);
    struct sched_session *ss = st->session;

    (void)state;
    full(&f, st, "w1");
    fixture_tick(&f, 500);
    slow_step(&f, st, 1);
    slow_step(&f, st, 2);
    fixture_session(&f, st, SCHED_SESSION_CHECKPOINT, 2, 1);
    fixture_session(&f, st, SCHED_SESSION_CHECKPOINT, 2, 2);
    slow_step(&f, st, 3);
    assert_int_equal(ss->change, CHANGE_SPREAD);
    frozen(&f, st, "w0", 2, 4);
    assert_int_equal(ss->hosts_n, 2);
    full(&f, st, "w1");
    assert_int_equal(sched_find_worker(&f.sched, "w1")->hosts_after, 2);
    fixture_tick(&f, 1000);
    assert_true(ss->open);
    sched_find_worker(&f.sched, "w1")->hosts_after = 0;
    fixture_tick(&f, 10000);
    slow_step(&f, st, ss->version + 1);
    assert_int_equal(ss->change, CHANGE_SPREAD);
    frozen(&f, st, "w0", ss->attempt, ss->version);
    assert_int_equal(ss->hosts_n, 2);
    fixture_session(&f, st, SCHED_SESSION_CHECKPOINT, ss->attempt, ss->version);
    full(&f, st, "w1"); /* it has hosted meanwhile: that counts anew */
    assert_int_equal(sched_find_worker(&f.sched, "w1")->hosts_after, 1);
    fixture_close(&f);
}

/* Nobody gives it a part meanwhile, which is no reason to wait for ever. */
static void test_a_host_that_does_not_compute_hosts_again_after_a_checkpoint(void **state)
{
    struct fixture f;
    struct sched_stage *st = NULL;
    struct sched_session *ss = NULL;

    (void)state;
    fixture_open(&f);
    f.sched.config.replicate = true;
    f.sched.config.respread_ms = 1000;
    fixture_submit(&f, fixture_smoke());
    fixture_up(&f, "c1", 1, 1, "c");
    fixture_up(&f, "p1", 1, 2, "c");
    fixture_up(&f, "p2", 1, 2, "c");
    st = fixture_reach_training(&f);
    ss = st->session;
    assert_int_equal(ss->hosts_n, 2);
    full(&f, st, "p1");
    fixture_tick(&f, 500);
    assert_int_equal(ss->attempt, 2);
    assert_int_equal(ss->hosts_n, 1);
    assert_null(sched_find_worker(&f.sched, "p1")->in);
    slow_step(&f, st, 1);
    slow_step(&f, st, 2);
    assert_int_equal(ss->change, CHANGE_NONE);
    fixture_session(&f, st, SCHED_SESSION_CHECKPOINT, 2, 2);
    slow_step(&f, st, 3);
    assert_int_equal(ss->change, CHANGE_SPREAD);
    fixture_close(&f);
}

/* Attempts without a step count in a row only: one that goes on from memory has closed some before. */
static void test_attempts_that_stepped_are_no_barren_ones(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 2, 1);
    struct sched_session *ss = st->session;

    (void)state;
    ss->barren = 3;
    step(&f, st, 5);
    fixture_mark(&f, SCHED_WORKER_GONE, "w1", true);
    frozen(&f, st, "w0", 1, 6);
    assert_int_equal(ss->attempt, 2);
    assert_int_equal(ss->barren, 0);
    fixture_close(&f);
}

/* Hosts that say where they are, and a step of 1.1 s later. */
static void a_joiner_is_given_a_share(struct fixture *f, struct sched_stage *st, uint64_t version)
{
    step(f, st, version);
    fixture_up(f, "w2", 1, 3, "c");
    fixture_tick(f, 1000);
    assert_int_equal(st->session->change, CHANGE_NONE); /* nobody knows yet what a step takes */
    f->now_ms += 100;
    step(f, st, version + 1);
    fixture_tick(f, 100);
    assert_int_equal(st->session->change, CHANGE_SPREAD);
}

/* What a step takes is not what it would be if all before had been done since the restart. */
static void test_who_joins_after_a_restart_is_given_a_share(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 2, 1);
    struct sched_session *ss = st->session;

    (void)state;
    st->phase.session.steps = 2000;
    step(&f, st, 1000);
    restart(&f, st);
    hello(&f, "w0", ss->id, 1);
    hello(&f, "w1", ss->id, 1);
    assert_true(ss->open);
    a_joiner_is_given_a_share(&f, st, 1000);
    fixture_close(&f);
}

/* The same of steps that were done while the coordinator stood still. */
static void test_who_joins_after_a_gap_is_given_a_share(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 2, 1);

    (void)state;
    st->phase.session.steps = 2000;
    step(&f, st, 10);
    f.now_ms += 60000;
    sched_renew(&f.sched, f.now_ms);
    a_joiner_is_given_a_share(&f, st, 1000);
    fixture_close(&f);
}

/* It may have missed anything: where units are its own, most of all. */
static void test_a_member_that_says_hello_is_told_its_units(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 3, 1);
    struct sched_session *ss = st->session;

    (void)state;
    step(&f, st, 7);
    hello(&f, "w1", ss->id, ss->attempt);
    assert_int_equal(ss->attempt, 1);
    assert_non_null(find(&f, SCHED_SEND_ASSIGN, "w1"));
    assert_null(find(&f, SCHED_SEND_OPEN, "w1"));
    fixture_close(&f);
}

/* It has ended there and was told to leave here: joining again would leave its units undone. */
static void test_a_member_that_failed_and_missed_its_close_is_told_again(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 2, 1);
    struct sched_session *ss = st->session;

    (void)state;
    fixture_up(&f, "w3", 1, 1, "c");
    assert_ptr_equal(sched_find_worker(&f.sched, "w3")->in, st);
    step(&f, st, 7);
    full(&f, st, "w3");
    assert_int_equal(ss->attempt, 1);
    assert_null(sched_find_worker(&f.sched, "w3")->in);
    hello(&f, "w3", ss->id, ss->attempt);
    assert_int_equal(find(&f, SCHED_SEND_CLOSE, "w3")->epoch, 1);
    assert_null(sched_find_worker(&f.sched, "w3")->in);
    assert_null(find(&f, SCHED_SEND_ASSIGN, "w3"));
    fixture_tick(&f, 1100); /* it is taken in anew */
    assert_non_null(find(&f, SCHED_SEND_OPEN, "w3"));
    fixture_close(&f);
}

/* Or it would keep twice what a host needs until the next attempt. */
static void test_a_source_that_missed_to_forget_is_told_again(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 3, 1);
    struct sched_session *ss = st->session;

    (void)state;
    step(&f, st, 7);
    hello(&f, "w0", ss->id, 1);
    assert_null(find(&f, SCHED_SEND_CLOSE, "w0")); /* there was none before */
    fixture_mark(&f, SCHED_WORKER_GONE, "w1", true);
    frozen(&f, st, "w0", 1, 8);
    frozen(&f, st, "w2", 1, 8);
    assert_int_equal(ss->attempt, 2);
    hello(&f, "w0", ss->id, 2);
    assert_null(find(&f, SCHED_SEND_CLOSE, "w0")); /* it is needed */
    step(&f, st, 9);
    assert_int_equal(ss->from_attempt, 0);
    hello(&f, "w0", ss->id, 2);
    assert_int_equal(find(&f, SCHED_SEND_CLOSE, "w0")->number, ss->id);
    assert_int_equal(find(&f, SCHED_SEND_CLOSE, "w0")->epoch, 1);
    assert_ptr_equal(sched_find_worker(&f.sched, "w0")->in, st);
    restart(&f, st); /* with us, after it was written and before it was said */
    hello(&f, "w0", ss->id, 2);
    assert_int_equal(find(&f, SCHED_SEND_CLOSE, "w0")->epoch, 1);
    fixture_close(&f);
}

/* Whoever comes first would have it all to himself, and the others would have to be taken in one by one. */
static void test_after_a_restart_a_new_session_waits_for_its_workers(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 2, 1);
    struct sched_session *ss = st->session;

    (void)state;
    step(&f, st, 7);
    fixture_mark(&f, SCHED_WORKER_GONE, "w0", true);
    fixture_mark(&f, SCHED_WORKER_GONE, "w1", true);
    assert_false(ss->open);
    fixture_tick(&f, 10000);
    restart(&f, st);
    ss->adopting = false; /* there was no host */
    hello(&f, "w0", 0, 0);
    fixture_tick(&f, 1400);
    assert_false(ss->open);
    hello(&f, "w1", 0, 0);
    assert_false(ss->open);
    fixture_tick(&f, 200);
    assert_true(ss->open);
    assert_int_equal(ss->hosts_n, 2);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lost_host_is_taken_over_from_memory),
        cmocka_unit_test(test_neighbours_lost_together_roll_back),
        cmocka_unit_test(test_before_the_first_step_it_starts_again),
        cmocka_unit_test(test_who_does_not_answer_is_done_without),
        cmocka_unit_test(test_nobody_answers_rolls_back),
        cmocka_unit_test(test_a_second_loss_plans_again_from_the_same_memory),
        cmocka_unit_test(test_no_step_on_the_new_hosts_rolls_back),
        cmocka_unit_test(test_a_joiner_is_given_its_share_at_the_edge),
        cmocka_unit_test(test_an_edge_that_does_not_come_is_not_awaited),
        cmocka_unit_test(test_a_drained_host_leaves_when_others_hold_what_it_held),
        cmocka_unit_test(test_the_only_host_drains_and_nobody_is_there),
        cmocka_unit_test(test_frozen_of_another_attempt_is_stale),
        cmocka_unit_test(test_after_a_restart_a_missing_host_is_done_without),
        cmocka_unit_test(test_after_a_restart_a_new_process_is_noticed_at_once),
        cmocka_unit_test(test_a_gap_after_a_restart_does_not_count_as_silence_of_the_hosts),
        cmocka_unit_test(test_a_restart_while_hosts_freeze_asks_again),
        cmocka_unit_test(test_a_member_that_says_hello_is_told_its_units),
        cmocka_unit_test(test_a_member_that_failed_and_missed_its_close_is_told_again),
        cmocka_unit_test(test_a_source_that_missed_to_forget_is_told_again),
        cmocka_unit_test(test_after_a_restart_a_new_session_waits_for_its_workers),
        cmocka_unit_test(test_a_restart_before_the_first_step_keeps_the_memory),
        cmocka_unit_test(test_a_host_that_failed_hosts_again_after_a_checkpoint),
        cmocka_unit_test(test_a_host_that_fails_again_waits_for_twice_as_many_checkpoints),
        cmocka_unit_test(test_a_host_that_does_not_compute_hosts_again_after_a_checkpoint),
        cmocka_unit_test(test_attempts_that_stepped_are_no_barren_ones),
        cmocka_unit_test(test_who_joins_after_a_restart_is_given_a_share),
        cmocka_unit_test(test_who_joins_after_a_gap_is_given_a_share),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
