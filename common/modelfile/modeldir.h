/*
 * modeldir: models in and out of files.
 * In: a Hugging Face directory (config.json, model.safetensors or shards, tokenizer.json or
 * llama2.c tokenizer.bin), or llama2.c's legacy .bin (with tok*.bin beside it). Out: a Hugging Face
 * directory (config.json, generation_config.json, model.safetensors, tokenizer.json,
 * tokenizer_config.json, steer_config.json). Strict reader: names, shapes and dtypes must be what
 * config.json implies; every size meets a limit before an allocation; the message names file,
 * tensor, value and bound.
 */
#ifndef MODELFILE_MODELDIR_H
#define MODELFILE_MODELDIR_H

#include "base/err.h"
#include "data/template.h"
#include "data/tokenizer.h"
#include "model/dims.h"

enum steer_role { STEER_NONE, STEER_ATTRIBUTE_MODEL, STEER_POLICY };

/* steer_config.json: what the model was taught to read or to say. Keys beside the template's:
 * "role", "version". */
struct steer_config {
    enum steer_role role; /* STEER_NONE: a plain base model; the rest is then unused */
    struct template_config template_config;
};

struct model {
    struct dims dims;
    struct layout layout;
    float *params; /* [layout.count], 64-byte aligned */
    struct tokenizer *tokenizer;
    struct steer_config steer;
    cJSON *config; /* config.json as read: unknown keys are kept and written back */
};

enum { MODEL_WEIGHTS = 1, MODEL_TOKENIZER = 2, MODEL_ALL = 3 };
/* path: a model directory, or llama2.c's model.bin. On failure nothing is left to free.
 * ERR_NOT_FOUND, ERR_INVALID, ERR_CORRUPT, ERR_UNSUPPORTED (named: architecture, activation, rope
 * scaling, dtype, tokenizer component), ERR_LIMIT, ERR_NUMERIC. */
int model_load(const char *path, unsigned parts, struct model *out, struct err *e);
void model_fini(struct model *m);
/* dir is made; each file is replaced whole and synced. The bytes depend on the model alone.
 * tokenizer NULL: no tokenizer files. */
int model_save(const struct model *m, const char *dir, struct err *e);
/* A random model (GPT-2 style init: N(0, 0.02), residual projections scaled by 1/sqrt(2 L), norms
 * 1), keyed by seed. */
void model_init_random(struct model *m, const struct dims *d, uint64_t seed);
/* Appends rows for new tokens: N(0, sd of the existing embedding), keyed by seed and row; untied
 * heads grow likewise. Does nothing when the model has new_vocab rows already (files often have
 * more rows than tokens). */
void model_grow_vocab(struct model *m, int32_t new_vocab, uint64_t seed);
/* Turns an LM into a regression model: drops the head, adds score.weight [outputs, C] ~ N(0, 0.02).
 */
void model_to_regression(struct model *m, int32_t outputs, uint64_t seed);

#endif
