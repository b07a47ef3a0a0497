/*
 * data_pool: the responses that a policy is taught with, and the levels that they are conditioned on. Works in place on the data sets.
 */
#ifndef JOBS_DATA_POOL_H
#define JOBS_DATA_POOL_H

#include "data/dataset.h"
#include "data/tokenizer.h"
#include "jobs/spec.h"

struct pool_item {
    struct dataset *data;
    uint32_t conversation, turn;
};
struct data_pool {
    struct pool_item *item; /* in the order of data sets and rows */
    size_t n;
    uint64_t over_long; /* responses of the training split that were left out */
    uint64_t unkept;    /* left out because annotation marked them */
};

/* Responses of the training split, kept, of at most max_reply_tokens tokens (0 = any, and t may be NULL). */
int data_pool_make(struct dataset *const *data, int n, const struct tokenizer *t,
                   int max_reply_tokens, struct data_pool *out, struct err *e);
void data_pool_free(struct data_pool *p);
/* labels: predicted (as annotation left them), human, none. Computed attributes that have no edges yet get them from the pool; they are
 * set in `schema` and in the data sets. Then levels of all turns are complete.
 * ERR_INVALID when `predicted` is asked and no response of the pool has a predicted level. */
int data_pool_levels(struct data_pool *p, struct dataset *const *data, int n, const char *labels,
                     struct schema *schema, struct err *e);
/* The control: level vectors permuted over the pool, whole vectors, keyed by seed. */
void data_pool_shuffle(struct data_pool *p, uint64_t seed);

#endif
