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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_is_written_comes_back),
                                       cmocka_unit_test(test_rows_are_canonical),
                                       cmocka_unit_test(test_bad_rows_are_refused),
                                       cmocka_unit_test(test_broken_directories)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
