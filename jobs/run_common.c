#include "jobs/run_common.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

int run_dataset(const struct run_task *t, const struct run_env *env, const char *key,
                struct dataset *out, struct err *e)
{
    char path[4096];
    int rc = run_input(t, env, key, 0, path, sizeof(path), e);

    if (rc == 0) {
        rc = dataset_load(path, out, e);
        if (rc != 0)
            err_wrap(e, "input %s", key);
    }
    return rc;
}

static int rows_load(const char *dir, const void *self, run_row_fn is_wanted, struct dataset *out,
                     struct arena *arena, struct err *e)
{
    char *path = mem_printf("%s/rows.jsonl", dir);
    struct lines *lines = NULL;
    struct line line;
    size_t cap = 0;
    bool more = false;
    int rc = lines_open(path, DATASET_LINES, &lines, e);

    while (rc == 0 && (rc = lines_next(lines, &line, &more, e)) == 0 && more) {
        size_t i = out->conversations;
        if (i == cap) {
            cap = 2 * cap + 256;
            out->conversation = mem_grow(out->conversation, cap, sizeof(*out->conversation));
        }
        out->conversation[i] = (struct conversation){.id = "", .source = ""};
        out->conversations++;
        if (!is_wanted(self, i))
            continue;
        rc = line.too_long ? err_set(e, ERR_LIMIT, "longer than %zu bytes", DATASET_ROW_MAX)
                           : dataset_parse_row(line.text, line.len, &out->schema, arena,
                                               &out->conversation[i], e);
        if (rc != 0)
            err_wrap(e, "line %llu", (unsigned long long)line.number);
    }
    lines_close(lines);
    if (rc != 0)
        err_wrap(e, "%s", path);
    free(path);
    return rc;
}

int run_dataset_rows(const struct run_task *t, const struct run_env *env, const char *key,
                     const void *self, run_row_fn is_wanted, struct dataset *out,
                     struct arena *arena, struct err *e)
{
    char path[4096];
    int rc = run_input(t, env, key, 0, path, sizeof(path), e);

    memset(out, 0, sizeof(*out));
    if (rc != 0)
        return rc;
    rc = dataset_meta_load(path, out, e);
    if (rc == 0)
        rc = rows_load(path, self, is_wanted, out, arena, e);
    if (rc != 0) {
        dataset_free(out);
        err_wrap(e, "input %s", key);
    }
    return rc;
}

int run_model(const struct run_task *t, const struct run_env *env, const char *key, unsigned parts,
              struct model *out, struct err *e)
{
    char path[4096];
    int rc = run_input(t, env, key, 0, path, sizeof(path), e);

    if (rc != 0)
        return rc;
    rc = model_load(path, parts, out, e);
    if (rc == 0)
        rc = run_steer_check(out, e);
    if (rc != 0)
        err_wrap(e, "input %s", key);
    return rc;
}

static bool is_within(int32_t first, int64_t count, int32_t vocab)
{
    return count == 0 || (first >= 0 && first + count <= vocab);
}

/* What layouts are made of must be in the tokenizer, where there is one. */
static int marks_check(const struct template_config *c, const struct tokenizer *t, struct err *e)
{
    static const char *const marks[] = {"<extra_id_0>", "<extra_id_1>", "<extra_id_2>"};

    if (t == NULL || c->head == TEMPLATE_HEAD_CLASSES)
        return 0;
    if (tokenizer_eos(t) < 0)
        return err_set(e, ERR_INVALID, "steer_config.json: the tokenizer has no end token");
    if (c->name != TEMPLATE_NEMO && c->name != TEMPLATE_PAPER)
        return 0;
    for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++)
        if (tokenizer_id(t, marks[i]) < 0)
            return err_set(e, ERR_INVALID, "steer_config.json: the tokenizer has no %s", marks[i]);
    return 0;
}

/* Class tokens of every label that has some: the head's, or those that a policy must not write. */
static int classes_check(const struct template_config *c, int32_t vocab, bool *fits, struct err *e)
{
    for (int i = 0; i < c->schema.labels; i++) {
        const struct label *l = &c->schema.label[i];
        if (c->head != TEMPLATE_HEAD_CLASSES && c->class_first[i] < 0)
            continue;
        if (l->type == LABEL_SCALE && !(l->max - l->min < (double)SCHEMA_CLASSES_MAX))
            return err_set(e, ERR_INVALID,
                           "steer_config.json: label \"%s\" has a scale %g..%g, at most %d whole "
                           "numbers are classes",
                           l->name, l->min, l->max, SCHEMA_CLASSES_MAX);
        *fits = *fits && is_within(c->class_first[i], template_label_classes(l), vocab);
    }
    return 0;
}

/* Control and query tokens: those that the layout reads must be there, and any that are named must be in the
 * vocabulary, because no reply may have them, whatever the layout. */
