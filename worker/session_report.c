/* What a host reports, as the message that tells it to the coordinator. */
#include <stdio.h>
#include <string.h>

#include "json/json.h"
#include "worker/session.h"

static char *figures_text(const struct ps_report *r)
{
    cJSON *o = cJSON_CreateObject();
    struct buf text = BUF_INIT;

    cJSON_AddNumberToObject(o, "final_loss",
                            r->figures.tail_steps > 0
                                ? r->figures.tail_loss / (double)r->figures.tail_steps
                                : r->figures.loss);
    cJSON_AddNumberToObject(o, "steps", (double)r->version);
    cJSON_AddNumberToObject(o, "tokens", (double)r->figures.tokens);
    cJSON_AddNumberToObject(o, "tokens_per_s", r->tokens_per_s);
    json_canonical(o, &text);
    cJSON_Delete(o);
    return buf_take(&text);
}

static enum control_type report_type(const struct ps_report *r)
{
    switch (r->type) {
    case PS_STATUS:
        return CONTROL_SESSION_STATUS;
    case PS_FAILED:
        return CONTROL_SESSION_FAILED;
    case PS_FROZEN:
        return CONTROL_SESSION_FROZEN;
    case PS_OPINION:
        return CONTROL_SESSION_OPINION;
    case PS_CHECKPOINT:
        break;
    }
    return r->last ? CONTROL_SESSION_DONE : CONTROL_SESSION_CHECKPOINT;
}

static void opinion_fill(const struct ps_report *r, struct control *m)
{
    const struct opinion *op = &r->opinion;

    m->step = r->step;
    m->level = op->node.level;
    m->node = op->node.index;
    m->chunk = op->chunk;
    m->settled = op->state == OPINION_SETTLED;
    m->tainted = op->tainted;
    m->odd = op->odd;
    m->opinions_n = op->voices_n;
    for (uint32_t i = 0; i < op->voices_n; i++)
        m->opinion[i] = (struct control_opinion){op->voice[i].who, op->voice[i].hash};
}

struct control *session_report(const struct ps_report *r)
{
    struct control *m = control_new(report_type(r));

    m->job = r->job;
    m->session = r->session;
    m->session_attempt = r->attempt;
    m->version = r->type == PS_FAILED ? CONTROL_VERSION_FAILED : r->version;
    m->manifest = r->manifest;
    m->loss = r->figures.loss;
    m->grad_norm = r->figures.grad_norm;
    m->lr = (double)r->lr;
    m->tokens = r->figures.tokens;
    m->tokens_per_s = r->tokens_per_s;
    m->partial = r->partial;
    m->open_ms = r->open_ms;
    m->damaged = r->damaged;
    m->missing_n = r->missing_n;
    for (uint32_t i = 0; i < r->missing_n; i++)
        m->missing[i] = (struct control_span){r->missing[i].begin, r->missing[i].end};
    if (m->share != NULL) {
        m->shares_n = r->shares_n;
        memcpy(m->share, r->share, r->shares_n * sizeof r->share[0]);
    }
    m->audited = r->audited;
    m->duplicates = r->duplicates;
    m->stale = r->stale;
    m->code = r->code;
    snprintf(m->text, sizeof m->text, "%s", r->text);
    if (r->type == PS_CHECKPOINT)
        m->result = figures_text(r);
    if (r->type == PS_OPINION)
        opinion_fill(r, m);
    if (r->type == PS_FROZEN) {
        m->tail_loss = r->figures.tail_loss;
        m->tail_steps = r->figures.tail_steps;
        m->roots = r->roots;
        m->close_step = r->close.step;
        m->scale = r->close.scale;
        m->rate = r->close.lr;
    }
    return m;
}
