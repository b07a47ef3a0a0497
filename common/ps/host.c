#include "ps/host.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "ps/replica.h"

struct host {
    struct host_plan plan;
    struct fold *fold;
    struct shard *shard;
    struct replica *copy; /* of the host before us; NULL without replication */
    uint32_t chunks;      /* ours */
    uint32_t complete;    /* of them have their root */
    bool *has_root;       /* [chunks] */
    uint32_t acked;       /* of them the buddy has the root */
    bool *is_acked;       /* [chunks] */
    struct opinions *opinions;
    struct host_judged judged[HOST_JUDGED_MAX]; /* a ring */
    uint64_t judged_n, audited;
    bool declared; /* our roots: what comes later is compared, but holds nothing up */
    bool frozen, freeze_at_edge;
    double *sumsq;    /* leader: [plan.chunks], else [chunks] */
    bool *has_sumsq;  /* leader: [plan.chunks] */
    uint32_t sumsq_n; /* leader: how many are there */
    double *tree;     /* leader: scratch [plan.chunks] */
    struct host_close last;
    bool has_last;
    struct host_figures figures;
};

/* Pairs of neighbours, level by level: the canonical tree, in place. */
static double tree_sum_in_place(double *x, uint32_t n)
{
    CHECK(n >= 1);
    while (n > 1) {
        uint32_t half = n / 2;
        for (uint32_t i = 0; i < half; i++)
            x[i] = x[2 * i] + x[2 * i + 1];
        if (n % 2 != 0)
            x[half] = x[n - 1];
        n = half + n % 2;
    }
    return x[0];
}

double host_tree_sum(const double *x, uint32_t n)
{
    double *copy = mem_alloc(n * sizeof *copy);
    double sum;

    memcpy(copy, x, n * sizeof *copy);
    sum = tree_sum_in_place(copy, n);
    free(copy);
    return sum;
}

struct host *host_new(const struct host_plan *plan, const float *params, uint64_t version,
                      const struct host_figures *figures)
{
    struct host *h = mem_zalloc(1, sizeof *h);
    size_t begin = (size_t)plan->chunk_begin * plan->chunk_elems;
    size_t end = (size_t)plan->chunk_end * plan->chunk_elems;

    CHECK(plan->chunk_begin < plan->chunk_end && plan->chunk_end <= plan->chunks);
    if (end > plan->layout->count)
        end = plan->layout->count;
    h->plan = *plan;
    h->chunks = plan->chunk_end - plan->chunk_begin;
    h->fold = fold_new(plan->units, end - begin, plan->chunk_elems);
    h->shard = shard_new(plan->layout, begin, end - begin, plan->chunk_elems, params, version);
    if (plan->replicate)
        h->copy =
            replica_new(plan->layout, plan->copy_begin, plan->copy_end, plan->chunk_elems, version);
    if (plan->half)
        fold_use_half(h->fold);
    if (plan->place != NULL)
        shard_show(h->shard, plan->place, plan->half);
    shard_use_spread(h->shard, plan->spread);
    if (h->copy != NULL)
        shard_use_spread(replica_shard(h->copy), plan->spread);
    h->opinions = opinions_new(plan->units, h->chunks);
    h->has_root = mem_zalloc(h->chunks, sizeof *h->has_root);
    h->is_acked = mem_zalloc(h->chunks, sizeof *h->is_acked);
    h->sumsq = mem_zalloc(plan->chunks, sizeof *h->sumsq);
    h->has_sumsq = mem_zalloc(plan->chunks, sizeof *h->has_sumsq);
    h->tree = mem_zalloc(plan->chunks, sizeof *h->tree);
    if (figures != NULL)
        h->figures = *figures;
    return h;
}

void host_free(struct host *h)
{
    if (h == NULL)
        return;
    fold_free(h->fold);
    shard_free(h->shard);
    replica_free(h->copy);
    opinions_free(h->opinions);
    free(h->has_root);
    free(h->is_acked);
    free(h->sumsq);
    free(h->has_sumsq);
    free(h->tree);
    free(h);
}

static const float *root_of(void *self, uint32_t chunk)
{
    struct host *h = self;

    return fold_root(h->fold, chunk, NULL);
}

