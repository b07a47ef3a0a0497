/*
 * Jobs and workers as JSON. Progress is computed when asked for: a stage counts the cost of its
 * finished phases and a share of the open one, a job the cost of its stages, all by the planner's
 * own estimates.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/api_inner.h"
#include "coordinator/job_id.h"
#include "coordinator/sched_inner.h"

/* ---- progress -------------------------------------------------------------------------------- */

struct amount {
    double done, total;
};

static struct amount phase_amount(const struct sched_stage *st)
{
    struct amount a = {0, 0};

    if (!st->phase_open)
        return a;
    if (st->phase.type == PHASE_SESSION) {
        a.done = st->session != NULL ? (double)st->session->version : 0;
        a.total = (double)st->phase.session.steps;
        return a;
    }
    a.total = st->phase.rows_per_task > 0 ? (double)st->phase.rows : (double)st->tasks_n;
    a.done = (double)st->rows_done;
    for (uint32_t i = task_set_next(&st->busy, 0); i != TASK_SET_NONE;
         i = task_set_next(&st->busy, i + 1)) {
        const struct sched_task *t = &st->task[i];
        double part = t->total > 0 && t->done < t->total ? (double)t->done / (double)t->total
                      : t->total > 0                     ? 1
                                                         : 0;

        a.done += t->state == TASK_LEASED ? (double)sched_task_rows(t) * part : 0;
    }
    return a;
}

static double stage_fraction(const struct sched_stage *st)
{
    struct amount a = phase_amount(st);
    double done = st->cost_done + (a.total > 0 ? st->phase.cost * a.done / a.total : 0);

    if (st->state == RUN_SUCCEEDED)
        return 1;
    return st->cost_total > 0 && done < st->cost_total ? done / st->cost_total : 0;
}

static double job_fraction(const struct sched_job *j)
{
    double done = 0, total = 0;

    if (j->state == RUN_SUCCEEDED)
        return 1;
    for (int i = 0; i < j->stages_n; i++) {
        double cost = j->stage[i].cost_total > 0 ? j->stage[i].cost_total : 1;

        done += cost * stage_fraction(&j->stage[i]);
        total += cost;
    }
    return total > 0 ? done / total : 0;
}

static const struct sched_stage *stage_current(const struct sched_job *j)
{
    const struct sched_stage *first = NULL;

    for (int i = 0; i < j->stages_n; i++) {
        if (j->stage[i].phase_open && !run_state_is_final(j->stage[i].state) &&
            (first == NULL || j->stage[i].phase.cost > first->phase.cost))
            first = &j->stage[i];
    }
    return first;
}

static void number_or_null(cJSON *o, const char *key, bool known, double value)
{
    if (known)
        cJSON_AddNumberToObject(o, key, value);
    else
        cJSON_AddNullToObject(o, key);
}

/* Units of the phase a second: of a session as its leader measures it now, else the mean since the phase began. */
static double phase_rate(const struct sched_stage *st, double done)
{
    const struct sched_session *ss = st->session;
    double seconds = (double)(clock_ms() - st->phase_started_ms) / 1000;

    if (st->phase_open && st->phase.type == PHASE_SESSION && ss != NULL)
        return ss->open && ss->tokens > 0
                   ? ss->tokens_per_s * (double)ss->version / (double)ss->tokens
                   : 0;
    return seconds > 0.5 && done > 0 ? done / seconds : 0;
}

/* Seconds until the stage ends at that rate, all its phases weighed by their cost; 0 if it can't be told. */
static double stage_eta(const struct sched_stage *st, double total, double rate)
{
    double cost_per_s = total > 0 ? rate / total * st->phase.cost : 0;

    return st->phase_open && cost_per_s > 0 ? (1 - stage_fraction(st)) * st->cost_total / cost_per_s
                                            : 0;
}

