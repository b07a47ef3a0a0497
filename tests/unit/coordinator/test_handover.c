/* Changes of parameter hosts as the scheduler decides them: losses, joins, drains, restarts. Hosts
 * are answered for by hand. */
#include "sched_fixture.h"

#include <inttypes.h>

#include "coordinator/cover.h"
#include "wire/control.h"

#define ROOTS (COVER_OWN | COVER_COPY)

static struct sched_stage *training(struct fixture *f, int workers, uint32_t threads)
{
    struct sched_stage *st = NULL;

    fixture_open(f);
    f->sched.config.replicate = true;
    f->sched.config.freeze_ms = 5000;
    f->sched.config.first_ms = 60000;
    f->sched.config.respread_ms = 1000;
    st = fixture_train(f, workers, threads);
    assert_int_equal(st->session->hosts_n, workers);
    return st;
}

static const struct sched_action *find(const struct fixture *f, enum sched_action_type type,
                                       const char *worker)
{
    for (int i = 0; i < f->acts.n; i++) {
        if (f->acts.v[i].type == type && strcmp(f->acts.v[i].worker, worker) == 0)
            return &f->acts.v[i];
    }
    return NULL;
}

static bool noted(const struct fixture *f, const char *type)
{
    for (int i = 0; i < f->acts.n; i++) {
        if (f->acts.v[i].type == SCHED_EVENT && strcmp(f->acts.v[i].text, type) == 0)
            return true;
    }
    return false;
}

static void frozen(struct fixture *f, const struct sched_stage *st, const char *worker,
                   uint64_t attempt, uint64_t version)
{
    struct sched_event ev = {.type = SCHED_SESSION_FROZEN,
                             .session = st->session->id,
                             .attempt = attempt,
                             .version = version,
                             .frozen = {.roots = ROOTS,
                                        .close_step = version - 1,
                                        .scale = .5,
                                        .rate = .01,
                                        .tokens = version}};

    snprintf(ev.worker, sizeof ev.worker, "%s", worker);
    fixture_step(f, &ev);
}

static void step(struct fixture *f, const struct sched_stage *st, uint64_t version)
{
    fixture_session(f, st, SCHED_SESSION_STATUS, st->session->attempt, version);
}

static void hello(struct fixture *f, const char *id, uint64_t session, uint64_t attempt)
{
    struct sched_event ev = {.type = SCHED_WORKER_UP,
                             .threads = 1,
                             .roles = 3,
                             .class_id = "c",
                             .session = session,
                             .attempt = attempt};

    snprintf(ev.worker, sizeof ev.worker, "%s", id);
    fixture_step(f, &ev);
}

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
    while (f->sched.workers_n > 0) { /* the new process knows nobody */
        free(f->sched.worker[0]);
        memmove(&f->sched.worker[0], &f->sched.worker[1],
                (size_t)--f->sched.workers_n * sizeof f->sched.worker[0]);
    }
    st->session->adopting = st->session->hosts_n > 0;
    if (st->session->from_attempt == 0)
        st->session->sources_n = 0;
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

/* A full disk shows when a checkpoint is written: hosting again at once would cost what was done since the last one, each time. */
static void test_a_host_that_failed_hosts_again_after_a_checkpoint(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 2, 1);
    struct sched_session *ss = st->session;
    struct sched_event full = {.type = SCHED_SESSION_FAILED,
                               .session = ss->id,
                               .attempt = 1,
                               .code = ERR_NO_SPACE,
                               .worker = "w1",
                               .text = "full"};

    (void)state;
    fixture_step(&f, &full);
    fixture_tick(&f, 500);
    assert_int_equal(ss->attempt, 2);
    assert_int_equal(ss->hosts_n, 1);
    for (uint64_t v = 1; v <= 3; v++) {
        f.now_ms += 2000;
        step(&f, st, v);
        fixture_tick(&f, 100);
        assert_int_equal(ss->change, CHANGE_NONE);
    }
    assert_ptr_equal(sched_find_worker(&f.sched, "w1")->in, st); /* it computes */
    fixture_session(&f, st, SCHED_SESSION_CHECKPOINT, 2, 3);
    f.now_ms += 2000;
    step(&f, st, 4);
    fixture_tick(&f, 100);
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
    step(&f, st, 1000);
    fixture_up(&f, "w2", 1, 3, "c");
    f.now_ms += 1100;
    step(&f, st, 1001);
    fixture_tick(&f, 100);
    assert_int_equal(ss->change, CHANGE_SPREAD);
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

