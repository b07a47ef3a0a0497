/*
 * Trees: a directory as one canonical manifest of blobs. A manifest may come from anybody, so blob_tree_parse() refuses
 * every name that could leave the directory it is laid out in, and every pair of names that could not both exist.
 */
#include "store/blob.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "json/json.h"
#include "store/blob_private.h"

#define TREE_FILES_MAX 100000
#define TREE_DEPTH_MAX 16
#define TREE_TEXT_MAX (64u << 20)
#define TREE_SIZE_MAX (INT64_C(1) << 50)

static const char tree_begin[] = "{\"files\":[";
static const char tree_end[] = "],\"type\":\"tree\"}";

bool blob_text_is_tree(const char *text, size_t len)
{
    size_t nb = sizeof tree_begin - 1, ne = sizeof tree_end - 1;

    return len >= nb + ne && memcmp(text, tree_begin, nb) == 0 &&
           memcmp(text + len - ne, tree_end, ne) == 0;
}

bool blob_is_tree(const struct blob_store *s, const char *digest)
{
    char path[PATH_BYTES], text[sizeof tree_begin + sizeof tree_end];
    size_t nb = sizeof tree_begin - 1, ne = sizeof tree_end - 1;
    struct stat st;
    bool is = false;
    int fd = -1;

    if (!digest_is_valid(digest))
        return false;
    blob_path(s, digest, path, sizeof path);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    is = fstat(fd, &st) == 0 && st.st_size >= (off_t)(nb + ne) &&
         pread(fd, text, nb, 0) == (ssize_t)nb &&
         pread(fd, text + nb, ne, st.st_size - (off_t)ne) == (ssize_t)ne &&
         blob_text_is_tree(text, nb + ne);
    close(fd);
    return is;
}

/* Why a path must not be in a manifest, or NULL. */
static const char *path_fault(const char *path)
{
    size_t len = strlen(path);
    int depth = 0;

    if (len == 0)
        return "is empty";
    if (len >= sizeof((struct tree_file *)0)->path)
        return "is longer than 255 bytes";
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)path[i] < 0x20 || path[i] == 0x7f || path[i] == '\\')
            return "holds a control byte or a backslash";
    for (const char *p = path;; p++) {
        size_t n = strcspn(p, "/");
        if (n == 0)
            return "has an empty component";
        if ((n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return "has a component \".\" or \"..\"";
        if (++depth > TREE_DEPTH_MAX)
            return "is more than 16 directories deep";
        p += n;
        if (*p == '\0')
            return NULL;
    }
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct tree_file *)a)->path, ((const struct tree_file *)b)->path);
}

/* Sorted strictly, and no file is the directory of another. */
static int paths_check(const struct tree_file *files, size_t n, struct err *e)
{
    struct tree_file *dir = mem_zalloc(1, sizeof *dir);
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < n; i++) {
        if (i > 0 && by_path(&files[i - 1], &files[i]) >= 0)
            rc = err_set(e, ERR_INVALID, "files[%zu]: path \"%s\" is not after \"%s\"", i,
                         files[i].path, files[i - 1].path);
        for (const char *slash = files[i].path; rc == 0 && (slash = strchr(slash, '/')) != NULL;
             slash++) {
            memcpy(dir->path, files[i].path, (size_t)(slash - files[i].path));
            dir->path[slash - files[i].path] = '\0';
            if (bsearch(dir, files, n, sizeof *files, by_path) != NULL)
                rc = err_set(e, ERR_INVALID, "files[%zu]: \"%s\" is a file and a directory", i,
                             dir->path);
        }
    }
    free(dir);
    return rc;
}

