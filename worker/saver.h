/*
 * saver: publishes checkpoints away from the host thread. A job is either the chunks of one host at
 * one version, or a manifest. Chunks are read from the shard, one at a time, for as long as it is
 * at that version; before it changes, those that were not read yet are kept (saver_job_keep()), so
 * a checkpoint costs memory only when the store is slower than a step.
 */
#ifndef WORKER_SAVER_H
#define WORKER_SAVER_H

#include <pthread.h>

#include "ps/ckpt.h"

struct saver_job {
    uint64_t session, attempt, version;
    /* chunks: of a shard, all of it */
    uint32_t chunk_begin, chunks;
    pthread_mutex_t lock;      /* guards the next three */
    const struct shard *shard; /* NULL: all that was not read is kept, or given up */
    uint32_t read;             /* chunks [0, read) are not needed any more */
    float **kept;              /* [chunks] p, m, v one after the other; NULL: not kept */
    float *part;               /* of the chunk that is being published */
    size_t *bytes;             /* [chunks] of each */
    struct digest *digest;     /* [chunks], filled */
    /* manifest: instead of chunks */
    struct ckpt_manifest *manifest;
    struct digest manifest_digest; /* filled */
    int rc;
    struct err err;
};
struct saver_job *saver_job_new(const struct shard *shard, uint32_t chunk_begin);
struct saver_job *saver_manifest_new(void);
void saver_job_free(struct saver_job *j); /* NULL is fine */
void saver_job_keep(struct saver_job *j); /* the shard is about to change */
void saver_job_drop(struct saver_job *j); /* it is about to be freed: ERR_CANCELLED */

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
