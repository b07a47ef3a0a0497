#include "jobs/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/beat.h"
#include "base/buf.h"

static const struct run_kind {
    const char *name;
    run_fn fn;
    bool bare;
} kinds[] = {
    {"prepare", run_prepare, false},
    {"encode", run_encode, false},
    {"export", run_export, false},
    {"annotate.rows", run_annotate_rows, false},
    {"annotate.reduce", run_annotate_reduce, false},
    {"generate.items", run_generate_items, false},
    {"generate.rows", run_generate_rows, false},
    {"generate.reduce", run_generate_reduce, false},
    {"bootstrap.items", run_bootstrap_items, false},
    {"bootstrap.sample", run_generate_rows, false},
    {"bootstrap.score", run_bootstrap_score, false},
    {"bootstrap.reduce", run_bootstrap_reduce, false},
    {"evaluate.items", run_evaluate_items, false},
    {"evaluate.rows", run_evaluate_rows, false},
    {"evaluate.reduce", run_evaluate_reduce, false},
    {"probe", run_probe, true},
};

static const struct run_kind *kind_find(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

bool run_kind_exists(const char *kind)
{
    return kind_find(kind) != NULL;
}

bool run_kind_is_bare(const char *kind)
{
    const struct run_kind *k = kind_find(kind);

    return k != NULL && k->bare;
}

void run_result_fini(struct run_result *r)
{
    cJSON_Delete(r->outputs);
    cJSON_Delete(r->metrics);
    memset(r, 0, sizeof *r);
}

void run_cache_fini(struct run_cache *c)
{
    free(c->text);
    cJSON_Delete(c->context);
    spec_free(c->spec);
    *c = (struct run_cache){NULL, 0, NULL, NULL};
}

static int context_parse(const char *context, size_t len, struct run_cache *c, struct err *e)
{
    int rc;

    if (c->text != NULL && c->len == len && memcmp(c->text, context, len) == 0)
        return 0;
    run_cache_fini(c);
    rc = json_parse(context, len, JSON_LIMITS_FILE, &c->context, e);
    if (rc == 0)
        rc = spec_from_json(json_get(c->context, "spec"), &c->spec, e);
    if (rc != 0) {
        run_cache_fini(c);
        return rc;
    }
    c->text = mem_strndup(context, len);
    c->len = len;
    return 0;
}

int run_task_execute(const char *kind, uint32_t index, uint64_t begin, uint64_t end,
                     const char *context, size_t context_len, const struct run_env *env,
                     struct run_result *result, struct err *e)
{
    const struct run_kind *k = kind_find(kind);
    struct run_task t = {.kind = kind, .index = index, .begin = begin, .end = end};
    struct run_cache own = {NULL, 0, NULL, NULL};
    struct run_cache *c = env->cache != NULL ? env->cache : &own;
    int rc;

    memset(result, 0, sizeof *result);
    if (k == NULL)
        return err_set(e, ERR_UNSUPPORTED, "this worker does not know tasks of kind \"%.40s\"",
                       kind);
    beat_to(env->heartbeat);
    rc = context_parse(context, context_len, c, e);
    if (rc != 0) {
        beat_to(NULL);
        return err_wrap(e, "context of a %s task", kind);
    }
    t.spec = c->spec;
    t.inputs = json_get(c->context, "inputs");
    t.phases = json_get(c->context, "phases");
    t.fold = (int)json_int_or(c->context, "fold", 0);
    result->outputs = cJSON_CreateObject();
    result->metrics = cJSON_CreateObject();
    rc = k->fn(&t, env, result, e);
    if (rc != 0) {
        run_result_fini(result);
        err_wrap(e, "%s", kind);
    }
    run_cache_fini(&own);
    beat_to(NULL);
    return rc;
}

/* ---- for the run_*.c files ------------------------------------------------------------------- */

static int fetch_named(const struct run_env *env, const cJSON *digest, const char *what, char *path,
                       size_t cap, struct err *e)
{
    int rc;

    if (!cJSON_IsString(digest) || !digest_is_valid(digest->valuestring))
        return err_set(e, ERR_INVALID, "%s is missing", what);
    rc = env->fetch(env->self, digest->valuestring, path, cap, e);
    return rc == 0 ? 0 : err_wrap(e, "%s", what);
}

int run_input_count(const struct run_task *t, const char *key)
{
    return cJSON_GetArraySize(json_get(t->inputs, key));
}

int run_input(const struct run_task *t, const struct run_env *env, const char *key, int i,
              char *path, size_t cap, struct err *e)
{
    char what[96];

    snprintf(what, sizeof what, "input %s[%d]", key, i);
    return fetch_named(env, cJSON_GetArrayItem(json_get(t->inputs, key), i), what, path, cap, e);
}

int run_phase_output(const struct run_task *t, const struct run_env *env, const char *phase,
                     const char *name, char *path, size_t cap, struct err *e)
{
    char what[96];

    snprintf(what, sizeof what, "output %s of phase %s", name, phase);
    return fetch_named(env, json_get(json_get(json_get(t->phases, phase), "outputs"), name), what,
                       path, cap, e);
}

int run_phase_parts(const struct run_task *t, const char *phase)
{
    return cJSON_GetArraySize(json_get(json_get(t->phases, phase), "parts"));
}

int run_phase_part(const struct run_task *t, const struct run_env *env, const char *phase, int i,
                   char *path, size_t cap, struct err *e)
{
    char what[96];

    snprintf(what, sizeof what, "part %d of phase %s", i, phase);
    return fetch_named(env, cJSON_GetArrayItem(json_get(json_get(t->phases, phase), "parts"), i),
                       what, path, cap, e);
}

const cJSON *run_phase_metrics(const struct run_task *t, const char *phase)
{
    return json_get(json_get(t->phases, phase), "metrics");
}

int run_publish(const struct run_env *env, struct run_result *r, const char *name, const char *path,
                struct err *e)
{
    struct digest d;
    int rc = env->publish(env->self, path, &d, e);

    if (rc != 0)
        return err_wrap(e, "output %s", name);
    cJSON_AddStringToObject(r->outputs, name, d.hex);
    return 0;
}

void run_metric(struct run_result *r, const char *name, double value)
{
    r->metrics_bytes += strlen(name) + RUN_METRIC_BYTES;
    if (r->metrics_bytes <= RUN_METRICS_BYTES)
        cJSON_AddNumberToObject(r->metrics, name, value);
}
