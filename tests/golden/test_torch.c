/* Outputs, losses, every gradient and 20 AdamW steps against PyTorch and transformers (make_torch.py made torch.bin). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/file.h"
#include "model/optim.h"
#include "tests/unit/model/model_fixture.h"

#define GOLDEN "tests/golden/torch.bin"

static struct buf golden;

struct record {
    const char *values; /* float32, unaligned */
    int32_t count;
};

static int32_t word_at(size_t at)
{
    int32_t w;

    assert_true(at + 4 <= golden.len);
    memcpy(&w, golden.data + at, 4);
    return w;
}

static struct record record_find(const char *prefix, const char *part, const char *name)
{
    char *want = mem_printf("%s%s%s", prefix, part, name);
    size_t at = 0;

    while (at < golden.len) {
        size_t len = (size_t)word_at(at), count;
        const char *text = golden.data + at + 4;

        at += 4 + len;
        count = (size_t)word_at(at);
        at += 4;
        assert_true(at + 4 * count <= golden.len);
        if (strlen(want) == len && memcmp(text, want, len) == 0) {
            free(want);
            return (struct record){golden.data + at, (int32_t)count};
        }
        at += 4 * count;
    }
    fail_msg("no record %s in %s", want, GOLDEN);
    return (struct record){NULL, 0};
}

static float value(struct record r, size_t i)
{
    float v;

    assert_true(i < (size_t)r.count);
    memcpy(&v, r.values + 4 * i, 4);
    return v;
}

/* max |a - b| / max |b| must not pass bound. */
static void compare(const char *what, const float *a, struct record b, size_t n, double bound)
{
    double diff = 0.0, size = 0.0;

    assert_int_equal((size_t)b.count, n);
    for (size_t i = 0; i < n; i++) {
        assert_true(isfinite(a[i]));
        diff = fmax(diff, fabs((double)a[i] - (double)value(b, i)));
        size = fmax(size, fabs((double)value(b, i)));
    }
    if (diff > bound * size)
        print_error("%s: differs by %g of %g\n", what, diff, size);
    assert_true(size > 0.0 && diff <= bound * size);
}

struct subject {
    const char *prefix;
    struct dims dims;
    struct layout layout;
    struct batch batch;
    struct workspace *work;
    float *params, *grad;
};

static const int32_t lengths[] = {9, 1, 14, 5};

static void targets_read(struct batch *b, const struct dims *d)
{
    struct record t = record_find("targets", "", ""), rows = record_find("rows", "", ""),
                  scores = record_find("scores", "", "");

    if (d->head == HEAD_LM) {
        for (size_t i = 0; i < (size_t)t.count; i += 5)
            fixture_target(b, (int32_t)value(t, i), (int32_t)value(t, i + 1),
                           (int32_t)value(t, i + 2), (int32_t)value(t, i + 3), value(t, i + 4));
        return;
    }
    for (size_t i = 0; i < (size_t)rows.count; i++) {
        int32_t row = (int32_t)value(rows, i);

        fixture_target(b, row, (int32_t)i, 0, 0, 1.0f + (float)(row % 2));
    }
    for (size_t i = 0; i < (size_t)scores.count; i++)
        b->score[i] = value(scores, i);
}

static void subject_init(struct subject *s, const char *prefix, bool tied, int32_t head_out)
{
    struct record tokens = record_find("tokens", "", "");

    s->prefix = prefix;
    s->dims =
        (struct dims){48,      32, 2,     4,    2,    8,
                      40,      64, 1e-5f, 1e4f, tied, head_out > 0 ? HEAD_REGRESSION : HEAD_LM,
                      head_out};
    layout_init(&s->layout, &s->dims);
    fixture_batch(&s->batch, &s->dims, lengths, 4, 1);
    for (int32_t i = 0; i < s->batch.rows; i++)
        s->batch.token[i] = (int32_t)value(tokens, (size_t)i);
    targets_read(&s->batch, &s->dims);
    s->params = fixture_reals(s->layout.count);
    s->grad = fixture_reals(s->layout.count);
    for (int32_t t = 0; t < s->layout.tensors; t++) {
        struct record r = record_find(prefix, "/param/", s->layout.tensor[t].name);

        assert_int_equal((size_t)r.count, tensor_count(&s->layout.tensor[t]));
        memcpy(s->params + s->layout.tensor[t].begin, r.values, 4 * (size_t)r.count);
    }
    s->work = workspace_new(&s->dims, s->batch.rows, 4, s->batch.rows);
}

static void subject_fini(struct subject *s)
{
    workspace_free(s->work);
    batch_fini(&s->batch);
    layout_fini(&s->layout);
    free(s->params);
    free(s->grad);
}

