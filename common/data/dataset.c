/*
 * rows.jsonl holds one conversation a line; keys are sorted and numbers written the shortest way that gives the same float back, so that
 * equal data has equal bytes and so an equal digest. Of a turn only what says something is written: a member that is absent has
 * its default (respond false, kept true, truncated false, tokens 0, every label, value and level missing).
 */
#include "data/dataset.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/beat.h"
#include "base/file.h"
#include "data/arena.h"
#include "json/json_file.h"

#define ROW_LIMITS ((struct json_limits){DATASET_ROW_MAX, 4000000, 64})
/* What stands around the texts of a row, and around the speaker, text and numbers of a turn; a number; a level. They are at least what is
 * written, and so much that a row of DATASET_ROW_MAX bytes has fewer values and keys than ROW_LIMITS has. */
enum { ROW_BYTES = 128, TURN_BYTES = 192, FLOAT_BYTES = 16, LEVEL_BYTES = 3, ESCAPE_BYTES = 6 };
enum { CONVERSATIONS_MAX = 1 << 28, FLUSH_BYTES = 1 << 20 };

static const char *const role_names[] = {"system", "user", "assistant"};

struct store { /* what dataset.arena points to */
    struct arena arena;
    uint32_t *of_conversation; /* [responses] */
    uint32_t *of_turn;
    size_t conversations_cap, responses_cap;
};

/* ---- reading --------------------------------------------------------------------------------- */

static int floats_read(const cJSON *list, int n, float *out, const char *key, struct err *e)
{
    const cJSON *item;
    int i = 0;

    if (list == NULL)
        return 0;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != n)
        return err_set(e, ERR_CORRUPT, "%s must be a list of %d", key, n);
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsNull(item) && !cJSON_IsNumber(item))
            return err_set(e, ERR_CORRUPT, "%s[%d] is no number", key, i);
        if (cJSON_IsNumber(item))
            out[i] = (float)item->valuedouble;
        i++;
    }
    return 0;
}

static int levels_read(const cJSON *list, const struct schema *s, int8_t *out, struct err *e)
{
    const cJSON *item;
    int i = 0;

    if (list == NULL)
        return 0;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != s->attrs)
        return err_set(e, ERR_CORRUPT, "level must be a list of %d", s->attrs);
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsNumber(item) || !(item->valuedouble >= -1.0) ||
            item->valuedouble >= (double)s->attr[i].levels)
            return err_set(e, ERR_CORRUPT, "level[%d] must be a number in -1..%d", i,
                           s->attr[i].levels - 1);
        out[i++] = (int8_t)item->valuedouble;
    }
    return 0;
}

static int turn_read(const cJSON *j, const struct schema *s, struct arena *a, struct turn *t,
                     struct err *e)
{
    const char *role, *text;
    int64_t tokens;
    int rc = json_need_string(j, "role", &role, e);

    if (rc == 0)
        rc = json_need_string(j, "text", &text, e);
    if (rc != 0)
        return rc;
    for (t->role = ROLE_SYSTEM; t->role < ROLE_ASSISTANT; t->role++)
        if (strcmp(role, role_names[t->role]) == 0)
            break;
    if (strcmp(role, role_names[t->role]) != 0)
        return err_set(e, ERR_CORRUPT, "role \"%s\" is unknown", role);
    t->text_len = (uint32_t)strlen(text);
    t->text = arena_text(a, text, t->text_len);
    role = json_string_or(j, "speaker", "");
    t->speaker = arena_text(a, role, strlen(role));
    t->respond = json_bool_or(j, "respond", false);
    t->kept = json_bool_or(j, "kept", true);
    t->truncated = json_bool_or(j, "truncated", false);
    tokens = json_int_or(j, "tokens", 0);
    if (tokens < 0 || tokens > UINT32_MAX)
        return err_set(e, ERR_CORRUPT, "tokens must be in 0..%u", UINT32_MAX);
    t->tokens = (uint32_t)tokens;
    dataset_turn_init(t, s, a);
    rc = floats_read(json_get(j, "human"), s->labels, t->human, "human", e);
    if (rc == 0)
        rc = floats_read(json_get(j, "value"), s->attrs, t->value, "value", e);
    return rc != 0 ? rc : levels_read(json_get(j, "level"), s, t->level, e);
}

void dataset_turn_init(struct turn *t, const struct schema *s, struct arena *a)
{
    t->human = arena_alloc(a, sizeof(float) * (size_t)s->labels);
    t->value = arena_alloc(a, sizeof(float) * (size_t)s->attrs);
    t->level = arena_alloc(a, (size_t)s->attrs);
    for (int i = 0; i < s->labels; i++)
        t->human[i] = NAN;
    for (int i = 0; i < s->attrs; i++) {
        t->value[i] = NAN;
        t->level[i] = -1;
    }
}

