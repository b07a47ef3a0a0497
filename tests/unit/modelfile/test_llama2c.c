/* llama2.c checkpoints, made here from the shipped model by the inverse of what the reader does,
 * and broken ones. */
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
#include "modelfile/llama2c.h"
#include "modelfile/modeldir.h"

/* sha256 of karpathy/tinyllamas' stories260K.bin without its last 16,384 bytes, the unused tables
 * of cosines and sines. */
#define ORIGINAL_WEIGHTS "340685034718160b936c5502a60a6da5c636afa1c53db33cefd0476ba3731205"

static const char *const kinds[] = {
    "input_layernorm",  "self_attn.q_proj", "self_attn.k_proj",
    "self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm",
    "mlp.gate_proj",    "mlp.down_proj",    "mlp.up_proj"};

static void tensor_put(const struct model *m, const char *name, int32_t heads, struct buf *out)
{
    const struct tensor *t = layout_find(&m->layout, name);
    const float *w = m->params + t->begin;
    size_t cols = (size_t)(t->cols == 0 ? 1 : t->cols);
    int32_t half = m->dims.head_dim / 2;

    for (int32_t r = 0; r < t->rows; r++) { /* rotary rows of a head: half-split to neighbours */
        int32_t in = r % m->dims.head_dim, from = heads > 0 ? r - in + in / 2 + in % 2 * half : r;
        buf_add(out, w + (size_t)from * cols, cols * 4);
    }
}

static void checkpoint_make(const struct model *m, bool tied, struct buf *out)
{
    const struct dims *d = &m->dims;
    int32_t h[7] = {d->width,  d->ffn,      d->layers,
                    d->heads,  d->kv_heads, tied ? d->vocab : -d->vocab,
                    d->context};
    float table = 0;

    buf_clear(out);
    buf_add(out, h, sizeof h);
    tensor_put(m, "model.embed_tokens.weight", 0, out);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        for (int32_t l = 0; l < d->layers; l++) {
            char name[LAYOUT_NAME_MAX];
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, kinds[k]);
            tensor_put(m, name, k == 1 ? d->heads : k == 2 ? d->kv_heads : 0, out);
        }
    }
    tensor_put(m, "model.norm.weight", 0, out);
    for (int32_t i = 0; i < d->context * d->head_dim; i++)
        buf_add(out, &table, 4);
    if (!tied)
        tensor_put(m, "model.embed_tokens.weight", 0, out);
}

static char dir[64];

static int temp_make(void **state)
{
    struct buf b = BUF_INIT;
    struct err e;
    char path[96];
    int rc;

    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_llama2c.XXXXXX");
    if (mkdtemp(dir) == NULL || file_read("models/stories260K/tokenizer.bin", 1 << 20, &b, &e) != 0)
        return 1;
    snprintf(path, sizeof path, "%s/tok512.bin", dir);
    rc = file_write_atomic(path, b.data, b.len, &e);
    buf_free(&b);
    return rc;
}

static int temp_remove(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(dir, &e);
}

static int load_bytes(const void *bytes, size_t len, struct model *m, struct err *e)
{
    char path[96];
    FILE *f;

    snprintf(path, sizeof path, "%s/model.bin", dir);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    fclose(f);
    return model_load(path, MODEL_ALL, m, e);
}

static void test_weights_and_tokenizer(void **state)
{
    struct model base, m;
    struct buf b = BUF_INIT;
    struct digest digest;
    struct err e = {0};

    (void)state;
    assert_int_equal(model_load("models/stories260K", MODEL_ALL, &base, &e), 0);
    checkpoint_make(&base, true, &b);
    assert_int_equal(b.len, 1056540);
    digest_bytes(b.data, b.len - 16384, &digest);
    assert_string_equal(digest.hex,
                        ORIGINAL_WEIGHTS); /* so the shipped model is the published one */
    if (load_bytes(b.data, b.len, &m, &e) != 0)
        fail_msg("%s", e.msg);
    assert_memory_equal(&m.dims, &base.dims, sizeof m.dims);
    assert_memory_equal(m.params, base.params, base.layout.count * sizeof(float));
    assert_int_equal(tokenizer_vocab(m.tokenizer), 512);
    model_fini(&m);

    checkpoint_make(&base, false, &b);
    assert_int_equal(load_bytes(b.data, b.len, &m, &e), 0);
    assert_false(m.dims.tied);
    assert_memory_equal(m.params + layout_find(&m.layout, "lm_head.weight")->begin, base.params,
                        512 * 64 * sizeof(float));
    model_fini(&m);
    model_fini(&base);
    buf_free(&b);
}

static void test_bad_checkpoints(void **state)
{
    static const struct {
        size_t field; /* of the header; 7: a weight */
        int32_t value;
        size_t cut;
        const char *says;
    } row[] = {
        {0, 64, 27, "shorter than its header"},
        {0, 64, 1056539, "its header says 1056540"},
        {0, 0, 0, "width is 0"},
        {0, -64, 0, "width"},
        {0, 65, 0, "must be a multiple of heads"},
        {1, 0, 0, "ffn is 0"},
        {2, 6, 0, "its header says"},
        {2, 2147483647, 0, "layers is 2147483647"},
        {3, 0, 0, "heads"},
        {4, 3, 0, "multiple of kv_heads"},
        {5, INT32_MIN, 0, "vocab is 0"},
        {5, 513, 0, "its header says"},
        {6, 2147483647, 0, "context is 2147483647"},
        {7, 0x7f800000, 0, "not finite"},
    };
    struct model base, m;
    struct buf b = BUF_INIT;
    struct err e = {0};

    (void)state;
    assert_int_equal(model_load("models/stories260K", MODEL_ALL, &base, &e), 0);
    checkpoint_make(&base, true, &b);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char keep[4];
        memcpy(keep, b.data + row[i].field * 4, 4);
        memcpy(b.data + row[i].field * 4, &row[i].value, 4);
        e = (struct err){0};
        if (load_bytes(b.data, row[i].cut != 0 ? row[i].cut : b.len, &m, &e) == 0 ||
            strstr(e.msg, row[i].says) == NULL)
            fail_msg("row %zu: \"%s\"", i, e.msg);
        memcpy(b.data + row[i].field * 4, keep, 4);
    }
    model_fini(&base);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_and_tokenizer),
        cmocka_unit_test(test_bad_checkpoints),
    };

    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
