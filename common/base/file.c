#include "base/fault.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int file_read(const char *path, size_t max, struct buf *out, struct err *e)
{
    int rc = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t total = 0;

    if (fd < 0)
        return err_sys(e, "open %s", path);
    for (;;) {
        ssize_t n;
        buf_reserve(out, 65536);
        out->data[out->len] = '\0'; /* an empty file is an empty text too */
        n = read(fd, out->data + out->len, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rc = err_sys(e, "read %s", path);
            break;
        }
        if (n == 0)
            break;
        out->len += (size_t)n;
        out->data[out->len] = '\0';
        total += (size_t)n;
        if (total > max) {
            rc = err_set(e, ERR_LIMIT, "%s is longer than %zu bytes", path, max);
            break;
        }
    }
    close(fd);
    return rc;
}

int file_write_all(int fd, const void *bytes, size_t len, struct err *e)
{
    const char *p = bytes;

    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "write");
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

int file_sync_dir(const char *dir, struct err *e)
{
    int rc = 0;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return err_sys(e, "open directory %s", dir);
    if (fsync(fd) != 0)
        rc = err_set(e, ERR_IO, "fsync directory %s: %s", dir, strerror(errno));
    close(fd);
    return rc;
}

int file_write_atomic(const char *path, const void *bytes, size_t len, struct err *e)
{
    int rc = 0;
    char *temp = mem_printf("%s.tmp.XXXXXX", path);
    char *dir = mem_strdup(path);
    char *slash = strrchr(dir, '/');
    int fd = mkostemp(temp, O_CLOEXEC);

    if (fd < 0) {
        rc = err_sys(e, "create %s", temp);
        goto out;
    }
    rc = file_write_all(fd, bytes, len, e);
    if (rc == 0 && fchmod(fd, 0644) != 0)
        rc = err_sys(e, "chmod %s", temp);
    if (rc == 0 && fsync(fd) != 0)
        rc = err_set(e, errno == ENOSPC ? ERR_NO_SPACE : ERR_IO, "fsync %s: %s", temp,
                     strerror(errno));
    close(fd);
    if (rc == 0)
        rc = fault_error(FAULT_FILE_RENAME_BEFORE, e);
    if (rc == 0 && rename(temp, path) != 0)
        rc = err_sys(e, "rename %s to %s", temp, path);
    if (rc != 0) {
        unlink(temp);
        goto out;
    }
    fault_hit(FAULT_FILE_RENAME_AFTER);
    if (slash != NULL)
        *slash = '\0';
    rc = file_sync_dir(slash == NULL ? "." : slash == dir ? "/" : dir, e);
out:
    free(temp);
    free(dir);
    return rc;
}

int file_make_dirs(const char *path, struct err *e)
{
    int rc = 0;
    char *copy = mem_strdup(path);

    for (char *p = copy + 1; rc == 0; p++) {
        if (*p == '/' || *p == '\0') {
            char keep = *p;
            *p = '\0';
            if (mkdir(copy, 0755) != 0 && errno != EEXIST)
                rc = err_sys(e, "mkdir %s", copy);
            *p = keep;
            if (keep == '\0')
                break;
        }
    }
    if (rc == 0 && !file_is_dir(path))
        rc = err_set(e, ERR_INVALID, "%s is not a directory", path);
    free(copy);
    return rc;
}

int file_remove_tree(const char *path, struct err *e)
{
    int rc = 0;
    struct stat st;
    DIR *dir;

    if (lstat(path, &st) != 0)
        return errno == ENOENT ? 0 : err_sys(e, "stat %s", path);
    if (!S_ISDIR(st.st_mode))
        return unlink(path) == 0 ? 0 : err_sys(e, "unlink %s", path);
    dir = opendir(path);
    if (dir == NULL)
        return err_sys(e, "open directory %s", path);
    for (struct dirent *d; rc == 0 && (d = readdir(dir)) != NULL;) {
        char *child;
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        child = mem_printf("%s/%s", path, d->d_name);
        rc = file_remove_tree(child, e);
        free(child);
    }
    closedir(dir);
    if (rc == 0 && rmdir(path) != 0)
        rc = err_sys(e, "rmdir %s", path);
    return rc;
}

bool file_is_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool file_exists(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0;
}

int file_size(const char *path, uint64_t *size, struct err *e)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return err_sys(e, "stat %s", path);
    *size = (uint64_t)st.st_size;
    return 0;
}
