#include "data_fixture.h"

#include "data/examples.h"

struct fixture {
    struct tokenizer *tok;
    struct template_config cfg;
    struct arena arena;
    char *dir, *path;
    struct examples *x;
};

/* Batches without the model room. */
static void batch_make(struct batch *b, int32_t rows, int32_t seqs, int32_t targets, int32_t scores)
{
    memset(b, 0, sizeof *b);
    b->rows_cap = rows;
    b->seqs_cap = seqs;
    b->targets_cap = targets;
    b->scores_cap = scores;
    b->token = mem_zalloc((size_t)rows + 1, sizeof *b->token);
    b->seq_begin = mem_zalloc((size_t)seqs + 1, sizeof *b->seq_begin);
    b->target = mem_zalloc((size_t)targets + 1, sizeof *b->target);
    b->score = mem_zalloc((size_t)scores + 1, sizeof *b->score);
}

static void batch_empty(struct batch *b)
{
    b->rows = b->seqs = b->targets = 0;
}

static void batch_end(struct batch *b)
{
    free(b->token);
    free(b->seq_begin);
    free(b->target);
    free(b->score);
}

static struct conversation chat(struct fixture *f, const char *reply)
{
    static const char *const texts[] = {"the cat", "the end", "one day"};
    struct conversation c = {.id = "i",
                             .source = "f:1",
                             .turns = 3,
                             .turn = arena_alloc(&f->arena, 3 * sizeof(struct turn))};

    for (int i = 0; i < 3; i++) {
        struct turn *t = &c.turn[i];
        t->role = i % 2 == 0 ? ROLE_USER : ROLE_ASSISTANT;
        t->speaker = "";
        t->text = i == 1 ? reply : texts[i];
        t->text_len = (uint32_t)strlen(t->text);
        dataset_turn_init(t, &f->cfg.schema, &f->arena);
    }
    return c;
}

static void open_fixture(struct fixture *f, const char *schema, enum template_name name,
                         enum template_head head)
{
    struct err e = {0};

    memset(f, 0, sizeof *f);
    assert_int_equal(tokenizer_load("models/stories260K", &f->tok, &e), 0);
    f->cfg = (struct template_config){.name = name, .head = head, .max_length = 200};
    f->cfg.schema = schema_of(schema);
    assert_int_equal(template_prepare(&f->cfg, f->tok, &e), 0);
    f->dir = temp_dir();
    f->path = mem_printf("%s/examples", f->dir);
}

/* Four replies, the levels and labels of which differ. */
static void write_fixture(struct fixture *f)
{
    static const char *const replies[] = {"the end", "it is a day", "go",
                                          "and then the cat was big and the dog was little"};
    struct examples_writer *w = NULL;
    struct sequence *s = mem_zalloc(1, sizeof *s);
    struct err e = {0};

    assert_int_equal(examples_writer_new(&f->cfg, f->tok, tokenizer_vocab(f->tok) + 6, &w, &e), 0);
    for (int i = 0; i < 4; i++) {
        struct conversation c = chat(f, replies[i]);
        for (int a = 0; a < f->cfg.schema.attrs; a++)
            c.turn[1].level[a] = (int8_t)((i + a) % 5);
        c.turn[1].human[0] = (float)(i % 3);
        if (i == 1)
            c.turn[1].human[1] = 1.0f;
        if (f->cfg.head == TEMPLATE_POLICY)
            assert_int_equal(template_example(&f->cfg, f->tok, &c, 1, NULL, s, &e), 0);
        else
            assert_int_equal(template_score(&f->cfg, f->tok, &c, 1, s, &e), 0);
        assert_true(examples_write(w, s));
    }
    assert_int_equal(examples_writer_end(&w, f->path, &e), 0);
    if (examples_open(f->path, &f->x, &e) != 0)
        fail_msg("%s", e.msg);
    sequence_free(s);
    free(s);
}

static void close_fixture(struct fixture *f)
{
    examples_close(f->x);
    tokenizer_free(f->tok);
    arena_free(&f->arena);
    free(f->path);
    temp_free(f->dir);
}

