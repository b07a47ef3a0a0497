#include "jobs/data_glue.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "data/clean.h"
#include "jobs/data_pool.h"

static int clean_flags(const struct data_spec *d, unsigned *flags, struct err *e)
{
    *flags = 0;
    for (int i = 0; i < d->clean.n; i++) {
        unsigned one = 0;
        int rc = clean_find(d->clean.v[i], &one, e);
        if (rc != 0)
            return rc;
        *flags |= one;
    }
    return 0;
}

static int config_make(const struct data_spec *d, const struct schema *s, struct read_config *c,
                       struct err *e)
{
    int rc = read_format_find(d->format[0] != '\0' ? d->format : "auto", &c->format, e);

    if (rc == 0)
        rc = clean_flags(d, &c->clean, e);
    if (rc != 0)
        return rc;
    c->schema = s;
    c->held_out = d->split.held_out;
    c->seed = d->split.seed;
    c->problems_max = d->problems_max;
    c->limits = LINES_LIMITS;
    c->limit = (uint64_t)d->limit;
    c->map.conversation = d->map.conversation;
    c->map.id = d->map.id;
    c->map.text = d->map.text;
    c->map.speaker = d->map.speaker;
    c->map.prompt = d->map.prompt;
    c->map.response = d->map.response;
    for (int i = 0; i < d->map.respond.n && i < READ_LIST_MAX; i++)
        c->map.respond[c->map.respond_n++] = d->map.respond.v[i];
    for (int i = 0; i < d->map.labels.n && i < READ_LIST_MAX; i++)
        c->map.labels[c->map.labels_n++] = d->map.labels.v[i];
    return 0;
}

int data_glue_read(const struct data_spec *d, const struct schema *s, const char *const *paths,
                   int n, void *self,
                   int (*emit)(void *self, const struct conversation *c, struct err *e),
                   bool (*cancelled)(void *self), struct problems *problems,
                   struct read_counts *counts, struct err *e)
{
    struct read_config c = {0};
    const char *names[SPEC_LIST_MAX];
    int rc = config_make(d, s, &c, e);

    if (rc != 0)
        return err_wrap(e, "data %s", d->name);
    if (n != d->files.n || n > SPEC_LIST_MAX)
        return err_set(e, ERR_INVALID, "data %s: %d files are given, the spec names %d", d->name, n,
                       d->files.n);
    for (int i = 0; i < n; i++)
        names[i] = d->files.v[i];
    c.self = self;
    c.emit = emit;
    c.cancelled = cancelled;
    rc = read_files(&c, paths, names, n, problems, counts, e);
    return rc != 0 ? err_wrap(e, "data %s", d->name) : 0;
}

struct prepare {
    struct dataset_writer *writer;
    void *self;
    bool (*cancelled)(void *self);
};

static int prepare_emit(void *self, const struct conversation *c, struct err *e)
{
    struct prepare *p = self;

    return dataset_write(p->writer, c, e);
}

static bool prepare_cancelled(void *self)
{
    struct prepare *p = self;

    return p->cancelled != NULL && p->cancelled(p->self);
}

static cJSON *meta_make(const struct data_spec *d, const struct problems *problems,
                        const struct read_counts *counts)
{
    cJSON *meta = cJSON_CreateObject(), *clean = cJSON_AddArrayToObject(meta, "clean");
    cJSON *keep = cJSON_AddObjectToObject(meta, "keep");

    for (int i = 0; i < d->clean.n; i++)
        cJSON_AddItemToArray(clean, cJSON_CreateString(d->clean.v[i]));
    cJSON_AddNumberToObject(keep, "max_reply_tokens", d->keep.max_reply_tokens);
    cJSON_AddNumberToObject(keep, "context_tokens", d->keep.context_tokens);
    cJSON_AddStringToObject(meta, "name", d->name);
    cJSON_AddItemToObject(meta, "problems", problems_to_json(problems));
    cJSON_AddNumberToObject(meta, "problems_total", (double)problems->total);
    cJSON_AddItemToObject(meta, "read", read_counts_to_json(counts));
    return meta;
}

