#include "coordinator/sched_inner.h"
#include "sched_fixture.h"
#include "wire/control.h"

static struct sched_stage *stage(struct sched_job *j, const char *name)
{
    int i = sched_stage_of(j, name);

    assert_true(i >= 0);
    return &j->stage[i];
}

/* ---- tasks
 * ------------------------------------------------------------------------------------------------------
 */
static void test_a_pipeline_runs_to_its_end(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;

    (void)state;
    fixture_open(&f);
    j = fixture_submit(&f, fixture_smoke());
    assert_string_equal(j->stage[0].name, "data/chat");
    assert_int_equal(j->stage[0].state, RUN_STARTING); /* nobody there yet */
    assert_int_equal(stage(j, "annotate")->state, RUN_PENDING);
    fixture_up(&f, "a", 2, 3, "c");
    fixture_up(&f, "b", 1, 3, "c");
    fixture_run(&f, j);
    assert_int_equal(j->state, RUN_SUCCEEDED);
    assert_int_equal(cJSON_GetArraySize(json_get(stage(j, "attribute-model")->outputs, "model")),
                     2);  /* one a fold */
    sched_collect(&f.sched);
    assert_null(j->spec); /* what a finished job does not need is let go */
    for (int i = 0; i < f.sched.workers_n; i++) {
        assert_int_equal(f.sched.worker[i]->running, 0);
        assert_null(f.sched.worker[i]->in);
    }
    fixture_close(&f);
}

static void test_a_stale_result_changes_nothing_and_is_acknowledged(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;
    struct sched_task *t = NULL;

    (void)state;
    fixture_open(&f);
    j = fixture_submit(&f, fixture_smoke());
    fixture_up(&f, "a", 1, 3, "c");
    t = &j->stage[0].task[0];
    assert_int_equal(t->epoch, 1);
    fixture_tick(&f, 10001); /* the lease runs out: leased again under a new epoch */
    assert_int_equal(t->epoch, 2);
    assert_int_equal(t->state, TASK_LEASED);
    assert_int_equal(fixture_count(&f, SCHED_SEND_TASK_CANCEL), 1);
    fixture_done(&f, t, 1);
    assert_int_equal(t->state, TASK_LEASED);
    assert_int_equal(f.sched.counters.stale, 1);
    assert_int_equal(fixture_count(&f, SCHED_SEND_ACK), 1);
    fixture_done(&f, t, 2);
    assert_int_equal(stage(j, "data/chat")->state, RUN_SUCCEEDED);
    fixture_close(&f);
}

static void test_results_nobody_waits_for_are_only_acknowledged(void **state)
{
    static const struct {
        uint64_t task, epoch;
        const char *worker;
    } cases[] = {
        {999, 1, "a"}, {0, 0, "a"}, {UINT64_MAX, 1, "a"}, {1, 7, "a"}, {1, 1, "somebody else"}};
    struct fixture f;
    struct sched_job *j = NULL;

    (void)state;
    fixture_open(&f);
    j = fixture_submit(&f, fixture_smoke());
    fixture_up(&f, "a", 1, 3, "c");
    assert_int_equal(j->stage[0].task[0].id, 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sched_event ev = {.type = SCHED_TASK_DONE,
                                 .task = cases[i].task,
                                 .epoch = cases[i].epoch,
                                 .result = fixture_result()};

        snprintf(ev.worker, sizeof ev.worker, "%s", cases[i].worker);
        fixture_step(&f, &ev);
        assert_int_equal(f.acts.n, 1);
        assert_int_equal(f.acts.v[0].type, SCHED_SEND_ACK);
        assert_int_equal(j->stage[0].task[0].state, TASK_LEASED);
    }
    fixture_close(&f);
}

static void test_faults_are_retried_then_quarantined_and_named(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;
    struct sched_task *t = NULL;

    (void)state;
    fixture_open(&f);
    j = fixture_submit(&f, fixture_smoke());
    fixture_up(&f, "a", 1, 3, "c");
    t = &j->stage[0].task[0];
    for (int i = 1; i <= 2; i++) {
        fixture_failed(&f, t, ERR_INVALID);
        assert_int_equal(t->state, TASK_RETRY_WAIT);
        fixture_tick(&f, 400); /* not yet */
        assert_int_equal(t->state, TASK_RETRY_WAIT);
        fixture_tick(&f, 1000);
        assert_int_equal(t->state, TASK_LEASED);
    }
    fixture_failed(&f, t, ERR_INVALID);
    assert_int_equal(j->state, RUN_FAILED);
    assert_string_equal(j->failure.stage, "data/chat");
    assert_non_null(strstr(j->failure.message, "because"));
    assert_string_equal(j->failure.class_name, "user");
    assert_int_equal(j->failure.task, 1);
    assert_int_equal(stage(j, "report")->state, RUN_SKIPPED);
    fixture_close(&f);
}

