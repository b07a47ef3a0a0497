/*
 * run_score_lm: the attribute model in the paper's form, whose labels are text behind the response.
 *
 * The label string is decoded greedily under the template's grammar, then read once more for the
 * probabilities at each place where a value was chosen: an attribute's number is the expected level
 * under them, given the values chosen before it.
 */
#ifndef JOBS_RUN_SCORE_LM_H
#define JOBS_RUN_SCORE_LM_H

#include "jobs/run.h"
#include "modelfile/modeldir.h"

/* prompts: up to where the string begins, each with room for it in the model's context.
 * value[n][attrs] in the attributes' units; NaN for computed ones. rows: how many were computed,
 * added to. ERR_CANCELLED, ERR_NUMERIC, ERR_LIMIT, template_grammar_new()'s. */
int run_score_lm(const struct model *m, const struct ids *prompts, size_t n,
                 const struct run_env *env, float *value, uint64_t *rows, struct err *e);
/* Tokens of the longest label string: what a prompt must leave room for. */
int run_score_lm_room(const struct model *m, size_t *room, struct err *e);

#endif
