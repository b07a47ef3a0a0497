/*
 * Whole training sessions in one process, over real sockets: compute threads x parameter hosts,
 * with and without trouble. The gradient is a made-up function of (parameters, unit, step); the
 * expected result comes from a straight loop that shares nothing with the code under test but
 * adamw_step(), schedule_lr() and clip_scale().
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "ps/ckpt.h"
#include "worker/ps_client.h"
#include "worker/ps_host.h"

#define UNITS 7
#define STEPS 12
#define CHUNK 64
#define HOSTS_MAX 5
#define THREADS_MAX 7

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
static struct layout layout;

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

#define STORE_MAX 4096
struct cluster {
    pthread_mutex_t lock;
    struct {
        struct digest digest;
        void *bytes;
        size_t len;
    } store[STORE_MAX]; /* what was published */
    int stored;
    struct ps_host *host[HOSTS_MAX];
    char endpoint[HOSTS_MAX][WIRE_TEXT_MAX];
    int hosts, threads;
    uint64_t attempt;
    atomic_int open_sessions;
    struct digest last_manifest, early_manifest;
    struct host_figures figures;
    atomic_int failed_code;
    char failed_text[512];
    pthread_cond_t changed;
    bool with_duplicates, with_overlap;
    uint64_t poison_step; /* a thread pushes a NaN at this step */
    atomic_int errors;
};

static int cluster_publish(void *self, const void *bytes, size_t len, struct digest *out,
                           struct err *e)
{
    struct cluster *c = self;

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
    struct cluster *c = self;

