/*
 * http: the HTTP edge of the coordinator (libmicrohttpd threads). It parses, bounds and refuses requests, streams artefacts
 * to and from the blob store by itself, and hands every other request to the reactor thread, which answers now or later:
 *
 *     poll on http_wait_fd(h); when it is readable:
 *     while (http_next(h, &q, &ticket)) {
 *         struct api_response r = API_RESPONSE_INIT;
 *         api_handle(c, &q, &r);
 *         if (r.wait)                          long poll: keep the ticket (and a copy of what is needed of q)
 *             ...
 *         else
 *             http_answer(h, ticket, &r);      takes r.body
 *     }
 *
 * The strings of q live until http_answer() of its ticket. Every ticket is answered exactly once, whatever became of the
 * client: a client that went away is http.c's business. A request that the reactor does not answer within
 * answer_ms_max gets 503 and its later answer is dropped, so a ticket never dangles.
 *
 * Threads: http_start, http_next, http_answer, http_stop belong to the reactor thread; http_set_ready to any.
 *
 * Refused before the reactor hears of it (application/problem+json): unknown method (405), target over 8 KiB or with
 * control bytes or bad escapes (400), duplicate Content-Length, Host, Authorization or Transfer-Encoding, or
 * Content-Length with Transfer-Encoding (400), Host that is neither an address nor one of our names (421: DNS rebinding),
 * foreign Origin (403), missing or wrong key (401), body over 256 KiB (413). HEAD arrives as GET. Every answer has
 * X-Request-Id, and a problem has it as request_id.
 */
#ifndef COORDINATOR_HTTP_H
#define COORDINATOR_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "coordinator/api.h"
#include "store/blob.h"

#define HTTP_BODY_MAX (256u << 10)
#define HTTP_HOSTS_MAX 16

struct http_config {
    const char
        *listen; /* "127.0.0.1:7780", "[::1]:0", "0.0.0.0:7780"; port 0: the kernel chooses */
    const char *hosts
        [HTTP_HOSTS_MAX]; /* further names allowed in Host, without port, copied; loopback names and the listen address always are */
    int hosts_n;
    struct blob_store *blobs;    /* borrowed; artefacts */
    uint64_t artifact_bytes_max; /* largest single PUT; 0 = 64 GiB */
    uint64_t
        disk_reserve_bytes; /* a PUT that would leave less free gets 507, so that the journal can still write; 0 = 16 MiB */
    const char
        *token; /* bearer secret; NULL: no key asked, allowed on loopback only (else ERR_DENIED) */
    uint32_t threads;            /* of the pool; 0 = 4: an fsync holds one up */
    uint32_t connections_max;    /* 0 = 256 */
    uint32_t connections_per_ip; /* 0 = 128: one machine may hold many workers */
    uint32_t header_ms,
        idle_ms;            /* 0 = 5000, 15000: headers must be complete; a transfer must move */
    uint32_t answer_ms_max; /* 0 = 75000 */
    uint32_t send_ms;       /* 0 = 30000: what a reader has beyond 16 bytes a millisecond */
};

struct http;
/* Listens when it returns 0. ERR_INVALID (address), ERR_CONFLICT (port in use), ERR_DENIED (no key beyond loopback), ERR_SYSTEM. */
int http_start(const struct http_config *config, struct http **out, struct err *e);
/* Stops listening, answers 503 to what was not taken yet, joins the threads. The reactor answers the tickets that it holds before. */
void http_stop(struct http **h);
uint16_t http_port(const struct http *h);
/* Base URL that a client on this machine can use: "http://127.0.0.1:41234". */
const char *http_url(const struct http *h);

int http_wait_fd(
    const struct http *
        h); /* an eventfd, readable while http_next() has something (or had: spurious is possible) */
bool http_next(struct http *h, struct api_request *q, void **ticket);
/* Takes r->body. r->status 0 is our mistake (CHECKed). An empty body is sent as none. */
void http_answer(struct http *h, void *ticket, struct api_response *r);

/* What GET /readyz says: 200, or 503 with the reason ("recovering", "disk full"; a literal). /healthz is 200 while threads live. */
void http_set_ready(struct http *h, bool ready, const char *reason);

/* NULL, or why the blob store can no longer be trusted (EIO, failed fsync): the daemon must stop. http_wait_fd() wakes then. */
const char *http_fatal(const struct http *h);

struct http_counters {
    uint64_t requests, refused, artifact_bytes_in, artifact_bytes_out, no_space;
};
void http_counters(const struct http *h, struct http_counters *out);

#endif
