/*
 * generate: replies of a policy to contexts of a data set, or texts from nothing, for every
 * combination of the settings.
 *
 * generate.items lists what is wanted: contexts x settings x samples, in that order. generate.rows
 * decodes a range of the list (bootstrap.sample does the same with its own list): JSON lines {"i":
 * item, "text", "n": tokens, "end", "logprob"}. generate.reduce makes a data set of it: the turns
 * before, and the reply with the levels that were asked for.
 */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/rng.h"
#include "jobs/run_items.h"
#include "jobs/run_replies.h"

/* ---- items ----------------------------------------------------------------------------------- */

struct settings {
    int n;
    int8_t (*level)[SCHEMA_ATTRS_MAX];
};
#define SETTINGS_MAX 4096

static int attr_find(const struct schema *s, const char *name, int level, int *attr, struct err *e)
{
    *attr = schema_find_attr(s, name);
    if (*attr < 0)
        return err_set(e, ERR_INVALID, "the model has no attribute \"%s\"", name);
    if (level < -1 || level >= s->attr[*attr].levels)
        return err_set(e, ERR_INVALID, "level %d of attribute \"%s\", must be in 0..%d", level,
                       name, s->attr[*attr].levels - 1);
    return 0;
}

/* Every combination of the sweeps on top of the fixed levels; the last sweep runs fastest. */
static int settings_make(const struct generate_spec *g, const struct schema *s,
                         struct settings *out, struct err *e)
{
    int8_t fixed[SCHEMA_ATTRS_MAX];
    int attr, rc;

    memset(fixed, -1, sizeof(fixed));
    out->n = 1;
    for (int i = 0; i < g->attributes_n; i++) {
        if ((rc = attr_find(s, g->attributes[i].attr, g->attributes[i].level, &attr, e)) != 0)
            return rc;
        fixed[attr] = (int8_t)g->attributes[i].level;
    }
    for (int i = 0; i < g->sweep_n; i++) {
        if (g->sweep[i].levels.n < 1 || out->n > SETTINGS_MAX / g->sweep[i].levels.n)
            return err_set(e, ERR_LIMIT, "generate.sweep makes more than %d combinations",
                           SETTINGS_MAX);
        out->n *= g->sweep[i].levels.n;
    }
    out->level = mem_zalloc((size_t)out->n, sizeof(*out->level));
    for (int k = 0; k < out->n; k++) {
        int left = k;
        memcpy(out->level[k], fixed, sizeof(fixed));
        for (int i = g->sweep_n; i-- > 0;) {
            const struct int_list *list = &g->sweep[i].levels;
            int level = list->v[left % list->n];
            left /= list->n;
            if ((rc = attr_find(s, g->sweep[i].attr, level, &attr, e)) != 0)
                return rc;
            out->level[k][attr] = (int8_t)level;
        }
    }
    return 0;
}

static int items_fill(const struct generate_spec *g, const struct settings *settings,
                      const struct run_context *contexts, size_t n, struct run_items *items,
                      struct err *e)
{
    size_t places = contexts != NULL ? n : (size_t)g->from_nothing;
    uint64_t all = (uint64_t)places * (uint64_t)settings->n * (uint64_t)g->n;

    if (all == 0 || all > RUN_ITEMS_MAX)
        return err_set(e, ERR_LIMIT, "%llu replies, must be 1..%u", (unsigned long long)all,
                       RUN_ITEMS_MAX);
    for (size_t c = 0; c < places; c++) {
        for (int k = 0; k < settings->n; k++) {
            for (int j = 0; j < g->n; j++) {
                struct run_item *item = run_items_add(items);
                item->key = contexts != NULL ? run_context_key(contexts[c]) : c;
                item->sample = (uint32_t)j;
                item->has_context = contexts != NULL;
                if (contexts != NULL)
                    item->context = contexts[c];
                memcpy(item->level, settings->level[k], sizeof(item->level));
            }
        }
    }
    return 0;
}

int run_generate_items(const struct run_task *t, const struct run_env *env, struct run_result *r,
                       struct err *e)
{
    const struct generate_spec *g = &t->spec->generate;
    struct model m = {0};
    struct dataset d = {0};
    struct settings settings = {0};
    struct run_context *contexts = NULL;
    struct run_items items = {0};
    size_t n = 0;
    int rc = run_policy(t, env, "model", 0, &m, e);

