/*
 * How it works. One thread, one loop: reap, restart what is due, wait for a signal or the next due time. Signals are blocked
 * and taken with sigtimedwait(), so that nothing runs in a handler and nothing is missed between a check and a wait.
 */
#include "steerctl/cli_supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "json/json_file.h"

#define BACKOFF_MIN_MS 200
#define BACKOFF_MAX_MS 10000
#define STEADY_MS 30000

struct child {
    char name[32];
    pid_t pid; /* 0: not running */
    uint64_t started_ms, due_ms, backoff_ms;
    int restarts;
};

struct supervisor {
    struct supervise_config config;
    struct child child[SUPERVISE_WORKERS_MAX + 1]; /* [0] is the coordinator */
    int n;
    char *http,
        *control; /* as the coordinator announced, to be asked for again when it is restarted */
};

static char *in_dir(const char *dir, const char *name)
{
    return mem_printf("%s/%s", dir, name);
}

/* ---- lock ------------------------------------------------------------------------------------ */

/* -1: somebody else holds it. */
static int lock_take(const char *dir, struct err *e)
{
    char *path = in_dir(dir, "supervisor.lock");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

    if (fd < 0) {
        err_sys(e, "open %s", path);
    } else if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        err_set(e, ERR_CONFLICT, "%s is locked: something runs there already", path);
        close(fd);
        fd = -1;
    }
    free(path);
    return fd;
}

/* Reads supervisor.json if somebody holds the lock; NULL otherwise. */
static cJSON *state_read(const char *dir)
{
    char *lock = in_dir(dir, "supervisor.lock"), *path = in_dir(dir, "supervisor.json");
    struct err e;
    cJSON *j = NULL;
    int fd = open(lock, O_RDONLY | O_CLOEXEC);

    if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        json_file_read(path, 65536, JSON_LIMITS_BODY, &j, &e);
    if (fd >= 0)
        close(fd);
    free(lock);
    free(path);
    return j;
}

pid_t supervise_pid(const char *dir)
{
    cJSON *j = state_read(dir);
    pid_t pid = (pid_t)json_int_or(j, "pid", 0);

    cJSON_Delete(j);
    return pid;
}

bool supervise_failing(const char *dir, char name[32])
{
    cJSON *j = state_read(dir);
    const cJSON *child;
    bool failing = false;

    cJSON_ArrayForEach(child, json_get(j, "children")) if (!failing &&
                                                           json_int_or(child, "restarts", 0) >= 3)
    {
        failing = true;
        snprintf(name, 32, "%s", json_string_or(child, "name", "?"));
    }
    cJSON_Delete(j);
    return failing;
}

static void state_write(const struct supervisor *s)
{
    char *path = in_dir(s->config.dir, "supervisor.json");
    struct buf b = BUF_INIT;
    struct err e;

    buf_printf(&b, "{\"pid\":%d,\"workers\":%d,\"threads\":%d,\"children\":[", (int)getpid(),
               s->config.workers, s->config.threads);
    for (int i = 0; i < s->n; i++)
        buf_printf(&b, "%s{\"name\":\"%s\",\"pid\":%d,\"restarts\":%d}", i > 0 ? "," : "",
                   s->child[i].name, (int)s->child[i].pid, s->child[i].restarts);
    buf_str(&b, "]}\n");
    if (file_write_atomic(path, b.data, b.len, &e) != 0)
        log_warn("supervisor.state_failed", "detail=\"%s\"", e.msg);
    buf_free(&b);
    free(path);
}

/* ---- children -------------------------------------------------------------------------------- */

/* Keeps the ports of the first start, so that nobody has to look for the coordinator again. */
static void endpoint_remember(struct supervisor *s)
{
    char *path = in_dir(s->config.dir, "endpoint.json");
    struct err e;
    cJSON *j = NULL;

    if (json_file_read(path, 65536, JSON_LIMITS_BODY, &j, &e) == 0) {
        const char *http = json_string_or(j, "http", ""),
                   *control = json_string_or(j, "control", "");
        if (strncmp(http, "http://", 7) == 0) {
            free(s->http);
            s->http = mem_strdup(http + 7);
        }
        if (strncmp(control, "tcp://", 6) == 0) {
            free(s->control);
            s->control = mem_strdup(control);
        }
    }
    cJSON_Delete(j);
    free(path);
}

