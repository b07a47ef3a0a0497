#include "sim_http.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "coordinator/api_inner.h"
#include "coordinator/coordinator.h"
#include "coordinator/job_id.h"
#include "sim_check.h"
#include "sim_core.h"
#include "sim_jobs.h"
#include "sim_net.h"
#include "sim_world.h"

#define CLIENTS_MAX 8
#define REQUESTS_MAX 4096
#define REPEAT_US 2000000

struct client {
    int kind;
    char key[40];
    bool acked, cancels; /* cancels: and does not think better of it */
    uint64_t job, verb_us;
    const char *verb[4]; /* what it says to its job after the submit, one after the other */
    int next;
};

struct request {
    struct api_request q;
    char path[120];
    int client; /* -1: nobody waits */
    int verb;   /* of the client; -1: a submit */
};

static struct {
    struct client client[CLIENTS_MAX];
    int clients;
    uint32_t loss;                       /* in a thousand, of a request or an answer */
    uint64_t lost, verbs[2][4];          /* [accepted] */
    struct request *queue[REQUESTS_MAX]; /* at the coordinator, not taken yet */
    int queued;
    int fd;
    struct request *all[REQUESTS_MAX];
    int all_n;
} http;

/* ---- asking ---------------------------------------------------------------------------------- */

static bool queue_ready(void *self)
{
    (void)self;
    return http.queued > 0;
}

static struct request *request_new(const char *path, int client)
{
    struct request *r = mem_zalloc(1, sizeof *r);

    CHECK(http.all_n < REQUESTS_MAX);
    http.all[http.all_n++] = r;
    snprintf(r->path, sizeof r->path, "%s", path);
    r->client = client;
    r->verb = -1;
    r->q = (struct api_request){.method = "POST",
                                .path = r->path,
                                .query = "",
                                .body = "",
                                .content_type = "application/json",
                                .idempotency_key = "",
                                .if_none_match = ""};
    return r;
}

static void on_request(void *self, uint64_t a, uint64_t b)
{
    (void)a;
    (void)b;
    if (!sim_world_coordinator_is_up() || sim_chance(http.loss)) {
        http.lost++;
        return;
    }
    http.queue[http.queued++] = self;
    sim_fd_wake(http.fd);
}

static void request_send(struct request *r)
{
    sim_at(sim_now_us() + 100 + sim_draw(20000), on_request, r, 0, 0);
}

void sim_http_ask(const char *path)
{
    request_send(request_new(path, -1));
}

static void on_client(void *self, uint64_t index, uint64_t b)
{
    struct client *c = &http.client[index];
    struct request *r;

    (void)self;
    (void)b;
    if (!c->acked) {
        r = request_new("/v1/jobs", (int)index);
        r->q.body = sim_jobs_body(c->kind);
        r->q.body_len = strlen(r->q.body);
        r->q.idempotency_key = c->key;
        request_send(r);
    } else if (c->verb[c->next] != NULL && sim_now_us() >= c->verb_us) {
        char path[100] = "/v1/jobs/";

        job_id_format(c->job, path + strlen(path));
        snprintf(path + strlen(path), sizeof path - strlen(path), "/%s", c->verb[c->next]);
        r = request_new(path, (int)index);
        r->verb = c->next;
        request_send(r);
    }
    if (!c->acked || c->verb[c->next] != NULL)
        sim_at(sim_now_us() + REPEAT_US / 2 + sim_draw(REPEAT_US), on_client, NULL, index, 0);
}

void sim_http_client(int kind, uint64_t at_us, enum sim_http_whim whim, uint32_t loss)
{
    struct client *c = &http.client[http.clients];

    CHECK(http.clients < CLIENTS_MAX);
    *c = (struct client){.kind = kind, .cancels = whim == SIM_HTTP_CANCELS};
    if (whim == SIM_HTTP_CANCELS || whim == SIM_HTTP_RETRIES)
        c->verb[0] = "cancel";
    if (whim == SIM_HTTP_RETRIES)
        c->verb[1] = "retry";
    if (whim == SIM_HTTP_PAUSES) {
        c->verb[0] = "pause";
        c->verb[1] = "resume";
    }
    snprintf(c->key, sizeof c->key, "key-%d-%08" PRIx64, http.clients, sim_draw64() >> 32);
    http.loss = loss;
    sim_at(at_us, on_client, NULL, (uint64_t)http.clients++, 0);
}

