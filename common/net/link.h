/*
 * link: ZeroMQ sockets with the options that every socket of ours has (bounded high-water marks,
 * MAXMSGSIZE, LINGER, IMMEDIATE, ROUTER_MANDATORY, heartbeats, HANDSHAKE_IVL) and frames as bytes.
 * Moves bytes that it cannot read. One context per process. After keys_use() (net/keys.h) tcp
 * sockets speak CURVE: routers as servers, dealers as clients. A socket belongs to one thread;
 * handing it over needs a full fence (pthread_create, a mutex).
 */
#ifndef NET_LINK_H
#define NET_LINK_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define LINK_PEER_MAX 64
#define LINK_FRAMES_MAX 34

void *link_context(void);     /* the process's ZeroMQ context, made on first use */
void link_context_term(void); /* after every socket is closed; waits for LINGER */

struct link_options {
    int hwm;                 /* messages each way */
    int64_t frame_bytes_max; /* MAXMSGSIZE */
    int linger_ms;
};
#define LINK_SEALED 64 /* ZeroMQ counts what CURVE adds to a frame, 33 bytes, as a part of it */
#define LINK_CONTROL ((struct link_options){1000, (64 << 10) + LINK_SEALED, 500})
#define LINK_DATA ((struct link_options){64, (16 << 20) + LINK_SEALED, 0})

/* tcp://host:port (port 0 or *: any) or inproc://name. endpoint (may be NULL): what was bound, port
 * filled in. NULL on error: ERR_INVALID (not an address), ERR_CONFLICT (in use), ERR_SYSTEM. */
void *link_router(struct link_options o, const char *bind_to, char *endpoint, size_t cap,
                  struct err *e);
void *link_dealer(struct link_options o, const char *connect_to, struct err *e);
int link_bind(void *socket, const char *bind_to,
              struct err *e);  /* one more address for a router (tcp and inproc) */
void link_close(void *socket); /* NULL is fine */

struct link_peer {
    uint8_t id[LINK_PEER_MAX]; /* routing id, opaque */
    size_t len;
};
struct link_frame {
    void *data;
    size_t len;
    void (*free_fn)(void *data, void *hint); /* send: zero-copy if not NULL (ZeroMQ calls it when
                                                done, on any thread); else the bytes are copied */
    void *hint;
    void *msg; /* receive: holder; link_frames_release() */
};

/* Sends frames to a peer (router) or the other side (dealer, peer NULL). Never blocks: ERR_BUSY at
 * the high-water mark (a dealer that is not connected counts as full), ERR_UNREACHABLE for an
 * unknown peer; on an error nothing was sent and no free_fn was called. 0: it
 * is on its way, or lost with the connection, and every free_fn is called once. To a dealer's other side
 * the first frame is always copied (CHECKed), so that this can be kept. */
int link_send(void *socket, const struct link_peer *peer, const struct link_frame *frames, int n,
              struct err *e);
/* Receives one message without blocking: *n frames into frames[LINK_FRAMES_MAX] (0 = nothing
 * there). peer: filled for routers, NULL for dealers. Too many frames: drained, ERR_LIMIT. */
int link_recv(void *socket, struct link_peer *peer, struct link_frame *frames, int *n,
              struct err *e);
void link_frames_release(struct link_frame *frames, int n);
/* Waits until one of the sockets (or fds) is readable; returns a bit mask (sockets first, then
 * fds), 0 on timeout. At most 32. */
uint32_t link_poll(void *const *sockets, int sockets_n, const int *fds, int fds_n, int timeout_ms);

#endif
