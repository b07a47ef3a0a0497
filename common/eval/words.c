#include "eval/words.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/err.h"

static bool is_word(unsigned char c)
{
    return ((c | 32) >= 'a' && (c | 32) <= 'z') || (c >= '0' && c <= '9') || c == '\'' || c >= 128;
}

/* Finaliser of splitmix64 (Steele et al. 2014): every input bit reaches every output bit. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

void words_begin(struct words *w, const char *text, size_t len, bool marks)
{
    *w = (struct words){text, len, 0, marks};
}

bool words_next(struct words *w, uint64_t *hash)
{
    const unsigned char *s = (const unsigned char *)w->text;

    for (; w->at < w->len; w->at++) {
        unsigned char c = s[w->at];
        if (w->marks && (c == '?' || c == '!')) {
            w->at++;
            *hash = mix(c);
            return true;
        }
        if (is_word(c)) {
            uint64_t h = 0xCBF29CE484222325u; /* FNV-1a */
            for (; w->at < w->len && is_word(s[w->at]); w->at++) {
                c = s[w->at];
                if (c >= 'A' && c <= 'Z')
                    c = (unsigned char)(c | 32);
                h = (h ^ c) * 0x100000001B3u;
            }
            *hash = mix(h);
            return true;
        }
    }
    return false;
}

uint64_t words_join(uint64_t left, uint64_t right)
{
    return mix(left * 0x9E3779B97F4A7C15u + right + 0x632BE59BD9B4E019u);
}

void words_map_init(struct words_map *m, size_t expected)
{
    m->cap = 64;
    m->used = 0;
    while (m->cap < expected * 2)
        m->cap *= 2;
    m->key = mem_zalloc(m->cap, sizeof *m->key);
    m->id = mem_zalloc(m->cap, sizeof *m->id);
}

void words_map_fini(struct words_map *m)
{
    free(m->key);
    free(m->id);
    *m = (struct words_map){0};
}

static size_t slot_of(const struct words_map *m, uint64_t key)
{
    size_t at = (size_t)key & (m->cap - 1);

    while (m->key[at] != 0 && m->key[at] != key)
        at = (at + 1) & (m->cap - 1);
    return at;
}

static void map_grow(struct words_map *m)
{
    struct words_map bigger;

    words_map_init(&bigger, m->cap);
    for (size_t i = 0; i < m->cap; i++) {
        if (m->key[i] == 0)
            continue;
        size_t at = slot_of(&bigger, m->key[i]);
        bigger.key[at] = m->key[i];
        bigger.id[at] = m->id[i];
    }
    bigger.used = m->used;
    words_map_fini(m);
    *m = bigger;
}

uint32_t words_map_add(struct words_map *m, uint64_t key)
{
    size_t at;

    if (key == 0)
        key = 1;
    if (2 * m->used >= m->cap)
        map_grow(m);
    at = slot_of(m, key);
    if (m->key[at] == 0) {
        CHECK(m->used < UINT32_MAX);
        m->key[at] = key;
        m->id[at] = (uint32_t)m->used++;
    }
    return m->id[at];
}

bool words_map_find(const struct words_map *m, uint64_t key, uint32_t *id)
{
    size_t at = slot_of(m, key == 0 ? 1 : key);

    if (m->key[at] == 0)
        return false;
    *id = m->id[at];
    return true;
}
