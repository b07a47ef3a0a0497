#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <glob.h>
#include <cmocka.h>

#include "base/file.h"
#include "jobs/spec.h"

#define HEAD "apiVersion: steerlm/v1\nkind: sft\nname: x\n"
#define ATTRS "attributes: {quality: {type: integer, min: 0, max: 9}}\n"
#define BODY "data: {d: {files: [a.jsonl]}}\ninputs: {base: \"file:m\", train: \"data:d\"}\n"
#define GOOD HEAD ATTRS BODY "train: {max_steps: 10}\n"

#define PIPELINE                                                                                   \
    "apiVersion: steerlm/v1\nkind: pipeline\nname: x\n" ATTRS "data: {d: {files: [a.jsonl]}}\n"
#define TRAINING                                                                                   \
    "- {name: t, kind: sft, inputs: {base: \"file:m\", train: \"data:d\"}, train: {max_steps: "    \
    "1}}\n"

static struct spec *parse(const char *yaml, struct spec_problems *p)
{
    struct spec *s = NULL;
    struct err e = {0};

    spec_parse(yaml, strlen(yaml), NULL, 0, NULL, NULL, &s, p, &e);
    return s;
}

static void test_good_spec_has_values_and_defaults(void **state)
{
    struct spec_problems p = {0};
    struct spec *s = parse(GOOD, &p);
    (void)state;
    if (p.n > 0)
        fail_msg("%d:%d %s", p.v[0].line, p.v[0].column, p.v[0].text);
    assert_non_null(s);
    assert_int_equal(s->kind, KIND_SFT);
    assert_int_equal(s->train.max_steps, 10);
    assert_int_equal(s->train.units, 8);
    assert_int_equal(s->schema.attr[0].levels, 10);
    assert_string_equal(spec_input(s, "train")->refs.v[0], "data:d");
    assert_string_equal(s->condition.template_name, "plain");
    spec_free(s);
}

static void test_weights_of_decoding(void **state)
{
    static const char head[] =
        "apiVersion: steerlm/v1\nkind: generate\nname: x\ninputs: {model: \"file:m\"}\n";
    static const char *const body[] = {"generate: {from_nothing: 2}\n",
                                       "generate: {from_nothing: 2, decode: {weights: int8}}\n"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct spec_problems p = {0};
        char yaml[256];
        struct spec *s;
        snprintf(yaml, sizeof yaml, "%s%s", head, body[i]);
        s = parse(yaml, &p);
        if (p.n > 0)
            fail_msg("%d:%d %s", p.v[0].line, p.v[0].column, p.v[0].text);
        assert_string_equal(s->generate.decode.weights, i == 0 ? "fp32" : "int8");
        assert_string_equal(s->evaluate.decode.weights, "fp32");
        spec_free(s);
    }
}

