/* prepare and encode on the data and the model that come with the project, and on rows made for the question. */
#include "jobs_fixture.h"

#include "data/examples.h"
#include "jobs/data_pool.h"
#include "ps/ckpt.h"

#define MOODS                                                                                      \
    "labels:\n"                                                                                    \
    "  mood: {classes: [Neutral, Curious, Happy], other: skip}\n"                                  \
    "attributes:\n"                                                                                \
    "  curious:   {type: categorical, from: mood, class: Curious, bin: {quantiles: 5}}\n"          \
    "  verbosity: {type: computed, measure: words, bin: {quantiles: 5}}\n"
#define SCALES                                                                                     \
    "attributes:\n"                                                                                \
    "  quality: {type: integer, min: 0, max: 4}\n"                                                 \
    "  humor:   {type: integer, min: 0, max: 4}\n"

#define HELPSTEER                                                                                  \
    "attributes:\n"                                                                                \
    "  quality:         {type: integer, min: 0, max: 4}\n"                                         \
    "  toxicity:        {type: integer, from: quality, min: 0, max: 4}\n"                          \
    "  humor:           {type: integer, from: quality, min: 0, max: 4}\n"                          \
    "  creativity:      {type: integer, from: quality, min: 0, max: 4}\n"                          \
    "  violence:        {type: integer, from: quality, min: 0, max: 4}\n"                          \
    "  helpfulness:     {type: integer, from: quality, min: 0, max: 4}\n"                          \
    "  not_appropriate: {type: integer, from: quality, min: 0, max: 4}\n"                          \
    "  sexual_content:  {type: integer, from: quality, min: 0, max: 4}\n"                          \
    "  fails_task:      {type: integer, from: quality, min: 0, max: 4}\n"

static const char head[] = "apiVersion: steerlm/v1\n"
                           "name: t\n"
                           "seed: 3\n"
                           "data:\n"
                           "  chat:\n"
                           "    files: [rows.jsonl]\n"
                           "    map: {conversation: turns, id: id, text: text, speaker: who}\n"
                           "    split: {held_out: 0.2, seed: 1}\n"
                           "    keep: {max_reply_tokens: 20, context_tokens: 8}\n"
                           "inputs: {base: \"file:models/stories260K\", train: \"data:chat\"}\n"
                           "train: {max_steps: 2, global_batch: 4, units: 2, chunk_elems: 16384}\n";

static struct spec *spec_of(const char *more)
{
    struct buf text = BUF_INIT;
    struct spec_problems p = {0};
    struct spec *s = NULL;
    struct err e = {0};

    buf_printf(&text, "%s%s", head, more);
    if (spec_parse(text.data, text.len, NULL, 0, NULL, NULL, &s, &p, &e) != 0)
        fail_msg("%s %s %s", e.msg, p.n > 0 ? p.v[0].pointer : "", p.n > 0 ? p.v[0].text : "");
    spec_problems_free(&p);
    buf_free(&text);
    return s;
}

enum { CONVERSATIONS = 40, TURNS = 4 };

/* Raw rows: 40 conversations of four turns; the mood goes with the number of the turn, the length too. */
static char *rows_file(const struct world *w)
{
    static const char *const moods[] = {"Curious", "Neutral", "Happy", "Sad"};
    char *path = mem_printf("%s/rows.jsonl", w->dir);
    struct buf text = BUF_INIT;

    for (int i = 0; i < CONVERSATIONS; i++) {
        buf_printf(&text, "{\"id\":\"c%d\",\"turns\":[", i);
        for (int k = 0; k < TURNS; k++) {
            buf_printf(&text, "%s{\"who\":\"%c\",\"mood\":\"%s\",\"quality\":%d,\"text\":\"",
                       k > 0 ? "," : "", "AB"[k % 2], moods[k], k);
            for (int n = 0; n < 1 + 2 * k + i % 3; n++)
                buf_str(&text, n > 0 ? " the" : "one");
            if (k == 3 && i % 10 == 0)
                buf_str(&text, " and so on and so on and so on and so on and so on and so on and "
                               "so on"); /* over 20 tokens */
            buf_str(&text, "\"}");
        }
        buf_str(&text, "]}\n");
    }
    assert_int_equal(file_write_atomic(path, text.data, text.len, NULL), 0);
    buf_free(&text);
    return path;
}

