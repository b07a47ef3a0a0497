/*
 * Numerics classes: machines that compute the same bits. A job is bound to the class of its first
 * lease, or takes any; a worker of another class is told, once, why it gets no work.
 */
#include <stdio.h>
#include <string.h>

#include "coordinator/sched_inner.h"

const char *sched_class_of(const struct sched_job *j, const struct sched_worker *w)
{
    return j->bf16 ? w->class_bf16 : w->class_id;
}

bool sched_class_fits(const struct sched_job *j, const struct sched_worker *w)
{
    const char *class_id = sched_class_of(j, w);

    if (j->bf16 && class_id[0] == '\0')
        return false;
    return !j->class_bound || sched_class_is_any(j) || strcmp(j->class_id, class_id) == 0;
}

bool sched_class_is_any(const struct sched_job *j)
{
    return j->class_bound && strcmp(j->class_id, SCHED_ANY_CLASS) == 0;
}

/* A worker whose arithmetic is not the job's is told so, once, and so is the job. */
static void class_tell(struct sched *s, struct sched_job *j, struct sched_worker *w,
                       struct sched_actions *a)
{
    const char *class_id = sched_class_of(j, w);
    struct sched_action *act;

    if (w->other_class || run_state_is_final(j->state) || sched_class_fits(j, w))
        return;
    w->other_class = true;
    s->counters.refused++;
    act = sched_act(a, SCHED_SEND_NOTE, NULL, NULL);
    snprintf(act->worker, sizeof act->worker, "%s", w->id);
    if (class_id[0] == '\0') {
        sched_note(a, j, NULL, "worker.other_class",
                   "%s gets no work: the job trains with numerics: bf16, which it does not do",
                   w->id);
        snprintf(act->note, sizeof act->note,
                 "no work of jobs with `numerics: bf16`: they need AVX512_BF16, or AVX2 and FMA, "
                 "and a worker without --bf16 off");
        return;
    }
    sched_note(a, j, NULL, "worker.other_class",
               "%s gets no work: its numerics class is %.12s, the job runs on %.12s", w->id,
               class_id, j->class_id);
    snprintf(
        act->note, sizeof act->note,
        "no work of jobs that run on numerics class %.12s: the class of this machine is %.12s, "
        "so its results would differ in the last bits; jobs with `numerics: any` take it",
        j->class_id, class_id);
}

void sched_class_up(struct sched *s, struct sched_worker *w, struct sched_actions *a)
{
    w->other_class = false;
    for (int i = 0; i < s->jobs_n && !w->other_class; i++)
        class_tell(s, s->job[i], w, a);
}

void sched_class_new(struct sched *s, struct sched_job *j, struct sched_actions *a)
{
    for (int i = 0; i < s->workers_n; i++)
        class_tell(s, j, s->worker[i], a);
}

void sched_class_bind(struct sched *s, struct sched_job *j, const char *class_id,
                      struct sched_actions *a)
{
    if (j->class_bound)
        return;
    j->class_bound = true;
    snprintf(j->class_id, sizeof j->class_id, "%s", class_id);
    sched_act(a, SCHED_SAVE_JOB, j, NULL);
    sched_class_new(s, j, a);
}

bool sched_class_join(struct sched *s, struct sched_job *j, const char *class_id,
                      struct sched_actions *a)
{
    bool here = s->workers_n == 0;

    if (class_id == NULL || class_id[0] == '\0' || sched_class_is_any(j))
        return true;
    for (int i = 0; i < s->workers_n && !here; i++)
        here = strcmp(sched_class_of(j, s->worker[i]), class_id) == 0;
    if (here)
        sched_class_bind(s, j, class_id, a);
    return j->class_bound && strcmp(j->class_id, class_id) == 0;
}
