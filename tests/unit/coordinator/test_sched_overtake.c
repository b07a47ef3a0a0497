/* Hung and slow workers: ranges are leased a second time, units of a step go to others. */
#include "coordinator/sched_inner.h"
#include "sched_fixture.h"
#include "wire/control.h"

static void late_done(struct fixture *f, uint64_t task, const char *worker, uint64_t epoch)
{
    struct sched_event ev = {
        .type = SCHED_TASK_DONE, .task = task, .epoch = epoch, .result = fixture_result()};

    snprintf(ev.worker, sizeof ev.worker, "%s", worker);
    fixture_step(f, &ev);
}

static void shadow_done(struct fixture *f, const struct sched_task *t)
{
    late_done(f, t->id, t->shadow.worker, t->shadow.epoch);
}

/* A heartbeat of `worker` with one lease. */
static void beat(struct fixture *f, const char *worker, uint64_t task, uint64_t epoch,
                 uint64_t moved)
{
    struct sched_lease lease = {task, epoch, 0, 0, moved};
    struct sched_event ev = {
        .type = SCHED_HEARTBEAT, .lease = &lease, .leases_n = 1, .progress_ms = f->now_ms};

    snprintf(ev.worker, sizeof ev.worker, "%s", worker);
    fixture_step(f, &ev);
}

static void test_a_hung_range_is_leased_a_second_time_and_counts_once(void **state)
{
    struct fixture f;
    struct sched_job *j = fixture_started(&f);
    struct sched_task *t = NULL;

    (void)state;
    fixture_up(&f, "b", 1, 3, "c");
    t = &j->stage[0].task[0];
    assert_string_equal(t->worker, "a");
    for (int i = 0; i < 20; i++) { /* it moves */
        f.now_ms += 500;
        beat(&f, "a", t->id, 1, (uint64_t)i + 1);
        fixture_tick(&f, 1);
    }
    assert_int_equal(t->shadow.epoch, 0);
    for (int i = 0; i < 13 && t->shadow.epoch == 0; i++) { /* it beats, but the thread stands */
        f.now_ms += 500;
        beat(&f, "a", t->id, 1, 20);
        fixture_tick(&f, 1);
        assert_true(i >= 9 || t->shadow.epoch == 0);
    }
    assert_int_equal(t->shadow.epoch, 2);
    assert_string_equal(t->shadow.worker, "b");
    assert_int_equal(t->epoch, 1);
    assert_int_equal(f.sched.counters.overtaken, 1);
    beat(&f, "a", t->id, 1, 20); /* both are live */
    assert_int_equal(fixture_count(&f, SCHED_SEND_TASK_CANCEL), 0);
    beat(&f, "b", t->id, 2, 1);
    assert_int_equal(fixture_count(&f, SCHED_SEND_TASK_CANCEL), 0);
    shadow_done(&f, t);
    assert_int_equal(t->state, TASK_DONE);
    assert_int_equal(t->epoch, 2);
    assert_string_equal(t->worker, "b");
    assert_int_equal(fixture_count(&f, SCHED_SEND_TASK_CANCEL), 1); /* the hung one is told */
    late_done(&f, t->id, "a", 1);
    assert_int_equal(f.sched.counters.stale, 1);
    assert_string_equal(t->worker, "b");
    assert_int_equal(j->stage[0].tasks_done, j->stage[0].tasks_n == 0 ? 0 : 1);
    fixture_close(&f);
}

static void test_a_shadow_takes_the_place_of_a_lost_lease(void **state)
{
    struct fixture f;
    struct sched_job *j = fixture_started(&f);
    struct sched_task *t = NULL;

    (void)state;
    fixture_up(&f, "b", 1, 3, "c");
    t = &j->stage[0].task[0];
    beat(&f, "a", t->id, 1, 1);
    fixture_tick(&f, 6000);
    beat(&f, "a", t->id, 1, 1);
    assert_int_equal(t->shadow.epoch, 2);
    fixture_mark(&f, SCHED_WORKER_GONE, "a", true);
    assert_int_equal(t->state, TASK_LEASED); /* goes on at b, is not given out again */
    assert_int_equal(t->epoch, 2);
    assert_string_equal(t->worker, "b");
    assert_int_equal(t->shadow.epoch, 0);
    assert_int_equal(f.sched.counters.recomputed, 0);
    fixture_up(&f, "c", 1, 3, "c");
    fixture_mark(&f, SCHED_WORKER_GONE, "b", true);
    assert_int_equal(t->epoch, 3); /* no epoch is given twice */
    assert_string_equal(t->worker, "c");
    assert_int_equal(f.sched.counters.recomputed, 1);
    fixture_close(&f);
}

