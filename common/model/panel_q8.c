/*
 * A panel holds PANEL_Q8_COLS outputs: first the codes, block after block, inside a block steps of
 * four inputs [4 steps of k][16 outputs][4], so that one step is a vector of 64 bytes and one
 * `vpdpbusd` adds four products to each of 16 sums; then the scales [blocks][16].
 *
 * That instruction multiplies unsigned by signed bytes. Weights are stored with 128 added, and the
 * sum begins at -128 times the sum of the input's codes, which takes it off again: exact, and paid
 * once for a row. AVX2 has no such instruction that does not saturate: even and odd bytes are
 * widened to 16 bits and multiplied by `vpmaddwd`. The three kernels agree in every bit because
 * integer sums are exact (32 x 127 x 255 is far below 2^24, so that the float is exact too) and
 * what follows is the same for each output: fma(sum, weight scale x input scale, so far).
 */
#include "model/panel_q8.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#include "model/vmath.h"

#if defined(__x86_64__) && defined(__AVX2__) && !defined(REAL_DOUBLE)
#define HAS_KERNELS 1
#endif

#define BLOCK PANEL_Q8_BLOCK
#define COLS PANEL_Q8_COLS
#define STEPS (BLOCK / 4)
#define BLOCK_BYTES (BLOCK * COLS)
#define ROWS 8          /* at a time */
#define AHEAD 2048      /* bytes to fetch before they are wanted, where rows are few */
#define LEAST 0x1p-100f /* a block of smaller numbers is zero */

static size_t blocks_of(size_t in)
{
    return (in + BLOCK - 1) / BLOCK;
}

static size_t panel_bytes(size_t in)
{
    return blocks_of(in) * BLOCK_BYTES + (blocks_of(in) * COLS * sizeof(uint16_t) + 63) / 64 * 64;
}

size_t panel_q8_panels(size_t out)
{
    return (out + COLS - 1) / COLS;
}

size_t panel_q8_bytes(size_t in, size_t out)
{
    return panel_q8_panels(out) * panel_bytes(in);
}

static float from_bits(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof(x));
    return x;
}

