#include "model/panel.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/rng.h"

static void fill(real *x, size_t n, uint32_t which)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (real)rng_normal(3, RNG_TEST, which, 0, (uint32_t)i);
}

static void test_products_are_right_for_every_shape(void **state)
{
    static const size_t shapes[][3] = {{1, 1, 1},     {1, 7, 3},   {5, 64, 16},   {6, 64, 17},
                                       {7, 40, 80},   {13, 3, 33}, {24, 64, 128}, {25, 172, 64},
                                       {31, 64, 344}, {4, 1, 512}};

    (void)state;
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        size_t n = shapes[s][0], in = shapes[s][1], out = shapes[s][2];
        real *x = mem_alloc(n * in * sizeof(real)), *w = mem_alloc(out * in * sizeof(real));
        real *y = mem_alloc(n * (out + 1) * sizeof(real));
        real *packed = mem_zalloc(panel_count(in, out), sizeof(real));
        fill(x, n * in, 1);
        fill(w, out * in, 2);
        panel_pack(w, out / 2, in, 0, packed); /* in two pieces, as q, k and v are */
        panel_pack(w + out / 2 * in, out - out / 2, in, out / 2, packed);
        for (int add = 0; add < 2; add++) {
            for (size_t i = 0; i < n * (out + 1); i++)
                y[i] = (real)0.5;
            panel_linear(x, in, packed, y, out + 1, n, in, out, add != 0);
            for (size_t r = 0; r < n; r++) {
                for (size_t o = 0; o < out; o++) {
                    double want = add ? 0.5 : 0.0;
                    for (size_t k = 0; k < in; k++)
                        want += (double)x[r * in + k] * (double)w[o * in + k];
                    assert_true(fabs((double)y[r * (out + 1) + o] - want) <
                                2e-5 * sqrt((double)in));
                }
                assert_true(y[r * (out + 1) + out] == (real)0.5); /* nothing beyond the row */
            }
        }
        free(packed);
        free(y);
        free(w);
        free(x);
    }
}

/* The reason for this file: a row gives the same bits alone, and at any place among any number of
 * others. */
static void test_bits_of_a_row_do_not_depend_on_the_others(void **state)
{
    enum { IN = 64, OUT = 70, N = 40 };
    static real x[N * IN], w[OUT * IN], alone[OUT], y[N * OUT], packed[80 * IN];

    (void)state;
    assert_int_equal(panel_count(IN, OUT), sizeof(packed) / sizeof(real));
    fill(w, OUT * IN, 5);
    panel_pack(w, OUT, IN, 0, packed);
    fill(x, IN, 6);
    panel_linear(x, IN, packed, alone, OUT, 1, IN, OUT, false);
    for (size_t n = 1; n <= N; n++) {
        for (size_t at = 0; at < n; at++) {
            fill(x, n * IN, (uint32_t)(100 + n));
            fill(x + at * IN, IN, 6);
            panel_linear(x, IN, packed, y, OUT, n, IN, OUT, false);
            assert_memory_equal(y + at * OUT, alone, sizeof(alone));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_are_right_for_every_shape),
        cmocka_unit_test(test_bits_of_a_row_do_not_depend_on_the_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
