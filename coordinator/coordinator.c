/*
 * The loop: wait for a worker's message, a request, or 50 ms; step; commit once for all that came;
 * send. Frames per turn are bounded, so that requests and time are served however much workers
 * talk.
 *
 * A gap in the loop's own clock (a stopped process, a sleeping machine) is the coordinator's
 * silence, not the workers': all silences count from now, and leases are renewed.
 */
#include "coordinator/coordinator.h"
#include "net/keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "coordinator/api.h"
#include "coordinator/api_inner.h"
#include "coordinator/job_id.h"

#define TURN_MS 50
#define TICK_MS 100
#define FRAMES_PER_TURN 256
#define REQUESTS_PER_TURN 64
#define GAP_MS 1000
#define PARKED_RETRY_MS 1000
#define ACTIONS_KEPT_MAX 16384
#define QUICK_MS 100 /* tasks that take less are not a line of the log each */

/* ---- storage --------------------------------------------------------------------------------- */

void coordinator_storage_failed(struct coordinator *c, const struct err *e)
{
    if (e->code == ERR_NO_SPACE) {
        if (!c->parked) {
            log_error("disk.full", "error=\"%s\"", e->msg);
            http_set_ready(c->http, false, "disk full");
            c->sched.counters.parked++;
        }
        c->parked = true;
        c->parked_try_ms = clock_ms() + PARKED_RETRY_MS;
        return;
    }
    log_error("storage.failed", "code=%s error=\"%s\"", err_name((int)e->code), e->msg);
    c->stop = true; /* nothing more is acknowledged */
    c->exit_code = 1;
}

/* One that is damaged would stay so: what is there is not written. */
static bool context_is_there(const struct coordinator *c, const char *digest)
{
    struct err e;
    char path[700];

    if (!blob_has(c->blobs, digest))
        return false;
    if (blob_verify(c->blobs, digest, &e) == 0)
        return true;
    log_error("blob.damaged", "digest=%s error=\"%s\"", digest, e.msg);
    blob_path(c->blobs, digest, path, sizeof path);
    unlink(path);
    return false;
}

static int contexts_put(struct coordinator *c, struct err *e)
{
    for (int i = 0; i < c->actions.n; i++) {
        const struct sched_action *act = &c->actions.v[i];
        struct digest got;
        int rc = 0;

        if (act->type != SCHED_CONTEXT || context_is_there(c, act->digest.hex))
            continue;
        rc = blob_put_bytes(c->blobs, act->blob, act->blob_len, &got, e);
        if (rc != 0)
            return err_wrap(e, "context document");
    }
    return 0;
}

static void log_actions(const struct sched_actions *a)
{
    for (int i = 0; i < a->n; i++) {
        const struct sched_action *act = &a->v[i];
        char job[JOB_ID_TEXT];

        if (act->type != SCHED_EVENT && act->type != SCHED_ATTEMPT_END)
            continue;
        job_id_format(act->job->id, job);
        if (act->type == SCHED_EVENT)
            log_info(act->text, "job=%s stage=%s text=\"%s\"", job,
                     act->stage != NULL ? act->stage->name : "-", act->note);
        else
            log_event(
                act->value < QUICK_MS && strcmp(act->text, "succeeded") == 0 ? LOG_DEBUG : LOG_INFO,
                "task.end",
                "job=%s task=%" PRIu64 " attempt=%" PRIu64 " worker=%s outcome=%s wall_ms=%.0f",
                job, act->number, act->epoch, act->worker, act->text, act->value);
    }
}

/* The memory of a batch serves the next one but one. */
static void actions_keep(struct coordinator *c, struct sched_actions *batch)
{
    sched_actions_clear(batch);
    if (c->actions_spare.v == NULL && batch->cap <= ACTIONS_KEPT_MAX) {
        c->actions_spare = *batch;
        *batch = (struct sched_actions){0, 0, NULL};
    }
    sched_actions_free(batch);
}

