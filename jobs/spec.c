#include "jobs/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "jobs/spec_keys.h"
#include "jobs/spec_stage.h"

static const char *const kind_names[] = {
#define X(name, text) text,
    JOB_KINDS(X)
#undef X
};

const char *job_kind_name(enum job_kind kind)
{
    return kind < KIND_COUNT ? kind_names[kind] : "unknown";
}

static void sampling_defaults(struct sampling *s)
{
    *s = (struct sampling){.temperature = 0.8f,
                           .top_k = 0,
                           .top_p = 1.0f,
                           .guidance = 1.0f,
                           .guidance_cut = 3.9f,
                           .max_new_tokens = 128};
}

static void decode_defaults(struct decode_spec *d)
{
    snprintf(d->weights, sizeof d->weights, "fp32");
}

struct spec *spec_new(void)
{
    struct spec *s = mem_zalloc(1, sizeof *s);

    s->kind = KIND_COUNT;
    snprintf(s->project, sizeof s->project, "default");
    s->seed = 1;
    s->cross_fit = 1;
    s->max_parallel = 4;
    s->reuse_verified = true;
    snprintf(s->numerics, sizeof s->numerics, "strict");
    s->finish_independent = true;
    snprintf(s->head, sizeof s->head, "classes");
    s->train = (struct train_spec){.global_batch = 32,
                                   .units = 8,
                                   .chunk_elems = 262144,
                                   .max_length = 512,
                                   .checkpoint_every_steps = 100,
                                   .lr = 1e-3,
                                   .grad_clip = 1.0};
    s->train.adamw =
        (struct adamw){.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f, .weight_decay = 0.01f};
    snprintf(s->train.optimizer, sizeof s->train.optimizer, "adamw");
    snprintf(s->train.schedule_name, sizeof s->train.schedule_name, "cosine");
    snprintf(s->train.wire, sizeof s->train.wire, "fp32");
    s->train.schedule =
        (struct schedule){.name = SCHEDULE_COSINE, .warmup_steps = 0, .min_ratio = 0.1};
    snprintf(s->condition.template_name, sizeof s->condition.template_name, "plain");
    snprintf(s->condition.labels, sizeof s->condition.labels, "predicted");
    snprintf(s->condition.loss_on, sizeof s->condition.loss_on, "response");
    s->annotate.rows_per_task = 64;
    sampling_defaults(&s->generate.sampling);
    decode_defaults(&s->generate.decode);
    s->generate.n = 1;
    snprintf(s->generate.split, sizeof s->generate.split, "held_out");
    snprintf(s->generate.cut, sizeof s->generate.cut, "none");
    s->generate.rows_per_task = 256;
    sampling_defaults(&s->bootstrap.sampling);
    decode_defaults(&s->bootstrap.decode);
    s->bootstrap.samples_per_prompt = 4;
    s->bootstrap.dedupe = true;
    s->bootstrap.sampling.top_k = 50; /* arXiv 2310.05344, section 3.4 */
    s->bootstrap.rows_per_task = 256;
    sampling_defaults(&s->evaluate.sampling);
    decode_defaults(&s->evaluate.decode);
    s->evaluate.contexts = 100;
    s->evaluate.levels = (struct int_list){3, {0, 2, 4}};
    snprintf(s->evaluate.others, sizeof s->evaluate.others, "missing");
    s->evaluate.guidance = (struct real_list){1, {1.0}};
    snprintf(s->evaluate.baseline, sizeof s->evaluate.baseline, "none");
    s->evaluate.samples = 6;
    s->evaluate.rows_per_task = 256;
    s->probe.tasks = 100;
    s->init = (struct dims){.vocab = 0,
                            .width = 64,
                            .layers = 4,
                            .heads = 4,
                            .kv_heads = 4,
                            .head_dim = 0,
                            .ffn = 172,
                            .context = 512,
                            .norm_eps = 1e-5f,
                            .rope_theta = 10000.0f,
                            .tied = true};
    return s;
}

bool spec_trains_bf16(const struct spec *s)
{
    return (s->kind == KIND_SFT || s->kind == KIND_TRAIN_ATTRIBUTE_MODEL) &&
           strcmp(s->numerics, "bf16") == 0;
}

char *spec_text_add(struct text_list *l, const char *text)
{
    if (l->n == SPEC_LIST_MAX)
        return NULL;
    l->v = mem_grow(l->v, (size_t)l->n + 1, sizeof *l->v);
    memset(l->v[l->n], 0, sizeof *l->v);
    snprintf(l->v[l->n], sizeof *l->v, "%s", text);
    return l->v[l->n++];
}