static int file_parse(const cJSON *item, size_t i, struct tree_file *f, struct err *e)
{
    const char *path = NULL, *digest = NULL, *fault;
    int64_t size = 0;
    int rc = 0;

    if (!cJSON_IsObject(item) || cJSON_GetArraySize(item) != 3) {
        rc = err_set(e, ERR_INVALID, "is not an object of path, sha256 and size");
        goto out;
    }
    rc = json_need_string(item, "path", &path, e);
    if (rc == 0)
        rc = json_need_string(item, "sha256", &digest, e);
    if (rc == 0)
        rc = json_need_int(item, "size", 0, TREE_SIZE_MAX, &size, e);
    if (rc != 0)
        goto out;
    fault = path_fault(path);
    if (fault != NULL)
        rc = err_set(e, ERR_INVALID, "path \"%.80s\" %s", path, fault);
    else if (!digest_is_valid(digest))
        rc = err_set(e, ERR_INVALID, "sha256 is not 64 lower-case hex digits");
    if (rc != 0)
        goto out;
    snprintf(f->path, sizeof f->path, "%s", path);
    snprintf(f->digest.hex, sizeof f->digest.hex, "%s", digest);
    f->size = (uint64_t)size;
out:
    if (rc != 0)
        err_wrap(e, "files[%zu]", i);
    return rc;
}

int blob_tree_parse(const char *text, size_t len, struct tree_file **files, size_t *n,
                    struct err *e)
{
    int rc = 0;
    cJSON *j = NULL;
    const cJSON *list, *item;
    struct tree_file *v = NULL;
    size_t count = 0;

    if (!blob_text_is_tree(text, len)) {
        rc = err_set(e, ERR_INVALID, "not a tree manifest");
        goto out;
    }
    rc = json_parse(text, len, JSON_LIMITS_FILE, &j, e);
    if (rc != 0)
        goto out;
    list = json_get(j, "files");
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(j) != 2) {
        rc = err_set(e, ERR_INVALID, "must have \"files\" (a list) and \"type\", and no more");
        goto out;
    }
    if (cJSON_GetArraySize(list) > TREE_FILES_MAX) {
        rc =
            err_set(e, ERR_LIMIT, "%d files, at most %d", cJSON_GetArraySize(list), TREE_FILES_MAX);
        goto out;
    }
    v = mem_zalloc((size_t)cJSON_GetArraySize(list), sizeof *v);
    cJSON_ArrayForEach(item, list)
    {
        rc = file_parse(item, count, &v[count], e);
        if (rc != 0)
            goto out;
        count++;
    }
    rc = paths_check(v, count, e);
out:
    cJSON_Delete(j);
    if (rc != 0) {
        free(v);
        return err_wrap(e, "tree manifest");
    }
    *files = v;
    *n = count;
    return 0;
}

/* ---- a directory in -------------------------------------------------------------------------- */

struct tree_walk {
    struct blob_store *store;
    struct tree_file *files;
    size_t n, cap;
};

static int walk_dir(struct tree_walk *w, const char *dir, const char *prefix, int depth,
                    struct err *e);

static int walk_entry(struct tree_walk *w, const char *path, const char *name, int depth,
                      struct err *e)
{
    struct stat st;
    const char *fault = path_fault(name);
    struct tree_file *f;

    if (fault != NULL)
        return err_set(e, ERR_INVALID, "%s: its name %s", path, fault);
    if (stat(path, &st) != 0)
        return err_sys(e, "%s", path);
    if (S_ISDIR(st.st_mode))
        return walk_dir(w, path, name, depth + 1, e);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "%s is neither a regular file nor a directory", path);
    if (w->n == TREE_FILES_MAX)
        return err_set(e, ERR_LIMIT, "%s: more than %d files", path, TREE_FILES_MAX);
    if (w->n == w->cap) {
        w->cap = w->cap == 0 ? 16 : w->cap * 2;
        w->files = mem_grow(w->files, w->cap, sizeof *w->files);
    }
    f = &w->files[w->n++];
    snprintf(f->path, sizeof f->path, "%s", name);
    return blob_put_tree_file(w->store, path, f, e);
}

/* Depth is bounded, which also ends a loop of symbolic links. */
static int walk_dir(struct tree_walk *w, const char *dir, const char *prefix, int depth,
                    struct err *e)
{
    int rc = 0;
    DIR *d;

