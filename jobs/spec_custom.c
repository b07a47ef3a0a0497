/* Keys that read and write themselves: most have names of the author's own (data sets, inputs, levels by attribute, models). */
#include <stdlib.h>
#include <string.h>

#include "jobs/spec_keys.h"

static bool map_of(const struct node *n, int max, const char *what, const char *pointer,
                   struct spec_problems *p)
{
    if (n->type == NODE_MAP && n->n <= max)
        return true;
    spec_problem_add(p, n, pointer, "wrong_type", "must be a map of at most %d %s", max, what);
    return false;
}

/* ---- data ------------------------------------------------------------------------------------ */

static void data_defaults(struct data_spec *d)
{
    memset(d, 0, sizeof *d);
    snprintf(d->format, sizeof d->format, "auto");
    snprintf(d->split.by, sizeof d->split.by, "conversation_id");
    d->split.held_out = 0.1;
    d->split.seed = 1;
    d->problems_max = 0.01;
}

static void data_read(struct spec *s, void *at, const struct node *n, const char *pointer,
                      struct spec_problems *p)
{
    char where[160];

    (void)at;
    if (!map_of(n, SPEC_DATA_MAX, "data sets", pointer, p))
        return;
    spec_data_clear(s); /* of a stage: those that came down from its pipeline */
    for (int i = 0; i < n->n; i++) {
        struct data_spec *d = spec_data_add(s);

        data_defaults(d);
        snprintf(where, sizeof where, "%s/%s", pointer, n->key[i]->text);
        node_read_text(n->key[i], where, d->name, sizeof d->name, p);
        keys_read(spec_data_keys, 0, s, d, n->item[i], where, p);
        if (node_get(n->item[i], "map") != NULL && node_get(n->item[i], "format") == NULL)
            snprintf(d->format, sizeof d->format, "map");
        if (d->files.n == 0)
            spec_problem_add(p, n->item[i], where, "missing", "data set \"%s\" has no files",
                             d->name);
        if (strcmp(d->format, "map") == 0 && d->map.text[0] == '\0' && d->map.response[0] == '\0')
            spec_problem_add(p, n->item[i], where, "missing",
                             "format map needs map.text (with map.conversation) or map.response");
    }
}

static cJSON *data_write(const struct spec *s, const void *at)
{
    cJSON *out = cJSON_CreateObject();

    (void)at;
    for (int i = 0; i < s->data_n; i++)
        cJSON_AddItemToObject(out, s->data[i].name, keys_write(spec_data_keys, 0, s, &s->data[i]));
    return out;
}

/* ---- inputs ---------------------------------------------------------------------------------- */

static bool ref_is_good(const char *ref)
{
    static const char *const kinds[] = {"file:", "data:", "stage:", "sha256:", "job:"};

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strncmp(ref, kinds[i], strlen(kinds[i])) == 0)
            return i == 3 ? strlen(ref) == 7 + 64 && strspn(ref + 7, "0123456789abcdef") == 64
                          : ref[strlen(kinds[i])] != '\0';
    return false;
}

static void refs_check(const struct text_list *refs, const struct node *n, const char *pointer,
                       struct spec_problems *p)
{
    for (int i = 0; i < refs->n; i++)
        if (!ref_is_good(refs->v[i]))
            spec_problem_add(
                p, n->type == NODE_LIST ? n->item[i] : n, pointer, "bad_reference",
                "\"%.80s\" must be file:PATH, data:NAME, stage:NAME, sha256:HEX or job:ID",
                refs->v[i]);
}

static void inputs_read(struct spec *s, void *at, const struct node *n, const char *pointer,
                        struct spec_problems *p)
{
    static const char *const names[] = {"base", "train", "model", "data", "judge", "prompts"};
    static const struct key texts = {"",   KEY_TEXTS, 0, sizeof(struct text_list), 0, 0, NULL, NULL,
                                     NULL, 0,         ""};
    struct key table[] = {texts, {0}};
    char where[160];

    (void)at;
    if (!map_of(n, SPEC_INPUTS_MAX, "inputs", pointer, p))
        return;
    for (int i = 0; i < n->n; i++) {
        struct input_ref *in = NULL;
        struct node one = {.type = NODE_MAP, .n = 1, .key = &n->key[i], .item = &n->item[i]};
        bool known = false;
        for (size_t k = 0; k < 6; k++)
            known = known || strcmp(names[k], n->key[i]->text) == 0;
        if (!known) {
            key_unknown(n->key[i], pointer, names, 6, p);
            continue;
        }
        snprintf(where, sizeof where, "%s/%s", pointer, n->key[i]->text);
        in = spec_input_add(s, n->key[i]->text);
        CHECK(in != NULL); /* keys are unique and there are no other names */
        table[0].name = in->key;
        keys_read(table, 0, s, &in->refs, &one, pointer, p);
        refs_check(&in->refs, n->item[i], where, p);
    }
}

