/* The compute threads of a session: run_train() over ps_client and ps_view. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/team.h"
#include "worker/cores.h"
#include "worker/executor.h"
#include "worker/ps_client.h"
#include "worker/ps_view.h"
#include "worker/session_inner.h"

struct member {
    struct session *s;
    struct region **buffer; /* [buffers] what its gradients lie in */
    size_t buffers;
    uint32_t index;
    pthread_t thread;
    struct ps_client *client;
    uint64_t seen; /* s->assignments when the span was asked for */
};

static struct tree_span member_span(void *self)
{
    struct member *m = self;
    struct session *s = m->s;
    struct tree_span span = {0, 0};

    pthread_mutex_lock(&s->lock);
    m->seen = atomic_load(&s->assignments);
    for (uint32_t i = 0; i < s->open->slots_n; i++) {
        const struct control_slot *slot = &s->open->slot[i];
        if (slot->only_step == 0 && strcmp(slot->worker, s->env.worker) == 0 &&
            slot->leaf_end <= s->task.units)
            span = (struct tree_span){slot->leaf_begin, slot->leaf_end};
    }
    pthread_mutex_unlock(&s->lock);
    return run_train_part(span, m->index, s->members);
}

static bool claimed(const struct session *s, struct claim c)
{
    uint32_t n = s->claims < CLAIMS_MAX ? s->claims : CLAIMS_MAX;

    for (uint32_t i = 0; i < n; i++)
        if (s->claim[i].only_step == c.only_step && s->claim[i].begin == c.begin &&
            s->claim[i].end == c.end && s->claim[i].again >= c.again)
            return true;
    return false;
}

/* The first slot of this step only that no thread of ours has taken. */
static bool member_extra(void *self, uint64_t step, struct tree_span *span)
{
    struct member *m = self;
    struct session *s = m->s;
    bool found = false;

    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < s->open->slots_n && !found; i++) {
        const struct control_slot *slot = &s->open->slot[i];
        const struct claim c = {slot->only_step, slot->leaf_begin, slot->leaf_end, slot->again};

        found = c.only_step == step + 1 && c.begin < c.end && c.end <= s->task.units &&
                strcmp(slot->worker, s->env.worker) == 0 && !claimed(s, c);
        if (found) {
            s->claim[s->claims++ % CLAIMS_MAX] = c;
            *span = (struct tree_span){c.begin, c.end};
        }
    }
    pthread_mutex_unlock(&s->lock);
    return found;
}

static bool member_cancelled(void *self)
{
    const struct member *m = self;

    return atomic_load(&m->s->closed) || atomic_load(&m->s->failed);
}

