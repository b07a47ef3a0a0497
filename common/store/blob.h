/*
 * blob: content-addressed files in one directory: dir/ab/cdef... named by SHA-256. Written temp + fsync + rename + directory
 * fsync; verified when read. A *tree* is a blob too: canonical JSON {"files":[{"path","sha256","size"}...],"type":"tree"},
 * paths sorted bytewise. Several processes may share a directory. Used by the coordinator (STATE/blobs) and workers (a cache).
 * Blobs have mode 0444: a laid-out tree hard-links them, so whoever wants to change a file copies it first.
 * Errors everywhere: ERR_NO_SPACE (disk full; the store stays sound), ERR_IO (EIO or a failed fsync: nothing may be
 * acknowledged), ERR_NOT_FOUND, ERR_CORRUPT.
 */
#ifndef STORE_BLOB_H
#define STORE_BLOB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/digest.h"
#include "base/err.h"

struct blob_store; /* thread-safe */
int blob_open(const char *dir, struct blob_store **out, struct err *e);
/* Removes what killed processes left half written. Only for who holds the directory's lock, before
 * anything is written; without it blob_open() removes what is a day old. */
void blob_sweep(struct blob_store *s);
void blob_close(struct blob_store *s);
bool blob_has(const struct blob_store *s,
              const char *digest); /* for good: also after a power cut */
void blob_path(const struct blob_store *s, const char *digest, char *path,
               size_t cap); /* where it is or would be */

/* Streaming in: bytes arrive, are hashed on the way; end compares with `expect` (NULL: whatever it is), syncs, renames. */
struct blob_writer;
int blob_write_begin(struct blob_store *s, struct blob_writer **out, struct err *e);
int blob_write(struct blob_writer *w, const void *bytes, size_t len, struct err *e);
int blob_write_end(struct blob_writer **w, const char *expect, struct digest *out,
                   struct err *e); /* ERR_CORRUPT on a mismatch */
void blob_write_abort(struct blob_writer **w);

int blob_put_bytes(struct blob_store *s, const void *bytes, size_t len, struct digest *out,
                   struct err *e);
int blob_put_file(struct blob_store *s, const char *path, struct digest *out, struct err *e);
/* Whole directory (regular files, recursively, sorted) as blobs plus its tree manifest. */
int blob_put_tree(struct blob_store *s, const char *dir, struct digest *out, struct err *e);
int blob_read(const struct blob_store *s, const char *digest, size_t max, struct buf *out,
              struct err *e); /* verified */
int blob_verify(const struct blob_store *s, const char *digest, struct err *e);

/* Tree manifests as nouns. */
struct tree_file {
    char path[256]; /* relative, no "..", no leading '/' */
    struct digest digest;
    uint64_t size;
};
bool blob_text_is_tree(const char *text, size_t len);
bool blob_is_tree(const struct blob_store *s,
                  const char *digest); /* by how it begins and ends; false if it is not there */
/* Hostile manifests are refused: names that leave the directory, unsorted or duplicate names, a file that is also a directory. */
int blob_tree_parse(const char *text, size_t len, struct tree_file **files, size_t *n,
                    struct err *e); /* gives files: free() */
void blob_tree_print(const struct tree_file *files, size_t n,
                     struct buf *out); /* files sorted by path; the canonical text */
/* Are all files of a tree there, with the sizes that it says? The manifest is verified; the files are not read. On
 * ERR_CORRUPT and ERR_IO *bad is the blob that has not what it should, or cannot be read. */
int blob_tree_check(const struct blob_store *s, const char *digest, struct digest *bad,
                    struct err *e);
/* Makes dir hold the tree's files (hard links to blobs where possible, else copies). All its blobs must be in the store. */
int blob_tree_checkout(struct blob_store *s, const char *digest, const char *dir, struct err *e);

#endif
