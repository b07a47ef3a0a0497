/* coordinator/http_artifacts: bytes go in once, hashed on the way, and come back whole, in part, or not at all. */
#include "http_fixture.h"

#include <errno.h>
#include <sys/syscall.h>

#include "base/fault.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_refused_upload_has_an_end, setup_default, teardown),
        cmocka_unit_test_setup_teardown(test_artefacts_go_in_once_and_come_back, setup_default,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_head_does_not_name_what_is_not_stored_for_good,
                                        setup_default, teardown),
        cmocka_unit_test_setup_teardown(test_a_large_artefact_and_a_broken_upload, setup_default,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_full_disk_is_507_and_reads_go_on, setup_full,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_what_the_medium_lost_is_called_damaged, setup_default,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_slow_readers_lose_their_socket, setup_slow, teardown),
    };
    return cmocka_run_group_tests_name("http_artifacts", tests, NULL, NULL);
}
