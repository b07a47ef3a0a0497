/*
 * sim_net: what net/link.h promises, between simulated processes, over links that delay, lose,
 * double and reorder what they carry, that are cut one way or both, and that go up and down. A
 * connection dies with either of its processes, and what was on its way with it.
 */
#ifndef SIM_NET_H
#define SIM_NET_H

#include <stdbool.h>
#include <stdint.h>

#define SIM_NODES_MAX 9

struct sim_net_faults { /* in a thousand */
    uint32_t drop, twice, late;
    uint32_t flip;     /* a bit of a message, on its way */
    bool reorder;      /* inside a connection; else only between connections */
    uint32_t delay_us; /* at most, usually */
    uint32_t late_us;  /* of what is late */
};
extern struct sim_net_faults sim_net_faults;
struct sim_net_counts {
    uint64_t sent, dropped, doubled, late, cut, reordered, busy, flipped;
};
extern struct sim_net_counts sim_net_counts;

void sim_net_cut(int from, int to, bool cut); /* one way */
bool sim_net_is_cut(int from, int to);
void sim_net_heal(void); /* no cuts, no faults */
void sim_net_reset(void);

/* ---- descriptors that only the simulator has: of mailboxes, signals, requests ---------------- */

int sim_fd_new(bool (*ready)(void *self), void *self);
void sim_fd_wake(int fd);  /* whoever polls it looks again */
void sim_fd_leave(int fd); /* nobody polls it any more */
bool sim_fd_is_ours(int fd);

#endif
