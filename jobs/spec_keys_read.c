/* Reading by the table of keys: nodes become members of struct spec, or problems with a place. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "jobs/spec_keys.h"

/* ---- scalars --------------------------------------------------------------------------------- */

bool node_read_text(const struct node *n, const char *pointer, char *out, size_t cap,
                    struct spec_problems *p)
{
    if (n->type != NODE_SCALAR || (!n->quoted && (n->text[0] == '\0' || strcmp(n->text, "~") == 0 ||
                                                  strcmp(n->text, "null") == 0))) {
        spec_problem_add(p, n, pointer, "wrong_type", "must be text");
        return false;
    }
    if (strlen(n->text) >= cap) {
        spec_problem_add(p, n, pointer, "out_of_range", "text of %zu bytes, at most %zu",
                         strlen(n->text), cap - 1);
        return false;
    }
    snprintf(out, cap, "%s", n->text);
    return true;
}

bool node_read_real(const struct node *n, const char *pointer, double min, double max, double *out,
                    struct spec_problems *p)
{
    char *end = NULL;
    double v = 0;
    bool ok = n->type == NODE_SCALAR && !n->quoted && n->text[0] != '\0' &&
              strspn(n->text, "0123456789+-.eE") == strlen(n->text);

    if (ok) {
        v = strtod(n->text, &end);
        ok = *end == '\0' && isfinite(v);
    }
    if (!ok) {
        spec_problem_add(p, n, pointer, "wrong_type", "is %s%.40s%s, must be a number %g..%g",
                         n->type == NODE_SCALAR ? "\"" : "",
                         n->type == NODE_SCALAR ? n->text : "a list or map",
                         n->type == NODE_SCALAR ? "\"" : "", min, max);
        return false;
    }
    if (v < min || v > max) {
        spec_problem_add(p, n, pointer, "out_of_range", "is %s, must be %.12g..%.12g", n->text, min,
                         max);
        return false;
    }
    *out = v;
    return true;
}

bool node_read_int(const struct node *n, const char *pointer, int64_t min, int64_t max,
                   int64_t *out, struct spec_problems *p)
{
    double v;

    if (!node_read_real(n, pointer, (double)min, (double)max, &v, p))
        return false;
    if (v != floor(v)) {
        spec_problem_add(p, n, pointer, "wrong_type", "is %s, must be a whole number", n->text);
        return false;
    }
    *out = (int64_t)v;
    return true;
}

bool node_read_bool(const struct node *n, const char *pointer, bool *out, struct spec_problems *p)
{
    if (n->type == NODE_SCALAR && !n->quoted &&
        (strcmp(n->text, "true") == 0 || strcmp(n->text, "false") == 0)) {
        *out = n->text[0] == 't';
        return true;
    }
    spec_problem_add(p, n, pointer, "wrong_type", "is \"%.40s\", must be true or false",
                     n->type == NODE_SCALAR ? n->text : "...");
    return false;
}

/* ---- by the table ---------------------------------------------------------------------------- */

static bool choice_holds(const char *choices, const char *text)
{
    size_t n = strlen(text);

    for (const char *c = choices; c != NULL; c = strchr(c, '|')) {
        if (*c == '|')
            c++;
        if (strncmp(c, text, n) == 0 && (c[n] == '|' || c[n] == '\0'))
            return true;
    }
    return false;
}

static void choice_problem(const struct node *n, const char *pointer, const char *choices,
                           const char *text, struct spec_problems *p)
{
    char copy[256];
    const char *words[24];
    size_t count = 0;
    const char *near;
    char *save = NULL;

    snprintf(copy, sizeof copy, "%s", choices);
    for (char *w = strtok_r(copy, "|", &save); w != NULL && count < 24;
         w = strtok_r(NULL, "|", &save))
        words[count++] = w;
    near = suggest_nearest(text, words, count);
    spec_problem_add(p, n, pointer, "bad_choice", "is \"%.40s\", must be one of %s%s%s%s", text,
                     choices, near != NULL ? "; did you mean \"" : "", near != NULL ? near : "",
                     near != NULL ? "\"?" : "");
}

static void texts_read(const struct key *k, struct text_list *out, const struct node *n,
                       const char *pointer, struct spec_problems *p)
{
    const struct node *single[1] = {n};
    const struct node *const *item =
        n->type == NODE_LIST ? (const struct node *const *)n->item : single;
    int count = n->type == NODE_LIST ? n->n : 1;

    if (n->type == NODE_MAP || count > SPEC_LIST_MAX) {
        spec_problem_add(p, n, pointer, "wrong_type", "must be a list of at most %d texts",
                         SPEC_LIST_MAX);
        return;
    }
    out->n = 0;
    for (int i = 0; i < count; i++) {
        char text[SPEC_TEXT_MAX];

        if (!node_read_text(item[i], pointer, text, sizeof text, p))
            continue;
        if (k->choices != NULL && !choice_holds(k->choices, text))
            choice_problem(item[i], pointer, k->choices, text, p);
        else
            spec_text_add(out, text);
    }
}

