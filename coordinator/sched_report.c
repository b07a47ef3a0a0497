/*
 * What the hosts of a training session report: steps, checkpoints, the end, failures. Reports name
 * their attempt; those of another one are stale.
 *
 * A checkpoint that cannot be read when an attempt starts from it (missing, or its bytes do not
 * have its name any more) is struck off the session's list, and the next attempt starts from the
 * one before it, at last from the initial model.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/sched_inner.h"
#include "wire/control.h" /* control_who() */

/* ---- what the step leader says --------------------------------------------------------------- */

struct sched_stage *sched_session_find(const struct sched *s, uint64_t id)
{
    for (int i = 0; i < s->jobs_n; i++) {
        for (int k = 0; k < s->job[i]->stages_n && !run_state_is_final(s->job[i]->state); k++) {
            struct sched_stage *st = &s->job[i]->stage[k];

            if (st->phase_open && st->session != NULL && st->session->id == id)
                return st;
        }
    }
    return NULL;
}

static void series_add(struct sched_actions *a, struct sched_stage *st, const char *name,
                       double value, uint64_t step)
{
    struct sched_action *act = sched_act(a, SCHED_SERIES, st->job, st);
    const char *phase = strcmp(st->phase.name, "train.0") == 0 ? "train" : st->phase.name;

    if (st->job->kind == KIND_PIPELINE)
        snprintf(act->text, sizeof act->text, "%s/%s.%s", st->name, phase, name);
    else
        snprintf(act->text, sizeof act->text, "%s.%s", phase, name);
    act->value = value;
    act->number = step;
}

/* ---- gradients that are not finite ----------------------------------------------------------- */

bool sched_is_doubted(const struct sched_session *ss, const char *worker)
{
    return !ss->doubt.shared && strcmp(ss->doubt.worker, worker) == 0;
}

/* Of the worker that computes, not of a host that adds up: "step N, unit...". */
static void doubt_take(struct sched_session *ss, const struct sched_event *ev)
{
    const char *at = ev->text != NULL ? strstr(ev->text, "step ") : NULL;
    unsigned long long step = 0;
    int end = 0;

    if (ev->code != ERR_NUMERIC || at == NULL ||
        sscanf(at, "step %llu, unit%n", &step, &end) != 1 || end == 0)
        return;
    if (ss->doubt.worker[0] != '\0' && ss->doubt.step == step &&
        strcmp(ss->doubt.worker, ev->worker) != 0) {
        ss->doubt.shared = true;
        return;
    }
    ss->doubt = (struct sched_doubt){.step = step};
    snprintf(ss->doubt.worker, sizeof ss->doubt.worker, "%s", ev->worker);
}

/* Others have closed the step. */
static void doubt_settle(struct sched *s, struct sched_stage *st, uint64_t version,
                         struct sched_actions *a)
{
    const struct sched_doubt d = st->session->doubt;
    char reason[SCHED_TEXT_MAX];

    if (d.worker[0] == '\0' || version < d.step)
        return;
    st->session->doubt = (struct sched_doubt){0};
    if (!d.shared && st->session->faults > 0) { /* it was not the data */
        st->session->faults--;
        sched_act(a, SCHED_SAVE_STAGE, st->job, st);
    }
    if (d.shared || sched_slot_of(st->session, d.worker) != NULL)
        return; /* it was alone, and its next try was finite */
    snprintf(reason, sizeof reason,
             "its gradient of step %" PRIu64 " is not finite, and that of others is", d.step);
    sched_note(a, st->job, st, "worker.quarantined", "%s: %s", d.worker, reason);
    sched_quarantine(s, d.worker, reason, a);
}

/* The journal knows the last checkpoint: how fast the hosts are shows from where they say they are. */
static void opened_take(const struct sched *s, struct sched_stage *st, uint64_t version)
{
    struct sched_session *ss = st->session;
    uint64_t steps = st->phase.session.steps;

    if (ss->opened_version != SCHED_VERSION_UNKNOWN)
        return;
    version = version < steps ? version : steps;
    ss->opened_version = version > ss->version ? version : ss->version;
    ss->opened_ms = s->now_ms;
}

