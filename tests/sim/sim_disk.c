#include "sim_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <sqlite3.h>

#include "artifact/artifact.h"
#include "base/err.h"
#include "base/file.h"
#include "sim_check.h"
#include "sim_core.h"
#include "sim_heap.h"
#include "sim_net.h"
#include "sim_world.h"
#include "store/blob.h"
#include "store/db.h"

#define BLOBS 1024
#define FILES_MAX 256
#define OPEN_MAX_SIM 1024 /* those of killed processes are not closed */
#define FD_FILE 500000 /* descriptors of simulated files begin here */
#define RETRY_US 200000

struct blob {
    struct blob *next;
    struct digest digest;
    bool damaged;
    size_t len;
    char data[];
};

struct file {
    char path[160];
    struct buf bytes;
};

struct sim_disk_faults sim_disk_faults;
struct sim_disk_counts sim_disk_counts;

static struct {
    struct blob *blob[BLOBS];
    struct file file[FILES_MAX];
    int files;
    int open[OPEN_MAX_SIM]; /* file of a descriptor, -1: only a name */
    int opened;
    struct db *db;
    bool failed; /* a commit failed otherwise than for space: nobody knows what is on the disk */
} disk;

/* ---- artefacts ------------------------------------------------------------------------------- */

static struct blob **blob_at(const char *digest)
{
    uint32_t h = 0;
    struct blob **at;

    for (int i = 0; i < 8; i++)
        h = h * 31 + (uint8_t)digest[i];
    at = &disk.blob[h % BLOBS];
    while (*at != NULL && strcmp((*at)->digest.hex, digest) != 0)
        at = &(*at)->next;
    return at;
}

void sim_disk_put(const void *bytes, size_t len, struct digest *out)
{
    struct blob **at;

    digest_bytes(bytes, len, out);
    at = blob_at(out->hex);
    if (*at == NULL) {
        *at = mem_alloc(sizeof **at + len + 1);
        (*at)->next = NULL;
        (*at)->digest = *out;
        (*at)->len = len;
        memcpy((*at)->data, bytes, len);
        (*at)->data[len] = '\0';
        (*at)->damaged = false;
    } /* else: it is not sent again, and what is damaged stays so */
}

const char *sim_disk_get(const char *digest, size_t *len)
{
    const struct blob *b = *blob_at(digest);

    if (b == NULL)
        return NULL;
    *len = b->len;
    return b->data;
}

static bool is_whole(const struct blob *b)
{
    struct digest d;

    if (!b->damaged)
        return true;
    digest_bytes(b->data, b->len, &d);
    return strcmp(d.hex, b->digest.hex) == 0;
}

/* Torn on its way to the platter: the second half is what was there before. */
bool sim_disk_damage(const char *digest)
{
    struct blob *b = *blob_at(digest);

    if (b == NULL || b->damaged)
        return false;
    memset(b->data + b->len / 2, 0xa5, b->len - b->len / 2);
    b->damaged = true;
    sim_disk_counts.damaged++;
    sim_trace("damaged %.12s", digest);
    return true;
}

/* The coordinator's store. Its own durability is tested on real files elsewhere. */
WRAP(int, blob_open, const char *dir, struct blob_store **out, struct err *e)
{
    (void)dir;
    (void)e;
    *out = (struct blob_store *)&disk;
    return 0;
}

WRAP(void, blob_sweep, struct blob_store *s)
{
    (void)s;
}

WRAP(void, blob_close, struct blob_store *s)
{
    (void)s;
}

WRAP(bool, blob_has, const struct blob_store *s, const char *digest)
{
    (void)s;
    return *blob_at(digest) != NULL;
}

WRAP(int, blob_put_bytes, struct blob_store *s, const void *bytes, size_t len, struct digest *out,
     struct err *e)
{
    (void)s;
    if (sim_disk_faults.full)
        return err_set(e, ERR_NO_SPACE, "the disk is full");
    sim_disk_put(bytes, len, out);
    return 0;
}

WRAP(int, blob_verify, const struct blob_store *s, const char *digest, struct err *e)
{
    const struct blob *b = *blob_at(digest);

    (void)s;
    if (b == NULL)
        return err_set(e, ERR_NOT_FOUND, "no artefact %.12s", digest);
    return is_whole(b) ? 0 : err_set(e, ERR_CORRUPT, "artefact %.12s is damaged", digest);
}

WRAP(int, blob_read, const struct blob_store *s, const char *digest, size_t max, struct buf *out,
     struct err *e)
{
    const struct blob *b = *blob_at(digest);
    int rc = __wrap_blob_verify(s, digest, e);

