/* What a worker does about what it hears: a script of events, and what must come of each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/duty.h"

static struct duty d;
static struct duty_actions acts;
static uint64_t now;

static int setup(void **state)
{
    struct control *hello = control_new(CONTROL_HELLO);

    (void)state;
    strcpy(hello->worker, "w1");
    hello->boot = 77;
    now = 1000;
    duty_init(&d, hello);
    control_free(hello);
    acts.n = 0;
    return 0;
}

static void clear(void)
{
    for (uint32_t i = 0; i < acts.n; i++)
        if (acts.action[i].type == DUTY_SEND)
            control_free(acts.action[i].message);
    acts.n = 0;
}

static int teardown(void **state)
{
    (void)state;
    clear();
    duty_fini(&d);
    return 0;
}

static void step(struct duty_event e)
{
    clear();
    e.now_ms = now;
    duty_step(&d, &e, &acts);
}

static void tick(uint64_t after)
{
    now += after;
    step((struct duty_event){.type = DUTY_TICK, .progress = now});
}

/* The n-th action of a type, NULL if there are fewer. */
static struct duty_action *action(enum duty_action_type type, int n)
{
    for (uint32_t i = 0; i < acts.n; i++)
        if (acts.action[i].type == type && n-- == 0)
            return &acts.action[i];
    return NULL;
}

static struct control *sent(enum control_type type)
{
    for (int i = 0;; i++) {
        struct duty_action *a = action(DUTY_SEND, i);
        if (a == NULL || a->message->type == type)
            return a == NULL ? NULL : a->message;
    }
}

static void hear_under(uint64_t term, struct control *m)
{
    m->term = term;
    step((struct duty_event){.type = DUTY_HEARD, .message = m});
}

/* Hears a message of a type; fields by fill. The message is kept until the next one, because
 * actions borrow it. */
static struct control *message(enum control_type type)
{
    static struct control *last;

    control_free(last);
    last = control_new(type);
    return last;
}

static void welcome(uint64_t term)
{
    struct control *m = message(CONTROL_WELCOME);

    strcpy(m->cluster, "c");
    m->heartbeat_ms = 500;
    hear_under(term, m);
}

static void task(uint64_t id, uint64_t epoch)
{
    struct control *m = message(CONTROL_TASK);

    m->task = id;
    m->epoch = epoch;
    hear_under(d.term, m);
}

static void word(enum control_type type, uint64_t id, uint64_t epoch)
{
    struct control *m = message(type);

    m->task = id;
    m->epoch = epoch;
    hear_under(d.term, m);
}

static void session_word(enum control_type type, uint64_t session, uint64_t attempt,
                         uint64_t version)
{
    struct control *m = message(type);

    m->session = session;
    m->session_attempt = attempt;
    m->version = version;
    hear_under(d.term, m);
}

static void task_ended(uint64_t id, uint64_t epoch)
{
    struct control *m = control_new(CONTROL_TASK_DONE);

    m->task = id;
    m->epoch = epoch;
    m->result = mem_strdup("{}");
    step((struct duty_event){.type = DUTY_TASK_END, .outcome = m});
}

static void session_says(enum control_type type, uint64_t session, uint64_t attempt,
                         uint64_t version)
{
    struct control *m = control_new(type);

    m->session = session;
    m->session_attempt = attempt;
    m->version = version;
    step((struct duty_event){.type = DUTY_SESSION_SAYS, .outcome = m});
}

static void test_hello_is_repeated_until_welcome_then_heartbeats(void **state)
{
    (void)state;
    tick(0);
    assert_non_null(sent(CONTROL_HELLO));
    assert_int_equal(sent(CONTROL_HELLO)->boot, 77);
    tick(100);
    assert_int_equal(acts.n, 0);
    step((struct duty_event){.type = DUTY_UNSENT});
    tick(10);
    assert_non_null(sent(CONTROL_HELLO));
    tick(DUTY_HELLO_MS);
    assert_non_null(sent(CONTROL_HELLO));
    welcome(3);
    assert_non_null(action(DUTY_TERMS, 0));
    tick(500);
    assert_null(sent(CONTROL_HELLO));
    assert_non_null(sent(CONTROL_HEARTBEAT));
    assert_int_equal(sent(CONTROL_HEARTBEAT)->term, 3);
    assert_string_equal(sent(CONTROL_HEARTBEAT)->cluster, "c");
    assert_int_equal(sent(CONTROL_HEARTBEAT)->progress, now);
}

