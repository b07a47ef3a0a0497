/* store/blob: atomic and verified blobs; trees in and out; hostile manifests refused. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utime.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "store/blob.h"

#define HELLO_SHA "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
#define ABSENT_SHA "0000000000000000000000000000000000000000000000000000000000000001"

static char root[64];
static struct blob_store *store;
static struct err err;

/* In the place of the C library's: a disk that cannot read this name. */
static const char *unreadable;
int stat(const char *restrict path, struct stat *restrict st)
{
    if (unreadable != NULL && strcmp(path, unreadable) == 0) {
        errno = EIO;
        return -1;
    }
    return fstatat(AT_FDCWD, path, st, 0);
}

static const char *at(const char *name)
{
    static char path[8][512];
    static int i;

    i = (i + 1) % 8;
    snprintf(path[i], sizeof path[i], "%s/%s", root, name);
    return path[i];
}

static int setup(void **state)
{
    (void)state;
    unreadable = NULL;
    snprintf(root, sizeof root, "/tmp/test_blob.XXXXXX");
    return mkdtemp(root) == NULL || blob_open(at("store"), &store, &err) != 0;
}

static int teardown(void **state)
{
    (void)state;
    blob_close(store);
    return file_remove_tree(root, &err);
}

static void write_file(const char *name, const char *text)
{
    char *dir = strdup(at(name));

    *strrchr(dir, '/') = '\0';
    assert_int_equal(file_make_dirs(dir, &err), 0);
    assert_int_equal(file_write_atomic(at(name), text, strlen(text), &err), 0);
    free(dir);
}

static void assert_file(const char *name, const char *text)
{
    struct buf b = BUF_INIT;

    if (file_read(at(name), 1 << 20, &b, &err) != 0)
        fail_msg("%s", err.msg);
    assert_string_equal(b.data == NULL ? "" : b.data, text);
    buf_free(&b);
}

static int temps_count(void)
{
    int n = 0;
    DIR *d = opendir(at("store/tmp"));

    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d)) != NULL;)
        n += entry->d_name[0] != '.';
    closedir(d);
    return n;
}

static void test_bytes_go_in_and_come_back(void **state)
{
    struct digest d;
    struct buf b = BUF_INIT;
    struct stat st;
    char path[512];

    (void)state;
    assert_int_equal(blob_put_bytes(store, "hello", 5, &d, &err), 0);
    assert_string_equal(d.hex, HELLO_SHA);
    assert_true(blob_has(store, HELLO_SHA));
    buf_str(&b, "before ");
    assert_int_equal(blob_read(store, HELLO_SHA, 5, &b, &err), 0);
    assert_string_equal(b.data, "before hello");
    assert_int_equal(blob_read(store, HELLO_SHA, 4, &b, &err), ERR_LIMIT);
    assert_string_equal(b.data, "before hello");
    assert_int_equal(blob_read(store, ABSENT_SHA, 5, &b, &err), ERR_NOT_FOUND);
    assert_int_equal(blob_read(store, "../../etc/passwd", 5, &b, &err), ERR_INVALID);
    assert_false(blob_has(store, "../../etc/passwd"));
    blob_path(store, HELLO_SHA, path, sizeof path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0444);
    assert_int_equal(temps_count(), 0);
    assert_int_equal(blob_put_bytes(store, "", 0, &d, &err), 0);
    assert_int_equal(blob_verify(store, d.hex, &err), 0);
    buf_free(&b);
}

static void test_a_wrong_digest_leaves_nothing(void **state)
{
    struct blob_writer *w = NULL;
    struct digest d = {"untouched"};

    (void)state;
    assert_int_equal(blob_write_begin(store, &w, &err), 0);
    assert_int_equal(blob_write(w, "hel", 3, &err), 0);
    assert_int_equal(temps_count(), 1);
    assert_false(blob_has(store, HELLO_SHA));
    assert_int_equal(blob_write_end(&w, HELLO_SHA, &d, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.msg, HELLO_SHA));
    assert_null(w);
    assert_string_equal(d.hex, "untouched");
    assert_false(blob_has(store, HELLO_SHA));
    assert_int_equal(temps_count(), 0);

    assert_int_equal(blob_write_begin(store, &w, &err), 0);
    assert_int_equal(blob_write(w, "hello", 5, &err), 0);
    assert_false(blob_has(store, HELLO_SHA)); /* not before its end */
    blob_write_abort(&w);
    assert_null(w);
    blob_write_abort(&w);
    assert_false(blob_has(store, HELLO_SHA));
    assert_int_equal(temps_count(), 0);
}

