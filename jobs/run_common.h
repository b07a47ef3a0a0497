/* run_common: small things that the row tasks share: inputs by key, part files of JSON lines, keep
 * rules, decoded counts. */
#ifndef JOBS_RUN_COMMON_H
#define JOBS_RUN_COMMON_H

#include "data/dataset.h"
#include "data/lines.h"
#include "jobs/run.h"
#include "modelfile/modeldir.h"

int run_dataset(const struct run_task *t, const struct run_env *env, const char *key,
                struct dataset *out, struct err *e);
/* The same with only the wanted conversations in it: the others keep their index and have no turns,
 * no id. Parsing is most of what a range task of a large data set would do. dataset_response() does
 * not work on it. Texts are in arena; free the data set first. */
typedef bool (*run_row_fn)(const void *self, size_t conversation);
int run_dataset_rows(const struct run_task *t, const struct run_env *env, const char *key,
                     const void *self, run_row_fn is_wanted, struct dataset *out,
                     struct arena *arena, struct err *e);
/* Loaded and checked by run_steer_check(). */
int run_model(const struct run_task *t, const struct run_env *env, const char *key, unsigned parts,
              struct model *out, struct err *e);

/* Does steer_config.json fit the model beside it: head, number of scores, ids within the
 * vocabulary, marks in the tokenizer? A model directory may come from anywhere, and the numerics trust their indices. */
int run_steer_check(const struct model *m, struct err *e);

/* What a data set says about which responses are used (meta.json "keep"); zeros if it says nothing.
 */
struct run_keep {
    int max_reply_tokens, context_tokens;
};
struct run_keep run_keep_of(const struct dataset *d);
cJSON *run_keep_to_json(struct run_keep k);

/* Part files: JSON lines, published as output "part". */
int run_part_publish(const struct run_task *t, const struct run_env *env, struct run_result *r,
                     const struct buf *lines, struct err *e);
void run_number(struct buf *b, double v); /* %.9g, or null */

/* All lines of all parts of a phase in order. each() borrows the line's object; ERR_CORRUPT when a
 * line is no object. Stops at the first error. */
typedef int (*run_line_fn)(void *self, const cJSON *line, struct err *e);
int run_lines(const struct run_task *t, const struct run_env *env, const char *phase, void *self,
              run_line_fn each, struct err *e);
/* Lines of parts [begin, end) of a phase. */
int run_lines_of_parts(const struct run_task *t, const struct run_env *env, const char *phase,
                       int begin, int end, void *self, run_line_fn each, struct err *e);

int run_check_cancelled(const struct run_env *env, struct err *e);

#endif
