/*
 * The gradient is a made-up function of (parameters, unit, step); the expected result comes from a
 * straight loop that shares nothing with the code under test but adamw_step(), schedule_lr() and
 * clip_scale().
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "worker/ps_client.h"
#include "worker/ps_state.h"

#include "tests/unit/worker/session_cluster.h"

static const struct dims tiny = {.vocab = 23,
                                 .width = 8,
                                 .layers = 2,
                                 .heads = 2,
                                 .kv_heads = 1,
                                 .head_dim = 4,
                                 .ffn = 12,
                                 .context = 16,
                                 .norm_eps = 1e-5f,
                                 .rope_theta = 10000,
                                 .tied = true,
                                 .head = HEAD_LM};
struct layout layout;

int cluster_main(const struct CMUnitTest *tests, size_t n)
{
    int rc;

    layout_init(&layout, &tiny);
    rc = _cmocka_run_group_tests("tests", tests, n, NULL, NULL);
    layout_fini(&layout);
    return rc;
}

/* ---- the made-up problem --------------------------------------------------------------------- */

static void unit_gradient(const float *params, uint64_t step, uint32_t unit, float *grad,
                          struct fold_sums *sums)
{
    for (size_t i = 0; i < layout.count; i++) {
        uint32_t h = (uint32_t)(i * 2654435761u) ^ (unit * 40503u) ^ (uint32_t)step * 69069u;
        grad[i] = params[i] * 0.3f + ((float)(h % 1000) - 499.5f) * 1e-3f * (float)(unit + 1);
    }
    *sums = (struct fold_sums){1.0 / (unit + 3) + (double)params[0], unit + 1, unit + 5};
}

static void initial(float *params)
{
    for (size_t i = 0; i < layout.count; i++)
        params[i] = sinf((float)i);
}

/* Sum along the canonical tree, by recursion from the top. */
static void node_gradient(const float *params, uint64_t step, struct tree_node node, float *grad,
                          struct fold_sums *sums)
{
    if (node.level == 0) {
        unit_gradient(params, step, node.index, grad, sums);
        return;
    }
    node_gradient(params, step, (struct tree_node){node.level - 1, 2 * node.index}, grad, sums);
    if (tree_has_right(UNITS, node)) {
        float *right = malloc(layout.count * sizeof *right);
        struct fold_sums more;
        node_gradient(params, step, (struct tree_node){node.level - 1, 2 * node.index + 1}, right,
                      &more);
        for (size_t i = 0; i < layout.count; i++)
            grad[i] = grad[i] + right[i];
        sums->loss += more.loss;
        sums->weight += more.weight;
        sums->tokens += more.tokens;
        free(right);
    }
}

static double chunk_tree(const double *sumsq, uint32_t n, uint32_t level, uint32_t index)
{
    double left;

    if (level == 0)
        return sumsq[index];
    left = chunk_tree(sumsq, n, level - 1, 2 * index);
    return ((2 * index + 1) << (level - 1)) < n
               ? left + chunk_tree(sumsq, n, level - 1, 2 * index + 1)
               : left;
}

static struct host_plan plan_of(void)
{
    return (struct host_plan){.layout = &layout,
                              .units = UNITS,
                              .chunks = (uint32_t)((layout.count + CHUNK - 1) / CHUNK),
                              .chunk_elems = CHUNK,
                              .steps = STEPS,
                              .checkpoint_every = 5,
                              .lr = 0.05,
                              .clip = 1.0,
                              .adamw = {0.9f, 0.98f, 1e-8f, 0.01f},
                              .schedule = {SCHEDULE_COSINE, 3, 0.1}};
}

static void expected(float *p, double *loss)
{
    struct host_plan plan = plan_of();
    float *m = calloc(layout.count, sizeof *m);
    float *v = calloc(layout.count, sizeof *v);
    float *g = calloc(layout.count, sizeof *g);
    double *sumsq = calloc(plan.chunks, sizeof *sumsq);

    initial(p);
    for (uint64_t step = 0; step < STEPS; step++) {
        struct fold_sums sums;
        double norm;
        node_gradient(p, step, (struct tree_node){tree_height(UNITS), 0}, g, &sums);
        for (uint32_t c = 0; c < plan.chunks; c++) {
            size_t at = (size_t)c * CHUNK;
            sumsq[c] = sum_squares(g + at, layout.count - at < CHUNK ? layout.count - at : CHUNK);
        }
        norm = sqrt(chunk_tree(sumsq, plan.chunks, tree_height(plan.chunks), 0)) / sums.weight;
        *loss = sums.loss / sums.weight;
        adamw_step(&plan.adamw, &layout, 0, layout.count, p, m, v, g,
                   (float)(clip_scale(norm, plan.clip) / sums.weight),
                   (float)schedule_lr(&plan.schedule, plan.lr, step + 1, STEPS), step + 1);
    }
    free(m);
    free(v);
    free(g);
    free(sumsq);
}

