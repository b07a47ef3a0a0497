/*
 * ps_patience: how long the silence of a parameter host means that it is only slow. Pure: time comes from outside.
 *
 * On a slow link an answer is late because all before it is still under way; repeating the question then would double
 * what is to be sent, and make it later still. So a question is repeated after silence only, and the silence that a link
 * has shown, twice, is what is waited for; each repetition doubles it. What a link has shown counts from the first
 * question on: the answer to that is what a repetition hears.
 */
#ifndef WORKER_PS_PATIENCE_H
#define WORKER_PS_PATIENCE_H

#include <stdbool.h>
#include <stdint.h>

#define PS_PATIENCE_LEAST_MS 1000
#define PS_PATIENCE_MOST_MS 8000
#define PS_PATIENCE_BYTES_PER_MS                                                                   \
    4000 /* a link that has not shown yet what it can is taken to be no slower */

struct ps_patience {
    uint64_t heard_ms, asked_ms; /* when it said something last, and was asked first */
    uint64_t gap_ms;             /* the longest silence since then */
    uint64_t wait_ms, least_ms;
};

/* bytes: behind so many an answer may be. */
void ps_patience_init(struct ps_patience *p, uint64_t bytes);
/* What was sent then has not been answered, and nothing else was heard, for too long. A clock that was read before the
 * last word came sees no silence. */
bool ps_patience_is_over(const struct ps_patience *p, uint64_t sent_ms, uint64_t now);
void ps_patience_heard(struct ps_patience *p, uint64_t now);
/* Everything that was due was said once more. */
void ps_patience_repeated(struct ps_patience *p);
/* Another question, once a version: from here on what the last one has shown is waited for. */
void ps_patience_renew(struct ps_patience *p, uint64_t now);
/* What was first sent then is answered: sooner than was waited for means that a loss made it wait longer, not the link. */
void ps_patience_ease(struct ps_patience *p, uint64_t first_ms, uint64_t now);

#endif
