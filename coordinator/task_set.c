/*
 * A tree of bit maps. Going up from a word finds the nearest word beside it that is not empty;
 * going down from there finds its lowest bit.
 */
#include "coordinator/task_set.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"

static uint64_t looks;

uint64_t task_set_looks(void)
{
    return looks;
}

void task_set_fini(struct task_set *s)
{
    free(s->word[0]); /* all levels are one block */
    *s = (struct task_set){.bound = 0};
}

static void fill(uint64_t *word, uint64_t bits)
{
    memset(word, 0xff, bits / 64 * sizeof *word);
    if (bits % 64 != 0)
        word[bits / 64] = (UINT64_C(1) << bits % 64) - 1;
}

void task_set_init(struct task_set *s, uint32_t bound, bool full)
{
    uint64_t bits[TASK_SET_LEVELS], words = 0, n = bound;
    int levels = 0;

    CHECK(bound <= TASK_SET_MAX);
    task_set_fini(s);
    if (bound == 0)
        return;
    do {
        bits[levels] = n;
        n = (n + 63) / 64;
        words += n;
        levels++;
    } while (n > 1);
    *s = (struct task_set){.bound = bound, .count = full ? bound : 0, .levels = levels};
    s->word[0] = mem_zalloc(words, sizeof *s->word[0]);
    for (int k = 0; k < levels; k++) {
        if (k + 1 < levels)
            s->word[k + 1] = s->word[k] + (bits[k] + 63) / 64;
        if (full)
            fill(s->word[k], bits[k]);
    }
}

bool task_set_has(const struct task_set *s, uint32_t n)
{
    return n < s->bound && (s->word[0][n / 64] >> n % 64 & 1) != 0;
}

void task_set_add(struct task_set *s, uint32_t n)
{
    CHECK(n < s->bound);
    if (task_set_has(s, n))
        return;
    s->count++;
    for (int k = 0; k < s->levels; k++, n /= 64) {
        bool was_empty = s->word[k][n / 64] == 0;

        looks++;
        s->word[k][n / 64] |= UINT64_C(1) << n % 64;
        if (!was_empty)
            return;
    }
}

void task_set_drop(struct task_set *s, uint32_t n)
{
    if (!task_set_has(s, n))
        return;
    s->count--;
    for (int k = 0; k < s->levels; k++, n /= 64) {
        looks++;
        s->word[k][n / 64] &= ~(UINT64_C(1) << n % 64);
        if (s->word[k][n / 64] != 0)
            return;
    }
}

uint32_t task_set_next(const struct task_set *s, uint32_t n)
{
    uint32_t at = n;
    int k = 0;

    if (n >= s->bound || s->count == 0)
        return TASK_SET_NONE;
    for (;; k++) { /* up: at is the lowest that will do, on level k */
        uint32_t words = ((s->bound - 1) >> 6 * k) / 64 + 1;
        uint64_t rest;

        if (k == s->levels || at / 64 >= words)
            return TASK_SET_NONE;
        looks++;
        rest = s->word[k][at / 64] & (UINT64_MAX << at % 64);
        if (rest != 0) {
            at = at / 64 * 64 + (uint32_t)__builtin_ctzll(rest);
            break;
        }
        at = at / 64 + 1;
    }
    for (; k > 0; k--) { /* down */
        looks++;
        at = at * 64 + (uint32_t)__builtin_ctzll(s->word[k - 1][at]);
    }
    return at;
}
