/* Checkpoint manifests and chunks: there and back, canonical, and what the reader refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "ps/ckpt.h"

static struct ckpt_manifest manifest_of(uint32_t chunks)
{
    struct ckpt_manifest m = {.params = 250,
                              .step = 7,
                              .steps = 20,
                              .seed = UINT64_MAX,
                              .chunk_elems = 100,
                              .units = 8,
                              .global_batch = 48,
                              .chunks = chunks,
                              .figures = {.tokens = 12345, .tail_loss = 0.1, .tail_steps = 3}};

    digest_bytes("init", 4, &m.init);
    digest_bytes("examples", 8, &m.examples);
    m.chunk = mem_zalloc(chunks, sizeof *m.chunk);
    for (uint32_t i = 0; i < chunks; i++)
        digest_bytes(&i, sizeof i, &m.chunk[i]);
    return m;
}

static void test_a_manifest_travels_and_is_canonical(void **state)
{
    struct ckpt_manifest m = manifest_of(3);
    struct ckpt_manifest back;
    struct buf text = BUF_INIT;
    struct buf again = BUF_INIT;
    struct err e;

    (void)state;
    ckpt_manifest_write(&m, &text);
    assert_int_equal(ckpt_manifest_read(text.data, text.len, &back, &e), 0);
    assert_true(back.seed == UINT64_MAX && back.params == 250 && back.step == 7 &&
                back.steps == 20 && back.units == 8);
    assert_true(back.figures.tail_loss == 0.1 && back.figures.tokens == 12345 &&
                back.figures.tail_steps == 3);
    assert_memory_equal(back.chunk, m.chunk, 3 * sizeof *m.chunk);
    assert_int_equal(ckpt_chunk_len(&back, 0), 100);
    assert_int_equal(ckpt_chunk_len(&back, 2), 50);
    ckpt_manifest_write(&back, &again);
    assert_string_equal(again.data, text.data);
    buf_free(&again);
    buf_free(&text);
    ckpt_manifest_fini(&back);
    ckpt_manifest_fini(&m);
}

static void test_the_numerics_are_recorded(void **state)
{
    struct ckpt_manifest m = manifest_of(3), back;
    struct buf text = BUF_INIT;
    struct err e;

    (void)state;
    ckpt_manifest_write(&m, &text);
    assert_null(strstr(text.data, "numerics")); /* fp32 keeps the name that it always had */
    buf_clear(&text);
    m.bf16 = true;
    ckpt_manifest_write(&m, &text);
    assert_non_null(strstr(text.data, "\"numerics\":\"bf16\""));
    assert_int_equal(ckpt_manifest_read(text.data, text.len, &back, &e), 0);
    assert_true(back.bf16);
    ckpt_manifest_fini(&back);
    memcpy(strstr(text.data, "bf16"), "fp8_", 4);
    assert_int_equal(ckpt_manifest_read(text.data, text.len, &back, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "fp8_"));
    buf_free(&text);
    ckpt_manifest_fini(&m);
}

static void replaced(const char *text, const char *from, const char *to, struct buf *out)
{
    const char *at = strstr(text, from);

    assert_non_null(at);
    buf_clear(out);
    buf_add(out, text, (size_t)(at - text));
    buf_str(out, to);
    buf_str(out, at + strlen(from));
}

static void test_bad_manifests_are_refused(void **state)
{
    static const struct {
        const char *from, *to;
    } cases[] = {
        {"steer-checkpoint-1", "steer-checkpoint-9"},
        {"\"params\":250", "\"params\":0"},
        {"\"params\":250", "\"params\":350"},
        {"\"params\":250", "\"params\":1e18"},
        {"\"chunk_elems\":100", "\"chunk_elems\":0"},
        {"\"step\":7", "\"step\":21"},
        {"\"step\":7", "\"step\":-1"},
        {"\"seed\":\"18", "\"seed\":\"x18"},
        {"\"units\":8", "\"units\":\"8\""},
        {"\"tail_steps\":3", "\"tail_steps\":21"},
        {"\"chunks\":[\"", "\"chunks\":[\"Z"},
        {"\"tokens\":12345", "\"tokens\":null"},
        {"}", ""},
    };
    struct ckpt_manifest m = manifest_of(3);
    struct buf text = BUF_INIT;
    struct buf bad = BUF_INIT;
    struct err e;

    (void)state;
    ckpt_manifest_write(&m, &text);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ckpt_manifest back;
        replaced(text.data, cases[i].from, cases[i].to, &bad);
        assert_int_not_equal(ckpt_manifest_read(bad.data, bad.len, &back, &e), 0);
        assert_null(back.chunk);
    }
    buf_free(&bad);
    buf_free(&text);
    ckpt_manifest_fini(&m);
}

