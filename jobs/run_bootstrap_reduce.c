/*
 * bootstrap.reduce: replies and what the attribute model said of them -> a data set of the good
 * ones. Kept is a reply that is whole, has text, is not longer than the data's own bound, was seen
 * uncut by the attribute model, and whose predicted levels satisfy `keep`; of equal texts the first
 * that is kept. Its levels are the predicted ones, whatever was asked for.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "jobs/run_bootstrap.h"
#include "jobs/run_items.h"
#include "jobs/run_replies.h"

struct scored {
    float value[SCHEMA_ATTRS_MAX];
    int8_t level[SCHEMA_ATTRS_MAX];
    bool truncated;
};

struct reduce {
    struct dataset data; /* only conversations that items lie in have turns */
    struct arena arena;
    struct run_items items;
    struct run_replies replies;
    struct scored *scored;
    size_t next;
    struct run_condition keep[SCHEMA_ATTRS_MAX];
    bool *is_kept;
    uint64_t cut_off, empty, too_long, truncated, unlike, repeated, kept;
};

static int score_take(void *self, const cJSON *line, struct err *e)
{
    struct reduce *x = self;
    const struct schema *s = &x->data.schema;
    const cJSON *values = json_get(line, "v"), *v;
    struct scored *out;
    int64_t i, truncated;
    int a = 0, rc;

    if ((rc = json_need_int(line, "i", 0, INT64_C(1) << 40, &i, e)) != 0 ||
        (rc = json_need_int(line, "x", 0, 1, &truncated, e)) != 0)
        return rc;
    if ((uint64_t)i != x->next || x->next >= x->items.n)
        return err_set(e, ERR_CORRUPT, "item %lld, %zu was expected of %zu", (long long)i, x->next,
                       x->items.n);
    if (cJSON_GetArraySize(values) != s->attrs)
        return err_set(e, ERR_CORRUPT, "%d values for %d attributes", cJSON_GetArraySize(values),
                       s->attrs);
    out = &x->scored[x->next++];
    out->truncated = truncated != 0;
    cJSON_ArrayForEach(v, values)
    {
        out->value[a] = cJSON_IsNumber(v) ? (float)v->valuedouble : NAN;
        out->level[a] = (int8_t)schema_level(&s->attr[a], (double)out->value[a]);
        a++;
    }
    return 0;
}

static void replies_filter(struct reduce *x, int keep_n)
{
    int most = run_keep_of(&x->data).max_reply_tokens;

    for (size_t i = 0; i < x->items.n; i++) {
        const struct run_reply *reply = &x->replies.v[i];
        if (!run_reply_is_whole(reply->end))
            x->cut_off++;
        else if (reply->len == 0)
            x->empty++;
        else if (most > 0 && reply->tokens > (uint32_t)most)
            x->too_long++;
        else if (x->scored[i].truncated)
            x->truncated++;
        else if (!run_conditions_hold(x->keep, keep_n, x->scored[i].level))
            x->unlike++;
        else
            x->is_kept[i] = true;
    }
}

/* Of equal texts among the kept ones, the first stays. */
static void repeats_drop(struct reduce *x)
{
    struct run_replies kept = {0};
    size_t *place = mem_zalloc(x->items.n + 1, sizeof(*place));
    bool *is_first = mem_zalloc(x->items.n + 1, sizeof(*is_first));

    kept.v = mem_zalloc(x->items.n + 1, sizeof(*kept.v));
    for (size_t i = 0; i < x->items.n; i++) {
        if (!x->is_kept[i])
            continue;
        kept.v[kept.n] = x->replies.v[i]; /* borrowed */
        place[kept.n++] = i;
    }
    (void)run_replies_distinct(&kept, is_first);
    for (size_t k = 0; k < kept.n; k++) {
        if (!is_first[k]) {
            x->is_kept[place[k]] = false;
            x->repeated++;
        }
    }
    free(kept.v);
    free(is_first);
    free(place);
}

static int dataset_put(struct reduce *x, const struct run_env *env, struct run_result *r,
                       struct err *e)
{
    const struct schema *s = &x->data.schema;
    struct dataset_writer *w = NULL;
    struct arena arena = ARENA_INIT;
    char *dir = mem_printf("%s/data", env->scratch);
    cJSON *meta = cJSON_CreateObject();
    int rc = dataset_writer_new(dir, s, &w, e);

    for (size_t i = 0; i < x->items.n && rc == 0; i++) {
        const struct run_reply *reply = &x->replies.v[i];
        struct conversation c;
        struct turn *turn;
        if (!x->is_kept[i])
            continue;
        arena_clear(&arena);
        run_item_conversation(&x->items.v[i], i, &x->data, reply->text, reply->len, s, &arena, &c);
        turn = &c.turn[c.turns - 1];
        memcpy(turn->value, x->scored[i].value, (size_t)s->attrs * sizeof(float));
        memcpy(turn->level, x->scored[i].level, (size_t)s->attrs);
        turn->tokens = reply->tokens;
        rc = dataset_write(w, &c, e);
        x->kept++;
    }
    if (rc == 0) {
        cJSON_AddItemToObject(meta, "keep", run_keep_to_json(run_keep_of(&x->data)));
        cJSON_AddBoolToObject(meta, "annotated", true);
        cJSON_AddStringToObject(meta, "levels", "predicted");
        rc = dataset_writer_end(&w, meta, e);
    }
    dataset_writer_abort(&w);
    arena_free(&arena);
    if (rc == 0)
        rc = run_publish(env, r, "data", dir, e);
    cJSON_Delete(meta);
    free(dir);
    return rc;
}

