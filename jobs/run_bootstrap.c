/*
 * bootstrap: step 4 of SteerLM (Dong et al. 2023, section 3.4). The policy answers training
 * contexts under good label combinations, the attribute model labels what it wrote, and the best of
 * it becomes data to train on, conditioned on the predicted labels.
 *
 * bootstrap.items: the combinations of levels that occur in the kept training responses and satisfy
 * `where`, each once; every (context, sample) draws one of them uniformly, keyed. bootstrap.sample
 * is generate.rows. bootstrap.score labels the replies:
 * {"i": item, "x": truncated, "v": [value an attribute]}. bootstrap.reduce keeps whole replies
 * whose predicted levels satisfy `keep`.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/rng.h"
#include "data/measure.h"
#include "jobs/run_bootstrap.h"
#include "jobs/run_items.h"
#include "jobs/run_replies.h"
#include "jobs/run_score.h"

enum { PICK_COMBINATION = 2 }; /* stream of RNG_PICK; contexts have 1 */

/* ---- label combinations ---------------------------------------------------------------------- */

struct combinations {
    int8_t (*v)[SCHEMA_ATTRS_MAX];
    size_t n, cap;
};

int run_conditions_find(const struct attr_where *list, int n, const char *key,
                        const struct schema *s, struct run_condition *out, struct err *e)
{
    for (int i = 0; i < n; i++) {
        int attr = schema_find_attr(s, list[i].attr);
        if (attr < 0)
            return err_set(e, ERR_INVALID, "bootstrap.%s: the data has no attribute \"%s\"", key,
                           list[i].attr);
        if (list[i].level < 0 || list[i].level >= s->attr[attr].levels)
            return err_set(e, ERR_INVALID,
                           "bootstrap.%s: level %d of attribute \"%s\", must be in 0..%d", key,
                           list[i].level, list[i].attr, s->attr[attr].levels - 1);
        out[i] = (struct run_condition){attr, list[i].op, list[i].level};
    }
    return 0;
}

static bool is_satisfied(const struct run_condition *c, const int8_t *level)
{
    int v = level[c->attr];

    if (v < 0)
        return false;
    return c->op == CMP_EQ ? v == c->level : c->op == CMP_GE ? v >= c->level : v <= c->level;
}

bool run_conditions_hold(const struct run_condition *c, int n, const int8_t *level)
{
    for (int i = 0; i < n; i++) {
        if (!is_satisfied(&c[i], level))
            return false;
    }
    return true;
}

static int combination_compare(const void *a, const void *b)
{
    return memcmp(a, b, SCHEMA_ATTRS_MAX); /* any fixed order will do */
}

static int combinations_find(const struct dataset *d, const struct run_condition *where,
                             int where_n, struct combinations *out, struct err *e)
{
    size_t seen = 0, kept = 0;

    for (size_t i = 0; i < d->responses; i++) {
        size_t c;
        uint32_t k;
        const struct turn *turn;
        dataset_response(d, i, &c, &k);
        turn = &d->conversation[c].turn[k];
        if (d->conversation[c].split != SPLIT_TRAIN || !turn->kept)
            continue;
        seen++;
        if (!run_conditions_hold(where, where_n, turn->level))
            continue;
        if (out->n == out->cap) {
            out->cap = 2 * out->cap + 256;
            out->v = mem_grow(out->v, out->cap, sizeof(*out->v));
        }
        memset(out->v[out->n], -1, sizeof(out->v[out->n]));
        memcpy(out->v[out->n++], turn->level, (size_t)d->schema.attrs);
    }
    if (out->n == 0)
        return err_set(e, ERR_INVALID,
                       "bootstrap.where: none of %zu kept training responses has such levels (is "
                       "the data annotated?)",
                       seen);
    qsort(out->v, out->n, sizeof(*out->v), combination_compare);
    for (size_t i = 0; i < out->n; i++) {
        if (kept == 0 || memcmp(out->v[kept - 1], out->v[i], sizeof(*out->v)) != 0)
            memmove(out->v[kept++], out->v[i], sizeof(*out->v));
    }
    out->n = kept;
    return 0;
}

/* ---- items ----------------------------------------------------------------------------------- */

static int items_draw(const struct run_task *t, const struct combinations *combos,
                      const struct run_context *contexts, size_t n, struct run_items *items,
                      struct err *e)
{
    uint32_t samples = (uint32_t)t->spec->bootstrap.samples_per_prompt;

    if (samples == 0 || n > RUN_ITEMS_MAX / samples)
        return err_set(e, ERR_LIMIT, "%zu contexts with %u samples each, at most %u replies", n,
                       samples, RUN_ITEMS_MAX);
    for (size_t c = 0; c < n; c++) {
        for (uint32_t j = 0; j < samples; j++) {
            struct run_item *item = run_items_add(items);
            uint32_t pick = rng_below(t->spec->seed, RNG_PICK, PICK_COMBINATION, (uint32_t)c, j,
                                      (uint32_t)combos->n);
            item->key = run_context_key(contexts[c]);
            item->sample = j;
            item->has_context = true;
            item->context = contexts[c];
            memcpy(item->level, combos->v[pick], sizeof(item->level));
        }
    }
    return 0;
}

