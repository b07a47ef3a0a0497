/*
 * panel: y = x W^T by our own kernel over packed weights, for decoding.
 *
 * A BLAS kernel's bits depend on how many rows are multiplied and where a row stands among them, so
 * that a text would depend on its neighbours. Here every output is one chain of fma over k = 0, 1,
 * ... whatever the number of rows; and few rows (a decode step has as many as there are slots) are
 * what the kernel is shaped for. Weights are packed once: panels of PANEL_COLS outputs, inside a
 * panel [in][PANEL_COLS]. Pure; no allocation. Tests: tests/unit/model/test_panel.c.  Bench:
 * tests/bench/bench_decode.c.
 */
#ifndef MODEL_PANEL_H
#define MODEL_PANEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/real.h"

#define PANEL_COLS (64 / sizeof(real)) /* two vectors */

size_t panel_count(size_t in,
                   size_t out);  /* elements of a packed [out, in] matrix, padded to whole panels */
size_t panel_panels(size_t out); /* panels of `out` outputs */
/* Packs rows w[rows, in] as outputs [at, at + rows) of a packed matrix that was zeroed before:
 * several matrices that read the same input may lie side by side. */
void panel_pack(const real *w, size_t rows, size_t in, size_t at, real *packed);
/* y[n,out] = x[n,in] W^T, or y += with add (one addition to the finished sum). */
void panel_linear(const real *x, size_t ldx, const real *packed, real *y, size_t ldy, size_t n,
                  size_t in, size_t out, bool add);
/* The same for the outputs of panels [first, end) alone: what one of several threads computes. An
 * output has the same bits whoever computes it. place[n]: the row of y that row r goes to; NULL: r. */
void panel_linear_some(const real *x, size_t ldx, const real *packed, real *y, size_t ldy,
                       const int32_t *place, size_t n, size_t in, size_t out, bool add,
                       size_t first, size_t end);

#endif
