/*
 * One protobuf Envelope becomes a struct control. Exactly the groups of its type are required, so a
 * message with a part missing never reaches a handler. There are three limits: the frame's length
 * before anything is allocated, a budget on what protobuf-c allocates (two bytes on the wire can
 * cost it 140), and the bounds of the arrays.
 */
#include <string.h>

#include "control.pb-c.h"
#include "wire/alloc.h"
#include "wire/control_inner.h"
#include "wire/seal.h"
#include "wire/text.h"

#define TAKE(name, field, array) text_take(name, (field).data, (field).len, array, sizeof(array), e)
#define TRY(call)                                                                                  \
    do {                                                                                           \
        int try_rc = (call);                                                                       \
        if (try_rc != 0)                                                                           \
            return try_rc;                                                                         \
    } while (0)

static int digest_take(const char *name, ProtobufCBinaryData field, struct digest *out,
                       struct err *e)
{
    if (field.len == 0)
        return 0;
    TRY(TAKE(name, field, out->hex));
    if (!digest_is_valid(out->hex))
        return err_set(e, ERR_INVALID, "%s is not 64 lower-case hex digits", name);
    return 0;
}

static int machine_take(const Steer__Envelope *v, struct control *c, struct err *e)
{
    const Steer__Machine *m = v->machine;

    TRY(TAKE("worker", m->worker, c->worker));
    TRY(TAKE("name", m->name, c->name));
    TRY(TAKE("endpoint", m->endpoint, c->endpoint));
    TRY(TAKE("build", m->build, c->build));
    TRY(TAKE("fingerprint", m->fingerprint, c->fingerprint));
    TRY(TAKE("blas", m->blas, c->blas));
    TRY(TAKE("fingerprint_bf16", m->fingerprint_bf16, c->fingerprint_bf16));
    c->boot = m->boot;
    c->roles = m->roles;
    c->threads = m->threads;
    c->memory_bytes = m->memory_bytes;
    return 0;
}

static int pulse_take(const Steer__Envelope *v, struct control *c, struct err *e)
{
    const Steer__Pulse *p = v->pulse;

    TRY(TAKE("worker", p->worker, c->worker));
    c->boot = p->boot;
    c->progress = p->progress;
    c->draining = p->draining;
    if (p->n_lease > WIRE_LEASES_MAX)
        return err_set(e, ERR_LIMIT, "%zu leases, the limit is %d", p->n_lease, WIRE_LEASES_MAX);
    c->leases_n = (uint32_t)p->n_lease;
    for (uint32_t i = 0; i < c->leases_n; i++)
        c->lease[i] =
            (struct control_lease){p->lease[i]->task, p->lease[i]->epoch, p->lease[i]->done,
                                   p->lease[i]->total, p->lease[i]->moved};
    return 0;
}

static int terms_take(const Steer__Envelope *v, struct control *c, struct err *e)
{
    TRY(TAKE("http", v->terms->http, c->http));
    TRY(TAKE("note", v->terms->note, c->text));
    c->heartbeat_ms = v->terms->heartbeat_ms;
    c->lease_ms = v->terms->lease_ms;
    return 0;
}

static int task_take_one(const Steer__Task *t, struct control *c, struct err *e)
{
    TRY(TAKE("kind", t->kind, c->task_kind));
    TRY(digest_take("context", t->context, &c->context, e));
    c->job = t->job;
    c->task = t->task;
    c->epoch = t->epoch;
    c->attempt = t->attempt;
    c->index = t->index;
    c->begin = t->begin;
    c->end = t->end;
    return 0;
}

/* The head takes the first one; each further one gets a link. */
static int task_take(const Steer__Envelope *v, struct control *c, struct err *e)
{
    struct control *at = c;

    if (v->n_task > WIRE_BATCH_MAX)
        return err_set(e, ERR_LIMIT, "it speaks of %zu tasks, the limit is %d", v->n_task,
                       WIRE_BATCH_MAX);
    TRY(task_take_one(v->task[0], c, e));
    for (size_t i = 1; i < v->n_task; i++) {
        at->next = control_new(c->type);
        at = c->last = at->next;
        c->links_n++;
        memcpy(at->cluster, c->cluster, sizeof at->cluster);
        at->term = c->term;
        TRY(task_take_one(v->task[i], at, e));
    }
    return 0;
}

