#include "wire/params.h"

#include <string.h>

#include "params.pb-c.h"
#include "wire/control.h" /* WIRE_PROTO */
#include "wire/seal.h"

/* protobuf-c's allocations of one head come from a piece of the stack. */
struct arena {
    _Alignas(16) uint8_t bytes[4096];
    size_t used;
};

static void *arena_alloc(void *self, size_t size)
{
    struct arena *a = self;
    size_t at = a->used;

    if (size > sizeof a->bytes)
        return NULL;
    size = (size + 15) & ~(size_t)15;
    if (size > sizeof a->bytes - at)
        return NULL;
    a->used = at + size;
    return a->bytes + at;
}

static void arena_free(void *self, void *p)
{
    (void)self;
    (void)p;
}

static bool has_hash(uint32_t type)
{
    return type == PARAMS_PUSH || type == PARAMS_REPLICA || type == PARAMS_STATE;
}

void params_pack(const struct params_head *h, uint8_t head[PARAMS_HEAD_MAX],
                 struct link_frame *frames, int n)
{
    Steer__Parcel p = STEER__PARCEL__INIT;

    p.proto = WIRE_PROTO;
    p.type = (uint32_t)h->type;
    p.session = h->session;
    p.attempt = h->attempt;
    p.step = h->step;
    p.level = h->level;
    p.index = h->index;
    p.chunk = h->chunk;
    p.count = h->count;
    if (has_hash(p.type)) {
        CHECK(h->count <= PARAMS_FRAMES_MAX);
        p.n_hash = h->count;
        p.hash = (uint64_t *)(uintptr_t)h->hash; /* protobuf-c has no const; packing only reads */
    }
    if (h->type == PARAMS_REPLICA) {
        p.n_state = h->count;
        p.state = (uint64_t *)(uintptr_t)h->state;
    }
    p.loss = h->loss;
    p.weight = h->weight;
    p.tokens = h->tokens;
    p.verdict = h->verdict;
    p.scale = h->scale;
    p.rate = h->rate;
    p.who = h->who;
    p.grad_norm = h->grad_norm;
    p.tail_loss = h->tail_loss;
    p.tail_steps = h->tail_steps;
    p.freeze = h->freeze;
    p.duplicates = h->duplicates;
    p.stale = h->stale;
    p.region_id = h->region.id;
    p.region_bytes = h->region.bytes;
    p.region_pid = h->region.pid;
    p.region_fd = h->region.fd;
    p.seal = SEAL_OPEN;
    CHECK(steer__parcel__get_packed_size(&p) <= PARAMS_HEAD_MAX);
    frames[0] = (struct link_frame){.data = head, .len = steer__parcel__pack(&p, head)};
    seal_put(head, frames[0].len, frames + 1, has_hash(p.type) ? 0 : n - 1);
}

/* How many raw frames a head announces. */
static uint32_t frames_of(const Steer__Parcel *p)
{
    switch (p->type) {
    case PARAMS_CHUNKS:
    case PARAMS_PUSH:
        return p->region_bytes == 0 ? p->count : 0;
    case PARAMS_REPLICA:
        return p->count;
    case PARAMS_STATE:
        return p->count <= PARAMS_FRAMES_MAX ? 3 * p->count : UINT32_MAX;
    case PARAMS_ROOTS:
        return 1;
    case PARAMS_SAVED:
        return p->count != 0;
    default:
        return 0;
    }
}

static int head_check(const Steer__Parcel *p, int frames, struct err *e)
{
    if (p->proto != WIRE_PROTO)
        return err_set(e, ERR_UNSUPPORTED, "protocol version %u, this is version %u", p->proto,
                       WIRE_PROTO);
    if (p->seal == 0)
        return err_set(e, ERR_INVALID, "it is not sealed");
    if (p->type < PARAMS_PULL || p->type > PARAMS_STATE)
        return err_set(e, ERR_INVALID, "type %u is unknown", p->type);
    if (frames < 0 || frames_of(p) != (uint32_t)frames)
        return err_set(e, ERR_INVALID, "type %u with %d frames, its head says %u", p->type, frames,
                       frames_of(p));
    if (p->n_hash != (has_hash(p->type) ? p->count : 0) || p->n_hash > PARAMS_FRAMES_MAX ||
        p->n_state != (p->type == PARAMS_REPLICA ? p->count : 0))
        return err_set(e, ERR_INVALID, "%zu and %zu hashes for %u chunks", p->n_hash, p->n_state,
                       p->count);
    if (p->chunk > UINT32_MAX - p->count)
        return err_set(e, ERR_INVALID, "chunks [%u, %u + %u)", p->chunk, p->chunk, p->count);
    return 0;
}

int params_unpack(const struct link_frame *frames, int n, struct params_head *out, struct err *e)
{
    size_t len = frames[0].len;
    struct arena arena;
    ProtobufCAllocator allocator = {arena_alloc, arena_free, &arena};
    const Steer__Parcel *p;

    arena.used = 0;
    if (len > PARAMS_HEAD_MAX)
        return err_set(e, ERR_LIMIT, "parcel head of %zu bytes, the limit is %d", len,
                       PARAMS_HEAD_MAX);
    p = steer__parcel__unpack(&allocator, len, frames[0].data);
    if (p == NULL)
        return err_set(e, ERR_INVALID, "parcel head of %zu bytes is no parcel", len);
    if (p->seal != 0 &&
        !seal_fits(frames[0].data, len, p->seal, frames + 1, has_hash(p->type) ? 0 : n - 1))
        return err_set(e, ERR_CORRUPT, "parcel of type %u was changed on its way", p->type);
    if (head_check(p, n - 1, e) != 0)
        return err_wrap(e, "parcel");
    *out = (struct params_head){
        .type = (enum params_type)p->type,
        .session = p->session,
        .attempt = p->attempt,
        .step = p->step,
        .level = p->level,
        .index = p->index,
        .chunk = p->chunk,
        .count = p->count,
        .loss = p->loss,
        .weight = p->weight,
        .tokens = p->tokens,
        .verdict = p->verdict,
        .scale = p->scale,
        .rate = p->rate,
        .grad_norm = p->grad_norm,
        .tail_loss = p->tail_loss,
        .tail_steps = p->tail_steps,
        .freeze = p->freeze != 0,
        .duplicates = p->duplicates,
        .stale = p->stale,
        .who = p->who,
        .region = {p->region_id, p->region_bytes, p->region_pid, p->region_fd}};
    if (p->n_hash > 0)
        memcpy(out->hash, p->hash, p->n_hash * sizeof *p->hash);
    if (p->n_state > 0)
        memcpy(out->state, p->state, p->n_state * sizeof *p->state);
    return 0;
}
