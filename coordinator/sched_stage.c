/*
 * A stage: waits for its needs, takes their outputs as inputs, asks once whether its own outputs
 * exist already, then opens the phases that the planner names, one after the other, until the
 * planner says END and gives outputs and metrics.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "coordinator/sched_inner.h"

static int running_stages(const struct sched_job *j)
{
    int n = 0;

    for (int i = 0; i < j->stages_n; i++)
        n += j->stage[i].state != RUN_PENDING && !run_state_is_final(j->stage[i].state);
    return n;
}

static void fail_with(struct sched *s, struct sched_stage *st, const char *class_name,
                      const struct err *e, struct sched_actions *a)
{
    struct sched_failure f = {.code = e->code};

    snprintf(f.class_name, sizeof f.class_name, "%s", class_name);
    snprintf(f.message, sizeof f.message, "%.*s", (int)sizeof f.message - 1, e->msg);
    sched_fail(s, st, &f, a);
}

static int input_digests(const struct sched_stage *st, const struct expand_ref *r, cJSON *list,
                         struct err *e)
{
    const struct sched_stage *from = NULL;
    const cJSON *value = NULL, *item = NULL;

    if (r->stage < 0) {
        cJSON_AddItemToArray(list, cJSON_CreateString(r->digest.hex));
        return 0;
    }
    from = &st->job->stage[r->stage];
    value = from->outputs != NULL ? json_get(from->outputs, r->output) : NULL;
    if (value == NULL)
        return err_set(e, ERR_INVALID, "stage %s has no output \"%s\"", from->name, r->output);
    if (cJSON_IsString(value))
        cJSON_AddItemToArray(list, cJSON_CreateString(value->valuestring));
    cJSON_ArrayForEach(item, value)
    {
        if (cJSON_IsString(item))
            cJSON_AddItemToArray(list, cJSON_CreateString(item->valuestring));
    }
    return 0;
}

/* How many rows a data input has: row phases are cut by it. Kept beside the digests as "KEY.rows".
 */
static double input_rows(const struct sched_stage *st, const struct expand_ref *r)
{
    const struct sched_stage *from = r->stage >= 0 ? &st->job->stage[r->stage] : NULL;

    return from != NULL && from->metrics != NULL ? json_number_or(from->metrics, "rows", 0)
                                                 : (double)r->rows;
}

static int inputs_make(struct sched_stage *st, struct err *e)
{
    const struct expand_stage *x = &st->job->expansion->stage[st->index];
    cJSON *inputs = cJSON_CreateObject();
    int rc = 0;

    for (int i = 0; i < x->inputs_n && rc == 0; i++) {
        cJSON *list = cJSON_AddArrayToObject(inputs, x->input[i].key);
        char name[EXPAND_NAME_MAX + 8];
        double rows = 0;

        for (int k = 0; k < x->input[i].refs_n && rc == 0; k++) {
            rc = input_digests(st, &x->input[i].ref[k], list, e);
            rows += input_rows(st, &x->input[i].ref[k]);
        }
        snprintf(name, sizeof name, "%s.rows", x->input[i].key);
        if (rows > 0)
            cJSON_AddNumberToObject(inputs, name, rows);
    }
    if (rc != 0) {
        cJSON_Delete(inputs);
        return err_wrap(e, "inputs of stage %s", st->name);
    }
    cJSON_Delete(st->inputs);
    st->inputs = inputs;
    return 0;
}

/* What the outputs are a function of: the resolved spec without names and references, the inputs'
 * digests, the build. */
static void reuse_key(const struct sched *s, const struct sched_stage *st, struct digest *out)
{
    static const char *const names[] = {"name", "project", "inputs", "needs",
                                        "gate", "stages",  "audit"};
    cJSON *doc = cJSON_CreateObject();
    cJSON *spec = spec_to_json(st->job->expansion->stage[st->index].spec);
    struct buf text = BUF_INIT;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        cJSON_DeleteItemFromObjectCaseSensitive(spec, names[i]);
    cJSON_AddItemToObject(doc, "spec", spec);
    cJSON_AddItemToObject(doc, "inputs", cJSON_Duplicate(st->inputs, true));
    cJSON_AddStringToObject(doc, "build", s->config.build != NULL ? s->config.build : "");
    json_canonical(doc, &text);
    digest_bytes(text.data, text.len, out);
    buf_free(&text);
    cJSON_Delete(doc);
}

