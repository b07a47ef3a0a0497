/*
 * Everything goes over the vocabulary in vectors, a few times at most, and nothing is sorted. What
 * top_k and top_p keep is a threshold on the logits: it is found digit by digit (11, 11 and 10 bits
 * of the logit's bits, whose order as whole numbers is that of the numbers), with counts and masses
 * of each digit, so that the cost is that of two or three looks at the candidates however many are
 * kept. The draw walks ids in rising order: blocks of weights first, then one block.
 *
 * Weights are exp in single precision; all sums are in double, in a fixed order.
 */
#include "model/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"
#include "model/vmath.h"

#define LANES                                                                                      \
    8 /* partial sums of a block, added in a fixed order: the same on every machine, and vectors   \
         can do it */
#define BLOCK 256
#define DIGITS 2048

struct digit { /* of those candidates that have it */
    double mass;
    uint32_t count;
};
struct work {
    real *w;             /* [V] in whole blocks, 0 behind V */
    double *block;       /* sums of blocks */
    int32_t *candidate;  /* [V] */
    struct digit *digit; /* [DIGITS] */
};

static size_t blocks_of(size_t V)
{
    return (V + BLOCK - 1) / BLOCK;
}

size_t sampler_work_bytes(size_t V)
{
    return DIGITS * sizeof(struct digit) + blocks_of(V) * (sizeof(double) + BLOCK * sizeof(real)) +
           V * sizeof(int32_t);
}

static struct work work_at(void *memory, size_t V)
{
    struct work x = {.digit = memory};

    x.block = (double *)(void *)(x.digit + DIGITS);
    x.w = (real *)(void *)(x.block + blocks_of(V));
    x.candidate = (int32_t *)(void *)(x.w + blocks_of(V) * BLOCK);
    return x;
}

