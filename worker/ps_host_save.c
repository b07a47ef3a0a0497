#include "worker/ps_host_inner.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"

#define STATUS_MS 250
#define SAVING_MAX 2 /* copies of a shard that may wait for a slow store */

/* ---- reports --------------------------------------------------------------------------------- */

struct ps_report hosted_report(const struct hosted *x, enum ps_report_type type)
{
    const struct host_close *last = host_last(x->s->host);
    struct ps_report r = {.type = type,
                          .job = x->s->job,
                          .session = x->s->session,
                          .attempt = x->s->attempt,
                          .version = host_version(x->s->host),
                          .figures = *host_figures(x->s->host),
                          .tokens_per_s = x->tokens_per_s};

    r.lr = last != NULL ? last->lr : 0;
    r.tokens_here = r.figures.tokens - x->opened_tokens;
    r.partial = x->leader != NULL;
    r.duplicates = x->duplicates;
    r.stale = x->stale;
    for (int i = 0; i < x->members; i++) {
        r.duplicates += x->member[i].duplicates;
        r.stale += x->member[i].stale;
    }
    return r;
}

void hosted_share_note(struct hosted *x, uint64_t who, uint32_t units)
{
    uint32_t i = 0;

    while (i < x->shares_n && x->share[i].who != who)
        i++;
    if (i == WIRE_SHARES_MAX)
        return;
    if (i == x->shares_n)
        x->share[x->shares_n++] = (struct control_share){.who = who};
    x->share[i].units += units;
    x->share[i].ms = (uint32_t)(clock_ms() - x->version_ms);
}

void hosted_shares_close(struct hosted *x)
{
    memcpy(x->closed, x->share, x->shares_n * sizeof x->share[0]);
    x->closed_n = x->shares_n;
    x->shares_n = 0;
    x->version_ms = clock_ms();
}

void hosted_fail(struct ps_host *p, struct hosted *x, const struct err *why)
{
    struct ps_report r = hosted_report(x, PS_FAILED);

    if (x->failed)
        return;
    x->failed = true;
    r.code = (int)why->code;
    snprintf(r.text, sizeof r.text, "%.*s", (int)sizeof r.text - 1, why->msg);
    p->env.report(p->env.self, &r);
}

void hosted_status(struct ps_host *p, struct hosted *x, uint64_t now)
{
    const struct host_figures *f = host_figures(x->s->host);
    bool moved = host_version(x->s->host) != x->status_version;
    struct tree_span missing[WIRE_MISSING_MAX];
    size_t missing_n = 0;
    struct ps_report r;

    if (now - x->status_ms < STATUS_MS)
        return;
    if (now - x->version_ms >= STATUS_MS)
        missing_n = host_missing(x->s->host, missing, WIRE_MISSING_MAX);
    if (missing_n == 0 && (!moved || x->leader != NULL) && x->damaged == x->damaged_told)
        return;
    x->damaged_told = x->damaged;
    if (moved && now > x->rate_ms) {
        double rate = (double)(f->tokens - x->status_tokens) * 1000 / (double)(now - x->rate_ms);
        x->tokens_per_s = x->tokens_per_s > 0 ? 0.8 * x->tokens_per_s + 0.2 * rate : rate;
    }
    x->status_ms = now;
    if (moved) {
        x->status_tokens = f->tokens;
        x->rate_ms = now;
    }
    x->status_version = host_version(x->s->host);
    r = hosted_report(x, PS_STATUS);
    r.open_ms = now - x->version_ms;
    r.damaged = x->damaged;
    r.audited = host_audited(x->s->host);
    r.missing_n = (uint32_t)missing_n;
    memcpy(r.missing, missing, missing_n * sizeof missing[0]);
    r.shares_n = x->closed_n;
    memcpy(r.share, x->closed, x->closed_n * sizeof x->closed[0]);
    p->env.report(p->env.self, &r);
}

void ps_session_begins(void *session, uint64_t version)
{
    struct ps_session *s = session;

    if (s->region != NULL)
        region_stamp(s->region, version);
    for (int i = 0; i < PS_UNSAVED_MAX; i++) {
        if (s->unsaved[i] != NULL)
            saver_job_keep(s->unsaved[i]);
        s->unsaved[i] = NULL;
    }
}

/* ---- checkpoints ----------------------------------------------------------------------------- */

void hosted_checkpoint(struct ps_host *p, struct hosted *x)
{
    const struct shard *shard = host_shard(x->s->host);
    struct saver_job *j;
    int unsaved = 0;

    while (unsaved < PS_UNSAVED_MAX && x->s->unsaved[unsaved] != NULL)
        unsaved++;
    if (x->saving >= SAVING_MAX && !host_is_done(x->s->host)) {
        log_warn("checkpoint.left_out", "session=%" PRIu64 " version=%" PRIu64 " waiting=%d",
                 x->s->session, shard_version(shard), x->saving);
        return;
    }
    x->saving++;
    j = saver_job_new(shard, x->s->plan.chunk_begin);
    j->session = x->s->session;
    j->attempt = x->s->attempt;
    if (x->s->plan.begins == ps_session_begins && unsaved < PS_UNSAVED_MAX)
        x->s->unsaved[unsaved] = j;
    else
        saver_job_keep(j); /* nobody will tell when the shard changes */
    if (host_is_leader(x->s->host)) {
        struct collect *c = &x->collect[0];
        for (int i = 1; i < COLLECT_MAX;
             i++) /* a free place, else the oldest: it will never be complete */
            if (c->digest != NULL &&
                (x->collect[i].digest == NULL || x->collect[i].version < c->version))
                c = &x->collect[i];
        free(c->digest);
        *c = (struct collect){j->version, *host_figures(x->s->host), 0,
                              mem_zalloc(x->s->plan.chunks, sizeof *c->digest)};
    }
    saver_put(p->saver, j);
}

