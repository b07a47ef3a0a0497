/*
 * lines: the lines of a text file that may be plain, gzip or zstd (told by its first bytes, since artefacts have no names).
 * A line longer than the cap is skipped and reported, the next one is read; the total of decompressed bytes has a cap too, so
 * that a small file can't fill the memory or run for ever. CR LF and a byte order mark are taken off.
 */
#ifndef DATA_LINES_H
#define DATA_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct lines_limits {
    size_t line_max;    /* bytes */
    uint64_t total_max; /* bytes after decompression */
};
#define LINES_LIMITS ((struct lines_limits){16u << 20, (uint64_t)64 << 30})

struct line {
    const char *text; /* valid until the next call; NUL-terminated */
    size_t len;
    uint64_t number; /* from 1 */
    bool too_long;   /* text is then its head */
};

struct lines;
int lines_open(const char *path, struct lines_limits limits, struct lines **out, struct err *e);
void lines_close(struct lines *l);
/* 0 and more set to false at the end. ERR_CORRUPT: the compressed stream is damaged or cut; ERR_LIMIT: total_max. */
int lines_next(struct lines *l, struct line *out, bool *more, struct err *e);

#endif
