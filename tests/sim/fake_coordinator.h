/*
 * fake_coordinator: the real scheduler, roster and journal, without the daemon around them: letters
 * of a fake_cluster become their events, their actions become letters. It may be killed before or
 * after each commit, and starts again from the journal. After every event the invariants are
 * asserted: leases and slots add up, each grant fences the ones before, a task is done once.
 *
 * Clock, dice and network are the cluster's, which must outlive it and is not freed here. The
 * database at `path` is the caller's to remove; everything else goes with fake_coordinator_fini().
 */
#ifndef FAKE_COORDINATOR_H
#define FAKE_COORDINATOR_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/journal.h"
#include "coordinator/roster.h"
#include "coordinator/sched.h"
#include "fake_cluster.h"

#define TASKS_SEEN 4096

struct fake_coordinator { /* zeros, then cluster, restart_rate and path */
    struct fake_cluster *cluster;
    uint32_t restart_rate; /* in a thousand, before and after each commit */
    char path[160];
    bool up;
    uint64_t up_ms; /* when it starts again */
    struct sched sched;
    struct roster roster;
    struct roster_actions roster_actions;
    struct journal *journal;
    struct sched_actions actions;
    uint64_t epoch_seen[TASKS_SEEN];
    uint8_t done_seen[TASKS_SEEN];
    uint64_t job; /* the last one's id */
    uint64_t restarts, leases, adopted;
};

void fake_coordinator_start(struct fake_coordinator *c); /* from the journal */
void fake_coordinator_fini(struct fake_coordinator *c);
/* These commit what follows from them and send it; not to be called while it is down. */
void fake_coordinator_submit(struct fake_coordinator *c, const char *spec_file);
void fake_coordinator_hears(struct fake_coordinator *c, const struct letter *l);
void fake_coordinator_tick(struct fake_coordinator *c);
bool fake_coordinator_all_over(const struct fake_coordinator *c); /* it is up, all jobs ended */

#endif
