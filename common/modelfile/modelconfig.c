#include "modelfile/modelconfig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

static int refuse(const char *key, const char *value, const char *only, struct err *e)
{
    return err_set(e, ERR_UNSUPPORTED, "%s \"%.64s\" is not supported, only %s", key, value, only);
}

static bool is_absent(const cJSON *j)
{
    return j == NULL || cJSON_IsNull(j);
}

static int int_get(const cJSON *config, const char *key, const int32_t *fallback, int32_t *out,
                   struct err *e)
{
    int64_t v = 0;
    int rc;

    if (fallback != NULL && is_absent(json_get(config, key))) {
        *out = *fallback;
        return 0;
    }
    rc = json_need_int(config, key, 1, INT32_MAX, &v, e);
    *out = (int32_t)v;
    return rc;
}

static int float_get(const cJSON *object, const char *key, double fallback, float *out,
                     struct err *e)
{
    double v = fallback;
    int rc = 0;

    if (!is_absent(json_get(object, key)))
        rc = json_need_number(object, key, &v, e);
    *out = (float)v;
    return rc;
}

static int architecture_parse(const cJSON *config, struct dims *d, struct err *e)
{
    const cJSON *list = json_get(config, "architectures");
    const char *type = json_string_or(config, "model_type", NULL), *name = NULL;

    if (type != NULL && strcmp(type, "llama") != 0)
        return refuse("model_type", type, "\"llama\"", e);
    if (cJSON_IsArray(list) && list->child != NULL && cJSON_IsString(list->child))
        name = list->child->valuestring;
    if (name == NULL)
        return err_set(e, ERR_INVALID,
                       "architectures is missing, must be [\"LlamaForCausalLM\"] or "
                       "[\"LlamaForSequenceClassification\"]");
    if (strcmp(name, "LlamaForCausalLM") == 0)
        d->head = HEAD_LM;
    else if (strcmp(name, "LlamaForSequenceClassification") == 0)
        d->head = HEAD_REGRESSION;
    else
        return refuse("architectures", name, "LlamaForCausalLM and LlamaForSequenceClassification",
                      e);
    return 0;
}

static int features_check(const cJSON *config, struct err *e)
{
    static const char *const off[] = {"attention_bias", "mlp_bias", "use_sliding_window"};
    static const char *const none[] = {"quantization_config", "sliding_window"};
    const char *act = json_string_or(config, "hidden_act", "silu");

    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        return refuse("hidden_act", act, "\"silu\"", e);
    for (size_t i = 0; i < sizeof off / sizeof *off; i++)
        if (!is_absent(json_get(config, off[i])) && !cJSON_IsFalse(json_get(config, off[i])))
            return refuse(off[i], "true", "false", e);
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        if (!is_absent(json_get(config, none[i])))
            return refuse(none[i], "(set)", "null", e);
    return 0;
}

/* rope_scaling {"type" or "rope_type": ...} of older files and rope_parameters of newer ones. */
static int rope_check(const cJSON *object, const char *key, struct err *e)
{
    const char *type;
    double partial;

    if (is_absent(object))
        return 0;
    if (!cJSON_IsObject(object))
        return err_set(e, ERR_INVALID, "%s is not an object", key);
    type = json_string_or(object, "rope_type", json_string_or(object, "type", "default"));
    if (strcmp(type, "default") != 0)
        return refuse(key, type, "\"default\"", e);
    partial = json_number_or(object, "partial_rotary_factor", 1);
    if (partial < 1 || partial > 1)
        return refuse("partial_rotary_factor", "(set)", "1", e);
    return 0;
}

static int rope_parse(const cJSON *config, struct dims *d, struct err *e)
{
    const cJSON *parameters = json_get(config, "rope_parameters");
    double partial = json_number_or(config, "partial_rotary_factor", 1);
    int rc;

    if ((rc = rope_check(json_get(config, "rope_scaling"), "rope_scaling", e)) != 0 ||
        (rc = rope_check(parameters, "rope_parameters", e)) != 0)
        return rc;
    if (partial < 1 || partial > 1)
        return refuse("partial_rotary_factor", "(set)", "1", e);
    if (!is_absent(json_get(parameters, "rope_theta")))
        return float_get(parameters, "rope_theta", 10000, &d->rope_theta, e);
    return float_get(config, "rope_theta", 10000, &d->rope_theta, e);
}

