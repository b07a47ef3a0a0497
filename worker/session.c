#include "worker/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "worker/session_inner.h"

static atomic_uint sessions_alive;

void session_unref(struct session *s)
{
    if (atomic_fetch_sub(&s->refs, 1) != 1)
        return;
    region_release(s->region);
    if (s->has_model)
        model_fini(&s->model);
    spec_free(s->spec);
    control_free(s->open);
    free(s->progress);
    free(s->pulse);
    free(s->over);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s);
    atomic_fetch_sub(&sessions_alive, 1);
}

void session_fail(struct session *s, int code, const struct err *e)
{
    struct control *m;

    if (atomic_load(&s->closed) || atomic_exchange(&s->failed, true))
        return;
    m = control_new(CONTROL_SESSION_FAILED);
    m->job = s->open->job;
    m->session = s->open->session;
    m->session_attempt = s->open->session_attempt;
    m->version = CONTROL_VERSION_FAILED;
    m->code = code;
    snprintf(m->text, sizeof m->text, "%.*s", (int)sizeof m->text - 1, e->msg);
    s->env.says(s->env.self, m);
}

static void *session_main(void *self)
{
    struct session *s = self;
    struct err e = {0};
    int rc = session_needs(s, &e);

    if (rc == 0)
        rc = session_region(s, &e);
    if (rc == 0)
        rc = session_host(s, &e);
    if (rc == 0) {
        free(s->model.params); /* from here on parameters are the hosts' business */
        s->model.params = NULL;
    }
    if (rc == 0 && s->env.threads > 0)
        rc = session_examples(s, &e);
    if (rc == 0 && s->env.threads > 0)
        rc = session_compute(s, &e);
    if (rc != 0)
        session_fail(s, rc, &e);
    if (s->examples != NULL)
        examples_close(s->examples);
    pthread_mutex_lock(&s->lock);
    while (!atomic_load(&s->closed))
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    if (s->env.host != NULL && s->keep == 0)
        ps_host_close(s->env.host, s->open->session, s->open->session_attempt);
    else if (s->env.host != NULL && s->keep != s->open->session_attempt)
        ps_host_drop(s->env.host, s->open->session, s->open->session_attempt);
    session_unref(s);
    return NULL;
}

struct session *session_open(const struct session_env *env, const struct control *open)
{
    struct session *s = mem_zalloc(1, sizeof *s);
    pthread_t thread;

    atomic_fetch_add(&sessions_alive, 1);
    s->env = *env;
    s->open = control_copy(open);
    atomic_init(&s->refs, 2);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    s->progress = mem_zalloc(env->threads, sizeof *s->progress);
    s->pulse = mem_zalloc(env->threads, sizeof *s->pulse);
    s->over = mem_zalloc(env->threads, sizeof *s->over);
    CHECK(pthread_create(&thread, NULL, session_main, s) == 0);
    pthread_detach(thread);
    return s;
}

void session_assign(struct session *s, const struct control *assign)
{
    pthread_mutex_lock(&s->lock);
    if (assign->assignment > s->open->assignment) {
        s->open->assignment = assign->assignment;
        s->open->slots_n = assign->slots_n;
        memcpy(s->open->slot, assign->slot, assign->slots_n * sizeof *assign->slot);
        atomic_fetch_add(&s->assignments, 1);
    }
    pthread_mutex_unlock(&s->lock);
}

void session_close(struct session *s, uint64_t keep)
{
    if (s == NULL)
        return;
    pthread_mutex_lock(&s->lock);
    s->keep = keep;
    atomic_store(&s->closed, true);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    session_unref(s);
}

void session_pulse(struct session *s, struct pulse *pulse)
{
    for (uint32_t i = 0; s != NULL && i < s->env.threads; i++)
        pulse_thread_take(pulse, &s->pulse[i], &s->progress[i],
                          !atomic_load(&s->computing) || atomic_load(&s->over[i]));
}

bool session_wait_all(uint64_t deadline_ms)
{
    uint64_t end = clock_ms() + deadline_ms;

    while (atomic_load(&sessions_alive) > 0 && clock_ms() < end)
        clock_sleep_ms(5);
    return atomic_load(&sessions_alive) == 0;
}
