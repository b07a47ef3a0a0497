/*
 * The stages of a pipeline. A stage is the spec of its kind with three more keys (needs, gates and its name); labels, attributes,
 * data, project and seed come down from the pipeline. Before a stage is read, `spec: FILE`, `like: STAGE` and `set: {path: value}` are
 * resolved on the tree of nodes, so that what is read, planned and stored is always the full form.
 */
#include <stdlib.h>
#include <string.h>

#include "jobs/spec_keys.h"
#include "jobs/spec_stage.h"

/* What all `like:` of a spec may copy, keys and values: a few bytes of YAML are a node of a hundred, 64 times. */
#define LIKE_NODES_MAX 32768

static int node_count(const struct node *n)
{
    int all = 1;

    for (int i = 0; i < n->n; i++)
        all += node_count(n->item[i]) + (n->key != NULL);
    return all;
}

static void sets_apply(struct node *stage, const char *pointer, struct spec_problems *p)
{
    const struct node *set = node_get(stage, "set");
    struct node *copy;

    if (set == NULL)
        return;
    copy = node_copy(set);
    node_remove(stage, "set");
    if (copy->type != NODE_MAP)
        spec_problem_add(p, copy, pointer, "wrong_type", "set must be a map of key paths");
    for (int i = 0; copy->type == NODE_MAP && i < copy->n; i++) {
        struct err e = {0};
        if (node_set_path(stage, copy->key[i]->text, copy->item[i], &e) != 0)
            spec_problem_add(p, copy->key[i], pointer, "bad_path", "%s", e.msg);
    }
    node_free(copy);
}

/* base with the keys of over in place of its own. Gives a new node. */
static struct node *node_overlay(const struct node *base, const struct node *over)
{
    struct node *out = node_copy(base);

    out->line = over->line;
    out->column = over->column;
    for (int i = 0; i < over->n; i++)
        node_set(out, over->key[i]->text, node_copy(over->item[i]));
    return out;
}

static void stage_from_file(struct node **stage, const char *pointer, spec_read_file read_file,
                            void *self, struct spec_problems *p)
{
    const struct node *path = node_get(*stage, "spec");
    struct buf text = BUF_INIT;
    struct err e = {0};
    struct node *file = NULL, *merged;
    int before = p->n;

    if (path == NULL)
        return;
    if (path->type != NODE_SCALAR) {
        spec_problem_add(p, path, pointer, "wrong_type", "spec must be the path of a file");
        return;
    }
    if (read_file == NULL)
        spec_problem_add(p, path, pointer, "bad_reference",
                         "spec \"%.80s\": files are inlined by steerctl before submitting",
                         path->text);
    else if (read_file(self, path->text, &text, &e) != 0)
        spec_problem_add(p, path, pointer, "missing_file", "%.300s", e.msg);
    else
        file = node_from_yaml(text.data != NULL ? text.data : "", text.len, p);
    for (int i = before; i < p->n && text.len > 0; i++) { /* places are in that file: say which */
        char inner[sizeof p->v[i].text];
        memcpy(inner, p->v[i].text, sizeof inner);
        snprintf(p->v[i].text, sizeof p->v[i].text, "%.60s: %.300s", path->text, inner);
    }
    buf_free(&text);
    if (file == NULL)
        return;
    node_remove(file, "apiVersion");
    merged = node_overlay(file, *stage);
    node_remove(merged, "spec");
    node_free(file);
    node_free(*stage);
    *stage = merged;
}

static void stage_like(struct node **stages, int n, int i, int *nodes, const char *pointer,
                       struct spec_problems *p)
{
    const struct node *like = node_get(stages[i], "like");
    struct node *merged;

    if (like == NULL)
        return;
    for (int k = 0; k < n; k++) {
        const struct node *name = node_get(stages[k], "name");
        if (k == i || like->type != NODE_SCALAR || name == NULL || name->type != NODE_SCALAR ||
            strcmp(name->text, like->text) != 0)
            continue;
        if (k > i) {
            spec_problem_add(p, like, pointer, "bad_reference",
                             "like: \"%s\" must stand before this stage", like->text);
            return;
        }
        *nodes += node_count(stages[k]);
        if (*nodes > LIKE_NODES_MAX) {
            spec_problem_add(p, like, pointer, "too_long",
                             "like: the copies have more than %d keys and values", LIKE_NODES_MAX);
            return;
        }
        merged = node_overlay(stages[k], stages[i]);
        node_remove(merged, "like");
        node_free(stages[i]);
        stages[i] = merged;
        return;
    }
    spec_problem_add(p, like, pointer, "bad_reference", "like: there is no stage \"%.40s\"",
                     like->type == NODE_SCALAR ? like->text : "?");
}

