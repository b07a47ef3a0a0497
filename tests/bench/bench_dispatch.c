/*
 * How many tasks a second: the real daemons, one coordinator and two workers of one thread, and a
 * job of probes, which do nothing. Everything is durable as always: grants and results are rows that
 * are committed (WAL, synchronous FULL) before a word of them is sent. Then the same while 100,
 * 10,000 and 100,000 jobs wait in the queue, and what a task costs the coordinator: it must not
 * depend on them.
 *
 *   bench_dispatch [--json FILE] [--tasks N] [--runs N] [--only speed|growth]
 *      STEER_BIN: where the daemons are
 */
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "coordinator/journal.h"
#include "coordinator/sched.h"
#include "tests/bench/bench.h"

#define WORKERS 2
#define RUNS_MAX 20
#define WAIT_MS 120000

struct place {
    char dir[128], bin[512];
    pid_t coordinator, worker[WORKERS];
    uint64_t first_job;
};

struct measured {
    double tasks_per_s, cpu_us; /* of the coordinator, a task */
};

/* ---- the queue, written before the coordinator starts ------------------------------------------ */

static struct spec *probe_spec(int tasks)
{
    char yaml[200];
    struct spec *spec = NULL;
    struct spec_problems problems = {0};
    struct err e = {0};

    snprintf(yaml, sizeof yaml,
             "apiVersion: steerlm/v1\nkind: probe\nname: p\nnumerics: any\nprobe: {tasks: %d}\n",
             tasks);
    CHECK(spec_parse(yaml, strlen(yaml), NULL, 0, NULL, NULL, &spec, &problems, &e) == 0);
    spec_problems_free(&problems);
    return spec;
}

static void job_write(struct journal *j, uint64_t id, int tasks)
{
    struct spec *spec = probe_spec(tasks);
    cJSON *json = spec_to_json(spec), *resolved = cJSON_CreateObject();
    struct buf text = BUF_INIT;
    struct journal_submit submit = {.key = NULL, .resolved = "{}"};
    struct sched_job *job = NULL;
    struct err e = {0};

    json_canonical(json, &text);
    submit.spec = text.data;
    CHECK(sched_job_new(id, &spec, resolved, id >> 20, &job, &e) == 0);
    CHECK(journal_add_one(j, job, &submit, &e) == 0);
    sched_job_free(job);
    cJSON_Delete(json);
    cJSON_Delete(resolved);
    buf_free(&text);
}

static void queue_write(struct place *p, int tasks, int jobs)
{
    struct journal *j = NULL;
    char path[200];
    struct err e = {0};

    snprintf(path, sizeof path, "%.100s/c", p->dir);
    CHECK(file_make_dirs(path, &e) == 0);
    snprintf(path, sizeof path, "%.100s/c/coordinator.db", p->dir);
    CHECK(journal_open(path, &j, &e) == 0);
    p->first_job = (clock_wall_ms() - 86400000) << 20;
    job_write(j, p->first_job, tasks);
    for (int i = 1; i <= jobs; i++)
        job_write(j, p->first_job + (uint64_t)i, 1);
    CHECK(journal_add_commit(j, &e) == 0);
    journal_close(j);
}

/* ---- daemons ------------------------------------------------------------------------------------ */

static pid_t spawn(const struct place *p, const char *name, const char *const *argv)
{
    char path[600], log[200];
    pid_t pid;

    snprintf(path, sizeof path, "%s/%s", p->bin, argv[0]);
    snprintf(log, sizeof log, "%.100s/%s.log", p->dir, name);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);

        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
        execv(path, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    return pid;
}

static void daemons_start(struct place *p)
{
    char dir[200], file[220];
    const char *const c[] = {
        "steer-coordinator", "--dir", dir, "--http", "127.0.0.1:0", "--control",
        "tcp://127.0.0.1:0", NULL};

    snprintf(dir, sizeof dir, "%.100s/c", p->dir);
    snprintf(file, sizeof file, "%s/endpoint.json", dir);
    p->coordinator = spawn(p, "c", c);
    for (int i = 0; i < 3000 && !file_exists(file); i++)
        clock_sleep_ms(10);
    CHECK(file_exists(file));
    for (int i = 0; i < WORKERS; i++) {
        char own[200], name[8];
        const char *const w[] = {
            "steer-worker", "--coordinator-dir", dir, "--dir",   own,       "--name",
            name,           "--threads",         "1", "--roles", "compute", NULL};

        snprintf(own, sizeof own, "%.100s/w%d", p->dir, i);
        snprintf(name, sizeof name, "w%d", i);
        p->worker[i] = spawn(p, name, w);
    }
}

static void daemons_end(struct place *p)
{
    for (int i = 0; i < WORKERS; i++)
        kill(p->worker[i], SIGKILL);
    kill(p->coordinator, SIGKILL);
    for (int i = 0; i < WORKERS; i++)
        waitpid(p->worker[i], NULL, 0);
    waitpid(p->coordinator, NULL, 0);
}

