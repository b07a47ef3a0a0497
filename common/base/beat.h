/*
 * beat: a thread shows that it moves. Who runs a task names the counter of its thread; every loop that may take a while on users' data
 * (lines, texts, rows, resamples) beats, without knowing who looks. A thread that named none beats for nobody.
 * Who looks takes a counter that stands still for a thread that hangs, so a loop beats only where its number of rounds is bounded.
 */
#ifndef BASE_BEAT_H
#define BASE_BEAT_H

#include <stdint.h>

/* Of the calling thread, until named again; NULL: none. Read with __atomic_load_n. */
void beat_to(uint64_t *counter);
void beat(void);

#endif
