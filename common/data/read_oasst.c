/*
 * Open Assistant data: whole trees ({"message_tree_id", "prompt": {..., "replies": [...]}}), threads ({"thread": [...]}) and flat
 * messages in any order ({"message_id", "parent_id", ...}, the form of the Hub's tables too).
 *
 * All become nodes with a parent index; every way from a root to a leaf is one conversation. A message that stands on several ways is a
 * response on the first of them only, so that nothing is learnt or labelled twice. A way ends before a deleted message.
 * Files hold trees and threads, or flat messages, not both: whether a message is in one of the trees too can't be told.
 * Labels are shares 0..1 of the label's own scale, as {"quality": {"value"}} or as {"name": [...], "value": [...]}.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/read_row.h"

enum { THREAD_MAX = 1024, DEPTH_MAX = 128, NODES_MAX = 50 * 1000 * 1000 };
/* Every leaf repeats its way, so that a tree may become the square of its bytes: at most so many of the longest row, where a turn counts
 * as its text and what a row says around it. */
enum { TREE_ROWS = 64, TURN_BYTES = 256 };

struct node {
    const char *id, *parent_id; /* in the arena; "" = none */
    const char *text;
    uint32_t text_len;
    uint32_t parent; /* index; NONE */
    bool assistant, deleted, has_child;
    bool used; /* as a response */
    bool seen; /* on a way from a root to a leaf */
    const char *file;
    uint64_t line;
    float *human;     /* [labels] */
    uint64_t emitted; /* of a root: bytes of the threads of its tree */
};
#define NONE UINT32_MAX

struct oasst {
    struct arena arena;
    struct node *node;
    uint32_t nodes, cap;
    bool flat;  /* nodes wait for the end of the files */
    bool trees; /* rows are whole trees or threads */
};

static struct oasst *oasst_of(struct reader *r)
{
    if (r->oasst == NULL)
        r->oasst = mem_zalloc(1, sizeof *r->oasst);
    return r->oasst;
}

void oasst_free(struct reader *r)
{
    if (r->oasst == NULL)
        return;
    arena_free(&r->oasst->arena);
    free(r->oasst->node);
    free(r->oasst);
    r->oasst = NULL;
}

static bool label_set(struct reader *r, const struct label *l, const cJSON *value, float *out)
{
    char path[80];

    if (value == NULL || cJSON_IsNull(value))
        return true;
    snprintf(path, sizeof path, "labels/%s", l->name);
    if (!cJSON_IsNumber(value) || !(value->valuedouble >= 0.0 && value->valuedouble <= 1.0))
        return row_bad(r, path, "must be a number in 0..1");
    if (l->type == LABEL_SCALE)
        *out = (float)(l->min + value->valuedouble * (l->max - l->min));
    return true;
}

static bool labels_read(struct reader *r, const cJSON *labels, float *human)
{
    const struct schema *s = r->config->schema;
    const cJSON *names = json_get(labels, "name"), *values = json_get(labels, "value"), *item;

    if (labels == NULL || cJSON_IsNull(labels))
        return true;
    if (!cJSON_IsObject(labels))
        return row_bad(r, "labels", "must be an object");
    if (cJSON_IsArray(names) && cJSON_IsArray(values)) { /* the table form */
        const cJSON *value = values->child;
        cJSON_ArrayForEach(item, names)
        {
            int i = cJSON_IsString(item) ? schema_find_label(s, item->valuestring) : -1;
            if (value == NULL)
                return row_bad(r, "labels", "name and value differ in length");
            if (i >= 0 && !label_set(r, &s->label[i], value, &human[i]))
                return false;
            value = value->next;
        }
        return true;
    }
    for (int i = 0; i < s->labels; i++) {
        const cJSON *one = json_get(labels, s->label[i].name);
        if (!label_set(r, &s->label[i], json_get(one, "value"), &human[i]))
            return false;
    }
    return true;
}

static const char *kept_text(struct oasst *o, const cJSON *m, const char *key)
{
    const char *text = json_string_or(m, key, "");

    return arena_text(&o->arena, text, strlen(text));
}

