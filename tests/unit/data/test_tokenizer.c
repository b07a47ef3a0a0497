/* The llama2.c kind, added tokens, decoding, and tokenizer.bin files that are no good. Expected
 * ids: tests/data/stories260K (made with a separate implementation of llama2.c's greedy merge). */
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
#include "data/tokenizer_parts.h"

#define STORIES "models/stories260K/tokenizer.bin"

static struct tokenizer *load(const char *path)
{
    struct tokenizer *t;
    struct err e = {0};

    if (tokenizer_load(path, &t, &e) != 0)
        fail_msg("%s", e.msg);
    return t;
}

static void test_llama2c_reference_ids(void **state)
{
    struct tokenizer *t = load(STORIES);
    struct buf text = BUF_INIT;
    struct err e = {0};
    cJSON *root;
    const cJSON *one;
    int cases = 0;

    (void)state;
    assert_int_equal(file_read("tests/data/stories260K/reference.json", 1 << 20, &text, &e), 0);
    assert_int_equal(json_parse(text.data, text.len, JSON_LIMITS_FILE, &root, &e), 0);
    cJSON_ArrayForEach(one, json_get(root, "cases"))
    {
        const char *s = json_string_or(one, "text", NULL);
        const cJSON *id = json_get(one, "ids")->child;
        struct ids got = {0};
        struct buf back = BUF_INIT;
        ids_push(&got, tokenizer_bos(t));
        assert_int_equal(tokenizer_encode(t, s, strlen(s), 0, &got, &e), 0);
        assert_int_equal((int)got.n, cJSON_GetArraySize(json_get(one, "ids")));
        for (size_t i = 0; i < got.n; i++, id = id->next)
            assert_int_equal(got.v[i], id->valueint);
        tokenizer_decode(t, got.v, got.n, &back);
        assert_string_equal(back.data, s);
        buf_free(&back);
        ids_free(&got);
        cases++;
    }
    assert_int_equal(cases, 5);
    {
        struct ids ids = {0};
        struct buf back = BUF_INIT;
        cJSON_ArrayForEach(one, json_get(root, "greedy_from_bos")) ids_push(&ids, one->valueint);
        tokenizer_decode(t, ids.v, ids.n, &back);
        assert_string_equal(back.data, json_string_or(root, "greedy_text", NULL));
        buf_free(&back);
        ids_free(&ids);
    }
    cJSON_Delete(root);
    buf_free(&text);
    tokenizer_free(t);
}

/* llama2.c's loop as it stands there: best score of any two neighbours, leftmost first, quadratic.
 */
struct slow {
    float score[600];
    char text[600][32];
    int n;
};

static void slow_read(struct slow *s, const char *path)
{
    FILE *f = fopen(path, "rb");
    uint32_t len;

    assert_non_null(f);
    assert_int_equal(fread(&len, 4, 1, f), 1);
    for (s->n = 0; fread(&s->score[s->n], 4, 1, f) == 1; s->n++) {
        assert_int_equal(fread(&len, 4, 1, f), 1);
        assert_true(len < 32);
        assert_int_equal(fread(s->text[s->n], 1, len, f), len);
        s->text[s->n][len] = '\0';
    }
    fclose(f);
}

static int slow_find(const struct slow *s, const char *text)
{
    for (int i = 0; i < s->n; i++)
        if (strcmp(s->text[i], text) == 0)
            return i;
    return -1;
}

