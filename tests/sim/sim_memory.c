#include "sim_memory.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "net/region.h"
#include "sim_core.h"
#include "sim_net.h"
#include "worker/mailbox.h"

/* ---- mailboxes ------------------------------------------------------------------------------- */

struct box {
    int fd;
    int n, cap;
    void **item;
    struct sim_fiber *waits;
};

static bool box_ready(void *self)
{
    return ((struct box *)self)->n > 0;
}

WRAP(struct mailbox *, mailbox_new, void)
{
    struct box *b = mem_zalloc(1, sizeof *b);

    b->fd = sim_fd_new(box_ready, b);
    return (struct mailbox *)b;
}

WRAP(void, mailbox_free, struct mailbox *m)
{
    struct box *b = (struct box *)m;

    if (b == NULL)
        return;
    CHECK(b->n == 0);
    sim_fd_leave(b->fd);
    b->waits = NULL; /* the descriptor stays: it may not be used again */
}

WRAP(void, mailbox_put, struct mailbox *m, void *item)
{
    struct box *b = (struct box *)m;

    if (b->n == b->cap) {
        b->cap = b->cap * 2 + 8;
        b->item = mem_grow(b->item, (size_t)b->cap, sizeof *b->item);
    }
    b->item[b->n++] = item;
    sim_fd_wake(b->fd);
    sim_wake(b->waits);
}

WRAP(void *, mailbox_take, struct mailbox *m)
{
    struct box *b = (struct box *)m;
    void *item = b->n > 0 ? b->item[0] : NULL;

    if (b->n > 0)
        memmove(b->item, b->item + 1, (size_t)--b->n * sizeof *b->item);
    return item;
}

WRAP(void *, mailbox_wait, struct mailbox *m)
{
    struct box *b = (struct box *)m;

    while (b->n == 0) {
        b->waits = sim_fiber_self();
        sim_block(UINT64_MAX);
    }
    b->waits = NULL;
    return __wrap_mailbox_take(m);
}

WRAP(int, mailbox_fd, const struct mailbox *m)
{
    return ((const struct box *)m)->fd;
}

/* ---- regions: a machine has one process that shares memory with itself ----------------------- */

struct made_region {
    struct made_region *next;
    struct sim_proc *proc;
    struct region_key key;
    uint64_t stamp;
    unsigned refs;
    void *data;
};

static struct made_region *regions;
static uint64_t region_ids;

void sim_memory_reset(void)
{
    regions = NULL; /* of processes that are gone */
    region_ids = 0;
}

WRAP(int, region_new, size_t bytes, bool shared, struct region **out, struct err *e)
{
    struct made_region *r = mem_zalloc(1, sizeof *r);

    (void)shared;
    (void)e;
    r->proc = sim_self();
    r->key = (struct region_key){.id = ++region_ids, .bytes = bytes, .pid = 1, .fd = 1};
    r->refs = 1;
    r->data = mem_zalloc(1, bytes);
    r->next = regions;
    regions = r;
    *out = (struct region *)r;
    return 0;
}

WRAP(struct region_key, region_key, const struct region *r)
{
    return ((const struct made_region *)r)->key;
}

WRAP(int, region_attach, const struct region_key *key, struct region **out, struct err *e)
{
    for (struct made_region *r = regions; r != NULL; r = r->next)
        if (r->key.id == key->id && r->key.bytes == key->bytes && r->proc == sim_self()) {
            r->refs++;
            *out = (struct region *)r;
            return 0;
        }
    return err_set(e, ERR_UNREACHABLE, "memory of another machine");
}

WRAP(void, region_hold, struct region *r)
{
    ((struct made_region *)r)->refs++;
}

WRAP(void, region_release, struct region *held)
{
    struct made_region *r = (struct made_region *)held, **at = &regions;

    if (r == NULL || --r->refs > 0)
        return;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    memset(r->data, 0xff, r->key.bytes); /* whoever reads it still gets NaNs */
    free(r->data);
    free(r);
}

WRAP(void *, region_data, const struct region *r)
{
    return ((const struct made_region *)r)->data;
}

WRAP(size_t, region_bytes, const struct region *r)
{
    return ((const struct made_region *)r)->key.bytes;
}

WRAP(void, region_stamp, struct region *r, uint64_t version)
{
    ((struct made_region *)r)->stamp = version;
}

WRAP(uint64_t, region_stamped, const struct region *r)
{
    return ((const struct made_region *)r)->stamp;
}

WRAP(bool, region_show, struct region *over, struct region *r, size_t at, size_t len)
{
    (void)at;
    (void)len;
    return over == r;
}
