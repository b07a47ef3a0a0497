/*
 * spec: a job as its author wrote it, checked and with every default filled in.
 *
 * One table of keys (spec_keys.c) drives the YAML parser, the defaults, `steerctl plan`, the JSON form, docs and completion.
 * YAML is strict: unknown or duplicate keys, anchors, aliases, tags, several documents, wrong types or ranges are refused with
 * file:line:col, the bound and "did you mean".
 */
#ifndef JOBS_SPEC_H
#define JOBS_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "data/schema.h"
#include "json/json.h"
#include "model/decode.h" /* struct sampling */
#include "model/dims.h"
#include "model/optim.h"

#define SPEC_NAME_MAX 64
#define SPEC_TEXT_MAX 256
#define SPEC_LIST_MAX 32
#define SPEC_STAGES_MAX 64
#define SPEC_DATA_MAX 8
#define SPEC_INPUTS_MAX 6
#define SPEC_YAML_MAX (64u << 10)

#define JOB_KINDS(X)                                                                               \
    X(KIND_PREPARE, "prepare") /* made by the planner for each data set; not for authors */        \
    X(KIND_TRAIN_ATTRIBUTE_MODEL, "train-attribute-model")                                         \
    X(KIND_ANNOTATE, "annotate")                                                                   \
    X(KIND_SFT, "sft")                                                                             \
    X(KIND_GENERATE, "generate")                                                                   \
    X(KIND_BOOTSTRAP, "bootstrap")                                                                 \
    X(KIND_EVALUATE, "evaluate")                                                                   \
    X(KIND_PROBE, "probe") /* tasks that do nothing: of the fleet, not of a model */               \
    X(KIND_PIPELINE, "pipeline")
enum job_kind {
#define X(name, text) name,
    JOB_KINDS(X)
#undef X
        KIND_COUNT
};
const char *job_kind_name(enum job_kind kind);

struct text_list { /* at most SPEC_LIST_MAX; as many as there are take memory */
    int n;
    char (*v)[SPEC_TEXT_MAX];
};
struct int_list {
    int n;
    int v[SPEC_LIST_MAX];
};
struct real_list {
    int n;
    double v[SPEC_LIST_MAX];
};

/* data.NAME: raw files and how to read them. */
struct data_spec {
    char name[SPEC_NAME_MAX];
    struct text_list
        files; /* paths as written; resolved to digests through struct spec inputs_resolved "file:PATH" */
    char format
        [24]; /* auto | map | helpsteer | oasst | messages | sharegpt | nemo-chat | nemo-regression | text */
    struct { /* format map: names of fields */
        char conversation
            [SPEC_NAME_MAX]; /* the list of turns, "content"; empty: one row is one prompt and response */
        char id[SPEC_NAME_MAX]; /* "conversation_id"; empty: file:line */
        char text[SPEC_NAME_MAX], speaker[SPEC_NAME_MAX];
        char prompt[SPEC_NAME_MAX], response[SPEC_NAME_MAX]; /* when conversation is empty */
        struct text_list
            respond; /* speakers whose turns are responses; empty: every turn (peers in a chat) */
        struct text_list labels; /* per-turn fields that are human labels */
    } map;
    struct {
        char by[SPEC_NAME_MAX]; /* conversation_id (the only unit) */
        double held_out;
        uint64_t seed;
    } split;
    struct text_list
        clean; /* any of: ascii_quotes, drop_non_ascii, squeeze_punctuation, collapse_spaces */
    struct {
        int max_reply_tokens; /* 0 = no bound; longer replies stay in the data but are not used */
        int context_tokens;   /* last tokens of the turns before, 0 = all that fits */
    } keep;
    int limit;           /* conversations to read at most, 0 = all: for trials */
    double problems_max; /* share of bad lines above which the job fails, with the list */
};

