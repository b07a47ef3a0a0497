/*
 * Cancel, pause, resume and retry in every state, on a real coordinator and journal with pretended
 * workers; few jobs are admitted at a time, so that bodies leave memory and come back. What cannot be
 * answers 409 and changes nothing; what was let go on ends as if nobody had touched it.
 */
#include "api_fixture.h"

static void event(struct bench *b, struct sched_event *ev)
{
    coordinator_event(b->c, ev);
    assert_true(coordinator_flush(b->c));
}

static void worker_up(struct bench *b)
{
    struct sched_event ev = {
        .type = SCHED_WORKER_UP, .threads = 4, .roles = 3, .class_id = "c", .worker = "a"};

    event(b, &ev);
}

/* Answers one lease or ends one session of the job. False: nothing is open. */
static bool drive_one(struct bench *b, uint64_t id, int code)
{
    const struct sched_job *j = sched_find_job(&b->c->sched, id);

    for (int i = 0; j != NULL && i < j->stages_n; i++) {
        struct sched_stage *st = &j->stage[i];
        struct sched_event ev = {.type = SCHED_TASK_DONE, .worker = "a"};

        for (uint32_t t = 0; t < st->tasks_n; t++) {
            if (st->task[t].state != TASK_LEASED)
                continue;
            ev.task = st->task[t].id;
            ev.epoch = st->task[t].epoch;
            if (code != 0) {
                ev.type = SCHED_TASK_FAILED;
                ev.code = code;
                ev.text = "because";
            } else {
                ev.result = fixture_result();
            }
            event(b, &ev);
            return true;
        }
        if (code == 0 && st->session != NULL && st->session->open) {
            ev.type = SCHED_SESSION_DONE;
            ev.session = st->session->id;
            ev.attempt = st->session->attempt;
            ev.version = st->phase.session.steps;
            digest_bytes(&ev.version, sizeof ev.version, &ev.digest);
            event(b, &ev);
            return true;
        }
    }
    return false;
}

static enum run_state state_of(const struct bench *b, uint64_t id)
{
    return sched_find_entry(&b->c->sched, id)->state;
}

static void ticks(struct bench *b, uint64_t ahead_ms)
{
    struct sched_event ev = {.type = SCHED_TICK};

    ev.now_ms = b->c->sched.now_ms + ahead_ms; /* retries and openings wait for time */
    ev.wall_ms = clock_wall_ms();
    sched_step(&b->c->sched, &ev, &b->c->actions);
    assert_true(coordinator_flush(b->c));
}

static void drive(struct bench *b, uint64_t id, int code)
{
    for (int turn = 0; turn < 400 && !run_state_is_final(state_of(b, id)); turn++) {
        if (!drive_one(b, id, code))
            ticks(b, 700);
    }
}

static uint64_t new_job(struct bench *b)
{
    char id[32];
    uint64_t v = 0;

    submit(b, "", 201, id);
    assert_true(job_id_parse(id, &v));
    return v;
}

static int verb(struct bench *b, uint64_t id, const char *word, const char *body)
{
    char text[JOB_ID_TEXT], path[96];
    struct api_response r;

    job_id_format(id, text);
    snprintf(path, sizeof path, "/v1/jobs/%s/%s", text, word);
    r = ask(b, "POST", path, "", body, "");
    if (r.status == 409) /* with words */
        assert_non_null(strstr(r.body.data, run_state_name(state_of(b, id))));
    buf_free(&r.body);
    return r.status;
}

/* A job in a state, the oldest of its kind; "" leaves it where it is. */
static uint64_t job_in(struct bench *b, enum run_state state)
{
    uint64_t id = 0;

    if (state == RUN_PENDING) { /* another is before it */
        b->c->sched.config.active_max = 1;
        new_job(b);
        id = new_job(b);
        assert_null(sched_find_job(&b->c->sched, id)); /* its body is in the journal */
    } else {
        id = new_job(b);
    }
    if (state == RUN_STARTING || state == RUN_PENDING)
        return id;
    worker_up(b);
    if (state == RUN_RUNNING) {
        drive_one(b, id, 0);
    } else if (state == RUN_PAUSED) {
        drive_one(b, id, 0);
        assert_int_equal(verb(b, id, "pause", ""), 202);
    } else if (state == RUN_CANCELLED) {
        drive_one(b, id, 0);
        assert_int_equal(verb(b, id, "cancel", ""), 202);
    } else {
        drive(b, id, state == RUN_FAILED ? ERR_INVALID : 0);
    }
    return id;
}

