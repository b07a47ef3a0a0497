/*
 * What people do to a job: cancel, pause, resume, retry. A job whose body is in the journal is
 * brought into memory first; the scheduler decides, and the answer goes out when that is committed.
 * Saying it twice is harmless: what is so already answers 202, what cannot be is 409 with words.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/api_inner.h"
#include "coordinator/job_id.h"

enum verb { CANCEL, PAUSE, RESUME, RETRY, VERBS };
static const char *const names[VERBS] = {"cancel", "pause", "resume", "retry"};

struct asked {
    struct coordinator *c;
    uint64_t id;
    enum run_state state;
    struct api_response *r;
    cJSON *body; /* owned; NULL if empty */
};

static void answer(struct asked *q)
{
    struct sched_job *own = NULL;
    const struct sched_job *j = NULL;

    if (!coordinator_flush(q->c)) {
        if (!api_storage_failed(q->c, q->r))
            api_problem(q->r, 507, "disk_full",
                        "the coordinator's disk is full: it is done when there is space");
        return;
    }
    sched_collect(&q->c->sched);
    j = api_job_find(q->c, q->id, &own);
    if (j != NULL)
        api_json(q->r, 202, api_job(q->c, j, true));
    else
        api_problem(q->r, 500, "storage", "the job cannot be read");
    sched_job_free(own);
}

static void refuse(struct asked *q, const char *why)
{
    char id[JOB_ID_TEXT];

    job_id_format(q->id, id);
    api_problem(q->r, 409, "conflict", "job %s is %s: %s", id, run_state_name(q->state), why);
}

static void simple(struct asked *q, enum sched_event_type type)
{
    struct sched_event ev = {.type = type, .job_id = q->id};

    if (!coordinator_load(q->c, q->id)) {
        api_problem(q->r, 503, "storage", "the job cannot be read");
        return;
    }
    coordinator_event(q->c, &ev);
    answer(q);
}

static void on_cancel(struct asked *q)
{
    if (run_state_is_final(q->state))
        answer(q);
    else
        simple(q, SCHED_CANCEL);
}

static void on_pause(struct asked *q)
{
    if (run_state_is_final(q->state))
        refuse(q, "only a job that is not over can be paused");
    else if (q->state == RUN_PAUSED)
        answer(q);
    else
        simple(q, SCHED_PAUSE);
}

static void on_resume(struct asked *q)
{
    if (run_state_is_final(q->state))
        refuse(q, "it is over; steerctl retry starts a failed or cancelled job again");
    else if (q->state != RUN_PAUSED)
        refuse(q, "only a paused job can be resumed");
    else
        simple(q, SCHED_RESUME);
}

/* ---- retry ----------------------------------------------------------------------------------- */

/* The one stage whose training goes on, or the one that the body names; -1 after answering. */
static int stage_of(struct asked *q, const struct sched_job *j)
{
    const char *name = json_string_or(q->body, "stage", "");
    int found = -1, n = 0;

    for (int i = 0; i < j->stages_n; i++) {
        if (j->stage[i].session == NULL || !j->stage[i].phase_open ||
            (*name != '\0' && strcmp(name, j->stage[i].name) != 0))
            continue;
        found = i;
        n++;
    }
    if (n == 0)
        refuse(q, *name != '\0' ? "that stage was not in training when it ended"
                                : "no stage was in training when it ended; leave \"from\" away");
    else if (n > 1)
        refuse(q, "several stages were in training when it ended; say which by \"stage\"");
    return n == 1 ? found : -1;
}

