/* The labels and attributes blocks: struct schema in and out of the spec's own notation. */
#include <stdlib.h>
#include <string.h>

#include "data/measure.h"
#include "jobs/spec_keys.h"

static const char *const label_keys[] = {"classes", "other", "exact", "min", "max"};
static const char *const attr_keys[] = {"type", "from",    "class", "exact",   "min",
                                        "max",  "measure", "bin",   "default", "description"};

#define COUNT(a) (sizeof(a) / sizeof *(a))

static bool keys_known(const struct node *map, const char *pointer, const char *const *names,
                       size_t n, struct spec_problems *p)
{
    bool ok = true;

    if (map->type != NODE_MAP) {
        spec_problem_add(p, map, pointer, "wrong_type", "must be a map of keys");
        return false;
    }
    for (int i = 0; i < map->n; i++) {
        bool found = false;
        for (size_t k = 0; k < n; k++)
            found = found || strcmp(map->key[i]->text, names[k]) == 0;
        if (!found) {
            key_unknown(map->key[i], pointer, names, n, p);
            ok = false;
        }
    }
    return ok;
}

static bool name_is_good(const char *name)
{
    size_t n = strlen(name);

    return n > 0 && n < SCHEMA_NAME_MAX && name[0] >= 'a' && name[0] <= 'z' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == n;
}

/* Index of a class by name, added if it is new (in front of a trailing catch-all that was made by itself); -1 if full. */
static int label_class(struct label *l, const char *name, bool add)
{
    int at = l->classes;

    for (int i = 0; i < l->classes; i++)
        if (strcmp(l->class_name[i], name) == 0)
            return i;
    if (!add || l->classes == SCHEMA_CLASSES_MAX)
        return -1;
    if (l->other >= 0 && l->other == l->classes - 1) {
        at = l->other;
        memcpy(l->class_name[l->classes], l->class_name[at], SCHEMA_NAME_MAX);
        l->other++;
    }
    snprintf(l->class_name[at], SCHEMA_NAME_MAX, "%s", name);
    l->classes++;
    return at;
}

static void label_classes_read(struct label *l, const struct node *n, const char *pointer,
                               struct spec_problems *p)
{
    const struct node *classes = node_get(n, "classes"), *other = node_get(n, "other");
    char text[SCHEMA_NAME_MAX];

    l->type = LABEL_CLASSES;
    l->other = -1;
    if (classes->type != NODE_LIST || classes->n < 2 || classes->n > SCHEMA_CLASSES_MAX) {
        spec_problem_add(p, classes, pointer, "out_of_range",
                         "classes must be a list of 2..%d names", SCHEMA_CLASSES_MAX);
        return;
    }
    for (int i = 0; i < classes->n; i++) {
        if (!node_read_text(classes->item[i], pointer, text, sizeof text, p))
            continue;
        if (label_class(l, text, false) >= 0)
            spec_problem_add(p, classes->item[i], pointer, "duplicate", "class \"%s\" stands twice",
                             text);
        else
            label_class(l, text, true);
    }
    if (other != NULL && node_read_text(other, pointer, text, sizeof text, p) &&
        strcmp(text, "skip") != 0) {
        l->other = label_class(l, text, true);
        if (l->other < 0)
            spec_problem_add(p, other, pointer, "out_of_range", "more than %d classes",
                             SCHEMA_CLASSES_MAX);
    }
}

static void label_read(struct label *l, const struct node *n, const char *pointer,
                       struct spec_problems *p)
{
    const struct node *exact = node_get(n, "exact"), *min = node_get(n, "min"),
                      *max = node_get(n, "max");

    if (!keys_known(n, pointer, label_keys, COUNT(label_keys), p))
        return;
    if (exact != NULL)
        node_read_bool(exact, pointer, &l->exact, p);
    if (node_get(n, "classes") != NULL) {
        label_classes_read(l, n, pointer, p);
        return;
    }
    l->type = LABEL_SCALE;
    l->other = -1;
    if (min == NULL || max == NULL)
        spec_problem_add(p, n, pointer, "missing", "a label has classes, or min and max");
    else if (node_read_real(min, pointer, -1e6, 1e6, &l->min, p) &&
             node_read_real(max, pointer, -1e6, 1e6, &l->max, p) && l->min >= l->max)
        spec_problem_add(p, max, pointer, "out_of_range", "max %g must be above min %g", l->max,
                         l->min);
}

