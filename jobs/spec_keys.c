#include "jobs/spec_keys.h"

#define AT(type, member) offsetof(struct type, member), sizeof(((struct type *)0)->member)
#define TRAINS (KIND_BIT(KIND_TRAIN_ATTRIBUTE_MODEL) | KIND_BIT(KIND_SFT))
#define STEPPED (TRAINS | KIND_BIT(KIND_PIPELINE))
#define INNER 0

/* Shorthands: a row is name, type, place, min, max, choices, table, custom, kinds, doc. */
#define TEXT(n, t, m, doc)                                                                         \
    {                                                                                              \
        n, KEY_TEXT, AT(t, m), 0, 0, NULL, NULL, NULL, INNER, doc                                  \
    }
#define CHOICE(n, t, m, c, doc)                                                                    \
    {                                                                                              \
        n, KEY_CHOICE, AT(t, m), 0, 0, c, NULL, NULL, INNER, doc                                   \
    }
#define NUMBER(n, kt, t, m, lo, hi, doc)                                                           \
    {                                                                                              \
        n, kt, AT(t, m), lo, hi, NULL, NULL, NULL, INNER, doc                                      \
    }
#define FLAG(n, t, m, doc)                                                                         \
    {                                                                                              \
        n, KEY_BOOL, AT(t, m), 0, 0, NULL, NULL, NULL, INNER, doc                                  \
    }
#define TEXTS(n, t, m, c, doc)                                                                     \
    {                                                                                              \
        n, KEY_TEXTS, AT(t, m), 0, 0, c, NULL, NULL, INNER, doc                                    \
    }
#define SECTION(n, t, m, tab, k, doc)                                                              \
    {                                                                                              \
        n, KEY_SECTION, AT(t, m), 0, 0, NULL, tab, NULL, k, doc                                    \
    }
#define CUSTOM(n, off, size, fns, k, doc)                                                          \
    {                                                                                              \
        n, KEY_CUSTOM, off, size, 0, 0, NULL, NULL, fns, k, doc                                    \
    }
#define END                                                                                        \
    {                                                                                              \
        NULL, KEY_TEXT, 0, 0, 0, 0, NULL, NULL, NULL, 0, NULL                                      \
    }

static const struct key keys_optimizer[] = {
    CHOICE("name", train_spec, optimizer, "adamw", "AdamW with decoupled weight decay"),
    NUMBER("lr", KEY_REAL, train_spec, lr, 1e-9, 1, "peak learning rate"),
    CUSTOM("betas", offsetof(struct train_spec, adamw), sizeof(struct adamw), &custom_betas, INNER,
           "decay of the two moments"),
    NUMBER("eps", KEY_FLOAT, train_spec, adamw.eps, 1e-12, 1e-2,
           "added to the root of the second moment"),
    NUMBER("weight_decay", KEY_FLOAT, train_spec, adamw.weight_decay, 0, 1,
           "decoupled; matrices only, never norms"),
    NUMBER("grad_clip", KEY_REAL, train_spec, grad_clip, 0, 1e6,
           "bound of the global gradient norm; 0 = off"),
    END};

static const struct key keys_schedule[] = {
    CHOICE("name", train_spec, schedule_name, "constant|linear|cosine",
           "how the rate falls after warm-up"),
    NUMBER("warmup_steps", KEY_U64, train_spec, schedule.warmup_steps, 0, 1e9,
           "steps of linear rise to the peak"),
    NUMBER("min_ratio", KEY_REAL, train_spec, schedule.min_ratio, 0, 1,
           "floor, as a share of the peak"),
    END};

