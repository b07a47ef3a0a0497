/*
 * schema: what is known about a response. Labels are what humans gave (a class, or a number on a scale); attributes are
 * what a model is conditioned on: each has levels 0..levels-1 and a "missing". An attribute comes from a label (a class's
 * probability, or a number) or is computed from the text. The schema is data: in the spec, in steer_config.json, in data sets.
 */
#ifndef DATA_SCHEMA_H
#define DATA_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "json/json.h"

#define SCHEMA_LABELS_MAX 16
#define SCHEMA_CLASSES_MAX 16
#define SCHEMA_ATTRS_MAX 24
#define SCHEMA_LEVELS_MAX 16
#define SCHEMA_NAME_MAX 48

enum label_type { LABEL_CLASSES, LABEL_SCALE };

struct label {
    char name[SCHEMA_NAME_MAX]; /* field of the data, "sentiment" */
    enum label_type type;
    int classes; /* LABEL_CLASSES: class 0.. are named; a value that is none of them: */
    char class_name[SCHEMA_CLASSES_MAX][SCHEMA_NAME_MAX];
    int other;  /* index of the class that takes all other values, or -1: such rows have no label */
    bool exact; /* list-valued fields: the list must be exactly [class] to be that class */
    double min, max; /* LABEL_SCALE */
};

enum attr_type { ATTR_INTEGER, ATTR_CATEGORICAL, ATTR_COMPUTED };

struct attr {
    char name[SCHEMA_NAME_MAX]; /* [a-z][a-z0-9_]* */
    char description[160];
    enum attr_type type;
    int label;       /* index into labels; -1 for ATTR_COMPUTED */
    int class_index; /* ATTR_CATEGORICAL: its probability is the value */
    int measure;     /* ATTR_COMPUTED: enum measure (data/measure.h) */
    int min, max;    /* ATTR_INTEGER: level = value - min */
    int levels;      /* max - min + 1, or the number of quantile bins */
    bool binned;     /* by quantile: level = number of edges <= value */
    bool has_edges;
    double
        edge[SCHEMA_LEVELS_MAX -
             1]; /* levels - 1 of them, not falling; set by annotate's reduce from training rows */
    int default_level; /* -1 = missing */
};

struct schema {
    int labels, attrs;
    struct label label[SCHEMA_LABELS_MAX];
    struct attr attr[SCHEMA_ATTRS_MAX];
};

int schema_find_attr(const struct schema *s, const char *name); /* index or -1 */
int schema_find_label(const struct schema *s, const char *name);
cJSON *schema_to_json(const struct schema *s);
int schema_from_json(const cJSON *j, struct schema *out, struct err *e);
/* Level of a value: binned by edges, or half to even and clamped to 0..levels-1; -1 for NaN. */
int schema_level(const struct attr *a, double value);
/* What the human label says in the attribute's own units: 1 or 0 for a class; a label on another scale than min..max is stretched
 * to it; NaN if missing or computed. */
double schema_human_value(const struct schema *s, int attr, const float *human);
/* Level that the human label alone gives (class: 0 or levels-1; scale: rounded half to even); -1 if missing. */
int schema_human_level(const struct schema *s, int attr, const float *human);
/* Quantile edges of a binned attribute: edge i is the (i + 1) n / levels-th of the sorted values (sorts them; NaN are left out). Without any
 * value there are no edges. */
void schema_set_edges(struct attr *a, float *values, size_t n);
/* Same names, order, types and levels of attributes? The message names the first difference. */
int schema_same(const struct schema *a, const struct schema *b, struct err *e);
/* The same for labels and for what attributes take of them: human[] of the one may then be read by the other. Schemas that are schema_same()
 * need not be, as attributes of one name may come from labels that stand elsewhere or have other classes. */
int schema_same_labels(const struct schema *a, const struct schema *b, struct err *e);

#endif