/* A world whose inputs are a prepared data set and the model. */
static struct world *prepared(const struct spec *s)
{
    struct world *w = world_new();
    char *path = rows_file(w), dataset[256];

    world_input(w, "files", path);
    world_phase(w, s, "prepare", 0, 0);
    assert_int_equal(
        world_fetch(w,
                    json_string_or(json_get(json_get(w->phases, "prepare"), "outputs"), "data", ""),
                    dataset, sizeof dataset, &w->e),
        0);
    world_input(w, "train", dataset);
    world_input(w, "base", "models/stories260K");
    free(path);
    return w;
}

static struct examples *examples_of(struct world *w, int fold)
{
    char name[32], path[256];
    struct examples *x = NULL;

    snprintf(name, sizeof name, "examples.%d", fold);
    assert_int_equal(
        world_fetch(w, json_string_or(json_get(json_get(w->phases, "encode"), "outputs"), name, ""),
                    path, sizeof path, &w->e),
        0);
    if (examples_open(path, &x, &w->e) != 0)
        fail_msg("%s", w->e.msg);
    return x;
}

static void init_of(struct world *w, struct model *m)
{
    char path[256];

    assert_int_equal(
        world_fetch(w,
                    json_string_or(json_get(json_get(w->phases, "encode"), "outputs"), "init", ""),
                    path, sizeof path, &w->e),
        0);
    if (model_load(path, MODEL_ALL, m, &w->e) != 0)
        fail_msg("%s", w->e.msg);
}

static void test_prepare_counts(void **state)
{
    struct spec *s = spec_of(MOODS "kind: sft\ncondition: {template: control, labels: human}\n");
    struct world *w = prepared(s);
    struct dataset d;

    (void)state;
    world_output(w, "prepare", &d);
    assert_int_equal(d.conversations, CONVERSATIONS);
    assert_int_equal(d.responses, CONVERSATIONS * TURNS);
    assert_true(world_metric(w, "prepare", "rows") == (double)CONVERSATIONS);
    assert_true(world_metric(w, "prepare", "problems") == 0.0);
    assert_true(world_metric(w, "prepare", "rows.held_out") > 2.0);
    assert_int_equal(json_int_or(json_get(d.meta, "keep"), "max_reply_tokens", 0), 20);
    assert_true(d.conversation[0].turn[1].value[1] == 3.0f); /* computed when prepared */
    dataset_free(&d);
    spec_free(s);
    world_free(w);
}

static void test_policy_examples(void **state)
{
    struct spec *s = spec_of(MOODS "kind: sft\ncondition: {template: control, labels: human}\n");
    struct world *w = prepared(s);
    struct examples *x;
    struct model m;
    struct dataset d;
    size_t train = 0, dropped = 0;
    uint64_t beats;

    (void)state;
    world_output(w, "prepare", &d);
    for (size_t i = 0; i < d.conversations; i++) {
        train += d.conversation[i].split == SPLIT_TRAIN;
        dropped +=
            d.conversation[i].split == SPLIT_TRAIN && atoi(d.conversation[i].id + 1) % 10 == 0;
    }
    beats = w->heartbeat;
    world_phase(w, s, "encode", 0, 0);
    assert_true(w->heartbeat - beats >= d.conversations + 2 * train); /* rows, and replies twice */
    x = examples_of(w, 0);
    assert_int_equal(examples_count(x),
                     train * TURNS - dropped); /* held-out and over-long replies are not in it */
    assert_true(world_metric(w, "encode", "dropped.over_long") == (double)dropped);
    assert_true(world_metric(w, "encode", "examples.0") == (double)examples_count(x));
    assert_true(world_metric(w, "encode", "tokens.0") == (double)examples_tokens(x));
    init_of(w, &m);
    assert_int_equal(m.dims.vocab, 512 + 2 * 6);
    assert_int_equal(examples_vocab(x), m.dims.vocab);
    assert_true(world_metric(w, "encode", "params") == (double)m.layout.count);
    assert_int_equal(m.steer.role, STEER_POLICY);
    assert_int_equal(m.steer.template_config.context_tokens, 8);
    assert_int_equal(m.steer.template_config.control_first, 512);
    assert_true(m.steer.template_config.schema.attr[1]
                    .has_edges); /* quintiles of the pool go with the model */
    assert_true(m.steer.template_config.max_length > 0 &&
                m.steer.template_config.max_length <= m.dims.context);
    model_fini(&m);
    examples_close(x);
    dataset_free(&d);
    spec_free(s);
    world_free(w);
}