/* Asked while waiting: that is progress too, of a thread that is well. */
static int member_ask(void *self, bool soft, struct err *e)
{
    struct member *m = self;
    uint64_t *progress = &m->s->progress[m->index];

    __atomic_store_n(progress, __atomic_load_n(progress, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
    if (member_cancelled(m))
        return err_set(e, ERR_CANCELLED, "the session was closed");
    if (soft && atomic_load(&m->s->assignments) != m->seen)
        return TRAIN_REASSIGNED;
    return 0;
}

static int member_wait(void *self, uint64_t at_least, const float **params, uint64_t *version,
                       struct err *e)
{
    struct member *m = self;
    const struct ps_client_check check = {m, member_ask};

    *params = ps_view_params(m->s->view);
    return ps_view_wait(m->s->view, at_least, version, m->client, &check, e);
}

static int member_need(void *self, uint64_t version, size_t begin, size_t end, struct err *e)
{
    struct member *m = self;
    const struct ps_client_check check = {m, member_ask};
    bool over = false;
    int rc = ps_view_need(m->s->view, version, begin, end, &over, &check, e);

    return rc == 0 && over ? TRAIN_OVER : rc;
}

static bool member_still(void *self, uint64_t version)
{
    const struct member *m = self;

    return ps_view_still(m->s->view, version);
}

static float *member_floats(void *self)
{
    struct member *m = self;
    struct session *s = m->s;
    struct err e;

    m->buffer = mem_grow(m->buffer, m->buffers + 1, sizeof *m->buffer);
    if (region_new((size_t)s->open->params * sizeof(float), s->shared, &m->buffer[m->buffers],
                   &e) != 0)
        return NULL;
    return region_data(m->buffer[m->buffers++]);
}

static int member_push(void *self, uint64_t step, struct tree_node node, uint32_t begin,
                       uint32_t end, float *grad, const struct fold_sums *sums, struct err *e)
{
    struct member *m = self;
    const struct ps_client_check check = {m, member_ask};
    size_t i = 0;
    int rc;

    while (region_data(m->buffer[i]) != grad)
        i++;
    rc = ps_client_push(m->client, step, node, begin, end, grad, m->buffer[i], sums, &check, e);
    return rc == 0 && ps_client_is_over(m->client, step) ? TRAIN_OVER : rc;
}

static void client_plan(const struct session *s, struct ps_client_plan *plan)
{
    *plan = (struct ps_client_plan){.session = s->open->session,
                                    .attempt = s->open->session_attempt,
                                    .who = control_who(s->env.worker),
                                    .params = s->model.layout.count,
                                    .chunk_elems = s->open->chunk_elems,
                                    .half = s->half,
                                    .hosts_n = s->open->hosts_n};
    for (uint32_t i = 0; i < plan->hosts_n; i++) {
        bool here = strcmp(s->open->host[i].worker, s->env.worker) == 0;
        snprintf(plan->host[i].endpoint, sizeof plan->host[i].endpoint, "%s",
                 here ? PS_HOST_INPROC : s->open->host[i].endpoint);
        plan->host[i].chunk_begin = s->open->host[i].chunk_begin;
        plan->host[i].chunk_end = s->open->host[i].chunk_end;
    }
}

static int client_make(struct member *m, struct team *team, struct err *e)
{
    struct ps_client_plan plan;

    client_plan(m->s, &plan);
    plan.near = ps_view_near(m->s->view);
    plan.team = team;
    return ps_client_new(&plan, &m->client, e);
}

/* Each thread of a team on a core of its own. */
static void part_pin(void *self, size_t part, size_t parts)
{
    const struct session *s = self;

    (void)parts;
    cores_pin(s->env.cores, (uint32_t)part);
}

/* This thread and those that have no units of their own, which inherit how low it is. */
static struct team *team_make(struct session *s)
{
    struct team *team = team_new(s->env.threads < TEAM_MAX ? (int)s->env.threads : TEAM_MAX);

    team_run(team, part_pin, s);
    return team;
}

static void *member_main(void *self)
{
    struct member *m = self;
    struct train_env env = {.self = m,
                            .params_wait = member_wait,
                            .params_need = member_need,
                            .params_still = member_still,
                            .floats_new = member_floats,
                            .span = member_span,
                            .extra = member_extra,
                            .grads_push = member_push,
                            .cancelled = member_cancelled,
                            .progress = &m->s->progress[m->index]};
    struct err e = {0};
    int rc;

    executor_thread_lower();
    if (m->s->members < m->s->env.threads)
        env.team = team_make(m->s);
    else
        cores_pin(m->s->env.cores, m->index);
    rc = client_make(m, env.team, &e);
    if (rc == 0)
        rc = run_train(&m->s->task, m->s->open->version, &env, &e);
    if (rc != 0 && rc != ERR_CANCELLED)
        session_fail(m->s, rc, &e);
    team_free(env.team);
    ps_client_free(m->client);
    for (size_t i = 0; i < m->buffers; i++)
        region_release(m->buffer[i]);
    free(m->buffer);
    atomic_store(&m->s->over[m->index], true);
    return NULL;
}

/* All threads work on the same units where a thread for each unit would leave some without, or would need memory for a
 * large gradient each. */
#define TEAM_PARAMS_MIN ((size_t)1 << 25)
#define TEAM_PARAMS_FEW_UNITS                                                                      \
    ((size_t)1 << 22) /* an operation of a smaller model is not worth sharing */

static uint32_t members_of(const struct session *s)
{
    bool few = s->task.units < s->env.threads;
    bool team = s->task.params >= (few ? TEAM_PARAMS_FEW_UNITS : TEAM_PARAMS_MIN);

    return team ? 1 : s->env.threads;
}

int session_compute(struct session *s, struct err *e)
{
    struct member *member;
    struct ps_client_plan plan;
    int rc;

    client_plan(s, &plan);
    plan.view = s->region;
    rc = ps_view_new(&plan, &s->view, e);
    if (rc != 0)
        return rc;
    s->members = members_of(s);
    member = mem_zalloc(s->members, sizeof *member);
    for (uint32_t i = s->members; i < s->env.threads; i++)
        atomic_store(&s->over[i], true);
    atomic_store(&s->computing, true);
    for (uint32_t i = 0; i < s->members; i++) {
        member[i].s = s;
        member[i].index = i;
        CHECK(pthread_create(&member[i].thread, NULL, member_main, &member[i]) == 0);
    }
    for (uint32_t i = 0; i < s->members; i++)
        pthread_join(member[i].thread, NULL);
    atomic_store(&s->computing, false);
    ps_view_free(s->view);
    free(member);
    return 0;
}
