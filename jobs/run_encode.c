/*
 * run_encode: the first and the last task of a training stage. `encode` makes the model that training starts from (new tokens, another
 * head) and the examples, one file a fold; `export` puts trained parameters into a model directory.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/beat.h"
#include "base/file.h"
#include "data/examples.h"
#include "jobs/data_glue.h"
#include "jobs/data_pool.h"
#include "jobs/run.h"
#include "modelfile/modeldir.h"
#include "modelfile/weights.h"
#include "ps/ckpt.h"

enum { PATH_BYTES = 4096, DATASETS_MAX = 16, FOLDS_MAX = 16, ASK_EVERY = 64 };

struct encode {
    const struct run_task *t;
    const struct run_env *env;
    struct dataset *data[DATASETS_MAX];
    int datasets;
    struct model model;
    struct template_config cfg;
    struct examples_writer *writer[FOLDS_MAX];
    int folds;
    uint64_t count[FOLDS_MAX], tokens[FOLDS_MAX];
    uint64_t cut, unlabelled;
};

/* ---- inputs ---------------------------------------------------------------------------------- */

/* All rows are read by the schema of data set 0, what humans said of them too. */
static int data_fits(const struct encode *x, int i, struct err *e)
{
    const struct schema *first = &x->data[0]->schema, *s = &x->data[i]->schema;
    int rc = schema_same(first, s, e);

    if (rc == 0)
        rc = schema_same_labels(first, s, e);
    return rc == 0 ? 0 : err_wrap(e, "data sets 0 and %d", i);
}

static int data_load(struct encode *x, struct err *e)
{
    int n = run_input_count(x->t, "train"), rc = 0;
    char path[PATH_BYTES];

    if (n < 1 || n > DATASETS_MAX)
        return err_set(e, ERR_INVALID, "%d data sets to train on, must be 1..%d", n, DATASETS_MAX);
    for (int i = 0; i < n && rc == 0; i++) {
        rc = run_input(x->t, x->env, "train", i, path, sizeof path, e);
        if (rc != 0)
            break;
        x->data[i] = mem_zalloc(1, sizeof *x->data[i]);
        x->datasets = i + 1;
        rc = dataset_load(path, x->data[i], e);
        if (rc == 0 && i > 0)
            rc = data_fits(x, i, e);
    }
    if (rc == 0 && x->t->spec->schema.attrs > 0 &&
        schema_same(&x->t->spec->schema, &x->data[0]->schema, e) != 0)
        rc = err_wrap(e, "the spec's attributes and those of the data");
    return rc;
}

/* An artefact has no name, but a tokenizer file is told by it: a link with the right one, in `path` on return. */
static int tokenizer_named(const struct encode *x, char *path, size_t cap, struct err *e)
{
    char *named = NULL;
    FILE *f = NULL;
    int first, rc = 0;

    if (file_is_dir(path))
        return 0;
    f = fopen(path, "rb");
    if (f == NULL)
        return err_sys(e, "open %s", path);
    first = fgetc(f);
    fclose(f);
    named = mem_printf("%s/tokenizer.%s", x->env->scratch, first == '{' ? "json" : "bin");
    if (symlink(path, named) != 0)
        rc = err_sys(e, "link %s", named);
    snprintf(path, cap, "%s", named);
    free(named);
    return rc;
}

/* Dimensions within their bounds may still need more memory than there is. */
static int memory_check(const struct dims *d, struct err *e)
{
    size_t weights = dims_params(d);
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    float *p = NULL;

    if (pages > 0 && page > 0 && weights / ((size_t)page / sizeof *p) < (size_t)pages)
        p = weights_alloc(weights);
    free(p);
    return p != NULL ? 0 : err_set(e, ERR_LIMIT, "base.init: no memory for %zu weights", weights);
}

