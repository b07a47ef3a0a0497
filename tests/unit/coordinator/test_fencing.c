/* Who may say what about a lease, and who may get one: each test here fails when one comparison is taken out of the scheduler
 * (tests/mutants). */
#include "sched_fixture.h"

/* The worker keeps its id over a lease that ran out and was given to it again; what its old run says is old. */
static void test_a_heartbeat_with_an_old_epoch_renews_nothing(void **state)
{
    struct sched_lease lease = {.task = 1, .epoch = 1, .done = 5, .total = 10};
    struct sched_event beat = {
        .type = SCHED_HEARTBEAT, .worker = "a", .lease = &lease, .leases_n = 1};
    struct fixture f;
    struct sched_job *j = fixture_started(&f);
    struct sched_task *t = NULL;
    uint64_t until;

    (void)state;
    t = &j->stage[0].task[0];
    fixture_tick(&f, 10001);
    assert_int_equal(t->epoch, 2);
    until = t->lease_until_ms;
    f.now_ms += 3000;
    fixture_step(&f, &beat);
    assert_int_equal(t->lease_until_ms, until);
    assert_int_equal(t->done, 0);
    assert_int_equal(fixture_count(&f, SCHED_SEND_TASK_CANCEL), 1); /* and it is told to stop */
    lease.epoch = 2;
    fixture_step(&f, &beat);
    assert_int_equal(t->lease_until_ms, f.now_ms + 10000);
    assert_int_equal(t->done, 5);
    fixture_close(&f);
}

static const char ranges[] = "apiVersion: steerlm/v1\n"
                             "kind: generate\n"
                             "name: rows\n"
                             "inputs: {model: \"file:model\"}\n"
                             "generate: {from_nothing: 300, rows_per_task: 50}\n";

/* Up to the phase of the ranges, of which worker a has the first. */
static struct sched_stage *generating(struct fixture *f)
{
    struct sched_job *j = NULL;
    struct sched_stage *st = NULL;

    fixture_open(f);
    j = fixture_submit(f, fixture_spec(ranges));
    fixture_up(f, "a", 1, 3, "c");
    st = &j->stage[j->stages_n - 1];
    for (int i = 0; i < 10 && st->tasks_n < 6; i++)
        fixture_done(f, &st->task[0], st->task[0].epoch);
    assert_int_equal(st->tasks_n, 6);
    assert_int_equal(st->task[0].state, TASK_LEASED);
    return st;
}

static void test_a_repeated_result_counts_once(void **state)
{
    struct fixture f;
    struct sched_stage *st = generating(&f);

    (void)state;
    for (uint32_t i = 0; i < st->tasks_n + 1;
         i++) { /* its acknowledgement was lost again and again */
        fixture_done(&f, &st->task[0], st->task[0].epoch);
        assert_int_equal(fixture_count(&f, SCHED_SEND_ACK), 1);
        assert_int_equal(st->tasks_done, 1);
    }
    assert_int_equal(f.sched.counters.stale, st->tasks_n);
    fixture_close(&f);
}

static void test_a_result_of_somebody_else_is_refused(void **state)
{
    struct fixture f;
    struct sched_stage *st = generating(&f);
    struct sched_event ev = {.type = SCHED_TASK_DONE, .worker = "b"};

    (void)state;
    fixture_up(&f, "b", 1, 3, "c");
    ev.task = st->task[0].id;
    ev.epoch = st->task[0].epoch;
    ev.result = fixture_result();
    assert_string_equal(st->task[0].worker, "a");
    fixture_step(&f, &ev);
    assert_int_equal(st->task[0].state, TASK_LEASED);
    fixture_close(&f);
}

/* Bits of one job come from one kind of arithmetic: its worker goes, another class is idle, and the job waits. */
static void test_a_job_waits_for_its_class(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;
    struct sched_task *t = NULL;

    (void)state;
    fixture_open(&f);
    j = fixture_submit(&f, fixture_smoke());
    fixture_up(&f, "a", 1, 3, "one");
    t = &j->stage[0].task[0];
    assert_true(j->class_bound);
    fixture_up(&f, "b", 8, 3, "two");
    fixture_mark(&f, SCHED_WORKER_GONE, "a", false);
    fixture_tick(&f, 60000);
    assert_int_equal(t->state, TASK_PENDING);
    fixture_up(&f, "c", 1, 3, "one");
    assert_int_equal(t->state, TASK_LEASED);
    assert_string_equal(t->worker, "c");
    fixture_close(&f);
}

/* Its worker says again and again that it lives, and its thread moves no more, nor is anybody there to try it as well: in the end
 * the lease runs out. */
static void test_a_lease_whose_thread_hangs_runs_out(void **state)
{
    struct sched_lease lease = {.task = 1, .epoch = 1, .moved = 5};
    struct sched_event beat = {
        .type = SCHED_HEARTBEAT, .worker = "a", .lease = &lease, .leases_n = 1};
    struct fixture f;
    struct sched_job *j = NULL;
    struct sched_task *t = NULL;

    (void)state;
    fixture_open(&f);
    f.sched.config.hang_ms = 0;
    f.sched.config.abandon_ms = 60000;
    j = fixture_submit(&f, fixture_smoke());
    fixture_up(&f, "a", 1, 3, "c");
    t = &j->stage[0].task[0];
    for (int i = 0; i < 8; i++) { /* it moves: 40 s, and the lease is 10 s long */
        f.now_ms += 5000;
        lease.moved++;
        fixture_step(&f, &beat);
        fixture_tick(&f, 1);
        assert_int_equal(t->epoch, 1);
    }
    for (int i = 0; i < 16; i++) { /* it hangs: 80 s */
        f.now_ms += 5000;
        fixture_step(&f, &beat);
        fixture_tick(&f, 1);
        if (i < 11)
            assert_int_equal(t->epoch, 1);
    }
    assert_true(t->epoch > 1);
    fixture_close(&f);
}

/* Its only thread hangs in what others have done meanwhile, so this lease never gets one: it says nothing of itself. */
static void test_a_lease_behind_a_hung_thread_is_done_elsewhere(void **state)
{
    struct sched_lease lease = {.task = 1, .epoch = 1, .moved = 0};
    struct sched_event beat = {
        .type = SCHED_HEARTBEAT, .worker = "a", .lease = &lease, .leases_n = 1};
    struct fixture f;
    struct sched_job *j = fixture_started(&f);
    struct sched_task *t = &j->stage[0].task[0];

    (void)state;
    assert_string_equal(t->worker, "a");
    fixture_up(&f, "b", 1, 3, "c");
    beat.progress_ms = f.now_ms; /* as it stays */
    for (int i = 0; i < 8; i++) {
        f.now_ms += 1000;
        fixture_step(&f, &beat);
        fixture_tick(&f, 1);
        assert_int_equal(t->shadow.epoch != 0, i >= 4); /* after hang_ms */
    }
    assert_string_equal(t->shadow.worker, "b");
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_heartbeat_with_an_old_epoch_renews_nothing),
        cmocka_unit_test(test_a_repeated_result_counts_once),
        cmocka_unit_test(test_a_result_of_somebody_else_is_refused),
        cmocka_unit_test(test_a_job_waits_for_its_class),
        cmocka_unit_test(test_a_lease_whose_thread_hangs_runs_out),
        cmocka_unit_test(test_a_lease_behind_a_hung_thread_is_done_elsewhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
