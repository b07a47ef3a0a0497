/*
 * sched: the scheduler's deciding core. Jobs are made of stages, stages of phases, phases of leased
 * tasks or of one training session. sched_step(state, event, actions) is pure: time and outcomes
 * arrive in the event, effects leave as a list that the shell first commits (journal.h) and then
 * performs, in order.
 *
 * Rules it keeps, whatever arrives in whatever order:
 *   - a task has at most one live lease, and beside it at most one shadow: a second lease, given
 *     when the first is slow or hangs, at another worker and under a higher epoch. Each grant has a
 *     new epoch; the first result under a live one counts, all others are stale;
 *   - a task is done once, a phase when all its tasks are, a stage when its planner says so;
 *   - infrastructure loss and task faults have separate budgets; a task under which `crash_limit`
 *     different workers died is quarantined, and its job fails with its name;
 *   - a worker is in at most one training session, and runs no tasks meanwhile;
 *   - one job runs on one numerics class (workers of equal fingerprint), bound when it first runs;
 *     one that trains with bfloat16 on one of those that such workers have beside.
 *
 * Every job has an entry of a few bytes (struct sched_entry). Its body (spec, stages, tasks) is in
 * memory only while it is *admitted*: jobs wait in a queue by age and are admitted while fewer than
 * active_min are, or, up to active_max, while a worker has nothing to do. Jobs that wait, are paused
 * or are over live in the journal: sched asks for a body by SCHED_ASK_LOAD and gets it by
 * SCHED_LOADED. So no event costs more because many jobs wait.
 */
#ifndef COORDINATOR_SCHED_H
#define COORDINATOR_SCHED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"
#include "coordinator/expand.h"
#include "coordinator/task_set.h"
#include "jobs/kind.h"
#include "jobs/spec.h"
#include "json/json.h"
#include "types/tree.h"

#define SCHED_WORKER_MAX 40
#define SCHED_TEXT_MAX 256
#define SCHED_HOSTS_MAX 64
#define SCHED_SLOTS_MAX 256
#define SCHED_CRASHES_MAX 8
#define SCHED_TASKS_MAX 200000
#define SCHED_WORKERS_MAX 1024
#define SCHED_ANY_CLASS "any"
#define SCHED_CKPTS_MAX 8
#define SCHED_VERSION_UNKNOWN UINT64_MAX
#define SCHED_LEASES_MAX 64 /* of a worker, with those that wait there; or one a thread */

#define RUN_STATES(X)                                                                              \
    X(RUN_PENDING, "PENDING")                                                                      \
    X(RUN_STARTING, "STARTING")                                                                    \
    X(RUN_RUNNING, "RUNNING")                                                                      \
    X(RUN_RECOVERING, "RECOVERING")                                                                \
    X(RUN_PAUSED, "PAUSED") /* of jobs only */                                                     \
    X(RUN_SUCCEEDED, "SUCCEEDED")                                                                  \
    X(RUN_FAILED, "FAILED")                                                                        \
    X(RUN_CANCELLED, "CANCELLED")                                                                  \
    X(RUN_SKIPPED, "SKIPPED")
/* Of jobs and of stages; the API also shows PARKED while the disk is full. */
enum run_state {
#define X(name, text) name,
    RUN_STATES(X)
#undef X
        RUN_STATES_COUNT
};
const char *run_state_name(enum run_state s);
int run_state_parse(const char *text); /* -1 if none */
static inline bool run_state_is_final(enum run_state s)
{
    return s >= RUN_SUCCEEDED;
}

#define BIT(n) (1u << (n))
#define TASK_STATES(X)                                                                             \
    X(TASK_PENDING, BIT(TASK_LEASED) | BIT(TASK_CANCELLED))                                        \
    X(TASK_LEASED, BIT(TASK_PENDING) | BIT(TASK_DONE) | BIT(TASK_RETRY_WAIT) |                     \
                       BIT(TASK_QUARANTINED) | BIT(TASK_CANCELLED))                                \
    X(TASK_RETRY_WAIT, BIT(TASK_PENDING) | BIT(TASK_CANCELLED))                                    \
    X(TASK_DONE, BIT(TASK_PENDING)) /* its worker is in quarantine */                              \
    X(TASK_QUARANTINED, 0)                                                                         \
    X(TASK_CANCELLED, 0)