void spec_stages_resolve(struct node *root, spec_read_file read_file, void *self,
                         struct spec_problems *p)
{
    struct node *list = node_get(root, "stages");
    char pointer[64];
    int nodes = 0;

    if (list == NULL || list->type != NODE_LIST || list->n > SPEC_STAGES_MAX)
        return; /* refused when it is read; until then copies of stages must not multiply */
    for (int i = 0; i < list->n; i++) {
        snprintf(pointer, sizeof pointer, "/stages/%d", i);
        if (list->item[i]->type != NODE_MAP)
            continue; /* complained about when it is read */
        stage_from_file(&list->item[i], pointer, read_file, self, p);
        stage_like(list->item, list->n, i, &nodes, pointer, p);
        sets_apply(list->item[i], pointer, p);
    }
}

/* ---- reading --------------------------------------------------------------------------------- */

static void gates_read(struct stage *stage, const struct node *n, const char *pointer,
                       struct spec_problems *p)
{
    static const char *const names[] = {"metric", "min", "max"};

    if (n->type != NODE_LIST || n->n > (int)(sizeof stage->gate / sizeof *stage->gate)) {
        spec_problem_add(p, n, pointer, "wrong_type",
                         "gate must be a list of at most 8 {metric, min, max}");
        return;
    }
    for (int i = 0; i < n->n; i++) {
        struct gate *g = &stage->gate[stage->gates_n];
        const struct node *metric = node_get(n->item[i], "metric"),
                          *min = node_get(n->item[i], "min"), *max = node_get(n->item[i], "max");
        for (int k = 0; n->item[i]->type == NODE_MAP && k < n->item[i]->n; k++)
            if (strcmp(n->item[i]->key[k]->text, "metric") != 0 &&
                strcmp(n->item[i]->key[k]->text, "min") != 0 &&
                strcmp(n->item[i]->key[k]->text, "max") != 0)
                key_unknown(n->item[i]->key[k], pointer, names, 3, p);
        if (metric == NULL || (min == NULL && max == NULL)) {
            spec_problem_add(p, n->item[i], pointer, "missing",
                             "a gate needs metric, and min or max");
            continue;
        }
        if (!node_read_text(metric, pointer, g->metric, sizeof g->metric, p))
            continue;
        g->has_min = min != NULL && node_read_real(min, pointer, -1e300, 1e300, &g->min, p);
        g->has_max = max != NULL && node_read_real(max, pointer, -1e300, 1e300, &g->max, p);
        stage->gates_n++;
    }
}

static void needs_read(struct stage *stage, const struct node *n, const char *pointer,
                       struct spec_problems *p)
{
    if (n->type != NODE_LIST || n->n > SPEC_LIST_MAX) {
        spec_problem_add(p, n, pointer, "wrong_type", "needs must be a list of at most %d stages",
                         SPEC_LIST_MAX);
        return;
    }
    for (int i = 0; i < n->n; i++) {
        char name[SPEC_TEXT_MAX];

        if (node_read_text(n->item[i], pointer, name, sizeof name, p))
            spec_text_add(&stage->needs, name);
    }
}

static struct spec *stage_spec_new(const struct spec *pipeline)
{
    struct spec *s = spec_new();

    s->seed = pipeline->seed;
    memcpy(s->project, pipeline->project, sizeof s->project);
    s->schema = pipeline->schema;
    for (int i = 0; i < pipeline->data_n; i++)
        spec_data_copy(spec_data_add(s), &pipeline->data[i]);
    s->reuse_verified = pipeline->reuse_verified;
    s->audit = pipeline->audit;
    memcpy(s->numerics, pipeline->numerics, sizeof s->numerics);
    return s;
}

