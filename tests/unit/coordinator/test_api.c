/* The API on a real coordinator: routes, submits, lists, waits. */
#include "api_fixture.h"
#include "coordinator/journal_inner.h"

static void test_a_key_makes_one_job(void **state)
{
    struct bench *b = *state;
    char first[32], again[32], other[32], *changed = NULL;

    submit(b, "key-1", 201, first);
    submit(b, "key-1", 200, again);
    assert_string_equal(first, again);
    submit(b, "key-2", 201, other);
    assert_string_not_equal(first, other);
    submit(b, "", 201, other); /* without a key each is a new job */
    changed = malloc(strlen(b->body) + 2);
    sprintf(changed, "%s ", b->body);
    cJSON_Delete(asked(b, "POST", "/v1/jobs", "", changed, "key-1", 409));
    free(changed);
    coordinator_close(b->c); /* the key outlives the process */
    start(b);
    submit(b, "key-1", 200, again);
    assert_string_equal(first, again);
    assert_int_equal(b->c->sched.jobs_n, 3);
}

static void test_bad_submits_are_refused_with_the_place(void **state)
{
    static const char missing[] =
        "{\"spec\": \"apiVersion: steerlm/v1\\nkind: generate\\nname: g\\ninputs: {model: "
        "\\\"file:m\\\"}\\n\","
        "\"files\": {\"m\": \"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"}}";
    static const struct {
        const char *body;
        int status;
    } cases[] = {
        {"", 400},
        {"[", 400},
        {"[]", 400},
        {"{}", 400},
        {"{\"spec\": 1}", 400},
        {"{\"spec\": \"\"}", 422},
        {"{\"spec\": \"a: [\"}", 422},
        {"{\"spec\": \"apiVersion: steerlm/v1\\nkind: sft\\nnmae: x\\n\"}", 422},
        {"{\"spec\": \"kind: sft\", \"files\": []}", 400},
        {"{\"spec\": \"kind: sft\", \"files\": {\"a\": \"b\"}}", 400},
        {"{\"spec\": \"kind: sft\", \"set\": [1]}", 400},
        {"{\"spec\": \"kind: sft\", \"set\": \"train.lr=1\"}", 400},
        {"{\"spec\": \"kind: sft\", \"set\": {\"train\": \"train.lr=1\"}}", 400},
        {missing, 422},
    };
    struct bench *b = *state;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cJSON *o = asked(b, "POST", "/v1/jobs", "", cases[i].body, "", cases[i].status);

        assert_true(strlen(json_string_or(o, "detail", "")) > 0);
        if (cases[i].status == 422)
            assert_true(cJSON_GetArraySize(json_get(o, "errors")) > 0);
        cJSON_Delete(o);
    }
    assert_int_equal(b->c->sched.jobs_n, 0);
}

static void test_a_plan_keeps_nothing(void **state)
{
    struct bench *b = *state;
    cJSON *o = asked(b, "POST", "/v1/jobs", "validate_only=true", b->body, "", 200);

    assert_int_equal(cJSON_GetArraySize(json_get(json_get(o, "plan"), "stages")), 6);
    assert_non_null(strstr(json_string_or(json_get(o, "plan"), "text", ""), "attribute-model"));
    cJSON_Delete(o);
    assert_int_equal(b->c->sched.jobs_n, 0);
}

static void test_a_job_is_watched_and_cancelled(void **state)
{
    struct bench *b = *state;
    char id[32], path[64], query[128];
    cJSON *o = NULL;
    struct api_response r;
    struct coordinator_wait w;

    submit(b, "", 201, id);
    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    o = asked(b, "GET", path, "", "", "", 200);
    assert_string_equal(json_string_or(json_get(o, "reasons")->child, "code", ""),
                        "WaitingForWorkers");
    snprintf(query, sizeof query, "since=%.0f", json_number_or(o, "version", 0));
    cJSON_Delete(o);
    expect_status(b, "GET", path, query, "", 304);
    strcat(query, "&wait=30s");
    r = ask(b, "GET", path, query, "", "");
    assert_true(r.wait);
    w = api_wait_of(&(struct api_request){.method = "GET", .path = path, .query = query});
    assert_true(w.until_ms > clock_ms() + 25000 && w.until_ms < clock_ms() + 35000);
    r = API_RESPONSE_INIT;
    api_wait_answer(b->c, &w, &r);
    assert_int_equal(r.status, 304);
    snprintf(query, sizeof query, "%s/cancel", path);
    expect_status(b, "GET", query, "", "", 405);
    o = asked(b, "POST", query, "", "", "", 202);
    assert_string_equal(json_string_or(o, "state", ""), "CANCELLED");
    cJSON_Delete(o);
    r = API_RESPONSE_INIT;
    api_wait_answer(b->c, &w, &r);
    assert_int_equal(r.status, 200);
    buf_free(&r.body);
    expect_status(b, "POST", query, "", "", 202); /* again: the same */
}

