/* Heads of data-plane messages: there and back, and what the unpacker refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "params.pb-c.h"
#include "wire/control.h"
#include "wire/params.h"
#include "wire/seal.h"

/* No bit may change: of frames neither, but those that have hashes of their own. */
static void bits_flipped(const struct link_frame *frames, int n, bool own_hashes)
{
    struct params_head back;
    struct err e;

    for (int i = 0; i < n; i++) {
        uint8_t *bytes = frames[i].data;
        for (size_t bit = 0; bit < frames[i].len * 8; bit += i == 0 ? 1 : 37) {
            bytes[bit / 8] = (uint8_t)(bytes[bit / 8] ^ (1 << bit % 8));
            assert_int_equal(params_unpack(frames, n, &back, &e) == 0, i > 0 && own_hashes);
            bytes[bit / 8] = (uint8_t)(bytes[bit / 8] ^ (1 << bit % 8));
        }
    }
    assert_int_equal(params_unpack(frames, n, &back, &e), 0);
}

static void test_every_type_travels(void **state)
{
    static const struct {
        enum params_type type;
        uint32_t count;
        int frames;
    } cases[] = {{PARAMS_PULL, 5000, 0},   {PARAMS_CHUNKS, 32, 32},     {PARAMS_PUSH, 32, 32},
                 {PARAMS_PUSH, 1, 1},      {PARAMS_ACK, 32, 0},         {PARAMS_ROOTS, 700, 1},
                 {PARAMS_APPLY, 0, 0},     {PARAMS_SAVED, 4, 1},        {PARAMS_SAVED, 0, 0},
                 {PARAMS_REPLICA, 32, 32}, {PARAMS_REPLICA_ACK, 32, 0}, {PARAMS_STATE_PULL, 9, 0},
                 {PARAMS_STATE, 10, 30},   {PARAMS_STATE, 0, 0}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct params_head h = {.type = cases[i].type,
                                .session = UINT64_MAX,
                                .attempt = 3,
                                .step = 1ull << 40,
                                .level = 5,
                                .index = 77,
                                .chunk = 100000,
                                .count = cases[i].count,
                                .loss = -1.5e300,
                                .weight = 2.5,
                                .tokens = UINT64_MAX,
                                .verdict = 4,
                                .scale = 1e-30f,
                                .rate = 2e-3f,
                                .grad_norm = 3e200,
                                .tail_loss = -7.25,
                                .tail_steps = UINT64_MAX,
                                .freeze = true,
                                .who = UINT64_MAX,
                                .duplicates = UINT64_MAX,
                                .stale = UINT64_MAX};
        struct params_head back;
        uint8_t bytes[PARAMS_HEAD_MAX], raw[256] = {0};
        struct link_frame frames[LINK_FRAMES_MAX + 1];
        struct err e;
        int n;
        for (uint32_t k = 0; k < h.count; k++) {
            if (h.type == PARAMS_PUSH || h.type == PARAMS_REPLICA || h.type == PARAMS_STATE)
                h.hash[k] = UINT64_MAX - k;
            if (h.type == PARAMS_REPLICA)
                h.state[k] = UINT64_MAX / 2 - k;
        }
        for (int k = 1; k <= cases[i].frames + 1; k++)
            frames[k] =
                (struct link_frame){.data = raw + 3 * k, .len = sizeof raw - 96 - (size_t)k};
        n = 1 + cases[i].frames;
        params_pack(&h, bytes, frames, n);
        assert_true(frames[0].len <= PARAMS_HEAD_MAX);
        assert_int_equal(params_unpack(frames, n, &back, &e), 0);
        assert_memory_equal(&back, &h, sizeof h);
        assert_int_not_equal(params_unpack(frames, n + 1, &back, &e), 0);
        bits_flipped(frames, n,
                     h.type == PARAMS_PUSH || h.type == PARAMS_REPLICA || h.type == PARAMS_STATE);
        for (frames[0].len--; frames[0].len > 0; frames[0].len--)
            assert_int_not_equal(params_unpack(frames, n, &back, &e), 0);
    }
}

static int refuse(Steer__Parcel *p, int n, struct err *e)
{
    uint8_t bytes[4096];
    struct params_head out;
    struct link_frame frames[LINK_FRAMES_MAX + 10] = {{.data = bytes}};

    p->seal = SEAL_OPEN;
    frames[0].len = steer__parcel__pack(p, bytes);
    seal_put(bytes, frames[0].len, frames + 1, p->type == PARAMS_PULL ? n : 0);
    return params_unpack(frames, 1 + n, &out, e);
}

static void test_what_is_not_sealed_is_refused(void **state)
{
    Steer__Parcel p = STEER__PARCEL__INIT;
    uint8_t bytes[4096];
    struct link_frame frame = {.data = bytes};
    struct params_head out;
    struct err e;

    (void)state;
    p.proto = WIRE_PROTO;
    p.type = PARAMS_PULL;
    frame.len = steer__parcel__pack(&p, bytes);
    assert_int_equal(params_unpack(&frame, 1, &out, &e), ERR_INVALID);
    p.proto = 3; /* of those that had no seals: what it is comes first */
    frame.len = steer__parcel__pack(&p, bytes);
    assert_int_equal(params_unpack(&frame, 1, &out, &e), ERR_UNSUPPORTED);
}

static void test_bad_heads_are_refused(void **state)
{
    uint64_t hash[140] = {0};
    Steer__Parcel p = STEER__PARCEL__INIT;
    struct err e;

    (void)state;
    p.proto = WIRE_PROTO;
    p.type = PARAMS_PULL;
    assert_int_equal(refuse(&p, 0, &e), 0);
    p.proto = WIRE_PROTO + 1;
    assert_int_equal(refuse(&p, 0, &e), ERR_UNSUPPORTED);
    p.proto = WIRE_PROTO;
    p.type = 0;
    assert_int_equal(refuse(&p, 0, &e), ERR_INVALID);
    p.type = PARAMS_STATE + 1;
    assert_int_equal(refuse(&p, 0, &e), ERR_INVALID);
    p.type = PARAMS_PULL;
    p.chunk = UINT32_MAX;
    p.count = 2;
    assert_int_equal(refuse(&p, 0, &e), ERR_INVALID);
    p.chunk = 0;
    p.type = PARAMS_PUSH; /* two chunks, no hashes */
    assert_int_equal(refuse(&p, 2, &e), ERR_INVALID);
    p.n_hash = p.count = 40; /* more than a message may have */
    p.hash = hash;
    assert_int_equal(refuse(&p, 40, &e), ERR_INVALID);
    p.n_hash = 140; /* above the head's own size */
    assert_int_equal(refuse(&p, 40, &e), ERR_LIMIT);
    p.n_hash = p.count = 2;
    p.type = PARAMS_REPLICA; /* no hashes of the state */
    assert_int_equal(refuse(&p, 2, &e), ERR_INVALID);
    p.type = PARAMS_STATE;
    p.count = UINT32_MAX / 3 + 2; /* three times as many frames would be 2 */
    p.n_hash = 0;
    assert_int_equal(refuse(&p, 2, &e), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_travels),
        cmocka_unit_test(test_bad_heads_are_refused),
        cmocka_unit_test(test_what_is_not_sealed_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
