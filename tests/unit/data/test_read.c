/* Every format as people have it, and every way that a row may be wrong. */
#include "read_fixture.h"

#include "base/rng.h"
#include "data/clean.h"

static void test_helpsteer(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);

    (void)state;
    /* The order of members does not matter; a column that the schema does not name is not used. */
    expect(&s, READ_AUTO,
           "{\"prompt\":\"P\",\"response\":\"R\",\"quality\":3,\"humor\":0,\"verbosity\":1}\n"
           "{\"humor\":4,\"response\":\"R2\",\"prompt\":\"P2\"}\n"
           "{\"prompt\":\"P3\",\"completion\":\"R3\",\"humor\":null}\n",
           "f:1|u:P|a:R*(quality 3)(humor 0)\nf:2|u:P2|a:R2*(humor 4)\nf:3|u:P3|a:R3*\n");
    expect(&s, READ_HELPSTEER,
           "{\"prompt\":\"one<extra_id_1>Assistant\\ntwo\\n<extra_id_1>User\\nthree "
           "<extra_id_9>\",\"response\":\"four\"}\n",
           "f:1|u:one|a:two|u:three <extra_id_9>|a:four*\n");
}

static void test_messages(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);

    (void)state;
    expect(&s, READ_AUTO,
           "{\"id\":\"x\",\"messages\":[{\"role\":\"developer\",\"content\":\"S\"},{\"role\":"
           "\"user\",\"content\":"
           "[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]},{\"role\":"
           "\"assistant\",\"content\":"
           "\"c\",\"attributes\":{\"quality\":2.5}},{\"role\":\"user\",\"content\":\"d\"}]}\n"
           "{\"id\":7,\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
           "\"content\":\"b\","
           "\"attributes\":null}]}\n",
           "x|s:S|u:ab|a:c*(quality 2.5)|u:d\n7|u:a|a:b*\n");
}

static void test_sharegpt(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);

    (void)state;
    expect(&s, READ_AUTO,
           "{\"conversations\":[{\"from\":\"system\",\"value\":\"S\"},{\"from\":\"human\","
           "\"value\":\"a\"},"
           "{\"from\":\"gpt\",\"value\":\"b\"}]}\n",
           "f:1|s:S|u:a|a:b*\n");
}

static void test_nemo_chat(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);

    (void)state;
    expect(&s, READ_AUTO,
           "{\"system\":\"S\",\"mask\":\"User\",\"type\":\"VALUE_TO_TEXT\",\"conversations\":[{"
           "\"from\":\"User\",\"value\":"
           "\"a\",\"label\":null},{\"from\":\"Assistant\",\"value\":\"b\",\"label\":\"humor:0,"
           "quality:4,verbosity:2\"},"
           "{\"from\":\"User\",\"value\":\"c\"},{\"from\":\"Assistant\",\"value\":\"d\",\"label\":"
           "\"quality:-100\"}]}\n",
           "f:1|s:S|u:a|a:b*(quality 4)(humor 0)|u:c|a:d*\n");
    /* Whoever is not in the mask answers. */
    expect(&s, READ_NEMO_CHAT,
           "{\"mask\":\"Assistant\",\"conversations\":[{\"from\":\"User\",\"value\":\"a\"},{"
           "\"from\":\"Assistant\","
           "\"value\":\"b\"}]}\n",
           "f:1|a:a*|u:b\n");
}

static void test_nemo_regression(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);

    (void)state;
    expect(&s, READ_AUTO,
           "{\"text\":\"<extra_id_0>System\\nS\\n<extra_id_1>User\\na\\nb\\n<extra_id_1>"
           "Assistant\\nc\\n<extra_id_2>\","
           "\"label\":[-100,0,3,1,1,1,1,1,1]}\n",
           "f:1|s:S|u:a\nb|a:c*(humor 3)\n");
}

