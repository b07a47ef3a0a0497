/*
 * artifact: client of the coordinator's artefact API (libcurl), with a local blob store as cache.
 *   HEAD|GET|PUT /v1/artifacts/{sha256}; GET honours ranges, so a broken download goes on where it stopped.
 * Used by workers and steerctl. Thread-safe: each call uses its own curl handle from a small pool.
 */
#ifndef ARTIFACT_ARTIFACT_H
#define ARTIFACT_ARTIFACT_H

#include "base/digest.h"
#include "base/err.h"
#include "store/blob.h"

struct artifact_client;
/* base_url "http://127.0.0.1:7780"; cache borrowed; checkout_dir: where trees are laid out, one directory a digest, kept for reuse. */
int artifact_client_new(const char *base_url, struct blob_store *cache, const char *checkout_dir,
                        struct artifact_client **out, struct err *e);
void artifact_client_free(struct artifact_client *c);
void artifact_client_set_url(struct artifact_client *c,
                             const char *base_url); /* the coordinator moved */
void artifact_client_set_token(
    struct artifact_client *c,
    const char *token); /* bearer key; NULL: none; STEER_TOKEN at first */
/* A file or a laid-out tree, verified once a process; path of it (read only: it may be a link to the cache). Two threads that
 * want the same artefact load it once. Retries with back-off until nothing has
 * come of a blob for patience_ms. ERR_NOT_FOUND, ERR_UNREACHABLE, ERR_CORRUPT, ERR_DENIED, ERR_NO_SPACE (here). */
int artifact_fetch(struct artifact_client *c, const char *digest, uint64_t patience_ms, char *path,
                   size_t cap, struct err *e);
/* Uploads a file or a directory (tree); blobs that the coordinator already has are not sent again. Durable there on return.
 * Each blob may take patience_ms, and as much more as its size needs at 100 kB/s. ERR_CORRUPT when it came there changed
 * three times. ERR_NO_SPACE when the coordinator's disk is full (507). sent: progress, bytes of this call so far (may step back when a
 * transfer is repeated); may be NULL. */
int artifact_publish(struct artifact_client *c, const char *path, uint64_t patience_ms,
                     struct digest *out, void (*sent)(void *self, uint64_t bytes), void *self,
                     struct err *e);
/* The same for bytes, which become one blob: named by what they are here. */
int artifact_publish_bytes(struct artifact_client *c, const void *bytes, size_t len,
                           uint64_t patience_ms, struct digest *out, struct err *e);
/* The cache need not keep a published blob that the coordinator has; whoever wants it fetches it again. */
void artifact_forget(struct artifact_client *c, const char *digest);

#endif
