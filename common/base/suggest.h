/* suggest: "did you mean". */
#ifndef BASE_SUGGEST_H
#define BASE_SUGGEST_H

#include <stddef.h>

/* The candidate nearest to word by edit distance, or NULL if none is near (distance over a third of its length). */
const char *suggest_nearest(const char *word, const char *const *candidates, size_t count);

#endif
