/*
 * vmath: short vectors of `real` and the functions that the numerics need over them.
 *
 * exp, log, sigmoid, sine and cosine are our own polynomials with explicit fma, so that their bits do not depend on a C
 * library. A vector is 32 bytes: VM_LANES floats (8) or doubles (4). Sums over lanes use one fixed tree. Nothing here
 * allocates or fails. NaN in, NaN out. Accuracy (tests/unit/model/test_vmath.c): exp and log within 2 ulp, sigmoid
 * within 3.
 * Source of the float polynomials: Cephes (S. Moshier), single precision; the double ones are Taylor series long enough.
 */
#ifndef MODEL_VMATH_H
#define MODEL_VMATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __FMA__
#include <immintrin.h>
#endif

#include "model/real.h"

#ifdef REAL_DOUBLE
typedef int64_t vm_word;
#define VM_LANES 4
#else
typedef int32_t vm_word;
#define VM_LANES 8
#endif
typedef real vreal __attribute__((vector_size(32)));
typedef vm_word vword __attribute__((vector_size(32)));

#define VM_INLINE static inline __attribute__((always_inline, unused))

/* n rounded up to whole vectors. */
VM_INLINE size_t vm_round(size_t n)
{
    return (n + VM_LANES - 1) / VM_LANES * VM_LANES;
}

VM_INLINE vreal vm_load(const real *p)
{
    vreal v;
    memcpy(&v, p, sizeof v);
    return v;
}

VM_INLINE void vm_store(real *p, vreal v)
{
    memcpy(p, &v, sizeof v);
}

VM_INLINE vreal vm_set(real x)
{
#ifdef REAL_DOUBLE
    return (vreal){x, x, x, x};
#else
    return (vreal){x, x, x, x, x, x, x, x};
#endif
}

/* Lanes of a where mask is all ones, of b where it is zero. */
VM_INLINE vreal vm_select(vword mask, vreal a, vreal b)
{
#if defined(__AVX2__) && defined(REAL_DOUBLE)
    return (vreal)_mm256_blendv_pd((__m256d)b, (__m256d)a, (__m256d)mask);
#elif defined(__AVX2__)
    return (vreal)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)mask);
#else
    return (vreal)(((vword)a & mask) | ((vword)b & ~mask));
#endif
}

/* Lanes below n are all ones. */
VM_INLINE vword vm_first(size_t n)
{
#ifdef REAL_DOUBLE
    const vword index = {0, 1, 2, 3};
#else
    const vword index = {0, 1, 2, 3, 4, 5, 6, 7};
#endif
    return index < (vm_word)n;
}

/* The first n < VM_LANES elements, other lanes = fill; what lies behind them in memory is not touched. */
VM_INLINE vreal vm_load_part(const real *p, size_t n, real fill)
{
#if defined(__AVX2__) && defined(REAL_DOUBLE)
    return vm_select(vm_first(n), (vreal)_mm256_maskload_pd(p, (__m256i)vm_first(n)), vm_set(fill));
#elif defined(__AVX2__)
    return vm_select(vm_first(n), (vreal)_mm256_maskload_ps(p, (__m256i)vm_first(n)), vm_set(fill));
#else
    real part[VM_LANES];

    for (size_t i = 0; i < VM_LANES; i++)
        part[i] = i < n ? p[i] : fill;
    return vm_load(part);
#endif
}

/* In pieces: masked stores of AVX2 take tens of cycles on some CPUs. */
VM_INLINE void vm_store_part(real *p, size_t n, vreal v)
{
    real part[VM_LANES];
    size_t i = 0;

    vm_store(part, v);
    if (n & 4) {
        memcpy(p, part, 4 * sizeof *p);
        i = 4;
    }
    if (n & 2) {
        memcpy(p + i, part + i, 2 * sizeof *p);
        i += 2;
    }
    if (n & 1)
        p[i] = part[i];
}

/* vm_set() of what is in memory, in one instruction: x - 0 is x, also for -0. */
VM_INLINE vreal vm_broadcast(real x)
{
    return x - (vreal){0};
}

/* The first n elements of p, at most a vector of them, are v, or v more. */
VM_INLINE void vm_put(real *p, size_t n, bool add, vreal v)
{
    if (n >= VM_LANES)
        vm_store(p, add ? vm_load(p) + v : v);
    else
        vm_store_part(p, n, add ? vm_load_part(p, n, 0) + v : v);
}

/* a * b + c, rounded once, on every machine. */
VM_INLINE vreal vm_fma(vreal a, vreal b, vreal c)
{
#if defined(__FMA__) && defined(REAL_DOUBLE)
    return (vreal)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__FMA__)
    return (vreal)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    vreal r;
    for (int i = 0; i < VM_LANES; i++)
#ifdef REAL_DOUBLE
        r[i] = __builtin_fma(a[i], b[i], c[i]);
