#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static int level_min = -1;

void log_set_level(enum log_level level)
{
    __atomic_store_n(&level_min, (int)level, __ATOMIC_RELAXED);
}

static int level_now(void)
{
    int level = __atomic_load_n(&level_min, __ATOMIC_RELAXED);

    if (level < 0) {
        const char *name = getenv("STEER_LOG");
        level = LOG_INFO;
        for (int i = 0; name != NULL && i < 4; i++)
            if (strcmp(name, level_names[i]) == 0)
                level = i;
        __atomic_store_n(&level_min, level, __ATOMIC_RELAXED);
    }
    return level;
}

/* Escapes what could forge a line or move a terminal's cursor. */
static size_t line_escape(const char *text, char *out, size_t cap)
{
    size_t n = 0;

    for (; *text != '\0' && n + 5 < cap; text++) {
        unsigned char c = (unsigned char)*text;
        if (c >= 0x20 && c < 0x7f)
            out[n++] = (char)c;
        else
            n += (size_t)snprintf(out + n, cap - n, "\\x%02x", c);
    }
    out[n] = '\0';
    return n;
}

void log_event(enum log_level level, const char *event, const char *fmt, ...)
{
    char text[2048];
    char safe[4096];
    char line[4352];
    char when[32];
    va_list ap;
    int n;

    if ((int)level < level_now())
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    line_escape(text, safe, sizeof safe);
    clock_wall_text(when);
    n = snprintf(line, sizeof line, "%s %s %s%s%s\n", when, level_names[level], event,
                 safe[0] != '\0' ? " " : "", safe);
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
        return; /* nowhere left to complain */
}
