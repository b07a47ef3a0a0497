#include "net/keys.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <string.h>
#include <zmq.h>

#include "net/link.h"

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define ZAP_DOMAIN "steer"
#define ZAP_ENFORCE_DOMAIN                                                                         \
    93 /* ZMQ_ZAP_ENFORCE_DOMAIN, which the header shows only to drafts; Debian's build has it */
#define STOP_ENDPOINT "inproc://steer-zap-stop"
#define FRAME_MAX 256

struct pair {
    unsigned char public[crypto_box_PUBLICKEYBYTES], secret[crypto_box_SECRETKEYBYTES];
};

static struct {
    bool on;
    struct pair binds, connects;
    void *zap, *stop; /* stop: our end of a PAIR to the thread */
    pthread_t thread;
} keys;

static void pair_derive(const char *secret, const char *use, struct pair *out)
{
    unsigned char seed[crypto_box_SEEDBYTES];
    crypto_generichash_state s;

    crypto_generichash_init(&s, NULL, 0, sizeof seed);
    crypto_generichash_update(&s, (const unsigned char *)use, strlen(use) + 1);
    crypto_generichash_update(&s, (const unsigned char *)secret, strlen(secret));
    crypto_generichash_final(&s, seed, sizeof seed);
    CHECK(crypto_box_seed_keypair(out->public, out->secret, seed) == 0);
    sodium_memzero(seed, sizeof seed);
}

/* One request of RFC 27: version, request id, domain, address, identity, mechanism, credentials.
 * Answers it. */
static void zap_answer(void *zap)
{
    unsigned char frame[8][FRAME_MAX];
    int len[8] = {0};
    int more = 1;
    size_t more_len = sizeof more;
    bool admitted;
    int n = 0;

    while (more != 0) {
        unsigned char rest[FRAME_MAX];
        int got = zmq_recv(zap, n < 8 ? frame[n] : rest, FRAME_MAX, 0);
        if (got < 0)
            return;
        if (n < 8)
            len[n++] = got;
        CHECK(zmq_getsockopt(zap, ZMQ_RCVMORE, &more, &more_len) == 0);
    }
    admitted = n == 7 && len[1] <= FRAME_MAX && len[2] == (int)strlen(ZAP_DOMAIN) &&
               memcmp(frame[2], ZAP_DOMAIN, strlen(ZAP_DOMAIN)) == 0 && len[5] == 5 &&
               memcmp(frame[5], "CURVE", 5) == 0 && len[6] == (int)sizeof keys.connects.public &&
               sodium_memcmp(frame[6], keys.connects.public, sizeof keys.connects.public) == 0;
    zmq_send(zap, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(zap, frame[1], len[1] <= FRAME_MAX ? (size_t)len[1] : 0, ZMQ_SNDMORE);
    zmq_send(zap, admitted ? "200" : "400", 3, ZMQ_SNDMORE);
    zmq_send(zap, admitted ? "OK" : "no", 2, ZMQ_SNDMORE);
    zmq_send(zap, admitted ? "steer" : "", admitted ? 5 : 0, ZMQ_SNDMORE);
    zmq_send(zap, "", 0, 0);
}

static void *zap_main(void *stop)
{
    zmq_pollitem_t item[2] = {{.socket = keys.zap, .events = ZMQ_POLLIN},
                              {.socket = stop, .events = ZMQ_POLLIN}};

    for (;;) {
        if (zmq_poll(item, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            break;
        }
        if (item[1].revents != 0)
            break;
        if (item[0].revents != 0)
            zap_answer(keys.zap);
    }
    zmq_close(keys.zap);
    zmq_close(stop);
    return NULL;
}

int keys_use(const char *secret, struct err *e)
{
    int linger = 0;
    void *stop;

    if (strlen(secret) < KEYS_SECRET_MIN)
        return err_set(e, ERR_INVALID, "the token has %zu characters, must have at least %d",
                       strlen(secret), KEYS_SECRET_MIN);
    if (keys.on)
        return 0;
    CHECK(sodium_init() >= 0);
    pair_derive(secret, "steer socket that binds", &keys.binds);
    pair_derive(secret, "steer socket that connects", &keys.connects);
    keys.zap = zmq_socket(link_context(), ZMQ_REP);
    keys.stop = zmq_socket(link_context(), ZMQ_PAIR);
    stop = zmq_socket(link_context(), ZMQ_PAIR);
    CHECK(keys.zap != NULL && keys.stop != NULL && stop != NULL);
    CHECK(zmq_setsockopt(keys.zap, ZMQ_LINGER, &linger, sizeof linger) == 0);
    CHECK(zmq_bind(keys.zap, ZAP_ENDPOINT) == 0);
    CHECK(zmq_bind(keys.stop, STOP_ENDPOINT) == 0 && zmq_connect(stop, STOP_ENDPOINT) == 0);
    CHECK(pthread_create(&keys.thread, NULL, zap_main, stop) == 0);
    keys.on = true;
    return 0;
}

bool keys_in_use(void)
{
    return keys.on;
}

void keys_stop(void)
{
    if (!keys.on)
        return;
    zmq_send(keys.stop, "", 0, 0);
    pthread_join(keys.thread, NULL);
    zmq_close(keys.stop);
    sodium_memzero(&keys, sizeof keys);
}

bool keys_address_is_loopback(const char *address)
{
    static const char *const prefixes[] = {"tcp://[::1]:", "tcp://localhost:", "tcp://lo:"};

    if (strncmp(address, "tcp://", 6) != 0)
        return true;
    if (strncmp(address + 6, "127.", 4) == 0)
        return address[6 + strspn(address + 6, "0123456789.")] == ':';
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (strncmp(address, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

void keys_apply(void *socket, bool server)
{
    const struct pair *mine = server ? &keys.binds : &keys.connects;
    int one = 1;

    if (!keys.on)
        return;
    CHECK(zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, mine->secret, sizeof mine->secret) == 0);
    if (server) {
        CHECK(zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &one, sizeof one) == 0);
        CHECK(zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, ZAP_DOMAIN, strlen(ZAP_DOMAIN)) == 0);
        CHECK(zmq_setsockopt(socket, ZAP_ENFORCE_DOMAIN, &one, sizeof one) == 0);
    } else {
        CHECK(zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, mine->public, sizeof mine->public) == 0);
        CHECK(zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, keys.binds.public,
                             sizeof keys.binds.public) == 0);
    }
}
