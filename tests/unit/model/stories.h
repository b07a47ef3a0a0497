/* The weights of models/stories260K for tests and benches of this room, which may not lean on
 * modelfile's reader. */
#ifndef TESTS_UNIT_MODEL_STORIES_H
#define TESTS_UNIT_MODEL_STORIES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "json/json.h"
#include "model/dims.h"
#include "model/real.h"

#define STORIES_FILE "models/stories260K/model.safetensors"

static inline struct dims stories_dims(void)
{
    struct dims d = {.vocab = 512,
                     .width = 64,
                     .layers = 5,
                     .heads = 8,
                     .kv_heads = 4,
                     .head_dim = 8,
                     .ffn = 172,
                     .context = 512,
                     .norm_eps = 1e-5f,
                     .rope_theta = 10000.0f,
                     .tied = true,
                     .head = HEAD_LM};

    return d;
}

/* Gives the flat vector: free(). */
static inline float *stories_params(const struct dims *d)
{
    struct buf file = BUF_INIT;
    struct layout l;
    cJSON *head = NULL;
    uint64_t head_len;
    float *params;

    CHECK(file_read(STORIES_FILE, 4u << 20, &file, NULL) == 0);
    memcpy(&head_len, file.data, 8);
    CHECK(json_parse(file.data + 8, head_len, JSON_LIMITS_FILE, &head, NULL) == 0);
    layout_init(&l, d);
    params = mem_alloc(l.count * sizeof(float));
    for (int32_t i = 0; i < l.tensors; i++) {
        const cJSON *at = json_get(json_get(head, l.tensor[i].name), "data_offsets");
        size_t begin;
        CHECK(at != NULL);
        begin = (size_t)cJSON_GetArrayItem(at, 0)->valuedouble;
        memcpy(params + l.tensor[i].begin, file.data + 8 + head_len + begin,
               tensor_count(&l.tensor[i]) * sizeof(float));
    }
    layout_fini(&l);
    cJSON_Delete(head);
    buf_free(&file);
    return params;
}

#endif