/* PyTorch gives logits of every row; ours are log-probabilities over [lo, hi) at the targets: compared as such. */
static void outputs_compare(struct subject *s)
{
    const struct batch *b = &s->batch;
    struct record want = record_find(s->prefix, "", "/out");
    size_t stride = 48, k = (size_t)s->dims.head_out;
    float *out = fixture_reals((size_t)b->targets * stride);

    transformer_outputs(&s->dims, s->params, b, out, stride, s->work);
    for (size_t i = 0; i < (size_t)b->targets; i++) {
        const struct batch_target *t = &b->target[i];
        double sum = 0.0, scale = 1.0;

        if (s->dims.head == HEAD_REGRESSION) {
            for (size_t j = 0; j < k; j++)
                assert_true(fabs((double)out[i * stride + j] - (double)value(want, i * k + j)) <=
                            1e-5 * 4.0);
            continue;
        }
        for (int32_t j = t->lo; j < t->hi; j++) {
            double logit = (double)value(want, (size_t)t->row * 48 + (size_t)j);

            sum += exp(logit);
            scale = fmax(scale, fabs(logit));
        }
        for (int32_t j = t->lo; j < t->hi; j++)
            assert_true(fabs((double)out[i * stride + (size_t)(j - t->lo)] + log(sum) -
                             (double)value(want, (size_t)t->row * 48 + (size_t)j)) <= 1e-5 * scale);
    }
    free(out);
}

static void gradients_compare(struct subject *s)
{
    struct record want = record_find(s->prefix, "", "/loss");
    struct loss_out out;

    memset(s->grad, 0, s->layout.count * sizeof *s->grad);
    transformer_train(&s->dims, s->params, &s->batch, s->grad, NULL, s->work, &out);
    assert_true(fabs(out.loss_sum - (double)value(want, 0)) <= 1e-5 * out.loss_sum);
    assert_true(fabs(out.weight_sum - (double)value(want, 1)) <= 1e-6 * out.weight_sum);
    for (int32_t t = 0; t < s->layout.tensors; t++) {
        const struct tensor *x = &s->layout.tensor[t];

        compare(x->name, s->grad + x->begin, record_find(s->prefix, "/grad/", x->name),
                tensor_count(x), 1e-4);
    }
}

static void steps_compare(struct subject *s)
{
    const struct adamw adamw = {0.9f, 0.98f, 1e-6f, 0.1f};
    struct record losses = record_find(s->prefix, "", "/losses");
    float *m = fixture_reals(s->layout.count), *v = fixture_reals(s->layout.count);

    for (size_t step = 1; step <= (size_t)losses.count; step++) {
        struct loss_out out;
        double norm;

        memset(s->grad, 0, s->layout.count * sizeof *s->grad);
        transformer_train(&s->dims, s->params, &s->batch, s->grad, NULL, s->work, &out);
        assert_true(fabs(out.loss_sum / out.weight_sum - (double)value(losses, step - 1)) <= 2e-5);
        norm = sqrt(sum_squares(s->grad, s->layout.count)) / out.weight_sum;
        adamw_step(&adamw, &s->layout, 0, s->layout.count, s->params, m, v, s->grad,
                   (float)(clip_scale(norm, 1.0) / out.weight_sum), 2e-3f, step);
    }
    for (int32_t t = 0; t < s->layout.tensors; t++) {
        const struct tensor *x = &s->layout.tensor[t];

        compare(x->name, s->params + x->begin, record_find(s->prefix, "/after/", x->name),
                tensor_count(x), 1e-4);
    }
    free(m);
    free(v);
}

static void subject_compare(const char *prefix, bool tied, int32_t head_out)
{
    struct subject s;

    subject_init(&s, prefix, tied, head_out);
    outputs_compare(&s);
    gradients_compare(&s);
    steps_compare(&s);
    subject_fini(&s);
}

static void test_tied_model_agrees_with_torch(void **state)
{
    (void)state;
    subject_compare("tied", true, 0);
}

static void test_untied_model_agrees_with_torch(void **state)
{
    (void)state;
    subject_compare("untied", false, 0);
}

static void test_regression_agrees_with_torch(void **state)
{
    (void)state;
    subject_compare("regression", false, 3);
}

static int golden_read(void **state)
{
    struct err e;

    (void)state;
    if (file_read(GOLDEN, 1u << 20, &golden, &e) != 0) {
        print_error("%s\n", e.msg);
        return -1;
    }
    return 0;
}

static int golden_free(void **state)
{
    (void)state;
    buf_free(&golden);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tied_model_agrees_with_torch),
        cmocka_unit_test(test_untied_model_agrees_with_torch),
        cmocka_unit_test(test_regression_agrees_with_torch),
    };

    return cmocka_run_group_tests(tests, golden_read, golden_free);
}
