/* Attention against a plain loop in double: head sizes, groups, lengths around the blocks, isolation of sequences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "model/attn.h"
#include "tests/unit/model/model_fixture.h"

static void plain(const struct attn_shape *s, const real *qkv, size_t begin, size_t end, real *out,
                  size_t head)
{
    size_t d = s->head_dim, ld = (s->heads + 2 * s->kv_heads) * d,
           g = head / (s->heads / s->kv_heads);

    for (size_t i = begin; i < end; i++) {
        double p[600], sum = 0.0, top = -1e300, o[512] = {0};

        for (size_t j = begin; j <= i; j++) {
            double dot = 0.0;

            for (size_t c = 0; c < d; c++)
                dot += (double)qkv[i * ld + head * d + c] *
                       (double)qkv[j * ld + (s->heads + g) * d + c];
            p[j - begin] = dot / sqrt((double)d);
            top = fmax(top, p[j - begin]);
        }
        for (size_t j = begin; j <= i; j++)
            sum += p[j - begin] = exp(p[j - begin] - top);
        for (size_t j = begin; j <= i; j++)
            for (size_t c = 0; c < d; c++)
                o[c] +=
                    p[j - begin] / sum * (double)qkv[j * ld + (s->heads + s->kv_heads + g) * d + c];
        for (size_t c = 0; c < d; c++)
            out[i * s->heads * d + head * d + c] = (real)o[c];
    }
}

static void compare(const struct attn_shape *s, const int32_t *seq_begin, size_t seqs)
{
    size_t rows = (size_t)seq_begin[seqs], outs = rows * s->heads * s->head_dim;
    real *qkv = fixture_normals(rows * (s->heads + 2 * s->kv_heads) * s->head_dim, 1, 1.5);
    real *out = fixture_reals(outs), *want = fixture_reals(outs),
         *lse = fixture_reals(rows * s->heads);
    real *scratch =
        fixture_normals(attn_scratch(s, rows), 2, 1e30); /* what a scratch holds must not matter */

    attn_forward(s, &(struct attn_rows){seq_begin, seqs, NULL, 0, 0}, qkv, out, lse, scratch);
    for (size_t b = 0; b < seqs; b++)
        for (size_t h = 0; h < s->heads; h++)
            plain(s, qkv, (size_t)seq_begin[b], (size_t)seq_begin[b + 1], want, h);
    for (size_t i = 0; i < outs; i++)
        if (!(fabs((double)out[i] - (double)want[i]) <= 2e-6 * (1.0 + fabs((double)want[i])) * 4.0))
            fail_msg("element %zu: %g, want %g", i, (double)out[i], (double)want[i]);
    free(qkv), free(out), free(want), free(lse), free(scratch);
}

static void test_head_sizes_and_groups(void **state)
{
    static const struct attn_shape shapes[] = {{8, 4, 8},  {8, 8, 8},  {8, 1, 8},  {4, 2, 64},
                                               {2, 1, 16}, {3, 3, 2},  {6, 2, 10}, {1, 1, 128},
                                               {2, 2, 48}, {1, 1, 512}};
    static const int32_t seq_begin[] = {0, 21, 22, 57};

    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        compare(&shapes[i], seq_begin, 3);
}

static void test_lengths_around_the_blocks(void **state)
{
    static const struct attn_shape s = {4, 2, 8};

    (void)state;
    for (int32_t n = 1; n <= 70; n++)
        compare(&s, (int32_t[]){0, n}, 1);
    compare(&s, (int32_t[]){0, 0, 5, 5, 530, 530}, 5); /* empty sequences are no sequences */
}

