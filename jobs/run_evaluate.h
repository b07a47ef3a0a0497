/*
 * run_evaluate: what the three phases of an evaluation share. Rows are *items*, one JSON object a
 * line:
 *   {"m":0,"g":0,"a":1,"l":2,"c":17,"r":523}  write a reply: model, guidance, attribute (-1:
 * nothing asked for) and level index, number of the context, held-out response that it would
 * replace (-1: from nothing)
 *   {"m":0,"r":523,"s":88}                    loss of held-out response r with its own attributes,
 * with those of s, with none Items come model by model, the two sorts interleaved and settings
 * innermost, so that equal ranges cost about the same.
 */
#ifndef JOBS_RUN_EVALUATE_H
#define JOBS_RUN_EVALUATE_H

#include "data/dataset.h"
#include "data/measure.h"
#include "eval/results.h"
#include "jobs/run.h"
#include "modelfile/modeldir.h"

#define EVALUATE_ROWS_MAX 2000000u

struct evaluate_item {
    int model, guidance, attr, level;
    bool is_loss;
    size_t context;
    int64_t response, other;
};

/* The design that the spec and the data give, the same in every task: fills names, levels and
 * measures of r (results_prepare() is left to the caller). judge NULL: no attribute model.
 * ERR_INVALID names what does not fit. Models are put in order, because the resolved spec has them
 * by name: the model under test first ("steer" if there is one, else the first that is no control),
 * its other training seeds, controls, the rest. */
int evaluate_design(const struct run_task *t, const struct schema *s, const struct schema *judge,
                    struct results *r, struct err *e);
/* Schema of the judge of this stage, if it has one. */
int evaluate_judge_schema(const struct run_task *t, const struct run_env *env, struct schema *out,
                          bool *has, struct err *e);
/* Path of input "model.<label>". */
int evaluate_model_path(const struct run_task *t, const struct run_env *env, const char *label,
                        char *path, size_t cap, struct err *e);
/* Levels for an item: those not under test as the spec says (others), or from the response's own.
 * level[SCHEMA_ATTRS_MAX]. */
void evaluate_levels(const struct schema *s, const struct results *r, int attr, int level,
                     int8_t *out);
int evaluate_item_of(const cJSON *line, const struct results *r, struct evaluate_item *out,
                     struct err *e);
/* The held-out part of the data, as the items phase left it; empty if there are only texts without
 * prompts. */
int evaluate_held_open(const struct run_task *t, const struct run_env *env, struct dataset *out,
                       struct err *e);

/* Losses of tails after prompts (run_evaluate_loss.c), packed in order: batches are a pure function
 * of the list. */
struct evaluate_tail {
    struct ids prompt, tail; /* owned; without a prompt nothing is scored */
    double nll;              /* out: nats over the tokens that were scored */
    size_t scored;           /* out: all of the tail, or what of it fits into the model's context */
};
void evaluate_losses(const struct model *m, struct evaluate_tail *tail, size_t n,
                     uint64_t *heartbeat);
/* Tokens of the tail that a model of this context scores; 0 without a prompt, or when it fills the context. */
size_t evaluate_tail_room(const struct evaluate_tail *t, size_t context);
void evaluate_tails_free(struct evaluate_tail *tail, size_t n); /* the array as well */
/* How a model reads: its own template, ready for scoring; a plain model sees the turns before and
 * no attributes. */
struct template_config evaluate_reading(const struct model *m, int context_tokens);
/* Prompt and learnt tokens of the response at (c, turn), or of text standing there (whole: its end
 * token counts, too). What nothing stands before, the first token of a text from nothing without
 * BOS, is prompt. */
int evaluate_tail_of(const struct template_config *cfg, const struct tokenizer *tok,
                     const struct conversation *c, uint32_t turn, const char *text, size_t len,
                     bool whole, const int8_t *level, struct evaluate_tail *out, struct err *e);

#endif