static void test_lists_and_pages(void **state)
{
    static const char *const parts[] = {"spec", "tasks", "events", "series", "series?", "logs"};
    struct bench *b = *state;
    char id[5][32], path[96], query[64];
    cJSON *o = NULL;

    for (int i = 0; i < 5; i++)
        submit(b, "", 201, id[i]);
    o = asked(b, "GET", "/v1/jobs", "limit=3", "", "", 200);
    assert_int_equal(cJSON_GetArraySize(json_get(o, "items")), 3);
    assert_string_equal(json_string_or(json_get(o, "items")->child, "id", ""),
                        id[4]); /* newest first */
    snprintf(query, sizeof query, "limit=3&page_token=%s",
             json_string_or(o, "next_page_token", ""));
    cJSON_Delete(o);
    o = asked(b, "GET", "/v1/jobs", query, "", "", 200);
    assert_int_equal(cJSON_GetArraySize(json_get(o, "items")), 2);
    assert_true(cJSON_IsNull(json_get(o, "next_page_token")));
    cJSON_Delete(o);
    o = asked(b, "GET", "/v1/jobs", "state=failed", "", "", 200);
    assert_int_equal(cJSON_GetArraySize(json_get(o, "items")), 0);
    cJSON_Delete(o);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        snprintf(path, sizeof path, "/v1/jobs/%s/%s", id[0], parts[i]);
        expect_status(b, "GET", path, i == 4 ? "names=train.loss&points=10" : "", "",
                      strcmp(parts[i], "series?") == 0 ? 404 : 200);
    }
    snprintf(path, sizeof path, "/v1/jobs/%s/events", id[0]);
    o = asked(b, "GET", path, "limit=1", "", "", 200);
    assert_int_equal(cJSON_GetArraySize(json_get(o, "items")), 1);
    assert_false(cJSON_IsNull(json_get(o, "next_page_token")));
    cJSON_Delete(o);
}

static void test_unknown_things(void **state)
{
    static const struct {
        const char *method, *path, *query;
        int status;
    } cases[] = {
        {"GET", "/v1/nothing", "", 404},
        {"GET", "/", "", 404},
        {"GET", "/v1/jobs/", "", 404},
        {"GET", "/v1/jobs/job_0000000000001", "", 404},
        {"GET", "/v1/jobs/17", "", 404},
        {"GET", "/v1/jobs/job_0000000000001/tasks", "", 404},
        {"POST", "/v1/jobs/job_0000000000001/cancel", "", 404},
        {"DELETE", "/v1/jobs", "", 405},
        {"POST", "/v1/workers", "", 405},
        {"GET", "/v1/jobs", "page_token=nonsense", 400},
        {"GET", "/v1/jobs", "limit=-5&state=%00%zz", 200},
        {"GET", "/v1/info", "", 200},
        {"GET", "/v1/workers", "", 200},
        {"GET", "/v1/artifacts", "", 200},
        {"POST", "/v1/workers/nobody/drain", "", 404},
        {"GET", "/v1/workers/nobody", "", 404},
        {"GET", "/v1/workers//", "", 404},
    };
    struct bench *b = *state;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_status(b, cases[i].method, cases[i].path, cases[i].query, "", cases[i].status);
}

