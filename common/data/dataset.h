/*
 * dataset: canonical conversations. What `prepare` makes of raw files, `annotate` adds to, and everything else reads.
 *
 * On disk (a directory artefact): rows.jsonl (one conversation a line, canonical JSON), meta.json (schema, counts per
 * split, problems by file and line, clean flags, edges). In memory: arrays, strings in one arena.
 */
#ifndef DATA_DATASET_H
#define DATA_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "data/arena.h"
#include "data/lines.h"
#include "data/schema.h"

/* Bytes of a line of rows.jsonl: no writer makes a longer one, every reader takes one as long. A raw row may become a longer one, as
 * characters are escaped and threads are joined. */
#define DATASET_ROW_MAX ((size_t)32 << 20)
#define DATASET_LINES ((struct lines_limits){DATASET_ROW_MAX, LINES_LIMITS.total_max})

enum role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT };
enum split { SPLIT_TRAIN, SPLIT_HELD_OUT };

struct turn {
    enum role role;
    const char *speaker; /* as the data names it; "" if it does not */
    const char *text;    /* UTF-8, cleaned as the data spec says, no NUL */
    uint32_t text_len;
    bool respond; /* a response to learn from, label and score */
    bool
        kept; /* set by annotate: within keep.max_reply_tokens of its tokenizer; true before annotation */
    bool truncated;  /* set by annotate: the attribute model saw it cut */
    uint32_t tokens; /* set by annotate: length in tokens of its tokenizer; 0 before */
    float *human;    /* [schema.labels] class index or number; NaN = missing */
    float *
        value; /* [schema.attrs] predicted probability or number, or computed measure; NaN = missing */
    int8_t
        *level; /* [schema.attrs] conditioning level; -1 = missing; NULL: nothing is said of it */
};

struct conversation {
    const char *id;
    const char *source; /* "file:line" */
    enum split split;
    uint32_t fold; /* keyed by id; taken modulo the number of folds */
    uint32_t turns;
    struct turn *turn;
};

struct dataset {
    struct schema schema;
    size_t conversations, responses; /* responses: turns with respond set */
    struct conversation *conversation;
    cJSON *meta; /* whole meta.json */
    void *arena; /* owns everything above */
};

int dataset_load(const char *dir, struct dataset *out, struct err *e);
/* Meta and schema only. */
int dataset_meta_load(const char *dir, struct dataset *out, struct err *e);
void dataset_free(struct dataset *d);
/* Response i of [0, responses): its conversation and turn index. O(1). */
void dataset_response(const struct dataset *d, size_t i, size_t *conversation, uint32_t *turn);

/* One conversation as its line of rows.jsonl (without the line end), and back: for part files of row ranges. */
void dataset_row_text(const struct conversation *c, const struct schema *s, struct buf *out);
int dataset_parse_row(const char *line, size_t len, const struct schema *s, struct arena *a,
                      struct conversation *out, struct err *e);
/* May the conversation become a row? Counted with all that later stages may say of its turns, so that it stays one when it is annotated.
 * False: bytes is how long it would be at least. */
bool dataset_row_fits(const struct conversation *c, const struct schema *s, size_t *bytes);
void dataset_turn_init(struct turn *t, const struct schema *s,
                       struct arena *a); /* human, value and level: all missing */

/* Writing: header once, conversations in order, end writes meta.json (counts filled in) and syncs. */
struct dataset_writer;
int dataset_writer_new(const char *dir, const struct schema *s, struct dataset_writer **out,
                       struct err *e);
/* ERR_LIMIT: the row is longer than DATASET_ROW_MAX. */
int dataset_write(struct dataset_writer *w, const struct conversation *c, struct err *e);
int dataset_writer_end(struct dataset_writer **w, const cJSON *extra_meta,
                       struct err *e); /* frees w */
void dataset_writer_abort(struct dataset_writer **w);

#endif
