#include "worker/worker_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jobs/settings.h"
#include "model/gemm.h"
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
    "  --pin auto|off            auto: every compute thread stays on a core that no other worker "
    "has, if there "
    "are enough of them\n"
    "                            (STEER_PIN; default off)\n"
    "  --roles LIST              compute, params or both (STEER_ROLES; default compute,params)\n"
    "  --kernels NAME            matrix products by own or plain kernels (same bits) or openblas "
    "(another numerics class)\n"
    "                            (STEER_KERNELS; default own)\n"
    "  --listen tcp://H:P        data socket for other workers (STEER_LISTEN; default "
    "tcp://127.0.0.1:0; port 0: any)\n"
    "  --advertise tcp://H:P     how others reach it (STEER_ADVERTISE_DATA; default: where it "
    "listens)\n"
    "  --token-file FILE         the cluster's secret, one line (or STEER_TOKEN); needed beyond "
    "loopback, encrypts the control and data sockets\n"
    "  --open-data               let the data socket listen beyond loopback without a token: only "
    "where everybody on the network\n"
    "                            is trusted\n"
    "  --bf16 auto|software|off  products of bfloat16, for jobs with numerics: bf16 (STEER_BF16): "
    "auto: by AVX512_BF16 where the CPU\n"
    "                            has it, else by AVX2, slower, with the same bits; software: never "
    "AVX512_BF16; off: takes no such job\n"
    "  --name NAME               for people (default: the host's name)\n"
    "  --config FILE             any of these in YAML, \"threads: 4\" (STEER_WORKER_CONFIG); "
    "variables and flags go first\n"
    "  --measure SPEC [--threads N] [--row-tokens N]: as the first word: prints how fast this "
    "machine "
    "does the parts of a training step of\n"
    "                            SPEC, for steerctl plan --measured; starts nothing\n"
    "  --help, --version, --faults (the failpoints that STEER_FAULT=name:n can name)\n"
    "SIGTERM drains: running tasks end, a session is handed over; a second SIGTERM stops at "
    "once.\n";

static int roles_set(void *base, const char *option, const char *value, struct err *e)
{
    struct worker_config *c = base;
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

static int bf16_set(void *base, const char *option, const char *value, struct err *e)
{
    struct worker_config *c = base;

    if (strcmp(value, "auto") != 0 && strcmp(value, "software") != 0 && strcmp(value, "off") != 0)
        return err_set(e, ERR_INVALID, "%s is \"%.40s\", must be auto, software or off", option,
                       value);
    c->bf16 = *value == 'a' ? BF16_CPU : *value == 's' ? BF16_SOFTWARE : BF16_NONE;
    return 0;
}

static int pin_set(void *base, const char *option, const char *value, struct err *e)
{
    struct worker_config *c = base;

    if (strcmp(value, "auto") != 0 && strcmp(value, "off") != 0)
        return err_set(e, ERR_INVALID, "%s is \"%.40s\", must be auto or off", option, value);
    c->pin = *value == 'a';
    return 0;
}

/* Takes effect at once: nothing is computed before the options are read. */
static int kernels_set(void *base, const char *option, const char *value, struct err *e)
{
    (void)base;
    return gemm_kernels_set(value)
               ? 0
               : err_set(e, ERR_INVALID, "%s is \"%.40s\", must be own, plain or openblas", option,
                         value);
}

#define AT(member)                                                                                 \
    offsetof(struct worker_config, member), sizeof(((struct worker_config *)0)->member)

static const struct setting settings[] = {
    {"--coordinator", "STEER_COORDINATOR", SETTING_ADDRESS, AT(coordinator), 0, 0, NULL},
    {"--coordinator-dir", "STEER_DIR", SETTING_TEXT, AT(coordinator_dir), 0, 0, NULL},
    {"--dir", "STEER_WORKER_DIR", SETTING_TEXT, AT(dir), 0, 0, NULL},
    {"--threads", "STEER_THREADS", SETTING_NUMBER, AT(threads), 1, EXECUTOR_THREADS_MAX, NULL},
    {"--pin", "STEER_PIN", SETTING_CUSTOM, 0, 0, 0, 0, pin_set},
    {"--roles", "STEER_ROLES", SETTING_CUSTOM, 0, 0, 0, 0, roles_set},
    {"--kernels", "STEER_KERNELS", SETTING_CUSTOM, 0, 0, 0, 0, kernels_set},
    {"--listen", "STEER_LISTEN", SETTING_ADDRESS, AT(listen), 0, 0, NULL},
    {"--advertise", "STEER_ADVERTISE_DATA", SETTING_ADDRESS, AT(advertise), 0, 0, NULL},
    {"--token-file", NULL, SETTING_SECRET, AT(token), 0, 0, NULL},
    {NULL, "STEER_TOKEN", SETTING_TEXT, AT(token), 0, 0, NULL},
    {"--open-data", NULL, SETTING_FLAG, AT(open_data), 0, 0, NULL},
    {"--bf16", "STEER_BF16", SETTING_CUSTOM, 0, 0, 0, 0, bf16_set},
    {"--name", NULL, SETTING_TEXT, AT(name), 0, 0, NULL},
    {NULL, NULL, SETTING_TEXT, 0, 0, 0, 0, NULL}};

static void defaults(struct worker_config *c)
{
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    long processors = sysconf(_SC_NPROCESSORS_ONLN);

    *c = (struct worker_config){.roles = ROLE_COMPUTE | ROLE_PARAMS, .bf16 = BF16_CPU};
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

int worker_config_parse(int argc, char **argv, struct worker_config *c, struct err *e)
{
    int rc;

    defaults(c);
    rc = settings_read(settings, "STEER_WORKER_CONFIG", argc, argv, c, &c->help, &c->version, e);
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
