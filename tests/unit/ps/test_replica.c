/*
 * Replication and handover of the pure core: two to five hosts in one process, every order of
 * messages, lost and doubled ones; then any one host is gone, at any point, and those that are left
 * stand still. Somebody must hold every chunk at the newest version, or be able to reach it; what
 * they hold, moments included, must be what a straight loop has at that version; and a next attempt
 * on any number of hosts must end as the loop ends.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/rng.h"
#include "ps/host.h"

#define ELEMS 90
#define CHUNK 16
#define CHUNKS 6
#define STEPS 6
#define HOSTS_MAX 5
#define BAG_MAX 256

static struct tensor tensor = {.name = "w", .rows = ELEMS, .cols = 1, .decay = true};
static struct layout layout = {.count = ELEMS, .tensors = 1, .tensor = &tensor};
static const struct adamw adamw = {0.9f, 0.95f, 1e-8f, 0.1f};
static const struct schedule schedule = {SCHEDULE_LINEAR, 2, 0.1};
static uint64_t seed;
static uint32_t draws, units;

static uint32_t dice(uint32_t n)
{
    return rng_below(seed, RNG_TEST, 2, 0, draws++, n);
}

/* ---- the straight loop ----------------------------------------------------------------------- */

static struct {
    float p[ELEMS], m[ELEMS], v[ELEMS]; /* at a version */
    struct host_figures figures;
} loop[STEPS + 1];

static size_t chunk_len(uint32_t chunk)
{
    return chunk == CHUNKS - 1 ? ELEMS - CHUNK * (CHUNKS - 1) : CHUNK;
}

/* One chunk of a node's gradient at step `step`, by recursion from the top. */
static void node_grad(uint64_t step, struct tree_node node, uint32_t chunk, float *g,
                      struct fold_sums *s)
{
    float right[CHUNK];
    struct fold_sums more;
    size_t n = chunk_len(chunk);

    if (node.level == 0) {
        for (size_t i = 0; i < n; i++)
            g[i] = loop[step].p[chunk * CHUNK + i] * 0.1f +
                   (float)rng_unit(7, RNG_TEST, node.index, (uint32_t)step,
                                   (uint32_t)(chunk * CHUNK + i)) -
                   0.5f;
        *s = (struct fold_sums){1.0 / (node.index + 1), 1, 3};
        return;
    }
    node_grad(step, (struct tree_node){node.level - 1, 2 * node.index}, chunk, g, s);
    if (!tree_has_right(units, node))
        return;
    node_grad(step, (struct tree_node){node.level - 1, 2 * node.index + 1}, chunk, right, &more);
    for (size_t i = 0; i < n; i++)
        g[i] += right[i];
    *s = (struct fold_sums){s->loss + more.loss, s->weight + more.weight, s->tokens + more.tokens};
}

static double root_sumsq(uint64_t step, uint32_t chunk, float *g, struct fold_sums *s)
{
    node_grad(step, (struct tree_node){tree_height(units), 0}, chunk, g, s);
    return sum_squares(g, chunk_len(chunk));
}

static void loop_run(void)
{
    for (int i = 0; i < ELEMS; i++)
        loop[0].p[i] = (float)rng_unit(5, RNG_TEST, 0, 0, (uint32_t)i);
    for (uint64_t step = 0; step < STEPS; step++) {
        float g[ELEMS];
        double sumsq[CHUNKS];
        struct fold_sums sums = {0}, s;
        double norm;
        for (uint32_t c = 0; c < CHUNKS; c++) {
            sumsq[c] = root_sumsq(step, c, g + c * CHUNK, &s);
            if (c == 0)
                sums = s;
        }
        norm = sqrt(((sumsq[0] + sumsq[1]) + (sumsq[2] + sumsq[3])) + (sumsq[4] + sumsq[5])) /
               sums.weight;
        loop[step + 1] = loop[step];
        adamw_step(&adamw, &layout, 0, ELEMS, loop[step + 1].p, loop[step + 1].m, loop[step + 1].v,
                   g, (float)(clip_scale(norm, 0.5) / sums.weight),
                   (float)schedule_lr(&schedule, 0.1, step + 1, STEPS), step + 1);
        loop[step + 1].figures.loss = sums.loss / sums.weight;
        loop[step + 1].figures.grad_norm = norm;
        loop[step + 1].figures.tokens += sums.tokens;
    }
}