void sim_http_heal(void)
{
    http.loss = 0;
}

/* ---- being answered -------------------------------------------------------------------------- */

static const char *const verbs[] = {"cancel", "retry", "pause", "resume"};

static int verb_index(const char *verb)
{
    int i = 0;

    while (strcmp(verbs[i], verb) != 0)
        i++;
    return i;
}

struct answer {
    int status;
    uint64_t job;
    int verb;
};

static void on_answer(void *self, uint64_t index, uint64_t b)
{
    struct client *c = &http.client[index];
    struct answer *a = self;

    (void)b;
    if (a->verb < 0 && (a->status == 201 || a->status == 200)) {
        if (c->acked && c->job != a->job)
            sim_violation("client %d has two jobs", (int)index);
        sim_check_acknowledged(a->job);
        if (!c->acked)
            c->verb_us = sim_now_us() + sim_draw(8000000);
        c->acked = true;
        c->job = a->job;
    } else if (a->verb >= 0 && (a->status == 202 || a->status == 409)) {
        /* 409: it is over meanwhile, or so already; both are answers */
        if (a->verb == c->next && c->verb[c->next] != NULL) {
            http.verbs[a->status == 202][verb_index(c->verb[c->next])]++;
            c->next++;
            c->verb_us = sim_now_us() + sim_draw(5000000);
        }
    } else if (a->status != 507 && a->status != 503 && a->status != 429) {
        sim_violation("client %d gets the answer %d", (int)index, a->status);
    }
    free(a);
}

/* ---- the edge, as the reactor sees it -------------------------------------------------------- */

WRAP(int, http_start, const struct http_config *config, struct http **out, struct err *e)
{
    (void)config;
    (void)e;
    http.queued = 0;
    http.fd = sim_fd_new(queue_ready, NULL);
    *out = (struct http *)&http;
    return 0;
}

WRAP(void, http_stop, struct http **h)
{
    *h = NULL;
}

WRAP(const char *, http_url, const struct http *h)
{
    (void)h;
    return "http://coordinator:7780";
}

WRAP(int, http_wait_fd, const struct http *h)
{
    (void)h;
    return http.fd;
}

WRAP(bool, http_next, struct http *h, struct api_request *q, void **ticket)
{
    (void)h;
    if (http.queued == 0)
        return false;
    *ticket = http.queue[0];
    *q = http.queue[0]->q;
    memmove(http.queue, http.queue + 1, (size_t)--http.queued * sizeof http.queue[0]);
    return true;
}

WRAP(void, http_answer, struct http *h, void *ticket, struct api_response *r)
{
    struct request *q = ticket;
    struct answer *a;

    (void)h;
    CHECK(r->status != 0);
    sim_trace("answer %d to %s", r->status, q->path);
    sim_mix((uint64_t)r->status);
    if (q->client >= 0 && !sim_chance(http.loss)) {
        const char *at = r->body.data != NULL ? strstr(r->body.data, "\"job_") : NULL;
        char id[18] = "";

        a = mem_zalloc(1, sizeof *a);
        a->status = r->status;
        a->verb = q->verb;
        if (at != NULL)
            snprintf(id, sizeof id, "%s", at + 1);
        job_id_parse(id, &a->job);
        if (r->status < 300 && a->job == 0)
            sim_violation("an answer of %d names no job", r->status);
        sim_at(sim_now_us() + 100 + sim_draw(20000), on_answer, a, (uint64_t)q->client, 0);
    }
    buf_free(&r->body);
}

WRAP(void, http_set_ready, struct http *h, bool ready, const char *reason)
{
    (void)h;
    (void)ready;
    (void)reason;
}

WRAP(const char *, http_fatal, const struct http *h)
{
    (void)h;
    return NULL;
}

void sim_http_reset(void)
{
    http.queued = 0;
}

void sim_http_reset_all(void)
{
    for (int i = 0; i < http.all_n; i++)
        free(http.all[i]);
    memset(&http, 0, sizeof http);
}

/* ---- outcomes -------------------------------------------------------------------------------- */

static const struct sched_entry *entry_of(struct coordinator *c, int client)
{
    return c != NULL ? sched_find_entry(&c->sched, http.client[client].job) : NULL;
}

