/*
 * How a struct control becomes one protobuf Envelope and back. An envelope is made of groups (one
 * submessage each); the table TYPES says which groups a type carries. Packing fills the groups of
 * the type; unpacking requires exactly them, so a message with a part missing never reaches a
 * handler. The unpacker runs behind three limits: the frame's length before anything is allocated,
 * a budget on what protobuf-c allocates (two bytes on the wire can cost it 140), and the bounds of
 * the arrays.
 */
#include "wire/control.h"

#include <stdlib.h>
#include <string.h>

#include "control.pb-c.h"
#include "wire/alloc.h"
#include "wire/text.h"

enum group {
    G_MACHINE = 1,
    G_PULSE = 2,
    G_TERMS = 4,
    G_TASK = 8,
    G_OUTCOME = 16,
    G_SESSION = 32,
    G_TRAINING = 64,
    G_MAP = 128,
    G_FIGURES = 256,
    G_HANDOVER = 512,
    G_OPINIONS = 1024,
    G_OPEN = 2048
};

enum side { SIDE_WORKER = 1, SIDE_COORDINATOR = 2 };

static const struct {
    enum control_type type;
    const char *name;
    unsigned groups;
    unsigned side;
} types[] = {
    {CONTROL_HELLO, "hello", G_MACHINE | G_PULSE | G_SESSION, SIDE_WORKER},
    {CONTROL_HEARTBEAT, "heartbeat", G_PULSE, SIDE_WORKER | SIDE_COORDINATOR},
    {CONTROL_TASK_DONE, "task_done", G_TASK | G_OUTCOME, SIDE_WORKER},
    {CONTROL_TASK_FAILED, "task_failed", G_TASK | G_OUTCOME, SIDE_WORKER},
    {CONTROL_SESSION_STATUS, "session_status", G_SESSION | G_FIGURES | G_OUTCOME | G_OPEN,
     SIDE_WORKER},
    {CONTROL_SESSION_CHECKPOINT, "session_checkpoint", G_SESSION | G_FIGURES | G_OUTCOME,
     SIDE_WORKER},
    {CONTROL_SESSION_DONE, "session_done", G_SESSION | G_FIGURES | G_OUTCOME, SIDE_WORKER},
    {CONTROL_SESSION_FAILED, "session_failed", G_SESSION | G_OUTCOME, SIDE_WORKER},
    {CONTROL_BYE, "bye", G_OUTCOME, SIDE_WORKER},
    {CONTROL_LOG, "log", G_TASK | G_OUTCOME, SIDE_WORKER},
    {CONTROL_WELCOME, "welcome", G_TERMS, SIDE_COORDINATOR},
    {CONTROL_REJECT, "reject", G_OUTCOME, SIDE_COORDINATOR},
    {CONTROL_TASK, "task", G_TASK, SIDE_COORDINATOR},
    {CONTROL_TASK_CANCEL, "task_cancel", G_TASK | G_OUTCOME, SIDE_COORDINATOR},
    {CONTROL_ACK, "ack", G_TASK | G_SESSION, SIDE_COORDINATOR},
    {CONTROL_SESSION_FROZEN, "session_frozen", G_SESSION | G_FIGURES | G_HANDOVER, SIDE_WORKER},
    {CONTROL_SESSION_OPINION, "session_opinion", G_SESSION | G_OPINIONS, SIDE_WORKER},
    {CONTROL_SESSION_OPEN, "session_open", G_SESSION | G_TRAINING | G_MAP | G_FIGURES | G_HANDOVER,
     SIDE_COORDINATOR},
    {CONTROL_SESSION_FREEZE, "session_freeze", G_SESSION | G_HANDOVER, SIDE_COORDINATOR},
    {CONTROL_SESSION_WAIVE, "session_waive", G_SESSION | G_OPINIONS, SIDE_COORDINATOR},
    {CONTROL_ASSIGN, "assign", G_SESSION | G_MAP, SIDE_COORDINATOR},
    {CONTROL_SESSION_CLOSE, "session_close", G_SESSION | G_OUTCOME, SIDE_COORDINATOR},
    {CONTROL_DRAIN, "drain", G_OUTCOME, SIDE_COORDINATOR},
};

#define TYPES_N (sizeof types / sizeof types[0])

/* Index into types[], or -1. */
static int type_find(uint32_t type)
{
    for (size_t i = 0; i < TYPES_N; i++)
        if ((uint32_t)types[i].type == type)
            return (int)i;
    return -1;
}

const char *control_type_name(enum control_type type)
{
    int i = type_find((uint32_t)type);

    return i < 0 ? "unknown" : types[i].name;
}

uint64_t control_who(const char *worker)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a: short names, spread over 64 bits */

    for (; *worker != '\0'; worker++)
        h = (h ^ (uint8_t)*worker) * 1099511628211u;
    return h == 0 ? 1 : h;
}

bool control_from_worker(enum control_type type)
{
    int i = type_find((uint32_t)type);

    return i >= 0 && (types[i].side & SIDE_WORKER) != 0;
}

bool control_from_coordinator(enum control_type type)
{
    int i = type_find((uint32_t)type);

    return i >= 0 && (types[i].side & SIDE_COORDINATOR) != 0;
}

/* The lists are large and of rare types: the others do without them. */
static void lists_make(struct control *c, unsigned groups)
{
    if ((groups & G_PULSE) != 0)
        c->lease = mem_zalloc(WIRE_LEASES_MAX, sizeof *c->lease);
    if ((groups & G_MAP) != 0) {
        c->host = mem_zalloc(WIRE_HOSTS_MAX, sizeof *c->host);
        c->slot = mem_zalloc(WIRE_SLOTS_MAX, sizeof *c->slot);
    }
    if ((groups & G_HANDOVER) != 0)
        c->source = mem_zalloc(WIRE_HOSTS_MAX, sizeof *c->source);
    if ((groups & G_OPEN) != 0)
        c->share = mem_zalloc(WIRE_SHARES_MAX, sizeof *c->share);
}

