/*
 * A damaged checkpoint is never loaded: flipped bits, cut and grown files, zeroed sectors, swapped
 * files, files that are gone. 1,000 damages; MUTATIONS=n for more, SEED=n to repeat.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "ps/ckpt.h"

#define CHUNKS 5
#define ELEMS 256
#define PARAMS (CHUNKS * ELEMS - 100)

struct store {
    char dir[64];
    struct ckpt_manifest m;
    struct digest manifest;
};

static uint64_t next(uint64_t *s) /* xorshift64 */
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static int fetch(void *self, const char *digest, char *path, size_t cap, struct err *e)
{
    const struct store *s = self;

    snprintf(path, cap, "%s/%s", s->dir, digest);
    return file_exists(path) ? 0 : err_set(e, ERR_NOT_FOUND, "no %.8s", digest);
}

static void file_put(const struct store *s, const char *hex, const void *bytes, size_t len)
{
    char *path = mem_printf("%s/%s", s->dir, hex);
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    fclose(f);
    free(path);
}

static void file_get(const struct store *s, const char *hex, struct buf *out)
{
    char *path = mem_printf("%s/%s", s->dir, hex);
    struct err e;

    buf_clear(out);
    assert_int_equal(file_read(path, 1u << 20, out, &e), 0);
    free(path);
}

static void store_make(struct store *s)
{
    struct buf text = BUF_INIT;
    float blob[3 * ELEMS];

    memset(s, 0, sizeof *s);
    snprintf(s->dir, sizeof s->dir, "/tmp/test_ckpt_damage.XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    s->m = (struct ckpt_manifest){.params = PARAMS,
                                  .step = 7,
                                  .steps = 20,
                                  .seed = 5,
                                  .chunk_elems = ELEMS,
                                  .units = 8,
                                  .global_batch = 48,
                                  .chunks = CHUNKS,
                                  .figures = {.tokens = 12345, .tail_loss = 0.1, .tail_steps = 3}};
    digest_bytes("init", 4, &s->m.init);
    digest_bytes("examples", 8, &s->m.examples);
    s->m.chunk = mem_zalloc(CHUNKS, sizeof *s->m.chunk);
    for (uint32_t c = 0; c < CHUNKS; c++) {
        size_t n = 3 * ckpt_chunk_len(&s->m, c);
        for (size_t i = 0; i < n; i++)
            blob[i] = (float)(c * 1000 + i);
        digest_bytes(blob, n * sizeof(float), &s->m.chunk[c]);
        file_put(s, s->m.chunk[c].hex, blob, n * sizeof(float));
    }
    ckpt_manifest_write(&s->m, &text);
    digest_bytes(text.data, text.len, &s->manifest);
    file_put(s, s->manifest.hex, text.data, text.len);
    buf_free(&text);
}

/* Damages one file in one way; what it was is in *was. */
static const char *damage(const struct store *s, uint64_t *seed, struct buf *was)
{
    uint64_t which = next(seed) % (CHUNKS + 1), how = next(seed) % 6;
    const char *hex = which == CHUNKS ? s->manifest.hex : s->m.chunk[which].hex;
    struct buf b = BUF_INIT;
    char *path = mem_printf("%s/%s", s->dir, hex);
    size_t at;

    file_get(s, hex, was);
    buf_add(&b, was->data, was->len);
    at = next(seed) % b.len;
    if (how == 0) {
        b.data[at] = (char)(b.data[at] ^ (1 << next(seed) % 8));
    } else if (how == 1) {
        b.len = at;
    } else if (how == 2) {
        buf_add(&b, "x", 1);
    } else if (how == 3) { /* a sector that never came to the disk */
        size_t from = at / 512 * 512;
        memset(b.data + from, 0, b.len - from < 512 ? b.len - from : 512);
    } else if (how == 4) {
        file_get(s, s->m.chunk[(which + 1) % CHUNKS].hex, &b);
    }
    if (how == 5)
        unlink(path);
    else
        file_put(s, hex, b.data, b.len);
    /* The damage may be none: zeros over zeros. Then it is a flipped bit. */
    if (how != 5 && b.len == was->len && memcmp(b.data, was->data, b.len) == 0) {
        b.data[at] = (char)(b.data[at] ^ 1);
        file_put(s, hex, b.data, b.len);
    }
    buf_free(&b);
    free(path);
    return hex;
}

static void test_a_damaged_checkpoint_is_never_loaded(void **state)
{
    const char *count = getenv("MUTATIONS"), *given = getenv("SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) | 1 : 1;
    int n = count != NULL ? atoi(count) : getenv("STEER_LONG") != NULL ? 100000 : 1000;
    const char *results = getenv("STEER_RESULTS");
    uint64_t begun = clock_ms(), first = seed;
    struct buf was = BUF_INIT;
    struct store s;
    float params[PARAMS];
    int loaded = 0;
    FILE *out;
    struct err e;

    (void)state;
    store_make(&s);
    assert_int_equal(ckpt_read_params(s.manifest.hex, fetch, &s, params, PARAMS, &e), 0);
    for (int i = 0; i < n; i++) {
        const char *hex = damage(&s, &seed, &was);

        loaded += ckpt_read_params(s.manifest.hex, fetch, &s, params, PARAMS, &e) == 0;
        file_put(&s, hex, was.data, was.len);
    }
    /* The reader is not merely refusing everything. */
    assert_int_equal(ckpt_read_params(s.manifest.hex, fetch, &s, params, PARAMS, &e), 0);
    printf("figure: suite=ckpt-damage commit=%s seed=%llu mutations=%d loaded=%d seconds=%.1f\n",
           STEER_VERSION, (unsigned long long)first, n, loaded,
           (double)(clock_ms() - begun) / 1000);
    out = results != NULL ? fopen(results, "a") : NULL;
    if (out != NULL) {
        fprintf(out, "suite=ckpt-damage commit=%s seed=%llu mutations=%d loaded=%d seconds=%.1f\n",
                STEER_VERSION, (unsigned long long)first, n, loaded,
                (double)(clock_ms() - begun) / 1000);
        fclose(out);
    }
    assert_int_equal(loaded, 0);
    file_remove_tree(s.dir, NULL);
    buf_free(&was);
    ckpt_manifest_fini(&s.m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_damaged_checkpoint_is_never_loaded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