static void on_status(struct sched *s, struct sched_stage *st, const struct sched_event *ev,
                      struct sched_actions *a)
{
    struct sched_session *ss = st->session;

    sched_session_open_step(s, st, ev);
    if (ev->partial)
        return;
    opened_take(s, st, ev->version);
    if (ev->version > ss->start_version)
        sched_handover_stepped(s, st, a);
    if (ev->version <= ss->version)
        return;
    if (ss->version > ss->start_version) {
        uint64_t ms = (s->now_ms - ss->progress_ms) / (ev->version - ss->version);

        ss->step_ms = ms > ss->step_ms ? ms : ss->step_ms;
    }
    ss->version = ev->version < st->phase.session.steps ? ev->version : st->phase.session.steps;
    ss->progress_ms = s->now_ms;
    ss->loss = ev->loss;
    ss->grad_norm = ev->grad_norm;
    ss->lr = ev->lr;
    ss->tokens = ev->tokens;
    ss->tokens_per_s = ev->tokens_per_s;
    st->job->version++;
    series_add(a, st, "loss", ev->loss, ss->version);
    series_add(a, st, "lr", ev->lr, ss->version);
    series_add(a, st, "grad_norm", ev->grad_norm, ss->version);
    series_add(a, st, "tokens_per_s", ev->tokens_per_s, ss->version);
    doubt_settle(s, st, ss->version, a);
}

static void ckpt_drop(struct sched_session *ss, int from)
{
    ss->ckpts_n = from;
    ss->manifest = from > 0 ? ss->ckpt[from - 1].manifest : (struct digest){""};
    ss->manifest_version = from > 0 ? ss->ckpt[from - 1].version : 0;
}

static void ckpt_add(struct sched_session *ss, const struct digest *manifest, uint64_t version)
{
    int at = ss->ckpts_n;

    while (at > 0 && ss->ckpt[at - 1].version >= version)
        at--;
    if (at == SCHED_CKPTS_MAX)
        memmove(&ss->ckpt[0], &ss->ckpt[1], (size_t)(--at) * sizeof ss->ckpt[0]);
    ss->ckpt[at] = (struct sched_ckpt){*manifest, version};
    ckpt_drop(ss, at + 1);
}

/* Members, and who waits for a part in it that nobody gives it. */
static bool is_at_hand(const struct sched_stage *st, const struct sched_worker *w)
{
    return w->in == st || (w->in == NULL && sched_class_fits(st->job, w));
}

/* The hosts have written it and the others computed: whoever could not before can now. That who
 * did not host can do so again is not known, but worth another try, by and by; how often it could
 * not is forgotten when it did. */
static void sitting_out_is_over(struct sched *s, const struct sched_stage *st)
{
    for (int i = 0; i < s->workers_n; i++) {
        struct sched_worker *w = s->worker[i];

        if (!is_at_hand(st, w))
            continue;
        if (w->in == st && sched_session_is_host(st->session, w->id)) {
            w->hosts_after = 0;
            w->failed_as_host = false;
        }
        if (w->hosts_after > 0)
            w->hosts_after--;
        if (w->in == st && !w->failed_as_host)
            w->sits_out_n = 0;
    }
}

static void on_checkpoint(struct sched *s, struct sched_stage *st, const struct sched_event *ev,
                          struct sched_actions *a)
{
    struct sched_action *act;

    if (ev->digest.hex[0] == '\0' || ev->version < st->session->manifest_version ||
        ev->version > st->phase.session.steps)
        return;
    if (ev->version > st->session->start_version)
        sched_handover_stepped(s, st, a);
    ckpt_add(st->session, &ev->digest, ev->version);
    st->session->full = 0;
    sitting_out_is_over(s, st);
    act = sched_act(a, SCHED_CHECKPOINT, st->job, st);
    act->digest = ev->digest;
    act->number = ev->version;
    act->epoch = ev->attempt;
    snprintf(act->text, sizeof act->text, "%s", st->phase.name);
    sched_act(a, SCHED_SAVE_STAGE, st->job, st);
    sched_note(a, st->job, st, "session.checkpoint", "version %" PRIu64 " %s", ev->version,
               ev->digest.hex);
    doubt_settle(s, st, ev->version, a);
}

