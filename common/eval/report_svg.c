/* The pictures of eval/report.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "eval/report.h"
#include "eval/svg.h"

#define PANELS_MAX SCHEMA_ATTRS_MAX
#define MODELS_DRAWN 6 /* more make a thicket; all are in the tables */

/* The measure that stands for an attribute: its ruler, or the attribute model's reading of it; -1.
 */
static int measure_of(const struct results *r, int attr, bool judged)
{
    if (!judged)
        return r->lead[attr];
    for (int m = 0; m < r->measures; m++) {
        if (r->measure[m].judged && r->measure[m].attr == attr)
            return m;
    }
    return -1;
}

static bool curves(const struct results *r, int guidance, bool judged, const char *title,
                   struct buf *out)
{
    int models = r->models < MODELS_DRAWN ? r->models : MODELS_DRAWN, n = 0;
    struct svg_panel panel[PANELS_MAX];
    struct svg_series *series = mem_zalloc((size_t)(PANELS_MAX * models), sizeof *series);
    struct svg_point *point = mem_zalloc((size_t)(PANELS_MAX * models * r->levels), sizeof *point);
    char(*name)[160] = mem_zalloc(PANELS_MAX, sizeof *name);

    for (int a = 0; a < r->attrs; a++) {
        int m = measure_of(r, a, judged);
        if (m < 0)
            continue;
        for (int model = 0; model < models; model++) {
            struct svg_point *p = point + (n * models + model) * r->levels;
            for (int l = 0; l < r->levels; l++) {
                const struct interval *v = &results_cell(r, model, guidance, a, l)->mean[m];
                p[l] = (struct svg_point){r->level[l], v->value, v->lo, v->hi};
            }
            series[n * models + model] =
                (struct svg_series){r->model[model], p,    (size_t)r->levels,
                                    model,           true, results_is_control(r->model[model])};
        }
        snprintf(name[n], sizeof name[n], "%s: %s", r->attr[a], r->measure[m].name);
        panel[n] =
            (struct svg_panel){name[n],
                               "level asked for",
                               !r->measure[m].rate ? judged ? "expected score" : r->measure[m].name
                               : judged            ? "probability"
                                                   : "share of replies",
                               series + n * models,
                               models,
                               true,
                               true,
                               r->measure[m].rate ? 0.4 : 0.0};
        n++;
    }
    if (n > 0)
        svg_lines(out, title, panel, n, n < 3 ? n : 3);
    free(series);
    free(point);
    free(name);
    return n > 0;
}

static bool effects(const struct results *r, int guidance, const char *title, struct buf *out)
{
    int models = r->models < MODELS_DRAWN ? r->models : MODELS_DRAWN, n = 0;
    struct interval *value = mem_zalloc((size_t)(PANELS_MAX * models), sizeof *value);
    char(*name)[160] = mem_zalloc(PANELS_MAX, sizeof *name);
    const char *group[PANELS_MAX], *series[RESULTS_MODELS_MAX];

    for (int model = 0; model < models; model++)
        series[model] = r->model[model];
    for (int a = 0; a < r->attrs; a++) {
        int m = r->lead[a];
        if (m < 0 || !r->measure[m].rate)
            continue; /* one axis: shares only */
        for (int model = 0; model < models; model++)
            value[n * models + model] = results_effect(r, model, guidance, a)->measure[m];
        snprintf(name[n], sizeof name[n], "%s: %s", r->attr[a], r->measure[m].name);
        group[n] = name[n];
        n++;
    }
    if (n > 0)
        svg_bars(out, title, "share of replies, highest minus lowest level", group, n, series,
                 models, value);
    free(value);
    free(name);
    return n > 0;
}

static bool leakage(const struct results *r, int model, int guidance, const char *title,
                    struct buf *out)
{
    int cells = r->attrs * r->measures;
    double *shade = mem_zalloc((size_t)cells + 1, sizeof *shade);
    char(*number)[24] = mem_zalloc((size_t)cells + 1, sizeof *number);
    const char **text = mem_zalloc((size_t)cells + 1, sizeof *text);
    const char *row[SCHEMA_ATTRS_MAX], *column[RESULTS_MEASURES_MAX];

    for (int m = 0; m < r->measures; m++)
        column[m] = r->measure[m].name;
    for (int a = 0; a < r->attrs; a++) {
        row[a] = r->attr[a];
        for (int m = 0; m < r->measures; m++) {
            double v = results_effect(r, model, guidance, a)->measure[m].value;
            int i = a * r->measures + m;
            shade[i] = r->spread[m] > 0.0 ? v / r->spread[m] : v;
            text[i] = number[i];
            if (isnan(v))
                snprintf(number[i], sizeof number[i], "-");
            else
                snprintf(number[i], sizeof number[i], fabs(v) < 9.995 ? "%+.2f" : "%+.1f", v);
        }
    }
    if (cells > 0)
        svg_heat(out, title,
                 "Change of each measure (column) from the lowest to the highest level of each "
                 "attribute (row). Colour: in standard deviations.",
                 row, r->attrs, column, r->measures, shade, text);
    free(shade);
    free(number);
    free(text);
    return cells > 0;
}

