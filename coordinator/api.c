/*
 * Routing, and what all answers share. Paths are few, so they are compared in order; a path that is
 * known with another method answers 405, an unknown one 404.
 */
#include "coordinator/api.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "coordinator/api_inner.h"
#include "coordinator/job_id.h"

#define WAIT_MS_MAX 60000
#define PAGE_MAX 1000

void api_json(struct api_response *r, int status, cJSON *value)
{
    r->status = status;
    r->content_type = "application/json";
    json_canonical(value, &r->body);
    buf_char(&r->body, '\n');
    cJSON_Delete(value);
}

void api_problem(struct api_response *r, int status, const char *code, const char *fmt, ...)
{
    char detail[1200];
    cJSON *o = cJSON_CreateObject();
    va_list args;

    va_start(args, fmt);
    vsnprintf(detail, sizeof detail, fmt, args);
    va_end(args);
    cJSON_AddStringToObject(o, "code", code);
    cJSON_AddStringToObject(o, "detail", detail);
    cJSON_AddNumberToObject(o, "status", status);
    cJSON_AddStringToObject(o, "title", code);
    buf_clear(&r->body);
    api_json(r, status, o);
    r->content_type = "application/problem+json";
}

void api_time(cJSON *o, const char *key, uint64_t wall_ms)
{
    char text[32];

    if (wall_ms == 0) {
        cJSON_AddNullToObject(o, key);
        return;
    }
    clock_wall_format(wall_ms, text);
    cJSON_AddStringToObject(o, key, text);
}

/* ---- query strings --------------------------------------------------------------------------- */

