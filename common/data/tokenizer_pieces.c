/* Open addressing with linear probing, at most half full; keys are mixed well, so that runs stay
 * short. */
#include "data/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

uint64_t tokenizer_hash(const char *text, size_t len)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ len;

    for (; len >= 8; text += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, text, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 29;
    }
    if (len > 0) {
        uint64_t word = 0;
        memcpy(&word, text, len);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
    }
    return mix(h);
}

int32_t tokenizer_pieces_add(struct tokenizer_pieces *p, const char *text, size_t len,
                             uint8_t flags)
{
    CHECK(p->n < (size_t)TOKENIZER_IDS_MAX && p->text.len + len < UINT32_MAX);
    if (p->n == p->cap) {
        p->cap = p->cap == 0 ? 1024 : p->cap * 2;
        p->v = mem_grow(p->v, p->cap, sizeof *p->v);
    }
    p->v[p->n] = (struct tokenizer_piece){(uint32_t)p->text.len, (uint32_t)len, flags};
    buf_add(&p->text, text, len);
    return (int32_t)p->n++;
}

int tokenizer_pieces_index(struct tokenizer_pieces *p, struct err *e)
{
    size_t slots = 1024;

    while (slots < p->n * 2)
        slots *= 2;
    free(p->slot);
    p->slot = mem_zalloc(slots, sizeof *p->slot);
    p->slots = slots;
    for (size_t id = 0; id < p->n; id++) {
        const char *text = p->text.data + p->v[id].at;
        size_t len = p->v[id].len, i;
        if ((p->v[id].flags & PIECE_UNTEXT) != 0)
            continue;
        for (i = tokenizer_hash(text, len) & (slots - 1); p->slot[i] != 0;
             i = (i + 1) & (slots - 1)) {
            const struct tokenizer_piece *q = &p->v[p->slot[i] - 1];
            if (q->len == len && memcmp(p->text.data + q->at, text, len) == 0)
                return err_set(e, ERR_INVALID, "tokens %u and %zu have the same text",
                               p->slot[i] - 1, id);
        }
        p->slot[i] = (uint32_t)id + 1;
    }
    return 0;
}

int32_t tokenizer_pieces_find(const struct tokenizer_pieces *p, const char *text, size_t len)
{
    for (size_t i = tokenizer_hash(text, len) & (p->slots - 1); p->slot[i] != 0;
         i = (i + 1) & (p->slots - 1)) {
        const struct tokenizer_piece *q = &p->v[p->slot[i] - 1];
        if (q->len == len && memcmp(p->text.data + q->at, text, len) == 0)
            return (int32_t)(p->slot[i] - 1);
    }
    return -1;
}

static size_t pair_home(const struct tokenizer_pairs *p, int32_t left, int32_t right)
{
    return mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right) & (p->slots - 1);
}

void tokenizer_pairs_init(struct tokenizer_pairs *p, size_t expected)
{
    p->slots = 64;
    while (p->slots < expected * 2)
        p->slots *= 2;
    p->slot = mem_zalloc(p->slots, sizeof *p->slot);
    for (size_t i = 0; i < p->slots; i++)
        p->slot[i].left = -1;
    p->n = 0;
}

static void pairs_double(struct tokenizer_pairs *p)
{
    struct tokenizer_pairs old = *p;

    tokenizer_pairs_init(p, old.slots);
    for (size_t i = 0; i < old.slots; i++)
        if (old.slot[i].left >= 0)
            tokenizer_pairs_put(p, old.slot[i].left, old.slot[i].right, old.slot[i].rank,
                                old.slot[i].id);
    free(old.slot);
}

void tokenizer_pairs_put(struct tokenizer_pairs *p, int32_t left, int32_t right, uint32_t rank,
                         int32_t id)
{
    size_t i;

    if (p->n * 2 >= p->slots)
        pairs_double(p);
    for (i = pair_home(p, left, right); p->slot[i].left >= 0; i = (i + 1) & (p->slots - 1))
        if (p->slot[i].left == left && p->slot[i].right == right)
            break;
    if (p->slot[i].left < 0)
        p->n++;
    p->slot[i] = (struct tokenizer_pair){left, right, id, rank};
}

const struct tokenizer_pair *tokenizer_pairs_find(const struct tokenizer_pairs *p, int32_t left,
                                                  int32_t right)
{
    for (size_t i = pair_home(p, left, right); p->slot[i].left >= 0; i = (i + 1) & (p->slots - 1))
        if (p->slot[i].left == left && p->slot[i].right == right)
            return &p->slot[i];
    return NULL;
}

void tokenizer_added_push(struct tokenizer *t, int32_t id)
{
    uint8_t first = (uint8_t)t->pieces.text.data[t->pieces.v[id].at];

    if (t->added_n == t->added_cap) {
        t->added_cap = t->added_cap == 0 ? 16 : t->added_cap * 2;
        t->added = mem_grow(t->added, t->added_cap, sizeof *t->added);
    }
    t->added[t->added_n++] = id;
    t->added_first[first >> 5] |= 1u << (first & 31);
}
