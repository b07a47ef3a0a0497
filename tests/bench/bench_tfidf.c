/*
 * How fast is the bag-of-words baseline, and what does it score? Reads lines "train|test TAB class
 * TAB text" (class -1: no label) from a file, prints one line of JSON.
 * tests/golden/check_sklearn.py makes the file and compares with scikit-learn.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "eval/logreg.h"

struct part {
    struct stats_text *text;
    int *label;
    size_t n;
};

static void part_add(struct part *p, int label, char *text)
{
    p->text = mem_grow(p->text, p->n + 1, sizeof *p->text);
    p->label = mem_grow(p->label, p->n + 1, sizeof *p->label);
    p->text[p->n] = (struct stats_text){text, strlen(text)};
    p->label[p->n++] = label;
}

static void score(const struct logreg *m, const struct csr *x, const struct part *test, uint64_t ms,
                  uint64_t fit_ms)
{
    size_t k = (size_t)m->classes;
    double *p = mem_zalloc(test->n * k, sizeof *p), table[256],
           *positive = mem_zalloc(test->n, sizeof *positive);
    int *predicted = mem_zalloc(test->n, sizeof *predicted);
    bool *truth = mem_zalloc(test->n, sizeof *truth);

    logreg_predict(m, x, p);
    for (size_t i = 0; i < test->n; i++) {
        for (int c = 1; c < m->classes; c++)
            predicted[i] =
                p[i * k + (size_t)c] > p[i * k + (size_t)predicted[i]] ? c : predicted[i];
        positive[i] = p[i * k + k - 1];
        truth[i] = test->label[i] == m->classes - 1;
    }
    stats_confusion(test->label, predicted, test->n, m->classes, table);
    printf("{\"accuracy\": %.4f, \"kappa\": %.4f, \"macro_f1\": %.4f, \"auc_last\": %.4f, "
           "\"features\": %zu, "
           "\"iterations\": %d, \"objective\": %.4f, \"ms\": %llu, \"fit_ms\": %llu}\n",
           stats_accuracy(table, m->classes), stats_kappa(table, m->classes),
           stats_macro_f1(table, m->classes), stats_auc(positive, truth, test->n), m->columns,
           m->iterations, m->objective, (unsigned long long)ms, (unsigned long long)fit_ms);
    free(p);
    free(positive);
    free(predicted);
    free(truth);
}

int main(int argc, char **argv)
{
    struct buf text = BUF_INIT;
    struct part part[2] = {{0}};
    struct err e;
    struct csr train, test;
    struct logreg m;
    uint64_t start, fit;
    int classes = 0;

    if (argc != 2) {
        fprintf(stderr,
                "usage: bench_tfidf FILE (python3 tests/golden/check_sklearn.py makes one)\n");
        return argc == 1 ? 0 : 2;
    }
    if (file_read(argv[1], 256u << 20, &text, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    for (char *line = strtok(text.data, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        char *label = strchr(line, '\t'), *body = label != NULL ? strchr(label + 1, '\t') : NULL;
        int y;
        if (body == NULL)
            continue;
        y = atoi(label + 1);
        classes = y >= classes ? y + 1 : classes;
        part_add(&part[strncmp(line, "test", 4) == 0], y, body + 1);
    }
    start = clock_ms();
    struct tfidf *t = tfidf_fit(part[0].text, part[0].n, 2);
    tfidf_rows(t, part[0].text, part[0].n, &train);
    tfidf_rows(t, part[1].text, part[1].n, &test);
    fit = clock_ms();
    logreg_fit(&train, part[0].label, classes, &LOGREG_OPTIONS, &m);
    score(&m, &test, &part[1], clock_ms() - start, clock_ms() - fit);
    logreg_fini(&m);
    csr_fini(&train);
    csr_fini(&test);
    tfidf_free(t);
    for (int i = 0; i < 2; i++) {
        free(part[i].text);
        free(part[i].label);
    }
    buf_free(&text);
    return 0;
}
