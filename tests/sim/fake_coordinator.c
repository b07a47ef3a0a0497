#include "fake_coordinator.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "jobs/kind.h"

static const struct sched_config config = {.plan = kind_next_phase,
                                           .build = "sim",
                                           .lease_ms = 10000,
                                           .fault_budget = 1000,
                                           .loss_budget = 100000,
                                           .crash_limit = 0,
                                           .backoff_ms = 100,
                                           .stall_ms = 20000,
                                           .resend_ms = 2000,
                                           .restart_grace_ms = 1500,
                                           .adopt_ms = 6000};

/* ---- what it is told, and what must hold ------------------------------------------------------ */

static void digest_of(struct digest *out, const char *kind, uint64_t index)
{
    char text[96];

    snprintf(text, sizeof text, "%s/%" PRIu64, kind, index);
    digest_bytes(text, strlen(text), out);
}

static cJSON *result_of(const char *kind, uint32_t index)
{
    static const char *const outputs[] = {"part",       "data",       "items", "init",
                                          "examples.0", "examples.1", "report"};
    static const char *const figures[] = {"examples.0", "examples.1", "tokens.0", "tokens.1"};
    cJSON *r = cJSON_CreateObject(), *o = cJSON_AddObjectToObject(r, "outputs"),
          *m = cJSON_AddObjectToObject(r, "metrics");
    struct digest d;

    digest_of(&d, kind, index);
    for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++)
        cJSON_AddStringToObject(o, outputs[i], d.hex);
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++)
        cJSON_AddNumberToObject(m, figures[i], 480);
    cJSON_AddNumberToObject(m, "rows", 300);
    cJSON_AddNumberToObject(m, "params", 260000);
    return r;
}

static void seen(struct fake_coordinator *c)
{
    for (int i = 0; i < c->actions.n; i++) {
        const struct sched_action *a = &c->actions.v[i];

        if (a->type == SCHED_ATTEMPT_BEGIN) {
            assert_true(a->number < TASKS_SEEN);
            assert_true(a->epoch >
                        c->epoch_seen[a->number]); /* each grant fences the ones before */
            c->epoch_seen[a->number] = a->epoch;
            c->leases++;
        } else if (a->type == SCHED_EVENT && strcmp(a->text, "session.adopt") == 0) {
            c->adopted++;
        } else if (a->type == SCHED_ATTEMPT_END && strcmp(a->text, "succeeded") == 0) {
            assert_int_equal(c->done_seen[a->number]++, 0); /* done once */
        }
    }
}

static void invariants(const struct fake_coordinator *c)
{
    uint32_t running[WORKERS] = {0};

    for (int i = 0; i < c->sched.jobs_n; i++) {
        for (int k = 0; k < c->sched.job[i]->stages_n; k++) {
            const struct sched_stage *st = &c->sched.job[i]->stage[k];
            uint32_t done = 0;

            for (uint32_t t = 0; t < st->tasks_n; t++) {
                done += st->task[t].state == TASK_DONE;
                if (st->task[t].state == TASK_LEASED &&
                    sched_find_worker(&c->sched, st->task[t].worker) != NULL)
                    running[fake_worker_index(c->cluster, st->task[t].worker)]++;
            }
            assert_int_equal(done, st->tasks_done);
            if (st->session == NULL || !st->session->open)
                continue;
            for (int n = 0; n < st->session->slots_n; n++) { /* a partition of the units */
                const struct sched_slot *slot = &st->session->slot[n];

                assert_int_equal(slot->leaf_begin, n == 0 ? 0 : st->session->slot[n - 1].leaf_end);
                assert_true(slot->leaf_end > slot->leaf_begin);
                assert_ptr_equal(sched_find_worker(&c->sched, slot->worker)->in, st);
            }
            assert_true(st->session->slots_n > 0);
            assert_int_equal(st->session->slot[st->session->slots_n - 1].leaf_end,
                             st->phase.session.units);
            for (int n = 0; n < st->session->hosts_n; n++)
                assert_ptr_equal(sched_find_worker(&c->sched, st->session->host[n].worker)->in, st);
        }
    }
    for (int i = 0; i < c->sched.workers_n; i++) {
        const struct sched_worker *w = c->sched.worker[i];

        assert_int_equal(w->running, running[fake_worker_index(c->cluster, w->id)]);
        assert_true(w->running <= w->threads);
        assert_true(w->in == NULL || w->running == 0); /* a session has its workers for itself */
    }
}