struct train_spec {
    uint64_t max_tokens; /* rows, no padding; 0 = not set */
    uint64_t max_steps;
    double passes;    /* one of the three is set */
    int global_batch; /* samples a step */
    int units;        /* micro-shards a step */
    int chunk_elems;
    int max_length; /* rows of one sequence; longer ones are cut by the template's rule and counted */
    int checkpoint_every_steps; /* 0 = only at the end */
    char optimizer[16];         /* adamw */
    char schedule_name[16];     /* constant | linear | cosine; the enum in schedule follows it */
    char wire[8];               /* fp32 | bf16: how gradients and parameters travel */
    bool recompute;             /* the backward computes layers again instead of keeping them */
    double lr, grad_clip;
    struct adamw adamw;
    struct schedule schedule;
};

struct condition_spec {
    char template_name[16]; /* plain | control | nemo | paper */
    char labels[16];        /* predicted | human | none */
    char loss_on[16];       /* response | all */
    double drop_each, drop_all;
    bool shuffle_labels; /* the control: levels permuted over responses */
};

struct attr_value {
    char attr[SCHEMA_NAME_MAX];
    int level; /* -1 = missing */
};
struct attr_sweep {
    char attr[SCHEMA_NAME_MAX];
    struct int_list levels;
};
enum compare { CMP_EQ, CMP_GE, CMP_LE };
struct attr_where {
    char attr[SCHEMA_NAME_MAX];
    enum compare op; /* written as 3, ">=3", "<=1" */
    int level;
};

struct decode_spec {
    char weights[8]; /* fp32 | int8 */
};

struct generate_spec {
    int attributes_n, sweep_n;
    struct attr_value attributes[SCHEMA_ATTRS_MAX];
    struct attr_sweep sweep[SCHEMA_ATTRS_MAX];
    struct sampling sampling;
    struct decode_spec decode;
    struct text_list stop;
    int n;          /* samples per prompt and setting */
    int prompts;    /* how many prompts (contexts) of the data to use; 0 = all */
    char split[16]; /* train | held_out | all */
    char cut
        [16]; /* none | sentence: end each reply at a sentence end drawn at random, so that lengths differ */
    int from_nothing; /* without a prompts input: this many samples from BOS alone */
    int rows_per_task;
};

struct annotate_spec {
    int rows_per_task; /* conversations a range */
};

struct bootstrap_spec {
    int where_n, keep_n;
    struct attr_where
        where[SCHEMA_ATTRS_MAX]; /* which label combinations seen in the data are wanted */
    struct attr_where keep[SCHEMA_ATTRS_MAX]; /* on the labels predicted for the samples */
    int samples_per_prompt, prompts;
    bool dedupe;
    struct sampling sampling;
    struct decode_spec decode;
    int rows_per_task;
};

struct probe_spec {
    int tasks;
    int sleep_ms; /* of each task */
};

struct gate { /* a bound on a metric */
    char metric[SPEC_TEXT_MAX];
    bool has_min, has_max;
    double min, max;
};

#define EVALUATE_GUIDANCES_MAX 8
struct evaluate_model {
    char label[SPEC_NAME_MAX];
    char ref[SPEC_TEXT_MAX]; /* "stage:steer" */
};
struct evaluate_spec {
    int models_n;
    struct evaluate_model model
        [16]; /* "steer" (else the first that is no control) is the one under test; "control" is its control; "steer-2" is another seed */
    int contexts;
    struct int_list levels;
    char others
        [16]; /* missing (computed ones: middle) | all_missing | middle: what the attributes not under test are set to */
    struct real_list guidance; /* 1..EVALUATE_GUIDANCES_MAX of them */
    struct sampling sampling; /* guidance in it is not used */
    struct decode_spec decode;
    struct text_list rulers;
    char baseline[16]; /* none | tfidf */
    int loss_rows;     /* held-out responses for the loss gap; 0 = all */
    int samples;       /* side-by-side sample replies in the report */
    int rows_per_task;
    int figures_n; /* what the author promises of the metrics; 0: the report's own choice */
    struct gate figure[SPEC_LIST_MAX];
};