static void test_losses_have_a_budget_of_their_own(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;

    (void)state;
    fixture_open(&f);
    j = fixture_submit(&f, fixture_smoke());
    fixture_up(&f, "a", 1, 3, "c");
    for (int i = 0; i < 5; i++) {
        fixture_failed(&f, &j->stage[0].task[0], ERR_UNREACHABLE);
        assert_int_equal(j->stage[0].task[0].faults, 0);
        fixture_tick(&f, 9000); /* past any back-off, before the lease ends */
        assert_int_equal(j->stage[0].task[0].state, TASK_LEASED);
    }
    fixture_failed(&f, &j->stage[0].task[0], ERR_UNREACHABLE);
    assert_int_equal(j->state, RUN_FAILED);
    assert_string_equal(j->failure.class_name, "infrastructure");
    fixture_close(&f);
}

static void test_a_task_that_crashes_three_workers_is_quarantined(void **state)
{
    static const struct {
        const char *worker;
        bool crashed, over;
    } steps[] = {{"a", true, false},
                 {"a", true, false},
                 {"b", false, false},
                 {"b", true, false},
                 {"c", true, true}};
    struct fixture f;
    struct sched_job *j = NULL;

    (void)state;
    fixture_open(&f);
    j = fixture_submit(&f, fixture_smoke());
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        fixture_up(&f, steps[i].worker, 1, 3, "c");
        assert_string_equal(j->stage[0].task[0].worker, steps[i].worker);
        fixture_mark(&f, SCHED_WORKER_GONE, steps[i].worker, steps[i].crashed);
        assert_int_equal(j->state == RUN_FAILED, steps[i].over);
    }
    assert_non_null(strstr(j->failure.message, "3 different workers"));
    fixture_close(&f);
}

static void test_suspects_and_drainers_get_nothing_new(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;

    (void)state;
    fixture_open(&f);
    fixture_up(&f, "a", 1, 3, "c");
    fixture_up(&f, "b", 1, 3, "c");
    fixture_up(&f, "host", 1, 2, "c"); /* params only */
    fixture_mark(&f, SCHED_WORKER_SUSPECT, "a", false);
    fixture_mark(&f, SCHED_WORKER_DRAIN, "b", false);
    j = fixture_submit(&f, fixture_smoke());
    assert_int_equal(j->stage[0].task[0].state, TASK_PENDING);
    fixture_mark(&f, SCHED_WORKER_OK, "a", false);
    assert_int_equal(j->stage[0].task[0].state, TASK_LEASED);
    assert_string_equal(j->stage[0].task[0].worker, "a");
    fixture_close(&f);
}

static void test_hello_settles_what_a_worker_holds(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;
    struct sched_task *t = NULL;
    struct sched_lease lease[2] = {{1, 1, 5, 10, 0}, {77, 3, 0, 0, 0}};
    struct sched_event ev = {.type = SCHED_WORKER_UP,
                             .worker = "a",
                             .threads = 1,
                             .roles = 3,
                             .class_id = "c",
                             .lease = lease,
                             .leases_n = 2};

    (void)state;
    fixture_open(&f);
    j = fixture_submit(&f, fixture_smoke());
    fixture_up(&f, "a", 1, 3, "c");
    t = &j->stage[0].task[0];
    f.now_ms += 9000;
    fixture_step(&f, &ev); /* it holds the lease still: goes on */
    assert_int_equal(t->epoch, 1);
    assert_int_equal(t->done, 5);
    assert_int_equal(fixture_count(&f, SCHED_SEND_TASK_CANCEL), 1); /* 77 is nobody's */
    fixture_tick(&f, 9000);
    assert_int_equal(t->epoch, 1);
    fixture_up(&f, "a", 1, 3, "c"); /* it holds nothing: leased anew */
    assert_int_equal(t->epoch, 2);
    fixture_close(&f);
}

