#include "eval/logreg.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/beat.h"
#include "base/buf.h"
#include "base/err.h"

#define CLASSES_MAX 16
#define MEMORY 10

struct problem {
    const struct csr *x;
    const int *y;
    int outputs;
    size_t weights; /* penalised ones: columns * outputs */
    size_t n;       /* weights + outputs */
    double c;
};

static void scores_of(const struct csr *x, size_t row, const double *w, size_t intercepts,
                      int outputs, double *z)
{
    size_t k = (size_t)outputs;

    memcpy(z, w + intercepts, k * sizeof *z);
    for (size_t j = x->begin[row]; j < x->begin[row + 1]; j++) {
        const double *v = w + (size_t)x->column[j] * k;
        double value = (double)x->value[j];
        for (size_t o = 0; o < k; o++)
            z[o] += value * v[o];
    }
}

/* Turns scores into d(loss)/d(score) in place; returns the loss. */
static double loss_of(double *z, int outputs, int y)
{
    if (outputs == 1) {
        double s = y == 1 ? z[0] : -z[0];
        double loss = s > 0.0 ? log1p(exp(-s)) : log1p(exp(s)) - s;
        z[0] = 1.0 / (1.0 + exp(-z[0])) - (y == 1 ? 1.0 : 0.0);
        return loss;
    }
    double top = z[0], sum = 0.0, at_y;
    for (int o = 1; o < outputs; o++)
        top = z[o] > top ? z[o] : top;
    at_y = z[y] - top;
    for (int o = 0; o < outputs; o++) {
        z[o] = exp(z[o] - top);
        sum += z[o];
    }
    for (int o = 0; o < outputs; o++)
        z[o] /= sum;
    z[y] -= 1.0;
    return log(sum) - at_y;
}

static double objective_of(const struct problem *p, const double *w, double *grad)
{
    double total = 0.0, penalty = 0.0, z[CLASSES_MAX];
    size_t k = (size_t)p->outputs;

    for (size_t i = 0; i < p->weights; i++) {
        penalty += w[i] * w[i];
        grad[i] = w[i] / p->c;
    }
    for (size_t o = 0; o < k; o++)
        grad[p->weights + o] = 0.0;
    for (size_t row = 0; row < p->x->rows; row++) {
        if (row % 1024 == 0)
            beat();
        if (p->y[row] < 0)
            continue;
        scores_of(p->x, row, w, p->weights, p->outputs, z);
        total += loss_of(z, p->outputs, p->y[row]);
        for (size_t j = p->x->begin[row]; j < p->x->begin[row + 1]; j++) {
            double *g = grad + (size_t)p->x->column[j] * k;
            double value = (double)p->x->value[j];
            for (size_t o = 0; o < k; o++)
                g[o] += value * z[o];
        }
        for (size_t o = 0; o < k; o++)
            grad[p->weights + o] += z[o];
    }
    return total + penalty / (2.0 * p->c);
}

