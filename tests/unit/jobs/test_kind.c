#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "jobs/kind.h"

static struct spec *of_kind(enum job_kind kind)
{
    struct spec *s = spec_new();

    s->kind = kind;
    s->train.max_tokens = 1000000;
    s->train.global_batch = 50;
    return s;
}

static cJSON *json(const char *text)
{
    cJSON *j = NULL;
    struct err e = {0};

    if (json_parse(text, strlen(text), JSON_LIMITS_LINE, &j, &e) != 0)
        fail_msg("%s", e.msg);
    return j;
}

static void next(const struct spec *s, const char *inputs, const char *done, struct phase *out,
                 cJSON **outputs, cJSON **metrics)
{
    cJSON *i = json(inputs), *d = json(done);
    struct err e = {0};

    if (kind_next_phase(s, i, d, out, outputs, metrics, &e) != 0)
        fail_msg("%s", e.msg);
    cJSON_Delete(i);
    cJSON_Delete(d);
}

static void test_training_encodes_trains_each_fold_and_exports(void **state)
{
    struct spec *s = of_kind(KIND_TRAIN_ATTRIBUTE_MODEL);
    struct phase f;
    cJSON *o, *m;
    const char *encoded = "{\"encode\":{\"outputs\":{},\"metrics\":{\"examples.0\":1000,\"tokens."
                          "0\":64000,\"examples.1\":900,\"tokens.1\":60000,\"params\":260032}}";
    char done[600];
    (void)state;
    s->cross_fit = 2;
    next(s, "{}", "{}", &f, &o, &m);
    assert_string_equal(f.name, "encode");
    snprintf(done, sizeof done, "%s}", encoded);
    next(s, "{}", done, &f, &o, &m);
    assert_int_equal(f.type, PHASE_SESSION);
    assert_string_equal(f.name, "train.0");
    assert_int_equal(f.session.steps, 313); /* ceil(1e6 / (50 * 64)) */
    assert_int_equal(f.session.params, 260032);
    assert_string_equal(f.session_context, "examples.0");
    snprintf(done, sizeof done, "%s,\"train.0\":{}}", encoded);
    next(s, "{}", done, &f, &o, &m);
    assert_string_equal(f.name, "train.1");
    assert_int_equal(f.session.fold, 1);
    snprintf(done, sizeof done, "%s,\"train.0\":{},\"train.1\":{}}", encoded);
    next(s, "{}", done, &f, &o, &m);
    assert_string_equal(f.name, "export");
    assert_int_equal(f.tasks, 2);
    snprintf(done, sizeof done,
             "%s,\"train.0\":{\"metrics\":{\"loss\":1.5}},\"train.1\":{},\"export\":{\"parts\":["
             "\"aa\",\"bb\"],\"metrics\":{\"x\":1}}}",
             encoded);
    next(s, "{}", done, &f, &o, &m);
    assert_int_equal(f.type, PHASE_END);
    assert_int_equal(cJSON_GetArraySize(json_get(o, "model")), 2);
    assert_true(json_number_or(m, "train.0.loss", 0) == 1.5);
    assert_true(json_number_or(m, "x", 0) == 1);
    cJSON_Delete(o);
    cJSON_Delete(m);
    spec_free(s);
}

static void test_steps_follow_what_the_author_gave(void **state)
{
    struct spec *s = of_kind(KIND_SFT);
    struct phase f;
    cJSON *o, *m;
    const char *done =
        "{\"encode\":{\"metrics\":{\"examples.0\":1000,\"tokens.0\":64000,\"params\":100}}}";
    (void)state;
    s->train.max_tokens = 0;
    s->train.passes = 2.5;
    next(s, "{}", done, &f, &o, &m);
    assert_int_equal(f.session.steps, 50);
    s->train.passes = 0;
    s->train.max_steps = 7;
    next(s, "{}", done, &f, &o, &m);
    assert_int_equal(f.session.steps, 7);
    spec_free(s);
}

static void test_ranges_cover_all_rows_once(void **state)
{
    struct spec *s = of_kind(KIND_ANNOTATE);
    struct phase f;
    cJSON *o, *m;
    (void)state;
    s->annotate.rows_per_task = 64;
    next(s, "{\"data.rows\": 130}", "{}", &f, &o, &m);
    assert_int_equal(f.tasks, 3);
    assert_int_equal(f.rows, 130);
    s->kind = KIND_EVALUATE;
    s->evaluate.rows_per_task = 100;
    next(s, "{}", "{\"evaluate.items\":{\"metrics\":{\"rows\":100}}}", &f, &o, &m);
    assert_string_equal(f.name, "evaluate.rows");
    assert_int_equal(f.tasks, 1);
    spec_free(s);
}

static void test_missing_figures_are_errors_not_guesses(void **state)
{
    struct spec *s = of_kind(KIND_SFT);
    struct phase f;
    cJSON *o, *m,
        *done =
            json("{\"encode\":{\"metrics\":{\"examples.0\":0,\"tokens.0\":64000,\"params\":100}}}"),
        *in = json("{}");
    struct err e = {0};
    (void)state;
    assert_int_equal(kind_next_phase(s, in, done, &f, &o, &m, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "examples.0"));
    cJSON_Delete(done);
    cJSON_Delete(in);
    spec_free(s);
}

static void test_a_probe_is_one_phase_of_so_many_tasks(void **state)
{
    struct spec *s = of_kind(KIND_PROBE);
    struct phase f;
    cJSON *o = NULL, *m = NULL;
    (void)state;
    s->probe.tasks = 500;
    next(s, "{}", "{}", &f, &o, &m);
    assert_int_equal(f.type, PHASE_TASKS);
    assert_string_equal(f.task, "probe");
    assert_int_equal(f.tasks, 500);
    next(s, "{}", "{\"probe\":{\"outputs\":{},\"parts\":[],\"metrics\":{}}}", &f, &o, &m);
    assert_int_equal(f.type, PHASE_END);
    assert_int_equal(cJSON_GetArraySize(o), 0);
    cJSON_Delete(o);
    cJSON_Delete(m);
    spec_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_training_encodes_trains_each_fold_and_exports),
        cmocka_unit_test(test_steps_follow_what_the_author_gave),
        cmocka_unit_test(test_ranges_cover_all_rows_once),
        cmocka_unit_test(test_a_probe_is_one_phase_of_so_many_tasks),
        cmocka_unit_test(test_missing_figures_are_errors_not_guesses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
