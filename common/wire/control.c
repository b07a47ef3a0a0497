/*
 * What there is to say, and its life in memory. An envelope is made of groups (one submessage each);
 * the table `types` says which groups a type carries, and so which lists it has. control_pack.c
 * makes bytes of it, control_unpack.c makes it of bytes.
 */
#include "wire/control.h"

#include <stdlib.h>
#include <string.h>

#include "wire/control_inner.h"
#include "wire/text.h"

static const struct control_kind types[] = {
    {CONTROL_HELLO, "hello", G_MACHINE | G_PULSE | G_SESSION, SIDE_WORKER},
    {CONTROL_HEARTBEAT, "heartbeat", G_PULSE, SIDE_WORKER | SIDE_COORDINATOR},
    {CONTROL_TASK_DONE, "task_done", G_TASK | G_OUTCOME, SIDE_WORKER},
    {CONTROL_TASK_FAILED, "task_failed", G_TASK | G_OUTCOME, SIDE_WORKER},
    {CONTROL_SESSION_STATUS, "session_status", G_SESSION | G_FIGURES | G_OUTCOME | G_OPEN,
     SIDE_WORKER},
    {CONTROL_SESSION_CHECKPOINT, "session_checkpoint", G_SESSION | G_FIGURES | G_OUTCOME,
     SIDE_WORKER},
    {CONTROL_SESSION_DONE, "session_done", G_SESSION | G_FIGURES | G_OUTCOME, SIDE_WORKER},
    {CONTROL_SESSION_FAILED, "session_failed", G_SESSION | G_OUTCOME, SIDE_WORKER},
    {CONTROL_BYE, "bye", G_OUTCOME, SIDE_WORKER},
    {CONTROL_LOG, "log", G_TASK | G_OUTCOME, SIDE_WORKER},
    {CONTROL_WELCOME, "welcome", G_TERMS, SIDE_COORDINATOR},
    {CONTROL_REJECT, "reject", G_OUTCOME, SIDE_COORDINATOR},
    {CONTROL_TASK, "task", G_TASK, SIDE_COORDINATOR},
    {CONTROL_TASK_CANCEL, "task_cancel", G_TASK | G_OUTCOME, SIDE_COORDINATOR},
    {CONTROL_ACK, "ack", G_TASK | G_SESSION, SIDE_COORDINATOR},
    {CONTROL_SESSION_FROZEN, "session_frozen", G_SESSION | G_FIGURES | G_HANDOVER, SIDE_WORKER},
    {CONTROL_SESSION_OPINION, "session_opinion", G_SESSION | G_OPINIONS, SIDE_WORKER},
    {CONTROL_SESSION_OPEN, "session_open", G_SESSION | G_TRAINING | G_MAP | G_FIGURES | G_HANDOVER,
     SIDE_COORDINATOR},
    {CONTROL_SESSION_FREEZE, "session_freeze", G_SESSION | G_HANDOVER, SIDE_COORDINATOR},
    {CONTROL_SESSION_WAIVE, "session_waive", G_SESSION | G_OPINIONS, SIDE_COORDINATOR},
    {CONTROL_ASSIGN, "assign", G_SESSION | G_MAP, SIDE_COORDINATOR},
    {CONTROL_SESSION_CLOSE, "session_close", G_SESSION | G_OUTCOME, SIDE_COORDINATOR},
    {CONTROL_DRAIN, "drain", G_OUTCOME, SIDE_COORDINATOR},
};

#define TYPES_N (sizeof types / sizeof types[0])

const struct control_kind *control_kind(uint32_t type)
{
    for (size_t i = 0; i < TYPES_N; i++)
        if ((uint32_t)types[i].type == type)
            return &types[i];
    return NULL;
}

const char *control_type_name(enum control_type type)
{
    const struct control_kind *kind = control_kind((uint32_t)type);

    return kind == NULL ? "unknown" : kind->name;
}

uint64_t control_who(const char *worker)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a: short names, spread over 64 bits */

    for (; *worker != '\0'; worker++)
        h = (h ^ (uint8_t)*worker) * 1099511628211u;
    return h == 0 ? 1 : h;
}

bool control_from_worker(enum control_type type)
{
    const struct control_kind *kind = control_kind((uint32_t)type);

    return kind != NULL && (kind->side & SIDE_WORKER) != 0;
}