static void test_silence_renews_the_link_and_keeps_the_work(void **state)
{
    (void)state;
    welcome(3);
    task(5, 1);
    assert_non_null(action(DUTY_TASK_START, 0));
    tick(DUTY_SILENCE_MS + 1);
    assert_non_null(action(DUTY_RECONNECT, 0));
    assert_int_equal(sent(CONTROL_HELLO)->leases_n, 1);
    assert_int_equal(sent(CONTROL_HELLO)->lease[0].task, 5);
    task_ended(5, 1); /* nobody to tell */
    assert_int_equal(acts.n, 0);
    welcome(4);
    assert_non_null(sent(CONTROL_TASK_DONE));
    assert_int_equal(sent(CONTROL_TASK_DONE)->term, 4);
    assert_string_equal(sent(CONTROL_TASK_DONE)->result, "{}");
    word(CONTROL_ACK, 5, 1);
    assert_int_equal(d.held_n, 0);
}

/* The coordinator may come back elsewhere long after the first look. */
static void test_the_link_is_looked_after_as_long_as_nothing_is_heard(void **state)
{
    (void)state;
    tick(0); /* never heard: before the first coordinator, too */
    assert_null(action(DUTY_RECONNECT, 0));
    tick(DUTY_SILENCE_MS + 1);
    assert_non_null(action(DUTY_RECONNECT, 0));
    welcome(3);
    for (int i = 0; i < 3; i++) {
        tick(DUTY_SILENCE_MS);
        assert_null(action(DUTY_RECONNECT, 0));
        tick(1);
        assert_non_null(action(DUTY_RECONNECT, 0));
        assert_null(action(DUTY_RECONNECT, 1));
    }
    tick(DUTY_SILENCE_MS - 1);
    welcome(4);
    tick(2);
    assert_null(action(DUTY_RECONNECT, 0));
}

static void test_outcomes_are_repeated_until_acknowledged(void **state)
{
    (void)state;
    welcome(1);
    task(5, 2);
    task_ended(5, 2);
    assert_non_null(sent(CONTROL_TASK_DONE));
    tick(DUTY_REPEAT_MS - 1);
    assert_null(sent(CONTROL_TASK_DONE));
    tick(1);
    assert_non_null(sent(CONTROL_TASK_DONE));
    task(5, 2); /* told again while the outcome is on its way: not run again */
    assert_null(action(DUTY_TASK_START, 0));
    word(CONTROL_ACK, 5, 1); /* of an older epoch */
    assert_int_equal(d.held_n, 1);
    word(CONTROL_ACK, 5, 2);
    tick(DUTY_REPEAT_MS);
    assert_null(sent(CONTROL_TASK_DONE));
}

static void test_epochs_fence_tasks(void **state)
{
    (void)state;
    welcome(1);
    task(5, 2);
    task(5, 1);
    assert_null(action(DUTY_TASK_START, 0));
    task(5, 3); /* a newer lease: the old run is stopped */
    assert_int_equal(action(DUTY_TASK_STOP, 0)->epoch, 2);
    assert_non_null(action(DUTY_TASK_START, 0));
    task_ended(5, 2); /* the old run ends late */
    assert_int_equal(acts.n, 0);
    word(CONTROL_TASK_CANCEL, 5, 2); /* an old cancel */
    assert_null(action(DUTY_TASK_STOP, 0));
    word(CONTROL_TASK_CANCEL, 5, 3);
    assert_int_equal(action(DUTY_TASK_STOP, 0)->epoch, 3);
    assert_int_equal(d.held_n, 0);
    task_ended(5, 3);
    assert_int_equal(acts.n, 0);
}

static void test_terms_fence_everything(void **state)
{
    struct control *m;

    (void)state;
    welcome(5);
    m = message(CONTROL_TASK);
    m->task = 1;
    hear_under(4, m);
    assert_null(action(DUTY_TASK_START, 0));
    welcome(4);
    assert_null(action(DUTY_TERMS, 0));
    assert_int_equal(d.term, 5);
    assert_int_equal(d.stale, 2);
    welcome(6);
    assert_int_equal(d.term, 6);
}

static void test_reject_says_hello_again_or_exits(void **state)
{
    struct control *m;

    (void)state;
    welcome(1);
    m = message(CONTROL_REJECT);
    m->code = ERR_NOT_FOUND;
    hear_under(9, m);
    assert_non_null(sent(CONTROL_HELLO));
    assert_null(action(DUTY_EXIT, 0));
    m = message(CONTROL_REJECT);
    m->code = ERR_UNSUPPORTED;
    hear_under(9, m);
    assert_int_equal(action(DUTY_EXIT, 0)->code, ERR_UNSUPPORTED);
}

