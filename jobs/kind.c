/*
 * How: each kind is a list of steps; the next phase is the first step that is not among those done. Sizes that are only known
 * when data has been read (rows, examples, tokens) come from the metrics of earlier phases, so planning stays a pure function.
 */
#include "jobs/kind.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_MAX (1ull << 40)

struct planner {
    const struct spec *s;
    const cJSON *done;
    struct phase *out;
    struct err *e;
};

const char *kind_default_output(enum job_kind kind)
{
    switch (kind) {
    case KIND_TRAIN_ATTRIBUTE_MODEL:
    case KIND_SFT:
        return "model";
    case KIND_EVALUATE:
        return "report";
    default:
        return "data";
    }
}

static bool is_done(const struct planner *p, const char *phase)
{
    return json_get(p->done, phase) != NULL;
}

/* A figure of a finished phase: a whole number within [1, max]. */
static int figure(const struct planner *p, const char *phase, const char *name, uint64_t max,
                  uint64_t *out)
{
    const cJSON *metrics = json_get(json_get(p->done, phase), "metrics");
    int64_t v;
    int rc = json_need_int(metrics, name, 1, (int64_t)max, &v, p->e);

    if (rc != 0)
        return err_wrap(p->e, "phase %s", phase);
    *out = (uint64_t)v;
    return 0;
}

static void single(const struct planner *p, const char *name, uint32_t tasks, double cost)
{
    struct phase *f = p->out;

    f->type = PHASE_TASKS;
    snprintf(f->name, sizeof f->name, "%s", name);
    snprintf(f->task, sizeof f->task, "%s", name);
    snprintf(f->unit, sizeof f->unit, "tasks");
    f->tasks = tasks;
    f->cost = cost;
}

static int ranges(const struct planner *p, const char *name, const char *task,
                  const char *counted_by, int rows_per_task, double cost)
{
    int rc;

    single(p, name, 1, cost);
    snprintf(p->out->task, sizeof p->out->task, "%s", task);
    snprintf(p->out->unit, sizeof p->out->unit, "rows");
    if ((rc = figure(p, counted_by, "rows", 1u << 31, &p->out->rows)) != 0)
        return rc;
    p->out->rows_per_task = (uint64_t)rows_per_task;
    p->out->tasks = (uint32_t)((p->out->rows + p->out->rows_per_task - 1) / p->out->rows_per_task);
    return 0;
}

/* Steps from whichever of tokens, steps and passes the author gave. */
static uint64_t steps_of(const struct train_spec *t, uint64_t examples, uint64_t tokens)
{
    double batch = (double)t->global_batch;
    double steps = t->max_steps > 0 ? (double)t->max_steps
                   : t->max_tokens > 0
                       ? (double)t->max_tokens / (batch * (double)tokens / (double)examples)
                       : t->passes * (double)examples / batch;

    return steps < 1 ? 1 : steps > (double)STEPS_MAX ? STEPS_MAX : (uint64_t)ceil(steps);
}

static int session(const struct planner *p, int fold)
{
    const struct train_spec *t = &p->s->train;
    struct session_plan *plan = &p->out->session;
    char name[32];
    uint64_t examples, tokens;
    int rc;

    snprintf(name, sizeof name, "examples.%d", fold);
    if ((rc = figure(p, "encode", name, 1u << 31, &examples)) != 0)
        return rc;
    snprintf(p->out->session_context, sizeof p->out->session_context, "%s", name);
    snprintf(name, sizeof name, "tokens.%d", fold);
    if ((rc = figure(p, "encode", name, 1ull << 52, &tokens)) != 0 ||
        (rc = figure(p, "encode", "params", 1ull << 40, &plan->params)) != 0)
        return rc;
    p->out->type = PHASE_SESSION;
    snprintf(p->out->name, sizeof p->out->name, "train.%d", fold);
    snprintf(p->out->unit, sizeof p->out->unit, "steps");
    plan->seed = p->s->seed;
    plan->steps = steps_of(t, examples, tokens);
    plan->global_batch = (uint32_t)t->global_batch;
    plan->units = (uint32_t)t->units;
    plan->chunk_elems = (uint32_t)t->chunk_elems;
    plan->checkpoint_every = (uint32_t)t->checkpoint_every_steps;
    plan->fold = fold;
    p->out->tasks = 1;
    p->out->cost =
        1e-3 * (double)plan->steps * (double)t->global_batch * (double)tokens / (double)examples;
    return 0;
}

static int next_train(const struct planner *p)
{
    int folds = p->s->kind == KIND_TRAIN_ATTRIBUTE_MODEL ? p->s->cross_fit : 1;
    char name[32];

    if (!is_done(p, "encode")) {
        single(p, "encode", 1, 30);
        return 0;
    }
    for (int k = 0; k < folds; k++) {
        snprintf(name, sizeof name, "train.%d", k);
        if (!is_done(p, name))
            return session(p, k);
    }
    if (!is_done(p, "export"))
        single(p, "export", (uint32_t)folds, 5);
    return 0;
}

/* Rows of the input data set: its conversations, counted when the stage's inputs were resolved. */
static int next_annotate(const struct planner *p, const cJSON *inputs)
{
    int64_t rows;
    int rc;

    if (!is_done(p, "annotate.rows")) {
        single(p, "annotate.rows", 1, 400);
        snprintf(p->out->unit, sizeof p->out->unit, "rows");
        if ((rc = json_need_int(inputs, "data.rows", 1, 1 << 30, &rows, p->e)) != 0)
            return rc;
        p->out->rows = (uint64_t)rows;
        p->out->rows_per_task = (uint64_t)p->s->annotate.rows_per_task;
        p->out->tasks =
            (uint32_t)((p->out->rows + p->out->rows_per_task - 1) / p->out->rows_per_task);
    } else if (!is_done(p, "annotate.reduce")) {
        single(p, "annotate.reduce", 1, 40);
    }
    return 0;
}

