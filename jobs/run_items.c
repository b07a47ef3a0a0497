#include "jobs/run_items.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/beat.h"
#include "base/file.h"
#include "base/rng.h"

enum { PICK_CONTEXTS = 1 }; /* stream of RNG_PICK */
#define HELD_OUT                                                                                   \
    0.1 /* share of texts from nothing; texts in a context are split as the context is */

/* ---- contexts -------------------------------------------------------------------------------- */

static bool is_wanted(const struct conversation *c, const char *split)
{
    if (strcmp(split, "all") == 0)
        return true;
    return c->split == (strcmp(split, "held_out") == 0 ? SPLIT_HELD_OUT : SPLIT_TRAIN);
}

static void context_push(struct run_context **list, size_t *n, size_t *cap, size_t conversation,
                         uint32_t turn)
{
    if (*n == *cap) {
        *cap = 2 * *cap + 256;
        *list = mem_grow(*list, *cap, sizeof(**list));
    }
    (*list)[(*n)++] = (struct run_context){(uint32_t)conversation, turn};
}

uint64_t run_context_key(struct run_context c)
{
    return (uint64_t)c.conversation << 20 | (c.turn & 0xfffffu);
}

int run_contexts(const struct dataset *d, const char *split, size_t most, uint64_t seed,
                 struct run_context **out, size_t *n, struct err *e)
{
    struct run_context *all = NULL, *chosen;
    size_t found = 0, cap = 0;

    *out = NULL;
    *n = 0;
    for (size_t i = 0; i < d->conversations; i++) {
        const struct conversation *c = &d->conversation[i];
        bool has_response = false;
        if (!is_wanted(c, split) || c->turns == 0)
            continue;
        for (uint32_t k = 0; k < c->turns; k++) {
            has_response |= c->turn[k].respond;
            if (k > 0 && c->turn[k].respond)
                context_push(&all, &found, &cap, i, k);
        }
        if (!has_response)
            context_push(&all, &found, &cap, i, c->turns);
    }
    if (found == 0 || found > UINT32_MAX) {
        free(all);
        return err_set(e, ERR_INVALID,
                       "%zu contexts in split %s, at least one is needed: a response with a turn "
                       "before it, or a "
                       "conversation without a response",
                       found, split);
    }
    *n = most == 0 || most > found ? found : most;
    chosen = mem_zalloc(*n, sizeof(*chosen));
    for (size_t i = 0; i < *n; i++)
        chosen[i] = all[rng_permute(seed, RNG_PICK, PICK_CONTEXTS, (uint32_t)found, (uint32_t)i)];
    free(all);
    *out = chosen;
    return 0;
}

/* ---- the list -------------------------------------------------------------------------------- */

struct run_item *run_items_add(struct run_items *x)
{
    struct run_item *item;

    if (x->n == x->cap) {
        x->cap = 2 * x->cap + 256;
        x->v = mem_grow(x->v, x->cap, sizeof(*x->v));
    }
    item = &x->v[x->n++];
    memset(item, 0, sizeof(*item));
    memset(item->level, -1, sizeof(item->level));
    return item;
}

void run_items_free(struct run_items *x)
{
    free(x->v);
    *x = (struct run_items){0};
}

int run_items_publish(const struct run_items *x, int attrs, const struct run_env *env,
                      struct run_result *r, struct err *e)
{
    char *path = mem_printf("%s/items.jsonl", env->scratch);
    struct buf b = BUF_INIT;
    int rc;

    for (size_t i = 0; i < x->n; i++) {
        const struct run_item *item = &x->v[i];
        if (i % 1024 == 0)
            beat();
        buf_printf(&b, "{\"c\":%lld,\"i\":%zu,\"key\":%llu,\"level\":[",
                   item->has_context ? (long long)item->context.conversation : -1LL, i,
                   (unsigned long long)item->key);
        for (int a = 0; a < attrs; a++)
            buf_printf(&b, a > 0 ? ",%d" : "%d", item->level[a]);
        buf_printf(&b, "],\"sample\":%u,\"turn\":%u}\n", item->sample, item->context.turn);
    }
    rc = file_write_atomic(path, b.len > 0 ? b.data : "", b.len, e);
    if (rc == 0)
        rc = run_publish(env, r, "items", path, e);
    if (rc == 0)
        run_metric(r, "rows", (double)x->n);
    buf_free(&b);
    free(path);
    return rc;
}

/* A level that the schema does not have has no token either: what another worker wrote is not trusted. */
static int levels_read(const cJSON *levels, const struct schema *s, int8_t *out, struct err *e)
{
    const cJSON *v;
    int a = 0;

    if (cJSON_GetArraySize(levels) != s->attrs)
        return err_set(e, ERR_CORRUPT, "%d levels for %d attributes", cJSON_GetArraySize(levels),
                       s->attrs);
    cJSON_ArrayForEach(v, levels)
    {
        if (a >= s->attrs || !cJSON_IsNumber(v) ||
            !(v->valuedouble >= -1.0 && v->valuedouble < (double)s->attr[a].levels))
            return err_set(e, ERR_CORRUPT, "level[%d] is %g, must be in -1..%d", a,
                           cJSON_IsNumber(v) ? v->valuedouble : (double)NAN,
                           a < s->attrs ? s->attr[a].levels - 1 : -1);
        out[a++] = (int8_t)v->valuedouble;
    }
    return 0;
}

