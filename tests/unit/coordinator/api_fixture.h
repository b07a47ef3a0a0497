/* api_fixture: a real coordinator in a temporary directory: no worker, no client; requests go straight
 * to api_handle(). */
#ifndef TESTS_API_FIXTURE_H
#define TESTS_API_FIXTURE_H

#include "sched_fixture.h"

#include <unistd.h>

#include "base/clock.h"
#include "coordinator/api.h"
#include "coordinator/api_inner.h"
#include "coordinator/coordinator.h"
#include "coordinator/job_id.h"

struct bench {
    struct coord_config config;
    struct coordinator *c;
    char *body; /* of a good submit */
};

static inline void start(struct bench *b)
{
    struct err e = {0};

    b->c = NULL;
    if (coordinator_open(&b->config, &b->c, &e) != 0)
        fail_msg("%s", e.msg);
}

static inline void put_ref(void *self, const char *ref)
{
    void **pair = self;
    cJSON *files = pair[1];
    struct digest d;
    struct err e = {0};

    if (strncmp(ref, "file:", 5) != 0 || json_get(files, ref + 5) != NULL)
        return;
    assert_int_equal(blob_put_bytes(((struct bench *)pair[0])->c->blobs, ref, strlen(ref), &d, &e),
                     0);
    cJSON_AddStringToObject(files, ref + 5, d.hex);
}

static inline int setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    struct spec *spec = fixture_smoke();
    struct buf yaml = BUF_INIT;
    cJSON *o = cJSON_CreateObject();
    void *pair[2] = {b, cJSON_AddObjectToObject(o, "files")};
    struct err e = {0};

    b->config = (struct coord_config){.http = "127.0.0.1:0",
                                      .control = "tcp://127.0.0.1:0",
                                      .lease_ms = 10000,
                                      .heartbeat_ms = 500};
    snprintf(b->config.dir, sizeof b->config.dir, "/tmp/steer-api-XXXXXX");
    assert_non_null(mkdtemp(b->config.dir));
    start(b);
    expand_each_ref(spec, put_ref, pair);
    assert_int_equal(file_read("jobs/specs/smoke.yaml", 1u << 20, &yaml, &e), 0);
    cJSON_AddStringToObject(o, "spec", yaml.data);
    b->body = cJSON_PrintUnformatted(o);
    cJSON_Delete(o);
    buf_free(&yaml);
    spec_free(spec);
    *state = b;
    return 0;
}

static inline int teardown(void **state)
{
    struct bench *b = *state;
    struct err e = {0};

    coordinator_close(b->c);
    file_remove_tree(b->config.dir, &e);
    free(b->body);
    free(b);
    return 0;
}

static inline struct api_response ask(struct bench *b, const char *method, const char *path,
                                      const char *query, const char *body, const char *key)
{
    struct api_request q = {.method = method,
                            .path = path,
                            .query = query,
                            .body = body,
                            .body_len = strlen(body),
                            .content_type = "application/json",
                            .idempotency_key = key,
                            .if_none_match = ""};
    struct api_response r = API_RESPONSE_INIT;

    api_handle(b->c, &q, &r);
    return r;
}

/* Asks, checks the status, gives the body as JSON. */
static inline cJSON *asked(struct bench *b, const char *method, const char *path, const char *query,
                           const char *body, const char *key, int status)
{
    struct api_response r = ask(b, method, path, query, body, key);
    cJSON *o = NULL;
    struct err e = {0};

    if (r.status != status)
        fail_msg("%s %s: %d, wanted %d: %.500s", method, path, r.status, status,
                 r.body.data != NULL ? r.body.data : "");
    if (r.body.len > 0 && json_parse(r.body.data, r.body.len, JSON_LIMITS_FILE, &o, &e) != 0)
        fail_msg("%s %s: %s", method, path, e.msg);
    buf_free(&r.body);
    return o;
}

static inline void expect_status(struct bench *b, const char *method, const char *path,
                                 const char *query, const char *body, int status)
{
    cJSON_Delete(asked(b, method, path, query, body, "", status));
}

static inline void submit(struct bench *b, const char *key, int status, char id[32])
{
    cJSON *o = asked(b, "POST", "/v1/jobs", "", b->body, key, status);

    snprintf(id, 32, "%s", json_string_or(o, "id", ""));
    cJSON_Delete(o);
}

#endif
