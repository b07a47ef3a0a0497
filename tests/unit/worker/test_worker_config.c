/* Options of steer-worker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wire/control.h"
#include "worker/worker_config.h"

static int parse(const char *const *argv, struct worker_config *c, struct err *e)
{
    int argc = 0;

    while (argv[argc] != NULL)
        argc++;
    return worker_config_parse(argc, (char **)(uintptr_t)argv, c, e);
}

static int no_environment(void **state)
{
    static const char *const names[] = {
        "STEER_COORDINATOR", "STEER_WORKER_DIR",     "STEER_THREADS", "STEER_ROLES",
        "STEER_LISTEN",      "STEER_ADVERTISE_DATA", "STEER_DIR",     "STEER_TOKEN"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
    setenv("XDG_STATE_HOME", "/x", 1);
    return 0;
}

static void test_defaults(void **state)
{
    const char *argv[] = {"steer-worker", NULL};
    struct worker_config c;
    struct err e;

    (void)state;
    assert_int_equal(parse(argv, &c, &e), 0);
    assert_string_equal(c.coordinator_dir, "/x/steer");
    assert_string_equal(c.dir, "/x/steer/worker");
    assert_string_equal(c.listen, "tcp://127.0.0.1:0");
    assert_int_equal(c.roles, ROLE_COMPUTE | ROLE_PARAMS);
    assert_true(c.threads >= 1);
    assert_false(c.help || c.version);
}

static void test_flags_win_over_the_environment(void **state)
{
    const char *argv[] = {"steer-worker", "--threads=3",   "--roles",   "compute", "--dir",
                          "/d",           "--coordinator", "tcp://h:1", NULL};
    struct worker_config c;
    struct err e;

    (void)state;
    setenv("STEER_THREADS", "7", 1);
    setenv("STEER_LISTEN", "tcp://127.0.0.2:5", 1);
    assert_int_equal(parse(argv, &c, &e), 0);
    assert_int_equal(c.threads, 3);
    assert_int_equal(c.roles, ROLE_COMPUTE);
    assert_string_equal(c.listen, "tcp://127.0.0.2:5");
    assert_string_equal(c.dir, "/d");
    assert_string_equal(c.coordinator, "tcp://h:1");
    setenv("STEER_THREADS", "x", 1);
    assert_int_equal(parse(argv, &c, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "STEER_THREADS"));
    unsetenv("STEER_THREADS");
    unsetenv("STEER_LISTEN");
}

static void test_bad_options_are_named(void **state)
{
    static const struct {
        const char *option, *value, *says;
    } cases[] = {
        {"--threads", "0", "1..256"},
        {"--threads", "257", "1..256"},
        {"--threads", "2x", "1..256"},
        {"--threads", NULL, "--threads"},
        {"--roles", "compute,x", "\"x\""},
        {"--roles", "", "--roles"},
        {"--roles", "comput", "comput"},
        {"--listen", "127.0.0.1:5", "tcp"},
        {"--coordinator", "tcp://h", "tcp://HOST:PORT"},
        {"--advertise", "http://h:1", "tcp"},
        {"--dir", "", "--dir"},
        {"--coordinater", "x", "did you mean --coordinator"},
        {"stray", NULL, "stray"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *argv[] = {"steer-worker", cases[i].option, cases[i].value, NULL};
        struct worker_config c;
        struct err e = {0};
        assert_int_equal(parse(argv, &c, &e), ERR_INVALID);
        assert_non_null(strstr(e.msg, cases[i].says));
    }
}

static void test_products_of_bfloat16_have_a_bound(void **state)
{
    static const struct {
        const char *value;
        enum bf16_how most;
    } cases[] = {{"auto", BF16_CPU}, {"software", BF16_SOFTWARE}, {"off", BF16_NONE}};
    const char *plain[] = {"steer-worker", NULL};
    const char *bad[] = {"steer-worker", "--bf16", "on", NULL};
    struct worker_config c;
    struct err e;

    (void)state;
    assert_int_equal(parse(plain, &c, &e), 0);
    assert_int_equal(c.bf16, BF16_CPU);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *argv[] = {"steer-worker", "--bf16", cases[i].value, NULL};
        assert_int_equal(parse(argv, &c, &e), 0);
        assert_int_equal(c.bf16, cases[i].most);
    }
    assert_int_equal(parse(bad, &c, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "auto, software or off"));
}

static void test_beyond_loopback_a_secret_is_needed(void **state)
{
    const char *plain[] = {"steer-worker", "--listen", "tcp://0.0.0.0:5", NULL};
    const char *open[] = {"steer-worker", "--open-data", "--listen", "tcp://0.0.0.0:5", NULL};
    const char *compute[] = {"steer-worker", "--roles",         "compute",
                             "--listen",     "tcp://0.0.0.0:5", NULL};
    struct worker_config c;
    struct err e;

    (void)state;
    assert_int_equal(parse(plain, &c, &e), ERR_DENIED);
    assert_non_null(strstr(e.msg, "--token-file"));
    assert_int_equal(parse(open, &c, &e), 0);
    assert_int_equal(parse(compute, &c, &e), 0); /* it binds nothing */
    setenv("STEER_TOKEN", "a secret of some length", 1);
    assert_int_equal(parse(plain, &c, &e), 0);
    assert_string_equal(c.token, "a secret of some length");
    unsetenv("STEER_TOKEN");
}

static void test_threads_are_pinned_when_asked(void **state)
{
    const char *bad[] = {"steer-worker", "--pin", "on", NULL};
    const char *on[] = {"steer-worker", "--pin", "auto", NULL};
    const char *off[] = {"steer-worker", NULL};
    struct worker_config c;
    struct err e;

    (void)state;
    assert_int_equal(parse(off, &c, &e), 0);
    assert_false(c.pin);
    assert_int_equal(parse(on, &c, &e), 0);
    assert_true(c.pin);
    setenv("STEER_PIN", "auto", 1);
    assert_int_equal(parse(off, &c, &e), 0);
    assert_true(c.pin);
    unsetenv("STEER_PIN");
    assert_int_equal(parse(bad, &c, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "\"on\", must be auto or off"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_are_pinned_when_asked),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_flags_win_over_the_environment),
        cmocka_unit_test(test_products_of_bfloat16_have_a_bound),
        cmocka_unit_test(test_beyond_loopback_a_secret_is_needed),
        cmocka_unit_test(test_bad_options_are_named),
    };
    return cmocka_run_group_tests(tests, no_environment, NULL);
}
