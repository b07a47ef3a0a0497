#include "eval/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/beat.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/rng.h"
#include "eval/words.h"

bool interval_has(const struct interval *i, double x)
{
    return i->lo <= x && x <= i->hi;
}

double stats_mean(const double *x, size_t n)
{
    double sum = 0.0;
    size_t present = 0;

    for (size_t i = 0; i < n; i++) {
        if (!isnan(x[i])) {
            sum += x[i];
            present++;
        }
    }
    return present > 0 ? sum / (double)present : (double)NAN;
}

double stats_sd(const double *x, size_t n)
{
    double mean = stats_mean(x, n), sum = 0.0;
    size_t present = 0;

    for (size_t i = 0; i < n; i++) {
        if (!isnan(x[i])) {
            sum += (x[i] - mean) * (x[i] - mean);
            present++;
        }
    }
    return present > 1 ? sqrt(sum / (double)(present - 1)) : (double)NAN;
}

struct interval stats_t_interval(const double *x, size_t n)
{
    /* 97.5 % points of Student's t for 1, 2, ... degrees of freedom; further ones are within 1 % of
     * Fisher's expansion 1.96 + 2.37 / df + 2.82 / df^2 (Abramowitz & Stegun 26.7.5). */
    static const double point[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306};
    struct interval v = {stats_mean(x, n), (double)NAN, (double)NAN};
    size_t present = 0;
    double df, t;

    for (size_t i = 0; i < n; i++)
        present += isnan(x[i]) ? 0 : 1;
    if (present < 2)
        return v;
    df = (double)(present - 1);
    t = present - 2 < sizeof point / sizeof point[0] ? point[present - 2]
                                                     : 1.96 + 2.37 / df + 2.82 / (df * df);
    t *= stats_sd(x, n) / sqrt((double)present);
    v.lo = v.value - t;
    v.hi = v.value + t;
    return v;
}

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double stats_percentile(const double *sorted, size_t n, double p)
{
    double at = p * (double)(n - 1);
    size_t i = (size_t)at;

    CHECK(n > 0 && p >= 0.0 && p <= 1.0);
    if (i + 1 >= n)
        return sorted[n - 1];
    return sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]);
}

/* ---- bootstrap ------------------------------------------------------------------------------- */

struct boot {
    size_t n;
    uint32_t resamples, stream;
    uint64_t seed;
    bool stored;
    uint32_t *pick; /* [resamples][n] if they are stored; else [n], filled anew for each resample */
};
#define STORED_MAX ((size_t)32 << 20) /* draws: 128 MiB */

static void pick_units(uint32_t *pick, size_t n, uint64_t seed, uint32_t stream, uint32_t resample)
{
    for (size_t i = 0; i < n; i += 4) { /* one Philox block gives four draws */
        struct rng_block x = rng_at(seed, RNG_BOOT, stream, resample, (uint32_t)(i / 4));
        for (size_t j = 0; j < 4 && i + j < n; j++)
            pick[i + j] = (uint32_t)(((uint64_t)x.v[j] * n) >> 32);
    }
}

struct boot *boot_new(size_t n, uint32_t resamples, uint64_t seed, uint32_t stream)
{
    struct boot *b = mem_zalloc(1, sizeof *b);

    CHECK(n >= 1 && n < UINT32_MAX && resamples >= 2);
    *b = (struct boot){n, resamples, stream, seed, n <= STORED_MAX / resamples, NULL};
    b->pick = mem_zalloc(b->stored ? n * resamples : n, sizeof *b->pick);
    for (uint32_t r = 0; b->stored && r < resamples; r++)
        pick_units(b->pick + (size_t)r * n, n, seed, stream, r);
    return b;
}

static const uint32_t *picks_of(const struct boot *b, uint32_t resample)
{
    beat();
    if (b->stored)
        return b->pick + (size_t)resample * b->n;
    pick_units(b->pick, b->n, b->seed, b->stream, resample);
    return b->pick;
}

void boot_free(struct boot *b)
{
    if (b == NULL)
        return;
    free(b->pick);
    free(b);
}

/* Sorts value[] in place; resamples without any value (NaN) are left out. */
static struct interval interval_of(double value, double *resampled, size_t count)
{
    struct interval out = {value, (double)NAN, (double)NAN};
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        if (!isnan(resampled[i]))
            resampled[kept++] = resampled[i];
    }
    if (kept == 0 || isnan(value))
        return out;
    qsort(resampled, kept, sizeof *resampled, compare_double);
    out.lo = stats_percentile(resampled, kept, 0.025);
    out.hi = stats_percentile(resampled, kept, 0.975);
    return out;
}

