/* Specs as files: reading, checking, showing; which files they name. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "steerctl/cli.h"

struct reader {
    const char *dir;
    int files; /* stages that came from other files */
};

static char *path_join(const char *dir, const char *file)
{
    return file[0] == '/' || strcmp(dir, ".") == 0 ? mem_strdup(file)
                                                   : mem_printf("%s/%s", dir, file);
}

static int stage_file_read(void *self, const char *path, struct buf *out, struct err *e)
{
    struct reader *r = self;
    char *full = path_join(r->dir, path);
    int rc = file_read(full, SPEC_YAML_MAX, out, e);

    r->files++;
    free(full);
    return rc;
}

char *cli_spec_path(const struct cli_spec *s, const char *file)
{
    return path_join(s->dir, strncmp(file, "file:", 5) == 0 ? file + 5 : file);
}

void cli_spec_free(struct cli_spec *s)
{
    spec_free(s->spec);
    buf_free(&s->text);
    free(s->dir);
    for (int i = 0; i < s->files_n; i++)
        free(s->file[i]);
    free(s->file);
    *s = (struct cli_spec){0};
}

/* ---- which files ----------------------------------------------------------------------------- */

static void file_add(struct cli_spec *s, const char *name)
{
    for (int i = 0; i < s->files_n; i++)
        if (strcmp(s->file[i], name) == 0)
            return;
    s->file = mem_grow(s->file, (size_t)s->files_n + 1, sizeof *s->file);
    s->file[s->files_n++] = mem_strdup(name);
}

static void ref_add(struct cli_spec *s, const char *ref)
{
    if (strncmp(ref, "file:", 5) == 0)
        file_add(s, ref + 5);
}

static void refs_collect(struct cli_spec *s, const struct spec *spec)
{
    for (int i = 0; i < spec->data_n; i++)
        for (int k = 0; k < spec->data[i].files.n; k++)
            if (strncmp(spec->data[i].files.v[k], "sha256:", 7) != 0)
                file_add(
                    s,
                    spec->data[i].files.v[k]); /* by the text that the coordinator will look for */
    for (int i = 0; i < spec->inputs_n; i++)
        for (int k = 0; k < spec->input[i].refs.n; k++)
            ref_add(s, spec->input[i].refs.v[k]);
    for (int i = 0; i < spec->evaluate.models_n; i++)
        ref_add(s, spec->evaluate.model[i].ref);
    ref_add(s, spec->tokenizer);
    for (int i = 0; i < spec->stages_n; i++) /* a pipeline's stages have no stages of their own */
        refs_collect(s, spec->stage[i]->spec);
}

/* ---- reading --------------------------------------------------------------------------------- */

static void problems_print(const char *path, const struct spec_problems *p)
{
    for (int i = 0; i < p->n; i++) {
        const struct spec_problem *v = &p->v[i];
        if (v->line > 0)
            cli_say("%s:%d:%d: %s", path, v->line, v->column, v->text);
        else
            cli_say("%s: %s", path, v->text);
    }
}

static char *dir_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL   ? mem_strdup(".")
           : slash == path ? mem_strdup("/")
                           : mem_strndup(path, (size_t)(slash - path));
}

/* The files must be there before anything is sent. */
int cli_spec_missing(const struct cli_spec *s, const char *path)
{
    int missing = 0;

    for (int i = 0; i < s->files_n; i++) {
        char *full = cli_spec_path(s, s->file[i]);
        if (access(full, R_OK) != 0) {
            cli_say("%s: file \"%s\": %s (paths are relative to the spec's directory)", path,
                    s->file[i], strerror(errno));
            missing++;
        }
        free(full);
    }
    return missing;
}

int cli_spec_read(const struct cli *c, const char *path, struct cli_spec *out)
{
    struct spec_problems problems = {0};
    struct err e = {0};
    struct reader reader = {0};
    int rc, code = CLI_OK;

    memset(out, 0, sizeof *out);
    out->dir = dir_of(path);
    reader.dir = out->dir;
    rc = file_read(path, SPEC_YAML_MAX, &out->text, &e);
    if (rc == ERR_NOT_FOUND)
        code = cli_fail(CLI_NOT_FOUND, "ls *.yaml jobs/specs/", "%s: there is no such file", path);
    else if (rc != 0)
        code = cli_fail(CLI_SPEC, NULL, "%s", e.msg);
    if (rc != 0)
        goto out;
    rc = spec_parse(out->text.data, out->text.len, c->sets, c->sets_n, stage_file_read, &reader,
                    &out->spec, &problems, &e);
    if (rc != 0 || problems.n > 0) {
        problems_print(path, &problems);
        if (problems.n > 0)
            code = cli_fail(CLI_SPEC, "steerctl help spec",
                            "%s has %d problem%s; nothing was submitted", path, problems.n,
                            problems.n == 1 ? "" : "s");
        else
            code = cli_fail(CLI_SPEC, "steerctl help spec", "%s: %s", path, e.msg);
        goto out;
    }
    refs_collect(out, out->spec);
    if (reader.files >
        0) { /* the coordinator cannot read files here: send the form that has them inside */
        cJSON *j = spec_to_json(out->spec);
        buf_clear(&out->text);
        json_canonical(j, &out->text);
        cJSON_Delete(j);
    }
out:
    spec_problems_free(&problems);
    if (code != CLI_OK)
        cli_spec_free(out);
    return code;
}