static cJSON *inputs_write(const struct spec *s, const void *at)
{
    cJSON *out = cJSON_CreateObject();

    (void)at;
    for (int i = 0; i < s->inputs_n; i++) {
        cJSON *a = cJSON_AddArrayToObject(out, s->input[i].key);
        for (int k = 0; k < s->input[i].refs.n; k++)
            cJSON_AddItemToArray(a, cJSON_CreateString(s->input[i].refs.v[k]));
    }
    return out;
}

/* ---- base: {init: {...}, tokenizer: ...} ----------------------------------------------------- */

static void base_read(struct spec *s, void *at, const struct node *n, const char *pointer,
                      struct spec_problems *p)
{
    static const char *const names[] = {"init", "tokenizer"};

    (void)at;
    if (!map_of(n, 2, "keys", pointer, p))
        return;
    for (int i = 0; i < n->n; i++) {
        if (strcmp(n->key[i]->text, "init") == 0)
            keys_read(spec_init_keys, 0, s, &s->init, n->item[i], "/base/init", p);
        else if (strcmp(n->key[i]->text, "tokenizer") == 0)
            node_read_text(n->item[i], "/base/tokenizer", s->tokenizer, sizeof s->tokenizer, p);
        else
            key_unknown(n->key[i], pointer, names, 2, p);
    }
    s->has_init = true;
    if (s->init.head_dim == 0 && s->init.heads > 0)
        s->init.head_dim = s->init.width / s->init.heads;
    if (s->tokenizer[0] == '\0')
        spec_problem_add(p, n, pointer, "missing",
                         "base.init needs tokenizer: file:PATH, or synthetic");
}

static cJSON *base_write(const struct spec *s, const void *at)
{
    cJSON *out;

    (void)at;
    if (!s->has_init)
        return NULL;
    out = cJSON_CreateObject();
    cJSON_AddItemToObject(out, "init", keys_write(spec_init_keys, 0, s, &s->init));
    cJSON_AddStringToObject(out, "tokenizer", s->tokenizer);
    return out;
}

/* ---- levels by attribute --------------------------------------------------------------------- */

/* Index of the attribute a key names, or -1 after a problem. */
static int attr_of(const struct spec *s, const struct node *key, const char *pointer,
                   struct spec_problems *p)
{
    const char *names[SCHEMA_ATTRS_MAX];
    int i = schema_find_attr(&s->schema, key->text);

    if (i < 0) {
        for (int k = 0; k < s->schema.attrs; k++)
            names[k] = s->schema.attr[k].name;
        key_unknown(key, pointer, names, (size_t)s->schema.attrs, p);
    }
    return i;
}

/* A value on the attribute's own scale becomes a level from 0. */
static bool level_read(const struct attr *a, const struct node *n, const char *pointer, int *level,
                       struct spec_problems *p)
{
    int64_t v;

    if (n->type == NODE_SCALAR && strcmp(n->text, "missing") == 0) {
        *level = -1;
        return true;
    }
    if (!node_read_int(n, pointer, a->min, a->min + a->levels - 1, &v, p))
        return false;
    *level = (int)v - a->min;
    return true;
}

static void values_read(struct spec *s, void *at, const struct node *n, const char *pointer,
                        struct spec_problems *p)
{
    struct generate_spec *g =
        (struct generate_spec *)(void *)((char *)at - offsetof(struct generate_spec, attributes_n));

    if (!map_of(n, SCHEMA_ATTRS_MAX, "attributes", pointer, p))
        return;
    g->attributes_n = 0;
    for (int i = 0; i < n->n; i++) {
        struct attr_value *v = &g->attributes[g->attributes_n];
        int a = attr_of(s, n->key[i], pointer, p);
        if (a < 0 || !level_read(&s->schema.attr[a], n->item[i], pointer, &v->level, p))
            continue;
        snprintf(v->attr, sizeof v->attr, "%s", n->key[i]->text);
        g->attributes_n++;
    }
}

static void level_write(const struct spec *s, const char *attr, int level, cJSON *to)
{
    int a = schema_find_attr(&s->schema, attr);
    cJSON *v = level < 0 ? cJSON_CreateString("missing")
                         : cJSON_CreateNumber(level + s->schema.attr[a].min);

    if (cJSON_IsArray(to))
        cJSON_AddItemToArray(to, v);
    else
        cJSON_AddItemToObject(to, attr, v);
}

