#include "worker/worker_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/suggest.h"
#include "net/keys.h"
#include "wire/control.h"
#include "worker/executor.h"

const char worker_config_usage[] =
    "usage: steer-worker [options]\n"
    "  --coordinator tcp://H:P   control socket of the coordinator (STEER_COORDINATOR)\n"
    "  --coordinator-dir DIR     or: where its endpoint.json is, on this machine (STEER_DIR; "
    "default $XDG_STATE_HOME/steer or\n"
    "                            ~/.local/state/steer)\n"
    "  --dir DIR                 this worker's own directory: id, cache, scratch "
    "(STEER_WORKER_DIR; default COORDINATOR-DIR/worker)\n"
    "  --threads N               compute threads, 1..256 (STEER_THREADS; default: processors)\n"
    "  --roles LIST              compute, params or both (STEER_ROLES; default compute,params)\n"
    "  --listen tcp://H:P        data socket for other workers (STEER_LISTEN; default "
    "tcp://127.0.0.1:0; port 0: any)\n"
    "  --advertise tcp://H:P     how others reach it (STEER_ADVERTISE_DATA; default: where it "
    "listens)\n"
    "  --token-file FILE         the cluster's secret, one line (or STEER_TOKEN); needed beyond "
    "loopback, encrypts every socket\n"
    "  --open-data               let the data socket listen beyond loopback without a token: only "
    "where everybody on the network\n"
    "                            is trusted\n"
    "  --name NAME               for people (default: the host's name)\n"
    "  --help, --version\n"
    "SIGTERM drains: running tasks end, a session is handed over; a second SIGTERM stops at "
    "once.\n";

static int text_set(char *to, size_t cap, const char *option, const char *value, struct err *e)
{
    if (*value == '\0' || strlen(value) >= cap)
        return err_set(e, ERR_INVALID, "%s has %zu characters, must have 1..%zu", option,
                       strlen(value), cap - 1);
    snprintf(to, cap, "%s", value);
    return 0;
}

static int address_set(char *to, size_t cap, const char *option, const char *value, struct err *e)
{
    if (strncmp(value, "tcp://", 6) != 0 || strchr(value + 6, ':') == NULL)
        return err_set(e, ERR_INVALID, "%s is \"%.200s\", must be tcp://HOST:PORT", option, value);
    return text_set(to, cap, option, value, e);
}

static int threads_set(struct worker_config *c, const char *option, const char *value,
                       struct err *e)
{
    char *end = NULL;
    long n = strtol(value, &end, 10);

    if (end == value || *end != '\0' || n < 1 || n > EXECUTOR_THREADS_MAX)
        return err_set(e, ERR_INVALID, "%s is \"%.40s\", must be 1..%d", option, value,
                       EXECUTOR_THREADS_MAX);
    c->threads = (uint32_t)n;
    return 0;
}

static int roles_set(struct worker_config *c, const char *option, const char *value, struct err *e)
{
    uint32_t roles = 0;
    const char *at = value;

    while (*at != '\0') {
        size_t n = strcspn(at, ",");
        if (n == 7 && strncmp(at, "compute", n) == 0)
            roles |= ROLE_COMPUTE;
        else if (n == 6 && strncmp(at, "params", n) == 0)
            roles |= ROLE_PARAMS;
        else
            return err_set(e, ERR_INVALID, "%s has \"%.*s\", must be compute, params or both",
                           option, (int)(n < 40 ? n : 40), at);
        at += n + (at[n] == ',');
    }
    if (roles == 0)
        return err_set(e, ERR_INVALID, "%s is empty, must be compute, params or both", option);
    c->roles = roles;
    return 0;
}

static int token_set(struct worker_config *c, const char *path, struct err *e)
{
    struct buf text = BUF_INIT;
    int rc = file_read(path, 4096, &text, e);

    if (rc == 0) {
        buf_char(&text, '\n');
        text.data[strcspn(text.data, "\r\n")] = '\0';
        rc = text_set(c->token, sizeof c->token, "the token", text.data, e);
    }
    buf_free(&text);
    return rc == 0 ? 0 : err_wrap(e, "--token-file %s", path);
}

