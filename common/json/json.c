/*
 * How: one pass over the text checks everything that cJSON is lax about (UTF-8, control bytes, numbers, depth, counts, \u0000, lone
 * surrogates, trailing bytes), without building anything; then cJSON parses; then each object is checked for duplicate keys by
 * sorting. The pre-scan is a state machine with an explicit stack of one bit a level, so depth costs no C stack.
 */
#include "json/json.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_CEILING 256

struct scan {
    const char *text;
    size_t len, at;
    size_t tokens;
    struct json_limits limits;
};

/* Length of the valid UTF-8 sequence at s (of n bytes), 0 if there is none. RFC 3629. */
static size_t utf8_sequence(const unsigned char *s, size_t n)
{
    unsigned char c = s[0];
    size_t need;

    if (c < 0x80)
        return 1;
    need = c >= 0xC2 && c <= 0xDF ? 2 : c >= 0xE0 && c <= 0xEF ? 3 : c >= 0xF0 && c <= 0xF4 ? 4 : 0;
    if (need == 0 || need > n)
        return 0;
    for (size_t i = 1; i < need; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    if ((c == 0xE0 && s[1] < 0xA0) || (c == 0xED && s[1] > 0x9F) || (c == 0xF0 && s[1] < 0x90) ||
        (c == 0xF4 && s[1] > 0x8F))
        return 0;
    return need;
}

bool json_utf8_valid(const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t n = utf8_sequence((const unsigned char *)text + i, len - i);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

static int bad(const struct scan *s, const char *what, struct err *e)
{
    return err_set(e, ERR_INVALID, "byte %zu: %s", s->at + 1, what);
}

static void skip_blank(struct scan *s)
{
    while (s->at < s->len && strchr(" \t\r\n", s->text[s->at]) != NULL && s->text[s->at] != '\0')
        s->at++;
}

static int hex4(const struct scan *s, size_t at)
{
    int v = 0;

    if (at + 4 > s->len)
        return -1;
    for (size_t i = 0; i < 4; i++) {
        char c = s->text[at + i];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0)
            return -1;
        v = v * 16 + d;
    }
    return v;
}

static int scan_escape(struct scan *s, struct err *e)
{
    int code;

    s->at++; /* the backslash */
    if (s->at >= s->len)
        return bad(s, "string ends inside an escape", e);
    if (s->text[s->at] != 'u') {
        if (s->text[s->at] == '\0' || strchr("\"\\/bfnrt", s->text[s->at]) == NULL)
            return bad(s, "unknown escape", e);
        s->at++;
        return 0;
    }
    code = hex4(s, s->at + 1);
    if (code < 0)
        return bad(s, "\\u needs four hex digits", e);
    if (code == 0)
        return bad(s, "\\u0000 is not allowed", e);
    s->at += 5;
    if (code >= 0xDC00 && code <= 0xDFFF)
        return bad(s, "lone low surrogate", e);
    if (code >= 0xD800 && code <= 0xDBFF) {
        int low = s->at + 6 <= s->len && s->text[s->at] == '\\' && s->text[s->at + 1] == 'u'
                      ? hex4(s, s->at + 2)
                      : -1;
        if (low < 0xDC00 || low > 0xDFFF)
            return bad(s, "high surrogate without a low one", e);
        s->at += 6;
    }
    return 0;
}

static int scan_string(struct scan *s, struct err *e)
{
    s->at++; /* the opening quote */
    while (s->at < s->len) {
        unsigned char c = (unsigned char)s->text[s->at];
        size_t n;
        int rc;
        if (c == '"') {
            s->at++;
            return 0;
        }
        if (c == '\\') {
            if ((rc = scan_escape(s, e)) != 0)
                return rc;
            continue;
        }
        if (c < 0x20)
            return bad(s, "raw control byte in a string", e);
        n = utf8_sequence((const unsigned char *)s->text + s->at, s->len - s->at);
        if (n == 0)
            return bad(s, "invalid UTF-8", e);
        s->at += n;
    }
    return bad(s, "string does not end", e);
}

static size_t scan_digits(struct scan *s)
{
    size_t from = s->at;

    while (s->at < s->len && s->text[s->at] >= '0' && s->text[s->at] <= '9')
        s->at++;
    return s->at - from;
}

static int scan_number(struct scan *s, struct err *e)
{
    size_t from = s->at;
    char first;
    char copy[64];

    if (s->text[s->at] == '-')
        s->at++;
    first = s->at < s->len ? s->text[s->at] : '\0';
    if (scan_digits(s) == 0)
        return bad(s, "a value was expected", e);
    if (first == '0' && s->at - from > (s->text[from] == '-' ? 2u : 1u))
        return bad(s, "number with a leading zero", e);
    if (s->at < s->len && s->text[s->at] == '.') {
        s->at++;
        if (scan_digits(s) == 0)
            return bad(s, "digits were expected after the point", e);
    }
    if (s->at < s->len && (s->text[s->at] == 'e' || s->text[s->at] == 'E')) {
        s->at++;
        if (s->at < s->len && (s->text[s->at] == '+' || s->text[s->at] == '-'))
            s->at++;
        if (scan_digits(s) == 0)
            return bad(s, "digits were expected in the exponent", e);
    }
    if (s->at - from >= sizeof copy)
        return bad(s, "number is longer than 63 characters", e);
    memcpy(copy, s->text + from, s->at - from);
    copy[s->at - from] = '\0';
    if (!isfinite(strtod(copy, NULL)))
        return bad(s, "number is out of range", e);
    return 0;
}

static int scan_scalar(struct scan *s, struct err *e)
{
    static const char *const words[] = {"true", "false", "null"};

    for (size_t i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if (s->len - s->at >= n && memcmp(s->text + s->at, words[i], n) == 0) {
            s->at += n;
            return 0;
        }
    }
    if (s->text[s->at] == '"')
        return scan_string(s, e);
    return scan_number(s, e);
}

static int scan_key(struct scan *s, struct err *e)
{
    int rc;

    skip_blank(s);
    if (s->at >= s->len || s->text[s->at] != '"')
        return bad(s, "a key in quotes was expected", e);
    if ((rc = scan_string(s, e)) != 0)
        return rc;
    s->tokens++;
    skip_blank(s);
    if (s->at >= s->len || s->text[s->at] != ':')
        return bad(s, "':' was expected", e);
    s->at++;
    return 0;
}

/* After a value: closes levels, or steps over a comma. *more tells whether another value follows. */
static int scan_after(struct scan *s, const char *kinds, int *depth, bool *more, struct err *e)
{
    *more = false;
    while (*depth > 0) {
        char close = kinds[*depth - 1] == '{' ? '}' : ']';
        skip_blank(s);
        if (s->at >= s->len)
            return bad(s, "text ends early", e);
        if (s->text[s->at] == ',') {
            s->at++;
            *more = true;
            return kinds[*depth - 1] == '{' ? scan_key(s, e) : 0;
        }
        if (s->text[s->at] != close)
            return bad(s, close == '}' ? "',' or '}' was expected" : "',' or ']' was expected", e);
        s->at++;
        (*depth)--;
    }
    return 0;
}

static int scan_text(struct scan *s, struct err *e)
{
    char kinds[DEPTH_CEILING];
    int depth = 0, rc = 0;
    bool more = true;

    while (more) {
        skip_blank(s);
        if (s->at >= s->len)
            return bad(s, "a value was expected", e);
        if (++s->tokens > s->limits.tokens_max)
            return err_set(e, ERR_LIMIT, "byte %zu: more than %zu values", s->at + 1,
                           s->limits.tokens_max);
        if (s->text[s->at] == '{' || s->text[s->at] == '[') {
            char open = s->text[s->at];
            if (depth >= s->limits.depth_max || depth >= DEPTH_CEILING)
                return err_set(e, ERR_LIMIT, "byte %zu: nested deeper than %d", s->at + 1,
                               s->limits.depth_max);
            kinds[depth++] = open;
            s->at++;
            skip_blank(s);
            if (s->at < s->len && s->text[s->at] == (open == '{' ? '}' : ']')) {
                s->at++;
                depth--;
            } else {
                if (open == '{' && (rc = scan_key(s, e)) != 0)
                    return rc;
                continue;
            }
        } else if ((rc = scan_scalar(s, e)) != 0) {
            return rc;
        }
        if ((rc = scan_after(s, kinds, &depth, &more, e)) != 0)
            return rc;
    }
    skip_blank(s);
    return s->at == s->len ? 0 : bad(s, "text goes on after the value", e);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int object_keys_unique(const cJSON *object, struct err *e)
{
    int n = cJSON_GetArraySize(object), i = 0;
    const cJSON *child;
    const char **keys;
    int rc = 0;

    if (n < 2)
        return 0;
    keys = mem_alloc((size_t)n * sizeof *keys);
    cJSON_ArrayForEach(child, object) keys[i++] = child->string;
    qsort(keys, (size_t)n, sizeof *keys, by_text);
    for (i = 1; i < n && rc == 0; i++)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            rc = err_set(e, ERR_INVALID, "key \"%.80s\" stands twice in one object", keys[i]);
    free(keys);
    return rc;
}

/* Depth is bounded by the scan, so recursion is too. */
static int keys_unique(const cJSON *value, struct err *e)
{
    const cJSON *child;
    int rc = cJSON_IsObject(value) ? object_keys_unique(value, e) : 0;

    cJSON_ArrayForEach(child, value)
    {
        if (rc != 0)
            return rc;
        if (cJSON_IsObject(child) || cJSON_IsArray(child))
            rc = keys_unique(child, e);
    }
    return rc;
}

int json_parse(const char *text, size_t len, struct json_limits limits, cJSON **out, struct err *e)
{
    struct scan s = {text, len, 0, 0, limits};
    int rc;

    *out = NULL;
    if (len > limits.bytes_max)
        return err_set(e, ERR_LIMIT, "JSON text of %zu bytes, at most %zu", len, limits.bytes_max);
    if ((rc = scan_text(&s, e)) != 0)
        return rc;
    *out = cJSON_ParseWithLength(text, len);
    if (*out == NULL)
        return err_set(e, ERR_INVALID, "not JSON");
    if ((rc = keys_unique(*out, e)) != 0) {
        cJSON_Delete(*out);
        *out = NULL;
    }
    return rc;
}

const cJSON *json_get(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static int missing(const char *key, const char *type, const cJSON *found, struct err *e)
{
    return err_set(e, ERR_INVALID, "\"%s\" %s, must be %s", key,
                   found == NULL ? "is missing" : "has the wrong type", type);
}

int json_need_string(const cJSON *object, const char *key, const char **out, struct err *e)
{
    const cJSON *v = json_get(object, key);

    if (!cJSON_IsString(v))
        return missing(key, "a string", v, e);
    *out = v->valuestring;
    return 0;
}

int json_need_int(const cJSON *object, const char *key, int64_t min, int64_t max, int64_t *out,
                  struct err *e)
{
    const cJSON *v = json_get(object, key);

    if (!cJSON_IsNumber(v) || v->valuedouble != floor(v->valuedouble) ||
        fabs(v->valuedouble) > 0x1p53)
        return missing(key, "an integer", v, e);
    if ((int64_t)v->valuedouble < min || (int64_t)v->valuedouble > max)
        return err_set(e, ERR_INVALID, "\"%s\" is %lld, must be %lld..%lld", key,
                       (long long)v->valuedouble, (long long)min, (long long)max);
    *out = (int64_t)v->valuedouble;
    return 0;
}

int json_need_number(const cJSON *object, const char *key, double *out, struct err *e)
{
    const cJSON *v = json_get(object, key);

    if (!cJSON_IsNumber(v))
        return missing(key, "a number", v, e);
    *out = v->valuedouble;
    return 0;
}

const char *json_string_or(const cJSON *object, const char *key, const char *fallback)
{
    const cJSON *v = json_get(object, key);

    return cJSON_IsString(v) ? v->valuestring : fallback;
}

int64_t json_int_or(const cJSON *object, const char *key, int64_t fallback)
{
    int64_t v;

    return json_need_int(object, key, -(1ll << 53), 1ll << 53, &v, NULL) == 0 ? v : fallback;
}

double json_number_or(const cJSON *object, const char *key, double fallback)
{
    const cJSON *v = json_get(object, key);

    return cJSON_IsNumber(v) ? v->valuedouble : fallback;
}

bool json_bool_or(const cJSON *object, const char *key, bool fallback)
{
    const cJSON *v = json_get(object, key);

    return cJSON_IsBool(v) ? cJSON_IsTrue(v) : fallback;
}

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

void json_quote(const char *text, size_t len, struct buf *out)
{
    buf_char(out, '"');
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)text[i];
        size_t n = 0;
        while (i + n < len && is_plain((unsigned char)text[i + n]))
            n++;
        if (n > 0) {
            buf_add(out, text + i, n);
            i += n;
            continue;
        }
        n = utf8_sequence((const unsigned char *)text + i, len - i);
        if (n == 0) {
            buf_str(out, "\xEF\xBF\xBD");
            i++;
            continue;
        }
        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", c);
        else if (c == '\n')
            buf_str(out, "\\n");
        else if (c == '\t')
            buf_str(out, "\\t");
        else if (c == '\r')
            buf_str(out, "\\r");
        else if (c < 0x20 || c == 0x7f)
            buf_printf(out, "\\u%04x", c);
        else
            buf_add(out, text + i, n);
        i += n;
    }
    buf_char(out, '"');
}

static void integer_canonical(long long v, struct buf *out)
{
    char text[24], *at = text + sizeof text;
    unsigned long long rest = v < 0 ? 0ull - (unsigned long long)v : (unsigned long long)v;

    do
        *--at = (char)('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (v < 0)
        *--at = '-';
    buf_add(out, at, (size_t)(text + sizeof text - at));
}

static void number_canonical(double v, struct buf *out)
{
    char text[40];

    if (!isfinite(v)) {
        buf_str(out, "null");
        return;
    }
    if (v == floor(v) && fabs(v) < 0x1p53) {
        integer_canonical((long long)v, out);
        return;
    }
    /* The shortest that reads back as the same double. Whatever 15 digits or fewer can say, 15 say, and %g drops the
     * zeros; only below the smallest normal number do fewer digits read back too. */
    for (int digits = fabs(v) < DBL_MIN ? 1 : DBL_DIG; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    buf_str(out, text);
}

static int by_key(const void *a, const void *b)
{
    return strcmp((*(const cJSON *const *)a)->string, (*(const cJSON *const *)b)->string);
}

static void object_canonical(const cJSON *value, struct buf *out)
{
    int n = cJSON_GetArraySize(value), i = 0;
    const cJSON **members = mem_alloc(((size_t)n + 1) * sizeof *members);
    const cJSON *child;

    cJSON_ArrayForEach(child, value) members[i++] = child;
    qsort(members, (size_t)n, sizeof *members, by_key);
    buf_char(out, '{');
    for (i = 0; i < n; i++) {
        if (i > 0)
            buf_char(out, ',');
        json_quote(members[i]->string, strlen(members[i]->string), out);
        buf_char(out, ':');
        json_canonical(members[i], out);
    }
    buf_char(out, '}');
    free(members);
}

void json_canonical(const cJSON *value, struct buf *out)
{
    if (cJSON_IsObject(value)) {
        object_canonical(value, out);
    } else if (cJSON_IsArray(value)) {
        const cJSON *child;
        const char *comma = "";
        buf_char(out, '[');
        cJSON_ArrayForEach(child, value)
        {
            buf_str(out, comma);
            json_canonical(child, out);
            comma = ",";
        }
        buf_char(out, ']');
    } else if (cJSON_IsString(value)) {
        json_quote(value->valuestring, strlen(value->valuestring), out);
    } else if (cJSON_IsNumber(value)) {
        number_canonical(value->valuedouble, out);
    } else {
        buf_str(out, cJSON_IsTrue(value) ? "true" : cJSON_IsFalse(value) ? "false" : "null");
    }
}
