/* tokenizer.json: GPT-2 against llama.cpp's references, other patterns against the `tokenizers`
 * package, our writer, and files that are no good (tests/data/tokenizers/README.md says where the
 * expected ids are from). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "data/tokenizer_parts.h"

#define FIXTURES "tests/data/tokenizers/"

static char temp[64];
static struct buf gpt2; /* text of GPT-2's tokenizer.json */

static void read_fixture(const char *name, struct buf *out)
{
    struct err e = {0};
    char *path = mem_printf(FIXTURES "%s", name);

    if (file_read(path, 4 << 20, out, &e) != 0)
        fail_msg("%s", e.msg);
    free(path);
}

static int set_up(void **state)
{
    struct buf packed = BUF_INIT;
    size_t size;

    (void)state;
    read_fixture("gpt2.tokenizer.json.zst", &packed);
    size = (size_t)ZSTD_getFrameContentSize(packed.data, packed.len);
    buf_reserve(&gpt2, size);
    gpt2.len = ZSTD_decompress(gpt2.data, size, packed.data, packed.len);
    gpt2.data[gpt2.len] = '\0';
    buf_free(&packed);
    snprintf(temp, sizeof temp, "/tmp/test_tokenizer_json.XXXXXX");
    return mkdtemp(temp) == NULL || gpt2.len != size;
}

static int tear_down(void **state)
{
    struct err e;

    (void)state;
    buf_free(&gpt2);
    return file_remove_tree(temp, &e);
}

/* Writes text as DIR/tokenizer.json and loads it. */
static int load_text(const char *text, size_t len, struct tokenizer **t, struct err *e)
{
    char path[96];
    FILE *f;

    snprintf(path, sizeof path, "%s/tokenizer.json", temp);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    fclose(f);
    return tokenizer_load(path, t, e);
}

static struct tokenizer *load_gpt2(void)
{
    struct tokenizer *t;
    struct err e = {0};

    if (load_text(gpt2.data, gpt2.len, &t, &e) != 0)
        fail_msg("%s", e.msg);
    return t;
}

static void assert_ids(const struct tokenizer *t, const char *name, const char *text, size_t len,
                       const int32_t *want, size_t n)
{
    struct ids got = {0};
    struct err e = {0};

    if (tokenizer_encode(t, text, len, 0, &got, &e) != 0)
        fail_msg("%s: %s", name, e.msg);
    if (got.n != n || (n > 0 && memcmp(got.v, want, n * sizeof *want) != 0))
        fail_msg("%s: \"%.*s\": %zu ids, expected %zu", name, (int)len, text, got.n, n);
    ids_free(&got);
}

/* llama.cpp's 46 strings. */
static void test_gpt2_references(void **state)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    struct tokenizer *t = load_gpt2();
    struct buf inp = BUF_INIT, out = BUF_INIT;
    const char *text, *line;
    int cases = 0;

    (void)state;
    read_fixture("reference.inp", &inp);
    read_fixture("gpt2.out", &out);
    line = out.data;
    for (text = inp.data; strstr(text, mark) != NULL; cases++) {
        const char *end = strstr(text, mark);
        struct ids want = {0};
        struct buf back = BUF_INIT;
        while (*line != '\n') {
            char *next;
            ids_push(&want, (int32_t)strtol(line, &next, 10));
            line = next + strspn(next, " ");
        }
        line++;
        assert_ids(t, "gpt2", text, (size_t)(end - text), want.v, want.n);
        tokenizer_decode(t, want.v, want.n, &back);
        assert_int_equal(back.len, end - text);
        assert_memory_equal(back.len > 0 ? back.data : "", text, back.len);
        buf_free(&back);
        ids_free(&want);
        text = end + sizeof mark - 1;
    }
    assert_int_equal(cases, 46);
    assert_int_equal(tokenizer_vocab(t), 50257);
    assert_int_equal(tokenizer_eos(t), 50256);
    assert_int_equal(tokenizer_id(t, " the"), 262);
    buf_free(&inp);
    buf_free(&out);
    tokenizer_free(t);
}