static void texts_copy(struct text_list *to, const struct text_list *from)
{
    *to = (struct text_list){0, NULL};
    for (int i = 0; i < from->n; i++)
        spec_text_add(to, from->v[i]);
}

struct data_spec *spec_data_add(struct spec *s)
{
    if (s->data_n == SPEC_DATA_MAX)
        return NULL;
    s->data = mem_grow(s->data, (size_t)s->data_n + 1, sizeof *s->data);
    memset(&s->data[s->data_n], 0, sizeof *s->data);
    return &s->data[s->data_n++];
}

void spec_data_copy(struct data_spec *to, const struct data_spec *from)
{
    *to = *from;
    texts_copy(&to->files, &from->files);
    texts_copy(&to->map.respond, &from->map.respond);
    texts_copy(&to->map.labels, &from->map.labels);
    texts_copy(&to->clean, &from->clean);
}

void spec_data_clear(struct spec *s)
{
    for (int i = 0; i < s->data_n; i++) {
        free(s->data[i].files.v);
        free(s->data[i].map.respond.v);
        free(s->data[i].map.labels.v);
        free(s->data[i].clean.v);
    }
    free(s->data);
    s->data = NULL;
    s->data_n = 0;
}

struct input_ref *spec_input_add(struct spec *s, const char *key)
{
    if (s->inputs_n == SPEC_INPUTS_MAX)
        return NULL;
    s->input = mem_grow(s->input, (size_t)s->inputs_n + 1, sizeof *s->input);
    memset(&s->input[s->inputs_n], 0, sizeof *s->input);
    snprintf(s->input[s->inputs_n].key, sizeof s->input->key, "%s", key);
    return &s->input[s->inputs_n++];
}

void spec_free(struct spec *s)
{
    if (s == NULL)
        return;
    for (int i = 0; i < s->stages_n; i++) {
        spec_free(s->stage[i]->spec);
        free(s->stage[i]->needs.v);
        free(s->stage[i]);
    }
    for (int i = 0; i < s->inputs_n; i++)
        free(s->input[i].refs.v);
    free(s->input);
    spec_data_clear(s);
    free(s->generate.stop.v);
    free(s->evaluate.rulers.v);
    free(s);
}

static bool kind_read(struct spec *s, const struct node *root, const char *pointer,
                      struct spec_problems *p)
{
    const struct node *kind = node_get(root, "kind");
    char name[40];
    const char *near;

    if (kind == NULL) {
        spec_problem_add(
            p, root, pointer, "missing",
            "kind is missing, must be one of train-attribute-model, annotate, sft, generate, "
            "bootstrap, evaluate, pipeline, probe");
        return false;
    }
    if (!node_read_text(kind, "/kind", name, sizeof name, p))
        return false;
    for (int i = 0; i < KIND_COUNT; i++)
        if (strcmp(kind_names[i], name) == 0 &&
            (i != KIND_PREPARE || root->line == 0)) { /* prepare: the planner's own JSON only */
            s->kind = (enum job_kind)i;
            return true;
        }
    near = suggest_nearest(name, kind_names + 1, KIND_COUNT - 1);
    spec_problem_add(p, kind, "/kind", "bad_choice", "kind is \"%s\"%s%s%s", name,
                     near != NULL ? "; did you mean \"" : ", which does not exist",
                     near != NULL ? near : "", near != NULL ? "\"?" : "");
    return false;
}

/* Keys in table order, so that attributes are known before the levels that name them. */
static struct node *in_table_order(const struct node *root)
{
    struct node *out = node_new(NODE_MAP, root->line, root->column);
    struct node *rest = node_copy(root);

    for (const struct key *k = spec_keys; k->name != NULL; k++) {
        const struct node *v = node_get(rest, k->name);
        if (v == NULL)
            continue;
        for (int i = 0; i < rest->n; i++)
            if (strcmp(rest->key[i]->text, k->name) == 0) {
                node_set(out, k->name, node_copy(v));
                out->key[out->n - 1]->line = rest->key[i]->line;
                out->key[out->n - 1]->column = rest->key[i]->column;
            }
        node_remove(rest, k->name);
    }
    for (int i = 0; i < rest->n; i++) {
        node_set(out, rest->key[i]->text, node_copy(rest->item[i]));
        out->key[out->n - 1]->line = rest->key[i]->line;
        out->key[out->n - 1]->column = rest->key[i]->column;
    }
    node_free(rest);
    return out;
}

void spec_read_body(struct spec *s, const struct node *root, const char *pointer,
                    struct spec_problems *p)
{
    struct node *ordered;

