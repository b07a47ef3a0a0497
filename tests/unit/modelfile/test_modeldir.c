/* Model directories: the shipped one in and out, what config.json may say, what it may not, new
 * rows and heads. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/digest.h"
#include "base/file.h"
#include "modelfile/modelconfig.h"
#include "modelfile/modeldir.h"

#define STORIES "models/stories260K"

static char temp[64];

static int temp_make(void **state)
{
    (void)state;
    snprintf(temp, sizeof temp, "/tmp/test_modeldir.XXXXXX");
    return mkdtemp(temp) == NULL;
}

static int temp_remove(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(temp, &e);
}

static void load(const char *path, unsigned parts, struct model *m)
{
    struct err e = {0};

    if (model_load(path, parts, m, &e) != 0)
        fail_msg("%s", e.msg);
}

static void save(const struct model *m, const char *name, char path[128])
{
    struct err e = {0};

    snprintf(path, 128, "%s/%s", temp, name);
    if (model_save(m, path, &e) != 0)
        fail_msg("%s", e.msg);
}

static void assert_same_file(const char *dir_a, const char *dir_b, const char *name)
{
    char *a = mem_printf("%s/%s", dir_a, name), *b = mem_printf("%s/%s", dir_b, name);
    struct digest x, y;
    struct err e = {0};

    assert_int_equal(digest_file(a, &x, &e), 0);
    assert_int_equal(digest_file(b, &y, &e), 0);
    assert_string_equal(x.hex, y.hex);
    free(a);
    free(b);
}

static void test_shipped_model(void **state)
{
    struct model m;

    (void)state;
    load(STORIES, MODEL_ALL, &m);
    assert_int_equal(m.dims.vocab, 512);
    assert_int_equal(m.dims.width, 64);
    assert_int_equal(m.dims.kv_heads, 4);
    assert_int_equal(m.dims.head_dim, 8);
    assert_true(m.dims.tied);
    assert_int_equal(m.layout.count, 260032);
    assert_int_equal((uintptr_t)m.params % 64, 0);
    assert_int_equal(tokenizer_vocab(m.tokenizer), 512);
    assert_int_equal(m.steer.role, STEER_NONE);
    model_fini(&m);
    load(STORIES, MODEL_TOKENIZER, &m);
    assert_null(m.params);
    model_fini(&m);
}

static void test_save_keeps_everything_and_is_deterministic(void **state)
{
    static const char *const files[] = {"config.json",           "generation_config.json",
                                        "model.safetensors",     "tokenizer.json",
                                        "tokenizer_config.json", "special_tokens_map.json"};
    struct model m, back, third;
    char one[128], two[128], three[128];

    (void)state;
    load(STORIES, MODEL_ALL, &m);
    cJSON_AddStringToObject(m.config, "someones_key", "kept");
    save(&m, "one", one);
    save(&m, "two", two);
    load(one, MODEL_ALL, &back);
    assert_memory_equal(&m.dims, &back.dims, sizeof m.dims);
    assert_memory_equal(m.params, back.params, m.layout.count * sizeof(float));
    assert_int_equal(tokenizer_vocab(back.tokenizer), 512);
    assert_string_equal(json_string_or(back.config, "someones_key", ""), "kept");
    save(&back, "three", three);
    load(three, MODEL_ALL, &third);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        assert_same_file(one, two, files[i]);
        if (strcmp(files[i], "tokenizer.json") !=
            0) /* ours has line breaks; read and written again it has none */
            assert_same_file(one, three, files[i]);
    }
    assert_same_file(STORIES, one, "model.safetensors");
    model_fini(&m);
    model_fini(&back);
    model_fini(&third);
}