static void on_done(struct sched *s, struct sched_stage *st, struct sched_event *ev,
                    struct sched_actions *a)
{
    cJSON *entry = NULL, *outputs = NULL, *metrics = NULL;

    if (ev->digest.hex[0] == '\0' || ev->version != st->phase.session.steps) {
        sched_attempt_end(s, st, "the session ended before its last step", s->config.backoff_ms, a);
        return;
    }
    on_checkpoint(s, st, ev, a);
    entry = cJSON_CreateObject();
    outputs = cJSON_AddObjectToObject(entry, "outputs");
    cJSON_AddStringToObject(outputs, "checkpoint", ev->digest.hex);
    cJSON_AddArrayToObject(entry, "parts");
    metrics = json_get(ev->result, "metrics") != NULL
                  ? cJSON_Duplicate(json_get(ev->result, "metrics"), true)
                  : cJSON_Duplicate(ev->result, true);
    cJSON_AddItemToObject(entry, "metrics",
                          cJSON_IsObject(metrics) ? metrics : cJSON_CreateObject());
    if (!cJSON_IsObject(metrics))
        cJSON_Delete(metrics);
    sched_session_close(s, st, "done", a);
    sched_phase_finish(s, st, entry, a);
}

/* Could it not read a checkpoint of the session? It says so by naming it. */
static bool names_checkpoint(const struct sched_session *ss, const struct sched_event *ev)
{
    bool unreadable =
        ev->code == ERR_CORRUPT || ev->code == ERR_NOT_FOUND || ev->code == ERR_LIMIT;

    for (int i = 0; unreadable && ev->text != NULL && i < ss->ckpts_n; i++) {
        if (strstr(ev->text, ss->ckpt[i].manifest.hex) != NULL)
            return true;
    }
    return false;
}

/* An attempt that could not read the checkpoint from which it starts. */
static bool is_damage(const struct sched_session *ss, const struct sched_event *ev)
{
    return names_checkpoint(ss, ev) && ss->from_attempt == 0 && !ss->stepped &&
           strstr(ev->text, ss->manifest.hex) != NULL;
}

static void fall_back(struct sched *s, struct sched_stage *st, const struct sched_event *ev,
                      struct sched_actions *a)
{
    struct sched_session *ss = st->session;
    const struct sched_ckpt bad = ss->ckpt[ss->ckpts_n - 1];

    sched_mend(a, st, ev->text);
    ckpt_drop(ss, ss->ckpts_n - 1);
    s->counters.fallback++;
    sched_note(a, st->job, st, "session.fallback",
               "checkpoint %.12s of version %" PRIu64 " is damaged: going on from version %" PRIu64
               " %s",
               bad.manifest.hex, bad.version, ss->manifest_version,
               ss->ckpts_n > 0 ? "" : "(the initial model)");
    sched_attempt_end(s, st, ev->text, 0, a);
}

/* A host tells of two gradients that differ, too late to ask a third: from the checkpoint on they are asked again, and the
 * audit may find who is wrong. Hosts know workers by number. */
static void conflict_note(struct sched *s, struct sched_stage *st, const char *why,
                          struct sched_actions *a)
{
    char names[200] = "", who[20];
    size_t n = 0;

    for (int i = 0; i < s->workers_n; i++) {
        snprintf(who, sizeof who, "%016" PRIx64, control_who(s->worker[i]->id));
        if (strstr(why, who) != NULL && n < sizeof names)
            n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", n > 0 ? " and " : "",
                                  s->worker[i]->id);
    }
    s->counters.disputed++;
    sched_note(a, st->job, st, "session.disputed", "%s (%s)", why, names);
}

/* A member that cannot take part, and of which the session does without: true if the attempt goes
 * on. A host is done without in the next one. */