/* How often each control token stands in the examples, and whether "curious" goes with short first turns. */
static void levels_count(struct world *w, size_t count[12], size_t *matches)
{
    struct examples *x = examples_of(w, 0);
    struct batch b;

    memset(count, 0, 12 * sizeof *count);
    *matches = 0;
    batch_init(&b, 1000, 1, 1000, 0);
    for (uint32_t i = 0; i < examples_count(x); i++) {
        int curious = -1;
        b.rows = b.seqs = b.targets = 0;
        examples_append(x, i, 1, i, NULL, &b);
        for (int32_t r = 0; r < b.rows; r++) {
            if (b.token[r] < 512)
                continue;
            count[b.token[r] - 512]++;
            if (b.token[r] < 518)
                curious = b.token[r] - 512;
        }
        *matches +=
            (b.token[1] >= 512) == (curious == 4); /* a first turn has no context, and is curious */
    }
    batch_fini(&b);
    examples_close(x);
}

/* The control has the same levels, on other replies, and whole vectors move together. */
static void test_shuffled_labels(void **state)
{
    struct spec *s = spec_of(MOODS "kind: sft\ncondition: {template: control, labels: human}\n");
    struct spec *shuffled = spec_of(
        MOODS "kind: sft\ncondition: {template: control, labels: human, shuffle_labels: true}\n");
    struct spec *none = spec_of(MOODS "kind: sft\ncondition: {template: control, labels: none}\n");
    struct world *w = prepared(s);
    size_t before[12], after[12], matches, n;

    (void)state;
    world_phase(w, s, "encode", 0, 0);
    levels_count(w, before, &matches);
    n = (size_t)world_metric(w, "encode", "examples.0");
    assert_int_equal(matches, n);
    assert_true(before[4] > 0 && before[0] > 0 && before[5] > 0 && before[10] > 0);
    world_phase(w, shuffled, "encode", 0, 0);
    levels_count(w, after, &matches);
    assert_memory_equal(before, after, sizeof before);
    assert_true(matches < n * 9 / 10);
    world_phase(w, none, "encode", 0, 0);
    levels_count(w, after, &matches);
    assert_int_equal(after[5], n);
    assert_int_equal(after[11], n);
    spec_free(s);
    spec_free(shuffled);
    spec_free(none);
    world_free(w);
}

/* The data set at `from` as one whose labels stand in another order: the attributes are the same. */
static void labels_swap(const char *from, const char *dir)
{
    struct dataset d;
    struct dataset_writer *w;
    struct label first;

    assert_int_equal(dataset_load(from, &d, NULL), 0);
    assert_int_equal(d.schema.labels, 2);
    first = d.schema.label[0];
    d.schema.label[0] = d.schema.label[1];
    d.schema.label[1] = first;
    for (int a = 0; a < d.schema.attrs; a++)
        d.schema.attr[a].label = 1 - d.schema.attr[a].label;
    assert_int_equal(dataset_writer_new(dir, &d.schema, &w, NULL), 0);
    for (size_t i = 0; i < d.conversations; i++) {
        for (uint32_t k = 0; k < d.conversation[i].turns; k++) {
            float *human = d.conversation[i].turn[k].human, one = human[0];
            human[0] = human[1];
            human[1] = one;
        }
        assert_int_equal(dataset_write(w, &d.conversation[i], NULL), 0);
    }
    assert_int_equal(dataset_writer_end(&w, d.meta, NULL), 0);
    dataset_free(&d);
}

