/* Control messages there and back, and what the unpacker refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "control.pb-c.h"
#include "wire/control.h"
#include "wire/seal.h"
#include "wire/text.h"

#define HEX "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static const enum control_type all_types[] = {
    CONTROL_HELLO,        CONTROL_HEARTBEAT,      CONTROL_TASK_DONE,
    CONTROL_TASK_FAILED,  CONTROL_SESSION_STATUS, CONTROL_SESSION_CHECKPOINT,
    CONTROL_SESSION_DONE, CONTROL_SESSION_FAILED, CONTROL_BYE,
    CONTROL_LOG,          CONTROL_WELCOME,        CONTROL_REJECT,
    CONTROL_TASK,         CONTROL_TASK_CANCEL,    CONTROL_ACK,
    CONTROL_SESSION_OPEN, CONTROL_ASSIGN,         CONTROL_SESSION_CLOSE,
    CONTROL_DRAIN};

#define TYPES_N (sizeof all_types / sizeof all_types[0])

static struct control *there_and_back(const struct control *c)
{
    struct buf frame = BUF_INIT;
    struct control *back = NULL;
    struct err e;

    control_pack(c, &frame);
    assert_int_equal(control_unpack(frame.data, frame.len, &back, &e), 0);
    buf_free(&frame);
    assert_int_equal(back->type, c->type);
    assert_int_equal(back->proto, WIRE_PROTO);
    return back;
}

static void assert_same_list(const void *a, const void *b, size_t size)
{
    assert_true((a == NULL) == (b == NULL));
    if (a != NULL)
        assert_memory_equal(a, b, size);
}

/* All that is in a message without a result. */
static void assert_same(const struct control *a, const struct control *b)
{
    struct control x = *a, y = *b;

    assert_same_list(a->lease, b->lease, WIRE_LEASES_MAX * sizeof *a->lease);
    assert_same_list(a->host, b->host, WIRE_HOSTS_MAX * sizeof *a->host);
    assert_same_list(a->slot, b->slot, WIRE_SLOTS_MAX * sizeof *a->slot);
    assert_same_list(a->source, b->source, WIRE_HOSTS_MAX * sizeof *a->source);
    assert_same_list(a->share, b->share, WIRE_SHARES_MAX * sizeof *a->share);
    x.lease = y.lease = NULL;
    x.host = y.host = NULL;
    x.slot = y.slot = NULL;
    x.source = y.source = NULL;
    x.share = y.share = NULL;
    assert_memory_equal(&x, &y, sizeof x);
}

static void test_every_type_travels(void **state)
{
    (void)state;
    for (size_t i = 0; i < TYPES_N; i++) {
        struct control *c = control_new(all_types[i]);
        struct control *back;
        strcpy(c->cluster, "c1");
        c->term = UINT64_MAX;
        back = there_and_back(c);
        assert_string_equal(back->cluster, "c1");
        assert_true(back->term == UINT64_MAX);
        assert_string_not_equal(control_type_name(all_types[i]), "unknown");
        assert_true(control_from_worker(all_types[i]) || control_from_coordinator(all_types[i]));
        control_free(back);
        control_free(c);
    }
    assert_string_equal(control_type_name((enum control_type)99), "unknown");
}

