#include "tests/unit/jobs/jobs_fixture.h"

#include <math.h>

#include "data/measure.h"
#include "model/transformer.h"

static struct world *chat_world(int models, enum template_head head, int max_reply_tokens)
{
    struct world *w = world_new();
    char path[128];

    snprintf(path, sizeof(path), "%s/chat", w->dir);
    fixture_dataset(path, max_reply_tokens);
    world_input(w, "data", path);
    for (int i = 0; i < models; i++) {
        snprintf(path, sizeof(path), "%s/model%d", w->dir, i);
        fixture_model(path, head, 100 + (uint64_t)i);
        world_input(w, "model", path);
    }
    return w;
}

/* Probabilities of label 0 for one response, by itself, straight from the model. */
static void probs_alone(const struct world *w, int model, const struct conversation *c,
                        uint32_t turn, double *p)
{
    struct model m;
    char path[128];
    struct sequence *s = mem_zalloc(1, sizeof(*s));
    struct batch b;
    struct workspace *work;
    float out[8];

    snprintf(path, sizeof(path), "%s/model%d", w->dir, model);
    assert_int_equal(model_load(path, MODEL_ALL, &m, NULL), 0);
    assert_int_equal(template_score(&m.steer.template_config, m.tokenizer, c, turn, s, NULL), 0);
    batch_init(&b, 256, 1, 1, 0);
    b.rows = (int32_t)s->ids.n;
    b.seqs = 1;
    b.targets = 1;
    memcpy(b.token, s->ids.v, s->ids.n * sizeof(int32_t));
    b.seq_begin[1] = b.rows;
    b.target[0] = (struct batch_target){.row = (int32_t)s->target[0].row,
                                        .id = s->target[0].lo,
                                        .lo = s->target[0].lo,
                                        .hi = s->target[0].hi,
                                        .weight = 1.0f};
    work = workspace_new(&m.dims, 256, 1, 1);
    transformer_outputs(&m.dims, m.params, &b, out, 8, work);
    for (int i = 0; i < 3; i++)
        p[i] = exp((double)out[i]);
    workspace_free(work);
    batch_fini(&b);
    sequence_free(s);
    free(s);
    model_fini(&m);
}

static void test_values_are_those_of_the_model_that_has_not_seen_the_row(void **state)
{
    struct world *w = chat_world(2, TEMPLATE_HEAD_CLASSES, 60);
    struct spec *s = fixture_spec(KIND_ANNOTATE, "data model");
    struct dataset in, out;
    char path[128];
    int train = 0, held_out = 0;

    (void)state;
    snprintf(path, sizeof(path), "%s/chat", w->dir);
    assert_int_equal(dataset_load(path, &in, NULL), 0);
    world_phase(w, s, "annotate.rows", FIXTURE_CONVERSATIONS, 7);
    world_phase(w, s, "annotate.reduce", 0, 0);
    world_output(w, "annotate.reduce", &out);
    assert_int_equal(out.conversations, FIXTURE_CONVERSATIONS);
    for (size_t i = 0; i < out.conversations; i++) {
        const struct conversation *c = &in.conversation[i];
        const struct turn *t = &out.conversation[i].turn[1];
        double p[2][8], want;
        for (int k = 0; k < 2; k++)
            probs_alone(w, k, c, 1, p[k]);
        want = c->split == SPLIT_HELD_OUT ? (p[0][1] + p[1][1]) / 2 : p[c->fold % 2][1];
        if (fabs(p[0][1] - p[1][1]) > 1e-3)
            *(c->split == SPLIT_HELD_OUT ? &held_out : &train) += 1;
        assert_true(fabs((double)t->value[0] - want) < 1e-5);
        assert_true(t->value[1] >= 0.0f && t->value[1] <= 4.0f);
        assert_int_equal(t->level[1], (int)rint((double)t->value[1]));
        assert_true(t->value[2] == (float)measure_text(MEASURE_WORDS, t->text, t->text_len));
    }
    assert_true(train > 5 && held_out > 3); /* the models do differ */
    dataset_free(&in);
    dataset_free(&out);
    spec_free(s);
    world_free(w);
}

