#include "eval/svg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"

static const char *const colours[SVG_COLOURS] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                                 "#E69F00", "#56B4E9", "#555555", "#8C510A"};

static const char *colour_of(int i)
{
    return colours[((i % SVG_COLOURS) + SVG_COLOURS) % SVG_COLOURS];
}

static void escape(struct buf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '&':
            buf_str(out, "&amp;");
            break;
        case '<':
            buf_str(out, "&lt;");
            break;
        case '>':
            buf_str(out, "&gt;");
            break;
        case '"':
            buf_str(out, "&quot;");
            break;
        default:
            if ((unsigned char)*text >= 32)
                buf_char(out, *text);
        }
    }
}

static void text_at(struct buf *out, double x, double y, const char *anchor, const char *style,
                    const char *text)
{
    buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" %s>", x, y, anchor, style);
    escape(out, text);
    buf_str(out, "</text>\n");
}

static void line_at(struct buf *out, double x1, double y1, double x2, double y2, const char *colour,
                    double width)
{
    buf_printf(out,
               "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
               "stroke-width=\"%.1f\"/>\n",
               x1, y1, x2, y2, colour, width);
}

static void picture_begin(struct buf *out, double width, double height, const char *title)
{
    buf_printf(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
        "height=\"%.0f\" "
        "font-family=\"system-ui, Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#222\">\n"
        "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
        width, height, width, height);
    text_at(out, 16, 24, "start", "font-size=\"16\" font-weight=\"600\"", title);
}

/* ---- axes ------------------------------------------------------------------------------------ */

struct axis {
    double min, max, step;
    double at_min, at_max; /* places on the picture */
};

static double place(const struct axis *a, double v)
{
    return a->at_min + (v - a->min) / (a->max - a->min) * (a->at_max - a->at_min);
}

/* About `ticks` steps of 1, 2 or 5 times a power of ten. */
static double nice_step(double span, int ticks, bool whole)
{
    double raw = span / ticks, base = pow(10.0, floor(log10(raw))), f = raw / base;
    double step = (f <= 1.0 ? 1.0 : f <= 2.0 ? 2.0 : f <= 5.0 ? 5.0 : 10.0) * base;

    return whole && step < 1.0 ? 1.0 : step;
}

static void axis_fit(struct axis *a, double min, double max, int ticks, bool whole, bool snap)
{
    if (!(min <= max)) { /* nothing to show */
        min = 0.0;
        max = 1.0;
    }
    if (max - min < 1e-9) {
        min -= 0.5;
        max += 0.5;
    }
    a->step = nice_step(max - min, ticks, whole);
    a->min = snap ? a->step * floor(min / a->step + 1e-9) : min;
    a->max = snap ? a->step * ceil(max / a->step - 1e-9) : max;
}

static void number_text(char out[32], double v, double step)
{
    int digits = step >= 1.0 ? 0 : (int)ceil(-log10(step) - 1e-9);

    snprintf(out, 32, "%.*f", digits > 6 ? 6 : digits, fabs(v) < step * 1e-6 ? 0.0 : v);
}

struct frame {
    double x, y, width, height; /* of the plot area */
    struct axis h, v;
};

static void frame_draw(struct buf *out, const struct frame *f, const char *title,
                       const char *x_label, const char *y_label)
{
    char number[32];

    text_at(out, f->x, f->y - 10, "start", "font-size=\"13\" font-weight=\"600\"", title);
    for (double v = f->v.min; v <= f->v.max + f->v.step * 1e-6; v += f->v.step) {
        double y = place(&f->v, v);
        line_at(out, f->x, y, f->x + f->width, y,
                fabs(v) < f->v.step * 1e-6 ? "#999999" : "#e4e4e4", 1);
        number_text(number, v, f->v.step);
        text_at(out, f->x - 6, y + 4, "end", "font-size=\"11\"", number);
    }
    line_at(out, f->x, f->y, f->x, f->y + f->height, "#555555", 1);
    line_at(out, f->x, f->y + f->height, f->x + f->width, f->y + f->height, "#555555", 1);
    if (x_label != NULL) {
        for (double v = f->h.step * ceil(f->h.min / f->h.step - 1e-9);
             v <= f->h.max + f->h.step * 1e-6; v += f->h.step) {
            double x = place(&f->h, v);
            line_at(out, x, f->y + f->height, x, f->y + f->height + 4, "#555555", 1);
            number_text(number, v, f->h.step);
            text_at(out, x, f->y + f->height + 17, "middle", "font-size=\"11\"", number);
        }
        text_at(out, f->x + f->width / 2, f->y + f->height + 34, "middle", "", x_label);
    }
    buf_printf(out, "<g transform=\"translate(%.1f %.1f) rotate(-90)\">", f->x - 44,
               f->y + f->height / 2);
    text_at(out, 0, 0, "middle", "", y_label);
    buf_str(out, "</g>\n");
}