static size_t slow_encode(const struct slow *s, const char *text, int *ids)
{
    size_t n = 0;

    if (*text != '\0')
        ids[n++] = slow_find(s, " ");
    for (size_t i = 0, len; text[i] != '\0'; i += len) {
        char one[8] = {0};
        for (len = 1; ((unsigned char)text[i + len] & 0xc0) == 0x80; len++)
            continue;
        memcpy(one, text + i, len);
        if (slow_find(s, one) >= 0)
            ids[n++] = slow_find(s, one);
        else
            for (size_t k = 0; k < len; k++)
                ids[n++] = (unsigned char)one[k] + 3;
    }
    for (;;) {
        float best = -1e10f;
        size_t at = SIZE_MAX;
        int to = -1;
        for (size_t i = 0; i + 1 < n; i++) {
            char joined[80];
            int id;
            snprintf(joined, sizeof joined, "%s%s", s->text[ids[i]], s->text[ids[i + 1]]);
            id = slow_find(s, joined);
            if (id >= 0 && s->score[id] > best) {
                best = s->score[id];
                at = i;
                to = id;
            }
        }
        if (to < 0)
            return n;
        ids[at] = to;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

static void test_llama2c_equals_the_naive_loop(void **state)
{
    static const char *const piece[] = {"the ", "a",     "  ", "ee",   "\n", "é", "ing", ".",
                                        "<s>",  "Lily ", "x",  "🦙", "o",  "t", "on"};
    static struct slow s;
    struct tokenizer *t = load(STORIES);
    struct err e = {0};

    (void)state;
    slow_read(&s, STORIES);
    for (uint32_t i = 0; i < 300; i++) {
        char text[400] = "";
        int want[400];
        size_t n;
        struct ids got = {0};
        for (uint32_t k = 0; k < 2 + i % 40; k++)
            strcat(text, piece[rng_below(1, RNG_TEST, i, 0, k, sizeof piece / sizeof *piece)]);
        n = slow_encode(&s, text, want);
        assert_int_equal(tokenizer_encode(t, text, strlen(text), 0, &got, &e), 0);
        assert_int_equal(got.n, n);
        for (size_t k = 0; k < n; k++)
            assert_int_equal(got.v[k], want[k]);
        ids_free(&got);
    }
    tokenizer_free(t);
}

static void test_flags_and_added_tokens(void **state)
{
    static const char *const names[] = {"<a0>", "<a01>", "<b>"};
    struct tokenizer *t = load(STORIES);
    struct ids plain = {0}, special = {0}, other = {0};
    struct buf back = BUF_INIT;
    const char *text = "so <a01>big<b>";
    struct err e = {0};
    uint32_t len;
    int32_t first;

    (void)state;
    assert_int_equal(tokenizer_vocab(t), 512);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_int_equal(tokenizer_add(t, names, 3, &first, &e), 0);
    assert_int_equal(first, 512);
    assert_int_equal(tokenizer_vocab(t), 515);
    assert_int_equal(tokenizer_id(t, "<a01>"), 513);
    assert_true(tokenizer_is_added(t, 514));
    assert_false(tokenizer_is_added(t, 300));
    assert_string_equal(tokenizer_bytes(t, 513, &len),
                        "<a01><b>"); /* not terminated: the length says where it ends */
    assert_int_equal(len, 5);
    assert_int_equal(tokenizer_add(t, &names[2], 1, &first, &e), ERR_CONFLICT);

    assert_int_equal(tokenizer_encode(t, text, strlen(text), 0, &plain, &e), 0);
    for (size_t i = 0; i < plain.n; i++)
        assert_true(plain.v[i] < 512); /* a user can't type a control token */
    tokenizer_decode(t, plain.v, plain.n, &back);
    assert_string_equal(back.data, " so <a01>big<b>");
    buf_clear(&back);

    assert_int_equal(tokenizer_encode(t, text, strlen(text), TOKENIZE_SPECIAL, &special, &e), 0);
    assert_int_equal(special.v[special.n - 1], 514);
    assert_int_equal(tokenizer_encode(t, "so ", 3, 0, &other, &e), 0);
    ids_push(&other, 513); /* the longest that matches */
    assert_int_equal(tokenizer_encode(t, "big", 3, 0, &other, &e), 0);
    ids_push(&other, 514);
    assert_int_equal(other.n, special.n);
    assert_memory_equal(other.v, special.v, other.n * sizeof *other.v);

    other.n = 0;
    assert_int_equal(tokenizer_encode(t, "big", 3, TOKENIZE_CONTINUE, &other, &e), 0);
    tokenizer_decode(t, other.v, other.n, &back);
    assert_string_equal(back.data, "big");
    assert_int_equal(tokenizer_encode(t, "a\xc0z", 3, 0, &other, &e), ERR_INVALID);
    ids_free(&plain);
    ids_free(&special);
    ids_free(&other);
    buf_free(&back);
    tokenizer_free(t);
}

/* A text is cut where no merge can join, and words are kept: neither shows. The other tokenizer has no
 * table of joins, so that its texts are one word each. */
static void test_cuts_and_kept_words_change_nothing(void **state)
{
    static const char *const part[] = {
        "the ", "a",  " ",        "  ",           "once upon",        ".",    "\"", "\n",
        "e",    "th", "\xc3\xa9", "\xe2\x96\x81", "\xf0\x9f\x98\x80", "I'm ", "S",  "1999",
        "ing ", ", "};
    struct tokenizer *t = load(STORIES), *whole = load(STORIES);
    struct err e = {0};
    size_t cut = 0;

    (void)state;
    assert_non_null(t->joins);
    free(whole->joins);
    whole->joins = NULL;
    for (uint32_t round = 0; round < 3000; round++) {
        struct buf text = BUF_INIT;
        struct ids a = {0}, b = {0};
        uint32_t parts = 1 + rng_below(1, RNG_TEST, 9, round, 0, 60);
        for (uint32_t i = 0; i < parts; i++)
            buf_str(&text, part[rng_below(1, RNG_TEST, 10, round, i, 18)]);
        assert_int_equal(tokenizer_encode(t, text.data, text.len, round & 2, &a, &e), 0);
        assert_int_equal(tokenizer_encode(whole, text.data, text.len, round & 2, &b, &e), 0);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.v, b.v, a.n * sizeof *a.v);
        cut += a.n;
        ids_free(&a);
        ids_free(&b);
        buf_free(&text);
    }
    assert_true(cut > 50000);
    tokenizer_free(t);
    tokenizer_free(whole);
}

static void test_long_text_is_not_quadratic(void **state)
{
    size_t n = 1 << 20;
    char *text = malloc(n);
    struct tokenizer *t = load(STORIES);
    struct ids ids = {0};
    struct err e = {0};

    (void)state;
    for (size_t i = 0; i < n; i++)
        text[i] = " the ball"[i % 9];
    assert_int_equal(tokenizer_encode(t, text, n, 0, &ids, &e), 0);
    assert_true(ids.n > n / 9 && ids.n < n / 2);
    ids_free(&ids);
    assert_int_equal(tokenizer_encode(t, text, (size_t)TOKENIZER_TEXT_MAX + 1, 0, &ids, &e),
                     ERR_LIMIT);
    free(text);
    tokenizer_free(t);
}

static void test_synthetic(void **state)
{
    static const char *const bad[] = {"synthetic:", "synthetic:257", "synthetic:x",
                                      "synthetic:1048577", "synthetic:-3"};
    struct tokenizer *t = load("synthetic:1000");
    struct ids ids = {0};
    struct buf back = BUF_INIT;
    struct err e = {0};

    (void)state;
    assert_int_equal(tokenizer_vocab(t), 1000);
    assert_int_equal(tokenizer_encode(t, "h\xc3\xa9 <t300>", 10, 0, &ids, &e), 0);
    assert_int_equal(ids.n, 10);
    assert_int_equal(ids.v[0], 2 + 'h');
    tokenizer_decode(t, ids.v, ids.n, &back);
    assert_string_equal(back.data, "h\xc3\xa9 <t300>");
    ids_free(&ids);
    buf_free(&back);
    tokenizer_free(t);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(tokenizer_load(bad[i], &t, &e), ERR_INVALID);
}

static int load_bytes(const char *bytes, size_t n, struct err *e)
{
    char path[] = "/tmp/test_tokenizer.XXXXXX.bin";
    int fd = mkstemps(path, 4), rc;
    struct tokenizer *t = NULL;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), (ssize_t)n);
    close(fd);
    rc = tokenizer_load(path, &t, e);
    assert_true((rc == 0) == (t != NULL));
    tokenizer_free(t);
    unlink(path);
    return rc;
}