/* How far what was asked for came true, over all replies that have a label: the mean level asked
 * for and predicted, and the share that is equal. */
static void attr_metrics(const struct reduce *x, int a, struct run_result *r)
{
    const char *attr = x->data.schema.attr[a].name;
    double asked = 0.0, predicted = 0.0, equal = 0.0, n = 0.0;
    char name[96];

    for (size_t i = 0; i < x->items.n; i++) {
        int want = x->items.v[i].level[a], got = x->scored[i].level[a];
        if (want < 0 || got < 0)
            continue;
        asked += want;
        predicted += got;
        equal += want == got;
        n++;
    }
    if (n <= 0.0)
        return;
    (void)snprintf(name, sizeof(name), "requested.%s", attr);
    run_metric(r, name, asked / n);
    (void)snprintf(name, sizeof(name), "predicted.%s", attr);
    run_metric(r, name, predicted / n);
    (void)snprintf(name, sizeof(name), "same_level.%s", attr);
    run_metric(r, name, equal / n);
}

static void metrics_set(const struct reduce *x, struct run_result *r)
{
    run_replies_metrics(&x->replies, r);
    run_metric(r, "rows", (double)x->kept);
    run_metric(r, "dropped.cut_off", (double)x->cut_off);
    run_metric(r, "dropped.empty", (double)x->empty);
    run_metric(r, "dropped.too_long", (double)x->too_long);
    run_metric(r, "dropped.truncated", (double)x->truncated);
    run_metric(r, "dropped.keep", (double)x->unlike);
    run_metric(r, "dropped.repeated", (double)x->repeated);
    for (int a = 0; a < x->data.schema.attrs; a++)
        attr_metrics(x, a, r);
}

static int inputs_load(struct reduce *x, const struct run_task *t, const struct run_env *env,
                       struct err *e)
{
    const struct bootstrap_spec *b = &t->spec->bootstrap;
    struct model policy = {0}; /* its schema is the data's: bootstrap.items has compared them */
    int rc = run_policy(t, env, "model", 0, &policy, e);

    if (rc == 0)
        rc = run_items_load(t, env, "bootstrap.items", &policy.steer.template_config.schema, 0, 0,
                            &x->items, e);
    if (rc == 0)
        rc = run_items_dataset(&x->items, t, env, "data", &x->data, &x->arena, e);
    if (rc == 0)
        rc = schema_same(&policy.steer.template_config.schema, &x->data.schema, e);
    model_fini(&policy);
    if (rc == 0)
        rc = run_conditions_find(b->keep, b->keep_n, "keep", &x->data.schema, x->keep, e);
    if (rc == 0)
        rc = run_replies_load(t, env, "bootstrap.sample", x->items.n, &x->replies, e);
    if (rc != 0)
        return rc;
    x->scored = mem_zalloc(x->items.n + 1, sizeof(*x->scored));
    x->is_kept = mem_zalloc(x->items.n + 1, sizeof(*x->is_kept));
    rc = run_lines(t, env, "bootstrap.score", x, score_take, e);
    if (rc == 0 && x->next != x->items.n)
        rc = err_set(e, ERR_CORRUPT, "phase bootstrap.score has %zu scores for %zu items", x->next,
                     x->items.n);
    return rc;
}

int run_bootstrap_reduce(const struct run_task *t, const struct run_env *env, struct run_result *r,
                         struct err *e)
{
    struct reduce x = {0};
    int rc = inputs_load(&x, t, env, e);

    if (rc == 0) {
        replies_filter(&x, t->spec->bootstrap.keep_n);
        if (t->spec->bootstrap.dedupe)
            repeats_drop(&x);
        rc = dataset_put(&x, env, r, e);
    }
    if (rc == 0 && x.kept == 0)
        rc = err_set(e, ERR_INVALID,
                     "bootstrap.keep: none of %zu replies is left: %llu cut off, %llu empty, %llu "
                     "too long, %llu truncated, "
                     "%llu with other labels",
                     x.items.n, (unsigned long long)x.cut_off, (unsigned long long)x.empty,
                     (unsigned long long)x.too_long, (unsigned long long)x.truncated,
                     (unsigned long long)x.unlike);
    if (rc == 0)
        metrics_set(&x, r);
    free(x.is_kept);
    free(x.scored);
    run_replies_free_all(&x.replies);
    run_items_free(&x.items);
    dataset_free(&x.data);
    arena_free(&x.arena);
    return rc;
}
