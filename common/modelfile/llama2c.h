/*
 * llama2c: llama2.c's legacy checkpoint (version 0): seven int32, then the weights in fp32. Its
 * rotary pairs are neighbours (2i, 2i+1); rows of q and k are moved so that pairs are (i, i +
 * head_dim/2), as everything else here has them.
 */
#ifndef MODELFILE_LLAMA2C_H
#define MODELFILE_LLAMA2C_H

#include "base/err.h"
#include "model/dims.h"

/* dims of the file, after its size was checked against them. */
int llama2c_dims(const char *path, struct dims *out, struct err *e);
/* Weights into params[layout->count], whose dims llama2c_dims() gave. ERR_NUMERIC for one that is
 * not finite. */
int llama2c_read(const char *path, const struct dims *d, const struct layout *layout, float *params,
                 struct err *e);

#endif
