/*
 * How it works. Every blob is written to dir/tmp/XXXXXX, hashed on the way, synced, given mode 0444 and renamed to
 * dir/ab/cdef...; then the directory is synced. The name is the digest, so two writers of the same bytes do no harm to each
 * other, and writing again is what heals a damaged blob: the rename always replaces. The 256 directories are made and
 * synced when the store is opened, so that a rename needs one directory sync only. Between the two the name is there and a
 * power cut could undo it: until the sync such a blob is one that the store has not, and names that a killed process left
 * without it are synced when the store is opened.
 *
 * A temporary file left by a killed process is removed when a store is opened a day later; until then it may belong to
 * another process that shares the directory.
 */
#include "store/blob.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "store/blob_private.h"

#define TEMP_AGE_S (24 * 3600)
#define COPY_BYTES (1u << 16)

/* Digests of blobs that are renamed, or about to be, and whose names are not synced. */
struct unsynced {
    pthread_mutex_t lock;
    size_t n, cap;
    struct digest *digest;
};

struct blob_store {
    char *dir;
    struct unsynced *unsynced;
};

struct blob_writer {
    struct blob_store *store;
    struct digest_state hash;
    char *temp;
    int fd;
    bool failed;
};

/* ---- names that are not synced --------------------------------------------------------------- */

/* u->n if it is not there. The lock is held. */
static size_t unsynced_at(const struct unsynced *u, const char *digest)
{
    size_t i = 0;

    while (i < u->n && strcmp(u->digest[i].hex, digest) != 0)
        i++;
    return i;
}

static bool is_unsynced(struct unsynced *u, const char *digest)
{
    bool is;

    pthread_mutex_lock(&u->lock);
    is = unsynced_at(u, digest) < u->n;
    pthread_mutex_unlock(&u->lock);
    return is;
}

static void unsynced_add(struct unsynced *u, const char *digest)
{
    pthread_mutex_lock(&u->lock);
    if (unsynced_at(u, digest) == u->n) {
        if (u->n == u->cap) {
            u->cap = u->cap * 2 + 16;
            u->digest = mem_grow(u->digest, u->cap, sizeof *u->digest);
        }
        snprintf(u->digest[u->n++].hex, sizeof u->digest->hex, "%s", digest);
    }
    pthread_mutex_unlock(&u->lock);
}

/* Whoever synced the name did it for all that wrote it. */
static void unsynced_remove(struct unsynced *u, const char *digest)
{
    size_t i;

    pthread_mutex_lock(&u->lock);
    i = unsynced_at(u, digest);
    if (i < u->n)
        u->digest[i] = u->digest[--u->n];
    pthread_mutex_unlock(&u->lock);
}

static struct unsynced *unsynced_new(void)
{
    struct unsynced *u = mem_zalloc(1, sizeof *u);

    pthread_mutex_init(&u->lock, NULL);
    return u;
}

static void unsynced_free(struct unsynced *u)
{
    pthread_mutex_destroy(&u->lock);
    free(u->digest);
    free(u);
}

/* ---- the store ------------------------------------------------------------------------------- */

static void temps_sweep(const char *dir, time_t age_s)
{
    DIR *d = opendir(dir);
    time_t now = time(NULL);

    if (d == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(d)) != NULL;) {
        struct stat st;
        if (fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode) && (age_s == 0 || now - st.st_mtime > age_s))
            unlinkat(dirfd(d), entry->d_name, 0);
    }
    closedir(d);
}

int blob_open(const char *dir, struct blob_store **out, struct err *e)
{
    int rc = 0;
    char *path = NULL;
    bool made = false;

    CHECK(strlen(dir) > 0);
    rc = file_make_dirs(dir, e);
    if (rc != 0)
        goto out;
    for (unsigned i = 0; i < 256; i++) {
        free(path);
        path = mem_printf("%s/%02x", dir, i);
        if (mkdir(path, 0755) == 0) {
            made = true;
        } else if (errno != EEXIST) {
            rc = err_sys(e, "mkdir %s", path);
            goto out;
        } else {
            rc = file_sync_dir(path, e);
            if (rc != 0)
                goto out;
        }
    }
    free(path);
    path = mem_printf("%s/tmp", dir);
    rc = file_make_dirs(path, e);
    if (rc != 0)
        goto out;
    temps_sweep(path, TEMP_AGE_S);
    if (made)
        rc = file_sync_dir(dir, e);
    if (rc != 0)
        goto out;
    *out = mem_zalloc(1, sizeof **out);
    (*out)->dir = mem_strdup(dir);
    (*out)->unsynced = unsynced_new();
out:
    free(path);
    if (rc != 0)
        err_wrap(e, "blob store");
    return rc;
}

