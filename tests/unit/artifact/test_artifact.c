/* artifact: against the real HTTP edge, directly and through a wire that breaks. */
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "artifact/artifact.h"
#include "base/clock.h"
#include "base/file.h"
#include "coordinator/http.h"

#define ABSENT "0000000000000000000000000000000000000000000000000000000000000001"
#define BIG (3u << 20)

static char root[64], path[5000];
static struct blob_store *there, *here;
static struct http *http;
static struct artifact_client *client;
static struct err err;
static char *big;

static const char *at(const char *name)
{
    static char text[8][512];
    static int i;

    i = (i + 1) % 8;
    snprintf(text[i], sizeof text[i], "%s/%s", root, name);
    return text[i];
}

static int server_start(const char *token, uint64_t reserve)
{
    struct http_config c = {
        .listen = "127.0.0.1:0", .blobs = there, .token = token, .disk_reserve_bytes = reserve};

    return http_start(&c, &http, &err);
}

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/test_artifact.XXXXXX");
    if (mkdtemp(root) == NULL || blob_open(at("there"), &there, &err) != 0 ||
        blob_open(at("here"), &here, &err) != 0 || server_start(NULL, 0) != 0)
        return 1;
    big = mem_zalloc(BIG, 1);
    for (size_t i = 0; i < BIG; i++)
        big[i] = (char)(i * 2654435761u >> 15);
    return artifact_client_new(http_url(http), here, at("trees"), &client, &err);
}

static int teardown(void **state)
{
    (void)state;
    artifact_client_free(client);
    http_stop(&http);
    blob_close(there);
    blob_close(here);
    free(big);
    return file_remove_tree(root, &err);
}

static void write_file(const char *name, const char *bytes, size_t len)
{
    char *dir = strdup(at(name));

    *strrchr(dir, '/') = '\0';
    assert_int_equal(file_make_dirs(dir, &err), 0);
    assert_int_equal(file_write_atomic(at(name), bytes, len, &err), 0);
    free(dir);
}

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        if ((call) != 0)                                                                           \
            fail_msg("%s: %s", #call, err.msg);                                                    \
    } while (0)

static uint64_t sent_last;
static void on_sent(void *self, uint64_t bytes)
{
    (void)self;
    sent_last = bytes;
}

static void test_a_file_travels_there_and_back(void **state)
{
    struct digest d;
    struct http_counters n;
    char path2[5000];

    (void)state;
    write_file("big", big, BIG);
    assert_ok(artifact_publish(client, at("big"), 5000, &d, on_sent, NULL, &err));
    assert_int_equal(sent_last, BIG);
    assert_true(blob_has(there, d.hex));
    assert_ok(artifact_publish(client, at("big"), 5000, &d, NULL, NULL, &err));
    http_counters(http, &n);
    assert_int_equal(n.artifact_bytes_in, BIG); /* the second time nothing was sent */
    blob_path(here, d.hex, path, sizeof path);
    assert_int_equal(unlink(path), 0);
    assert_ok(artifact_fetch(client, d.hex, 5000, path2, sizeof path2, &err));
    assert_string_equal(path, path2);
    assert_int_equal(blob_verify(here, d.hex, &err), 0);
}

static void test_a_tree_travels_and_is_laid_out_once(void **state)
{
    struct digest d;
    struct buf b = BUF_INIT;
    char again[5000];
    struct http_counters n;

    (void)state;
    write_file("m/config.json", "{}", 2);
    write_file("m/w/model", big, 100000);
    assert_ok(artifact_publish(client, at("m"), 5000, &d, on_sent, NULL, &err));
    assert_true(sent_last > 100002);
    assert_int_equal(file_remove_tree(at("here"), &err), 0);
    blob_close(here);
    artifact_client_free(client);
    assert_ok(blob_open(at("here"), &here, &err));
    assert_ok(artifact_client_new(http_url(http), here, at("trees"), &client, &err));
    assert_ok(artifact_fetch(client, d.hex, 5000, path, sizeof path, &err));
    assert_non_null(strstr(path, "/trees/"));
    assert_ok(file_read(strcat(strcpy(again, path), "/config.json"), 10, &b, &err));
    assert_string_equal(b.data, "{}");
    http_counters(http, &n);
    assert_ok(artifact_fetch(client, d.hex, 5000, again, sizeof again, &err));
    assert_string_equal(path, again);
    {
        struct http_counters m;
        http_counters(http, &m);
        assert_int_equal(m.requests, n.requests); /* all of it was here */
    }
    buf_free(&b);
}

