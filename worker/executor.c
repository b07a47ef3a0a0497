#include "worker/executor.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "jobs/run.h"

#define FETCH_DEADLINE_MS 600000
#define CONTEXT_BYTES_MAX ((size_t)16 << 20)
#define NICE 5

struct job {
    struct job *next;
    struct control *task;
    atomic_bool cancel;
    const struct compute *on; /* the thread that runs it; NULL: queued */
    atomic_uint_fast64_t done, total;
    atomic_bool away; /* waits for an artefact, under that call's deadline */
    uint64_t queued;  /* times that its pulse was taken before it ran */
    struct executor *x;
};

struct compute {
    struct executor *x;
    pthread_t thread;
    uint64_t heartbeat; /* bumped by the numerics without a lock; read with __atomic_load_n */
    struct pulse_thread pulse;
};

struct executor {
    struct executor_env env;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct job *first; /* queued and running, oldest first */
    bool stop;
    uint32_t threads;
    struct compute compute[];
};

void executor_thread_lower(void)
{
    id_t thread = (id_t)syscall(SYS_gettid); /* Linux: priorities are per thread */

    if (setpriority(PRIO_PROCESS, thread, getpriority(PRIO_PROCESS, 0) + NICE) != 0)
        log_debug("thread.priority", "nice=%d", NICE);
    pthread_setname_np(pthread_self(), "compute");
}

/* ---- struct run_env -------------------------------------------------------------------------- */

static int env_fetch(void *self, const char *digest, char *path, size_t cap, struct err *e)
{
    struct job *j = self;
    int rc;

    atomic_store(&j->away, true);
    rc = artifact_fetch(j->x->env.artifacts, digest, FETCH_DEADLINE_MS, path, cap, e);
    atomic_store(&j->away, false);
    return rc;
}

/* What damaged memory does to rows on their way to the file. */
static void file_flip_bit(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    off_t middle = fd < 0 ? 0 : lseek(fd, 0, SEEK_END) / 2;
    char byte;

    if (fd < 0)
        return;
    if (pread(fd, &byte, 1, middle) == 1) {
        byte ^= 1;
        if (pwrite(fd, &byte, 1, middle) != 1)
            log_warn("fault.flip", "path=%s", path);
    }
    close(fd);
}

static int env_publish(void *self, const char *path, struct digest *out, struct err *e)
{
    struct job *j = self;
    int rc;

    if (fault_hit(FAULT_WORKER_ROWS_CORRUPT))
        file_flip_bit(path);
    atomic_store(&j->away, true);
    rc = artifact_publish(j->x->env.artifacts, path, FETCH_DEADLINE_MS, out, NULL, NULL, e);
    atomic_store(&j->away, false);
    return rc;
}

static void env_progress(void *self, uint64_t done, uint64_t total)
{
    struct job *j = self;

    atomic_store(&j->done, done);
    atomic_store(&j->total, total);
}

static bool env_cancelled(void *self)
{
    struct job *j = self;

    return atomic_load(&j->cancel);
}

/* ---- one task -------------------------------------------------------------------------------- */

static char *result_text(const struct run_result *r)
{
    cJSON *o = cJSON_CreateObject();
    struct buf text = BUF_INIT;

    cJSON_AddItemReferenceToObject(o, "outputs", r->outputs);
    cJSON_AddItemReferenceToObject(o, "metrics", r->metrics);
    json_canonical(o, &text);
    cJSON_Delete(o);
    return buf_take(&text);
}

static int context_run(struct job *j, const char *scratch, uint64_t *heartbeat,
                       struct control *outcome, struct err *e)
{
    const struct control *t = j->task;
    const struct run_env env = {
        j, scratch, env_fetch, env_publish, env_progress, env_cancelled, heartbeat};
    struct run_result result = {NULL, NULL};
    struct buf context = BUF_INIT;
    char path[4096];
    int rc;

    fault_hit(FAULT_TASK_START_BEFORE);
    fault_hit(FAULT_WORKER_COMPUTE_SLOW);
    if (fault_hit(FAULT_WORKER_COMPUTE_HANG))
        for (;;)
            pause();
    rc = env_fetch(j, t->context.hex, path, sizeof path, e);
    if (rc == 0)
        rc = file_read(path, CONTEXT_BYTES_MAX, &context, e);
    if (rc == 0)
        rc = run_task_execute(t->task_kind, t->index, t->begin, t->end, context.data, context.len,
                              &env, &result, e);
    if (rc == 0) {
        outcome->result = result_text(&result);
        if (strlen(outcome->result) > WIRE_RESULT_MAX)
            rc = err_set(e, ERR_LIMIT, "the result of %s has %zu bytes, the limit is %u",
                         t->task_kind, strlen(outcome->result), WIRE_RESULT_MAX);
        run_result_fini(&result);
    }
    buf_free(&context);
    return rc;
}