bool control_from_coordinator(enum control_type type)
{
    const struct control_kind *kind = control_kind((uint32_t)type);

    return kind != NULL && (kind->side & SIDE_COORDINATOR) != 0;
}

/* The lists are large and of rare types: the others do without them. */
static void lists_make(struct control *c, unsigned groups)
{
    if ((groups & G_PULSE) != 0)
        c->lease = mem_zalloc(WIRE_LEASES_MAX, sizeof *c->lease);
    if ((groups & G_MAP) != 0) {
        c->host = mem_zalloc(WIRE_HOSTS_MAX, sizeof *c->host);
        c->slot = mem_zalloc(WIRE_SLOTS_MAX, sizeof *c->slot);
    }
    if ((groups & G_HANDOVER) != 0)
        c->source = mem_zalloc(WIRE_HOSTS_MAX, sizeof *c->source);
    if ((groups & G_OPEN) != 0)
        c->share = mem_zalloc(WIRE_SHARES_MAX, sizeof *c->share);
}

struct control *control_new(enum control_type type)
{
    struct control *c = mem_zalloc(1, sizeof *c);
    const struct control_kind *kind = control_kind((uint32_t)type);

    memset(c, 0, offsetof(struct control, lease));
    c->type = type;
    c->proto = WIRE_PROTO;
    if (kind != NULL)
        lists_make(c, kind->groups);
    return c;
}

static void list_copy(void *to, const void *from, uint32_t n, size_t size)
{
    if (n > 0 && to != NULL)
        memcpy(to, from, n * size);
}

struct control *control_copy(const struct control *c)
{
    struct control *copy = control_new(c->type), lists = *copy;

    *copy = *c;
    copy->lease = lists.lease;
    copy->host = lists.host;
    copy->slot = lists.slot;
    copy->source = lists.source;
    copy->share = lists.share;
    list_copy(copy->lease, c->lease, c->leases_n, sizeof *c->lease);
    list_copy(copy->host, c->host, c->hosts_n, sizeof *c->host);
    list_copy(copy->slot, c->slot, c->slots_n, sizeof *c->slot);
    list_copy(copy->source, c->source, c->sources_n, sizeof *c->source);
    list_copy(copy->share, c->share, c->shares_n, sizeof *c->share);
    if (c->result != NULL)
        copy->result = mem_strdup(c->result);
    copy->next = copy->last = NULL;
    copy->links_n = 0;
    copy->links_bytes = 0;
    return copy;
}

void control_mend(struct control *c)
{
    for (; c != NULL; c = c->next) {
        text_mend(c->text);
        text_mend(c->name);
    }
}

void control_free(struct control *c)
{
    while (c != NULL) {
        struct control *next = c->next;

        free(c->lease);
        free(c->host);
        free(c->slot);
        free(c->source);
        free(c->share);
        free(c->result);
        free(c);
        c = next;
    }
}

/* ---- chains ---------------------------------------------------------------------------------- */

#define ENVELOPE_BYTES 1024 /* for all that is not of a task */
#define TASK_BYTES 200      /* seven numbers of up to 11 bytes, a digest, lengths */

/* What a link needs on the wire, at most. */
static size_t link_bytes(const struct control *c)
{
    return TASK_BYTES + strlen(c->task_kind) + strlen(c->text) +
           (c->result != NULL ? strlen(c->result) : 0);
}

static bool is_of_task(const struct control *c)
{
    const struct control_kind *kind = control_kind((uint32_t)c->type);

    return kind != NULL && (kind->groups & G_TASK) != 0 && c->task != 0 && c->type != CONTROL_LOG;
}

bool control_join(struct control *head, struct control *more)
{
    size_t bytes = link_bytes(more);

    if (head->type != more->type || !is_of_task(head) || !is_of_task(more) || more->next != NULL ||
        head->links_n + 2 > WIRE_BATCH_MAX)
        return false;
    if (head->links_bytes == 0)
        head->links_bytes = ENVELOPE_BYTES + link_bytes(head);
    if (head->links_bytes + bytes > WIRE_FRAME_MAX)
        return false;
    *(head->last != NULL ? &head->last->next : &head->next) = more;
    head->last = more;
    head->links_n++;
    head->links_bytes += bytes;
    return true;
}

struct control *control_split(struct control *c)
{
    struct control *rest = c->next;

    c->next = c->last = NULL;
    c->links_n = 0;
    c->links_bytes = 0;
    return rest;
}
