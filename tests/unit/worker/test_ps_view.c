/* What the threads of one process see of a session's parameters, near hosts and far. */
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "worker/ps_view.h"

#include "tests/unit/worker/session_cluster.h"

struct eyes {
    struct cluster c;
    struct region *region;
    struct ps_view *view;
    atomic_bool halt;
    atomic_int needed; /* threads that have all of version 0 */
};

static int ask(void *self, bool soft, struct err *e)
{
    struct eyes *x = self;

    (void)soft;
    return atomic_load(&x->halt) ? err_set(e, ERR_CANCELLED, "enough") : 0;
}

static void plan_of(struct eyes *x, struct ps_client_plan *plan)
{
    uint32_t chunks = (uint32_t)((layout.count + CHUNK - 1) / CHUNK);

    *plan = (struct ps_client_plan){.session = 9,
                                    .attempt = 1,
                                    .params = layout.count,
                                    .chunk_elems = CHUNK,
                                    .view = x->region,
                                    .hosts_n = (uint32_t)x->c.hosts};
    for (uint32_t i = 0; i < plan->hosts_n; i++) {
        strcpy(plan->host[i].endpoint, x->c.endpoint[i]);
        plan->host[i].chunk_begin = chunks * i / plan->hosts_n;
        plan->host[i].chunk_end = chunks * (i + 1) / plan->hosts_n;
    }
}

static void eyes_open(struct eyes *x, bool no_regions)
{
    struct ps_client_plan plan;
    struct err e;

    memset(x, 0, sizeof *x);
    cluster_start(&x->c, 2, 2);
    x->c.no_regions = no_regions;
    assert_int_equal(region_new(layout.count * sizeof(float), true, &x->region, &e), 0);
    plan_of(x, &plan);
    assert_int_equal(ps_view_new(&plan, &x->view, &e), 0);
}

static void eyes_close(struct eyes *x)
{
    ps_view_free(x->view);
    region_release(x->region);
    cluster_stop(&x->c);
}

static struct ps_client *pusher(struct eyes *x)
{
    struct ps_client_plan plan;
    struct ps_client *client;
    struct err e;

    plan_of(x, &plan);
    plan.view = NULL;
    plan.near = ps_view_near(x->view);
    assert_int_equal(ps_client_new(&plan, &client, &e), 0);
    return client;
}

/* Has nothing to do in the step, and waits for the next one at once. */
static void *idle_main(void *self)
{
    struct eyes *x = self;
    const struct ps_client_check check = {x, ask};
    struct ps_client *client = pusher(x);
    uint64_t version;
    struct err e;

    assert_int_equal(ps_view_wait(x->view, 1, &version, client, &check, &e), ERR_CANCELLED);
    ps_client_free(client);
    return NULL;
}

static void *needs_main(void *self)
{
    struct eyes *x = self;
    const struct ps_client_check check = {x, ask};
    struct ps_client *client = pusher(x);
    uint64_t version;
    bool over = false;
    struct err e;

    assert_int_equal(ps_view_wait(x->view, 0, &version, client, &check, &e), 0);
    assert_int_equal(version, 0);
    assert_int_equal(ps_view_need(x->view, 0, 0, layout.count, &over, &check, &e), 0);
    assert_false(over);
    atomic_fetch_add(&x->needed, 1);
    ps_client_free(client);
    return NULL;
}

/* One host opens late; who waits for the next version must not keep the others from this one. */
static void late_part(bool no_regions)
{
    struct eyes x;
    pthread_t idle[2], needs[2];

    eyes_open(&x, no_regions);
    cluster_open(&x.c, 0, NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&idle[i], NULL, idle_main, &x), 0);
        assert_int_equal(pthread_create(&needs[i], NULL, needs_main, &x), 0);
    }
    clock_sleep_ms(150);
    assert_int_equal(atomic_load(&x.needed), 0);
    cluster_open(&x.c, 1, NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(needs[i], NULL);
    assert_int_equal(atomic_load(&x.needed), 2);
    for (size_t i = 0; i < layout.count; i++) /* session_cluster.c: initial() */
        assert_true(ps_view_params(x.view)[i] == sinf((float)i));
    atomic_store(&x.halt, true);
    for (int i = 0; i < 2; i++)
        pthread_join(idle[i], NULL);
    eyes_close(&x);
}

static void test_a_thread_that_waits_for_the_next_version_holds_nobody_up(void **state)
{
    (void)state;
    late_part(false);
    late_part(true);
}

static void moved_on(bool no_regions)
{
    struct eyes x;
    const struct ps_client_check check = {&x, ask};
    struct ps_client *client;
    uint64_t version;
    bool over = false;
    struct err e;

    eyes_open(&x, no_regions);
    cluster_open(&x.c, 0, NULL);
    cluster_open(&x.c, 1, NULL);
    client = pusher(&x);
    assert_int_equal(ps_view_wait(x.view, 0, &version, client, &check, &e), 0);
    assert_int_equal(ps_view_need(x.view, 0, 0, layout.count, &over, &check, &e), 0);
    assert_true(ps_view_still(x.view, 0));
    cluster_run(&x.c, 1); /* others close the step */
    if (!no_regions)
        assert_false(ps_view_still(x.view, 0)); /* what we read has been written to */
    assert_int_equal(ps_view_wait(x.view, 1, &version, client, &check, &e), 0);
    assert_int_equal(version, 1);
    assert_false(ps_view_still(x.view, 0));
    assert_int_equal(ps_view_need(x.view, 1, 0, layout.count, &over, &check, &e), 0);
    assert_false(over);
    assert_int_equal(ps_view_need(x.view, 0, 0, layout.count, &over, &check, &e), 0);
    assert_true(over); /* never again */
    ps_client_free(client);
    eyes_close(&x);
}

static void test_what_was_read_of_a_closed_step_is_known_to_be_void(void **state)
{
    (void)state;
    moved_on(false);
    moved_on(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_thread_that_waits_for_the_next_version_holds_nobody_up),
        cmocka_unit_test(test_what_was_read_of_a_closed_step_is_known_to_be_void),
    };
    return cluster_main(tests, sizeof tests / sizeof tests[0]);
}
