/*
 * sim_http: clients of the coordinator's API. Each submits one job under its own Idempotency-Key and
 * repeats the request until it is answered, as steerctl does; some cancel their job later. Requests
 * and answers get lost. The real api_handle() answers.
 */
#ifndef SIM_HTTP_H
#define SIM_HTTP_H

#include <stdbool.h>
#include <stdint.h>

struct coordinator;
struct sim_results;

enum sim_http_whim {
    SIM_HTTP_WAITS,
    SIM_HTTP_CANCELS,
    SIM_HTTP_RETRIES, /* cancels, and tries it again */
    SIM_HTTP_PAUSES   /* and resumes */
};
void sim_http_client(int kind, uint64_t at_us, enum sim_http_whim whim, uint32_t loss);
void sim_http_ask(const char *path); /* POST without a body, once, answer ignored */
void sim_http_heal(void);            /* nothing is lost any more */
void sim_http_reset(void);           /* the coordinator is gone: what was asked is not answered */
void sim_http_reset_all(void);
bool sim_http_all_over(struct coordinator *c); /* every client was answered, every job is over */
const char *sim_http_why(struct coordinator *c);
/* Checks how each job ended. expected: outputs by kind and numerics class. */
void sim_http_outcomes(struct coordinator *c, char *(*expected)[2]);
char *sim_http_outputs(struct coordinator *c,
                       int client); /* gives text; NULL: it did not succeed */
void sim_http_counts(struct sim_results *out);

#endif
