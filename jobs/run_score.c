#include "jobs/run_score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "jobs/run_common.h"
#include "jobs/run_score_batch.h"
#include "jobs/run_score_lm.h"
#include "model/gemm.h"

enum { OVER_LENGTH_MAX = 64 }; /* a layout whose fixed parts alone exceed max_length is longer */

struct job {
    const struct conversation *c;
    uint32_t turn;
    const char *reply;
    size_t len;
    int64_t fold;
    int scored; /* models that have */
    bool truncated;
};

struct run_scorer {
    struct model *model;
    int models;
    const struct schema *schema;
    int begin[SCHEMA_LABELS_MAX +
              1]; /* of each label's classes; the last is their number; all 0 without classes */
    struct job *job;
    size_t jobs, cap;
    float *value,
        *probs; /* [jobs][attrs], [jobs][begin[labels]]: sums during the run, then means */
    uint64_t rows, done, total;
};

static void classes_place(struct run_scorer *s)
{
    for (int i = 0; i < s->schema->labels; i++)
        s->begin[i + 1] = s->begin[i] + template_label_classes(&s->schema->label[i]);
}

/* Values and probabilities of all models are summed, in places that the schema of model 0 gives. */
static int model_fits(const struct model *m, const struct model *first, const char *key, int i,
                      struct err *e)
{
    const struct template_config *a = &m->steer.template_config, *b = &first->steer.template_config;
    int rc;

    if (a->head != b->head)
        return err_set(e, ERR_INVALID, "input %s: model %d has another head than model 0", key, i);
    rc = schema_same(&a->schema, &b->schema, e);
    if (rc == 0)
        rc = schema_same_labels(&a->schema, &b->schema, e);
    return rc == 0 ? 0 : err_wrap(e, "input %s: models %d and 0", key, i);
}

static int model_take(const struct run_task *t, const struct run_env *env, const char *key, int i,
                      struct run_scorer *s, struct err *e)
{
    struct model *m = &s->model[i];
    char path[4096];
    int rc = run_input(t, env, key, i, path, sizeof(path), e);

    if (rc == 0)
        rc = model_load(path, MODEL_ALL, m, e);
    if (rc != 0)
        return rc;
    s->models = i + 1;
    if ((rc = run_steer_check(m, e)) != 0)
        return err_wrap(e, "input %s[%d]", key, i);
    if (m->steer.role != STEER_ATTRIBUTE_MODEL)
        return err_set(e, ERR_INVALID, "input %s is no attribute model: its steer_config.json %s",
                       key, m->steer.role == STEER_POLICY ? "says policy" : "is missing");
    return i == 0 ? 0 : model_fits(m, &s->model[0], key, i, e);
}

int run_scorer_new(const struct run_task *t, const struct run_env *env, const char *key,
                   const struct schema *want, struct run_scorer **out, struct err *e)
{
    struct run_scorer *s = mem_zalloc(1, sizeof(*s));
    int n = run_input_count(t, key), rc = 0;

    *out = NULL;
    model_blas_init();
    if (n < 1) {
        rc = err_set(e, ERR_INVALID, "input %s names no model", key);
        goto out;
    }
    s->model = mem_zalloc((size_t)n, sizeof(*s->model));
    for (int i = 0; i < n && rc == 0; i++)
        rc = model_take(t, env, key, i, s, e);
    if (rc != 0)
        goto out;
    s->schema = &s->model[0].steer.template_config.schema;
    if (want != NULL && (rc = schema_same(want, s->schema, e)) != 0) {
        err_wrap(e, "the data against the attribute model of input %s", key);
        goto out;
    }
    if (s->model[0].steer.template_config.head == TEMPLATE_HEAD_CLASSES)
        classes_place(s);
    *out = s;
    s = NULL;
out:
    run_scorer_free(s);
    return rc;
}

void run_scorer_free(struct run_scorer *s)
{
    if (s == NULL)
        return;
    for (int i = 0; i < s->models; i++)
        model_fini(&s->model[i]);
    free(s->model);
    free(s->job);
    free(s->value);
    free(s->probs);
    free(s);
}

const struct schema *run_scorer_schema(const struct run_scorer *s)
{
    return s->schema;
}

const struct tokenizer *run_scorer_tokenizer(const struct run_scorer *s)
{
    return s->model[0].tokenizer;
}

int run_scorer_models(const struct run_scorer *s)
{
    return s->models;
}

uint64_t run_scorer_rows(const struct run_scorer *s)
{
    return s->rows;
}

int run_scorer_probs(const struct run_scorer *s, int label, int *begin)
{
    *begin = s->begin[label];
    return s->begin[label + 1] - s->begin[label];
}

