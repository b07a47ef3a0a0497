/*
 * evaluate_fixture: a world for the three phases of an evaluation, end to end in one process: a small real model with untrained
 * control tokens and a data set made here; artefacts are directories named by a counter.
 */
#ifndef TESTS_EVALUATE_FIXTURE_H
#define TESTS_EVALUATE_FIXTURE_H

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

static inline int store_fetch(void *self, const char *digest, char *path, size_t cap, struct err *e)
{
    (void)self;
    snprintf(path, cap, "%s/%s", w.dir, digest);
    return file_exists(path) || file_is_dir(path) ? 0 : err_set(e, ERR_NOT_FOUND, "%s", digest);
}

static inline int store_publish(void *self, const char *path, struct digest *out, struct err *e)
{
    char to[512];

    (void)self;
    snprintf(out->hex, sizeof out->hex, HEX, ++w.stored);
    snprintf(to, sizeof to, "%s/%s", w.dir, out->hex);
    return rename(path, to) == 0 ? 0 : err_sys(e, "rename");
}

static inline bool stop_wanted(void *self)
{
    (void)self;
    return w.cancel;
}

static inline void input_add(const char *key, const char *hex)
{
    cJSON *list = cJSON_GetObjectItem(w.inputs, key);

    if (list == NULL)
        list = cJSON_AddArrayToObject(w.inputs, key);
    cJSON_AddItemToArray(list, cJSON_CreateString(hex));
}

/* ---- data and models ------------------------------------------------------------------------- */

static inline void schema_fill(struct schema *s)
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
static inline void data_make(const char *key, uint32_t turns)
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
static inline void model_make_named(const char *key, enum template_name name, enum template_head head,
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

static inline void model_make(const char *key, enum template_head head, uint64_t seed)
{
    model_make_named(key, TEMPLATE_CONTROL, head, seed);
}

/* tokenizer.json of the 256 bytes, as byte-level tokenizers write them, and an end token, if there is one. */
static inline void bytes_write(const char *dir, const char *eos)
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
static inline void bare_make(struct model *m, const char *eos)
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

static inline void bare_add(const char *key, const char *eos)
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

static inline int world_make(void **state)
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

static inline int world_end(void **state)
{
    (void)state;
    OK(file_remove_tree(w.dir, &e));
    cJSON_Delete(w.inputs);
    spec_free(w.spec);
    return 0;
}

/* ---- running --------------------------------------------------------------------------------- */

static inline int execute(const char *kind, uint64_t begin, uint64_t end, const cJSON *phases,
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

static inline cJSON *phase_of(cJSON *phases, const char *name)
{
    cJSON *p = cJSON_GetObjectItem(phases, name);

    if (p == NULL) {
        p = cJSON_AddObjectToObject(phases, name);
        cJSON_AddArrayToObject(p, "parts");
    }
    return p;
}

static inline uint64_t items_run(cJSON *phases)
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

static inline void rows_run(cJSON *phases, uint64_t begin, uint64_t end, struct buf *text)
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

static inline void refused(const char *kind, uint64_t begin, uint64_t end, const cJSON *phases, int code,
                    const char *what)
{
    struct run_result r;
    struct err e = {0};
    int rc = execute(kind, begin, end, phases, &r, &e);

    if (rc != code || strstr(e.msg, what) == NULL)
        fail_msg("%d: \"%s\", expected %d: \"%s\"", rc, e.msg, code, what);
}

#endif
