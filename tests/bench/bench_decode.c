/*
 * Decoding and scoring, against what memory and sgemm allow in the same run: one stream (fp32, int8,
 * with and without a helping thread), 64 rows at once, annotation with a regression head, continuous
 * against static batching, what int8 costs. Arguments choose parts: stream batch score slots panel
 * int8; none: all. Weights are random but for stories260K's; speeds do not depend on them.
 */
#include <cblas.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/rng.h"
#include "base/team.h"
#include "jobs/run_score.h"
#include "jobs/run_score_batch.h"
#include "model/cached.h"
#include "model/decode.h"
#include "model/panel.h"
#include "tests/bench/bench.h"
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

/* The same rows by turns in slots that are filled again as they become free, in static batches, and
 * in static batches that are computed to the end. Rates are of this thread's own time. */
static void bench_slots(const char *name, const struct dims *d, const float *params, int slots,
                        int rows)
{
    enum { CONTINUOUS, STATIC, PADDED, WAYS, RUNS = 3 };
    static const char *const way[] = {"continuous", "static batches, rows that ended cost nothing",
                                      "static batches, computed to the end of the longest row"};
    struct decoder *x = decoder_new(d, slots, 256, DECODE_FP32);
    double rate[WAYS][RUNS];
    struct decode_stats c, s;

    for (int i = 0; i < RUNS; i++) {
        requests_fill(false);
        rate[CONTINUOUS][i] = tokens_per_s(x, params, rows, 0, &c);
        rate[STATIC][i] = tokens_per_s(x, params, rows, slots, &s);
        rate[PADDED][i] = padded_tokens_per_s(x, params, rows, slots);
    }
    for (int i = 0; i < WAYS; i++) {
        char what[128];
        struct bench_spread spread = bench_spread_of(rate[i], RUNS);
        snprintf(what, sizeof what, "rows of uneven length, %s, %d slots, %s", name, slots, way[i]);
        bench_say(what, &spread, "tokens/s", (double)NAN, "");
    }
    printf("decode model=%s slots=%d continuous_steps=%llu static_steps=%llu occupied=%.2f\n", name,
           slots, (unsigned long long)c.steps, (unsigned long long)s.steps,
           (double)c.slot_steps / ((double)c.steps * slots));
    if (slots > 1) {
        requests_fill(true);
        printf("decode model=%s slots=%d guided_tokens_per_s=%.0f\n", name, slots,
               tokens_per_s(x, params, rows, 0, &c));
    }
    decoder_free(x);
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

static const struct dims dims_15m = {.vocab = 32000,
                                     .width = 288,
                                     .layers = 6,
                                     .heads = 6,
                                     .kv_heads = 6,
                                     .head_dim = 48,
                                     .ffn = 768,
                                     .context = 1024,
                                     .norm_eps = 1e-5f,
                                     .rope_theta = 10000.0f,
                                     .tied = true,
                                     .head = HEAD_LM};
static const struct dims dims_110m = {.vocab = 32000,
                                      .width = 768,
                                      .layers = 12,
                                      .heads = 12,
                                      .kv_heads = 12,
                                      .head_dim = 64,
                                      .ffn = 2048,
                                      .context = 1024,
                                      .norm_eps = 1e-5f,
                                      .rope_theta = 10000.0f,
                                      .tied = true,
                                      .head = HEAD_LM};

static float *random_params(const struct dims *d)
{
    size_t count = dims_params(d);
    float *params = mem_alloc(count * sizeof(float));

    for (size_t i = 0; i < count; i++)
        params[i] = (float)((double)(i * 2654435761u % 65536) / 65536.0 - 0.5) * 0.1f;
    return params;
}

/* Weights that a token is multiplied with. */
static double weights_used(const struct dims *d)
{
    double mixed = (double)d->heads * d->head_dim, kv = (double)d->kv_heads * d->head_dim;
    double layer = d->width * (mixed + 2 * kv) + mixed * d->width + 3.0 * d->width * d->ffn;

    return layer * d->layers + (d->head == HEAD_LM ? (double)d->width * d->vocab : 0.0);
}

/* ---- one stream ---- */

#define STREAM_TOKENS 64
#define STREAM_RUNS 7

/* Tokens/s after a prompt of one token; the memory bound: each token reads the weights once. */
static void bench_stream(const char *name, const struct dims *d, const float *params,
                         enum decode_weights kind, int threads, double gb_per_s)
{
    struct team *team = team_new(threads);
    struct decoder *x = decoder_new(d, 1, STREAM_TOKENS + 1, kind);
    static const int32_t first[1] = {1};
    struct decode_vocab words = {0};
    double rate[STREAM_RUNS];
    struct bench_spread spread;
    char title[96], note[96];

    decoder_set_team(x, team);
    for (int run = -1; run < STREAM_RUNS; run++) {
        struct decode_request one = {.prompt = first, .prompt_len = 1};
        struct feed f = {&one, 0, 1};
        struct decode_source source = {&f, feed_next, feed_done, NULL};
        uint64_t start = clock_ns();
        one.sampling = (struct sampling){0.0f, 0, 1.0f, 1.0f, 3.9f, STREAM_TOKENS};
        decode_run(x, run < 0 ? params : NULL, &words, NULL, 1, &source, NULL);
        if (run >= 0)
            rate[run] = STREAM_TOKENS * 1e9 / (double)(clock_ns() - start);
    }
    spread = bench_spread_of(rate, STREAM_RUNS);
    snprintf(title, sizeof title, "decode %s, one stream, %s, %d threads", name,
             kind == DECODE_INT8 ? "int8" : "fp32", threads);
    snprintf(note, sizeof note, "of reading the weights at %.1f GB/s", gb_per_s);
    bench_say(title, &spread, "tokens/s",
              spread.median * (double)decoder_weight_bytes(x) * 1e-9 / gb_per_s, note);
    decoder_free(x);
    team_free(team);
}

#define READ_FLOATS ((size_t)64 << 20)

struct reading {
    const float *from;
    float sum[2];
};

static void reading_part(void *self, size_t part, size_t parts)
{
    struct reading *r = self;
    size_t n = READ_FLOATS / parts / 2;
    const float *x = r->from + part * n * 2;

    r->sum[part % 2] = cblas_sdot((int)n, x, 1, x + n, 1);
}

/* GB/s of reading 256 MiB in large pages, as weights are: the best of some, which is a bound. */
static double bandwidth_measure(int threads)
{
    struct team *team = team_new(threads);
    float *x = aligned_alloc((size_t)2 << 20, READ_FLOATS * sizeof *x);
    struct reading r = {.from = x};
    double best = 0.0;

    CHECK(x != NULL);
    (void)madvise(x, READ_FLOATS * sizeof *x, MADV_HUGEPAGE);
    for (size_t i = 0; i < READ_FLOATS; i++)
        x[i] = 1e-3f;
    for (int run = 0; run < 10; run++) {
        uint64_t start = clock_ns();
        double rate;
        team_run(team, reading_part, &r);
        rate = (double)(READ_FLOATS * sizeof *x) / (double)(clock_ns() - start);
        best = rate > best ? rate : best;
    }
    free(x);
    team_free(team);
    return best;
}

static void bench_streams(const char *name, const struct dims *d, const float *params, int threads)
{
    for (; threads <= 2; threads++) {
        double bandwidth = bandwidth_measure(threads);
        bench_stream(name, d, params, DECODE_FP32, threads, bandwidth);
        bench_stream(name, d, params, DECODE_INT8, threads, bandwidth);
    }
}

/* ---- many rows, two ranges side by side ---- */

#define BATCH_ROWS 64
#define BATCH_PROMPT 16
#define BATCH_TOKENS 128
#define BATCH_RUNS 3
#define BATCH_THREADS 2

struct batch_job {
    struct decoder *decoder[BATCH_THREADS];
    const float *params;
    int32_t prompt[BATCH_ROWS][BATCH_PROMPT];
    struct decode_request request[BATCH_ROWS];
};

static void batch_part(void *self, int thread)
{
    struct batch_job *b = self;
    int each = BATCH_ROWS / BATCH_THREADS;
    struct feed f = {b->request, thread * each, (thread + 1) * each};
    struct decode_source source = {&f, feed_next, feed_done, NULL};
    struct decode_vocab words = {0};

    decode_run(b->decoder[thread], b->params, &words, NULL, 1, &source, NULL);
}

static void bench_batch(const char *name, const struct dims *d, const float *params,
                        enum decode_weights kind)
{
    struct batch_job *b = mem_zalloc(1, sizeof(*b));
    double rate[BATCH_RUNS + 1], sgemm = bench_sgemm(BATCH_THREADS, 768, 0.3);
    struct bench_spread spread;
    char title[96], note[96];

    for (uint32_t i = 0; i < BATCH_ROWS; i++) {
        for (uint32_t t = 0; t < BATCH_PROMPT; t++)
            b->prompt[i][t] = (int32_t)rng_below(1, RNG_TEST, 1, i, t, (uint32_t)d->vocab);
        b->request[i] =
            (struct decode_request){.key = i,
                                    .prompt = b->prompt[i],
                                    .prompt_len = BATCH_PROMPT,
                                    .sampling = {0.8f, 0, 1.0f, 1.0f, 3.9f, BATCH_TOKENS}};
    }
    for (int t = 0; t < BATCH_THREADS; t++)
        b->decoder[t] =
            decoder_new(d, BATCH_ROWS / BATCH_THREADS, BATCH_PROMPT + BATCH_TOKENS, kind);
    for (int run = -1; run < BATCH_RUNS; run++) {
        double seconds;
        b->params = run < 0 ? params : NULL;
        bench_time(BATCH_THREADS, 1, batch_part, b, &seconds);
        if (run >= 0)
            rate[run] = BATCH_ROWS * BATCH_TOKENS / seconds;
    }
    spread = bench_spread_of(rate, BATCH_RUNS);
    snprintf(title, sizeof title, "%s %s, %d rows, %s, %d threads",
             kind == DECODE_INT8 ? "decode" : "generation", name, BATCH_ROWS,
             kind == DECODE_INT8 ? "int8" : "fp32", BATCH_THREADS);
    snprintf(note, sizeof note, "of the products of its tokens by sgemm at %.0f GFLOP/s", sgemm);
    bench_say(title, &spread, "tokens/s", spread.median * 2.0 * weights_used(d) * 1e-9 / sgemm,
              note);
    for (int t = 0; t < BATCH_THREADS; t++)
        decoder_free(b->decoder[t]);
    free(b);
}

/* ---- annotation with a regression head ---- */

#define SCORE_LEN 128
#define SCORE_SEQS 96
#define SCORE_RUNS 7
#define SCORE_THREADS 2

struct score_job {
    struct model model;
    struct score_batch *batch[SCORE_THREADS];
    int32_t token[SCORE_SEQS][SCORE_LEN];
    double sum[SCORE_THREADS];
};

static void score_take(void *self, size_t id, int target, const float *out, int n)
{
    double *sum = self;

    (void)id, (void)target;
    for (int i = 0; i < n; i++)
        *sum += (double)out[i];
}

static void score_part(void *self, int thread)
{
    struct score_job *j = self;
    struct template_target target = {.row = SCORE_LEN - 1};

    for (int i = thread; i < SCORE_SEQS; i += SCORE_THREADS)
        score_batch_add(j->batch[thread], (size_t)i, j->token[i], SCORE_LEN, &target, 1);
    score_batch_flush(j->batch[thread]);
}

static void bench_score(void)
{
    struct score_job *j = mem_zalloc(1, sizeof(*j));
    double rate[SCORE_RUNS], seconds[SCORE_RUNS + 1], sgemm = bench_sgemm(SCORE_THREADS, 768, 0.3);
    struct bench_spread spread;
    char note[96];

    j->model.dims = dims_15m;
    j->model.dims.tied = false;
    j->model.dims.head = HEAD_REGRESSION;
    j->model.dims.head_out = 9;
    j->model.params = random_params(&j->model.dims);
    for (uint32_t i = 0; i < SCORE_SEQS; i++)
        for (uint32_t t = 0; t < SCORE_LEN; t++)
            j->token[i][t] = (int32_t)rng_below(1, RNG_TEST, 2, i, t, 32000);
    for (int t = 0; t < SCORE_THREADS; t++)
        j->batch[t] = score_batch_new(&j->model, RUN_SCORE_ROWS, 1, NULL, &j->sum[t], score_take);
    bench_time(SCORE_THREADS, SCORE_RUNS + 1, score_part, j, seconds);
    for (int i = 0; i < SCORE_RUNS; i++)
        rate[i] = SCORE_LEN * SCORE_SEQS / seconds[i + 1];
    spread = bench_spread_of(rate, SCORE_RUNS);
    snprintf(note, sizeof note, "of the products of its tokens by sgemm at %.0f GFLOP/s", sgemm);
    bench_say("annotation 15M, regression head, rows of 128, 2 threads", &spread, "tokens/s",
              spread.median * 2.0 * weights_used(&j->model.dims) * 1e-9 / sgemm, note);
    for (int t = 0; t < SCORE_THREADS; t++)
        score_batch_free(j->batch[t]);
    free(j->model.params);
    free(j);
}

/* ---- what int8 costs ---- */

/* Nats a token of ids, a text as the model might write it. */
static double nats_of(const struct dims *d, const float *params, const int32_t *ids, int32_t n,
                      bool int8)
{
    struct cached *x = cached_new(d, 1, n, 1, int8);
    double sum = 0.0;

    cached_load(x, params);
    for (int32_t i = 0; i + 1 < n; i++) {
        struct cached_row row = {.position = i, .token = ids[i]};
        const real *logits = cached_logits(x, 0);
        double all = 0.0;
        cached_step(x, &row, 1);
        for (int32_t v = 0; v < d->vocab; v++)
            all += exp((double)logits[v] - (double)logits[ids[i + 1]]);
        sum += log(all);
    }
    cached_free(x);
    return sum / (double)(n - 1);
}

struct taken {
    struct feed feed;
    int32_t ids[257];
};

static bool taken_next(void *self, struct decode_request *out)
{
    return feed_next(&((struct taken *)self)->feed, out);
}

static void taken_done(void *self, const struct decode_result *r)
{
    struct taken *t = self;

    for (size_t i = 0; i < r->len; i++)
        t->ids[1 + i] = r->tokens[i];
}

static void bench_int8(const struct dims *d, const float *params)
{
    struct decoder *x = decoder_new(d, 1, 257, DECODE_FP32);
    struct decode_vocab words = {0};
    double full[16], less[16], change[16];
    struct bench_spread spread;

    for (int i = 0; i < 16; i++) {
        struct taken t = {.ids = {1}};
        struct decode_request one = {.key = (uint64_t)i, .prompt = t.ids, .prompt_len = 1};
        struct decode_source source = {&t, taken_next, taken_done, NULL};
        one.sampling = (struct sampling){1.0f, 0, 1.0f, 1.0f, 3.9f, 256};
        t.feed = (struct feed){&one, 0, 1};
        decode_run(x, i == 0 ? params : NULL, &words, NULL, 3, &source, NULL);
        full[i] = nats_of(d, params, t.ids, 257, false);
        less[i] = nats_of(d, params, t.ids, 257, true);
        change[i] = 100.0 * (exp(less[i] - full[i]) - 1.0);
    }
    spread = bench_spread_of(change, 16);
    bench_say("perplexity change of int8, 260K, 16 texts of 256 tokens", &spread, "%", (double)NAN,
              "");
    decoder_free(x);
}

static bool is_wanted(int argc, char **argv, const char *part)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], part) == 0)
            return true;
    return argc < 2;
}

