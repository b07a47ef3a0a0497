#include "modelfile/modeldir.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "json/json_file.h"
#include "modelfile/llama2c.h"
#include "modelfile/modelconfig.h"
#include "modelfile/modelsteer.h"
#include "modelfile/safetensors.h"
#include "modelfile/weights.h"

#define CONFIG_FILE_MAX (4u << 20)

static int json_read(const char *dir, const char *name, cJSON **out, struct err *e)
{
    char *path = mem_printf("%s/%s", dir, name);
    struct buf text = BUF_INIT;
    int rc = file_read(path, CONFIG_FILE_MAX, &text, e);

    if (rc == 0 && (rc = json_parse(text.data, text.len, JSON_LIMITS_FILE, out, e)) != 0)
        err_wrap(e, "%s", path);
    buf_free(&text);
    free(path);
    return rc;
}

/* tokenizer.json, tokenizer.bin, or llama2.c's habit: tok512.bin for 512 tokens. */
static int tokenizer_find(const char *dir, struct model *m, struct err *e)
{
    char *names[3] = {mem_printf("%s/tokenizer.json", dir), mem_printf("%s/tokenizer.bin", dir),
                      mem_printf("%s/tok%d.bin", dir, m->dims.vocab)};
    int rc = 0, i = 0;

    while (i < 3 && !file_exists(names[i]))
        i++;
    if (i == 3)
        rc = err_set(e, ERR_NOT_FOUND, "%s: neither tokenizer.json nor tokenizer.bin nor tok%d.bin",
                     dir, m->dims.vocab);
    else
        rc = tokenizer_load(names[i], &m->tokenizer, e);
    if (rc == 0 && tokenizer_vocab(m->tokenizer) > m->dims.vocab)
        rc = err_set(e, ERR_INVALID, "%s has %d tokens, the model only %d rows", names[i],
                     tokenizer_vocab(m->tokenizer), m->dims.vocab);
    for (i = 0; i < 3; i++)
        free(names[i]);
    return rc;
}

static int directory_load(const char *dir, unsigned parts, struct model *m, struct err *e)
{
    char *steer = mem_printf("%s/steer_config.json", dir);
    cJSON *j = NULL;
    int rc = json_read(dir, "config.json", &m->config, e);

    if (rc == 0 && (rc = modelconfig_parse(m->config, &m->dims, e)) != 0)
        err_wrap(e, "%s/config.json", dir);
    if (rc == 0)
        layout_init(&m->layout, &m->dims);
    if (rc == 0 && file_exists(steer)) {
        rc = json_read(dir, "steer_config.json", &j, e);
        if (rc == 0 && (rc = modelsteer_parse(j, &m->steer, e)) != 0)
            err_wrap(e, "%s", steer);
    }
    if (rc == 0 && (parts & MODEL_TOKENIZER) != 0)
        rc = tokenizer_find(dir, m, e);
    if (rc == 0 && (parts & MODEL_WEIGHTS) != 0)
        rc = weights_read(dir, &m->dims, &m->layout, &m->params, e);
    cJSON_Delete(j);
    free(steer);
    return rc;
}

static int llama2c_load(const char *path, unsigned parts, struct model *m, struct err *e)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash != NULL ? mem_strndup(path, (size_t)(slash - path)) : mem_strdup(".");
    int rc = llama2c_dims(path, &m->dims, e);

    if (rc == 0)
        layout_init(&m->layout, &m->dims);
    if (rc == 0 && (parts & MODEL_TOKENIZER) != 0)
        rc = tokenizer_find(dir, m, e);
    if (rc == 0 && (parts & MODEL_WEIGHTS) != 0) {
        m->params = weights_alloc(m->layout.count);
        rc = m->params == NULL ? err_set(e, ERR_LIMIT, "no memory for %zu weights", m->layout.count)
                               : llama2c_read(path, &m->dims, &m->layout, m->params, e);
    }
    free(dir);
    return rc;
}

int model_load(const char *path, unsigned parts, struct model *out, struct err *e)
{
    int rc;

    *out = (struct model){0};
    rc =
        file_is_dir(path) ? directory_load(path, parts, out, e) : llama2c_load(path, parts, out, e);
    if (rc != 0) {
        err_wrap(e, "model");
        model_fini(out);
    }
    return rc;
}

void model_fini(struct model *m)
{
    free(m->params);
    layout_fini(&m->layout);
    tokenizer_free(m->tokenizer);
    cJSON_Delete(m->config);
    *m = (struct model){0};
}

static int configs_write(const struct model *m, const char *dir, struct err *e)
{
    int32_t bos = m->tokenizer != NULL ? tokenizer_bos(m->tokenizer) : -1;
    int32_t eos = m->tokenizer != NULL ? tokenizer_eos(m->tokenizer) : -1;
    cJSON *config = modelconfig_make(&m->dims, m->config, bos, eos);
    cJSON *generation = modelconfig_generation(config);
    cJSON *steer = modelsteer_make(&m->steer);
    int rc = 0;

    modelsteer_labels(&m->steer, &m->dims, config);
    if ((rc = json_file_write(dir, "config.json", config, e)) == 0 && m->dims.head == HEAD_LM)
        rc = json_file_write(dir, "generation_config.json", generation, e);
    if (rc == 0 && steer != NULL)
        rc = json_file_write(dir, "steer_config.json", steer, e);
    cJSON_Delete(config);
    cJSON_Delete(generation);
    cJSON_Delete(steer);
    return rc;
}

int model_save(const struct model *m, const char *dir, struct err *e)
{
    struct safetensors_out *list = NULL;
    char *path = mem_printf("%s/model.safetensors", dir);
    int rc = file_make_dirs(dir, e);

    if (rc == 0)
        rc = configs_write(m, dir, e);
    if (rc == 0 && m->tokenizer != NULL)
        rc = tokenizer_write(m->tokenizer, dir, e);
    if (rc == 0 && m->params != NULL) {
        list = mem_zalloc((size_t)m->layout.tensors, sizeof *list);
        for (int32_t i = 0; i < m->layout.tensors; i++) {
            const struct tensor *t = &m->layout.tensor[i];
            list[i] = (struct safetensors_out){t->name, (uint64_t)t->rows, (uint64_t)t->cols,
                                               m->params + t->begin};
        }
        rc = safetensors_write(path, list, (size_t)m->layout.tensors, e);
    }
    if (rc != 0)
        err_wrap(e, "write model %s", dir);
    free(list);
    free(path);
    return rc;
}
