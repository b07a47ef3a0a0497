/* Waiting for whole workers: an old session among young tasks, an old pipeline among young sessions. */
#include "sched_fixture.h"

static struct sched_job *probe(struct fixture *f, int tasks)
{
    char yaml[160];

    snprintf(yaml, sizeof yaml,
             "apiVersion: steerlm/v1\nkind: probe\nname: p\nprobe: {tasks: %d}\n", tasks);
    return fixture_submit(f, fixture_spec(yaml));
}

static uint32_t running(const struct fixture *f, const char *worker)
{
    return sched_find_worker(&f->sched, worker)->running;
}

/* One result of that worker; false: it has nothing. */
static bool result(struct fixture *f, const struct sched_stage *st, const char *worker)
{
    for (uint32_t i = 0; i < st->tasks_n; i++) {
        if (st->task[i].state != TASK_LEASED || strcmp(st->task[i].worker, worker) != 0)
            continue;
        fixture_done(f, &st->task[i], st->task[i].epoch);
        return true;
    }
    return false;
}

static void test_a_session_comes_back_though_a_younger_job_has_work_for_every_thread(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 1, 2);
    struct sched_job *young = probe(&f, 1000);

    (void)state;
    fixture_session(&f, st, SCHED_SESSION_FAILED, 1, 0);
    assert_false(st->session->open);
    fixture_tick(&f, 600);
    for (int i = 0; i < 4 && !st->session->open; i++) {
        result(&f, &young->stage[0], "w0");
        fixture_tick(&f, 100);
    }
    assert_true(st->session->open);
    fixture_close(&f);
}

/* Nobody can host, so nothing is kept; then somebody can. */
static void test_workers_run_dry_for_a_session_only_if_it_can_open(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 1, 1);
    struct sched_job *young = probe(&f, 1000);

    (void)state;
    fixture_mark(&f, SCHED_WORKER_GONE, "w0", true);
    fixture_up(&f, "c0", 4, 1, "c");
    fixture_up(&f, "c1", 4, 1, "c");
    fixture_up(&f, "c2", 4, 1, "c");
    fixture_tick(&f, 600);
    for (int i = 0; i < 8; i++)
        assert_true(result(&f, &young->stage[0], "c0"));
    assert_int_equal(running(&f, "c0"), 4);
    fixture_up(&f, "p", 1, 2, "c");
    assert_false(st->session->open);
    for (int i = 0; i < 4; i++) {
        assert_false(st->session->open);
        assert_true(result(&f, &young->stage[0], "c0"));
        assert_true(result(&f, &young->stage[0], "c2"));
    }
    assert_true(st->session->open); /* on four threads; it can use eight */
    assert_ptr_equal(sched_find_worker(&f.sched, "c0")->in, st);
    assert_int_equal(running(&f, "c2"), 4); /* which are those of c0 and c1 */
    for (int i = 0; i < 4; i++)
        assert_true(result(&f, &young->stage[0], "c1"));
    assert_ptr_equal(sched_find_worker(&f.sched, "c1")->in, st);
    for (int i = 0; i < 8; i++)
        assert_true(result(&f, &young->stage[0], "c2"));
    assert_int_equal(running(&f, "c2"), 4);
    fixture_close(&f);
}

/* It is idle only because it could not take part: others that are well must run dry all the same. */
static void test_who_sits_out_is_not_kept_in_place_of_others(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 1, 8);
    struct sched_job *young = NULL;

    (void)state;
    fixture_up(&f, "w1", 2, 3, "c"); /* the session has threads enough */
    young = probe(&f, 1000);
    assert_int_equal(running(&f, "w1"), 2);
    fixture_session(&f, st, SCHED_SESSION_FAILED, 1, 0); /* w0 */
    assert_false(st->session->open);
    sched_find_worker(&f.sched, "w0")->sits_out_ms = f.now_ms + 60000;
    fixture_tick(&f, 100);
    for (int i = 0; i < 2; i++)
        assert_true(result(&f, &young->stage[0], "w1"));
    assert_int_equal(running(&f, "w1"), 0);
    fixture_tick(&f, 600);
    assert_true(st->session->open);
    assert_string_equal(st->session->host[0].worker, "w1");
    fixture_close(&f);
}

