/* Decoding, one thread: tokens/s of CPU time of stories260K by slots, continuous against static
 * batching on rows of uneven length, guidance, the kernel. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/rng.h"
#include "model/decode.h"
#include "model/panel.h"
#include "tests/unit/model/stories.h"

#define ROWS 480

/* Time that this thread computed: the same on a machine that does other things besides. */
static uint64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct feed {
    struct decode_request *request;
    int from, to;
};

static bool feed_next(void *self, struct decode_request *out)
{
    struct feed *f = self;

    if (f->from >= f->to)
        return false;
    *out = f->request[f->from++];
    return true;
}

static void feed_done(void *self, const struct decode_result *r)
{
    (void)self, (void)r;
}

static int32_t prompt[ROWS][24];
static struct decode_request request[ROWS];

/* Replies of 4 to 160 tokens, short ones more often: what a chat model's replies look like. */
static void requests_fill(bool guided)
{
    for (uint32_t i = 0; i < ROWS; i++) {
        double u = rng_unit(1, RNG_TEST, 0, 0, i);
        for (uint32_t t = 0; t < 24; t++)
            prompt[i][t] = t == 0 ? 1 : (int32_t)(300 + rng_below(1, RNG_TEST, 1, i, t, 200));
        request[i] = (struct decode_request){.key = i,
                                             .prompt = prompt[i],
                                             .prompt_len = 24,
                                             .uncond = guided ? prompt[i] : NULL,
                                             .uncond_len = 23};
        request[i].sampling = (struct sampling){
            0.8f, 0, 1.0f, guided ? 1.5f : 1.0f, 3.9f, (int32_t)(4.0 + 156.0 * u * u)};
    }
}

/* group 0: one continuous run. Else static batches: `group` rows until all are done (rows that are
 * done cost nothing, which is more than most implementations do), then the next. */
static double tokens_per_s(struct decoder *x, const float *params, int rows, int group,
                           struct decode_stats *total)
{
    struct decode_vocab words = {0};
    uint64_t start = cpu_ns();

    memset(total, 0, sizeof(*total));
    for (int at = 0; at<rows; at += group> 0 ? group : rows) {
        struct feed f = {request, at, group > 0 && at + group < rows ? at + group : rows};
        struct decode_source source = {&f, feed_next, feed_done, NULL};
        struct decode_stats stats;
        decode_run(x, params, &words, NULL, 1, &source, &stats);
        total->tokens += stats.tokens;
        total->steps += stats.steps;
        total->slot_steps += stats.slot_steps;
    }
    return (double)total->tokens * 1e9 / (double)(cpu_ns() - start);
}

/* What a loop without slots does: a group is computed until its longest reply ends, and what is
 * behind the end of the others is thrown away. Only tokens that were wanted count. */
static double padded_tokens_per_s(struct decoder *x, const float *params, int rows, int group)
{
    struct decode_stats stats;
    uint64_t wanted = 0;
    double rate;

    for (int at = 0; at < rows; at += group) {
        int32_t longest = 0;
        int to = at + group < rows ? at + group : rows;
        for (int i = at; i < to; i++) {
            wanted += (uint64_t)request[i].sampling.max_new_tokens;
            if (request[i].sampling.max_new_tokens > longest)
                longest = request[i].sampling.max_new_tokens;
        }
        for (int i = at; i < to; i++)
            request[i].sampling.max_new_tokens = longest;
    }
    rate = tokens_per_s(x, params, rows, group, &stats);
    return rate * (double)wanted / (double)stats.tokens;
}

static void bench_slots(const char *name, const struct dims *d, const float *params, int slots,
                        int rows)
{
    struct decoder *x = decoder_new(d, slots, 256, DECODE_FP32);
    struct decode_stats c, s;
    double running, grouped, padded;

    requests_fill(false);
    running = tokens_per_s(x, params, rows, 0, &c);
    grouped = tokens_per_s(x, params, rows, slots, &s);
    padded = padded_tokens_per_s(x, params, rows, slots);
    printf("decode model=%s slots=%d continuous_tokens_per_s=%.0f static_tokens_per_s=%.0f (x%.2f) "
           "static_padded_tokens_per_s=%.0f "
           "(x%.2f) continuous_steps=%llu static_steps=%llu occupied=%.2f\n",
           name, slots, running, grouped, running / grouped, padded, running / padded,
           (unsigned long long)c.steps, (unsigned long long)s.steps,
           (double)c.slot_steps / ((double)c.steps * slots));
    if (slots > 1) {
        requests_fill(true);
        printf("decode model=%s slots=%d guided_tokens_per_s=%.0f\n", name, slots,
               tokens_per_s(x, params, rows, 0, &c));
    }
    decoder_free(x);
}

/* 28 M weights: more than the caches hold, so that a step costs what reading them costs, however
 * many rows it has. */
static void bench_large(void)
{
    struct dims d = {.vocab = 4096,
                     .width = 512,
                     .layers = 8,
                     .heads = 8,
                     .kv_heads = 4,
                     .head_dim = 64,
                     .ffn = 1376,
                     .context = 512,
                     .norm_eps = 1e-5f,
                     .rope_theta = 10000.0f,
                     .tied = true,
                     .head = HEAD_LM};
    size_t count = dims_params(&d);
    float *params = mem_alloc(count * sizeof(float));

    for (size_t i = 0; i < count; i++)
        params[i] = (float)((double)(i * 2654435761u % 65536) / 65536.0 - 0.5) * 0.1f;
    bench_slots("28M", &d, params, 24, 96);
    free(params);
}

static void bench_panel(size_t n, size_t in, size_t out)
{
    real *x = mem_zalloc(n * in, sizeof(real)), *y = mem_zalloc(n * out, sizeof(real));
    real *packed = aligned_alloc(64, panel_count(in, out) * sizeof(real));
    uint64_t start = cpu_ns(), rounds = 0;

    memset(packed, 0, panel_count(in, out) * sizeof(real));
    while (cpu_ns() - start < 200000000u) {
        for (int i = 0; i < 16; i++)
            panel_linear(x, in, packed, y, out, n, in, out, false);
        rounds += 16;
    }
    printf("panel n=%zu in=%zu out=%zu gflops=%.1f\n", n, in, out,
           2.0 * (double)(n * in * out) * (double)rounds / (double)(cpu_ns() - start));
    free(packed);
    free(y);
    free(x);
}

int main(void)
{
    static const int slots[] = {1, 6, 12, 24, 48};
    struct dims d = stories_dims();
    float *params = stories_params(&d);

    bench_panel(24, 64, 128);
    bench_panel(24, 64, 344);
    bench_panel(24, 172, 64);
    bench_panel(1, 64, 512);
    bench_panel(192, 64, 512);
    bench_panel(24, 2048, 2048);
    for (size_t i = 0; i < 5; i++)
        bench_slots("260K", &d, params, slots[i], ROWS);
    free(params);
    bench_large();
    return 0;
}
