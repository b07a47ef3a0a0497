/*
 * The draw walks probabilities in order of id when nothing is cut off, and in falling order
 * otherwise. The latter pops a heap, so that the cost is V + kept * log V and not a full sort:
 * top_k and top_p keep few of many.
 */
#include "model/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"

#define LANES                                                                                      \
    8 /* partial sums of a total, added in a fixed order: the same on every machine, and vectors   \
         can do it */

size_t sampler_work_bytes(size_t V)
{
    return (V + LANES) * sizeof(double) + 2 * V * sizeof(int32_t);
}

/*
 * exp(x) for x <= 0 in double, relative error below 1e-15; 0 under -700. x = n ln 2 + r, |r| <= ln
 * 2 / 2, Taylor to r^13. Our own, so that a draw does not depend on the C library, and branch-free,
 * so that the loop over ids becomes vectors.
 */
static inline double exp_falling(double x)
{
    const double magic = 0x1.8p52;
    double inside = x < -700.0 ? -700.0 : x;
    double shifted = __builtin_fma(inside, 0x1.71547652b82fep0, magic);
    double n = shifted - magic;
    double r =
        __builtin_fma(-n, 0x1.abc9e3b39803fp-56, __builtin_fma(-n, 0x1.62e42fefa39efp-1, inside));
    double p = 1.0 / 6227020800.0;
    int64_t bits;
    double scale;

    p = __builtin_fma(p, r, 1.0 / 479001600.0);
    p = __builtin_fma(p, r, 1.0 / 39916800.0);
    p = __builtin_fma(p, r, 1.0 / 3628800.0);
    p = __builtin_fma(p, r, 1.0 / 362880.0);
    p = __builtin_fma(p, r, 1.0 / 40320.0);
    p = __builtin_fma(p, r, 1.0 / 5040.0);
    p = __builtin_fma(p, r, 1.0 / 720.0);
    p = __builtin_fma(p, r, 1.0 / 120.0);
    p = __builtin_fma(p, r, 1.0 / 24.0);
    p = __builtin_fma(p, r, 1.0 / 6.0);
    p = __builtin_fma(p, r, 0.5);
    p = __builtin_fma(p, r, 1.0);
    p = __builtin_fma(p, r, 1.0);
    memcpy(&bits, &shifted, sizeof(bits));
    bits = (int64_t)(((uint64_t)bits + 1023) << 52); /* low bits of shifted hold n: 2^n */
    memcpy(&scale, &bits, sizeof(scale));
    return x < -700.0 ? 0.0 : p * scale;
}

/* w[i] = exp((logit - best) * scale); gives their sum. */
static double weights_fill(const real *logits, size_t V, double best, double scale, double *w)
{
    double part[LANES] = {0};
    double sum = 0.0;

    for (size_t i = 0; i < V; i++)
        w[i] = exp_falling(((double)logits[i] - best) * scale);
    for (size_t i = V; i % LANES != 0; i++)
        w[i] = 0.0; /* room for it: sampler_work_bytes() */
    for (size_t i = 0; i < V; i += LANES) {
        for (size_t j = 0; j < LANES; j++)
            part[j] += w[i + j];
    }
    for (size_t j = 0; j < LANES; j++)
        sum += part[j];
    return sum;
}

void sampler_ban(real *logits, size_t V, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] >= 0 && (size_t)ids[i] < V)
            logits[ids[i]] = -(real)INFINITY;
    }
}

void sampler_allow(real *logits, size_t V, const int32_t *ids, size_t n)
{
    size_t from = 0;

    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= V)
            continue;
        CHECK((size_t)ids[i] + 1 > from); /* ascending */
        for (size_t id = from; id < (size_t)ids[i]; id++)
            logits[id] = -(real)INFINITY;
        from = (size_t)ids[i] + 1;
    }
    for (size_t id = from; id < V; id++)
        logits[id] = -(real)INFINITY;
}

void sampler_guide(real *cond, const real *uncond, size_t V, float g, float cut)
{
    real best = -(real)INFINITY;
    real least = -(real)INFINITY;

    for (size_t i = 0; i < V; i++) {
        if (cond[i] > best)
            best = cond[i];
    }
    if (g > 1.0f)
        least = best - (real)cut;
    for (size_t i = 0; i < V; i++) {
        if (cond[i] == -(real)INFINITY)
            continue;
        if (cond[i] < least)
            cond[i] = -(real)INFINITY;
        else
            cond[i] = uncond[i] + (real)g * (cond[i] - uncond[i]);
    }
}

