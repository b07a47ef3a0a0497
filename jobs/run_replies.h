/* run_replies: the parts of generate.rows and bootstrap.sample, read back, and what is counted
 * about them. */
#ifndef JOBS_RUN_REPLIES_H
#define JOBS_RUN_REPLIES_H

#include "jobs/run_decode.h"

struct run_replies {
    struct run_reply *v;
    size_t n, cap;
    uint64_t first; /* item of v[0] */
};
/* All of a phase, which must be those of items 0..n. */
int run_replies_load(const struct run_task *t, const struct run_env *env, const char *phase,
                     size_t n, struct run_replies *out, struct err *e);
/* Those of items [begin, end), where part i holds rows_per_task of them. */
int run_replies_load_range(const struct run_task *t, const struct run_env *env, const char *phase,
                           uint64_t rows_per_task, uint64_t begin, uint64_t end,
                           struct run_replies *out, struct err *e);
void run_replies_free_all(struct run_replies *x);
size_t run_replies_empty(const struct run_replies *x); /* replies without text */
/* replies, tokens, tokens a reply, logprob a token, shares of ends, empty, distinct texts. */
void run_replies_metrics(const struct run_replies *x, struct run_result *r);
/* Sets is_first[i] for the first of equal texts; returns how many differ. */
size_t run_replies_distinct(const struct run_replies *x, bool *is_first);

#endif
