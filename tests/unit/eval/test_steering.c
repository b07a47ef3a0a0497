/* eval/steering.h, judged.h, figures.h, report.h on made-up replies whose effects are known. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/rng.h"
#include "eval/figures.h"
#include "eval/judged.h"
#include "eval/report.h"
#include "eval/steering.h"

#define assert_near(a, b, tol) assert_float_equal((float)(a), (float)(b), (float)(tol))
enum { CONTEXTS = 300, QUESTION = 0, DIGIT = 1, WORDS = 2, AM = 3 };
static const char *leave_in;

static struct results *world_new(void)
{
    struct results *r = mem_zalloc(1, sizeof *r);

    strcpy(r->name, "made up");
    r->seed = 5;
    r->models = 3;
    strcpy(r->model[0], "steer");
    strcpy(r->model[1], "steer-2");
    strcpy(r->model[2], "control");
    r->guidances = 1;
    r->guidance[0] = 1.5;
    r->attrs = 2;
    strcpy(r->attr[0], "curious");
    strcpy(r->attr[1], "verbosity");
    r->computed[1] = true;
    r->levels = 3;
    r->level[1] = 2;
    r->level[2] = 4;
    r->measures = 4;
    strcpy(r->measure[QUESTION].name, "question");
    strcpy(r->measure[DIGIT].name, "digit");
    strcpy(r->measure[WORDS].name, "words");
    strcpy(r->measure[AM].name, "am_curious");
    r->measure[QUESTION].attr = r->measure[DIGIT].attr = -1;
    r->measure[WORDS].attr = 1;
    r->measure[AM].judged = true;
    strcpy(r->others, "missing");
    r->contexts = CONTEXTS;
    results_prepare(r);
    return r;
}

struct made {
    struct steering_reply *reply;
    double (*value)[4];
    size_t n;
};

/* Curious raises questions .2 -> .6 and the judge's reading; verbosity raises words 6 -> 22; the
 * control does nothing. */
static void made_init(struct made *x, const struct results *r)
{
    uint32_t row = 0;

    x->reply = mem_zalloc(3 * 7 * CONTEXTS, sizeof *x->reply);
    x->value = mem_zalloc(3 * 7 * CONTEXTS, sizeof *x->value);
    x->n = 0;
    for (int m = 0; m < r->models; m++) {
        for (int a = -1; a < r->attrs; a++) {
            for (int l = 0; l < (a < 0 ? 1 : r->levels); l++) {
                for (uint32_t c = 0; c < CONTEXTS; c++, row++) {
                    double *v = x->value[x->n], ask = m < 2 && a >= 0 ? r->level[l] / 4.0 : 0.0;
                    double curious = a == 0 ? ask : 0.0, wordy = a == 1 ? ask : 0.0;
                    v[QUESTION] = rng_unit(1, RNG_TEST, row, 0, 0) < 0.2 + 0.4 * curious;
                    v[DIGIT] = rng_unit(1, RNG_TEST, row, 0, 1) < 0.1;
                    v[WORDS] = 6 + 16 * wordy + 3 * rng_normal(1, RNG_TEST, row, 0, 2) +
                               2 * rng_normal(1, RNG_TEST, c, 9, 3);
                    v[AM] = 0.3 + 0.5 * curious + 0.1 * rng_unit(1, RNG_TEST, row, 0, 4);
                    x->reply[x->n] = (struct steering_reply){
                        m, 0, a, l, c, v, {"so it is what it is", 19}, 12, 15, 10, 20, 10};
                    x->n++;
                }
            }
        }
    }
}

static void made_fini(struct made *x)
{
    free(x->reply);
    free(x->value);
}

