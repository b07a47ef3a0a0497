/*
 * SQLite does the hard part. What is ours: the settings that make "committed" mean "survives a
 * power cut", a translation of SQLite's result codes into the four things that a daemon can do
 * about them, and a statement cache small enough to scan.
 *
 * A full disk shows as SQLITE_FULL, or as SQLITE_IOERR_WRITE with errno ENOSPC; both become
 * ERR_NO_SPACE, because the cure is to wait. Every other I/O error is ERR_IO: after a failed fsync
 * nobody knows what is on the disk, so the daemon has to stop.
 */
#include "store/db.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/buf.h"

#define STATEMENTS_MAX 128
#define CHECKPOINT_PAGES 1000

struct statement {
    const char *sql; /* the literal: compared by address */
    sqlite3_stmt *stmt;
};

struct db {
    sqlite3 *handle;
    int statements;
    struct statement statement[STATEMENTS_MAX];
};

struct db_row {
    sqlite3_stmt *stmt;
};

static enum err_code code_of(sqlite3 *handle, int rc)
{
    int saved = handle != NULL ? sqlite3_system_errno(handle) : 0;

    switch (rc & 0xff) {
    case SQLITE_FULL:
        return ERR_NO_SPACE;
    case SQLITE_IOERR:
        if (rc == SQLITE_IOERR_FSYNC || rc == SQLITE_IOERR_DIR_FSYNC)
            return ERR_IO; /* whatever errno says: what was written before may be gone */
        return saved == ENOSPC || saved == EDQUOT ? ERR_NO_SPACE : ERR_IO;
    case SQLITE_CANTOPEN:
        return saved == ENOSPC || saved == EDQUOT ? ERR_NO_SPACE : ERR_SYSTEM;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return ERR_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERR_BUSY;
    case SQLITE_CONSTRAINT:
        return ERR_CONFLICT;
    case SQLITE_PERM:
    case SQLITE_READONLY:
        return ERR_DENIED;
    default:
        return ERR_SYSTEM;
    }
}

static int fail(sqlite3 *handle, int rc, const char *what, struct err *e)
{
    return err_set(e, code_of(handle, rc), "database: %s: %s", what,
                   handle != NULL ? sqlite3_errmsg(handle) : sqlite3_errstr(rc));
}

static int exec_text(sqlite3 *handle, const char *sql, struct err *e)
{
    int rc = sqlite3_exec(handle, sql, NULL, NULL, NULL);

    return rc == SQLITE_OK ? 0 : fail(handle, rc, sql, e);
}

static int check_quick(sqlite3 *handle, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(handle, "PRAGMA quick_check(1)", -1, &stmt, NULL);
    int result = 0;

    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW)
        result = fail(handle, rc, "quick_check", e);
    else if (strcmp((const char *)sqlite3_column_text(stmt, 0), "ok") != 0)
        result = err_set(e, ERR_CORRUPT, "database: quick_check: %s",
                         (const char *)sqlite3_column_text(stmt, 0));
    sqlite3_finalize(stmt);
    return result;
}

static int read_version(sqlite3 *handle, int *version, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(handle, "PRAGMA user_version", -1, &stmt, NULL);
    int result = 0;

    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        *version = sqlite3_column_int(stmt, 0);
    else
        result = fail(handle, rc, "user_version", e);
    sqlite3_finalize(stmt);
    return result;
}

static int migrate(sqlite3 *handle, const char *const *migrations, int n, struct err *e)
{
    int version = 0;
    int rc = read_version(handle, &version, e);

    if (rc != 0)
        return rc;
    if (version > n)
        return err_set(e, ERR_UNSUPPORTED,
                       "database: schema version %d is newer than this program's %d", version, n);
    for (; version < n; version++) {
        char set[64];

        sqlite3_snprintf(sizeof set, set, "PRAGMA user_version=%d", version + 1);
        if ((rc = exec_text(handle, "BEGIN IMMEDIATE", e)) != 0 ||
            (rc = exec_text(handle, migrations[version], e)) != 0 ||
            (rc = exec_text(handle, set, e)) != 0 || (rc = exec_text(handle, "COMMIT", e)) != 0) {
            sqlite3_exec(handle, "ROLLBACK", NULL, NULL, NULL);
            return err_wrap(e, "migration to version %d", version + 1);
        }
    }
    return 0;
}

/* In place of SQLite's own, which swallows what goes wrong: a checkpoint whose fsync failed must stop
 * the daemon too. What is returned here becomes the result of the COMMIT, which has happened. A full
 * disk is no harm: the log grows on, and the next commit tries again. */
