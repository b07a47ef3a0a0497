#include "jobs/run_evaluate_judged.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/beat.h"
#include "base/buf.h"
#include "base/rng.h"
#include "eval/judged.h"
#include "eval/logreg.h"

#define TUNE_SHARE 0.1
enum { STREAM_TUNE = 3, MIN_DF = 2 };
enum part { PART_FIT, PART_TUNE, PART_TEST, PARTS };

struct texts { /* every labelled response, by part */
    const struct turn **turn[PARTS];
    size_t *conversation[PARTS];
    struct stats_text *text[PARTS];
    size_t n[PARTS];
};

/* A label as classes that attributes give probabilities of; rest: the class that is what the others
 * leave over, or -1. */
struct question {
    char name[SCHEMA_NAME_MAX];
    int label, classes, rest;
    int attr[SCHEMA_CLASSES_MAX]; /* per class; -1 for the rest */
    bool one_against_all;         /* classes are "another" and the attribute's own */
};

static enum part part_of(const struct dataset *d, const struct results *r, size_t c)
{
    if (d->conversation[c].split == SPLIT_HELD_OUT)
        return PART_TEST;
    return rng_unit(r->seed, RNG_PICK, STREAM_TUNE, 0, (uint32_t)c) < TUNE_SHARE ? PART_TUNE
                                                                                 : PART_FIT;
}

static void texts_init(struct texts *x, const struct dataset *d, const struct results *r)
{
    for (int p = 0; p < PARTS; p++) {
        x->turn[p] = mem_zalloc(d->responses + 1, sizeof *x->turn[p]);
        x->conversation[p] = mem_zalloc(d->responses + 1, sizeof *x->conversation[p]);
        x->text[p] = mem_zalloc(d->responses + 1, sizeof *x->text[p]);
        x->n[p] = 0;
    }
    for (size_t i = 0; i < d->responses; i++) {
        const struct turn *turn;
        size_t c;
        uint32_t k;
        enum part p;
        dataset_response(d, i, &c, &k);
        turn = &d->conversation[c].turn[k];
        p = part_of(d, r, c);
        x->turn[p][x->n[p]] = turn;
        x->conversation[p][x->n[p]] = c;
        x->text[p][x->n[p]++] = (struct stats_text){turn->text, turn->text_len};
    }
}

static void texts_fini(struct texts *x)
{
    for (int p = 0; p < PARTS; p++) {
        free(x->turn[p]);
        free(x->conversation[p]);
        free(x->text[p]);
    }
}

/* One question for a label whose classes are all attributes but at most one; else one for each
 * attribute of the label. */
static int questions_of(const struct schema *s, int label, struct question *out)
{
    const struct label *l = &s->label[label];
    struct question q = {.label = label, .classes = l->classes, .rest = -1};
    int covered = 0, n = 0;

    if (l->type != LABEL_CLASSES || l->classes < 2)
        return 0;
    snprintf(q.name, sizeof q.name, "%s", l->name);
    for (int c = 0; c < l->classes; c++) {
        q.attr[c] = -1;
        for (int a = 0; a < s->attrs; a++) {
            if (s->attr[a].type == ATTR_CATEGORICAL && s->attr[a].label == label &&
                s->attr[a].class_index == c)
                q.attr[c] = a;
        }
        covered += q.attr[c] >= 0;
        q.rest = q.attr[c] < 0 ? c : q.rest;
    }
    if (covered > 0 && covered >= l->classes - 1) {
        out[0] = q;
        return 1;
    }
    for (int c = 0; c < l->classes; c++) {
        if (q.attr[c] < 0)
            continue;
        out[n] = (struct question){.label = label,
                                   .classes = 2,
                                   .rest = 0,
                                   .attr = {-1, q.attr[c]},
                                   .one_against_all = true};
        snprintf(out[n++].name, sizeof out[0].name, "%s", s->attr[q.attr[c]].name);
    }
    return n;
}

static int truth_of(const struct schema *s, const struct question *q, const struct turn *turn)
{
    float human = turn->human[q->label];

    if (isnan(human))
        return -1;
    if (q->one_against_all)
        return (int)human == s->attr[q->attr[1]].class_index;
    return (int)human >= 0 && (int)human < q->classes ? (int)human : -1;
}

/* Probabilities by annotation; false if one is missing. */
static bool predicted_of(const struct question *q, const struct turn *turn, double *p)
{
    double sum = 0.0;

    for (int c = 0; c < q->classes; c++) {
        if (q->attr[c] < 0)
            continue;
        p[c] = (double)turn->value[q->attr[c]];
        if (isnan(p[c]))
            return false;
        sum += p[c];
    }
    if (q->rest >= 0)
        p[q->rest] = sum < 1.0 ? 1.0 - sum : 0.0;
    return true;
}

struct answers { /* of one part */
    int *truth;
    uint32_t *group; /* of the conversation, from 0 */
    double *model, *baseline;
    size_t n;
};

