/*
 * One event changes a little state; then settle() lets everything follow that follows: stages whose
 * needs are met start, phases whose tasks are done end, free workers get work. Settling asks only
 * the state, never the event, so a lost or doubled message can delay a decision but not make a
 * wrong one. After a result in the middle of a phase nothing can follow but that the free thread gets
 * work; that alone is done then, because it is what happens thousands of times a second.
 *
 * Order of service: jobs by age, stages by index. A session takes every idle worker of its class
 * that it can use, tasks take free threads; so an old session comes before young tasks, also where
 * these have something for every thread that becomes free (sched_keep.c), and threads that a session
 * cannot use serve whoever is next.
 */
#include "coordinator/sched.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "coordinator/sched_inner.h"

static const char *const run_names[] = {
#define X(name, text) [name] = text,
    RUN_STATES(X)
#undef X
};
static const uint32_t run_next[] = {
    [RUN_PENDING] = BIT(RUN_STARTING) | BIT(RUN_CANCELLED) | BIT(RUN_SKIPPED) | BIT(RUN_FAILED) |
                    BIT(RUN_PAUSED),
    [RUN_STARTING] = BIT(RUN_RUNNING) | BIT(RUN_SUCCEEDED) | BIT(RUN_FAILED) | BIT(RUN_CANCELLED) |
                     BIT(RUN_RECOVERING) | BIT(RUN_PAUSED),
    [RUN_RUNNING] = BIT(RUN_RECOVERING) | BIT(RUN_SUCCEEDED) | BIT(RUN_FAILED) |
                    BIT(RUN_CANCELLED) | BIT(RUN_PAUSED),
    [RUN_RECOVERING] = BIT(RUN_RUNNING) | BIT(RUN_SUCCEEDED) | BIT(RUN_FAILED) |
                       BIT(RUN_CANCELLED) | BIT(RUN_PAUSED),
    [RUN_PAUSED] = BIT(RUN_PENDING) | BIT(RUN_CANCELLED),
    [RUN_SUCCEEDED] = 0,
    [RUN_FAILED] = 0,
    [RUN_CANCELLED] = 0,
    [RUN_SKIPPED] = 0,
};
static const char *const task_names[] = {
#define X(name, next) [name] = #name,
    TASK_STATES(X)
#undef X
};

const char *run_state_name(enum run_state s)
{
    return run_names[s];
}

int run_state_parse(const char *text)
{
    for (int i = 0; i < RUN_STATES_COUNT; i++) {
        if (strcmp(run_names[i], text) == 0)
            return i;
    }
    return -1;
}

const char *task_state_name(enum task_state s)
{
    return task_names[s] + strlen("TASK_");
}

int task_state_parse(const char *text)
{
    for (int i = 0; i < TASK_STATES_COUNT; i++) {
        if (strcmp(task_names[i] + strlen("TASK_"), text) == 0)
            return i;
    }
    return -1;
}

/* ---- actions --------------------------------------------------------------------------------- */

void sched_actions_clear(struct sched_actions *a)
{
    for (int i = 0; i < a->n; i++)
        free(a->v[i].blob);
    a->n = 0;
}

void sched_actions_free(struct sched_actions *a)
{
    sched_actions_clear(a);
    free(a->v);
    *a = (struct sched_actions){0, 0, NULL};
}

struct sched_action *sched_act(struct sched_actions *a, enum sched_action_type type,
                               struct sched_job *j, struct sched_stage *st)
{
    struct sched_action *act;

    if (a->n == a->cap) {
        a->cap = a->cap * 2 + 16;
        a->v = mem_grow(a->v, (size_t)a->cap, sizeof *a->v);
    }
    act = &a->v[a->n++];
    *act = (struct sched_action){.type = type, .job = j, .stage = st};
    return act;
}

