/*
 * ps_view: the parameters of a session as the compute threads of one process read them: one flat
 * vector for all of them. Chunks that this process hosts are read where the host keeps them, and
 * those of other hosts on this machine too; the rest is pulled, once for all threads, while they
 * compute with what is there already.
 *
 * There is no pulling thread: whoever waits, pulls. Parameters may change under a reader only when
 * his step has been closed without him, so his results are of no use then: ps_view_still() tells,
 * after the reading.
 */
#ifndef WORKER_PS_VIEW_H
#define WORKER_PS_VIEW_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "worker/ps_client.h"

struct ps_view;
/* plan: region in .view, held; .near is set here. */
int ps_view_new(const struct ps_client_plan *plan, struct ps_view **out, struct err *e);
void ps_view_free(struct ps_view *v);
atomic_bool *ps_view_near(struct ps_view *v); /* for the clients that push */
const float *ps_view_params(const struct ps_view *v);

/* Until something of a version >= at_least is there; meanwhile repeats what `pushes` has open, and
 * forgets it then. What check says ends the wait. */
int ps_view_wait(struct ps_view *v, uint64_t at_least, uint64_t *version, struct ps_client *pushes,
                 const struct ps_client_check *check, struct err *e);
/* Until elements [begin, end) are there at this version. over: that will not be any more. */
int ps_view_need(struct ps_view *v, uint64_t version, size_t begin, size_t end, bool *over,
                 const struct ps_client_check *check, struct err *e);
bool ps_view_still(const struct ps_view *v, uint64_t version);

#endif
