/*
 * evaluate.reduce: the lines of all ranges, line i about item i -> what was found -> report directory and metrics.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/beat.h"
#include "base/buf.h"
#include "base/file.h"
#include "eval/figures.h"
#include "eval/report.h"
#include "eval/steering.h"
#include "jobs/run_common.h"
#include "jobs/run_evaluate.h"
#include "jobs/run_evaluate_judged.h"

#define PROMPT_BYTES 240u

struct reduce {
    const struct run_task *t;
    const struct run_env *env;
    struct results *r;
    struct dataset data,
        held; /* all of the data; the held-out part, in which responses are numbered */
    struct steering_reply *reply;
    int64_t *response; /* [replies] that a reply stands for */
    size_t replies, replies_cap;
    struct steering_loss *loss;
    size_t losses, losses_cap;
    struct lines *items;              /* what was asked for, read beside the parts */
    uint64_t next;                    /* item that the next line must be about */
    size_t asked[RESULTS_MODELS_MAX]; /* replies of each model in the items so far */
};

/* ---- reading --------------------------------------------------------------------------------- */

/* A model's replies come context by context, each with all of its settings: none twice, none left out. */
static int item_check(struct reduce *x, const struct evaluate_item *item, struct err *e)
{
    const struct results *r = x->r;
    size_t settings = 1 + (size_t)(r->guidances * r->attrs * r->levels), at = 0;

    if (item->is_loss)
        return 0;
    if (item->attr >= 0)
        at = 1 + (size_t)((item->guidance * r->attrs + item->attr) * r->levels + item->level);
    if (item->context * settings + at != x->asked[item->model])
        return err_set(e, ERR_CORRUPT, "context %zu, setting %zu is reply %zu of model %d",
                       item->context, at, x->asked[item->model], item->model);
    x->asked[item->model]++;
    return 0;
}

/* more: false at the end of the items. */
static int item_next(struct reduce *x, struct evaluate_item *item, bool *more, struct err *e)
{
    struct line line;
    cJSON *j = NULL;
    int rc = lines_next(x->items, &line, more, e);

    if (rc != 0 || !*more)
        return rc != 0 ? err_wrap(e, "items") : 0;
    rc = line.too_long ? err_set(e, ERR_CORRUPT, "longer than %zu bytes", LINES_LIMITS.line_max)
                       : json_parse(line.text, line.len, JSON_LIMITS_LINE, &j, e);
    if (rc == 0)
        rc = evaluate_item_of(j, x->r, item, e);
    if (rc == 0)
        rc = item_check(x, item, e);
    cJSON_Delete(j);
    return rc != 0 ? err_wrap(e, "items, line %llu", (unsigned long long)line.number) : 0;
}

static int key_check(const cJSON *line, const char *key, int64_t want, uint64_t item, struct err *e)
{
    const cJSON *v = json_get(line, key);

    if (cJSON_IsNumber(v) && v->valuedouble == (double)want)
        return 0;
    return err_set(e, ERR_CORRUPT, "\"%s\" is %.15g, item %llu has %lld", key,
                   cJSON_IsNumber(v) ? v->valuedouble : (double)NAN, (unsigned long long)item,
                   (long long)want);
}

/* Is the line about this item? */
static int line_check(const cJSON *line, const struct evaluate_item *item, uint64_t at,
                      struct err *e)
{
    bool is_loss = json_get(line, "t") != NULL;
    int rc;

    if (is_loss != item->is_loss)
        return err_set(e, ERR_CORRUPT, "a %s, item %llu is a %s", is_loss ? "loss" : "reply",
                       (unsigned long long)at, item->is_loss ? "loss" : "reply");
    if ((rc = key_check(line, "m", item->model, at, e)) != 0 ||
        (rc = key_check(line, "r", item->response, at, e)) != 0 || is_loss ||
        (rc = key_check(line, "g", item->guidance, at, e)) != 0 ||
        (rc = key_check(line, "a", item->attr, at, e)) != 0 ||
        (rc = key_check(line, "l", item->level, at, e)) != 0)
        return rc;
    return key_check(line, "c", (int64_t)item->context, at, e);
}

static double number_of(const cJSON *line, const char *key)
{
    const cJSON *v = json_get(line, key);

    return cJSON_IsNumber(v) ? v->valuedouble : (double)NAN;
}

