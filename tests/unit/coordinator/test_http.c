/* coordinator/http: the edge refuses what is ambiguous, streams artefacts, and hands the rest over. Raw sockets throughout. */
#include <arpa/inet.h>
#include <errno.h>
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
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/rng.h"
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
static void *reactor_main(void *arg)
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

static int setup(void **state)
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

static int setup_quick(void **state)
{
    config = (struct http_config){
        .header_ms = 400, .idle_ms = 1000, .answer_ms_max = 300, .connections_per_ip = 8};
    return setup(state);
}

static int setup_default(void **state)
{
    char name[] = "steer.example";
    int rc;

    config = (struct http_config){
        .artifact_bytes_max = 4 << 20, .hosts = {"other.example", name}, .hosts_n = 2};
    rc = setup(state);
    memset(name, 'x', sizeof name - 1); /* the names were copied */
    return rc;
}

static int setup_slow(void **state)
{
    config = (struct http_config){.send_ms = 1500};
    return setup(state);
}

static int setup_token(void **state)
{
    config = (struct http_config){.token = "secret"};
    return setup(state);
}

static int setup_full(void **state)
{
    config = (struct http_config){.disk_reserve_bytes = UINT64_C(1) << 60};
    return setup(state);
}

static int teardown(void **state)
{
    (void)state;
    __atomic_store_n(&reactor_stop, true, __ATOMIC_RELEASE);
    pthread_join(reactor, NULL);
    http_stop(&http);
    blob_close(store);
    return file_remove_tree(root, &err);
}

/* small: with little memory for what it has not read, and segments that fit into it. */
static int dial_as(bool small)
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

static int dial(void)
{
    return dial_as(false);
}

/* Sends text, reads until the server closes or `stop` is seen. */
static char *talk_fd(int fd, const char *text, size_t len, const char *stop)
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

static char *talk(const char *text, size_t len)
{
    int fd = dial();
    char *answer = talk_fd(fd, text, len, NULL);

    close(fd);
    return answer;
}

static char *talk_text(const char *text)
{
    return talk(text, strlen(text));
}

static int status_of(const char *answer)
{
    return strncmp(answer, "HTTP/1.1 ", 9) == 0 ? atoi(answer + 9) : 0;
}

#define H "Host: localhost\r\nConnection: close\r\n"

