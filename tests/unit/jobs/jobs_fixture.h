/* A world for tasks: a store in a temporary directory, an environment that runs them, and the
 * phases of a stage as they finish. */
#ifndef TESTS_UNIT_JOBS_JOBS_FIXTURE_H
#define TESTS_UNIT_JOBS_JOBS_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/rng.h"
#include "data/dataset.h"
#include "jobs/run.h"
#include "modelfile/modeldir.h"
#include "store/blob.h"

struct world {
    char dir[64];
    char scratch[96];
    struct blob_store *store;
    struct run_env env;
    uint64_t heartbeat;
    bool cancel;
    cJSON *inputs, *phases;
    struct err e; /* of the last task that failed */
};

static inline int world_fetch(void *self, const char *digest, char *path, size_t cap, struct err *e)
{
    struct world *w = self;
    struct buf text = BUF_INIT;
    int rc = blob_read(w->store, digest, 64u << 20, &text, e);

    if (rc == 0 && blob_text_is_tree(text.data, text.len)) {
        snprintf(path, cap, "%s/trees/%s", w->dir, digest);
        if (!file_is_dir(path))
            rc = blob_tree_checkout(w->store, digest, path, e);
    } else if (rc == 0) {
        blob_path(w->store, digest, path, cap);
    }
    buf_free(&text);
    return rc;
}

static inline int world_publish(void *self, const char *path, struct digest *out, struct err *e)
{
    struct world *w = self;

    return file_is_dir(path) ? blob_put_tree(w->store, path, out, e)
                             : blob_put_file(w->store, path, out, e);
}

static inline bool world_cancelled(void *self)
{
    return ((struct world *)self)->cancel;
}

static inline void world_progress(void *self, uint64_t done, uint64_t total)
{
    (void)self;
    assert_true(done <= total);
}

