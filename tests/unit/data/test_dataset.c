#include "data_fixture.h"

static struct conversation sample(const struct schema *s, struct arena *a, struct turn turn[3])
{
    static const char *const texts[] = {"Sys \"q\" \xC3\xA9\n\t\x01", "Hi there", "Yo"};

    memset(turn, 0, 3 * sizeof *turn);
    for (int i = 0; i < 3; i++) {
        turn[i].role = (enum role)i;
        turn[i].speaker = i == 1 ? "agent \\1" : "";
        turn[i].text = texts[i];
        turn[i].text_len = (uint32_t)strlen(texts[i]);
        turn[i].kept = true;
        dataset_turn_init(&turn[i], s, a);
    }
    turn[1].respond = turn[2].respond = true;
    turn[2].kept = false;
    turn[2].truncated = true;
    turn[2].tokens = 4000000000u;
    turn[1].human[0] = 1.0f;
    turn[1].value[0] = 0.1f;
    turn[1].value[1] = 1.0f / 3.0f;
    turn[1].value[2] = -123456.789f;
    turn[2].value[0] = 1e-20f;
    turn[2].value[1] = 16777217.0f;
    turn[1].level[0] = 4;
    turn[2].level[2] = 0;
    return (struct conversation){.id = "id/1",
                                 .source = "f:1",
                                 .split = SPLIT_HELD_OUT,
                                 .fold = 4294967295u,
                                 .turns = 3,
                                 .turn = turn};
}

static void turns_equal(const struct schema *s, const struct turn *a, const struct turn *b)
{
    assert_int_equal(a->role, b->role);
    assert_string_equal(a->speaker, b->speaker);
    assert_string_equal(a->text, b->text);
    assert_int_equal(a->text_len, b->text_len);
    assert_int_equal(a->respond, b->respond);
    assert_int_equal(a->kept, b->kept);
    assert_int_equal(a->truncated, b->truncated);
    assert_int_equal(a->tokens, b->tokens);
    assert_memory_equal(a->level, b->level, (size_t)s->attrs);
    for (int i = 0; i < s->labels; i++)
        assert_true(a->human[i] == b->human[i] || (isnan(a->human[i]) && isnan(b->human[i])));
    for (int i = 0; i < s->attrs; i++)
        assert_true(a->value[i] == b->value[i] || (isnan(a->value[i]) && isnan(b->value[i])));
}

static char *write_sample(const struct schema *s, struct arena *a, int copies)
{
    struct turn turn[3];
    struct conversation c = sample(s, a, turn);
    struct dataset_writer *w = NULL;
    struct err e = {0};
    char *dir = temp_dir();
    cJSON *extra = cJSON_Parse("{\"clean\":[\"x\"],\"version\":99}");

    assert_int_equal(dataset_writer_new(dir, s, &w, &e), 0);
    for (int i = 0; i < copies; i++) {
        c.split = i % 2 == 0 ? SPLIT_HELD_OUT : SPLIT_TRAIN;
        assert_int_equal(dataset_write(w, &c, &e), 0);
    }
    assert_int_equal(dataset_writer_end(&w, extra, &e), 0);
    assert_null(w);
    cJSON_Delete(extra);
    return dir;
}

