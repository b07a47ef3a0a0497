/*
 * attn: how it is fast for heads of 8 as well as of 128.
 *
 * The vectors run over keys, not over the head: K and V of one key/value head are packed transposed ([D][Tp], Tp = T
 * rounded up), so that a block of QB queries against TILE keys is 2 QB independent accumulators fed by broadcasts,
 * whatever D is. Sums over keys (out, dq) need the other orientation ([Tp][Dp], Dp = D rounded up) and broadcast
 * probabilities. dK and dV are kept transposed too and written back once per key/value head. QB divides TILE, so only
 * the last tile of a block crosses the diagonal and needs a mask; where its second half lies beyond, half a tile will do. Rows that a block has too many are zero queries with
 * zero upstream gradient: they add exact zeros.
 */
#include "model/attn.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "model/vmath.h"

#define QB 4
#define TILE (2 * VM_LANES)

struct pack {
    size_t d, dp, t, tp;         /* head_dim, rounded; rows of the sequence, rounded to TILE */
    real *kt, *vt, *k, *v;       /* [d][tp] twice, [tp][dp] twice */
    real *dkt, *dvt;             /* [d][tp] */
    real *p;                     /* [QB][tp]: scores, probabilities, or their gradient */
    real *q, *dout;              /* [QB][d]: queries times 1 / sqrt(D); upstream gradient */
    const unsigned char *wanted; /* [t] or NULL */
};

/* An odd number of tiles, which are a line of the cache each: with an even one the elements of a column would share few of
 * its sets, with a power of two one. */
static size_t tile_round(size_t n)
{
    return ((n + TILE - 1) / TILE | 1) * TILE;
}

size_t attn_scratch(const struct attn_shape *s, size_t rows_max)
{
    size_t d = s->head_dim, tp = tile_round(rows_max);

    return 4 * d * tp + 2 * tp * vm_round(d) + QB * tp + 2 * QB * vm_round(d);
}

static void pack_init(struct pack *x, size_t d, size_t t, real *scratch)
{
    x->d = d;
    x->dp = vm_round(d);
    x->t = t;
    x->tp = tile_round(t);
    x->kt = scratch;
    x->vt = x->kt + d * x->tp;
    x->dkt = x->vt + d * x->tp;
    x->dvt = x->dkt + d * x->tp;
    x->k = x->dvt + d * x->tp;
    x->v = x->k + x->tp * x->dp;
    x->p = x->v + x->tp * x->dp;
    x->q = x->p + QB * x->tp;
    x->dout = x->q + QB * x->dp;
}

VM_INLINE size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* dst[d][tp] = src[t][d] transposed, zero beyond t; in squares of vectors. */
VM_INLINE void pack_columns(const struct pack *x, size_t d, const real *src, size_t ld, real *dst)
{
    size_t end = vm_round(x->t);

    for (size_t j = 0; j < end; j += VM_LANES)
        for (size_t i = 0; i < d; i += VM_LANES) {
            size_t rows = least(VM_LANES, x->t - j), columns = least(VM_LANES, d - i);
            vreal v[VM_LANES];

#pragma GCC unroll 8
            for (size_t r = 0; r < VM_LANES; r++) {
                const real *at = src + (j + r) * ld + i;

                v[r] = r >= rows             ? vm_set(0)
                       : columns == VM_LANES ? vm_load(at)
                                             : vm_load_part(at, columns, 0);
            }
            vm_transpose(v);
#pragma GCC unroll 8
            for (size_t c = 0; c < VM_LANES; c++)
                if (c < columns)
                    vm_store(dst + (i + c) * x->tp + j, v[c]);
        }
    for (size_t i = 0; i < d; i++)
        memset(dst + i * x->tp + end, 0, (x->tp - end) * sizeof *dst);
}

/* dst[tp][dp] = src[t][d], zero beyond. */
VM_INLINE void pack_rows(const struct pack *x, size_t d, const real *src, size_t ld, real *dst)
{
    size_t dp = vm_round(d);

    for (size_t j = 0; j < x->t; j++) {
        memcpy(dst + j * dp, src + j * ld, d * sizeof *dst);
        if (dp > d)
            memset(dst + j * dp + d, 0, (dp - d) * sizeof *dst);
    }
    memset(dst + x->t * dp, 0, (x->tp - x->t) * dp * sizeof *dst);
}

