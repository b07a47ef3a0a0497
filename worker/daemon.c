#include "worker/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "artifact/artifact.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "json/json_file.h"
#include "model/bf16.h"
#include "model/gemm.h"
#include "net/keys.h"
#include "net/link.h"
#include "worker/cores.h"
#include "worker/duty.h"
#include "worker/executor.h"
#include "worker/fingerprint.h"
#include "worker/mailbox.h"
#include "worker/session.h"

#define TICK_MS 50
#define PUBLISH_DEADLINE_MS 600000
#define STATUS_SAY_MS 2000
#define STOP_MS 5000

struct worker {
    struct worker_config config;
    struct worker_paths {
        char id[600], lock[600], cache[600], trees[600], scratch[600], endpoint[600];
    } paths;
    int lock_fd, signal_fd;
    char id[WIRE_ID_MAX], endpoint[WIRE_TEXT_MAX];
    struct blob_store *cache;
    struct artifact_client *artifacts;
    struct mailbox *box; /* struct control *: outcomes of tasks and sessions */
    struct ps_host *host;
    struct executor *executor;
    struct session *session;
    struct cores *cores; /* NULL: compute threads are not pinned */
    struct duty duty;
    struct control *outbox; /* said of tasks, and waiting for more of the same: a chain */
    void *socket;
    char address[WIRE_TEXT_MAX]; /* of the socket */
    bool welcomed;               /* on it */
    bool stop;
    int exit_code;
    uint64_t status_said_ms;
    struct pulse pulse;
};

/* ---- what other threads say ------------------------------------------------------------------ */

static void on_outcome(void *self, struct control *outcome)
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

/* ---- the link -------------------------------------------------------------------------------- */

/* Where the coordinator is now: fixed, or from its endpoint.json, because it may come back on
 * another port. */
static int coordinator_find(const struct worker *w, char *out, size_t cap, struct err *e)
{
    cJSON *j = NULL;
    const char *control;
    int rc;

    if (w->config.coordinator[0] != '\0') {
        snprintf(out, cap, "%s", w->config.coordinator);
        return 0;
    }
    rc = json_file_read(w->paths.endpoint, 65536, JSON_LIMITS_BODY, &j, e);
    if (rc == 0)
        rc = json_need_string(j, "control", &control, e);
    if (rc == 0)
        snprintf(out, cap, "%s", control);
    cJSON_Delete(j);
    return rc;
}

static void link_drop(struct worker *w)
{
    link_close(w->socket);
    w->socket = NULL;
    w->address[0] = '\0';
    w->welcomed = false;
}

/* A link on which nobody has welcomed us is still being made, by ZeroMQ: it is not begun anew to the same address, or one
 * that needs longer than our patience would never come about. */
static void link_renew(struct worker *w)
{
    char address[WIRE_TEXT_MAX];
    struct err e;

    if (coordinator_find(w, address, sizeof address, &e) != 0) {
        log_debug("coordinator.unknown", "error=%s", e.msg);
        link_drop(w);
        return;
    }
    if (w->socket != NULL && !w->welcomed && strcmp(address, w->address) == 0)
        return;
    if (w->socket != NULL)
        log_warn("coordinator.silent", "worker=%s address=%s", w->id, address);
    link_drop(w);
    w->socket = link_dealer(LINK_CONTROL, address, &e);
    if (w->socket == NULL)
        log_warn("coordinator.address", "error=%s", e.msg);
    else
        snprintf(w->address, sizeof w->address, "%s", address);
}

static void said_fault(enum control_type type, bool before)
{
    if (type == CONTROL_HELLO && before)
        fault_hit(FAULT_HELLO_BEFORE);
    else if (type == CONTROL_TASK_DONE)
        fault_hit(before ? FAULT_TASK_DONE_BEFORE : FAULT_TASK_DONE_AFTER);
    else if (type == CONTROL_SESSION_CHECKPOINT || type == CONTROL_SESSION_DONE)
        fault_hit(before ? FAULT_CKPT_REPORT_BEFORE : FAULT_CKPT_REPORT_AFTER);
}