int data_glue_prepare(const struct data_spec *d, const struct schema *s, const char *const *paths,
                      int n, const char *dir, void *self, bool (*cancelled)(void *self),
                      struct problems *problems, struct read_counts *counts, struct err *e)
{
    struct prepare p = {NULL, self, cancelled};
    cJSON *meta = NULL;
    int rc = dataset_writer_new(dir, s, &p.writer, e);

    if (rc == 0)
        rc = data_glue_read(d, s, paths, n, &p, prepare_emit, prepare_cancelled, problems, counts,
                            e);
    if (rc == 0) {
        meta = meta_make(d, problems, counts);
        rc = dataset_writer_end(&p.writer, meta, e);
    }
    dataset_writer_abort(&p.writer);
    cJSON_Delete(meta);
    return rc;
}

static int levels_preview(struct dataset *d, struct err *e)
{
    struct schema schema = d->schema;
    struct data_pool pool;
    int rc = data_pool_make(&d, 1, NULL, 0, &pool, e);

    if (rc == 0)
        rc = data_pool_levels(&pool, &d, 1, "human", &schema, e);
    data_pool_free(&pool);
    return rc;
}

int data_glue_load(const struct data_spec *d, const struct schema *s, const char *const *paths,
                   int n, struct dataset *out, struct problems *problems,
                   struct read_counts *counts, struct err *e)
{
    const char *tmp = getenv("TMPDIR");
    char *dir = mem_printf("%s/steer-data-XXXXXX", tmp != NULL && tmp[0] != '\0' ? tmp : "/tmp");
    int rc = 0;

    memset(out, 0, sizeof *out);
    if (mkdtemp(dir) == NULL) {
        rc = err_sys(e, "make a directory like %s", dir);
        free(dir);
        return rc;
    }
    rc = data_glue_prepare(d, s, paths, n, dir, NULL, NULL, problems, counts, e);
    if (rc == 0)
        rc = dataset_load(dir, out, e);
    if (rc == 0)
        rc = levels_preview(out, e);
    file_remove_tree(dir, NULL);
    free(dir);
    return rc;
}

int data_glue_template(const struct spec *s, const struct data_spec *data,
                       const struct schema *schema, struct template_config *out, struct err *e)
{
    static const char *const names[] = {"plain", "control", "nemo", "paper"};
    int name = 0;

    memset(out, 0, sizeof *out);
    if (data == NULL && s->data_n > 0)
        data = &s->data[0];
    out->schema = *schema;
    out->max_length = s->train.max_length;
    if (s->condition.template_name[0] != '\0') {
        for (; name < 4 && strcmp(names[name], s->condition.template_name) != 0; name++)
            ;
        if (name == 4)
            return err_set(e, ERR_INVALID, "template \"%s\" is none of plain, control, nemo, paper",
                           s->condition.template_name);
    }
    out->name = (enum template_name)name;
    if (data != NULL) {
        out->context_tokens = data->keep.context_tokens;
        out->max_reply_tokens = data->keep.max_reply_tokens;
    }
    if (s->kind != KIND_TRAIN_ATTRIBUTE_MODEL) {
        out->head = TEMPLATE_POLICY;
        out->loss_on_all = strcmp(s->condition.loss_on, "all") == 0;
        return 0;
    }
    if (strcmp(s->head, "lm") == 0)
        out->head = TEMPLATE_HEAD_LM;
    else if (strcmp(s->head, "regression") == 0)
        out->head = TEMPLATE_HEAD_REGRESSION;
    else if (strcmp(s->head, "classes") == 0)
        out->head = TEMPLATE_HEAD_CLASSES;
    else
        return err_set(e, ERR_INVALID, "head \"%s\" is none of lm, classes, regression", s->head);
    return 0;
}