size_t run_scorer_add(struct run_scorer *s, const struct conversation *c, uint32_t turn,
                      const char *reply, size_t len, int64_t fold)
{
    if (s->jobs == s->cap) {
        s->cap = 2 * s->cap + 256;
        s->job = mem_grow(s->job, s->cap, sizeof(*s->job));
    }
    s->job[s->jobs] = (struct job){.c = c, .turn = turn, .reply = reply, .len = len, .fold = fold};
    return s->jobs++;
}

/* ---- one model over its responses ------------------------------------------------------------ */

static bool is_for(const struct run_scorer *s, const struct job *j, int k)
{
    return j->fold < 0 || j->fold % s->models == k;
}

/* A turn of the data is read as if nobody had labelled it: a head lm needs room for any string, and the labels of the data are its own,
 * which need not be the model's. */
static int job_sequence(const struct model *m, const struct job *j, struct sequence *out,
                        struct err *e)
{
    const char *reply = j->reply;
    size_t len = j->len;
    int rc;

    if (reply == NULL) {
        reply = j->c->turn[j->turn].text;
        len = j->c->turn[j->turn].text_len;
    }
    sequence_clear(out);
    rc = template_score_text(&m->steer.template_config, m->tokenizer, j->c, j->turn, reply, len,
                             out, e);
    return rc == 0 ? 0 : err_wrap(e, "%s (%s), turn %u", j->c->id, j->c->source, j->turn);
}

/* What came out at the targets of one response: adds it to the sums. */
static void job_take(void *self, size_t i, int target, const float *out, int n)
{
    struct run_scorer *s = self;
    int width = s->begin[s->schema->labels];

    if (width > 0) {
        CHECK(target < s->schema->labels && n == s->begin[target + 1] - s->begin[target]);
        for (int c = 0; c < n; c++)
            s->probs[i * (size_t)width + (size_t)(s->begin[target] + c)] +=
                (float)exp((double)out[c]);
        return;
    }
    for (int a = 0; a < s->schema->attrs; a++)
        s->value[i * (size_t)s->schema->attrs + (size_t)a] += a < n ? out[a] : NAN;
}

static size_t widest_label(const struct schema *s)
{
    int most = 1;

    for (int i = 0; i < s->labels; i++) {
        int n = template_label_classes(&s->label[i]);
        most = n > most ? n : most;
    }
    return (size_t)most;
}

static int targets_run(struct run_scorer *s, int k, const struct run_env *env, struct err *e)
{
    const struct model *m = &s->model[k];
    struct sequence *sequence = mem_zalloc(1, sizeof(*sequence));
    size_t longest = score_sequence_max(m, OVER_LENGTH_MAX);
    struct score_batch *batch =
        score_batch_new(m, longest, widest_label(s->schema), env->heartbeat, s, job_take);
    int rc = 0;

    for (size_t i = 0; i < s->jobs && rc == 0; i++) {
        struct job *j = &s->job[i];
        if (!is_for(s, j, k))
            continue;
        rc = job_sequence(m, j, sequence, e);
        if (rc != 0)
            break;
        j->truncated |= sequence->truncated;
        if (sequence->ids.n <= longest && sequence->targets > 0) {
            score_batch_add(batch, i, sequence->ids.v, sequence->ids.n, sequence->target,
                            sequence->targets);
            j->scored++;
        } else {
            j->truncated = true;
        }
        s->done++;
        if (i % 64 == 0 && env->progress != NULL)
            env->progress(env->self, s->done, s->total);
        if (i % 64 == 0 && env->cancelled != NULL && env->cancelled(env->self))
            rc = err_set(e, ERR_CANCELLED, "asked to stop after %zu of %zu responses", i, s->jobs);
    }
    if (rc == 0)
        score_batch_flush(batch);
    s->rows += score_batch_rows(batch);
    score_batch_free(batch);
    sequence_free(sequence);
    free(sequence);
    return rc;
}

