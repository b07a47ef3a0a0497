/* What a client says to a host, seen by a host that answers as a bad wire would have it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "net/link.h"
#include "ps/host.h"
#include "wire/params.h"
#include "worker/ps_client.h"
#include "worker/ps_patience.h"

#define CHUNK 8
#define PARAMS (2 * CHUNK)

static void *host;
static struct ps_client *client;
static struct link_peer peer;
static float params[PARAMS];
static struct err err;

static int setup(void **state)
{
    struct ps_client_plan plan = {
        .session = 9, .attempt = 1, .params = PARAMS, .chunk_elems = CHUNK, .hosts_n = 1};

    static int n;

    (void)state;
    snprintf(plan.host[0].endpoint, sizeof plan.host[0].endpoint, "inproc://test_ps_client.%d",
             n++); /* a name is free only some time after its socket was closed */
    plan.host[0].chunk_end = 2;
    memset(params, 0, sizeof params);
    host = link_router(LINK_DATA, plan.host[0].endpoint, NULL, 0, &err);
    return host == NULL || ps_client_new(&plan, &client, &err) != 0;
}

static int teardown(void **state)
{
    (void)state;
    ps_client_free(client);
    link_close(host);
    return 0;
}

/* The next question of the client, who goes on pulling this version for at most ms; type 0: there was none. */
static struct params_head question(uint64_t version, uint64_t ms)
{
    uint64_t end = clock_ms() + ms;
    struct params_head h = {0};

    while (clock_ms() < end && h.type == 0) {
        struct link_frame frames[LINK_FRAMES_MAX];
        int n = 0;
        assert_int_equal(ps_client_pump(client, version, params, 5, &err), 0);
        assert_int_equal(link_recv(host, &peer, frames, &n, &err), 0);
        if (n == 0)
            continue;
        assert_int_equal(params_unpack(frames, n, &h, &err), 0);
        link_frames_release(frames, n);
    }
    return h;
}

/* Both chunks, all floats as the version; or with a bit of it changed since it was sealed. */
static void answer(uint64_t version, bool damaged)
{
    const struct params_head h = {
        .type = PARAMS_CHUNKS, .session = 9, .attempt = 1, .step = version, .count = 2};
    uint8_t head[PARAMS_HEAD_MAX];
    float chunk[2][CHUNK];
    struct link_frame frames[3] = {{0},
                                   {.data = chunk[0], .len = sizeof chunk[0]},
                                   {.data = chunk[1], .len = sizeof chunk[1]}};

    for (int i = 0; i < PARAMS; i++)
        chunk[i / CHUNK][i % CHUNK] = (float)version;
    params_pack(&h, head, frames, 3);
    if (damaged)
        ((uint8_t *)chunk[1])[5] ^= 1;
    assert_int_equal(link_send(host, &peer, frames, 3, &err), 0);
}

/* The client knows the host: it is not asked often as one that may not be there yet. */
static void acquainted(void)
{
    assert_int_equal(question(3, 5000).verdict, HOST_ACCEPTED);
    answer(3, false);
    assert_int_equal(question(3, 100).type, 0);
    assert_true(params[PARAMS - 1] == 3);
}

/* Without that word a host thinks that its answer is on its way still, and a client waits as long as a slow link may need. */
static void test_a_damaged_answer_is_asked_for_again_at_once_and_by_name(void **state)
{
    struct params_head h;
    bool over;

    (void)state;
    acquainted();
    assert_int_equal(question(4, 5000).verdict, HOST_ACCEPTED);
    answer(4, true);
    h = question(4, PS_PATIENCE_LEAST_MS / 2);
    assert_int_equal(h.type, PARAMS_PULL);
    assert_int_equal(h.step, 4);
    assert_int_equal(h.verdict, HOST_CORRUPT);
    assert_false(ps_client_has(client, 4, 0, PARAMS, &over));
    assert_true(params[PARAMS - 1] == 3);
    answer(4, false);
    assert_int_equal(question(4, 100).type, 0);
    assert_true(ps_client_has(client, 4, 0, PARAMS, &over));
    assert_true(params[PARAMS - 1] == 4);
}

/* Of one answer, not of all that come after it. */
static void test_damage_is_said_once(void **state)
{
    (void)state;
    acquainted();
    assert_int_equal(question(4, 5000).type, PARAMS_PULL);
    answer(4, true);
    assert_int_equal(question(4, 5000).verdict, HOST_CORRUPT);
    answer(4, false);
    assert_int_equal(question(4, 100).type, 0);
    assert_int_equal(question(5, 5000).verdict, HOST_ACCEPTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_a_damaged_answer_is_asked_for_again_at_once_and_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_is_said_once, setup, teardown),
    };
    return cmocka_run_group_tests_name("ps_client", tests, NULL, NULL);
}