/* Every refusal names its place and says what to do. */
static void test_bad_specs_are_refused_with_place_and_bound(void **state)
{
    static const struct {
        const char *yaml;
        int line, column;
        const char *code, *says;
    } cases[] = {
        {HEAD ATTRS BODY "trian: {max_steps: 10}\n", 7, 1, "unknown_key", "did you mean \"train\""},
        {GOOD "seed: 1\nseed: 2\n", 9, 1, "duplicate_key", "twice, first at line 8"},
        {HEAD ATTRS BODY "train: {max_steps: 10, units: 0}\n", 7, 31, "out_of_range",
         "must be 1..4096"},
        {HEAD ATTRS BODY "train: {max_steps: ten}\n", 7, 20, "wrong_type", "must be a number"},
        {HEAD ATTRS BODY "train: {max_steps: 1.5}\n", 7, 20, "wrong_type", "whole number"},
        {HEAD ATTRS BODY "train: {max_steps: 5, passes: 1}\n", 7, 8, "missing", "exactly one"},
        {HEAD ATTRS BODY "train: {max_steps: 5, optimizer: {lrr: 1}}\n", 7, 35, "unknown_key",
         "\"lr\""},
        {HEAD ATTRS BODY "train: {max_steps: 5, schedule: {name: cosin}}\n", 7, 40, "bad_choice",
         "\"cosine\""},
        {HEAD ATTRS BODY "train: {max_steps: 5, optimizer: {betas: [0.9]}}\n", 7, 42, "wrong_type",
         "two numbers"},
        {HEAD ATTRS BODY "train: {max_steps: 5, global_batch: 4}\n", 7, 8, "out_of_range",
         "at most train.global_batch"},
        {"apiVersion: steerlm/v1\nkind: generate\nname: x\ngenerate: {decode: {weights: int4}}\n",
         4, 30, "bad_choice", "int8"},
        {"apiVersion: steerlm/v2\nkind: sft\nname: x\n", 1, 13, "bad_version", "steerlm/v1"},
        {"apiVersion: steerlm/v1\nkind: sff\nname: x\n", 2, 7, "bad_choice", "\"sft\""},
        {"apiVersion: steerlm/v1\nkind: prepare\nname: x\n", 2, 7, "bad_choice", "kind is"},
        {GOOD "x: &a 1\n", 8, 4, "anchor", "anchors"},
        {GOOD "x: *a\n", 8, 4, "alias", "aliases"},
        {GOOD "x: !!int 1\n", 8, 4, "tag", "tags"},
        {GOOD "--- {}\n", 8, 1, "documents", "one document"},
        {GOOD "x: [1\n", 9, 1, "syntax", ""},
        {GOOD "evaluate: {}\n", 8, 1, "misplaced_key", "not a key of this kind"},
        {HEAD ATTRS "inputs: {base: \"file:m\", train: \"data:nope\"}\ntrain: {max_steps: 1}\n", 5,
         9, "bad_reference", "no data set \"nope\""},
        {HEAD ATTRS BODY "train: {max_steps: 1}\ncondition: {template: kontrol}\n", 8, 23,
         "bad_choice", "\"control\""},
        {HEAD "attributes: {Quality: {type: integer}}\n" BODY "train: {max_steps: 1}\n", 4, 14,
         "bad_name", "[a-z]"},
        {HEAD "attributes: {q: {type: integer, min: 5, max: 2}}\n" BODY "train: {max_steps: 1}\n",
         4, 17, "out_of_range", "levels"},
        {HEAD "attributes: {q: {type: computed, measure: wordz}}\n" BODY "train: {max_steps: 1}\n",
         4, 43, "bad_choice", "no measure"},
        {HEAD "attributes: {q: {type: categorical, from: mood}}\n" BODY "train: {max_steps: 1}\n",
         4, 17, "missing", "from"},
        {GOOD "numerics: bf61\n", 8, 11, "bad_choice", "\"bf16\""},
        {"apiVersion: steerlm/v1\nkind: generate\nname: x\nnumerics: bf16\n"
         "inputs: {model: \"file:m\"}\ngenerate: {from_nothing: 1}\n",
         4, 11, "bad_choice", "did you mean \"strict\""},
        {PIPELINE "numerics: strict\nstages:\n- {name: g, kind: generate, numerics: bf16, "
                  "inputs: {model: \"stage:t\"}, generate: {from_nothing: 1}}\n" TRAINING,
         8, 39, "bad_choice", "generate computes in fp32"},
        {HEAD ATTRS BODY "train: {max_steps: 1}\nreuse_verified: yes\n", 8, 17, "wrong_type",
         "true or false"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct spec_problems p = {0};
        struct spec *s = parse(cases[i].yaml, &p);
        bool found = false;
        assert_null(s);
        for (int k = 0; k < p.n; k++)
            found = found || (p.v[k].line == cases[i].line && p.v[k].column == cases[i].column &&
                              strcmp(p.v[k].code, cases[i].code) == 0 &&
                              strstr(p.v[k].text, cases[i].says) != NULL);
        if (!found)
            fail_msg("case %zu: want %d:%d %s \"%s\"; got %d:%d %s \"%s\"", i, cases[i].line,
                     cases[i].column, cases[i].code, cases[i].says, p.n ? p.v[0].line : -1,
                     p.n ? p.v[0].column : -1, p.n ? p.v[0].code : "-",
                     p.n ? p.v[0].text : "no problem");
        spec_problems_free(&p);
    }
}

/* A pipeline's word is for the stages that train; a stage may have one of its own. */
static void test_bf16_is_for_the_stages_that_train(void **state)
{
    static const char *const yaml[] = {
        PIPELINE "numerics: bf16\nstages:\n- {name: g, kind: generate, inputs: {model: "
                 "\"stage:t\"}, generate: {from_nothing: 1}}\n" TRAINING,
        PIPELINE
        "stages:\n- {name: g, kind: generate, inputs: {model: \"stage:t\"}, "
        "generate: {from_nothing: 1}}\n- {name: t, kind: sft, numerics: bf16, inputs: {base: "
        "\"file:m\", train: \"data:d\"}, train: {max_steps: 1}}\n"};

    (void)state;
    for (size_t i = 0; i < sizeof yaml / sizeof yaml[0]; i++) {
        struct spec_problems p = {0};
        struct spec *s = parse(yaml[i], &p), *back;
        struct err e;
        cJSON *j;

        if (s == NULL)
            fail_msg("%d:%d %s", p.v[0].line, p.v[0].column, p.v[0].text);
        j = spec_to_json(s);
        assert_int_equal(spec_from_json(j, &back, &e), 0);
        assert_string_equal(back->stage[0]->spec->numerics, "strict");
        assert_false(spec_trains_bf16(back->stage[0]->spec));
        assert_true(spec_trains_bf16(back->stage[1]->spec));
        cJSON_Delete(j);
        spec_free(s);
        spec_free(back);
    }
}

static void refused(const char *yaml, int line, int column, const char *pointer, const char *code,
                    const char *text)
{
    struct spec_problems p = {0};

    assert_null(parse(yaml, &p));
    if (p.n != 1 || p.v[0].line != line || p.v[0].column != column ||
        strcmp(p.v[0].pointer, pointer) != 0 || strcmp(p.v[0].code, code) != 0 ||
        strcmp(p.v[0].text, text) != 0)
        fail_msg("%d problems, the first %d:%d %s %s \"%s\"", p.n, p.v[0].line, p.v[0].column,
                 p.v[0].pointer, p.v[0].code, p.v[0].text);
    spec_problems_free(&p);
}

static void test_what_an_evaluation_would_compute_twice_is_refused(void **state)
{
#define EVALUATE(list)                                                                             \
    "apiVersion: steerlm/v1\nkind: evaluate\nname: x\n" ATTRS "inputs: {data: \"stage:a\"}\n"      \
    "evaluate: {models: {m: \"stage:s\"}, " list "}\n"
    (void)state;
    refused(EVALUATE("guidance: [1, 1.5, 1.50004]"), 6, 55, "/evaluate/guidance/2", "duplicate",
            "evaluate.guidance has 1.5 twice");
    refused(EVALUATE("rulers: [words, wow, words]"), 6, 57, "/evaluate/rulers/2", "duplicate",
            "evaluate.rulers has words twice");
    refused(PIPELINE
            "stages:\n" TRAINING
            "- {name: e, kind: evaluate, inputs: {data: \"data:d\"}, evaluate: {models: {m: "
            "\"stage:t\"}, guidance: [2, 2]}}\n",
            8, 104, "/stages/1/evaluate/guidance/1", "duplicate", "evaluate.guidance has 2 twice");
    refused(EVALUATE("guidance: [1, 2, 3, 4, 5, 6, 7, 8, 9]"), 6, 46, "/evaluate/guidance",
            "out_of_range", "evaluate.guidance has 9 strengths, must be 1..8");
}

/* Only the first would be read. */
static void test_inputs_that_take_one_refuse_more(void **state)
{
#define KIND(kind) "apiVersion: steerlm/v1\nkind: " kind "\nname: x\n" ATTRS
#define TWO "[\"file:p\", \"file:q\"]"
    struct spec_problems p = {0};
    struct spec *s;

    (void)state;
    refused(KIND("evaluate") "inputs: {data: " TWO "}\nevaluate: {models: {m: \"file:m\"}}\n", 5,
            16, "/inputs/data", "out_of_range",
            "inputs.data has 2 references, evaluate takes one; the second is \"file:q\"");
    refused(KIND("annotate") "inputs: {model: \"file:m\", data: " TWO "}\n", 5, 33, "/inputs/data",
            "out_of_range",
            "inputs.data has 2 references, annotate takes one; the second is \"file:q\"");
    refused(KIND("generate") "inputs: {model: \"file:m\", prompts: " TWO "}\n", 5, 36,
            "/inputs/prompts", "out_of_range",
            "inputs.prompts has 2 references, generate takes one; the second is \"file:q\"");
    refused(KIND("generate") "inputs: {model: " TWO "}\ngenerate: {from_nothing: 1}\n", 5, 17,
            "/inputs/model", "out_of_range",
            "inputs.model has 2 references, generate takes one; the second is \"file:q\"");
    refused(KIND("bootstrap") "inputs: {model: " TWO ", judge: \"file:j\", data: \"file:d\"}\n"
                              "bootstrap: {where: {quality: \">=3\"}}\n",
            5, 17, "/inputs/model", "out_of_range",
            "inputs.model has 2 references, bootstrap takes one; the second is \"file:q\"");
    refused(HEAD ATTRS "inputs: {base: " TWO ", train: \"file:d\"}\ntrain: {max_steps: 1}\n", 5, 16,
            "/inputs/base", "out_of_range",
            "inputs.base has 2 references, sft takes one; the second is \"file:q\"");
    static const char *const lists[] = {
        HEAD ATTRS "inputs: {base: \"file:m\", train: " TWO "}\ntrain: {max_steps: 1}\n",
        KIND("annotate") "inputs: {model: " TWO ", data: \"file:d\"}\n",
        KIND("evaluate") "inputs: {data: \"file:d\", judge: " TWO
                         "}\nevaluate: {models: {m: \"file:m\"}}\n"};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        s = parse(lists[i], &p);
        if (s == NULL)
            fail_msg("%zu: %s", i, p.v[0].text);
        spec_free(s);
    }
}