/* b has a full disk: it is not asked ten times a second, and c is asked next. */
static void test_a_second_lease_that_fails_is_given_to_another_after_a_while(void **state)
{
    struct fixture f;
    struct sched_job *j = fixture_started(&f);
    struct sched_task *t = NULL;
    struct sched_event full = {
        .type = SCHED_TASK_FAILED, .code = ERR_NO_SPACE, .text = "full", .worker = "b"};

    (void)state;
    fixture_up(&f, "b", 1, 3, "c");
    fixture_up(&f, "c", 1, 3, "c");
    t = &j->stage[0].task[0];
    beat(&f, "a", t->id, 1, 1);
    fixture_tick(&f, 6000);
    beat(&f, "a", t->id, 1, 1);
    assert_string_equal(t->shadow.worker, "b");
    full.task = t->id;
    full.epoch = t->shadow.epoch;
    fixture_step(&f, &full);
    assert_int_equal(t->shadow.epoch, 0);
    fixture_tick(&f, 100);
    assert_int_equal(t->shadow.epoch, 0);
    fixture_tick(&f, 500);
    assert_string_equal(t->shadow.worker, "c");
    fixture_close(&f);
}

static void test_the_last_slow_range_is_overtaken(void **state)
{
    struct fixture f;
    struct sched_job *j = fixture_started(&f);
    struct sched_task *t = NULL;

    (void)state;
    fixture_up(&f, "b", 1, 3, "c");
    t = &j->stage[0].task[0];
    j->stage[0].task_ms = 2000; /* as others of its phase took */
    for (int i = 1; i <= 6; i++) {
        struct sched_lease lease = {t->id, 1, (uint64_t)i, 100, (uint64_t)i};
        struct sched_event ev = {
            .type = SCHED_HEARTBEAT, .worker = "a", .lease = &lease, .leases_n = 1};
        f.now_ms += 500;
        fixture_step(&f, &ev);
        fixture_tick(&f, 1);
        assert_int_equal(t->shadow.epoch != 0, i >= 6);
    }
    fixture_done(&f, t, 1); /* the first comes first after all: b is told */
    assert_int_equal(t->state, TASK_DONE);
    assert_int_equal(t->epoch, 1);
    assert_int_equal(fixture_count(&f, SCHED_SEND_TASK_CANCEL), 1);
    fixture_close(&f);
}

static void status(struct fixture *f, const struct sched_stage *st, uint64_t version,
                   struct tree_span missing)
{
    struct sched_event ev = {.type = SCHED_SESSION_STATUS,
                             .session = st->session->id,
                             .attempt = st->session->attempt,
                             .version = version,
                             .missing = &missing,
                             .missing_n = missing.end > missing.begin};

    snprintf(ev.worker, sizeof ev.worker, "%s", st->session->host[0].worker);
    fixture_step(f, &ev);
}

static void progress(struct fixture *f, const char *worker, uint64_t moved_ms)
{
    struct sched_event ev = {.type = SCHED_HEARTBEAT, .progress_ms = moved_ms};

    snprintf(ev.worker, sizeof ev.worker, "%s", worker);
    fixture_step(f, &ev);
}

static void test_a_hung_member_has_no_units_until_it_moves(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 2, 4);
    uint64_t from = f.now_ms, assignment = st->session->assignment;

    (void)state;
    assert_non_null(sched_slot_of(st->session, "w0"));
    assert_non_null(sched_slot_of(st->session, "w1"));
    for (int i = 0; i < 100 && st->session->assignment == assignment; i++) {
        progress(&f, "w0", f.now_ms);
        progress(&f, "w1", from);
        fixture_tick(&f, 100);
    }
    assert_true(f.now_ms - from > 5000 && f.now_ms - from < 5500);
    assert_null(sched_slot_of(st->session, "w1"));
    assert_int_equal(sched_slot_of(st->session, "w0")->leaf_end, st->phase.session.units);
    assert_true(f.sched.counters.overtaken > 0);
    assert_int_equal(st->session->attempt, 1);
    progress(&f, "w1", f.now_ms);
    fixture_tick(&f, 100);
    assert_non_null(sched_slot_of(st->session, "w1"));
    for (int i = 0; i < 100; i++) /* both: then it is better to ask than to give up */
        fixture_tick(&f, 100);
    assert_true(st->session->open && st->session->slots_n == 2);
    fixture_close(&f);
}

static uint32_t units_of(const struct sched_stage *st, const char *worker)
{
    const struct sched_slot *slot = sched_slot_of(st->session, worker);

    return slot != NULL ? slot->leaf_end - slot->leaf_begin : 0;
}

