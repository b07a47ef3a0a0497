/* Who may talk when the process has a secret: peers that have it, and nobody else, whatever they
 * try. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>
#include <zmq.h>

#include "base/clock.h"
#include "net/keys.h"
#include "net/link.h"

#define SECRET "correct horse battery staple"

static void *router;
static char endpoint[256];

static int open_router(void **state)
{
    struct err e;

    (void)state;
    assert_int_equal(keys_use(SECRET, &e), 0);
    assert_true(keys_in_use());
    router = link_router(LINK_CONTROL, "tcp://127.0.0.1:0", endpoint, sizeof endpoint, &e);
    assert_non_null(router);
    return 0;
}

static int close_router(void **state)
{
    (void)state;
    link_close(router);
    link_context_term();
    assert_false(keys_in_use());
    return 0;
}

/* Does a message of this dealer arrive within the time? */
static bool arrives(void *dealer, int ms)
{
    struct link_frame out = {.data = (void *)(uintptr_t) "x", .len = 1};
    struct link_frame in[LINK_FRAMES_MAX];
    struct link_peer peer;
    uint64_t end = clock_ms() + (uint64_t)ms;
    struct err e;
    int n = 0;

    link_send(dealer, NULL, &out, 1, &e);
    while (clock_ms() < end) {
        link_poll(&router, 1, NULL, 0, 20);
        if (link_recv(router, &peer, in, &n, &e) == 0 && n > 0) {
            link_frames_release(in, n);
            return true;
        }
        link_send(dealer, NULL, &out, 1, &e);
    }
    return false;
}

/* A dealer of another context, so that our keys do not touch it. */
static void *stranger(void *context)
{
    void *s = zmq_socket(context, ZMQ_DEALER);
    int zero = 0;

    assert_int_equal(zmq_setsockopt(s, ZMQ_LINGER, &zero, sizeof zero), 0);
    return s;
}

static void derive(const char *secret, const char *use, unsigned char public[32],
                   unsigned char secret_key[32])
{
    unsigned char seed[32];
    crypto_generichash_state s;

    crypto_generichash_init(&s, NULL, 0, sizeof seed);
    crypto_generichash_update(&s, (const unsigned char *)use, strlen(use) + 1);
    crypto_generichash_update(&s, (const unsigned char *)secret, strlen(secret));
    crypto_generichash_final(&s, seed, sizeof seed);
    crypto_box_seed_keypair(public, secret_key, seed);
}

static void test_a_peer_with_the_secret_is_heard(void **state)
{
    struct err e;
    void *dealer = link_dealer(LINK_CONTROL, endpoint, &e);

    (void)state;
    assert_true(arrives(dealer, 3000));
    link_close(dealer);
}

/* 16 MiB of floats are a frame of the data plane, sealed or not. */
static void test_a_sealed_frame_may_be_as_long_as_a_bare_one(void **state)
{
    struct link_frame out = {.len = 16 << 20}, in[LINK_FRAMES_MAX];
    struct link_peer peer;
    char where[256];
    struct err e;
    void *host = link_router(LINK_DATA, "tcp://127.0.0.1:0", where, sizeof where, &e);
    void *dealer = link_dealer(LINK_DATA, where, &e);
    int n = 0;

    (void)state;
    out.data = mem_zalloc(1, out.len);
    for (int i = 0; i < 250 && link_send(dealer, NULL, &out, 1, &e) != 0; i++)
        clock_sleep_ms(20);
    for (int i = 0; i < 250 && n == 0; i++) {
        link_poll(&host, 1, NULL, 0, 20);
        assert_int_equal(link_recv(host, &peer, in, &n, &e), 0);
    }
    assert_int_equal(n, 1);
    assert_int_equal(in[0].len, out.len);
    link_frames_release(in, n);
    free(out.data);
    link_close(dealer);
    link_close(host);
}

static void test_a_peer_without_keys_is_not_heard(void **state)
{
    void *context = zmq_ctx_new();
    void *s = stranger(context);

    (void)state;
    assert_int_equal(zmq_connect(s, endpoint), 0);
    assert_false(arrives(s, 400));
    zmq_close(s);
    zmq_ctx_term(context);
}

/* It knows the server's public key, but its own pair is not the one that is admitted. */
static void test_a_peer_with_foreign_keys_is_not_heard(void **state)
{
    void *context = zmq_ctx_new();
    void *s = stranger(context);
    unsigned char server[32], unused[32], public[32], secret[32];

    (void)state;
    derive(SECRET, "steer socket that binds", server, unused);
    derive("some other long secret", "steer socket that connects", public, secret);
    assert_int_equal(zmq_setsockopt(s, ZMQ_CURVE_SERVERKEY, server, 32), 0);
    assert_int_equal(zmq_setsockopt(s, ZMQ_CURVE_PUBLICKEY, public, 32), 0);
    assert_int_equal(zmq_setsockopt(s, ZMQ_CURVE_SECRETKEY, secret, 32), 0);
    assert_int_equal(zmq_connect(s, endpoint), 0);
    assert_false(arrives(s, 400));
    zmq_close(s);
    zmq_ctx_term(context);
}