static void own_apply(struct host *h, float scale, float lr)
{
    if (h->plan.begins != NULL)
        h->plan.begins(h->plan.begins_self, shard_version(h->shard) + 1);
    shard_apply(h->shard, &h->plan.adamw, root_of, h, scale, lr);
}

/* Applies `last` and opens the next step. */
static unsigned step_apply(struct host *h)
{
    unsigned events = HOST_VERSION;
    uint64_t version;

    own_apply(h, h->last.scale, h->last.lr);
    if (h->copy != NULL)
        replica_apply(h->copy, &h->plan.adamw, h->last.scale, h->last.lr);
    fold_reset(h->fold);
    opinions_reset(h->opinions);
    h->declared = false;
    memset(h->has_root, 0, h->chunks * sizeof *h->has_root);
    memset(h->is_acked, 0, h->chunks * sizeof *h->is_acked);
    memset(h->has_sumsq, 0, h->plan.chunks * sizeof *h->has_sumsq);
    h->complete = h->acked = 0;
    h->sumsq_n = 0;
    version = shard_version(h->shard);
    if (version == h->plan.steps ||
        (h->plan.checkpoint_every != 0 && version % h->plan.checkpoint_every == 0))
        events |= HOST_CHECKPOINT;
    if (h->freeze_at_edge) {
        h->frozen = true;
        events |= HOST_FROZEN;
    }
    return events;
}

/* Leader: all sums of squares are there. Closes the step. */
static int step_close(struct host *h, unsigned *events, struct err *e)
{
    uint64_t step = shard_version(h->shard);
    uint64_t tail_begin = h->plan.steps - (h->plan.steps + 9) / 10;
    struct fold_sums sums;
    double weight;
    double norm;

    fold_root(h->fold, 0, &sums);
    memcpy(h->tree, h->sumsq, h->plan.chunks * sizeof *h->tree);
    weight = sums.weight > 0 ? sums.weight : 1;
    norm = sqrt(tree_sum_in_place(h->tree, h->plan.chunks)) / weight;
    if (!isfinite(norm) || !isfinite(sums.loss))
        return err_set(e, ERR_NUMERIC, "step %" PRIu64 ": gradient norm %g, loss %g: not finite",
                       step + 1, norm, sums.loss / weight);
    if (sums.tokens > HOST_TOKENS_MAX - h->figures.tokens)
        return err_set(e, ERR_NUMERIC, "step %" PRIu64 ": %" PRIu64 " tokens, the run may have %llu",
                       step + 1, sums.tokens, HOST_TOKENS_MAX);
    h->figures.loss = sums.loss / weight;
    h->figures.grad_norm = norm;
    h->figures.tokens += sums.tokens;
    if (step >= tail_begin) {
        h->figures.tail_loss += h->figures.loss;
        h->figures.tail_steps++;
    }
    h->last.step = step;
    h->last.figures = h->figures;
    h->last.scale = (float)(clip_scale(norm, h->plan.clip) / weight);
    h->last.lr = (float)schedule_lr(&h->plan.schedule, h->plan.lr, step + 1, h->plan.steps);
    h->has_last = true;
    *events |= HOST_APPLY | step_apply(h);
    return 0;
}

static bool close_is_sane(const struct host_close *c)
{
    return isfinite(c->scale) && isfinite(c->lr) && c->figures.tokens <= HOST_TOKENS_MAX;
}

/* What one more root, here or there, makes possible. */
static int step_advance(struct host *h, unsigned *events, struct err *e)
{
    if (!host_roots_complete(h))
        return 0;
    h->declared = true;
    if (!host_is_leader(h))
        *events |= HOST_ROOTS;
    else if (h->sumsq_n == h->plan.chunks && (h->copy == NULL || replica_is_complete(h->copy)))
        return step_close(h, events, e);
    return 0;
}

/* Leader: one more chunk is known. */
static void sumsq_take(struct host *h, uint32_t chunk, double value)
{
    if (!h->has_sumsq[chunk])
        h->sumsq_n++;
    h->has_sumsq[chunk] = true;
    h->sumsq[chunk] = value;
}

static void root_take(struct host *h, uint32_t chunk, double sumsq, unsigned *events)
{
    uint32_t mine = chunk - h->plan.chunk_begin;

    h->has_root[mine] = true;
    h->complete++;
    sumsq_take(h, host_is_leader(h) ? chunk : mine, sumsq);
    if (h->plan.replicate)
        *events |= HOST_REPLICA;
}

