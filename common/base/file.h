/*
 * file: whole files in and out. Writing is atomic and durable: temporary sibling, fsync, rename, directory fsync.
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

/* Reads all of path into out (appended). ERR_LIMIT if it is longer than max bytes. */
int file_read(const char *path, size_t max, struct buf *out, struct err *e);
/* Atomic and durable; mode 0644. ERR_NO_SPACE, ERR_IO (fsync failed), ERR_SYSTEM. */
int file_write_atomic(const char *path, const void *bytes, size_t len, struct err *e);
int file_write_all(int fd, const void *bytes, size_t len,
                   struct err *e); /* handles EINTR and short writes */
int file_sync_dir(const char *dir, struct err *e);
int file_make_dirs(const char *path, struct err *e);   /* like mkdir -p */
int file_remove_tree(const char *path, struct err *e); /* like rm -r; a missing path is no error */
bool file_is_dir(const char *path);
bool file_exists(const char *path);
int file_size(const char *path, uint64_t *size, struct err *e);

#endif
