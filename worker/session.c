#include "worker/session.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "jobs/run_train.h"
#include "json/json.h"
#include "model/bf16.h"
#include "modelfile/modeldir.h"
#include "ps/ckpt.h"
#include "worker/cores.h"
#include "worker/executor.h"
#include "worker/ps_client.h"
#include "worker/ps_state.h"
#include "worker/ps_view.h"

#define FETCH_DEADLINE_MS 600000
#define CONTEXT_BYTES_MAX ((size_t)16 << 20)

#define CLAIMS_MAX 64

/* Work of one step that a thread of ours has taken. */
struct claim {
    uint64_t only_step;
    uint32_t begin, end, again;
};

struct session {
    struct session_env env;
    struct control *open;
    atomic_uint refs; /* the opener, the session's thread, the hosted shard */
    atomic_bool closed, failed;
    uint64_t keep;        /* set with `closed` */
    pthread_mutex_t lock; /* guards the slots of `open` and closing */
    pthread_cond_t changed;
    atomic_uint_fast64_t assignments; /* how many have come: threads notice a change by it */
    struct spec *spec;
    struct model model;
    bool has_model;
    struct examples *examples;
    struct train_task task;
    struct region *region; /* the flat vector of parameters: ours live there, the others' are shown */
    bool shared;           /* somebody else of this machine may take part */
    struct ps_view *view;
    bool half; /* the wire is bf16 */
    uint64_t *progress;             /* [threads], each bumped by one thread */
    struct pulse_thread *pulse;     /* [threads], of the control thread */
    atomic_bool computing;          /* the compute threads run */
    atomic_bool *over;              /* [threads] it has ended */
    struct claim claim[CLAIMS_MAX]; /* the last ones, a ring; guarded by lock */
    uint32_t claims;
};

struct member {
    struct session *s;
    struct region **buffer; /* [buffers] what its gradients lie in */
    size_t buffers;
    uint32_t index;
    pthread_t thread;
    struct ps_client *client;
    uint64_t seen; /* s->assignments when the span was asked for */
};

static atomic_uint sessions_alive;

static void session_unref(struct session *s)
{
    if (atomic_fetch_sub(&s->refs, 1) != 1)
        return;
    region_release(s->region);
    if (s->has_model)
        model_fini(&s->model);
    spec_free(s->spec);
    control_free(s->open);
    free(s->progress);
    free(s->pulse);
    free(s->over);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s);
    atomic_fetch_sub(&sessions_alive, 1);
}

static void session_fail(struct session *s, int code, const struct err *e)
{
    struct control *m;

    if (atomic_load(&s->closed) || atomic_exchange(&s->failed, true))
        return;
    m = control_new(CONTROL_SESSION_FAILED);
    m->job = s->open->job;
    m->session = s->open->session;
    m->session_attempt = s->open->session_attempt;
    m->code = code;
    snprintf(m->text, sizeof m->text, "%.*s", (int)sizeof m->text - 1, e->msg);
    s->env.says(s->env.self, m);
}

/* ---- what is needed -------------------------------------------------------------------------- */

static int fetch(void *self, const char *digest, char *path, size_t cap, struct err *e)
{
    struct session *s = self;

    if (atomic_load(&s->closed))
        return err_set(e, ERR_CANCELLED, "the session was closed");
    return artifact_fetch(s->env.artifacts, digest, FETCH_DEADLINE_MS, path, cap, e);
}

static int spec_fetch(struct session *s, struct err *e)
{
    struct buf text = BUF_INIT;
    cJSON *context = NULL;
    char path[4096];
    int rc;

    rc = fetch(s, s->open->context.hex, path, sizeof path, e);
    if (rc == 0)
        rc = file_read(path, CONTEXT_BYTES_MAX, &text, e);
    if (rc == 0)
        rc = json_parse(text.data, text.len, JSON_LIMITS_FILE, &context, e);
    if (rc == 0)
        rc = spec_from_json(json_get(context, "spec"), &s->spec, e);
    cJSON_Delete(context);
    buf_free(&text);
    return rc != 0 ? err_wrap(e, "context of the session") : 0;
}

