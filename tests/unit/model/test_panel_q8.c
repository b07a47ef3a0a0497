#include "model/panel_q8.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/rng.h"

static const size_t shapes[][3] = {{1, 1, 1},    {1, 31, 3},   {2, 32, 16},   {3, 33, 17},
                                   {5, 64, 80},  {8, 288, 40}, {11, 172, 64}, {17, 96, 33},
                                   {64, 40, 16}, {4, 768, 50}};

static void fill(real *x, size_t n, uint32_t which)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (real)rng_normal(3, RNG_TEST, which, 0, (uint32_t)i) *
               (real)(i % 97 == 5 ? 20 : 1); /* outliers, as activations have */
}

struct product {
    size_t n, in, out;
    real *x, *w, *y;
    unsigned char *packed;
    void *memory;
    struct panel_q8_rows rows;
};

static void product_init(struct product *p, const size_t *shape)
{
    *p = (struct product){.n = shape[0], .in = shape[1], .out = shape[2]};
    p->x = mem_alloc(p->n * p->in * sizeof(real));
    p->w = mem_alloc(p->out * p->in * sizeof(real));
    p->y = mem_alloc(p->n * (p->out + 1) * sizeof(real));
    p->packed = aligned_alloc(64, panel_q8_bytes(p->in, p->out));
    p->memory = aligned_alloc(64, panel_q8_rows_bytes(p->n, p->in));
    p->rows = panel_q8_rows_at(p->memory, p->n, p->in);
    fill(p->x, p->n * p->in, 1);
    fill(p->w, p->out * p->in, 2);
    panel_q8_clear(p->packed, p->in, p->out);
    panel_q8_pack(p->w, p->out / 2, p->in, 0, p->packed); /* in two pieces, as q, k and v are */
    panel_q8_pack(p->w + p->out / 2 * p->in, p->out - p->out / 2, p->in, p->out / 2, p->packed);
    panel_q8_rows_fill(&p->rows, p->x, p->in, p->n, p->in);
}

static void product_fini(struct product *p)
{
    free(p->x);
    free(p->w);
    free(p->y);
    free(p->packed);
    free(p->memory);
}

static double block_largest(const real *x, size_t from, size_t end)
{
    double most = 0;

    for (size_t i = from; i < end; i++)
        most = fmax(most, fabs((double)x[i]));
    return most;
}

/* What rounding both factors can change of one output: a code is off by half a step at most. */
static double error_bound(const struct product *p, size_t r, size_t o)
{
    double bound = 1e-5;

    for (size_t b = 0; b < p->in; b += PANEL_Q8_BLOCK) {
        size_t end = b + PANEL_Q8_BLOCK < p->in ? b + PANEL_Q8_BLOCK : p->in;
        double x = block_largest(p->x + r * p->in, b, end);
        double w = block_largest(p->w + o * p->in, b, end);
        bound += (double)(end - b) * x * w * (0.51 / 127 + 0.51 * 1.01 / 127);
    }
    return bound;
}

static void test_products_are_near_for_every_shape_and_kernel(void **state)
{
    const char *name[PANEL_Q8_KERNELS_MAX];
    panel_q8_fn fn[PANEL_Q8_KERNELS_MAX];
    size_t kernels = panel_q8_kernels(name, fn);

    (void)state;
    assert_string_equal(name[kernels - 1], "plain");
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        struct product p;
        product_init(&p, shapes[s]);
        for (size_t i = 0; i < 2 * kernels; i++) {
            bool add = i % 2 != 0;
            for (size_t k = 0; k < p.n * (p.out + 1); k++)
                p.y[k] = (real)0.5;
            fn[i / 2](&p.rows, p.packed, p.y, p.out + 1, NULL, p.n, p.in, p.out, add, 0,
                      panel_q8_panels(p.out));
            for (size_t r = 0; r < p.n; r++) {
                for (size_t o = 0; o < p.out; o++) {
                    double want = add ? 0.5 : 0.0;
                    for (size_t k = 0; k < p.in; k++)
                        want += (double)p.x[r * p.in + k] * (double)p.w[o * p.in + k];
                    assert_true(fabs((double)p.y[r * (p.out + 1) + o] - want) <
                                error_bound(&p, r, o));
                }
                assert_true(p.y[r * (p.out + 1) + p.out] == (real)0.5); /* nothing beyond */
            }
        }
        product_fini(&p);
    }
}

