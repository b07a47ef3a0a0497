/*
 * gearmand: how many tasks that do nothing a second? 200 bytes each, submitted in the background by one client, then done by two worker
 * processes; from the first submit to the last end.  usage: peer_gearman PORT TASKS     prints tasks/s
 */
#include <libgearman/gearman.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile int *done;

static void *nothing(gearman_job_st *job, void *context, size_t *size, gearman_return_t *rc)
{
    (void)job;
    (void)context;
    *size = 0;
    *rc = GEARMAN_SUCCESS;
    __atomic_fetch_add(done, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static void work(in_port_t port)
{
    gearman_worker_st *w = gearman_worker_create(NULL);

    gearman_worker_add_server(w, "127.0.0.1", port);
    gearman_worker_add_function(w, "nothing", 0, nothing, NULL);
    for (;;)
        gearman_worker_work(w);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    in_port_t port = (in_port_t)(argc > 1 ? atoi(argv[1]) : 4730);
    int tasks = argc > 2 ? atoi(argv[2]) : 10000;
    gearman_client_st *c;
    char payload[200], handle[GEARMAN_JOB_HANDLE_SIZE];
    pid_t child[2];
    double start;

    done = mmap(NULL, sizeof *done, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(payload, 'x', sizeof payload);
    for (int i = 0; i < 2; i++)
        if ((child[i] = fork()) == 0)
            work(port);
    c = gearman_client_create(NULL);
    gearman_client_add_server(c, "127.0.0.1", port);
    start = now();
    for (int i = 0; i < tasks; i++)
        if (gearman_client_do_background(c, "nothing", NULL, payload, sizeof payload, handle) != GEARMAN_SUCCESS) {
            fprintf(stderr, "%s\n", gearman_client_error(c));
            tasks = i;
        }
    while (__atomic_load_n(done, __ATOMIC_SEQ_CST) < tasks && now() - start < 60)
        usleep(500);
    if (tasks > 0)
        printf("%.1f\n", __atomic_load_n(done, __ATOMIC_SEQ_CST) / (now() - start));
    for (int i = 0; i < 2; i++) {
        kill(child[i], SIGKILL);
        waitpid(child[i], NULL, 0);
    }
    return 0;
}
