/*
 * rng: counter-based randomness. Philox4x32-10 (Salmon et al., SC'11): a pure function of key and counter, so a value
 * depends on what it is for, never on who asks or in which order. No state, no seeding call.
 */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

/* What the numbers are for; the first word of the counter, so that two uses never share a stream. */
enum rng_use {
    RNG_ORDER = 1,   /* order of samples in a pass */
    RNG_SPLIT = 2,   /* held-out and folds */
    RNG_DROP = 3,    /* attribute drop-out */
    RNG_INIT = 4,    /* new weights */
    RNG_SAMPLE = 5,  /* decoding */
    RNG_SHUFFLE = 6, /* label shuffling of a control */
    RNG_BOOT = 7,    /* bootstrap intervals */
    RNG_PICK = 8,    /* choice of contexts, targets */
    RNG_TEST = 9,
    RNG_AUDIT = 10 /* what two workers must agree about */
};

struct rng_block {
    uint32_t v[4];
};

struct rng_block rng_philox(const uint32_t key[2], const uint32_t counter[4]);
/* 128 bits for (seed, use, a, b, i). */
struct rng_block rng_at(uint64_t seed, enum rng_use use, uint32_t a, uint32_t b, uint32_t i);
uint64_t rng_u64(uint64_t seed, enum rng_use use, uint32_t a, uint32_t b, uint32_t i);
double rng_unit(uint64_t seed, enum rng_use use, uint32_t a, uint32_t b,
                uint32_t i); /* [0, 1), 53 bits */
double rng_normal(uint64_t seed, enum rng_use use, uint32_t a, uint32_t b,
                  uint32_t i); /* N(0, 1) */
uint32_t rng_below(uint64_t seed, enum rng_use use, uint32_t a, uint32_t b, uint32_t i,
                   uint32_t n); /* [0, n) */
/* Keyed permutation of [0, n): image of i. Feistel network with cycle walking: no table, no state. n >= 1. */
uint32_t rng_permute(uint64_t seed, enum rng_use use, uint32_t a, uint32_t n, uint32_t i);

#endif
