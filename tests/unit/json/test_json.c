#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/file.h"
#include "json/json_file.h"

static void test_accepts_what_is_json(void **state)
{
    static const char *const good[] = {
        "{}",
        "[]",
        "0",
        "-0.5e-3",
        "\"\\u00e9\\ud83d\\ude00\"",
        " [1 , 2,\t{\"a\":[ ]}] \n",
        "true",
        "null",
        "\"\xF0\x9F\x98\x80\"",
        "{\"a\":1,\"A\":2}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        cJSON *j = NULL;
        struct err e = {0};
        assert_int_equal(json_parse(good[i], strlen(good[i]), JSON_LIMITS_LINE, &j, &e), 0);
        assert_non_null(j);
        cJSON_Delete(j);
    }
}

static void test_refuses_what_is_not(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "value"},
        {"{", "key"},
        {"[1,]", "value"},
        {"{\"a\":1,}", "key"},
        {"[1] x", "goes on"},
        {"01", "leading zero"},
        {"-", "value"},
        {"1.", "digits"},
        {"1e", "exponent"},
        {"1e999", "out of range"},
        {"\"\\u0000\"", "u0000"},
        {"\"\\ud800\"", "surrogate"},
        {"\"\\udc00\"", "surrogate"},
        {"\"\\x\"", "escape"},
        {"\"a\nb\"", "control"},
        {"\"\xff\"", "UTF-8"},
        {"\"\xc0\xaf\"", "UTF-8"},
        {"\"\xed\xa0\x80\"", "UTF-8"},
        {"{\"a\":1,\"a\":2}", "twice"},
        {"[{\"b\":{\"k\":1,\"k\":1}}]", "twice"},
        {"{\"a\" 1}", "':'"},
        {"[1 2]", "','"},
        {"nul", "value"},
        {"\"abc", "end"},
        {"[1}", "']'"},
        {"{1:2}", "key"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cJSON *j = NULL;
        struct err e = {0};
        assert_int_equal(json_parse(cases[i].text, strlen(cases[i].text), JSON_LIMITS_LINE, &j, &e),
                         ERR_INVALID);
        assert_null(j);
        if (strstr(e.msg, cases[i].says) == NULL)
            fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].text, e.msg, cases[i].says);
    }
}

static void test_limits_hold_before_building(void **state)
{
    cJSON *j = NULL;
    struct err e = {0};
    char deep[2001];
    (void)state;
    memset(deep, '[', 2000);
    deep[2000] = '\0';
    assert_int_equal(json_parse(deep, 2000, JSON_LIMITS_LINE, &j, &e), ERR_LIMIT);
    assert_non_null(strstr(e.msg, "deeper than 32"));
    memset(deep + 33, ']', 33);
    assert_int_equal(json_parse(deep, 66, JSON_LIMITS_LINE, &j, &e), ERR_LIMIT);
    memset(deep + 32, ']', 32);
    assert_int_equal(json_parse(deep, 64, JSON_LIMITS_LINE, &j, &e), 0);
    cJSON_Delete(j);
    assert_int_equal(json_parse("[1,2,3]", 7, ((struct json_limits){100, 3, 4}), &j, &e),
                     ERR_LIMIT);
    assert_int_equal(json_parse("[1,2,3]", 7, ((struct json_limits){6, 30, 4}), &j, &e), ERR_LIMIT);
}

static void test_canonical_is_one_text(void **state)
{
    const char *text = "{ \"b\": [1.50, 1e2, 0.1, -0.0], \"a\": \"x\\/\\u00e9\\n\", \"c\": null}";
    cJSON *j = NULL;
    struct buf out = BUF_INIT;
    (void)state;
    assert_int_equal(json_parse(text, strlen(text), JSON_LIMITS_LINE, &j, NULL), 0);
    json_canonical(j, &out);
    assert_string_equal(out.data, "{\"a\":\"x/\xc3\xa9\\n\",\"b\":[1.5,100,0.1,0],\"c\":null}");
    cJSON_Delete(j);
    buf_free(&out);
}

static void test_need_names_key_value_and_bound(void **state)
{
    cJSON *j = NULL;
    struct err e = {0};
    int64_t v;
    (void)state;
    assert_int_equal(json_parse("{\"n\":7,\"s\":\"x\",\"f\":1.5}", 23, JSON_LIMITS_LINE, &j, NULL),
                     0);
    assert_int_equal(json_need_int(j, "n", 0, 10, &v, &e), 0);
    assert_int_equal(v, 7);
    assert_int_equal(json_need_int(j, "n", 8, 10, &v, &e), ERR_INVALID);
    assert_string_equal(e.msg, "\"n\" is 7, must be 8..10");
    assert_int_equal(json_need_int(j, "f", 0, 10, &v, &e), ERR_INVALID);
    assert_int_equal(json_need_int(j, "N", 0, 10, &v, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "missing"));
    cJSON_Delete(j);
}

static void test_files_come_back_as_they_went(void **state)
{
    char dir[] = "/tmp/test_json.XXXXXX", path[64];
    cJSON *j = cJSON_CreateObject(), *back = NULL;
    struct err e = {0};

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a.json", dir);
    assert_int_equal(json_file_read(path, 100, JSON_LIMITS_BODY, &back, &e), ERR_NOT_FOUND);
    assert_null(back);
    cJSON_AddStringToObject(j, "name", "\xc3\xa9");
    assert_int_equal(json_file_write(dir, "a.json", j, &e), 0);
    assert_int_equal(json_file_read(path, 100, JSON_LIMITS_BODY, &back, &e), 0);
    assert_true(cJSON_Compare(j, back, true));
    cJSON_Delete(back);
    assert_int_equal(json_file_read(path, 5, JSON_LIMITS_BODY, &back, &e), ERR_LIMIT);
    assert_null(back);
    assert_int_equal(file_write_atomic(path, "{\"name\":}", 9, &e), 0);
    assert_int_equal(json_file_read(path, 100, JSON_LIMITS_BODY, &back, &e), ERR_INVALID);
    assert_null(back);
    cJSON_Delete(j);
    assert_int_equal(file_remove_tree(dir, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts_what_is_json),
        cmocka_unit_test(test_refuses_what_is_not),
        cmocka_unit_test(test_limits_hold_before_building),
        cmocka_unit_test(test_canonical_is_one_text),
        cmocka_unit_test(test_need_names_key_value_and_bound),
        cmocka_unit_test(test_files_come_back_as_they_went),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
