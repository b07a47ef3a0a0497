/*
 * Submitting: the spec is checked whole before anything is kept, every artefact it names must be in
 * the store, and the answer is sent after the commit. The same Idempotency-Key with the same body
 * gives the job that it made the first time.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "coordinator/api_inner.h"
#include "coordinator/job_id.h"

#define SETS_MAX 64
#define FILES_MAX 1024
#define KEY_MAX 128
#define UNFINISHED_MAX 200000 /* those that wait are rows of the journal and 40 bytes of memory */

struct submission {
    struct coordinator *c;
    cJSON *body; /* owned; NULL for a plain YAML body */
    const char *yaml;
    size_t yaml_len;
    const char *set[SETS_MAX];
    int sets_n;
    cJSON *resolved;   /* owned */
    struct spec *spec; /* owned until a job takes it */
    struct buf spec_text;
    struct err e;
    int rc;
};

static void submission_fini(struct submission *s)
{
    cJSON_Delete(s->body);
    cJSON_Delete(s->resolved);
    spec_free(s->spec);
    buf_free(&s->spec_text);
}

/* ---- the body -------------------------------------------------------------------------------- */

static int files_take(struct submission *s, const cJSON *files)
{
    const cJSON *f = NULL;
    int n = 0;

    cJSON_ArrayForEach(f, files)
    {
        if (++n > FILES_MAX)
            return err_set(&s->e, ERR_LIMIT, "files has more than %d entries", FILES_MAX);
        if (!cJSON_IsString(f) || !digest_is_valid(f->valuestring))
            return err_set(&s->e, ERR_INVALID,
                           "files[\"%.200s\"] must be a SHA-256 digest of 64 hexadecimal digits",
                           f->string);
        if (!blob_has(s->c->blobs, f->valuestring))
            return err_set(&s->e, ERR_NOT_FOUND, "files[\"%.200s\"]: artefact %s was not uploaded",
                           f->string, f->valuestring);
        cJSON_AddStringToObject(s->resolved, f->string, f->valuestring);
    }
    return 0;
}

static int sets_take(struct submission *s, const cJSON *sets)
{
    const cJSON *item = NULL;
    bool fits = sets == NULL || (cJSON_IsArray(sets) && cJSON_GetArraySize(sets) <= SETS_MAX);

    cJSON_ArrayForEach(item, sets)
    {
        fits = fits && cJSON_IsString(item);
        if (fits)
            s->set[s->sets_n++] = item->valuestring;
    }
    return fits ? 0
                : err_set(&s->e, ERR_INVALID,
                          "set must be a list of at most %d texts \"key=value\"", SETS_MAX);
}

static int body_take(struct submission *s, const struct api_request *q)
{
    int rc = 0;

    if (strstr(q->content_type, "yaml") != NULL) {
        s->yaml = q->body;
        s->yaml_len = q->body_len;
        return 0;
    }
    rc = json_parse(q->body, q->body_len, JSON_LIMITS_BODY, &s->body, &s->e);
    if (rc != 0)
        return err_wrap(&s->e, "body");
    rc = json_need_string(s->body, "spec", &s->yaml, &s->e);
    if (rc != 0)
        return err_wrap(&s->e, "body");
    s->yaml_len = strlen(s->yaml);
    if (json_get(s->body, "files") != NULL && !cJSON_IsObject(json_get(s->body, "files")))
        return err_set(&s->e, ERR_INVALID, "files must be an object of path: digest");
    rc = sets_take(s, json_get(s->body, "set"));
    return rc != 0 ? rc : files_take(s, json_get(s->body, "files"));
}

/* ---- references ------------------------------------------------------------------------------ */

/* job:ID[/[outputs.]NAME]: the output of the job's last stage that has it; in a pipeline NAME may be
 * "stage/name", or a stage, whose default output is meant. */
static const struct sched_stage *job_output(const struct sched_job *j, const char *output,
                                            const cJSON **value)
{
    const char *slash = strrchr(output, '/');

    for (int i = j->stages_n - 1; i >= 0; i--) {
        const struct sched_stage *st = &j->stage[i];
        const char *name = *output != '\0' ? output : kind_default_output(st->kind);

        if (slash != NULL) {
            if (strlen(st->name) != (size_t)(slash - output) ||
                strncmp(st->name, output, (size_t)(slash - output)) != 0)
                continue;
            name = slash + 1;
        } else if (st->kind == KIND_PREPARE && j->kind != KIND_PREPARE) {
            continue;
        }
        if (slash == NULL && strcmp(st->name, output) == 0)
            name = kind_default_output(st->kind);
        *value = st->outputs != NULL ? json_get(st->outputs, name) : NULL;
        if (*value != NULL && st->state == RUN_SUCCEEDED)
            return st;
    }
    return NULL;
}

