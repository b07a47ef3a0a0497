/* run_evaluate: what is to be measured (the items phase), and what all phases share. */
#include "jobs/run_evaluate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/rng.h"
#include "jobs/run_common.h"

#define PATH_CAP 4096
enum { STREAM_CONTEXTS = 1, STREAM_SHUFFLE = 2 };

/* ---- shared ---------------------------------------------------------------------------------- */

int evaluate_model_path(const struct run_task *t, const struct run_env *env, const char *label,
                        char *path, size_t cap, struct err *e)
{
    char key[SPEC_NAME_MAX + 8];

    snprintf(key, sizeof key, "model.%s", label);
    return run_input(t, env, key, 0, path, cap, e);
}

int evaluate_judge_schema(const struct run_task *t, const struct run_env *env, struct schema *out,
                          bool *has, struct err *e)
{
    char path[PATH_CAP];
    struct model m = {0};
    int rc;

    *has = run_input_count(t, "judge") > 0;
    if (!*has)
        return 0;
    if ((rc = run_input(t, env, "judge", 0, path, sizeof path, e)) != 0)
        return rc;
    if ((rc = model_load(path, MODEL_TOKENIZER, &m, e)) != 0)
        return err_wrap(e, "judge");
    if (m.steer.role != STEER_ATTRIBUTE_MODEL)
        rc = err_set(e, ERR_INVALID, "input judge is no attribute model");
    *out = m.steer.template_config.schema;
    model_fini(&m);
    return rc;
}

