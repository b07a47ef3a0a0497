/* The three phases of an evaluation, one after the other, and what they refuse. */
#include "evaluate_fixture.h"

static void test_the_whole_evaluation(void **state)
{
    cJSON *phases = cJSON_CreateObject(), *json = NULL;
    struct run_result r;
    struct buf one = BUF_INIT, again = BUF_INIT, report = BUF_INIT;
    uint64_t rows = items_run(phases);
    const char *hex;
    char path[512];
    double gap;
    (void)state;

    /* a model: 5 contexts x (1 + 2 guidance x 2 attributes x 2 levels), and 8 talks x 3 kept turns
     */
    assert_int_equal(rows, 2 * (5 * 9 + 24));
    rows_run(phases, 0, 50, &one);
    rows_run(phases, 50, rows, &again);
    buf_clear(&again);
    cJSON *other = cJSON_Duplicate(phases, true);
    rows_run(other, 0, 50, &again);
    assert_string_equal(one.data, again.data); /* a rerun gives the same bytes */
    cJSON_Delete(other);

    OK(execute("evaluate.reduce", 0, 0, phases, &r, &e));
    assert_true(w.beats > 0);
    OK(json_need_string(r.outputs, "report", &hex, &e));
    snprintf(path, sizeof path, "%s/%s/report.json", w.dir, hex);
    OK(file_read(path, 64u << 20, &report, &e));
    OK(json_parse(report.data, report.len, JSON_LIMITS_FILE, &json, &e));
    assert_int_equal(cJSON_GetArraySize(json_get(json, "steering")), 2 * 2 * 2);
    assert_int_equal(cJSON_GetArraySize(json_get(json, "attribute_model")), 1);
    assert_true(cJSON_GetArraySize(json_get(json, "samples")) ==
                2 * (5 + 2)); /* the control shows its highest levels only */
    OK(json_need_number(r.metrics, "gap.steer", &gap, &e));
    assert_true(fabs(gap) < 1.0);
    OK(json_need_number(r.metrics, "effect.control.g1.5.curious.am_curious", &gap, &e));
    OK(json_need_number(r.metrics, "am.mood.kappa", &gap,
                        &e)); /* the made-up annotation asks rightly */
    assert_true(gap > 0.9);
    OK(json_need_number(r.metrics, "tfidf.mood.accuracy", &gap, &e));
    snprintf(path, sizeof path, "%s/%s/steering-g1.5.svg", w.dir, hex);
    assert_true(file_exists(path));
    cJSON_Delete(json);
    run_result_fini(&r);
    cJSON_Delete(phases);
    buf_free(&one);
    buf_free(&again);
    buf_free(&report);
}

static void test_from_nothing_with_rulers_only(void **state)
{
    cJSON *phases = cJSON_CreateObject(), *keep = w.inputs, *json = NULL;
    struct buf text = BUF_INIT, report = BUF_INIT;
    struct run_result r;
    const char *hex;
    char path[512];
    uint64_t rows;
    (void)state;

    w.inputs = cJSON_CreateObject();
    cJSON_AddItemToObject(w.inputs, "model.steer",
                          cJSON_Duplicate(cJSON_GetObjectItem(keep, "model.steer"), true));
    data_make("data", 1);
    model_make("base", TEMPLATE_POLICY, 9);
    w.spec->evaluate.models_n = 1;
    rows = items_run(phases);
    assert_int_equal(rows, 5 * 9);
    rows_run(phases, 0, rows, &text);
    OK(execute("evaluate.reduce", 0, 0, phases, &r, &e));
    assert_null(json_get(r.metrics, "gap.steer"));
    assert_non_null(json_get(r.metrics, "spearman.steer.g1.verbosity.words"));
    OK(json_need_string(r.outputs, "report", &hex, &e));
    snprintf(path, sizeof path, "%s/%s/report.json", w.dir, hex);
    OK(file_read(path, 64u << 20, &report, &e));
    OK(json_parse(report.data, report.len, JSON_LIMITS_FILE, &json, &e));
    assert_true(cJSON_IsNumber(
        json_get(cJSON_GetArrayItem(json_get(json, "unconditioned"), 0), "base_nll_per_token")));
    cJSON_Delete(json);
    run_result_fini(&r);
    cJSON_Delete(phases);
    cJSON_Delete(w.inputs);
    w.inputs = keep;
    w.spec->evaluate.models_n = 2;
    buf_free(&text);
    buf_free(&report);
}

