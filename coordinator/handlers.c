/*
 * One message of a worker: opened, checked (protocol, cluster, term, known peer), then one function
 * of a table. Peers are known by the routing id that said HELLO; a peer that reconnected has a new
 * one and is asked to say HELLO again.
 *
 * While parked, heartbeats are answered and all else is dropped: results are repeated until they
 * are acknowledged.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "coordinator/coordinator.h"

#define LOG_BYTES_MAX (64u << 20) /* of one job; later lines are dropped */

/* ---- peers and sending ----------------------------------------------------------------------- */

static void send_to(struct coordinator *c, const struct link_peer *peer, struct control *m)
{
    struct buf out = BUF_INIT;
    struct link_frame frame;
    struct err e = {0};

    snprintf(m->cluster, sizeof m->cluster, "%s", journal_cluster(c->journal));
    m->term = journal_term(c->journal);
    control_mend(m);
    control_pack(m, &out);
    frame = (struct link_frame){.data = out.data, .len = out.len};
    if (link_send(c->router, peer, &frame, 1, &e) != 0) {
        c->counters.send_refused++;
        log_warn("send.refused", "type=%s error=\"%s\"", control_type_name(m->type), e.msg);
    }
    buf_free(&out);
    control_free(m);
}

static struct coordinator_peer *peer_of(struct coordinator *c, const char *worker)
{
    if (c->peer_last < c->peers_n && strcmp(c->peer[c->peer_last].worker, worker) == 0)
        return &c->peer[c->peer_last]; /* one batch says many things to the same */
    for (int i = 0; i < c->peers_n; i++) {
        if (strcmp(c->peer[i].worker, worker) != 0)
            continue;
        c->peer_last = i;
        return &c->peer[i];
    }
    return NULL;
}

static struct coordinator_peer *peer_by_id(struct coordinator *c, const struct link_peer *peer)
{
    for (int i = 0; i < c->peers_n; i++) {
        if (c->peer[i].peer.len == peer->len &&
            memcmp(c->peer[i].peer.id, peer->id, peer->len) == 0)
            return &c->peer[i];
    }
    return NULL;
}

static void waiting_free(struct coordinator_peer *p)
{
    control_free(p->acks);
    control_free(p->cancels);
    control_free(p->tasks);
    p->acks = p->cancels = p->tasks = NULL;
}

static void peer_bind(struct coordinator *c, const char *worker, const struct link_peer *peer)
{
    struct coordinator_peer *p = peer_of(c, worker);

    if (p == NULL) {
        if (c->peers_n == c->peers_cap) {
            c->peers_cap = c->peers_cap * 2 + 16;
            c->peer = mem_grow(c->peer, (size_t)c->peers_cap, sizeof *c->peer);
        }
        p = &c->peer[c->peers_n++];
        *p = (struct coordinator_peer){.worker = ""};
        snprintf(p->worker, sizeof p->worker, "%s", worker);
    }
    p->peer = *peer;
}

static void peer_drop(struct coordinator *c, const char *worker)
{
    struct coordinator_peer *p = peer_of(c, worker);

    if (p == NULL)
        return;
    waiting_free(p);
    *p = c->peer[--c->peers_n];
}

void coordinator_peers_free(struct coordinator *c)
{
    for (int i = 0; i < c->peers_n; i++)
        waiting_free(&c->peer[i]);
    free(c->peer);
}

static void letter_send(struct coordinator *c, struct coordinator_peer *p, struct control **waiting)
{
    struct control *m = *waiting;

    *waiting = NULL;
    if (m != NULL)
        send_to(c, &p->peer, m);
}

static void tasks_send(struct coordinator *c, struct coordinator_peer *p)
{
    const struct control *m = p->tasks;

    if (m == NULL)
        return;
    fault_hit(FAULT_GRANT_BEFORE);
    log_info("task.lease",
             "worker=%s kind=%s job=%" PRIu64 " tasks=%u task=%" PRIu64 " attempt=%" PRIu64
             " index=%u",
             p->worker, m->task_kind, m->job, m->links_n + 1, m->task, m->epoch, m->index);
    letter_send(c, p, &p->tasks);
    fault_hit(FAULT_GRANT_AFTER);
}