static int hex_of(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static void decode(const char *from, size_t len, char *out, size_t cap)
{
    size_t n = 0;

    for (size_t i = 0; i < len && n + 1 < cap; i++) {
        int high = i + 2 < len && from[i] == '%' ? hex_of(from[i + 1]) : -1;
        int low = high >= 0 ? hex_of(from[i + 2]) : -1;

        if (low >= 0 && (high << 4 | low) != 0) {
            out[n++] = (char)(high << 4 | low);
            i += 2;
        } else {
            out[n++] = from[i] == '+' ? ' ' : from[i];
        }
    }
    out[n] = '\0';
}

bool api_query(const struct api_request *q, const char *name, char *out, size_t cap)
{
    size_t len = strlen(name);

    for (const char *at = q->query; *at != '\0';) {
        size_t n = strcspn(at, "&");

        if (n >= len && strncmp(at, name, len) == 0 && (n == len || at[len] == '=')) {
            decode(at + len + (n > len), n > len ? n - len - 1 : 0, out, cap);
            return true;
        }
        at += n + (at[n] == '&');
    }
    return false;
}

int64_t api_query_int(const struct api_request *q, const char *name, int64_t min, int64_t max,
                      int64_t fallback)
{
    char text[32], *end = NULL;
    long long v = 0;

    if (!api_query(q, name, text, sizeof text))
        return fallback;
    v = strtoll(text, &end, 10);
    if (end == text)
        return fallback;
    return v < min ? min : v > max ? max : v;
}

/* ---- long polls ------------------------------------------------------------------------------ */

/* "30s", "500ms", "2m" or seconds. */
static uint64_t duration_ms(const char *text)
{
    char *end = NULL;
    double v = strtod(text, &end);
    double ms = strcmp(end, "ms") == 0 ? v : strcmp(end, "m") == 0 ? v * 60000 : v * 1000;

    return ms > 0 && ms < WAIT_MS_MAX ? (uint64_t)ms : ms > 0 ? WAIT_MS_MAX : 0;
}

struct coordinator_wait api_wait_of(const struct api_request *q)
{
    struct coordinator_wait w = {.since = (uint64_t)api_query_int(q, "since", 0, INT64_MAX, 0)};
    char text[32];

    if (api_query(q, "wait", text, sizeof text))
        w.until_ms = clock_ms() + duration_ms(text);
    if (strncmp(q->path, "/v1/jobs/", 9) == 0)
        job_id_parse(q->path + 9, &w.job);
    return w;
}

static void job_get(struct coordinator *c, const struct sched_job *j, struct api_response *r)
{
    char id[JOB_ID_TEXT];

    job_id_format(j->id, id);
    snprintf(r->etag, sizeof r->etag, "\"%s-%" PRIu64 "\"", id + 4, j->version);
    api_json(r, 200, api_job(c, j, true));
}

/* What is in memory may never have been committed. */
bool api_storage_failed(const struct coordinator *c, struct api_response *r)
{
    if (c->stop)
        api_problem(r, 503, "storage", "the coordinator's storage failed: it stops");
    return c->stop;
}

void api_wait_answer(struct coordinator *c, const struct coordinator_wait *w,
                     struct api_response *r)
{
    struct sched_job *own = NULL;
    const struct sched_job *j = NULL;

    if (api_storage_failed(c, r))
        return;
    j = api_job_find(c, w->job, &own);
    if (j == NULL)
        api_problem(r, 404, "not_found", "the job is gone");
    else if (j->version == w->since)
        r->status = 304;
    else
        job_get(c, j, r);
    sched_job_free(own);
}

static void on_job(struct coordinator *c, const struct api_request *q, const struct sched_job *j,
                   struct api_response *r)
{
    struct coordinator_wait w = api_wait_of(q);
    char text[32];

    if (api_query(q, "since", text, sizeof text) && w.since == j->version) {
        if (w.until_ms > clock_ms() && c->waits_n < COORDINATOR_WAITS_MAX)
            r->wait = true;
        else
            r->status = 304;
        return;
    }
    job_get(c, j, r);
    if (q->if_none_match[0] != '\0' && strcmp(q->if_none_match, r->etag) == 0) {
        buf_clear(&r->body);
        r->status = 304;
    }
}

/* ---- routes ---------------------------------------------------------------------------------- */

static void on_info(struct coordinator *c, struct api_response *r)
{
    cJSON *o = cJSON_CreateObject(), *counted = NULL;
    int here = 0;

    for (int i = 0; i < c->roster.n; i++)
        here += roster_is_here(c->roster.worker[i]);
    cJSON_AddStringToObject(o, "version", STEER_VERSION);
    cJSON_AddStringToObject(o, "cluster", journal_cluster(c->journal));
    cJSON_AddNumberToObject(o, "term", (double)journal_term(c->journal));
    cJSON_AddNumberToObject(o, "workers", here);
    cJSON_AddStringToObject(o, "state_dir", c->config.dir);
    cJSON_AddStringToObject(o, "control", c->control);
    cJSON_AddBoolToObject(o, "parked", c->parked);
    counted = cJSON_AddObjectToObject(o, "counters");
#define X(name, help) cJSON_AddNumberToObject(counted, #name, (double)c->sched.counters.name);
    SCHED_COUNTERS(X)
#undef X
    cJSON_AddNumberToObject(o, "stale_frames", (double)c->counters.stale_term);
    cJSON_AddNumberToObject(o, "bad_frames", (double)c->counters.frames_bad);
    api_json(r, 200, o);
}

static void on_workers(struct coordinator *c, struct api_response *r)
{
    cJSON *o = cJSON_CreateObject();
    cJSON *items = cJSON_AddArrayToObject(o, "items");

    for (int i = 0; i < c->roster.n; i++)
        cJSON_AddItemToArray(items, api_worker(c, c->roster.worker[i]));
    for (int i = 0; i < c->sched.quarantine_n; i++) { /* it may be long gone, and must be seen */
        const struct sched_quarantine *q = &c->sched.quarantine[i];
        cJSON *w = NULL;

        if (roster_find(&c->roster, q->worker) != NULL)
            continue;
        w = cJSON_CreateObject();
        cJSON_AddStringToObject(w, "id", q->worker);
        cJSON_AddStringToObject(w, "name", q->worker);
        cJSON_AddStringToObject(w, "state", "QUARANTINED");
        cJSON_AddStringToObject(w, "reason", q->reason);
        cJSON_AddItemToArray(items, w);
    }
    api_json(r, 200, o);
}

/* Of the state that is asked for, "" = any. */
static bool is_listed(struct coordinator *c, const struct sched_entry *entry, const char *state)
{
    struct sched_job *own = NULL;
    const struct sched_job *j = NULL;
    enum run_state is = entry->state;

    if (state[0] == '\0')
        return true;
    if (entry->job != NULL && c->parked && (j = api_job_find(c, entry->id, &own)) != NULL)
        is = j->state;
    sched_job_free(own);
    return strcasecmp(state, api_state_text(c, is)) == 0;
}

static void on_jobs(struct coordinator *c, const struct api_request *q, struct api_response *r)
{
    cJSON *o = cJSON_CreateObject();
    cJSON *items = cJSON_AddArrayToObject(o, "items");
    int64_t limit = api_query_int(q, "limit", 1, PAGE_MAX, 100), n = 0;
    char state[32] = "", page[32] = "", last[JOB_ID_TEXT] = "";
    uint64_t before = UINT64_MAX;
    bool more = false;

    api_query(q, "state", state, sizeof state);
    if (api_query(q, "page_token", page, sizeof page) && page[0] != '\0' &&
        !job_id_parse(page, &before)) {
        cJSON_Delete(o);
        api_problem(r, 400, "invalid_page_token", "page_token is \"%s\", must be a next_page_token",
                    page);
        return;
    }
    for (int i = c->sched.entries_n - 1; i >= 0; i--) { /* newest first */
        const struct sched_entry *entry = &c->sched.entry[i];
        struct sched_job *own = NULL;
        const struct sched_job *j = NULL;

        if (entry->id >= before || !is_listed(c, entry, state))
            continue;
        if (n == limit) {
            more = true;
            break;
        }
        job_id_format(entry->id, last);
        j = api_job_find(c, entry->id, &own);
        if (j != NULL)
            cJSON_AddItemToArray(items, api_job(c, j, false));
        sched_job_free(own);
        n++;
    }
    if (more)
        cJSON_AddStringToObject(o, "next_page_token", last);
    else
        cJSON_AddNullToObject(o, "next_page_token");
    api_json(r, 200, o);
}

/* POST /v1/workers/ID/release: out of quarantine. */
static void on_release(struct coordinator *c, const char *id, struct api_response *r)
{
    struct sched_event ev = {.type = SCHED_WORKER_RELEASE};
    cJSON *o = NULL;

    if (sched_quarantined(&c->sched, id) == NULL) {
        api_problem(r, 404, "not_found", "worker %s is not in quarantine", id);
        return;
    }
    if (c->parked) {
        api_problem(r, 409, "conflict", "the disk is full");
        return;
    }
    snprintf(ev.worker, sizeof ev.worker, "%s", id);
    coordinator_event(c, &ev);
    if (!coordinator_flush(c)) {
        if (!api_storage_failed(c, r))
            api_problem(r, 507, "disk_full", "the worker is released when there is space");
        return;
    }
    o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "id", id);
    api_json(r, 200, o);
}

