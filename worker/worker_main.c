#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "worker/daemon.h"
#include "worker/measure.h"

static int measure(int argc, char **argv)
{
    struct measure_args args = {0};
    struct err e = {0};

    if (measure_args_parse(argc, argv, &args, &e) != 0 || measure_run(&args, &e) != 0) {
        fprintf(stderr, "steer-worker: %s\n", e.msg);
        return 2;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct worker_config config;
    struct err e = {0};

    if (argc == 2 && strcmp(argv[1], "--faults") == 0) {
        fault_list(stdout);
        return 0;
    }
    if (argc >= 2 && strcmp(argv[1], "--measure") == 0)
        return measure(argc - 2, argv + 2);
    if (worker_config_parse(argc, argv, &config, &e) != 0 || fault_init(&e) != 0) {
        fprintf(stderr, "steer-worker: %s\n%s", e.msg, worker_config_usage);
        return 2;
    }
    if (config.help) {
        fputs(worker_config_usage, stdout);
        return 0;
    }
    if (config.version) {
        puts("steer-worker " STEER_VERSION);
        return 0;
    }
    if (daemon_run(&config, &e) != 0) {
        fprintf(stderr, "steer-worker: %s\n", e.msg);
        return e.code == ERR_UNSUPPORTED ? 3 : 1;
    }
    return 0;
}