/* Acknowledgements first: they make the room that leases need. */
static void waiting_send(struct coordinator *c, struct coordinator_peer *p)
{
    if (p->acks != NULL) {
        fault_hit(FAULT_TASK_ACK_BEFORE);
        letter_send(c, p, &p->acks);
        fault_hit(FAULT_TASK_ACK_AFTER);
    }
    letter_send(c, p, &p->cancels);
    tasks_send(c, p);
}

void coordinator_send_all(struct coordinator *c)
{
    for (int i = 0; i < c->peers_n; i++)
        waiting_send(c, &c->peer[i]);
}

void coordinator_send(struct coordinator *c, const char *worker, struct control *message)
{
    struct coordinator_peer *p = peer_of(c, worker);
    struct control **waiting = NULL;

    if (p == NULL) {
        c->counters.send_refused++;
        control_free(message);
        return;
    }
    if (message->task != 0)
        waiting = message->type == CONTROL_TASK          ? &p->tasks
                  : message->type == CONTROL_TASK_CANCEL ? &p->cancels
                  : message->type == CONTROL_ACK         ? &p->acks
                                                         : NULL;
    if (waiting != NULL && *waiting != NULL && control_join(*waiting, message))
        return;
    if (waiting == NULL || *waiting != NULL)
        waiting_send(c, p);
    if (waiting != NULL)
        *waiting = message;
    else
        send_to(c, &p->peer, message);
}

static void reject(struct coordinator *c, const struct link_peer *peer, enum err_code code,
                   const char *text)
{
    struct control *m = control_new(CONTROL_REJECT);

    m->code = (int32_t)code;
    snprintf(m->text, sizeof m->text, "%s", text);
    send_to(c, peer, m);
}

/* ---- from the roster to the scheduler -------------------------------------------------------- */

static void worker_event(struct coordinator *c, enum sched_event_type type, const char *worker,
                         bool crashed)
{
    struct sched_event ev = {.type = type, .crashed = crashed};

    snprintf(ev.worker, sizeof ev.worker, "%s", worker);
    coordinator_event(c, &ev);
}

static void roster_act(struct coordinator *c, const struct roster_action *act)
{
    switch (act->type) {
    case ROSTER_IS_REPLACED:
        log_warn("worker.replaced", "worker=%s", act->worker);
        worker_event(c, SCHED_WORKER_GONE, act->worker, true);
        break;
    case ROSTER_IS_SUSPECT:
        log_warn("worker.suspect", "worker=%s", act->worker);
        worker_event(c, SCHED_WORKER_SUSPECT, act->worker, false);
        break;
    case ROSTER_IS_OK:
        worker_event(c, SCHED_WORKER_OK, act->worker, false);
        break;
    case ROSTER_IS_DRAINING:
        log_info("worker.draining", "worker=%s", act->worker);
        worker_event(c, SCHED_WORKER_DRAIN, act->worker, false);
        break;
    case ROSTER_IS_LOST:
        log_warn("worker.lost", "worker=%s", act->worker);
        worker_event(c, SCHED_WORKER_GONE, act->worker, true);
        peer_drop(c, act->worker);
        break;
    case ROSTER_IS_GONE:
        log_info("worker.left", "worker=%s", act->worker);
        worker_event(c, SCHED_WORKER_GONE, act->worker, false);
        peer_drop(c, act->worker);
        break;
    case ROSTER_IS_UP: /* on_hello() tells the scheduler: it has the leases */
    case ROSTER_REJECTED:
    case ROSTER_UNKNOWN:
        break;
    }
}

void handlers_roster(struct coordinator *c)
{
    for (int i = 0; i < c->roster_actions->n; i++)
        roster_act(c, &c->roster_actions->v[i]);
    c->roster_actions->n = 0;
}

/* ---- messages -------------------------------------------------------------------------------- */

struct message {
    struct coordinator *c;
    const struct link_peer *peer;
    char worker[ROSTER_ID_MAX];
    struct control *m;
};

static void leases_of(const struct control *m, struct sched_lease *out)
{
    for (uint32_t i = 0; i < m->leases_n; i++)
        out[i] = (struct sched_lease){m->lease[i].task, m->lease[i].epoch, m->lease[i].done,
                                      m->lease[i].total, m->lease[i].moved};
}

static void welcome(const struct message *q)
{
    struct control *m = control_new(CONTROL_WELCOME);

    m->heartbeat_ms = q->c->config.heartbeat_ms;
    m->lease_ms = q->c->config.lease_ms;
    snprintf(m->http, sizeof m->http, "%s", q->c->http_base);
    send_to(q->c, q->peer, m);
}

