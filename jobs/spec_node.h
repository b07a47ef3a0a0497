/*
 * spec_node: a YAML (or JSON) document as a tree of nodes that remember their place. Strict: one document, no anchors, aliases,
 * tags, no duplicate keys, depth <= 16, scalars without NUL.
 */
#ifndef JOBS_SPEC_NODE_H
#define JOBS_SPEC_NODE_H

#include <stdbool.h>

#include "jobs/spec.h"

enum node_type { NODE_SCALAR, NODE_LIST, NODE_MAP };

struct node {
    enum node_type type;
    int line, column;
    bool quoted;       /* scalar in quotes: always text */
    char *text;        /* scalar */
    int n;             /* list: items; map: pairs */
    struct node **key; /* map */
    struct node **item;
};

/* NULL after adding problems. */
struct node *node_from_yaml(const char *yaml, size_t len, struct spec_problems *problems);
struct node *node_from_json(const cJSON *j);
struct node *node_new(enum node_type type, int line, int column);
struct node *node_scalar(const char *text, const struct node *place);
struct node *node_copy(const struct node *n);
void node_free(struct node *n);
struct node *node_get(const struct node *map, const char *key);       /* NULL if absent or no map */
void node_set(struct node *map, const char *key, struct node *takes); /* replaces or adds */
void node_remove(struct node *map, const char *key);
/* The map form of a list of maps that each have a "name" (how JSON keeps an order that people wrote); any other node is copied. Gives. */
struct node *node_by_name(const struct node *n);
/* Sets a dotted path ("train.optimizer.lr", "stages.steer.train.lr": list items by their name), making maps on the way.
 * 0, or ERR_NOT_FOUND when a list has no item of that name. */
int node_set_path(struct node *map, const char *path, const struct node *value, struct err *e);

/* Adds a problem at n's place. */
void spec_problem_add(struct spec_problems *p, const struct node *n, const char *pointer,
                      const char *code, const char *fmt, ...) __attribute__((format(printf, 5, 6)));

#endif