static int outcome_take_one(const Steer__Outcome *o, struct control *c, struct err *e)
{
    TRY(TAKE("text", o->text, c->text));
    c->code = o->code;
    if (o->result.len > WIRE_RESULT_MAX)
        return err_set(e, ERR_LIMIT, "result has %zu bytes, the limit is %u", o->result.len,
                       WIRE_RESULT_MAX);
    if (!text_is_utf8(o->result.data, o->result.len))
        return err_set(e, ERR_INVALID, "result is not UTF-8 without NUL");
    if (o->result.len > 0)
        c->result = mem_strndup((const char *)o->result.data, o->result.len);
    c->busy_us = o->busy_us;
    return 0;
}

/* Where tasks are spoken of too there is one for each; takers run in order, so the chain is there. */
static int outcome_take(const Steer__Envelope *v, struct control *c, struct err *e)
{
    if (v->n_outcome != (size_t)c->links_n + 1)
        return err_set(e, ERR_INVALID, "%zu outcomes for %u tasks", v->n_outcome, c->links_n + 1);
    for (size_t i = 0; i < v->n_outcome; i++, c = c->next)
        TRY(outcome_take_one(v->outcome[i], c, e));
    return 0;
}

static int session_take(const Steer__Envelope *v, struct control *c, struct err *e)
{
    TRY(digest_take("manifest", v->session->manifest, &c->manifest, e));
    if (v->session->job != 0)
        c->job = v->session->job;
    c->session = v->session->session;
    c->session_attempt = v->session->attempt;
    c->version = v->session->version;
    return 0;
}

static int training_take(const Steer__Envelope *v, struct control *c, struct err *e)
{
    const Steer__Training *t = v->training;

    TRY(digest_take("context", t->context, &c->context, e));
    TRY(digest_take("examples", t->examples, &c->examples, e));
    TRY(digest_take("init", t->init, &c->init, e));
    c->seed = t->seed;
    c->steps = t->steps;
    c->params = t->params;
    c->global_batch = t->global_batch;
    c->units = t->units;
    c->chunk_elems = t->chunk_elems;
    c->checkpoint_every = t->checkpoint_every;
    c->fold = t->fold;
    return 0;
}

static int map_take(const Steer__Envelope *v, struct control *c, struct err *e)
{
    const Steer__Map *m = v->map;

    if (m->n_host > WIRE_HOSTS_MAX)
        return err_set(e, ERR_LIMIT, "%zu hosts, the limit is %d", m->n_host, WIRE_HOSTS_MAX);
    if (m->n_slot > WIRE_SLOTS_MAX)
        return err_set(e, ERR_LIMIT, "%zu slots, the limit is %d", m->n_slot, WIRE_SLOTS_MAX);
    c->assignment = m->assignment;
    c->hosts_n = (uint32_t)m->n_host;
    c->slots_n = (uint32_t)m->n_slot;
    for (uint32_t i = 0; i < c->hosts_n; i++) {
        TRY(TAKE("host worker", m->host[i]->worker, c->host[i].worker));
        TRY(TAKE("host endpoint", m->host[i]->endpoint, c->host[i].endpoint));
        c->host[i].chunk_begin = m->host[i]->chunk_begin;
        c->host[i].chunk_end = m->host[i]->chunk_end;
        if (c->host[i].chunk_begin > c->host[i].chunk_end)
            return err_set(e, ERR_INVALID, "host %u: chunks [%u, %u) run backwards", i,
                           c->host[i].chunk_begin, c->host[i].chunk_end);
    }
    for (uint32_t i = 0; i < c->slots_n; i++) {
        TRY(TAKE("slot worker", m->slot[i]->worker, c->slot[i].worker));
        c->slot[i].leaf_begin = m->slot[i]->leaf_begin;
        c->slot[i].leaf_end = m->slot[i]->leaf_end;
        c->slot[i].only_step = m->slot[i]->only_step;
        c->slot[i].again = m->slot[i]->again;
        if (c->slot[i].leaf_begin > c->slot[i].leaf_end)
            return err_set(e, ERR_INVALID, "slot %u: leaves [%u, %u) run backwards", i,
                           c->slot[i].leaf_begin, c->slot[i].leaf_end);
    }
    return 0;
}