static int option_set(struct worker_config *c, const char *option, const char *value, struct err *e)
{
    static const char *const known[] = {
        "--coordinator", "--coordinator-dir", "--dir",       "--threads", "--roles", "--listen",
        "--advertise",   "--token-file",      "--open-data", "--name",    "--help",  "--version"};
    const char *near;

    if (strcmp(option, "--coordinator") == 0)
        return address_set(c->coordinator, sizeof c->coordinator, option, value, e);
    if (strcmp(option, "--coordinator-dir") == 0)
        return text_set(c->coordinator_dir, sizeof c->coordinator_dir, option, value, e);
    if (strcmp(option, "--dir") == 0)
        return text_set(c->dir, sizeof c->dir, option, value, e);
    if (strcmp(option, "--threads") == 0)
        return threads_set(c, option, value, e);
    if (strcmp(option, "--roles") == 0)
        return roles_set(c, option, value, e);
    if (strcmp(option, "--listen") == 0)
        return address_set(c->listen, sizeof c->listen, option, value, e);
    if (strcmp(option, "--advertise") == 0)
        return address_set(c->advertise, sizeof c->advertise, option, value, e);
    if (strcmp(option, "--token-file") == 0)
        return token_set(c, value, e);
    if (strcmp(option, "--name") == 0)
        return text_set(c->name, sizeof c->name, option, value, e);
    near = suggest_nearest(option, known, sizeof known / sizeof known[0]);
    return err_set(e, ERR_INVALID, "unknown option %.60s%s%s", option,
                   near != NULL ? ", did you mean " : "", near != NULL ? near : "");
}

static int from_environment(struct worker_config *c, struct err *e)
{
    static const char *const pairs[][2] = {{"STEER_COORDINATOR", "--coordinator"},
                                           {"STEER_DIR", "--coordinator-dir"},
                                           {"STEER_WORKER_DIR", "--dir"},
                                           {"STEER_THREADS", "--threads"},
                                           {"STEER_ROLES", "--roles"},
                                           {"STEER_LISTEN", "--listen"},
                                           {"STEER_ADVERTISE_DATA", "--advertise"}};
    const char *token = getenv("STEER_TOKEN");

    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        const char *value = getenv(pairs[i][0]);
        int rc = value != NULL && *value != '\0' ? option_set(c, pairs[i][1], value, e) : 0;
        if (rc != 0)
            return err_wrap(e, "%s", pairs[i][0]);
    }
    if (token != NULL && *token != '\0')
        return text_set(c->token, sizeof c->token, "STEER_TOKEN", token, e);
    return 0;
}

static void defaults(struct worker_config *c)
{
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    long processors = sysconf(_SC_NPROCESSORS_ONLN);

    *c = (struct worker_config){.roles = ROLE_COMPUTE | ROLE_PARAMS};
    c->threads = processors < 1                      ? 1
                 : processors > EXECUTOR_THREADS_MAX ? EXECUTOR_THREADS_MAX
                                                     : (uint32_t)processors;
    if (state != NULL && *state != '\0')
        snprintf(c->coordinator_dir, sizeof c->coordinator_dir, "%s/steer", state);
    else
        snprintf(c->coordinator_dir, sizeof c->coordinator_dir, "%s/.local/state/steer",
                 home != NULL ? home : "");
    snprintf(c->listen, sizeof c->listen, "tcp://127.0.0.1:0");
    if (gethostname(c->name, sizeof c->name - 1) != 0)
        snprintf(c->name, sizeof c->name, "unnamed");
}

static int arguments(struct worker_config *c, int argc, char **argv, struct err *e)
{
    int rc = 0;

    for (int i = 1; i < argc && rc == 0; i++) {
        const char *equals = strchr(argv[i], '=');
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            c->help = true;
        } else if (strcmp(argv[i], "--version") == 0) {
            c->version = true;
        } else if (strcmp(argv[i], "--open-data") == 0) {
            c->open_data = true;
        } else if (strncmp(argv[i], "--", 2) != 0) {
            rc = err_set(e, ERR_INVALID, "unexpected argument \"%.60s\"", argv[i]);
        } else if (equals != NULL && equals - argv[i] < 40) {
            char name[40];
            snprintf(name, sizeof name, "%.*s", (int)(equals - argv[i]), argv[i]);
            rc = option_set(c, name, equals + 1, e);
        } else {
            rc = option_set(c, argv[i], i + 1 < argc ? argv[i + 1] : "", e);
            i++;
        }
    }
    return rc;
}

int worker_config_parse(int argc, char **argv, struct worker_config *c, struct err *e)
{
    int rc;

    defaults(c);
    rc = from_environment(c, e);
    if (rc == 0)
        rc = arguments(c, argc, argv, e);
    if (rc == 0 && c->dir[0] == '\0' &&
        (size_t)snprintf(c->dir, sizeof c->dir, "%s/worker", c->coordinator_dir) >= sizeof c->dir)
        rc = err_set(e, ERR_INVALID, "--coordinator-dir is too long for a default --dir");
    if (rc == 0 && (c->roles & ROLE_PARAMS) != 0 && c->token[0] == '\0' && !c->open_data &&
        !keys_address_is_loopback(c->listen))
        rc = err_set(e, ERR_DENIED,
                     "--listen is %s: beyond loopback anybody who reaches it can read and change "
                     "what is trained; give everybody a secret with "
                     "--token-file, or add --open-data if everybody on that network is trusted",
                     c->listen);
    return rc;
}
