/*
 * bf16_software: vdpbf16ps by two fused multiply-adds, the upper halves of the words first. A half word widened to fp32 is
 * the number itself, so the only roundings are those of the two sums. The control register is bf16.c's business.
 */
#include "model/bf16_inner.h"

#include "model/bf16.h"

#if defined(__x86_64__) && defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

#define ROWS 4 /* of a part of a tile: 4 x 16 sums in 8 registers */
#define COLUMNS 16

static uint32_t word(float even, float odd)
{
    return (uint32_t)bf16_round(even) | (uint32_t)bf16_round(odd) << 16;
}

/* One panel of `wide` rows, those from `rows` on zero. */
static void pack(const float *p, size_t ld, bool k_strided, size_t rows, size_t wide, size_t k,
                 uint32_t *to)
{
    size_t by_row = k_strided ? 1 : ld, by_k = k_strided ? ld : 1;

    for (size_t t = 0; t < k; t += 2, to += wide) {
        const float *at = p + t * by_k;

        for (size_t i = 0; i < wide; i++)
            to[i] = i < rows ? word(at[i * by_row], t + 1 < k ? at[i * by_row + by_k] : 0.0f) : 0;
    }
}

static void pack_a(const float *p, size_t ld, bool k_strided, size_t rows, size_t k, uint32_t *to)
{
    for (size_t i = 0; i < rows; i += BF16_ROWS, to += (k + 1) / 2 * BF16_ROWS)
        pack(p + i * (k_strided ? 1 : ld), ld, k_strided, rows - i, BF16_ROWS, k, to);
}

static void pack_b(const float *p, size_t ld, bool k_strided, size_t rows, size_t k, uint32_t *to)
{
    pack(p, ld, k_strided, rows, BF16_COLUMNS, k, to);
}

static __m256 upper(__m256i words)
{
    return _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32((int)0xffff0000u)));
}

static __m256 lower(__m256i words)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
}

/* All of 4 x 16: c is a buffer. */
static void part(const uint32_t *restrict a, const uint32_t *restrict b, size_t pairs,
                 float c[ROWS][COLUMNS])
{
    __m256 sum[ROWS][2];

    for (int i = 0; i < ROWS; i++) {
        sum[i][0] = _mm256_loadu_ps(c[i]);
        sum[i][1] = _mm256_loadu_ps(c[i] + 8);
    }
    for (size_t t = 0; t < pairs; t++, a += BF16_ROWS, b += BF16_COLUMNS) {
        __m256i b0 = _mm256_loadu_si256((const __m256i *)(const void *)b);
        __m256i b1 = _mm256_loadu_si256((const __m256i *)(const void *)(b + 8));
        __m256 up0 = upper(b0), up1 = upper(b1), low0 = lower(b0), low1 = lower(b1);

        for (int i = 0; i < ROWS; i++) {
            __m256i words = _mm256_set1_epi32((int)a[i]);
            __m256 up = upper(words), low = lower(words);

            sum[i][0] = _mm256_fmadd_ps(up, up0, sum[i][0]);
            sum[i][1] = _mm256_fmadd_ps(up, up1, sum[i][1]);
            sum[i][0] = _mm256_fmadd_ps(low, low0, sum[i][0]);
            sum[i][1] = _mm256_fmadd_ps(low, low1, sum[i][1]);
        }
    }
    for (int i = 0; i < ROWS; i++) {
        _mm256_storeu_ps(c[i], sum[i][0]);
        _mm256_storeu_ps(c[i] + 8, sum[i][1]);
    }
}

static void tile(const uint32_t *a, const uint32_t *b, size_t pairs, float *c, size_t ldc,
                 size_t rows, size_t columns, bool load)
{
    for (size_t i0 = 0; i0 < rows; i0 += ROWS)
        for (size_t j0 = 0; j0 < columns; j0 += COLUMNS) {
            float sum[ROWS][COLUMNS] = {{0}};
            size_t m = rows - i0 < ROWS ? rows - i0 : ROWS;
            size_t n = columns - j0 < COLUMNS ? columns - j0 : COLUMNS;

            for (size_t i = 0; load && i < m; i++)
                for (size_t j = 0; j < n; j++)
                    sum[i][j] = c[(i0 + i) * ldc + j0 + j];
            part(a + i0, b + j0, pairs, sum);
            for (size_t i = 0; i < m; i++)
                for (size_t j = 0; j < n; j++)
                    c[(i0 + i) * ldc + j0 + j] = sum[i][j];
        }
}

static const struct bf16_way way = {pack_a, pack_b, tile, true};
const struct bf16_way *const bf16_way_software = &way;
#else
const struct bf16_way *const bf16_way_software = NULL;
#endif
