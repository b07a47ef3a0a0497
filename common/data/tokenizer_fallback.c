/*
 * Byte-fallback BPE (llama2.c tokenizer.bin, the Llama-2 kind of tokenizer.json): the text, with a
 * space in front, is one word; symbols are characters, or one <0xHH> token per byte of a character
 * that is no piece.
 *
 * llama2.c ("run.c", encode) merges the pair whose joined text is the piece of highest score,
 * leftmost first. Here every way to cut a piece in two is put into the table of pairs once, with
 * the score's place in falling order as its rank. One difference: U+2581, by which SentencePiece
 * and the Hugging Face files write a space, is read as a space in both kinds, so that a vocabulary
 * encodes alike before and after it was written as tokenizer.json.
 *
 * One word of a whole text would be slow: no two texts are equal, and its symbols leave the caches.
 * But most characters can't meet in a merge: in English no piece has a letter before a space. A
 * table says for two neighbouring characters whether any pair of the vocabulary joins pieces that
 * end and begin with them (it may say yes too often: places are shared); where none does, the text
 * is cut. Merges on both sides do not know of each other, so the ids are those of the whole, and the
 * stretches are words that come again (tokenizer_work_recall()).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "data/tokenizer_parts.h"

#define BIN_FILE_MAX (16u << 20)
#define BIN_PIECE_MAX 256
#define JOIN_BITS 18
#define STRETCH_BYTES 24 /* longer stretches are not looked for among kept words */
#define BIN_BYTES 3      /* ids 3..258 are <0x00>..<0xFF>; 0 unknown, 1 BOS, 2 EOS */

size_t tokenizer_fallback_space(const char *text, size_t len)
{
    return len >= 3 && memcmp(text, "\xe2\x96\x81", 3) == 0 ? 3 : 0;
}

static size_t char_len(const char *text, size_t len)
{
    unsigned char c = (unsigned char)text[0];
    size_t n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;

    return n < len ? n : len;
}

/* One character as symbols; *before is the last one pushed, for fuse_unk. */
static int char_push(const struct tokenizer *t, const char *text, size_t len, int32_t *before,
                     struct tokenizer_work *w, struct err *e)
{
    int32_t id = tokenizer_pieces_find(&t->pieces, text, len);
    bool bytes = true;

    if (id >= 0 && (t->pieces.v[id].flags & PIECE_ADDED) == 0) {
        tokenizer_work_push(w, *before = id);
        return 0;
    }
    for (size_t i = 0; i < len; i++)
        bytes = bytes && t->byte_id[(uint8_t)text[i]] >= 0;
    if (bytes) {
        for (size_t i = 0; i < len; i++)
            tokenizer_work_push(w, *before = t->byte_id[(uint8_t)text[i]]);
        return 0;
    }
    if (t->unk < 0)
        return err_set(e, ERR_INVALID,
                       "character %.*s is not in the vocabulary, which has no unk_token", (int)len,
                       text);
    if (!(t->fuse_unk && *before == t->unk))
        tokenizer_work_push(w, t->unk);
    *before = t->unk;
    return 0;
}

/* ---- characters that no merge joins ---------------------------------------------------------- */

static uint32_t char_code(const char *text, size_t len)
{
    uint32_t code = 0;

    for (size_t i = 0; i < len; i++)
        code = code << 8 | (uint8_t)text[i];
    return code;
}

static uint32_t join_place(uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;

    return (uint32_t)(h >> (64 - JOIN_BITS));
}

static bool may_join(const struct tokenizer *t, uint32_t left, uint32_t right)
{
    uint32_t at = join_place(left, right);

    return t->joins == NULL || (t->joins[at >> 5] >> (at & 31) & 1) != 0;
}

static uint32_t last_char(const char *text, size_t len)
{
    size_t at = len - 1;

    while (at > 0 && ((uint8_t)text[at] & 0xc0) == 0x80)
        at--;
    return char_code(text + at, len - at);
}

void tokenizer_fallback_mark(struct tokenizer *t)
{
    t->joins = mem_zalloc((size_t)1 << (JOIN_BITS - 5), sizeof *t->joins);
    for (size_t i = 0; i < t->pairs.slots; i++) {
        const struct tokenizer_pair *p = &t->pairs.slot[i];
        const struct tokenizer_piece *l, *r;
        uint32_t at;
        if (p->left < 0)
            continue;
        l = &t->pieces.v[p->left];
        r = &t->pieces.v[p->right];
        if (((l->flags | r->flags) & (PIECE_BYTE | PIECE_ADDED)) != 0 || l->len == 0 ||
            r->len == 0) { /* parts that are no text: their neighbours are not its characters */
            free(t->joins);
            t->joins = NULL;
            return;
        }
        at = join_place(
            last_char(t->pieces.text.data + l->at, l->len),
            char_code(t->pieces.text.data + r->at, char_len(t->pieces.text.data + r->at, r->len)));
        t->joins[at >> 5] |= 1u << (at & 31);
    }
}

