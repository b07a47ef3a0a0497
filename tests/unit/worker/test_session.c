/*
 * Whole training sessions over real sockets, with and without trouble (session_cluster.h).
 */
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "net/link.h"
#include "wire/params.h"

#include "tests/unit/worker/session_cluster.h"

static char first_manifest[DIGEST_HEX + 1];

static void run_case(int hosts, int threads, bool duplicates, bool overlap)
{
    struct cluster c;

    cluster_start(&c, hosts, threads);
    c.with_duplicates = duplicates;
    c.with_overlap = overlap;
    for (int i = hosts - 1; i >= 0; i--)
        cluster_open(&c, i, NULL);
    cluster_run(&c, STEPS);
    cluster_manifest_wait(&c, &c.last_manifest);
    cluster_check(&c);
    if (first_manifest[0] == '\0')
        strcpy(first_manifest, c.last_manifest.hex);
    assert_string_equal(c.last_manifest.hex, first_manifest);
    cluster_stop(&c);
}

static void test_any_threads_and_hosts_give_the_bits_of_the_straight_loop(void **state)
{
    static const int hosts[] = {1, 2, 3, 5};
    static const int threads[] = {1, 2, 3, 5, 7};

    (void)state;
    for (size_t h = 0; h < sizeof hosts / sizeof hosts[0]; h++)
        for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++)
            run_case(hosts[h], threads[t], false, false);
}

static void test_duplicates_and_overlaps_change_nothing(void **state)
{
    (void)state;
    run_case(2, 3, true, false);
    run_case(2, 3, false, true);
    run_case(3, 5, true, true);
}

/* All hosts die after a few steps; another number of hosts goes on from the checkpoint of
 * version 5. */
static void test_a_checkpoint_goes_on_elsewhere_with_the_same_bits(void **state)
{
    struct cluster c;
    struct digest early;

    (void)state;
    cluster_start(&c, 2, 2);
    cluster_open(&c, 0, NULL);
    cluster_open(&c, 1, NULL);
    cluster_run(&c, 7);
    cluster_manifest_wait(&c, &c.early_manifest);
    early = c.early_manifest;
    c.attempt = 2;
    cluster_open(&c, 0, &early); /* replaces attempt 1 */
    cluster_open(&c, 1, &early);
    c.threads = 3;
    cluster_run(&c, STEPS);
    cluster_manifest_wait(&c, &c.last_manifest);
    cluster_check(&c);
    assert_string_equal(c.last_manifest.hex, first_manifest);
    cluster_stop(&c);
}

/* A host that appears late, and threads that arrive before any host does, find each other. */
static void test_late_hosts_are_waited_for(void **state)
{
    struct cluster c;

    (void)state;
    cluster_start(&c, 2, 1);
    cluster_threads_start(&c, 2);
    clock_sleep_ms(50);
    cluster_open(&c, 1, NULL);
    clock_sleep_ms(50);
    cluster_open(&c, 0, NULL);
    cluster_threads_join(&c, false);
    cluster_stop(&c);
}

static void test_a_gradient_that_is_not_finite_ends_the_session_by_name(void **state)
{
    struct cluster c;

    (void)state;
    cluster_start(&c, 2, 2);
    c.poison_step = 3;
    cluster_open(&c, 0, NULL);
    cluster_open(&c, 1, NULL);
    cluster_run(&c, STEPS);
    assert_int_equal(c.failed_code, ERR_NUMERIC);
    assert_non_null(strstr(c.failed_text, "step 4"));
    cluster_stop(&c);
}

static void damaged_case(const char *fault, bool regions)
{
    struct cluster c;
    struct err e;

    assert_int_equal(fault_set(fault, &e), 0);
    cluster_start(&c, 2, 3);
    c.no_regions = !regions;
    c.replicate = true;
    cluster_open(&c, 0, NULL);
    cluster_open(&c, 1, NULL);
    cluster_run(&c, STEPS);
    cluster_manifest_wait(&c, &c.last_manifest);
    assert_string_equal(c.last_manifest.hex, first_manifest);
    assert_int_equal(c.failed_code, 0);
    cluster_stop(&c);
    fault_set(NULL, &e);
}

/* A part of a message may have been added to other gradients before the rest of it comes again. */
static void test_a_push_that_is_damaged_on_its_way_comes_again(void **state)
{
    (void)state;
    for (int hit = 1; hit < 30; hit += 3) {
        char fault[64];
        snprintf(fault, sizeof fault, "ps.push.damage:%d", hit);
        damaged_case(fault, true);
        damaged_case(fault, false);
    }
}

