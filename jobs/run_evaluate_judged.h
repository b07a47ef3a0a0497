/*
 * run_evaluate_judged: the attribute model's annotation against what people said, next to the
 * bag-of-words baseline. A tenth of the training conversations is set aside to tune both; the
 * annotation there is cross-fitted (no model labelled what it had seen), and the baseline is
 * trained on the rest of the training part. Tested on the held-out conversations.
 */
#ifndef JOBS_RUN_EVALUATE_JUDGED_H
#define JOBS_RUN_EVALUATE_JUDGED_H

#include "data/dataset.h"
#include "eval/results.h"

/* Adds to r->judged one entry for each label that attributes stand for, if human labels and
 * predictions are there. */
void evaluate_judged(const struct dataset *d, struct results *r, bool baseline);

#endif
