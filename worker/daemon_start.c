#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "model/bf16.h"
#include "model/gemm.h"
#include "net/keys.h"
#include "net/link.h"
#include "worker/daemon_inner.h"
#include "worker/fingerprint.h"

#define PUBLISH_DEADLINE_MS 600000
#define STOP_MS 5000

/* ---- what other threads say ------------------------------------------------------------------ */

void worker_outcome(void *self, struct control *outcome)
{
    struct worker *w = self;

    mailbox_put(w->box, outcome);
}

static void on_report(void *self, const struct ps_report *r)
{
    struct worker *w = self;

    mailbox_put(w->box, session_report(r));
}

/* Checkpoint bytes to the coordinator's store. */
static int bytes_publish(void *self, const void *bytes, size_t len, struct digest *out,
                         struct err *e)
{
    struct worker *w = self;
    int rc = artifact_publish_bytes(w->artifacts, bytes, len, PUBLISH_DEADLINE_MS, out, e);

    if (rc == 0)
        artifact_forget(w->artifacts, out->hex); /* read again after a roll-back only */
    return rc;
}

/* ---- start and stop -------------------------------------------------------------------------- */

/* A stable id of the directory, and a lock on it: two processes with one id would take each other's
 * leases. */
static int identity_open(struct worker *w, struct err *e)
{
    struct buf text = BUF_INIT;
    uint8_t random[8];
    int rc;

    w->lock_fd = open(w->paths.lock, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (w->lock_fd < 0)
        return err_sys(e, "open %s", w->paths.lock);
    if (flock(w->lock_fd, LOCK_EX | LOCK_NB) != 0)
        return err_set(e, ERR_BUSY, "another worker runs in %s", w->config.dir);
    rc = file_read(w->paths.id, sizeof w->id - 1, &text, e);
    if (rc == 0 && text.len > 1 && strspn(text.data, "w0123456789abcdef") == text.len) {
        memcpy(w->id, text.data, text.len + 1);
    } else if (rc == 0 || rc == ERR_NOT_FOUND) {
        if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
            rc = err_sys(e, "random bytes");
        else
            rc = 0;
        w->id[0] = 'w';
        for (size_t i = 0; i < sizeof random; i++)
            snprintf(w->id + 1 + 2 * i, 3, "%02x", random[i]);
        if (rc == 0)
            rc = file_write_atomic(w->paths.id, w->id, strlen(w->id), e);
    }
    buf_free(&text);
    return rc;
}

static int directories_open(struct worker *w, struct err *e)
{
    const char *dir = w->config.dir;
    struct worker_paths *p = &w->paths;
    int rc;

    snprintf(p->id, sizeof p->id, "%s/worker.id", dir);
    snprintf(p->lock, sizeof p->lock, "%s/lock", dir);
    snprintf(p->cache, sizeof p->cache, "%s/cache", dir);
    snprintf(p->trees, sizeof p->trees, "%s/trees", dir);
    snprintf(p->scratch, sizeof p->scratch, "%s/scratch", dir);
    snprintf(p->endpoint, sizeof p->endpoint, "%s/endpoint.json", w->config.coordinator_dir);
    rc = file_make_dirs(dir, e);
    if (rc == 0)
        rc = identity_open(w, e);
    if (rc == 0)
        rc = file_remove_tree(p->scratch, e); /* of a process that is gone */
    if (rc == 0)
        rc = file_make_dirs(p->scratch, e);
    if (rc == 0)
        rc = file_make_dirs(p->trees, e);
    if (rc == 0)
        rc = blob_open(p->cache, &w->cache, e);
    if (rc == 0)
        blob_sweep(w->cache);
    if (rc == 0)
        rc = artifact_client_new("http://127.0.0.1:7780", w->cache, p->trees, &w->artifacts, e);
    if (rc == 0 && w->config.token[0] != '\0') {
        artifact_client_set_token(w->artifacts, w->config.token);
        rc = keys_use(w->config.token, e);
    }
    return rc;
}

static pthread_t signal_thread;

/* A library may have started threads before main(), which take a signal that all others block: it
 * is handed on to the thread that reads the descriptor. */
static void signal_forward(int signal)
{
    if (!pthread_equal(pthread_self(), signal_thread))
        pthread_kill(signal_thread, signal);
}

static int signals_open(struct worker *w, struct err *e)
{
    const struct sigaction forward = {.sa_handler = signal_forward, .sa_flags = SA_RESTART};
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    signal_thread = pthread_self();
    sigaction(SIGTERM, &forward, NULL);
    sigaction(SIGINT, &forward, NULL);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
        return err_sys(e, "block signals");
    w->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return w->signal_fd < 0 ? err_sys(e, "signalfd") : 0;
}

/* Nobody reads the descriptor any more: the next signal ends the process at once. */
static void signals_release(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* The endpoint that others dial. */
static void endpoint_choose(struct worker *w, const char *bound)
{
    const char *port = strrchr(bound, ':');
    char host[121] = "";

    if (w->config.advertise[0] != '\0')
        snprintf(w->endpoint, sizeof w->endpoint, "%s", w->config.advertise);
    else if (strncmp(bound, "tcp://0.0.0.0:", 14) == 0 && port != NULL &&
             gethostname(host, sizeof host - 1) == 0)
        snprintf(w->endpoint, sizeof w->endpoint, "tcp://%s%s", host, port);
    else
        snprintf(w->endpoint, sizeof w->endpoint, "%s", bound);
}

static int threads_open(struct worker *w, struct err *e)
{
    const struct ps_host_env host_env = {w, bytes_publish, on_report, w->config.threads - 1};
    struct executor_env env = {w->artifacts, w->paths.scratch, NULL, w, worker_outcome};
    char bound[WIRE_TEXT_MAX] = "";

    if (w->config.pin)
        env.cores = w->cores = cores_claim(CORES_DIR, w->config.threads);
    w->box = mailbox_new();
    if ((w->config.roles & ROLE_PARAMS) != 0) {
        int rc = ps_host_start(w->config.listen, NULL, &host_env, bound, sizeof bound, &w->host, e);
        if (rc != 0)
            return rc;
        endpoint_choose(w, bound);
    }
    w->executor = executor_start(w->config.threads, &env);
    return 0;
}

static int duty_open(struct worker *w, struct err *e)
{
    struct control *hello = control_new(CONTROL_HELLO);
    struct digest fingerprint, bf16;
    struct sysinfo info;

    if (getrandom(&hello->boot, sizeof hello->boot, 0) != (ssize_t)sizeof hello->boot ||
        sysinfo(&info) != 0) {
        control_free(hello);
        return err_sys(e, "facts of this machine");
    }
    bf16_limit(w->config.bf16);
    fingerprint_take(&fingerprint);
    fingerprint_take_bf16(&fingerprint, &bf16);
    memcpy(hello->worker, w->id, sizeof hello->worker);
    snprintf(hello->name, sizeof hello->name, "%s", w->config.name);
    memcpy(hello->endpoint, w->endpoint, sizeof hello->endpoint);
    hello->roles = w->config.roles;
    hello->threads = w->config.threads;
    hello->memory_bytes = (uint64_t)info.totalram * info.mem_unit;
    snprintf(hello->build, sizeof hello->build, "%s", STEER_VERSION);
    snprintf(hello->blas, sizeof hello->blas, "%s", gemm_kernels());
    snprintf(hello->fingerprint, sizeof hello->fingerprint, "%s", fingerprint.hex);
    snprintf(hello->fingerprint_bf16, sizeof hello->fingerprint_bf16, "%s", bf16.hex);
    duty_init(&w->duty, hello);
    log_info("worker.start",
             "worker=%s name=%s threads=%u roles=%u data=%s blas=%s class=%.12s "
             "bf16=%s bf16_class=%.12s pinned=%d",
             w->id, w->config.name, w->config.threads, w->config.roles, w->endpoint, hello->blas,
             fingerprint.hex, bf16_how_name(bf16_how()), bf16.hex, w->cores != NULL);
    control_free(hello);
    return 0;
}

int worker_open(struct worker *w, const struct worker_config *config, struct err *e)
{
    int rc;

    w->config = *config;
    w->lock_fd = w->signal_fd = -1;
    rc = signals_open(w, e);
    if (rc == 0)
        rc = directories_open(w, e);
    if (rc == 0)
        rc = threads_open(w, e);
    return rc == 0 ? duty_open(w, e) : rc;
}

void worker_close(struct worker *w)
{
    struct control *m;

    signals_release();
    if (w->session != NULL)
        session_close(w->session, 0);
    /* A thread that hangs would come back to what is freed here. */
    if (!executor_stop(w->executor, STOP_MS)) {
        log_warn("thread.stuck", "worker=%s", w->id);
        _exit(w->exit_code != 0);
    }
    if (!session_wait_all(STOP_MS)) {
        log_warn("session.stuck", "worker=%s", w->id);
        _exit(w->exit_code != 0);
    }
    ps_host_stop(w->host);
    while (w->box != NULL && (m = mailbox_take(w->box)) != NULL)
        control_free(m);
    mailbox_free(w->box);
    control_free(w->outbox);
    duty_fini(&w->duty);
    link_close(w->socket);
    link_context_term();
    artifact_client_free(w->artifacts);
    blob_close(w->cache);
    cores_free(w->cores);
    if (w->signal_fd >= 0)
        close(w->signal_fd);
    if (w->lock_fd >= 0)
        close(w->lock_fd);
}