static char **argv_make(struct supervisor *s, int i)
{
    const struct supervise_config *c = &s->config;
    char **v = mem_zalloc(16, sizeof *v);
    int n = 0;

    v[n++] = in_dir(c->bin_dir, i == 0 ? "steer-coordinator" : "steer-worker");
    v[n++] = mem_strdup("--dir");
    v[n++] = i == 0 ? mem_strdup(c->dir) : in_dir(c->dir, s->child[i].name);
    if (i == 0) {
        v[n++] = mem_strdup("--http");
        v[n++] = s->http != NULL ? mem_strdup(s->http) : mem_printf("127.0.0.1:%d", c->http_port);
        v[n++] = mem_strdup("--control");
        v[n++] = mem_strdup(s->control != NULL ? s->control : "tcp://127.0.0.1:0");
    } else {
        v[n++] = mem_strdup("--coordinator-dir");
        v[n++] = mem_strdup(c->dir);
        v[n++] = mem_strdup("--threads");
        v[n++] = mem_printf("%d", c->threads);
        v[n++] = mem_strdup("--name");
        v[n++] = mem_strdup(s->child[i].name);
    }
    return v;
}

/* In the child, after fork: only calls that are safe there. */
static void child_become(char **argv, int log, pid_t parent)
{
    static const char failed[] = ": cannot be executed\n";
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() == parent && dup2(log, STDOUT_FILENO) >= 0 && dup2(log, STDERR_FILENO) >= 0)
        execv(argv[0], argv);
    if (write(log, argv[0], strlen(argv[0])) < 0 || write(log, failed, sizeof failed - 1) < 0)
        _exit(126);
    _exit(127);
}

static void child_start(struct supervisor *s, int i)
{
    struct child *c = &s->child[i];
    char *name = mem_printf("logs/%s.log", c->name), *path = in_dir(s->config.dir, name);
    char **argv;
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    pid_t parent = getpid();

    if (i == 0 && c->restarts > 0)
        endpoint_remember(s);
    argv = argv_make(s, i);
    c->started_ms = clock_ms();
    c->pid = log >= 0 ? fork() : -1;
    if (c->pid == 0)
        child_become(argv, log, parent);
    if (c->pid < 0) {
        log_error("supervisor.start_failed", "name=%s errno=%d", c->name, errno);
        c->pid = 0;
        c->due_ms = clock_ms() + BACKOFF_MAX_MS;
    } else {
        log_info("supervisor.started", "name=%s pid=%d restarts=%d", c->name, (int)c->pid,
                 c->restarts);
    }
    for (int k = 0; argv[k] != NULL; k++)
        free(argv[k]);
    free(argv);
    if (log >= 0)
        close(log);
    free(path);
    free(name);
}

static void child_ended(struct child *c, int status)
{
    uint64_t now = clock_ms();

    if (now - c->started_ms > STEADY_MS || c->backoff_ms == 0)
        c->backoff_ms = BACKOFF_MIN_MS;
    else
        c->backoff_ms = c->backoff_ms * 2 < BACKOFF_MAX_MS ? c->backoff_ms * 2 : BACKOFF_MAX_MS;
    log_warn("supervisor.ended", "name=%s pid=%d exit=%d signal=%d restart_in_ms=%llu", c->name,
             (int)c->pid, WIFEXITED(status) ? WEXITSTATUS(status) : -1,
             WIFSIGNALED(status) ? WTERMSIG(status) : 0, (unsigned long long)c->backoff_ms);
    c->pid = 0;
    c->restarts++;
    c->due_ms = now + c->backoff_ms;
}

static bool reap(struct supervisor *s)
{
    bool any = false;
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (int i = 0; i < s->n; i++)
            if (s->child[i].pid == pid) {
                child_ended(&s->child[i], status);
                any = true;
            }
    return any;
}

