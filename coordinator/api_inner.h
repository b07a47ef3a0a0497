/* api_inner: what the files of the API share with each other and with the reactor. */
#ifndef COORDINATOR_API_INNER_H
#define COORDINATOR_API_INNER_H

#include "coordinator/api.h"
#include "coordinator/coordinator.h"

/* api.c */
void api_json(struct api_response *r, int status, cJSON *value); /* takes value */
bool api_query(const struct api_request *q, const char *name, char *out,
               size_t cap); /* percent-decoded; false if absent */
int64_t api_query_int(const struct api_request *q, const char *name, int64_t min, int64_t max,
                      int64_t fallback);
struct coordinator_wait api_wait_of(const struct api_request *q);
void api_wait_answer(struct coordinator *c, const struct coordinator_wait *w,
                     struct api_response *r);
void api_time(cJSON *o, const char *key, uint64_t wall_ms); /* null for 0 */

/* api_job.c */
cJSON *api_job(struct coordinator *c, const struct sched_job *j, bool full);
/* The state as it is shown: PARKED while the disk is full. */
const char *api_state_text(const struct coordinator *c, enum run_state s);
cJSON *api_worker(const struct coordinator *c, const struct roster_worker *w);

/* A job in memory, or as its rows say (while parked always, because memory is ahead of what is
 * committed): then *own is it, to be freed by the caller. NULL: there is no such job, or it cannot
 * be read. */
const struct sched_job *api_job_find(struct coordinator *c, uint64_t id, struct sched_job **own);
uint64_t api_job_version(struct coordinator *c, uint64_t id); /* 0: there is no such job */

/* api_verbs.c: cancel, pause, resume, retry. False: there is no such verb. */
bool api_verb(struct coordinator *c, const struct api_request *q, uint64_t id, const char *verb,
              struct api_response *r);

/* api_submit.c. While c->grouping a good submit is put into c->submit instead of answered;
 * api_submits_finish() commits them and fills an answer each in. */
void api_submits_finish(struct coordinator *c, struct api_response *r);
bool api_is_submit(const struct api_request *q);
void api_submit(struct coordinator *c, const struct api_request *q, struct api_response *r);

/* api_lists.c */
void api_lists(struct coordinator *c, const struct api_request *q, const struct sched_job *j,
               const char *what, struct api_response *r);
void api_artifacts(struct coordinator *c, const struct api_request *q, struct api_response *r);

#endif