static void job_run(struct job *j, uint64_t *heartbeat)
{
    const struct control *t = j->task;
    struct control *outcome = control_new(CONTROL_TASK_DONE);
    uint64_t begun = clock_ms();
    char scratch[4096];
    struct err e = {0};
    int rc;

    snprintf(scratch, sizeof scratch, "%s/%" PRIu64 "-%" PRIu64, j->x->env.scratch, t->task,
             t->epoch);
    outcome->job = t->job;
    outcome->task = t->task;
    outcome->epoch = t->epoch;
    outcome->attempt = t->attempt;
    memcpy(outcome->task_kind, t->task_kind, sizeof outcome->task_kind);
    rc = file_make_dirs(scratch, &e);
    if (rc == 0)
        rc = context_run(j, scratch, heartbeat, outcome, &e);
    file_remove_tree(scratch, NULL);
    if (rc != 0) {
        outcome->type = CONTROL_TASK_FAILED;
        outcome->code = rc;
        free(outcome->result);
        outcome->result = NULL;
        snprintf(outcome->text, sizeof outcome->text, "%.*s", (int)sizeof outcome->text - 1, e.msg);
    }
    log_info(rc == 0 ? "task.done" : "task.failed",
             "job=%" PRIu64 " task=%" PRIu64 " attempt=%" PRIu64 " kind=%s wall_ms=%" PRIu64 "%s%s",
             t->job, t->task, t->attempt, t->task_kind, clock_ms() - begun,
             rc == 0 ? "" : " error=", rc == 0 ? "" : e.msg);
    j->x->env.ended(j->x->env.self, outcome);
}

/* ---- threads --------------------------------------------------------------------------------- */

static void job_remove(struct executor *x, struct job *j)
{
    struct job **at = &x->first;

    while (*at != j)
        at = &(*at)->next;
    *at = j->next;
    control_free(j->task);
    free(j);
}

static void *compute_main(void *self)
{
    struct compute *c = self;
    struct executor *x = c->x;

    executor_thread_lower();
    pthread_mutex_lock(&x->lock);
    while (!x->stop) {
        struct job *j = x->first;
        while (j != NULL && j->on != NULL)
            j = j->next;
        if (j == NULL) {
            pthread_cond_wait(&x->work, &x->lock);
            continue;
        }
        j->on = c;
        pthread_mutex_unlock(&x->lock);
        job_run(j, &c->heartbeat);
        pthread_mutex_lock(&x->lock);
        job_remove(x, j);
    }
    pthread_mutex_unlock(&x->lock);
    return NULL;
}

struct executor *executor_start(uint32_t threads, const struct executor_env *env)
{
    struct executor *x;

    CHECK(threads >= 1 && threads <= EXECUTOR_THREADS_MAX);
    x = mem_zalloc(1, sizeof *x + threads * sizeof x->compute[0]);
    x->env = *env;
    x->threads = threads;
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->work, NULL);
    for (uint32_t i = 0; i < threads; i++) {
        x->compute[i].x = x;
        CHECK(pthread_create(&x->compute[i].thread, NULL, compute_main, &x->compute[i]) == 0);
    }
    return x;
}

void executor_stop(struct executor *x)
{
    if (x == NULL)
        return;
    pthread_mutex_lock(&x->lock);
    x->stop = true;
    for (struct job *j = x->first; j != NULL; j = j->next)
        atomic_store(&j->cancel, true);
    pthread_cond_broadcast(&x->work);
    pthread_mutex_unlock(&x->lock);
    for (uint32_t i = 0; i < x->threads; i++)
        pthread_join(x->compute[i].thread, NULL);
    while (x->first != NULL)
        job_remove(x, x->first);
    pthread_cond_destroy(&x->work);
    pthread_mutex_destroy(&x->lock);
    free(x);
}

void executor_task(struct executor *x, const struct control *task)
{
    struct job *j = mem_zalloc(1, sizeof *j);
    struct job **at;

    j->x = x;
    j->task = control_copy(task);
    pthread_mutex_lock(&x->lock);
    for (at = &x->first; *at != NULL; at = &(*at)->next)
        ;
    *at = j;
    pthread_cond_signal(&x->work);
    pthread_mutex_unlock(&x->lock);
}

void executor_cancel(struct executor *x, uint64_t task, uint64_t epoch)
{
    pthread_mutex_lock(&x->lock);
    for (struct job *j = x->first; j != NULL; j = j->next) {
        if (j->task->task != task || j->task->epoch != epoch)
            continue;
        if (j->on != NULL)
            atomic_store(&j->cancel, true);
        else
            job_remove(x, j);
        break;
    }
    pthread_mutex_unlock(&x->lock);
}

static struct job *job_on(const struct executor *x, const struct compute *c)
{
    struct job *j = x->first;

    while (j != NULL && j->on != c)
        j = j->next;
    return j;
}

void executor_each(struct executor *x, struct pulse *pulse,
                   void (*fn)(void *self, uint64_t task, uint64_t epoch, uint64_t done,
                              uint64_t total, uint64_t moved),
                   void *self)
{
    pthread_mutex_lock(&x->lock);
    for (uint32_t i = 0; i < x->threads; i++) {
        const struct job *j = job_on(x, &x->compute[i]);
        pulse_thread_take(pulse, &x->compute[i].pulse, &x->compute[i].heartbeat,
                          j == NULL || atomic_load(&j->away));
    }
    for (struct job *j = x->first; j != NULL; j = j->next)
        fn(self, j->task->task, j->task->epoch, atomic_load(&j->done), atomic_load(&j->total),
           j->on != NULL ? j->on->pulse.moved : ++j->queued);
    pthread_mutex_unlock(&x->lock);
}
