/*
 * labels: how a set of levels is said in tokens. One function says it everywhere (training, prompts, decoding), so that what is
 * learnt is what is asked for.
 *
 *   control      one token an attribute, its missing token included
 *   plain        "<attr>" name:level , name:level "</attr>\n", missing ones left out; nothing at all when all are missing
 *   nemo, paper  <extra_id_2> name:level , name:level "\n", likewise
 * Text is encoded key by key and value by value ("quality:" + "4" + ","), never across, so that a dropped attribute leaves the tokens of
 * the others alone.
 */
#ifndef DATA_LABELS_H
#define DATA_LABELS_H

#include "data/template.h"

struct span {
    uint32_t begin, end;
};

struct label_table { /* the pieces, encoded once */
    struct ids pool;
    struct span open, close, comma;
    struct span key[SCHEMA_ATTRS_MAX];
    struct span value[SCHEMA_ATTRS_MAX][SCHEMA_LEVELS_MAX];
    struct span missing[SCHEMA_ATTRS_MAX]; /* control: the missing token; text: empty */
    int attrs;
    int levels[SCHEMA_ATTRS_MAX];
};

/* only: the levels that will be said, to spare the encoding of all others; NULL: everything. */
int label_table_build(const struct template_config *c, const struct tokenizer *t,
                      const int8_t *only, struct label_table *out, struct err *e);
void label_table_free(struct label_table *l);
/* Writes the tokens of level[attrs] (-1 = missing) to out; returns how many. out NULL: only counts. */
uint32_t label_table_write(const struct label_table *l, const int8_t *level, int32_t *out);
uint32_t label_table_say(const struct label_table *l, const int8_t *level,
                         struct ids *out);                 /* the same, appended */
uint32_t label_table_longest(const struct label_table *l); /* whatever the levels */

#endif