static void test_text_rows(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);

    (void)state;
    expect(&s, READ_AUTO,
           "{\"text\":\"Once \\u00e9 \\ud83d\\ude00\\r\\nx\"}\n\n  \n{\"text\":\"two\"}\n",
           "f:1|a:Once \xC3\xA9 \xF0\x9F\x98\x80\r\nx*\nf:4|a:two*\n");
}

static void test_map(void **state)
{
    struct schema s = schema_of(SCHEMA_CHAT);
    struct read_config c = read_config_of(&s, emit);
    struct run r;

    (void)state;
    c.format = READ_AUTO;
    c.clean = CLEAN_SQUEEZE_PUNCTUATION;
    c.map.conversation = "content";
    c.map.id = "cid";
    c.map.text = "message";
    c.map.speaker = "agent";
    run_with(
        &r, &c,
        "{\"cid\":\"k\",\"content\":[{\"message\":\"Hi!!!!\",\"agent\":\"A\",\"mood\":\"Curious\","
        "\"source\":[\"Personal\"]},"
        "{\"message\":\"Yo\",\"agent\":\"B\",\"mood\":\"Sad\",\"source\":[\"FS1\",\"Personal\"]},"
        "{\"message\":\"\",\"agent\":\"A\",\"mood\":\"\",\"source\":[]}]}\n");
    assert_int_equal(r.rc, 0);
    assert_string_equal(r.out.data, "k|a:Hi!!*(mood 1)(source 1)|a:Yo*(source 0)|a:(source 0)\n");
    assert_int_equal(r.counts.turns_empty, 1);
    run_end(&r);
    /* Only B answers, and only mood is a label. */
    c.map.respond[0] = "B";
    c.map.respond_n = 1;
    c.map.labels[0] = "mood";
    c.map.labels_n = 1;
    run_with(&r, &c,
             "{\"cid\":5,\"content\":[{\"message\":\"Hi\",\"agent\":\"A\",\"mood\":\"Happy\"},{"
             "\"message\":\"Yo\",\"agent\":"
             "\"B\",\"mood\":\"Neutral\",\"source\":[\"Personal\"]}]}\n"
             "{\"cid\":6,\"content\":[{\"message\":\"Hi\",\"agent\":\"A\"}]}\n");
    assert_string_equal(r.out.data, "5|u:Hi(mood 2)|a:Yo*(mood 0)\n");
    assert_int_equal(r.problems.total, 1);
    assert_string_equal(r.problems.v[0].text, "no response in 1 turns");
    run_end(&r);
    memset(&c.map, 0, sizeof c.map);
    c.map.conversation = c.map.id = c.map.text = c.map.speaker = "";
    c.map.prompt = "q";
    c.map.response = "answer";
    run_with(&r, &c, "{\"q\":\"one\",\"answer\":\"two\",\"mood\":\"Happy\"}\n");
    assert_string_equal(r.out.data, "f:1|u:one|a:two*(mood 2)\n");
    run_end(&r);
}

