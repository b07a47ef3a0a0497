#include "sim_net.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "net/link.h"
#include "sim_core.h"
#include "wire/params.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define FDS_MAX 1024
#define CONNS_MAX (1 << 16)
#define FD_FIRST 1000000
/* Loops that look around every 20 or 50 ms do so less often here: what they wait for wakes them. */
#define POLL_MS_MIN 100

struct message {
    struct message *next;
    uint64_t conn; /* of the dealer: the routing id */
    struct socket *dealer, *to;
    int frames;
    size_t len[LINK_FRAMES_MAX];
    size_t bytes;
    char data[];
};

struct socket {
    struct socket *next; /* of all */
    struct sim_proc *proc;
    uint32_t serial;
    bool router, open;
    char address[2][96]; /* router: bound to; dealer: [0] the other side */
    int addresses;
    uint64_t conn;             /* dealer: of the connection to... */
    uint32_t peer;             /* ... this router */
    struct socket *found;      /* dealer: whom it found last... */
    uint64_t binds;            /* ... and net.binds then */
    uint64_t last_us;          /* dealer: arrivals keep their order, to the router... */
    uint64_t back_us;          /* ... and back */
    int hwm, to_way, back_way; /* messages on their way or unread */
    struct message *first, **last;
    struct sim_fiber *poller;
};

struct sim_net_faults sim_net_faults;
struct sim_net_counts sim_net_counts;

static struct {
    struct socket *sockets;
    uint32_t serial;
    uint64_t conns, binds;
    struct socket *of_conn[CONNS_MAX];
    int ports;
    bool cut[SIM_NODES_MAX][SIM_NODES_MAX];
    struct fd {
        bool (*ready)(void *self);
        void *self;
        struct sim_fiber *poller;
    } fd[FDS_MAX];
    int fds;
} net;

/* ---- cuts ------------------------------------------------------------------------------------ */

void sim_net_cut(int from, int to, bool cut)
{
    net.cut[from][to] = cut;
}

bool sim_net_is_cut(int from, int to)
{
    return net.cut[from][to];
}

void sim_net_heal(void)
{
    memset(net.cut, 0, sizeof net.cut);
    sim_net_faults = (struct sim_net_faults){.delay_us = 1000};
}

void sim_net_reset(void)
{
    while (net.sockets != NULL) {
        struct socket *s = net.sockets;
        net.sockets = s->next;
        while (s->first != NULL) {
            struct message *m = s->first;
            s->first = m->next;
            free(m);
        }
        free(s);
    }
    memset(net.of_conn, 0, (net.conns + 1) * sizeof net.of_conn[0]);
    net.serial = 0;
    net.conns = net.binds = 0;
    net.ports = net.fds = 0;
    sim_net_heal();
    memset(&sim_net_counts, 0, sizeof sim_net_counts);
}

/* ---- descriptors ----------------------------------------------------------------------------- */

int sim_fd_new(bool (*ready)(void *self), void *self)
{
    CHECK(net.fds < FDS_MAX);
    net.fd[net.fds] = (struct fd){ready, self, NULL};
    return FD_FIRST + net.fds++;
}

bool sim_fd_is_ours(int fd)
{
    return fd >= FD_FIRST;
}

void sim_fd_wake(int fd)
{
    sim_wake(net.fd[fd - FD_FIRST].poller);
}

void sim_fd_leave(int fd)
{
    net.fd[fd - FD_FIRST].poller = NULL;
}

/* ---- sockets --------------------------------------------------------------------------------- */

static struct socket *socket_new(struct link_options o, bool router)
{
    struct socket *s = mem_zalloc(1, sizeof *s);

    s->proc = sim_self();
    s->serial = ++net.serial;
    s->router = router;
    s->open = true;
    s->hwm = o.hwm;
    s->last = &s->first;
    s->next = net.sockets;
    net.sockets = s;
    return s;
}

static bool is_alive(const struct socket *s)
{
    return s->open && s->proc->alive;
}

/* inproc names are a process's own. */
static bool address_is(const struct socket *router, const char *address,
                       const struct sim_proc *asks)
{
    for (int i = 0; i < router->addresses; i++)
        if (strcmp(router->address[i], address) == 0 &&
            (strncmp(address, "inproc:", 7) != 0 || router->proc == asks))
            return true;
    return false;
}

WRAP(int, link_bind, void *socket, const char *address, struct err *e)
{
    struct socket *s = socket;

    (void)e;
    CHECK(s->addresses < 2);
    net.binds++;
    snprintf(s->address[s->addresses++], sizeof s->address[0], "%s", address);
    return 0;
}

WRAP(void *, link_router, struct link_options o, const char *address, char *endpoint, size_t cap,
     struct err *e)
{
    struct socket *s = socket_new(o, true);
    char text[96];

