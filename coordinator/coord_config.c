#include "coordinator/coord_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/suggest.h"

const char coord_config_usage[] =
    "usage: steer-coordinator [options]\n"
    "  --dir DIR            state directory (STEER_DIR; default $XDG_STATE_HOME/steer or "
    "~/.local/state/steer)\n"
    "  --http HOST:PORT     HTTP API and dashboard (STEER_HTTP; default 127.0.0.1:7780; port 0: "
    "any)\n"
    "  --control tcp://H:P  workers' control socket (STEER_CONTROL; default tcp://127.0.0.1:7781; "
    "port 0: any)\n"
    "  --advertise URL      base URL by which workers reach the HTTP API (STEER_ADVERTISE; "
    "default: where it listens)\n"
    "  --token-file FILE    the secret that HTTP and workers' sockets ask for, one line of 16 or "
    "more "
    "characters (or STEER_TOKEN); needed beyond loopback\n"
    "  --open-control       let the control socket listen beyond loopback without a token: only "
    "where everybody on the network is trusted\n"
    "  --crash-limit N      quarantine a task under which N different workers died, 0..8, 0 = "
    "never (default 3)\n"
    "  --lease-ms N         lease of a task, 1000..600000 (default 10000)\n"
    "  --help, --version\n"
    "STEER_TOKEN: key that every request must carry; needed when HTTP listens beyond loopback.\n"
    "DIR/endpoint.json says where it listens. SIGTERM stops it; jobs go on at the next start.\n";

static int text_set(char *to, size_t cap, const char *option, const char *value, struct err *e)
{
    if (*value == '\0' || strlen(value) >= cap)
        return err_set(e, ERR_INVALID, "%s has %zu characters, must have 1..%zu", option,
                       strlen(value), cap - 1);
    snprintf(to, cap, "%s", value);
    return 0;
}

static int number_set(int64_t min, int64_t max, const char *option, const char *value, int64_t *out,
                      struct err *e)
{
    char *end = NULL;
    long long v = strtoll(value, &end, 10);

    if (end == value || *end != '\0' || v < min || v > max)
        return err_set(e, ERR_INVALID, "%s is %s, must be %lld..%lld", option, value,
                       (long long)min, (long long)max);
    *out = v;
    return 0;
}

static int token_read(struct coord_config *c, const char *path, struct err *e)
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

static int option_set(struct coord_config *c, const char *option, const char *value, struct err *e)
{
    static const char *const known[] = {
        "--dir",          "--http",        "--control",  "--advertise", "--token-file",
        "--open-control", "--crash-limit", "--lease-ms", "--help",      "--version"};
    int64_t n = 0;
    int rc = 0;
    const char *near = NULL;

    if (strcmp(option, "--dir") == 0)
        return text_set(c->dir, sizeof c->dir, option, value, e);
    if (strcmp(option, "--http") == 0)
        return text_set(c->http, sizeof c->http, option, value, e);
    if (strcmp(option, "--control") == 0)
        return text_set(c->control, sizeof c->control, option, value, e);
    if (strcmp(option, "--advertise") == 0)
        return text_set(c->advertise, sizeof c->advertise, option, value, e);
    if (strcmp(option, "--token-file") == 0)
        return token_read(c, value, e);
    if (strcmp(option, "--crash-limit") == 0) {
        rc = number_set(0, 8, option, value, &n, e);
        c->crash_limit = (int)n;
        return rc;
    }
    if (strcmp(option, "--lease-ms") == 0) {
        rc = number_set(1000, 600000, option, value, &n, e);
        c->lease_ms = (uint32_t)n;
        return rc;
    }
    near = suggest_nearest(option, known, sizeof known / sizeof known[0]);
    return err_set(e, ERR_INVALID, "unknown option %s%s%s", option,
                   near != NULL ? ", did you mean " : "", near != NULL ? near : "");
}

