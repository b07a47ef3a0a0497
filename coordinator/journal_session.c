/*
 * The row of a training session: its attempt and hosts, its last checkpoints, and, while hosts
 * change, who holds what in memory, so that a coordinator that starts again takes the change up
 * where it was. Figures are written with all their digits: they are part of the run's result.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/journal_inner.h"

static void frozen_add(cJSON *to, const struct sched_frozen *f)
{
    cJSON *o = cJSON_AddObjectToObject(to, "at");

    cJSON_AddNumberToObject(o, "version", (double)f->version);
    cJSON_AddNumberToObject(o, "roots", f->roots);
    cJSON_AddNumberToObject(o, "close", (double)f->close_step);
    cJSON_AddNumberToObject(o, "scale", f->scale);
    cJSON_AddNumberToObject(o, "rate", f->rate);
    cJSON_AddNumberToObject(o, "loss", f->loss);
    cJSON_AddNumberToObject(o, "grad_norm", f->grad_norm);
    cJSON_AddNumberToObject(o, "lr", f->lr);
    cJSON_AddNumberToObject(o, "tail_loss", f->tail_loss);
    cJSON_AddNumberToObject(o, "tokens", (double)f->tokens);
    cJSON_AddNumberToObject(o, "tail_steps", (double)f->tail_steps);
}

static void frozen_parse(const cJSON *from, struct sched_frozen *f)
{
    const cJSON *o = json_get(from, "at");

    f->version = (uint64_t)json_int_or(o, "version", 0);
    f->roots = (uint32_t)json_int_or(o, "roots", 0);
    f->close_step = (uint64_t)json_int_or(o, "close", 0);
    f->scale = json_number_or(o, "scale", 0);
    f->rate = json_number_or(o, "rate", 0);
    f->loss = json_number_or(o, "loss", 0);
    f->grad_norm = json_number_or(o, "grad_norm", 0);
    f->lr = json_number_or(o, "lr", 0);
    f->tail_loss = json_number_or(o, "tail_loss", 0);
    f->tokens = (uint64_t)json_int_or(o, "tokens", 0);
    f->tail_steps = (uint64_t)json_int_or(o, "tail_steps", 0);
}

static void hosts_add(cJSON *o, const struct sched_session *ss)
{
    cJSON *hosts = cJSON_AddArrayToObject(o, "hosts"); /* none when no attempt is open */

    for (int i = 0; i < ss->hosts_n; i++) {
        cJSON *h = cJSON_CreateObject();

        cJSON_AddStringToObject(h, "worker", ss->host[i].worker);
        cJSON_AddNumberToObject(h, "begin", ss->host[i].chunk_begin);
        cJSON_AddNumberToObject(h, "end", ss->host[i].chunk_end);
        if (ss->host[i].lost)
            cJSON_AddTrueToObject(h, "lost");
        cJSON_AddItemToArray(hosts, h);
    }
}

/* While hosts are being frozen their answers are not kept: they are asked again. */
static void sources_add(cJSON *o, const struct sched_session *ss)
{
    cJSON *sources = cJSON_AddArrayToObject(o, "sources");

    for (int i = 0; ss->from_attempt != 0 && i < ss->sources_n; i++) {
        const struct sched_source *x = &ss->source[i];
        cJSON *h = cJSON_CreateObject();

        cJSON_AddStringToObject(h, "worker", x->worker);
        cJSON_AddNumberToObject(h, "begin", x->chunk_begin);
        cJSON_AddNumberToObject(h, "end", x->chunk_end);
        cJSON_AddNumberToObject(h, "copy_begin", x->copy_begin);
        cJSON_AddNumberToObject(h, "copy_end", x->copy_end);
        if (x->gone)
            cJSON_AddTrueToObject(h, "gone");
        frozen_add(h, &x->frozen);
        cJSON_AddItemToArray(sources, h);
    }
    if (ss->from_attempt != 0)
        frozen_add(o, &ss->start);
}

static void ckpts_add(cJSON *o, const struct sched_session *ss)
{
    cJSON *list = cJSON_AddArrayToObject(o, "checkpoints");

    for (int i = 0; i < ss->ckpts_n; i++) {
        cJSON *c = cJSON_CreateObject();

        cJSON_AddStringToObject(c, "manifest", ss->ckpt[i].manifest.hex);
        cJSON_AddNumberToObject(c, "version", (double)ss->ckpt[i].version);
        cJSON_AddItemToArray(list, c);
    }
}