static double block_sum(const real *w)
{
    double part[LANES] = {0}, sum = 0.0;

    for (size_t i = 0; i < BLOCK; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            part[j] += (double)w[i + j];
    for (size_t j = 0; j < LANES; j++)
        sum += part[j];
    return sum;
}

/* w[i] = exp((logit - best) * scale); gives their sum. */
static double weights_fill(const real *logits, size_t V, real best, real scale, struct work *x)
{
    vreal top = vm_set(best), factor = vm_set(scale);
    size_t i = 0;
    double sum = 0.0;

    for (; i + VM_LANES <= V; i += VM_LANES)
        vm_store(x->w + i, vm_exp((vm_load(logits + i) - top) * factor));
    if (i < V)
        vm_store(x->w + i,
                 vm_exp((vm_load_part(logits + i, V - i, -(real)INFINITY) - top) * factor));
    i = vm_round(V);
    memset(x->w + i, 0, (blocks_of(V) * BLOCK - i) * sizeof(*x->w));
    for (size_t b = 0; b < blocks_of(V); b++)
        sum += x->block[b] = block_sum(x->w + b * BLOCK);
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

static bool any_lane(vword mask)
{
    vm_word any = 0;

    for (size_t j = 0; j < VM_LANES; j++)
        any |= mask[j];
    return any != 0;
}

static real best_value(const real *logits, size_t V)
{
    vreal top = vm_set(-(real)INFINITY);
    size_t i = 0;

    for (; i + VM_LANES <= V; i += VM_LANES)
        top = vm_max(vm_load(logits + i), top);
    if (i < V)
        top = vm_max(vm_load_part(logits + i, V - i, -(real)INFINITY), top);
    return vm_max_lane(top);
}

void sampler_guide(real *cond, const real *uncond, size_t V, float g, float cut)
{
    const real never = -(real)INFINITY;
    real least = g > 1.0f ? best_value(cond, V) - (real)cut : never, strength = (real)g;

    for (size_t i = 0; i < V; i++) {
        real mixed = uncond[i] + strength * (cond[i] - uncond[i]);
        cond[i] = cond[i] == never || cond[i] < least ? never : mixed;
    }
}

/* The best id, lowest on ties; SAMPLER_NONE or SAMPLER_NOT_FINITE. */
static int32_t best_find(const real *logits, size_t V)
{
    vreal bound = vm_set((real)INFINITY);
    vword bad = {0};
    real top;
    size_t i = 0;

    for (; i + VM_LANES <= V; i += VM_LANES)
        bad |= ~(vword)(vm_load(logits + i) < bound);
    if (i < V)
        bad |= ~(vword)(vm_load_part(logits + i, V - i, 0) < bound);
    if (any_lane(bad))
        return SAMPLER_NOT_FINITE;
    top = best_value(logits, V);
    if (top == -(real)INFINITY)
        return SAMPLER_NONE;
    for (i = 0; i + VM_LANES <= V && !any_lane((vword)(vm_load(logits + i) == vm_set(top)));)
        i += VM_LANES;
    while (logits[i] != top)
        i++;
    return (int32_t)i;
}

/* ---- top_k and top_p
 * ------------------------------------------------------------------------------------------------
 */

/* Bits whose order as a whole number is that of the logits; of a double only its float. */
static uint32_t rank_of(real logit)
{
    float x = (float)logit + 0.0f; /* -0 is 0 */
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

struct cut {
    uint32_t rank; /* ids of higher rank are kept, and of this one the first `ties` */
    uint32_t ties;
};

/* Falling along one digit: where the count or the mass is reached. *count and *mass: what is still
 * wanted, and then what is wanted of that digit. */
static uint32_t digit_find(const struct digit *digit, uint32_t digits, uint64_t *count,
                           double *mass)
{
    uint32_t last = 0;

    for (uint32_t d = digits; d-- > 0;) {
        if (digit[d].count == 0)
            continue;
        last = d;
        if (digit[d].count >= *count || digit[d].mass >= *mass)
            return d;
        *count -= digit[d].count;
        *mass -= digit[d].mass;
    }
    *count = digit[last].count; /* rounding only: all are kept */
    *mass = digit[last].mass;
    return last;
}

/* The shortest set of best candidates that has `count` members or the mass. */
static struct cut cut_find(const real *logits, const struct work *x, size_t n, uint64_t count,
                           double mass)
{
    static const int shift[] = {21, 10, 0}, bits[] = {11, 11, 10};
    struct cut cut = {0, 0};
    uint64_t left = count;
    uint32_t known = 0;

    for (int level = 0; level < 3; level++) {
        uint32_t digits = 1u << bits[level], d;
        memset(x->digit, 0, digits * sizeof(*x->digit));
        for (size_t i = 0; i < n; i++) {
            uint32_t rank = rank_of(logits[x->candidate[i]]);
            if (level > 0 && rank >> (shift[level] + bits[level]) != known)
                continue;
            d = rank >> shift[level] & (digits - 1);
            x->digit[d].count++;
            x->digit[d].mass += (double)x->w[x->candidate[i]];
        }
        d = digit_find(x->digit, digits, &left, &mass);
        known = known << bits[level] | d;
        if (level == 2) {
            uint32_t same = x->digit[d].count;
            double each = x->digit[d].mass / same, sum = 0.0;
            while (cut.ties < same && cut.ties < left && (cut.ties == 0 || sum < mass)) {
                sum += each;
                cut.ties++;
            }
        }
    }
    cut.rank = known;
    return cut;
}

/* Leaves the candidates that the cut keeps; gives their mass. */
static double candidates_cut(const real *logits, const struct work *x, size_t *n, struct cut cut)
{
    size_t kept = 0;
    double mass = 0.0;

    for (size_t i = 0; i < *n; i++) {
        int32_t id = x->candidate[i];
        uint32_t rank = rank_of(logits[id]);
        if (rank < cut.rank || (rank == cut.rank && cut.ties == 0))
            continue;
        cut.ties -= rank == cut.rank;
        x->candidate[kept++] = id;
        mass += (double)x->w[id];
    }
    *n = kept;
    return mass;
}

/* Ids lighter than `least` can't be among the kept. */
static size_t candidates_fill(const struct work *x, size_t V, double least)
{
    real bound = (real)least;
    size_t n = 0;

    for (size_t i = 0; i < V; i += VM_LANES) {
        vreal w = vm_load(x->w + i);
        if (!any_lane((vword)(w > vm_set(bound))))
            continue;
        for (size_t j = 0; j < VM_LANES; j++)
            if (w[j] > bound)
                x->candidate[n++] = (int32_t)(i + j);
    }
    return n;
}

static int32_t cut_pick(const real *logits, size_t V, const struct sampling *s,
                        const struct work *x, double total, double u, int32_t best)
{
    /* All that weigh less than this together weigh less than what top_p leaves out; halved, for
     * what rounding does. */
    double top_p = (double)s->top_p, walked = 0.0;
    double least = s->top_k > 0 ? 0.0 : 0.5 * (1.0 - top_p) * total / (double)V;
    size_t n = candidates_fill(x, V, least);

    if (s->top_k > 0 && (size_t)s->top_k < n)
        total = candidates_cut(logits, x, &n,
                               cut_find(logits, x, n, (uint64_t)s->top_k, (double)INFINITY));
    if (top_p < 1.0)
        total = candidates_cut(logits, x, &n, cut_find(logits, x, n, UINT64_MAX, top_p * total));
    for (size_t i = 0; i < n; i++) {
        walked += (double)x->w[x->candidate[i]];
        if (walked > u * total)
            return x->candidate[i];
    }
    return best; /* u * total rounded up past the walk */
}

static int32_t plain_pick(const struct work *x, size_t V, double total, double u, int32_t best)
{
    double walked = 0.0, wanted = u * total;

    for (size_t b = 0; b < blocks_of(V); b++) {
        double before = walked;
        walked += x->block[b];
        if (walked <= wanted)
            continue;
        for (size_t i = b * BLOCK; i < (b + 1) * BLOCK; i++) {
            before += (double)x->w[i];
            if (before > wanted)
                return (int32_t)i;
        }
    }
    return best; /* rounded up past the walk, which adds in another order */
}

/* 1 / temperature, finite. */
static real sharpness(float temperature)
{
    double x = 1.0 / (double)temperature;

    return (real)(x < 1e38 ? x : 1e38);
}

struct sampler_draw sampler_pick(const real *logits, size_t V, const struct sampling *s,
                                 uint64_t seed, uint64_t key, uint32_t sample, uint32_t position,
                                 void *work)
{
    struct sampler_draw d = {SAMPLER_NONE, 0.0};
    struct work x = work_at(work, V);
    double plain, total, u;
    uint64_t stream;
    real top;

    d.id = best_find(logits, V);
    if (d.id < 0)
        return d;
    top = logits[d.id];
    total = plain = weights_fill(logits, V, top, 1, &x);
    if (s->temperature > 0.0f) {
        if (s->temperature != 1.0f)
            total = weights_fill(logits, V, top, sharpness(s->temperature), &x);
        /* Two steps, because key, sample and position together are longer than one counter. */
        stream = rng_u64(seed, RNG_SAMPLE, (uint32_t)key, (uint32_t)(key >> 32), sample);
        u = rng_unit(stream, RNG_SAMPLE, 0, 0, position);
        if (s->top_k > 0 || s->top_p < 1.0f)
            d.id = cut_pick(logits, V, s, &x, total, u, d.id);
        else
            d.id = plain_pick(&x, V, total, u, d.id);
    }
    d.logprob = (double)logits[d.id] - (double)top - log(plain);
    return d;
}
