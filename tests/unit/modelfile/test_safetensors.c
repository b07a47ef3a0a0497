/* Weight files: what is read from each dtype, shards, and files that lie. Every refusal comes
 * before memory for weights. */
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

#include "base/file.h"
#include "base/rng.h"
#include "modelfile/safetensors.h"
#include "modelfile/weights.h"

static char temp[64];

static int temp_make(void **state)
{
    (void)state;
    snprintf(temp, sizeof temp, "/tmp/test_safetensors.XXXXXX");
    return mkdtemp(temp) == NULL;
}

static int temp_remove(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(temp, &e);
}

static void write_bytes(const char *name, const void *bytes, size_t len)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", temp, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    fclose(f);
}

/* Header text and data as a file; n: header length to write (SIZE_MAX: the true one). */
static void write_file(const char *name, const char *header, uint64_t n, const void *data,
                       size_t len)
{
    struct buf b = BUF_INIT;
    uint64_t h = n == UINT64_MAX ? strlen(header) : n;

    buf_add(&b, &h, 8);
    buf_str(&b, header);
    buf_add(&b, data, len);
    write_bytes(name, b.data, b.len);
    buf_free(&b);
}

static int open_file(const char *name, struct safetensors *s, struct err *e)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", temp, name);
    return safetensors_open(path, s, e);
}

