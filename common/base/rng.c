#include "base/rng.h"

#include <math.h>

#include "base/err.h"

struct rng_block rng_philox(const uint32_t key[2], const uint32_t counter[4])
{
    uint32_t k0 = key[0], k1 = key[1];
    struct rng_block x = {{counter[0], counter[1], counter[2], counter[3]}};

    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * x.v[0];
        uint64_t b = (uint64_t)0xCD9E8D57u * x.v[2];
        struct rng_block y;
        y.v[0] = (uint32_t)(b >> 32) ^ x.v[1] ^ k0;
        y.v[1] = (uint32_t)b;
        y.v[2] = (uint32_t)(a >> 32) ^ x.v[3] ^ k1;
        y.v[3] = (uint32_t)a;
        x = y;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return x;
}

struct rng_block rng_at(uint64_t seed, enum rng_use use, uint32_t a, uint32_t b, uint32_t i)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t counter[4] = {(uint32_t)use, a, b, i};

    return rng_philox(key, counter);
}

uint64_t rng_u64(uint64_t seed, enum rng_use use, uint32_t a, uint32_t b, uint32_t i)
{
    struct rng_block x = rng_at(seed, use, a, b, i);

    return (uint64_t)x.v[1] << 32 | x.v[0];
}

double rng_unit(uint64_t seed, enum rng_use use, uint32_t a, uint32_t b, uint32_t i)
{
    return (double)(rng_u64(seed, use, a, b, i) >> 11) * 0x1p-53;
}

double rng_normal(uint64_t seed, enum rng_use use, uint32_t a, uint32_t b, uint32_t i)
{
    struct rng_block x = rng_at(seed, use, a, b, i);
    double u = ((double)x.v[0] + 1.0) * 0x1p-32; /* (0, 1]: its logarithm is finite */
    double w = (double)x.v[1] * 0x1p-32;

    return sqrt(-2.0 * log(u)) * cos(6.283185307179586477 * w);
}

uint32_t rng_below(uint64_t seed, enum rng_use use, uint32_t a, uint32_t b, uint32_t i, uint32_t n)
{
    CHECK(n > 0);
    return (uint32_t)(((__uint128_t)rng_u64(seed, use, a, b, i) * n) >> 64);
}

uint32_t rng_permute(uint64_t seed, enum rng_use use, uint32_t a, uint32_t n, uint32_t i)
{
    unsigned half = 1;

    CHECK(i < n);
    while (((uint64_t)1 << (2 * half)) < n)
        half++;
    do {
        uint32_t mask = (1u << half) - 1;
        uint32_t left = i >> half, right = i & mask;
        for (uint32_t round = 0; round < 6; round++) {
            uint32_t f = rng_at(seed, use, a, round, right).v[0] & mask;
            uint32_t swap = left ^ f;
            left = right;
            right = swap;
        }
        i = left << half | right;
    } while (i >= n); /* walks on until it is back inside [0, n) */
    return i;
}
