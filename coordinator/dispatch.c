/*
 * Performing what was decided. By the time an action comes here its state is committed, and a later
 * step of the same batch may have changed the state again: a lease that is no longer live, or an
 * attempt that is over, is not sent.
 *
 * A message that cannot be sent is not an error: leases run out, silent workers are lost, and
 * everything is decided again.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "coordinator/coordinator.h"
#include "coordinator/job_id.h"

#define SOUND_MS 60000 /* so long a blob whose bytes were right is not read again */

static void send_task(struct coordinator *c, const struct sched_action *act)
{
    const struct sched_task *t = act->task;
    struct control *m = NULL;

    if (t->state != TASK_LEASED ||
        ((t->epoch != act->epoch || strcmp(t->worker, act->worker) != 0) &&
         (t->shadow.epoch != act->epoch || strcmp(t->shadow.worker, act->worker) != 0)))
        return;
    m = control_new(CONTROL_TASK);
    m->job = act->job->id;
    m->task = t->id;
    m->epoch = act->epoch;
    m->attempt = act->epoch;
    snprintf(m->task_kind, sizeof m->task_kind, "%s", act->stage->phase.task);
    m->index = t->index;
    m->begin = t->begin;
    m->end = t->end;
    m->context = act->stage->context;
    coordinator_send(c, act->worker, m);
}

static void send_task_word(struct coordinator *c, const struct sched_action *act,
                           enum control_type type)
{
    struct control *m = control_new(type);

    m->task = act->number;
    m->epoch = act->epoch;
    snprintf(m->text, sizeof m->text, "%s", act->note);
    coordinator_send(c, act->worker, m);
}

static void send_session_word(struct coordinator *c, const struct sched_action *act,
                              enum control_type type)
{
    struct control *m = control_new(type);

    m->job = act->job != NULL ? act->job->id : 0;
    m->session = act->number;
    m->session_attempt = act->epoch;
    m->version = (uint64_t)act->value;
    snprintf(m->text, sizeof m->text, "%s", act->note);
    coordinator_send(c, act->worker, m);
}

/* An output of whichever finished phase has it. */
static void phase_output(const struct sched_stage *st, const char *name, struct digest *out)
{
    const cJSON *phase = NULL;

    cJSON_ArrayForEach(phase, st->done)
    {
        const char *digest = json_string_or(json_get(phase, "outputs"), name, "");

        if (digest_is_valid(digest))
            snprintf(out->hex, sizeof out->hex, "%s", digest);
    }
}

static void map_fill(struct coordinator *c, const struct sched_session *ss, struct control *m)
{
    m->assignment = ss->assignment;
    m->hosts_n = (uint32_t)ss->hosts_n;
    for (int i = 0; i < ss->hosts_n; i++) {
        const struct roster_worker *w = roster_find(&c->roster, ss->host[i].worker);

        snprintf(m->host[i].worker, sizeof m->host[i].worker, "%s", ss->host[i].worker);
        snprintf(m->host[i].endpoint, sizeof m->host[i].endpoint, "%s",
                 w != NULL ? w->endpoint : "");
        m->host[i].chunk_begin = ss->host[i].chunk_begin;
        m->host[i].chunk_end = ss->host[i].chunk_end;
    }
    m->slots_n = (uint32_t)ss->slots_n;
    for (int i = 0; i < ss->slots_n; i++) {
        snprintf(m->slot[i].worker, sizeof m->slot[i].worker, "%s", ss->slot[i].worker);
        m->slot[i].leaf_begin = ss->slot[i].leaf_begin;
        m->slot[i].leaf_end = ss->slot[i].leaf_end;
        m->slot[i].only_step = ss->slot[i].only_step;
        m->slot[i].again = ss->slot[i].again;
    }
}

