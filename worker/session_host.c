/*
 * Our shard of a session, and our copy of a neighbour's: made of the initial model, of a checkpoint,
 * or of the memory of the attempt before.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "ps/ckpt.h"
#include "worker/ps_state.h"
#include "worker/session_inner.h"

static void host_released(void *self, struct ps_session *ps)
{
    session_unref(self);
    free(ps);
}

/* The shard, own or copy, that a chunk of the whole vector belongs to. */
static struct shard *shard_of(const struct ps_session *ps, uint32_t chunk, uint32_t *at)
{
    const struct host_plan *plan = &ps->plan;

    *at = chunk - plan->chunk_begin;
    if (chunk >= plan->chunk_begin && chunk < plan->chunk_end)
        return host_shard(ps->host);
    *at = chunk - plan->copy_begin;
    if (plan->replicate && chunk >= plan->copy_begin && chunk < plan->copy_end)
        return host_copy(ps->host);
    return NULL;
}

static void host_from_init(const struct session *s, struct ps_session *ps)
{
    ps->host = host_new(&ps->plan, NULL, 0, NULL);
    for (uint32_t i = 0; i < ps->plan.chunks; i++) {
        uint32_t at;
        struct shard *shard = shard_of(ps, i, &at);
        if (shard != NULL)
            shard_set(shard, at, s->model.params + (size_t)i * ps->plan.chunk_elems, NULL, NULL);
    }
}

static int host_from_checkpoint(struct session *s, struct ps_session *ps, struct err *e)
{
    const struct control *o = s->open;
    size_t n = o->chunk_elems;
    struct ckpt_manifest m = {0};
    float *part = NULL;
    int rc = ckpt_manifest_fetch(o->manifest.hex, session_fetch, s, &m, e);

    if (rc != 0)
        goto out;
    if (m.params != o->params || m.chunk_elems != o->chunk_elems || m.steps != o->steps ||
        m.bf16 != spec_trains_bf16(s->spec)) {
        rc = err_set(e, ERR_INVALID,
                     "checkpoint %.12s is of another session: %" PRIu64 " parameters, %" PRIu64
                     " steps, numerics %s",
                     o->manifest.hex, m.params, m.steps, m.bf16 ? "bf16" : "fp32");
        goto out;
    }
    ps->host = host_new(&ps->plan, NULL, m.step, &m.figures);
    part = mem_alloc(3 * n * sizeof *part);
    for (uint32_t i = 0; rc == 0 && i < ps->plan.chunks; i++) {
        uint32_t at;
        struct shard *shard = shard_of(ps, i, &at);
        if (shard == NULL)
            continue;
        rc = ckpt_read_chunk(&m, i, session_fetch, s, part, part + n, part + 2 * n, e);
        if (rc == 0)
            shard_set(shard, at, part, part + n, part + 2 * n);
    }
out:
    free(part);
    ckpt_manifest_fini(&m);
    return rc == 0 ? 0 : err_wrap(e, "checkpoint %s", o->manifest.hex); /* which one was damaged */
}

struct taking {
    struct session *s;
    struct ps_session *ps;
};

static bool taking_cancelled(void *self)
{
    const struct taking *t = self;

    return atomic_load(&t->s->closed);
}

static void taking_put(void *self, uint32_t chunk, const float *p, const float *m, const float *v)
{
    const struct taking *t = self;
    uint32_t at;
    struct shard *shard = shard_of(t->ps, chunk, &at);

    shard_set(shard, at, p, m, v);
}

/* From the memory of the attempt before: our own host's, which is asked like any other, or another
 * host's. */
static int host_from_memory(struct session *s, struct ps_session *ps, struct err *e)
{
    const struct control *o = s->open;
    const struct host_figures figures = {o->loss, o->grad_norm, o->tokens, o->tail_loss,
                                         o->tail_steps};
    struct taking taking = {s, ps};
    const struct ps_state_take take = {&taking, taking_cancelled, taking_put};
    struct ps_state_plan plan = {.session = o->session,
                                 .attempt = o->from_attempt,
                                 .version = o->version,
                                 .close = {o->close_step, o->scale, o->rate, figures},
                                 .params = o->params,
                                 .chunk_elems = o->chunk_elems,
                                 .sources_n = o->sources_n};
    struct control_source *source = mem_zalloc(o->sources_n, sizeof *source);
    bool *need = mem_zalloc(ps->plan.chunks, sizeof *need);
    uint32_t at;
    int rc;

    for (uint32_t i = 0; i < o->sources_n; i++) {
        source[i] = o->source[i];
        if (strcmp(source[i].worker, s->env.worker) == 0) {
            struct control_source first = source[0]; /* what is here need not travel */
            snprintf(source[i].endpoint, sizeof source[i].endpoint, "%s", PS_HOST_INPROC);
            source[0] = source[i];
            source[i] = i > 0 ? first : source[0];
        }
    }
    plan.source = source;
    ps->host = host_new(&ps->plan, NULL, o->version, &figures);
    for (uint32_t i = 0; i < ps->plan.chunks; i++)
        need[i] = shard_of(ps, i, &at) != NULL;
    rc = ps_state_fetch(&plan, need, &take, e);
    free(need);
    free(source);
    return rc;
}