static void hello_fill(const struct control *m, struct roster_worker *w)
{
    snprintf(w->id, sizeof w->id, "%s", m->worker);
    w->boot = m->boot;
    snprintf(w->name, sizeof w->name, "%s", m->name);
    snprintf(w->endpoint, sizeof w->endpoint, "%s", m->endpoint);
    snprintf(w->build, sizeof w->build, "%s", m->build);
    snprintf(w->fingerprint, sizeof w->fingerprint, "%s", m->fingerprint);
    snprintf(w->blas, sizeof w->blas, "%s", m->blas);
    snprintf(w->fingerprint_bf16, sizeof w->fingerprint_bf16, "%s", m->fingerprint_bf16);
    w->roles = m->roles;
    w->threads = m->threads;
    w->memory_bytes = m->memory_bytes;
    w->draining = m->draining;
    w->progress = m->progress;
}

/* A worker in quarantine is told why, and goes. */
static bool refused(const struct message *q)
{
    const struct sched_quarantine *why = sched_quarantined(&q->c->sched, q->m->worker);
    char text[600];

    if (why == NULL)
        return false;
    if (!coordinator_flush(
            q->c)) /* it may be news of this turn: gone with us, if it is not written */
        return true;
    snprintf(text, sizeof text,
             "this worker is in quarantine: %s; an operator lets it work again with: steerctl "
             "worker release %s",
             why->reason, why->worker);
    reject(q->c, q->peer, ERR_DENIED, text);
    worker_event(q->c, SCHED_WORKER_REFUSED, q->m->worker, false);
    log_warn("worker.refused", "worker=%s reason=\"%s\"", why->worker, why->reason);
    return true;
}

static void on_hello(const struct message *q)
{
    struct roster_worker *w = mem_zalloc(1, sizeof *w);
    struct sched_lease lease[WIRE_LEASES_MAX];
    struct sched_event ev = {
        .type = SCHED_WORKER_UP, .lease = lease, .leases_n = (int)q->m->leases_n};
    struct roster_actions *acts = q->c->roster_actions;

    hello_fill(q->m, w);
    if (refused(q)) {
        free(w);
        return;
    }
    roster_step(&q->c->roster,
                &(struct roster_event){.type = ROSTER_HELLO,
                                       .now_ms = clock_ms(),
                                       .wall_ms = clock_wall_ms(),
                                       .worker = w->id,
                                       .hello = w},
                acts);
    if (acts->v[acts->n - 1].type == ROSTER_REJECTED) {
        reject(q->c, q->peer, ERR_INVALID, acts->v[acts->n - 1].text);
        acts->n = 0;
        free(w);
        return;
    }
    ev.returned = acts->v[acts->n - 1].returned;
    handlers_roster(q->c); /* a replaced process goes before its successor comes */
    peer_bind(q->c, w->id, q->peer);
    fault_hit(FAULT_WELCOME_BEFORE);
    welcome(q);
    fault_hit(FAULT_WELCOME_AFTER);
    leases_of(q->m, lease);
    snprintf(ev.worker, sizeof ev.worker, "%s", w->id);
    ev.class_id = w->fingerprint;
    ev.class_bf16 = w->fingerprint_bf16;
    ev.roles = w->roles;
    ev.threads = w->threads;
    ev.draining = roster_find(&q->c->roster, w->id)->draining;
    ev.session = q->m->session;
    ev.attempt = q->m->session_attempt;
    log_info("worker.hello", "worker=%s name=%s threads=%u roles=%u build=%s leases=%u", w->id,
             w->name, w->threads, w->roles, w->build, q->m->leases_n);
    coordinator_event(q->c, &ev);
    free(w);
}

static void heartbeat_answer(const struct message *q)
{
    struct control *answer = control_new(CONTROL_HEARTBEAT);

    snprintf(answer->worker, sizeof answer->worker, "%s", q->worker);
    send_to(q->c, q->peer, answer);
}

