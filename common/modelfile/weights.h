/*
 * weights: the tensors of a model directory, in one model.safetensors or in shards named by
 * model.safetensors.index.json. The set of names, shapes and dtypes must be the layout's: anything
 * missing, odd or left over is refused by name before memory for the weights is asked for. Left
 * over and allowed: integer buffers, rotary_emb.inv_freq of old files, and the lm_head.weight of a
 * tied model, which must then equal the embedding.
 */
#ifndef MODELFILE_WEIGHTS_H
#define MODELFILE_WEIGHTS_H

#include "base/err.h"
#include "model/dims.h"

/* Gives params[layout->count], 64-byte aligned (free()). */
int weights_read(const char *dir, const struct dims *d, const struct layout *layout, float **params,
                 struct err *e);
/* 64-byte aligned floats for the layout; NULL when memory is short. */
float *weights_alloc(size_t count);

#endif