/* ---- gradients that are not finite, or contradict each other too late ------------------------ */

static void failed(struct fixture *f, struct sched_stage *st, const char *worker, int code,
                   const char *text)
{
    struct sched_event ev = {.type = SCHED_SESSION_FAILED,
                             .session = st->session->id,
                             .attempt = st->session->attempt,
                             .code = code,
                             .text = text};

    snprintf(ev.worker, sizeof ev.worker, "%s", worker);
    fixture_step(f, &ev);
    fixture_tick(f, 5000);
}

static const struct sched_slot *slot_of(const struct sched_session *ss, const char *worker)
{
    for (int i = 0; i < ss->slots_n; i++) {
        if (ss->slot[i].only_step == 0 && strcmp(ss->slot[i].worker, worker) == 0)
            return &ss->slot[i];
    }
    return NULL;
}

static const char nan_text[] = "step 8, unit 2: the loss is nan";

static void test_who_alone_makes_nan_is_put_in_quarantine(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 3, 1);
    struct sched_session *ss = st->session;

    (void)state;
    step(&f, st, 7);
    failed(&f, st, "w1", ERR_NUMERIC, nan_text);
    assert_true(ss->open);
    assert_null(slot_of(ss, "w1")); /* others show whether it can be finite */
    assert_non_null(slot_of(ss, "w0"));
    step(&f, st, 7);
    assert_null(sched_quarantined(&f.sched, "w1"));
    step(&f, st, 8);
    assert_non_null(sched_quarantined(&f.sched, "w1"));
    assert_null(sched_quarantined(&f.sched, "w0"));
    assert_non_null(strstr(sched_quarantined(&f.sched, "w1")->reason, "step 8 is not finite"));
    assert_int_equal(ss->faults, 0); /* it was not the data */
    fixture_close(&f);
}

static void test_nan_of_two_workers_is_the_data(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 3, 1);

    (void)state;
    step(&f, st, 7);
    failed(&f, st, "w1", ERR_NUMERIC, nan_text);
    failed(&f, st, "w2", ERR_NUMERIC, nan_text);
    assert_non_null(slot_of(st->session, "w1"));
    failed(&f, st, "w0", ERR_NUMERIC, nan_text);
    assert_int_equal(st->state, RUN_FAILED);
    assert_int_equal(f.sched.counters.quarantined, 0);
    fixture_close(&f);
}

static void test_a_late_conflict_goes_back_and_names_both(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 3, 1);
    char text[200];

    (void)state;
    step(&f, st, 7);
    snprintf(text, sizeof text, "step 8, units [0, 1): %016" PRIx64 " and %016" PRIx64 " differ",
             control_who("w1"), control_who("w2"));
    for (int i = 0; i < 4; i++) { /* more often than a fault of the job's own would be forgiven */
        failed(&f, st, "w0", ERR_CONFLICT, text);
        assert_true(st->session->open);
    }
    assert_int_equal(f.sched.counters.disputed, 4);
    assert_int_equal(st->session->from_attempt, 0);
    fixture_close(&f);
}

/* ---- checkpoints that are damaged ------------------------------------------------------------ */

static void damaged_at(struct fixture *f, struct sched_stage *st, const char *worker, int code,
                       const char *digest)
{
    char text[200];
    struct sched_event ev = {.type = SCHED_SESSION_FAILED,
                             .session = st->session->id,
                             .attempt = st->session->attempt,
                             .code = code,
                             .text = text};

    snprintf(text, sizeof text, "parameter shard: checkpoint %s: chunk 1: damaged", digest);
    snprintf(ev.worker, sizeof ev.worker, "%s", worker);
    fixture_step(f, &ev);
}

static void damaged(struct fixture *f, struct sched_stage *st, int code, const char *digest)
{
    damaged_at(f, st, "w0", code, digest);
}