static void test_grow_vocab(void **state)
{
    struct model m, again, base;
    const struct tensor *t;
    double square = 0, base_square = 0;
    char path[128];

    (void)state;
    load(STORIES, MODEL_ALL, &base);
    load(STORIES, MODEL_ALL, &m);
    load(STORIES, MODEL_ALL, &again);
    model_grow_vocab(&m, 600, 7);
    model_grow_vocab(&again, 550, 7);
    model_grow_vocab(&m, 600, 8); /* nothing to add */
    assert_int_equal(m.dims.vocab, 600);
    assert_int_equal(m.layout.count, 260032 + 88 * 64);
    assert_memory_equal(m.params, base.params, 512 * 64 * sizeof(float));
    assert_memory_equal(m.params + 600 * 64, base.params + 512 * 64,
                        (260032 - 512 * 64) * sizeof(float));
    /* The same seed and row give the same values however many rows are added. */
    assert_memory_equal(m.params, again.params, 550 * 64 * sizeof(float));
    for (size_t i = 0; i < 512 * 64; i++)
        base_square += (double)base.params[i] * (double)base.params[i] / (512 * 64);
    for (size_t i = 512 * 64; i < 600 * 64; i++)
        square += (double)m.params[i] * (double)m.params[i] / (88 * 64);
    assert_true(fabs(sqrt(base_square) - 0.31) < 0.01);
    assert_true(fabs(sqrt(square) / sqrt(base_square) - 1) < 0.03);
    t = layout_find(&m.layout, "model.embed_tokens.weight");
    assert_int_equal(t->rows, 600);
    save(&m, "grown", path);
    model_fini(&again);
    load(path, MODEL_ALL, &again);
    assert_memory_equal(m.params, again.params, m.layout.count * sizeof(float));
    model_fini(&again);
    model_fini(&m);
    model_fini(&base);
}

static void test_regression_model(void **state)
{
    struct model m, base, back;
    char path[128];

    (void)state;
    load(STORIES, MODEL_ALL, &base);
    load(STORIES, MODEL_ALL, &m);
    model_to_regression(&m, 5, 3);
    assert_int_equal(m.layout.count, 260032 + 5 * 64);
    assert_memory_equal(m.params, base.params, 260032 * sizeof(float));
    save(&m, "regression", path);
    load(path, MODEL_ALL, &back);
    assert_int_equal(back.dims.head, HEAD_REGRESSION);
    assert_int_equal(back.dims.head_out, 5);
    assert_memory_equal(m.params, back.params, m.layout.count * sizeof(float));
    model_fini(&m);
    model_fini(&base);
    model_fini(&back);
}

static void test_random_model_untied(void **state)
{
    const struct dims d = {.vocab = 300,
                           .width = 24,
                           .layers = 2,
                           .heads = 4,
                           .kv_heads = 2,
                           .head_dim = 10,
                           .ffn = 40,
                           .context = 64,
                           .norm_eps = 1e-6f,
                           .rope_theta = 500000,
                           .tied = false,
                           .head = HEAD_LM};
    struct model m, same, back;
    char path[128];

    (void)state;
    model_init_random(&m, &d, 11);
    model_init_random(&same, &d, 11);
    assert_memory_equal(m.params, same.params, m.layout.count * sizeof(float));
    model_grow_vocab(&m, 310, 1);
    save(&m, "random", path);
    load(path, MODEL_WEIGHTS, &back);
    assert_memory_equal(&m.dims, &back.dims, sizeof d);
    assert_memory_equal(m.params, back.params, m.layout.count * sizeof(float));
    model_fini(&m);
    model_fini(&same);
    model_fini(&back);
}

