/*
 * bf16_software: vdpbf16ps by two fused multiply-adds, the upper halves of the words first. A half word widened to fp32 is
 * the number itself, so the only roundings are those of the two sums. The control register is bf16.c's business.
 */
#include "model/bf16_inner.h"

#include "model/bf16.h"
#include "model/vmath.h"

#if defined(__x86_64__) && defined(__AVX2__) && defined(__FMA__) && !defined(REAL_DOUBLE)
#include <immintrin.h>

#define ROWS 4 /* of a part of a tile: 4 x 16 sums in 8 registers */
#define COLUMNS 16

/* bf16_round() of eight numbers, each in the upper half of its word; the lower halves are of no use. */
static __m256i rounded(vreal x)
{
    const __m256i exponent = _mm256_set1_epi32(0x7f800000), v = (__m256i)x;
    __m256i size = _mm256_and_si256(v, _mm256_set1_epi32(0x7fffffff));
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(v, 16), _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(_mm256_add_epi32(v, _mm256_set1_epi32(0x7fff)), odd);
    __m256i quiet = _mm256_or_si256(v, _mm256_set1_epi32(0x400000));
    __m256i none = _mm256_cmpeq_epi32(_mm256_and_si256(v, exponent), _mm256_setzero_si256());

    up = _mm256_blendv_epi8(up, quiet, _mm256_cmpgt_epi32(size, exponent));
    return _mm256_blendv_epi8(up, _mm256_andnot_si256(size, v), none);
}

/* The words of eight rows at one pair of k. */
static void words_store(uint32_t *to, vreal even, vreal odd)
{
    __m256i low = _mm256_srli_epi32(rounded(even), 16);

    _mm256_storeu_si256((__m256i *)(void *)to, _mm256_blend_epi16(low, rounded(odd), 0xaa));
}

/* Eight rows, of which there are `rows`, at k elements of k: element (i, t) in lane i of x[t], the others 0. */
static void square_load(const float *p, size_t ld, bool k_strided, size_t rows, size_t k,
                        vreal x[VM_LANES])
{
    size_t lines = k_strided ? k : rows, wide = k_strided ? rows : k;

    for (size_t i = 0; i < VM_LANES; i++)
        x[i] = i >= lines         ? vm_set(0)
               : wide >= VM_LANES ? vm_load(p + i * ld)
                                  : vm_load_part(p + i * ld, wide, 0);
    if (!k_strided)
        vm_transpose(x);
}

/* One panel of `wide` rows, those from `rows` on zero. What the last eight rows of it have too many is written over by the
 * next pair's first, and by the next panel: they are stored later. */
static void pack(const float *p, size_t ld, bool k_strided, size_t rows, const size_t wide,
                 size_t k, uint32_t *to)
{
    for (size_t t = 0; t < k; t += VM_LANES, to += VM_LANES / 2 * wide)
        for (size_t end = (wide + VM_LANES - 1) / VM_LANES * VM_LANES; end > 0; end -= VM_LANES) {
            size_t i = end - VM_LANES;
            vreal x[VM_LANES];

            square_load(p + i * (k_strided ? 1 : ld) + t * (k_strided ? ld : 1), ld, k_strided,
                        rows > i ? rows - i : 0, k - t, x);
            for (size_t pair = 0; pair < VM_LANES / 2 && t + 2 * pair < k; pair++)
                words_store(to + pair * wide + i, x[2 * pair], x[2 * pair + 1]);
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

/* All of 4 x 16. */
static void part(const uint32_t *restrict a, const uint32_t *restrict b, size_t pairs,
                 float *restrict c, size_t ldc, bool load)
{
    __m256 sum[ROWS][2];

    for (size_t i = 0; i < ROWS; i++) {
        sum[i][0] = load ? _mm256_loadu_ps(c + i * ldc) : _mm256_setzero_ps();
        sum[i][1] = load ? _mm256_loadu_ps(c + i * ldc + 8) : _mm256_setzero_ps();
    }
    for (size_t t = 0; t < pairs; t++, a += BF16_ROWS, b += BF16_COLUMNS) {
        __m256i b0 = _mm256_loadu_si256((const __m256i *)(const void *)b);
        __m256i b1 = _mm256_loadu_si256((const __m256i *)(const void *)(b + 8));
        __m256 up0 = upper(b0), up1 = upper(b1), low0 = lower(b0), low1 = lower(b1);

        for (size_t i = 0; i < ROWS; i++) {
            __m256i words = _mm256_set1_epi32((int)a[i]);
            __m256 up = upper(words), low = lower(words);

            sum[i][0] = _mm256_fmadd_ps(up, up0, sum[i][0]);
            sum[i][1] = _mm256_fmadd_ps(up, up1, sum[i][1]);
            sum[i][0] = _mm256_fmadd_ps(low, low0, sum[i][0]);
            sum[i][1] = _mm256_fmadd_ps(low, low1, sum[i][1]);
        }
    }
    for (size_t i = 0; i < ROWS; i++) {
        _mm256_storeu_ps(c + i * ldc, sum[i][0]);
        _mm256_storeu_ps(c + i * ldc + 8, sum[i][1]);
    }
}

/* m x n of a part, by way of a whole one. */
static void edge(const uint32_t *a, const uint32_t *b, size_t pairs, float *c, size_t ldc, size_t m,
                 size_t n, bool load)
{
    float sum[ROWS][COLUMNS] = {{0}};

    for (size_t i = 0; load && i < m; i++)
        memcpy(sum[i], c + i * ldc, n * sizeof *c);
    part(a, b, pairs, sum[0], COLUMNS, true);
    for (size_t i = 0; i < m; i++)
        memcpy(c + i * ldc, sum[i], n * sizeof *c);
}

static void tile(const uint32_t *a, const uint32_t *b, size_t pairs, float *c, size_t ldc,
                 size_t rows, size_t columns, bool load)
{
    for (size_t i = 0; i < rows; i += ROWS)
        for (size_t j = 0; j < columns; j += COLUMNS) {
            float *to = c + i * ldc + j;

            if (rows - i >= ROWS && columns - j >= COLUMNS)
                part(a + i, b + j, pairs, to, ldc, load);
            else
                edge(a + i, b + j, pairs, to, ldc, rows - i < ROWS ? rows - i : ROWS,
                     columns - j < COLUMNS ? columns - j : COLUMNS, load);
        }
}

static const struct bf16_way way = {pack_a, pack_b, tile, true};
const struct bf16_way *const bf16_way_software = &way;
#else
const struct bf16_way *const bf16_way_software = NULL;
#endif
