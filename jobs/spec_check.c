/* What no single key can tell: which inputs a kind needs, where references point, bounds between keys. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "data/measure.h"
#include "jobs/spec_keys.h"
#include "jobs/spec_stage.h"

#define TRAINS (KIND_BIT(KIND_TRAIN_ATTRIBUTE_MODEL) | KIND_BIT(KIND_SFT))

struct check {
    struct spec *s;
    const struct node *root;
    const char *pointer;
    struct spec_problems *p;
};

static const struct node *place(const struct check *c, const char *key)
{
    const struct node *n = node_get(c->root, key);

    return n != NULL ? n : c->root;
}

static void need_input(const struct check *c, const char *key, const char *what)
{
    if (spec_input(c->s, key) == NULL)
        spec_problem_add(c->p, place(c, "inputs"), c->pointer, "missing", "%s needs inputs.%s (%s)",
                         job_kind_name(c->s->kind), key, what);
}

static void check_train(const struct check *c)
{
    const struct train_spec *t = &c->s->train;
    int set = (t->max_tokens > 0) + (t->max_steps > 0) + (t->passes > 0);

    need_input(c, "train", "data:NAME or stage:NAME");
    if (spec_input(c->s, "base") == NULL && !c->s->has_init)
        spec_problem_add(c->p, c->root, c->pointer, "missing",
                         "%s needs inputs.base (a model), or base.init", job_kind_name(c->s->kind));
    if (set != 1)
        spec_problem_add(c->p, place(c, "train"), c->pointer, "missing",
                         "train needs exactly one of max_tokens, max_steps, passes; it has %d",
                         set);
    if (t->units > t->global_batch)
        spec_problem_add(c->p, place(c, "train"), c->pointer, "out_of_range",
                         "train.units is %d, must be at most train.global_batch (%d)", t->units,
                         t->global_batch);
    if (c->s->condition.drop_all + c->s->condition.drop_each > 1.0 &&
        c->s->condition.drop_all >= 1.0)
        spec_problem_add(c->p, place(c, "condition"), c->pointer, "out_of_range",
                         "condition.drop.all is %g: nothing would ever be conditioned",
                         c->s->condition.drop_all);
    if (c->s->schema.attrs == 0 &&
        (c->s->kind == KIND_TRAIN_ATTRIBUTE_MODEL || strcmp(c->s->condition.labels, "none") != 0))
        spec_problem_add(c->p, c->root, c->pointer, "missing",
                         "there are no attributes; plain fine-tuning says condition.labels: none");
}

static void check_numerics(const struct check *c)
{
    const struct node *n = node_get(c->root, "numerics");

    if (n != NULL && strcmp(c->s->numerics, "bf16") == 0 && c->s->kind != KIND_PIPELINE &&
        (TRAINS & KIND_BIT(c->s->kind)) == 0)
        spec_problem_add(c->p, n, c->pointer, "bad_choice",
                         "numerics bf16 is for training, %s computes in fp32; did you mean "
                         "\"strict\"?",
                         job_kind_name(c->s->kind));
}

static void check_attribute_model(const struct check *c)
{
    bool classes = false, scale = false;

    for (int i = 0; i < c->s->schema.labels; i++) {
        classes = classes || c->s->schema.label[i].type == LABEL_CLASSES;
        scale = scale || c->s->schema.label[i].type == LABEL_SCALE;
    }
    if (strcmp(c->s->head, "classes") == 0 && !classes)
        spec_problem_add(c->p, place(c, "head"), c->pointer, "bad_choice",
                         "head classes needs a label with classes; integer attributes take head "
                         "regression or lm");
    if (strcmp(c->s->head, "classes") != 0 && !scale)
        spec_problem_add(c->p, place(c, "head"), c->pointer, "bad_choice",
                         "head %s needs integer attributes; categorical ones take head classes",
                         c->s->head);
}

static void check_annotate(const struct check *c)
{
    need_input(c, "data", "data:NAME or stage:NAME");
    if (spec_input(c->s, "model") != NULL)
        return;
    for (int i = 0; i < c->s->schema.attrs; i++)
        if (c->s->schema.attr[i].type != ATTR_COMPUTED) {
            spec_problem_add(c->p, place(c, "inputs"), c->pointer, "missing",
                             "attribute \"%s\" is not computed, so annotate needs inputs.model (an "
                             "attribute model)",
                             c->s->schema.attr[i].name);
            return;
        }
}

static void check_generate(const struct check *c)
{
    need_input(c, "model", "a model");
    if ((spec_input(c->s, "prompts") != NULL) == (c->s->generate.from_nothing > 0))
        spec_problem_add(c->p, place(c, "generate"), c->pointer, "missing",
                         "generate needs either inputs.prompts or generate.from_nothing");
}

static void check_bootstrap(const struct check *c)
{
    need_input(c, "model", "the policy that samples");
    need_input(c, "judge", "the attribute model that re-annotates");
    need_input(c, "data", "an annotated data set: contexts and label combinations");
    if (c->s->bootstrap.where_n == 0)
        spec_problem_add(c->p, place(c, "bootstrap"), c->pointer, "missing",
                         "bootstrap.where says which label combinations are wanted");
}

/* Each would be computed, and no report has two of one name. */
static void duplicate_add(const struct check *c, const char *key, int i, const char *value)
{
    const struct node *list = node_get(place(c, "evaluate"), key);
    char pointer[160];

    snprintf(pointer, sizeof pointer, "%s/evaluate/%s/%d", c->pointer, key, i);
    spec_problem_add(c->p,
                     list != NULL && list->type == NODE_LIST && i < list->n ? list->item[i]
                                                                            : place(c, "evaluate"),
                     pointer, "duplicate", "evaluate.%s has %s twice", key, value);
}

