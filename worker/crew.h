/*
 * crew: threads that help one other thread with work on many chunks (ps/spread.h), and sleep
 * otherwise. A host has one, so that folding and the optimiser use the cores on which nobody
 * computes just then: at the end of a step that is all of them.
 */
#ifndef WORKER_CREW_H
#define WORKER_CREW_H

#include <stdint.h>

#include "ps/spread.h"

struct crew;
struct crew *crew_new(uint32_t helpers); /* beside the thread that calls crew_each() */
void crew_free(struct crew *c);          /* NULL is fine */
struct spread crew_spread(struct crew *c); /* for that one thread */

#endif