static void test_levels_are_quantiles_of_kept_training_rows(void **state)
{
    struct world *w = chat_world(1, TEMPLATE_HEAD_CLASSES, 20);
    struct spec *s = fixture_spec(KIND_ANNOTATE, "data model");
    struct dataset out;
    double count[2][3] = {{0}}, kept = 0, unkept = 0;

    (void)state;
    world_phase(w, s, "annotate.rows", FIXTURE_CONVERSATIONS, 16);
    world_phase(w, s, "annotate.reduce", 0, 0);
    world_output(w, "annotate.reduce", &out);
    for (size_t i = 0; i < out.responses; i++) {
        size_t c;
        uint32_t k;
        const struct turn *t;
        dataset_response(&out, i, &c, &k);
        t = &out.conversation[c].turn[k];
        assert_true(t->tokens > 0);
        assert_int_equal(t->kept, t->tokens <= 20);
        assert_in_range(t->level[0], 0, 2);
        assert_in_range(t->level[2], 0, 2);
        for (int a = 0; a < 3; a += 2)
            assert_int_equal(t->level[a], schema_level(&out.schema.attr[a], (double)t->value[a]));
        if (out.conversation[c].split == SPLIT_TRAIN && t->kept) {
            count[0][t->level[0]]++;
            count[1][t->level[2]]++;
            kept++;
        }
        unkept += !t->kept;
    }
    assert_true(kept > 40 && unkept > 20);
    for (int level = 0; level < 3; level++) {
        assert_true(fabs(count[0][level] - kept / 3) <= 2); /* probabilities: hardly any ties */
        assert_true(fabs(count[1][level] - kept / 3) <= 0.2 * kept);
    }
    assert_true(out.schema.attr[0].has_edges && out.schema.attr[2].has_edges &&
                !out.schema.attr[1].has_edges);
    assert_true(world_metric(w, "annotate.reduce", "level.curious.0") == count[0][0]);
    assert_true(world_metric(w, "annotate.reduce", "rows") == FIXTURE_CONVERSATIONS);
    assert_int_equal(json_int_or(json_get(out.meta, "keep"), "max_reply_tokens", 0), 20);
    dataset_free(&out);
    spec_free(s);
    world_free(w);
}

static void test_agreement_is_counted_against_human_labels(void **state)
{
    struct world *w = chat_world(2, TEMPLATE_HEAD_CLASSES, 60);
    struct spec *s = fixture_spec(KIND_ANNOTATE, "data model");
    struct dataset out;
    double right = 0, n = 0;
    char *parts, *line, *rest;
    size_t at = 0;

    (void)state;
    world_phase(w, s, "annotate.rows", FIXTURE_CONVERSATIONS, 16);
    world_phase(w, s, "annotate.reduce", 0, 0);
    world_output(w, "annotate.reduce", &out);
    parts = world_parts(w, "annotate.rows");
    for (line = strtok_r(parts, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest), at++) {
        cJSON *j = NULL;
        const cJSON *r;
        int k = 0;
        assert_int_equal(json_parse(line, strlen(line), JSON_LIMITS_LINE, &j, NULL), 0);
        cJSON_ArrayForEach(r, json_get(j, "t"))
        {
            const cJSON *p = cJSON_GetArrayItem(json_get(r, "p"), 0);
            float human = out.conversation[at].turn[k++].human[0];
            int best = 0;
            double sum = 0;
            for (int i = 0; i < 3; i++) {
                sum += cJSON_GetArrayItem(p, i)->valuedouble;
                if (cJSON_GetArrayItem(p, i)->valuedouble >
                    cJSON_GetArrayItem(p, best)->valuedouble)
                    best = i;
            }
            assert_true(fabs(sum - 1.0) < 1e-5);
            if (out.conversation[at].split != SPLIT_HELD_OUT || isnan(human))
                continue;
            n++;
            right += best == (int)human;
        }
        cJSON_Delete(j);
    }
    assert_true(n > 5);
    assert_true(fabs(world_metric(w, "annotate.reduce", "agreement.sentiment.held_out.accuracy") -
                     right / n) < 1e-12);
    assert_true(world_metric(w, "annotate.reduce", "agreement.sentiment.held_out.responses") == n);
    assert_true(world_metric(w, "annotate.reduce", "agreement.sentiment.cross_fit.kappa") > -1.0);
    assert_true(world_metric(w, "annotate.reduce", "agreement.quality.cross_fit.mae") > 0.0);
    assert_true(world_metric(w, "annotate.reduce", "agreement.curious.held_out.auc") >= 0.0);
    free(parts);
    dataset_free(&out);
    spec_free(s);
    world_free(w);
}