/* From where an attempt begins: the last checkpoint, or the memory of other hosts. */
static void start_fill(struct coordinator *c, const struct sched_session *ss, struct control *m)
{
    const struct sched_frozen *f = &ss->start;

    m->version =
        ss->manifest_version > ss->start_version ? ss->manifest_version : ss->start_version;
    m->manifest = ss->manifest;
    m->replicate = ss->replicated;
    m->from_attempt = ss->from_attempt;
    if (ss->from_attempt == 0 || m->source == NULL) /* an ASSIGN says who computes, no more */
        return;
    m->version = ss->start_version;
    m->close_step = f->close_step;
    m->scale = (float)f->scale;
    m->rate = (float)f->rate;
    m->loss = f->loss;
    m->grad_norm = f->grad_norm;
    m->lr = f->lr;
    m->tokens = f->tokens;
    m->tail_loss = f->tail_loss;
    m->tail_steps = f->tail_steps;
    m->sources_n = (uint32_t)ss->sources_n;
    for (int i = 0; i < ss->sources_n; i++) {
        const struct sched_source *x = &ss->source[i];
        const struct roster_worker *w = roster_find(&c->roster, x->worker);

        snprintf(m->source[i].worker, sizeof m->source[i].worker, "%s", x->worker);
        snprintf(m->source[i].endpoint, sizeof m->source[i].endpoint, "%s",
                 w != NULL ? w->endpoint : "");
        m->source[i].chunk_begin = x->chunk_begin;
        m->source[i].chunk_end = x->chunk_end;
        m->source[i].copy_begin = x->copy_begin;
        m->source[i].copy_end = x->copy_end;
    }
}

static void send_freeze(struct coordinator *c, const struct sched_action *act)
{
    const struct sched_session *ss = act->stage->session;
    struct control *m = NULL;

    if (ss == NULL || ss->id != act->number || ss->attempt != act->epoch ||
        ss->change == CHANGE_NONE)
        return;
    m = control_new(CONTROL_SESSION_FREEZE);
    m->job = act->job->id;
    m->session = act->number;
    m->session_attempt = act->epoch;
    m->edge = act->value > 0;
    coordinator_send(c, act->worker, m);
}

/* A damaged blob would be taken for the bytes that it should have: what writes it again would find
 * it there already. */
static void damaged_remove(struct coordinator *c, const char *digest, const struct err *why)
{
    char path[700];

    blob_path(c->blobs, digest, path, sizeof path);
    log_error("blob.damaged", "digest=%s error=\"%s\"", digest, why->msg);
    unlink(path);
}

/* Hashing a large one holds the loop, and many tasks may name the same one. */
static bool sound_lately(const struct coordinator *c, const char *digest)
{
    for (int i = 0; i < COORDINATOR_SOUND_MAX; i++) {
        if (strcmp(c->sound[i].digest.hex, digest) == 0 &&
            clock_ms() - c->sound[i].at_ms < SOUND_MS)
            return true;
    }
    return false;
}

static void blob_mend(struct coordinator *c, const char *digest)
{
    struct coordinator_sound *s = &c->sound[c->sound_next % COORDINATOR_SOUND_MAX];
    struct err e = {0};
    int rc;

    if (sound_lately(c, digest))
        return;
    rc = blob_verify(c->blobs, digest, &e);
    if (rc == ERR_CORRUPT || rc == ERR_IO) /* a bad sector is damage too */
        damaged_remove(c, digest, &e);
    if (rc != 0)
        return;
    snprintf(s->digest.hex, sizeof s->digest.hex, "%s", digest);
    s->at_ms = clock_ms();
    c->sound_next++;
}

/* Only names in the text are looked at, and only files that do not agree with their names
 * go. */
static void mend(struct coordinator *c, const struct sched_action *act)
{
    static const char hex[] = "0123456789abcdef";
    const char *at = act->blob;

    while (at != NULL && *at != '\0') {
        size_t n = strspn(at, hex);
        char digest[DIGEST_HEX + 1];

        if (n == DIGEST_HEX) {
            memcpy(digest, at, n);
            digest[n] = '\0';
            blob_mend(c, digest);
        }
        at += n > 0 ? n : 1;
    }
}

static void send_session(struct coordinator *c, const struct sched_action *act,
                         enum control_type type)
{
    const struct sched_stage *st = act->stage;
    const struct sched_session *ss = st->session;
    const struct session_plan *p = &st->phase.session;
    struct control *m = NULL;

    if (ss == NULL || !ss->open || ss->id != act->number || ss->attempt != act->epoch)
        return;
    m = control_new(type);
    m->job = act->job->id;
    m->session = ss->id;
    m->session_attempt = ss->attempt;
    start_fill(c, ss, m);
    m->seed = p->seed;
    m->steps = p->steps;
    m->params = p->params;
    m->global_batch = p->global_batch;
    m->units = p->units;
    m->chunk_elems = p->chunk_elems;
    m->checkpoint_every = p->checkpoint_every;
    m->audit = strcmp(act->job->class_id, SCHED_ANY_CLASS) == 0
                   ? -1
                   : st->job->expansion->stage[st->index].spec->audit;
    m->fold = p->fold;
    m->context = st->context;
    phase_output(st, st->phase.session_context, &m->examples);
    phase_output(st, "init", &m->init);
    map_fill(c, ss, m);
    coordinator_send(c, act->worker, m);
}

