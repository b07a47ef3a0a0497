#include "jobs/scale.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "types/tree.h"

/* Of 1,538 bytes that a full Ethernet frame takes on the wire 1,448 are payload of TCP with time stamps; and every second frame is
 * acknowledged by one of 90 that needs the other direction, where as much is sent at the same time. */
#define PAYLOAD (1448.0 / (1538.0 + 90.0 / 2))
/* What a connection that was idle sends before anything is acknowledged (RFC 6928); it doubles each round (RFC 5681). */
#define FIRST_WINDOW (10 * 1448.0)
/* Messages that wait for each other: the last gradient, its ROOTS and APPLY, the first parameters; with a copy also the root and
 * its acknowledgement. */
#define WAITS 4
#define WAITS_REPLICA 2
#define FLOAT_BYTES 4.0

const char *scale_bound_name(enum scale_bound b)
{
    static const char *const name[SCALE_BOUNDS] = {"compute", "push",    "fold",   "apply",
                                                   "pull",    "replica", "latency"};

    return name[b];
}

/* ---- reading --------------------------------------------------------------------------------- */

static int number_read(const cJSON *j, const char *key, double min, double max, double *out,
                       struct err *e)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(j, key);

    if (!cJSON_IsNumber(v))
        return err_set(e, ERR_INVALID, "measured speeds have no number \"%s\"", key);
    if (!(v->valuedouble >= min && v->valuedouble <= max))
        return err_set(e, ERR_INVALID, "measured speeds: \"%s\" is %g, must be %g to %g", key,
                       v->valuedouble, min, max);
    *out = v->valuedouble;
    return 0;
}

int scale_measured_read(const cJSON *j, struct scale_measured *out, struct err *e)
{
    double params = 0, threads = 0, rows = 0;
    const struct {
        const char *key;
        double min, max, *to;
    } all[] = {{"params", 1, 1e12, &params},
               {"threads", 1, 4096, &threads},
               {"unit_rows", 1, 1e9, &rows},
               {"unit_s", 1e-9, 1e6, &out->unit_s},
               {"backward", 0, 1, &out->backward},
               {"early", 0, 1, &out->early},
               {"forward", 0, 1, &out->forward},
               {"later", 0, 1, &out->later},
               {"fold_bytes_s", 1, 1e15, &out->fold_bytes_s},
               {"apply_params_s", 1, 1e15, &out->apply_params_s},
               {"crypt_bytes_s", 1, 1e15, &out->crypt_bytes_s}};

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        int rc = number_read(j, all[i].key, all[i].min, all[i].max, all[i].to, e);
        if (rc != 0)
            return rc;
    }
    out->params = (uint64_t)params;
    out->threads = (uint32_t)threads;
    out->unit_rows = (uint32_t)rows;
    return 0;
}

struct unit {
    const char *name;
    double factor;
};

static int quantity_parse(const char *text, const struct unit *unit, size_t units,
                          const char *example, double *out, struct err *e)
{
    char *end;
    double v = strtod(text, &end);

    for (size_t i = 0; i < units && end != text; i++) {
        if (strcmp(end, unit[i].name) == 0 && v >= 0 && isfinite(v)) {
            *out = v * unit[i].factor;
            return 0;
        }
    }
    return err_set(e, ERR_INVALID, "\"%s\" must be a number and a unit, such as %s", text, example);
}

int scale_rate_parse(const char *text, double *bits_s, struct err *e)
{
    static const struct unit unit[] = {{"kb/s", 1e3}, {"Mb/s", 1e6}, {"Gb/s", 1e9}, {"Tb/s", 1e12}};
    int rc = quantity_parse(text, unit, 4, "100Mb/s or 1Gb/s", bits_s, e);

    return rc == 0 && *bits_s == 0 ? err_set(e, ERR_INVALID, "a link of %s never ends a step", text)
                                   : rc;
}

int scale_time_parse(const char *text, double *seconds, struct err *e)
{
    static const struct unit unit[] = {{"us", 1e-6}, {"ms", 1e-3}, {"s", 1}};

    return quantity_parse(text, unit, 3, "0.5ms", seconds, e);
}

/* ---- predicting ------------------------------------------------------------------------------ */

struct spread {
    uint32_t hosts;
    double share;      /* of the parameters, at the host with the most chunks */
    uint32_t most;     /* units of the busiest thread */
    double nodes_one;  /* tree nodes that the busiest worker pushes */
    double nodes_all;  /* and all workers */
    double nodes_here; /* of the worker that pushes the fewest: at its own host they need no wire */
    uint32_t clients;  /* that pull */
};

/* As the coordinator deals when all machines are equal: hosts have two chunks or more, units go in
 * contiguous spans in proportion to threads, a worker's span to its threads. */
static void spread_make(const struct scale_measured *m, const struct scale_plan *p,
                        struct spread *out)
{
    uint64_t chunks = (m->params + p->chunk_elems - 1) / p->chunk_elems;
    uint64_t hosts = chunks / 2 > 0 ? chunks / 2 : 1;
    uint32_t workers = p->workers < p->units ? p->workers : p->units;