static double legend_draw(struct buf *out, const char *const *name, int n, const int *colour,
                          double x, double y, double right)
{
    double left = x;

    for (int i = 0; i < n; i++) {
        double width = 30.0 + 7.0 * (double)strlen(name[i]);
        if (x + width > right && x > left) {
            x = left;
            y += 18;
        }
        buf_printf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"14\" height=\"10\" fill=\"%s\"/>\n", x,
                   y - 9, colour_of(colour[i]));
        text_at(out, x + 19, y, "start", "", name[i]);
        x += width;
    }
    return y;
}

enum { LEGEND_MAX = 64 };

/* ---- line charts ----------------------------------------------------------------------------- */

static void panel_range(const struct svg_panel *p, struct frame *f)
{
    double x0 = (double)INFINITY, x1 = -x0, y0 = x0, y1 = -x0;

    for (int s = 0; s < p->series_n; s++) {
        for (size_t i = 0; i < p->series[s].n; i++) {
            const struct svg_point *q = &p->series[s].point[i];
            if (!isfinite(q->y) || !isfinite(q->x))
                continue;
            x0 = fmin(x0, q->x);
            x1 = fmax(x1, q->x);
            y0 = fmin(y0, isfinite(q->lo) ? fmin(q->lo, q->y) : q->y);
            y1 = fmax(y1, isfinite(q->hi) ? fmax(q->hi, q->y) : q->y);
        }
    }
    if (p->from_zero && y0 <= y1) {
        y0 = fmin(y0, 0.0);
        y1 = fmax(y1, 0.0);
    }
    if (p->reach > 0.0 && y0 <= y1)
        y1 = fmax(y1, p->reach);
    axis_fit(&f->h, x0, x1, 6, p->whole_x, false);
    axis_fit(&f->v, y0, y1, 5, false, true);
    f->h.at_min = f->x + 14;
    f->h.at_max = f->x + f->width - 14;
    f->v.at_min = f->y + f->height;
    f->v.at_max = f->y;
}

static void series_draw(struct buf *out, const struct frame *f, const struct svg_series *s,
                        double shift)
{
    const char *colour = colour_of(s->colour);

    buf_printf(out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.8\"%s points=\"",
               colour, s->dashed ? " stroke-dasharray=\"5 4\"" : "");
    for (size_t i = 0; i < s->n; i++) {
        if (isfinite(s->point[i].y))
            buf_printf(out, "%.1f,%.1f ", place(&f->h, s->point[i].x) + shift,
                       place(&f->v, s->point[i].y));
    }
    buf_str(out, "\"/>\n");
    for (size_t i = 0; i < s->n; i++) {
        const struct svg_point *p = &s->point[i];
        double x = place(&f->h, p->x) + shift;
        if (!isfinite(p->y))
            continue;
        if (isfinite(p->lo) && isfinite(p->hi)) {
            double lo = place(&f->v, p->lo), hi = place(&f->v, p->hi);
            line_at(out, x, lo, x, hi, colour, 1.4);
            line_at(out, x - 4, lo, x + 4, lo, colour, 1.4);
            line_at(out, x - 4, hi, x + 4, hi, colour, 1.4);
        }
        if (s->markers)
            buf_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.4\" fill=\"%s\"/>\n", x,
                       place(&f->v, p->y), colour);
    }
}

static int legend_collect(const struct svg_panel *panel, int panels, const char **name, int *colour)
{
    int n = 0;

    for (int p = 0; p < panels; p++) {
        for (int s = 0; s < panel[p].series_n; s++) {
            const struct svg_series *x = &panel[p].series[s];
            int i = 0;
            while (i < n && (strcmp(name[i], x->name) != 0 || colour[i] != x->colour))
                i++;
            if (i < n || n == LEGEND_MAX)
                continue;
            name[n] = x->name;
            colour[n++] = x->colour;
        }
    }
    return n;
}

void svg_lines(struct buf *out, const char *title, const struct svg_panel *panel, int panels,
               int columns)
{
    const double width = panels == 1 ? 620 : 300, height = panels == 1 ? 320 : 190;
    const char *name[LEGEND_MAX];
    int colour[LEGEND_MAX], names, rows;
    double top, legend_y;

    CHECK(panels >= 1 && columns >= 1);
    columns = columns < panels ? columns : panels;
    rows = (panels + columns - 1) / columns;
    names = legend_collect(panel, panels, name, colour);
    top = 78 + 18.0 * (names > 6 ? (names - 1) / 6 : 0);
    picture_begin(out, columns * (width + 84) + 16, top + rows * (height + 78), title);
    legend_y = legend_draw(out, name, names, colour, 16, 46, columns * (width + 84));
    top = fmax(top, legend_y + 32);
    for (int p = 0; p < panels; p++) {
        struct frame f = {.x = 68 + (p % columns) * (width + 84),
                          .y = top + (double)(p / columns) * (height + 78),
                          .width = width,
                          .height = height};
        panel_range(&panel[p], &f);
        frame_draw(out, &f, panel[p].title, panel[p].x_label, panel[p].y_label);
        for (int s = 0; s < panel[p].series_n;
             s++) /* a little aside, so that bars do not hide each other */
            series_draw(out, &f, &panel[p].series[s],
                        panel[p].series[s].markers ? 4.0 * (s - (panel[p].series_n - 1) / 2.0)
                                                   : 0.0);
    }
    buf_str(out, "</svg>\n");
}

