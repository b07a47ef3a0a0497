#include "eval/figures.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"

static struct results_figure *figure_add(struct results *r, const struct interval *v, bool ok,
                                         const char *bound)
{
    struct results_figure *f;

    if (r->figures_n == RESULTS_FIGURES_MAX)
        return NULL;
    f = &r->figure[r->figures_n++];
    *f = (struct results_figure){.value = v->value, .lo = v->lo, .hi = v->hi, .ok = ok};
    snprintf(f->bound, sizeof f->bound, "%s", bound);
    return f;
}

__attribute__((format(printf, 2, 3))) static void figure_name(struct results_figure *f,
                                                              const char *fmt, ...)
{
    va_list ap;

    if (f == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(f->name, sizeof f->name, fmt, ap);
    va_end(ap);
}

static void effect_figures(struct results *r, int model, int guidance, int attr)
{
    const struct results_effect *effect = results_effect(r, model, guidance, attr);
    char g[24];
    int lead = r->lead[attr];

    results_guidance_text(r->guidance[guidance], g);
    if (lead >= 0) {
        const struct interval *v = &effect->measure[lead];
        bool ok = r->sign[attr] > 0 ? v->lo > 0.0 : v->hi < 0.0;
        figure_name(
            figure_add(r, v, ok, r->sign[attr] > 0 ? "interval above 0" : "interval below 0"),
            "effect.%s.%s.%s.%s", r->model[model], g, r->attr[attr], r->measure[lead].name);
    }
    for (int m = 0; m < r->measures; m++) {
        if (r->measure[m].judged && r->measure[m].attr == attr) {
            const struct interval *v = &effect->measure[m];
            figure_name(figure_add(r, v, v->lo > 0.0, "interval above 0"), "effect.%s.%s.%s.%s",
                        r->model[model], g, r->attr[attr], r->measure[m].name);
        }
    }
    if (r->computed[attr] && lead >= 0) {
        struct interval rho = {effect->rho[lead], (double)NAN, (double)NAN};
        char bound[32];
        snprintf(bound, sizeof bound, ">= %.2f", FIGURES_ORDER_MIN);
        figure_name(figure_add(r, &rho, rho.value >= FIGURES_ORDER_MIN, bound),
                    "spearman.%s.%s.%s.%s", r->model[model], g, r->attr[attr],
                    r->measure[lead].name);
    }
}

double figures_largest_rate(const struct results *r, int model, bool any)
{
    double most = (double)NAN;

    for (int g = 0; g < r->guidances; g++) {
        for (int a = 0; a < r->attrs; a++) {
            for (int m = 0; m < r->measures; m++) {
                double v = fabs(results_effect(r, model, g, a)->measure[m].value);
                bool claimed = r->lead[a] == m || r->measure[m].attr == a;
                if ((any || claimed) && r->measure[m].rate && !isnan(v) && !(most >= v))
                    most = v;
            }
        }
    }
    return most;
}

static void model_figures(struct results *r, int model)
{
    const struct results_gap *gap = &r->gap[model];
    bool control = results_is_control(r->model[model]);

    if (!control && !results_same_group(r->model[model], r->model[0]))
        return;
    for (int g = 0; !control && g < r->guidances; g++)
        for (int a = 0; a < r->attrs; a++)
            effect_figures(r, model, g, a);
    if (control) {
        struct interval most = {figures_largest_rate(r, model, false), (double)NAN, (double)NAN};
        char bound[32];
        snprintf(bound, sizeof bound, "<= %.2f", FIGURES_CONTROL_MAX);
        if (!isnan(most.value))
            figure_name(figure_add(r, &most, most.value <= FIGURES_CONTROL_MAX, bound),
                        "largest_rate.%s", r->model[model]);
    }
    if (gap->rows > 0) {
        bool ok = control ? interval_has(&gap->shuffled, 0.0) : gap->shuffled.lo > 0.0;
        figure_name(
            figure_add(r, &gap->shuffled, ok, control ? "interval contains 0" : "interval above 0"),
            "gap.%s", r->model[model]);
    }
}

void figures_build(struct results *r)
{
    CHECK(r->models >= 1);
    r->figures_n = 0;
    for (int m = 0; m < r->models; m++)
        model_figures(r, m);
    for (int i = 0; i < r->judged_n; i++) {
        const struct results_judged *j = &r->judged[i];
        figure_name(figure_add(r, &j->model_kappa, j->model_kappa.lo > 0.0, "interval above 0"),
                    "am.%s.kappa", j->label);
        if (j->has_baseline)
            figure_name(
                figure_add(r, &j->difference, j->difference.hi >= 0.0, "interval not below 0"),
                "am.%s.kappa_minus_tfidf", j->label);
    }
}

void figures_promise(struct results *r, const char *metric, double value, bool at_least,
                     double bound)
{
    struct interval v = {value, (double)NAN, (double)NAN};
    char text[32];

    snprintf(text, sizeof text, "%s %.3g", at_least ? ">=" : "<=", bound);
    figure_name(figure_add(r, &v, at_least ? value >= bound : value <= bound, text), "%s", metric);
}
