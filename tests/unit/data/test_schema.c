#include "data_fixture.h"

static void test_levels_round_half_to_even(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);
    static const struct {
        double value;
        int level;
    } cases[] = {{0.5, 0},       {1.5, 2},       {2.5, 2},  {3.5, 4},   {0.125 * 4, 0},
                 {0.375 * 4, 2}, {0.625 * 4, 2}, {-0.2, 0}, {-1e30, 0}, {4.7, 4},
                 {1e30, 4},      {1.49, 1},      {2.51, 3}, {4.0, 4}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(schema_level(&s.attr[0], cases[i].value), cases[i].level);
    assert_int_equal(schema_level(&s.attr[0], (double)NAN), -1);
    assert_int_equal(schema_level(&s.attr[0], (double)INFINITY), 4);
}

/* Open Assistant's shares of 0..1 on ten levels: what Python's round() gives for every hundredth. */
static void test_hundredths_round_as_python_does(void **state)
{
    static const char expected[] = "000000111111111112222222222233333333333444444444444555555555"
                                   "55666666666667777777777788888888888999999";
    struct schema s = schema_of(SCHEMA_HELP);

    (void)state;
    s.attr[0].max = 9;
    s.attr[0].levels = 10;
    for (int i = 0; i <= 100; i++)
        assert_int_equal(schema_level(&s.attr[0], i / 100.0 * 9.0), expected[i] - '0');
}

static void test_scale_that_begins_above_zero(void **state)
{
    struct schema s = schema_of(SCHEMA_HELP);
    float human[2] = {1.0f, NAN};

    (void)state;
    s.attr[0].min = 1;
    s.attr[0].max = 5;
    assert_int_equal(schema_level(&s.attr[0], 1.0), 0);
    assert_int_equal(schema_level(&s.attr[0], 2.5), 1); /* rounds the value, 2, not the distance */
    assert_int_equal(schema_level(&s.attr[0], 9.0), 4);
    /* The label's scale 0..4 is stretched to 1..5. */
    assert_true(schema_human_value(&s, 0, human) == 2.0);
    assert_int_equal(schema_human_level(&s, 0, human), 1);
    assert_int_equal(schema_human_level(&s, 1, human), -1);
    assert_int_equal(schema_human_level(&s, 0, NULL), -1);
}

static void test_bins_count_the_edges_below(void **state)
{
    struct schema s = schema_of(SCHEMA_CHAT);
    struct attr *a = &s.attr[0];
    float values[10] = {9, 1, 2, 3, 4, 5, 6, 7, 8, 0};

    (void)state;
    assert_int_equal(schema_level(a, 0.5), -1); /* no edges yet */
    schema_set_edges(a, values, 10);
    assert_true(a->has_edges);
    assert_true(a->edge[0] == 2.0 && a->edge[1] == 4.0 && a->edge[2] == 6.0 && a->edge[3] == 8.0);
    assert_int_equal(schema_level(a, 1.9), 0);
    assert_int_equal(schema_level(a, 2.0), 1); /* an edge belongs to the upper bin */
    assert_int_equal(schema_level(a, 7.99), 3);
    assert_int_equal(schema_level(a, 8.0), 4);
    assert_int_equal(schema_level(a, (double)NAN), -1);
    float missing[4] = {NAN, 3, NAN, 1};
    schema_set_edges(a, missing, 4);
    assert_true(a->edge[0] == 1.0 && a->edge[3] == 3.0);
    schema_set_edges(a, missing, 0);
    assert_false(a->has_edges);
}

static void test_classes_are_all_or_nothing(void **state)
{
    struct schema s = schema_of(SCHEMA_CHAT);
    float human[2] = {1.0f, 0.0f};

    (void)state;
    assert_int_equal(schema_human_level(&s, 0, human), 4);
    assert_int_equal(schema_human_level(&s, 1, human), 0);
    assert_int_equal(schema_human_level(&s, 2, human), -1); /* computed */
    human[0] = 2.0f;
    assert_int_equal(schema_human_level(&s, 0, human), 0);
}

