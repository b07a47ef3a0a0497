/* up and down: the embedded default, everything on this machine, loopback only. */
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "steerctl/cli.h"
#include "steerctl/cli_supervise.h"

#define UP_MS 60000
#define DOWN_MS (2 * SUPERVISE_STOP_MS + 5000)

/* Beside this program, else in PATH. False: nowhere. */
static bool bin_dir_find(char *out, size_t cap)
{
    const char *set = getenv("STEER_BIN_DIR"), *path = getenv("PATH");
    char self[PATH_MAX], *slash, *copy, *rest, *dir;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    bool found = false;

    if (set != NULL && set[0] != '\0') {
        snprintf(out, cap, "%s", set);
        return true;
    }
    self[n > 0 ? n : 0] = '\0';
    slash = strrchr(self, '/');
    if (slash != NULL) {
        snprintf(slash, sizeof self - (size_t)(slash - self), "/steer-coordinator");
        found = access(self, X_OK) == 0;
        *slash = '\0';
        snprintf(out, cap, "%s", self);
    }
    copy = rest = mem_strdup(path != NULL ? path : "");
    while (!found && (dir = strsep(&rest, ":")) != NULL) {
        char *try = mem_printf("%s/steer-coordinator", dir);
        found = dir[0] == '/' && access(try, X_OK) == 0;
        if (found)
            snprintf(out, cap, "%s", dir);
        free(try);
    }
    free(copy);
    return found;
}

/* The last lines of a log, for somebody who has to find out why something did not start. */
static void log_tail(const char *dir, const char *name)
{
    char *path = mem_printf("%s/logs/%s.log", dir, name);
    struct buf b = BUF_INIT;
    struct err e;
    size_t at, lines = 0;

    if (file_read(path, 64u << 20, &b, &e) == 0 && b.len > 0) {
        for (at = b.len - 1; at > 0 && lines < 6; at--)
            lines += b.data[at - 1] == '\n';
        cli_say("last lines of %s:", path);
        for (char *line = b.data + at, *end; line != NULL && *line != '\0'; line = end) {
            end = strchr(line, '\n');
            if (end != NULL)
                *end++ = '\0';
            cli_say("  %s", line);
        }
    }
    buf_free(&b);
    free(path);
}

/* Workers that have joined, or -1 when the coordinator is not ready. */
static int joined_count(struct cli *c, char *url, size_t cap, cJSON **workers)
{
    struct cli_client *cl = NULL;
    struct cli_reply r = {0};
    const cJSON *item;
    char dir[4096], *endpoint;
    int n = -1;

    cli_state_dir(c, dir, sizeof dir);
    endpoint = mem_printf("%s/endpoint.json", dir);
    if (file_exists(endpoint) && cli_client_open(c, &cl) == CLI_OK &&
        cli_call(cl, "GET", "/readyz", NULL, NULL, 2000, &r) && r.status == 200) {
        bool ours;

        cli_reply_free(&r);
        /* A file that a crash has left may name somebody else's port. */
        ours = cli_call(cl, "GET", "/v1/info", NULL, NULL, 2000, &r) && r.status == 200 &&
               strcmp(json_string_or(r.json, "state_dir", ""), dir) == 0;
        cli_reply_free(&r);
        if (ours && cli_call(cl, "GET", "/v1/workers", NULL, NULL, 2000, &r) && r.status == 200) {
            n = 0;
            cJSON_ArrayForEach(item, json_get(r.json, "items"))
            {
                const char *state = json_string_or(item, "state", "");
                n += strcmp(state, "LOST") != 0 && strcmp(state, "LEFT") != 0;
            }
            *workers = r.json;
            r.json = NULL;
            snprintf(url, cap, "%s", cli_client_url(cl));
        }
    }
    cli_reply_free(&r);
    cli_client_close(cl);
    free(endpoint);
    return n;
}

static void up_print(const struct cli *c, const char *dir, const char *url, const cJSON *workers)
{
    const cJSON *item;
    pid_t pid = supervise_pid(dir);

    if (c->json) {
        cJSON *j = cJSON_CreateObject();
        cJSON_AddStringToObject(j, "url", url);
        cJSON_AddStringToObject(j, "dir", dir);
        cJSON_AddNumberToObject(j, "supervisor", (double)pid);
        cJSON_AddItemToObject(j, "workers", cJSON_Duplicate(json_get(workers, "items"), 1));
        cli_print_json(j);
        cJSON_Delete(j);
        return;
    }
    printf("%s\n", url);
    cli_say("coordinator  %s", url);
    cJSON_ArrayForEach(item, json_get(workers, "items"))
        cli_say("worker       %s  %s, %.0f thread(s)", json_string_or(item, "name", "?"),
                json_string_or(item, "state", "?"), json_number_or(item, "threads", 0.0));
    cli_say("state, logs  %s  %s/logs", dir, dir);
    cli_say("  next:  steerctl submit FILE --follow\n");
    cli_say("  stop:  steerctl down");
}