/* The step that is open: since when, and which units its hosts still lack. */
static cJSON *step_json(const struct sched_session *ss)
{
    const struct sched_open *open = &ss->step;
    uint64_t now = clock_ms();
    cJSON *o = cJSON_CreateObject(), *missing = cJSON_AddArrayToObject(o, "missing_units");

    cJSON_AddNumberToObject(o, "number", (double)(ss->version + 1));
    number_or_null(o, "open_s", open->since_ms > 0 && open->version == ss->version,
                   now > open->since_ms ? (double)(now - open->since_ms) / 1000 : 0);
    number_or_null(o, "usual_s", open->usual_ms > 0, open->usual_ms / 1000);
    for (int i = 0; i < open->missing_n && open->version == ss->version; i++) {
        double span[2] = {open->missing[i].begin, open->missing[i].end};
        cJSON_AddItemToArray(missing, cJSON_CreateDoubleArray(span, 2));
    }
    return o;
}

/* eta_s: of the stage when seconds is 0, else of the whole that began so long ago and is done to `fraction`. */
static cJSON *progress_json(const struct sched_stage *st, double fraction, double seconds)
{
    cJSON *o = cJSON_CreateObject();
    struct amount a = st != NULL ? phase_amount(st) : (struct amount){0, 0};
    double rate = st != NULL ? phase_rate(st, a.done) : 0;

    cJSON_AddStringToObject(o, "phase", st != NULL && st->phase_open ? st->phase.name : "");
    cJSON_AddStringToObject(o, "unit", st != NULL && st->phase_open ? st->phase.unit : "");
    cJSON_AddNumberToObject(o, "done", a.done);
    cJSON_AddNumberToObject(o, "total", a.total);
    cJSON_AddNumberToObject(o, "fraction", fraction);
    number_or_null(o, "rate_per_s", rate > 0, rate);
    if (st != NULL && st->phase_open && st->session != NULL && st->session->open)
        cJSON_AddItemToObject(o, "step", step_json(st->session));
    if (seconds <= 0) {
        double eta = st != NULL ? stage_eta(st, a.total, rate) : 0;
        number_or_null(o, "eta_s", eta > 0, eta);
    } else {
        number_or_null(o, "eta_s", fraction > 0.01 && fraction < 1 && seconds > 1,
                       seconds * (1 - fraction) / fraction);
    }
    return o;
}

static double seconds_since(uint64_t wall_ms)
{
    uint64_t now = clock_wall_ms();

    return wall_ms > 0 && now > wall_ms ? (double)(now - wall_ms) / 1000 : 0;
}

/* ---- why it waits ---------------------------------------------------------------------------- */

struct tally {
    int here, usable, hosts, busy, in_session, draining, suspect, other_class;
};

static struct tally tally_of(const struct coordinator *c, const struct sched_job *j)
{
    struct tally t = {0};

    for (int i = 0; i < c->sched.workers_n; i++) {
        const struct sched_worker *w = c->sched.worker[i];

        t.here++;
        if (w->draining)
            t.draining++;
        else if (w->suspect)
            t.suspect++;
        else if (!sched_class_fits(j, w))
            t.other_class++;
        else if (w->in != NULL)
            t.in_session++;
        else if (w->running >= w->threads)
            t.busy++;
        else
            t.usable++;
        t.hosts += (w->roles & SCHED_ROLE_PARAMS) != 0;
    }
    return t;
}

static cJSON *reason_add(cJSON *list, const char *code, const char *tier, const char *fixer,
                         const char *message, const char *hint)
{
    cJSON *o = cJSON_CreateObject();

    cJSON_AddStringToObject(o, "code", code);
    cJSON_AddStringToObject(o, "tier", tier);
    cJSON_AddStringToObject(o, "fixer", fixer);
    cJSON_AddStringToObject(o, "message", message);
    if (*hint != '\0')
        cJSON_AddStringToObject(o, "hint", hint);
    cJSON_AddItemToArray(list, o);
    return o;
}