static void test_data_sets_of_other_labels_are_refused(void **state)
{
    static const char *const kinds[] = {
        SCALES "kind: train-attribute-model\nhead: regression\n",
        SCALES "kind: sft\ncondition: {template: control, labels: human}\n"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct spec *s = spec_of(kinds[i]);
        struct world *w = prepared(s);
        char from[256], dir[256];
        assert_int_equal(
            world_fetch(
                w, json_string_or(json_get(json_get(w->phases, "prepare"), "outputs"), "data", ""),
                from, sizeof from, &w->e),
            0);
        world_input(w, "train", from); /* twice the same: nothing to say against it */
        world_phase(w, s, "encode", 0, 0);
        cJSON_DeleteItemFromArray(cJSON_GetObjectItemCaseSensitive(w->inputs, "train"), 1);
        snprintf(dir, sizeof dir, "%s/swapped", w->dir);
        labels_swap(from, dir);
        world_input(w, "train", dir);
        world_fails(w, s, "encode", 0, 0, ERR_INVALID,
                    "data sets 0 and 1: label 0: is \"quality\" against \"humor\"");
        spec_free(s);
        world_free(w);
    }
}

static void test_predicted_labels_need_annotation(void **state)
{
    struct spec *s =
        spec_of(MOODS "kind: sft\ncondition: {template: control, labels: predicted}\n");
    struct world *w = prepared(s);
    struct run_result r;

    (void)state;
    assert_int_equal(world_task(w, s, "encode", 0, 0, 0, &r), ERR_INVALID);
    assert_non_null(strstr(w->e.msg, "annotate the data first"));
    w->cancel = true;
    s->condition.labels[0] = '\0';
    snprintf(s->condition.labels, sizeof s->condition.labels, "human");
    assert_int_equal(world_task(w, s, "encode", 0, 0, 0, &r), ERR_CANCELLED);
    spec_free(s);
    world_free(w);
}

/* Two folds: each response teaches exactly the model that will not label it. */
static void test_cross_fit(void **state)
{
    struct spec *s = spec_of(MOODS "kind: train-attribute-model\nhead: classes\ncross_fit: 2\n");
    struct world *w = prepared(s);
    struct examples *x[2];
    struct dataset d;
    struct model m;
    size_t expected[2] = {0, 0};

    (void)state;
    world_output(w, "prepare", &d);
    for (size_t i = 0; i < d.conversations; i++)
        if (d.conversation[i].split == SPLIT_TRAIN)
            expected[1 - d.conversation[i].fold % 2] += 3; /* "Sad" is no class: skipped */
    world_phase(w, s, "encode", 0, 0);
    for (int k = 0; k < 2; k++) {
        x[k] = examples_of(w, k);
        assert_int_equal(examples_count(x[k]), expected[k]);
        assert_int_equal(examples_targets_max(x[k]), 1);
    }
    init_of(w, &m);
    assert_int_equal(m.steer.role, STEER_ATTRIBUTE_MODEL);
    assert_int_equal(m.dims.vocab, 512 + 1 + 3);
    assert_int_equal(m.dims.head, HEAD_LM);
    model_fini(&m);
    examples_close(x[0]);
    examples_close(x[1]);
    dataset_free(&d);
    spec_free(s);
    world_free(w);
}

static void test_regression_changes_the_head(void **state)
{
    struct spec *s = spec_of(SCALES "kind: train-attribute-model\nhead: regression\n");
    struct world *w = prepared(s);
    struct model m;
    struct examples *x;

    (void)state;
    world_phase(w, s, "encode", 0, 0);
    init_of(w, &m);
    x = examples_of(w, 0);
    assert_int_equal(m.dims.head, HEAD_REGRESSION);
    assert_int_equal(m.dims.head_out, 2);
    assert_int_equal(examples_outputs(x), 2);
    assert_non_null(layout_find(&m.layout, "score.weight"));
    examples_close(x);
    model_fini(&m);
    spec_free(s);
    world_free(w);
}

