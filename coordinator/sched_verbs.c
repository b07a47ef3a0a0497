/*
 * Pause, resume, retry. A paused job gives its workers back at once: ranges that run are handed back
 * and computed again, a session stops at its last checkpoint. It keeps its age, so that resuming
 * puts it where it was in the queue. A job that is tried again keeps all that was committed:
 * finished stages, phases, ranges and the last checkpoint; only what failed begins with new budgets.
 * Either way the bits are those of a job that was never touched, because every effect is a function
 * of the spec and the inputs alone.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/sched_inner.h"

static void stage_pause(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    if (!st->phase_open || run_state_is_final(st->state))
        return;
    for (uint32_t i = 0; i < st->tasks_n; i++)
        sched_task_release(s, st, &st->task[i], "paused", a);
    if (st->session != NULL)
        sched_session_pause(s, st, a);
    sched_move_stage(s, st, RUN_RECOVERING, "Paused", a);
}

void sched_on_pause(struct sched *s, struct sched_event *ev, struct sched_actions *a)
{
    struct sched_job *j = sched_find_job(s, ev->job_id);

    if (j == NULL || run_state_is_final(j->state) || j->state == RUN_PAUSED)
        return;
    j->paused_wall_ms = s->wall_ms;
    sched_note(a, j, NULL, "job.pause", "asked for by %s",
               ev->text != NULL ? ev->text : "a person");
    for (int i = 0; i < j->stages_n; i++)
        stage_pause(s, &j->stage[i], a);
    sched_move_job(s, j, RUN_PAUSED, "PausedByUser", a);
}

void sched_on_resume(struct sched *s, struct sched_event *ev, struct sched_actions *a)
{
    struct sched_job *j = sched_find_job(s, ev->job_id);

    if (j == NULL || j->state != RUN_PAUSED)
        return;
    j->paused_wall_ms = 0;
    sched_note(a, j, NULL, "job.resume", "asked for");
    for (int i = 0; i < j->stages_n; i++) {
        struct sched_stage *st = &j->stage[i];

        if (st->state == RUN_RECOVERING && strcmp(st->reason, "Paused") == 0)
            sched_move_stage(s, st, RUN_RECOVERING, "Resumed", a);
        if (st->session != NULL)
            st->session->retry_at_ms = s->now_ms;
    }
    sched_move_job(s, j, RUN_PENDING, "", a);
}

static void tasks_renew(struct sched_stage *st, struct sched_actions *a)
{
    struct sched_action *act;

    if (st->tasks_n == 0)
        return;
    for (uint32_t i = 0; i < st->tasks_n; i++) {
        struct sched_task *t = &st->task[i];

        if (t->state != TASK_DONE)
            t->state = TASK_PENDING; /* not by the table: only a new try brings a task back */
        t->faults = t->losses = t->missing = 0;
        t->crashes = 0;
        t->code = 0;
        t->text[0] = '\0';
        t->retry_at_ms = 0;
    }
    sched_tasks_index(st);
    act = sched_act(a, SCHED_SAVE_TASKS, st->job, st);
    act->task = st->task;
    act->number = st->tasks_n;
    snprintf(act->text, sizeof act->text, "%s", st->phase.name);
}

/* Goes on from an older checkpoint; version 0: from the initial model. */
static void session_from(struct sched_session *ss, const struct digest *manifest, uint64_t version)
{
    while (ss->ckpts_n > 0 && ss->ckpt[ss->ckpts_n - 1].version >= version)
        ss->ckpts_n--;
    if (version > 0) {
        if (ss->ckpts_n == SCHED_CKPTS_MAX) {
            memmove(&ss->ckpt[0], &ss->ckpt[1], (SCHED_CKPTS_MAX - 1) * sizeof ss->ckpt[0]);
            ss->ckpts_n--;
        }
        ss->ckpt[ss->ckpts_n++] = (struct sched_ckpt){*manifest, version};
    }
    ss->manifest = *manifest;
    ss->manifest_version = version;
}

static void stage_revive(struct sched *s, struct sched_stage *st, struct sched_actions *a)
{
    if (st->state == RUN_SUCCEEDED)
        return;
    st->state = st->phase_open ? RUN_RECOVERING : RUN_PENDING; /* not by the table, as above */
    snprintf(st->reason, sizeof st->reason, "Retried");
    st->finished_wall_ms = 0;
    cJSON_Delete(st->outputs);
    cJSON_Delete(st->metrics);
    st->outputs = st->metrics = NULL;
    tasks_renew(st, a);
    if (st->session != NULL) {
        st->session->faults = st->session->losses = st->session->barren = 0;
        st->session->why[0] = '\0';
        st->session->adopting = false;
        st->session->hosts_n = st->session->slots_n = st->session->sources_n = 0;
        st->session->from_attempt = 0;
        st->session->change = CHANGE_NONE;
        st->session->version = st->session->manifest_version;
        st->session->retry_at_ms = s->now_ms;
    }
    sched_act(a, SCHED_SAVE_STAGE, st->job, st);
}

void sched_on_retry(struct sched *s, struct sched_event *ev, struct sched_actions *a)
{
    struct sched_job *j = ev->job;
    struct sched_entry *e = sched_find_entry(s, ev->job_id);
    enum run_state from;

    ev->job = NULL;
    if (j == NULL)
        return;
    if (e == NULL || (e->state != RUN_FAILED && e->state != RUN_CANCELLED) || j->spec == NULL) {
        sched_job_free(j);
        return;
    }
    from = e->state;
    sched_queue_replace(s, j);
    sched_job_restored(s, j, 0);
    j->version++;
    if (ev->stage_index >= 0 && ev->stage_index < j->stages_n &&
        j->stage[ev->stage_index].session != NULL) {
        struct sched_session *ss = j->stage[ev->stage_index].session;

        session_from(ss, &ev->digest, ev->version);
        sched_note(a, j, &j->stage[ev->stage_index], "session.from", "checkpoint %" PRIu64,
                   ev->version);
    }
    for (int i = 0; i < j->stages_n; i++)
        stage_revive(s, &j->stage[i], a);
    j->failure = (struct sched_failure){.code = 0};
    j->finished_wall_ms = j->paused_wall_ms = 0;
    j->admitted = false;
    sched_note(a, j, NULL, "job.retry", "asked for; it was %s", run_state_name(from));
    snprintf(j->reason, sizeof j->reason, "Retried");
    j->state = RUN_PENDING; /* not by the table, as above */
    sched_tasks_distrust(s, j, a);
    sched_queue_moved(s, j, from);
    sched_act(a, SCHED_SAVE_JOB, j, NULL);
}