/* base: {init} starts from nothing, with a tokenizer of its own. */
static int model_new(struct encode *x, struct err *e)
{
    struct dims d = x->t->spec->init;
    struct tokenizer *tok = NULL;
    char path[PATH_BYTES];
    int rc = 0;

    if (run_input_count(x->t, "tokenizer") > 0)
        rc = run_input(x->t, x->env, "tokenizer", 0, path, sizeof path, e);
    else
        snprintf(path, sizeof path, "synthetic:%d", d.vocab);
    if (rc == 0 && run_input_count(x->t, "tokenizer") > 0)
        rc = tokenizer_named(x, path, sizeof path, e);
    if (rc == 0)
        rc = tokenizer_load(path, &tok, e);
    if (rc != 0)
        return err_wrap(e, "tokenizer %s", x->t->spec->tokenizer);
    if (d.vocab < tokenizer_vocab(tok))
        d.vocab = tokenizer_vocab(tok);
    rc = dims_check(&d, e);
    if (rc == 0)
        rc = memory_check(&d, e);
    if (rc != 0) {
        tokenizer_free(tok);
        return rc;
    }
    model_init_random(&x->model, &d, x->t->spec->seed);
    x->model.tokenizer = tok;
    return 0;
}

static int base_load(struct encode *x, struct err *e)
{
    char path[PATH_BYTES];
    int rc;

    if (x->t->spec->has_init)
        return model_new(x, e);
    rc = run_input(x->t, x->env, "base", 0, path, sizeof path, e);
    if (rc == 0)
        rc = model_load(path, MODEL_ALL, &x->model, e);
    if (rc == 0 && x->model.dims.head != HEAD_LM)
        rc = err_set(e, ERR_INVALID,
                     "base is a regression model; training starts from a language model");
    return rc;
}

/* ---- template and model ---------------------------------------------------------------------- */

/* What `prepare` wrote about the data goes before the spec of this stage, since a stage may be handed data from elsewhere. */
static void keep_read(const struct encode *x, struct template_config *cfg)
{
    const cJSON *keep = json_get(x->data[0]->meta, "keep");

    cfg->max_reply_tokens = (int32_t)json_int_or(keep, "max_reply_tokens", cfg->max_reply_tokens);
    cfg->context_tokens = (int32_t)json_int_or(keep, "context_tokens", cfg->context_tokens);
    if (cfg->head != TEMPLATE_POLICY)
        cfg->max_reply_tokens = 0; /* attribute models read all that was said */
    if (cfg->max_length <= 0 || cfg->max_length > x->model.dims.context)
        cfg->max_length = x->model.dims.context;
}

/* cfg->schema has its edges by now: they become part of the model. */
static int init_save(struct encode *x, struct run_result *r, struct err *e)
{
    struct model *m = &x->model;
    uint64_t seed = x->t->spec->seed;
    char *dir = mem_printf("%s/init", x->env->scratch);
    int rc;

    if (tokenizer_vocab(m->tokenizer) > m->dims.vocab)
        model_grow_vocab(m, tokenizer_vocab(m->tokenizer), seed);
    if (x->cfg.head == TEMPLATE_HEAD_REGRESSION)
        model_to_regression(m, x->cfg.schema.attrs, seed);
    m->steer.role = x->cfg.head == TEMPLATE_POLICY ? STEER_POLICY : STEER_ATTRIBUTE_MODEL;
    m->steer.template_config = x->cfg;
    rc = model_save(m, dir, e);
    if (rc == 0)
        rc = run_publish(x->env, r, "init", dir, e);
    file_remove_tree(dir, NULL);
    free(dir);
    return rc;
}

/* ---- examples -------------------------------------------------------------------------------- */

static int go_on(const struct encode *x, size_t i, struct err *e)
{
    beat();
    if (i % ASK_EVERY == 0 && x->env->cancelled != NULL && x->env->cancelled(x->env->self))
        return err_set(e, ERR_CANCELLED, "asked to stop");
    return 0;
}

static void example_put(struct encode *x, int fold, const struct sequence *s)
{
    if (examples_write(x->writer[fold], s))
        x->count[fold]++;
    else
        x->unlabelled++;
}

static int policy_write(struct encode *x, const struct data_pool *pool, struct err *e)
{
    struct sequence *s = mem_zalloc(1, sizeof *s);
    int rc = 0;

    for (size_t i = 0; i < pool->n && rc == 0; i++) {
        const struct pool_item *p = &pool->item[i];
        rc = go_on(x, i, e);
        if (rc == 0)
            rc = template_example(&x->cfg, x->model.tokenizer,
                                  &p->data->conversation[p->conversation], p->turn, NULL, s, e);
        if (rc != 0)
            break;
        x->cut += s->truncated;
        example_put(x, 0, s);
    }
    sequence_free(s);
    free(s);
    return rc;
}

