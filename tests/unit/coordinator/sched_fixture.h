/* sched_fixture: a scheduler with a job made of smoke.yaml's stages or of a few lines of YAML, and
 * short words for events. */
#ifndef TESTS_SCHED_FIXTURE_H
#define TESTS_SCHED_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "coordinator/sched.h"
#include "jobs/kind.h"

struct fixture {
    struct sched sched;
    struct sched_actions acts; /* of the last event */
    uint64_t now_ms, next_job;
    bool reuse; /* what jobs are to ask for; off by default */
};

static const struct sched_config fixture_config = {.plan = kind_next_phase,
                                                   .build = "test",
                                                   .lease_ms = 10000,
                                                   .fault_budget = 3,
                                                   .loss_budget = 5,
                                                   .crash_limit = 3,
                                                   .barren_limit = 6,
                                                   .backoff_ms = 500,
                                                   .stall_ms = 60000,
                                                   .hang_ms = 5000,
                                                   .abandon_ms = 120000,
                                                   .slow_ms = 1000,
                                                   .resend_ms = 5000,
                                                   .restart_grace_ms = 1500,
                                                   .adopt_ms = 6000};

static inline struct spec *fixture_spec(const char *yaml)
{
    struct spec *spec = NULL;
    struct spec_problems problems = {0};
    struct err e = {0};

    if (spec_parse(yaml, strlen(yaml), NULL, 0, NULL, NULL, &spec, &problems, &e) != 0)
        fail_msg("%s", e.msg);
    spec_problems_free(&problems);
    return spec;
}

static inline struct spec *fixture_smoke(void)
{
    struct buf yaml = BUF_INIT;
    struct err e = {0};
    struct spec *spec = NULL;

    if (file_read("jobs/specs/smoke.yaml", 1u << 20, &yaml, &e) != 0)
        fail_msg("%s", e.msg);
    spec = fixture_spec(yaml.data);
    buf_free(&yaml);
    return spec;
}

static inline void fixture_ref(void *self, const char *ref)
{
    struct digest d;

    digest_bytes(ref, strlen(ref), &d);
    if (strncmp(ref, "file:", 5) == 0 && json_get(self, ref + 5) == NULL)
        cJSON_AddStringToObject(self, ref + 5, d.hex);
}

static inline cJSON *fixture_resolved(const struct spec *spec)
{
    cJSON *o = cJSON_CreateObject();

    expand_each_ref(spec, fixture_ref, o);
    return o;
}

static inline void fixture_step(struct fixture *f, struct sched_event *ev)
{
    ev->now_ms = f->now_ms;
    ev->wall_ms = 1000 + f->now_ms;
    sched_actions_clear(&f->acts);
    sched_step(&f->sched, ev, &f->acts);
}

static inline struct sched_job *fixture_submit(struct fixture *f, struct spec *spec)
{
    cJSON *resolved = fixture_resolved(spec);
    struct sched_event ev = {.type = SCHED_SUBMIT};
    struct sched_job *j = NULL;
    struct err e = {0};

    spec->reuse_verified = f->reuse;
    if (sched_job_new(++f->next_job, &spec, resolved, 1, &j, &e) != 0)
        fail_msg("%s", e.msg);
    cJSON_Delete(resolved);
    ev.job = j;
    fixture_step(f, &ev);
    return j;
}

/* The body of a job as the journal gives it, its id is 7; "a" has done four of its six tasks. */
static inline struct sched_job *fixture_stored(struct fixture *f, enum run_state state)
{
    struct spec *spec =
        fixture_spec("apiVersion: steerlm/v1\nkind: probe\nname: p\nprobe: {tasks: 6}\n");
    struct sched_job *j = NULL;
    struct sched_stage *st = NULL;
    struct err e = {0};

    if (sched_job_new(7, &spec, NULL, 1, &j, &e) != 0)
        fail_msg("%s", e.msg);
    st = &j->stage[0];
    j->state = state;
    st->state = state == RUN_PAUSED ? RUN_RECOVERING : state;
    st->inputs = cJSON_CreateObject();
    st->done = cJSON_CreateObject();
    assert_true(sched_restore_phase(&f->sched, st, "probe", 6));
    for (uint32_t i = 0; i < 6; i++)
        st->task[i].id = 70 + i;
    for (; st->tasks_done < 4; st->tasks_done++) {
        st->task[st->tasks_done].state = TASK_DONE;
        snprintf(st->task[st->tasks_done].worker, SCHED_WORKER_MAX, "a");
    }
    return j;
}

static inline void fixture_open(struct fixture *f)
{
    *f = (struct fixture){.now_ms = 1000};
    sched_init(&f->sched, &fixture_config);
}

static inline void fixture_close(struct fixture *f)
{
    sched_actions_free(&f->acts);
    sched_fini(&f->sched);
}

static inline void fixture_up(struct fixture *f, const char *id, uint32_t threads, uint32_t roles,
                              const char *class_id)
{
    struct sched_event ev = {
        .type = SCHED_WORKER_UP, .threads = threads, .roles = roles, .class_id = class_id};

    snprintf(ev.worker, sizeof ev.worker, "%s", id);
    fixture_step(f, &ev);
}

/* A job of smoke.yaml, and worker "a" of one thread, who has its first task. */
static inline struct sched_job *fixture_started(struct fixture *f)
{
    struct sched_job *j = NULL;

    fixture_open(f);
    j = fixture_submit(f, fixture_smoke());
    fixture_up(f, "a", 1, 3, "c");
    return j;
}

