/*
 * annotate.rows: a range of conversations -> one JSON line each: {"c": index, "t": [{"i": turn,
 * "n": tokens, "k": kept, "x": truncated, "v": [value an attribute], "p": [[probability a class] a
 * label]}]}. Values are what a model says (one that has not seen the row, where there are folds) or
 * a measure of the text; levels are made by annotate.reduce, which sees all rows.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/beat.h"
#include "base/buf.h"
#include "base/clock.h"
#include "data/measure.h"
#include "jobs/run_common.h"
#include "jobs/run_score.h"

struct annotate {
    struct dataset data; /* only the range has turns */
    struct arena arena;
    struct run_scorer *scorer; /* NULL: computed attributes only */
    struct model base;         /* for its tokenizer, when there is no attribute model */
    const struct tokenizer *tokenizer;
    struct run_keep keep;
    struct ids ids;
    struct buf lines;
    size_t next; /* index in the scorer of the next response */
    uint64_t responses, kept, truncated;
};

static bool is_in_range(const void *self, size_t conversation)
{
    const struct run_task *t = self;

    return conversation >= t->begin && conversation < t->end;
}

static int annotate_open(struct annotate *a, const struct run_task *t, const struct run_env *env,
                         struct err *e)
{
    int rc = run_dataset_rows(t, env, "data", t, is_in_range, &a->data, &a->arena, e);

    if (rc != 0)
        return rc;
    if (t->begin > t->end || t->end > a->data.conversations)
        return err_set(e, ERR_INVALID, "rows %llu..%llu of a data set of %zu conversations",
                       (unsigned long long)t->begin, (unsigned long long)t->end,
                       a->data.conversations);
    a->keep = run_keep_of(&a->data);
    if (run_input_count(t, "model") > 0) {
        rc = run_scorer_new(t, env, "model", &a->data.schema, &a->scorer, e);
        if (rc == 0)
            a->tokenizer = run_scorer_tokenizer(a->scorer);
    } else if (run_input_count(t, "base") > 0) {
        rc = run_model(t, env, "base", MODEL_TOKENIZER, &a->base, e);
        a->tokenizer = a->base.tokenizer;
    } else if (a->keep.max_reply_tokens > 0) {
        rc = err_set(e, ERR_INVALID,
                     "keep.max_reply_tokens is %d, but neither input model nor input base has a "
                     "tokenizer to count with",
                     a->keep.max_reply_tokens);
    }
    return rc;
}

static int range_score(struct annotate *a, const struct run_task *t, const struct run_env *env,
                       struct err *e)
{
    if (a->scorer == NULL)
        return 0;
    for (uint64_t i = t->begin; i < t->end; i++) {
        const struct conversation *c = &a->data.conversation[i];
        int64_t fold = c->split == SPLIT_TRAIN ? (int64_t)c->fold : RUN_SCORE_ALL;
        for (uint32_t k = 0; k < c->turns; k++) {
            if (c->turn[k].respond)
                (void)run_scorer_add(a->scorer, c, k, NULL, 0, fold);
        }
    }
    return run_scorer_run(a->scorer, env, e);
}

/* Has the model's label the data's classes? Otherwise its probabilities say nothing of the data's labels. */
static bool label_is_known(const struct schema *model, const struct schema *data, int label)
{
    const struct label *a = &model->label[label], *b = &data->label[label];

    if (label >= model->labels || strcmp(a->name, b->name) != 0 || a->type != b->type ||
        a->classes != b->classes)
        return false;
    for (int i = 0; a->type == LABEL_CLASSES && i < a->classes; i++)
        if (strcmp(a->class_name[i], b->class_name[i]) != 0)
            return false;
    return a->type == LABEL_CLASSES ||
           (rint(a->min) == rint(b->min) && rint(a->max) == rint(b->max));
}