/* ---- validate, plan -------------------------------------------------------------------------- */

int verb_validate(struct cli *c)
{
    int worst = CLI_OK;

    for (int i = 0; i < c->pos_n; i++) {
        struct cli_spec s;
        int rc = cli_spec_read(c, c->pos[i], &s);
        if (rc == CLI_OK) {
            if (cli_spec_missing(&s, c->pos[i]) > 0)
                rc = cli_fail(CLI_SPEC, "steerctl plan FILE   (shows what a spec names)",
                              "%s names files that are not there", c->pos[i]);
            else
                printf("%s: ok\n", c->pos[i]);
            cli_spec_free(&s);
        }
        worst = rc > worst ? rc : worst;
    }
    return worst;
}

static void list_text(struct buf *b, const struct text_list *l)
{
    for (int i = 0; i < l->n; i++)
        buf_printf(b, "%s%s", i > 0 ? ", " : "", l->v[i]);
}

static void stage_row(struct cli_table *t, const char *name, const struct spec *s,
                      const struct text_list *needs)
{
    struct buf in = BUF_INIT, work = BUF_INIT, after = BUF_INIT;

    for (int i = 0; i < s->inputs_n; i++) {
        buf_printf(&in, "%s%s=", i > 0 ? " " : "", s->input[i].key);
        list_text(&in, &s->input[i].refs);
    }
    if (needs != NULL)
        list_text(&after, needs);
    if (s->kind == KIND_SFT || s->kind == KIND_TRAIN_ATTRIBUTE_MODEL) {
        if (s->train.max_tokens > 0)
            buf_printf(&work, "%" PRIu64 " tokens", s->train.max_tokens);
        else if (s->train.max_steps > 0)
            buf_printf(&work, "%" PRIu64 " steps", s->train.max_steps);
        else
            buf_printf(&work, "%g passes", s->train.passes);
        buf_printf(&work, ", batch %d in %d units, lr %g", s->train.global_batch, s->train.units,
                   s->train.lr);
        if (s->cross_fit > 1)
            buf_printf(&work, ", %d folds", s->cross_fit);
        if (spec_trains_bf16(s))
            buf_printf(&work, ", bf16 products");
    }
    cli_table_add(t, 5, name, job_kind_name(s->kind), after.len > 0 ? after.data : "-",
                  in.len > 0 ? in.data : "-", work.len > 0 ? work.data : "-");
    buf_free(&in);
    buf_free(&work);
    buf_free(&after);
}

static void plan_print(const struct cli_spec *s)
{
    struct cli_table t = {0};
    const struct spec *p = s->spec;

    printf("%s (%s, seed %" PRIu64 ")\n\n", p->name, job_kind_name(p->kind), p->seed);
    cli_table_add(&t, 5, "STAGE", "KIND", "NEEDS", "INPUTS", "WORK");
    for (int i = 0; i < p->data_n; i++) {
        char name[SPEC_NAME_MAX + 8];
        struct buf files = BUF_INIT;
        snprintf(name, sizeof name, "data/%s", p->data[i].name);
        list_text(&files, &p->data[i].files);
        cli_table_add(&t, 5, name, job_kind_name(KIND_PREPARE), "-",
                      files.len > 0 ? files.data : "-", "-");
        buf_free(&files);
    }
    if (p->kind != KIND_PIPELINE)
        stage_row(&t, p->name, p, NULL);
    for (int i = 0; i < p->stages_n; i++)
        stage_row(&t, p->stage[i]->name, p->stage[i]->spec, &p->stage[i]->needs);
    cli_table_print(&t, stdout);
    printf("\nfiles to upload:\n");
    for (int i = 0; i < s->files_n; i++) {
        char *full = cli_spec_path(s, s->file[i]), size[CLI_SHORT];
        struct stat st;
        bool there = stat(full, &st) == 0;
        cli_format_bytes(there ? (uint64_t)st.st_size : 0, size);
        printf("  %s (%s)\n", s->file[i],
               !there                ? "missing"
               : S_ISDIR(st.st_mode) ? "directory"
                                     : size);
        free(full);
    }
}

int verb_plan(struct cli *c)
{
    struct cli_spec s;
    int rc = cli_spec_read(c, c->pos[0], &s);

    if (rc != CLI_OK)
        return rc;
    if (c->opt[OPT_MEASURED] != NULL || c->opt[OPT_LINK] != NULL) {
        rc = cli_scale(c, s.spec);
    } else if (c->json) {
        cJSON *j = spec_to_json(s.spec);
        cli_print_json(j);
        cJSON_Delete(j);
    } else {
        plan_print(&s);
    }
    cli_spec_free(&s);
    return rc;
}
