/* gemm: OpenBLAS, one thread. It is deterministic for one kernel family, one shape and one thread. Or bf16, which is so
 * for every machine. */
#include "model/gemm.h"

#include <cblas.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/err.h"
#include "model/bf16.h"

#ifdef REAL_DOUBLE
#define GEMM cblas_dgemm
#else
#define GEMM cblas_sgemm
#endif

struct gemm {
    enum gemm_kind kind;
    void *work; /* GEMM_BF16 */
};

static pthread_once_t blas_once = PTHREAD_ONCE_INIT;

static void blas_set(void)
{
    openblas_set_num_threads(1);
}

void model_blas_init(void)
{
    CHECK(pthread_once(&blas_once, blas_set) == 0);
}

const char *model_blas_core(void)
{
    return openblas_get_corename();
}

struct gemm *gemm_new(enum gemm_kind kind)
{
    struct gemm *g = mem_zalloc(1, sizeof *g);

    model_blas_init();
    g->kind = kind;
    if (kind == GEMM_BF16) {
        g->work = aligned_alloc(BF16_ALIGN, bf16_work_bytes());
        CHECK(g->work != NULL && sizeof(real) == sizeof(float));
    }
    return g;
}

void gemm_free(struct gemm *g)
{
    if (g != NULL)
        free(g->work);
    free(g);
}

size_t gemm_bytes(enum gemm_kind kind)
{
    return sizeof(struct gemm) + (kind == GEMM_BF16 ? bf16_work_bytes() : 0);
}

/* c[m, n] of a and b with k elements each, p[i * ld + k] or p[k * ld + i]. */
static void bf16_product(const struct gemm *g, const real *a, size_t lda, bool a_strided,
                         const real *b, size_t ldb, bool b_strided, real *c, size_t ldc,
                         const size_t mnk[3], bool add)
{
    const struct bf16_matrix left = {(const void *)a, lda, a_strided};
    const struct bf16_matrix right = {(const void *)b, ldb, b_strided};

    bf16_gemm(&left, &right, (void *)c, ldc, mnk[0], mnk[1], mnk[2], add, g->work);
}

void gemm_linear(const struct gemm *g, const real *x, size_t ldx, const real *w, real *y,
                 size_t ldy, size_t n, size_t in, size_t out, bool add)
{
    if (g->kind == GEMM_BF16) {
        bf16_product(g, x, ldx, false, w, in, false, y, ldy, (size_t[]){n, out, in}, add);
        return;
    }
    GEMM(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)n, (blasint)out, (blasint)in, 1, x,
         (blasint)ldx, w, (blasint)in, add ? 1 : 0, y, (blasint)ldy);
}

void gemm_linear_dx(const struct gemm *g, const real *dy, size_t ldy, const real *w, real *dx,
                    size_t ldx, size_t n, size_t in, size_t out, bool add)
{
    if (g->kind == GEMM_BF16) {
        bf16_product(g, dy, ldy, false, w, in, true, dx, ldx, (size_t[]){n, in, out}, add);
        return;
    }
    GEMM(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)n, (blasint)in, (blasint)out, 1, dy,
         (blasint)ldy, w, (blasint)in, add ? 1 : 0, dx, (blasint)ldx);
}

void gemm_linear_dw(const struct gemm *g, const real *dy, size_t ldy, const real *x, size_t ldx,
                    real *dw, size_t n, size_t in, size_t out)
{
    if (g->kind == GEMM_BF16) {
        bf16_product(g, dy, ldy, true, x, ldx, true, dw, in, (size_t[]){out, in, n}, true);
        return;
    }
    GEMM(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)out, (blasint)in, (blasint)n, 1, dy,
         (blasint)ldy, x, (blasint)ldx, 1, dw, (blasint)in);
}