/* ---- encoding -------------------------------------------------------------------------------- */

struct stretch { /* what merges may join: from one cut to the next */
    char text[STRETCH_BYTES];
    size_t len;      /* of the text so far; beyond STRETCH_BYTES it is not kept */
    uint32_t last;   /* character */
    int32_t before;  /* last symbol, for fuse_unk */
    bool is_of_text; /* no unk in it, so that its ids depend on its text alone */
};

static void stretch_begin(struct stretch *s, struct tokenizer_work *w)
{
    s->len = 0;
    s->is_of_text = true;
    tokenizer_work_clear(w);
}

/* Symbols of a stretch whose text was kept are made only now: mostly they are not needed. */
static int stretch_end(const struct tokenizer *t, struct stretch *s, struct tokenizer_work *w,
                       struct ids *out, struct err *e)
{
    size_t had = out->n;
    int rc = 0;

    if (s->len == 0)
        return 0;
    if (s->len <= STRETCH_BYTES) {
        if (tokenizer_work_recall(w, t, s->text, s->len, out)) {
            s->before = -1;
            stretch_begin(s, w);
            return 0;
        }
        for (size_t i = 0, n; rc == 0 && i < s->len; i += n) {
            n = char_len(s->text + i, s->len - i);
            rc = char_push(t, s->text + i, n, &s->before, w, e);
            s->is_of_text = s->is_of_text && s->before != t->unk;
        }
    }
    if (rc == 0)
        tokenizer_work_merge(w, &t->pairs, out);
    if (rc == 0 && s->len <= STRETCH_BYTES && s->is_of_text)
        tokenizer_work_keep(w, t, s->text, s->len, out->v + had, out->n - had);
    stretch_begin(s, w);
    return rc;
}

static int stretch_add(const struct tokenizer *t, const char *text, size_t n, struct stretch *s,
                       struct tokenizer_work *w, struct ids *out, struct err *e)
{
    uint32_t code = char_code(text, n);
    int rc = 0;

    if (s->len > 0 && !may_join(t, s->last, code))
        rc = stretch_end(t, s, w, out, e);
    s->last = code;
    if (rc == 0 && s->len + n > STRETCH_BYTES) {
        for (size_t i = 0, k; rc == 0 && s->len <= STRETCH_BYTES && i < s->len; i += k) {
            k = char_len(s->text + i, s->len - i);
            rc = char_push(t, s->text + i, k, &s->before, w, e);
        }
        if (rc == 0)
            rc = char_push(t, text, n, &s->before, w, e);
        s->len = STRETCH_BYTES + 1; /* from here on only symbols */
        return rc;
    }
    memcpy(s->text + s->len, text, n);
    s->len += n;
    return rc;
}

int tokenizer_fallback_encode(const struct tokenizer *t, const char *text, size_t len, bool prefix,
                              struct tokenizer_work *w, struct ids *out, struct err *e)
{
    struct stretch s = {.before = -1};
    int rc = 0;

    stretch_begin(&s, w);
    if (prefix)
        rc = stretch_add(t, " ", 1, &s, w, out, e);
    for (size_t i = 0, n; rc == 0 && i < len; i += n) {
        n = tokenizer_fallback_space(text + i, len - i);
        if (n != 0) {
            rc = stretch_add(t, " ", 1, &s, w, out, e);
        } else {
            n = char_len(text + i, len - i);
            rc = stretch_add(t, text + i, n, &s, w, out, e);
        }
    }
    return rc != 0 ? rc : stretch_end(t, &s, w, out, e);
}

static int piece_read(struct tokenizer *t, const char *text, size_t len, struct err *e)
{
    size_t id = t->pieces.n;
    char want[8];

    if (!json_utf8_valid(text, len))
        return err_set(e, ERR_INVALID, "token %zu is not UTF-8", id);
    if (id == 0) {
        tokenizer_added_push(
            t, tokenizer_pieces_add(&t->pieces, "<unk>", 5, PIECE_ADDED | PIECE_SPECIAL));
    } else if (id < BIN_BYTES) {
        const char *name = id == 1 ? "<s>" : "</s>";
        tokenizer_added_push(
            t, tokenizer_pieces_add(&t->pieces, name, strlen(name), PIECE_ADDED | PIECE_SPECIAL));
    } else if (id < BIN_BYTES + 256) {
        uint8_t byte = (uint8_t)(id - BIN_BYTES);
        snprintf(want, sizeof want, "<0x%02X>", byte);
        if (len != 6 || memcmp(want, text, 6) != 0)
            return err_set(e, ERR_INVALID,
                           "token %zu is not %s: this vocabulary has no byte fallback", id, want);
        t->byte_id[byte] = (int32_t)id;
        tokenizer_pieces_add(&t->pieces, (const char *)&byte, 1, PIECE_BYTE | PIECE_UNTEXT);
    } else {
        tokenizer_pieces_add(&t->pieces, text, len, 0);
    }
    return 0;
}

