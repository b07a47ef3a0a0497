#include "coordinator/sched_inner.h"
#include "sched_fixture.h"

/* ---- tasks ----------------------------------------------------------------------------------- */

static void test_a_pipeline_runs_to_its_end(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;

    (void)state;
    fixture_open(&f);
    j = fixture_submit(&f, fixture_smoke());
    assert_string_equal(j->stage[0].name, "data/chat");
    assert_int_equal(j->stage[0].state, RUN_STARTING); /* nobody there yet */
    assert_int_equal(fixture_stage(j, "annotate")->state, RUN_PENDING);
    fixture_up(&f, "a", 2, 3, "c");
    fixture_up(&f, "b", 1, 3, "c");
    fixture_run(&f, j);
    assert_int_equal(j->state, RUN_SUCCEEDED);
    assert_int_equal(
        cJSON_GetArraySize(json_get(fixture_stage(j, "attribute-model")->outputs, "model")),
        2); /* one a fold */
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
    struct sched_job *j = fixture_started(&f);
    struct sched_task *t = &j->stage[0].task[0];

    (void)state;
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
    assert_int_equal(fixture_stage(j, "data/chat")->state, RUN_SUCCEEDED);
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
    struct sched_job *j = fixture_started(&f);

    (void)state;
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
    struct sched_job *j = fixture_started(&f);
    struct sched_task *t = &j->stage[0].task[0];

    (void)state;
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
    assert_int_equal(fixture_stage(j, "report")->state, RUN_SKIPPED);
    fixture_close(&f);
}

static void test_what_a_task_finds_damaged_is_looked_at(void **state)
{
    struct fixture f;
    struct sched_job *j = fixture_started(&f);

    (void)state;
    fixture_failed(&f, &j->stage[0].task[0], ERR_CORRUPT);
    assert_int_equal(fixture_count(&f, SCHED_MEND), 1);
    fixture_tick(&f, 2000);
    fixture_failed(&f, &j->stage[0].task[0], ERR_INVALID);
    assert_int_equal(fixture_count(&f, SCHED_MEND), 0);
    fixture_close(&f);
}

/* A damaged input left the store: no machine will find it, however often the task is tried. */
static void test_a_task_whose_input_is_gone_fails_within_minutes(void **state)
{
    struct fixture f;
    struct sched_job *j = fixture_started(&f);
    struct sched_task *t = &j->stage[0].task[0];
    uint64_t since = f.now_ms;

    (void)state;
    f.sched.config.loss_budget = 1000;
    f.sched.config.missing_budget = 20;
    fixture_failed(&f, t, ERR_CORRUPT);
    for (int found = 0; found < 20; found++) {
        for (int i = 0; i < 35 && t->state != TASK_LEASED; i++)
            fixture_tick(&f, 1000);
        fixture_failed(&f, t, ERR_NOT_FOUND);
        assert_int_equal(j->state, RUN_RUNNING);
    }
    fixture_tick(&f, 30000);
    fixture_failed(&f, t, ERR_UNREACHABLE); /* that says nothing of it */
    assert_int_equal(j->state, RUN_RUNNING);
    fixture_tick(&f, 30000);
    fixture_failed(&f, t, ERR_NOT_FOUND);
    assert_int_equal(j->state, RUN_FAILED);
    assert_string_equal(j->failure.class_name, "data");
    assert_int_equal(j->failure.code, ERR_NOT_FOUND);
    assert_non_null(strstr(j->failure.message, "21 times, last: because"));
    assert_true(f.now_ms - since < 10 * 60000);
    fixture_close(&f);
}

