#include "coordinator/sched_inner.h"
#include "sched_fixture.h"
#include "wire/control.h"

struct said {
    const char *worker;
    uint64_t hash;
};

/* A host says what others have said about leaf 0 of step 0. */
static void opinion(struct fixture *f, const struct sched_stage *st, const struct said *said, int n,
                    const char *odd, bool tainted)
{
    struct sched_voice voice[8];
    struct sched_event ev = {.type = SCHED_SESSION_OPINION,
                             .session = st->session->id,
                             .attempt = st->session->attempt,
                             .node = {0, 0},
                             .voice = voice,
                             .voices_n = n,
                             .settled = odd != NULL,
                             .tainted = tainted};

    for (int i = 0; i < n; i++)
        voice[i] = (struct sched_voice){control_who(said[i].worker), said[i].hash};
    if (odd != NULL && *odd != '\0')
        ev.odd = control_who(odd);
    snprintf(ev.worker, sizeof ev.worker, "%s", st->session->host[0].worker);
    fixture_step(f, &ev);
}

/* The slot of the open step; NULL: none. */
static const struct sched_slot *asked(const struct sched_stage *st)
{
    const struct sched_slot *last = NULL;

    for (int i = 0; i < st->session->slots_n; i++) {
        if (st->session->slot[i].only_step != 0)
            last = &st->session->slot[i];
    }
    return last;
}

static void test_a_worker_that_has_not_spoken_is_asked(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 3, 2);
    const struct said one[] = {{"w0", 1}}, two[] = {{"w0", 1}, {"w1", 2}};

    (void)state;
    opinion(&f, st, one, 1, NULL, false);
    assert_non_null(asked(st));
    assert_string_not_equal(asked(st)->worker, "w0");
    assert_int_equal(asked(st)->only_step, 1);
    assert_int_equal(asked(st)->leaf_begin, 0);
    assert_int_equal(asked(st)->leaf_end, 1);
    assert_int_equal(fixture_count(&f, SCHED_SEND_ASSIGN), 3);
    opinion(&f, st, one, 1, NULL, false); /* it has been asked: patience */
    assert_int_equal(fixture_count(&f, SCHED_SEND_ASSIGN), 0);
    assert_int_equal(f.sched.counters.disputed, 0);
    f.now_ms += 2500; /* too long: somebody else */
    opinion(&f, st, one, 1, NULL, false);
    assert_string_equal(asked(st)->worker, "w2");
    opinion(&f, st, two, 2, NULL, false);
    assert_int_equal(f.sched.counters.disputed, 1);
    opinion(&f, st, two, 2, NULL, false);
    assert_int_equal(f.sched.counters.disputed, 1); /* once */
    fixture_close(&f);
}

/* A third opinion may take long: as long as hosts repeat it, it is the same question. */
static void test_a_question_lasts_as_long_as_it_is_repeated(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 3, 2);
    const struct said two[] = {{"w0", 1}, {"w1", 2}};

    (void)state;
    st->session->step.usual_ms = 20000;
    for (int i = 0; i < 40; i++) {
        opinion(&f, st, two, 2, NULL, false);
        fixture_tick(&f, 500);
    }
    assert_int_equal(f.sched.counters.disputed, 1);
    assert_int_equal(st->session->questions_n, 1);
    assert_int_equal(st->session->question[0].asks, 1);
    fixture_tick(&f, 6000);
    assert_int_equal(st->session->questions_n, 0);
    fixture_close(&f);
}

static void test_an_audit_is_waived_when_there_is_nobody_to_ask(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 1, 2);
    const struct said one[] = {{"w0", 1}};

    (void)state;
    opinion(&f, st, one, 1, NULL, false);
    assert_null(asked(st));
    assert_int_equal(fixture_count(&f, SCHED_SEND_WAIVE), st->session->hosts_n);
    fixture_close(&f);
}