static double dot(const double *a, const double *b, size_t n)
{
    double lane[4] = {0};
    size_t i = 0;

    for (; i + 4 <= n; i += 4)
        for (size_t j = 0; j < 4; j++)
            lane[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        lane[0] += a[i] * b[i];
    return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

static double largest(const double *x, size_t n)
{
    double most = 0.0;

    for (size_t i = 0; i < n; i++)
        most = fabs(x[i]) > most ? fabs(x[i]) : most;
    return most;
}

struct history { /* ring of the last MEMORY steps s and gradient changes y */
    double *s[MEMORY], *y[MEMORY], rho[MEMORY];
    int count, next;
};

/* direction = -H grad by the two-loop recursion. */
static void direction_of(const struct history *h, const double *grad, size_t n, double *direction)
{
    double alpha[MEMORY];

    for (size_t i = 0; i < n; i++)
        direction[i] = -grad[i];
    for (int back = 1; back <= h->count; back++) {
        int j = (h->next - back + 2 * MEMORY) % MEMORY;
        alpha[j] = h->rho[j] * dot(h->s[j], direction, n);
        for (size_t i = 0; i < n; i++)
            direction[i] -= alpha[j] * h->y[j][i];
    }
    if (h->count > 0) {
        int j = (h->next - 1 + MEMORY) % MEMORY;
        double scale = 1.0 / (h->rho[j] * dot(h->y[j], h->y[j], n));
        for (size_t i = 0; i < n; i++)
            direction[i] *= scale;
    }
    for (int back = h->count; back >= 1; back--) {
        int j = (h->next - back + 2 * MEMORY) % MEMORY;
        double beta = h->rho[j] * dot(h->y[j], direction, n);
        for (size_t i = 0; i < n; i++)
            direction[i] += (alpha[j] - beta) * h->s[j][i];
    }
}

static void history_add(struct history *h, const double *w, const double *w_new, const double *g,
                        const double *g_new, size_t n)
{
    double *s = h->s[h->next], *y = h->y[h->next], sy;

    for (size_t i = 0; i < n; i++) {
        s[i] = w_new[i] - w[i];
        y[i] = g_new[i] - g[i];
    }
    sy = dot(s, y, n);
    if (!(sy > 1e-12 * dot(y, y, n)))
        return; /* no usable curvature: the pair is dropped, the approximation stays positive
                   definite */
    h->rho[h->next] = 1.0 / sy;
    h->next = (h->next + 1) % MEMORY;
    h->count += h->count < MEMORY;
}

/* One line search from w along d; true if the objective fell. w, g and *value become those of the
 * new point. */
static bool step_along(const struct problem *p, struct history *h, double *w, double *g,
                       double *value, const double *d, double step, double *w_new, double *g_new)
{
    double slope = dot(d, g, p->n);

    for (int tries = 0; tries < 30; tries++, step *= 0.5) {
        double f;
        for (size_t i = 0; i < p->n; i++)
            w_new[i] = w[i] + step * d[i];
        f = objective_of(p, w_new, g_new);
        if (f <= *value + 1e-4 * step * slope) {
            history_add(h, w, w_new, g, g_new, p->n);
            memcpy(w, w_new, p->n * sizeof *w);
            memcpy(g, g_new, p->n * sizeof *g);
            *value = f;
            return true;
        }
    }
    return false; /* at the limit of double: as good as it gets */
}

void logreg_fit(const struct csr *x, const int *y, int classes, const struct logreg_options *o,
                struct logreg *out)
{
    int outputs = classes == 2 ? 1 : classes;
    struct problem p = {x, y, outputs, x->columns * (size_t)outputs, 0, o->c};
    struct history h = {0};
    double *work, *g, *d, *w_new, *g_new, value;
    size_t used = 0;

    CHECK(classes >= 2 && classes <= CLASSES_MAX && o->c > 0.0);
    for (size_t i = 0; i < x->rows; i++) {
        CHECK(y[i] < classes);
        used += y[i] >= 0;
    }
    p.n = p.weights + (size_t)outputs;
    *out =
        (struct logreg){classes, outputs, x->columns, mem_zalloc(p.n, sizeof(double)), 0, 0.0, 0.0};
    work = mem_zalloc((4 + 2 * MEMORY) * p.n, sizeof *work);
    g = work;
    d = g + p.n;
    w_new = d + p.n;
    g_new = w_new + p.n;
    for (size_t i = 0; i < MEMORY; i++) {
        h.s[i] = g_new + (1 + 2 * i) * p.n;
        h.y[i] = g_new + (2 + 2 * i) * p.n;
    }
    value = objective_of(&p, out->weight, g);
    for (out->iterations = 0; out->iterations < o->iterations_max; out->iterations++) {
        double step =
            h.count > 0 ? 1.0
                        : 1.0 / (1.0 + sqrt(dot(g, g, p.n))); /* the first direction has no scale */
        if (used == 0 || largest(g, p.n) / (double)used <= o->tolerance)
            break;
        direction_of(&h, g, p.n, d);
        if (!step_along(&p, &h, out->weight, g, &value, d, step, w_new, g_new))
            break;
    }
    out->objective = value;
    out->gradient = used > 0 ? largest(g, p.n) / (double)used : 0.0;
    free(work);
}

void logreg_fini(struct logreg *m)
{
    free(m->weight);
    *m = (struct logreg){0};
}

void logreg_predict(const struct logreg *m, const struct csr *x, double *probability)
{
    CHECK(x->columns == m->columns);
    for (size_t row = 0; row < x->rows; row++) {
        double *p = probability + row * (size_t)m->classes, z[CLASSES_MAX], top, sum = 0.0;
        scores_of(x, row, m->weight, m->columns * (size_t)m->outputs, m->outputs, z);
        if (m->outputs == 1) {
            p[1] = 1.0 / (1.0 + exp(-z[0]));
            p[0] = 1.0 - p[1];
            continue;
        }
        top = z[0];
        for (int o = 1; o < m->outputs; o++)
            top = z[o] > top ? z[o] : top;
        for (int o = 0; o < m->outputs; o++) {
            p[o] = exp(z[o] - top);
            sum += p[o];
        }
        for (int o = 0; o < m->outputs; o++)
            p[o] /= sum;
    }
}