static void test_hello_keeps_every_field(void **state)
{
    struct control *c = control_new(CONTROL_HELLO);
    struct control *back;

    (void)state;
    strcpy(c->worker, "w1");
    strcpy(c->name, "h\xc3\xb6st");
    strcpy(c->endpoint, "tcp://10.0.0.1:7782");
    strcpy(c->build, "v1");
    strcpy(c->fingerprint, "abc");
    strcpy(c->blas, "Zen");
    strcpy(c->fingerprint_bf16, "def");
    c->boot = 7;
    c->roles = ROLE_COMPUTE | ROLE_PARAMS;
    c->threads = 4;
    c->memory_bytes = 1ull << 40;
    c->draining = true;
    c->leases_n = 2;
    c->lease[0] = (struct control_lease){1, 2, 3, 4, 5};
    c->lease[1] = (struct control_lease){5, 6, 7, 8, UINT64_MAX};
    back = there_and_back(c);
    assert_same(back, c);
    control_free(back);
    for (c->leases_n = 0; c->leases_n < WIRE_LEASES_MAX; c->leases_n++) /* a full one */
        c->lease[c->leases_n] =
            (struct control_lease){UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
    back = there_and_back(c);
    assert_same(back, c);
    control_free(back);
    control_free(c);
}

static void test_session_open_with_full_maps_fits_a_frame(void **state)
{
    struct control *c = control_new(CONTROL_SESSION_OPEN);
    struct control *back;

    (void)state;
    c->job = 3;
    c->session = 1;
    c->session_attempt = 2;
    c->seed = 9;
    c->steps = 1000;
    c->params = 260000;
    c->global_batch = 48;
    c->units = 8;
    c->chunk_elems = 16384;
    c->checkpoint_every = 100;
    c->fold = -1;
    strcpy(c->context.hex, HEX);
    strcpy(c->examples.hex, HEX);
    strcpy(c->init.hex, HEX);
    strcpy(c->manifest.hex, HEX);
    c->assignment = 4;
    c->hosts_n = WIRE_HOSTS_MAX;
    c->slots_n = WIRE_SLOTS_MAX;
    for (uint32_t i = 0; i < WIRE_HOSTS_MAX; i++) {
        memset(c->host[i].worker, 'w', WIRE_ID_MAX - 1);
        memset(c->host[i].endpoint, 'e', WIRE_TEXT_MAX - 1);
        c->host[i].chunk_begin = i;
        c->host[i].chunk_end = i + 1;
    }
    for (uint32_t i = 0; i < WIRE_SLOTS_MAX; i++) {
        memset(c->slot[i].worker, 's', WIRE_ID_MAX - 1);
        c->slot[i].leaf_begin = i * 256;
        c->slot[i].leaf_end = i * 256 + 256;
        c->slot[i].only_step = UINT64_MAX;
        c->slot[i].again = i;
    }
    back = there_and_back(c);
    assert_same(back, c);
    control_free(back);
    control_free(c);
}

static void test_what_a_step_lacks_travels(void **state)
{
    struct control *c = control_new(CONTROL_SESSION_STATUS);
    struct buf frame = BUF_INIT;
    struct control *back;
    struct err e;

    (void)state;
    c->session = 1;
    c->partial = true;
    c->open_ms = 1200;
    c->damaged = 4;
    c->missing_n = WIRE_MISSING_MAX;
    for (uint32_t i = 0; i < WIRE_MISSING_MAX; i++)
        c->missing[i] = (struct control_span){2 * i, 2 * i + 1};
    c->shares_n = WIRE_SHARES_MAX;
    for (uint32_t i = 0; i < WIRE_SHARES_MAX; i++)
        c->share[i] = (struct control_share){control_who("w"), i, 7 * i};
    back = there_and_back(c);
    assert_same(back, c);
    control_free(back);
    c->missing[1] = (struct control_span){9, 8};
    control_pack(c, &frame);
    assert_int_equal(control_unpack(frame.data, frame.len, &back, &e), ERR_INVALID);
    buf_free(&frame);
    control_free(c);
}

static void test_result_and_text_travel(void **state)
{
    struct control *c = control_new(CONTROL_TASK_DONE);
    struct control *back;

    (void)state;
    c->job = 1;
    c->task = 2;
    c->epoch = 3;
    c->attempt = 4;
    strcpy(c->task_kind, "encode");
    c->result = mem_strdup("{\"outputs\":{}}");
    c->code = -3;
    memset(c->text, 'x', sizeof c->text - 1);
    back = there_and_back(c);
    assert_string_equal(back->result, c->result);
    assert_string_equal(back->text, c->text);
    assert_int_equal(back->code, -3);
    assert_string_equal(back->task_kind, "encode");
    assert_int_equal(back->epoch, 3);
    control_free(back);
    control_free(c);
}

static int unpack_envelope(Steer__Envelope *v, struct err *e);

static struct control *word(enum control_type type, uint64_t task)
{
    struct control *c = control_new(type);

    c->task = task;
    c->epoch = task + 7;
    strcpy(c->task_kind, "probe");
    if (type == CONTROL_TASK_DONE) {
        c->result = mem_strdup("{\"outputs\":{}}");
        c->busy_us = task;
    }
    return c;
}

/* Many results in one frame come as one chain, in order, each whole. */
static void test_a_chain_travels_in_one_frame(void **state)
{
    struct control *head = word(CONTROL_TASK_DONE, 1), *back, *other = word(CONTROL_ACK, 5), *at;
    uint64_t n = 1;

    (void)state;
    strcpy(head->cluster, "c1");
    head->term = 3;
    assert_false(control_join(head, other)); /* another type */
    while (n < 20)
        assert_true(control_join(head, word(CONTROL_TASK_DONE, ++n)));
    back = there_and_back(head);
    for (at = back, n = 0; at != NULL; at = at->next) {
        assert_int_equal(at->type, CONTROL_TASK_DONE);
        assert_int_equal(at->task, ++n);
        assert_int_equal(at->epoch, n + 7);
        assert_int_equal(at->busy_us, n);
        assert_string_equal(at->result, "{\"outputs\":{}}");
        assert_string_equal(at->cluster, "c1");
        assert_int_equal(at->term, 3);
    }
    assert_int_equal(n, 20);
    assert_int_equal(back->links_n, 19);
    at = control_split(back);
    assert_null(back->next);
    assert_int_equal(at->task, 2);
    control_free(at);
    control_free(back);
    control_free(other);
    control_free(head);
}

/* However long the results, what was joined fits a frame; and no frame speaks of too many. */
static void test_a_chain_ends_where_the_frame_does(void **state)
{
    (void)state;
    for (size_t len = 1; len < WIRE_RESULT_MAX; len = len * 3 + 1) {
        struct control *head = NULL, *m = NULL;
        struct buf frame = BUF_INIT;
        bool joined = true;

        while (joined) {
            m = word(CONTROL_TASK_DONE, UINT64_MAX - 9);
            free(m->result);
            m->result = mem_zalloc(len + 1, 1);
            memset(m->result, 'x', len);
            m->job = m->epoch = m->attempt = m->begin = m->end = m->busy_us = UINT64_MAX;
            m->index = UINT32_MAX;
            m->code = -1;
            memset(m->text, 'y', 600);
            strcpy(m->context.hex, HEX);
            if (head == NULL)
                head = m;
            else
                joined = control_join(head, m);
        }
        control_pack(head, &frame); /* CHECKs the bound */
        assert_true(frame.len <= WIRE_FRAME_MAX);
        assert_true(head->links_n + 1 <= WIRE_BATCH_MAX);
        control_free(m);
        control_free(head);
        buf_free(&frame);
    }
}

static void test_outcomes_belong_to_tasks(void **state)
{
    Steer__Envelope v = STEER__ENVELOPE__INIT;
    Steer__Task t = STEER__TASK__INIT, *tasks[WIRE_BATCH_MAX + 1];
    Steer__Outcome o = STEER__OUTCOME__INIT, *outcomes[WIRE_BATCH_MAX + 1];
    struct err e;

    (void)state;
    for (int i = 0; i <= WIRE_BATCH_MAX; i++) {
        tasks[i] = &t;
        outcomes[i] = &o;
    }
    v.proto = WIRE_PROTO;
    v.type = CONTROL_TASK_DONE;
    v.task = tasks;
    v.outcome = outcomes;
    v.n_task = 2;
    v.n_outcome = 2;
    assert_int_equal(unpack_envelope(&v, &e), 0);
    v.n_outcome = 1;
    assert_int_equal(unpack_envelope(&v, &e), ERR_INVALID);
    v.n_outcome = 3;
    assert_int_equal(unpack_envelope(&v, &e), ERR_INVALID);
    v.n_task = v.n_outcome = WIRE_BATCH_MAX;
    assert_int_equal(unpack_envelope(&v, &e), 0);
    v.n_task = v.n_outcome = WIRE_BATCH_MAX + 1;
    assert_int_equal(unpack_envelope(&v, &e), ERR_LIMIT);
}

/* Packs an envelope made by hand, so that it may be wrong. */
static int unpack_envelope(Steer__Envelope *v, struct err *e)
{
    size_t size;
    uint8_t *bytes;
    struct control *c = NULL;
    int rc;

    v->seal = SEAL_OPEN;
    size = steer__envelope__get_packed_size(v);
    bytes = mem_alloc(size);
    steer__envelope__pack(v, bytes);
    seal_put(bytes, size, NULL, 0);
    rc = control_unpack(bytes, size, &c, e);
    if (rc != 0 && rc != ERR_UNSUPPORTED)
        assert_null(c);
    control_free(c);
    free(bytes);
    return rc;
}

static void test_missing_parts_wrong_versions_and_types_are_named(void **state)
{
    Steer__Envelope v = STEER__ENVELOPE__INIT;
    struct err e;

    (void)state;
    v.proto = WIRE_PROTO;
    v.type = CONTROL_HELLO;
    assert_int_equal(unpack_envelope(&v, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "machine part is missing"));
    v.type = 77;
    assert_int_equal(unpack_envelope(&v, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "type 77"));
    v.type = CONTROL_HELLO;
    v.proto = WIRE_PROTO + 1;
    assert_int_equal(unpack_envelope(&v, &e), ERR_UNSUPPORTED);
}

/* A refusal is said in the version of who must read it. */
static void test_a_message_may_be_of_the_peers_version(void **state)
{
    struct control *c = control_new(CONTROL_REJECT), *back = NULL;
    struct buf frame = BUF_INIT;
    struct err e;

    (void)state;
    c->proto = WIRE_PROTO + 1;
    control_pack(c, &frame);
    assert_int_equal(control_unpack(frame.data, frame.len, &back, &e), ERR_UNSUPPORTED);
    assert_int_equal(back->proto, WIRE_PROTO + 1);
    buf_free(&frame);
    control_free(back);
    control_free(c);
}

/* An older coordinator, which knows no seals, must be able to tell why it takes nobody of this version. */
static void test_only_a_refusal_of_the_version_needs_no_seal(void **state)
{
    static const uint32_t codes[] = {ERR_UNSUPPORTED, ERR_DENIED};

    (void)state;
    for (int i = 0; i < 2; i++) {
        Steer__Envelope v = STEER__ENVELOPE__INIT;
        Steer__Outcome o = STEER__OUTCOME__INIT, *outcomes[1] = {&o};
        struct control *c = NULL;
        uint8_t bytes[64];
        struct err e;

        v.proto = WIRE_PROTO;
        v.type = CONTROL_REJECT;
        v.outcome = outcomes;
        v.n_outcome = 1;
        o.code = (int32_t)codes[i];
        assert_int_equal(control_unpack(bytes, steer__envelope__pack(&v, bytes), &c, &e),
                         codes[i] == ERR_UNSUPPORTED ? 0 : ERR_INVALID);
        control_free(c);
    }
}

static void test_bad_texts_are_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        int rc;
    } cases[] = {
        {"ok", 2, 0},
        {"a\0b", 3, ERR_INVALID},
        {"\xff", 1, ERR_INVALID},
        {"\xc0\x80", 2, ERR_INVALID},         /* NUL, overlong */
        {"\xed\xa0\x80", 3, ERR_INVALID},     /* surrogate */
        {"\xe2\x82", 2, ERR_INVALID},         /* cut */
        {"\xf4\x90\x80\x80", 4, ERR_INVALID}, /* above U+10FFFF */
        {"\xf0\x9f\x99\x82", 4, 0},
        {"0123456789012345678901234567890123456789", 40, ERR_LIMIT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Steer__Envelope v = STEER__ENVELOPE__INIT;
        Steer__Outcome o = STEER__OUTCOME__INIT;
        struct err e;
        v.proto = WIRE_PROTO;
        v.type = CONTROL_DRAIN;
        v.outcome = &(Steer__Outcome *){&o};
        v.n_outcome = 1;
        v.cluster.data = (uint8_t *)(uintptr_t)cases[i].bytes;
        v.cluster.len = cases[i].len;
        assert_int_equal(unpack_envelope(&v, &e), cases[i].rc);
    }
}