bool coordinator_flush(struct coordinator *c)
{
    while (c->actions.n > 0 && !c->stop) {
        struct err e = {0};
        struct sched_actions batch = c->actions;
        int rc = contexts_put(c, &e);

        if (rc == 0)
            rc = journal_commit(c->journal, &c->actions, clock_wall_ms(), &e);
        if (rc != 0) {
            coordinator_storage_failed(c, &e);
            return false;
        }
        c->counters.commits++;
        if (c->parked) {
            c->parked = false;
            http_set_ready(c->http, true, "");
            log_info("disk.space", "%s", "the batch that waited is written");
        }
        c->actions = c->actions_spare;
        c->actions_spare = (struct sched_actions){0, 0, NULL};
        log_actions(&batch);
        for (int i = 0; i < batch.n;
             i++) /* an answer about reuse may make new actions: the next turn of the loop */
            dispatch_action(c, &batch.v[i]);
        coordinator_send_all(c);
        actions_keep(c, &batch);
        if (c->actions.n == 0)
            sched_collect(&c->sched);
    }
    return !c->stop && !c->parked;
}

void coordinator_event(struct coordinator *c, struct sched_event *ev)
{
    ev->now_ms = clock_ms();
    ev->wall_ms = clock_wall_ms();
    c->counters.events++;
    sched_step(&c->sched, ev, &c->actions);
}

bool coordinator_load(struct coordinator *c, uint64_t job)
{
    struct sched_event ev = {.type = SCHED_LOADED};
    struct err e = {0};
    int rc = 0;

    if (sched_find_job(&c->sched, job) != NULL)
        return true;
    rc = journal_load_job(c->journal, &c->sched, job, false, &ev.job, &e);
    if (rc != 0) {
        coordinator_storage_failed(c, &e);
        return false;
    }
    coordinator_event(c, &ev);
    return true;
}

uint64_t coordinator_job_id(struct coordinator *c)
{
    uint64_t id = clock_wall_ms() << 20;

    if (id <= c->next_job)
        id = c->next_job + 1;
    c->next_job = id;
    return id;
}

/* ---- one turn -------------------------------------------------------------------------------- */

static void frames_take(struct coordinator *c)
{
    for (int i = 0; i < FRAMES_PER_TURN; i++) {
        struct link_peer peer;
        struct link_frame frame[LINK_FRAMES_MAX];
        struct err e = {0};
        int n = 0;
        int rc = link_recv(c->router, &peer, frame, &n, &e);

        if (rc != 0) {
            c->counters.frames_bad++;
            log_debug("frame.bad", "error=\"%s\"", e.msg);
            continue;
        }
        if (n == 0)
            return;
        if (n == 1)
            handlers_message(c, &peer, frame[0].data, frame[0].len);
        else
            c->counters.frames_bad++;
        link_frames_release(frame, n);
    }
}

static void answer(struct coordinator *c, void *ticket, struct api_response *r)
{
    bool accepted = r->status == 201;

    http_answer(c->http, ticket, r);
    if (accepted)
        fault_hit(FAULT_SUBMIT_REPLY_AFTER);
}

/* One wait for the disk for all submits that came in this turn. */
static void submits_finish(struct coordinator *c)
{
    struct api_response r[COORDINATOR_SUBMITS_MAX];
    int n = c->submits_n;

    api_submits_finish(c, r);
    for (int i = 0; i < n; i++)
        answer(c, c->submit[i].ticket, &r[i]);
}

static void requests_take(struct coordinator *c)
{
    struct api_request q;
    void *ticket = NULL;

    c->grouping = true;
    for (int i = 0; i < REQUESTS_PER_TURN && !c->stop && http_next(c->http, &q, &ticket); i++) {
        struct api_response r = API_RESPONSE_INIT;
        int before = 0;

        if (!api_is_submit(&q) || c->submits_n == COORDINATOR_SUBMITS_MAX)
            submits_finish(c); /* others may write, or read what is not committed yet */
        before = c->submits_n;
        api_handle(c, &q, &r);
        if (c->submits_n > before) {
            c->submit[before].ticket = ticket;
            buf_free(&r.body);
        } else if (r.wait) {
            CHECK(c->waits_n < COORDINATOR_WAITS_MAX); /* api_handle() asks for no more */
            c->wait[c->waits_n] = api_wait_of(&q);
            c->wait[c->waits_n++].ticket = ticket;
            buf_free(&r.body);
        } else {
            answer(c, ticket, &r);
        }
    }
    submits_finish(c);
    c->grouping = false;
}

/* While parked nothing that can be told changes: what is in memory is ahead of the disk. */
static bool is_over(struct coordinator *c, const struct coordinator_wait *w)
{
    return clock_ms() >= w->until_ms || (!c->parked && api_job_version(c, w->job) != w->since);
}