static void test_variants_equal_the_package(void **state)
{
    struct buf text = BUF_INIT;
    struct err e = {0};
    cJSON *all, *base;
    const cJSON *v, *c, *m;
    int cases = 0;

    (void)state;
    read_fixture("variants.json", &text);
    assert_int_equal(json_parse(text.data, text.len, JSON_LIMITS_FILE, &all, &e), 0);
    assert_int_equal(json_parse(gpt2.data, gpt2.len, JSON_LIMITS_FILE, &base, &e), 0);
    cJSON_ArrayForEach(v, all)
    {
        cJSON *model = cJSON_GetObjectItemCaseSensitive(base, "model");
        struct tokenizer *t;
        char *json;
        cJSON_ReplaceItemInObjectCaseSensitive(base, "normalizer",
                                               cJSON_Duplicate(json_get(v, "normalizer"), 1));
        cJSON_ReplaceItemInObjectCaseSensitive(base, "pre_tokenizer",
                                               cJSON_Duplicate(json_get(v, "pre_tokenizer"), 1));
        cJSON_DeleteItemFromObjectCaseSensitive(model, "ignore_merges");
        cJSON_ArrayForEach(m, json_get(v, "model"))
            cJSON_AddItemToObject(model, m->string, cJSON_Duplicate(m, 1));
        json = cJSON_PrintUnformatted(base);
        if (load_text(json, strlen(json), &t, &e) != 0)
            fail_msg("%s: %s", json_string_or(v, "name", ""), e.msg);
        cJSON_ArrayForEach(c, json_get(v, "cases"))
        {
            const char *s = json_string_or(c, "text", NULL);
            struct ids want = {0};
            cJSON_ArrayForEach(m, json_get(c, "ids")) ids_push(&want, m->valueint);
            assert_ids(t, json_string_or(v, "name", ""), s, strlen(s), want.v, want.n);
            ids_free(&want);
            cases++;
        }
        tokenizer_free(t);
        cJSON_free(json);
    }
    assert_int_equal(cases, 8 * 24);
    cJSON_Delete(all);
    cJSON_Delete(base);
    buf_free(&text);
}

/* Random text of awkward pieces; the same for a (seed, i). */
static size_t random_text(uint32_t i, char *text, size_t cap)
{
    static const char *const piece[] = {"the ",
                                        "a",
                                        "  ",
                                        "ee",
                                        "\n",
                                        "\xc3\xa9",
                                        "ing",
                                        ". ",
                                        "<s>",
                                        "Lily",
                                        "\xf0\x9f\xa6\x99",
                                        "0x",
                                        "\t",
                                        "Once",
                                        "\xe2\x80\x99"};
    size_t n = 0;

    text[0] = '\0';
    for (uint32_t k = 0; k < i % 50 && n + 8 < cap; k++) {
        strcpy(text + n, piece[rng_below(3, RNG_TEST, i, 0, k, sizeof piece / sizeof *piece)]);
        n += strlen(text + n);
    }
    return n;
}

static void assert_encode_alike(const struct tokenizer *a, const struct tokenizer *b,
                                unsigned flags)
{
    struct err e = {0};

    for (uint32_t i = 0; i < 300; i++) {
        char text[600];
        size_t n = random_text(i, text, sizeof text);
        struct ids x = {0}, y = {0};
        assert_int_equal(tokenizer_encode(a, text, n, flags, &x, &e), 0);
        assert_int_equal(tokenizer_encode(b, text, n, flags, &y, &e), 0);
        assert_int_equal(x.n, y.n);
        assert_true(x.n == 0 || memcmp(x.v, y.v, x.n * sizeof *x.v) == 0);
        ids_free(&x);
        ids_free(&y);
    }
}

