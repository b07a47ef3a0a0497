#include "sched_fixture.h"

static void collect(void *self, const char *ref)
{
    buf_str(self, ref);
    buf_char(self, '\n');
}

static void test_smoke_has_its_stages_needs_and_inputs(void **state)
{
    struct spec *spec = fixture_smoke();
    cJSON *resolved = fixture_resolved(spec);
    struct expansion *x = NULL;
    struct err e = {0};
    const struct expand_stage *s = NULL;

    (void)state;
    assert_int_equal(expand_spec(spec, resolved, &x, &e), 0);
    assert_int_equal(x->stages_n, 6);
    s = &x->stage[0];
    assert_string_equal(s->name, "data/chat"); /* data first, once for all that use it */
    assert_int_equal(s->spec->kind, KIND_PREPARE);
    assert_int_equal(s->needs_n, 0);
    assert_string_equal(s->input[0].key, "files");
    assert_string_equal(s->input[0].ref[0].digest.hex,
                        json_string_or(resolved, spec->data[0].files.v[0], ""));
    s = &x->stage[expand_find(x, "annotate")];
    assert_int_equal(s->needs_n, 2);
    for (int i = 0; i < s->inputs_n; i++) {
        const char *output = strcmp(s->input[i].key, "model") == 0 ? "model" : "data";

        assert_string_equal(s->input[i].ref[0].output, output);
    }
    s = &x->stage[expand_find(x, "report")];
    assert_int_equal(s->needs_n, 4); /* annotate, attribute-model, steer, control */
    assert_string_equal(s->input[s->inputs_n - 1].key, "model.control");
    assert_int_equal(s->input[s->inputs_n - 1].ref[0].stage, expand_find(x, "control"));
    expand_free(x);
    cJSON_Delete(resolved);
    spec_free(spec);
}

static struct input_ref *input_of(struct spec *s, const char *key)
{
    for (int i = 0; i < s->inputs_n; i++) {
        if (strcmp(s->input[i].key, key) == 0)
            return &s->input[i];
    }
    fail_msg("no input %s", key);
    return NULL;
}

static void test_references_to_nothing_are_named(void **state)
{
    static const struct {
        const char *ref, *says;
    } cases[] = {
        {"stage:nobody", "there is no stage \"nobody\""},
        {"data:nobody", "there is no data set"},
        {"file:nowhere", "not among the uploaded files"},
        {"sha256:abc", "64 lower-case hexadecimal"},
        {"sha256:zz00000000000000000000000000000000000000000000000000000000000000",
         "64 lower-case hexadecimal"},
        {"job:job_0000000000000", "no such finished job"},
        {"ftp://x", "a reference is"},
        {"", "a reference is"},
        {"stage:report", "waits for itself"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct spec *spec = fixture_smoke();
        cJSON *resolved = fixture_resolved(spec);
        struct expansion *x = NULL;
        struct err e = {0};

        snprintf(input_of(spec->stage[1]->spec, "model")->refs.v[0], SPEC_TEXT_MAX, "%s",
                 cases[i].ref);
        assert_int_equal(expand_spec(spec, resolved, &x, &e), ERR_INVALID);
        assert_null(x);
        if (strstr(e.msg, cases[i].says) == NULL)
            fail_msg("%s: %s", cases[i].ref, e.msg);
        cJSON_Delete(resolved);
        spec_free(spec);
    }
}

static void test_what_was_resolved_must_be_digests(void **state)
{
    static const char *const bad[] = {"1", "\"abc\"", "null", "{}", "[\"abc\"]", "[[\"x\"]]"};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct spec *spec = fixture_smoke();
        cJSON *resolved = fixture_resolved(spec);
        struct expansion *x = NULL;
        struct err e = {0};

        cJSON_DeleteItemFromObjectCaseSensitive(resolved, spec->data[0].files.v[0]);
        cJSON_AddItemToObject(resolved, spec->data[0].files.v[0], cJSON_Parse(bad[i]));
        assert_int_equal(expand_spec(spec, resolved, &x, &e), ERR_INVALID);
        cJSON_Delete(resolved);
        spec_free(spec);
    }
}

