/*
 * Each operation's backward against central differences of a fixed random projection of its output, in the double build.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "model/attn.h"
#include "model/gemm.h"
#include "model/ops.h"
#include "tests/unit/model/model_fixture.h"

/* d(projection of forward)/d(x[i]) for every i against grad[i], which began as `before`. */
static void check(void (*forward)(void *self, real *out), void *self, const real *top, size_t outs,
                  real *x, const real *grad, const real *before, size_t n)
{
    real *out = fixture_reals(outs);
    double diff = 0.0, size = 0.0;

    for (size_t i = 0; i < n; i++) {
        real was = x[i], h = 1e-5;
        double up, down, exact = grad[i] - before[i];

        x[i] = was + h;
        forward(self, out);
        up = ops_dot(out, top, outs);
        x[i] = was - h;
        forward(self, out);
        down = ops_dot(out, top, outs);
        x[i] = was;
        diff = fmax(diff, fabs((up - down) / (2.0 * h) - exact));
        size = fmax(size, fabs(exact));
    }
    if (!(size > 0.0 && diff <= 1e-6 * size))
        fail_msg("error %g of %g", diff, size);
    free(out);
}

enum { N = 5, C = 11, O = 7, OPS_MAX = N * 2 * C };

static struct gemm *gemm;

struct linear {
    real *x, *w;
};

static void linear_run(void *self, real *out)
{
    struct linear *l = self;

    gemm_linear(gemm, l->x, C, l->w, out, O, N, C, O, false);
}

static void test_linear(void **state)
{
    struct linear l = {fixture_normals(N * C, 1, 1.0), fixture_normals(O * C, 2, 1.0)};
    real *top = fixture_normals(N * O, 3, 1.0), *dx = fixture_normals(N * C, 4, 1.0),
         *dw = fixture_normals(O * C, 5, 1.0);
    real *dx0 = fixture_normals(N * C, 4, 1.0), *dw0 = fixture_normals(O * C, 5, 1.0);

    (void)state;
    gemm = gemm_new(GEMM_F32);
    gemm_linear_dx(gemm, top, O, l.w, dx, C, N, C, O, true);
    gemm_linear_dw(gemm, top, O, l.x, C, dw, N, C, O);
    check(linear_run, &l, top, N * O, l.x, dx, dx0, N * C);
    check(linear_run, &l, top, N * O, l.w, dw, dw0, O * C);
    free(l.x), free(l.w), free(top), free(dx), free(dw), free(dx0), free(dw0);
    gemm_free(gemm);
}

static void norm_run(void *self, real *out)
{
    struct linear *l = self;

    ops_rmsnorm(l->x, l->w, out, NULL, N, C, 1e-5);
}

static void test_rmsnorm(void **state)
{
    struct linear l = {fixture_normals(N * C, 1, 1.0), fixture_normals(C, 2, 1.0)};
    real *top = fixture_normals(N * C, 3, 1.0), *dx = fixture_normals(N * C, 4, 1.0),
         *dw = fixture_normals(C, 5, 1.0);
    real *dx0 = fixture_normals(N * C, 4, 1.0), *dw0 = fixture_normals(C, 5, 1.0), y[N * C], inv[N];

    (void)state;
    ops_rmsnorm(l.x, l.w, y, inv, N, C, 1e-5);
    ops_rmsnorm_backward(top, l.x, l.w, inv, dx, dw, N, C);
    check(norm_run, &l, top, N * C, l.x, dx, dx0, N * C);
    check(norm_run, &l, top, N * C, l.w, dw, dw0, C);
    free(l.x), free(l.w), free(top), free(dx), free(dw), free(dx0), free(dw0);
}

static void swiglu_run(void *self, real *out)
{
    struct linear *l = self;

    ops_swiglu(l->x, out, N, C);
}

static void test_swiglu(void **state)
{
    struct linear l = {fixture_normals(N * 2 * C, 1, 2.0), NULL};
    real *top = fixture_normals(N * C, 3, 1.0), dgu[OPS_MAX], zero[OPS_MAX] = {0};

    (void)state;
    memcpy(dgu, l.x, sizeof dgu); /* in place, as the layer does it */
    ops_swiglu_backward(top, dgu, dgu, N, C);
    check(swiglu_run, &l, top, N * C, l.x, dgu, zero, N * 2 * C);
    free(l.x), free(top);
}