static inline struct world *world_new(void)
{
    struct world *w = mem_zalloc(1, sizeof(*w));
    char *path;

    snprintf(w->dir, sizeof(w->dir), "/tmp/steer-jobs-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    path = mem_printf("%s/blobs", w->dir);
    assert_int_equal(blob_open(path, &w->store, NULL), 0);
    free(path);
    path = mem_printf("%s/trees", w->dir);
    assert_int_equal(file_make_dirs(path, NULL), 0);
    free(path);
    snprintf(w->scratch, sizeof(w->scratch), "%s/scratch", w->dir);
    w->env = (struct run_env){
        w,   w->scratch, world_fetch, world_publish, world_progress, world_cancelled, &w->heartbeat,
        NULL};
    w->inputs = cJSON_CreateObject();
    w->phases = cJSON_CreateObject();
    return w;
}

static inline void world_free(struct world *w)
{
    blob_close(w->store);
    file_remove_tree(w->dir, NULL);
    cJSON_Delete(w->inputs);
    cJSON_Delete(w->phases);
    free(w);
}

/* Adds a directory or file to inputs.key. */
static inline void world_input(struct world *w, const char *key, const char *path)
{
    struct digest d;
    cJSON *list = cJSON_GetObjectItemCaseSensitive(w->inputs, key);

    if (world_publish(w, path, &d, &w->e) != 0)
        fail_msg("%s", w->e.msg);
    if (list == NULL)
        list = cJSON_AddArrayToObject(w->inputs, key);
    cJSON_AddItemToArray(list, cJSON_CreateString(d.hex));
}

/* Runs one task; 0 or the error, which stays in w->e. */
static inline int world_task(struct world *w, const struct spec *s, const char *kind,
                             uint32_t index, uint64_t begin, uint64_t end, struct run_result *r)
{
    cJSON *context = cJSON_CreateObject();
    char *text;
    int rc;

    cJSON_AddItemToObject(context, "spec", spec_to_json(s));
    cJSON_AddItemToObject(context, "inputs", cJSON_Duplicate(w->inputs, true));
    cJSON_AddItemToObject(context, "phases", cJSON_Duplicate(w->phases, true));
    text = cJSON_PrintUnformatted(context);
    assert_int_equal(file_remove_tree(w->scratch, NULL), 0);
    assert_int_equal(file_make_dirs(w->scratch, NULL), 0);
    err_clear(&w->e);
    rc = run_task_execute(kind, index, begin, end, text, strlen(text), &w->env, r, &w->e);
    free(text);
    cJSON_Delete(context);
    return rc;
}

/* The task fails with this code, and its message has these words. */
static inline void world_fails(struct world *w, const struct spec *s, const char *kind,
                               uint64_t begin, uint64_t end, int code, const char *words)
{
    struct run_result r;
    int rc = world_task(w, s, kind, 0, begin, end, &r);

    if (rc != code || strstr(w->e.msg, words) == NULL)
        fail_msg("%d \"%s\" does not say \"%s\"", rc, w->e.msg, words);
}

/* Runs a phase of `rows` in ranges (0: one task) and files it under its name. Fails the test when a
 * task fails. */
static inline void world_phase(struct world *w, const struct spec *s, const char *kind,
                               uint64_t rows, uint64_t rows_per_task)
{
    cJSON *phase = cJSON_CreateObject(), *parts = cJSON_AddArrayToObject(phase, "parts");
    uint64_t tasks = rows == 0 ? 1 : (rows + rows_per_task - 1) / rows_per_task;

    for (uint64_t i = 0; i < tasks; i++) {
        struct run_result r;
        uint64_t end = rows == 0                        ? 0
                       : (i + 1) * rows_per_task < rows ? (i + 1) * rows_per_task
                                                        : rows;
        if (world_task(w, s, kind, (uint32_t)i, rows == 0 ? 0 : i * rows_per_task, end, &r) != 0)
            fail_msg("%s", w->e.msg);
        if (json_get(r.outputs, "part") != NULL)
            cJSON_AddItemToArray(parts, cJSON_Duplicate(json_get(r.outputs, "part"), true));
        if (i == 0) {
            cJSON_AddItemToObject(phase, "outputs", cJSON_Duplicate(r.outputs, true));
            cJSON_AddItemToObject(phase, "metrics", cJSON_Duplicate(r.metrics, true));
        }
        run_result_fini(&r);
    }
    cJSON_DeleteItemFromObjectCaseSensitive(w->phases, kind);
    cJSON_AddItemToObject(w->phases, kind, phase);
}

static inline double world_metric(const struct world *w, const char *phase, const char *name)
{
    return json_number_or(json_get(json_get(w->phases, phase), "metrics") != NULL
                              ? json_get(json_get(w->phases, phase), "metrics")
                              : NULL,
                          name, -1e300);
}

/* The bytes of all parts, one after the other. */
static inline char *world_parts(struct world *w, const char *phase)
{
    struct buf all = BUF_INIT;
    const cJSON *d;

    cJSON_ArrayForEach(d, json_get(json_get(w->phases, phase), "parts"))
        assert_int_equal(blob_read(w->store, d->valuestring, 64u << 20, &all, NULL), 0);
    return buf_take(&all);
}

static inline void world_output(struct world *w, const char *phase, struct dataset *out)
{
    char path[256];
    const char *digest =
        json_string_or(json_get(json_get(w->phases, phase), "outputs"), "data", "");

    if (world_fetch(w, digest, path, sizeof(path), &w->e) != 0 ||
        dataset_load(path, out, &w->e) != 0)
        fail_msg("%s", w->e.msg);
}

/* ---- models and data ------------------------------------------------------------------------- */

/* curious (a class, 3 bins), quality (a scale 0..4), verbosity (words, 3 bins). */
static inline struct schema fixture_schema(void)
{
    static const char *const classes[] = {"Neutral", "Curious", "Happy"};
    struct schema s = {.labels = 2, .attrs = 3};

    snprintf(s.label[0].name, sizeof(s.label[0].name), "sentiment");
    s.label[0].type = LABEL_CLASSES;
    s.label[0].classes = 3;
    s.label[0].other = -1;
    for (int i = 0; i < 3; i++)
        snprintf(s.label[0].class_name[i], sizeof(s.label[0].class_name[i]), "%s", classes[i]);
    snprintf(s.label[1].name, sizeof(s.label[1].name), "quality");
    s.label[1].type = LABEL_SCALE;
    s.label[1].max = 4;
    s.attr[0] = (struct attr){.name = "curious",
                              .type = ATTR_CATEGORICAL,
                              .label = 0,
                              .class_index = 1,
                              .levels = 3,
                              .binned = true,
                              .default_level = -1};
    s.attr[1] = (struct attr){.name = "quality",
                              .type = ATTR_INTEGER,
                              .label = 1,
                              .max = 4,
                              .levels = 5,
                              .default_level = -1};
    s.attr[2] = (struct attr){.name = "verbosity",
                              .type = ATTR_COMPUTED,
                              .label = -1,
                              .measure = 0,
                              .levels = 3,
                              .binned = true,
                              .default_level = -1};
    return s;
}

#define FIXTURE_CONVERSATIONS 30
#define FIXTURE_TURNS 4

/* Conversations of short sentences; every fifth is held out; texts, labels and folds are keyed. */
static inline void fixture_dataset(const char *dir, int max_reply_tokens)
{
    static const char *const word[] = {"Lily", "saw", "a",     "big", "red", "ball", "and",
                                       "she",  "was", "happy", "The", "dog", "ran"};
    struct schema s = fixture_schema();
    struct dataset_writer *w;
    struct arena a = ARENA_INIT;
    cJSON *meta = cJSON_CreateObject(), *keep = cJSON_AddObjectToObject(meta, "keep");

    cJSON_AddNumberToObject(keep, "max_reply_tokens", max_reply_tokens);
    cJSON_AddNumberToObject(keep, "context_tokens", 16);
    assert_int_equal(dataset_writer_new(dir, &s, &w, NULL), 0);
    for (uint32_t i = 0; i < FIXTURE_CONVERSATIONS; i++) {
        struct conversation c = {.source = "chat.jsonl:1",
                                 .turns = FIXTURE_TURNS,
                                 .fold = rng_at(1, RNG_TEST, i, 0, 0).v[0] >> 1};
        char id[16];
        snprintf(id, sizeof(id), "c%u", i);
        c.id = id;
        c.split = i % 5 == 4 ? SPLIT_HELD_OUT : SPLIT_TRAIN;
        c.turn = arena_alloc(&a, sizeof(*c.turn) * FIXTURE_TURNS);
        for (uint32_t k = 0; k < FIXTURE_TURNS; k++) {
            struct turn *t = &c.turn[k];
            struct buf text = BUF_INIT;
            uint32_t words = 2 + rng_below(2, RNG_TEST, i, k, 0, 22);
            for (uint32_t n = 0; n < words; n++)
                buf_printf(&text, n > 0 ? " %s" : "%s", word[rng_below(3, RNG_TEST, i, k, n, 13)]);
            buf_str(&text, k % 2 == 0 ? "." : "?");
            dataset_turn_init(t, &s, &a);
            t->role = k % 2 == 0 ? ROLE_USER : ROLE_ASSISTANT;
            t->speaker = "";
            t->text_len = (uint32_t)text.len;
            t->text = arena_text(&a, text.data, text.len);
            t->respond = true;
            t->kept = true;
            t->human[0] = i % 3 == 0 ? NAN : (float)rng_below(4, RNG_TEST, i, k, 0, 3);
            t->human[1] = (float)rng_below(4, RNG_TEST, i, k, 1, 5);
            buf_free(&text);
        }
        assert_int_equal(dataset_write(w, &c, NULL), 0);
    }
    assert_int_equal(dataset_writer_end(&w, meta, NULL), 0);
    cJSON_Delete(meta);
    arena_free(&a);
}

/* models/stories260K with new tokens for a template, untrained. A reply of it ends about as often
 * as it has a full stop. */
static inline void fixture_model_of(const char *dir, const struct schema *schema,
                                    enum template_name name, enum template_head head, uint64_t seed)
{
    struct model m;
    struct err e = {0};
    int32_t width, stop, eos;

    if (model_load("models/stories260K", MODEL_ALL, &m, &e) != 0)
        fail_msg("%s", e.msg);
    m.steer.role = head == TEMPLATE_POLICY ? STEER_POLICY : STEER_ATTRIBUTE_MODEL;
    m.steer.template_config = (struct template_config){.name = name,
                                                       .head = head,
                                                       .schema = *schema,
                                                       .context_tokens = 16,
                                                       .max_reply_tokens = 60,
                                                       .max_length = 160};
    if (template_prepare(&m.steer.template_config, m.tokenizer, &e) != 0)
        fail_msg("%s", e.msg);
    model_grow_vocab(&m, tokenizer_vocab(m.tokenizer), seed);
    width = m.dims.width;
    stop = 426; /* "." */
    eos = tokenizer_eos(m.tokenizer);
    memcpy(m.params + (size_t)eos * (size_t)width, m.params + (size_t)stop * (size_t)width,
           (size_t)width * sizeof(float));
    if (head == TEMPLATE_HEAD_REGRESSION)
        model_to_regression(&m, 3, seed);
    if (model_save(&m, dir, &e) != 0)
        fail_msg("%s", e.msg);
    model_fini(&m);
}

static inline void fixture_model_named(const char *dir, enum template_name name,
                                       enum template_head head, uint64_t seed)
{
    struct schema s = fixture_schema();

    fixture_model_of(dir, &s, name, head, seed);
}

static inline void fixture_model(const char *dir, enum template_head head, uint64_t seed)
{
    fixture_model_named(dir, head == TEMPLATE_HEAD_LM ? TEMPLATE_PLAIN : TEMPLATE_CONTROL, head,
                        seed);
}

/* keys: inputs of the spec, "data model"; what they name does not matter, tasks see digests. */
static inline struct spec *fixture_spec(enum job_kind kind, const char *keys)
{
    struct spec *s = spec_new();

    s->kind = kind;
    s->seed = 7;
    s->schema = fixture_schema();
    snprintf(s->name, sizeof(s->name), "test");
    while (*keys != '\0') {
        char key[SPEC_NAME_MAX];
        size_t n = strcspn(keys, " ");
        snprintf(key, sizeof(key), "%.*s", (int)n, keys);
        spec_text_add(&spec_input_add(s, key)->refs, "stage:before");
        keys += n + (keys[n] == ' ');
    }
    return s;
}

#endif
