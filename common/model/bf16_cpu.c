/*
 * bf16_cpu: packing and the micro-kernel with AVX512_BF16, compiled for it whatever the rest is compiled for.
 *
 * A tile has 12 x 32 elements in 24 registers; a pair of k costs two loads of b, twelve broadcasts of a and 24 vdpbf16ps,
 * of which a core that issues one a cycle is never short. Rows of an operand whose k are neighbours are converted 32 at a
 * time and transposed 16 x 16 words at a time; where k is strided, two rows are converted at once and woven into words.
 */
#include "model/bf16_inner.h"

#ifdef __x86_64__
#include <immintrin.h>

#define CPU __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#define CPU_INLINE CPU static inline __attribute__((always_inline))
#define HALF (BF16_COLUMNS / 2)

CPU_INLINE __mmask16 first(size_t n)
{
    return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1u);
}

/* Word j of register i becomes word i of register j. */
CPU_INLINE void transpose(__m512i r[16])
{
    __m512i t[16];

    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* Lane l of r[4 q + j] has column 4 l + j of rows 4 q .. 4 q + 3: gather the lanes. */
    for (int j = 0; j < 4; j++) {
        t[j] = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88);
        t[4 + j] = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd);
        t[8 + j] = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
        t[12 + j] = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xdd);
    }
    for (int j = 0; j < 4; j++) {
        r[j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0x88);
        r[4 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0x88);
        r[8 + j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0xdd);
        r[12 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0xdd);
    }
}

/* 32 elements, of which those under lo and hi are there, of each of `rows` rows: 16 words a row, then transposed. */
CPU_INLINE void words_load(const float *p, size_t ld, size_t rows, __mmask16 lo, __mmask16 hi,
                           __m512i r[16])
{
    for (size_t i = 0; i < 16; i++) {
        const float *row = p + i * ld;

        r[i] = _mm512_setzero_si512();
        if (i < rows)
            r[i] = (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(hi, row + 16),
                                                _mm512_maskz_loadu_ps(lo, row));
    }
    transpose(r);
}

/* k are neighbours: rows become words `stride` apart. Writes 16 words a pair, the last ones perhaps behind the panel. */
CPU_INLINE void pack_rows(const float *p, size_t ld, size_t rows, size_t most, size_t k,
                          uint32_t *to, size_t stride)
{
    __m512i r[16];
    size_t done = 0;

    for (; done + 32 <= k; done += 32, to += 16 * stride) {
        if (rows >= most)
            words_load(p + done, ld, most, 0xffff, 0xffff, r);
        else
            words_load(p + done, ld, rows, 0xffff, 0xffff, r);
        for (size_t t = 0; t < 16; t++)
            _mm512_storeu_si512(to + t * stride, r[t]);
    }
    if (done == k)
        return;
    k -= done;
    words_load(p + done, ld, rows < most ? rows : most, first(k), k > 16 ? first(k - 16) : 0, r);
    for (size_t t = 0; t < (k + 1) / 2; t++)
        _mm512_storeu_si512(to + t * stride, r[t]);
}

/* Rows k and k + 1 (NULL: zeros) of up to 16 columns as words. */
CPU_INLINE __m512i woven(const float *even, const float *odd, __mmask16 there)
{
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512 high = odd != NULL ? _mm512_maskz_loadu_ps(there, odd) : _mm512_setzero_ps();

    return _mm512_permutexvar_epi16(
        order, (__m512i)_mm512_cvtne2ps_pbh(high, _mm512_maskz_loadu_ps(there, even)));
}

/* Along the rows of memory, panel after panel: a vocabulary's rows are a page each. */
CPU static void pack_a_strided(const float *p, size_t ld, size_t rows, size_t k, uint32_t *to)
{
    size_t pairs = (k + 1) / 2;

    for (size_t t = 0; t < pairs; t++) {
        const float *even = p + 2 * t * ld;
        const float *odd = 2 * t + 1 < k ? even + ld : NULL;
        uint32_t *panel = to + t * BF16_ROWS;

        for (size_t i = 0; i < rows; i += BF16_ROWS, panel += pairs * BF16_ROWS) {
            size_t n = rows - i < BF16_ROWS ? rows - i : BF16_ROWS;
            __m512i v = woven(even + i, odd != NULL ? odd + i : NULL, first(n));

            if (t + 1 < pairs)
                _mm512_storeu_si512(panel, v); /* the next pair of this panel comes later */
            else
                _mm512_mask_storeu_epi32(panel, first(BF16_ROWS), v);
        }
    }
}

