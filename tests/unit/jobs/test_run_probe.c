/* Probes, and the context that tasks of one thread share. */
#include "jobs_fixture.h"

#include "base/clock.h"

static void test_a_probe_sleeps_as_long_as_it_is_told(void **state)
{
    struct world *w = world_new();
    struct spec *s = spec_new();
    struct run_result r;
    uint64_t begun = clock_ms();

    (void)state;
    s->kind = KIND_PROBE;
    s->probe.sleep_ms = 120;
    assert_int_equal(world_task(w, s, "probe", 0, 0, 0, &r), 0);
    assert_true(clock_ms() - begun >= 120);
    assert_true(w->heartbeat > 0);
    assert_int_equal(cJSON_GetArraySize(r.outputs), 0);
    run_result_fini(&r);
    w->cancel = true;
    assert_int_equal(world_task(w, s, "probe", 0, 0, 0, &r), ERR_CANCELLED);
    s->probe.sleep_ms = 0;
    assert_int_equal(world_task(w, s, "probe", 0, 0, 0, &r), 0);
    run_result_fini(&r);
    assert_true(run_kind_is_bare("probe"));
    assert_false(run_kind_is_bare("encode"));
    spec_free(s);
    world_free(w);
}

/* What a task says of itself travels in one message. */
static void test_metrics_have_a_bound(void **state)
{
    struct run_result r = {cJSON_CreateObject(), cJSON_CreateObject(), 0};
    char name[64], *text;

    (void)state;
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "a.name.as.they.are.%d", i);
        run_metric(&r, name, -1.2345678901234567e-300);
    }
    text = cJSON_PrintUnformatted(r.metrics);
    assert_in_range(strlen(text), 40u << 10, 46u << 10);
    assert_true(cJSON_HasObjectItem(r.metrics, "a.name.as.they.are.0"));
    cJSON_free(text);
    run_result_fini(&r);
}

/* A context that is the same is parsed once; another one takes its place. */
static void test_a_context_is_kept_until_another_comes(void **state)
{
    struct world *w = world_new();
    struct run_cache cache = {NULL, 0, NULL, NULL};
    struct spec *s = spec_new();
    struct run_result r;
    const struct spec *kept;

    (void)state;
    s->kind = KIND_PROBE;
    w->env.cache = &cache;
    assert_int_equal(world_task(w, s, "probe", 0, 0, 0, &r), 0);
    run_result_fini(&r);
    kept = cache.spec;
    assert_non_null(kept);
    assert_int_equal(world_task(w, s, "probe", 1, 0, 0, &r), 0);
    run_result_fini(&r);
    assert_ptr_equal(cache.spec, kept);
    s->seed = 77;
    assert_int_equal(world_task(w, s, "probe", 2, 0, 0, &r), 0);
    run_result_fini(&r);
    assert_int_equal(cache.spec->seed, 77);
    assert_int_not_equal(run_task_execute("probe", 0, 0, 0, "{", 1, &w->env, &r, &w->e), 0);
    assert_null(cache.spec); /* what cannot be read is not kept, nor what was before */
    run_cache_fini(&cache);
    spec_free(s);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_probe_sleeps_as_long_as_it_is_told),
        cmocka_unit_test(test_metrics_have_a_bound),
        cmocka_unit_test(test_a_context_is_kept_until_another_comes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
