#include "eval/tfidf.h"

#include <math.h>
#include <stdlib.h>

#include "base/beat.h"
#include "base/buf.h"
#include "base/err.h"
#include "eval/words.h"

struct tfidf {
    struct words_map map; /* n-gram -> number of first appearance */
    uint32_t *feature;    /* that number -> column, UINT32_MAX where the n-gram is too rare */
    float *idf;           /* [features] */
    size_t features;
};

void csr_fini(struct csr *x)
{
    free(x->begin);
    free(x->column);
    free(x->value);
    *x = (struct csr){0};
}

struct grams { /* walks words and pairs of words */
    struct words words;
    uint64_t last, pair;
    bool has_last, has_pair;
};

static bool grams_next(struct grams *g, uint64_t *hash)
{
    uint64_t h;

    if (g->has_pair) {
        g->has_pair = false;
        *hash = g->pair;
        return true;
    }
    if (!words_next(&g->words, &h))
        return false;
    if (g->has_last) {
        g->pair = words_join(g->last, h);
        g->has_pair = true;
    }
    g->last = h;
    g->has_last = true;
    *hash = h;
    return true;
}

static struct grams grams_of(const struct stats_text *text)
{
    struct grams g = {0};

    words_begin(&g.words, text->text, text->len, true);
    return g;
}

struct tfidf *tfidf_fit(const struct stats_text *texts, size_t n, uint32_t min_df)
{
    struct tfidf *t = mem_zalloc(1, sizeof *t);
    size_t cap = 1024;
    uint32_t *df = mem_zalloc(cap, sizeof *df), *seen_in = mem_zalloc(cap, sizeof *seen_in);

    CHECK(n < UINT32_MAX);
    words_map_init(&t->map, 8 * n);
    for (size_t i = 0; i < n; i++) {
        struct grams g = grams_of(&texts[i]);
        uint64_t h;
        beat();
        while (grams_next(&g, &h)) {
            uint32_t id = words_map_add(&t->map, h);
            if (id >= cap) {
                df = mem_grow(df, 2 * cap, sizeof *df);
                seen_in = mem_grow(seen_in, 2 * cap, sizeof *seen_in);
                for (size_t j = cap; j < 2 * cap; j++)
                    df[j] = seen_in[j] = 0;
                cap *= 2;
            }
            if (seen_in[id] != i + 1) { /* a text counts once */
                seen_in[id] = (uint32_t)i + 1;
                df[id]++;
            }
        }
    }
    t->feature = mem_zalloc(t->map.used + 1, sizeof *t->feature);
    t->idf = mem_zalloc(t->map.used + 1, sizeof *t->idf);
    for (size_t id = 0; id < t->map.used; id++) {
        t->feature[id] = UINT32_MAX;
        if (df[id] >= min_df) {
            t->idf[t->features] = (float)(log((1.0 + (double)n) / (1.0 + df[id])) + 1.0);
            t->feature[id] = (uint32_t)t->features++;
        }
    }
    free(df);
    free(seen_in);
    return t;
}

void tfidf_free(struct tfidf *t)
{
    if (t == NULL)
        return;
    words_map_fini(&t->map);
    free(t->feature);
    free(t->idf);
    free(t);
}

size_t tfidf_features(const struct tfidf *t)
{
    return t->features;
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

/* Sorted columns with repeats become columns with weights of length 1; returns how many are left.
 */
static size_t row_finish(const struct tfidf *t, uint32_t *column, float *value, size_t n)
{
    size_t used = 0;
    double square = 0.0;
    float scale;

    qsort(column, n, sizeof *column, compare_u32);
    for (size_t i = 0; i < n;) {
        uint32_t c = column[i];
        float count = 0.0f;
        for (; i < n && column[i] == c; i++)
            count += 1.0f;
        column[used] = c;
        value[used] = count * t->idf[c];
        square += (double)value[used] * (double)value[used];
        used++;
    }
    scale = square > 0.0 ? (float)(1.0 / sqrt(square)) : 0.0f;
    for (size_t i = 0; i < used; i++)
        value[i] *= scale;
    return used;
}

void tfidf_rows(const struct tfidf *t, const struct stats_text *texts, size_t n, struct csr *out)
{
    size_t bound = 1, at = 0;

    for (size_t i = 0; i < n; i++) /* a text of b bytes has at most b words and b - 1 pairs */
        bound += texts[i].len;
    out->rows = n;
    out->columns = t->features;
    out->begin = mem_zalloc(n + 1, sizeof *out->begin);
    out->column = mem_zalloc(2 * bound, sizeof *out->column);
    out->value = mem_zalloc(2 * bound, sizeof *out->value);
    for (size_t i = 0; i < n; i++) {
        struct grams g = grams_of(&texts[i]);
        size_t end = at;
        uint64_t h;
        uint32_t id;
        beat();
        while (grams_next(&g, &h)) {
            if (words_map_find(&t->map, h, &id) && t->feature[id] != UINT32_MAX)
                out->column[end++] = t->feature[id];
        }
        at += row_finish(t, out->column + at, out->value + at, end - at);
        out->begin[i + 1] = at;
    }
    out->column = mem_grow(out->column, at + 1, sizeof *out->column);
    out->value = mem_grow(out->value, at + 1, sizeof *out->value);
}
