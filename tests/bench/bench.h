/*
 * bench: what the benchmarks share. A measurement is repeated, and every repetition runs beside a
 * bound of the same moment (sgemm by the same BLAS, a copy of memory), so that a ratio holds on a
 * machine whose speed drifts. Prints median and quartiles for people and one JSON line for tools.
 */
#ifndef TESTS_BENCH_H
#define TESTS_BENCH_H

#include <stddef.h>
#include <stdint.h>

#define BENCH_RUNS_MAX 1000
#define BENCH_THREADS_MAX 64

struct bench_spread {
    double median, low, high; /* quartiles */
    int runs;
    double min, max;
};

/* Times work(self, thread) run by `threads` threads at once, `runs` times; seconds [runs], one a
 * run: from the first start to the last end. */
void bench_time(int threads, int runs, void (*work)(void *self, int thread), void *self,
                double *seconds);
struct bench_spread bench_spread_of(double *values, int n); /* sorts them */
/* GFLOP/s of sgemm [n, n] x [n, n]^T on `threads` threads at once, each its own matrices; about
 * `seconds` long. */
double bench_sgemm(int threads, int n, double seconds);
double bench_memory(int threads, double seconds); /* GB/s read, from outside every cache */
/* CPU, cores, kernel family and numerics class of this process, once at the start. */
void bench_machine(void);
/* First thing in main(): takes `--json FILE` out of the arguments (BENCH_JSON does the same for
 * programs that take none) and the name of the bench from the program's. Gives the new argc. */
int bench_args(int argc, char **argv);
/* "figure: NAME: 1234 UNIT [1200, 1260] of 5 runs, ratio NOTE", and a JSON line in the form that
 * tests/bench/README.md describes. ratio: share of the bound that was reached, 1 = all of it, NaN =
 * none is known; note: what the bound is. */
void bench_say(const char *name, const struct bench_spread *value, const char *unit, double ratio,
               const char *note);

#endif
