/*
 * api: the HTTP/JSON API as functions of the coordinator's state. http.c moves bytes: it parses a
 * request into struct api_request, hands it to the reactor thread over an inproc socket, and sends
 * back the answer; api_handle() runs on the reactor thread and is the only reader of the state.
 * Artefact bodies never come here: http.c streams them to and from the blob store itself.
 */
#ifndef COORDINATOR_API_H
#define COORDINATOR_API_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct coordinator; /* coordinator.h */

struct api_request {
    const char *method; /* "GET", "POST", "PATCH", "DELETE" */
    const char *path;   /* "/v1/jobs/job_.../cancel", percent-decoded, checked for control bytes */
    const char *query;  /* raw, "" if none */
    const char *body;
    size_t body_len;
    const char *content_type;    /* "" if none */
    const char *idempotency_key; /* "" if none */
    const char *if_none_match;   /* "" if none */
};

struct api_response {
    int status;
    struct buf body;
    const char *content_type; /* literal */
    char etag[40];
    bool wait; /* long poll: not answered yet; the coordinator answers later through http_answer()
                  (coordinator/http.h) */
};
#define API_RESPONSE_INIT ((struct api_response){0})

void api_handle(struct coordinator *c, const struct api_request *q, struct api_response *r);
/* application/problem+json (RFC 9457) with code and text. */
void api_problem(struct api_response *r, int status, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* After a coordinator_flush() that failed: true, and answered (503), if it was not for want of
 * space. */
bool api_storage_failed(const struct coordinator *c, struct api_response *r);

#endif
