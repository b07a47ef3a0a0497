/*
 * figures: the promises of a run as a table of value, bound, kept or not. Held against the first
 * model and its training seeds (the model under test) and against the control; other models are
 * shown in reports but promise nothing. effect   the lead ruler of each attribute moves as in human
 * replies: the interval is on that side of 0 judge    the attribute model reads the attribute as
 * stronger when more is asked for: the interval is above 0 order    computed attributes: Spearman
 * of requested level and measure over single replies is at least 0.5 gap      held-out loss: wrong
 * attributes cost something (the interval is above 0); for the control they do not (it contains 0)
 *   control  no rate that an effect is claimed on (an attribute's ruler, the attribute model's
 * reading of it) moves by more than 0.12: a trained model can carry a chance association, so 0
 * would be too strict; the largest of all pairs is a metric, not a figure, since with 300 contexts
 * noise alone brings one of some forty to 0.12 kappa    the attribute model agrees with humans
 * beyond chance, and no interval puts it below the bag-of-words baseline
 */
#ifndef EVAL_FIGURES_H
#define EVAL_FIGURES_H

#include "eval/results.h"

#define FIGURES_CONTROL_MAX 0.12
#define FIGURES_ORDER_MIN 0.5

void figures_build(
    struct results *r); /* after everything else is filled; steering_leads() included */
/* The author's own figure in place of those: a value (NaN: there is no such metric, not kept) and a bound. */
void figures_promise(struct results *r, const char *metric, double value, bool at_least,
                     double bound);
/* Largest |effect| of a model on rates, over guidance and attributes: on claimed ones, or (any) on
 * all; NaN if it has none. */
double figures_largest_rate(const struct results *r, int model, bool any);

#endif