static void guidance_add(const struct check *c, int n)
{
    const struct node *list = node_get(place(c, "evaluate"), "guidance");
    char pointer[160];

    snprintf(pointer, sizeof pointer, "%s/evaluate/guidance", c->pointer);
    spec_problem_add(c->p, list != NULL ? list : place(c, "evaluate"), pointer, "out_of_range",
                     "evaluate.guidance has %d strengths, must be 1..%d", n,
                     EVALUATE_GUIDANCES_MAX);
}

static void check_duplicates(const struct check *c)
{
    const struct evaluate_spec *v = &c->s->evaluate;

    for (int i = 0; i < v->guidance.n; i++) {
        char text[24], other[24];
        bool twice = false;
        snprintf(text, sizeof text, "%.4g", v->guidance.v[i]); /* as metrics and files name it */
        for (int k = 0; k < i && !twice; k++) {
            snprintf(other, sizeof other, "%.4g", v->guidance.v[k]);
            twice = strcmp(text, other) == 0;
        }
        if (twice)
            duplicate_add(c, "guidance", i, text);
    }
    for (int i = 0; i < v->rulers.n; i++) {
        bool twice = false;
        for (int k = 0; k < i; k++)
            twice = twice || strcmp(v->rulers.v[i], v->rulers.v[k]) == 0;
        if (twice)
            duplicate_add(c, "rulers", i, v->rulers.v[i]);
    }
}