/* Adds a message; NONE if it is bad. */
static uint32_t node_add(struct reader *r, const cJSON *m, uint32_t parent)
{
    struct oasst *o = oasst_of(r);
    const struct schema *s = r->config->schema;
    const cJSON *text = json_get(m, "text");
    const char *role = json_string_or(m, "role", "");
    struct node *n;

    if (o->nodes == NODES_MAX) {
        row_bad(r, "", "more than %d messages", NODES_MAX);
        return NONE;
    }
    if (o->nodes == o->cap) {
        o->cap = o->cap * 2 + 256;
        o->node = mem_grow(o->node, o->cap, sizeof *o->node);
    }
    n = &o->node[o->nodes];
    memset(n, 0, sizeof *n);
    if (strcmp(role, "assistant") != 0 && strcmp(role, "prompter") != 0) {
        row_bad(r, "role", "\"%.60s\" is neither prompter nor assistant", role);
        return NONE;
    }
    n->assistant = role[0] == 'a';
    n->deleted = json_bool_or(m, "deleted", false);
    if (!cJSON_IsString(text) && !n->deleted) {
        row_bad(r, "text", text == NULL ? "is missing" : "must be text");
        return NONE;
    }
    n->id = kept_text(o, m, "message_id");
    n->parent_id = kept_text(o, m, "parent_id");
    n->text = kept_text(o, m, "text");
    n->text_len = (uint32_t)strlen(n->text);
    n->parent = parent;
    n->file = r->file;
    n->line = r->line;
    n->human = arena_alloc(&o->arena, sizeof(float) * (size_t)s->labels);
    for (int i = 0; i < s->labels; i++)
        n->human[i] = NAN;
    if (!labels_read(r, json_get(m, "labels"), n->human))
        return NONE;
    if (parent != NONE)
        o->node[parent].has_child = true;
    return o->nodes++;
}

static uint64_t tree_bytes_max(const struct reader *r)
{
    return (uint64_t)TREE_ROWS * r->config->limits.line_max;
}

/* The nodes from `leaf` up to its root. 0: too many. */
static uint32_t way_find(struct oasst *o, uint32_t leaf, uint32_t way[THREAD_MAX])
{
    uint32_t n = 0;

    for (uint32_t i = leaf; i != NONE; i = o->node[i].parent) {
        if (n == THREAD_MAX)
            return 0;
        o->node[i].seen = true;
        way[n++] = i;
    }
    return n;
}

/* Counts a way to its tree. False: the tree has become too much. */
static bool way_count(struct reader *r, const uint32_t *way, uint32_t n)
{
    struct node *root = &r->oasst->node[way[n - 1]];

    for (uint32_t i = 0; i < n; i++)
        root->emitted += TURN_BYTES + r->oasst->node[way[i]].text_len;
    return root->emitted <= tree_bytes_max(r);
}

/* False: all its replies stand in an earlier thread, or it has none. */
static bool way_draft(struct reader *r, const uint32_t *way, uint32_t n)
{
    struct oasst *o = r->oasst;
    bool fresh = false, answered = false;

    draft_begin(r);
    for (uint32_t i = n; i-- > 0 && !o->node[way[i]].deleted;) {
        struct node *m = &o->node[way[i]];
        bool respond = m->assistant && !m->used &&
                       (m->id[0] == '\0' || hash_set_add(&r->replies, text_hash(m->id)));
        struct turn *t =
            draft_turn(r, m->assistant ? ROLE_ASSISTANT : ROLE_USER, "", m->text, respond);
        m->used = m->used || m->assistant;
        answered = answered || m->assistant;
        fresh = fresh || respond;
        memcpy(t->human, m->human, sizeof(float) * (size_t)r->config->schema->labels);
    }
    r->counts->threads_short += !answered;
    r->counts->threads_repeated += answered && !fresh;
    return fresh;
}

/* Messages without ids are told by their place: the threads of a tree by their leaves, the tree by its root. */
static void way_name(struct reader *r, uint32_t leaf, uint32_t root)
{
    const struct node *l = &r->oasst->node[leaf], *top = &r->oasst->node[root];
    char place[300], id[sizeof place + 12];

    snprintf(place, sizeof place, "%s:%llu", top->file, (unsigned long long)top->line);
    snprintf(id, sizeof id, "%s#%u", place, leaf);
    r->draft.id = l->id[0] != '\0' ? l->id : arena_text(&r->draft.arena, id, strlen(id));
    r->draft.split_key = /* the whole tree goes to one side */
        top->id[0] != '\0' ? top->id : arena_text(&r->draft.arena, place, strlen(place));
}

/* One way from the root to `leaf` as a conversation. False: a problem of the data, or r->rc is set. */
static bool thread_emit(struct reader *r, uint32_t leaf)
{
    const struct read_config *c = r->config;
    struct oasst *o = r->oasst;
    uint32_t way[THREAD_MAX], n;

    if (c->cancelled != NULL && c->cancelled(c->self)) {
        r->rc = err_set(r->e, ERR_CANCELLED, "asked to stop");
        return false;
    }
    n = way_find(o, leaf, way);
    if (n == 0)
        return row_bad(r, "", "thread of message %.60s is longer than %d turns or goes round",
                       o->node[leaf].id, THREAD_MAX);
    if (!way_count(r, way, n))
        return row_bad(r, "",
                       "tree of message %.60s becomes more than %llu bytes of threads: thread of "
                       "message %.60s is left out, and all after it",
                       o->node[way[n - 1]].id, (unsigned long long)tree_bytes_max(r),
                       o->node[leaf].id);
    if (!way_draft(r, way, n))
        return true;
    way_name(r, leaf, way[n - 1]);
    return draft_end(r);
}