int dataset_parse_row(const char *line, size_t len, const struct schema *s, struct arena *a,
                      struct conversation *out, struct err *e)
{
    cJSON *j = NULL;
    const cJSON *turns, *item;
    const char *id, *source, *split;
    int64_t fold;
    int rc = json_parse(line, len, ROW_LIMITS, &j, e);

    if (rc == 0)
        rc = json_need_string(j, "id", &id, e);
    if (rc == 0)
        rc = json_need_string(j, "source", &source, e);
    if (rc == 0)
        rc = json_need_string(j, "split", &split, e);
    if (rc == 0)
        rc = json_need_int(j, "fold", 0, UINT32_MAX, &fold, e);
    if (rc != 0)
        goto out;
    turns = json_get(j, "turns");
    if (!cJSON_IsArray(turns)) {
        rc = err_set(e, ERR_CORRUPT, "turns must be a list");
        goto out;
    }
    out->id = arena_text(a, id, strlen(id));
    out->source = arena_text(a, source, strlen(source));
    out->split = strcmp(split, "held_out") == 0 ? SPLIT_HELD_OUT : SPLIT_TRAIN;
    out->fold = (uint32_t)fold;
    out->turns = 0;
    out->turn = arena_alloc(a, sizeof *out->turn * (size_t)cJSON_GetArraySize(turns));
    cJSON_ArrayForEach(item, turns)
    {
        rc = turn_read(item, s, a, &out->turn[out->turns], e);
        if (rc != 0) {
            err_wrap(e, "turns/%u", out->turns);
            goto out;
        }
        out->turns++;
    }
out:
    cJSON_Delete(j);
    return rc;
}

static void responses_add(struct dataset *d, struct store *s)
{
    const struct conversation *c = &d->conversation[d->conversations];

    for (uint32_t t = 0; t < c->turns; t++) {
        if (!c->turn[t].respond)
            continue;
        if (d->responses == s->responses_cap) {
            s->responses_cap = s->responses_cap * 2 + 1024;
            s->of_conversation = mem_grow(s->of_conversation, s->responses_cap, sizeof(uint32_t));
            s->of_turn = mem_grow(s->of_turn, s->responses_cap, sizeof(uint32_t));
        }
        s->of_conversation[d->responses] = (uint32_t)d->conversations;
        s->of_turn[d->responses++] = t;
    }
}

static int rows_load(struct dataset *d, struct store *s, const char *path, struct err *e)
{
    struct lines *lines = NULL;
    struct line line;
    bool more = false;
    int rc = lines_open(path, DATASET_LINES, &lines, e);

    while (rc == 0) {
        rc = lines_next(lines, &line, &more, e);
        if (rc != 0 || !more)
            break;
        if (line.too_long || d->conversations == CONVERSATIONS_MAX) {
            rc = line.too_long ? err_set(e, ERR_LIMIT, "line %llu: longer than %zu bytes",
                                         (unsigned long long)line.number, DATASET_ROW_MAX)
                               : err_set(e, ERR_LIMIT, "line %llu: more than %d conversations",
                                         (unsigned long long)line.number, CONVERSATIONS_MAX);
            break;
        }
        if (d->conversations == s->conversations_cap) {
            s->conversations_cap = s->conversations_cap * 2 + 256;
            d->conversation =
                mem_grow(d->conversation, s->conversations_cap, sizeof *d->conversation);
        }
        rc = dataset_parse_row(line.text, line.len, &d->schema, &s->arena,
                               &d->conversation[d->conversations], e);
        if (rc != 0) {
            rc = err_wrap(e, "line %llu", (unsigned long long)line.number);
            break;
        }
        responses_add(d, s);
        d->conversations++;
    }
    lines_close(lines);
    return rc != 0 ? err_wrap(e, "%s", path) : 0;
}

int dataset_meta_load(const char *dir, struct dataset *out, struct err *e)
{
    char *path = mem_printf("%s/meta.json", dir);
    int rc = json_file_read(path, JSON_LIMITS_FILE.bytes_max, JSON_LIMITS_FILE, &out->meta, e);

    if (rc == 0)
        rc = schema_from_json(json_get(out->meta, "schema"), &out->schema, e);
    if (rc != 0)
        err_wrap(e, "%s", path);
    free(path);
    return rc;
}

int dataset_load(const char *dir, struct dataset *out, struct err *e)
{
    char *path = mem_printf("%s/rows.jsonl", dir);
    struct store *store = mem_zalloc(1, sizeof *store);
    int rc;

    memset(out, 0, sizeof *out);
    out->arena = store;
    rc = dataset_meta_load(dir, out, e);
    if (rc == 0)
        rc = rows_load(out, store, path, e);
    free(path);
    if (rc != 0)
        dataset_free(out);
    return rc;
}