static void test_the_outvoted_worker_is_quarantined_until_it_is_released(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 3, 2);
    struct sched_job *j = st->job;
    const struct said all[] = {{"w0", 1}, {"w2", 9}, {"w1", 1}};
    uint64_t attempt = st->session->attempt;

    (void)state;
    opinion(&f, st, all, 3, "w2", false);
    assert_int_equal(fixture_count(&f, SCHED_QUARANTINE), 1);
    assert_int_equal(f.sched.counters.quarantined, 1);
    assert_non_null(sched_quarantined(&f.sched, "w2"));
    assert_non_null(strstr(sched_quarantined(&f.sched, "w2")->reason, "units [0, 1)"));
    assert_null(sched_find_worker(&f.sched, "w2")->in);
    opinion(&f, st, all, 3, "w2", false); /* hosts say it more than once */
    assert_int_equal(f.sched.counters.quarantined, 1);
    fixture_mark(&f, SCHED_WORKER_GONE, "w2", false);
    fixture_up(&f, "w2", 2, 3, "c"); /* and it comes back */
    assert_true(sched_find_worker(&f.sched, "w2")->quarantined);
    assert_null(sched_find_worker(&f.sched, "w2")->in);
    fixture_mark(&f, SCHED_WORKER_RELEASE, "w2", false);
    assert_null(sched_quarantined(&f.sched, "w2"));
    assert_false(sched_find_worker(&f.sched, "w2")->quarantined);
    assert_true(st->session->attempt >= attempt);
    assert_false(run_state_is_final(j->state));
    fixture_close(&f);
}

static void test_a_tainted_step_is_started_again(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 3, 2);
    struct sched_job *j = st->job;
    const struct said all[] = {{"w2", 9}, {"w0", 1}, {"w1", 1}};

    (void)state;
    opinion(&f, st, all, 3, "", true); /* nobody can be named: its parts were several workers' */
    assert_int_equal(fixture_count(&f, SCHED_SEND_FREEZE), st->session->hosts_n);
    assert_int_equal(st->session->change, CHANGE_AGAIN);
    opinion(&f, st, all, 3, "", true); /* said again: once is enough */
    assert_int_equal(fixture_count(&f, SCHED_SEND_FREEZE), 0);
    assert_int_equal(f.sched.counters.quarantined, 0);
    assert_false(run_state_is_final(j->state));
    fixture_close(&f);
}

static void
test_two_that_disagree_are_asked_again_and_then_the_job_fails_and_names_them(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 2, 2);
    struct sched_job *j = st->job;
    const struct said two[] = {{"w0", 1}, {"w1", 2}};
    bool w0 = false, w1 = false;
    int asks = 0;

    (void)state;
    for (int i = 0; i < 200 && j->state != RUN_FAILED; i++) {
        f.now_ms += 100;
        opinion(&f, st, two, 2, NULL, false);
        if (fixture_count(&f, SCHED_SEND_ASSIGN) == 0)
            continue;
        asks++;
        w0 = w0 || strcmp(asked(st)->worker, "w0") == 0;
        w1 = w1 || strcmp(asked(st)->worker, "w1") == 0;
        assert_int_equal(asked(st)->again, asks); /* else they would not compute it again */
    }
    assert_int_equal(j->state, RUN_FAILED);
    assert_true(w0 && w1 && asks >= 4);
    assert_non_null(strstr(j->failure.message, "w0 and w1 compute different gradients"));
    assert_int_equal(f.sched.quarantine_n, 0);
    fixture_close(&f);
}

static void test_one_that_is_contradicted_by_who_has_gone_begins_anew(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 1, 2);
    const struct said two[] = {{"gone", 1}, {"w0", 2}};
    uint64_t attempt = st->session->attempt;

    (void)state;
    for (int i = 0; i < 200 && st->session->attempt == attempt; i++) {
        f.now_ms += 100;
        opinion(&f, st, two, 2, NULL, false);
        if (!st->session->open)
            fixture_tick(&f, 2000);
    }
    assert_true(st->session->open && st->session->attempt > attempt);
    assert_int_equal(f.sched.counters.rolled_back, 1);
    assert_false(run_state_is_final(st->job->state));
    fixture_close(&f);
}

static void test_another_class_is_told_once_and_any_takes_all(void **state)
{
    struct fixture f;
    struct sched_stage *st = fixture_training(&f, 2, 2);
    struct sched_job *j = st->job;
    struct spec *any = fixture_smoke();

    (void)state;
    fixture_up(&f, "x", 2, 3, "other");
    assert_int_equal(fixture_count(&f, SCHED_SEND_NOTE), 1);
    assert_int_equal(f.sched.counters.refused, 1);
    assert_null(sched_find_worker(&f.sched, "x")->in);
    assert_true(st->session->open);
    snprintf(any->numerics, sizeof any->numerics, "any");
    j = fixture_submit(&f, any);
    assert_string_equal(j->class_id, SCHED_ANY_CLASS);
    assert_int_equal(j->stage[0].task[0].state, TASK_LEASED);
    assert_string_equal(j->stage[0].task[0].worker, "x");
    assert_int_equal(f.sched.counters.refused, 1);
    fixture_close(&f);
}