static void test_damage_is_noticed_and_healed_by_writing_again(void **state)
{
    char path[512];
    struct buf b = BUF_INIT;
    struct digest d;

    (void)state;
    assert_int_equal(blob_put_bytes(store, "hello", 5, &d, &err), 0);
    blob_path(store, d.hex, path, sizeof path);
    assert_int_equal(file_write_atomic(path, "jello", 5, &err), 0);
    assert_int_equal(blob_verify(store, d.hex, &err), ERR_CORRUPT);
    assert_int_equal(blob_read(store, d.hex, 100, &b, &err), ERR_CORRUPT);
    assert_int_equal(b.len, 0);
    assert_int_equal(blob_put_bytes(store, "hello", 5, &d, &err), 0);
    assert_int_equal(blob_verify(store, d.hex, &err), 0);
    buf_free(&b);
}

static void test_old_temporary_files_go_when_the_store_opens(void **state)
{
    struct utimbuf old = {1000000000, 1000000000};
    struct blob_store *again;

    (void)state;
    write_file("store/tmp/oldold", "x");
    write_file("store/tmp/newnew", "x");
    assert_int_equal(utime(at("store/tmp/oldold"), &old), 0);
    assert_int_equal(blob_open(at("store"), &again, &err), 0);
    assert_false(file_exists(at("store/tmp/oldold")));
    assert_true(file_exists(at("store/tmp/newnew"))); /* another process may be writing it */
    blob_sweep(again);                                /* who holds the lock knows that none is */
    assert_false(file_exists(at("store/tmp/newnew")));
    blob_close(again);
}

static void test_a_file_that_is_none_is_refused(void **state)
{
    struct digest d;

    (void)state;
    assert_int_equal(blob_put_file(store, at("absent"), &d, &err), ERR_NOT_FOUND);
    assert_int_equal(blob_put_file(store, root, &d, &err), ERR_INVALID);
    assert_int_equal(mkfifo(at("fifo"), 0600), 0);
    assert_int_equal(blob_put_file(store, at("fifo"), &d, &err), ERR_INVALID);
    assert_int_equal(temps_count(), 0);
    write_file("plain", "hello");
    assert_int_equal(blob_put_file(store, at("plain"), &d, &err), 0);
    assert_string_equal(d.hex, HELLO_SHA);
    assert_int_not_equal(blob_open(at("plain"), &store, &err), 0);
}

static void tree_make(struct digest *d)
{
    write_file("in/b.txt", "bee");
    write_file("in/a/deep/er.txt", "hello");
    write_file("in/a.txt", "");
    assert_int_equal(symlink("../b.txt", at("in/a/link")), 0);
    if (blob_put_tree(store, at("in"), d, &err) != 0)
        fail_msg("%s", err.msg);
}

static void test_a_tree_goes_in_sorted_and_comes_out_whole(void **state)
{
    struct digest d, again;
    struct buf text = BUF_INIT;
    struct tree_file *files;
    size_t n;

    (void)state;
    tree_make(&d);
    assert_int_equal(blob_read(store, d.hex, 1 << 20, &text, &err), 0);
    assert_true(blob_text_is_tree(text.data, text.len));
    assert_int_equal(blob_tree_parse(text.data, text.len, &files, &n, &err), 0);
    assert_int_equal(n, 4);
    assert_string_equal(files[0].path, "a.txt");
    assert_string_equal(files[1].path, "a/deep/er.txt");
    assert_string_equal(files[1].digest.hex, HELLO_SHA);
    assert_int_equal(files[1].size, 5);
    assert_string_equal(files[2].path, "a/link");
    assert_string_equal(files[3].path, "b.txt");
    free(files);
    buf_free(&text);
    if (blob_tree_checkout(store, d.hex, at("out/x/y"), &err) != 0)
        fail_msg("%s", err.msg);
    assert_file("out/x/y/a/deep/er.txt", "hello");
    assert_file("out/x/y/a/link", "bee");
    assert_file("out/x/y/a.txt", "");
    assert_int_equal(blob_put_tree(store, at("out/x/y"), &again, &err), 0);
    assert_string_equal(again.hex, d.hex);
}

