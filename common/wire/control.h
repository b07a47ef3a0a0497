/*
 * control: every message between coordinator and worker, as plain nouns; packed and
 * unpacked with limits (protobuf-c, proto/control.proto). Frames stay <= 64 KiB. Strings are
 * NUL-terminated inside, UTF-8, bounded by the arrays. Each message carries protocol version,
 * cluster id and coordinator term; stale ones are refused (ERR_STALE) and counted. Who may say what
 * in which state: proto/README.md.
 *
 * What is said of tasks (TASK, TASK_DONE, TASK_FAILED, TASK_CANCEL, ACK) may be said of many in one
 * frame: a chain by `next`, made by control_join(). A chain is packed, unpacked and freed by its
 * head; each link has the head's type, cluster and term, so it reads like a message of its own.
 */
#ifndef WIRE_CONTROL_H
#define WIRE_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/digest.h"
#include "base/err.h"

#define WIRE_PROTO 4u
#define WIRE_FRAME_MAX (64u << 10)
#define WIRE_LEASES_MAX 256 /* that a worker holds: as many as it may have threads */
#define WIRE_BATCH_MAX 256  /* tasks that one frame speaks of */
#define WIRE_HOSTS_MAX 64
#define WIRE_SLOTS_MAX 256
#define WIRE_OPINIONS_MAX 8
#define WIRE_MISSING_MAX 32
#define WIRE_SHARES_MAX 64
#define WIRE_ID_MAX 40
#define WIRE_TEXT_MAX 256
#define WIRE_RESULT_MAX (48u << 10)

enum control_type {
    /* worker -> coordinator */
    CONTROL_HELLO = 1, /* first, and again after each reconnect or WELCOME of a new term */
    CONTROL_HEARTBEAT, /* the coordinator sends it back: a sign of life */
    CONTROL_TASK_DONE,
    CONTROL_TASK_FAILED,
    CONTROL_SESSION_STATUS,     /* by the step leader, a few times a second at most; by other hosts
                                   while a step stays open (partial) */
    CONTROL_SESSION_CHECKPOINT, /* by the step leader: manifest published */
    CONTROL_SESSION_DONE,       /* by the step leader: last version, its manifest published */
    CONTROL_SESSION_FAILED,
    CONTROL_BYE,             /* draining finished, or a clean stop */
    CONTROL_LOG,             /* lines for the job's log */
    CONTROL_SESSION_FROZEN,  /* by each host, after FREEZE: at which version it stands */
    CONTROL_SESSION_OPINION, /* by a host: a node needs another worker's opinion, or has it now
                                (settled); repeated until then */
    /* coordinator -> worker */
    CONTROL_WELCOME = 32,
    CONTROL_REJECT, /* wrong protocol, wrong cluster, quarantined: code and text; the worker says it
                       and exits */
    CONTROL_TASK,   /* run this, under this lease */
    CONTROL_TASK_CANCEL,
    CONTROL_ACK, /* TASK_DONE, TASK_FAILED (task, epoch) or SESSION_CHECKPOINT, _DONE, _FAILED
                  * (session, attempt, version) is committed or was stale: stop repeating it. For a
                  * session, task is 0 */
    CONTROL_SESSION_OPEN, /* sets up (or replaces, with a higher attempt) a training session; sent
                             to hosts and compute workers */
    CONTROL_ASSIGN,       /* numbered map of leaf spans to workers */
    CONTROL_SESSION_CLOSE,
    CONTROL_DRAIN,          /* finish or hand back, then BYE */
    CONTROL_SESSION_FREEZE, /* to hosts: change nothing any more, keep everything, say FROZEN. With
                               `edge` (to the step leader): after the step that is open */
    CONTROL_SESSION_WAIVE   /* to hosts: there is nobody to ask about this node, go on without */
};

enum { ROLE_COMPUTE = 1, ROLE_PARAMS = 2 };

struct control_lease {
    uint64_t task;
    uint64_t epoch;
    uint64_t done, total;
    uint64_t moved; /* changes while the thread that runs it moves */
};

struct control_host {
    char worker[WIRE_ID_MAX];
    char endpoint[WIRE_TEXT_MAX]; /* tcp://... of its data ROUTER */
    uint32_t chunk_begin, chunk_end;
};