static int from_environment(struct coord_config *c, struct err *e)
{
    const char *token = getenv("STEER_TOKEN");
    static const char *const pairs[][2] = {{"STEER_DIR", "--dir"},
                                           {"STEER_HTTP", "--http"},
                                           {"STEER_CONTROL", "--control"},
                                           {"STEER_ADVERTISE", "--advertise"}};

    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        const char *value = getenv(pairs[i][0]);
        int rc = value != NULL && *value != '\0' ? option_set(c, pairs[i][1], value, e) : 0;

        if (rc != 0)
            return err_wrap(e, "%s", pairs[i][0]);
    }
    return token != NULL && *token != '\0'
               ? text_set(c->token, sizeof c->token, "STEER_TOKEN", token, e)
               : 0;
}

bool coord_config_is_loopback(const char *endpoint)
{
    return strncmp(endpoint, "tcp://127.", 10) == 0 ||
           strncmp(endpoint, "tcp://localhost:", 16) == 0 ||
           strncmp(endpoint, "tcp://[::1]:", 12) == 0 || strncmp(endpoint, "ipc://", 6) == 0;
}

bool coord_config_url_host(const char *url, char *out, size_t cap)
{
    const char *host = strncmp(url, "http://", 7) == 0    ? url + 7
                       : strncmp(url, "https://", 8) == 0 ? url + 8
                                                          : NULL;
    size_t n = host != NULL ? strcspn(host, ":/") : 0;

    if (n == 0 || n >= cap)
        return false;
    snprintf(out, cap, "%.*s", (int)n, host);
    return true;
}

static int check(const struct coord_config *c, struct err *e)
{
    char host[256];

    if (!c->open_control && c->token[0] == '\0' && !coord_config_is_loopback(c->control))
        return err_set(
            e, ERR_DENIED,
            "--control is %s: beyond loopback anybody who reaches it can act as a "
            "worker; give everybody a secret with --token-file, or add --open-control if "
            "everybody on that network is trusted",
            c->control);
    if (c->advertise[0] != '\0' && !coord_config_url_host(c->advertise, host, sizeof host))
        return err_set(e, ERR_INVALID, "--advertise is %s, must be http://HOST:PORT", c->advertise);
    return 0;
}

static void defaults(struct coord_config *c)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

    *c = (struct coord_config){.crash_limit = 3, .lease_ms = 10000, .heartbeat_ms = 500};
    if (state != NULL && *state != '\0')
        snprintf(c->dir, sizeof c->dir, "%s/steer", state);
    else
        snprintf(c->dir, sizeof c->dir, "%s/.local/state/steer", home != NULL ? home : "");
    snprintf(c->http, sizeof c->http, "127.0.0.1:7780");
    snprintf(c->control, sizeof c->control, "tcp://127.0.0.1:7781");
}

int coord_config_parse(int argc, char **argv, struct coord_config *c, struct err *e)
{
    int rc = 0;

    defaults(c);
    rc = from_environment(c, e);
    for (int i = 1; i < argc && rc == 0; i++) {
        char name[64];
        const char *equals = strchr(argv[i], '=');

        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            c->help = true;
        } else if (strcmp(argv[i], "--version") == 0) {
            c->version = true;
        } else if (strcmp(argv[i], "--open-control") == 0) {
            c->open_control = true;
        } else if (equals != NULL) {
            snprintf(name, sizeof name, "%.*s",
                     (int)(equals - argv[i] < 63 ? equals - argv[i] : 63), argv[i]);
            rc = option_set(c, name, equals + 1, e);
        } else if (strncmp(argv[i], "--", 2) == 0 && i + 1 < argc) {
            rc = option_set(c, argv[i], argv[i + 1], e);
            i++;
        } else if (strncmp(argv[i], "--", 2) == 0) {
            rc = option_set(c, argv[i], "", e);
        } else {
            rc = err_set(e, ERR_INVALID, "unexpected argument \"%s\"", argv[i]);
        }
    }
    return rc == 0 && !c->help && !c->version ? check(c, e) : rc;
}