static void test_cancel_stops_what_runs(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;
    struct sched_event ev = {.type = SCHED_CANCEL, .job_id = 1};

    (void)state;
    fixture_open(&f);
    j = fixture_submit(&f, fixture_smoke());
    fixture_up(&f, "a", 1, 3, "c");
    fixture_step(&f, &ev);
    assert_int_equal(j->state, RUN_CANCELLED);
    assert_int_equal(fixture_count(&f, SCHED_SEND_TASK_CANCEL), 1);
    assert_int_equal(f.sched.worker[0]->running, 0);
    sched_collect(&f.sched);
    fixture_step(&f, &(struct sched_event){.type = SCHED_CANCEL, .job_id = 1}); /* again: nothing */
    assert_int_equal(f.acts.n, 0);
    fixture_step(&f, &(struct sched_event){.type = SCHED_CANCEL, .job_id = 42});
    assert_int_equal(f.acts.n, 0);
    fixture_close(&f);
}

/* ---- stages
 * -----------------------------------------------------------------------------------------------------
 */
static void test_max_parallel_and_classes(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;
    struct spec *spec = fixture_smoke();

    (void)state;
    fixture_open(&f);
    spec->max_parallel = 1;
    j = fixture_submit(&f, spec);
    fixture_up(&f, "a", 1, 3, "one");
    fixture_up(&f, "b", 4, 3, "two"); /* another arithmetic: never for this job */
    for (int i = 0; i < 400 && !run_state_is_final(j->state); i++) {
        int busy = 0;

        for (int k = 0; k < j->stages_n; k++) {
            busy += j->stage[k].state != RUN_PENDING && !run_state_is_final(j->stage[k].state);
            for (uint32_t t = 0; t < j->stage[k].tasks_n; t++)
                assert_string_not_equal(j->stage[k].task[t].worker, "b");
        }
        assert_true(busy <= 1);
        assert_null(sched_find_worker(&f.sched, "b")->in);
        fixture_run(&f, j);
    }
    assert_int_equal(j->state, RUN_SUCCEEDED);
    fixture_close(&f);
}

static void up_bf16(struct fixture *f, const char *id, uint32_t threads, const char *class_id,
                    const char *class_bf16)
{
    struct sched_event ev = {.type = SCHED_WORKER_UP,
                             .threads = threads,
                             .roles = 3,
                             .class_id = class_id,
                             .class_bf16 = class_bf16};

    snprintf(ev.worker, sizeof ev.worker, "%s", id);
    fixture_step(f, &ev);
}

/* A job that trains with bfloat16 has a class of its own: workers without one get none of it and are told, whether it is
 * bound yet or not, and equal fp32 classes do not help. */
static void test_bf16_has_a_class_of_its_own(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL, *plain = NULL;
    struct spec *spec = fixture_smoke();
    bool trains = false;

    (void)state;
    fixture_open(&f);
    up_bf16(&f, "none", 8, "one", "");
    for (int i = 0; i < spec->stages_n; i++)
        if (spec->stage[i]->spec->kind == KIND_SFT) {
            snprintf(spec->stage[i]->spec->numerics, sizeof spec->numerics, "bf16");
            trains = true;
        }
    assert_true(trains);
    j = fixture_submit(&f, spec);
    assert_true(j->bf16);
    assert_false(j->class_bound);
    assert_int_equal(fixture_count(&f, SCHED_SEND_NOTE), 1);
    for (int i = 0; i < f.acts.n; i++)
        if (f.acts.v[i].type == SCHED_SEND_NOTE)
            assert_non_null(strstr(f.acts.v[i].note, "AVX512_BF16"));
    up_bf16(&f, "a", 1, "one", "one-bf16");
    up_bf16(&f, "b", 4, "one", "two-bf16");
    assert_string_equal(j->class_id, "one-bf16");
    for (int i = 0; i < 400 && !run_state_is_final(j->state); i++) {
        for (int k = 0; k < j->stages_n; k++)
            for (uint32_t t = 0; t < j->stage[k].tasks_n; t++)
                assert_true(j->stage[k].task[t].worker[0] == '\0' ||
                            strcmp(j->stage[k].task[t].worker, "a") == 0);
        assert_null(sched_find_worker(&f.sched, "none")->in);
        assert_null(sched_find_worker(&f.sched, "b")->in);
        fixture_run(&f, j);
    }
    assert_int_equal(j->state, RUN_SUCCEEDED);
    plain = fixture_submit(&f, fixture_smoke());
    assert_false(plain->bf16);
    assert_string_equal(plain->class_id, "one");
    fixture_close(&f);
}