/* Human replies of level 4 ask more questions than those of level 0. */
static void humans_fill(struct results *r)
{
    enum { HUMANS = 1000 };
    struct steering_human *h = mem_zalloc(HUMANS, sizeof *h);
    double(*v)[4] = mem_zalloc(HUMANS, sizeof *v);
    int8_t(*level)[2] = mem_zalloc(HUMANS, sizeof *level);

    for (uint32_t i = 0; i < HUMANS; i++) {
        level[i][0] = (int8_t)(i % 5);
        level[i][1] = (int8_t)(i / 5 % 5);
        v[i][QUESTION] = rng_unit(2, RNG_TEST, i, 0, 0) < 0.1 + 0.15 * level[i][0];
        v[i][DIGIT] = rng_unit(2, RNG_TEST, i, 0, 1) < 0.3 - 0.02 * level[i][0];
        v[i][WORDS] = 5 + 4 * level[i][1];
        v[i][AM] = (double)NAN;
        h[i] = (struct steering_human){level[i], v[i], {"yes i think so too", 18}};
    }
    steering_humans(r, h, HUMANS);
    free(h);
    free(v);
    free(level);
}

static void losses_fill(struct results *r)
{
    enum { ROWS = 500 };
    struct steering_loss *loss = mem_zalloc(3 * ROWS, sizeof *loss);

    for (uint32_t i = 0; i < 3 * ROWS; i++) {
        int m = (int)(i / ROWS);
        double tokens = 10 + i % 40, nll = 1.9 * tokens + rng_normal(3, RNG_TEST, i, 0, 0);
        double noise = rng_normal(3, RNG_TEST, i, 0, 1);
        loss[i] = (struct steering_loss){m,
                                         i / 5,
                                         tokens,
                                         nll,
                                         nll + (m < 2 ? 0.08 * tokens : 0.0) + noise,
                                         nll + 0.03 * tokens};
    }
    steering_gaps(r, loss, 3 * ROWS);
    free(loss);
}

/* Replies of one conversation said four times over tell no more than once. */
static void test_gaps_resample_conversations(void **state)
{
    enum { ROWS = 200, TIMES = 4 };
    struct results *once = world_new(), *often = world_new();
    struct steering_loss *loss = mem_zalloc(ROWS * TIMES, sizeof *loss);
    (void)state;

    for (uint32_t i = 0; i < ROWS * TIMES; i++) {
        uint32_t row = i / TIMES;
        double noise = rng_normal(5, RNG_TEST, row, 0, 0);
        loss[i] = (struct steering_loss){0, row, 20, 40, 40 + noise, 41};
    }
    steering_gaps(often, loss, ROWS * TIMES);
    for (uint32_t i = 0; i < ROWS; i++)
        loss[i] = loss[i * TIMES];
    steering_gaps(once, loss, ROWS);
    assert_near(often->gap[0].shuffled.lo, once->gap[0].shuffled.lo, 1e-12);
    assert_near(often->gap[0].shuffled.hi, once->gap[0].shuffled.hi, 1e-12);
    assert_true(once->gap[0].shuffled.hi > once->gap[0].shuffled.lo);
    assert_int_equal(often->gap[0].rows, ROWS * TIMES);
    free(loss);
    results_fini(once);
    free(once);
    results_fini(often);
    free(often);
}

static void test_known_effects_are_found(void **state)
{
    struct results *r = world_new();
    struct made x;
    const struct results_effect *e;
    (void)state;

    made_init(&x, r);
    humans_fill(r);
    steering_replies(r, x.reply, x.n);
    steering_leads(r);
    e = results_effect(r, 0, 0, 0);
    assert_true(interval_has(&e->measure[QUESTION], 0.4));
    assert_near(e->measure[QUESTION].hi - e->measure[QUESTION].lo,
                2 * 1.96 * sqrt((.16 + .24) / 300), 0.02);
    assert_near(e->measure[DIGIT].value, 0.0, 0.08);
    assert_near(e->measure[AM].value, 0.5, 0.02);
    e = results_effect(r, 1, 0, 1);
    assert_near(e->measure[WORDS].value, 16.0, 0.8);
    assert_true(e->rho[WORDS] > 0.8);
    assert_true(e->measure[WORDS].hi - e->measure[WORDS].lo <
                1.2); /* paired: what contexts share cancels */
    e = results_effect(r, 2, 0, 0);
    assert_near(e->measure[QUESTION].value, 0.0, 0.1);
    assert_true(fabs(e->rho[QUESTION]) < 0.1);
    assert_true(r->measure[QUESTION].rate && r->measure[AM].rate && !r->measure[WORDS].rate);
    assert_int_equal(r->lead[0], QUESTION);
    assert_int_equal(r->sign[0], 1);
    assert_int_equal(r->lead[1], WORDS);
    assert_near(results_cell(r, 0, 0, 0, 0)->nll, 1.5, 1e-9);
    assert_near(results_cell(r, 0, 0, -1, 0)->base_nll, 2.0, 1e-9);
    assert_int_equal(results_cell(r, 2, 0, 1, 2)->replies, CONTEXTS);
    assert_near(results_cell(r, 0, 0, 0, 0)->distinct2, 4.0 / (5 * CONTEXTS),
                1e-6); /* so-it it-is is-what what-it it-is */
    made_fini(&x);
    results_fini(r);
    free(r);
}