/* Written and read again: the same ids, and a second writing gives the same bytes. */
static void test_write_and_read_again(void **state)
{
    static const char *const names[] = {"<q:0>", "<q:1>", "<q: none>"};
    static const char *const from[] = {"models/stories260K/tokenizer.bin", "synthetic:400", NULL};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct tokenizer *t = NULL, *back = NULL;
        struct buf one = BUF_INIT, two = BUF_INIT;
        struct err e = {0};
        int32_t first;
        char path[96];
        if (from[i] == NULL)
            t = load_gpt2();
        else
            assert_int_equal(tokenizer_load(from[i], &t, &e), 0);
        assert_int_equal(tokenizer_add(t, names, 3, &first, &e), 0);
        assert_int_equal(tokenizer_write(t, temp, &e), 0);
        snprintf(path, sizeof path, "%s/tokenizer.json", temp);
        if (tokenizer_load(path, &back, &e) != 0)
            fail_msg("%s", e.msg);
        assert_int_equal(tokenizer_vocab(back), tokenizer_vocab(t));
        assert_int_equal(tokenizer_id(back, "<q: none>"), first + 2);
        assert_int_equal(tokenizer_bos(back), tokenizer_bos(t));
        assert_int_equal(tokenizer_eos(back), tokenizer_eos(t));
        assert_encode_alike(t, back, 0);
        assert_encode_alike(t, back, TOKENIZE_SPECIAL);
        assert_int_equal(tokenizer_write(back, temp, &e), 0);
        assert_int_equal(file_read(path, 8 << 20, &one, &e), 0);
        tokenizer_free(back);
        assert_int_equal(tokenizer_load(temp, &back, &e), 0);
        assert_int_equal(tokenizer_write(back, temp, &e), 0);
        assert_int_equal(file_read(path, 8 << 20, &two, &e), 0);
        assert_string_equal(one.data, two.data);
        buf_free(&one);
        buf_free(&two);
        tokenizer_free(back);
        tokenizer_free(t);
        snprintf(path, sizeof path, "%s/tokenizer_config.json", temp);
        unlink(path);
    }
}

/* ---- files that are no good ------------------------------------------------------------------ */

#define BL "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"
#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2}"
#define MODEL "\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a b\"]}"
#define META "\"replacement\":\"\xe2\x96\x81\""