/* POST /v1/workers/ID/drain: it ends or hands back what it does, and leaves. */
static void under_workers(struct coordinator *c, const struct api_request *q,
                          struct api_response *r)
{
    char id[ROSTER_ID_MAX];
    const char *rest = q->path + strlen("/v1/workers/");
    size_t n = strcspn(rest, "/");
    const struct roster_worker *w = NULL;
    struct control *m = NULL;

    snprintf(id, sizeof id, "%.*s", (int)(n < sizeof id ? n : sizeof id - 1), rest);
    if (strcmp(rest + n, "/release") == 0 && strcmp(q->method, "POST") == 0) {
        on_release(c, id, r);
        return;
    }
    w = roster_find(&c->roster, id);
    if (w == NULL || (rest[n] != '\0' && strcmp(rest + n, "/drain") != 0)) {
        api_problem(r, 404, "not_found", "there is no %s", q->path);
    } else if (rest[n] == '\0' && strcmp(q->method, "GET") == 0) {
        api_json(r, 200, api_worker(c, w));
    } else if (rest[n] == '\0' || strcmp(q->method, "POST") != 0) {
        api_problem(r, 405, "method_not_allowed", "%s is not for %s", q->method, q->path);
    } else if (!roster_is_here(w) || c->parked) {
        api_problem(r, 409, "conflict", c->parked ? "the disk is full" : "worker %s is %s", id,
                    roster_state_name(w->state));
    } else {
        m = control_new(CONTROL_DRAIN);
        snprintf(m->text, sizeof m->text, "asked for by an operator");
        coordinator_send(c, id, m);
        roster_step(
            &c->roster,
            &(struct roster_event){.type = ROSTER_DRAIN, .now_ms = clock_ms(), .worker = id},
            c->roster_actions);
        handlers_roster(c);
        coordinator_flush(c);
        if (!api_storage_failed(c, r))
            api_json(r, 202, api_worker(c, w));
    }
}