static void test_missing_replies_are_not_zeros(void **state)
{
    struct results *r = world_new();
    struct made x;
    (void)state;

    made_init(&x, r);
    for (size_t i = 0; i < x.n; i++)
        x.value[i][AM] = (double)NAN;
    steering_replies(r, x.reply, x.n / 2); /* a model and a half */
    steering_leads(r);
    assert_true(isnan(results_effect(r, 0, 0, 0)->measure[AM].value));
    assert_true(isnan(results_effect(r, 2, 0, 0)->measure[QUESTION].value));
    assert_int_equal(results_cell(r, 2, 0, 0, 0)->replies, 0);
    assert_int_equal(r->lead[0], -1); /* nobody says which ruler shows curious */
    assert_int_equal(r->lead[1], WORDS);
    made_fini(&x);
    results_fini(r);
    free(r);
}

static void test_gaps(void **state)
{
    struct results *r = world_new();
    (void)state;

    losses_fill(r);
    assert_int_equal(r->gap[0].rows, 500);
    assert_true(interval_has(&r->gap[0].shuffled, 0.08));
    assert_true(r->gap[0].shuffled.lo > 0.07 && r->gap[0].shuffled.hi < 0.09);
    assert_true(interval_has(&r->gap[2].shuffled, 0.0));
    assert_near(r->gap[1].missing.value, 0.03, 1e-6);
    assert_near(r->gap[0].nll_true, 1.9, 0.01);
    results_fini(r);
    free(r);
}

static struct results_judged judged_make(double skill_model, double skill_base, int classes,
                                         size_t n)
{
    struct results_judged j = {.label = "sentiment", .classes = classes};
    int *truth = mem_zalloc(2 * n, sizeof *truth);
    double *p = mem_zalloc(4 * n * (size_t)classes, sizeof *p), *q = p + 2 * n * (size_t)classes;

    for (uint32_t i = 0; i < 2 * n; i++) {
        /* class 0 is three times as frequent as any other */
        uint32_t draw = rng_below(4, RNG_TEST, i, 0, 0, (uint32_t)classes + 2);
        truth[i] = draw >= (uint32_t)classes ? 0 : (int)draw;
        for (int k = 0; k < 2; k++) {
            double *row = (k == 0 ? p : q) + i * (uint32_t)classes, sum = 0.0,
                   skill = k == 0 ? skill_model : skill_base;
            for (int c = 0; c < classes; c++)
                sum += row[c] = (c == 0 ? 3.0 : 1.0) *
                                exp(rng_normal(4, RNG_TEST, i, (uint32_t)k + 1, (uint32_t)c) +
                                    (c == truth[i] ? skill : 0.0));
            for (int c = 0; c < classes; c++)
                row[c] /= sum;
        }
    }
    for (int c = 0; c < classes; c++)
        snprintf(j.class_name[c], sizeof j.class_name[c], "class %d", c);
    struct judged_rows tune = {n, truth, p, q, NULL};
    struct judged_rows test = {n, truth + n, p + n * (size_t)classes, q + n * (size_t)classes,
                               NULL};
    judged_compare(&tune, &test, 9, &j);
    free(truth);
    free(p);
    return j;
}

