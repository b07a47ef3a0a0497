/*
 * report: results as report.json (everything), report.md (what a person reads first) and pictures.
 * Pure: text into buffers. The same results give the same bytes; no times, no host names.
 */
#ifndef EVAL_REPORT_H
#define EVAL_REPORT_H

#include "base/buf.h"
#include "eval/results.h"
#include "json/json.h"

cJSON *report_json(const struct results *r); /* caller's: cJSON_Delete() */
void report_markdown(const struct results *r, struct buf *out);

/* Pictures in order; index from 0; false after the last. name: file name, "steering.svg". */
bool report_picture(const struct results *r, int index, char name[64], struct buf *out);

/* Numbers for the metrics of a stage, at most 40 KiB of them, because a task's result has a bound: first those of models and
 * judges as a whole, then what each setting did to its attribute's own rulers (with intervals for the model under test), then the other intervals of
 * that, then other rulers. Of each,
 * models and settings in their order; the report itself has all.
 *   effect.<model>.<g>.<attr>.<measure> (with .lo, .hi where a figure rests on it), spearman.<the
 * same> of computed attributes, step.<the same> (smallest rise from one level to the next), gap.<model> (.lo, .hi), nll.<model>, nll_missing.<model>,
 * largest_rate.<model>, largest_rate_any.<model>, distinct2.<model>.<g>, fluency_nll.<model>.<g>, base_nll_rise.<model>.<g>,
 * am.<label>.*, tfidf.<label>.*, majority.<label>.accuracy, figures, figures_failed. <g> is "g1.5".
 * all: every measure with its interval, however many there are.
 */
void report_metrics(const struct results *r, bool all,
                    void (*add)(void *self, const char *name, double value), void *self);

#endif