static void check_evaluate(const struct check *c)
{
    const struct evaluate_spec *v = &c->s->evaluate;

    if (v->models_n == 0)
        spec_problem_add(c->p, place(c, "evaluate"), c->pointer, "missing",
                         "evaluate.models is empty");
    need_input(c, "data", "an annotated data set");
    for (int i = 0; i < v->rulers.n; i++)
        if (measure_find(v->rulers.v[i]) < 0) {
            const char *names[MEASURE_COUNT];
            const char *near;
            for (int k = 0; k < MEASURE_COUNT; k++)
                names[k] = measure_name((enum measure)k);
            near = suggest_nearest(v->rulers.v[i], names, MEASURE_COUNT);
            spec_problem_add(c->p, place(c, "evaluate"), c->pointer, "bad_choice",
                             "ruler \"%s\" does not exist%s%s%s", v->rulers.v[i],
                             near != NULL ? "; did you mean \"" : "", near != NULL ? near : "",
                             near != NULL ? "\"?" : "");
        }
    if (v->guidance.n < 1 || v->guidance.n > EVALUATE_GUIDANCES_MAX)
        guidance_add(c, v->guidance.n);
    check_duplicates(c);
    for (int a = 0; a < c->s->schema.attrs; a++)
        for (int i = 0; i < v->levels.n; i++)
            if (v->levels.v[i] >= c->s->schema.attr[a].levels)
                spec_problem_add(c->p, place(c, "evaluate"), c->pointer, "out_of_range",
                                 "evaluate.levels has %d, attribute \"%s\" has 0..%d",
                                 v->levels.v[i], c->s->schema.attr[a].name,
                                 c->s->schema.attr[a].levels - 1);
}

static void check_data_refs(const struct check *c)
{
    for (int i = 0; i < c->s->inputs_n; i++)
        for (int k = 0; k < c->s->input[i].refs.n; k++) {
            const char *ref = c->s->input[i].refs.v[k];
            if (strncmp(ref, "data:", 5) == 0 && spec_data(c->s, ref + 5) == NULL)
                spec_problem_add(c->p, place(c, "inputs"), c->pointer, "bad_reference",
                                 "inputs.%s: there is no data set \"%s\"", c->s->input[i].key,
                                 ref + 5);
        }
}

/* Inputs of which a kind reads one. Data to train on may be several sets, and an attribute model several folds. */
static bool takes_one(enum job_kind kind, const char *key)
{
    if (strcmp(key, "model") == 0)
        return kind == KIND_GENERATE || kind == KIND_BOOTSTRAP;
    return strcmp(key, "data") == 0 || strcmp(key, "prompts") == 0 || strcmp(key, "base") == 0;
}

static void check_single_refs(const struct check *c)
{
    for (int i = 0; i < c->s->inputs_n; i++) {
        const struct input_ref *in = &c->s->input[i];
        const struct node *at = node_get(place(c, "inputs"), in->key);
        char pointer[160];
        if (in->refs.n < 2 || !takes_one(c->s->kind, in->key))
            continue;
        snprintf(pointer, sizeof pointer, "%s/inputs/%s", c->pointer, in->key);
        spec_problem_add(c->p, at != NULL ? at : place(c, "inputs"), pointer, "out_of_range",
                         "inputs.%s has %d references, %s takes one; the second is \"%s\"", in->key,
                         in->refs.n, job_kind_name(c->s->kind), in->refs.v[1]);
    }
}

/* ---- pipelines ------------------------------------------------------------------------------- */

static int stage_index(const struct spec *s, const char *name, size_t n)
{
    for (int i = 0; i < s->stages_n; i++)
        if (strlen(s->stage[i]->name) == n && strncmp(s->stage[i]->name, name, n) == 0)
            return i;
    return -1;
}

static void need_stage(const struct check *c, struct stage *stage, const struct node *at,
                       const char *name, size_t n)
{
    int i = stage_index(c->s, name, n);
    char need[SPEC_TEXT_MAX];

    if (i < 0) {
        const char *names[SPEC_STAGES_MAX];
        const char *near;
        char word[SPEC_NAME_MAX];
        for (int k = 0; k < c->s->stages_n; k++)
            names[k] = c->s->stage[k]->name;
        snprintf(word, sizeof word, "%.*s", (int)(n < 63 ? n : 63), name);
        near = suggest_nearest(word, names, (size_t)c->s->stages_n);
        spec_problem_add(c->p, at, c->pointer, "bad_reference",
                         "stage \"%s\" needs \"%s\", which does not exist%s%s%s", stage->name, word,
                         near != NULL ? "; did you mean \"" : "", near != NULL ? near : "",
                         near != NULL ? "\"?" : "");
        return;
    }
    for (int k = 0; k < stage->needs.n; k++)
        if (strlen(stage->needs.v[k]) == n && strncmp(stage->needs.v[k], name, n) == 0)
            return;
    snprintf(need, sizeof need, "%.*s", (int)n, name);
    spec_text_add(&stage->needs, need);
}