static void on_heartbeat(const struct message *q)
{
    struct sched_lease lease[WIRE_LEASES_MAX];
    struct sched_event ev = {
        .type = SCHED_HEARTBEAT, .lease = lease, .leases_n = (int)q->m->leases_n};

    if (q->c->parked) { /* what it tells now could not be decided about: it says it again */
        heartbeat_answer(q);
        return;
    }
    roster_step(&q->c->roster,
                &(struct roster_event){.type = ROSTER_HEARTBEAT,
                                       .now_ms = clock_ms(),
                                       .wall_ms = clock_wall_ms(),
                                       .worker = q->worker,
                                       .progress = q->m->progress,
                                       .draining = q->m->draining},
                q->c->roster_actions);
    if (q->c->roster_actions->n > 0 && q->c->roster_actions->v[0].type == ROSTER_UNKNOWN) {
        q->c->roster_actions->n = 0;
        reject(q->c, q->peer, ERR_NOT_FOUND, "say HELLO again");
        return;
    }
    heartbeat_answer(q);
    if (roster_find(&q->c->roster, q->worker)->draining && !q->m->draining) {
        struct control *again = control_new(CONTROL_DRAIN); /* the first one was lost on its way */

        snprintf(again->text, sizeof again->text, "asked for by an operator");
        send_to(q->c, q->peer, again);
    }
    handlers_roster(q->c);
    leases_of(q->m, lease);
    snprintf(ev.worker, sizeof ev.worker, "%s", q->worker);
    ev.progress_ms = roster_find(&q->c->roster, q->worker)->progress_ms;
    coordinator_event(q->c, &ev);
}

/* Outputs must be plain names of artefacts that are in the store: what is acknowledged must be
 * there. */
static int result_check(const struct coordinator *c, const cJSON *result, struct err *e)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    const cJSON *outputs = json_get(result, "outputs"), *o = NULL;

    if (!cJSON_IsObject(outputs) ||
        (json_get(result, "metrics") != NULL && !cJSON_IsObject(json_get(result, "metrics"))))
        return err_set(e, ERR_CORRUPT, "the result must be {\"outputs\": {}, \"metrics\": {}}");
    cJSON_ArrayForEach(o, outputs)
    {
        size_t n = strlen(o->string);

        if (n == 0 || n > 63 || strspn(o->string, letters) != n)
            return err_set(e, ERR_CORRUPT,
                           "the name of an output is 1..63 letters, digits, '_', '.', '-'");
        if (!cJSON_IsString(o) || !digest_is_valid(o->valuestring))
            return err_set(e, ERR_CORRUPT, "output %s is no SHA-256 digest", o->string);
        if (!blob_has(c->blobs, o->valuestring))
            return err_set(e, ERR_NOT_FOUND, "output %s (%s) is not in the store", o->string,
                           o->valuestring);
    }
    return 0;
}

static void on_task_done(const struct message *q)
{
    struct sched_event ev = {.type = SCHED_TASK_DONE,
                             .task = q->m->task,
                             .epoch = q->m->epoch,
                             .busy_us = q->m->busy_us};
    struct err e = {0};
    int rc = q->m->result == NULL
                 ? err_set(&e, ERR_CORRUPT, "the result is empty")
                 : json_parse(q->m->result, strlen(q->m->result), JSON_LIMITS_BODY, &ev.result, &e);

    snprintf(ev.worker, sizeof ev.worker, "%s", q->worker);
    if (rc == 0)
        rc = result_check(q->c, ev.result, &e);
    if (rc != 0) {
        log_warn("task.refused", "task=%" PRIu64 " worker=%s error=\"%s\"", q->m->task, q->worker,
                 e.msg);
        ev.type = SCHED_TASK_FAILED;
        ev.code = rc == ERR_NOT_FOUND ? ERR_NOT_FOUND : ERR_CORRUPT;
        ev.text = e.msg;
    }
    coordinator_event(q->c, &ev);
}

static void on_task_failed(const struct message *q)
{
    struct sched_event ev = {.type = SCHED_TASK_FAILED,
                             .task = q->m->task,
                             .epoch = q->m->epoch,
                             .code = q->m->code,
                             .text = q->m->text};

    snprintf(ev.worker, sizeof ev.worker, "%s", q->worker);
    log_warn("task.failed",
             "task=%" PRIu64 " attempt=%" PRIu64 " worker=%s code=%s text=\"%.300s\"", q->m->task,
             q->m->epoch, q->worker, err_name(q->m->code), q->m->text);
    coordinator_event(q->c, &ev);
}