void sched_note(struct sched_actions *a, struct sched_job *j, struct sched_stage *st,
                const char *type, const char *fmt, ...)
{
    struct sched_action *act = sched_act(a, SCHED_EVENT, j, st);
    va_list args;

    snprintf(act->text, sizeof act->text, "%s", type);
    va_start(args, fmt);
    vsnprintf(act->note, sizeof act->note, fmt, args);
    va_end(args);
    j->version++;
}

void sched_mend(struct sched_actions *a, struct sched_stage *st, const char *text)
{
    struct sched_action *act = sched_act(a, SCHED_MEND, st->job, st);

    act->blob = mem_strdup(text);
    act->blob_len = strlen(text);
}

void sched_discard(struct sched *s, void *p)
{
    if (p == NULL)
        return;
    if (s->garbage_n == s->garbage_cap) {
        s->garbage_cap = s->garbage_cap * 2 + 16;
        s->garbage = mem_grow(s->garbage, (size_t)s->garbage_cap, sizeof *s->garbage);
    }
    s->garbage[s->garbage_n++] = p;
}

/* A job that is over needs its rows, not its spec: those are large. */
static void job_shrink(struct sched_job *j)
{
    for (int i = 0; i < j->stages_n; i++) {
        struct sched_stage *st = &j->stage[i];

        for (uint32_t t = 0; t < st->tasks_n; t++)
            cJSON_Delete(st->task[t].result);
        free(st->task);
        free(st->session);
        task_set_fini(&st->pending);
        task_set_fini(&st->busy);
        st->task = NULL;
        st->session = NULL;
        st->tasks_n = 0;
        cJSON_Delete(st->done);
        cJSON_Delete(st->inputs);
        st->done = st->inputs = NULL;
    }
    expand_free(j->expansion);
    spec_free(j->spec);
    j->expansion = NULL;
    j->spec = NULL;
}

void sched_collect(struct sched *s)
{
    for (int i = 0; i < s->garbage_n; i++)
        free(s->garbage[i]);
    s->garbage_n = 0;
    if (s->config.active_min > 0) {
        sched_queue_unload(s);
        return;
    }
    for (int i = 0; i < s->jobs_n; i++) {
        if (run_state_is_final(s->job[i]->state) && s->job[i]->spec != NULL)
            job_shrink(s->job[i]);
    }
}

bool sched_code_is_loss(int code)
{
    switch (code) {
    case ERR_SYSTEM:
    case ERR_NOT_FOUND:
    case ERR_STALE:
    case ERR_UNREACHABLE:
    case ERR_TIMEOUT:
    case ERR_CANCELLED:
    case ERR_NO_SPACE:
    case ERR_IO:
    case ERR_BUSY:
        return true;
    default:
        return false;
    }
}

uint64_t sched_backoff(const struct sched *s, uint32_t failures)
{
    uint64_t ms = s->config.backoff_ms;

    for (uint32_t i = 1; i < failures && ms < 30000; i++)
        ms *= 2;
    return ms < 30000 ? ms : 30000;
}

/* ---- states of stages and jobs --------------------------------------------------------------- */

void sched_move_stage(struct sched *s, struct sched_stage *st, enum run_state to,
                      const char *reason, struct sched_actions *a)
{
    if (st->state == to && strcmp(st->reason, reason) == 0)
        return;
    if (st->state != to) {
        CHECK(run_next[st->state] & BIT(to));
        st->state = to;
        if (run_state_is_final(to))
            st->finished_wall_ms = s->wall_ms;
        sched_note(a, st->job, st, "stage.state", "%s%s%s", run_state_name(to),
                   *reason != '\0' ? ": " : "", reason);
    }
    snprintf(st->reason, sizeof st->reason, "%s", reason);
    st->job->version++;
    sched_act(a, SCHED_SAVE_STAGE, st->job, st);
}