#else
        r[i] = __builtin_fmaf(a[i], b[i], c[i]);
#endif
    return r;
#endif
}

/* A NaN in b stays; a NaN in a is kept too as long as a row's sum is looked at, because exp(NaN - m) is NaN. */
VM_INLINE vreal vm_max(vreal a, vreal b)
{
#if defined(__AVX2__) && defined(REAL_DOUBLE)
    return (vreal)_mm256_max_pd((__m256d)a, (__m256d)b); /* is a > b ? a : b */
#elif defined(__AVX2__)
    return (vreal)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return vm_select(a > b, a, b);
#endif
}

/* x[i][j] and x[j][i] change places. */
VM_INLINE void vm_transpose(vreal x[VM_LANES])
{
#ifdef REAL_DOUBLE
    const vword low = {0, 4, 2, 6}, high = {1, 5, 3, 7}, left = {0, 1, 4, 5}, right = {2, 3, 6, 7};
    vreal a = __builtin_shuffle(x[0], x[1], low), b = __builtin_shuffle(x[0], x[1], high);
    vreal c = __builtin_shuffle(x[2], x[3], low), d = __builtin_shuffle(x[2], x[3], high);

    x[0] = __builtin_shuffle(a, c, left);
    x[1] = __builtin_shuffle(b, d, left);
    x[2] = __builtin_shuffle(a, c, right);
    x[3] = __builtin_shuffle(b, d, right);
#else
    const vword low = {0, 8, 1, 9, 4, 12, 5, 13}, high = {2, 10, 3, 11, 6, 14, 7, 15};
    const vword lows = {0, 1, 8, 9, 4, 5, 12, 13}, highs = {2, 3, 10, 11, 6, 7, 14, 15};
    const vword left = {0, 1, 2, 3, 8, 9, 10, 11}, right = {4, 5, 6, 7, 12, 13, 14, 15};
    vreal t[8];

#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        t[i] = __builtin_shuffle(x[i], x[i + 1], low);
        t[i + 1] = __builtin_shuffle(x[i], x[i + 1], high);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        x[i] = __builtin_shuffle(t[i], t[i + 2], lows);
        x[i + 1] = __builtin_shuffle(t[i], t[i + 2], highs);
        x[i + 2] = __builtin_shuffle(t[i + 1], t[i + 3], lows);
        x[i + 3] = __builtin_shuffle(t[i + 1], t[i + 3], highs);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = __builtin_shuffle(x[i], x[i + 4], left);
        t[i + 4] = __builtin_shuffle(x[i], x[i + 4], right);
    }
    for (int i = 0; i < 8; i++)
        x[i] = t[i];
#endif
}

VM_INLINE real vm_sum(vreal v)
{
#ifdef REAL_DOUBLE
    return (v[0] + v[2]) + (v[1] + v[3]);
#else
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
#endif
}

VM_INLINE real vm_max_lane(vreal v)
{
#ifdef REAL_DOUBLE
    v = vm_max(v, __builtin_shuffle(v, (vword){2, 3, 0, 1}));
    v = vm_max(v, __builtin_shuffle(v, (vword){1, 0, 3, 2}));
#else
    v = vm_max(v, __builtin_shuffle(v, (vword){4, 5, 6, 7, 0, 1, 2, 3}));
    v = vm_max(v, __builtin_shuffle(v, (vword){2, 3, 0, 1, 6, 7, 4, 5}));
    v = vm_max(v, __builtin_shuffle(v, (vword){1, 0, 3, 2, 5, 4, 7, 6}));
#endif
    return v[0];
}

#ifdef REAL_DOUBLE
#define VM_EXP_MAX 709.0
#define VM_EXP_MIN (-708.0)
#else
#define VM_EXP_MAX 88.37f
#define VM_EXP_MIN (-87.0f)
#endif

