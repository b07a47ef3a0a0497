/*
 * http_private: what http.c (daemon, hand-over, deadlines), http_request.c (checks of one request) and http_artifacts.c
 * (bytes to and from the blob store) share.
 *
 * A request has two owners: libmicrohttpd's connection and, once queued, the reactor's ticket. It is freed by whoever lets go
 * last (`refs`, under http->lock).
 */
#ifndef COORDINATOR_HTTP_PRIVATE_H
#define COORDINATOR_HTTP_PRIVATE_H

#include <microhttpd.h>
#include <pthread.h>

#include "base/buf.h"
#include "base/digest.h"
#include "coordinator/http.h"

#define TARGET_MAX 8192
#define DISCARD_MAX (1u << 20)
#define DISCARD_PUT_MAX (64u << 20) /* of an upload without a length: a client looks for the answer at its end */
#define RATE_MIN 16 /* bytes a millisecond that a transfer must average, after a grace */
#define BODY_GRACE_MS 10000

struct http_conn { /* one socket */
    int fd;
    uint64_t deadline_ms; /* clock_ms(); 0: none, libmicrohttpd's idle timer alone */
    uint64_t send_start_ms, sent; /* while a file goes out: since when, and how much of it left for the socket; 0: none does */
    bool busy;            /* between the last byte of a request and the end of its answer */
    int ended;            /* sweeps that found it not busy and the peer gone */
    struct http_conn *prev, *next;
};

struct http_request { /* one request on a connection */
    struct http *http;
    struct MHD_Connection *connection;
    struct http_conn *conn;
    int refs;
    bool checked;   /* headers were looked at */
    bool suspended; /* resumed exactly once, by http_answer() or the sweeper */
    bool answered;  /* response holds the answer */
    char id[24];
    char *target; /* as sent */
    char *path, *query;
    char *method, *content_type, *idempotency_key, *if_none_match;
    struct buf body;
    uint64_t received, length; /* of the body; length UINT64_MAX: chunked */
    uint64_t discarded;        /* of a chunked one, after it was refused */
    struct api_response response;
    struct blob_writer *writer; /* PUT of an artefact */
    struct digest digest;
    int put_code; /* enum err_code of a failed write: the rest of the body is discarded */
    uint64_t reactor_deadline_ms, body_start_ms;
    struct http_request *next;                /* in the queue */
    struct http_request *all_prev, *all_next; /* suspended ones */
};

struct http {
    struct http_config config;
    struct MHD_Daemon *daemon;
    char url[128], listen_host[64], own_name[128];
    char *hosts[HTTP_HOSTS_MAX]; /* of config */
    uint16_t port;
    unsigned char token_hash[32];
    int event_fd;
    pthread_t sweeper;
    pthread_mutex_t lock;
    pthread_cond_t stop_wake;
    bool stopping;
    struct http_conn *conns;
    struct http_request *queue_head, **queue_tail, *suspended;
    uint64_t id_base, id_next;
    const char *not_ready; /* NULL: ready */
    char fatal[512];
    struct http_counters counters;
};

/* http_request.c: 0, or the status of a refusal whose problem is in r->response. */
int request_check(struct http_request *r);
bool request_target_split(struct http_request *r); /* fills path and query; false: malformed */

/* http_listen.c: from config.listen; fills port, url, listen_host, own_name. */
int http_listen(struct http *h, int *fd, struct err *e);

/* http_artifacts.c */
bool artifact_is_path(const char *path); /* "/v1/artifacts/" and anything behind it */
enum MHD_Result artifact_get(struct http_request *r);
int artifact_put_begin(struct http_request *r); /* 0, or the status of a refusal */
void artifact_put_bytes(struct http_request *r, const char *bytes, size_t len);
void artifact_put_end(struct http_request *r); /* fills r->response */

/* http.c */
enum MHD_Result http_send(struct http_request *r); /* r->response, as it is */
enum MHD_Result http_send_prepared(struct http_request *r, unsigned status, struct MHD_Response *m,
                                   uint64_t bytes);
void http_file_begins(struct http_request *r); /* its reader earns time by what it takes */
void http_problem(struct http_request *r, int status, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void http_set_fatal(struct http *h, const char *why);
void http_count(struct http *h, uint64_t *counter, uint64_t add);

#endif
