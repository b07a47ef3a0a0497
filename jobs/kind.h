/*
 * kind: what a job kind is to the coordinator: a pure function from what is done so far to the next phase.
 * Start reading here. A stage runs its phases in order; a phase is one of
 *   PHASE_TASKS   n leased tasks (single ones, or row ranges), each done once, result committed by digest;
 *   PHASE_SESSION a training run: workers compute gradient shards, parameter hosts fold and apply, until `steps`.
 */
#ifndef JOBS_KIND_H
#define JOBS_KIND_H

#include <stdint.h>

#include "base/err.h"
#include "jobs/spec.h"
#include "json/json.h"

/* Of the context document of a phase (jobs/run.h): what JSON_LIMITS_FILE allows. Its bulk are the parts of finished
 * phases, 67 bytes each. A kind has at most two phases of ranges before its last one (bootstrap: sample and score), each
 * of at most SCHED_TASKS_MAX tasks: 27 MB. */
#define KIND_CONTEXT_MAX ((size_t)64 << 20)

enum phase_type { PHASE_END, PHASE_TASKS, PHASE_SESSION };

struct session_plan { /* numbers only; the context document carries the rest */
    uint64_t seed;
    uint64_t steps;
    uint64_t params; /* elements of the flat vector */
    uint32_t global_batch, units, chunk_elems;
    uint32_t checkpoint_every;
    int fold;
};

struct phase {
    enum phase_type type;
    char name[32];                /* unique in the stage: "encode", "train.0", "annotate.rows" */
    char task[32];                /* task kind for jobs/run.h */
    uint32_t tasks;               /* PHASE_TASKS */
    uint64_t rows, rows_per_task; /* row phases: task i covers [i * rows_per_task, min(.., rows)) */
    char unit[16];                /* what progress counts: "rows", "steps", "files" */
    double cost;                  /* relative size, for the progress of the whole stage */
    struct session_plan session;  /* PHASE_SESSION */
    char session_context
        [64]; /* name of the phase output that holds the examples, e.g. "examples.0" of phase "encode" */
};

/* done: {"encode": {"outputs": {...}, "parts": [...], "metrics": {...}}, ...} of the finished phases, in order.
 * inputs: the stage's resolved inputs, {key: [digest, ...]}, and for keys that come from a stage "KEY.rows": its metric `rows` (annotate needs
 * data.rows: conversations). Parts: digest of the output "part" of each task, in task order; parts of "export" are its outputs "model".
 * Gives the next phase, or PHASE_END and fills `outputs` ({name: [digest, ...]}) and `metrics` of the stage. */
int kind_next_phase(const struct spec *s, const cJSON *inputs, const cJSON *done, struct phase *out,
                    cJSON **outputs, cJSON **metrics, struct err *e);
const char *kind_default_output(enum job_kind kind); /* "model", "data", "report" */

#endif
