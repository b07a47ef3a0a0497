#include "data_fixture.h"

#include <zlib.h>
#include <zstd.h>

#include "data/lines.h"

static struct buf gzip(const char *text, size_t len)
{
    struct buf b = BUF_INIT;
    z_stream z = {0};

    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    buf_reserve(&b, deflateBound(&z, len));
    z.next_in = (Bytef *)(uintptr_t)text;
    z.avail_in = (uInt)len;
    z.next_out = (Bytef *)b.data;
    z.avail_out = (uInt)b.cap;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    b.len = z.total_out;
    deflateEnd(&z);
    return b;
}

static struct buf zstd(const char *text, size_t len)
{
    struct buf b = BUF_INIT;
    size_t n;

    buf_reserve(&b, ZSTD_compressBound(len));
    n = ZSTD_compress(b.data, b.cap, text, len, 3);
    assert_false(ZSTD_isError(n));
    b.len = n;
    return b;
}

/* All lines joined by "|", too long ones with "..." behind; the error's code in rc. */
static char *read_all(const char *bytes, size_t len, struct lines_limits limits, int *rc)
{
    char *dir = temp_dir(), *path = temp_file(dir, "x", bytes, len);
    struct lines *l = NULL;
    struct line line;
    struct err e = {0};
    struct buf out = BUF_INIT;
    bool more = true;
    uint64_t n = 0;

    buf_str(&out, "");
    *rc = lines_open(path, limits, &l, &e);
    while (*rc == 0 && more) {
        *rc = lines_next(l, &line, &more, &e);
        if (*rc != 0 || !more)
            break;
        assert_int_equal(line.number, ++n);
        assert_true(strlen(line.text) <= line.len); /* damage may put a NUL inside */
        buf_printf(&out, "%s%s|", line.text, line.too_long ? "..." : "");
    }
    assert_true(*rc == 0 || e.msg[0] != '\0');
    lines_close(l);
    free(path);
    temp_free(dir);
    return buf_take(&out);
}

static void expect(const char *bytes, size_t len, struct lines_limits limits, int code,
                   const char *text)
{
    int rc;
    char *got = read_all(bytes, len, limits, &rc);

    assert_int_equal(rc, code);
    assert_string_equal(got, text);
    free(got);
}

static void test_line_ends(void **state)
{
    (void)state;
    expect("", 0, LINES_LIMITS, 0, "");
    expect("a\nb\n", 4, LINES_LIMITS, 0, "a|b|");
    expect("a\nb", 3, LINES_LIMITS, 0, "a|b|");
    expect("a\r\nb\r\n", 6, LINES_LIMITS, 0, "a|b|");
    expect("\n\na", 3, LINES_LIMITS, 0, "||a|");
    expect("\xEF\xBB\xBF"
           "a\n",
           5, LINES_LIMITS, 0, "a|");
}

static void test_compressed(void **state)
{
    struct buf z = gzip("one\ntwo\n", 8), two = gzip("three\n", 6), s = zstd("one\ntwo\n", 8),
               t = zstd("three", 5);

    (void)state;
    expect(z.data, z.len, LINES_LIMITS, 0, "one|two|");
    expect(s.data, s.len, LINES_LIMITS, 0, "one|two|");
    buf_add(&z, two.data, two.len); /* members and frames one after another are one text */
    buf_add(&s, t.data, t.len);
    expect(z.data, z.len, LINES_LIMITS, 0, "one|two|three|");
    expect(s.data, s.len, LINES_LIMITS, 0, "one|two|three|");
    buf_free(&z);
    buf_free(&two);
    buf_free(&s);
    buf_free(&t);
}

/* Larger than every window, lines across its borders. */
static void test_large(void **state)
{
    struct buf text = BUF_INIT, z, s;
    int rc;
    char *got;

    (void)state;
    for (int i = 0; i < 60000; i++)
        buf_printf(&text, "line %d of many, %x\n", i, (unsigned)i * 2654435u);
    z = gzip(text.data, text.len);
    s = zstd(text.data, text.len);
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] == '\n')
            text.data[i] = '|';
    got = read_all(z.data, z.len, LINES_LIMITS, &rc);
    assert_int_equal(rc, 0);
    assert_string_equal(got, text.data);
    free(got);
    got = read_all(s.data, s.len, LINES_LIMITS, &rc);
    assert_int_equal(rc, 0);
    assert_string_equal(got, text.data);
    free(got);
    buf_free(&z);
    buf_free(&s);
    buf_free(&text);
}

static void test_caps(void **state)
{
    struct lines_limits narrow = {4, 1000}, little = {100, 10};

    (void)state;
    expect("abcd\nabcde\nok\n", 14, narrow, 0, "abcd|abcd...|ok|");
    expect("abcdefgh\n", 9, little, 0, "abcdefgh|");
    expect("abcdefgh\nijk\n", 13, little, ERR_LIMIT, "");
}

static void test_bomb_stops_at_the_cap(void **state)
{
    struct buf text = BUF_INIT, z;
    struct lines_limits limits = {1u << 20, 1u << 20};
    int rc;
    char *got;

    (void)state;
    buf_reserve(&text, 8u << 20);
    memset(text.data, '\n', 8u << 20);
    text.len = 8u << 20;
    z = gzip(text.data, text.len);
    assert_true(z.len < 16384);
    got = read_all(z.data, z.len, limits, &rc);
    assert_int_equal(rc, ERR_LIMIT);
    free(got);
    buf_free(&text);
    buf_free(&z);
}

/* Every cut and many flipped bits of a compressed file: an error or the text, never a crash, and a cut is never taken for the whole. */
static void test_damage(void **state)
{
    static const char text[] = "{\"a\": 1}\n{\"a\": 2}\n{\"a\": 3}\n";
    struct buf file[2] = {gzip(text, sizeof text - 1), zstd(text, sizeof text - 1)};

    (void)state;
    for (int k = 0; k < 2; k++) {
        for (size_t n = 4; n < file[k].len; n++) {
            int rc;
            char *got = read_all(file[k].data, n, LINES_LIMITS, &rc);
            assert_int_equal(rc, ERR_CORRUPT);
            free(got);
        }
        for (size_t i = 2; i < file[k].len; i++) {
            int rc;
            char *got;
            file[k].data[i] ^= 0x10;
            got = read_all(file[k].data, file[k].len, LINES_LIMITS, &rc);
            free(got);
            file[k].data[i] ^= 0x10;
        }
        buf_free(&file[k]);
    }
}

static void test_parquet_is_named(void **state)
{
    char *dir = temp_dir(), *path = temp_file(dir, "x", "PAR1....", 8);
    struct lines *l = NULL;
    struct err e = {0};

    (void)state;
    assert_int_equal(lines_open(path, LINES_LIMITS, &l, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "to_json"));
    assert_int_equal(lines_open("/nonexistent/x", LINES_LIMITS, &l, &e), ERR_NOT_FOUND);
    free(path);
    temp_free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_line_ends),
                                       cmocka_unit_test(test_compressed),
                                       cmocka_unit_test(test_large),
                                       cmocka_unit_test(test_caps),
                                       cmocka_unit_test(test_bomb_stops_at_the_cap),
                                       cmocka_unit_test(test_damage),
                                       cmocka_unit_test(test_parquet_is_named)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
