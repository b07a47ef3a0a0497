/*
 * cover: can a training session go on from what its hosts hold in memory? Each host holds its own
 * range of chunks and, where replication is on, a copy of the range of the host before it in the
 * list (cyclic). Hosts differ by at most one version: one that is behind has kept the root
 * gradients of the step between, and whoever is ahead knows how that step was closed. Pure.
 */
#ifndef COORDINATOR_COVER_H
#define COORDINATOR_COVER_H

#include <stdbool.h>
#include <stdint.h>

enum { COVER_OWN = 1, COVER_COPY = 2 }; /* the two ranges of a host; as ROOTS_* on the wire */

struct cover_report {
    bool here;        /* it has said where it stands, and its process lives */
    uint64_t version; /* of both ranges */
    unsigned roots;   /* COVER_*: it has all root gradients of step `version` for the range */
    bool closed;      /* it knows how step `version` - 1 was closed */
    uint32_t begin, end, copy_begin, copy_end;
    unsigned usable; /* out: COVER_*: the range is held at the version, or can be brought there */
};

struct cover {
    uint64_t version; /* the highest that anybody has */
    int ahead;        /* a report at that version; -1 if nobody is there (see at_least) */
    bool behind;      /* somebody who is needed is one version behind */
    uint32_t missing; /* the first chunk that nobody holds; `chunks` if there is none */
};

/* at_least: the version that an earlier plan from the same memory has settled on, whose close is
 * known; 0 if there was none. True: every chunk is held at out->version. */
bool cover_find(struct cover_report *report, int n, uint32_t chunks, uint64_t at_least,
                struct cover *out);

/* The copy that host i of n keeps: the range of the host before it; false with fewer than two. */
bool cover_copy_of(int i, int n, int *before);

#endif