/* False: nobody is connected. */
static bool frame_send(struct worker *w, struct control *m)
{
    struct buf frame = BUF_INIT;
    struct link_frame f;
    struct err e;
    bool sent;

    said_fault(m->type, true);
    control_mend(m);
    control_pack(m, &frame);
    f = (struct link_frame){.data = frame.data, .len = frame.len};
    sent = w->socket != NULL && link_send(w->socket, NULL, &f, 1, &e) == 0;
    said_fault(m->type, false);
    if (!sent)
        log_debug("control.unsent", "type=%s",
                  control_type_name(m->type)); /* duty repeats what matters */
    buf_free(&frame);
    control_free(m);
    return sent;
}

static bool outbox_send(struct worker *w)
{
    struct control *m = w->outbox;

    w->outbox = NULL;
    return m == NULL || frame_send(w, m);
}

/* What ended in this turn of the loop shares frames, up to outbox_send() at its end. */
static bool message_send(struct worker *w, struct control *m)
{
    bool sent = true;

    if (w->outbox != NULL && control_join(w->outbox, m))
        return true;
    sent = outbox_send(w);
    if (m->type != CONTROL_TASK_DONE)
        return frame_send(w, m) && sent;
    w->outbox = m;
    return sent;
}

/* A line for the job's log, for people. Lost when nobody is connected. */
__attribute__((format(printf, 3, 4))) static void job_say(struct worker *w, uint64_t job,
                                                          const char *fmt, ...)
{
    struct control *m = control_new(CONTROL_LOG);
    va_list ap;

    m->job = job;
    m->term = w->duty.term;
    memcpy(m->cluster, w->duty.cluster, sizeof m->cluster);
    va_start(ap, fmt);
    vsnprintf(m->text, sizeof m->text, fmt, ap);
    va_end(ap);
    message_send(w, m);
}

/* What people want to know of what this worker reports. */
static void outcome_say(struct worker *w, const struct control *m)
{
    uint64_t now = clock_ms();

    switch (m->type) {
    case CONTROL_TASK_FAILED:
        job_say(w, m->job, "task %" PRIu64 " attempt %" PRIu64 " (%s) failed: %.700s", m->task,
                m->attempt, m->task_kind, m->text);
        break;
    case CONTROL_TASK_DONE:
        if (m->next == NULL)
            job_say(w, m->job, "task %" PRIu64 " (%s) done", m->task, m->task_kind);
        else
            job_say(w, m->job, "%u tasks (%s) done: %" PRIu64 " to %" PRIu64, m->links_n + 1,
                    m->task_kind, m->task, m->last->task);
        break;
    case CONTROL_SESSION_STATUS:
        if (m->partial || now - w->status_said_ms < STATUS_SAY_MS)
            return;
        w->status_said_ms = now;
        job_say(w, m->job, "step %" PRIu64 " loss %.4f gradient %.3f rate %.3g, %.0f tokens/s",
                m->version, m->loss, m->grad_norm, m->lr, m->tokens_per_s);
        break;
    case CONTROL_SESSION_CHECKPOINT:
    case CONTROL_SESSION_DONE:
        job_say(w, m->job, "checkpoint of step %" PRIu64 ": %.12s", m->version, m->manifest.hex);
        break;
    case CONTROL_SESSION_FAILED:
        log_error("session.failed", "session=%" PRIu64 " code=%s text=\"%s\"", m->session,
                  err_name(m->code), m->text);
        job_say(w, m->job, "training failed: %.700s", m->text);
        break;
    default:
        break;
    }
}

/* ---- actions --------------------------------------------------------------------------------- */

static void session_end(struct worker *w, uint64_t keep)
{
    if (w->session == NULL)
        return;
    session_close(w->session, keep);
    w->session = NULL;
}