static void test_bad_tokenizer_bin(void **state)
{
    const struct {
        const char *what;
        size_t at; /* byte to overwrite; 0: none */
        uint32_t with;
        size_t cut; /* file length; 0: whole */
        const char *says;
    } row[] = {
        {"empty", 0, 0, 3, "no tokenizer.bin"},
        {"longest 0", 0, 0, 0, "max_token_length is 0"},
        {"longest huge", 0, 0xffffffff, 0, "max_token_length is 4294967295"},
        {"length 0", 8, 0, 0, "token 0 has length 0"},
        {"length huge", 8, 0x7fffffff, 0, "token 0 has length 2147483647"},
        {"length past the end", 6220, 200, 0, "cut off"},
        {"score NaN", 4, 0x7fc00000, 0, "not finite"},
        {"no byte tokens", 54, 0x30303030, 0, "no byte fallback"},
        {"cut in a record", 0, 7, 101, "cut off"},
        {"too few", 0, 7, 17, "1 tokens"},
    };
    struct buf file = BUF_INIT;
    struct err e = {0};

    (void)state;
    assert_int_equal(file_read(STORIES, 1 << 20, &file, &e), 0);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char *copy = mem_alloc(file.len);
        size_t n = row[i].cut != 0 ? row[i].cut : file.len, at = row[i].at;
        memcpy(copy, file.data, file.len);
        if (at == 6220) { /* the last record: its length field is somewhere before the end */
            for (at = file.len - 5; memcmp(copy + at, "\1\0\0\0", 4) != 0; at--)
                continue;
        }
        if (n > 4)
            memcpy(copy + at, &row[i].with, 4);
        e = (struct err){0};
        if (load_bytes(copy, n, &e) == 0)
            fail_msg("%s: was accepted", row[i].what);
        if (strstr(e.msg, row[i].says) == NULL)
            fail_msg("%s: \"%s\" lacks \"%s\"", row[i].what, e.msg, row[i].says);
        free(copy);
    }
    for (uint32_t i = 0; i < 2000; i++) { /* any byte changed: accepted or refused, never a crash */
        size_t at = rng_below(7, RNG_TEST, i, 0, 0, (uint32_t)file.len);
        char *copy = mem_alloc(file.len);
        memcpy(copy, file.data, file.len);
        copy[at] = (char)rng_below(7, RNG_TEST, i, 1, 0, 256);
        (void)load_bytes(copy, i % 4 == 0 ? at : file.len, &e);
        free(copy);
    }
    buf_free(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama2c_reference_ids),
        cmocka_unit_test(test_llama2c_equals_the_naive_loop),
        cmocka_unit_test(test_flags_and_added_tokens),
        cmocka_unit_test(test_cuts_and_kept_words_change_nothing),
        cmocka_unit_test(test_long_text_is_not_quadratic),
        cmocka_unit_test(test_synthetic),
        cmocka_unit_test(test_bad_tokenizer_bin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
