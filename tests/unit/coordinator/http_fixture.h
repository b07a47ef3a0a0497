/* http_fixture: an HTTP edge on a port of its own, a store in a temporary directory, a reactor that echoes; clients are raw sockets. */
#ifndef TESTS_HTTP_FIXTURE_H
#define TESTS_HTTP_FIXTURE_H

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "coordinator/http.h"

#define HELLO_SHA "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

static char root[64];
static struct blob_store *store;
static struct http *http;
static struct err err;
static pthread_t reactor;
static bool reactor_stop;
static int reactor_seen;
static struct http_config config;

/* Echoes what arrived; /later is answered 150 ms after it came, /never not at all before the end, /problem is one. */
static inline void *reactor_main(void *arg)
{
    void *parked[64];
    uint64_t due[64];
    int parked_n = 0;

    (void)arg;
    while (!__atomic_load_n(&reactor_stop, __ATOMIC_ACQUIRE)) {
        struct pollfd p = {http_wait_fd(http), POLLIN, 0};
        struct api_request q;
        void *ticket;
        poll(&p, 1, 10);
        while (http_next(http, &q, &ticket)) {
            struct api_response r = API_RESPONSE_INIT;
            __atomic_fetch_add(&reactor_seen, 1, __ATOMIC_RELAXED);
            if (strcmp(q.path, "/later") == 0 || strcmp(q.path, "/never") == 0) {
                due[parked_n] = strcmp(q.path, "/later") == 0 ? clock_ms() + 150 : UINT64_MAX;
                parked[parked_n++] = ticket;
                continue;
            }
            r.status = strcmp(q.path, "/problem") == 0 ? 409 : 200;
            r.content_type = r.status == 409 ? "application/problem+json" : "application/json";
            if (r.status == 409)
                buf_str(&r.body, "{\"code\":\"conflict\"}\n"); /* as the API's are */
            else
                buf_printf(&r.body, "%s|%s|%s|%.*s|%s|%s", q.method, q.path, q.query,
                           (int)q.body_len, q.body, q.content_type, q.idempotency_key);
            http_answer(http, ticket, &r);
        }
        for (int i = 0; i < parked_n; i++) {
            struct api_response r = {.status = 200};
            if (due[i] > clock_ms())
                continue;
            buf_str(&r.body, "later");
            http_answer(http, parked[i], &r);
            parked[i] = parked[--parked_n];
            due[i--] = due[parked_n];
        }
    }
    for (int i = 0; i < parked_n; i++) {
        struct api_response r = {.status = 503};
        http_answer(http, parked[i], &r);
    }
    return NULL;
}

static inline int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/test_http.XXXXXX");
    if (mkdtemp(root) == NULL || blob_open(root, &store, &err) != 0)
        return 1;
    config.listen = "127.0.0.1:0";
    config.blobs = store;
    reactor_stop = false;
    reactor_seen = 0;
    if (http_start(&config, &http, &err) != 0) {
        print_error("%s\n", err.msg);
        return 1;
    }
    return pthread_create(&reactor, NULL, reactor_main, NULL);
}

static inline int setup_quick(void **state)
{
    config = (struct http_config){
        .header_ms = 400, .idle_ms = 1000, .answer_ms_max = 300, .connections_per_ip = 8};
    return setup(state);
}

static inline int setup_default(void **state)
{
    char name[] = "steer.example";
    int rc;

    config = (struct http_config){
        .artifact_bytes_max = 4 << 20, .hosts = {"other.example", name}, .hosts_n = 2};
    rc = setup(state);
    memset(name, 'x', sizeof name - 1); /* the names were copied */
    return rc;
}

static inline int setup_slow(void **state)
{
    config = (struct http_config){.send_ms = 1500};
    return setup(state);
}

static inline int setup_token(void **state)
{
    config = (struct http_config){.token = "secret"};
    return setup(state);
}

static inline int setup_full(void **state)
{
    config = (struct http_config){.disk_reserve_bytes = UINT64_C(1) << 60};
    return setup(state);
}

static inline int teardown(void **state)
{
    (void)state;
    __atomic_store_n(&reactor_stop, true, __ATOMIC_RELEASE);
    pthread_join(reactor, NULL);
    http_stop(&http);
    blob_close(store);
    return file_remove_tree(root, &err);
}

/* small: with little memory for what it has not read, and segments that fit into it. */
static inline int dial_as(bool small)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(http_port(http))};
    struct timeval limit = {5, 0};
    int fd = socket(AF_INET, SOCK_STREAM, 0), segment = 500, room = 4096;

    if (small) {
        setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    }
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static inline int dial(void)
{
    return dial_as(false);
}

/* Sends text, reads until the server closes or `stop` is seen. */
static inline char *talk_fd(int fd, const char *text, size_t len, const char *stop)
{
    static char answer[1 << 16];
    size_t n = 0;

    while (len > 0) {
        ssize_t w = send(fd, text, len, MSG_NOSIGNAL);
        if (w <= 0)
            break;
        text += w;
        len -= (size_t)w;
    }
    while (n < sizeof answer - 1) {
        ssize_t got = recv(fd, answer + n, sizeof answer - 1 - n, 0);
        if (got <= 0)
            break;
        n += (size_t)got;
        answer[n] = '\0';
        if (stop != NULL && strstr(answer, stop) != NULL)
            break;
    }
    answer[n] = '\0';
    return answer;
}

static inline char *talk(const char *text, size_t len)
{
    int fd = dial();
    char *answer = talk_fd(fd, text, len, NULL);

    close(fd);
    return answer;
}

static inline char *talk_text(const char *text)
{
    return talk(text, strlen(text));
}

static inline int status_of(const char *answer)
{
    return strncmp(answer, "HTTP/1.1 ", 9) == 0 ? atoi(answer + 9) : 0;
}

#define H "Host: localhost\r\nConnection: close\r\n"

static inline char *artifact(const char *method, const char *sha, const char *headers,
                             const char *body, size_t len)
{
    static struct buf b;

    buf_clear(&b);
    buf_printf(&b, "%s /v1/artifacts/%s HTTP/1.1\r\n" H "%s", method, sha, headers);
    if (body != NULL)
        buf_printf(&b, "Content-Length: %zu\r\n", len);
    buf_str(&b, "\r\n");
    if (body != NULL)
        buf_add(&b, body, len);
    return talk(b.data, b.len);
}

#endif