/* Outputs of a regression head: num_labels, or the size of id2label; 2 is what transformers takes
 * when neither is there. */
static int outputs_parse(const cJSON *config, struct dims *d, struct err *e)
{
    const cJSON *names = json_get(config, "id2label");
    const char *problem = json_string_or(config, "problem_type", "regression");
    int32_t fallback = cJSON_IsObject(names) ? cJSON_GetArraySize(names) : 2;

    if (strcmp(problem, "regression") != 0)
        return refuse("problem_type", problem, "\"regression\"", e);
    return int_get(config, "num_labels", &fallback, &d->head_out, e);
}

int modelconfig_parse(const cJSON *config, struct dims *out, struct err *e)
{
    struct dims d = {0};
    const int32_t context = 2048; /* transformers' default */
    int32_t head_dim;
    int rc;

    if (!cJSON_IsObject(config))
        return err_set(e, ERR_INVALID, "not a JSON object");
    if ((rc = architecture_parse(config, &d, e)) != 0 || (rc = features_check(config, e)) != 0 ||
        (rc = int_get(config, "vocab_size", NULL, &d.vocab, e)) != 0 ||
        (rc = int_get(config, "hidden_size", NULL, &d.width, e)) != 0 ||
        (rc = int_get(config, "num_hidden_layers", NULL, &d.layers, e)) != 0 ||
        (rc = int_get(config, "num_attention_heads", NULL, &d.heads, e)) != 0 ||
        (rc = int_get(config, "num_key_value_heads", &d.heads, &d.kv_heads, e)) != 0 ||
        (rc = int_get(config, "intermediate_size", NULL, &d.ffn, e)) != 0 ||
        (rc = int_get(config, "max_position_embeddings", &context, &d.context, e)) != 0 ||
        (rc = float_get(config, "rms_norm_eps", 1e-6, &d.norm_eps, e)) != 0 ||
        (rc = rope_parse(config, &d, e)) != 0)
        return rc;
    if (is_absent(json_get(config, "head_dim")) && d.width % d.heads != 0)
        return err_set(e, ERR_INVALID,
                       "hidden_size is %d, must be a multiple of num_attention_heads %d", d.width,
                       d.heads);
    head_dim = d.width / d.heads;
    if ((rc = int_get(config, "head_dim", &head_dim, &d.head_dim, e)) != 0)
        return rc;
    if (d.head == HEAD_LM)
        d.tied = json_bool_or(config, "tie_word_embeddings", false);
    else if ((rc = outputs_parse(config, &d, e)) != 0)
        return rc;
    if ((rc = dims_check(&d, e)) == 0)
        *out = d;
    return rc;
}

/* Sets a member in place, or at the end. Takes value. */
static void member_set(cJSON *object, const char *key, cJSON *value)
{
    if (json_get(object, key) != NULL)
        cJSON_ReplaceItemInObjectCaseSensitive(object, key, value);
    else
        cJSON_AddItemToObject(object, key, value);
}

/* The shortest decimal that is this float: 1e-05, not 9.99999974737875e-06. */
static cJSON *float_node(float f)
{
    char text[32];

    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)f);
        if (!(strtof(text, NULL) < f || strtof(text, NULL) > f))
            break;
    }
    return cJSON_CreateNumber(strtod(text, NULL));
}

static void rope_set(cJSON *c, const struct dims *d)
{
    cJSON *parameters = cJSON_CreateObject();

    cJSON_AddStringToObject(parameters, "rope_type", "default");
    cJSON_AddItemToObject(parameters, "rope_theta", float_node(d->rope_theta));
    member_set(c, "rope_theta", float_node(d->rope_theta));
    member_set(c, "rope_parameters", parameters);
}

