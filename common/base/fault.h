/*
 * fault: failpoints by name. A daemon that is started with STEER_FAULT=name:n[:action][,...] dies,
 * fails or misbehaves at the n-th time it comes by the named place; without the variable a place
 * costs one branch on a static. They show that a kill between any two effects loses and doubles
 * nothing (docs/faults.md).
 *
 *   name:n             at the n-th hit (1 = the first) the process ends by _exit(137): nobody is
 *                      told and nothing is flushed, as by kill -9
 *   name:n:err=eio     the call fails with a named error: eio or enospc (places of kind CALL)
 *   name:n:sleep=MS    the thread sleeps there
 *   name:n:ACTION:every   the same at each hit from the n-th on ("every" alone: the default action)
 *   name:n:ACTION:every=K   at the n-th hit and each K-th after it
 *
 * A place of kind DEED does something that a broken machine does (flips a bit, hangs) instead of
 * ending; its only other action is sleep.
 *
 * One table is the truth for the enum, the names, `--faults` of the daemons and the tests.
 * Thread-safe. The line `fault NAME hit=N ACTION` is written to stderr before anything happens.
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"

/* X(enum, name, kind, who comes by: c(oordinator), w(orker), b(oth), what the place is) */
#define FAULTS(X)                                                                                  \
    X(JOURNAL_COMMIT_BEFORE, "journal.commit.before", CALL, "c", "rows written, not committed")    \
    X(JOURNAL_COMMIT_AFTER, "journal.commit.after", PLACE, "c", "committed, nobody knows")         \
    X(JOURNAL_SUBMIT_BEFORE, "journal.submit.before", CALL, "c",                                   \
      "a new job's rows, before COMMIT")                                                           \
    X(JOURNAL_KEY_BEFORE, "journal.key.before", CALL, "c", "a submit's key is looked up")            \
    X(JOURNAL_SUBMIT_AFTER, "journal.submit.after", PLACE, "c", "a new job is committed")          \
    X(JOURNAL_TERM_BEFORE, "journal.term.before", CALL, "c", "start: the new term, before COMMIT") \
    X(JOURNAL_TERM_AFTER, "journal.term.after", PLACE, "c", "start: the new term is committed")    \
    X(SUBMIT_REPLY_BEFORE, "submit.reply.before", PLACE, "c", "job accepted, client not answered") \
    X(SUBMIT_REPLY_AFTER, "submit.reply.after", PLACE, "c", "the answer is on its way")            \
    X(WELCOME_BEFORE, "welcome.before", PLACE, "c", "a worker said HELLO")                         \
    X(WELCOME_AFTER, "welcome.after", PLACE, "c", "a worker was welcomed, not yet scheduled")      \
    X(GRANT_BEFORE, "grant.before", PLACE, "c", "a lease is committed, the task not sent")         \
    X(GRANT_AFTER, "grant.after", PLACE, "c", "a task was sent")                                   \
    X(TASK_ACK_BEFORE, "task.ack.before", PLACE, "c", "a result is committed, not acknowledged")   \
    X(TASK_ACK_AFTER, "task.ack.after", PLACE, "c", "a result is acknowledged")                    \
    X(SESSION_OPEN_BEFORE, "session.open.before", PLACE, "c", "an attempt is committed, not sent") \
    X(SESSION_OPEN_AFTER, "session.open.after", PLACE, "c", "one member knows of the attempt")     \
    X(SESSION_ASSIGN_BEFORE, "session.assign.before", PLACE, "c", "an assignment, not sent")       \
    X(SESSION_FREEZE_BEFORE, "session.freeze.before", PLACE, "c", "a freeze is decided, not sent") \
    X(SESSION_FREEZE_AFTER, "session.freeze.after", PLACE, "c", "one host was told to freeze")     \
    X(SESSION_CLOSE_BEFORE, "session.close.before", PLACE, "c", "the end of an attempt, not sent") \
    X(SESSION_ACK_BEFORE, "session.ack.before", PLACE, "c", "a checkpoint is committed, no ack")   \
    X(SESSION_ACK_AFTER, "session.ack.after", PLACE, "c", "a checkpoint is acknowledged")          \
    X(ARTIFACT_PUT_MID, "artifact.put.mid", PLACE, "c", "an upload has come in part")              \
    X(ARTIFACT_PUT_AFTER, "artifact.put.after", PLACE, "c", "an upload is stored, no answer yet")  \
    X(ARTIFACT_GET_MID, "artifact.get.mid", PLACE, "c", "a download is about to go out")           \
    X(BLOB_WRITE_MID, "blob.write.mid", CALL, "b", "a part of a blob is written")                  \
    X(BLOB_FSYNC_BEFORE, "blob.fsync.before", CALL, "b", "a blob is written, not synced")          \
    X(BLOB_RENAME_BEFORE, "blob.rename.before", CALL, "b", "a blob is synced, not yet visible")    \
    X(BLOB_RENAME_AFTER, "blob.rename.after", PLACE, "b", "a blob is visible")                     \
    X(BLOB_DIRSYNC_BEFORE, "blob.dirsync.before", CALL, "b", "a blob's name is not yet synced")    \
    X(FILE_RENAME_BEFORE, "file.rename.before", CALL, "b", "a small file is synced, not visible")  \
    X(FILE_RENAME_AFTER, "file.rename.after", PLACE, "b", "a small file is visible, not synced")   \
    X(HELLO_BEFORE, "hello.before", PLACE, "w", "this worker is about to say HELLO")               \
    X(TASK_START_BEFORE, "task.start.before", PLACE, "w", "a task has come, nothing is done")      \
    X(TASK_DONE_BEFORE, "task.done.before", PLACE, "w", "outputs published, result not sent")      \
    X(TASK_DONE_AFTER, "task.done.after", PLACE, "w", "a result was sent")                         \
    X(ARTIFACT_FETCH_MID, "artifact.fetch.mid", PLACE, "w", "a download has come in part")         \
    X(ARTIFACT_UPLOAD_MID, "artifact.upload.mid", PLACE, "w", "an upload has gone in part")        \
    X(CKPT_CHUNK_BEFORE, "ckpt.chunk.before", CALL, "w", "a checkpoint's chunk, not published")    \
    X(CKPT_CHUNK_AFTER, "ckpt.chunk.after", PLACE, "w", "a checkpoint's chunk is published")       \
    X(CKPT_MANIFEST_BEFORE, "ckpt.manifest.before", CALL, "w", "all chunks, no manifest")          \
    X(CKPT_MANIFEST_AFTER, "ckpt.manifest.after", PLACE, "w", "a manifest nobody has heard of")    \
    X(CKPT_SAVED_BEFORE, "ckpt.saved.before", PLACE, "w", "own chunks published, leader not told") \
    X(CKPT_REPORT_BEFORE, "ckpt.report.before", PLACE, "w", "a checkpoint, coordinator not told")  \
    X(CKPT_REPORT_AFTER, "ckpt.report.after", PLACE, "w", "the coordinator was told")              \
    X(PS_PUSH_BEFORE, "ps.push.before", PLACE, "w", "a gradient is summed, not pushed")            \
    X(PS_PUSH_AFTER, "ps.push.after", PLACE, "w", "a gradient was pushed")                         \
    X(PS_PUSH_DAMAGE, "ps.push.damage", DEED, "w", "flips one bit of a push on its way")           \
    X(PS_PUSH_ACK_BEFORE, "ps.push.ack.before", PLACE, "w", "a push is folded, not acknowledged")  \
    X(PS_ROOTS_BEFORE, "ps.roots.before", PLACE, "w", "own roots complete, leader not told")       \
    X(PS_ROOTS_AFTER, "ps.roots.after", PLACE, "w", "the leader was told of the roots")            \
    X(PS_CLOSE_BEFORE, "ps.close.before", PLACE, "w", "leader: step closed, nobody told")          \
    X(PS_CLOSE_AFTER, "ps.close.after", PLACE, "w", "leader: the first host was told to apply")    \
    X(PS_APPLY_BEFORE, "ps.apply.before", PLACE, "w", "a host was told to apply, has not")         \
    X(PS_APPLY_AFTER, "ps.apply.after", PLACE, "w", "a host has applied, nobody pulled")           \
    X(PS_CHUNKS_BEFORE, "ps.chunks.before", PLACE, "w", "a new version, before it is sent")        \
    X(PS_REPLICA_BEFORE, "ps.replica.before", PLACE, "w", "root gradients, before the copy")       \
    X(PS_REPLICA_AFTER, "ps.replica.after", PLACE, "w", "root gradients were sent to the copy")    \
    X(PS_REPLICA_ACK_BEFORE, "ps.replica.ack.before", PLACE, "w", "the copy has them, no ack")     \
    X(PS_FROZEN_BEFORE, "ps.frozen.before", PLACE, "w", "a host froze, has not said so")           \
    X(PS_STATE_BEFORE, "ps.state.before", PLACE, "w", "a source is asked for chunks")              \
    X(PS_STATE_AFTER, "ps.state.after", PLACE, "w", "a new host has its chunks, not yet open")     \
    X(NET_MESSAGE_DAMAGE, "net.message.damage", DEED, "b", "flips one bit of a message that came") \
    X(WORKER_GRAD_CORRUPT, "worker.grad.corrupt", DEED, "w", "flips one bit of a gradient")        \
    X(WORKER_ROWS_CORRUPT, "worker.rows.corrupt", DEED, "w", "flips one bit of a task's output")   \
    X(WORKER_COMPUTE_HANG, "worker.compute.hang", DEED, "w", "the compute thread never returns")   \
    X(WORKER_COMPUTE_SKIP, "worker.compute.skip", DEED, "w", "a unit's gradient stays zero")       \
    X(WORKER_COMPUTE_SLOW, "worker.compute.slow", PLACE, "w", "a unit is computed (for sleep=MS)")

enum fault {
#define X(id, name, kind, who, what) FAULT_##id,
    FAULTS(X)
#undef X
        FAULTS_COUNT
};

/* Reads STEER_FAULT, once, before threads start. ERR_INVALID: unknown name (with the nearest one),
 * number or action; the program must not start. */
int fault_init(struct err *e);
/* The same from a text, forgetting what was set before; NULL or "": none. */
int fault_set(const char *text, struct err *e);

extern bool fault_armed; /* some fault is set: read by the two below only */
bool fault_strike(enum fault f);
int fault_strike_error(enum fault f, struct err *e);

/* A place. True: it is a DEED that has to be done now. */
static inline bool fault_hit(enum fault f)
{
    return fault_armed && fault_strike(f);
}

/* A place in front of a call that can fail: ERR_IO or ERR_NO_SPACE if it has to, else 0. */
static inline int fault_error(enum fault f, struct err *e)
{
    return fault_armed ? fault_strike_error(f, e) : 0;
}

const char *fault_name(enum fault f);
/* One line each: name, c|w|b, place|call|deed, what it is; separated by tabs. */
void fault_list(FILE *out);

#endif
