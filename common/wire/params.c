#include "wire/params.h"

#include <string.h>

#include "params.pb-c.h"
#include "wire/control.h" /* WIRE_PROTO */

/* protobuf-c's allocations of one head come from a piece of the stack. */
struct arena {
    _Alignas(16) uint8_t bytes[2048];
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

size_t params_pack(const struct params_head *h, uint8_t out[PARAMS_HEAD_MAX])
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
    if (h->type == PARAMS_PUSH) {
        CHECK(h->count <= PARAMS_FRAMES_MAX);
        p.n_hash = h->count;
        p.hash = (uint64_t *)(uintptr_t)h->hash; /* protobuf-c has no const; packing only reads */
    }
    p.loss = h->loss;
    p.weight = h->weight;
    p.tokens = h->tokens;
    p.verdict = h->verdict;
    p.scale = h->scale;
    p.rate = h->rate;
    p.who = h->who;
    CHECK(steer__parcel__get_packed_size(&p) <= PARAMS_HEAD_MAX);
    return steer__parcel__pack(&p, out);
}

/* How many raw frames a head announces. */
static uint32_t frames_of(const Steer__Parcel *p)
{
    switch (p->type) {
    case PARAMS_CHUNKS:
    case PARAMS_PUSH:
        return p->count;
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
    if (p->type < PARAMS_PULL || p->type > PARAMS_SAVED)
        return err_set(e, ERR_INVALID, "type %u is unknown", p->type);
    if (frames < 0 || frames_of(p) != (uint32_t)frames)
        return err_set(e, ERR_INVALID, "type %u with %d frames, its head says %u", p->type, frames,
                       frames_of(p));
    if (p->n_hash != (p->type == PARAMS_PUSH ? p->count : 0) || p->n_hash > PARAMS_FRAMES_MAX)
        return err_set(e, ERR_INVALID, "%zu hashes for %u chunks", p->n_hash, p->count);
    if (p->chunk > UINT32_MAX - p->count)
        return err_set(e, ERR_INVALID, "chunks [%u, %u + %u)", p->chunk, p->chunk, p->count);
    return 0;
}

int params_unpack(const void *frame, size_t len, int frames, struct params_head *out, struct err *e)
{
    struct arena arena;
    ProtobufCAllocator allocator = {arena_alloc, arena_free, &arena};
    const Steer__Parcel *p;

    arena.used = 0;
    if (len > PARAMS_HEAD_MAX)
        return err_set(e, ERR_LIMIT, "parcel head of %zu bytes, the limit is %d", len,
                       PARAMS_HEAD_MAX);
    p = steer__parcel__unpack(&allocator, len, frame);
    if (p == NULL)
        return err_set(e, ERR_INVALID, "parcel head of %zu bytes is no parcel", len);
    if (head_check(p, frames, e) != 0)
        return err_wrap(e, "parcel");
    *out = (struct params_head){.type = (enum params_type)p->type,
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
                                .who = p->who};
    if (p->n_hash > 0)
        memcpy(out->hash, p->hash, p->n_hash * sizeof *p->hash);
    return 0;
}
