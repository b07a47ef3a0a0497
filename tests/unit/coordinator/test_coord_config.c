#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/coord_config.h"

#define ARGS_MAX 8

static int parse(const char *const *args, struct coord_config *c, struct err *e)
{
    char *argv[ARGS_MAX + 2] = {(char *)(uintptr_t) "steer-coordinator"};
    int n = 1;

    for (; args[n - 1] != NULL; n++)
        argv[n] = (char *)(uintptr_t)args[n - 1];
    return coord_config_parse(n, argv, c, e);
}

static void test_good_options(void **state)
{
    static const char *const args[] = {
        "--dir", "/tmp/x", "--http=127.0.0.1:0", "--control", "tcp://[::1]:0", "--crash-limit",
        "0",     NULL};
    struct coord_config c;
    struct err e = {0};

    (void)state;
    setenv("STEER_DIR", "/env", 1);
    setenv("STEER_HTTP", "127.0.0.1:99", 1);
    assert_int_equal(parse(args, &c, &e), 0);
    assert_string_equal(c.dir, "/tmp/x"); /* flags over the environment */
    assert_string_equal(c.http, "127.0.0.1:0");
    assert_int_equal(c.crash_limit, 0);
    assert_int_equal(parse((const char *const[]){NULL}, &c, &e), 0);
    assert_string_equal(c.dir, "/env");
    assert_string_equal(c.http, "127.0.0.1:99");
    assert_int_equal(c.crash_limit, 3);
    unsetenv("STEER_DIR");
    unsetenv("STEER_HTTP");
}

static void test_bad_options_are_named(void **state)
{
    static const struct {
        const char *args[4];
        enum err_code code;
        const char *says;
    } cases[] = {
        {{"--htpp", "x", NULL}, ERR_INVALID, "did you mean --http"},
        {{"file", NULL}, ERR_INVALID, "\"file\""},
        {{"--dir", NULL}, ERR_INVALID, "needs a value"},
        {{"--dir=", NULL}, ERR_INVALID, "must have 1.."},
        {{"--config", "/nonexistent/file", NULL}, ERR_NOT_FOUND, "/nonexistent/file"},
        {{"--crash-limit", "9", NULL}, ERR_INVALID, "0..8"},
        {{"--crash-limit", "2x", NULL}, ERR_INVALID, "0..8"},
        {{"--lease-ms=10", NULL}, ERR_INVALID, "1000..600000"},
        {{"--control", "tcp://0.0.0.0:0", NULL}, ERR_DENIED, "--open-control"},
        {{"--control", "tcp://*:1", NULL}, ERR_DENIED, "--open-control"},
        {{"--control", "tcp://128.0.0.1:1", NULL}, ERR_DENIED, "--open-control"},
        {{"--advertise", "steer.example", NULL}, ERR_INVALID, "http://HOST:PORT"},
        {{"--token-file", "/nonexistent/file", NULL}, ERR_NOT_FOUND, "/nonexistent/file"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct coord_config c;
        struct err e = {0};

        assert_int_equal(parse(cases[i].args, &c, &e), cases[i].code);
        if (strstr(e.msg, cases[i].says) == NULL)
            fail_msg("%s: %s", cases[i].args[0], e.msg);
    }
}

static void test_opening_up_takes_a_word(void **state)
{
    static const char *const args[] = {"--control",   "tcp://0.0.0.0:7781",        "--open-control",
                                       "--advertise", "http://steer.example:7780", NULL};
    struct coord_config c;
    struct err e = {0};
    char host[64];

    (void)state;
    setenv("STEER_TOKEN", "secret", 1);
    assert_int_equal(parse(args, &c, &e), 0);
    assert_true(c.open_control);
    assert_string_equal(c.token, "secret");
    assert_true(coord_config_url_host(c.advertise, host, sizeof host));
    assert_string_equal(host, "steer.example");
    unsetenv("STEER_TOKEN");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_options),
        cmocka_unit_test(test_bad_options_are_named),
        cmocka_unit_test(test_opening_up_takes_a_word),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