static void test_a_checkout_repairs_what_is_there(void **state)
{
    struct digest d;

    (void)state;
    tree_make(&d);
    write_file("out/b.txt", "wrong");
    write_file("out/other", "kept");
    assert_int_equal(blob_tree_checkout(store, d.hex, at("out"), &err), 0);
    assert_int_equal(blob_tree_checkout(store, d.hex, at("out"), &err), 0);
    assert_file("out/b.txt", "bee");
    assert_file("out/other", "kept");
    assert_false(file_exists(at("out/b.txt.part~steer")));
    write_file("plain", "x");
    assert_int_equal(blob_tree_checkout(store, d.hex, at("plain"), &err), ERR_CONFLICT);
}

static void test_a_checkout_that_fails_leaves_no_directory(void **state)
{
    struct digest d;
    char path[512];

    (void)state;
    tree_make(&d);
    blob_path(store, HELLO_SHA, path, sizeof path);
    assert_int_equal(file_write_atomic(path, "jello", 5, &err), 0);
    assert_int_equal(blob_tree_checkout(store, d.hex, at("out"), &err), ERR_CORRUPT);
    assert_non_null(strstr(err.msg, "a/deep/er.txt"));
    assert_false(file_exists(at("out")));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(blob_tree_checkout(store, d.hex, at("out"), &err), ERR_NOT_FOUND);
    assert_false(file_exists(at("out")));
}

static void test_a_tree_is_whole_if_its_files_have_their_sizes(void **state)
{
    struct digest d, bad;
    char path[512];

    (void)state;
    tree_make(&d);
    assert_true(blob_is_tree(store, d.hex));
    assert_false(blob_is_tree(store, HELLO_SHA));
    assert_int_equal(blob_tree_check(store, d.hex, &bad, &err), 0);
    blob_path(store, HELLO_SHA, path, sizeof path);
    unreadable = path;
    assert_int_equal(blob_tree_check(store, d.hex, &bad, &err), ERR_IO);
    assert_string_equal(bad.hex, HELLO_SHA); /* the manifest is sound */
    unreadable = NULL;
    assert_int_equal(file_write_atomic(path, "hell", 4, &err), 0);
    assert_int_equal(blob_tree_check(store, d.hex, &bad, &err), ERR_CORRUPT);
    assert_string_equal(bad.hex, HELLO_SHA);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(blob_tree_check(store, d.hex, &bad, &err), ERR_NOT_FOUND);
    blob_path(store, d.hex, path, sizeof path);
    assert_int_equal(file_write_atomic(path, "{}", 2, &err), 0);
    assert_int_equal(blob_tree_check(store, d.hex, &bad, &err), ERR_CORRUPT);
    assert_string_equal(bad.hex, d.hex);
    assert_false(blob_is_tree(store, d.hex));
}

static void test_a_directory_with_odd_things_is_refused_by_name(void **state)
{
    struct digest d;

    (void)state;
    assert_int_equal(file_make_dirs(at("in"), &err), 0);
    assert_int_equal(mkfifo(at("in/pipe"), 0600), 0);
    assert_int_equal(blob_put_tree(store, at("in"), &d, &err), ERR_INVALID);
    assert_non_null(strstr(err.msg, "in/pipe"));
    assert_int_equal(unlink(at("in/pipe")), 0);
    assert_int_equal(symlink(".", at("in/loop")), 0);
    assert_int_not_equal(blob_put_tree(store, at("in"), &d, &err), 0);
    assert_int_equal(unlink(at("in/loop")), 0);
    assert_int_equal(symlink("nowhere", at("in/dangling")), 0);
    assert_int_equal(blob_put_tree(store, at("in"), &d, &err), ERR_NOT_FOUND);
    assert_int_equal(unlink(at("in/dangling")), 0);
    write_file("in/new\nline", "x");
    assert_int_equal(blob_put_tree(store, at("in"), &d, &err), ERR_INVALID);
}

