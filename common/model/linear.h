/*
 * linear: the products of linear layers, shared among a team of threads, and weight gradients of several parts at once.
 *
 * A product is cut by columns of its result (a weight gradient by rows), which changes no bit (gemm_parts_alike(); else one
 * thread makes it). Rows of a batch may be parts, each with a gradient of its own, that are to be summed along the
 * canonical tree (types/tree.h): then a block of the gradient is made part after part, and the parts are added up while a
 * cache has them, so that only the sum is ever written to memory. The same bits as one gradient a part, added up later.
 * No allocation but in linear_new(). Tests: tests/unit/model/test_linear.c.
 */
#ifndef MODEL_LINEAR_H
#define MODEL_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/team.h"
#include "model/gemm.h"
#include "model/real.h"

#define PARTS_MAX 8

/* Rows [begin[p], begin[p + 1]) are part p: leaf p of an aligned subtree of the canonical tree. */
struct parts {
    uint32_t n;
    size_t begin[PARTS_MAX + 1];
};

struct linear;
/* team: borrowed, NULL: the caller alone. scratch_elems: what each thread has beside (linear_scratch()). */
struct linear *linear_new(enum gemm_kind kind, struct team *team, size_t scratch_elems);
void linear_free(struct linear *l);
size_t linear_bytes(enum gemm_kind kind, uint32_t threads);
struct team *linear_team(const struct linear *l);
bool linear_joins(const struct linear *l); /* gradients of several parts can be made */
real *linear_scratch(const struct linear *l, size_t part);
/* This part's share of [0, n), in whole steps. */
void linear_share(size_t n, size_t step, size_t part, size_t parts, size_t *begin, size_t *end);

/* y[n,out] = x[n,in] W^T, or y += with add. */
void linear_forward(const struct linear *l, const real *x, size_t ldx, const real *w, real *y,
                    size_t ldy, size_t n, size_t in, size_t out, bool add);
/* dx[n,in] = dy[n,out] W, or dx += with add. */
void linear_dx(const struct linear *l, const real *dy, size_t ldy, const real *w, real *dx,
               size_t ldx, size_t n, size_t in, size_t out, bool add);

/* Rows of a gradient that are wanted of each part by itself: those of row[0 .. n), ascending, of the gradient's rows
 * counted from `first`; row i of part p is copied to to[(p * n + i) * in]. */
struct linear_keep {
    const int32_t *row;
    size_t n, first;
    real *to;
};

/* dw[out,in] (+)= dy^T x. set: what dw held does not count. Several parts: set only. keep: may be NULL. */
void linear_dw(const struct linear *l, const real *dy, size_t ldy, const real *x, size_t ldx,
               real *dw, const struct parts *parts, size_t in, size_t out, bool set,
               const struct linear_keep *keep);

/* Sums of vectors along the tree, one after the other: with an addition a tree edge. */
struct tree_adder {
    uint32_t depth;
    struct {
        uint32_t level, index;
        real *at;
        size_t ld;
    } stack[5];
};
/* [rows, cols] at `at` is the next leaf; the first leaf's memory becomes the sum's. */
void tree_adder_leaf(struct tree_adder *a, uint32_t leaf, real *at, size_t ld, size_t rows,
                     size_t cols);
void tree_adder_end(struct tree_adder *a, size_t rows, size_t cols);

#endif
