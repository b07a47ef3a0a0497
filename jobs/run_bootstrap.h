/* run_bootstrap: conditions on levels, as `where` and `keep` of a spec say them. */
#ifndef JOBS_RUN_BOOTSTRAP_H
#define JOBS_RUN_BOOTSTRAP_H

#include "jobs/run.h"

struct run_condition {
    int attr;
    enum compare op;
    int level;
};
/* out[n]. key: "where" or "keep", for the message. ERR_INVALID: no such attribute or level. */
int run_conditions_find(const struct attr_where *list, int n, const char *key,
                        const struct schema *s, struct run_condition *out, struct err *e);
bool run_conditions_hold(const struct run_condition *c, int n,
                         const int8_t *level); /* a missing level satisfies nothing */

#endif