static void test_a_rerun_gives_the_same_bytes(void **state)
{
    struct world *w = chat_world(2, TEMPLATE_HEAD_CLASSES, 60);
    struct spec *s = fixture_spec(KIND_ANNOTATE, "data model");
    char *a, *b;

    (void)state;
    world_phase(w, s, "annotate.rows", FIXTURE_CONVERSATIONS, 8);
    a = world_parts(w, "annotate.rows");
    world_phase(w, s, "annotate.rows", FIXTURE_CONVERSATIONS, 8);
    b = world_parts(w, "annotate.rows");
    assert_string_equal(a, b);
    assert_true(w->heartbeat > 10);
    free(a);
    free(b);
    spec_free(s);
    world_free(w);
}

static void test_regression_heads_give_numbers(void **state)
{
    struct world *w = chat_world(1, TEMPLATE_HEAD_REGRESSION, 60);
    struct spec *s = fixture_spec(KIND_ANNOTATE, "data model");
    struct dataset out;
    int differ = 0;

    (void)state;
    world_phase(w, s, "annotate.rows", FIXTURE_CONVERSATIONS, 16);
    world_phase(w, s, "annotate.reduce", 0, 0);
    world_output(w, "annotate.reduce", &out);
    for (size_t i = 0; i < out.conversations; i++) {
        const struct turn *t = &out.conversation[i].turn[2];
        assert_true(isfinite(t->value[0]) && isfinite(t->value[1]));
        differ += t->value[1] < out.conversation[0].turn[2].value[1] ||
                  t->value[1] > out.conversation[0].turn[2].value[1];
        assert_true(t->value[2] >= 1.0f); /* computed, not the head's */
    }
    assert_true(differ > 20);
    assert_true(world_metric(w, "annotate.reduce", "agreement.quality.held_out.mae") > 0.0);
    assert_true(world_metric(w, "annotate.reduce", "agreement.sentiment.held_out.kappa") <
                -1e299); /* no classes, no kappa */
    dataset_free(&out);
    spec_free(s);
    world_free(w);
}

/* Expected level of the first attribute that a label string says, straight from the model. */
static double first_value_alone(const struct world *w, const struct conversation *c, uint32_t turn)
{
    struct model m;
    char path[128];
    struct sequence *s = mem_zalloc(1, sizeof(*s));
    struct template_grammar *g;
    struct batch b;
    struct workspace *work;
    static float out[4096];
    int32_t generated[64], ids[64];
    size_t n = 0, choices;
    double sum = 0, mean = 0;

    snprintf(path, sizeof(path), "%s/model0", w->dir);
    assert_int_equal(model_load(path, MODEL_ALL, &m, NULL), 0);
    assert_int_equal(template_score(&m.steer.template_config, m.tokenizer, c, turn, s, NULL), 0);
    assert_int_equal(template_grammar_new(&m.steer.template_config, m.tokenizer, &g, NULL), 0);
    while ((choices = template_grammar_allowed(g, 0, generated, n, ids, 64)) == 1)
        generated[n++] = ids[0];
    assert_int_equal(choices, 3); /* levels of curious */
    batch_init(&b, 400, 1, 1, 0);
    for (uint32_t i = s->piece[0].begin; i < s->piece[0].end; i++)
        b.token[b.rows++] = s->ids.v[i];
    for (size_t i = 0; i < n; i++)
        b.token[b.rows++] = generated[i];
    b.seqs = b.targets = 1;
    b.seq_begin[1] = b.rows;
    b.target[0] = (struct batch_target){
        .row = b.rows - 1, .id = 0, .lo = 0, .hi = m.dims.vocab, .weight = 1.0f};
    work = workspace_new(&m.dims, 400, 1, 1);
    transformer_outputs(&m.dims, m.params, &b, out, 4096, work);
    for (size_t i = 0; i < choices; i++) {
        int8_t level[SCHEMA_ATTRS_MAX];
        generated[n] = ids[i];
        template_grammar_levels(g, generated, n + 1, level);
        sum += exp((double)out[ids[i]]);
        mean += exp((double)out[ids[i]]) * (double)level[0];
    }
    workspace_free(work);
    batch_fini(&b);
    template_grammar_free(g);
    sequence_free(s);
    free(s);
    model_fini(&m);
    return mean / sum / 2.0; /* 0, 1, 2 of a class's probability */
}