static cJSON *values_write(const struct spec *s, const void *at)
{
    const struct generate_spec *g =
        (const struct generate_spec *)(const void *)((const char *)at -
                                                     offsetof(struct generate_spec, attributes_n));
    cJSON *out = cJSON_CreateObject();

    for (int i = 0; i < g->attributes_n; i++)
        level_write(s, g->attributes[i].attr, g->attributes[i].level, out);
    return out;
}

static void sweep_read(struct spec *s, void *at, const struct node *n, const char *pointer,
                       struct spec_problems *p)
{
    struct generate_spec *g =
        (struct generate_spec *)(void *)((char *)at - offsetof(struct generate_spec, sweep_n));

    if (!map_of(n, SCHEMA_ATTRS_MAX, "attributes", pointer, p))
        return;
    g->sweep_n = 0;
    for (int i = 0; i < n->n; i++) {
        struct attr_sweep *w = &g->sweep[g->sweep_n];
        int a = attr_of(s, n->key[i], pointer, p);
        if (a < 0)
            continue;
        if (n->item[i]->type != NODE_LIST || n->item[i]->n < 1 || n->item[i]->n > SPEC_LIST_MAX) {
            spec_problem_add(p, n->item[i], pointer, "wrong_type", "must be a list of levels");
            continue;
        }
        snprintf(w->attr, sizeof w->attr, "%s", n->key[i]->text);
        w->levels.n = 0;
        for (int k = 0; k < n->item[i]->n; k++)
            if (level_read(&s->schema.attr[a], n->item[i]->item[k], pointer,
                           &w->levels.v[w->levels.n], p))
                w->levels.n++;
        g->sweep_n++;
    }
}

static cJSON *sweep_write(const struct spec *s, const void *at)
{
    const struct generate_spec *g =
        (const struct generate_spec *)(const void *)((const char *)at -
                                                     offsetof(struct generate_spec, sweep_n));
    cJSON *out = cJSON_CreateObject();

    for (int i = 0; i < g->sweep_n; i++) {
        cJSON *a = cJSON_AddArrayToObject(out, g->sweep[i].attr);
        for (int k = 0; k < g->sweep[i].levels.n; k++)
            level_write(s, g->sweep[i].attr, g->sweep[i].levels.v[k], a);
    }
    return out;
}

/* where and keep share one reader: the count at `at` tells which of the two it is. */
static struct attr_where *where_list(struct spec *s, void *at, int **count)
{
    *count = at;
    return *count == &s->bootstrap.where_n ? s->bootstrap.where : s->bootstrap.keep;
}

static void where_read(struct spec *s, void *at, const struct node *n, const char *pointer,
                       struct spec_problems *p)
{
    int *count;
    struct attr_where *list = where_list(s, at, &count);

    if (!map_of(n, SCHEMA_ATTRS_MAX, "attributes", pointer, p))
        return;
    *count = 0;
    for (int i = 0; i < n->n; i++) {
        struct attr_where *w = &list[*count];
        struct node value = *n->item[i];
        int a = attr_of(s, n->key[i], pointer, p);
        if (a < 0)
            continue;
        w->op = CMP_EQ;
        if (value.type == NODE_SCALAR &&
            (strncmp(value.text, ">=", 2) == 0 || strncmp(value.text, "<=", 2) == 0)) {
            w->op = value.text[0] == '>' ? CMP_GE : CMP_LE;
            value.text += 2 + strspn(value.text + 2, " ");
            value.quoted = false;
        }
        if (!level_read(&s->schema.attr[a], &value, pointer, &w->level, p))
            continue;
        snprintf(w->attr, sizeof w->attr, "%s", n->key[i]->text);
        (*count)++;
    }
}

static cJSON *where_write(const struct spec *s, const void *at)
{
    static const char *const ops[] = {"", ">=", "<="};
    bool is_where = at == &s->bootstrap.where_n;
    const struct attr_where *list = is_where ? s->bootstrap.where : s->bootstrap.keep;
    cJSON *out = cJSON_CreateObject();

    for (int i = 0; i < (is_where ? s->bootstrap.where_n : s->bootstrap.keep_n); i++) {
        int value = list[i].level + s->schema.attr[schema_find_attr(&s->schema, list[i].attr)].min;
        char text[32];
        snprintf(text, sizeof text, "%s%d", ops[list[i].op], value);
        if (list[i].op == CMP_EQ)
            level_write(s, list[i].attr, list[i].level, out);
        else
            cJSON_AddStringToObject(out, list[i].attr, text);
    }
    return out;
}

/* ---- evaluate.models ------------------------------------------------------------------------- */

static void models_read(struct spec *s, void *at, const struct node *given, const char *pointer,
                        struct spec_problems *p)
{
    struct evaluate_spec *v = &s->evaluate;
    struct node *n = node_by_name(given);