static void test_all_problems_are_listed(void **state)
{
    struct spec_problems p = {0};
    (void)state;
    assert_null(parse(HEAD "foo: 1\nbar: 2\ntrain: {units: 0, max_steps: x}\n", &p));
    assert_true(p.n >= 4);
    spec_problems_free(&p);
}

static void test_bombs_end_quickly(void **state)
{
    struct spec_problems p = {0};
    char *deep = malloc(60001);
    (void)state;
    memset(deep, '[', 60000);
    deep[60000] = '\0';
    assert_null(parse(deep, &p));
    assert_string_equal(p.v[0].code, "too_deep");
    spec_problems_free(&p);
    for (int i = 0; i < 60000; i += 4)
        memcpy(deep + i, "{a: ", 4);
    assert_null(parse(deep, &p));
    spec_problems_free(&p);
    free(deep);
}

/* Copies of copies: a list that is too long is not resolved, and what `like` copies is bounded. */
static void test_likes_do_not_multiply(void **state)
{
    static const int stages[] = {1500, 64};
    static const char *const says[] = {"must be a list of 1..64 stages", "more than 32768"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct spec_problems p = {0};
        struct buf yaml = BUF_INIT;
        bool said = false;
        buf_str(&yaml, PIPELINE "stages:\n- {name: s0, kind: sft, needs: [");
        for (int k = 0; k < 10000; k++)
            buf_str(&yaml, k > 0 ? ",a" : "a");
        buf_str(&yaml, "]}\n");
        for (int k = 1; k < stages[i]; k++)
            buf_printf(&yaml, "- {name: s%d, like: s%d}\n", k, i == 0 ? k - 1 : 0);
        assert_true(yaml.len < SPEC_YAML_MAX);
        assert_null(parse(yaml.data, &p));
        for (int k = 0; k < p.n; k++)
            said = said || strstr(p.v[k].text, says[i]) != NULL;
        assert_true(said);
        assert_true(p.n < 200);
        spec_problems_free(&p);
        buf_free(&yaml);
    }
}

