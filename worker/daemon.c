#include "worker/daemon.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "json/json_file.h"
#include "net/link.h"
#include "worker/daemon_inner.h"

#define TICK_MS 50
#define STATUS_SAY_MS 2000

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
                              .says = worker_outcome,
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

int daemon_run(const struct worker_config *config, struct err *e)
{
    struct worker *w = mem_zalloc(1, sizeof *w);
    int rc = worker_open(w, config, e);

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
