#include "data_fixture.h"

#include "data/clean.h"

static void test_table(void **state)
{
    enum { ALL = 15 };
    static const struct {
        unsigned flags;
        const char *in, *out;
    } cases[] = {
        {0, " a \xE2\x80\x99!!!! ", " a \xE2\x80\x99!!!! "},
        {CLEAN_ASCII_QUOTES, "\xE2\x80\x9CHi\xE2\x80\x9D it\xE2\x80\x99s caf\xC3\xA9",
         "\"Hi\" it's caf\xC3\xA9"},
        {CLEAN_ASCII_QUOTES, "\xE2\x80\x94", "\xE2\x80\x94"}, /* a dash is no quote */
        {CLEAN_DROP_NON_ASCII, "caf\xC3\xA9 \xF0\x9F\x98\x80!", "caf !"},
        {CLEAN_DROP_NON_ASCII, "it\xE2\x80\x99s", "its"},
        {CLEAN_SQUEEZE_PUNCTUATION, "no!!! why???? well... ok.. hm!?!?",
         "no!! why?? well.. ok.. hm!?!?"},
        {CLEAN_SQUEEZE_PUNCTUATION, "soooo ---", "soooo ---"},
        {CLEAN_COLLAPSE_SPACES, "  a\t\n b  ", "a b"},
        {CLEAN_COLLAPSE_SPACES, " \n ", ""},
        {ALL, " \xE2\x80\x9CWow!!!!\xE2\x80\x9D \xF0\x9F\x98\x80  ok ", "\"Wow!!\" ok"},
        {ALL, "!\xC3\xA9!\xC3\xA9!\xC3\xA9!", "!!"}, /* runs are those of what is left */
        {ALL, "", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf b = BUF_INIT;
        clean_text(cases[i].flags, cases[i].in, strlen(cases[i].in), &b);
        assert_string_equal(b.data != NULL ? b.data : "", cases[i].out);
        buf_free(&b);
    }
}

/* Cleaning twice is cleaning once. */
static void test_idempotent(void **state)
{
    static const char text[] = "  \xE2\x80\x98"
                               "A\xE2\x80\x99  !!!!! \xC3\xA9 ...... ? ??? b ";
    struct buf one = BUF_INIT, two = BUF_INIT;

    (void)state;
    clean_text(15, text, sizeof text - 1, &one);
    clean_text(15, one.data, one.len, &two);
    assert_string_equal(one.data, two.data);
    buf_free(&one);
    buf_free(&two);
}

static void test_names(void **state)
{
    struct err e = {0};
    unsigned flag = 0;

    (void)state;
    assert_int_equal(clean_find("squeeze_punctuation", &flag, &e), 0);
    assert_int_equal(flag, CLEAN_SQUEEZE_PUNCTUATION);
    assert_string_equal(clean_name(flag), "squeeze_punctuation");
    assert_int_equal(clean_find("ascii_quote", &flag, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "did you mean ascii_quotes?"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_table),
                                       cmocka_unit_test(test_idempotent),
                                       cmocka_unit_test(test_names)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
