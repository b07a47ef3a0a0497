#include "ps/ckpt.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "json/json.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "floats are written as they lie in memory");

#define FORMAT "steer-checkpoint-1"
#define MANIFEST_BYTES_MAX ((size_t)32 << 20)
#define PATH_MAX_BYTES 4096
#define FETCHES_MAX 3

void ckpt_manifest_fini(struct ckpt_manifest *m)
{
    free(m->chunk);
    m->chunk = NULL;
    m->chunks = 0;
}

/* Integers above 2^53 do not survive JSON numbers; a seed may be one, so it is text. */
static void add_u64(cJSON *o, const char *key, uint64_t value)
{
    CHECK(value <= (1ull << 53));
    cJSON_AddNumberToObject(o, key, (double)value);
}

void ckpt_manifest_write(const struct ckpt_manifest *m, struct buf *out)
{
    cJSON *o = cJSON_CreateObject();
    cJSON *chunks = cJSON_CreateArray();
    char seed[24];

    snprintf(seed, sizeof seed, "%" PRIu64, m->seed);
    cJSON_AddStringToObject(o, "format", FORMAT);
    add_u64(o, "params", m->params);
    add_u64(o, "step", m->step);
    add_u64(o, "steps", m->steps);
    add_u64(o, "chunk_elems", m->chunk_elems);
    add_u64(o, "units", m->units);
    add_u64(o, "global_batch", m->global_batch);
    cJSON_AddStringToObject(o, "seed", seed);
    cJSON_AddStringToObject(o, "init", m->init.hex);
    cJSON_AddStringToObject(o, "examples", m->examples.hex);
    if (m->bf16)
        cJSON_AddStringToObject(o, "numerics", "bf16");
    add_u64(o, "tokens", m->figures.tokens);
    add_u64(o, "tail_steps", m->figures.tail_steps);
    cJSON_AddNumberToObject(o, "tail_loss", m->figures.tail_loss);
    for (uint32_t i = 0; i < m->chunks; i++)
        cJSON_AddItemToArray(chunks, cJSON_CreateString(m->chunk[i].hex));
    cJSON_AddItemToObject(o, "chunks", chunks);
    json_canonical(o, out);
    cJSON_Delete(o);
}

static int need_u64(const cJSON *o, const char *key, uint64_t min, uint64_t max, uint64_t *out,
                    struct err *e)
{
    int64_t value;
    int rc = json_need_int(o, key, (int64_t)min, (int64_t)max, &value, e);

    if (rc == 0)
        *out = (uint64_t)value;
    return rc;
}

static int need_digest(const cJSON *o, const char *key, struct digest *out, struct err *e)
{
    const char *text;
    int rc = json_need_string(o, key, &text, e);

    if (rc != 0)
        return rc;
    if (text[0] != '\0' && !digest_is_valid(text))
        return err_set(e, ERR_CORRUPT, "%s is no digest", key);
    memcpy(out->hex, text, strlen(text) + 1);
    return 0;
}

static int chunks_read(const cJSON *o, struct ckpt_manifest *m, struct err *e)
{
    const cJSON *list = json_get(o, "chunks");
    uint64_t want = (m->params + m->chunk_elems - 1) / m->chunk_elems;
    const cJSON *item;

    if (want > CKPT_CHUNKS_MAX)
        return err_set(e, ERR_LIMIT, "%" PRIu64 " chunks, the limit is %u", want, CKPT_CHUNKS_MAX);
    if (!cJSON_IsArray(list) || (uint64_t)cJSON_GetArraySize(list) != want)
        return err_set(e, ERR_CORRUPT, "chunks must be a list of %" PRIu64 " digests", want);
    m->chunk = mem_zalloc(want, sizeof *m->chunk);
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsString(item) || !digest_is_valid(item->valuestring))
            return err_set(e, ERR_CORRUPT, "chunk %u is no digest", m->chunks);
        memcpy(m->chunk[m->chunks++].hex, item->valuestring, DIGEST_HEX + 1);
    }
    return 0;
}

/* Another arithmetic that a later program may write is not guessed at. */
static int numerics_read(const cJSON *o, struct ckpt_manifest *m, struct err *e)
{
    const char *text;
    int rc;

    if (json_get(o, "numerics") == NULL)
        return 0;
    rc = json_need_string(o, "numerics", &text, e);
    if (rc == 0 && strcmp(text, "bf16") != 0)
        return err_set(e, ERR_UNSUPPORTED, "numerics \"%s\", this program knows bf16", text);
    m->bf16 = true;
    return rc;
}

