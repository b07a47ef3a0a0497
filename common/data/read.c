/*
 * The driver: files -> lines -> JSON -> row_read() -> draft_end() -> emit. Split and fold are a function of (seed, key of the
 * conversation) alone, so that they don't depend on the order of files or rows when the data has ids.
 */
#include "data/read.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/rng.h"
#include "base/suggest.h"
#include "data/clean.h"
#include "data/measure.h"
#include "data/read_row.h"

#define ROW_LIMITS ((struct json_limits){16u << 20, 1000000, 256})
enum { CANCEL_EVERY = 256, HEAD_OF_PROBLEMS = 5 };

static const char *const format_names[] = {
#define X(name, text) text,
    READ_FORMATS(X)
#undef X
};

int read_format_find(const char *name, enum read_format *out, struct err *e)
{
    const char *near;

    for (int i = 0; i < READ_FORMAT_COUNT; i++) {
        if (strcmp(format_names[i], name) == 0) {
            *out = (enum read_format)i;
            return 0;
        }
    }
    near = suggest_nearest(name, format_names, READ_FORMAT_COUNT);
    return err_set(e, ERR_INVALID,
                   "format \"%s\" is none of auto, map, helpsteer, oasst, messages, sharegpt, "
                   "nemo-chat, nemo-regression, text%s%s%s",
                   name, near != NULL ? "; did you mean " : "", near != NULL ? near : "",
                   near != NULL ? "?" : "");
}

const char *read_format_name(enum read_format f)
{
    return format_names[f];
}

/* ---- problems -------------------------------------------------------------------------------- */

static void problem_add(struct problems *p, const char *file, uint64_t line, const char *path,
                        const char *text)
{
    p->total++;
    if (p->n == PROBLEMS_KEPT)
        return;
    if (p->v == NULL)
        p->v = mem_zalloc(PROBLEMS_KEPT, sizeof *p->v);
    p->v[p->n++] = (struct problem){mem_strdup(file), line, mem_strdup(path), mem_strdup(text)};
}

void problems_free(struct problems *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free(p->v[i].file);
        free(p->v[i].path);
        free(p->v[i].text);
    }
    free(p->v);
    memset(p, 0, sizeof *p);
}

cJSON *problems_to_json(const struct problems *p)
{
    cJSON *list = cJSON_CreateArray();

    for (size_t i = 0; i < p->n; i++) {
        cJSON *one = cJSON_CreateObject();
        cJSON_AddStringToObject(one, "file", p->v[i].file);
        cJSON_AddNumberToObject(one, "line", (double)p->v[i].line);
        cJSON_AddStringToObject(one, "path", p->v[i].path);
        cJSON_AddStringToObject(one, "text", p->v[i].text);
        cJSON_AddItemToArray(list, one);
    }
    return list;
}

cJSON *read_counts_to_json(const struct read_counts *c)
{
    cJSON *j = cJSON_CreateObject();

    cJSON_AddNumberToObject(j, "rows", (double)c->rows);
    cJSON_AddNumberToObject(j, "rows_bad", (double)c->rows_bad);
    cJSON_AddNumberToObject(j, "turns_empty", (double)c->turns_empty);
    cJSON_AddNumberToObject(j, "threads_short", (double)c->threads_short);
    cJSON_AddNumberToObject(j, "threads_repeated", (double)c->threads_repeated);
    return j;
}

bool row_bad(struct reader *r, const char *path, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    /* A cut in the middle of a character would make the list itself bad UTF-8. */
    for (size_t n = strlen(text); n > 0 && !json_utf8_valid(text, n);)
        text[--n] = '\0';
    problem_add(r->problems, r->file, r->line, path, text);
    return false;
}

/* ---- sets of hashes -------------------------------------------------------------------------- */

uint64_t text_hash(const char *text)
{
    struct digest d;
    char head[17];

    digest_bytes(text, strlen(text), &d);
    snprintf(head, sizeof head, "%.16s", d.hex);
    return strtoull(head, NULL, 16) | 1;
}

static void set_place(uint64_t *slot, size_t cap, uint64_t hash)
{
    size_t i = (size_t)(hash >> 1) & (cap - 1);

    while (slot[i] != 0)
        i = (i + 1) & (cap - 1);
    slot[i] = hash;
}