static void test_jobs_and_digests_as_inputs(void **state)
{
    static const char hex[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    struct spec *spec = fixture_smoke();
    cJSON *resolved = fixture_resolved(spec), *list = NULL;
    struct expansion *x = NULL;
    struct err e = {0};
    const struct expand_stage *s = NULL;

    (void)state;
    snprintf(input_of(spec->stage[1]->spec, "model")->refs.v[0], SPEC_TEXT_MAX, "sha256:%s", hex);
    snprintf(input_of(spec->stage[1]->spec, "data")->refs.v[0], SPEC_TEXT_MAX,
             "job:job_x/outputs.data");
    list = cJSON_AddArrayToObject(resolved, "job:job_x/outputs.data");
    cJSON_AddItemToArray(list, cJSON_CreateString(hex));
    cJSON_AddNumberToObject(resolved, "job:job_x/outputs.data#rows", 17);
    spec->stage[1]->needs.n = 0;
    assert_int_equal(expand_spec(spec, resolved, &x, &e), 0);
    s = &x->stage[expand_find(x, "annotate")];
    assert_int_equal(s->needs_n, 0);
    for (int i = 0; i < s->inputs_n; i++) {
        assert_string_equal(s->input[i].ref[0].digest.hex, hex);
        assert_int_equal(s->input[i].ref[0].stage, -1);
        if (strcmp(s->input[i].key, "data") == 0)
            assert_int_equal(s->input[i].ref[0].rows, 17);
    }
    expand_free(x);
    cJSON_Delete(resolved);
    spec_free(spec);
}

static void test_one_name_is_one_data_set(void **state)
{
    struct spec *spec = fixture_smoke();
    cJSON *resolved = fixture_resolved(spec);
    struct expansion *x = NULL;
    struct err e = {0};
    struct spec *first = spec->stage[0]->spec, *second = spec->stage[1]->spec;

    (void)state;
    assert_string_equal(input_of(first, "train")->refs.v[0], "data:chat");
    snprintf(input_of(second, "data")->refs.v[0], SPEC_TEXT_MAX, "data:chat");
    second->seed++; /* has no part in the rows */
    assert_int_equal(expand_spec(spec, resolved, &x, &e), 0);
    expand_free(x);
    x = NULL;
    second->data[0].split.held_out = 0.5;
    assert_int_equal(expand_spec(spec, resolved, &x, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "data:chat: two stages define it differently"));
    second->data[0].split.held_out = first->data[0].split.held_out;
    second->schema.label[0].exact = !second->schema.label[0].exact;
    assert_int_equal(expand_spec(spec, resolved, &x, &e), ERR_INVALID);
    cJSON_Delete(resolved);
    spec_free(spec);
}

static void test_each_ref_finds_files_of_data_and_models(void **state)
{
    struct spec *spec = fixture_smoke();
    struct buf all = BUF_INIT;

    (void)state;
    expand_each_ref(spec, collect, &all);
    assert_non_null(strstr(all.data, "file:"));
    assert_non_null(strstr(all.data, "stories260K"));
    assert_non_null(strstr(all.data, "topical-chat"));
    assert_non_null(strstr(all.data, "stage:control"));
    buf_free(&all);
    spec_free(spec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smoke_has_its_stages_needs_and_inputs),
        cmocka_unit_test(test_references_to_nothing_are_named),
        cmocka_unit_test(test_what_was_resolved_must_be_digests),
        cmocka_unit_test(test_jobs_and_digests_as_inputs),
        cmocka_unit_test(test_one_name_is_one_data_set),
        cmocka_unit_test(test_each_ref_finds_files_of_data_and_models),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