static void test_every_verb_in_every_state(void **state)
{
    static const char *const word[] = {"cancel", "pause", "resume", "retry"};
    static const struct {
        enum run_state from;
        int status[4];
        enum run_state to[4]; /* when 202; STARTING: whatever runs */
    } cases[] = {
        {RUN_PENDING, {202, 202, 409, 409}, {RUN_CANCELLED, RUN_PAUSED, 0, 0}},
        {RUN_STARTING, {202, 202, 409, 409}, {RUN_CANCELLED, RUN_PAUSED, 0, 0}},
        {RUN_RUNNING, {202, 202, 409, 409}, {RUN_CANCELLED, RUN_PAUSED, 0, 0}},
        {RUN_PAUSED, {202, 202, 202, 409}, {RUN_CANCELLED, RUN_PAUSED, RUN_STARTING, 0}},
        {RUN_CANCELLED, {202, 409, 409, 202}, {RUN_CANCELLED, 0, 0, RUN_STARTING}},
        {RUN_FAILED, {202, 409, 409, 202}, {RUN_FAILED, 0, 0, RUN_STARTING}},
        {RUN_SUCCEEDED, {202, 409, 409, 409}, {RUN_SUCCEEDED, 0, 0, 0}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int v = 0; v < 4; v++) {
            struct bench *b = NULL;
            uint64_t id = 0;
            enum run_state now;
            void *s = NULL;

            setup(&s);
            b = s;
            b->c->sched.config.active_min = 1;
            id = job_in(b, cases[i].from);
            assert_int_equal(state_of(b, id), cases[i].from);
            assert_int_equal(verb(b, id, word[v], ""), cases[i].status[v]);
            now = state_of(b, id);
            if (cases[i].status[v] == 409)
                assert_int_equal(now, cases[i].from);
            else if (cases[i].to[v] == RUN_STARTING)
                assert_false(run_state_is_final(now) || now == RUN_PAUSED);
            else
                assert_int_equal(now, cases[i].to[v]);
            coordinator_close(b->c); /* what was answered outlives the process */
            start(b);
            if (run_state_is_final(now) || now == RUN_PAUSED)
                assert_int_equal(state_of(b, id), now);
            teardown(&s);
        }
    }
}

/* Outputs of the whole job as the API shows them. */
static char *outputs_of(struct bench *b, uint64_t id)
{
    char text[JOB_ID_TEXT], path[64], *out = NULL;
    cJSON *o = NULL;

    job_id_format(id, text);
    snprintf(path, sizeof path, "/v1/jobs/%s", text);
    o = asked(b, "GET", path, "", "", "", 200);
    out = cJSON_PrintUnformatted(json_get(o, "outputs"));
    cJSON_Delete(o);
    return out;
}

static uint64_t leases(const struct bench *b, uint64_t id)
{
    const struct sched_job *j = sched_find_job(&b->c->sched, id);
    uint64_t n = 0;

    for (int i = 0; j != NULL && i < j->stages_n; i++) {
        for (uint32_t t = 0; t < j->stage[i].tasks_n; t++)
            n += j->stage[i].task[t].state == TASK_DONE;
    }
    return n;
}

static void test_a_retried_job_keeps_what_was_done(void **state)
{
    struct bench *b = *state;
    uint64_t plain = 0, id = 0, done = 0;
    char *want = NULL, *got = NULL;
    const struct sched_job *j = NULL;
    bool kept = false;

    b->body = realloc(b->body, strlen(b->body) + 64);
    strcpy(strrchr(b->body, '}'), ",\"set\":[\"reuse_verified=false\"]}");
    worker_up(b);
    plain = new_job(b);
    drive(b, plain, 0);
    assert_int_equal(state_of(b, plain), RUN_SUCCEEDED);
    want = outputs_of(b, plain);
    id = new_job(b);
    for (int i = 0; i < 200 && !kept; i++) { /* into the middle of a phase of several ranges */
        j = sched_find_job(&b->c->sched, id);
        for (int k = 0; k < j->stages_n; k++)
            kept = kept || (j->stage[k].phase_open && j->stage[k].tasks_n > 2 &&
                            j->stage[k].tasks_done == 1);
        if (!kept && !drive_one(b, id, 0))
            ticks(b, 700);
    }
    assert_true(kept);
    done = leases(b, id);
    while (!run_state_is_final(state_of(b, id))) {
        if (!drive_one(b, id, ERR_INVALID))
            ticks(b, 31000);
    }
    assert_int_equal(state_of(b, id), RUN_FAILED);
    coordinator_close(b->c);
    start(b);
    worker_up(b);
    assert_int_equal(verb(b, id, "retry", "{\"from\": -1}"), 400);
    assert_int_equal(verb(b, id, "retry", "{\"from\": 7}"), 409); /* no stage was in training */
    assert_int_equal(verb(b, id, "retry", "["), 400);
    assert_int_equal(state_of(b, id), RUN_FAILED);
    assert_int_equal(verb(b, id, "retry", "{}"), 202);
    assert_true(leases(b, id) >= done && done > 0); /* ranges that were done are not done again */
    drive(b, id, 0);
    assert_int_equal(state_of(b, id), RUN_SUCCEEDED);
    got = outputs_of(b, id);
    assert_string_equal(got, want);
    free(got);
    free(want);
}

