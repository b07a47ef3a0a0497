#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "store/db.h"

static const char *const one[] = {"CREATE TABLE a(k INTEGER PRIMARY KEY, t TEXT, r REAL) STRICT;"};
static const char *const two[] = {"CREATE TABLE a(k INTEGER PRIMARY KEY, t TEXT, r REAL) STRICT;",
                                  "CREATE TABLE b(k INTEGER REFERENCES a(k)) STRICT;"};

struct place {
    char dir[64], path[96];
};

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof *p);

    snprintf(p->dir, sizeof p->dir, "/tmp/steer-db-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    snprintf(p->path, sizeof p->path, "%s/db", p->dir);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    struct err e = {0};

    file_remove_tree(p->dir, &e);
    free(p);
    return 0;
}

static struct db *open_ok(const struct place *p, const char *const *migrations, int n)
{
    struct db *d = NULL;
    struct err e = {0};

    if (db_open(p->path, migrations, n, &d, &e) != 0)
        fail_msg("%s", e.msg);
    return d;
}

struct got {
    int rows;
    int64_t k;
    double r;
    char t[32];
    bool null;
};

static int take(void *self, const struct db_row *row, struct err *e)
{
    struct got *g = self;

    (void)e;
    g->rows++;
    g->k = db_int(row, 0);
    snprintf(g->t, sizeof g->t, "%s", db_text(row, 1));
    g->r = db_real(row, 2);
    g->null = db_is_null(row, 1);
    return 0;
}

static struct got read_all(struct db *d)
{
    struct got g = {0};
    struct err e = {0};

    assert_int_equal(db_query(d, &e, take, &g, "SELECT k, t, r FROM a ORDER BY k", ""), 0);
    return g;
}

static void test_rows_survive_a_reopen_and_a_migration(void **state)
{
    struct db *d = open_ok(*state, one, 1);
    struct err e = {0};
    struct got g;

    assert_int_equal(db_begin(d, &e), 0);
    assert_true(db_in_transaction(d));
    assert_int_equal(
        db_run(d, &e, "INSERT INTO a VALUES(?1, ?2, ?3)", "itd", (int64_t)7, "x'y", 0.5), 0);
    assert_int_equal(
        db_run(d, &e, "INSERT INTO a VALUES(?1, ?2, ?3)", "itd", INT64_MAX, NULL, -1.0), 0);
    assert_int_equal(db_commit(d, &e), 0);
    db_close(d);
    d = open_ok(*state, two, 2);
    g = read_all(d);
    assert_int_equal(g.rows, 2);
    assert_true(g.k == INT64_MAX);
    assert_true(g.null);
    assert_string_equal(g.t, "");
    assert_true(g.r == -1.0);
    db_close(d);
}

static void test_rollback_leaves_nothing(void **state)
{
    struct db *d = open_ok(*state, one, 1);
    struct err e = {0};

    assert_int_equal(db_begin(d, &e), 0);
    assert_int_equal(db_run(d, &e, "INSERT INTO a VALUES(?1, 'a', 0.0)", "i", (int64_t)1), 0);
    db_rollback(d);
    assert_false(db_in_transaction(d));
    db_rollback(d); /* harmless */
    assert_int_equal(read_all(d).rows, 0);
    db_close(d);
}

static void test_an_open_transaction_dies_with_the_process(void **state)
{
    const struct place *p = *state;
    pid_t child = fork();
    int status = 0;
    struct db *d = NULL;

    if (child == 0) {
        struct err e = {0};

        d = open_ok(p, one, 1);
        db_run(d, &e, "INSERT INTO a VALUES(1, 'kept', 0.0)", "");
        db_begin(d, &e);
        db_run(d, &e, "INSERT INTO a VALUES(2, 'lost', 0.0)", "");
        kill(getpid(), SIGKILL);
    }
    waitpid(child, &status, 0);
    d = open_ok(p, one, 1);
    assert_int_equal(read_all(d).rows, 1);
    assert_string_equal(read_all(d).t, "kept");
    db_close(d);
}

static void test_constraints_are_conflicts(void **state)
{
    struct db *d = open_ok(*state, two, 2);
    struct err e = {0};

    assert_int_equal(db_run(d, &e, "INSERT INTO a VALUES(1, 'a', 0.0)", ""), 0);
    assert_int_equal(db_run(d, &e, "INSERT INTO a VALUES(1, 'b', 0.0)", ""), ERR_CONFLICT);
    assert_int_equal(db_run(d, &e, "INSERT INTO b VALUES(99)", ""),
                     ERR_CONFLICT); /* foreign keys are on */
    assert_int_equal(db_run(d, &e, "INSERT INTO b VALUES(1)", ""), 0);
    db_close(d);
}