static void waits_answer(struct coordinator *c, bool all)
{
    for (int i = 0; i < c->waits_n; i++) {
        struct coordinator_wait w = c->wait[i];
        struct api_response r = API_RESPONSE_INIT;

        if (!all && !is_over(c, &w))
            continue;
        api_wait_answer(c, &w, &r);
        http_answer(c->http, w.ticket, &r);
        c->wait[i--] = c->wait[--c->waits_n];
    }
}

static void rearm(struct coordinator *c, uint64_t now)
{
    roster_step(&c->roster,
                &(struct roster_event){.type = ROSTER_REARM, .now_ms = now, .worker = ""},
                c->roster_actions);
    sched_renew(&c->sched, now);
}

static void tick(struct coordinator *c)
{
    uint64_t now = clock_ms();
    struct sched_event ev = {.type = SCHED_TICK};

    if (now - c->tick_ms < TICK_MS)
        return;
    if (now - c->tick_ms > GAP_MS) {
        log_warn("clock.gap", "gap_ms=%" PRIu64, now - c->tick_ms);
        rearm(c, now);
    }
    c->tick_ms = now;
    roster_step(&c->roster,
                &(struct roster_event){
                    .type = ROSTER_TICK, .now_ms = now, .wall_ms = clock_wall_ms(), .worker = ""},
                c->roster_actions);
    handlers_roster(c);
    coordinator_event(c, &ev);
}

/* What a full disk did not let be read has been asked for already. */
static void loads_again(struct coordinator *c)
{
    for (int i = 0; i < c->sched.entries_n && !c->parked && !c->stop; i++) {
        const struct sched_entry *e = &c->sched.entry[i];

        if (e->asked && e->job == NULL)
            coordinator_load(c, e->id);
    }
}

static void parked_turn(struct coordinator *c)
{
    uint64_t now = clock_ms();

    c->tick_ms = now; /* no silence is counted and no lease runs out meanwhile */
    if (now < c->parked_try_ms)
        return;
    if (c->actions.n > 0) {
        coordinator_flush(c);
    } else {
        c->parked = false;
        http_set_ready(c->http, true, "");
    }
    if (!c->parked) {
        rearm(c, now);
        loads_again(c);
    }
}

int coordinator_run(struct coordinator *c, const volatile int *stop)
{
    void *sockets[1] = {c->router};
    int fds[1] = {http_wait_fd(c->http)};

    http_set_ready(c->http, true, "");
    c->tick_ms = clock_ms();
    while (!*stop && !c->stop) {
        const char *fatal = http_fatal(c->http);

        if (fatal != NULL) {
            log_error("storage.failed", "error=\"%s\"", fatal);
            c->exit_code = 1;
            break;
        }
        link_poll(sockets, 1, fds, 1, TURN_MS);
        frames_take(c);
        if (c->parked)
            parked_turn(c);
        else
            tick(c);
        if (!c->parked)
            coordinator_flush(c);
        requests_take(c);
        if (!c->parked)
            coordinator_flush(c);
        waits_answer(c, false);
    }
    waits_answer(c, true);
    return c->exit_code;
}

/* ---- opening --------------------------------------------------------------------------------- */

static int endpoint_write(struct coordinator *c, struct err *e)
{
    char path[600];
    struct buf b = BUF_INIT;
    int rc = 0;

    snprintf(path, sizeof path, "%s/endpoint.json", c->config.dir);
    buf_str(&b, "{\"http\":");
    json_quote(http_url(c->http), strlen(http_url(c->http)), &b);
    buf_str(&b, ",\"control\":");
    json_quote(c->control, strlen(c->control), &b);
    buf_printf(&b, ",\"pid\":%d,\"cluster\":\"%s\",\"term\":%" PRIu64 "}\n", (int)getpid(),
               journal_cluster(c->journal), journal_term(c->journal));
    rc = file_write_atomic(path, b.data, b.len, e);
    buf_free(&b);
    return rc;
}

static int state_open(struct coordinator *c, struct err *e)
{
    char path[600];
    int rc = file_make_dirs(c->config.dir, e);

    snprintf(path, sizeof path, "%s/lock", c->config.dir);
    if (rc == 0)
        rc = db_lock(path, &c->lock_fd, e);
    snprintf(path, sizeof path, "%s/logs", c->config.dir);
    if (rc == 0)
        rc = file_make_dirs(path, e);
    snprintf(path, sizeof path, "%s/blobs", c->config.dir);
    if (rc == 0)
        rc = blob_open(path, &c->blobs, e);
    if (rc == 0)
        blob_sweep(c->blobs);
    snprintf(path, sizeof path, "%s/coordinator.db", c->config.dir);
    if (rc == 0)
        rc = journal_open(path, &c->journal, e);
    if (rc == 0)
        rc = journal_load(c->journal, &c->sched, e);
    return rc;
}