static void test_a_text_cut_inside_a_letter_is_mended(void **state)
{
    struct control *c = control_new(CONTROL_TASK_FAILED), *back;

    (void)state;
    snprintf(c->text, sizeof c->text, "no \"%.5s\" here\x80", "\xd0\x9d\xd0\xb0\xd1\x81");
    assert_false(text_is_utf8((const uint8_t *)c->text, strlen(c->text)));
    text_mend(c->text);
    assert_string_equal(c->text, "no \"\xd0\x9d\xd0\xb0?\" here?");
    back = there_and_back(c);
    assert_string_equal(back->text, c->text);
    control_free(back);
    strcpy(c->text, "\xe2\x82\xac\xf0\x9f\x98\x80 \xed\xa0\x80\xc0");
    text_mend(c->text);
    assert_string_equal(c->text, "\xe2\x82\xac\xf0\x9f\x98\x80 ????");
    control_free(c);
}

static void test_bad_digest_and_backward_ranges_are_refused(void **state)
{
    Steer__Envelope v = STEER__ENVELOPE__INIT;
    Steer__Session s = STEER__SESSION__INIT;
    Steer__Map m = STEER__MAP__INIT;
    Steer__Host h = STEER__HOST__INIT;
    Steer__Host *hosts[1] = {&h};
    struct err e;

    (void)state;
    v.proto = WIRE_PROTO;
    v.type = CONTROL_ASSIGN;
    v.session = &s;
    v.map = &m;
    assert_int_equal(unpack_envelope(&v, &e), 0);
    m.host = hosts;
    m.n_host = 1;
    h.chunk_begin = 5;
    h.chunk_end = 4;
    assert_int_equal(unpack_envelope(&v, &e), ERR_INVALID);
    h.chunk_end = 5;
    assert_int_equal(unpack_envelope(&v, &e), 0);
    s.manifest.data = (uint8_t *)(uintptr_t) "ABC";
    s.manifest.len = 3;
    assert_int_equal(unpack_envelope(&v, &e), ERR_INVALID);
}

