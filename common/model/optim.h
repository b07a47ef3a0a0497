/*
 * optim: AdamW (Loshchilov & Hutter 2019), learning-rate schedules, global-norm clipping. Elementwise, so that any split
 * of the vector over hosts gives the same bits.
 */
#ifndef MODEL_OPTIM_H
#define MODEL_OPTIM_H

#include <stddef.h>
#include <stdint.h>

#include "model/dims.h"
#include "model/real.h"

struct adamw {
    float beta1, beta2, eps, weight_decay;
};

/* One update of elements [0, n): g = grad * scale; m, v moments; p -= lr * (mhat / (sqrt(vhat) + eps) + wd * p where decay).
 * decay_begin..: the decay flag of element i is that of the tensor it lies in; offset is the flat index of element 0.
 * step: 1-based (bias correction). scale: clip scale / global weight, applied to the raw summed gradient. */
void adamw_step(const struct adamw *a, const struct layout *l, size_t offset, size_t n, real *p,
                real *m, real *v, const real *grad, float scale, float lr, uint64_t step);

enum schedule_name { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE };
struct schedule {
    enum schedule_name name;
    uint64_t warmup_steps;
    double min_ratio; /* floor as a share of the peak */
};
/* Learning rate for step (1-based) of total: linear warm-up to peak over warmup_steps, then the schedule. */
double schedule_lr(const struct schedule *s, double peak, uint64_t step, uint64_t total);
/* Scale that brings the norm to clip: 1 if clip <= 0 or norm <= clip. */
double clip_scale(double norm, double clip);
/* Sum of squares in fp64, 8 fixed lanes: independent of vector width. */
double sum_squares(const real *x, size_t n);

#endif
