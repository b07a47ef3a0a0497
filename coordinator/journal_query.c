/* Reading for people: each query is bounded by a limit and pages by key. */
#include "coordinator/journal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "coordinator/journal_inner.h"

struct list {
    struct buf *out;
    int n;
    uint64_t last;
    char name[160];
    struct db *db;
};

static void text_add(struct buf *out, const char *key, const char *value)
{
    buf_printf(out, "\"%s\":", key);
    json_quote(value, strlen(value), out);
}

static void time_add(struct buf *out, const char *key, int64_t wall_ms)
{
    char text[32];

    if (wall_ms == 0) {
        buf_printf(out, "\"%s\":null", key);
        return;
    }
    clock_wall_format((uint64_t)wall_ms, text);
    buf_printf(out, "\"%s\":\"%s\"", key, text);
}

/* ---- keys and outputs ------------------------------------------------------------------------ */

struct found_key {
    struct digest body;
    uint64_t job;
};

static int on_key(void *self, const struct db_row *row, struct err *e)
{
    struct found_key *f = self;

    (void)e;
    snprintf(f->body.hex, sizeof f->body.hex, "%s", db_text(row, 0));
    f->job = (uint64_t)db_int(row, 1);
    return 0;
}

int journal_find_key(struct journal *j, const char *key, struct digest *body, uint64_t *job,
                     struct err *e)
{
    struct found_key f = {.job = 0};
    int rc = fault_error(FAULT_JOURNAL_KEY_BEFORE, e);

    if (rc == 0)
        rc = db_query(j->db, e, on_key, &f, "SELECT body, job FROM idempotency WHERE key=?1", "t",
                      key);
    if (rc != 0)
        db_rollback(j->db); /* as SQLite itself does, but not always */
    *body = f.body;
    *job = f.job;
    return rc;
}

static int on_outputs(void *self, const struct db_row *row, struct err *e)
{
    cJSON **out = self, *outputs = NULL, *metrics = NULL;
    int rc = json_parse(db_text(row, 0), strlen(db_text(row, 0)), JSON_LIMITS_FILE, &outputs, e);

    if (rc == 0)
        rc = json_parse(db_text(row, 1), strlen(db_text(row, 1)), JSON_LIMITS_FILE, &metrics, e);
    if (rc != 0) {
        cJSON_Delete(outputs);
        return rc;
    }
    *out = cJSON_CreateObject();
    cJSON_AddItemToObject(*out, "outputs", outputs);
    cJSON_AddItemToObject(*out, "metrics", metrics);
    cJSON_AddStringToObject(*out, "class", db_text(row, 2));
    return 0;
}

int journal_find_outputs(struct journal *j, const char *key, cJSON **out, struct err *e)
{
    *out = NULL;
    return db_query(j->db, e, on_outputs, out,
                    "SELECT outputs, metrics, coalesce(class, '') FROM reusable JOIN jobs ON "
                    "jobs.id=reusable.job WHERE key=?1",
                    "t", key);
}

struct found_checkpoint {
    uint64_t version;
    struct digest *manifest;
    struct buf *there;
};

static int on_checkpoint(void *self, const struct db_row *row, struct err *e)
{
    struct found_checkpoint *f = self;

    (void)e;
    if ((uint64_t)db_int(row, 0) == f->version)
        snprintf(f->manifest->hex, sizeof f->manifest->hex, "%s", db_text(row, 1));
    buf_printf(f->there, "%s%" PRId64, f->there->len > 0 ? ", " : "", db_int(row, 0));
    return 0;
}

int journal_checkpoint(struct journal *j, uint64_t job, int stage, const char *phase,
                       uint64_t version, struct digest *manifest, struct buf *there, struct err *e)
{
    struct found_checkpoint f = {version, manifest, there};

    manifest->hex[0] = '\0';
    return db_query(j->db, e, on_checkpoint, &f,
                    "SELECT version, manifest FROM checkpoints WHERE job=?1 AND stage=?2 AND "
                    "phase=?3 ORDER BY version",
                    "iit", (int64_t)job, (int64_t)stage, phase);
}

/* ---- the rest -------------------------------------------------------------------------------- */

static int on_spec(void *self, const struct db_row *row, struct err *e)
{
    (void)e;
    buf_str(self, db_text(row, 0));
    return 0;
}

int journal_spec(struct journal *j, uint64_t job, struct buf *out, struct err *e)
{
    return db_query(j->db, e, on_spec, out, "SELECT spec FROM jobs WHERE id=?1", "i", (int64_t)job);
}

static int on_attempt(void *self, const struct db_row *row, struct err *e)
{
    struct list *l = self;

    (void)e;
    buf_printf(l->out, "%s{\"attempt\":%" PRId64 ",", l->n++ > 0 ? "," : "", db_int(row, 0));
    text_add(l->out, "worker", db_text(row, 1));
    buf_char(l->out, ',');
    time_add(l->out, "started_at", db_int(row, 2));
    buf_char(l->out, ',');
    time_add(l->out, "finished_at", db_int(row, 3));
    buf_char(l->out, ',');
    text_add(l->out, "outcome", db_is_null(row, 4) ? "running" : db_text(row, 4));
    buf_char(l->out, ',');
    text_add(l->out, "text", db_text(row, 5));
    buf_char(l->out, '}');
    return 0;
}