struct control_slot {
    char worker[WIRE_ID_MAX];
    uint32_t leaf_begin, leaf_end; /* units of every step; a worker divides its span among its
                                      threads by aligned subtrees */
    uint64_t only_step; /* 1 + the only step that it is for (a second opinion, or work of a
                           straggler); one thread computes it whole. 0 = every step */
    uint32_t again;     /* with only_step: the same span once more, if higher than before */
};

/* A host of the attempt before, and what it holds: its own chunks, and the copy that it keeps of
 * its neighbour's ([x, x) = none). */
struct control_source {
    char worker[WIRE_ID_MAX];
    char endpoint[WIRE_TEXT_MAX];
    uint32_t chunk_begin, chunk_end, copy_begin, copy_end;
};

struct control_opinion {
    uint64_t who;  /* control_who() of the worker's id */
    uint64_t hash; /* of the node's value */
};

struct control_span {
    uint32_t begin, end;
};

struct control_share {
    uint64_t who;
    uint32_t units, ms; /* its last one was folded so long after the step was opened */
};

enum { ROOTS_OWN = 1, ROOTS_COPY = 2 };

/* Of a SESSION_FAILED: no checkpoint has it, so that the acknowledgement of one never ends the
 * repetition of a failure; exact as a double. */
#define CONTROL_VERSION_FAILED (1ull << 52)

struct control {
    enum control_type type;
    uint32_t proto;
    char cluster[WIRE_ID_MAX];
    uint64_t term;
    /* Which fields below are meant depends on type. Unused ones are zero. */
    char worker[WIRE_ID_MAX];     /* HELLO: stable id of the state directory */
    uint64_t boot;                /* HELLO: nonce of this process */
    char name[WIRE_TEXT_MAX];     /* HELLO: host name, for people */
    char endpoint[WIRE_TEXT_MAX]; /* HELLO: data endpoint */
    uint32_t roles, threads;
    uint64_t memory_bytes;
    char build[WIRE_TEXT_MAX], fingerprint[WIRE_TEXT_MAX], blas[WIRE_TEXT_MAX];
    char fingerprint_bf16[WIRE_TEXT_MAX]; /* HELLO: "" = takes no job with numerics: bf16 */
    uint64_t progress;                    /* HEARTBEAT: bumped by compute threads */
    bool draining;                        /* HEARTBEAT, HELLO */
    uint32_t leases_n;                    /* HELLO, HEARTBEAT: what it holds */
    struct control_lease *lease; /* [WIRE_LEASES_MAX]; this and the other lists are there for the
                                    types that carry them, else NULL */
    /* WELCOME */
    uint32_t heartbeat_ms, lease_ms;
    char http[WIRE_TEXT_MAX]; /* base URL for artefacts */
    /* TASK, TASK_DONE, TASK_FAILED, TASK_CANCEL, ACK */
    uint64_t job, task, epoch, attempt; /* job: also of SESSION_* and LOG */
    char task_kind[WIRE_ID_MAX];
    uint32_t index;
    uint64_t begin, end;
    struct digest context; /* TASK, SESSION_OPEN: the context document */
    char *result; /* TASK_DONE: JSON {"outputs":{},"metrics":{}}, heap, <= 48 KiB; SESSION_*: JSON
                     of figures */
    uint64_t busy_us; /* TASK_DONE: of a thread */
    int32_t code;     /* failures, REJECT: enum err_code */
    char text[1024];  /* failures, REJECT, CLOSE: why; LOG: lines; WELCOME: what its operator should
                        know, "" = nothing */
    /* SESSION_* and ASSIGN */
    uint64_t session, session_attempt; /* HELLO too: the session it is in, 0 = none */
    uint64_t seed, steps, params,
        version; /* version: OPEN = start from, STATUS = reached, CHECKPOINT = of the manifest,
                    FAILED = CONTROL_VERSION_FAILED */
    uint32_t global_batch, units, chunk_elems, checkpoint_every;
    int32_t fold;
    struct digest manifest; /* OPEN: checkpoint to start from ("" = the initial model); CHECKPOINT,
                               DONE: published */
    struct digest examples, init; /* OPEN: training examples; initial model directory */
    uint32_t hosts_n;
    struct control_host *host; /* [WIRE_HOSTS_MAX] */
    uint64_t assignment;
    uint32_t slots_n;
    struct control_slot *slot;  /* [WIRE_SLOTS_MAX] */
    double loss, grad_norm, lr; /* STATUS: of the last closed step; loss is the weighted mean */
    double tokens_per_s;
    uint64_t tokens; /* STATUS: rows processed since version 0 of this attempt's lineage */
    /* STATUS: the step that is open at the sender. partial: the sender is not the step leader, and
     * what is above is not meant. */
    bool partial;
    uint64_t open_ms;   /* since when it is open */
    uint32_t missing_n; /* units that some chunk still lacks */
    struct control_span missing[WIRE_MISSING_MAX];
    uint64_t
        audited; /* leader: nodes about which two workers agreed, since the attempt was opened */
    uint64_t damaged;  /* pushes that came with a wrong hash, since the attempt was opened there */
    uint32_t shares_n; /* leader: of the last closed step */
    struct control_share *share; /* [WIRE_SHARES_MAX] */
    uint64_t duplicates, stale;  /* STATUS: pushes that were there already, or belonged to a closed
                                   step; over all hosts, since the attempt was opened */
    /* Handover. FREEZE: edge. FROZEN: version, figures and the tail's, roots (bits: for which of
     * its two ranges the root gradients of step `version` are complete and kept), close_*: of the
     * step before `version`, all zero if there is none. OPEN: from_attempt (0 = start from
     * `manifest` or `init`; else from the memory of `source`, rolled forward to `version` with
     * close_* where a source stands one version behind), figures at `version`, replicate: every
     * host keeps a copy of the chunks of the host before it in the list (cyclic). */
    uint64_t from_attempt;
    bool edge, replicate;
    uint32_t roots;
    uint64_t close_step;
    float scale, rate;
    double tail_loss;
    uint64_t tail_steps;
    uint32_t sources_n;
    struct control_source *source; /* [WIRE_HOSTS_MAX] */
    double audit; /* OPEN: share of the nodes that two workers must agree about, 0..1; below 0:
                     several numerics classes, so that equal keys need not have equal values */
    /* OPINION, WAIVE: node (level, node) of step `step`, chunk `chunk` */
    uint64_t step;
    uint32_t level, node, chunk;
    uint32_t opinions_n;
    struct control_opinion opinion[WIRE_OPINIONS_MAX];
    bool settled; /* two different workers agree */
    bool tainted; /* ... and what had been added up was another value */
    uint64_t odd; /* control_who() of the worker that was outvoted; 0 = nobody */
    /* The chain. */
    struct control *next, *last; /* last: of the head */
    uint32_t links_n;            /* of the head: beside itself */
    size_t links_bytes;          /* of the head: what all may need on the wire, at most */
};

