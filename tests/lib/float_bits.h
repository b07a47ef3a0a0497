/* float_bits: a float as its bits, for tests of formats. */
#ifndef TESTS_LIB_FLOAT_BITS_H
#define TESTS_LIB_FLOAT_BITS_H

#include <stdint.h>
#include <string.h>

static inline uint32_t bits_of(float x)
{
    uint32_t v;

    memcpy(&v, &x, sizeof v);
    return v;
}

static inline float float_of(uint32_t v)
{
    float x;

    memcpy(&x, &v, sizeof x);
    return x;
}

#endif
