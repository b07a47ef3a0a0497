/* What a result costs the scheduler, counted in things looked at: it depends neither on how many
 * jobs wait nor on how many tasks a phase has. And leases ahead: when, and how many. */
#include "sched_fixture.h"
#include "wire/control.h" /* WIRE_LEASES_MAX */

#define RESULTS 3000

static struct sched_job *probe(struct fixture *f, int tasks)
{
    char yaml[160];

    snprintf(yaml, sizeof yaml,
             "apiVersion: steerlm/v1\nkind: probe\nname: p\nprobe: {tasks: %d}\n", tasks);
    return fixture_submit(f, fixture_spec(yaml));
}

static const struct sched_task *some_lease(const struct sched_job *j, const char *worker)
{
    const struct sched_stage *st = &j->stage[0];

    for (uint32_t i = task_set_next(&st->busy, 0); i != TASK_SET_NONE;
         i = task_set_next(&st->busy, i + 1)) {
        if (st->task[i].state == TASK_LEASED && strcmp(st->task[i].worker, worker) == 0)
            return &st->task[i];
    }
    return NULL;
}

static void done(struct fixture *f, const struct sched_task *t, const char *worker,
                 uint64_t busy_us)
{
    struct sched_event ev = {
        .type = SCHED_TASK_DONE, .task = t->id, .epoch = t->epoch, .busy_us = busy_us};
    struct err e = {0};
    static const char result[] = "{\"outputs\":{},\"metrics\":{}}";

    snprintf(ev.worker, sizeof ev.worker, "%s", worker);
    assert_int_equal(json_parse(result, strlen(result), JSON_LIMITS_BODY, &ev.result, &e), 0);
    fixture_step(f, &ev);
}

/* 32 jobs run, `queued` wait; gives what RESULTS results of the oldest looked at. */
static uint64_t looked_at(int queued, int tasks)
{
    struct fixture f;
    struct sched_config config = fixture_config;
    struct sched_job *j;
    uint64_t before;

    fixture_open(&f);
    config.active_min = 32;
    config.active_max = 256;
    sched_fini(&f.sched);
    sched_init(&f.sched, &config);
    j = probe(&f, tasks);
    for (int i = 1; i < 32; i++)
        probe(&f, 10);
    for (int i = 0; i < queued; i++)
        sched_restore_entry(&f.sched, ++f.next_job, RUN_PENDING);
    fixture_up(&f, "a", 1, 3, "c");
    fixture_up(&f, "b", 1, 3, "c");
    before = f.sched.looked_at + task_set_looks();
    for (int i = 0; i < RESULTS; i++) {
        const char *worker = i % 2 == 0 ? "a" : "b";

        done(&f, some_lease(j, worker), worker, 20);
    }
    before = f.sched.looked_at + task_set_looks() - before;
    assert_int_equal(j->stage[0].tasks_done, RESULTS);
    fixture_close(&f);
    return before;
}

static void test_a_result_costs_the_same_however_many_jobs_wait(void **state)
{
    uint64_t few = looked_at(100, 10000);

    (void)state;
    print_message("looked at by a result: %.1f with 100 jobs queued, %.1f with 10,000, %.1f with "
                  "100,000\n",
                  (double)few / RESULTS, (double)looked_at(10000, 10000) / RESULTS,
                  (double)looked_at(100000, 10000) / RESULTS);
    assert_int_equal(looked_at(10000, 10000), few);
    assert_int_equal(looked_at(100000, 10000), few);
    assert_true(few / RESULTS < 200);
}

static void test_a_result_costs_the_same_however_many_tasks_a_phase_has(void **state)
{
    uint64_t few = looked_at(0, RESULTS + 200), many = looked_at(0, 200000);

    (void)state;
    print_message("looked at by a result: %.1f with %d tasks, %.1f with 200,000\n",
                  (double)few / RESULTS, RESULTS + 200, (double)many / RESULTS);
    assert_true(many / RESULTS <= few / RESULTS + 8);
}

static uint32_t leases_of(const struct fixture *f, const char *worker)
{
    return sched_find_worker(&f->sched, worker)->running;
}

static void test_short_tasks_are_leased_ahead(void **state)
{
    struct fixture f;
    struct sched_job *j;

    (void)state;
    fixture_open(&f);
    j = probe(&f, 1000);
    fixture_up(&f, "a", 2, 3, "c");
    assert_int_equal(leases_of(&f, "a"), 2);
    done(&f, some_lease(j, "a"), "a", 0); /* it was not told how long it took */
    assert_int_equal(leases_of(&f, "a"), 2);
    done(&f, some_lease(j, "a"), "a", 10000); /* two are what 20 ms hold */
    assert_int_equal(leases_of(&f, "a"), 6);
    for (int i = 0; i < 60; i++)
        done(&f, some_lease(j, "a"), "a", 10);
    assert_int_equal(leases_of(&f, "a"), SCHED_LEASES_MAX);
    fixture_close(&f);
}

static void test_long_tasks_are_not(void **state)
{
    struct fixture f;
    struct sched_job *j;

    (void)state;
    fixture_open(&f);
    j = probe(&f, 100);
    fixture_up(&f, "a", 2, 3, "c");
    for (int i = 0; i < 20; i++) {
        done(&f, some_lease(j, "a"), "a", 25000);
        assert_int_equal(leases_of(&f, "a"), 2);
    }
    fixture_close(&f);
}

/* What a worker does not name in its heartbeats runs out: it gets no more than a frame can name. */
static void test_a_worker_gets_no_more_leases_than_it_can_name(void **state)
{
    struct fixture f;

    (void)state;
    fixture_open(&f);
    probe(&f, 1000);
    fixture_up(&f, "a", 200, 3, "c");
    assert_int_equal(leases_of(&f, "a"), 200);
    fixture_up(&f, "b", 500, 3, "c");
    assert_int_equal(leases_of(&f, "b"), WIRE_LEASES_MAX);
    fixture_close(&f);
}

/* What is leased ahead and never run goes back like any lease. */
static void test_leases_ahead_of_a_worker_that_dies_are_given_out_again(void **state)
{
    struct fixture f;
    struct sched_job *j;
    uint32_t held;

    (void)state;
    fixture_open(&f);
    j = probe(&f, 200);
    fixture_up(&f, "a", 1, 3, "c");
    for (int i = 0; i < 20; i++)
        done(&f, some_lease(j, "a"), "a", 10);
    held = leases_of(&f, "a");
    assert_int_equal(held, SCHED_LEASES_MAX);
    fixture_up(&f, "b", 1, 3, "c");
    fixture_mark(&f, SCHED_WORKER_GONE, "a", true);
    assert_null(some_lease(j, "a"));
    assert_true(leases_of(&f, "b") > 1);
    for (const struct sched_task *t; (t = some_lease(j, "b")) != NULL;)
        done(&f, t, "b", 10);
    assert_int_equal(j->state, RUN_SUCCEEDED);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_result_costs_the_same_however_many_jobs_wait),
        cmocka_unit_test(test_a_result_costs_the_same_however_many_tasks_a_phase_has),
        cmocka_unit_test(test_short_tasks_are_leased_ahead),
        cmocka_unit_test(test_long_tasks_are_not),
        cmocka_unit_test(test_a_worker_gets_no_more_leases_than_it_can_name),
        cmocka_unit_test(test_leases_ahead_of_a_worker_that_dies_are_given_out_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