/* 30,000 empty leases cost 60 KB on the wire and megabytes in memory. */
static void test_amplification_stops_at_the_budget(void **state)
{
    uint8_t frame[WIRE_FRAME_MAX];
    size_t n = 0;
    struct control *c;
    struct err e;

    (void)state;
    frame[n++] = 0x08; /* proto = 1 */
    frame[n++] = 1;
    frame[n++] = 0x32; /* pulse, 60,000 bytes */
    frame[n++] = 0xe0;
    frame[n++] = 0xd4;
    frame[n++] = 0x03;
    for (int i = 0; i < 30000; i++) {
        frame[n++] = 0x2a;
        frame[n++] = 0;
    }
    assert_int_equal(control_unpack(frame, n, &c, &e), ERR_INVALID);
    assert_int_equal(control_unpack(frame, WIRE_FRAME_MAX + 1, &c, &e), ERR_LIMIT);
}

/* Refused, and not as another version. What is sealed after it was changed may be read or not: it must not crash. */
static void refuse_changed(struct buf *frame, struct buf *sealed)
{
    struct control *back = NULL;
    struct err e;
    int rc = control_unpack(frame->data, frame->len, &back, &e);

    assert_true(rc != 0 && rc != ERR_UNSUPPORTED);
    assert_null(back);
    sealed->len = 0;
    buf_add(sealed, frame->data, frame->len);
    if (sealed->len >= 8)
        seal_put((uint8_t *)sealed->data, sealed->len, NULL, 0);
    control_unpack(sealed->data, sealed->len, &back, &e);
    control_free(back);
}