static int up_wait(struct cli *c, const char *dir, int64_t workers)
{
    uint64_t start = clock_ms();
    cJSON *list = NULL;
    char url[256] = "", failing[32] = "";
    int n = -1;

    while (clock_ms() - start < UP_MS && !cli_interrupted) {
        cJSON_Delete(list);
        list = NULL;
        n = joined_count(c, url, sizeof url, &list);
        if (n >= workers)
            break;
        if (supervise_failing(dir, failing) ||
            (supervise_pid(dir) == 0 && clock_ms() - start > 2000))
            break;
        clock_sleep_ms(50);
    }
    if (n >= workers) {
        up_print(c, dir, url, list);
        cJSON_Delete(list);
        return CLI_OK;
    }
    cJSON_Delete(list);
    if (failing[0] == '\0')
        snprintf(failing, sizeof failing, "%s", n < 0 ? "coordinator" : "worker-1");
    log_tail(dir, failing);
    if (n < 0)
        return cli_fail(CLI_UNEXPECTED, "steerctl down, and up again when the reason is gone",
                        "the coordinator does not get ready");
    return cli_fail(CLI_UNEXPECTED, "steerctl down, and up again when the reason is gone",
                    "%d of %" PRId64 " workers have joined; %s does not stay up", n, workers,
                    failing);
}

/* Variables that are about other machines; up and down are about this one. */
static void here_only(struct cli *c)
{
    static const char *const elsewhere[] = {"STEER_SERVER", "STEER_COORDINATOR", "STEER_ADVERTISE",
                                            "STEER_LISTEN", "STEER_ADVERTISE_DATA"};

    for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++)
        unsetenv(elsewhere[i]);
    c->opt[OPT_SERVER] = NULL;
}

int verb_up(struct cli *c)
{
    char dir[4096], bin[PATH_MAX] = "", whole[PATH_MAX];
    int64_t cores = sysconf(_SC_NPROCESSORS_ONLN), workers, threads, port;
    struct supervise_config config = {.dir = whole, .bin_dir = bin};
    struct err e = {0};
    int code = cli_int(c, OPT_WORKERS, 0, SUPERVISE_WORKERS_MAX, cores > 1 ? 2 : 1, &workers);

    if (code == CLI_OK)
        code = cli_int(c, OPT_THREADS, 1, 256,
                       workers > 0 && cores / workers > 1 ? cores / workers : 1, &threads);
    if (code == CLI_OK)
        code = cli_int(c, OPT_HTTP, 0, 65535, 7780, &port);
    if (code != CLI_OK)
        return code;
    here_only(c);
    cli_state_dir(c, dir, sizeof dir);
    if (file_make_dirs(dir, &e) != 0 || realpath(dir, whole) == NULL)
        return cli_fail(CLI_UNEXPECTED, "steerctl up --dir DIR", "state directory %s: %s", dir,
                        e.code != 0 ? e.msg : "cannot be used");
    c->opt[OPT_DIR] = whole;
    if (!bin_dir_find(bin, sizeof bin))
        return cli_fail(CLI_NOT_FOUND, "make, or export STEER_BIN_DIR=DIR",
                        "steer-coordinator is neither beside steerctl nor in PATH");
    config.workers = (int)workers;
    config.threads = (int)threads;
    config.http_port = (int)port;
    cli_catch_interrupts();
    code = supervise_start(&config, &e);
    if (code == ERR_CONFLICT && supervise_pid(whole) != 0) {
        cli_say("already up (steerctl down stops it)");
        return up_wait(c, whole, 0);
    }
    if (code != 0)
        return cli_fail_err(&e, "steerctl down");
    return up_wait(c, whole, workers);
}

int verb_down(struct cli *c)
{
    char dir[4096];
    uint64_t start = clock_ms();
    pid_t pid;

    here_only(c);
    cli_state_dir(c, dir, sizeof dir);
    pid = supervise_pid(dir);
    if (pid == 0) {
        cli_say("nothing is up in %s", dir);
        return CLI_OK;
    }
    if (kill(pid, SIGTERM) != 0)
        return cli_fail(CLI_DENIED, "as the user who typed `steerctl up`",
                        "the supervisor (pid %d) cannot be signalled", (int)pid);
    while (supervise_pid(dir) == pid && clock_ms() - start < DOWN_MS)
        clock_sleep_ms(50);
    if (supervise_pid(dir) ==
        pid) {              /* it stops its children itself, so this is a bug or a stuck disk */
        kill(pid, SIGKILL); /* the kernel sends its children SIGTERM */
        return cli_fail(CLI_UNEXPECTED, "steerctl down again",
                        "the supervisor (pid %d) did not stop in time and was killed", (int)pid);
    }
    printf("stopped\n");
    return CLI_OK;
}