    snprintf(text, sizeof text, "%s", address);
    if (strlen(address) > 2 && strcmp(address + strlen(address) - 2, ":0") == 0)
        snprintf(text, sizeof text, "%.*s:%d", (int)strlen(address) - 2, address,
                 20000 + net.ports++);
    if (endpoint != NULL)
        snprintf(endpoint, cap, "%s", text);
    __wrap_link_bind(s, text, e);
    return s;
}

WRAP(void *, link_dealer, struct link_options o, const char *address, struct err *e)
{
    struct socket *s = socket_new(o, false);

    (void)e;
    snprintf(s->address[0], sizeof s->address[0], "%s", address);
    return s;
}

WRAP(void, link_close, void *socket)
{
    struct socket *s = socket;

    if (s != NULL) {
        s->open = false;
        net.binds += s->router;
    }
}

WRAP(void, link_context_term, void)
{
}

/* ---- sending --------------------------------------------------------------------------------- */

static void count_back(const struct message *m)
{
    if (m->to == m->dealer)
        m->dealer->back_way--;
    else if (m->dealer->conn == m->conn) /* it has no newer connection */
        m->dealer->to_way--;
}

static void on_arrival(void *self, uint64_t a, uint64_t b)
{
    struct message *m = self;
    struct socket *s = m->to;

    (void)a;
    (void)b;
    if (!is_alive(s)) {
        count_back(m);
        free(m);
        return;
    }
    m->next = NULL;
    *s->last = m;
    s->last = &m->next;
    sim_wake(s->poller);
}

static struct message *message_new(const struct link_frame *frames, int n, struct socket *dealer,
                                   struct socket *to)
{
    size_t bytes = 0, at = 0;
    struct message *m;

    for (int i = 0; i < n; i++)
        bytes += frames[i].len + 64;
    m = mem_alloc(sizeof *m + bytes);
    m->conn = dealer->conn;
    m->dealer = dealer;
    m->to = to;
    m->frames = n;
    for (int i = 0; i < n; i++) {
        m->len[i] = frames[i].len;
        if (frames[i].len > 0)
            memcpy(m->data + at, frames[i].data, frames[i].len);
        sim_mix(XXH3_64bits(m->data + at, frames[i].len));
        at += (frames[i].len + 63) / 64 * 64;
    }
    m->bytes = sizeof *m + bytes;
    return m;
}

/* What hashes and seals are for: no checksum of a network saw it. */
static void flip(struct message *m)
{
    int frame = (int)sim_draw((uint32_t)m->frames);
    size_t at = 0;

    for (int i = 0; i < frame; i++)
        at += (m->len[i] + 63) / 64 * 64;
    if (m->len[frame] == 0)
        return;
    m->data[at + sim_draw((uint32_t)m->len[frame])] ^= (char)(1 << sim_draw(8));
    sim_net_counts.flipped++;
}

static void carry(struct message *m, struct socket *from, uint64_t *order_us, int *way)
{
    const struct sim_net_faults *f = &sim_net_faults;
    int source = from->proc->node, target = m->to->proc->node;
    bool near = source == target;
    int copies = 1;

    sim_net_counts.sent++;
    if (!near && net.cut[source][target]) {
        sim_net_counts.cut++;
        copies = 0;
    } else if (!near && sim_chance(f->drop)) {
        sim_net_counts.dropped++;
        copies = 0;
    } else if (!near && sim_chance(f->twice)) {
        sim_net_counts.doubled++;
        copies = 2;
    }
    if (copies == 0)
        free(m);
    for (; copies > 0; copies--) {
        struct message *copy = copies > 1 ? memcpy(mem_alloc(m->bytes), m, m->bytes) : m;
        uint64_t at = sim_now_us() + 20 + sim_draw(near ? 50 : f->delay_us);

        if (!near && sim_chance(f->flip))
            flip(copy);

        if (!near && sim_chance(f->late)) {
            at += sim_draw(f->late_us);
            sim_net_counts.late++;
        }
        if (at < *order_us && !f->reorder)
            at = *order_us;
        else if (at < *order_us)
            sim_net_counts.reordered++;
        if (copies == 2 && source == 0 &&
            sim_chance(200)) /* an echo of a coordinator that may be gone by then */
            at = sim_now_us() + 3000000 + sim_draw(7000000);
        else
            *order_us = at > *order_us ? at : *order_us;
        (*way)++;
        sim_at(at, on_arrival, copy, 0, 0);
    }
}

/* The newest that is bound there. */
static struct socket *router_find(struct socket *s)
{
    struct socket *to = s->found;

    if (to != NULL && s->binds == net.binds && is_alive(to))
        return to;
    to = net.sockets;
    while (to != NULL && !(to->router && is_alive(to) && address_is(to, s->address[0], s->proc)))
        to = to->next;
    s->found = to;
    s->binds = net.binds;
    return to;
}