static int on_task(void *self, const struct db_row *row, struct err *e)
{
    struct list *l = self;
    struct list attempts = {.out = l->out};
    int rc = 0;

    l->last = (uint64_t)db_int(row, 0);
    buf_printf(l->out, "%s{\"id\":%" PRIu64 ",", l->n++ > 0 ? "," : "", l->last);
    text_add(l->out, "stage", db_text(row, 1));
    buf_char(l->out, ',');
    text_add(l->out, "phase", db_text(row, 2));
    buf_printf(l->out, ",\"index\":%" PRId64 ",\"begin\":%" PRId64 ",\"end\":%" PRId64 ",",
               db_int(row, 3), db_int(row, 4), db_int(row, 5));
    text_add(l->out, "state", db_text(row, 6));
    buf_char(l->out, ',');
    text_add(l->out, "worker", db_text(row, 7));
    buf_printf(l->out, ",\"faults\":%" PRId64 ",\"losses\":%" PRId64 ",", db_int(row, 8),
               db_int(row, 9));
    text_add(l->out, "text", db_text(row, 10));
    buf_str(l->out, ",\"attempts\":[");
    rc = db_query(l->db, e, on_attempt, &attempts,
                  "SELECT epoch, worker, started_ms, finished_ms, outcome, note FROM attempts "
                  "WHERE task=?1 ORDER BY epoch LIMIT 20",
                  "i", (int64_t)l->last);
    buf_str(l->out, "]}");
    return rc;
}

int journal_tasks(struct journal *j, uint64_t job, uint64_t after, int limit, struct buf *out,
                  uint64_t *next, struct err *e)
{
    struct list l = {.out = out, .db = j->db};
    int rc = db_query(j->db, e, on_task, &l,
                      "SELECT t.id, s.name, t.phase, t.idx, t.row_begin, t.row_end, t.state, "
                      "t.worker, t.faults, t.losses, t.text"
                      " FROM tasks t JOIN stages s ON s.job=t.job AND s.idx=t.stage WHERE t.job=?1 "
                      "AND t.id>?2 ORDER BY t.id LIMIT ?3",
                      "iii", (int64_t)job, (int64_t)after, (int64_t)limit);

    *next = l.n == limit ? l.last : 0;
    return rc;
}

static int on_event(void *self, const struct db_row *row, struct err *e)
{
    struct list *l = self;

    (void)e;
    l->last = (uint64_t)db_int(row, 0);
    buf_printf(l->out, "%s{\"seq\":%" PRIu64 ",", l->n++ > 0 ? "," : "", l->last);
    time_add(l->out, "time", db_int(row, 1));
    buf_char(l->out, ',');
    text_add(l->out, "stage", db_text(row, 2));
    buf_char(l->out, ',');
    text_add(l->out, "type", db_text(row, 3));
    buf_char(l->out, ',');
    text_add(l->out, "text", db_text(row, 4));
    buf_char(l->out, '}');
    return 0;
}

int journal_events(struct journal *j, uint64_t job, uint64_t after, int limit, struct buf *out,
                   uint64_t *next, struct err *e)
{
    struct list l = {.out = out};
    int rc = db_query(j->db, e, on_event, &l,
                      "SELECT seq, time_ms, stage, type, text FROM events WHERE job=?1 AND seq>?2 "
                      "ORDER BY seq LIMIT ?3",
                      "iii", (int64_t)job, (int64_t)after, (int64_t)limit);

    *next = l.n == limit ? l.last : 0;
    return rc;
}

/* Rows come by name, then bucket: a change of name closes one list and opens the next. */
static int on_point(void *self, const struct db_row *row, struct err *e)
{
    struct list *l = self;

    (void)e;
    if (strcmp(l->name, db_text(row, 0)) != 0 || l->n == 0) {
        snprintf(l->name, sizeof l->name, "%s", db_text(row, 0));
        buf_str(l->out, l->n > 0 ? "]},{" : "{");
        text_add(l->out, "name", l->name);
        buf_str(l->out, ",\"points\":[");
        l->last = 0;
    }
    buf_printf(l->out, "%s{\"step\":%" PRId64 ",\"value\":%.9g,\"min\":%.9g,\"max\":%.9g}",
               l->last++ > 0 ? "," : "", db_int(row, 1), db_real(row, 2), db_real(row, 3),
               db_real(row, 4));
    l->n++;
    return 0;
}

int journal_series(struct journal *j, uint64_t job, const char *name, int points, struct buf *out,
                   struct err *e)
{
    struct list l = {.out = out};
    int rc =
        db_query(j->db, e, on_point, &l,
                 "WITH r AS (SELECT name, max(step) AS top FROM series WHERE job=?1 GROUP BY name)"
                 " SELECT s.name, max(s.step), avg(s.value), min(s.value), max(s.value) FROM "
                 "series s JOIN r ON r.name=s.name"
                 " WHERE s.job=?1 AND (?2 IS NULL OR s.name=?2 OR s.name LIKE '%/' || ?2) AND "
                 "s.value IS NOT NULL"
                 " GROUP BY s.name, s.step*?3/(r.top+1) ORDER BY s.name, max(s.step)",
                 "iti", (int64_t)job, name, (int64_t)points);

    if (l.n > 0)
        buf_str(out, "]}");
    return rc;
}

static int on_artifact(void *self, const struct db_row *row, struct err *e)
{
    struct list *l = self;

    (void)e;
    l->n++;
    buf_printf(l->out, "%s%" PRId64 "\t%s\t%s\t%s", l->n > 1 ? "\n" : "", db_int(row, 0),
               db_text(row, 1), db_text(row, 2), db_text(row, 3));
    return 0;
}

int journal_artifacts(struct journal *j, int limit, struct buf *out, struct err *e)
{
    struct list l = {.out = out};

    return db_query(
        j->db, e, on_artifact, &l,
        "SELECT job, stage, name, digest FROM artifacts ORDER BY time_ms DESC, job, stage LIMIT ?1",
        "i", (int64_t)limit);
}
