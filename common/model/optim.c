/*
 * optim: elementwise updates over runs of equal decay flag. The order of operations is that of torch.optim.AdamW: decay
 * first, then the moment step with eps added after the division by the bias correction.
 */
#include "model/optim.h"

#include <math.h>

#include "base/err.h"
#include "model/vmath.h"

/* base^n by squaring: the same bits everywhere. */
static double power(double base, uint64_t n)
{
    double r = 1.0;

    for (; n > 0; n >>= 1) {
        if (n & 1)
            r *= base;
        base *= base;
    }
    return r;
}

struct update {
    real scale, beta1, beta2, eps, keep; /* keep = 1 - lr * decay */
    real rate, root;                     /* lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t) */
};

static void update_run(const struct update *u, size_t n, real *restrict p, real *restrict m,
                       real *restrict v, const real *restrict grad)
{
    for (size_t i = 0; i < n; i++) {
        real g = grad[i] * u->scale;
        real m1 = u->beta1 * m[i] + (1 - u->beta1) * g;
        real v1 = u->beta2 * v[i] + (1 - u->beta2) * g * g;
#ifdef REAL_DOUBLE
        real root = sqrt(v1);
#else
        real root = sqrtf(v1);
#endif

        m[i] = m1;
        v[i] = v1;
        p[i] = p[i] * u->keep - u->rate * (m1 / (root * u->root + u->eps));
    }
}

void adamw_step(const struct adamw *a, const struct layout *l, size_t offset, size_t n, real *p,
                real *m, real *v, const real *grad, float scale, float lr, uint64_t step)
{
    size_t at = offset, end = offset + n;
    struct update u = {.scale = (real)scale,
                       .beta1 = (real)a->beta1,
                       .beta2 = (real)a->beta2,
                       .eps = (real)a->eps};

    CHECK(step >= 1 && end >= offset && end <= l->count);
    u.rate = (real)((double)lr / (1.0 - power((double)a->beta1, step)));
    u.root = (real)(1.0 / sqrt(1.0 - power((double)a->beta2, step)));
    for (int32_t i = 0; i < l->tensors && at < end; i++) {
        size_t stop = l->tensor[i].begin + tensor_count(&l->tensor[i]);

        if (stop <= at)
            continue;
        if (stop > end)
            stop = end;
        u.keep = l->tensor[i].decay ? (real)(1.0 - (double)lr * (double)a->weight_decay) : 1;
        update_run(&u, stop - at, p + (at - offset), m + (at - offset), v + (at - offset),
                   grad + (at - offset));
        at = stop;
    }
}

double schedule_lr(const struct schedule *s, double peak, uint64_t step, uint64_t total)
{
    double done, sine, cosine;

    CHECK(step >= 1);
    if (step <= s->warmup_steps)
        return peak * (double)step / (double)s->warmup_steps;
    if (s->name == SCHEDULE_CONSTANT)
        return peak;
    done = total > s->warmup_steps
               ? (double)(step - s->warmup_steps) / (double)(total - s->warmup_steps)
               : 1.0;
    if (done > 1.0)
        done = 1.0;
    if (s->name == SCHEDULE_LINEAR)
        return peak * (s->min_ratio + (1.0 - s->min_ratio) * (1.0 - done));
    vmath_sincos(3.14159265358979323846 * done, &sine, &cosine);
    return peak * (s->min_ratio + (1.0 - s->min_ratio) * 0.5 * (1.0 + cosine));
}

double clip_scale(double norm, double clip)
{
    return clip > 0.0 && norm > clip ? clip / norm : 1.0;
}

double sum_squares(const real *x, size_t n)
{
    double lane[8] = {0};
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        for (size_t j = 0; j < 8; j++)
            lane[j] += (double)x[i + j] * (double)x[i + j];
    for (size_t j = 0; i < n; i++, j++)
        lane[j] += (double)x[i] * (double)x[i];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}