/* A value that was folded, or found there: does it settle or open a question? True: settled. */
static bool opinion_take(struct host *h, uint64_t step, uint64_t who, struct tree_node node,
                         uint32_t mine, uint64_t hash, unsigned *events)
{
    struct opinion_voice folded;
    const struct opinion *op;
    bool audited = opinions_audits(h->plan.seed, h->plan.audit, step, node);

    if (h->declared || h->plan.audit < 0 ||
        !fold_said(h->fold, mine, node, &folded.hash, &folded.who))
        return false;
    op = opinions_take(h->opinions, node, mine, audited, (struct opinion_voice){who, hash}, folded);
    if (op == NULL)
        return false;
    *events |= HOST_OPINION;
    h->audited += op->news && !op->disputed && mine == 0;
    if (op->news && op->disputed)
        h->judged[h->judged_n++ % HOST_JUDGED_MAX] = (struct host_judged){step, *op};
    return op->state == OPINION_SETTLED;
}

/* Somebody contradicts what is in a sum that was told already: whether it is closed with that sum is out of our hands. */
static int late_conflict(const struct host *h, uint64_t step, uint64_t who, struct tree_node node,
                         uint32_t mine, struct err *e)
{
    struct tree_span units = tree_leaves(h->plan.units, node);
    uint64_t hash, first = 0;

    fold_said(h->fold, mine, node, &hash, &first);
    return err_set(e, ERR_CONFLICT,
                   "step %" PRIu64 ", units [%u, %u): %016" PRIx64 " and %016" PRIx64
                   " compute different gradients, and the sum was told already",
                   step + 1, units.begin, units.end, first, who);
}

static int sums_check(const struct host_push *p, struct err *e)
{
    if (p->sums.tokens > PUSH_TOKENS_MAX)
        return err_set(e, ERR_INVALID, "push with %" PRIu64 " tokens, at most %llu", p->sums.tokens,
                       PUSH_TOKENS_MAX);
    if (!(p->sums.weight >= 0) || isinf(p->sums.weight))
        return err_set(e, ERR_INVALID, "push with weight %g", p->sums.weight);
    return 0;
}

int host_push_begin(const struct host *h, struct host_push *p, struct err *e)
{
    const struct host_plan *plan = &h->plan;

    CHECK(p->count <= HOST_PARTS_MAX);
    if (p->begin < plan->chunk_begin || p->count > h->chunks ||
        p->begin > plan->chunk_end - p->count)
        return err_set(e, ERR_INVALID, "push of chunks [%u, %u + %u), this host has [%u, %u)",
                       p->begin, p->begin, p->count, plan->chunk_begin, plan->chunk_end);
    for (uint32_t i = 0; i < p->count; i++) {
        size_t n = fold_chunk_len(h->fold, p->begin + i - plan->chunk_begin);
        if (p->n[i] != n)
            return err_set(e, ERR_INVALID, "push of chunk %u with %zu floats, it has %zu",
                           p->begin + i, p->n[i], n);
    }
    if (!tree_node_is_valid(plan->units, p->node))
        return err_set(e, ERR_INVALID, "push of node (%u, %u), a step has %u units", p->node.level,
                       p->node.index, plan->units);
    if (p->begin == 0 && sums_check(p, e) != 0)
        return ERR_INVALID;
    if (p->step > shard_version(h->shard))
        return err_set(e, ERR_INVALID,
                       "push for step %" PRIu64 ", version %" PRIu64 " is the newest", p->step,
                       shard_version(h->shard));
    for (uint32_t i = 0; i < p->count; i++)
        p->out[i] = (struct host_pushed){.verdict = HOST_STALE};
    return 0;
}

static bool is_stale(const struct host *h, const struct host_push *p)
{
    return p->step < shard_version(h->shard) || host_is_done(h) || h->frozen;
}

/* Did the value come before, under this hash, or as memory that may have been added to since? Then it was checked, and what
 * comes with it now is not looked at. Another hash is believed only if it is that of what comes with it. */
static bool is_known(const struct host *h, const struct host_push *p, uint32_t i, uint32_t mine)
{
    uint64_t hash, who;
    bool said = fold_said(h->fold, mine, p->node, &hash, &who);

    return (said && hash == p->hash[i]) ||
           (!said && p->lent && fold_has(h->fold, mine, p->node));
}