enum task_state {
#define X(name, next) name,
    TASK_STATES(X)
#undef X
        TASK_STATES_COUNT
};
const char *task_state_name(enum task_state s); /* "PENDING" */
int task_state_parse(const char *text);

struct sched_failure {
    char class_name[16]; /* user | infrastructure | data | internal; "" = none */
    int code;            /* enum err_code */
    char message[768];
    char stage[EXPAND_NAME_MAX];
    uint64_t task;
    uint32_t attempt;
    char worker[SCHED_WORKER_MAX];
};

/* A second lease of a task. */
struct sched_shadow {
    uint64_t epoch; /* 0 = there is none */
    char worker[SCHED_WORKER_MAX];
    uint64_t lease_until_ms, leased_ms, done, total, moved, moved_ms;
};

struct sched_voice {
    uint64_t who, hash; /* who: control_who() of a worker */
};

#define SCHED_VOICES_MAX 4
struct sched_task {
    uint64_t id;
    uint32_t index;
    uint64_t begin, end;
    enum task_state state;
    uint64_t granted;              /* the highest epoch ever */
    uint64_t epoch;                /* of the lease, or the last one; also its attempt number */
    char worker[SCHED_WORKER_MAX]; /* the same */
    uint64_t lease_until_ms, leased_ms,
        retry_at_ms; /* scheduler's clock; not kept over a restart */
    uint32_t faults, losses;
    uint32_t full; /* times that a disk was full; only for the back-off, not kept over a restart */
    uint32_t missing; /* losses in which something that it reads was not there; the same */
    int crashes;
    char crashed[SCHED_CRASHES_MAX][SCHED_WORKER_MAX];
    uint64_t done, total;     /* of the running attempt, in the phase's unit */
    uint64_t moved, moved_ms; /* when the thread that runs it was last seen to move */
    struct sched_shadow shadow;
    /* The last second lease that failed: control_who() of its worker, how many did, and when the
     * next one may be given. Not kept over a restart. */
    uint64_t shadow_failed, shadow_retry_ms;
    uint32_t shadow_fails;
    uint32_t voices_n; /* of an audited task: results that have come, not yet two that agree; not
                          kept over a restart */
    struct sched_voice voice[SCHED_VOICES_MAX];
    char speaker[SCHED_VOICES_MAX][SCHED_WORKER_MAX]; /* of each: it may have left by then */
    cJSON *result;                                    /* {"outputs", "metrics"} when TASK_DONE */
    int code;                                         /* of the last failure */
    char text[SCHED_TEXT_MAX];
};

static inline uint64_t sched_task_rows(const struct sched_task *t)
{
    return t->end > t->begin ? t->end - t->begin : 1;
}

struct sched_host {
    char worker[SCHED_WORKER_MAX];
    uint32_t chunk_begin, chunk_end;
    uint64_t damaged; /* pushes of this attempt, as last heard, so that they are counted once */
    bool lost;        /* its process is gone, and with it what it held */
};

/* Where a host stood when it froze. */
struct sched_frozen {
    uint64_t version;
    uint32_t roots;      /* COVER_*: root gradients of step `version` are complete and kept */
    uint64_t close_step; /* how the step before `version` was closed; all zero: it does not know */
    double scale, rate;
    double loss, grad_norm, lr, tail_loss;
    uint64_t tokens, tail_steps;
};

/* The memory of a host of an attempt that is over or freezes. */
struct sched_source {
    char worker[SCHED_WORKER_MAX];
    uint32_t chunk_begin, chunk_end, copy_begin, copy_end;
    bool answered, gone;
    struct sched_frozen frozen;
};

/* Why the hosts of a session change. */
enum sched_change {
    CHANGE_NONE,
    CHANGE_LOSS,   /* a host was lost */
    CHANGE_SPREAD, /* a host joins or leaves; nobody is lost */
    CHANGE_AGAIN   /* the open step has to be computed again */
};

struct sched_ckpt {
    struct digest manifest;
    uint64_t version;
};
struct sched_slot {
    char worker[SCHED_WORKER_MAX];
    uint32_t leaf_begin, leaf_end;
    uint64_t only_step; /* 1 + the only step that it is for; 0 = every step */
    uint32_t again;     /* with only_step: the same once more, if higher than before */
};

