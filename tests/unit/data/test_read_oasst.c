/* OpenAssistant: trees, threads and flat messages in any order, and what bounds them. */
#include "read_fixture.h"

#define MESSAGE(id, parent, role, text, more)                                                      \
    "{\"message_id\":\"" id "\",\"parent_id\":" parent ",\"role\":\"" role "\",\"text\":\"" text   \
    "\"" more "}"

static void test_oasst_tree(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);

    (void)state;
    /* Two leaves, two conversations; the reply b stands in both and is a response in the first. Shares of 0..1 become 0..4. */
    expect(&s, READ_AUTO,
           "{\"message_tree_id\":\"a\",\"prompt\":{\"message_id\":\"a\",\"role\":\"prompter\","
           "\"text\":\"A\",\"labels\":"
           "{\"quality\":{\"value\":1}},\"replies\":[{\"message_id\":\"b\",\"role\":\"assistant\","
           "\"text\":\"B\",\"labels\":"
           "{\"quality\":{\"value\":0.625,\"count\":3},\"spam\":{\"value\":0}},\"replies\":["
           "{\"message_id\":\"c\",\"role\":\"prompter\",\"text\":\"C\",\"replies\":[{\"message_"
           "id\":\"d\",\"role\":"
           "\"assistant\",\"text\":\"D\",\"labels\":{},\"replies\":[]}]},"
           "{\"message_id\":\"e\",\"role\":\"prompter\",\"text\":\"E\",\"replies\":[{\"message_"
           "id\":\"g\",\"role\":"
           "\"assistant\",\"text\":\"G\"}]}]}]}}\n",
           "d|u:A(quality 4)|a:B*(quality 2.5)|u:C|a:D*\ng|u:A(quality 4)|a:B(quality "
           "2.5)|u:E|a:G*\n");
}

static void test_oasst_flat_in_any_order(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);
    struct read_config c = read_config_of(&s, emit);
    struct run r;

    (void)state;
    c.format = READ_AUTO;
    run_with(
        &r, &c,
        MESSAGE("d", "\"c\"", "assistant", "D", "") "\n" MESSAGE("b", "\"a\"", "assistant", "B", ",\"labels\":{\"name\":[\"spam\",\"humor\"],\"value\":[0,0.5],\"count\":[1,1]}") "\n" MESSAGE(
            "x", "\"b\"", "prompter", "X",
            ",\"deleted\":true") "\n" MESSAGE("c", "\"b\"", "prompter", "C",
                                              "") "\n" MESSAGE("a", "null", "prompter", "A",
                                                               "") "\n" MESSAGE("lonely", "null",
                                                                                "prompter", "L",
                                                                                "") "\n" MESSAGE("l"
                                                                                                 "o"
                                                                                                 "s"
                                                                                                 "t",
                                                                                                 "\"nobody\"",
                                                                                                 "a"
                                                                                                 "s"
                                                                                                 "s"
                                                                                                 "i"
                                                                                                 "s"
                                                                                                 "t"
                                                                                                 "a"
                                                                                                 "n"
                                                                                                 "t",
                                                                                                 "?",
                                                                                                 "") "\n" MESSAGE("y",
                                                                                                                  "\"z\"",
                                                                                                                  "assistant",
                                                                                                                  "Y",
                                                                                                                  "") "\n" MESSAGE("z",
                                                                                                                                   "\"y\"",
                                                                                                                                   "prompter",
                                                                                                                                   "Z",
                                                                                                                                   "") "\n");
    assert_int_equal(r.rc, 0);
    /* The way to d; the way to the deleted x ends at b, which answers already; the lonely prompt has no reply. */
    assert_string_equal(r.out.data, "d|u:A|a:B*(humor 2)|u:C|a:D*\n");
    assert_int_equal(r.counts.threads_repeated, 1);
    assert_int_equal(r.counts.threads_short, 1);
    assert_int_equal(r.problems.total, 3);
    assert_non_null(strstr(r.problems.v[0].text, "nobody is not in the files"));
    assert_int_equal(r.problems.v[0].line, 7);
    assert_non_null(strstr(r.problems.v[1].text, "answers itself"));
    run_end(&r);
}