    if (rc == 0 && b->len > max)
        rc = err_set(e, ERR_LIMIT, "too long");
    if (rc == 0)
        buf_add(out, b->data, b->len);
    return rc;
}

/* ---- the worker's client --------------------------------------------------------------------- */

WRAP(int, artifact_client_new, const char *url, struct blob_store *cache, const char *checkout,
     struct artifact_client **out, struct err *e)
{
    (void)url;
    (void)cache;
    (void)checkout;
    (void)e;
    *out = (struct artifact_client *)&disk;
    return 0;
}

WRAP(void, artifact_client_free, struct artifact_client *c)
{
    (void)c;
}

WRAP(void, artifact_client_set_url, struct artifact_client *c, const char *url)
{
    (void)c;
    (void)url;
}

/* Waits until the coordinator's machine answers, as curl does in its retries. */
static int transfer(uint64_t deadline_ms, struct err *e)
{
    uint64_t until = sim_now_us() + deadline_ms * 1000;
    int node = sim_self()->node;

    sim_sleep_us(500 + sim_draw(3000));
    while (!sim_world_coordinator_is_up() || sim_net_is_cut(node, 0) || sim_net_is_cut(0, node)) {
        if (sim_now_us() >= until)
            return err_set(e, ERR_UNREACHABLE, "the coordinator does not answer");
        sim_sleep_us(RETRY_US + sim_draw(RETRY_US));
    }
    return 0;
}

WRAP(int, artifact_fetch, struct artifact_client *c, const char *digest, uint64_t deadline_ms,
     char *path, size_t cap, struct err *e)
{
    const struct blob *b;
    int rc = transfer(deadline_ms, e);

    (void)c;
    if (rc != 0)
        return rc;
    b = *blob_at(digest);
    if (b == NULL)
        return err_set(e, ERR_NOT_FOUND, "artefact %.12s is not in the store", digest);
    if (!is_whole(b)) {
        sim_disk_counts.found_damaged++;
        return err_set(e, ERR_CORRUPT, "artefact %s does not agree with its digest", digest);
    }
    snprintf(path, cap, "/blob/%s", digest);
    return 0;
}

WRAP(void, artifact_forget, struct artifact_client *c, const char *digest)
{
    (void)c;
    (void)digest; /* workers here keep no copies */
}

static struct file *file_at(const char *path, bool make)
{
    for (int i = 0; i < disk.files; i++)
        if (strcmp(disk.file[i].path, path) == 0)
            return &disk.file[i];
    if (!make)
        return NULL;
    for (int i = 0; i < disk.files; i++) /* a place that unlink() has freed */
        if (disk.file[i].path[0] == '\0') {
            snprintf(disk.file[i].path, sizeof disk.file[i].path, "%s", path);
            return &disk.file[i];
        }
    CHECK(disk.files < FILES_MAX && strlen(path) < sizeof disk.file[0].path);
    disk.file[disk.files] = (struct file){.bytes = BUF_INIT};
    snprintf(disk.file[disk.files].path, sizeof disk.file[0].path, "%s", path);
    return &disk.file[disk.files++];
}

static int publish(const void *data, size_t len, uint64_t deadline_ms, struct digest *out,
                   struct err *e)
{
    struct buf bytes = BUF_INIT;
    int rc;

    buf_add(&bytes, data, len);
    rc = transfer(deadline_ms, e);
    if (rc == 0 && sim_disk_faults.full) {
        sim_disk_counts.unpublished++;
        rc = err_set(e, ERR_NO_SPACE, "the coordinator's disk is full");
    }
    if (rc == 0) {
        sim_disk_put(bytes.data, bytes.len, out);
        sim_disk_counts.published++;
    }
    buf_free(&bytes);
    return rc;
}

WRAP(int, artifact_publish, struct artifact_client *c, const char *path, uint64_t deadline_ms,
     struct digest *out, void (*sent)(void *self, uint64_t bytes), void *self, struct err *e)
{
    const struct file *f = file_at(path, false);

    (void)c;
    (void)sent;
    (void)self;
    CHECK(f != NULL);
    return publish(f->bytes.data, f->bytes.len, deadline_ms, out, e);
}

WRAP(int, artifact_publish_bytes, struct artifact_client *c, const void *bytes, size_t len,
     uint64_t deadline_ms, struct digest *out, struct err *e)
{
    (void)c;
    return publish(bytes, len, deadline_ms, out, e);
}

/* ---- files ----------------------------------------------------------------------------------- */

