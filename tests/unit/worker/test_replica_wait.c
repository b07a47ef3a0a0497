/* How long a host waits for its buddy's acknowledgement before it sends roots again: by what the link has shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "worker/ps_host_inner.h"

#define CHUNK 64

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
static struct ps_session session;
static struct ps_host host;
static struct hosted *x;

static int setup(void **state)
{
    static char leader; /* somebody else is it */

    (void)state;
    layout_init(&layout, &tiny);
    session = (struct ps_session){
        .plan = {.layout = &layout, .units = 1, .chunk_elems = CHUNK, .steps = 9}};
    session.plan.chunks = session.plan.chunk_end = (uint32_t)((layout.count + CHUNK - 1) / CHUNK);
    session.host = host_new(&session.plan, NULL, 0, NULL);
    x = mem_zalloc(1, sizeof *x);
    x->s = &session;
    x->leader = &leader;
    x->replica_ms = mem_zalloc(session.plan.chunks, sizeof *x->replica_ms);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    host_free(session.host);
    free(x->replica_ms);
    free(x);
    layout_fini(&layout);
    return 0;
}

static void acknowledged_after(uint64_t ms)
{
    const struct params_head h = {.type = PARAMS_REPLICA_ACK, .count = 1};

    x->replica_ms[0] = clock_ms() - ms;
    hosted_replica_ack(&host, x, &h);
}

static void test_a_slow_link_is_given_twice_what_it_has_shown(void **state)
{
    (void)state;
    acknowledged_after(1500);
    assert_in_range(x->replica_wait_ms, 3000, 3900);
    acknowledged_after(500); /* the quick one does not make up for the slow one */
    assert_in_range(x->replica_wait_ms, 3000, 3900);
    acknowledged_after(60000);
    assert_int_equal(x->replica_wait_ms, 8000);
}

/* A loss looks like a slow link, once. */
static void test_each_version_takes_back_a_part_of_it(void **state)
{
    (void)state;
    x->replica_wait_ms = 8000;
    hosted_events(&host, x, HOST_VERSION);
    assert_int_equal(x->replica_wait_ms, 7000);
    for (int i = 0; i < 20; i++)
        hosted_events(&host, x, HOST_VERSION);
    assert_true(x->replica_wait_ms < 1000);
    acknowledged_after(1500); /* unless the link shows it again */
    hosted_events(&host, x, HOST_VERSION);
    assert_true(x->replica_wait_ms > 2500);
}

static void test_an_acknowledgement_of_nothing_sent_shows_nothing(void **state)
{
    const struct params_head h = {.type = PARAMS_REPLICA_ACK, .count = 1};

    (void)state;
    acknowledged_after(1500);
    hosted_events(&host, x, HOST_VERSION);
    x->replica_wait_ms = 0;
    hosted_replica_ack(&host, x, &h);
    assert_int_equal(x->replica_wait_ms, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_a_slow_link_is_given_twice_what_it_has_shown),
        T(test_each_version_takes_back_a_part_of_it),
        T(test_an_acknowledgement_of_nothing_sent_shows_nothing),
    };
    return cmocka_run_group_tests_name("replica_wait", tests, NULL, NULL);
}