    (void)at;
    v->models_n = 0;
    for (int i = 0; map_of(n, 16, "models", pointer, p) && i < n->n; i++) {
        struct evaluate_model *m = &v->model[v->models_n];
        const struct node *ref = n->item[i]->type == NODE_MAP && node_get(n->item[i], "ref") != NULL
                                     ? node_get(n->item[i], "ref")
                                     : n->item[i];
        if (!node_read_text(n->key[i], pointer, m->label, sizeof m->label, p) ||
            !node_read_text(ref, pointer, m->ref, sizeof m->ref, p))
            continue;
        if (!ref_is_good(m->ref))
            spec_problem_add(p, ref, pointer, "bad_reference",
                             "\"%.80s\" must be file:PATH, stage:NAME, sha256:HEX or job:ID",
                             m->ref);
        v->models_n++;
    }
    node_free(n);
}

static cJSON *models_write(const struct spec *s, const void *at)
{
    cJSON *out = cJSON_CreateArray();

    (void)at;
    for (int i = 0; i < s->evaluate.models_n; i++) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", s->evaluate.model[i].label);
        cJSON_AddStringToObject(o, "ref", s->evaluate.model[i].ref);
        cJSON_AddItemToArray(out, o);
    }
    return out;
}

/* ---- evaluate.figures ------------------------------------------------------------------------ */

static void figures_read(struct spec *s, void *at, const struct node *n, const char *pointer,
                         struct spec_problems *p)
{
    struct evaluate_spec *v = &s->evaluate;

    (void)at;
    if (!map_of(n, SPEC_LIST_MAX, "figures", pointer, p))
        return;
    v->figures_n = 0;
    for (int i = 0; i < n->n; i++) {
        struct gate *g = &v->figure[v->figures_n];
        struct node value = *n->item[i];
        bool at_least = value.type == NODE_SCALAR && strncmp(value.text, ">=", 2) == 0;
        double bound;
        memset(g, 0, sizeof *g);
        if (!at_least && !(value.type == NODE_SCALAR && strncmp(value.text, "<=", 2) == 0)) {
            spec_problem_add(p, n->item[i], pointer, "wrong_type",
                             "a bound is text such as \">=0.3\" or \"<=0.12\"");
            continue;
        }
        value.text += 2 + strspn(value.text + 2, " ");
        value.quoted = false;
        if (!node_read_text(n->key[i], pointer, g->metric, sizeof g->metric, p) ||
            !node_read_real(&value, pointer, -1e300, 1e300, &bound, p))
            continue;
        g->has_min = at_least;
        g->has_max = !at_least;
        g->min = g->max = bound;
        v->figures_n++;
    }
}

static cJSON *figures_write(const struct spec *s, const void *at)
{
    cJSON *out;

    (void)at;
    if (s->evaluate.figures_n == 0)
        return NULL;
    out = cJSON_CreateObject();
    for (int i = 0; i < s->evaluate.figures_n; i++) {
        const struct gate *g = &s->evaluate.figure[i];
        char text[48];
        snprintf(text, sizeof text, "%s%.12g", g->has_min ? ">=" : "<=", g->min);
        cJSON_AddStringToObject(out, g->metric, text);
    }
    return out;
}

/* ---- train.optimizer.betas ------------------------------------------------------------------- */

static void betas_read(struct spec *s, void *at, const struct node *n, const char *pointer,
                       struct spec_problems *p)
{
    struct adamw *a = at;
    double v[2];

    (void)s;
    if (n->type != NODE_LIST || n->n != 2) {
        spec_problem_add(p, n, pointer, "wrong_type",
                         "betas must be a list of two numbers, such as [0.9, 0.98]");
        return;
    }
    for (int i = 0; i < 2; i++)
        if (!node_read_real(n->item[i], pointer, 0, 0.99999, &v[i], p))
            return;
    a->beta1 = (float)v[0];
    a->beta2 = (float)v[1];
}

static cJSON *betas_write(const struct spec *s, const void *at)
{
    const struct adamw *a = at;
    double v[2] = {key_float_as_written(a->beta1), key_float_as_written(a->beta2)};

    (void)s;
    return cJSON_CreateDoubleArray(v, 2);
}

const struct key_custom custom_figures = {figures_read, figures_write};
const struct key_custom custom_data = {data_read, data_write};
const struct key_custom custom_inputs = {inputs_read, inputs_write};
const struct key_custom custom_base = {base_read, base_write};
const struct key_custom custom_values = {values_read, values_write};
const struct key_custom custom_sweep = {sweep_read, sweep_write};
const struct key_custom custom_where = {where_read, where_write};
const struct key_custom custom_models = {models_read, models_write};
const struct key_custom custom_betas = {betas_read, betas_write};
