/*
 * The part that both kinds share: which file is which, added tokens, normalisation, decoding. A
 * text is cut at added tokens first (only when special parsing is asked for), the pieces between
 * are normalised and encoded.
 */
#include "data/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/beat.h"
#include "base/file.h"
#include "data/tokenizer_parts.h"

#define SYNTHETIC_MIN 258 /* <s>, </s> and the bytes */

static uint64_t serials; /* tokenizers loaded so far */

void ids_push(struct ids *a, int32_t id)
{
    if (a->n == a->cap) {
        a->cap = a->cap == 0 ? 64 : a->cap * 2;
        a->v = mem_grow(a->v, a->cap, sizeof *a->v);
    }
    a->v[a->n++] = id;
}

void ids_free(struct ids *a)
{
    free(a->v);
    *a = (struct ids){0};
}

/* "synthetic:V": bytes, and numbered pieces that no text becomes. */
static int synthetic_make(const char *count, struct tokenizer *t, struct err *e)
{
    char *end;
    long n = strtol(count, &end, 10);

    if (*count == '\0' || *end != '\0' || n < SYNTHETIC_MIN || n > TOKENIZER_IDS_MAX)
        return err_set(e, ERR_INVALID, "vocabulary is \"%s\", must be a number %d..%d", count,
                       SYNTHETIC_MIN, TOKENIZER_IDS_MAX);
    t->kind = TOKENIZER_BYTE_LEVEL;
    t->bos = 0;
    t->eos = 1;
    tokenizer_added_push(t,
                         tokenizer_pieces_add(&t->pieces, "<s>", 3, PIECE_ADDED | PIECE_SPECIAL));
    tokenizer_added_push(t,
                         tokenizer_pieces_add(&t->pieces, "</s>", 4, PIECE_ADDED | PIECE_SPECIAL));
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;
        t->byte_id[b] = tokenizer_pieces_add(&t->pieces, &byte, 1, 0);
    }
    while (t->pieces.n < (size_t)n) {
        char name[32];
        int len = snprintf(name, sizeof name, "<t%zu>", t->pieces.n);
        tokenizer_pieces_add(&t->pieces, name, (size_t)len, 0);
    }
    tokenizer_pairs_init(&t->pairs, 0);
    return tokenizer_pieces_index(&t->pieces, e);
}

static bool has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);

    return n >= m && strcmp(s + n - m, suffix) == 0;
}

int tokenizer_load(const char *path, struct tokenizer **out, struct err *e)
{
    int rc;
    struct tokenizer *t = mem_zalloc(1, sizeof *t);
    char *inner = NULL;

    t->unk = t->bos = t->eos = -1;
    for (int b = 0; b < 256; b++)
        t->byte_id[b] = -1;
    if (strncmp(path, "synthetic:", 10) == 0) {
        rc = synthetic_make(path + 10, t, e);
    } else {
        if (file_is_dir(path)) {
            inner = mem_printf("%s/tokenizer.json", path);
            if (!file_exists(inner)) {
                free(inner);
                inner = mem_printf("%s/tokenizer.bin", path);
            }
        }
        if (has_suffix(inner != NULL ? inner : path, ".json"))
            rc = tokenizer_json_read(inner != NULL ? inner : path, t, e);
        else
            rc = tokenizer_fallback_read(inner != NULL ? inner : path, t, e);
    }
    t->serial = __atomic_add_fetch(&serials, 1, __ATOMIC_RELAXED);
    if (rc == 0 && t->kind == TOKENIZER_BYTE_LEVEL)
        tokenizer_bytelevel_mark(t);
    if (rc == 0 && t->kind == TOKENIZER_BYTE_FALLBACK)
        tokenizer_fallback_mark(t);
    if (rc != 0) {
        err_wrap(e, "tokenizer %s", inner != NULL ? inner : path);
        tokenizer_free(t);
        t = NULL;
    }
    free(inner);
    *out = t;
    return rc;
}

