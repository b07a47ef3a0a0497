/* Writing by the table of keys: struct spec as JSON, and the reference page for people. */
#include <stdlib.h>
#include <string.h>

#include "data/measure.h"
#include "jobs/spec_keys.h"

double key_float_as_written(float v)
{
    char text[32];

    snprintf(text, sizeof text, "%.7g", (double)v);
    return strtod(text, NULL);
}

static cJSON *texts_write(const struct text_list *list)
{
    cJSON *a = cJSON_CreateArray();

    for (int i = 0; i < list->n; i++)
        cJSON_AddItemToArray(a, cJSON_CreateString(list->v[i]));
    return a;
}

static cJSON *value_write(const struct key *k, const struct spec *s, const void *base)
{
    const void *at = (const char *)base + k->offset;

    switch (k->type) {
    case KEY_TEXT:
    case KEY_CHOICE:
        return *(const char *)at != '\0' ? cJSON_CreateString(at) : NULL;
    case KEY_INT:
        return cJSON_CreateNumber(*(const int *)at);
    case KEY_U64:
        return cJSON_CreateNumber((double)*(const uint64_t *)at);
    case KEY_REAL:
        return cJSON_CreateNumber(*(const double *)at);
    case KEY_FLOAT:
        return cJSON_CreateNumber(key_float_as_written(*(const float *)at));
    case KEY_BOOL:
        return cJSON_CreateBool(*(const bool *)at);
    case KEY_TEXTS:
        return texts_write(at);
    case KEY_INTS:
        return ((const struct int_list *)at)->n > 0
                   ? cJSON_CreateIntArray(((const struct int_list *)at)->v,
                                          ((const struct int_list *)at)->n)
                   : NULL;
    case KEY_REALS:
        return ((const struct real_list *)at)->n > 0
                   ? cJSON_CreateDoubleArray(((const struct real_list *)at)->v,
                                             ((const struct real_list *)at)->n)
                   : NULL;
    case KEY_SECTION:
        return keys_write(k->table, 0, s, k->size == 0 ? base : at);
    case KEY_CUSTOM:
        return k->custom->write(s, at);
    }
    return NULL;
}

cJSON *keys_write(const struct key *table, unsigned kind_bit, const struct spec *s,
                  const void *base)
{
    cJSON *out = cJSON_CreateObject();

    for (const struct key *k = table; k->name != NULL; k++) {
        cJSON *v;
        if (!key_is_for(k, kind_bit) || (kind_bit != 0 && strcmp(k->name, "kind") == 0))
            continue;
        v = value_write(k, s, base);
        if (v != NULL)
            cJSON_AddItemToObject(out, k->name, v);
    }
    return out;
}

/* ---- for people ------------------------------------------------------------------------------ */

static const char *const type_names[] = {
    "text",          "one of",       "integer",          "integer",         "number", "number",
    "true or false", "list of text", "list of integers", "list of numbers", "",       ""};

static void table_print(const struct key *table, const char *prefix, FILE *out)
{
    char name[160];

    for (const struct key *k = table; k->name != NULL; k++) {
        snprintf(name, sizeof name, "%s%s", prefix, k->name);
        fprintf(out, "%-34s %s", name, type_names[k->type]);
        if (k->choices != NULL)
            fprintf(out, " %s", k->choices);
        else if (k->type == KEY_INT || k->type == KEY_U64 || k->type == KEY_REAL ||
                 k->type == KEY_FLOAT)
            fprintf(out, " %.10g..%.10g", k->min, k->max);
        fprintf(out, "%s%s\n", k->type >= KEY_SECTION ? "" : ": ", k->doc);
        if (k->type == KEY_SECTION) {
            snprintf(name, sizeof name, "%s%s.", prefix, k->name);
            table_print(k->table, name, out);
        }
    }
}

/* What the tables name in one line, because it is read by hand (KEY_CUSTOM). */
static const char notations[] =
    "\n"
    "stages[]: name, kind, the keys of that kind, and\n"
    "  needs: [STAGE, ...]           stages to wait for; inputs that name a stage or its data imply it\n"
    "  gate: [{metric, min, max}]    bounds on its own metrics, before those that need it start\n"
    "  like: STAGE                   starts from a copy of that earlier stage\n"
    "  set: {path: value}            then changes keys, such as train.lr\n"
    "  spec: FILE                    starts from a spec file\n"
    "inputs: base, train, model, data, judge, prompts; job:ID/STAGE names a stage of another pipeline\n"
    "labels.NAME: classes: [...], other: CLASS or skip, exact; or min, max\n"
    "attributes.NAME: default, description, bin: {quantiles: N}, and one of\n"
    "  type: integer                 from: LABEL, min, max\n"
    "  type: categorical             from: LABEL, class: CLASS, exact\n"
    "  type: computed                measure:";

void keys_print(FILE *out)
{
    fprintf(out, "%-34s steerlm/v1\n", "apiVersion");
    table_print(spec_keys, "", out);
    table_print(spec_data_keys, "data.NAME.", out);
    table_print(spec_init_keys, "base.init.", out);
    fprintf(out, "%-34s text: file:PATH, or synthetic\n%s", "base.tokenizer", notations);
#define X(id, name) fputs(" " name, out);
    MEASURES(X)
#undef X
    fputc('\n', out);
}
