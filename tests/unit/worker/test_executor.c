/* executor: it ends in time, or says that it cannot. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "worker/executor.h"

static void on_ended(void *self, struct control *outcome)
{
    (void)self;
    control_free(outcome);
}

static char scratch[] = "/tmp/test_executor.XXXXXX";
static const struct executor_env env = {.scratch = scratch, .ended = on_ended};

static void test_idle_threads_end_at_once(void **state)
{
    uint64_t start = clock_ms();

    (void)state;
    assert_true(executor_stop(NULL, 0));
    assert_true(executor_stop(executor_start(3, &env), 60000));
    assert_true(clock_ms() - start < 30000);
}

/* Last: the thread stays. */
static void test_a_thread_that_hangs_is_not_waited_for_for_ever(void **state)
{
    struct executor *x = executor_start(2, &env);
    struct control *task = control_new(CONTROL_TASK);
    char begun[64];
    struct err e;

    (void)state;
    assert_non_null(mkdtemp(scratch));
    snprintf(begun, sizeof begun, "%s/0-0", scratch); /* of task 0, epoch 0 */
    snprintf(task->task_kind, sizeof task->task_kind, "encode");
    assert_int_equal(fault_set("worker.compute.hang:1", &e), 0);
    executor_task(x, task);
    control_free(task);
    for (int i = 0; i < 500 && !file_is_dir(begun); i++)
        clock_sleep_ms(10);
    assert_false(executor_stop(x, 100));
    assert_int_equal(file_remove_tree(scratch, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle_threads_end_at_once),
        cmocka_unit_test(test_a_thread_that_hangs_is_not_waited_for_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