/* all: the baseline's probabilities of every response of the part, or NULL. */
static void answers_init(struct answers *a, const struct schema *s, const struct question *q,
                         const struct texts *x, enum part part, const double *all)
{
    size_t k = (size_t)q->classes, last = SIZE_MAX;
    uint32_t group = 0;

    a->n = 0;
    a->truth = mem_zalloc(x->n[part] + 1, sizeof *a->truth);
    a->group = mem_zalloc(x->n[part] + 1, sizeof *a->group);
    a->model = mem_zalloc(x->n[part] * k + 1, sizeof *a->model);
    a->baseline = all != NULL ? mem_zalloc(x->n[part] * k + 1, sizeof *a->baseline) : NULL;
    for (size_t i = 0; i < x->n[part]; i++) {
        int truth = truth_of(s, q, x->turn[part][i]);
        if (truth < 0 || !predicted_of(q, x->turn[part][i], a->model + a->n * k))
            continue;
        if (all != NULL)
            memcpy(a->baseline + a->n * k, all + i * k, k * sizeof *all);
        group += last != SIZE_MAX && last != x->conversation[part][i];
        last = x->conversation[part][i];
        a->group[a->n] = group;
        a->truth[a->n++] = truth;
    }
}

static void answers_fini(struct answers *a)
{
    free(a->truth);
    free(a->group);
    free(a->model);
    free(a->baseline);
}

static void names_set(const struct schema *s, const struct question *q, struct results_judged *out)
{
    snprintf(out->label, sizeof out->label, "%s", q->name);
    out->classes = q->classes;
    if (q->one_against_all) {
        snprintf(out->class_name[0], sizeof out->class_name[0], "another");
        snprintf(out->class_name[1], sizeof out->class_name[1], "%s", q->name);
        return;
    }
    for (int c = 0; c < q->classes; c++)
        snprintf(out->class_name[c], sizeof out->class_name[c], "%s",
                 s->label[q->label].class_name[c]);
}

static void question_answer(const struct dataset *d, struct results *r, const struct question *q,
                            const struct texts *x, const struct csr *rows)
{
    struct answers tune = {0}, test = {0};
    double *p_tune = NULL, *p_test = NULL;

    if (rows != NULL) {
        struct logreg_options o = {1.0, 1e-5, 300};
        struct logreg m;
        int *y = mem_zalloc(x->n[PART_FIT] + 1, sizeof *y);
        for (size_t i = 0; i < x->n[PART_FIT]; i++)
            y[i] = truth_of(&d->schema, q, x->turn[PART_FIT][i]);
        logreg_fit(&rows[PART_FIT], y, q->classes, &o, &m);
        p_tune = mem_zalloc(x->n[PART_TUNE] * (size_t)q->classes + 1, sizeof *p_tune);
        p_test = mem_zalloc(x->n[PART_TEST] * (size_t)q->classes + 1, sizeof *p_test);
        logreg_predict(&m, &rows[PART_TUNE], p_tune);
        logreg_predict(&m, &rows[PART_TEST], p_test);
        logreg_fini(&m);
        free(y);
    }
    answers_init(&tune, &d->schema, q, x, PART_TUNE, p_tune);
    answers_init(&test, &d->schema, q, x, PART_TEST, p_test);
    beat();
    if (tune.n > 0 && test.n > 0) {
        struct judged_rows a = {tune.n, tune.truth, tune.model, tune.baseline, tune.group},
                           b = {test.n, test.truth, test.model, test.baseline, test.group};
        struct results_judged *out = &r->judged[r->judged_n++];
        names_set(&d->schema, q, out);
        judged_compare(&a, &b, r->seed, out);
    }
    answers_fini(&tune);
    answers_fini(&test);
    free(p_tune);
    free(p_test);
}

void evaluate_judged(const struct dataset *d, struct results *r, bool baseline)
{
    struct question *question =
        mem_zalloc(SCHEMA_LABELS_MAX * SCHEMA_CLASSES_MAX, sizeof *question);
    struct texts x;
    struct tfidf *tfidf = NULL;
    struct csr rows[PARTS] = {{0}};
    int n = 0;

    texts_init(&x, d, r);
    for (int l = 0; l < d->schema.labels; l++)
        n += questions_of(&d->schema, l, question + n);
    if (baseline && n > 0 && x.n[PART_FIT] > 0) {
        tfidf = tfidf_fit(x.text[PART_FIT], x.n[PART_FIT], MIN_DF);
        for (int p = 0; p < PARTS; p++)
            tfidf_rows(tfidf, x.text[p], x.n[p], &rows[p]);
    }
    CHECK(n <= RESULTS_JUDGED_MAX); /* of an attribute each */
    for (int i = 0; i < n; i++)
        question_answer(d, r, &question[i], &x, tfidf != NULL ? rows : NULL);
    for (int p = 0; p < PARTS; p++)
        csr_fini(&rows[p]);
    tfidf_free(tfidf);
    texts_fini(&x);
    free(question);
}
