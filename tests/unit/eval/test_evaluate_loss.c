/* Which tokens of a reply an evaluation takes the loss of: behind nothing, and of a reply that is cut. */
#include "evaluate_fixture.h"

/* Tokens of "abba", standing behind nothing, that are scored. */
static size_t bare_scored(const char *eos, bool whole)
{
    const struct conversation nothing = {.id = "nothing", .source = ""};
    struct evaluate_tail *tail = calloc(1, sizeof *tail);
    struct template_config c;
    struct model m;
    int8_t none[SCHEMA_ATTRS_MAX];
    size_t scored;

    memset(none, -1, sizeof none);
    bare_make(&m, eos);
    c = evaluate_reading(&m, 0);
    OK(evaluate_tail_of(&c, m.tokenizer, &nothing, 0, "abba", 4, whole, none, tail, &e));
    for (size_t i = 0; i < tail->tail.n; i++)
        assert_in_range(tail->tail.v[i], 0, 256);
    evaluate_losses(&m, tail, 1, NULL);
    scored = tail->scored;
    assert_true(isfinite(tail->nll) && tail->nll > 0.0);
    evaluate_tails_free(tail, 1);
    model_fini(&m);
    return scored;
}

static void test_the_first_token_behind_nothing_is_not_scored(void **state)
{
    (void)state;
    assert_int_equal(bare_scored("\"<end>\"", true), 4); /* b, b, a, end */
    assert_int_equal(bare_scored("\"<end>\"", false), 3);
    assert_int_equal(bare_scored("null", true), 3);
    assert_int_equal(bare_scored("null", false), 3);
}

/* A reply that fills the context has no end token to leave out. */
static void test_a_cut_reply_keeps_its_last_token(void **state)
{
    const struct conversation nothing = {.id = "nothing", .source = ""};
    struct evaluate_tail *tail = calloc(2, sizeof *tail);
    struct template_config c;
    struct model m;
    char text[100];
    int8_t none[SCHEMA_ATTRS_MAX];

    (void)state;
    memset(none, -1, sizeof none);
    memset(text, 'a', sizeof text);
    bare_make(&m, "\"<end>\"");
    c = evaluate_reading(&m, 0);
    for (int whole = 0; whole < 2; whole++)
        OK(evaluate_tail_of(&c, m.tokenizer, &nothing, 0, text, sizeof text, whole, none,
                            &tail[whole], &e));
    assert_int_equal(tail[0].prompt.n + tail[0].tail.n, 62); /* room for BOS and end is left */
    assert_int_equal(tail[1].tail.n, tail[0].tail.n);
    evaluate_tails_free(tail, 2);
    model_fini(&m);
}

static void test_models_without_bos_are_no_reason_to_abort(void **state)
{
    cJSON *phases = cJSON_CreateObject(), *keep = w.inputs;
    struct buf text = BUF_INIT;
    struct run_result r;
    struct err e = {0};
    (void)state;

    w.inputs = cJSON_CreateObject();
    cJSON_AddItemToObject(w.inputs, "model.steer",
                          cJSON_Duplicate(cJSON_GetObjectItem(keep, "model.steer"), true));
    data_make("data", 1);
    bare_add("base", "null");
    w.spec->evaluate.models_n = 1;
    (void)items_run(phases);
    rows_run(phases, 0, 5, &text);
    assert_non_null(strstr(text.data, "\"bnll\":"));
    cJSON_DeleteItemFromObject(w.inputs, "model.steer");
    bare_add("model.steer", "\"<end>\"");
    assert_int_equal(execute("evaluate.rows", 0, 5, phases, &r, &e), ERR_INVALID);
    assert_non_null(
        strstr(e.msg, "model steer: item 0: an empty prompt: the tokenizer has no BOS"));
    cJSON_Delete(phases);
    cJSON_Delete(w.inputs);
    w.inputs = keep;
    w.spec->evaluate.models_n = 2;
    buf_free(&text);
}