static const struct {
    const char *good, *bad, *path, *words;
} bad_rows[] = {
#define HS "{\"prompt\":\"p\",\"response\":\"r\"}"
    {HS, "{\"prompt\":\"p\",\"response\":\"r\",\"quality\":7}", "quality", "is 7, must be in 0..4"},
    {HS, "{\"prompt\":\"p\",\"response\":\"r\",\"quality\":-0.01}", "quality", "must be in 0..4"},
    {HS, "{\"prompt\":\"p\",\"response\":\"r\",\"quality\":\"4\"}", "quality", "must be a number"},
    {HS, "{\"prompt\":\"p\"}", "response", "is missing"},
    {HS, "{\"prompt\":5,\"response\":\"r\"}", "prompt", "must be text"},
    {HS, "{\"prompt\":\"p\",\"response\":\"\"}", "", "no response"},
    {HS, "{\"prompt\":\"\",\"response\":\"\"}", "", "empty conversation"},
    {HS, "{\"prompt\":\"p\",\"response\":\"r\"", "", "byte"},
    {HS, "[1]", "", "must be a JSON object"},
    {HS, "{\"prompt\":\"\xFF\",\"response\":\"r\"}", "", "UTF-8"},
    {HS, "{\"prompt\":\"\\u0000\",\"response\":\"r\"}", "", "byte"},
    {HS, "{\"prompt\":\"p\",\"prompt\":\"q\",\"response\":\"r\"}", "", "prompt"},
#define MS                                                                                         \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":"    \
    "\"b\"}]}"
    {MS, "{\"messages\":{}}", "messages", "must be a list"},
    {MS, "{\"messages\":[]}", "", "empty conversation"},
    {MS, "{\"messages\":[{\"content\":\"a\"}]}", "messages/0/role", "is missing"},
    {MS, "{\"messages\":[{\"role\":\"king\",\"content\":\"a\"}]}", "messages/0",
     "\"king\" is unknown"},
    {MS, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
     "messages/0/content", "no text"},
    {MS, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "", "no response"},
    {MS, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\",\"attributes\":[]}]}",
     "messages/0/attributes", "object"},
    {MS, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\",\"attributes\":{\"humor\":9}}]}",
     "messages/0/attributes/humor", "is 9"},
    {MS, "{\"messages\":[7]}", "messages/0/role", "is missing"},
#define SG                                                                                         \
    "{\"conversations\":[{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"gpt\",\"value\":\"b\"}]" \
    "}"
    {SG, "{\"conversations\":[{\"from\":\"alien\",\"value\":\"a\"}]}", "conversations/0",
     "\"alien\" is unknown"},
    {SG, "{\"conversations\":[{\"from\":\"human\"}]}", "conversations/0/value", "is missing"},
#define NC                                                                                         \
    "{\"mask\":\"User\",\"conversations\":[{\"from\":\"User\",\"value\":\"a\"},{\"from\":"         \
    "\"Assistant\",\"value\":\"b\"}]}"
#define NL(label)                                                                                  \
    "{\"mask\":\"User\",\"conversations\":[{\"from\":\"Assistant\",\"value\":\"b\","               \
    "\"label\":" label "}]}"
    {NC, NL("\"quality:x\""), "conversations/0/label", "not name:number"},
    {NC, NL("\"quality\""), "conversations/0/label", "not name:number"},
    {NC, NL("\":4\""), "conversations/0/label", "not name:number"},
    {NC, NL("\"quality:\""), "conversations/0/label", "not name:number"},
    {NC, NL("\"quality:1,quality:2\""), "conversations/0/label", "stands twice"},
    {NC, NL("\"quality:5\""), "conversations/0/label/quality", "is 5"},
    {NC, NL("[1]"), "conversations/0/label", "must be text or null"},
#define NR "{\"text\":\"<extra_id_1>Assistant\\nc\\n<extra_id_2>\",\"label\":[1,1,1,1,1,1,1,1,1]}"
    {NR, "{\"text\":\"<extra_id_1>Assistant\\nc\\n<extra_id_2>\",\"label\":[1]}", "label",
     "has 1 numbers"},
    {NR, "{\"text\":\"c\",\"label\":[1,1,1,1,1,1,1,1,1]}", "text", "must end with <extra_id_2>"},
    {NR, "{\"text\":\"<extra_id_1>User\\nc\\n<extra_id_2>\",\"label\":[1,1,1,1,1,1,1,1,1]}", "text",
     "last turn"},
#define OA                                                                                         \
    "{\"thread\":[{\"role\":\"prompter\",\"text\":\"A\"},{\"role\":\"assistant\",\"text\":\"B\"}]" \
    "}"
    {OA, "{\"thread\":[{\"role\":\"judge\",\"text\":\"A\"}]}", "role", "neither"},
    {OA, "{\"thread\":[{\"role\":\"assistant\"}]}", "text", "is missing"},
    {OA,
     "{\"thread\":[{\"role\":\"assistant\",\"text\":\"B\",\"labels\":{\"humor\":{\"value\":1.5}"
     "}}]}",
     "labels/humor", "0..1"},
    {OA,
     "{\"thread\":[{\"role\":\"assistant\",\"text\":\"B\",\"labels\":{\"name\":[\"humor\"],"
     "\"value\":[]}}]}",
     "labels", "differ in length"},
    {OA, "{\"thread\":[{\"role\":\"assistant\",\"text\":\"B\",\"labels\":3}]}", "labels", "object"},
};

