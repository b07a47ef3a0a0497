/* digest: SHA-256 (libsodium) in the 64-character lower-case hex form that names every artefact. */
#ifndef BASE_DIGEST_H
#define BASE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define DIGEST_HEX 64

struct digest {
    char hex[DIGEST_HEX + 1]; /* NUL-terminated; hex[0] == 0 means "none" */
};

struct digest_state {
    _Alignas(16) unsigned char opaque[128];
};

void digest_init(struct digest_state *s);
void digest_add(struct digest_state *s, const void *bytes, size_t len);
void digest_end(struct digest_state *s, struct digest *out);
void digest_bytes(const void *bytes, size_t len, struct digest *out);
int digest_file(const char *path, struct digest *out, struct err *e);
bool digest_is_valid(const char *hex); /* exactly 64 lower-case hex digits */

#endif