VM_INLINE void unpack_columns(const struct pack *x, size_t d, const real *src, real *dst, size_t ld)
{
    for (size_t j = 0; j < x->t; j += VM_LANES)
        for (size_t i = 0; i < d; i += VM_LANES) {
            size_t rows = least(VM_LANES, x->t - j), columns = least(VM_LANES, d - i);
            vreal v[VM_LANES];

#pragma GCC unroll 8
            for (size_t c = 0; c < VM_LANES; c++)
                v[c] = c < columns ? vm_load(src + (i + c) * x->tp + j) : vm_set(0);
            vm_transpose(v);
#pragma GCC unroll 8
            for (size_t r = 0; r < VM_LANES; r++) {
                real *at = dst + (j + r) * ld + i;

                if (r < rows && columns == VM_LANES)
                    vm_store(at, v[r]);
                else if (r < rows)
                    vm_store_part(at, columns, v[r]);
            }
        }
}

/* dst[QB][d] = rows [0, n) of src times scale, zero beyond. */
VM_INLINE void pack_block(size_t d, const real *src, size_t ld, size_t n, real scale, real *dst)
{
    for (size_t i = 0; i < QB; i++) {
        const real *from = src + i * ld;
        real *to = dst + i * d;
        size_t c = 0;

        for (; c + VM_LANES <= d; c += VM_LANES)
            vm_store(to + c, i < n ? vm_load(from + c) * scale : vm_set(0));
        if (c < d)
            vm_store_part(to + c, d - c,
                          i < n ? vm_load_part(from + c, d - c, 0) * scale : vm_set(0));
    }
}

/* acc[i][] = sum over d of q[i][d] * columns[d][j ..]; wide: vectors, 1 or 2. */
VM_INLINE void tile_products(size_t d, size_t tp, const real *q, const real *columns,
                             vreal acc[QB][2], const size_t wide)
{
    for (size_t i = 0; i < QB; i++)
        acc[i][0] = acc[i][1] = vm_set(0);
    for (size_t c = 0; c < d; c++) {
        vreal a = vm_load(columns + c * tp);
        vreal b = wide > 1 ? vm_load(columns + c * tp + VM_LANES) : a;

        for (size_t i = 0; i < QB; i++) {
            vreal s = vm_set(q[i * d + c]);

            acc[i][0] = vm_fma(s, a, acc[i][0]);
            if (wide > 1)
                acc[i][1] = vm_fma(s, b, acc[i][1]);
        }
    }
}

/* columns[d][j ..] += sum over i of a[i][] * rows[i][d]. */
VM_INLINE void tile_outer(size_t d, size_t tp, vreal a[QB][2], const real *rows, real *columns,
                          const size_t wide)
{
    for (size_t c = 0; c < d; c++) {
        real *to = columns + c * tp;
        vreal x = vm_load(to), y = wide > 1 ? vm_load(to + VM_LANES) : x;

        for (size_t i = 0; i < QB; i++) {
            vreal s = vm_set(rows[i * d + c]);

            x = vm_fma(s, a[i][0], x);
            if (wide > 1)
                y = vm_fma(s, a[i][1], y);
        }
        vm_store(to, x);
        if (wide > 1)
            vm_store(to + VM_LANES, y);
    }
}

/* Keys after the query: lane index above `last` becomes fill. */
VM_INLINE vreal mask_after(vreal v, vm_word first, vm_word last, real fill)
{
#ifdef REAL_DOUBLE
    vword index = (vword){0, 1, 2, 3} + first;
#else
    vword index = (vword){0, 1, 2, 3, 4, 5, 6, 7} + first;
#endif
    return vm_select(index > last, vm_set(fill), v);
}

VM_INLINE void tile_mask(vreal acc[QB][2], size_t j, size_t i0, real fill)
{
    for (size_t i = 0; i < QB; i++) {
        acc[i][0] = mask_after(acc[i][0], (vm_word)j, (vm_word)(i0 + i), fill);
        acc[i][1] = mask_after(acc[i][1], (vm_word)j + VM_LANES, (vm_word)(i0 + i), fill);
    }
}

