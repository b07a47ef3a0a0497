/*
 * All jobs, and which of them run. An entry says where a job stands; the entries are sorted by id,
 * and ids rise with time, so a job is found by halving. What can start waits in a heap of ids: an
 * entry that is popped while its job is not PENDING any more (cancelled, paused) is passed over, so
 * nothing is ever taken out of its middle.
 *
 * How many run at once: enough that no worker idles. active_min hides the time that loading takes;
 * beyond it one more is admitted at a time while some worker has nothing to do, because those that
 * are admitted may wait for workers of another class.
 */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "coordinator/sched_inner.h"

#define ADMIT_MS 200

/* ---- entries --------------------------------------------------------------------------------- */

static int entry_place(const struct sched *s, uint64_t id)
{
    int low = 0, high = s->entries_n;

    if (high > 0 && s->entry[high - 1].id < id) /* a new job */
        return high;
    while (low < high) {
        int mid = low + (high - low) / 2;

        if (s->entry[mid].id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct sched_entry *sched_find_entry(const struct sched *s, uint64_t id)
{
    int at = entry_place(s, id);

    return at < s->entries_n && s->entry[at].id == id ? &s->entry[at] : NULL;
}

struct sched_job *sched_find_job(const struct sched *s, uint64_t id)
{
    const struct sched_entry *e = sched_find_entry(s, id);

    return e != NULL ? e->job : NULL;
}

static struct sched_entry *entry_add(struct sched *s, uint64_t id, enum run_state state)
{
    int at = entry_place(s, id);

    CHECK(at == s->entries_n || s->entry[at].id != id);
    if (s->entries_n == s->entries_cap) {
        s->entries_cap = s->entries_cap * 2 + 64;
        s->entry = mem_grow(s->entry, (size_t)s->entries_cap, sizeof *s->entry);
    }
    memmove(&s->entry[at + 1], &s->entry[at], (size_t)(s->entries_n - at) * sizeof *s->entry);
    s->entries_n++;
    s->entry[at] = (struct sched_entry){.id = id, .state = state};
    s->count[state]++;
    return &s->entry[at];
}

/* ---- the queue ------------------------------------------------------------------------------- */

static void swap(uint64_t *a, uint64_t *b)
{
    uint64_t t = *a;

    *a = *b;
    *b = t;
}

static void queue_push(struct sched *s, struct sched_entry *e)
{
    int at = s->queue_n;

    if (e->queued)
        return;
    e->queued = true;
    if (s->queue_n == s->queue_cap) {
        s->queue_cap = s->queue_cap * 2 + 64;
        s->queue = mem_grow(s->queue, (size_t)s->queue_cap, sizeof *s->queue);
    }
    s->queue[s->queue_n++] = e->id;
    for (; at > 0 && s->queue[(at - 1) / 2] > s->queue[at]; at = (at - 1) / 2)
        swap(&s->queue[(at - 1) / 2], &s->queue[at]);
}

static uint64_t queue_pop(struct sched *s)
{
    uint64_t first = s->queue[0];
    int at = 0;

    s->queue[0] = s->queue[--s->queue_n];
    for (;;) {
        int child = 2 * at + 1;

        if (child + 1 < s->queue_n && s->queue[child + 1] < s->queue[child])
            child++;
        if (child >= s->queue_n || s->queue[at] <= s->queue[child])
            return first;
        swap(&s->queue[at], &s->queue[child]);
        at = child;
    }
}

/* The oldest job that can start, taken out; NULL if there is none. */
static struct sched_entry *queue_next(struct sched *s, bool take)
{
    while (s->queue_n > 0) {
        struct sched_entry *e = sched_find_entry(s, s->queue[0]);
        bool waits = e->state == RUN_PENDING && !e->asked && (e->job == NULL || !e->job->admitted);

        if (take || !waits) {
            queue_pop(s);
            e->queued = false;
        }
        if (waits)
            return e;
    }
    return NULL;
}

/* ---- bodies ---------------------------------------------------------------------------------- */

static void body_add(struct sched *s, struct sched_entry *e, struct sched_job *j)
{
    int at = s->jobs_n;

    if (s->jobs_n == s->jobs_cap) {
        s->jobs_cap = s->jobs_cap * 2 + 16;
        s->job = mem_grow(s->job, (size_t)s->jobs_cap, sizeof *s->job);
    }
    while (at > 0 && s->job[at - 1]->id > j->id)
        at--;
    memmove(&s->job[at + 1], &s->job[at], (size_t)(s->jobs_n - at) * sizeof *s->job);
    s->job[at] = j;
    s->jobs_n++;
    e->job = j;
}

static void admit(struct sched *s, struct sched_job *j)
{
    j->admitted = true;
    s->active_n++;
    sched_open_changed(s);
}

void sched_queue_add(struct sched *s, struct sched_job *j)
{
    struct sched_entry *e = entry_add(s, j->id, j->state);

    body_add(s, e, j);
    if (j->state == RUN_PENDING)
        queue_push(s, e);
    else if (!run_state_is_final(j->state) && j->state != RUN_PAUSED)
        admit(s, j);
}

void sched_restore_entry(struct sched *s, uint64_t id, enum run_state state)
{
    struct sched_entry *e = entry_add(s, id, state);

    CHECK(state == RUN_PENDING || state == RUN_PAUSED || run_state_is_final(state));
    if (state == RUN_PENDING)
        queue_push(s, e);
}

void sched_queue_moved(struct sched *s, struct sched_job *j, enum run_state from)
{
    struct sched_entry *e = sched_find_entry(s, j->id);

    s->count[from]--;
    s->count[j->state]++;
    e->state = j->state;
    sched_open_changed(s);
    if ((run_state_is_final(j->state) || j->state == RUN_PAUSED) && j->admitted) {
        j->admitted = false;
        s->active_n--;
    }
    if (j->state == RUN_PENDING)
        queue_push(s, e);
}

/* ---- admission ------------------------------------------------------------------------------- */

static bool has_idle_worker(const struct sched *s)
{
    for (int i = 0; i < s->workers_n; i++) {
        const struct sched_worker *w = s->worker[i];

        if (sched_worker_usable(w) && w->in == NULL && w->running < w->threads &&
            w->kept_job == 0 && (w->roles & SCHED_ROLE_COMPUTE) != 0)
            return true;
    }
    return false;
}

static bool may_admit(struct sched *s)
{
    if (s->config.active_min == 0 || s->active_n < s->config.active_min)
        return true;
    if (s->active_n >= s->config.active_max || s->now_ms < s->admit_at_ms || !has_idle_worker(s))
        return false;
    s->admit_at_ms = s->now_ms + ADMIT_MS;
    return true;
}

void sched_queue_admit(struct sched *s, struct sched_actions *a)
{
    while (queue_next(s, false) != NULL && may_admit(s)) {
        struct sched_entry *e = queue_next(s, true);

        if (e->job != NULL) {
            admit(s, e->job);
            sched_job_advance(s, e->job, a);
        } else {
            e->asked = true;
            s->active_n++;
            sched_act(a, SCHED_ASK_LOAD, NULL, NULL)->number = e->id;
        }
    }
}

void sched_queue_loaded(struct sched *s, struct sched_job *j, struct sched_actions *a)
{
    struct sched_entry *e = sched_find_entry(s, j->id);
    bool asked = e != NULL && e->asked;

    if (e == NULL || (e->job != NULL && !asked)) {
        sched_job_free(j);
        return;
    }
    if (e->job == NULL) {
        body_add(s, e, j);
        sched_job_restored(s, j, 0);
    } else {
        sched_job_free(j);
        j = e->job;
    }
    if (j->state != e->state) { /* this build cannot read its spec */
        s->count[e->state]--;
        s->count[j->state]++;
        e->state = j->state;
        sched_act(a, SCHED_SAVE_JOB, j, NULL);
    }
    sched_tasks_distrust(s, j, a);
    e->asked = false;
    if (asked) {
        s->active_n--;
        if (j->state == RUN_PENDING)
            admit(s, j);
    } else if (j->state == RUN_PENDING) {
        queue_push(s, e);
    }
}

void sched_queue_replace(struct sched *s, struct sched_job *j)
{
    struct sched_entry *e = sched_find_entry(s, j->id);

    sched_open_changed(s);
    for (int i = 0; i < s->jobs_n && e->job != NULL; i++) {
        if (s->job[i] != e->job)
            continue;
        memmove(&s->job[i], &s->job[i + 1], (size_t)(s->jobs_n - i - 1) * sizeof *s->job);
        s->jobs_n--;
        sched_job_free(e->job);
        e->job = NULL;
    }
    body_add(s, e, j);
}

void sched_queue_unload(struct sched *s)
{
    int kept = 0;

    while (kept < s->jobs_n && s->job[kept]->admitted)
        kept++;
    if (kept == s->jobs_n)
        return;
    sched_open_changed(s);
    for (int i = kept; i < s->jobs_n; i++) {
        struct sched_job *j = s->job[i];
        struct sched_entry *e = NULL;

        if (j->admitted) {
            s->job[kept++] = j;
            continue;
        }
        e = sched_find_entry(s, j->id);
        e->job = NULL;
        e->version = j->version;
        sched_job_free(j);
    }
    s->jobs_n = kept;
}

void sched_queue_fini(struct sched *s)
{
    for (int i = 0; i < s->jobs_n; i++)
        sched_job_free(s->job[i]);
    free(s->job);
    free(s->entry);
    free(s->queue);
}