/* ---- a cluster in one process ---------------------------------------------------------------- */

static int cluster_publish(void *self, const void *bytes, size_t len, struct digest *out,
                           struct err *e)
{
    const struct place *place = self;
    struct cluster *c = place->c;

    (void)e;
    digest_bytes(bytes, len, out);
    pthread_mutex_lock(&c->lock);
    assert_true(c->stored < STORE_MAX);
    c->store[c->stored].digest = *out;
    c->store[c->stored].bytes = malloc(len);
    memcpy(c->store[c->stored].bytes, bytes, len);
    c->store[c->stored++].len = len;
    pthread_mutex_unlock(&c->lock);
    return 0;
}

/* ckpt_fetch: writes the blob to a file, as a real cache would have it. */
static int cluster_fetch(void *self, const char *digest, char *path, size_t cap, struct err *e)
{
    struct cluster *c = self;

    for (int i = 0; i < c->stored; i++) {
        FILE *f;
        if (strcmp(c->store[i].digest.hex, digest) != 0)
            continue;
        snprintf(path, cap, "/tmp/test_session.%d.blob", (int)getpid());
        f = fopen(path, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(c->store[i].bytes, 1, c->store[i].len, f), c->store[i].len);
        fclose(f);
        return 0;
    }
    return err_set(e, ERR_NOT_FOUND, "no blob %.12s", digest);
}

