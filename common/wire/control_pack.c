/* A struct control becomes one protobuf Envelope: the groups of its type are filled, one function
 * each, and packed. */
#include <stdlib.h>
#include <string.h>

#include "control.pb-c.h"
#include "wire/control_inner.h"
#include "wire/seal.h"

static ProtobufCBinaryData bytes_of(const char *text)
{
    /* protobuf-c has no const; packing only reads. */
    return (ProtobufCBinaryData){strlen(text), (uint8_t *)(uintptr_t)text};
}

/* All submessages of one envelope, on the heap because the lists are long. */
struct packing {
    Steer__Envelope envelope;
    Steer__Machine machine;
    Steer__Pulse pulse;
    Steer__Terms terms;
    Steer__Task *task, **task_at; /* one a link of the chain */
    Steer__Outcome *outcome, **outcome_at;
    Steer__Session session;
    Steer__Training training;
    Steer__Map map;
    Steer__Figures figures;
    Steer__Handover handover;
    Steer__Opinions opinions;
    Steer__Open open;
    uint32_t missing[2 * WIRE_MISSING_MAX], units[WIRE_SHARES_MAX], ms[WIRE_SHARES_MAX];
    uint64_t sharer[WIRE_SHARES_MAX];
    Steer__Source source[WIRE_HOSTS_MAX], *source_at[WIRE_HOSTS_MAX];
    uint64_t who[WIRE_OPINIONS_MAX], hash[WIRE_OPINIONS_MAX];
    Steer__Lease lease[WIRE_LEASES_MAX], *lease_at[WIRE_LEASES_MAX];
    Steer__Host host[WIRE_HOSTS_MAX], *host_at[WIRE_HOSTS_MAX];
    Steer__Slot slot[WIRE_SLOTS_MAX], *slot_at[WIRE_SLOTS_MAX];
};

static void machine_pack(const struct control *c, struct packing *p)
{
    steer__machine__init(&p->machine);
    p->machine.worker = bytes_of(c->worker);
    p->machine.boot = c->boot;
    p->machine.name = bytes_of(c->name);
    p->machine.endpoint = bytes_of(c->endpoint);
    p->machine.roles = c->roles;
    p->machine.threads = c->threads;
    p->machine.memory_bytes = c->memory_bytes;
    p->machine.build = bytes_of(c->build);
    p->machine.fingerprint = bytes_of(c->fingerprint);
    p->machine.blas = bytes_of(c->blas);
    p->machine.fingerprint_bf16 = bytes_of(c->fingerprint_bf16);
    p->envelope.machine = &p->machine;
}

static void pulse_pack(const struct control *c, struct packing *p)
{
    steer__pulse__init(&p->pulse);
    p->pulse.worker = bytes_of(c->worker);
    p->pulse.boot = c->boot;
    p->pulse.progress = c->progress;
    p->pulse.draining = c->draining;
    CHECK(c->leases_n <= WIRE_LEASES_MAX);
    for (uint32_t i = 0; i < c->leases_n; i++) {
        steer__lease__init(&p->lease[i]);
        p->lease[i].task = c->lease[i].task;
        p->lease[i].epoch = c->lease[i].epoch;
        p->lease[i].done = c->lease[i].done;
        p->lease[i].total = c->lease[i].total;
        p->lease[i].moved = c->lease[i].moved;
        p->lease_at[i] = &p->lease[i];
    }
    p->pulse.n_lease = c->leases_n;
    p->pulse.lease = p->lease_at;
    p->envelope.pulse = &p->pulse;
}

static void terms_pack(const struct control *c, struct packing *p)
{
    steer__terms__init(&p->terms);
    p->terms.heartbeat_ms = c->heartbeat_ms;
    p->terms.lease_ms = c->lease_ms;
    p->terms.http = bytes_of(c->http);
    p->terms.note = bytes_of(c->text);
    p->envelope.terms = &p->terms;
}

static void task_pack(const struct control *c, struct packing *p)
{
    size_t n = 0, links = 1 + (size_t)c->links_n;

    p->task = mem_alloc(links * (sizeof *p->task + sizeof *p->task_at));
    p->task_at = (Steer__Task **)(void *)(p->task + links);
    for (; c != NULL; c = c->next, n++) {
        Steer__Task *t = p->task_at[n] = &p->task[n];

        steer__task__init(t);
        t->job = c->job;
        t->task = c->task;
        t->epoch = c->epoch;
        t->attempt = c->attempt;
        t->kind = bytes_of(c->task_kind);
        t->index = c->index;
        t->begin = c->begin;
        t->end = c->end;
        t->context = bytes_of(c->context.hex);
    }
    CHECK(n == links);
    p->envelope.n_task = n;
    p->envelope.task = p->task_at;
}

