#include "worker/ps_patience.h"

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t bounded(uint64_t ms)
{
    return ms < PS_PATIENCE_MOST_MS ? ms : PS_PATIENCE_MOST_MS;
}

void ps_patience_init(struct ps_patience *p, uint64_t bytes)
{
    *p = (struct ps_patience){0};
    p->wait_ms = p->least_ms = bounded(PS_PATIENCE_LEAST_MS + bytes / PS_PATIENCE_BYTES_PER_MS);
}

bool ps_patience_is_over(const struct ps_patience *p, uint64_t sent_ms, uint64_t now)
{
    uint64_t last = larger(sent_ms, p->heard_ms);

    return now > last && now - last >= p->wait_ms;
}

void ps_patience_heard(struct ps_patience *p, uint64_t now)
{
    p->gap_ms = larger(p->gap_ms, now - larger(p->heard_ms, p->asked_ms));
    p->heard_ms = now;
}

void ps_patience_repeated(struct ps_patience *p)
{
    if (p->wait_ms < PS_PATIENCE_MOST_MS)
        p->wait_ms *= 2;
}

void ps_patience_renew(struct ps_patience *p, uint64_t now)
{
    if (p->gap_ms > 0)
        p->wait_ms = bounded(larger(p->least_ms, 2 * p->gap_ms));
    p->gap_ms = 0;
    p->asked_ms = now;
}

void ps_patience_ease(struct ps_patience *p, uint64_t first_ms, uint64_t now)
{
    uint64_t wait = larger(larger(p->least_ms, 2 * (now - first_ms)), p->wait_ms / 2);

    if (wait < p->wait_ms)
        p->wait_ms = wait;
}