static void cluster_report(void *self, const struct ps_report *r)
{
    const struct place *place = self;
    struct cluster *c = place->c;

    pthread_mutex_lock(&c->lock);
    if (r->type == PS_CHECKPOINT && r->last) {
        c->last_manifest = r->manifest;
        c->figures = r->figures;
    } else if (r->type == PS_CHECKPOINT && r->version == 5) {
        c->early_manifest = r->manifest;
    } else if (r->type == PS_FAILED) {
        c->failed_code = r->code;
        strcpy(c->failed_text, r->text);
    } else if (r->type == PS_FROZEN && r->attempt == c->attempt) {
        c->frozen[place->index] = *r;
    }
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void session_released(void *self, struct ps_session *s)
{
    struct cluster *c = self;

    atomic_fetch_sub(&c->open_sessions, 1);
    free(s);
}

static void chunk_range(int host, int hosts, uint32_t chunks, uint32_t *begin, uint32_t *end)
{
    *begin = chunks * (uint32_t)host / (uint32_t)hosts;
    *end = chunks * (uint32_t)(host + 1) / (uint32_t)hosts;
}

/* The shard of this session that a chunk belongs to. */
static struct shard *shard_of(struct ps_session *s, uint32_t chunk, uint32_t *at)
{
    *at = chunk - s->plan.chunk_begin;
    if (chunk >= s->plan.chunk_begin && chunk < s->plan.chunk_end)
        return host_shard(s->host);
    *at = chunk - s->plan.copy_begin;
    if (s->plan.replicate && chunk >= s->plan.copy_begin && chunk < s->plan.copy_end)
        return host_copy(s->host);
    return NULL;
}

static struct region *region_of(void)
{
    struct region *r;
    struct err e;

    assert_int_equal(region_new(layout.count * sizeof(float), true, &r, &e), 0);
    return r;
}

/* Shows its parameters to who is near, and has helpers, if the place has. */
static void place_give(struct ps_session *s, struct ps_host *host)
{
    s->region = region_of();
    s->plan.place = (float *)region_data(s->region) + (size_t)s->plan.chunk_begin * CHUNK;
    s->plan.begins = ps_session_begins;
    s->plan.begins_self = s;
    s->plan.spread = ps_host_spread(host);
}

static struct ps_session *session_of(struct cluster *c, int i)
{
    struct ps_session *s = calloc(1, sizeof *s);
    int hosts = c->hosts;

    *s = (struct ps_session){.job = 1,
                             .session = 9,
                             .attempt = c->attempt,
                             .plan = plan_of(),
                             .units = UNITS,
                             .global_batch = UNITS,
                             .seed = 1,
                             .released = session_released,
                             .self = c};
    chunk_range(i, hosts, s->plan.chunks, &s->plan.chunk_begin, &s->plan.chunk_end);
    if (i > 0)
        strcpy(s->leader, c->endpoint[c->order[0]]);
    if (c->replicate && hosts > 1) {
        s->plan.replicate = true;
        chunk_range((i + hosts - 1) % hosts, hosts, s->plan.chunks, &s->plan.copy_begin,
                    &s->plan.copy_end);
        strcpy(s->buddy, c->endpoint[c->order[(i + 1) % hosts]]);
    }
    if (!c->no_regions)
        place_give(s, c->host[c->order[i]]);
    atomic_fetch_add(&c->open_sessions, 1);
    return s;
}

void cluster_open(struct cluster *c, int i, const struct digest *from)
{
    struct ps_session *s = session_of(c, i);
    float *params = malloc(layout.count * sizeof *params);
    struct ckpt_manifest manifest = {0};
    struct err e;

    initial(params);
    if (from != NULL)
        assert_int_equal(ckpt_manifest_fetch(from->hex, cluster_fetch, c, &manifest, &e), 0);
    s->host = host_new(&s->plan, NULL, manifest.step, from != NULL ? &manifest.figures : NULL);
    for (uint32_t k = 0; k < s->plan.chunks; k++) {
        float p[CHUNK], m[CHUNK], v[CHUNK];
        uint32_t at;
        struct shard *shard = shard_of(s, k, &at);
        if (shard == NULL)
            continue;
        if (from != NULL)
            assert_int_equal(ckpt_read_chunk(&manifest, k, cluster_fetch, c, p, m, v, &e), 0);
        shard_set(shard, at, from != NULL ? p : params + (size_t)k * CHUNK, from != NULL ? m : NULL,
                  from != NULL ? v : NULL);
    }
    ckpt_manifest_fini(&manifest);
    free(params);
    if (s->region != NULL)
        region_stamp(s->region, host_version(s->host));
    ps_host_open(c->host[c->order[i]], s);
}

/* ---- handover -------------------------------------------------------------------------------- */

static bool never(void *self)
{
    (void)self;
    return false;
}

static void put(void *self, uint32_t chunk, const float *p, const float *m, const float *v)
{
    struct ps_session *s = self;
    uint32_t at;
    struct shard *shard = shard_of(s, chunk, &at);

    shard_set(shard, at, p, m, v);
}

static void freeze_ask(struct cluster *c, bool edge)
{
    for (int i = 0; i < c->hosts && (i == 0 || !edge); i++)
        if (c->host[c->order[i]] != NULL)
            ps_host_freeze(c->host[c->order[i]], 9, c->attempt, edge);
}

static bool all_are_frozen(const struct cluster *c)
{
    for (int i = 0; i < c->hosts; i++)
        if (c->host[c->order[i]] != NULL && c->frozen[c->order[i]].attempt != c->attempt)
            return false;
    return true;
}

/* False: not within `ms`. */
static bool frozen_wait(struct cluster *c, int ms)
{
    uint64_t until = clock_ns() + (uint64_t)ms * 1000000;
    bool all;

    pthread_mutex_lock(&c->lock);
    while (!(all = all_are_frozen(c)) && clock_ns() < until) {
        pthread_mutex_unlock(&c->lock);
        clock_sleep_ms(1);
        pthread_mutex_lock(&c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    return all;
}

/* As the coordinator does: a leader that has no step to close any more (the last one is applied)
 * stands still alone, so after a while all are asked. */
void cluster_freeze(struct cluster *c, bool edge)
{
    freeze_ask(c, edge);
    if (edge && !frozen_wait(c, 1000))
        freeze_ask(c, false);
    assert_true(frozen_wait(c, 10000));
}

/* What the coordinator does with what the frozen hosts say. */
static struct ps_state_plan state_plan(struct cluster *c, struct control_source *source)
{
    struct ps_state_plan plan = {.session = 9,
                                 .attempt = c->attempt,
                                 .params = layout.count,
                                 .chunk_elems = CHUNK,
                                 .source = source};
    bool first = true;

    for (int i = 0; i < c->hosts; i++) {
        int place = c->order[i];
        const struct ps_report *r = &c->frozen[place];
        struct control_source *s = &source[plan.sources_n];
        if (c->host[place] == NULL)
            continue;
        *s = (struct control_source){0};
        snprintf(s->worker, sizeof s->worker, "place %d", place);
        strcpy(s->endpoint, c->endpoint[place]);
        chunk_range(i, c->hosts, plan_of().chunks, &s->chunk_begin, &s->chunk_end);
        if (c->replicate && c->hosts > 1)
            chunk_range((i + c->hosts - 1) % c->hosts, c->hosts, plan_of().chunks, &s->copy_begin,
                        &s->copy_end);
        plan.sources_n++;
        if (first || r->version > plan.version) {
            plan.version = r->version;
            plan.close = r->close;
            plan.close.figures = r->figures;
        }
        first = false;
    }
    return plan;
}

int cluster_reopen(struct cluster *c, const int *order, int hosts, struct err *e)
{
    struct control_source source[HOSTS_MAX];
    struct ps_state_plan plan = state_plan(c, source);
    uint64_t from = c->attempt;
    int rc = 0;

    c->attempt++;
    c->hosts = hosts;
    memcpy(c->order, order, (size_t)hosts * sizeof *order);
    for (int i = 0; rc == 0 && i < hosts; i++) {
        struct ps_session *s = session_of(c, i);
        const struct ps_state_take take = {s, never, put};
        bool *need = calloc(s->plan.chunks, sizeof *need);
        uint32_t at;
        s->from_attempt = from;
        s->host = host_new(&s->plan, NULL, plan.version, &plan.close.figures);
        for (uint32_t k = 0; k < s->plan.chunks; k++)
            need[k] = shard_of(s, k, &at) != NULL;
        rc = ps_state_fetch(&plan, need, &take, e);
        free(need);
        if (rc != 0) {
            host_free(s->host);
            region_release(s->region);
            session_released(c, s);
        } else {
            if (s->region != NULL)
                region_stamp(s->region, plan.version);
            ps_host_open(c->host[order[i]], s);
        }
    }
    return rc;
}

void cluster_lose(struct cluster *c, int place)
{
    ps_host_stop(c->host[place]);
    c->host[place] = NULL;
}

int cluster_add(struct cluster *c)
{
    static int started; /* ZeroMQ gives a name back some time after its socket was closed */
    int i = c->places++;
    struct ps_host_env env = {&c->place[i], cluster_publish, cluster_report, (uint32_t)i % 3};
    char inproc[64];
    struct err e;

    assert_true(i < HOSTS_MAX);
    c->place[i] = (struct place){c, i};
    snprintf(inproc, sizeof inproc, "inproc://session-host-%d", started++);
    assert_int_equal(ps_host_start("tcp://127.0.0.1:0", inproc, &env, c->endpoint[i],
                                   sizeof c->endpoint[i], &c->host[i], &e),
                     0);
    if (i % 3 == 2) /* some over shared memory, the others over TCP */
        strcpy(c->endpoint[i], inproc);
    return i;
}

void cluster_start(struct cluster *c, int hosts, int threads)
{
    memset(c, 0, sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    c->hosts = hosts;
    c->threads = threads;
    c->attempt = 1;
    c->poison_step = UINT64_MAX;
    for (int i = 0; i < hosts; i++)
        c->order[i] = cluster_add(c);
}

void cluster_stop(struct cluster *c)
{
    for (int i = 0; i < c->places; i++)
        ps_host_stop(c->host[i]);
    assert_int_equal(c->open_sessions, 0);
    for (int i = 0; i < c->stored; i++)
        free(c->store[i].bytes);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
}

static int keep_waiting(void *self, bool soft, struct err *e)
{
    struct cluster *c = self;

    (void)soft;
    return c->failed_code != 0 || c->halt ? err_set(e, ERR_CANCELLED, "the session is over") : 0;
}

static void step_push(struct thread *t, struct ps_client *client, const float *params,
                      uint64_t step, struct tree_span span, float **grad,
                      const struct ps_client_check *check)
{
    struct tree_node node[TREE_COVER_MAX];
    uint32_t chunks = plan_of().chunks;
    size_t n = tree_cover(UNITS, span, node, TREE_COVER_MAX);
    struct err e;

    for (size_t i = 0; i < n; i++) {
        struct fold_sums sums;
        int rc;
        node_gradient(params, step, node[i], grad[i], &sums);
        if (step == t->c->poison_step && t->index == 0)
            grad[i][CHUNK] = NAN;
        rc = ps_client_push(client, step, node[i], chunks / 2, chunks, grad[i], t->lent[i], NULL,
                            check, &e);
        if (rc == 0)
            rc = ps_client_push(client, step, node[i], 0, chunks / 2, grad[i], t->lent[i], &sums,
                                check, &e);
        if (rc == 0 && t->c->with_duplicates && (step + (uint64_t)t->index) % 3 == 0)
            rc = ps_client_push(client, step, node[i], 0, chunks, grad[i], NULL, &sums, check, &e);
        if (rc != 0 && rc != ERR_CANCELLED)
            t->c->errors++;
    }
}

static uint64_t newest(struct cluster *c)
{
    return atomic_load(&c->version);
}

static void *thread_main(void *self)
{
    struct thread *t = self;
    struct ps_client_plan plan = {.session = 9,
                                  .attempt = t->c->attempt,
                                  .params = layout.count,
                                  .chunk_elems = CHUNK,
                                  .hosts_n = (uint32_t)t->c->hosts};
    const struct ps_client_check check = {t->c, keep_waiting};
    struct ps_client *client;
    struct region *view = region_of();
    float *params = region_data(view);
    float *grad[TREE_COVER_MAX];
    atomic_bool near[WIRE_HOSTS_MAX] = {false};
    uint64_t version;
    struct err e;
    int rc;

    for (int i = 0; i < TREE_COVER_MAX; i++) {
        t->lent[i] = region_of();
        grad[i] = region_data(t->lent[i]);
    }
    /* Some see the memory of their hosts. (A gradient that was lent cannot be pushed again as it was.) */
    if (t->index % 3 != 2 && !t->c->with_duplicates && !t->c->no_regions) {
        plan.view = view;
        plan.near = near;
    }
    for (int i = 0; i < t->c->hosts; i++) {
        strcpy(plan.host[i].endpoint, t->c->endpoint[t->c->order[i]]);
        chunk_range(i, t->c->hosts, plan_of().chunks, &plan.host[i].chunk_begin,
                    &plan.host[i].chunk_end);
    }
    if (ps_client_new(&plan, &client, &e) != 0)
        abort();
    rc = ps_client_pull(client, 0, params, &version, &check, &e);
    while (rc == 0 && version < t->until) {
        uint64_t next;
        struct tree_span span = {(uint32_t)(UNITS * t->index / t->c->threads),
                                 (uint32_t)(UNITS * (t->index + 1) / t->c->threads)};
        if (t->c->with_overlap && span.end < UNITS)
            span.end++; /* somebody else's unit too, as a thief or a rescuer would */
        step_push(t, client, params, version, span, grad, &check);
        rc = ps_client_pull(client, version + 1, params, &next, &check, &e);
        if (rc == 0 && next > newest(t->c))
            atomic_store(&t->c->version, next);
        version = next;
    }
    if (rc == ERR_CORRUPT) { /* nobody else makes its units */
        t->c->damaged++;
        t->c->halt = true;
    } else if (rc != 0 && rc != ERR_CANCELLED) {
        t->c->errors++;
    }
    ps_client_free(client);
    for (int i = 0; i < TREE_COVER_MAX; i++)
        region_release(t->lent[i]);
    region_release(view);
    return NULL;
}

void cluster_threads_start(struct cluster *c, uint64_t until)
{
    c->halt = false;
    for (int i = 0; i < c->threads; i++) {
        c->thread[i] = (struct thread){.c = c, .index = i, .until = until};
        assert_int_equal(pthread_create(&c->thread[i].id, NULL, thread_main, &c->thread[i]), 0);
    }
}

void cluster_threads_join(struct cluster *c, bool halt)
{
    c->halt = halt;
    for (int i = 0; i < c->threads; i++)
        pthread_join(c->thread[i].id, NULL);
    assert_int_equal(c->errors, 0);
}

void cluster_run(struct cluster *c, uint64_t until)
{
    cluster_threads_start(c, until);
    cluster_threads_join(c, false);
}

void cluster_version_wait(struct cluster *c, uint64_t version)
{
    for (int i = 0; i < 5000 && atomic_load(&c->version) < version; i++)
        clock_sleep_ms(1);
    assert_true(atomic_load(&c->version) >= version);
}

void cluster_manifest_wait(struct cluster *c, const struct digest *which)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 5;
    pthread_mutex_lock(&c->lock);
    while (which->hex[0] == '\0' && pthread_cond_timedwait(&c->changed, &c->lock, &until) == 0)
        ;
    assert_string_not_equal(which->hex, "");
    pthread_mutex_unlock(&c->lock);
}

void cluster_check(struct cluster *c)
{
    float *want = malloc(layout.count * sizeof *want);
    float *got = malloc(layout.count * sizeof *got);
    double loss = 0;
    struct err e;

    expected(want, &loss);
    assert_int_equal(
        ckpt_read_params(c->last_manifest.hex, cluster_fetch, c, got, layout.count, &e), 0);
    assert_memory_equal(got, want, layout.count * sizeof *want);
    assert_true(c->figures.loss == loss);
    free(want);
    free(got);
}
