/*
 * How fast threads train: forward, loss and backward of packed units; tokens per second, GFLOP/s and the share of what sgemm
 * by the same BLAS does in the same second on as many threads.
 * FLOPs counted: 6 per weight of a matrix and row that it is applied to (head and what follows the last attention: target
 * rows only), and the causal half of attention, forward 4 and backward 10 per query, key and channel. Each shape in fp32 and with
 * bfloat16 products, both against fp32 sgemm. usage: bench_train [seconds [row of the table [f32|bf16 [threads]]]]
 */
#include <stdio.h>
#include <stdlib.h>

#include "model/bf16.h"
#include "tests/bench/bench.h"
#include "tests/unit/model/model_fixture.h"

struct shape {
    const char *name;
    struct dims dims;
    int32_t seqs, length;
    int32_t loss_from; /* rows of a sequence before this one have no target */
    bool lean;         /* train: {recompute: true} */
};

static const struct shape shapes[] = {
    {"stories260K, every row a target",
     {512, 64, 5, 8, 4, 8, 172, 512, 1e-5f, 1e4f, true, HEAD_LM, 0},
     6,
     66,
     0,
     false},
    {"stories260K, two rows of three a target",
     {512, 64, 5, 8, 4, 8, 172, 512, 1e-5f, 1e4f, true, HEAD_LM, 0},
     6,
     66,
     22,
     false},
    {"stories260K, two targets a sequence",
     {512, 64, 5, 8, 4, 8, 172, 512, 1e-5f, 1e4f, true, HEAD_LM, 0},
     6,
     66,
     64,
     false},
    {"stories260K, length 256",
     {512, 64, 5, 8, 4, 8, 172, 512, 1e-5f, 1e4f, true, HEAD_LM, 0},
     2,
     256,
     0,
     false},
    {"15M, 4 x 256",
     {32000, 288, 6, 6, 6, 48, 768, 1024, 1e-5f, 1e4f, true, HEAD_LM, 0},
     4,
     256,
     0,
     false},
    {"15M, 4 x 256, half of the rows a target",
     {32000, 288, 6, 6, 6, 48, 768, 1024, 1e-5f, 1e4f, true, HEAD_LM, 0},
     4,
     256,
     128,
     false},
    {"Llama of GPT-2's size, 4 x 64",
     {50257, 768, 12, 12, 12, 64, 2048, 1024, 1e-5f, 1e4f, true, HEAD_LM, 0},
     4,
     64,
     0,
     false},
    {"Llama of GPT-2's size, 1 x 512",
     {50257, 768, 12, 12, 12, 64, 2048, 1024, 1e-5f, 1e4f, true, HEAD_LM, 0},
     1,
     512,
     0,
     false},
    {"width 512, 8 layers, heads of 64, vocabulary 4096",
     {4096, 512, 8, 8, 4, 64, 1376, 1024, 1e-5f, 1e4f, true, HEAD_LM, 0},
     4,
     256,
     0,
     false},
    {"15M, 4 x 1024",
     {32000, 288, 6, 6, 6, 48, 768, 1024, 1e-5f, 1e4f, true, HEAD_LM, 0},
     4,
     1024,
     0,
     false},
    {"15M, 4 x 1024, layers computed again",
     {32000, 288, 6, 6, 6, 48, 768, 1024, 1e-5f, 1e4f, true, HEAD_LM, 0},
     4,
     1024,
     0,
     true},
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

/* As in a worker: every thread has its own unit, or, of a large model, all threads are a team and compute as many units
 * together as there are threads, the sequences shared among them. */
struct job {
    const struct shape *shape;
    bool together;
    struct batch batch;
    real *params, *grad[BENCH_THREADS_MAX];
    struct workspace *work[BENCH_THREADS_MAX];
};

static void unit_train(void *self, int thread)
{
    struct job *j = self;
    struct loss_out out[PARTS_MAX];

    transformer_train_set(&j->shape->dims, j->params, &j->batch, j->grad[thread], NULL,
                          j->work[thread], out);
}

#define TOGETHER_PARAMS_MIN ((size_t)1 << 25) /* worker/session_compute.c */

static void job_batch(struct job *j, int threads)
{
    const struct shape *s = j->shape;
    const struct dims *d = &s->dims;
    int32_t lengths[16];
    struct batch *b = &j->batch;

    for (int32_t i = 0; i < s->seqs; i++)
        lengths[i] = s->length;
    fixture_batch(b, d, lengths, s->seqs, 5);
    for (int32_t i = 0; i < b->rows; i++)
        if (i % s->length >= s->loss_from)
            fixture_target(b, i, fixture_below(6, (uint32_t)i, d->vocab), 0, d->vocab, 1.0f);
    j->together = dims_params(d) >= TOGETHER_PARAMS_MIN && threads > 1;
    b->parts = j->together && s->seqs >= threads ? threads : 1;
    for (int32_t p = 0; p <= b->parts; p++)
        b->part_seq[p] = b->seqs * p / b->parts;
}

/* Norm vectors 1, matrices around 0: a million different values, again and again. */
static real *params_new(const struct dims *d)
{
    size_t n = dims_params(d), drawn = n < (size_t)1 << 20 ? n : (size_t)1 << 20;
    real *params = mem_large(n * sizeof *params), *made = fixture_normals(drawn, 1, 0.2);
    struct layout l;

    for (size_t at = 0; at < n; at += drawn)
        memcpy(params + at, made, (n - at < drawn ? n - at : drawn) * sizeof *params);
    layout_init(&l, d);
    for (int32_t i = 0; i < l.tensors; i++)
        for (size_t k = 0; !l.tensor[i].decay && k < tensor_count(&l.tensor[i]); k++)
            params[l.tensor[i].begin + k] = 1;
    layout_fini(&l);
    free(made);
    return params;
}

/* Rounds of the unit and of sgemm by turns. */
static void bench(const struct shape *s, enum gemm_kind kind, int threads, double seconds)
{
    struct job j = {.shape = s, .params = params_new(&s->dims)};
    double rate[BENCH_RUNS_MAX], ratio[BENCH_RUNS_MAX], spent = 0.0;
    struct bench_spread of_rate, of_ratio;
    char name[160];
    struct team *team;
    int rounds = 0, units;

    job_batch(&j, threads);
    units = j.together ? 1 : threads;
    team = j.together ? team_new(threads) : NULL;
    for (int i = 0; i < units; i++) {
        j.grad[i] = mem_large(dims_params(&s->dims) * sizeof(real));
        j.work[i] = (s->lean ? workspace_new_lean : workspace_new)(&s->dims, j.batch.rows,
                                                                   j.batch.seqs, j.batch.targets);
        workspace_set_gemm(j.work[i], kind);
        if (j.together)
            workspace_set_team(j.work[i], team, j.batch.parts);
    }
    bench_time(units, 1, unit_train, &j, rate); /* touches every page */
    while (rounds < 5 || (spent < seconds && rounds < BENCH_RUNS_MAX)) {
        double took, sgemm = bench_sgemm(threads, 768, 0.05);

        bench_time(units, 1, unit_train, &j, &took);
        spent += took;
        rate[rounds] = (double)j.batch.rows * units / took;
        ratio[rounds] = rate[rounds] / (double)j.batch.rows * flops(s) * 1e-9 / sgemm;
        rounds++;
    }
    of_rate = bench_spread_of(rate, rounds);
    of_ratio = bench_spread_of(ratio, rounds);
    snprintf(name, sizeof name, "train %s%s, %d thread%s", kind == GEMM_BF16 ? "bf16 " : "",
             s->name, threads, threads > 1 ? "s" : "");
    bench_say(name, &of_rate, "tokens/s", of_ratio.median, "of sgemm 768 in the same second");
    printf("        %.1f GFLOP/s, %.1f MB of workspace a thread\n",
           of_rate.median / (double)j.batch.rows * flops(s) * 1e-9,
           (double)workspace_bytes(&s->dims, j.batch.rows, j.batch.seqs, j.batch.targets, s->lean) *
               1e-6);
    for (int i = 0; i < units; i++) {
        workspace_free(j.work[i]);
        free(j.grad[i]);
    }
    team_free(team);
    batch_fini(&j.batch);
    free(j.params);
}

int main(int argc, char **argv)
{
    double seconds;
    static const char *const kind[] = {"f32", "bf16"};

    argc = bench_args(argc, argv);
    seconds = argc > 1 ? atof(argv[1]) : 1.0;
    bench_machine();
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int threads = 1; threads <= 2; threads++)
            for (int k = GEMM_F32; k <= (bf16_how() != BF16_NONE ? GEMM_BF16 : GEMM_F32); k++)
                if ((argc <= 2 || (size_t)atoi(argv[2]) == i) &&
                    (argc <= 3 || strcmp(argv[3], kind[k]) == 0) &&
                    (argc <= 4 || atoi(argv[4]) == threads))
                    bench(&shapes[i], (enum gemm_kind)k, threads, seconds);
    return 0;
}
