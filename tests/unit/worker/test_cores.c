/* Cores are claimed by one at a time, only those allowed, all or none, and free again when their process is dead. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "worker/cores.h"

static cpu_set_t before;
static char dir[] = "/tmp/steer-cores.XXXXXX";

static int open_all(void **state)
{
    (void)state;
    return mkdtemp(dir) == NULL || sched_getaffinity(0, sizeof before, &before) != 0;
}

static int close_all(void **state)
{
    (void)state;
    file_remove_tree(dir, NULL);
    return 0;
}

static uint32_t allowed(void)
{
    return (uint32_t)CPU_COUNT(&before);
}

static int restore(void **state)
{
    (void)state;
    return sched_setaffinity(0, sizeof before, &before);
}

static void test_more_threads_than_cores_pins_nobody(void **state)
{
    cpu_set_t now;
    struct cores *c;

    (void)state;
    assert_null(cores_claim(dir, allowed() + 1));
    cores_pin(NULL, 0);
    sched_getaffinity(0, sizeof now, &now);
    assert_true(CPU_EQUAL(&now, &before));
    c = cores_claim(dir, allowed()); /* what the failed claim had taken is free again */
    assert_non_null(c);
    cores_free(c);
}

static void test_a_core_has_one_owner(void **state)
{
    struct cores *all = cores_claim(dir, allowed()), *more;

    (void)state;
    assert_non_null(all);
    assert_null(cores_claim(dir, 1));
    cores_free(all);
    more = cores_claim(dir, 1);
    assert_non_null(more);
    all = cores_claim(dir, allowed());
    assert_null(all); /* one is taken */
    cores_free(more);
}

struct pinned {
    const struct cores *c;
    uint32_t i;
    cpu_set_t mask;
};

static void *pinned_main(void *self)
{
    struct pinned *p = self;

    cores_pin(p->c, p->i);
    sched_getaffinity(0, sizeof p->mask, &p->mask);
    return NULL;
}

static void test_threads_get_a_core_each(void **state)
{
    struct cores *c = cores_claim(dir, allowed());
    cpu_set_t sum;

    (void)state;
    CPU_ZERO(&sum);
    for (uint32_t i = 0; i < allowed(); i++) {
        struct pinned p = {.c = c, .i = i};
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, pinned_main, &p), 0);
        pthread_join(thread, NULL);
        assert_int_equal(CPU_COUNT(&p.mask), 1);
        CPU_XOR(&sum, &sum, &p.mask);
    }
    assert_true(CPU_EQUAL(&sum, &before)); /* each once, none that was not allowed */
    cores_free(c);
}

/* What a cgroup's cpuset looks like from inside. */
static void test_only_allowed_cores_are_taken(void **state)
{
    cpu_set_t last, now;
    struct cores *c;
    size_t cpu = CPU_SETSIZE - 1;

    (void)state;
    while (!CPU_ISSET(cpu, &before))
        cpu--;
    CPU_ZERO(&last);
    CPU_SET(cpu, &last);
    assert_int_equal(sched_setaffinity(0, sizeof last, &last), 0);
    assert_null(cores_claim(dir, 2));
    c = cores_claim(dir, 1);
    assert_non_null(c);
    restore(NULL);
    cores_pin(c, 0);
    sched_getaffinity(0, sizeof now, &now);
    assert_true(CPU_EQUAL(&now, &last));
    cores_free(c);
}

static void test_a_dead_process_holds_nothing(void **state)
{
    struct cores *c;
    pid_t child = fork();
    int status;

    (void)state;
    if (child == 0)
        _exit(cores_claim(dir, allowed()) != NULL ? 7 : 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 7);
    c = cores_claim(dir, allowed());
    assert_non_null(c);
    cores_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_more_threads_than_cores_pins_nobody, restore),
        cmocka_unit_test_teardown(test_a_core_has_one_owner, restore),
        cmocka_unit_test_teardown(test_threads_get_a_core_each, restore),
        cmocka_unit_test_teardown(test_only_allowed_cores_are_taken, restore),
        cmocka_unit_test_teardown(test_a_dead_process_holds_nothing, restore),
    };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
