/*
 * Reading the journal back. A job that waits, is paused or is over stays where it is: the scheduler
 * learns that it is there, and asks when it needs more. One that runs is built again
 * from its spec, which gives the same stages, and its rows are laid over them. The planner is asked
 * for the open phase rather than trusted from a row, so a build with another plan goes on from the
 * last finished phase.
 */
#include "coordinator/journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/journal_inner.h"

enum how {
    ROWS,  /* what the rows say */
    RUN,   /* with its spec, unless it is over */
    RETRY, /* with its spec, and what was open when it ended */
};
struct found {
    uint64_t id;
    enum run_state state;
};
struct load {
    struct journal *j;
    struct sched *s;
    struct sched_job *job;
    enum how how;
    int n, cap;
    struct found *found;
};

static cJSON *parse(const struct db_row *row, int column)
{
    cJSON *out = NULL;
    const char *text = db_text(row, column);
    struct err e = {0};

    if (*text == '\0' || json_parse(text, strlen(text), JSON_LIMITS_FILE, &out, &e) != 0)
        return NULL;
    return out;
}

static int on_found(void *self, const struct db_row *row, struct err *e)
{
    struct load *l = self;
    int state = run_state_parse(db_text(row, 1));

    if (state < 0)
        return err_set(e, ERR_CORRUPT, "job %lld: state \"%s\"", (long long)db_int(row, 0),
                       db_text(row, 1));
    if (l->n == l->cap) {
        l->cap = l->cap * 2 + 64;
        l->found = mem_grow(l->found, (size_t)l->cap, sizeof *l->found);
    }
    l->found[l->n++] = (struct found){(uint64_t)db_int(row, 0), (enum run_state)state};
    return 0;
}

static int found_order(const void *a, const void *b)
{
    uint64_t x = ((const struct found *)a)->id, y = ((const struct found *)b)->id;

    return x < y ? -1 : x > y;
}

static enum job_kind kind_parse(const char *text)
{
    for (int i = 0; i < KIND_COUNT; i++) {
        if (strcmp(job_kind_name((enum job_kind)i), text) == 0)
            return (enum job_kind)i;
    }
    return KIND_PREPARE;
}

static void failure_parse(const struct db_row *row, int column, struct sched_failure *f)
{
    cJSON *o = parse(row, column);

    if (o == NULL)
        return;
    snprintf(f->class_name, sizeof f->class_name, "%s", json_string_or(o, "class", ""));
    snprintf(f->message, sizeof f->message, "%s", json_string_or(o, "message", ""));
    snprintf(f->stage, sizeof f->stage, "%s", json_string_or(o, "stage", ""));
    snprintf(f->worker, sizeof f->worker, "%s", json_string_or(o, "worker", ""));
    f->code = (int)json_int_or(o, "code", 0);
    f->task = (uint64_t)json_int_or(o, "task", 0);
    f->attempt = (uint32_t)json_int_or(o, "attempt", 0);
    cJSON_Delete(o);
}

/* ---- jobs ------------------------------------------------------------------------------------ */

static int job_build(const struct db_row *row, struct sched_job **out, struct err *e)
{
    cJSON *spec_json = parse(row, 12), *resolved = parse(row, 13);
    struct spec *spec = NULL;
    int rc = spec_json == NULL ? err_set(e, ERR_CORRUPT, "its spec is no JSON")
                               : spec_from_json(spec_json, &spec, e);

    if (rc == 0)
        rc = sched_job_new((uint64_t)db_int(row, 0), &spec, resolved, (uint64_t)db_int(row, 9), out,
                           e);
    cJSON_Delete(spec_json);
    cJSON_Delete(resolved);
    return rc;
}

/* It ends, with what there is to see of it, rather than be lost. */
static void job_fail(struct sched_job *job, const char *reason, const struct err *why)
{
    job->state = RUN_FAILED;
    snprintf(job->reason, sizeof job->reason, "%s", reason);
    job->failure = (struct sched_failure){.code = (int)why->code};
    snprintf(job->failure.class_name, sizeof job->failure.class_name, "internal");
    snprintf(job->failure.message, sizeof job->failure.message, "%.700s", why->msg);
}

