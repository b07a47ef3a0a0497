/*
 * What is on the disk when a call returns 0. A power cut forgets everything that was not synced, and kill -9 never shows it,
 * because the page cache survives; so this program stands between the store and the C library: fsync, fdatasync and rename
 * are its own, which note what was synced, in which order, and fail when told to.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "store/blob.h"
#include "store/db.h"

#define NOTES_MAX 1024

static struct {
    char what; /* s: synced, r: renamed to */
    char path[512];
} note[NOTES_MAX];
static int notes, syncs, fail_sync,
    fail_errno; /* fail_sync: the number of the sync that fails, 0 = none */

static void note_path(char what, const char *path)
{
    assert_true(notes < NOTES_MAX);
    note[notes].what = what;
    snprintf(note[notes].path, sizeof note[notes].path, "%s", path);
    notes++;
}

static int sync_noted(long call, int fd)
{
    char link[64], path[512];
    ssize_t n;

    if (++syncs == fail_sync) {
        errno = fail_errno;
        return -1;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    assert_true(n > 0);
    path[n] = '\0';
    note_path('s', path);
    return (int)syscall(call, fd);
}

int fsync(int fd)
{
    return sync_noted(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return sync_noted(SYS_fdatasync, fd);
}

int rename(const char *from, const char *to)
{
    note_path('r', to);
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

static char root[64];
static struct blob_store *store;

static void forget(int fail_at, int with)
{
    notes = syncs = 0;
    fail_sync = fail_at;
    fail_errno = with;
}

static int setup(void **state)
{
    char path[128];
    struct err e;

    (void)state;
    forget(0, 0);
    snprintf(root, sizeof root, "/tmp/test_durable.XXXXXX");
    if (mkdtemp(root) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/store", root);
    return blob_open(path, &store, &e);
}

static int teardown(void **state)
{
    struct err e;

    (void)state;
    forget(0, 0);
    blob_close(store);
    return file_remove_tree(root, &e);
}

/* Where a note of this kind and path ending is, after `from`; -1 if nowhere. */
static int find(char what, const char *ending, int from)
{
    size_t n = strlen(ending);

    for (int i = from; i < notes; i++) {
        size_t len = strlen(note[i].path);
        if (note[i].what == what && len >= n && strcmp(note[i].path + len - n, ending) == 0)
            return i;
    }
    return -1;
}

static void test_a_blob_is_synced_then_named_then_its_name_is_synced(void **state)
{
    struct digest d;
    struct err e;
    char ending[DIGEST_HEX + 4], dir[16];
    int renamed;

    (void)state;
    forget(0, 0);
    assert_int_equal(blob_put_bytes(store, "hello", 5, &d, &e), 0);
    snprintf(ending, sizeof ending, "/%.2s/%s", d.hex, d.hex + 2);
    snprintf(dir, sizeof dir, "/store/%.2s", d.hex);
    renamed = find('r', ending, 0);
    assert_int_equal(renamed, 1);
    assert_int_equal(note[0].what, 's'); /* the bytes before the name ... */
    assert_non_null(strstr(note[0].path, "/store/tmp/"));
    assert_int_equal(find('s', dir, renamed), 2); /* ... and the name before the answer */
    assert_int_equal(notes, 3);
}

static void test_a_new_store_has_its_directories_synced(void **state)
{
    struct blob_store *other;
    char path[128];
    struct err e;

    (void)state;
    forget(0, 0);
    snprintf(path, sizeof path, "%s/other", root);
    assert_int_equal(blob_open(path, &other, &e), 0);
    assert_true(find('s', "/other", 0) >= 0);
    blob_close(other);
}

/* Whoever was killed between a rename and its sync left a name that a power cut would undo. */
static void test_a_store_that_is_opened_again_has_its_names_synced(void **state)
{
    struct blob_store *again;
    struct digest d;
    char path[128], dir[16];
    struct err e;

    (void)state;
    assert_int_equal(blob_put_bytes(store, "hello", 5, &d, &e), 0);
    forget(0, 0);
    snprintf(path, sizeof path, "%s/store", root);
    assert_int_equal(blob_open(path, &again, &e), 0);
    snprintf(dir, sizeof dir, "/store/%.2s", d.hex);
    assert_true(find('s', dir, 0) >= 0);
    blob_close(again);
    forget(1, EIO);
    assert_int_equal(blob_open(path, &again, &e), ERR_IO);
}

static void test_a_file_is_replaced_whole(void **state)
{
    char path[128];
    struct err e;
    int renamed;

    (void)state;
    forget(0, 0);
    snprintf(path, sizeof path, "%s/file", root);
    assert_int_equal(file_write_atomic(path, "hello", 5, &e), 0);
    renamed = find('r', "/file", 0);
    assert_int_equal(renamed, 1);
    assert_int_equal(note[0].what, 's');
    assert_non_null(strstr(note[0].path, "/file.tmp."));
    assert_int_equal(find('s', root, renamed), 2);
}

static void test_a_failed_sync_is_an_error_and_leaves_no_blob(void **state)
{
    static const struct {
        int errno_value, code;
    } cases[] = {{EIO, ERR_IO}, {ENOSPC, ERR_NO_SPACE}, {EDQUOT, ERR_NO_SPACE}};
    struct digest d;
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        forget(1, cases[i].errno_value);
        assert_int_equal(blob_put_bytes(store, "hello", 5, &d, &e), cases[i].code);
        assert_int_equal(find('r', "", 0), -1);
    }
    digest_bytes("hello", 5, &d);
    assert_false(blob_has(store, d.hex));
    forget(2, EIO); /* the name: it is there, but nobody may be told so */
    assert_int_equal(blob_put_bytes(store, "hello", 5, &d, &e), ERR_IO);
    assert_int_equal(notes, 2);
}

static void test_a_commit_is_synced(void **state)
{
    static const char *const schema[] = {"CREATE TABLE a(k INTEGER PRIMARY KEY) STRICT;"};
    char path[128];
    struct err e = {0};
    struct db *d = NULL;

    (void)state;
    snprintf(path, sizeof path, "%s/db", root);
    assert_int_equal(db_open(path, schema, 1, &d, &e), 0);
    for (int64_t i = 0; i < 3; i++) {
        forget(0, 0);
        assert_int_equal(db_begin(d, &e), 0);
        assert_int_equal(db_run(d, &e, "INSERT INTO a VALUES(?1)", "i", i), 0);
        assert_int_equal(find('s', "/db-wal", 0), -1);
        assert_int_equal(db_commit(d, &e), 0);
        assert_true(find('s', "/db-wal", 0) >= 0);
    }
    forget(1, EIO);
    assert_int_equal(db_begin(d, &e), 0);
    assert_int_equal(db_run(d, &e, "INSERT INTO a VALUES(?1)", "i", (int64_t)7), 0);
    assert_int_equal(db_commit(d, &e), ERR_IO);
    db_rollback(d);
    db_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_blob_is_synced_then_named_then_its_name_is_synced,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_new_store_has_its_directories_synced, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_store_that_is_opened_again_has_its_names_synced,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_file_is_replaced_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failed_sync_is_an_error_and_leaves_no_blob, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_commit_is_synced, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
