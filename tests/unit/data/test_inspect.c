#include "data_fixture.h"

#include "data/inspect.h"

static int emit(void *self, const struct conversation *c, struct err *e)
{
    return dataset_write(self, c, e);
}

struct fixture {
    struct schema schema;
    struct dataset data;
    struct problems problems;
    struct read_counts counts;
    struct tokenizer *tok;
    struct template_config cfg;
};

static void fixture_open(struct fixture *f, enum template_name name, enum template_head head)
{
    static const char text[] = "{\"prompt\":\"the cat\",\"response\":\"the end\",\"quality\":3}\n"
                               "{\"prompt\":\"the cat\",\"response\":\"the end\",\"quality\":1}\n"
                               "{\"prompt\":\"a\",\"response\":\"b\",\"quality\":9}\n"
                               "{\"prompt\":\"one\",\"response\":\"the the the the the the\"}\n";
    char *dir = temp_dir(), *path = temp_file(dir, "x", text, sizeof text - 1);
    const char *paths[1] = {path}, *names[1] = {"rows.jsonl"};
    struct read_config c = {.problems_max = 1.0, .limits = LINES_LIMITS, .emit = emit};
    struct dataset_writer *w = NULL;
    struct err e = {0};

    memset(f, 0, sizeof *f);
    f->schema = schema_of(SCHEMA_HELP);
    c.map.conversation = c.map.id = c.map.text = c.map.speaker = c.map.prompt = c.map.response = "";
    c.schema = &f->schema;
    assert_int_equal(dataset_writer_new(dir, &f->schema, &w, &e), 0);
    c.self = w;
    assert_int_equal(read_files(&c, paths, names, 1, &f->problems, &f->counts, &e), 0);
    assert_int_equal(dataset_writer_end(&w, NULL, &e), 0);
    assert_int_equal(dataset_load(dir, &f->data, &e), 0);
    assert_int_equal(tokenizer_load("models/stories260K", &f->tok, &e), 0);
    f->cfg = (struct template_config){
        .name = name, .head = head, .max_length = 512, .max_reply_tokens = 5};
    f->cfg.schema = f->schema;
    assert_int_equal(template_prepare(&f->cfg, f->tok, &e), 0);
    free(path);
    temp_free(dir);
}

static void fixture_close(struct fixture *f)
{
    dataset_free(&f->data);
    problems_free(&f->problems);
    tokenizer_free(f->tok);
}

static char *shown(struct fixture *f, struct inspect_show what)
{
    char *text = NULL;
    size_t len = 0;
    struct err e = {0};
    FILE *out = open_memstream(&text, &len);

    assert_int_equal(inspect_show(&f->data, &f->cfg, f->tok, &what, out, &e), 0);
    fclose(out);
    return text;
}

static void test_show_marks_what_is_learnt(void **state)
{
    struct fixture f;
    char *text;

    (void)state;
    fixture_open(&f, TEMPLATE_CONTROL, TEMPLATE_POLICY);
    text = shown(&f, (struct inspect_show){.first = 0, .count = 1});
    assert_string_equal(text,
                        "rows.jsonl:1 turn 1, train\n"
                        "|<s>| the| c|at{<|quality:none|>}{<|humor:none|>}[ the][ e][nd][</s>]\n");
    free(text);
    text = shown(&f, (struct inspect_show){.first = 2, .count = 9, .colour = true});
    assert_non_null(strstr(text, "rows.jsonl:4 turn 1, train, reply too long: not used\n"));
    assert_non_null(strstr(text, "\x1b[32m[ the]"));
    assert_null(strstr(text, "rows.jsonl:2"));
    free(text);
    text = shown(&f, (struct inspect_show){.count = 9, .held_out = true});
    assert_string_equal(text, "");
    free(text);
    fixture_close(&f);
}

static void test_show_names_the_targets(void **state)
{
    struct fixture f;
    char *text;

    (void)state;
    fixture_open(&f, TEMPLATE_NEMO, TEMPLATE_HEAD_REGRESSION);
    text = shown(&f, (struct inspect_show){.first = 0, .count = 9});
    assert_non_null(strstr(text, "|\\n|<extra_id_2>\n  read at token"));
    assert_non_null(strstr(text, ": quality 3\n"));
    assert_non_null(strstr(text, ": nothing, no label\n"));
    free(text);
    fixture_close(&f);
}

static void test_check_counts_and_names(void **state)
{
    struct fixture f;
    struct inspect_summary sum;
    struct err e = {0};
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    (void)state;
    fixture_open(&f, TEMPLATE_CONTROL, TEMPLATE_POLICY);
    assert_int_equal(inspect_check(&f.data, &f.problems, &f.counts, &f.cfg, f.tok, out, &sum, &e),
                     0);
    fclose(out);
    assert_int_equal(sum.problems, 1);
    assert_int_equal(sum.duplicates, 1);
    assert_int_equal(sum.over_long, 1);
    assert_int_equal(sum.usable, 2);
    assert_int_equal(sum.tokens, 2 * (4 + 2 + 4));
    assert_int_equal(sum.nothing_learnt, 0);
    assert_non_null(strstr(text, "rows.jsonl:3: quality: is 9, must be in 0..4\n"));
    assert_non_null(strstr(text, "rows.jsonl:2 turn 1: says the same"));
    assert_non_null(strstr(text, "rows.jsonl:4 turn 1: reply too long\n"));
    assert_non_null(strstr(text, "label quality: 2 of 0..4, mean 2, sd 1, missing 1\n"));
    free(text);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_show_marks_what_is_learnt),
                                       cmocka_unit_test(test_show_names_the_targets),
                                       cmocka_unit_test(test_check_counts_and_names)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