#define SCHED_MISSING_MAX 32
#define SCHED_SHARES_MAX 64
/* What hosts say about the step that is open. */
struct sched_open {
    uint64_t version;               /* it is the one after this version */
    uint64_t since_ms;              /* when it was opened */
    uint64_t said_ms, overtaken_ms; /* when a host last missed something; when we last did
                                       something about it */
    int missing_n;
    struct tree_span missing[SCHED_MISSING_MAX]; /* units that a host lacks */
    double usual_ms;                             /* what a step takes, smoothed; 0 = not known */
};
#define SCHED_QUESTIONS_MAX 64
/* A node of an open step that another worker is asked about. */
struct sched_question {
    uint64_t step;
    struct tree_node node;
    uint64_t since_ms, said_ms;   /* when a host asked first, and last */
    uint64_t asked_ms;            /* when somebody was asked last; 0 = nobody yet */
    uint32_t asks, agains;        /* agains: of those who had spoken already */
    char asked[SCHED_WORKER_MAX]; /* the last one */
    bool disputed;
};
struct sched_share {
    uint64_t who; /* control_who() of a worker */
    uint32_t units, ms;
};

/* A worker whose gradient of this step was not finite. Others compute the step next: what is finite with them was wrong with
 * it; if it is not finite with them either the data is to blame. */
struct sched_doubt {
    char worker[SCHED_WORKER_MAX]; /* "": nobody */
    uint64_t step;
    bool shared; /* another worker's was not finite either */
};

struct sched_session {
    uint64_t id, attempt;
    struct sched_doubt doubt;
    bool open;
    bool adopting; /* after a restart: the attempt may still run; its hosts are awaited until
                      adopt_until_ms */
    uint64_t adopt_until_ms;
    int hosts_n, slots_n;
    struct sched_host host[SCHED_HOSTS_MAX];
    struct sched_slot slot[SCHED_SLOTS_MAX];
    uint64_t assignment;
    struct digest manifest; /* last checkpoint; "" = the initial model */
    uint64_t manifest_version;
    int ckpts_n; /* the last checkpoints, rising; the last one is `manifest` */
    struct sched_ckpt ckpt[SCHED_CKPTS_MAX];
    /* Change of hosts (sched_handover.c). While `change` is not CHANGE_NONE hosts are being frozen
     * and `source` collects their answers; while from_attempt is not 0 the attempt begins from the
     * memory of `source`, which is kept until `stepped`. */
    bool replicated; /* every host keeps a copy of the chunks of the one before it */
    bool stepped;    /* the attempt has closed a step, as far as we heard */
    enum sched_change change;
    bool edge; /* the leader was asked to freeze after the open step */
    uint64_t change_ms, asked_ms, opened_ms, spread_ms;
    uint64_t opened_version; /* reached at opened_ms; after a restart or a gap not known, until the
                                hosts say it, which moves opened_ms */
    uint64_t from_attempt;
    int sources_n;
    struct sched_source source[SCHED_HOSTS_MAX];
    struct sched_frozen start;       /* at start_version, when it begins from memory */
    uint64_t version, start_version; /* reached, as last heard; where the attempt began */
    uint64_t tokens;
    double loss, grad_norm, lr, tokens_per_s;
    struct sched_open step;
    uint64_t paced_ms; /* when speeds were last looked at */
    int questions_n;
    struct sched_question question[SCHED_QUESTIONS_MAX];
    uint64_t audited;           /* of this attempt, as last heard */
    uint64_t duplicates, stale; /* of this attempt, as last heard, so that they are counted once */
    uint32_t faults, losses;
    uint32_t full;   /* the same as of a task, since the last checkpoint */
    uint32_t barren; /* attempts in a row in which no step closed */
    uint64_t retry_at_ms, progress_ms, resent_ms,
        step_ms;              /* step_ms: of the slowest interval between reports of this attempt */
    char why[SCHED_TEXT_MAX]; /* the last attempt ended because */
};

