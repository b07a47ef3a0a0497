/*
 * The three phases of an evaluation, end to end in one process, on a small real model with
 * untrained control tokens and a data set made here: artefacts are directories named by a counter.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/rng.h"
#include "data/measure.h"
#include "jobs/run.h"
#include "jobs/run_evaluate.h"
#include "modelfile/modeldir.h"

#define HEX "%064x"
enum { TALKS = 16, TURNS = 4 };

struct world {
    char dir[256];
    unsigned stored; /* artefacts so far */
    uint64_t beats;
    struct spec *spec;
    cJSON *inputs;
    bool cancel;
    const char *tale; /* what all say; NULL: one thing or another */
};
static struct world w;

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct err e = {0};                                                                        \
        if ((call) != 0)                                                                           \
            fail_msg("%s", e.msg);                                                                 \
    } while (0)

/* ---- a store --------------------------------------------------------------------------------- */

static int store_fetch(void *self, const char *digest, char *path, size_t cap, struct err *e)
{
    (void)self;
    snprintf(path, cap, "%s/%s", w.dir, digest);
    return file_exists(path) || file_is_dir(path) ? 0 : err_set(e, ERR_NOT_FOUND, "%s", digest);
}

static int store_publish(void *self, const char *path, struct digest *out, struct err *e)
{
    char to[512];

    (void)self;
    snprintf(out->hex, sizeof out->hex, HEX, ++w.stored);
    snprintf(to, sizeof to, "%s/%s", w.dir, out->hex);
    return rename(path, to) == 0 ? 0 : err_sys(e, "rename");
}

static bool stop_wanted(void *self)
{
    (void)self;
    return w.cancel;
}

static void input_add(const char *key, const char *hex)
{
    cJSON *list = cJSON_GetObjectItem(w.inputs, key);

    if (list == NULL)
        list = cJSON_AddArrayToObject(w.inputs, key);
    cJSON_AddItemToArray(list, cJSON_CreateString(hex));
}

/* ---- data and models ------------------------------------------------------------------------- */

static void schema_fill(struct schema *s)
{
    struct attr *a = s->attr;

    memset(s, 0, sizeof *s);
    s->labels = 1;
    strcpy(s->label[0].name, "mood");
    s->label[0].classes = 2;
    strcpy(s->label[0].class_name[0], "flat");
    strcpy(s->label[0].class_name[1], "curious");
    s->label[0].other = -1;
    s->attrs = 2;
    strcpy(a[0].name, "curious");
    a[0].type = ATTR_CATEGORICAL;
    a[0].class_index = 1;
    strcpy(a[1].name, "verbosity");
    a[1].type = ATTR_COMPUTED;
    a[1].label = -1;
    a[1].measure = MEASURE_WORDS;
    for (int i = 0; i < 2; i++) {
        a[i].levels = 5;
        a[i].binned = a[i].has_edges = true;
        a[i].default_level = -1;
        for (int k = 0; k < 4; k++)
            a[i].edge[k] = i == 0 ? 0.2 * (k + 1) : 3.0 * (k + 1);
    }
}

/* Talks of which every second is held out; or texts of one turn, none held out. */
static void data_make(const char *key, uint32_t turns)
{
    static const char *const said[] = {
        "Do you like the sea?", "The cat sat on the mat and looked at the moon.",
        "Why is the sky so blue, and who made it?", "I like my red ball."};
    struct schema s;
    struct dataset_writer *writer = NULL;
    char dir[300], source[32], id[32];
    struct digest d;
    float human[TURNS][1], value[TURNS][2];
    int8_t level[TURNS][2];
    struct turn turn[TURNS];

    schema_fill(&s);
    snprintf(dir, sizeof dir, "%s/data", w.dir);
    OK(dataset_writer_new(dir, &s, &writer, &e));
    for (uint32_t i = 0; i < TALKS; i++) {
        memset(turn, 0, sizeof turn);
        for (uint32_t k = 0; k < TURNS; k++) {
            const char *text = w.tale != NULL ? w.tale : said[rng_below(1, RNG_TEST, i, k, 0, 4)];
            bool asks = strchr(text, '?') != NULL;
            human[k][0] = asks;
            value[k][0] = (float)((asks ? 0.5 : 0.1) + 0.4 * rng_unit(1, RNG_TEST, i, k, 1));
            value[k][1] = (float)measure_text(MEASURE_WORDS, text, strlen(text));
            for (int a = 0; a < 2; a++)
                level[k][a] = (int8_t)schema_level(&s.attr[a], (double)value[k][a]);
            turn[k] = (struct turn){ROLE_ASSISTANT, k % 2 ? "b" : "a",
                                    text,           (uint32_t)strlen(text),
                                    true,           k != 3,
                                    false,          12,
                                    human[k],       value[k],
                                    level[k]};
        }
        snprintf(id, sizeof id, "talk%u", i);
        snprintf(source, sizeof source, "x.jsonl:%u", i + 1);
        OK(dataset_write(writer,
                         &(struct conversation){id, source,
                                                i % 2 && turns > 1 ? SPLIT_HELD_OUT : SPLIT_TRAIN,
                                                i, turns, turn},
                         &e));
    }
    OK(dataset_writer_end(&writer, NULL, &e));
    OK(store_publish(NULL, dir, &d, &e));
    input_add(key, d.hex);
}

