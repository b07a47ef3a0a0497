/* Nothing is said before it is on the disk: after an answer, another connection to the database sees what was answered; and
 * when the disk is full, or fails, nothing is answered and nothing is sent. */
#include "sched_fixture.h"

#include <sqlite3.h>

#include "base/fault.h"
#include "coordinator/api.h"
#include "coordinator/api_inner.h"
#include "coordinator/coordinator.h"
#include "coordinator/job_id.h"
#include "coordinator/sched_inner.h"

static const char body[] = "{\"spec\": \"apiVersion: steerlm/v1\\nkind: generate\\nname: g\\n"
                           "inputs: {model: \\\"file:m\\\"}\\n"
                           "generate: {from_nothing: 4}\\n\", \"files\": {\"m\": \"%s\"}}";

struct place {
    struct coord_config config;
    struct coordinator *c;
    char body[512], db[96];
};

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    struct digest d;
    struct err e = {0};

    p->config = (struct coord_config){.http = "127.0.0.1:0",
                                      .control = "tcp://127.0.0.1:0",
                                      .lease_ms = 10000,
                                      .heartbeat_ms = 500};
    snprintf(p->config.dir, sizeof p->config.dir, "/tmp/steer-acks-XXXXXX");
    assert_non_null(mkdtemp(p->config.dir));
    snprintf(p->db, sizeof p->db, "%.60s/coordinator.db", p->config.dir);
    if (coordinator_open(&p->config, &p->c, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(blob_put_bytes(p->c->blobs, "m", 1, &d, &e), 0);
    snprintf(p->body, sizeof p->body, body, d.hex);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    struct err e = {0};

    fault_set(NULL, &e);
    coordinator_close(p->c);
    file_remove_tree(p->config.dir, &e);
    free(p);
    return 0;
}

static int submit(struct place *p, const char *key)
{
    struct api_request q = {.method = "POST",
                            .path = "/v1/jobs",
                            .query = "",
                            .body = p->body,
                            .body_len = strlen(p->body),
                            .content_type = "application/json",
                            .idempotency_key = key,
                            .if_none_match = ""};
    struct api_response r = API_RESPONSE_INIT;

    api_handle(p->c, &q, &r);
    buf_free(&r.body);
    return r.status;
}

static void faulty(const char *text)
{
    struct err e = {0};

    assert_int_equal(fault_set(text, &e), 0);
}

/* What somebody else sees in the database: what would be there after a crash at this moment. */
static int64_t committed(const struct place *p, const char *sql)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *s = NULL;
    int64_t n;

    assert_int_equal(sqlite3_open_v2(p->db, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &s, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    n = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    sqlite3_close(db);
    return n;
}

static void test_an_answered_submit_is_committed(void **state)
{
    struct place *p = *state;

    for (int i = 1; i <= 3; i++) {
        char key[16];

        snprintf(key, sizeof key, "key-%d", i);
        assert_int_equal(submit(p, key), 201);
        assert_int_equal(committed(p, "SELECT count(*) FROM jobs WHERE spec <> '{}'"), i);
        assert_int_equal(committed(p, "SELECT count(*) FROM idempotency"), i);
    }
    assert_int_equal(submit(p, "key-2"), 200);
    assert_int_equal(committed(p, "SELECT count(*) FROM jobs"), 3);
}

/* Submits of one turn share a transaction, which SQLite itself rolls back when a read fails in it: those before are not there. */
static void test_a_failed_read_leaves_no_submit_of_its_turn_answered(void **state)
{
    static const char *const errors[] = {"eio", "enospc"};

    for (int k = 0; k < 2; k++) {
        struct place *p = *state;
        struct api_response r[COORDINATOR_SUBMITS_MAX];
        char fault[64];
        int n;

        snprintf(fault, sizeof fault, "journal.key.before:2:err=%s", errors[k]);
        faulty(fault);
        p->c->grouping = true;
        submit(p, "key-a");
        assert_int_equal(submit(p, "key-b"), 503);
        submit(p, "key-c");
        p->c->grouping = false;
        n = p->c->submits_n;
        assert_int_equal(n, 2);
        api_submits_finish(p->c, r);
        for (int i = 0; i < n; i++) {
            assert_int_equal(r[i].status, k == 0 ? 503 : 507);
            buf_free(&r[i].body);
        }
        assert_int_equal(committed(p, "SELECT count(*) FROM jobs"), 0);
        assert_int_equal(p->c->stop, k == 0);
        p->c->stop = false;
        faulty("");
    }
}

/* The transaction is gone and nobody has said so. */
static void test_a_transaction_that_was_rolled_back_is_no_success(void **state)
{
    struct place *p = *state;
    struct api_response r[COORDINATOR_SUBMITS_MAX];
    struct digest none;
    uint64_t id;
    struct err e = {0};

    p->c->grouping = true;
    submit(p, "key-a");
    faulty("journal.key.before:1:err=eio");
    assert_int_equal(journal_find_key(p->c->journal, "key-x", &none, &id, &e), ERR_IO);
    submit(p, "key-b");
    p->c->grouping = false;
    assert_int_equal(p->c->submits_n, 2);
    api_submits_finish(p->c, r);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(r[i].status, 503);
        buf_free(&r[i].body);
    }
    assert_int_equal(committed(p, "SELECT count(*) FROM jobs"), 0);
}

static void test_a_full_disk_is_no_success(void **state)
{
    struct place *p = *state;

    faulty("journal.submit.before:1:err=enospc");
    assert_int_equal(submit(p, "key"), 507);
    assert_int_equal(committed(p, "SELECT count(*) FROM jobs"), 0);
    assert_int_equal(p->c->sched.jobs_n, 0);
    assert_false(p->c->stop);
    faulty(NULL);
    assert_int_equal(submit(p, "key"), 201);
    assert_int_equal(committed(p, "SELECT count(*) FROM jobs"), 1);
}

static void test_a_failing_disk_ends_all_answers(void **state)
{
    struct place *p = *state;

    faulty("journal.submit.before:1:err=eio");
    assert_int_equal(submit(p, "key"), 503);
    assert_true(p->c->stop);
    assert_int_equal(committed(p, "SELECT count(*) FROM jobs"), 0);
}

/* A grant is sent after its commit. No worker is connected here, so what is sent is counted as refused. */
static void test_a_lease_is_committed_before_it_is_sent(void **state)
{
    struct place *p = *state;
    struct sched_event up = {
        .type = SCHED_WORKER_UP, .worker = "a", .threads = 1, .roles = 3, .class_id = "c"};
    uint64_t sent;

    assert_int_equal(submit(p, "key"), 201);
    coordinator_event(p->c, &up);
    sent = p->c->counters.send_refused;
    faulty("journal.commit.before:1:err=enospc");
    assert_false(coordinator_flush(p->c));
    assert_true(p->c->parked);
    assert_int_equal(p->c->counters.send_refused, sent);
    assert_int_equal(committed(p, "SELECT coalesce(max(epoch), 0) FROM tasks"), 0);
    faulty(NULL);
    assert_true(coordinator_flush(p->c));
    assert_false(p->c->parked);
    assert_true(p->c->counters.send_refused > sent);
    assert_int_equal(committed(p, "SELECT max(epoch) FROM tasks"), 1);
}

static void hello(struct place *p, const char *worker)
{
    static const struct link_peer peer = {.id = "abcde", .len = 5};
    struct control *m = control_new(CONTROL_HELLO);
    struct buf frame = BUF_INIT;

    snprintf(m->worker, sizeof m->worker, "%s", worker);
    m->boot = m->roles = m->threads = 1;
    control_pack(m, &frame);
    handlers_message(p->c, &peer, frame.data, frame.len);
    assert_int_equal(p->c->counters.frames_bad, 0);
    buf_free(&frame);
    control_free(m);
}

/* Who is told that it is in quarantine stops: what was decided a moment ago, and is on no disk, must not do that. */
static void test_a_quarantine_is_committed_before_its_worker_hears_of_it(void **state)
{
    struct place *p = *state;
    uint64_t sent;

    assert_true(coordinator_flush(p->c));
    sent = p->c->counters.send_refused;
    sched_quarantine(&p->c->sched, "a", "it was outvoted", &p->c->actions);
    faulty("journal.commit.before:1:err=enospc");
    hello(p, "a");
    assert_true(p->c->parked);
    assert_int_equal(p->c->counters.send_refused, sent);
    faulty(NULL);
    assert_true(coordinator_flush(p->c));
    hello(p, "a");
    assert_int_equal(p->c->counters.send_refused, sent + 1);
}

static const char probe_body[] = "{\"spec\": \"apiVersion: steerlm/v1\\nkind: probe\\nname: p\\n"
                                 "probe: {tasks: 1}\\n\", \"files\": {}}";

/* A job whose last result is in memory, and on no disk. */
static struct sched_job *done_but_for_the_disk(struct place *p, const char *fault)
{
    struct sched_event up = {
        .type = SCHED_WORKER_UP, .worker = "a", .threads = 1, .roles = 3, .class_id = "c"};
    struct sched_event done = {.type = SCHED_TASK_DONE, .worker = "a"};
    struct sched_job *j = NULL;

    snprintf(p->body, sizeof p->body, "%s", probe_body);
    assert_int_equal(submit(p, "key"), 201);
    coordinator_event(p->c, &up);
    assert_true(coordinator_flush(p->c));
    j = p->c->sched.job[0];
    assert_int_equal(j->stage[0].task[0].state, TASK_LEASED);
    faulty(fault);
    done.task = j->stage[0].task[0].id;
    done.epoch = j->stage[0].task[0].epoch;
    done.result = fixture_result();
    coordinator_event(p->c, &done);
    assert_int_equal(j->state, RUN_SUCCEEDED);
    assert_false(coordinator_flush(p->c));
    assert_int_equal(committed(p, "SELECT state='SUCCEEDED' FROM jobs"), 0);
    return j;
}

static struct api_response get(struct place *p, const char *path, const char *query)
{
    struct api_request q = {.method = "GET",
                            .path = path,
                            .query = query,
                            .body = "",
                            .content_type = "",
                            .idempotency_key = "",
                            .if_none_match = ""};
    struct api_response r = API_RESPONSE_INIT;

    api_handle(p->c, &q, &r);
    return r;
}

static void test_a_full_disk_shows_what_is_committed(void **state)
{
    struct place *p = *state;
    struct sched_job *j = done_but_for_the_disk(p, "journal.commit.before:1:err=enospc");
    struct coordinator_wait w = {.job = j->id, .since = j->version - 1};
    struct api_response r = API_RESPONSE_INIT;
    char id[JOB_ID_TEXT], path[64];

    job_id_format(j->id, id);
    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    assert_true(p->c->parked);
    r = get(p, path, "");
    assert_int_equal(r.status, 200);
    assert_null(strstr(r.body.data, "SUCCEEDED"));
    assert_non_null(strstr(r.body.data, "\"PARKED\""));
    assert_non_null(strstr(r.body.data, "DiskFull"));
    assert_null(strstr(r.body.data, "Queued"));
    buf_free(&r.body);
    r = API_RESPONSE_INIT;
    api_wait_answer(p->c, &w, &r);
    assert_true(r.status == 304 || strstr(r.body.data, "SUCCEEDED") == NULL);
    buf_free(&r.body);
    r = get(p, "/v1/jobs", "state=SUCCEEDED");
    assert_null(strstr(r.body.data, id));
    buf_free(&r.body);
    r = get(p, "/v1/jobs", "state=PARKED");
    assert_non_null(strstr(r.body.data, id));
    buf_free(&r.body);
    faulty(NULL);
    assert_true(coordinator_flush(p->c));
    r = get(p, path, "");
    assert_non_null(strstr(r.body.data, "SUCCEEDED"));
    buf_free(&r.body);
}

static void test_a_failing_disk_tells_nothing_of_jobs(void **state)
{
    struct place *p = *state;
    struct sched_job *j = done_but_for_the_disk(p, "journal.commit.before:1:err=eio");
    struct coordinator_wait w = {.job = j->id, .since = j->version - 1};
    struct api_response r = API_RESPONSE_INIT;
    char id[JOB_ID_TEXT], path[64];

    job_id_format(j->id, id);
    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    assert_true(p->c->stop);
    api_wait_answer(p->c, &w, &r);
    assert_int_equal(r.status, 503);
    buf_free(&r.body);
    r = get(p, path, "");
    assert_int_equal(r.status, 503);
    buf_free(&r.body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_an_answered_submit_is_committed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failed_read_leaves_no_submit_of_its_turn_answered,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_transaction_that_was_rolled_back_is_no_success,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_full_disk_is_no_success, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failing_disk_ends_all_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_lease_is_committed_before_it_is_sent, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_a_quarantine_is_committed_before_its_worker_hears_of_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_full_disk_shows_what_is_committed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failing_disk_tells_nothing_of_jobs, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
