/*
 * link: ZeroMQ sockets with the options that every socket of ours has (bounded high-water marks, MAXMSGSIZE, LINGER, IMMEDIATE,
 * ROUTER_MANDATORY, heartbeats, HANDSHAKE_IVL) and frames as bytes. Moves bytes that it cannot read. One context per process.
 */
#ifndef NET_LINK_H
#define NET_LINK_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define LINK_PEER_MAX 64
#define LINK_FRAMES_MAX 34

void *link_context(void); /* the process's ZeroMQ context, made on first use */
void link_context_term(void);

struct link_options {
    int hwm;                /* messages each way */
    int64_t frame_bytes_max; /* MAXMSGSIZE */
    int linger_ms;
};
#define LINK_CONTROL ((struct link_options){1000, 64 << 10, 500})
#define LINK_DATA ((struct link_options){64, 16 << 20, 0})

void *link_router(struct link_options o, const char *bind_to, char *endpoint, size_t cap, struct err *e); /* endpoint: what was bound, port filled in */
void *link_dealer(struct link_options o, const char *connect_to, struct err *e);
void link_close(void *socket);

struct link_peer {
    uint8_t id[LINK_PEER_MAX]; /* routing id, opaque */
    size_t len;
};
struct link_frame {
    void *data;
    size_t len;
    void (*free_fn)(void *data, void *hint); /* send: zero-copy if not NULL (ZeroMQ calls it when done); else the bytes are copied */
    void *hint;
    void *msg; /* receive: holder; link_frames_release() */
};

/* Sends frames to a peer (router) or the other side (dealer, peer NULL). Never blocks: ERR_BUSY at the high-water mark, ERR_UNREACHABLE for an unknown peer. */
int link_send(void *socket, const struct link_peer *peer, struct link_frame *frames, int n, struct err *e);
/* Receives one message without blocking: *n frames (0 = nothing there). peer filled for routers. Too many frames: drained, ERR_LIMIT. */
int link_recv(void *socket, struct link_peer *peer, struct link_frame *frames, int *n, struct err *e);
void link_frames_release(struct link_frame *frames, int n);
/* Waits until one of the sockets (or fds) is readable; returns a bit mask, 0 on timeout. */
uint32_t link_poll(void *const *sockets, int sockets_n, const int *fds, int fds_n, int timeout_ms);

#endif