static const struct {
    const char *text;
    int code;
    const char *says;
} refusal[] = {
    {"{" BL "," MODEL "}", 0, ""},
    {"{" BL ",\"model\":{" VOCAB ",\"merges\":[[\"a\",\"b\"]]}}", 0, ""},
    {"{" BL ",\"added_tokens\":[{\"id\":2,\"content\":\"ab\"}]," MODEL "}", 0, ""},
    {"{" BL ",\"added_tokens\":[{\"id\":3,\"content\":\"<x>\",\"special\":true}]," MODEL "}", 0,
     ""},
    {"", ERR_INVALID, ""},
    {"[]", ERR_INVALID, "not a JSON object"},
    {"{}", ERR_INVALID, "model is missing"},
    {"{" BL ",\"model\":{\"type\":\"Unigram\"}}", ERR_UNSUPPORTED, "model: type \"Unigram\""},
    {"{" BL ",\"model\":{\"type\":\"WordPiece\"}}", ERR_UNSUPPORTED, "WordPiece"},
    {"{" BL ",\"model\":{\"type\":\"BPE\"}}", ERR_INVALID, "model.vocab must be an object"},
    {"{" BL ",\"model\":{\"dropout\":0.1," VOCAB ",\"merges\":[]}}", ERR_UNSUPPORTED, "dropout"},
    {"{" BL ",\"model\":{\"end_of_word_suffix\":\"</w>\"," VOCAB ",\"merges\":[]}}",
     ERR_UNSUPPORTED, "</w>"},
    {"{" MODEL "}", ERR_UNSUPPORTED, "neither a ByteLevel nor a Metaspace"},
    {"{\"pre_tokenizer\":{\"type\":\"Whitespace\"}," MODEL "}", ERR_UNSUPPORTED,
     "pre_tokenizer: pre_tokenizer \"Whitespace\""},
    {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Punctuation\"}]}"
     "," MODEL "}",
     ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[0]: pre_tokenizer \"Punctuation\""},
    {"{\"pre_tokenizer\":{\"type\":\"Sequence\"}," MODEL "}", ERR_INVALID,
     "pre_tokenizer.pretokenizers is not an array"},
    {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Sequence\","
     "\"pretokenizers\":[]}]}," MODEL "}",
     ERR_UNSUPPORTED, "\"Sequence\""},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a+)+$\"},\"behavior\":"
     "\"Isolated\"}," MODEL "}",
     ERR_UNSUPPORTED, "pattern \"(a+)+$\""},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\" "
     "\"},\"behavior\":\"Isolated\"}," MODEL "}",
     ERR_UNSUPPORTED, "pattern"},
    {"{\"pre_tokenizer\":{\"type\":\"Metaspace\"," META "}," MODEL "}", ERR_UNSUPPORTED, "split"},
    {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"split\":false}," MODEL "}",
     ERR_UNSUPPORTED, "replacement \"_\""},
    {"{\"pre_tokenizer\":{}," MODEL "}", ERR_INVALID, "pre_tokenizer"},
    {"{\"normalizer\":{\"type\":\"Lowercase\"}," BL "," MODEL "}", ERR_UNSUPPORTED,
     "normalizer: normalizer \"Lowercase\""},
    {"{\"normalizer\":{\"type\":\"NFKC\"}," BL "," MODEL "}", ERR_UNSUPPORTED, "NFKC"},
    {"{\"decoder\":{\"type\":\"WordPiece\"}," BL "," MODEL "}", ERR_UNSUPPORTED,
     "decoder: decoder \"WordPiece\""},
    {"{\"post_processor\":{\"type\":\"BertProcessing\"}," BL "," MODEL "}", ERR_UNSUPPORTED,
     "BertProcessing"},
    {"{" BL ",\"model\":{" VOCAB ",\"merges\":[\"a c\"]}}", ERR_INVALID,
     "merges[0]: token \"c\" is not in model.vocab"},
    {"{" BL ",\"model\":{" VOCAB ",\"merges\":[\"b a\"]}}", ERR_INVALID,
     "merges[0]: token \"ba\" is not in model.vocab"},
    {"{" BL ",\"model\":{" VOCAB ",\"merges\":[\"ab\"]}}", ERR_INVALID,
     "merges[0]: \"ab\" is not two tokens"},
    {"{" BL ",\"model\":{" VOCAB ",\"merges\":[\"a b c\"]}}", ERR_INVALID, "is not two tokens"},
    {"{" BL ",\"model\":{" VOCAB ",\"merges\":[7]}}", ERR_INVALID, "merges[0] is neither"},
    {"{" BL ",\"model\":{" VOCAB ",\"merges\":[[\"a\"]]}}", ERR_INVALID, "merges[0] is neither"},
    {"{" BL ",\"model\":{\"vocab\":{\"a\":0,\"b\":2},\"merges\":[]}}", ERR_INVALID,
     "token \"b\" has id 2"},
    {"{" BL ",\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", ERR_INVALID, "share id 0"},
    {"{" BL ",\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", ERR_INVALID, "has id -1"},
    {"{" BL ",\"model\":{\"vocab\":{\"a\":0.5},\"merges\":[]}}", ERR_INVALID, "has id 0.5"},
    {"{" BL ",\"model\":{\"vocab\":{\"a\":1e300},\"merges\":[]}}", ERR_INVALID, "has id 1e+300"},
    {"{" BL ",\"model\":{\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", ERR_INVALID, "has id -1"},
    {"{" BL ",\"model\":{\"vocab\":{},\"merges\":[]}}", ERR_LIMIT, "hold 0 tokens"},
    {"{" BL ",\"model\":{\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", ERR_INVALID, "\"a\""},
    {"{" BL ",\"model\":{\"unk_token\":\"<u>\"," VOCAB ",\"merges\":[]}}", ERR_INVALID,
     "unk_token \"<u>\""},
    {"{" BL ",\"added_tokens\":[{\"id\":4,\"content\":\"<x>\"}]," MODEL "}", ERR_INVALID,
     "added_tokens[0]"},
    {"{" BL ",\"added_tokens\":[{\"id\":0,\"content\":\"<x>\"}]," MODEL "}", ERR_INVALID,
     "share id 0"},
    {"{" BL ",\"added_tokens\":[{\"id\":2,\"content\":\"ab\"},{\"id\":2,\"content\":\"ab\"}]," MODEL
     "}",
     ERR_INVALID, "share id 2"},
    {"{" BL ",\"added_tokens\":[{\"content\":\"<x>\"}]," MODEL "}", ERR_INVALID, "added_tokens[0]"},
    {"{" BL ",\"added_tokens\":[{\"id\":3,\"content\":\"<x>\",\"single_word\":true}]," MODEL "}",
     ERR_UNSUPPORTED, "single_word"},
    {"{" BL ",\"added_tokens\":[{\"id\":3,\"content\":\"\"}]," MODEL "}", ERR_LIMIT, "has 0 bytes"},
    {"{" BL ",\"added_tokens\":{}," MODEL "}", ERR_INVALID, "added_tokens is not an array"},
    {"{" BL ",\"added_tokens\":[3]," MODEL "}", ERR_INVALID, "added_tokens[0]"},
    {"{" BL ",\"model\":{\"byte_fallback\":true," VOCAB ",\"merges\":[]}}", ERR_UNSUPPORTED,
     "byte_fallback"},
    {"{" BL ",\"model\":{\"vocab\":{\"\xff\":0},\"merges\":[]}}", ERR_INVALID, ""},
};

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusal / sizeof *refusal; i++) {
        struct tokenizer *t = NULL;
        struct err e = {0};
        int rc = load_text(refusal[i].text, strlen(refusal[i].text), &t, &e);
        if (rc != refusal[i].code || (rc != 0 && strstr(e.msg, refusal[i].says) == NULL))
            fail_msg("%s: %d \"%s\"", refusal[i].text, rc, e.msg);
        tokenizer_free(t);
    }
}

