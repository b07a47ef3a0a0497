#include "worker/saver.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/fault.h"
#include "worker/mailbox.h"

struct saver {
    pthread_t thread;
    struct mailbox *box;
    saver_publish publish;
    void *publish_self;
    saver_done done;
    void *done_self;
    atomic_bool stop;
};

struct saver_job *saver_job_new(const struct shard *shard, uint32_t chunk_begin)
{
    struct saver_job *j = mem_zalloc(1, sizeof *j);

    j->shard = shard;
    j->version = shard_version(shard);
    j->chunk_begin = chunk_begin;
    j->chunks = shard_chunks(shard);
    j->kept = mem_zalloc(j->chunks, sizeof *j->kept);
    j->bytes = mem_zalloc(j->chunks, sizeof *j->bytes);
    for (uint32_t i = 0; i < j->chunks; i++)
        j->bytes[i] = 3 * shard_chunk_len(shard, i) * sizeof(float);
    j->digest = mem_zalloc(j->chunks, sizeof *j->digest);
    pthread_mutex_init(&j->lock, NULL);
    return j;
}

struct saver_job *saver_manifest_new(void)
{
    struct saver_job *j = mem_zalloc(1, sizeof *j);

    j->manifest = mem_zalloc(1, sizeof *j->manifest);
    pthread_mutex_init(&j->lock, NULL);
    return j;
}

void saver_job_free(struct saver_job *j)
{
    if (j == NULL)
        return;
    if (j->manifest != NULL)
        ckpt_manifest_fini(j->manifest);
    free(j->manifest);
    for (uint32_t i = 0; i < j->chunks; i++)
        free(j->kept[i]);
    free(j->kept);
    free(j->part);
    free(j->bytes);
    free(j->digest);
    pthread_mutex_destroy(&j->lock);
    free(j);
}

static float *chunk_keep(const struct saver_job *j, uint32_t i)
{
    float *part = mem_alloc(j->bytes[i]);

    shard_copy(j->shard, i, part);
    return part;
}

void saver_job_keep(struct saver_job *j)
{
    pthread_mutex_lock(&j->lock);
    for (uint32_t i = j->read; i < j->chunks && j->shard != NULL; i++)
        j->kept[i] = chunk_keep(j, i);
    j->shard = NULL;
    pthread_mutex_unlock(&j->lock);
}

void saver_job_drop(struct saver_job *j)
{
    pthread_mutex_lock(&j->lock);
    j->shard = NULL;
    pthread_mutex_unlock(&j->lock);
}

/* The i-th chunk as it was at the job's version, to j->part. */
static int chunk_read(struct saver_job *j, uint32_t i, struct err *e)
{
    free(j->part);
    pthread_mutex_lock(&j->lock);
    j->part = j->kept[i] != NULL ? j->kept[i] : j->shard != NULL ? chunk_keep(j, i) : NULL;
    j->kept[i] = NULL;
    j->read = i + 1;
    pthread_mutex_unlock(&j->lock);
    return j->part != NULL ? 0 : err_set(e, ERR_CANCELLED, "the session is over");
}

static void job_run(struct saver *s, struct saver_job *j)
{
    for (uint32_t i = 0; j->rc == 0 && i < j->chunks && !s->stop; i++) {
        j->rc = fault_error(FAULT_CKPT_CHUNK_BEFORE, &j->err);
        if (j->rc == 0)
            j->rc = chunk_read(j, i, &j->err);
        if (j->rc == 0)
            j->rc = s->publish(s->publish_self, j->part, j->bytes[i], &j->digest[i], &j->err);
        if (j->rc == 0)
            fault_hit(FAULT_CKPT_CHUNK_AFTER);
    }
    free(j->part);
    j->part = NULL;
    if (j->manifest != NULL) {
        struct buf text = BUF_INIT;
        ckpt_manifest_write(j->manifest, &text);
        j->rc = fault_error(FAULT_CKPT_MANIFEST_BEFORE, &j->err);
        if (j->rc == 0)
            j->rc = s->publish(s->publish_self, text.data, text.len, &j->manifest_digest, &j->err);
        if (j->rc == 0)
            fault_hit(FAULT_CKPT_MANIFEST_AFTER);
        buf_free(&text);
    }
}

static void *saver_main(void *self)
{
    struct saver *s = self;

    for (;;) {
        struct saver_job *j = mailbox_wait(s->box);
        if (j == (void *)s) /* saver_stop()'s mark */
            return NULL;
        if (s->stop) {
            saver_job_free(j);
            continue;
        }
        job_run(s, j);
        s->done(s->done_self, j);
    }
}

struct saver *saver_start(saver_publish publish, void *publish_self, saver_done done,
                          void *done_self)
{
    struct saver *s = mem_zalloc(1, sizeof *s);

    s->box = mailbox_new();
    s->publish = publish;
    s->publish_self = publish_self;
    s->done = done;
    s->done_self = done_self;
    CHECK(pthread_create(&s->thread, NULL, saver_main, s) == 0);
    return s;
}

void saver_put(struct saver *s, struct saver_job *j)
{
    mailbox_put(s->box, j);
}

void saver_stop(struct saver *s)
{
    if (s == NULL)
        return;
    s->stop = true;
    mailbox_put(s->box, s);
    pthread_join(s->thread, NULL);
    mailbox_free(s->box);
    free(s);
}