static void test_damage_in_the_cache_is_replaced(void **state)
{
    struct digest d;

    (void)state;
    assert_ok(blob_put_bytes(there, "hello", 5, &d, &err));
    assert_ok(artifact_fetch(client, d.hex, 2000, path, sizeof path, &err));
    assert_ok(file_write_atomic(path, "jello", 5, &err));
    artifact_client_free(client);
    assert_ok(artifact_client_new(http_url(http), here, at("trees"), &client, &err));
    assert_ok(artifact_fetch(client, d.hex, 2000, path, sizeof path, &err));
    assert_ok(blob_verify(here, d.hex, &err));
}

static void test_what_was_published_can_be_forgotten_and_fetched_again(void **state)
{
    struct digest d;

    (void)state;
    write_file("part", "hello", 5);
    assert_ok(artifact_publish(client, at("part"), 2000, &d, NULL, NULL, &err));
    artifact_forget(client, d.hex);
    assert_false(blob_has(here, d.hex));
    assert_true(blob_has(there, d.hex));
    assert_ok(artifact_fetch(client, d.hex, 2000, path, sizeof path, &err));
    assert_ok(blob_verify(here, d.hex, &err));
}

/* The copy of a process that is gone is damaged, in the cache and with it in the tree. */
static void test_a_damaged_file_of_a_tree_is_replaced(void **state)
{
    struct digest tree, file;
    struct buf b = BUF_INIT;
    char name[5100];
    FILE *f;

    (void)state;
    write_file("m/config", "hello", 5);
    assert_ok(blob_put_tree(there, at("m"), &tree, &err));
    digest_bytes("hello", 5, &file);
    assert_ok(artifact_fetch(client, tree.hex, 2000, path, sizeof path, &err));
    artifact_client_free(client);
    assert_ok(artifact_client_new(http_url(http), here, at("trees"), &client, &err));
    blob_path(here, file.hex, name, sizeof name);
    assert_int_equal(chmod(name, 0644), 0);
    f = fopen(name, "r+"); /* in place: all links show it */
    assert_non_null(f);
    assert_int_equal(fwrite("j", 1, 1, f), 1);
    fclose(f);
    assert_ok(artifact_fetch(client, tree.hex, 2000, path, sizeof path, &err));
    snprintf(name, sizeof name, "%s/config", path);
    assert_ok(file_read(name, 10, &b, &err));
    assert_string_equal(b.data, "hello");
    buf_free(&b);
}

static void test_what_cannot_be_had_is_named(void **state)
{
    struct digest d;
    uint64_t start;
    char bad[5000];

    (void)state;
    assert_int_equal(artifact_fetch(client, ABSENT, 2000, path, sizeof path, &err), ERR_NOT_FOUND);
    assert_int_equal(artifact_fetch(client, "../x", 2000, path, sizeof path, &err), ERR_INVALID);
    assert_int_equal(artifact_publish(client, at("nothing"), 2000, &d, NULL, NULL, &err),
                     ERR_NOT_FOUND);
    assert_ok(blob_put_bytes(there, "hello", 5, &d, &err));
    blob_path(there, d.hex, bad, sizeof bad);
    assert_ok(file_write_atomic(bad, "jello", 5, &err));
    assert_int_equal(artifact_fetch(client, d.hex, 2000, path, sizeof path, &err), ERR_CORRUPT);
    assert_false(blob_has(here, d.hex));
    artifact_client_set_url(client, "http://127.0.0.1:1");
    start = clock_ms();
    assert_int_equal(artifact_fetch(client, d.hex, 400, path, sizeof path, &err), ERR_UNREACHABLE);
    assert_in_range(clock_ms() - start, 100, 10000);
    artifact_client_set_url(client, "file:///etc/passwd");
    assert_int_equal(artifact_fetch(client, d.hex, 200, path, sizeof path, &err), ERR_UNREACHABLE);
}

static void test_a_full_disk_and_a_key(void **state)
{
    struct digest d;

    (void)state;
    http_stop(&http);
    assert_ok(server_start("secret", UINT64_C(1) << 60));
    artifact_client_set_url(client, http_url(http));
    write_file("f", "hello", 5);
    assert_int_equal(artifact_publish(client, at("f"), 2000, &d, NULL, NULL, &err), ERR_DENIED);
    artifact_client_set_token(client, "secret");
    assert_int_equal(artifact_publish(client, at("f"), 2000, &d, NULL, NULL, &err), ERR_NO_SPACE);
}

