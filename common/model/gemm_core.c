/* gemm_core: the kernel in vectors of vmath.h, 6 rows x 2 vectors: 12 sums, 2 vectors of b and 1 broadcast in the 16
 * registers of AVX2. The double build and machines without AVX-512 use it. */
#include "model/gemm_core.h"

#include "model/vmath.h"

#define MR 6
#define NR (2 * VM_LANES)

/* x - 0 is x, also for -0, so that this is a broadcast and nothing else. */
VM_INLINE vreal broadcast(real x)
{
    return x - (vreal){0};
}

VM_INLINE void put(real *c, size_t n, bool add, vreal low, vreal high)
{
    real part[2 * VM_LANES];

    if (n >= NR) {
        vm_store(c, add ? vm_load(c) + low : low);
        vm_store(c + VM_LANES, add ? vm_load(c + VM_LANES) + high : high);
        return;
    }
    vm_store(part, low);
    vm_store(part + VM_LANES, high);
    for (size_t j = 0; j < n; j++)
        c[j] = add ? c[j] + part[j] : part[j];
}

VM_INLINE void tile_of(size_t k, const real *a, const real *b, real *c, size_t ldc, const size_t m,
                       size_t n, bool add)
{
    vreal low[MR], high[MR];

#pragma GCC unroll 6
    for (size_t i = 0; i < m; i++)
        low[i] = high[i] = (vreal){0};
    for (size_t p = 0; p < k; p++) {
        vreal b0 = vm_load(b + p * NR), b1 = vm_load(b + p * NR + VM_LANES);

#pragma GCC unroll 6
        for (size_t i = 0; i < m; i++) {
            vreal v = broadcast(a[p * MR + i]);

            low[i] = vm_fma(v, b0, low[i]);
            high[i] = vm_fma(v, b1, high[i]);
        }
    }
#pragma GCC unroll 6
    for (size_t i = 0; i < m; i++)
        put(c + i * ldc, n, add, low[i], high[i]);
}

static void tile(size_t k, const real *a, const real *b, real *c, size_t ldc, size_t m, size_t n,
                 bool add)
{
    switch (m) {
    case 1:
        tile_of(k, a, b, c, ldc, 1, n, add);
        break;
    case 2:
        tile_of(k, a, b, c, ldc, 2, n, add);
        break;
    case 3:
        tile_of(k, a, b, c, ldc, 3, n, add);
        break;
    case 4:
        tile_of(k, a, b, c, ldc, 4, n, add);
        break;
    case 5:
        tile_of(k, a, b, c, ldc, 5, n, add);
        break;
    default:
        tile_of(k, a, b, c, ldc, MR, n, add);
        break;
    }
}

VM_INLINE void across(const real *src, size_t ld, size_t cols, size_t k, real *dst, const size_t r)
{
    for (size_t p = 0; p < k; p++, src += ld, dst += r) {
        if (cols == r) {
            memcpy(dst, src, r * sizeof *dst);
            continue;
        }
        for (size_t j = 0; j < r; j++)
            dst[j] = j < cols ? src[j] : 0;
    }
}

/* In steps of 8 along k, so that a line of src is read while it is in the cache. */
VM_INLINE void along(const real *src, size_t ld, size_t cols, size_t k, real *dst, const size_t r)
{
    for (size_t p = 0; p < k; p += 8) {
        size_t n = k - p < 8 ? k - p : 8;

        for (size_t j = 0; j < cols; j++)
            for (size_t i = 0; i < n; i++)
                dst[(p + i) * r + j] = src[j * ld + p + i];
        for (size_t i = 0; i < n; i++)
            for (size_t j = cols; j < r; j++)
                dst[(p + i) * r + j] = 0;
    }
}

static void pack_a_across(const real *src, size_t ld, size_t cols, size_t k, real *dst)
{
    across(src, ld, cols, k, dst, MR);
}

static void pack_b_across(const real *src, size_t ld, size_t cols, size_t k, real *dst)
{
    for (size_t j = 0; j < cols; j += NR)
        across(src + j, ld, cols - j < NR ? cols - j : NR, k, dst + j * k, NR);
}

static void pack_a_along(const real *src, size_t ld, size_t cols, size_t k, real *dst)
{
    along(src, ld, cols, k, dst, MR);
}

static void pack_b_along(const real *src, size_t ld, size_t cols, size_t k, real *dst)
{
    for (size_t j = 0; j < cols; j += NR)
        along(src + j * ld, ld, cols - j < NR ? cols - j : NR, k, dst + j * k, NR);
}

const struct gemm_core gemm_core_plain = {.name = "plain",
                                          .mr = MR,
                                          .nr = NR,
                                          .tile = tile,
                                          .pack_a_across = pack_a_across,
                                          .pack_a_along = pack_a_along,
                                          .pack_b_across = pack_b_across,
                                          .pack_b_along = pack_b_along};

const struct gemm_core *gemm_core_best(void)
{
    const struct gemm_core *wide = gemm_core_avx512();

    return wide != NULL ? wide : &gemm_core_plain;
}
