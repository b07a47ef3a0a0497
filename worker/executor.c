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
#include "jobs/kind.h"
#include "jobs/run.h"
#include "worker/cores.h"

#define FETCH_DEADLINE_MS 600000
#define NICE 5
#define ENDED_MAX 32 /* outcomes are handed over together, but no more than so many */
#define ENDED_MS 2   /* and not later than this after the first, while short tasks are waiting */
#define QUICK_MS 20  /* tasks that take less are not a line of the log each */

struct job {
    struct job *next;
    struct control *task;
    atomic_bool cancel;
    const struct compute *on; /* the thread that runs it; NULL: queued */
    atomic_uint_fast64_t done, total;
    atomic_bool away; /* waits for an artefact, under that call's deadline */
    struct executor *x;
};

/* What the tasks of a phase share, as it was fetched last. */
struct context {
    struct digest digest; /* "" = none */
    struct buf text;
    struct run_cache parsed;
};

struct compute {
    struct executor *x;
    pthread_t thread;
    struct context context;
    uint64_t heartbeat; /* bumped by the numerics without a lock; read with __atomic_load_n */
    struct pulse_thread pulse;
};

struct executor {
    struct executor_env env;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct job *first, **last; /* queued and running, oldest first */
    struct job *next;          /* the oldest that no thread runs */
    struct control *ended;     /* outcomes that are not handed over yet, a chain */
    uint64_t ended_ms;         /* since when */
    bool stop;
    atomic_uint alive; /* threads that have not come to their end */
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

static int context_take(struct job *j, struct context *c, struct err *e)
{
    char path[4096];
    int rc;

    if (strcmp(c->digest.hex, j->task->context.hex) == 0)
        return 0;
    c->digest.hex[0] = '\0';
    buf_free(&c->text);
    rc = env_fetch(j, j->task->context.hex, path, sizeof path, e);
    if (rc == 0)
        rc = file_read(path, KIND_CONTEXT_MAX, &c->text, e);
    if (rc == 0)
        c->digest = j->task->context;
    return rc;
}

static int context_run(struct job *j, const char *scratch, struct compute *on,
                       struct control *outcome, struct err *e)
{
    const struct control *t = j->task;
    struct context *c = &on->context;
    const struct run_env env = {
        j,         scratch, env_fetch, env_publish, env_progress, env_cancelled, &on->heartbeat,
        &c->parsed};
    struct run_result result = {0};
    int rc;

    fault_hit(FAULT_TASK_START_BEFORE);
    fault_hit(FAULT_WORKER_COMPUTE_SLOW);
    if (fault_hit(FAULT_WORKER_COMPUTE_HANG))
        for (;;)
            pause();
    rc = context_take(j, c, e);
    if (rc == 0)
        rc = run_task_execute(t->task_kind, t->index, t->begin, t->end, c->text.data, c->text.len,
                              &env, &result, e);
    if (rc == 0) {
        outcome->result = result_text(&result);
        if (strlen(outcome->result) > WIRE_RESULT_MAX)
            rc = err_set(e, ERR_LIMIT, "the result of %s has %zu bytes, the limit is %u",
                         t->task_kind, strlen(outcome->result), WIRE_RESULT_MAX);
        run_result_fini(&result);
    }
    return rc;
}

static struct control *outcome_new(const struct control *t)
{
    struct control *outcome = control_new(CONTROL_TASK_DONE);

    outcome->job = t->job;
    outcome->task = t->task;
    outcome->epoch = t->epoch;
    outcome->attempt = t->attempt;
    memcpy(outcome->task_kind, t->task_kind, sizeof outcome->task_kind);
    return outcome;
}

static struct control *job_run(struct job *j, struct compute *on)
{
    const struct control *t = j->task;
    struct control *outcome = outcome_new(t);
    bool bare = run_kind_is_bare(t->task_kind);
    uint64_t begun = clock_ns();
    char scratch[4096];
    struct err e = {0};
    int rc = 0;

