/*
 * team: a few threads that do one short job together, thousands of times a second.
 *
 * For work that one caller waits for (a stream that is decoded alone), where each part is tens of
 * microseconds: members spin a little for the next job and sleep on a futex when none comes, so an
 * idle team costs nothing. Who computes what is a pure function of (part, parts); a job must give
 * the same result for any number of parts. One caller at a time. Tests: tests/unit/base/test_team.c.
 */
#ifndef BASE_TEAM_H
#define BASE_TEAM_H

#include <stddef.h>

#define TEAM_MAX 64

struct team;
/* threads: 1..TEAM_MAX, the caller's own among them. */
struct team *team_new(int threads);
void team_free(struct team *t);
size_t team_parts(const struct team *t); /* threads; 1 for NULL */
/* job(self, part, parts) for every part below team_parts(), part 0 by the caller; returns when all
 * have ended, and what they wrote is visible then. NULL: the caller does it alone. */
void team_run(struct team *t, void (*job)(void *self, size_t part, size_t parts), void *self);

#endif