static double ratio_of(const uint32_t *pick, const double *num, const double *den, size_t n)
{
    double a = 0.0, b = 0.0;

    for (size_t i = 0; i < n; i++) {
        a += num[pick[i]];
        b += den[pick[i]];
    }
    return b > 0.0 ? a / b : (double)NAN;
}

struct interval boot_ratio(const struct boot *b, const double *num, const double *den)
{
    double *value = mem_zalloc(b->resamples, sizeof *value);
    double *x = mem_zalloc(b->n, sizeof *x), *y = mem_zalloc(b->n, sizeof *y);
    double a = 0.0, c = 0.0;
    struct interval out;

    for (size_t i = 0; i < b->n;
         i++) { /* a unit that was not measured counts nothing on either side */
        bool present = !isnan(num[i]) && !isnan(den[i]);
        x[i] = present ? num[i] : 0.0;
        y[i] = present ? den[i] : 0.0;
        a += x[i];
        c += y[i];
    }
    for (uint32_t r = 0; r < b->resamples; r++)
        value[r] = ratio_of(picks_of(b, r), x, y, b->n);
    out = interval_of(c > 0.0 ? a / c : (double)NAN, value, b->resamples);
    free(value);
    free(x);
    free(y);
    return out;
}

struct interval boot_mean(const struct boot *b, const double *x)
{
    double *one = mem_zalloc(b->n, sizeof *one);
    struct interval out;

    for (size_t i = 0; i < b->n; i++)
        one[i] = 1.0;
    out = boot_ratio(b, x, one);
    free(one);
    return out;
}

struct interval boot_paired(const struct boot *b, const double *a, const double *c)
{
    double *d = mem_zalloc(b->n, sizeof *d);
    struct interval out;

    for (size_t i = 0; i < b->n; i++)
        d[i] = a[i] - c[i];
    out = boot_mean(b, d);
    free(d);
    return out;
}

struct interval boot_any(const struct boot *b, boot_fn fn, void *self)
{
    double *value = mem_zalloc(b->resamples, sizeof *value);
    uint32_t *all = mem_zalloc(b->n, sizeof *all);
    struct interval out;

    for (size_t i = 0; i < b->n; i++)
        all[i] = (uint32_t)i;
    for (uint32_t r = 0; r < b->resamples; r++)
        value[r] = fn(self, picks_of(b, r), b->n);
    out = interval_of(fn(self, all, b->n), value, b->resamples);
    free(value);
    free(all);
    return out;
}

static double picked_mean(const double *x, const uint32_t *pick, size_t n)
{
    double sum = 0.0;
    size_t present = 0;

    for (size_t i = 0; i < n; i++) {
        double v = x[pick[i]];
        if (!isnan(v)) {
            sum += v;
            present++;
        }
    }
    return present > 0 ? sum / (double)present : (double)NAN;
}

struct interval stats_boot_diff(const double *a, size_t na, const double *c, size_t nc,
                                uint32_t resamples, uint64_t seed, uint32_t stream)
{
    double *value = mem_zalloc(resamples, sizeof *value);
    uint32_t *pick = mem_zalloc(na > nc ? na : nc, sizeof *pick);
    struct interval out;

    CHECK(na >= 1 && nc >= 1 && resamples >= 2);
    for (uint32_t r = 0; r < resamples; r++) {
        pick_units(pick, na, seed, stream, 2 * r);
        value[r] = picked_mean(a, pick, na);
        pick_units(pick, nc, seed, stream, 2 * r + 1);
        value[r] -= picked_mean(c, pick, nc);
    }
    out = interval_of(stats_mean(a, na) - stats_mean(c, nc), value, resamples);
    free(value);
    free(pick);
    return out;
}

/* ---- ranks ----------------------------------------------------------------------------------- */

struct ranked {
    double x;
    size_t i;
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;

    if (x->x < y->x || x->x > y->x)
        return x->x < y->x ? -1 : 1;
    return (x->i > y->i) - (x->i < y->i);
}

void stats_ranks(const double *x, size_t n, double *rank)
{
    struct ranked *order = mem_zalloc(n > 0 ? n : 1, sizeof *order);

    for (size_t i = 0; i < n; i++)
        order[i] = (struct ranked){x[i], i};
    qsort(order, n, sizeof *order, compare_ranked);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && !(order[end].x > order[i].x); end++)
            ;
        for (size_t j = i; j < end; j++) /* ranks i+1 .. end, averaged */
            rank[order[j].i] = ((double)i + 1.0 + (double)end) / 2.0;
    }
    free(order);
}

