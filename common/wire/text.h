/* text: byte fields of a message that are text, checked on the way in. */
#ifndef WIRE_TEXT_H
#define WIRE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

bool text_is_utf8(const uint8_t *bytes, size_t len); /* and without NUL */
/* What is not UTF-8 becomes '?': for texts that were cut by bytes, or came from outside. */
void text_mend(char *text);
/* Copies into out[cap] with a NUL behind. ERR_LIMIT, ERR_INVALID; name is for the message. */
int text_take(const char *name, const uint8_t *bytes, size_t len, char *out, size_t cap,
              struct err *e);

#endif