static void on_session(const struct message *q)
{
    const struct control *m = q->m;
    struct tree_span missing[WIRE_MISSING_MAX];
    struct sched_share share[WIRE_SHARES_MAX];
    struct sched_event ev = {.session = m->session,
                             .attempt = m->session_attempt,
                             .version = m->version,
                             .tokens = m->tokens,
                             .loss = m->loss,
                             .grad_norm = m->grad_norm,
                             .lr = m->lr,
                             .tokens_per_s = m->tokens_per_s,
                             .partial = m->partial,
                             .open_ms = m->open_ms,
                             .audited = m->audited,
                             .duplicates = m->duplicates,
                             .late = m->stale,
                             .damaged = m->damaged,
                             .missing = missing,
                             .missing_n = (int)m->missing_n,
                             .share = share,
                             .shares_n = (int)m->shares_n,
                             .digest = m->manifest,
                             .code = m->code,
                             .text = m->text};
    struct err e = {0};

    for (uint32_t i = 0; i < m->missing_n; i++)
        missing[i] = (struct tree_span){m->missing[i].begin, m->missing[i].end};
    for (uint32_t i = 0; i < m->shares_n; i++)
        share[i] = (struct sched_share){m->share[i].who, m->share[i].units, m->share[i].ms};
    ev.type = m->type == CONTROL_SESSION_STATUS       ? SCHED_SESSION_STATUS
              : m->type == CONTROL_SESSION_CHECKPOINT ? SCHED_SESSION_CHECKPOINT
              : m->type == CONTROL_SESSION_DONE       ? SCHED_SESSION_DONE
                                                      : SCHED_SESSION_FAILED;
    snprintf(ev.worker, sizeof ev.worker, "%s", q->worker);
    if (m->result != NULL && m->result[0] != '\0' &&
        json_parse(m->result, strlen(m->result), JSON_LIMITS_BODY, &ev.result, &e) != 0)
        log_warn("session.figures", "worker=%s error=\"%s\"", q->worker, e.msg);
    if (m->type == CONTROL_SESSION_FAILED)
        log_warn("session.failed",
                 "session=%" PRIu64 " attempt=%" PRIu64 " worker=%s code=%s text=\"%.300s\"",
                 m->session, m->session_attempt, q->worker, err_name(m->code), m->text);
    coordinator_event(q->c, &ev);
}

static void on_opinion(const struct message *q)
{
    const struct control *m = q->m;
    struct sched_voice voice[WIRE_OPINIONS_MAX];
    struct sched_event ev = {.type = SCHED_SESSION_OPINION,
                             .session = m->session,
                             .attempt = m->session_attempt,
                             .version = m->step,
                             .node = {m->level, m->node},
                             .voice = voice,
                             .voices_n = (int)m->opinions_n,
                             .settled = m->settled,
                             .tainted = m->tainted,
                             .odd = m->odd};

    for (uint32_t i = 0; i < m->opinions_n; i++)
        voice[i] = (struct sched_voice){m->opinion[i].who, m->opinion[i].hash};
    snprintf(ev.worker, sizeof ev.worker, "%s", q->worker);
    coordinator_event(q->c, &ev);
}

static void on_frozen(const struct message *q)
{
    const struct control *m = q->m;
    struct sched_event ev = {.type = SCHED_SESSION_FROZEN,
                             .session = m->session,
                             .attempt = m->session_attempt,
                             .version = m->version,
                             .frozen = {.version = m->version,
                                        .roots = m->roots,
                                        .close_step = m->close_step,
                                        .scale = (double)m->scale,
                                        .rate = (double)m->rate,
                                        .loss = m->loss,
                                        .grad_norm = m->grad_norm,
                                        .lr = m->lr,
                                        .tail_loss = m->tail_loss,
                                        .tokens = m->tokens,
                                        .tail_steps = m->tail_steps}};

    snprintf(ev.worker, sizeof ev.worker, "%s", q->worker);
    log_info("session.frozen",
             "session=%" PRIu64 " attempt=%" PRIu64 " worker=%s version=%" PRIu64 " roots=%u",
             m->session, m->session_attempt, q->worker, m->version, m->roots);
    coordinator_event(q->c, &ev);
}

static void on_bye(const struct message *q)
{
    roster_step(
        &q->c->roster,
        &(struct roster_event){.type = ROSTER_BYE, .now_ms = clock_ms(), .worker = q->worker},
        q->c->roster_actions);
    handlers_roster(q->c);
}

void handlers_log_path(const struct coordinator *c, uint64_t job, char *path, size_t cap)
{
    snprintf(path, cap, "%s/logs/%020" PRIu64 ".log", c->config.dir, job);
}

