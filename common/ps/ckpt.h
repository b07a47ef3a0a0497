/*
 * ckpt: a checkpoint as bytes. One blob a chunk (p, m, v one after the other, little-endian fp32)
 * and one manifest, canonical JSON that names the blobs by SHA-256. The manifest holds nothing that
 * depends on when, where or on how many machines the run was made, so its own SHA-256 is "the" hash
 * of a run. Strict reader: every size meets a limit before an allocation.
 */
#ifndef PS_CKPT_H
#define PS_CKPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/digest.h"
#include "base/err.h"
#include "ps/host.h" /* struct host_figures */

#define CKPT_PARAMS_MAX ((uint64_t)1 << 36)
#define CKPT_CHUNKS_MAX 262144u

struct ckpt_manifest {
    uint64_t params, step, steps, seed;
    uint32_t chunk_elems, units, global_batch;
    bool bf16; /* trained with products of bfloat16: "numerics": "bf16"; fp32 says nothing */
    struct digest init, examples;
    struct host_figures figures; /* loss and grad_norm are not kept */
    uint32_t chunks;
    struct digest *chunk; /* [chunks] */
};
void ckpt_manifest_fini(struct ckpt_manifest *m);
void ckpt_manifest_write(const struct ckpt_manifest *m, struct buf *out);
int ckpt_manifest_read(const char *text, size_t len, struct ckpt_manifest *out,
                       struct err *e); /* ERR_CORRUPT, ERR_LIMIT */

/* fetch: a verified local file of a digest (jobs/run.h has the same signature). */
typedef int (*ckpt_fetch)(void *self, const char *digest, char *path, size_t cap, struct err *e);
int ckpt_manifest_fetch(const char *digest, ckpt_fetch fetch, void *self, struct ckpt_manifest *out,
                        struct err *e);
size_t ckpt_chunk_len(const struct ckpt_manifest *m, uint32_t chunk); /* elements */
/* One chunk's parts into p, m, v [ckpt_chunk_len]; each may be NULL. ERR_CORRUPT on a wrong size.
 */
int ckpt_read_chunk(const struct ckpt_manifest *m, uint32_t chunk, ckpt_fetch fetch, void *self,
                    float *p, float *mom, float *vel, struct err *e);
/* All parameters of the checkpoint whose manifest is `digest` into out [count]; for export.
 * ERR_INVALID if it has another count. */
int ckpt_read_params(const char *digest, ckpt_fetch fetch, void *self, float *out, size_t count,
                     struct err *e);

#endif
