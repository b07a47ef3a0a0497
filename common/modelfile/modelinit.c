/* New weights. Each value is a function of (seed, what it is for, row, column), so it doesn't
 * matter who makes it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "modelfile/modeldir.h"
#include "modelfile/weights.h"

/* First counter word of a stream; ordinals of tensors (below 4096) are those of a fresh model. */
enum { STREAM_EMBEDDING = 4096, STREAM_HEAD, STREAM_SCORE };

static void rows_draw(float *w, int32_t first_row, int32_t rows, int32_t cols, double sd,
                      uint32_t stream, uint64_t seed)
{
    for (int32_t r = 0; r < rows; r++)
        for (int32_t c = 0; c < cols; c++)
            w[(size_t)r * (size_t)cols + (size_t)c] =
                (float)(sd *
                        rng_normal(seed, RNG_INIT, stream, (uint32_t)(first_row + r), (uint32_t)c));
}

static float *params_alloc(size_t count)
{
    float *p = weights_alloc(count);

    CHECK(p != NULL);
    return p;
}

void model_init_random(struct model *m, const struct dims *d, uint64_t seed)
{
    double residual = 0.02 / sqrt(2.0 * d->layers);

    *m = (struct model){.dims = *d};
    layout_init(&m->layout, d);
    m->params = params_alloc(m->layout.count);
    for (int32_t i = 0; i < m->layout.tensors; i++) {
        const struct tensor *t = &m->layout.tensor[i];
        float *w = m->params + t->begin;
        bool writes_residual =
            strstr(t->name, "o_proj") != NULL || strstr(t->name, "down_proj") != NULL;
        if (t->cols != 0)
            rows_draw(w, 0, t->rows, t->cols, writes_residual ? residual : 0.02, (uint32_t)i, seed);
        for (int32_t k = 0; t->cols == 0 && k < t->rows; k++)
            w[k] = 1.0f;
    }
}

/* Standard deviation over the elements, in order, in double: the same bits everywhere. */
static double deviation(const float *w, size_t n)
{
    double sum = 0, square = 0;

    for (size_t i = 0; i < n; i++)
        sum += (double)w[i];
    for (size_t i = 0; i < n; i++)
        square += ((double)w[i] - sum / (double)n) * ((double)w[i] - sum / (double)n);
    return sqrt(square / (double)n);
}

/* Moves m to dims d: tensors of the same name keep their rows, which may have become more. */
static void params_move(struct model *m, const struct dims *d)
{
    struct layout old = m->layout;
    float *params;

    m->dims = *d;
    layout_init(&m->layout, d);
    params = params_alloc(m->layout.count);
    for (int32_t i = 0; i < m->layout.tensors; i++) {
        const struct tensor *to = &m->layout.tensor[i], *from = layout_find(&old, to->name);
        if (from != NULL)
            memcpy(params + to->begin, m->params + from->begin,
                   tensor_count(from) * sizeof *params);
    }
    free(m->params);
    layout_fini(&old);
    m->params = params;
}

static void rows_new(struct model *m, const char *name, int32_t old_rows, uint32_t stream,
                     uint64_t seed)
{
    const struct tensor *t = layout_find(&m->layout, name);
    float *w;
    size_t had;

    if (t == NULL)
        return;
    w = m->params + t->begin;
    had = (size_t)old_rows * (size_t)t->cols;
    rows_draw(w + had, old_rows, t->rows - old_rows, t->cols, deviation(w, had), stream, seed);
}

void model_grow_vocab(struct model *m, int32_t new_vocab, uint64_t seed)
{
    struct dims d = m->dims;
    int32_t before = d.vocab;

    if (new_vocab <= before) /* rows that the tokenizer did not use yet are there */
        return;
    d.vocab = new_vocab;
    CHECK(dims_check(&d, NULL) == 0);
    params_move(m, &d);
    rows_new(m, "model.embed_tokens.weight", before, STREAM_EMBEDDING, seed);
    rows_new(m, "lm_head.weight", before, STREAM_HEAD, seed);
}

void model_to_regression(struct model *m, int32_t outputs, uint64_t seed)
{
    struct dims d = m->dims;
    const struct tensor *score;

    d.head = HEAD_REGRESSION;
    d.head_out = outputs;
    d.tied = false;
    CHECK(m->dims.head == HEAD_LM && dims_check(&d, NULL) == 0);
    params_move(m, &d);
    score = layout_find(&m->layout, "score.weight");
    rows_draw(m->params + score->begin, 0, score->rows, score->cols, 0.02, STREAM_SCORE, seed);
}
