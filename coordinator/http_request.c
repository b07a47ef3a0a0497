/*
 * Checks of one request, before anything acts on it. libmicrohttpd 0.9.75 lets a second Content-Length, Content-Length with
 * Transfer-Encoding, two Hosts and %00 in a path through to its user, so all of that is refused here.
 */
#include <arpa/inet.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "coordinator/http_private.h"
#include "json/json.h"

struct header_scan {
    int length, encoding, host, auth, origin, total;
    const char *host_text, *origin_text, *auth_text, *length_text;
};

static enum MHD_Result header_count(void *cls, enum MHD_ValueKind kind, const char *key,
                                    const char *value)
{
    struct header_scan *s = cls;

    (void)kind;
    s->total++;
    if (strcasecmp(key, "Content-Length") == 0) {
        s->length++;
        s->length_text = value;
    } else if (strcasecmp(key, "Transfer-Encoding") == 0) {
        s->encoding++;
    } else if (strcasecmp(key, "Host") == 0) {
        s->host++;
        s->host_text = value;
    } else if (strcasecmp(key, "Authorization") == 0) {
        s->auth++;
        s->auth_text = value;
    } else if (strcasecmp(key, "Origin") == 0) {
        s->origin++;
        s->origin_text = value;
    }
    return MHD_YES;
}

static int hex_of(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

bool request_target_split(struct http_request *r)
{
    size_t len = strlen(r->target), n = 0, end;
    char *path;

    if (r->target[0] != '/' || len > TARGET_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)r->target[i] <= 0x20 || r->target[i] == 0x7f)
            return false;
    end = strcspn(r->target, "?");
    r->query = mem_strdup(r->target[end] == '?' ? r->target + end + 1 : "");
    path = r->path = mem_alloc(end + 1);
    for (size_t i = 0; i < end; i++) {
        int c = (unsigned char)r->target[i];
        if (c == '%') {
            int hi = i + 2 < end ? hex_of(r->target[i + 1]) : -1;
            int lo = i + 2 < end ? hex_of(r->target[i + 2]) : -1;
            if (hi < 0 || lo < 0)
                return false;
            c = hi * 16 + lo;
            i += 2;
        }
        if (c < 0x20 || c == 0x7f)
            return false;
        path[n++] = (char)c;
    }
    path[n] = '\0';
    return json_utf8_valid(path, n);
}

/* Name without port: "[::1]:80" -> "::1", "localhost:80" -> "localhost". */
static bool host_name(const char *text, char *out, size_t cap)
{
    const char *begin = text, *end;

    if (text[0] == '[') {
        begin = text + 1;
        end = strchr(begin, ']');
        if (end == NULL || (end[1] != '\0' && end[1] != ':'))
            return false;
    } else {
        end = begin + strcspn(begin, ":");
    }
    if (end == begin || (size_t)(end - begin) >= cap)
        return false;
    memcpy(out, begin, (size_t)(end - begin));
    out[end - begin] = '\0';
    return true;
}

/* An address cannot have been rebound by somebody's name server, so any address will do. */
static bool host_is_ours(const struct http *h, const char *text)
{
    char name[256];
    unsigned char raw[16];

    if (!host_name(text, name, sizeof name))
        return false;
    if (inet_pton(AF_INET, name, raw) == 1 || inet_pton(AF_INET6, name, raw) == 1)
        return true;
    if (strcasecmp(name, "localhost") == 0 || strcasecmp(name, h->listen_host) == 0 ||
        strcasecmp(name, h->own_name) == 0)
        return true;
    for (int i = 0; i < h->config.hosts_n; i++)
        if (strcasecmp(name, h->hosts[i]) == 0)
            return true;
    return false;
}

/* A page may talk to the server that it came from, and to no other. */
static bool origin_is_ours(const char *origin, const char *host)
{
    const char *rest = strncasecmp(origin, "http://", 7) == 0    ? origin + 7
                       : strncasecmp(origin, "https://", 8) == 0 ? origin + 8
                                                                 : NULL;

    return rest != NULL && strcasecmp(rest, host) == 0;
}