static int checkpoint_after(void *self, sqlite3 *handle, const char *name, int pages)
{
    int rc = SQLITE_OK;

    (void)self;
    if (pages < CHECKPOINT_PAGES)
        return SQLITE_OK;
    rc = sqlite3_wal_checkpoint_v2(handle, name, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    return rc != SQLITE_OK && code_of(handle, rc) == ERR_IO ? rc : SQLITE_OK;
}

int db_open(const char *path, const char *const *migrations, int migrations_n, struct db **out,
            struct err *e)
{
    static const char settings[] =
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
        "PRAGMA mmap_size=0; PRAGMA trusted_schema=OFF; PRAGMA busy_timeout=2000;"
        "PRAGMA cell_size_check=ON;";
    struct db *d = mem_zalloc(1, sizeof *d);
    int rc = sqlite3_open_v2(
        path, &d->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);

    if (rc != SQLITE_OK) {
        rc = fail(d->handle, rc, "open", e);
        goto out;
    }
    sqlite3_extended_result_codes(d->handle, 1);
    if ((rc = exec_text(d->handle, settings, e)) != 0)
        goto out;
    if ((rc = check_quick(d->handle, e)) != 0)
        goto out;
    sqlite3_wal_hook(d->handle, checkpoint_after, NULL);
    rc = migrate(d->handle, migrations, migrations_n, e);
out:
    if (rc != 0) {
        err_wrap(e, "%s", path);
        db_close(d);
        return rc;
    }
    *out = d;
    return 0;
}

void db_close(struct db *d)
{
    if (d == NULL)
        return;
    for (int i = 0; i < d->statements; i++)
        sqlite3_finalize(d->statement[i].stmt);
    sqlite3_close(d->handle);
    free(d);
}

static int statement_get(struct db *d, const char *sql, sqlite3_stmt **out, struct err *e)
{
    int rc = 0;

    for (int i = 0; i < d->statements; i++) {
        if (d->statement[i].sql == sql) {
            *out = d->statement[i].stmt;
            return 0;
        }
    }
    CHECK(d->statements < STATEMENTS_MAX); /* statements are literals of our own source */
    rc = sqlite3_prepare_v3(d->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);
    if (rc != SQLITE_OK)
        return fail(d->handle, rc, sql, e);
    d->statement[d->statements++] = (struct statement){sql, *out};
    return 0;
}

static int bind_all(struct db *d, sqlite3_stmt *stmt, const char *letters, va_list args,
                    struct err *e)
{
    int rc = SQLITE_OK;

    CHECK(sqlite3_bind_parameter_count(stmt) == (int)strlen(letters));
    for (int i = 0; letters[i] != '\0' && rc == SQLITE_OK; i++) {
        if (letters[i] == 'i') {
            rc = sqlite3_bind_int64(stmt, i + 1, va_arg(args, int64_t));
        } else if (letters[i] == 'd') {
            rc = sqlite3_bind_double(stmt, i + 1, va_arg(args, double));
        } else {
            CHECK(letters[i] == 't');
            /* Not copied: it is the caller's until the statement has run, and unbound then. */
            rc = sqlite3_bind_text(stmt, i + 1, va_arg(args, const char *), -1, SQLITE_STATIC);
        }
    }
    return rc == SQLITE_OK ? 0 : fail(d->handle, rc, "bind", e);
}

static int run_rows(struct db *d, struct err *e, db_row_fn fn, void *self, const char *sql,
                    const char *letters, va_list args)
{
    sqlite3_stmt *stmt = NULL;
    int rc = statement_get(d, sql, &stmt, e);
    int step = 0;

    if (rc != 0)
        return rc;
    rc = bind_all(d, stmt, letters, args, e);
    while (rc == 0 && (step = sqlite3_step(stmt)) == SQLITE_ROW) {
        if (fn != NULL)
            rc = fn(self, &(struct db_row){stmt}, e);
    }
    if (rc == 0 && step != SQLITE_DONE)
        rc = fail(d->handle, step, sql, e);
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return rc;
}

int db_run(struct db *d, struct err *e, const char *sql, const char *letters, ...)
{
    va_list args;
    int rc = 0;

    va_start(args, letters);
    rc = run_rows(d, e, NULL, NULL, sql, letters, args);
    va_end(args);
    return rc;
}

int db_query(struct db *d, struct err *e, db_row_fn fn, void *self, const char *sql,
             const char *letters, ...)
{
    va_list args;
    int rc = 0;

    va_start(args, letters);
    rc = run_rows(d, e, fn, self, sql, letters, args);
    va_end(args);
    return rc;
}

int db_begin(struct db *d, struct err *e)
{
    return db_run(d, e, "BEGIN IMMEDIATE", "");
}

int db_commit(struct db *d, struct err *e)
{
    return db_run(d, e, "COMMIT", "");
}

void db_rollback(struct db *d)
{
    if (db_in_transaction(d))
        sqlite3_exec(d->handle, "ROLLBACK", NULL, NULL, NULL);
}

bool db_in_transaction(const struct db *d)
{
    return sqlite3_get_autocommit(d->handle) == 0;
}

int64_t db_changes(const struct db *d)
{
    return sqlite3_changes64(d->handle);
}

int64_t db_int(const struct db_row *row, int column)
{
    return sqlite3_column_int64(row->stmt, column);
}

double db_real(const struct db_row *row, int column)
{
    return sqlite3_column_double(row->stmt, column);
}

const char *db_text(const struct db_row *row, int column)
{
    const unsigned char *text = sqlite3_column_text(row->stmt, column);

    return text != NULL ? (const char *)text : "";
}

bool db_is_null(const struct db_row *row, int column)
{
    return sqlite3_column_type(row->stmt, column) == SQLITE_NULL;
}

int db_lock(const char *path, int *fd, struct err *e)
{
    char text[32] = "";
    int rc = 0;
    int f = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

    if (f < 0)
        return err_sys(e, "%s: open", path);
    if (flock(f, LOCK_EX | LOCK_NB) != 0) {
        ssize_t n = errno == EWOULDBLOCK ? pread(f, text, sizeof text - 1, 0) : -1;

        if (n < 0) {
            rc = err_sys(e, "%s: flock", path);
        } else {
            text[strcspn(text, "\n")] = '\0';
            rc = err_set(e, ERR_CONFLICT, "%s: this state directory is in use by process %s", path,
                         text);
        }
        close(f);
        return rc;
    }
    sqlite3_snprintf(sizeof text, text, "%d\n", (int)getpid());
    if (ftruncate(f, 0) != 0 || pwrite(f, text, strlen(text), 0) < 0) {
        rc = err_sys(e, "%s: write", path);
        close(f);
        return rc;
    }
    *fd = f;
    return 0;
}

void db_unlock(int fd)
{
    if (fd >= 0)
        close(fd);
}
