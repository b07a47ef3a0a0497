/*
 * evaluate.rows: a range of items -> one JSON line each, in order:
 *   {"m","g","a","l","c": the item; "n": tokens written, "w": ended by itself, "nll","k": nats over
 * k tokens of the reply under the same model without attributes, "bnll","bk": under the base model,
 * "v": [measures], "text"}
 *   {"m","r": the item; "k": tokens, "t","s","x": nats with true, shuffled and missing attributes}
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "jobs/run_common.h"
#include "jobs/run_decode.h"
#include "jobs/run_evaluate.h"
#include "jobs/run_score.h"

struct written { /* what became of an item */
    struct run_reply reply;
    double nll[3], base_nll; /* reply: [0] without attributes; loss: true, shuffled, missing */
    size_t scored, base_scored;
    size_t judged; /* index in the scorer */
};

struct rows {
    const struct run_task *t;
    const struct run_env *env;
    struct results *design;
    struct dataset held;
    int context_tokens;
    struct conversation nothing; /* what a reply from nothing stands in */
    struct run_scorer *scorer;   /* NULL: no judge */
    struct evaluate_item *item;
    struct written *out;
    size_t n;
};

static int items_read(struct rows *x, struct err *e)
{
    char path[4096];
    struct lines *lines = NULL;
    struct line line;
    bool more = true;
    uint64_t at = 0, want = x->t->end - x->t->begin;
    int rc = run_phase_output(x->t, x->env, "evaluate.items", "items", path, sizeof path, e);

    if (rc == 0)
        rc = lines_open(path, LINES_LIMITS, &lines, e);
    x->item = mem_zalloc(want + 1, sizeof *x->item);
    x->out = mem_zalloc(want + 1, sizeof *x->out);
    while (rc == 0 && x->n < want && (rc = lines_next(lines, &line, &more, e)) == 0 && more) {
        cJSON *j = NULL;
        if (at++ < x->t->begin)
            continue;
        rc = json_parse(line.text, line.len, JSON_LIMITS_LINE, &j, e);
        if (rc == 0)
            rc = evaluate_item_of(j, x->design, &x->item[x->n], e);
        cJSON_Delete(j);
        if (rc != 0)
            err_wrap(e, "items, line %llu", (unsigned long long)at);
        x->n++;
    }
    lines_close(lines);
    if (rc == 0 && x->n < want)
        rc = err_set(e, ERR_INVALID, "rows %llu..%llu of %llu items",
                     (unsigned long long)x->t->begin, (unsigned long long)x->t->end,
                     (unsigned long long)at);
    return rc;
}

static int place_of(const struct rows *x, int64_t response, const struct conversation **c,
                    uint32_t *turn, struct err *e)
{
    size_t at;

    *c = &x->nothing;
    *turn = 0;
    if (response < 0)
        return 0;
    if ((size_t)response >= x->held.responses)
        return err_set(e, ERR_CORRUPT, "item names response %lld of %zu", (long long)response,
                       x->held.responses);
    dataset_response(&x->held, (size_t)response, &at, turn);
    *c = &x->held.conversation[at];
    return 0;
}

static int rows_open(struct rows *x, struct err *e)
{
    struct schema *judge = mem_zalloc(1, sizeof *judge);
    bool has_judge = false;
    int rc = evaluate_held_open(x->t, x->env, &x->held, e);

    if (rc == 0)
        rc = evaluate_judge_schema(x->t, x->env, judge, &has_judge, e);
    if (rc == 0)
        rc = evaluate_design(x->t, &x->held.schema, has_judge ? judge : NULL, x->design, e);
    if (rc == 0 && has_judge)
        rc = run_scorer_new(x->t, x->env, "judge", NULL, &x->scorer, e);
    if (rc == 0)
        rc = items_read(x, e);
    x->context_tokens = rc == 0 ? run_keep_of(&x->held).context_tokens : 0;
    x->nothing = (struct conversation){.id = "nothing", .source = ""};
    free(judge);
    return rc;
}

/* ---- writing replies ------------------------------------------------------------------------- */