static int figures_take(const Steer__Envelope *v, struct control *c, struct err *e)
{
    (void)e;
    c->loss = v->figures->loss;
    c->grad_norm = v->figures->grad_norm;
    c->lr = v->figures->lr;
    c->tokens_per_s = v->figures->tokens_per_s;
    c->tokens = v->figures->tokens;
    c->duplicates = v->figures->duplicates;
    c->stale = v->figures->stale;
    return 0;
}

static int handover_take(const Steer__Envelope *v, struct control *c, struct err *e)
{
    const Steer__Handover *h = v->handover;

    if (h->n_source > WIRE_HOSTS_MAX)
        return err_set(e, ERR_LIMIT, "%zu sources, the limit is %d", h->n_source, WIRE_HOSTS_MAX);
    c->from_attempt = h->from_attempt;
    c->edge = h->edge;
    c->replicate = h->replicate;
    c->roots = h->roots;
    c->close_step = h->close_step;
    c->scale = h->scale;
    c->rate = h->rate;
    c->tail_loss = h->tail_loss;
    c->tail_steps = h->tail_steps;
    c->audit = h->audit;
    c->sources_n = (uint32_t)h->n_source;
    for (uint32_t i = 0; i < c->sources_n; i++) {
        struct control_source *s = &c->source[i];

        TRY(TAKE("source worker", h->source[i]->worker, s->worker));
        TRY(TAKE("source endpoint", h->source[i]->endpoint, s->endpoint));
        s->chunk_begin = h->source[i]->chunk_begin;
        s->chunk_end = h->source[i]->chunk_end;
        s->copy_begin = h->source[i]->copy_begin;
        s->copy_end = h->source[i]->copy_end;
        if (s->chunk_begin > s->chunk_end || s->copy_begin > s->copy_end)
            return err_set(e, ERR_INVALID, "source %u: chunks [%u, %u), [%u, %u) run backwards", i,
                           s->chunk_begin, s->chunk_end, s->copy_begin, s->copy_end);
    }
    return 0;
}

static int opinions_take(const Steer__Envelope *v, struct control *c, struct err *e)
{
    const Steer__Opinions *o = v->opinions;

    if (o->n_who > WIRE_OPINIONS_MAX || o->n_who != o->n_hash)
        return err_set(e, ERR_LIMIT, "%zu opinions with %zu hashes, the limit is %d", o->n_who,
                       o->n_hash, WIRE_OPINIONS_MAX);
    c->step = o->step;
    c->level = o->level;
    c->node = o->index;
    c->chunk = o->chunk;
    c->settled = o->settled;
    c->tainted = o->tainted;
    c->odd = o->odd;
    c->opinions_n = (uint32_t)o->n_who;
    for (uint32_t i = 0; i < c->opinions_n; i++)
        c->opinion[i] = (struct control_opinion){o->who[i], o->hash[i]};
    return 0;
}

static int open_take(const Steer__Envelope *v, struct control *c, struct err *e)
{
    const Steer__Open *o = v->open;

    if (o->n_missing > 2 * (size_t)WIRE_MISSING_MAX || o->n_missing % 2 != 0)
        return err_set(e, ERR_LIMIT, "%zu bounds of missing spans, the limit is %d", o->n_missing,
                       2 * WIRE_MISSING_MAX);
    if (o->n_who > WIRE_SHARES_MAX || o->n_who != o->n_units || o->n_who != o->n_ms)
        return err_set(e, ERR_LIMIT, "%zu shares with %zu units, the limit is %d", o->n_who,
                       o->n_units, WIRE_SHARES_MAX);
    c->partial = o->partial;
    c->open_ms = o->open_ms;
    c->damaged = o->damaged;
    c->audited = o->audited;
    c->missing_n = (uint32_t)(o->n_missing / 2);
    for (uint32_t i = 0; i < c->missing_n; i++) {
        c->missing[i] = (struct control_span){o->missing[2 * i], o->missing[2 * i + 1]};
        if (c->missing[i].begin > c->missing[i].end)
            return err_set(e, ERR_INVALID, "missing units [%u, %u) run backwards",
                           c->missing[i].begin, c->missing[i].end);
    }
    c->shares_n = (uint32_t)o->n_who;
    for (uint32_t i = 0; i < c->shares_n; i++)
        c->share[i] = (struct control_share){o->who[i], o->units[i], o->ms[i]};
    return 0;
}

