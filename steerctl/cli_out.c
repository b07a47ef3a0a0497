/* What people see: errors, tables, sizes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "steerctl/cli.h"

const char *cli_safe(const char *text, char *out, size_t cap)
{
    size_t n = 0;

    for (; *text != '\0' && n + 1 < cap; text++) {
        unsigned char c = (unsigned char)*text;
        out[n++] = c < 0x20 || c == 0x7f ? (c == '\n' || c == '\t' ? ' ' : '?') : (char)c;
    }
    out[n] = '\0';
    return out;
}

bool cli_has_tty(int fd)
{
    return isatty(fd) == 1;
}

bool cli_has_colour(int fd)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

    return cli_has_tty(fd) && (no == NULL || no[0] == '\0') && term != NULL &&
           strcmp(term, "dumb") != 0;
}

int cli_fail(int code, const char *next, const char *fmt, ...)
{
    bool colour = cli_has_colour(STDERR_FILENO);
    char text[2048], safe[2048];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fflush(stdout);
    fprintf(stderr, "%ssteerctl:%s %s\n", colour ? "\033[31m" : "", colour ? "\033[0m" : "",
            cli_safe(text, safe, sizeof safe));
    if (next != NULL)
        fprintf(stderr, "  try: %s\n", next);
    return code;
}

int cli_fail_err(const struct err *e, const char *next)
{
    int code = CLI_UNEXPECTED;

    switch (e->code) {
    case ERR_INVALID:
    case ERR_LIMIT:
        code = CLI_USAGE;
        break;
    case ERR_NOT_FOUND:
        code = CLI_NOT_FOUND;
        break;
    case ERR_CONFLICT:
    case ERR_BUSY:
        code = CLI_CONFLICT;
        break;
    case ERR_DENIED:
        code = CLI_DENIED;
        break;
    case ERR_UNREACHABLE:
        code = CLI_UNREACHABLE;
        break;
    case ERR_TIMEOUT:
        code = CLI_TIMEOUT;
        break;
    default:
        break;
    }
    return cli_fail(code, next, "%s", e->msg);
}

void cli_say(const char *fmt, ...)
{
    char text[2048], safe[2048];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "%s\n", cli_safe(text, safe, sizeof safe));
}

/* Two blanks a level, empty things on one line. Depth was bounded when the text was parsed. */
static void json_pretty(const cJSON *j, int depth, struct buf *b)
{
    const cJSON *item;
    bool object = cJSON_IsObject(j);
    char *text;

    if ((object || cJSON_IsArray(j)) && j->child != NULL) {
        buf_char(b, object ? '{' : '[');
        cJSON_ArrayForEach(item, j)
        {
            buf_printf(b, "%s\n%*s", item != j->child ? "," : "", 2 * depth + 2, "");
            if (object) {
                json_quote(item->string, strlen(item->string), b);
                buf_str(b, ": ");
            }
            json_pretty(item, depth + 1, b);
        }
        buf_printf(b, "\n%*s%c", 2 * depth, "", object ? '}' : ']');
        return;
    }
    text = cJSON_PrintUnformatted(j);
    CHECK(text != NULL);
    buf_str(b, text);
    cJSON_free(text);
}

void cli_print_json(const cJSON *j)
{
    struct buf b = BUF_INIT;

    json_pretty(j, 0, &b);
    puts(b.data);
    buf_free(&b);
}

void cli_format_bytes(uint64_t bytes, char out[CLI_SHORT])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    int u = 0;

    while (v >= 1024.0 && u < 4) {
        v /= 1024.0;
        u++;
    }
    snprintf(out, CLI_SHORT, u == 0 ? "%.0f %s" : "%.1f %s", v, units[u]);
}

void cli_format_seconds(double s, char out[CLI_SHORT])
{
    long t;

    if (!(s >= 0.0) || s > 8640000.0) {
        snprintf(out, CLI_SHORT, "-");
        return;
    }
    t = (long)(s + 0.5);
    if (t < 60)
        snprintf(out, CLI_SHORT, "%lds", t);
    else if (t < 3600)
        snprintf(out, CLI_SHORT, "%ldm%02lds", t / 60, t % 60);
    else
        snprintf(out, CLI_SHORT, "%ldh%02ldm", t / 3600, t / 60 % 60);
}

/* Seconds since 1970 of an RFC 3339 time in UTC; negative: no time. */
static double time_of(const char *rfc3339)
{
    struct tm tm = {0};
    const char *rest = rfc3339 != NULL ? strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;

    if (rest == NULL)
        return -1.0;
    return (double)timegm(&tm) + (*rest == '.' ? strtod(rest, NULL) : 0.0);
}

void cli_format_ago(const char *rfc3339, char out[CLI_SHORT])
{
    double at = time_of(rfc3339), ago = (double)clock_wall_ms() / 1000.0 - at;

    if (at < 0.0)
        snprintf(out, CLI_SHORT, "-");
    else
        cli_format_seconds(ago > 0.0 ? ago : 0.0, out);
}

void cli_format_between(const char *begin, const char *end, char out[CLI_SHORT])
{
    double a = time_of(begin), b = time_of(end);

    if (a < 0.0 || b < a)
        snprintf(out, CLI_SHORT, "-");
    else
        cli_format_seconds(b - a, out);
}

void cli_table_add(struct cli_table *t, int columns, ...)
{
    va_list ap;

    CHECK(t->columns == 0 || t->columns == columns);
    t->columns = columns;
    if (t->rows == t->cap) {
        t->cap = t->cap == 0 ? 16 : t->cap * 2;
        t->cell = mem_grow(t->cell, (size_t)t->cap * (size_t)columns, sizeof *t->cell);
    }
    va_start(ap, columns);
    for (int i = 0; i < columns; i++) {
        const char *text = va_arg(ap, const char *);
        char safe[512];
        t->cell[t->rows * columns + i] =
            mem_strdup(cli_safe(text != NULL ? text : "-", safe, sizeof safe));
    }
    va_end(ap);
    t->rows++;
}

/* Columns a text takes on a screen, near enough: UTF-8 continuation bytes take none. */
static int width_of(const char *text)
{
    int n = 0;

    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

void cli_table_print(struct cli_table *t, FILE *out)
{
    for (int r = 0; r < t->rows; r++) {
        for (int i = 0; i < t->columns; i++) {
            const char *text = t->cell[r * t->columns + i];
            int width = 0;
            for (int k = 0; k < t->rows; k++)
                width = width_of(t->cell[k * t->columns + i]) > width
                            ? width_of(t->cell[k * t->columns + i])
                            : width;
            fputs(text, out);
            if (i + 1 < t->columns)
                fprintf(out, "%*s", width - width_of(text) + 2, "");
        }
        fputc('\n', out);
    }
    for (int i = 0; i < t->rows * t->columns; i++)
        free(t->cell[i]);
    free(t->cell);
    *t = (struct cli_table){0};
}
