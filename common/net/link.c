#include "net/link.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "base/fault.h"
#include "net/keys.h"

#define HEARTBEAT_MS 2000
#define HEARTBEAT_TIMEOUT_MS 10000
#define HANDSHAKE_MS 5000
#define RECONNECT_MS 50
#define RECONNECT_MAX_MS 1000
#define SOCKETS_MAX 4096

static pthread_mutex_t context_lock = PTHREAD_MUTEX_INITIALIZER;
static void *context;

void *link_context(void)
{
    void *made;

    pthread_mutex_lock(&context_lock);
    if (context == NULL) {
        context = zmq_ctx_new();
        CHECK(context != NULL);
        CHECK(zmq_ctx_set(context, ZMQ_MAX_SOCKETS, SOCKETS_MAX) == 0);
    }
    made = context;
    pthread_mutex_unlock(&context_lock);
    return made;
}

void link_context_term(void)
{
    keys_stop();
    pthread_mutex_lock(&context_lock);
    if (context != NULL) {
        while (zmq_ctx_term(context) != 0 && errno == EINTR)
            ;
        context = NULL;
    }
    pthread_mutex_unlock(&context_lock);
}

static int zmq_err(struct err *e, const char *what, const char *address)
{
    enum err_code code = ERR_SYSTEM;

    if (errno == EADDRINUSE)
        code = ERR_CONFLICT;
    else if (errno == EINVAL || errno == EPROTONOSUPPORT || errno == ENODEV ||
             errno == ENOCOMPATPROTO || errno == EADDRNOTAVAIL)
        code = ERR_INVALID;
    return err_set(e, code, "%s %s: %s", what, address, zmq_strerror(errno));
}

static void option_int(void *socket, int option, int value)
{
    CHECK(zmq_setsockopt(socket, option, &value, sizeof value) == 0);
}

static void *socket_new(int type, struct link_options o, struct err *e)
{
    void *socket = zmq_socket(link_context(), type);

    if (socket == NULL) {
        err_set(e, ERR_SYSTEM, "socket: %s", zmq_strerror(errno));
        return NULL;
    }
    option_int(socket, ZMQ_SNDHWM, o.hwm);
    option_int(socket, ZMQ_RCVHWM, o.hwm);
    CHECK(zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &o.frame_bytes_max, sizeof o.frame_bytes_max) ==
          0);
    option_int(socket, ZMQ_LINGER, o.linger_ms);
    option_int(socket, ZMQ_IMMEDIATE, 1);
    option_int(socket, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS);
    option_int(socket, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS);
    option_int(socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    option_int(socket, ZMQ_RECONNECT_IVL, RECONNECT_MS);
    option_int(socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    option_int(socket, ZMQ_TCP_KEEPALIVE, 1);
    if (type == ZMQ_ROUTER)
        option_int(socket, ZMQ_ROUTER_MANDATORY, 1);
    keys_apply(socket, type == ZMQ_ROUTER);
    return socket;
}

/* ZeroMQ cuts a port to 16 bits in silence, so it is read here first. */
static int address_check(const char *address, struct err *e)
{
    const char *colon = strrchr(address, ':');
    unsigned long port = 0;
    char *end;

    if (strncmp(address, "tcp://", 6) != 0)
        return 0;
    if (colon < address + 6)
        return err_set(e, ERR_INVALID, "address %s has no port", address);
    if (strcmp(colon, ":*") == 0)
        return 0;
    errno = 0;
    if (colon[1] >= '0' && colon[1] <= '9')
        port = strtoul(colon + 1, &end, 10);
    else
        end = (char *)(uintptr_t)colon;
    if (*end != '\0' || errno != 0 || port > 65535)
        return err_set(e, ERR_INVALID, "address %s: the port must be 0..65535 or *", address);
    return 0;
}

int link_bind(void *socket, const char *bind_to, struct err *e)
{
    int rc = address_check(bind_to, e);

    if (rc != 0)
        return rc;
    if (zmq_bind(socket, bind_to) != 0)
        return zmq_err(e, "bind", bind_to);
    return 0;
}

void *link_router(struct link_options o, const char *bind_to, char *endpoint, size_t cap,
                  struct err *e)
{
    void *socket = socket_new(ZMQ_ROUTER, o, e);

    if (socket == NULL)
        return NULL;
    if (link_bind(socket, bind_to, e) != 0) {
        link_close(socket);
        return NULL;
    }
    if (endpoint != NULL && zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &cap) != 0) {
        zmq_err(e, "endpoint of", bind_to);
        link_close(socket);
        return NULL;
    }
    return socket;
}

