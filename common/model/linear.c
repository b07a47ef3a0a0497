/*
 * linear: a block of a gradient of several parts has BLOCK_OUT x BLOCK_IN elements, which with those of the other parts of the
 * tree that wait for their siblings stay in the second-level cache.
 */
#include "model/linear.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"

#define BLOCK_OUT 240
#define BLOCK_IN 384
#define BLOCKS                                                                                     \
    3 /* parts that wait beside the first, and the one being made: tree of PARTS_MAX leaves */
#define SHARE_STEP 32 /* columns: whole vectors, whole panels */

struct linear {
    struct team *team;
    size_t threads;
    bool alike;
    size_t scratch_elems;
    real **scratch; /* [threads] */
    real **block;   /* [threads] [BLOCKS * BLOCK_OUT * BLOCK_IN] */
    struct gemm *gemm[];
};

struct linear *linear_new(enum gemm_kind kind, struct team *team, size_t scratch_elems)
{
    size_t threads = team_parts(team);
    struct linear *l = mem_zalloc(1, sizeof *l + threads * sizeof l->gemm[0]);

    l->team = team;
    l->threads = threads;
    l->scratch_elems = scratch_elems;
    l->scratch = mem_zalloc(threads, sizeof *l->scratch);
    l->block = mem_zalloc(threads, sizeof *l->block);
    for (size_t i = 0; i < threads; i++) {
        l->gemm[i] = gemm_new(kind);
        l->scratch[i] = mem_large((scratch_elems + 1) * sizeof(real));
        l->block[i] = mem_alloc((size_t)BLOCKS * BLOCK_OUT * BLOCK_IN * sizeof(real));
    }
    l->alike = gemm_parts_alike(l->gemm[0]);
    return l;
}

void linear_free(struct linear *l)
{
    if (l == NULL)
        return;
    for (size_t i = 0; i < l->threads; i++) {
        gemm_free(l->gemm[i]);
        free(l->scratch[i]);
        free(l->block[i]);
    }
    free(l->scratch);
    free(l->block);
    free(l);
}

size_t linear_bytes(enum gemm_kind kind, uint32_t threads)
{
    return threads * (gemm_bytes(kind) + (size_t)BLOCKS * BLOCK_OUT * BLOCK_IN * sizeof(real));
}

struct team *linear_team(const struct linear *l)
{
    return l->team;
}

bool linear_joins(const struct linear *l)
{
    return l->alike;
}

real *linear_scratch(const struct linear *l, size_t part)
{
    return l->scratch[part];
}

void linear_share(size_t n, size_t step, size_t part, size_t parts, size_t *begin, size_t *end)
{
    size_t steps = (n + step - 1) / step;

    *begin = steps * part / parts * step;
    *end = steps * (part + 1) / parts * step;
    *begin = *begin < n ? *begin : n;
    *end = *end < n ? *end : n;
}

/* ---- one product ---- */

struct product {
    const struct linear *l;
    const real *a, *b; /* x or dy; w or x */
    real *c;
    size_t lda, ldb, ldc, n, in, out;
    bool add;
    const struct parts *parts;
    const struct linear_keep *keep;
};

static void product_run(const struct product *p,
                        void (*item)(void *self, size_t part, size_t parts))
{
    team_run(p->l->alike ? p->l->team : NULL, item, (void *)(uintptr_t)p);
}

static void forward_item(void *self, size_t part, size_t parts)
{
    const struct product *p = self;
    size_t begin, end;

    linear_share(p->out, SHARE_STEP, part, parts, &begin, &end);
    if (begin < end)
        gemm_linear(p->l->gemm[part], p->a, p->lda, p->b + begin * p->in, p->c + begin, p->ldc,
                    p->n, p->in, end - begin, p->add);
}

void linear_forward(const struct linear *l, const real *x, size_t ldx, const real *w, real *y,
                    size_t ldy, size_t n, size_t in, size_t out, bool add)
{
    const struct product p = {.l = l,
                              .a = x,
                              .lda = ldx,
                              .b = w,
                              .c = y,
                              .ldc = ldy,
                              .n = n,
                              .in = in,
                              .out = out,
                              .add = add};

    product_run(&p, forward_item);
}

static void dx_item(void *self, size_t part, size_t parts)
{
    const struct product *p = self;
    size_t begin, end;

    linear_share(p->in, SHARE_STEP, part, parts, &begin, &end);
    if (begin < end)
        gemm_linear_dx_part(p->l->gemm[part], p->a, p->lda, p->b + begin, p->in, p->c + begin,
                            p->ldc, p->n, end - begin, p->out, p->add);
}

void linear_dx(const struct linear *l, const real *dy, size_t ldy, const real *w, real *dx,
               size_t ldx, size_t n, size_t in, size_t out, bool add)
{
    const struct product p = {.l = l,
                              .a = dy,
                              .lda = ldy,
                              .b = w,
                              .c = dx,
                              .ldc = ldx,
                              .n = n,
                              .in = in,
                              .out = out,
                              .add = add};

    product_run(&p, dx_item);
}

/* ---- gradients ---- */

