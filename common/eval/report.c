#include "eval/report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "eval/figures.h"

static void put_number(cJSON *o, const char *key, double v)
{
    if (isfinite(v))
        cJSON_AddNumberToObject(o, key, v);
    else
        cJSON_AddNullToObject(o, key); /* not measured */
}

static cJSON *put_object(cJSON *o, const char *key)
{
    return cJSON_AddObjectToObject(o, key);
}

static cJSON *append_object(cJSON *list)
{
    cJSON *o = cJSON_CreateObject();

    cJSON_AddItemToArray(list, o);
    return o;
}

static cJSON *put_interval(cJSON *o, const char *key, const struct interval *v)
{
    cJSON *i = put_object(o, key);

    put_number(i, "value", v->value);
    put_number(i, "lo", v->lo);
    put_number(i, "hi", v->hi);
    return i;
}

static void put_cell(cJSON *o, const struct results *r, const struct results_cell *cell)
{
    cJSON *means;

    cJSON_AddNumberToObject(o, "replies", (double)cell->replies);
    put_number(o, "tokens", cell->tokens);
    put_number(o, "distinct_2", cell->distinct2);
    put_number(o, "unique_words", cell->unique_words);
    put_number(o, "nll_per_token", cell->nll);
    put_number(o, "base_nll_per_token", cell->base_nll);
    means = put_object(o, "mean");
    for (int m = 0; m < r->measures; m++)
        put_interval(means, r->measure[m].name, &cell->mean[m]);
}

static void put_design(cJSON *root, const struct results *r)
{
    cJSON *o = put_object(root, "design"), *list;

    cJSON_AddNumberToObject(o, "contexts", (double)r->contexts);
    cJSON_AddStringToObject(o, "others", r->others);
    put_number(o, "temperature", r->temperature);
    cJSON_AddNumberToObject(o, "max_new_tokens", r->max_new_tokens);
    cJSON_AddNumberToObject(o, "resamples", STATS_RESAMPLES);
    list = cJSON_AddArrayToObject(o, "models");
    for (int i = 0; i < r->models; i++)
        cJSON_AddItemToArray(list, cJSON_CreateString(r->model[i]));
    list = cJSON_AddArrayToObject(o, "levels");
    for (int i = 0; i < r->levels; i++)
        cJSON_AddItemToArray(list, cJSON_CreateNumber(r->level[i]));
    list = cJSON_AddArrayToObject(o, "guidance");
    for (int i = 0; i < r->guidances; i++)
        cJSON_AddItemToArray(list, cJSON_CreateNumber(r->guidance[i]));
    list = cJSON_AddArrayToObject(o, "attributes");
    for (int i = 0; i < r->attrs; i++) {
        cJSON *a = append_object(list);
        cJSON_AddStringToObject(a, "name", r->attr[i]);
        cJSON_AddBoolToObject(a, "computed", r->computed[i]);
        if (r->lead[i] >= 0) {
            cJSON_AddStringToObject(a, "ruler", r->measure[r->lead[i]].name);
            cJSON_AddNumberToObject(a, "direction", r->sign[i]);
        }
    }
    list = cJSON_AddArrayToObject(o, "measures");
    for (int i = 0; i < r->measures; i++) {
        cJSON *m = append_object(list);
        cJSON_AddStringToObject(m, "name", r->measure[i].name);
        cJSON_AddBoolToObject(m, "attribute_model", r->measure[i].judged);
        cJSON_AddBoolToObject(m, "rate", r->measure[i].rate);
        put_number(m, "standard_deviation", r->spread[i]);
    }
}

static void put_setting(cJSON *list, const struct results *r, int model, int g, int attr)
{
    const struct results_effect *effect = results_effect(r, model, g, attr);
    cJSON *o = append_object(list), *levels, *effects;

    cJSON_AddStringToObject(o, "model", r->model[model]);
    cJSON_AddNumberToObject(o, "guidance", r->guidance[g]);
    cJSON_AddStringToObject(o, "attribute", r->attr[attr]);
    levels = cJSON_AddArrayToObject(o, "levels");
    for (int l = 0; l < r->levels; l++) {
        cJSON *level = append_object(levels);
        cJSON_AddNumberToObject(level, "level", r->level[l]);
        put_cell(level, r, results_cell(r, model, g, attr, l));
    }
    effects = put_object(o, "effects");
    for (int m = 0; m < r->measures; m++)
        put_number(put_interval(effects, r->measure[m].name, &effect->measure[m]), "spearman",
                   effect->rho[m]);
}

