#include "data/template.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const template_names[] = {"plain", "control", "nemo", "paper"};
static const char *const head_names[] = {"policy", "lm", "classes", "regression"};
enum {
    TOKENS_MAX =
        SCHEMA_ATTRS_MAX * (SCHEMA_LEVELS_MAX + 1) + SCHEMA_LABELS_MAX * (SCHEMA_CLASSES_MAX + 1)
};

/* ---- new tokens ------------------------------------------------------------------------------ */

struct names {
    char *v[TOKENS_MAX];
    size_t n;
};

static void names_free(struct names *x)
{
    for (size_t i = 0; i < x->n; i++)
        free(x->v[i]);
}

/* Adds the names as consecutive ids, or finds them: a model that was taught the same attributes before has them already. */
static int names_place(struct names *x, struct tokenizer *t, int32_t *first, struct err *e)
{
    size_t present = 0;

    if (x->n == 0) {
        *first = tokenizer_vocab(t);
        return 0;
    }
    *first = tokenizer_id(t, x->v[0]);
    for (size_t i = 0; i < x->n; i++) {
        int32_t id = tokenizer_id(t, x->v[i]);
        present += id >= 0;
        if (*first >= 0 && id != *first + (int32_t)i)
            return err_set(
                e, ERR_CONFLICT,
                "token %s is in the vocabulary without the tokens that belong to it: other "
                "attributes or levels were taught before",
                x->v[0]);
    }
    if (present == x->n)
        return 0;
    return tokenizer_add(t, (const char *const *)x->v, x->n, first, e);
}

static int control_place(struct template_config *c, struct tokenizer *t, struct err *e)
{
    struct names x = {.n = 0};
    int rc;

    for (int a = 0; a < c->schema.attrs; a++) {
        for (int level = 0; level < c->schema.attr[a].levels; level++)
            x.v[x.n++] = mem_printf("<|%s:%d|>", c->schema.attr[a].name, level);
        x.v[x.n++] = mem_printf("<|%s:none|>", c->schema.attr[a].name);
    }
    rc = names_place(&x, t, &c->control_first, e);
    names_free(&x);
    return rc;
}

int template_label_classes(const struct label *l)
{
    return l->type == LABEL_CLASSES ? l->classes : (int)(rint(l->max) - rint(l->min)) + 1;
}

static int classes_place(struct template_config *c, struct tokenizer *t, struct err *e)
{
    struct names x = {.n = 0};
    int32_t next;
    int rc;

    for (int i = 0; i < c->schema.labels; i++) {
        const struct label *l = &c->schema.label[i];
        if (l->type == LABEL_SCALE && !(l->max - l->min < (double)SCHEMA_CLASSES_MAX))
            return err_set(
                e, ERR_UNSUPPORTED,
                "head classes: label \"%s\" has a scale %g..%g, at most %d whole numbers fit",
                l->name, l->min, l->max, SCHEMA_CLASSES_MAX);
        x.v[x.n++] = mem_printf("<|%s?|>", l->name);
    }
    for (int i = 0; i < c->schema.labels; i++)
        for (int k = 0; k < template_label_classes(&c->schema.label[i]); k++)
            x.v[x.n++] = mem_printf("<|%s=%d|>", c->schema.label[i].name, k);
    rc = names_place(&x, t, &c->query_first, e);
    next = c->query_first + c->schema.labels;
    for (int i = 0; i < c->schema.labels; i++) {
        c->class_first[i] = next;
        next += template_label_classes(&c->schema.label[i]);
    }
    names_free(&x);
    return rc;
}