static int net_open(struct coordinator *c, struct err *e)
{
    struct http_config http = {.listen = c->config.http,
                               .blobs = c->blobs,
                               .token = c->config.token[0] != '\0' ? c->config.token : NULL};
    char host[256];
    int rc = 0;

    if (coord_config_url_host(c->config.advertise, host, sizeof host))
        http.hosts[http.hosts_n++] = host;
    if (http.token != NULL)
        rc = keys_use(http.token, e);
    else if (!coord_config_is_loopback(c->config.control))
        log_warn("control.open",
                 "control=%s text=\"anybody who reaches this port can act as a worker\"",
                 c->config.control);

    if (rc == 0)
        c->router = link_router(LINK_CONTROL, c->config.control, c->control, sizeof c->control, e);
    if (c->router == NULL)
        return err_wrap(e, "control socket");
    rc = http_start(&http, &c->http, e);
    if (rc != 0)
        return rc;
    snprintf(c->http_base, sizeof c->http_base, "%s",
             c->config.advertise[0] != '\0' ? c->config.advertise : http_url(c->http));
    if (c->config.advertise[0] == '\0' && !coord_config_is_loopback(c->config.control) &&
        (strncmp(c->http_base, "http://127.", 11) == 0 ||
         strncmp(c->http_base, "http://[::1]:", 13) == 0))
        log_warn("http.advertise",
                 "http=%s text=\"workers of other machines cannot reach this for artefacts: give "
                 "--advertise\"",
                 c->http_base);
    return endpoint_write(c, e);
}

int coordinator_open(const struct coord_config *config, struct coordinator **out, struct err *e)
{
    struct coordinator *c = mem_zalloc(1, sizeof *c);
    struct sched_config sched = {.plan = kind_next_phase,
                                 .build = STEER_VERSION,
                                 .lease_ms = config->lease_ms,
                                 .fault_budget = 3,
                                 .loss_budget = 1000,
                                 .missing_budget = 20,
                                 .crash_limit = (int)config->crash_limit,
                                 .backoff_ms = 500,
                                 .stall_ms = 120000,
                                 .barren_limit = 40,
                                 .hang_ms = 5000,
                                 .abandon_ms = 120000,
                                 .slow_ms = 500,
                                 .resend_ms = 5000,
                                 .restart_grace_ms = 1500,
                                 .adopt_ms = 6000,
                                 .active_min = 32,
                                 .active_max = 256,
                                 .replicate = config->replicate != 0,
                                 .freeze_ms = 5000,
                                 .first_ms = 60000,
                                 .respread_ms = config->respread_ms};
    int rc = 0;

    c->config = *config;
    c->lock_fd = -1;
    c->roster_actions = mem_zalloc(1, sizeof *c->roster_actions);
    roster_init(&c->roster, (struct roster_config){1500, 2500, 3600000});
    sched_init(&c->sched, &sched);
    rc = state_open(c, e);
    if (rc == 0)
        rc = net_open(c, e);
    if (rc != 0) {
        coordinator_close(c);
        return rc;
    }
    sched_restored(&c->sched, clock_ms());
    if (c->sched.entries_n > 0)
        c->next_job = c->sched.entry[c->sched.entries_n - 1].id;
    log_info("coordinator.start", "http=%s control=%s dir=%s cluster=%s term=%" PRIu64 " jobs=%d",
             http_url(c->http), c->control, config->dir, journal_cluster(c->journal),
             journal_term(c->journal), c->sched.entries_n);
    *out = c;
    return 0;
}

void coordinator_close(struct coordinator *c)
{
    char path[600];

    if (c == NULL)
        return;
    if (c->http != NULL)
        http_stop(&c->http);
    if (c->router != NULL)
        link_close(c->router);
    if (c->lock_fd >= 0 && c->router != NULL) {
        snprintf(path, sizeof path, "%s/endpoint.json", c->config.dir);
        unlink(path);
    }
    sched_actions_free(&c->actions);
    sched_actions_free(&c->actions_spare);
    sched_fini(&c->sched);
    roster_fini(&c->roster);
    journal_close(c->journal);
    if (c->blobs != NULL)
        blob_close(c->blobs);
    db_unlock(c->lock_fd);
    free(c->roster_actions);
    coordinator_peers_free(c);
    free(c);
}
