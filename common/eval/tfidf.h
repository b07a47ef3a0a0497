/*
 * tfidf: the bag-of-words baseline. 1-grams and 2-grams of lower-case words and the marks ? and !,
 * in at least min_df texts; raw counts times idf = ln((1 + n) / (1 + df)) + 1, each row scaled to
 * length 1 (what scikit-learn's TfidfVectorizer does by default). Deterministic: features are
 * numbered by first appearance.
 */
#ifndef EVAL_TFIDF_H
#define EVAL_TFIDF_H

#include "eval/stats.h" /* struct stats_text */

struct csr { /* rows of sparse features; column ids ascend in a row */
    size_t rows, columns;
    size_t *begin; /* [rows + 1] */
    uint32_t *column;
    float *value;
};
void csr_fini(struct csr *x);

struct tfidf;
struct tfidf *tfidf_fit(const struct stats_text *texts, size_t n, uint32_t min_df);
void tfidf_free(struct tfidf *t);
size_t tfidf_features(const struct tfidf *t);
/* Rows of texts, seen or unseen; unknown n-grams are skipped, a text of none is a row of zeros.
 * csr_fini(out). */
void tfidf_rows(const struct tfidf *t, const struct stats_text *texts, size_t n, struct csr *out);

#endif