static void put_human(cJSON *root, const struct results *r)
{
    cJSON *o, *list;

    if (!r->has_human)
        return;
    o = put_object(root, "human");
    cJSON_AddNumberToObject(o, "replies", (double)r->human_replies);
    put_number(o, "distinct_2", r->human_distinct2);
    list = cJSON_AddArrayToObject(o, "attributes");
    for (int a = 0; a < r->attrs; a++) {
        for (int l = 0; l < r->levels; l++) {
            cJSON *x = append_object(list), *mean;
            cJSON_AddStringToObject(x, "attribute", r->attr[a]);
            cJSON_AddNumberToObject(x, "level", r->level[l]);
            cJSON_AddNumberToObject(x, "replies", (double)r->human[a].replies[l]);
            mean = put_object(x, "mean");
            for (int m = 0; m < r->measures; m++)
                put_number(mean, r->measure[m].name, r->human[a].mean[l][m]);
        }
    }
}

static void put_gaps(cJSON *root, const struct results *r)
{
    cJSON *list = cJSON_AddArrayToObject(root, "loss");

    for (int m = 0; m < r->models; m++) {
        const struct results_gap *gap = &r->gap[m];
        cJSON *o;
        if (gap->rows == 0)
            continue;
        o = append_object(list);
        cJSON_AddStringToObject(o, "model", r->model[m]);
        cJSON_AddNumberToObject(o, "responses", (double)gap->rows);
        cJSON_AddNumberToObject(o, "tokens", gap->tokens);
        put_number(o, "nll_true", gap->nll_true);
        put_number(o, "nll_shuffled", gap->nll_shuffled);
        put_number(o, "nll_missing", gap->nll_missing);
        put_interval(o, "gap_shuffled", &gap->shuffled);
        put_interval(o, "gap_missing", &gap->missing);
    }
}

static void put_scores(cJSON *o, const char *key, const struct results_scores *s, double knob)
{
    cJSON *x = put_object(o, key);

    put_number(x, "accuracy", s->accuracy);
    put_number(x, "kappa", s->kappa);
    put_number(x, "macro_f1", s->macro_f1);
    put_number(x, "auc", s->auc);
    if (!isnan(knob))
        put_number(x, "knob", knob);
}

static void put_judged(cJSON *root, const struct results *r)
{
    cJSON *list = cJSON_AddArrayToObject(root, "attribute_model");

    for (int i = 0; i < r->judged_n; i++) {
        const struct results_judged *j = &r->judged[i];
        cJSON *o = append_object(list), *names;
        cJSON_AddStringToObject(o, "label", j->label);
        names = cJSON_AddArrayToObject(o, "classes");
        for (int c = 0; c < j->classes; c++)
            cJSON_AddItemToArray(names, cJSON_CreateString(j->class_name[c]));
        cJSON_AddNumberToObject(o, "tuned_on", (double)j->tuned_on);
        cJSON_AddNumberToObject(o, "tested_on", (double)j->tested_on);
        put_number(o, "majority_accuracy", j->majority);
        put_scores(o, "model", &j->model, j->model_knob);
        put_scores(o, "model_untuned", &j->model_raw, (double)NAN);
        put_interval(o, "model_kappa", &j->model_kappa);
        if (!j->has_baseline)
            continue;
        put_scores(o, "tfidf", &j->baseline, j->baseline_knob);
        put_scores(o, "tfidf_untuned", &j->baseline_raw, (double)NAN);
        put_interval(o, "tfidf_kappa", &j->baseline_kappa);
        put_interval(o, "kappa_minus_tfidf", &j->difference);
    }
}

static void put_samples(cJSON *root, const struct results *r)
{
    cJSON *list = cJSON_AddArrayToObject(root, "samples");

    for (int i = 0; i < r->samples_n; i++) {
        const struct results_sample *s = &r->sample[i];
        cJSON *o = append_object(list);
        cJSON_AddNumberToObject(o, "context", (double)s->context);
        cJSON_AddStringToObject(o, "model", r->model[s->model]);
        if (s->attr >= 0) {
            cJSON_AddNumberToObject(o, "guidance", r->guidance[s->guidance]);
            cJSON_AddStringToObject(o, "attribute", r->attr[s->attr]);
            cJSON_AddNumberToObject(o, "level", r->level[s->level]);
        }
        cJSON_AddStringToObject(o, "prompt", s->prompt);
        cJSON_AddStringToObject(o, "reply", s->text);
    }
}

