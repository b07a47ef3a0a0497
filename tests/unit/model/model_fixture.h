/* model_fixture: small models and batches with fixed random values, for the tests of the numerics. */
#ifndef TESTS_MODEL_FIXTURE_H
#define TESTS_MODEL_FIXTURE_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/rng.h"
#include "model/dims.h"
#include "model/transformer.h"

static inline real *fixture_reals(size_t n)
{
    return mem_zalloc(n + 1, sizeof(real));
}

static inline real *fixture_normals(size_t n, uint32_t stream, double sd)
{
    real *x = fixture_reals(n);

    for (size_t i = 0; i < n; i++)
        x[i] = (real)(sd * rng_normal(1, RNG_TEST, stream, (uint32_t)i, 0));
    return x;
}

/* Norm vectors around 1, matrices around 0. */
static inline real *fixture_params(const struct dims *d, uint32_t stream)
{
    struct layout l;
    real *p;

    layout_init(&l, d);
    p = fixture_normals(l.count, stream, 0.2);
    for (int32_t i = 0; i < l.tensors; i++)
        if (!l.tensor[i].decay)
            for (size_t j = 0; j < tensor_count(&l.tensor[i]); j++)
                p[l.tensor[i].begin + j] += 1;
    layout_fini(&l);
    return p;
}

static inline int32_t fixture_below(uint32_t stream, uint32_t i, int32_t n)
{
    return (int32_t)rng_below(2, RNG_TEST, stream, i, 0, (uint32_t)n);
}

/* Packed sequences of the given lengths with random tokens and no targets yet. */
static inline void fixture_batch(struct batch *b, const struct dims *d, const int32_t *lengths,
                                 int32_t seqs, uint32_t stream)
{
    int32_t rows = 0;

    for (int32_t i = 0; i < seqs; i++)
        rows += lengths[i];
    batch_init(b, rows, seqs, 2 * rows, 2 * rows * (d->head_out > 0 ? d->head_out : 1));
    b->seqs = seqs;
    for (int32_t i = 0; i < seqs; i++)
        b->seq_begin[i + 1] = b->seq_begin[i] + lengths[i];
    b->rows = rows;
    for (int32_t i = 0; i < rows; i++)
        b->token[i] = fixture_below(stream, (uint32_t)i, d->vocab);
}

static inline void fixture_target(struct batch *b, int32_t row, int32_t id, int32_t lo, int32_t hi,
                                  float weight)
{
    b->target[b->targets++] = (struct batch_target){row, id, lo, hi, weight};
}

/* Next-token targets on two rows of three, whole vocabulary; or a score on each of them, some missing. */
static inline void fixture_targets(struct batch *b, const struct dims *d)
{
    for (int32_t i = 0; i < b->rows; i++) {
        if (i % 3 == 0)
            continue;
        if (d->head == HEAD_LM) {
            fixture_target(b, i, fixture_below(9, (uint32_t)i, d->vocab), 0, d->vocab,
                           0.5f + 0.25f * (float)(i % 4));
            continue;
        }
        for (int32_t j = 0; j < d->head_out; j++)
            b->score[i * d->head_out + j] =
                (i + j) % 3 == 0 ? NAN : (float)fixture_below(8, (uint32_t)(i + j), 5);
        fixture_target(b, i, i, 0, 0, 1.0f + (float)(i % 2));
    }
}

#endif
