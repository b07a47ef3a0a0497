#include "jobs/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/suggest.h"
#include "jobs/spec_node.h"

#define SETTINGS_MAX 32

int settings_text(char *to, size_t cap, const char *option, const char *value, struct err *e)
{
    if (*value == '\0' || strlen(value) >= cap)
        return err_set(e, ERR_INVALID, "%s has %zu characters, must have 1..%zu", option,
                       strlen(value), cap - 1);
    snprintf(to, cap, "%s", value);
    return 0;
}

static int secret_read(char *to, size_t cap, const char *option, const char *path, struct err *e)
{
    struct buf text = BUF_INIT;
    int rc = file_read(path, 4096, &text, e);

    if (rc == 0) {
        buf_char(&text, '\n');
        text.data[strcspn(text.data, "\r\n")] = '\0';
        rc = settings_text(to, cap, "the secret", text.data, e);
    }
    buf_free(&text);
    return rc == 0 ? 0 : err_wrap(e, "%s %s", option, path);
}

static int number_set(const struct setting *s, uint32_t *to, const char *option, const char *value,
                      struct err *e)
{
    char *end = NULL;
    long long v = strtoll(value, &end, 10);

    if (end == value || *end != '\0' || v < s->min || v > s->max)
        return err_set(e, ERR_INVALID, "%s is \"%.40s\", must be %lld..%lld", option, value,
                       (long long)s->min, (long long)s->max);
    *to = (uint32_t)v;
    return 0;
}

static int setting_set(const struct setting *s, void *base, const char *option, const char *value,
                       struct err *e)
{
    char *at = (char *)base + s->offset;

    switch (s->type) {
    case SETTING_TEXT:
        return settings_text(at, s->size, option, value, e);
    case SETTING_ADDRESS:
        if (strncmp(value, "tcp://", 6) != 0 || strchr(value + 6, ':') == NULL)
            return err_set(e, ERR_INVALID, "%s is \"%.200s\", must be tcp://HOST:PORT", option,
                           value);
        return settings_text(at, s->size, option, value, e);
    case SETTING_SECRET:
        return secret_read(at, s->size, option, value, e);
    case SETTING_NUMBER:
        return number_set(s, (uint32_t *)(void *)at, option, value, e);
    case SETTING_FLAG:
        if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
            return err_set(e, ERR_INVALID, "%s is \"%.40s\", must be true or false", option, value);
        *(bool *)(void *)at = value[0] == 't';
        return 0;
    case SETTING_CUSTOM:
        return s->set(base, option, value, e);
    }
    return 0;
}

/* By flag without its dashes. */
static const struct setting *setting_find(const struct setting *table, const char *name)
{
    for (const struct setting *s = table; s->flag != NULL || s->env != NULL; s++)
        if (s->flag != NULL && strcmp(s->flag + 2, name) == 0)
            return s;
    return NULL;
}

static int setting_unknown(const struct setting *table, const char *name, const char *dashes,
                           struct err *e)
{
    const char *names[SETTINGS_MAX] = {"help", "version", "config"};
    size_t n = 3;
    const char *near;

    for (const struct setting *s = table; (s->flag != NULL || s->env != NULL) && n < SETTINGS_MAX;
         s++)
        if (s->flag != NULL)
            names[n++] = s->flag + 2;
    near = suggest_nearest(name, names, n);
    return err_set(e, ERR_INVALID, "unknown option %s%.60s%s%s%s", dashes, name,
                   near != NULL ? ", did you mean " : "", near != NULL ? dashes : "",
                   near != NULL ? near : "");
}

/* ---- the file -------------------------------------------------------------------------------- */

static int from_nodes(const struct setting *table, void *base, const struct node *root,
                      struct err *e)
{
    for (int i = 0; i < root->n; i++) {
        const struct setting *s = setting_find(table, root->key[i]->text);
        int rc;
        if (s == NULL)
            rc = setting_unknown(table, root->key[i]->text, "", e);
        else if (root->item[i]->type != NODE_SCALAR)
            rc = err_set(e, ERR_INVALID, "%s must be one value", root->key[i]->text);
        else
            rc = setting_set(s, base, root->key[i]->text, root->item[i]->text, e);
        if (rc != 0)
            return err_wrap(e, "line %d", root->key[i]->line);
    }
    return 0;
}

