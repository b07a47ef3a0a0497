#include "sim_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "coordinator/coordinator.h"
#include "ps/shard.h"
#include "coordinator/sched_inner.h"
#include "sim_work.h"
#include "sim_world.h"
#include "wire/control.h"
#include "worker/ps_host.h"

#define TASKS_MAX 4096
#define JOBS_MAX 64
#define SHARDS_MAX 4096
#define CKPTS_MAX 32
#define LAYOUTS_MAX 1024

struct sim_check_counts sim_check_counts;

static struct {
    char violation[600];
    struct {
        uint64_t live, committed; /* epoch of the last grant */
        uint8_t done, done_committed;
    } task[TASKS_MAX];
    uint64_t acked[JOBS_MAX];
    int acked_n;
    struct {
        uint64_t id;
        enum run_state state;
    } over[JOBS_MAX];
    int over_n;
    struct digest ckpt[CKPTS_MAX];
    int ckpts;
    const struct sched_actions *batch; /* being committed */
    uint64_t made, committed, performed;
    struct known_shard {
        const struct shard *shard;
        const struct layout *layout;
        size_t begin, elems, chunk_elems;
    } shard[SHARDS_MAX];
    int shards;
    struct {
        const struct layout *layout;
        const struct sim_expected *expected;
    } layout[LAYOUTS_MAX];
    int layouts;
    bool quarantined, excused;
    char liar[SCHED_WORKER_MAX]; /* its id, once it has spoken */
} check;

void sim_violation(const char *fmt, ...)
{
    va_list args;

    if (check.violation[0] != '\0')
        return;
    va_start(args, fmt);
    vsnprintf(check.violation, sizeof check.violation, fmt, args);
    va_end(args);
    sim_trace("VIOLATION %s", check.violation);
}

const char *sim_violated(void)
{
    return check.violation[0] != '\0' ? check.violation : NULL;
}

void sim_check_reset(void)
{
    memset(&check, 0, sizeof check);
    memset(&sim_check_counts, 0, sizeof sim_check_counts);
}

void __real_check_failed(const char *file, int line, const char *cond);
WRAP(void, check_failed, const char *file, int line, const char *cond)
{
    sim_violation("%s:%d: %s does not hold", file, line, cond);
    if (sim_self() != NULL)
        sim_proc_kill(sim_self());
    __real_check_failed(file, line, cond);
}

/* ---- leases and commits ---------------------------------------------------------------------- */

/* An attempt that succeeds need not end its task: of an audited one another worker's result is wanted too. */
static bool task_is_done(const struct sched_action *a)
{
    for (uint32_t i = 0; a->stage != NULL && i < a->stage->tasks_n; i++)
        if (a->stage->task[i].id == a->number)
            return a->stage->task[i].state == TASK_DONE;
    return true;
}

/* Results of a worker that is in quarantine do not count any more: at once, or when their job comes back into memory. */
static void results_drop(const struct sched_action *a, int n)
{
    bool again = false;

    for (int i = 0; i < n; i++)
        again = again || (a[i].type == SCHED_EVENT && strcmp(a[i].text, "tasks.again") == 0);
    for (int i = 0; again && i < n; i++)
        if (a[i].type == SCHED_SAVE_TASK && a[i].task->state != TASK_DONE &&
            a[i].task->id < TASKS_MAX) /* it may be given out again by now */
            check.task[a[i].task->id].done = 0;
}

static void action_made(const struct sched_action *a)
{
    if (a->type != SCHED_ATTEMPT_BEGIN && a->type != SCHED_ATTEMPT_END)
        return;
    if (a->number >= TASKS_MAX) {
        sim_violation("task %" PRIu64 " is out of the simulator's bounds", a->number);
    } else if (a->type == SCHED_ATTEMPT_BEGIN) {
        sim_check_counts.grants++;
        if (a->epoch <= check.task[a->number].live)
            sim_violation("task %" PRIu64 ": epoch %" PRIu64 " granted after %" PRIu64, a->number,
                          a->epoch, check.task[a->number].live);
        check.task[a->number].live = a->epoch;
    } else if (strcmp(a->text, "succeeded") == 0 && task_is_done(a)) {
        sim_check_counts.done++;
        if (check.task[a->number].done++ > 0)
            sim_violation("task %" PRIu64 " is done twice", a->number);
    }
}

