/*
 * The first page of the file is ours: it says what the file is, so that a descriptor of another
 * machine's process, or one that was closed and used again, is not taken for it. What is shown over
 * a region is unmapped with it.
 */
#include "net/region.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/pages.h"

#define HEAD_BYTES ((size_t)4096)
#define MAGIC 0x31676572657473u /* "sterg1" */
#define BYTES_MAX ((uint64_t)1 << 42)

struct head {
    uint64_t magic, id, bytes;
    _Atomic uint64_t stamp;
};

struct region {
    struct region *next;
    struct region_key key;
    struct head *head;
    unsigned refs; /* guarded by lock */
    int fd;        /* -1: not shared */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct region *regions; /* of this process, made or attached */

static struct region *find(const struct region_key *key)
{
    struct region *r = regions;

    while (r != NULL && (r->key.id != key->id || r->key.bytes != key->bytes))
        r = r->next;
    return r;
}

static struct region *add(const struct region_key *key, void *mapped, int fd)
{
    struct region *r = mem_zalloc(1, sizeof *r);

    r->key = *key;
    r->head = mapped;
    r->refs = 1;
    r->fd = fd;
    r->next = regions;
    regions = r;
    return r;
}

/* NULL: the machine gives none. */
static struct head *memory_new(size_t bytes, bool shared, int *fd)
{
    struct head *head = MAP_FAILED;

    *fd = -1;
    if (!shared)
        return pages_new(HEAD_BYTES + bytes);
    *fd = memfd_create("steer-region", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd >= 0 && ftruncate(*fd, (off_t)(HEAD_BYTES + bytes)) == 0 &&
        fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        head = mmap(NULL, HEAD_BYTES + bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (head == MAP_FAILED && *fd >= 0)
        close(*fd);
    return head == MAP_FAILED ? NULL : head;
}

int region_new(size_t bytes, bool shared, struct region **out, struct err *e)
{
    struct region_key key = {.bytes = bytes, .pid = (uint32_t)getpid()};
    struct head *head;
    int fd;

    CHECK(bytes > 0 && bytes <= BYTES_MAX);
    CHECK(getrandom(&key.id, sizeof key.id, 0) == sizeof key.id);
    head = memory_new(bytes, shared, &fd);
    if (head == NULL)
        return err_sys(e, "shared memory of %zu bytes", bytes);
    key.fd = (uint32_t)fd;
    head->magic = MAGIC;
    head->id = key.id;
    head->bytes = bytes;
    pthread_mutex_lock(&lock);
    *out = add(&key, head, fd);
    pthread_mutex_unlock(&lock);
    return 0;
}

struct region_key region_key(const struct region *r)
{
    return r->key;
}

/* Maps another process's memory; NULL: it is not what the key says. */
static void *map_foreign(const struct region_key *key, int *opened)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW;
    struct head *head = MAP_FAILED;
    struct stat st;
    char path[64];
    int fd;

    snprintf(path, sizeof path, "/proc/%" PRIu32 "/fd/%" PRIu32, key->pid, key->fd);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
        st.st_size == (off_t)(HEAD_BYTES + key->bytes) && (fcntl(fd, F_GET_SEALS) & seals) == seals)
        head = mmap(NULL, HEAD_BYTES + key->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (head != MAP_FAILED &&
        (head->magic != MAGIC || head->id != key->id || head->bytes != key->bytes)) {
        munmap(head, HEAD_BYTES + key->bytes);
        head = MAP_FAILED;
    }
    if (head == MAP_FAILED)
        close(fd);
    *opened = fd;
    return head == MAP_FAILED ? NULL : head;
}

int region_attach(const struct region_key *key, struct region **out, struct err *e)
{
    void *mapped = NULL;
    int fd;

    if (key->bytes == 0 || key->bytes > BYTES_MAX)
        return err_set(e, ERR_UNREACHABLE, "a region of %" PRIu64 " bytes", key->bytes);
    pthread_mutex_lock(&lock);
    *out = find(key);
    if (*out != NULL)
        (*out)->refs++;
    else if (key->pid != (uint32_t)getpid() && (mapped = map_foreign(key, &fd)) != NULL)
        *out = add(key, mapped, fd);
    pthread_mutex_unlock(&lock);
    if (*out == NULL)
        return err_set(e, ERR_UNREACHABLE, "memory of process %u is not here", key->pid);
    return 0;
}

void region_hold(struct region *r)
{
    pthread_mutex_lock(&lock);
    r->refs++;
    pthread_mutex_unlock(&lock);
}

void region_release(struct region *r)
{
    struct region **at = &regions;
    bool last;

    if (r == NULL)
        return;
    pthread_mutex_lock(&lock);
    last = --r->refs == 0;
    while (last && *at != r)
        at = &(*at)->next;
    if (last)
        *at = r->next;
    pthread_mutex_unlock(&lock);
    if (!last)
        return;
    if (r->fd < 0) {
        pages_free(r->head, HEAD_BYTES + r->key.bytes);
    } else {
        munmap(r->head, HEAD_BYTES + r->key.bytes);
        close(r->fd);
    }
    free(r);
}

void *region_data(const struct region *r)
{
    return (char *)r->head + HEAD_BYTES;
}

size_t region_bytes(const struct region *r)
{
    return r->key.bytes;
}

void region_stamp(struct region *r, uint64_t version)
{
    atomic_store(&r->head->stamp, version);
}

uint64_t region_stamped(const struct region *r)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load(&r->head->stamp);
}

bool region_show(struct region *over, struct region *r, size_t at, size_t len)
{
    void *mapped;

    if (over == r)
        return true;
    if (over->fd < 0 || r->fd < 0 || at % HEAD_BYTES != 0 || at > r->key.bytes ||
        len > r->key.bytes - at || over->key.bytes != r->key.bytes)
        return false;
    /* The last page may be a part of one: both have the same length, so it is the same part. */
    if (len % HEAD_BYTES != 0 && at + len != r->key.bytes)
        return false;
    mapped = mmap((char *)region_data(over) + at, len, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_FIXED, r->fd, (off_t)(HEAD_BYTES + at));
    return mapped != MAP_FAILED;
}