static int prompt_make(struct rows *x, const struct model *m, const struct template_config *cfg,
                       size_t i, struct run_prompt *p, struct err *e)
{
    const struct evaluate_item *item = &x->item[i];
    const struct conversation *c;
    int8_t level[SCHEMA_ATTRS_MAX];
    uint32_t turn;
    int rc = place_of(x, item->response, &c, &turn, e);

    p->key = x->t->begin + i;
    p->sampling = x->t->spec->evaluate.sampling;
    p->sampling.guidance = item->attr < 0 ? 1.0f : (float)x->design->guidance[item->guidance];
    evaluate_levels(&x->held.schema, x->design, item->attr, item->level, level);
    if (rc == 0)
        rc = template_prompt(cfg, m->tokenizer, c, turn, level, &p->prompt, e);
    if (rc == 0 && p->prompt.n == 0)
        rc = err_set(e, ERR_INVALID,
                     "item %llu: an empty prompt: the tokenizer has no BOS and the context no text",
                     (unsigned long long)p->key);
    memset(level, -1, sizeof level);
    if (rc == 0 && item->attr >= 0 && cfg->schema.attrs > 0 &&
        (p->sampling.guidance < 1.0f || p->sampling.guidance > 1.0f))
        rc = template_prompt(cfg, m->tokenizer, c, turn, level, &p->uncond, e);
    return rc;
}

static int replies_write(struct rows *x, int model, const struct model *m,
                         const struct template_config *cfg, struct err *e)
{
    struct run_prompt *prompt = mem_zalloc(x->n + 1, sizeof *prompt);
    struct run_reply *reply = mem_zalloc(x->n + 1, sizeof *reply);
    size_t n = 0, k = 0;
    int rc = 0;

    for (size_t i = 0; i < x->n && rc == 0; i++) {
        if (x->item[i].model == model && !x->item[i].is_loss)
            rc = prompt_make(x, m, cfg, i, &prompt[n++], e);
    }
    if (rc == 0 && n > 0)
        rc = run_decode(m, run_decode_weights(&x->t->spec->evaluate.decode), NULL, x->t->spec->seed,
                        prompt, n, x->env, reply, NULL, e);
    for (size_t i = 0; i < x->n && rc == 0; i++) {
        if (x->item[i].model == model && !x->item[i].is_loss)
            x->out[i].reply = reply[k++];
    }
    if (rc == 0)
        free(reply); /* the texts have moved */
    else
        run_replies_free(reply, n);
    run_prompts_free(prompt, n);
    return rc;
}

/* ---- losses ---------------------------------------------------------------------------------- */

/* Attributes of the other response; what is computed from the text itself stays, or the gap would
 * measure lengths. Where all attributes are computed they are all taken from it. */
static void levels_shuffled(const struct rows *x, const struct turn *own, const struct turn *other,
                            int8_t *out)
{
    bool all_computed = true;

    for (int a = 0; a < x->held.schema.attrs; a++)
        all_computed = all_computed && x->design->computed[a];
    memset(out, -1, SCHEMA_ATTRS_MAX * sizeof *out);
    for (int a = 0; a < x->held.schema.attrs; a++)
        out[a] = x->design->computed[a] && !all_computed ? own->level[a] : other->level[a];
}

/* A reply that does not fit is cut at another place with other attributes, because they take other room: all are scored up to the
 * first of them, or a difference would be one of lengths. */
static void tails_level(struct evaluate_tail *tail, size_t n, size_t context)
{
    size_t least = SIZE_MAX;

    for (size_t k = 0; k < n; k++) {
        size_t room = evaluate_tail_room(&tail[k], context);
        least = room < least ? room : least;
    }
    for (size_t k = 0; k < n; k++)
        tail[k].tail.n = least;
}

static int loss_tails(struct rows *x, const struct model *m, const struct template_config *cfg,
                      size_t i, struct evaluate_tail *tail, struct err *e)
{
    const struct evaluate_item *item = &x->item[i];
    const struct conversation *c, *d;
    int8_t level[3][SCHEMA_ATTRS_MAX];
    uint32_t turn, other;
    int rc = place_of(x, item->response, &c, &turn, e);

    if (rc == 0)
        rc = place_of(x, item->other, &d, &other, e);
    if (rc != 0)
        return rc;
    if (item->response < 0)
        return err_set(e, ERR_CORRUPT, "item of a loss names no response");
    memset(level, -1, sizeof level);
    memcpy(level[0], c->turn[turn].level, (size_t)x->held.schema.attrs);
    levels_shuffled(x, &c->turn[turn], &d->turn[other], level[1]);
    for (int k = 0; k < 3 && rc == 0; k++)
        rc = evaluate_tail_of(cfg, m->tokenizer, c, turn, NULL, 0, true, level[k], &tail[k], e);
    if (rc == 0)
        tails_level(tail, 3, (size_t)m->dims.context);
    return rc;
}