struct sched_job;
struct sched_stage {
    struct sched_job *job;
    int index;
    char name[EXPAND_NAME_MAX];
    enum job_kind kind;
    enum run_state state;
    char reason[64];
    bool reused, reuse_asked, reuse_missed;
    struct digest reuse_key;
    cJSON *inputs;            /* {key: [digest]} once started */
    cJSON *done;              /* {phase: {"outputs", "parts", "metrics"}} */
    cJSON *outputs, *metrics; /* when succeeded */
    bool phase_open;
    struct phase phase;
    uint32_t phases_done;
    double cost_done, cost_total; /* of all phases, as far as the planner can tell now */
    struct digest context;
    bool context_kept; /* the store was given it; not known of a phase that was restored */
    struct sched_task *task;
    uint32_t tasks_n, tasks_done;
    uint64_t rows_done;      /* of tasks that are DONE; a task without rows counts as one */
    struct task_set pending; /* tasks that are PENDING */
    struct task_set busy;    /* that are LEASED or RETRY_WAIT */
    double task_ms;          /* what a task of this phase takes, smoothed; 0 = not known */
    double busy_us;          /* and how long a thread is busy with it; 0 = not known */
    struct sched_session *session;
    uint64_t started_wall_ms, finished_wall_ms, phase_started_ms, phase_started_done;
};

struct sched_job {
    uint64_t id;
    char name[SPEC_NAME_MAX], project[SPEC_NAME_MAX];
    enum job_kind kind;
    enum run_state state;
    char reason[64];
    struct spec *spec;           /* NULL once the job is over */
    struct expansion *expansion; /* the same */
    bool reuse, finish_independent;
    int max_parallel;
    uint64_t seed;
    int stages_n;
    struct sched_stage *stage;
    char class_id
        [SCHED_TEXT_MAX]; /* numerics class; "" until bound, SCHED_ANY_CLASS: all may work */
    bool class_bound;
    bool bf16; /* some of it trains with products of bfloat16: its class is one of those */
    struct sched_failure failure;
    uint64_t created_wall_ms, started_wall_ms, finished_wall_ms;
    uint64_t paused_wall_ms;   /* 0 = is not */
    bool admitted;             /* runs, or may */
    uint64_t version;          /* rises with every visible change */
    struct digest spec_digest; /* of the resolved spec, canonical */
};

/* A worker whose results were outvoted. Kept over a restart. */
struct sched_quarantine {
    char worker[SCHED_WORKER_MAX];
    char reason[SCHED_TEXT_MAX];
    uint64_t since_wall_ms;
};

struct sched_worker {
    char id[SCHED_WORKER_MAX];
    char class_id[SCHED_TEXT_MAX];
    char class_bf16[SCHED_TEXT_MAX]; /* of jobs that train with bfloat16; "" = takes none */
    uint32_t roles, threads;
    bool suspect, draining;
    bool other_class;  /* it was told that a job runs on another numerics class */
    bool quarantined;  /* it stays, but gets nothing to do */
    uint64_t moved_ms; /* when all its busy compute threads were last seen to move; 0 = never
                               told */
    bool hung;         /* they have not for hang_ms: it gets nothing to do */
    double unit_ms;    /* that a unit takes one of its threads, smoothed */
    double pace;       /* times slower than the fastest, as slots are cut; 0 = 1 */
    uint32_t samples;
    uint64_t paced_ms, retry_ms;
    uint32_t running;       /* tasks leased to it, also those that wait there for a thread */
    struct sched_stage *in; /* whose session it is a member of */
    /* Sessions that it could not take part in (its disk is full, it lacks memory) since the last
     * checkpoint of one in which it did (who failed as a host: in which it hosted), and until when
     * it is taken in only if nobody else can do its part. */
    uint32_t sits_out_n;
    bool failed_as_host;
    uint64_t sits_out_ms;
    uint32_t hosts_after; /* where it did so as a host: checkpoints that others write before it hosts
                             again, unless nobody else can */
    uint64_t kept_job;      /* it gets nothing younger than that job's stage; 0 = gets all */
    int kept_stage;
};

/* Counted since this process started; a restart begins at zero. Shown as steer_<name>_total by
 * /metrics, as "counters" by GET /v1/info and by `steerctl counters`. */
#define SCHED_COUNTERS(X)                                                                          \
    X(stale,                                                                                       \
      "Results and reports of a lease or attempt that was over, gradients of a closed step.")      \
    X(fenced, "Leases that a worker held and that were not its own any more.")                     \
    X(duplicate, "Gradients that came when they were there already.")                              \
    X(damaged, "Gradients that were damaged on their way, and sent again.")                        \
    X(recomputed, "Units and row ranges given out again after a loss.")                            \
    X(overtaken, "Units and row ranges of a slow or hung worker given to another one as well.")    \
    X(adopted, "Sessions and leases that went on over a restart of the coordinator.")              \
    X(promoted, "Changes of parameter hosts in which a copy became the owner.")                    \
    X(respread, "Changes of parameter hosts because one joined or left.")                          \
    X(rolled_back, "Sessions that went back to a checkpoint.")                                     \
    X(fallback, "Checkpoints that could not be read, so that an older one was taken.")             \
    X(audited, "Gradients and row ranges that two workers had to agree about, and did.")           \
    X(disputed, "Gradients and row ranges about which two workers did not agree.")                 \
    X(quarantined, "Workers that were outvoted and get no work any more.")                         \
    X(parked, "Times that work stopped because a disk was full.")                                  \
    X(refused, "Workers that got no work: of another numerics class, or in quarantine.")
