#include "ps/half.h"

#include <string.h>

static inline uint32_t bits_of(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float rounded(float x)
{
    uint32_t u = bits_of(x);
    uint32_t near = (u + 0x7fffu + ((u >> 16) & 1u)) & 0xffff0000u;
    float out;

    /* The carry of a NaN's mantissa must not reach its sign: it keeps its upper half, made quiet. */
    u = (u & 0x7fffffffu) > 0x7f800000u ? (u & 0xffff0000u) | 0x00400000u : near;
    memcpy(&out, &u, sizeof out);
    return out;
}

void half_round(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = rounded(x[i]);
}

void half_copy(float *restrict to, const float *restrict from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = rounded(from[i]);
}

void half_add(float *restrict into, const float *restrict from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        into[i] = rounded(into[i] + from[i]);
}

void half_pack(uint16_t *restrict to, const float *restrict from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (uint16_t)(bits_of(from[i]) >> 16);
}

void half_unpack(float *restrict to, const uint16_t *restrict from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u = (uint32_t)from[i] << 16;
        memcpy(&to[i], &u, sizeof u);
    }
}