/* All threads of the one tree that the nodes are. */
static bool nodes_emit(struct reader *r)
{
    struct oasst *o = r->oasst;
    bool good = true;

    for (uint32_t i = 0; i < o->nodes && r->rc == 0 && o->node[0].emitted <= tree_bytes_max(r); i++)
        if (!o->node[i].has_child && !reader_is_full(r))
            good = thread_emit(r, i) && good;
    return good;
}

static void nodes_clear(struct oasst *o)
{
    arena_clear(&o->arena);
    o->nodes = 0;
}

static bool replies_add(struct reader *r, const cJSON *message, uint32_t parent, int depth)
{
    uint32_t at = node_add(r, message, parent);
    const cJSON *replies = json_get(message, "replies"), *item;

    if (at == NONE)
        return false;
    if (depth == DEPTH_MAX)
        return row_bad(r, "replies", "tree is deeper than %d", DEPTH_MAX);
    cJSON_ArrayForEach(item, replies)
    {
        if (!replies_add(r, item, at, depth + 1))
            return false;
    }
    return true;
}

static bool thread_add(struct reader *r, const cJSON *thread)
{
    uint32_t parent = NONE;
    const cJSON *item;

    cJSON_ArrayForEach(item, thread)
    {
        parent = node_add(r, item, parent);
        if (parent == NONE)
            return false;
    }
    return true;
}

bool oasst_row(struct reader *r, const cJSON *row)
{
    struct oasst *o = oasst_of(r);
    const cJSON *prompt = json_get(row, "prompt"), *thread = json_get(row, "thread");
    bool good;

    if (!cJSON_IsObject(prompt) && !cJSON_IsArray(thread)) {
        if (json_get(row, "message_id") == NULL)
            return row_bad(r, "message_id", "is missing");
        if (o->trees)
            return row_bad(r, "", "a flat message among trees or threads");
        o->flat = true;
        return node_add(r, row, NONE) != NONE;
    }
    if (o->flat)
        return row_bad(r, "", "a tree or thread among flat messages");
    o->trees = true;
    nodes_clear(o);
    good = cJSON_IsObject(prompt) ? replies_add(r, prompt, NONE, 0) : thread_add(r, thread);
    return good && nodes_emit(r);
}

/* ---- flat messages --------------------------------------------------------------------------- */

struct by_id {
    const char *id;
    uint32_t index;
};

static int by_id_compare(const void *a, const void *b)
{
    return strcmp(((const struct by_id *)a)->id, ((const struct by_id *)b)->id);
}

static void place_of(struct reader *r, const struct node *n)
{
    r->file = n->file;
    r->line = n->line;
}

/* Finds parents by id. A message whose parent is not there is a problem; what hangs on it stays without a root and is left out. */
static void parents_find(struct reader *r, bool *lost)
{
    struct oasst *o = r->oasst;
    struct by_id *index = mem_zalloc(o->nodes, sizeof *index);

    for (uint32_t i = 0; i < o->nodes; i++)
        index[i] = (struct by_id){o->node[i].id, i};
    qsort(index, o->nodes, sizeof *index, by_id_compare);
    for (uint32_t i = 0; i < o->nodes; i++) {
        struct node *n = &o->node[i];
        struct by_id key = {n->parent_id, 0};
        const struct by_id *found;
        if (n->parent_id[0] == '\0')
            continue;
        found = bsearch(&key, index, o->nodes, sizeof *index, by_id_compare);
        place_of(r, n);
        lost[i] = found == NULL;
        if (found == NULL) {
            row_bad(r, "parent_id", "message %.60s is not in the files", n->parent_id);
            r->counts->rows_bad++;
            continue;
        }
        n->parent = found->index;
        o->node[found->index].has_child = true;
    }
    free(index);
}

/* Does the way up end at a root, and not at a lost parent? Cycles are found by thread_emit's bound. */
static bool is_rooted(const struct oasst *o, const bool *lost, uint32_t i)
{
    for (uint32_t steps = 0; steps < THREAD_MAX && i != NONE; steps++) {
        if (lost[i])
            return false;
        i = o->node[i].parent;
    }
    return true;
}

void oasst_end(struct reader *r)
{
    struct oasst *o = r->oasst;
    bool *lost;

    if (o == NULL || !o->flat || o->nodes == 0)
        return;
    lost = mem_zalloc(o->nodes, sizeof *lost);
    parents_find(r, lost);
    for (uint32_t i = 0; i < o->nodes && r->rc == 0 && !reader_is_full(r); i++) {
        if (o->node[i].has_child || !is_rooted(o, lost, i))
            continue;
        place_of(r, &o->node[i]);
        r->counts->rows_bad += !thread_emit(r, i) && r->rc == 0;
    }
    for (uint32_t i = 0; i < o->nodes && r->rc == 0 && !reader_is_full(r); i++) {
        if (o->node[i].seen || !is_rooted(o, lost, i))
            continue;
        place_of(r, &o->node[i]);
        row_bad(r, "parent_id", "message %.60s answers itself over other messages", o->node[i].id);
        r->counts->rows_bad++;
    }
    free(lost);
}