void host_push_fold(struct host *h, struct host_push *p, uint32_t i)
{
    const struct fold_sums *sums = p->begin + i == 0 ? &p->sums : NULL;
    uint32_t mine = p->begin + i - h->plan.chunk_begin;
    struct host_pushed *out = &p->out[i];
    enum fold_verdict folded;

    if (is_stale(h, p))
        return;
    out->verdict = HOST_CORRUPT;
    if (!is_known(h, p, i, mine) && fold_hash(p->values[i], p->n[i], sums) != p->hash[i])
        return;
    if (p->lent)
        folded = fold_lend(h->fold, mine, p->node, p->values[i], sums, p->hash[i]);
    else
        folded = fold_add(h->fold, mine, p->node, p->values[i], sums, p->hash[i]);
    out->folded = true;
    out->verdict = folded == FOLD_ACCEPTED    ? HOST_ACCEPTED
                   : folded == FOLD_DUPLICATE ? HOST_DUPLICATE
                                              : HOST_CONFLICT;
    if (folded == FOLD_ACCEPTED)
        fold_note(h->fold, mine, p->node, p->who);
    out->news = !h->has_root[mine] && fold_root(h->fold, mine, NULL) != NULL;
    if (out->news)
        out->sumsq = sum_squares(fold_root(h->fold, mine, NULL), p->n[i]);
}

int host_push_end(struct host *h, struct host_push *p, unsigned *events, struct err *e)
{
    bool advance = false;

    *events = 0;
    for (uint32_t i = 0; i < p->count; i++) {
        const struct host_pushed *out = &p->out[i];
        uint32_t mine = p->begin + i - h->plan.chunk_begin;
        if (!out->folded)
            continue;
        if (out->verdict == HOST_CONFLICT && h->declared && h->plan.audit >= 0)
            return late_conflict(h, p->step, p->who, p->node, mine, e);
        if (opinion_take(h, p->step, p->who, p->node, mine, p->hash[i], events))
            advance = true;
        if (out->news)
            root_take(h, p->begin + i, out->sumsq, events);
        advance = advance || out->news;
    }
    return advance ? step_advance(h, events, e) : 0;
}

int host_push(struct host *h, uint64_t step, uint64_t who, struct tree_node node, uint32_t chunk,
              const float *values, size_t n, const struct fold_sums *sums, uint64_t hash,
              enum host_verdict *verdict, unsigned *events, struct err *e)
{
    struct host_push p = {.step = step, .who = who, .node = node, .begin = chunk, .count = 1};
    int rc;

    *events = 0;
    p.values[0] = (float *)(uintptr_t)values; /* only what is lent is written to */
    p.n[0] = n;
    p.hash[0] = hash;
    if (sums != NULL)
        p.sums = *sums;
    rc = host_push_begin(h, &p, e);
    if (rc != 0)
        return rc;
    host_push_fold(h, &p, 0);
    *verdict = p.out[0].verdict;
    return host_push_end(h, &p, events, e);
}

int host_waive(struct host *h, uint64_t step, struct tree_node node, unsigned *events,
               struct err *e)
{
    *events = 0;
    if (!tree_node_is_valid(h->plan.units, node))
        return err_set(e, ERR_INVALID, "waive of node (%u, %u), a step has %u units", node.level,
                       node.index, h->plan.units);
    if (step != shard_version(h->shard) || h->frozen)
        return err_set(e, ERR_STALE, "waive of a node of step %" PRIu64, step);
    opinions_waive(h->opinions, node);
    return step_advance(h, events, e);
}

const struct host_judged *host_judged(const struct host *h, uint64_t i)
{
    return i < h->judged_n && h->judged_n - i <= HOST_JUDGED_MAX ? &h->judged[i % HOST_JUDGED_MAX]
                                                                 : NULL;
}

uint64_t host_judged_n(const struct host *h)
{
    return h->judged_n;
}

uint64_t host_audited(const struct host *h)
{
    return h->audited;
}

const struct opinions *host_opinions(const struct host *h)
{
    return h->opinions;
}

