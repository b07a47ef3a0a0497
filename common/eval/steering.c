#include "eval/steering.h"

#include <math.h>
#include <stdlib.h>

#include "base/beat.h"
#include "base/buf.h"
#include "base/err.h"

enum { STREAM_CONTEXTS = 1, STREAM_GAPS = 2 };

/* Replies laid out as [cell][measure][context], so that a column is what the intervals read. */
struct table {
    struct results *r;
    size_t cells;
    double *value;
    const struct steering_reply **reply; /* [cell][context] */
};

static size_t cell_index(const struct results *r, const struct results_cell *cell)
{
    return (size_t)(cell - r->cell);
}

static double *column_of(const struct table *t, size_t cell, int measure)
{
    return t->value + (cell * (size_t)t->r->measures + (size_t)measure) * t->r->contexts;
}

static void table_init(struct table *t, struct results *r, const struct steering_reply *reply,
                       size_t n)
{
    t->r = r;
    t->cells = (size_t)r->models * (1 + (size_t)(r->guidances * r->attrs * r->levels));
    t->value = mem_zalloc(t->cells * (size_t)r->measures * r->contexts + 1, sizeof *t->value);
    t->reply = mem_zalloc(t->cells * r->contexts + 1, sizeof *t->reply);
    for (size_t i = 0; i < t->cells * (size_t)r->measures * r->contexts; i++)
        t->value[i] = (double)NAN;
    for (size_t i = 0; i < n; i++) {
        const struct steering_reply *p = &reply[i];
        size_t cell = cell_index(r, results_cell(r, p->model, p->guidance, p->attr, p->level));
        CHECK(p->context < r->contexts && t->reply[cell * r->contexts + p->context] == NULL);
        t->reply[cell * r->contexts + p->context] = p;
        for (int m = 0; m < r->measures; m++)
            column_of(t, cell, m)[p->context] = p->value[m];
    }
}

static void table_fini(struct table *t)
{
    free(t->value);
    free(t->reply);
}

/* A measure is a rate if nothing generated leaves [0, 1] and it only takes the ends, or it is a
 * probability of the judge. */
static void rates_find(struct results *r, const struct steering_reply *reply, size_t n)
{
    for (int m = 0; m < r->measures; m++) {
        bool unit = true, ends = true;
        for (size_t i = 0; i < n; i++) {
            double v = reply[i].value[m];
            if (isnan(v))
                continue;
            unit = unit && v >= 0.0 && v <= 1.0;
            ends = ends && (v == 0.0 || v == 1.0);
        }
        r->measure[m].rate =
            n > 0 && unit && !r->measure[m].score && (ends || r->measure[m].judged);
    }
}

static void spreads_find(struct results *r, const struct steering_reply *reply, size_t n)
{
    double *x = mem_zalloc(n + 1, sizeof *x);

    for (int m = 0; m < r->measures; m++) {
        for (size_t i = 0; i < n; i++)
            x[i] = reply[i].value[m];
        if (isnan(r->spread[m]))
            r->spread[m] = stats_sd(x, n);
    }
    free(x);
}

static void cell_fill(const struct table *t, const struct boot *boot, size_t index)
{
    struct results_cell *cell = &t->r->cell[index];
    const struct steering_reply **reply = t->reply + index * t->r->contexts;
    struct stats_text *text = mem_zalloc(t->r->contexts + 1, sizeof *text);
    double tokens = 0.0, nll = 0.0, nll_tokens = 0.0, base = 0.0, base_tokens = 0.0;

    for (size_t c = 0; c < t->r->contexts; c++) {
        if (reply[c] == NULL)
            continue;
        text[cell->replies++] = reply[c]->text;
        tokens += reply[c]->tokens;
        nll += reply[c]->nll;
        nll_tokens += reply[c]->nll_tokens;
        base += reply[c]->base_nll;
        base_tokens += reply[c]->base_tokens;
    }
    beat();
    if (cell->replies > 0) {
        for (int m = 0; m < t->r->measures; m++)
            cell->mean[m] = boot_mean(boot, column_of(t, index, m));
        cell->distinct2 = stats_distinct(text, cell->replies, 2);
        cell->unique_words = stats_unique_words(text, cell->replies);
        cell->tokens = tokens / (double)cell->replies;
        cell->nll = nll_tokens > 0.0 ? nll / nll_tokens : (double)NAN;
        cell->base_nll = base_tokens > 0.0 ? base / base_tokens : (double)NAN;
    }
    free(text);
}