/* Fold k of F learns from the conversations whose fold % F is not k; a single fold from all. */
static int scores_write(struct encode *x, struct err *e)
{
    struct sequence *s = mem_zalloc(1, sizeof *s);
    size_t at = 0;
    int rc = 0;

    for (int k = 0; k < x->datasets && rc == 0; k++) {
        for (size_t i = 0; i < x->data[k]->responses && rc == 0; i++) {
            const struct conversation *c;
            size_t index;
            uint32_t turn;
            dataset_response(x->data[k], i, &index, &turn);
            c = &x->data[k]->conversation[index];
            if (c->split != SPLIT_TRAIN)
                continue;
            rc = go_on(x, at++, e);
            if (rc == 0)
                rc = template_score(&x->cfg, x->model.tokenizer, c, turn, s, e);
            x->cut += rc == 0 && s->truncated;
            for (int f = 0; f < x->folds && rc == 0; f++)
                if (x->folds == 1 || c->fold % (uint32_t)x->folds != (uint32_t)f)
                    example_put(x, f, s);
        }
    }
    sequence_free(s);
    free(s);
    return rc;
}

/* Text is cut to the length, marks and labels are not. */
static int length_check(const struct encode *x, const char *name, const struct examples *done,
                        struct err *e)
{
    if (examples_length_max(done) <= (uint32_t)x->cfg.max_length)
        return 0;
    return err_set(e, ERR_INVALID,
                   "%s: marks and labels alone make a sequence of %u tokens, max_length is %d",
                   name, examples_length_max(done), x->cfg.max_length);
}

static int examples_publish(struct encode *x, int fold, struct run_result *r, struct err *e)
{
    char *path = mem_printf("%s/examples.%d", x->env->scratch, fold);
    char name[32];
    struct examples *done = NULL;
    int rc = 0;

    snprintf(name, sizeof name, "examples.%d", fold);
    if (x->count[fold] == 0)
        rc = err_set(e, ERR_INVALID,
                     "%s: nothing to learn: no response has what the template teaches", name);
    if (rc == 0)
        rc = examples_writer_end(&x->writer[fold], path, e);
    if (rc == 0)
        rc = examples_open(path, &done, e);
    if (rc == 0)
        rc = length_check(x, name, done, e);
    if (rc == 0)
        rc = run_publish(x->env, r, name, path, e);
    if (rc == 0) {
        run_metric(r, name, (double)examples_count(done));
        snprintf(name, sizeof name, "tokens.%d", fold);
        run_metric(r, name, (double)examples_tokens(done));
        snprintf(name, sizeof name, "length_max.%d", fold);
        run_metric(r, name, (double)examples_length_max(done));
        snprintf(name, sizeof name, "targets_max.%d", fold);
        run_metric(r, name, (double)examples_targets_max(done));
    }
    examples_close(done);
    remove(path);
    free(path);
    return rc;
}

static int examples_make(struct encode *x, const struct data_pool *pool, struct run_result *r,
                         struct err *e)
{
    int rc = 0;

    for (int k = 0; k < x->folds && rc == 0; k++)
        rc =
            examples_writer_new(&x->cfg, x->model.tokenizer, x->model.dims.vocab, &x->writer[k], e);
    if (rc == 0)
        rc = x->cfg.head == TEMPLATE_POLICY ? policy_write(x, pool, e) : scores_write(x, e);
    for (int k = 0; k < x->folds && rc == 0; k++)
        rc = examples_publish(x, k, r, e);
    for (int k = 0; k < x->folds; k++)
        examples_writer_end(&x->writer[k], NULL, NULL);
    return rc;
}

/* ---- the task -------------------------------------------------------------------------------- */