static int reply_tail(struct rows *x, const struct model *m, const struct template_config *cfg,
                      size_t i, struct evaluate_tail *tail, struct err *e)
{
    const struct run_reply *reply = &x->out[i].reply;
    const struct conversation *c;
    int8_t none[SCHEMA_ATTRS_MAX];
    uint32_t turn;
    int rc = place_of(x, x->item[i].response, &c, &turn, e);

    memset(none, -1, sizeof none);
    if (rc == 0)
        rc = evaluate_tail_of(cfg, m->tokenizer, c, turn, reply->text, reply->len,
                              run_reply_is_whole(reply->end), none, tail, e);
    return rc;
}

static int losses_measure(struct rows *x, int model, const struct model *m,
                          const struct template_config *cfg, struct err *e)
{
    struct evaluate_tail *tail = mem_zalloc(3 * x->n + 1, sizeof *tail);
    size_t n = 0, k = 0;
    int rc = run_check_cancelled(x->env, e);

    for (size_t i = 0; i < x->n && rc == 0; i++) {
        if (x->item[i].model != model)
            continue;
        if (x->item[i].is_loss)
            rc = loss_tails(x, m, cfg, i, tail + n, e);
        else
            rc = reply_tail(x, m, cfg, i, tail + n, e);
        n += x->item[i].is_loss ? 3 : 1;
    }
    if (rc == 0)
        evaluate_losses(m, tail, n, x->env->heartbeat);
    for (size_t i = 0; i < x->n && rc == 0; i++) {
        if (x->item[i].model != model)
            continue;
        x->out[i].scored = tail[k].scored;
        for (int j = 0; j < (x->item[i].is_loss ? 3 : 1); j++)
            x->out[i].nll[j] = tail[k++].nll;
    }
    evaluate_tails_free(tail, n);
    return rc;
}

/* Fluency as the model that all of this began with sees it: the text alone, after BOS. */
static int base_measure(struct rows *x, struct err *e)
{
    struct evaluate_tail *tail = mem_zalloc(x->n + 1, sizeof *tail);
    struct model m = {0};
    struct template_config cfg = {0};
    size_t n = 0;
    int8_t none[SCHEMA_ATTRS_MAX];
    int rc = run_model(x->t, x->env, "base", MODEL_ALL, &m, e);

    memset(none, -1, sizeof none);
    if (rc == 0 && m.dims.head != HEAD_LM)
        rc = err_set(e, ERR_INVALID, "input base is a regression model: it has no loss of a text");
    if (rc == 0)
        cfg = evaluate_reading(&m, 0);
    for (size_t i = 0; i < x->n && rc == 0; i++) {
        const struct run_reply *reply = &x->out[i].reply;
        if (!x->item[i].is_loss)
            rc = evaluate_tail_of(&cfg, m.tokenizer, &x->nothing, 0, reply->text, reply->len, false,
                                  none, &tail[n++], e);
    }
    if (rc == 0)
        evaluate_losses(&m, tail, n, x->env->heartbeat);
    for (size_t i = 0, k = 0; i < x->n && rc == 0; i++) {
        if (x->item[i].is_loss)
            continue;
        x->out[i].base_nll = tail[k].nll;
        x->out[i].base_scored = tail[k++].scored;
    }
    evaluate_tails_free(tail, n);
    model_fini(&m);
    return rc;
}

static int model_measure(struct rows *x, int model, struct err *e)
{
    char path[4096];
    struct model m = {0};
    struct template_config cfg = {0};
    bool any = false;
    int rc;

    for (size_t i = 0; i < x->n; i++)
        any = any || x->item[i].model == model;
    if (!any)
        return 0;
    rc = evaluate_model_path(x->t, x->env, x->design->model[model], path, sizeof path, e);
    if (rc == 0)
        rc = model_load(path, MODEL_ALL, &m, e);
    if (rc == 0)
        rc = run_steer_check(&m, e);
    if (rc == 0 && (m.steer.role == STEER_ATTRIBUTE_MODEL || m.dims.head != HEAD_LM))
        rc = err_set(e, ERR_INVALID, "is an attribute model: it writes no replies");
    if (rc == 0 && m.steer.role == STEER_POLICY)
        rc = schema_same(&m.steer.template_config.schema, &x->held.schema, e);
    if (rc == 0) {
        cfg = evaluate_reading(&m, x->context_tokens);
        rc = replies_write(x, model, &m, &cfg, e);
        if (rc == 0)
            rc = losses_measure(x, model, &m, &cfg, e);
    }
    if (rc != 0)
        err_wrap(e, "model %s", x->design->model[model]);
    model_fini(&m);
    return rc;
}

