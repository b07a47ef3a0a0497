/*
 * The three matrix products of every core against plain loops in double, over sizes around the cores' panels and blocks
 * and rows with a stride; what lies between the rows stays; and the bits that gemm.h promises.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "model/gemm.h"
#include "model/gemm_core.h"
#include "tests/unit/model/model_fixture.h"

#define PAD 3 /* elements between rows */
#define CORES 2

enum { FORWARD, INPUT, WEIGHT, OPS };

struct shape {
    size_t n, in, out;
};

static const struct shape shapes[] = {
    {1, 1, 1},       {1, 9, 6},      {2, 17, 33},    {5, 31, 14},    {6, 16, 16},  {13, 32, 64},
    {14, 384, 32},   {15, 385, 31},  {29, 64, 172},  {41, 383, 47},  {1, 769, 70}, {70, 3, 97},
    {390, 15, 18},   {769, 5, 33},   {28, 40, 1100}, {17, 900, 480}, {33, 96, 450},
    {1100, 20, 600}, {1070, 390, 66}, {3, 72, 5000},
};

static struct gemm *core_new(int core)
{
    const struct gemm_core *wide = gemm_core_avx512();

    if (core == 0)
        return gemm_new_on(GEMM_F32, &gemm_core_plain);
    return wide == NULL ? NULL : gemm_new_on(GEMM_F32, wide);
}

struct operands {
    struct shape s;
    size_t ldx, ldy;
    real *x, *w, *y;
};

static struct operands operands_new(struct shape s)
{
    struct operands o = {.s = s, .ldx = s.in + PAD, .ldy = s.out + PAD};

    o.x = fixture_normals(s.n * o.ldx, 1, 1.0);
    o.w = fixture_normals(s.in * s.out, 2, 1.0);
    o.y = fixture_normals(s.n * o.ldy, 3, 1.0);
    return o;
}

static void operands_free(struct operands *o)
{
    free(o->x), free(o->w), free(o->y);
}

/* Runs one product on a copy of the operand that it changes; gives the copy and its length. */
static real *product(const struct gemm *g, const struct operands *o, int op, bool add,
                     size_t *count)
{
    const struct shape *s = &o->s;
    const real *from = op == FORWARD ? o->y : op == INPUT ? o->x : o->w;
    real *to;

    *count = op == FORWARD ? s->n * o->ldy : op == INPUT ? s->n * o->ldx : s->in * s->out;
    to = fixture_reals(*count);
    memcpy(to, from, *count * sizeof *to);
    if (op == FORWARD)
        gemm_linear(g, o->x, o->ldx, o->w, to, o->ldy, s->n, s->in, s->out, add);
    else if (op == INPUT)
        gemm_linear_dx(g, o->y, o->ldy, o->w, to, o->ldx, s->n, s->in, s->out, add);
    else
        gemm_linear_dw(g, o->y, o->ldy, o->x, o->ldx, to, s->n, s->in, s->out);
    return to;
}

static double expected(const struct operands *o, int op, size_t r, size_t c, double *size)
{
    const struct shape *s = &o->s;
    size_t k = op == FORWARD ? s->in : op == INPUT ? s->out : s->n;
    double sum = 0.0;

    *size = 0.0;
    for (size_t p = 0; p < k; p++) {
        double a = (double)(op == FORWARD ? o->x[r * o->ldx + p]
                            : op == INPUT ? o->y[r * o->ldy + p]
                                          : o->y[p * o->ldy + r]);
        double b = (double)(op == FORWARD ? o->w[c * s->in + p]
                            : op == INPUT ? o->w[p * s->in + c]
                                          : o->x[p * o->ldx + c]);

        sum += a * b;
        *size += fabs(a * b);
    }
    return sum;
}

static void product_check(const struct gemm *g, const struct operands *o, int op, bool add)
{
    const struct shape *s = &o->s;
    const real *was = op == FORWARD ? o->y : op == INPUT ? o->x : o->w;
    size_t rows = op == WEIGHT ? s->out : s->n, cols = op == FORWARD ? s->out : s->in;
    size_t ld = op == FORWARD ? o->ldy : op == INPUT ? o->ldx : s->in, count;
    real *got = product(g, o, op, add, &count);

    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < ld; c++) {
            double size, want, before = (double)was[r * ld + c];

            if (c >= cols) { /* between rows */
                assert_true(got[r * ld + c] == was[r * ld + c]);
                continue;
            }
            if ((r * 31 + c * 7) % 5 != 0 && count > 4000)
                continue; /* a fifth of a large one */
            want = expected(o, op, r, c, &size) + (add || op == WEIGHT ? before : 0.0);
            if (!(fabs((double)got[r * ld + c] - want) <= 3e-7 * (size + fabs(before) + 1.0)))
                fail_msg("product %d of %zu x %zu x %zu at %zu, %zu: %.9g, want %.9g", op, s->n,
                         s->in, s->out, r, c, (double)got[r * ld + c], want);
        }
    free(got);
}