    if (rc == 0)
        rc = settings_make(g, &m.steer.template_config.schema, &settings, e);
    if (rc == 0 && run_input_count(t, "prompts") > 0) {
        rc = run_dataset(t, env, "prompts", &d, e);
        if (rc == 0)
            rc = run_contexts(&d, g->split[0] != '\0' ? g->split : "held_out", (size_t)g->prompts,
                              t->spec->seed, &contexts, &n, e);
    }
    if (rc == 0)
        rc = items_fill(g, &settings, contexts, n, &items, e);
    if (rc == 0)
        rc = run_items_publish(&items, m.steer.template_config.schema.attrs, env, r, e);
    if (rc == 0) {
        run_metric(r, "contexts", contexts != NULL ? (double)n : (double)g->from_nothing);
        run_metric(r, "settings", (double)settings.n);
    }
    run_items_free(&items);
    free(contexts);
    free(settings.level);
    dataset_free(&d);
    model_fini(&m);
    return rc;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void replies_write(const struct run_reply *replies, size_t n, uint64_t first, struct buf *b)
{
    for (size_t i = 0; i < n; i++) {
        const struct run_reply *reply = &replies[i];
        buf_printf(b, "{\"end\":\"%s\",\"i\":%llu,\"logprob\":", decode_end_name(reply->end),
                   (unsigned long long)(first + i));
        run_number(b, reply->logprob);
        buf_printf(b, ",\"n\":%u,\"text\":", reply->tokens);
        json_quote(reply->text, reply->len, b);
        buf_str(b, "}\n");
    }
}

/* Ranges are added up, so there are no rates: they are quotients of these. */
static void rates_set(struct run_result *r, const struct run_rates *rates)
{
    run_metric(r, "tokens", (double)rates->tokens);
    run_metric(r, "prompt_tokens", (double)rates->prompt_rows);
    run_metric(r, "prompt_tokens_shared", (double)rates->shared_rows);
    run_metric(r, "steps", (double)rates->steps);
    run_metric(r, "slot_steps", (double)rates->slot_steps);
    run_metric(r, "wall_ms", rates->wall_ms);
}

/* Levels of the turns before are said only where they mean what the model's own levels mean. */
static void levels_keep(const struct model *m, struct dataset *d)
{
    struct err ignored = {0};

    if (schema_same(&m->steer.template_config.schema, &d->schema, &ignored) == 0)
        return;
    for (size_t i = 0; i < d->conversations; i++)
        for (uint32_t k = 0; k < d->conversation[i].turns; k++)
            d->conversation[i].turn[k].level = NULL;
}

/* Nobody has said how long the replies of a plain model are: as long as they may get here, but at most half of the context. */
static void room_keep(struct model *m, const struct sampling *s)
{
    int half = m->dims.context / 2;

    if (m->steer.role == STEER_NONE)
        m->steer.template_config.max_reply_tokens =
            s->max_new_tokens < half ? s->max_new_tokens : half;
}

int run_generate_rows(const struct run_task *t, const struct run_env *env, struct run_result *r,
                      struct err *e)
{
    bool bootstrap = strcmp(t->kind, "bootstrap.sample") == 0;
    const struct sampling *s =
        bootstrap ? &t->spec->bootstrap.sampling : &t->spec->generate.sampling;
    struct model m = {0};
    struct dataset d = {0};
    struct arena arena = ARENA_INIT;
    struct run_items items = {0};
    struct run_prompt *prompts = NULL;
    struct run_reply *replies = NULL;
    struct run_rates rates = {0};
    struct buf lines = BUF_INIT;
    int rc = run_policy(t, env, "model", MODEL_ALL, &m, e);