static void stage_read(struct spec *pipeline, const struct node *n, const char *pointer,
                       struct spec_problems *p)
{
    struct stage *stage = mem_zalloc(1, sizeof *stage);
    struct node *body;
    const struct node *needs, *gate;

    pipeline->stage[pipeline->stages_n++] = stage;
    stage->spec = stage_spec_new(pipeline);
    if (n->type != NODE_MAP) {
        spec_problem_add(p, n, pointer, "wrong_type", "a stage is a map with name and kind");
        return;
    }
    needs = node_get(n, "needs");
    gate = node_get(n, "gate");
    if (needs != NULL)
        needs_read(stage, needs, pointer, p);
    if (gate != NULL)
        gates_read(stage, gate, pointer, p);
    body = node_copy(n);
    node_remove(body, "needs");
    node_remove(body, "gate");
    if (node_get(body, "name") == NULL)
        spec_problem_add(p, n, pointer, "missing", "a stage needs a name");
    spec_read_body(stage->spec, body, pointer, p);
    if (node_get(n, "numerics") == NULL && !spec_trains_bf16(stage->spec) &&
        strcmp(stage->spec->numerics, "bf16") == 0)
        snprintf(stage->spec->numerics, sizeof stage->spec->numerics, "strict");
    if (stage->spec->kind == KIND_PIPELINE)
        spec_problem_add(p, n, pointer, "bad_choice", "a stage can't be a pipeline");
    snprintf(stage->name, sizeof stage->name, "%s", stage->spec->name);
    node_free(body);
}

static void stages_read(struct spec *s, void *at, const struct node *n, const char *pointer,
                        struct spec_problems *p)
{
    char where[160];

    (void)at;
    if (n->type != NODE_LIST || n->n < 1 || n->n > SPEC_STAGES_MAX) {
        spec_problem_add(p, n, pointer, "wrong_type", "must be a list of 1..%d stages",
                         SPEC_STAGES_MAX);
        return;
    }
    for (int i = 0; i < n->n; i++) {
        snprintf(where, sizeof where, "%s/%d", pointer, i);
        stage_read(s, n->item[i], where, p);
    }
}

/* Leaves out what comes down from the pipeline anyway; a stage may have data, labels and attributes of its own. */
static void inherited_drop(cJSON *stage, const cJSON *pipeline)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, pipeline)
    {
        if (cJSON_Compare(json_get(stage, item->string), item, true))
            cJSON_DeleteItemFromObject(stage, item->string);
    }
}

static cJSON *stages_write(const struct spec *s, const void *at)
{
    cJSON *out = cJSON_CreateArray(), *inherited = cJSON_CreateObject();

    (void)at;
    cJSON_AddItemToObject(inherited, "labels", custom_labels.write(s, &s->schema));
    cJSON_AddItemToObject(inherited, "attributes", custom_attributes.write(s, &s->schema));
    cJSON_AddItemToObject(inherited, "data", custom_data.write(s, &s->data_n));
    for (int i = 0; i < s->stages_n; i++) {
        const struct stage *stage = s->stage[i];
        cJSON *o = spec_to_json(stage->spec);
        cJSON_DeleteItemFromObject(o, "apiVersion");
        inherited_drop(o, inherited);
        if (stage->needs.n > 0) {
            cJSON *a = cJSON_AddArrayToObject(o, "needs");
            for (int k = 0; k < stage->needs.n; k++)
                cJSON_AddItemToArray(a, cJSON_CreateString(stage->needs.v[k]));
        }
        if (stage->gates_n > 0) {
            cJSON *a = cJSON_AddArrayToObject(o, "gate");
            for (int k = 0; k < stage->gates_n; k++) {
                cJSON *g = cJSON_CreateObject();
                cJSON_AddStringToObject(g, "metric", stage->gate[k].metric);
                if (stage->gate[k].has_min)
                    cJSON_AddNumberToObject(g, "min", stage->gate[k].min);
                if (stage->gate[k].has_max)
                    cJSON_AddNumberToObject(g, "max", stage->gate[k].max);
                cJSON_AddItemToArray(a, g);
            }
        }
        cJSON_AddItemToArray(out, o);
    }
    cJSON_Delete(inherited);
    return out;
}

const struct key_custom custom_stages = {stages_read, stages_write};