static void test_oasst_threads(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);

    (void)state;
    expect(&s, READ_AUTO,
           "{\"thread_id\":\"t\",\"thread\":[{\"message_id\":\"a\",\"role\":\"prompter\",\"text\":"
           "\"A\"},{\"message_id\":\"b\","
           "\"role\":\"assistant\",\"text\":\"B\"}]}\n"
           "{\"thread_id\":\"t2\",\"thread\":[{\"message_id\":\"a\",\"role\":\"prompter\",\"text\":"
           "\"A\"},{\"message_id\":\"b\","
           "\"role\":\"assistant\",\"text\":\"B\"},{\"message_id\":\"c\",\"role\":\"prompter\","
           "\"text\":\"C\"},"
           "{\"message_id\":\"d\",\"role\":\"assistant\",\"text\":\"D\"}]}\n",
           "b|u:A|a:B*\nd|u:A|a:B|u:C|a:D*\n");
}

#define TREE(replies)                                                                              \
    "{\"prompt\":{\"role\":\"prompter\",\"text\":\"A\",\"replies\":[" replies "]}}\n"
#define REPLY(text) "{\"role\":\"assistant\",\"text\":\"" text "\"}"

/* Nothing of a tree that was refused half-way comes out later, and trees and flat messages are not mixed, in whatever order. */
static void test_oasst_trees_or_flat_messages(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);
    struct read_config c = read_config_of(&s, emit);
    struct run r;

    (void)state;
    c.format = READ_OASST;
    run_with(&r, &c,
             TREE(REPLY("B")) "{\"x\":1}\n" TREE(REPLY("C") ",{\"role\":\"judge\",\"text\":\"D\"}")
                 MESSAGE("e", "null", "prompter", "E", "") "\n" MESSAGE("f", "\"e\"", "assistant",
                                                                        "F", "") "\n");
    assert_int_equal(r.rc, 0);
    assert_string_equal(r.out.data, "f:1#1|u:A|a:B*\n");
    assert_int_equal(r.problems.total, 4);
    assert_int_equal(r.counts.rows_bad, 4);
    assert_string_equal(r.problems.v[0].text, "is missing");
    assert_non_null(strstr(r.problems.v[1].text, "\"judge\" is neither"));
    assert_string_equal(r.problems.v[2].text, "a flat message among trees or threads");
    assert_int_equal(r.problems.v[3].line, 5);
    run_end(&r);
    run_with(&r, &c,
             "{\"x\":1}\n" MESSAGE("e", "null", "prompter", "E", "") "\n" TREE(REPLY("B"))
                 MESSAGE("f", "\"e\"", "assistant", "F", "") "\n");
    assert_string_equal(r.out.data, "f|u:E|a:F*\n");
    assert_int_equal(r.problems.total, 2);
    assert_string_equal(r.problems.v[1].text, "a tree or thread among flat messages");
    run_end(&r);
}

static int emit_side(void *self, const struct conversation *c, struct err *e)
{
    struct run *r = self;

    (void)e;
    buf_printf(&r->out, "%d", c->split == SPLIT_HELD_OUT);
    return 0;
}

/* Without ids a thread is told by its place, and a tree still goes to one side. */
static void test_oasst_trees_without_ids(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);
    struct read_config c = read_config_of(&s, emit_side);
    struct buf text = BUF_INIT;
    struct run r;
    int held_out = 0;

    (void)state;
    expect(&s, READ_OASST, TREE(REPLY("B") "," REPLY("C")), "f:1#1|u:A|a:B*\nf:1#2|u:A|a:C*\n");
    for (int i = 0; i < 20; i++)
        buf_str(&text, TREE(REPLY("B") "," REPLY("C")));
    c.format = READ_OASST;
    c.held_out = 0.5;
    run_with(&r, &c, text.data);
    assert_int_equal(r.rc, 0);
    assert_int_equal(r.problems.total, 0);
    assert_int_equal(r.out.len, 40);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(r.out.data[2 * i], r.out.data[2 * i + 1]);
        held_out += r.out.data[2 * i] == '1';
    }
    assert_in_range(held_out, 3, 17);
    run_end(&r);
    buf_free(&text);
}

static bool is_stopped(void *self)
{
    return ((struct run *)self)->out.len > 0; /* as soon as something came out */
}

