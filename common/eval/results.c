#include "eval/results.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"

static size_t cells_of(const struct results *r)
{
    return (size_t)r->models * (1 + (size_t)r->guidances * (size_t)r->attrs * (size_t)r->levels);
}

static const struct interval nothing = {(double)NAN, (double)NAN, (double)NAN};

void results_prepare(struct results *r)
{
    size_t cells = cells_of(r),
           effects = (size_t)r->models * (size_t)r->guidances * (size_t)r->attrs;

    CHECK(r->models >= 1 && r->models <= RESULTS_MODELS_MAX && r->guidances >= 1 &&
          r->guidances <= RESULTS_GUIDANCES_MAX);
    CHECK(r->attrs >= 0 && r->attrs <= SCHEMA_ATTRS_MAX && r->levels >= 1 &&
          r->levels <= RESULTS_LEVELS_MAX);
    CHECK(r->measures >= 0 && r->measures <= RESULTS_MEASURES_MAX);
    r->cell = mem_zalloc(cells, sizeof *r->cell);
    r->effect = mem_zalloc(effects + 1, sizeof *r->effect);
    for (size_t c = 0; c < cells; c++) {
        struct results_cell *cell = &r->cell[c];
        cell->distinct2 = cell->unique_words = cell->tokens = cell->nll = cell->base_nll =
            (double)NAN;
        for (int i = 0; i < RESULTS_MEASURES_MAX; i++)
            cell->mean[i] = nothing;
    }
    for (size_t c = 0; c < effects; c++) {
        for (int i = 0; i < RESULTS_MEASURES_MAX; i++) {
            r->effect[c].measure[i] = nothing;
            r->effect[c].rho[i] = (double)NAN;
        }
    }
    for (int m = 0; m < RESULTS_MODELS_MAX; m++)
        r->gap[m] = (struct results_gap){.nll_true = (double)NAN,
                                         .nll_shuffled = (double)NAN,
                                         .nll_missing = (double)NAN,
                                         .shuffled = nothing,
                                         .missing = nothing};
    for (int i = 0; i < RESULTS_MEASURES_MAX; i++)
        r->spread[i] = (double)NAN;
    for (int a = 0; a < SCHEMA_ATTRS_MAX; a++)
        r->lead[a] = -1;
    r->human_distinct2 = (double)NAN;
}

void results_fini(struct results *r)
{
    for (int i = 0; i < r->samples_n; i++) {
        free(r->sample[i].prompt);
        free(r->sample[i].text);
    }
    free(r->cell);
    free(r->effect);
    r->cell = NULL;
    r->effect = NULL;
    r->samples_n = 0;
}

struct results_cell *results_cell(const struct results *r, int model, int guidance, int attr,
                                  int level)
{
    size_t per_model = cells_of(r) / (size_t)r->models;

    CHECK(model >= 0 && model < r->models && attr >= -1 && attr < r->attrs);
    if (attr < 0)
        return &r->cell[(size_t)model * per_model];
    CHECK(guidance >= 0 && guidance < r->guidances && level >= 0 && level < r->levels);
    return &r->cell[(size_t)model * per_model + 1 +
                    (size_t)((guidance * r->attrs + attr) * r->levels + level)];
}

struct results_effect *results_effect(const struct results *r, int model, int guidance, int attr)
{
    CHECK(model >= 0 && model < r->models && guidance >= 0 && guidance < r->guidances &&
          attr >= 0 && attr < r->attrs);
    return &r->effect[(model * r->guidances + guidance) * r->attrs + attr];
}

static double settings_mean(const struct results *r, int model, int guidance, size_t field)
{
    double sum = 0.0;
    int n = 0;

    for (int a = 0; a < r->attrs; a++) {
        for (int l = 0; l < r->levels; l++) {
            double v;
            memcpy(&v, (const char *)results_cell(r, model, guidance, a, l) + field, sizeof v);
            if (!isnan(v)) {
                sum += v;
                n++;
            }
        }
    }
    return n > 0 ? sum / n : (double)NAN;
}

double results_mean_distinct2(const struct results *r, int model, int guidance)
{
    return settings_mean(r, model, guidance, offsetof(struct results_cell, distinct2));
}

double results_mean_nll(const struct results *r, int model, int guidance)
{
    return settings_mean(r, model, guidance, offsetof(struct results_cell, nll));
}

double results_base_rise(const struct results *r, int model, int guidance)
{
    return settings_mean(r, model, guidance, offsetof(struct results_cell, base_nll)) -
           results_cell(r, model, 0, -1, 0)->base_nll;
}

static size_t stem_length(const char *label)
{
    size_t n = strlen(label), digits = n;

    while (digits > 0 && label[digits - 1] >= '0' && label[digits - 1] <= '9')
        digits--;
    return digits < n && digits > 1 && label[digits - 1] == '-' ? digits - 1 : n;
}

bool results_same_group(const char *a, const char *b)
{
    size_t n = stem_length(a);

    return n == stem_length(b) && strncmp(a, b, n) == 0;
}

struct interval results_gap_over_seeds(const struct results *r, int first, int *seeds)
{
    double gap[RESULTS_MODELS_MAX];
    size_t n = 0;

    *seeds = 0;
    for (int m = 0; m < r->models; m++) {
        if (!results_same_group(r->model[m], r->model[first]) || r->gap[m].rows == 0)
            continue;
        if (m < first)
            return (struct interval){(double)NAN, (double)NAN, (double)NAN};
        gap[n++] = r->gap[m].shuffled.value;
    }
    if (n >= 2)
        *seeds = (int)n;
    return stats_t_interval(gap, n);
}

bool results_is_control(const char *label)
{
    return results_same_group(label, "control");
}

void results_guidance_text(double g, char out[24])
{
    snprintf(out, 24, "g%.4g", g);
}

