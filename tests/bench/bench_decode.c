/* Decoding: tokens/s of stories260K by slots, continuous against static batching on rows of uneven length, guidance, the kernel. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/rng.h"
#include "model/decode.h"
#include "model/panel.h"
#include "tests/unit/model/stories.h"

#define ROWS 480

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
        request[i] = (struct decode_request){.key = i, .prompt = prompt[i], .prompt_len = 24, .uncond = guided ? prompt[i] : NULL,
                                             .uncond_len = 23};
        request[i].sampling = (struct sampling){0.8f, 0, 1.0f, guided ? 1.5f : 1.0f, 3.9f, (int32_t)(4.0 + 156.0 * u * u)};
    }
}

/* group 0: one continuous run. Else the same decoder is given `group` rows, runs until all are done, is given the next. */
static double tokens_per_s(struct decoder *x, const float *params, int group, struct decode_stats *total)
{
    struct decode_vocab words = {0};
    uint64_t start = clock_ns();

    memset(total, 0, sizeof(*total));
    for (int at = 0; at < ROWS; at += group > 0 ? group : ROWS) {
        struct feed f = {request, at, group > 0 && at + group < ROWS ? at + group : ROWS};
        struct decode_source source = {&f, feed_next, feed_done, NULL};
        struct decode_stats stats;
        decode_run(x, params, &words, NULL, 1, &source, &stats);
        total->tokens += stats.tokens;
        total->steps += stats.steps;
        total->slot_steps += stats.slot_steps;
    }
    return (double)total->tokens * 1e9 / (double)(clock_ns() - start);
}

static void bench_slots(const struct dims *d, const float *params)
{
    static const int slots[] = {1, 6, 12, 24, 48};

    for (size_t i = 0; i < 5; i++) {
        struct decoder *x = decoder_new(d, slots[i], 256);
        struct decode_stats c, s;
        double running, grouped;
        requests_fill(false);
        running = tokens_per_s(x, params, 0, &c);
        grouped = tokens_per_s(x, params, slots[i], &s);
        printf("decode slots=%d continuous_tokens_per_s=%.0f static_tokens_per_s=%.0f ratio=%.2f continuous_steps=%llu static_steps=%llu "
               "occupied=%.2f\n",
               slots[i], running, grouped, running / grouped, (unsigned long long)c.steps, (unsigned long long)s.steps,
               (double)c.slot_steps / ((double)c.steps * slots[i]));
        if (slots[i] > 1) {
            requests_fill(true);
            printf("decode slots=%d guided_tokens_per_s=%.0f\n", slots[i], tokens_per_s(x, params, 0, &c));
        }
        decoder_free(x);
    }
}

static void bench_panel(size_t n, size_t in, size_t out)
{
    real *x = mem_zalloc(n * in, sizeof(real)), *y = mem_zalloc(n * out, sizeof(real));
    real *packed = aligned_alloc(64, panel_count(in, out) * sizeof(real));
    uint64_t start = clock_ns(), rounds = 0;

    memset(packed, 0, panel_count(in, out) * sizeof(real));
    while (clock_ns() - start < 200000000u) {
        for (int i = 0; i < 16; i++)
            panel_linear(x, in, packed, y, out, n, in, out, false);
        rounds += 16;
    }
    printf("panel n=%zu in=%zu out=%zu gflops=%.1f\n", n, in, out,
           2.0 * (double)(n * in * out) * (double)rounds / (double)(clock_ns() - start));
    free(packed);
    free(y);
    free(x);
}

int main(void)
{
    struct dims d = stories_dims();
    float *params = stories_params(&d);

    bench_panel(24, 64, 128);
    bench_panel(24, 64, 344);
    bench_panel(24, 172, 64);
    bench_panel(1, 64, 512);
    bench_panel(192, 64, 512);
    bench_panel(24, 2048, 2048);
    bench_slots(&d, params);
    free(params);
    return 0;
}
