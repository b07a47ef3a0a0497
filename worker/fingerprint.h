/*
 * fingerprint: the numerics class of this machine: a hash over one training step of tiny models
 * through every kernel. Two workers with equal fingerprints give equal bits; a session runs on one
 * class. A job that trains with products of bfloat16 has a class of its own on every machine.
 */
#ifndef WORKER_FINGERPRINT_H
#define WORKER_FINGERPRINT_H

#include "base/digest.h"

void fingerprint_take(
    struct digest *out); /* some milliseconds; the same in every call on one machine */

/* The same through the bfloat16 kernels, and the one above, because such a job has fp32 work too. "" where this process
 * makes no such products. */
void fingerprint_take_bf16(const struct digest *fp32, struct digest *out);

#endif