bool hash_set_add(struct hash_set *s, uint64_t hash)
{
    if (s->used * 2 >= s->cap) {
        size_t cap = s->cap == 0 ? 1024 : s->cap * 2;
        uint64_t *slot = mem_zalloc(cap, sizeof *slot);
        for (size_t i = 0; i < s->cap; i++)
            if (s->slot[i] != 0)
                set_place(slot, cap, s->slot[i]);
        free(s->slot);
        s->slot = slot;
        s->cap = cap;
    }
    for (size_t i = (size_t)(hash >> 1) & (s->cap - 1); s->slot[i] != 0; i = (i + 1) & (s->cap - 1))
        if (s->slot[i] == hash)
            return false;
    set_place(s->slot, s->cap, hash);
    s->used++;
    return true;
}

/* ---- drafts ---------------------------------------------------------------------------------- */

void draft_begin(struct reader *r)
{
    arena_clear(&r->draft.arena);
    r->draft.turns = 0;
    r->draft.id = NULL;
    r->draft.split_key = NULL;
}

struct turn *draft_turn(struct reader *r, enum role role, const char *speaker, const char *text,
                        bool respond)
{
    struct draft *d = &r->draft;
    struct turn *t;

    if (d->turns == d->cap) {
        d->cap = d->cap * 2 + 64;
        d->turn = mem_grow(d->turn, d->cap, sizeof *d->turn);
    }
    t = &d->turn[d->turns++];
    memset(t, 0, sizeof *t);
    t->role = role;
    t->speaker = arena_text(&d->arena, speaker, strlen(speaker));
    t->respond = respond;
    t->kept = true;
    buf_clear(&r->scratch);
    clean_text(r->config->clean, text, strlen(text), &r->scratch);
    t->text_len = (uint32_t)r->scratch.len;
    t->text = arena_text(&d->arena, r->scratch.data, r->scratch.len);
    dataset_turn_init(t, r->config->schema, &d->arena);
    return t;
}

static int class_of(const struct label *l, const char *text)
{
    for (int i = 0; i < l->classes; i++)
        if (strcmp(l->class_name[i], text) == 0)
            return i;
    return -1;
}

/* Classes: text, or a list of texts. A list of none of the classes is `other`, as a text is. */
static bool class_read(const struct label *l, const cJSON *value, float *out)
{
    int found = -1;
    const cJSON *item;

    if (cJSON_IsString(value)) {
        if (value->valuestring[0] == '\0')
            return true; /* nothing was said */
        found = class_of(l, value->valuestring);
    } else if (cJSON_IsBool(value)) {
        found = class_of(l, cJSON_IsTrue(value) ? "true" : "false");
    } else if (cJSON_IsNumber(value)) {
        char text[40];
        snprintf(text, sizeof text, "%.15g", value->valuedouble);
        found = class_of(l, text);
    } else if (cJSON_IsArray(value)) {
        cJSON_ArrayForEach(item, value)
        {
            int c = cJSON_IsString(item) ? class_of(l, item->valuestring) : -1;
            if (!cJSON_IsString(item))
                return false;
            if (c >= 0 && (found < 0 || c < found))
                found = c;
        }
        if (l->exact && cJSON_GetArraySize(value) != 1)
            found = -1;
    } else {
        return false;
    }
    if (found < 0)
        found = l->other;
    if (found >= 0)
        *out = (float)found;
    return true;
}

bool draft_label(struct reader *r, struct turn *t, int label, const cJSON *value,
                 const char *prefix)
{
    const struct label *l = &r->config->schema->label[label];
    char path[160];
    double v;

    if (value == NULL || cJSON_IsNull(value))
        return true;
    snprintf(path, sizeof path, "%s%s%s", prefix, prefix[0] != '\0' ? "/" : "", l->name);
    if (l->type == LABEL_CLASSES)
        return class_read(l, value, &t->human[label]) ||
               row_bad(r, path, "must be text or a list of texts");
    if (!cJSON_IsNumber(value))
        return row_bad(r, path, "must be a number in %g..%g", l->min, l->max);
    v = value->valuedouble;
    if (v == -100.0) /* NeMo's mark of a missing score */
        return true;
    if (!(v >= l->min && v <= l->max))
        return row_bad(r, path, "is %g, must be in %g..%g", v, l->min, l->max);
    t->human[label] = (float)v;
    return true;
}