static void test_json_round_trip(void **state)
{
    struct schema s = schema_of(SCHEMA_CHAT), back;
    struct err e = {0};
    float values[5] = {0.1f, 0.2f, 0.3f, 0.4f, 0.5f};
    cJSON *j;
    struct buf one = BUF_INIT, two = BUF_INIT;

    (void)state;
    schema_set_edges(&s.attr[1], values, 5);
    j = schema_to_json(&s);
    json_canonical(j, &one);
    assert_int_equal(schema_from_json(j, &back, &e), 0);
    cJSON_Delete(j);
    j = schema_to_json(&back);
    json_canonical(j, &two);
    cJSON_Delete(j);
    assert_string_equal(one.data, two.data);
    assert_memory_equal(back.attr[1].edge, s.attr[1].edge, sizeof(double) * 4);
    assert_int_equal(schema_same(&s, &back, &e), 0);
    assert_int_equal(schema_find_attr(&back, "personal"), 1);
    assert_int_equal(schema_find_attr(&back, "person"), -1);
    assert_int_equal(schema_find_label(&back, "source"), 1);
    buf_free(&one);
    buf_free(&two);
}

static void test_differences_are_named(void **state)
{
    struct schema a = schema_of(SCHEMA_HELP), b = a;
    struct err e = {0};

    (void)state;
    b.attr[1].levels = 6;
    assert_int_equal(schema_same(&a, &b, &e), ERR_INVALID);
    assert_string_equal(e.msg, "attribute \"humor\" has 5 levels against 6");
    b = a;
    strcpy(b.attr[0].name, "taste");
    assert_int_equal(schema_same(&a, &b, &e), ERR_INVALID);
    assert_string_equal(e.msg, "attribute 0 is \"quality\" against \"taste\"");
    b = a;
    b.attrs = 1;
    assert_int_equal(schema_same(&a, &b, &e), ERR_INVALID);
    b = a;
    b.attr[0].min = 1;
    assert_int_equal(schema_same(&a, &b, &e), ERR_INVALID);
}

static void test_bad_json_is_refused(void **state)
{
    static const char *const cases[] = {
        "{}",
        "{\"labels\":[],\"attributes\":{}}",
        "{\"labels\":[{\"name\":\"q\",\"type\":\"scale\",\"min\":4,\"max\":4}],\"attributes\":[]}",
        "{\"labels\":[{\"name\":\"\",\"type\":\"scale\",\"min\":0,\"max\":4}],\"attributes\":[]}",
        "{\"labels\":[{\"name\":\"q\",\"type\":\"range\",\"min\":0,\"max\":4}],\"attributes\":[]}",
        "{\"labels\":[{\"name\":\"q\",\"type\":\"classes\",\"classes\":[],\"other\":-1}],"
        "\"attributes\":[]}",
        "{\"labels\":[{\"name\":\"q\",\"type\":\"classes\",\"classes\":[\"a\"],\"other\":1}],"
        "\"attributes\":[]}",
        "{\"labels\":[],\"attributes\":[{\"name\":\"a\",\"type\":\"integer\",\"label\":\"q\","
        "\"levels\":5,\"min\":0,"
        "\"max\":4,\"default\":0}]}",
        "{\"labels\":[],\"attributes\":[{\"name\":\"a\",\"type\":\"computed\",\"measure\":\"wit\","
        "\"levels\":5,\"min\":0,"
        "\"max\":4,\"default\":0}]}",
        "{\"labels\":[],\"attributes\":[{\"name\":\"a\",\"type\":\"computed\",\"measure\":"
        "\"words\",\"levels\":17,"
        "\"min\":0,\"max\":4,\"default\":0}]}",
        "{\"labels\":[],\"attributes\":[{\"name\":\"a\",\"type\":\"computed\",\"measure\":"
        "\"words\",\"levels\":5,"
        "\"min\":0,\"max\":4,\"default\":5}]}",
        "{\"labels\":[],\"attributes\":[{\"name\":\"a\",\"type\":\"computed\",\"measure\":"
        "\"words\",\"levels\":3,"
        "\"min\":0,\"max\":4,\"default\":0,\"edges\":[2,1]}]}",
        "{\"labels\":[],\"attributes\":[{\"name\":\"a\",\"type\":\"computed\",\"measure\":"
        "\"words\",\"levels\":3,"
        "\"min\":0,\"max\":4,\"default\":0,\"edges\":[1]}]}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct schema s;
        struct err e = {0};
        cJSON *j = NULL;
        assert_int_equal(json_parse(cases[i], strlen(cases[i]), JSON_LIMITS_LINE, &j, &e), 0);
        if (schema_from_json(j, &s, &e) == 0)
            fail_msg("case %zu was accepted", i);
        assert_true(e.msg[0] != '\0');
        cJSON_Delete(j);
    }
}