static void reason_workers(const struct coordinator *c, const struct sched_job *j,
                           const struct sched_stage *st, cJSON *list)
{
    struct tally t = tally_of(c, j);
    char message[512], hint[400] = "";
    cJSON *details = NULL, *reason = NULL;

    if (t.here == 0)
        snprintf(message, sizeof message, "stage %s waits for a worker, and there is none",
                 st->name);
    else
        snprintf(message, sizeof message,
                 "stage %s waits for a worker: %d here, %d busy, %d in a training session, %d "
                 "draining, %d silent, %d of another CPU class",
                 st->name, t.here, t.busy, t.in_session, t.draining, t.suspect, t.other_class);
    if (t.here == 0)
        snprintf(hint, sizeof hint, "start one: steer-worker --coordinator %s", c->control);
    else if (st->phase.type == PHASE_SESSION && t.hosts == 0)
        snprintf(hint, sizeof hint, "training needs a worker with role params");
    else if (t.other_class == t.here)
        snprintf(
            hint, sizeof hint, "%s",
            j->bf16 && !j->class_bound
                ? "numerics: bf16 needs workers with AVX512_BF16, or with AVX2 and FMA, that "
                  "were started without --bf16 off"
                : "the job began on CPUs whose arithmetic differs; start a worker on one of those");
    reason = reason_add(list, "WaitingForWorkers", "capacity", t.here == 0 ? "admin" : "wait",
                        message, hint);
    details = cJSON_AddObjectToObject(reason, "details");
    cJSON_AddNumberToObject(details, "here", t.here);
    cJSON_AddNumberToObject(details, "usable", t.usable);
    cJSON_AddNumberToObject(details, "busy", t.busy);
    cJSON_AddNumberToObject(details, "in_session", t.in_session);
    cJSON_AddNumberToObject(details, "draining", t.draining);
    cJSON_AddNumberToObject(details, "suspect", t.suspect);
    cJSON_AddNumberToObject(details, "other_class", t.other_class);
}

static void reason_retry(const struct sched_stage *st, const struct sched_task *t, uint64_t now_ms,
                         cJSON *list)
{
    char message[512];

    snprintf(message, sizeof message,
             "task %u of %s is tried again in %.1f s (%u faults, %u losses): %.200s", t->index,
             st->phase.name,
             t->retry_at_ms > now_ms ? (double)(t->retry_at_ms - now_ms) / 1000 : 0.0, t->faults,
             t->losses, t->text);
    reason_add(list, "RetryBackoff", "order", "wait", message, "");
}

static void stage_reasons(const struct coordinator *c, const struct sched_job *j,
                          const struct sched_stage *st, cJSON *list)
{
    uint32_t leased = 0;
    bool waits = false; /* for another try */
    char message[300];

    if (st->phase_open && st->phase.type == PHASE_SESSION && st->session != NULL &&
        !st->session->open) {
        if (st->session->why[0] != '\0') {
            snprintf(message, sizeof message, "%s starts again from version %" PRIu64 ": %.180s",
                     st->phase.name, st->session->manifest_version, st->session->why);
            reason_add(list, "SessionRestarts", "system", "wait", message, "");
        }
        reason_workers(c, j, st, list);
        return;
    }
    for (uint32_t i = task_set_next(&st->busy, 0); st->phase_open && i != TASK_SET_NONE;
         i = task_set_next(&st->busy, i + 1)) {
        leased += st->task[i].state == TASK_LEASED;
        if (st->task[i].state == TASK_RETRY_WAIT && !waits)
            reason_retry(st, &st->task[i], c->sched.now_ms, list);
        waits = waits || st->task[i].state == TASK_RETRY_WAIT;
    }
    if (st->phase_open && st->pending.count > 0 && leased == 0)
        reason_workers(c, j, st, list);
    if (st->state == RUN_PENDING && strcmp(st->reason, "MaxParallel") == 0) {
        snprintf(message, sizeof message, "stage %s waits: %d stages run at once", st->name,
                 j->max_parallel);
        reason_add(list, "MaxParallel", "policy", "wait", message, "");
    }
}