static void test_a_full_disk_refuses_submits_only(void **state)
{
    struct bench *b = *state;
    char id[32], path[64];
    cJSON *o = NULL;

    submit(b, "", 201, id);
    b->c->parked = true;
    expect_status(b, "POST", "/v1/jobs", "", b->body, 507);
    snprintf(path, sizeof path, "/v1/jobs/%s/cancel", id);
    expect_status(b, "POST", path, "", "", 507);
    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    o = asked(b, "GET", path, "", "", "", 200);
    assert_string_equal(json_string_or(o, "state", ""), "PARKED");
    assert_string_equal(json_string_or(json_get(o, "reasons")->child, "code", ""), "DiskFull");
    cJSON_Delete(o);
    o = asked(b, "GET", "/v1/jobs", "state=parked", "", "", 200);
    assert_int_equal(cJSON_GetArraySize(json_get(o, "items")), 1);
    cJSON_Delete(o);
    o = asked(b, "GET", "/v1/jobs", "state=running", "", "", 200);
    assert_int_equal(cJSON_GetArraySize(json_get(o, "items")), 0);
    cJSON_Delete(o);
    b->c->parked = false;
    submit(b, "", 201, id);
}

/* A job that is known but whose row cannot be read (here: says nonsense) is there all the same. */
static void test_a_job_that_cannot_be_read_is_not_missing(void **state)
{
    struct bench *b = *state;
    struct err e = {0};
    char id[32], path[64];

    submit(b, "", 201, id);
    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    b->c->parked = true; /* then what is committed counts, not what is in memory */
    assert_int_equal(db_run(b->c->journal->db, &e, "UPDATE jobs SET state = ?1", "t", "TEA"), 0);
    expect_status(b, "GET", path, "", "", 503);
    assert_int_equal(db_run(b->c->journal->db, &e, "UPDATE jobs SET state = ?1", "t", "STARTING"),
                     0);
    expect_status(b, "GET", path, "", "", 200);
    b->c->parked = false;
    expect_status(b, "GET", "/v1/jobs/job_0000000000001", "", "", 404);
}

static void test_jobs_survive_the_process(void **state)
{
    struct bench *b = *state;
    char id[2][32], path[96];
    cJSON *before = NULL, *after = NULL;

    submit(b, "", 201, id[0]);
    submit(b, "", 201, id[1]);
    snprintf(path, sizeof path, "/v1/jobs/%s/cancel", id[1]);
    expect_status(b, "POST", path, "", "", 202);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/v1/jobs/%s", id[i]);
        before = asked(b, "GET", path, "", "", "", 200);
        coordinator_close(b->c);
        start(b);
        after = asked(b, "GET", path, "", "", "", 200);
        if (i == 0) /* it runs: watchers see a change; nothing happens to one that is over */
            assert_true(json_number_or(after, "version", 0) > json_number_or(before, "version", 0));
        else
            assert_true(json_number_or(after, "version", 0) ==
                        json_number_or(before, "version", 0));
        cJSON_DeleteItemFromObject(before, "reasons"); /* name the port, which is another */
        cJSON_DeleteItemFromObject(after, "reasons");
        cJSON_DeleteItemFromObject(before, "version");
        cJSON_DeleteItemFromObject(after, "version");
        if (!cJSON_Compare(before, after, true))
            fail_msg("%s\n%s", cJSON_Print(before), cJSON_Print(after));
        cJSON_Delete(before);
        cJSON_Delete(after);
    }
}

static void assert_state(struct bench *b, const char *id, const char *state, const char *reason)
{
    char path[96];
    cJSON *o = NULL;

    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    o = asked(b, "GET", path, "", "", "", 200);
    assert_string_equal(json_string_or(o, "state", ""), state);
    assert_string_equal(json_string_or(o, "reason", ""), reason);
    cJSON_Delete(o);
}

static void test_rows_that_do_not_fit_fail_their_job_alone(void **state)
{
    struct bench *b = *state;
    char id[2][32];
    struct err e = {0};
    uint64_t job[2];

    for (int i = 0; i < 2; i++) {
        submit(b, "", 201, id[i]);
        assert_true(job_id_parse(id[i], &job[i]));
    }
    assert_true(coordinator_flush(b->c));
    assert_int_equal(db_run(b->c->journal->db, &e, "UPDATE tasks SET idx=999 WHERE job=?1", "i",
                            (int64_t)job[0]),
                     0);
    assert_int_equal(db_run(b->c->journal->db, &e, /* of when the phase was cut otherwise */
                            "INSERT INTO tasks SELECT -id, job, stage, phase, 99, 0, 0, 'DONE', 1, "
                            "'w', 0, 0, '', NULL, 0, '' FROM tasks WHERE job=?1",
                            "i", (int64_t)job[1]),
                     0);
    coordinator_close(b->c);
    start(b);
    assert_state(b, id[1], "STARTING", "");
    assert_state(b, id[0], "FAILED", "RowsUnreadable");
}