static inline struct sched_stage *fixture_stage(struct sched_job *j, const char *name)
{
    int i = 0;

    while (i < j->stages_n && strcmp(j->stage[i].name, name) != 0)
        i++;
    assert_true(i < j->stages_n);
    return &j->stage[i];
}

static inline void fixture_mark(struct fixture *f, enum sched_event_type type, const char *id,
                                bool crashed)
{
    struct sched_event ev = {.type = type, .crashed = crashed};

    snprintf(ev.worker, sizeof ev.worker, "%s", id);
    fixture_step(f, &ev);
}

static inline void fixture_tick(struct fixture *f, uint64_t ms)
{
    struct sched_event ev = {.type = SCHED_TICK};

    f->now_ms += ms;
    fixture_step(f, &ev);
}

/* All outputs and figures that any phase is asked for. */
static inline cJSON *fixture_result(void)
{
    static const char *const outputs[] = {"part",       "data",       "items", "init",
                                          "examples.0", "examples.1", "report"};
    static const char *const figures[] = {"examples.0", "examples.1", "tokens.0", "tokens.1"};
    cJSON *r = cJSON_CreateObject(), *o = cJSON_AddObjectToObject(r, "outputs"),
          *m = cJSON_AddObjectToObject(r, "metrics");
    struct digest d;

    for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++) {
        digest_bytes(outputs[i], strlen(outputs[i]), &d);
        cJSON_AddStringToObject(o, outputs[i], d.hex);
    }
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++)
        cJSON_AddNumberToObject(m, figures[i], 480);
    cJSON_AddNumberToObject(m, "rows", 300);
    cJSON_AddNumberToObject(m, "params", 260000);
    return r;
}

static inline void fixture_done(struct fixture *f, const struct sched_task *t, uint64_t epoch)
{
    struct sched_event ev = {
        .type = SCHED_TASK_DONE, .task = t->id, .epoch = epoch, .result = fixture_result()};

    snprintf(ev.worker, sizeof ev.worker, "%s", t->worker);
    fixture_step(f, &ev);
}

static inline void fixture_failed(struct fixture *f, const struct sched_task *t, int code)
{
    struct sched_event ev = {.type = SCHED_TASK_FAILED,
                             .task = t->id,
                             .epoch = t->epoch,
                             .code = code,
                             .text = "because"};

    snprintf(ev.worker, sizeof ev.worker, "%s", t->worker);
    fixture_step(f, &ev);
}

static inline int fixture_count(const struct fixture *f, enum sched_action_type type)
{
    int n = 0;

    for (int i = 0; i < f->acts.n; i++)
        n += f->acts.v[i].type == type;
    return n;
}

static inline void fixture_session(struct fixture *f, const struct sched_stage *st,
                                   enum sched_event_type type, uint64_t attempt, uint64_t version)
{
    struct sched_event ev = {.type = type,
                             .session = st->session->id,
                             .attempt = attempt,
                             .version = version,
                             .code = ERR_UNREACHABLE,
                             .loss = 1};

    digest_bytes(&version, sizeof version, &ev.digest);
    snprintf(ev.worker, sizeof ev.worker, "%s",
             st->session->hosts_n > 0 ? st->session->host[0].worker : "a");
    fixture_step(f, &ev);
}

/* The tasks before the session of the first job are done. */
static inline struct sched_stage *fixture_reach_training(struct fixture *f)
{
    struct sched_job *j = f->sched.job[0];
    struct sched_stage *st = fixture_stage(j, "attribute-model");

    fixture_done(f, &j->stage[0].task[0], 1);
    fixture_done(f, &st->task[0], 1);
    assert_non_null(st->session);
    assert_true(st->session->open);
    return st;
}

/* From an open fixture up to the session of a job of smoke.yaml; w0, w1... have both roles. */
static inline struct sched_stage *fixture_train(struct fixture *f, int workers, uint32_t threads)
{
    char id[SCHED_WORKER_MAX];

    fixture_submit(f, fixture_smoke());
    for (int i = 0; i < workers; i++) {
        snprintf(id, sizeof id, "w%d", i);
        fixture_up(f, id, threads, 3, "c");
    }
    return fixture_reach_training(f);
}

static inline struct sched_stage *fixture_training(struct fixture *f, int workers, uint32_t threads)
{
    fixture_open(f);
    return fixture_train(f, workers, threads);
}

/* Answers every lease and closes every session until the job is over or nothing moves. */
static inline void fixture_run(struct fixture *f, struct sched_job *j)
{
    for (int turn = 0; turn < 1000 && !run_state_is_final(j->state); turn++) {
        bool moved = false;

        for (int i = 0; i < j->stages_n && !moved; i++) {
            struct sched_stage *st = &j->stage[i];

            for (uint32_t t = 0; t < st->tasks_n && !moved; t++) {
                if (st->task[t].state == TASK_LEASED) {
                    fixture_done(f, &st->task[t], st->task[t].epoch);
                    moved = true;
                }
            }
            if (!moved && st->session != NULL && st->session->open) {
                fixture_session(f, st, SCHED_SESSION_DONE, st->session->attempt,
                                st->phase.session.steps);
                moved = true;
            }
        }
        if (!moved)
            return;
    }
}

#endif
