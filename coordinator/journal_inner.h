/* journal_inner: what the files of the journal share. */
#ifndef COORDINATOR_JOURNAL_INNER_H
#define COORDINATOR_JOURNAL_INNER_H

#include "coordinator/journal.h"

struct journal {
    struct db *db;
    char cluster[40];
    uint64_t term;
    bool grouped; /* journal_add_one() has begun a transaction that has not ended, as far as we know */
};

/* journal_session.c: what of a training session must outlive the process, as JSON */
char *journal_session_text(const struct sched_session *ss); /* heap; NULL for NULL */
void journal_session_parse(const cJSON *o, struct sched_session *ss);

#endif