static void labels_read(struct spec *s, void *at, const struct node *given, const char *pointer,
                        struct spec_problems *p)
{
    struct schema *schema = at;
    struct node *n = node_by_name(given);
    char where[160];

    (void)s;
    schema->labels = 0;
    if (n->type != NODE_MAP || n->n > SCHEMA_LABELS_MAX) {
        spec_problem_add(p, n, pointer, "wrong_type", "must be a map of at most %d labels",
                         SCHEMA_LABELS_MAX);
        node_free(n);
        return;
    }
    for (int i = 0; i < n->n; i++) {
        struct label *l = &schema->label[schema->labels];
        memset(l, 0, sizeof *l);
        snprintf(where, sizeof where, "%s/%s", pointer, n->key[i]->text);
        if (!node_read_text(n->key[i], where, l->name, sizeof l->name, p))
            continue;
        label_read(l, n->item[i], where, p);
        schema->labels++;
    }
    node_free(n);
}

/* An object of a list: JSON objects have no order, and the order of attributes is what a model was taught. */
static cJSON *named_add(cJSON *list, const char *name)
{
    cJSON *o = cJSON_CreateObject();

    cJSON_AddItemToArray(list, o);
    cJSON_AddStringToObject(o, "name", name);
    return o;
}

static cJSON *labels_write(const struct spec *s, const void *at)
{
    const struct schema *schema = at;
    cJSON *out = cJSON_CreateArray();

    (void)s;
    for (int i = 0; i < schema->labels; i++) {
        const struct label *l = &schema->label[i];
        cJSON *o = named_add(out, l->name);
        if (l->type == LABEL_SCALE) {
            cJSON_AddNumberToObject(o, "min", l->min);
            cJSON_AddNumberToObject(o, "max", l->max);
            continue;
        }
        cJSON *a = cJSON_AddArrayToObject(o, "classes");
        for (int c = 0; c < l->classes; c++)
            cJSON_AddItemToArray(a, cJSON_CreateString(l->class_name[c]));
        cJSON_AddStringToObject(o, "other", l->other < 0 ? "skip" : l->class_name[l->other]);
        cJSON_AddBoolToObject(o, "exact", l->exact);
    }
    return out;
}

/* The label that an attribute comes from, made if the labels block does not have it. */
static struct label *attr_label(struct schema *schema, struct attr *a, const char *from, bool exact)
{
    struct label *l;

    a->label = schema_find_label(schema, from);
    if (a->label >= 0)
        return &schema->label[a->label];
    if (schema->labels == SCHEMA_LABELS_MAX)
        return NULL;
    a->label = schema->labels++;
    l = &schema->label[a->label];
    memset(l, 0, sizeof *l);
    snprintf(l->name, sizeof l->name, "%s", from);
    l->other = -1;
    l->exact = exact;
    if (a->type == ATTR_INTEGER) {
        l->type = LABEL_SCALE;
        l->min = a->min;
        l->max = a->max;
    } else {
        l->type = LABEL_CLASSES;
        snprintf(l->class_name[0], SCHEMA_NAME_MAX, "other");
        l->classes = 1;
        l->other = 0;
    }
    return l;
}

static void attr_integer_read(struct schema *schema, struct attr *a, const struct node *n,
                              const char *pointer, struct spec_problems *p)
{
    const struct node *min = node_get(n, "min"), *max = node_get(n, "max"),
                      *from = node_get(n, "from");
    int64_t lo = 0, hi = 4;
    char name[SCHEMA_NAME_MAX];

    if (min != NULL && !node_read_int(min, pointer, -100, 100, &lo, p))
        return;
    if (max != NULL && !node_read_int(max, pointer, -100, 100, &hi, p))
        return;
    if (hi <= lo || hi - lo >= SCHEMA_LEVELS_MAX) {
        spec_problem_add(p, n, pointer, "out_of_range",
                         "min %lld, max %lld: 2..%d levels are possible", (long long)lo,
                         (long long)hi, SCHEMA_LEVELS_MAX);
        return;
    }
    a->min = (int)lo;
    a->max = (int)hi;
    a->levels = a->max - a->min + 1;
    snprintf(name, sizeof name, "%s", a->name);
    if (from != NULL && !node_read_text(from, pointer, name, sizeof name, p))
        return;
    if (attr_label(schema, a, name, false) == NULL)
        spec_problem_add(p, n, pointer, "out_of_range", "more than %d labels", SCHEMA_LABELS_MAX);
    else if (schema->label[a->label].type != LABEL_SCALE)
        spec_problem_add(p, n, pointer, "wrong_type",
                         "label \"%s\" has classes; an integer attribute needs a scale", name);
}

