/*
 * Artefact bytes: HEAD, GET (with one Range) and PUT /v1/artifacts/{sha256}. A PUT is hashed on its way to a temporary file
 * and becomes visible, durably, only when the digest fits. Once a write has failed the rest of the body is read and thrown
 * away, because libmicrohttpd cannot answer in the middle of a body and a closed socket would hide the reason.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "coordinator/http_private.h"

#define PREFIX "/v1/artifacts/"
#define PATH_BYTES 4608
#define READ_BYTES (128u << 10)

bool artifact_is_path(const char *path)
{
    return strncmp(path, PREFIX, sizeof PREFIX - 1) == 0;
}

static bool digest_of_path(struct http_request *r)
{
    const char *hex = r->path + sizeof PREFIX - 1;

    if (!digest_is_valid(hex)) {
        http_problem(r, 400, "bad_digest", "an artefact is named by 64 lower-case hex digits");
        return false;
    }
    snprintf(r->digest.hex, sizeof r->digest.hex, "%s", hex);
    return true;
}

enum range_kind { RANGE_NONE, RANGE_OK, RANGE_UNSATISFIABLE };

/* One "bytes=a-b", "bytes=a-" or "bytes=-n"; anything else is ignored, as RFC 9110 allows. */
static enum range_kind range_parse(const char *text, uint64_t size, uint64_t *begin, uint64_t *end)
{
    char *rest;
    bool suffix;
    uint64_t a, b;

    if (text == NULL || strncmp(text, "bytes=", 6) != 0 || strchr(text, ',') != NULL)
        return RANGE_NONE;
    text += 6;
    suffix = text[0] == '-';
    text += suffix;
    if (strspn(text, "0123456789") == 0 || strspn(text, "0123456789") > 18)
        return RANGE_NONE;
    a = strtoull(text, &rest, 10);
    if (suffix) {
        if (*rest != '\0')
            return RANGE_NONE;
        *begin = a < size ? size - a : 0;
        *end = size;
        return a == 0 || size == 0 ? RANGE_UNSATISFIABLE : RANGE_OK;
    }
    if (*rest++ != '-')
        return RANGE_NONE;
    b = size;
    if (*rest != '\0') {
        size_t digits = strspn(rest, "0123456789");
        if (digits == 0 || digits > 18 || rest[digits] != '\0')
            return RANGE_NONE;
        b = strtoull(rest, NULL, 10);
        if (b < a)
            return RANGE_NONE;
        b = b + 1 < size ? b + 1 : size;
    }
    *begin = a;
    *end = b;
    return a < size ? RANGE_OK : RANGE_UNSATISFIABLE;
}

static void headers_add(const struct http_request *r, struct MHD_Response *m)
{
    char etag[DIGEST_HEX + 3];

    snprintf(etag, sizeof etag, "\"%s\"", r->digest.hex);
    MHD_add_response_header(m, "ETag", etag);
    MHD_add_response_header(m, "Accept-Ranges", "bytes");
    MHD_add_response_header(m, "Content-Type", "application/octet-stream");
    MHD_add_response_header(m, "Cache-Control", "private, max-age=31536000, immutable");
}

static enum MHD_Result not_satisfiable(struct http_request *r, uint64_t size)
{
    char text[64];
    struct MHD_Response *m = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);

    CHECK(m != NULL);
    snprintf(text, sizeof text, "bytes */%" PRIu64, size);
    MHD_add_response_header(m, "Content-Range", text);
    return http_send_prepared(r, 416, m, 0);
}

/* ---- the body of a GET ----------------------------------------------------------------------- */

struct reader {
    int fd;
    uint64_t begin;
    struct http_conn *conn; /* is asked for no more once the request is over */
};

static bool is_medium_error(int number)
{
    return number == EIO || number == EUCLEAN || number == EBADMSG;
}

static ssize_t reader_next(void *cls, uint64_t pos, char *out, size_t max)
{
    struct reader *x = cls;
    ssize_t n = pread(x->fd, out, max, (off_t)(x->begin + pos));

    if (n <= 0)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (x->conn != NULL)
        __atomic_store_n(&x->conn->sent, pos + (uint64_t)n, __ATOMIC_RELAXED);
    return n;
}

static void reader_free(void *cls)
{
    struct reader *x = cls;

    close(x->fd);
    free(x);
}

static enum MHD_Result unreadable(struct http_request *r, int number)
{
    if (is_medium_error(number)) /* as one that does not have its hash */
        http_problem(r, 422, "damaged", "artefact %s: %s", r->digest.hex, strerror(number));
    else
        http_problem(r, 500, "storage", "artefact %s: %s", r->digest.hex, strerror(number));
    return http_send(r);
}

static enum MHD_Result send_file(struct http_request *r, int fd, uint64_t size)
{
    const char *range = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, "Range");
    const char *if_range = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, "If-Range");
    uint64_t begin = 0, end = size;
    enum range_kind kind = RANGE_NONE;
    struct MHD_Response *m;
    struct reader *reader;
    char text[80], byte;

    if (if_range == NULL || strstr(if_range, r->digest.hex) != NULL)
        kind = range_parse(range, size, &begin, &end);
    if (kind == RANGE_UNSATISFIABLE) {
        close(fd);
        return not_satisfiable(r, size);
    }
    if (end > begin && pread(fd, &byte, 1, (off_t)begin) < 0) {
        int number = errno;
        close(fd);
        return unreadable(r, number);
    }
    reader = mem_zalloc(1, sizeof *reader);
    *reader = (struct reader){fd, begin, r->conn};
    m = MHD_create_response_from_callback(end - begin, READ_BYTES, reader_next, reader,
                                          reader_free);
    if (m == NULL) {
        reader_free(reader);
        http_problem(r, 500, "internal", "no memory for a response");
        return http_send(r);
    }
    headers_add(r, m);
    if (kind == RANGE_OK) {
        snprintf(text, sizeof text, "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, begin, end - 1, size);
        MHD_add_response_header(m, "Content-Range", text);
    }
    http_count(r->http, &r->http->counters.artifact_bytes_out,
               strcmp(r->method, "HEAD") == 0 ? 0 : end - begin);
    http_file_begins(r);
    return http_send_prepared(r, kind == RANGE_OK ? 206 : 200, m, 0);
}