static void test_losses_have_a_budget_of_their_own(void **state)
{
    struct fixture f;
    struct sched_job *j = fixture_started(&f);

    (void)state;
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

/* It stays full until somebody makes room: the task waits as long as that takes. */
static void test_a_full_disk_does_not_use_up_the_budget(void **state)
{
    struct fixture f;
    struct sched_job *j = fixture_started(&f);
    struct sched_task *t = &j->stage[0].task[0];

    (void)state;
    for (int i = 0; i < 20; i++) {
        fixture_failed(&f, t, ERR_NO_SPACE);
        assert_int_equal(t->state, TASK_RETRY_WAIT);
        assert_int_equal(t->code, ERR_NO_SPACE);
        if (i > 10) {
            fixture_tick(&f, 29000); /* the usual most */
            assert_int_equal(t->state, TASK_RETRY_WAIT);
        }
        fixture_tick(&f, i > 10 ? 1000 : 30000);
        assert_int_equal(t->state, TASK_LEASED);
    }
    assert_int_equal(t->losses, 0);
    assert_int_equal(f.sched.counters.parked, 20);
    fixture_done(&f, t, t->epoch);
    assert_int_equal(j->stage[0].state, RUN_SUCCEEDED);
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

/* Outages of the network look like deaths until the worker is back: then they do not count against the task. */
static void test_who_returns_did_not_die_of_the_task(void **state)
{
    static const char *const holder[] = {"a", "b", "c"};

    (void)state;
    for (int returned = 0; returned < 2; returned++) {
        struct fixture f;
        struct sched_job *j = NULL;
        struct sched_task *t = NULL;

        fixture_open(&f);
        j = fixture_submit(&f, fixture_smoke());
        t = &j->stage[0].task[0];
        fixture_up(&f, "a", 1, 3, "c");
        for (int i = 0; i < 3; i++) {
            struct sched_event back = {.type = SCHED_WORKER_UP,
                                       .threads = 1,
                                       .roles = 3,
                                       .class_id = "c",
                                       .returned = returned};

            assert_string_equal(t->worker, holder[i]);
            if (i < 2)
                fixture_up(&f, holder[i + 1], 1, 3, "c"); /* who takes over */
            fixture_mark(&f, SCHED_WORKER_GONE, holder[i], true);
            snprintf(back.worker, sizeof back.worker, "%s", holder[i]);
            fixture_step(&f, &back);
            if (i == 2)
                break;
            assert_int_equal(t->crashes, returned ? 0 : i + 1);
            assert_int_equal(fixture_count(&f, SCHED_SAVE_TASK), returned);
            fixture_mark(&f, SCHED_WORKER_SUSPECT, holder[i], false); /* another one is next */
        }
        assert_int_equal(j->state == RUN_FAILED, !returned);
        if (returned)
            assert_int_equal(t->state, TASK_LEASED);
        fixture_close(&f);
    }
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
    struct sched_job *j = fixture_started(&f);
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
    struct sched_job *j = fixture_started(&f);
    struct sched_event ev = {.type = SCHED_CANCEL, .job_id = 1};

    (void)state;
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

/* ---- stages ---------------------------------------------------------------------------------- */

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

/* A newer build may say more in it than the one that opened the phase. */
static void test_the_context_of_a_restored_phase_is_stored_again(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;

    (void)state;
    fixture_open(&f);
    j = fixture_stored(&f, RUN_RUNNING);
    sched_restore(&f.sched, j);
    sched_restored(&f.sched, f.now_ms);
    fixture_up(&f, "b", 1, 3, "c");
    assert_int_equal(fixture_count(&f, SCHED_CONTEXT), 1);
    assert_int_equal(fixture_count(&f, SCHED_SEND_TASK), 1);
    fixture_up(&f, "d", 1, 3, "c");
    assert_int_equal(fixture_count(&f, SCHED_CONTEXT), 0);
    fixture_close(&f);
}

static void parts_add(struct sched_stage *st, const char *phase, uint32_t n)
{
    cJSON *entry = cJSON_AddObjectToObject(st->done, phase);
    cJSON *parts = cJSON_AddArrayToObject(entry, "parts");
    struct digest d;

    digest_bytes(phase, strlen(phase), &d);
    for (uint32_t i = 0; i < n; i++)
        cJSON_AddItemToArray(parts, cJSON_CreateString(d.hex));
}

/* The last phase of a bootstrap job names the parts of the two before it. */
static void test_the_context_of_most_tasks_is_not_too_long_for_a_worker(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;
    struct buf text = BUF_INIT;
    struct err e = {0};
    cJSON *back = NULL;

    (void)state;
    fixture_open(&f);
    j = fixture_submit(&f, fixture_smoke());
    parts_add(&j->stage[0], "bootstrap.sample", SCHED_TASKS_MAX);
    parts_add(&j->stage[0], "bootstrap.score", SCHED_TASKS_MAX);
    sched_context(&j->stage[0], &text);
    assert_true(text.len > (size_t)2 * SCHED_TASKS_MAX * (DIGEST_HEX + 2));
    assert_true(text.len <= KIND_CONTEXT_MAX);
    assert_int_equal(json_parse(text.data, text.len, JSON_LIMITS_FILE, &back, &e), 0);
    cJSON_Delete(back);
    buf_free(&text);
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
            fixture_up(&f, "w1", 1, SCHED_ROLE_COMPUTE, cases[i].worker);
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
    assert_int_equal(fixture_stage(j, "attribute-model")->state, RUN_FAILED);
    assert_non_null(strstr(j->failure.message, "rows is 300, must be at most 299"));
    assert_int_equal(fixture_stage(j, "annotate")->state, RUN_SKIPPED);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_pipeline_runs_to_its_end),
        cmocka_unit_test(test_a_stale_result_changes_nothing_and_is_acknowledged),
        cmocka_unit_test(test_results_nobody_waits_for_are_only_acknowledged),
        cmocka_unit_test(test_faults_are_retried_then_quarantined_and_named),
        cmocka_unit_test(test_what_a_task_finds_damaged_is_looked_at),
        cmocka_unit_test(test_a_task_whose_input_is_gone_fails_within_minutes),
        cmocka_unit_test(test_losses_have_a_budget_of_their_own),
        cmocka_unit_test(test_a_full_disk_does_not_use_up_the_budget),
        cmocka_unit_test(test_a_task_that_crashes_three_workers_is_quarantined),
        cmocka_unit_test(test_who_returns_did_not_die_of_the_task),
        cmocka_unit_test(test_suspects_and_drainers_get_nothing_new),
        cmocka_unit_test(test_hello_settles_what_a_worker_holds),
        cmocka_unit_test(test_cancel_stops_what_runs),
        cmocka_unit_test(test_max_parallel_and_classes),
        cmocka_unit_test(test_bf16_has_a_class_of_its_own),
        cmocka_unit_test(test_the_context_of_a_restored_phase_is_stored_again),
        cmocka_unit_test(test_the_context_of_most_tasks_is_not_too_long_for_a_worker),
        cmocka_unit_test(test_reuse_is_asked_once_and_taken),
        cmocka_unit_test(test_reuse_keeps_to_one_class),
        cmocka_unit_test(test_a_gate_that_does_not_hold_fails_the_stage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
