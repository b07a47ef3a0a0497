/* Two parameter hosts, each the other's buddy, without sockets: what must be there before a step is closed, and what a frozen
 * host does not do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ps/host.h"

#define CHUNK 64
#define HOSTS 2

static const struct dims tiny = {.vocab = 23,
                                 .width = 8,
                                 .layers = 1,
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
static uint32_t chunks;

struct pair {
    struct host *host[HOSTS];
    uint32_t cut[HOSTS + 1];
    unsigned events[HOSTS]; /* all that were given since the last reset */
    float value[CHUNK];
};

static int setup(void **state)
{
    struct pair *p = calloc(1, sizeof *p);

    layout_init(&layout, &tiny);
    chunks = (uint32_t)((layout.count + CHUNK - 1) / CHUNK);
    p->cut[1] = chunks / 2;
    p->cut[2] = chunks;
    for (int i = 0; i < HOSTS; i++) {
        struct host_plan plan = {.layout = &layout,
                                 .units = 2,
                                 .chunks = chunks,
                                 .chunk_begin = p->cut[i],
                                 .chunk_end = p->cut[i + 1],
                                 .replicate = true,
                                 .copy_begin = p->cut[1 - i],
                                 .copy_end = p->cut[2 - i],
                                 .chunk_elems = CHUNK,
                                 .steps = 9,
                                 .lr = 0.1,
                                 .clip = 1,
                                 .adamw = {0.9f, 0.95f, 1e-8f, 0.1f},
                                 .schedule = {SCHEDULE_LINEAR, 2, 0.1}};
        p->host[i] = host_new(&plan, NULL, 0, NULL);
    }
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct pair *p = *state;

    for (int i = 0; i < HOSTS; i++)
        host_free(p->host[i]);
    layout_fini(&layout);
    free(p);
    return 0;
}

static size_t len_of(uint32_t chunk)
{
    size_t left = layout.count - (size_t)chunk * CHUNK;

    return left < CHUNK ? left : CHUNK;
}

static const struct fold_sums sums = {3.0, 2.0, 10};

/* The node of the two units, of one chunk; damage is added after the hash was taken. */
static enum host_verdict push(struct pair *p, uint32_t chunk, float damage)
{
    struct host *h = p->host[chunk >= p->cut[1]];
    enum host_verdict verdict = HOST_STALE;
    unsigned events = 0;
    struct err e;
    uint64_t hash;

    for (size_t i = 0; i < CHUNK; i++)
        p->value[i] = (float)(chunk + 1) * 0.01f + (float)i * 0.001f;
    hash = fold_hash(p->value, len_of(chunk), chunk == 0 ? &sums : NULL);
    p->value[1] += damage;
    assert_int_equal(host_push(h, host_version(h), 7, (struct tree_node){1, 0}, chunk, p->value,
                               len_of(chunk), &sums, hash, &verdict, &events, &e),
                     0);
    p->events[chunk >= p->cut[1]] |= events;
    return verdict;
}

static void push_all(struct pair *p)
{
    memset(p->events, 0, sizeof p->events);
    for (uint32_t c = 0; c < chunks; c++)
        assert_int_equal(push(p, c, 0), HOST_ACCEPTED);
}

/* A chunk's root from its owner to the buddy. */
static int replicate(struct pair *p, uint32_t chunk, uint64_t wrong_state, struct err *e)
{
    int owner = chunk >= p->cut[1];
    struct host *h = p->host[owner];
    enum host_verdict verdict = HOST_STALE;
    struct fold_sums s;
    uint64_t hash;
    const float *root = host_root(h, chunk, &s, &hash);
    unsigned events = 0;
    int rc = host_replica(p->host[1 - owner], host_version(h), chunk, root, len_of(chunk), &s, hash,
                          shard_hash(host_shard(h), chunk - p->cut[owner]) + wrong_state, &verdict,
                          &events, e);

    p->events[1 - owner] |= events;
    if (rc == 0)
        assert_int_equal(verdict, HOST_ACCEPTED);
    return rc;
}

static void replicate_all(struct pair *p)
{
    struct err e;

    for (uint32_t c = 0; c < chunks; c++)
        assert_int_equal(replicate(p, c, 0, &e), 0);
}

static void acknowledge(struct pair *p, int owner)
{
    struct err e;
    unsigned events = 0;

    assert_int_equal(host_replica_acked(p->host[owner], host_version(p->host[owner]), p->cut[owner],
                                        p->cut[owner + 1] - p->cut[owner], &events, &e),
                     0);
    p->events[owner] |= events;
}

static int roots_tell(struct pair *p, struct err *e)
{
    unsigned events = 0;
    int rc = host_roots(p->host[0], host_version(p->host[1]), p->cut[1], host_sumsq(p->host[1]),
                        p->cut[2] - p->cut[1], &events, e);

    p->events[0] |= events;
    return rc;
}

static void whole_step(struct pair *p)
{
    struct err e;
    unsigned events = 0;

    push_all(p);
    replicate_all(p);
    acknowledge(p, 0);
    acknowledge(p, 1);
    assert_int_equal(roots_tell(p, &e), 0);
    assert_int_equal(host_apply(p->host[1], host_last(p->host[0]), &events, &e), 0);
}

