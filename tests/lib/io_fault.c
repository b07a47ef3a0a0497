/*
 * Preloaded into a daemon: the n-th call that changes files of its state fails, once. Calls on other
 * files are not counted. IO_FAULT=MODE:n, IO_FAULT_DIR=the state directory, IO_FAULT_LOG=a file that gets
 * one line "N CALL PATH" when it strikes.
 *
 * MODE  eio     the call does nothing and fails with EIO
 *       fsync   counts fsync and fdatasync only: nothing is synced, EIO
 *       late    the call is done and EIO is answered all the same: nobody knows what is on the disk
 *       enospc  as eio with ENOSPC
 *       short   a write writes one byte of what it should (no error: the caller has to go on)
 *       eintr   a write is interrupted before its first byte
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum mode { OFF, EIO_, FSYNC, LATE, ENOSPC_, SHORT, EINTR_ };
static const char *const modes[] = {"off", "eio", "fsync", "late", "enospc", "short", "eintr"};

static enum mode mode;
static long at;
static const char *dir;
static atomic_long calls;

__attribute__((constructor)) static void start(void)
{
    const char *text = getenv("IO_FAULT");
    const char *colon = text != NULL ? strchr(text, ':') : NULL;

    dir = getenv("IO_FAULT_DIR");
    if (colon == NULL || dir == NULL)
        return;
    for (int i = 1; i <= EINTR_; i++)
        if (strlen(modes[i]) == (size_t)(colon - text) &&
            strncmp(text, modes[i], strlen(modes[i])) == 0)
            mode = (enum mode)i;
    at = atol(colon + 1);
}

#define REAL(type, name, ...)                                                                      \
    static type (*real)(__VA_ARGS__);                                                              \
    if (real == NULL)                                                                              \
    *(void **)&real = dlsym(RTLD_NEXT, name)

static void say(const char *call, const char *path, long n)
{
    const char *log = getenv("IO_FAULT_LOG");
    char line[1024];
    int fd = log != NULL ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    int len = snprintf(line, sizeof line, "%ld %s %s\n", n, call, path);

    /* Not by write(), which is counted. */
    if (fd >= 0) {
        dprintf(fd, "%.*s", len, line);
        close(fd);
    }
}

/* Job logs are for people and not promised; lock and shared memory hold nothing that lasts. */
static bool is_state(const char *path)
{
    size_t n = strlen(dir);

    return strncmp(path, dir, n) == 0 && strncmp(path + n, "/logs/", 6) != 0 &&
           strcmp(path + n, "/lock") != 0 && strstr(path + n, "-shm") == NULL;
}

/* True: this call is the one. */
static bool strikes(const char *call, const char *path, bool sync, bool write)
{
    long n;

    if (mode == OFF || !is_state(path) || (mode == FSYNC && !sync) ||
        ((mode == SHORT || mode == EINTR_) && !write))
        return false;
    n = atomic_fetch_add(&calls, 1) + 1;
    if (n != at)
        return false;
    say(call, path, n);
    return true;
}

static bool strikes_fd(const char *call, int fd, bool sync, bool write)
{
    char link[64], path[4096];
    ssize_t n;

    if (mode == OFF)
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    if (n <= 0)
        return false;
    path[n] = '\0';
    return strikes(call, path, sync, write);
}

static int refuse(void)
{
    errno = mode == ENOSPC_ ? ENOSPC : mode == EINTR_ ? EINTR : EIO;
    return -1;
}

ssize_t write(int fd, const void *bytes, size_t len)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    if (len < 2 || !strikes_fd("write", fd, false, true))
        return real(fd, bytes, len);
    if (mode == SHORT)
        return real(fd, bytes, 1);
    if (mode == LATE)
        (void)!real(fd, bytes, len);
    return refuse();
}

static ssize_t place(ssize_t (*real)(int, const void *, size_t, off_t), int fd, const void *bytes,
                     size_t len, off_t offset)
{
    if (len < 2 || !strikes_fd("pwrite", fd, false, true))
        return real(fd, bytes, len, offset);
    if (mode == SHORT)
        return real(fd, bytes, 1, offset);
    if (mode == LATE)
        (void)!real(fd, bytes, len, offset);
    return refuse();
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset)
{
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    return place(real, fd, bytes, len, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t offset)
{
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    return place(real, fd, bytes, len, offset);
}

int fsync(int fd)
{
    REAL(int, "fsync", int);
    if (!strikes_fd("fsync", fd, true, false))
        return real(fd);
    if (mode == LATE)
        real(fd);
    return refuse();
}

int fdatasync(int fd)
{
    REAL(int, "fdatasync", int);
    if (!strikes_fd("fdatasync", fd, true, false))
        return real(fd);
    if (mode == LATE)
        real(fd);
    return refuse();
}

int rename(const char *from, const char *to)
{
    REAL(int, "rename", const char *, const char *);
    if (!strikes("rename", to, false, false))
        return real(from, to);
    if (mode == LATE)
        real(from, to);
    return refuse();
}

int ftruncate(int fd, off_t len)
{
    REAL(int, "ftruncate", int, off_t);
    if (!strikes_fd("ftruncate", fd, false, false))
        return real(fd, len);
    if (mode == LATE)
        real(fd, len);
    return refuse();
}

int ftruncate64(int fd, off_t len)
{
    return ftruncate(fd, len);
}