cJSON *report_json(const struct results *r)
{
    cJSON *root = cJSON_CreateObject(), *list;
    bool ok = true;

    cJSON_AddStringToObject(root, "name", r->name);
    cJSON_AddNumberToObject(root, "seed", (double)r->seed);
    put_design(root, r);
    list = cJSON_AddArrayToObject(root, "figures");
    for (int i = 0; i < r->figures_n; i++) {
        const struct results_figure *f = &r->figure[i];
        cJSON *o = append_object(list);
        cJSON_AddStringToObject(o, "name", f->name);
        put_number(o, "value", f->value);
        if (!isnan(f->lo)) {
            put_number(o, "lo", f->lo);
            put_number(o, "hi", f->hi);
        }
        cJSON_AddStringToObject(o, "bound", f->bound);
        cJSON_AddBoolToObject(o, "ok", f->ok);
        ok = ok && f->ok;
    }
    cJSON_AddBoolToObject(root, "ok", ok);
    list = cJSON_AddArrayToObject(root, "steering");
    for (int m = 0; m < r->models; m++)
        for (int g = 0; g < r->guidances; g++)
            for (int a = 0; a < r->attrs; a++)
                put_setting(list, r, m, g, a);
    list = cJSON_AddArrayToObject(root, "unconditioned");
    for (int m = 0; m < r->models; m++) {
        cJSON *o = append_object(list);
        cJSON_AddStringToObject(o, "model", r->model[m]);
        put_cell(o, r, results_cell(r, m, 0, -1, 0));
    }
    put_human(root, r);
    put_gaps(root, r);
    put_judged(root, r);
    put_samples(root, r);
    return root;
}

/* ---- metrics --------------------------------------------------------------------------------- */

/* What a report says of its design as a whole, what it measured of each setting, how sure that is, what else changed. */
enum rank { RANK_WHOLE, RANK_VALUE, RANK_INTERVAL, RANK_OTHER, RANKS };

enum { METRICS_BYTES = 40 << 10 };
enum { NUMBER_BYTES = 28 }; /* "":-1.2345678901234567e-300, */

struct sink {
    void (*add)(void *self, const char *name, double value);
    void *self;
    bool all;       /* every measure with its interval, however many there are */
    enum rank rank; /* that is being added */
    size_t bytes;
    bool full; /* something was left out, and so is all after it */
};

__attribute__((format(printf, 4, 5))) static void metric(struct sink *s, enum rank rank, double v,
                                                         const char *fmt, ...)
{
    char name[256];
    va_list ap;

    if (!isfinite(v) || rank != s->rank || s->full)
        return;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    s->bytes += strlen(name) + NUMBER_BYTES;
    s->full = !s->all && s->bytes > METRICS_BYTES;
    if (!s->full)
        s->add(s->self, name, v);
}

static void metric_interval(struct sink *s, enum rank value, enum rank ends,
                            const struct interval *v, const char *name)
{
    metric(s, value, v->value, "%s", name);
    metric(s, ends, v->lo, "%s.lo", name);
    metric(s, ends, v->hi, "%s.hi", name);
}

/* The smallest rise of a measure from one level tested to the next: above 0 if the means rise strictly. */
static double smallest_step(const struct results *r, int model, int g, int attr, int m)
{
    double least = (double)INFINITY;

    for (int l = 1; l < r->levels; l++) {
        double step = results_cell(r, model, g, attr, l)->mean[m].value -
                      results_cell(r, model, g, attr, l - 1)->mean[m].value;
        least = step < least ? step : least; /* NaN (nothing written) is left out */
    }
    return least;
}

/* Rulers that a figure rests on have intervals, those of the model under test (0) before what is said of others; other rulers only if all
 * is wanted. */
static void effect_metrics(const struct results *r, struct sink *s, int model, int g, int attr)
{
    const struct results_effect *effect = results_effect(r, model, g, attr);
    char guide[24], name[224];

    results_guidance_text(r->guidance[g], guide);
    for (int m = 0; m < r->measures; m++) {
        bool own = r->measure[m].attr == attr, lead = r->lead[attr] == m;
        if (!own && !lead && r->measure[m].judged)
            continue; /* the whole leakage matrix is in report.json */
        snprintf(name, sizeof name, "effect.%s.%s.%s.%s", r->model[model], guide, r->attr[attr],
                 r->measure[m].name);
        if (own || lead)
            metric_interval(s, RANK_VALUE, model == 0 ? RANK_VALUE : RANK_INTERVAL,
                            &effect->measure[m], name);
        else if (s->all)
            metric_interval(s, RANK_OTHER, RANK_OTHER, &effect->measure[m], name);
        else
            metric(s, RANK_OTHER, effect->measure[m].value, "%s", name);
        if (own && r->computed[attr]) {
            metric(s, RANK_VALUE, smallest_step(r, model, g, attr, m), "step.%s.%s.%s.%s",
                   r->model[model], guide, r->attr[attr], r->measure[m].name);
            metric(s, RANK_VALUE, effect->rho[m], "spearman.%s.%s.%s.%s", r->model[model], guide,
                   r->attr[attr], r->measure[m].name);
        }
    }
}

