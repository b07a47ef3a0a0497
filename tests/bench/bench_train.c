/*
 * How fast one thread trains: forward, loss and backward of packed units, rows per second and GFLOP/s.
 * FLOPs counted: 6 per weight of a matrix and row that it is applied to (head and what follows the last attention: target
 * rows only), and the causal half of attention, forward 4 and backward 10 per query, key and channel. usage: bench_train [seconds [row of the table]]
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "model/ops.h"
#include "tests/unit/model/model_fixture.h"

struct shape {
    const char *name;
    struct dims dims;
    int32_t seqs, length;
    int32_t loss_from; /* rows of a sequence before this one have no target */
};

static const struct shape shapes[] = {
    {"stories260K, every row a target",
     {512, 64, 5, 8, 4, 8, 172, 512, 1e-5f, 1e4f, true, HEAD_LM, 0},
     6,
     66,
     0},
    {"stories260K, two rows of three a target",
     {512, 64, 5, 8, 4, 8, 172, 512, 1e-5f, 1e4f, true, HEAD_LM, 0},
     6,
     66,
     22},
    {"stories260K, two targets a sequence",
     {512, 64, 5, 8, 4, 8, 172, 512, 1e-5f, 1e4f, true, HEAD_LM, 0},
     6,
     66,
     64},
    {"stories260K, length 256",
     {512, 64, 5, 8, 4, 8, 172, 512, 1e-5f, 1e4f, true, HEAD_LM, 0},
     2,
     256,
     0},
    {"width 512, 8 layers, heads of 64, vocabulary 4096",
     {4096, 512, 8, 8, 4, 64, 1376, 1024, 1e-5f, 1e4f, true, HEAD_LM, 0},
     4,
     256,
     0},
};

static double flops(const struct shape *s)
{
    const struct dims *d = &s->dims;
    struct offsets o;
    double rows = (double)s->seqs * (double)s->length, t = (double)s->length;
    double matrices, tail, targets = (double)s->seqs * (double)(s->length - s->loss_from);

    dims_offsets(d, &o);
    matrices = (double)d->layers * (double)(o.layer_size - 2 * (size_t)d->width);
    tail = (double)(o.layer_size - o.o - (size_t)d->width);
    return 6.0 * rows * (matrices - tail) + 6.0 * targets * tail +
           6.0 * targets * (double)d->vocab * (double)d->width +
           14.0 * (double)d->layers * rows * (t + 1.0) / 2.0 * (double)(d->heads * d->head_dim);
}

static void bench(const struct shape *s, double seconds)
{
    const struct dims *d = &s->dims;
    int32_t lengths[16];
    struct batch b;
    real *params = fixture_params(d, 1), *grad = fixture_reals(dims_params(d));
    struct workspace *w;
    struct loss_out out;
    double best = 1e30, spent = 0.0;

    for (int32_t i = 0; i < s->seqs; i++)
        lengths[i] = s->length;
    fixture_batch(&b, d, lengths, s->seqs, 5);
    for (int32_t i = 0; i < b.rows; i++)
        if (i % s->length >= s->loss_from)
            fixture_target(&b, i, fixture_below(6, (uint32_t)i, d->vocab), 0, d->vocab, 1.0f);
    w = workspace_new(d, b.rows, b.seqs, b.targets);
    while (spent < seconds) {
        uint64_t start = clock_ns();
        double took;

        memset(grad, 0, dims_params(d) * sizeof *grad);
        transformer_train(d, params, &b, grad, NULL, w, &out);
        took = (double)(clock_ns() - start) * 1e-9;
        spent += took;
        best = took < best ? took : best;
    }
    printf("figure: train %s: %.0f rows/s, %.1f GFLOP/s, one thread, %d rows a unit, workspace "
           "%.1f MB, kernels %s\n",
           s->name, (double)b.rows / best, flops(s) / best * 1e-9, b.rows,
           (double)workspace_bytes(d, b.rows, b.seqs, b.targets) * 1e-6, model_blas_core());
    workspace_free(w);
    batch_fini(&b);
    free(params);
    free(grad);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 1.0;

    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        if (argc <= 2 || (size_t)atoi(argv[2]) == i)
            bench(&shapes[i], seconds);
    return 0;
}
