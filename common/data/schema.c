#include "data/schema.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/measure.h"

static const char *const type_names[] = {"integer", "categorical", "computed"};
static const char *const label_types[] = {"classes", "a scale"};

int schema_find_attr(const struct schema *s, const char *name)
{
    for (int i = 0; i < s->attrs; i++)
        if (strcmp(s->attr[i].name, name) == 0)
            return i;
    return -1;
}

int schema_find_label(const struct schema *s, const char *name)
{
    for (int i = 0; i < s->labels; i++)
        if (strcmp(s->label[i].name, name) == 0)
            return i;
    return -1;
}

/* ---- levels ---------------------------------------------------------------------------------- */

static int level_clamped(const struct attr *a, double level)
{
    if (level < 0.0)
        return 0;
    if (level > (double)(a->levels - 1))
        return a->levels - 1;
    return (int)level;
}

int schema_level(const struct attr *a, double value)
{
    int level = 0;

    if (isnan(value))
        return -1;
    if (a->binned) {
        if (!a->has_edges)
            return -1; /* nobody has seen the training rows yet */
        while (level < a->levels - 1 && a->edge[level] <= value)
            level++;
        return level;
    }
    if (a->type == ATTR_CATEGORICAL) /* a probability */
        return level_clamped(a, rint(value * (double)(a->levels - 1)));
    return level_clamped(a, rint(value) - (double)a->min);
}

double schema_human_value(const struct schema *s, int attr, const float *human)
{
    const struct attr *a = &s->attr[attr];
    const struct label *label;
    double v;

    CHECK(attr >= 0 && attr < s->attrs);
    if (a->type == ATTR_COMPUTED || a->label < 0 || human == NULL)
        return (double)NAN;
    v = (double)human[a->label];
    if (isnan(v))
        return (double)NAN;
    label = &s->label[a->label];
    if (a->type == ATTR_CATEGORICAL)
        return (int)v == a->class_index ? 1.0 : 0.0;
    if (label->type == LABEL_CLASSES || !(label->max > label->min))
        return v;
    if (label->min == (double)a->min && label->max == (double)a->max)
        return v;
    return (double)a->min +
           (v - label->min) / (label->max - label->min) * (double)(a->max - a->min);
}

int schema_human_level(const struct schema *s, int attr, const float *human)
{
    const struct attr *a = &s->attr[attr];
    double v = schema_human_value(s, attr, human);

    if (isnan(v))
        return -1;
    if (a->type == ATTR_CATEGORICAL)
        return v > 0.0 ? a->levels - 1 : 0;
    if (a->binned && a->has_edges)
        return schema_level(a, v);
    if (a->binned) /* no edges yet: spread the scale over the levels */
        return a->max > a->min
                   ? level_clamped(a, rint((v - (double)a->min) / (double)(a->max - a->min) *
                                           (double)(a->levels - 1)))
                   : 0;
    return level_clamped(a, rint(v) - (double)a->min);
}

static int float_compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

void schema_set_edges(struct attr *a, float *values, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++)
        if (!isnan(values[i]))
            values[kept++] = values[i];
    a->has_edges = kept > 0;
    if (kept == 0)
        return;
    qsort(values, kept, sizeof *values, float_compare);
    for (int i = 0; i < a->levels - 1; i++)
        a->edge[i] = (double)values[(size_t)(i + 1) * kept / (size_t)a->levels];
}

int schema_same(const struct schema *a, const struct schema *b, struct err *e)
{
    if (a->attrs != b->attrs)
        return err_set(e, ERR_INVALID, "%d attributes against %d", a->attrs, b->attrs);
    for (int i = 0; i < a->attrs; i++) {
        const struct attr *x = &a->attr[i], *y = &b->attr[i];
        if (strcmp(x->name, y->name) != 0)
            return err_set(e, ERR_INVALID, "attribute %d is \"%s\" against \"%s\"", i, x->name,
                           y->name);
        if (x->type != y->type)
            return err_set(e, ERR_INVALID, "attribute \"%s\" is %s against %s", x->name,
                           type_names[x->type], type_names[y->type]);
        if (x->levels != y->levels)
            return err_set(e, ERR_INVALID, "attribute \"%s\" has %d levels against %d", x->name,
                           x->levels, y->levels);
        if (x->type != ATTR_CATEGORICAL && !x->binned && !y->binned && x->min != y->min)
            return err_set(e, ERR_INVALID, "attribute \"%s\" begins at %d against %d", x->name,
                           x->min, y->min);
    }
    return 0;
}