#define FILE_OF(path) "{\"path\":\"" path "\",\"sha256\":\"" HELLO_SHA "\",\"size\":5}"
#define TREE_OF(files) "{\"files\":[" files "],\"type\":\"tree\"}"
#define A16 "a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a"
#define A64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void test_hostile_manifests_are_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "tree",
        TREE_OF("1"),
        TREE_OF("{}"),
        TREE_OF(FILE_OF("")),
        TREE_OF(FILE_OF("..")),
        TREE_OF(FILE_OF("../x")),
        TREE_OF(FILE_OF("a/../../x")),
        TREE_OF(FILE_OF("a/..")),
        TREE_OF(FILE_OF(".")),
        TREE_OF(FILE_OF("./x")),
        TREE_OF(FILE_OF("/etc/passwd")),
        TREE_OF(FILE_OF("//x")),
        TREE_OF(FILE_OF("a//x")),
        TREE_OF(FILE_OF("a/")),
        TREE_OF(FILE_OF("a\\\\..\\\\x")),
        TREE_OF(FILE_OF("a\\u0000b")),
        TREE_OF(FILE_OF("a\\nb")),
        TREE_OF(FILE_OF("a\\u007fb")),
        TREE_OF(FILE_OF("a\xff")),
        TREE_OF(FILE_OF(A16 "/x")),
        TREE_OF(FILE_OF(A64 A64 A64 A64)),
        TREE_OF(FILE_OF("b") "," FILE_OF("a")),
        TREE_OF(FILE_OF("a") "," FILE_OF("a")),
        TREE_OF(FILE_OF("a") "," FILE_OF("a.b") "," FILE_OF("a/b")),
        TREE_OF("{\"path\":\"a\",\"sha256\":\"" HELLO_SHA "\"}"),
        TREE_OF("{\"path\":\"a\",\"sha256\":\"" HELLO_SHA "\",\"size\":-1}"),
        TREE_OF("{\"path\":\"a\",\"sha256\":\"" HELLO_SHA "\",\"size\":1.5}"),
        TREE_OF("{\"path\":\"a\",\"sha256\":\"" HELLO_SHA "\",\"size\":9223372036854775807}"),
        TREE_OF("{\"path\":\"a\",\"sha256\":\"" HELLO_SHA "\",\"size\":\"5\"}"),
        TREE_OF("{\"path\":\"a\",\"sha256\":\"2CF24DBA\",\"size\":5}"),
        TREE_OF("{\"path\":\"a\",\"sha256\":\"../../../../../../../../../../../../../../../../../"
                "../../../../x\",\"size\":5}"),
        TREE_OF("{\"path\":7,\"sha256\":\"" HELLO_SHA "\",\"size\":5}"),
        TREE_OF("{\"path\":\"a\",\"path\":\"b\",\"sha256\":\"" HELLO_SHA "\",\"size\":5}"),
        TREE_OF("{\"mode\":493,\"path\":\"a\",\"sha256\":\"" HELLO_SHA "\",\"size\":5}"),
        "{\"files\":[],\"x\":[],\"type\":\"tree\"}",
        "{\"files\":[],\"type\":\"tree\"}x",
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct tree_file *files = NULL;
        struct digest d;
        size_t n;
        int rc = blob_tree_parse(bad[i], strlen(bad[i]), &files, &n, &err);
        if (rc != ERR_INVALID && rc != ERR_LIMIT)
            fail_msg("accepted (%d): %s", rc, bad[i]);
        assert_null(files);
        assert_int_equal(blob_put_bytes(store, bad[i], strlen(bad[i]), &d, &err), 0);
        assert_int_not_equal(blob_tree_checkout(store, d.hex, at("out"), &err), 0);
        assert_false(file_exists(at("out")));
    }
}

static void test_good_manifests_print_as_they_were(void **state)
{
    static const char *const good[] = {
        TREE_OF(""),
        TREE_OF(FILE_OF("..a")),
        TREE_OF(FILE_OF("a b/c.d") "," FILE_OF("a-b")),
        TREE_OF(FILE_OF("...") "," FILE_OF("a.part~steer") "," FILE_OF("b")),
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct tree_file *files;
        struct buf b = BUF_INIT;
        size_t n;
        if (blob_tree_parse(good[i], strlen(good[i]), &files, &n, &err) != 0)
            fail_msg("%s: %s", err.msg, good[i]);
        blob_tree_print(files, n, &b);
        assert_string_equal(b.data, good[i]);
        free(files);
        buf_free(&b);
    }
}

static void test_an_empty_tree_is_an_empty_directory(void **state)
{
    struct digest d;

    (void)state;
    assert_int_equal(file_make_dirs(at("in"), &err), 0);
    assert_int_equal(blob_put_tree(store, at("in"), &d, &err), 0);
    assert_int_equal(blob_tree_checkout(store, d.hex, at("out"), &err), 0);
    assert_true(file_is_dir(at("out")));
}