static const struct key keys_train[] = {
    NUMBER("max_tokens", KEY_U64, train_spec, max_tokens, 0, 1e15,
           "how long, in tokens of the rows (no padding)"),
    NUMBER("max_steps", KEY_U64, train_spec, max_steps, 0, 1e12, "how long, in optimiser updates"),
    NUMBER("passes", KEY_REAL, train_spec, passes, 0, 1e6, "how long, in passes over the data"),
    NUMBER("global_batch", KEY_INT, train_spec, global_batch, 1, 65536, "samples a step"),
    NUMBER("units", KEY_INT, train_spec, units, 1, 4096,
           "micro-shards a step; fixed, so that workers may come and go"),
    NUMBER("chunk_elems", KEY_INT, train_spec, chunk_elems, 256, 4194304,
           "elements of a parameter chunk"),
    NUMBER("max_length", KEY_INT, train_spec, max_length, 8, 1048576,
           "tokens of one sequence at most"),
    NUMBER("checkpoint_every_steps", KEY_INT, train_spec, checkpoint_every_steps, 0, 1e9,
           "0 = only at the end"),
    CHOICE(
        "wire", train_spec, wire, "fp32|bf16",
        "how gradients and parameters travel; bf16 halves the bytes and gives other bits, the same "
        "whoever computes"),
    FLAG("recompute", train_spec, recompute,
         "the backward computes each layer again instead of keeping it: the same bits in less "
         "memory, slower; for long rows"),
    {"optimizer", KEY_SECTION, 0, 0, 0, 0, NULL, keys_optimizer, NULL, INNER, "the update rule"},
    {"schedule", KEY_SECTION, 0, 0, 0, 0, NULL, keys_schedule, NULL, INNER,
     "the learning rate over time"},
    END};

static const struct key keys_drop[] = {
    NUMBER("each", KEY_REAL, condition_spec, drop_each, 0, 1,
           "probability that an attribute is left out"),
    NUMBER("all", KEY_REAL, condition_spec, drop_all, 0, 1,
           "probability that all are left out (needed for guidance)"),
    END};

static const struct key keys_condition[] = {
    CHOICE("template", condition_spec, template_name, "control|plain|nemo|paper",
           "how attributes are written"),
    CHOICE("labels", condition_spec, labels, "predicted|human|none",
           "whose levels to condition on"),
    CHOICE("loss_on", condition_spec, loss_on, "response|all", "which tokens are learnt"),
    {"drop", KEY_SECTION, 0, 0, 0, 0, NULL, keys_drop, NULL, INNER, "attribute drop-out"},
    FLAG("shuffle_labels", condition_spec, shuffle_labels,
         "permute the levels over the responses: the control"),
    END};

static const struct key keys_sampling[] = {
    NUMBER("temperature", KEY_FLOAT, sampling, temperature, 0, 10, "0 = greedy"),
    NUMBER("top_k", KEY_INT, sampling, top_k, 0, 1048576, "0 = off"),
    NUMBER("top_p", KEY_FLOAT, sampling, top_p, 1e-6, 1, "1 = off"),
    NUMBER("guidance", KEY_FLOAT, sampling, guidance, 0, 20,
           "strength of the attributes; 1 = plain"),
    NUMBER("guidance_cut", KEY_FLOAT, sampling, guidance_cut, 0, 100,
           "nats below the best at which guidance drops a token"),
    NUMBER("max_new_tokens", KEY_INT, sampling, max_new_tokens, 1, 1048576,
           "tokens of a reply at most"),
    END};

static const struct key keys_decode[] = {
    CHOICE(
        "weights", decode_spec, weights, "fp32|int8",
        "int8: weights in blocks of 8 bits, faster where memory is the bound, a little less exact"),
    END};

static const struct key keys_annotate[] = {NUMBER("rows_per_task", KEY_INT, annotate_spec,
                                                  rows_per_task, 1, 1000000,
                                                  "conversations a range"),
                                           END};