/* ---- Prometheus ------------------------------------------------------------------------------ */

static void metric(struct buf *b, const char *name, const char *type, const char *help)
{
    buf_printf(b, "# HELP steer_%s %s\n# TYPE steer_%s %s\n", name, help, name, type);
}

static void single(struct buf *b, const char *name, const char *type, const char *help,
                   uint64_t value)
{
    metric(b, name, type, help);
    buf_printf(b, "steer_%s %" PRIu64 "\n", name, value);
}

static void metrics_jobs(const struct coordinator *c, struct buf *b)
{
    uint64_t tasks[TASK_STATES_COUNT] = {0}, sessions = 0;

    for (int i = 0; i < c->sched.jobs_n; i++) {
        const struct sched_job *j = c->sched.job[i];

        for (int k = 0; k < j->stages_n; k++) {
            sessions += j->stage[k].session != NULL && j->stage[k].session->open;
            for (uint32_t t = 0; t < j->stage[k].tasks_n; t++)
                tasks[j->stage[k].task[t].state]++;
        }
    }
    metric(b, "jobs", "gauge", "Jobs by state.");
    for (int i = 0; i < RUN_STATES_COUNT; i++)
        buf_printf(b, "steer_jobs{state=\"%s\"} %" PRIu64 "\n", run_state_name((enum run_state)i),
                   c->sched.count[i]);
    metric(b, "tasks", "gauge", "Tasks of open phases by state.");
    for (int i = 0; i < TASK_STATES_COUNT; i++)
        buf_printf(b, "steer_tasks{state=\"%s\"} %" PRIu64 "\n",
                   task_state_name((enum task_state)i), tasks[i]);
    single(b, "sessions_open", "gauge", "Training sessions that run.", sessions);
}

static void on_metrics(struct coordinator *c, struct api_response *r)
{
    struct http_counters http;
    struct buf *b = &r->body;

    http_counters(c->http, &http);
    metrics_jobs(c, b);
    metric(b, "workers", "gauge", "Workers by state.");
    for (int s = ROSTER_READY; s <= ROSTER_LEFT; s++) {
        int n = 0;

        for (int i = 0; i < c->roster.n; i++)
            n += (int)c->roster.worker[i]->state == s;
        buf_printf(b, "steer_workers{state=\"%s\"} %d\n", roster_state_name((enum roster_state)s),
                   n);
    }
    single(b, "coordinator_term", "counter", "Starts of the coordinator on this state.",
           journal_term(c->journal));
    single(b, "parked", "gauge", "1 while the disk is full.", c->parked);
    single(b, "events_total", "counter", "Events that the scheduler stepped through.",
           c->counters.events);
    single(b, "commits_total", "counter", "Transactions of the journal.", c->counters.commits);
#define X(name, help) single(b, #name "_total", "counter", help, c->sched.counters.name);
    SCHED_COUNTERS(X)
#undef X
    single(b, "stale_frames_total", "counter", "Messages of unknown peers or older terms.",
           c->counters.stale_term);
    single(b, "bad_frames_total", "counter", "Frames that could not be read.",
           c->counters.frames_bad);
    single(b, "send_refused_total", "counter", "Messages that could not be sent.",
           c->counters.send_refused);
    single(b, "http_requests_total", "counter", "HTTP requests.", http.requests);
    single(b, "http_refused_total", "counter", "HTTP requests refused before they reached the API.",
           http.refused);
    single(b, "artifact_bytes_in_total", "counter", "Bytes of artefacts received.",
           http.artifact_bytes_in);
    single(b, "artifact_bytes_out_total", "counter", "Bytes of artefacts sent.",
           http.artifact_bytes_out);
    r->status = 200;
    r->content_type = "text/plain; version=0.0.4";
}

