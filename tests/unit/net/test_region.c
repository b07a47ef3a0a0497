/* Memory between processes: seen by both, refused when it is not what its key says, and kept while
 * somebody holds it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/region.h"

#define BYTES ((size_t)3 * 4096 + 100)

/* Runs fn in another process that knows this key only; what it returns. */
static int elsewhere(int (*fn)(const struct region_key *key), const struct region_key *key)
{
    pid_t child = fork();
    int status = 0;

    if (child == 0)
        _exit(fn(key));
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}

static int adds_one(const struct region_key *key)
{
    struct region *r;
    struct err e;
    char *bytes;

    if (region_attach(key, &r, &e) != 0)
        return 50;
    bytes = region_data(r);
    for (size_t i = 0; i < region_bytes(r); i++)
        bytes[i] = (char)(bytes[i] + 1);
    region_stamp(r, region_stamped(r) + 1);
    region_release(r);
    return 0;
}

static void test_what_one_process_writes_another_reads(void **state)
{
    struct region_key key;
    int pipes[2][2];
    struct region *r;
    char *bytes;
    struct err e;
    pid_t child;
    char done;

    (void)state;
    assert_int_equal(pipe(pipes[0]), 0);
    assert_int_equal(pipe(pipes[1]), 0);
    child = fork(); /* before there is any region */
    if (child == 0) {
        if (read(pipes[0][0], &key, sizeof key) != sizeof key)
            _exit(60);
        done = (char)adds_one(&key);
        _exit(write(pipes[1][1], &done, 1) == 1 ? 0 : 61);
    }
    assert_int_equal(region_new(BYTES, true, &r, &e), 0);
    bytes = region_data(r);
    for (size_t i = 0; i < BYTES; i++) {
        assert_int_equal(bytes[i], 0);
        bytes[i] = (char)(i % 100);
    }
    region_stamp(r, 41);
    key = region_key(r);
    assert_int_equal(write(pipes[0][1], &key, sizeof key), sizeof key);
    assert_int_equal(read(pipes[1][0], &done, 1), 1);
    assert_int_equal(done, 0);
    waitpid(child, NULL, 0);
    for (size_t i = 0; i < BYTES; i++)
        assert_int_equal(bytes[i], (char)(i % 100 + 1));
    assert_int_equal(region_stamped(r), 42);
    region_release(r);
    for (int i = 0; i < 4; i++)
        close(pipes[i / 2][i % 2]);
}

static void test_a_region_of_this_process_is_itself(void **state)
{
    struct region *r, *again;
    struct region_key key;
    struct err e;

    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        assert_int_equal(region_new(BYTES, shared != 0, &r, &e), 0);
        key = region_key(r);
        assert_int_equal(region_attach(&key, &again, &e), 0);
        assert_ptr_equal(again, r);
        region_release(r);
        strcpy(region_data(again), "still there");
        region_release(again);
        assert_int_equal(region_attach(&key, &again, &e), ERR_UNREACHABLE);
    }
}

static int is_refused(const struct region_key *key)
{
    struct region *r;
    struct err e;

    return region_attach(key, &r, &e) == ERR_UNREACHABLE ? 0 : 1;
}

static void test_a_key_that_is_not_of_here_is_refused(void **state)
{
    struct region_key key;
    struct region *r;
    struct err e;

    (void)state;
    assert_int_equal(region_new(BYTES, true, &r, &e), 0);
    for (int i = 0; i < 6; i++) {
        key = region_key(r);
        key.id += i == 0;
        key.bytes += i == 1 ? 4096 : 0;
        key.bytes = i == 2 ? 0 : key.bytes;
        key.bytes = i == 3 ? UINT64_MAX : key.bytes;
        key.fd = i == 4 ? 0 : key.fd; /* a descriptor that is something else */
        key.id += i == 4;             /* and not known by its number */
        key.pid = i == 5 ? 1u << 30 : key.pid;
        key.id += i == 5;
        assert_int_equal(is_refused(&key), 0);
        assert_int_equal(elsewhere(is_refused, &key), 0);
    }
    region_release(r);
}

static void test_a_part_of_one_shows_in_another(void **state)
{
    struct region *over, *r;
    struct err e;
    char *a, *b;

    (void)state;
    assert_int_equal(region_new(BYTES, true, &over, &e), 0);
    assert_int_equal(region_new(BYTES, true, &r, &e), 0);
    a = region_data(over);
    b = region_data(r);
    memset(a, 'a', BYTES);
    memset(b, 'b', BYTES);
    assert_false(region_show(over, r, 100, 4096));
    assert_false(region_show(over, r, 4096, 100));
    assert_true(region_show(over, r, 4096, 4096));
    assert_true(region_show(over, r, 3 * 4096, 100)); /* the end, whatever its length */
    assert_true(a[4095] == 'a' && a[4096] == 'b' && a[8191] == 'b' && a[8192] == 'a');
    assert_true(a[3 * 4096 - 1] == 'a' && a[BYTES - 1] == 'b');
    b[5000] = 'c';
    assert_int_equal(a[5000], 'c');
    region_release(r); /* what is shown stays */
    assert_int_equal(a[5000], 'c');
    region_release(over);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_one_process_writes_another_reads),
        cmocka_unit_test(test_a_region_of_this_process_is_itself),
        cmocka_unit_test(test_a_key_that_is_not_of_here_is_refused),
        cmocka_unit_test(test_a_part_of_one_shows_in_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
