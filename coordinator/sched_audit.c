/*
 * Audits of tasks. A share of them (the key `audit` of the spec; which ones is a pure function of
 * the job) counts only when two different workers have given the same outputs. The first result is
 * remembered by its hash, and the task is given out again, to somebody else. Results that differ
 * want a third; who is outvoted goes into quarantine. Where nobody else could be asked an audit is
 * waived; a dispute ends the job with both names.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/rng.h"
#include "coordinator/sched_inner.h"
#include "wire/control.h" /* control_who() */

bool sched_audit_spoken(const struct sched_task *t, const char *worker)
{
    for (uint32_t i = 0; i < t->voices_n; i++) {
        if (t->voice[i].who == control_who(worker))
            return true;
    }
    return false;
}

/* Of the job or of the stage, whichever is larger: preparing data is no stage of the spec's own. */
static double share_of(const struct sched_stage *st)
{
    const struct sched_job *j = st->job;
    double stage;

    if (sched_class_is_any(j) || j->expansion == NULL || j->spec == NULL)
        return 0;
    stage = j->expansion->stage[st->index].spec->audit;
    return stage > j->spec->audit ? stage : j->spec->audit;
}

static bool is_audited(const struct sched_stage *st, const struct sched_task *t)
{
    double share = share_of(st);

    return share > 0 && (share >= 1 || rng_unit(st->job->seed, RNG_AUDIT, (uint32_t)st->index,
                                                st->phases_done, t->index) < share);
}

/* Is there anybody who could be asked, now or when it has time? */
bool sched_audit_waits(struct sched *s, const struct sched_stage *st, const struct sched_task *t)
{
    for (int i = 0; i < s->workers_n; i++) {
        const struct sched_worker *w = s->worker[i];

        if ((w->roles & SCHED_ROLE_COMPUTE) != 0 && !w->draining && !w->quarantined && !w->hung &&
            sched_class_fits(st->job, w) && !sched_audit_spoken(t, w->id))
            return true;
    }
    return false;
}

static uint64_t hash_of(const cJSON *result)
{
    struct buf text = BUF_INIT;
    struct digest d;
    uint64_t hash = 0;

    if (json_get(result, "outputs") != NULL)
        json_canonical(json_get(result, "outputs"), &text);
    digest_bytes(text.len > 0 ? text.data : "", text.len, &d);
    buf_free(&text);
    for (int i = 0; i < 16; i++)
        hash = hash << 4 | (uint64_t)(d.hex[i] <= '9' ? d.hex[i] - '0' : d.hex[i] - 'a' + 10);
    return hash;
}

static void odd_quarantine(struct sched *s, struct sched_stage *st, const struct sched_task *t,
                           uint64_t agreed, struct sched_actions *a)
{
    char reason[SCHED_TEXT_MAX];

    for (uint32_t i = 0; i < t->voices_n; i++) {
        const char *id = t->speaker[i];

        if (t->voice[i].hash == agreed || sched_quarantined(s, id) != NULL)
            continue;
        snprintf(reason, sizeof reason,
                 "its outputs of task %u of phase %s are not what two others make", t->index,
                 st->phase.name);
        sched_note(a, st->job, st, "worker.quarantined", "%s: %s", id, reason);
        sched_quarantine(s, id, reason, a);
    }
}

static bool disputed(const struct sched_task *t)
{
    for (uint32_t i = 1; i < t->voices_n; i++) {
        if (t->voice[i].hash != t->voice[0].hash)
            return true;
    }
    return false;
}

enum sched_audit sched_audit_take(struct sched *s, struct sched_stage *st, struct sched_task *t,
                                  const char *worker, const cJSON *result, struct sched_actions *a)
{
    struct sched_voice v;
    bool before;

    if (t->voices_n == 0 && !is_audited(st, t))
        return AUDIT_COUNTS;
    v = (struct sched_voice){control_who(worker), hash_of(result)};
    for (uint32_t i = 0; i < t->voices_n; i++) {
        if (t->voice[i].hash != v.hash || t->voice[i].who == v.who)
            continue;
        s->counters.audited += !disputed(t);
        odd_quarantine(s, st, t, v.hash, a);
        return AUDIT_COUNTS;
    }
    before = disputed(t);
    if (t->voices_n < SCHED_VOICES_MAX) {
        snprintf(t->speaker[t->voices_n], sizeof t->speaker[0], "%s", worker);
        t->voice[t->voices_n++] = v;
    }
    if (disputed(t) && !before) {
        s->counters.disputed++;
        sched_note(a, st->job, st, "task.disputed", "task %u of phase %s: %s and %s differ",
                   t->index, st->phase.name, t->speaker[0], worker);
    }
    if (t->voices_n < SCHED_VOICES_MAX && sched_audit_waits(s, st, t))
        return AUDIT_MORE;
    if (!disputed(t))
        return AUDIT_COUNTS; /* nobody to ask */
    t->code = ERR_CONFLICT;
    snprintf(t->text, sizeof t->text,
             "%s and %s make different outputs of the same rows, and there is nobody else to ask; "
             "one of these machines is broken",
             t->speaker[0], worker);
    return AUDIT_FAILED;
}