/* What succeeded stays so; what failed or was cancelled may be tried again. */
static void job_over(uint64_t id, enum run_state state)
{
    int i = 0;

    while (i < check.over_n && check.over[i].id != id)
        i++;
    if (i < check.over_n && check.over[i].state == RUN_SUCCEEDED && state != RUN_SUCCEEDED)
        sim_violation("job %" PRIx64 " had succeeded and is %s", id, run_state_name(state));
    if (run_state_is_final(state) && i < JOBS_MAX) {
        check.over[i].id = id;
        check.over[i].state = state;
        check.over_n += i == check.over_n;
    }
}

static void action_committed(const struct sched_action *a)
{
    if (a->type == SCHED_ATTEMPT_BEGIN && a->number < TASKS_MAX)
        check.task[a->number].committed = a->epoch;
    else if (a->type == SCHED_ATTEMPT_END && a->number < TASKS_MAX &&
             strcmp(a->text, "succeeded") == 0)
        check.task[a->number].done_committed = check.task[a->number].done > 0;
    else if (a->type == SCHED_SAVE_TASK && a->task->id < TASKS_MAX && a->task->state != TASK_DONE)
        check.task[a->task->id].done_committed = check.task[a->task->id].done > 0;
    else if (a->type == SCHED_QUARANTINE) {
        check.quarantined = true;
        if (!sim_world_is_liar(a->worker))
            sim_violation("%s is in quarantine and computes as it should: %s", a->worker, a->note);
    } else if (a->type == SCHED_SAVE_JOB)
        job_over(a->job->id, a->job->state);
    else if (a->type == SCHED_CHECKPOINT && a->stage->phase_open &&
             a->number < a->stage->phase.session.steps)
        check.ckpt[check.ckpts++ % CKPTS_MAX] = a->digest;
}

void sim_check_committed(void)
{
    for (int i = 0; check.batch != NULL && i < check.batch->n; i++)
        action_committed(&check.batch->v[i]);
}

const char *sim_check_some_checkpoint(void)
{
    int n = check.ckpts < CKPTS_MAX ? check.ckpts : CKPTS_MAX;

    /* Often the newest: it is the one that would be read. */
    if (n == 0)
        return NULL;
    return check
        .ckpt[sim_chance(600) ? (uint32_t)(check.ckpts - 1) % CKPTS_MAX : sim_draw((uint32_t)n)]
        .hex;
}

int __real_journal_commit(struct journal *j, const struct sched_actions *a, uint64_t wall_ms,
                          struct err *e);
WRAP(int, journal_commit, struct journal *j, const struct sched_actions *a, uint64_t wall_ms,
     struct err *e)
{
    int rc;

    check.batch = a;
    rc = __real_journal_commit(j, a, wall_ms, e);
    check.batch = NULL;
    if (rc == 0)
        check.committed += (uint64_t)a->n;
    return rc;
}

bool sim_check_quarantined(void)
{
    return check.quarantined;
}

bool sim_check_excused(void)
{
    return check.excused;
}

bool sim_check_names_liar(const char *message)
{
    return check.liar[0] != '\0' && strstr(message, check.liar) != NULL;
}

/* What the liar says counts for once. */
static void excuse(const char *what)
{
    if (sim_work_counts.lies == 0)
        return;
    sim_trace("an audit of %s is waived", what);
    check.excused = true;
}

enum sched_audit __real_sched_audit_take(struct sched *s, struct sched_stage *st,
                                         struct sched_task *t, const char *worker,
                                         const cJSON *result, struct sched_actions *a);
WRAP(enum sched_audit, sched_audit_take, struct sched *s, struct sched_stage *st,
     struct sched_task *t, const char *worker, const cJSON *result, struct sched_actions *a)
{
    uint64_t audited = s->counters.audited;
    enum sched_audit rc = __real_sched_audit_take(s, st, t, worker, result, a);
    bool disputed = false;

