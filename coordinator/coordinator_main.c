/* steer-coordinator: options, signals, start and stop order. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "coordinator/coord_config.h"
#include "coordinator/coordinator.h"
#include "net/link.h"

#define SPACE_WAIT_MS 1000

static volatile int stopping;

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

static void signals_set(void)
{
    struct sigaction stop = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN};

    sigemptyset(&stop.sa_mask);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL); /* a file size limit then shows as an error of write() */
}

int main(int argc, char **argv)
{
    struct coord_config config;
    struct coordinator *c = NULL;
    struct err e = {0};
    int rc = 0;

    if (argc == 2 && strcmp(argv[1], "--faults") == 0) {
        fault_list(stdout);
        return 0;
    }
    rc = coord_config_parse(argc, argv, &config, &e);
    if (rc == 0)
        rc = fault_init(&e);
    if (rc != 0) {
        fprintf(stderr, "steer-coordinator: %s\n%s", e.msg, coord_config_usage);
        return 2;
    }
    if (config.help || config.version) {
        printf("%s", config.help ? coord_config_usage : "steer-coordinator " STEER_VERSION "\n");
        return 0;
    }
    signals_set();
    while ((rc = coordinator_open(&config, &c, &e)) == ERR_NO_SPACE && stopping == 0) {
        log_error("disk.full", "error=\"%s\" text=\"starts once there is space\"", e.msg);
        clock_sleep_ms(SPACE_WAIT_MS);
        e = (struct err){0};
    }
    if (rc != 0) {
        log_error("coordinator.refused", "code=%s error=\"%s\"", err_name(rc), e.msg);
        return rc == ERR_CONFLICT ? 5 : 1;
    }
    rc = coordinator_run(c, &stopping);
    log_info("coordinator.stop", "code=%d", rc);
    coordinator_close(c);
    link_context_term();
    return rc;
}