/* ---- hosts and what is between them ---------------------------------------------------------- */

enum kind { REPLICA, REPLICA_ACK, ROOTS, APPLY, KINDS };
struct message {
    enum kind kind;
    int to;
    uint64_t step;
    uint32_t chunk;
    struct host_close close;
};
static struct message bag[BAG_MAX];
static int bagged;
static struct host *host[HOSTS_MAX];
static int hosts;
static bool replicate;
static uint64_t delivered[KINDS], rolled;

static uint32_t cut(int i)
{
    return CHUNKS * (uint32_t)i / (uint32_t)hosts;
}

static int owner(uint32_t chunk)
{
    int i = 0;

    while (cut(i + 1) <= chunk)
        i++;
    return i;
}

static struct host_plan plan_of(int i)
{
    int before = (i + hosts - 1) % hosts;

    return (struct host_plan){.layout = &layout,
                              .units = units,
                              .chunks = CHUNKS,
                              .chunk_begin = cut(i),
                              .chunk_end = cut(i + 1),
                              .replicate = replicate && hosts > 1,
                              .copy_begin = cut(before),
                              .copy_end = cut(before + 1),
                              .chunk_elems = CHUNK,
                              .steps = STEPS,
                              .lr = 0.1,
                              .clip = 0.5,
                              .adamw = adamw,
                              .schedule = schedule};
}

static void bag_put(struct message m)
{
    for (uint32_t copies = dice(4) == 0 ? 2 : 1; copies > 0 && bagged < BAG_MAX; copies--)
        bag[bagged++] = m;
}

static void hosts_free(void)
{
    for (int i = 0; i < HOSTS_MAX; i++) {
        host_free(host[i]);
        host[i] = NULL;
    }
    bagged = 0;
}

static void chunks_fill(struct shard *shard, uint32_t begin, uint32_t end, uint64_t version)
{
    for (uint32_t c = begin; shard != NULL && c < end; c++)
        shard_set(shard, c - begin, loop[version].p + c * CHUNK, loop[version].m + c * CHUNK,
                  loop[version].v + c * CHUNK);
}

static void hosts_make(int n, uint64_t version)
{
    hosts = n;
    for (int i = 0; i < n; i++) {
        struct host_plan plan = plan_of(i);
        host[i] = host_new(&plan, NULL, version, &loop[version].figures);
        chunks_fill(host_shard(host[i]), plan.chunk_begin, plan.chunk_end, version);
        chunks_fill(host_copy(host[i]), plan.copy_begin, plan.copy_end, version);
    }
}

static void events_do(int i, unsigned events)
{
    if ((events & HOST_ROOTS) != 0)
        bag_put((struct message){ROOTS, 0, host_version(host[i]), cut(i), {0}});
    if ((events & HOST_APPLY) != 0)
        for (int k = 1; k < hosts; k++)
            bag_put((struct message){APPLY, k, 0, 0, *host_last(host[0])});
}

static void on_replica(const struct message *m, unsigned *events)
{
    float g[CHUNK];
    struct fold_sums sums;
    enum host_verdict verdict = HOST_CORRUPT;
    struct shard *state;
    struct err e = {0};
    int rc;

    root_sumsq(m->step, m->chunk, g, &sums);
    state = shard_new(&layout, 0, ELEMS, CHUNK, loop[m->step].p, m->step);
    rc = host_replica(host[m->to], m->step, m->chunk, g, chunk_len(m->chunk), &sums,
                      fold_hash(g, chunk_len(m->chunk), m->chunk == 0 ? &sums : NULL),
                      shard_hash(state, m->chunk), &verdict, events, &e);
    shard_free(state);
    if (host_is_frozen(host[m->to])) {
        assert_int_equal(rc, ERR_STALE);
        return;
    }
    if (rc != 0)
        fail_msg("seed %llu: %s", (unsigned long long)seed, e.msg);
    assert_true(verdict <= HOST_STALE);
    bag_put((struct message){REPLICA_ACK, owner(m->chunk), m->step, m->chunk, {0}});
}

