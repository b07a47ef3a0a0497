/*
 * modelconfig: config.json of a Hugging Face model, to dims and back. Both generations of names are
 * read (rope_theta and rope_parameters, torch_dtype and dtype) and written. What the engine doesn't
 * compute is refused by name, never ignored.
 */
#ifndef MODELFILE_MODELCONFIG_H
#define MODELFILE_MODELCONFIG_H

#include "base/err.h"
#include "json/json.h"
#include "model/dims.h"

/* dims of config; they pass dims_check(). ERR_INVALID, ERR_LIMIT, ERR_UNSUPPORTED; the message
 * names the key. */
int modelconfig_parse(const cJSON *config, struct dims *out, struct err *e);
/* A config for d (cJSON_Delete). before: what was read, or NULL; its other keys are kept, in their
 * order. bos, eos: ids or -1. An eos list that holds eos already is kept. */
cJSON *modelconfig_make(const struct dims *d, const cJSON *before, int32_t bos, int32_t eos);
/* generation_config.json: bos, eos and pad as config has them. */
cJSON *modelconfig_generation(const cJSON *config);

#endif