static void test_a_full_disk_is_no_space_and_heals(void **state)
{
    struct db *d = open_ok(*state, one, 1);
    struct err e = {0};
    char big[4000];
    int rc = 0;

    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    assert_int_equal(db_query(d, &e, NULL, NULL, "PRAGMA max_page_count=8", ""), 0);
    for (int64_t i = 0; i < 40 && rc == 0; i++)
        rc = db_run(d, &e, "INSERT INTO a VALUES(?1, ?2, 0.0)", "it", i, big);
    assert_int_equal(rc, ERR_NO_SPACE);
    db_rollback(d);
    assert_int_equal(db_query(d, &e, NULL, NULL, "PRAGMA max_page_count=1000", ""), 0);
    assert_int_equal(db_run(d, &e, "INSERT INTO a VALUES(?1, ?2, 0.0)", "it", (int64_t)100, big),
                     0);
    db_close(d);
}

static void test_a_newer_schema_is_refused(void **state)
{
    struct db *d = open_ok(*state, two, 2);
    struct err e = {0};

    db_close(d);
    d = NULL;
    assert_int_equal(db_open(((struct place *)*state)->path, one, 1, &d, &e), ERR_UNSUPPORTED);
    assert_null(d);
    assert_non_null(strstr(e.msg, "version 2"));
}

static void test_a_failing_migration_changes_nothing(void **state)
{
    static const char *const bad[] = {
        "CREATE TABLE a(k INTEGER PRIMARY KEY, t TEXT, r REAL) STRICT;",
        "CREATE TABLE c(k INTEGER) STRICT; CREATE TABLE nonsense nonsense;"};
    struct db *d = NULL;
    struct err e = {0};

    assert_int_not_equal(db_open(((struct place *)*state)->path, bad, 2, &d, &e), 0);
    d = open_ok(*state, two, 2); /* goes on from version 1 */
    db_close(d);
}

static void test_damage_is_found_at_the_start(void **state)
{
    const struct place *p = *state;
    static const struct {
        const char *name;
        long at;
        enum err_code code;
    } cases[] = {{"header", 0, ERR_CORRUPT}, {"a page", 4096, ERR_CORRUPT}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err e = {0};
        struct db *d = NULL;
        FILE *f = NULL;
        char text[300];

        unlink(p->path);
        d = open_ok(p, one, 1);
        memset(text, 'y', sizeof text - 1);
        text[sizeof text - 1] = '\0';
        for (int64_t k = 0; k < 200; k++)
            assert_int_equal(db_run(d, &e, "INSERT INTO a VALUES(?1, ?2, 1.0)", "it", k, text), 0);
        db_close(d);
        f = fopen(p->path, "r+b");
        assert_non_null(f);
        fseek(f, cases[i].at, SEEK_SET);
        for (int k = 0; k < 3000; k++)
            fputc(0xa5, f);
        fclose(f);
        d = NULL;
        if (db_open(p->path, one, 1, &d, &e) != (int)cases[i].code)
            fail_msg("%s: %s", cases[i].name, e.msg);
        assert_null(d);
    }
}

static void test_the_lock_is_held_once(void **state)
{
    const struct place *p = *state;
    struct err e = {0};
    char lock[112];
    int a = -1, b = -1;

    snprintf(lock, sizeof lock, "%s/lock", p->dir);
    assert_int_equal(db_lock(lock, &a, &e), 0);
    assert_int_equal(db_lock(lock, &b, &e), ERR_CONFLICT);
    snprintf(lock, sizeof lock, "%d", (int)getpid());
    assert_non_null(strstr(e.msg, lock)); /* names the holder */
    db_unlock(a);
    snprintf(lock, sizeof lock, "%s/lock", p->dir);
    assert_int_equal(db_lock(lock, &b, &e), 0);
    db_unlock(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rows_survive_a_reopen_and_a_migration, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_rollback_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_open_transaction_dies_with_the_process, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_constraints_are_conflicts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_full_disk_is_no_space_and_heals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_newer_schema_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failing_migration_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_is_found_at_the_start, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_lock_is_held_once, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
