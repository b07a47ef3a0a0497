#include "coordinator/job_id.h"

#include <stdio.h>
#include <string.h>

static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";

void job_id_format(uint64_t id, char out[JOB_ID_TEXT])
{
    memcpy(out, "job_", 4);
    for (int i = 0; i < 13; i++)
        out[4 + i] = digits[(id >> (60 - 5 * i)) & 31u];
    out[17] = '\0';
}

static int digit_of(char c)
{
    const char *at = NULL;

    if (c >= 'A' && c <= 'Z')
        c = (char)(c - 'A' + 'a');
    if (c == 'i' || c == 'l')
        c = '1';
    if (c == 'o')
        c = '0';
    at = c != '\0' ? strchr(digits, c) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

bool job_id_parse(const char *text, uint64_t *id)
{
    uint64_t v = 0;

    if (strncmp(text, "job_", 4) != 0 || strlen(text) != 17)
        return false;
    for (int i = 0; i < 13; i++) {
        int d = digit_of(text[4 + i]);

        if (d < 0 || (i == 0 && d > 15)) /* 65 bits are written, 64 are meant */
            return false;
        v = v << 5 | (uint64_t)d;
    }
    *id = v;
    return true;
}