/* Each difference that makes human[] of the one mean something else in the other. */
static void test_labels_that_differ_are_named(void **state)
{
    static const struct {
        const char *from, *to, *words;
    } cases[] = {
        {"\"Curious\",\"Happy\"", "\"Happy\",\"Curious\"",
         "label 0: \"mood\" has class 1 \"Curious\" against \"Happy\""},
        {",\"Happy\"", "", "label 0: \"mood\" has 3 classes against 2"},
        {"\"other\":-1", "\"other\":2",
         "label 0: \"mood\" takes other values as class -1 against 2"},
        {"\"class\":1", "\"class\":2", "\"curious\" is class 1 of label \"mood\" against class 2"},
        {"\"label\":\"source\"", "\"label\":\"mood\"",
         "\"personal\" comes from label \"source\" against \"mood\""},
        {"\"labels\":[", "\"labels\":[{\"name\":\"extra\",\"type\":\"scale\",\"min\":0,\"max\":4},",
         "2 labels against 3: \"extra\" is in one only"},
        {"\"type\":\"classes\",\"classes\":[\"else\",",
         "\"type\":\"classes\",\"classes\":[\"rest\",",
         "label 1: \"source\" has class 0 \"else\" against \"rest\""},
    };
    struct schema a = schema_of(SCHEMA_CHAT), help = schema_of(SCHEMA_HELP), b = help;
    struct err e = {0};

    (void)state;
    assert_int_equal(schema_same_labels(&a, &a, &e), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *hit = strstr(SCHEMA_CHAT, cases[i].from);
        char *text = mem_printf("%.*s%s%s", (int)(hit - SCHEMA_CHAT), SCHEMA_CHAT, cases[i].to,
                                hit + strlen(cases[i].from));
        b = schema_of(text);
        assert_int_equal(schema_same(&a, &b, &e), 0); /* the attributes are the same */
        assert_int_equal(schema_same_labels(&a, &b, &e), ERR_INVALID);
        if (strstr(e.msg, cases[i].words) == NULL)
            fail_msg("%zu: %s", i, e.msg);
        err_clear(&e);
        free(text);
    }
    b = help;
    b.label[1].max = 5;
    assert_int_equal(schema_same_labels(&help, &b, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "\"humor\" has a scale 0..4 against 0..5"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_levels_round_half_to_even),
                                       cmocka_unit_test(test_hundredths_round_as_python_does),
                                       cmocka_unit_test(test_scale_that_begins_above_zero),
                                       cmocka_unit_test(test_bins_count_the_edges_below),
                                       cmocka_unit_test(test_classes_are_all_or_nothing),
                                       cmocka_unit_test(test_json_round_trip),
                                       cmocka_unit_test(test_differences_are_named),
                                       cmocka_unit_test(test_labels_that_differ_are_named),
                                       cmocka_unit_test(test_bad_json_is_refused)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