/* ---- what it says ---------------------------------------------------------------------------- */

static void answer(struct fake_coordinator *c, int to, struct letter l)
{
    l.to = to;
    l.from = TO_COORDINATOR;
    fake_post(c->cluster, &l);
}

static void perform_session(struct fake_coordinator *c, const struct sched_action *a)
{
    const struct sched_session *ss = a->stage->session;
    struct letter l = {.what = a->type == SCHED_SEND_OPEN ? C_OPEN : C_ASSIGN};

    if (ss == NULL || !ss->open || ss->id != a->number || ss->attempt != a->epoch)
        return;
    l.session = ss->id;
    l.attempt = ss->attempt;
    l.version = ss->manifest_version;
    l.steps = a->stage->phase.session.steps;
    l.assignment = ss->assignment;
    snprintf(l.leader, sizeof l.leader, "%s", ss->host[0].worker);
    for (int i = 0; i < c->sched.workers_n; i++) {
        if (c->sched.worker[i]->in == a->stage)
            snprintf(l.member[l.members_n++], SCHED_WORKER_MAX, "%s", c->sched.worker[i]->id);
    }
    answer(c, fake_worker_index(c->cluster, a->worker), l);
}

static void step(struct fake_coordinator *c, struct sched_event *ev);

static void perform(struct fake_coordinator *c, const struct sched_action *a)
{
    struct sched_event reuse = {.type = SCHED_REUSE};

    switch (a->type) {
    case SCHED_SEND_TASK:
        if (a->task->state == TASK_LEASED && a->task->epoch == a->epoch) {
            struct letter l = {
                .what = C_TASK, .task = a->task->id, .epoch = a->epoch, .index = a->task->index};

            snprintf(l.kind, sizeof l.kind, "%s", a->stage->phase.task);
            answer(c, fake_worker_index(c->cluster, a->worker), l);
        }
        break;
    case SCHED_SEND_TASK_CANCEL:
        answer(c, fake_worker_index(c->cluster, a->worker),
               (struct letter){.what = C_CANCEL, .task = a->number, .epoch = a->epoch});
        break;
    case SCHED_SEND_ACK:
        answer(c, fake_worker_index(c->cluster, a->worker),
               (struct letter){.what = C_ACK, .task = a->number, .epoch = a->epoch});
        break;
    case SCHED_SEND_CLOSE:
        answer(c, fake_worker_index(c->cluster, a->worker),
               (struct letter){.what = C_CLOSE, .session = a->number, .attempt = a->epoch});
        break;
    case SCHED_SEND_SESSION_ACK:
        answer(c, fake_worker_index(c->cluster, a->worker),
               (struct letter){.what = C_SACK, .session = a->number, .attempt = a->epoch});
        break;
    case SCHED_SEND_OPEN:
    case SCHED_SEND_ASSIGN:
        perform_session(c, a);
        break;
    case SCHED_ASK_REUSE:
        reuse.job_id = a->job->id;
        reuse.stage_index = a->stage->index;
        step(c, &reuse);
        break;
    default:
        break;
    }
}

/* ---- commits --------------------------------------------------------------------------------- */

static void dies(struct fake_coordinator *c)
{
    c->up = false;
    c->up_ms = c->cluster->now_ms + fake_draw(c->cluster, 6000);
    c->restarts++;
}

static void flush(struct fake_coordinator *c)
{
    while (c->actions.n > 0 && c->up) {
        struct sched_actions batch = c->actions;
        struct err e = {0};

        if (fake_chance(c->cluster,
                        c->restart_rate)) { /* before the commit: nobody ever heard of it */
            dies(c);
            return;
        }
        assert_int_equal(journal_commit(c->journal, &batch, c->cluster->now_ms, &e), 0);
        seen(c);
        c->actions = (struct sched_actions){0, 0, NULL};
        if (fake_chance(c->cluster, c->restart_rate)) /* after it: committed, but nobody was told */
            dies(c);
        for (int i = 0; i < batch.n && c->up; i++)
            perform(c, &batch.v[i]);
        sched_actions_free(&batch);
        if (c->actions.n == 0)
            sched_collect(&c->sched);
    }
}