/* sums[i][0 .. dp) = sum over keys j < n of weights[i][j] * rows[j][]; n even. Even and odd keys are summed apart. */
VM_INLINE void block_sums(size_t dp, size_t tp, const real *weights, const real *rows, size_t n,
                          real *sums)
{
    for (size_t c = 0; c < dp; c += VM_LANES) {
        vreal even[QB], odd[QB];

        for (size_t i = 0; i < QB; i++)
            even[i] = odd[i] = vm_set(0);
        for (size_t j = 0; j < n; j += 2) {
            vreal a = vm_load(rows + j * dp + c), b = vm_load(rows + (j + 1) * dp + c);

            for (size_t i = 0; i < QB; i++) {
                even[i] = vm_fma(vm_set(weights[i * tp + j]), a, even[i]);
                odd[i] = vm_fma(vm_set(weights[i * tp + j + 1]), b, odd[i]);
            }
        }
        for (size_t i = 0; i < QB; i++)
            vm_store(sums + i * dp + c, even[i] + odd[i]);
    }
}

VM_INLINE void block_store(const real *sums, size_t dp, size_t d, const real *factor, size_t n,
                           real *dst, size_t ld)
{
    for (size_t i = 0; i < n; i++) {
        const real *from = sums + i * dp;
        real *to = dst + i * ld;
        size_t c = 0;

        for (; c + VM_LANES <= d; c += VM_LANES)
            vm_store(to + c, vm_load(from + c) * factor[i]);
        if (c < d)
            vm_store_part(to + c, d - c, vm_load(from + c) * factor[i]);
    }
}

/* A block in which no row is wanted is left out. */
VM_INLINE bool block_wanted(const struct pack *x, size_t i0, size_t n)
{
    for (size_t i = i0; x->wanted != NULL && i < i0 + n; i++)
        if (x->wanted[i])
            return true;
    return x->wanted == NULL;
}

/* ---- forward ---- */

VM_INLINE void forward_tile(const struct pack *x, size_t d, size_t j, size_t i0, bool diagonal,
                            const size_t wide, vreal best[QB])
{
    vreal acc[QB][2];

    tile_products(d, x->tp, x->q, x->kt + j, acc, wide);
    if (diagonal)
        tile_mask(acc, j, i0, (real)-INFINITY);
    for (size_t i = 0; i < QB; i++)
        for (size_t h = 0; h < wide; h++) {
            vm_store(x->p + i * x->tp + j + h * VM_LANES, acc[i][h]);
            best[i] = vm_max(acc[i][h], best[i]);
        }
}

/* Scores of queries [i0, i0 + QB) against keys [0, end), into x->p; top gets each row's maximum. */
VM_INLINE void forward_scores(const struct pack *x, size_t d, size_t i0, size_t end, real *top)
{
    vreal best[QB];
    size_t j = 0;

    for (size_t i = 0; i < QB; i++)
        best[i] = vm_set((real)-INFINITY);
    for (; j + TILE < end; j += TILE)
        forward_tile(x, d, j, i0, false, 2, best);
    if (j + TILE == end)
        forward_tile(x, d, j, i0, true, 2, best);
    else
        forward_tile(x, d, j, i0, true, 1, best);
    for (size_t i = 0; i < QB; i++)
        top[i] = vm_max_lane(best[i]);
}

/* p = exp(p - top) in place over keys [0, end); sum gets the totals. */
VM_INLINE void forward_exp(const struct pack *x, size_t end, const real *top, real *sum)
{
    vreal total[QB];

    for (size_t i = 0; i < QB; i++)
        total[i] = vm_set(0);
    for (size_t j = 0; j < end; j += VM_LANES)
        for (size_t i = 0; i < QB; i++) {
            vreal e = vm_exp(vm_load(x->p + i * x->tp + j) - vm_set(top[i]));

            vm_store(x->p + i * x->tp + j, e);
            total[i] += e;
        }
    for (size_t i = 0; i < QB; i++)
        sum[i] = vm_sum(total[i]);
}

