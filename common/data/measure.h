/* measure: the named set of attributes that are computed from the text of a response; also the rulers of reports. Pure. */
#ifndef DATA_MEASURE_H
#define DATA_MEASURE_H

#include <stddef.h>

/* words: count. question/exclamation: 1 if the text has the mark. questions: share of sentences with '?'. wow: has wow/amazing/crazy.
 * digit: has a digit. first_person: has i/me/my/mine/we/our/us as a word. richness: log distinct words - 0.7 log words.
 * valence: mean lexicon valence a word. joy: share of words of positive valence >= 1.5. dialogue: share of characters in double quotes.
 * A word is a run of non-blanks with a letter, digit or non-ASCII byte in it, compared in lower case without the punctuation around it.
 * chars: code points. A text without words or sentences measures 0, so that nothing is ever NaN. */
#define MEASURES(X)                                                                                \
    X(MEASURE_WORDS, "words")                                                                      \
    X(MEASURE_CHARS, "chars")                                                                      \
    X(MEASURE_SENTENCES, "sentences")                                                              \
    X(MEASURE_QUESTION, "question")                                                                \
    X(MEASURE_QUESTIONS, "questions")                                                              \
    X(MEASURE_EXCLAMATION, "exclamation")                                                          \
    X(MEASURE_WOW, "wow")                                                                          \
    X(MEASURE_DIGIT, "digit")                                                                      \
    X(MEASURE_FIRST_PERSON, "first_person")                                                        \
    X(MEASURE_RICHNESS, "richness")                                                                \
    X(MEASURE_VALENCE, "valence")                                                                  \
    X(MEASURE_JOY, "joy")                                                                          \
    X(MEASURE_DIALOGUE, "dialogue")
enum measure {
#define X(name, text) name,
    MEASURES(X)
#undef X
        MEASURE_COUNT
};
const char *measure_name(enum measure m);
int measure_find(const char *name); /* -1 if unknown */
/* The valence lexicon is compiled in (generated from data/lexicon at build time or as a table). */
double measure_text(enum measure m, const char *text, size_t len);

#endif
