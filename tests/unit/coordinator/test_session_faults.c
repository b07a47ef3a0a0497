/* What a session does about gradients that are not finite, or contradict each other too late, and about checkpoints that are damaged. */
#include "handover_fixture.h"

#include <inttypes.h>

#include "wire/control.h"

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
        cmocka_unit_test(test_who_alone_makes_nan_is_put_in_quarantine),
        cmocka_unit_test(test_nan_of_two_workers_is_the_data),
        cmocka_unit_test(test_a_late_conflict_goes_back_and_names_both),
        cmocka_unit_test(test_a_damaged_checkpoint_is_left_for_the_one_before),
        cmocka_unit_test(test_who_comes_late_to_a_damaged_checkpoint_is_no_fault_of_the_job),
        cmocka_unit_test(test_the_list_of_checkpoints_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
