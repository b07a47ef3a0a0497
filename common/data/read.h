/*
 * read: raw data files of the formats that people have, into canonical conversations.
 *
 * One file holds one format; `auto` tells it by the members of the first good row. A row that is bad in any way (JSON, UTF-8, too
 * long, wrong type, label out of range, no text, no response, an id seen before) becomes a problem with file, line and path and
 * the reading goes on; too large a share of them is an error at the end. Nothing is dropped without a count.
 * Formats: docs of each row function in read_formats.c. Sources: HelpSteer and HelpSteer2 cards, OASST's data schema, OpenAI chat,
 * ShareGPT, NeMo-Aligner's preprocessing scripts.
 */
#ifndef DATA_READ_H
#define DATA_READ_H

#include "data/dataset.h"
#include "data/lines.h"

#define READ_FORMATS(X)                                                                            \
    X(READ_AUTO, "auto")                                                                           \
    X(READ_MAP, "map")                                                                             \
    X(READ_HELPSTEER, "helpsteer")                                                                 \
    X(READ_OASST, "oasst")                                                                         \
    X(READ_MESSAGES, "messages")                                                                   \
    X(READ_SHAREGPT, "sharegpt")                                                                   \
    X(READ_NEMO_CHAT, "nemo-chat")                                                                 \
    X(READ_NEMO_REGRESSION, "nemo-regression")                                                     \
    X(READ_TEXT, "text")
enum read_format {
#define X(name, text) name,
    READ_FORMATS(X)
#undef X
        READ_FORMAT_COUNT
};
int read_format_find(const char *name, enum read_format *out, struct err *e);
const char *read_format_name(enum read_format f);

#define READ_LIST_MAX 32
struct read_map { /* READ_MAP: names of members; "" = not there. All strings borrowed. */
    const char *conversation, *id, *text, *speaker; /* conversation: the list of turns */
    const char *prompt, *response; /* when conversation is "": one row is one prompt and response */
    const char *respond[READ_LIST_MAX]; /* speakers whose turns are responses; none: every turn */
    int respond_n;
    const char
        *labels[READ_LIST_MAX]; /* members that are human labels; none: all that the schema names */
    int labels_n;
};

struct read_config {
    enum read_format format;
    struct read_map map;
    const struct schema *schema;
    unsigned clean; /* data/clean.h */
    double
        held_out; /* share of conversations, keyed by seed and id (HelpSteer: the prompt; OASST: the tree) */
    uint64_t seed;
    uint64_t limit;      /* conversations to emit at most; 0 = all */
    double problems_max; /* share of rows */
    struct lines_limits limits;
    void *self;
    int (*emit)(void *self, const struct conversation *c,
                struct err *e);    /* c is borrowed during the call */
    bool (*cancelled)(void *self); /* may be NULL; asked every few rows */
};

struct problem {
    char *file;
    uint64_t line; /* 0 = the whole file */
    char *path;    /* "content/3/sentiment"; "" = the row */
    char *text;
};
struct problems {
    size_t total; /* all that were found */
    size_t n;     /* PROBLEMS_KEPT of them at most are kept */
    struct problem *v;
};
#define PROBLEMS_KEPT 1000
void problems_free(struct problems *p);
cJSON *problems_to_json(const struct problems *p); /* [{"file","line","path","text"}] */

struct read_counts {
    uint64_t rows, rows_bad;                 /* lines that are not blank */
    uint64_t conversations[2], responses[2]; /* by split */
    uint64_t turns_empty;      /* nothing left of the text: stays as context, is no response */
    uint64_t threads_short;    /* OASST: threads without a reply */
    uint64_t threads_repeated; /* OASST: threads all of whose replies stand in an earlier thread */
};
cJSON *read_counts_to_json(const struct read_counts *c);

/* names[i] is what paths[i] is called in messages. ERR_INVALID: unknown format, or too many problems (the head of the list is in
 * the message); ERR_CORRUPT, ERR_LIMIT: damaged compression; ERR_CANCELLED; what emit returns. */
int read_files(const struct read_config *c, const char *const *paths, const char *const *names,
               int n, struct problems *problems, struct read_counts *counts, struct err *e);

#endif