static void numbers_read(const struct key *k, void *at, const struct node *n, const char *pointer,
                         struct spec_problems *p)
{
    struct int_list *ints = at;
    struct real_list *reals = at;
    double v;

    if (n->type != NODE_LIST || n->n < 1 || n->n > SPEC_LIST_MAX) {
        spec_problem_add(p, n, pointer, "wrong_type", "must be a list of 1..%d numbers",
                         SPEC_LIST_MAX);
        return;
    }
    for (int i = 0; i < n->n; i++) {
        int64_t whole;
        if (k->type == KEY_INTS) {
            if (!node_read_int(n->item[i], pointer, (int64_t)k->min, (int64_t)k->max, &whole, p))
                return;
            ints->v[i] = (int)whole;
        } else {
            if (!node_read_real(n->item[i], pointer, k->min, k->max, &v, p))
                return;
            reals->v[i] = v;
        }
    }
    *(k->type == KEY_INTS ? &ints->n : &reals->n) = n->n;
}

static void value_read(const struct key *k, struct spec *s, void *base, const struct node *n,
                       const char *pointer, struct spec_problems *p)
{
    void *at = (char *)base + k->offset;
    double v;
    int64_t whole;

    switch (k->type) {
    case KEY_TEXT:
        node_read_text(n, pointer, at, k->size, p);
        break;
    case KEY_CHOICE: {
        char text[64];
        if (!node_read_text(n, pointer, text, sizeof text, p))
            break;
        if (choice_holds(k->choices, text))
            snprintf(at, k->size, "%s", text);
        else
            choice_problem(n, pointer, k->choices, text, p);
        break;
    }
    case KEY_INT:
        if (node_read_int(n, pointer, (int64_t)k->min, (int64_t)k->max, &whole, p))
            *(int *)at = (int)whole;
        break;
    case KEY_U64:
        if (node_read_int(n, pointer, (int64_t)k->min, (int64_t)k->max, &whole, p))
            *(uint64_t *)at = (uint64_t)whole;
        break;
    case KEY_REAL:
        if (node_read_real(n, pointer, k->min, k->max, &v, p))
            *(double *)at = v;
        break;
    case KEY_FLOAT:
        if (node_read_real(n, pointer, k->min, k->max, &v, p))
            *(float *)at = (float)v;
        break;
    case KEY_BOOL:
        node_read_bool(n, pointer, at, p);
        break;
    case KEY_TEXTS:
        texts_read(k, at, n, pointer, p);
        break;
    case KEY_INTS:
    case KEY_REALS:
        numbers_read(k, at, n, pointer, p);
        break;
    case KEY_SECTION:
        keys_read(k->table, 0, s, k->size == 0 ? base : at, n, pointer, p);
        break;
    case KEY_CUSTOM:
        k->custom->read(s, at, n, pointer, p);
        break;
    }
}

void key_unknown(const struct node *key, const char *pointer, const char *const *names, size_t n,
                 struct spec_problems *p)
{
    const char *near = suggest_nearest(key->text, names, n);
    char where[200];

    snprintf(where, sizeof where, "%s/%s", pointer, key->text);
    spec_problem_add(p, key, where, "unknown_key", "unknown key \"%.60s\"%s%s%s", key->text,
                     near != NULL ? "; did you mean \"" : "", near != NULL ? near : "",
                     near != NULL ? "\"?" : "");
}

static void key_misplaced(const struct node *key, const char *pointer, const struct key *table,
                          unsigned kind_bit, struct spec_problems *p)
{
    const char *names[64];
    size_t n = 0;
    char where[200];

    for (const struct key *k = table; k->name != NULL; k++) {
        if (strcmp(k->name, key->text) == 0) {
            snprintf(where, sizeof where, "%s/%s", pointer, key->text);
            spec_problem_add(p, key, where, "misplaced_key", "\"%s\" is not a key of this kind",
                             key->text);
            return;
        }
        if (key_is_for(k, kind_bit) && n < 64)
            names[n++] = k->name;
    }
    key_unknown(key, pointer, names, n, p);
}

void keys_read(const struct key *table, unsigned kind_bit, struct spec *s, void *base,
               const struct node *map, const char *pointer, struct spec_problems *p)
{
    char where[160];

    if (map->type != NODE_MAP) {
        spec_problem_add(p, map, pointer, "wrong_type", "must be a map of keys");
        return;
    }
    for (int i = 0; i < map->n; i++) {
        const struct key *k = table;
        if (kind_bit != 0 && (strcmp(map->key[i]->text, "kind") == 0 ||
                              strcmp(map->key[i]->text, "apiVersion") == 0))
            continue; /* read before */
        while (k->name != NULL &&
               !(strcmp(k->name, map->key[i]->text) == 0 && key_is_for(k, kind_bit)))
            k++;
        if (k->name == NULL) {
            key_misplaced(map->key[i], pointer, table, kind_bit, p);
            continue;
        }
        snprintf(where, sizeof where, "%s/%s", pointer, k->name);
        value_read(k, s, base, map->item[i], where, p);
    }
}
