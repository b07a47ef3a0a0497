/* The three matrix products against plain loops in double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "model/gemm.h"
#include "model/ops.h"
#include "tests/unit/model/model_fixture.h"

static void near(real got, double want, double scale)
{
    if (!(fabs((double)got - want) <= 1e-5 * (1.0 + scale)))
        fail_msg("got %.9g, want %.9g", (double)got, want);
}

static void test_linear(void **state)
{
    enum { N = 5, IN = 9, OUT = 6, LDX = 11, LDY = 8 };
    real *x = fixture_normals(N * LDX, 1, 1.0), *w = fixture_normals(OUT * IN, 2, 1.0),
         *y = fixture_normals(N * LDY, 3, 1.0);
    struct gemm *g = gemm_new(GEMM_F32);
    real *was = fixture_normals(N * LDY, 3, 1.0), *dx = fixture_reals(N * LDX),
         *dw = fixture_normals(OUT * IN, 2, 1.0);

    (void)state;
    assert_true(strlen(model_blas_core()) > 0);
    gemm_linear(g, x, LDX, w, y, LDY, N, IN, OUT, true);
    for (size_t r = 0; r < N; r++)
        for (size_t o = 0; o < LDY; o++) {
            double sum = (double)was[r * LDY + o];

            for (size_t i = 0; i < IN && o < OUT; i++)
                sum += (double)x[r * LDX + i] * (double)w[o * IN + i];
            near(y[r * LDY + o], sum, 10.0);
        }
    gemm_linear(g, x, LDX, w, was, LDY, N, IN, OUT, false);
    near(was[0], (double)ops_dot(x, w, IN), 10.0);
    gemm_linear_dx(g, y, LDY, w, dx, LDX, N, IN, OUT, false);
    gemm_linear_dx(g, y, LDY, w, dx, LDX, N, IN, OUT, true);
    gemm_linear_dw(g, y, LDY, x, LDX, dw, N, IN, OUT);
    for (size_t i = 0; i < IN; i++) {
        double sum = 0.0, sum_w = (double)w[2 * IN + i];

        for (size_t o = 0; o < OUT; o++)
            sum += 2.0 * (double)y[3 * LDY + o] * (double)w[o * IN + i];
        for (size_t r = 0; r < N; r++)
            sum_w += (double)y[r * LDY + 2] * (double)x[r * LDX + i];
        near(dx[3 * LDX + i], sum, 50.0);
        near(dw[2 * IN + i], sum_w, 50.0);
    }
    assert_true(dx[3 * LDX + IN] == 0);
    free(x), free(w), free(y), free(was), free(dx), free(dw);
    gemm_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