static const struct key keys_generate[] = {
    CUSTOM("attributes", offsetof(struct generate_spec, attributes_n), 0, &custom_values, INNER,
           "levels by attribute; missing = not set"),
    CUSTOM("sweep", offsetof(struct generate_spec, sweep_n), 0, &custom_sweep, INNER,
           "lists of levels; every combination is generated"),
    SECTION("sampling", generate_spec, sampling, keys_sampling, INNER, "how tokens are drawn"),
    SECTION("decode", generate_spec, decode, keys_decode, INNER, "how the model is computed"),
    TEXTS("stop", generate_spec, stop, NULL, "texts that end a reply"),
    NUMBER("n", KEY_INT, generate_spec, n, 1, 1000, "samples per prompt and setting"),
    NUMBER("prompts", KEY_INT, generate_spec, prompts, 0, 1e9,
           "contexts of the data to use; 0 = all"),
    CHOICE("split", generate_spec, split, "held_out|train|all",
           "which part of the data the contexts come from"),
    CHOICE("cut", generate_spec, cut, "none|sentence",
           "sentence: end each reply at a sentence end drawn at random, for varied lengths"),
    NUMBER("from_nothing", KEY_INT, generate_spec, from_nothing, 0, 1e7,
           "samples from an empty prompt, without data"),
    NUMBER("rows_per_task", KEY_INT, generate_spec, rows_per_task, 1, 100000, "rows a range"),
    END};

static const struct key keys_bootstrap[] = {
    CUSTOM("where", offsetof(struct bootstrap_spec, where_n), 0, &custom_where, INNER,
           "label combinations of the data that are wanted"),
    CUSTOM("keep", offsetof(struct bootstrap_spec, keep_n), 0, &custom_where, INNER,
           "what the predicted labels must satisfy"),
    NUMBER("samples_per_prompt", KEY_INT, bootstrap_spec, samples_per_prompt, 1, 1000,
           "replies per context"),
    NUMBER("prompts", KEY_INT, bootstrap_spec, prompts, 0, 1e9, "contexts to use; 0 = all"),
    FLAG("dedupe", bootstrap_spec, dedupe, "keep one of equal replies"),
    SECTION("sampling", bootstrap_spec, sampling, keys_sampling, INNER, "how tokens are drawn"),
    SECTION("decode", bootstrap_spec, decode, keys_decode, INNER, "how the model is computed"),
    NUMBER("rows_per_task", KEY_INT, bootstrap_spec, rows_per_task, 1, 100000, "rows a range"),
    END};

static const struct key keys_evaluate[] = {
    CUSTOM("models", offsetof(struct evaluate_spec, models_n), 0, &custom_models, INNER,
           "label: reference of each model. Under test is the one named steer, else the first that "
           "is no control; it is compared with control; steer-2, control-2: other seeds"),
    NUMBER("contexts", KEY_INT, evaluate_spec, contexts, 1, 1e6, "held-out contexts per setting"),
    {"levels", KEY_INTS, AT(evaluate_spec, levels), 0, SCHEMA_LEVELS_MAX - 1, NULL, NULL, NULL,
     INNER, "levels under test"},
    CHOICE("others", evaluate_spec, others, "missing|all_missing|middle",
           "attributes not under test: missing but computed ones at the middle, all missing, all "
           "at the middle"),
    {"guidance", KEY_REALS, AT(evaluate_spec, guidance), 0, 20, NULL, NULL, NULL, INNER,
     "strengths to test"},
    SECTION("sampling", evaluate_spec, sampling, keys_sampling, INNER, "how tokens are drawn"),
    SECTION("decode", evaluate_spec, decode, keys_decode, INNER,
            "how the model is computed when it writes"),
    CUSTOM("figures", offsetof(struct evaluate_spec, figures_n), 0, &custom_figures, INNER,
           "metric: bound such as \">=0.3\", \"<=0.12\"; shown as kept or not in the report"),
    TEXTS("rulers", evaluate_spec, rulers, NULL,
          "measures of a reply; see attribute type computed"),
    CHOICE("baseline", evaluate_spec, baseline, "none|tfidf",
           "what the attribute model is compared with"),
    NUMBER("loss_rows", KEY_INT, evaluate_spec, loss_rows, 0, 1e9,
           "held-out responses for the loss gap; 0 = all"),
    NUMBER("samples", KEY_INT, evaluate_spec, samples, 0, 50, "contexts shown side by side"),
    NUMBER("rows_per_task", KEY_INT, evaluate_spec, rows_per_task, 1, 100000, "rows a range"),
    END};