static int compare_int(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static int levels_set(const struct evaluate_spec *v, const struct schema *s, struct results *r,
                      struct err *e)
{
    int sorted[SPEC_LIST_MAX];

    memcpy(sorted, v->levels.v, sizeof sorted);
    qsort(sorted, (size_t)v->levels.n, sizeof *sorted, compare_int);
    for (int i = 0; i < v->levels.n; i++) {
        if (i > 0 && sorted[i] == sorted[i - 1])
            continue;
        for (int a = 0; a < s->attrs; a++) {
            if (sorted[i] < 0 || sorted[i] >= s->attr[a].levels)
                return err_set(e, ERR_INVALID, "evaluate.levels has %d, attribute %s has 0..%d",
                               sorted[i], s->attr[a].name, s->attr[a].levels - 1);
        }
        if (r->levels == RESULTS_LEVELS_MAX)
            return err_set(e, ERR_LIMIT, "evaluate.levels has more than %d levels",
                           RESULTS_LEVELS_MAX);
        r->level[r->levels++] = sorted[i];
    }
    return r->levels > 0 ? 0 : err_set(e, ERR_INVALID, "evaluate.levels is empty");
}

static int measures_set(const struct evaluate_spec *v, const struct schema *s,
                        const struct schema *judge, struct results *r, struct err *e)
{
    for (int i = 0; i < v->rulers.n; i++) {
        struct results_measure *m = &r->measure[r->measures];
        int ruler = measure_find(v->rulers.v[i]);
        if (ruler < 0)
            return err_set(e, ERR_INVALID, "ruler \"%s\" does not exist", v->rulers.v[i]);
        snprintf(m->name, sizeof m->name, "%s", measure_name((enum measure)ruler));
        m->attr = -1;
        for (int a = 0; a < s->attrs; a++) {
            if (s->attr[a].type == ATTR_COMPUTED && s->attr[a].measure == ruler)
                m->attr = a;
        }
        r->measures++;
    }
    for (int a = 0; judge != NULL && a < s->attrs; a++) {
        struct results_measure *m = &r->measure[r->measures];
        int seen = schema_find_attr(judge, s->attr[a].name);
        if (s->attr[a].type == ATTR_COMPUTED || seen < 0 || judge->attr[seen].type == ATTR_COMPUTED)
            continue;
        if (r->measures == RESULTS_MEASURES_MAX)
            return err_set(e, ERR_LIMIT, "rulers and attributes make more than %d measures",
                           RESULTS_MEASURES_MAX);
        snprintf(m->name, sizeof m->name, "am_%s", s->attr[a].name);
        m->judged = true;
        m->score = judge->attr[seen].type == ATTR_INTEGER;
        m->attr = a;
        r->measures++;
    }
    return 0;
}

static int model_rank(const char *label, const char *tested)
{
    if (strcmp(label, tested) == 0)
        return 0;
    return results_same_group(label, tested) ? 1 : results_is_control(label) ? 2 : 3;
}

static void models_set(const struct evaluate_spec *v, struct results *r)
{
    const char *tested = NULL;

    for (int m = v->models_n - 1; m >= 0; m--) {
        if (!results_is_control(v->model[m].label))
            tested = v->model[m].label;
    }
    for (int m = 0; m < v->models_n; m++) {
        if (strcmp(v->model[m].label, "steer") == 0)
            tested = v->model[m].label;
    }
    if (tested == NULL) /* controls only */
        tested = v->model[0].label;
    for (int rank = 0; rank < 4; rank++) {
        for (int m = 0; m < v->models_n; m++) {
            if (model_rank(v->model[m].label, tested) == rank)
                snprintf(r->model[r->models++], sizeof r->model[0], "%s", v->model[m].label);
        }
    }
}

int evaluate_design(const struct run_task *t, const struct schema *s, const struct schema *judge,
                    struct results *r, struct err *e)
{
    const struct evaluate_spec *v = &t->spec->evaluate;
    int rc;

    snprintf(r->name, sizeof r->name, "%s", t->spec->name);
    snprintf(r->others, sizeof r->others, "%s", v->others);
    r->seed = t->spec->seed;
    r->temperature = (double)v->sampling.temperature;
    r->max_new_tokens = v->sampling.max_new_tokens;
    if (v->models_n < 1 || v->models_n > RESULTS_MODELS_MAX)
        return err_set(e, ERR_LIMIT, "evaluate.models has %d models, must be 1..%d", v->models_n,
                       RESULTS_MODELS_MAX);
    _Static_assert(EVALUATE_GUIDANCES_MAX <= RESULTS_GUIDANCES_MAX, "jobs/spec_check.c bounds it");
    models_set(v, r);
    r->guidances = v->guidance.n;
    for (int g = 0; g < r->guidances; g++)
        r->guidance[g] = v->guidance.v[g];
    r->attrs = s->attrs;
    for (int a = 0; a < s->attrs; a++) {
        snprintf(r->attr[a], sizeof r->attr[a], "%s", s->attr[a].name);
        r->computed[a] = s->attr[a].type == ATTR_COMPUTED;
    }
    if ((rc = levels_set(v, s, r, e)) != 0)
        return rc;
    return measures_set(v, s, judge, r, e);
}

/* Asking for one thing with the others missing: with every attribute at its lowest level but one,
 * prompts would look like nothing in the data. Computed ones stay at their middle, or the length of
 * the reply would change with the attribute under test. */
void evaluate_levels(const struct schema *s, const struct results *r, int attr, int level,
                     int8_t *out)
{
    memset(out, -1, SCHEMA_ATTRS_MAX * sizeof *out);
    if (attr < 0)
        return;
    for (int a = 0; a < s->attrs; a++) {
        if ((r->computed[a] && strcmp(r->others, "all_missing") != 0) ||
            strcmp(r->others, "middle") == 0)
            out[a] = (int8_t)(s->attr[a].levels / 2);
    }
    out[attr] = (int8_t)r->level[level];
}

int evaluate_item_of(const cJSON *line, const struct results *r, struct evaluate_item *out,
                     struct err *e)
{
    int64_t model = 0, guidance = 0, attr = 0, level = 0, context = 0;
    int rc = json_need_int(line, "m", 0, r->models - 1, &model, e);

    *out =
        (struct evaluate_item){.response = -1, .other = -1, .is_loss = json_get(line, "s") != NULL};
    if (rc == 0)
        rc = json_need_int(line, "r", -1, INT32_MAX, &out->response, e);
    if (rc == 0 && out->is_loss)
        rc = json_need_int(line, "s", 0, INT32_MAX, &out->other, e);
    if (rc == 0 && !out->is_loss) {
        rc = json_need_int(line, "g", 0, r->guidances - 1, &guidance, e);
        if (rc == 0)
            rc = json_need_int(line, "a", -1, r->attrs - 1, &attr, e);
        if (rc == 0)
            rc = json_need_int(line, "l", 0, r->levels - 1, &level, e);
        if (rc == 0)
            rc = json_need_int(line, "c", 0, INT32_MAX, &context, e);
    }
    out->model = (int)model;
    out->guidance = (int)guidance;
    out->attr = (int)attr;
    out->level = (int)level;
    out->context = (size_t)context;
    return rc;
}

int evaluate_held_open(const struct run_task *t, const struct run_env *env, struct dataset *out,
                       struct err *e)
{
    char path[PATH_CAP];
    int rc = run_phase_output(t, env, "evaluate.items", "held", path, sizeof path, e);

    return rc != 0 ? rc : dataset_load(path, out, e);
}

/* ---- the items phase ------------------------------------------------------------------------- */

/* Held-out conversations as a data set of their own: a tenth to read for every range. */
static int held_write(const struct dataset *d, const char *dir, struct err *e)
{
    struct dataset_writer *w = NULL;
    int rc = dataset_writer_new(dir, &d->schema, &w, e);

    for (size_t c = 0; c < d->conversations && rc == 0; c++) {
        if (d->conversation[c].split == SPLIT_HELD_OUT)
            rc = dataset_write(w, &d->conversation[c], e);
    }
    if (rc == 0)
        return dataset_writer_end(&w, d->meta, e);
    dataset_writer_abort(&w);
    return rc;
}

struct picks {
    uint32_t *context; /* responses of the held-out part that replies are written for */
    size_t contexts;
    uint32_t *loss;  /* responses whose loss is measured */
    uint32_t *other; /* whose attributes they borrow */
    size_t losses;
};

static void picks_make(const struct dataset *held, const struct evaluate_spec *v, uint64_t seed,
                       struct picks *p)
{
    uint32_t *usable = mem_zalloc(held->responses + 1, sizeof *usable),
             *follow = mem_zalloc(held->responses + 1, sizeof *follow);
    size_t usable_n = 0, follow_n = 0, c;
    uint32_t turn;

    for (size_t i = 0; i < held->responses; i++) {
        dataset_response(held, i, &c, &turn);
        if (!held->conversation[c].turn[turn].kept)
            continue;
        usable[usable_n++] = (uint32_t)i;
        if (turn > 0)
            follow[follow_n++] = (uint32_t)i; /* something was said before */
    }
    const uint32_t *from =
        follow_n > 0 ? follow : usable; /* texts without a prompt are written from nothing */
    size_t from_n = follow_n > 0 ? follow_n : usable_n;
    p->contexts = (size_t)v->contexts < from_n ? (size_t)v->contexts : from_n;
    p->context = mem_zalloc(p->contexts + 1, sizeof *p->context);
    for (size_t i = 0; i < p->contexts; i++)
        p->context[i] =
            from[rng_permute(seed, RNG_PICK, STREAM_CONTEXTS, (uint32_t)from_n, (uint32_t)i)];
    p->losses =
        v->loss_rows > 0 && (size_t)v->loss_rows < usable_n ? (size_t)v->loss_rows : usable_n;
    p->loss = mem_zalloc(p->losses + 1, sizeof *p->loss);
    p->other = mem_zalloc(p->losses + 1, sizeof *p->other);
    for (size_t i = 0; i < p->losses; i++) {
        p->loss[i] = p->losses == usable_n ? usable[i]
                                           : usable[rng_permute(seed, RNG_PICK, STREAM_SHUFFLE,
                                                                (uint32_t)usable_n, (uint32_t)i)];
    }
    for (size_t i = 0; i < p->losses; i++)
        p->other[i] = p->loss[rng_permute(seed, RNG_SHUFFLE, STREAM_SHUFFLE, (uint32_t)p->losses,
                                          (uint32_t)i)];
    free(usable);
    free(follow);
}

static void reply_line(struct buf *out, int m, int g, int a, int l, size_t c, int64_t response)
{
    buf_printf(out, "{\"m\":%d,\"g\":%d,\"a\":%d,\"l\":%d,\"c\":%zu,\"r\":%lld}\n", m, g, a, l, c,
               (long long)response);
}

/* k-th reply of a model: context by context, the plain one first, then every setting. */
static void reply_item(struct buf *out, const struct results *r, const struct picks *p, int m,
                       size_t k)
{
    size_t settings = 1 + (size_t)(r->guidances * r->attrs * r->levels);
    size_t c = k / settings;
    int s = (int)(k % settings) - 1, per = r->attrs * r->levels;
    int64_t response = p->context != NULL ? (int64_t)p->context[c] : -1;

    if (s < 0)
        reply_line(out, m, 0, -1, 0, c, response);
    else
        reply_line(out, m, s / per, s % per / r->levels, s % r->levels, c, response);
}

static int items_write(const struct results *r, const struct picks *p, size_t *rows,
                       struct buf *out, struct err *e)
{
    size_t replies = p->contexts * (1 + (size_t)(r->guidances * r->attrs * r->levels));
    size_t all = replies + p->losses;

    *rows = all * (size_t)r->models;
    if (*rows == 0)
        return err_set(
            e, ERR_INVALID,
            "nothing to evaluate: no held-out response is usable, and there are no contexts");
    if (*rows > EVALUATE_ROWS_MAX)
        return err_set(e, ERR_LIMIT,
                       "evaluation has %zu rows, at most %u: fewer models, contexts, levels or "
                       "guidance strengths",
                       *rows, EVALUATE_ROWS_MAX);
    for (int m = 0; m < r->models; m++) {
        for (size_t k = 0, done = 0; k < all; k++) {
            if ((k + 1) * p->losses / all > done) { /* spread evenly among the replies */
                buf_printf(out, "{\"m\":%d,\"r\":%u,\"s\":%u}\n", m, p->loss[done], p->other[done]);
                done++;
            } else {
                reply_item(out, r, p, m, k - done);
            }
        }
    }
    return 0;
}

static int publish_text(const struct run_env *env, struct run_result *r, const char *name,
                        const struct buf *text, struct err *e)
{
    char *path = mem_printf("%s/%s", env->scratch, name);
    int rc = file_write_atomic(path, text->len > 0 ? text->data : "", text->len, e);

    if (rc == 0)
        rc = run_publish(env, r, name, path, e);
    free(path);
    return rc;
}

/* Is any response an answer to something? If not, replies are written from nothing, and nothing
 * need be held out for them. */
static bool has_prompts(const struct dataset *d)
{
    for (size_t i = 0; i < d->responses; i++) {
        size_t c;
        uint32_t turn;
        dataset_response(d, i, &c, &turn);
        if (turn > 0)
            return true;
    }
    return false;
}

static int held_part(const struct run_task *t, const struct run_env *env, struct dataset *held,
                     struct run_result *r, struct err *e)
{
    struct dataset all = {0};
    char *dir = mem_printf("%s/held", env->scratch);
    int rc = run_dataset(t, env, "data", &all, e);

    if (rc == 0)
        rc = held_write(&all, dir, e);
    if (rc == 0)
        rc = dataset_load(dir, held, e);
    if (rc == 0 && held->responses == 0 && has_prompts(&all))
        rc = err_set(e, ERR_INVALID,
                     "input data has no held-out responses to evaluate on (data.split.held_out)");
    if (rc == 0)
        rc = run_publish(env, r, "held", dir, e);
    dataset_free(&all);
    free(dir);
    return rc;
}

int run_evaluate_items(const struct run_task *t, const struct run_env *env, struct run_result *r,
                       struct err *e)
{
    struct dataset held = {0};
    struct schema *judge = mem_zalloc(1, sizeof *judge);
    struct results *design = mem_zalloc(1, sizeof *design);
    struct picks picks = {0};
    struct buf text = BUF_INIT;
    bool has_judge = false;
    size_t rows = 0;
    int rc = held_part(t, env, &held, r, e);

    if (rc == 0)
        rc = evaluate_judge_schema(t, env, judge, &has_judge, e);
    if (rc == 0)
        rc = evaluate_design(t, &held.schema, has_judge ? judge : NULL, design, e);
    if (rc == 0) {
        if (held.responses > 0)
            picks_make(&held, &t->spec->evaluate, t->spec->seed, &picks);
        else
            picks.contexts = (size_t)t->spec->evaluate.contexts;
        rc = items_write(design, &picks, &rows, &text, e);
    }
    if (rc == 0)
        rc = publish_text(env, r, "items", &text, e);
    if (rc == 0) {
        run_metric(r, "rows", (double)rows);
        run_metric(r, "contexts", (double)picks.contexts);
        run_metric(r, "loss_rows", (double)picks.losses);
    }
    dataset_free(&held);
    free(picks.context);
    free(picks.loss);
    free(picks.other);
    free(design);
    free(judge);
    buf_free(&text);
    return rc;
}