static bool goes_on_without(struct sched *s, struct sched_stage *st, const char *worker,
                            const char *why, struct sched_actions *a)
{
    struct sched_worker *w = sched_find_worker(s, worker);
    uint64_t threads = 0;

    if (w == NULL || w->in != st)
        return st->session->open; /* it has left already, and says it again */
    sched_sit_out(s, w, sched_handover_holds(st->session, worker));
    threads = (w->roles & SCHED_ROLE_COMPUTE) != 0 ? w->threads : 0;
    if (!st->session->open || sched_handover_holds(st->session, worker) ||
        sched_session_threads(s, st) == threads)
        return false;
    sched_session_lose(s, worker, why, a);
    return true;
}

static void on_failed(struct sched *s, struct sched_stage *st, const struct sched_event *ev,
                      struct sched_actions *a)
{
    struct sched_session *ss = st->session;
    struct sched_failure f = {.code = ev->code, .attempt = (uint32_t)ss->attempt};
    const char *why = ev->text != NULL ? ev->text : "";
    /* Who comes late may read a checkpoint that the others have long had in memory: a damaged blob is no fault of the job. */
    bool unreadable = names_checkpoint(ss, ev);
    bool loss = sched_code_is_loss(ev->code) || ev->code == ERR_CONFLICT || unreadable;

    doubt_take(ss, ev);
    if (ev->code == ERR_CONFLICT)
        conflict_note(s, st, why, a);
    if (is_damage(ss, ev)) {
        fall_back(s, st, ev, a);
        return;
    }
    if (unreadable)
        sched_mend(a, st, ev->text);
    s->counters.parked += ev->code == ERR_NO_SPACE;
    if ((sched_code_is_loss(ev->code) || unreadable) && goes_on_without(s, st, ev->worker, why, a))
        return;
    if (ev->code == ERR_NO_SPACE) {
        sched_attempt_wait(s, st, why, sched_backoff(s, ++ss->full), a);
        return;
    }
    if (loss)
        ss->losses++;
    else
        ss->faults++;
    if (ss->faults < s->config.fault_budget && ss->losses <= s->config.loss_budget) {
        /* A loss is over as soon as other workers take the work. */
        sched_attempt_end(s, st, why, sched_backoff(s, loss ? 1 : ss->faults), a);
        return;
    }
    snprintf(f.class_name, sizeof f.class_name, "%s",
             loss                      ? "infrastructure"
             : ev->code == ERR_NUMERIC ? "data"
                                       : "user");
    snprintf(f.worker, sizeof f.worker, "%s", ev->worker);
    snprintf(f.message, sizeof f.message, "phase %s: %.600s", st->phase.name, why);
    sched_fail(s, st, &f, a);
}

void sched_on_session(struct sched *s, struct sched_event *ev, struct sched_actions *a)
{
    struct sched_stage *st = sched_session_find(s, ev->session);
    bool live = st != NULL && (st->session->open || st->session->adopting) &&
                st->session->attempt == ev->attempt;

    if (ev->type != SCHED_SESSION_STATUS && ev->type != SCHED_SESSION_OPINION &&
        ev->type != SCHED_SESSION_FROZEN) {
        struct sched_action *act = sched_act(a, SCHED_SEND_SESSION_ACK, NULL, NULL);

        act->value = (double)ev->version;

        snprintf(act->worker, sizeof act->worker, "%s", ev->worker);
        act->number = ev->session;
        act->epoch = ev->attempt;
    }
    if (!live) {
        s->counters.stale++;
        return;
    }
    if (ev->type == SCHED_SESSION_STATUS)
        on_status(s, st, ev, a);
    else if (ev->type == SCHED_SESSION_OPINION)
        sched_on_opinion(s, st, ev, a);
    else if (ev->type == SCHED_SESSION_FROZEN)
        sched_handover_frozen(s, st, ev, a);
    else if (ev->type == SCHED_SESSION_CHECKPOINT)
        on_checkpoint(s, st, ev, a);
    else if (ev->type == SCHED_SESSION_DONE)
        on_done(s, st, ev, a);
    else
        on_failed(s, st, ev, a);
}
