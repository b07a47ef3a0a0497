/*
 * The kernel holds up to 6 rows x 2 vectors of outputs in registers (12 sums, 2 weights, 1 broadcast
 * of the 16 that AVX2 has). An fma takes 4 cycles and two begin in each, so 8 sums must be under
 * way: 1 to 3 rows take 4 or 2 panels at a time. Rows and panels at a time change nothing in the
 * operations of one output, so its bits are the same wherever it stands. Panels are the outer loop:
 * weights pass through the cache once a call, and the few rows of x stay in it.
 */
#include "model/panel.h"

#include "model/vmath.h"

#define ROWS 6
#define WIDE 4 /* panels at a time, at most */
#define NEAR_BYTES                                                                                 \
    ((size_t)256                                                                                   \
     << 10) /* weights that a core's own cache holds: then latency of fma is what      \
                           counts. Larger ones come from memory, which likes one stream best */

size_t panel_panels(size_t out)
{
    return (out + PANEL_COLS - 1) / PANEL_COLS;
}

size_t panel_count(size_t in, size_t out)
{
    return panel_panels(out) * PANEL_COLS * in;
}

void panel_pack(const real *w, size_t rows, size_t in, size_t at, real *packed)
{
    for (size_t r = 0; r < rows; r++) {
        real *column = packed + (at + r) / PANEL_COLS * PANEL_COLS * in + (at + r) % PANEL_COLS;
        for (size_t k = 0; k < in; k++)
            column[k * PANEL_COLS] = w[r * in + k];
    }
}

/* Weights to fetch meanwhile: a step on each k. */
struct ahead {
    const char *at;
    size_t step; /* bytes; 0: nothing to fetch */
};

struct product {
    const real *x;
    size_t ldx;
    real *y;
    size_t ldy;
    const int32_t *place;
    size_t in, out;
    bool add;
};

/* Rows x[0 .. rows) against `wide` panels, the first of them number `panel` at w. */
VM_INLINE void rows_times_panels(const struct product *p, size_t row, const real *w, size_t panel,
                                 struct ahead ahead, const size_t rows, const size_t wide)
{
    vreal low[ROWS * WIDE], high[ROWS * WIDE];
    const real *x = p->x + row * p->ldx;
    size_t ldx = p->ldx, in = p->in, apart = in * PANEL_COLS;

#pragma GCC unroll 8
    for (size_t i = 0; i < rows * wide; i++)
        low[i] = high[i] = (vreal){0};
    for (size_t k = 0; k < in; k++) {
        if (rows > 3)
            __builtin_prefetch(ahead.at + k * ahead.step, 0, 2);
#pragma GCC unroll 4
        for (size_t j = 0; j < wide; j++) {
            const real *at = w + j * apart + k * PANEL_COLS;
            vreal w0 = vm_load(at), w1 = vm_load(at + VM_LANES);
#pragma GCC unroll 6
            for (size_t r = 0; r < rows; r++) {
                vreal v = vm_broadcast(x[r * ldx + k]);
                low[r * wide + j] = vm_fma(v, w0, low[r * wide + j]);
                high[r * wide + j] = vm_fma(v, w1, high[r * wide + j]);
            }
        }
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
        real *y = p->y + (p->place == NULL ? row + r : (size_t)p->place[row + r]) * p->ldy;
#pragma GCC unroll 4
        for (size_t j = 0; j < wide; j++) {
            size_t o = (panel + j) * PANEL_COLS;

            vm_put(y + o, p->out - o, p->add, low[r * wide + j]);
            if (p->out - o > VM_LANES)
                vm_put(y + o + VM_LANES, p->out - o - VM_LANES, p->add, high[r * wide + j]);
        }
    }
}

static void few_rows(const struct product *p, const real *packed, size_t first, size_t end,
                     size_t rows)
{
    size_t apart = p->in * PANEL_COLS, j = first;
    const struct ahead none = {NULL, 0};
    bool near = (end - first) * apart * sizeof(real) <= NEAR_BYTES;

    for (; rows == 1 && near && j + 4 <= end; j += 4)
        rows_times_panels(p, 0, packed + j * apart, j, none, 1, 4);
    for (; rows == 1 && j < end; j++)
        rows_times_panels(p, 0, packed + j * apart, j, none, 1, 1);
    for (; rows == 2 && j + 2 <= end; j += 2)
        rows_times_panels(p, 0, packed + j * apart, j, none, 2, 2);
    for (; rows == 2 && j < end; j++)
        rows_times_panels(p, 0, packed + j * apart, j, none, 2, 1);
    for (; rows == 3 && j + 2 <= end; j += 2)
        rows_times_panels(p, 0, packed + j * apart, j, none, 3, 2);
    for (; rows == 3 && j < end; j++)
        rows_times_panels(p, 0, packed + j * apart, j, none, 3, 1);
}

static void group_times_panel(const struct product *p, size_t row, const real *w, size_t panel,
                              struct ahead ahead, size_t rows)
{
    switch (rows) {
    case 3:
        rows_times_panels(p, row, w, panel, ahead, 3, 1);
        break;
    case 4:
        rows_times_panels(p, row, w, panel, ahead, 4, 1);
        break;
    case 5:
        rows_times_panels(p, row, w, panel, ahead, 5, 1);
        break;
    case 6:
        rows_times_panels(p, row, w, panel, ahead, 6, 1);
        break;
    default:
        break;
    }
}

void panel_linear_some(const real *x, size_t ldx, const real *packed, real *y, size_t ldy,
                       const int32_t *place, size_t n, size_t in, size_t out, bool add,
                       size_t first, size_t end)
{
    struct product p = {x, ldx, y, ldy, place, in, out, add};
    size_t groups = (n + ROWS - 1) / ROWS, panel = PANEL_COLS * in;

    if (n < 4) {
        few_rows(&p, packed, first, end, n);
        return;
    }
    for (size_t j = first; j < end; j++) {
        /* The next panel comes from memory while the groups of this one compute. */
        struct ahead ahead = {(const char *)(packed + (j + 1 < end ? j + 1 : j) * panel),
                              64 / groups};
        for (size_t g = 0, row = 0; g < groups; g++) { /* as even as can be: 3 to 6 rows each */
            size_t rows = n / groups + (g < n % groups);
            group_times_panel(&p, row, packed + j * panel, j, ahead, rows);
            ahead.at += ahead.step * in;
            row += rows;
        }
    }
}

void panel_linear(const real *x, size_t ldx, const real *packed, real *y, size_t ldy, size_t n,
                  size_t in, size_t out, bool add)
{
    panel_linear_some(x, ldx, packed, y, ldy, NULL, n, in, out, add, 0, panel_panels(out));
}
