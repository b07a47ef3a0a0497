/*
 * units: which samples a step has, and how they are dealt to its units. A pure function of (seed,
 * step, lengths), the same on every worker: stream position q = step * global_batch + j shows
 * example permute(seed, pass = q / n)(q % n); the samples of a step are dealt to m units by length,
 * longest first to the least loaded (ties: lowest unit), and ordered inside a unit by j.
 */
#ifndef PS_UNITS_H
#define PS_UNITS_H

#include <stdint.h>

struct unit_sample {
    uint32_t example;
    uint32_t unit;
    uint64_t draw; /* stream position q */
};

/* out[global_batch], sorted by (unit, j). length: a callback so that this stays free of files.
 * scratch-free. */
void units_deal(uint64_t seed, uint64_t step, uint32_t global_batch, uint32_t m, uint32_t examples,
                uint32_t (*length)(void *self, uint32_t example), void *self,
                struct unit_sample *out);

#endif