static void step(struct fake_coordinator *c, struct sched_event *ev)
{
    ev->now_ms = c->cluster->now_ms;
    ev->wall_ms = 1000000 + c->cluster->now_ms;
    sched_step(&c->sched, ev, &c->actions);
    invariants(c);
}

/* ---- what it hears --------------------------------------------------------------------------- */

static void worker_event(struct fake_coordinator *c, enum sched_event_type type, const char *worker,
                         bool crashed)
{
    struct sched_event ev = {.type = type, .crashed = crashed};

    snprintf(ev.worker, sizeof ev.worker, "%s", worker);
    step(c, &ev);
}

static void roster_apply(struct fake_coordinator *c)
{
    for (int i = 0; i < c->roster_actions.n; i++) {
        const struct roster_action *a = &c->roster_actions.v[i];

        if (a->type == ROSTER_IS_REPLACED || a->type == ROSTER_IS_LOST || a->type == ROSTER_IS_GONE)
            worker_event(c, SCHED_WORKER_GONE, a->worker, a->type != ROSTER_IS_GONE);
        else if (a->type == ROSTER_IS_SUSPECT || a->type == ROSTER_IS_OK)
            worker_event(c, a->type == ROSTER_IS_OK ? SCHED_WORKER_OK : SCHED_WORKER_SUSPECT,
                         a->worker, false);
        else if (a->type == ROSTER_UNKNOWN)
            answer(c, fake_worker_index(c->cluster, a->worker), (struct letter){.what = C_REJECT});
    }
    c->roster_actions.n = 0;
}

static void hears_hello(struct fake_coordinator *c, const struct letter *l)
{
    struct roster_worker w = {.boot = l->boot, .roles = 3, .threads = 1 + (uint32_t)l->from % 3};
    struct sched_event ev = {.type = SCHED_WORKER_UP,
                             .class_id = "one",
                             .roles = 3,
                             .lease = l->lease,
                             .leases_n = l->leases_n,
                             .session = l->session,
                             .attempt = l->attempt};

    snprintf(w.id, sizeof w.id, "w%d", l->from);
    snprintf(ev.worker, sizeof ev.worker, "w%d", l->from);
    ev.threads = w.threads;
    roster_step(
        &c->roster,
        &(struct roster_event){
            .type = ROSTER_HELLO, .now_ms = c->cluster->now_ms, .worker = w.id, .hello = &w},
        &c->roster_actions);
    ev.returned = c->roster_actions.v[c->roster_actions.n - 1].returned;
    roster_apply(c);
    step(c, &ev);
}

static void hears(struct fake_coordinator *c, const struct letter *l)
{
    struct sched_event ev = {.task = l->task,
                             .epoch = l->epoch,
                             .session = l->session,
                             .attempt = l->attempt,
                             .version = l->version,
                             .lease = l->lease,
                             .leases_n = l->leases_n,
                             .code = l->code,
                             .text = "sim"};
    const struct roster_worker *known = NULL;

    snprintf(ev.worker, sizeof ev.worker, "w%d", l->from);
    known = roster_find(&c->roster, ev.worker);
    if (l->what == W_HELLO) {
        if (known == NULL ||
            l->boot >=
                known->boot) /* a link keeps order between processes; the simulated one does not */
            hears_hello(c, l);
        return;
    }
    if (known == NULL || !roster_is_here(known) || known->boot != l->boot) {
        if (l->what == W_BEAT && (known == NULL || known->boot <= l->boot))
            answer(c, l->from, (struct letter){.what = C_REJECT});
        return;
    }
    if (l->what == W_BEAT || l->what == W_BYE) {
        roster_step(
            &c->roster,
            &(struct roster_event){.type = l->what == W_BEAT ? ROSTER_HEARTBEAT : ROSTER_BYE,
                                   .now_ms = c->cluster->now_ms,
                                   .worker = ev.worker},
            &c->roster_actions);
        roster_apply(c);
        if (l->what == W_BYE)
            return;
    }
    ev.type = l->what == W_BEAT     ? SCHED_HEARTBEAT
              : l->what == W_DONE   ? SCHED_TASK_DONE
              : l->what == W_FAILED ? SCHED_TASK_FAILED
              : l->what == W_STATUS ? SCHED_SESSION_STATUS
              : l->what == W_SDONE  ? SCHED_SESSION_DONE
                                    : SCHED_SESSION_CHECKPOINT;
    if (l->what == W_DONE)
        ev.result = result_of(l->kind, l->index);
    if (l->what == W_CHECKPOINT || l->what == W_SDONE)
        digest_of(&ev.digest, "checkpoint", l->version);
    step(c, &ev);
}