void sched_move_job(struct sched *s, struct sched_job *j, enum run_state to, const char *reason,
                    struct sched_actions *a)
{
    if (j->state == to && strcmp(j->reason, reason) == 0)
        return;
    if (j->state != to) {
        enum run_state from = j->state;

        CHECK(run_next[j->state] & BIT(to));
        j->state = to;
        sched_queue_moved(s, j, from);
        if (j->started_wall_ms == 0 && to == RUN_STARTING)
            j->started_wall_ms = s->wall_ms;
        if (run_state_is_final(to))
            j->finished_wall_ms = s->wall_ms;
        sched_note(a, j, NULL, "job.state", "%s%s%s", run_state_name(to),
                   *reason != '\0' ? ": " : "", reason);
    }
    snprintf(j->reason, sizeof j->reason, "%s", reason);
    j->version++;
    sched_act(a, SCHED_SAVE_JOB, j, NULL);
}

void sched_fail(struct sched *s, struct sched_stage *st, const struct sched_failure *why,
                struct sched_actions *a)
{
    struct sched_job *j = st->job;

    if (run_state_is_final(st->state))
        return;
    if (j->failure.class_name[0] == '\0') {
        j->failure = *why;
        snprintf(j->failure.stage, sizeof j->failure.stage, "%s", st->name);
        sched_act(a, SCHED_SAVE_JOB, j, NULL);
    }
    sched_note(a, j, st, "stage.failed", "%.200s", why->message);
    sched_stage_stop(s, st, RUN_FAILED, "Failed", a);
    if (j->finish_independent)
        return;
    for (int i = 0; i < j->stages_n; i++) {
        struct sched_stage *other = &j->stage[i];

        if (run_state_is_final(other->state))
            continue;
        sched_stage_stop(s, other, other->state == RUN_PENDING ? RUN_SKIPPED : RUN_CANCELLED,
                         "OtherStageFailed", a);
    }
}

void sched_job_settle(struct sched *s, struct sched_job *j, struct sched_actions *a)
{
    int final = 0, succeeded = 0, failed = 0, busy = 0, recovering = 0;

    for (int i = 0; i < j->stages_n; i++) {
        enum run_state state = j->stage[i].state;

        final += run_state_is_final(state);
        succeeded += state == RUN_SUCCEEDED;
        failed += state == RUN_FAILED;
        busy += state == RUN_RUNNING;
        recovering += state == RUN_RECOVERING;
    }
    if (final == j->stages_n) {
        if (j->state == RUN_PENDING) /* a path for the table: every job that ends otherwise than by
                                        cancel has started */
            sched_move_job(s, j, failed > 0 || succeeded > 0 ? RUN_STARTING : RUN_CANCELLED, "", a);
        if (!run_state_is_final(j->state))
            sched_move_job(s, j,
                           succeeded == final ? RUN_SUCCEEDED
                           : failed > 0       ? RUN_FAILED
                                              : RUN_CANCELLED,
                           failed > 0 ? "StageFailed" : "", a);
        return;
    }
    if (j->state == RUN_PENDING) {
        for (int i = 0; i < j->stages_n; i++) {
            if (j->stage[i].state != RUN_PENDING && j->state == RUN_PENDING)
                sched_move_job(s, j, RUN_STARTING, "", a);
        }
    }
    if (j->state == RUN_STARTING && busy > 0)
        sched_move_job(s, j, RUN_RUNNING, "", a);
    else if (j->state == RUN_RUNNING && busy == 0 && recovering > 0)
        sched_move_job(s, j, RUN_RECOVERING, "", a);
    else if (j->state == RUN_RECOVERING && (busy > 0 || recovering == 0))
        sched_move_job(s, j, RUN_RUNNING, "", a);
}

