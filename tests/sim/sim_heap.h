/*
 * sim_heap: malloc() of the simulator. Two heaps: what simulated processes allocate goes with the run, whole, as a machine
 * that loses its power takes it all; everything else stays.
 *
 * Within a run addresses rise, or with sim_heap_upside_down() fall: two runs of one seed that agree do not depend on the
 * order of addresses. Under a sanitizer malloc() is the sanitizer's, and what killed processes had stays until the batch ends.
 */
#ifndef SIM_HEAP_H
#define SIM_HEAP_H

#include <stdbool.h>

bool sim_heap_of_run(
    bool on); /* what is allocated from now on goes with the run; gives what was before */
void sim_heap_end_run(void); /* all of it is gone */
void sim_heap_upside_down(bool on);

#endif