CPU static void pack_a(const float *p, size_t ld, bool k_strided, size_t rows, size_t k,
                       uint32_t *to)
{
    size_t pairs = (k + 1) / 2;

    if (k_strided) {
        pack_a_strided(p, ld, rows, k, to);
        return;
    }
    for (size_t i = 0; i < rows; i += BF16_ROWS, to += pairs * BF16_ROWS)
        pack_rows(p + i * ld, ld, rows - i, BF16_ROWS, k, to, BF16_ROWS);
}

CPU static void pack_b(const float *p, size_t ld, bool k_strided, size_t rows, size_t k,
                       uint32_t *to)
{
    size_t left = rows > HALF ? rows - HALF : 0;

    if (!k_strided) {
        pack_rows(p, ld, rows, HALF, k, to, BF16_COLUMNS);
        pack_rows(p + (left > 0 ? HALF * ld : 0), ld, left, HALF, k, to + HALF, BF16_COLUMNS);
        return;
    }
    for (size_t t = 0; t < k; t += 2, to += BF16_COLUMNS) {
        const float *even = p + t * ld;
        const float *odd = t + 1 < k ? even + ld : NULL;

        _mm512_storeu_si512(to, woven(even, odd, first(rows)));
        even += left > 0 ? HALF : 0;
        _mm512_storeu_si512(to + HALF, woven(even, odd != NULL ? even + ld : NULL, first(left)));
    }
}

/* `most` is a constant, 12, 8 or 4: of as many rows as that the registers hold the sums. */
CPU_INLINE void tile_of(const uint32_t *restrict a, const uint32_t *restrict b, size_t pairs,
                        float *c, size_t ldc, size_t rows, size_t columns, bool load, size_t most)
{
    __mmask16 left = first(columns), right = columns > HALF ? first(columns - HALF) : 0;
    __m512 sum[BF16_ROWS][2];

#pragma GCC unroll 12
    for (size_t i = 0; i < most; i++) {
        sum[i][0] = sum[i][1] = _mm512_setzero_ps();
        if (load && i < rows) {
            sum[i][0] = _mm512_maskz_loadu_ps(left, c + i * ldc);
            sum[i][1] = _mm512_maskz_loadu_ps(right, c + i * ldc + HALF);
        }
    }
    for (size_t t = 0; t < pairs; t++, a += BF16_ROWS, b += BF16_COLUMNS) {
        __m512bh b0 = (__m512bh)_mm512_load_si512(b), b1 = (__m512bh)_mm512_load_si512(b + HALF);

#pragma GCC unroll 12
        for (size_t i = 0; i < most; i++) {
            __m512bh word = (__m512bh)_mm512_set1_epi32((int)a[i]);

            sum[i][0] = _mm512_dpbf16_ps(sum[i][0], word, b0);
            sum[i][1] = _mm512_dpbf16_ps(sum[i][1], word, b1);
        }
    }
#pragma GCC unroll 12
    for (size_t i = 0; i < most; i++) {
        if (i >= rows)
            break;
        _mm512_mask_storeu_ps(c + i * ldc, left, sum[i][0]);
        _mm512_mask_storeu_ps(c + i * ldc + HALF, right, sum[i][1]);
    }
}

CPU static void tile(const uint32_t *a, const uint32_t *b, size_t pairs, float *c, size_t ldc,
                     size_t rows, size_t columns, bool load)
{
    if (rows > 8)
        tile_of(a, b, pairs, c, ldc, rows, columns, load, 12);
    else if (rows > 4)
        tile_of(a, b, pairs, c, ldc, rows, columns, load, 8);
    else
        tile_of(a, b, pairs, c, ldc, rows, columns, load, 4);
}

static const struct bf16_way way = {pack_a, pack_b, tile, false};
const struct bf16_way *const bf16_way_cpu = &way;
#else
const struct bf16_way *const bf16_way_cpu = NULL;
#endif