/* Head lm: the label strings of all its responses, and the numbers that they say. */
static int strings_run(struct run_scorer *s, int k, const struct run_env *env, struct err *e)
{
    const struct model *m = &s->model[k];
    size_t attrs = (size_t)s->schema->attrs, n = 0, room = 0;
    struct sequence *sequence = mem_zalloc(1, sizeof(*sequence));
    struct ids *prompt = mem_zalloc(s->jobs + 1, sizeof(*prompt));
    size_t *place = mem_zalloc(s->jobs + 1, sizeof(*place));
    float *value = mem_zalloc(s->jobs * attrs + 1, sizeof(*value));
    int rc = run_score_lm_room(m, &room, e);

    for (size_t i = 0; i < s->jobs && rc == 0; i++) {
        struct job *j = &s->job[i];
        if (!is_for(s, j, k))
            continue;
        rc = job_sequence(m, j, sequence, e);
        j->truncated |= sequence->truncated;
        s->done++;
        if (rc != 0 || sequence->pieces < 1 ||
            sequence->piece[0].end + room > score_sequence_max(m, OVER_LENGTH_MAX + room)) {
            j->truncated = true;
            continue;
        }
        for (uint32_t at = sequence->piece[0].begin; at < sequence->piece[0].end; at++)
            ids_push(&prompt[n], sequence->ids.v[at]);
        place[n++] = i;
        j->scored++;
    }
    if (rc == 0 && n > 0)
        rc = run_score_lm(m, prompt, n, env, value, &s->rows, e);
    for (size_t i = 0; i < n && rc == 0; i++) {
        for (size_t a = 0; a < attrs; a++)
            s->value[place[i] * attrs + a] += value[i * attrs + a];
    }
    if (env->progress != NULL)
        env->progress(env->self, s->done, s->total);
    for (size_t i = 0; i < n; i++)
        ids_free(&prompt[i]);
    free(prompt);
    free(place);
    free(value);
    sequence_free(sequence);
    free(sequence);
    return rc;
}

static int model_run(struct run_scorer *s, int k, const struct run_env *env, struct err *e)
{
    if (s->model[k].steer.template_config.head == TEMPLATE_HEAD_LM)
        return strings_run(s, k, env, e);
    return targets_run(s, k, env, e);
}

/* ---- from sums to values --------------------------------------------------------------------- */

static float attr_value(const struct run_scorer *s, int a, const float *probs)
{
    const struct attr *attr = &s->schema->attr[a];
    const struct label *label;
    float human[SCHEMA_LABELS_MAX];
    double mean = 0.0;

    if (attr->type == ATTR_COMPUTED || attr->label < 0)
        return NAN;
    label = &s->schema->label[attr->label];
    if (attr->type == ATTR_CATEGORICAL)
        return probs[s->begin[attr->label] + attr->class_index];
    for (int c = s->begin[attr->label]; c < s->begin[attr->label + 1]; c++)
        mean += (double)probs[c] * (double)(c - s->begin[attr->label]);
    for (int i = 0; i < SCHEMA_LABELS_MAX; i++)
        human[i] = NAN;
    human[attr->label] = (float)(label->type == LABEL_SCALE ? rint(label->min) + mean : mean);
    return (float)schema_human_value(s->schema, a,
                                     human); /* the label's scale to the attribute's */
}

static int job_finish(struct run_scorer *s, size_t i, struct err *e)
{
    const struct job *j = &s->job[i];
    int width = s->begin[s->schema->labels], attrs = s->schema->attrs;
    float *value = s->value + i * (size_t)attrs, *probs = s->probs + i * (size_t)width;
    float share = j->scored > 0 ? 1.0f / (float)j->scored : NAN;
    bool finite = true;

    for (int c = 0; c < width; c++)
        probs[c] *= share;
    for (int a = 0; a < attrs; a++) {
        if (s->schema->attr[a].type == ATTR_COMPUTED)
            value[a] = NAN;
        else
            value[a] = width > 0 ? attr_value(s, a, probs) : value[a] * share;
        finite &= j->scored == 0 || s->schema->attr[a].type == ATTR_COMPUTED || isfinite(value[a]);
    }
    if (!finite)
        return err_set(e, ERR_NUMERIC, "%s (%s), turn %u: a score is not finite", j->c->id,
                       j->c->source, j->turn);
    return 0;
}

int run_scorer_run(struct run_scorer *s, const struct run_env *env, struct err *e)
{
    size_t width = (size_t)s->begin[s->schema->labels];
    int rc = 0;

    s->value = mem_zalloc(s->jobs * (size_t)s->schema->attrs + 1, sizeof(*s->value));
    s->probs = mem_zalloc(s->jobs * width + 1, sizeof(*s->probs));
    for (size_t i = 0; i < s->jobs; i++)
        s->total += s->job[i].fold < 0 ? (uint64_t)s->models : 1;
    for (int k = 0; k < s->models && rc == 0; k++)
        rc = model_run(s, k, env, e);
    for (size_t i = 0; i < s->jobs && rc == 0; i++)
        rc = job_finish(s, i, e);
    return rc;
}

struct run_scored run_scorer_get(const struct run_scorer *s, size_t i)
{
    size_t width = (size_t)s->begin[s->schema->labels];

    CHECK(i < s->jobs && s->value != NULL);
    return (struct run_scored){.value = s->value + i * (size_t)s->schema->attrs,
                               .probs = width > 0 ? s->probs + i * width : NULL,
                               .truncated = s->job[i].truncated};
}