/* The outputs of a task as `bits` says. */
static void answer(struct fixture *f, const struct sched_task *t, const char *bits)
{
    struct sched_event ev = {
        .type = SCHED_TASK_DONE, .task = t->id, .epoch = t->epoch, .result = fixture_result()};
    cJSON *outputs = cJSON_GetObjectItem(ev.result, "outputs");
    struct digest d;

    digest_bytes(bits, strlen(bits), &d);
    cJSON_ReplaceItemInObject(outputs, "part", cJSON_CreateString(d.hex));
    snprintf(ev.worker, sizeof ev.worker, "%s", t->worker);
    fixture_step(f, &ev);
}

static struct sched_task *audited_task(struct fixture *f, struct sched_job **j, int workers)
{
    struct spec *spec = fixture_smoke();
    char id[16];

    fixture_open(f);
    spec->audit = 1;
    *j = fixture_submit(f, spec);
    for (int i = 0; i < workers; i++) {
        snprintf(id, sizeof id, "w%d", i);
        fixture_up(f, id, 2, 3, "c");
    }
    return &(*j)->stage[0].task[0];
}

static void test_an_audited_range_counts_when_two_workers_agree(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;
    struct sched_task *t = audited_task(&f, &j, 3);
    char first[SCHED_WORKER_MAX];

    (void)state;
    memcpy(first, t->worker, sizeof first);
    answer(&f, t, "right");
    assert_int_equal(fixture_count(&f, SCHED_SEND_ACK), 1);
    assert_int_equal(t->state, TASK_LEASED); /* again, to somebody else */
    assert_int_equal(t->epoch, 2);
    assert_string_not_equal(t->worker, first);
    assert_int_equal(j->stage[0].tasks_done, 0);
    answer(&f, t, "right");
    assert_int_equal(t->state, TASK_DONE);
    assert_int_equal(f.sched.counters.audited, 1);
    assert_int_equal(f.sched.quarantine_n, 0);
    fixture_close(&f);
}

static void test_who_makes_other_rows_is_quarantined(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;
    struct sched_task *t = audited_task(&f, &j, 3);
    char odd[SCHED_WORKER_MAX];

    (void)state;
    memcpy(odd, t->worker, sizeof odd);
    answer(&f, t, "wrong");
    answer(&f, t, "right");
    assert_int_equal(f.sched.counters.disputed, 1);
    assert_int_equal(t->state, TASK_LEASED);
    answer(&f, t, "right");
    assert_int_equal(t->state, TASK_DONE);
    assert_int_equal(f.sched.quarantine_n, 1);
    assert_string_equal(f.sched.quarantine[0].worker, odd);
    assert_int_equal(f.sched.counters.audited, 0);
    fixture_close(&f);
}

/* What it alone had made before it was found out is made again by others. */
static void test_rows_of_who_is_quarantined_are_done_again(void **state)
{
    static const char ranges[] = "apiVersion: steerlm/v1\n"
                                 "kind: generate\n"
                                 "name: rows\n"
                                 "inputs: {model: \"file:model\"}\n"
                                 "generate: {from_nothing: 300, rows_per_task: 50}\n";
    struct fixture f;
    struct sched_job *j = NULL;
    struct sched_stage *st = NULL;
    struct sched_task *t = NULL;

    (void)state;
    fixture_open(&f);
    j = fixture_submit(&f, fixture_spec(ranges));
    fixture_up(&f, "a", 1, 3, "c");
    st = &j->stage[j->stages_n - 1];
    for (int i = 0; i < 10 && st->tasks_n < 6; i++)
        fixture_done(&f, &st->task[0], st->task[0].epoch);
    for (int i = 0; i < 2; i++)
        answer(&f, &st->task[i], "not asked about");
    assert_int_equal(st->tasks_done, 2);
    j->spec->audit = 1;
    t = &st->task[2];
    assert_string_equal(t->worker, "a");
    fixture_up(&f, "b", 1, 3, "c");
    fixture_up(&f, "d", 1, 3, "c");
    answer(&f, t, "wrong");
    for (int i = 0; i < 20 && t->state != TASK_DONE;
         i++) /* others first have ranges of their own */
        for (uint32_t k = 2; k < st->tasks_n; k++)
            if (st->task[k].state == TASK_LEASED && strcmp(st->task[k].worker, "a") != 0)
                answer(&f, &st->task[k], "right");
    assert_int_equal(t->state, TASK_DONE);
    assert_non_null(sched_quarantined(&f.sched, "a"));
    for (int i = 0; i < 2; i++) {
        assert_int_not_equal(st->task[i].state, TASK_DONE);
        assert_null(st->task[i].result);
    }
    for (int i = 0; i < 40 && st->tasks_n == 6; i++)
        for (uint32_t k = 0; k < st->tasks_n && st->tasks_n == 6; k++)
            if (st->task[k].state == TASK_LEASED) {
                assert_string_not_equal(st->task[k].worker, "a");
                answer(&f, &st->task[k], "right");
            }
    assert_int_not_equal(st->tasks_n, 6); /* the next phase */
    fixture_close(&f);
}