static void test_reuse_is_asked_once_and_taken(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;
    struct spec *spec = fixture_smoke();
    struct sched_event yes = {.type = SCHED_REUSE, .job_id = 1, .stage_index = 0},
                       no = {.type = SCHED_REUSE, .job_id = 1, .stage_index = 1};
    cJSON *list = NULL;

    (void)state;
    fixture_open(&f);
    f.reuse = true;
    j = fixture_submit(&f, spec);
    assert_int_equal(fixture_count(&f, SCHED_ASK_REUSE), 1);
    assert_false(j->stage[0].phase_open);
    fixture_tick(&f, 100);
    assert_int_equal(fixture_count(&f, SCHED_ASK_REUSE), 0);
    yes.result = fixture_result();
    cJSON_DeleteItemFromObject(cJSON_GetObjectItem(yes.result, "outputs"), "data");
    list = cJSON_AddArrayToObject(cJSON_GetObjectItem(yes.result, "outputs"), "data");
    cJSON_AddItemToArray(
        list,
        cJSON_CreateString("0000000000000000000000000000000000000000000000000000000000000000"));
    fixture_step(&f, &yes);
    assert_int_equal(j->stage[0].state, RUN_SUCCEEDED);
    assert_true(j->stage[0].reused);
    assert_int_equal(fixture_count(&f, SCHED_ASK_REUSE), 1); /* of the next stage */
    fixture_step(&f, &no);
    assert_true(j->stage[1].phase_open);
    fixture_close(&f);
}

/* Outputs of another numerics class are not mixed into a job; those of its own bind it. */
static void test_reuse_keeps_to_one_class(void **state)
{
    static const struct {
        const char *recorded, *worker;
        bool taken, bound;
    } cases[] = {{"one", "one", true, true},
                 {"two", "one", false, false},
                 {"two", NULL, true, true}, /* nobody here who could do it in another one */
                 {"", "one", true, false}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture f;
        struct sched_event answer = {.type = SCHED_REUSE, .job_id = 1, .stage_index = 0};
        struct sched_job *j = NULL;

        fixture_open(&f);
        f.reuse = true;
        if (cases[i].worker != NULL)
            fixture_up(&f, "w1", 1, ROLE_COMPUTE, cases[i].worker);
        j = fixture_submit(&f, fixture_smoke());
        answer.result = fixture_result();
        cJSON_AddStringToObject(answer.result, "class", cases[i].recorded);
        fixture_step(&f, &answer);
        assert_int_equal(j->stage[0].reused, cases[i].taken);
        if (cases[i].taken)
            assert_int_equal(j->class_bound, cases[i].bound);
        if (cases[i].bound)
            assert_string_equal(j->class_id, cases[i].recorded);
        fixture_close(&f);
    }
}

static void test_a_gate_that_does_not_hold_fails_the_stage(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;
    struct spec *spec = fixture_smoke();

    (void)state;
    fixture_open(&f);
    spec->stage[0]->gates_n = 1;
    spec->stage[0]->gate[0] = (struct gate){.metric = "rows", .has_max = true, .max = 299};
    j = fixture_submit(&f, spec);
    fixture_up(&f, "a", 1, 3, "c");
    fixture_run(&f, j);
    assert_int_equal(j->state, RUN_FAILED);
    assert_int_equal(stage(j, "attribute-model")->state, RUN_FAILED);
    assert_non_null(strstr(j->failure.message, "rows is 300, must be at most 299"));
    assert_int_equal(stage(j, "annotate")->state, RUN_SKIPPED);
    fixture_close(&f);
}

/* ---- sessions
 * ---------------------------------------------------------------------------------------------------
 */
