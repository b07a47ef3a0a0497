/* gemm: OpenBLAS, one thread. It is deterministic for one kernel family, one shape and one thread. */
#include "model/gemm.h"

#include <cblas.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/err.h"

#ifdef REAL_DOUBLE
#define GEMM cblas_dgemm
#else
#define GEMM cblas_sgemm
#endif

struct gemm {
    enum gemm_kind kind;
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
    return g;
}

void gemm_free(struct gemm *g)
{
    free(g);
}

size_t gemm_bytes(enum gemm_kind kind)
{
    (void)kind;
    return sizeof(struct gemm);
}

void gemm_linear(const struct gemm *g, const real *x, size_t ldx, const real *w, real *y,
                 size_t ldy, size_t n, size_t in, size_t out, bool add)
{
    (void)g;
    GEMM(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)n, (blasint)out, (blasint)in, 1, x,
         (blasint)ldx, w, (blasint)in, add ? 1 : 0, y, (blasint)ldy);
}

void gemm_linear_dx(const struct gemm *g, const real *dy, size_t ldy, const real *w, real *dx,
                    size_t ldx, size_t n, size_t in, size_t out, bool add)
{
    (void)g;
    GEMM(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)n, (blasint)in, (blasint)out, 1, dy,
         (blasint)ldy, w, (blasint)in, add ? 1 : 0, dx, (blasint)ldx);
}

void gemm_linear_dw(const struct gemm *g, const real *dy, size_t ldy, const real *x, size_t ldx,
                    real *dw, size_t n, size_t in, size_t out)
{
    (void)g;
    GEMM(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)out, (blasint)in, (blasint)n, 1, dy,
         (blasint)ldy, x, (blasint)ldx, 1, dw, (blasint)in);
}