static void test_cut_and_flipped_frames_are_refused(void **state)
{
    struct control *c = control_new(CONTROL_SESSION_OPEN);
    struct buf frame = BUF_INIT, sealed = BUF_INIT;
    size_t whole;

    (void)state;
    c->hosts_n = 2;
    c->slots_n = 3;
    strcpy(c->context.hex, HEX);
    control_pack(c, &frame);
    whole = frame.len;
    for (size_t i = 0; i < whole; i++) {
        for (int bit = 0; bit < 8; bit++) {
            frame.data[i] = (char)(frame.data[i] ^ (1 << bit));
            refuse_changed(&frame, &sealed);
            frame.data[i] = (char)(frame.data[i] ^ (1 << bit));
        }
    }
    for (frame.len = 0; frame.len < whole; frame.len++)
        refuse_changed(&frame, &sealed);
    buf_free(&frame);
    buf_free(&sealed);
    control_free(c);
}

/* protobuf-c follows nested messages without a bound, so none of ours may contain itself. */
static void walk(const ProtobufCMessageDescriptor *d, int depth)
{
    assert_true(depth < 8);
    for (unsigned i = 0; i < d->n_fields; i++)
        if (d->fields[i].type == PROTOBUF_C_TYPE_MESSAGE)
            walk(d->fields[i].descriptor, depth + 1);
}

