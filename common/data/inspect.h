/*
 * inspect: data as a person should see it before anything is trained on it: rows as tokens with what is learnt marked, and a list of what is
 * wrong or odd. Prints text; reads files nowhere.
 */
#ifndef DATA_INSPECT_H
#define DATA_INSPECT_H

#include <stdio.h>

#include "data/read.h"
#include "data/template.h"

struct inspect_show {
    size_t first, count; /* responses [first, first + count) of the data set */
    bool held_out;       /* only those held out (else only those trained on) */
    bool colour;         /* terminal colours; learnt tokens stand in [ ] in any case */
};
/* Each response as the template lays it out, one token after another divided by "|", learnt ones as "[token]", label slots in the place that
 * they are said; then targets. t must have been prepared with tok. */
int inspect_show(const struct dataset *d, const struct template_config *t,
                 const struct tokenizer *tok, const struct inspect_show *what, FILE *out,
                 struct err *e);

struct inspect_summary {
    size_t problems;                                   /* of reading */
    size_t over_long, cut, nothing_learnt, duplicates; /* of responses */
    size_t usable; /* responses of the training split that would be learnt from */
    size_t tokens; /* of the usable ones */
};
/* problems and counts from reading (data/read.h); t and tok may be NULL: nothing is then said about tokens. */
int inspect_check(const struct dataset *d, const struct problems *problems,
                  const struct read_counts *counts, const struct template_config *t,
                  const struct tokenizer *tok, FILE *out, struct inspect_summary *sum,
                  struct err *e);

#endif