/* Paused, or not its turn yet. */
static void reason_waits(const struct coordinator *c, const struct sched_job *j, bool full,
                         cJSON *list)
{
    char message[300], time[32];
    uint64_t before = 0;

    if (j->state == RUN_PAUSED) {
        clock_wall_format(j->paused_wall_ms, time);
        snprintf(message, sizeof message, "paused by a person since %s", time);
        reason_add(list, "PausedByUser", "stopped", "user", message,
                   "steerctl resume ID lets it go on where it was");
        return;
    }
    for (int i = 0; full && i < c->sched.entries_n && c->sched.entry[i].id < j->id; i++)
        before += c->sched.entry[i].state == RUN_PENDING;
    if (full)
        snprintf(message, sizeof message,
                 "%" PRIu64 " jobs that were submitted earlier start first; %d run", before,
                 c->sched.active_n);
    else
        snprintf(message, sizeof message, "%" PRIu64 " jobs wait; %d run",
                 c->sched.count[RUN_PENDING], c->sched.active_n);
    reason_add(list, "Queued", "order", "wait", message, "");
}

static cJSON *reasons_json(const struct coordinator *c, const struct sched_job *j, bool full)
{
    cJSON *list = cJSON_CreateArray();

    if (run_state_is_final(j->state))
        return list;
    if (c->parked)
        reason_add(list, "DiskFull", "system", "admin",
                   "the coordinator's disk is full; the job goes on when there is space",
                   "free space on the disk of the state directory");
    if (!j->admitted) {
        if (j->state == RUN_PENDING || j->state == RUN_PAUSED) /* else: the rows of one that runs */
            reason_waits(c, j, full, list);
        return list;
    }
    for (int i = 0; i < j->stages_n; i++)
        stage_reasons(c, j, &j->stage[i], list);
    return list;
}

/* ---- the object ------------------------------------------------------------------------------ */

const char *api_state_text(const struct coordinator *c, enum run_state s)
{
    return c->parked && !run_state_is_final(s) && s != RUN_PENDING && s != RUN_PAUSED
               ? "PARKED"
               : run_state_name(s);
}

static void text_or_null(cJSON *o, const char *key, const char *text)
{
    if (*text != '\0')
        cJSON_AddStringToObject(o, key, text);
    else
        cJSON_AddNullToObject(o, key);
}

/* Running in name only: what it has to do next found no worker yet. */
static bool stage_waits(const struct sched_stage *st)
{
    if (!st->phase_open || run_state_is_final(st->state))
        return false;
    if (st->phase.type == PHASE_SESSION)
        return st->session != NULL && !st->session->open;
    for (uint32_t i = task_set_next(&st->busy, 0); i != TASK_SET_NONE;
         i = task_set_next(&st->busy, i + 1)) {
        if (st->task[i].state == TASK_LEASED)
            return false;
    }
    return st->pending.count > 0;
}

/* Which chunks each parameter host owns: [{"worker", "begin", "end"}]. */
static cJSON *shards_json(const struct sched_session *ss)
{
    cJSON *all = cJSON_CreateArray();

    for (int i = 0; i < ss->hosts_n; i++) {
        cJSON *h = cJSON_CreateObject();

        cJSON_AddStringToObject(h, "worker", ss->host[i].worker);
        cJSON_AddNumberToObject(h, "begin", ss->host[i].chunk_begin);
        cJSON_AddNumberToObject(h, "end", ss->host[i].chunk_end);
        cJSON_AddItemToArray(all, h);
    }
    return all;
}