static void send_waive(struct coordinator *c, const struct sched_action *act)
{
    struct control *m = control_new(CONTROL_SESSION_WAIVE);

    m->job = act->job->id;
    m->session = act->number;
    m->session_attempt = act->epoch;
    m->step = act->step;
    m->level = act->node.level;
    m->node = act->node.index;
    coordinator_send(c, act->worker, m);
}

static void send_note(struct coordinator *c, const struct sched_action *act)
{
    struct control *m = control_new(CONTROL_WELCOME);

    m->heartbeat_ms = c->config.heartbeat_ms;
    m->lease_ms = c->config.lease_ms;
    snprintf(m->http, sizeof m->http, "%s", c->http_base);
    snprintf(m->text, sizeof m->text, "%s", act->note);
    coordinator_send(c, act->worker, m);
}

/* Of a tree the files are not read: models are large, and the loop waits. A task that meets one
 * whose bytes are wrong says so, and it is mended. */
static int output_verify(struct coordinator *c, const char *digest, struct err *e)
{
    struct digest bad;
    int rc;

    snprintf(bad.hex, sizeof bad.hex, "%s", digest);
    rc = blob_is_tree(c->blobs, digest) ? blob_tree_check(c->blobs, digest, &bad, e)
                                        : blob_verify(c->blobs, digest, e);
    if (rc == ERR_CORRUPT || rc == ERR_IO)
        damaged_remove(c, bad.hex, e);
    return rc;
}

static void ask_reuse(struct coordinator *c, const struct sched_action *act)
{
    struct sched_event ev = {
        .type = SCHED_REUSE, .job_id = act->job->id, .stage_index = act->stage->index};
    const cJSON *output = NULL, *value = NULL;
    struct err e = {0};
    int rc = journal_find_outputs(c->journal, act->digest.hex, &ev.result, &e);

    cJSON_ArrayForEach(output, json_get(ev.result, "outputs"))
    {
        cJSON_ArrayForEach(value, output)
        {
            if (rc == 0)
                rc = output_verify(c, cJSON_IsString(value) ? value->valuestring : "", &e);
        }
    }
    if (rc != 0) {
        log_warn("reuse.refused", "job=%" PRIu64 " stage=%s error=\"%s\"", act->job->id,
                 act->stage->name, e.msg);
        cJSON_Delete(ev.result);
        ev.result = NULL;
    }
    coordinator_event(c, &ev);
}

void dispatch_action(struct coordinator *c, const struct sched_action *act)
{
    switch (act->type) {
    case SCHED_SEND_TASK:
        send_task(c, act);
        break;
    case SCHED_SEND_TASK_CANCEL:
        send_task_word(c, act, CONTROL_TASK_CANCEL);
        break;
    case SCHED_SEND_ACK:
        send_task_word(c, act, CONTROL_ACK);
        break;
    case SCHED_SEND_OPEN:
        fault_hit(FAULT_SESSION_OPEN_BEFORE);
        send_session(c, act, CONTROL_SESSION_OPEN);
        fault_hit(FAULT_SESSION_OPEN_AFTER);
        break;
    case SCHED_SEND_ASSIGN:
        fault_hit(FAULT_SESSION_ASSIGN_BEFORE);
        send_session(c, act, CONTROL_ASSIGN);
        break;
    case SCHED_SEND_CLOSE:
        fault_hit(FAULT_SESSION_CLOSE_BEFORE);
        send_session_word(c, act, CONTROL_SESSION_CLOSE);
        break;
    case SCHED_SEND_NOTE:
        send_note(c, act);
        break;
    case SCHED_SEND_WAIVE:
        send_waive(c, act);
        break;
    case SCHED_SEND_SESSION_ACK:
        fault_hit(FAULT_SESSION_ACK_BEFORE);
        send_session_word(c, act, CONTROL_ACK);
        fault_hit(FAULT_SESSION_ACK_AFTER);
        break;
    case SCHED_SEND_FREEZE:
        fault_hit(FAULT_SESSION_FREEZE_BEFORE);
        send_freeze(c, act);
        fault_hit(FAULT_SESSION_FREEZE_AFTER);
        break;
    case SCHED_MEND:
        mend(c, act);
        break;
    case SCHED_ASK_REUSE:
        ask_reuse(c, act);
        break;
    case SCHED_ASK_LOAD:
        coordinator_load(c, act->number);
        break;
    default:
        break; /* journalled */
    }
}