    for (uint32_t i = 1; i < t->voices_n; i++)
        disputed = disputed || t->voice[i].hash != t->voice[0].hash;
    if (rc == AUDIT_COUNTS && s->counters.audited == audited && !disputed &&
        sim_world_is_liar(worker))
        excuse("rows");
    return rc;
}

void __real_dispatch_action(struct coordinator *c, const struct sched_action *act);
WRAP(void, dispatch_action, struct coordinator *c, const struct sched_action *act)
{
    if (++check.performed > check.committed)
        sim_violation("an action of type %d is performed before its commit", (int)act->type);
    if (act->type == SCHED_SEND_WAIVE)
        excuse("gradients");
    __real_dispatch_action(c, act);
}

static void link_check(const struct control *m)
{
    if (m->type == CONTROL_TASK && m->task < TASKS_MAX && check.task[m->task].committed < m->epoch)
        sim_violation("task %" PRIu64 " is given out under epoch %" PRIu64
                      ", which is not committed",
                      m->task, m->epoch);
    if (m->type == CONTROL_ACK && m->task != 0 && m->task < TASKS_MAX &&
        check.task[m->task].live == m->epoch && check.task[m->task].done > 0 &&
        check.task[m->task].done_committed == 0)
        sim_violation("the result of task %" PRIu64 " is acknowledged before its commit", m->task);
    if (sim_tracing && m->type != CONTROL_HEARTBEAT)
        sim_trace("says %s task=%" PRIu64 ".%" PRIu64 " session=%" PRIu64 ".%" PRIu64
                  " version=%" PRIu64 " code=%d %.60s",
                  control_type_name(m->type), m->task, m->epoch, m->session, m->session_attempt,
                  m->version, (int)m->code, m->text);
}

void __real_control_pack(const struct control *m, struct buf *out);
WRAP(void, control_pack, const struct control *m, struct buf *out)
{
    for (const struct control *at = m; at != NULL; at = at->next)
        link_check(at);
    __real_control_pack(m, out);
}

void sim_check_coordinator_gone(void)
{
    for (int i = 0; i < TASKS_MAX; i++) {
        check.task[i].live = check.task[i].committed;
        check.task[i].done = check.task[i].done_committed;
    }
    check.made = check.committed = check.performed = 0;
    check.batch = NULL;
}

/* ---- the scheduler's state ------------------------------------------------------------------- */

static void session_check(const struct sched *s, const struct sched_stage *st)
{
    const struct sched_session *ss = st->session;
    uint32_t at = 0;

    for (int i = 0; i < ss->slots_n; i++) {
        const struct sched_worker *w = sched_find_worker(s, ss->slot[i].worker);

        if (ss->slot[i].only_step != 0)
            continue; /* the work of a straggler, or a second opinion: beside the others */
        if (ss->slot[i].leaf_begin != at || ss->slot[i].leaf_end <= at)
            sim_violation("slots of session %" PRIu64 " are no partition at unit %u", ss->id, at);
        if (ss->change == CHANGE_NONE && (w == NULL || w->in != st)) /* frozen: nobody computes */
            sim_violation("%s computes for session %" PRIu64 " and is no member",
                          ss->slot[i].worker, ss->id);
        at = ss->slot[i].leaf_end;
    }
    if (at != st->phase.session.units)
        sim_violation("slots of session %" PRIu64 " end at unit %u of %u", ss->id, at,
                      st->phase.session.units);
}

static void stage_check(const struct sched *s, const struct sched_stage *st)
{
    uint32_t done = 0;

    for (uint32_t t = 0; t < st->tasks_n; t++) {
        const struct sched_task *task = &st->task[t];

        done += task->state == TASK_DONE;
        if (task->state == TASK_LEASED && task->epoch == 0)
            sim_violation("task %" PRIu64 " is leased under no epoch", task->id);
    }
    if (done != st->tasks_done)
        sim_violation("stage %s counts %u tasks done, %u are", st->name, st->tasks_done, done);
    if (st->session != NULL && st->session->open && st->session->slots_n > 0)
        session_check(s, st);
}

