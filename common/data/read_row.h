/* read_row: what the format readers of this room share: a draft of the conversation being read, and where problems go. */
#ifndef DATA_READ_ROW_H
#define DATA_READ_ROW_H

#include "data/read.h"

struct hash_set {   /* of 64-bit hashes */
    uint64_t *slot; /* 0 = free */
    size_t used, cap;
};
bool hash_set_add(struct hash_set *s, uint64_t hash); /* false: it was there */
uint64_t text_hash(const char *text);                 /* never 0 */

struct draft {
    struct arena arena;
    struct turn *turn;
    uint32_t turns, cap;
    const char *id;        /* NULL: file:line */
    const char *split_key; /* NULL: id */
};

struct oasst;
struct reader {
    const struct read_config *config;
    struct problems *problems;
    struct read_counts *counts;
    const char *file;
    uint64_t line;
    struct draft draft;
    struct hash_set ids, replies;
    struct buf scratch;
    struct oasst *oasst;
    int rc; /* of emit: stops the reading */
    struct err *e;
};

/* Records a problem of the row; always false, so that `return row_bad(...)` reads well. path may be "". */
bool row_bad(struct reader *r, const char *path, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void draft_begin(struct reader *r);
struct turn *draft_turn(struct reader *r, enum role role, const char *speaker, const char *text,
                        bool respond);
/* Sets turn's label from a member of the data; NULL and null are "missing". prefix: path of what holds the member. */
bool draft_label(struct reader *r, struct turn *t, int label, const cJSON *value,
                 const char *prefix);
/* All labels of the schema that object has as members. */
bool draft_labels(struct reader *r, struct turn *t, const cJSON *object, const char *prefix);
/* Cleans, checks, splits, measures and emits the draft. False: it was a bad row, or r->rc is set. */
bool draft_end(struct reader *r);

/* Are as many conversations out as the limit allows? */
bool reader_is_full(const struct reader *r);

/* One row of a format. False: bad row, the problem is recorded. */
bool row_read(struct reader *r, enum read_format format, const cJSON *row);
/* Which format has such rows? READ_AUTO: none. */
enum read_format row_detect(const cJSON *row);

bool oasst_row(struct reader *r, const cJSON *row);
void oasst_end(struct reader *r); /* after the last file: flat messages become threads */
void oasst_free(struct reader *r);

#endif