    if (!kind_read(s, root, pointer, p))
        return;
    ordered = in_table_order(root);
    keys_read(spec_keys, KIND_BIT(s->kind), s, s, ordered, pointer, p);
    node_free(ordered);
    s->train.schedule.name = strcmp(s->train.schedule_name, "constant") == 0 ? SCHEDULE_CONSTANT
                             : strcmp(s->train.schedule_name, "linear") == 0 ? SCHEDULE_LINEAR
                                                                             : SCHEDULE_COSINE;
    spec_check(s, root, pointer, p);
}

static bool version_read(const struct node *root, struct spec_problems *p)
{
    const struct node *v = node_get(root, "apiVersion");

    if (v != NULL && v->type == NODE_SCALAR && strcmp(v->text, "steerlm/v1") == 0)
        return true;
    spec_problem_add(p, v != NULL ? v : root, "/apiVersion", "bad_version",
                     "apiVersion must be steerlm/v1");
    return false;
}

/* "train.lr=1e-3": the value is read as a YAML scalar or flow ([0, 4], {a: 1}). */
static void set_apply(struct node *root, const char *set, struct spec_problems *p)
{
    const char *eq = strchr(set, '=');
    char path[256];
    struct buf yaml = BUF_INIT;
    struct node *holder;
    struct err e = {0};

    if (eq == NULL || eq == set || (size_t)(eq - set) >= sizeof path) {
        spec_problem_add(p, NULL, "", "bad_set", "--set %.80s: must be key.path=value", set);
        return;
    }
    memcpy(path, set, (size_t)(eq - set));
    path[eq - set] = '\0';
    buf_printf(&yaml, "v: %s\n", eq + 1);
    holder = node_from_yaml(yaml.data, yaml.len, p);
    if (holder != NULL && node_get(holder, "v") != NULL &&
        node_set_path(root, path, node_get(holder, "v"), &e) != 0)
        spec_problem_add(p, NULL, "", "bad_set", "--set %.80s: %s", set, e.msg);
    node_free(holder);
    buf_free(&yaml);
}

int spec_parse(const char *yaml, size_t len, const char *const *sets, int sets_n,
               spec_read_file read_file, void *self, struct spec **out,
               struct spec_problems *problems, struct err *e)
{
    struct node *root = node_from_yaml(yaml, len, problems);
    struct spec *s = NULL;

    *out = NULL;
    if (root != NULL && version_read(root, problems)) {
        /* like: and spec: first, so that --set reaches the full form of every stage. */
        spec_stages_resolve(root, read_file, self, problems);
        for (int i = 0; i < sets_n; i++)
            set_apply(root, sets[i], problems);
        s = spec_new();
        spec_read_body(s, root, "", problems);
        if (problems->n == 0 && s->name[0] == '\0')
            spec_problem_add(problems, root, "/name", "missing", "name is missing");
    }
    node_free(root);
    if (problems->n > 0) {
        spec_free(s);
        return err_set(e, ERR_INVALID, "%d problem%s; line %d: %s", problems->n,
                       problems->n > 1 ? "s" : "", problems->v[0].line, problems->v[0].text);
    }
    *out = s;
    return 0;
}

cJSON *spec_to_json(const struct spec *s)
{
    cJSON *o = keys_write(spec_keys, KIND_BIT(s->kind), s, s);

    cJSON_AddStringToObject(o, "apiVersion", "steerlm/v1");
    cJSON_AddStringToObject(o, "kind", job_kind_name(s->kind));
    return o;
}

int spec_from_json(const cJSON *j, struct spec **out, struct err *e)
{
    struct spec_problems problems = {0};
    struct node *root = node_from_json(j);
    struct spec *s = spec_new();

    *out = NULL;
    if (root->type == NODE_MAP)
        spec_read_body(s, root, "", &problems);
    else
        spec_problem_add(&problems, root, "", "wrong_type", "a spec is an object");
    node_free(root);
    if (problems.n > 0) {
        int rc = err_set(e, ERR_INVALID, "resolved spec: %s: %s", problems.v[0].pointer,
                         problems.v[0].text);
        spec_problems_free(&problems);
        spec_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

const struct input_ref *spec_input(const struct spec *s, const char *key)
{
    for (int i = 0; i < s->inputs_n; i++)
        if (strcmp(s->input[i].key, key) == 0)
            return &s->input[i];
    return NULL;
}

const struct data_spec *spec_data(const struct spec *s, const char *name)
{
    for (int i = 0; i < s->data_n; i++)
        if (strcmp(s->data[i].name, name) == 0)
            return &s->data[i];
    return NULL;
}