static int item_read(struct run_items *items, const struct schema *s, const cJSON *j, struct err *e)
{
    int64_t key, sample, c, turn;
    struct run_item *item;
    int rc;

    if ((rc = json_need_int(j, "key", 0, (int64_t)1 << 52, &key, e)) != 0 ||
        (rc = json_need_int(j, "sample", 0, UINT32_MAX, &sample, e)) != 0 ||
        (rc = json_need_int(j, "c", -1, INT32_MAX, &c, e)) != 0 ||
        (rc = json_need_int(j, "turn", 0, INT32_MAX, &turn, e)) != 0)
        return rc;
    item = run_items_add(items);
    item->key = (uint64_t)key;
    item->sample = (uint32_t)sample;
    item->has_context = c >= 0;
    item->context = (struct run_context){c >= 0 ? (uint32_t)c : 0, (uint32_t)turn};
    return levels_read(json_get(j, "level"), s, item->level, e);
}

static int item_take(struct run_items *items, const struct schema *s, const struct line *line,
                     struct err *e)
{
    cJSON *j = NULL;
    int rc;

    if (line->number > RUN_ITEMS_MAX)
        return err_set(e, ERR_LIMIT, "more than %u items", RUN_ITEMS_MAX);
    if (line->too_long)
        return err_set(e, ERR_LIMIT, "longer than %zu bytes", LINES_LIMITS.line_max);
    rc = json_parse(line->text, line->len, JSON_LIMITS_LINE, &j, e);
    if (rc == 0)
        rc = item_read(items, s, j, e);
    cJSON_Delete(j);
    return rc;
}

/* Only lines of the range are parsed: parsing is most of what a short task of a long list would do. */
static int items_read(const char *path, const struct schema *s, uint64_t begin, uint64_t end,
                      struct run_items *out, struct err *e)
{
    struct lines *lines = NULL;
    struct line line;
    uint64_t at = 0;
    bool more = true;
    int rc = lines_open(path, LINES_LIMITS, &lines, e);

    while (rc == 0 && (end == 0 || at < end)) {
        rc = lines_next(lines, &line, &more, e);
        if (rc != 0 || !more)
            break;
        if (at++ < begin)
            continue;
        rc = item_take(out, s, &line, e);
        if (rc != 0)
            err_wrap(e, "line %llu", (unsigned long long)line.number);
    }
    lines_close(lines);
    if (rc == 0 && (begin > at || end > at))
        rc = err_set(e, ERR_INVALID, "items %llu..%llu of %llu", (unsigned long long)begin,
                     (unsigned long long)end, (unsigned long long)at);
    return rc;
}

int run_items_load(const struct run_task *t, const struct run_env *env, const char *phase,
                   const struct schema *s, uint64_t begin, uint64_t end, struct run_items *out,
                   struct err *e)
{
    char path[4096];
    int rc = run_phase_output(t, env, phase, "items", path, sizeof(path), e);

    *out = (struct run_items){.first = begin};
    if (rc == 0)
        rc = items_read(path, s, begin, end, out, e);
    return rc != 0 ? err_wrap(e, "output items of phase %s", phase) : 0;
}

struct wanted {
    size_t n;
    bool *is; /* [n] by conversation */
};

static bool wanted_has(const void *self, size_t conversation)
{
    const struct wanted *w = self;

    return conversation < w->n && w->is[conversation];
}

int run_items_dataset(const struct run_items *x, const struct run_task *t,
                      const struct run_env *env, const char *key, struct dataset *out,
                      struct arena *arena, struct err *e)
{
    struct wanted wanted = {0};
    int rc = 0;

    memset(out, 0, sizeof(*out));
    for (size_t i = 0; i < x->n; i++) {
        if (x->v[i].has_context && x->v[i].context.conversation >= wanted.n)
            wanted.n = (size_t)x->v[i].context.conversation + 1;
    }
    if (wanted.n == 0)
        return 0;
    wanted.is = mem_zalloc(wanted.n, sizeof(*wanted.is));
    for (size_t i = 0; i < x->n; i++) {
        if (x->v[i].has_context)
            wanted.is[x->v[i].context.conversation] = true;
    }
    rc = run_dataset_rows(t, env, key, &wanted, wanted_has, out, arena, e);
    for (size_t i = 0; i < x->n && rc == 0; i++) {
        const struct run_context *c = &x->v[i].context;
        if (x->v[i].has_context && (c->conversation >= out->conversations ||
                                    c->turn > out->conversation[c->conversation].turns))
            rc = err_set(e, ERR_CORRUPT,
                         "item %llu: there is no turn %u of conversation %u in input %s",
                         (unsigned long long)(x->first + i), c->turn, c->conversation, key);
    }
    if (rc != 0)
        dataset_free(out);
    free(wanted.is);
    return rc;
}