double stats_pearson(const double *x, const double *y, size_t n)
{
    double mx = 0.0, my = 0.0, xx = 0.0, yy = 0.0, xy = 0.0;
    size_t present = 0;

    for (size_t i = 0; i < n; i++) {
        if (isnan(x[i]) || isnan(y[i]))
            continue;
        mx += x[i];
        my += y[i];
        present++;
    }
    if (present < 2)
        return (double)NAN;
    mx /= (double)present;
    my /= (double)present;
    for (size_t i = 0; i < n; i++) {
        if (isnan(x[i]) || isnan(y[i]))
            continue;
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
        xy += (x[i] - mx) * (y[i] - my);
    }
    return xx > 0.0 && yy > 0.0 ? xy / sqrt(xx * yy) : (double)NAN;
}

double stats_spearman(const double *x, const double *y, size_t n)
{
    double *a = mem_zalloc(n > 0 ? 4 * n : 1, sizeof *a);
    double *b = a + n, *rank_a = b + n, *rank_b = rank_a + n;
    size_t present = 0;
    double rho;

    for (size_t i = 0; i < n; i++) {
        if (isnan(x[i]) || isnan(y[i]))
            continue;
        a[present] = x[i];
        b[present++] = y[i];
    }
    stats_ranks(a, present, rank_a);
    stats_ranks(b, present, rank_b);
    rho = stats_pearson(rank_a, rank_b, present);
    free(a);
    return rho;
}

double stats_auc(const double *score, const bool *positive, size_t n)
{
    double *rank = mem_zalloc(n > 0 ? n : 1, sizeof *rank);
    double sum = 0.0, yes = 0.0, no;

    stats_ranks(score, n, rank);
    for (size_t i = 0; i < n; i++) {
        if (positive[i]) {
            sum += rank[i];
            yes += 1.0;
        }
    }
    no = (double)n - yes;
    free(rank);
    return yes > 0.0 && no > 0.0 ? (sum - yes * (yes + 1.0) / 2.0) / (yes * no) : (double)NAN;
}

void stats_quantile_edges(double *values, size_t n, int levels, double *edge)
{
    size_t cut = 0;

    CHECK(n > 0 && levels >= 1);
    for (size_t i = 0; i < n; i++)
        CHECK(!isnan(values[i]));
    qsort(values, n, sizeof *values, compare_double);
    for (int l = 1; l < levels; l++) {
        double want =
            (double)cut + (double)(n - cut) / (levels - l + 1); /* what is left, in equal shares */
        size_t at = (size_t)want < n ? (size_t)want : n - 1;
        size_t below,
            above; /* nearest places at or below and above `want` where the value changes */
        for (below = at; below > cut && !(values[below] > values[below - 1]); below--)
            ;
        for (above = at + 1; above < n && !(values[above] > values[above - 1]); above++)
            ;
        if (cut < n)
            cut = below > cut && want - (double)below <= (double)above - want ? below : above;
        edge[l - 1] = cut < n ? values[cut] : nextafter(values[n - 1], (double)INFINITY);
    }
}

/* ---- diversity ------------------------------------------------------------------------------- */

double stats_distinct(const struct stats_text *texts, size_t count, int gram)
{
    struct words_map seen;
    size_t total = 0;
    double distinct;

    CHECK(gram >= 1 && gram <= 8);
    words_map_init(&seen, 1024);
    for (size_t i = 0; i < count; i++) {
        uint64_t last[8] = {0}, h;
        struct words w;
        int have = 0;
        words_begin(&w, texts[i].text, texts[i].len, false);
        while (words_next(&w, &h)) {
            memmove(last, last + 1, sizeof last - sizeof last[0]);
            last[7] = h;
            if (++have < gram)
                continue;
            h = last[8 - gram];
            for (int g = 9 - gram; g < 8; g++)
                h = words_join(h, last[g]);
            words_map_add(&seen, h);
            total++;
        }
    }
    distinct = total > 0 ? (double)seen.used / (double)total : (double)NAN;
    words_map_fini(&seen);
    return distinct;
}

double stats_unique_words(const struct stats_text *texts, size_t count)
{
    double sum = 0.0;

    for (size_t i = 0; i < count; i++) {
        struct words_map seen;
        struct words w;
        uint64_t h;
        words_map_init(&seen, 32);
        words_begin(&w, texts[i].text, texts[i].len, false);
        while (words_next(&w, &h))
            words_map_add(&seen, h);
        sum += (double)seen.used;
        words_map_fini(&seen);
    }
    return count > 0 ? sum / (double)count : (double)NAN;
}