void tokenizer_free(struct tokenizer *t)
{
    if (t == NULL)
        return;
    buf_free(&t->pieces.text);
    free(t->pieces.v);
    free(t->pieces.slot);
    free(t->pairs.slot);
    free(t->joins);
    free(t->added);
    free(t->source);
    free(t->source_config);
    free(t);
}

int32_t tokenizer_vocab(const struct tokenizer *t)
{
    return (int32_t)t->pieces.n;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

const char *tokenizer_bytes(const struct tokenizer *t, int32_t id, uint32_t *len)
{
    CHECK(id >= 0 && (size_t)id < t->pieces.n);
    *len = t->pieces.v[id].len;
    return t->pieces.text.data + t->pieces.v[id].at;
}

bool tokenizer_is_added(const struct tokenizer *t, int32_t id)
{
    CHECK(id >= 0 && (size_t)id < t->pieces.n);
    return (t->pieces.v[id].flags & PIECE_ADDED) != 0;
}

static int32_t added_find(const struct tokenizer *t, const char *text, size_t len)
{
    for (size_t i = 0; i < t->added_n; i++) {
        const struct tokenizer_piece *p = &t->pieces.v[t->added[i]];
        if (p->len == len && memcmp(t->pieces.text.data + p->at, text, len) == 0)
            return t->added[i];
    }
    return -1;
}

int32_t tokenizer_id(const struct tokenizer *t, const char *token)
{
    int32_t id = added_find(t, token, strlen(token));

    return id >= 0 ? id : tokenizer_pieces_find(&t->pieces, token, strlen(token));
}

int tokenizer_add(struct tokenizer *t, const char *const *tokens, size_t n, int32_t *first,
                  struct err *e)
{
    if (n > (size_t)TOKENIZER_IDS_MAX - t->pieces.n)
        return err_set(e, ERR_LIMIT, "%zu more tokens on %zu, limit %d", n, t->pieces.n,
                       TOKENIZER_IDS_MAX);
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(tokens[i]);
        if (len == 0 || len > TOKENIZER_PIECE_BYTES_MAX || !json_utf8_valid(tokens[i], len))
            return err_set(e, ERR_INVALID, "new token %zu must be UTF-8 of 1..%d bytes", i,
                           TOKENIZER_PIECE_BYTES_MAX);
        if (tokenizer_id(t, tokens[i]) >= 0)
            return err_set(e, ERR_CONFLICT, "token \"%s\" is in the vocabulary already (id %d)",
                           tokens[i], tokenizer_id(t, tokens[i]));
        for (size_t j = 0; j < i; j++)
            if (strcmp(tokens[j], tokens[i]) == 0)
                return err_set(e, ERR_CONFLICT, "token \"%s\" is added twice", tokens[i]);
    }
    *first = (int32_t)t->pieces.n;
    for (size_t i = 0; i < n; i++) { /* not in the hash of pieces: text never becomes one */
        uint8_t flags = PIECE_ADDED | PIECE_SPECIAL | PIECE_UNTEXT;
        tokenizer_added_push(t,
                             tokenizer_pieces_add(&t->pieces, tokens[i], strlen(tokens[i]), flags));
    }
    return 0;
}

struct encoding {
    const struct tokenizer *t;
    struct tokenizer_work *work;
    struct ids *out;
    bool start; /* nothing of the text was encoded yet */
    bool may_prefix;
};

static bool wants_prefix(const struct encoding *c, const char *text, size_t len)
{
    bool space = len > 0 && (text[0] == ' ' || tokenizer_fallback_space(text, len) != 0);

    switch (c->t->prefix) {
    case PREFIX_ALWAYS:
        return c->may_prefix;
    case PREFIX_UNLESS_SPACE:
        return c->may_prefix && !space;
    case PREFIX_FIRST:
        return c->may_prefix && c->start && !space;
    default:
        return false;
    }
}

