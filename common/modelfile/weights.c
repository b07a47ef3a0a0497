#include "modelfile/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "json/json_file.h"
#include "modelfile/safetensors.h"

#define INDEX_FILE_MAX (16u << 20)
#define SHARDS_MAX 1000

struct shards {
    struct safetensors *file;
    size_t n;
};
struct found { /* where a tensor of the layout is */
    const struct safetensors *file;
    const struct safetensors_entry *entry;
};

float *weights_alloc(size_t count)
{
    size_t bytes;

    if (__builtin_mul_overflow(count, sizeof(float), &bytes) || bytes > SIZE_MAX - 64)
        return NULL;
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static void shards_close(struct shards *s)
{
    for (size_t i = 0; i < s->n; i++)
        safetensors_close(&s->file[i]);
    free(s->file);
}

static bool is_plain_name(const char *name)
{
    size_t n = strlen(name);

    return n > 12 && n < 200 && name[0] != '.' && strcspn(name, "/\\") == n &&
           strcmp(name + n - 12, ".safetensors") == 0;
}

static bool has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);

    return n >= m && strcmp(s + n - m, suffix) == 0;
}

static int shard_open(struct shards *s, const char *dir, const char *name, struct err *e)
{
    int rc;
    char *path;

    for (size_t i = 0; i < s->n; i++)
        if (strcmp(strrchr(s->file[i].path, '/') + 1, name) == 0)
            return 0;
    if (s->n == SHARDS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d shards", SHARDS_MAX);
    path = mem_printf("%s/%s", dir, name);
    s->file = mem_grow(s->file, s->n + 1, sizeof *s->file);
    rc = safetensors_open(path, &s->file[s->n], e);
    s->n += rc == 0;
    free(path);
    return rc;
}

/* Each tensor of each shard must be in the map, at that shard; each name of the map in its shard.
 */
static int map_check(const struct shards *s, const cJSON *map, struct err *e)
{
    size_t tensors = 0;

    for (const cJSON *m = map->child; m != NULL; m = m->next) {
        for (size_t i = 0; i < s->n; i++)
            if (strcmp(strrchr(s->file[i].path, '/') + 1, m->valuestring) == 0 &&
                safetensors_find(&s->file[i], m->string) == NULL)
                return err_set(e, ERR_CORRUPT, "%s has no tensor %.200s, weight_map says so",
                               m->valuestring, m->string);
        tensors++;
    }
    for (size_t i = 0; i < s->n; i++)
        tensors -= s->file[i].n;
    if (tensors != 0)
        return err_set(e, ERR_CORRUPT, "the shards hold tensors that weight_map does not name");
    return 0;
}

static int index_open(struct shards *s, const char *dir, const char *path, struct err *e)
{
    cJSON *root = NULL;
    const cJSON *map;
    int rc = json_file_read(path, INDEX_FILE_MAX, JSON_LIMITS_FILE, &root, e);

    map = rc == 0 ? json_get(root, "weight_map") : NULL;
    if (rc == 0 && (!cJSON_IsObject(map) || cJSON_GetArraySize(map) < 1 ||
                    cJSON_GetArraySize(map) > SAFETENSORS_TENSORS_MAX))
        rc = err_set(e, ERR_INVALID, "weight_map must be an object of 1..%d tensors",
                     SAFETENSORS_TENSORS_MAX);
    for (const cJSON *m = rc == 0 ? map->child : NULL; rc == 0 && m != NULL; m = m->next) {
        if (!cJSON_IsString(m) || !is_plain_name(m->valuestring))
            rc = err_set(e, ERR_INVALID,
                         "weight_map: tensor %.100s is in \"%.100s\", must be a *.safetensors file "
                         "of this folder",
                         m->string, cJSON_IsString(m) ? m->valuestring : "(no string)");
        else
            rc = shard_open(s, dir, m->valuestring, e);
    }
    if (rc == 0)
        rc = map_check(s, map, e);
    cJSON_Delete(root);
    return rc != 0 ? err_wrap(e, "%s", path) : 0;
}

static int shards_open(struct shards *s, const char *dir, struct err *e)
{
    char *index = mem_printf("%s/model.safetensors.index.json", dir);
    char *one = mem_printf("%s/model.safetensors", dir);
    int rc;

    if (!file_exists(one) && file_exists(index))
        rc = index_open(s, dir, index, e);
    else
        rc = shard_open(s, dir, "model.safetensors", e);
    free(index);
    free(one);
    return rc;
}

static int shape_check(const struct found *f, const struct tensor *t, struct err *e)
{
    const struct safetensors_entry *x = f->entry;
    bool same = t->cols == 0 ? x->dims == 1 && x->shape[0] == (uint64_t)t->rows
                             : x->dims == 2 && x->shape[0] == (uint64_t)t->rows &&
                                   x->shape[1] == (uint64_t)t->cols;
    char is[64] = "", must[64];
    int at = 0;

    if (x->dtype == DTYPE_BUFFER)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: tensor %s is of integers, must be F32, F16, BF16 or F64", f->file->path,
                       t->name);
    if (same)
        return 0;
    for (int i = 0; i < x->dims && i < 3; i++)
        at += snprintf(is + at, sizeof is - (size_t)at, i == 0 ? "%llu" : ",%llu",
                       (unsigned long long)x->shape[i]);
    snprintf(must, sizeof must, t->cols == 0 ? "%d" : "%d,%d", t->rows, t->cols);
    return err_set(e, ERR_INVALID, "%s: tensor %s has shape [%s%s], config.json says [%s]",
                   f->file->path, t->name, is, x->dims > 3 ? ",..." : "", must);
}