/* What a model was taught travels with it; a regression model names its outputs. */
static void test_steer_config(void **state)
{
    static const char *const names[] = {"quality", "humor"};
    struct model m, back;
    struct steer_config *s = &m.steer;
    struct err e = {0};
    char path[128], file[160];

    (void)state;
    load(STORIES, MODEL_ALL, &m);
    model_to_regression(&m, 2, 1);
    s->role = STEER_ATTRIBUTE_MODEL;
    s->template_config = (struct template_config){.name = TEMPLATE_PLAIN,
                                                  .head = TEMPLATE_HEAD_REGRESSION,
                                                  .max_length = 100,
                                                  .context_tokens = 16,
                                                  .control_first = -1,
                                                  .query_first = -1};
    s->template_config.schema.attrs = s->template_config.schema.labels = 2;
    for (int i = 0; i < 2; i++) {
        struct label *l = &s->template_config.schema.label[i];
        struct attr *a = &s->template_config.schema.attr[i];
        snprintf(a->name, sizeof a->name, "%s", names[i]);
        *l = (struct label){.type = LABEL_SCALE, .max = 4, .other = -1};
        snprintf(l->name, sizeof l->name, "%s", names[i]);
        a->type = ATTR_INTEGER;
        a->label = i;
        a->max = 4;
        a->levels = 5;
        a->default_level = 4;
    }
    save(&m, "steer", path);
    load(path, MODEL_ALL, &back);
    assert_int_equal(back.steer.role, STEER_ATTRIBUTE_MODEL);
    assert_int_equal(back.steer.template_config.head, TEMPLATE_HEAD_REGRESSION);
    assert_int_equal(back.steer.template_config.context_tokens, 16);
    assert_int_equal(
        schema_same(&back.steer.template_config.schema, &s->template_config.schema, &e), 0);
    assert_string_equal(json_string_or(json_get(back.config, "id2label"), "1", ""), "humor");
    assert_int_equal(json_int_or(json_get(back.config, "label2id"), "humor", -1), 1);
    model_fini(&back);
    snprintf(file, sizeof file, "%s/steer_config.json", path);
    for (size_t i = 0; i < 3; i++) {
        static const char *const bad[] = {"{\"version\":2,\"role\":\"policy\"}",
                                          "{\"version\":1,\"role\":\"king\"}", "{}"};
        static const char *const says[] = {"\"version\"", "role is \"king\"",
                                           "\"version\" is missing"};
        assert_int_equal(file_write_atomic(file, bad[i], strlen(bad[i]), &e), 0);
        assert_int_equal(model_load(path, MODEL_ALL, &back, &e), ERR_INVALID);
        if (strstr(e.msg, says[i]) == NULL || strstr(e.msg, "steer_config.json") == NULL)
            fail_msg("\"%s\" lacks %s", e.msg, says[i]);
    }
    model_fini(&m);
}

/* config.json with one member put in or replaced: what is made of it. */
struct config_row {
    const char *key, *value; /* JSON; NULL deletes */
    int code;
    const char *says;
};

static cJSON *config_with(const char *key, const char *value)
{
    struct buf text = BUF_INIT;
    struct err e = {0};
    cJSON *c = NULL;

    assert_int_equal(file_read(STORIES "/config.json", 1 << 16, &text, &e), 0);
    assert_int_equal(json_parse(text.data, text.len, JSON_LIMITS_FILE, &c, &e), 0);
    buf_free(&text);
    cJSON_DeleteItemFromObjectCaseSensitive(c, key);
    if (value != NULL)
        cJSON_AddItemToObject(c, key, cJSON_Parse(value));
    return c;
}