static void sched_check(const struct sched *s)
{
    for (int i = 0; i < s->jobs_n; i++) {
        const struct sched_job *j = s->job[i];

        if (run_state_is_final(j->state))
            continue;
        for (int k = 0; k < j->stages_n; k++)
            stage_check(s, &j->stage[k]);
    }
    for (int i = 0; i < s->workers_n; i++) {
        const struct sched_worker *w = s->worker[i];

        if (w->in != NULL && w->running > 0)
            sim_violation("%s is in a session and runs %u tasks", w->id, w->running);
        if (w->running > (w->threads > SCHED_LEASES_MAX ? w->threads : SCHED_LEASES_MAX))
            sim_violation("%s holds %u leases", w->id, w->running);
    }
}

/* A lease whose holder did not name it must not get longer by a heartbeat. */
struct silent {
    const struct sched_task *task;
    uint64_t until_ms;
};

static bool names(const struct sched_event *ev, const struct sched_task *t)
{
    for (int i = 0; i < ev->leases_n; i++)
        if (ev->lease[i].task == t->id && ev->lease[i].epoch == t->epoch)
            return true;
    return false;
}

static int silent_leases(const struct sched *s, const struct sched_event *ev, struct silent *out,
                         int cap)
{
    int n = 0;

    if (ev->type != SCHED_HEARTBEAT)
        return 0;
    for (int i = 0; i < s->jobs_n; i++) {
        const struct sched_job *j = s->job[i];

        for (int k = 0; k < j->stages_n && !run_state_is_final(j->state); k++) {
            for (uint32_t t = 0; t < j->stage[k].tasks_n && n < cap; t++) {
                const struct sched_task *task = &j->stage[k].task[t];

                if (task->state == TASK_LEASED && strcmp(task->worker, ev->worker) == 0 &&
                    !names(ev, task))
                    out[n++] = (struct silent){task, task->lease_until_ms};
            }
        }
    }
    return n;
}

/* A result counts for the lease that it came under, and for no other. */
static void result_check(const struct sched_event *ev, const struct sched_action *a)
{
    if (a->type != SCHED_ATTEMPT_END || strcmp(a->text, "succeeded") != 0)
        return;
    if (ev->type != SCHED_TASK_DONE || a->number != ev->task || a->epoch != ev->epoch ||
        strcmp(a->worker, ev->worker) != 0)
        sim_violation("task %" PRIu64 ": epoch %" PRIu64 " of %s succeeds by what %s says of epoch "
                      "%" PRIu64,
                      a->number, a->epoch, a->worker, ev->worker, ev->epoch);
}

void __real_sched_step(struct sched *s, struct sched_event *event, struct sched_actions *actions);
WRAP(void, sched_step, struct sched *s, struct sched_event *event, struct sched_actions *actions)
{
    int before = actions->n;
    struct silent silent[64];
    int silents = silent_leases(s, event, silent, 64);

    __real_sched_step(s, event, actions);
    for (int i = 0; i < silents; i++)
        if (silent[i].task->lease_until_ms > silent[i].until_ms)
            sim_violation("a heartbeat renews task %" PRIu64 ", which it does not name",
                          silent[i].task->id);
    results_drop(actions->v + before, actions->n - before);
    for (int i = before; i < actions->n; i++) {
        const struct sched_action *a = &actions->v[i];

        action_made(a);
        result_check(event, a);
        if (sim_tracing && a->type == SCHED_EVENT)
            sim_trace("event %s %s %s", a->text, a->stage != NULL ? a->stage->name : "", a->note);
    }
    sim_mix((uint64_t)event->type << 32 | (uint32_t)(actions->n - before));
    if (event->type == SCHED_WORKER_UP && sim_world_is_liar(event->worker))
        snprintf(check.liar, sizeof check.liar, "%s", event->worker);
    if (event->type != SCHED_HEARTBEAT)
        sched_check(s);
}

/* ---- submits --------------------------------------------------------------------------------- */

void sim_check_acknowledged(uint64_t job)
{
    for (int i = 0; i < check.acked_n; i++)
        if (check.acked[i] == job)
            return;
    CHECK(check.acked_n < JOBS_MAX);
    check.acked[check.acked_n++] = job;
}

