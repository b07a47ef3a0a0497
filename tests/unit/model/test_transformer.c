/*
 * What the whole promises: packing changes nothing, rows without a target cost and change nothing, equal inputs give
 * equal bits, gradients are added, the sink hears every element once, losses and outputs agree with training.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "model/bf16.h"
#include "tests/unit/model/model_fixture.h"

static const struct dims tied = {64, 32, 3, 4, 2, 8, 44, 64, 1e-5f, 1e4f, true, HEAD_LM, 0};
static const int32_t lengths[] = {9, 1, 30, 17};

static struct dims regression_of(struct dims d)
{
    d.tied = false;
    d.head = HEAD_REGRESSION;
    d.head_out = 3;
    return d;
}

/* max |a - b| <= bound * max |b| */
static void near(const real *a, const real *b, size_t n, double bound)
{
    double diff = 0.0, size = 0.0;

    for (size_t i = 0; i < n; i++) {
        diff = fmax(diff, fabs((double)a[i] - (double)b[i]));
        size = fmax(size, fabs((double)b[i]));
    }
    if (!(size > 0.0 && diff <= bound * size))
        fail_msg("differs by %g of %g", diff, size);
}

/* Sequence i of a packed batch as a batch of its own. */
static void batch_take(struct batch *one, const struct dims *d, const struct batch *all, int32_t i)
{
    int32_t begin = all->seq_begin[i], n = all->seq_begin[i + 1] - begin;

    fixture_batch(one, d, &n, 1, 1);
    memcpy(one->token, all->token + begin, (size_t)n * sizeof *one->token);
    for (int32_t t = 0; t < all->targets; t++) {
        struct batch_target x = all->target[t];

        if (x.row < begin || x.row >= begin + n)
            continue;
        x.row -= begin;
        if (d->head == HEAD_REGRESSION) {
            memcpy(one->score + x.row * d->head_out, all->score + x.id * d->head_out,
                   (size_t)d->head_out * 4);
            x.id = x.row;
        }
        one->target[one->targets++] = x;
    }
}

static void packing_case(const struct dims *d)
{
    struct batch all, one;
    struct workspace *w;
    struct loss_out out, sum = {0, 0, 0};
    size_t n = dims_params(d);
    real *params = fixture_params(d, 1), *packed = fixture_reals(n), *apart = fixture_reals(n);

    fixture_batch(&all, d, lengths, 4, 3);
    fixture_targets(&all, d);
    w = workspace_new(d, all.rows, 4, all.targets);
    for (int32_t i = 0; i < 4; i++) {
        batch_take(&one, d, &all, i);
        transformer_train(d, params, &one, apart, NULL, w, &out);
        sum.loss_sum += out.loss_sum;
        sum.weight_sum += out.weight_sum;
        sum.tokens += out.tokens;
        batch_fini(&one);
    }
    transformer_train(d, params, &all, packed, NULL, w, &out);
    assert_true(fabs(out.loss_sum - sum.loss_sum) <= 1e-6 * sum.loss_sum);
    assert_true(out.weight_sum == sum.weight_sum && out.tokens == sum.tokens && out.tokens == 57);
    near(packed, apart, n, 2e-6);
    workspace_free(w);
    batch_fini(&all);
    free(params), free(packed), free(apart);
}

static void test_packing_changes_nothing(void **state)
{
    struct dims r = regression_of(tied), untied = tied, tight = tied;

    (void)state;
    untied.tied = false;
    tight.context = 30; /* as long as the longest sequence, shorter than the batch */
    packing_case(&tied);
    packing_case(&tight);
    packing_case(&untied);
    packing_case(&r);
}

static void test_repeat_gives_the_same_bits(void **state)
{
    struct batch b;
    size_t n = dims_params(&tied);
    struct workspace *w;
    real *params = fixture_params(&tied, 1), *a = fixture_reals(n), *c = fixture_reals(n);
    struct loss_out first, second, forward;

    (void)state;
    fixture_batch(&b, &tied, lengths, 4, 3);
    fixture_targets(&b, &tied);
    w = workspace_new(&tied, b.rows + 50, 9, b.targets + 7);
    transformer_train(&tied, params, &b, a, NULL, w, &first);
    workspace_free(w);
    w = workspace_new(&tied, b.rows, 4,
                      b.targets); /* neither the workspace's size nor what it held matters */
    transformer_train(&tied, params, &b, NULL, NULL, w, &forward);
    transformer_train(&tied, params, &b, c, NULL, w, &second);
    assert_memory_equal(a, c, n * sizeof *a);
    assert_true(first.loss_sum == second.loss_sum && first.loss_sum == forward.loss_sum);
    transformer_train(&tied, params, &b, c, NULL, w, &second); /* adds */
    for (size_t i = 0; i < n; i++)
        a[i] *= 2;
    near(c, a, n, 1e-6);
    workspace_free(w);
    batch_fini(&b);
    free(params), free(a), free(c);
}