static void deliver(const struct message *m)
{
    struct host *h = host[m->to];
    unsigned events = 0;
    double sumsq[CHUNKS];
    uint32_t n = 0;
    struct fold_sums sums;
    float g[CHUNK];
    struct err e = {0};

    if (h == NULL)
        return;
    delivered[m->kind]++;
    switch (m->kind) {
    case REPLICA:
        on_replica(m, &events);
        break;
    case REPLICA_ACK:
        host_replica_acked(h, m->step, m->chunk, 1, &events, &e);
        break;
    case ROOTS:
        for (int i = owner(m->chunk); n < cut(i + 1) - cut(i); n++)
            sumsq[n] = root_sumsq(m->step, m->chunk + n, g, &sums);
        if (host_roots(h, m->step, m->chunk, sumsq, n, &events, &e) == ERR_STALE &&
            host_last(h) != NULL && host_last(h)->step == m->step)
            bag_put((struct message){APPLY, owner(m->chunk), 0, 0, *host_last(h)});
        break;
    case APPLY:
        host_apply(h, &m->close, &events, &e);
        break;
    case KINDS:
        break;
    }
    events_do(m->to, events);
}

static uint64_t version_min(void)
{
    uint64_t least = UINT64_MAX;

    for (int i = 0; i < hosts; i++)
        if (host_version(host[i]) < least)
            least = host_version(host[i]);
    return least;
}

/* A worker has every host's chunks of a version before it pushes a step. */
static void push_some(void)
{
    uint64_t step = version_min();
    uint32_t chunk = dice(CHUNKS);
    uint32_t level = dice(tree_height(units) + 1);
    struct tree_node node = {level, dice((units + (1u << level) - 1) >> level)};
    enum host_verdict verdict = HOST_CORRUPT;
    unsigned events = 0;
    struct fold_sums sums;
    float g[CHUNK];
    struct err e = {0};

    if (step == STEPS)
        return;
    node_grad(step, node, chunk, g, &sums);
    assert_int_equal(host_push(host[owner(chunk)], step, 1, node, chunk, g, chunk_len(chunk), &sums,
                               fold_hash(g, chunk_len(chunk), chunk == 0 ? &sums : NULL), &verdict,
                               &events, &e),
                     0);
    assert_true(verdict <= HOST_STALE);
    events_do(owner(chunk), events);
}

/* What shells repeat. */
static void repeat_some(void)
{
    int i = (int)dice((uint32_t)hosts);
    uint32_t chunk = cut(i) + dice(cut(i + 1) - cut(i));

    if (host_replica_due(host[i], chunk))
        bag_put((struct message){REPLICA, (i + 1) % hosts, host_version(host[i]), chunk, {0}});
    if (i > 0 && !host_is_done(host[i]) && host_roots_complete(host[i]))
        bag_put((struct message){ROOTS, 0, host_version(host[i]), cut(i), {0}});
}

static void something_happens(void)
{
    uint32_t what = dice(8);

    if (what < 3) {
        push_some();
    } else if (what == 3) {
        repeat_some();
    } else if (bagged > 0) {
        int k = (int)dice((uint32_t)bagged);
        struct message m = bag[k];
        bag[k] = bag[--bagged];
        if (dice(8) > 0) /* else it is lost */
            deliver(&m);
    }
}

/* ---- the loss -------------------------------------------------------------------------------- */

static void shard_check(struct shard *shard, uint32_t at, uint32_t chunk, uint64_t version)
{
    float parts[3 * CHUNK];
    size_t n = chunk_len(chunk);

    shard_copy(shard, at, parts);
    assert_memory_equal(parts, loop[version].p + chunk * CHUNK, n * sizeof *parts);
    assert_memory_equal(parts + n, loop[version].m + chunk * CHUNK, n * sizeof *parts);
    assert_memory_equal(parts + 2 * n, loop[version].v + chunk * CHUNK, n * sizeof *parts);
}

