/*
 * The label string as a grammar: key 0, one of its values, comma, key 1, ..., close. The pieces are those of labels.c, so a decoded string
 * is made of the same tokens as a learnt one. Where two values share a first token ("1" and "10"), the branch is decided token by token.
 */
#include <stdlib.h>
#include <string.h>

#include "data/labels.h"
#include "data/template.h"

struct template_grammar {
    struct label_table table;
    int attr[SCHEMA_ATTRS_MAX]; /* those that are said, in order */
    int attrs;
};

int template_grammar_new(const struct template_config *c, const struct tokenizer *t,
                         struct template_grammar **out, struct err *e)
{
    struct template_grammar *g;
    int rc;

    CHECK(c->head == TEMPLATE_HEAD_LM);
    *out = NULL;
    g = mem_zalloc(1, sizeof *g);
    rc = label_table_build(c, t, NULL, &g->table, e);
    if (rc != 0) {
        free(g);
        return rc;
    }
    for (int a = 0; a < c->schema.attrs; a++)
        if (c->schema.attr[a].type != ATTR_COMPUTED)
            g->attr[g->attrs++] = a;
    *out = g;
    return 0;
}

void template_grammar_free(struct template_grammar *g)
{
    if (g == NULL)
        return;
    label_table_free(&g->table);
    free(g);
}

static uint32_t span_len(struct span s)
{
    return s.end - s.begin;
}

/* How far `generated` follows span s from `at` on: up to its length. */
static uint32_t follows(const struct template_grammar *g, struct span s, const int32_t *generated,
                        size_t n, size_t at)
{
    uint32_t k = 0;

    while (k < span_len(s) && at + k < n && generated[at + k] == g->table.pool.v[s.begin + k])
        k++;
    return k;
}

/* Where a walk over the string came to. */
struct walk {
    size_t at; /* tokens that were consumed */
    bool done, broken;
    struct span rest; /* what must come next, if it is one thing */
    int attr;         /* else one of this attribute's values, of which `value_tokens` are there */
    size_t value_tokens;
};

static void walk_span(const struct template_grammar *g, struct span s, const int32_t *generated,
                      size_t n, struct walk *w, bool *stop)
{
    uint32_t k = follows(g, s, generated, n, w->at);

    w->at += k;
    if (k == span_len(s))
        return;
    *stop = true;
    w->broken = w->at < n;
    w->rest = (struct span){s.begin + k, s.end};
}

/* The value whose tokens stand at w->at: the longest that fits wholly. -1: none yet. */
static int walk_value(const struct template_grammar *g, int attr, const int32_t *generated,
                      size_t n, const struct walk *w)
{
    int best = -1;
    uint32_t best_len = 0;

    for (int l = 0; l < g->table.levels[attr]; l++) {
        struct span s = g->table.value[attr][l];
        if (follows(g, s, generated, n, w->at) == span_len(s) && span_len(s) > best_len) {
            best = l;
            best_len = span_len(s);
        }
    }
    return best;
}

static struct walk walk(const struct template_grammar *g, const int32_t *generated, size_t n,
                        int8_t *level)
{
    struct walk w = {.attr = -1};
    bool stop = false;

    for (int i = 0; i < g->attrs; i++) {
        int a = g->attr[i], value;
        if (i > 0)
            walk_span(g, g->table.comma, generated, n, &w, &stop);
        if (!stop)
            walk_span(g, g->table.key[a], generated, n, &w, &stop);
        if (stop)
            return w;
        value = walk_value(g, a, generated, n, &w);
        if (value < 0) {
            w.attr = a;
            w.value_tokens = n - w.at;
            return w;
        }
        w.at += span_len(g->table.value[a][value]);
        if (level != NULL)
            level[a] = (int8_t)value;
        if (w.at == n)
            w.attr = a; /* a longer value may still go on from here */
        w.value_tokens = w.at == n ? span_len(g->table.value[a][value]) : 0;
        if (w.at == n)
            w.at -= w.value_tokens;
        if (w.value_tokens > 0) {
            w.rest = i + 1 < g->attrs ? g->table.comma : g->table.close;
            return w;
        }
        w.attr = -1;
    }
    walk_span(g, g->table.close, generated, n, &w, &stop);
    w.done = !stop;
    return w;
}

static size_t id_put(int32_t *ids, size_t n, size_t cap, int32_t id)
{
    size_t at = 0;

    while (at < n && ids[at] < id)
        at++;
    if ((at < n && ids[at] == id) || n == cap)
        return n;
    memmove(ids + at + 1, ids + at, (n - at) * sizeof *ids);
    ids[at] = id;
    return n + 1;
}

size_t template_grammar_allowed(void *grammar, uint64_t key, const int32_t *generated, size_t n,
                                int32_t *ids, size_t cap)
{
    const struct template_grammar *g = grammar;
    struct walk w;
    size_t count = 0;

    (void)key;
    if (g->attrs == 0)
        return 0;
    w = walk(g, generated, n, NULL);
    if (w.done || w.broken)
        return 0;
    if (span_len(w.rest) > 0)
        count = id_put(ids, count, cap, g->table.pool.v[w.rest.begin]);
    for (int l = 0; w.attr >= 0 && l < g->table.levels[w.attr]; l++) {
        struct span s = g->table.value[w.attr][l];
        if (span_len(s) > w.value_tokens && follows(g, s, generated, n, w.at) == w.value_tokens)
            count = id_put(ids, count, cap, g->table.pool.v[s.begin + w.value_tokens]);
    }
    return count;
}

void template_grammar_levels(const struct template_grammar *g, const int32_t *generated, size_t n,
                             int8_t *level)
{
    memset(level, -1, (size_t)g->table.attrs);
    walk(g, generated, n, level);
}

size_t template_grammar_longest(const struct template_grammar *g)
{
    return label_table_longest(&g->table);
}