/* A stretch without added tokens. */
static int encode_text(struct encoding *c, const char *text, size_t len, struct err *e)
{
    int rc = 0;
    utf8proc_uint8_t *nfc = NULL;
    struct buf prefixed = BUF_INIT;
    bool ascii = true;

    if (len == 0)
        return 0;
    for (size_t i = 0; i < len && ascii; i++)
        ascii = (signed char)text[i] >= 0;
    if (c->t->nfc && !ascii) {
        utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len,
                                          &nfc, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        if (n < 0)
            return err_set(e, ERR_INVALID, "NFC: %s", utf8proc_errmsg(n));
        text = (const char *)nfc;
        len = (size_t)n;
    }
    if (c->t->kind == TOKENIZER_BYTE_FALLBACK) {
        rc = tokenizer_fallback_encode(c->t, text, len, wants_prefix(c, text, len), c->work, c->out,
                                       e);
    } else {
        if (wants_prefix(c, text, len)) {
            buf_char(&prefixed, ' ');
            buf_add(&prefixed, text, len);
            text = prefixed.data;
            len = prefixed.len;
        }
        rc = tokenizer_bytelevel_encode(c->t, text, len, c->work, c->out, e);
    }
    c->start = false;
    c->may_prefix = true; /* CONTINUE speaks of the beginning only */
    free(nfc);
    buf_free(&prefixed);
    return rc;
}

static int32_t added_at(const struct tokenizer *t, const char *text, size_t len)
{
    int32_t best = -1;
    uint32_t best_len = 0;
    uint8_t first = (uint8_t)text[0];

    if ((t->added_first[first >> 5] >> (first & 31) & 1) == 0)
        return -1;
    for (size_t i = 0; i < t->added_n; i++) { /* the longest */
        const struct tokenizer_piece *p = &t->pieces.v[t->added[i]];
        if (p->len > best_len && p->len <= len &&
            memcmp(t->pieces.text.data + p->at, text, p->len) == 0) {
            best = t->added[i];
            best_len = p->len;
        }
    }
    return best;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int encode_special(struct encoding *c, const char *text, size_t len, struct err *e)
{
    int rc = 0;
    size_t from = 0, at = 0;

    while (rc == 0 && at < len) {
        int32_t id = added_at(c->t, text + at, len - at);
        size_t end;
        if (id < 0) {
            at++;
            continue;
        }
        end = at;
        while ((c->t->pieces.v[id].flags & PIECE_LSTRIP) != 0 && end > from &&
               is_space(text[end - 1]))
            end--;
        rc = encode_text(c, text + from, end - from, e);
        ids_push(c->out, id);
        c->start = false;
        c->may_prefix = true;
        at += c->t->pieces.v[id].len;
        while ((c->t->pieces.v[id].flags & PIECE_RSTRIP) != 0 && at < len && is_space(text[at]))
            at++;
        from = at;
    }
    return rc != 0 ? rc : encode_text(c, text + from, len - from, e);
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags,
                     struct ids *out, struct err *e)
{
    int rc;
    size_t had = out->n;
    struct encoding c = {t, NULL, out, true, (flags & TOKENIZE_CONTINUE) == 0};

    if (len > TOKENIZER_TEXT_MAX)
        return err_set(e, ERR_LIMIT, "text of %zu bytes to encode, limit %u", len,
                       TOKENIZER_TEXT_MAX);
    if (!json_utf8_valid(text, len))
        return err_set(e, ERR_INVALID, "text to encode is not UTF-8");
    if ((flags & TOKENIZE_CONTINUE) != 0)
        c.start = false;
    beat();
    c.work = tokenizer_work_take();
    rc = (flags & TOKENIZE_SPECIAL) != 0 ? encode_special(&c, text, len, e)
                                         : encode_text(&c, text, len, e);
    tokenizer_work_done(c.work);
    if (rc != 0)
        out->n = had;
    return rc;
}

void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, struct buf *out)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t len;
        const char *text = tokenizer_bytes(t, ids[i], &len);
        if ((t->pieces.v[ids[i]].flags & PIECE_SPECIAL) != 0)
            continue;
        if (i == 1 && t->prefix != PREFIX_NEVER && ids[0] == t->bos && len > 0 && text[0] == ' ') {
            text++; /* the space that encoding put in front */
            len--;
        }
        buf_add(out, text, len);
    }
}
