/*
 * cli: what every verb of steerctl shares. A verb is a row of cli_verbs[] (cli.c): its words, options, help and function.
 * A verb's function returns an exit code; it has then said on stderr what went wrong and what to type next.
 */
#ifndef STEERCTL_CLI_H
#define STEERCTL_CLI_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/err.h"
#include "jobs/spec.h"
#include "json/json.h"

enum cli_exit { /* scripts rely on these */
                CLI_OK = 0,
                CLI_UNEXPECTED = 1,
                CLI_USAGE = 2,
                CLI_SPEC = 3,
                CLI_NOT_FOUND = 4,
                CLI_CONFLICT = 5,
                CLI_DENIED = 6,
                CLI_UNREACHABLE = 7,
                CLI_TIMEOUT = 8,
                CLI_FAILED = 10,
                CLI_CANCELLED = 11,
                CLI_SKIPPED = 12,
                CLI_DETACHED = 130
};

/* Options: symbol, long name, letter or 0, name of the value or NULL, repeatable, what it does. */
#define CLI_OPTIONS(X)                                                                             \
    X(OPT_HELP, "help", 'h', NULL, false, "this help")                                             \
    X(OPT_SERVER, "server", 0, "URL", false,                                                       \
      "coordinator; else $STEER_SERVER, else endpoint.json of --dir")                              \
    X(OPT_DIR, "dir", 'd', "DIR", false,                                                           \
      "state directory; else $STEER_DIR, else $XDG_STATE_HOME/steer")                              \
    X(OPT_OUTPUT, "output", 'o', "FORMAT", false, "table (default), json or name")                 \
    X(OPT_WORKERS, "workers", 'w', "N", false,                                                     \
      "worker processes (up: 2, or 1 on one core; plan: 1)")                                       \
    X(OPT_THREADS, "threads", 't', "N", false,                                                     \
      "compute threads of each worker (up: cores / workers; plan: as measured)")                   \
    X(OPT_HTTP, "http", 0, "PORT", false, "HTTP port (default: 7780; 0: a free one)")              \
    X(OPT_SET, "set", 's', "KEY=VALUE", true, "change a key of the spec, such as train.lr=1e-3")   \
    X(OPT_FOLLOW, "follow", 'f', NULL, false, "stay and show what comes")                          \
    X(OPT_WAIT, "wait", 0, NULL, false, "stay until the job ends; the exit code says how")         \
    X(OPT_KEY, "idempotency-key", 0, "KEY", false, "the same key never makes a second job")        \
    X(OPT_TIMEOUT, "timeout", 0, "SECONDS", false, "give up waiting after this long (exit 8)")     \
    X(OPT_STATE, "state", 0, "STATE", false, "only jobs in this state")                            \
    X(OPT_LIMIT, "limit", 'n', "N", false, "at most this many")                                    \
    X(OPT_FROM, "from", 0, "VERSION", false, "the checkpoint to go on from; 0: the initial model") \
    X(OPT_STAGE, "stage", 0, "NAME", false, "whose checkpoint --from is, where several trained")   \
    X(OPT_SPEC, "spec", 0, "FILE", false, "the spec whose data and attributes are meant")          \
    X(OPT_ROWS, "rows", 0, "N", false, "how many rows to show (default: 3)")                       \
    X(OPT_MEASURED, "measured", 0, "FILE", false,                                                  \
      "speeds as steer-worker --measure FILE printed them")                                        \
    X(OPT_LINK, "link", 0, "RATE", false, "link of each machine, each way: 100Mb/s, 1Gb/s, ...")   \
    X(OPT_LATENCY, "latency", 0, "TIME", false, "one way: 0.5ms, 200us (default: 0.1ms)")          \
    X(OPT_PLAIN, "plain", 0, NULL, false, "sockets are not encrypted")

enum cli_option {
#define X(name, word, letter, value, repeat, doc) name,
    CLI_OPTIONS(X)
#undef X
        OPT_COUNT
};
#define OPT_BIT(o) (1u << (o))

#define CLI_POS_MAX 64
#define CLI_SETS_MAX 64

struct cli_verb;
struct cli {
    const struct cli_verb *verb;
    int pos_n;
    const char *pos[CLI_POS_MAX];
    const char *opt[OPT_COUNT]; /* NULL: not given; "" for options without a value */
    int sets_n;
    const char *sets[CLI_SETS_MAX];
    bool json, names; /* -o */
};

struct cli_verb {
    const char *name; /* "submit", "worker ls" */
    const char *args; /* "FILE", "ID..." for the usage line */
    int pos_min, pos_max;
    unsigned options;
    int (*run)(struct cli *c);
    const char *doc;
    const char *example;
    const char *complete; /* what bash offers for an argument: "jobs", "files", "verbs" or NULL */
};
extern const struct cli_verb cli_verbs[];
extern const int cli_verbs_n;

int cli_run(int argc, char **argv);
int cli_help(struct cli *c);
int cli_completion(struct cli *c);
/* A whole number option within bounds, or fallback. CLI_OK or CLI_USAGE. */
int cli_int(const struct cli *c, enum cli_option o, int64_t min, int64_t max, int64_t fallback,
            int64_t *out);

/* ---- cli_out.c ------------------------------------------------------------------------------- */

