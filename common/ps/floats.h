/*
 * floats: counted rows of floats, so that one can be on its way to somebody (zero-copy) while its
 * owner goes on. 64-byte aligned. Holding and releasing may be done on any thread.
 */
#ifndef PS_FLOATS_H
#define PS_FLOATS_H

#include <stdbool.h>
#include <stddef.h>

float *floats_new(size_t n); /* uninitialised, held once */
void floats_hold(const float *f);
void floats_release(const float *f);   /* freed by the last one; NULL is fine */
bool floats_is_shared(const float *f); /* somebody beside the caller holds it */

#endif