void sched_job_advance(struct sched *s, struct sched_job *j, struct sched_actions *a)
{
    uint64_t before;

    if (!j->admitted || run_state_is_final(j->state))
        return;
    do { /* a stage that ends may start another, before or after it in the list */
        before = j->version;
        for (int k = 0; k < j->stages_n; k++)
            sched_stage_advance(s, &j->stage[k], a);
    } while (j->version != before);
    sched_job_settle(s, j, a);
    for (int k = 0; k < j->stages_n && !run_state_is_final(j->state); k++) {
        struct sched_stage *st = &j->stage[k];

        if (!st->phase_open || run_state_is_final(st->state))
            continue;
        if (st->phase.type == PHASE_SESSION)
            sched_session_dispatch(s, st, a);
        else
            sched_tasks_dispatch(s, st, a);
    }
    sched_job_settle(s, j, a);
}

static void settle(struct sched *s, struct sched_actions *a)
{
    s->looked_at += (uint64_t)s->jobs_n;
    sched_open_changed(s);
    sched_keep_none(s);
    for (int i = 0; i < s->jobs_n; i++)
        sched_job_advance(s, s->job[i], a);
    sched_queue_admit(s, a);
}

/* ---- jobs ------------------------------------------------------------------------------------ */

static void on_submit(struct sched *s, struct sched_event *ev, struct sched_actions *a)
{
    struct sched_job *j = ev->job;

    ev->job = NULL;
    sched_queue_add(s, j);
    sched_act(a, SCHED_SAVE_JOB, j, NULL);
    for (int i = 0; i < j->stages_n; i++) {
        sched_stage_estimate(s, &j->stage[i]);
        sched_act(a, SCHED_SAVE_STAGE, j, &j->stage[i]);
    }
    sched_note(a, j, NULL, "job.submitted", "%d stages", j->stages_n);
    sched_class_new(s, j, a);
}

static void on_cancel(struct sched *s, struct sched_event *ev, struct sched_actions *a)
{
    struct sched_job *j = sched_find_job(s, ev->job_id);

    if (j == NULL || run_state_is_final(j->state))
        return;
    sched_note(a, j, NULL, "job.cancel", "asked for");
    for (int i = 0; i < j->stages_n; i++) {
        if (!run_state_is_final(j->stage[i].state))
            sched_stage_stop(s, &j->stage[i], RUN_CANCELLED, "Cancelled", a);
    }
    sched_move_job(s, j, RUN_CANCELLED, "Cancelled", a);
}

void sched_restore(struct sched *s, struct sched_job *j)
{
    sched_queue_add(s, j);
}

void sched_job_restored(struct sched *s, struct sched_job *j, uint32_t grace_ms)
{
    for (int k = 0; k < j->stages_n; k++) {
        struct sched_stage *st = &j->stage[k];

        for (uint32_t t = 0; t < st->tasks_n; t++) {
            st->task[t].lease_until_ms = s->now_ms + s->config.lease_ms;
            st->task[t].moved_ms = s->now_ms;
            if (st->task[t].id >= s->next_task)
                s->next_task = st->task[t].id + 1;
        }
        sched_tasks_index(st);
        if (st->session != NULL) {
            st->session->open = false;
            st->session->adopt_until_ms = s->now_ms + s->config.adopt_ms;
            st->session->retry_at_ms = s->now_ms + grace_ms;
            if (st->session->id >= s->next_session)
                s->next_session = st->session->id + 1;
        }
        st->phase_started_ms = s->now_ms;
        if (j->expansion != NULL)
            sched_stage_estimate(s, st);
    }
}

void sched_restored(struct sched *s, uint64_t now_ms)
{
    s->now_ms = now_ms;
    for (int i = 0; i < s->jobs_n; i++)
        sched_job_restored(s, s->job[i], s->config.restart_grace_ms);
    sched_collect(s);
}

/* ---- workers --------------------------------------------------------------------------------- */

/* Where it is, or belongs. Workers are kept in order of id, so that decisions depend on who is there,
 * not on who came first. */
