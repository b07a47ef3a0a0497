#include "data_fixture.h"

#include "data/measure.h"

static void test_values_by_hand(void **state)
{
    static const struct {
        enum measure m;
        const char *text;
        double value;
    } cases[] = {
        {MEASURE_WORDS, "", 0},
        {MEASURE_WORDS, "  \n ", 0},
        {MEASURE_WORDS, "one two  three", 3},
        {MEASURE_WORDS, "one - two ... three!", 3},
        {MEASURE_WORDS, "don't stop-now caf\xC3\xA9", 3},
        {MEASURE_CHARS, "caf\xC3\xA9", 4},
        {MEASURE_SENTENCES, "", 0},
        {MEASURE_SENTENCES, "no mark", 1},
        {MEASURE_SENTENCES, "One. Two! Three?", 3},
        {MEASURE_SENTENCES, "Wait... what?! It is 3.5.", 3},
        {MEASURE_SENTENCES, "... !", 0},
        {MEASURE_QUESTION, "What? Yes.", 1},
        {MEASURE_QUESTION, "Yes.", 0},
        {MEASURE_QUESTIONS, "What? Yes. Why? No.", 0.5},
        {MEASURE_QUESTIONS, "?", 0},
        {MEASURE_QUESTIONS, "really", 0},
        {MEASURE_EXCLAMATION, "Oh!", 1},
        {MEASURE_EXCLAMATION, "Oh.", 0},
        {MEASURE_WOW, "Wow, that", 1},
        {MEASURE_WOW, "that's AMAZING!!", 1},
        {MEASURE_WOW, "wowed crazyness", 0},
        {MEASURE_DIGIT, "in 1969", 1},
        {MEASURE_DIGIT, "in old times", 0},
        {MEASURE_FIRST_PERSON, "I'm here", 1},
        {MEASURE_FIRST_PERSON, "it is his", 0},
        {MEASURE_FIRST_PERSON, "(us)", 1},
        {MEASURE_FIRST_PERSON, "USA", 0},
        {MEASURE_VALENCE, "", 0},
        {MEASURE_VALENCE, "good", 1.9},
        {MEASURE_VALENCE, "The GOOD, bad.", (1.9 - 2.5) / 3},
        {MEASURE_VALENCE, "table chair", 0},
        {MEASURE_JOY, "good ok love table", 0.5},
        {MEASURE_DIALOGUE, "\"ab\" cd", 2.0 / 7.0},
        {MEASURE_DIALOGUE, "\"ab cd", 0},
        {MEASURE_DIALOGUE, "", 0},
        {MEASURE_RICHNESS, "a a a a", -0.7 * 1.3862943611198906},
        {MEASURE_RICHNESS, "a B b A", 0.6931471805599453 - 0.7 * 1.3862943611198906},
        {MEASURE_RICHNESS, "word", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double v = measure_text(cases[i].m, cases[i].text, strlen(cases[i].text));
        if (!(fabs(v - cases[i].value) < 1e-12))
            fail_msg("%s of \"%s\" is %.17g, not %.17g", measure_name(cases[i].m), cases[i].text, v,
                     cases[i].value);
    }
}

static void test_nothing_is_ever_nan(void **state)
{
    static const char *const texts[] = {"",  " ", "\n",       "...",  "\"", "\"\"",
                                        "?", "a", "\xC3\xA9", "\xFF", "1"};

    (void)state;
    for (int m = 0; m < MEASURE_COUNT; m++)
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
            assert_true(isfinite(measure_text((enum measure)m, texts[i], strlen(texts[i]))));
}

static void test_length_is_what_counts_not_a_nul(void **state)
{
    (void)state;
    assert_true(measure_text(MEASURE_WORDS, "one two three", 3) == 1.0);
    assert_true(measure_text(MEASURE_QUESTION, "no?", 2) == 0.0);
    assert_true(measure_text(MEASURE_VALENCE, "goodness", 4) == 1.9);
}

static void test_names(void **state)
{
    (void)state;
    for (int m = 0; m < MEASURE_COUNT; m++)
        assert_int_equal(measure_find(measure_name((enum measure)m)), m);
    assert_int_equal(measure_find("wit"), -1);
    assert_int_equal(measure_find(""), -1);
}

/* A word longer than the lexicon's longest is cut, and must not be taken for its head. */
static void test_long_words(void **state)
{
    char text[4096];

    (void)state;
    memset(text, 'a', sizeof text);
    assert_true(measure_text(MEASURE_WORDS, text, sizeof text) == 1.0);
    assert_true(measure_text(MEASURE_VALENCE, text, sizeof text) == 0.0);
    assert_true(isfinite(measure_text(MEASURE_RICHNESS, text, sizeof text)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_by_hand), cmocka_unit_test(test_nothing_is_ever_nan),
        cmocka_unit_test(test_length_is_what_counts_not_a_nul), cmocka_unit_test(test_names),
        cmocka_unit_test(test_long_words)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
