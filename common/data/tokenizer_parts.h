/*
 * tokenizer_parts: the inside of a tokenizer, shared by the tokenizer_*.c files and their tests
 * only.
 *
 * Both kinds end in the same loop: a row of symbols, a table of pairs that may merge (each with a
 * rank), and "take the pair of lowest rank, leftmost first" until none is left. Text of pieces is
 * kept as the bytes that they stand for.
 */
#ifndef DATA_TOKENIZER_PARTS_H
#define DATA_TOKENIZER_PARTS_H

#include "data/tokenizer.h"
#include "json/json.h"

#define TOKENIZER_IDS_MAX (1 << 20)
#define TOKENIZER_PIECE_BYTES_MAX 4096 /* longest token of a tokenizer.json */
#define TOKENIZER_TEXT_MAX (16u << 20) /* longest text of one encode */
#define TOKENIZER_FILE_MAX (64u << 20)

enum tokenizer_kind {
    TOKENIZER_BYTE_LEVEL,   /* symbols are bytes; patterns cut the text into words first */
    TOKENIZER_BYTE_FALLBACK /* symbols are characters, or <0xHH> bytes where there is no piece; the
                               text is one word */
};
enum tokenizer_prefix { /* the space put in front of a text */
                        PREFIX_NEVER,
                        PREFIX_ALWAYS,       /* normalizer Prepend, llama2.c */
                        PREFIX_UNLESS_SPACE, /* Metaspace always, ByteLevel add_prefix_space */
                        PREFIX_FIRST /* Metaspace first: as UNLESS_SPACE, at the start of the whole
                                        text only */
};
enum {
    PIECE_ADDED = 1, /* an added token: matched whole, and only when special parsing is asked for */
    PIECE_SPECIAL = 2, /* ... that is no text: left out when decoding */
    PIECE_BYTE = 4,    /* <0xHH> of the byte-fallback kind */
    PIECE_WHOLE =
        8, /* encoding the piece's own bytes gives the piece: lets a word skip the merge loop */
    PIECE_UNTEXT = 16, /* can't be made of text: not in the hash */
    PIECE_LSTRIP = 32, /* added token that swallows white space before it */
    PIECE_RSTRIP = 64  /* ... after it */
};

struct tokenizer_piece {
    uint32_t at, len; /* in pieces.text */
    uint8_t flags;
};
struct tokenizer_pieces {
    struct buf text;
    struct tokenizer_piece *v;
    size_t n, cap;
    uint32_t *slot; /* id + 1, open addressing, 0 = free: pieces that text can become */
    size_t slots;
};
struct tokenizer_pair {
    int32_t left, right, id; /* left -1: a free slot */
    uint32_t rank;
};
struct tokenizer_pairs {
    struct tokenizer_pair *slot;
    size_t slots, n;
};

#define TOKENIZER_STAGES_MAX 4
struct tokenizer {
    enum tokenizer_kind kind;
    enum tokenizer_prefix prefix;
    bool nfc, ignore_merges, fuse_unk;
    struct tokenizer_pieces pieces;
    struct tokenizer_pairs pairs;
    int32_t byte_id[256];  /* byte-level: the one-byte piece; byte-fallback: <0xHH>; -1 if absent */
    int32_t unk, bos, eos; /* -1: none */
    const struct tokenizer_pattern
        *stage[TOKENIZER_STAGES_MAX]; /* byte-level: cuts applied one inside the other */
    int stages;
    int32_t *added; /* ids of added tokens, in order of adding */
    size_t added_n, added_cap;
    uint32_t added_first[8]; /* set of first bytes of added tokens */
    uint64_t serial;         /* of this process; names it in caches of threads */
    uint32_t *joins; /* byte-fallback: which characters a merge can join (tokenizer_fallback.c);
                        NULL: any */
    bool tied_ranks; /* two pieces share a score, which merges in a file cannot say */
    char *source, *source_config; /* text of the tokenizer.json and tokenizer_config.json read; NULL
                                     if made */
};

/* ---- tokenizer_pieces.c: tables -------------------------------------------------------------- */