static void init_small(struct spec *s)
{
    s->has_init = true;
    s->init = (struct dims){.vocab = 600,
                            .width = 16,
                            .layers = 1,
                            .heads = 2,
                            .kv_heads = 2,
                            .head_dim = 8,
                            .ffn = 32,
                            .context = 64,
                            .norm_eps = 1e-5f,
                            .rope_theta = 10000.0f,
                            .tied = true};
    snprintf(s->tokenizer, sizeof s->tokenizer, "synthetic");
}

/* base: {init}: a random model, with a tokenizer that comes as a file without a name, or with none. */
static void test_from_nothing(void **state)
{
    struct spec *s = spec_of(MOODS "kind: sft\ncondition: {template: control, labels: human}\n");
    struct world *w = prepared(s);
    struct tokenizer *tok = NULL;
    struct model m;
    char path[128];

    (void)state;
    init_small(s);
    world_phase(w, s, "encode", 0, 0);
    init_of(w, &m);
    assert_int_equal(m.dims.vocab, 612);
    assert_int_equal(m.steer.template_config.max_length, 64);
    model_fini(&m);
    s->init.vocab = 0;
    snprintf(s->tokenizer, sizeof s->tokenizer, "file:tokenizer.json");
    assert_int_equal(tokenizer_load("models/stories260K", &tok, &w->e), 0);
    assert_int_equal(tokenizer_write(tok, w->dir, &w->e), 0);
    tokenizer_free(tok);
    snprintf(path, sizeof path, "%s/tokenizer.json", w->dir);
    world_input(w, "tokenizer", path);
    world_phase(w, s, "encode", 0, 0);
    init_of(w, &m);
    assert_int_equal(m.dims.vocab, 524);
    model_fini(&m);
    s->init.width = 16384;
    s->init.layers = s->init.heads = s->init.kv_heads = 256;
    s->init.head_dim = 512;
    s->init.ffn = 65536;
    world_fails(w, s, "encode", 0, 0, ERR_LIMIT, "base.init: no memory for");
    spec_free(s);
    world_free(w);
}

/* What can't be cut is longer than the model reads, or than the spec allows. */
static void test_labels_that_do_not_fit_are_refused(void **state)
{
    struct spec *lm = spec_of(HELPSTEER "kind: train-attribute-model\nhead: lm\n");
    struct spec *all = spec_of(HELPSTEER "kind: sft\ncondition: {template: nemo, labels: human}\n");
    struct world *w = prepared(lm);

    (void)state;
    init_small(lm);
    world_fails(w, lm, "encode", 0, 0, ERR_INVALID,
                "examples.0: marks and labels alone make a sequence of ");
    assert_non_null(strstr(w->e.msg, " tokens, max_length is 64"));
    lm->init.context = 256;
    world_phase(w, lm, "encode", 0, 0);
    assert_in_range((unsigned)world_metric(w, "encode", "length_max.0"), 65, 256);
    lm->train.max_length = 100;
    world_fails(w, lm, "encode", 0, 0, ERR_INVALID, " tokens, max_length is 100");
    world_free(w);
    w = prepared(all);
    init_small(all);
    snprintf(all->condition.loss_on, sizeof all->condition.loss_on, "all");
    world_fails(w, all, "encode", 0, 0, ERR_INVALID, " tokens, max_length is 64");
    world_free(w);
    spec_free(lm);
    spec_free(all);
}

/* Twice the same task: the same digests. */
static void test_encode_is_reproducible(void **state)
{
    struct spec *s = spec_of(MOODS "kind: sft\ncondition: {template: nemo, labels: human}\n");
    struct world *w = prepared(s);
    char *first, *second;

    (void)state;
    world_phase(w, s, "encode", 0, 0);
    first = cJSON_PrintUnformatted(json_get(w->phases, "encode"));
    world_phase(w, s, "encode", 0, 0);
    second = cJSON_PrintUnformatted(json_get(w->phases, "encode"));
    assert_string_equal(first, second);
    free(first);
    free(second);
    spec_free(s);
    world_free(w);
}