static cJSON *stage_json(const struct coordinator *c, const struct sched_stage *st)
{
    cJSON *o = cJSON_CreateObject();

    cJSON_AddStringToObject(o, "name", st->name);
    cJSON_AddStringToObject(o, "kind", job_kind_name(st->kind));
    cJSON_AddStringToObject(o, "state",
                            st->job->state == RUN_PAUSED && st->state == RUN_RECOVERING
                                ? run_state_name(RUN_PAUSED)
                                : api_state_text(c, st->state));
    text_or_null(o, "reason",
                 st->reason[0] == '\0' && stage_waits(st) ? "WaitingForWorkers" : st->reason);
    cJSON_AddBoolToObject(o, "reused", st->reused);
    text_or_null(o, "phase", st->phase_open ? st->phase.name : "");
    cJSON_AddItemToObject(o, "progress", progress_json(st, stage_fraction(st), 0));
    api_time(o, "started_at", st->started_wall_ms);
    api_time(o, "finished_at", st->finished_wall_ms);
    cJSON_AddItemToObject(o, "outputs",
                          st->outputs != NULL ? cJSON_Duplicate(st->outputs, true)
                                              : cJSON_CreateObject());
    cJSON_AddItemToObject(o, "metrics",
                          st->metrics != NULL ? cJSON_Duplicate(st->metrics, true)
                                              : cJSON_CreateObject());
    if (st->session != NULL) {
        cJSON *s = cJSON_AddObjectToObject(o, "session");

        cJSON_AddNumberToObject(s, "attempt", (double)st->session->attempt);
        cJSON_AddNumberToObject(s, "assignment", (double)st->session->assignment);
        cJSON_AddNumberToObject(s, "hosts", st->session->hosts_n);
        cJSON_AddItemToObject(s, "shards", shards_json(st->session));
        cJSON_AddNumberToObject(s, "compute", sched_session_computing(st->session));
        cJSON_AddNumberToObject(s, "version", (double)st->session->version);
        cJSON_AddNumberToObject(s, "checkpoint_version", (double)st->session->manifest_version);
        text_or_null(s, "checkpoint", st->session->manifest.hex);
        number_or_null(s, "tokens_per_s", st->session->tokens_per_s > 0, st->session->tokens_per_s);
    }
    return o;
}

static void latest_add(cJSON *latest, const struct sched_job *j, const struct sched_stage *st,
                       const char *name, double value)
{
    char key[160];
    const char *phase = strcmp(st->phase.name, "train.0") == 0 ? "train" : st->phase.name;
    cJSON *o = NULL;

    snprintf(key, sizeof key, "%s%s%s.%s", j->kind == KIND_PIPELINE ? st->name : "",
             j->kind == KIND_PIPELINE ? "/" : "", phase, name);
    o = cJSON_AddObjectToObject(latest, key);
    cJSON_AddNumberToObject(o, "value", value);
    cJSON_AddNumberToObject(o, "step", (double)st->session->version);
}

static cJSON *latest_json(const struct sched_job *j)
{
    cJSON *latest = cJSON_CreateObject();

    for (int i = 0; i < j->stages_n; i++) {
        const struct sched_stage *st = &j->stage[i];

        if (st->session == NULL || st->session->version == 0)
            continue;
        latest_add(latest, j, st, "loss", st->session->loss);
        latest_add(latest, j, st, "lr", st->session->lr);
        latest_add(latest, j, st, "grad_norm", st->session->grad_norm);
        latest_add(latest, j, st, "tokens_per_s", st->session->tokens_per_s);
    }
    return latest;
}

static cJSON *outputs_json(const struct sched_job *j)
{
    cJSON *all = cJSON_CreateObject();
    const cJSON *out = NULL;

    for (int i = 0; i < j->stages_n; i++) {
        cJSON_ArrayForEach(out, j->stage[i].outputs)
        {
            char key[160];

            if (j->kind != KIND_PIPELINE && j->stage[i].kind != j->kind)
                continue;
            snprintf(key, sizeof key, "%s%s%s", j->kind == KIND_PIPELINE ? j->stage[i].name : "",
                     j->kind == KIND_PIPELINE ? "/" : "", out->string);
            cJSON_AddItemToObject(all, key, cJSON_Duplicate(out, true));
        }
    }
    return all;
}

static const char *failure_hint(const struct sched_failure *f)
{
    switch (f->code) {
    case ERR_INVALID:
    case ERR_LIMIT:
        return "the spec or its data asks for something that cannot be done; change it and submit "
               "again";
    case ERR_CORRUPT:
        return "an artefact does not agree with its digest or format; upload it again";
    case ERR_NUMERIC:
        return "values stopped being finite; a smaller learning rate or gradient clipping usually "
               "helps";
    case ERR_NO_SPACE:
        return "a worker's disk is full";
    case ERR_UNREACHABLE:
        return "workers went away too often; see the events";
    default:
        return "see the job's events and logs";
    }
}