static void read_spec_file(const char *path, struct buf *out)
{
    struct err e = {0};
    if (file_read(path, SPEC_YAML_MAX, out, &e) != 0)
        fail_msg("%s", e.msg);
}

static void test_demo_reads_back_the_same_from_its_json(void **state)
{
    struct buf yaml = BUF_INIT, one = BUF_INIT, two = BUF_INIT;
    struct spec_problems p = {0};
    struct spec *s, *back = NULL;
    struct err e = {0};
    cJSON *j, *again;
    (void)state;
    read_spec_file("jobs/specs/demo.yaml", &yaml);
    s = parse(yaml.data, &p);
    for (int i = 0; i < p.n; i++)
        print_message("%d:%d %s\n", p.v[i].line, p.v[i].column, p.v[i].text);
    assert_non_null(s);
    assert_int_equal(s->stages_n, 5);
    assert_true(s->stage[3]->spec->condition.shuffle_labels); /* like + set */
    assert_false(s->stage[2]->spec->condition.shuffle_labels);
    assert_int_equal(s->stage[3]->spec->train.global_batch, 48);
    assert_string_equal(s->stage[2]->needs.v[0], "annotate"); /* implied by the input */
    assert_int_equal(s->schema.label[1].other, -1);
    assert_int_equal(s->schema.label[0].other, 0);
    assert_int_equal(s->schema.attr[2].class_index, 1);
    j = spec_to_json(s);
    json_canonical(j, &one);
    if (spec_from_json(j, &back, &e) != 0)
        fail_msg("%s", e.msg);
    assert_string_equal(back->schema.attr[2].name,
                        "personal"); /* in the order that the author wrote */
    assert_string_equal(back->schema.label[1].name, "sentiment");
    assert_string_equal(back->stage[4]->spec->evaluate.model[0].label, "steer");
    again = spec_to_json(back);
    json_canonical(again, &two);
    assert_string_equal(one.data, two.data);
    cJSON_Delete(j);
    cJSON_Delete(again);
    spec_free(s);
    spec_free(back);
    buf_free(&yaml);
    buf_free(&one);
    buf_free(&two);
}