/* A checkpoint of parameters i / 1000, by hand. */
static void checkpoint_make(struct world *w, size_t params, float scale)
{
    enum { CHUNK = 16384 };
    struct ckpt_manifest m = {.params = params,
                              .step = 2,
                              .steps = 2,
                              .seed = 3,
                              .chunk_elems = CHUNK,
                              .units = 2,
                              .global_batch = 4};
    struct buf text = BUF_INIT;
    struct digest d;
    cJSON *phase = cJSON_CreateObject(), *outputs = cJSON_AddObjectToObject(phase, "outputs");

    m.chunks = (uint32_t)((params + CHUNK - 1) / CHUNK);
    m.chunk = mem_zalloc(m.chunks, sizeof *m.chunk);
    digest_bytes("a", 1, &m.init);
    digest_bytes("b", 1, &m.examples);
    for (uint32_t c = 0; c < m.chunks; c++) {
        size_t n = ckpt_chunk_len(&m, c);
        float *v = mem_zalloc(3 * n, sizeof *v);
        for (size_t i = 0; i < n; i++)
            v[i] = scale * (float)(c * CHUNK + i);
        assert_int_equal(blob_put_bytes(w->store, v, 3 * n * sizeof *v, &m.chunk[c], NULL), 0);
        free(v);
    }
    ckpt_manifest_write(&m, &text);
    assert_int_equal(blob_put_bytes(w->store, text.data, text.len, &d, NULL), 0);
    cJSON_AddStringToObject(outputs, "checkpoint", d.hex);
    cJSON_DeleteItemFromObject(w->phases, "train.0");
    cJSON_AddItemToObject(w->phases, "train.0", phase);
    ckpt_manifest_fini(&m);
    buf_free(&text);
}

static void test_export(void **state)
{
    struct spec *s = spec_of(MOODS "kind: sft\ncondition: {template: control, labels: human}\n");
    struct world *w = prepared(s);
    struct model m;
    struct run_result r;
    char path[256];

    (void)state;
    world_phase(w, s, "encode", 0, 0);
    assert_int_equal(world_task(w, s, "export", 0, 0, 0, &r), ERR_INVALID);
    assert_non_null(strstr(w->e.msg, "phase train.0 has no checkpoint"));
    checkpoint_make(w, (size_t)world_metric(w, "encode", "params"), 0.001f);
    world_phase(w, s, "export", 0, 0);
    assert_int_equal(
        world_fetch(w,
                    json_string_or(json_get(json_get(w->phases, "export"), "outputs"), "part", ""),
                    path, sizeof path, &w->e),
        0);
    assert_int_equal(model_load(path, MODEL_ALL, &m, &w->e), 0);
    for (size_t i = 0; i < m.layout.count; i++)
        assert_true(m.params[i] == 0.001f * (float)i);
    assert_int_equal(m.steer.role, STEER_POLICY);
    assert_int_equal(tokenizer_id(m.tokenizer, "<|curious:4|>"), 516);
    model_fini(&m);
    checkpoint_make(w, (size_t)world_metric(w, "encode", "params"),
                    INFINITY); /* a run that diverged */
    assert_int_equal(world_task(w, s, "export", 0, 0, 0, &r), ERR_NUMERIC);
    checkpoint_make(w, 1000, 1.0f);
    assert_int_not_equal(world_task(w, s, "export", 0, 0, 0, &r), 0);
    spec_free(s);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_prepare_counts),
                                       cmocka_unit_test(test_policy_examples),
                                       cmocka_unit_test(test_shuffled_labels),
                                       cmocka_unit_test(test_data_sets_of_other_labels_are_refused),
                                       cmocka_unit_test(test_predicted_labels_need_annotation),
                                       cmocka_unit_test(test_cross_fit),
                                       cmocka_unit_test(test_regression_changes_the_head),
                                       cmocka_unit_test(test_from_nothing),
                                       cmocka_unit_test(test_labels_that_do_not_fit_are_refused),
                                       cmocka_unit_test(test_encode_is_reproducible),
                                       cmocka_unit_test(test_export)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