struct control *control_new(enum control_type type);   /* zeroed, proto set */
struct control *control_copy(const struct control *c); /* of this link only */
void control_free(struct control *c);                  /* and of what is behind it */
/* Before packing: texts for people that were cut by bytes, which the other side would refuse whole, and of what is behind. */
void control_mend(struct control *c);
/* Puts `more`, taken, behind what head has. False, and nothing happened: it is of another type or
 * not said of a task, or the frame is full. */
bool control_join(struct control *head, struct control *more);
/* Takes what is behind c off it; NULL: nothing. */
struct control *control_split(struct control *c);
void control_pack(const struct control *c, struct buf *out); /* appends; CHECKs WIRE_FRAME_MAX */
/* ERR_INVALID, ERR_LIMIT: a bad frame. ERR_CORRUPT: changed on its way (wire/seal.h).
 * ERR_UNSUPPORTED: another WIRE_PROTO (*out is then given with proto, cluster and term only, so that
 * the refusal can name it). Which fields a type carries: the table in control.c; all others are
 * zero. */
int control_unpack(const void *frame, size_t len, struct control **out, struct err *e);
uint64_t control_who(const char *worker); /* 64-bit name of a worker on the data plane, never 0 */
const char *control_type_name(enum control_type type); /* "hello"; "unknown" */
bool control_from_worker(
    enum control_type type); /* says a worker this? HEARTBEAT is said by both */
bool control_from_coordinator(enum control_type type);

#endif