/* ---- prompts --------------------------------------------------------------------------------- */

int run_policy(const struct run_task *t, const struct run_env *env, const char *key, unsigned parts,
               struct model *out, struct err *e)
{
    struct template_config *c = &out->steer.template_config;
    int rc = run_model(t, env, key, parts | MODEL_TOKENIZER, out, e);

    if (rc != 0)
        return rc;
    if (out->steer.role == STEER_ATTRIBUTE_MODEL || out->dims.head != HEAD_LM)
        return err_set(e, ERR_INVALID, "input %s is an attribute model: it can't write replies",
                       key);
    if (out->steer.role == STEER_NONE) {
        memset(c, 0, sizeof(*c));
        c->name = TEMPLATE_PLAIN;
        c->head = TEMPLATE_POLICY;
    }
    if (c->max_length <= 0 || c->max_length > out->dims.context)
        c->max_length = out->dims.context; /* a longer prompt would be no reply at all */
    return 0;
}

static int prompt_make(const struct model *m, const struct dataset *d, const struct run_item *item,
                       const int8_t *level, struct ids *out, struct err *e)
{
    const struct template_config *c = &m->steer.template_config;
    struct conversation nothing = {.id = "", .source = ""};
    int32_t bos = tokenizer_bos(m->tokenizer);

    if (!item->has_context && m->steer.role == STEER_NONE) {
        if (bos < 0)
            return err_set(e, ERR_INVALID, "the tokenizer has no BOS to begin from nothing with");
        ids_push(out, bos);
        return 0;
    }
    if (!item->has_context)
        return template_prompt(c, m->tokenizer, &nothing, 0, level, out, e);
    return template_prompt(c, m->tokenizer, &d->conversation[item->context.conversation],
                           item->context.turn, level, out, e);
}

int run_items_prompts(const struct run_items *x, const struct model *m, const struct dataset *d,
                      const struct sampling *s, struct run_prompt **out, struct err *e)
{
    struct run_prompt *p = mem_zalloc(x->n + 1, sizeof(*p));
    int8_t missing[SCHEMA_ATTRS_MAX];
    bool guided = s->guidance != 1.0f && m->steer.role == STEER_POLICY;
    int rc = 0;

    memset(missing, -1, sizeof(missing));
    for (size_t i = 0; i < x->n && rc == 0; i++) {
        p[i].key = x->v[i].key;
        p[i].sample = x->v[i].sample;
        p[i].sampling = *s;
        rc = prompt_make(m, d, &x->v[i], x->v[i].level, &p[i].prompt, e);
        if (rc == 0 && guided)
            rc = prompt_make(m, d, &x->v[i], missing, &p[i].uncond, e);
        if (rc == 0 && p[i].prompt.n == 0)
            rc = err_set(e, ERR_INVALID,
                         "an empty prompt: the tokenizer has no BOS and the context no text");
        if (rc != 0)
            err_wrap(e, "item %llu", (unsigned long long)(x->first + i));
    }
    if (rc != 0) {
        run_prompts_free(p, x->n);
        p = NULL;
    }
    *out = p;
    return rc;
}

/* ---- back to conversations ------------------------------------------------------------------- */

void run_item_conversation(const struct run_item *item, uint64_t index, const struct dataset *d,
                           const char *text, size_t len, const struct schema *s, struct arena *a,
                           struct conversation *out)
{
    const struct conversation *c =
        item->has_context ? &d->conversation[item->context.conversation] : NULL;
    uint32_t before = c != NULL ? item->context.turn : 0;
    char *id =
        mem_printf("%s#%u.%llu", c != NULL ? c->id : "nothing", before, (unsigned long long)index);
    struct turn *reply;

    memset(out, 0, sizeof(*out));
    out->id = arena_text(a, id, strlen(id));
    out->source = c != NULL ? c->source : "generated";
    out->split = c != NULL                                                       ? c->split
                 : rng_unit(item->key, RNG_SPLIT, item->sample, 0, 0) < HELD_OUT ? SPLIT_HELD_OUT
                                                                                 : SPLIT_TRAIN;
    out->fold = c != NULL ? c->fold : rng_at(item->key, RNG_SPLIT, item->sample, 0, 1).v[0] >> 1;
    out->turns = before + 1;
    out->turn = arena_alloc(a, out->turns * sizeof(*out->turn));
    for (uint32_t k = 0; k < before; k++) { /* context only: no labels, nothing to learn */
        out->turn[k] = c->turn[k];
        out->turn[k].respond = false;
        out->turn[k].human = out->turn[k].value = NULL;
        out->turn[k].level = NULL;
    }
    reply = &out->turn[before];
    dataset_turn_init(reply, s, a);
    reply->role = ROLE_ASSISTANT;
    reply->speaker = c != NULL && before < c->turns ? c->turn[before].speaker : "";
    reply->text = text;
    reply->text_len = (uint32_t)len;
    reply->respond = true;
    reply->kept = true;
    free(id);
}
