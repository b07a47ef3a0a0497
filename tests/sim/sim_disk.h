/*
 * sim_disk: what simulated machines keep when a process dies: small files, the coordinator's
 * artefacts, and its database. The database is the real journal over the real SQLite in memory: a
 * transaction that was not committed is gone after a crash, one that was is not. The disk can be
 * full, a commit can fail, a crash can come just before or just after it, and an artefact can be
 * damaged or lost after it was written.
 */
#ifndef SIM_DISK_H
#define SIM_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/digest.h"

struct sim_disk_faults {                          /* in a thousand */
    uint32_t crash_before, crash_after, io_error; /* of a commit */
    bool full;
};
extern struct sim_disk_faults sim_disk_faults;
struct sim_disk_counts {
    uint64_t commits, crash_before, crash_after, io_errors, full, damaged, found_damaged, published,
        unpublished;
};
extern struct sim_disk_counts sim_disk_counts;

void sim_disk_reset(void);
/* For the made-up work: an artefact that is there from the start; what an artefact holds. */
void sim_disk_put(const void *bytes, size_t len, struct digest *out);
const char *sim_disk_get(const char *digest, size_t *len); /* NULL: not there */
/* An artefact is torn after it was written. false: it is not there, or damaged already. */
bool sim_disk_damage(const char *digest);

#endif
