/* blob_private: what blob.c and blob_tree.c share. */
#ifndef STORE_BLOB_PRIVATE_H
#define STORE_BLOB_PRIVATE_H

#include "store/blob.h"

#define PATH_BYTES 4608

/* A regular file as a blob; fills digest and size. */
int blob_put_tree_file(struct blob_store *s, const char *path, struct tree_file *out,
                       struct err *e);

/* Of one that is there: would its name survive a power cut? */
bool blob_is_synced(const struct blob_store *s, const char *digest);

#endif