    snprintf(scratch, sizeof scratch, "%s/%" PRIu64 "-%" PRIu64, j->x->env.scratch, t->task,
             t->epoch);
    if (!bare)
        rc = file_make_dirs(scratch, &e);
    if (rc == 0)
        rc = context_run(j, scratch, on, outcome, &e);
    if (!bare)
        file_remove_tree(scratch, NULL);
    outcome->busy_us = (clock_ns() - begun) / 1000 + 1;
    if (rc != 0) {
        outcome->type = CONTROL_TASK_FAILED;
        outcome->code = rc;
        free(outcome->result);
        outcome->result = NULL;
        snprintf(outcome->text, sizeof outcome->text, "%.*s", (int)sizeof outcome->text - 1, e.msg);
    }
    log_event(rc == 0 && outcome->busy_us < QUICK_MS * 1000 ? LOG_DEBUG : LOG_INFO,
              rc == 0 ? "task.done" : "task.failed",
              "job=%" PRIu64 " task=%" PRIu64 " attempt=%" PRIu64 " kind=%s wall_ms=%" PRIu64
              "%s%s",
              t->job, t->task, t->attempt, t->task_kind, outcome->busy_us / 1000,
              rc == 0 ? "" : " error=", rc == 0 ? "" : e.msg);
    return outcome;
}

/* ---- threads --------------------------------------------------------------------------------- */

static void job_remove(struct executor *x, struct job *j)
{
    struct job **at = &x->first;

    while (*at != j)
        at = &(*at)->next;
    if (x->next == j)
        x->next = j->next;
    if (x->last == &j->next)
        x->last = at;
    *at = j->next;
    control_free(j->task);
    free(j);
}

/* Outcomes are worth a message each only when nothing else is about to end: then whoever takes them
 * is woken once for many. */
static bool ended_is_due(const struct executor *x)
{
    return x->ended != NULL && (x->next == NULL || x->ended->links_n + 1 >= ENDED_MAX ||
                                clock_ms() - x->ended_ms >= ENDED_MS);
}

/* Hands over what has ended; the lock is held, but not meanwhile. */
static void ended_give(struct executor *x)
{
    struct control *chain = x->ended;

    x->ended = NULL;
    if (chain == NULL)
        return;
    pthread_mutex_unlock(&x->lock);
    x->env.ended(x->env.self, chain);
    pthread_mutex_lock(&x->lock);
}

/* Failures are looked at one by one, and are rare. */
static void ended_add(struct executor *x, struct control *outcome)
{
    if (x->ended != NULL && outcome->type == CONTROL_TASK_DONE && control_join(x->ended, outcome))
        return;
    ended_give(x);
    while (x->ended != NULL) /* another thread's, meanwhile */
        ended_give(x);
    x->ended = outcome;
    x->ended_ms = clock_ms();
}

static void *compute_main(void *self)
{
    struct compute *c = self;
    struct executor *x = c->x;

    executor_thread_lower();
    cores_pin(x->env.cores, (uint32_t)(c - x->compute));
    pthread_mutex_lock(&x->lock);
    while (!x->stop) {
        struct job *j = x->next;
        struct control *outcome;

        if (j == NULL) {
            pthread_cond_wait(&x->work, &x->lock);
            continue;
        }
        x->next = j->next;
        j->on = c;
        pthread_mutex_unlock(&x->lock);
        outcome = job_run(j, c);
        pthread_mutex_lock(&x->lock);
        job_remove(x, j);
        ended_add(x, outcome);
        if (ended_is_due(x))
            ended_give(x);
    }
    ended_give(x);
    pthread_mutex_unlock(&x->lock);
    buf_free(&c->context.text);
    run_cache_fini(&c->context.parsed);
    atomic_fetch_sub(&x->alive, 1);
    return NULL;
}

struct executor *executor_start(uint32_t threads, const struct executor_env *env)
{
    struct executor *x;

    CHECK(threads >= 1 && threads <= EXECUTOR_THREADS_MAX);
    x = mem_zalloc(1, sizeof *x + threads * sizeof x->compute[0]);
    x->env = *env;
    x->threads = threads;
    atomic_init(&x->alive, threads);
    x->last = &x->first;
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->work, NULL);
    for (uint32_t i = 0; i < threads; i++) {
        x->compute[i].x = x;
        CHECK(pthread_create(&x->compute[i].thread, NULL, compute_main, &x->compute[i]) == 0);
    }
    return x;
}

bool executor_stop(struct executor *x, uint64_t deadline_ms)
{
    uint64_t end = clock_ms() + deadline_ms;

    if (x == NULL)
        return true;
    pthread_mutex_lock(&x->lock);
    x->stop = true;
    for (struct job *j = x->first; j != NULL; j = j->next)
        atomic_store(&j->cancel, true);
    pthread_cond_broadcast(&x->work);
    pthread_mutex_unlock(&x->lock);
    while (atomic_load(&x->alive) > 0 && clock_ms() < end)
        clock_sleep_ms(5);
    if (atomic_load(&x->alive) > 0)
        return false;
    for (uint32_t i = 0; i < x->threads; i++)
        pthread_join(x->compute[i].thread, NULL);
    while (x->first != NULL)
        job_remove(x, x->first);
    pthread_cond_destroy(&x->work);
    pthread_mutex_destroy(&x->lock);
    free(x);
    return true;
}

void executor_task(struct executor *x, const struct control *task)
{
    struct job *j = mem_zalloc(1, sizeof *j);

    j->x = x;
    j->task = control_copy(task);
    pthread_mutex_lock(&x->lock);
    *x->last = j;
    x->last = &j->next;
    if (x->next == NULL)
        x->next = j;
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
    uint64_t any = 1; /* 0 would say that it is not known */

    pthread_mutex_lock(&x->lock);
    for (uint32_t i = 0; i < x->threads; i++) {
        const struct job *j = job_on(x, &x->compute[i]);
        pulse_thread_take(pulse, &x->compute[i].pulse, &x->compute[i].heartbeat,
                          j == NULL || atomic_load(&j->away));
        any += x->compute[i].pulse.moved;
    }
    for (struct job *j = x->first; j != NULL; j = j->next)
        fn(self, j->task->task, j->task->epoch, atomic_load(&j->done), atomic_load(&j->total),
           j->on != NULL ? j->on->pulse.moved : any);
    ended_give(x); /* of a thread that is at a longer task now */
    pthread_mutex_unlock(&x->lock);
}
