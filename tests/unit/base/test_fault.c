/* fault: what STEER_FAULT may say, and that a place acts at its hit and at no other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fault.h"

static void test_nothing_is_armed_without_the_variable(void **state)
{
    struct err e = {0};

    (void)state;
    assert_int_equal(fault_set(NULL, &e), 0);
    assert_false(fault_armed);
    assert_false(fault_hit(FAULT_WORKER_GRAD_CORRUPT));
    assert_int_equal(fault_error(FAULT_BLOB_WRITE_MID, &e), 0);
}

static void test_wrong_texts_are_refused_by_name(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"journal.comit.before:1", "did you mean journal.commit.before"},
        {"nothing.like.it:1", "unknown fault"},
        {"grant.before", "must be a number"},
        {"grant.before:0", "must be a number"},
        {"grant.before:x", "must be a number"},
        {"grant.before:1:err=eio", "can't fail"},
        {"blob.write.mid:1:err=eperm", "must be exit"},
        {"blob.write.mid:1:sleep=0", "must be exit"},
        {"worker.grad.corrupt:1:exit", "must be exit"},
        {"grant.before:1,:2", "unknown fault"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err e = {0};
        assert_int_equal(fault_set(bad[i].text, &e), ERR_INVALID);
        assert_non_null(strstr(e.msg, bad[i].says));
        assert_false(fault_armed);
    }
}

static void test_errors_come_at_their_hit_only(void **state)
{
    struct err e = {0};

    (void)state;
    assert_int_equal(fault_set("blob.write.mid:2:err=enospc,blob.fsync.before:2:err:every", &e), 0);
    assert_int_equal(fault_error(FAULT_BLOB_WRITE_MID, &e), 0);
    assert_int_equal(fault_error(FAULT_BLOB_WRITE_MID, &e), ERR_NO_SPACE);
    assert_int_equal(fault_error(FAULT_BLOB_WRITE_MID, &e), 0);
    assert_int_equal(fault_error(FAULT_BLOB_FSYNC_BEFORE, &e), 0);
    assert_int_equal(fault_error(FAULT_BLOB_FSYNC_BEFORE, &e), ERR_IO);
    assert_int_equal(fault_error(FAULT_BLOB_FSYNC_BEFORE, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "blob.fsync.before"));
}

static void test_deeds_are_asked_for_and_sleeps_slept(void **state)
{
    struct err e = {0};
    uint64_t begun;

    (void)state;
    assert_int_equal(fault_set("worker.grad.corrupt:1,worker.compute.slow:2:sleep=30:every", &e),
                     0);
    assert_true(fault_hit(FAULT_WORKER_GRAD_CORRUPT));
    assert_false(fault_hit(FAULT_WORKER_GRAD_CORRUPT));
    fault_hit(FAULT_WORKER_COMPUTE_SLOW);
    begun = clock_ms();
    assert_false(fault_hit(FAULT_WORKER_COMPUTE_SLOW));
    assert_false(fault_hit(FAULT_WORKER_COMPUTE_SLOW));
    assert_true(clock_ms() - begun >= 60);
}

static void test_a_fault_may_come_again_and_again(void **state)
{
    struct err e = {0};

    (void)state;
    assert_int_equal(fault_set("net.message.damage:3:every=4", &e), 0);
    for (int hit = 1; hit <= 20; hit++)
        assert_int_equal(fault_hit(FAULT_NET_MESSAGE_DAMAGE), hit >= 3 && (hit - 3) % 4 == 0);
    assert_int_equal(fault_set("net.message.damage:3:every=0", &e), ERR_INVALID);
    fault_set(NULL, &e);
}

static void test_the_default_is_to_be_gone_with_137(void **state)
{
    struct err e = {0};
    int status = 0;
    pid_t pid;

    (void)state;
    assert_int_equal(fault_set("grant.after:2", &e), 0);
    pid = fork();
    if (pid == 0) {
        fault_hit(FAULT_GRANT_AFTER);
        fault_hit(FAULT_GRANT_BEFORE);
        fault_hit(FAULT_GRANT_AFTER);
        _exit(1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 137);
    fault_set(NULL, &e);
}

static void test_the_list_has_every_place_once(void **state)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    int lines = 0;

    (void)state;
    fault_list(out);
    fclose(out);
    for (char *at = text; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    assert_int_equal(lines, FAULTS_COUNT);
    for (int i = 0; i < FAULTS_COUNT; i++)
        for (int k = 0; k < i; k++)
            assert_string_not_equal(fault_name((enum fault)i), fault_name((enum fault)k));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_armed_without_the_variable),
        cmocka_unit_test(test_wrong_texts_are_refused_by_name),
        cmocka_unit_test(test_errors_come_at_their_hit_only),
        cmocka_unit_test(test_deeds_are_asked_for_and_sleeps_slept),
        cmocka_unit_test(test_a_fault_may_come_again_and_again),
        cmocka_unit_test(test_the_default_is_to_be_gone_with_137),
        cmocka_unit_test(test_the_list_has_every_place_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