/* Anything in any order, and the coordinator started again now and then. */
static void hostile(uint32_t seed)
{
    static const char *const word[] = {"cancel", "pause", "resume", "retry"};
    struct bench *b = NULL;
    uint64_t id[12];
    uint32_t r = seed;
    void *s = NULL;

    setup(&s);
    b = s;
    b->c->sched.config.active_min = 2;
    b->c->sched.config.active_max = 3;
    worker_up(b);
    for (int i = 0; i < 12; i++)
        id[i] = new_job(b);
    for (int step = 0; step < 600; step++) {
        uint64_t job = 0;

        r = r * 1664525u + 1013904223u;
        job = id[(r >> 8) % 12];
        switch ((r >> 20) % 16) {
        case 0:
        case 1:
        case 2:
        case 3:
            verb(b, job, word[(r >> 28) % 4], "");
            break;
        case 4:
            if ((r >> 24) % 8 == 0) {
                coordinator_close(b->c);
                start(b);
                b->c->sched.config.active_min = 2;
                b->c->sched.config.active_max = 3;
                worker_up(b);
            }
            break;
        case 5:
            drive_one(b, job, ERR_INVALID);
            break;
        case 6:
            ticks(b, 5000);
            break;
        default:
            for (int i = 0; i < 12; i++)
                drive_one(b, id[i], 0);
        }
        assert_true(b->c->sched.active_n <= 12 && b->c->sched.active_n >= 0);
    }
    for (int i = 0; i < 12; i++) {
        if (state_of(b, id[i]) == RUN_PAUSED)
            assert_int_equal(verb(b, id[i], "resume", ""), 202);
        if (state_of(b, id[i]) == RUN_FAILED || state_of(b, id[i]) == RUN_CANCELLED)
            assert_int_equal(verb(b, id[i], "retry", ""), 202);
    }
    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < 12; i++)
            drive(b, id[i], 0);
    }
    for (int i = 0; i < 12; i++) {
        if (state_of(b, id[i]) != RUN_SUCCEEDED)
            fail_msg("seed %u: job %d is %s", seed, i, run_state_name(state_of(b, id[i])));
    }
    assert_int_equal(b->c->sched.active_n, 0);
    assert_int_equal(b->c->sched.count[RUN_SUCCEEDED], 12);
    teardown(&s);
}

static void test_anything_in_any_order_ends_well(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 6; seed++)
        hostile(seed);
}

static void test_jobs_that_wait_are_not_in_memory(void **state)
{
    struct bench *b = *state;
    uint64_t id[40];
    int started = 0;

    for (int i = 0; i < 40; i++)
        id[i] = new_job(b);
    assert_int_equal(b->c->sched.jobs_n, 32);
    assert_int_equal(b->c->sched.count[RUN_PENDING], 8);
    assert_int_equal(verb(b, id[3], "cancel", ""), 202); /* the oldest that waits takes its place */
    assert_int_equal(state_of(b, id[32]), RUN_STARTING);
    assert_int_equal(state_of(b, id[33]), RUN_PENDING);
    assert_int_equal(verb(b, id[34], "cancel", ""), 202);
    assert_int_equal(verb(b, id[35], "pause", ""), 202);
    coordinator_close(b->c);
    start(b);
    for (int i = 0; i < 40; i++)
        started += state_of(b, id[i]) == RUN_STARTING;
    assert_int_equal(started, 32);
    assert_int_equal(b->c->sched.entries_n, 40);
    assert_int_equal(verb(b, id[35], "resume", ""), 202);
    assert_int_equal(state_of(b, id[35]), RUN_PENDING);
    worker_up(
        b); /* it has nothing to do that could not be shared: more are let in, one at a time */
    drive(b, id[0], 0);
    assert_int_equal(state_of(b, id[0]), RUN_SUCCEEDED);
    assert_true(state_of(b, id[33]) != RUN_PENDING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_verb_in_every_state),
        cmocka_unit_test_setup_teardown(test_a_retried_job_keeps_what_was_done, setup, teardown),
        cmocka_unit_test(test_anything_in_any_order_ends_well),
        cmocka_unit_test_setup_teardown(test_jobs_that_wait_are_not_in_memory, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