/* The best id, lowest on ties; SAMPLER_NONE or SAMPLER_NOT_FINITE. */
static int32_t best_find(const real *logits, size_t V)
{
    int32_t best = SAMPLER_NONE;

    for (size_t i = 0; i < V; i++) {
        if (isnan(logits[i]) || logits[i] == (real)INFINITY)
            return SAMPLER_NOT_FINITE;
        if (logits[i] > -(real)INFINITY && (best < 0 || logits[i] > logits[best]))
            best = (int32_t)i;
    }
    return best;
}

static bool ranks_before(const real *logits, int32_t a, int32_t b)
{
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

static void heap_sink(const real *logits, int32_t *heap, size_t n, size_t at)
{
    for (;;) {
        size_t child = 2 * at + 1;
        int32_t id = heap[at];
        if (child >= n)
            return;
        if (child + 1 < n && ranks_before(logits, heap[child + 1], heap[child]))
            child++;
        if (!ranks_before(logits, heap[child], id))
            return;
        heap[at] = heap[child];
        heap[child] = id;
        at = child;
    }
}

/* Ids in falling order until top_k of them, or until their share of `total` is top_p (when top_k is
 * off); returns how many. */
static size_t ids_rank(const real *logits, size_t V, const struct sampling *s, const double *w,
                       double total, int32_t *heap, int32_t *ranked)
{
    size_t n = 0, kept = 0, most;
    double sum = 0.0;

    for (size_t i = 0; i < V; i++) {
        if (logits[i] > -(real)INFINITY)
            heap[n++] = (int32_t)i;
    }
    for (size_t i = n / 2; i-- > 0;)
        heap_sink(logits, heap, n, i);
    most = s->top_k > 0 && (size_t)s->top_k < n ? (size_t)s->top_k : n;
    while (kept < most) {
        ranked[kept++] = heap[0];
        sum += w[heap[0]];
        if (s->top_k <= 0 && sum >= (double)s->top_p * total)
            break;
        heap[0] = heap[--n];
        heap_sink(logits, heap, n, 0);
    }
    return kept;
}

/* Shortest prefix of ranked[0..kept) whose share of it is at least top_p. */
static size_t prefix_cut(const double *w, const int32_t *ranked, size_t kept, double top_p,
                         double *sum)
{
    double total = 0.0;

    *sum = 0.0;
    for (size_t i = 0; i < kept; i++)
        total += w[ranked[i]];
    for (size_t i = 0; i < kept; i++) {
        *sum += w[ranked[i]];
        if (*sum >= top_p * total)
            return i + 1;
    }
    return kept;
}

static int32_t ranked_pick(const real *logits, size_t V, const struct sampling *s, const double *w,
                           double total, double u, int32_t *heap, int32_t *ranked)
{
    double sum = 0.0, walked = 0.0;
    size_t kept = ids_rank(logits, V, s, w, total, heap, ranked);

    if (s->top_k > 0) {
        kept = prefix_cut(w, ranked, kept, (double)s->top_p, &sum);
    } else {
        for (size_t i = 0; i < kept; i++)
            sum += w[ranked[i]];
    }
    for (size_t i = 0; i < kept; i++) {
        walked += w[ranked[i]];
        if (walked > u * sum)
            return ranked[i];
    }
    return ranked[0]; /* u * sum rounded up to sum */
}

static int32_t plain_pick(const double *w, size_t V, double total, double u, int32_t best)
{
    double walked = 0.0;

    for (size_t i = 0; i < V; i++) {
        walked += w[i];
        if (walked > u * total)
            return (int32_t)i;
    }
    return best; /* u * total rounded up past the walk, which adds in another order */
}

struct sampler_draw sampler_pick(const real *logits, size_t V, const struct sampling *s,
                                 uint64_t seed, uint64_t key, uint32_t sample, uint32_t position,
                                 void *work)
{
    struct sampler_draw d = {SAMPLER_NONE, 0.0};
    double *w = work;
    int32_t *heap = (int32_t *)(void *)(w + V + LANES), *ranked = heap + V;
    double top, plain, total, u;
    uint64_t stream;

    d.id = best_find(logits, V);
    if (d.id < 0)
        return d;
    top = (double)logits[d.id];
    total = plain = weights_fill(logits, V, top, 1.0, w);
    if (s->temperature > 0.0f) {
        if (s->temperature != 1.0f)
            total = weights_fill(logits, V, top, 1.0 / (double)s->temperature, w);
        /* Two steps, because key, sample and position together are longer than one counter. */
        stream = rng_u64(seed, RNG_SAMPLE, (uint32_t)key, (uint32_t)(key >> 32), sample);
        u = rng_unit(stream, RNG_SAMPLE, 0, 0, position);
        if (s->top_k > 0 || s->top_p < 1.0f)
            d.id = ranked_pick(logits, V, s, w, total, u, heap, ranked);
        else
            d.id = plain_pick(w, V, total, u, d.id);
    }
    d.logprob = (double)logits[d.id] - top - log(plain);
    return d;
}