/* Leader: digests of chunks [begin, begin + n). Publishes the manifest when all are there. */
static void collect_add(struct ps_host *p, struct hosted *x, uint64_t version, uint32_t begin,
                        uint32_t n, const struct digest *digest)
{
    struct collect *c = NULL;
    struct saver_job *j;

    for (int i = 0; i < COLLECT_MAX; i++)
        if (x->collect[i].digest != NULL && x->collect[i].version == version)
            c = &x->collect[i];
    if (c == NULL)
        return; /* published before, or given up */
    for (uint32_t i = begin; i < begin + n; i++) {
        if (c->digest[i].hex[0] == '\0')
            c->have++;
        c->digest[i] = digest[i - begin];
    }
    if (c->have < x->s->plan.chunks)
        return;
    j = saver_manifest_new();
    j->session = x->s->session;
    j->attempt = x->s->attempt;
    j->version = version;
    *j->manifest = (struct ckpt_manifest){.params = x->s->plan.layout->count,
                                          .step = version,
                                          .steps = x->s->plan.steps,
                                          .seed = x->s->seed,
                                          .chunk_elems = x->s->plan.chunk_elems,
                                          .units = x->s->units,
                                          .global_batch = x->s->global_batch,
                                          .init = x->s->init,
                                          .examples = x->s->examples,
                                          .bf16 = x->s->bf16,
                                          .figures = c->figures,
                                          .chunks = x->s->plan.chunks,
                                          .chunk = c->digest};
    c->digest = NULL;
    saver_put(p->saver, j);
}

void hosted_saved_send(struct hosted *x)
{
    uint8_t head[PARAMS_HEAD_MAX];
    struct params_head h = hosted_head(x, PARAMS_SAVED, x->saved->version);
    struct link_frame frames[2];
    struct buf hex = BUF_INIT;
    struct err e;

    h.chunk = x->saved->chunk_begin;
    h.count = x->saved->chunks;
    fault_hit(FAULT_CKPT_SAVED_BEFORE);
    for (uint32_t i = 0; i < x->saved->chunks; i++)
        buf_add(&hex, x->saved->digest[i].hex, DIGEST_HEX);
    frames[1] = (struct link_frame){.data = hex.data, .len = hex.len};
    params_pack(&h, head, frames, 2);
    link_send(x->leader, NULL, frames, 2, &e);
    x->saved_ms = clock_ms();
    buf_free(&hex);
}

/* The saver is done with something of ours. */
void hosted_saved(struct ps_host *p, struct hosted *x, struct saver_job *j)
{
    x->saving -= j->manifest == NULL;
    for (int i = 0; i < PS_UNSAVED_MAX; i++)
        if (x->s->unsaved[i] == j)
            x->s->unsaved[i] = NULL;
    if (j->rc != 0) {
        err_wrap(&j->err, "checkpoint of version %" PRIu64, j->version);
        hosted_fail(p, x, &j->err);
    } else if (j->manifest != NULL) {
        struct ps_report r = hosted_report(x, PS_CHECKPOINT);
        uint64_t took = clock_ms() - x->opened_ms;
        r.version = j->version;
        r.figures = j->manifest->figures;
        r.figures.loss = host_figures(x->s->host)->loss;
        r.figures.grad_norm = host_figures(x->s->host)->grad_norm;
        r.manifest = j->manifest_digest;
        r.last = j->version == x->s->plan.steps;
        r.tokens_here = r.figures.tokens - x->opened_tokens;
        r.tokens_per_s = took > 0 ? (double)r.tokens_here * 1000 / (double)took : 0;
        p->env.report(p->env.self, &r);
    } else if (x->leader == NULL) {
        collect_add(p, x, j->version, j->chunk_begin, j->chunks, j->digest);
    } else {
        saver_job_free(x->saved); /* an older one that the leader has not heard of will never be
                                     complete there */
        x->saved = j;
        hosted_saved_send(x);
        return;
    }
    saver_job_free(j);
}

/* Leader: another host has published its chunks. */
void hosted_saved_message(struct ps_host *p, struct hosted *x, const struct link_peer *peer,
                          const struct params_head *h, const struct link_frame *frame)
{
    uint8_t head[PARAMS_HEAD_MAX];
    struct params_head answer = hosted_head(x, PARAMS_SAVED, h->step);
    struct digest *digest;
    struct link_frame out;
    struct err e;

    if (x->leader != NULL || h->count > x->s->plan.chunks ||
        h->chunk > x->s->plan.chunks - h->count || frame->len != (size_t)h->count * DIGEST_HEX) {
        p->dropped++;
        return;
    }
    digest = mem_zalloc(h->count, sizeof *digest);
    for (uint32_t i = 0; i < h->count; i++) {
        memcpy(digest[i].hex, (const char *)frame->data + (size_t)i * DIGEST_HEX, DIGEST_HEX);
        if (!digest_is_valid(digest[i].hex)) {
            p->dropped++;
            free(digest);
            return;
        }
    }
    collect_add(p, x, h->step, h->chunk, h->count, digest);
    free(digest);
    params_pack(&answer, head, &out, 1);
    link_send(p->router, peer, &out, 1, &e);
}