static const struct key keys_probe[] = {
    NUMBER("tasks", KEY_INT, probe_spec, tasks, 1, 200000, "how many there are"),
    NUMBER("sleep_ms", KEY_INT, probe_spec, sleep_ms, 0, 3600000,
           "how long each one sleeps; 0: it does nothing"),
    END};

static const struct key keys_map[] = {
    TEXT("conversation", data_spec, map.conversation,
         "field that holds the list of turns; absent: a row is a prompt and a response"),
    TEXT("id", data_spec, map.id, "field that names the conversation"),
    TEXT("text", data_spec, map.text, "field of a turn's text"),
    TEXT("speaker", data_spec, map.speaker, "field of a turn's speaker"),
    TEXT("prompt", data_spec, map.prompt, "field of the prompt"),
    TEXT("response", data_spec, map.response, "field of the response"),
    TEXTS("respond", data_spec, map.respond, NULL,
          "speakers whose turns are responses; empty: everybody"),
    TEXTS("labels", data_spec, map.labels, NULL, "fields that are human labels"),
    END};

static const struct key keys_split[] = {
    CHOICE("by", data_spec, split.by, "conversation_id", "what stays together"),
    NUMBER("held_out", KEY_REAL, data_spec, split.held_out, 0, 0.9,
           "share that is never trained on"),
    NUMBER("seed", KEY_U64, data_spec, split.seed, 0, 9e15, "of the split"), END};

static const struct key keys_keep[] = {
    NUMBER("max_reply_tokens", KEY_INT, data_spec, keep.max_reply_tokens, 0, 1048576,
           "longer replies are not used; 0 = no bound"),
    NUMBER("context_tokens", KEY_INT, data_spec, keep.context_tokens, 0, 1048576,
           "last tokens of the turns before; 0 = all that fits"),
    END};

const struct key spec_data_keys[] = {
    TEXTS("files", data_spec, files, NULL, "JSON lines, plain, .gz or .zst; relative to the spec"),
    CHOICE("format", data_spec, format,
           "auto|map|helpsteer|oasst|messages|sharegpt|nemo-chat|nemo-regression|text",
           "how rows are read"),
    {"map", KEY_SECTION, 0, 0, 0, 0, NULL, keys_map, NULL, INNER,
     "format map: which field is what"},
    {"split", KEY_SECTION, 0, 0, 0, 0, NULL, keys_split, NULL, INNER, "what is held out"},
    TEXTS("clean", data_spec, clean,
          "ascii_quotes|drop_non_ascii|squeeze_punctuation|collapse_spaces",
          "what is done to texts"),
    {"keep", KEY_SECTION, 0, 0, 0, 0, NULL, keys_keep, NULL, INNER,
     "which replies are used, with how much context"},
    NUMBER("limit", KEY_INT, data_spec, limit, 0, 1e9,
           "conversations to read at most, for trials; 0 = all"),
    NUMBER("problems_max", KEY_REAL, data_spec, problems_max, 0, 1,
           "share of bad lines above which the job fails"),
    END};

const struct key spec_init_keys[] = {
    NUMBER("vocab", KEY_INT, dims, vocab, 0, 1048576, "ids; 0 = what the tokenizer has"),
    NUMBER("width", KEY_INT, dims, width, 1, 16384, "of the residual stream"),
    NUMBER("layers", KEY_INT, dims, layers, 1, 256, "decoder blocks"),
    NUMBER("heads", KEY_INT, dims, heads, 1, 256, "attention heads"),
    NUMBER("kv_heads", KEY_INT, dims, kv_heads, 1, 256, "key and value heads"),
    NUMBER("head_dim", KEY_INT, dims, head_dim, 0, 512, "0 = width / heads"),
    NUMBER("ffn", KEY_INT, dims, ffn, 1, 65536, "width of the feed-forward block"),
    NUMBER("context", KEY_INT, dims, context, 8, 1048576, "positions"),
    NUMBER("norm_eps", KEY_FLOAT, dims, norm_eps, 1e-12, 1e-2, "of RMSNorm"),
    NUMBER("rope_theta", KEY_FLOAT, dims, rope_theta, 1, 1e9, "base of the rotary frequencies"),
    FLAG("tied", dims, tied, "head shares the embedding"),
    END};