struct store {
    char dir[64];
};

static void store_path(const struct store *s, const char *digest, char *path, size_t cap)
{
    snprintf(path, cap, "%s/%s", s->dir, digest);
}

static int store_fetch(void *self, const char *digest, char *path, size_t cap, struct err *e)
{
    store_path(self, digest, path, cap);
    return file_exists(path) ? 0 : err_set(e, ERR_NOT_FOUND, "no %.8s", digest);
}

/* Twice it is gone before it can be read: somebody else forgets it. */
static int store_fetch_late(void *self, const char *digest, char *path, size_t cap, struct err *e)
{
    static int fetches;

    fetches++;
    if (fetches % 3 == 0)
        return store_fetch(self, digest, path, cap, e);
    snprintf(path, cap, "/tmp/steer-gone");
    return 0;
}

static void store_put(struct store *s, const void *bytes, size_t len, struct digest *out)
{
    char path[256];
    struct err e;

    digest_bytes(bytes, len, out);
    store_path(s, out->hex, path, sizeof path);
    assert_int_equal(file_write_atomic(path, bytes, len, &e), 0);
}

static void test_parameters_are_read_back_whole(void **state)
{
    struct store store = {"/tmp/test_ckpt.XXXXXX"};
    struct ckpt_manifest m = manifest_of(3);
    struct digest digest;
    struct buf text = BUF_INIT;
    float blob[300], params[250], mom[100], vel[100];
    struct err e;

    (void)state;
    assert_non_null(mkdtemp(store.dir));
    for (uint32_t c = 0; c < 3; c++) {
        size_t n = ckpt_chunk_len(&m, c);
        for (size_t i = 0; i < n; i++) {
            blob[i] = (float)(c * 100 + i);
            blob[n + i] = -blob[i];
            blob[2 * n + i] = blob[i] * 0.5f;
        }
        store_put(&store, blob, 3 * n * sizeof(float), &m.chunk[c]);
    }
    ckpt_manifest_write(&m, &text);
    store_put(&store, text.data, text.len, &digest);
    assert_int_equal(ckpt_read_params(digest.hex, store_fetch_late, &store, params, 250, &e), 0);
    assert_int_equal(ckpt_read_params(digest.hex, store_fetch, &store, params, 250, &e), 0);
    for (int i = 0; i < 250; i++)
        assert_true(params[i] == (float)i);
    assert_int_equal(ckpt_read_chunk(&m, 2, store_fetch, &store, NULL, mom, vel, &e), 0);
    assert_true(mom[49] == -249.0f && vel[1] == 100.5f);
    assert_int_equal(ckpt_read_params(digest.hex, store_fetch, &store, params, 249, &e),
                     ERR_INVALID);
    store_put(&store, blob, 8, &m.chunk[1]); /* a blob of the wrong size */
    assert_int_equal(ckpt_read_chunk(&m, 1, store_fetch, &store, params, NULL, NULL, &e),
                     ERR_CORRUPT);
    m.chunk[1].hex[0] = m.chunk[1].hex[0] == 'a' ? 'b' : 'a';
    assert_int_equal(ckpt_read_chunk(&m, 1, store_fetch, &store, params, NULL, NULL, &e),
                     ERR_NOT_FOUND);
    assert_non_null(strstr(e.msg, "chunk 1"));
    file_remove_tree(store.dir, NULL);
    buf_free(&text);
    ckpt_manifest_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_manifest_travels_and_is_canonical),
        cmocka_unit_test(test_the_numerics_are_recorded),
        cmocka_unit_test(test_bad_manifests_are_refused),
        cmocka_unit_test(test_parameters_are_read_back_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