bool sim_http_all_over(struct coordinator *c)
{
    for (int i = 0; i < http.clients; i++) {
        const struct client *x = &http.client[i];
        const struct sched_entry *e = entry_of(c, i);

        if (!x->acked || x->verb[x->next] != NULL || e == NULL || !run_state_is_final(e->state))
            return false;
    }
    return c != NULL && c->actions.n == 0;
}

static const char *stage_why(const struct sched_job *j)
{
    static char text[1200];

    for (int k = 0; k < j->stages_n; k++) {
        const struct sched_stage *st = &j->stage[k];

        if (run_state_is_final(st->state))
            continue;
        snprintf(text, sizeof text,
                 "job %s stage %s is %s (%s), phase %s, %u of %u tasks, session attempt %" PRIu64
                 " version %" PRIu64 " %s",
                 j->name, st->name, run_state_name(st->state), st->reason, st->phase.name,
                 st->tasks_done, st->tasks_n, st->session != NULL ? st->session->attempt : 0,
                 st->session != NULL ? st->session->version : 0,
                 st->session != NULL ? st->session->why : "");
        return text;
    }
    return "";
}

const char *sim_http_why(struct coordinator *c)
{
    for (int i = 0; i < http.clients; i++) {
        const struct client *x = &http.client[i];
        const struct sched_entry *e = entry_of(c, i);

        if (!x->acked)
            return "a client was never answered";
        if (c == NULL || e == NULL)
            return "the coordinator is down, or does not know a job";
        if (x->verb[x->next] != NULL)
            return x->verb[x->next];
        if (!run_state_is_final(e->state))
            return e->job != NULL ? stage_why(e->job) : run_state_name(e->state);
    }
    return "";
}

char *sim_http_outputs(struct coordinator *c, int client)
{
    struct sched_job *own = NULL;
    const struct sched_job *j = api_job_find(c, http.client[client].job, &own);
    struct buf out = BUF_INIT;

    for (int k = 0; j != NULL && j->state == RUN_SUCCEEDED && k < j->stages_n; k++) {
        buf_printf(&out, "%s ", j->stage[k].name);
        json_canonical(j->stage[k].outputs, &out);
    }
    sched_job_free(own);
    return out.len > 0 ? buf_take(&out) : NULL;
}

/* Two disagreed, one of them the liar, and there was nobody else to ask; or it alone was there, and made no finite gradient. */
static bool is_honest_failure(const struct sched_job *j)
{
    if (j->state == RUN_FAILED && j->failure.code == ERR_NUMERIC)
        return sim_check_names_liar(j->failure.worker);
    return j->state == RUN_FAILED && j->failure.code == ERR_CONFLICT &&
           sim_check_names_liar(j->failure.message);
}

static void outcome(struct coordinator *c, int client, char **expected)
{
    struct sched_job *own = NULL;
    const struct sched_job *j = api_job_find(c, http.client[client].job, &own);
    char *outputs = sim_http_outputs(c, client);

    if (outputs != NULL && strcmp(outputs, expected[0]) != 0 && strcmp(outputs, expected[1]) != 0) {
        if (!sim_check_excused())
            sim_violation(
                "job %s ended with other outputs than the undisturbed one: %.200s, not %.200s",
                j->name, outputs, expected[0]);
    } else if (outputs == NULL && !is_honest_failure(j) &&
               !(j->state == RUN_CANCELLED && http.client[client].cancels))
        sim_violation("job %s ended as %s: %s", j->name, run_state_name(j->state),
                      j->failure.message);
    free(outputs);
    sched_job_free(own);
}

void sim_http_outcomes(struct coordinator *c, char *(*expected)[2])
{
    if (c->sched.entries_n != http.clients)
        sim_violation("%d jobs of %d clients", c->sched.entries_n, http.clients);
    for (int i = 0; i < http.clients; i++)
        outcome(c, i, expected[http.client[i].kind]);
}

void sim_http_counts(struct sim_results *out)
{
    out->faults.client_loss = http.lost;
    out->faults.cancel = http.verbs[true][0];
    out->faults.retry = http.verbs[true][1];
    out->faults.pause = http.verbs[true][2];
    out->cancelled = http.verbs[true][0];
}