static void session_begin(struct worker *w, const struct control *open)
{
    struct session_env env = {.artifacts = w->artifacts,
                              .host = w->host,
                              .self = w,
                              .says = on_outcome,
                              .cores = w->cores};

    session_end(w, open->from_attempt);
    memcpy(env.worker, w->id, sizeof env.worker);
    env.threads = (w->config.roles & ROLE_COMPUTE) != 0 ? w->config.threads : 0;
    log_info("session.open",
             "session=%" PRIu64 " attempt=%" PRIu64 " version=%" PRIu64 " hosts=%u slots=%u",
             open->session, open->session_attempt, open->version, open->hosts_n, open->slots_n);
    job_say(w, open->job,
            "training from step %" PRIu64 " (attempt %" PRIu64
            "): %u parameter hosts, %u compute workers",
            open->version, open->session_attempt, open->hosts_n, open->slots_n);
    w->session = session_open(&env, open);
}

static void on_terms(struct worker *w, const struct control *welcome)
{
    w->welcomed = true;
    log_info("coordinator.welcome", "cluster=%s term=%" PRIu64 " http=%s", welcome->cluster,
             welcome->term, welcome->http);
    if (welcome->text[0] != '\0')
        log_warn("worker.no_work", "text=\"%s\"", welcome->text);
    artifact_client_set_url(w->artifacts, welcome->http);
}

static void on_exit_action(struct worker *w, const struct duty_action *a)
{
    w->stop = true;
    w->exit_code = a->code;
    if (a->code != 0)
        log_error("coordinator.refused", "code=%s text=\"%s\"", err_name(a->code),
                  a->message->text);
    else
        log_info("worker.drained", "worker=%s", w->id);
}

static void action_do(struct worker *w, const struct duty_action *a)
{
    const struct duty_event unsent = {.type = DUTY_UNSENT};
    struct duty_actions none;

    switch (a->type) {
    case DUTY_SEND:
        if (!message_send(w, a->message))
            duty_step(&w->duty, &unsent, &none);
        break;
    case DUTY_RECONNECT:
        link_renew(w);
        break;
    case DUTY_TERMS:
        on_terms(w, a->message);
        break;
    case DUTY_TASK_START:
        executor_task(w->executor, a->message);
        break;
    case DUTY_TASK_STOP:
        executor_cancel(w->executor, a->task, a->epoch);
        break;
    case DUTY_SESSION_OPEN:
        session_begin(w, a->message);
        break;
    case DUTY_SESSION_ASSIGN:
        if (w->session != NULL)
            session_assign(w->session, a->message);
        break;
    case DUTY_SESSION_CLOSE:
        session_end(w, a->attempt);
        break;
    case DUTY_SESSION_FREEZE:
        if (w->host != NULL)
            ps_host_freeze(w->host, a->message->session, a->message->session_attempt,
                           a->message->edge);
        break;
    case DUTY_SESSION_WAIVE:
        if (w->host != NULL)
            ps_host_waive(w->host, a->message->session, a->message->session_attempt,
                          a->message->step,
                          (struct tree_node){a->message->level, a->message->node});
        break;
    case DUTY_SESSION_FORGET:
        if (w->host != NULL)
            ps_host_close(w->host, a->session, a->attempt);
        break;
    case DUTY_EXIT:
        on_exit_action(w, a);
        break;
    }
}