static void bench_panels(void)
{
    bench_panel(24, 64, 128);
    bench_panel(24, 172, 64);
    bench_panel(1, 64, 512);
    bench_panel(32, 288, 864);
    bench_panel(32, 768, 288);
    bench_panel(32, 288, 8000);
    bench_panel(192, 288, 1536);
}

int main(int argc, char **argv)
{
    static const int slots[] = {12, 48};
    struct dims d = stories_dims();
    float *stories = stories_params(&d), *params = random_params(&dims_15m);
    bool two; /* threads only */

    argc = bench_args(argc, argv);
    bench_machine();
    if (is_wanted(argc, argv, "panel"))
        bench_panels();
    for (size_t i = 0; i < 2 && is_wanted(argc, argv, "slots"); i++)
        bench_slots("260K", &d, stories, slots[i], ROWS / 2);
    if (is_wanted(argc, argv, "int8"))
        bench_int8(&d, stories);
    two = argc > 1 && is_wanted(argc, argv, "stream2");
    if (two || is_wanted(argc, argv, "stream"))
        bench_streams("15M", &dims_15m, params, two ? 2 : 1);
    if (is_wanted(argc, argv, "batch") || is_wanted(argc, argv, "batch-f32"))
        bench_batch("15M", &dims_15m, params, DECODE_FP32);
    if (is_wanted(argc, argv, "batch"))
        bench_batch("15M", &dims_15m, params, DECODE_INT8);
    if (is_wanted(argc, argv, "score"))
        bench_score();
    free(params);
    free(stories);
    if (two || is_wanted(argc, argv, "stream")) {
        params = random_params(&dims_110m);
        bench_streams("110M", &dims_110m, params, two ? 2 : 1);
        free(params);
    }
    return 0;
}