/* What stronger guidance buys and costs: effect of the model under test; its diversity and fluency,
 * and the first control's. */
static bool guidance_curves(const struct results *r, struct buf *out)
{
    enum { PANELS = 3 };
    int models = 1, effects_n = 0, drawn[2] = {0, 0};
    struct svg_series series[PANELS][SCHEMA_ATTRS_MAX] = {{{0}}};
    struct svg_point *point =
        mem_zalloc((size_t)(PANELS * SCHEMA_ATTRS_MAX * r->guidances), sizeof *point);
    const char *const title[PANELS] = {"size of the effect", "diversity", "fluency"};
    const char *const label[PANELS] = {"share of replies", "distinct-2",
                                       "nats a token, no attributes"};
    struct svg_panel panel[PANELS];

    for (int m = 1; m < r->models && models == 1; m++) {
        if (results_is_control(r->model[m]))
            drawn[models++] = m;
    }
    for (int a = 0; a < r->attrs; a++) {
        struct svg_point *p = point + effects_n * r->guidances;
        int m = r->lead[a];
        if (m < 0 || !r->measure[m].rate)
            continue;
        for (int g = 0; g < r->guidances; g++) {
            struct interval v = results_effect(r, 0, g, a)->measure[m];
            double sign = r->sign[a] < 0 ? -1.0 : 1.0;
            p[g] = (struct svg_point){r->guidance[g], sign * v.value, sign > 0 ? v.lo : -v.hi,
                                      sign > 0 ? v.hi : -v.lo};
        }
        series[0][effects_n++] = (struct svg_series){
            r->attr[a], p, (size_t)r->guidances, 2 + a % (SVG_COLOURS - 2), true, false};
    }
    for (int k = 1; k < PANELS; k++) {
        for (int m = 0; m < models; m++) {
            struct svg_point *p = point + (k * SCHEMA_ATTRS_MAX + m) * r->guidances;
            for (int g = 0; g < r->guidances; g++)
                p[g] = (struct svg_point){r->guidance[g],
                                          k == 1 ? results_mean_distinct2(r, drawn[m], g)
                                                 : results_mean_nll(r, drawn[m], g),
                                          (double)NAN, (double)NAN};
            series[k][m] =
                (struct svg_series){r->model[drawn[m]], p, (size_t)r->guidances, m, true, m > 0};
        }
    }
    for (int k = 0; k < PANELS; k++)
        panel[k] = (struct svg_panel){
            title[k], "guidance", label[k], series[k], k == 0 ? effects_n : models,
            k == 0,   false,      0};
    svg_lines(out, "Guidance: effect of the model under test, and what it costs", panel, PANELS,
              PANELS);
    free(point);
    return true;
}

bool report_picture(const struct results *r, int index, char name[64], struct buf *out)
{
    static const char *const kinds[] = {"steering", "steering-am", "effects", "leakage"};
    int kind, guidance, at = 0;
    char title[160], g[24];

    if (r->guidances > 1 && at++ == index) {
        snprintf(name, 64, "guidance.svg");
        return guidance_curves(r, out);
    }

    for (guidance = 0; guidance < r->guidances; guidance++) {
        for (kind = 0; kind < 4; kind++) {
            size_t before = out->len;
            bool made;
            results_guidance_text(r->guidance[guidance], g);
            snprintf(name, 64, r->guidances > 1 ? "%s-%s.svg" : "%s.svg", kinds[kind], g);
            if (kind == 0) {
                snprintf(title, sizeof title, "Asked for against measured in the text, guidance %s",
                         g + 1);
                made = curves(r, guidance, false, title, out);
            } else if (kind == 1) {
                snprintf(title, sizeof title,
                         "Asked for against what the attribute model reads, guidance %s", g + 1);
                made = curves(r, guidance, true, title, out);
            } else if (kind == 2) {
                snprintf(title, sizeof title, "Effect of each attribute, guidance %s", g + 1);
                made = effects(r, guidance, title, out);
            } else {
                snprintf(title, sizeof title, "What else changes: %s, guidance %s", r->model[0],
                         g + 1);
                made = leakage(r, 0, guidance, title, out);
            }
            if (made && at++ == index)
                return true;
            out->len = before; /* not this one */
        }
    }
    return false;
}