static void test_what_is_a_stages_own_is_kept_in_its_json(void **state)
{
    struct spec_problems p = {0};
    struct spec *back = NULL,
                *s = parse(PIPELINE "stages:\n" TRAINING
                                    "- {name: own, kind: sft, data: {d: {files: [b.jsonl]}}, "
                                    "attributes: {depth: {type: integer}}, inputs: {base: "
                                    "\"file:m\", train: \"data:d\"}, train: {max_steps: 1}}\n",
                           &p);
    struct err e = {0};
    cJSON *j;

    (void)state;
    assert_non_null(s);
    j = spec_to_json(s);
    assert_null(json_get(cJSON_GetArrayItem(json_get(j, "stages"), 0), "data"));
    if (spec_from_json(j, &back, &e) != 0)
        fail_msg("%s", e.msg);
    for (int i = 0; i < 2; i++) {
        cJSON *one = spec_to_json(s->stage[i]->spec), *two = spec_to_json(back->stage[i]->spec);
        assert_true(cJSON_Compare(one, two, true));
        cJSON_Delete(one);
        cJSON_Delete(two);
    }
    assert_string_equal(back->stage[0]->spec->data[0].files.v[0], "a.jsonl");
    assert_string_equal(back->stage[1]->spec->data[0].files.v[0], "b.jsonl");
    assert_string_equal(back->stage[1]->spec->schema.attr[0].name, "depth");
    cJSON_Delete(j);
    spec_free(s);
    spec_free(back);
}

/* JSON objects have no order; attributes do: quality first, as the author wrote. */
static void test_attributes_keep_their_order(void **state)
{
    struct spec_problems p = {0};
    struct spec *back = NULL,
                *s = parse(HEAD "attributes: {quality: {type: integer}, humor: {type: integer}, "
                                "clarity: {type: integer}}\n" BODY "train: {max_steps: 1}\n",
                           &p);
    struct err e = {0};
    cJSON *j;
    (void)state;
    assert_non_null(s);
    j = spec_to_json(s);
    assert_int_equal(spec_from_json(j, &back, &e), 0);
    assert_string_equal(back->schema.attr[0].name, "quality");
    assert_string_equal(back->schema.attr[1].name, "humor");
    assert_string_equal(back->schema.label[2].name, "clarity");
    cJSON_Delete(j);
    spec_free(s);
    spec_free(back);
}

/* A class that is named later goes before the catch-all, whose attributes go on meaning it. */
static void test_attributes_of_the_catch_all_keep_their_class(void **state)
{
    struct spec_problems p = {0};
    struct spec *s =
        parse(HEAD "attributes: {sad: {type: categorical, from: mood, class: Sad}, rest: {type: "
                   "categorical, from: mood, class: other}, glad: {type: categorical, from: mood, "
                   "class: Glad}}\n" BODY "train: {max_steps: 1}\n",
              &p);
    static const char *const says[] = {"Sad", "other", "Glad"};

    (void)state;
    assert_non_null(s);
    for (int i = 0; i < 3; i++)
        assert_string_equal(s->schema.label[0].class_name[s->schema.attr[i].class_index], says[i]);
    assert_int_equal(s->schema.label[0].other, 2);
    spec_free(s);
}