static void job_resolve(struct submission *s, const char *ref)
{
    const char *slash = strchr(ref, '/');
    const char *output = slash == NULL                         ? ""
                         : strncmp(slash, "/outputs.", 9) == 0 ? slash + 9
                                                               : slash + 1;
    char id_text[64], rows[SPEC_TEXT_MAX + 8];
    struct sched_job *own = NULL;
    const struct sched_job *j = NULL;
    const struct sched_stage *st = NULL;
    const cJSON *value = NULL;
    uint64_t id = 0;

    snprintf(id_text, sizeof id_text, "%.*s", (int)(slash != NULL ? slash - ref - 4 : 63), ref + 4);
    if (job_id_parse(id_text, &id))
        j = api_job_find(s->c, id, &own);
    if (j != NULL)
        st = job_output(j, output, &value);
    if (st != NULL && json_get(s->resolved, ref) == NULL) {
        /* else expand_spec() says what is missing, with the place */
        cJSON_AddItemToObject(s->resolved, ref, cJSON_Duplicate(value, true));
        snprintf(rows, sizeof rows, "%s#rows", ref);
        if (st->metrics != NULL && json_number_or(st->metrics, "rows", 0) > 0)
            cJSON_AddNumberToObject(s->resolved, rows, json_number_or(st->metrics, "rows", 0));
    }
    sched_job_free(own);
}

static void on_ref(void *self, const char *ref)
{
    struct submission *s = self;

    if (strncmp(ref, "job:", 4) == 0)
        job_resolve(s, ref);
    else if (strncmp(ref, "sha256:", 7) == 0 && s->rc == 0 && digest_is_valid(ref + 7) &&
             !blob_has(s->c->blobs, ref + 7))
        s->rc = err_set(&s->e, ERR_NOT_FOUND, "%s: not in the store", ref);
}

/* ---- answers --------------------------------------------------------------------------------- */

static cJSON *problem_json(const char *pointer, int line, int column, const char *code,
                           const char *text)
{
    cJSON *o = cJSON_CreateObject();

    cJSON_AddStringToObject(o, "pointer", pointer);
    cJSON_AddNumberToObject(o, "line", line);
    cJSON_AddNumberToObject(o, "column", column);
    cJSON_AddStringToObject(o, "code", code);
    cJSON_AddStringToObject(o, "detail", text);
    return o;
}

static void answer_invalid(struct api_response *r, const struct spec_problems *p,
                           const struct err *e)
{
    cJSON *o = cJSON_CreateObject(), *errors = NULL;
    char detail[1100];

    snprintf(detail, sizeof detail, "%s", e->msg);
    cJSON_AddStringToObject(o, "code", "invalid_spec");
    cJSON_AddStringToObject(o, "title", "Invalid job spec");
    cJSON_AddNumberToObject(o, "status", 422);
    cJSON_AddStringToObject(o, "detail", detail);
    errors = cJSON_AddArrayToObject(o, "errors");
    for (int i = 0; p != NULL && i < p->n; i++)
        cJSON_AddItemToArray(errors, problem_json(p->v[i].pointer, p->v[i].line, p->v[i].column,
                                                  p->v[i].code, p->v[i].text));
    if (p == NULL || p->n == 0)
        cJSON_AddItemToArray(errors, problem_json("", 0, 0, err_name((int)e->code), e->msg));
    api_json(r, 422, o);
    r->content_type = "application/problem+json";
}

static int spec_take(struct submission *s, struct api_response *r)
{
    struct spec_problems problems = {0};
    cJSON *text = NULL;
    int rc =
        spec_parse(s->yaml, s->yaml_len, s->set, s->sets_n, NULL, NULL, &s->spec, &problems, &s->e);

    if (rc != 0 || problems.n > 0) {
        answer_invalid(r, &problems, &s->e);
        spec_problems_free(&problems);
        return rc != 0 ? rc : ERR_INVALID;
    }
    spec_problems_free(&problems);
    expand_each_ref(s->spec, on_ref, s);
    if (s->rc != 0) {
        answer_invalid(r, NULL, &s->e);
        return s->rc;
    }
    text = spec_to_json(s->spec);
    json_canonical(text, &s->spec_text);
    cJSON_Delete(text);
    return 0;
}

/* ---- the plan -------------------------------------------------------------------------------- */

