#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/file.h"
#include "jobs/settings.h"

struct daemon {
    char dir[32], address[32];
    uint32_t number;
    bool open;
};
#define AT(member) offsetof(struct daemon, member), sizeof(((struct daemon *)0)->member)
static const struct setting table[] = {
    {"--dir", "TEST_DIR", SETTING_TEXT, AT(dir), 0, 0, NULL},
    {"--address", NULL, SETTING_ADDRESS, AT(address), 0, 0, NULL},
    {"--number", "TEST_NUMBER", SETTING_NUMBER, AT(number), 1, 9, NULL},
    {"--open", NULL, SETTING_FLAG, AT(open), 0, 0, NULL},
    {NULL, NULL, SETTING_TEXT, 0, 0, 0, 0, NULL}};

static char path[] = "/tmp/test_settings.XXXXXX";

static int path_make(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    return fd < 0 ? -1 : close(fd);
}

static int path_remove(void **state)
{
    (void)state;
    return unlink(path);
}

static int read_them(struct daemon *d, const char *file, int argc, char **argv, struct err *e)
{
    bool help = false, version = false;
    int rc;

    memset(d, 0, sizeof *d);
    if (file != NULL) {
        assert_int_equal(file_write_atomic(path, file, strlen(file), e), 0);
        setenv("TEST_CONFIG", path, 1);
    }
    rc = settings_read(table, "TEST_CONFIG", argc, argv, d, &help, &version, e);
    unsetenv("TEST_CONFIG");
    return rc;
}

static void test_flags_go_over_variables_over_the_file(void **state)
{
    char words[][12] = {"d", "--number", "7", "--open"};
    char *argv[] = {words[0], words[1], words[2], words[3]};
    struct daemon d;
    struct err e = {0};

    (void)state;
    assert_int_equal(
        read_them(&d, "dir: /file\nnumber: 2\naddress: tcp://h:1\nopen: false\n", 1, argv, &e), 0);
    assert_string_equal(d.dir, "/file");
    assert_int_equal(d.number, 2);
    setenv("TEST_DIR", "/env", 1);
    setenv("TEST_NUMBER", "3", 1);
    assert_int_equal(read_them(&d, "dir: /file\nnumber: 2\naddress: tcp://h:1\n", 4, argv, &e), 0);
    assert_string_equal(d.dir, "/env");
    assert_string_equal(d.address, "tcp://h:1");
    assert_int_equal(d.number, 7);
    assert_true(d.open);
    unsetenv("TEST_DIR");
    unsetenv("TEST_NUMBER");
}

static void test_a_bad_file_is_named_by_line(void **state)
{
    static const struct {
        const char *file, *says;
    } cases[] = {
        {"dir: /a\nnumbr: 2\n", "line 2: unknown option numbr, did you mean number"},
        {"number: 10\n", "line 1: number is \"10\", must be 1..9"},
        {"dir: [a]\n", "line 1: dir must be one value"},
        {"address: h:1\n", "must be tcp://HOST:PORT"},
        {"open: yes\n", "must be true or false"},
        {"dir: /a\ndir: /b\n", "twice"},
        {"dir: &x /a\n", "anchors"},
    };
    char word[] = "d";
    char *argv[] = {word};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct daemon d;
        struct err e = {0};
        assert_int_equal(read_them(&d, cases[i].file, 1, argv, &e), ERR_INVALID);
        if (strstr(e.msg, cases[i].says) == NULL || strstr(e.msg, path) == NULL)
            fail_msg("%s: %s", cases[i].file, e.msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flags_go_over_variables_over_the_file),
        cmocka_unit_test(test_a_bad_file_is_named_by_line),
    };
    return cmocka_run_group_tests(tests, path_make, path_remove);
}