static const char *label_name(const struct schema *s, int label)
{
    return label >= 0 ? s->label[label].name : "";
}

/* Of the schema with more labels: the first one that the other lacks. */
static const char *label_only_in(const struct schema *more, const struct schema *fewer)
{
    int i = 0;

    while (i < more->labels - 1 && schema_find_label(fewer, more->label[i].name) >= 0)
        i++;
    return more->label[i].name;
}

/* What of one label gives human[] its meaning. */
static int label_same(const struct label *a, const struct label *b, struct err *e)
{
    if (strcmp(a->name, b->name) != 0)
        return err_set(e, ERR_INVALID, "is \"%s\" against \"%s\"", a->name, b->name);
    if (a->type != b->type)
        return err_set(e, ERR_INVALID, "\"%s\" has %s against %s", a->name, label_types[a->type],
                       label_types[b->type]);
    if (a->type == LABEL_SCALE && (a->min != b->min || a->max != b->max))
        return err_set(e, ERR_INVALID, "\"%s\" has a scale %g..%g against %g..%g", a->name, a->min,
                       a->max, b->min, b->max);
    if (a->type == LABEL_SCALE)
        return 0;
    if (a->classes != b->classes)
        return err_set(e, ERR_INVALID, "\"%s\" has %d classes against %d", a->name, a->classes,
                       b->classes);
    for (int i = 0; i < a->classes; i++)
        if (strcmp(a->class_name[i], b->class_name[i]) != 0)
            return err_set(e, ERR_INVALID, "\"%s\" has class %d \"%s\" against \"%s\"", a->name, i,
                           a->class_name[i], b->class_name[i]);
    if (a->other != b->other)
        return err_set(e, ERR_INVALID, "\"%s\" takes other values as class %d against %d", a->name,
                       a->other, b->other);
    return 0;
}