void dataset_free(struct dataset *d)
{
    struct store *s = d->arena;

    if (s != NULL) {
        arena_free(&s->arena);
        free(s->of_conversation);
        free(s->of_turn);
        free(s);
    }
    free(d->conversation);
    cJSON_Delete(d->meta);
    memset(d, 0, sizeof *d);
}

void dataset_response(const struct dataset *d, size_t i, size_t *conversation, uint32_t *turn)
{
    const struct store *s = d->arena;

    CHECK(i < d->responses);
    *conversation = s->of_conversation[i];
    *turn = s->of_turn[i];
}

/* ---- writing --------------------------------------------------------------------------------- */

struct dataset_writer {
    char *dir;
    struct schema schema;
    int fd;
    struct buf out;
    size_t conversations[2], responses[2];
};

int dataset_writer_new(const char *dir, const struct schema *s, struct dataset_writer **out,
                       struct err *e)
{
    struct dataset_writer *w = NULL;
    char *path = mem_printf("%s/rows.jsonl", dir);
    int rc = file_make_dirs(dir, e);

    *out = NULL;
    if (rc == 0) {
        w = mem_zalloc(1, sizeof *w);
        w->dir = mem_strdup(dir);
        w->schema = *s;
        w->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (w->fd < 0) {
            rc = err_sys(e, "open %s", path);
            dataset_writer_abort(&w);
        }
    }
    free(path);
    *out = w;
    return rc;
}

/* The fewest digits that give the same float back; nine always do. */
static void float_write(struct buf *b, float v)
{
    char text[32];

    if (!isfinite(v)) {
        buf_str(b, "null");
        return;
    }
    if (rintf(v) == v && fabsf(v) < 1e6f) {
        buf_printf(b, "%d", (int)v);
        return;
    }
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v)
            break;
    }
    buf_str(b, text);
}

static void floats_write(struct buf *b, const char *key, const float *v, int n)
{
    int present = 0;

    for (int i = 0; v != NULL && i < n; i++)
        present += isfinite(v[i]) != 0;
    if (present == 0)
        return;
    buf_printf(b, "\"%s\":[", key);
    for (int i = 0; i < n; i++) {
        if (i > 0)
            buf_char(b, ',');
        float_write(b, v[i]);
    }
    buf_str(b, "],");
}

static void levels_write(struct buf *b, const int8_t *v, int n)
{
    int present = 0;

    for (int i = 0; v != NULL && i < n; i++)
        present += v[i] >= 0;
    if (present == 0)
        return;
    buf_str(b, "\"level\":[");
    for (int i = 0; i < n; i++)
        buf_printf(b, i > 0 ? ",%d" : "%d", v[i]);
    buf_str(b, "],");
}

static void turn_write(struct buf *b, const struct schema *s, const struct turn *t)
{
    buf_char(b, '{');
    floats_write(b, "human", t->human, s->labels);
    if (!t->kept)
        buf_str(b, "\"kept\":false,");
    levels_write(b, t->level, s->attrs);
    if (t->respond)
        buf_str(b, "\"respond\":true,");
    buf_printf(b, "\"role\":\"%s\",", role_names[t->role]);
    if (t->speaker != NULL && t->speaker[0] != '\0') {
        buf_str(b, "\"speaker\":");
        json_quote(t->speaker, strlen(t->speaker), b);
        buf_char(b, ',');
    }
    buf_str(b, "\"text\":");
    json_quote(t->text, t->text_len, b);
    if (t->tokens != 0)
        buf_printf(b, ",\"tokens\":%u", t->tokens);
    if (t->truncated)
        buf_str(b, ",\"truncated\":true");
    buf_char(b, ',');
    floats_write(b, "value", t->value, s->attrs);
    b->data[b->len - 1] = '}'; /* in place of the last comma */
}

void dataset_row_text(const struct conversation *c, const struct schema *s, struct buf *out)
{
    buf_printf(out, "{\"fold\":%u,\"id\":", c->fold);
    json_quote(c->id, strlen(c->id), out);
    buf_str(out, ",\"source\":");
    json_quote(c->source, strlen(c->source), out);
    buf_printf(out, ",\"split\":\"%s\",\"turns\":[",
               c->split == SPLIT_TRAIN ? "train" : "held_out");
    for (uint32_t i = 0; i < c->turns; i++) {
        if (i > 0)
            buf_char(out, ',');
        turn_write(out, s, &c->turn[i]);
    }
    buf_str(out, "]}");
}

/* Bytes of the row but for its texts. */
static size_t row_frame(const struct conversation *c, const struct schema *s)
{
    size_t turn = TURN_BYTES + (size_t)s->labels * FLOAT_BYTES +
                  (size_t)s->attrs * (FLOAT_BYTES + LEVEL_BYTES);

    return ROW_BYTES + c->turns * turn;
}