static void test_a_damaged_push_is_not_folded(void **state)
{
    struct pair *p = *state;

    assert_int_equal(push(p, 1, 0.5f), HOST_CORRUPT);
    assert_int_equal(push(p, 1, 0), HOST_ACCEPTED);
    assert_int_equal(push(p, 1, 0), HOST_DUPLICATE);
    assert_int_equal(push(p, chunks - 1, 1), HOST_CORRUPT);
}

static void test_a_root_counts_when_it_is_at_two_hosts(void **state)
{
    struct pair *p = *state;
    struct err e;

    push_all(p);
    assert_true((p->events[0] & p->events[1] & HOST_REPLICA) != 0);
    assert_int_equal((p->events[0] | p->events[1]) & ~(unsigned)HOST_REPLICA, 0);
    assert_false(host_roots_complete(p->host[1]));
    assert_true(host_replica_due(p->host[1], p->cut[1]));
    replicate_all(p);
    assert_int_equal(roots_tell(p, &e),
                     0); /* too soon on purpose: the leader's own are not acknowledged */
    assert_int_equal(host_version(p->host[0]), 0);
    acknowledge(p, 1);
    assert_true((p->events[1] & HOST_ROOTS) != 0);
    assert_false(host_replica_due(p->host[1], p->cut[1]));
    assert_int_equal(host_version(p->host[0]), 0);
    acknowledge(p, 0);
    assert_true((p->events[0] & HOST_APPLY) != 0);
    assert_int_equal(host_version(p->host[0]), 1);
}

/* The leader is a buddy too: it would close a step whose roots, of the host before it, it does not have. */
static void test_the_leader_waits_for_its_own_copy(void **state)
{
    struct pair *p = *state;
    struct err e;

    push_all(p);
    for (uint32_t c = 0; c + 1 < chunks; c++)
        assert_int_equal(replicate(p, c, 0, &e), 0);
    acknowledge(p, 0);
    assert_int_equal(roots_tell(p, &e), 0);
    assert_int_equal(host_version(p->host[0]), 0);
    assert_int_equal(replicate(p, chunks - 1, 0, &e), 0);
    assert_int_equal(host_version(p->host[0]), 1);
}

static void test_owner_and_copy_stay_equal(void **state)
{
    struct pair *p = *state;
    struct err e;

    for (int step = 0; step < 3; step++) {
        whole_step(p);
        for (uint32_t c = 0; c < chunks; c++) {
            int owner = c >= p->cut[1];

            assert_true(shard_hash(host_shard(p->host[owner]), c - p->cut[owner]) ==
                        shard_hash(host_copy(p->host[1 - owner]), c - p->cut[owner]));
        }
    }
    push_all(p);
    assert_int_equal(replicate(p, 0, 1, &e),
                     ERR_CORRUPT); /* it says something else of what it has */
    assert_non_null(strstr(e.msg, "not equal to its owner's"));
}

static void test_a_frozen_host_changes_nothing(void **state)
{
    struct pair *p = *state;
    struct host_close close;
    unsigned events = 0;
    struct err e;

    whole_step(p);
    close = *host_last(p->host[0]);
    close.step = 1;
    push_all(p);
    replicate_all(p);
    acknowledge(p, 1);
    host_freeze(p->host[0], false);
    host_freeze(p->host[1], false);
    assert_int_equal(push(p, 0, 0), HOST_STALE);
    assert_int_equal(replicate(p, 0, 0, &e), ERR_STALE);
    assert_int_equal(roots_tell(p, &e), ERR_STALE);
    assert_int_equal(host_apply(p->host[1], &close, &events, &e), ERR_STALE);
    assert_int_equal(host_replica_acked(p->host[0], 1, 0, p->cut[1], &events, &e), ERR_STALE);
    assert_int_equal(host_version(p->host[0]), 1);
    assert_int_equal(host_version(p->host[1]), 1);
}

static void test_a_host_that_is_behind_follows_only_with_all_roots(void **state)
{
    struct pair *p = *state;
    uint64_t hash;
    uint32_t at;

    struct host_close close;

    push_all(p);
    replicate_all(p);
    acknowledge(p, 0);
    acknowledge(p, 1);
    host_freeze(p->host[1], false); /* the leader closes the step, this one never hears of it */
    {
        struct err e;
        assert_int_equal(roots_tell(p, &e), 0);
    }
    close = *host_last(p->host[0]);
    assert_int_equal(host_version(p->host[0]), 1);
    assert_int_equal(host_version(p->host[1]), 0);
    assert_null(host_find(p->host[1], 0, 1, &at));
    host_roll(p->host[1], &close);
    assert_int_equal(host_version(p->host[1]), 1);
    hash = shard_hash(host_copy(p->host[0]), 0);
    assert_true(hash == shard_hash(host_shard(p->host[1]), 0));
    assert_non_null(host_find(p->host[1], 0, 1, &at));
    host_roll(p->host[1], &close); /* once */
    assert_int_equal(host_version(p->host[1]), 1);
    close.step = 1; /* of a step of which it has no roots */
    host_roll(p->host[1], &close);
    assert_int_equal(host_version(p->host[1]), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_damaged_push_is_not_folded),
        TEST(test_a_root_counts_when_it_is_at_two_hosts),
        TEST(test_the_leader_waits_for_its_own_copy),
        TEST(test_owner_and_copy_stay_equal),
        TEST(test_a_frozen_host_changes_nothing),
        TEST(test_a_host_that_is_behind_follows_only_with_all_roots),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