/* The control: the same stranger with the right pair is heard, so what the two tests above refuse
 * is the key. */
static void test_the_right_pair_from_another_context_is_heard(void **state)
{
    void *context = zmq_ctx_new();
    void *s = stranger(context);
    unsigned char server[32], unused[32], public[32], secret[32];

    (void)state;
    derive(SECRET, "steer socket that binds", server, unused);
    derive(SECRET, "steer socket that connects", public, secret);
    assert_int_equal(zmq_setsockopt(s, ZMQ_CURVE_SERVERKEY, server, 32), 0);
    assert_int_equal(zmq_setsockopt(s, ZMQ_CURVE_PUBLICKEY, public, 32), 0);
    assert_int_equal(zmq_setsockopt(s, ZMQ_CURVE_SECRETKEY, secret, 32), 0);
    assert_int_equal(zmq_connect(s, endpoint), 0);
    assert_true(arrives(s, 3000));
    zmq_close(s);
    zmq_ctx_term(context);
}

/* ZeroMQ admits everybody when nobody answers for the domain, unless told otherwise: this is that.
 */
static void test_nobody_is_heard_without_the_zap_thread(void **state)
{
    void *context = zmq_ctx_new();
    void *server_socket = zmq_socket(context, ZMQ_ROUTER);
    void *s = stranger(context);
    unsigned char server[32], server_secret[32], public[32], secret[32];
    char where[256];
    size_t cap = sizeof where;
    int one = 1;
    int timeout = 400;
    char byte[8];

    (void)state;
    derive(SECRET, "steer socket that binds", server, server_secret);
    derive(SECRET, "steer socket that connects", public, secret);
    zmq_setsockopt(server_socket, ZMQ_CURVE_SECRETKEY, server_secret, 32);
    zmq_setsockopt(server_socket, ZMQ_CURVE_SERVER, &one, sizeof one);
    zmq_setsockopt(server_socket, ZMQ_ZAP_DOMAIN, "steer", 5);
    assert_int_equal(zmq_setsockopt(server_socket, 93, &one, sizeof one), 0);
    zmq_setsockopt(server_socket, ZMQ_RCVTIMEO, &timeout, sizeof timeout);
    assert_int_equal(zmq_bind(server_socket, "tcp://127.0.0.1:*"), 0);
    assert_int_equal(zmq_getsockopt(server_socket, ZMQ_LAST_ENDPOINT, where, &cap), 0);
    zmq_setsockopt(s, ZMQ_CURVE_SERVERKEY, server, 32);
    zmq_setsockopt(s, ZMQ_CURVE_PUBLICKEY, public, 32);
    zmq_setsockopt(s, ZMQ_CURVE_SECRETKEY, secret, 32);
    assert_int_equal(zmq_connect(s, where), 0);
    zmq_send(s, "x", 1, ZMQ_DONTWAIT);
    assert_int_equal(zmq_recv(server_socket, byte, sizeof byte, 0), -1);
    zmq_close(s);
    zmq_close(server_socket);
    zmq_ctx_term(context);
}

static void test_short_secrets_are_refused(void **state)
{
    struct err e;

    (void)state;
    assert_int_equal(keys_use("short", &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "16"));
}

static void test_loopback_is_recognised(void **state)
{
    static const struct {
        const char *address;
        bool loopback;
    } cases[] = {{"tcp://127.0.0.1:5", true},          {"tcp://[::1]:5", true},
                 {"tcp://localhost:5", true},          {"inproc://x", true},
                 {"tcp://0.0.0.0:5", false},           {"tcp://*:5", false},
                 {"tcp://10.0.0.1:5", false},          {"tcp://127x.example:5", false},
                 {"tcp://localhost.example:5", false}, {"tcp://[::]:5", false},
                 {"tcp://1270.0.0.1:5", false},        {"tcp://eth0:5", false},
                 {"tcp://127.0.0.1.example:5", false}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(keys_address_is_loopback(cases[i].address), cases[i].loopback);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_peer_with_the_secret_is_heard),
        cmocka_unit_test(test_a_sealed_frame_may_be_as_long_as_a_bare_one),
        cmocka_unit_test(test_a_peer_without_keys_is_not_heard),
        cmocka_unit_test(test_a_peer_with_foreign_keys_is_not_heard),
        cmocka_unit_test(test_the_right_pair_from_another_context_is_heard),
        cmocka_unit_test(test_nobody_is_heard_without_the_zap_thread),
        cmocka_unit_test(test_short_secrets_are_refused),
        cmocka_unit_test(test_loopback_is_recognised),
    };
    return cmocka_run_group_tests(tests, open_router, close_router);
}