/* e^x; 0 below VM_EXP_MIN, infinity above VM_EXP_MAX (a little before the type ends, so that 2^k is always normal). */
VM_INLINE vreal vm_exp(vreal x)
{
#ifdef REAL_DOUBLE
    const vreal shift = vm_set(0x1.8p52);
    static const double c[] = {1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0,
                               1.0 / 3628800.0,    1.0 / 362880.0,    1.0 / 40320.0,
                               1.0 / 5040.0,       1.0 / 720.0,       1.0 / 120.0,
                               1.0 / 24.0,         1.0 / 6.0,         0.5};
    vreal z = vm_fma(x, vm_set(0x1.71547652b82fep0), shift);
    vreal k = z - shift;
    vreal r = vm_fma(k, vm_set(-0x1.62e42fefa39efp-1), x);
    r = vm_fma(k, vm_set(-0x1.abc9e3b39803fp-56), r);
    vreal p = vm_set(c[0]);
    for (size_t i = 1; i < sizeof c / sizeof c[0]; i++)
        p = vm_fma(p, r, vm_set(c[i]));
    vreal y = vm_fma(p, r * r, r) + 1.0;
    vreal scale = (vreal)(((vword)z + 1023) << 52);
    y *= scale;
    y = vm_select(x < VM_EXP_MIN, vm_set(0.0), y);
    return vm_select(x > VM_EXP_MAX, vm_set(__builtin_inf()), y);
#else
    const vreal shift = vm_set(0x1.8p23f);
    vreal z = vm_fma(x, vm_set(1.44269504088896341f), shift);
    vreal k = z - shift;
    vreal r = vm_fma(k, vm_set(-0.693359375f), x);
    r = vm_fma(k, vm_set(2.12194440e-4f), r);
    vreal p = vm_set(1.9875691500e-4f);
    p = vm_fma(p, r, vm_set(1.3981999507e-3f));
    p = vm_fma(p, r, vm_set(8.3334519073e-3f));
    p = vm_fma(p, r, vm_set(4.1665795894e-2f));
    p = vm_fma(p, r, vm_set(1.6666665459e-1f));
    p = vm_fma(p, r, vm_set(5.0000001201e-1f));
    vreal y = vm_fma(p, r * r, r) + 1.0f;
    vreal scale = (vreal)(((vword)z + 127) << 23);
    y *= scale;
    y = vm_select(x < VM_EXP_MIN, vm_set(0.0f), y);
    return vm_select(x > VM_EXP_MAX, vm_set(__builtin_inff()), y);
#endif
}

/* 1 / (1 + e^-x). */
VM_INLINE vreal vm_sigmoid(vreal x)
{
    return (real)1 / ((real)1 + vm_exp(-x));
}

/* Natural logarithm of a positive normal number (what log-sum-exp needs); NaN for NaN and for what is negative;
 * zero and denormals give about the logarithm of the least normal number, infinity about that of the largest. */
VM_INLINE vreal vm_log(vreal x)
{
#ifdef REAL_DOUBLE
    const vm_word half_root = 0x3fe6a09e667f3bcd; /* sqrt(1/2) */
    vword bits = (vword)x;
    vword up = bits - half_root;
    vword k = up >> 52;
    vreal m = (vreal)(bits - (k << 52)); /* in [sqrt(1/2), sqrt(2)) */
    vreal kf = __builtin_convertvector(k, vreal);
    vreal s = (m - 1.0) / (m + 1.0);
    vreal s2 = s * s;
    vreal p = vm_set(1.0 / 23.0);
    for (int i = 21; i >= 3; i -= 2)
        p = vm_fma(p, s2, vm_set(1.0 / (double)i));
    vreal tail = 2.0 * s * s2 * p;
    vreal y = vm_fma(kf, vm_set(0x1.62e42fefa39efp-1),
                     vm_fma(kf, vm_set(0x1.abc9e3b39803fp-56), tail) + 2.0 * s);
    return vm_select(x >= 0.0, y, vm_set(__builtin_nan("")));
#else
    const vm_word half_root = 0x3f3504f3;
    vword bits = (vword)x;
    vword up = bits - half_root;
    vword k = up >> 23;
    vreal m = (vreal)(bits - (k << 23)) - 1.0f;
    vreal kf = __builtin_convertvector(k, vreal);
    vreal m2 = m * m;
    vreal p = vm_set(7.0376836292e-2f);
    p = vm_fma(p, m, vm_set(-1.1514610310e-1f));
    p = vm_fma(p, m, vm_set(1.1676998740e-1f));
    p = vm_fma(p, m, vm_set(-1.2420140846e-1f));
    p = vm_fma(p, m, vm_set(1.4249322787e-1f));
    p = vm_fma(p, m, vm_set(-1.6668057665e-1f));
    p = vm_fma(p, m, vm_set(2.0000714765e-1f));
    p = vm_fma(p, m, vm_set(-2.4999993993e-1f));
    p = vm_fma(p, m, vm_set(3.3333331174e-1f));
    vreal tail = vm_fma(m2 * m, p, vm_fma(kf, vm_set(-2.12194440e-4f), -0.5f * m2));
    vreal y = vm_fma(kf, vm_set(0.693359375f), m + tail);
    return vm_select(x >= 0.0f, y, vm_set(__builtin_nanf("")));
#endif
}

/* One number; the same bits as in a vector. */
VM_INLINE real vm_exp_one(real x)
{
    return vm_exp(vm_set(x))[0];
}

VM_INLINE real vm_log_one(real x)
{
    return vm_log(vm_set(x))[0];
}

/* In double in every build: angles of rotary positions and learning-rate schedules. Within 4 ulp.
 * cos and sin: |x| <= 2^21. log: positive and normal. exp: |x| <= 700. */
double vmath_exp(double x);
double vmath_log(double x);
void vmath_sincos(double x, double *sine, double *cosine);

#endif