static void test_dtypes_are_widened(void **state)
{
    /* 1, -2, 0.5, smallest half subnormal in F16; the same but 2^-24 rounded away in BF16 */
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},\"h\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_"
        "offsets\":[0,8]},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[8,14]},\"d\":{\"dtype\":\"F64\","
        "\"shape\":[],\"data_offsets\":[14,22]},"
        "\"i\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[22,30]},\"f\":{\"dtype\":\"F32\","
        "\"shape\":[1],\"data_offsets\":[30,34]},"
        "\"z\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[34,34]}}   ";
    static const uint16_t half[] = {0x3c00, 0xc000, 0x3800, 0x0001, 0x3f80, 0xc000, 0x3f00};
    const double d = 0.1;
    const float f = -7.25f;
    unsigned char data[34] = {0};
    struct safetensors s;
    struct err e = {0};
    float got[4];

    (void)state;
    memcpy(data, half, 14);
    memcpy(data + 14, &d, 8);
    memcpy(data + 30, &f, 4);
    write_file("types", header, UINT64_MAX, data, sizeof data);
    if (open_file("types", &s, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(s.n, 6);
    assert_int_equal(safetensors_read(&s, safetensors_find(&s, "h"), 0, 4, got, &e), 0);
    assert_true(got[0] == 1.0f && got[1] == -2.0f && got[2] == 0.5f && got[3] == 0x1p-24f);
    assert_int_equal(safetensors_read(&s, safetensors_find(&s, "b"), 1, 2, got, &e), 0);
    assert_true(got[0] == -2.0f && got[1] == 0.5f);
    assert_int_equal(safetensors_read(&s, safetensors_find(&s, "d"), 0, 1, got, &e), 0);
    assert_true(got[0] == 0.1f);
    assert_int_equal(safetensors_read(&s, safetensors_find(&s, "f"), 0, 1, got, &e), 0);
    assert_true(got[0] == -7.25f);
    assert_int_equal(safetensors_find(&s, "i")->dtype, DTYPE_BUFFER);
    assert_null(safetensors_find(&s, "x"));
    safetensors_close(&s);
}

static void test_not_finite_is_refused(void **state)
{
    static const char header[] = "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";
    const float data[2] = {1.0f, NAN};
    struct safetensors s;
    struct err e = {0};
    float got[2];

    (void)state;
    write_file("nan", header, UINT64_MAX, data, sizeof data);
    assert_int_equal(open_file("nan", &s, &e), 0);
    assert_int_equal(safetensors_read(&s, safetensors_find(&s, "w"), 0, 2, got, &e), ERR_NUMERIC);
    assert_non_null(strstr(e.msg, "tensor w: element 1 is not finite"));
    safetensors_close(&s);
}

#define T(dtype, shape, begin, end)                                                                \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static void test_files_that_lie(void **state)
{
    static const struct {
        const char *header;
        uint64_t n; /* header length written; UINT64_MAX: true */
        size_t data;
        int code;
        const char *says;
    } row[] = {
        {"{}", UINT64_MAX, 0, 0, ""},
        {"{\"a\":" T("F32", "[2]", "0", "8") "}", UINT64_MAX, 8, 0, ""},
        {"", UINT64_MAX, 0, ERR_CORRUPT, "does not begin with {"},
        {"{}", 3, 0, ERR_CORRUPT, "header of 3 bytes in a file of 10"},
        {"{}", UINT64_MAX - 1, 0, ERR_LIMIT, "header of"},
        {"{}", (16u << 20) + 1, 0, ERR_LIMIT, "limit 16777216"},
        {"[]", UINT64_MAX, 0, ERR_CORRUPT, "does not begin with {"},
        {" {}", UINT64_MAX, 0, ERR_CORRUPT, "does not begin with {"},
        {"{]", UINT64_MAX, 0, ERR_INVALID, ""},
        {"{}", UINT64_MAX, 4, ERR_CORRUPT, "the file has 4"},
        {"{\"a\":" T("F32", "[2]", "0", "8") "}", UINT64_MAX, 7, ERR_CORRUPT, "end at byte 8"},
        {"{\"a\":" T("F32", "[2]", "0", "8") "}", UINT64_MAX, 9, ERR_CORRUPT, "end at byte 8"},
        {"{\"a\":" T("F32", "[2]", "4", "12") "}", UINT64_MAX, 12, ERR_CORRUPT, "a hole"},
        {"{\"a\":" T("F32", "[2]", "0", "8") ",\"b\":" T("F32", "[2]", "4", "12") "}", UINT64_MAX,
         12, ERR_CORRUPT, "overlap"},
        {"{\"a\":" T("F32", "[2]", "0", "8") ",\"b\":" T("F32", "[2]", "0", "8") "}", UINT64_MAX, 8,
         ERR_CORRUPT, "overlap"},
        {"{\"a\":" T("F32", "[2]", "0", "8") ",\"a\":" T("F32", "[2]", "0", "8") "}", UINT64_MAX, 8,
         ERR_INVALID, "a"},
        {"{\"a\":" T("F32", "[2]", "0", "4") "}", UINT64_MAX, 4, ERR_CORRUPT,
         "need 8 bytes, data_offsets span 4"},
        {"{\"a\":" T("F32", "[2]", "8", "0") "}", UINT64_MAX, 8, ERR_CORRUPT, "before begin"},
        {"{\"a\":" T("F32", "[2]", "-8", "0") "}", UINT64_MAX, 8, ERR_INVALID, "data_offsets"},
        {"{\"a\":" T("F32", "[2]", "0.5", "8.5") "}", UINT64_MAX, 8, ERR_INVALID, "data_offsets"},
        {"{\"a\":" T("F32", "[2]", "0", "18446744073709551624") "}", UINT64_MAX, 8, ERR_INVALID,
         "data_offsets"},
        {"{\"a\":" T("F32", "[4194305,4194305,211106198978564]", "0", "16") "}", UINT64_MAX, 16,
         ERR_INVALID, "shape[2]"},
        {"{\"a\":" T("F32", "[2147483648,2147483648,4]", "0", "0") "}", UINT64_MAX, 0, ERR_LIMIT,
         "overflows"},
        {"{\"a\":" T("F32", "[2147483648,2147483648,1]", "0", "0") "}", UINT64_MAX, 0, ERR_LIMIT,
         "overflows"},
        {"{\"a\":" T("F32", "[-1]", "0", "4") "}", UINT64_MAX, 4, ERR_INVALID, "shape[0]"},
        {"{\"a\":" T("F32", "[1.5]", "0", "6") "}", UINT64_MAX, 6, ERR_INVALID, "shape[0]"},
        {"{\"a\":" T("F32", "[\"2\"]", "0", "8") "}", UINT64_MAX, 8, ERR_INVALID, "shape[0]"},
        {"{\"a\":" T("F32", "2", "0", "8") "}", UINT64_MAX, 8, ERR_INVALID,
         "shape is not an array"},
        {"{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,2]", "0", "8") "}", UINT64_MAX, 8, ERR_LIMIT,
         "more than 8 dimensions"},
        {"{\"a\":" T("F8_E4M3", "[2]", "0", "2") "}", UINT64_MAX, 2, ERR_UNSUPPORTED, "F8_E4M3"},
        {"{\"a\":" T("f32", "[2]", "0", "8") "}", UINT64_MAX, 8, ERR_UNSUPPORTED, "f32"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", UINT64_MAX, 8, ERR_INVALID, "tensor a"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", UINT64_MAX, 8,
         ERR_INVALID, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", UINT64_MAX, 8,
         ERR_INVALID, "alone"},
        {"{\"a\":3}", UINT64_MAX, 0, ERR_INVALID, "tensor a"},
        {"{\"__metadata__\":{\"format\":1}}", UINT64_MAX, 0, ERR_INVALID, "__metadata__.format"},
        {"{\"__metadata__\":3}", UINT64_MAX, 0, ERR_INVALID, "__metadata__"},
        {"{\"\xff\":" T("F32", "[2]", "0", "8") "}", UINT64_MAX, 8, ERR_INVALID, ""},
        {"{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}", UINT64_MAX, 0, ERR_LIMIT, ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct safetensors s;
        struct err e = {0};
        char data[16] = {0};
        int rc;
        write_file("lie", row[i].header, row[i].n, data, row[i].data);
        rc = open_file("lie", &s, &e);
        if (rc != row[i].code || (rc != 0 && strstr(e.msg, row[i].says) == NULL))
            fail_msg("row %zu %s: %d \"%s\"", i, row[i].header, rc, e.msg);
        if (rc == 0)
            safetensors_close(&s);
    }
    for (size_t n = 0; n < 8; n++) {
        struct safetensors s;
        struct err e = {0};
        write_bytes("short", "\0\0\0\0\0\0\0", n);
        assert_int_equal(open_file("short", &s, &e), ERR_CORRUPT);
    }
}

/* Cut or changed anywhere, the shipped file is refused or its tensors can be read; never a crash,
 * never past its end. */
static void test_mutations(void **state)
{
    struct buf file = BUF_INIT;
    struct err e = {0};
    uint64_t n;
    int good = 0;

    (void)state;
    assert_int_equal(file_read("models/stories260K/model.safetensors", 4 << 20, &file, &e), 0);
    memcpy(&n, file.data, 8);
    for (uint32_t i = 0; i < 1500; i++) {
        size_t at = rng_below(9, RNG_TEST, i, 0, 0, (uint32_t)n + 8);
        char keep = file.data[at], path[128];
        struct safetensors s;
        snprintf(path, sizeof path, "%s/mutant", temp);
        file.data[at] = i % 2 == 0 ? file.data[rng_below(9, RNG_TEST, i, 1, 0, (uint32_t)n)]
                                   : (char)rng_below(9, RNG_TEST, i, 1, 0, 256);
        write_bytes("mutant", file.data, i % 16 == 0 ? at : n + 8);
        if (i % 16 != 0)
            assert_int_equal(truncate(path, (off_t)file.len), 0);
        if (safetensors_open(path, &s, &e) == 0) {
            float got[8];
            for (size_t k = 0; k < s.n; k++)
                if (s.entry[k].dtype != DTYPE_BUFFER && s.entry[k].elements >= 8)
                    (void)safetensors_read(&s, &s.entry[k], s.entry[k].elements - 8, 8, got, &e);
            safetensors_close(&s);
            good++;
        }
        file.data[at] = keep;
    }
    assert_true(good > 20);
    buf_free(&file);
}

/* ---- directories ----------------------------------------------------------------------------- */

static const struct dims tiny = {.vocab = 3,
                                 .width = 2,
                                 .layers = 1,
                                 .heads = 1,
                                 .kv_heads = 1,
                                 .head_dim = 2,
                                 .ffn = 2,
                                 .context = 8,
                                 .norm_eps = 1e-5f,
                                 .rope_theta = 10000,
                                 .tied = true,
                                 .head = HEAD_LM};

/* Writes the tensors of `tiny` with indices [from, to) and what `extra` adds. */
static void write_tiny(const char *name, int32_t from, int32_t to,
                       const struct safetensors_out *extra)
{
    struct layout l;
    struct safetensors_out list[16];
    static float values[64];
    char path[128];
    size_t n = 0;
    struct err e = {0};

    layout_init(&l, &tiny);
    assert_true(l.count <= 64);
    for (size_t i = 0; i < 64; i++)
        values[i] = (float)i;
    for (int32_t i = from; i < to && i < l.tensors; i++)
        list[n++] =
            (struct safetensors_out){l.tensor[i].name, (uint64_t)l.tensor[i].rows,
                                     (uint64_t)l.tensor[i].cols, values + l.tensor[i].begin};
    if (extra != NULL)
        list[n++] = *extra;
    snprintf(path, sizeof path, "%s/%s", temp, name);
    assert_int_equal(safetensors_write(path, list, n, &e), 0);
    layout_fini(&l);
}

static int read_tiny(struct err *e)
{
    struct layout l;
    float *p = NULL;
    int rc;

    layout_init(&l, &tiny);
    rc = weights_read(temp, &tiny, &l, &p, e);
    assert_true((rc == 0) == (p != NULL));
    for (size_t i = 0; rc == 0 && i < l.count; i++)
        assert_true(p[i] == (float)i);
    free(p);
    layout_fini(&l);
    return rc;
}

static void test_exact_set_of_tensors(void **state)
{
    static const float same[6] = {0, 1, 2, 3, 4, 5}, other[6] = {0, 1, 2, 3, 4, 6}, one[1] = {0};
    static const struct {
        int32_t to;
        struct safetensors_out extra;
        int code;
        const char *says;
    } row[] = {
        {99, {"lm_head.weight", 3, 2, same}, 0, ""},
        {99, {"model.layers.0.self_attn.rotary_emb.inv_freq", 1, 0, one}, 0, ""},
        {99, {"lm_head.weight", 3, 2, other}, ERR_INVALID, "lm_head.weight differs"},
        {99,
         {"lm_head.weight", 2, 3, same},
         ERR_INVALID,
         "lm_head.weight has shape [2,3], config.json says [3,2]"},
        {99, {"score.weight", 3, 2, same}, ERR_INVALID, "score.weight is not part"},
        {99, {"model.layers.1.mlp.up_proj.weight", 2, 2, same}, ERR_INVALID, "is not part"},
        {10, {"x", 1, 0, one}, ERR_INVALID, "model.norm.weight is missing"},
        {10, {"model.norm.weight", 3, 0, same}, ERR_INVALID, "shape [3], config.json says [2]"},
        {10, {"model.norm.weight", 1, 2, same}, ERR_INVALID, "shape [1,2], config.json says [2]"},
    };

    (void)state;
    write_tiny("model.safetensors", 0, 99, NULL);
    {
        struct err e = {0};
        if (read_tiny(&e) != 0)
            fail_msg("%s", e.msg);
    }
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct err e = {0};
        int rc;
        write_tiny("model.safetensors", 0, row[i].to, &row[i].extra);
        rc = read_tiny(&e);
        if (rc != row[i].code || (rc != 0 && strstr(e.msg, row[i].says) == NULL))
            fail_msg("row %zu: %d \"%s\"", i, rc, e.msg);
    }
}