static int loss_take(struct reduce *x, const cJSON *line, int model, struct err *e)
{
    struct steering_loss *loss;
    int64_t response;
    size_t conversation;
    uint32_t turn;
    int rc = json_need_int(line, "r", 0, (int64_t)x->held.responses - 1, &response, e);

    if (rc != 0)
        return rc;
    dataset_response(&x->held, (size_t)response, &conversation, &turn);
    if (x->losses == x->losses_cap) {
        x->losses_cap = 2 * x->losses_cap + 1024;
        x->loss = mem_grow(x->loss, x->losses_cap, sizeof *x->loss);
    }
    loss = &x->loss[x->losses++];
    *loss = (struct steering_loss){model,
                                   (uint32_t)conversation,
                                   number_of(line, "k"),
                                   number_of(line, "t"),
                                   number_of(line, "s"),
                                   number_of(line, "x")};
    if (!isfinite(loss->tokens + loss->nll_true + loss->nll_shuffled + loss->nll_missing))
        return err_set(e, ERR_NUMERIC, "a loss is not finite");
    return 0;
}

static int reply_take(struct reduce *x, const cJSON *line, const struct evaluate_item *item,
                      struct err *e)
{
    const cJSON *values = json_get(line, "v"), *v;
    double *value;
    const char *text;
    struct steering_reply *reply;
    int m = 0, rc = json_need_string(line, "text", &text, e);

    if (rc != 0)
        return rc;
    if (cJSON_GetArraySize(values) != x->r->measures)
        return err_set(e, ERR_CORRUPT, "%d measures, %d were expected", cJSON_GetArraySize(values),
                       x->r->measures);
    if (x->replies == x->replies_cap) {
        x->replies_cap = 2 * x->replies_cap + 1024;
        x->reply = mem_grow(x->reply, x->replies_cap, sizeof *x->reply);
        x->response = mem_grow(x->response, x->replies_cap, sizeof *x->response);
    }
    value = mem_zalloc((size_t)x->r->measures + 1, sizeof *value);
    cJSON_ArrayForEach(v, values) value[m++] = cJSON_IsNumber(v) ? v->valuedouble : (double)NAN;
    x->response[x->replies] = item->response;
    reply = &x->reply[x->replies++];
    *reply = (struct steering_reply){.model = item->model,
                                     .guidance = item->guidance,
                                     .attr = item->attr,
                                     .level = item->level,
                                     .context = item->context,
                                     .value = value,
                                     .text = {mem_strdup(text), strlen(text)},
                                     .tokens = number_of(line, "n"),
                                     .nll = number_of(line, "nll"),
                                     .nll_tokens = number_of(line, "k"),
                                     .base_nll = number_of(line, "bnll"),
                                     .base_tokens = number_of(line, "bk")};
    x->r->contexts = item->context + 1 > x->r->contexts ? item->context + 1 : x->r->contexts;
    return 0;
}

static int line_take(void *self, const cJSON *line, struct err *e)
{
    struct reduce *x = self;
    struct evaluate_item item;
    bool more = false;
    int rc = item_next(x, &item, &more, e);

    if (rc == 0 && !more)
        rc = err_set(e, ERR_CORRUPT, "one more than the %llu items", (unsigned long long)x->next);
    if (rc == 0 && x->next >= EVALUATE_ROWS_MAX)
        rc = err_set(e, ERR_CORRUPT, "more than %u items", EVALUATE_ROWS_MAX);
    if (rc == 0)
        rc = line_check(line, &item, x->next, e);
    if (rc != 0)
        return rc;
    x->next++;
    return item.is_loss ? loss_take(x, line, item.model, e) : reply_take(x, line, &item, e);
}

/* Line i of the parts must be what became of item i, to the last one. */
static int rows_read(struct reduce *x, struct err *e)
{
    char path[4096];
    struct evaluate_item item;
    bool more = false;
    int rc = run_phase_output(x->t, x->env, "evaluate.items", "items", path, sizeof path, e);

    if (rc == 0)
        rc = lines_open(path, LINES_LIMITS, &x->items, e);
    if (rc == 0)
        rc = run_lines(x->t, x->env, "evaluate.rows", x, line_take, e);
    if (rc == 0)
        rc = item_next(x, &item, &more, e);
    if (rc == 0 && more)
        rc = err_set(e, ERR_CORRUPT, "phase evaluate.rows has %llu lines, there are more items",
                     (unsigned long long)x->next);
    lines_close(x->items);
    x->items = NULL;
    return rc;
}