/* Any byte changed, any end cut: accepted or refused, and what is accepted encodes without a crash.
 */
static void test_mutations(void **state)
{
    static const char text[] =
        "{\"added_tokens\":[{\"id\":5,\"content\":\"<x>\",\"special\":true,\"rstrip\":true}],"
        "\"normalizer\":{\"type\":\"Sequence\","
        "\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"},{\"type\":"
        "\"Replace\",\"pattern\":{\"String\":\" \"},"
        "\"content\":\"\xe2\x96\x81\"}]},\"pre_tokenizer\":null,\"decoder\":null,\"model\":{"
        "\"type\":\"BPE\",\"unk_token\":\"a\","
        "\"byte_fallback\":true,\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\xe2\x96\x81\":3,\"<0x0A>\":"
        "4},\"merges\":[\"a b\"]}}";
    int good = 0;

    (void)state;
    for (uint32_t i = 0; i < 4000; i++) {
        char copy[sizeof text];
        struct tokenizer *t = NULL;
        struct ids ids = {0};
        struct err e = {0};
        size_t len = sizeof text - 1, at = rng_below(5, RNG_TEST, i, 0, 0, (uint32_t)len);
        memcpy(copy, text, sizeof text);
        if (i % 8 == 0)
            len = at;
        else
            copy[at] = i % 2 != 0 ? (char)rng_below(5, RNG_TEST, i, 1, 0, 256)
                                  : text[rng_below(5, RNG_TEST, i, 1, 0, (uint32_t)len)];
        if (load_text(copy, len, &t, &e) == 0) {
            assert_int_equal(
                tokenizer_encode(t, "abba <x> b\n\xc3\xa9", 13, TOKENIZE_SPECIAL, &ids, &e) == 0 ||
                    e.msg[0] != '\0',
                1);
            for (size_t k = 0; k < ids.n; k++)
                assert_in_range(ids.v[k], 0, tokenizer_vocab(t) - 1);
            good++;
        } else {
            assert_true(e.msg[0] != '\0');
        }
        ids_free(&ids);
        tokenizer_free(t);
    }
    assert_true(good > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2_references),
        cmocka_unit_test(test_variants_equal_the_package),
        cmocka_unit_test(test_write_and_read_again),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_mutations),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