/* A class came in at `at`, the last before the catch-all: attributes of the catch-all move with it. */
static void classes_moved(struct schema *schema, int label, int at)
{
    for (int i = 0; i < schema->attrs; i++)
        if (schema->attr[i].type == ATTR_CATEGORICAL && schema->attr[i].label == label &&
            schema->attr[i].class_index >= at)
            schema->attr[i].class_index++;
}

static void attr_categorical_read(struct schema *schema, struct attr *a, const struct node *n,
                                  const char *pointer, struct spec_problems *p)
{
    const struct node *from = node_get(n, "from"), *class = node_get(n, "class"),
                      *exact = node_get(n, "exact");
    char name[SCHEMA_NAME_MAX], class_name[SCHEMA_NAME_MAX];
    bool exactly = false;
    bool declared;
    struct label *l;
    int other;

    if (from == NULL || class == NULL) {
        spec_problem_add(p, n, pointer, "missing",
                         "a categorical attribute needs from (the label) and class");
        return;
    }
    if (!node_read_text(from, pointer, name, sizeof name, p) ||
        !node_read_text(class, pointer, class_name, sizeof class_name, p))
        return;
    if (exact != NULL && !node_read_bool(exact, pointer, &exactly, p))
        return;
    declared = schema_find_label(schema, name) >= 0 &&
               schema->label[schema_find_label(schema, name)].other < 0;
    l = attr_label(schema, a, name, exactly);
    if (l == NULL) {
        spec_problem_add(p, n, pointer, "out_of_range", "more than %d labels", SCHEMA_LABELS_MAX);
        return;
    }
    if (l->type != LABEL_CLASSES) {
        spec_problem_add(p, from, pointer, "wrong_type",
                         "label \"%s\" is a scale; a categorical attribute needs classes", name);
        return;
    }
    l->exact = l->exact || exactly;
    other = l->other;
    a->class_index = label_class(l, class_name, !declared);
    if (l->other != other)
        classes_moved(schema, a->label, a->class_index);
    if (a->class_index < 0)
        spec_problem_add(p, class, pointer, "bad_reference", "label \"%s\" has no class \"%s\"",
                         name, class_name);
}

static void attr_bins_read(struct attr *a, const struct node *bin, const char *pointer,
                           struct spec_problems *p)
{
    static const char *const names[] = {"quantiles"};
    const struct node *quantiles;
    int64_t v = 5;

    a->binned = true;
    a->levels = 5;
    if (bin == NULL)
        return;
    if (!keys_known(bin, pointer, names, 1, p))
        return;
    quantiles = node_get(bin, "quantiles");
    if (quantiles != NULL && node_read_int(quantiles, pointer, 2, SCHEMA_LEVELS_MAX, &v, p))
        a->levels = (int)v;
}

static void attr_computed_read(struct attr *a, const struct node *n, const char *pointer,
                               struct spec_problems *p)
{
    const struct node *measure = node_get(n, "measure");
    char name[SCHEMA_NAME_MAX];

    a->label = -1;
    if (measure == NULL) {
        spec_problem_add(p, n, pointer, "missing", "a computed attribute needs measure");
        return;
    }
    if (!node_read_text(measure, pointer, name, sizeof name, p))
        return;
    a->measure = measure_find(name);
    if (a->measure < 0) {
        struct buf all = BUF_INIT;
        for (int i = 0; i < MEASURE_COUNT; i++)
            buf_printf(&all, "%s%s", i > 0 ? ", " : "", measure_name((enum measure)i));
        spec_problem_add(p, measure, pointer, "bad_choice", "\"%s\" is no measure; there are %s",
                         name, all.data);
        buf_free(&all);
    }
}