static bool token_fits(const struct http *h, const char *auth)
{
    unsigned char hash[crypto_generichash_BYTES];

    if (auth == NULL || strncasecmp(auth, "Bearer ", 7) != 0)
        return false;
    crypto_generichash(hash, sizeof hash, (const unsigned char *)auth + 7, strlen(auth + 7), NULL,
                       0);
    return sodium_memcmp(hash, h->token_hash, sizeof hash) == 0;
}

static int refuse(struct http_request *r, int status, const char *code, const char *text)
{
    http_problem(r, status, code, "%s", text);
    return status;
}

static int framing_check(struct http_request *r, const struct header_scan *s)
{
    if (s->total > 64)
        return refuse(r, 431, "too_many_headers", "more than 64 header fields");
    if (s->length > 1)
        return refuse(r, 400, "duplicate_header", "Content-Length is given twice");
    if (s->encoding > 1)
        return refuse(r, 400, "duplicate_header", "Transfer-Encoding is given twice");
    if (s->length > 0 && s->encoding > 0)
        return refuse(r, 400, "ambiguous_length", "Content-Length and Transfer-Encoding together");
    if (s->host > 1 || s->auth > 1 || s->origin > 1)
        return refuse(r, 400, "duplicate_header", "Host, Authorization or Origin is given twice");
    r->length = s->encoding > 0 ? UINT64_MAX : 0;
    if (s->length > 0) {
        char *end = NULL;
        size_t digits = strspn(s->length_text, "0123456789");
        if (digits == 0 || digits > 18 || s->length_text[digits] != '\0')
            return refuse(r, 400, "bad_length",
                          "Content-Length is not a number of at most 18 digits");
        r->length = strtoull(s->length_text, &end, 10);
    }
    return 0;
}

static int method_check(struct http_request *r)
{
    static const char *const methods[] = {"GET", "HEAD", "POST", "PATCH", "DELETE"};
    bool known = strcmp(r->method, "PUT") == 0 && artifact_is_path(r->path);

    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        known = known || strcmp(r->method, methods[i]) == 0;
    if (!known)
        return refuse(r, 405, "method_not_allowed",
                      "PUT is for /v1/artifacts/{sha256}; else GET, HEAD, POST, PATCH, DELETE");
    return 0;
}

int request_check(struct http_request *r)
{
    struct header_scan s = {0};
    const char *text;
    int status;

    MHD_get_connection_values(r->connection, MHD_HEADER_KIND, header_count, &s);
    status = framing_check(r, &s);
    if (status != 0)
        return status;
    if (r->target == NULL || !request_target_split(r))
        return refuse(r, 400, "bad_target",
                      "the target must be a path of at most 8192 bytes, UTF-8, without control "
                      "bytes or bad escapes");
    if (s.host == 0 || !host_is_ours(r->http, s.host_text))
        return refuse(r, 421, "wrong_host",
                      "the Host header names neither an address nor a name of this coordinator; "
                      "use its address");
    if (s.origin > 0 && !origin_is_ours(s.origin_text, s.host_text))
        return refuse(r, 403, "foreign_origin", "a page of another origin must not use this API");
    if (r->http->config.token != NULL && strcmp(r->path, "/healthz") != 0 &&
        !token_fits(r->http, s.auth_text))
        return refuse(r, 401, "unauthenticated",
                      "this coordinator wants a key: Authorization: Bearer KEY");
    status = method_check(r);
    if (status != 0)
        return status;
    if (!artifact_is_path(r->path) && r->length != UINT64_MAX && r->length > HTTP_BODY_MAX)
        return refuse(r, 413, "body_too_large",
                      "a body may have 262144 bytes; large files go to /v1/artifacts");
    text = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, "Content-Type");
    r->content_type = mem_strdup(text != NULL ? text : "");
    text = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, "Idempotency-Key");
    r->idempotency_key = mem_strdup(text != NULL ? text : "");
    text = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, "If-None-Match");
    r->if_none_match = mem_strdup(text != NULL ? text : "");
    return 0;
}
