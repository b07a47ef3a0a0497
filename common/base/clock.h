/* clock: monotonic time for decisions, wall time for display only. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_ms(void);            /* monotonic, milliseconds */
uint64_t clock_ns(void);            /* monotonic, nanoseconds */
uint64_t clock_wall_ms(void);       /* since 1970, UTC */
void clock_wall_text(char out[32]); /* now, RFC 3339 with milliseconds, UTC */
void clock_wall_format(uint64_t wall_ms, char out[32]);
void clock_sleep_ms(uint64_t ms);

#endif
