/*
 * ops: vectors of VM_LANES. Every reduction runs in VM_LANES lanes from the first element on and ends in vm_sum(), whatever
 * the length, so its bits depend on the values alone.
 */
#include "model/ops.h"

#include <math.h>
#include <string.h>

#include "model/vmath.h"

#ifdef REAL_DOUBLE
#define SQRT sqrt
#else
#define SQRT sqrtf
#endif

real ops_dot(const real *a, const real *b, size_t n)
{
    vreal sum = vm_set(0);
    size_t i = 0;

    for (; i + VM_LANES <= n; i += VM_LANES)
        sum = vm_fma(vm_load(a + i), vm_load(b + i), sum);
    if (i < n)
        sum = vm_fma(vm_load_part(a + i, n - i, 0), vm_load_part(b + i, n - i, 0), sum);
    return vm_sum(sum);
}

void ops_axpy(real a, const real *x, real *y, size_t n)
{
    vreal va = vm_set(a);
    size_t i = 0;

    for (; i + VM_LANES <= n; i += VM_LANES)
        vm_store(y + i, vm_fma(va, vm_load(x + i), vm_load(y + i)));
    if (i < n)
        vm_store_part(y + i, n - i,
                      vm_fma(va, vm_load_part(x + i, n - i, 0), vm_load_part(y + i, n - i, 0)));
}

/* ---- RMSNorm ---- */

static void norm_row(const real *x, const real *w, real inv, real *y, size_t c)
{
    vreal s = vm_set(inv);
    size_t i = 0;

    for (; i + VM_LANES <= c; i += VM_LANES)
        vm_store(y + i, vm_load(x + i) * s * vm_load(w + i));
    if (i < c)
        vm_store_part(y + i, c - i,
                      vm_load_part(x + i, c - i, 0) * s * vm_load_part(w + i, c - i, 0));
}

void ops_rmsnorm(const real *x, const real *w, real *y, real *inv, size_t n, size_t c, real eps)
{
    for (size_t r = 0; r < n; r++) {
        real s = 1 / SQRT(ops_dot(x + r * c, x + r * c, c) / (real)c + eps);

        if (inv != NULL)
            inv[r] = s;
        norm_row(x + r * c, w, s, y + r * c, c);
    }
}

void ops_rmsnorm_again(const real *x, const real *w, const real *inv, real *y, size_t n, size_t c)
{
    for (size_t r = 0; r < n; r++)
        norm_row(x + r * c, w, inv[r], y + r * c, c);
}

/* dx += inv (w dy) - x k, dw += dy x inv. */
VM_INLINE void norm_grad(vreal dy, vreal x, vreal w, vreal inv, vreal k, vreal *dx, vreal *dw)
{
    *dx += vm_fma(w * dy, inv, -(x * k));
    *dw = vm_fma(dy, x * inv, *dw);
}

static void norm_row_backward(const real *dy, const real *x, const real *w, real inv, real *dx,
                              real *dw, size_t c)
{
    vreal dot = vm_set(0), s = vm_set(inv), k, gx, gw;
    size_t i = 0, left;

    for (; i + VM_LANES <= c; i += VM_LANES)
        dot = vm_fma(vm_load(dy + i) * vm_load(w + i), vm_load(x + i), dot);
    left = c - i;
    if (left > 0)
        dot = vm_fma(vm_load_part(dy + i, left, 0) * vm_load_part(w + i, left, 0),
                     vm_load_part(x + i, left, 0), dot);
    k = vm_set(inv * inv * inv * (vm_sum(dot) / (real)c));
    for (i = 0; i + VM_LANES <= c; i += VM_LANES) {
        gx = vm_load(dx + i);
        gw = vm_load(dw + i);
        norm_grad(vm_load(dy + i), vm_load(x + i), vm_load(w + i), s, k, &gx, &gw);
        vm_store(dx + i, gx);
        vm_store(dw + i, gw);
    }
    if (left > 0) {
        gx = vm_load_part(dx + i, left, 0);
        gw = vm_load_part(dw + i, left, 0);
        norm_grad(vm_load_part(dy + i, left, 0), vm_load_part(x + i, left, 0),
                  vm_load_part(w + i, left, 0), s, k, &gx, &gw);
        vm_store_part(dx + i, left, gx);
        vm_store_part(dw + i, left, gw);
    }
}

void ops_rmsnorm_backward(const real *dy, const real *x, const real *w, const real *inv, real *dx,
                          real *dw, size_t n, size_t c)
{
    for (size_t r = 0; r < n; r++)
        norm_row_backward(dy + r * c, x + r * c, w, inv[r], dx + r * c, dw, c);
}

/* ---- rotary positions ---- */

void ops_rope_table(real *table, size_t positions, size_t d, double theta)
{
    size_t half = d / 2;
    double log_theta = vmath_log(theta);

    for (size_t i = 0; i < half; i++) {
        double frequency = vmath_exp(-log_theta * (double)(2 * i) / (double)d);

        for (size_t p = 0; p < positions; p++) {
            double sine, cosine;

            vmath_sincos((double)p * frequency, &sine, &cosine);
            table[p * d + i] = (real)cosine;
            table[p * d + half + i] = (real)sine;
        }
    }
}

/* sign -1 turns back. A half of a small head is a whole number of 16-byte vectors only by luck: plain loops. */
VM_INLINE void rope_row(real *x, const real *cosine, const real *sine, real sign, size_t heads,
                        size_t d)
{
    size_t half = d / 2;

    for (size_t h = 0; h < heads; h++) {
        real *restrict lo = x + h * d;
        real *restrict hi = lo + half;

        for (size_t i = 0; i < half; i++) {
            real s = sign * sine[i], a = lo[i], b = hi[i];

            lo[i] = a * cosine[i] - b * s;
            hi[i] = b * cosine[i] + a * s;
        }
    }
}