void *link_dealer(struct link_options o, const char *connect_to, struct err *e)
{
    void *socket;

    if (address_check(connect_to, e) != 0)
        return NULL;
    socket = socket_new(ZMQ_DEALER, o, e);
    if (socket != NULL && zmq_connect(socket, connect_to) != 0) {
        zmq_err(e, "connect", connect_to);
        link_close(socket);
        return NULL;
    }
    return socket;
}

void link_close(void *socket)
{
    if (socket != NULL)
        zmq_close(socket);
}

static int bytes_send(void *socket, const void *bytes, size_t len, bool more, struct err *e)
{
    if (zmq_send(socket, bytes, len, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) >= 0)
        return 0;
    if (errno == EAGAIN)
        return err_set(e, ERR_BUSY, "send: the queue is full or nobody is connected");
    if (errno == EHOSTUNREACH)
        return err_set(e, ERR_UNREACHABLE, "send: no such peer");
    return err_set(e, ERR_SYSTEM, "send: %s", zmq_strerror(errno));
}

/* A frame after the first of a message. The bytes are released whatever happens. If the connection has gone since the first,
 * ZeroMQ refuses this one and drops those that follow: the message is lost, like any that was queued there. */
static void frame_send(void *socket, const struct link_frame *f, bool more)
{
    struct err ignored;
    zmq_msg_t msg;

    if (f->free_fn == NULL) {
        bytes_send(socket, f->data, f->len, more, &ignored);
        return;
    }
    CHECK(zmq_msg_init_data(&msg, f->data, f->len, f->free_fn, f->hint) == 0);
    if (zmq_msg_send(&msg, socket, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) < 0)
        zmq_msg_close(&msg);
}

int link_send(void *socket, const struct link_peer *peer, const struct link_frame *frames, int n,
              struct err *e)
{
    int begin = peer != NULL ? 0 : 1;
    int rc;

    CHECK(n >= 1 && n <= LINK_FRAMES_MAX);
    CHECK(peer != NULL || frames[0].free_fn == NULL);
    if (peer != NULL)
        rc = bytes_send(socket, peer->id, peer->len, true, e);
    else
        rc = bytes_send(socket, frames[0].data, frames[0].len, n > 1, e);
    if (rc != 0)
        return rc;
    for (int i = begin; i < n; i++)
        frame_send(socket, &frames[i], i + 1 < n);
    return 0;
}