    if (depth > TREE_DEPTH_MAX)
        return err_set(e, ERR_LIMIT, "%s is more than %d directories deep", dir, TREE_DEPTH_MAX);
    d = opendir(dir);
    if (d == NULL)
        return err_sys(e, "open directory %s", dir);
    for (struct dirent *entry; rc == 0 && (entry = readdir(d)) != NULL;) {
        char *path, *name;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        path = mem_printf("%s/%s", dir, entry->d_name);
        name = mem_printf("%s%s%s", prefix, prefix[0] != '\0' ? "/" : "", entry->d_name);
        rc = walk_entry(w, path, name, depth, e);
        free(name);
        free(path);
    }
    closedir(d);
    return rc;
}

void blob_tree_print(const struct tree_file *files, size_t n, struct buf *out)
{
    buf_str(out, tree_begin);
    for (size_t i = 0; i < n; i++) {
        buf_str(out, i > 0 ? ",{\"path\":" : "{\"path\":");
        json_quote(files[i].path, strlen(files[i].path), out);
        buf_printf(out, ",\"sha256\":\"%s\",\"size\":%" PRIu64 "}", files[i].digest.hex,
                   files[i].size);
    }
    buf_str(out, tree_end);
}

int blob_put_tree(struct blob_store *s, const char *dir, struct digest *out, struct err *e)
{
    struct tree_walk w = {.store = s};
    struct buf text = BUF_INIT;
    int rc = walk_dir(&w, dir, "", 0, e);

    if (rc == 0) {
        if (w.n > 0)
            qsort(w.files, w.n, sizeof *w.files, by_path);
        blob_tree_print(w.files, w.n, &text);
        rc = blob_put_bytes(s, text.data, text.len, out, e);
    }
    buf_free(&text);
    free(w.files);
    return rc;
}

/* ---- a directory out ------------------------------------------------------------------------- */

static int file_copy(const char *from, const char *to, struct err *e)
{
    static _Thread_local char block[1u << 16];
    int rc = 0;
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int fd = -1;
    ssize_t n;

    if (in < 0)
        return err_sys(e, "open %s", from);
    fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) {
        rc = err_sys(e, "create %s", to);
        goto out;
    }
    while (rc == 0 && (n = read(in, block, sizeof block)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        rc = n < 0 ? err_sys(e, "read %s", from) : file_write_all(fd, block, (size_t)n, e);
    }
out:
    if (fd >= 0)
        close(fd);
    close(in);
    return rc;
}

/* One verified blob as path: hard link, or a copy where the file system will not (another device, too many links). */
static int file_place(struct blob_store *s, const struct tree_file *f, const char *path,
                      struct err *e)
{
    int rc = blob_verify(s, f->digest.hex, e);
    char *from, *temp;
    struct stat st;

    if (rc != 0)
        return err_wrap(e, "%s", f->path);
    from = mem_zalloc(1, PATH_BYTES);
    blob_path(s, f->digest.hex, from, PATH_BYTES);
    temp = mem_printf("%s.part~steer", path);
    unlink(temp);
    if (stat(from, &st) != 0)
        rc = err_sys(e, "%s", from);
    else if ((uint64_t)st.st_size != f->size)
        rc = err_set(e, ERR_CORRUPT, "%s: its blob has %lld bytes, the manifest says %" PRIu64,
                     f->path, (long long)st.st_size, f->size);
    else if (link(from, temp) != 0)
        rc = file_copy(from, temp, e);
    /* rename() of two names of one file does nothing, and leaves both. */
    if (rc == 0 && rename(temp, path) != 0)
        rc = err_sys(e, "rename %s to %s", temp, path);
    unlink(temp);
    free(temp);
    free(from);
    return rc;
}

