/*
 * How: libyaml's event interface only (its document interface follows aliases). The open containers stand on an explicit stack, so
 * depth is bounded before libyaml's own quadratic corners are reached, and 64 KiB of input is the most that gets here.
 */
#include "jobs/spec_node.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define NODE_DEPTH_MAX 16

void spec_problem_add(struct spec_problems *p, const struct node *n, const char *pointer,
                      const char *code, const char *fmt, ...)
{
    struct spec_problem *x;
    va_list ap;

    if (p->n == p->cap) {
        p->cap = p->cap * 2 + 8;
        p->v = mem_grow(p->v, (size_t)p->cap, sizeof *p->v);
    }
    x = &p->v[p->n++];
    memset(x, 0, sizeof *x);
    x->line = n != NULL ? n->line : 0;
    x->column = n != NULL ? n->column : 0;
    snprintf(x->pointer, sizeof x->pointer, "%s", pointer);
    snprintf(x->code, sizeof x->code, "%s", code);
    va_start(ap, fmt);
    vsnprintf(x->text, sizeof x->text, fmt, ap);
    va_end(ap);
}

void spec_problems_free(struct spec_problems *p)
{
    free(p->v);
    memset(p, 0, sizeof *p);
}

struct node *node_new(enum node_type type, int line, int column)
{
    struct node *n = mem_zalloc(1, sizeof *n);

    n->type = type;
    n->line = line;
    n->column = column;
    return n;
}

struct node *node_scalar(const char *text, const struct node *place)
{
    struct node *n =
        node_new(NODE_SCALAR, place != NULL ? place->line : 0, place != NULL ? place->column : 0);

    n->text = mem_strdup(text);
    return n;
}

void node_free(struct node *n)
{
    if (n == NULL)
        return;
    for (int i = 0; i < n->n; i++) {
        if (n->key != NULL)
            node_free(n->key[i]);
        node_free(n->item[i]);
    }
    free(n->key);
    free(n->item);
    free(n->text);
    free(n);
}

static void node_push(struct node *to, struct node *key, struct node *item)
{
    to->item = mem_grow(to->item, (size_t)to->n + 1, sizeof *to->item);
    to->item[to->n] = item;
    if (to->type == NODE_MAP) {
        to->key = mem_grow(to->key, (size_t)to->n + 1, sizeof *to->key);
        to->key[to->n] = key;
    }
    to->n++;
}

struct node *node_copy(const struct node *n)
{
    struct node *copy = node_new(n->type, n->line, n->column);

    copy->quoted = n->quoted;
    copy->text = n->text != NULL ? mem_strdup(n->text) : NULL;
    for (int i = 0; i < n->n; i++)
        node_push(copy, n->key != NULL ? node_copy(n->key[i]) : NULL, node_copy(n->item[i]));
    return copy;
}

struct node *node_get(const struct node *map, const char *key)
{
    if (map == NULL || map->type != NODE_MAP)
        return NULL;
    for (int i = 0; i < map->n; i++)
        if (strcmp(map->key[i]->text, key) == 0)
            return map->item[i];
    return NULL;
}

void node_set(struct node *map, const char *key, struct node *takes)
{
    CHECK(map->type == NODE_MAP);
    for (int i = 0; i < map->n; i++)
        if (strcmp(map->key[i]->text, key) == 0) {
            node_free(map->item[i]);
            map->item[i] = takes;
            return;
        }
    node_push(map, node_scalar(key, takes), takes);
}

void node_remove(struct node *map, const char *key)
{
    for (int i = 0; map->type == NODE_MAP && i < map->n; i++)
        if (strcmp(map->key[i]->text, key) == 0) {
            node_free(map->key[i]);
            node_free(map->item[i]);
            memmove(&map->key[i], &map->key[i + 1], (size_t)(map->n - i - 1) * sizeof *map->key);
            memmove(&map->item[i], &map->item[i + 1], (size_t)(map->n - i - 1) * sizeof *map->item);
            map->n--;
            return;
        }
}

struct node *node_by_name(const struct node *n)
{
    struct node *map;

    if (n->type != NODE_LIST)
        return node_copy(n);
    map = node_new(NODE_MAP, n->line, n->column);
    for (int i = 0; i < n->n; i++) {
        const struct node *name = node_get(n->item[i], "name");
        struct node *rest;
        if (name == NULL || name->type != NODE_SCALAR) {
            node_free(map);
            return node_copy(n); /* no such list: the reader complains of its type */
        }
        rest = node_copy(n->item[i]);
        node_remove(rest, "name");
        node_push(map, node_copy(name), rest);
    }
    return map;
}