/* ---- bars ------------------------------------------------------------------------------------ */

void svg_bars(struct buf *out, const char *title, const char *y_label, const char *const *group,
              int groups, const char *const *series, int series_n, const struct interval *value)
{
    double bar = series_n > 4 ? 14 : 22, slot = bar * series_n + 26, lo = 0.0, hi = 0.0;
    struct frame f = {.x = 72, .y = 84, .width = fmax(360.0, slot * groups), .height = 250};
    int colour[64];

    CHECK(groups >= 1 && series_n >= 1 && series_n <= 64);
    slot = f.width / groups;
    for (int i = 0; i < groups * series_n; i++) {
        if (!isfinite(value[i].value))
            continue;
        lo = fmin(lo, isfinite(value[i].lo) ? value[i].lo : value[i].value);
        hi = fmax(hi, isfinite(value[i].hi) ? value[i].hi : value[i].value);
    }
    axis_fit(&f.v, lo, hi, 6, false, true);
    f.v.at_min = f.y + f.height;
    f.v.at_max = f.y;
    for (int s = 0; s < series_n; s++)
        colour[s] = s;
    picture_begin(out, f.x + f.width + 24, f.y + f.height + 96, title);
    legend_draw(out, series, series_n, colour, 16, 48, f.x + f.width);
    frame_draw(out, &f, "", NULL, y_label);
    for (int g = 0; g < groups; g++) {
        double left = f.x + slot * g + (slot - bar * series_n) / 2, zero = place(&f.v, 0.0);
        buf_printf(out, "<g transform=\"translate(%.1f %.1f) rotate(-20)\">",
                   f.x + slot * (g + 0.5) + 8, f.y + f.height + 18);
        text_at(out, 0, 0, "end", "", group[g]);
        buf_str(out, "</g>\n");
        for (int s = 0; s < series_n; s++) {
            const struct interval *v = &value[g * series_n + s];
            double x = left + bar * s, y;
            if (!isfinite(v->value))
                continue;
            y = place(&f.v, v->value);
            buf_printf(out,
                       "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n",
                       x + 1, fmin(y, zero), bar - 2, fabs(y - zero), colour_of(s));
            if (isfinite(v->lo) && isfinite(v->hi))
                line_at(out, x + bar / 2, place(&f.v, v->lo), x + bar / 2, place(&f.v, v->hi),
                        "#111111", 1.3);
        }
    }
    buf_str(out, "</svg>\n");
}

/* ---- heat map -------------------------------------------------------------------------------- */

static void shade_text(char out[8], double shade)
{
    /* from white to the two ends; only the distance from zero changes the depth */
    static const int blue[3] = {0x3B, 0x8E, 0xC9}, orange[3] = {0xE8, 0x7B, 0x2C};
    const int *end = shade < 0 ? blue : orange;
    double depth = fmin(fabs(shade), 1.0);
    int c[3];

    if (isnan(shade)) {
        memcpy(out, "#eeeeee", 8);
        return;
    }
    for (int i = 0; i < 3; i++)
        c[i] = (int)lrint(255.0 + (end[i] - 255.0) * depth);
    snprintf(out, 8, "#%02x%02x%02x", (unsigned)c[0] & 255u, (unsigned)c[1] & 255u,
             (unsigned)c[2] & 255u);
}

void svg_heat(struct buf *out, const char *title, const char *note, const char *const *row,
              int rows, const char *const *column, int columns, const double *shade,
              const char *const *text)
{
    const double cell_w = 68, cell_h = 34;
    double left = 60, top = 74;
    char fill[8];

    for (int r = 0; r < rows; r++)
        left = fmax(left, 30.0 + 7.2 * (double)strlen(row[r]));
    for (int c = 0; c < columns; c++)
        top = fmax(top, 66.0 + 5.0 * (double)strlen(column[c]));
    picture_begin(out, fmax(left + cell_w * columns + 60, 32 + 5.6 * (double)strlen(note)),
                  top + cell_h * rows + 44, title);
    for (int c = 0; c < columns; c++) {
        buf_printf(out, "<g transform=\"translate(%.1f %.1f) rotate(-35)\">",
                   left + cell_w * (c + 0.45), top - 8);
        text_at(out, 0, 0, "start", "", column[c]);
        buf_str(out, "</g>\n");
    }
    for (int r = 0; r < rows; r++) {
        text_at(out, left - 10, top + cell_h * (r + 0.5) + 4, "end", "", row[r]);
        for (int c = 0; c < columns; c++) {
            int i = r * columns + c;
            shade_text(fill, shade[i]);
            buf_printf(out,
                       "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\" "
                       "stroke=\"#ffffff\"/>\n",
                       left + cell_w * c, top + cell_h * r, cell_w, cell_h, fill);
            text_at(out, left + cell_w * (c + 0.5), top + cell_h * (r + 0.5) + 4, "middle",
                    "font-size=\"11\"", text[i]);
        }
    }
    text_at(out, 16, top + cell_h * rows + 26, "start", "font-size=\"11\" fill=\"#555\"", note);
    buf_str(out, "</svg>\n");
}