/* What the coordinator says must fit what the artefacts hold. */
static int open_check(const struct session *s, struct err *e)
{
    const struct control *o = s->open;
    uint32_t chunks = (uint32_t)((o->params + o->chunk_elems - 1) / o->chunk_elems);
    uint32_t at = 0;

    if (o->params != s->model.layout.count)
        return err_set(e, ERR_INVALID,
                       "the session has %" PRIu64 " parameters, its initial model %zu", o->params,
                       s->model.layout.count);
    for (uint32_t i = 0; i < o->hosts_n; i++) {
        if (o->host[i].chunk_begin != at || o->host[i].chunk_end <= at)
            return err_set(e, ERR_INVALID,
                           "hosts must have all chunks in order; host %u begins at %u, not %u", i,
                           o->host[i].chunk_begin, at);
        at = o->host[i].chunk_end;
    }
    if (at != chunks)
        return err_set(e, ERR_INVALID, "hosts have %u of %u chunks", at, chunks);
    return 0;
}

static const struct control_host *host_of(const struct session *s)
{
    for (uint32_t i = 0; i < s->open->hosts_n; i++)
        if (strcmp(s->open->host[i].worker, s->env.worker) == 0)
            return &s->open->host[i];
    return NULL;
}

/* The initial model's parameters are needed: we host, and there is nothing newer. */
static bool starts_fresh(const struct session *s)
{
    return host_of(s) != NULL && s->open->from_attempt == 0 && s->open->manifest.hex[0] == '\0';
}

static int needs_fetch(struct session *s, struct err *e)
{
    const struct control *o = s->open;
    char path[4096];
    int rc;

    if (o->units == 0 || o->units > TREE_UNITS_MAX || o->chunk_elems == 0 || o->global_batch == 0 ||
        o->steps == 0 || o->params == 0)
        return err_set(e, ERR_INVALID,
                       "a session of %u units, %u samples, %" PRIu64 " steps, %" PRIu64
                       " parameters in chunks of %u",
                       o->units, o->global_batch, o->steps, o->params, o->chunk_elems);
    if ((rc = spec_fetch(s, e)) != 0)
        return rc;
    s->half = strcmp(s->spec->train.wire, "bf16") == 0;
    if (spec_trains_bf16(s->spec) && bf16_how() == BF16_NONE)
        return err_set(e, ERR_UNSUPPORTED, "the session multiplies bfloat16, this worker does not");
    if ((rc = fetch(s, o->init.hex, path, sizeof path, e)) != 0 ||
        (rc = model_load(path, starts_fresh(s) ? MODEL_WEIGHTS : 0, &s->model, e)) != 0)
        return err_wrap(e, "initial model");
    s->has_model = true;
    return open_check(s, e);
}

static int examples_fetch(struct session *s, struct err *e)
{
    const struct control *o = s->open;
    char path[4096];
    int rc;

    if ((rc = fetch(s, o->examples.hex, path, sizeof path, e)) != 0 ||
        (rc = examples_open(path, &s->examples, e)) != 0)
        return err_wrap(e, "training examples");
    if (examples_count(s->examples) == 0)
        return err_set(e, ERR_INVALID, "there are no training examples");
    if (examples_vocab(s->examples) > s->model.dims.vocab)
        return err_set(e, ERR_INVALID, "training examples use %d tokens, the model has %d",
                       examples_vocab(s->examples), s->model.dims.vocab);
    s->task = (struct train_task){
        .dims = &s->model.dims,
        .params = s->model.layout.count,
        .examples = s->examples,
        .drop = {(float)s->spec->condition.drop_each, (float)s->spec->condition.drop_all},
        .seed = o->seed,
        .steps = o->steps,
        .global_batch = o->global_batch,
        .units = o->units,
        .chunk_elems = o->chunk_elems,
        .half = s->half,
        .recompute = s->spec->train.recompute,
        .arithmetic = spec_trains_bf16(s->spec) ? GEMM_BF16 : GEMM_F32};
    return 0;
}

/* ---- hosting --------------------------------------------------------------------------------- */

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
    int rc = ckpt_manifest_fetch(o->manifest.hex, fetch, s, &m, e);

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
        rc = ckpt_read_chunk(&m, i, fetch, s, part, part + n, part + 2 * n, e);
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

static int region_make(struct session *s, struct err *e)
{
    s->shared = s->open->hosts_n > 1 || host_of(s) == NULL;
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < s->open->slots_n; i++)
        s->shared = s->shared || strcmp(s->open->slot[i].worker, s->env.worker) != 0;
    pthread_mutex_unlock(&s->lock);
    return region_new((size_t)s->open->params * sizeof(float), s->shared, &s->region, e);
}