static struct node *list_named(const struct node *list, const char *name)
{
    for (int i = 0; i < list->n; i++) {
        struct node *found = node_get(list->item[i], "name");
        if (found != NULL && found->type == NODE_SCALAR && strcmp(found->text, name) == 0)
            return list->item[i];
    }
    return NULL;
}

int node_set_path(struct node *map, const char *path, const struct node *value, struct err *e)
{
    struct node *at = map;
    char part[SPEC_NAME_MAX];
    const char *p = path;

    for (;;) {
        size_t n = strcspn(p, ".");
        struct node *next;
        if (n == 0 || n >= sizeof part)
            return err_set(e, ERR_INVALID, "\"%s\" is no path of keys", path);
        memcpy(part, p, n);
        part[n] = '\0';
        if (at->type == NODE_LIST) {
            next = list_named(at, part);
            if (next == NULL)
                return err_set(e, ERR_NOT_FOUND, "\"%s\": nothing in the list is named \"%s\"",
                               path, part);
        } else if (at->type != NODE_MAP) {
            return err_set(e, ERR_INVALID, "\"%s\": \"%s\" is below a plain value", path, part);
        } else if (p[n] == '\0') {
            node_set(at, part, node_copy(value));
            return 0;
        } else {
            next = node_get(at, part);
            if (next == NULL) {
                next = node_new(NODE_MAP, value->line, value->column);
                node_set(at, part, next);
            }
        }
        if (p[n] == '\0')
            return err_set(e, ERR_INVALID, "\"%s\" names a whole list item", path);
        at = next;
        p += n + 1;
    }
}

struct node *node_from_json(const cJSON *j)
{
    struct node *n;
    const cJSON *child;

    if (cJSON_IsObject(j) || cJSON_IsArray(j)) {
        n = node_new(cJSON_IsObject(j) ? NODE_MAP : NODE_LIST, 0, 0);
        cJSON_ArrayForEach(child, j)
        {
            if (!cJSON_IsNull(child))
                node_push(n, cJSON_IsObject(j) ? node_scalar(child->string, NULL) : NULL,
                          node_from_json(child));
        }
        return n;
    }
    n = node_new(NODE_SCALAR, 0, 0);
    n->quoted = cJSON_IsString(j);
    if (cJSON_IsString(j)) {
        n->text = mem_strdup(j->valuestring);
    } else {
        struct buf b = BUF_INIT;
        json_canonical(j, &b);
        n->text = buf_take(&b);
    }
    return n;
}

/* ---- YAML ------------------------------------------------------------------------------------ */

struct builder {
    struct node *root;
    struct node *open[NODE_DEPTH_MAX];
    struct node *key[NODE_DEPTH_MAX]; /* of an open map: key that waits for its value */
    int depth, documents;
    struct spec_problems *problems;
};

static void pointer_here(const struct builder *b, char *out, size_t cap)
{
    size_t n = 0;

    out[0] = '\0';
    for (int i = 0; i < b->depth && n + 2 < cap; i++) {
        if (b->open[i]->type == NODE_LIST)
            n += (size_t)snprintf(out + n, cap - n, "/%d", b->open[i]->n);
        else if (b->key[i] != NULL)
            n += (size_t)snprintf(out + n, cap - n, "/%s", b->key[i]->text);
    }
}

/* Puts a finished scalar or a fresh container where it belongs. False: a problem was added. */
static bool builder_place(struct builder *b, struct node *n)
{
    struct node *in;
    char pointer[160];

    if (b->depth == 0) {
        b->root = n;
        return true;
    }
    in = b->open[b->depth - 1];
    if (in->type == NODE_LIST) {
        node_push(in, NULL, n);
        return true;
    }
    if (b->key[b->depth - 1] != NULL) {
        node_push(in, b->key[b->depth - 1], n);
        b->key[b->depth - 1] = NULL;
        return true;
    }
    pointer_here(b, pointer, sizeof pointer);
    if (n->type != NODE_SCALAR) {
        spec_problem_add(b->problems, n, pointer, "wrong_type", "a key must be a plain word");
    } else if (node_get(in, n->text) != NULL) {
        spec_problem_add(b->problems, n, pointer, "duplicate_key",
                         "key \"%s\" stands twice, first at line %d", n->text,
                         node_get(in, n->text)->line);
    } else {
        b->key[b->depth - 1] = n;
        return true;
    }
    node_free(n);
    return false;
}

static bool refuse_features(struct builder *b, const struct node *place, const yaml_char_t *anchor,
                            const yaml_char_t *tag)
{
    char pointer[160];

    pointer_here(b, pointer, sizeof pointer);
    if (anchor != NULL)
        spec_problem_add(b->problems, place, pointer, "anchor", "anchors (&%s) are not allowed",
                         (const char *)anchor);
    else if (tag != NULL)
        spec_problem_add(b->problems, place, pointer, "tag", "tags (%s) are not allowed",
                         (const char *)tag);
    else
        return true;
    return false;
}