struct sched_counters {
#define X(name, help) uint64_t name;
    SCHED_COUNTERS(X)
#undef X
};

typedef int (*sched_planner)(const struct spec *s, const cJSON *inputs, const cJSON *done,
                             struct phase *out, cJSON **outputs, cJSON **metrics, struct err *e);
struct sched_config {
    sched_planner plan;    /* kind_next_phase(); pure */
    const char *build;     /* part of the key under which outputs are reused */
    uint32_t lease_ms;     /* 10000 */
    uint32_t fault_budget; /* 3: failures that are the task's own */
    uint32_t loss_budget;  /* 1000: failures that are the machines' */
    /* 20: times that a task may not find what it reads; 0: as often as machines may fail */
    uint32_t missing_budget;
    int crash_limit;       /* 3 different workers; 0 = off */
    uint32_t barren_limit; /* 40 attempts of a session in a row without a step; 0 = off */
    uint32_t backoff_ms;   /* 500, doubled per failure, at most 30 s */
    uint32_t stall_ms;     /* 120000: a session that reports nothing new is started again */
    uint32_t hang_ms;      /* 5000: what a compute thread that does not move works on is given to
                              somebody else as well; 0 = never */
    uint32_t abandon_ms;   /* 120000: its lease is not renewed any more; 0 = always renewed */
    uint32_t slow_ms;      /* 500: a step or range that is open for less is never overtaken */
    uint32_t resend_ms; /* 5000: a session that is silent for so long is told again who does what */
    uint32_t restart_grace_ms; /* 1500: after a restart, until new sessions open, so that workers
                                  can come back */
    int active_min,
        active_max;     /* 32, 256: see the top; 0: all jobs are admitted and kept in memory */
    uint32_t adopt_ms;  /* 6000: after a restart, how long the hosts of a session that was open are
                          awaited */
    bool replicate;     /* sessions of two and more hosts keep a copy of every chunk */
    uint32_t freeze_ms; /* 5000: how long the answers of freezing hosts are awaited */
    uint32_t first_ms;  /* 60000: until a new set of hosts must have closed its first step */
    uint32_t respread_ms; /* 10000: between two changes of hosts because of a join; 0 = never */
};

/* What is kept of every job. */
struct sched_entry {
    uint64_t id;
    uint64_t version;      /* while job is NULL: of its row; 0 = not known */
    struct sched_job *job; /* NULL: in the journal only */
    enum run_state state;
    bool queued; /* is in the queue of what can start */
    bool asked;  /* its body was asked for, to start it */
};

struct sched {
    struct sched_config config;
    uint64_t now_ms, wall_ms;
    uint64_t next_task, next_session;
    int jobs_n, jobs_cap;
    struct sched_job **job; /* those in memory, by age */
    int entries_n, entries_cap;
    struct sched_entry *entry; /* all, by age, that is by id */
    int queue_n, queue_cap;
    uint64_t *queue; /* heap: ids of PENDING jobs that are not admitted, and of some that were */
    int active_n;    /* admitted, or asked for */
    uint64_t admit_at_ms;
    uint64_t count[RUN_STATES_COUNT]; /* jobs by state */
    int workers_n, workers_cap;
    struct sched_worker **worker;
    int garbage_n, garbage_cap;
    void **garbage; /* freed by sched_collect(): actions may still point at it */
    /* Open phases of jobs that are admitted, oldest job first, and those of them that have tasks by
     * the ids of these. Made anew (sched_open.c) after whatever may open or close a phase. */
    bool open_stale;
    int open_n, open_cap, open_tasks_n;
    struct sched_stage **open, **open_tasks;
    uint64_t looked_at; /* stages and workers, by decisions: what must not grow with the queue */
    struct sched_counters counters;
    int quarantine_n, quarantine_cap;
    struct sched_quarantine *quarantine; /* until an operator releases them */
};

