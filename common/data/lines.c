/*
 * One input buffer, one output window, one line buffer. Each compression is a "fill": put more bytes into the window, 0 at the end.
 * zlib's gzread() takes plain files as they are and goes on over concatenated members; zstd frames are read one after another.
 */
#include "data/lines.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/beat.h"
#include "base/buf.h"

enum { WINDOW_BYTES = 256 << 10, INPUT_BYTES = 128 << 10, ZSTD_WINDOW_LOG_MAX = 27 };

struct lines {
    struct lines_limits limits;
    gzFile gz;  /* plain and gzip */
    FILE *file; /* zstd */
    ZSTD_DStream *zstd;
    char *input;
    ZSTD_inBuffer in;
    bool frame_open; /* zstd: the last frame is not complete */
    char *window;
    size_t begin, end;
    uint64_t total, number;
    struct buf text;
};

static int magic_read(const char *path, unsigned char magic[4], struct err *e)
{
    FILE *f = fopen(path, "rb");
    int rc = 0;

    memset(magic, 0, 4);
    if (f == NULL)
        return err_sys(e, "open %s", path);
    if (fread(magic, 1, 4, f) < 4 && ferror(f))
        rc = err_sys(e, "read %s", path);
    fclose(f);
    return rc;
}

static int zstd_open(struct lines *l, const char *path, struct err *e)
{
    l->file = fopen(path, "rb");
    if (l->file == NULL)
        return err_sys(e, "open %s", path);
    l->zstd = ZSTD_createDStream();
    CHECK(l->zstd != NULL);
    ZSTD_DCtx_setParameter(l->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX);
    l->input = mem_alloc(INPUT_BYTES);
    l->in.src = l->input;
    return 0;
}

int lines_open(const char *path, struct lines_limits limits, struct lines **out, struct err *e)
{
    unsigned char magic[4];
    struct lines *l = NULL;
    int rc = magic_read(path, magic, e);

    *out = NULL;
    if (rc != 0)
        return rc;
    if (memcmp(magic, "PAR1", 4) == 0)
        return err_set(
            e, ERR_UNSUPPORTED,
            "a Parquet file; convert it with python: "
            "datasets.load_dataset('parquet', data_files=...)['train'].to_json('x.jsonl')");
    l = mem_zalloc(1, sizeof *l);
    l->limits = limits;
    l->window = mem_alloc(WINDOW_BYTES);
    if (memcmp(magic, "\x28\xB5\x2F\xFD", 4) == 0) {
        rc = zstd_open(l, path, e);
    } else {
        l->gz = gzopen(path, "rb");
        if (l->gz == NULL)
            rc = err_sys(e, "open %s", path);
        else
            gzbuffer(l->gz, INPUT_BYTES);
    }
    if (rc != 0)
        lines_close(l);
    else
        *out = l;
    return rc;
}

void lines_close(struct lines *l)
{
    if (l == NULL)
        return;
    if (l->gz != NULL)
        gzclose(l->gz);
    if (l->file != NULL)
        fclose(l->file);
    ZSTD_freeDStream(l->zstd);
    free(l->input);
    free(l->window);
    buf_free(&l->text);
    free(l);
}

static int gzip_fill(struct lines *l, size_t *got, struct err *e)
{
    int n = gzread(l->gz, l->window, WINDOW_BYTES);
    int code = Z_OK;

    if (n < 0) {
        const char *text = gzerror(l->gz, &code);
        if (code == Z_ERRNO)
            return err_sys(e, "read");
        return err_set(e, ERR_CORRUPT, "gzip after %llu bytes: %s", (unsigned long long)l->total,
                       text);
    }
    if (n == 0) {
        gzerror(l->gz, &code);
        if (code == Z_BUF_ERROR)
            return err_set(e, ERR_CORRUPT, "gzip stream is cut after %llu bytes",
                           (unsigned long long)l->total);
    }
    *got = (size_t)n;
    return 0;
}

static int zstd_fill(struct lines *l, size_t *got, struct err *e)
{
    ZSTD_outBuffer out = {l->window, WINDOW_BYTES, 0};

    while (out.pos == 0) {
        size_t rest;
        if (l->in.pos == l->in.size) {
            l->in.size = fread(l->input, 1, INPUT_BYTES, l->file);
            l->in.pos = 0;
            if (l->in.size == 0 && ferror(l->file))
                return err_sys(e, "read");
            if (l->in.size == 0 && l->frame_open)
                return err_set(e, ERR_CORRUPT, "zstd stream is cut after %llu bytes",
                               (unsigned long long)l->total);
            if (l->in.size == 0)
                break;
        }
        rest = ZSTD_decompressStream(l->zstd, &out, &l->in);
        if (ZSTD_isError(rest))
            return err_set(e, ERR_CORRUPT, "zstd after %llu bytes: %s",
                           (unsigned long long)l->total, ZSTD_getErrorName(rest));
        l->frame_open = rest != 0;
    }
    *got = out.pos;
    return 0;
}

static int window_fill(struct lines *l, struct err *e)
{
    size_t got = 0;
    int rc = l->gz != NULL ? gzip_fill(l, &got, e) : zstd_fill(l, &got, e);

    if (rc != 0)
        return rc;
    l->begin = 0;
    l->end = got;
    if (l->total == 0 && got >= 3 && memcmp(l->window, "\xEF\xBB\xBF", 3) == 0)
        l->begin = 3;
    l->total += got;
    if (l->total > l->limits.total_max)
        return err_set(e, ERR_LIMIT, "more than %llu bytes after decompression",
                       (unsigned long long)l->limits.total_max);
    return 0;
}

int lines_next(struct lines *l, struct line *out, bool *more, struct err *e)
{
    bool any = false, complete = false;
    int rc;

    beat();
    buf_clear(&l->text);
    memset(out, 0, sizeof *out);
    *more = false;
    while (!complete) {
        const char *from, *feed;
        size_t n, room;
        if (l->begin == l->end) {
            beat();
            rc = window_fill(l, e);
            if (rc != 0)
                return rc;
            if (l->begin == l->end)
                break;
        }
        any = true;
        from = l->window + l->begin;
        feed = memchr(from, '\n', l->end - l->begin);
        n = feed != NULL ? (size_t)(feed - from) : l->end - l->begin;
        complete = feed != NULL;
        l->begin += n + (complete ? 1 : 0);
        room = l->limits.line_max - l->text.len;
        out->too_long = out->too_long || n > room;
        buf_add(&l->text, from, n < room ? n : room);
    }
    if (!any)
        return 0;
    if (l->text.len > 0 && l->text.data[l->text.len - 1] == '\r')
        l->text.data[--l->text.len] = '\0';
    out->text = l->text.data;
    out->len = l->text.len;
    out->number = ++l->number;
    *more = true;
    return 0;
}