static void test_judge_against_baseline(void **state)
{
    struct results_judged better = judged_make(1.5, 0.5, 4, 1500),
                          same = judged_make(1.0, 1.0, 4, 1500),
                          two = judged_make(1.0, 0.0, 2, 1500);
    (void)state;

    assert_true(better.difference.lo > 0.0);
    assert_true(better.model.kappa >= better.model_raw.kappa - 0.03); /* tuning was for kappa */
    assert_true(interval_has(&same.difference, 0.0));
    assert_near(better.majority, 0.5, 0.04);
    assert_true(two.model.auc > 0.7 && two.model_kappa.lo > 0.0);
    assert_near(two.baseline.auc, 0.5, 0.04);
    assert_true(interval_has(&two.baseline_kappa, 0.0));
    assert_true(fabs(two.model_kappa.value - two.model.kappa) < 1e-12);
}

static void test_tuning_moves_the_cut(void **state)
{
    double p[40], prior[2] = {0.75, 0.25};
    int truth[20], guess[20];
    (void)state;

    for (int i = 0; i < 20; i++) { /* never above a half, yet it separates perfectly at .3 */
        p[2 * i + 1] = i < 5 ? 0.4 : 0.2;
        p[2 * i] = 1 - p[2 * i + 1];
        truth[i] = i < 5;
    }
    assert_near(judged_tune(truth, p, 20, 2, prior), 0.2, 0.011);
    judged_classify(p, 20, 2, prior, 0.3, guess);
    assert_memory_equal(truth, guess, sizeof guess);
}

/* A class that does not occur where a judge is tuned can still be what it finds most probable. */
static void test_the_most_probable_class_needs_no_tuning(void **state)
{
    enum { ROWS = 30 };
    double p[2 * ROWS][3];
    int truth[2 * ROWS];
    struct results_judged j = {.label = "mood", .classes = 3};
    struct judged_rows tune = {ROWS, truth, p[0], NULL, NULL},
                       test = {ROWS, truth + ROWS, p[ROWS], NULL, NULL};
    (void)state;

    for (int i = 0; i < 2 * ROWS; i++) {
        truth[i] = i < ROWS ? i % 2 : i % 3;
        for (int c = 0; c < 3; c++)
            p[i][c] = c == truth[i] ? 0.8 : 0.1;
    }
    judged_compare(&tune, &test, 9, &j);
    assert_near(j.model_raw.accuracy, 1.0, 1e-12);
}

/* Expected scores that all lie below 1 are no probabilities. */
static void test_a_score_is_no_rate(void **state)
{
    struct results *r = world_new();
    struct made x;
    (void)state;

    made_init(&x, r);
    humans_fill(r);
    r->measure[AM].score = true;
    steering_replies(r, x.reply, x.n);
    assert_true(r->measure[QUESTION].rate && !r->measure[AM].rate);
    made_fini(&x);
    results_fini(r);
    free(r);
}

static void metric_count(void *self, const char *name, double value)
{
    int *n = self;

    assert_true(strlen(name) > 0 && isfinite(value));
    ++*n;
}

static const struct results_figure *figure_find(const struct results *r, const char *name)
{
    for (int i = 0; i < r->figures_n; i++) {
        if (strcmp(r->figure[i].name, name) == 0)
            return &r->figure[i];
    }
    return NULL;
}

static void leave(const char *name, const struct buf *b)
{
    char path[512];
    struct err e;

    snprintf(path, sizeof path, "%s/%s", leave_in != NULL ? leave_in : "", name);
    if (leave_in != NULL)
        assert_int_equal(file_write_atomic(path, b->data, b->len, &e), 0);
}