static bool label_is_wanted(const struct read_config *c, const char *name)
{
    if (c->map.labels_n == 0)
        return true;
    for (int i = 0; i < c->map.labels_n; i++)
        if (strcmp(c->map.labels[i], name) == 0)
            return true;
    return false;
}

bool draft_labels(struct reader *r, struct turn *t, const cJSON *object, const char *prefix)
{
    const struct schema *s = r->config->schema;

    for (int i = 0; i < s->labels; i++)
        if (label_is_wanted(r->config, s->label[i].name) &&
            !draft_label(r, t, i, json_get(object, s->label[i].name), prefix))
            return false;
    return true;
}

static void turn_measure(const struct schema *s, struct turn *t)
{
    for (int i = 0; i < s->attrs; i++) {
        if (s->attr[i].type != ATTR_COMPUTED)
            continue;
        t->value[i] = (float)measure_text((enum measure)s->attr[i].measure, t->text, t->text_len);
        t->level[i] = (int8_t)schema_level(&s->attr[i], (double)t->value[i]);
    }
}

static bool draft_check(struct reader *r, uint32_t *responses)
{
    struct draft *d = &r->draft;
    size_t bytes = 0;

    *responses = 0;
    for (uint32_t i = 0; i < d->turns; i++) {
        struct turn *t = &d->turn[i];
        bytes += t->text_len;
        if (t->text_len == 0)
            r->counts->turns_empty++;
        if (t->text_len == 0)
            t->respond = false;
        *responses += t->respond;
    }
    if (bytes == 0)
        return row_bad(r, "", "empty conversation");
    if (*responses == 0)
        return row_bad(r, "", "no response in %u turns", d->turns);
    return true;
}

bool draft_end(struct reader *r)
{
    const struct read_config *cfg = r->config;
    struct draft *d = &r->draft;
    struct conversation c = {0};
    uint32_t responses;
    uint64_t key;
    size_t bytes;
    char source[300];

    if (!draft_check(r, &responses))
        return false;
    snprintf(source, sizeof source, "%s:%llu", r->file, (unsigned long long)r->line);
    c.id = d->id != NULL ? d->id : source;
    c.source = source;
    c.turns = d->turns;
    c.turn = d->turn;
    if (!dataset_row_fits(&c, cfg->schema, &bytes))
        return row_bad(r, "", "needs %zu bytes or more as a row of the data set, at most %zu",
                       bytes, DATASET_ROW_MAX);
    if (!hash_set_add(&r->ids, text_hash(c.id)))
        return row_bad(r, "", "id \"%.200s\" was seen before", c.id);
    key = text_hash(d->split_key != NULL ? d->split_key : c.id);
    c.split =
        rng_unit(cfg->seed, RNG_SPLIT, (uint32_t)(key >> 32), (uint32_t)key, 0) < cfg->held_out
            ? SPLIT_HELD_OUT
            : SPLIT_TRAIN;
    c.fold = rng_at(cfg->seed, RNG_SPLIT, (uint32_t)(key >> 32), (uint32_t)key, 1).v[0] >> 1;
    for (uint32_t i = 0; i < d->turns; i++)
        if (d->turn[i].respond)
            turn_measure(cfg->schema, &d->turn[i]);
    r->rc = cfg->emit(cfg->self, &c, r->e);
    if (r->rc != 0)
        return false;
    r->counts->conversations[c.split]++;
    r->counts->responses[c.split] += responses;
    return true;
}

/* ---- files ----------------------------------------------------------------------------------- */

static bool is_blank(const char *text, size_t len)
{
    while (len > 0 && strchr(" \t\r\n", text[len - 1]) != NULL && text[len - 1] != '\0')
        len--;
    return len == 0;
}

static int format_unknown(const struct reader *r, const cJSON *row, struct err *e)
{
    struct buf keys = BUF_INIT;
    const cJSON *item;
    int rc;

    buf_str(&keys, "");
    cJSON_ArrayForEach(item, row)
    {
        if (keys.len < 300)
            buf_printf(&keys, "%s%.60s", keys.len > 0 ? ", " : "", item->string);
    }
    rc = err_set(e, ERR_INVALID,
                 "%s:%llu: no known format has rows with the members {%s}; name them under `map`",
                 r->file, (unsigned long long)r->line, keys.data);
    buf_free(&keys);
    return rc;
}