static cJSON *failure_json(const struct sched_job *j)
{
    const struct sched_failure *f = &j->failure;
    cJSON *o = NULL;

    if (f->class_name[0] == '\0')
        return cJSON_CreateNull();
    o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "class", f->class_name);
    cJSON_AddStringToObject(o, "code", err_name(f->code));
    cJSON_AddStringToObject(o, "message", f->message);
    cJSON_AddStringToObject(o, "stage", f->stage);
    number_or_null(o, "task", f->task != 0, (double)f->task);
    number_or_null(o, "attempt", f->attempt != 0, f->attempt);
    text_or_null(o, "worker", f->worker);
    cJSON_AddStringToObject(o, "hint", failure_hint(f));
    return o;
}

static bool works_for(const struct sched_worker *w, const struct sched_job *j)
{
    if (w->in != NULL && w->in->job == j)
        return true;
    for (int k = 0; k < j->stages_n && w->running > 0; k++) {
        const struct sched_stage *st = &j->stage[k];

        for (uint32_t i = task_set_next(&st->busy, 0); i != TASK_SET_NONE;
             i = task_set_next(&st->busy, i + 1)) {
            if (st->task[i].state == TASK_LEASED && strcmp(st->task[i].worker, w->id) == 0)
                return true;
        }
    }
    return false;
}

static int workers_active(const struct coordinator *c, const struct sched_job *j)
{
    int n = 0;

    for (int i = 0; i < c->sched.workers_n; i++)
        n += works_for(c->sched.worker[i], j);
    return n;
}

static void links_add(cJSON *o, const char *id)
{
    static const char *const names[] = {"spec",   "tasks", "events", "series", "logs",
                                        "cancel", "pause", "resume", "retry"};
    cJSON *links = cJSON_AddObjectToObject(o, "links");
    char path[64];

    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    cJSON_AddStringToObject(links, "self", path);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "/v1/jobs/%s/%s", id, names[i]);
        cJSON_AddStringToObject(links, names[i], path);
    }
}

const struct sched_job *api_job_find(struct coordinator *c, uint64_t id, struct sched_job **own)
{
    struct sched_entry *entry = sched_find_entry(&c->sched, id);
    struct err e = {0};

    *own = NULL;
    if (entry == NULL)
        return NULL;
    if (entry->job != NULL && !c->parked) /* else it may be ahead of what is committed */
        return entry->job;
    if (journal_job(c->journal, id, own, &e) != 0) {
        log_warn("job.unreadable", "error=\"%s\"", e.msg);
        return NULL;
    }
    if (entry->job == NULL)
        entry->version = (*own)->version;
    return *own;
}

uint64_t api_job_version(struct coordinator *c, uint64_t id)
{
    const struct sched_entry *entry = sched_find_entry(&c->sched, id);
    struct sched_job *own = NULL;
    uint64_t version = 0;

    if (entry == NULL)
        return 0;
    version = entry->job != NULL ? entry->job->version : entry->version;
    if (version == 0 && api_job_find(c, id, &own) != NULL)
        version = own->version;
    sched_job_free(own);
    return version;
}

cJSON *api_job(struct coordinator *c, const struct sched_job *j, bool full)
{
    cJSON *o = cJSON_CreateObject(), *workers = NULL, *stages = NULL;
    char id[JOB_ID_TEXT], seed[24];

    job_id_format(j->id, id);
    cJSON_AddStringToObject(o, "id", id);
    cJSON_AddStringToObject(o, "name", j->name);
    cJSON_AddStringToObject(o, "project", j->project);
    cJSON_AddStringToObject(o, "kind", job_kind_name(j->kind));
    cJSON_AddStringToObject(o, "state", api_state_text(c, j->state));
    text_or_null(o, "reason",
                 c->parked && !run_state_is_final(j->state)                        ? "DiskFull"
                 : j->state == RUN_PENDING && !j->admitted && j->reason[0] == '\0' ? "Queued"
                                                                                   : j->reason);
    cJSON_AddItemToObject(o, "reasons", reasons_json(c, j, full));
    api_time(o, "created_at", j->created_wall_ms);
    api_time(o, "started_at", j->started_wall_ms);
    api_time(o, "finished_at", j->finished_wall_ms);
    api_time(o, "paused_at", j->paused_wall_ms);
    cJSON_AddNumberToObject(o, "version", (double)j->version);
    cJSON_AddStringToObject(o, "spec_digest", j->spec_digest.hex);
    cJSON_AddStringToObject(o, "build", STEER_VERSION);
    snprintf(seed, sizeof seed, "%" PRIu64, j->seed);
    if (j->seed < (1ull << 53))
        cJSON_AddNumberToObject(o, "seed", (double)j->seed);
    else
        cJSON_AddStringToObject(o, "seed", seed);
    cJSON_AddItemToObject(
        o, "progress",
        progress_json(stage_current(j), job_fraction(j), seconds_since(j->started_wall_ms)));
    workers = cJSON_AddObjectToObject(o, "workers");
    cJSON_AddNumberToObject(workers, "active", workers_active(c, j));
    stages = cJSON_AddArrayToObject(o, "stages");
    for (int i = 0; i < j->stages_n; i++)
        cJSON_AddItemToArray(stages, stage_json(c, &j->stage[i]));
    if (full)
        cJSON_AddItemToObject(o, "latest", latest_json(j));
    cJSON_AddItemToObject(o, "outputs", outputs_json(j));
    cJSON_AddItemToObject(o, "failure", failure_json(j));
    links_add(o, id);
    return o;
}