/* ---- a wire that breaks ---------------------------------------------------------------------- */

/* Forwards, and cuts the first `cuts` connections after `after` bytes of the answer; waits slow_ms
 * before each 16 KiB; flips a bit of so many of the requests that hold `big`. */
struct wire {
    int listen_fd, cuts, connections, slow_ms, flips;
    size_t after, up;
    const char *rot; /* this file has other bytes from the first connection on */
    uint16_t port;
    bool stop;
    pthread_t thread;
};

/* In the middle of each `big`: what else goes up is far too little to get there. */
static void flip(struct wire *w, char *block, size_t n)
{
    size_t middle = w->up / BIG * BIG + BIG / 2;
    bool is_there = w->up <= middle && middle < w->up + n;

    w->up += n;
    if (is_there && w->flips > 0) {
        w->flips--;
        block[0] ^= 1;
    }
}

static void rot(struct wire *w)
{
    char *bytes = mem_zalloc(BIG, 1);
    struct err e;

    if (w->rot != NULL)
        file_write_atomic(w->rot, bytes, BIG, &e);
    w->rot = NULL;
    free(bytes);
}

static void pump(struct wire *w, int from, int to)
{
    static char block[16384];
    size_t down = 0;
    bool cut = w->cuts-- > 0;

    for (;;) {
        struct pollfd p[2] = {{from, POLLIN, 0}, {to, POLLIN, 0}};
        ssize_t n;
        if (poll(p, 2, 2000) <= 0)
            return;
        for (int i = 0; i < 2; i++) {
            if (p[i].revents == 0)
                continue;
            clock_sleep_ms((uint64_t)w->slow_ms);
            n = recv(p[i].fd, block, sizeof block, 0);
            if (n > 0 && i == 0)
                flip(w, block, (size_t)n);
            if (n <= 0 || send(i == 0 ? to : from, block, (size_t)n, MSG_NOSIGNAL) != n)
                return;
            down += i == 1 ? (size_t)n : 0;
            if (cut && down > w->after)
                return;
        }
    }
}

static int tcp(uint16_t port, bool listening)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(listening ? bind(fd, (struct sockaddr *)&a, sizeof a) | listen(fd, 8)
                               : connect(fd, (struct sockaddr *)&a, sizeof a),
                     0);
    return fd;
}

static void *wire_main(void *arg)
{
    struct wire *w = arg;

    while (!__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE)) {
        struct pollfd p = {w->listen_fd, POLLIN, 0};
        int from, to;
        if (poll(&p, 1, 20) <= 0)
            continue;
        from = accept(w->listen_fd, NULL, NULL);
        to = tcp(http_port(http), false);
        w->connections++;
        rot(w);
        pump(w, from, to);
        close(from);
        close(to);
    }
    return NULL;
}

static void wire_begin(struct wire *w)
{
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    char url[64];

    w->listen_fd = tcp(0, true);
    getsockname(w->listen_fd, (struct sockaddr *)&a, &len);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", ntohs(a.sin_port));
    assert_int_equal(pthread_create(&w->thread, NULL, wire_main, w), 0);
    artifact_client_set_url(client, url);
}

static void wire_end(struct wire *w)
{
    artifact_client_free(client); /* closes kept connections, which ends the pump */
    client = NULL;
    __atomic_store_n(&w->stop, true, __ATOMIC_RELEASE);
    pthread_join(w->thread, NULL);
    close(w->listen_fd);
}

/* Fetches by way of the wire, which is over then. */
static void wire_fetch(struct wire *w, const struct digest *d, uint64_t patience_ms)
{
    wire_begin(w);
    assert_ok(artifact_fetch(client, d->hex, patience_ms, path, sizeof path, &err));
    wire_end(w);
    assert_ok(blob_verify(here, d->hex, &err));
}

static void test_a_broken_download_goes_on_where_it_stopped(void **state)
{
    struct wire w = {.cuts = 3, .after = 600000};
    struct http_counters n;
    struct digest d;

    (void)state;
    assert_ok(blob_put_bytes(there, big, BIG, &d, &err));
    wire_fetch(&w, &d, 8000);
    assert_int_equal(w.connections, 4);
    http_counters(http, &n);
    /* Offered, by ranges: the whole, then what was missing three times; whole files four times would be 4 BIG. */
    assert_true(n.artifact_bytes_out < (uint64_t)BIG * 4 - 3 * 600000);
}

