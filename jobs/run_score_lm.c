#include "jobs/run_score_lm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "jobs/run_decode.h"
#include "jobs/run_score.h"
#include "jobs/run_score_batch.h"
#include "model/decode.h"

enum { SLOTS = 24, CHOICES_MAX = 64 /* ids that may follow at one place */ };

struct reading {
    const struct model *model;
    const struct schema *schema;
    struct template_grammar *grammar;
    const struct ids *prompts;
    const struct run_env *env;
    size_t n, next;
    struct ids *label;       /* [n] decoded strings */
    double *expected, *mass; /* [n][attrs]: sum so far, and probability of what was chosen so far */
    size_t stride;
    bool broken, cancelled;
};

/* ---- decoding -------------------------------------------------------------------------------- */

static bool reading_next(void *self, struct decode_request *out)
{
    struct reading *x = self;

    if (x->next >= x->n)
        return false;
    *out =
        (struct decode_request){.key = x->next,
                                .tag = x->next,
                                .prompt = x->prompts[x->next].v,
                                .prompt_len = x->prompts[x->next].n,
                                .sampling = {.temperature = 0.0f, .top_p = 1.0f, .guidance = 1.0f}};
    out->sampling.max_new_tokens = (int32_t)template_grammar_longest(x->grammar) + 1;
    x->next++;
    return true;
}

static void reading_done(void *self, const struct decode_result *r)
{
    struct reading *x = self;

    x->broken |= r->end != DECODE_GRAMMAR;
    for (size_t i = 0; i < r->len; i++)
        ids_push(&x->label[r->tag], r->tokens[i]);
}

static bool reading_cancelled(void *self)
{
    struct reading *x = self;

    if (!x->cancelled && x->env->cancelled != NULL)
        x->cancelled = x->env->cancelled(x->env->self);
    return x->cancelled;
}

/* Strings do not depend on it: fewer where the cache of long prompts would be large. */
static int slots_needed(const struct reading *x, int32_t context, int32_t *slots, struct err *e)
{
    const struct dims *d = &x->model->dims;
    size_t bytes;

    *slots = SLOTS;
    while (*slots > 1 && decoder_bytes(d, *slots, context, DECODE_FP32) > RUN_DECODE_BYTES)
        *slots /= 2;
    bytes = decoder_bytes(d, *slots, context, DECODE_FP32);
    if (bytes <= RUN_DECODE_BYTES_MAX)
        return 0;
    return err_set(e, ERR_LIMIT,
                   "decoding label strings behind %d tokens needs %zu bytes, the bound is %zu",
                   (int)context, bytes, RUN_DECODE_BYTES_MAX);
}

static int strings_decode(struct reading *x, uint64_t *rows, struct err *e)
{
    struct decode_source source = {x, reading_next, reading_done, reading_cancelled};
    struct decode_grammar grammar = {x->grammar, template_grammar_allowed};
    struct decode_vocab none = {0};
    struct decode_stats stats;
    struct decoder *decoder;
    size_t longest = 0;
    int32_t context, slots;
    int rc;

    for (size_t i = 0; i < x->n; i++)
        longest = x->prompts[i].n > longest ? x->prompts[i].n : longest;
    context = (int32_t)(longest + template_grammar_longest(x->grammar) + 1);
    if ((rc = slots_needed(x, context, &slots, e)) != 0)
        return rc;
    decoder = decoder_new(&x->model->dims, slots, context, DECODE_FP32);
    decoder_set_progress(decoder, x->env->heartbeat);
    decode_run(decoder, x->model->params, &none, &grammar, 0, &source, &stats);
    decoder_free(decoder);
    *rows += stats.rows;
    if (x->cancelled)
        return err_set(e, ERR_CANCELLED, "asked to stop");
    if (x->broken)
        return err_set(e, ERR_NUMERIC, "a label string broke off: a logit is not finite");
    return 0;
}

/* ---- reading the probabilities --------------------------------------------------------------- */

static size_t choices_at(const struct reading *x, const struct ids *label, size_t at, int32_t *ids)
{
    size_t n = template_grammar_allowed(x->grammar, 0, label->v, at, ids, CHOICES_MAX);

    return n == SIZE_MAX ? 0 : n;
}

/* Which attribute is decided at a place, and the level that each choice would give it; -1 if none
 * is. */
static int choice_levels(const struct reading *x, const struct ids *label, size_t at,
                         const int32_t *ids, size_t n, int8_t *level)
{
    int8_t before[SCHEMA_ATTRS_MAX], after[CHOICES_MAX][SCHEMA_ATTRS_MAX];
    int32_t text[SCHEMA_ATTRS_MAX * 64];
    int attr = -1;

    if (at >= sizeof(text) / sizeof(text[0]))
        return -1;
    memcpy(text, label->v, at * sizeof(*text));
    template_grammar_levels(x->grammar, text, at, before);
    for (size_t i = 0; i < n; i++) {
        text[at] = ids[i];
        template_grammar_levels(x->grammar, text, at + 1, after[i]);
        for (int a = 0; a < x->schema->attrs && attr < 0; a++) {
            if (after[i][a] != before[a])
                attr = a;
        }
    }
    for (size_t i = 0; i < n && attr >= 0; i++)
        level[i] = after[i][attr];
    return attr;
}

/* The n-th place of a string where more than one id was allowed. */
static size_t choice_place(const struct reading *x, const struct ids *label, int target,
                           int32_t *ids, size_t *n)
{
    int seen = 0;

    for (size_t at = 0; at < label->n; at++) {
        *n = choices_at(x, label, at, ids);
        if (*n > 1 && seen++ == target)
            return at;
    }
    CHECK(!"the string has that many choices");
}

