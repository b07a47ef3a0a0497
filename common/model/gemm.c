/*
 * gemm: blocked multiplication over packed panels.
 *
 * All three products are C[m,n] = sum over k of A[m,k] B[k,n] with C row-major; they differ in which way A and B lie. k is
 * cut into blocks of K_BLOCK; inside a block every element of C is one chain of fma in ascending k from 0, and the blocks'
 * sums are added to C in ascending order. That is all that the bits depend on: not on the core (AVX2, AVX-512), not on how
 * many rows or columns are multiplied together, nor how m and n are cut.
 *
 * A block of B of at most B_ELEMS stays in the second-level cache while panels of A pass it, each of which stays in the
 * first. A panel is packed when it is first needed, and kept (for up to A_ROWS rows) when there are more blocks of B.
 * GEMM_BF16 has its own kernels: bf16.h.
 */
#include "model/gemm.h"

#include <cblas.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "model/bf16.h"
#include "model/gemm_core.h"

#ifdef REAL_DOUBLE
#define GEMM cblas_dgemm
#else
#define GEMM cblas_sgemm
#endif

#define K_BLOCK 384
#define B_ELEMS ((size_t)160 << 10)
#define A_ROWS 1064
#define A_PANELS 8

struct gemm {
    enum gemm_kind kind;
    const struct gemm_core *core;
    real *a, *b; /* packed panels of one block of k: A_ROWS rows; B_ELEMS; not for GEMM_BF16 */
    void *work;  /* GEMM_BF16 */
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

static const struct gemm_core gemm_core_blas = {.name = "openblas"}; /* no tile: not packed by us */
static const struct gemm_core *kernels;

static const struct gemm_core *kernels_chosen(void)
{
    return kernels != NULL ? kernels : gemm_core_best();
}

bool gemm_kernels_set(const char *name)
{
    const struct gemm_core *core = strcmp(name, "own") == 0        ? gemm_core_best()
                                   : strcmp(name, "plain") == 0    ? &gemm_core_plain
                                   : strcmp(name, "openblas") == 0 ? &gemm_core_blas
                                                                   : NULL;

    if (core != NULL)
        kernels = core;
    return core != NULL;
}

const char *gemm_kernels(void)
{
    return kernels == &gemm_core_blas ? openblas_get_corename() : kernels_chosen()->name;
}

static size_t a_elems(void)
{
    return (size_t)A_ROWS * K_BLOCK + GEMM_SLACK;
}

static size_t b_elems(void)
{
    return B_ELEMS;
}

struct gemm *gemm_new_on(enum gemm_kind kind, const struct gemm_core *core)
{
    struct gemm *g = mem_zalloc(1, sizeof *g);