const struct key spec_keys[] = {
    CHOICE("kind", spec, project,
           "train-attribute-model|annotate|sft|generate|bootstrap|evaluate|pipeline|probe",
           "what the job does"), /* read before all others */
    TEXT("name", spec, name, "label, need not be unique"),
    TEXT("project", spec, project, "whose job it is"),
    NUMBER("seed", KEY_U64, spec, seed, 0, 9e15, "of everything random"),
    NUMBER(
        "audit", KEY_REAL, spec, audit, 0, 1,
        "share of gradients and row ranges that a second worker computes as well; who is outvoted "
        "goes into quarantine"),
    CHOICE("numerics", spec, numerics, "strict|any|bf16",
           "strict: all of it on CPUs with the same arithmetic, so that every run gives the same "
           "bits; any: on whatever there is; bf16: strict, and training multiplies matrices of "
           "bfloat16 (sums, weights and all else stay fp32)"),
    CUSTOM("labels", offsetof(struct spec, schema), 0, &custom_labels, 0,
           "human labels of the data: classes or scale"),
    CUSTOM("attributes", offsetof(struct spec, schema), 0, &custom_attributes, 0,
           "what models are conditioned on"),
    CUSTOM("data", offsetof(struct spec, data_n), 0, &custom_data, 0, "data sets by name"),
    CUSTOM("inputs", offsetof(struct spec, inputs_n), 0, &custom_inputs, ~KIND_BIT(KIND_PIPELINE),
           "what it works on: file:PATH, data:NAME, stage:NAME, sha256:HEX, job:ID; train and "
           "attribute models may be lists"),
    CUSTOM("base", offsetof(struct spec, has_init), 0, &custom_base, TRAINS,
           "a model from random weights instead of inputs.base"),
    {"head", KEY_CHOICE, AT(spec, head), 0, 0, "classes|regression|lm", NULL, NULL,
     KIND_BIT(KIND_TRAIN_ATTRIBUTE_MODEL), "how the attribute model answers"},
    {"cross_fit", KEY_INT, AT(spec, cross_fit), 1, 8, NULL, NULL, NULL,
     KIND_BIT(KIND_TRAIN_ATTRIBUTE_MODEL),
     "folds; each row is labelled by the model that did not see it; 1 = off"},
    SECTION("train", spec, train, keys_train, TRAINS, "batch, length, optimiser, schedule"),
    SECTION("condition", spec, condition, keys_condition, TRAINS, "attributes in the text"),
    SECTION("annotate", spec, annotate, keys_annotate, KIND_BIT(KIND_ANNOTATE), "labelling rows"),
    SECTION("generate", spec, generate, keys_generate, KIND_BIT(KIND_GENERATE), "sampling replies"),
    SECTION("bootstrap", spec, bootstrap, keys_bootstrap, KIND_BIT(KIND_BOOTSTRAP),
            "sample, re-annotate, filter"),
    SECTION("evaluate", spec, evaluate, keys_evaluate, KIND_BIT(KIND_EVALUATE), "what is measured"),
    SECTION("probe", spec, probe, keys_probe, KIND_BIT(KIND_PROBE),
            "tasks that do nothing, to see that all workers answer, and how fast"),
    CUSTOM("stages", offsetof(struct spec, stages_n), 0, &custom_stages, KIND_BIT(KIND_PIPELINE),
           "jobs that need each other"),
    {"max_parallel", KEY_INT, AT(spec, max_parallel), 1, 64, NULL, NULL, NULL,
     KIND_BIT(KIND_PIPELINE), "stages at a time"},
    {"reuse_verified", KEY_BOOL, AT(spec, reuse_verified), 0, 0, NULL, NULL, NULL, 0,
     "take the outputs of an equal, finished stage when they verify"},
    {"finish_independent", KEY_BOOL, AT(spec, finish_independent), 0, 0, NULL, NULL, NULL,
     KIND_BIT(KIND_PIPELINE), "after a failure, finish the stages that do not need the failed one"},
    END};
