/* control_inner: the types of messages, as the files of control share them. */
#ifndef WIRE_CONTROL_INNER_H
#define WIRE_CONTROL_INNER_H

#include <stdint.h>

#include "wire/control.h"

/* Submessages of an envelope. */
enum group {
    G_MACHINE = 1,
    G_PULSE = 2,
    G_TERMS = 4,
    G_TASK = 8,
    G_OUTCOME = 16,
    G_SESSION = 32,
    G_TRAINING = 64,
    G_MAP = 128,
    G_FIGURES = 256,
    G_HANDOVER = 512,
    G_OPINIONS = 1024,
    G_OPEN = 2048
};

enum side { SIDE_WORKER = 1, SIDE_COORDINATOR = 2 };

struct control_kind {
    enum control_type type;
    const char *name;
    unsigned groups; /* those that it carries, each of them */
    unsigned side;   /* who may say it */
};

/* NULL: no such type. */
const struct control_kind *control_kind(uint32_t type);

#endif