static void test_products_are_what_loops_say(void **state)
{
    (void)state;
    for (int core = 0; core < CORES; core++) {
        struct gemm *g = core_new(core);

        for (size_t i = 0; g != NULL && i < sizeof shapes / sizeof shapes[0]; i++) {
            struct operands o = operands_new(shapes[i]);

            for (int op = 0; op < OPS; op++)
                for (int add = 0; add < 2; add++)
                    product_check(g, &o, op, add != 0);
            operands_free(&o);
        }
        gemm_free(g);
    }
}


static void test_cores_give_the_same_bits(void **state)
{
    struct gemm *g[CORES] = {core_new(0), core_new(1)};

    (void)state;
    if (g[1] == NULL) {
        gemm_free(g[0]);
        print_message("skipped: this machine has no AVX-512\n");
        skip();
    }
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct operands o = operands_new(shapes[i]);

        for (int op = 0; op < OPS; op++)
            for (int add = 0; add < 2; add++) {
                size_t count;
                real *a = product(g[0], &o, op, add != 0, &count),
                     *b = product(g[1], &o, op, add != 0, &count);

                assert_memory_equal(a, b, count * sizeof *a);
                free(a), free(b);
            }
        operands_free(&o);
    }
    gemm_free(g[0]);
    gemm_free(g[1]);
}

/* Each row of x by itself, and columns in two halves: bits depend on k alone. */
static void test_rows_and_columns_do_not_see_each_other(void **state)
{
    const struct shape s = {45, 777, 75};
    struct operands o = operands_new(s);

    (void)state;
    for (int core = 0; core < CORES; core++) {
        struct gemm *g = core_new(core);
        real *one = fixture_reals(s.in + s.out), *all;
        size_t count;

        if (g == NULL)
            continue;
        all = product(g, &o, FORWARD, false, &count);
        for (size_t r = 0; r < s.n; r++) {
            gemm_linear(g, o.x + r * o.ldx, o.ldx, o.w, one, s.out, 1, s.in, s.out, false);
            assert_memory_equal(one, all + r * o.ldy, s.out * sizeof *one);
            gemm_linear(g, o.x + r * o.ldx, o.ldx, o.w + 40 * s.in, one, s.out, 1, s.in, s.out - 40,
                        false);
            assert_memory_equal(one, all + r * o.ldy + 40, (s.out - 40) * sizeof *one);
        }
        free(all);
        all = product(g, &o, INPUT, false, &count);
        for (size_t r = 0; r < s.n; r++) {
            gemm_linear_dx(g, o.y + r * o.ldy, o.ldy, o.w, one, s.in, 1, s.in, s.out, false);
            assert_memory_equal(one, all + r * o.ldx, s.in * sizeof *one);
        }
        free(all), free(one);
        gemm_free(g);
    }
    operands_free(&o);
}

/* A sum that is not a number stays visible, also beside zeros. */
static void test_what_is_not_a_number_shows(void **state)
{
    const struct shape s = {20, 50, 40};
    struct operands o = operands_new(s);

    (void)state;
    memset(o.w, 0, s.in * s.out * sizeof *o.w);
    o.x[7 * o.ldx + 11] = (real)NAN;
    for (int core = 0; core < CORES; core++) {
        struct gemm *g = core_new(core);
        size_t count;
        real *y;

        if (g == NULL)
            continue;
        y = product(g, &o, FORWARD, false, &count);
        for (size_t r = 0; r < s.n; r++)
            for (size_t c = 0; c < s.out; c++)
                assert_true((isnan(y[r * o.ldy + c]) != 0) == (r == 7));
        free(y);
        gemm_free(g);
    }
    operands_free(&o);
}

static void test_kernels_are_chosen_by_name(void **state)
{
    struct operands o = operands_new((struct shape){33, 96, 45});
    struct gemm *g;

    (void)state;
    assert_false(gemm_kernels_set("fastest"));
    assert_string_equal(gemm_kernels(), gemm_core_best()->name);
    assert_true(gemm_kernels_set("plain"));
    assert_string_equal(gemm_kernels(), "plain");
    assert_true(gemm_kernels_set("openblas"));
    g = gemm_new(GEMM_F32);
    for (int op = 0; op < OPS; op++)
        for (int add = 0; add < 2; add++)
            product_check(g, &o, op, add != 0);
    gemm_free(g);
    assert_true(gemm_kernels_set("own"));
    assert_string_equal(gemm_kernels(), gemm_core_best()->name);
    operands_free(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_are_what_loops_say),
        cmocka_unit_test(test_cores_give_the_same_bits),
        cmocka_unit_test(test_rows_and_columns_do_not_see_each_other),
        cmocka_unit_test(test_what_is_not_a_number_shows),
        cmocka_unit_test(test_kernels_are_chosen_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
