#include "data/clean.h"

#include <stdbool.h>
#include <string.h>

#include "base/suggest.h"

static const char *const names[] = {"ascii_quotes", "drop_non_ascii", "squeeze_punctuation",
                                    "collapse_spaces"};
enum { NAMES = sizeof names / sizeof names[0] };

int clean_find(const char *name, unsigned *flag, struct err *e)
{
    const char *near;

    for (unsigned i = 0; i < NAMES; i++) {
        if (strcmp(names[i], name) == 0) {
            *flag = 1u << i;
            return 0;
        }
    }
    near = suggest_nearest(name, names, NAMES);
    return err_set(e, ERR_INVALID,
                   "clean: \"%s\" is none of ascii_quotes, drop_non_ascii, squeeze_punctuation, "
                   "collapse_spaces%s%s%s",
                   name, near != NULL ? "; did you mean " : "", near != NULL ? near : "",
                   near != NULL ? "?" : "");
}

const char *clean_name(unsigned flag)
{
    for (unsigned i = 0; i < NAMES; i++)
        if (flag == 1u << i)
            return names[i];
    return "unknown";
}

/* U+2018..201B and U+2032 are ', U+201C..201F and U+2033 are ": all E2 80 xx. */
static char ascii_quote(const char *p, size_t left)
{
    if (left < 3 || (unsigned char)p[0] != 0xE2 || (unsigned char)p[1] != 0x80)
        return '\0';
    switch ((unsigned char)p[2]) {
    case 0x98:
    case 0x99:
    case 0x9A:
    case 0x9B:
    case 0xB2:
        return '\'';
    case 0x9C:
    case 0x9D:
    case 0x9E:
    case 0x9F:
    case 0xB3:
        return '"';
    default:
        return '\0';
    }
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

void clean_text(unsigned flags, const char *text, size_t len, struct buf *out)
{
    size_t run = 0;
    size_t begin = out->len;
    bool blank = false; /* a space is due before the next character */
    char last = '\0';

    buf_reserve(out, len);
    out->data[begin] = '\0'; /* also when nothing is left */
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        char quote = (flags & CLEAN_ASCII_QUOTES) != 0 ? ascii_quote(text + i, len - i) : '\0';
        if (quote != '\0') {
            c = quote;
            i += 2;
        } else if ((flags & CLEAN_DROP_NON_ASCII) != 0 && (unsigned char)c >= 0x80) {
            continue;
        }
        run = c == last ? run + 1 : 1;
        last = c;
        if ((flags & CLEAN_SQUEEZE_PUNCTUATION) != 0 && run > 2 &&
            (c == '!' || c == '?' || c == '.'))
            continue;
        if ((flags & CLEAN_COLLAPSE_SPACES) != 0 && is_blank(c)) {
            blank = out->len > begin;
            continue;
        }
        if (blank)
            buf_char(out, ' ');
        blank = false;
        buf_char(out, c);
    }
}