static void rope_turn(real *x, size_t ldx, const real *table, const int32_t *pos, real sign,
                      size_t n, size_t heads, size_t d)
{
    for (size_t r = 0; r < n; r++) {
        const real *t = table + (size_t)pos[r] * d;

        if (d == 8)
            rope_row(x + r * ldx, t, t + 4, sign, heads, 8);
        else
            rope_row(x + r * ldx, t, t + d / 2, sign, heads, d);
    }
}

void ops_rope(real *x, size_t ldx, const real *table, const int32_t *pos, size_t n, size_t heads,
              size_t d)
{
    rope_turn(x, ldx, table, pos, 1, n, heads, d);
}

void ops_rope_backward(real *dx, size_t ldx, const real *table, const int32_t *pos, size_t n,
                       size_t heads, size_t d)
{
    rope_turn(dx, ldx, table, pos, -1, n, heads, d);
}

/* ---- gated SiLU ---- */

void ops_swiglu(const real *gu, real *h, size_t n, size_t f)
{
    for (size_t r = 0; r < n; r++) {
        const real *g = gu + r * 2 * f, *u = g + f;
        real *out = h + r * f;
        size_t i = 0, left;

        for (; i + VM_LANES <= f; i += VM_LANES) {
            vreal x = vm_load(g + i);
            vm_store(out + i, x * vm_sigmoid(x) * vm_load(u + i));
        }
        left = f - i;
        if (left > 0) {
            vreal x = vm_load_part(g + i, left, 0);
            vm_store_part(out + i, left, x * vm_sigmoid(x) * vm_load_part(u + i, left, 0));
        }
    }
}

/* d silu(g) = s (1 + g (1 - s)) with s = sigmoid(g). */
VM_INLINE void swiglu_grad(vreal dh, vreal g, vreal u, vreal *dg, vreal *du)
{
    vreal s = vm_sigmoid(g);

    *du = dh * (g * s);
    *dg = dh * u * (s * vm_fma(g, 1 - s, vm_set(1)));
}

void ops_swiglu_backward(const real *dh, const real *gu, real *dgu, size_t n, size_t f)
{
    for (size_t r = 0; r < n; r++) {
        const real *g = gu + r * 2 * f, *u = g + f, *top = dh + r * f;
        real *dg = dgu + r * 2 * f, *du = dg + f;
        vreal a, b;
        size_t i = 0, left;

        for (; i + VM_LANES <= f; i += VM_LANES) {
            swiglu_grad(vm_load(top + i), vm_load(g + i), vm_load(u + i), &a, &b);
            vm_store(dg + i, a);
            vm_store(du + i, b);
        }
        left = f - i;
        if (left > 0) {
            swiglu_grad(vm_load_part(top + i, left, 0), vm_load_part(g + i, left, 0),
                        vm_load_part(u + i, left, 0), &a, &b);
            vm_store_part(dg + i, left, a);
            vm_store_part(du + i, left, b);
        }
    }
}

/* ---- rows ---- */

static real row_max(const real *x, size_t n)
{
    vreal m = vm_set(x[0]);
    size_t i = 0;

    for (; i + VM_LANES <= n; i += VM_LANES)
        m = vm_max(vm_load(x + i), m);
    if (i < n)
        m = vm_max(vm_load_part(x + i, n - i, x[0]), m);
    return vm_max_lane(m);
}

/* A row whose maximum is infinite has no finite shift; the sum is then NaN and shows. */
real ops_logsumexp(const real *x, size_t n)
{
    real top = row_max(x, n);
    vreal m = vm_set(top), sum = vm_set(0);
    size_t i = 0;

    for (; i + VM_LANES <= n; i += VM_LANES)
        sum += vm_exp(vm_load(x + i) - m);
    if (i < n)
        sum += vm_exp(vm_load_part(x + i, n - i, (real)-INFINITY) - m);
    return top + vm_log_one(vm_sum(sum));
}

real ops_logsoftmax(real *x, size_t n)
{
    real lse = ops_logsumexp(x, n);
    vreal v = vm_set(lse);
    size_t i = 0;

    for (; i + VM_LANES <= n; i += VM_LANES)
        vm_store(x + i, vm_load(x + i) - v);
    if (i < n)
        vm_store_part(x + i, n - i, vm_load_part(x + i, n - i, 0) - v);
    return lse;
}

real ops_softmax(real *x, size_t n)
{
    real lse = ops_logsumexp(x, n);
    vreal v = vm_set(lse);
    size_t i = 0;

    for (; i + VM_LANES <= n; i += VM_LANES)
        vm_store(x + i, vm_exp(vm_load(x + i) - v));
    if (i < n)
        vm_store_part(x + i, n - i, vm_exp(vm_load_part(x + i, n - i, 0) - v));
    return lse;
}

/* ---- embedding ---- */

void ops_embed(const real *emb, const int32_t *token, real *x, size_t n, size_t c)
{
    for (size_t r = 0; r < n; r++)
        memcpy(x + r * c, emb + (size_t)token[r] * c, c * sizeof *x);
}

void ops_embed_backward(const real *dx, const int32_t *token, real *demb, size_t n, size_t c)
{
    for (size_t r = 0; r < n; r++)
        ops_axpy(1, dx + r * c, demb + (size_t)token[r] * c, c);
}