/* "steerctl: what\n  try: next" on stderr; returns the code. next may be NULL: no second line. */
int cli_fail(int code, const char *next, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int cli_fail_err(const struct err *e, const char *next); /* maps e->code to an exit code */
void cli_say(const char *fmt, ...)
    __attribute__((format(printf, 1, 2))); /* talk: stderr, one line */
bool cli_has_tty(int fd);
bool cli_has_colour(int fd); /* a terminal, and neither NO_COLOR nor TERM=dumb */
/* Text from elsewhere, safe for a terminal: control bytes and escapes become '?'. */
const char *cli_safe(const char *text, char *out, size_t cap);
void cli_print_json(const cJSON *j); /* indented, stdout */
#define CLI_SHORT 32
void cli_format_bytes(uint64_t bytes, char out[CLI_SHORT]);
void cli_format_seconds(double s, char out[CLI_SHORT]);        /* "42s", "3m12s", "2h05m" */
void cli_format_ago(const char *rfc3339, char out[CLI_SHORT]); /* "-" for what is no time */
void cli_format_between(const char *begin, const char *end, char out[CLI_SHORT]);

struct cli_table { /* left-aligned columns; the last is not padded */
    int columns, rows, cap;
    char **cell;
};
void cli_table_add(struct cli_table *t, int columns,
                   ...); /* const char * each; the first row is the head */
void cli_table_print(struct cli_table *t, FILE *out); /* and frees it */

/* ---- cli_client.c ---------------------------------------------------------------------------- */

struct cli_client;
/* Finds the coordinator. CLI_OK, or CLI_UNREACHABLE after saying so. */
int cli_client_open(const struct cli *c, struct cli_client **out);
void cli_client_close(struct cli_client *cl);
const char *cli_client_url(const struct cli_client *cl);
struct cli_reply {
    long status; /* 0: no answer came; e says why */
    cJSON *json; /* may be NULL */
    struct err e;
};
void cli_reply_free(struct cli_reply *r);
/* One request; body may be NULL; key: Idempotency-Key or NULL. max_ms bounds it. True when an answer came, whatever its status. */
bool cli_call(struct cli_client *cl, const char *method, const char *path, const char *body,
              const char *key, uint64_t max_ms, struct cli_reply *r);
/* GET with one attempt, an object or list back in *out, or an exit code with everything said. */
int cli_get(struct cli_client *cl, const char *path, cJSON **out);
/* The same of a list, page after page, as one; path has a query. */
int cli_get_all(struct cli_client *cl, const char *path, cJSON **out);
/* Says what a refused or absent reply means. `what`: "job steer". */
int cli_reply_fail(struct cli_client *cl, const struct cli_reply *r, const char *what);
/* Id, unique prefix of one, or unique name -> id. */
int cli_job_id(struct cli_client *cl, const char *text, char id[32]);
int cli_reachable(
    struct cli_client
        *cl); /* asks healthz: CLI_UNREACHABLE at once rather than after many retries */
int cli_rediscover(
    struct cli_client
        *cl); /* reads endpoint.json again: the coordinator may have another port now */
extern volatile sig_atomic_t
    cli_interrupted; /* SIGINT or SIGTERM came while cli_catch_interrupts() is on */
void cli_catch_interrupts(void);
void cli_state_dir(const struct cli *c, char *out, size_t cap);

/* ---- cli_spec.c ------------------------------------------------------------------------------ */

struct cli_spec {
    struct spec *spec;
    struct buf
        text; /* what is submitted: the file, or its resolved form if stages came from other files */
    char *dir; /* of the file; paths in it are relative to this */
    int files_n;
    char **file;
};
/* Reads, applies --set, checks; prints problems as file:line:col. CLI_SPEC when there are any. */
int cli_spec_read(const struct cli *c, const char *path, struct cli_spec *out);
void cli_spec_free(struct cli_spec *s);
int cli_spec_missing(const struct cli_spec *s,
                     const char *path); /* how many of its files are not there; names them */
char *cli_spec_path(const struct cli_spec *s, const char *file); /* gives */

/* ---- the live view --------------------------------------------------------------------------- */

enum cli_view { CLI_VIEW_LIVE, CLI_VIEW_QUIET };
/* Until the job ends: its exit code. CLI_DETACHED after Ctrl-C, CLI_TIMEOUT. id is whole. timeout_s < 0: for ever. */
int cli_watch(struct cli_client *cl, const char *id, enum cli_view view, int64_t timeout_s);
bool cli_is_prepare(const cJSON *stage); /* a stage of the planner, listed first */
int cli_state_exit(const char *state);   /* exit code of a final state; -1: not final */

/* ---- verbs ----------------------------------------------------------------------------------- */

int verb_up(struct cli *c);
int verb_down(struct cli *c);
int verb_submit(struct cli *c);
int verb_validate(struct cli *c);
int verb_plan(struct cli *c);
/* plan --workers ...: the predicted step of a spec that trains; an exit code, with everything said. */
int cli_scale(struct cli *c, const struct spec *spec);
int verb_ls(struct cli *c);
int verb_status(struct cli *c);
int verb_logs(struct cli *c);
int verb_cancel(struct cli *c);
int verb_pause(struct cli *c);
int verb_resume(struct cli *c);
int verb_retry(struct cli *c);
int verb_wait(struct cli *c);
int verb_watch(struct cli *c);
int verb_events(struct cli *c);
int verb_worker_ls(struct cli *c);
int verb_worker_release(struct cli *c);
int verb_counters(struct cli *c);
int verb_artifact_ls(struct cli *c);
int verb_artifact_get(struct cli *c);
int verb_artifact_put(struct cli *c);
int verb_data_show(struct cli *c);
int verb_data_check(struct cli *c);
int verb_version(struct cli *c);

#endif