static int judge_measure(struct rows *x, struct err *e)
{
    if (x->scorer == NULL)
        return 0;
    for (size_t i = 0; i < x->n; i++) {
        const struct run_reply *reply = &x->out[i].reply;
        const struct conversation *c;
        uint32_t turn;
        int rc;
        if (x->item[i].is_loss)
            continue;
        if ((rc = place_of(x, x->item[i].response, &c, &turn, e)) != 0)
            return rc;
        x->out[i].judged =
            run_scorer_add(x->scorer, c, turn, reply->text, reply->len, RUN_SCORE_ALL);
    }
    return run_scorer_run(x->scorer, x->env, e);
}

/* ---- lines ----------------------------------------------------------------------------------- */

static void measures_line(const struct rows *x, size_t i, struct buf *out)
{
    const struct run_reply *reply = &x->out[i].reply;
    const struct results *r = x->design;
    struct run_scored scored = {0};

    if (x->scorer != NULL)
        scored = run_scorer_get(x->scorer, x->out[i].judged);
    buf_str(out, ",\"v\":[");
    for (int m = 0; m < r->measures; m++) {
        if (m > 0)
            buf_char(out, ',');
        if (r->measure[m].judged) {
            int a = schema_find_attr(run_scorer_schema(x->scorer), r->attr[r->measure[m].attr]);
            run_number(out, (double)scored.value[a]);
        } else {
            run_number(out, measure_text((enum measure)measure_find(r->measure[m].name),
                                         reply->text, reply->len));
        }
    }
    buf_str(out, "],\"text\":");
    json_quote(reply->text, reply->len, out);
}

static void item_line(const struct rows *x, size_t i, struct buf *out)
{
    const struct evaluate_item *item = &x->item[i];
    const struct written *w = &x->out[i];

    if (item->is_loss) {
        buf_printf(out, "{\"m\":%d,\"r\":%lld,\"k\":%zu,\"t\":", item->model,
                   (long long)item->response, w->scored);
        run_number(out, w->nll[0]);
        buf_str(out, ",\"s\":");
        run_number(out, w->nll[1]);
        buf_str(out, ",\"x\":");
        run_number(out, w->nll[2]);
    } else {
        buf_printf(out,
                   "{\"m\":%d,\"g\":%d,\"a\":%d,\"l\":%d,\"c\":%zu,\"r\":%lld,\"n\":%u,\"w\":%d,"
                   "\"k\":%zu,\"nll\":",
                   item->model, item->guidance, item->attr, item->level, item->context,
                   (long long)item->response, w->reply.tokens, run_reply_is_whole(w->reply.end),
                   w->scored);
        run_number(out, w->nll[0]);
        buf_printf(out, ",\"bk\":%zu,\"bnll\":", w->base_scored);
        run_number(out, w->base_nll);
        measures_line(x, i, out);
    }
    buf_str(out, "}\n");
}

int run_evaluate_rows(const struct run_task *t, const struct run_env *env, struct run_result *r,
                      struct err *e)
{
    struct rows *x = mem_zalloc(1, sizeof *x);
    struct buf lines = BUF_INIT;
    uint64_t tokens = 0;
    int rc;

    x->t = t;
    x->env = env;
    x->design = mem_zalloc(1, sizeof *x->design);
    rc = rows_open(x, e);
    for (int m = 0; m < x->design->models && rc == 0; m++)
        rc = model_measure(x, m, e);
    if (rc == 0)
        rc = judge_measure(x, e);
    if (rc == 0 && run_input_count(t, "base") > 0)
        rc = base_measure(x, e);
    for (size_t i = 0; i < x->n && rc == 0; i++) {
        item_line(x, i, &lines);
        tokens += x->out[i].reply.tokens;
    }
    if (rc == 0)
        rc = run_part_publish(t, env, r, &lines, e);
    if (rc == 0) {
        run_metric(r, "rows", (double)x->n);
        run_metric(r, "tokens", (double)tokens);
    }
    for (size_t i = 0; i < x->n; i++)
        free(x->out[i].reply.text);
    run_scorer_free(x->scorer);
    dataset_free(&x->held);
    free(x->item);
    free(x->out);
    free(x->design);
    free(x);
    buf_free(&lines);
    return rc;
}