static void test_rows_of_a_job_that_was_not_in_memory_are_done_again_as_well(void **state)
{
    static const enum run_state states[] = {RUN_PAUSED, RUN_FAILED};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        struct sched_event ev = {
            .type = i == 0 ? SCHED_LOADED : SCHED_RETRY, .job_id = 7, .stage_index = -1};
        const struct sched_stage *st = NULL;

        fixture_open(&f);
        sched_restore_entry(&f.sched, 7, states[i]);
        sched_quarantine_restore(&f.sched, "a", "outvoted", 1);
        ev.job = fixture_stored(&f, states[i]);
        st = &ev.job->stage[0];
        fixture_step(&f, &ev);
        assert_int_equal(st->tasks_done, 0);
        assert_int_equal(st->task[3].state, TASK_PENDING);
        assert_int_equal(f.sched.counters.recomputed, 4);
        fixture_close(&f);
    }
}

static void test_an_audit_of_rows_is_waived_or_the_job_names_both(void **state)
{
    struct fixture f;
    struct sched_job *j = NULL;
    struct sched_task *t = audited_task(&f, &j, 1);

    (void)state;
    answer(&f, t, "right");
    assert_int_equal(t->state, TASK_DONE);
    fixture_close(&f);
    t = audited_task(&f, &j, 2);
    answer(&f, t, "right");
    fixture_mark(&f, SCHED_WORKER_GONE, t->worker, true); /* nobody else is left: from the start */
    fixture_tick(&f, 60000);
    assert_int_equal(t->state, TASK_LEASED);
    assert_int_equal(t->voices_n, 0);
    fixture_close(&f);
    t = audited_task(&f, &j, 2);
    answer(&f, t, "one");
    answer(&f, t, "other");
    assert_int_equal(j->state, RUN_FAILED);
    assert_non_null(strstr(j->failure.message, "w0 and w1"));
    assert_int_equal(sched_find_worker(&f.sched, "w0")->running, 0);
    assert_int_equal(sched_find_worker(&f.sched, "w1")->running, 0);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_worker_that_has_not_spoken_is_asked),
        cmocka_unit_test(test_an_audit_is_waived_when_there_is_nobody_to_ask),
        cmocka_unit_test(test_the_outvoted_worker_is_quarantined_until_it_is_released),
        cmocka_unit_test(test_a_tainted_step_is_started_again),
        cmocka_unit_test(
            test_two_that_disagree_are_asked_again_and_then_the_job_fails_and_names_them),
        cmocka_unit_test(test_one_that_is_contradicted_by_who_has_gone_begins_anew),
        cmocka_unit_test(test_an_audited_range_counts_when_two_workers_agree),
        cmocka_unit_test(test_who_makes_other_rows_is_quarantined),
        cmocka_unit_test(test_rows_of_who_is_quarantined_are_done_again),
        cmocka_unit_test(test_rows_of_a_job_that_was_not_in_memory_are_done_again_as_well),
        cmocka_unit_test(test_an_audit_of_rows_is_waived_or_the_job_names_both),
        cmocka_unit_test(test_another_class_is_told_once_and_any_takes_all),
        cmocka_unit_test(test_a_question_lasts_as_long_as_it_is_repeated),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