static struct sched_stage *to_training(struct fixture *f, struct sched_job **job, int workers,
                                       uint32_t threads)
{
    char id[16];
    struct sched_stage *st = NULL;

    fixture_open(f);
    *job = fixture_submit(f, fixture_smoke());
    st = stage(*job, "attribute-model");
    for (int i = 0; i < workers; i++) {
        snprintf(id, sizeof id, "w%d", i);
        fixture_up(f, id, threads, 3, "c");
    }
    fixture_done(f, &(*job)->stage[0].task[0], 1);
    fixture_done(f, &st->task[0], 1);
    assert_non_null(st->session);
    return st;
}

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
            struct sched_job *j = NULL;
            struct sched_stage *st = to_training(&f, &j, workers, threads);
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
    struct sched_job *j = NULL;
    struct sched_stage *st = to_training(&f, &j, 2, 1);

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
    struct sched_job *j = NULL;
    struct sched_stage *st = to_training(&f, &j, 3, 1);

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
    struct sched_job *j = NULL;
    struct sched_stage *st = to_training(&f, &j, 1, 1);

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
    struct sched_job *j = NULL;
    struct sched_stage *st = to_training(&f, &j, 2, 1);

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
    struct sched_job *j = NULL;
    struct sched_stage *st = to_training(&f, &j, 1, 1);

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
    struct sched_job *j = NULL;
    struct sched_task *t = NULL;

    (void)state;
    fixture_open(&f);
    j = fixture_submit(&f, fixture_smoke());
    fixture_up(&f, "a", 1, 3, "c");
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
    struct sched_job *j = NULL;
    struct sched_task *t = NULL;

    (void)state;
    fixture_open(&f);
    j = fixture_submit(&f, fixture_smoke());
    fixture_up(&f, "a", 1, 3, "c");
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

static void test_the_last_slow_range_is_overtaken(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;
    struct sched_task *t = NULL;

    (void)state;
    fixture_open(&f);
    j = fixture_submit(&f, fixture_smoke());
    fixture_up(&f, "a", 1, 3, "c");
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
    struct sched_job *j = NULL;
    struct sched_stage *st = to_training(&f, &j, 2, 4);
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
    struct sched_job *j = NULL;
    struct sched_stage *st = to_training(&f, &j, 2, 2);
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
    struct sched_job *j = NULL;
    struct sched_stage *st = to_training(&f, &j, 2, 4);
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
    for (int i = 0; i < 20; i++) { /* once is enough */
        fixture_tick(&f, 100);
        status(&f, st, 5, late);
    }
    assert_int_equal(f.sched.counters.overtaken, given);
    fixture_close(&f);
}

static void test_two_sessions_share_no_worker(void **state)
{
    struct fixture f;
    struct sched_job *a = NULL, *b = NULL;
    struct sched_stage *st = to_training(&f, &a, 2, 4), *other = NULL;

    (void)state;
    b = fixture_submit(&f, fixture_smoke());
    fixture_up(&f, "w9", 8, 3,
               "c"); /* the first has all the threads it can use: this one serves the second */
    other = stage(b, "attribute-model");
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
        cmocka_unit_test(test_a_pipeline_runs_to_its_end),
        cmocka_unit_test(test_a_stale_result_changes_nothing_and_is_acknowledged),
        cmocka_unit_test(test_results_nobody_waits_for_are_only_acknowledged),
        cmocka_unit_test(test_faults_are_retried_then_quarantined_and_named),
        cmocka_unit_test(test_losses_have_a_budget_of_their_own),
        cmocka_unit_test(test_a_task_that_crashes_three_workers_is_quarantined),
        cmocka_unit_test(test_suspects_and_drainers_get_nothing_new),
        cmocka_unit_test(test_hello_settles_what_a_worker_holds),
        cmocka_unit_test(test_cancel_stops_what_runs),
        cmocka_unit_test(test_max_parallel_and_classes),
        cmocka_unit_test(test_bf16_has_a_class_of_its_own),
        cmocka_unit_test(test_reuse_is_asked_once_and_taken),
        cmocka_unit_test(test_reuse_keeps_to_one_class),
        cmocka_unit_test(test_a_gate_that_does_not_hold_fails_the_stage),
        cmocka_unit_test(test_hosts_and_slots_are_partitions_for_any_fleet),
        cmocka_unit_test(test_compute_workers_come_and_go_inside_an_attempt),
        cmocka_unit_test(test_a_lost_host_restarts_from_the_last_checkpoint),
        cmocka_unit_test(test_a_session_without_hosts_waits),
        cmocka_unit_test(test_a_stalled_session_starts_again),
        cmocka_unit_test(test_a_session_that_never_steps_fails),
        cmocka_unit_test(test_a_hung_range_is_leased_a_second_time_and_counts_once),
        cmocka_unit_test(test_a_shadow_takes_the_place_of_a_lost_lease),
        cmocka_unit_test(test_the_last_slow_range_is_overtaken),
        cmocka_unit_test(test_a_hung_member_has_no_units_until_it_moves),
        cmocka_unit_test(test_a_slow_step_is_given_to_those_who_are_done),
        cmocka_unit_test(test_units_go_by_speed),
        cmocka_unit_test(test_two_sessions_share_no_worker),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
