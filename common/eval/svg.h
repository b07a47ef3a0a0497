/*
 * svg: small pictures of reports as SVG text: line charts with interval bars, bar charts, heat
 * maps. Light background, no scripts, no external fonts, colours that colour-blind readers tell
 * apart (Okabe & Ito 2008). Names are escaped. Pure; the same input gives the same bytes. Points
 * with NaN are left out.
 */
#ifndef EVAL_SVG_H
#define EVAL_SVG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "eval/stats.h" /* struct interval */

#define SVG_COLOURS 8

struct svg_point {
    double x, y, lo, hi; /* lo, hi NaN: no bar */
};
struct svg_series {
    const char *name;
    const struct svg_point *point; /* x ascending */
    size_t n;
    int colour;   /* taken modulo SVG_COLOURS */
    bool markers; /* a dot at each point: for few points, not for a training curve */
    bool dashed;
};
struct svg_panel {
    const char *title, *x_label, *y_label;
    const struct svg_series *series;
    int series_n;
    bool from_zero; /* the y axis includes 0 */
    bool whole_x;   /* x ticks at whole numbers only: levels, steps */
    double reach; /* the y axis goes at least up to this, so that noise does not fill the picture; 0
                     = off */
};
/* One line chart each, `columns` beside each other, one legend for all: every pair of name and
 * colour once. */
void svg_lines(struct buf *out, const char *title, const struct svg_panel *panel, int panels,
               int columns);

/* Bars with intervals: value[group * series_n + series]. */
void svg_bars(struct buf *out, const char *title, const char *y_label, const char *const *group,
              int groups, const char *const *series, int series_n, const struct interval *value);

/* Cells coloured by shade (-1 blue .. 0 white .. 1 orange, clamped; NaN grey), with text in each.
 * [row * columns + column] */
void svg_heat(struct buf *out, const char *title, const char *note, const char *const *row,
              int rows, const char *const *column, int columns, const double *shade,
              const char *const *text);

#endif