/* Appends a piece; its id is the number of pieces before. The text is copied. */
int32_t tokenizer_pieces_add(struct tokenizer_pieces *p, const char *text, size_t len,
                             uint8_t flags);
/* (Re)builds the hash over pieces that are not UNTEXT. ERR_INVALID naming two ids of one text. */
int tokenizer_pieces_index(struct tokenizer_pieces *p, struct err *e);
int32_t tokenizer_pieces_find(const struct tokenizer_pieces *p, const char *text,
                              size_t len); /* -1 */
void tokenizer_pairs_init(struct tokenizer_pairs *p, size_t expected);
void tokenizer_pairs_put(struct tokenizer_pairs *p, int32_t left, int32_t right, uint32_t rank,
                         int32_t id); /* replaces */
const struct tokenizer_pair *tokenizer_pairs_find(const struct tokenizer_pairs *p, int32_t left,
                                                  int32_t right);
void tokenizer_added_push(struct tokenizer *t, int32_t id);

/* ---- tokenizer_merge.c: the loop ------------------------------------------------------------- */

struct tokenizer_work; /* scratch of one encode, and words that were encoded before */
struct tokenizer_work *tokenizer_work_take(void); /* the calling thread's, kept between encodes */
void tokenizer_work_done(struct tokenizer_work *w);
void tokenizer_work_clear(struct tokenizer_work *w);
void tokenizer_work_push(struct tokenizer_work *w, int32_t id);
/* Merges what was pushed and appends the ids. O(n log n). */
void tokenizer_work_merge(struct tokenizer_work *w, const struct tokenizer_pairs *pairs,
                          struct ids *out);
/* Appends the ids of a word that was kept before, true; else false. */
bool tokenizer_work_recall(const struct tokenizer_work *w, const struct tokenizer *t,
                           const char *word, size_t len, struct ids *out);
/* Keeps them, if they are few. Encoding must be a function of the word alone. */
void tokenizer_work_keep(struct tokenizer_work *w, const struct tokenizer *t, const char *word,
                         size_t len, const int32_t *ids, size_t n);
uint64_t tokenizer_hash(const char *text, size_t len);

/* ---- tokenizer_bytelevel.c, tokenizer_fallback.c: one text without added tokens -------------- */

int tokenizer_bytelevel_encode(const struct tokenizer *t, const char *text, size_t len,
                               struct tokenizer_work *w, struct ids *out, struct err *e);
void tokenizer_bytelevel_mark(struct tokenizer *t); /* sets PIECE_WHOLE */
uint32_t tokenizer_byte_char(uint8_t byte);         /* GPT-2's printable stand-in of a byte */
/* Piece text of a file ("\u0120the") to bytes (" the"). False if it has a character that stands for
 * no byte. */
bool tokenizer_byte_text(const char *text, size_t len, struct buf *out);
int tokenizer_fallback_encode(const struct tokenizer *t, const char *text, size_t len, bool prefix,
                              struct tokenizer_work *w, struct ids *out, struct err *e);
int tokenizer_fallback_read(const char *path, struct tokenizer *t,
                            struct err *e);                    /* llama2.c tokenizer.bin */
void tokenizer_fallback_mark(struct tokenizer *t);             /* sets joins */
size_t tokenizer_fallback_space(const char *text, size_t len); /* 3 if U+2581 stands here, else 0 */

/* ---- tokenizer_pattern.c: known pre-tokenizer patterns --------------------------------------- */

const struct tokenizer_pattern *
tokenizer_pattern_find(const char *regex); /* exact text, as in a tokenizer.json; NULL */
const struct tokenizer_pattern *tokenizer_pattern_digits(bool individually); /* Digits */
const struct tokenizer_pattern *tokenizer_pattern_gpt2(void); /* ByteLevel with use_regex */
/* End of the next piece of text[0, len) that begins at `at`. Text is valid UTF-8. */
int tokenizer_pattern_next(const struct tokenizer_pattern *p, const char *text, size_t len,
                           size_t at, size_t *end, struct err *e);

/* ---- tokenizer_json.c ------------------------------------------------------------------------ */

int tokenizer_json_read(const char *path, struct tokenizer *t, struct err *e);

#endif
