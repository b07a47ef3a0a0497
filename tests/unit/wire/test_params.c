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
        uint8_t bytes[PARAMS_HEAD_MAX];
        struct err e;
        size_t n;
        for (uint32_t k = 0; k < h.count; k++) {
            if (h.type == PARAMS_PUSH || h.type == PARAMS_REPLICA || h.type == PARAMS_STATE)
                h.hash[k] = UINT64_MAX - k;
            if (h.type == PARAMS_REPLICA)
                h.state[k] = UINT64_MAX / 2 - k;
        }
        n = params_pack(&h, bytes);
        assert_true(n <= PARAMS_HEAD_MAX);
        assert_int_equal(params_unpack(bytes, n, cases[i].frames, &back, &e), 0);
        assert_memory_equal(&back, &h, sizeof h);
        assert_int_equal(params_unpack(bytes, n, cases[i].frames + 1, &back, &e), ERR_INVALID);
        for (size_t cut = 0; cut < n; cut++)
            params_unpack(bytes, cut, cases[i].frames, &back, &e);
        for (size_t bit = 0; bit < n * 8; bit++) {
            bytes[bit / 8] = (uint8_t)(bytes[bit / 8] ^ (1 << bit % 8));
            params_unpack(bytes, n, cases[i].frames, &back, &e);
            bytes[bit / 8] = (uint8_t)(bytes[bit / 8] ^ (1 << bit % 8));
        }
    }
}

static int refuse(const Steer__Parcel *p, int frames, struct err *e)
{
    uint8_t bytes[4096];
    struct params_head out;

    return params_unpack(bytes, steer__parcel__pack(p, bytes), frames, &out, e);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