void sched_context(const struct sched_stage *st, struct buf *out)
{
    cJSON *doc = cJSON_CreateObject();

    cJSON_AddItemToObject(doc, "spec", spec_to_json(st->job->expansion->stage[st->index].spec));
    cJSON_AddItemToObject(doc, "inputs", cJSON_Duplicate(st->inputs, true));
    cJSON_AddItemToObject(doc, "phases", cJSON_Duplicate(st->done, true));
    cJSON_AddNumberToObject(doc, "fold", st->phase.session.fold);
    json_canonical(doc, out);
    cJSON_Delete(doc);
}

/* ---- the end --------------------------------------------------------------------------------- */

static bool gates_hold(const struct sched_stage *st, struct err *e)
{
    const struct stage *source = st->job->expansion->stage[st->index].source;

    for (int i = 0; source != NULL && i < source->gates_n; i++) {
        const struct gate *g = &source->gate[i];
        const cJSON *value = st->metrics != NULL ? json_get(st->metrics, g->metric) : NULL;

        if (!cJSON_IsNumber(value)) {
            err_set(e, ERR_INVALID, "gate of stage %s: there is no metric %s", st->name, g->metric);
            return false;
        }
        if ((g->has_min && value->valuedouble < g->min) ||
            (g->has_max && value->valuedouble > g->max)) {
            err_set(e, ERR_INVALID, "gate of stage %s: %s is %g, must be %s %g", st->name,
                    g->metric, value->valuedouble,
                    g->has_min && value->valuedouble < g->min ? "at least" : "at most",
                    g->has_min && value->valuedouble < g->min ? g->min : g->max);
            return false;
        }
    }
    return true;
}

static void succeed(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct err e = {0};
    struct sched_action *act = sched_act(a, SCHED_OUTPUTS, st->job, st);

    if (!st->reused && st->kind != KIND_PROBE)
        act->digest = st->reuse_key;
    if (!gates_hold(st, &e)) {
        fail_with(s, st, "user", &e, a);
        return;
    }
    sched_move_stage(s, st, RUN_SUCCEEDED, st->reused ? "Reused" : "", a);
}

void sched_stage_stop(struct sched *s, struct sched_stage *st, enum run_state to,
                      const char *reason, struct sched_actions *a)
{
    for (uint32_t i = 0; i < st->tasks_n; i++)
        sched_task_cancel(s, st, &st->task[i], a);
    if (st->session != NULL)
        sched_session_close(s, st, reason, a);
    st->phase_open = false;
    sched_open_changed(s);
    sched_move_stage(s, st, to, reason, a);
}

/* ---- phases ---------------------------------------------------------------------------------- */

static void tasks_make(struct sched_stage *st)
{
    struct phase *p = &st->phase;

    st->task = p->tasks > 0 ? mem_zalloc(p->tasks, sizeof *st->task) : NULL;
    st->tasks_n = p->tasks;
    st->tasks_done = 0;
    st->rows_done = 0;
    st->task_ms = st->busy_us = 0;
    task_set_init(&st->pending, p->tasks, true);
    task_set_init(&st->busy, p->tasks, false);
    for (uint32_t i = 0; i < p->tasks; i++) {
        struct sched_task *t = &st->task[i];

        t->index = i;
        if (p->rows_per_task > 0) {
            t->begin = i * p->rows_per_task;
            t->end = t->begin + p->rows_per_task < p->rows ? t->begin + p->rows_per_task : p->rows;
        }
    }
}

