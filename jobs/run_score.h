/*
 * run_score: responses to attribute values with one attribute model, or with one a fold.
 *
 * Responses are added, then scored at once, packed into batches of about RUN_SCORE_ROWS rows in the
 * order in which they were added, so that the batches, and with them the bits, are a pure function
 * of the list. With several models (cross-fitting, model k has not seen fold k) a response is
 * scored by the model of its fold, or by all, and gets the mean.
 */
#ifndef JOBS_RUN_SCORE_H
#define JOBS_RUN_SCORE_H

#include "jobs/run.h"
#include "modelfile/modeldir.h"

#define RUN_SCORE_ROWS 3072
#define RUN_SCORE_ALL (-1)

struct run_scorer;
/* Loads all models of inputs.key; want: the schema that the data has (NULL: not compared).
 * ERR_INVALID names a mismatch. */
int run_scorer_new(const struct run_task *t, const struct run_env *env, const char *key,
                   const struct schema *want, struct run_scorer **out, struct err *e);
void run_scorer_free(struct run_scorer *s);
const struct schema *run_scorer_schema(const struct run_scorer *s);
const struct tokenizer *run_scorer_tokenizer(const struct run_scorer *s); /* of the first model */
int run_scorer_models(const struct run_scorer *s);

/* The response at (c, turn), or `reply` standing there (NULL: the turn's own text); c and reply are
 * borrowed until the run. fold: scored by model fold % models, or RUN_SCORE_ALL. Returns its index.
 */
size_t run_scorer_add(struct run_scorer *s, const struct conversation *c, uint32_t turn,
                      const char *reply, size_t len, int64_t fold);
int run_scorer_run(struct run_scorer *s, const struct run_env *env,
                   struct err *e); /* ERR_CANCELLED, ERR_NUMERIC, template_score()'s */

struct run_scored {
    const float *value; /* [attrs] probability or number in the attribute's units; NaN: computed
                           attributes, or not scored */
    const float *probs; /* head classes: the classes of label 0, of label 1, ...; else NULL */
    bool truncated;     /* a model saw it cut; longer than its context: not scored at all */
};
struct run_scored run_scorer_get(const struct run_scorer *s, size_t i);
int run_scorer_probs(const struct run_scorer *s, int label,
                     int *begin); /* number of classes of a label and where they begin; 0 without */
uint64_t run_scorer_rows(const struct run_scorer *s); /* rows computed so far */

#endif
