/*
 * Byte-level BPE (GPT-2 and its heirs): patterns cut the text into words, each word is a row of
 * bytes, and merges join them. Files show bytes as printable characters; pieces are turned into
 * real bytes when they are read, so that encoding and decoding need no map.
 */
#include <string.h>

#include "data/tokenizer_parts.h"

/* Printable Latin-1 bytes stand for themselves; the other 68, in order, for U+0100 and up. */
static bool is_printable(unsigned b)
{
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

uint32_t tokenizer_byte_char(uint8_t byte)
{
    uint32_t others = 0;

    if (is_printable(byte))
        return byte;
    for (unsigned b = 0; b < byte; b++)
        others += !is_printable(b);
    return 0x100 + others;
}

bool tokenizer_byte_text(const char *text, size_t len, struct buf *out)
{
    static const uint8_t high[68] = {
        0,    1,    2,    3,    4,    5,    6,    7,    8,    9,    10,   11,   12,   13,
        14,   15,   16,   17,   18,   19,   20,   21,   22,   23,   24,   25,   26,   27,
        28,   29,   30,   31,   32,   127,  0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87,
        0x88, 0x89, 0x8a, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f, 0x90, 0x91, 0x92, 0x93, 0x94, 0x95,
        0x96, 0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xad};

    for (size_t i = 0; i < len; i++) {
        uint32_t c = (uint8_t)text[i];
        if (c >= 0xc0 && c < 0xe0 && i + 1 < len)
            c = (c & 0x1f) << 6 | ((uint8_t)text[++i] & 0x3f);
        else if (c >= 0x80)
            return false;
        if (c >= 0x100 && c < 0x100 + sizeof high)
            buf_char(out, (char)high[c - 0x100]);
        else if (c < 0x100 && is_printable(c))
            buf_char(out, (char)c);
        else
            return false;
    }
    return true;
}

static void word_push(const struct tokenizer *t, const char *text, size_t len,
                      struct tokenizer_work *w)
{
    int32_t before = -1;

    tokenizer_work_clear(w);
    for (size_t i = 0; i < len; i++) {
        int32_t id = t->byte_id[(uint8_t)text[i]];
        if (id < 0 && t->unk >= 0 && !(t->fuse_unk && before == t->unk))
            tokenizer_work_push(w, t->unk);
        else if (id >= 0)
            tokenizer_work_push(
                w, id); /* a byte that is no piece, and no unk: dropped, as the reference does */
        before = id >= 0 ? id : t->unk;
    }
}

static void encode_word(const struct tokenizer *t, const char *text, size_t len,
                        struct tokenizer_work *w, struct ids *out)
{
    int32_t id = tokenizer_pieces_find(&t->pieces, text, len);
    size_t had = out->n;

    if (id >= 0 && (t->pieces.v[id].flags & PIECE_WHOLE) != 0) {
        ids_push(out, id);
        return;
    }
    if (tokenizer_work_recall(w, t, text, len, out))
        return;
    word_push(t, text, len, w);
    tokenizer_work_merge(w, &t->pairs, out);
    tokenizer_work_keep(w, t, text, len, out->v + had, out->n - had);
}

void tokenizer_bytelevel_mark(struct tokenizer *t)
{
    struct tokenizer_work *w = tokenizer_work_take();
    struct ids ids = {0};

    for (size_t id = 0; id < t->pieces.n; id++) {
        struct tokenizer_piece *p = &t->pieces.v[id];
        if ((p->flags & (PIECE_ADDED | PIECE_UNTEXT)) != 0)
            continue;
        if (t->ignore_merges) {
            p->flags |= PIECE_WHOLE;
            continue;
        }
        ids.n = 0;
        word_push(t, t->pieces.text.data + p->at, p->len, w);
        tokenizer_work_merge(w, &t->pairs, &ids);
        if (ids.n == 1 && ids.v[0] == (int32_t)id)
            p->flags |= PIECE_WHOLE;
    }
    ids_free(&ids);
    tokenizer_work_done(w);
}

/* Cuts with stage `stage`, each piece with the next; depth is at most TOKENIZER_STAGES_MAX. */
static int encode_stage(const struct tokenizer *t, int stage, const char *text, size_t len,
                        struct tokenizer_work *w, struct ids *out, struct err *e)
{
    int rc = 0;

    if (stage == t->stages) {
        encode_word(t, text, len, w, out);
        return 0;
    }
    for (size_t at = 0, end = 0; rc == 0 && at < len; at = end) {
        rc = tokenizer_pattern_next(t->stage[stage], text, len, at, &end, e);
        if (rc == 0)
            rc = encode_stage(t, stage + 1, text + at, end - at, w, out, e);
    }
    return rc;
}

int tokenizer_bytelevel_encode(const struct tokenizer *t, const char *text, size_t len,
                               struct tokenizer_work *w, struct ids *out, struct err *e)
{
    return encode_stage(t, 0, text, len, w, out, e);
}