static void test_control_examples_are_prompt_reply_and_end(void **state)
{
    struct fixture f;
    struct batch b;

    (void)state;
    open_fixture(&f, SCHEMA_CHAT, TEMPLATE_CONTROL, TEMPLATE_POLICY);
    write_fixture(&f);
    batch_make(&b, 400, 4, 400, 0);
    assert_int_equal(examples_count(f.x), 4);
    assert_int_equal(examples_vocab(f.x), tokenizer_vocab(f.tok) + 6);
    assert_int_equal(examples_outputs(f.x), 0);
    for (uint32_t i = 0; i < 4; i++)
        examples_append(f.x, i, 1, i, NULL, &b);
    assert_int_equal(b.seqs, 4);
    assert_int_equal((uint64_t)b.rows, examples_tokens(f.x));
    assert_int_equal(b.seq_begin[4], b.rows);
    /* <s> the c at, three control tokens, the e nd </s>. */
    assert_int_equal(examples_length(f.x, 0), 11);
    assert_int_equal(b.seq_begin[1], 11);
    assert_int_equal(b.token[4], template_control_id(&f.cfg, 0, 0));
    assert_int_equal(b.token[6], template_control_id(&f.cfg, 2, 2));
    assert_int_equal(b.token[10], tokenizer_eos(f.tok));
    for (int i = 0; i < 4; i++) { /* each learnt token is asked of the row before it */
        assert_int_equal(b.target[i].row, 6 + i);
        assert_int_equal(b.target[i].id, b.token[7 + i]);
        assert_int_equal(b.target[i].lo, 0);
        assert_int_equal(b.target[i].hi, tokenizer_vocab(f.tok) +
                                             6); /* the softmax goes over the model's vocabulary */
        assert_true(b.target[i].weight == 1.0f);
    }
    assert_int_equal(b.target[4].row, b.seq_begin[1] + 6);
    for (int i = 1; i < b.targets; i++)
        assert_true(b.target[i].row > b.target[i - 1].row);
    batch_end(&b);
    close_fixture(&f);
}

/* Drop-out: its rates, that it is a function of the drawing alone, and that all slots agree. */
static void test_drop_out(void **state)
{
    enum { DRAWS = 20000 };
    struct fixture f;
    struct batch b;
    struct drop drop = {0.2f, 0.15f};
    int all = 0, dropped[3] = {0};
    int32_t first[3];

    (void)state;
    open_fixture(&f, SCHEMA_CHAT, TEMPLATE_CONTROL, TEMPLATE_POLICY);
    write_fixture(&f);
    batch_make(&b, 400, 4, 400, 0);
    for (uint64_t draw = 0; draw < DRAWS; draw++) {
        int n = 0;
        batch_empty(&b);
        examples_append(f.x, 0, 7, draw, &drop, &b);
        for (int a = 0; a < 3; a++) {
            bool missing = b.token[4 + a] == template_control_id(&f.cfg, a, -1);
            assert_true(missing || b.token[4 + a] == template_control_id(&f.cfg, a, a));
            dropped[a] += missing;
            n += missing;
        }
        all += n == 3;
        assert_int_equal(b.rows, 11); /* a missing attribute has a token too */
        if (draw == 5)
            memcpy(first, b.token + 4, sizeof first);
    }
    /* 0.15 + 0.85 * 0.2 = 0.32 each; all three 0.15 + 0.85 * 0.008 = 0.1568; within four standard deviations. */
    for (int a = 0; a < 3; a++)
        assert_in_range(dropped[a], 6400 - 264, 6400 + 264);
    assert_in_range(all, 3136 - 206, 3136 + 206);
    batch_empty(&b);
    examples_append(f.x, 1, 7, 3, &drop, &b); /* a neighbour in front changes nothing */
    int32_t at = b.rows;
    examples_append(f.x, 0, 7, 5, &drop, &b);
    assert_memory_equal(first, b.token + at + 4, sizeof first);
    batch_end(&b);
    close_fixture(&f);
}