int __real_journal_load(struct journal *j, struct sched *s, struct err *e);
WRAP(int, journal_load, struct journal *j, struct sched *s, struct err *e)
{
    int rc = __real_journal_load(j, s, e);

    if (rc != 0)
        sim_violation("the journal does not load: %s", e->msg);
    for (int i = 0; rc == 0 && i < check.acked_n; i++)
        if (sched_find_entry(s, check.acked[i]) == NULL)
            sim_violation("job %" PRIx64 " was acknowledged and is lost", check.acked[i]);
    for (int i = 0; rc == 0 && i < s->entries_n; i++) {
        job_over(s->entry[i].id, s->entry[i].state);
        sim_check_counts.restored++;
    }
    return rc;
}

/* ---- parameters ------------------------------------------------------------------------------ */

static const struct sim_expected *expected_of(const struct layout *l)
{
    for (int i = check.layouts; i-- > 0;)
        if (check.layout[i].layout == l)
            return check.layout[i].expected;
    return NULL;
}

static struct known_shard *known(const struct shard *s)
{
    for (int i = check.shards; i-- > 0;)
        if (check.shard[i].shard == s)
            return &check.shard[i];
    return NULL;
}

static void shard_check(struct shard *s)
{
    const struct known_shard *k = known(s);
    const struct sim_expected *x = k != NULL ? expected_of(k->layout) : NULL;
    uint64_t version = shard_version(s);

    if (x == NULL)
        return;
    sim_check_counts.versions++;
    if (version > x->steps) {
        sim_violation("a shard is at version %" PRIu64 " of %" PRIu64, version, x->steps);
        return;
    }
    for (uint32_t c = 0; c < shard_chunks(s); c++) {
        size_t at = k->begin + c * k->chunk_elems;
        const float *p = shard_params(s, c), *want = x->version + version * x->params + at;

        if (!check.excused && memcmp(p, want, shard_chunk_len(s, c) * sizeof *p) != 0)
            sim_violation("version %" PRIu64 " of the elements from %zu on has other bits than the "
                          "straight loop",
                          version, at);
        sim_mix(((const uint32_t *)(const void *)p)[0]);
    }
}

struct shard *__real_shard_new(const struct layout *layout, size_t begin, size_t elems,
                               size_t chunk_elems, const float *params, uint64_t version);
WRAP(struct shard *, shard_new, const struct layout *layout, size_t begin, size_t elems,
     size_t chunk_elems, const float *params, uint64_t version)
{
    struct shard *s = __real_shard_new(layout, begin, elems, chunk_elems, params, version);

    CHECK(check.shards < SHARDS_MAX);
    check.shard[check.shards++] = (struct known_shard){s, layout, begin, elems, chunk_elems};
    return s;
}

void __real_shard_free(struct shard *s);
WRAP(void, shard_free, struct shard *s)
{
    struct known_shard *k = s != NULL ? known(s) : NULL;

    if (k != NULL)
        *k = check.shard[--check.shards];
    __real_shard_free(s);
}

void __real_shard_apply(struct shard *s, const struct adamw *a,
                        const float *(*grad)(void *self, uint32_t chunk), void *self, float scale,
                        float lr);
WRAP(void, shard_apply, struct shard *s, const struct adamw *a,
     const float *(*grad)(void *self, uint32_t chunk), void *self, float scale, float lr)
{
    __real_shard_apply(s, a, grad, self, scale, lr);
    shard_check(s);
}

void __real_ps_host_open(struct ps_host *p, struct ps_session *s);
WRAP(void, ps_host_open, struct ps_host *p, struct ps_session *s)
{
    const struct sim_run run = {s->seed,         s->init,           s->examples,
                                s->global_batch, sim_world_class(), s->plan};

    CHECK(check.layouts < LAYOUTS_MAX);
    check.layout[check.layouts].layout = s->plan.layout;
    check.layout[check.layouts++].expected = sim_work_expect(&run);
    if (s->host != NULL)
        shard_check(host_shard(s->host));
    __real_ps_host_open(p, s);
}
