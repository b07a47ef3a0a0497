/*
 * examples: training sequences, encoded once (`encode` task) and assembled into batches again and again.
 *
 * An example is a list of pieces: fixed tokens with a loss weight, and label slots. A slot becomes control tokens (or label text,
 * pre-encoded piece by piece) when the example is assembled, after drop-out, so that drop-out differs from pass to pass and needs no tokenizer.
 * One file, little-endian, mmapped; opened strictly (magic, version, every offset and id within bounds).
 */
#ifndef DATA_EXAMPLES_H
#define DATA_EXAMPLES_H

#include <stdint.h>

#include "base/err.h"
#include "data/template.h"
#include "model/transformer.h" /* struct batch */

/* Writing. The template decides how label slots are said; vocab is the model's (its softmax
 * goes over all of it). The file is written whole at the end. */
struct examples_writer;
int examples_writer_new(const struct template_config *c, const struct tokenizer *t, int32_t vocab,
                        struct examples_writer **out, struct err *e);
/* Takes a copy. A sequence with nothing to learn in it is refused: false. */
bool examples_write(struct examples_writer *w, const struct sequence *s);
int examples_writer_end(struct examples_writer **w, const char *path,
                        struct err *e); /* frees w in any case; path NULL: only that */

struct examples;

struct drop {
    float each; /* probability that an attribute is dropped */
    float all;  /* probability that all are */
};

int examples_open(const char *path, struct examples **out, struct err *e);
void examples_close(struct examples *x);
uint32_t examples_count(const struct examples *x);
uint64_t examples_tokens(const struct examples *x); /* rows with nothing dropped, sum over all */
uint32_t examples_length(const struct examples *x,
                         uint32_t index); /* rows of one example at most, whatever is dropped */
uint32_t examples_length_max(const struct examples *x);
uint32_t examples_targets_max(const struct examples *x); /* of one example */
int32_t examples_vocab(const struct examples *x);
int32_t examples_outputs(
    const struct examples
        *x); /* regression: scores of a target, batch.score has as many for each; else 0 */

/* Appends example `index` to b. draw: number of this drawing (stream position), keys the drop-out with seed.
 * drop NULL: evaluation, nothing is dropped. CHECKs capacities of b. */
void examples_append(const struct examples *x, uint32_t index, uint64_t seed, uint64_t draw,
                     const struct drop *drop, struct batch *b);

#endif