static uint32_t to_bits(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

/* Largest magnitude; NaN or infinity if there is one: as whole numbers their bits are the largest.
 */
static float largest(const real *x, size_t n)
{
    uint32_t most = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t bits = to_bits((float)x[i]) & 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    return from_bits(most);
}

/* ---- weights ---- */

void panel_q8_clear(unsigned char *packed, size_t in, size_t out)
{
    for (size_t j = 0; j < panel_q8_panels(out); j++) {
        memset(packed + j * panel_bytes(in), 0x80, blocks_of(in) * BLOCK_BYTES);
        memset(packed + j * panel_bytes(in) + blocks_of(in) * BLOCK_BYTES, 0,
               panel_bytes(in) - blocks_of(in) * BLOCK_BYTES);
    }
}

/* Scale of a block as bfloat16, rounded up, so that no code is beyond 127. */
static uint16_t weight_scale(float most)
{
    if (!(most < HUGE_VALF))
        return 0x7fc0; /* NaN */
    return most < LEAST ? 0 : (uint16_t)((to_bits(most / 127.0f) + 0xffffu) >> 16);
}

static void block_pack(const real *w, size_t n, unsigned char *codes, uint16_t *scale, size_t col)
{
    uint16_t s = weight_scale(largest(w, n));
    float inverse = s == 0 || s == 0x7fc0 ? 0.0f : 1.0f / from_bits((uint32_t)s << 16);

    scale[col] = s;
    for (size_t i = 0; i < BLOCK; i++) {
        int code = i < n && inverse > 0.0f ? (int)rintf((float)w[i] * inverse) : 0;
        codes[(i / 4 * COLS + col) * 4 + i % 4] = (unsigned char)(code + 128);
    }
}

void panel_q8_pack(const real *w, size_t rows, size_t in, size_t at, unsigned char *packed)
{
    size_t blocks = blocks_of(in);

    for (size_t r = 0; r < rows; r++) {
        unsigned char *panel = packed + (at + r) / COLS * panel_bytes(in);
        uint16_t *scale = (uint16_t *)(void *)(panel + blocks * BLOCK_BYTES);
        for (size_t b = 0; b < blocks; b++) {
            size_t n = in - b * BLOCK < BLOCK ? in - b * BLOCK : BLOCK;
            block_pack(w + r * in + b * BLOCK, n, panel + b * BLOCK_BYTES, scale + b * COLS,
                       (at + r) % COLS);
        }
    }
}

/* ---- inputs ---- */

static size_t round64(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

size_t panel_q8_rows_bytes(size_t rows, size_t in)
{
    size_t blocks = rows * blocks_of(in);

    return round64(blocks * BLOCK) + round64(blocks * sizeof(int32_t)) +
           round64(blocks * sizeof(float));
}

struct panel_q8_rows panel_q8_rows_at(void *memory, size_t rows, size_t in)
{
    size_t blocks = rows * blocks_of(in);
    unsigned char *at = memory;
    struct panel_q8_rows q = {.code = (int8_t *)at};

    at += round64(blocks * BLOCK);
    q.bias = (int32_t *)(void *)at;
    at += round64(blocks * sizeof(int32_t));
    q.scale = (float *)(void *)at;
    return q;
}

static void block_fill(const real *x, size_t n, int8_t *code, int32_t *bias, float *scale)
{
    float most = largest(x, n), inverse = 0.0f;
    int32_t sum = 0;

    *scale = !(most < HUGE_VALF) ? __builtin_nanf("") : most < LEAST ? 0.0f : most / 127.0f;
    if (*scale > 0.0f)
        inverse = 127.0f / most;
    for (size_t i = 0; i < n; i++) {
        /* Adding 1.5 x 2^23 rounds to a whole number, which the low bits then hold. */
        float shifted =
            inverse > 0.0f ? __builtin_fmaf((float)x[i], inverse, 0x1.8p23f) : 0x1.8p23f;
        int32_t whole = (int32_t)to_bits(shifted) - (int32_t)to_bits(0x1.8p23f);
        code[i] = (int8_t)whole;
        sum += whole;
    }
    memset(code + n, 0, BLOCK - n);
    *bias = -128 * sum;
}

void panel_q8_rows_fill(const struct panel_q8_rows *q, const real *x, size_t ldx, size_t n,
                        size_t in)
{
    size_t blocks = blocks_of(in);

    for (size_t r = 0; r < n; r++)
        for (size_t b = 0; b < blocks; b++)
            block_fill(x + r * ldx + b * BLOCK, in - b * BLOCK < BLOCK ? in - b * BLOCK : BLOCK,
                       q->code + (r * blocks + b) * BLOCK, q->bias + r * blocks + b,
                       q->scale + r * blocks + b);
}

/* ---- kernels ---- */

VM_INLINE size_t place_of(const int32_t *place, size_t row)
{
    return place == NULL ? row : (size_t)place[row];
}

/* One row's sums over a panel to where they go. */
VM_INLINE void sums_put(const float *sum, real *y, size_t cols, bool add)
{
    cols = cols < COLS ? cols : COLS;
    for (size_t j = 0; j < cols; j++)
        y[j] = add ? y[j] + (real)sum[j] : (real)sum[j];
}

static void row_times_panel_plain(const struct panel_q8_rows *x, size_t row,
                                  const unsigned char *panel, size_t blocks, float *sum)
{
    const uint16_t *scale = (const uint16_t *)(const void *)(panel + blocks * BLOCK_BYTES);

    memset(sum, 0, COLS * sizeof(*sum));
    for (size_t b = 0; b < blocks; b++) {
        const unsigned char *w = panel + b * BLOCK_BYTES;
        const int8_t *code = x->code + (row * blocks + b) * BLOCK;
        for (size_t j = 0; j < COLS; j++) {
            int32_t whole = x->bias[row * blocks + b];
            float s = from_bits((uint32_t)scale[b * COLS + j] << 16);
            for (size_t i = 0; i < BLOCK; i++)
                whole += (int32_t)w[(i / 4 * COLS + j) * 4 + i % 4] * (int32_t)code[i];
            sum[j] = __builtin_fmaf((float)whole, s * x->scale[row * blocks + b], sum[j]);
        }
    }
}

static void linear_plain(const struct panel_q8_rows *x, const unsigned char *packed, real *y,
                         size_t ldy, const int32_t *place, size_t n, size_t in, size_t out,
                         bool add, size_t first, size_t end)
{
    float sum[COLS];

    for (size_t j = first; j < end; j++)
        for (size_t r = 0; r < n; r++) {
            row_times_panel_plain(x, r, packed + j * panel_bytes(in), blocks_of(in), sum);
            sums_put(sum, y + place_of(place, r) * ldy + j * COLS, out - j * COLS, add);
        }
}

#ifdef HAS_KERNELS

/* Four codes of a row, as they stand in memory. */
VM_INLINE int32_t four(const int8_t *code)
{
    int32_t x;

    memcpy(&x, code, sizeof(x));
    return x;
}

/* Half a panel (8 outputs) at a time: `half` is 0 or 8. */
VM_INLINE void rows_times_half_avx2(const struct panel_q8_rows *x, size_t row,
                                    const unsigned char *panel, size_t blocks, size_t half,
                                    float (*sum)[COLS], const size_t rows)
{
    const uint16_t *scale = (const uint16_t *)(const void *)(panel + blocks * BLOCK_BYTES);
    __m256 total[4];

#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++)
        total[r] = _mm256_setzero_ps();
    for (size_t b = 0; b < blocks; b++) {
        const unsigned char *w = panel + b * BLOCK_BYTES + half * 4;
        __m128i s16 = _mm_loadu_si128((const __m128i *)(const void *)(scale + b * COLS + half));
        __m256 s = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(s16), 16));
        __m256i whole[4];
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++)
            whole[r] = _mm256_set1_epi32(x->bias[(row + r) * blocks + b]);
        for (size_t k = 0; k < STEPS; k++) {
            __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(w + k * COLS * 4));
            __m256i even = _mm256_and_si256(v, _mm256_set1_epi16(0xff));
            __m256i odd = _mm256_srli_epi16(v, 8);
#pragma GCC unroll 4
            for (size_t r = 0; r < rows; r++) {
                __m256i c =
                    _mm256_set1_epi32(four(x->code + ((row + r) * blocks + b) * BLOCK + k * 4));
                __m256i low = _mm256_srai_epi16(_mm256_slli_epi16(c, 8), 8);
                __m256i high = _mm256_srai_epi16(c, 8);
                whole[r] = _mm256_add_epi32(whole[r], _mm256_madd_epi16(even, low));
                whole[r] = _mm256_add_epi32(whole[r], _mm256_madd_epi16(odd, high));
            }
        }
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++)
            total[r] = _mm256_fmadd_ps(
                _mm256_cvtepi32_ps(whole[r]),
                _mm256_mul_ps(s, _mm256_set1_ps(x->scale[(row + r) * blocks + b])), total[r]);
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++)
        _mm256_storeu_ps(sum[r] + half, total[r]);
}

