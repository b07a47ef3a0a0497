/*
 * How it works. libmicrohttpd's pool calls handle_request() for each request: first with the headers alone, then once per
 * piece of the body, then once more without a piece. A request for the reactor is suspended, put into a locked queue, and an
 * eventfd is bumped; http_answer() stores the response and resumes the connection, and the pool thread sends it.
 *
 * Deadlines. libmicrohttpd's own timeout is an inactivity timer: one byte a second holds a connection for ever, and a few
 * dozen of them hold the server. So every socket carries a deadline for the phase that it is in (head, body, send), moved
 * when the phase changes, and a sweeper thread shuts down sockets that are late. It does so under the lock under which
 * libmicrohttpd's close notice unlinks a socket, so it never touches a descriptor that has been reused. The same thread
 * answers 503 for the reactor when that is late.
 */
#include "coordinator/http.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/http_private.h"
#include "json/json.h"

#define SWEEP_MS 250

void http_count(struct http *h, uint64_t *counter, uint64_t add)
{
    (void)h;
    __atomic_fetch_add(counter, add, __ATOMIC_RELAXED);
}

void http_set_fatal(struct http *h, const char *why)
{
    uint64_t one = 1;

    pthread_mutex_lock(&h->lock);
    if (h->fatal[0] == '\0')
        snprintf(h->fatal, sizeof h->fatal, "%s", why);
    pthread_mutex_unlock(&h->lock);
    if (write(h->event_fd, &one, sizeof one) < 0)
        log_warn("http.wake_failed", "errno=%d", errno);
}

const char *http_fatal(const struct http *h)
{
    struct http *mine = (struct http *)(uintptr_t)h;
    bool set;

    pthread_mutex_lock(&mine->lock);
    set = h->fatal[0] != '\0';
    pthread_mutex_unlock(&mine->lock);
    return set ? h->fatal : NULL;
}

void http_problem(struct http_request *r, int status, const char *code, const char *fmt, ...)
{
    va_list ap;
    char text[1280];

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    buf_clear(&r->response.body);
    buf_printf(&r->response.body,
               "{\"type\":\"urn:steerlm:problem:%s\",\"status\":%d,\"code\":\"%s\",\"detail\":",
               code, status, code);
    json_quote(text, strlen(text), &r->response.body);
    buf_char(&r->response.body, '}');
    r->response.status = status;
    r->response.content_type = "application/problem+json";
    r->response.etag[0] = '\0';
    http_count(r->http, &r->http->counters.refused, 1);
}

/* ---- requests -------------------------------------------------------------------------------- */

static void request_free(struct http_request *r)
{
    blob_write_abort(&r->writer);
    free(r->target);
    free(r->path);
    free(r->query);
    free(r->method);
    free(r->content_type);
    free(r->idempotency_key);
    free(r->if_none_match);
    buf_free(&r->body);
    buf_free(&r->response.body);
    free(r);
}

static void request_unref(struct http_request *r)
{
    struct http *h = r->http;
    bool last;

    pthread_mutex_lock(&h->lock);
    last = --r->refs == 0;
    pthread_mutex_unlock(&h->lock);
    if (last)
        request_free(r);
}

static void deadline_set(struct http_request *r, uint64_t in_ms)
{
    if (r->conn != NULL)
        __atomic_store_n(&r->conn->deadline_ms, in_ms == 0 ? 0 : clock_ms() + in_ms,
                         __ATOMIC_RELAXED);
}

void http_file_begins(struct http_request *r)
{
    if (r->conn == NULL)
        return;
    __atomic_store_n(&r->conn->sent, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&r->conn->send_start_ms, clock_ms(), __ATOMIC_RELAXED);
}

/* From here on the peer may have closed its side: it has said all. */
static void busy_set(struct http_request *r, bool busy)
{
    if (r->conn != NULL)
        __atomic_store_n(&r->conn->busy, busy, __ATOMIC_RELAXED);
}

/* Called with the request line; its result becomes the request's context. */
static void *on_target(void *cls, const char *uri, struct MHD_Connection *connection)
{
    struct http *h = cls;
    struct http_request *r = mem_zalloc(1, sizeof *r);
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    r->http = h;
    r->connection = connection;
    r->conn = info != NULL ? info->socket_context : NULL;
    r->refs = 1;
    r->target = uri != NULL ? mem_strdup(uri) : NULL;
    snprintf(
        r->id, sizeof r->id, "req_%016llx",
        (unsigned long long)(h->id_base + __atomic_fetch_add(&h->id_next, 1, __ATOMIC_RELAXED)));
    return r;
}