static int dealer_send(struct socket *s, const struct link_frame *frames, int n, struct err *e)
{
    struct socket *to = router_find(s);

    if (to == NULL || s->to_way >= s->hwm) {
        sim_net_counts.busy++;
        return err_set(e, ERR_BUSY, "nobody is connected, or the queue is full");
    }
    if (s->peer != to->serial) { /* a new connection, and a new routing id */
        s->peer = to->serial;
        s->conn = ++net.conns;
        CHECK(s->conn < CONNS_MAX);
        net.of_conn[s->conn] = s;
        s->to_way = s->back_way = 0;
        s->last_us = s->back_us = 0;
    }
    carry(message_new(frames, n, s, to), s, &s->last_us, &s->to_way);
    return 0;
}

static int router_send(struct socket *s, const struct link_peer *peer,
                       const struct link_frame *frames, int n, struct err *e)
{
    struct socket *to;
    uint64_t conn;

    memcpy(&conn, peer->id, sizeof conn);
    to = net.of_conn[conn];
    if (to->conn != conn || !is_alive(to) || to->peer != s->serial)
        return err_set(e, ERR_UNREACHABLE, "the peer is gone");
    if (to->back_way >= to->hwm) {
        sim_net_counts.busy++;
        return err_set(e, ERR_BUSY, "the queue is full");
    }
    carry(message_new(frames, n, to, to), s, &to->back_us, &to->back_way);
    return 0;
}

WRAP(int, link_send, void *socket, const struct link_peer *peer, const struct link_frame *frames,
     int n, struct err *e)
{
    struct socket *s = socket;
    int rc = 0;

    rc = s->router ? router_send(s, peer, frames, n, e) : dealer_send(s, frames, n, e);
    for (int i = 0; rc == 0 && i < n; i++)
        if (frames[i].free_fn != NULL)
            frames[i].free_fn(frames[i].data, frames[i].hint);
    return rc;
}

/* ---- receiving ------------------------------------------------------------------------------- */

WRAP(int, link_recv, void *socket, struct link_peer *peer, struct link_frame *frames, int *n,
     struct err *e)
{
    struct socket *s = socket;
    struct message *m = s->first;
    size_t at = 0;

    (void)e;
    *n = 0;
    if (m == NULL)
        return 0;
    s->first = m->next;
    if (s->first == NULL)
        s->last = &s->first;
    count_back(m);
    for (int i = 0; i < m->frames; i++) {
        frames[i] = (struct link_frame){.data = m->data + at, .len = m->len[i]};
        at += (m->len[i] + 63) / 64 * 64;
    }
    frames[0].msg = m;
    *n = m->frames;
    if (peer != NULL) {
        peer->len = sizeof m->conn;
        memcpy(peer->id, &m->conn, sizeof m->conn);
    }
    return 0;
}

WRAP(void, link_frames_release, struct link_frame *frames, int n)
{
    if (n > 0)
        free(frames[0].msg);
}

static uint32_t readable(void *const *sockets, int sockets_n, const int *fds, int fds_n)
{
    uint32_t mask = 0;

    for (int i = 0; i < sockets_n; i++) {
        const struct socket *s = sockets[i];
        if (s != NULL && s->first != NULL)
            mask |= 1u << i;
    }
    for (int i = 0; i < fds_n; i++) {
        const struct fd *f = sim_fd_is_ours(fds[i]) ? &net.fd[fds[i] - FD_FIRST] : NULL;
        if (f != NULL && f->ready(f->self))
            mask |= 1u << (sockets_n + i);
    }
    return mask;
}

static void pollers_set(void *const *sockets, int sockets_n, const int *fds, int fds_n,
                        struct sim_fiber *f)
{
    for (int i = 0; i < sockets_n; i++)
        if (sockets[i] != NULL)
            ((struct socket *)sockets[i])->poller = f;
    for (int i = 0; i < fds_n; i++)
        if (sim_fd_is_ours(fds[i]))
            net.fd[fds[i] - FD_FIRST].poller = f;
}

WRAP(uint32_t, link_poll, void *const *sockets, int sockets_n, const int *fds, int fds_n,
     int timeout_ms)
{
    uint64_t ms = (uint64_t)(timeout_ms > 0 && timeout_ms < POLL_MS_MIN ? POLL_MS_MIN : timeout_ms);
    uint64_t until = sim_now_us() + ms * 1000 + sim_draw(2000);
    uint32_t mask = readable(sockets, sockets_n, fds, fds_n);

    if (mask != 0 || timeout_ms == 0)
        return mask;
    pollers_set(sockets, sockets_n, fds, fds_n, sim_fiber_self());
    while (mask == 0 && sim_block(until))
        mask = readable(sockets, sockets_n, fds, fds_n);
    pollers_set(sockets, sockets_n, fds, fds_n, NULL);
    return readable(sockets, sockets_n, fds, fds_n);
}