static void test_bad_rows_are_named_and_passed_over(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);

    (void)state;
    for (size_t i = 0; i < sizeof bad_rows / sizeof bad_rows[0]; i++)
        expect_problem(&s, bad_rows[i].bad, bad_rows[i].good, bad_rows[i].path, bad_rows[i].words);
}

static void test_duplicate_ids_and_long_lines(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);
    struct read_config c = read_config_of(&s, emit);
    struct run r;

    (void)state;
    c.limits.line_max = 100;
    run_with(
        &r, &c,
        "{\"id\":\"k\",\"text\":\"one\"}\n{\"id\":\"k\",\"text\":\"two\"}\n{\"text\":"
        "\"loooooooooooooooooooooooooooooooooooooooo"
        "oooooooooooooooooooooooooooooooooooooooooooooooooooooooooong\"}\n{\"text\":\"three\"}\n");
    assert_int_equal(r.rc, 0);
    assert_string_equal(r.out.data, "k|a:one*\nf:4|a:three*\n");
    assert_int_equal(r.problems.total, 2);
    assert_string_equal(r.problems.v[0].text, "id \"k\" was seen before");
    assert_string_equal(r.problems.v[1].text, "line is longer than 100 bytes");
    assert_int_equal(r.problems.v[1].line, 3);
    run_end(&r);
}

static void test_too_many_problems_fail_with_the_list(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);
    struct read_config c = read_config_of(&s, emit);
    struct run r;

    (void)state;
    c.problems_max = 0.25;
    run_with(&r, &c, "{\"text\":\"a\"}\nbad\n{\"text\":\"b\"}\n{\"text\":\"c\"}\n");
    assert_int_equal(r.rc, 0); /* exactly the share that is allowed */
    run_end(&r);
    run_with(&r, &c, "{\"text\":\"a\"}\nbad\n{\"text\":\"b\"}\n");
    assert_int_equal(r.rc, ERR_INVALID);
    assert_non_null(strstr(r.e.msg, "1 of 3 rows are bad, problems_max allows 0.25\nf:2: "));
    run_end(&r);
    run_with(&r, &c, "\n");
    assert_int_equal(r.rc, ERR_INVALID);
    assert_non_null(strstr(r.e.msg, "no usable conversation"));
    run_end(&r);
    run_with(&r, &c, "{\"instruction\":\"x\",\"output\":\"y\"}\n");
    assert_int_equal(r.rc, ERR_INVALID);
    assert_non_null(
        strstr(r.e.msg, "f:1: no known format has rows with the members {instruction, output}"));
    run_end(&r);
}

static void test_problems_are_counted_beyond_the_list(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);
    struct read_config c = read_config_of(&s, emit);
    struct buf text = BUF_INIT;
    struct run r;

    (void)state;
    buf_str(&text, "{\"text\":\"a\"}\n");
    for (int i = 0; i < 1500; i++)
        buf_str(&text, "{\n");
    run_with(&r, &c, text.data);
    assert_int_equal(r.rc, 0);
    assert_int_equal(r.problems.total, 1500);
    assert_int_equal(r.problems.n, PROBLEMS_KEPT);
    buf_free(&text);
    run_end(&r);
}