/* Bits depend neither on the kernel, nor on the number of rows, nor on who computes which panels. */
static void test_kernels_rows_and_parts_give_equal_bits(void **state)
{
    const char *name[PANEL_Q8_KERNELS_MAX];
    panel_q8_fn fn[PANEL_Q8_KERNELS_MAX];
    size_t kernels = panel_q8_kernels(name, fn);

    (void)state;
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        struct product p;
        size_t panels, row;
        real *want;
        product_init(&p, shapes[s]);
        panels = panel_q8_panels(p.out);
        row = p.out + 1;
        want = mem_zalloc(p.n * row, sizeof(real));
        fn[kernels - 1](&p.rows, p.packed, want, row, NULL, p.n, p.in, p.out, false, 0, panels);
        for (size_t i = 0; i < kernels; i++) {
            memset(p.y, 0, p.n * row * sizeof(real));
            fn[i](&p.rows, p.packed, p.y, row, NULL, p.n, p.in, p.out, false, panels / 3, panels);
            fn[i](&p.rows, p.packed, p.y, row, NULL, p.n, p.in, p.out, false, 0, panels / 3);
            assert_memory_equal(p.y, want, p.n * row * sizeof(real));
        }
        for (size_t r = 0; r < p.n; r++) { /* each row alone */
            panel_q8_rows_fill(&p.rows, p.x + r * p.in, p.in, 1, p.in);
            memset(p.y, 0, row * sizeof(real));
            panel_q8_linear(&p.rows, p.packed, p.y, row, NULL, 1, p.in, p.out, false, 0, panels);
            assert_memory_equal(p.y, want + r * row, row * sizeof(real));
        }
        free(want);
        product_fini(&p);
    }
}

static void test_what_is_not_finite_shows_and_zero_is_zero(void **state)
{
    static const float bad[] = {(float)NAN, (float)INFINITY, -(float)INFINITY};
    static const size_t shape[3] = {2, 64, 20};
    struct product p;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        product_init(&p, shape);
        p.x[64 + 40] = (real)bad[i]; /* row 1 only */
        panel_q8_rows_fill(&p.rows, p.x, p.in, p.n, p.in);
        panel_q8_linear(&p.rows, p.packed, p.y, 20, NULL, 2, 64, 20, false, 0, 2);
        for (size_t o = 0; o < 20; o++)
            assert_true(isfinite(p.y[o]) && isnan(p.y[20 + o]));
        p.w[3 * 64 + 7] = (real)bad[i]; /* output 3 only */
        panel_q8_pack(p.w, 20, 64, 0, p.packed);
        panel_q8_linear(&p.rows, p.packed, p.y, 20, NULL, 1, 64, 20, false, 0, 2);
        for (size_t o = 0; o < 20; o++)
            assert_int_equal(isnan(p.y[o]) != 0, o == 3);
        product_fini(&p);
    }
    product_init(&p, shape);
    memset(p.w, 0, 20 * 64 * sizeof(real));
    p.w[5] = (real)1e-38; /* below what a scale can say */
    panel_q8_pack(p.w, 20, 64, 0, p.packed);
    panel_q8_linear(&p.rows, p.packed, p.y, 20, NULL, 2, 64, 20, false, 0, 2);
    for (size_t i = 0; i < 40; i++)
        assert_true(p.y[i] == 0);
    product_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_are_near_for_every_shape_and_kernel),
        cmocka_unit_test(test_kernels_rows_and_parts_give_equal_bits),
        cmocka_unit_test(test_what_is_not_finite_shows_and_zero_is_zero),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