struct runner {
    const struct batch *batch;
    const real *params;
    size_t shift; /* elements that vectors are moved off their alignment */
    real *grad;
    double loss_sum;
};

static void *runner_main(void *self)
{
    struct runner *r = self;
    size_t n = dims_params(&tied);
    struct workspace *w = workspace_new(&tied, r->batch->rows, r->batch->seqs, r->batch->targets);
    real *params = fixture_reals(n + r->shift), *grad = fixture_reals(n + r->shift);
    struct loss_out out;

    memcpy(params + r->shift, r->params, n * sizeof *params);
    for (int i = 0; i < 30; i++) {
        memset(grad, 0, (n + r->shift) * sizeof *grad);
        transformer_train(&tied, params + r->shift, r->batch, grad + r->shift, NULL, w, &out);
    }
    r->grad = fixture_reals(n);
    memcpy(r->grad, grad + r->shift, n * sizeof *grad);
    r->loss_sum = out.loss_sum;
    workspace_free(w);
    free(params), free(grad);
    return NULL;
}

static void test_threads_and_alignment_give_the_same_bits(void **state)
{
    enum { THREADS = 4 };
    struct batch b;
    struct runner runner[THREADS];
    pthread_t thread[THREADS];
    real *params = fixture_params(&tied, 1);

    (void)state;
    fixture_batch(&b, &tied, lengths, 4, 3);
    fixture_targets(&b, &tied);
    for (size_t i = 0; i < THREADS; i++) {
        runner[i] = (struct runner){.batch = &b, .params = params, .shift = i};
        assert_int_equal(pthread_create(&thread[i], NULL, runner_main, &runner[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    for (size_t i = 1; i < THREADS; i++) {
        assert_memory_equal(runner[0].grad, runner[i].grad, dims_params(&tied) * sizeof(real));
        assert_true(runner[0].loss_sum == runner[i].loss_sum);
    }
    for (size_t i = 0; i < THREADS; i++)
        free(runner[i].grad);
    batch_fini(&b);
    free(params);
}

static void test_rows_of_weight_zero_change_nothing(void **state)
{
    static const int32_t length = 20;
    struct batch with, without;
    size_t n = dims_params(&tied);
    struct workspace *w = workspace_new(&tied, 20, 1, 30);
    real *params = fixture_params(&tied, 1), *a = fixture_reals(n), *c = fixture_reals(n);
    struct loss_out x, y;

    (void)state;
    fixture_batch(&with, &tied, &length, 1, 3);
    fixture_batch(&without, &tied, &length, 1, 3);
    for (int32_t i = 0; i < 20; i++) {
        if (i % 2 == 0)
            fixture_target(&without, i, i, 0, 64, 1.5f);
        fixture_target(&with, i, i, 0, 64, i % 2 == 0 ? 1.5f : 0.0f);
    }
    transformer_train(&tied, params, &with, a, NULL, w, &x);
    transformer_train(&tied, params, &without, c, NULL, w, &y);
    assert_memory_equal(a, c, n * sizeof *a);
    assert_true(x.loss_sum == y.loss_sum && x.weight_sum == y.weight_sum && x.weight_sum == 15.0);
    without.targets = 0;
    memset(c, 0, n * sizeof *c);
    transformer_train(&tied, params, &without, c, NULL, w, &y);
    assert_true(y.loss_sum == 0.0 && y.weight_sum == 0.0 && y.tokens == 20);
    for (size_t i = 0; i < n; i++)
        assert_true(c[i] == 0);
    without.rows = without.seqs = 0;
    transformer_train(&tied, params, &without, c, NULL, w, &y); /* an empty unit */
    assert_true(y.loss_sum == 0.0 && y.tokens == 0);
    workspace_free(w);
    batch_fini(&with);
    batch_fini(&without);
    free(params), free(a), free(c);
}

static void bump(void *self, size_t begin, size_t end)
{
    *(size_t *)self += end - begin;
}

/* Every arithmetic, head and number of layers; a workspace that held something else before. */
static void test_recomputed_layers_have_the_same_bits(void **state)
{
    struct dims kinds[] = {tied, tied, regression_of(tied)};

    (void)state;
    kinds[1].layers = 1;
    for (size_t k = 0; k < 2 * sizeof kinds / sizeof kinds[0]; k++) {
        const struct dims *d = &kinds[k / 2];
        enum gemm_kind kind = k % 2 == 0 || bf16_how() == BF16_NONE ? GEMM_F32 : GEMM_BF16;
        size_t n = dims_params(d), heard = 0;
        real *params = fixture_params(d, 1), *a = fixture_reals(n), *c = fixture_reals(n);
        const struct grad_sink sink = {&heard, bump};
        struct workspace *w, *lean;
        struct batch b, before;
        struct loss_out kept, again;

        fixture_batch(&b, d, lengths, 4, 3);
        fixture_targets(&b, d);
        fixture_batch(&before, d, lengths + 1, 2, 4);
        fixture_targets(&before, d);
        w = workspace_new(d, b.rows, 4, b.targets);
        lean = workspace_new_lean(d, b.rows, 4, b.targets);
        workspace_set_gemm(w, kind);
        workspace_set_gemm(lean, kind);
        transformer_train(d, params, &before, c, NULL, lean, &again);
        memset(c, 0, n * sizeof *c);
        transformer_train(d, params, &b, a, NULL, w, &kept);
        transformer_train(d, params, &b, c, &sink, lean, &again);
        assert_memory_equal(a, c, n * sizeof *a);
        assert_true(kept.loss_sum == again.loss_sum && kept.loss_sum > 0 && heard == n);
        workspace_free(w);
        workspace_free(lean);
        batch_fini(&b);
        batch_fini(&before);
        free(params), free(a), free(c);
    }
}

static void test_losses_and_outputs_agree_with_training(void **state)
{
    struct dims kinds[] = {tied, regression_of(tied)};

    (void)state;
    for (size_t k = 0; k < 2; k++) {
        const struct dims *d = &kinds[k];
        struct batch b;
        struct workspace *w;
        struct loss_out out;
        real *params = fixture_params(d, 1), *loss, *y;
        double sum = 0.0;

        fixture_batch(&b, d, lengths, 4, 3);
        fixture_targets(&b, d);
        if (d->head == HEAD_LM)
            for (int32_t i = 0; i < b.targets; i += 3) /* ranges in turn */
                b.target[i].lo = b.target[i].id / 2, b.target[i].hi = b.target[i].id + 1;
        w = workspace_new(d, b.rows, 4, b.targets);
        loss = fixture_reals((size_t)b.targets);
        y = fixture_reals((size_t)b.targets * 70);
        transformer_train(d, params, &b, NULL, NULL, w, &out);
        transformer_losses(d, params, &b, loss, w);
        transformer_outputs(d, params, &b, y, 70, w);
        for (int32_t i = 0; i < b.targets; i++) {
            const struct batch_target *t = &b.target[i];

            sum += (double)t->weight * (double)loss[i];
            if (d->head == HEAD_LM) {
                double total = 0.0;

                assert_true(fabs((double)loss[i] + (double)y[i * 70 + t->id - t->lo]) <= 1e-5);
                for (int32_t j = 0; j < t->hi - t->lo; j++)
                    total += exp((double)y[i * 70 + j]);
                assert_true(fabs(total - 1.0) <= 1e-5);
            }
            assert_true(y[i * 70 + 69] == 0); /* beyond the range nothing is written */
        }
        assert_true(fabs(sum - out.loss_sum) <= 1e-5 * sum);
        workspace_free(w);
        batch_fini(&b);
        free(params), free(loss), free(y);
    }
}

static void test_many_chunks_of_targets(void **state)
{
    static const int32_t many[] = {60, 60, 60, 60, 60, 60, 60, 60, 60, 60};
    struct batch b, half;
    size_t n = dims_params(&tied);
    struct workspace *w = workspace_new(&tied, 600, 10, 600);
    real *params = fixture_params(&tied, 1), *a = fixture_reals(n), *c = fixture_reals(n);
    struct loss_out x, y, z;

    (void)state;
    fixture_batch(&b, &tied, many, 10, 3); /* 600 targets: three chunks of the head */
    fixture_batch(&half, &tied, many, 10, 3);
    for (int32_t i = 0; i < 600; i++)
        fixture_target(&b, i, i % 64, 0, 64, 1.0f);
    transformer_train(&tied, params, &b, a, NULL, w, &x);
    for (int32_t i = 0; i < 600; i += 2)
        fixture_target(&half, i, i % 64, 0, 64, 1.0f);
    transformer_train(&tied, params, &half, c, NULL, w, &y);
    half.targets = 0;
    for (int32_t i = 1; i < 600; i += 2)
        fixture_target(&half, i, i % 64, 0, 64, 1.0f);
    transformer_train(&tied, params, &half, c, NULL, w, &z);
    assert_true(fabs(x.loss_sum - y.loss_sum - z.loss_sum) <= 1e-6 * x.loss_sum);
    near(c, a, n, 5e-6);
    workspace_free(w);
    batch_fini(&b);
    batch_fini(&half);
    free(params), free(a), free(c);
}

struct heard {
    const real *grad;
    real *copy; /* what each range held when it was announced */
    size_t begins[16], calls, elements, last_begin;
};

static void on_ready(void *self, size_t begin, size_t end)
{
    struct heard *h = self;

    assert_true(begin < end && h->calls < 16);
    assert_true(end == h->last_begin); /* from the end of the vector down, without a gap */
    memcpy(h->copy + begin, h->grad + begin, (end - begin) * sizeof *h->copy);
    h->last_begin = begin;
    h->calls++;
    h->elements += end - begin;
}

static void test_sink_hears_final_values_once(void **state)
{
    struct dims kinds[] = {tied, tied, regression_of(tied)};

    (void)state;
    kinds[1].tied = false;
    for (size_t k = 0; k < 3; k++) {
        const struct dims *d = &kinds[k];
        struct batch b;
        size_t n = dims_params(d);
        struct workspace *w;
        real *params = fixture_params(d, 1), *grad = fixture_reals(n);
        struct heard h = {.grad = grad, .copy = fixture_reals(n), .last_begin = n};
        struct grad_sink sink = {&h, on_ready};
        struct loss_out out;
        uint64_t progress = 0;

        fixture_batch(&b, d, lengths, 4, 3);
        fixture_targets(&b, d);
        w = workspace_new(d, b.rows, 4, b.targets);
        workspace_set_progress(w, &progress);
        transformer_train(d, params, &b, grad, &sink, w, &out);
        assert_int_equal(h.calls, d->layers + 2);
        assert_int_equal(h.elements, n);
        assert_memory_equal(h.copy, grad, n * sizeof *grad);
        assert_true(progress >= 2 * (uint64_t)d->layers);
        workspace_free(w);
        batch_fini(&b);
        free(params), free(grad), free(h.copy);
    }
}

static void test_nan_in_a_weight_shows_in_the_loss(void **state)
{
    struct batch b;
    struct workspace *w;
    real *params = fixture_params(&tied, 1);
    struct loss_out out;
    struct offsets o;

    (void)state;
    fixture_batch(&b, &tied, lengths, 4, 3);
    fixture_targets(&b, &tied);
    dims_offsets(&tied, &o);
    w = workspace_new(&tied, b.rows, 4, b.targets);
    for (size_t at = o.layers; at < o.layers + o.layer_size; at += 97) {
        real was = params[at];

        params[at] = (real)NAN;
        transformer_train(&tied, params, &b, NULL, NULL, w, &out);
        assert_true(isnan(out.loss_sum));
        params[at] = was;
    }
    workspace_free(w);
    batch_fini(&b);
    free(params);
}

static void test_workspace_bytes_grow_with_the_shape(void **state)
{
    size_t small = workspace_bytes(&tied, 100, 4, 50, false);

    (void)state;
    assert_true(workspace_bytes(&tied, 200, 4, 50, false) > small);
    assert_true(workspace_bytes(&tied, 100, 4, 100, false) > small);
    assert_true(workspace_bytes(&tied, 1, 1, 0, false) > 0);
    assert_true(workspace_bytes(&tied, 100, 4, 50, true) < small);
    workspace_free(NULL);
}

/* ---- parts and teams ---- */

static void values_add(real *into, const real *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        into[i] += from[i];
}

/* Sequences as parts of their own: each alone, added up along the tree of 4 or 3 leaves, against all at once. */
static void parts_case(const struct dims *d, enum gemm_kind kind, int threads, int32_t seqs)
{
    size_t n = dims_params(d);
    struct team *team = team_new(threads);
    struct batch all, one;
    struct workspace *w, *alone;
    struct loss_out out[4], each;
    real *params = fixture_params(d, 1), *sum = fixture_reals(n), *part[4];

    fixture_batch(&all, d, lengths, seqs, 3);
    fixture_targets(&all, d);
    w = workspace_new(d, all.rows, all.seqs, all.targets);
    alone = workspace_new(d, all.rows, all.seqs, all.targets);
    workspace_set_gemm(w, kind);
    workspace_set_gemm(alone, kind);
    workspace_set_team(w, team, 4);
    for (int32_t i = 0; i < seqs; i++)
        all.part_seq[i + 1] = all.parts = i + 1;
    assert_true(transformer_joins(w, &all));
    memset(sum, 0x7f, n * sizeof *sum); /* is not read */
    transformer_train_set(d, params, &all, sum, NULL, w, out);
    for (int32_t i = 0; i < seqs; i++) {
        batch_take(&one, d, &all, i);
        part[i] = fixture_reals(n);
        transformer_train(d, params, &one, part[i], NULL, alone, &each);
        assert_memory_equal(&out[i], &each, sizeof each);
        batch_fini(&one);
    }
    values_add(part[0], part[1], n);
    if (seqs == 4)
        values_add(part[2], part[3], n);
    values_add(part[0], part[2], n);
    for (size_t i = 0; i < n; i++) /* 0 and -0 are equal */
        assert_true(sum[i] == part[0][i]);
    for (int32_t i = 0; i < seqs; i++)
        free(part[i]);
    workspace_free(w);
    workspace_free(alone);
    batch_fini(&all);
    team_free(team);
    free(params);
    free(sum);
}

static void test_parts_at_once_have_the_bits_of_each_alone_added_along_the_tree(void **state)
{
    struct dims untied = tied;

    (void)state;
    untied.tied = false;
    for (int kind = GEMM_F32; kind <= (bf16_how() != BF16_NONE ? GEMM_BF16 : GEMM_F32); kind++)
        for (int threads = 1; threads <= 3; threads++) {
            parts_case(&tied, (enum gemm_kind)kind, threads, 4);
            parts_case(&untied, (enum gemm_kind)kind, threads, 3);
        }
}

static void test_what_cannot_be_computed_together_says_so(void **state)
{
    struct batch b;
    struct workspace *w;

    (void)state;
    fixture_batch(&b, &tied, lengths, 4, 3);
    fixture_targets(&b, &tied);
    b.parts = 2;
    b.part_seq[1] = 2;
    b.part_seq[2] = 4;
    w = workspace_new(&tied, b.rows, b.seqs, b.targets);
    assert_false(transformer_joins(w, &b)); /* one part, unless more were asked for */
    workspace_set_team(w, NULL, 2);
    assert_true(transformer_joins(w, &b));
    b.target[3].lo = 1; /* softmax over a part of the vocabulary */
    b.target[3].id = 1;
    assert_false(transformer_joins(w, &b));
    b.target[3].weight = 0; /* left out of training */
    assert_true(transformer_joins(w, &b));
    workspace_free(w);
    batch_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_at_once_have_the_bits_of_each_alone_added_along_the_tree),
        cmocka_unit_test(test_what_cannot_be_computed_together_says_so),
        cmocka_unit_test(test_packing_changes_nothing),
        cmocka_unit_test(test_repeat_gives_the_same_bits),
        cmocka_unit_test(test_threads_and_alignment_give_the_same_bits),
        cmocka_unit_test(test_rows_of_weight_zero_change_nothing),
        cmocka_unit_test(test_recomputed_layers_have_the_same_bits),
        cmocka_unit_test(test_losses_and_outputs_agree_with_training),
        cmocka_unit_test(test_many_chunks_of_targets),
        cmocka_unit_test(test_sink_hears_final_values_once),
        cmocka_unit_test(test_nan_in_a_weight_shows_in_the_loss),
        cmocka_unit_test(test_workspace_bytes_grow_with_the_shape),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