WRAP(int, file_read, const char *path, size_t max, struct buf *out, struct err *e)
{
    const struct file *f = file_at(path, false);
    size_t len = 0;
    const char *bytes = strncmp(path, "/blob/", 6) == 0 ? sim_disk_get(path + 6, &len)
                        : f != NULL                     ? f->bytes.data
                                                        : NULL;

    if (f != NULL)
        len = f->bytes.len;
    if (bytes == NULL)
        return err_set(e, ERR_NOT_FOUND, "open %s: no such file", path);
    if (len > max)
        return err_set(e, ERR_LIMIT, "%s is longer than %zu bytes", path, max);
    buf_add(out, bytes, len);
    return 0;
}

WRAP(int, file_write_atomic, const char *path, const void *bytes, size_t len, struct err *e)
{
    struct file *f = file_at(path, true);

    (void)e;
    buf_clear(&f->bytes);
    buf_add(&f->bytes, bytes, len);
    return 0;
}

WRAP(int, file_make_dirs, const char *path, struct err *e)
{
    (void)path;
    (void)e;
    return 0;
}

WRAP(int, file_remove_tree, const char *path, struct err *e)
{
    (void)path;
    (void)e;
    return 0;
}

WRAP(bool, file_exists, const char *path)
{
    return file_at(path, false) != NULL;
}

WRAP(bool, file_is_dir, const char *path)
{
    (void)path;
    return true;
}

WRAP(int, file_size, const char *path, uint64_t *size, struct err *e)
{
    const struct file *f = file_at(path, false);

    if (f == NULL)
        return err_set(e, ERR_NOT_FOUND, "%s", path);
    *size = f->bytes.len;
    return 0;
}

WRAP(int, file_write_all, int fd, const void *bytes, size_t len, struct err *e)
{
    (void)e;
    CHECK(fd >= FD_FILE && fd < FD_FILE + disk.opened);
    if (disk.open[fd - FD_FILE] >= 0)
        buf_add(&disk.file[disk.open[fd - FD_FILE]].bytes, bytes, len);
    return 0;
}

/* Of worker/ and coordinator/: lock files, scratch files, logs. Logs are not kept. */
WRAP(int, open, const char *path, int flags, ...)
{
    int file = -1;

    if ((flags & O_TRUNC) != 0) {
        struct file *f = file_at(path, true);
        buf_clear(&f->bytes);
        file = (int)(f - disk.file);
    }
    for (int i = 0; i < disk.opened; i++)
        if (disk.open[i] == -2) {
            disk.open[i] = file;
            return FD_FILE + i;
        }
    CHECK(disk.opened < OPEN_MAX_SIM);
    disk.open[disk.opened++] = file;
    return FD_FILE + disk.opened - 1;
}

int __real_close(int fd);
WRAP(int, close, int fd)
{
    if (fd < FD_FILE)
        return __real_close(fd);
    if (fd < FD_FILE + disk.opened)
        disk.open[fd - FD_FILE] = -2;
    return 0;
}

WRAP(int, flock, int fd, int operation)
{
    (void)fd;
    (void)operation;
    return 0;
}

WRAP(void, blob_path, const struct blob_store *s, const char *digest, char *path, size_t cap)
{
    (void)s;
    snprintf(path, cap, "/blob/%s", digest);
}

WRAP(int, unlink, const char *path)
{
    struct file *f = file_at(path, false);

    if (strncmp(path, "/blob/", 6) == 0) {
        struct blob **at = blob_at(path + 6), *b = *at;

        if (b != NULL) {
            *at = b->next;
            free(b);
        }
        return 0;
    }

    if (f != NULL)
        f->path[0] = '\0';
    return 0;
}

WRAP(ssize_t, getrandom, void *bytes, size_t len, unsigned flags)
{
    (void)flags;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)sim_draw(256);
    return (ssize_t)len;
}

WRAP(void, randombytes_buf, void *const bytes, const size_t len)
{
    __wrap_getrandom(bytes, len, 0);
}

WRAP(int, sysinfo, struct sysinfo *out)
{
    memset(out, 0, sizeof *out);
    out->totalram = 8ul << 30;
    out->mem_unit = 1;
    return 0;
}

/* ---- the database ---------------------------------------------------------------------------- */

/* One for all runs: a run begins with empty tables. SQLite's memory is not a simulated process's. */
static sqlite3 *handle; /* of disk.db */

static void *kept_malloc(int bytes)
{
    bool of_run = sim_heap_of_run(false);
    void *p = malloc((size_t)bytes);

    sim_heap_of_run(of_run);
    return p;
}

static void *kept_realloc(void *old, int bytes)
{
    bool of_run = sim_heap_of_run(false);
    void *p = realloc(old, (size_t)bytes);

    sim_heap_of_run(of_run);
    return p;
}

static int kept_size(void *p)
{
    return (int)malloc_usable_size(p);
}

static int kept_round(int bytes)
{
    return (bytes + 15) & ~15;
}

static int kept_begin(void *self)
{
    (void)self;
    return SQLITE_OK;
}