void fake_coordinator_hears(struct fake_coordinator *c, const struct letter *l)
{
    hears(c, l);
    flush(c);
}

void fake_coordinator_tick(struct fake_coordinator *c)
{
    struct sched_event tick = {.type = SCHED_TICK};

    roster_step(
        &c->roster,
        &(struct roster_event){.type = ROSTER_TICK, .now_ms = c->cluster->now_ms, .worker = ""},
        &c->roster_actions);
    roster_apply(c);
    step(c, &tick);
    flush(c);
}

/* ---- its life -------------------------------------------------------------------------------- */

void fake_coordinator_fini(struct fake_coordinator *c)
{
    journal_close(c->journal);
    sched_fini(&c->sched);
    roster_fini(&c->roster);
    sched_actions_free(&c->actions);
}

void fake_coordinator_start(struct fake_coordinator *c)
{
    struct err e = {0};

    if (c->journal != NULL)
        fake_coordinator_fini(c);
    sched_init(&c->sched, &config);
    roster_init(&c->roster, (struct roster_config){1500, 2500, 3600000});
    c->roster_actions.n = 0;
    assert_int_equal(journal_open(c->path, &c->journal, &e), 0);
    if (journal_load(c->journal, &c->sched, &e) != 0)
        fail_msg("%s", e.msg);
    sched_restored(&c->sched, c->cluster->now_ms);
    c->up = true;
}

/* ---- jobs ------------------------------------------------------------------------------------ */

static void collect_ref(void *self, const char *ref)
{
    struct digest d;

    digest_of(&d, ref, 0);
    if (strncmp(ref, "file:", 5) == 0 && json_get(self, ref + 5) == NULL)
        cJSON_AddStringToObject(self, ref + 5, d.hex);
}

void fake_coordinator_submit(struct fake_coordinator *c, const char *spec_file)
{
    struct buf yaml = BUF_INIT, spec_text = BUF_INIT;
    struct spec *spec = NULL;
    struct spec_problems problems = {0};
    struct sched_event ev = {.type = SCHED_SUBMIT};
    cJSON *resolved = cJSON_CreateObject(), *spec_json = NULL;
    char *resolved_text = NULL;
    struct err e = {0};

    assert_int_equal(file_read(spec_file, 1u << 20, &yaml, &e), 0);
    assert_int_equal(spec_parse(yaml.data, yaml.len, NULL, 0, NULL, NULL, &spec, &problems, &e), 0);
    expand_each_ref(spec, collect_ref, resolved);
    spec_json = spec_to_json(spec);
    json_canonical(spec_json, &spec_text);
    resolved_text = cJSON_PrintUnformatted(resolved);
    if (sched_job_new(++c->job, &spec, resolved, 1, &ev.job, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(
        journal_add(c->journal, ev.job,
                    &(struct journal_submit){.spec = spec_text.data, .resolved = resolved_text},
                    &e),
        0);
    step(c, &ev);
    flush(c);
    free(resolved_text);
    cJSON_Delete(spec_json);
    cJSON_Delete(resolved);
    buf_free(&yaml);
    buf_free(&spec_text);
    spec_problems_free(&problems);
}

bool fake_coordinator_all_over(const struct fake_coordinator *c)
{
    for (int i = 0; i < c->sched.jobs_n; i++) {
        if (!run_state_is_final(c->sched.job[i]->state))
            return false;
    }
    return c->up && c->sched.jobs_n > 0;
}