static void report_check(struct results *r)
{
    struct buf md = BUF_INIT, again = BUF_INIT, text = BUF_INIT, picture = BUF_INIT;
    cJSON *json = report_json(r);
    char name[64];
    int metrics = 0, pictures = 0;

    report_markdown(r, &md);
    report_markdown(r, &again);
    assert_string_equal(md.data, again.data);
    assert_null(strstr(md.data, "nan"));
    buf_clear(&again);
    strcpy(r->others, "all_missing");
    report_markdown(r, &again);
    strcpy(r->others, "missing");
    assert_non_null(strstr(md.data, "missing, but computed ones are at their middle level."));
    assert_non_null(strstr(again.data, "the others are missing.\n"));
    assert_non_null(strstr(md.data, "| PASS | effect.steer.g1.5.curious.question"));
    assert_non_null(strstr(md.data, "a \\| pipe and \\<b\\>")); /* text can't break a table */
    json_canonical(json, &text);
    assert_null(strstr(text.data, "nan"));
    assert_non_null(cJSON_GetObjectItem(json, "steering"));
    report_metrics(r, false, metric_count, &metrics);
    assert_in_range(metrics, 60, 500);
    for (; report_picture(r, pictures, name, &picture); pictures++) {
        leave(name, &picture);
        buf_clear(&picture);
    }
    assert_int_equal(pictures, 4);
    leave("report.md", &md);
    leave("report.json", &text);
    cJSON_Delete(json);
    buf_free(&md);
    buf_free(&again);
    buf_free(&text);
    buf_free(&picture);
}

static void test_figures_and_report(void **state)
{
    struct results *r = world_new();
    struct made x;
    (void)state;

    made_init(&x, r);
    humans_fill(r);
    steering_replies(r, x.reply, x.n);
    losses_fill(r);
    steering_leads(r);
    r->judged[r->judged_n++] = judged_make(1.0, 1.0, 4, 1000);
    r->sample[r->samples_n++] = (struct results_sample){
        3, 0, 0, 0, 2, mem_strdup("do you like cats?"), mem_strdup("a | pipe and <b>\nnew line")};
    r->sample[r->samples_n++] =
        (struct results_sample){3, 2, 0, -1, 0, mem_strdup("do you like cats?"), mem_strdup("no.")};
    figures_build(r);
    assert_true(figure_find(r, "effect.steer.g1.5.curious.question")->ok);
    assert_true(figure_find(r, "effect.steer-2.g1.5.curious.am_curious")->ok);
    assert_true(figure_find(r, "spearman.steer.g1.5.verbosity.words")->ok);
    assert_null(
        figure_find(r, "effect.control.g1.5.curious.question")); /* a control promises no effect */
    assert_true(figure_find(r, "largest_rate.control")->ok);
    assert_true(figure_find(r, "gap.steer")->ok && figure_find(r, "gap.control")->ok);
    assert_true(figure_find(r, "am.sentiment.kappa_minus_tfidf")->ok);
    report_check(r);
    made_fini(&x);
    results_fini(r);
    free(r);
}

struct names {
    cJSON *of; /* name: place */
    size_t bytes;
};

static void name_take(void *self, const char *name, double value)
{
    struct names *x = self;

    assert_true(isfinite(value) && !cJSON_HasObjectItem(x->of, name));
    cJSON_AddNumberToObject(x->of, name, cJSON_GetArraySize(x->of));
    x->bytes += strlen(name) + 28;
}

/* As many rulers as an evaluation may have; names of `len` letters. */
static struct results *large_new(int models, int guidances, int attrs, size_t len)
{
    struct results *r = world_new();

    results_fini(r);
    r->models = models;
    r->guidances = guidances;
    r->attrs = attrs;
    r->measures = RESULTS_MEASURES_MAX;
    for (int a = 2; a < attrs; a++)
        snprintf(r->attr[a], sizeof r->attr[a], "attr%d", a);
    for (int m = 0; m < r->models; m++) {
        memset(r->model[m], 'a' + m, len);
        r->model[m][len] = '\0';
    }
    for (int g = 0; g < r->guidances; g++)
        r->guidance[g] = 1.0 + g;
    for (int m = 4; m < r->measures; m++) {
        snprintf(r->measure[m].name, sizeof r->measure[m].name, "ruler%d", m);
        r->measure[m].attr = -1;
    }
    results_prepare(r);
    for (int i = 0; i < r->models * r->guidances * r->attrs; i++) {
        struct results_effect *effect = results_effect(r, i / (r->guidances * r->attrs),
                                                       i / r->attrs % r->guidances, i % r->attrs);
        for (int m = 0; m < r->measures; m++)
            effect->measure[m] = (struct interval){1, 0, 2};
    }
    for (int a = 0; a < attrs; a++)
        r->lead[a] = a == 1 ? WORDS : QUESTION;
    return r;
}

