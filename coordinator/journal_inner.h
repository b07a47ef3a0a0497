/* journal_inner: what the files of the journal share. */
#ifndef COORDINATOR_JOURNAL_INNER_H
#define COORDINATOR_JOURNAL_INNER_H

#include "coordinator/journal.h"

struct journal {
    struct db *db;
    char cluster[40];
    uint64_t term;
};

#endif