/* Bytes that are not what was hashed never pass for a gradient, however often they come. */
static void test_a_push_that_is_always_damaged_ends_its_sender(void **state)
{
    (void)state;
    for (int regions = 0; regions < 2; regions++) {
        struct cluster c;
        struct err e;

        assert_int_equal(fault_set("ps.push.damage:1:every", &e), 0);
        cluster_start(&c, 1, 1);
        c.no_regions = !regions;
        cluster_open(&c, 0, NULL);
        cluster_run(&c, STEPS);
        assert_int_equal(c.damaged, 1);
        assert_int_equal(c.version, 0);
        cluster_stop(&c);
        fault_set(NULL, &e);
    }
}

/* Asks the only host for all chunks of at least this version. */
static void ask_all(void *socket, uint64_t at_least, uint32_t chunks, enum host_verdict answer)
{
    uint8_t head[PARAMS_HEAD_MAX];
    const struct params_head h = {
        .type = PARAMS_PULL, .session = 9, .attempt = 1, .step = at_least, .count = chunks, .verdict = answer};
    struct link_frame frame;
    struct err e;

    params_pack(&h, head, &frame, 1);
    while (link_send(socket, NULL, &frame, 1, &e) != 0)
        clock_sleep_ms(5);
}

/* Chunks of this version that come: until there are so many (in 5 s), or, of 0, for a while. */
static uint32_t chunks_come(void *socket, uint64_t version, uint32_t wanted)
{
    uint64_t end = clock_ms() + (wanted > 0 ? 5000 : 200);
    uint32_t come = 0;

    while (clock_ms() < end && (wanted == 0 || come < wanted)) {
        struct link_frame frames[LINK_FRAMES_MAX];
        struct params_head h;
        struct err e;
        int n = 0;

        link_poll(&socket, 1, NULL, 0, 10);
        assert_int_equal(link_recv(socket, NULL, frames, &n, &e), 0);
        if (n == 0)
            continue;
        assert_int_equal(params_unpack(frames, n, &h, &e), 0);
        if (h.type == PARAMS_CHUNKS && h.step == version)
            come += h.count;
        link_frames_release(frames, n);
    }
    return come;
}

/* On a slow link an answer is on its way for longer than the asker is patient. */
static void test_a_repeated_question_is_not_answered_twice(void **state)
{
    uint32_t chunks = (uint32_t)((layout.count + CHUNK - 1) / CHUNK);
    struct cluster c;
    struct err e;
    void *socket;

    (void)state;
    cluster_start(&c, 1, 2);
    cluster_open(&c, 0, NULL);
    cluster_run(&c, 1);
    socket = link_dealer(LINK_DATA, c.endpoint[0], &e);
    assert_non_null(socket);
    ask_all(socket, 1, chunks, HOST_ACCEPTED);
    assert_int_equal(chunks_come(socket, 1, chunks), chunks);
    for (int i = 0; i < 3; i++)
        ask_all(socket, 1, chunks, HOST_ACCEPTED);
    assert_int_equal(chunks_come(socket, 1, 0), 0);
    ask_all(socket, 1, chunks, HOST_CORRUPT); /* something of the answer was damaged */
    assert_int_equal(chunks_come(socket, 1, chunks), chunks);
    ask_all(socket, 2, chunks, HOST_ACCEPTED); /* a newer one waits for its version */
    assert_int_equal(chunks_come(socket, 1, 0), 0);
    cluster_run(&c, 2);
    assert_int_equal(chunks_come(socket, 2, chunks), chunks);
    ask_all(socket, 1, chunks, HOST_ACCEPTED); /* another question */
    assert_int_equal(chunks_come(socket, 2, chunks), chunks);
    link_close(socket);
    cluster_stop(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_threads_and_hosts_give_the_bits_of_the_straight_loop),
        cmocka_unit_test(test_duplicates_and_overlaps_change_nothing),
        cmocka_unit_test(test_a_checkpoint_goes_on_elsewhere_with_the_same_bits),
        cmocka_unit_test(test_late_hosts_are_waited_for),
        cmocka_unit_test(test_a_gradient_that_is_not_finite_ends_the_session_by_name),
        cmocka_unit_test(test_a_push_that_is_damaged_on_its_way_comes_again),
        cmocka_unit_test(test_a_push_that_is_always_damaged_ends_its_sender),
        cmocka_unit_test(test_a_repeated_question_is_not_answered_twice),
    };
    return cluster_main(tests, sizeof tests / sizeof tests[0]);
}
