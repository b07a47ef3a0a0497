/* What a session needs before it starts: spec, initial model, examples; and that they fit. */
#include <inttypes.h>
#include <string.h>

#include "jobs/kind.h"
#include "json/json_file.h"
#include "model/bf16.h"
#include "ps/ckpt.h"
#include "worker/session_inner.h"

#define FETCH_DEADLINE_MS 600000

int session_fetch(void *self, const char *digest, char *path, size_t cap, struct err *e)
{
    struct session *s = self;

    if (atomic_load(&s->closed))
        return err_set(e, ERR_CANCELLED, "the session was closed");
    return artifact_fetch(s->env.artifacts, digest, FETCH_DEADLINE_MS, path, cap, e);
}

static int spec_fetch(struct session *s, struct err *e)
{
    cJSON *context = NULL;
    char path[4096];
    int rc;

    rc = session_fetch(s, s->open->context.hex, path, sizeof path, e);
    if (rc == 0)
        rc = json_file_read(path, KIND_CONTEXT_MAX, JSON_LIMITS_FILE, &context, e);
    if (rc == 0)
        rc = spec_from_json(json_get(context, "spec"), &s->spec, e);
    cJSON_Delete(context);
    return rc != 0 ? err_wrap(e, "context of the session") : 0;
}

/* What the coordinator says must fit what the artefacts hold. */
static int open_check(const struct session *s, struct err *e)
{
    const struct control *o = s->open;
    uint64_t chunks = (o->params + o->chunk_elems - 1) / o->chunk_elems;
    uint32_t at = 0;

    if (o->params != s->model.layout.count)
        return err_set(e, ERR_INVALID,
                       "the session has %" PRIu64 " parameters, its initial model %zu", o->params,
                       s->model.layout.count);
    if (chunks > CKPT_CHUNKS_MAX) /* nobody could read its checkpoints */
        return err_set(e, ERR_LIMIT, "%" PRIu64 " chunks, the limit is %u: raise chunk_elems",
                       chunks, CKPT_CHUNKS_MAX);
    for (uint32_t i = 0; i < o->hosts_n; i++) {
        if (o->host[i].chunk_begin != at || o->host[i].chunk_end <= at)
            return err_set(e, ERR_INVALID,
                           "hosts must have all chunks in order; host %u begins at %u, not %u", i,
                           o->host[i].chunk_begin, at);
        at = o->host[i].chunk_end;
    }
    if (at != chunks)
        return err_set(e, ERR_INVALID, "hosts have %u of %" PRIu64 " chunks", at, chunks);
    return 0;
}

const struct control_host *session_host_of(const struct session *s)
{
    for (uint32_t i = 0; i < s->open->hosts_n; i++)
        if (strcmp(s->open->host[i].worker, s->env.worker) == 0)
            return &s->open->host[i];
    return NULL;
}

/* The initial model's parameters are needed: we host, and there is nothing newer. */
static bool starts_fresh(const struct session *s)
{
    return session_host_of(s) != NULL && s->open->from_attempt == 0 &&
           s->open->manifest.hex[0] == '\0';
}

int session_needs(struct session *s, struct err *e)
{
    const struct control *o = s->open;
    char path[4096];
    int rc;

    if (o->units == 0 || o->units > TREE_UNITS_MAX || o->chunk_elems == 0 || o->global_batch == 0 ||
        o->steps == 0 || o->params == 0)
        return err_set(e, ERR_INVALID,
                       "a session of %u units, %u samples, %" PRIu64 " steps, %" PRIu64
                       " parameters in chunks of %u",
                       o->units, o->global_batch, o->steps, o->params, o->chunk_elems);
    if ((rc = spec_fetch(s, e)) != 0)
        return rc;
    s->half = strcmp(s->spec->train.wire, "bf16") == 0;
    if (spec_trains_bf16(s->spec) && bf16_how() == BF16_NONE)
        return err_set(e, ERR_UNSUPPORTED, "the session multiplies bfloat16, this worker does not");
    if ((rc = session_fetch(s, o->init.hex, path, sizeof path, e)) != 0 ||
        (rc = model_load(path, starts_fresh(s) ? MODEL_WEIGHTS : 0, &s->model, e)) != 0)
        return err_wrap(e, "initial model");
    s->has_model = true;
    return open_check(s, e);
}

int session_examples(struct session *s, struct err *e)
{
    const struct control *o = s->open;
    char path[4096];
    int rc;

    if ((rc = session_fetch(s, o->examples.hex, path, sizeof path, e)) != 0 ||
        (rc = examples_open(path, &s->examples, e)) != 0)
        return err_wrap(e, "training examples");
    if (examples_count(s->examples) == 0)
        return err_set(e, ERR_INVALID, "there are no training examples");
    if (examples_vocab(s->examples) > s->model.dims.vocab)
        return err_set(e, ERR_INVALID, "training examples use %d tokens, the model has %d",
                       examples_vocab(s->examples), s->model.dims.vocab);
    if (examples_length_max(s->examples) > (uint32_t)s->model.dims.context)
        return err_set(e, ERR_INVALID,
                       "training examples have a sequence of %u tokens, the model's context is %d",
                       examples_length_max(s->examples), s->model.dims.context);
    s->task = (struct train_task){
        .dims = &s->model.dims,
        .params = s->model.layout.count,
        .examples = s->examples,
        .drop = {(float)s->spec->condition.drop_each, (float)s->spec->condition.drop_all},
        .seed = o->seed,
        .steps = o->steps,
        .global_batch = o->global_batch,
        .units = o->units,
        .chunk_elems = o->chunk_elems,
        .half = s->half,
        .recompute = s->spec->train.recompute,
        .arithmetic = spec_trains_bf16(s->spec) ? GEMM_BF16 : GEMM_F32};
    return 0;
}