static double level_rho(const struct table *t, int model, int guidance, int attr, int measure,
                        double *x, double *y)
{
    size_t n = 0;

    for (int l = 0; l < t->r->levels; l++) {
        const double *column =
            column_of(t, cell_index(t->r, results_cell(t->r, model, guidance, attr, l)), measure);
        for (size_t c = 0; c < t->r->contexts; c++) {
            x[n] = t->r->level[l];
            y[n++] = column[c];
        }
    }
    return stats_spearman(x, y, n);
}

static void effects_fill(const struct table *t, const struct boot *boot)
{
    const struct results *r = t->r;
    double *x = mem_zalloc(2 * r->contexts * (size_t)r->levels + 1, sizeof *x),
           *y = x + r->contexts * (size_t)r->levels;

    for (int m = 0; m < r->models; m++) {
        for (int g = 0; g < r->guidances; g++) {
            for (int a = 0; a < r->attrs; a++) {
                struct results_effect *effect = results_effect(r, m, g, a);
                size_t low = cell_index(r, results_cell(r, m, g, a, 0));
                size_t high = cell_index(r, results_cell(r, m, g, a, r->levels - 1));
                beat();
                for (int k = 0; k < r->measures; k++) {
                    effect->measure[k] =
                        boot_paired(boot, column_of(t, high, k), column_of(t, low, k));
                    effect->rho[k] = level_rho(t, m, g, a, k, x, y);
                }
            }
        }
    }
    free(x);
}

void steering_replies(struct results *r, const struct steering_reply *reply, size_t n)
{
    struct table t;
    struct boot *boot;

    if (n == 0 || r->contexts == 0)
        return;
    table_init(&t, r, reply, n);
    boot = boot_new(r->contexts, STATS_RESAMPLES, r->seed, STREAM_CONTEXTS);
    rates_find(r, reply, n);
    spreads_find(r, reply, n);
    for (size_t c = 0; c < t.cells; c++)
        cell_fill(&t, boot, c);
    effects_fill(&t, boot);
    boot_free(boot);
    table_fini(&t);
}

static void human_level(struct results *r, int attr, int level, const struct steering_human *reply,
                        size_t n, double *x)
{
    struct results_human *human = &r->human[attr];

    for (int m = 0; m < r->measures; m++) {
        size_t found = 0;
        for (size_t i = 0; i < n; i++) {
            if (reply[i].level[attr] == r->level[level])
                x[found++] = reply[i].value[m];
        }
        human->replies[level] = found;
        human->mean[level][m] = stats_mean(x, found);
    }
}

void steering_humans(struct results *r, const struct steering_human *reply, size_t n)
{
    double *x = mem_zalloc(n + 1, sizeof *x);
    struct stats_text *text = mem_zalloc(n + 1, sizeof *text);
    size_t texts =
        n < r->contexts
            ? n
            : r->contexts; /* as many as a cell has: distinct-n falls with the amount of text */

    for (int a = 0; a < r->attrs; a++)
        for (int l = 0; l < r->levels; l++)
            human_level(r, a, l, reply, n, x);
    for (int m = 0; m < r->measures; m++) {
        for (size_t i = 0; i < n; i++)
            x[i] = reply[i].value[m];
        r->spread[m] = stats_sd(x, n);
    }
    for (size_t i = 0; i < texts; i++)
        text[i] = reply[i * n / texts].text;
    r->human_distinct2 = stats_distinct(text, texts, 2);
    r->human_replies = n;
    r->has_human = n > 0;
    free(x);
    free(text);
}