static void model_metrics(const struct results *r, struct sink *s, int m)
{
    char guide[24], name[128];
    struct interval over_seeds;
    int seeds;

    for (int g = 0; g < r->guidances; g++) {
        results_guidance_text(r->guidance[g], guide);
        for (int a = 0; a < r->attrs; a++)
            effect_metrics(r, s, m, g, a);
        metric(s, RANK_VALUE, results_mean_distinct2(r, m, g), "distinct2.%s.%s", r->model[m],
               guide);
        metric(s, RANK_VALUE, results_mean_nll(r, m, g), "fluency_nll.%s.%s", r->model[m], guide);
        metric(s, RANK_VALUE, results_base_rise(r, m, g), "base_nll_rise.%s.%s", r->model[m],
               guide);
    }
    metric(s, RANK_WHOLE, figures_largest_rate(r, m, false), "largest_rate.%s", r->model[m]);
    metric(s, RANK_WHOLE, figures_largest_rate(r, m, true), "largest_rate_any.%s", r->model[m]);
    metric(s, RANK_WHOLE, r->gap[m].nll_true, "nll.%s", r->model[m]);
    metric(s, RANK_WHOLE, r->gap[m].nll_missing, "nll_missing.%s", r->model[m]);
    snprintf(name, sizeof name, "gap.%s", r->model[m]);
    metric_interval(s, RANK_WHOLE, RANK_WHOLE, &r->gap[m].shuffled, name);
    over_seeds = results_gap_over_seeds(r, m, &seeds);
    snprintf(name, sizeof name, "seeds.gap.%s", r->model[m]);
    if (seeds > 0)
        metric_interval(s, RANK_WHOLE, RANK_WHOLE, &over_seeds, name);
}

static void judged_metrics(const struct results *r, struct sink *s)
{
    for (int i = 0; i < r->judged_n; i++) {
        const struct results_judged *j = &r->judged[i];
        metric(s, RANK_WHOLE, j->majority, "majority.%s.accuracy", j->label);
        metric(s, RANK_WHOLE, j->model.accuracy, "am.%s.accuracy", j->label);
        metric(s, RANK_WHOLE, j->model.kappa, "am.%s.kappa", j->label);
        metric(s, RANK_WHOLE, j->model_kappa.lo, "am.%s.kappa.lo", j->label);
        metric(s, RANK_WHOLE, j->model.macro_f1, "am.%s.macro_f1", j->label);
        metric(s, RANK_WHOLE, j->model.auc, "am.%s.auc", j->label);
        if (!j->has_baseline)
            continue;
        metric(s, RANK_WHOLE, j->baseline.accuracy, "tfidf.%s.accuracy", j->label);
        metric(s, RANK_WHOLE, j->baseline.kappa, "tfidf.%s.kappa", j->label);
        metric(s, RANK_WHOLE, j->baseline.macro_f1, "tfidf.%s.macro_f1", j->label);
        metric(s, RANK_WHOLE, j->baseline.auc, "tfidf.%s.auc", j->label);
        metric(s, RANK_WHOLE, j->difference.value, "am.%s.kappa_minus_tfidf", j->label);
        metric(s, RANK_WHOLE, j->difference.lo, "am.%s.kappa_minus_tfidf.lo", j->label);
        metric(s, RANK_WHOLE, j->difference.hi, "am.%s.kappa_minus_tfidf.hi", j->label);
    }
}

void report_metrics(const struct results *r, bool all,
                    void (*add)(void *self, const char *name, double value), void *self)
{
    struct sink s = {.add = add, .self = self, .all = all};
    int failed = 0;

    for (int i = 0; i < r->figures_n; i++)
        failed += !r->figure[i].ok;
    for (int rank = 0; rank < RANKS; rank++) {
        s.rank = (enum rank)rank;
        metric(&s, RANK_WHOLE, r->figures_n, "figures");
        metric(&s, RANK_WHOLE, failed, "figures_failed");
        judged_metrics(r, &s);
        for (int m = 0; m < r->models; m++)
            model_metrics(r, &s, m);
    }
}