/* Frozen hosts hear what is still on its way, and nothing comes of it. */
static void freeze_all(void)
{
    uint64_t before[HOSTS_MAX];

    for (int i = 0; i < hosts; i++) {
        if (host[i] != NULL) {
            host_freeze(host[i], false);
            before[i] = host_version(host[i]);
        }
    }
    for (int left = bagged; left > 0; left--) {
        struct message m = bag[left - 1];
        bagged = left - 1; /* what is answered to it is lost */
        deliver(&m);
    }
    bagged = 0;
    for (int i = 0; i < hosts; i++)
        if (host[i] != NULL)
            assert_int_equal(host_version(host[i]), before[i]);
}

static uint64_t newest_check(void)
{
    const struct host_close *close = NULL;
    const struct host_figures *figures = NULL;
    uint64_t newest = 0;

    for (int i = 0; i < hosts; i++) {
        if (host[i] != NULL && (figures == NULL || host_version(host[i]) > newest)) {
            newest = host_version(host[i]);
            close = host_last(host[i]);
            figures = host_figures(host[i]);
        }
    }
    assert_non_null(figures);
    assert_true(figures->loss == loop[newest].figures.loss);
    assert_true(figures->grad_norm == loop[newest].figures.grad_norm);
    assert_int_equal(figures->tokens, loop[newest].figures.tokens);
    for (uint32_t c = 0; c < CHUNKS; c++) {
        int holders = 0;
        for (int i = 0; i < hosts; i++) {
            uint32_t at;
            struct shard *shard;
            if (host[i] == NULL)
                continue;
            if (host_version(host[i]) < newest) {
                assert_non_null(close);
                host_roll(host[i], close);
                rolled++;
            }
            shard = host_find(host[i], c, newest, &at);
            if (shard == NULL)
                continue;
            shard_check(shard, at, c, newest);
            holders++;
        }
        if (holders == 0)
            fail_msg("seed %llu: nobody has chunk %u of version %llu", (unsigned long long)seed, c,
                     (unsigned long long)newest);
    }
    return newest;
}

static int run_seed(void)
{
    int losses = 0;
    uint64_t version = 0;

    draws = 0;
    units = 1 + dice(9);
    memset(loop, 0, sizeof loop);
    loop_run();
    replicate = true;
    hosts_make(2 + (int)dice(HOSTS_MAX - 1), 0);
    while (version < STEPS) {
        uint32_t until = dice(400 * units);
        int lost;
        for (uint32_t i = 0; i < until || (losses == 3 && version_min() < STEPS); i++) {
            if (i > 200000)
                fail_msg("seed %llu hangs", (unsigned long long)seed);
            something_happens();
        }
        lost = (int)dice((uint32_t)hosts);
        if (hosts > 1 && dice(4) > 0) {
            host_free(host[lost]);
            host[lost] = NULL;
        }
        freeze_all();
        version = newest_check();
        losses++;
        hosts_free();
        hosts_make(1 + (int)dice(HOSTS_MAX), version);
    }
    hosts_free();
    return losses;
}

static void test_any_one_host_may_be_lost_at_any_point(void **state)
{
    const char *one = getenv("TEST_SEED");
    int losses = 0;

    (void)state;
    for (seed = one != NULL ? strtoull(one, NULL, 10) : 1; seed <= 400; seed++) {
        losses += run_seed();
        if (one != NULL)
            break;
    }
    if (one == NULL) {
        assert_true(losses > 800);
        for (int k = 0; k < KINDS; k++)
            assert_true(delivered[k] > 1000);
        assert_true(rolled > 10);
    }
}

/* ---- one thing at a time --------------------------------------------------------------------- */

static void two_hosts(void)
{
    seed = 1;
    draws = 0;
    units = 1;
    memset(loop, 0, sizeof loop);
    loop_run();
    replicate = true;
    hosts_make(2, 0);
}