static void adder_merge(struct tree_adder *a, size_t rows, size_t cols)
{
    real *into = a->stack[a->depth - 2].at;
    const real *from = a->stack[a->depth - 1].at;

    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < cols; i++)
            into[i] += from[i];
        into += a->stack[a->depth - 2].ld;
        from += a->stack[a->depth - 1].ld;
    }
    a->depth--;
}

void tree_adder_leaf(struct tree_adder *a, uint32_t leaf, real *at, size_t ld, size_t rows,
                     size_t cols)
{
    uint32_t level = 0;

    CHECK(a->depth < sizeof a->stack / sizeof a->stack[0]);
    a->stack[a->depth].level = level;
    a->stack[a->depth].index = leaf;
    a->stack[a->depth].at = at;
    a->stack[a->depth++].ld = ld;
    while (a->depth >= 2 && a->stack[a->depth - 2].level == a->stack[a->depth - 1].level &&
           (a->stack[a->depth - 2].index & 1) == 0) {
        adder_merge(a, rows, cols);
        a->stack[a->depth - 1].level++;
        a->stack[a->depth - 1].index >>= 1;
    }
}

void tree_adder_end(struct tree_adder *a, size_t rows, size_t cols)
{
    while (a->depth >= 2)
        adder_merge(a, rows, cols);
}

static void keep_rows(const struct product *p, uint32_t part, const real *block, size_t ld,
                      const size_t out[2], const size_t in[2])
{
    const struct linear_keep *k = p->keep;
    size_t i = 0;

    if (k == NULL)
        return;
    while (i < k->n && (size_t)k->row[i] < k->first + out[0])
        i++;
    for (; i < k->n && (size_t)k->row[i] < k->first + out[1]; i++)
        memcpy(k->to + (part * k->n + i) * p->in + in[0],
               block + ((size_t)k->row[i] - k->first - out[0]) * ld,
               (in[1] - in[0]) * sizeof *block);
}

/* Rows [out[0], out[1]) and columns [in[0], in[1]) of the gradient: each part's, and their sum. */
static void block_make(const struct product *p, size_t thread, const size_t out[2],
                       const size_t in[2])
{
    struct tree_adder adder = {0};
    size_t rows = out[1] - out[0], cols = in[1] - in[0];
    real *first = p->c + out[0] * p->in + in[0];

    for (uint32_t q = 0; q < p->parts->n; q++) {
        size_t at = p->parts->begin[q], n = p->parts->begin[q + 1] - at;
        size_t ld = adder.depth == 0 ? p->in : BLOCK_IN;
        real *to = adder.depth == 0
                       ? first
                       : p->l->block[thread] + (adder.depth - 1) * (size_t)BLOCK_OUT * BLOCK_IN;

        if (n > 0)
            gemm_linear_dw_part(p->l->gemm[thread], p->a + at * p->lda + out[0], p->lda,
                                p->b + at * p->ldb + in[0], p->ldb, to, ld, n, cols, rows, false);
        for (size_t r = 0; n == 0 && r < rows; r++)
            memset(to + r * ld, 0, cols * sizeof *to);
        keep_rows(p, q, to, ld, out, in);
        tree_adder_leaf(&adder, q, to, ld, rows, cols);
    }
    tree_adder_end(&adder, rows, cols);
}

static void dw_item(void *self, size_t part, size_t parts)
{
    const struct product *p = self;
    size_t begin, end, at = p->parts->begin[0], n = p->parts->begin[p->parts->n] - at;

    linear_share(p->out, SHARE_STEP, part, parts, &begin, &end);
    if (begin == end)
        return;
    if (p->parts->n == 1) {
        if (n > 0)
            gemm_linear_dw_part(p->l->gemm[part], p->a + at * p->lda + begin, p->lda,
                                p->b + at * p->ldb, p->ldb, p->c + begin * p->in, p->in, n, p->in,
                                end - begin, p->add);
        else if (!p->add)
            memset(p->c + begin * p->in, 0, (end - begin) * p->in * sizeof *p->c);
        return;
    }
    for (size_t o = begin; o < end; o += BLOCK_OUT)
        for (size_t j = 0; j < p->in; j += BLOCK_IN)
            block_make(p, part, (size_t[]){o, end - o < BLOCK_OUT ? end : o + BLOCK_OUT},
                       (size_t[]){j, p->in - j < BLOCK_IN ? p->in : j + BLOCK_IN});
}

void linear_dw(const struct linear *l, const real *dy, size_t ldy, const real *x, size_t ldx,
               real *dw, const struct parts *parts, size_t in, size_t out, bool set,
               const struct linear_keep *keep)
{
    const struct product p = {.l = l,
                              .a = dy,
                              .lda = ldy,
                              .b = x,
                              .ldb = ldx,
                              .c = dw,
                              .in = in,
                              .out = out,
                              .add = !set,
                              .parts = parts,
                              .keep = keep};

    CHECK(parts->n >= 1 && parts->n <= PARTS_MAX && (parts->n == 1 || (set && l->alike)));
    product_run(&p, dw_item);
}
