/* coordinator/http: the edge refuses what is ambiguous, keeps its deadlines, and hands the rest over. */
#include "http_fixture.h"

#include "base/rng.h"

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
        cmocka_unit_test_setup_teardown(test_later_answers_and_problems, setup_default, teardown),
        cmocka_unit_test_setup_teardown(test_a_key_is_asked_for, setup_token, teardown),
        cmocka_unit_test_setup_teardown(test_health_and_readiness, setup_default, teardown),
        cmocka_unit_test_setup_teardown(test_slow_clients_lose_their_socket, setup_quick, teardown),
        cmocka_unit_test_setup_teardown(test_a_late_reactor_is_answered_for, setup_quick, teardown),
        cmocka_unit_test_setup_teardown(test_connections_are_kept_and_reused, setup_default,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_noise_does_no_harm, setup_default, teardown),
        cmocka_unit_test_setup_teardown(test_bad_addresses_are_refused, setup_default, teardown),
    };
    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
