/*
 * sim_memory: what worker/mailbox.h and net/region.h promise, inside one simulated process: queues
 * between its threads, and memory that they share. Another machine never sees either. All of it is
 * of the run (sim_heap.h) and goes with it; a region is filled with NaNs when its last holder lets go.
 */
#ifndef SIM_MEMORY_H
#define SIM_MEMORY_H

void sim_memory_reset(void); /* before a run: no regions, ids from 1 */

#endif