    model_blas_init();
    g->kind = kind;
    g->core = core;
    if (kind == GEMM_BF16) {
        CHECK(sizeof(real) == sizeof(float));
        g->work = mem_large(bf16_work_bytes());
        return g;
    }
    g->a = mem_large((a_elems() + b_elems()) * sizeof(real));
    g->b = g->a + a_elems();
    return g;
}

struct gemm *gemm_new(enum gemm_kind kind)
{
    return gemm_new_on(kind, kernels_chosen());
}

void gemm_free(struct gemm *g)
{
    if (g == NULL)
        return;
    free(g->a);
    free(g->work);
    free(g);
}

size_t gemm_bytes(enum gemm_kind kind)
{
    return sizeof(struct gemm) +
           (kind == GEMM_BF16 ? bf16_work_bytes() : (a_elems() + b_elems()) * sizeof(real));
}

/* One operand: row j of A, or column j of B, at place p along k. along: data[j * ld + p]; else data[p * ld + j]. */
struct side {
    const real *data;
    size_t ld;
    bool along;
};

static const real *side_at(const struct side *s, size_t j, size_t p)
{
    return s->along ? s->data + j * s->ld + p : s->data + p * s->ld + j;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* c and its extent: columns [n0, n0 + n) of rows [m0, m0 + m), summed over [p, p + k). */
struct block {
    real *c;
    size_t ldc, m0, m, n0, n, p, k;
    bool add;
};

static void b_pack(const struct gemm *g, const struct side *b, const struct block *x)
{
    (b->along ? g->core->pack_b_along : g->core->pack_b_across)(side_at(b, x->n0, x->p), b->ld,
                                                                x->n, x->k, g->b);
}

/* pack: A's panels are not there yet; keep: they will be asked for again. Several are packed at a time, because rows of A
 * that lie across are read in whole lines then. */
static void block_run(const struct gemm *g, const struct side *a, const struct block *x, bool pack,
                      bool keep)
{
    const struct gemm_core *core = g->core;
    size_t group = A_PANELS * core->mr, rows;

    for (size_t i = 0; i < x->m; i += core->mr) {
        real *panel = g->a + (keep ? i : i % group) * x->k;

        if (pack && i % group == 0)
            (a->along ? core->pack_a_along : core->pack_a_across)(
                side_at(a, x->m0 + i, x->p), a->ld, least(group, x->m - i), x->k, panel);
        rows = least(core->mr, x->m - i);
        for (size_t j = 0; j < x->n; j += core->nr)
            core->tile(x->k, panel, g->b + j * x->k, x->c + (x->m0 + i) * x->ldc + x->n0 + j,
                       x->ldc, rows, least(core->nr, x->n - j), x->add);
    }
}

static void multiply(const struct gemm *g, struct side a, struct side b, real *c, size_t ldc,
                     size_t m, size_t n, size_t k, bool add)
{
    size_t nr = g->core->nr, a_rows = A_ROWS / g->core->mr * g->core->mr;
    struct block x = {.c = c, .ldc = ldc};

    for (x.p = 0; x.p < k; x.p += x.k) {
        size_t columns;

        x.k = least(K_BLOCK, k - x.p);
        x.add = add || x.p > 0;
        columns = B_ELEMS / x.k / nr * nr;
        for (x.m0 = 0; x.m0 < m; x.m0 += x.m) {
            x.m = n <= columns ? m : least(a_rows, m - x.m0);
            for (x.n0 = 0; x.n0 < n; x.n0 += x.n) {
                x.n = least(columns, n - x.n0);
                b_pack(g, &b, &x);
                block_run(g, &a, &x, x.n0 == 0, n > columns);
            }
        }
    }
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
    if (g->kind == GEMM_BF16)
        bf16_product(g, x, ldx, false, w, in, false, y, ldy, (size_t[]){n, out, in}, add);
    else if (g->core->tile == NULL)
        GEMM(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)n, (blasint)out, (blasint)in, 1, x,
             (blasint)ldx, w, (blasint)in, add ? 1 : 0, y, (blasint)ldy);
    else
        multiply(g, (struct side){x, ldx, true}, (struct side){w, in, true}, y, ldy, n, out, in,
                 add);
}

void gemm_linear_dx(const struct gemm *g, const real *dy, size_t ldy, const real *w, real *dx,
                    size_t ldx, size_t n, size_t in, size_t out, bool add)
{
    gemm_linear_dx_part(g, dy, ldy, w, in, dx, ldx, n, in, out, add);
}

void gemm_linear_dx_part(const struct gemm *g, const real *dy, size_t ldy, const real *w,
                         size_t ldw, real *dx, size_t ldx, size_t n, size_t in, size_t out,
                         bool add)
{
    if (g->kind == GEMM_BF16)
        bf16_product(g, dy, ldy, false, w, ldw, true, dx, ldx, (size_t[]){n, in, out}, add);
    else if (g->core->tile == NULL)
        GEMM(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)n, (blasint)in, (blasint)out, 1,
             dy, (blasint)ldy, w, (blasint)ldw, add ? 1 : 0, dx, (blasint)ldx);
    else
        multiply(g, (struct side){dy, ldy, true}, (struct side){w, ldw, false}, dx, ldx, n, in, out,
                 add);
}

void gemm_linear_dw(const struct gemm *g, const real *dy, size_t ldy, const real *x, size_t ldx,
                    real *dw, size_t n, size_t in, size_t out)
{
    gemm_linear_dw_part(g, dy, ldy, x, ldx, dw, in, n, in, out, true);
}

void gemm_linear_dw_part(const struct gemm *g, const real *dy, size_t ldy, const real *x,
                         size_t ldx, real *dw, size_t ldw, size_t n, size_t in, size_t out,
                         bool add)
{
    if (g->kind == GEMM_BF16)
        bf16_product(g, dy, ldy, true, x, ldx, true, dw, ldw, (size_t[]){out, in, n}, add);
    else if (g->core->tile == NULL)
        GEMM(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)out, (blasint)in, (blasint)n, 1, dy,
             (blasint)ldy, x, (blasint)ldx, add ? 1 : 0, dw, (blasint)ldw);
    else
        multiply(g, (struct side){dy, ldy, false}, (struct side){x, ldx, false}, dw, ldw, out, in,
                 n, add);
}

bool gemm_parts_alike(const struct gemm *g)
{
    return g->kind == GEMM_BF16 || g->core->tile != NULL;
}