static void kept_end(void *self)
{
    (void)self;
}

int __real_sqlite3_open_v2(const char *path, sqlite3 **out, int flags, const char *vfs);
WRAP(int, sqlite3_open_v2, const char *path, sqlite3 **out, int flags, const char *vfs)
{
    static const sqlite3_mem_methods kept = {kept_malloc, free,       kept_realloc, kept_size,
                                             kept_round,  kept_begin, kept_end,     NULL};
    int rc;

    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    sqlite3_config(SQLITE_CONFIG_SINGLETHREAD);
    CHECK(sqlite3_config(SQLITE_CONFIG_MALLOC, &kept) == SQLITE_OK);
    rc = __real_sqlite3_open_v2(path, out, flags, vfs);
    handle = *out;
    return rc;
}

/* Whoever died inside a query left it open. Children come before those whom they refer to. */
static void tables_empty(void)
{
    static const char *const tables[] = {"artifacts",   "reusable", "series",   "checkpoints",
                                         "idempotency", "events",   "attempts", "tasks",
                                         "stages",      "jobs",     "meta",     "sqlite_sequence"};
    static sqlite3_stmt *statement[sizeof tables / sizeof tables[0]];

    for (sqlite3_stmt *s = NULL; (s = sqlite3_next_stmt(handle, s)) != NULL;)
        if (sqlite3_stmt_busy(s)) {
            sqlite3_reset(s);
            sqlite3_clear_bindings(s);
        }
    db_rollback(disk.db);
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        char sql[64];

        snprintf(sql, sizeof sql, "DELETE FROM %s", tables[i]);
        if (statement[i] == NULL)
            CHECK(sqlite3_prepare_v3(handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement[i],
                                     NULL) == SQLITE_OK);
        CHECK(sqlite3_step(statement[i]) == SQLITE_DONE);
        sqlite3_reset(statement[i]);
    }
}

int __real_db_open(const char *path, const char *const *migrations, int n, struct db **out,
                   struct err *e);
int __real_db_commit(struct db *d, struct err *e);

WRAP(int, db_open, const char *path, const char *const *migrations, int n, struct db **out,
     struct err *e)
{
    bool of_run = sim_heap_of_run(false);
    int rc = 0;

    (void)path;
    if (disk.db == NULL)
        rc = __real_db_open(":memory:", migrations, n, &disk.db, e);
    else
        db_rollback(disk.db); /* what the process that died had not committed */
    *out = disk.db;
    disk.failed = false; /* another process, which reads what is there */
    sim_heap_of_run(of_run);
    return rc;
}

WRAP(void, db_close, struct db *d)
{
    (void)d;
}

WRAP(int, db_lock, const char *path, int *fd, struct err *e)
{
    (void)path;
    (void)e;
    *fd = -1;
    return 0;
}

WRAP(int, db_commit, struct db *d, struct err *e)
{
    const struct sim_disk_faults *f = &sim_disk_faults;
    int rc;

    if (disk.failed)
        sim_violation("the coordinator commits after a commit has failed");
    if (f->full) {
        sim_disk_counts.full++;
        return err_set(e, ERR_NO_SPACE, "database: the disk is full");
    }
    if (sim_chance(f->crash_before)) {
        sim_disk_counts.crash_before++;
        sim_trace("crash before a commit");
        sim_world_coordinator_crash();
    }
    if (sim_chance(f->io_error)) {
        sim_disk_counts.io_errors++;
        sim_trace("commit fails");
        disk.failed = true;
        return err_set(e, ERR_IO, "database: disk I/O error");
    }
    rc = __real_db_commit(d, e);
    if (rc != 0)
        return rc;
    sim_disk_counts.commits++;
    sim_check_committed();
    if (sim_chance(f->crash_after)) {
        sim_disk_counts.crash_after++;
        sim_trace("crash after a commit");
        sim_world_coordinator_crash();
    }
    return 0;
}

void sim_disk_reset(void)
{
    for (int i = 0; i < BLOBS; i++) {
        while (disk.blob[i] != NULL) {
            struct blob *b = disk.blob[i];
            disk.blob[i] = b->next;
            free(b);
        }
    }
    for (int i = 0; i < disk.files; i++)
        buf_free(&disk.file[i].bytes);
    if (disk.db != NULL)
        tables_empty();
    memset(disk.blob, 0, sizeof disk.blob);
    for (int i = 0; i < disk.files; i++)
        disk.file[i].path[0] = '\0';
    disk.files = disk.opened = 0;
    disk.failed = false;
    memset(&sim_disk_faults, 0, sizeof sim_disk_faults);
    memset(&sim_disk_counts, 0, sizeof sim_disk_counts);
}