char *journal_session_text(const struct sched_session *ss)
{
    struct buf text = BUF_INIT;
    cJSON *o = NULL;

    if (ss == NULL)
        return NULL;
    o = cJSON_CreateObject();
    cJSON_AddNumberToObject(o, "id", (double)ss->id);
    cJSON_AddNumberToObject(o, "attempt", (double)ss->attempt);
    cJSON_AddNumberToObject(o, "version", (double)ss->manifest_version);
    cJSON_AddStringToObject(o, "manifest", ss->manifest.hex);
    cJSON_AddNumberToObject(o, "faults", ss->faults);
    cJSON_AddNumberToObject(o, "losses", ss->losses);
    cJSON_AddNumberToObject(o, "assignment", (double)ss->assignment);
    cJSON_AddNumberToObject(o, "start_version", (double)ss->start_version);
    cJSON_AddBoolToObject(o, "stepped", ss->stepped);
    cJSON_AddBoolToObject(o, "replicated", ss->replicated);
    cJSON_AddNumberToObject(o, "change", ss->change);
    cJSON_AddNumberToObject(o, "from_attempt", (double)ss->from_attempt);
    ckpts_add(o, ss);
    hosts_add(o, ss);
    sources_add(o, ss);
    json_canonical(o, &text);
    cJSON_Delete(o);
    return buf_take(&text);
}

static void hosts_parse(const cJSON *o, struct sched_session *ss)
{
    const cJSON *h = NULL;

    cJSON_ArrayForEach(h, json_get(o, "hosts"))
    {
        struct sched_host *host = &ss->host[ss->hosts_n];

        if (ss->hosts_n == SCHED_HOSTS_MAX)
            break;
        snprintf(host->worker, sizeof host->worker, "%s", json_string_or(h, "worker", ""));
        host->chunk_begin = (uint32_t)json_int_or(h, "begin", 0);
        host->chunk_end = (uint32_t)json_int_or(h, "end", 0);
        host->lost = cJSON_IsTrue(json_get(h, "lost"));
        ss->hosts_n++;
    }
}

static void sources_parse(const cJSON *o, struct sched_session *ss)
{
    const cJSON *h = NULL;

    cJSON_ArrayForEach(h, json_get(o, "sources"))
    {
        struct sched_source *x = &ss->source[ss->sources_n];

        if (ss->sources_n == SCHED_HOSTS_MAX)
            break;
        snprintf(x->worker, sizeof x->worker, "%s", json_string_or(h, "worker", ""));
        x->chunk_begin = (uint32_t)json_int_or(h, "begin", 0);
        x->chunk_end = (uint32_t)json_int_or(h, "end", 0);
        x->copy_begin = (uint32_t)json_int_or(h, "copy_begin", 0);
        x->copy_end = (uint32_t)json_int_or(h, "copy_end", 0);
        x->gone = cJSON_IsTrue(json_get(h, "gone"));
        x->answered = true;
        frozen_parse(h, &x->frozen);
        ss->sources_n++;
    }
    frozen_parse(o, &ss->start);
}

static void ckpts_parse(const cJSON *o, struct sched_session *ss)
{
    const cJSON *c = NULL;

    cJSON_ArrayForEach(c, json_get(o, "checkpoints"))
    {
        struct sched_ckpt *to = &ss->ckpt[ss->ckpts_n];

        if (ss->ckpts_n == SCHED_CKPTS_MAX)
            break;
        snprintf(to->manifest.hex, sizeof to->manifest.hex, "%s",
                 json_string_or(c, "manifest", ""));
        to->version = (uint64_t)json_int_or(c, "version", 0);
        ss->ckpts_n++;
    }
    if (ss->ckpts_n == 0 && ss->manifest.hex[0] != '\0') /* a row of an older build */
        ss->ckpt[ss->ckpts_n++] = (struct sched_ckpt){ss->manifest, ss->manifest_version};
}

void journal_session_parse(const cJSON *o, struct sched_session *ss)
{
    ss->id = (uint64_t)json_int_or(o, "id", 0);
    ss->attempt = (uint64_t)json_int_or(o, "attempt", 0);
    ss->manifest_version = (uint64_t)json_int_or(o, "version", 0);
    ss->faults = (uint32_t)json_int_or(o, "faults", 0);
    ss->losses = (uint32_t)json_int_or(o, "losses", 0);
    snprintf(ss->manifest.hex, sizeof ss->manifest.hex, "%s", json_string_or(o, "manifest", ""));
    ss->assignment = (uint64_t)json_int_or(o, "assignment", 0);
    ss->start_version = (uint64_t)json_int_or(o, "start_version", 0);
    ss->version =
        ss->manifest_version > ss->start_version ? ss->manifest_version : ss->start_version;
    ss->stepped = cJSON_IsTrue(json_get(o, "stepped"));
    ss->replicated = cJSON_IsTrue(json_get(o, "replicated"));
    ss->change = json_int_or(o, "change", 0) != 0 ? CHANGE_AGAIN : CHANGE_NONE;
    ss->from_attempt = (uint64_t)json_int_or(o, "from_attempt", 0);
    ckpts_parse(o, ss);
    hosts_parse(o, ss);
    sources_parse(o, ss);
    ss->adopting = ss->hosts_n > 0;
}
