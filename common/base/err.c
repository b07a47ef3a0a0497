#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    if (e != NULL) {
        va_list ap;
        e->code = code;
        va_start(ap, fmt);
        vsnprintf(e->msg, sizeof e->msg, fmt, ap);
        va_end(ap);
    }
    return (int)code;
}

static enum err_code code_of_errno(int number)
{
    switch (number) {
    case ENOENT:
        return ERR_NOT_FOUND;
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    case EIO:
    case EROFS: /* what ext4 says once it has seen one */
    case EUCLEAN:
    case EBADMSG:
        return ERR_IO;
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    default:
        return ERR_SYSTEM;
    }
}

int err_sys(struct err *e, const char *fmt, ...)
{
    int number = errno;
    char what[768];
    char reason[128];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(e, code_of_errno(number), "%s: %s", what,
                   strerror_r(number, reason, sizeof reason));
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    char inner[sizeof e->msg];
    va_list ap;
    int used;

    if (e == NULL)
        return ERR_SYSTEM;
    memcpy(inner, e->msg, sizeof inner);
    va_start(ap, fmt);
    used = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    if (used < 0)
        used = 0;
    if ((size_t)used < sizeof e->msg)
        snprintf(e->msg + used, sizeof e->msg - (size_t)used, ": %.*s", (int)(sizeof inner - 3),
                 inner);
    return (int)e->code;
}

void err_clear(struct err *e)
{
    e->code = ERR_OK;
    e->msg[0] = '\0';
}

const char *err_name(int code)
{
    switch (code) {
    case 0:
        return "ok";
#define X(name, value, text)                                                                       \
    case value:                                                                                    \
        return text;
        ERR_CODES(X)
#undef X
    default:
        return "unknown";
    }
}

void check_failed(const char *file, int line, const char *cond)
{
    fprintf(stderr, "%s:%d: internal error: CHECK(%s) failed\n", file, line, cond);
    fflush(stderr);
    abort();
}
