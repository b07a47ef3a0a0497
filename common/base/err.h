/*
 * err: the error idiom of the whole tree.
 *
 * A function that can fail because the world failed returns an int: 0, or the enum err_code, and fills the
 * `struct err` that is its last argument. The innermost call says what happened; each caller may put its context in
 * front with err_wrap(). CHECK() is for our own mistakes: on in every build, prints the place and aborts.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdarg.h>
#include <stdbool.h>

#define ERR_CODES(X)                                                                               \
    X(ERR_INVALID, 1, "invalid") /* a person or a peer gave something out of bounds */             \
    X(ERR_SYSTEM, 2, "system")   /* a system call failed */                                        \
    X(ERR_CORRUPT, 3, "corrupt") /* bytes do not agree with their digest or format */              \
    X(ERR_LIMIT, 4, "limit")     /* a size from outside is above its bound */                      \
    X(ERR_NOT_FOUND, 5, "not_found")                                                               \
    X(ERR_CONFLICT, 6, "conflict")                                                                 \
    X(ERR_STALE, 7, "stale") /* older term, epoch or attempt: expected, counted */                 \
    X(ERR_UNREACHABLE, 8, "unreachable")                                                           \
    X(ERR_TIMEOUT, 9, "timeout")                                                                   \
    X(ERR_CANCELLED, 10, "cancelled")                                                              \
    X(ERR_NO_SPACE, 11, "no_space")                                                                \
    X(ERR_IO, 12, "io") /* EIO or a failed fsync: the daemon must stop */                          \
    X(ERR_DENIED, 13, "denied")                                                                    \
    X(ERR_UNSUPPORTED, 14, "unsupported")                                                          \
    X(ERR_BUSY, 15, "busy")                                                                        \
    X(ERR_NUMERIC, 16, "numeric") /* a value that must be finite is not */

enum err_code {
    ERR_OK = 0,
#define X(name, value, text) name = value,
    ERR_CODES(X)
#undef X
};

struct err {
    enum err_code code;
    char msg[1024];
};

/* Sets code and message, returns the code. e may be NULL (the code is still returned). */
int err_set(struct err *e, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* From errno: "what: strerror". ENOENT, ENOSPC/EDQUOT, EIO/EROFS/EUCLEAN/EBADMSG, EACCES/EPERM map to their own codes, all else ERR_SYSTEM. */
int err_sys(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Puts "context: " in front of the message; returns the code that e holds. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void err_clear(struct err *e);
const char *err_name(int code); /* "invalid"; "ok" for 0; "unknown" otherwise */

__attribute__((noreturn)) void check_failed(const char *file, int line, const char *cond);
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond))                                                                               \
            check_failed(__FILE__, __LINE__, #cond);                                               \
    } while (0)

#endif
