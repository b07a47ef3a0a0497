/* Frames over ZeroMQ: order, ownership, bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <zmq.h>

#include "net/link.h"

static int wait_recv(void *socket, struct link_peer *peer, struct link_frame *frames, struct err *e)
{
    int n = 0;

    assert_true(link_poll(&socket, 1, NULL, 0, 3000) == 1);
    assert_int_equal(link_recv(socket, peer, frames, &n, e), 0);
    return n;
}

/* A dealer is connected when a first message can be queued. */
static void send_connected(void *dealer, const struct link_frame *frames, int n)
{
    struct err e;
    int rc = ERR_BUSY;

    for (int i = 0; i < 300 && rc == ERR_BUSY; i++) {
        rc = link_send(dealer, NULL, frames, n, &e);
        if (rc == ERR_BUSY)
            link_poll(NULL, 0, NULL, 0, 10);
    }
    assert_int_equal(rc, 0);
}

static void frames_released(void *data, void *hint)
{
    (void)data;
    __atomic_add_fetch((int *)hint, 1, __ATOMIC_SEQ_CST);
}

static void round_trip(const char *bind_to)
{
    static float floats[4096];
    char endpoint[256];
    struct link_frame in[LINK_FRAMES_MAX];
    struct link_peer peer = {.len = 0};
    int released = 0;
    struct err e;
    void *router = link_router(LINK_DATA, bind_to, endpoint, sizeof endpoint, &e);
    void *dealer;
    struct link_frame out[3] = {{.data = (void *)(uintptr_t) "head", .len = 4},
                                {floats, sizeof floats, frames_released, &released, NULL},
                                {.data = NULL, .len = 0}};

    assert_non_null(router);
    dealer = link_dealer(LINK_DATA, endpoint, &e);
    assert_non_null(dealer);
    floats[4095] = 3.0f;
    send_connected(dealer, out, 3);
    assert_int_equal(wait_recv(router, &peer, in, &e), 3);
    assert_memory_equal(in[0].data, "head", 4);
    assert_int_equal(in[1].len, sizeof floats);
    assert_memory_equal(in[1].data, floats, sizeof floats);
    assert_int_equal(in[2].len, 0);
    link_frames_release(in, 3);
    assert_true(peer.len > 0);
    assert_int_equal(link_send(router, &peer, out, 1, &e), 0);
    assert_int_equal(wait_recv(dealer, NULL, in, &e), 1);
    assert_memory_equal(in[0].data, "head", 4);
    link_frames_release(in, 1);
    for (int i = 0; i < 300 && __atomic_load_n(&released, __ATOMIC_SEQ_CST) == 0; i++)
        usleep(10000);
    assert_int_equal(__atomic_load_n(&released, __ATOMIC_SEQ_CST), 1);
    link_close(dealer);
    link_close(router);
}

static void test_frames_travel_both_ways(void **state)
{
    (void)state;
    round_trip("tcp://127.0.0.1:0");
    round_trip("inproc://round-trip");
}

static void test_unknown_peer_and_unconnected_dealer_are_told(void **state)
{
    struct link_peer nobody = {.id = {1, 2, 3, 4, 5}, .len = 5};
    struct link_frame head = {.data = (void *)(uintptr_t) "x", .len = 1};
    int released = 0;
    char byte = 0;
    struct link_frame two[2] = {head, {&byte, 1, frames_released, &released, NULL}};
    struct link_frame in[LINK_FRAMES_MAX];
    int n = -1;
    struct err e;
    void *router = link_router(LINK_CONTROL, "tcp://127.0.0.1:*", NULL, 0, &e);
    void *dealer = link_dealer(LINK_CONTROL, "tcp://127.0.0.1:1", &e);

    (void)state;
    assert_int_equal(link_send(router, &nobody, two, 2, &e), ERR_UNREACHABLE);
    assert_int_equal(link_send(dealer, NULL, two, 2, &e), ERR_BUSY);
    assert_int_equal(released, 0);
    assert_int_equal(link_recv(router, &nobody, in, &n, &e), 0);
    assert_int_equal(n, 0);
    link_close(dealer);
    link_close(router);
}

static void test_high_water_mark_says_busy(void **state)
{
    struct link_frame head = {.data = (void *)(uintptr_t) "x", .len = 1};
    struct link_options small = {4, 1000, 0};
    struct err e;
    void *router = link_router(small, "inproc://high-water", NULL, 0, &e);
    void *dealer = link_dealer(small, "inproc://high-water", &e);
    int rc = 0;
    int sent = 0;

    (void)state;
    while (sent < 100 && (rc = link_send(dealer, NULL, &head, 1, &e)) == 0)
        sent++;
    assert_int_equal(rc, ERR_BUSY);
    assert_true(sent >= 4 && sent <= 16);
    link_close(dealer);
    link_close(router);
}