/* Lines for people: "time worker text". Not journalled: losing some in a crash is no harm. */
static void on_log(const struct message *q)
{
    char path[600], time[32];
    struct buf b = BUF_INIT;
    struct err e = {0};
    uint64_t size = 0;
    int fd = -1;

    if (sched_find_job(&q->c->sched, q->m->job) == NULL)
        return;
    handlers_log_path(q->c, q->m->job, path, sizeof path);
    if (file_exists(path) && (file_size(path, &size, &e) != 0 || size > LOG_BYTES_MAX))
        return;
    clock_wall_text(time);
    for (const char *line = q->m->text; *line != '\0';) {
        size_t n = strcspn(line, "\n");

        buf_printf(&b, "%s\t%s\t%.*s\n", time, q->worker, (int)n, line);
        line += n + (line[n] == '\n');
    }
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || (b.len > 0 && file_write_all(fd, b.data, b.len, &e) != 0))
        log_warn("log.write", "job=%" PRIu64 " error=\"%s\"", q->m->job,
                 fd < 0 ? strerror(errno) : e.msg);
    if (fd >= 0)
        close(fd);
    buf_free(&b);
}

/* ---- the table ------------------------------------------------------------------------------- */

static const struct {
    enum control_type type;
    void (*fn)(const struct message *q);
    bool parked; /* also while the disk is full */
} handlers[] = {
    {CONTROL_HELLO, on_hello, false},
    {CONTROL_HEARTBEAT, on_heartbeat, true},
    {CONTROL_TASK_DONE, on_task_done, false},
    {CONTROL_TASK_FAILED, on_task_failed, false},
    {CONTROL_SESSION_STATUS, on_session, false},
    {CONTROL_SESSION_CHECKPOINT, on_session, false},
    {CONTROL_SESSION_DONE, on_session, false},
    {CONTROL_SESSION_FAILED, on_session, false},
    {CONTROL_SESSION_OPINION, on_opinion, false},
    {CONTROL_SESSION_FROZEN, on_frozen, false},
    {CONTROL_BYE, on_bye, false},
    {CONTROL_LOG, on_log, false},
};

/* Who speaks, and may it? Everything but a HELLO needs a HELLO of this term before it. */
static bool admitted(struct message *q)
{
    struct coordinator *c = q->c;
    const struct coordinator_peer *known = NULL;

    if (q->m->cluster[0] != '\0' && strcmp(q->m->cluster, journal_cluster(c->journal)) != 0) {
        reject(c, q->peer, ERR_CONFLICT, "this coordinator is of another cluster");
        return false;
    }
    if (q->m->type == CONTROL_HELLO) {
        snprintf(q->worker, sizeof q->worker, "%s", q->m->worker);
        return true;
    }
    known = peer_by_id(c, q->peer);
    if (known == NULL || q->m->term != journal_term(c->journal)) {
        c->counters.stale_term++;
        if (q->m->type == CONTROL_HEARTBEAT)
            reject(c, q->peer, ERR_NOT_FOUND, "say HELLO again");
        return false;
    }
    snprintf(q->worker, sizeof q->worker, "%s", known->worker);
    return true;
}

/* In the version of the peer, or it could not read why. */
static void reject_version(const struct message *q, const char *text)
{
    struct control *no = control_new(CONTROL_REJECT);

    no->proto = q->m->proto;
    no->code = ERR_UNSUPPORTED;
    snprintf(no->text, sizeof no->text, "%s", text);
    send_to(q->c, q->peer, no);
}

void handlers_message(struct coordinator *c, const struct link_peer *peer, const void *frame,
                      size_t len)
{
    struct message q = {.c = c, .peer = peer};
    struct err e = {0};
    int rc = control_unpack(frame, len, &q.m, &e);

    if (rc == ERR_UNSUPPORTED)
        reject_version(&q, e.msg);
    if (rc != 0) {
        c->counters.frames_bad++;
        log_warn("frame.bad", "error=\"%s\"", e.msg);
        control_free(q.m);
        return;
    }
    if (control_from_worker(q.m->type) && admitted(&q)) {
        struct control *head = q.m;

        for (size_t i = 0; i < sizeof handlers / sizeof handlers[0]; i++) {
            for (; handlers[i].type == head->type && q.m != NULL; q.m = q.m->next) {
                if (!c->parked || handlers[i].parked)
                    handlers[i].fn(&q);
            }
        }
        q.m = head;
    }
    control_free(q.m);
}
