#include <cblas.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "model/gemm.h"
#include "tests/bench/bench.h"

struct team {
    pthread_barrier_t gate;
    int runs;
    void (*work)(void *self, int thread);
    void *self;
    double *seconds;
};
struct hand {
    struct team *team;
    int index;
    pthread_t thread;
};

static void *hand_main(void *arg)
{
    struct hand *h = arg;
    struct team *t = h->team;

    for (int i = 0; i < t->runs; i++) {
        uint64_t start;

        pthread_barrier_wait(&t->gate);
        start = clock_ns();
        t->work(t->self, h->index);
        pthread_barrier_wait(&t->gate);
        if (h->index == 0)
            t->seconds[i] = (double)(clock_ns() - start) * 1e-9;
    }
    return NULL;
}

void bench_time(int threads, int runs, void (*work)(void *self, int thread), void *self,
                double *seconds)
{
    struct team t = {.runs = runs, .work = work, .self = self, .seconds = seconds};
    struct hand hand[BENCH_THREADS_MAX];

    CHECK(threads >= 1 && threads <= BENCH_THREADS_MAX);
    pthread_barrier_init(&t.gate, NULL, (unsigned)threads);
    for (int i = 0; i < threads; i++) {
        hand[i] = (struct hand){.team = &t, .index = i};
        CHECK(pthread_create(&hand[i].thread, NULL, hand_main, &hand[i]) == 0);
    }
    for (int i = 0; i < threads; i++)
        pthread_join(hand[i].thread, NULL);
    pthread_barrier_destroy(&t.gate);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

struct bench_spread bench_spread_of(double *values, int n)
{
    CHECK(n >= 1);
    qsort(values, (size_t)n, sizeof *values, by_value);
    return (struct bench_spread){.median = values[n / 2],
                                 .low = values[n / 4],
                                 .high = values[(3 * n) / 4 - (n % 4 == 0)],
                                 .runs = n,
                                 .min = values[0],
                                 .max = values[n - 1]};
}

struct square {
    int n;
    float *a[BENCH_THREADS_MAX];
};

static void square_multiply(void *self, int thread)
{
    struct square *s = self;
    size_t elems = (size_t)s->n * (size_t)s->n;
    float *a = s->a[thread];

    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, s->n, s->n, s->n, 1.0f, a, s->n, a + elems,
                s->n, 0.0f, a + 2 * elems, s->n);
}

double bench_sgemm(int threads, int n, double seconds)
{
    struct square s = {.n = n};
    size_t elems = (size_t)n * (size_t)n;
    double took[BENCH_RUNS_MAX], flops = 2.0 * (double)elems * (double)n * threads;
    struct bench_spread spread;
    int runs;

    model_blas_init();
    for (int i = 0; i < threads; i++) {
        s.a[i] = mem_alloc(3 * elems * sizeof *s.a[i]);
        for (size_t k = 0; k < 2 * elems; k++)
            s.a[i][k] = (float)(k % 17) * 0.01f;
    }
    bench_time(threads, 2, square_multiply, &s, took);
    runs = (int)(seconds / took[1]);
    runs = runs < 3 ? 3 : runs > BENCH_RUNS_MAX ? BENCH_RUNS_MAX : runs;
    bench_time(threads, runs, square_multiply, &s, took);
    spread = bench_spread_of(took, runs);
    for (int i = 0; i < threads; i++)
        free(s.a[i]);
    return flops / spread.median * 1e-9;
}

#define MEMORY_FLOATS ((size_t)64 << 20)

struct reading {
    const float *from;
    int threads;
    float sum[BENCH_THREADS_MAX];
};

static void memory_read(void *self, int thread)
{
    struct reading *r = self;
    size_t part = MEMORY_FLOATS / (size_t)r->threads;
    const float *x = r->from + part * (size_t)thread;

    r->sum[thread] = cblas_sasum((int)part, x, 1);
}

double bench_memory(int threads, double seconds)
{
    struct reading r = {.threads = threads};
    float *x = mem_alloc(MEMORY_FLOATS * sizeof *x);
    double took[BENCH_RUNS_MAX];
    struct bench_spread spread;
    int runs;

    for (size_t i = 0; i < MEMORY_FLOATS; i++)
        x[i] = 1.0f;
    r.from = x;
    bench_time(threads, 2, memory_read, &r, took);
    runs = (int)(seconds / took[1]);
    runs = runs < 3 ? 3 : runs > BENCH_RUNS_MAX ? BENCH_RUNS_MAX : runs;
    bench_time(threads, runs, memory_read, &r, took);
    spread = bench_spread_of(took, runs);
    free(x);
    return (double)(MEMORY_FLOATS * sizeof *x) / spread.median * 1e-9;
}

void bench_machine(void)
{
    char line[256] = "", *name = NULL;
    FILE *f = fopen("/proc/cpuinfo", "r");

    while (f != NULL && name == NULL && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, "model name", 10) == 0 && (name = strchr(line, ':')) != NULL)
            name[strcspn(name, "\n")] = '\0';
    if (f != NULL)
        fclose(f);
    model_blas_init();
    printf("machine: %s, %ld cores, kernels %s, OpenBLAS %s\n",
           name != NULL ? name + 2 : "unknown CPU", sysconf(_SC_NPROCESSORS_ONLN), gemm_kernels(),
           openblas_get_corename());
}

static const char *bench = "bench", *json_path;

int bench_args(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/');
    int kept = 1;

    bench = slash != NULL ? slash + 1 : argv[0];
    if (strncmp(bench, "bench_", 6) == 0)
        bench += 6;
    json_path = getenv("BENCH_JSON");
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0 && i + 1 < argc)
            json_path = argv[++i];
        else
            argv[kept++] = argv[i];
    }
    argv[kept] = NULL;
    return kept;
}

static bool is_rate(const char *unit)
{
    return strstr(unit, "/s") != NULL;
}

static void say_json(FILE *f, const char *name, const struct bench_spread *value, const char *unit,
                     double ratio, const char *note)
{
    fprintf(f,
            "{\"bench\":\"%s\",\"case\":\"%s\",\"unit\":\"%s\",\"median\":%.6g,\"min\":%.6g,"
            "\"max\":%.6g,\"runs\":%d",
            bench, name, unit, value->median, value->min, value->max, value->runs);
    if (strncmp(note, "of ", 3) == 0)
        note += 3;
    if (!isnan(ratio) && ratio > 0.0)
        fprintf(f, ",\"bound\":{\"name\":\"%s\",\"value\":%.6g},\"ratio\":%.4g", note,
                is_rate(unit) ? value->median / ratio : value->median * ratio, ratio);
    fprintf(f, ",\"class\":\"%s\"}\n", gemm_kernels());
}

void bench_say(const char *name, const struct bench_spread *value, const char *unit, double ratio,
               const char *note)
{
    const char *path = json_path != NULL ? json_path : getenv("BENCH_JSON");
    FILE *f;

    printf("figure: %s: %.6g %s [%.4g, %.4g] of %d runs", name, value->median, unit, value->low,
           value->high, value->runs);
    if (!isnan(ratio))
        printf(", %.3f %s", ratio, note);
    printf("\n");
    fflush(stdout);
    f = path != NULL ? fopen(path, "a") : NULL;
    if (f == NULL)
        return;
    say_json(f, name, value, unit, ratio, note);
    fclose(f);
}