static void linear_avx2(const struct panel_q8_rows *x, const unsigned char *packed, real *y,
                        size_t ldy, const int32_t *place, size_t n, size_t in, size_t out, bool add,
                        size_t first, size_t end)
{
    size_t blocks = blocks_of(in);
    float sum[4][COLS];

    for (size_t j = first; j < end; j++) {
        const unsigned char *panel = packed + j * panel_bytes(in);
        for (size_t row = 0, rows; row < n; row += rows) {
            rows = n - row >= 4 ? 4 : 1;
            for (size_t half = 0; half < COLS; half += 8) {
                if (rows == 4)
                    rows_times_half_avx2(x, row, panel, blocks, half, sum, 4);
                else
                    rows_times_half_avx2(x, row, panel, blocks, half, sum, 1);
            }
            for (size_t r = 0; r < rows; r++)
                sums_put(sum[r], y + place_of(place, row + r) * ldy + j * COLS, out - j * COLS,
                         add);
        }
    }
}

#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"), always_inline)) inline

static VNNI void rows_times_panel_vnni(const struct panel_q8_rows *x, size_t row,
                                       const unsigned char *panel, size_t blocks,
                                       const unsigned char *ahead, size_t step, float (*sum)[COLS],
                                       const size_t rows)
{
    const uint16_t *scale = (const uint16_t *)(const void *)(panel + blocks * BLOCK_BYTES);
    __m512 total[ROWS];

#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++)
        total[r] = _mm512_setzero_ps();
    for (size_t b = 0; b < blocks; b++) {
        const unsigned char *w = panel + b * BLOCK_BYTES;
        __m256i s16 = _mm256_loadu_si256((const __m256i *)(const void *)(scale + b * COLS));
        __m512 s = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(s16), 16));
        __m512i whole[ROWS], more[ROWS]; /* two sums: an instruction waits 4 cycles for the last */
        for (size_t i = 0; i < step; i += 64)
            _mm_prefetch((const char *)ahead + b * step + i, _MM_HINT_T1);
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) {
            whole[r] = _mm512_set1_epi32(x->bias[(row + r) * blocks + b]);
            more[r] = _mm512_setzero_si512();
        }