static void test_dropped_text_is_left_out(void **state)
{
    struct fixture f;
    struct batch b;
    struct drop everything = {0.0f, 1.0f}, each = {0.5f, 0.0f};
    int8_t level[2] = {0, 1};
    uint32_t shorter = 0;

    (void)state;
    open_fixture(&f, SCHEMA_HELP, TEMPLATE_PLAIN, TEMPLATE_POLICY);
    write_fixture(&f);
    batch_make(&b, 400, 4, 400, 0);
    examples_append(f.x, 0, 1, 0, NULL, &b);
    assert_int_equal(b.rows, examples_length(f.x, 0));
    struct ids prompt = {NULL, 0, 0};
    struct err e = {0};
    struct conversation c = chat(&f, "the end");
    assert_int_equal(template_prompt(&f.cfg, f.tok, &c, 1, level, &prompt, &e), 0);
    assert_memory_equal(prompt.v, b.token,
                        prompt.n * sizeof *prompt.v); /* what is learnt is what will be asked */
    batch_empty(&b);
    examples_append(f.x, 0, 1, 0, &everything, &b);
    prompt.n = 0;
    level[0] = level[1] = -1;
    assert_int_equal(template_prompt(&f.cfg, f.tok, &c, 1, level, &prompt, &e), 0);
    assert_memory_equal(prompt.v, b.token, prompt.n * sizeof *prompt.v);
    for (uint64_t draw = 0; draw < 200; draw++) {
        batch_empty(&b);
        examples_append(f.x, 0, 1, draw, &each, &b);
        assert_true((uint32_t)b.rows <= examples_length(f.x, 0));
        shorter += (uint32_t)b.rows < examples_length(f.x, 0);
        assert_int_equal(b.target[b.targets - 1].id, tokenizer_eos(f.tok));
    }
    assert_in_range(shorter, 120, 180); /* three of four */
    ids_free(&prompt);
    batch_end(&b);
    close_fixture(&f);
}

static void test_class_targets(void **state)
{
    struct fixture f;
    struct batch b;

    (void)state;
    open_fixture(&f, SCHEMA_CHAT, TEMPLATE_CONTROL, TEMPLATE_HEAD_CLASSES);
    write_fixture(&f);
    batch_make(&b, 400, 4, 8, 0);
    examples_append(f.x, 0, 1, 0, NULL, &b); /* only mood is labelled */
    examples_append(f.x, 1, 1, 1, NULL, &b); /* both are */
    assert_int_equal(b.targets, 3);
    assert_int_equal(b.target[0].id, f.cfg.class_first[0]);
    assert_int_equal(b.token[b.target[0].row], f.cfg.query_first);
    assert_int_equal(b.target[1].id, f.cfg.class_first[0] + 1);
    assert_int_equal(b.target[2].id, f.cfg.class_first[1] + 1);
    assert_int_equal(b.target[2].lo, f.cfg.class_first[1]);
    assert_int_equal(b.target[2].hi, f.cfg.class_first[1] + 2);
    assert_int_equal(b.token[b.target[2].row], f.cfg.query_first + 1);
    assert_int_equal(b.target[2].row, b.rows - 1);
    assert_int_equal(examples_targets_max(f.x), 2);
    batch_end(&b);
    close_fixture(&f);
}

static void test_regression_targets(void **state)
{
    struct fixture f;
    struct batch b;

    (void)state;
    open_fixture(&f, SCHEMA_HELP, TEMPLATE_NEMO, TEMPLATE_HEAD_REGRESSION);
    write_fixture(&f);
    assert_int_equal(examples_outputs(f.x), 2);
    batch_make(&b, 400, 4, 4, 8);
    for (uint32_t i = 0; i < 4; i++)
        examples_append(f.x, i, 1, i, NULL, &b);
    assert_int_equal(b.targets, 4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(b.target[i].id, i); /* its group of scores */
        assert_int_equal(b.target[i].row, b.seq_begin[i + 1] - 1);
        assert_true(b.score[2 * i] == (float)(i % 3));
        assert_true(i == 1 ? b.score[2 * i + 1] == 1.0f : isnan(b.score[2 * i + 1]));
    }
    batch_end(&b);
    close_fixture(&f);
}