enum { D = 6, HEADS = 2 };
static real rope_table[20 * D];
static const int32_t rope_pos[N] = {0, 1, 2, 10, 19};

static void rope_run(void *self, real *out)
{
    struct linear *l = self;

    memcpy(out, l->x, N * HEADS * D * sizeof *out);
    ops_rope(out, HEADS * D, rope_table, rope_pos, N, HEADS, D);
}

static void test_rope(void **state)
{
    struct linear l = {fixture_normals(N * HEADS * D, 1, 1.0), NULL};
    real *top = fixture_normals(N * HEADS * D, 3, 1.0), dx[N * HEADS * D],
         zero[N * HEADS * D] = {0};

    (void)state;
    ops_rope_table(rope_table, 20, D, 50.0);
    memcpy(dx, top, sizeof dx);
    ops_rope_backward(dx, HEADS * D, rope_table, rope_pos, N, HEADS, D);
    check(rope_run, &l, top, N * HEADS * D, l.x, dx, zero, N * HEADS * D);
    free(l.x), free(top);
}

static void embed_run(void *self, real *out)
{
    static const int32_t token[N] = {1, 0, 1, 3, 3};
    struct linear *l = self;

    ops_embed(l->w, token, out, N, C);
}

static void test_embedding(void **state)
{
    static const int32_t token[N] = {1, 0, 1, 3, 3};
    struct linear l = {NULL, fixture_normals(4 * C, 1, 1.0)};
    real *top = fixture_normals(N * C, 3, 1.0), *demb = fixture_normals(4 * C, 5, 1.0),
         *demb0 = fixture_normals(4 * C, 5, 1.0);

    (void)state;
    ops_embed_backward(top, token, demb, N, C);
    check(embed_run, &l, top, N * C, l.w, demb, demb0, 4 * C);
    free(l.w), free(top), free(demb), free(demb0);
}

struct attention {
    struct attn_shape shape;
    struct attn_rows rows;
    real *qkv, *lse, *scratch;
};

static void attention_run(void *self, real *out)
{
    struct attention *a = self;

    attn_forward(&a->shape, &a->rows, a->qkv, out, a->lse, a->scratch);
}

static void test_attention(void **state)
{
    static const struct attn_shape shapes[] = {{1, 1, 8}, {4, 2, 8},  {3, 3, 6},
                                               {6, 2, 2}, {2, 1, 64}, {2, 2, 20}};
    static const int32_t seq_begin[] = {0, 1, 1, 19, 26};
    const size_t rows = 26;

    (void)state;
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        struct attention a = {.shape = shapes[k], .rows = {seq_begin, 4, NULL}};
        size_t outs = rows * a.shape.heads * a.shape.head_dim;
        size_t ins = rows * (a.shape.heads + 2 * a.shape.kv_heads) * a.shape.head_dim;
        real *out = fixture_reals(outs), *top = fixture_normals(outs, 3, 1.0),
             *dqkv = fixture_normals(ins, 9, 1.0);
        real *zero = fixture_reals(ins);

        a.qkv = fixture_normals(ins, 1, 1.0);
        a.lse = fixture_reals(rows * a.shape.heads);
        a.scratch = fixture_reals(attn_scratch(&a.shape, rows));
        attn_forward(&a.shape, &a.rows, a.qkv, out, a.lse, a.scratch);
        attn_backward(&a.shape, &a.rows, a.qkv, out, a.lse, top, dqkv, a.scratch);
        check(attention_run, &a, top, outs, a.qkv, dqkv, zero, ins);
        free(out), free(top), free(dqkv), free(zero), free(a.qkv), free(a.lse), free(a.scratch);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),    cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_swiglu),    cmocka_unit_test(test_rope),
        cmocka_unit_test(test_embedding), cmocka_unit_test(test_attention),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