/* A foreign peer that sends one frame more than we take; the message after it is still read. */
static void test_too_many_frames_are_drained(void **state)
{
    struct err e;
    void *router = link_router(LINK_DATA, "inproc://many", NULL, 0, &e);
    void *dealer = link_dealer(LINK_DATA, "inproc://many", &e);
    struct link_frame in[LINK_FRAMES_MAX];
    struct link_peer peer;
    int n = -1;

    (void)state;
    for (int i = 0; i <= LINK_FRAMES_MAX; i++)
        assert_int_equal(zmq_send(dealer, "f", 1, i < LINK_FRAMES_MAX ? ZMQ_SNDMORE : 0), 1);
    assert_int_equal(zmq_send(dealer, "g", 1, 0), 1);
    assert_int_equal(link_recv(router, &peer, in, &n, &e), ERR_LIMIT);
    assert_int_equal(n, 0);
    assert_int_equal(wait_recv(router, &peer, in, &e), 1);
    assert_memory_equal(in[0].data, "g", 1);
    link_frames_release(in, 1);
    link_close(dealer);
    link_close(router);
}

/* A peer that goes between two frames: the message is lost, and none of its frames is released twice, or by a send that
 * failed. (ZeroMQ 4.3 may forget the frames that it had taken before the pipe went.) */
static void test_a_peer_that_goes_within_a_message_releases_no_frame_twice(void **state)
{
    enum { ROUNDS = 20, SENDS = 20, FRAMES = 17, BYTES = 1 << 18 };
    static char bytes[BYTES];
    static int released[ROUNDS * SENDS][FRAMES];
    static bool taken[ROUNDS * SENDS];
    char endpoint[256];
    struct err e;
    void *router = link_router(LINK_DATA, "tcp://127.0.0.1:0", endpoint, sizeof endpoint, &e);
    void *dealer = link_dealer(LINK_DATA, endpoint, &e);

    (void)state;
    assert_non_null(router);
    assert_non_null(dealer);
    for (int n = 0; n < ROUNDS * SENDS; n++) {
        struct link_frame out[FRAMES] = {{.data = bytes, .len = 8}};
        for (int i = 1; i < FRAMES; i++) {
            out[i] = (struct link_frame){.data = bytes, .len = BYTES};
            if (i % 2 == 1) {
                out[i].free_fn = frames_released;
                out[i].hint = &released[n][i];
            }
        }
        if (n % SENDS == 0) { /* it goes, while these are sent */
            send_connected(dealer, out, 1);
            link_close(router);
        }
        taken[n] = link_send(dealer, NULL, out, FRAMES, &e) == 0;
        router = NULL;
        for (int k = 0; n % SENDS == SENDS - 1 && router == NULL && k < 300; k++) {
            router = link_router(LINK_DATA, endpoint, NULL, 0, &e);
            if (router == NULL)
                link_poll(NULL, 0, NULL, 0, 10);
        }
    }
    link_close(dealer);
    link_close(router);
    link_context_term(); /* nothing is held any more */
    for (int n = 0; n < ROUNDS * SENDS; n++)
        for (int i = 1; i < FRAMES; i += 2)
            assert_in_range(released[n][i], 0, taken[n] ? 1 : 0);
}

static void test_bad_addresses_are_named(void **state)
{
    static const struct {
        const char *address;
        int rc;
    } cases[] = {{"nonsense", ERR_INVALID},
                 {"tcp://", ERR_INVALID},
                 {"tcp://127.0.0.1:99999", ERR_INVALID},
                 {"udp2://x:1", ERR_INVALID}};
    char endpoint[256];
    struct err e;
    void *router;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_null(link_router(LINK_CONTROL, cases[i].address, NULL, 0, &e));
        assert_int_equal(e.code, cases[i].rc);
        assert_non_null(strstr(e.msg, cases[i].address));
    }
    router = link_router(LINK_CONTROL, "tcp://127.0.0.1:0", endpoint, sizeof endpoint, &e);
    assert_null(link_router(LINK_CONTROL, endpoint, NULL, 0, &e));
    assert_int_equal(e.code, ERR_CONFLICT);
    link_close(router);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_travel_both_ways),
        cmocka_unit_test(test_unknown_peer_and_unconnected_dealer_are_told),
        cmocka_unit_test(test_high_water_mark_says_busy),
        cmocka_unit_test(test_too_many_frames_are_drained),
        cmocka_unit_test(test_bad_addresses_are_named),
        cmocka_unit_test(test_a_peer_that_goes_within_a_message_releases_no_frame_twice), /* last: ends the context */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