    *out = (struct spread){.nodes_here = 1e300};
    out->hosts = hosts < p->workers ? (uint32_t)hosts : p->workers;
    out->share = (double)((chunks + out->hosts - 1) / out->hosts) / (double)chunks;
    for (uint32_t w = 0; w < workers; w++) {
        uint64_t begin = (uint64_t)p->units * w / workers,
                 end = (uint64_t)p->units * (w + 1) / workers;
        double nodes = 0;
        for (uint32_t t = 0; t < p->threads; t++) {
            struct tree_node node[TREE_COVER_MAX];
            struct tree_span part = {(uint32_t)(begin + (end - begin) * t / p->threads),
                                     (uint32_t)(begin + (end - begin) * (t + 1) / p->threads)};
            if (part.end > part.begin)
                nodes += (double)tree_cover(p->units, part, node, TREE_COVER_MAX);
            if (part.end - part.begin > out->most)
                out->most = part.end - part.begin;
        }
        out->clients++; /* one view for all threads of a process */
        out->nodes_all += nodes;
        out->nodes_one = nodes > out->nodes_one ? nodes : out->nodes_one;
        out->nodes_here = nodes < out->nodes_here ? nodes : out->nodes_here;
    }
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* What a link loses while connections that were idle find out what it takes: rounds until they fill it, less what they carry
 * meanwhile. Nothing in a room, a tenth of a second and more between cities. */
static double ramp_s(double rate, double latency_s, uint32_t connections)
{
    double fills = rate * 2 * latency_s, first = connections * FIRST_WINDOW;

    return fills <= first ? 0 : 2 * latency_s * (log2(fills / first) - 1 + first / fills);
}

void scale_predict(const struct scale_measured *m, const struct scale_plan *p,
                   const struct scale_link *l, struct scale_step *out)
{
    double bytes = (double)m->params * FLOAT_BYTES, rate = l->bits_s / 8.0 * PAYLOAD;
    double wire = p->half ? bytes / 2.0 : bytes; /* of one gradient, or of all parameters */
    double unit_s = m->unit_s * (double)p->unit_rows / (double)m->unit_rows;
    double hidden, ahead, away, push_s, pull_s, fold_s, most = 0;
    bool copies = false;
    struct spread s;

    CHECK(p->workers >= 1 && p->threads >= 1 && p->units >= 1 && p->chunk_elems >= 1);
    spread_make(m, p, &s);
    copies = p->replicate && s.hosts >= 2;
    away = s.hosts >= 2 ? 1.0 - s.share : 0.0; /* of what a host's own worker moves */
    /* One thread of a process encrypts what leaves it and decrypts what comes, and both happen at once. */
    if (l->encrypted && rate > m->crypt_bytes_s / 2)
        rate = m->crypt_bytes_s / 2;
    *out = (struct scale_step){.hosts = s.hosts, .units_most = s.most};
    /* A host takes in what all others push of its share; a worker sends what is not its own host's. */
    out->push_bytes = wire * larger(s.share * (s.nodes_all - s.nodes_here), away * s.nodes_one);
    out->pull_bytes = wire * larger(s.share * (double)(s.clients - 1), away);
    out->part_s[SCALE_COMPUTE] = s.most * unit_s;
    hidden = unit_s * m->backward;
    push_s = out->push_bytes / rate;
    /* Of the push, the early share may travel while the backward runs, and of the pull the later share while the forward does; but who
     * computes on all cores pays for the encryption of both, out and in. */
    push_s -= push_s * m->early < hidden ? push_s * m->early : hidden;
    if (l->encrypted)
        push_s = larger(push_s, 2.0 * out->push_bytes / m->crypt_bytes_s / p->threads);
    fold_s = bytes * s.share * s.nodes_all / m->fold_bytes_s;
    fold_s -= fold_s * m->early < hidden ? fold_s * m->early : hidden;
    out->part_s[SCALE_PUSH] = push_s;
    out->part_s[SCALE_FOLD] = larger(0, fold_s - push_s);
    out->part_s[SCALE_APPLY] = (double)m->params * s.share * (copies ? 2 : 1) / m->apply_params_s;
    pull_s = out->pull_bytes / rate;
    ahead = unit_s * m->forward;
    pull_s -= pull_s * m->later < ahead ? pull_s * m->later : ahead;
    if (l->encrypted)
        pull_s = larger(pull_s, 2.0 * out->pull_bytes / m->crypt_bytes_s / p->threads);
    out->part_s[SCALE_PULL] = pull_s;
    out->part_s[SCALE_REPLICA] = copies ? bytes * s.share / rate : 0;
    out->part_s[SCALE_LATENCY] = p->workers > 1
                                     ? l->latency_s * (WAITS + (copies ? WAITS_REPLICA : 0)) +
                                           ramp_s(rate, l->latency_s, s.hosts) * 2 +
                                           (copies ? ramp_s(rate, l->latency_s, 1) : 0)
                                     : 0;
    for (int b = 0; b < SCALE_BOUNDS; b++) {
        out->step_s += out->part_s[b];
        if (out->part_s[b] > most) {
            most = out->part_s[b];
            out->rules = (enum scale_bound)b;
        }
    }
    out->efficiency = p->units * unit_s / ((double)p->workers * p->threads) / out->step_s;
}