static void outcome_pack(const struct control *c, struct packing *p)
{
    size_t n = 0, links = 1 + (size_t)c->links_n;

    p->outcome = mem_alloc(links * (sizeof *p->outcome + sizeof *p->outcome_at));
    p->outcome_at = (Steer__Outcome **)(void *)(p->outcome + links);
    for (; c != NULL; c = c->next, n++) {
        Steer__Outcome *o = p->outcome_at[n] = &p->outcome[n];

        steer__outcome__init(o);
        if (c->result != NULL)
            o->result = bytes_of(c->result);
        o->code = c->code;
        o->text = bytes_of(c->text);
        o->busy_us = c->busy_us;
    }
    CHECK(n == links);
    p->envelope.n_outcome = n;
    p->envelope.outcome = p->outcome_at;
}

static void session_pack(const struct control *c, struct packing *p)
{
    steer__session__init(&p->session);
    p->session.job = c->job;
    p->session.session = c->session;
    p->session.attempt = c->session_attempt;
    p->session.version = c->version;
    p->session.manifest = bytes_of(c->manifest.hex);
    p->envelope.session = &p->session;
}

static void training_pack(const struct control *c, struct packing *p)
{
    steer__training__init(&p->training);
    p->training.seed = c->seed;
    p->training.steps = c->steps;
    p->training.params = c->params;
    p->training.global_batch = c->global_batch;
    p->training.units = c->units;
    p->training.chunk_elems = c->chunk_elems;
    p->training.checkpoint_every = c->checkpoint_every;
    p->training.fold = c->fold;
    p->training.context = bytes_of(c->context.hex);
    p->training.examples = bytes_of(c->examples.hex);
    p->training.init = bytes_of(c->init.hex);
    p->envelope.training = &p->training;
}

static void map_pack(const struct control *c, struct packing *p)
{
    steer__map__init(&p->map);
    p->map.assignment = c->assignment;
    CHECK(c->hosts_n <= WIRE_HOSTS_MAX && c->slots_n <= WIRE_SLOTS_MAX);
    for (uint32_t i = 0; i < c->hosts_n; i++) {
        steer__host__init(&p->host[i]);
        p->host[i].worker = bytes_of(c->host[i].worker);
        p->host[i].endpoint = bytes_of(c->host[i].endpoint);
        p->host[i].chunk_begin = c->host[i].chunk_begin;
        p->host[i].chunk_end = c->host[i].chunk_end;
        p->host_at[i] = &p->host[i];
    }
    for (uint32_t i = 0; i < c->slots_n; i++) {
        steer__slot__init(&p->slot[i]);
        p->slot[i].worker = bytes_of(c->slot[i].worker);
        p->slot[i].leaf_begin = c->slot[i].leaf_begin;
        p->slot[i].leaf_end = c->slot[i].leaf_end;
        p->slot[i].only_step = c->slot[i].only_step;
        p->slot[i].again = c->slot[i].again;
        p->slot_at[i] = &p->slot[i];
    }
    p->map.n_host = c->hosts_n;
    p->map.host = p->host_at;
    p->map.n_slot = c->slots_n;
    p->map.slot = p->slot_at;
    p->envelope.map = &p->map;
}

static void figures_pack(const struct control *c, struct packing *p)
{
    steer__figures__init(&p->figures);
    p->figures.loss = c->loss;
    p->figures.grad_norm = c->grad_norm;
    p->figures.lr = c->lr;
    p->figures.tokens_per_s = c->tokens_per_s;
    p->figures.tokens = c->tokens;
    p->figures.duplicates = c->duplicates;
    p->figures.stale = c->stale;
    p->envelope.figures = &p->figures;
}