    if (rc == 0)
        rc = run_items_load(t, env, bootstrap ? "bootstrap.items" : "generate.items",
                            &m.steer.template_config.schema, t->begin, t->end, &items, e);
    if (rc == 0)
        rc = run_items_dataset(&items, t, env, bootstrap ? "data" : "prompts", &d, &arena, e);
    if (rc == 0) {
        levels_keep(&m, &d);
        room_keep(&m, s);
        rc = run_items_prompts(&items, &m, &d, s, &prompts, e);
    }
    if (rc == 0) {
        replies = mem_zalloc(items.n + 1, sizeof(*replies));
        rc = run_decode(
            &m,
            run_decode_weights(bootstrap ? &t->spec->bootstrap.decode : &t->spec->generate.decode),
            bootstrap ? NULL : &t->spec->generate.stop, t->spec->seed, prompts, items.n, env,
            replies, &rates, e);
    }
    if (rc == 0) {
        replies_write(replies, items.n, t->begin, &lines);
        rc = run_part_publish(t, env, r, &lines, e);
    }
    if (rc == 0)
        rates_set(r, &rates);
    buf_free(&lines);
    run_replies_free(replies, items.n);
    run_prompts_free(prompts, items.n);
    run_items_free(&items);
    dataset_free(&d);
    arena_free(&arena);
    model_fini(&m);
    return rc;
}

/* ---- reduce ---------------------------------------------------------------------------------- */

/* Sentence ends of a text: after . ! or ? and a closing quote, at a blank or the end. Gives how many there are, and the length of the
 * text up to number `wanted`. */
static uint32_t sentence_ends(const char *text, size_t len, uint32_t wanted, size_t *cut)
{
    uint32_t ends = 0;

    for (size_t i = 0; i < len; i++) {
        size_t end = i + 1;
        if (strchr(".!?", text[i]) == NULL || text[i] == '\0')
            continue;
        if (end < len && text[end] == '"')
            end++;
        if (end < len && text[end] != ' ' && text[end] != '\n')
            continue;
        if (ends++ == wanted)
            *cut = end;
    }
    return ends;
}

/* Bytes of a reply that are kept: all, or up to a sentence end drawn at random (every one is as likely). */
static size_t reply_length(const struct run_task *t, const struct run_reply *reply, size_t item)
{
    size_t len = reply->len;
    uint32_t ends;

    if (strcmp(t->spec->generate.cut, "sentence") != 0)
        return len;
    ends = sentence_ends(reply->text, reply->len, UINT32_MAX, &len);
    if (ends > 0)
        sentence_ends(
            reply->text, reply->len,
            rng_below(t->spec->seed, RNG_PICK, 1, (uint32_t)(item >> 32), (uint32_t)item, ends),
            &len);
    return len;
}

static int replies_to_dataset(const struct run_task *t, const struct run_items *items,
                              const struct run_replies *replies, const struct dataset *d,
                              const struct schema *s, const char *dir, struct err *e)
{
    struct dataset_writer *w = NULL;
    struct arena a = ARENA_INIT;
    cJSON *meta = cJSON_CreateObject();
    int rc = dataset_writer_new(dir, s, &w, e);

    for (size_t i = 0; i < items->n && rc == 0; i++) {
        const struct run_reply *reply = &replies->v[i];
        struct conversation c;
        size_t len = reply_length(t, reply, i);
        if (len == 0)
            continue; /* counted by run_replies_metrics() */
        arena_clear(&a);
        run_item_conversation(&items->v[i], i, d, reply->text, len, s, &a, &c);
        memcpy(c.turn[c.turns - 1].level, items->v[i].level, (size_t)s->attrs);
        c.turn[c.turns - 1].tokens = len == reply->len ? reply->tokens : 0;
        rc = dataset_write(w, &c, e);
    }
    if (rc == 0) {
        if (d->meta != NULL)
            cJSON_AddItemToObject(meta, "keep", run_keep_to_json(run_keep_of(d)));
        cJSON_AddStringToObject(meta, "levels", "requested");
        rc = dataset_writer_end(&w, meta, e);
    }
    dataset_writer_abort(&w);
    arena_free(&a);
    cJSON_Delete(meta);
    return rc;
}

int run_generate_reduce(const struct run_task *t, const struct run_env *env, struct run_result *r,
                        struct err *e)
{
    struct model m = {0};
    struct dataset d = {0};
    struct arena arena = ARENA_INIT;
    struct run_items items = {0};
    struct run_replies replies = {0};
    const struct schema *s = &m.steer.template_config.schema;
    char *dir = mem_printf("%s/data", env->scratch);
    int rc = run_policy(t, env, "model", 0, &m, e);

    if (rc == 0)
        rc = run_items_load(t, env, "generate.items", s, 0, 0, &items, e);
    if (rc == 0)
        rc = run_items_dataset(&items, t, env, "prompts", &d, &arena, e);
    if (rc == 0)
        rc = run_replies_load(t, env, "generate.rows", items.n, &replies, e);
    if (m.steer.role ==
        STEER_NONE) /* a plain model knows no attributes: those of the spec are what comes next */
        s = &t->spec->schema;
    if (rc == 0)
        rc = replies_to_dataset(t, &items, &replies, &d, s, dir, e);
    if (rc == 0)
        rc = run_publish(env, r, "data", dir, e);
    if (rc == 0) {
        run_replies_metrics(&replies, r);
        run_metric(r, "rows", (double)(replies.n - run_replies_empty(&replies)));
    }
    free(dir);
    run_replies_free_all(&replies);
    run_items_free(&items);
    dataset_free(&d);
    arena_free(&arena);
    model_fini(&m);
    return rc;
}