static int reduce_open(struct reduce *x, struct err *e)
{
    struct schema *judge = mem_zalloc(1, sizeof *judge);
    bool has_judge = false;
    int rc = evaluate_held_open(x->t, x->env, &x->held, e);

    if (rc == 0)
        rc = run_dataset(x->t, x->env, "data", &x->data, e);
    if (rc == 0)
        rc = evaluate_judge_schema(x->t, x->env, judge, &has_judge, e);
    if (rc == 0)
        rc = evaluate_design(x->t, &x->held.schema, has_judge ? judge : NULL, x->r, e);
    if (rc == 0)
        rc = rows_read(x, e);
    free(judge);
    return rc;
}

/* ---- what people wrote ----------------------------------------------------------------------- */

/* Held-out replies; of texts from nothing, of which none is held out, all. */
static void humans_measure(struct reduce *x)
{
    const struct dataset *d = x->held.responses > 0 ? &x->held : &x->data;
    size_t n = 0, measures = (size_t)x->r->measures;
    struct steering_human *human = mem_zalloc(d->responses + 1, sizeof *human);
    double *value = mem_zalloc(d->responses * measures + 1, sizeof *value);

    for (size_t i = 0; i < d->responses; i++) {
        const struct turn *turn;
        size_t c;
        uint32_t k;
        dataset_response(d, i, &c, &k);
        turn = &d->conversation[c].turn[k];
        if (!turn->kept)
            continue;
        if (i % 64 == 0)
            beat();
        for (int m = 0; m < x->r->measures; m++) {
            const struct results_measure *measure = &x->r->measure[m];
            value[n * measures + (size_t)m] =
                measure->judged ? (double)turn->value[measure->attr]
                                : measure_text((enum measure)measure_find(measure->name),
                                               turn->text, turn->text_len);
        }
        human[n] = (struct steering_human){
            turn->level, value + n * measures, {turn->text, turn->text_len}};
        n++;
    }
    steering_humans(x->r, human, n);
    free(human);
    free(value);
}

/* ---- samples --------------------------------------------------------------------------------- */

/* The end of what was said before, at a character's beginning. */
static char *prompt_text(const struct reduce *x, int64_t response)
{
    const struct turn *turn;
    const char *text;
    size_t c;
    uint32_t k;

    if (response < 0 || (size_t)response >= x->held.responses)
        return mem_strdup("");
    dataset_response(&x->held, (size_t)response, &c, &k);
    if (k == 0)
        return mem_strdup("");
    turn = &x->held.conversation[c].turn[k - 1];
    if (turn->text_len <= PROMPT_BYTES)
        return mem_strdup(turn->text);
    text = turn->text + turn->text_len - PROMPT_BYTES;
    while (((unsigned char)*text & 0xC0) == 0x80)
        text++;
    return mem_printf("...%s", text);
}

/* The guidance that samples are shown at: the weakest above 1, as a person would use it, or the
 * first. */
static int sample_guidance(const struct results *r)
{
    int best = -1;

    for (int g = 0; g < r->guidances; g++) {
        if (r->guidance[g] > 1.0 && (best < 0 || r->guidance[g] < r->guidance[best]))
            best = g;
    }
    return best >= 0 ? best : 0;
}

static bool sample_wanted(const struct reduce *x, const struct steering_reply *p, int control,
                          int guidance)
{
    if (p->context >= (size_t)x->t->spec->evaluate.samples ||
        (p->model != 0 && p->model != control))
        return false;
    if (p->attr < 0)
        return p->model == 0;
    return p->guidance == guidance &&
           (p->level == x->r->levels - 1 || (p->level == 0 && p->model == 0));
}

