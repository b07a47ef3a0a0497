/*
 * expand: a checked spec becomes a list of stages with resolved needs and inputs. Pure.
 * Each `data:NAME` in use becomes a stage "data/NAME" of KIND_PREPARE before those that use it; a
 * job of a single kind is a pipeline of one stage. References to uploaded files and finished jobs
 * become digests here; references to stages stay symbolic until the stage has its outputs.
 */
#ifndef COORDINATOR_EXPAND_H
#define COORDINATOR_EXPAND_H

#include "base/digest.h"
#include "base/err.h"
#include "jobs/spec.h"
#include "json/json.h"

#define EXPAND_STAGES_MAX (SPEC_STAGES_MAX + 16)
#define EXPAND_NAME_MAX (SPEC_NAME_MAX + 8)

struct expand_ref {
    int stage;       /* index of the stage that gives it, or -1: digest is set */
    char output[64]; /* of that stage */
    struct digest digest;
    int64_t rows; /* of a data set named by job:, if known; 0 = not */
};

struct expand_input {
    char key[EXPAND_NAME_MAX]; /* "base", "train", "files", "model.LABEL", "tokenizer" */
    int refs_n, refs_cap;
    struct expand_ref *ref;
};

struct expand_stage {
    char name[EXPAND_NAME_MAX];
    const struct spec *spec;    /* borrowed from the job's spec, or `owned` */
    struct spec *owned;         /* of prepare stages */
    const struct stage *source; /* gates; NULL for prepare and single-kind jobs */
    int needs_n;
    int needs[EXPAND_STAGES_MAX];
    int inputs_n, inputs_cap;
    struct expand_input *input;
};

struct expansion {
    int stages_n;
    struct expand_stage stage[EXPAND_STAGES_MAX];
};

/* resolved: {"data/x.jsonl": "<sha256>", "job:ID/outputs.data": ["<sha256>", ...],
 * "job:ID/outputs.data#rows": 10784}. spec must outlive the expansion. ERR_INVALID: a reference to
 * nothing, a file that was not uploaded, a circle of needs; the message names stage and input. */
int expand_spec(const struct spec *spec, const cJSON *resolved, struct expansion **out,
                struct err *e);
void expand_free(struct expansion *x);
int expand_find(const struct expansion *x, const char *name); /* index or -1 */

/* Calls fn for each reference text of the spec and its stages ("file:...", "job:...", ...), data
 * files included as "file:PATH". */
void expand_each_ref(const struct spec *spec, void (*fn)(void *self, const char *ref), void *self);

#endif