static void test_what_is_written_comes_back(void **state)
{
    struct schema s = schema_of(SCHEMA_CHAT);
    struct arena a = ARENA_INIT;
    struct turn turn[3];
    struct conversation c = sample(&s, &a, turn);
    struct dataset d;
    struct err e = {0};
    char *dir = write_sample(&s, &a, 3);
    size_t conversation;
    uint32_t at;

    (void)state;
    if (dataset_load(dir, &d, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(d.conversations, 3);
    assert_int_equal(d.responses, 6);
    for (int k = 0; k < 3; k++) {
        assert_string_equal(d.conversation[k].id, c.id);
        assert_string_equal(d.conversation[k].source, c.source);
        assert_int_equal(d.conversation[k].fold, c.fold);
        assert_int_equal(d.conversation[k].split, k % 2 == 0 ? SPLIT_HELD_OUT : SPLIT_TRAIN);
        for (int i = 0; i < 3; i++)
            turns_equal(&s, &c.turn[i], &d.conversation[k].turn[i]);
    }
    dataset_response(&d, 3, &conversation, &at);
    assert_int_equal(conversation, 1);
    assert_int_equal(at, 2);
    assert_int_equal(json_int_or(d.meta, "version", 0),
                     1); /* the writer's word goes before the caller's */
    assert_non_null(json_get(d.meta, "clean"));
    assert_int_equal(json_int_or(json_get(json_get(d.meta, "counts"), "held_out"), "responses", 0),
                     4);
    dataset_free(&d);
    temp_free(dir);
    arena_free(&a);
}

/* Canonical: rows as json_canonical() would write them, and equal data gives equal bytes. */
static void test_rows_are_canonical(void **state)
{
    struct schema s = schema_of(SCHEMA_CHAT);
    struct arena a = ARENA_INIT;
    struct turn turn[3];
    struct conversation c = sample(&s, &a, turn), back = {0};
    struct buf one = BUF_INIT, two = BUF_INIT, canonical = BUF_INIT;
    struct err e = {0};
    cJSON *j = NULL;

    (void)state;
    dataset_row_text(&c, &s, &one);
    assert_int_equal(json_parse(one.data, one.len, JSON_LIMITS_LINE, &j, &e), 0);
    json_canonical(j, &canonical);
    cJSON_Delete(j);
    assert_string_equal(one.data, canonical.data);
    assert_int_equal(dataset_parse_row(one.data, one.len, &s, &a, &back, &e), 0);
    dataset_row_text(&back, &s, &two);
    assert_string_equal(one.data, two.data);
    buf_free(&one);
    buf_free(&two);
    buf_free(&canonical);
    arena_free(&a);
}

static void test_bad_rows_are_refused(void **state)
{
    static const char *const cases[] = {
        "",
        "{}",
        "[]",
        "null",
        "{\"id\":\"a\",\"source\":\"f\",\"split\":\"train\",\"fold\":1}",
        "{\"id\":1,\"source\":\"f\",\"split\":\"train\",\"fold\":1,\"turns\":[]}",
        "{\"id\":\"a\",\"source\":\"f\",\"split\":\"train\",\"fold\":-1,\"turns\":[]}",
#define ROW(turn)                                                                                  \
    "{\"id\":\"a\",\"source\":\"f\",\"split\":\"train\",\"fold\":1,\"turns\":[" turn "]}"
        ROW("{\"text\":\"x\"}"),
        ROW("{\"role\":\"user\"}"),
        ROW("{\"role\":\"king\",\"text\":\"x\"}"),
        ROW("{\"role\":\"user\",\"text\":\"x\",\"human\":[1]}"),
        ROW("{\"role\":\"user\",\"text\":\"x\",\"human\":{}}"),
        ROW("{\"role\":\"user\",\"text\":\"x\",\"human\":[\"a\",1]}"),
        ROW("{\"role\":\"user\",\"text\":\"x\",\"value\":[1,2,3,4]}"),
        ROW("{\"role\":\"user\",\"text\":\"x\",\"level\":[0,0,5]}"),
        ROW("{\"role\":\"user\",\"text\":\"x\",\"level\":[-2,0,0]}"),
        ROW("{\"role\":\"user\",\"text\":\"x\",\"level\":[null,0,0]}"),
        ROW("{\"role\":\"user\",\"text\":\"x\",\"tokens\":-1}"),
        ROW("7"),
    };
    struct schema s = schema_of(SCHEMA_CHAT);
    struct arena a = ARENA_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct conversation c;
        struct err e = {0};
        if (dataset_parse_row(cases[i], strlen(cases[i]), &s, &a, &c, &e) == 0)
            fail_msg("%s was accepted", cases[i]);
        assert_true(e.msg[0] != '\0');
    }
    arena_free(&a);
}

static void test_broken_directories(void **state)
{
    struct schema s = schema_of(SCHEMA_CHAT);
    struct arena a = ARENA_INIT;
    struct dataset d;
    struct err e = {0};
    char *dir = write_sample(&s, &a, 2), *path;

    (void)state;
    assert_int_equal(dataset_load("/nonexistent", &d, &e), ERR_NOT_FOUND);
    path = temp_file(dir, "rows.jsonl", "{}\n", 3);
    assert_int_not_equal(dataset_load(dir, &d, &e), 0);
    assert_non_null(strstr(e.msg, "rows.jsonl: line 1"));
    free(path);
    path = temp_file(dir, "meta.json", "{\"schema\":{}}", 13);
    assert_int_not_equal(dataset_load(dir, &d, &e), 0);
    assert_non_null(strstr(e.msg, "meta.json"));
    free(path);
    temp_free(dir);
    arena_free(&a);
}

static int emit_write(void *self, const struct conversation *c, struct err *e)
{
    return dataset_write(self, c, e);
}

/* Raw rows as a data set: what was read of them, and what comes back. */
static void rows_prepare(const char *text, size_t len, struct problems *problems,
                         struct dataset *out)
{
    struct schema s = schema_of(SCHEMA_HELP);
    struct read_config c = read_config_of(&s, emit_write);
    struct read_counts counts;
    struct dataset_writer *w = NULL;
    struct err e = {0};
    char *dir = temp_dir(), *path = temp_file(dir, "raw", text, len);
    const char *paths[1] = {path}, *names[1] = {"f"};

    assert_int_equal(dataset_writer_new(dir, &s, &w, &e), 0);
    c.self = w;
    memset(problems, 0, sizeof *problems);
    if (read_files(&c, paths, names, 1, problems, &counts, &e) != 0 ||
        dataset_writer_end(&w, NULL, &e) != 0 || dataset_load(dir, out, &e) != 0)
        fail_msg("%s", e.msg);
    free(path);
    temp_free(dir);
}

/* {"text":"..."} of `bytes` bytes in all, and a short row behind it. */
static void text_row(char fill, size_t bytes, struct buf *out)
{
    static const char head[] = "{\"text\":\"", tail[] = "\"}\n";
    size_t begin = out->len;

    buf_str(out, head);
    buf_reserve(out, bytes);
    memset(out->data + out->len, fill, bytes);
    out->len = begin + bytes - (sizeof tail - 2);
    buf_str(out, tail);
    buf_str(out, "{\"text\":\"short\"}\n");
}

/* A raw row is a row that can be read again, or a problem that says how long it would be. */
static void test_rows_grow(void **state)
{
    static const struct {
        char fill;
        size_t bytes, conversations;
    } cases[] = {{'a', (16u << 20) - 10, 2},     /* as long as a raw row may be */
                 {'\x7f', (5u << 20), 2},        /* six bytes for one: longer than any raw row */
                 {'\x7f', (16u << 20) - 10, 1}}; /* 96 MiB */

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct problems problems;
        struct dataset d;
        struct buf text = BUF_INIT;
        text_row(cases[i].fill, cases[i].bytes, &text);
        rows_prepare(text.data, text.len, &problems, &d);
        assert_int_equal(d.conversations, cases[i].conversations);
        assert_int_equal(problems.total, 2 - cases[i].conversations);
        assert_string_equal(d.conversation[d.conversations - 1].turn[0].text, "short");
        if (cases[i].conversations == 2)
            assert_int_equal(d.conversation[0].turn[0].text_len, cases[i].bytes - 11);
        else if (strstr(problems.v[0].text, "needs 100663") == NULL ||
                 strstr(problems.v[0].text, "at most 33554432") == NULL)
            fail_msg("%s", problems.v[0].text);
        dataset_free(&d);
        problems_free(&problems);
        buf_free(&text);
    }
}

