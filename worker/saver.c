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

void saver_job_free(struct saver_job *j)
{
    if (j == NULL)
        return;
    if (j->manifest != NULL)
        ckpt_manifest_fini(j->manifest);
    free(j->manifest);
    free(j->floats);
    free(j->chunk_floats);
    free(j->digest);
    free(j);
}

static void job_run(struct saver *s, struct saver_job *j)
{
    size_t at = 0;

    for (uint32_t i = 0; j->rc == 0 && i < j->chunks && !s->stop; i++) {
        j->rc = fault_error(FAULT_CKPT_CHUNK_BEFORE, &j->err);
        if (j->rc == 0)
            j->rc = s->publish(s->publish_self, j->floats + at, j->chunk_floats[i] * sizeof(float),
                               &j->digest[i], &j->err);
        if (j->rc == 0)
            fault_hit(FAULT_CKPT_CHUNK_AFTER);
        at += j->chunk_floats[i];
    }
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