static int worker_place(const struct sched *s, const char *id)
{
    int low = 0, high = s->workers_n;

    while (low < high) {
        int mid = low + (high - low) / 2;

        if (strcmp(s->worker[mid]->id, id) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct sched_worker *sched_find_worker(const struct sched *s, const char *id)
{
    int at = worker_place(s, id);

    return at < s->workers_n && strcmp(s->worker[at]->id, id) == 0 ? s->worker[at] : NULL;
}

static void worker_drop(struct sched *s, const char *id)
{
    int at = worker_place(s, id);

    if (at == s->workers_n || strcmp(s->worker[at]->id, id) != 0)
        return;
    free(s->worker[at]);
    memmove(&s->worker[at], &s->worker[at + 1],
            (size_t)(s->workers_n - at - 1) * sizeof(struct sched_worker *));
    s->workers_n--;
}

static struct sched_worker *worker_add(struct sched *s, const char *id)
{
    struct sched_worker *w = mem_zalloc(1, sizeof *w);
    int at = worker_place(s, id);

    if (s->workers_n == s->workers_cap) {
        s->workers_cap = s->workers_cap * 2 + 16;
        s->worker = mem_grow(s->worker, (size_t)s->workers_cap, sizeof(struct sched_worker *));
    }
    memmove(&s->worker[at + 1], &s->worker[at],
            (size_t)(s->workers_n - at) * sizeof(struct sched_worker *));
    s->worker[at] = w;
    s->workers_n++;
    snprintf(w->id, sizeof w->id, "%s", id);
    return w;
}

static void on_worker_up(struct sched *s, struct sched_event *ev, struct sched_actions *a)
{
    struct sched_worker *w = sched_find_worker(s, ev->worker);

    if (w == NULL)
        w = worker_add(s, ev->worker);
    snprintf(w->class_id, sizeof w->class_id, "%s", ev->class_id != NULL ? ev->class_id : "");
    snprintf(w->class_bf16, sizeof w->class_bf16, "%s",
             ev->class_bf16 != NULL ? ev->class_bf16 : "");
    w->roles = ev->roles;
    w->threads = ev->threads;
    w->draining = ev->draining;
    w->suspect = w->hung = false;
    w->quarantined = sched_quarantined(s, w->id) != NULL;
    sched_class_up(s, w, a);
    w->moved_ms = 0;
    if (ev->returned)
        sched_tasks_acquit(s, w->id, a);
    sched_tasks_reattach(s, ev, true, a);
    sched_session_hello(s, w, ev->session, ev->attempt, a);
}

static void on_worker_gone(struct sched *s, struct sched_event *ev, struct sched_actions *a)
{
    struct sched_worker *w = sched_find_worker(s, ev->worker);

    if (w != NULL)
        w->suspect = true; /* whoever decides now must not count on it */
    sched_session_lose(s, ev->worker, ev->crashed ? "worker lost" : "worker left", a);
    sched_tasks_worker_gone(s, ev->worker, ev->crashed, a);
    worker_drop(s, ev->worker);
}

static void on_worker_mark(struct sched *s, struct sched_event *ev, struct sched_actions *a)
{
    struct sched_worker *w = sched_find_worker(s, ev->worker);

    if (w == NULL)
        return;
    if (ev->type == SCHED_WORKER_DRAIN && !w->draining) {
        w->draining = true;
        sched_session_drain(s, w, a);
    } else if (ev->type != SCHED_WORKER_DRAIN) {
        w->suspect = ev->type == SCHED_WORKER_SUSPECT;
        sched_session_employ(s, w, a); /* its units may have gone to others meanwhile */
    }
}

static void on_heartbeat(struct sched *s, const struct sched_event *ev, struct sched_actions *a)
{
    struct sched_worker *w = sched_find_worker(s, ev->worker);

    if (w != NULL && ev->progress_ms > 0)
        w->moved_ms = ev->progress_ms;
    sched_tasks_reattach(s, ev, false, a);
}

static void on_tick(struct sched *s, struct sched_actions *a)
{
    sched_workers_watch(s, a);
    for (int i = 0; i < s->jobs_n; i++) {
        for (int k = 0; k < s->job[i]->stages_n && s->job[i]->admitted; k++) {
            struct sched_stage *st = &s->job[i]->stage[k];

            if (!st->phase_open || run_state_is_final(st->state))
                continue;
            if (st->phase.type == PHASE_SESSION)
                sched_session_tick(s, st, a);
            else
                sched_tasks_tick(s, st, a);
        }
    }
}

static void on_reuse(struct sched *s, struct sched_event *ev, struct sched_actions *a)
{
    struct sched_job *j = sched_find_job(s, ev->job_id);

    if (j == NULL || ev->stage_index < 0 || ev->stage_index >= j->stages_n)
        return;
    sched_stage_reuse(s, &j->stage[ev->stage_index], ev->result, a);
}

/* ---- the step -------------------------------------------------------------------------------- */

void sched_init(struct sched *s, const struct sched_config *config)
{
    *s = (struct sched){.config = *config, .next_task = 1, .next_session = 1, .open_stale = true};
    CHECK(config->plan != NULL && config->crash_limit <= SCHED_CRASHES_MAX);
}

void sched_fini(struct sched *s)
{
    for (int i = 0; i < s->garbage_n; i++)
        free(s->garbage[i]);
    for (int i = 0; i < s->workers_n; i++)
        free(s->worker[i]);
    sched_queue_fini(s);
    free(s->open);
    free(s->open_tasks);
    free(s->worker);
    free(s->garbage);
    free(s->quarantine);
}

void sched_step(struct sched *s, struct sched_event *ev, struct sched_actions *a)
{
    bool plain = false;

    s->now_ms = ev->now_ms > s->now_ms ? ev->now_ms : s->now_ms;
    s->wall_ms = ev->wall_ms;
    switch (ev->type) {
    case SCHED_TICK:
        on_tick(s, a);
        break;
    case SCHED_SUBMIT:
        on_submit(s, ev, a);
        break;
    case SCHED_CANCEL:
        on_cancel(s, ev, a);
        break;
    case SCHED_PAUSE:
        sched_on_pause(s, ev, a);
        break;
    case SCHED_RESUME:
        sched_on_resume(s, ev, a);
        break;
    case SCHED_RETRY:
        sched_on_retry(s, ev, a);
        break;
    case SCHED_LOADED:
        sched_queue_loaded(s, ev->job, a);
        ev->job = NULL;
        break;
    case SCHED_WORKER_UP:
        on_worker_up(s, ev, a);
        break;
    case SCHED_WORKER_SUSPECT:
    case SCHED_WORKER_OK:
    case SCHED_WORKER_DRAIN:
        on_worker_mark(s, ev, a);
        break;
    case SCHED_WORKER_RELEASE:
        sched_release(s, ev->worker, a);
        break;
    case SCHED_WORKER_REFUSED:
        s->counters.refused++;
        return;
    case SCHED_WORKER_GONE:
        on_worker_gone(s, ev, a);
        break;
    case SCHED_HEARTBEAT:
        on_heartbeat(s, ev, a);
        return; /* renews leases; decides nothing */
    case SCHED_TASK_DONE:
        plain = sched_on_task_done(s, ev, a);
        break;
    case SCHED_TASK_FAILED:
        sched_on_task_failed(s, ev, a);
        break;
    case SCHED_SESSION_STATUS:
    case SCHED_SESSION_OPINION:
    case SCHED_SESSION_CHECKPOINT:
    case SCHED_SESSION_DONE:
    case SCHED_SESSION_FAILED:
    case SCHED_SESSION_FROZEN:
        sched_on_session(s, ev, a);
        break;
    case SCHED_REUSE:
        on_reuse(s, ev, a);
        break;
    }
    cJSON_Delete(ev->result);
    ev->result = NULL;
    if (plain) {
        sched_open_dispatch(s, a);
        sched_queue_admit(s, a);
    } else {
        settle(s, a);
    }
}