static int on_job(void *self, const struct db_row *row, struct err *e)
{
    struct load *l = self;
    struct err why = {0};
    int state = run_state_parse(db_text(row, 4));
    struct sched_job *job = NULL;

    if (state < 0)
        return err_set(e, ERR_CORRUPT, "job %lld: state \"%s\"", (long long)db_int(row, 0),
                       db_text(row, 4));
    if (l->how == ROWS || (run_state_is_final((enum run_state)state) && l->how != RETRY) ||
        job_build(row, &job, &why) != 0) {
        job = mem_zalloc(1, sizeof *job);
        job->id = (uint64_t)db_int(row, 0);
        job->created_wall_ms = (uint64_t)db_int(row, 9);
        job->kind = kind_parse(db_text(row, 3));
        job->seed = (uint64_t)db_int(row, 6);
        snprintf(job->name, sizeof job->name, "%s", db_text(row, 1));
        snprintf(job->project, sizeof job->project, "%s", db_text(row, 2));
    }
    job->state = (enum run_state)state;
    digest_bytes(db_text(row, 12), strlen(db_text(row, 12)), &job->spec_digest);
    snprintf(job->reason, sizeof job->reason, "%s", db_text(row, 5));
    job->class_bound = !db_is_null(row, 7);
    snprintf(job->class_id, sizeof job->class_id, "%s", db_text(row, 7));
    failure_parse(row, 8, &job->failure);
    job->started_wall_ms = (uint64_t)db_int(row, 10);
    job->finished_wall_ms = (uint64_t)db_int(row, 11);
    job->version = (uint64_t)db_int(row, 14);
    job->paused_wall_ms = (uint64_t)db_int(row, 15);
    if (why.code != 0) /* this build cannot read its spec any more */
        job_fail(job, "SpecUnreadable", &why);
    l->job = job;
    return 0;
}

/* ---- stages ---------------------------------------------------------------------------------- */

static void session_load(const struct db_row *row, int column, struct sched_session *ss)
{
    cJSON *o = parse(row, column);

    if (o != NULL)
        journal_session_parse(o, ss);
    cJSON_Delete(o);
}

static struct sched_stage *stage_slot(struct sched_job *job, int64_t idx, const char *name)
{
    if (job->spec != NULL)
        return idx >= 0 && idx < job->stages_n && strcmp(job->stage[idx].name, name) == 0
                   ? &job->stage[idx]
                   : NULL;
    if (idx != job->stages_n || idx >= EXPAND_STAGES_MAX) /* rows come in order of idx */
        return NULL;
    job->stage = mem_grow(job->stage, (size_t)idx + 1, sizeof *job->stage);
    job->stage[idx] = (struct sched_stage){.index = (int)idx};
    snprintf(job->stage[idx].name, sizeof job->stage[idx].name, "%s", name);
    job->stages_n++;
    return &job->stage[idx];
}

static int on_stage(void *self, const struct db_row *row, struct err *e)
{
    struct load *l = self;
    struct sched_stage *st = stage_slot(l->job, db_int(row, 0), db_text(row, 1));
    int state = run_state_parse(db_text(row, 3));

    if (st == NULL || state < 0)
        return err_set(e, ERR_CORRUPT, "stage %lld (%s) does not fit the job's spec",
                       (long long)db_int(row, 0), db_text(row, 1));
    st->kind = kind_parse(db_text(row, 2));
    st->state = (enum run_state)state;
    snprintf(st->reason, sizeof st->reason, "%s", db_text(row, 4));
    st->reused = db_int(row, 5) != 0;
    snprintf(st->reuse_key.hex, sizeof st->reuse_key.hex, "%s", db_text(row, 6));
    st->inputs = parse(row, 7);
    st->done = parse(row, 8);
    st->outputs = parse(row, 9);
    st->metrics = parse(row, 10);
    st->phases_done = (uint32_t)db_int(row, 13);
    st->cost_done = db_real(row, 14);
    st->started_wall_ms = (uint64_t)db_int(row, 16);
    st->finished_wall_ms = (uint64_t)db_int(row, 17);
    st->reuse_asked = st->reuse_missed = st->phases_done > 0 || !db_is_null(row, 11);
    st->cost_total = db_real(row, 18);
    if (l->job->spec == NULL || st->state == RUN_PENDING || st->state == RUN_SUCCEEDED ||
        st->state == RUN_SKIPPED || (run_state_is_final(st->state) && l->how != RETRY) ||
        (l->how == RETRY && st->inputs == NULL))
        return 0;
    if (st->inputs == NULL || st->done == NULL)
        return err_set(e, ERR_CORRUPT, "stage %s runs but has no inputs", st->name);
    if (!db_is_null(row, 11) &&
        sched_restore_phase(l->s, st, db_text(row, 11), (uint32_t)db_int(row, 12)) &&
        st->session != NULL)
        session_load(row, 15, st->session);
    return 0;
}

