/*
 * saver: publishes checkpoints away from the host thread. A job is either the chunks of one host at
 * one version, or a manifest.
 */
#ifndef WORKER_SAVER_H
#define WORKER_SAVER_H

#include "ps/ckpt.h"

struct saver_job {
    uint64_t session, attempt, version;
    /* chunks: floats holds p, m, v of each chunk, one chunk after the other */
    uint32_t chunk_begin, chunks;
    float *floats;
    size_t *chunk_floats;  /* [chunks] floats of each, 3 * its length */
    struct digest *digest; /* [chunks], filled */
    /* manifest: instead of chunks */
    struct ckpt_manifest *manifest;
    struct digest manifest_digest; /* filled */
    int rc;
    struct err err;
};
void saver_job_free(struct saver_job *j);

typedef int (*saver_publish)(void *self, const void *bytes, size_t len, struct digest *out,
                             struct err *e);
typedef void (*saver_done)(void *self,
                           struct saver_job *j); /* takes j; called on the saver thread */

struct saver;
struct saver *saver_start(saver_publish publish, void *publish_self, saver_done done,
                          void *done_self);
void saver_put(struct saver *s, struct saver_job *j); /* takes j; jobs are done in order */
void saver_stop(struct saver *s);                     /* what is queued is given up */

#endif