static void test_config_rows(void **state)
{
    static const struct config_row row[] = {
        {"x", "1", 0, ""},
        {"head_dim", "null", 0, ""},
        {"head_dim", "16", 0, ""}, /* need not be width / heads */
        {"eos_token_id", "[2, 3]", 0, ""},
        {"rope_scaling", "null", 0, ""},
        {"rope_scaling", "{\"type\": \"default\"}", 0, ""},
        {"rope_parameters", "{\"rope_type\": \"default\", \"rope_theta\": 5e5}", 0, ""},
        {"torch_dtype", NULL, 0, ""},
        {"num_key_value_heads", NULL, 0, ""},
        {"attention_bias", "false", 0, ""},
        {"rope_scaling", "{\"type\": \"linear\", \"factor\": 2}", ERR_UNSUPPORTED,
         "rope_scaling \"linear\""},
        {"rope_scaling", "{\"rope_type\": \"llama3\"}", ERR_UNSUPPORTED, "rope_scaling \"llama3\""},
        {"rope_parameters", "{\"rope_type\": \"yarn\"}", ERR_UNSUPPORTED,
         "rope_parameters \"yarn\""},
        {"rope_scaling", "3", ERR_INVALID, "rope_scaling"},
        {"hidden_act", "\"gelu\"", ERR_UNSUPPORTED, "hidden_act \"gelu\""},
        {"attention_bias", "true", ERR_UNSUPPORTED, "attention_bias"},
        {"mlp_bias", "true", ERR_UNSUPPORTED, "mlp_bias"},
        {"architectures", "[\"Qwen2ForCausalLM\"]", ERR_UNSUPPORTED, "Qwen2ForCausalLM"},
        {"architectures", "[]", ERR_INVALID, "architectures is missing"},
        {"architectures", NULL, ERR_INVALID, "architectures is missing"},
        {"model_type", "\"mistral\"", ERR_UNSUPPORTED, "mistral"},
        {"quantization_config", "{}", ERR_UNSUPPORTED, "quantization_config"},
        {"partial_rotary_factor", "0.5", ERR_UNSUPPORTED, "partial_rotary_factor"},
        {"sliding_window", "4096", ERR_UNSUPPORTED, "sliding_window"},
        {"hidden_size", NULL, ERR_INVALID, "hidden_size"},
        {"hidden_size", "\"64\"", ERR_INVALID, "hidden_size"},
        {"hidden_size", "64.5", ERR_INVALID, "hidden_size"},
        {"hidden_size", "0", ERR_INVALID, "hidden_size"},
        {"hidden_size", "-64", ERR_INVALID, "hidden_size"},
        {"hidden_size", "1e300", ERR_INVALID, "hidden_size"},
        {"hidden_size", "65", ERR_INVALID, "multiple of num_attention_heads"},
        {"num_hidden_layers", "257", ERR_INVALID, "layers is 257"},
        {"num_key_value_heads", "3", ERR_INVALID, "multiple of kv_heads"},
        {"vocab_size", "2000000000", ERR_INVALID, "vocab is 2000000000"},
        {"head_dim", "7", ERR_INVALID, "head_dim is 7"},
        {"rms_norm_eps", "\"small\"", ERR_INVALID, "rms_norm_eps"},
        {"rms_norm_eps", "-1", ERR_INVALID, "norm_eps"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        cJSON *c = config_with(row[i].key, row[i].value);
        struct err e = {0};
        struct dims d;
        int rc = modelconfig_parse(c, &d, &e);
        if (rc != row[i].code || (rc != 0 && strstr(e.msg, row[i].says) == NULL))
            fail_msg("%s = %s: %d \"%s\"", row[i].key, row[i].value, rc, e.msg);
        cJSON_Delete(c);
    }
}

static void test_config_written(void **state)
{
    cJSON *before = config_with("eos_token_id", "[2, 9]"), *c;
    struct err e = {0};
    struct dims d, back;
    char *text;

    (void)state;
    assert_int_equal(modelconfig_parse(before, &d, &e), 0);
    c = modelconfig_make(&d, before, 1, 2);
    assert_int_equal(modelconfig_parse(c, &back, &e), 0);
    assert_memory_equal(&d, &back, sizeof d);
    text = cJSON_PrintUnformatted(c);
    assert_non_null(strstr(text, "\"eos_token_id\":[2,9]"));
    assert_non_null(strstr(text, "\"rms_norm_eps\":1e-05"));
    assert_non_null(
        strstr(text, "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000}"));
    cJSON_free(text);
    cJSON_Delete(c);
    c = modelconfig_make(&d, before, 1, 5); /* another end: the old list would not stop at it */
    assert_int_equal(json_int_or(c, "eos_token_id", -1), 5);
    cJSON_Delete(c);
    cJSON_Delete(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shipped_model),
        cmocka_unit_test(test_save_keeps_everything_and_is_deterministic),
        cmocka_unit_test(test_grow_vocab),
        cmocka_unit_test(test_regression_model),
        cmocka_unit_test(test_random_model_untied),
        cmocka_unit_test(test_steer_config),
        cmocka_unit_test(test_config_rows),
        cmocka_unit_test(test_config_written),
    };

    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