static bool list_has(const cJSON *list, int32_t id)
{
    const cJSON *m;

    cJSON_ArrayForEach(m, list) if (cJSON_IsNumber(m) && m->valueint == id) return true;
    return false;
}

static void ends_set(cJSON *c, int32_t bos, int32_t eos)
{
    const cJSON *old = json_get(c, "eos_token_id");

    if (bos >= 0)
        member_set(c, "bos_token_id", cJSON_CreateNumber(bos));
    if (eos >= 0 && !(cJSON_IsArray(old) && list_has(old, eos)))
        member_set(c, "eos_token_id", cJSON_CreateNumber(eos));
}

/* id2label, label2id with names kept where their number fits; "LABEL_i" is transformers' own
 * default. */
static void labels_set(cJSON *c, const struct dims *d, int32_t eos)
{
    const cJSON *old = json_get(c, "id2label");
    cJSON *names, *ids;

    cJSON_DeleteItemFromObjectCaseSensitive(c, "num_labels"); /* transformers counts id2label */
    member_set(c, "problem_type", cJSON_CreateString("regression"));
    if (is_absent(json_get(c, "pad_token_id")))
        member_set(
            c, "pad_token_id",
            cJSON_CreateNumber(eos >= 0 ? eos : 0)); /* the head reads the last other token */
    if (cJSON_IsObject(old) && cJSON_GetArraySize(old) == d->head_out)
        return;
    names = cJSON_CreateObject();
    ids = cJSON_CreateObject();
    for (int32_t i = 0; i < d->head_out; i++) {
        char number[16], name[32];
        snprintf(number, sizeof number, "%d", i);
        snprintf(name, sizeof name, "LABEL_%d", i);
        cJSON_AddStringToObject(names, number, name);
        cJSON_AddNumberToObject(ids, name, i);
    }
    member_set(c, "id2label", names);
    member_set(c, "label2id", ids);
}

cJSON *modelconfig_make(const struct dims *d, const cJSON *before, int32_t bos, int32_t eos)
{
    cJSON *c = before != NULL ? cJSON_Duplicate(before, 1) : cJSON_CreateObject();
    const char *architecture =
        d->head == HEAD_LM ? "LlamaForCausalLM" : "LlamaForSequenceClassification";
    const struct {
        const char *key;
        int32_t value;
    } number[] = {
        {"vocab_size", d->vocab},
        {"hidden_size", d->width},
        {"num_hidden_layers", d->layers},
        {"num_attention_heads", d->heads},
        {"num_key_value_heads", d->kv_heads},
        {"head_dim", d->head_dim},
        {"intermediate_size", d->ffn},
        {"max_position_embeddings", d->context},
    };

    CHECK(c != NULL);
    member_set(c, "architectures", cJSON_CreateStringArray(&architecture, 1));
    member_set(c, "model_type", cJSON_CreateString("llama"));
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        member_set(c, number[i].key, cJSON_CreateNumber(number[i].value));
    member_set(c, "rms_norm_eps", float_node(d->norm_eps));
    rope_set(c, d);
    member_set(c, "hidden_act", cJSON_CreateString("silu"));
    member_set(c, "attention_bias", cJSON_CreateFalse());
    member_set(c, "mlp_bias", cJSON_CreateFalse());
    member_set(c, "tie_word_embeddings", cJSON_CreateBool(d->tied));
    member_set(c, "torch_dtype", cJSON_CreateString("float32"));
    if (json_get(c, "dtype") != NULL)
        member_set(c, "dtype", cJSON_CreateString("float32"));
    ends_set(c, bos, eos);
    if (d->head == HEAD_REGRESSION)
        labels_set(c, d, eos);
    return c;
}

cJSON *modelconfig_generation(const cJSON *config)
{
    static const char *const keys[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
    cJSON *g = cJSON_CreateObject();

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!is_absent(json_get(config, keys[i])))
            cJSON_AddItemToObject(g, keys[i], cJSON_Duplicate(json_get(config, keys[i]), 1));
    return g;
}
