/*
 * safetensors: the tensor file of Hugging Face models. u64 N, N bytes of JSON, data.
 * Strict as the reference reader and stricter: own limits, no duplicate or unknown keys, tensors
 * touch without hole or overlap, the last ends at the end of the file, all arithmetic checked.
 * Everything is known to fit the file before a caller sees it, so sizes from here may be allocated.
 * Read by pread: a file cut short meanwhile gives an error, not a SIGBUS.
 */
#ifndef MODELFILE_SAFETENSORS_H
#define MODELFILE_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define SAFETENSORS_HEADER_MAX (16u << 20)
#define SAFETENSORS_TENSORS_MAX 16384
#define SAFETENSORS_DIMS_MAX 8

enum safetensors_dtype {
    DTYPE_F32,
    DTYPE_F64,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_BUFFER /* integers, BOOL: no weights */
};

struct safetensors_entry {
    char *name;
    enum safetensors_dtype dtype;
    int dims;
    uint64_t shape[SAFETENSORS_DIMS_MAX];
    uint64_t elements;   /* product of shape */
    uint64_t begin, end; /* bytes from the start of the data */
};

struct safetensors {
    char *path;
    int fd;
    uint64_t data_at; /* where the data starts in the file */
    size_t n;
    struct safetensors_entry *entry; /* in file order */
};

/* ERR_CORRUPT, ERR_INVALID, ERR_LIMIT, ERR_UNSUPPORTED (dtype), ERR_SYSTEM; the message names file
 * and tensor. */
int safetensors_open(const char *path, struct safetensors *out, struct err *e);
void safetensors_close(struct safetensors *s);
const struct safetensors_entry *safetensors_find(const struct safetensors *s,
                                                 const char *name); /* NULL if absent */
/* Widens elements [first, first + n) of x into dst. ERR_NUMERIC names the first element that is not
 * finite. */
int safetensors_read(const struct safetensors *s, const struct safetensors_entry *x, uint64_t first,
                     size_t n, float *dst, struct err *e);

struct safetensors_out { /* one fp32 tensor to write */
    const char *name;
    uint64_t rows, cols; /* cols == 0: a vector */
    const float *data;
};
/* Writes path (temporary sibling, fsync, rename): sorted by name, header padded to 8,
 * {"format":"pt"}. Sorts `list`. The bytes depend on the tensors alone. */
int safetensors_write(const char *path, struct safetensors_out *list, size_t n, struct err *e);

#endif