static int phase_check(const struct phase *p, struct err *e)
{
    const struct session_plan *n = &p->session;

    if (p->type == PHASE_TASKS && p->tasks > SCHED_TASKS_MAX)
        return err_set(e, ERR_LIMIT, "phase %s has %u tasks, at most %d: raise rows_per_task",
                       p->name, p->tasks, SCHED_TASKS_MAX);
    if (p->type == PHASE_SESSION &&
        (n->steps == 0 || n->params == 0 || n->units == 0 || n->chunk_elems == 0))
        return err_set(e, ERR_INVALID,
                       "phase %s: nothing to train (%" PRIu64 " steps, %" PRIu64
                       " parameters, %u units)",
                       p->name, n->steps, n->params, n->units);
    return 0;
}

/* Asks the planner what would come if each phase ended with no figures. What it cannot say yet is
 * guessed from the spec. */
void sched_stage_estimate(struct sched *s, struct sched_stage *st)
{
    const struct spec *spec = st->job->expansion->stage[st->index].spec;
    cJSON *done = st->done != NULL ? cJSON_Duplicate(st->done, true) : cJSON_CreateObject();
    bool guessed = false;

    st->cost_total = st->cost_done;
    for (int i = 0; i < 64; i++) {
        struct phase p = {.type = PHASE_END};
        cJSON *outputs = NULL, *metrics = NULL;
        struct err e = {0};
        int rc = s->config.plan(spec, st->inputs, done, &p, &outputs, &metrics, &e);

        cJSON_Delete(outputs);
        cJSON_Delete(metrics);
        if (rc != 0 &&
            p.name[0] == '\0') { /* a training phase whose examples are not counted yet */
            guessed = true;
            break;
        }
        if (p.type == PHASE_END || json_get(done, p.name) != NULL)
            break;
        st->cost_total += p.cost;
        cJSON_AddItemToObject(done, p.name, cJSON_CreateObject());
    }
    if (guessed)
        st->cost_total +=
            (spec->train.max_tokens > 0 ? 1e-3 * (double)spec->train.max_tokens : 2000.0) *
            (spec->kind == KIND_TRAIN_ATTRIBUTE_MODEL && spec->cross_fit > 1 ? spec->cross_fit : 1);
    cJSON_Delete(done);
}

/* The document that workers read of the open phase, and its name. */
static void context_put(struct sched_stage *st, struct sched_actions *a)
{
    struct sched_action *act = sched_act(a, SCHED_CONTEXT, st->job, st);
    struct buf text = BUF_INIT;

    sched_context(st, &text);
    digest_bytes(text.data, text.len, &st->context);
    act->digest = st->context;
    act->blob_len = text.len;
    act->blob = buf_take(&text);
    st->context_kept = true;
}

static void phase_open(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct sched_action *act;

    st->phase_open = true;
    sched_open_changed(s);
    st->phase_started_ms = s->now_ms;
    st->phase_started_done = 0;
    sched_stage_estimate(s, st);
    context_put(st, a);
    if (st->phase.type == PHASE_TASKS) {
        tasks_make(st);
        for (uint32_t i = 0; i < st->tasks_n; i++)
            st->task[i].id = s->next_task++;
        act = sched_act(a, SCHED_SAVE_TASKS, st->job, st);
        act->task = st->task;
        act->number = st->tasks_n;
        snprintf(act->text, sizeof act->text, "%s", st->phase.name);
    } else {
        st->session = mem_zalloc(1, sizeof *st->session);
        st->session->id = s->next_session++;
        sched_discard(s, st->task);
        st->task = NULL;
        st->tasks_n = 0;
        task_set_fini(&st->pending);
        task_set_fini(&st->busy);
    }
    sched_act(a, SCHED_SAVE_STAGE, st->job, st);
    sched_note(a, st->job, st, "phase.open", "%s", st->phase.name);
}

/* Takes entry. */
void sched_phase_finish(struct sched *s, struct sched_stage *st, cJSON *entry,
                        struct sched_actions *a)
{
    cJSON_AddItemToObject(st->done, st->phase.name, entry);
    st->phase_open = false;
    sched_open_changed(s);
    st->phases_done++;
    st->cost_done += st->phase.cost;
    for (uint32_t i = 0; i < st->tasks_n; i++) {
        cJSON_Delete(st->task[i].result);
        st->task[i].result = NULL;
    }
    sched_discard(s, st->task);
    sched_discard(s, st->session);
    st->task = NULL;
    st->session = NULL;
    st->tasks_n = st->tasks_done = 0;
    task_set_fini(&st->pending);
    task_set_fini(&st->busy);
    sched_act(a, SCHED_SAVE_STAGE, st->job, st);
    sched_note(a, st->job, st, "phase.done", "%s", st->phase.name);
}