/* What happened. */
enum sched_event_type {
    SCHED_TICK,
    SCHED_SUBMIT, /* job: taken */
    SCHED_CANCEL, /* job_id */
    SCHED_PAUSE,  /* job_id, text: who asked */
    SCHED_RESUME, /* job_id */
    SCHED_RETRY,  /* job_id, job: taken, its body as it stood at the end (journal_load_job());
                        stage_index >= 0: that stage's session goes on from version, digest */
    SCHED_LOADED, /* job: taken, a body that was asked for, or that an event is about to need */
    SCHED_WORKER_UP, /* worker, class_id, class_bf16, roles, threads, draining; lease[], session, attempt: what
                        it says it holds; returned: it was GONE as crashed, and had not died */
    SCHED_WORKER_SUSPECT,
    SCHED_WORKER_OK,
    SCHED_WORKER_DRAIN,
    SCHED_WORKER_RELEASE,  /* out of quarantine */
    SCHED_WORKER_REFUSED,  /* it was turned away: counted */
    SCHED_WORKER_GONE,     /* crashed: it died, as opposed to said good-bye */
    SCHED_HEARTBEAT,       /* worker, lease[] */
    SCHED_TASK_DONE,       /* worker, task, epoch, result: taken */
    SCHED_TASK_FAILED,     /* worker, task, epoch, code, text */
    SCHED_SESSION_STATUS,  /* session, attempt, version, figures */
    SCHED_SESSION_OPINION, /* session, attempt, version: the step; node, voice[], settled, tainted,
                                 odd */
    SCHED_SESSION_CHECKPOINT, /* session, attempt, version, digest */
    SCHED_SESSION_DONE,   /* session, attempt, version, digest, result: taken (figures) or NULL */
    SCHED_SESSION_FAILED, /* session, attempt, code, text */
    SCHED_SESSION_FROZEN, /* session, attempt, worker, frozen */
    SCHED_REUSE /* stage_of, stage_index, result: taken {"outputs", "metrics"} or NULL: nothing to
                   reuse */
};
struct sched_lease {
    uint64_t task, epoch, done, total;
    uint64_t moved; /* changes while the thread that runs it moves; 0 = not known */
};
struct sched_event {
    enum sched_event_type type;
    uint64_t now_ms, wall_ms;
    struct sched_job *job;
    uint64_t job_id;
    char worker[SCHED_WORKER_MAX];
    const char *class_id, *class_bf16; /* borrowed */
    uint32_t roles, threads;
    bool draining, crashed, returned;
    const struct sched_lease *lease; /* borrowed */
    int leases_n;
    uint64_t
        progress_ms; /* HEARTBEAT: when the worker's compute threads last moved; 0 = not known */
    uint64_t task, epoch;
    uint64_t session, attempt, version, tokens;
    double loss, grad_norm, lr, tokens_per_s;
    bool partial; /* STATUS: of another host than the step leader: version and figures are not meant
                   */
    uint64_t open_ms, duplicates, late, damaged; /* late: pushes of a closed step */
    const struct tree_span *missing;             /* borrowed */
    int missing_n;
    const struct sched_share *share; /* borrowed */
    int shares_n;
    uint64_t audited;
    struct tree_node node;
    const struct sched_voice *voice; /* borrowed */
    int voices_n;
    bool settled, tainted;
    uint64_t odd;
    struct digest digest;
    cJSON *result;
    uint64_t busy_us; /* TASK_DONE: of a thread; 0 = not known */
    int code;
    const char *text; /* borrowed */
    int stage_index;
    struct sched_frozen frozen;
};

