/*
 * The naive loop looks at every pair before every merge, which is quadratic in the length of the
 * word; and in the byte-fallback kind the whole text is one word. Here the symbols are a linked
 * list and the pairs wait in a heap ordered by (rank, position). A merge leaves stale entries
 * behind: an entry counts only if the two symbols that it was made for still stand there. The order
 * of merges is the naive loop's.
 *
 * Words come again and again. Each thread keeps the scratch of its encodes, and a table of short
 * words with their ids: one place a word, the newest wins. What it holds changes no result.
 */
#include "data/tokenizer_parts.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct symbol {
    int32_t id; /* -1: swallowed by its left neighbour */
    uint32_t prev, next;
};
struct entry {
    uint64_t key; /* rank << 32 | position */
    int32_t left, right, id;
};
#define WORDS 4096
#define WORD_BYTES 24
#define WORD_IDS 7
struct word {
    uint64_t serial; /* of the tokenizer; 0: none */
    uint8_t len, n;
    char text[WORD_BYTES];
    int32_t id[WORD_IDS];
};
struct tokenizer_work {
    struct word *word;
    struct symbol *symbol;
    size_t n, cap;
    struct entry *heap;
    size_t heap_n, heap_cap;
};

#define NOWHERE UINT32_MAX
#define KEPT_MAX ((size_t)1 << 20) /* symbols: after a longer text its scratch is given back */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t mine;

static void work_free(void *data)
{
    struct tokenizer_work *w = data;

    free(w->word);
    free(w->symbol);
    free(w->heap);
    free(w);
}

static void key_make(void)
{
    CHECK(pthread_key_create(&mine, work_free) == 0);
}

struct tokenizer_work *tokenizer_work_take(void)
{
    struct tokenizer_work *w;

    pthread_once(&once, key_make);
    w = pthread_getspecific(mine);
    if (w == NULL) {
        w = mem_zalloc(1, sizeof *w);
        w->word = mem_zalloc(WORDS, sizeof *w->word);
        CHECK(pthread_setspecific(mine, w) == 0);
    }
    return w;
}

void tokenizer_work_done(struct tokenizer_work *w)
{
    if (w->cap <= KEPT_MAX && w->heap_cap <= KEPT_MAX)
        return;
    free(w->symbol);
    free(w->heap);
    w->symbol = NULL;
    w->heap = NULL;
    w->n = w->cap = w->heap_n = w->heap_cap = 0;
}

static struct word *word_place(const struct tokenizer_work *w, const struct tokenizer *t,
                               const char *word, size_t len)
{
    return &w->word[(tokenizer_hash(word, len) ^ t->serial) % WORDS];
}

bool tokenizer_work_recall(const struct tokenizer_work *w, const struct tokenizer *t,
                           const char *word, size_t len, struct ids *out)
{
    const struct word *x;

    if (len > WORD_BYTES)
        return false;
    x = word_place(w, t, word, len);
    if (x->serial != t->serial || x->len != len || memcmp(x->text, word, len) != 0)
        return false;
    for (size_t i = 0; i < x->n; i++)
        ids_push(out, x->id[i]);
    return true;
}

void tokenizer_work_keep(struct tokenizer_work *w, const struct tokenizer *t, const char *word,
                         size_t len, const int32_t *ids, size_t n)
{
    struct word *x;

    if (len > WORD_BYTES || n > WORD_IDS)
        return;
    x = word_place(w, t, word, len);
    x->serial = t->serial;
    x->len = (uint8_t)len;
    x->n = (uint8_t)n;
    memcpy(x->text, word, len);
    memcpy(x->id, ids, n * sizeof *ids);
}

void tokenizer_work_clear(struct tokenizer_work *w)
{
    w->n = 0;
}

void tokenizer_work_push(struct tokenizer_work *w, int32_t id)
{
    if (w->n == w->cap) {
        w->cap = w->cap == 0 ? 256 : w->cap * 2;
        w->symbol = mem_grow(w->symbol, w->cap, sizeof *w->symbol);
    }
    w->symbol[w->n++].id = id;
}

static void heap_put(struct tokenizer_work *w, struct entry x)
{
    size_t i = w->heap_n++;

    if (i == w->heap_cap) {
        w->heap_cap = w->heap_cap == 0 ? 256 : w->heap_cap * 2;
        w->heap = mem_grow(w->heap, w->heap_cap, sizeof *w->heap);
    }
    while (i > 0 && w->heap[(i - 1) / 2].key > x.key) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = x;
}

static struct entry heap_take(struct tokenizer_work *w)
{
    struct entry top = w->heap[0], last = w->heap[--w->heap_n];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->heap_n)
            break;
        if (child + 1 < w->heap_n && w->heap[child + 1].key < w->heap[child].key)
            child++;
        if (w->heap[child].key >= last.key)
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

static void pair_offer(struct tokenizer_work *w, const struct tokenizer_pairs *pairs, uint32_t at)
{
    const struct symbol *s = w->symbol;
    const struct tokenizer_pair *p;

    if (at == NOWHERE || s[at].next == NOWHERE)
        return;
    p = tokenizer_pairs_find(pairs, s[at].id, s[s[at].next].id);
    if (p != NULL)
        heap_put(w, (struct entry){(uint64_t)p->rank << 32 | at, p->left, p->right, p->id});
}

void tokenizer_work_merge(struct tokenizer_work *w, const struct tokenizer_pairs *pairs,
                          struct ids *out)
{
    struct symbol *s = w->symbol;

    if (w->n == 0)
        return;
    for (size_t i = 0; i < w->n; i++) {
        s[i].prev = i == 0 ? NOWHERE : (uint32_t)i - 1;
        s[i].next = i + 1 == w->n ? NOWHERE : (uint32_t)i + 1;
    }
    w->heap_n = 0;
    for (size_t i = 0; i + 1 < w->n; i++)
        pair_offer(w, pairs, (uint32_t)i);
    while (w->heap_n > 0) {
        struct entry x = heap_take(w);
        uint32_t at = (uint32_t)x.key, next = s[at].next;
        if (s[at].id != x.left || next == NOWHERE || s[next].id != x.right)
            continue;
        s[at].id = x.id;
        s[at].next = s[next].next;
        s[next].id = -1;
        if (s[at].next != NOWHERE)
            s[s[at].next].prev = at;
        pair_offer(w, pairs, s[at].prev);
        pair_offer(w, pairs, at);
    }
    for (uint32_t at = 0; at != NOWHERE; at = s[at].next)
        ids_push(out, s[at].id);
}