static void test_label_text_gives_expected_levels(void **state)
{
    struct world *w = chat_world(1, TEMPLATE_HEAD_LM, 60);
    struct spec *s = fixture_spec(KIND_ANNOTATE, "data model");
    struct dataset in, out;
    char path[128];

    (void)state;
    world_phase(w, s, "annotate.rows", FIXTURE_CONVERSATIONS, 16);
    world_phase(w, s, "annotate.reduce", 0, 0);
    world_output(w, "annotate.reduce", &out);
    snprintf(path, sizeof(path), "%s/chat", w->dir);
    assert_int_equal(dataset_load(path, &in, NULL), 0);
    for (size_t i = 0; i < out.conversations; i++) {
        const struct turn *t = &out.conversation[i].turn[1];
        if (i < 10)
            assert_true(fabs((double)t->value[0] - first_value_alone(w, &in.conversation[i], 1)) <
                        1e-4);
        assert_true(t->value[1] > 0.0f &&
                    t->value[1] < 4.0f); /* between the ends: an expectation, not a choice */
        assert_true(isfinite(t->value[2]));
    }
    dataset_free(&in);
    dataset_free(&out);
    spec_free(s);
    world_free(w);
}

static void test_a_model_whose_config_does_not_fit_is_refused(void **state)
{
    static const struct {
        const char *from, *to, *words;
    } cases[] = {
        {"\"query_first\":", "\"query_first\": 90000, \"x\":", "beyond the vocabulary"},
        {"\"control_first\":", "\"control_first\": 90000, \"x\":", "beyond the vocabulary"},
        {"\"class_first\":", "\"class_first\": [514, 70000], \"y\":", "beyond the vocabulary"},
        {"\"head\":", "\"head\": \"regression\", \"z\":", "do not fit"},
        {"\"head\":", "\"head\": \"policy\", \"z\":", "do not fit"},
        {"\"role\":", "\"role\": \"policy\", \"z\":", "do not fit"},
        {"\"max\":", "\"max\": 1e300, \"z\":", "has a scale 0..1e+300, at most 16"},
    };
    struct spec *s = fixture_spec(KIND_ANNOTATE, "data model");

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world *w = chat_world(1, TEMPLATE_HEAD_CLASSES, 60);
        struct buf text = BUF_INIT, out = BUF_INIT;
        char path[128], *hit;
        struct run_result r;
        snprintf(path, sizeof(path), "%s/model0/steer_config.json", w->dir);
        assert_int_equal(file_read(path, 1u << 20, &text, NULL), 0);
        hit = strstr(text.data, cases[i].from);
        assert_non_null(hit);
        buf_add(&out, text.data, (size_t)(hit - text.data));
        buf_str(&out, cases[i].to);
        buf_str(&out, hit + strlen(cases[i].from));
        assert_int_equal(unlink(path), 0); /* it is linked to the store */
        assert_int_equal(file_write_atomic(path, out.data, out.len, NULL), 0);
        cJSON_DeleteItemFromObjectCaseSensitive(w->inputs, "model");
        snprintf(path, sizeof(path), "%s/model0", w->dir);
        world_input(w, "model", path);
        assert_int_equal(world_task(w, s, "annotate.rows", 0, 0, 5, &r), ERR_INVALID);
        if (strstr(w->e.msg, cases[i].words) == NULL)
            fail_msg("%zu: %s", i, w->e.msg);
        buf_free(&text);
        buf_free(&out);
        world_free(w);
    }
    spec_free(s);
}

/* The chat, where sentiment has two classes and quality a scale that no classes head has. */
static void other_labels(const char *from, const char *dir)
{
    struct dataset in;
    struct dataset_writer *w;

    assert_int_equal(dataset_load(from, &in, NULL), 0);
    in.schema.label[0].classes = 2;
    in.schema.label[1].max = 100;
    assert_int_equal(dataset_writer_new(dir, &in.schema, &w, NULL), 0);
    for (size_t i = 0; i < in.conversations; i++) {
        for (uint32_t k = 0; k < in.conversation[i].turns; k++)
            in.conversation[i].turn[k].human[0] = 1.0f;
        assert_int_equal(dataset_write(w, &in.conversation[i], NULL), 0);
    }
    assert_int_equal(dataset_writer_end(&w, in.meta, NULL), 0);
    dataset_free(&in);
}