enum MHD_Result http_send_prepared(struct http_request *r, unsigned status, struct MHD_Response *m,
                                   uint64_t bytes)
{
    enum MHD_Result rc;

    MHD_add_response_header(m, "X-Request-Id", r->id);
    MHD_add_response_header(m, "X-Content-Type-Options", "nosniff");
    if (status >= 400 && status != 404 && status != 409 && status != 422)
        MHD_add_response_header(m, MHD_HTTP_HEADER_CONNECTION, "close");
    if (status == 401)
        MHD_add_response_header(m, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    busy_set(r, true);
    deadline_set(r, r->http->config.send_ms + bytes / RATE_MIN);
    rc = MHD_queue_response(r->connection, status, m);
    MHD_destroy_response(m);
    log_debug("http.request", "id=%s method=%s path=%s status=%u", r->id,
              r->method != NULL ? r->method : "?", r->path != NULL ? r->path : "?", status);
    return rc;
}

/* A problem of the API gets the request's id here, so that it cannot be forgotten there. */
static void problem_add_id(struct http_request *r)
{
    struct buf *b = &r->response.body;
    size_t len = b->len;

    while (len > 0 && b->data[len - 1] == '\n') /* bodies of the API end with one */
        len--;
    if (strcmp(r->response.content_type, "application/problem+json") != 0 || len < 3 ||
        b->data[len - 1] != '}')
        return;
    b->len = len - 1;
    buf_printf(b, ",\"request_id\":\"%s\"}\n", r->id);
}

enum MHD_Result http_send(struct http_request *r)
{
    struct MHD_Response *m;
    size_t len;

    CHECK(r->response.status >= 200 && r->response.status < 600);
    if (r->response.content_type == NULL)
        r->response.content_type = "application/json";
    problem_add_id(r);
    len = r->response.body.len;
    m = MHD_create_response_from_buffer(len, buf_take(&r->response.body), MHD_RESPMEM_MUST_FREE);
    CHECK(m != NULL);
    if (len > 0)
        MHD_add_response_header(m, "Content-Type", r->response.content_type);
    if (r->response.etag[0] != '\0')
        MHD_add_response_header(m, "ETag", r->response.etag);
    MHD_add_response_header(m, "Cache-Control",
                            r->response.etag[0] != '\0' ? "no-cache" : "no-store");
    if (r->response.status == 503)
        MHD_add_response_header(m, "Retry-After", "1");
    return http_send_prepared(r, (unsigned)r->response.status, m, len);
}

static enum MHD_Result send_health(struct http_request *r)
{
    const char *why = __atomic_load_n(&r->http->not_ready, __ATOMIC_ACQUIRE);

    if (strcmp(r->path, "/healthz") == 0 || why == NULL) {
        r->response.status = 200;
        r->response.content_type = "application/json";
        buf_str(&r->response.body, "{\"status\":\"ok\"}");
    } else {
        http_problem(r, 503, "not_ready", "%s", why);
    }
    return http_send(r);
}

/* ---- hand-over ------------------------------------------------------------------------------- */

static void queue_put(struct http_request *r)
{
    struct http *h = r->http;
    uint64_t one = 1;

    deadline_set(r, 0); /* the reactor's time is not the client's fault */
    MHD_suspend_connection(r->connection);
    pthread_mutex_lock(&h->lock);
    if (h->stopping) {
        pthread_mutex_unlock(&h->lock);
        http_problem(r, 503, "stopping", "the coordinator is stopping");
        r->answered = true;
        MHD_resume_connection(r->connection);
        return;
    }
    r->suspended = true;
    r->refs++; /* the ticket's */
    r->reactor_deadline_ms = clock_ms() + h->config.answer_ms_max;
    r->all_prev = NULL;
    r->all_next = h->suspended;
    if (h->suspended != NULL)
        h->suspended->all_prev = r;
    h->suspended = r;
    r->next = NULL;
    *h->queue_tail = r;
    h->queue_tail = &r->next;
    pthread_mutex_unlock(&h->lock);
    if (write(h->event_fd, &one, sizeof one) < 0)
        log_warn("http.wake_failed", "errno=%d", errno);
}

/* Under the lock: the answer is in r->response; lets the pool thread send it. */
static void request_resume(struct http_request *r)
{
    struct http *h = r->http;

    if (r->all_prev != NULL)
        r->all_prev->all_next = r->all_next;
    else
        h->suspended = r->all_next;
    if (r->all_next != NULL)
        r->all_next->all_prev = r->all_prev;
    r->suspended = false;
    r->answered = true;
    MHD_resume_connection(r->connection);
}

bool http_next(struct http *h, struct api_request *q, void **ticket)
{
    struct http_request *r;
    uint64_t count;

    pthread_mutex_lock(&h->lock);
    r = h->queue_head;
    if (r != NULL) {
        h->queue_head = r->next;
        if (h->queue_head == NULL)
            h->queue_tail = &h->queue_head;
    }
    if (h->queue_head == NULL && read(h->event_fd, &count, sizeof count) < 0 && errno != EAGAIN)
        log_warn("http.event_failed", "errno=%d", errno);
    pthread_mutex_unlock(&h->lock);
    if (r == NULL)
        return false;
    *q = (struct api_request){.method = strcmp(r->method, "HEAD") == 0 ? "GET" : r->method,
                              .path = r->path,
                              .query = r->query,
                              .body = r->body.data != NULL ? r->body.data : "",
                              .body_len = r->body.len,
                              .content_type = r->content_type,
                              .idempotency_key = r->idempotency_key,
                              .if_none_match = r->if_none_match};
    *ticket = r;
    return true;
}

void http_answer(struct http *h, void *ticket, struct api_response *answer)
{
    struct http_request *r = ticket;

    CHECK(answer->status >= 200 && answer->status < 600);
    pthread_mutex_lock(&h->lock);
    if (r->suspended) {
        buf_free(&r->response.body);
        r->response = *answer;
        answer->body = (struct buf)BUF_INIT;
        request_resume(r);
    }
    pthread_mutex_unlock(&h->lock);
    buf_free(&answer->body);
    request_unref(r);
}

int http_wait_fd(const struct http *h)
{
    return h->event_fd;
}

/* ---- libmicrohttpd's callbacks --------------------------------------------------------------- */

static enum MHD_Result on_head(struct http_request *r, const char *method)
{
    int status;
    uint64_t length;

    r->checked = true;
    r->method = mem_strdup(method);
    http_count(r->http, &r->http->counters.requests, 1);
    status = request_check(r);
    if (status == 0 && strcmp(method, "PUT") == 0)
        status = artifact_put_begin(r);
    length = r->length == UINT64_MAX ? 0 : r->length;
    r->body_start_ms = clock_ms();
    deadline_set(r, BODY_GRACE_MS);
    if (status == 0)
        return MHD_YES;
    r->answered = true;
    /* A short body is read and thrown away: closing under a client that still writes would cost it the reason. */
    return length > 0 && length <= DISCARD_MAX ? MHD_YES : http_send(r);
}

static enum MHD_Result on_body(struct http_request *r, const char *bytes, size_t len)
{
    r->received += len;
    if (r->conn != NULL) /* a body earns its time as it comes */
        __atomic_store_n(&r->conn->deadline_ms,
                         r->body_start_ms + BODY_GRACE_MS + r->received / RATE_MIN,
                         __ATOMIC_RELAXED);
    if (r->writer != NULL) {
        artifact_put_bytes(r, bytes, len);
    } else if (!r->answered && r->put_code == 0) {
        if (r->received > HTTP_BODY_MAX) {
            http_problem(r, 413, "body_too_large", "a body may have %u bytes", HTTP_BODY_MAX);
            r->answered = true;
        } else {
            buf_add(&r->body, bytes, len);
        }
    } else if (r->length == UINT64_MAX &&
               (r->discarded += len) > (r->put_code != 0 ? DISCARD_PUT_MAX : DISCARD_MAX)) {
        return MHD_NO; /* no end in sight, and refused already */
    }
    return MHD_YES;
}

static enum MHD_Result on_end(struct http_request *r)
{
    busy_set(r, true);
    if (r->answered)
        return http_send(r);
    if (strcmp(r->method, "PUT") == 0) {
        artifact_put_end(r);
        return http_send(r);
    }
    if (strcmp(r->path, "/healthz") == 0 || strcmp(r->path, "/readyz") == 0)
        return send_health(r);
    if (artifact_is_path(r->path)) {
        if (strcmp(r->method, "GET") == 0 || strcmp(r->method, "HEAD") == 0)
            return artifact_get(r);
        http_problem(r, 405, "method_not_allowed", "artefacts know GET, HEAD and PUT");
        return http_send(r);
    }
    queue_put(r);
    return MHD_YES;
}

static enum MHD_Result handle_request(void *cls, struct MHD_Connection *connection, const char *url,
                                      const char *method, const char *version, const char *upload,
                                      size_t *upload_len, void **context)
{
    struct http_request *r = *context;

    (void)cls;
    (void)connection;
    (void)url;
    (void)version;
    if (r == NULL)
        return MHD_NO;
    if (!r->checked)
        return on_head(r, method);
    if (*upload_len > 0) {
        enum MHD_Result rc = on_body(r, upload, *upload_len);
        *upload_len = 0;
        return rc;
    }
    return on_end(r);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code)
{
    struct http *h = cls;
    struct http_request *r = *context;

    (void)connection;
    (void)code;
    if (r == NULL)
        return;
    *context = NULL;
    if (r->conn != NULL)
        __atomic_store_n(&r->conn->send_start_ms, 0, __ATOMIC_RELAXED);
    deadline_set(r, (uint64_t)h->config.idle_ms +
                        h->config.header_ms); /* until the next head is complete */
    busy_set(r, false);
    request_unref(r);
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http *h = cls;
    struct http_conn *c;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        int on = 1;
        c = mem_zalloc(1, sizeof *c);
        c->fd = info->connect_fd;
        c->deadline_ms = clock_ms() + h->config.header_ms;
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        pthread_mutex_lock(&h->lock);
        c->next = h->conns;
        if (h->conns != NULL)
            h->conns->prev = c;
        h->conns = c;
        pthread_mutex_unlock(&h->lock);
        *context = c;
        return;
    }
    c = *context;
    if (c == NULL)
        return;
    pthread_mutex_lock(&h->lock);
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        h->conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    pthread_mutex_unlock(&h->lock);
    free(c);
    *context = NULL;
}