    pthread_mutex_lock(&c->lock);
    if (r->type == PS_CHECKPOINT && r->last) {
        c->last_manifest = r->manifest;
        c->figures = r->figures;
    } else if (r->type == PS_CHECKPOINT && r->version == 5) {
        c->early_manifest = r->manifest;
    } else if (r->type == PS_FAILED) {
        c->failed_code = r->code;
        strcpy(c->failed_text, r->text);
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

/* One host's part of a session, from the start or from a checkpoint. */
static void host_open(struct cluster *c, int i, const struct digest *from)
{
    struct ps_session *s = calloc(1, sizeof *s);
    float *params = malloc(layout.count * sizeof *params);
    struct ckpt_manifest manifest = {0};
    struct err e;

    *s = (struct ps_session){.job = 1,
                             .session = 9,
                             .attempt = c->attempt,
                             .plan = plan_of(),
                             .units = UNITS,
                             .global_batch = UNITS,
                             .seed = 1,
                             .released = session_released,
                             .self = c};
    chunk_range(i, c->hosts, s->plan.chunks, &s->plan.chunk_begin, &s->plan.chunk_end);
    if (i > 0)
        strcpy(s->leader, c->endpoint[0]);
    initial(params);
    if (from != NULL) {
        assert_int_equal(ckpt_manifest_fetch(from->hex, cluster_fetch, c, &manifest, &e), 0);
        assert_int_equal(ckpt_read_params(from->hex, cluster_fetch, c, params, layout.count, &e),
                         0);
    }
    s->host = host_new(&s->plan, params + (size_t)s->plan.chunk_begin * CHUNK, manifest.step,
                       from != NULL ? &manifest.figures : NULL);
    for (uint32_t k = s->plan.chunk_begin; from != NULL && k < s->plan.chunk_end; k++) {
        float m[CHUNK], v[CHUNK];
        assert_int_equal(ckpt_read_chunk(&manifest, k, cluster_fetch, c, NULL, m, v, &e), 0);
        shard_set(host_shard(s->host), k - s->plan.chunk_begin, NULL, m, v);
    }
    ckpt_manifest_fini(&manifest);
    free(params);
    atomic_fetch_add(&c->open_sessions, 1);
    ps_host_open(c->host[i], s);
}

static void cluster_start(struct cluster *c, int hosts, int threads)
{
    struct ps_host_env env = {c, cluster_publish, cluster_report};

    memset(c, 0, sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    c->hosts = hosts;
    c->threads = threads;
    c->attempt = 1;
    c->poison_step = UINT64_MAX;
    for (int i = 0; i < hosts; i++) {
        static int started; /* ZeroMQ gives a name back some time after its socket was closed */
        char inproc[64];
        struct err e;
        snprintf(inproc, sizeof inproc, "inproc://session-host-%d", started++);
        assert_int_equal(ps_host_start("tcp://127.0.0.1:0", inproc, &env, c->endpoint[i],
                                       sizeof c->endpoint[i], &c->host[i], &e),
                         0);
        if (i == hosts - 1) /* the last one over shared memory, the others over TCP */
            strcpy(c->endpoint[i], inproc);
    }
}

static void cluster_stop(struct cluster *c)
{
    for (int i = 0; i < c->hosts; i++)
        ps_host_stop(c->host[i]);
    assert_int_equal(c->open_sessions, 0);
    for (int i = 0; i < c->stored; i++)
        free(c->store[i].bytes);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
}

struct thread {
    struct cluster *c;
    int index;
    uint64_t until;
    pthread_t id;
};

static int keep_waiting(void *self, bool soft, struct err *e)
{
    struct cluster *c = self;

    (void)soft;
    return c->failed_code != 0 ? err_set(e, ERR_CANCELLED, "the session failed") : 0;
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
        rc = ps_client_push(client, step, node[i], chunks / 2, chunks, grad[i], NULL, check, &e);
        if (rc == 0)
            rc = ps_client_push(client, step, node[i], 0, chunks / 2, grad[i], &sums, check, &e);
        if (rc == 0 && t->c->with_duplicates && (step + (uint64_t)t->index) % 3 == 0)
            rc = ps_client_push(client, step, node[i], 0, chunks, grad[i], &sums, check, &e);
        if (rc != 0 && rc != ERR_CANCELLED)
            t->c->errors++;
    }
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
    float *params = malloc(layout.count * sizeof *params);
    float *grad[TREE_COVER_MAX];
    uint64_t version;
    struct err e;
    int rc;

    for (int i = 0; i < TREE_COVER_MAX; i++)
        grad[i] = malloc(layout.count * sizeof **grad);
    for (int i = 0; i < t->c->hosts; i++) {
        strcpy(plan.host[i].endpoint, t->c->endpoint[i]);
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
        version = next;
    }
    if (rc != 0 && rc != ERR_CANCELLED)
        t->c->errors++;
    ps_client_free(client);
    for (int i = 0; i < TREE_COVER_MAX; i++)
        free(grad[i]);
    free(params);
    return NULL;
}

static void threads_run(struct cluster *c, uint64_t until)
{
    struct thread thread[THREADS_MAX];

    for (int i = 0; i < c->threads; i++) {
        thread[i] = (struct thread){.c = c, .index = i, .until = until};
        assert_int_equal(pthread_create(&thread[i].id, NULL, thread_main, &thread[i]), 0);
    }
    for (int i = 0; i < c->threads; i++)
        pthread_join(thread[i].id, NULL);
    assert_int_equal(c->errors, 0);
}

static void manifest_wait(struct cluster *c, struct digest *which)
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

static void params_check(struct cluster *c)
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

static char first_manifest[DIGEST_HEX + 1];

static void run_case(int hosts, int threads, bool duplicates, bool overlap)
{
    struct cluster c;

    cluster_start(&c, hosts, threads);
    c.with_duplicates = duplicates;
    c.with_overlap = overlap;
    for (int i = hosts - 1; i >= 0; i--)
        host_open(&c, i, NULL);
    threads_run(&c, STEPS);
    manifest_wait(&c, &c.last_manifest);
    params_check(&c);
    if (first_manifest[0] == '\0')
        strcpy(first_manifest, c.last_manifest.hex);
    assert_string_equal(c.last_manifest.hex, first_manifest);
    cluster_stop(&c);
}

static void test_any_threads_and_hosts_give_the_bits_of_the_straight_loop(void **state)
{
    static const int hosts[] = {1, 2, 3, 5};
    static const int threads[] = {1, 2, 3, 5, 7};

    (void)state;
    for (size_t h = 0; h < sizeof hosts / sizeof hosts[0]; h++)
        for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++)
            run_case(hosts[h], threads[t], false, false);
}

static void test_duplicates_and_overlaps_change_nothing(void **state)
{
    (void)state;
    run_case(2, 3, true, false);
    run_case(2, 3, false, true);
    run_case(3, 5, true, true);
}

/* All hosts die after a few steps; another number of hosts goes on from the checkpoint of
 * version 5. */
static void test_a_checkpoint_goes_on_elsewhere_with_the_same_bits(void **state)
{
    struct cluster c;
    struct digest early;

    (void)state;
    cluster_start(&c, 2, 2);
    host_open(&c, 0, NULL);
    host_open(&c, 1, NULL);
    threads_run(&c, 7);
    manifest_wait(&c, &c.early_manifest);
    early = c.early_manifest;
    c.attempt = 2;
    host_open(&c, 0, &early); /* replaces attempt 1 */
    host_open(&c, 1, &early);
    c.threads = 3;
    threads_run(&c, STEPS);
    manifest_wait(&c, &c.last_manifest);
    params_check(&c);
    assert_string_equal(c.last_manifest.hex, first_manifest);
    cluster_stop(&c);
}

/* A host that appears late, and threads that arrive before any host does, find each other. */
static void test_late_hosts_are_waited_for(void **state)
{
    struct cluster c;
    struct thread thread = {.c = &c, .index = 0, .until = 2};

    (void)state;
    cluster_start(&c, 2, 1);
    assert_int_equal(pthread_create(&thread.id, NULL, thread_main, &thread), 0);
    clock_sleep_ms(50);
    host_open(&c, 1, NULL);
    clock_sleep_ms(50);
    host_open(&c, 0, NULL);
    pthread_join(thread.id, NULL);
    assert_int_equal(c.errors, 0);
    cluster_stop(&c);
}

static void test_a_gradient_that_is_not_finite_ends_the_session_by_name(void **state)
{
    struct cluster c;

    (void)state;
    cluster_start(&c, 2, 2);
    c.poison_step = 3;
    host_open(&c, 0, NULL);
    host_open(&c, 1, NULL);
    threads_run(&c, STEPS);
    assert_int_equal(c.failed_code, ERR_NUMERIC);
    assert_non_null(strstr(c.failed_text, "step 4"));
    cluster_stop(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_threads_and_hosts_give_the_bits_of_the_straight_loop),
        cmocka_unit_test(test_duplicates_and_overlaps_change_nothing),
        cmocka_unit_test(test_a_checkpoint_goes_on_elsewhere_with_the_same_bits),
        cmocka_unit_test(test_late_hosts_are_waited_for),
        cmocka_unit_test(test_a_gradient_that_is_not_finite_ends_the_session_by_name),
    };
    int rc;

    layout_init(&layout, &tiny);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    layout_fini(&layout);
    return rc;
}
