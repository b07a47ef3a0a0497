/*
 * The gradient of whole tiny models against central differences, in the double build: both heads, tied and untied,
 * grouped queries, packed sequences, class ranges, odd sizes (no dimension a multiple of a vector).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "tests/unit/model/model_fixture.h"

static double loss_of(const struct dims *d, const real *params, const struct batch *b,
                      struct workspace *w)
{
    struct loss_out out;

    transformer_train(d, params, b, NULL, NULL, w, &out);
    return out.loss_sum;
}

/* Every element of small tensors, some of large ones; error relative to the gradient's own size per tensor. */
static void gradient_check(const struct dims *d, const struct batch *b)
{
    struct workspace *w = workspace_new(d, b->rows, b->seqs, b->targets);
    real *params = fixture_params(d, 3), *grad = fixture_reals(dims_params(d));
    struct loss_out out;
    struct layout l;
    double worst = 0.0;

    layout_init(&l, d);
    transformer_train(d, params, b, grad, NULL, w, &out);
    assert_true(out.loss_sum > 0.0);
    assert_true(fabs(out.loss_sum - loss_of(d, params, b, w)) <= 1e-12 * out.loss_sum);
    for (int32_t t = 0; t < l.tensors; t++) {
        size_t n = tensor_count(&l.tensor[t]), stride = n / 40 + 1;
        double diff = 0.0, size = 0.0;

        for (size_t i = 0; i < n; i += stride) {
            real *p = &params[l.tensor[t].begin + i], was = *p;
            double h = 1e-5, up, down, numeric, exact = grad[l.tensor[t].begin + i];

            *p = was + h;
            up = loss_of(d, params, b, w);
            *p = was - h;
            down = loss_of(d, params, b, w);
            *p = was;
            numeric = (up - down) / (2.0 * h);
            diff = fmax(diff, fabs(numeric - exact));
            size = fmax(size, fabs(exact));
        }
        if (diff > 1e-6 * size)
            print_error("%s: error %g of %g\n", l.tensor[t].name, diff, size);
        assert_true(size > 0.0);
        assert_true(diff <= 1e-6 * size);
        worst = fmax(worst, diff / size);
    }
    printf("worst relative error %.2g\n", worst);
    layout_fini(&l);
    workspace_free(w);
    free(params);
    free(grad);
}

static const struct dims tied = {.vocab = 23,
                                 .width = 24,
                                 .layers = 2,
                                 .heads = 4,
                                 .kv_heads = 2,
                                 .head_dim = 6,
                                 .ffn = 19,
                                 .context = 32,
                                 .norm_eps = 1e-5f,
                                 .rope_theta = 100.0f,
                                 .tied = true};

static void lm_case(struct dims d)
{
    static const int32_t lengths[] = {7, 1, 18, 3};
    struct batch b;

    fixture_batch(&b, &d, lengths, 4, 1);
    fixture_targets(&b, &d);
    gradient_check(&d, &b);
    batch_fini(&b);
}

static void test_tied_grouped_queries(void **state)
{
    (void)state;
    lm_case(tied);
}

static void test_untied(void **state)
{
    struct dims d = tied;

    (void)state;
    d.tied = false;
    lm_case(d);
}

static void test_head_sizes(void **state)
{
    static const int32_t size[][3] = {{8, 4, 4}, {8, 8, 1}, {64, 2, 1}, {2, 3, 3}, {20, 6, 2}};

    (void)state;
    for (size_t i = 0; i < sizeof size / sizeof size[0]; i++) {
        struct dims d = tied;

        d.head_dim = size[i][0];
        d.heads = size[i][1];
        d.kv_heads = size[i][2];
        lm_case(d);
    }
}

static void test_class_ranges(void **state)
{
    static const int32_t lengths[] = {9, 5};
    struct dims d = tied;
    struct batch b;

    (void)state;
    fixture_batch(&b, &d, lengths, 2, 2);
    for (int32_t i = 0; i < b.rows;
         i += 4) { /* two ranges in turn, two targets on one row, one whole vocabulary */
        fixture_target(&b, i, 12 + i % 3, 11, 15, 1.0f);
        fixture_target(&b, i, 15 + i % 2, 15, 17, 0.5f);
    }
    fixture_target(&b, b.rows - 1, 3, 0, d.vocab, 2.0f);
    gradient_check(&d, &b);
    batch_fini(&b);
}

static void test_regression(void **state)
{
    static const int32_t lengths[] = {6, 11};
    struct dims d = tied;
    struct batch b;

    (void)state;
    d.tied = false;
    d.head = HEAD_REGRESSION;
    d.head_out = 3;
    fixture_batch(&b, &d, lengths, 2, 4);
    fixture_targets(&b, &d);
    gradient_check(&d, &b);
    batch_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tied_grouped_queries), cmocka_unit_test(test_untied),
        cmocka_unit_test(test_head_sizes),           cmocka_unit_test(test_class_ranges),
        cmocka_unit_test(test_regression),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