static int layout_match(const struct shards *s, const struct layout *layout, struct found *found,
                        struct err *e)
{
    for (int32_t i = 0; i < layout->tensors; i++) {
        const struct tensor *t = &layout->tensor[i];
        int rc;
        for (size_t k = 0; k < s->n && found[i].entry == NULL; k++) {
            found[i].file = &s->file[k];
            found[i].entry = safetensors_find(&s->file[k], t->name);
        }
        if (found[i].entry == NULL)
            return err_set(e, ERR_INVALID, "%s: tensor %s is missing", s->file[0].path, t->name);
        if ((rc = shape_check(&found[i], t, e)) != 0)
            return rc;
    }
    return 0;
}

/* Whatever the layout does not name; *head is set to the lm_head.weight of a tied model. */
static int extras_check(const struct shards *s, const struct dims *d, const struct layout *layout,
                        struct found *head, struct err *e)
{
    for (size_t k = 0; k < s->n; k++) {
        for (size_t i = 0; i < s->file[k].n; i++) {
            const struct safetensors_entry *x = &s->file[k].entry[i];
            if (layout_find(layout, x->name) != NULL || x->dtype == DTYPE_BUFFER ||
                has_suffix(x->name, ".rotary_emb.inv_freq"))
                continue;
            if (!(d->head == HEAD_LM && d->tied && strcmp(x->name, "lm_head.weight") == 0))
                return err_set(e, ERR_INVALID,
                               "%s: tensor %s is not part of the model that config.json describes",
                               s->file[k].path, x->name);
            *head = (struct found){&s->file[k], x};
        }
    }
    return 0;
}

static int tied_check(const struct found *head, const struct layout *layout, const float *params,
                      struct err *e)
{
    struct tensor t = *layout_find(layout, "model.embed_tokens.weight");
    size_t count = tensor_count(&t), step = 1 << 18;
    float *block;
    const float *embedding = params + t.begin;
    int rc;

    snprintf(t.name, sizeof t.name, "lm_head.weight");
    if ((rc = shape_check(head, &t, e)) != 0)
        return rc;
    block = mem_zalloc(step, sizeof *block);
    for (size_t at = 0; rc == 0 && at < count; at += step) {
        size_t n = count - at < step ? count - at : step;
        rc = safetensors_read(head->file, head->entry, at, n, block, e);
        if (rc == 0 && memcmp(block, embedding + at, n * sizeof *block) != 0)
            rc = err_set(e, ERR_INVALID,
                         "%s: lm_head.weight differs from model.embed_tokens.weight, but "
                         "tie_word_embeddings is true",
                         head->file->path);
    }
    free(block);
    return rc;
}

int weights_read(const char *dir, const struct dims *d, const struct layout *layout, float **params,
                 struct err *e)
{
    int rc;
    struct shards s = {0};
    struct found *found = mem_zalloc((size_t)layout->tensors, sizeof *found), head = {0};
    float *p = NULL;

    if ((rc = shards_open(&s, dir, e)) != 0 || (rc = layout_match(&s, layout, found, e)) != 0 ||
        (rc = extras_check(&s, d, layout, &head, e)) != 0)
        goto out;
    p = weights_alloc(layout->count);
    if (p == NULL)
        rc = err_set(e, ERR_LIMIT, "%s: no memory for %zu weights", dir, layout->count);
    for (int32_t i = 0; rc == 0 && i < layout->tensors; i++)
        rc = safetensors_read(found[i].file, found[i].entry, 0, tensor_count(&layout->tensor[i]),
                              p + layout->tensor[i].begin, e);
    if (rc == 0 && head.entry != NULL)
        rc = tied_check(&head, layout, p, e);
out:
    if (rc != 0) {
        free(p);
        p = NULL;
    }
    *params = p;
    free(found);
    shards_close(&s);
    return rc;
}
