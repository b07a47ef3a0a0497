/*
 * bf16: blocks of k that keep a panel of b in the first-level cache and a block of a in the second, as in every GEMM since
 * Goto and van de Geijn (2008). Packing is where elements become bfloat16, so conversion costs nothing extra. Two orders:
 * a small b is packed once and kept while blocks of a come and go (gradient of a vocabulary); otherwise a is kept and each
 * panel of b is packed just before it is used. Sums go through c from one block of k to the next, one chain from first to last.
 */
#include "model/bf16.h"

#include <string.h>

#include "base/err.h"
#include "model/bf16_inner.h"

#ifdef __x86_64__
#include <immintrin.h>
#define FLUSH_BOTH 0x8040u /* results and operands */
#endif

#define DEPTH_MAX 512 /* k of a block: a panel of b has 32 KiB */
#define DEPTH_STEP 32
#define PACK_BYTES ((size_t)512 << 10) /* of each operand */
#define PACK_WORDS (PACK_BYTES / sizeof(uint32_t) + 2 * BF16_SLACK)
#define ROWS_KEPT 240 /* rows of a at a time while b is kept */

static enum bf16_how how_most = BF16_CPU;

enum bf16_how bf16_how(void)
{
#ifdef __x86_64__
    if (how_most >= BF16_CPU && bf16_way_cpu != NULL && __builtin_cpu_supports("avx512bf16") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return BF16_CPU;
    if (how_most >= BF16_SOFTWARE && bf16_way_software != NULL && __builtin_cpu_supports("avx2") &&
        __builtin_cpu_supports("fma"))
        return BF16_SOFTWARE;
#endif
    return BF16_NONE;
}

const char *bf16_how_name(enum bf16_how how)
{
    return how == BF16_CPU ? "cpu" : how == BF16_SOFTWARE ? "software" : "none";
}

void bf16_limit(enum bf16_how most)
{
    how_most = most;
}

uint16_t bf16_round(float x)
{
    uint32_t v;

    memcpy(&v, &x, sizeof v);
    if ((v & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(v >> 16 | 0x40u);
    if ((v & 0x7f800000u) == 0)
        return (uint16_t)(v >> 16 & 0x8000u);
    return (uint16_t)((v + 0x7fffu + (v >> 16 & 1u)) >> 16);
}

size_t bf16_work_bytes(void)
{
    return 2 * PACK_WORDS * sizeof(uint32_t);
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* n in equal parts of at most `most`, each a whole number of steps. */
static size_t part_of(size_t n, size_t most, size_t step)
{
    size_t parts = (n + most - 1) / most;

    return ((n + parts - 1) / parts + step - 1) / step * step;
}

/* One block of k: elements [k0, k0 + k). */
struct block {
    const struct bf16_way *way;
    const struct bf16_matrix *a, *b;
    float *c;
    size_t ldc, m, n, k0, k, pairs;
    bool load, keep_b;
    uint32_t *pack_a, *pack_b;
};

static const float *at(const struct bf16_matrix *x, size_t i, size_t k)
{
    return x->k_strided ? x->p + k * x->ld + i : x->p + i * x->ld + k;
}

static void panel_pack(const struct block *s, size_t j, uint32_t *to)
{
    s->way->pack_b(at(s->b, j, s->k0), s->b->ld, s->b->k_strided, least(BF16_COLUMNS, s->n - j),
                   s->k, to);
}

/* The rows of c that come next are asked for while those before them are computed. */
static void tile_prefetch(const float *c, size_t ldc, size_t rows)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < BF16_COLUMNS; j += 16)
            __builtin_prefetch(c + i * ldc + j, 1);
}

/* A share of what panel j will be packed from: weights come from memory, and that can wait for it beside a tile. */
static void panel_prefetch(const struct block *s, size_t j, size_t share, size_t shares)
{
    const size_t line = 64 / sizeof(float);
    size_t columns = least(BF16_COLUMNS, s->n - j);
    size_t rows = s->b->k_strided ? s->k : columns, length = s->b->k_strided ? columns : s->k;
    const float *p = at(s->b, j, s->k0);

    for (size_t i = rows * share / shares; i < rows * (share + 1) / shares; i++)
        for (size_t x = 0; x < length; x += line)
            __builtin_prefetch(p + i * s->b->ld + x, 0, 2);
}

/* Rows [i0, i0 + rows) of c, whose a is packed. */
static void rows_make(const struct block *s, size_t i0, size_t rows)
{
    size_t tiles = (rows + BF16_ROWS - 1) / BF16_ROWS;

    for (size_t j = 0; j < s->n; j += BF16_COLUMNS) {
        uint32_t *panel = s->pack_b + (s->keep_b ? j * s->pairs : 0);
        size_t columns = least(BF16_COLUMNS, s->n - j);
        float *c = s->c + i0 * s->ldc + j;

        if (!s->keep_b)
            panel_pack(s, j, panel);
        for (size_t i = 0; i < rows; i += BF16_ROWS) {
            if (i + 2 * BF16_ROWS <= rows)
                tile_prefetch(c + (i + BF16_ROWS) * s->ldc, s->ldc, BF16_ROWS);
            if (!s->keep_b && j + BF16_COLUMNS < s->n)
                panel_prefetch(s, j + BF16_COLUMNS, i / BF16_ROWS, tiles);
            s->way->tile(s->pack_a + i * s->pairs, panel, s->pairs, c + i * s->ldc, s->ldc,
                         least(BF16_ROWS, rows - i), columns, s->load);
        }
    }
}

/* Rows (or columns) of which a packed operand may have, a multiple of both panels'. */
static size_t rows_most(size_t pairs)
{
    size_t step = 3 * BF16_COLUMNS;

    return PACK_BYTES / (pairs * sizeof(uint32_t)) / step * step;
}

static void block_make(struct block *s)
{
    size_t most = rows_most(s->pairs), columns = (s->n + BF16_COLUMNS - 1) / BF16_COLUMNS;
    size_t step;

    s->keep_b = s->m > most && columns * BF16_COLUMNS <= most;
    for (size_t j = 0; s->keep_b && j < s->n; j += BF16_COLUMNS)
        panel_pack(s, j, s->pack_b + j * s->pairs);
    step = part_of(s->m, s->keep_b ? least(ROWS_KEPT, most) : most, BF16_ROWS);
    for (size_t i = 0; i < s->m; i += step) {
        size_t rows = least(step, s->m - i);

        s->way->pack_a(at(s->a, i, s->k0), s->a->ld, s->a->k_strided, rows, s->k, s->pack_a);
        rows_make(s, i, rows);
    }
}

static void zero(float *c, size_t ldc, size_t m, size_t n)
{
    for (size_t i = 0; i < m; i++)
        memset(c + i * ldc, 0, n * sizeof *c);
}

void bf16_gemm(const struct bf16_matrix *a, const struct bf16_matrix *b, float *c, size_t ldc,
               size_t m, size_t n, size_t k, bool add, void *work)
{
    enum bf16_how how = bf16_how();
    struct block s = {.way = how == BF16_CPU ? bf16_way_cpu : bf16_way_software,
                      .a = a,
                      .b = b,
                      .c = c,
                      .ldc = ldc,
                      .m = m,
                      .n = n,
                      .pack_a = work,
                      .pack_b = (uint32_t *)work + PACK_WORDS};
    size_t depth = k > 0 ? part_of(k, DEPTH_MAX, DEPTH_STEP) : 0;
    unsigned saved = 0;

    CHECK(how != BF16_NONE && (uintptr_t)work % BF16_ALIGN == 0);
    if (m == 0 || n == 0)
        return;
    if (k == 0 && !add)
        zero(c, ldc, m, n);
#ifdef __x86_64__
    saved = _mm_getcsr();
    if (s.way->flushes)
        _mm_setcsr(saved | FLUSH_BOTH);
#endif
    for (size_t k0 = 0; k0 < k; k0 += depth) {
        s.k0 = k0;
        s.k = least(depth, k - k0);
        s.pairs = (s.k + 1) / 2;
        s.load = add || k0 > 0;
        block_make(&s);
    }
#ifdef __x86_64__
    if (s.way->flushes)
        _mm_setcsr(saved);
#endif
    (void)saved;
}
