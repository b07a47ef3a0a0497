/*
 * spec_keys: the one table of keys. Each key says its name, type, place in struct spec, bounds, the kinds that may have it, and a
 * sentence for people. The parser, the defaults, the JSON form, the reference page and completion are all made from it.
 */
#ifndef JOBS_SPEC_KEYS_H
#define JOBS_SPEC_KEYS_H

#include <stdio.h>

#include "jobs/spec.h"
#include "jobs/spec_node.h"

enum key_type {
    KEY_TEXT,    /* char[size] */
    KEY_CHOICE,  /* char[size], one of choices "a|b|c" */
    KEY_INT,     /* int */
    KEY_U64,     /* uint64_t */
    KEY_REAL,    /* double */
    KEY_FLOAT,   /* float */
    KEY_BOOL,    /* bool */
    KEY_TEXTS,   /* struct text_list, each one of choices if given */
    KEY_INTS,    /* struct int_list */
    KEY_REALS,   /* struct real_list */
    KEY_SECTION, /* keys of `table`, at offset */
    KEY_CUSTOM   /* own functions */
};

struct key;
struct key_custom {
    void (*read)(struct spec *s, void *at, const struct node *n, const char *pointer,
                 struct spec_problems *p);
    cJSON *(*write)(const struct spec *s, const void *at); /* NULL: nothing to write */
};

struct key {
    const char *name;
    enum key_type type;
    size_t offset, size;
    double min, max; /* numbers; list items; text length is 1..size-1 */
    const char *choices;
    const struct key *table; /* KEY_SECTION; ends with a NULL name */
    const struct key_custom *custom;
    unsigned kinds; /* bits of enum job_kind; 0 = every kind (inner tables: always 0) */
    const char *doc;
};

#define KIND_BIT(k) (1u << (k))
extern const struct key spec_keys[];      /* of the top level */
extern const struct key spec_data_keys[]; /* of one data set, into struct data_spec */
extern const struct key spec_init_keys[]; /* of base.init, into struct dims */

/* Reads a map by a table into base. kinds: bits of the kind that reads (top level), 0 for inner tables. */
void keys_read(const struct key *table, unsigned kind_bit, struct spec *s, void *base,
               const struct node *map, const char *pointer, struct spec_problems *p);
cJSON *keys_write(const struct key *table, unsigned kind_bit, const struct spec *s,
                  const void *base);
/* The decimal that a person wrote, not the binary float widened. */
double key_float_as_written(float v);
/* May the kind have it? Inner tables are of every kind. */
static inline bool key_is_for(const struct key *k, unsigned kind_bit)
{
    return k->kinds == 0 || kind_bit == 0 || (k->kinds & kind_bit) != 0;
}
void keys_print(FILE *out); /* the reference page: key, type, bounds, default, meaning */

/* Scalars, for the custom readers. False after adding a problem. */
bool node_read_text(const struct node *n, const char *pointer, char *out, size_t cap,
                    struct spec_problems *p);
bool node_read_real(const struct node *n, const char *pointer, double min, double max, double *out,
                    struct spec_problems *p);
bool node_read_int(const struct node *n, const char *pointer, int64_t min, int64_t max,
                   int64_t *out, struct spec_problems *p);
bool node_read_bool(const struct node *n, const char *pointer, bool *out, struct spec_problems *p);
void key_unknown(const struct node *key, const char *pointer, const char *const *names, size_t n,
                 struct spec_problems *p);

extern const struct key_custom custom_attributes, custom_labels; /* spec_schema.c */
extern const struct key_custom custom_stages;                    /* spec_stage.c */
extern const struct key_custom custom_data, custom_inputs, custom_base, custom_values, custom_sweep,
    custom_where, custom_models, custom_figures, custom_betas; /* spec_custom.c */

#endif
