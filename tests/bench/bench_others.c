/*
 * bench_others: runs a command and keeps count of the processor time that everybody else uses meanwhile.
 * usage: bench_others FILE COMMAND [ARGUMENT...]
 *
 * FILE holds one line, written again twice a second: seconds of the clock, seconds of processors that others used since the start. So
 * whoever reads it before and after a piece of work has the share of others during it. Exit code: the command's.
 *
 * Others are all processes of /proc but this one and its descendants, kernel threads too, and what a hypervisor gave to other machines.
 * What /proc/stat says of system and idle time is not used: where the timer tick accounts for them, it samples, and some virtual
 * machines charge every tick of an idle processor to the system. The times of a process are scaled to what the scheduler ran it, to
 * the nanosecond, on every kernel. Descendants stay ours when their parent ends, because orphans become children of this process.
 *
 * A process that ends hands its time to its parent, so the sum over (own time and children's) loses nothing, unless nobody waits for it:
 * then the sum falls. The time of processes that were there before and after never does. The larger of the two growths counts.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROCESSES_MAX 32768
#define PERIOD_MS 500

struct process {
    pid_t pid, parent;
    uint64_t start, own,
        all;  /* ticks: since boot; of itself; and of the children that it waited for */
    int mark; /* of ours_mark() */
};
struct scan {
    size_t n;
    uint64_t stolen;
    struct process p[PROCESSES_MAX];
};

static volatile sig_atomic_t stopping;
static void on_signal(int sig)
{
    stopping = sig;
}

static size_t file_text(const char *path, char *out, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, cap - 1);

    if (fd >= 0)
        close(fd);
    out[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

/* "PID (NAME) S PARENT ...": proc(5); a name may hold anything, so fields are counted from its last bracket. */
static bool process_read(pid_t pid, struct process *out)
{
    char path[64], text[1024];
    uint64_t utime, stime, start;
    int64_t cutime, cstime;
    const char *at;
    int parent;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (file_text(path, text, sizeof text) == 0 || (at = strrchr(text, ')')) == NULL ||
        sscanf(at + 1,
               " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64 " %" SCNd64
               " %" SCNd64 " %*d %*d %*d %*d %" SCNu64,
               &parent, &utime, &stime, &cutime, &cstime, &start) != 6)
        return false;
    *out = (struct process){.pid = pid, .parent = parent, .start = start, .own = utime + stime};
    out->all = out->own + (uint64_t)cutime + (uint64_t)cstime;
    return true;
}

static int by_pid(const void *a, const void *b)
{
    pid_t x = ((const struct process *)a)->pid, y = ((const struct process *)b)->pid;

    return x < y ? -1 : x > y;
}

static struct process *find(struct scan *s, pid_t pid)
{
    const struct process key = {.pid = pid};

    return bsearch(&key, s->p, s->n, sizeof key, by_pid);
}

/* Ours: this process, and whose parent is. 1 ours, 2 others. */
static int ours_mark(struct scan *s, struct process *p, int depth)
{
    if (p->mark == 0) {
        struct process *parent = p->pid == getpid() || depth > 100 ? NULL : find(s, p->parent);
        p->mark =
            p->pid == getpid() || (parent != NULL && ours_mark(s, parent, depth + 1) == 1) ? 1 : 2;
    }
    return p->mark;
}

static void scan(struct scan *s)
{
    DIR *dir = opendir("/proc");
    struct dirent *d;
    char text[256];

    s->n = 0;
    s->stolen = 0;
    while (dir != NULL && (d = readdir(dir)) != NULL && s->n < PROCESSES_MAX) {
        pid_t pid = (pid_t)strtol(d->d_name, NULL, 10);
        if (pid > 0 && process_read(pid, &s->p[s->n]))
            s->n++;
    }
    if (dir != NULL)
        closedir(dir);
    qsort(s->p, s->n, sizeof s->p[0], by_pid);
    for (size_t i = 0; i < s->n; i++)
        ours_mark(s, &s->p[i], 0);
    if (file_text("/proc/stat", text, sizeof text) > 0)
        sscanf(text, "cpu %*u %*u %*u %*u %*u %*u %*u %" SCNu64, &s->stolen);
}

/* Ticks that others used between two looks. */
static uint64_t others_between(struct scan *before, const struct scan *after)
{
    int64_t sum = 0, stayed = 0;

    for (size_t i = 0; i < before->n; i++)
        sum -= before->p[i].mark == 2 ? (int64_t)before->p[i].all : 0;
    for (size_t i = 0; i < after->n; i++) {
        const struct process *p = &after->p[i], *was = find(before, p->pid);
        if (p->mark != 2)
            continue;
        sum += (int64_t)p->all;
        if (was != NULL && was->start == p->start && p->own > was->own)
            stayed += (int64_t)(p->own - was->own);
    }
    sum = sum > stayed ? sum : stayed;
    return (uint64_t)sum + (after->stolen > before->stolen ? after->stolen - before->stolen : 0);
}

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Waits for the period's end or the command's; what orphans of ours leave is taken. False: the command has ended. */
static bool wait_period(pid_t command, int *status)
{
    double until = now_s() + PERIOD_MS * 1e-3;

    while (now_s() < until) {
        const struct timespec nap = {0, 20 * 1000000};
        int s = 0;
        for (pid_t p; (p = waitpid(-1, &s, WNOHANG)) > 0;)
            if (p == command) {
                *status = s;
                return false;
            }
        if (stopping != 0) {
            kill(command, (int)stopping);
            stopping = 0;
        }
        nanosleep(&nap, NULL);
    }
    return true;
}

int main(int argc, char **argv)
{
    static struct scan looks[2];
    const double tick = 1.0 / (double)sysconf(_SC_CLK_TCK), begun = now_s();
    int file = argc > 2 ? open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
    int status = 0;
    uint64_t ticks = 0;
    pid_t command;

    if (file < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0) {
        fprintf(stderr, "usage: bench_others FILE COMMAND [ARGUMENT...]\n");
        return 2;
    }
    signal(SIGINT, SIG_IGN); /* the terminal tells the command too */
    signal(SIGTERM, on_signal);
    command = fork();
    if (command == 0) {
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        execvp(argv[2], argv + 2);
        perror(argv[2]);
        _exit(127);
    }
    scan(&looks[0]);
    for (int i = 1;; i ^= 1) {
        char line[64];
        int n =
            snprintf(line, sizeof line, "%-20.3f %-20.3f\n", now_s() - begun, (double)ticks * tick);
        if (command < 0 || pwrite(file, line, (size_t)n, 0) != n || !wait_period(command, &status))
            break;
        scan(&looks[i]);
        ticks += others_between(&looks[i ^ 1], &looks[i]);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