/* References of inputs and models imply needs. */
static void stage_refs(const struct check *c, struct stage *stage, const struct node *at)
{
    for (int i = 0; i < stage->spec->inputs_n; i++)
        for (int k = 0; k < stage->spec->input[i].refs.n; k++) {
            const char *ref = stage->spec->input[i].refs.v[k];
            if (strncmp(ref, "stage:", 6) == 0)
                need_stage(c, stage, at, ref + 6, strcspn(ref + 6, "/"));
        }
    for (int i = 0; i < stage->spec->evaluate.models_n; i++) {
        const char *ref = stage->spec->evaluate.model[i].ref;
        if (strncmp(ref, "stage:", 6) == 0)
            need_stage(c, stage, at, ref + 6, strcspn(ref + 6, "/"));
    }
    for (int k = 0; k < stage->needs.n; k++) {
        char name[SPEC_TEXT_MAX];
        memcpy(name, stage->needs.v[k], sizeof name);
        need_stage(c, stage, at, name, strlen(name));
    }
}

static void check_cycles(const struct check *c, const struct node *list)
{
    int left[SPEC_STAGES_MAX] = {0};
    bool done[SPEC_STAGES_MAX] = {false};
    bool moved = true;

    while (moved) {
        moved = false;
        for (int i = 0; i < c->s->stages_n; i++) {
            left[i] = 0;
            for (int k = 0; k < c->s->stage[i]->needs.n; k++) {
                int need = stage_index(c->s, c->s->stage[i]->needs.v[k],
                                       strlen(c->s->stage[i]->needs.v[k]));
                left[i] += need >= 0 && !done[need];
            }
            if (!done[i] && left[i] == 0)
                moved = done[i] = true;
        }
    }
    for (int i = 0; i < c->s->stages_n; i++)
        if (!done[i])
            spec_problem_add(c->p, list->item[i], c->pointer, "cycle",
                             "stage \"%s\" waits for itself", c->s->stage[i]->name);
}

static void check_pipeline(const struct check *c)
{
    const struct node *list = node_get(c->root, "stages");

    if (list == NULL || list->type != NODE_LIST || c->s->stages_n != list->n) {
        if (list == NULL)
            spec_problem_add(c->p, c->root, c->pointer, "missing", "a pipeline needs stages");
        return;
    }
    for (int i = 0; i < c->s->stages_n; i++) {
        const char *name = c->s->stage[i]->name;
        if (stage_index(c->s, name, strlen(name)) != i)
            spec_problem_add(c->p, list->item[i], c->pointer, "duplicate",
                             "two stages are named \"%s\"", name);
        if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") !=
            strlen(name))
            spec_problem_add(c->p, list->item[i], c->pointer, "bad_name",
                             "stage name \"%s\" may have letters, digits, - _ .", name);
        stage_refs(c, c->s->stage[i], list->item[i]);
    }
    check_cycles(c, list);
}

void spec_check(struct spec *s, const struct node *root, const char *pointer,
                struct spec_problems *p)
{
    struct check c = {s, root, pointer, p};

    check_data_refs(&c);
    check_single_refs(&c);
    check_numerics(&c);
    if ((TRAINS & KIND_BIT(s->kind)) != 0)
        check_train(&c);
    if (s->kind == KIND_TRAIN_ATTRIBUTE_MODEL)
        check_attribute_model(&c);
    else if (s->kind == KIND_ANNOTATE)
        check_annotate(&c);
    else if (s->kind == KIND_GENERATE)
        check_generate(&c);
    else if (s->kind == KIND_BOOTSTRAP)
        check_bootstrap(&c);
    else if (s->kind == KIND_EVALUATE)
        check_evaluate(&c);
    else if (s->kind == KIND_PIPELINE)
        check_pipeline(&c);
}