struct input_ref {
    char key[SPEC_NAME_MAX]; /* base | train | model | data | judge | prompts */
    struct text_list
        refs; /* file:PATH, data:NAME, stage:NAME[/outputs.OUT], sha256:HEX, job:ID[/outputs.OUT] */
};

struct spec;
struct stage {
    char name[SPEC_NAME_MAX];
    struct text_list needs; /* stages; inputs "stage:X" and data "data:X" imply it */
    int gates_n;
    struct gate gate[8]; /* on this stage's own metrics, before those that need it may start */
    struct spec
        *spec; /* full spec of the stage's kind: schema, data, seed come down from the pipeline */
};

struct spec {
    enum job_kind kind;
    char name[SPEC_NAME_MAX], project[SPEC_NAME_MAX];
    uint64_t seed;
    struct schema schema;
    int data_n; /* at most SPEC_DATA_MAX */
    struct data_spec *data;
    int inputs_n; /* at most SPEC_INPUTS_MAX, one a key */
    struct input_ref *input;
    char head[16]; /* train-attribute-model: lm | classes | regression */
    int cross_fit; /* 1 = off */
    bool has_init; /* base: {init: {...}} */
    struct dims init;
    char tokenizer[SPEC_TEXT_MAX]; /* for init: file:PATH or synthetic (then init.vocab ids) */
    struct train_spec train;
    struct condition_spec condition;
    struct annotate_spec annotate;
    struct generate_spec generate;
    struct bootstrap_spec bootstrap;
    struct evaluate_spec evaluate;
    struct probe_spec probe;
    int stages_n;
    struct stage *stage[SPEC_STAGES_MAX]; /* KIND_PIPELINE */
    int max_parallel;
    bool reuse_verified;
    double audit; /* share of gradients and row ranges that two workers must agree about, 0..1 */
    char numerics[8];        /* "strict": one numerics class for the whole job; "any"; "bf16" */
    bool finish_independent; /* on_failure */
};

struct spec *spec_new(void); /* defaults of no kind in particular */
void spec_free(struct spec *s);
/* Building by hand. Each gives its new last element (of a list: all zero), or NULL when it is full. */
char *spec_text_add(struct text_list *l, const char *text);
struct data_spec *spec_data_add(struct spec *s);
void spec_data_clear(struct spec *s);
struct input_ref *spec_input_add(struct spec *s, const char *key);
void spec_data_copy(struct data_spec *to, const struct data_spec *from); /* to: all zero */

/* Problems of a spec, each with its place, all of them, not only the first. */
struct spec_problem {
    int line, column;  /* 1-based; 0 = whole file */
    char pointer[160]; /* "/stages/2/train/lr" */
    char code
        [32]; /* unknown_key, duplicate_key, wrong_type, out_of_range, missing, bad_reference, ... */
    char text[400]; /* thing, value, bound, suggestion */
};
struct spec_problems {
    int n, cap;
    struct spec_problem *v;
};
void spec_problems_free(struct spec_problems *p);

/* sets: "train.lr=1e-3" strings applied before checking (steerctl submit --set). read_file: inlines stages that name spec files; NULL refuses them. */
typedef int (*spec_read_file)(void *self, const char *path, struct buf *out, struct err *e);
int spec_parse(const char *yaml, size_t len, const char *const *sets, int sets_n,
               spec_read_file read_file, void *self, struct spec **out,
               struct spec_problems *problems, struct err *e);
/* The resolved form: JSON with every key and default, canonical; and back (trusted: written by spec_to_json). */
cJSON *spec_to_json(const struct spec *s);
int spec_from_json(const cJSON *j, struct spec **out, struct err *e);
/* Does it train with products of bfloat16? Of a pipeline: its stages say it, each of its own. */
bool spec_trains_bf16(const struct spec *s);
const struct input_ref *spec_input(const struct spec *s, const char *key); /* NULL if absent */
const struct data_spec *spec_data(const struct spec *s, const char *name);

#endif