int host_replica(struct host *h, uint64_t step, uint32_t chunk, const float *values, size_t n,
                 const struct fold_sums *sums, uint64_t hash, uint64_t state,
                 enum host_verdict *verdict, unsigned *events, struct err *e)
{
    const struct host_plan *plan = &h->plan;
    enum replica_verdict taken;
    uint32_t mine = chunk - plan->copy_begin;
    uint64_t version;
    int rc;

    *events = 0;
    if (h->copy == NULL || chunk < plan->copy_begin || chunk >= plan->copy_end)
        return err_set(e, ERR_INVALID, "replica of chunk %u, the copy here is of [%u, %u)", chunk,
                       plan->copy_begin, plan->copy_end);
    if (n != shard_chunk_len(replica_shard(h->copy), mine))
        return err_set(e, ERR_INVALID, "replica of chunk %u with %zu floats, it has %zu", chunk, n,
                       shard_chunk_len(replica_shard(h->copy), mine));
    version = shard_version(replica_shard(h->copy));
    if (h->frozen)
        return err_set(e, ERR_STALE, "replica sent to a frozen host");
    if (step > version)
        return err_set(e, ERR_INVALID, "replica of step %" PRIu64 ", the copy is at %" PRIu64, step,
                       version);
    *verdict = HOST_STALE;
    if (step < version)
        return 0;
    rc = replica_take(h->copy, mine, values, chunk == 0 ? sums : NULL, hash, state, &taken, e);
    if (rc != 0)
        return rc;
    *verdict = taken == REPLICA_TAKEN   ? HOST_ACCEPTED
               : taken == REPLICA_KNOWN ? HOST_DUPLICATE
                                        : HOST_CORRUPT;
    if (taken == REPLICA_TAKEN && host_is_leader(h) && replica_is_complete(h->copy))
        return step_advance(h, events, e);
    return 0;
}

int host_replica_acked(struct host *h, uint64_t step, uint32_t begin, uint32_t n, unsigned *events,
                       struct err *e)
{
    bool news = false;

    *events = 0;
    if (!h->plan.replicate || begin < h->plan.chunk_begin || n > h->chunks ||
        begin > h->plan.chunk_end - n || step > shard_version(h->shard))
        return err_set(e, ERR_INVALID, "answer to replicas of chunks [%u, %u + %u), step %" PRIu64,
                       begin, begin, n, step);
    if (step < shard_version(h->shard) || h->frozen)
        return err_set(e, ERR_STALE, "answer to replicas of step %" PRIu64, step);
    begin -= h->plan.chunk_begin;
    for (uint32_t i = begin; i < begin + n; i++) {
        if (h->has_root[i] && !h->is_acked[i]) {
            h->is_acked[i] = news = true;
            h->acked++;
        }
    }
    return news ? step_advance(h, events, e) : 0;
}

bool host_replica_due(const struct host *h, uint32_t chunk)
{
    uint32_t mine = chunk - h->plan.chunk_begin;

    CHECK(mine < h->chunks);
    return h->plan.replicate && !h->frozen && h->has_root[mine] && !h->is_acked[mine];
}

const float *host_root(const struct host *h, uint32_t chunk, struct fold_sums *sums, uint64_t *hash)
{
    uint32_t mine = chunk - h->plan.chunk_begin;

    CHECK(mine < h->chunks && h->has_root[mine]);
    *hash = fold_root_hash(h->fold, mine);
    return fold_root(h->fold, mine, sums);
}

bool host_root_is_lent(const struct host *h, uint32_t chunk)
{
    return fold_root_is_lent(h->fold, chunk - h->plan.chunk_begin);
}

int host_roots(struct host *h, uint64_t step, uint32_t begin, const double *sumsq, uint32_t n,
               unsigned *events, struct err *e)
{
    *events = 0;
    if (!host_is_leader(h))
        return err_set(e, ERR_INVALID, "roots sent to a host that is not the leader");
    if (n > h->plan.chunks || begin > h->plan.chunks - n || begin < h->plan.chunk_end)
        return err_set(e, ERR_INVALID, "roots of chunks [%u, %u + %u) of %u", begin, begin, n,
                       h->plan.chunks);
    if (step > shard_version(h->shard))
        return err_set(e, ERR_INVALID, "roots of step %" PRIu64 ", the leader is at %" PRIu64, step,
                       shard_version(h->shard));
    if (step < shard_version(h->shard) || h->frozen)
        return err_set(e, ERR_STALE, "roots of step %" PRIu64 ", which is closed", step);
    for (uint32_t i = 0; i < n; i++)
        sumsq_take(h, begin + i, sumsq[i]);
    return step_advance(h, events, e);
}