static void test_padded_rows_stay_untouched_by_infinities(void **state)
{
    static const struct attn_shape s = {1, 1, 8};
    const struct attn_rows five = {(int32_t[]){0, 5}, 1, NULL, 0, 0};
    real qkv[5 * 24] = {0}, out[5 * 8], lse[5], *scratch = fixture_reals(attn_scratch(&s, 5));

    (void)state;
    qkv[4 * 24 + 16] = (real)INFINITY; /* value of the last key: only the last query may see it */
    attn_forward(&s, &five, qkv, out, lse, scratch);
    assert_true(isinf(out[4 * 8]));
    qkv[4 * 24 + 16] = (real)NAN;
    attn_forward(&s, &five, qkv, out, lse, scratch);
    assert_true(isnan(out[4 * 8]));
    qkv[0] = (real)NAN; /* a query: its own row only, and visible */
    qkv[4 * 24 + 16] = 0;
    attn_forward(&s, &five, qkv, out, lse, scratch);
    assert_true(isnan(out[0]) && isnan(lse[0]) && out[8] == 0 && out[4 * 8] == 0);
    free(scratch);
}

static void test_later_keys_change_nothing(void **state)
{
    static const struct attn_shape s = {4, 2, 8};
    enum { LD = 8 * 8, LDO = 4 * 8, N = 40 };
    const struct attn_rows rows = {(int32_t[]){0, N}, 1, NULL, 0, 0};
    real *qkv = fixture_normals(N * LD, 1, 1.0), *other = fixture_normals(N * LD, 1, 1.0);
    real a[N * LDO], b[N * LDO], lse[4 * N], *scratch = fixture_reals(attn_scratch(&s, N));

    (void)state;
    for (size_t i = 23 * LD; i < N * LD; i++)
        other[i] += 1;
    attn_forward(&s, &rows, qkv, a, lse, scratch);
    attn_forward(&s, &rows, other, b, lse, scratch);
    assert_memory_equal(a, b, 23 * LDO * sizeof *a);
    assert_true(memcmp(a + 23 * LDO, b + 23 * LDO, LDO * sizeof *a) != 0);
    free(qkv), free(other), free(scratch);
}

static void test_rows_not_wanted_are_left_out(void **state)
{
    static const struct attn_shape s = {2, 1, 8};
    enum { LD = 4 * 8, LDO = 2 * 8, N = 19 };
    unsigned char wanted[N] = {0};
    const struct attn_rows all = {(int32_t[]){0, 3, N}, 2, NULL, 0, 0},
                           some = {(int32_t[]){0, 3, N}, 2, wanted, 0, 0};
    real *qkv = fixture_normals(N * LD, 1, 1.0), *dout = fixture_reals(N * LDO),
         out[2][N * LDO] = {{0}}, lse[2][2 * N];
    real dqkv[2][N * LD], *scratch = fixture_reals(attn_scratch(&s, N));

    (void)state;
    wanted[1] = wanted[13] = 1;
    for (size_t i = 0; i < LDO; i++)
        dout[LDO + i] = dout[13 * LDO + i] = (real)i - 3;
    attn_forward(&s, &all, qkv, out[0], lse[0], scratch);
    attn_backward(&s, &all, qkv, out[0], lse[0], dout, dqkv[0], scratch);
    attn_forward(&s, &some, qkv, out[1], lse[1], scratch);
    attn_backward(&s, &some, qkv, out[1], lse[1], dout, dqkv[1], scratch);
    assert_memory_equal(out[0] + LDO, out[1] + LDO, LDO * sizeof(real));
    assert_memory_equal(out[0] + 13 * LDO, out[1] + 13 * LDO, LDO * sizeof(real));
    assert_true(out[1][9 * LDO] == 0); /* its whole block was left out */
    for (size_t i = 0; i < N * LD; i++)
        assert_true(dqkv[0][i] == dqkv[1][i]);
    free(qkv), free(dout), free(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head_sizes_and_groups),
        cmocka_unit_test(test_lengths_around_the_blocks),
        cmocka_unit_test(test_padded_rows_stay_untouched_by_infinities),
        cmocka_unit_test(test_later_keys_change_nothing),
        cmocka_unit_test(test_rows_not_wanted_are_left_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
