/* handover_fixture: a session on hosts that keep copies, and short words for what its hosts say. */
#ifndef TESTS_HANDOVER_FIXTURE_H
#define TESTS_HANDOVER_FIXTURE_H

#include "sched_fixture.h"

#include "coordinator/cover.h"

#define ROOTS (COVER_OWN | COVER_COPY)

static inline struct sched_stage *training(struct fixture *f, int workers, uint32_t threads)
{
    struct sched_stage *st = NULL;

    fixture_open(f);
    f->sched.config.replicate = true;
    f->sched.config.freeze_ms = 5000;
    f->sched.config.first_ms = 60000;
    f->sched.config.respread_ms = 1000;
    st = fixture_train(f, workers, threads);
    assert_int_equal(st->session->hosts_n, workers);
    return st;
}

static inline const struct sched_action *find(const struct fixture *f, enum sched_action_type type,
                                       const char *worker)
{
    for (int i = 0; i < f->acts.n; i++) {
        if (f->acts.v[i].type == type && strcmp(f->acts.v[i].worker, worker) == 0)
            return &f->acts.v[i];
    }
    return NULL;
}

static inline bool noted(const struct fixture *f, const char *type)
{
    for (int i = 0; i < f->acts.n; i++) {
        if (f->acts.v[i].type == SCHED_EVENT && strcmp(f->acts.v[i].text, type) == 0)
            return true;
    }
    return false;
}

static inline void frozen(struct fixture *f, const struct sched_stage *st, const char *worker,
                   uint64_t attempt, uint64_t version)
{
    struct sched_event ev = {.type = SCHED_SESSION_FROZEN,
                             .session = st->session->id,
                             .attempt = attempt,
                             .version = version,
                             .frozen = {.roots = ROOTS,
                                        .close_step = version - 1,
                                        .scale = .5,
                                        .rate = .01,
                                        .tokens = version}};

    snprintf(ev.worker, sizeof ev.worker, "%s", worker);
    fixture_step(f, &ev);
}

static inline void step(struct fixture *f, const struct sched_stage *st, uint64_t version)
{
    fixture_session(f, st, SCHED_SESSION_STATUS, st->session->attempt, version);
}

static inline void hello(struct fixture *f, const char *id, uint64_t session, uint64_t attempt)
{
    struct sched_event ev = {.type = SCHED_WORKER_UP,
                             .threads = 1,
                             .roles = 3,
                             .class_id = "c",
                             .session = session,
                             .attempt = attempt};

    snprintf(ev.worker, sizeof ev.worker, "%s", id);
    fixture_step(f, &ev);
}

#endif
