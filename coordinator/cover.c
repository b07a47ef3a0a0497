/*
 * The version to go on from is the highest that anybody has: whoever has it may have thrown away
 * what led to it, so the others must come up to it, never back. Two versions behind means that the
 * rule about root gradients was broken, and such a range is not used.
 */
#include "coordinator/cover.h"

#include <stddef.h>

bool cover_copy_of(int i, int n, int *before)
{
    *before = n > 0 ? (i + n - 1) % n : 0;
    return n >= 2;
}

/* Which ranges of r are there at `version`; close_known: how the step before it was closed. */
static unsigned usable(const struct cover_report *r, uint64_t version, bool close_known)
{
    if (!r->here)
        return 0;
    if (r->version == version)
        return COVER_OWN | COVER_COPY;
    if (r->version + 1 == version && close_known)
        return r->roots & (COVER_OWN | COVER_COPY);
    return 0;
}

static uint32_t reach(const struct cover_report *r, int n, uint32_t at)
{
    for (int i = 0; i < n; i++) {
        if ((r[i].usable & COVER_OWN) != 0 && r[i].begin <= at && at < r[i].end)
            return r[i].end;
        if ((r[i].usable & COVER_COPY) != 0 && r[i].copy_begin <= at && at < r[i].copy_end)
            return r[i].copy_end;
    }
    return at;
}

bool cover_find(struct cover_report *report, int n, uint32_t chunks, uint64_t at_least,
                struct cover *out)
{
    bool close_known = false;

    *out = (struct cover){.version = at_least, .ahead = -1};
    for (int i = 0; i < n; i++) {
        if (report[i].here && report[i].version > out->version)
            out->version = report[i].version;
    }
    close_known = at_least > 0 && out->version == at_least;
    for (int i = 0; i < n; i++) {
        if (!report[i].here || report[i].version != out->version)
            continue;
        if (out->ahead < 0 || (report[i].closed && !report[out->ahead].closed))
            out->ahead = i;
        close_known = close_known || report[i].closed;
    }
    for (int i = 0; i < n; i++) {
        report[i].usable = usable(&report[i], out->version, close_known);
        out->behind = out->behind || (report[i].usable != 0 && report[i].version < out->version);
    }
    while (out->missing < chunks) {
        uint32_t next = reach(report, n, out->missing);

        if (next == out->missing)
            return false;
        out->missing = next < chunks ? next : chunks;
    }
    return out->ahead >= 0 || close_known;
}
