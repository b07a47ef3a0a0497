#include "wire/text.h"

#include <string.h>

/* Length of the well-formed sequence at p (RFC 3629: shortest form, no surrogates, <= U+10FFFF), 0
 * if there is none. */
static size_t sequence_len(const uint8_t *p, size_t left)
{
    static const struct {
        uint8_t lead_min, lead_max, next_min, next_max;
        size_t len;
    } form[] = {
        {0x01, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };

    for (size_t i = 0; i < sizeof form / sizeof form[0]; i++) {
        if (p[0] < form[i].lead_min || p[0] > form[i].lead_max)
            continue;
        if (form[i].len > left)
            return 0;
        if (form[i].len > 1 && (p[1] < form[i].next_min || p[1] > form[i].next_max))
            return 0;
        for (size_t k = 2; k < form[i].len; k++)
            if ((p[k] & 0xc0) != 0x80)
                return 0;
        return form[i].len;
    }
    return 0;
}

bool text_is_utf8(const uint8_t *bytes, size_t len)
{
    size_t at = 0;

    while (at < len) {
        size_t step = sequence_len(bytes + at, len - at);
        if (step == 0)
            return false;
        at += step;
    }
    return true;
}

void text_mend(char *text)
{
    size_t left = strlen(text);

    while (left > 0) {
        size_t step = sequence_len((const uint8_t *)text, left);
        if (step == 0) {
            *text = '?';
            step = 1;
        }
        text += step;
        left -= step;
    }
}

int text_take(const char *name, const uint8_t *bytes, size_t len, char *out, size_t cap,
              struct err *e)
{
    if (len >= cap)
        return err_set(e, ERR_LIMIT, "%s has %zu bytes, the limit is %zu", name, len, cap - 1);
    if (!text_is_utf8(bytes, len))
        return err_set(e, ERR_INVALID, "%s is not UTF-8 without NUL", name);
    if (len > 0)
        memcpy(out, bytes, len);
    out[len] = '\0';
    return 0;
}