static void test_labels_of_other_classes_are_not_compared(void **state)
{
    struct world *w = chat_world(1, TEMPLATE_HEAD_CLASSES, 60);
    struct spec *s = fixture_spec(KIND_ANNOTATE, "data model");
    char from[128], path[128];
    char *parts;

    (void)state;
    snprintf(from, sizeof(from), "%s/chat", w->dir);
    snprintf(path, sizeof(path), "%s/other", w->dir);
    other_labels(from, path);
    cJSON_DeleteItemFromObjectCaseSensitive(w->inputs, "data");
    world_input(w, "data", path);
    world_phase(w, s, "annotate.rows", FIXTURE_CONVERSATIONS, 16);
    parts = world_parts(w, "annotate.rows");
    assert_non_null(strstr(parts, "\"p\":[[],[]]"));
    world_phase(w, s, "annotate.reduce", 0, 0);
    assert_true(world_metric(w, "annotate.reduce", "agreement.sentiment.held_out.kappa") < -1e299);
    assert_true(world_metric(w, "annotate.reduce", "agreement.quality.held_out.accuracy") < -1e299);
    free(parts);
    spec_free(s);
    world_free(w);
}

/* A head of classes has as many outputs as its own labels have classes. */
static void test_models_of_other_labels_are_refused(void **state)
{
    struct world *w = chat_world(0, TEMPLATE_HEAD_CLASSES, 60);
    struct spec *s = fixture_spec(KIND_ANNOTATE, "data model");
    struct schema two = fixture_schema();
    char wide[128], narrow[128];

    (void)state;
    two.label[0].classes = 2;
    two.label[1].max = 1; /* nor is the scale wider */
    snprintf(wide, sizeof(wide), "%s/wide", w->dir);
    snprintf(narrow, sizeof(narrow), "%s/narrow", w->dir);
    fixture_model(wide, TEMPLATE_HEAD_CLASSES, 100);
    fixture_model_of(narrow, &two, TEMPLATE_CONTROL, TEMPLATE_HEAD_CLASSES, 101);
    world_input(w, "model", narrow);
    world_input(w, "model", wide);
    world_fails(w, s, "annotate.rows", 0, 5, ERR_INVALID,
                "input model: models 1 and 0: label 0: \"sentiment\" has 3 classes against 2");
    cJSON_DeleteItemFromObjectCaseSensitive(w->inputs, "model");
    world_input(w, "model", wide);
    world_input(w, "model", narrow);
    world_fails(w, s, "annotate.rows", 0, 5, ERR_INVALID,
                "input model: models 1 and 0: label 0: \"sentiment\" has 2 classes against 3");
    spec_free(s);
    world_free(w);
}

/* Input data: the same texts, and humans who say 1e9 where they said anything. */
static void labels_wild(struct world *w)
{
    struct dataset in;
    struct dataset_writer *out;
    char path[128];

    snprintf(path, sizeof(path), "%s/chat", w->dir);
    assert_int_equal(dataset_load(path, &in, NULL), 0);
    snprintf(path, sizeof(path), "%s/wild", w->dir);
    assert_int_equal(dataset_writer_new(path, &in.schema, &out, NULL), 0);
    for (size_t i = 0; i < in.conversations; i++) {
        for (uint32_t k = 0; k < in.conversation[i].turns; k++)
            in.conversation[i].turn[k].human[0] = 1e9f;
        assert_int_equal(dataset_write(out, &in.conversation[i], NULL), 0);
    }
    assert_int_equal(dataset_writer_end(&out, in.meta, NULL), 0);
    dataset_free(&in);
    cJSON_DeleteItemFromObjectCaseSensitive(w->inputs, "data");
    world_input(w, "data", path);
}

/* What a model says of a text is the same whatever the data's humans said, and about how many labels. */
static void test_values_do_not_depend_on_the_data_s_labels(void **state)
{
    struct world *w = chat_world(0, TEMPLATE_HEAD_CLASSES, 60);
    struct spec *s = fixture_spec(KIND_ANNOTATE, "data model");
    struct schema more = fixture_schema();
    char path[128], *want, *got;

    (void)state;
    for (int i = 2; i < SCHEMA_LABELS_MAX; i++) { /* as many as there may be: the data has two */
        more.label[i] = more.label[0];
        snprintf(more.label[i].name, sizeof(more.label[i].name), "label%d", i);
    }
    more.labels = SCHEMA_LABELS_MAX;
    snprintf(path, sizeof(path), "%s/more", w->dir);
    fixture_model_of(path, &more, TEMPLATE_CONTROL, TEMPLATE_HEAD_CLASSES, 100);
    world_input(w, "model", path);
    world_phase(w, s, "annotate.rows", FIXTURE_CONVERSATIONS, 16);
    want = world_parts(w, "annotate.rows");
    labels_wild(w);
    world_phase(w, s, "annotate.rows", FIXTURE_CONVERSATIONS, 16);
    got = world_parts(w, "annotate.rows");
    assert_string_equal(got, want);
    free(got);
    free(want);
    spec_free(s);
    world_free(w);
}

