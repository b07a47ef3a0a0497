/*
 * values: what is done to whole gradients, at the speed of memory. Pure.
 */
#ifndef PS_VALUES_H
#define PS_VALUES_H

#include <stdbool.h>
#include <stddef.h>

/* into[n] += from[n]; they do not overlap. */
void values_add(float *restrict into, const float *restrict from, size_t n);
/* No infinity and no NaN among x[n]. */
bool values_finite(const float *x, size_t n);

#endif