static void test_a_slow_download_outlasts_the_patience_while_bytes_come(void **state)
{
    struct wire w = {.slow_ms = 5};
    uint64_t start = clock_ms();
    struct digest d;

    (void)state;
    assert_ok(blob_put_bytes(there, big, BIG, &d, &err));
    wire_fetch(&w, &d, 400);
    assert_true(clock_ms() - start > 400);
    assert_true(w.connections > 1);
}

static void test_an_upload_that_the_wire_changes_goes_again(void **state)
{
    struct wire w = {.flips = 2};
    struct digest d;

    (void)state;
    write_file("big", big, BIG);
    wire_begin(&w);
    assert_ok(artifact_publish(client, at("big"), 8000, &d, on_sent, NULL, &err));
    wire_end(&w);
    assert_int_equal(w.flips, 0);
    assert_int_equal(sent_last, BIG);
    assert_ok(blob_verify(there, d.hex, &err));
}

static void test_a_wire_that_changes_every_upload_is_given_up(void **state)
{
    struct wire w = {.flips = 100};
    struct digest d;

    (void)state;
    wire_begin(&w);
    assert_int_equal(artifact_publish_bytes(client, big, BIG, 60000, &d, &err), ERR_CORRUPT);
    wire_end(&w);
    assert_int_equal(w.flips, 97);
    assert_false(blob_has(there, d.hex));
    assert_ok(blob_verify(here, d.hex, &err)); /* it was not at fault */
}

static void rotten_case(bool as_bytes)
{
    struct wire w = {.rot = path};
    struct digest d;

    digest_bytes(big, BIG, &d);
    blob_path(here, d.hex, path, sizeof path);
    wire_begin(&w);
    if (as_bytes)
        assert_ok(artifact_publish_bytes(client, big, BIG, 8000, &d, &err));
    else
        assert_ok(artifact_publish(client, at("big"), 8000, &d, NULL, NULL, &err));
    wire_end(&w);
    assert_null(w.rot);
    assert_ok(blob_verify(there, d.hex, &err));
    assert_ok(blob_verify(here, d.hex, &err));
}

static void test_a_file_that_rots_in_the_cache_before_it_is_sent_is_taken_again(void **state)
{
    (void)state;
    write_file("big", big, BIG);
    rotten_case(false);
}

static void test_bytes_that_rot_in_the_cache_before_they_are_sent_are_written_again(void **state)
{
    (void)state;
    rotten_case(true);
}

struct fetcher {
    pthread_t thread;
    const char *digest;
    int rc;
};

static void *fetcher_main(void *arg)
{
    struct fetcher *f = arg;
    char p[5000];
    struct err e;

    f->rc = artifact_fetch(client, f->digest, 5000, p, sizeof p, &e);
    return NULL;
}

static void test_threads_that_want_the_same_load_it_once(void **state)
{
    struct fetcher f[6];
    struct digest d;
    struct http_counters n;

    (void)state;
    write_file("m/a", big, BIG);
    write_file("m/b", big, 1000);
    assert_ok(blob_put_tree(there, at("m"), &d, &err));
    for (int i = 0; i < 6; i++) {
        f[i].digest = d.hex;
        assert_int_equal(pthread_create(&f[i].thread, NULL, fetcher_main, &f[i]), 0);
    }
    for (int i = 0; i < 6; i++) {
        pthread_join(f[i].thread, NULL);
        assert_int_equal(f[i].rc, 0);
    }
    http_counters(http, &n);
    assert_int_equal(n.requests, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_file_travels_there_and_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_tree_travels_and_is_laid_out_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_in_the_cache_is_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_published_can_be_forgotten_and_fetched_again,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_file_of_a_tree_is_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_had_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_full_disk_and_a_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_broken_download_goes_on_where_it_stopped, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_slow_download_outlasts_the_patience_while_bytes_come,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_upload_that_the_wire_changes_goes_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_wire_that_changes_every_upload_is_given_up, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_a_file_that_rots_in_the_cache_before_it_is_sent_is_taken_again, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_bytes_that_rot_in_the_cache_before_they_are_sent_are_written_again, setup,
            teardown),
        cmocka_unit_test_setup_teardown(test_threads_that_want_the_same_load_it_once, setup,
                                        teardown),
    };
    return cmocka_run_group_tests_name("artifact", tests, NULL, NULL);
}
