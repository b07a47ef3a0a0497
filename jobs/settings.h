/*
 * settings: options of a daemon: flags over STEER_* variables over one YAML file (--config) over defaults.
 * One table a daemon; a key of the file is a flag without its dashes ("lease-ms: 10000"). Unknown flags and keys are refused with
 * "did you mean"; a message names option, value, bound, and for the file the line.
 */
#ifndef JOBS_SETTINGS_H
#define JOBS_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum setting_type {
    SETTING_TEXT,    /* char[size], 1..size-1 characters */
    SETTING_ADDRESS, /* the same, tcp://HOST:PORT */
    SETTING_SECRET,  /* char[size] from the first line of the file that is named */
    SETTING_NUMBER,  /* uint32_t, min..max */
    SETTING_FLAG,    /* bool; takes no value on the command line, true or false in the file */
    SETTING_CUSTOM   /* set() */
};

struct setting {
    const char *flag; /* "--dir"; NULL: by its variable only */
    const char *env;  /* "STEER_DIR"; NULL: none */
    enum setting_type type;
    size_t offset, size; /* place in the daemon's own struct */
    int64_t min, max;
    int (*set)(void *base, const char *option, const char *value, struct err *e);
};

/* Fills base, which holds the defaults. table ends with flag and env NULL. config_env: variable that may name the YAML file.
 * *help and *version are set by --help, -h and --version; the rest is read all the same. */
int settings_read(const struct setting *table, const char *config_env, int argc, char **argv,
                  void *base, bool *help, bool *version, struct err *e);
int settings_text(char *to, size_t cap, const char *option, const char *value, struct err *e);

#endif
