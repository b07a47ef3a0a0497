/*
 * A regular expression from a file is never run: backtracking in a hostile one is exponential. The
 * few patterns that model families use are recognised by their exact text, and what runs is our own
 * PCRE2 form of them. There \s, \S are written out, because PCRE2 counts U+180E as a space and
 * Oniguruma, which the reference uses, does not.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <pthread.h>
#include <string.h>

#include "data/tokenizer_parts.h"

#define WS "\\t-\\r\\x{85}\\p{Z}"
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL "|[" WS "]+(?![^" WS "])|[" WS "]+"
#define LLAMA3(digits)                                                                             \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^" WS                               \
                 "\\p{L}\\p{N}]+[\\r\\n]*|[" WS "]*[\\r\\n]+" TAIL
#define LLAMA3_FILE(digits)                                                                        \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                                          \
                 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

struct tokenizer_pattern {
    const char *file; /* as a tokenizer.json has it */
    const char *run;
};
enum { GPT2, LLAMA, QWEN, DIGIT, DIGITS, PATTERNS };
static const struct tokenizer_pattern pattern[PATTERNS] = {
    [GPT2] = {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
              "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+" TAIL},
    [LLAMA] = {LLAMA3_FILE("\\p{N}{1,3}"), LLAMA3("\\p{N}{1,3}")},
    [QWEN] = {LLAMA3_FILE("\\p{N}"), LLAMA3("\\p{N}")},
    [DIGIT] = {"", "\\p{N}|\\P{N}+"},
    [DIGITS] = {"", "\\p{N}+|\\P{N}+"},
};
static pcre2_code *code[PATTERNS]; /* compiled once per process, shared by all tokenizers and
                                      threads, never freed */
static pthread_once_t compiled = PTHREAD_ONCE_INIT;
static pthread_key_t match_key;

static void match_free(void *data)
{
    pcre2_match_data_free(data);
}

static void compile_all(void)
{
    CHECK(pthread_key_create(&match_key, match_free) == 0);
    for (int i = 0; i < PATTERNS; i++) {
        int why;
        PCRE2_SIZE where;
        code[i] = pcre2_compile((PCRE2_SPTR)pattern[i].run, PCRE2_ZERO_TERMINATED,
                                PCRE2_UTF | PCRE2_UCP, &why, &where, NULL);
        CHECK(code[i] != NULL);
        (void)pcre2_jit_compile(
            code[i], PCRE2_JIT_COMPLETE); /* where there is no JIT the interpreter runs */
    }
}

const struct tokenizer_pattern *tokenizer_pattern_find(const char *regex)
{
    for (int i = GPT2; i <= QWEN; i++)
        if (strcmp(pattern[i].file, regex) == 0)
            return &pattern[i];
    return NULL;
}

const struct tokenizer_pattern *tokenizer_pattern_digits(bool individually)
{
    return &pattern[individually ? DIGIT : DIGITS];
}

const struct tokenizer_pattern *tokenizer_pattern_gpt2(void)
{
    return &pattern[GPT2];
}

int tokenizer_pattern_next(const struct tokenizer_pattern *p, const char *text, size_t len,
                           size_t at, size_t *end, struct err *e)
{
    pcre2_match_data *match;
    const PCRE2_SIZE *bound;
    int n;

    pthread_once(&compiled, compile_all);
    match = pthread_getspecific(match_key);
    if (match == NULL) {
        match = pcre2_match_data_create(4, NULL);
        CHECK(match != NULL && pthread_setspecific(match_key, match) == 0);
    }
    n = pcre2_match(code[p - pattern], (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK, match, NULL);
    if (n == PCRE2_ERROR_NOMATCH) {
        *end = len;
        return 0;
    }
    if (n < 0)
        return err_set(e, ERR_LIMIT, "splitting text into words at byte %zu of %zu: PCRE2 error %d",
                       at, len, n);
    bound = pcre2_get_ovector_pointer(match);
    *end = bound[0] > at ? bound[0] : bound[1]; /* text between matches is a piece of its own */
    CHECK(*end > at && *end <= len);
    return 0;
}