/* A process that takes a lost one's place reads what the others have long had in memory. */
static void test_who_comes_late_to_a_damaged_checkpoint_is_no_fault_of_the_job(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 2, 1);
    struct sched_session *ss = st->session;

    (void)state;
    step(&f, st, 12);
    fixture_session(&f, st, SCHED_SESSION_CHECKPOINT, 1, 10);
    damaged_at(&f, st, "w1", ERR_CORRUPT, ss->manifest.hex);
    assert_int_equal(fixture_count(&f, SCHED_MEND), 1);
    assert_int_equal(f.sched.counters.fallback, 0);
    assert_false(run_state_is_final(st->state));
    assert_int_equal(ss->faults, 0);
    fixture_close(&f);
}

static void test_a_damaged_checkpoint_is_left_for_the_one_before(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 1, 1);
    struct sched_session *ss = st->session;
    struct digest first, second;

    (void)state;
    step(&f, st, 12);
    fixture_session(&f, st, SCHED_SESSION_CHECKPOINT, 1, 5);
    first = ss->manifest;
    fixture_session(&f, st, SCHED_SESSION_CHECKPOINT, 1, 10);
    second = ss->manifest;
    assert_int_equal(ss->ckpts_n, 2);
    damaged(&f, st, ERR_CORRUPT, second.hex); /* it runs: that is not what it started from */
    assert_int_equal(f.sched.counters.fallback, 0);
    fixture_tick(&f, 2000);
    assert_int_equal(ss->start_version, 10);
    damaged(&f, st, ERR_CORRUPT, first.hex); /* another one's name */
    assert_int_equal(f.sched.counters.fallback, 0);
    fixture_tick(&f, 4000);
    damaged(&f, st, ERR_CORRUPT, second.hex);
    assert_int_equal(f.sched.counters.fallback, 1);
    assert_true(noted(&f, "session.fallback"));
    assert_int_equal(fixture_count(&f, SCHED_MEND), 1);
    fixture_tick(&f, 4000);
    assert_true(ss->open);
    assert_int_equal(ss->start_version, 5);
    damaged(&f, st, ERR_NOT_FOUND, first.hex);
    fixture_tick(&f, 4000);
    assert_int_equal(ss->start_version, 0);
    assert_string_equal(ss->manifest.hex, "");
    assert_int_equal(f.sched.counters.fallback, 2);
    assert_int_equal(st->state, RUN_RUNNING);
    fixture_close(&f);
}

static void test_the_list_of_checkpoints_is_bounded(void **state)
{
    struct fixture f;
    struct sched_stage *st = training(&f, 1, 1);
    struct sched_session *ss = st->session;

    (void)state;
    for (uint64_t v = 1; v <= SCHED_CKPTS_MAX + 3; v++)
        fixture_session(&f, st, SCHED_SESSION_CHECKPOINT, 1, v);
    assert_int_equal(ss->ckpts_n, SCHED_CKPTS_MAX);
    assert_int_equal(ss->ckpt[0].version, 4);
    assert_int_equal(ss->manifest_version, SCHED_CKPTS_MAX + 3);
    assert_string_equal(ss->manifest.hex, ss->ckpt[SCHED_CKPTS_MAX - 1].manifest.hex);
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
        cmocka_unit_test(test_after_a_restart_a_new_session_waits_for_its_workers),
        cmocka_unit_test(test_who_alone_makes_nan_is_put_in_quarantine),
        cmocka_unit_test(test_nan_of_two_workers_is_the_data),
        cmocka_unit_test(test_a_late_conflict_goes_back_and_names_both),
        cmocka_unit_test(test_a_restart_before_the_first_step_keeps_the_memory),
        cmocka_unit_test(test_a_damaged_checkpoint_is_left_for_the_one_before),
        cmocka_unit_test(test_who_comes_late_to_a_damaged_checkpoint_is_no_fault_of_the_job),
        cmocka_unit_test(test_the_list_of_checkpoints_is_bounded),
        cmocka_unit_test(test_a_host_that_failed_hosts_again_after_a_checkpoint),
        cmocka_unit_test(test_attempts_that_stepped_are_no_barren_ones),
        cmocka_unit_test(test_who_joins_after_a_restart_is_given_a_share),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