static int fields_read(const cJSON *o, struct ckpt_manifest *m, struct err *e)
{
    const char *text;
    char *end;
    uint64_t chunk_elems, units, global_batch;
    int rc;

    if ((rc = json_need_string(o, "format", &text, e)) != 0)
        return rc;
    if (strcmp(text, FORMAT) != 0)
        return err_set(e, ERR_UNSUPPORTED, "format \"%s\", this program reads %s", text, FORMAT);
    if ((rc = need_u64(o, "params", 1, CKPT_PARAMS_MAX, &m->params, e)) != 0 ||
        (rc = need_u64(o, "steps", 1, 1ull << 53, &m->steps, e)) != 0 ||
        (rc = need_u64(o, "step", 0, m->steps, &m->step, e)) != 0 ||
        (rc = need_u64(o, "chunk_elems", 1, 1u << 30, &chunk_elems, e)) != 0 ||
        (rc = need_u64(o, "units", 1, TREE_UNITS_MAX, &units, e)) != 0 ||
        (rc = need_u64(o, "global_batch", 1, 1u << 30, &global_batch, e)) != 0 ||
        (rc = need_u64(o, "tokens", 0, 1ull << 53, &m->figures.tokens, e)) != 0 ||
        (rc = need_u64(o, "tail_steps", 0, m->steps, &m->figures.tail_steps, e)) != 0 ||
        (rc = json_need_number(o, "tail_loss", &m->figures.tail_loss, e)) != 0 ||
        (rc = need_digest(o, "init", &m->init, e)) != 0 ||
        (rc = need_digest(o, "examples", &m->examples, e)) != 0 ||
        (rc = numerics_read(o, m, e)) != 0 || (rc = json_need_string(o, "seed", &text, e)) != 0)
        return rc;
    m->chunk_elems = (uint32_t)chunk_elems;
    m->units = (uint32_t)units;
    m->global_batch = (uint32_t)global_batch;
    m->seed = strtoull(text, &end, 10);
    if (end == text || *end != '\0')
        return err_set(e, ERR_CORRUPT, "seed \"%s\" is no number", text);
    return chunks_read(o, m, e);
}

int ckpt_manifest_read(const char *text, size_t len, struct ckpt_manifest *out, struct err *e)
{
    cJSON *o = NULL;
    int rc;

    memset(out, 0, sizeof *out);
    rc = json_parse(text, len, JSON_LIMITS_FILE, &o, e);
    if (rc == 0)
        rc = fields_read(o, out, e);
    cJSON_Delete(o);
    if (rc != 0) {
        ckpt_manifest_fini(out);
        err_wrap(e, "checkpoint manifest");
    }
    return rc;
}

/* The whole blob under its name. Stores verify what they hand out; between that and this reading a
 * disk may still decay, and parameters that are wrong by a bit would never be noticed. */
static int blob_take(const char *digest, size_t max, ckpt_fetch fetch, void *self, struct buf *out,
                     struct err *e)
{
    char path[PATH_MAX_BYTES];
    struct digest found;
    int rc = ERR_NOT_FOUND;

    /* What was fetched may be gone before it is read: who publishes the same bytes forgets them. */
    for (int i = 0; i < FETCHES_MAX && rc == ERR_NOT_FOUND; i++) {
        rc = fetch(self, digest, path, sizeof path, e);
        if (rc != 0)
            return rc;
        rc = file_read(path, max, out, e);
    }
    if (rc != 0)
        return rc;
    digest_bytes(out->data, out->len, &found);
    return strcmp(found.hex, digest) == 0
               ? 0
               : err_set(e, ERR_CORRUPT, "%s has sha256 %.12s, must be %.12s", path, found.hex,
                         digest);
}

int ckpt_manifest_fetch(const char *digest, ckpt_fetch fetch, void *self, struct ckpt_manifest *out,
                        struct err *e)
{
    struct buf text = BUF_INIT;
    int rc;

    memset(out, 0, sizeof *out);
    rc = blob_take(digest, MANIFEST_BYTES_MAX, fetch, self, &text, e);
    if (rc == 0)
        rc = ckpt_manifest_read(text.data, text.len, out, e);
    buf_free(&text);
    return rc != 0 ? err_wrap(e, "checkpoint %.12s", digest) : 0;
}

size_t ckpt_chunk_len(const struct ckpt_manifest *m, uint32_t chunk)
{
    uint64_t begin = (uint64_t)chunk * m->chunk_elems;

    CHECK(chunk < m->chunks);
    return (size_t)(m->params - begin < m->chunk_elems ? m->params - begin : m->chunk_elems);
}

int ckpt_read_chunk(const struct ckpt_manifest *m, uint32_t chunk, ckpt_fetch fetch, void *self,
                    float *p, float *mom, float *vel, struct err *e)
{
    size_t bytes = ckpt_chunk_len(m, chunk) * sizeof(float);
    float *into[3] = {p, mom, vel};
    struct buf blob = BUF_INIT;
    int rc;

    rc = blob_take(m->chunk[chunk].hex, 3 * bytes, fetch, self, &blob, e);
    if (rc == 0 && blob.len != 3 * bytes)
        rc = err_set(e, ERR_CORRUPT, "%zu bytes, must be %zu", blob.len, 3 * bytes);
    for (int i = 0; rc == 0 && i < 3; i++)
        if (into[i] != NULL)
            memcpy(into[i], blob.data + (size_t)i * bytes, bytes);
    buf_free(&blob);
    return rc != 0 ? err_wrap(e, "checkpoint chunk %u", chunk) : 0;
}

int ckpt_read_params(const char *digest, ckpt_fetch fetch, void *self, float *out, size_t count,
                     struct err *e)
{
    struct ckpt_manifest m;
    int rc = ckpt_manifest_fetch(digest, fetch, self, &m, e);

    if (rc != 0)
        return rc;
    if (m.params != count)
        rc = err_set(e, ERR_INVALID,
                     "checkpoint %.12s has %" PRIu64 " parameters, the model has %zu", digest,
                     m.params, count);
    for (uint32_t i = 0; rc == 0 && i < m.chunks; i++)
        rc = ckpt_read_chunk(&m, i, fetch, self, out + (size_t)i * m.chunk_elems, NULL, NULL, e);
    ckpt_manifest_fini(&m);
    return rc;
}