static void test_a_judge_that_answers_in_text(void **state)
{
    cJSON *phases = cJSON_CreateObject(), *keep = cJSON_DetachItemFromObject(w.inputs, "judge");
    struct buf text = BUF_INIT;
    (void)state;

    model_make("judge", TEMPLATE_HEAD_LM, 6);
    (void)items_run(phases);
    rows_run(phases, 0, 12, &text);
    assert_non_null(strstr(text.data, "\"v\":["));
    cJSON_DeleteItemFromObject(w.inputs, "judge");
    cJSON_AddItemToObject(w.inputs, "judge", keep);
    cJSON_Delete(phases);
    buf_free(&text);
}

static void test_what_does_not_fit_is_named(void **state)
{
    cJSON *phases = cJSON_CreateObject(), *keep, *swap;
    struct evaluate_spec *v = &w.spec->evaluate;
    uint64_t rows;
    (void)state;

    v->levels = (struct int_list){2, {0, 5}};
    refused("evaluate.items", 0, 0, phases, ERR_INVALID, "attribute curious has 0..4");
    v->levels = (struct int_list){2, {0, 4}};
    strcpy(v->rulers.v[0], "questoin");
    refused("evaluate.items", 0, 0, phases, ERR_INVALID, "ruler \"questoin\"");
    strcpy(v->rulers.v[0], "question");
    v->guidance.n = 9;
    for (int g = 0; g < 9; g++)
        v->guidance.v[g] = 1.0 + g;
    refused("evaluate.items", 0, 0, phases, ERR_INVALID, "evaluate.guidance has 9");
    v->guidance.n = 1;
    keep = cJSON_DetachItemFromObject(w.inputs, "judge");
    swap = cJSON_Duplicate(cJSON_GetObjectItem(w.inputs, "model.steer"), true);
    cJSON_AddItemToObject(w.inputs, "judge", swap);
    refused("evaluate.items", 0, 0, phases, ERR_INVALID, "no attribute model");
    cJSON_DeleteItemFromObject(w.inputs, "judge");
    cJSON_AddItemToObject(w.inputs, "judge", keep);
    rows = items_run(phases);
    refused("evaluate.rows", 0, rows + 1, phases, ERR_INVALID, "items");
    keep = cJSON_DetachItemFromObject(w.inputs, "model.steer");
    cJSON_AddItemToObject(w.inputs, "model.steer",
                          cJSON_Duplicate(cJSON_GetObjectItem(w.inputs, "judge"), true));
    refused("evaluate.rows", 0, 4, phases, ERR_INVALID, "model steer: is an attribute model");
    cJSON_DeleteItemFromObject(w.inputs, "model.steer");
    refused("evaluate.rows", 0, 4, phases, ERR_INVALID, "model.steer");
    cJSON_AddItemToObject(w.inputs, "model.steer", keep);
    keep = cJSON_DetachItemFromObject(w.inputs, "base");
    model_make("base", TEMPLATE_HEAD_REGRESSION, 8);
    refused("evaluate.rows", 0, 1, phases, ERR_INVALID, "input base is a regression model");
    cJSON_DeleteItemFromObject(w.inputs, "base");
    if (keep != NULL)
        cJSON_AddItemToObject(w.inputs, "base", keep);
    w.cancel = true;
    refused("evaluate.rows", 0, rows, phases, ERR_CANCELLED, "stop");
    w.cancel = false;
    cJSON_Delete(phases);
}

/* Replaces the only part of the rows by this text. */
static void part_set(cJSON *phases, const char *text, size_t len)
{
    cJSON *parts = cJSON_GetObjectItem(phase_of(phases, "evaluate.rows"), "parts");
    char path[300];
    struct digest d;

    snprintf(path, sizeof path, "%s/changed", w.dir);
    OK(file_write_atomic(path, text, len, &e));
    OK(store_publish(NULL, path, &d, &e));
    cJSON_DeleteItemFromArray(parts, 0);
    cJSON_AddItemToArray(parts, cJSON_CreateString(d.hex));
}

static size_t line_len(const char *text)
{
    return (size_t)(strchr(text, '\n') - text) + 1;
}