static void test_nothing_to_learn_is_not_stored(void **state)
{
    struct fixture f;
    struct examples_writer *w = NULL;
    struct sequence *s = mem_zalloc(1, sizeof *s);
    struct err e = {0};

    (void)state;
    for (int head = TEMPLATE_HEAD_LM; head <= TEMPLATE_HEAD_REGRESSION; head++) {
        struct conversation c;
        open_fixture(&f, SCHEMA_CHAT, TEMPLATE_NEMO, (enum template_head)head);
        c = chat(&f, "the end");
        assert_int_equal(examples_writer_new(&f.cfg, f.tok, tokenizer_vocab(f.tok), &w, &e), 0);
        assert_int_equal(template_score(&f.cfg, f.tok, &c, 1, s, &e), 0);
        assert_false(examples_write(w, s));
        c.turn[1].human[0] = 0.0f;
        assert_int_equal(template_score(&f.cfg, f.tok, &c, 1, s, &e), 0);
        assert_true(examples_write(w, s));
        examples_writer_end(&w, NULL, NULL);
        close_fixture(&f);
    }
    sequence_free(s);
    free(s);
}

/* Sequences cut to any length stay within it when they are assembled. */
static void test_assembled_length_is_bounded(void **state)
{
    struct fixture f;
    struct batch b;

    (void)state;
    for (int name = 0; name < 4; name++) {
        for (int32_t max = 64; max < 90; max++) {
            open_fixture(&f, SCHEMA_HELP, (enum template_name)name, TEMPLATE_POLICY);
            f.cfg.max_length = max;
            write_fixture(&f);
            assert_true(examples_length_max(f.x) <= (uint32_t)max);
            batch_make(&b, max, 1, max, 0);
            for (uint32_t i = 0; i < 4; i++) {
                batch_empty(&b);
                examples_append(f.x, i, 1, i, NULL, &b);
                assert_true(b.targets > 0);
            }
            batch_end(&b);
            close_fixture(&f);
        }
    }
}

/* Any byte changed: refused, or read within bounds. */
static void test_damaged_files(void **state)
{
    struct fixture f;
    struct buf file = BUF_INIT;
    struct err e = {0};
    size_t refused = 0, accepted = 0;

    (void)state;
    open_fixture(&f, SCHEMA_CHAT, TEMPLATE_CONTROL, TEMPLATE_POLICY);
    write_fixture(&f);
    assert_int_equal(file_read(f.path, 1 << 20, &file, &e), 0);
    for (size_t i = 0; i < file.len; i += i < 256 ? 1 : 7) {
        for (int bit = 0; bit < 8; bit += 3) {
            struct examples *x = NULL;
            char *path;
            file.data[i] = (char)(file.data[i] ^ (1 << bit));
            path = temp_file(f.dir, "damaged", file.data, file.len);
            if (examples_open(path, &x, &e) == 0) {
                struct batch b;
                batch_make(&b, (int32_t)examples_length_max(x), 1, (int32_t)examples_targets_max(x),
                           0);
                for (uint32_t k = 0; k < examples_count(x); k++) {
                    batch_empty(&b);
                    examples_append(x, k, 1, k, NULL, &b);
                    for (int32_t r = 0; r < b.rows; r++)
                        assert_true(b.token[r] >= 0 && b.token[r] < examples_vocab(x));
                }
                batch_end(&b);
                examples_close(x);
                accepted++;
            } else {
                refused++;
            }
            free(path);
            file.data[i] = (char)(file.data[i] ^ (1 << bit));
        }
    }
    for (size_t n = 0; n < file.len; n += 13) { /* every cut is refused */
        struct examples *x = NULL;
        char *path = temp_file(f.dir, "cut", file.data, n);
        assert_int_equal(examples_open(path, &x, &e), ERR_CORRUPT);
        free(path);
    }
    assert_true(refused > 300);
    assert_true(accepted > 0);
    buf_free(&file);
    close_fixture(&f);
    assert_int_equal(examples_open("/nonexistent", &f.x, &e), ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_control_examples_are_prompt_reply_and_end),
        cmocka_unit_test(test_drop_out),
        cmocka_unit_test(test_dropped_text_is_left_out),
        cmocka_unit_test(test_class_targets),
        cmocka_unit_test(test_regression_targets),
        cmocka_unit_test(test_nothing_to_learn_is_not_stored),
        cmocka_unit_test(test_assembled_length_is_bounded),
        cmocka_unit_test(test_damaged_files)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