int run_bootstrap_items(const struct run_task *t, const struct run_env *env, struct run_result *r,
                        struct err *e)
{
    const struct bootstrap_spec *b = &t->spec->bootstrap;
    struct run_condition where[SCHEMA_ATTRS_MAX];
    struct model m = {0};
    struct dataset d = {0};
    struct combinations combos = {0};
    struct run_context *contexts = NULL;
    struct run_items items = {0};
    size_t n = 0;
    int rc = run_policy(t, env, "model", 0, &m, e);

    if (rc == 0)
        rc = run_dataset(t, env, "data", &d, e);
    if (rc == 0 && (rc = schema_same(&m.steer.template_config.schema, &d.schema, e)) != 0)
        err_wrap(e, "the policy of input model against the data");
    if (rc == 0)
        rc = run_conditions_find(b->where, b->where_n, "where", &d.schema, where, e);
    if (rc == 0)
        rc = combinations_find(&d, where, b->where_n, &combos, e);
    if (rc == 0)
        rc = run_contexts(&d, "train", (size_t)b->prompts, t->spec->seed, &contexts, &n, e);
    if (rc == 0)
        rc = items_draw(t, &combos, contexts, n, &items, e);
    if (rc == 0)
        rc = run_items_publish(&items, d.schema.attrs, env, r, e);
    if (rc == 0) {
        run_metric(r, "contexts", (double)n);
        run_metric(r, "combinations", (double)combos.n);
    }
    run_items_free(&items);
    free(contexts);
    free(combos.v);
    dataset_free(&d);
    model_fini(&m);
    return rc;
}

/* ---- score ----------------------------------------------------------------------------------- */

static void scores_write(const struct run_replies *replies, const struct run_scorer *scorer,
                         struct buf *b)
{
    const struct schema *s = run_scorer_schema(scorer);
    size_t next = 0;

    for (size_t i = 0; i < replies->n; i++) {
        const struct run_reply *reply = &replies->v[i];
        struct run_scored scored = {0};
        if (reply->len > 0)
            scored = run_scorer_get(scorer, next++);
        buf_printf(b, "{\"i\":%llu,\"v\":[", (unsigned long long)(replies->first + i));
        for (int a = 0; a < s->attrs; a++) {
            double v = (double)NAN;
            if (reply->len > 0)
                v = s->attr[a].type == ATTR_COMPUTED
                        ? (double)(float)measure_text((enum measure)s->attr[a].measure, reply->text,
                                                      reply->len)
                        : (double)scored.value[a];
            if (a > 0)
                buf_char(b, ',');
            run_number(b, v);
        }
        buf_printf(b, "],\"x\":%d}\n", scored.truncated);
    }
}

int run_bootstrap_score(const struct run_task *t, const struct run_env *env, struct run_result *r,
                        struct err *e)
{
    struct dataset d = {0};
    struct arena arena = ARENA_INIT;
    struct run_items items = {0};
    struct run_replies replies = {0};
    struct run_scorer *scorer = NULL;
    struct buf lines = BUF_INIT;
    uint64_t start = clock_ms();
    int rc = run_scorer_new(t, env, "judge", NULL, &scorer, e);

    if (rc == 0)
        rc = run_items_load(t, env, "bootstrap.items", run_scorer_schema(scorer), t->begin, t->end,
                            &items, e);
    if (rc == 0)
        rc = run_items_dataset(&items, t, env, "data", &d, &arena, e);
    if (rc == 0 && (rc = schema_same(&d.schema, run_scorer_schema(scorer), e)) != 0)
        err_wrap(e, "the data against the attribute model of input judge");
    if (rc == 0)
        rc = run_replies_load_range(t, env, "bootstrap.sample",
                                    (uint64_t)t->spec->bootstrap.rows_per_task, t->begin, t->end,
                                    &replies, e);
    for (size_t i = 0; rc == 0 && i < replies.n;
         i++) { /* nobody has been trained on these: the mean of all models */
        const struct run_context at = items.v[i].context;
        if (replies.v[i].len > 0)
            (void)run_scorer_add(scorer, &d.conversation[at.conversation], at.turn,
                                 replies.v[i].text, replies.v[i].len, RUN_SCORE_ALL);
    }
    if (rc == 0)
        rc = run_scorer_run(scorer, env, e);
    if (rc == 0) {
        scores_write(&replies, scorer, &lines);
        rc = run_part_publish(t, env, r, &lines, e);
    }
    if (rc == 0) {
        run_metric(r, "tokens", (double)run_scorer_rows(scorer));
        run_metric(r, "wall_ms", (double)(clock_ms() - start));
    }
    buf_free(&lines);
    run_scorer_free(scorer);
    run_replies_free_all(&replies);
    run_items_free(&items);
    dataset_free(&d);
    arena_free(&arena);
    return rc;
}