/* Closes steps [from, to), half a second each; w1 needs `slow` times as long for a unit as w0. */
static void steps_close(struct fixture *f, const struct sched_stage *st, uint64_t from, uint64_t to,
                        uint32_t slow)
{
    for (uint64_t v = from; v < to; v++) {
        struct sched_share share[2] = {{control_who("w0"), units_of(st, "w0"), 0},
                                       {control_who("w1"), units_of(st, "w1"), 0}};
        struct sched_event ev = {.type = SCHED_SESSION_STATUS,
                                 .session = st->session->id,
                                 .attempt = st->session->attempt,
                                 .version = v + 1,
                                 .share = share,
                                 .shares_n = share[1].units > 0 ? 2 : 1};

        share[0].ms = (share[0].units + 1) / 2 * 100;
        share[1].ms = (share[1].units + 1) / 2 * 100 * slow;
        snprintf(ev.worker, sizeof ev.worker, "%s", st->session->host[0].worker);
        fixture_step(f, &ev);
        fixture_tick(f, 500);
    }
}

static void test_units_go_by_speed(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 2, 2);
    uint32_t units = st->phase.session.units, half = units_of(st, "w1");
    uint64_t assignment = 0;

    (void)state;
    assert_int_equal(units_of(st, "w0") + half, units);
    steps_close(&f, st, 0, 8, 1);
    assert_int_equal(units_of(st, "w1"), half); /* as fast as the other */
    steps_close(&f, st, 8, 60, 5);
    assert_true(units_of(st, "w1") < half);
    assert_int_equal(units_of(st, "w0") + units_of(st, "w1"), units);
    assignment = st->session->assignment;
    steps_close(&f, st, 60, 80, 5);
    assert_int_equal(st->session->assignment, assignment); /* in a steady state nothing changes */
    if (units_of(st, "w1") == 0)
        steps_close(&f, st, 80, 160, 1); /* tried again after a while */
    steps_close(&f, st, 160, 260, 1);
    assert_int_equal(units_of(st, "w1"), half);
    fixture_close(&f);
}

static void test_a_slow_step_is_given_to_those_who_are_done(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 2, 4);
    const struct sched_slot *slow = sched_slot_of(st->session, "w1");
    struct tree_span late = {slow->leaf_begin + 1, slow->leaf_end};
    uint32_t given = 0;

    (void)state;
    for (uint64_t v = 1; v <= 5; v++) {
        fixture_tick(&f, 500);
        status(&f, st, v, (struct tree_span){0, 0});
    }
    for (int i = 0; i < 14; i++) { /* 1.4 s: not yet three times what is usual */
        fixture_tick(&f, 100);
        status(&f, st, 5, late);
    }
    assert_int_equal(st->session->slots_n, 2);
    for (int i = 0; i < 3; i++) {
        fixture_tick(&f, 100);
        status(&f, st, 5, late);
    }
    for (int i = 0; i < st->session->slots_n; i++) {
        const struct sched_slot *slot = &st->session->slot[i];

        if (slot->only_step == 0)
            continue;
        assert_int_equal(slot->only_step, 6);
        assert_string_equal(slot->worker, "w0");
        assert_true(slot->leaf_begin >= late.begin && slot->leaf_end <= late.end);
        given += slot->leaf_end - slot->leaf_begin;
    }
    assert_int_equal(given, late.end - late.begin);
    assert_int_equal(f.sched.counters.overtaken, given);
    assert_true(st->session->slots_n > 2);
    assert_int_equal(sched_session_computing(st->session), 2); /* w0 is not counted twice */
    for (int i = 0; i < 20; i++) { /* once is enough */
        fixture_tick(&f, 100);
        status(&f, st, 5, late);
    }
    assert_int_equal(f.sched.counters.overtaken, given);
    fixture_close(&f);
}

static bool has_units(const struct sched_stage *st, const char *worker)
{
    return sched_slot_of(st->session, worker) != NULL;
}

/* Others are lost while nothing is heard of it: their units are cut anew without it, which must not be for ever. */
static void test_a_member_that_was_silent_gets_units_again(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 1, 1);
    uint64_t assignment;

    (void)state;
    fixture_up(&f, "x1", 1, 1, "c");
    fixture_up(&f, "x2", 1, 1, "c");
    assert_true(has_units(st, "x2"));
    fixture_mark(&f, SCHED_WORKER_SUSPECT, "x2", false);
    fixture_mark(&f, SCHED_WORKER_GONE, "x1", true);
    assert_false(has_units(st, "x2"));
    fixture_mark(&f, SCHED_WORKER_OK, "x2", false);
    assert_true(has_units(st, "x2"));
    assert_int_equal(fixture_count(&f, SCHED_SEND_ASSIGN), 2);
    assignment = st->session->assignment;
    fixture_mark(&f, SCHED_WORKER_SUSPECT, "x2", false); /* nobody took them */
    fixture_mark(&f, SCHED_WORKER_OK, "x2", false);
    assert_int_equal(st->session->assignment, assignment);
    fixture_close(&f);
}

