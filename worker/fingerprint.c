#include "worker/fingerprint.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/rng.h"
#include "model/bf16.h"
#include "model/gemm.h"
#include "model/optim.h"
#include "model/transformer.h"

#define ROWS 97
#define SEQS 5
#define STEPS 2

/* Widths off and on the kernels' block sizes; grouped and plain heads; tied and not; both heads. */
static const struct dims shapes[] = {
    {.vocab = 512,
     .width = 64,
     .layers = 2,
     .heads = 8,
     .kv_heads = 4,
     .head_dim = 8,
     .ffn = 172,
     .context = 64,
     .norm_eps = 1e-5f,
     .rope_theta = 10000,
     .tied = true,
     .head = HEAD_LM},
    {.vocab = 301,
     .width = 96,
     .layers = 1,
     .heads = 3,
     .kv_heads = 3,
     .head_dim = 32,
     .ffn = 256,
     .context = 64,
     .norm_eps = 1e-6f,
     .rope_theta = 500000,
     .tied = false,
     .head = HEAD_LM},
    {.vocab = 67,
     .width = 40,
     .layers = 1,
     .heads = 4,
     .kv_heads = 1,
     .head_dim = 10,
     .ffn = 72,
     .context = 64,
     .norm_eps = 1e-5f,
     .rope_theta = 10000,
     .tied = false,
     .head = HEAD_REGRESSION,
     .head_out = 3},
};

static void batch_make(const struct dims *d, uint32_t shape, struct batch *b)
{
    static const int32_t length[SEQS] = {1, 7, 16, 33, 40};
    int32_t vocab_lo = 0;

    batch_init(b, ROWS, SEQS, ROWS, ROWS * 4);
    b->seq_begin[0] = 0;
    for (int32_t s = 0; s < SEQS; s++) {
        for (int32_t i = 0; i < length[s]; i++) {
            int32_t row = b->rows++;
            b->token[row] =
                (int32_t)rng_below(7, RNG_TEST, shape, 0, (uint32_t)row, (uint32_t)d->vocab);
            if (row % 3 != 0)
                continue;
            b->target[b->targets] =
                (struct batch_target){.row = row,
                                      .lo = vocab_lo,
                                      .hi = d->vocab,
                                      .weight = 1.0f + (float)(row % 4) * 0.25f};
            b->target[b->targets].id =
                d->head == HEAD_LM
                    ? (int32_t)rng_below(7, RNG_TEST, shape, 1, (uint32_t)row, (uint32_t)d->vocab)
                    : b->targets;
            b->targets++;
        }
        b->seq_begin[++b->seqs] = b->rows;
    }
    for (int32_t i = 0; d->head == HEAD_REGRESSION && i < b->targets * d->head_out; i++)
        b->score[i] = (float)rng_normal(7, RNG_TEST, shape, 2, (uint32_t)i);
}

static void shape_run(const struct dims *d, uint32_t shape, enum gemm_kind kind,
                      struct digest_state *state)
{
    const struct adamw adamw = {0.9f, 0.98f, 1e-8f, 0.01f};
    struct layout layout;
    struct batch batch;
    struct workspace *work = workspace_new(d, ROWS, SEQS, ROWS);
    float *part[4]; /* parameters, gradient, moments */
    struct loss_out loss;

    workspace_set_gemm(work, kind);
    layout_init(&layout, d);
    batch_make(d, shape, &batch);
    for (int i = 0; i < 4; i++)
        part[i] = mem_zalloc(layout.count, sizeof(float));
    for (size_t i = 0; i < layout.count; i++)
        part[0][i] = (float)rng_normal(7, RNG_TEST, shape, 3, (uint32_t)i) * 0.1f;
    for (uint64_t step = 1; step <= STEPS; step++) {
        memset(part[1], 0, layout.count * sizeof(float));
        transformer_train(d, part[0], &batch, part[1], NULL, work, &loss);
        digest_add(state, &loss.loss_sum, sizeof loss.loss_sum);
        adamw_step(&adamw, &layout, 0, layout.count, part[0], part[2], part[3], part[1],
                   (float)(1 / loss.weight_sum), 1e-2f, step);
    }
    for (int i = 0; i < 4; i++) {
        digest_add(state, part[i], layout.count * sizeof(float));
        free(part[i]);
    }
    workspace_free(work);
    batch_fini(&batch);
    layout_fini(&layout);
}

static void shapes_run(enum gemm_kind kind, struct digest_state *state)
{
    for (uint32_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        shape_run(&shapes[i], i, kind, state);
}

void fingerprint_take(struct digest *out)
{
    struct digest_state state;

    model_blas_init();
    digest_init(&state);
    shapes_run(GEMM_F32, &state);
    digest_end(&state, out);
}

void fingerprint_take_bf16(const struct digest *fp32, struct digest *out)
{
    struct digest_state state;

    out->hex[0] = '\0';
    if (bf16_how() == BF16_NONE)
        return;
    digest_init(&state);
    digest_add(&state, fp32->hex, DIGEST_HEX);
    shapes_run(GEMM_BF16, &state);
    digest_end(&state, out);
}