/* Parameters and moments of our chunks and of those that we keep a copy of. */
static int host_make(struct session *s, struct ps_session *ps, struct err *e)
{
    int rc = 0;

    if (s->open->from_attempt != 0)
        rc = host_from_memory(s, ps, e);
    else if (s->open->manifest.hex[0] != '\0')
        rc = host_from_checkpoint(s, ps, e);
    else
        host_from_init(s, ps);
    if (rc != 0)
        host_free(ps->host);
    return rc;
}

/* Who keeps a copy of what: each of the host before it in the list, in a ring. */
static void neighbours_find(const struct control *o, uint32_t i, struct ps_session *ps)
{
    const struct control_host *before = &o->host[(i + o->hosts_n - 1) % o->hosts_n];

    if (i > 0)
        memcpy(ps->leader, o->host[0].endpoint, sizeof ps->leader);
    if (!o->replicate || o->hosts_n < 2)
        return;
    ps->plan.replicate = true;
    ps->plan.copy_begin = before->chunk_begin;
    ps->plan.copy_end = before->chunk_end;
    memcpy(ps->buddy, o->host[(i + 1) % o->hosts_n].endpoint, sizeof ps->buddy);
}

int session_region(struct session *s, struct err *e)
{
    s->shared = s->open->hosts_n > 1 || session_host_of(s) == NULL;
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < s->open->slots_n; i++)
        s->shared = s->shared || strcmp(s->open->slot[i].worker, s->env.worker) != 0;
    pthread_mutex_unlock(&s->lock);
    return region_new((size_t)s->open->params * sizeof(float), s->shared, &s->region, e);
}

int session_host(struct session *s, struct err *e)
{
    const struct control *o = s->open;
    const struct train_spec *t = &s->spec->train;
    const struct control_host *mine = session_host_of(s);
    struct ps_session *ps;
    int rc;

    if (mine == NULL)
        return 0;
    if (s->env.host == NULL)
        return err_set(e, ERR_INVALID,
                       "this worker is named as a parameter host but has no such role");
    ps = mem_zalloc(1, sizeof *ps);
    *ps = (struct ps_session){.job = o->job,
                              .session = o->session,
                              .attempt = o->session_attempt,
                              .from_attempt = o->from_attempt,
                              .units = o->units,
                              .global_batch = o->global_batch,
                              .seed = o->seed,
                              .init = o->init,
                              .examples = o->examples,
                              .bf16 = spec_trains_bf16(s->spec),
                              .released = host_released,
                              .self = s};
    ps->plan = (struct host_plan){
        .layout = &s->model.layout,
        .units = o->units,
        .chunk_begin = mine->chunk_begin,
        .chunk_end = mine->chunk_end,
        .chunks = (uint32_t)((o->params + o->chunk_elems - 1) / o->chunk_elems),
        .chunk_elems = o->chunk_elems,
        .steps = o->steps,
        .seed = o->seed,
        .audit = o->audit,
        .checkpoint_every = o->checkpoint_every,
        .lr = t->lr,
        .clip = t->grad_clip,
        .adamw = t->adamw,
        .schedule = t->schedule,
        .half = s->half,
        .place = (float *)region_data(s->region) + (size_t)mine->chunk_begin * o->chunk_elems,
        .spread = ps_host_spread(s->env.host),
        .begins = ps_session_begins,
        .begins_self = ps};
    neighbours_find(o, (uint32_t)(mine - o->host), ps);
    rc = host_make(s, ps, e);
    if (rc != 0) {
        free(ps);
        /* By its whole name: that is how the coordinator knows which checkpoint is damaged. */
        return o->from_attempt == 0 && o->manifest.hex[0] != '\0'
                   ? err_wrap(e, "checkpoint %s", o->manifest.hex)
                   : err_wrap(e, "parameter shard");
    }
    if (o->from_attempt != 0)
        fault_hit(FAULT_PS_STATE_AFTER);
    region_stamp(s->region, host_version(ps->host));
    region_hold(s->region);
    ps->region = s->region;
    atomic_fetch_add(&s->refs, 1);
    ps_host_open(s->env.host, ps);
    return 0;
}