static void plan_stage(const struct sched_job *j, int i, cJSON *stages, struct buf *text)
{
    const struct expand_stage *x = &j->expansion->stage[i];
    cJSON *o = cJSON_CreateObject(), *needs = NULL;
    const struct train_spec *t = &x->spec->train;
    bool trains = x->spec->kind == KIND_SFT || x->spec->kind == KIND_TRAIN_ATTRIBUTE_MODEL;

    cJSON_AddStringToObject(o, "name", x->name);
    cJSON_AddStringToObject(o, "kind", job_kind_name(x->spec->kind));
    needs = cJSON_AddArrayToObject(o, "needs");
    buf_printf(text, "%-20s %-22s", x->name, job_kind_name(x->spec->kind));
    for (int k = 0; k < x->needs_n; k++) {
        cJSON_AddItemToArray(needs, cJSON_CreateString(j->expansion->stage[x->needs[k]].name));
        buf_printf(text, "%s%s", k == 0 ? " after " : ", ", j->expansion->stage[x->needs[k]].name);
    }
    if (trains) {
        if (t->max_steps > 0)
            buf_printf(text, "; %" PRIu64 " steps", t->max_steps);
        else if (t->max_tokens > 0)
            buf_printf(text, "; %" PRIu64 " tokens", t->max_tokens);
        else
            buf_printf(text, "; %g passes", t->passes);
        buf_printf(text, " of %d samples in %d units", t->global_batch, t->units);
        if (x->spec->kind == KIND_TRAIN_ATTRIBUTE_MODEL && x->spec->cross_fit > 1)
            buf_printf(text, ", %d models (cross fit)", x->spec->cross_fit);
        if (t->max_steps > 0)
            cJSON_AddNumberToObject(o, "steps", (double)t->max_steps);
    }
    buf_char(text, '\n');
    cJSON_AddItemToObject(o, "spec", spec_to_json(x->spec));
    cJSON_AddItemToArray(stages, o);
}

static void answer_plan(const struct sched_job *j, struct api_response *r)
{
    cJSON *o = cJSON_CreateObject(), *plan = cJSON_AddObjectToObject(o, "plan"),
          *stages = cJSON_AddArrayToObject(plan, "stages");
    struct buf text = BUF_INIT;

    for (int i = 0; i < j->stages_n; i++)
        plan_stage(j, i, stages, &text);
    cJSON_AddStringToObject(plan, "text", text.data != NULL ? text.data : "");
    cJSON_AddStringToObject(plan, "spec_digest", j->spec_digest.hex);
    buf_free(&text);
    api_json(r, 200, o);
}

/* ---- submitting ------------------------------------------------------------------------------ */

/* true: answered already, by an earlier submit or with a conflict. */
static bool key_known(struct coordinator *c, const struct api_request *q, const struct digest *body,
                      struct api_response *r)
{
    struct digest before = {""};
    uint64_t id = 0;
    struct err e = {0};
    struct sched_job *own = NULL;
    const struct sched_job *j = NULL;

    if (q->idempotency_key[0] == '\0')
        return false;
    if (strlen(q->idempotency_key) > KEY_MAX) {
        api_problem(r, 400, "invalid_key", "Idempotency-Key has %zu characters, at most %d",
                    strlen(q->idempotency_key), KEY_MAX);
        return true;
    }
    if (journal_find_key(c->journal, q->idempotency_key, &before, &id, &e) != 0) {
        api_problem(r, 503, "storage", "%s", e.msg); /* not known, so the client asks again */
        if (c->submits_n > 0 && c->submit_error.code == 0)
            c->submit_error = e; /* those of this group are gone with it */
        return true;
    }
    if (id == 0)
        return false;
    if (strcmp(before.hex, body->hex) != 0) {
        api_problem(r, 409, "key_reused", "Idempotency-Key %s was used with another body",
                    q->idempotency_key);
        return true;
    }
    if (sched_find_entry(&c->sched, id) == NULL) { /* it came a moment ago */
        CHECK(c->grouping && c->submits_n > 0);
        c->submit[c->submits_n++] = (struct coordinator_submit){NULL, id, NULL};
        return true;
    }
    j = api_job_find(c, id, &own);
    if (j == NULL) /* the key's row refers to the job's row; it could not be read */
        api_problem(r, 500, "storage", "the job of this key cannot be read");
    else
        api_json(r, 200, api_job(c, j, true));
    sched_job_free(own);
    return true;
}

static void answer_storage(struct coordinator *c, const struct err *e, struct api_response *r)
{
    log_error("submit.failed", "code=%s error=\"%s\"", err_name((int)e->code), e->msg);
    if (e->code == ERR_NO_SPACE) {
        api_problem(r, 507, "disk_full", "the coordinator's disk is full");
        return;
    }
    c->stop = true; /* storage failed: nothing more is acknowledged */
    c->exit_code = 1;
    api_problem(r, 503, "storage", "%s", e->msg);
}

