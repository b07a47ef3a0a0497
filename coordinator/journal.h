/*
 * journal: what the coordinator may never forget, in one SQLite database; the only caller of
 * store/db. The scheduler's actions of the first group become rows here, all of a batch in one
 * transaction. Rows hold the state as it is when the batch is written, so writing a batch again
 * after a full disk is harmless.
 */
#ifndef COORDINATOR_JOURNAL_H
#define COORDINATOR_JOURNAL_H

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "coordinator/sched.h"
#include "json/json.h"
#include "store/db.h"

struct journal;
/* Opens DIR/coordinator.db, makes the cluster id if there is none, and commits a new term. */
int journal_open(const char *path, struct journal **out, struct err *e);
void journal_close(struct journal *j);
const char *journal_cluster(const struct journal *j); /* 32 hexadecimal digits */
uint64_t journal_term(const struct journal *j);

struct journal_submit {
    const char *key; /* Idempotency-Key, or NULL */
    struct digest body;
    const char *spec;     /* resolved, canonical JSON */
    const char *resolved; /* see expand.h; JSON */
};
/* A new job, its spec and its key: once this returns 0 the job may be acknowledged and given to the
 * scheduler. */
int journal_add(struct journal *j, const struct sched_job *job, const struct journal_submit *submit,
                struct err *e);
/* The same for many that share one wait for the disk: they go into a transaction that
 * journal_add_commit() ends. After an error of either, or of a read in between, none of them is there.
 * Only journal_find_key() and journal_job() may come between. */
int journal_add_one(struct journal *j, const struct sched_job *job,
                    const struct journal_submit *submit, struct err *e);
int journal_add_commit(struct journal *j, struct err *e);
void journal_add_abort(struct journal *j);
/* One transaction. Nothing of it happened unless 0 is returned. */
int journal_commit(struct journal *j, const struct sched_actions *a, uint64_t wall_ms,
                   struct err *e);

/* Reads everything back into a fresh scheduler: the bodies of the jobs that run, of the others only
 * that they are there (all bodies, if the scheduler is to keep them in memory). */
int journal_load(struct journal *j, struct sched *s, struct err *e);
/* The body of a job, for SCHED_LOADED; with retry, of one that failed or was cancelled, as it stood,
 * for SCHED_RETRY. Its state is FAILED, and it has no spec, if this build cannot read that or its rows
 * do not fit together. */
int journal_load_job(struct journal *j, struct sched *s, uint64_t id, bool retry,
                     struct sched_job **out, struct err *e);
/* A job as its rows say, without spec, tasks and sessions: for people. ERR_NOT_FOUND. */
int journal_job(struct journal *j, uint64_t id, struct sched_job **out, struct err *e);
/* The checkpoint of a version, "" if there is none; appends those there are: "40, 80". */
int journal_checkpoint(struct journal *j, uint64_t job, int stage, const char *phase,
                       uint64_t version, struct digest *manifest, struct buf *there, struct err *e);

/* 0 and *job = 0: the key is new. */
int journal_find_key(struct journal *j, const char *key, struct digest *body, uint64_t *job,
                     struct err *e);
/* {"outputs", "metrics", "class"} of a stage with this key, or NULL; the numerics class its job ran on. */
int journal_find_outputs(struct journal *j, const char *key, cJSON **out, struct err *e);

/* For the API. Each appends JSON text: the members of a list, without brackets. */
int journal_spec(struct journal *j, uint64_t job, struct buf *out,
                 struct err *e); /* resolved spec, an object */
int journal_tasks(struct journal *j, uint64_t job, uint64_t after, int limit, struct buf *out,
                  uint64_t *next, struct err *e);
int journal_events(struct journal *j, uint64_t job, uint64_t after, int limit, struct buf *out,
                   uint64_t *next, struct err *e);
int journal_series(struct journal *j, uint64_t job, const char *name, int points, struct buf *out,
                   struct err *e); /* at most `points` a series; name NULL: all */
int journal_artifacts(struct journal *j, int limit, struct buf *out,
                      struct err *e); /* newest first; "job TAB stage TAB name TAB digest" lines */

#endif