static unsigned push_root(uint32_t chunk)
{
    enum host_verdict verdict = HOST_CORRUPT;
    unsigned events = 0;
    struct fold_sums sums;
    float g[CHUNK];
    struct err e = {0};

    root_sumsq(0, chunk, g, &sums);
    assert_int_equal(host_push(host[owner(chunk)], 0, 1, (struct tree_node){0, 0}, chunk, g,
                               chunk_len(chunk), &sums,
                               fold_hash(g, chunk_len(chunk), chunk == 0 ? &sums : NULL), &verdict,
                               &events, &e),
                     0);
    assert_int_equal(verdict, HOST_ACCEPTED);
    return events;
}

static void test_roots_count_only_when_the_buddy_has_them(void **state)
{
    unsigned events = 0;
    double sumsq[CHUNKS] = {0};
    struct err e = {0};

    (void)state;
    two_hosts();
    for (uint32_t c = 0; c < CHUNKS; c++)
        assert_int_equal(push_root(c), HOST_REPLICA);
    assert_false(host_roots_complete(host[1]));
    assert_true(host_replica_due(host[1], 3));
    assert_int_equal(host_replica_acked(host[1], 0, 3, 2, &events, &e), 0);
    assert_int_equal(events, 0);
    assert_int_equal(host_replica_acked(host[1], 0, 5, 1, &events, &e), 0);
    assert_int_equal(events, HOST_ROOTS);
    assert_int_equal(host_replica_acked(host[1], 0, 5, 1, &events, &e), 0);
    assert_int_equal(events, 0); /* the same again */
    assert_int_equal(host_roots(host[0], 0, 3, sumsq, 3, &events, &e), 0);
    assert_int_equal(events, 0); /* the leader's own are not safe yet */
    assert_int_equal(host_replica_acked(host[0], 0, 0, 3, &events, &e), 0);
    assert_int_equal(events, 0); /* nor are those of which it is the buddy */
    assert_int_equal(host_version(host[0]), 0);
    for (uint32_t c = 3; c < CHUNKS; c++)
        on_replica(&(struct message){REPLICA, 0, 0, c, {0}}, &events);
    assert_int_equal(events & HOST_APPLY, HOST_APPLY);
    assert_int_equal(host_version(host[0]), 1);
    /* an answer of a closed step, and what nobody may say */
    assert_int_equal(host_replica_acked(host[0], 0, 0, 3, &events, &e), ERR_STALE);
    assert_int_equal(host_replica_acked(host[0], 2, 0, 3, &events, &e), ERR_INVALID);
    assert_int_equal(host_replica_acked(host[0], 1, 2, 2, &events, &e), ERR_INVALID);
    assert_int_equal(host_replica_acked(host[0], 1, 0, UINT32_MAX, &events, &e), ERR_INVALID);
    hosts_free();
}

static void test_a_copy_that_differs_is_an_error_and_damage_on_the_way_is_not(void **state)
{
    enum host_verdict verdict = HOST_ACCEPTED;
    unsigned events = 0;
    struct fold_sums sums;
    uint64_t hash, good;
    float g[CHUNK];
    struct err e = {0};

    (void)state;
    two_hosts();
    root_sumsq(0, 0, g, &sums);
    hash = fold_hash(g, CHUNK, &sums);
    good = shard_hash(host_shard(host[0]), 0);
    assert_int_equal(
        host_replica(host[1], 0, 0, g, CHUNK, &sums, hash + 1, good, &verdict, &events, &e), 0);
    assert_int_equal(verdict, HOST_CORRUPT);
    assert_int_equal(
        host_replica(host[1], 0, 0, g, CHUNK, &sums, hash, good + 1, &verdict, &events, &e),
        ERR_CORRUPT);
    assert_non_null(strstr(e.msg, "copy of chunk 0"));
    assert_int_equal(
        host_replica(host[1], 0, 0, g, CHUNK, &sums, hash, good, &verdict, &events, &e), 0);
    assert_int_equal(verdict, HOST_ACCEPTED);
    assert_int_equal(
        host_replica(host[1], 0, 0, g, CHUNK, &sums, hash, good, &verdict, &events, &e), 0);
    assert_int_equal(verdict, HOST_DUPLICATE);
    g[3] += 1;
    assert_int_equal(host_replica(host[1], 0, 0, g, CHUNK, &sums, fold_hash(g, CHUNK, &sums), good,
                                  &verdict, &events, &e),
                     ERR_CORRUPT);
    assert_int_equal(
        host_replica(host[1], 0, 3, g, CHUNK, &sums, hash, good, &verdict, &events, &e),
        ERR_INVALID); /* its own chunk */
    assert_int_equal(
        host_replica(host[1], 0, 0, g, CHUNK - 1, &sums, hash, good, &verdict, &events, &e),
        ERR_INVALID);
    assert_int_equal(
        host_replica(host[1], 1, 0, g, CHUNK, &sums, hash, good, &verdict, &events, &e),
        ERR_INVALID);
    hosts_free();
}

