#include "base/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>

_Static_assert(sizeof(crypto_hash_sha256_state) <= sizeof(struct digest_state), "state fits");

void digest_init(struct digest_state *s)
{
    crypto_hash_sha256_init((crypto_hash_sha256_state *)s->opaque);
}

void digest_add(struct digest_state *s, const void *bytes, size_t len)
{
    crypto_hash_sha256_update((crypto_hash_sha256_state *)s->opaque, bytes, len);
}

void digest_end(struct digest_state *s, struct digest *out)
{
    unsigned char raw[crypto_hash_sha256_BYTES];

    crypto_hash_sha256_final((crypto_hash_sha256_state *)s->opaque, raw);
    sodium_bin2hex(out->hex, sizeof out->hex, raw, sizeof raw);
}

void digest_bytes(const void *bytes, size_t len, struct digest *out)
{
    struct digest_state s;

    digest_init(&s);
    digest_add(&s, bytes, len);
    digest_end(&s, out);
}

int digest_file(const char *path, struct digest *out, struct err *e)
{
    static _Thread_local unsigned char block[1 << 16];
    struct digest_state s;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return err_sys(e, "open %s", path);
    digest_init(&s);
    while ((n = read(fd, block, sizeof block)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int rc = err_sys(e, "read %s", path);
            close(fd);
            return rc;
        }
        digest_add(&s, block, (size_t)n);
    }
    close(fd);
    digest_end(&s, out);
    return 0;
}

bool digest_is_valid(const char *hex)
{
    return hex != NULL && strlen(hex) == DIGEST_HEX &&
           strspn(hex, "0123456789abcdef") == DIGEST_HEX;
}