void blob_sweep(struct blob_store *s)
{
    char *path = mem_printf("%s/tmp", s->dir);

    temps_sweep(path, 0);
    free(path);
}

void blob_close(struct blob_store *s)
{
    if (s == NULL)
        return;
    unsynced_free(s->unsynced);
    free(s->dir);
    free(s);
}

void blob_path(const struct blob_store *s, const char *digest, char *path, size_t cap)
{
    int n;

    CHECK(digest_is_valid(digest));
    n = snprintf(path, cap, "%s/%.2s/%s", s->dir, digest, digest + 2);
    CHECK(n > 0 && (size_t)n < cap);
}

/* As blob_path(), on the heap: the length of the store's own directory is nobody's business. */
static char *path_of(const struct blob_store *s, const char *digest)
{
    CHECK(digest_is_valid(digest));
    return mem_printf("%s/%.2s/%s", s->dir, digest, digest + 2);
}

bool blob_has(const struct blob_store *s, const char *digest)
{
    char *path;
    struct stat st;
    bool has;

    if (!digest_is_valid(digest))
        return false;
    path = path_of(s, digest);
    /* In this order: whoever renames it adds it to the list before. */
    has = lstat(path, &st) == 0 && S_ISREG(st.st_mode) && blob_is_synced(s, digest);
    free(path);
    return has;
}

bool blob_is_synced(const struct blob_store *s, const char *digest)
{
    return !is_unsynced(s->unsynced, digest);
}

int blob_write_begin(struct blob_store *s, struct blob_writer **out, struct err *e)
{
    struct blob_writer *w = mem_zalloc(1, sizeof *w);

    w->store = s;
    w->temp = mem_printf("%s/tmp/XXXXXX", s->dir);
    w->fd = mkostemp(w->temp, O_CLOEXEC);
    if (w->fd < 0) {
        int rc = err_sys(e, "create %s", w->temp);
        free(w->temp);
        free(w);
        return rc;
    }
    digest_init(&w->hash);
    *out = w;
    return 0;
}

int blob_write(struct blob_writer *w, const void *bytes, size_t len, struct err *e)
{
    int rc = file_write_all(w->fd, bytes, len / 2, e);

    if (rc == 0)
        rc = fault_error(FAULT_BLOB_WRITE_MID, e);
    if (rc == 0)
        rc = file_write_all(w->fd, (const char *)bytes + len / 2, len - len / 2, e);
    if (rc != 0) {
        w->failed = true; /* what is on disk no longer agrees with the hash */
        return rc;
    }
    digest_add(&w->hash, bytes, len);
    return 0;
}

static void writer_free(struct blob_writer **pw)
{
    struct blob_writer *w = *pw;

    if (w->fd >= 0)
        close(w->fd);
    free(w->temp);
    free(w);
    *pw = NULL;
}

/* Synced and renamed into place, and the name itself synced; when that fails the store has it not until somebody writes it
 * again. One that is there under a synced name stays so: the rename replaces it by the same. */
static int writer_publish(struct blob_writer *w, const char *digest, struct err *e)
{
    int rc = 0;
    char *path = path_of(w->store, digest);
    char *dir = mem_printf("%s/%.2s", w->store->dir, digest);

    if (fchmod(w->fd, 0444) != 0)
        rc = err_sys(e, "chmod %s", w->temp);
    if (rc == 0)
        rc = fault_error(FAULT_BLOB_FSYNC_BEFORE, e);
    if (rc == 0 && fsync(w->fd) != 0)
        rc = err_set(e, errno == ENOSPC || errno == EDQUOT ? ERR_NO_SPACE : ERR_IO, "fsync %s: %s",
                     w->temp, strerror(errno));
    if (rc == 0)
        rc = fault_error(FAULT_BLOB_RENAME_BEFORE, e);
    if (rc == 0 && !blob_has(w->store, digest))
        unsynced_add(w->store->unsynced, digest);
    if (rc == 0 && rename(w->temp, path) != 0)
        rc = err_sys(e, "rename %s to %s", w->temp, path);
    if (rc == 0)
        fault_hit(FAULT_BLOB_RENAME_AFTER);
    else
        unlink(w->temp);
    if (rc == 0)
        rc = fault_error(FAULT_BLOB_DIRSYNC_BEFORE, e);
    if (rc == 0)
        rc = file_sync_dir(dir, e);
    if (rc == 0)
        unsynced_remove(w->store->unsynced, digest);
    free(dir);
    free(path);
    return rc;
}