static void test_a_full_disk_is_named_and_leaves_the_store_sound(void **state)
{
    static char big[1 << 16];
    struct blob_store *full = NULL;
    struct blob_writer *w = NULL;
    struct digest d;
    char command[256];
    int rc = 0;

    (void)state;
    snprintf(command, sizeof command,
             "mkdir %s/m && mount -t tmpfs -o size=2m none %s/m 2>/dev/null", root, root);
    if (system(command) != 0) {
        print_message("skipped: a small file system of its own takes root\n");
        skip();
    }
    rc = blob_open(at("m/store"), &full, &err);
    if (rc == 0)
        rc = blob_write_begin(full, &w, &err);
    for (int i = 0; rc == 0 && i < 100; i++)
        rc = blob_write(w, big, sizeof big, &err);
    if (w != NULL)
        blob_write_abort(&w);
    if (rc == ERR_NO_SPACE)
        rc = blob_put_bytes(full, "hello", 5, &d, &err) == 0 ? ERR_NO_SPACE : -1;
    blob_close(full);
    snprintf(command, sizeof command, "umount %s/m", root);
    assert_int_equal(system(command), 0);
    assert_int_equal(rc, ERR_NO_SPACE);
}

static void *put_hello(void *self)
{
    struct err e;
    struct digest d;

    (void)self;
    return blob_put_bytes(store, "hello", 5, &d, &e) == 0 ? store : NULL;
}

/* While another thread waits for the sync of the name. */
static void test_a_blob_is_not_there_before_its_name_is_synced(void **state)
{
    static const char manifest[] =
        "{\"files\":[{\"path\":\"a\",\"sha256\":\"" HELLO_SHA "\",\"size\":5}],\"type\":\"tree\"}";
    struct digest tree, bad;
    pthread_t thread;
    char path[512];
    void *stored = NULL;
    uint64_t until = clock_ms() + 10000;

    (void)state;
    assert_int_equal(blob_put_bytes(store, manifest, strlen(manifest), &tree, &err), 0);
    blob_path(store, HELLO_SHA, path, sizeof path);
    assert_int_equal(fault_set("blob.dirsync.before:1:sleep=2000", &err), 0);
    assert_int_equal(pthread_create(&thread, NULL, put_hello, NULL), 0);
    while (access(path, F_OK) != 0 && clock_ms() < until)
        usleep(1000);
    assert_false(blob_has(store, HELLO_SHA));
    assert_int_equal(blob_tree_check(store, tree.hex, &bad, &err), ERR_NOT_FOUND);
    assert_int_equal(pthread_join(thread, &stored), 0);
    assert_int_equal(fault_set(NULL, &err), 0);
    assert_ptr_equal(stored, store);
    assert_true(blob_has(store, HELLO_SHA));
    assert_int_equal(blob_tree_check(store, tree.hex, &bad, &err), 0);
}

static void test_a_name_whose_sync_failed_is_none_until_it_is_written_again(void **state)
{
    struct digest d;

    (void)state;
    assert_int_equal(fault_set("blob.dirsync.before:1:err=eio", &err), 0);
    assert_int_equal(blob_put_bytes(store, "hello", 5, &d, &err), ERR_IO);
    assert_false(blob_has(store, HELLO_SHA));
    assert_int_equal(blob_put_bytes(store, "hello", 5, &d, &err), 0);
    assert_true(blob_has(store, HELLO_SHA));
    assert_int_equal(fault_set("blob.dirsync.before:1:err=eio", &err), 0);
    assert_int_equal(blob_put_bytes(store, "hello", 5, &d, &err), ERR_IO);
    assert_true(blob_has(store, HELLO_SHA)); /* it was there for good */
    assert_int_equal(fault_set(NULL, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bytes_go_in_and_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_wrong_digest_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_is_noticed_and_healed_by_writing_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_old_temporary_files_go_when_the_store_opens, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_file_that_is_none_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_tree_goes_in_sorted_and_comes_out_whole, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_checkout_repairs_what_is_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_checkout_that_fails_leaves_no_directory, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_tree_is_whole_if_its_files_have_their_sizes, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_directory_with_odd_things_is_refused_by_name, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_hostile_manifests_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_good_manifests_print_as_they_were, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_empty_tree_is_an_empty_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_full_disk_is_named_and_leaves_the_store_sound, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_blob_is_not_there_before_its_name_is_synced, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_a_name_whose_sync_failed_is_none_until_it_is_written_again, setup, teardown),
    };
    return cmocka_run_group_tests_name("blob", tests, NULL, NULL);
}