static void test_no_message_contains_itself(void **state)
{
    (void)state;
    walk(&steer__envelope__descriptor, 0);
}

/* A heartbeat as this version of the protocol first wrote it: its peers must be able to read it for ever. */
static void test_old_bytes_are_still_read(void **state)
{
    static const uint8_t old[] = {0x08, 0x04, 0x10, 0x02, 0x1a, 0x02, 'c',  '1',
                                  0x20, 0x05, 0x32, 0x0c, 0x0a, 0x02, 'w',  '1',
                                  0x18, 0x2a, 0x2a, 0x04, 0x08, 0x07, 0x10, 0x03, 0xf9, 0x7f,
                                  0xc9, 0x26, 0xf7, 0x8b, 0x39, 0xd3, 0xb2, 0x3c};
    struct control *c = NULL;
    struct err e;

    (void)state;
    assert_int_equal(control_unpack(old, sizeof old, &c, &e), 0);
    assert_int_equal(c->type, CONTROL_HEARTBEAT);
    assert_int_equal(c->term, 5);
    assert_string_equal(c->worker, "w1");
    assert_int_equal(c->progress, 42);
    assert_int_equal(c->lease[0].task, 7);
    control_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_travels),
        cmocka_unit_test(test_hello_keeps_every_field),
        cmocka_unit_test(test_session_open_with_full_maps_fits_a_frame),
        cmocka_unit_test(test_what_a_step_lacks_travels),
        cmocka_unit_test(test_result_and_text_travel),
        cmocka_unit_test(test_a_chain_travels_in_one_frame),
        cmocka_unit_test(test_a_chain_ends_where_the_frame_does),
        cmocka_unit_test(test_outcomes_belong_to_tasks),
        cmocka_unit_test(test_missing_parts_wrong_versions_and_types_are_named),
        cmocka_unit_test(test_a_message_may_be_of_the_peers_version),
        cmocka_unit_test(test_only_a_refusal_of_the_version_needs_no_seal),
        cmocka_unit_test(test_bad_texts_are_refused),
        cmocka_unit_test(test_a_text_cut_inside_a_letter_is_mended),
        cmocka_unit_test(test_bad_digest_and_backward_ranges_are_refused),
        cmocka_unit_test(test_amplification_stops_at_the_budget),
        cmocka_unit_test(test_cut_and_flipped_frames_are_refused),
        cmocka_unit_test(test_no_message_contains_itself),
        cmocka_unit_test(test_old_bytes_are_still_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