/* Short turns become long ones as soon as every attribute has a value: 6 MB of them are too many. */
static void test_many_turns_are_a_problem(void **state)
{
    struct problems problems;
    struct dataset d;
    struct buf text = BUF_INIT;

    (void)state;
    buf_str(&text, "{\"messages\":[");
    for (int i = 0; i < 190000; i++)
        buf_printf(&text, "%s{\"role\":\"assistant\",\"content\":\"a\"}", i > 0 ? "," : "");
    buf_str(&text, "]}\n{\"messages\":[{\"role\":\"assistant\",\"content\":\"b\"}]}\n");
    rows_prepare(text.data, text.len, &problems, &d);
    assert_int_equal(d.conversations, 1);
    assert_int_equal(problems.total, 1);
    assert_int_equal(problems.v[0].line, 1);
    assert_non_null(strstr(problems.v[0].text, "at most 33554432"));
    dataset_free(&d);
    problems_free(&problems);
    buf_free(&text);
}

/* A conversation with everything that a turn can say, and texts that are all escapes. */
static void test_no_row_is_longer_than_its_bound(void **state)
{
    static const char *const texts[] = {"\x7f\x01\x1f", "\"\\\n\t", "", "\xC3\xA9 plain"};
    struct schema s = schema_of(SCHEMA_CHAT);
    struct arena a = ARENA_INIT;
    struct turn turn[4];
    struct conversation c = {.id = "\x7f",
                             .source = "\x7f:1",
                             .split = SPLIT_HELD_OUT,
                             .fold = UINT32_MAX,
                             .turn = turn};
    struct buf row = BUF_INIT;

    (void)state;
    for (c.turns = 0; c.turns < 4; c.turns++) {
        struct turn *t = &turn[c.turns];
        size_t bytes = 0;
        memset(t, 0, sizeof *t);
        t->role = ROLE_ASSISTANT;
        t->speaker = "\x7f";
        t->text = texts[c.turns];
        t->text_len = (uint32_t)strlen(t->text);
        t->respond = t->truncated = true;
        t->tokens = UINT32_MAX;
        dataset_turn_init(t, &s, &a);
        for (int i = 0; i < s.labels; i++)
            t->human[i] = -1.17549435e-38f;
        for (int i = 0; i < s.attrs; i++) {
            t->value[i] = -1.00000012e-20f;
            t->level[i] = 4;
        }
        buf_clear(&row);
        dataset_row_text(&c, &s, &row);
        assert_true(dataset_row_fits(&c, &s, &bytes));
        assert_true(row.len <= bytes);
    }
    buf_free(&row);
    arena_free(&a);
}