static int nemo_place(struct tokenizer *t, struct err *e)
{
    static const char *const marks[] = {"<extra_id_0>", "<extra_id_1>", "<extra_id_2>"};

    for (size_t i = 0; i < 3; i++) {
        int32_t first;
        int rc = tokenizer_id(t, marks[i]) >= 0 ? 0 : tokenizer_add(t, &marks[i], 1, &first, e);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int template_prepare(struct template_config *c, struct tokenizer *t, struct err *e)
{
    bool nemo = c->name == TEMPLATE_NEMO || c->name == TEMPLATE_PAPER;
    int rc = 0;

    c->control_first = c->query_first = -1;
    for (int i = 0; i < SCHEMA_LABELS_MAX; i++)
        c->class_first[i] = -1;
    if (c->head == TEMPLATE_HEAD_CLASSES) {
        if (c->schema.labels == 0)
            return err_set(e, ERR_INVALID, "head classes: no attribute comes from a label");
        return classes_place(c, t, e);
    }
    if (tokenizer_eos(t) < 0)
        return err_set(e, ERR_INVALID, "the tokenizer has no end token");
    if (nemo)
        rc = nemo_place(t, e);
    else if (c->name == TEMPLATE_CONTROL && c->head == TEMPLATE_POLICY)
        rc = control_place(c, t, e);
    return rc;
}

int32_t template_control_id(const struct template_config *c, int attr, int level)
{
    int32_t id = c->control_first;

    CHECK(c->control_first >= 0 && attr >= 0 && attr < c->schema.attrs);
    CHECK(level >= -1 && level < c->schema.attr[attr].levels);
    for (int a = 0; a < attr; a++)
        id += c->schema.attr[a].levels + 1;
    return id + (level < 0 ? c->schema.attr[attr].levels : level);
}

static int id_compare(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

    return (x > y) - (x < y);
}

static size_t ids_sorted(int32_t *ids, size_t n)
{
    size_t kept = 0;

    qsort(ids, n, sizeof *ids, id_compare);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || ids[kept - 1] != ids[i])
            ids[kept++] = ids[i];
    return kept;
}

struct id_list {
    int32_t *v;
    size_t n, cap;
    int32_t vocab;
};

/* Ids that the tokenizer does not have are left out: a configuration may come from anywhere. */
static void range_put(struct id_list *x, int32_t first, int32_t count)
{
    for (int32_t i = 0; first >= 0 && i < count && first + i < x->vocab; i++) {
        CHECK(x->n < x->cap);
        x->v[x->n++] = first + i;
    }
}

size_t template_banned(const struct template_config *c, const struct tokenizer *t, int32_t *ids,
                       size_t cap)
{
    struct id_list x = {ids, 0, cap, tokenizer_vocab(t)};
    int32_t count = 0;

    if (tokenizer_bos(t) != tokenizer_eos(t))
        range_put(&x, tokenizer_bos(t), 1);
    for (int a = 0; a < c->schema.attrs; a++)
        count += c->schema.attr[a].levels + 1;
    range_put(&x, c->control_first, count);
    range_put(&x, c->query_first, c->schema.labels);
    for (int i = 0; i < c->schema.labels; i++)
        range_put(&x, c->class_first[i], template_label_classes(&c->schema.label[i]));
    if (c->name == TEMPLATE_NEMO || c->name == TEMPLATE_PAPER) {
        range_put(&x, tokenizer_id(t, "<extra_id_0>"), 1);
        range_put(&x, tokenizer_id(t, "<extra_id_2>"), 1);
    }
    return ids_sorted(ids, x.n);
}

size_t template_stops(const struct template_config *c, const struct tokenizer *t, int32_t *ids,
                      size_t cap)
{
    struct id_list x = {ids, 0, cap, tokenizer_vocab(t)};

    range_put(&x, tokenizer_eos(t), 1);
    if (c->name == TEMPLATE_NEMO || c->name == TEMPLATE_PAPER)
        range_put(&x, tokenizer_id(t, "<extra_id_1>"), 1);
    return ids_sorted(ids, x.n);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

cJSON *template_to_json(const struct template_config *t)
{
    cJSON *j = cJSON_CreateObject();
    cJSON *classes = cJSON_AddArrayToObject(j, "class_first");

    cJSON_AddStringToObject(j, "template", template_names[t->name]);
    cJSON_AddStringToObject(j, "head", head_names[t->head]);
    cJSON_AddItemToObject(j, "schema", schema_to_json(&t->schema));
    cJSON_AddNumberToObject(j, "context_tokens", t->context_tokens);
    cJSON_AddNumberToObject(j, "max_reply_tokens", t->max_reply_tokens);
    cJSON_AddNumberToObject(j, "max_length", t->max_length);
    cJSON_AddBoolToObject(j, "loss_on_all", t->loss_on_all);
    cJSON_AddNumberToObject(j, "control_first", t->control_first);
    cJSON_AddNumberToObject(j, "query_first", t->query_first);
    for (int i = 0; i < t->schema.labels; i++)
        cJSON_AddItemToArray(classes, cJSON_CreateNumber(t->class_first[i]));
    return j;
}

static int name_find(const cJSON *j, const char *key, const char *const *names, int n, int *out,
                     struct err *e)
{
    const char *text;
    int rc = json_need_string(j, key, &text, e);

    if (rc != 0)
        return rc;
    for (*out = 0; *out < n; (*out)++)
        if (strcmp(names[*out], text) == 0)
            return 0;
    return err_set(e, ERR_INVALID, "%s \"%s\" is unknown", key, text);
}

static int int_read(const cJSON *j, const char *key, int64_t min, int32_t *out, struct err *e)
{
    int64_t v;
    int rc = json_need_int(j, key, min, 1 << 24, &v, e);

    if (rc == 0)
        *out = (int32_t)v;
    return rc;
}

int template_from_json(const cJSON *j, struct template_config *out, struct err *e)
{
    const cJSON *classes = json_get(j, "class_first"), *item;
    int name = 0, head = 0, i = 0, rc;

    memset(out, 0, sizeof *out);
    rc = name_find(j, "template", template_names, 4, &name, e);
    if (rc == 0)
        rc = name_find(j, "head", head_names, 4, &head, e);
    if (rc == 0)
        rc = schema_from_json(json_get(j, "schema"), &out->schema, e);
    if (rc == 0)
        rc = int_read(j, "context_tokens", 0, &out->context_tokens, e);
    if (rc == 0)
        rc = int_read(j, "max_reply_tokens", 0, &out->max_reply_tokens, e);
    if (rc == 0)
        rc = int_read(j, "max_length", 0, &out->max_length, e);
    if (rc == 0)
        rc = int_read(j, "control_first", -1, &out->control_first, e);
    if (rc == 0)
        rc = int_read(j, "query_first", -1, &out->query_first, e);
    if (rc != 0)
        return rc;
    out->name = (enum template_name)name;
    out->head = (enum template_head)head;
    out->loss_on_all = json_bool_or(j, "loss_on_all", false);
    if (!cJSON_IsArray(classes) || cJSON_GetArraySize(classes) != out->schema.labels)
        return err_set(e, ERR_INVALID, "class_first must be a list of %d ids", out->schema.labels);
    for (int k = 0; k < SCHEMA_LABELS_MAX; k++)
        out->class_first[k] = -1;
    cJSON_ArrayForEach(item, classes)
    {
        if (!cJSON_IsNumber(item) || !(item->valuedouble >= -1.0 && item->valuedouble < 16777216.0))
            return err_set(e, ERR_INVALID, "class_first[%d] must be an id", i);
        out->class_first[i++] = (int32_t)item->valuedouble;
    }
    return 0;
}