#pragma GCC unroll 4
        for (size_t k = 0; k < STEPS; k += 2) {
            __m512i v = _mm512_loadu_si512(w + k * COLS * 4);
            __m512i u = _mm512_loadu_si512(w + (k + 1) * COLS * 4);
#pragma GCC unroll 8
            for (size_t r = 0; r < rows; r++) {
                const int8_t *code = x->code + ((row + r) * blocks + b) * BLOCK + k * 4;
                whole[r] = _mm512_dpbusd_epi32(whole[r], v, _mm512_set1_epi32(four(code)));
                if (rows == 1)
                    more[r] = _mm512_dpbusd_epi32(more[r], u, _mm512_set1_epi32(four(code + 4)));
                else
                    whole[r] = _mm512_dpbusd_epi32(whole[r], u, _mm512_set1_epi32(four(code + 4)));
            }
        }
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) {
            if (rows == 1)
                whole[r] = _mm512_add_epi32(whole[r], more[r]);
            total[r] = _mm512_fmadd_ps(
                _mm512_cvtepi32_ps(whole[r]),
                _mm512_mul_ps(s, _mm512_set1_ps(x->scale[(row + r) * blocks + b])), total[r]);
        }
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++)
        _mm512_storeu_ps(sum[r], total[r]);
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))) static void
linear_vnni(const struct panel_q8_rows *x, const unsigned char *packed, real *y, size_t ldy,
            const int32_t *place, size_t n, size_t in, size_t out, bool add, size_t first,
            size_t end)
{
    size_t blocks = blocks_of(in);
    float sum[ROWS][COLS];

    for (size_t j = first; j < end; j++) {
        const unsigned char *panel = packed + j * panel_bytes(in);
        /* What comes from memory next: the following panel, shared out among the groups of rows. */
        const unsigned char *ahead = n < ROWS ? panel + AHEAD : panel + panel_bytes(in);
        size_t step = n < ROWS ? BLOCK_BYTES : BLOCK_BYTES / (n / ROWS) / 64 * 64;
        for (size_t row = 0, rows; row < n; row += rows) {
            rows = n - row >= ROWS ? ROWS : n - row >= 3 ? 3 : 1;
            if (rows == ROWS)
                rows_times_panel_vnni(x, row, panel, blocks, ahead, step, sum, ROWS);
            else if (rows == 3)
                rows_times_panel_vnni(x, row, panel, blocks, ahead, step, sum, 3);
            else
                rows_times_panel_vnni(x, row, panel, blocks, ahead, step, sum, 1);
            ahead += step * blocks;
            for (size_t r = 0; r < rows; r++)
                sums_put(sum[r], y + place_of(place, row + r) * ldy + j * COLS, out - j * COLS,
                         add);
        }
    }
}
#endif

/* ---- choosing ---- */

static panel_q8_fn best_kernel;
static pthread_once_t chosen = PTHREAD_ONCE_INIT;

size_t panel_q8_kernels(const char **name, panel_q8_fn *fn)
{
    size_t n = 0;

#ifdef HAS_KERNELS
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
        name[n] = "avx512vnni";
        fn[n++] = linear_vnni;
    }
    name[n] = "avx2";
    fn[n++] = linear_avx2;
#endif
    name[n] = "plain";
    fn[n++] = linear_plain;
    return n;
}

static void kernel_choose(void)
{
    const char *name[PANEL_Q8_KERNELS_MAX];
    panel_q8_fn fn[PANEL_Q8_KERNELS_MAX];

    (void)panel_q8_kernels(name, fn);
    best_kernel = fn[0];
}

void panel_q8_linear(const struct panel_q8_rows *x, const unsigned char *packed, real *y,
                     size_t ldy, const int32_t *place, size_t n, size_t in, size_t out, bool add,
                     size_t first, size_t end)
{
    (void)pthread_once(&chosen, kernel_choose);
    best_kernel(x, packed, y, ldy, place, n, in, out, add, first, end);
}