static void attr_read(struct schema *schema, struct attr *a, const struct node *n,
                      const char *pointer, struct spec_problems *p)
{
    const struct node *type = node_get(n, "type"), *text = node_get(n, "description"),
                      *level = node_get(n, "default");
    char name[24] = "integer";
    int64_t v;

    if (!keys_known(n, pointer, attr_keys, COUNT(attr_keys), p))
        return;
    if (type != NULL && !node_read_text(type, pointer, name, sizeof name, p))
        return;
    if (text != NULL)
        node_read_text(text, pointer, a->description, sizeof a->description, p);
    if (strcmp(name, "integer") == 0) {
        a->type = ATTR_INTEGER;
        attr_integer_read(schema, a, n, pointer, p);
    } else if (strcmp(name, "categorical") == 0 || strcmp(name, "computed") == 0) {
        a->type = name[1] == 'a' ? ATTR_CATEGORICAL : ATTR_COMPUTED;
        if (a->type == ATTR_CATEGORICAL)
            attr_categorical_read(schema, a, n, pointer, p);
        else
            attr_computed_read(a, n, pointer, p);
        attr_bins_read(a, node_get(n, "bin"), pointer, p);
    } else {
        spec_problem_add(p, type, pointer, "bad_choice",
                         "is \"%s\", must be one of integer|categorical|computed", name);
        return;
    }
    if (level != NULL && node_read_int(level, pointer, a->min, a->min + a->levels - 1, &v, p))
        a->default_level = (int)v - a->min;
}

static void attributes_read(struct spec *s, void *at, const struct node *given, const char *pointer,
                            struct spec_problems *p)
{
    struct schema *schema = at;
    struct node *n = node_by_name(given);
    char where[160];

    (void)s;
    schema->attrs = 0;
    if (n->type != NODE_MAP || n->n > SCHEMA_ATTRS_MAX) {
        spec_problem_add(p, n, pointer, "wrong_type", "must be a map of at most %d attributes",
                         SCHEMA_ATTRS_MAX);
        node_free(n);
        return;
    }
    for (int i = 0; i < n->n; i++) {
        struct attr *a = &schema->attr[schema->attrs];
        memset(a, 0, sizeof *a);
        a->default_level = -1;
        snprintf(where, sizeof where, "%s/%s", pointer, n->key[i]->text);
        if (!name_is_good(n->key[i]->text)) {
            spec_problem_add(p, n->key[i], where, "bad_name",
                             "attribute names are [a-z][a-z0-9_]*, at most %d characters",
                             SCHEMA_NAME_MAX - 1);
            continue;
        }
        snprintf(a->name, sizeof a->name, "%s", n->key[i]->text);
        attr_read(schema, a, n->item[i], where, p);
        schema->attrs++;
    }
    node_free(n);
}

static cJSON *attributes_write(const struct spec *s, const void *at)
{
    static const char *const types[] = {"integer", "categorical", "computed"};
    const struct schema *schema = at;
    cJSON *out = cJSON_CreateArray();

    (void)s;
    for (int i = 0; i < schema->attrs; i++) {
        const struct attr *a = &schema->attr[i];
        cJSON *o = named_add(out, a->name);
        cJSON_AddStringToObject(o, "type", types[a->type]);
        if (a->label >= 0)
            cJSON_AddStringToObject(o, "from", schema->label[a->label].name);
        if (a->type == ATTR_CATEGORICAL)
            cJSON_AddStringToObject(o, "class", schema->label[a->label].class_name[a->class_index]);
        if (a->type == ATTR_COMPUTED)
            cJSON_AddStringToObject(o, "measure", measure_name((enum measure)a->measure));
        if (a->type == ATTR_INTEGER) {
            cJSON_AddNumberToObject(o, "min", a->min);
            cJSON_AddNumberToObject(o, "max", a->max);
        } else {
            cJSON_AddNumberToObject(cJSON_AddObjectToObject(o, "bin"), "quantiles", a->levels);
        }
        if (a->default_level >= 0)
            cJSON_AddNumberToObject(o, "default", a->default_level + a->min);
        if (a->description[0] != '\0')
            cJSON_AddStringToObject(o, "description", a->description);
    }
    return out;
}

const struct key_custom custom_labels = {labels_read, labels_write};
const struct key_custom custom_attributes = {attributes_read, attributes_write};