static int tree_fill(struct blob_store *s, const struct tree_file *files, size_t n, const char *dir,
                     struct err *e)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < n; i++) {
        char *path = mem_printf("%s/%s", dir, files[i].path);
        char *slash = strrchr(path, '/');
        *slash = '\0';
        rc = file_make_dirs(path, e);
        *slash = '/';
        if (rc == 0)
            rc = file_place(s, &files[i], path, e);
        free(path);
    }
    return rc;
}

/* A directory that is not there yet appears whole or not at all; one that is there is filled file by file. */
static int tree_lay_out(struct blob_store *s, const struct tree_file *files, size_t n,
                        const char *dir, struct err *e)
{
    int rc = 0;
    struct err ignored;
    char *temp, *slash;

    if (file_exists(dir))
        return file_is_dir(dir) ? tree_fill(s, files, n, dir, e)
                                : err_set(e, ERR_CONFLICT, "%s exists and is not a directory", dir);
    temp = mem_printf("%s.part.XXXXXX", dir);
    slash = strrchr(temp, '/');
    if (slash != NULL && slash != temp) {
        *slash = '\0';
        rc = file_make_dirs(temp, e);
        *slash = '/';
    }
    if (rc == 0 && mkdtemp(temp) == NULL)
        rc = err_sys(e, "create %s", temp);
    if (rc != 0)
        goto out;
    rc = chmod(temp, 0755) == 0 ? tree_fill(s, files, n, temp, e) : err_sys(e, "chmod %s", temp);
    if (rc == 0 && rename(temp, dir) != 0)
        rc = errno == ENOTEMPTY || errno == EEXIST
                 ? tree_fill(s, files, n, dir, e) /* somebody else was faster */
                 : err_sys(e, "rename %s to %s", temp, dir);
    file_remove_tree(temp, &ignored);
out:
    free(temp);
    return rc;
}

int blob_tree_checkout(struct blob_store *s, const char *digest, const char *dir, struct err *e)
{
    struct buf text = BUF_INIT;
    struct tree_file *files = NULL;
    size_t n = 0;
    int rc = blob_read(s, digest, TREE_TEXT_MAX, &text, e);

    if (rc == 0)
        rc = blob_tree_parse(text.data, text.len, &files, &n, e);
    if (rc == 0)
        rc = tree_lay_out(s, files, n, dir, e);
    if (rc != 0)
        err_wrap(e, "tree %.12s", digest);
    free(files);
    buf_free(&text);
    return rc;
}

/* ---- is it whole? ---------------------------------------------------------------------------- */

static int file_check(const struct blob_store *s, const struct tree_file *f, struct err *e)
{
    char path[PATH_BYTES];
    uint64_t size = 0;
    int rc;

    blob_path(s, f->digest.hex, path, sizeof path);
    rc = file_size(path, &size, e);
    if (rc == 0 && size != f->size)
        rc = err_set(e, ERR_CORRUPT, "blob %s has %" PRIu64 " bytes, the manifest says %" PRIu64,
                     f->digest.hex, size, f->size);
    if (rc == 0 && !blob_is_synced(s, f->digest.hex))
        rc = err_set(e, ERR_NOT_FOUND, "blob %s is not stored yet", f->digest.hex);
    return rc == 0 ? 0 : err_wrap(e, "%s", f->path);
}

int blob_tree_check(const struct blob_store *s, const char *digest, struct digest *bad,
                    struct err *e)
{
    struct buf text = BUF_INIT;
    struct tree_file *files = NULL;
    size_t n = 0;
    int rc = blob_read(s, digest, TREE_TEXT_MAX, &text, e);

    if (rc == ERR_CORRUPT || rc == ERR_IO)
        snprintf(bad->hex, sizeof bad->hex, "%s", digest);
    if (rc == 0)
        rc = blob_tree_parse(text.data, text.len, &files, &n, e);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = file_check(s, &files[i], e);
        if (rc == ERR_CORRUPT || rc == ERR_IO)
            *bad = files[i].digest;
    }
    free(files);
    buf_free(&text);
    return rc == 0 ? 0 : err_wrap(e, "tree %.12s", digest);
}