/* Fills stage, version and digest of the event in; false after answering. */
static bool from_take(struct asked *q, const struct sched_job *j, struct sched_event *ev)
{
    struct buf there = BUF_INIT;
    struct err e = {0};
    char why[400];
    int rc = 0;

    ev->stage_index = stage_of(q, j);
    if (ev->stage_index < 0)
        return false;
    ev->version = (uint64_t)json_int_or(q->body, "from", 0);
    rc = journal_checkpoint(q->c->journal, q->id, ev->stage_index,
                            j->stage[ev->stage_index].phase.name, ev->version, &ev->digest, &there,
                            &e);
    snprintf(why, sizeof why, "checkpoint %" PRIu64 " is not there; there are: %.300s", ev->version,
             there.len > 0 ? there.data : "none");
    buf_free(&there);
    if (rc != 0) {
        api_problem(q->r, 500, "storage", "%s", e.msg);
        return false;
    }
    if (ev->version == 0) { /* from the initial model */
        ev->digest.hex[0] = '\0';
        return true;
    }
    if (ev->digest.hex[0] == '\0' || !blob_has(q->c->blobs, ev->digest.hex)) {
        refuse(q, why);
        return false;
    }
    return true;
}

static void on_retry(struct asked *q)
{
    struct sched_event ev = {.type = SCHED_RETRY, .job_id = q->id, .stage_index = -1};
    const cJSON *from = json_get(q->body, "from");
    struct err e = {0};
    int rc = 0;

    if (!run_state_is_final(q->state)) {
        refuse(q, q->state == RUN_PAUSED
                      ? "steerctl resume lets it go on"
                      : "only a job that failed or was cancelled can be retried");
        return;
    }
    if (q->state == RUN_SUCCEEDED) {
        refuse(q, "there is nothing to do again; submit it again for another run");
        return;
    }
    if (from != NULL && (!cJSON_IsNumber(from) || from->valuedouble < 0 ||
                         from->valuedouble > 1e15 || json_int_or(q->body, "from", -1) < 0)) {
        api_problem(q->r, 400, "invalid_body",
                    "from must be the version of a checkpoint, 0 or more");
        return;
    }
    rc = journal_load_job(q->c->journal, &q->c->sched, q->id, true, &ev.job, &e);
    if (rc != 0 || ev.job->spec == NULL) {
        api_problem(q->r, rc != 0 ? 500 : 409, rc != 0 ? "storage" : "conflict", "%s",
                    rc != 0 ? e.msg : ev.job->failure.message);
        sched_job_free(ev.job);
        return;
    }
    if (from != NULL && !from_take(q, ev.job, &ev)) {
        sched_job_free(ev.job);
        return;
    }
    coordinator_event(q->c, &ev);
    answer(q);
}

/* ---- the table ------------------------------------------------------------------------------- */

static void perform(struct asked *q, enum verb verb)
{
    static void (*const fn[VERBS])(struct asked * q) = {on_cancel, on_pause, on_resume, on_retry};

    if (q->c->parked || !coordinator_flush(q->c)) {
        if (!api_storage_failed(q->c, q->r))
            api_problem(
                q->r, 507, "disk_full",
                "the coordinator's disk is full: nothing can be changed until there is space");
        return;
    }
    sched_collect(&q->c->sched); /* nothing is pending: a job that is over is in the journal only */
    fn[verb](q);
}

bool api_verb(struct coordinator *c, const struct api_request *q, uint64_t id, const char *verb,
              struct api_response *r)
{
    const struct sched_entry *entry = sched_find_entry(&c->sched, id);
    struct asked asked = {.c = c, .id = id, .r = r, .state = entry->state};
    struct err e = {0};
    int at = 0;

    while (at < VERBS && strcmp(names[at], verb) != 0)
        at++;
    if (at == VERBS)
        return false;
    if (strcmp(q->method, "POST") != 0)
        api_problem(r, 405, "method_not_allowed", "%s is not for %s", q->method, q->path);
    else if (q->body_len > 0 &&
             json_parse(q->body, q->body_len, JSON_LIMITS_BODY, &asked.body, &e) != 0)
        api_problem(r, 400, "invalid_body", "body: %s", e.msg);
    else
        perform(&asked, (enum verb)at);
    cJSON_Delete(asked.body);
    return true;
}