int schema_same_labels(const struct schema *a, const struct schema *b, struct err *e)
{
    if (a->labels != b->labels)
        return err_set(e, ERR_INVALID, "%d labels against %d: \"%s\" is in one only", a->labels,
                       b->labels,
                       a->labels > b->labels ? label_only_in(a, b) : label_only_in(b, a));
    for (int i = 0; i < a->labels; i++)
        if (label_same(&a->label[i], &b->label[i], e) != 0)
            return err_wrap(e, "label %d", i);
    for (int i = 0; i < a->attrs && i < b->attrs; i++) {
        const struct attr *x = &a->attr[i], *y = &b->attr[i];
        if (x->label != y->label)
            return err_set(e, ERR_INVALID,
                           "attribute \"%s\" comes from label \"%s\" against \"%s\"", x->name,
                           label_name(a, x->label), label_name(b, y->label));
        if (x->type == ATTR_CATEGORICAL && x->class_index != y->class_index)
            return err_set(e, ERR_INVALID,
                           "attribute \"%s\" is class %d of label \"%s\" against class %d", x->name,
                           x->class_index, label_name(a, x->label), y->class_index);
    }
    return 0;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static cJSON *label_to_json(const struct label *l)
{
    cJSON *j = cJSON_CreateObject();

    cJSON_AddStringToObject(j, "name", l->name);
    cJSON_AddStringToObject(j, "type", l->type == LABEL_CLASSES ? "classes" : "scale");
    if (l->type == LABEL_CLASSES) {
        cJSON *classes = cJSON_AddArrayToObject(j, "classes");
        for (int i = 0; i < l->classes; i++)
            cJSON_AddItemToArray(classes, cJSON_CreateString(l->class_name[i]));
        cJSON_AddNumberToObject(j, "other", l->other);
        cJSON_AddBoolToObject(j, "exact", l->exact);
    } else {
        cJSON_AddNumberToObject(j, "min", l->min);
        cJSON_AddNumberToObject(j, "max", l->max);
    }
    return j;
}

static cJSON *attr_to_json(const struct schema *s, const struct attr *a)
{
    cJSON *j = cJSON_CreateObject();

    cJSON_AddStringToObject(j, "name", a->name);
    cJSON_AddStringToObject(j, "description", a->description);
    cJSON_AddStringToObject(j, "type", type_names[a->type]);
    if (a->type == ATTR_COMPUTED)
        cJSON_AddStringToObject(j, "measure", measure_name((enum measure)a->measure));
    else
        cJSON_AddStringToObject(j, "label", s->label[a->label].name);
    if (a->type == ATTR_CATEGORICAL)
        cJSON_AddNumberToObject(j, "class", a->class_index);
    cJSON_AddNumberToObject(j, "min", a->min);
    cJSON_AddNumberToObject(j, "max", a->max);
    cJSON_AddNumberToObject(j, "levels", a->levels);
    cJSON_AddBoolToObject(j, "binned", a->binned);
    cJSON_AddNumberToObject(j, "default", a->default_level);
    if (a->has_edges) {
        cJSON *edges = cJSON_AddArrayToObject(j, "edges");
        for (int i = 0; i < a->levels - 1; i++)
            cJSON_AddItemToArray(edges, cJSON_CreateNumber(a->edge[i]));
    }
    return j;
}

cJSON *schema_to_json(const struct schema *s)
{
    cJSON *j = cJSON_CreateObject();
    cJSON *labels = cJSON_AddArrayToObject(j, "labels");
    cJSON *attrs = cJSON_AddArrayToObject(j, "attributes");

    for (int i = 0; i < s->labels; i++)
        cJSON_AddItemToArray(labels, label_to_json(&s->label[i]));
    for (int i = 0; i < s->attrs; i++)
        cJSON_AddItemToArray(attrs, attr_to_json(s, &s->attr[i]));
    return j;
}

static int name_read(const cJSON *j, const char *key, char *out, size_t cap, struct err *e)
{
    const char *text;
    int rc = json_need_string(j, key, &text, e);

    if (rc != 0)
        return rc;
    if (text[0] == '\0' || strlen(text) >= cap)
        return err_set(e, ERR_LIMIT, "%s has %zu bytes, must be 1..%zu", key, strlen(text),
                       cap - 1);
    snprintf(out, cap, "%s", text);
    return 0;
}

static int classes_read(const cJSON *j, struct label *l, struct err *e)
{
    const cJSON *classes = json_get(j, "classes"), *item;
    int64_t other;
    int rc;

    if (!cJSON_IsArray(classes))
        return err_set(e, ERR_INVALID, "label \"%s\": classes must be a list", l->name);
    cJSON_ArrayForEach(item, classes)
    {
        if (l->classes == SCHEMA_CLASSES_MAX)
            return err_set(e, ERR_LIMIT, "label \"%s\" has more than %d classes", l->name,
                           SCHEMA_CLASSES_MAX);
        if (!cJSON_IsString(item) || strlen(item->valuestring) >= SCHEMA_NAME_MAX)
            return err_set(e, ERR_INVALID, "label \"%s\": a class must be text of at most %d bytes",
                           l->name, SCHEMA_NAME_MAX - 1);
        snprintf(l->class_name[l->classes++], SCHEMA_NAME_MAX, "%s", item->valuestring);
    }
    if (l->classes == 0)
        return err_set(e, ERR_INVALID, "label \"%s\" has no class", l->name);
    rc = json_need_int(j, "other", -1, l->classes - 1, &other, e);
    l->other = (int)other;
    l->exact = json_bool_or(j, "exact", false);
    return rc;
}

static int label_read(const cJSON *j, struct label *l, struct err *e)
{
    const char *type;
    int rc = name_read(j, "name", l->name, sizeof l->name, e);

    if (rc == 0)
        rc = json_need_string(j, "type", &type, e);
    if (rc != 0)
        return rc;
    if (strcmp(type, "classes") == 0) {
        l->type = LABEL_CLASSES;
        return classes_read(j, l, e);
    }
    if (strcmp(type, "scale") != 0)
        return err_set(e, ERR_INVALID, "label \"%s\": type \"%s\" is neither classes nor scale",
                       l->name, type);
    l->type = LABEL_SCALE;
    l->other = -1;
    rc = json_need_number(j, "min", &l->min, e);
    if (rc == 0)
        rc = json_need_number(j, "max", &l->max, e);
    if (rc == 0 && !(l->min < l->max))
        rc = err_set(e, ERR_INVALID, "label \"%s\": min %g must be below max %g", l->name, l->min,
                     l->max);
    return rc;
}

static int edges_read(const cJSON *j, struct attr *a, struct err *e)
{
    const cJSON *edges = json_get(j, "edges"), *item;
    int n = 0;

    if (edges == NULL)
        return 0;
    if (!cJSON_IsArray(edges) || cJSON_GetArraySize(edges) != a->levels - 1)
        return err_set(e, ERR_INVALID, "attribute \"%s\": edges must be a list of %d numbers",
                       a->name, a->levels - 1);
    cJSON_ArrayForEach(item, edges)
    {
        if (!cJSON_IsNumber(item) || (n > 0 && item->valuedouble < a->edge[n - 1]))
            return err_set(e, ERR_INVALID, "attribute \"%s\": edge %d is no number or falls",
                           a->name, n);
        a->edge[n++] = item->valuedouble;
    }
    a->has_edges = true;
    return 0;
}

static int attr_source_read(const struct schema *s, const cJSON *j, struct attr *a, struct err *e)
{
    const char *text;
    int64_t n;
    int rc;

    a->label = -1;
    if (a->type == ATTR_COMPUTED) {
        rc = json_need_string(j, "measure", &text, e);
        if (rc != 0)
            return rc;
        a->measure = measure_find(text);
        return a->measure >= 0
                   ? 0
                   : err_set(e, ERR_INVALID, "attribute \"%s\": no measure is called \"%s\"",
                             a->name, text);
    }
    rc = json_need_string(j, "label", &text, e);
    if (rc != 0)
        return rc;
    a->label = schema_find_label(s, text);
    if (a->label < 0)
        return err_set(e, ERR_INVALID, "attribute \"%s\": no label is called \"%s\"", a->name,
                       text);
    if (a->type == ATTR_CATEGORICAL) {
        if (s->label[a->label].type != LABEL_CLASSES)
            return err_set(e, ERR_INVALID, "attribute \"%s\": label \"%s\" has no classes", a->name,
                           text);
        rc = json_need_int(j, "class", 0, s->label[a->label].classes - 1, &n, e);
        a->class_index = (int)n;
    }
    return rc;
}

static int attr_read(const struct schema *s, const cJSON *j, struct attr *a, struct err *e)
{
    const char *type;
    int64_t n;
    int rc = name_read(j, "name", a->name, sizeof a->name, e);

    if (rc == 0)
        rc = json_need_string(j, "type", &type, e);
    if (rc != 0)
        return rc;
    for (n = 0; n < 3; n++)
        if (strcmp(type, type_names[n]) == 0)
            break;
    if (n == 3)
        return err_set(e, ERR_INVALID, "attribute \"%s\": type \"%s\" is unknown", a->name, type);
    a->type = (enum attr_type)n;
    snprintf(a->description, sizeof a->description, "%s", json_string_or(j, "description", ""));
    rc = attr_source_read(s, j, a, e);
    if (rc == 0)
        rc = json_need_int(j, "levels", 1, SCHEMA_LEVELS_MAX, &n, e);
    if (rc != 0)
        return rc;
    a->levels = (int)n;
    rc = json_need_int(j, "min", -1000000, 1000000, &n, e);
    if (rc != 0)
        return rc;
    a->min = (int)n;
    rc = json_need_int(j, "max", -1000000, 1000000, &n, e);
    if (rc != 0)
        return rc;
    a->max = (int)n;
    a->binned = json_bool_or(j, "binned", false);
    rc = json_need_int(j, "default", -1, a->levels - 1, &n, e);
    if (rc != 0)
        return rc;
    a->default_level = (int)n;
    return edges_read(j, a, e);
}

int schema_from_json(const cJSON *j, struct schema *out, struct err *e)
{
    const cJSON *labels = json_get(j, "labels"), *attrs = json_get(j, "attributes"), *item;
    int rc = 0;

    memset(out, 0, sizeof *out);
    if (!cJSON_IsArray(labels) || !cJSON_IsArray(attrs))
        return err_set(e, ERR_INVALID, "schema: labels and attributes must be lists");
    cJSON_ArrayForEach(item, labels)
    {
        if (out->labels == SCHEMA_LABELS_MAX)
            return err_set(e, ERR_LIMIT, "schema: more than %d labels", SCHEMA_LABELS_MAX);
        rc = label_read(item, &out->label[out->labels], e);
        if (rc != 0)
            return err_wrap(e, "schema label %d", out->labels);
        out->labels++;
    }
    cJSON_ArrayForEach(item, attrs)
    {
        if (out->attrs == SCHEMA_ATTRS_MAX)
            return err_set(e, ERR_LIMIT, "schema: more than %d attributes", SCHEMA_ATTRS_MAX);
        rc = attr_read(out, item, &out->attr[out->attrs], e);
        if (rc != 0)
            return err_wrap(e, "schema attribute %d", out->attrs);
        out->attrs++;
    }
    return 0;
}