static void values_write(struct annotate *a, const struct turn *turn,
                         const struct run_scored *scored)
{
    const struct schema *s = &a->data.schema;

    buf_str(&a->lines, "\"v\":[");
    for (int i = 0; i < s->attrs; i++) {
        double v = (double)NAN;
        if (s->attr[i].type == ATTR_COMPUTED)
            v = (double)(float)measure_text((enum measure)s->attr[i].measure, turn->text,
                                            turn->text_len);
        else if (scored != NULL)
            v = (double)scored->value[i];
        if (i > 0)
            buf_char(&a->lines, ',');
        run_number(&a->lines, v);
    }
    buf_char(&a->lines, ']');
    if (scored == NULL || scored->probs == NULL)
        return;
    buf_str(&a->lines, ",\"p\":[");
    for (int label = 0; label < s->labels; label++) {
        int begin = 0, n = 0;
        if (label_is_known(run_scorer_schema(a->scorer), s, label))
            n = run_scorer_probs(a->scorer, label, &begin);
        buf_str(&a->lines, label > 0 ? ",[" : "[");
        for (int k = 0; k < n; k++) {
            if (k > 0)
                buf_char(&a->lines, ',');
            run_number(&a->lines, (double)scored->probs[begin + k]);
        }
        buf_char(&a->lines, ']');
    }
    buf_char(&a->lines, ']');
}

static int response_write(struct annotate *a, uint32_t turn_index, const struct turn *turn,
                          struct err *e)
{
    struct run_scored scored = {0};
    bool kept;
    int rc = 0;

    a->ids.n = 0;
    if (a->tokenizer != NULL)
        rc = tokenizer_encode(a->tokenizer, turn->text, turn->text_len, 0, &a->ids, e);
    if (rc != 0)
        return rc;
    kept = a->keep.max_reply_tokens <= 0 || a->ids.n <= (size_t)a->keep.max_reply_tokens;
    if (a->scorer != NULL)
        scored = run_scorer_get(a->scorer, a->next++);
    buf_printf(&a->lines, "{\"i\":%u,\"k\":%d,\"n\":%zu,\"x\":%d,", turn_index, kept, a->ids.n,
               scored.truncated);
    values_write(a, turn, a->scorer != NULL ? &scored : NULL);
    buf_char(&a->lines, '}');
    a->responses++;
    a->kept += kept;
    a->truncated += scored.truncated;
    return 0;
}

static int range_write(struct annotate *a, const struct run_task *t, struct err *e)
{
    for (uint64_t i = t->begin; i < t->end; i++) {
        const struct conversation *c = &a->data.conversation[i];
        bool first = true;
        buf_printf(&a->lines, "{\"c\":%llu,\"t\":[", (unsigned long long)i);
        for (uint32_t k = 0; k < c->turns; k++) {
            int rc;
            if (!c->turn[k].respond)
                continue;
            if (!first)
                buf_char(&a->lines, ',');
            first = false;
            rc = response_write(a, k, &c->turn[k], e);
            if (rc != 0)
                return err_wrap(e, "%s (%s), turn %u", c->id, c->source, k);
        }
        buf_str(&a->lines, "]}\n");
        beat();
    }
    return 0;
}

int run_annotate_rows(const struct run_task *t, const struct run_env *env, struct run_result *r,
                      struct err *e)
{
    struct annotate a = {0};
    uint64_t start = clock_ms();
    int rc = annotate_open(&a, t, env, e);

    if (rc == 0)
        rc = range_score(&a, t, env, e);
    if (rc == 0)
        rc = range_write(&a, t, e);
    if (rc == 0)
        rc = run_part_publish(t, env, r, &a.lines, e);
    if (rc == 0) {
        run_metric(r, "responses", (double)a.responses);
        run_metric(r, "kept", (double)a.kept);
        run_metric(r, "truncated", (double)a.truncated);
        run_metric(r, "tokens", a.scorer != NULL ? (double)run_scorer_rows(a.scorer) : 0.0);
        run_metric(r, "wall_ms", (double)(clock_ms() - start));
    }
    buf_free(&a.lines);
    ids_free(&a.ids);
    run_scorer_free(a.scorer);
    model_fini(&a.base);
    dataset_free(&a.data);
    arena_free(&a.arena);
    return rc;
}