VM_INLINE void forward_head(const struct pack *x, size_t d, const real *q, size_t ldq, real scale,
                            real *out, size_t ldo, real *lse)
{
    for (size_t i0 = 0; i0 < x->t; i0 += QB) {
        size_t n = least(QB, x->t - i0), end = vm_round(i0 + QB);
        real top[VM_LANES] = {0}, sum[VM_LANES], part[VM_LANES];

        for (size_t i = 0; i < VM_LANES; i++)
            sum[i] = 1;
        if (!block_wanted(x, i0, n))
            continue;
        pack_block(d, q + i0 * ldq, ldq, n, scale, x->q);
        forward_scores(x, d, i0, end, top);
        forward_exp(x, end, top, sum);
        vm_store(part, vm_load(top) + vm_log(vm_load(sum)));
        memcpy(lse + i0, part, n * sizeof *lse);
        block_sums(vm_round(d), x->tp, x->p, x->v, i0 + QB, x->dout);
        vm_store(part, 1 / vm_load(sum));
        block_store(x->dout, vm_round(d), d, part, n, out + i0 * ldo, ldo);
    }
}

VM_INLINE void forward_all(const struct attn_shape *s, size_t d, const struct attn_rows *in,
                           const real *qkv, real *out, real *lse, real *scratch)
{
    size_t ld = (s->heads + 2 * s->kv_heads) * d, ldo = s->heads * d,
           group = s->heads / s->kv_heads;
    size_t rows = (size_t)in->seq_begin[in->seqs];
    size_t groups = in->group_end > 0 ? in->group_end : s->kv_heads;
    real scale = 1 / (real)sqrt((double)d);

    for (size_t b = 0; b < in->seqs; b++) {
        size_t begin = (size_t)in->seq_begin[b];
        const real *q = qkv + begin * ld, *k = q + s->heads * d, *v = k + s->kv_heads * d;
        struct pack x;

        pack_init(&x, d, (size_t)in->seq_begin[b + 1] - begin, scratch);
        x.wanted = in->wanted == NULL ? NULL : in->wanted + begin;
        for (size_t g = in->group_begin; g < groups; g++) {
            pack_columns(&x, d, k + g * d, ld, x.kt);
            pack_rows(&x, d, v + g * d, ld, x.v);
            for (size_t h = g * group; h < (g + 1) * group; h++)
                forward_head(&x, d, q + h * d, ld, scale, out + begin * ldo + h * d, ldo,
                             lse + h * rows + begin);
        }
    }
}

/* ---- backward ---- */

/* One tile of keys: p, then dV, then ds = p (dout . v - delta), then dK; ds stays in x->p for dq. */
VM_INLINE void backward_tile(const struct pack *x, size_t d, size_t j, size_t i0, bool diagonal,
                             const size_t wide, const real *lse, const real *delta)
{
    vreal p[QB][2], ds[QB][2];

    tile_products(d, x->tp, x->q, x->kt + j, p, wide);
    for (size_t i = 0; i < QB; i++)
        for (size_t h = 0; h < wide; h++)
            p[i][h] = vm_exp(p[i][h] - lse[i]);
    if (diagonal)
        tile_mask(p, j, i0, 0);
    tile_outer(d, x->tp, p, x->dout, x->dvt + j, wide);
    tile_products(d, x->tp, x->dout, x->vt + j, ds, wide);
    for (size_t i = 0; i < QB; i++)
        for (size_t h = 0; h < wide; h++) {
            ds[i][h] = p[i][h] * (ds[i][h] - delta[i]);
            vm_store(x->p + i * x->tp + j + h * VM_LANES, ds[i][h]);
        }
    tile_outer(d, x->tp, ds, x->q, x->dkt + j, wide);
}

/* Keys [0, end). */
VM_INLINE void backward_tiles(const struct pack *x, size_t d, size_t i0, size_t end,
                              const real *lse, const real *delta)
{
    size_t j = 0;

    for (; j + TILE < end; j += TILE)
        backward_tile(x, d, j, i0, false, 2, lse, delta);
    if (j + TILE == end)
        backward_tile(x, d, j, i0, true, 2, lse, delta);
    else
        backward_tile(x, d, j, i0, true, 1, lse, delta);
}

struct backward_rows {
    const real *q, *out, *dout, *lse;
    real *dq;
    size_t ldq, ldo;
    real scale;
};

