/*
 * What linear promises beside gemm: any team and any parts give the bits of one thread and of one part after the other; the
 * rows that are kept are each part's own. Shapes that divide into nothing evenly.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/bf16.h"
#include "model/linear.h"
#include "tests/unit/model/model_fixture.h"

enum { N = 37, IN = 421, OUT = 509, KEPT = 3 };

static void products_case(enum gemm_kind kind, int threads)
{
    struct team *team = team_new(threads);
    struct linear *many = linear_new(kind, team, 0);
    struct gemm *one = gemm_new(kind);
    real *x = fixture_normals(N * IN, 1, 1.0), *w = fixture_normals(OUT * IN, 2, 1.0);
    real *y[2] = {fixture_normals(N * OUT, 3, 1.0), fixture_normals(N * OUT, 3, 1.0)};
    real *dx[2] = {fixture_reals(N * IN), fixture_reals(N * IN)};

    for (int add = 0; add < 2; add++) {
        linear_forward(many, x, IN, w, y[0], OUT, N, IN, OUT, add);
        gemm_linear(one, x, IN, w, y[1], OUT, N, IN, OUT, add);
        assert_memory_equal(y[0], y[1], N * OUT * sizeof(real));
        linear_dx(many, y[0], OUT, w, dx[0], IN, N, IN, OUT, add);
        gemm_linear_dx(one, y[1], OUT, w, dx[1], IN, N, IN, OUT, add);
        assert_memory_equal(dx[0], dx[1], N * IN * sizeof(real));
    }
    for (int i = 0; i < 2; i++) {
        free(y[i]);
        free(dx[i]);
    }
    free(x);
    free(w);
    gemm_free(one);
    linear_free(many);
    team_free(team);
}

static void test_a_team_gives_the_bits_of_one_thread(void **state)
{
    (void)state;
    for (int kind = GEMM_F32; kind <= (bf16_how() != BF16_NONE ? GEMM_BF16 : GEMM_F32); kind++)
        for (int threads = 1; threads <= 4; threads++)
            products_case((enum gemm_kind)kind, threads);
}

/* The parts' gradients alone, then level by level. */
static void tree_add(real *each, uint32_t parts)
{
    size_t n = (size_t)OUT * IN;

    for (uint32_t step = 1; step < parts; step *= 2)
        for (uint32_t i = 0; i + step < parts; i += 2 * step)
            for (size_t j = 0; j < n; j++)
                each[i * n + j] += each[(i + step) * n + j];
}

static void parts_case(enum gemm_kind kind, int threads, uint32_t parts)
{
    static const int32_t row[KEPT] = {0, 240, OUT - 1};
    struct team *team = team_new(threads);
    struct linear *many = linear_new(kind, team, 0);
    struct gemm *one = gemm_new(kind);
    size_t n = (size_t)OUT * IN;
    real *dy = fixture_normals(N * OUT, 1, 1.0), *x = fixture_normals(N * IN, 2, 1.0);
    real *each = fixture_reals(parts * n), *sum = fixture_reals(n);
    real *kept = fixture_reals((size_t)parts * KEPT * IN);
    const struct linear_keep keep = {row, KEPT, 0, kept};
    struct parts p = {.n = parts};

    for (uint32_t i = 1; i <= parts; i++)
        p.begin[i] = i == parts ? N : i == 3 ? p.begin[2] : i * N / parts; /* one is empty */
    for (uint32_t i = 0; i < parts; i++)
        if (p.begin[i] < p.begin[i + 1])
            gemm_linear_dw(one, dy + p.begin[i] * OUT, OUT, x + p.begin[i] * IN, IN, each + i * n,
                           p.begin[i + 1] - p.begin[i], IN, OUT);
    memset(sum, 0x7f, n * sizeof *sum);
    linear_dw(many, dy, OUT, x, IN, sum, &p, IN, OUT, true, parts > 1 ? &keep : NULL);
    for (uint32_t i = 0; parts > 1 && i < parts; i++)
        for (int k = 0; k < KEPT; k++)
            for (size_t j = 0; j < IN; j++)
                assert_true(kept[(i * KEPT + (size_t)k) * IN + j] ==
                            each[i * n + (size_t)row[k] * IN + j]);
    tree_add(each, parts);
    for (size_t i = 0; i < n; i++) /* 0 and -0 are equal */
        assert_true(sum[i] == each[i]);
    free(dy);
    free(x);
    free(each);
    free(sum);
    free(kept);
    gemm_free(one);
    linear_free(many);
    team_free(team);
}

static void test_gradients_of_parts_are_added_along_the_tree(void **state)
{
    (void)state;
    for (int kind = GEMM_F32; kind <= (bf16_how() != BF16_NONE ? GEMM_BF16 : GEMM_F32); kind++)
        for (uint32_t parts = 1; parts <= PARTS_MAX; parts++)
            parts_case((enum gemm_kind)kind, 1 + (int)(parts % 3), parts);
}

static void test_shares_cover_everything_once(void **state)
{
    (void)state;
    for (size_t n = 0; n < 200; n += 7)
        for (size_t parts = 1; parts < 9; parts++) {
            size_t at = 0, begin, end;

            for (size_t i = 0; i < parts; i++) {
                linear_share(n, 32, i, parts, &begin, &end);
                assert_int_equal(begin, at);
                assert_true(begin % 32 == 0 || begin == n);
                at = end;
            }
            assert_int_equal(at, n);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_team_gives_the_bits_of_one_thread),
        cmocka_unit_test(test_gradients_of_parts_are_added_along_the_tree),
        cmocka_unit_test(test_shares_cover_everything_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
