#include "data/labels.h"

#include <stdio.h>
#include <string.h>

static int piece_add(struct label_table *l, const struct tokenizer *t, const char *text,
                     struct span *out, struct err *e)
{
    int rc;

    out->begin = (uint32_t)l->pool.n;
    rc = tokenizer_encode(t, text, strlen(text), TOKENIZE_CONTINUE, &l->pool, e);
    out->end = (uint32_t)l->pool.n;
    return rc;
}

static void token_add(struct label_table *l, int32_t id, struct span *out)
{
    out->begin = (uint32_t)l->pool.n;
    ids_push(&l->pool, id);
    out->end = (uint32_t)l->pool.n;
}

static void control_build(const struct template_config *c, struct label_table *l)
{
    for (int a = 0; a < c->schema.attrs; a++) {
        for (int level = 0; level < c->schema.attr[a].levels; level++)
            token_add(l, template_control_id(c, a, level), &l->value[a][level]);
        token_add(l, template_control_id(c, a, -1), &l->missing[a]);
    }
}

static int text_build(const struct template_config *c, const struct tokenizer *t,
                      const int8_t *only, struct label_table *l, struct err *e)
{
    bool nemo = c->name == TEMPLATE_NEMO || c->name == TEMPLATE_PAPER;
    int rc = 0;

    if (nemo)
        token_add(l, tokenizer_id(t, "<extra_id_2>"), &l->open);
    else
        rc = piece_add(l, t, " <attr>", &l->open, e);
    if (rc == 0)
        rc = piece_add(l, t, nemo ? "\n" : "</attr>\n", &l->close, e);
    if (rc == 0)
        rc = piece_add(l, t, ",", &l->comma, e);
    for (int a = 0; a < c->schema.attrs && rc == 0; a++) {
        const struct attr *x = &c->schema.attr[a];
        int first = x->type == ATTR_INTEGER && !x->binned ? x->min : 0;
        char text[SCHEMA_NAME_MAX + 2];
        if (only != NULL && only[a] < 0)
            continue;
        snprintf(text, sizeof text, "%s:", x->name);
        rc = piece_add(l, t, text, &l->key[a], e);
        for (int level = 0; level < x->levels && rc == 0; level++) {
            if (only != NULL && only[a] != level)
                continue;
            snprintf(text, sizeof text, "%d", first + level);
            rc = piece_add(l, t, text, &l->value[a][level], e);
        }
    }
    return rc;
}

int label_table_build(const struct template_config *c, const struct tokenizer *t,
                      const int8_t *only, struct label_table *out, struct err *e)
{
    int rc = 0;

    memset(out, 0, sizeof *out);
    out->attrs = c->schema.attrs;
    for (int a = 0; a < c->schema.attrs; a++)
        out->levels[a] = c->schema.attr[a].levels;
    if (c->name == TEMPLATE_CONTROL && c->head == TEMPLATE_POLICY)
        control_build(c, out);
    else
        rc = text_build(c, t, only, out, e);
    if (rc != 0)
        label_table_free(out);
    return rc;
}

void label_table_free(struct label_table *l)
{
    ids_free(&l->pool);
    memset(l, 0, sizeof *l);
}

static uint32_t span_write(const struct label_table *l, struct span s, int32_t *out, uint32_t at)
{
    uint32_t n = s.end - s.begin;

    if (out != NULL && n > 0)
        memcpy(out + at, l->pool.v + s.begin, n * sizeof *out);
    return n;
}

uint32_t label_table_write(const struct label_table *l, const int8_t *level, int32_t *out)
{
    uint32_t n = 0;
    bool any = false;

    for (int a = 0; a < l->attrs; a++) {
        CHECK(level[a] < l->levels[a]);
        if (level[a] < 0) {
            n += span_write(l, l->missing[a], out, n);
            continue;
        }
        n += span_write(l, any ? l->comma : l->open, out, n); /* control has neither */
        any = true;
        n += span_write(l, l->key[a], out, n);
        n += span_write(l, l->value[a][level[a]], out, n);
    }
    if (any)
        n += span_write(l, l->close, out, n);
    return n;
}

uint32_t label_table_say(const struct label_table *l, const int8_t *level, struct ids *out)
{
    uint32_t n = label_table_write(l, level, NULL);

    if (out == NULL || n == 0)
        return n;
    if (out->cap - out->n < n) {
        out->cap = out->n + n + 64;
        out->v = mem_grow(out->v, out->cap, sizeof *out->v);
    }
    label_table_write(l, level, out->v + out->n);
    out->n += n;
    return n;
}

uint32_t label_table_longest(const struct label_table *l)
{
    uint32_t n = l->open.end - l->open.begin + (l->close.end - l->close.begin);

    for (int a = 0; a < l->attrs; a++) {
        uint32_t most = l->missing[a].end - l->missing[a].begin;
        for (int level = 0; level < l->levels[a]; level++) {
            uint32_t m = l->key[a].end - l->key[a].begin + (l->comma.end - l->comma.begin) +
                         (l->value[a][level].end - l->value[a][level].begin);
            most = m > most ? m : most;
        }
        n += most;
    }
    return n;
}