int host_apply(struct host *h, const struct host_close *close, unsigned *events, struct err *e)
{
    *events = 0;
    if (host_is_leader(h))
        return err_set(e, ERR_INVALID, "apply sent to the leader");
    if (close->step < shard_version(h->shard))
        return err_set(e, ERR_STALE, "apply of step %" PRIu64 ", which was applied", close->step);
    if (h->frozen)
        return err_set(e, ERR_STALE, "apply sent to a frozen host");
    if (close->step > shard_version(h->shard) || !host_roots_complete(h) ||
        (h->copy != NULL && !replica_is_complete(h->copy)))
        return err_set(e, ERR_INVALID, "apply of step %" PRIu64 " before its roots are complete",
                       close->step);
    if (!close_is_sane(close))
        return err_set(e, ERR_INVALID, "apply with scale %g, rate %g, %" PRIu64 " tokens",
                       (double)close->scale, (double)close->lr, close->figures.tokens);
    h->last = *close;
    h->figures = close->figures;
    h->has_last = true;
    *events = step_apply(h);
    return 0;
}

void host_freeze(struct host *h, bool edge)
{
    if (edge && !host_is_done(h))
        h->freeze_at_edge = true;
    else
        h->frozen = true;
}

bool host_is_frozen(const struct host *h)
{
    return h->frozen;
}

unsigned host_roots_here(const struct host *h)
{
    unsigned has = 0;

    if (h->complete == h->chunks)
        has |= HOST_HAS_ROOTS;
    if (h->copy != NULL && replica_is_complete(h->copy))
        has |= HOST_HAS_COPY_ROOTS;
    return has;
}

void host_roll(struct host *h, const struct host_close *close)
{
    unsigned has = host_roots_here(h);

    if (!h->frozen || !close_is_sane(close))
        return;
    if (shard_version(h->shard) == close->step && (has & HOST_HAS_ROOTS) != 0) {
        own_apply(h, close->scale, close->lr);
        h->complete = 0; /* they belong to a closed step now */
        h->last = *close;
        h->has_last = true;
        h->figures = close->figures;
    }
    if (h->copy != NULL && (has & HOST_HAS_COPY_ROOTS) != 0 &&
        shard_version(replica_shard(h->copy)) == close->step)
        replica_apply(h->copy, &h->plan.adamw, close->scale, close->lr);
}

struct shard *host_find(struct host *h, uint32_t chunk, uint64_t version, uint32_t *at)
{
    if (!h->frozen)
        return NULL;
    *at = chunk - h->plan.chunk_begin;
    if (chunk >= h->plan.chunk_begin && chunk < h->plan.chunk_end &&
        shard_version(h->shard) == version)
        return h->shard;
    *at = chunk - h->plan.copy_begin;
    if (h->copy != NULL && chunk >= h->plan.copy_begin && chunk < h->plan.copy_end &&
        shard_version(replica_shard(h->copy)) == version)
        return replica_shard(h->copy);
    return NULL;
}

bool host_is_leader(const struct host *h)
{
    return h->plan.chunk_begin == 0;
}

bool host_roots_complete(const struct host *h)
{
    return h->complete == h->chunks && (!h->plan.replicate || h->acked == h->chunks) &&
           !opinions_hold(h->opinions);
}

const double *host_sumsq(const struct host *h)
{
    return h->sumsq;
}

const struct host_close *host_last(const struct host *h)
{
    return h->has_last ? &h->last : NULL;
}

const struct host_figures *host_figures(const struct host *h)
{
    return &h->figures;
}

struct shard *host_shard(struct host *h)
{
    return h->shard;
}

struct shard *host_copy(struct host *h)
{
    return h->copy != NULL ? replica_shard(h->copy) : NULL;
}

uint64_t host_version(const struct host *h)
{
    return shard_version(h->shard);
}

bool host_is_done(const struct host *h)
{
    return shard_version(h->shard) >= h->plan.steps;
}

size_t host_missing(struct host *h, struct tree_span *out, size_t cap)
{
    return host_is_done(h) ? 0 : fold_missing(h->fold, out, cap);
}