static void event_do(struct worker *w, struct duty_event event)
{
    struct duty_actions actions;

    event.now_ms = clock_ms();
    duty_step(&w->duty, &event, &actions);
    for (uint32_t i = 0; i < actions.n; i++)
        action_do(w, &actions.action[i]);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void socket_drain(struct worker *w)
{
    struct link_frame frames[LINK_FRAMES_MAX];
    struct err e = {0};
    int n = 1;

    while (w->socket != NULL && n > 0 && !w->stop) {
        struct control *m = NULL;
        int rc;
        if (link_recv(w->socket, NULL, frames, &n, &e) != 0 || n == 0)
            return;
        rc = n == 1 ? control_unpack(frames[0].data, frames[0].len, &m, &e)
                    : err_set(&e, ERR_INVALID, "a message of %d frames, must be 1", n);
        if (rc == 0 && !control_from_coordinator(m->type))
            rc = err_set(&e, ERR_INVALID, "%s is not the coordinator's to say",
                         control_type_name(m->type));
        if (rc != 0)
            log_warn("control.bad_message", "error=\"%s\"", e.msg);
        if (rc != 0 && rc != ERR_UNSUPPORTED)
            event_do(w, (struct duty_event){.type = DUTY_DAMAGED});
        for (const struct control *at = m; rc == 0 && at != NULL; at = at->next)
            event_do(w, (struct duty_event){.type = DUTY_HEARD, .message = at});
        control_free(m);
        link_frames_release(frames, n);
    }
}

static void box_drain(struct worker *w)
{
    struct control *m;

    while ((m = mailbox_take(w->box)) != NULL) {
        bool task = m->type == CONTROL_TASK_DONE || m->type == CONTROL_TASK_FAILED;
        if ((m->type == CONTROL_TASK_FAILED || m->type == CONTROL_SESSION_FAILED) &&
            m->code == ERR_IO) {
            /* Our own disk: nothing that is read back from it can be trusted, and every further
             * task would fail here and count as a fault of the job. Gone like a crash: what it had
             * is given to others at once. */
            log_error("storage.failed", "error=\"%s\"", m->text);
            _exit(1);
        }
        outcome_say(w, m);
        while (m != NULL) {
            struct control *rest = control_split(m);
            event_do(w, (struct duty_event){.type = task ? DUTY_TASK_END : DUTY_SESSION_SAYS,
                                            .outcome = m});
            m = rest;
        }
    }
}

static void outbox_drain(struct worker *w)
{
    const struct duty_event unsent = {.type = DUTY_UNSENT};
    struct duty_actions none;

    if (!outbox_send(w))
        duty_step(&w->duty, &unsent, &none);
}

static void on_progress(void *self, uint64_t task, uint64_t epoch, uint64_t done, uint64_t total,
                        uint64_t moved)
{
    event_do(self, (struct duty_event){.type = DUTY_TASK_PROGRESS,
                                       .task = task,
                                       .epoch = epoch,
                                       .done = done,
                                       .total = total,
                                       .moved = moved});
}

static void signals_drain(struct worker *w)
{
    struct signalfd_siginfo info;

    while (read(w->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (w->duty.draining) {
            log_warn("worker.stopped", "signal=%u", info.ssi_signo);
            _exit(1); /* as a crash would: leases run out, scratch is emptied at the next start */
        } else {
            log_info("worker.draining", "signal=%u", info.ssi_signo);
            event_do(w, (struct duty_event){.type = DUTY_DRAIN});
        }
    }
}

static void tick(struct worker *w)
{
    if (w->socket == NULL)
        link_renew(w);
    executor_each(w->executor, &w->pulse, on_progress, w);
    session_pulse(w->session, &w->pulse);
    pulse_end(&w->pulse);
    event_do(w, (struct duty_event){.type = DUTY_TICK, .progress = w->pulse.rounds});
}

static void loop(struct worker *w)
{
    uint64_t ticked = 0;

    while (!w->stop) {
        int fds[2] = {mailbox_fd(w->box), w->signal_fd};
        link_poll(&w->socket, w->socket != NULL, fds, 2, TICK_MS);
        socket_drain(w);
        box_drain(w);
        signals_drain(w);
        if (clock_ms() - ticked >= TICK_MS) {
            ticked = clock_ms();
            tick(w);
        }
        outbox_drain(w);
    }
    outbox_drain(w);
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
    struct executor_env env = {w->artifacts, w->paths.scratch, NULL, w, on_outcome};
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

static void worker_close(struct worker *w)
{
    struct control *m;

    signals_release();
    session_end(w, 0);
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

int daemon_run(const struct worker_config *config, struct err *e)
{
    struct worker *w = mem_zalloc(1, sizeof *w);
    int rc;

    w->config = *config;
    w->lock_fd = w->signal_fd = -1;
    rc = signals_open(w, e);
    if (rc == 0)
        rc = directories_open(w, e);
    if (rc == 0)
        rc = threads_open(w, e);
    if (rc == 0)
        rc = duty_open(w, e);
    if (rc == 0) {
        loop(w);
        rc = w->exit_code;
        if (rc != 0)
            err_set(e, (enum err_code)rc, "refused by the coordinator");
    }
    worker_close(w);
    free(w);
    return rc;
}
