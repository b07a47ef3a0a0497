/*
 * session_cluster: whole training sessions in one process, over real sockets: compute threads x
 * parameter hosts, whose result must be that of a straight loop. Used by the tests of sessions and
 * of handovers; every function asserts.
 */
#ifndef SESSION_CLUSTER_H
#define SESSION_CLUSTER_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>

#include <cmocka.h>

#include "ps/ckpt.h"
#include "worker/ps_host.h"

#define UNITS 7
#define STEPS 12
#define CHUNK 64
#define HOSTS_MAX 6
#define THREADS_MAX 7
#define STORE_MAX 4096

extern struct layout layout;

struct place { /* a process that hosts, were it not a thread here */
    struct cluster *c;
    int index;
};
struct thread {
    struct cluster *c;
    int index;
    uint64_t until;
    struct region *lent[TREE_COVER_MAX]; /* its gradients */
    pthread_t id;
};
struct cluster {
    pthread_mutex_t lock;
    struct {
        struct digest digest;
        void *bytes;
        size_t len;
    } store[STORE_MAX]; /* what was published */
    int stored;
    struct place place[HOSTS_MAX];
    struct ps_host *host[HOSTS_MAX]; /* NULL: lost */
    char endpoint[HOSTS_MAX][WIRE_TEXT_MAX];
    int places;
    int order[HOSTS_MAX], hosts; /* of this attempt: the place of each host */
    bool replicate;
    int threads;
    struct thread thread[THREADS_MAX];
    uint64_t attempt;
    atomic_uint_fast64_t version; /* the newest that a thread has pulled */
    struct ps_report frozen[HOSTS_MAX];
    atomic_int open_sessions;
    struct digest last_manifest, early_manifest; /* of the last version; of version 5 */
    struct host_figures figures;
    atomic_int failed_code;
    char failed_text[512];
    pthread_cond_t changed;
    bool with_duplicates, with_overlap;
    bool no_regions;      /* everything travels as bytes */
    uint64_t poison_step; /* a thread pushes a NaN at this step */
    atomic_bool halt;
    atomic_int damaged; /* threads whose gradient came wrong again and again */
    atomic_int errors;
};

void cluster_start(struct cluster *c, int hosts, int threads);
void cluster_stop(struct cluster *c);
int cluster_add(struct cluster *c);              /* one more place, not in use; its number */
void cluster_lose(struct cluster *c, int place); /* its memory is gone */
/* The i-th host's part of this attempt, from the start or from a checkpoint. */
void cluster_open(struct cluster *c, int i, const struct digest *from);
/* All hosts that are left (edge: the leader) are told to freeze; returns when all have said so. */
void cluster_freeze(struct cluster *c, bool edge);
/* The next attempt, on these places, from the memory of the frozen hosts. */
int cluster_reopen(struct cluster *c, const int *order, int hosts, struct err *e);
void cluster_threads_start(struct cluster *c, uint64_t until);
void cluster_threads_join(struct cluster *c, bool halt); /* halt: without waiting for `until` */
void cluster_run(struct cluster *c, uint64_t until);
void cluster_version_wait(struct cluster *c, uint64_t version);
void cluster_manifest_wait(struct cluster *c, const struct digest *which);
void cluster_check(struct cluster *c); /* parameters and loss of the last manifest */
int cluster_main(const struct CMUnitTest *tests, size_t n);

#endif