static void test_sets_reach_keys_and_stages_by_name(void **state)
{
    struct buf yaml = BUF_INIT;
    struct spec_problems p = {0};
    struct spec *s = NULL;
    struct err e = {0};
    const char *sets[] = {"seed=7", "stages.steer.train.max_tokens=1000",
                          "stages.report.evaluate.levels=[0, 4]"};
    const char *wrong[] = {"stages.nobody.seed=1"};
    (void)state;
    read_spec_file("jobs/specs/demo.yaml", &yaml);
    assert_int_equal(spec_parse(yaml.data, yaml.len, sets, 3, NULL, NULL, &s, &p, &e), 0);
    assert_int_equal(s->seed, 7);
    assert_int_equal(s->stage[2]->spec->train.max_tokens, 1000);
    assert_int_equal(s->stage[4]->spec->evaluate.levels.n, 2);
    assert_int_equal(s->stage[4]->spec->seed, 7);
    spec_free(s);
    assert_int_equal(spec_parse(yaml.data, yaml.len, wrong, 1, NULL, NULL, &s, &p, &e),
                     ERR_INVALID);
    assert_non_null(strstr(p.v[0].text, "nobody"));
    spec_problems_free(&p);
    buf_free(&yaml);
}

static void test_every_example_is_valid(void **state)
{
    glob_t g;
    (void)state;
    assert_int_equal(glob("jobs/specs/*.yaml", 0, NULL, &g), 0);
    assert_true(g.gl_pathc >= 8);
    for (size_t i = 0; i < g.gl_pathc; i++) {
        struct buf yaml = BUF_INIT;
        struct spec_problems p = {0};
        struct spec *s;
        read_spec_file(g.gl_pathv[i], &yaml);
        s = parse(yaml.data, &p);
        if (s == NULL)
            fail_msg("%s:%d:%d: %s", g.gl_pathv[i], p.v[0].line, p.v[0].column, p.v[0].text);
        spec_free(s);
        buf_free(&yaml);
    }
    globfree(&g);
}

/* Any bytes: an answer, never a crash. */
static void test_mutations_never_crash(void **state)
{
    struct buf yaml = BUF_INIT;
    uint32_t x = 12345;
    (void)state;
    read_spec_file("jobs/specs/demo.yaml", &yaml);
    for (int round = 0; round < 1500; round++) {
        char *copy = malloc(yaml.len + 1);
        struct spec_problems p = {0};
        struct spec *s = NULL;
        memcpy(copy, yaml.data, yaml.len + 1);
        for (int k = 0; k < 3; k++) {
            x = x * 1664525u + 1013904223u;
            copy[(x >> 8) % yaml.len] = "{}[]:,&*!|>\"'#%@ \n-0aZ~"[(x >> 3) % 23];
        }
        spec_parse(copy, yaml.len, NULL, 0, NULL, NULL, &s, &p, NULL);
        assert_true((s == NULL) == (p.n > 0));
        spec_free(s);
        spec_problems_free(&p);
        free(copy);
    }
    buf_free(&yaml);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_spec_has_values_and_defaults),
        cmocka_unit_test(test_weights_of_decoding),
        cmocka_unit_test(test_bad_specs_are_refused_with_place_and_bound),
        cmocka_unit_test(test_bf16_is_for_the_stages_that_train),
        cmocka_unit_test(test_what_an_evaluation_would_compute_twice_is_refused),
        cmocka_unit_test(test_inputs_that_take_one_refuse_more),
        cmocka_unit_test(test_all_problems_are_listed),
        cmocka_unit_test(test_bombs_end_quickly),
        cmocka_unit_test(test_likes_do_not_multiply),
        cmocka_unit_test(test_demo_reads_back_the_same_from_its_json),
        cmocka_unit_test(test_what_is_a_stages_own_is_kept_in_its_json),
        cmocka_unit_test(test_attributes_keep_their_order),
        cmocka_unit_test(test_attributes_of_the_catch_all_keep_their_class),
        cmocka_unit_test(test_sets_reach_keys_and_stages_by_name),
        cmocka_unit_test(test_every_example_is_valid),
        cmocka_unit_test(test_mutations_never_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
