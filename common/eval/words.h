/*
 * words: text to a stream of tokens for counting: runs of ASCII letters, digits, apostrophes and
 * bytes of other alphabets, letters in lower case; and, if asked, the marks ? and ! as tokens of
 * their own. Everything else separates. A token is known by a 64-bit hash, so that counting needs
 * no strings: 10^6 different ones collide with a chance of about 3 in 10^8.
 */
#ifndef EVAL_WORDS_H
#define EVAL_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct words {
    const char *text;
    size_t len, at;
    bool marks;
};
void words_begin(struct words *w, const char *text, size_t len, bool marks);
bool words_next(struct words *w, uint64_t *hash);   /* false at the end */
uint64_t words_join(uint64_t left, uint64_t right); /* hash of two in this order */

/* Open addressing, hash -> dense id in order of first appearance. Grows. */
struct words_map {
    uint64_t *key; /* 0 = free; the hash 0 is stored as 1 */
    uint32_t *id;
    size_t cap, used;
};
void words_map_init(struct words_map *m, size_t expected);
void words_map_fini(struct words_map *m);
uint32_t words_map_add(struct words_map *m, uint64_t key); /* id, new or old */
bool words_map_find(const struct words_map *m, uint64_t key, uint32_t *id);

#endif
