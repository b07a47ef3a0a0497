/* bfloat16 products: the definition in model/bf16.h element by element, both ways of making them, every orientation. */
#include "model/bf16.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/rng.h"
#include "tests/lib/float_bits.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

static void *work;

static float widened(uint16_t v)
{
    return float_of((uint32_t)v << 16);
}

/* Ordinary numbers, numbers about the smallest normal one, or what is special. */
enum { ORDINARY, TINY, EDGES };

static float value(int what, uint32_t stream, uint32_t i)
{
    static const uint32_t edge[] = {0,          0x80000000, 1,          0x807fffff, 0x00800000,
                                    0x3f800000, 0xbf808000, 0x3f818000, 0x7f7f0000, 0xff7fffff,
                                    0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0x3f80ffff};
    double x = rng_normal(11, RNG_TEST, stream, 0, i);

    if (what == EDGES)
        return float_of(edge[rng_below(11, RNG_TEST, stream, 1, i, sizeof edge / sizeof *edge)]);
    return (float)(what == TINY ? ldexp(x, -63) : x);
}

static float *values(int what, uint32_t stream, size_t n)
{
    float *x = mem_alloc((n + 1) * sizeof *x);

    for (size_t i = 0; i < n; i++)
        x[i] = value(what, stream, (uint32_t)i);
    return x;
}

static float at(const struct bf16_matrix *x, size_t i, size_t k)
{
    return widened(bf16_round(x->k_strided ? x->p[k * x->ld + i] : x->p[i * x->ld + k]));
}

/* One fused multiply-add with subnormal numbers off. */
static float fma_flushed(float a, float b, float c)
{
#ifdef __x86_64__
    __m128 r = _mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c));
    return _mm_cvtss_f32(r);
#else
    return fmaf(a, b, c);
#endif
}

static float by_definition(const struct bf16_matrix *a, const struct bf16_matrix *b, size_t i,
                           size_t j, size_t k, float c)
{
#ifdef __x86_64__
    unsigned saved = _mm_getcsr();

    _mm_setcsr(saved | 0x8040u);
#endif
    for (size_t t = 0; t < k; t += 2) {
        bool pair = t + 1 < k;
        c = fma_flushed(pair ? at(a, i, t + 1) : 0, pair ? at(b, j, t + 1) : 0, c);
        c = fma_flushed(at(a, i, t), at(b, j, t), c);
    }
#ifdef __x86_64__
    _mm_setcsr(saved);
#endif
    return c;
}

static bool same(float a, float b)
{
    return isnan(a) ? isnan(b) : bits_of(a) == bits_of(b);
}

static void test_rounding_is_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(bf16_round(1.0f), 0x3f80);
    assert_int_equal(bf16_round(float_of(0x3f808000)), 0x3f80); /* a tie, to even */
    assert_int_equal(bf16_round(float_of(0x3f818000)), 0x3f82);
    assert_int_equal(bf16_round(float_of(0x3f808001)), 0x3f81);
    assert_int_equal(bf16_round(FLT_MAX), 0x7f80);
    assert_int_equal(bf16_round(float_of(0x807fffff)), 0x8000);
    assert_int_equal(bf16_round(float_of(0xff800000)), 0xff80);
    assert_true(isnan(widened(bf16_round(float_of(0x7f800001)))));
    for (uint32_t i = 0; i < 100000; i++) {
        float x = float_of((uint32_t)rng_below(11, RNG_TEST, 9, 0, i, 0xffffffffu));
        float y = widened(bf16_round(x)), ulp = widened((uint16_t)((bits_of(x) >> 16) + 1)) -
                                                widened((uint16_t)(bits_of(x) >> 16));

        if (isfinite(x) && fabsf(x) >= FLT_MIN && isfinite(ulp) && isfinite(y))
            assert_true(fabsf(y - x) <= 0.5f * fabsf(ulp));
    }
}

static const size_t shapes[][3] = {{1, 1, 1},     {3, 5, 2},       {12, 32, 32},
                                   {13, 33, 31},  {5, 17, 64},     {24, 48, 67},
                                   {97, 40, 129}, {300, 40, 1030}, {9, 70, 513}};

/* a and b of every orientation, with rows longer than they need to be. */
static void product(size_t shape, int orientation, int what, bool add)
{
    size_t m = shapes[shape][0], n = shapes[shape][1], k = shapes[shape][2], ldc = n + 3;
    struct bf16_matrix a = {NULL, (orientation & 1 ? m : k) + 5, (orientation & 1) != 0};
    struct bf16_matrix b = {NULL, (orientation & 2 ? n : k) + 1, (orientation & 2) != 0};
    float *pa = values(what, 1, a.ld * (a.k_strided ? k : m));
    float *pb = values(what, 2, b.ld * (b.k_strided ? k : n));
    float *c = values(what, 3, m * ldc), *was = values(what, 3, m * ldc);

    a.p = pa;
    b.p = pb;
    bf16_gemm(&a, &b, c, ldc, m, n, k, add, work);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < ldc; j++) {
            float old = was[i * ldc + j];
            float want = j < n ? by_definition(&a, &b, i, j, k, add ? old : 0) : old;

            if (!same(c[i * ldc + j], want))
                fail_msg(
                    "%zu x %zu x %zu, orientation %d, values %d: c(%zu, %zu) is %08x, not %08x", m,
                    n, k, orientation, what, i, j, bits_of(c[i * ldc + j]), bits_of(want));
        }
    free(pa), free(pb), free(c), free(was);
}

