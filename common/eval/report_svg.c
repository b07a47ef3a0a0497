/* The pictures of eval/report.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "eval/report.h"
#include "eval/svg.h"

#define PANELS_MAX SCHEMA_ATTRS_MAX

/* The measure that stands for an attribute: its ruler, or the attribute model's reading of it; -1. */
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

static bool curves(const struct results *r, int guidance, bool judged, const char *title, struct buf *out)
{
    struct svg_panel panel[PANELS_MAX];
    struct svg_series *series = mem_zalloc((size_t)(PANELS_MAX * r->models), sizeof *series);
    struct svg_point *point = mem_zalloc((size_t)(PANELS_MAX * r->models * r->levels), sizeof *point);
    char (*name)[160] = mem_zalloc(PANELS_MAX, sizeof *name);
    int n = 0;

    for (int a = 0; a < r->attrs; a++) {
        int m = measure_of(r, a, judged);
        if (m < 0)
            continue;
        for (int model = 0; model < r->models; model++) {
            struct svg_point *p = point + (n * r->models + model) * r->levels;
            for (int l = 0; l < r->levels; l++) {
                const struct interval *v = &results_cell(r, model, guidance, a, l)->mean[m];
                p[l] = (struct svg_point){r->level[l], v->value, v->lo, v->hi};
            }
            series[n * r->models + model] = (struct svg_series){r->model[model], p, (size_t)r->levels, model, true,
                                                                results_is_control(r->model[model])};
        }
        snprintf(name[n], sizeof name[n], "%s: %s", r->attr[a], r->measure[m].name);
        panel[n] = (struct svg_panel){name[n], "level asked for", judged ? "probability" : r->measure[m].rate ? "share of replies" : r->measure[m].name,
                                      series + n * r->models, r->models, true, true};
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
    struct interval *value = mem_zalloc((size_t)(PANELS_MAX * r->models), sizeof *value);
    char (*name)[160] = mem_zalloc(PANELS_MAX, sizeof *name);
    const char *group[PANELS_MAX], *series[RESULTS_MODELS_MAX];
    int n = 0;

    for (int model = 0; model < r->models; model++)
        series[model] = r->model[model];
    for (int a = 0; a < r->attrs; a++) {
        int m = r->lead[a];
        if (m < 0 || !r->measure[m].rate)
            continue; /* one axis: shares only */
        for (int model = 0; model < r->models; model++)
            value[n * r->models + model] = results_effect(r, model, guidance, a)->measure[m];
        snprintf(name[n], sizeof name[n], "%s: %s", r->attr[a], r->measure[m].name);
        group[n] = name[n];
        n++;
    }
    if (n > 0)
        svg_bars(out, title, "share of replies, highest minus lowest level", group, n, series, r->models, value);
    free(value);
    free(name);
    return n > 0;
}

static bool leakage(const struct results *r, int model, int guidance, const char *title, struct buf *out)
{
    int cells = r->attrs * r->measures;
    double *shade = mem_zalloc((size_t)cells + 1, sizeof *shade);
    char (*number)[24] = mem_zalloc((size_t)cells + 1, sizeof *number);
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
        svg_heat(out, title, "Change of each measure (column) from the lowest to the highest level of each attribute (row). Colour: in standard deviations.", row, r->attrs, column, r->measures, shade, text);
    free(shade);
    free(number);
    free(text);
    return cells > 0;
}

bool report_picture(const struct results *r, int index, char name[64], struct buf *out)
{
    static const char *const kinds[] = {"steering", "steering-am", "effects", "leakage"};
    int kind, guidance, at = 0;
    char title[160], g[24];

    for (guidance = 0; guidance < r->guidances; guidance++) {
        for (kind = 0; kind < 4; kind++) {
            size_t before = out->len;
            bool made;
            results_guidance_text(r->guidance[guidance], g);
            snprintf(name, 64, r->guidances > 1 ? "%s-%s.svg" : "%s.svg", kinds[kind], g);
            if (kind == 0) {
                snprintf(title, sizeof title, "Asked for against measured in the text, guidance %s", g + 1);
                made = curves(r, guidance, false, title, out);
            } else if (kind == 1) {
                snprintf(title, sizeof title, "Asked for against what the attribute model reads, guidance %s", g + 1);
                made = curves(r, guidance, true, title, out);
            } else if (kind == 2) {
                snprintf(title, sizeof title, "Effect of each attribute, guidance %s", g + 1);
                made = effects(r, guidance, title, out);
            } else {
                snprintf(title, sizeof title, "What else changes: %s, guidance %s", r->model[0], g + 1);
                made = leakage(r, 0, guidance, title, out);
            }
            if (made && at++ == index)
                return true;
            out->len = before; /* not this one */
        }
    }
    return false;
}
