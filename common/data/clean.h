/* clean: what may be done to text before anything else sees it. Pure; valid UTF-8 in, valid UTF-8 out. */
#ifndef DATA_CLEAN_H
#define DATA_CLEAN_H

#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

/* ascii_quotes: curly quotes to ' and ". drop_non_ascii: other code points above 127 vanish. squeeze_punctuation: a run of three or
 * more equal ! ? . becomes two. collapse_spaces: blanks and line ends become one space, none at either end. In this order. */
enum {
    CLEAN_ASCII_QUOTES = 1,
    CLEAN_DROP_NON_ASCII = 2,
    CLEAN_SQUEEZE_PUNCTUATION = 4,
    CLEAN_COLLAPSE_SPACES = 8
};

int clean_find(const char *name, unsigned *flag,
               struct err *e); /* ERR_INVALID names what there is */
const char *clean_name(unsigned flag);
void clean_text(unsigned flags, const char *text, size_t len, struct buf *out); /* appends */

#endif