static int next_generate(const struct planner *p)
{
    if (!is_done(p, "generate.items"))
        single(p, "generate.items", 1, 5);
    else if (!is_done(p, "generate.rows"))
        return ranges(p, "generate.rows", "generate.rows", "generate.items",
                      p->s->generate.rows_per_task, 300);
    else if (!is_done(p, "generate.reduce"))
        single(p, "generate.reduce", 1, 10);
    return 0;
}

static int next_bootstrap(const struct planner *p)
{
    if (!is_done(p, "bootstrap.items"))
        single(p, "bootstrap.items", 1, 5);
    else if (!is_done(p, "bootstrap.sample"))
        return ranges(p, "bootstrap.sample", "bootstrap.sample", "bootstrap.items",
                      p->s->bootstrap.rows_per_task, 300);
    else if (!is_done(p, "bootstrap.score"))
        return ranges(p, "bootstrap.score", "bootstrap.score", "bootstrap.items",
                      p->s->bootstrap.rows_per_task, 60);
    else if (!is_done(p, "bootstrap.reduce"))
        single(p, "bootstrap.reduce", 1, 10);
    return 0;
}

static int next_evaluate(const struct planner *p)
{
    if (!is_done(p, "evaluate.items"))
        single(p, "evaluate.items", 1, 5);
    else if (!is_done(p, "evaluate.rows"))
        return ranges(p, "evaluate.rows", "evaluate.rows", "evaluate.items",
                      p->s->evaluate.rows_per_task, 600);
    else if (!is_done(p, "evaluate.reduce"))
        single(p, "evaluate.reduce", 1, 120);
    return 0;
}

static void next_probe(const struct planner *p)
{
    const struct probe_spec *v = &p->s->probe;

    if (!is_done(p, "probe"))
        single(p, "probe", (uint32_t)v->tasks, 1e-3 * (1 + (double)v->sleep_ms) * v->tasks);
}

/* The phase whose outputs and metrics are the stage's own. */
static const char *last_phase(const struct spec *s)
{
    switch (s->kind) {
    case KIND_PREPARE:
        return "prepare";
    case KIND_ANNOTATE:
        return "annotate.reduce";
    case KIND_GENERATE:
        return "generate.reduce";
    case KIND_BOOTSTRAP:
        return "bootstrap.reduce";
    case KIND_EVALUATE:
        return "evaluate.reduce";
    case KIND_PROBE:
        return "probe";
    default:
        return "export";
    }
}

static void metrics_merge(cJSON *into, const cJSON *from, const char *prefix)
{
    const cJSON *m;
    char name[320]; /* the longest name of a phase, a dot, the longest of a metric */

    cJSON_ArrayForEach(m, from)
    {
        snprintf(name, sizeof name, "%s%s", prefix, m->string);
        if (json_get(into, name) == NULL)
            cJSON_AddItemToObject(into, name, cJSON_Duplicate(m, true));
    }
}

/* Outputs {name: [digest, ...]}: single outputs of the last phase, and its parts under the default name for exports (one a fold). */
static void finish(const struct planner *p, cJSON **outputs, cJSON **metrics)
{
    const cJSON *last = json_get(p->done, last_phase(p->s)), *o, *phase;

    *outputs = cJSON_CreateObject();
    *metrics = cJSON_CreateObject();
    if (p->s->kind == KIND_TRAIN_ATTRIBUTE_MODEL || p->s->kind == KIND_SFT) {
        cJSON_AddItemToObject(*outputs, "model", cJSON_Duplicate(json_get(last, "parts"), true));
    } else {
        cJSON_ArrayForEach(o, json_get(last, "outputs"))
        {
            cJSON *list = cJSON_AddArrayToObject(*outputs, o->string);
            cJSON_AddItemToArray(list, cJSON_Duplicate(o, true));
        }
    }
    metrics_merge(*metrics, json_get(last, "metrics"), "");
    cJSON_ArrayForEach(phase, p->done)
    {
        char prefix[48];
        if (phase == last)
            continue;
        snprintf(prefix, sizeof prefix, "%s.", phase->string);
        metrics_merge(*metrics, json_get(phase, "metrics"), prefix);
    }
}

int kind_next_phase(const struct spec *s, const cJSON *inputs, const cJSON *done, struct phase *out,
                    cJSON **outputs, cJSON **metrics, struct err *e)
{
    struct planner p = {s, done, out, e};
    int rc = 0;

    memset(out, 0, sizeof *out);
    *outputs = *metrics = NULL;
    switch (s->kind) {
    case KIND_PREPARE:
        if (!is_done(&p, "prepare"))
            single(&p, "prepare", 1, 30);
        break;
    case KIND_TRAIN_ATTRIBUTE_MODEL:
    case KIND_SFT:
        rc = next_train(&p);
        break;
    case KIND_ANNOTATE:
        rc = next_annotate(&p, inputs);
        break;
    case KIND_GENERATE:
        rc = next_generate(&p);
        break;
    case KIND_BOOTSTRAP:
        rc = next_bootstrap(&p);
        break;
    case KIND_EVALUATE:
        rc = next_evaluate(&p);
        break;
    case KIND_PROBE:
        next_probe(&p);
        break;
    default:
        rc = err_set(e, ERR_INVALID, "a %s has no phases of its own", job_kind_name(s->kind));
    }
    if (rc != 0)
        return err_wrap(e, "planning %s", s->name);
    if (out->type == PHASE_END)
        finish(&p, outputs, metrics);
    return 0;
}