struct control *control_new(enum control_type type)
{
    struct control *c = mem_zalloc(1, sizeof *c);
    int at = type_find((uint32_t)type);

    memset(c, 0, offsetof(struct control, lease));
    c->type = type;
    c->proto = WIRE_PROTO;
    if (at >= 0)
        lists_make(c, types[at].groups);
    return c;
}

static void list_copy(void *to, const void *from, uint32_t n, size_t size)
{
    if (n > 0 && to != NULL)
        memcpy(to, from, n * size);
}

struct control *control_copy(const struct control *c)
{
    struct control *copy = control_new(c->type), lists = *copy;

    *copy = *c;
    copy->lease = lists.lease;
    copy->host = lists.host;
    copy->slot = lists.slot;
    copy->source = lists.source;
    copy->share = lists.share;
    list_copy(copy->lease, c->lease, c->leases_n, sizeof *c->lease);
    list_copy(copy->host, c->host, c->hosts_n, sizeof *c->host);
    list_copy(copy->slot, c->slot, c->slots_n, sizeof *c->slot);
    list_copy(copy->source, c->source, c->sources_n, sizeof *c->source);
    list_copy(copy->share, c->share, c->shares_n, sizeof *c->share);
    if (c->result != NULL)
        copy->result = mem_strdup(c->result);
    copy->next = copy->last = NULL;
    copy->links_n = 0;
    copy->links_bytes = 0;
    return copy;
}

void control_free(struct control *c)
{
    while (c != NULL) {
        struct control *next = c->next;

        free(c->lease);
        free(c->host);
        free(c->slot);
        free(c->source);
        free(c->share);
        free(c->result);
        free(c);
        c = next;
    }
}

/* ---- chains ---------------------------------------------------------------------------------- */

#define ENVELOPE_BYTES 1024 /* for all that is not of a task */
#define TASK_BYTES 200      /* seven numbers of up to 11 bytes, a digest, lengths */

/* What a link needs on the wire, at most. */
static size_t link_bytes(const struct control *c)
{
    return TASK_BYTES + strlen(c->task_kind) + strlen(c->text) +
           (c->result != NULL ? strlen(c->result) : 0);
}

static bool is_of_task(const struct control *c)
{
    int at = type_find((uint32_t)c->type);

    return at >= 0 && (types[at].groups & G_TASK) != 0 && c->task != 0 &&
           c->type != CONTROL_LOG;
}

bool control_join(struct control *head, struct control *more)
{
    size_t bytes = link_bytes(more);

    if (head->type != more->type || !is_of_task(head) || !is_of_task(more) || more->next != NULL ||
        head->links_n + 2 > WIRE_BATCH_MAX)
        return false;
    if (head->links_bytes == 0)
        head->links_bytes = ENVELOPE_BYTES + link_bytes(head);
    if (head->links_bytes + bytes > WIRE_FRAME_MAX)
        return false;
    *(head->last != NULL ? &head->last->next : &head->next) = more;
    head->last = more;
    head->links_n++;
    head->links_bytes += bytes;
    return true;
}

struct control *control_split(struct control *c)
{
    struct control *rest = c->next;

    c->next = c->last = NULL;
    c->links_n = 0;
    c->links_bytes = 0;
    return rest;
}

/* ---- out ------------------------------------------------------------------------------------- */

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
    int at = type_find((uint32_t)c->type);
    size_t size;

    CHECK(at >= 0);
    p->task = NULL;
    p->outcome = NULL;
    steer__envelope__init(&p->envelope);
    p->envelope.proto = c->proto;
    p->envelope.type = (uint32_t)c->type;
    p->envelope.cluster = bytes_of(c->cluster);
    p->envelope.term = c->term;
    for (size_t i = 0; i < sizeof packers / sizeof packers[0]; i++)
        if ((types[at].groups & packers[i].group) != 0)
            packers[i].pack(c, p);
    size = steer__envelope__get_packed_size(&p->envelope);
    CHECK(size <= WIRE_FRAME_MAX);
    buf_reserve(out, size);
    out->len += steer__envelope__pack(&p->envelope, (uint8_t *)out->data + out->len);
    out->data[out->len] = '\0';
    free(p->task);
    free(p->outcome);
    free(p);
}

/* ---- in -------------------------------------------------------------------------------------- */

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
    int at;

    c->proto = v->proto;
    c->term = v->term;
    TRY(TAKE("cluster", v->cluster, c->cluster));
    if (v->proto != WIRE_PROTO)
        return err_set(e, ERR_UNSUPPORTED, "protocol version %u, this is version %u", v->proto,
                       WIRE_PROTO);
    at = type_find(v->type);
    if (at < 0)
        return err_set(e, ERR_INVALID, "type %u is unknown", v->type);
    c->type = types[at].type;
    if (groups_take(v, c, types[at].groups, e) != 0)
        return err_wrap(e, "%s", types[at].name);
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
    c = control_new(type_find(v->type) >= 0 ? (enum control_type)v->type : CONTROL_HELLO);
    rc = envelope_take(v, c, e);
    steer__envelope__free_unpacked(v, &allocator);
    if (rc != 0 && rc != ERR_UNSUPPORTED) {
        control_free(c);
        return err_wrap(e, "control frame");
    }
    *out = c;
    return rc;
}