static double cpu_seconds(pid_t pid)
{
    char path[64], text[1024] = "";
    unsigned long user = 0, kernel = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    f = fopen(path, "r");
    CHECK(f != NULL && fgets(text, sizeof text, f) != NULL);
    fclose(f);
    CHECK(sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                 &user, &kernel) == 2);
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

/* ---- one run ------------------------------------------------------------------------------------ */

static double number(sqlite3 *db, const char *sql, uint64_t job)
{
    sqlite3_stmt *s = NULL;
    double value = -1;

    CHECK(sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK);
    sqlite3_bind_int64(s, 1, (sqlite3_int64)job);
    if (sqlite3_step(s) == SQLITE_ROW)
        value = sqlite3_column_double(s, 0);
    sqlite3_finalize(s);
    return value;
}

static bool phase_is_over(sqlite3 *db, uint64_t job)
{
    return number(db, "SELECT count(*) FROM jobs WHERE id=?1 AND state='SUCCEEDED'", job) == 1;
}

static sqlite3 *journal_look(const struct place *p)
{
    char path[200];
    sqlite3 *db = NULL;

    snprintf(path, sizeof path, "%.100s/c/coordinator.db", p->dir);
    CHECK(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK);
    sqlite3_busy_timeout(db, 5000);
    return db;
}

#define OF_JOB " FROM attempts JOIN tasks ON tasks.id = task WHERE job=?1 AND outcome='succeeded'"

static struct measured run(const char *bin, int tasks, int queued)
{
    struct place p = {.dir = "/tmp/steer-dispatch-XXXXXX"};
    struct measured m;
    struct err e = {0};
    sqlite3 *db;
    double before, ms, done;

    CHECK(mkdtemp(p.dir) != NULL);
    snprintf(p.bin, sizeof p.bin, "%s", bin);
    queue_write(&p, tasks, queued);
    daemons_start(&p);
    before = cpu_seconds(p.coordinator);
    db = journal_look(&p);
    for (int i = 0; i < WAIT_MS / 20 && !phase_is_over(db, p.first_job); i++)
        clock_sleep_ms(20);
    m.cpu_us = (cpu_seconds(p.coordinator) - before) * 1e6 / tasks;
    daemons_end(&p);
    done = number(db, "SELECT count(*)" OF_JOB, p.first_job);
    ms = number(db, "SELECT max(finished_ms) - min(started_ms)" OF_JOB, p.first_job);
    if ((int)done != tasks) {
        fprintf(stderr, "bench_dispatch: %d of %d tasks are done; logs are in %s\n", (int)done,
                tasks, p.dir);
        exit(1);
    }
    m.tasks_per_s = done * 1e3 / ms;
    sqlite3_close(db);
    file_remove_tree(p.dir, &e);
    return m;
}

static struct bench_spread runs(const char *bin, int tasks, int queued, int n,
                                struct bench_spread *cpu)
{
    double speed[RUNS_MAX], us[RUNS_MAX];

    for (int i = 0; i < n; i++) {
        struct measured m = run(bin, tasks, queued);

        speed[i] = m.tasks_per_s;
        us[i] = m.cpu_us;
    }
    *cpu = bench_spread_of(us, n);
    return bench_spread_of(speed, n);
}

static void growth(const char *bin, int tasks, int n)
{
    static const int queued[] = {100, 10000, 100000};
    double first = 0;

    for (int i = 0; i < 3; i++) {
        struct bench_spread cpu, speed = runs(bin, tasks, queued[i], n, &cpu);
        char name[80];

        first = i == 0 ? cpu.median : first;
        snprintf(name, sizeof name, "tasks a second, %d jobs queued", queued[i]);
        bench_say(name, &speed, "tasks/s", (double)NAN, "");
        snprintf(name, sizeof name, "coordinator's time a task, %d jobs queued", queued[i]);
        bench_say(name, &cpu, "us", first / cpu.median, "of the time with 100 jobs");
    }
}

int main(int argc, char **argv)
{
    const char *bin = getenv("STEER_BIN") != NULL ? getenv("STEER_BIN") : "build/release/bin";
    int tasks = 50000, n = 5;
    struct bench_spread cpu, speed;
    const char *only = "";

    argc = bench_args(argc, argv);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
        else if (strcmp(argv[i], "--tasks") == 0)
            tasks = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--runs") == 0)
            n = atoi(argv[i + 1]);
    }
    CHECK(tasks >= 1 && tasks <= SCHED_TASKS_MAX && n >= 1 && n <= RUNS_MAX);
    unsetenv("STEER_TOKEN");
    bench_machine();
    if (strcmp(only, "growth") != 0) {
        speed = runs(bin, tasks, 0, n, &cpu);
        bench_say("no-op tasks, durable, 1 coordinator and 2 workers", &speed, "tasks/s",
                  (double)NAN, "");
        bench_say("coordinator's time a task", &cpu, "us", (double)NAN, "");
    }
    if (strcmp(only, "speed") != 0)
        growth(bin, tasks, n < 3 ? n : 3);
    return 0;
}