/* The story model with new tokens: untrained, so what it writes says nothing, but every path is
 * walked. */
static void model_make_named(const char *key, enum template_name name, enum template_head head,
                             uint64_t seed)
{
    struct model m = {0};
    struct template_config *c = &m.steer.template_config;
    char dir[300];
    struct digest d;

    OK(model_load("models/stories260K", MODEL_ALL, &m, &e));
    m.steer.role = head == TEMPLATE_POLICY ? STEER_POLICY : STEER_ATTRIBUTE_MODEL;
    memset(c, 0, sizeof *c);
    c->name = name;
    c->head = head;
    schema_fill(&c->schema);
    c->context_tokens = 16;
    c->max_reply_tokens = 72;
    c->max_length = 256;
    OK(template_prepare(c, m.tokenizer, &e));
    model_grow_vocab(&m, tokenizer_vocab(m.tokenizer), seed);
    if (head == TEMPLATE_HEAD_REGRESSION)
        model_to_regression(&m, c->schema.attrs, seed);
    snprintf(dir, sizeof dir, "%s/model", w.dir);
    OK(model_save(&m, dir, &e));
    OK(store_publish(NULL, dir, &d, &e));
    input_add(key, d.hex);
    model_fini(&m);
}

static void model_make(const char *key, enum template_head head, uint64_t seed)
{
    model_make_named(key, TEMPLATE_CONTROL, head, seed);
}