static void test_rows_must_be_the_items_one_by_one(void **state)
{
    cJSON *phases = cJSON_CreateObject(), *keep = w.inputs;
    struct buf text = BUF_INIT, bad = BUF_INIT;
    size_t first, second, last;
    uint64_t rows;
    char *at;
    (void)state;

    w.inputs = cJSON_CreateObject();
    cJSON_AddItemToObject(w.inputs, "model.steer",
                          cJSON_Duplicate(cJSON_GetObjectItem(keep, "model.steer"), true));
    data_make("data", TURNS);
    w.spec->evaluate.models_n = 1;
    w.spec->evaluate.contexts = 2;
    rows = items_run(phases);
    rows_run(phases, 0, rows, &text);
    first = line_len(text.data);
    second = line_len(text.data + first);
    for (last = text.len - 1; text.data[last - 1] != '\n'; last--)
        ;

    buf_add(&bad, text.data, first); /* the first one twice */
    buf_add(&bad, text.data, text.len);
    part_set(phases, bad.data, bad.len);
    refused("evaluate.reduce", 0, 0, phases, ERR_CORRUPT, "line 2: ");
    refused("evaluate.reduce", 0, 0, phases, ERR_CORRUPT, "item 1 ");

    buf_clear(&bad); /* the first one in place of the second */
    buf_add(&bad, text.data, first);
    buf_add(&bad, text.data, first);
    buf_add(&bad, text.data + first + second, text.len - first - second);
    part_set(phases, bad.data, bad.len);
    refused("evaluate.reduce", 0, 0, phases, ERR_CORRUPT, "part 0 of phase evaluate.rows: line 2");

    part_set(phases, text.data, last);
    refused("evaluate.reduce", 0, 0, phases, ERR_CORRUPT, "there are more items");

    buf_clear(&bad);
    buf_add(&bad, text.data, text.len);
    buf_add(&bad, text.data + last, text.len - last);
    part_set(phases, bad.data, bad.len);
    refused("evaluate.reduce", 0, 0, phases, ERR_CORRUPT, "one more than the");

    at = strstr(text.data, "\"c\":1"); /* a number that is not the item's */
    assert_non_null(at);
    at[4] = '7';
    part_set(phases, text.data, text.len);
    refused("evaluate.reduce", 0, 0, phases, ERR_CORRUPT, "\"c\" is 7, item ");

    cJSON_Delete(phases);
    cJSON_Delete(w.inputs);
    w.inputs = keep;
    w.spec->evaluate.models_n = 2;
    w.spec->evaluate.contexts = 5;
    buf_free(&text);
    buf_free(&bad);
}

static void test_levels_of_those_not_under_test(void **state)
{
    struct schema s;
    struct results *r = calloc(1, sizeof *r);
    int8_t level[SCHEMA_ATTRS_MAX];
    (void)state;

    schema_fill(&s);
    r->attrs = 2;
    r->computed[1] = true;
    r->levels = 2;
    r->level[1] = 4;
    strcpy(r->others, "missing");
    evaluate_levels(&s, r, 0, 1, level);
    assert_int_equal(level[0], 4);
    assert_int_equal(level[1], 2); /* length stays in the middle */
    evaluate_levels(&s, r, 1, 0, level);
    assert_int_equal(level[0], -1);
    assert_int_equal(level[1], 0);
    strcpy(r->others, "middle");
    evaluate_levels(&s, r, 1, 1, level);
    assert_int_equal(level[0], 2);
    evaluate_levels(&s, r, -1, 0, level);
    assert_int_equal(level[1], -1);
    free(r);
}

static void test_models_are_put_in_order(void **state)
{
    static const char *const label[] = {"boot",  "control", "control-2",
                                        "human", "steer",   "steer-2"};
    static const char *const want[] = {"steer", "steer-2", "control", "control-2", "boot", "human"};
    struct spec *s = spec_new();
    struct run_task t = {.spec = s};
    struct schema schema;
    struct results *r = calloc(1, sizeof *r);
    (void)state;

    schema_fill(&schema);
    s->evaluate.models_n = 6;
    for (int i = 0; i < 6; i++)
        strcpy(s->evaluate.model[i].label, label[i]);
    OK(evaluate_design(&t, &schema, NULL, r, &e));
    for (int i = 0; i < 6; i++)
        assert_string_equal(r->model[i], want[i]);
    strcpy(s->evaluate.model[4].label, "tuned");
    memset(r, 0, sizeof *r);
    OK(evaluate_design(&t, &schema, NULL, r, &e));
    assert_string_equal(r->model[0], "boot"); /* no steer: the first that is no control */
    assert_string_equal(r->model[1], "control");
    free(r);
    spec_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_whole_evaluation),
        cmocka_unit_test(test_from_nothing_with_rulers_only),
        cmocka_unit_test(test_a_judge_that_answers_in_text),
        cmocka_unit_test(test_rows_must_be_the_items_one_by_one),
        cmocka_unit_test(test_what_does_not_fit_is_named),
        cmocka_unit_test(test_levels_of_those_not_under_test),
        cmocka_unit_test(test_models_are_put_in_order),
    };
    return cmocka_run_group_tests(tests, world_make, world_end);
}