static size_t keep_escapes(void *cls, struct MHD_Connection *connection, char *text)
{
    (void)cls;
    (void)connection;
    return strlen(text); /* request_target_split() decodes, strictly */
}

/* ---- deadlines ------------------------------------------------------------------------------- */

/* Data and its end that arrive together make one epoll edge; libmicrohttpd 0.9.75 takes the data and never looks for the end,
 * so a peer that is gone would hold its connection until the deadline. Twice, because the first look may fall between the
 * reading of a request's last byte and its handling. */
static bool peer_is_gone(struct http_conn *c)
{
    char byte;

    if (__atomic_load_n(&c->busy, __ATOMIC_RELAXED) ||
        recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0)
        c->ended = 0;
    else
        c->ended++;
    return c->ended >= 2;
}

/* A megabyte that waits in the socket has not been read. */
static uint64_t deadline_of(const struct http *h, const struct http_conn *c)
{
    uint64_t start = __atomic_load_n(&c->send_start_ms, __ATOMIC_RELAXED),
             sent = __atomic_load_n(&c->sent, __ATOMIC_RELAXED);
    int waiting = 0;

    if (start == 0)
        return __atomic_load_n(&c->deadline_ms, __ATOMIC_RELAXED);
    if (ioctl(c->fd, SIOCOUTQ, &waiting) != 0 || (uint64_t)waiting > sent)
        waiting = 0;
    return start + h->config.send_ms + (sent - (uint64_t)waiting) / RATE_MIN;
}