static bool tokens_fit(const struct template_config *c, int32_t vocab)
{
    int64_t levels = 0;
    bool fits = true;

    for (int a = 0; a < c->schema.attrs; a++)
        levels += c->schema.attr[a].levels + 1;
    if (c->control_first >= 0 || (c->head == TEMPLATE_POLICY && c->name == TEMPLATE_CONTROL))
        fits = is_within(c->control_first, levels, vocab);
    if (c->query_first >= 0 || c->head == TEMPLATE_HEAD_CLASSES)
        fits = fits && is_within(c->query_first, c->schema.labels, vocab);
    return fits;
}

int run_steer_check(const struct model *m, struct err *e)
{
    const struct template_config *c = &m->steer.template_config;
    const struct schema *s = &c->schema;
    bool regression = m->dims.head == HEAD_REGRESSION, fits;
    int rc;

    if (m->steer.role == STEER_NONE)
        return 0;
    if ((c->head == TEMPLATE_POLICY) != (m->steer.role == STEER_POLICY) ||
        regression != (c->head == TEMPLATE_HEAD_REGRESSION))
        return err_set(e, ERR_INVALID,
                       "steer_config.json: role and head do not fit each other, or the model");
    if (regression && m->dims.head_out != s->attrs)
        return err_set(e, ERR_INVALID, "steer_config.json has %d attributes, the model %d scores",
                       s->attrs, m->dims.head_out);
    fits = tokens_fit(c, m->dims.vocab);
    if ((rc = classes_check(c, m->dims.vocab, &fits, e)) != 0 ||
        (rc = marks_check(c, m->tokenizer, e)) != 0)
        return rc;
    return fits ? 0
                : err_set(e, ERR_INVALID, "steer_config.json names ids beyond the vocabulary of %d",
                          m->dims.vocab);
}

struct run_keep run_keep_of(const struct dataset *d)
{
    const cJSON *keep = json_get(d->meta, "keep");
    struct run_keep k;

    k.max_reply_tokens = (int)json_int_or(keep, "max_reply_tokens", 0);
    k.context_tokens = (int)json_int_or(keep, "context_tokens", 0);
    return k;
}

cJSON *run_keep_to_json(struct run_keep k)
{
    cJSON *j = cJSON_CreateObject();

    cJSON_AddNumberToObject(j, "max_reply_tokens", k.max_reply_tokens);
    cJSON_AddNumberToObject(j, "context_tokens", k.context_tokens);
    return j;
}

int run_part_publish(const struct run_task *t, const struct run_env *env, struct run_result *r,
                     const struct buf *lines, struct err *e)
{
    char *path = mem_printf("%s/part-%u.jsonl", env->scratch, t->index);
    int rc = file_write_atomic(path, lines->len > 0 ? lines->data : "", lines->len, e);

    if (rc == 0)
        rc = run_publish(env, r, "part", path, e);
    free(path);
    return rc;
}

void run_number(struct buf *b, double v)
{
    if (isfinite(v))
        buf_printf(b, "%.9g", v);
    else
        buf_str(b, "null");
}

static int file_lines(const char *path, void *self, run_line_fn each, struct err *e)
{
    struct lines *lines = NULL;
    struct line line;
    bool more = false;
    int rc = lines_open(path, LINES_LIMITS, &lines, e);

    while (rc == 0) {
        cJSON *j = NULL;
        rc = lines_next(lines, &line, &more, e);
        if (rc != 0 || !more)
            break;
        if (line.too_long)
            rc = err_set(e, ERR_LIMIT, "longer than %zu bytes", LINES_LIMITS.line_max);
        else
            rc = json_parse(line.text, line.len, JSON_LIMITS_FILE, &j, e);
        if (rc == 0)
            rc = cJSON_IsObject(j) ? each(self, j, e) : err_set(e, ERR_CORRUPT, "is no object");
        cJSON_Delete(j);
        if (rc != 0)
            err_wrap(e, "line %llu", (unsigned long long)line.number);
    }
    lines_close(lines);
    return rc;
}

int run_lines_of_parts(const struct run_task *t, const struct run_env *env, const char *phase,
                       int begin, int end, void *self, run_line_fn each, struct err *e)
{
    char path[4096];
    int rc = 0;

    for (int i = begin; i < end && rc == 0; i++) {
        rc = run_phase_part(t, env, phase, i, path, sizeof(path), e);
        if (rc == 0) {
            rc = file_lines(path, self, each, e);
            if (rc != 0)
                err_wrap(e, "part %d of phase %s", i, phase);
        }
    }
    return rc;
}

int run_lines(const struct run_task *t, const struct run_env *env, const char *phase, void *self,
              run_line_fn each, struct err *e)
{
    return run_lines_of_parts(t, env, phase, 0, run_phase_parts(t, phase), self, each, e);
}

int run_check_cancelled(const struct run_env *env, struct err *e)
{
    if (env->cancelled != NULL && env->cancelled(env->self))
        return err_set(e, ERR_CANCELLED, "asked to stop");
    return 0;
}