static void index_write(const char *replace, const char *with)
{
    struct layout l;
    struct buf b = BUF_INIT;

    layout_init(&l, &tiny);
    buf_str(&b, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    for (int32_t i = 0; i < l.tensors; i++) {
        const char *file =
            i < 4 ? "model-00001-of-00002.safetensors" : "model-00002-of-00002.safetensors";
        bool here = replace != NULL && strcmp(l.tensor[i].name, replace) == 0;
        if (here && with == NULL)
            continue;
        buf_printf(&b, "%s\"%s\":\"%s\"", i == 0 ? "" : ",", l.tensor[i].name, here ? with : file);
    }
    buf_str(&b, "}}");
    write_bytes("model.safetensors.index.json", b.data, b.len);
    buf_free(&b);
    layout_fini(&l);
}

static void test_shards(void **state)
{
    static const struct {
        const char *name, *file;
        int code;
        const char *says;
    } row[] = {
        {NULL, NULL, 0, ""},
        {"model.norm.weight", NULL, ERR_CORRUPT, "weight_map does not name"},
        {"model.norm.weight", "model-00001-of-00002.safetensors", ERR_CORRUPT,
         "has no tensor model.norm.weight"},
        {"model.norm.weight", "model-00003-of-00002.safetensors", ERR_NOT_FOUND, "model-00003"},
        {"model.norm.weight", "../model-00002-of-00002.safetensors", ERR_INVALID,
         "must be a *.safetensors file of this folder"},
        {"model.norm.weight", "/etc/passwd", ERR_INVALID, "\"/etc/passwd\""},
        {"model.norm.weight", "..safetensors", ERR_INVALID, "this folder"},
        {"model.norm.weight", "weights.bin", ERR_INVALID, "this folder"},
        {"model.norm.weight", "", ERR_INVALID, "this folder"},
    };
    char path[128];

    (void)state;
    snprintf(path, sizeof path, "%s/model.safetensors", temp);
    unlink(path);
    write_tiny("model-00001-of-00002.safetensors", 0, 4, NULL);
    write_tiny("model-00002-of-00002.safetensors", 4, 99, NULL);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct err e = {0};
        int rc;
        index_write(row[i].name, row[i].file);
        rc = read_tiny(&e);
        if (rc != row[i].code || (rc != 0 && strstr(e.msg, row[i].says) == NULL))
            fail_msg("row %zu: %d \"%s\"", i, rc, e.msg);
    }
    for (int i = 0; i < 2; i++) {
        struct err e = {0};
        write_bytes("model.safetensors.index.json",
                    i == 0 ? "{\"weight_map\":[]}" : "{\"weight_map\":{}}", 17);
        assert_int_equal(read_tiny(&e), ERR_INVALID);
        assert_non_null(strstr(e.msg, "weight_map must be an object of 1.."));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dtypes_are_widened),   cmocka_unit_test(test_not_finite_is_refused),
        cmocka_unit_test(test_files_that_lie),       cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_exact_set_of_tensors), cmocka_unit_test(test_shards),
    };

    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
