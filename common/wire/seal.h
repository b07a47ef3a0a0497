/*
 * seal: the last field of an envelope and of a parcel's head, XXH3-64 of the bytes before its value
 * and of those raw frames that have no hash of their own. TCP's checksum has 16 bits, so that now
 * and then a damaged message passes it; and not every machine's memory has ECC. What does not fit
 * its seal counts as lost, and is said again (proto/README.md). No protection against somebody who
 * wants to forge it: that is what keys are for (net/keys.h).
 */
#ifndef WIRE_SEAL_H
#define WIRE_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/link.h"

#define SEAL_OPEN 1u /* what a message is packed with: any value that travels */

/* packed: ends with the seal's field. frames: n that it covers too. */
void seal_put(uint8_t *packed, size_t len, const struct link_frame *frames, int n);
/* seal: as it was unpacked; 0: there was none. */
bool seal_fits(const void *packed, size_t len, uint64_t seal, const struct link_frame *frames,
               int n);

#endif