static void test_a_freeze_at_the_edge_waits_for_the_step(void **state)
{
    unsigned events = 0;
    struct err e = {0};

    (void)state;
    two_hosts();
    replicate = false;
    hosts_free();
    hosts_make(1, 0);
    host_freeze(host[0], true);
    assert_false(host_is_frozen(host[0]));
    for (uint32_t c = 0; c < CHUNKS; c++)
        events = push_root(c);
    assert_int_equal(events & (HOST_VERSION | HOST_FROZEN), HOST_VERSION | HOST_FROZEN);
    assert_true(host_is_frozen(host[0]));
    assert_int_equal(host_version(host[0]), 1);
    hosts_free();
    hosts_make(1, STEPS); /* there is no step to wait for */
    host_freeze(host[0], true);
    assert_true(host_is_frozen(host[0]));
    assert_int_equal(host_roots(host[0], STEPS, 0, NULL, 0, &events, &e), ERR_INVALID);
    hosts_free();
}

/* The last thing that a step lacks comes to a host that stands still. */
static void test_a_frozen_host_closes_nothing(void **state)
{
    enum host_verdict verdict = HOST_CORRUPT;
    unsigned events = 0;
    double sumsq[CHUNKS] = {0};
    struct fold_sums sums;
    float g[CHUNK];
    struct err e = {0};

    (void)state;
    two_hosts();
    for (uint32_t c = 0; c < CHUNKS; c++)
        push_root(c);
    for (uint32_t c = 3; c < CHUNKS; c++)
        on_replica(&(struct message){REPLICA, 0, 0, c, {0}}, &events);
    assert_int_equal(host_roots(host[0], 0, 3, sumsq, 3, &events, &e), 0);
    host_freeze(host[0], false);
    assert_int_equal(host_replica_acked(host[0], 0, 0, 3, &events, &e), ERR_STALE);
    assert_int_equal(events, 0);
    assert_int_equal(host_version(host[0]), 0);
    hosts_free();
    hosts_make(1, 0);
    for (uint32_t c = 0; c + 1 < CHUNKS; c++)
        push_root(c);
    host_freeze(host[0], false);
    root_sumsq(0, CHUNKS - 1, g, &sums);
    assert_int_equal(host_push(host[0], 0, 1, (struct tree_node){0, 0}, CHUNKS - 1, g,
                               chunk_len(CHUNKS - 1), &sums,
                               fold_hash(g, chunk_len(CHUNKS - 1), NULL), &verdict, &events, &e),
                     0);
    assert_int_equal(verdict, HOST_STALE);
    assert_int_equal(events, 0);
    assert_int_equal(host_version(host[0]), 0);
    hosts_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_one_host_may_be_lost_at_any_point),
        cmocka_unit_test(test_roots_count_only_when_the_buddy_has_them),
        cmocka_unit_test(test_a_copy_that_differs_is_an_error_and_damage_on_the_way_is_not),
        cmocka_unit_test(test_a_frozen_host_closes_nothing),
        cmocka_unit_test(test_a_freeze_at_the_edge_waits_for_the_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