static void products(enum bf16_how how)
{
    bf16_limit(how);
    if (bf16_how() != how) {
        print_message("skipped: not on this machine: %s\n", bf16_how_name(how));
        bf16_limit(BF16_CPU);
        skip();
    }
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int orientation = 0; orientation < 4; orientation++)
            for (int what = ORDINARY; what <= EDGES; what++)
                product(s, orientation, what, (s + (size_t)orientation) % 2 != 0);
    bf16_limit(BF16_CPU);
}

static void test_the_cpu_keeps_to_the_definition(void **state)
{
    (void)state;
    products(BF16_CPU);
}

static void test_software_keeps_to_the_definition(void **state)
{
    (void)state;
    products(BF16_SOFTWARE);
}

/* Against exact products: the error of k roundings that are as often up as down. */
static void test_sums_are_those_of_fp32(void **state)
{
    enum { M = 40, N = 96, K = 2000 };
    float *pa = values(ORDINARY, 4, M * K), *pb = values(ORDINARY, 5, N * K);
    float *c = values(ORDINARY, 6, M * N);
    struct bf16_matrix a = {pa, K, false}, b = {pb, K, false};
    double worst = 0.0;

    (void)state;
    bf16_gemm(&a, &b, c, N, M, N, K, false, work);
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < N; j++) {
            double sum = 0.0, size = 0.0, error;

            for (size_t k = 0; k < K; k++) {
                sum += (double)at(&a, i, k) * (double)at(&b, j, k);
                size += pow((double)at(&a, i, k) * (double)at(&b, j, k), 2);
            }
            /* partial sums grow like sqrt(k), and each step rounds by at most half an ulp of one */
            error = fabs((double)c[i * N + j] - sum) / (sqrt(size) * sqrt(K) * 0x1p-24);
            worst = error > worst ? error : worst;
        }
    print_message("largest error: %.2f of sqrt(K) half ulps\n", worst);
    assert_true(worst < 3.0 && worst > 0.05);
    free(pa), free(pb), free(c);
}

/* A row gives the same bits alone, and at any place among any number of others; so does a column. */
static void test_bits_do_not_depend_on_the_other_rows(void **state)
{
    enum { M = 1300, N = 70, K = 600 };
    static const size_t some[] = {0, 11, 12, 239, 240, 700, 1299};
    float *pa = values(ORDINARY, 7, M * K), *pb = values(ORDINARY, 8, N * K);
    float *c = values(ORDINARY, 9, M * N), one[N];

    (void)state;
    for (int orientation = 0; orientation < 4; orientation++) {
        struct bf16_matrix a = {pa, orientation & 1 ? M : K, (orientation & 1) != 0};
        struct bf16_matrix b = {pb, orientation & 2 ? N : K, (orientation & 2) != 0};

        bf16_gemm(&a, &b, c, N, M, N, K, false, work);
        for (size_t s = 0; s < sizeof some / sizeof *some; s++) {
            struct bf16_matrix row = a, column = b;

            row.p += some[s] * (a.k_strided ? 1 : K);
            bf16_gemm(&row, &b, one, N, 1, N, K, false, work);
            assert_memory_equal(one, c + some[s] * N, sizeof one);
            column.p += 33 * (b.k_strided ? 1 : K);
            bf16_gemm(&row, &column, one, 1, 1, 1, K, false, work);
            assert_int_equal(bits_of(one[0]), bits_of(c[some[s] * N + 33]));
        }
    }
    free(pa), free(pb), free(c);
}

static void test_nothing_is_a_product_too(void **state)
{
    float a[4] = {1, 2, 3, 4}, c[2] = {5, 6};
    struct bf16_matrix x = {a, 2, false};

    (void)state;
    bf16_gemm(&x, &x, c, 2, 1, 2, 0, true, work);
    assert_true(c[0] == 5 && c[1] == 6);
    bf16_gemm(&x, &x, c, 2, 0, 2, 2, false, work);
    assert_true(c[0] == 5 && c[1] == 6);
    bf16_gemm(&x, &x, c, 2, 1, 2, 0, false, work);
    assert_true(c[0] == 0 && c[1] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounding_is_to_nearest_even),
        cmocka_unit_test(test_the_cpu_keeps_to_the_definition),
        cmocka_unit_test(test_software_keeps_to_the_definition),
        cmocka_unit_test(test_sums_are_those_of_fp32),
        cmocka_unit_test(test_bits_do_not_depend_on_the_other_rows),
        cmocka_unit_test(test_nothing_is_a_product_too),
    };

    if (bf16_how() == BF16_NONE) {
        print_message("this machine makes no bfloat16 products\n");
        return 0;
    }
    work = aligned_alloc(BF16_ALIGN, bf16_work_bytes());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
