/*
 * fingerprint: the numerics class of this machine: a hash over one training step of tiny models
 * through every kernel. Two workers with equal fingerprints give equal bits; a session runs on one
 * class.
 */
#ifndef WORKER_FINGERPRINT_H
#define WORKER_FINGERPRINT_H

#include "base/digest.h"

void fingerprint_take(
    struct digest *out); /* some milliseconds; the same in every call on one machine */

#endif