static void under_job(struct coordinator *c, const struct api_request *q, struct api_response *r)
{
    char id_text[64];
    const char *rest = q->path + strlen("/v1/jobs/");
    size_t n = strcspn(rest, "/");
    struct sched_job *own = NULL;
    const struct sched_job *j = NULL;
    uint64_t id = 0;
    bool get = strcmp(q->method, "GET") == 0 || strcmp(q->method, "HEAD") == 0;

    snprintf(id_text, sizeof id_text, "%.*s", (int)(n < 63 ? n : 63), rest);
    rest += n;
    if (job_id_parse(id_text, &id))
        j = get ? api_job_find(c, id, &own) : NULL;
    if (get && j == NULL && sched_find_entry(&c->sched, id) != NULL)
        api_problem(r, 503, "storage", "job %s cannot be read", id_text);
    else if (get ? j == NULL : sched_find_entry(&c->sched, id) == NULL)
        api_problem(r, 404, "not_found", "there is no job %s", id_text);
    else if (*rest == '/' && api_verb(c, q, id, rest + 1, r))
        ; /* answered */
    else if (!get)
        api_problem(r, 405, "method_not_allowed", "%s is not for %s", q->method, q->path);
    else if (*rest == '\0')
        on_job(c, q, j, r);
    else
        api_lists(c, q, j, rest + 1, r);
    sched_job_free(own);
}

bool api_is_submit(const struct api_request *q)
{
    return strcmp(q->path, "/v1/jobs") == 0 && strcmp(q->method, "POST") == 0;
}

void api_handle(struct coordinator *c, const struct api_request *q, struct api_response *r)
{
    bool get = strcmp(q->method, "GET") == 0 || strcmp(q->method, "HEAD") == 0;

    if (api_storage_failed(c, r))
        ; /* answered */
    else if (strncmp(q->path, "/v1/jobs/", 9) == 0)
        under_job(c, q, r);
    else if (api_is_submit(q))
        api_submit(c, q, r);
    else if (strcmp(q->path, "/v1/jobs") == 0 && get)
        on_jobs(c, q, r);
    else if (strcmp(q->path, "/v1/info") == 0 && get)
        on_info(c, r);
    else if (strncmp(q->path, "/v1/workers/", 12) == 0)
        under_workers(c, q, r);
    else if (strcmp(q->path, "/metrics") == 0 && get)
        on_metrics(c, r);
    else if (strcmp(q->path, "/v1/workers") == 0 && get)
        on_workers(c, r);
    else if (strcmp(q->path, "/v1/artifacts") == 0 && get)
        api_artifacts(c, q, r);
    else if (strcmp(q->path, "/v1/jobs") == 0 || strcmp(q->path, "/v1/info") == 0 ||
             strcmp(q->path, "/v1/workers") == 0 || strcmp(q->path, "/v1/artifacts") == 0)
        api_problem(r, 405, "method_not_allowed", "%s is not for %s", q->method, q->path);
    else
        api_problem(r, 404, "not_found", "there is no %s", q->path);
}