/* Not less than the bytes of all texts as they are written, without writing them. */
static size_t texts_bound(const struct conversation *c)
{
    size_t n = strlen(c->id) + strlen(c->source);

    for (uint32_t i = 0; i < c->turns; i++)
        n += c->turn[i].text_len + (c->turn[i].speaker != NULL ? strlen(c->turn[i].speaker) : 0);
    return ESCAPE_BYTES * n;
}

static size_t quoted(const char *text, size_t len, struct buf *scratch)
{
    buf_clear(scratch);
    json_quote(text, len, scratch);
    return scratch->len;
}

/* Stops when it is too much. */
static size_t texts_count(const struct conversation *c, size_t most)
{
    struct buf scratch = BUF_INIT;
    size_t n =
        quoted(c->id, strlen(c->id), &scratch) + quoted(c->source, strlen(c->source), &scratch);

    for (uint32_t i = 0; i < c->turns && n <= most; i++) {
        const struct turn *t = &c->turn[i];
        n += quoted(t->text, t->text_len, &scratch);
        if (t->speaker != NULL)
            n += quoted(t->speaker, strlen(t->speaker), &scratch);
    }
    buf_free(&scratch);
    return n;
}

bool dataset_row_fits(const struct conversation *c, const struct schema *s, size_t *bytes)
{
    size_t frame = row_frame(c, s);

    *bytes = frame + texts_bound(c);
    if (*bytes > DATASET_ROW_MAX) /* most texts are not all escapes */
        *bytes = frame + texts_count(c, DATASET_ROW_MAX);
    return *bytes <= DATASET_ROW_MAX;
}

int dataset_write(struct dataset_writer *w, const struct conversation *c, struct err *e)
{
    size_t begin = w->out.len;
    int rc = 0;

    beat();
    dataset_row_text(c, &w->schema, &w->out);
    if (w->out.len - begin > DATASET_ROW_MAX)
        return err_set(e, ERR_LIMIT, "conversation \"%.200s\" is a row of %zu bytes, at most %zu",
                       c->id, w->out.len - begin, DATASET_ROW_MAX);
    buf_char(&w->out, '\n');
    w->conversations[c->split]++;
    for (uint32_t i = 0; i < c->turns; i++)
        w->responses[c->split] += c->turn[i].respond;
    if (w->out.len >= FLUSH_BYTES) {
        rc = file_write_all(w->fd, w->out.data, w->out.len, e);
        buf_clear(&w->out);
    }
    return rc;
}

static cJSON *meta_make(const struct dataset_writer *w, const cJSON *extra)
{
    cJSON *meta = cJSON_CreateObject(), *counts = cJSON_AddObjectToObject(meta, "counts");
    const cJSON *item;

    cJSON_AddNumberToObject(meta, "version", 1);
    cJSON_AddItemToObject(meta, "schema", schema_to_json(&w->schema));
    for (int s = 0; s < 2; s++) {
        cJSON *one = cJSON_AddObjectToObject(counts, s == SPLIT_TRAIN ? "train" : "held_out");
        cJSON_AddNumberToObject(one, "conversations", (double)w->conversations[s]);
        cJSON_AddNumberToObject(one, "responses", (double)w->responses[s]);
    }
    cJSON_ArrayForEach(item, extra)
    {
        if (json_get(meta, item->string) == NULL) /* what the writer knows wins */
            cJSON_AddItemToObject(meta, item->string, cJSON_Duplicate(item, 1));
    }
    return meta;
}

int dataset_writer_end(struct dataset_writer **writer, const cJSON *extra_meta, struct err *e)
{
    struct dataset_writer *w = *writer;
    struct buf text = BUF_INIT;
    cJSON *meta = meta_make(w, extra_meta);
    char *path = mem_printf("%s/meta.json", w->dir);
    int rc = 0;

    if (w->out.len > 0)
        rc = file_write_all(w->fd, w->out.data, w->out.len, e);
    if (rc == 0 && fsync(w->fd) != 0)
        rc = err_set(e, ERR_IO, "fsync %s/rows.jsonl failed", w->dir);
    if (rc == 0) {
        json_canonical(meta, &text);
        rc = file_write_atomic(path, text.data, text.len, e);
    }
    if (rc != 0)
        err_wrap(e, "data set %s", w->dir);
    cJSON_Delete(meta);
    buf_free(&text);
    free(path);
    dataset_writer_abort(writer);
    return rc;
}

void dataset_writer_abort(struct dataset_writer **writer)
{
    struct dataset_writer *w = *writer;

    if (w == NULL)
        return;
    if (w->fd >= 0)
        close(w->fd);
    buf_free(&w->out);
    free(w->dir);
    free(w);
    *writer = NULL;
}
