/*
 * The kernel holds 6 rows x 2 vectors of outputs in registers (12 sums, 2 weights, 1 broadcast of
 * the 16 that AVX2 has); left-over rows take the same loop with fewer rows, so a row's operations
 * are the same wherever it stands. Panels are the outer loop: weights pass through the cache once a
 * call, and the few rows of x stay in it.
 */
#include "model/panel.h"

#include "model/vmath.h"

#define ROWS 6

size_t panel_count(size_t in, size_t out)
{
    return (out + PANEL_COLS - 1) / PANEL_COLS * PANEL_COLS * in;
}

void panel_pack(const real *w, size_t rows, size_t in, size_t at, real *packed)
{
    for (size_t r = 0; r < rows; r++) {
        real *column = packed + (at + r) / PANEL_COLS * PANEL_COLS * in + (at + r) % PANEL_COLS;
        for (size_t k = 0; k < in; k++)
            column[k * PANEL_COLS] = w[r * in + k];
    }
}

/* x - 0 is x, also for -0, so that this is a broadcast and nothing else. */
VM_INLINE vreal broadcast(real x)
{
    return x - (vreal){0};
}

VM_INLINE void put(real *y, size_t cols, bool add, vreal low, vreal high)
{
    real part[PANEL_COLS];

    if (cols >= PANEL_COLS) {
        vm_store(y, add ? vm_load(y) + low : low);
        vm_store(y + VM_LANES, add ? vm_load(y + VM_LANES) + high : high);
        return;
    }
    vm_store(part, low);
    vm_store(part + VM_LANES, high);
    for (size_t j = 0; j < cols; j++)
        y[j] = add ? y[j] + part[j] : part[j];
}

VM_INLINE void rows_times_panel(const real *x, size_t ldx, const real *panel, real *y, size_t ldy,
                                size_t in, size_t cols, bool add, const size_t rows)
{
    vreal low[ROWS], high[ROWS];

#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++)
        low[r] = high[r] = (vreal){0};
    for (size_t k = 0; k < in; k++) {
        vreal w0 = vm_load(panel + k * PANEL_COLS), w1 = vm_load(panel + k * PANEL_COLS + VM_LANES);
#pragma GCC unroll 6
        for (size_t r = 0; r < rows; r++) {
            vreal v = broadcast(x[r * ldx + k]);
            low[r] = vm_fma(v, w0, low[r]);
            high[r] = vm_fma(v, w1, high[r]);
        }
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++)
        put(y + r * ldy, cols, add, low[r], high[r]);
}

static void rows_left(const real *x, size_t ldx, const real *panel, real *y, size_t ldy, size_t in,
                      size_t cols, bool add, size_t rows)
{
    switch (rows) {
    case 1:
        rows_times_panel(x, ldx, panel, y, ldy, in, cols, add, 1);
        break;
    case 2:
        rows_times_panel(x, ldx, panel, y, ldy, in, cols, add, 2);
        break;
    case 3:
        rows_times_panel(x, ldx, panel, y, ldy, in, cols, add, 3);
        break;
    case 4:
        rows_times_panel(x, ldx, panel, y, ldy, in, cols, add, 4);
        break;
    case 5:
        rows_times_panel(x, ldx, panel, y, ldy, in, cols, add, 5);
        break;
    default:
        break;
    }
}

void panel_linear(const real *x, size_t ldx, const real *packed, real *y, size_t ldy, size_t n,
                  size_t in, size_t out, bool add)
{
    for (size_t o = 0; o < out; o += PANEL_COLS) {
        const real *panel = packed + o * in;
        size_t r = 0, cols = out - o;
        for (; r + ROWS <= n; r += ROWS)
            rows_times_panel(x + r * ldx, ldx, panel, y + r * ldy + o, ldy, in, cols, add, ROWS);
        rows_left(x + r * ldx, ldx, panel, y + r * ldy + o, ldy, in, cols, add, n - r);
    }
}