/* Losses of a line, said again here: own attributes and none, over the line's own number of tokens. */
static void loss_check(const cJSON *line, const struct model *m, const struct dataset *held)
{
    struct template_config c = evaluate_reading(m, 0);
    struct evaluate_tail *tail = calloc(2, sizeof *tail);
    int8_t none[SCHEMA_ATTRS_MAX];
    size_t conversation, tokens = (size_t)json_int_or(line, "k", 0);
    uint32_t turn;

    memset(none, -1, sizeof none);
    dataset_response(held, (size_t)json_int_or(line, "r", -1), &conversation, &turn);
    for (int k = 0; k < 2; k++)
        OK(evaluate_tail_of(&c, m->tokenizer, &held->conversation[conversation], turn, NULL, 0,
                            true, k == 0 ? NULL : none, &tail[k], &e));
    assert_true(evaluate_tail_room(&tail[0], (size_t)m->dims.context) !=
                evaluate_tail_room(&tail[1], (size_t)m->dims.context));
    assert_true(tokens > 0);
    for (int k = 0; k < 2; k++) {
        assert_true(tokens <= evaluate_tail_room(&tail[k], (size_t)m->dims.context));
        tail[k].tail.n = tokens;
    }
    evaluate_losses(m, tail, 2, NULL);
    assert_true(fabs(tail[0].nll - json_number_or(line, "t", 0.0)) < 1e-4 * tail[0].nll);
    assert_true(fabs(tail[1].nll - json_number_or(line, "x", 0.0)) < 1e-4 * tail[1].nll);
    evaluate_tails_free(tail, 2);
}

/* Their labels take other room, so that they are cut at other places. */
static void test_losses_of_cut_replies_are_of_the_same_tokens(void **state)
{
    cJSON *phases = cJSON_CreateObject(), *keep = w.inputs;
    struct buf text = BUF_INIT, tale = BUF_INIT;
    struct model m = {0};
    struct dataset held = {0};
    const char *hex;
    char path[512], *line, *rest;
    int losses = 0;
    (void)state;

    for (int i = 0; i < 100; i++)
        buf_str(&tale, "The cat sat on the mat. ");
    w.inputs = cJSON_CreateObject();
    w.tale = tale.data;
    data_make("data", 1 + 1);
    model_make_named("model.steer", TEMPLATE_NEMO, TEMPLATE_POLICY, 1);
    w.spec->evaluate.models_n = 1;
    w.spec->evaluate.contexts = 1;
    w.spec->evaluate.loss_rows = 2;
    rows_run(phases, 0, items_run(phases), &text);
    OK(json_need_string(json_get(json_get(phases, "evaluate.items"), "outputs"), "held", &hex, &e));
    snprintf(path, sizeof path, "%s/%s", w.dir, hex);
    OK(dataset_load(path, &held, &e));
    snprintf(path, sizeof path, "%s/%s", w.dir,
             cJSON_GetArrayItem(json_get(w.inputs, "model.steer"), 0)->valuestring);
    OK(model_load(path, MODEL_ALL, &m, &e));
    for (line = strtok_r(text.data, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        cJSON *j = NULL;
        OK(json_parse(line, strlen(line), JSON_LIMITS_LINE, &j, &e));
        if (json_get(j, "t") != NULL) {
            loss_check(j, &m, &held);
            losses++;
        }
        cJSON_Delete(j);
    }
    assert_int_equal(losses, 2);
    model_fini(&m);
    dataset_free(&held);
    cJSON_Delete(phases);
    cJSON_Delete(w.inputs);
    w.inputs = keep;
    w.tale = NULL;
    w.spec->evaluate.models_n = 2;
    w.spec->evaluate.contexts = 5;
    w.spec->evaluate.loss_rows = 0;
    buf_free(&text);
    buf_free(&tale);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_token_behind_nothing_is_not_scored),
        cmocka_unit_test(test_a_cut_reply_keeps_its_last_token),
        cmocka_unit_test(test_models_without_bos_are_no_reason_to_abort),
        cmocka_unit_test(test_losses_of_cut_replies_are_of_the_same_tokens),
    };

    return cmocka_run_group_tests(tests, world_make, world_end);
}