VM_INLINE void backward_head(const struct pack *x, size_t d, const struct backward_rows *r)
{
    for (size_t i0 = 0; i0 < x->t; i0 += QB) {
        size_t n = least(QB, x->t - i0), end = vm_round(i0 + QB);
        real lse[QB] = {0}, delta[QB] = {0}, factor[QB];

        if (!block_wanted(x, i0, n)) {
            for (size_t i = 0; i < n; i++)
                memset(r->dq + (i0 + i) * r->ldq, 0, d * sizeof *r->dq);
            continue;
        }
        pack_block(d, r->q + i0 * r->ldq, r->ldq, n, r->scale, x->q);
        pack_block(d, r->dout + i0 * r->ldo, r->ldo, n, 1, x->dout);
        for (size_t i = 0; i < QB; i++)
            factor[i] = r->scale;
        for (size_t i = 0; i < n; i++) {
            const real *o = r->out + (i0 + i) * r->ldo, *g = r->dout + (i0 + i) * r->ldo;

            lse[i] = r->lse[i0 + i];
            for (size_t c = 0; c < d; c++)
                delta[i] += o[c] * g[c];
        }
        backward_tiles(x, d, i0, end, lse, delta);
        block_sums(vm_round(d), x->tp, x->p, x->k, i0 + QB, x->dout);
        block_store(x->dout, vm_round(d), d, factor, n, r->dq + i0 * r->ldq, r->ldq);
    }
}

VM_INLINE void backward_all(const struct attn_shape *s, size_t d, const struct attn_rows *in,
                            const real *qkv, const real *out, const real *lse, const real *dout,
                            real *dqkv, real *scratch)
{
    size_t ld = (s->heads + 2 * s->kv_heads) * d, ldo = s->heads * d,
           group = s->heads / s->kv_heads;
    size_t rows = (size_t)in->seq_begin[in->seqs];
    size_t groups = in->group_end > 0 ? in->group_end : s->kv_heads;

    for (size_t b = 0; b < in->seqs; b++) {
        size_t begin = (size_t)in->seq_begin[b], k = begin * ld + s->heads * d,
               v = k + s->kv_heads * d;
        struct pack x;

        pack_init(&x, d, (size_t)in->seq_begin[b + 1] - begin, scratch);
        x.wanted = in->wanted == NULL ? NULL : in->wanted + begin;
        for (size_t g = in->group_begin; g < groups; g++) {
            pack_columns(&x, d, qkv + k + g * d, ld, x.kt);
            pack_columns(&x, d, qkv + v + g * d, ld, x.vt);
            pack_rows(&x, d, qkv + k + g * d, ld, x.k);
            memset(x.dkt, 0, 2 * d * x.tp * sizeof *x.dkt); /* and dvt, which follows */
            for (size_t h = g * group; h < (g + 1) * group; h++) {
                size_t at = begin * ldo + h * d;
                struct backward_rows r = {
                    qkv + begin * ld + h * d,  out + at, dout + at, lse + h * rows + begin,
                    dqkv + begin * ld + h * d, ld,       ldo,       1 / (real)sqrt((double)d)};

                backward_head(&x, d, &r);
            }
            unpack_columns(&x, d, x.dkt, dqkv + k + g * d, ld);
            unpack_columns(&x, d, x.dvt, dqkv + v + g * d, ld);
        }
    }
}

/* Common head sizes get their own unrolled code; the arithmetic is the same. */
void attn_forward(const struct attn_shape *s, const struct attn_rows *rows, const real *qkv,
                  real *out, real *lse, real *scratch)
{
    if (s->head_dim == 8)
        forward_all(s, 8, rows, qkv, out, lse, scratch);
    else if (s->head_dim == 48)
        forward_all(s, 48, rows, qkv, out, lse, scratch);
    else if (s->head_dim == 64)
        forward_all(s, 64, rows, qkv, out, lse, scratch);
    else
        forward_all(s, s->head_dim, rows, qkv, out, lse, scratch);
}

void attn_backward(const struct attn_shape *s, const struct attn_rows *rows, const real *qkv,
                   const real *out, const real *lse, const real *dout, real *dqkv, real *scratch)
{
    if (s->head_dim == 8)
        backward_all(s, 8, rows, qkv, out, lse, dout, dqkv, scratch);
    else if (s->head_dim == 48)
        backward_all(s, 48, rows, qkv, out, lse, dout, dqkv, scratch);
    else if (s->head_dim == 64)
        backward_all(s, 64, rows, qkv, out, lse, dout, dqkv, scratch);
    else
        backward_all(s, s->head_dim, rows, qkv, out, lse, dout, dqkv, scratch);
}
