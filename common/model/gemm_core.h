/*
 * gemm_core: the inner kernels of our matrix products, one per kind of vector unit, and the choice among them.
 *
 * A core multiplies a panel of mr rows by a panel of nr columns. Both are packed along k: a[k][mr], b[k][nr], so that the
 * kernel reads forward whatever the matrices look like. Every element of the product is ONE chain of fma over k = 0, 1,
 * ... that starts at 0: its bits depend neither on the core, nor on the panel, nor on its place in it.
 * Used by gemm.c alone. Tests: tests/unit/model/test_gemm.c.
 */
#ifndef MODEL_GEMM_CORE_H
#define MODEL_GEMM_CORE_H

#include <stdbool.h>
#include <stddef.h>

#include "model/gemm.h"
#include "model/real.h"

struct gemm_core {
    const char *name;
    size_t mr, nr;
    /* c[m][n] = the product of the first m rows and n columns of two packed panels, or c += it. */
    void (*tile)(size_t k, const real *a, const real *b, real *c, size_t ldc, size_t m, size_t n,
                 bool add);
    /* Packs all panels that `cols` rows of A or columns of B need, dst[panel][k][mr or nr]: element (j, p) is
     * src[p * ld + j] across, src[j * ld + p] along; what is beyond `cols` in the last panel becomes 0. Of A up to
     * GEMM_SLACK elements beyond the panels are written too. */
    void (*pack_a_across)(const real *src, size_t ld, size_t cols, size_t k, real *dst);
    void (*pack_a_along)(const real *src, size_t ld, size_t cols, size_t k, real *dst);
    void (*pack_b_across)(const real *src, size_t ld, size_t cols, size_t k, real *dst);
    void (*pack_b_along)(const real *src, size_t ld, size_t cols, size_t k, real *dst);
};

#define GEMM_SLACK 16

extern const struct gemm_core gemm_core_plain; /* vectors of vmath.h: AVX2 on x86-64 */
const struct gemm_core *gemm_core_avx512(void); /* NULL: not on this machine */
const struct gemm_core *gemm_core_best(void);

/* gemm_new() with a core of the test's choice. */
struct gemm *gemm_new_on(enum gemm_kind kind, const struct gemm_core *core);

#endif