static void sweep(struct http *h, uint64_t now)
{
    struct http_request *next;

    for (struct http_conn *c = h->conns; c != NULL; c = c->next) {
        uint64_t deadline = deadline_of(h, c);
        if ((deadline != 0 && now > deadline) || peer_is_gone(c))
            shutdown(c->fd, SHUT_RDWR);
    }
    for (struct http_request *r = h->suspended; r != NULL; r = next) {
        next = r->all_next;
        if (now > r->reactor_deadline_ms || h->stopping) {
            http_problem(r, 503, "busy", "no answer within the time limit");
            request_resume(r);
        }
    }
}

static void *sweeper_main(void *arg)
{
    struct http *h = arg;

    pthread_mutex_lock(&h->lock);
    while (!h->stopping) {
        struct timespec at;
        clock_gettime(CLOCK_REALTIME, &at);
        at.tv_nsec += SWEEP_MS * 1000000L;
        if (at.tv_nsec >= 1000000000L) {
            at.tv_sec++;
            at.tv_nsec -= 1000000000L;
        }
        pthread_cond_timedwait(&h->stop_wake, &h->lock, &at);
        sweep(h, clock_ms());
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

/* ---- start and stop -------------------------------------------------------------------------- */

static void config_defaults(struct http_config *c)
{
    c->artifact_bytes_max = c->artifact_bytes_max != 0 ? c->artifact_bytes_max : UINT64_C(64) << 30;
    c->disk_reserve_bytes = c->disk_reserve_bytes != 0 ? c->disk_reserve_bytes : UINT64_C(16) << 20;
    c->threads = c->threads != 0 ? c->threads : 4;
    c->connections_max = c->connections_max != 0 ? c->connections_max : 256;
    c->connections_per_ip = c->connections_per_ip != 0 ? c->connections_per_ip : 128;
    c->header_ms = c->header_ms != 0 ? c->header_ms : 5000;
    c->idle_ms = c->idle_ms != 0 ? c->idle_ms : 15000;
    c->answer_ms_max = c->answer_ms_max != 0 ? c->answer_ms_max : 75000;
    c->send_ms = c->send_ms != 0 ? c->send_ms : 30000;
}

static int daemon_start(struct http *h, int fd, struct err *e)
{
    const struct http_config *c = &h->config;

    h->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC, 0, NULL, NULL,
        handle_request, h, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_THREAD_POOL_SIZE, c->threads,
        MHD_OPTION_CONNECTION_LIMIT, c->connections_max, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        c->connections_per_ip, MHD_OPTION_CONNECTION_TIMEOUT, (c->idle_ms + 999) / 1000,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)(96 << 10), MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_URI_LOG_CALLBACK, on_target, h, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
        h, MHD_OPTION_END);
    if (h->daemon == NULL)
        return err_set(e, ERR_SYSTEM, "the HTTP server did not start (%u threads, %u connections)",
                       c->threads, c->connections_max);
    return 0;
}

