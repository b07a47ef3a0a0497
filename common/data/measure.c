/*
 * Everything is ASCII-minded on purpose: the rulers are about English marks and words, and bytes above 127 only ever count as
 * letters of a word. The lexicon is a sorted table, searched by bisection.
 */
#include "data/measure.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

static const char *const names[] = {
#define X(name, text) text,
    MEASURES(X)
#undef X
};

struct lexeme {
    const char *word;
    int tenths;
};
static const struct lexeme lexicon[] = {
#define LEX(word, tenths) {word, tenths},
#include "data/lexicon/vader.inc"
#undef LEX
};

enum { WORD_MAX = 48 }; /* longer words are cut; none in the lexicon is longer */

struct word {
    char text[WORD_MAX]; /* lower case, bare */
    size_t len;
};

const char *measure_name(enum measure m)
{
    return m >= 0 && m < MEASURE_COUNT ? names[m] : "unknown";
}

int measure_find(const char *name)
{
    for (int i = 0; i < MEASURE_COUNT; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (unsigned char)c >= 0x80;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Next word from *at on; false at the end. */
static bool word_next(const char *text, size_t len, size_t *at, struct word *out)
{
    while (*at < len) {
        size_t begin, end;
        while (*at < len && is_blank(text[*at]))
            (*at)++;
        begin = *at;
        while (*at < len && !is_blank(text[*at]))
            (*at)++;
        end = *at;
        while (begin < end && !is_letter(text[begin]))
            begin++;
        while (end > begin && !is_letter(text[end - 1]))
            end--;
        if (begin == end)
            continue;
        out->len = end - begin < WORD_MAX - 1 ? end - begin : WORD_MAX - 1;
        for (size_t i = 0; i < out->len; i++)
            out->text[i] = lower(text[begin + i]);
        out->text[out->len] = '\0';
        return true;
    }
    return false;
}

static int lexeme_compare(const void *key, const void *item)
{
    return strcmp(key, ((const struct lexeme *)item)->word);
}

static double word_valence(const char *word)
{
    const struct lexeme *x = bsearch(word, lexicon, sizeof lexicon / sizeof lexicon[0],
                                     sizeof lexicon[0], lexeme_compare);

    return x == NULL ? 0.0 : x->tenths / 10.0;
}

static double count_words(const char *text, size_t len)
{
    struct word w;
    size_t at = 0, n = 0;

    while (word_next(text, len, &at, &w))
        n++;
    return (double)n;
}

static bool has_byte(const char *text, size_t len, char c)
{
    return len > 0 && memchr(text, c, len) != NULL;
}

static bool has_digit(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] >= '0' && text[i] <= '9')
            return true;
    return false;
}

/* Is the word one of the list, with what follows an apostrophe not counted ("i'm" is "i")? */
static bool is_one_of(const struct word *w, const char *const *list)
{
    size_t len = 0;

    while (len < w->len && w->text[len] != '\'')
        len++;
    for (; *list != NULL; list++)
        if (strlen(*list) == len && memcmp(*list, w->text, len) == 0)
            return true;
    return false;
}

static bool has_word(const char *text, size_t len, const char *const *list)
{
    struct word w;
    size_t at = 0;

    while (word_next(text, len, &at, &w))
        if (is_one_of(&w, list))
            return true;
    return false;
}

/* A sentence ends with a run of . ! ? before a blank or the end; a rest with a letter in it is one too. */
static double count_sentences(const char *text, size_t len, bool asking_only)
{
    size_t n = 0;
    bool letter = false, asks = false;

    for (size_t i = 0; i < len; i++) {
        letter = letter || is_letter(text[i]);
        if (text[i] != '.' && text[i] != '!' && text[i] != '?')
            continue;
        asks = asks || text[i] == '?';
        if (i + 1 < len && !is_blank(text[i + 1]))
            continue; /* inside a run, a number or a name */
        if (letter)
            n += !asking_only || asks;
        letter = asks = false;
    }
    if (letter)
        n += !asking_only || asks;
    return (double)n;
}

static int word_compare(const void *a, const void *b)
{
    return strcmp(((const struct word *)a)->text, ((const struct word *)b)->text);
}

static double richness(const char *text, size_t len)
{
    size_t n = (size_t)count_words(text, len), at = 0, distinct = 0;
    struct word *all;

    if (n == 0)
        return 0.0;
    all = mem_zalloc(n, sizeof *all);
    for (size_t i = 0; i < n; i++)
        word_next(text, len, &at, &all[i]);
    qsort(all, n, sizeof *all, word_compare);
    for (size_t i = 0; i < n; i++)
        distinct += i == 0 || strcmp(all[i].text, all[i - 1].text) != 0;
    free(all);
    return log((double)distinct) - 0.7 * log((double)n);
}

static double valence(const char *text, size_t len, bool joy)
{
    struct word w;
    size_t at = 0, n = 0;
    double sum = 0.0;

    while (word_next(text, len, &at, &w)) {
        double v = word_valence(w.text);
        n++;
        sum += joy ? (v >= 1.5 ? 1.0 : 0.0) : v;
    }
    return n == 0 ? 0.0 : sum / (double)n;
}

static double count_chars(const char *text, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)text[i] & 0xC0) != 0x80;
    return (double)n;
}

/* A quote that is not closed does not count. */
static double dialogue(const char *text, size_t len)
{
    size_t inside = 0, open = 0;
    bool opened = false;

    for (size_t i = 0; i < len; i++) {
        if (text[i] != '"')
            continue;
        if (opened)
            inside += (size_t)count_chars(text + open, i - open);
        open = i + 1;
        opened = !opened;
    }
    return len == 0 ? 0.0 : (double)inside / count_chars(text, len);
}

double measure_text(enum measure m, const char *text, size_t len)
{
    static const char *const wow[] = {"wow", "amazing", "crazy", NULL};
    static const char *const self[] = {"i", "me", "my", "mine", "we", "our", "us", NULL};
    double n;

    switch (m) {
    case MEASURE_WORDS:
        return count_words(text, len);
    case MEASURE_CHARS:
        return count_chars(text, len);
    case MEASURE_SENTENCES:
        return count_sentences(text, len, false);
    case MEASURE_QUESTION:
        return has_byte(text, len, '?') ? 1.0 : 0.0;
    case MEASURE_QUESTIONS:
        n = count_sentences(text, len, false);
        return n > 0.0 ? count_sentences(text, len, true) / n : 0.0;
    case MEASURE_EXCLAMATION:
        return has_byte(text, len, '!') ? 1.0 : 0.0;
    case MEASURE_WOW:
        return has_word(text, len, wow) ? 1.0 : 0.0;
    case MEASURE_DIGIT:
        return has_digit(text, len) ? 1.0 : 0.0;
    case MEASURE_FIRST_PERSON:
        return has_word(text, len, self) ? 1.0 : 0.0;
    case MEASURE_RICHNESS:
        return richness(text, len);
    case MEASURE_VALENCE:
        return valence(text, len, false);
    case MEASURE_JOY:
        return valence(text, len, true);
    case MEASURE_DIALOGUE:
        return dialogue(text, len);
    case MEASURE_COUNT:
        break;
    }
    return 0.0;
}