/* A task's result has a bound, however large the evaluation is. */
static void test_metrics_are_bounded_and_the_first_are_the_ones_that_matter(void **state)
{
    struct results *many = large_new(RESULTS_MODELS_MAX, RESULTS_GUIDANCES_MAX, 2, 3),
                   *long_names = large_new(RESULTS_MODELS_MAX, RESULTS_GUIDANCES_MAX, 2,
                                           RESULTS_NAME_MAX - 1),
                   *wide = large_new(2, 3, SCHEMA_ATTRS_MAX, 3), *nine = large_new(9, 4, 5, 7);
    struct names x = {cJSON_CreateObject(), 0}, again = {cJSON_CreateObject(), 0};
    (void)state;

    report_metrics(many, false, name_take, &x);
    report_metrics(many, false, name_take, &again);
    assert_in_range(x.bytes, 30 << 10, 40 << 10);
    assert_true(cJSON_Compare(x.of, again.of, true));
    assert_true(cJSON_HasObjectItem(x.of, "figures_failed"));
    /* own and lead values of every setting, then intervals of the first models; no other ruler */
    assert_true(cJSON_HasObjectItem(x.of, "effect.aaa.g1.curious.am_curious"));
    assert_true(cJSON_HasObjectItem(x.of, "effect.ppp.g8.verbosity.words"));
    assert_true(cJSON_HasObjectItem(x.of, "effect.aaa.g1.curious.question.hi"));
    assert_false(cJSON_HasObjectItem(x.of, "effect.ppp.g8.verbosity.words.lo"));
    assert_false(cJSON_HasObjectItem(x.of, "effect.aaa.g1.curious.digit"));
    cJSON_Delete(x.of);
    cJSON_Delete(again.of);
    x = (struct names){cJSON_CreateObject(), 0};
    report_metrics(long_names, false, name_take, &x);
    assert_in_range(x.bytes, 30 << 10, 40 << 10);
    cJSON_Delete(x.of);
    x = (struct names){cJSON_CreateObject(), 0};
    report_metrics(many, true, name_take, &x);
    assert_true(cJSON_HasObjectItem(x.of, "effect.ppp.g8.verbosity.digit.hi"));
    cJSON_Delete(x.of);
    x = (struct names){cJSON_CreateObject(), 0}; /* few settings of many attributes */
    report_metrics(wide, false, name_take, &x);
    assert_in_range(x.bytes, 30 << 10, 40 << 10);
    assert_true(cJSON_HasObjectItem(x.of, "effect.bbb.g3.attr9.question"));
    cJSON_Delete(x.of);
    x = (struct names){cJSON_CreateObject(), 0}; /* as a large pipeline has: its gates name these */
    report_metrics(nine, false, name_take, &x);
    for (int a = 2; a < 5; a++) {
        char name[128];
        snprintf(name, sizeof name, "effect.aaaaaaa.g4.attr%d.question.lo", a);
        assert_true(cJSON_HasObjectItem(x.of, name));
    }
    assert_true(cJSON_HasObjectItem(x.of, "effect.iiiiiii.g4.attr4.question"));
    cJSON_Delete(x.of);
    results_fini(nine);
    free(nine);
    results_fini(wide);
    free(wide);
    results_fini(many);
    free(many);
    results_fini(long_names);
    free(long_names);
}

/* What shuffling kept, and what the judge's curve is of, depend on the attributes. */
static void test_words_fit_the_attributes(void **state)
{
    struct results *r = world_new();
    struct made x;
    struct buf text = BUF_INIT;
    char name[64];
    (void)state;

    made_init(&x, r);
    humans_fill(r);
    losses_fill(r);
    steering_replies(r, x.reply, x.n);
    report_markdown(r, &text);
    assert_non_null(strstr(text.data, "of another reply (what is computed from the text stays)"));
    buf_clear(&text);
    r->computed[0] = true;
    report_markdown(r, &text);
    assert_non_null(strstr(text.data, "of another reply, and with none."));
    for (int rate = 0; rate < 2; rate++) {
        buf_clear(&text);
        r->measure[AM].rate = rate != 0;
        for (int i = 0; report_picture(r, i, name, &text) && strcmp(name, "steering-am.svg") != 0;
             i++)
            buf_clear(&text);
        assert_string_equal(name, "steering-am.svg");
        assert_true((strstr(text.data, "probability") != NULL) == (rate != 0));
        assert_true((strstr(text.data, "expected score") != NULL) == (rate == 0));
    }
    buf_free(&text);
    made_fini(&x);
    results_fini(r);
    free(r);
}

