/*
 * region: memory that other processes of this machine can see: a memfd that its maker names in a
 * message (region_key), and that the receiver opens by /proc and maps. A key of another machine, or
 * of a process that is gone, cannot be attached, and then bytes travel by socket; so nobody has to
 * know who is near. A region of this process is attached as itself: nothing is mapped twice.
 *
 * Sealed against shrinking before anybody hears of it, so that a peer cannot make us fault. It
 * lives as long as somebody holds it, whoever made it. Any thread.
 */
#ifndef NET_REGION_H
#define NET_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct region_key { /* bytes 0: no region */
    uint64_t id, bytes;
    uint32_t pid, fd;
};

struct region;
/* Zeroed, held once. shared false: nobody but this process will attach it, and it may lie on huge
 * pages. ERR_SYSTEM: the machine gives no such memory. */
int region_new(size_t bytes, bool shared, struct region **out, struct err *e);
struct region_key region_key(const struct region *r);
/* Held once more, or now. ERR_UNREACHABLE: not here. */
int region_attach(const struct region_key *key, struct region **out, struct err *e);
void region_hold(struct region *r);
void region_release(struct region *r); /* NULL is fine */
void *region_data(const struct region *r);
size_t region_bytes(const struct region *r);
/* The version that is being written to it, or was last: readers look before and after. */
void region_stamp(struct region *r, uint64_t version);
uint64_t region_stamped(const struct region *r);
/* Shows bytes [at, at + len) of `r` at the same place of `over` instead of its own, until that is
 * released. False: not on page borders, or not possible. */
bool region_show(struct region *over, struct region *r, size_t at, size_t len);

#endif
