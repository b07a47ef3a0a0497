#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/suggest.h"

static void test_errors_carry_context_from_the_inside_out(void **state)
{
    struct err e = {0};
    (void)state;
    assert_int_equal(err_set(&e, ERR_LIMIT, "%d of %d", 4, 3), ERR_LIMIT);
    assert_int_equal(err_wrap(&e, "file %s", "a"), ERR_LIMIT);
    assert_string_equal(e.msg, "file a: 4 of 3");
    errno = ENOSPC;
    assert_int_equal(err_sys(&e, "write x"), ERR_NO_SPACE);
    errno = EIO;
    assert_int_equal(err_sys(NULL, "write x"), ERR_IO);
    errno = EROFS; /* what a file system is after one */
    assert_int_equal(err_sys(NULL, "write x"), ERR_IO);
    assert_string_equal(err_name(ERR_NO_SPACE), "no_space");
    for (int i = 0; i < 40; i++) /* a long chain is cut, never overruns */
        err_wrap(&e, "%0100d", i);
    assert_true(strlen(e.msg) < sizeof e.msg);
}

/* Known answers of Philox4x32-10: Random123's kat_vectors. */
static void test_philox_known_answers(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct rng_block x = rng_philox(kat[i].key, kat[i].counter);
        assert_memory_equal(x.v, kat[i].out, sizeof x.v);
    }
}

static void test_permutation_hits_every_value_once(void **state)
{
    static const uint32_t sizes[] = {1, 2, 3, 5, 16, 17, 100, 1000, 4097};
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint32_t n = sizes[s], moved = 0;
        char *seen = calloc(n, 1);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t at = rng_permute(7, RNG_ORDER, 3, n, i);
            assert_true(at < n);
            assert_false(seen[at]);
            seen[at] = 1;
            moved += at != i;
        }
        assert_true(n < 16 || moved > n / 2);
        free(seen);
    }
    assert_true(rng_permute(7, RNG_ORDER, 3, 1000, 5) != rng_permute(8, RNG_ORDER, 3, 1000, 5) ||
                rng_permute(7, RNG_ORDER, 3, 1000, 6) != rng_permute(8, RNG_ORDER, 3, 1000, 6));
}

static void test_normal_and_unit_have_their_moments(void **state)
{
    double sum = 0, sq = 0, unit = 0;
    const int n = 20000;
    (void)state;
    for (int i = 0; i < n; i++) {
        double x = rng_normal(1, RNG_TEST, 0, 0, (uint32_t)i);
        sum += x;
        sq += x * x;
        unit += rng_unit(1, RNG_TEST, 1, 0, (uint32_t)i);
    }
    assert_true(fabs(sum / n) < 0.03);
    assert_true(fabs(sq / n - 1) < 0.05);
    assert_true(fabs(unit / n - 0.5) < 0.01);
}

static void test_digest_of_abc(void **state)
{
    struct digest d;
    (void)state;
    digest_bytes("abc", 3, &d);
    assert_string_equal(d.hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_true(digest_is_valid(d.hex));
    d.hex[0] = 'B';
    assert_false(digest_is_valid(d.hex));
}

static void test_files_appear_whole_or_not_at_all(void **state)
{
    char dir[] = "/tmp/steer-base-XXXXXX";
    char path[256];
    struct err e = {0};
    struct buf b = BUF_INIT;
    uint64_t size;
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a/b/c", dir);
    assert_int_equal(file_make_dirs(path, &e), 0);
    snprintf(path, sizeof path, "%s/a/b/c/f", dir);
    assert_int_equal(file_write_atomic(path, "hello", 5, &e), 0);
    assert_int_equal(file_write_atomic(path, "hi", 2, &e), 0);
    assert_int_equal(file_read(path, 100, &b, &e), 0);
    assert_string_equal(b.data, "hi");
    assert_int_equal(file_read(path, 1, &b, &e), ERR_LIMIT);
    assert_int_equal(file_size(path, &size, &e), 0);
    assert_int_equal(size, 2);
    snprintf(path, sizeof path, "%s/none/f", dir);
    assert_int_equal(file_write_atomic(path, "x", 1, &e), ERR_NOT_FOUND);
    assert_int_equal(file_remove_tree(dir, &e), 0);
    assert_false(file_exists(dir));
    assert_int_equal(file_remove_tree(dir, &e), 0);
    buf_free(&b);
}

static void test_suggestions_are_near_or_none(void **state)
{
    static const char *const words[] = {"units", "unit", "train", "max_tokens"};
    (void)state;
    assert_string_equal(suggest_nearest("trian", words, 4), "train");
    assert_string_equal(suggest_nearest("max_token", words, 4), "max_tokens");
    assert_null(suggest_nearest("zebra", words, 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_carry_context_from_the_inside_out),
        cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test(test_permutation_hits_every_value_once),
        cmocka_unit_test(test_normal_and_unit_have_their_moments),
        cmocka_unit_test(test_digest_of_abc),
        cmocka_unit_test(test_files_appear_whole_or_not_at_all),
        cmocka_unit_test(test_suggestions_are_near_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