/* QUARANTINED and HUNG are the scheduler's to say, the rest is the roster's. */
static const char *worker_state(const struct sched *sched, const struct roster_worker *w,
                                const struct sched_worker *s, char *why, size_t cap)
{
    const struct sched_quarantine *q = sched_quarantined(sched, w->id);

    snprintf(why, cap, "%s", q != NULL ? q->reason : "");
    if (q != NULL)
        return "QUARANTINED";
    if (s != NULL && s->hung) {
        snprintf(why, cap, "a compute thread does not move");
        return "HUNG";
    }
    if (s != NULL && s->other_class && roster_is_here(w))
        snprintf(why, cap, "numerics class %.12s is not that of the jobs that run", s->class_id);
    return roster_state_name(w->state);
}

cJSON *api_worker(const struct coordinator *c, const struct roster_worker *w)
{
    const struct sched_worker *s = sched_find_worker(&c->sched, w->id);
    cJSON *o = cJSON_CreateObject(), *roles = NULL;
    char id[JOB_ID_TEXT], why[SCHED_TEXT_MAX];

    cJSON_AddStringToObject(o, "id", w->id);
    cJSON_AddStringToObject(o, "name", w->name);
    cJSON_AddStringToObject(o, "state", worker_state(&c->sched, w, s, why, sizeof why));
    text_or_null(o, "reason", why);
    roles = cJSON_AddArrayToObject(o, "roles");
    if ((w->roles & ROLE_COMPUTE) != 0)
        cJSON_AddItemToArray(roles, cJSON_CreateString("compute"));
    if ((w->roles & ROLE_PARAMS) != 0)
        cJSON_AddItemToArray(roles, cJSON_CreateString("params"));
    cJSON_AddNumberToObject(o, "threads", w->threads);
    cJSON_AddNumberToObject(o, "memory_bytes", (double)w->memory_bytes);
    cJSON_AddNumberToObject(o, "running", s != NULL ? s->running : 0);
    if (s != NULL && s->in != NULL) {
        job_id_format(s->in->job->id, id);
        cJSON_AddStringToObject(o, "session_job", id);
        cJSON_AddStringToObject(o, "session_stage", s->in->name);
    } else {
        cJSON_AddNullToObject(o, "session_job");
    }
    cJSON_AddStringToObject(o, "endpoint", w->endpoint);
    cJSON_AddStringToObject(o, "build", w->build);
    cJSON_AddStringToObject(o, "fingerprint", w->fingerprint);
    cJSON_AddStringToObject(o, "blas", w->blas);
    text_or_null(o, "fingerprint_bf16", w->fingerprint_bf16);
    cJSON_AddNumberToObject(o, "heartbeat_age_ms", (double)(clock_ms() - w->heard_ms));
    cJSON_AddNumberToObject(o, "losses", (double)w->losses);
    api_time(o, "joined_at", w->joined_wall_ms);
    return o;
}