static void test_artifacts_are_listed_with_their_type(void **state)
{
    static const char tree[] = "{\"files\":[],\"type\":\"tree\"}";
    struct bench *b = *state;
    char id[32];
    uint64_t job;
    struct digest d;
    struct err e = {0};
    cJSON *o = NULL;

    submit(b, "", 201, id);
    assert_true(job_id_parse(id, &job));
    assert_int_equal(blob_put_bytes(b->c->blobs, tree, strlen(tree), &d, &e), 0);
    for (int i = 0; i < 2; i++) /* the second is of a task that gave no output */
        assert_int_equal(db_run(b->c->journal->db, &e,
                                "INSERT INTO artifacts VALUES(?1, 'train', 'model', ?2, ?3, ?2)",
                                "iit", (int64_t)job, (int64_t)i, i == 0 ? d.hex : ""),
                         0);
    o = asked(b, "GET", "/v1/artifacts", "", "", "", 200);
    assert_int_equal(cJSON_GetArraySize(json_get(o, "items")), 1);
    assert_string_equal(json_string_or(json_get(o, "items")->child, "digest", ""), d.hex);
    assert_string_equal(json_string_or(json_get(o, "items")->child, "type", ""), "tree");
    cJSON_Delete(o);
}

/* Puts a blob and then other bytes in its place. */
static void put_damaged(struct bench *b, const char *bytes, const char *other, struct digest *d)
{
    char path[700];
    struct err e = {0};

    assert_int_equal(blob_put_bytes(b->c->blobs, bytes, strlen(bytes), d, &e), 0);
    blob_path(b->c->blobs, d->hex, path, sizeof path);
    assert_int_equal(file_write_atomic(path, other, strlen(other), &e), 0);
}

static void test_damaged_blobs_leave_the_store(void **state)
{
    struct bench *b = *state;
    struct sched_action act = {.type = SCHED_ASK_REUSE};
    struct tree_file file = {.path = "model.bin", .size = 5};
    struct digest tree, other;
    struct buf text = BUF_INIT;
    struct err e = {0};
    char id[32], outputs[160];

    submit(b, "", 201, id);
    act.job = b->c->sched.job[0];
    act.stage = &act.job->stage[0];
    put_damaged(b, "hello", "hell", &file.digest);
    blob_tree_print(&file, 1, &text);
    assert_int_equal(blob_put_bytes(b->c->blobs, text.data, text.len, &tree, &e), 0);
    snprintf(outputs, sizeof outputs, "{\"model\":[\"%s\"]}", tree.hex);
    act.digest = tree; /* any name will do as the key */
    assert_int_equal(db_run(b->c->journal->db, &e,
                            "INSERT INTO reusable(key, outputs, metrics, job) VALUES(?1, ?2, '{}', "
                            "?3)",
                            "tti", act.digest.hex, outputs, (int64_t)act.job->id),
                     0);
    dispatch_action(b->c, &act);
    assert_false(blob_has(b->c->blobs, file.digest.hex)); /* it can be written again */
    assert_true(blob_has(b->c->blobs, tree.hex));
    put_damaged(b, "other", "othre", &other);
    buf_clear(&text);
    buf_printf(&text, "%s, %s", other.hex, tree.hex);
    act = (struct sched_action){.type = SCHED_MEND, .blob = text.data, .blob_len = text.len};
    dispatch_action(b->c, &act);
    assert_false(blob_has(b->c->blobs, other.hex));
    assert_true(blob_has(b->c->blobs, tree.hex));
    buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_key_makes_one_job, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_submits_are_refused_with_the_place, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_plan_keeps_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_job_is_watched_and_cancelled, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lists_and_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_things, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_full_disk_refuses_submits_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_job_that_cannot_be_read_is_not_missing, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_jobs_survive_the_process, setup, teardown),
        cmocka_unit_test_setup_teardown(test_artifacts_are_listed_with_their_type, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_blobs_leave_the_store, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rows_that_do_not_fit_fail_their_job_alone, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
