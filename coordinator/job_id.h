/* job_id: ids of jobs for people: "job_" + 13 Crockford base32 characters of a uint64, most
 * significant first, so that they sort by time. */
#ifndef COORDINATOR_JOB_ID_H
#define COORDINATOR_JOB_ID_H

#include <stdbool.h>
#include <stdint.h>

#define JOB_ID_TEXT 18 /* with NUL */

void job_id_format(uint64_t id, char out[JOB_ID_TEXT]);
bool job_id_parse(
    const char *text,
    uint64_t *id); /* upper case, and i, l, o for 1, 1, 0, are accepted, as Crockford says */

#endif