static double human_gap(const struct results *r, int attr, int measure)
{
    const struct results_human *h = &r->human[attr];
    double d = h->mean[r->levels - 1][measure] - h->mean[0][measure];

    if (!r->has_human || h->replies[0] == 0 || h->replies[r->levels - 1] == 0 ||
        !(r->spread[measure] > 0.0))
        return 0.0;
    return isnan(d) ? 0.0 : d / r->spread[measure];
}

void steering_leads(struct results *r)
{
    for (int a = 0; a < r->attrs; a++) {
        double best = 0.0;
        r->lead[a] = -1;
        r->sign[a] = 1;
        for (int m = 0; m < r->measures; m++) {
            if (r->measure[m].judged)
                continue;
            if (r->computed[a] && r->measure[m].attr == a) {
                r->lead[a] = m;
                r->sign[a] = 1;
                break;
            }
            if (!r->computed[a] && r->measure[m].attr < 0 && fabs(human_gap(r, a, m)) > best) {
                best = fabs(human_gap(r, a, m));
                r->lead[a] = m;
                r->sign[a] = human_gap(r, a, m) > 0.0 ? 1 : -1;
            }
        }
    }
}

/* Groups of a model's rows, from 0 without holes: number[i] of loss[i]; returns how many. */
static size_t groups_number(const struct steering_loss *loss, size_t n, int model, uint32_t *number)
{
    uint32_t most = 0, *seen;
    size_t groups = 0;

    for (size_t i = 0; i < n; i++)
        most = loss[i].group > most ? loss[i].group : most;
    seen = mem_zalloc((size_t)most + 1, sizeof *seen);
    for (size_t i = 0; i < n; i++) {
        if (loss[i].model != model)
            continue;
        if (seen[loss[i].group] == 0)
            seen[loss[i].group] = (uint32_t)++groups;
        number[i] = seen[loss[i].group] - 1;
    }
    free(seen);
    return groups;
}

static void gap_fill(struct results *r, int model, const struct steering_loss *loss, size_t n)
{
    struct results_gap *gap = &r->gap[model];
    uint32_t *number = mem_zalloc(n + 1, sizeof *number);
    size_t groups = groups_number(loss, n, model, number);
    double *x = mem_zalloc(3 * groups + 1, sizeof *x), *missing = x + groups,
           *tokens = missing + groups;
    double sum[3] = {0};

    for (size_t i = 0; i < n; i++) {
        if (loss[i].model != model)
            continue;
        x[number[i]] += loss[i].nll_shuffled - loss[i].nll_true;
        missing[number[i]] += loss[i].nll_missing - loss[i].nll_true;
        tokens[number[i]] += loss[i].tokens;
        gap->tokens += loss[i].tokens;
        gap->rows++;
        sum[0] += loss[i].nll_true;
        sum[1] += loss[i].nll_shuffled;
        sum[2] += loss[i].nll_missing;
    }
    if (groups > 0 && gap->tokens > 0.0) {
        struct boot *boot = boot_new(groups, STATS_RESAMPLES, r->seed, STREAM_GAPS);
        gap->nll_true = sum[0] / gap->tokens;
        gap->nll_shuffled = sum[1] / gap->tokens;
        gap->nll_missing = sum[2] / gap->tokens;
        gap->shuffled = boot_ratio(boot, x, tokens);
        gap->missing = boot_ratio(boot, missing, tokens);
        boot_free(boot);
    }
    free(x);
    free(number);
}

void steering_gaps(struct results *r, const struct steering_loss *loss, size_t n)
{
    for (int m = 0; m < r->models; m++) {
        beat();
        gap_fill(r, m, loss, n);
    }
}
