/*
 * half: bf16, the upper half of an fp32, for links on which bytes are dear. Rounding is to nearest,
 * ties to even; a NaN stays a NaN. Packing what was rounded before loses nothing. Pure.
 */
#ifndef PS_HALF_H
#define PS_HALF_H

#include <stddef.h>
#include <stdint.h>

/* x[n] to values that bf16 holds. */
void half_round(float *x, size_t n);
/* to[n] = from[n], rounded. */
void half_copy(float *to, const float *from, size_t n);
/* into[n] = into + from, rounded. */
void half_add(float *into, const float *from, size_t n);
void half_pack(uint16_t *to, const float *from, size_t n); /* of rounded values */
void half_unpack(float *to, const uint16_t *from, size_t n);

#endif