static int from_file(const struct setting *table, void *base, const char *path, struct err *e)
{
    struct buf text = BUF_INIT;
    struct spec_problems problems = {0};
    struct node *root = NULL;
    int rc = file_read(path, SPEC_YAML_MAX, &text, e);

    if (rc == 0) {
        root = node_from_yaml(text.data, text.len, &problems);
        rc = root != NULL
                 ? from_nodes(table, base, root, e)
                 : err_set(e, ERR_INVALID, "line %d: %s", problems.v[0].line, problems.v[0].text);
    }
    node_free(root);
    spec_problems_free(&problems);
    buf_free(&text);
    return rc == 0 ? 0 : err_wrap(e, "--config %s", path);
}

static int from_environment(const struct setting *table, void *base, struct err *e)
{
    for (const struct setting *s = table; s->flag != NULL || s->env != NULL; s++) {
        const char *value = s->env != NULL ? getenv(s->env) : NULL;
        int rc = value != NULL && *value != '\0' ? setting_set(s, base, s->env, value, e) : 0;
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* ---- the command line ------------------------------------------------------------------------ */

struct flag {
    char name[64];     /* without dashes */
    const char *value; /* NULL if none was given */
};

/* Splits argv[*i] (and its value, if the next word is one) and moves *i on. */
static int flag_next(const struct setting *table, int argc, char **argv, int *i, struct flag *out,
                     struct err *e)
{
    const char *word = argv[(*i)++];
    const char *equals = strchr(word, '=');
    const struct setting *s;
    size_t n;

    if (strcmp(word, "-h") == 0)
        word = "--help";
    if (strncmp(word, "--", 2) != 0)
        return err_set(e, ERR_INVALID, "unexpected argument \"%.60s\"", word);
    n = equals != NULL ? (size_t)(equals - word) - 2 : strlen(word) - 2;
    if (n >= sizeof out->name)
        return err_set(e, ERR_INVALID, "unknown option %.60s", word);
    memcpy(out->name, word + 2, n);
    out->name[n] = '\0';
    out->value = equals != NULL ? equals + 1 : NULL;
    s = setting_find(table, out->name);
    if (s == NULL && strcmp(out->name, "config") != 0 && strcmp(out->name, "help") != 0 &&
        strcmp(out->name, "version") != 0)
        return setting_unknown(table, out->name, "--", e);
    if (out->value == NULL &&
        (strcmp(out->name, "config") == 0 || (s != NULL && s->type != SETTING_FLAG))) {
        if (*i == argc)
            return err_set(e, ERR_INVALID, "--%s needs a value", out->name);
        out->value = argv[(*i)++];
    }
    return 0;
}

static int from_flags(const struct setting *table, int argc, char **argv, void *base, bool *help,
                      bool *version, struct err *e)
{
    struct flag f;
    int rc = 0;

    for (int i = 1; i < argc && rc == 0;) {
        const struct setting *s;
        char option[68];
        if ((rc = flag_next(table, argc, argv, &i, &f, e)) != 0)
            return rc;
        s = setting_find(table, f.name);
        snprintf(option, sizeof option, "--%s", f.name);
        if (strcmp(f.name, "help") == 0)
            *help = true;
        else if (strcmp(f.name, "version") == 0)
            *version = true;
        else if (strcmp(f.name, "config") == 0)
            continue; /* read before */
        else
            rc = setting_set(s, base, option, f.value != NULL ? f.value : "true", e);
    }
    return rc;
}

static int config_named(const struct setting *table, int argc, char **argv, const char **path,
                        struct err *e)
{
    struct flag f;

    for (int i = 1; i < argc;) {
        int rc = flag_next(table, argc, argv, &i, &f, e);
        if (rc != 0)
            return rc;
        if (strcmp(f.name, "config") == 0)
            *path = f.value;
    }
    return 0;
}

int settings_read(const struct setting *table, const char *config_env, int argc, char **argv,
                  void *base, bool *help, bool *version, struct err *e)
{
    const char *path = getenv(config_env);
    int rc = config_named(table, argc, argv, &path, e);

    if (rc == 0 && path != NULL && *path != '\0')
        rc = from_file(table, base, path, e);
    if (rc == 0)
        rc = from_environment(table, base, e);
    return rc == 0 ? from_flags(table, argc, argv, base, help, version, e) : rc;
}
