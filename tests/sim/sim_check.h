/*
 * sim_check: what must hold after every event, whatever happened.
 *
 *   - a task has one live lease, each grant a higher epoch, and is done once;
 *   - nothing is performed that is not committed, and nobody hears of a grant that is not;
 *   - a submit that was acknowledged is known after every restart, once; what was over stays over;
 *   - slots of a session are a partition of its units, and a worker is in one session at most;
 *   - every version of every chunk that any host reaches has the bits of the straight loop, of the host's numerics class;
 *   - where all is audited nothing wrong counts, and nobody but the machine that computes wrongly goes into quarantine. Only
 *     when an audit was waived, because nobody was there to be asked, a run is excused from that.
 */
#ifndef SIM_CHECK_H
#define SIM_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "net/link.h"
#include "sim_core.h"

/* Ends the run: the first one counts. */
void sim_violation(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
const char *sim_violated(void); /* NULL: nothing has */

void sim_check_committed(void);            /* by sim_disk: a transaction is safe */
void sim_check_acknowledged(uint64_t job); /* a client was told of this job */
void sim_check_coordinator_gone(void);
bool sim_check_quarantined(void); /* somebody is, and that is committed */
bool sim_check_names_liar(
    const char *message); /* does it hold the id of the machine that computes wrongly? */
bool sim_check_excused(void);
/* The manifest of some checkpoint that is committed and not the last of its session; NULL: none. */
const char *sim_check_some_checkpoint(void);
void sim_check_reset(void);

struct sim_check_counts {
    uint64_t grants, done, versions, restored;
};
extern struct sim_check_counts sim_check_counts;

#endif
