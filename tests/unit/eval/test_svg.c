/* eval/svg.h: well-formed, complete, escaped, and the same bytes each time; `test_svg DIR` leaves
 * the pictures to look at. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "eval/svg.h"

static const char *leave_in;

static void leave(const char *name, const struct buf *b)
{
    char path[512];
    struct err e;

    if (leave_in == NULL)
        return;
    snprintf(path, sizeof path, "%s/%s.svg", leave_in, name);
    assert_int_equal(file_write_atomic(path, b->data, b->len, &e), 0);
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;

    for (; (text = strstr(text, what)) != NULL; text++)
        n++;
    return n;
}

/* Every element is closed, and attributes are quoted. */
static void check_tags(const char *s)
{
    int depth = 0;

    for (const char *at = s; (at = strchr(at, '<')) != NULL; at++) {
        const char *end = strchr(at, '>');
        assert_non_null(end);
        if (at[1] == '/')
            depth--;
        else if (end[-1] != '/')
            depth++;
    }
    assert_int_equal(depth, 0);
    assert_null(strstr(s, "nan"));
    assert_null(strstr(s, "inf"));
}

static void test_lines(void **state)
{
    struct svg_point steer[] = {{0, .08, .05, .11}, {2, .30, .25, .35}, {4, .68, .62, .73}};
    struct svg_point control[] = {{0, .21, .17, .26}, {2, .20, .15, .25}, {4, .22, .17, .27}};
    struct svg_point words[] = {{0, 6.4, 6.1, 6.7}, {2, 15.2, 14.5, 15.8}, {4, 22.6, 22, 23.1}};
    struct svg_point broken[] = {{0, (double)NAN, (double)NAN, (double)NAN}};
    struct svg_series a[] = {{"steer", steer, 3, 0, true, false},
                             {"control", control, 3, 1, true, true}};
    struct svg_series w[] = {{"steer", words, 3, 0, true, false}},
                      n[] = {{"none", broken, 1, 2, true, false}};
    struct svg_panel p[] = {
        {"curious: question", "requested level", "share of replies", a, 2, true, true, 0},
        {"verbosity: words", "requested level", "words", w, 1, true, true, 0},
        {"a < b & \"c\"", "requested level", "x", n, 1, true, true, 0},
        {"happy: exclamation", "requested level", "share of replies", a, 2, true, true, 1}};
    struct buf out = BUF_INIT, again = BUF_INIT;
    (void)state;

    svg_lines(&out, "Requested level against measurement", p, 4, 3);
    svg_lines(&again, "Requested level against measurement", p, 4, 3);
    check_tags(out.data);
    assert_string_equal(out.data, again.data);
    assert_int_equal(count(out.data, "<circle"), 3 * 5);
    assert_non_null(strstr(out.data, "a &lt; b &amp; &quot;c&quot;"));
    leave("lines", &out);
    buf_free(&out);
    buf_free(&again);
}

static void test_training_curve(void **state)
{
    static struct svg_point p[500], q[500];
    struct svg_series s[] = {{"steer", p, 500, 0, false, false},
                             {"control", q, 500, 1, false, false}};
    struct svg_panel panel = {"", "step", "loss, nats a token", s, 2, false, true, 0};
    struct buf out = BUF_INIT;
    (void)state;

    for (int i = 0; i < 500; i++) {
        p[i] = (struct svg_point){i, 1.6 + 3 * exp(-i / 60.0) + .03 * sin(i * 7.0), (double)NAN,
                                  (double)NAN};
        q[i] = p[i];
        q[i].y += 0.06;
    }
    svg_lines(&out, "Training loss", &panel, 1, 1);
    check_tags(out.data);
    leave("curve", &out);
    buf_free(&out);
}

static void test_bars_and_heat(void **state)
{
    const char *group[] = {"curious: question", "happy: exclamation", "surprised: wow",
                           "personal: digit"};
    const char *series[] = {"steer", "control"};
    const char *column[] = {"question",     "exclamation", "wow",          "digit",
                            "first_person", "words",       "judge curious"};
    struct interval v[8] = {{.61, .54, .67},   {0, -.07, .08},     {.5, .43, .56},
                            {.01, -.05, .07},  {.16, .11, .2},     {-.01, -.05, .02},
                            {-.4, -.46, -.34}, {(double)NAN, 0, 0}};
    double shade[28];
    const char *text[28];
    static char cell[28][16];
    struct buf out = BUF_INIT;
    (void)state;

    svg_bars(&out, "Effect of each attribute", "level 4 minus level 0", group, 4, series, 2, v);
    check_tags(out.data);
    assert_int_equal(count(out.data, "<rect"),
                     1 + 2 + 7); /* background, legend, the seven that were measured */
    leave("bars", &out);
    buf_clear(&out);
    for (int i = 0; i < 28; i++) {
        shade[i] = i == 5 ? (double)NAN : -1.2 + i * .1;
        snprintf(cell[i], sizeof cell[i], "%+.2f", shade[i]);
        text[i] = cell[i];
    }
    text[5] = "-";
    svg_heat(&out, "Leakage", "colour: effect in standard deviations", group, 4, column, 7, shade,
             text);
    check_tags(out.data);
    assert_int_equal(count(out.data, "<rect"), 1 + 28);
    leave("heat", &out);
    buf_free(&out);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_training_curve),
        cmocka_unit_test(test_bars_and_heat),
    };
    leave_in = argc == 2 ? argv[1] : NULL;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