/* Its row is committed: it is safe whatever happens from here on. */
static void job_accepted(struct coordinator *c, struct sched_job *j, struct api_response *r)
{
    struct sched_event ev = {.type = SCHED_SUBMIT, .job = j};
    char text[JOB_ID_TEXT];

    job_id_format(j->id, text);
    log_info("job.accepted", "job=%s name=%s kind=%s stages=%d", text, j->name,
             job_kind_name(j->kind), j->stages_n);
    coordinator_event(c, &ev); /* takes j; it stays in memory until the next flush */
    fault_hit(FAULT_SUBMIT_REPLY_BEFORE);
    api_json(r, 201, api_job(c, j, true));
}

void api_submits_finish(struct coordinator *c, struct api_response *r)
{
    struct err e = c->submit_error;
    int n = c->submits_n, rc = (int)e.code;

    if (n > 0 && rc == 0)
        rc = journal_add_commit(c->journal, &e);
    else if (n > 0)
        journal_add_abort(c->journal);
    c->submits_n = 0;
    c->submit_error = (struct err){0};
    for (int i = 0; i < n; i++) {
        struct coordinator_submit *s = &c->submit[i];

        r[i] = API_RESPONSE_INIT;
        if (rc != 0) {
            sched_job_free(s->job);
            answer_storage(c, &e, &r[i]);
        } else if (s->job != NULL) {
            job_accepted(c, s->job, &r[i]);
        } else {
            api_json(&r[i], 200, api_job(c, sched_find_job(&c->sched, s->id), true));
        }
        s->job = NULL;
    }
}

static void job_submit(struct submission *s, struct sched_job *j, const struct api_request *q,
                       const struct digest *body, struct api_response *r)
{
    struct coordinator *c = s->c;
    char *resolved = cJSON_PrintUnformatted(s->resolved);
    struct journal_submit row = {.key = q->idempotency_key[0] != '\0' ? q->idempotency_key : NULL,
                                 .body = *body,
                                 .spec = s->spec_text.data,
                                 .resolved = resolved};

    if (c->submit_error.code == 0)
        journal_add_one(c->journal, j, &row, &c->submit_error);
    free(resolved);
    c->submit[c->submits_n++] = (struct coordinator_submit){NULL, j->id, j};
    if (c->grouping)
        return;
    api_submits_finish(c, r);
    coordinator_flush(c);
}

static int unfinished(const struct coordinator *c)
{
    int n = c->submits_n;

    for (int i = 0; i < RUN_STATES_COUNT; i++)
        n += run_state_is_final((enum run_state)i) ? 0 : (int)c->sched.count[i];
    return n;
}

void api_submit(struct coordinator *c, const struct api_request *q, struct api_response *r)
{
    struct submission s = {.c = c, .resolved = cJSON_CreateObject()};
    struct sched_job *j = NULL;
    struct digest body;
    char text[16] = "";
    bool plan_only = api_query(q, "validate_only", text, sizeof text) && strcmp(text, "false") != 0;

    digest_bytes(q->body, q->body_len, &body);
    if (!plan_only && key_known(c, q, &body, r))
        goto out;
    if (!plan_only && c->parked) {
        api_problem(r, 507, "disk_full",
                    "the coordinator's disk is full: submits are refused until there is space");
        goto out;
    }
    if (!plan_only && unfinished(c) >= UNFINISHED_MAX) {
        api_problem(r, 429, "too_many_jobs",
                    "%d jobs are unfinished, at most %d: wait, or cancel some", unfinished(c),
                    UNFINISHED_MAX);
        goto out;
    }
    s.rc = body_take(&s, q);
    if (s.rc != 0) {
        if (s.rc == ERR_NOT_FOUND)
            answer_invalid(r, NULL, &s.e);
        else
            api_problem(r, 400, "invalid_body", "%s", s.e.msg);
        goto out;
    }
    if (spec_take(&s, r) != 0)
        goto out;
    if (sched_job_new(coordinator_job_id(c), &s.spec, s.resolved, clock_wall_ms(), &j, &s.e) != 0) {
        answer_invalid(r, NULL, &s.e);
        goto out;
    }
    digest_bytes(s.spec_text.data, s.spec_text.len, &j->spec_digest);
    if (plan_only) {
        answer_plan(j, r);
        sched_job_free(j);
    } else {
        job_submit(&s, j, q, &body, r);
    }
out:
    submission_fini(&s);
}