static int levels_make(struct encode *x, struct data_pool *pool, struct err *e)
{
    const struct condition_spec *c = &x->t->spec->condition;
    int rc =
        data_pool_make(x->data, x->datasets, x->model.tokenizer, x->cfg.max_reply_tokens, pool, e);

    if (rc == 0 && pool->n == 0)
        rc = err_set(e, ERR_INVALID,
                     "no response is left to learn from: %llu are longer than %d tokens",
                     (unsigned long long)(pool->over_long + pool->unkept), x->cfg.max_reply_tokens);
    if (rc == 0)
        rc = data_pool_levels(pool, x->data, x->datasets,
                              c->labels[0] != '\0' ? c->labels : "predicted", &x->cfg.schema, e);
    if (rc == 0 && c->shuffle_labels)
        data_pool_shuffle(pool, x->t->spec->seed);
    return rc;
}

static void encode_free(struct encode *x)
{
    for (int i = 0; i < x->datasets; i++) {
        dataset_free(x->data[i]);
        free(x->data[i]);
    }
    model_fini(&x->model);
    free(x);
}

int run_encode(const struct run_task *t, const struct run_env *env, struct run_result *r,
               struct err *e)
{
    struct encode *x = mem_zalloc(1, sizeof *x);
    struct data_pool pool = {0};
    int rc;

    x->t = t;
    x->env = env;
    x->folds = t->spec->kind == KIND_TRAIN_ATTRIBUTE_MODEL && t->spec->cross_fit > 1
                   ? t->spec->cross_fit
                   : 1;
    CHECK(x->folds <= FOLDS_MAX);
    rc = data_load(x, e);
    if (rc == 0)
        rc = base_load(x, e);
    if (rc == 0)
        rc = data_glue_template(t->spec, NULL, &x->data[0]->schema, &x->cfg, e);
    if (rc != 0)
        goto out;
    keep_read(x, &x->cfg);
    rc = template_prepare(&x->cfg, x->model.tokenizer, e);
    if (rc == 0 && x->cfg.head == TEMPLATE_POLICY)
        rc = levels_make(x, &pool, e);
    if (rc == 0)
        rc = init_save(x, r, e);
    if (rc == 0)
        rc = examples_make(x, &pool, r, e);
    if (rc != 0)
        goto out;
    run_metric(r, "params", (double)x->model.layout.count);
    run_metric(r, "vocab", (double)x->model.dims.vocab);
    run_metric(r, "cut", (double)x->cut);
    run_metric(r, "dropped.over_long", (double)(pool.over_long + pool.unkept));
    run_metric(r, "dropped.unlabelled", (double)x->unlabelled);
out:
    data_pool_free(&pool);
    encode_free(x);
    return rc;
}

/* ---- export ---------------------------------------------------------------------------------- */

static void norm_metric(const struct model *m, struct run_result *r)
{
    double sum = 0.0;

    for (size_t i = 0; i < m->layout.count; i++)
        sum += (double)m->params[i] * (double)m->params[i];
    run_metric(r, "norm", sqrt(sum));
}

int run_export(const struct run_task *t, const struct run_env *env, struct run_result *r,
               struct err *e)
{
    struct model m = {0};
    char *dir = mem_printf("%s/model", env->scratch);
    char phase[32], path[PATH_BYTES];
    const cJSON *checkpoint;
    int rc;

    snprintf(phase, sizeof phase, "train.%u", t->index);
    checkpoint = json_get(json_get(json_get(t->phases, phase), "outputs"), "checkpoint");
    if (!cJSON_IsString(checkpoint)) {
        rc = err_set(e, ERR_INVALID, "phase %s has no checkpoint", phase);
        goto out;
    }
    rc = run_phase_output(t, env, "encode", "init", path, sizeof path, e);
    if (rc == 0)
        rc = model_load(path, MODEL_ALL, &m, e);
    if (rc == 0)
        rc = ckpt_read_params(checkpoint->valuestring, env->fetch, env->self, m.params,
                              m.layout.count, e);
    for (size_t i = 0; rc == 0 && i < m.layout.count; i++)
        if (!isfinite(m.params[i]))
            rc = err_set(e, ERR_NUMERIC, "parameter %zu of the trained model is not finite", i);
    if (rc == 0)
        rc = model_save(&m, dir, e);
    if (rc == 0)
        rc = run_publish(env, r, "part", dir, e);
    if (rc == 0)
        norm_metric(&m, r);
out:
    model_fini(&m);
    file_remove_tree(dir, NULL);
    free(dir);
    return rc;
}
