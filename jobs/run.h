/*
 * run: executing one task on a worker, whatever its kind. The world is reached only through struct run_env, which a
 * test fills with directories and the worker with HTTP and sockets.
 *
 * A task belongs to a phase of a stage. Everything that the tasks of a phase share is one JSON document, the *context*
 * ({"spec": resolved stage spec, "inputs": {key: [digest, ...], "KEY.rows": rows metric of the stage that made input KEY}, "phases": {name: {"outputs": {name: digest}, "parts": [digest], "metrics": {}}},
 * "fold": k}), named by digest; a task adds its index and its row range. So a frame stays small and a rerun is the same task.
 */
#ifndef JOBS_RUN_H
#define JOBS_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"
#include "jobs/spec.h"
#include "json/json.h"

struct run_env {
    void *self;
    const char *scratch; /* an empty directory of this task, removed after it */
    int (*fetch)(void *self, const char *digest, char *path, size_t cap,
                 struct err *e); /* file, or directory for a tree artefact; verified, read-only */
    int (*publish)(void *self, const char *path, struct digest *out,
                   struct err *e); /* file or directory; durable when it returns */
    void (*progress)(void *self, uint64_t done,
                     uint64_t total); /* in the phase's unit, of this task */
    bool (*cancelled)(void *self);
    uint64_t *heartbeat;     /* moves with every beat() (base/beat.h) and in the numerics: at least every 100 ms of work */
    struct run_cache *cache; /* of this thread, or NULL */
};

/* The context of the task before, parsed: the next one mostly has the same. All zero at first. */
struct run_cache {
    char *text;
    size_t len;
    cJSON *context;
    struct spec *spec;
};
void run_cache_fini(struct run_cache *c);

struct run_task {
    const char *kind;    /* "prepare", "encode", "annotate.rows", ...: the table in run.c */
    uint32_t index;      /* of the task in its phase */
    uint64_t begin, end; /* row range; 0, 0 for single tasks */
    const struct spec *spec;
    const cJSON *inputs, *phases; /* members of the context */
    int fold;
};

struct run_result {
    cJSON *outputs; /* {name: digest} */
    cJSON *metrics; /* {name: number or text}; counts and figures, a few hundred at most */
    size_t metrics_bytes;
};
/* A result travels in one message (WIRE_RESULT_MAX): metrics beyond this many bytes are left out, so a task adds the ones that matter first. */
#define RUN_METRICS_BYTES ((size_t)44 << 10)
#define RUN_METRIC_BYTES 28 /* of a number and its quotes, colon and comma: "":-1.2345678901234567e-300, */

/* Parses the context and runs the task. On success result is the caller's (run_result_fini). ERR_CANCELLED if asked to stop;
 * ERR_INVALID, ERR_CORRUPT, ERR_LIMIT are the task's own fault (not retried elsewhere more than the fault budget says). */
int run_task_execute(const char *kind, uint32_t index, uint64_t begin, uint64_t end,
                     const char *context, size_t context_len, const struct run_env *env,
                     struct run_result *result, struct err *e);
void run_result_fini(struct run_result *r);
bool run_kind_exists(const char *kind);
bool run_kind_is_bare(const char *kind); /* it needs no scratch directory */

/* For the run_*.c files. */
typedef int (*run_fn)(const struct run_task *t, const struct run_env *env, struct run_result *r,
                      struct err *e);
int run_input(const struct run_task *t, const struct run_env *env, const char *key, int i,
              char *path, size_t cap, struct err *e); /* fetches inputs.key[i] */
int run_input_count(const struct run_task *t, const char *key);
int run_phase_output(const struct run_task *t, const struct run_env *env, const char *phase,
                     const char *name, char *path, size_t cap, struct err *e);
int run_phase_parts(const struct run_task *t, const char *phase); /* how many parts */
int run_phase_part(const struct run_task *t, const struct run_env *env, const char *phase, int i,
                   char *path, size_t cap, struct err *e);
int run_publish(const struct run_env *env, struct run_result *r, const char *name, const char *path,
                struct err *e);
void run_metric(struct run_result *r, const char *name, double value);
const cJSON *run_phase_metrics(const struct run_task *t, const char *phase);

/* Task kinds, one file per family. */
int run_prepare(const struct run_task *t, const struct run_env *env, struct run_result *r,
                struct err *e); /* run_data.c */
int run_encode(const struct run_task *t, const struct run_env *env, struct run_result *r,
               struct err *e); /* run_encode.c */
int run_export(const struct run_task *t, const struct run_env *env, struct run_result *r,
               struct err *e); /* run_encode.c */
int run_annotate_rows(const struct run_task *t, const struct run_env *env, struct run_result *r,
                      struct err *e); /* run_annotate.c */
int run_annotate_reduce(const struct run_task *t, const struct run_env *env, struct run_result *r,
                        struct err *e);
int run_generate_items(const struct run_task *t, const struct run_env *env, struct run_result *r,
                       struct err *e); /* run_generate.c */
int run_generate_rows(const struct run_task *t, const struct run_env *env, struct run_result *r,
                      struct err *e);
int run_generate_reduce(const struct run_task *t, const struct run_env *env, struct run_result *r,
                        struct err *e);
int run_bootstrap_items(const struct run_task *t, const struct run_env *env, struct run_result *r,
                        struct err *e); /* run_bootstrap.c */
int run_bootstrap_score(const struct run_task *t, const struct run_env *env, struct run_result *r,
                        struct err *e);
int run_bootstrap_reduce(const struct run_task *t, const struct run_env *env, struct run_result *r,
                         struct err *e);
int run_evaluate_items(const struct run_task *t, const struct run_env *env, struct run_result *r,
                       struct err *e); /* run_evaluate.c */
int run_evaluate_rows(const struct run_task *t, const struct run_env *env, struct run_result *r,
                      struct err *e);
int run_evaluate_reduce(const struct run_task *t, const struct run_env *env, struct run_result *r,
                        struct err *e);
int run_probe(const struct run_task *t, const struct run_env *env, struct run_result *r,
              struct err *e); /* run_probe.c */

#endif