static void test_a_row_that_is_too_long_is_not_written(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);
    struct arena a = ARENA_INIT;
    struct dataset_writer *w = NULL;
    struct turn turn = {.role = ROLE_ASSISTANT, .speaker = "", .kept = true};
    struct conversation c = {.id = "long", .source = "f:1", .turns = 1, .turn = &turn};
    struct err e = {0};
    char *dir = temp_dir(), *text = mem_alloc(DATASET_ROW_MAX + 1);
    size_t bytes;

    (void)state;
    memset(text, 'a', DATASET_ROW_MAX);
    text[DATASET_ROW_MAX] = '\0';
    dataset_turn_init(&turn, &s, &a);
    turn.text = text;
    turn.text_len = (uint32_t)DATASET_ROW_MAX;
    assert_false(dataset_row_fits(&c, &s, &bytes));
    assert_true(bytes > DATASET_ROW_MAX);
    assert_int_equal(dataset_writer_new(dir, &s, &w, &e), 0);
    assert_int_equal(dataset_write(w, &c, &e), ERR_LIMIT);
    assert_non_null(strstr(e.msg, "conversation \"long\" is a row of 33554"));
    dataset_writer_abort(&w);
    free(text);
    temp_free(dir);
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_comes_back),
        cmocka_unit_test(test_rows_are_canonical),
        cmocka_unit_test(test_bad_rows_are_refused),
        cmocka_unit_test(test_broken_directories),
        cmocka_unit_test(test_rows_grow),
        cmocka_unit_test(test_many_turns_are_a_problem),
        cmocka_unit_test(test_no_row_is_longer_than_its_bound),
        cmocka_unit_test(test_a_row_that_is_too_long_is_not_written)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
