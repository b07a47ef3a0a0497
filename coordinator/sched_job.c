/* Making, finding and freeing jobs; what a pause of the coordinator does to their deadlines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "coordinator/sched_inner.h"

int sched_job_new(uint64_t id, struct spec **spec, const cJSON *resolved, uint64_t wall_ms,
                  struct sched_job **out, struct err *e)
{
    struct sched_job *j = mem_zalloc(1, sizeof *j);
    int rc = 0;

    j->spec = *spec;
    *spec = NULL;
    j->id = id;
    j->kind = j->spec->kind;
    snprintf(j->name, sizeof j->name, "%s", j->spec->name);
    snprintf(j->project, sizeof j->project, "%s", j->spec->project);
    j->reuse = j->spec->reuse_verified;
    j->finish_independent = j->spec->finish_independent;
    j->max_parallel = j->spec->max_parallel;
    if (strcmp(j->spec->numerics, "any") == 0) {
        j->class_bound = true;
        snprintf(j->class_id, sizeof j->class_id, "%s", SCHED_ANY_CLASS);
    }
    j->seed = j->spec->seed;
    j->created_wall_ms = wall_ms;
    j->version = 1;
    rc = expand_spec(j->spec, resolved, &j->expansion, e);
    if (rc != 0) {
        sched_job_free(j);
        return rc;
    }
    j->stages_n = j->expansion->stages_n;
    j->stage = mem_zalloc((size_t)j->stages_n, sizeof *j->stage);
    for (int i = 0; i < j->stages_n; i++) {
        struct sched_stage *st = &j->stage[i];

        st->job = j;
        st->index = i;
        st->kind = j->expansion->stage[i].spec->kind;
        j->bf16 = j->bf16 || spec_trains_bf16(j->expansion->stage[i].spec);
        snprintf(st->name, sizeof st->name, "%s", j->expansion->stage[i].name);
    }
    *out = j;
    return 0;
}

void sched_job_free(struct sched_job *j)
{
    if (j == NULL)
        return;
    for (int i = 0; i < j->stages_n; i++) {
        struct sched_stage *st = &j->stage[i];

        for (uint32_t t = 0; t < st->tasks_n; t++)
            cJSON_Delete(st->task[t].result);
        free(st->task);
        task_set_fini(&st->pending);
        task_set_fini(&st->busy);
        free(st->session);
        cJSON_Delete(st->inputs);
        cJSON_Delete(st->done);
        cJSON_Delete(st->outputs);
        cJSON_Delete(st->metrics);
    }
    free(j->stage);
    expand_free(j->expansion);
    spec_free(j->spec);
    free(j);
}

static void session_renew(const struct sched *s, struct sched_session *ss)
{
    /* Hosts may have gone on meanwhile. */
    ss->progress_ms = ss->change_ms = ss->opened_ms = s->now_ms;
    ss->opened_version = SCHED_VERSION_UNKNOWN;
    if (ss->adopting) /* its hosts could not say hello meanwhile */
        ss->adopt_until_ms = s->now_ms + s->config.adopt_ms;
}

void sched_renew(struct sched *s, uint64_t now_ms)
{
    s->now_ms = now_ms;
    for (int i = 0; i < s->workers_n; i++) {
        if (s->worker[i]->moved_ms > 0)
            s->worker[i]->moved_ms = now_ms;
    }
    for (int i = 0; i < s->jobs_n; i++) {
        for (int k = 0; k < s->job[i]->stages_n && !run_state_is_final(s->job[i]->state); k++) {
            struct sched_stage *st = &s->job[i]->stage[k];

            for (uint32_t n = 0; n < st->tasks_n; n++) {
                struct sched_task *t = &st->task[n];

                if (t->state != TASK_LEASED)
                    continue;
                t->lease_until_ms = t->shadow.lease_until_ms = now_ms + s->config.lease_ms;
                t->moved_ms = t->shadow.moved_ms = now_ms;
            }
            if (st->session != NULL)
                session_renew(s, st->session);
        }
    }
}