static void test_without_a_model_only_computed_attributes_are_filled(void **state)
{
    struct world *w = chat_world(0, TEMPLATE_HEAD_CLASSES, 0);
    struct spec *s = fixture_spec(KIND_ANNOTATE, "data model");
    struct dataset out;

    (void)state;
    world_phase(w, s, "annotate.rows", FIXTURE_CONVERSATIONS, 16);
    world_phase(w, s, "annotate.reduce", 0, 0);
    world_output(w, "annotate.reduce", &out);
    for (size_t i = 0; i < out.conversations; i++) {
        const struct turn *t = &out.conversation[i].turn[0];
        assert_true(isnan(t->value[0]) && isnan(t->value[1]));
        assert_int_equal(t->level[0], -1);
        assert_in_range(t->level[2], 0, 2);
        assert_true(t->kept);
        assert_true(isnan(t->human[0]) == (i % 3 == 0)); /* human labels stay */
    }
    dataset_free(&out);
    spec_free(s);
    world_free(w);
}

static void test_refusals_name_what_is_wrong(void **state)
{
    struct spec *s = fixture_spec(KIND_ANNOTATE, "data model");
    struct world *w = chat_world(0, TEMPLATE_HEAD_CLASSES, 40);
    char path[128];
    cJSON *phase, *list;

    (void)state;
    world_fails(w, s, "annotate.rows", 0, 5, ERR_INVALID, "keep.max_reply_tokens is 40");
    world_input(w, "base", "models/stories260K");
    world_fails(w, s, "annotate.rows", 5, 31, ERR_INVALID, "rows 5..31");
    world_phase(w, s, "annotate.rows", FIXTURE_CONVERSATIONS, 10);
    phase = cJSON_GetObjectItemCaseSensitive(w->phases, "annotate.rows");
    list = cJSON_GetObjectItemCaseSensitive(phase, "parts");
    cJSON_AddItemToArray(list, cJSON_DetachItemFromArray(list, 0)); /* parts out of order */
    world_fails(w, s, "annotate.reduce", 0, 0, ERR_CORRUPT, "conversation 10, 0 was expected");
    cJSON_DeleteItemFromArray(list, 2);
    world_fails(w, s, "annotate.reduce", 0, 0, ERR_CORRUPT, "conversation 10, 0 was expected");
    cJSON_DeleteItemFromArray(list, 0);
    cJSON_DeleteItemFromArray(list, 0);
    world_fails(w, s, "annotate.reduce", 0, 0, ERR_CORRUPT, "0 of 30 conversations");
    world_input(w, "model", "models/stories260K");
    world_fails(w, s, "annotate.rows", 0, 5, ERR_INVALID, "no attribute model");
    world_free(w);

    w = chat_world(0, TEMPLATE_HEAD_CLASSES, 40);
    snprintf(path, sizeof(path), "%s/policy", w->dir);
    fixture_model(path, TEMPLATE_POLICY, 3);
    world_input(w, "model", path);
    world_fails(w, s, "annotate.rows", 0, 5, ERR_INVALID, "says policy");
    world_free(w);

    w = chat_world(1, TEMPLATE_HEAD_CLASSES, 40);
    w->cancel = true;
    world_fails(w, s, "annotate.rows", 0, 5, ERR_CANCELLED, "asked to stop");
    world_free(w);
    spec_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_are_those_of_the_model_that_has_not_seen_the_row),
        cmocka_unit_test(test_levels_are_quantiles_of_kept_training_rows),
        cmocka_unit_test(test_agreement_is_counted_against_human_labels),
        cmocka_unit_test(test_a_rerun_gives_the_same_bytes),
        cmocka_unit_test(test_regression_heads_give_numbers),
        cmocka_unit_test(test_label_text_gives_expected_levels),
        cmocka_unit_test(test_a_model_whose_config_does_not_fit_is_refused),
        cmocka_unit_test(test_labels_of_other_classes_are_not_compared),
        cmocka_unit_test(test_models_of_other_labels_are_refused),
        cmocka_unit_test(test_values_do_not_depend_on_the_data_s_labels),
        cmocka_unit_test(test_without_a_model_only_computed_attributes_are_filled),
        cmocka_unit_test(test_refusals_name_what_is_wrong),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
