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
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "data/tokenizer_parts.h"

#define BIN_FILE_MAX (16u << 20)
#define BIN_PIECE_MAX 256
#define BIN_BYTES 3 /* ids 3..258 are <0x00>..<0xFF>; 0 unknown, 1 BOS, 2 EOS */

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

int tokenizer_fallback_encode(const struct tokenizer *t, const char *text, size_t len, bool prefix,
                              struct tokenizer_work *w, struct ids *out, struct err *e)
{
    int rc = 0;
    int32_t before = -1;

    tokenizer_work_clear(w);
    if (prefix)
        rc = char_push(t, " ", 1, &before, w, e);
    for (size_t i = 0, n; rc == 0 && i < len; i += n) {
        n = tokenizer_fallback_space(text + i, len - i);
        if (n != 0) {
            rc = char_push(t, " ", 1, &before, w, e);
        } else {
            n = char_len(text + i, len - i);
            rc = char_push(t, text + i, n, &before, w, e);
        }
    }
    if (rc == 0)
        tokenizer_work_merge(w, &t->pairs, out);
    return rc;
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