/* Which it was nobody knows: the coordinator says again what this worker lacks. */
static void test_a_damaged_message_makes_it_say_hello_until_it_is_welcome(void **state)
{
    (void)state;
    welcome(1);
    session_word(CONTROL_SESSION_OPEN, 9, 2, 0);
    step((struct duty_event){.type = DUTY_DAMAGED});
    assert_non_null(sent(CONTROL_HELLO));
    assert_int_equal(sent(CONTROL_HELLO)->session, 9);
    assert_int_equal(sent(CONTROL_HELLO)->session_attempt, 2);
    step((struct duty_event){.type = DUTY_DAMAGED}); /* one is on its way */
    assert_null(sent(CONTROL_HELLO));
    tick(DUTY_HELLO_MS);
    assert_non_null(sent(CONTROL_HELLO));
    assert_null(action(DUTY_RECONNECT, 0));
    welcome(1);
    tick(DUTY_HELLO_MS);
    assert_null(sent(CONTROL_HELLO));
    assert_non_null(sent(CONTROL_HEARTBEAT));
}

static void test_sessions_are_replaced_by_higher_attempts_only(void **state)
{
    (void)state;
    welcome(1);
    session_word(CONTROL_SESSION_OPEN, 9, 2, 0);
    assert_non_null(action(DUTY_SESSION_OPEN, 0));
    session_word(CONTROL_SESSION_OPEN, 9, 2, 0);
    session_word(CONTROL_SESSION_OPEN, 9, 1, 0);
    assert_int_equal(acts.n, 0);
    session_word(CONTROL_ASSIGN, 9, 2, 0);
    assert_non_null(action(DUTY_SESSION_ASSIGN, 0));
    session_word(CONTROL_ASSIGN, 9, 1, 0);
    assert_int_equal(acts.n, 0);
    session_word(CONTROL_SESSION_OPEN, 9, 3, 0);
    assert_int_equal(action(DUTY_SESSION_CLOSE, 0)->session, 9);
    assert_non_null(action(DUTY_SESSION_OPEN, 0));
    session_word(CONTROL_SESSION_CLOSE, 9, 2, 0); /* an old one: what is kept of it, if anything */
    assert_null(action(DUTY_SESSION_CLOSE, 0));
    assert_int_equal(action(DUTY_SESSION_FORGET, 0)->attempt, 2);
    session_word(CONTROL_SESSION_CLOSE, 9, 3, 0);
    assert_non_null(action(DUTY_SESSION_CLOSE, 0));
    assert_int_equal(d.session, 0);
}

static void test_a_frozen_attempt_is_said_until_the_next_one_and_kept_if_that_says_so(void **state)
{
    struct control *open;

    (void)state;
    welcome(1);
    session_word(CONTROL_SESSION_OPEN, 9, 2, 0);
    session_word(CONTROL_SESSION_FREEZE, 9, 1, 0);
    assert_int_equal(acts.n, 0);
    session_word(CONTROL_SESSION_FREEZE, 9, 2, 0);
    assert_non_null(action(DUTY_SESSION_FREEZE, 0));
    session_says(CONTROL_SESSION_FROZEN, 9, 2, 7);
    assert_non_null(sent(CONTROL_SESSION_FROZEN));
    session_word(CONTROL_ACK, 9, 2, 7); /* of a checkpoint, say */
    tick(DUTY_REPEAT_MS);
    assert_non_null(sent(CONTROL_SESSION_FROZEN));
    open = message(CONTROL_SESSION_OPEN);
    open->session = 9;
    open->session_attempt = 3;
    open->from_attempt = 2;
    hear_under(d.term, open);
    assert_int_equal(action(DUTY_SESSION_CLOSE, 0)->attempt, 2);
    tick(DUTY_REPEAT_MS);
    assert_null(sent(CONTROL_SESSION_FROZEN));
    session_says(CONTROL_SESSION_FROZEN, 9, 2, 7);
    assert_int_equal(acts.n, 0);
}

