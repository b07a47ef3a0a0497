#include "modelfile/llama2c.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"

#define HEADER 28

static int header_parse(const int32_t h[7], struct dims *d, struct err *e)
{
    *d = (struct dims){.width = h[0],
                       .ffn = h[1],
                       .layers = h[2],
                       .heads = h[3],
                       .kv_heads = h[4],
                       .vocab = h[5],
                       .context = h[6],
                       .norm_eps = 1e-5f,
                       .rope_theta = 10000.0f,
                       .tied = h[5] > 0,
                       .head = HEAD_LM};
    if (h[5] < 0) /* minus: a classifier of its own follows */
        d->vocab = h[5] == INT32_MIN ? 0 : -h[5];
    if (d->heads < 1 || d->width % d->heads != 0)
        return err_set(e, ERR_INVALID, "width is %d, must be a multiple of heads %d", d->width,
                       d->heads);
    d->head_dim = d->width / d->heads;
    return dims_check(d, e);
}

/* Floats after the header. Bounds of dims_check() keep every product far below 2^63. */
static uint64_t floats(const struct dims *d)
{
    uint64_t c = (uint64_t)d->width, kv = (uint64_t)d->kv_heads * (uint64_t)d->head_dim,
             f = (uint64_t)d->ffn;
    uint64_t layer = 2 * c + 2 * c * c + 2 * kv * c + 3 * f * c;
    uint64_t tables = (uint64_t)d->context * (uint64_t)d->head_dim; /* cosines and sines, unused */

    return (uint64_t)d->vocab * c * (d->tied ? 1 : 2) + (uint64_t)d->layers * layer + c + tables;
}

int llama2c_dims(const char *path, struct dims *out, struct err *e)
{
    int rc;
    int32_t h[7];
    uint64_t size;
    FILE *f = fopen(path, "rb");

    if (f == NULL)
        return err_sys(e, "open %s", path);
    if (fread(h, 1, HEADER, f) != HEADER)
        rc = err_set(e, ERR_CORRUPT, "shorter than its header of %d bytes", HEADER);
    else
        rc = header_parse(h, out, e);
    if (rc == 0)
        rc = file_size(path, &size, e);
    if (rc == 0 && size != HEADER + 4 * floats(out))
        rc = err_set(e, ERR_CORRUPT, "%" PRIu64 " bytes, its header says %" PRIu64, size,
                     HEADER + 4 * floats(out));
    fclose(f);
    return rc != 0 ? err_wrap(e, "%s", path) : 0;
}

static int tensor_read(FILE *f, const struct tensor *t, float *params, struct err *e)
{
    size_t n = tensor_count(t);

    if (fread(params + t->begin, 4, n, f) != n)
        return err_set(e, ERR_CORRUPT, "the file ends inside %s", t->name);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(params[t->begin + i]))
            return err_set(e, ERR_NUMERIC, "%s: element %zu is not finite", t->name, i);
    return 0;
}

/* Row 2i + k of a head goes to row i + k head_dim/2. */
static void rows_halve(float *w, int32_t heads, int32_t head_dim, int32_t cols)
{
    size_t block = (size_t)head_dim * (size_t)cols, row = (size_t)cols;
    float *old = mem_alloc(block * sizeof *old);

    for (int32_t h = 0; h < heads; h++, w += block) {
        memcpy(old, w, block * sizeof *old);
        for (int32_t r = 0; r < head_dim; r++)
            memcpy(w + (size_t)(r / 2 + r % 2 * (head_dim / 2)) * row, old + (size_t)r * row,
                   row * sizeof *old);
    }
    free(old);
}

int llama2c_read(const char *path, const struct dims *d, const struct layout *layout, float *params,
                 struct err *e)
{
    /* The file has one kind of tensor for all layers, then the next kind. */
    static const char *const kinds[] = {
        "input_layernorm",  "self_attn.q_proj", "self_attn.k_proj",
        "self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm",
        "mlp.gate_proj",    "mlp.down_proj",    "mlp.up_proj"};
    int rc;
    long tables = 4L * d->context * d->head_dim;
    char name[LAYOUT_NAME_MAX];
    FILE *f = fopen(path, "rb");

    if (f == NULL)
        return err_sys(e, "open %s", path);
    rc = fseek(f, HEADER, SEEK_SET) != 0 ? err_sys(e, "seek") : 0;
    if (rc == 0)
        rc = tensor_read(f, layout_find(layout, "model.embed_tokens.weight"), params, e);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        for (int32_t l = 0; rc == 0 && l < d->layers; l++) {
            const struct tensor *t;
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, kinds[k]);
            t = layout_find(layout, name);
            CHECK(t != NULL);
            rc = tensor_read(f, t, params, e);
            if (rc == 0 && (k == 1 || k == 2))
                rows_halve(params + t->begin, k == 1 ? d->heads : d->kv_heads, d->head_dim,
                           d->width);
        }
    }
    if (rc == 0)
        rc = tensor_read(f, layout_find(layout, "model.norm.weight"), params, e);
    if (rc == 0 && !d->tied) {
        rc = fseek(f, tables, SEEK_CUR) != 0 ? err_sys(e, "seek") : 0;
        if (rc == 0)
            rc = tensor_read(f, layout_find(layout, "lm_head.weight"), params, e);
    }
    fclose(f);
    return rc != 0 ? err_wrap(e, "%s", path) : 0;
}
