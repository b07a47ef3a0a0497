/* gemm_core: the kernel in vectors of vmath.h, 6 rows x 2 vectors: 12 sums, 2 vectors of b and 1 broadcast in the 16
 * registers of AVX2. The double build and machines without AVX-512 use it. */
#include "model/gemm_core.h"

#include "model/vmath.h"

#define MR 6
#define NR (2 * VM_LANES)

VM_INLINE void tile_of(size_t k, const real *a, const real *b, real *c, size_t ldc, const size_t m,
                       size_t n, bool add)
{
    vreal low[MR], high[MR];

#pragma GCC unroll 6
    for (size_t i = 0; i < m; i++) {
        low[i] = high[i] = (vreal){0};
        __builtin_prefetch(c + i * ldc, 1);
        __builtin_prefetch(c + i * ldc + NR - 1, 1);
    }
    for (size_t p = 0; p < k; p++) {
        vreal b0 = vm_load(b + p * NR), b1 = vm_load(b + p * NR + VM_LANES);

#pragma GCC unroll 6
        for (size_t i = 0; i < m; i++) {
            vreal v = vm_broadcast(a[p * MR + i]);

            low[i] = vm_fma(v, b0, low[i]);
            high[i] = vm_fma(v, b1, high[i]);
        }
    }
#pragma GCC unroll 6
    for (size_t i = 0; i < m; i++) {
        vm_put(c + i * ldc, n, add, low[i]);
        if (n > VM_LANES)
            vm_put(c + i * ldc + VM_LANES, n - VM_LANES, add, high[i]);
    }
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

/* Whole rows of src at a time, as memory likes it; then the last panel, if it is not whole: what its vectors store too far
 * is written over by the next row. */
VM_INLINE void across(const real *src, size_t ld, size_t cols, size_t k, real *dst, const size_t r)
{
    size_t whole = cols / r * r, left = cols - whole;

    for (size_t p = 0; p < k; p++)
        for (size_t j = 0; j < whole; j += r)
            memcpy(dst + j * k + p * r, src + p * ld + j, r * sizeof *dst);
    src += whole;
    dst += whole * k;
    for (size_t p = 0; left > 0 && p < k; p++, src += ld, dst += r)
        for (size_t i = 0; i < r; i += VM_LANES)
            vm_store(dst + i, left >= i + VM_LANES ? vm_load(src + i)
                              : left > i           ? vm_load_part(src + i, left - i, 0)
                                                   : (vreal){0});
}

/* Elements [0, k) along k of up to VM_LANES columns. */
VM_INLINE void square(const real *src, size_t ld, const size_t cols, size_t k, real *dst,
                      const size_t r)
{
    vreal x[VM_LANES];

#pragma GCC unroll 8
    for (size_t j = 0; j < VM_LANES; j++)
        x[j] = j >= cols       ? (vreal){0}
               : k >= VM_LANES ? vm_load(src + j * ld)
                               : vm_load_part(src + j * ld, k, 0);
    vm_transpose(x);
    if (k >= VM_LANES) {
#pragma GCC unroll 8
        for (size_t i = 0; i < VM_LANES; i++)
            vm_store(dst + i * r, x[i]);
    } else {
        real part[VM_LANES][VM_LANES];

        memcpy(part, x, sizeof part);
        for (size_t i = 0; i < k; i++)
            vm_store(dst + i * r, vm_load(part[i]));
    }
}

/* What a square's vectors store too far, to the right of a narrow panel, is written over by those to its left in the next
 * rows, and by the next panel: they are stored later. */
VM_INLINE void panel_along(const real *src, size_t ld, const size_t cols, size_t k, real *dst,
                           const size_t r)
{
    for (size_t p = 0; p < k; p += VM_LANES)
#pragma GCC unroll 2
        for (size_t i = (r - 1) / VM_LANES * VM_LANES + VM_LANES; i > 0; i -= VM_LANES) {
            size_t at = i - VM_LANES;

            square(src + at * ld + p, ld, cols > at ? cols - at : 0, k - p, dst + p * r + at, r);
        }
}

VM_INLINE void along(const real *src, size_t ld, size_t cols, size_t k, real *dst, const size_t r)
{
    size_t j = 0;

    for (; j + r <= cols; j += r)
        panel_along(src + j * ld, ld, r, k, dst + j * k, r);
    if (j < cols)
        panel_along(src + j * ld, ld, cols - j, k, dst + j * k, r);
}

static void pack_a_across(const real *src, size_t ld, size_t cols, size_t k, real *dst)
{
    across(src, ld, cols, k, dst, MR);
}

static void pack_b_across(const real *src, size_t ld, size_t cols, size_t k, real *dst)
{
    across(src, ld, cols, k, dst, NR);
}

static void pack_a_along(const real *src, size_t ld, size_t cols, size_t k, real *dst)
{
    along(src, ld, cols, k, dst, MR);
}

static void pack_b_along(const real *src, size_t ld, size_t cols, size_t k, real *dst)
{
    along(src, ld, cols, k, dst, NR);
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