static void test_nothing_is_kept_for_an_attempt_that_is_far_away(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 1, 2);

    (void)state;
    fixture_session(&f, st, SCHED_SESSION_FAILED, 1, 0);
    st->session->retry_at_ms = f.now_ms + 5000;
    probe(&f, 1000);
    assert_int_equal(running(&f, "w0"), 2);
    fixture_close(&f);
}

static void reuse_missed(struct fixture *f, uint64_t job, int stage)
{
    struct sched_event no = {.type = SCHED_REUSE, .job_id = job, .stage_index = stage};

    fixture_step(f, &no);
}

/* Two workers: w0 has the first stage of an old pipeline, a younger job trains on w1. */
static struct sched_job *pipeline_and_session(struct fixture *f, struct sched_stage **young)
{
    struct sched_job *old = NULL, *j = NULL;

    fixture_open(f);
    f->reuse = true;
    old = fixture_submit(f, fixture_smoke());
    f->reuse = false;
    fixture_up(f, "w0", 1, 3, "c");
    reuse_missed(f, old->id, 0);
    assert_int_equal(running(f, "w0"), 1);
    j = fixture_submit(f, fixture_smoke());
    fixture_up(f, "w1", 1, 3, "c");
    *young = fixture_stage(j, "attribute-model");
    assert_true(result(f, &j->stage[0], "w1"));
    assert_true(result(f, *young, "w1"));
    assert_true((*young)->session->open);
    return old;
}

static void test_a_session_leaves_a_worker_to_an_older_job_between_two_stages(void **state)
{
    struct fixture f;
    struct sched_stage *young = NULL;
    struct sched_job *old = pipeline_and_session(&f, &young);

    (void)state;
    assert_true(result(&f, &old->stage[0], "w0"));
    assert_int_equal(fixture_count(&f, SCHED_ASK_REUSE), 1);
    fixture_tick(&f, 100);
    reuse_missed(&f, old->id, 1);
    assert_int_equal(running(&f, "w0"), 1);
    assert_true(young->session->open);
    fixture_close(&f);
}

static void test_a_session_leaves_a_worker_to_an_older_task_that_is_tried_again(void **state)
{
    struct fixture f;
    struct sched_stage *young = NULL;
    struct sched_job *old = pipeline_and_session(&f, &young);

    (void)state;
    fixture_failed(&f, &old->stage[0].task[0], ERR_IO);
    assert_int_equal(old->stage[0].task[0].state, TASK_RETRY_WAIT);
    fixture_tick(&f, 100);
    fixture_tick(&f, 600);
    assert_int_equal(running(&f, "w0"), 1);
    fixture_close(&f);
}

/* It opens on one of two idle workers, and on the only one there is. */
static void test_a_session_opens_beside_an_older_job_between_two_stages(void **state)
{
    (void)state;
    for (int workers = 1; workers <= 2; workers++) {
        struct fixture f;
        struct sched_stage *young = NULL;
        struct sched_job *old = pipeline_and_session(&f, &young);

        assert_true(result(&f, &old->stage[0], "w0"));
        fixture_session(&f, young, SCHED_SESSION_FAILED, 1, 0);
        if (workers == 1)
            fixture_mark(&f, SCHED_WORKER_GONE, "w0", false);
        fixture_tick(&f, 600);
        assert_true(young->session->open);
        reuse_missed(&f, old->id, 1);
        assert_int_equal(old->stage[1].pending.count, workers == 1);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_session_comes_back_though_a_younger_job_has_work_for_every_thread),
        cmocka_unit_test(test_workers_run_dry_for_a_session_only_if_it_can_open),
        cmocka_unit_test(test_nothing_is_kept_for_an_attempt_that_is_far_away),
        cmocka_unit_test(test_a_session_leaves_a_worker_to_an_older_job_between_two_stages),
        cmocka_unit_test(test_a_session_leaves_a_worker_to_an_older_task_that_is_tried_again),
        cmocka_unit_test(test_a_session_opens_beside_an_older_job_between_two_stages),
        cmocka_unit_test(test_who_sits_out_is_not_kept_in_place_of_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