int blob_write_end(struct blob_writer **pw, const char *expect, struct digest *out, struct err *e)
{
    struct blob_writer *w = *pw;
    struct digest found;
    int rc;

    if (w->failed) {
        unlink(w->temp);
        writer_free(pw);
        return err_set(e, ERR_SYSTEM, "an earlier write of this blob failed");
    }
    digest_end(&w->hash, &found);
    if (expect != NULL && strcmp(expect, found.hex) != 0) {
        rc = err_set(e, ERR_CORRUPT, "the bytes have sha256 %s, not %s", found.hex, expect);
        unlink(w->temp);
    } else {
        rc = writer_publish(w, found.hex, e);
    }
    writer_free(pw);
    if (rc == 0 && out != NULL)
        *out = found;
    return rc;
}

void blob_write_abort(struct blob_writer **pw)
{
    if (*pw == NULL)
        return;
    unlink((*pw)->temp);
    writer_free(pw);
}

int blob_put_bytes(struct blob_store *s, const void *bytes, size_t len, struct digest *out,
                   struct err *e)
{
    struct blob_writer *w = NULL;
    int rc = blob_write_begin(s, &w, e);

    if (rc != 0)
        return rc;
    rc = blob_write(w, bytes, len, e);
    if (rc != 0) {
        blob_write_abort(&w);
        return rc;
    }
    return blob_write_end(&w, NULL, out, e);
}

/* Copies the regular file at path into an open writer. O_NONBLOCK: opening a FIFO must not wait for its writer. */
static int file_copy_in(struct blob_writer *w, const char *path, uint64_t *size, struct err *e)
{
    static _Thread_local char block[COPY_BYTES];
    int rc = 0;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    *size = 0;
    if (fd < 0)
        return err_sys(e, "open %s", path);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        rc = err_set(e, ERR_INVALID, "%s is not a regular file", path);
        goto out;
    }
    for (;;) {
        ssize_t n = read(fd, block, sizeof block);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = err_sys(e, "read %s", path);
        if (n <= 0)
            break;
        rc = blob_write(w, block, (size_t)n, e);
        if (rc != 0)
            break;
        *size += (uint64_t)n;
    }
out:
    close(fd);
    return rc;
}

static int file_put(struct blob_store *s, const char *path, struct digest *out, uint64_t *size,
                    struct err *e)
{
    struct blob_writer *w = NULL;
    int rc = blob_write_begin(s, &w, e);

    if (rc != 0)
        return rc;
    rc = file_copy_in(w, path, size, e);
    if (rc != 0) {
        blob_write_abort(&w);
        return rc;
    }
    return blob_write_end(&w, NULL, out, e);
}

int blob_put_file(struct blob_store *s, const char *path, struct digest *out, struct err *e)
{
    uint64_t size;

    return file_put(s, path, out, &size, e);
}

int blob_put_tree_file(struct blob_store *s, const char *path, struct tree_file *out, struct err *e)
{
    return file_put(s, path, &out->digest, &out->size, e);
}

int blob_read(const struct blob_store *s, const char *digest, size_t max, struct buf *out,
              struct err *e)
{
    struct digest found;
    char *path;
    size_t before = out->len;
    int rc;

    if (!digest_is_valid(digest))
        return err_set(e, ERR_INVALID, "not a sha256 digest: 64 lower-case hex digits are");
    path = path_of(s, digest);
    rc = file_read(path, max, out, e);
    free(path);
    if (rc == 0) {
        digest_bytes(out->data + before, out->len - before, &found);
        if (strcmp(found.hex, digest) != 0)
            rc = err_set(e, ERR_CORRUPT, "blob %s has sha256 %s", digest, found.hex);
    }
    if (rc != 0 && out->data != NULL) {
        out->len = before;
        out->data[before] = '\0';
    }
    return rc;
}

int blob_verify(const struct blob_store *s, const char *digest, struct err *e)
{
    struct digest found;
    char *path;
    int rc;

    if (!digest_is_valid(digest))
        return err_set(e, ERR_INVALID, "not a sha256 digest: 64 lower-case hex digits are");
    path = path_of(s, digest);
    rc = digest_file(path, &found, e);
    free(path);
    if (rc == 0 && strcmp(found.hex, digest) != 0)
        rc = err_set(e, ERR_CORRUPT, "blob %s has sha256 %s", digest, found.hex);
    return rc;
}