enum MHD_Result artifact_get(struct http_request *r)
{
    char path[PATH_BYTES];
    struct stat st;
    int fd;

    if (!digest_of_path(r))
        return http_send(r);
    /* Who asks whether it is here will not send it, so it must be here for good. */
    if (strcmp(r->method, "HEAD") == 0 && !blob_has(r->http->config.blobs, r->digest.hex)) {
        http_problem(r, 404, "not_found", "no artefact %s", r->digest.hex);
        return http_send(r);
    }
    blob_path(r->http->config.blobs, r->digest.hex, path, sizeof path);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        if (fd >= 0)
            close(fd);
        else if (errno != ENOENT) {
            return unreadable(r, errno);
        }
        http_problem(r, 404, "not_found", "no artefact %s", r->digest.hex);
        return http_send(r);
    }
    fault_hit(FAULT_ARTIFACT_GET_MID);
    return send_file(r, fd, (uint64_t)st.st_size);
}

/* Uploads must not take the last bytes that the journal needs. */
static bool disk_has_room(const struct http *h, uint64_t bytes)
{
    static const char any[] = "0000000000000000000000000000000000000000000000000000000000000000";
    char path[PATH_BYTES];
    struct statvfs fs;
    uint64_t need;

    blob_path(h->config.blobs, any, path, sizeof path);
    *strrchr(path, '/') = '\0';
    if (statvfs(path, &fs) != 0)
        return true; /* the write itself will say */
    return !__builtin_add_overflow(bytes, h->config.disk_reserve_bytes, &need) &&
           (uint64_t)fs.f_bavail * fs.f_frsize >= need;
}

static void put_failed(struct http_request *r, int code, const struct err *e)
{
    struct http *h = r->http;

    r->put_code = code;
    if (code == ERR_NO_SPACE) {
        http_count(h, &h->counters.no_space, 1);
        http_problem(
            r, 507, "no_space",
            "the coordinator's disk is full; the upload can be repeated when there is room");
    } else if (code == ERR_CORRUPT) {
        http_problem(r, 422, "digest_mismatch", "%s", e->msg);
    } else {
        http_problem(r, 500, "storage", "%s", e->msg);
        if (code == ERR_IO)
            http_set_fatal(h, e->msg);
    }
    log_warn("artifact.put_failed", "digest=%s code=%s detail=\"%s\"", r->digest.hex,
             err_name(code), e->msg);
}

int artifact_put_begin(struct http_request *r)
{
    struct http *h = r->http;
    struct err e = {0};
    uint64_t known = r->length == UINT64_MAX ? 0 : r->length;
    int rc;

    if (!digest_of_path(r))
        return 400;
    if (known > h->config.artifact_bytes_max) {
        http_problem(r, 413, "artifact_too_large", "an artefact may have %" PRIu64 " bytes",
                     h->config.artifact_bytes_max);
        return 413;
    }
    if (!disk_has_room(h, known)) {
        err_set(&e, ERR_NO_SPACE, "less than %" PRIu64 " bytes would stay free",
                h->config.disk_reserve_bytes);
        put_failed(r, ERR_NO_SPACE, &e);
        return 507;
    }
    rc = blob_write_begin(h->config.blobs, &r->writer, &e);
    if (rc != 0) {
        put_failed(r, rc, &e);
        return r->response.status;
    }
    return 0;
}

void artifact_put_bytes(struct http_request *r, const char *bytes, size_t len)
{
    struct err e = {0};
    int rc = 0;

    if (r->writer == NULL)
        return;
    if (r->received > r->http->config.artifact_bytes_max) {
        http_problem(r, 413, "artifact_too_large", "an artefact may have %" PRIu64 " bytes",
                     r->http->config.artifact_bytes_max);
        r->put_code = ERR_LIMIT;
    } else {
        if (disk_has_room(r->http, len))
            rc = blob_write(r->writer, bytes, len, &e);
        else /* others have come meanwhile, or it did not say how long it is */
            rc = err_set(&e, ERR_NO_SPACE, "less than %" PRIu64 " bytes would stay free",
                         r->http->config.disk_reserve_bytes);
        fault_hit(FAULT_ARTIFACT_PUT_MID);
        if (rc != 0)
            put_failed(r, rc, &e);
    }
    if (r->put_code != 0)
        blob_write_abort(&r->writer);
}

void artifact_put_end(struct http_request *r)
{
    struct err e = {0};
    struct digest found;
    bool had;
    int rc;

    if (r->put_code != 0)
        return; /* the problem is already in r->response */
    had = blob_has(r->http->config.blobs, r->digest.hex);
    rc = blob_write_end(&r->writer, r->digest.hex, &found, &e);
    if (rc != 0) {
        put_failed(r, rc, &e);
        return;
    }
    fault_hit(FAULT_ARTIFACT_PUT_AFTER);
    http_count(r->http, &r->http->counters.artifact_bytes_in, r->received);
    r->response.status = had ? 200 : 201;
    r->response.content_type = "application/json";
    buf_printf(&r->response.body, "{\"digest\":\"%s\",\"size\":%" PRIu64 "}", r->digest.hex,
               r->received);
}