/* The groups of the type, each required; groups that the type does not carry are left alone. */
static int groups_take(const Steer__Envelope *v, struct control *c, unsigned groups, struct err *e)
{
    const struct {
        unsigned group;
        const char *name;
        const void *message;
        int (*take)(const Steer__Envelope *v, struct control *c, struct err *e);
    } takers[] = {{G_MACHINE, "machine", v->machine, machine_take},
                  {G_PULSE, "pulse", v->pulse, pulse_take},
                  {G_TERMS, "terms", v->terms, terms_take},
                  {G_TASK, "task", v->n_task > 0 ? v->task : NULL, task_take},
                  {G_OUTCOME, "outcome", v->n_outcome > 0 ? v->outcome : NULL, outcome_take},
                  {G_SESSION, "session", v->session, session_take},
                  {G_TRAINING, "training", v->training, training_take},
                  {G_MAP, "map", v->map, map_take},
                  {G_FIGURES, "figures", v->figures, figures_take},
                  {G_HANDOVER, "handover", v->handover, handover_take},
                  {G_OPINIONS, "opinions", v->opinions, opinions_take},
                  {G_OPEN, "open", v->open, open_take}};

    for (size_t i = 0; i < sizeof takers / sizeof takers[0]; i++) {
        if ((groups & takers[i].group) == 0)
            continue;
        if (takers[i].message == NULL)
            return err_set(e, ERR_INVALID, "its %s part is missing", takers[i].name);
        TRY(takers[i].take(v, c, e));
    }
    return 0;
}

static int envelope_take(const Steer__Envelope *v, struct control *c, struct err *e)
{
    const struct control_kind *kind = control_kind(v->type);

    c->proto = v->proto;
    c->term = v->term;
    TRY(TAKE("cluster", v->cluster, c->cluster));
    if (v->proto == 0)
        return err_set(e, ERR_INVALID, "it names no version of the protocol");
    if (v->proto != WIRE_PROTO)
        return err_set(e, ERR_UNSUPPORTED, "protocol version %u, this is version %u", v->proto,
                       WIRE_PROTO);
    if (kind == NULL)
        return err_set(e, ERR_INVALID, "type %u is unknown", v->type);
    c->type = kind->type;
    if (groups_take(v, c, kind->groups, e) != 0)
        return err_wrap(e, "%s", kind->name);
    /* A refusal is said in the version of who must read it, by who knows no seals. */
    if (v->seal == 0 && !(c->type == CONTROL_REJECT && c->code == ERR_UNSUPPORTED))
        return err_set(e, ERR_INVALID, "it is not sealed");
    return 0;
}

int control_unpack(const void *frame, size_t len, struct control **out, struct err *e)
{
    struct wire_budget budget = {.left = 1u << 20};
    ProtobufCAllocator allocator = wire_allocator(&budget);
    Steer__Envelope *v;
    struct control *c;
    int rc;

    *out = NULL;
    if (len > WIRE_FRAME_MAX)
        return err_set(e, ERR_LIMIT, "control frame of %zu bytes, the limit is %u", len,
                       WIRE_FRAME_MAX);
    v = steer__envelope__unpack(&allocator, len, frame);
    if (v == NULL)
        return err_set(e, ERR_INVALID, "control frame of %zu bytes is no envelope", len);
    if (v->seal != 0 && !seal_fits(frame, len, v->seal, NULL, 0)) {
        steer__envelope__free_unpacked(v, &allocator);
        return err_set(e, ERR_CORRUPT, "control frame of %zu bytes was changed on its way", len);
    }
    c = control_new(control_kind(v->type) != NULL ? (enum control_type)v->type : CONTROL_HELLO);
    rc = envelope_take(v, c, e);
    steer__envelope__free_unpacked(v, &allocator);
    if (rc != 0 && rc != ERR_UNSUPPORTED) {
        control_free(c);
        return err_wrap(e, "control frame");
    }
    *out = c;
    return rc;
}