/* Takes the next part into msg (initialised here). 1: taken, 0: nothing there, -1: failed. */
static int part_recv(void *socket, zmq_msg_t *msg)
{
    CHECK(zmq_msg_init(msg) == 0);
    if (zmq_msg_recv(msg, socket, ZMQ_DONTWAIT) >= 0)
        return 1;
    zmq_msg_close(msg);
    return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

static void parts_drain(void *socket, bool more)
{
    zmq_msg_t msg;

    while (more && part_recv(socket, &msg) == 1) {
        more = zmq_msg_more(&msg) != 0;
        zmq_msg_close(&msg);
    }
}

/* The routing id in front of a router's message. *more: whether a frame follows. */
static int peer_recv(void *socket, struct link_peer *peer, bool *there, bool *more, struct err *e)
{
    zmq_msg_t msg;
    int got = part_recv(socket, &msg);
    int rc = 0;

    *there = got == 1;
    *more = false;
    if (got < 0)
        return err_set(e, ERR_SYSTEM, "receive: %s", zmq_strerror(errno));
    if (got == 0)
        return 0;
    *more = zmq_msg_more(&msg) != 0;
    peer->len = zmq_msg_size(&msg);
    if (peer->len > LINK_PEER_MAX) {
        rc = err_set(e, ERR_LIMIT, "receive: a routing id of %zu bytes, the limit is %d", peer->len,
                     LINK_PEER_MAX);
        peer->len = 0;
    } else {
        memcpy(peer->id, zmq_msg_data(&msg), peer->len);
    }
    zmq_msg_close(&msg);
    if (rc != 0)
        parts_drain(socket, *more);
    return rc;
}

/* What a bad cable, or bad memory, does. To a copy: what came from this process may be the sender's own bytes. */
static void frame_damage(struct link_frame *f)
{
    zmq_msg_t *copy = mem_alloc(sizeof *copy);

    CHECK(zmq_msg_init_size(copy, f->len) == 0);
    if (f->len > 0) {
        memcpy(zmq_msg_data(copy), f->data, f->len);
        ((uint8_t *)zmq_msg_data(copy))[f->len / 2] ^= 1;
    }
    link_frames_release(f, 1);
    *f = (struct link_frame){zmq_msg_data(copy), zmq_msg_size(copy), NULL, NULL, copy};
}

int link_recv(void *socket, struct link_peer *peer, struct link_frame *frames, int *n,
              struct err *e)
{
    bool there = true;
    bool more = true;
    int rc = 0;

    *n = 0;
    if (peer != NULL)
        rc = peer_recv(socket, peer, &there, &more, e);
    if (rc != 0 || !there)
        return rc;
    while (more) {
        zmq_msg_t *msg;
        int got;
        if (*n == LINK_FRAMES_MAX) {
            parts_drain(socket, more);
            rc = err_set(e, ERR_LIMIT, "receive: more than %d frames", LINK_FRAMES_MAX);
            break;
        }
        msg = mem_alloc(sizeof *msg);
        got = part_recv(socket, msg);
        if (got != 1) {
            free(msg);
            if (got < 0)
                rc = err_set(e, ERR_SYSTEM, "receive: %s", zmq_strerror(errno));
            break; /* nothing there: only possible before the first frame */
        }
        more = zmq_msg_more(msg) != 0;
        frames[(*n)++] = (struct link_frame){zmq_msg_data(msg), zmq_msg_size(msg), NULL, NULL, msg};
    }
    if (rc != 0) {
        link_frames_release(frames, *n);
        *n = 0;
    }
    if (*n > 0 && fault_hit(FAULT_NET_MESSAGE_DAMAGE))
        frame_damage(&frames[*n - 1]);
    return rc;
}

void link_frames_release(struct link_frame *frames, int n)
{
    for (int i = 0; i < n; i++) {
        if (frames[i].msg != NULL) {
            zmq_msg_close(frames[i].msg);
            free(frames[i].msg);
            frames[i].msg = NULL;
        }
    }
}

uint32_t link_poll(void *const *sockets, int sockets_n, const int *fds, int fds_n, int timeout_ms)
{
    zmq_pollitem_t item[32];
    uint32_t mask = 0;

    CHECK(sockets_n >= 0 && fds_n >= 0 && sockets_n + fds_n <= 32);
    for (int i = 0; i < sockets_n; i++)
        item[i] = (zmq_pollitem_t){.socket = sockets[i], .events = ZMQ_POLLIN};
    for (int i = 0; i < fds_n; i++)
        item[sockets_n + i] = (zmq_pollitem_t){.fd = fds[i], .events = ZMQ_POLLIN};
    if (zmq_poll(item, sockets_n + fds_n, timeout_ms) <= 0)
        return 0;
    for (int i = 0; i < sockets_n + fds_n; i++)
        if (item[i].revents != 0)
            mask |= 1u << i;
    return mask;
}