static void test_checkpoints_are_repeated_until_acknowledged(void **state)
{
    (void)state;
    welcome(1);
    session_word(CONTROL_SESSION_OPEN, 9, 2, 0);
    session_says(CONTROL_SESSION_STATUS, 9, 2, 3);
    assert_non_null(sent(CONTROL_SESSION_STATUS));
    session_says(CONTROL_SESSION_CHECKPOINT, 9, 2, 10);
    session_says(CONTROL_SESSION_CHECKPOINT, 9, 1, 20); /* of an attempt that is over */
    assert_int_equal(acts.n, 0);
    session_says(CONTROL_SESSION_DONE, 9, 2, 30);
    tick(DUTY_REPEAT_MS);
    assert_non_null(sent(CONTROL_SESSION_CHECKPOINT));
    assert_non_null(sent(CONTROL_SESSION_DONE));
    assert_null(sent(CONTROL_SESSION_STATUS));
    session_word(CONTROL_ACK, 9, 2, 10);
    tick(DUTY_REPEAT_MS);
    assert_null(sent(CONTROL_SESSION_CHECKPOINT));
    assert_non_null(sent(CONTROL_SESSION_DONE));
    session_word(CONTROL_ACK, 9, 2, 30);
    tick(DUTY_REPEAT_MS);
    assert_null(sent(CONTROL_SESSION_DONE));
}

/* What was sent before a failure is acknowledged after it: the failure has still to be heard. */
static void test_a_checkpoint_that_is_acknowledged_does_not_silence_a_failure(void **state)
{
    (void)state;
    welcome(1);
    session_word(CONTROL_SESSION_OPEN, 9, 2, 0);
    session_says(CONTROL_SESSION_CHECKPOINT, 9, 2, 40);
    session_says(CONTROL_SESSION_FAILED, 9, 2, CONTROL_VERSION_FAILED);
    session_word(CONTROL_ACK, 9, 2, 40);
    tick(DUTY_REPEAT_MS);
    assert_null(sent(CONTROL_SESSION_CHECKPOINT));
    assert_non_null(sent(CONTROL_SESSION_FAILED));
    session_word(CONTROL_ACK, 9, 2, CONTROL_VERSION_FAILED);
    tick(DUTY_REPEAT_MS);
    assert_null(sent(CONTROL_SESSION_FAILED));
}

static void test_a_drain_ends_what_runs_and_says_bye(void **state)
{
    (void)state;
    welcome(1);
    task(5, 1);
    step((struct duty_event){.type = DUTY_DRAIN});
    assert_true(sent(CONTROL_HEARTBEAT)->draining);
    task(6, 1);
    assert_null(action(DUTY_TASK_START, 0));
    tick(100);
    assert_null(action(DUTY_EXIT, 0));
    task_ended(5, 1);
    word(CONTROL_ACK, 5, 1);
    tick(100);
    assert_non_null(sent(CONTROL_BYE));
    assert_int_equal(action(DUTY_EXIT, 0)->code, 0);
}

static void test_a_drain_does_not_wait_for_ever(void **state)
{
    (void)state;
    welcome(1);
    for (uint64_t i = 1; i <= WIRE_LEASES_MAX + 16; i++) { /* more than can be held */
        task(i, 1);
        if (i <= WIRE_LEASES_MAX)
            task_ended(i, 1);
    }
    assert_int_equal(d.held_n, WIRE_LEASES_MAX);
    step((struct duty_event){.type = DUTY_DRAIN});
    tick(1000);
    assert_null(action(DUTY_EXIT, 0));
    now += DUTY_DRAIN_MS;
    d.heard_ms = now; /* the coordinator is there, it does not answer */
    tick(0);
    assert_non_null(action(DUTY_EXIT, 0));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_hello_is_repeated_until_welcome_then_heartbeats),
        T(test_silence_renews_the_link_and_keeps_the_work),
        T(test_the_link_is_looked_after_as_long_as_nothing_is_heard),
        T(test_outcomes_are_repeated_until_acknowledged),
        T(test_epochs_fence_tasks),
        T(test_terms_fence_everything),
        T(test_reject_says_hello_again_or_exits),
        T(test_a_damaged_message_makes_it_say_hello_until_it_is_welcome),
        T(test_sessions_are_replaced_by_higher_attempts_only),
        T(test_a_frozen_attempt_is_said_until_the_next_one_and_kept_if_that_says_so),
        T(test_checkpoints_are_repeated_until_acknowledged),
        T(test_a_checkpoint_that_is_acknowledged_does_not_silence_a_failure),
        T(test_a_drain_ends_what_runs_and_says_bye),
        T(test_a_drain_does_not_wait_for_ever),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    message(CONTROL_BYE);
    return rc;
}
