/* vmath: the scalar functions in double. Series long enough for the reduced range; every fma is written out. */
#include "model/vmath.h"

#define LN2_HI 0x1.62e42fefa39efp-1
#define LN2_LO 0x1.abc9e3b39803fp-56

double vmath_exp(double x)
{
    double k = __builtin_rint(x * 0x1.71547652b82fep0);
    double r = __builtin_fma(k, -LN2_LO, __builtin_fma(k, -LN2_HI, x));
    double p = 1.0 / 87178291200.0; /* 1/14! */
    double n = 14.0;
    int64_t exponent = (int64_t)k;
    uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double scale;

    for (double f = p; n >= 1.0; n -= 1.0) { /* f runs through 1/n! */
        f *= n;
        p = __builtin_fma(p, r, f);
    }
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

double vmath_log(double x)
{
    int64_t bits, k;
    double m, s, s2, p = 1.0 / 25.0;

    memcpy(&bits, &x, sizeof bits);
    k = (bits - 0x3fe6a09e667f3bcd) >> 52; /* x = m 2^k with m in [sqrt(1/2), sqrt(2)) */
    bits -= k * ((int64_t)1 << 52);
    memcpy(&m, &bits, sizeof m);
    s = (m - 1.0) / (m + 1.0);
    s2 = s * s;
    for (int i = 23; i >= 3; i -= 2)
        p = __builtin_fma(p, s2, 1.0 / (double)i);
    p = 2.0 * s * s2 * p;
    return __builtin_fma((double)k, LN2_HI, __builtin_fma((double)k, LN2_LO, p) + 2.0 * s);
}

/* Cody-Waite reduction by pi/2 in three parts, then Taylor series on [-pi/4, pi/4]. */
void vmath_sincos(double x, double *sine, double *cosine)
{
    double k = __builtin_rint(x * 0x1.45f306dc9c883p-1);
    double r = __builtin_fma(k, -0x1.921fb54442d18p0, x);
    double r2, s, c;
    int64_t quadrant = (int64_t)k & 3;

    r = __builtin_fma(k, -0x1.1a62633145c07p-54, r);
    r2 = r * r;
    s = 1.0;
    for (double i = 20.0; i >= 2.0; i -= 2.0)
        s = __builtin_fma(-s * r2, 1.0 / (i * (i + 1.0)), 1.0);
    s *= r;
    c = 1.0;
    for (double i = 20.0; i >= 2.0; i -= 2.0)
        c = __builtin_fma(-c * r2, 1.0 / (i * (i - 1.0)), 1.0);
    *sine = quadrant == 0 ? s : quadrant == 1 ? c : quadrant == 2 ? -s : -c;
    *cosine = quadrant == 0 ? c : quadrant == 1 ? -s : quadrant == 2 ? -c : s;
}