static int pieces_read(const struct buf *file, struct tokenizer *t, float **scores, struct err *e)
{
    size_t at = 4, cap = 0;
    uint32_t longest = 0;

    if (file->len < 4)
        return err_set(e, ERR_CORRUPT, "%zu bytes are no tokenizer.bin", file->len);
    memcpy(&longest, file->data, 4);
    if (longest < 1 || longest > BIN_PIECE_MAX)
        return err_set(e, ERR_LIMIT, "max_token_length is %u, must be 1..%d", longest,
                       BIN_PIECE_MAX);
    while (at < file->len) {
        size_t id = t->pieces.n;
        float score;
        uint32_t len;
        int rc;
        if (file->len - at < 8)
            return err_set(e, ERR_CORRUPT, "byte %zu: token %zu is cut off", at, id);
        memcpy(&score, file->data + at, 4);
        memcpy(&len, file->data + at + 4, 4);
        if (id == (size_t)TOKENIZER_IDS_MAX)
            return err_set(e, ERR_LIMIT, "more than %d tokens", TOKENIZER_IDS_MAX);
        if (len < 1 || len > BIN_PIECE_MAX)
            return err_set(e, ERR_LIMIT, "byte %zu: token %zu has length %u, must be 1..%d", at, id,
                           len, BIN_PIECE_MAX);
        if (len > file->len - at - 8)
            return err_set(e, ERR_CORRUPT, "byte %zu: token %zu of length %u is cut off", at, id,
                           len);
        if (!isfinite(score))
            return err_set(e, ERR_INVALID, "byte %zu: token %zu has a score that is not finite", at,
                           id);
        rc = piece_read(t, file->data + at + 8, len, e);
        if (rc != 0)
            return rc;
        if (id >= cap) {
            cap = cap == 0 ? 1024 : cap * 2;
            *scores = mem_grow(*scores, cap, sizeof **scores);
        }
        (*scores)[id] = score;
        at += 8 + len;
    }
    if (t->pieces.n < BIN_BYTES + 256)
        return err_set(e, ERR_CORRUPT, "%zu tokens, must be at least %d", t->pieces.n,
                       BIN_BYTES + 256);
    return 0;
}

struct scored {
    float score;
    uint32_t id;
};

static int scored_order(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;

    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* All cuts of a piece into two pieces. Byte and special pieces are never parts: their text is no
 * text. */
static void pairs_of_piece(struct tokenizer *t, int32_t id, uint32_t rank)
{
    const struct tokenizer_piece *p = &t->pieces.v[id];
    const char *text = t->pieces.text.data + p->at;

    for (size_t cut = char_len(text, p->len); cut < p->len;
         cut += char_len(text + cut, p->len - cut)) {
        int32_t left = tokenizer_pieces_find(&t->pieces, text, cut);
        int32_t right = tokenizer_pieces_find(&t->pieces, text + cut, p->len - cut);
        if (left >= BIN_BYTES && right >= BIN_BYTES)
            tokenizer_pairs_put(&t->pairs, left, right, rank, id);
    }
}

static void pairs_build(struct tokenizer *t, const float *scores)
{
    size_t n = t->pieces.n - BIN_BYTES - 256, before = 0;
    struct scored *order = mem_zalloc(n, sizeof *order);
    uint32_t rank = 0;

    for (size_t i = 0; i < n; i++)
        order[i] = (struct scored){scores[BIN_BYTES + 256 + i], (uint32_t)(BIN_BYTES + 256 + i)};
    qsort(order, n, sizeof *order, scored_order);
    tokenizer_pairs_init(&t->pairs, n * 4);
    for (size_t i = 0; i < n; i++) {
        size_t had = t->pairs.n;
        rank += i > 0 && order[i].score != order[i - 1].score;
        pairs_of_piece(t, (int32_t)order[i].id, rank);
        if (t->pairs.n > had) {
            t->tied_ranks = t->tied_ranks || before == (size_t)rank + 1;
            before = (size_t)rank + 1;
        }
    }
    free(order);
}

int tokenizer_fallback_read(const char *path, struct tokenizer *t, struct err *e)
{
    int rc;
    struct buf file = BUF_INIT;
    float *scores = NULL;

    t->kind = TOKENIZER_BYTE_FALLBACK;
    t->prefix = PREFIX_ALWAYS;
    t->unk = 0;
    t->bos = 1;
    t->eos = 2;
    t->fuse_unk = true;
    rc = file_read(path, BIN_FILE_MAX, &file, e);
    if (rc == 0)
        rc = pieces_read(&file, t, &scores, e);
    if (rc == 0)
        rc = tokenizer_pieces_index(&t->pieces, e);
    if (rc == 0)
        pairs_build(t, scores);
    free(scores);
    buf_free(&file);
    return rc;
}