static const char *part_of(const cJSON *outputs)
{
    const cJSON *part = json_get(outputs, "part");

    if (part == NULL)
        part = outputs != NULL ? outputs->child : NULL;
    return cJSON_IsString(part) ? part->valuestring : "";
}

/* Figures of ranges add up. Tasks that are not ranges (one export a fold) stand side by side: name,
 * name.1, name.2. */
static void metrics_add(cJSON *sum, const cJSON *more, bool ranges, uint32_t index)
{
    const cJSON *m = NULL;

    cJSON_ArrayForEach(m, more)
    {
        cJSON *have = cJSON_GetObjectItemCaseSensitive(sum, m->string);
        char name[96];

        if (!ranges && index > 0) {
            snprintf(name, sizeof name, "%.80s.%u", m->string, index);
            cJSON_AddItemToObject(sum, name, cJSON_Duplicate(m, true));
        } else if (have == NULL) {
            cJSON_AddItemToObject(sum, m->string, cJSON_Duplicate(m, true));
        } else if (cJSON_IsNumber(have) && cJSON_IsNumber(m)) {
            cJSON_SetNumberValue(have, have->valuedouble + m->valuedouble);
        }
    }
}

/* Parts in task order; outputs of a single task by name, of several the first of each name. */
static cJSON *tasks_entry(const struct sched_stage *st)
{
    cJSON *entry = cJSON_CreateObject();
    cJSON *outputs = cJSON_AddObjectToObject(entry, "outputs");
    cJSON *parts = cJSON_AddArrayToObject(entry, "parts");
    cJSON *metrics = cJSON_AddObjectToObject(entry, "metrics");

    for (uint32_t i = 0; i < st->tasks_n; i++) {
        const cJSON *made = json_get(st->task[i].result, "outputs"), *o = NULL;

        cJSON_AddItemToArray(parts, cJSON_CreateString(part_of(made)));
        cJSON_ArrayForEach(o, made)
        {
            if (json_get(outputs, o->string) == NULL)
                cJSON_AddItemToObject(outputs, o->string, cJSON_Duplicate(o, true));
        }
        metrics_add(metrics, json_get(st->task[i].result, "metrics"), st->phase.rows_per_task > 0,
                    i);
    }
    return entry;
}

/* Gives true if something changed. */
static bool phase_next(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct err e = {0};
    const struct spec *spec = st->job->expansion->stage[st->index].spec;
    cJSON *outputs = NULL, *metrics = NULL;
    int rc = 0;

    if (st->phase_open) {
        if (st->phase.type != PHASE_TASKS || st->tasks_done < st->tasks_n)
            return false;
        sched_phase_finish(s, st, tasks_entry(st), a);
    }
    st->phase = (struct phase){.type = PHASE_END};
    rc = s->config.plan(spec, st->inputs, st->done, &st->phase, &outputs, &metrics, &e);
    if (rc == 0)
        rc = phase_check(&st->phase, &e);
    if (rc != 0) {
        cJSON_Delete(outputs);
        cJSON_Delete(metrics);
        fail_with(s, st, rc == ERR_INVALID || rc == ERR_LIMIT ? "user" : "internal", &e, a);
        return true;
    }
    if (st->phase.type == PHASE_END) {
        cJSON_Delete(st->outputs); /* of a try that failed at its gate */
        cJSON_Delete(st->metrics);
        st->outputs = outputs != NULL ? outputs : cJSON_CreateObject();
        st->metrics = metrics != NULL ? metrics : cJSON_CreateObject();
        if (sched_class_is_any(st->job))
            cJSON_AddStringToObject(st->metrics, "numerics", "any");
        else if (spec_trains_bf16(spec))
            cJSON_AddStringToObject(st->metrics, "numerics", "bf16");
        succeed(s, st, a);
    } else {
        phase_open(s, st, a);
    }
    return true;
}