static void handover_pack(const struct control *c, struct packing *p)
{
    steer__handover__init(&p->handover);
    p->handover.from_attempt = c->from_attempt;
    p->handover.edge = c->edge;
    p->handover.replicate = c->replicate;
    p->handover.roots = c->roots;
    p->handover.close_step = c->close_step;
    p->handover.scale = c->scale;
    p->handover.rate = c->rate;
    p->handover.tail_loss = c->tail_loss;
    p->handover.tail_steps = c->tail_steps;
    p->handover.audit = c->audit;
    CHECK(c->sources_n <= WIRE_HOSTS_MAX);
    for (uint32_t i = 0; i < c->sources_n; i++) {
        steer__source__init(&p->source[i]);
        p->source[i].worker = bytes_of(c->source[i].worker);
        p->source[i].endpoint = bytes_of(c->source[i].endpoint);
        p->source[i].chunk_begin = c->source[i].chunk_begin;
        p->source[i].chunk_end = c->source[i].chunk_end;
        p->source[i].copy_begin = c->source[i].copy_begin;
        p->source[i].copy_end = c->source[i].copy_end;
        p->source_at[i] = &p->source[i];
    }
    p->handover.n_source = c->sources_n;
    p->handover.source = p->source_at;
    p->envelope.handover = &p->handover;
}

static void opinions_pack(const struct control *c, struct packing *p)
{
    steer__opinions__init(&p->opinions);
    p->opinions.step = c->step;
    p->opinions.level = c->level;
    p->opinions.index = c->node;
    p->opinions.chunk = c->chunk;
    p->opinions.settled = c->settled;
    p->opinions.tainted = c->tainted;
    p->opinions.odd = c->odd;
    CHECK(c->opinions_n <= WIRE_OPINIONS_MAX);
    for (uint32_t i = 0; i < c->opinions_n; i++) {
        p->who[i] = c->opinion[i].who;
        p->hash[i] = c->opinion[i].hash;
    }
    p->opinions.n_who = p->opinions.n_hash = c->opinions_n;
    p->opinions.who = p->who;
    p->opinions.hash = p->hash;
    p->envelope.opinions = &p->opinions;
}

static void open_pack(const struct control *c, struct packing *p)
{
    steer__open__init(&p->open);
    p->open.partial = c->partial;
    p->open.open_ms = c->open_ms;
    p->open.damaged = c->damaged;
    p->open.audited = c->audited;
    CHECK(c->missing_n <= WIRE_MISSING_MAX && c->shares_n <= WIRE_SHARES_MAX);
    for (uint32_t i = 0; i < c->missing_n; i++) {
        p->missing[2 * i] = c->missing[i].begin;
        p->missing[2 * i + 1] = c->missing[i].end;
    }
    for (uint32_t i = 0; i < c->shares_n; i++) {
        p->sharer[i] = c->share[i].who;
        p->units[i] = c->share[i].units;
        p->ms[i] = c->share[i].ms;
    }
    p->open.n_missing = 2 * (size_t)c->missing_n;
    p->open.missing = p->missing;
    p->open.n_who = p->open.n_units = p->open.n_ms = c->shares_n;
    p->open.who = p->sharer;
    p->open.units = p->units;
    p->open.ms = p->ms;
    p->envelope.open = &p->open;
}

void control_pack(const struct control *c, struct buf *out)
{
    static const struct {
        unsigned group;
        void (*pack)(const struct control *c, struct packing *p);
    } packers[] = {
        {G_MACHINE, machine_pack},   {G_PULSE, pulse_pack},       {G_TERMS, terms_pack},
        {G_TASK, task_pack},         {G_OUTCOME, outcome_pack},   {G_SESSION, session_pack},
        {G_TRAINING, training_pack}, {G_MAP, map_pack},           {G_FIGURES, figures_pack},
        {G_HANDOVER, handover_pack}, {G_OPINIONS, opinions_pack}, {G_OPEN, open_pack}};
    struct packing *p = mem_alloc(sizeof *p);
    const struct control_kind *kind = control_kind((uint32_t)c->type);
    size_t size;

    CHECK(kind != NULL);
    p->task = NULL;
    p->outcome = NULL;
    steer__envelope__init(&p->envelope);
    p->envelope.proto = c->proto;
    p->envelope.type = (uint32_t)c->type;
    p->envelope.cluster = bytes_of(c->cluster);
    p->envelope.term = c->term;
    p->envelope.seal = SEAL_OPEN;
    for (size_t i = 0; i < sizeof packers / sizeof packers[0]; i++)
        if ((kind->groups & packers[i].group) != 0)
            packers[i].pack(c, p);
    size = steer__envelope__get_packed_size(&p->envelope);
    CHECK(size <= WIRE_FRAME_MAX);
    buf_reserve(out, size);
    steer__envelope__pack(&p->envelope, (uint8_t *)out->data + out->len);
    seal_put((uint8_t *)out->data + out->len, size, NULL, 0);
    out->len += size;
    out->data[out->len] = '\0';
    free(p->task);
    free(p->outcome);
    free(p);
}