static void choice_take(void *self, size_t i, int target, const float *out, int width)
{
    struct reading *x = self;
    const struct ids *label = &x->label[i];
    int32_t ids[CHOICES_MAX];
    int8_t level[CHOICES_MAX];
    size_t n, at = choice_place(x, label, target, ids, &n);
    int attr = choice_levels(x, label, at, ids, n, level);
    double sum = 0.0, chosen = 0.0, *expected, *mass;

    (void)width;
    if (attr < 0)
        return;
    expected = &x->expected[i * (size_t)x->schema->attrs + (size_t)attr];
    mass = &x->mass[i * (size_t)x->schema->attrs + (size_t)attr];
    for (size_t k = 0; k < n; k++)
        sum += exp((double)out[ids[k] - ids[0]]);
    for (size_t k = 0; k < n; k++) {
        double p = exp((double)out[ids[k] - ids[0]]) / sum;
        if (ids[k] == label->v[at] ||
            level[k] < 0) /* a value begun and not ended counts as the chosen one */
            chosen += p;
        else
            *expected += *mass * p * (double)level[k];
    }
    *mass *= chosen;
}

static int targets_make(struct reading *x, size_t i, struct template_target *target)
{
    int32_t ids[CHOICES_MAX];
    int targets = 0;

    for (size_t at = 0; at < x->label[i].n; at++) {
        size_t n = choices_at(x, &x->label[i], at, ids);
        if (n < 2)
            continue;
        target[targets++] = (struct template_target){.row = (uint32_t)(x->prompts[i].n + at - 1),
                                                     .id = ids[0],
                                                     .lo = ids[0],
                                                     .hi = ids[n - 1] + 1};
        if ((size_t)(ids[n - 1] + 1 - ids[0]) > x->stride)
            x->stride = (size_t)(ids[n - 1] + 1 - ids[0]);
        CHECK(targets < SCORE_TARGETS_MAX);
    }
    return targets;
}

static void strings_read(struct reading *x, uint64_t *rows)
{
    struct template_target target[SCORE_TARGETS_MAX];
    struct score_batch *batch;
    struct ids all = {0};
    size_t longest = 0;

    x->stride = 1;
    for (size_t i = 0; i < x->n; i++) {
        size_t n = x->prompts[i].n + x->label[i].n;
        (void)targets_make(x, i, target);
        longest = n > longest ? n : longest;
    }
    batch = score_batch_new(x->model, longest, x->stride, x->env->heartbeat, x, choice_take);
    for (size_t i = 0; i < x->n; i++) {
        int targets = targets_make(x, i, target);
        all.n = 0;
        for (size_t k = 0; k < x->prompts[i].n; k++)
            ids_push(&all, x->prompts[i].v[k]);
        for (size_t k = 0; k < x->label[i].n; k++)
            ids_push(&all, x->label[i].v[k]);
        if (targets > 0)
            score_batch_add(batch, i, all.v, all.n, target, targets);
    }
    score_batch_flush(batch);
    *rows += score_batch_rows(batch);
    score_batch_free(batch);
    ids_free(&all);
}

/* An expected level in the attribute's units. */
static double level_value(const struct attr *a, double level)
{
    if (a->type == ATTR_CATEGORICAL)
        return level / (double)(a->levels - 1);
    if (a->binned && a->levels > 1)
        return (double)a->min + level / (double)(a->levels - 1) * (double)(a->max - a->min);
    return (double)a->min + level;
}

static void values_fill(const struct reading *x, float *value)
{
    size_t attrs = (size_t)x->schema->attrs;

    for (size_t i = 0; i < x->n; i++) {
        int8_t level[SCHEMA_ATTRS_MAX];
        template_grammar_levels(x->grammar, x->label[i].v, x->label[i].n, level);
        for (size_t a = 0; a < attrs; a++) {
            const struct attr *attr = &x->schema->attr[a];
            double v = x->expected[i * attrs + a] + x->mass[i * attrs + a] * (double)level[a];
            value[i * attrs + a] =
                attr->type == ATTR_COMPUTED || level[a] < 0 ? NAN : (float)level_value(attr, v);
        }
    }
}

int run_score_lm(const struct model *m, const struct ids *prompts, size_t n,
                 const struct run_env *env, float *value, uint64_t *rows, struct err *e)
{
    const struct schema *s = &m->steer.template_config.schema;
    struct reading x = {.model = m, .schema = s, .prompts = prompts, .env = env, .n = n};
    int rc = template_grammar_new(&m->steer.template_config, m->tokenizer, &x.grammar, e);

    if (rc != 0)
        return rc;
    x.label = mem_zalloc(n + 1, sizeof(*x.label));
    x.expected = mem_zalloc(n * (size_t)s->attrs + 1, sizeof(*x.expected));
    x.mass = mem_zalloc(n * (size_t)s->attrs + 1, sizeof(*x.mass));
    for (size_t i = 0; i < n * (size_t)s->attrs; i++)
        x.mass[i] = 1.0;
    rc = strings_decode(&x, rows, e);
    if (rc == 0) {
        strings_read(&x, rows);
        values_fill(&x, value);
    }
    for (size_t i = 0; i < n; i++)
        ids_free(&x.label[i]);
    free(x.label);
    free(x.expected);
    free(x.mass);
    template_grammar_free(x.grammar);
    return rc;
}

int run_score_lm_room(const struct model *m, size_t *room, struct err *e)
{
    struct template_grammar *g = NULL;
    int rc = template_grammar_new(&m->steer.template_config, m->tokenizer, &g, e);

    if (rc == 0)
        *room = template_grammar_longest(g) + 1;
    template_grammar_free(g);
    return rc;
}