bool sched_restore_phase(struct sched *s, struct sched_stage *st, const char *name,
                         uint32_t tasks_n)
{
    struct err e = {0};
    cJSON *outputs = NULL, *metrics = NULL;
    struct buf text = BUF_INIT;
    int rc = s->config.plan(st->job->expansion->stage[st->index].spec, st->inputs, st->done,
                            &st->phase, &outputs, &metrics, &e);

    cJSON_Delete(outputs);
    cJSON_Delete(metrics);
    if (rc != 0 || phase_check(&st->phase, &e) != 0 || st->phase.type == PHASE_END ||
        strcmp(st->phase.name, name) != 0 ||
        (st->phase.type == PHASE_TASKS && st->phase.tasks != tasks_n)) {
        st->phase = (struct phase){.type = PHASE_END};
        return false;
    }
    st->phase_open = true;
    if (st->phase.type == PHASE_TASKS)
        tasks_make(st);
    else
        st->session = mem_zalloc(1, sizeof *st->session);
    sched_context(st, &text);
    digest_bytes(text.data, text.len, &st->context);
    buf_free(&text);
    return true;
}

/* ---- needs ----------------------------------------------------------------------------------- */

static bool needs_met(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    const struct expand_stage *x = &st->job->expansion->stage[st->index];
    bool met = true;

    for (int i = 0; i < x->needs_n; i++) {
        const struct sched_stage *need = &st->job->stage[x->needs[i]];

        if (run_state_is_final(need->state) && need->state != RUN_SUCCEEDED) {
            sched_move_stage(s, st, RUN_SKIPPED, "DependencyFailed", a);
            return false;
        }
        met = met && need->state == RUN_SUCCEEDED;
    }
    if (!met)
        sched_move_stage(s, st, RUN_PENDING, "DependencyPending", a);
    return met;
}

static bool stage_start(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    struct err e = {0};

    if (!needs_met(s, st, a))
        return false;
    if (st->job->max_parallel > 0 && running_stages(st->job) >= st->job->max_parallel) {
        sched_move_stage(s, st, RUN_PENDING, "MaxParallel", a);
        return false;
    }
    st->started_wall_ms = s->wall_ms;
    sched_move_stage(s, st, RUN_STARTING, "", a);
    if (inputs_make(st, &e) != 0) {
        fail_with(s, st, "user", &e, a);
        return false;
    }
    if (st->done == NULL) /* a job that is tried again has some */
        st->done = cJSON_CreateObject();
    sched_act(a, SCHED_SAVE_STAGE, st->job, st);
    return true;
}

void sched_stage_reuse(struct sched *s, struct sched_stage *st, cJSON *result,
                       struct sched_actions *a)
{
    if (st->state != RUN_STARTING || !st->reuse_asked || st->reuse_missed || st->phase_open)
        return;
    if (result == NULL ||
        !sched_class_join(s, st->job, cJSON_GetStringValue(json_get(result, "class")), a)) {
        st->reuse_missed = true;
        return;
    }
    st->reused = true;
    st->outputs = cJSON_Duplicate(json_get(result, "outputs"), true);
    st->metrics = cJSON_Duplicate(json_get(result, "metrics"), true);
    succeed(s, st, a);
}

void sched_stage_advance(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    if (run_state_is_final(st->state))
        return;
    if (st->state == RUN_PENDING && !stage_start(s, st, a))
        return;
    if (st->phase_open && !st->context_kept) /* restored, perhaps by a build that says more in it */
        context_put(st, a);
    if (!st->reuse_missed && st->phases_done == 0 && !st->phase_open) {
        if (!st->reuse_asked) {
            st->reuse_asked = true;
            reuse_key(s, st, &st->reuse_key);
            if (st->job->reuse && st->kind != KIND_PROBE) { /* a probe wants to be run */
                sched_act(a, SCHED_ASK_REUSE, st->job, st)->digest = st->reuse_key;
                return;
            }
            st->reuse_missed = true;
        } else {
            return;
        }
    }
    while (!run_state_is_final(st->state) && phase_next(s, st, a))
        ;
}
