/*
 * gemm_avx512: 14 rows x 2 vectors of 16 columns: 28 sums, 2 vectors of b and 1 broadcast of a in 32 registers. A unit of
 * 512-bit fma that starts one a cycle is then busy in every cycle: 28 fma need 2 loads of b and 14 broadcasts.
 */
#include "model/gemm_core.h"

#if defined(__x86_64__) && !defined(REAL_DOUBLE)
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,fma")
#include <immintrin.h>
#include <string.h>

#define MR 14
#define NR 32
#define INLINE static inline __attribute__((always_inline))

INLINE __mmask16 first(size_t n)
{
    return (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1);
}

/* cols: 1 or 2 vectors. */
INLINE void tile_of(size_t k, const float *a, const float *b, float *c, size_t ldc, const size_t m,
                    const size_t vectors, size_t n, bool add)
{
    __m512 sum[MR][2];
    __mmask16 mask[2] = {first(n), n > 16 ? first(n - 16) : 0};

#pragma GCC unroll 14
    for (size_t i = 0; i < m; i++) {
        sum[i][0] = sum[i][1] = _mm512_setzero_ps();
        _mm_prefetch((const char *)(c + i * ldc), _MM_HINT_T0);
        if (vectors > 1)
            _mm_prefetch((const char *)(c + i * ldc + 16), _MM_HINT_T0);
    }
    for (size_t p = 0; p < k; p++) {
        __m512 b0 = _mm512_load_ps(b), b1 = vectors > 1 ? _mm512_load_ps(b + 16) : b0;

#pragma GCC unroll 14
        for (size_t i = 0; i < m; i++) {
            __m512 v = _mm512_set1_ps(a[i]);

            sum[i][0] = _mm512_fmadd_ps(v, b0, sum[i][0]);
            if (vectors > 1)
                sum[i][1] = _mm512_fmadd_ps(v, b1, sum[i][1]);
        }
        a += MR;
        b += NR;
    }
#pragma GCC unroll 14
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < vectors; j++) {
            float *to = c + i * ldc + 16 * j;
            __m512 v = sum[i][j];

            if (add)
                v = _mm512_add_ps(_mm512_maskz_loadu_ps(mask[j], to), v);
            _mm512_mask_storeu_ps(to, mask[j], v);
        }
}

#define TILE_OF(M)                                                                                 \
    case M:                                                                                        \
        if (n > 16)                                                                                \
            tile_of(k, a, b, c, ldc, M, 2, n, add);                                                \
        else                                                                                       \
            tile_of(k, a, b, c, ldc, M, 1, n, add);                                                \
        break

static void tile(size_t k, const float *a, const float *b, float *c, size_t ldc, size_t m, size_t n,
                 bool add)
{
    switch (m) {
        TILE_OF(1);
        TILE_OF(2);
        TILE_OF(3);
        TILE_OF(4);
        TILE_OF(5);
        TILE_OF(6);
        TILE_OF(7);
        TILE_OF(8);
        TILE_OF(9);
        TILE_OF(10);
        TILE_OF(11);
        TILE_OF(12);
        TILE_OF(13);
    default:
        TILE_OF(14);
    }
}

/* ---- packing ---- */

/* Whole rows of src at a time, as memory likes it; the last panel, if it is not whole, by itself. */
INLINE void across(const float *src, size_t ld, size_t cols, size_t k, float *dst, const size_t r)
{
    size_t whole = cols / r * r, left = cols - whole;
    const __mmask16 all = first(r), low = first(left), high = left > 16 ? first(left - 16) : 0;

    for (size_t p = 0; p < k; p++)
        for (size_t j = 0; j < whole; j += r) {
            float *to = dst + j * k + p * r;

            _mm512_mask_storeu_ps(to, all, _mm512_maskz_loadu_ps(all, src + p * ld + j));
            if (r > 16)
                _mm512_storeu_ps(to + 16, _mm512_loadu_ps(src + p * ld + j + 16));
        }
    src += whole;
    dst += whole * k;
    for (size_t p = 0; left > 0 && p < k; p++, src += ld, dst += r) {
        _mm512_mask_storeu_ps(dst, all, _mm512_maskz_loadu_ps(low, src));
        if (r > 16)
            _mm512_storeu_ps(dst + 16, _mm512_maskz_loadu_ps(high, src + 16));
    }
}