static void samples_take(struct reduce *x)
{
    int control = -1, guidance = sample_guidance(x->r);

    for (int m = x->r->models - 1; m >= 0; m--)
        control = results_is_control(x->r->model[m]) ? m : control;
    for (int context = 0; context < x->t->spec->evaluate.samples; context++) {
        for (size_t i = 0; i < x->replies && x->r->samples_n < RESULTS_SAMPLES_MAX; i++) {
            const struct steering_reply *p = &x->reply[i];
            if (p->context != (size_t)context || !sample_wanted(x, p, control, guidance))
                continue;
            x->r->sample[x->r->samples_n++] =
                (struct results_sample){p->context,
                                        p->model,
                                        p->guidance,
                                        p->attr,
                                        p->level,
                                        prompt_text(x, x->response[i]),
                                        mem_strdup(p->text.text)};
        }
    }
}

/* ---- writing --------------------------------------------------------------------------------- */

static int file_put(const char *dir, const char *name, const struct buf *b, struct err *e)
{
    char *path = mem_printf("%s/%s", dir, name);
    int rc = file_write_atomic(path, b->data, b->len, e);

    free(path);
    return rc;
}

static int report_write(const struct results *r, const char *dir, struct err *e)
{
    struct buf text = BUF_INIT;
    cJSON *json = report_json(r);
    char name[64];
    int rc = file_make_dirs(dir, e);

    json_canonical(json, &text);
    buf_char(&text, '\n');
    if (rc == 0)
        rc = file_put(dir, "report.json", &text, e);
    buf_clear(&text);
    report_markdown(r, &text);
    if (rc == 0)
        rc = file_put(dir, "report.md", &text, e);
    buf_clear(&text);
    for (int i = 0; rc == 0 && report_picture(r, i, name, &text); i++) {
        rc = file_put(dir, name, &text, e);
        buf_clear(&text);
    }
    cJSON_Delete(json);
    buf_free(&text);
    return rc;
}

static void metric_put(void *self, const char *name, double value)
{
    run_metric(self, name, value);
}

static void metric_collect(void *self, const char *name, double value)
{
    cJSON_AddNumberToObject(self, name, value);
}

/* What the spec promises takes the place of the report's own figures. */
static void promises_check(struct reduce *x)
{
    const struct evaluate_spec *v = &x->t->spec->evaluate;
    cJSON *metrics = cJSON_CreateObject();

    report_metrics(x->r, true, metric_collect, metrics);
    if (v->figures_n > 0)
        x->r->figures_n = 0;
    for (int i = 0; i < v->figures_n; i++) {
        const struct gate *g = &v->figure[i];
        figures_promise(x->r, g->metric, json_number_or(metrics, g->metric, (double)NAN),
                        g->has_min, g->min);
    }
    cJSON_Delete(metrics);
}

static int reduce_measure(struct reduce *x, struct err *e)
{
    struct results *r = x->r;
    int rc = run_check_cancelled(x->env, e);

    if (rc != 0)
        return rc;
    results_prepare(r);
    humans_measure(x);
    steering_replies(r, x->reply, x->replies);
    steering_leads(r);
    steering_gaps(r, x->loss, x->losses);
    evaluate_judged(&x->data, r, strcmp(x->t->spec->evaluate.baseline, "tfidf") == 0);
    figures_build(r);
    promises_check(x);
    samples_take(x);
    return 0;
}

int run_evaluate_reduce(const struct run_task *t, const struct run_env *env,
                        struct run_result *result, struct err *e)
{
    struct reduce *x = mem_zalloc(1, sizeof *x);
    char *dir = mem_printf("%s/report", env->scratch);
    int rc;

    x->t = t;
    x->env = env;
    x->r = mem_zalloc(1, sizeof *x->r);
    rc = reduce_open(x, e);
    if (rc == 0)
        rc = reduce_measure(x, e);
    if (rc == 0)
        rc = report_write(x->r, dir, e);
    if (rc == 0)
        rc = run_publish(env, result, "report", dir, e);
    if (rc == 0)
        report_metrics(x->r, false, metric_put, result);
    for (size_t i = 0; i < x->replies; i++) {
        free((void *)(uintptr_t)x->reply[i].value); /* ours: made in reply_take() */
        free((void *)(uintptr_t)x->reply[i].text.text);
    }
    results_fini(x->r);
    dataset_free(&x->data);
    dataset_free(&x->held);
    free(x->reply);
    free(x->response);
    free(x->loss);
    free(x->r);
    free(x);
    free(dir);
    return rc;
}