/* Half of the row is the prompt, the other half are replies to it: each of them would repeat the prompt. */
static void test_oasst_trees_are_bounded(void **state)
{
    enum { LINE = 20000, REPLIES = 300 };
    struct schema s = schema_of(SCHEMA_HELP);
    struct read_config c = read_config_of(&s, emit_side);
    struct buf text = BUF_INIT, flat = BUF_INIT;
    struct run r;

    (void)state;
    c.format = READ_OASST;
    c.limits.line_max = LINE;
    buf_str(&text, "{\"prompt\":{\"role\":\"prompter\",\"text\":\"");
    buf_str(&flat, "{\"message_id\":\"a\",\"role\":\"prompter\",\"text\":\"");
    for (int i = 0; i < LINE / 2; i++) {
        buf_char(&text, 'a');
        buf_char(&flat, 'a');
    }
    buf_str(&text, "\",\"replies\":[");
    buf_str(&flat, "\"}\n");
    for (int i = 0; i < REPLIES; i++) {
        buf_printf(&text, "%s" REPLY("B"), i > 0 ? "," : "");
        buf_printf(&flat, MESSAGE("r%d", "\"a\"", "assistant", "B", "") "\n", i);
    }
    buf_str(&text, "]}}\n" TREE(REPLY("C")));
    run_with(&r, &c, text.data);
    assert_int_equal(r.rc, 0);
    assert_int_equal(r.out.len, 64 * LINE / (LINE / 2 + 1 + 2 * 256) + 1);
    assert_int_equal(r.problems.total, 1);
    assert_int_equal(r.counts.rows_bad, 1);
    assert_int_equal(r.problems.v[0].line, 1);
    assert_non_null(strstr(r.problems.v[0].text, "becomes more than 1280000 bytes of threads"));
    run_end(&r);
    run_with(&r, &c,
             flat.data); /* the same tree, a message a row: each row that is left out is one */
    assert_int_equal(r.rc, 0);
    assert_int_equal(r.out.len + r.counts.rows_bad, REPLIES);
    assert_int_equal(r.out.len, 64 * LINE / (LINE / 2 + 1 + 2 * 256));
    run_end(&r);
    c.cancelled = is_stopped;
    run_with(&r, &c, text.data);
    assert_int_equal(r.rc, ERR_CANCELLED);
    assert_int_equal(r.out.len, 1); /* not only after the row */
    run_end(&r);
    buf_free(&text);
    buf_free(&flat);
}

/* Two flat trees of two threads each, and a ring; a tree of three threads, and another. */
static void test_oasst_stops_at_the_limit(void **state)
{
#define LINE(id, parent, role, text) MESSAGE(id, parent, role, text, "") "\n"
    /* clang-format off */
    static const char *const text[] = {
        LINE("a", "null", "prompter", "A")
        LINE("b", "\"a\"", "assistant", "B")
        LINE("c", "\"a\"", "assistant", "C")
        LINE("d", "null", "prompter", "D")
        LINE("e", "\"d\"", "assistant", "E")
        LINE("f", "\"d\"", "assistant", "F")
        LINE("y", "\"z\"", "assistant", "Y")
        LINE("z", "\"y\"", "prompter", "Z"),
        TREE(REPLY("B") "," REPLY("C") "," REPLY("D")) TREE(REPLY("E"))};
    /* clang-format on */
    struct schema s = schema_of(SCHEMA_HELP);
    struct read_config c = read_config_of(&s, emit_side);
    struct run r;

    (void)state;
    c.format = READ_OASST;
    for (int i = 0; i < 2; i++) {
        for (c.limit = 1; c.limit <= 3; c.limit++) {
            run_with(&r, &c, text[i]);
            assert_int_equal(r.rc, 0);
            assert_int_equal(r.counts.conversations[0] + r.counts.conversations[1], c.limit);
            assert_int_equal(r.problems.total, 0);
            run_end(&r);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oasst_tree),
        cmocka_unit_test(test_oasst_flat_in_any_order),
        cmocka_unit_test(test_oasst_threads),
        cmocka_unit_test(test_oasst_trees_or_flat_messages),
        cmocka_unit_test(test_oasst_trees_without_ids),
        cmocka_unit_test(test_oasst_trees_are_bounded),
        cmocka_unit_test(test_oasst_stops_at_the_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