/* What to do about it. The first group is journalled; the second is performed after the commit. */
enum sched_action_type {
    SCHED_SAVE_JOB,
    SCHED_SAVE_STAGE,
    SCHED_SAVE_TASK,     /* task; text: phase */
    SCHED_SAVE_TASKS,    /* task[0..number): all of a new phase; text: phase */
    SCHED_ATTEMPT_BEGIN, /* task, worker */
    SCHED_ATTEMPT_END,   /* task: outcome in text, why in note */
    SCHED_EVENT,         /* text: type, note: words for people */
    SCHED_SERIES,        /* text: name, value, number: step */
    SCHED_CHECKPOINT,    /* digest, number: version, text: phase */
    SCHED_OUTPUTS, /* stage succeeded: its outputs are artefacts, and reusable under digest (if set)
                    */
    SCHED_CONTEXT, /* digest, blob: text of the phase's context document, to be stored before any
                      dispatch */
    SCHED_QUARANTINE,       /* worker, note: why */
    SCHED_RELEASE,          /* worker */
    SCHED_FIRST_SEND,       /* (marks the second group) */
    SCHED_SEND_TASK,        /* worker, task */
    SCHED_SEND_TASK_CANCEL, /* worker, number: task id, epoch */
    SCHED_SEND_ACK,         /* worker, number: task id, epoch */
    SCHED_SEND_OPEN,        /* worker, stage */
    SCHED_SEND_ASSIGN,      /* worker, stage */
    SCHED_SEND_CLOSE,       /* worker, number: session, epoch: attempt, note */
    SCHED_SEND_NOTE,        /* worker, note: what its operator should know */
    SCHED_SEND_WAIVE,       /* worker, number: session, epoch: attempt, step, node */
    SCHED_SEND_SESSION_ACK, /* worker, number: session, epoch: attempt */
    SCHED_SEND_FREEZE,      /* worker, stage, number: session, epoch: attempt, value: 1 = at the
                               edge of the open step */
    SCHED_MEND,             /* blobs that are named in `blob` and are damaged leave the store */
    SCHED_ASK_REUSE,        /* stage, digest: answer with SCHED_REUSE */
    SCHED_ASK_LOAD          /* number: job id: answer with SCHED_LOADED */
};
struct sched_action {
    enum sched_action_type type;
    struct sched_job *job;
    struct sched_stage *stage;
    struct sched_task *task;
    char worker[SCHED_WORKER_MAX];
    uint64_t number, epoch, step;
    struct tree_node node;
    double value;
    struct digest digest;
    char text[144];
    char note[SCHED_TEXT_MAX];
    char *blob; /* owned by the list */
    size_t blob_len;
};
struct sched_actions {
    int n, cap;
    struct sched_action *v;
};
void sched_actions_clear(struct sched_actions *a);
void sched_actions_free(struct sched_actions *a);

void sched_init(struct sched *s, const struct sched_config *config);
void sched_fini(struct sched *s);
void sched_step(struct sched *s, struct sched_event *event, struct sched_actions *actions);
void sched_renew(
    struct sched *s,
    uint64_t now_ms); /* after a gap of the coordinator's own: leases and waits count from now */
/* Frees what only actions could still name, and the bodies of jobs that are not admitted: call when
 * all actions are performed. */
void sched_collect(struct sched *s);

/* Builds a job from a checked spec; spec is taken, also on failure. resolved: see expand.h. */
int sched_job_new(uint64_t id, struct spec **spec, const cJSON *resolved, uint64_t wall_ms,
                  struct sched_job **out, struct err *e);
void sched_job_free(struct sched_job *j);
/* Puts a job that was read from the journal back, as it stood; call in order of age, then
 * sched_restored(). */
void sched_restore(struct sched *s, struct sched_job *j);
/* The same for a job whose body stays in the journal: not one that runs. */
void sched_restore_entry(struct sched *s, uint64_t id, enum run_state state);
void sched_restored(struct sched *s, uint64_t now_ms);
/* Asks the planner again for the phase that was open and lays out its tasks or session, empty, for
 * the journal to fill. false: the planner of this build wants another phase; the stage goes on from
 * the phases that are done. */
bool sched_restore_phase(struct sched *s, struct sched_stage *st, const char *name,
                         uint32_t tasks_n);

struct sched_job *sched_find_job(const struct sched *s, uint64_t id);     /* NULL: not in memory */
struct sched_entry *sched_find_entry(const struct sched *s, uint64_t id); /* NULL: no such job */
const struct sched_quarantine *sched_quarantined(const struct sched *s, const char *worker);
/* How many workers have units of every step, not only of one that they help out with. */
int sched_session_computing(const struct sched_session *ss);
/* From the journal. */
void sched_quarantine_restore(struct sched *s, const char *worker, const char *reason,
                              uint64_t since_wall_ms);
struct sched_worker *sched_find_worker(const struct sched *s, const char *id);
/* The context document of the open phase (jobs/run.h), canonical. */
void sched_context(const struct sched_stage *st, struct buf *out);

#endif
