/*
 * db: one SQLite database, one connection, one thread. WAL, synchronous=FULL, foreign keys, no
 * memory mapping, untrusted schema. A commit that returned 0 is on the disk. Statements are
 * prepared once and kept, keyed by the address of their literal text.
 *
 * Parameters and columns by a letter each: i int64_t, d double, t const char * (NULL is NULL).
 * Errors: ERR_NO_SPACE (the disk is full: roll back, wait, try again), ERR_IO (the daemon must
 * stop), ERR_CORRUPT, ERR_BUSY, ERR_CONFLICT (a constraint), ERR_SYSTEM.
 */
#ifndef STORE_DB_H
#define STORE_DB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct db;
struct db_row; /* one row of a query, valid inside the callback */

/* Opens or makes the file, checks it (quick_check), and brings its schema up: migrations[i] leads
 * from version i to i + 1. A database of a newer version is refused. */
int db_open(const char *path, const char *const *migrations, int migrations_n, struct db **out,
            struct err *e);
void db_close(struct db *d);

int db_begin(struct db *d, struct err *e); /* IMMEDIATE */
int db_commit(struct db *d, struct err *e);
void db_rollback(struct db *d); /* harmless outside a transaction */
bool db_in_transaction(const struct db *d);

/* sql is a literal. letters names the types of the arguments that follow, bound to ?1, ?2, ... */
int db_run(struct db *d, struct err *e, const char *sql, const char *letters, ...);
typedef int (*db_row_fn)(void *self, const struct db_row *row,
                         struct err *e); /* non-zero stops the query and is its result */
int db_query(struct db *d, struct err *e, db_row_fn fn, void *self, const char *sql,
             const char *letters, ...);
int64_t db_changes(const struct db *d);

int64_t db_int(const struct db_row *row, int column);
double db_real(const struct db_row *row, int column);
const char *db_text(const struct db_row *row,
                    int column); /* "" for NULL; valid until the callback returns */
bool db_is_null(const struct db_row *row, int column);

/* Lock of a state directory: flock on `path`, kept until the process ends or db_unlock().
 * ERR_CONFLICT names the holder's pid. */
int db_lock(const char *path, int *fd, struct err *e);
void db_unlock(int fd);

#endif