/* ---- tasks ----------------------------------------------------------------------------------- */

static void crashed_parse(struct sched_task *t, const char *text)
{
    while (*text != '\0' && t->crashes < SCHED_CRASHES_MAX) {
        size_t n = strcspn(text, "\n");

        snprintf(t->crashed[t->crashes++], SCHED_WORKER_MAX, "%.*s", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

static int on_task(void *self, const struct db_row *row, struct err *e)
{
    struct sched_stage *st = self;
    uint64_t idx = (uint64_t)db_int(row, 1);
    struct sched_task *t = NULL;
    int state = task_state_parse(db_text(row, 2));

    if (idx >= st->tasks_n || state < 0)
        return err_set(e, ERR_CORRUPT, "task %lld of stage %s", (long long)db_int(row, 0),
                       st->name);
    t = &st->task[idx];
    t->id = (uint64_t)db_int(row, 0);
    t->state = (enum task_state)state;
    t->epoch = (uint64_t)db_int(row, 3);
    t->granted = (uint64_t)db_int(row, 11);
    snprintf(t->worker, sizeof t->worker, "%s", db_text(row, 4));
    t->faults = (uint32_t)db_int(row, 5);
    t->losses = (uint32_t)db_int(row, 6);
    crashed_parse(t, db_text(row, 7));
    t->result = t->state == TASK_DONE ? parse(row, 8) : NULL;
    t->code = (int)db_int(row, 9);
    snprintf(t->text, sizeof t->text, "%.*s", (int)sizeof t->text - 1, db_text(row, 10));
    st->tasks_done += t->state == TASK_DONE;
    return 0;
}

/* All are there, and their ids are consecutive: by these a task is found (sched_open.c). */
static int tasks_check(const struct sched_stage *st, struct err *e)
{
    for (uint32_t i = 0; i < st->tasks_n; i++) {
        if (st->task[i].id == 0 || st->task[i].id != st->task[0].id + i)
            return err_set(e, ERR_CORRUPT, "stage %s has no task %u of %u of phase %s", st->name, i,
                           st->tasks_n, st->phase.name);
    }
    return 0;
}

static int on_max(void *self, const struct db_row *row, struct err *e)
{
    uint64_t *max = self;

    (void)e;
    *max = (uint64_t)db_int(row, 0);
    return 0;
}

static int load_job(struct load *l, uint64_t id, struct err *e)
{
    struct db *db = l->j->db;
    int rc = 0;

    l->job = NULL;
    rc = db_query(db, e, on_job, l,
                  "SELECT id, name, project, kind, state, reason, seed, class, failure, "
                  "created_ms, started_ms, finished_ms, spec,"
                  " resolved, version, paused_ms FROM jobs WHERE id=?1",
                  "i", (int64_t)id);
    if (rc == 0 && l->job == NULL)
        rc = err_set(e, ERR_NOT_FOUND, "there is no such job");
    if (rc == 0)
        rc = db_query(db, e, on_stage, l,
                      "SELECT idx, name, kind, state, reason, reused, reuse_key, inputs, done, "
                      "outputs, metrics, phase, phase_tasks,"
                      " phases_done, cost_done, session, started_ms, finished_ms, cost_total FROM "
                      "stages WHERE job=?1 ORDER BY idx",
                      "i", (int64_t)id);
    for (int i = 0; rc == 0 && i < l->job->stages_n; i++) {
        struct sched_stage *st = &l->job->stage[i];

        st->job = l->job;
        if (st->phase_open && st->tasks_n > 0)
            rc = db_query(db, e, on_task, st,
                          "SELECT id, idx, state, epoch, worker, faults, losses, crashed, result, "
                          "code, text,"
                          " max(epoch, coalesce((SELECT max(a.epoch) FROM attempts a WHERE "
                          "a.task=tasks.id), 0)) FROM tasks"
                          " WHERE job=?1 AND stage=?2 AND phase=?3"
                          " AND id >= (SELECT max(b.id) FROM tasks b WHERE b.job=?1 AND b.stage=?2 "
                          "AND b.phase=?3 AND b.idx=0)"
                          " ORDER BY idx", /* a phase that had to be opened again has older tasks */
                          "iit", (int64_t)id, (int64_t)i, st->phase.name);
        if (rc == 0)
            rc = tasks_check(st, e);
    }
    if (rc != 0) {
        sched_job_free(l->job);
        l->job = NULL;
        return err_wrap(e, "journal: job %llu", (unsigned long long)id);
    }
    return 0;
}

/* A job whose rows do not fit together fails alone, and all others go on. */
static int load_or_fail(struct load *l, uint64_t id, struct err *e)
{
    struct load rows = {.j = l->j, .how = ROWS};
    struct err why = {0};
    int rc = load_job(l, id, e);

    if (rc != ERR_CORRUPT)
        return rc;
    why = *e;
    rc = load_job(&rows, id, e);
    l->job = rows.job;
    if (rc == 0)
        job_fail(l->job, "RowsUnreadable", &why);
    return rc;
}

int journal_load_job(struct journal *j, struct sched *s, uint64_t id, bool retry,
                     struct sched_job **out, struct err *e)
{
    struct load l = {.j = j, .s = s, .how = retry ? RETRY : RUN};
    int rc = load_or_fail(&l, id, e);

    *out = l.job;
    return rc;
}

int journal_job(struct journal *j, uint64_t id, struct sched_job **out, struct err *e)
{
    struct load l = {.j = j, .how = ROWS};
    int rc = load_job(&l, id, e);

    *out = l.job;
    return rc;
}

/* A job that ran. What watchers saw of unsaved progress is below the version that it gets. */
static int load_running(struct load *l, struct sched_actions *broken, const struct found *f,
                        struct err *e)
{
    uint64_t least = (l->j->term - 1) << 20;
    int rc = load_or_fail(l, f->id, e);

    if (rc != 0)
        return rc;
    l->job->version = (l->job->version > least ? l->job->version : least) + (1u << 20);
    if (l->job->state != f->state) { /* this build cannot go on with it */
        broken->v = mem_grow(broken->v, (size_t)broken->n + 1, sizeof *broken->v);
        broken->v[broken->n++] = (struct sched_action){.type = SCHED_SAVE_JOB, .job = l->job};
    }
    sched_restore(l->s, l->job);
    return 0;
}

static int on_quarantine(void *self, const struct db_row *row, struct err *e)
{
    cJSON *o = parse(row, 1);

    (void)e;
    sched_quarantine_restore(self, db_text(row, 0) + strlen("quarantine:"),
                             json_string_or(o, "reason", ""),
                             (uint64_t)json_int_or(o, "since_ms", 0));
    cJSON_Delete(o);
    return 0;
}

int journal_load(struct journal *j, struct sched *s, struct err *e)
{
    struct load l = {.j = j, .s = s, .how = RUN};
    struct sched_actions broken = {0, 0, NULL};
    uint64_t max = 0;
    int rc =
        db_query(j->db, e, on_found, &l, "SELECT id, state FROM jobs INDEXED BY jobs_by_state", "");

    if (l.n > 0)
        qsort(l.found, (size_t)l.n, sizeof *l.found, found_order);
    for (int i = 0; i < l.n && rc == 0; i++) {
        enum run_state state = l.found[i].state;

        if (state == RUN_STARTING || state == RUN_RUNNING || state == RUN_RECOVERING ||
            s->config.active_min == 0)
            rc = load_running(&l, &broken, &l.found[i], e);
        else
            sched_restore_entry(s, l.found[i].id, state);
    }
    if (rc == 0)
        rc = db_query(j->db, e, on_quarantine, s,
                      "SELECT key, value FROM meta WHERE key GLOB 'quarantine:*' ORDER BY key", "");
    if (rc == 0)
        rc = db_query(j->db, e, on_max, &max, "SELECT coalesce(max(id), 0) FROM tasks", "");
    if (rc == 0 && max >= s->next_task)
        s->next_task = max + 1;
    if (rc == 0 && s->next_session < j->term << 20) /* a term opens fewer than 2^20 sessions */
        s->next_session = j->term << 20;
    if (rc == 0)
        rc = journal_commit(j, &broken, 0, e);
    free(broken.v);
    free(l.found);
    return rc;
}
