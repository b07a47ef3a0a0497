/*
 * run_items: what is to be generated, one line an item: which context, conditioned on which levels,
 * the how-manieth sample.
 *
 * A context is a place in a data set where a reply is wanted: before a response that has something
 * before it, or, in a conversation without responses, its end. Contexts are chosen by a keyed
 * permutation, so that a smaller number of them is a part of a larger one. An item's text depends
 * on its key and sample: the key is the context's place in the data, so that settings of one
 * context share their random numbers and a comparison between them is paired.
 */
#ifndef JOBS_RUN_ITEMS_H
#define JOBS_RUN_ITEMS_H

#include "data/dataset.h"
#include "jobs/run_common.h"
#include "jobs/run_decode.h"

struct run_context {
    uint32_t conversation, turn; /* turn may be the number of turns: a new reply at the end */
};
uint64_t run_context_key(struct run_context c); /* what an item's text is keyed by */
/* split: "train", "held_out", "all". most: 0 = all. Gives the list (free()); ERR_INVALID if there
 * is none. */
int run_contexts(const struct dataset *d, const char *split, size_t most, uint64_t seed,
                 struct run_context **out, size_t *n, struct err *e);

struct run_item {
    uint64_t key;
    uint32_t sample;
    bool has_context;
    struct run_context context;
    int8_t level[SCHEMA_ATTRS_MAX]; /* [attrs]; -1 = missing */
};
struct run_items {
    struct run_item *v;
    size_t n, cap;
    uint64_t first; /* index of v[0] among all items */
};
#define RUN_ITEMS_MAX (1u << 24)
struct run_item *run_items_add(struct run_items *x); /* zeroed, all levels missing */
void run_items_free(struct run_items *x);
int run_items_publish(const struct run_items *x, int attrs, const struct run_env *env,
                      struct run_result *r, struct err *e);
/* Items [begin, end) of a phase's output "items" (end 0: all). ERR_CORRUPT when a level is none of the
 * schema's. */
int run_items_load(const struct run_task *t, const struct run_env *env, const char *phase,
                   const struct schema *s, uint64_t begin, uint64_t end, struct run_items *out,
                   struct err *e);
/* The data set that the items' contexts lie in: only their conversations have turns
 * (run_dataset_rows()). ERR_CORRUPT when a context is not in it. Without a single context nothing
 * is loaded. */
int run_items_dataset(const struct run_items *x, const struct run_task *t,
                      const struct run_env *env, const char *key, struct dataset *out,
                      struct arena *arena, struct err *e);

/* The model whose replies are wanted: a policy as it is; a plain model gets the template plain
 * without attributes. */
int run_policy(const struct run_task *t, const struct run_env *env, const char *key, unsigned parts,
               struct model *out, struct err *e);
/* Prompts of items with policy m; with guidance != 1 the unconditioned ones as well. Gives the
 * array: run_prompts_free(). */
int run_items_prompts(const struct run_items *x, const struct model *m, const struct dataset *d,
                      const struct sampling *s, struct run_prompt **out, struct err *e);

/* A conversation of an item and its reply, for a data set: turns before, then the reply (role
 * assistant, respond). The turn array and the id are allocated in a; texts are borrowed. Fold and
 * split are the context's, or keyed by the item without one. */
void run_item_conversation(const struct run_item *item, uint64_t index, const struct dataset *d,
                           const char *text, size_t len, const struct schema *s, struct arena *a,
                           struct conversation *out);

#endif