/* A heartbeat without leases, at a time at which its threads moved. */
static void still(struct fixture *f, const char *worker, uint64_t moved_ms)
{
    struct sched_event ev = {.type = SCHED_HEARTBEAT, .progress_ms = moved_ms};

    snprintf(ev.worker, sizeof ev.worker, "%s", worker);
    fixture_step(f, &ev);
}

/* Whoever says hello is not taken for hung any more: nothing else would give it its units back. */
static void test_a_hung_member_that_says_hello_gets_units_again(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 1, 1);
    struct sched_event up = {.type = SCHED_WORKER_UP,
                             .worker = "x1",
                             .threads = 1,
                             .roles = 1,
                             .class_id = "c",
                             .session = st->session->id,
                             .attempt = 1};

    (void)state;
    fixture_up(&f, "x1", 1, 1, "c");
    assert_true(has_units(st, "x1"));
    still(&f, "x1", f.now_ms);
    fixture_tick(&f, 5100);
    assert_true(sched_find_worker(&f.sched, "x1")->hung);
    assert_false(has_units(st, "x1"));
    fixture_step(&f, &up);
    assert_true(has_units(st, "x1"));
    fixture_close(&f);
}

/* More threads than units: who has none is not missed. */
static void test_a_member_that_is_not_needed_causes_no_assignment(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 2, 1);
    uint64_t assignment;

    (void)state;
    fixture_mark(&f, SCHED_WORKER_SUSPECT, "w1", false);
    sched_find_worker(&f.sched, "w0")->threads = st->phase.session.units;
    st->session->slots_n = 1; /* w0's */
    assignment = st->session->assignment;
    fixture_mark(&f, SCHED_WORKER_OK, "w1", false);
    assert_int_equal(st->session->assignment, assignment);
    fixture_close(&f);
}

/* The table of units is full of what was given out for the open step: that is dropped before anything that nobody else computes. */
static void test_standing_units_come_before_those_of_one_step(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 3, 1);
    struct sched_session *ss = st->session;
    struct sched_actions acts = {0, 0, NULL};
    uint32_t units = st->phase.session.units, owners = 0;

    (void)state;
    for (int i = 0; i < SCHED_SLOTS_MAX - 1; i++) {
        ss->slot[i] = (struct sched_slot){
            .worker = "w0", .leaf_begin = 0, .leaf_end = 1, .only_step = 1, .again = (uint32_t)i};
    }
    ss->slots_n = SCHED_SLOTS_MAX - 1;
    sched_session_assign(&f.sched, st, &acts);
    sched_actions_free(&acts);
    for (uint32_t leaf = 0; leaf < units; leaf++) {
        owners = 0;
        for (int i = 0; i < ss->slots_n; i++)
            owners += ss->slot[i].only_step == 0 && ss->slot[i].leaf_begin <= leaf &&
                      leaf < ss->slot[i].leaf_end;
        assert_int_equal(owners, 1);
    }
    assert_int_equal(sched_session_computing(ss), 3);
    assert_int_equal(ss->slots_n, SCHED_SLOTS_MAX);
    assert_int_equal(ss->slot[0].again, 2); /* the oldest are over soonest */
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_hung_range_is_leased_a_second_time_and_counts_once),
        cmocka_unit_test(test_a_shadow_takes_the_place_of_a_lost_lease),
        cmocka_unit_test(test_the_last_slow_range_is_overtaken),
        cmocka_unit_test(test_a_hung_member_has_no_units_until_it_moves),
        cmocka_unit_test(test_units_go_by_speed),
        cmocka_unit_test(test_a_slow_step_is_given_to_those_who_are_done),
        cmocka_unit_test(test_a_second_lease_that_fails_is_given_to_another_after_a_while),
        cmocka_unit_test(test_a_member_that_was_silent_gets_units_again),
        cmocka_unit_test(test_a_hung_member_that_says_hello_gets_units_again),
        cmocka_unit_test(test_a_member_that_is_not_needed_causes_no_assignment),
        cmocka_unit_test(test_standing_units_come_before_those_of_one_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