/* x[i] becomes column i of the 16 x 16 matrix of rows x[]: three rounds of exchanges. */
INLINE void transpose(__m512 x[16])
{
    __m512 t[16];

#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        x[i] = _mm512_castpd_ps(
            _mm512_unpacklo_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        x[i + 1] = _mm512_castpd_ps(
            _mm512_unpackhi_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        x[i + 2] = _mm512_castpd_ps(
            _mm512_unpacklo_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
        x[i + 3] = _mm512_castpd_ps(
            _mm512_unpackhi_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(x[i], x[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(x[i], x[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        x[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        x[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        x[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        x[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* 16 columns of dst, of which `cols` come from rows of src. Ascending k: what a narrow panel's store writes too far is
 * written over by the next, and by the next panel. */
INLINE void panel_along(const float *src, size_t ld, size_t cols, size_t k, float *dst,
                        const size_t r)
{
    for (size_t p = 0; p < k; p += 16) {
        size_t n = k - p < 16 ? k - p : 16;
        __mmask16 some = first(n);
        __m512 x[16];

#pragma GCC unroll 16
        for (size_t j = 0; j < 16; j++)
            x[j] = j < cols ? _mm512_maskz_loadu_ps(some, src + j * ld + p) : _mm512_setzero_ps();
        transpose(x);
        if (n == 16) {
#pragma GCC unroll 16
            for (size_t j = 0; j < 16; j++)
                _mm512_storeu_ps(dst + (p + j) * r, x[j]);
        } else {
            float part[16][16];

            memcpy(part, x, sizeof part);
            for (size_t j = 0; j < n; j++)
                _mm512_storeu_ps(dst + (p + j) * r, _mm512_loadu_ps(part[j]));
        }
    }
}

static void pack_a_across(const float *src, size_t ld, size_t cols, size_t k, float *dst)
{
    across(src, ld, cols, k, dst, MR);
}

static void pack_b_across(const float *src, size_t ld, size_t cols, size_t k, float *dst)
{
    across(src, ld, cols, k, dst, NR);
}

static void pack_a_along(const float *src, size_t ld, size_t cols, size_t k, float *dst)
{
    size_t j = 0;

    for (; j + MR <= cols; j += MR)
        panel_along(src + j * ld, ld, MR, k, dst + j * k, MR);
    if (j < cols)
        panel_along(src + j * ld, ld, cols - j, k, dst + j * k, MR);
}

static void pack_b_along(const float *src, size_t ld, size_t cols, size_t k, float *dst)
{
    for (size_t j = 0; j < cols; j += NR, dst += k * NR)
        for (size_t i = 0; i < NR; i += 16) {
            size_t left = cols > j + i ? cols - j - i : 0;

            if (left >= 16)
                panel_along(src + (j + i) * ld, ld, 16, k, dst + i, NR);
            else
                panel_along(src + (j + i) * ld, ld, left, k, dst + i, NR);
        }
}

static const struct gemm_core core = {.name = "avx512",
                                      .mr = MR,
                                      .nr = NR,
                                      .tile = tile,
                                      .pack_a_across = pack_a_across,
                                      .pack_a_along = pack_a_along,
                                      .pack_b_across = pack_b_across,
                                      .pack_b_along = pack_b_along};

const struct gemm_core *gemm_core_avx512(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")
               ? &core
               : NULL;
}
#else
const struct gemm_core *gemm_core_avx512(void)
{
    return NULL;
}
#endif