static void test_requests_are_handed_over_decoded(void **state)
{
    static const struct {
        const char *request, *body;
    } cases[] = {
        {"GET /v1/jobs?state=RUNNING&x=%20 HTTP/1.1\r\n" H "\r\n",
         "GET|/v1/jobs|state=RUNNING&x=%20|||"},
        {"GET /a%20b%2Fc HTTP/1.1\r\n" H "\r\n", "GET|/a b/c||||"},
        {"POST /v1/jobs HTTP/1.1\r\n" H
         "Content-Type: application/json\r\nIdempotency-Key: k1\r\nContent-Length: 4\r\n\r\n{\"\"}",
         "POST|/v1/jobs||{\"\"}|application/json|k1"},
        {"POST /x HTTP/1.1\r\n" H
         "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
         "POST|/x||abcde||"},
        {"PATCH /x HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", "PATCH|/x||||"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *answer = talk(cases[i].request, strlen(cases[i].request));
        assert_int_equal(status_of(answer), 200);
        if (strstr(answer, cases[i].body) == NULL)
            fail_msg("%s\ngave\n%s", cases[i].request, answer);
        assert_non_null(strstr(answer, "X-Request-Id: req_"));
        assert_non_null(strstr(answer, "nosniff"));
    }
}

static void test_what_is_ambiguous_or_foreign_is_refused(void **state)
{
    static const struct {
        const char *request;
        int status;
    } cases[] = {
        {"POST /x HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
        {"POST /x HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400},
        {"POST /x HTTP/1.1\r\n" H
         "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         400},
        {"POST /x HTTP/1.1\r\n" H
         "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         400},
        {"GET /x HTTP/1.1\r\n" H "Host: localhost\r\n\r\n", 400},
        {"GET /x HTTP/1.1\r\n" H "Authorization: a\r\nAuthorization: b\r\n\r\n", 400},
        {"GET /x%00y HTTP/1.1\r\n" H "\r\n", 400},
        {"GET /x%0ay HTTP/1.1\r\n" H "\r\n", 400},
        {"GET /x%7fy HTTP/1.1\r\n" H "\r\n", 400},
        {"GET /x%ffy HTTP/1.1\r\n" H "\r\n", 400},
        {"GET /x% HTTP/1.1\r\n" H "\r\n", 400},
        {"GET /x%4 HTTP/1.1\r\n" H "\r\n", 400},
        {"GET /x%zz HTTP/1.1\r\n" H "\r\n", 400},
        {"GET x HTTP/1.1\r\n" H "\r\n", 400},
        {"GET http://evil/x HTTP/1.1\r\n" H "\r\n", 400},
        {"GET /x HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 421},
        {"GET /x HTTP/1.1\r\nHost: localhost.evil.example:80\r\nConnection: close\r\n\r\n", 421},
        {"GET /x HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n", 421},
        {"GET /x HTTP/1.1\r\nHost: [::1\r\nConnection: close\r\n\r\n", 421},
        {"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n", 400},
        {"POST /x HTTP/1.1\r\n" H "Origin: http://evil.example\r\nContent-Length: 0\r\n\r\n", 403},
        {"POST /x HTTP/1.1\r\n" H "Origin: null\r\nContent-Length: 0\r\n\r\n", 403},
        {"PUT /v1/jobs HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", 405},
        {"TRACE /x HTTP/1.1\r\n" H "\r\n", 405},
        {"OPTIONS /x HTTP/1.1\r\n" H "\r\n", 405},
        {"DELETE /v1/artifacts/" HELLO_SHA " HTTP/1.1\r\n" H "\r\n", 405},
        {"POST /x HTTP/1.1\r\n" H "Content-Length: 2000000\r\n\r\n", 413},
        {"POST /x HTTP/1.1\r\n" H "Content-Length: 99999999999999999999\r\n\r\n", 0},
        {"POST /x HTTP/1.1\r\n" H "Content-Length: -1\r\n\r\n", 400},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = dial();
        char *answer;
        send(fd, cases[i].request, strlen(cases[i].request), MSG_NOSIGNAL);
        shutdown(fd, SHUT_WR);
        answer = talk_fd(fd, "", 0, NULL);
        close(fd);
        if (cases[i].status == 0 ? status_of(answer) < 400 : status_of(answer) != cases[i].status)
            fail_msg("%s\nwanted %d, gave\n%s", cases[i].request, cases[i].status, answer);
    }
    assert_int_equal(reactor_seen, 0);
    assert_int_equal(
        status_of(talk_text("GET /x HTTP/1.1\r\nHost: [::1]:9\r\nConnection: close\r\n\r\n")), 200);
    assert_int_equal(
        status_of(talk_text("GET /x HTTP/1.1\r\n" H "Origin: http://localhost\r\n\r\n")), 200);
    assert_int_equal(status_of(talk_text(
                         "GET /x HTTP/1.1\r\nHost: Steer.example:80\r\nConnection: close\r\n\r\n")),
                     200);
}

static void test_a_body_over_the_bound_is_refused_chunk_by_chunk(void **state)
{
    struct buf b = BUF_INIT;

    (void)state;
    buf_str(&b, "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 40; i++)
        buf_printf(&b, "2000\r\n%08192d\r\n", 7);
    buf_str(&b, "0\r\n\r\n");
    assert_int_equal(status_of(talk(b.data, b.len)), 413);
    assert_int_equal(reactor_seen, 0);
    buf_free(&b);
}

/* Within reason the rest of a refused upload is read, so that its client sees the answer; it is not read for ever. */
static void test_a_refused_upload_has_an_end(void **state)
{
    static const char head[] =
        "PUT /v1/artifacts/" HELLO_SHA " HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n";
    static char chunk[(1 << 20) + 10];
    int fd = dial(), mib = 0;

    (void)state;
    memset(chunk, 'x', sizeof chunk);
    memcpy(chunk, "100000\r\n", 8);
    memcpy(chunk + sizeof chunk - 2, "\r\n", 2);
    assert_int_equal(send(fd, head, sizeof head - 1, MSG_NOSIGNAL), sizeof head - 1);
    while (mib < 200) {
        size_t n = 0;
        ssize_t w = 1;
        while (n < sizeof chunk && (w = send(fd, chunk + n, sizeof chunk - n, MSG_NOSIGNAL)) > 0)
            n += (size_t)w;
        if (w <= 0)
            break;
        mib++;
    }
    close(fd);
    assert_in_range(mib, 64,
                    100); /* 4 are its bound, 64 are thrown away, the rest is the sockets' */
}

static void test_later_answers_and_problems(void **state)
{
    uint64_t start = clock_ms();
    char *answer = talk_text("GET /later HTTP/1.1\r\n" H "\r\n"), want[128];
    const char *id = NULL;

    (void)state;
    assert_int_equal(status_of(answer), 200);
    assert_non_null(strstr(answer, "later"));
    assert_true(clock_ms() - start >= 150);
    answer = talk_text("GET /problem HTTP/1.1\r\n" H "\r\n");
    assert_int_equal(status_of(answer), 409);
    id = strstr(answer, "X-Request-Id: ");
    assert_non_null(id);
    snprintf(want, sizeof want, "{\"code\":\"conflict\",\"request_id\":\"%.*s\"}",
             (int)strcspn(id + 14, "\r"), id + 14);
    assert_non_null(strstr(answer, want));
}

static char *artifact(const char *method, const char *sha, const char *headers, const char *body,
                      size_t len)
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

static const char *body_of(const char *answer)
{
    const char *end = strstr(answer, "\r\n\r\n");

    return end != NULL ? end + 4 : "";
}

static void test_artefacts_go_in_once_and_come_back(void **state)
{
    static const struct {
        const char *range, *content_range, *body;
        int status;
    } ranges[] = {
        {"bytes=0-1", "bytes 0-1/5", "he", 206},
        {"bytes=1-", "bytes 1-4/5", "ello", 206},
        {"bytes=-2", "bytes 3-4/5", "lo", 206},
        {"bytes=-9", "bytes 0-4/5", "hello", 206},
        {"bytes=4-99", "bytes 4-4/5", "o", 206},
        {"bytes=5-", "bytes */5", "", 416},
        {"bytes=-0", "bytes */5", "", 416},
        {"bytes=3-1", NULL, "hello", 200},
        {"bytes=0-1,3-4", NULL, "hello", 200},
        {"lines=1-2", NULL, "hello", 200},
        {"bytes=a-b", NULL, "hello", 200},
        {"bytes=99999999999999999999-", NULL, "hello", 200},
        {"bytes=1-99999999999999999999", NULL, "hello", 200},
    };
    char *answer;

    (void)state;
    assert_int_equal(status_of(artifact("HEAD", HELLO_SHA, "", NULL, 0)), 404);
    assert_int_equal(status_of(artifact("PUT", HELLO_SHA, "", "jello", 5)), 422);
    assert_int_equal(status_of(artifact("GET", HELLO_SHA, "", NULL, 0)), 404);
    assert_int_equal(status_of(artifact("PUT", HELLO_SHA, "", "hello", 5)), 201);
    assert_int_equal(status_of(artifact("PUT", HELLO_SHA, "", "hello", 5)), 200);
    answer = artifact("HEAD", HELLO_SHA, "", NULL, 0);
    assert_int_equal(status_of(answer), 200);
    assert_non_null(strstr(answer, "Content-Length: 5"));
    assert_string_equal(body_of(answer), "");
    answer = artifact("GET", HELLO_SHA, "", NULL, 0);
    assert_string_equal(body_of(answer), "hello");
    assert_non_null(strstr(answer, "ETag: \"" HELLO_SHA "\""));
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        char header[96], expect[64];
        snprintf(header, sizeof header, "Range: %s\r\n", ranges[i].range);
        answer = artifact("GET", HELLO_SHA, header, NULL, 0);
        if (status_of(answer) != ranges[i].status)
            fail_msg("%s gave %s", ranges[i].range, answer);
        assert_string_equal(body_of(answer), ranges[i].body);
        snprintf(expect, sizeof expect, "Content-Range: %s\r\n", ranges[i].content_range);
        if (ranges[i].content_range != NULL)
            assert_non_null(strstr(answer, expect));
    }
    assert_int_equal(status_of(artifact("GET", "..%2f..%2fetc%2fpasswd", "", NULL, 0)), 400);
    assert_int_equal(status_of(artifact("GET", "abc", "", NULL, 0)), 400);
    assert_int_equal(status_of(artifact("PUT", "abc", "", "x", 1)), 400);
    assert_int_equal(reactor_seen, 0);
}

static void test_head_does_not_name_what_is_not_stored_for_good(void **state)
{
    struct digest d;

    (void)state;
    assert_int_equal(fault_set("blob.dirsync.before:1:err=eio", &err), 0);
    assert_int_equal(blob_put_bytes(store, "hello", 5, &d, &err), ERR_IO);
    assert_int_equal(fault_set(NULL, &err), 0);
    assert_int_equal(status_of(artifact("HEAD", HELLO_SHA, "", NULL, 0)), 404);
    assert_int_equal(status_of(artifact("PUT", HELLO_SHA, "", "hello", 5)), 201);
    assert_int_equal(status_of(artifact("HEAD", HELLO_SHA, "", NULL, 0)), 200);
}

static void test_a_large_artefact_and_a_broken_upload(void **state)
{
    size_t len = 3 << 20;
    char *bytes = mem_zalloc(len, 1);
    struct digest d;
    struct buf b = BUF_INIT, back = BUF_INIT;
    int fd = dial();

    (void)state;
    for (size_t i = 0; i < len; i++)
        bytes[i] = (char)(i * 2654435761u >> 13);
    digest_bytes(bytes, len, &d);
    buf_printf(&b, "PUT /v1/artifacts/%s HTTP/1.1\r\n" H "Content-Length: %zu\r\n\r\n", d.hex, len);
    buf_add(&b, bytes, len);
    send(fd, b.data, b.len / 2, MSG_NOSIGNAL); /* and the client dies */
    close(fd);
    assert_int_equal(status_of(artifact("HEAD", d.hex, "", NULL, 0)), 404);
    assert_int_equal(status_of(talk(b.data, b.len)), 201);
    assert_int_equal(blob_read(store, d.hex, len, &back, &err), 0);
    assert_memory_equal(back.data, bytes, len);
    buf_clear(&b);
    buf_printf(&b, "PUT /v1/artifacts/%s HTTP/1.1\r\n" H "Content-Length: %u\r\n\r\n", d.hex,
               (4u << 20) + 1);
    assert_int_equal(status_of(talk(b.data, b.len)), 413);
    buf_free(&b);
    buf_free(&back);
    free(bytes);
}

static void test_a_full_disk_is_507_and_reads_go_on(void **state)
{
    struct digest d;
    struct http_counters n;

    (void)state;
    assert_int_equal(status_of(artifact("PUT", HELLO_SHA, "", "hello", 5)), 507);
    assert_int_equal(blob_put_bytes(store, "hello", 5, &d, &err), 0);
    assert_int_equal(status_of(artifact("GET", HELLO_SHA, "", NULL, 0)), 200);
    http_counters(http, &n);
    assert_int_equal(n.no_space, 1);
    assert_null(http_fatal(http));
}

static void test_a_key_is_asked_for(void **state)
{
    (void)state;
    assert_int_equal(status_of(talk_text("GET /x HTTP/1.1\r\n" H "\r\n")), 401);
    assert_int_equal(status_of(artifact("GET", HELLO_SHA, "", NULL, 0)), 401);
    assert_int_equal(
        status_of(artifact("GET", HELLO_SHA, "Authorization: Bearer secret2\r\n", NULL, 0)), 401);
    assert_int_equal(
        status_of(artifact("GET", HELLO_SHA, "Authorization: Basic secret\r\n", NULL, 0)), 401);
    assert_int_equal(reactor_seen, 0);
    assert_int_equal(
        status_of(artifact("GET", HELLO_SHA, "Authorization: Bearer secret\r\n", NULL, 0)), 404);
    assert_int_equal(status_of(talk_text("GET /healthz HTTP/1.1\r\n" H "\r\n")), 200);
}

static void test_health_and_readiness(void **state)
{
    (void)state;
    assert_int_equal(status_of(talk_text("GET /readyz HTTP/1.1\r\n" H "\r\n")), 200);
    http_set_ready(http, false, "recovering");
    assert_int_equal(status_of(talk_text("GET /readyz HTTP/1.1\r\n" H "\r\n")), 503);
    assert_int_equal(status_of(talk_text("GET /healthz HTTP/1.1\r\n" H "\r\n")), 200);
    http_set_ready(http, true, NULL);
    assert_int_equal(status_of(talk_text("GET /readyz HTTP/1.1\r\n" H "\r\n")), 200);
}

static void test_slow_clients_lose_their_socket(void **state)
{
    int trickle[6];
    uint64_t start = clock_ms();
    bool closed = false;

    (void)state;
    for (int i = 0; i < 6; i++)
        trickle[i] = dial();
    while (!closed &&
           clock_ms() - start < 4000) { /* a byte now and then never lets an idle timer fire */
        closed = true;
        for (int i = 0; i < 6; i++) {
            char c;
            send(trickle[i], "G", 1, MSG_NOSIGNAL);
            closed = closed && recv(trickle[i], &c, 1, MSG_DONTWAIT) == 0;
        }
        clock_sleep_ms(50);
    }
    assert_true(closed);
    assert_true(clock_ms() - start < 10000);
    for (int i = 0; i < 6; i++)
        close(trickle[i]);
    assert_int_equal(status_of(talk_text("GET /x HTTP/1.1\r\n" H "\r\n")), 200);
}

/* The medium: read() at an offset fails with EIO from medium_bad on. Stands in for libc's. */
static off_t medium_bad = -1;

ssize_t pread(int fd, void *out, size_t n, off_t at)
{
    if (medium_bad >= 0 && at + (off_t)n > medium_bad) {
        if (at >= medium_bad) {
            errno = EIO;
            return -1;
        }
        n = (size_t)(medium_bad - at);
    }
    return (ssize_t)syscall(SYS_pread64, fd, out, n, at);
}

static void test_what_the_medium_lost_is_called_damaged(void **state)
{
    size_t len = 40000;
    char *bytes = mem_zalloc(len, 1), request[256], *answer;
    struct digest d;
    uint64_t start;

    (void)state;
    memset(bytes, 'x', len);
    assert_int_equal(blob_put_bytes(store, bytes, len, &d, &err), 0);
    snprintf(request, sizeof request, "GET /v1/artifacts/%s HTTP/1.1\r\n" H "\r\n", d.hex);
    medium_bad = 0;
    answer = talk_text(request);
    assert_int_equal(status_of(answer), 422);
    assert_non_null(strstr(answer, "damaged"));
    medium_bad = 20000; /* found while it is sent: the connection ends, nobody waits for the rest */
    start = clock_ms();
    answer = talk_text(request);
    assert_int_equal(status_of(answer), 200);
    answer = strstr(answer, "\r\n\r\n");
    assert_non_null(answer);
    assert_true(strlen(answer + 4) <= 20000); /* the body has no NUL */
    assert_true(clock_ms() - start < 3000);
    medium_bad = -1;
    free(bytes);
}

/* 100 bytes every 100 ms for so long, then the rest as fast as it comes: what the server's socket still held, if it was closed. Returns
 * how many bytes came. */
static size_t read_slowly(const char *sha, uint64_t slow_ms)
{
    static char piece[64 << 10];
    char request[256];
    int fd = dial_as(true);
    uint64_t start = clock_ms();
    size_t n = 0;
    ssize_t got = 1;

    snprintf(request, sizeof request, "GET /v1/artifacts/%s HTTP/1.1\r\n" H "\r\n", sha);
    send(fd, request, strlen(request), MSG_NOSIGNAL);
    while (got > 0 && clock_ms() - start < slow_ms) {
        got = recv(fd, piece, 100, 0);
        n += got > 0 ? (size_t)got : 0;
        clock_sleep_ms(100);
    }
    while (got > 0) {
        got = recv(fd, piece, sizeof piece, 0);
        n += got > 0 ? (size_t)got : 0;
    }
    close(fd);
    return n;
}

static void test_slow_readers_lose_their_socket(void **state)
{
    size_t len = 16 << 20;
    char *bytes = mem_zalloc(len, 1);
    struct digest d;

    (void)state;
    assert_int_equal(blob_put_bytes(store, bytes, len, &d, &err), 0);
    assert_true(read_slowly(d.hex, 500) > len); /* in time */
    assert_true(read_slowly(d.hex, 8000) < len);
    free(bytes);
}

static void test_a_late_reactor_is_answered_for(void **state)
{
    uint64_t start = clock_ms();

    (void)state;
    assert_int_equal(status_of(talk_text("GET /never HTTP/1.1\r\n" H "\r\n")), 503);
    assert_in_range(clock_ms() - start, 290, 7500);
}

static void test_connections_are_kept_and_reused(void **state)
{
    static const char ask[] = "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n";
    int fd = dial();

    (void)state;
    for (int i = 0; i < 200; i++) {
        char *answer = talk_fd(fd, ask, strlen(ask), "GET|/x|");
        assert_int_equal(status_of(answer), 200);
    }
    close(fd);
}

/* Good requests with bytes changed, cut or put in, and plain noise: whatever comes, the next client is served. */
static void test_noise_does_no_harm(void **state)
{
    static const char *const seeds[] = {
        "GET /v1/jobs?limit=3 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nabcd",
        "POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: "
        "chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "PUT /v1/artifacts/" HELLO_SHA
        " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        "GET /v1/artifacts/" HELLO_SHA " HTTP/1.1\r\nHost: localhost\r\nRange: bytes=1-2\r\n\r\n",
    };

    (void)state;
    for (uint32_t i = 0; i < 600; i++) {
        const char *seed = seeds[i % 5];
        size_t len = strlen(seed);
        char *text = mem_strndup(seed, len);
        int fd = dial();
        for (uint32_t k = 0; k < 1 + i % 7; k++)
            text[rng_below(7, RNG_TEST, i, k, 0, (uint32_t)len)] =
                (char)rng_below(7, RNG_TEST, i, k, 1, 256);
        if (i % 3 == 0)
            len = rng_below(7, RNG_TEST, i, 0, 2, (uint32_t)len + 1);
        send(fd, text, len, MSG_NOSIGNAL);
        close(fd);
        free(text);
        if (i % 50 == 49) { /* a full table of connections turns newcomers away, for a moment */
            int status = 0;
            uint64_t start = clock_ms();
            while (status != 200 && clock_ms() - start < 3000)
                status = status_of(talk_text("GET /x HTTP/1.1\r\n" H "\r\n"));
            assert_int_equal(status, 200);
        }
    }
}

static void test_bad_addresses_are_refused(void **state)
{
    static const struct {
        const char *listen;
        int code;
    } cases[] = {
        {"", ERR_INVALID},
        {"127.0.0.1", ERR_INVALID},
        {":80", ERR_INVALID},
        {"127.0.0.1:", ERR_INVALID},
        {"127.0.0.1:x", ERR_INVALID},
        {"127.0.0.1:65536", ERR_INVALID},
        {"host.name:80", ERR_INVALID},
        {"[::1:80", ERR_INVALID},
        {"0.0.0.0:0", ERR_DENIED},
        {"[::]:0", ERR_DENIED},
    };
    struct http *other = NULL;
    struct http_config c = {.blobs = store};
    char taken[64];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        c.listen = cases[i].listen;
        assert_int_equal(http_start(&c, &other, &err), cases[i].code);
        assert_null(other);
    }
    snprintf(taken, sizeof taken, "127.0.0.1:%u", http_port(http));
    c.listen = taken;
    assert_int_equal(http_start(&c, &other, &err), ERR_CONFLICT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_requests_are_handed_over_decoded, setup_default,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_what_is_ambiguous_or_foreign_is_refused, setup_default,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_body_over_the_bound_is_refused_chunk_by_chunk,
                                        setup_default, teardown),
        cmocka_unit_test_setup_teardown(test_a_refused_upload_has_an_end, setup_default, teardown),
        cmocka_unit_test_setup_teardown(test_later_answers_and_problems, setup_default, teardown),
        cmocka_unit_test_setup_teardown(test_artefacts_go_in_once_and_come_back, setup_default,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_head_does_not_name_what_is_not_stored_for_good,
                                        setup_default, teardown),
        cmocka_unit_test_setup_teardown(test_a_large_artefact_and_a_broken_upload, setup_default,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_full_disk_is_507_and_reads_go_on, setup_full,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_key_is_asked_for, setup_token, teardown),
        cmocka_unit_test_setup_teardown(test_health_and_readiness, setup_default, teardown),
        cmocka_unit_test_setup_teardown(test_slow_clients_lose_their_socket, setup_quick, teardown),
        cmocka_unit_test_setup_teardown(test_what_the_medium_lost_is_called_damaged, setup_default,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_slow_readers_lose_their_socket, setup_slow, teardown),
        cmocka_unit_test_setup_teardown(test_a_late_reactor_is_answered_for, setup_quick, teardown),
        cmocka_unit_test_setup_teardown(test_connections_are_kept_and_reused, setup_default,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_noise_does_no_harm, setup_default, teardown),
        cmocka_unit_test_setup_teardown(test_bad_addresses_are_refused, setup_default, teardown),
    };
    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