/* Signals [first, last) and waits; SIGKILL for what is left at the deadline. */
static void children_stop(struct supervisor *s, int first, int last)
{
    uint64_t deadline = clock_ms() + SUPERVISE_STOP_MS;
    bool alive = true;

    for (int i = first; i < last; i++)
        if (s->child[i].pid > 0)
            kill(s->child[i].pid, SIGTERM);
    while (alive) {
        alive = false;
        reap(s);
        for (int i = first; i < last; i++)
            if (s->child[i].pid > 0) {
                alive = true;
                if (clock_ms() > deadline)
                    kill(s->child[i].pid, SIGKILL);
            }
        if (alive)
            clock_sleep_ms(20);
    }
}

static void supervise_loop(struct supervisor *s, const sigset_t *signals)
{
    for (;;) {
        struct timespec wait = {0, 100 * 1000000L};
        bool changed = reap(s);
        int got;
        for (int i = 0; i < s->n; i++)
            if (s->child[i].pid == 0 && clock_ms() >= s->child[i].due_ms) {
                child_start(s, i);
                changed = true;
            }
        if (changed)
            state_write(s);
        got = sigtimedwait(signals, NULL, &wait);
        if (got == SIGTERM || got == SIGINT)
            return;
    }
}

/* ready: is told once others can see from supervisor.json who holds the lock. */
static void supervise_run(const struct supervise_config *config, int ready)
{
    struct supervisor *s = mem_zalloc(1, sizeof *s);
    const struct err none = {0};
    sigset_t signals;
    char *path;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    s->config = *config;
    s->n = config->workers + 1;
    snprintf(s->child[0].name, sizeof s->child[0].name, "coordinator");
    for (int i = 1; i < s->n; i++)
        snprintf(s->child[i].name, sizeof s->child[i].name, "worker-%d", i);
    state_write(s);
    if (write(ready, &none, sizeof none) != (ssize_t)sizeof none)
        log_warn("supervisor.alone", "errno=%d", errno);
    close(ready);
    supervise_loop(s, &signals);
    log_info("supervisor.stopping", "children=%d", s->n);
    children_stop(s, 1, s->n);
    children_stop(s, 0, 1);
    path = in_dir(config->dir, "supervisor.json");
    unlink(path);
    log_info("supervisor.stopped", "%s", "");
    free(path);
    free(s->http);
    free(s->control);
    free(s);
}

/* In the first child: a session of its own, then the supervisor proper, which can never get a terminal back. */
static void daemon_become(const struct supervise_config *config, int ready)
{
    char *path = in_dir(config->dir, "logs/supervisor.log");
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644),
        null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int lock;
    struct err e = {0};

    free(path);
    if (setsid() < 0 || log < 0 || null < 0 || fork() != 0)
        _exit(0);
    lock = lock_take(config->dir, &e);
    if (lock >= 0) {
        path = in_dir(config->dir, "supervisor.json");
        unlink(path); /* of one that was killed: its pid may be anybody's by now */
        free(path);
        dup2(null, STDIN_FILENO);
        dup2(log, STDOUT_FILENO);
        dup2(log, STDERR_FILENO);
    }
    if (lock < 0)
        _exit(write(ready, &e, sizeof e) == (ssize_t)sizeof e ? 1 : 2);
    supervise_run(config, ready);
    _exit(0); /* the lock goes with the process */
}

int supervise_start(const struct supervise_config *config, struct err *e)
{
    int ready[2], rc, status;
    pid_t pid;
    char *logs = in_dir(config->dir, "logs");
    struct err answer = {0};

    CHECK(config->workers >= 0 && config->workers <= SUPERVISE_WORKERS_MAX);
    rc = file_make_dirs(logs, e);
    free(logs);
    if (rc != 0)
        return rc;
    if (pipe2(ready, O_CLOEXEC) != 0)
        return err_sys(e, "pipe");
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        close(ready[0]);
        daemon_become(config, ready[1]);
    }
    close(ready[1]);
    if (pid < 0)
        rc = err_sys(e, "fork");
    else if (waitpid(pid, &status, 0) < 0 ||
             read(ready[0], &answer, sizeof answer) != (ssize_t)sizeof answer)
        rc = err_set(e, ERR_SYSTEM, "the supervisor did not start; see %s/logs/supervisor.log",
                     config->dir);
    else if (answer.code != 0) {
        *e = answer;
        rc = (int)answer.code;
    }
    close(ready[0]);
    return rc;
}