static void http_free(struct http *h)
{
    if (h->event_fd >= 0)
        close(h->event_fd);
    pthread_cond_destroy(&h->stop_wake);
    pthread_mutex_destroy(&h->lock);
    for (int i = 0; i < h->config.hosts_n; i++)
        free(h->hosts[i]);
    free(h);
}

int http_start(const struct http_config *config, struct http **out, struct err *e)
{
    struct http *h = mem_zalloc(1, sizeof *h);
    int fd = -1, rc;

    CHECK(sodium_init() >= 0);
    h->config = *config;
    config_defaults(&h->config);
    for (int i = 0; i < config->hosts_n; i++)
        h->hosts[i] = mem_strdup(config->hosts[i]);
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->stop_wake, NULL);
    h->queue_tail = &h->queue_head;
    randombytes_buf(&h->id_base, sizeof h->id_base);
    h->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (config->token != NULL)
        crypto_generichash(h->token_hash, sizeof h->token_hash,
                           (const unsigned char *)config->token, strlen(config->token), NULL, 0);
    rc = h->event_fd < 0 ? err_sys(e, "eventfd") : http_listen(h, &fd, e);
    if (rc != 0)
        goto out;
    rc = daemon_start(h, fd, e);
    if (rc != 0) {
        close(fd);
        goto out;
    }
    if (pthread_create(&h->sweeper, NULL, sweeper_main, h) != 0) {
        MHD_stop_daemon(h->daemon);
        rc = err_sys(e, "start a thread");
    }
out:
    if (rc != 0)
        http_free(h);
    else
        *out = h;
    return rc;
}

void http_stop(struct http **ph)
{
    struct http *h = *ph;
    struct http_request *r;

    if (h == NULL)
        return;
    pthread_mutex_lock(&h->lock);
    h->stopping = true;
    pthread_cond_signal(&h->stop_wake);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->sweeper, NULL); /* its last sweep has answered everything that was suspended */
    MHD_stop_daemon(h->daemon);
    while ((r = h->queue_head) != NULL) { /* tickets that the reactor never took */
        h->queue_head = r->next;
        request_unref(r);
    }
    http_free(h);
    *ph = NULL;
}

uint16_t http_port(const struct http *h)
{
    return h->port;
}

const char *http_url(const struct http *h)
{
    return h->url;
}

void http_set_ready(struct http *h, bool ready, const char *reason)
{
    __atomic_store_n(&h->not_ready, ready ? NULL : reason, __ATOMIC_RELEASE);
}

void http_counters(const struct http *h, struct http_counters *out)
{
    out->requests = __atomic_load_n(&h->counters.requests, __ATOMIC_RELAXED);
    out->refused = __atomic_load_n(&h->counters.refused, __ATOMIC_RELAXED);
    out->artifact_bytes_in = __atomic_load_n(&h->counters.artifact_bytes_in, __ATOMIC_RELAXED);
    out->artifact_bytes_out = __atomic_load_n(&h->counters.artifact_bytes_out, __ATOMIC_RELAXED);
    out->no_space = __atomic_load_n(&h->counters.no_space, __ATOMIC_RELAXED);
}
