/* data show, data check: a data file as the jobs of a spec would see it, before anything is trained on it. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/inspect.h"
#include "data/tokenizer.h"
#include "jobs/data_glue.h"
#include "steerctl/cli.h"

struct look { /* a data file under a spec */
    struct cli_spec s;
    const struct data_spec *data; /* how the spec reads it */
    const struct spec *stage;     /* whose template is meant; NULL: none with a local tokenizer */
    struct dataset set;
    struct problems problems;
    struct read_counts counts;
    struct template_config layout;
    struct tokenizer *tok;
    bool loaded, has_template;
};

static bool is_same_file(const struct cli_spec *s, const char *written, const char *path)
{
    char *full = cli_spec_path(s, written), *a = realpath(full, NULL), *b = realpath(path, NULL);
    bool same = a != NULL && b != NULL && strcmp(a, b) == 0;

    free(a);
    free(b);
    free(full);
    return same;
}

/* The data set that names this file, else the first: another file of the same form. */
static const struct data_spec *data_pick(const struct cli_spec *s, const char *path)
{
    for (int i = 0; i < s->spec->data_n; i++)
        for (int k = 0; k < s->spec->data[i].files.n; k++)
            if (is_same_file(s, s->spec->data[i].files.v[k], path))
                return &s->spec->data[i];
    return s->spec->data_n > 0 ? &s->spec->data[0] : NULL;
}

/* Path of the tokenizer of a stage's base, or NULL: it is not a local one. */
static char *tokenizer_path(const struct cli_spec *s, const struct spec *stage)
{
    const struct input_ref *base = spec_input(stage, "base");
    const char *ref = stage->tokenizer[0] != '\0'        ? stage->tokenizer
                      : base != NULL && base->refs.n > 0 ? base->refs.v[0]
                                                         : "";

    if (strcmp(ref, "synthetic") == 0)
        return mem_printf("synthetic:%d", stage->init.vocab);
    return strncmp(ref, "file:", 5) == 0 ? cli_spec_path(s, ref + 5) : NULL;
}

/* What is to be learnt, if the spec says: its first sft stage, else its first attribute model. */
static const struct spec *stage_pick(const struct spec *s)
{
    static const enum job_kind kinds[] = {KIND_SFT, KIND_TRAIN_ATTRIBUTE_MODEL};

    for (int k = 0; k < 2; k++) {
        if (s->kind == kinds[k])
            return s;
        for (int i = 0; i < s->stages_n; i++)
            if (s->stage[i]->spec->kind == kinds[k])
                return s->stage[i]->spec;
    }
    return NULL;
}

static int template_load(struct look *l, struct err *e)
{
    char *path;
    int rc;

    l->stage = stage_pick(l->s.spec);
    path = l->stage != NULL ? tokenizer_path(&l->s, l->stage) : NULL;
    if (path == NULL)
        return 0;
    rc = tokenizer_load(path, &l->tok, e);
    if (rc == 0)
        rc = data_glue_template(l->stage, l->data, &l->s.spec->schema, &l->layout, e);
    if (rc == 0)
        rc = template_prepare(&l->layout, l->tok, e);
    l->has_template = rc == 0;
    free(path);
    return rc;
}

static void look_close(struct look *l)
{
    if (l->loaded)
        dataset_free(&l->set);
    problems_free(&l->problems);
    tokenizer_free(l->tok);
    cli_spec_free(&l->s);
}

static int look_open(const struct cli *c, struct look *l)
{
    struct data_spec *one;
    struct err e = {0};
    int rc, code;

    memset(l, 0, sizeof *l);
    if (c->opt[OPT_SPEC] == NULL)
        return cli_fail(CLI_USAGE, "steerctl data check FILE --spec job.yaml",
                        "which attributes and fields? --spec FILE says it");
    if (access(c->pos[0], R_OK) != 0)
        return cli_fail(CLI_NOT_FOUND, "ls", "%s: there is no such file", c->pos[0]);
    code = cli_spec_read(c, c->opt[OPT_SPEC], &l->s);
    if (code != CLI_OK)
        return code;
    l->data = data_pick(&l->s, c->pos[0]);
    if (l->data == NULL)
        return cli_fail(CLI_USAGE, "steerctl help spec", "%s has no data set", c->opt[OPT_SPEC]);
    one = mem_alloc(sizeof *one); /* this one file, whatever else the data set has */
    *one = *l->data;
    one->files.n = 1;
    snprintf(one->files.v[0], sizeof one->files.v[0], "%s", c->pos[0]);
    one->problems_max =
        1.0; /* a person looks at all of them; the job's own bound is named at the end */
    rc = data_glue_load(one, &l->s.spec->schema, &c->pos[0], 1, &l->set, &l->problems, &l->counts,
                        &e);
    free(one);
    l->loaded = rc == 0;
    if (rc == 0)
        rc = template_load(l, &e);
    return rc != 0 ? cli_fail_err(&e, "steerctl help spec") : CLI_OK;
}

int verb_data_check(struct cli *c)
{
    struct look l;
    struct inspect_summary sum = {0};
    struct err e = {0};
    int code = look_open(c, &l);

    if (code == CLI_OK &&
        inspect_check(&l.set, &l.problems, &l.counts, l.has_template ? &l.layout : NULL, l.tok,
                      stdout, &sum, &e) != 0)
        code = cli_fail_err(&e, "steerctl help spec");
    if (code == CLI_OK && (double)l.counts.rows_bad > l.data->problems_max * (double)l.counts.rows)
        code = cli_fail(
            CLI_SPEC, "steerctl data check FILE --spec SPEC   (after mending the lines above)",
            "%llu of %llu rows are bad: a job would refuse this file (problems_max is %g)",
            (unsigned long long)l.counts.rows_bad, (unsigned long long)l.counts.rows,
            l.data->problems_max);
    if (code == CLI_OK && l.has_template && sum.usable == 0)
        code = cli_fail(CLI_SPEC, "steerctl data show FILE --spec SPEC",
                        "nothing in %s would be learnt from", c->pos[0]);
    look_close(&l);
    return code;
}

int verb_data_show(struct cli *c)
{
    struct look l;
    struct inspect_show what = {.first = 0, .colour = cli_has_colour(STDOUT_FILENO)};
    struct err e = {0};
    int64_t rows;
    int code = cli_int(c, OPT_ROWS, 1, 1000000, 3, &rows);

    if (code != CLI_OK)
        return code;
    what.count = (size_t)rows;
    code = look_open(c, &l);
    if (code == CLI_OK && !l.has_template)
        code = cli_fail(
            CLI_USAGE, "steerctl data check FILE --spec SPEC   (needs no tokens)",
            "%s has no training stage with a local base model, whose tokens could be shown",
            c->opt[OPT_SPEC]);
    if (code == CLI_OK && inspect_show(&l.set, &l.layout, l.tok, &what, stdout, &e) != 0)
        code = cli_fail_err(&e, "steerctl data check FILE --spec SPEC");
    look_close(&l);
    return code;
}