static bool builder_open(struct builder *b, struct node *n, const yaml_char_t *anchor,
                         const yaml_char_t *tag)
{
    char pointer[160];

    if (!refuse_features(b, n, anchor, tag)) {
        node_free(n);
        return false;
    }
    if (b->depth == NODE_DEPTH_MAX) {
        pointer_here(b, pointer, sizeof pointer);
        spec_problem_add(b->problems, n, pointer, "too_deep", "nested deeper than %d",
                         NODE_DEPTH_MAX);
        node_free(n);
        return false;
    }
    if (!builder_place(b, n))
        return false;
    b->open[b->depth] = n;
    b->key[b->depth] = NULL;
    b->depth++;
    return true;
}

static bool builder_scalar(struct builder *b, const yaml_event_t *event, struct node *n)
{
    const char *value = (const char *)event->data.scalar.value;
    char pointer[160];

    n->text = mem_strndup(value, event->data.scalar.length);
    n->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    if (!refuse_features(b, n, event->data.scalar.anchor, event->data.scalar.tag)) {
        node_free(n);
        return false;
    }
    if (strlen(n->text) != event->data.scalar.length) {
        pointer_here(b, pointer, sizeof pointer);
        spec_problem_add(b->problems, n, pointer, "nul", "text with a NUL character");
        node_free(n);
        return false;
    }
    return builder_place(b, n);
}

/* One event; false ends the parse (a problem was added). */
static bool builder_event(struct builder *b, const yaml_event_t *event)
{
    int line = (int)event->start_mark.line + 1, column = (int)event->start_mark.column + 1;
    struct node here = {.line = line, .column = column};

    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (++b->documents > 1) {
            spec_problem_add(b->problems, &here, "", "documents", "one document a file");
            return false;
        }
        return true;
    case YAML_ALIAS_EVENT:
        spec_problem_add(b->problems, &here, "", "alias", "aliases (*%s) are not allowed",
                         (const char *)event->data.alias.anchor);
        return false;
    case YAML_SCALAR_EVENT:
        return builder_scalar(b, event, node_new(NODE_SCALAR, line, column));
    case YAML_SEQUENCE_START_EVENT:
        return builder_open(b, node_new(NODE_LIST, line, column), event->data.sequence_start.anchor,
                            event->data.sequence_start.tag);
    case YAML_MAPPING_START_EVENT:
        return builder_open(b, node_new(NODE_MAP, line, column), event->data.mapping_start.anchor,
                            event->data.mapping_start.tag);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        b->depth--;
        return true;
    default:
        return true;
    }
}

static void parser_problem(const yaml_parser_t *parser, struct spec_problems *problems)
{
    struct node here = {.line = (int)parser->problem_mark.line + 1,
                        .column = (int)parser->problem_mark.column + 1};

    spec_problem_add(problems, &here, "", "syntax", "%s%s%s",
                     parser->problem != NULL ? parser->problem : "not YAML",
                     parser->context != NULL ? ", " : "",
                     parser->context != NULL ? parser->context : "");
}

struct node *node_from_yaml(const char *yaml, size_t len, struct spec_problems *problems)
{
    struct builder b = {.problems = problems};
    yaml_parser_t parser;
    bool ok = true, end = false;
    struct node top = {.line = 1, .column = 1};

    if (len > SPEC_YAML_MAX) {
        spec_problem_add(problems, NULL, "", "too_long", "spec of %zu bytes, at most %u", len,
                         SPEC_YAML_MAX);
        return NULL;
    }
    if (!json_utf8_valid(yaml, len)) {
        spec_problem_add(problems, NULL, "", "encoding", "not UTF-8");
        return NULL;
    }
    CHECK(yaml_parser_initialize(&parser) == 1);
    yaml_parser_set_input_string(&parser, (const unsigned char *)yaml, len);
    while (ok && !end) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            parser_problem(&parser, problems);
            ok = false;
            break;
        }
        end = event.type == YAML_STREAM_END_EVENT;
        ok = builder_event(&b, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    if (!ok) {
        for (int i = 0; i < b.depth; i++)
            node_free(b.key[i]);
        node_free(b.root);
        return NULL;
    }
    if (b.root == NULL || b.root->type != NODE_MAP) {
        spec_problem_add(problems, &top, "", "wrong_type",
                         "a spec is a map of keys, beginning with \"apiVersion: steerlm/v1\"");
        node_free(b.root);
        return NULL;
    }
    return b.root;
}