/* format: READ_AUTO until the first good row says which. */
static int line_read(struct reader *r, const struct line *line, enum read_format *format,
                     struct err *e)
{
    struct err why = {0};
    cJSON *row = NULL;
    bool good;

    if (is_blank(line->text, line->len))
        return 0;
    r->counts->rows++;
    r->line = line->number;
    if (line->too_long) {
        good = row_bad(r, "", "line is longer than %zu bytes", r->config->limits.line_max);
    } else if (json_parse(line->text, line->len, ROW_LIMITS, &row, &why) != 0) {
        good = row_bad(r, "", "%s", why.msg);
    } else if (!cJSON_IsObject(row)) {
        good = row_bad(r, "", "must be a JSON object");
    } else {
        if (*format == READ_AUTO)
            *format = row_detect(row);
        if (*format == READ_AUTO) {
            int rc = format_unknown(r, row, e);
            cJSON_Delete(row);
            return rc;
        }
        draft_begin(r);
        good = row_read(r, *format, row);
    }
    cJSON_Delete(row);
    r->counts->rows_bad += !good;
    return r->rc;
}

bool reader_is_full(const struct reader *r)
{
    return r->config->limit > 0 &&
           r->counts->conversations[0] + r->counts->conversations[1] >= r->config->limit;
}

static int file_rows(struct reader *r, const char *path, struct err *e)
{
    const struct read_config *c = r->config;
    enum read_format format = c->format;
    struct lines *lines = NULL;
    struct line line;
    bool more = false;
    int rc;

    if (format == READ_AUTO && (c->map.conversation[0] != '\0' || c->map.prompt[0] != '\0'))
        format = READ_MAP;
    rc = lines_open(path, c->limits, &lines, e);
    while (rc == 0) {
        if (reader_is_full(r))
            break;
        rc = lines_next(lines, &line, &more, e);
        if (rc != 0 || !more)
            break;
        if (line.number % CANCEL_EVERY == 0 && c->cancelled != NULL && c->cancelled(c->self)) {
            rc = err_set(e, ERR_CANCELLED, "asked to stop");
            break;
        }
        rc = line_read(r, &line, &format, e);
        if (rc != 0)
            goto out; /* its message already names the place */
    }
    if (rc != 0 && rc != ERR_CANCELLED)
        err_wrap(e, "%s", r->file);
out:
    lines_close(lines);
    return rc;
}

static int problems_judge(const struct reader *r, struct err *e)
{
    const struct read_counts *c = r->counts;
    const struct problems *p = r->problems;
    struct buf list = BUF_INIT;
    int rc = 0;

    if (c->conversations[0] + c->conversations[1] > 0 &&
        (double)c->rows_bad <= r->config->problems_max * (double)c->rows)
        return 0;
    buf_str(&list, "");
    for (size_t i = 0; i < p->n && i < HEAD_OF_PROBLEMS; i++)
        buf_printf(&list, "\n%s:%llu: %s%s%s", p->v[i].file, (unsigned long long)p->v[i].line,
                   p->v[i].path, p->v[i].path[0] != '\0' ? ": " : "", p->v[i].text);
    if (c->conversations[0] + c->conversations[1] == 0)
        rc = err_set(e, ERR_INVALID, "no usable conversation in %llu rows%s",
                     (unsigned long long)c->rows, list.data);
    else
        rc = err_set(e, ERR_INVALID, "%llu of %llu rows are bad, problems_max allows %g%s",
                     (unsigned long long)c->rows_bad, (unsigned long long)c->rows,
                     r->config->problems_max, list.data);
    buf_free(&list);
    return rc;
}

int read_files(const struct read_config *c, const char *const *paths, const char *const *names,
               int n, struct problems *problems, struct read_counts *counts, struct err *e)
{
    struct reader r = {.config = c, .problems = problems, .counts = counts, .e = e};
    int rc = 0;

    memset(counts, 0, sizeof *counts);
    for (int i = 0; i < n && rc == 0; i++) {
        r.file = names[i];
        r.line = 0;
        rc = file_rows(&r, paths[i], e);
    }
    if (rc == 0) {
        oasst_end(&r);
        rc = r.rc;
    }
    if (rc == 0)
        rc = problems_judge(&r, e);
    oasst_free(&r);
    arena_free(&r.draft.arena);
    free(r.draft.turn);
    free(r.ids.slot);
    free(r.replies.slot);
    buf_free(&r.scratch);
    return rc;
}