/* tokenizer.json of the 256 bytes, as byte-level tokenizers write them, and an end token, if there is one. */
static void bytes_write(const char *dir, const char *eos)
{
    struct buf text = BUF_INIT;
    char path[400];
    unsigned moved = 256;

    buf_str(&text, "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                   "\"added_tokens\":[{\"id\":256,\"content\":\"<end>\",\"special\":true}],"
                   "\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
    for (unsigned b = 0; b < 256; b++) {
        bool shown = (b > 32 && b < 127) || (b > 160 && b != 173);
        buf_printf(&text, "%s\"\\u%04x\":%u", b > 0 ? "," : "", shown ? b : moved, b);
        moved += !shown;
    }
    buf_str(&text, "}}}");
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    OK(file_write_atomic(path, text.data, text.len, &e));
    buf_clear(&text);
    buf_printf(&text, "{\"bos_token\":null,\"eos_token\":%s}", eos);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    OK(file_write_atomic(path, text.data, text.len, &e));
    buf_free(&text);
}

/* A small plain model whose tokenizer has no BOS; eos: JSON. */
static void bare_make(struct model *m, const char *eos)
{
    const struct dims d = {.vocab = 257,
                           .width = 8,
                           .layers = 1,
                           .heads = 2,
                           .kv_heads = 2,
                           .head_dim = 4,
                           .ffn = 16,
                           .context = 64,
                           .norm_eps = 1e-5f,
                           .rope_theta = 10000.0f,
                           .tied = true};
    char dir[300];

    snprintf(dir, sizeof dir, "%s/bare", w.dir);
    OK(file_make_dirs(dir, &e));
    bytes_write(dir, eos);
    memset(m, 0, sizeof *m);
    model_init_random(m, &d, 5);
    OK(tokenizer_load(dir, &m->tokenizer, &e));
    OK(file_remove_tree(dir, &e));
}

static void bare_add(const char *key, const char *eos)
{
    struct model m;
    struct digest d;
    char dir[300];

    bare_make(&m, eos);
    snprintf(dir, sizeof dir, "%s/model", w.dir);
    OK(model_save(&m, dir, &e));
    OK(store_publish(NULL, dir, &d, &e));
    input_add(key, d.hex);
    model_fini(&m);
}

static int world_make(void **state)
{
    struct evaluate_spec *v;
    (void)state;

    memset(&w, 0, sizeof w);
    snprintf(w.dir, sizeof w.dir, "/tmp/steer-evaluate-XXXXXX");
    assert_non_null(mkdtemp(w.dir));
    w.inputs = cJSON_CreateObject();
    w.spec = spec_new();
    w.spec->kind = KIND_EVALUATE;
    spec_text_add(&spec_input_add(w.spec, "data")->refs, "stage:annotate");
    strcpy(w.spec->name, "report");
    w.spec->seed = 3;
    v = &w.spec->evaluate;
    v->models_n = 2;
    strcpy(v->model[0].ref, "stage:steer");
    strcpy(v->model[1].ref, "stage:control");
    strcpy(v->model[0].label, "steer");
    strcpy(v->model[1].label, "control");
    v->contexts = 5;
    v->levels = (struct int_list){2, {4, 0}};
    v->guidance = (struct real_list){2, {1.0, 1.5}};
    v->sampling.temperature = 0.8f;
    v->sampling.max_new_tokens = 12;
    spec_text_add(&v->rulers, "question");
    spec_text_add(&v->rulers, "words");
    strcpy(v->baseline, "tfidf");
    v->samples = 2;
    data_make("data", TURNS);
    model_make("model.steer", TEMPLATE_POLICY, 1);
    model_make("model.control", TEMPLATE_POLICY, 2);
    model_make("judge", TEMPLATE_HEAD_CLASSES, 3);
    model_make("judge", TEMPLATE_HEAD_CLASSES, 4);
    return 0;
}

static int world_end(void **state)
{
    (void)state;
    OK(file_remove_tree(w.dir, &e));
    cJSON_Delete(w.inputs);
    spec_free(w.spec);
    return 0;
}

/* ---- running --------------------------------------------------------------------------------- */

static int execute(const char *kind, uint64_t begin, uint64_t end, const cJSON *phases,
                   struct run_result *out, struct err *e)
{
    char scratch[300];
    struct buf text = BUF_INIT;
    cJSON *context = cJSON_CreateObject();
    struct run_env env = {NULL, scratch,     store_fetch, store_publish,
                          NULL, stop_wanted, &w.beats,    NULL};
    int rc;

    snprintf(scratch, sizeof scratch, "%s/scratch", w.dir);
    assert_int_equal(mkdir(scratch, 0755), 0);
    cJSON_AddItemToObject(context, "spec", spec_to_json(w.spec));
    cJSON_AddItemToObject(context, "inputs", cJSON_Duplicate(w.inputs, true));
    cJSON_AddItemToObject(context, "phases", cJSON_Duplicate(phases, true));
    json_canonical(context, &text);
    rc = run_task_execute(kind, 0, begin, end, text.data, text.len, &env, out, e);
    file_remove_tree(scratch, NULL);
    cJSON_Delete(context);
    buf_free(&text);
    return rc;
}

static cJSON *phase_of(cJSON *phases, const char *name)
{
    cJSON *p = cJSON_GetObjectItem(phases, name);

    if (p == NULL) {
        p = cJSON_AddObjectToObject(phases, name);
        cJSON_AddArrayToObject(p, "parts");
    }
    return p;
}

static uint64_t items_run(cJSON *phases)
{
    struct run_result r;
    uint64_t rows;

    OK(execute("evaluate.items", 0, 0, phases, &r, &e));
    rows = (uint64_t)json_int_or(r.metrics, "rows", 0);
    cJSON_AddItemToObject(phase_of(phases, "evaluate.items"), "outputs",
                          cJSON_Duplicate(r.outputs, true));
    run_result_fini(&r);
    return rows;
}

static void rows_run(cJSON *phases, uint64_t begin, uint64_t end, struct buf *text)
{
    struct run_result r;
    char path[512];
    const char *hex;

    OK(execute("evaluate.rows", begin, end, phases, &r, &e));
    OK(json_need_string(r.outputs, "part", &hex, &e));
    cJSON_AddItemToArray(cJSON_GetObjectItem(phase_of(phases, "evaluate.rows"), "parts"),
                         cJSON_CreateString(hex));
    snprintf(path, sizeof path, "%s/%s", w.dir, hex);
    OK(file_read(path, 64u << 20, text, &e));
    run_result_fini(&r);
}

static void test_the_whole_evaluation(void **state)
{
    cJSON *phases = cJSON_CreateObject(), *json = NULL;
    struct run_result r;
    struct buf one = BUF_INIT, again = BUF_INIT, report = BUF_INIT;
    uint64_t rows = items_run(phases);
    const char *hex;
    char path[512];
    double gap;
    (void)state;

    /* a model: 5 contexts x (1 + 2 guidance x 2 attributes x 2 levels), and 8 talks x 3 kept turns
     */
    assert_int_equal(rows, 2 * (5 * 9 + 24));
    rows_run(phases, 0, 50, &one);
    rows_run(phases, 50, rows, &again);
    buf_clear(&again);
    cJSON *other = cJSON_Duplicate(phases, true);
    rows_run(other, 0, 50, &again);
    assert_string_equal(one.data, again.data); /* a rerun gives the same bytes */
    cJSON_Delete(other);

    OK(execute("evaluate.reduce", 0, 0, phases, &r, &e));
    assert_true(w.beats > 0);
    OK(json_need_string(r.outputs, "report", &hex, &e));
    snprintf(path, sizeof path, "%s/%s/report.json", w.dir, hex);
    OK(file_read(path, 64u << 20, &report, &e));
    OK(json_parse(report.data, report.len, JSON_LIMITS_FILE, &json, &e));
    assert_int_equal(cJSON_GetArraySize(json_get(json, "steering")), 2 * 2 * 2);
    assert_int_equal(cJSON_GetArraySize(json_get(json, "attribute_model")), 1);
    assert_true(cJSON_GetArraySize(json_get(json, "samples")) ==
                2 * (5 + 2)); /* the control shows its highest levels only */
    OK(json_need_number(r.metrics, "gap.steer", &gap, &e));
    assert_true(fabs(gap) < 1.0);
    OK(json_need_number(r.metrics, "effect.control.g1.5.curious.am_curious", &gap, &e));
    OK(json_need_number(r.metrics, "am.mood.kappa", &gap,
                        &e)); /* the made-up annotation asks rightly */
    assert_true(gap > 0.9);
    OK(json_need_number(r.metrics, "tfidf.mood.accuracy", &gap, &e));
    snprintf(path, sizeof path, "%s/%s/steering-g1.5.svg", w.dir, hex);
    assert_true(file_exists(path));
    cJSON_Delete(json);
    run_result_fini(&r);
    cJSON_Delete(phases);
    buf_free(&one);
    buf_free(&again);
    buf_free(&report);
}

static void test_from_nothing_with_rulers_only(void **state)
{
    cJSON *phases = cJSON_CreateObject(), *keep = w.inputs, *json = NULL;
    struct buf text = BUF_INIT, report = BUF_INIT;
    struct run_result r;
    const char *hex;
    char path[512];
    uint64_t rows;
    (void)state;

    w.inputs = cJSON_CreateObject();
    cJSON_AddItemToObject(w.inputs, "model.steer",
                          cJSON_Duplicate(cJSON_GetObjectItem(keep, "model.steer"), true));
    data_make("data", 1);
    model_make("base", TEMPLATE_POLICY, 9);
    w.spec->evaluate.models_n = 1;
    rows = items_run(phases);
    assert_int_equal(rows, 5 * 9);
    rows_run(phases, 0, rows, &text);
    OK(execute("evaluate.reduce", 0, 0, phases, &r, &e));
    assert_null(json_get(r.metrics, "gap.steer"));
    assert_non_null(json_get(r.metrics, "spearman.steer.g1.verbosity.words"));
    OK(json_need_string(r.outputs, "report", &hex, &e));
    snprintf(path, sizeof path, "%s/%s/report.json", w.dir, hex);
    OK(file_read(path, 64u << 20, &report, &e));
    OK(json_parse(report.data, report.len, JSON_LIMITS_FILE, &json, &e));
    assert_true(cJSON_IsNumber(
        json_get(cJSON_GetArrayItem(json_get(json, "unconditioned"), 0), "base_nll_per_token")));
    cJSON_Delete(json);
    run_result_fini(&r);
    cJSON_Delete(phases);
    cJSON_Delete(w.inputs);
    w.inputs = keep;
    w.spec->evaluate.models_n = 2;
    buf_free(&text);
    buf_free(&report);
}

static void test_a_judge_that_answers_in_text(void **state)
{
    cJSON *phases = cJSON_CreateObject(), *keep = cJSON_DetachItemFromObject(w.inputs, "judge");
    struct buf text = BUF_INIT;
    (void)state;

    model_make("judge", TEMPLATE_HEAD_LM, 6);
    (void)items_run(phases);
    rows_run(phases, 0, 12, &text);
    assert_non_null(strstr(text.data, "\"v\":["));
    cJSON_DeleteItemFromObject(w.inputs, "judge");
    cJSON_AddItemToObject(w.inputs, "judge", keep);
    cJSON_Delete(phases);
    buf_free(&text);
}

static void refused(const char *kind, uint64_t begin, uint64_t end, const cJSON *phases, int code,
                    const char *what)
{
    struct run_result r;
    struct err e = {0};
    int rc = execute(kind, begin, end, phases, &r, &e);

    if (rc != code || strstr(e.msg, what) == NULL)
        fail_msg("%d: \"%s\", expected %d: \"%s\"", rc, e.msg, code, what);
}

/* Tokens of "abba", standing behind nothing, that are scored. */
static size_t bare_scored(const char *eos, bool whole)
{
    const struct conversation nothing = {.id = "nothing", .source = ""};
    struct evaluate_tail *tail = calloc(1, sizeof *tail);
    struct template_config c;
    struct model m;
    int8_t none[SCHEMA_ATTRS_MAX];
    size_t scored;

    memset(none, -1, sizeof none);
    bare_make(&m, eos);
    c = evaluate_reading(&m, 0);
    OK(evaluate_tail_of(&c, m.tokenizer, &nothing, 0, "abba", 4, whole, none, tail, &e));
    for (size_t i = 0; i < tail->tail.n; i++)
        assert_in_range(tail->tail.v[i], 0, 256);
    evaluate_losses(&m, tail, 1, NULL);
    scored = tail->scored;
    assert_true(isfinite(tail->nll) && tail->nll > 0.0);
    evaluate_tails_free(tail, 1);
    model_fini(&m);
    return scored;
}

static void test_the_first_token_behind_nothing_is_not_scored(void **state)
{
    (void)state;
    assert_int_equal(bare_scored("\"<end>\"", true), 4); /* b, b, a, end */
    assert_int_equal(bare_scored("\"<end>\"", false), 3);
    assert_int_equal(bare_scored("null", true), 3);
    assert_int_equal(bare_scored("null", false), 3);
}

/* A reply that fills the context has no end token to leave out. */
static void test_a_cut_reply_keeps_its_last_token(void **state)
{
    const struct conversation nothing = {.id = "nothing", .source = ""};
    struct evaluate_tail *tail = calloc(2, sizeof *tail);
    struct template_config c;
    struct model m;
    char text[100];
    int8_t none[SCHEMA_ATTRS_MAX];

    (void)state;
    memset(none, -1, sizeof none);
    memset(text, 'a', sizeof text);
    bare_make(&m, "\"<end>\"");
    c = evaluate_reading(&m, 0);
    for (int whole = 0; whole < 2; whole++)
        OK(evaluate_tail_of(&c, m.tokenizer, &nothing, 0, text, sizeof text, whole, none,
                            &tail[whole], &e));
    assert_int_equal(tail[0].prompt.n + tail[0].tail.n, 62); /* room for BOS and end is left */
    assert_int_equal(tail[1].tail.n, tail[0].tail.n);
    evaluate_tails_free(tail, 2);
    model_fini(&m);
}

static void test_models_without_bos_are_no_reason_to_abort(void **state)
{
    cJSON *phases = cJSON_CreateObject(), *keep = w.inputs;
    struct buf text = BUF_INIT;
    struct run_result r;
    struct err e = {0};
    (void)state;

    w.inputs = cJSON_CreateObject();
    cJSON_AddItemToObject(w.inputs, "model.steer",
                          cJSON_Duplicate(cJSON_GetObjectItem(keep, "model.steer"), true));
    data_make("data", 1);
    bare_add("base", "null");
    w.spec->evaluate.models_n = 1;
    (void)items_run(phases);
    rows_run(phases, 0, 5, &text);
    assert_non_null(strstr(text.data, "\"bnll\":"));
    cJSON_DeleteItemFromObject(w.inputs, "model.steer");
    bare_add("model.steer", "\"<end>\"");
    assert_int_equal(execute("evaluate.rows", 0, 5, phases, &r, &e), ERR_INVALID);
    assert_non_null(
        strstr(e.msg, "model steer: item 0: an empty prompt: the tokenizer has no BOS"));
    cJSON_Delete(phases);
    cJSON_Delete(w.inputs);
    w.inputs = keep;
    w.spec->evaluate.models_n = 2;
    buf_free(&text);
}

static void test_what_does_not_fit_is_named(void **state)
{
    cJSON *phases = cJSON_CreateObject(), *keep, *swap;
    struct evaluate_spec *v = &w.spec->evaluate;
    uint64_t rows;
    (void)state;

    v->levels = (struct int_list){2, {0, 5}};
    refused("evaluate.items", 0, 0, phases, ERR_INVALID, "attribute curious has 0..4");
    v->levels = (struct int_list){2, {0, 4}};
    strcpy(v->rulers.v[0], "questoin");
    refused("evaluate.items", 0, 0, phases, ERR_INVALID, "ruler \"questoin\"");
    strcpy(v->rulers.v[0], "question");
    v->guidance.n = 9;
    for (int g = 0; g < 9; g++)
        v->guidance.v[g] = 1.0 + g;
    refused("evaluate.items", 0, 0, phases, ERR_LIMIT, "evaluate.guidance has 9");
    v->guidance.n = 1;
    keep = cJSON_DetachItemFromObject(w.inputs, "judge");
    swap = cJSON_Duplicate(cJSON_GetObjectItem(w.inputs, "model.steer"), true);
    cJSON_AddItemToObject(w.inputs, "judge", swap);
    refused("evaluate.items", 0, 0, phases, ERR_INVALID, "no attribute model");
    cJSON_DeleteItemFromObject(w.inputs, "judge");
    cJSON_AddItemToObject(w.inputs, "judge", keep);
    rows = items_run(phases);
    refused("evaluate.rows", 0, rows + 1, phases, ERR_INVALID, "items");
    keep = cJSON_DetachItemFromObject(w.inputs, "model.steer");
    cJSON_AddItemToObject(w.inputs, "model.steer",
                          cJSON_Duplicate(cJSON_GetObjectItem(w.inputs, "judge"), true));
    refused("evaluate.rows", 0, 4, phases, ERR_INVALID, "model steer: is an attribute model");
    cJSON_DeleteItemFromObject(w.inputs, "model.steer");
    refused("evaluate.rows", 0, 4, phases, ERR_INVALID, "model.steer");
    cJSON_AddItemToObject(w.inputs, "model.steer", keep);
    keep = cJSON_DetachItemFromObject(w.inputs, "base");
    model_make("base", TEMPLATE_HEAD_REGRESSION, 8);
    refused("evaluate.rows", 0, 1, phases, ERR_INVALID, "input base is a regression model");
    cJSON_DeleteItemFromObject(w.inputs, "base");
    if (keep != NULL)
        cJSON_AddItemToObject(w.inputs, "base", keep);
    w.cancel = true;
    refused("evaluate.rows", 0, rows, phases, ERR_CANCELLED, "stop");
    w.cancel = false;
    cJSON_Delete(phases);
}

/* Losses of a line, said again here: own attributes and none, over the line's own number of tokens. */
static void loss_check(const cJSON *line, const struct model *m, const struct dataset *held)
{
    struct template_config c = evaluate_reading(m, 0);
    struct evaluate_tail *tail = calloc(2, sizeof *tail);
    int8_t none[SCHEMA_ATTRS_MAX];
    size_t conversation, tokens = (size_t)json_int_or(line, "k", 0);
    uint32_t turn;

    memset(none, -1, sizeof none);
    dataset_response(held, (size_t)json_int_or(line, "r", -1), &conversation, &turn);
    for (int k = 0; k < 2; k++)
        OK(evaluate_tail_of(&c, m->tokenizer, &held->conversation[conversation], turn, NULL, 0,
                            true, k == 0 ? NULL : none, &tail[k], &e));
    assert_true(evaluate_tail_room(&tail[0], (size_t)m->dims.context) !=
                evaluate_tail_room(&tail[1], (size_t)m->dims.context));
    assert_true(tokens > 0);
    for (int k = 0; k < 2; k++) {
        assert_true(tokens <= evaluate_tail_room(&tail[k], (size_t)m->dims.context));
        tail[k].tail.n = tokens;
    }
    evaluate_losses(m, tail, 2, NULL);
    assert_true(fabs(tail[0].nll - json_number_or(line, "t", 0.0)) < 1e-4 * tail[0].nll);
    assert_true(fabs(tail[1].nll - json_number_or(line, "x", 0.0)) < 1e-4 * tail[1].nll);
    evaluate_tails_free(tail, 2);
}

/* Their labels take other room, so that they are cut at other places. */
static void test_losses_of_cut_replies_are_of_the_same_tokens(void **state)
{
    cJSON *phases = cJSON_CreateObject(), *keep = w.inputs;
    struct buf text = BUF_INIT, tale = BUF_INIT;
    struct model m = {0};
    struct dataset held = {0};
    const char *hex;
    char path[512], *line, *rest;
    int losses = 0;
    (void)state;

    for (int i = 0; i < 100; i++)
        buf_str(&tale, "The cat sat on the mat. ");
    w.inputs = cJSON_CreateObject();
    w.tale = tale.data;
    data_make("data", 1 + 1);
    model_make_named("model.steer", TEMPLATE_NEMO, TEMPLATE_POLICY, 1);
    w.spec->evaluate.models_n = 1;
    w.spec->evaluate.contexts = 1;
    w.spec->evaluate.loss_rows = 2;
    rows_run(phases, 0, items_run(phases), &text);
    OK(json_need_string(json_get(json_get(phases, "evaluate.items"), "outputs"), "held", &hex, &e));
    snprintf(path, sizeof path, "%s/%s", w.dir, hex);
    OK(dataset_load(path, &held, &e));
    snprintf(path, sizeof path, "%s/%s", w.dir,
             cJSON_GetArrayItem(json_get(w.inputs, "model.steer"), 0)->valuestring);
    OK(model_load(path, MODEL_ALL, &m, &e));
    for (line = strtok_r(text.data, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        cJSON *j = NULL;
        OK(json_parse(line, strlen(line), JSON_LIMITS_LINE, &j, &e));
        if (json_get(j, "t") != NULL) {
            loss_check(j, &m, &held);
            losses++;
        }
        cJSON_Delete(j);
    }
    assert_int_equal(losses, 2);
    model_fini(&m);
    dataset_free(&held);
    cJSON_Delete(phases);
    cJSON_Delete(w.inputs);
    w.inputs = keep;
    w.tale = NULL;
    w.spec->evaluate.models_n = 2;
    w.spec->evaluate.contexts = 5;
    w.spec->evaluate.loss_rows = 0;
    buf_free(&text);
    buf_free(&tale);
}

/* Replaces the only part of the rows by this text. */
static void part_set(cJSON *phases, const char *text, size_t len)
{
    cJSON *parts = cJSON_GetObjectItem(phase_of(phases, "evaluate.rows"), "parts");
    char path[300];
    struct digest d;

    snprintf(path, sizeof path, "%s/changed", w.dir);
    OK(file_write_atomic(path, text, len, &e));
    OK(store_publish(NULL, path, &d, &e));
    cJSON_DeleteItemFromArray(parts, 0);
    cJSON_AddItemToArray(parts, cJSON_CreateString(d.hex));
}

static size_t line_len(const char *text)
{
    return (size_t)(strchr(text, '\n') - text) + 1;
}

static void test_rows_must_be_the_items_one_by_one(void **state)
{
    cJSON *phases = cJSON_CreateObject(), *keep = w.inputs;
    struct buf text = BUF_INIT, bad = BUF_INIT;
    size_t first, second, last;
    uint64_t rows;
    char *at;
    (void)state;

    w.inputs = cJSON_CreateObject();
    cJSON_AddItemToObject(w.inputs, "model.steer",
                          cJSON_Duplicate(cJSON_GetObjectItem(keep, "model.steer"), true));
    data_make("data", TURNS);
    w.spec->evaluate.models_n = 1;
    w.spec->evaluate.contexts = 2;
    rows = items_run(phases);
    rows_run(phases, 0, rows, &text);
    first = line_len(text.data);
    second = line_len(text.data + first);
    for (last = text.len - 1; text.data[last - 1] != '\n'; last--)
        ;

    buf_add(&bad, text.data, first); /* the first one twice */
    buf_add(&bad, text.data, text.len);
    part_set(phases, bad.data, bad.len);
    refused("evaluate.reduce", 0, 0, phases, ERR_CORRUPT, "line 2: ");
    refused("evaluate.reduce", 0, 0, phases, ERR_CORRUPT, "item 1 ");

    buf_clear(&bad); /* the first one in place of the second */
    buf_add(&bad, text.data, first);
    buf_add(&bad, text.data, first);
    buf_add(&bad, text.data + first + second, text.len - first - second);
    part_set(phases, bad.data, bad.len);
    refused("evaluate.reduce", 0, 0, phases, ERR_CORRUPT, "part 0 of phase evaluate.rows: line 2");

    part_set(phases, text.data, last);
    refused("evaluate.reduce", 0, 0, phases, ERR_CORRUPT, "there are more items");

    buf_clear(&bad);
    buf_add(&bad, text.data, text.len);
    buf_add(&bad, text.data + last, text.len - last);
    part_set(phases, bad.data, bad.len);
    refused("evaluate.reduce", 0, 0, phases, ERR_CORRUPT, "one more than the");

    at = strstr(text.data, "\"c\":1"); /* a number that is not the item's */
    assert_non_null(at);
    at[4] = '7';
    part_set(phases, text.data, text.len);
    refused("evaluate.reduce", 0, 0, phases, ERR_CORRUPT, "\"c\" is 7, item ");

    cJSON_Delete(phases);
    cJSON_Delete(w.inputs);
    w.inputs = keep;
    w.spec->evaluate.models_n = 2;
    w.spec->evaluate.contexts = 5;
    buf_free(&text);
    buf_free(&bad);
}

static void test_levels_of_those_not_under_test(void **state)
{
    struct schema s;
    struct results *r = calloc(1, sizeof *r);
    int8_t level[SCHEMA_ATTRS_MAX];
    (void)state;

    schema_fill(&s);
    r->attrs = 2;
    r->computed[1] = true;
    r->levels = 2;
    r->level[1] = 4;
    strcpy(r->others, "missing");
    evaluate_levels(&s, r, 0, 1, level);
    assert_int_equal(level[0], 4);
    assert_int_equal(level[1], 2); /* length stays in the middle */
    evaluate_levels(&s, r, 1, 0, level);
    assert_int_equal(level[0], -1);
    assert_int_equal(level[1], 0);
    strcpy(r->others, "middle");
    evaluate_levels(&s, r, 1, 1, level);
    assert_int_equal(level[0], 2);
    evaluate_levels(&s, r, -1, 0, level);
    assert_int_equal(level[1], -1);
    free(r);
}

static void test_models_are_put_in_order(void **state)
{
    static const char *const label[] = {"boot",  "control", "control-2",
                                        "human", "steer",   "steer-2"};
    static const char *const want[] = {"steer", "steer-2", "control", "control-2", "boot", "human"};
    struct spec *s = spec_new();
    struct run_task t = {.spec = s};
    struct schema schema;
    struct results *r = calloc(1, sizeof *r);
    (void)state;

    schema_fill(&schema);
    s->evaluate.models_n = 6;
    for (int i = 0; i < 6; i++)
        strcpy(s->evaluate.model[i].label, label[i]);
    OK(evaluate_design(&t, &schema, NULL, r, &e));
    for (int i = 0; i < 6; i++)
        assert_string_equal(r->model[i], want[i]);
    strcpy(s->evaluate.model[4].label, "tuned");
    memset(r, 0, sizeof *r);
    OK(evaluate_design(&t, &schema, NULL, r, &e));
    assert_string_equal(r->model[0], "boot"); /* no steer: the first that is no control */
    assert_string_equal(r->model[1], "control");
    free(r);
    spec_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_whole_evaluation),
        cmocka_unit_test(test_from_nothing_with_rulers_only),
        cmocka_unit_test(test_a_judge_that_answers_in_text),
        cmocka_unit_test(test_the_first_token_behind_nothing_is_not_scored),
        cmocka_unit_test(test_a_cut_reply_keeps_its_last_token),
        cmocka_unit_test(test_models_without_bos_are_no_reason_to_abort),
        cmocka_unit_test(test_losses_of_cut_replies_are_of_the_same_tokens),
        cmocka_unit_test(test_rows_must_be_the_items_one_by_one),
        cmocka_unit_test(test_what_does_not_fit_is_named),
        cmocka_unit_test(test_levels_of_those_not_under_test),
        cmocka_unit_test(test_models_are_put_in_order),
    };
    return cmocka_run_group_tests(tests, world_make, world_end);
}