/* Rows of every format with bytes changed, cut out and doubled: problems or conversations, never a crash. */
static void test_mutated_rows(void **state)
{
    static const char *const seeds[] = {
        HS,
        MS,
        SG,
        NC,
        NR,
        OA,
        NL("\"quality:4,humor:0\""),
        "{\"message_tree_id\":\"a\",\"prompt\":{\"message_id\":\"a\",\"role\":\"prompter\","
        "\"text\":\"A\",\"replies\":[{\"role\":"
        "\"assistant\",\"text\":\"B\",\"labels\":{\"humor\":{\"value\":0.5}},\"replies\":[]}]}}",
        "{\"message_id\":\"a\",\"parent_id\":\"b\",\"role\":\"assistant\",\"text\":\"x\"}",
        "{\"prompt\":\"a<extra_id_1>Assistant\\nb<extra_id_1>User\\nc\",\"response\":\"d\","
        "\"quality\":1e308}"};
    static const char bytes[] = "{}[]\":,\\u0019-+e.\n \xC3\xFF<>_ntf";
    struct schema s = schema_of(SCHEMA_HELP);
    char *dir = temp_dir();

    (void)state;
    for (size_t k = 0; k < sizeof seeds / sizeof seeds[0]; k++) {
        struct read_config c = read_config_of(&s, emit);
        struct buf text = BUF_INIT;
        struct run r = {.schema = &s};
        char *path;
        const char *paths[1], *names[1] = {"f"};
        buf_printf(&text, "%s\n", seeds[k]);
        for (uint32_t i = 0; i < 3000; i++) {
            char row[512];
            size_t n = strlen(seeds[k]);
            memcpy(row, seeds[k], n);
            for (uint32_t edit = 0; edit <= i % 3; edit++) {
                size_t at = rng_below(5, RNG_TEST, (uint32_t)k, i, 2 * edit, (uint32_t)n);
                if (i % 5 == 0 && n > 2)
                    memmove(row + at, row + at + 1, --n - at);
                else
                    row[at] = bytes[rng_below(5, RNG_TEST, (uint32_t)k, i, 2 * edit + 1,
                                              sizeof bytes - 1)];
            }
            buf_add(&text, row, n);
            buf_char(&text, '\n');
        }
        path = temp_file(dir, "x", text.data, text.len);
        paths[0] = path;
        c.self = &r;
        c.format = READ_AUTO;
        read_files(&c, paths, names, 1, &r.problems, &r.counts, &r.e);
        assert_true(r.counts.rows >= 3000);
        assert_true(r.counts.rows_bad > 500);
        assert_true(json_utf8_valid(r.out.data, r.out.len));
        for (size_t i = 0; i < r.problems.n; i++)
            assert_true(json_utf8_valid(r.problems.v[i].text, strlen(r.problems.v[i].text)));
        free(path);
        run_end(&r);
        buf_free(&text);
    }
    temp_free(dir);
}

/* The chat data that comes with the project. */
static void test_shipped_data(void **state)
{
    struct schema s = schema_of(SCHEMA_CHAT);
    struct read_config c = read_config_of(&s, emit);
    struct problems problems = {0};
    struct read_counts counts;
    struct run r = {.schema = &s};
    struct err e = {0};
    const char *paths[1] = {"data/topical-chat.jsonl.gz"};

    (void)state;
    c.map.conversation = "content";
    c.map.id = "conversation_id";
    c.map.text = "message";
    c.map.speaker = "agent";
    c.held_out = 0.1;
    c.self = &r;
    assert_int_equal(read_files(&c, paths, paths, 1, &problems, &counts, &e), 0);
    assert_int_equal(counts.conversations[0] + counts.conversations[1], 1725);
    assert_int_equal(counts.responses[0] + counts.responses[1], 37500);
    assert_int_equal(problems.total, 0);
    buf_free(&r.out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_helpsteer),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_sharegpt),
        cmocka_unit_test(test_nemo_chat),
        cmocka_unit_test(test_nemo_regression),
        cmocka_unit_test(test_text_rows),
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_bad_rows_are_named_and_passed_over),
        cmocka_unit_test(test_duplicate_ids_and_long_lines),
        cmocka_unit_test(test_too_many_problems_fail_with_the_list),
        cmocka_unit_test(test_problems_are_counted_beyond_the_list),
        cmocka_unit_test(test_mutated_rows),
        cmocka_unit_test(test_shipped_data),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