static void test_guidance_has_its_picture(void **state)
{
    struct results *r = world_new();
    struct made x;
    struct buf picture = BUF_INIT;
    char name[64];
    (void)state;

    results_fini(r);
    r->guidances = 2;
    r->guidance[0] = 1.0;
    r->guidance[1] = 2.0;
    results_prepare(r);
    made_init(&x, r);
    for (size_t i = 0; i < x.n; i++) /* the two seeds stand for the two strengths */
        if (x.reply[i].model == 1) {
            x.reply[i].model = 0;
            x.reply[i].guidance = x.reply[i].attr >= 0;
        }
    size_t n = 0;
    for (size_t i = 0; i < x.n; i++) /* a plain reply comes once */
        if (x.reply[i].attr >= 0)
            x.reply[n++] = x.reply[i];
    humans_fill(r);
    steering_replies(r, x.reply, n);
    steering_leads(r);
    assert_true(report_picture(r, 0, name, &picture));
    assert_string_equal(name, "guidance.svg");
    leave(name, &picture);
    assert_non_null(strstr(picture.data, "curious"));
    assert_null(strstr(picture.data, "nan"));
    buf_clear(&picture);
    assert_true(report_picture(r, 8, name, &picture)); /* four for each strength */
    assert_string_equal(name, "leakage-g2.svg");
    buf_clear(&picture);
    assert_false(report_picture(r, 9, name, &picture));
    buf_free(&picture);
    made_fini(&x);
    results_fini(r);
    free(r);
}

static void test_figures_can_fail(void **state)
{
    struct results *r = world_new();
    struct made x;
    (void)state;

    made_init(&x, r);
    for (size_t i = 0; i < x.n; i++)
        x.reply[i].model = 2 - x.reply[i].model; /* the control steers, the model does not */
    humans_fill(r);
    steering_replies(r, x.reply, x.n);
    steering_leads(r);
    figures_build(r);
    assert_false(figure_find(r, "effect.steer.g1.5.curious.question")->ok);
    assert_false(figure_find(r, "spearman.steer.g1.5.verbosity.words")->ok);
    assert_false(figure_find(r, "largest_rate.control")->ok);
    r->sign[0] = -1; /* people go the other way: an effect in the wrong direction is none */
    r->models = 3;
    figures_build(r);
    assert_false(figure_find(r, "effect.steer-2.g1.5.curious.question")->ok);
    made_fini(&x);
    results_fini(r);
    free(r);
}

static void test_groups_of_seeds(void **state)
{
    (void)state;
    assert_true(results_same_group("steer", "steer-2"));
    assert_true(results_same_group("steer-3", "steer-12"));
    assert_false(results_same_group("steer", "steer-big"));
    assert_false(results_same_group("steer", "steering"));
    assert_true(results_is_control("control-3"));
    assert_false(results_is_control("-3"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_effects_are_found),
        cmocka_unit_test(test_gaps_resample_conversations),
        cmocka_unit_test(test_missing_replies_are_not_zeros),
        cmocka_unit_test(test_gaps),
        cmocka_unit_test(test_judge_against_baseline),
        cmocka_unit_test(test_tuning_moves_the_cut),
        cmocka_unit_test(test_the_most_probable_class_needs_no_tuning),
        cmocka_unit_test(test_a_score_is_no_rate),
        cmocka_unit_test(test_figures_and_report),
        cmocka_unit_test(test_metrics_are_bounded_and_the_first_are_the_ones_that_matter),
        cmocka_unit_test(test_words_fit_the_attributes),
        cmocka_unit_test(test_guidance_has_its_picture),
        cmocka_unit_test(test_figures_can_fail),
        cmocka_unit_test(test_groups_of_seeds),
    };
    leave_in = argc == 2 ? argv[1] : NULL;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
