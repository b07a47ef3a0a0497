/*
 * Rows are written by upsert from the scheduler's structures as they stand, so the order of actions
 * inside a batch does not matter and a batch may be written twice. What grows (events, series,
 * attempts) is append-only.
 */
#include "coordinator/journal.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "coordinator/journal_inner.h"

static const char *const migrations[] = {
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE TABLE jobs(id INTEGER PRIMARY KEY, name TEXT NOT NULL, project TEXT NOT NULL, kind "
    "TEXT NOT NULL, state TEXT NOT NULL,"
    " reason TEXT NOT NULL, seed INTEGER NOT NULL, class TEXT, failure TEXT, created_ms INTEGER "
    "NOT NULL, started_ms INTEGER NOT NULL,"
    " finished_ms INTEGER NOT NULL, version INTEGER NOT NULL, spec TEXT NOT NULL DEFAULT '{}', "
    "resolved TEXT NOT NULL DEFAULT '{}') STRICT;"
    "CREATE TABLE stages(job INTEGER NOT NULL REFERENCES jobs(id), idx INTEGER NOT NULL, name TEXT "
    "NOT NULL, kind TEXT NOT NULL,"
    " state TEXT NOT NULL, reason TEXT NOT NULL, reused INTEGER NOT NULL, reuse_key TEXT, inputs "
    "TEXT, done TEXT, outputs TEXT,"
    " metrics TEXT, phase TEXT, phase_tasks INTEGER NOT NULL, phases_done INTEGER NOT NULL, "
    "cost_done REAL NOT NULL, session TEXT,"
    " started_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL, PRIMARY KEY(job, idx)) STRICT, "
    "WITHOUT ROWID;"
    "CREATE TABLE tasks(id INTEGER PRIMARY KEY, job INTEGER NOT NULL REFERENCES jobs(id), stage "
    "INTEGER NOT NULL, phase TEXT NOT NULL,"
    " idx INTEGER NOT NULL, row_begin INTEGER NOT NULL, row_end INTEGER NOT NULL, state TEXT NOT "
    "NULL, epoch INTEGER NOT NULL,"
    " worker TEXT NOT NULL, faults INTEGER NOT NULL, losses INTEGER NOT NULL, crashed TEXT NOT "
    "NULL, result TEXT, code INTEGER NOT NULL,"
    " text TEXT NOT NULL) STRICT;"
    "CREATE INDEX tasks_of_job ON tasks(job, id);"
    "CREATE TABLE attempts(task INTEGER NOT NULL REFERENCES tasks(id), epoch INTEGER NOT NULL, "
    "worker TEXT NOT NULL,"
    " started_ms INTEGER NOT NULL, finished_ms INTEGER, outcome TEXT, note TEXT, PRIMARY KEY(task, "
    "epoch)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE events(seq INTEGER PRIMARY KEY AUTOINCREMENT, job INTEGER NOT NULL REFERENCES "
    "jobs(id), stage TEXT NOT NULL,"
    " time_ms INTEGER NOT NULL, type TEXT NOT NULL, text TEXT NOT NULL) STRICT;"
    "CREATE INDEX events_of_job ON events(job, seq);"
    "CREATE TABLE idempotency(key TEXT PRIMARY KEY, body TEXT NOT NULL, job INTEGER NOT NULL "
    "REFERENCES jobs(id)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE checkpoints(job INTEGER NOT NULL REFERENCES jobs(id), stage INTEGER NOT NULL, "
    "phase TEXT NOT NULL,"
    " version INTEGER NOT NULL, manifest TEXT NOT NULL, attempt INTEGER NOT NULL, time_ms INTEGER "
    "NOT NULL,"
    " PRIMARY KEY(job, stage, phase, version)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE series(job INTEGER NOT NULL REFERENCES jobs(id), name TEXT NOT NULL, step "
    "INTEGER NOT NULL, value REAL,"
    " PRIMARY KEY(job, name, step)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE reusable(key TEXT PRIMARY KEY, outputs TEXT NOT NULL, metrics TEXT NOT NULL, job "
    "INTEGER NOT NULL REFERENCES jobs(id))"
    " STRICT, WITHOUT ROWID;"
    "CREATE TABLE artifacts(job INTEGER NOT NULL REFERENCES jobs(id), stage TEXT NOT NULL, name "
    "TEXT NOT NULL, idx INTEGER NOT NULL,"
    " digest TEXT NOT NULL, time_ms INTEGER NOT NULL, PRIMARY KEY(job, stage, name, idx)) STRICT, "
    "WITHOUT ROWID;",
    /* What starts at once reads no spec; pausing. */
    "ALTER TABLE jobs ADD COLUMN paused_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE stages ADD COLUMN cost_total REAL NOT NULL DEFAULT 0;"
    "CREATE INDEX jobs_by_state ON jobs(state, id);",
};

static char *json_text(const cJSON *value)
{
    struct buf b = BUF_INIT;

    if (value == NULL)
        return NULL;
    json_canonical(value, &b);
    return buf_take(&b);
}

/* ---- opening --------------------------------------------------------------------------------- */

static int take_text(void *self, const struct db_row *row, struct err *e)
{
    (void)e;
    snprintf(self, 40, "%s", db_text(row, 0));
    return 0;
}

static int term_bump(struct journal *j, struct err *e)
{
    char value[40] = "";
    unsigned char random[16];
    int rc = db_begin(j->db, e);

    if (rc == 0)
        rc = db_query(j->db, e, take_text, j->cluster, "SELECT value FROM meta WHERE key='cluster'",
                      "");
    if (rc == 0 && j->cluster[0] == '\0') {
        randombytes_buf(random, sizeof random);
        sodium_bin2hex(j->cluster, sizeof j->cluster, random, sizeof random);
        rc = db_run(j->db, e, "INSERT INTO meta VALUES('cluster', ?1)", "t", j->cluster);
    }
    if (rc == 0)
        rc = db_query(j->db, e, take_text, value, "SELECT value FROM meta WHERE key='term'", "");
    if (rc == 0) {
        j->term = strtoull(value, NULL, 10) + 1;
        snprintf(value, sizeof value, "%" PRIu64, j->term);
        rc = db_run(j->db, e,
                    "INSERT INTO meta VALUES('term', ?1) ON CONFLICT(key) DO UPDATE SET "
                    "value=excluded.value",
                    "t", value);
    }
    if (rc == 0)
        rc = fault_error(FAULT_JOURNAL_TERM_BEFORE, e);
    if (rc == 0)
        rc = db_commit(j->db, e);
    if (rc == 0)
        fault_hit(FAULT_JOURNAL_TERM_AFTER);
    if (rc != 0)
        db_rollback(j->db);
    return rc;
}

int journal_open(const char *path, struct journal **out, struct err *e)
{
    struct journal *j = mem_zalloc(1, sizeof *j);
    int rc = 0;

    if (sodium_init() < 0)
        rc = err_set(e, ERR_SYSTEM, "libsodium does not start");
    if (rc == 0)
        rc = db_open(path, migrations, (int)(sizeof migrations / sizeof migrations[0]), &j->db, e);
    if (rc == 0)
        rc = term_bump(j, e);
    if (rc != 0) {
        journal_close(j);
        return rc;
    }
    *out = j;
    return 0;
}

void journal_close(struct journal *j)
{
    if (j == NULL)
        return;
    db_close(j->db);
    free(j);
}

const char *journal_cluster(const struct journal *j)
{
    return j->cluster;
}

uint64_t journal_term(const struct journal *j)
{
    return j->term;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static char *failure_text(const struct sched_failure *f)
{
    cJSON *o = NULL;
    char *text = NULL;

    if (f->class_name[0] == '\0')
        return NULL;
    o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "class", f->class_name);
    cJSON_AddNumberToObject(o, "code", f->code);
    cJSON_AddStringToObject(o, "message", f->message);
    cJSON_AddStringToObject(o, "stage", f->stage);
    cJSON_AddNumberToObject(o, "task", (double)f->task);
    cJSON_AddNumberToObject(o, "attempt", f->attempt);
    cJSON_AddStringToObject(o, "worker", f->worker);
    text = json_text(o);
    cJSON_Delete(o);
    return text;
}

static int save_job(struct journal *j, const struct sched_job *job, struct err *e)
{
    char *failure = failure_text(&job->failure);
    int rc =
        db_run(j->db, e,
               "INSERT INTO jobs(id, name, project, kind, state, reason, seed, class, "
               "failure, created_ms, started_ms, finished_ms,"
               " version, paused_ms) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, "
               "?13, ?14) ON CONFLICT(id) DO UPDATE SET"
               " state=excluded.state, reason=excluded.reason, class=excluded.class, "
               "failure=excluded.failure,"
               " started_ms=excluded.started_ms, finished_ms=excluded.finished_ms, "
               "version=excluded.version, paused_ms=excluded.paused_ms",
               "ittttt"
               "itt"
               "iiiii",
               (int64_t)job->id, job->name, job->project, job_kind_name(job->kind),
               run_state_name(job->state), job->reason, (int64_t)job->seed,
               job->class_bound ? job->class_id : NULL, failure, (int64_t)job->created_wall_ms,
               (int64_t)job->started_wall_ms, (int64_t)job->finished_wall_ms, (int64_t)job->version,
               (int64_t)job->paused_wall_ms);

    free(failure);
    return rc;
}

/* The phase that is open, or was when the stage failed or was cancelled: a retry goes on with it. */
static const char *phase_kept(const struct sched_stage *st)
{
    bool stopped = st->state == RUN_FAILED || st->state == RUN_CANCELLED;

    return st->phase_open || (stopped && st->phase.type != PHASE_END && st->phase.name[0] != '\0' &&
                              json_get(st->done, st->phase.name) == NULL)
               ? st->phase.name
               : NULL;
}

static int save_stage(struct journal *j, const struct sched_stage *st, struct err *e)
{
    char *inputs = json_text(st->inputs), *done = json_text(st->done),
         *outputs = json_text(st->outputs);
    char *metrics = json_text(st->metrics), *session = journal_session_text(st->session);
    int rc = db_run(
        j->db, e,
        "INSERT INTO stages(job, idx, name, kind, state, reason, reused, reuse_key, inputs, done, "
        "outputs, metrics, phase,"
        " phase_tasks, phases_done, cost_done, session, started_ms, finished_ms, cost_total) "
        "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9,"
        " ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20) ON CONFLICT(job, idx) DO UPDATE "
        "SET "
        "state=excluded.state,"
        " reason=excluded.reason, reused=excluded.reused, reuse_key=excluded.reuse_key,"
        " inputs=coalesce(excluded.inputs, inputs), done=coalesce(excluded.done, done), "
        "outputs=excluded.outputs,"
        " metrics=excluded.metrics, phase=excluded.phase, phase_tasks=excluded.phase_tasks,"
        " phases_done=excluded.phases_done, cost_done=excluded.cost_done, session=excluded.session,"
        " started_ms=excluded.started_ms, finished_ms=excluded.finished_ms, "
        "cost_total=excluded.cost_total",
        "iitttt"
        "itttttt"
        "iid"
        "tiid",
        (int64_t)st->job->id, (int64_t)st->index, st->name, job_kind_name(st->kind),
        run_state_name(st->state), st->reason, (int64_t)st->reused, st->reuse_key.hex, inputs, done,
        outputs, metrics, phase_kept(st), (int64_t)st->tasks_n, (int64_t)st->phases_done,
        st->cost_done, session, (int64_t)st->started_wall_ms, (int64_t)st->finished_wall_ms,
        st->cost_total);

    free(inputs);
    free(done);
    free(outputs);
    free(metrics);
    free(session);
    return rc;
}

struct task_texts {
    char *result; /* heap, or NULL */
    char crashed[SCHED_CRASHES_MAX * (SCHED_WORKER_MAX + 1) + 1];
};

static void task_texts_make(const struct sched_task *t, struct task_texts *x)
{
    size_t at = 0;

    x->result = json_text(t->result);
    x->crashed[0] = '\0';
    for (int i = 0; i < t->crashes; i++)
        at += (size_t)snprintf(x->crashed + at, sizeof x->crashed - at, "%s\n", t->crashed[i]);
}

static int add_task(struct journal *j, const struct sched_stage *st, const struct sched_task *t,
                    const char *phase, struct err *e)
{
    struct task_texts x;
    int rc = 0;

    task_texts_make(t, &x);
    rc = db_run(j->db, e,
                "INSERT INTO tasks(id, job, stage, phase, idx, row_begin, row_end, state, epoch, "
                "worker, faults, losses, crashed, result,"
                " code, text) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, "
                "?15, ?16) ON CONFLICT(id) DO UPDATE SET"
                " state=excluded.state, epoch=excluded.epoch, worker=excluded.worker, "
                "faults=excluded.faults, losses=excluded.losses,"
                " crashed=excluded.crashed, result=coalesce(excluded.result, result), "
                "code=excluded.code, text=excluded.text",
                "iiit"
                "iiiti"
                "tiitt"
                "it",
                (int64_t)t->id, (int64_t)st->job->id, (int64_t)st->index, phase, (int64_t)t->index,
                (int64_t)t->begin, (int64_t)t->end, task_state_name(t->state), (int64_t)t->epoch,
                t->worker, (int64_t)t->faults, (int64_t)t->losses, x.crashed, x.result,
                (int64_t)t->code, t->text);
    free(x.result);
    return rc;
}

/* Its row was made when the phase was opened; this is done twice for each task, thousands of times
 * a second. */
static int save_task(struct journal *j, const struct sched_stage *st, const struct sched_task *t,
                     const char *phase, struct err *e)
{
    struct task_texts x;
    int rc = 0;

    task_texts_make(t, &x);
    rc = db_run(j->db, e,
                "UPDATE tasks SET state=?2, epoch=?3, worker=?4, faults=?5, losses=?6, crashed=?7,"
                " result=coalesce(?8, result), code=?9, text=?10 WHERE id=?1",
                "itit"
                "iittit",
                (int64_t)t->id, task_state_name(t->state), (int64_t)t->epoch, t->worker,
                (int64_t)t->faults, (int64_t)t->losses, x.crashed, x.result, (int64_t)t->code,
                t->text);
    free(x.result);
    return rc != 0 || db_changes(j->db) > 0 ? rc : add_task(j, st, t, phase, e);
}

static int save_tasks(struct journal *j, const struct sched_action *act, struct err *e)
{
    int rc = 0;

    for (uint64_t i = 0; i < act->number && rc == 0; i++)
        rc = add_task(j, act->stage, &act->task[i], act->text, e);
    return rc;
}

static int save_attempt(struct journal *j, const struct sched_action *act, uint64_t wall_ms,
                        struct err *e)
{
    if (act->type == SCHED_ATTEMPT_BEGIN)
        return db_run(j->db, e,
                      "INSERT OR IGNORE INTO attempts(task, epoch, worker, started_ms) VALUES(?1, "
                      "?2, ?3, ?4)",
                      "iiti", (int64_t)act->number, (int64_t)act->epoch, act->worker,
                      (int64_t)wall_ms);
    return db_run(
        j->db, e,
        "UPDATE attempts SET finished_ms=?3, outcome=?4, note=?5 WHERE task=?1 AND epoch=?2",
        "iiitt", (int64_t)act->number, (int64_t)act->epoch, (int64_t)wall_ms, act->text, act->note);
}

static int save_quarantine(struct journal *j, const struct sched_action *act, uint64_t wall_ms,
                           struct err *e)
{
    cJSON *o = cJSON_CreateObject();
    char *text = NULL;
    int rc;

    cJSON_AddStringToObject(o, "reason", act->note);
    cJSON_AddNumberToObject(o, "since_ms", (double)wall_ms);
    text = json_text(o);
    rc = db_run(j->db, e, "INSERT OR REPLACE INTO meta VALUES('quarantine:' || ?1, ?2)", "tt",
                act->worker, text);
    free(text);
    cJSON_Delete(o);
    return rc;
}

static int save_artifact(struct journal *j, const struct sched_action *act, const cJSON *output,
                         const cJSON *value, int idx, uint64_t wall_ms, struct err *e)
{
    return db_run(j->db, e,
                  "INSERT OR REPLACE INTO artifacts(job, stage, name, idx, digest, time_ms) "
                  "VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
                  "ittiti", (int64_t)act->job->id, act->stage->name, output->string, (int64_t)idx,
                  value->valuestring, (int64_t)wall_ms);
}

static int save_outputs(struct journal *j, const struct sched_action *act, uint64_t wall_ms,
                        struct err *e)
{
    const cJSON *output = NULL, *value = NULL;
    char *outputs = json_text(act->stage->outputs), *metrics = json_text(act->stage->metrics);
    int rc = 0;

    cJSON_ArrayForEach(output, act->stage->outputs)
    {
        int idx = 0;

        if (cJSON_IsString(output) && rc == 0)
            rc = save_artifact(j, act, output, output, 0, wall_ms, e);
        cJSON_ArrayForEach(value, output)
        {
            if (cJSON_IsString(value) && rc == 0)
                rc = save_artifact(j, act, output, value, idx++, wall_ms, e);
        }
    }
    if (rc == 0 && act->digest.hex[0] != '\0')
        rc = db_run(
            j->db, e,
            "INSERT OR REPLACE INTO reusable(key, outputs, metrics, job) VALUES(?1, ?2, ?3, ?4)",
            "ttti", act->digest.hex, outputs != NULL ? outputs : "{}",
            metrics != NULL ? metrics : "{}", (int64_t)act->job->id);
    free(outputs);
    free(metrics);
    return rc;
}

static int write_action(struct journal *j, const struct sched_action *act, uint64_t wall_ms,
                        struct err *e)
{
    switch (act->type) {
    case SCHED_SAVE_JOB:
        return save_job(j, act->job, e);
    case SCHED_SAVE_STAGE:
        return save_stage(j, act->stage, e);
    case SCHED_SAVE_TASK:
        return save_task(j, act->stage, act->task, act->text, e);
    case SCHED_SAVE_TASKS:
        return save_tasks(j, act, e);
    case SCHED_ATTEMPT_BEGIN:
    case SCHED_ATTEMPT_END:
        return save_attempt(j, act, wall_ms, e);
    case SCHED_EVENT:
        return db_run(
            j->db, e,
            "INSERT INTO events(job, stage, time_ms, type, text) VALUES(?1, ?2, ?3, ?4, ?5)",
            "ititt", (int64_t)act->job->id, act->stage != NULL ? act->stage->name : "",
            (int64_t)wall_ms, act->text, act->note);
    case SCHED_SERIES:
        return db_run(
            j->db, e,
            "INSERT OR REPLACE INTO series(job, name, step, value) VALUES(?1, ?2, ?3, ?4)", "itid",
            (int64_t)act->job->id, act->text, (int64_t)act->number, act->value);
    case SCHED_CHECKPOINT:
        return db_run(j->db, e,
                      "INSERT OR REPLACE INTO checkpoints(job, stage, phase, version, manifest, "
                      "attempt, time_ms)"
                      " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                      "iititii", (int64_t)act->job->id, (int64_t)act->stage->index, act->text,
                      (int64_t)act->number, act->digest.hex, (int64_t)act->epoch, (int64_t)wall_ms);
    case SCHED_QUARANTINE:
        return save_quarantine(j, act, wall_ms, e);
    case SCHED_RELEASE:
        return db_run(j->db, e, "DELETE FROM meta WHERE key='quarantine:' || ?1", "t", act->worker);
    case SCHED_OUTPUTS:
        return save_outputs(j, act, wall_ms, e);
    default:
        return 0;
    }
}

int journal_add_one(struct journal *j, const struct sched_job *job, const struct journal_submit *s,
                    struct err *e)
{
    int rc = 0;

    /* SQLite rolls back by itself when it cannot read or has no space: those before are gone. */
    if (j->grouped && !db_in_transaction(j->db))
        rc = err_set(e, ERR_IO, "the transaction of the submits before was rolled back");
    else if (!j->grouped)
        rc = db_begin(j->db, e);
    j->grouped = rc == 0;
    if (rc == 0)
        rc = save_job(j, job, e);
    for (int i = 0; i < job->stages_n && rc == 0; i++)
        rc = save_stage(j, &job->stage[i], e);
    if (rc == 0)
        rc = db_run(j->db, e, "UPDATE jobs SET spec=?2, resolved=?3 WHERE id=?1", "itt",
                    (int64_t)job->id, s->spec, s->resolved);
    if (rc == 0 && s->key != NULL)
        rc = db_run(j->db, e, "INSERT INTO idempotency(key, body, job) VALUES(?1, ?2, ?3)", "tti",
                    s->key, s->body.hex, (int64_t)job->id);
    if (rc != 0) {
        j->grouped = false;
        db_rollback(j->db);
        err_wrap(e, "journal");
    }
    return rc;
}

int journal_add_commit(struct journal *j, struct err *e)
{
    int rc = fault_error(FAULT_JOURNAL_SUBMIT_BEFORE, e);

    j->grouped = false;
    if (rc == 0 && !db_in_transaction(j->db))
        rc = err_set(e, ERR_IO, "the transaction was rolled back");
    if (rc == 0)
        rc = db_commit(j->db, e);
    if (rc == 0)
        fault_hit(FAULT_JOURNAL_SUBMIT_AFTER);
    if (rc != 0) {
        db_rollback(j->db);
        err_wrap(e, "journal");
    }
    return rc;
}

void journal_add_abort(struct journal *j)
{
    j->grouped = false;
    db_rollback(j->db);
}

int journal_add(struct journal *j, const struct sched_job *job, const struct journal_submit *s,
                struct err *e)
{
    int rc = journal_add_one(j, job, s, e);

    return rc != 0 ? rc : journal_add_commit(j, e);
}

static bool has_rows(const struct sched_actions *a)
{
    for (int i = 0; i < a->n; i++) {
        if (a->v[i].type < SCHED_FIRST_SEND && a->v[i].type != SCHED_CONTEXT)
            return true;
    }
    return false;
}

int journal_commit(struct journal *j, const struct sched_actions *a, uint64_t wall_ms,
                   struct err *e)
{
    int rc = 0;

    if (!has_rows(a))
        return 0;
    rc = db_begin(j->db, e);
    for (int i = 0; i < a->n && rc == 0; i++)
        rc = write_action(j, &a->v[i], wall_ms, e);
    if (rc == 0)
        rc = fault_error(FAULT_JOURNAL_COMMIT_BEFORE, e);
    if (rc == 0)
        rc = db_commit(j->db, e);
    if (rc == 0)
        fault_hit(FAULT_JOURNAL_COMMIT_AFTER);
    if (rc != 0) {
        db_rollback(j->db);
        err_wrap(e, "journal");
    }
    return rc;
}