static int hosting_start(struct session *s, struct err *e)
{
    const struct control *o = s->open;
    const struct train_spec *t = &s->spec->train;
    const struct control_host *mine = host_of(s);
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
    ps->plan =
        (struct host_plan){.layout = &s->model.layout,
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
                           .place = (float *)region_data(s->region) +
                                    (size_t)mine->chunk_begin * o->chunk_elems,
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

/* ---- computing ------------------------------------------------------------------------------- */

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
    return run_train_part(span, m->index, s->env.threads);
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

static int client_make(struct member *m, struct err *e)
{
    struct ps_client_plan plan;

    client_plan(m->s, &plan);
    plan.near = ps_view_near(m->s->view);
    return ps_client_new(&plan, &m->client, e);
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
    cores_pin(m->s->env.cores, m->index);
    rc = client_make(m, &e);
    if (rc == 0)
        rc = run_train(&m->s->task, m->s->open->version, &env, &e);
    if (rc != 0 && rc != ERR_CANCELLED)
        session_fail(m->s, rc, &e);
    ps_client_free(m->client);
    for (size_t i = 0; i < m->buffers; i++)
        region_release(m->buffer[i]);
    free(m->buffer);
    atomic_store(&m->s->over[m->index], true);
    return NULL;
}

static int compute_run(struct session *s, struct err *e)
{
    struct member *member;
    struct ps_client_plan plan;
    int rc;

    client_plan(s, &plan);
    plan.view = s->region;
    rc = ps_view_new(&plan, &s->view, e);
    if (rc != 0)
        return rc;
    member = mem_zalloc(s->env.threads, sizeof *member);
    atomic_store(&s->computing, true);
    for (uint32_t i = 0; i < s->env.threads; i++) {
        member[i].s = s;
        member[i].index = i;
        CHECK(pthread_create(&member[i].thread, NULL, member_main, &member[i]) == 0);
    }
    for (uint32_t i = 0; i < s->env.threads; i++)
        pthread_join(member[i].thread, NULL);
    atomic_store(&s->computing, false);
    ps_view_free(s->view);
    free(member);
    return 0;
}

/* ---- the session's thread -------------------------------------------------------------------- */

static void *session_main(void *self)
{
    struct session *s = self;
    struct err e = {0};
    int rc = needs_fetch(s, &e);

    if (rc == 0)
        rc = region_make(s, &e);
    if (rc == 0)
        rc = hosting_start(s, &e);
    if (rc == 0) {
        free(s->model.params); /* from here on parameters are the hosts' business */
        s->model.params = NULL;
    }
    if (rc == 0 && s->env.threads > 0)
        rc = examples_fetch(s, &e);
    if (rc == 0 && s->env.threads > 0)
        rc = compute_run(s, &e);
    if (rc != 0)
        session_fail(s, rc, &e);
    if (s->examples != NULL)
        examples_close(s->examples);
    pthread_mutex_lock(&s->lock);
    while (!atomic_load(&s->closed))
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    if (s->env.host != NULL && s->keep == 0)
        ps_host_close(s->env.host, s->open->session, s->open->session_attempt);
    else if (s->env.host != NULL && s->keep != s->open->session_attempt)
        ps_host_drop(s->env.host, s->open->session, s->open->session_attempt);
    session_unref(s);
    return NULL;
}

struct session *session_open(const struct session_env *env, const struct control *open)
{
    struct session *s = mem_zalloc(1, sizeof *s);
    pthread_t thread;

    atomic_fetch_add(&sessions_alive, 1);
    s->env = *env;
    s->open = control_copy(open);
    atomic_init(&s->refs, 2);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    s->progress = mem_zalloc(env->threads, sizeof *s->progress);
    s->pulse = mem_zalloc(env->threads, sizeof *s->pulse);
    s->over = mem_zalloc(env->threads, sizeof *s->over);
    CHECK(pthread_create(&thread, NULL, session_main, s) == 0);
    pthread_detach(thread);
    return s;
}

void session_assign(struct session *s, const struct control *assign)
{
    pthread_mutex_lock(&s->lock);
    if (assign->assignment > s->open->assignment) {
        s->open->assignment = assign->assignment;
        s->open->slots_n = assign->slots_n;
        memcpy(s->open->slot, assign->slot, assign->slots_n * sizeof *assign->slot);
        atomic_fetch_add(&s->assignments, 1);
    }
    pthread_mutex_unlock(&s->lock);
}

void session_close(struct session *s, uint64_t keep)
{
    if (s == NULL)
        return;
    pthread_mutex_lock(&s->lock);
    s->keep = keep;
    atomic_store(&s->closed, true);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    session_unref(s);
}

void session_pulse(struct session *s, struct pulse *pulse)
{
    for (uint32_t i = 0; s != NULL && i < s->env.threads; i++)
        pulse_thread_take(pulse, &s->pulse[i], &s->progress[i],
                          !atomic_load(&s->computing) || atomic_load(&s->over[i]));
}

bool session_wait_all(uint64_t deadline_ms)
{
    uint64_t end = clock_ms() + deadline_ms;

    while (atomic_load(&sessions_alive) > 0 && clock_ms() < end)
        clock_sleep_ms(5);
    return atomic_load(&sessions_alive) == 0;
}

/* ---- reports --------------------------------------------------------------------------------- */

static char *figures_text(const struct ps_report *r)
{
    cJSON *o = cJSON_CreateObject();
    struct buf text = BUF_INIT;

    cJSON_AddNumberToObject(o, "final_loss",
                            r->figures.tail_steps > 0
                                ? r->figures.tail_loss / (double)r->figures.tail_steps
                                : r->figures.loss);
    cJSON_AddNumberToObject(o, "steps", (double)r->version);
    cJSON_AddNumberToObject(o, "tokens", (double)r->figures.tokens);
    cJSON_AddNumberToObject(o, "tokens_per_s", r->tokens_per_s);
    json_canonical(o, &text);
    cJSON_Delete(o);
    return buf_take(&text);
}

static enum control_type report_type(const struct ps_report *r)
{
    switch (r->type) {
    case PS_STATUS:
        return CONTROL_SESSION_STATUS;
    case PS_FAILED:
        return CONTROL_SESSION_FAILED;
    case PS_FROZEN:
        return CONTROL_SESSION_FROZEN;
    case PS_OPINION:
        return CONTROL_SESSION_OPINION;
    case PS_CHECKPOINT:
        break;
    }
    return r->last ? CONTROL_SESSION_DONE : CONTROL_SESSION_CHECKPOINT;
}

static void opinion_fill(const struct ps_report *r, struct control *m)
{
    const struct opinion *op = &r->opinion;

    m->step = r->step;
    m->level = op->node.level;
    m->node = op->node.index;
    m->chunk = op->chunk;
    m->settled = op->state == OPINION_SETTLED;
    m->tainted = op->tainted;
    m->odd = op->odd;
    m->opinions_n = op->voices_n;
    for (uint32_t i = 0; i < op->voices_n; i++)
        m->opinion[i] = (struct control_opinion){op->voice[i].who, op->voice[i].hash};
}

struct control *session_report(const struct ps_report *r)
{
    struct control *m = control_new(report_type(r));

    m->job = r->job;
    m->session = r->session;
    m->session_attempt = r->attempt;
    m->version = r->version;
    m->manifest = r->manifest;
    m->loss = r->figures.loss;
    m->grad_norm = r->figures.grad_norm;
    m->lr = (double)r->lr;
    m->tokens = r->figures.tokens;
    m->tokens_per_s = r->tokens_per_s;
    m->partial = r->partial;
    m->open_ms = r->open_ms;
    m->damaged = r->damaged;
    m->missing_n = r->missing_n;
    for (uint32_t i = 0; i < r->missing_n; i++)
        m->missing[i] = (struct control_span){r->missing[i].begin, r->missing[i].end};
    if (m->share != NULL) {
        m->shares_n = r->shares_n;
        memcpy(m->share, r->share, r->shares_n * sizeof r->share[0]);
    }
    m->audited = r->audited;
    m->duplicates = r->duplicates;
    m->stale = r->stale;
    m->code = r->code;
    snprintf(m->text, sizeof m->text, "%s", r->text);
    if (r->type == PS_CHECKPOINT)
        m->result = figures_text(r);
    if (r->type == PS_OPINION)
        opinion_fill(r, m);
    if (r->type == PS_FROZEN) {
        m->tail_loss = r->figures.tail_loss;
        m->tail_steps = r->figures.tail_steps;
        m->roots = r->roots;
        m->close_step = r->close.step;
        m->scale = r->close.scale;
        m->rate = r->close.lr;
    }
    return m;
}
