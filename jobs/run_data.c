/* run_data: the `prepare` task, raw files -> one canonical data set. */
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "jobs/data_glue.h"
#include "jobs/run.h"

static bool asked_to_stop(void *self)
{
    const struct run_env *env = self;

    return env->cancelled != NULL && env->cancelled(env->self);
}

static void problems_log(const struct problems *p)
{
    for (size_t i = 0; i < p->n && i < 20; i++)
        log_warn("data.problem", "file=%s line=%llu path=%s", p->v[i].file,
                 (unsigned long long)p->v[i].line, p->v[i].path);
}

static void metrics_set(struct run_result *r, const struct problems *p, const struct read_counts *c)
{
    run_metric(r, "rows", (double)(c->conversations[0] + c->conversations[1]));
    run_metric(r, "responses", (double)(c->responses[0] + c->responses[1]));
    run_metric(r, "rows.held_out", (double)c->conversations[SPLIT_HELD_OUT]);
    run_metric(r, "responses.held_out", (double)c->responses[SPLIT_HELD_OUT]);
    run_metric(r, "lines", (double)c->rows);
    run_metric(r, "problems", (double)p->total);
    run_metric(r, "turns_empty", (double)c->turns_empty);
    run_metric(r, "threads_short", (double)c->threads_short);
    run_metric(r, "threads_repeated", (double)c->threads_repeated);
}

int run_prepare(const struct run_task *t, const struct run_env *env, struct run_result *r,
                struct err *e)
{
    const struct data_spec *d = t->spec->data_n > 0 ? &t->spec->data[0] : NULL;
    char(*path)[4096] = mem_zalloc(SPEC_LIST_MAX, sizeof *path);
    const char *paths[SPEC_LIST_MAX];
    char *dir = mem_printf("%s/data", env->scratch);
    struct problems problems = {0};
    struct read_counts counts = {0};
    int n = run_input_count(t, "files"), rc = 0;

    if (d == NULL || n < 1 || n != d->files.n)
        rc = err_set(e, ERR_INVALID, "prepare: %d files for %d that the spec names", n,
                     d != NULL ? d->files.n : 0);
    for (int i = 0; i < n && rc == 0; i++) {
        rc = run_input(t, env, "files", i, path[i], sizeof path[i], e);
        paths[i] = path[i];
    }
    if (rc == 0)
        rc = data_glue_prepare(d, &t->spec->schema, paths, n, dir, (void *)(uintptr_t)env,
                               asked_to_stop, &problems, &counts, e);
    if (rc == 0)
        rc = run_publish(env, r, "data", dir, e);
    if (rc == 0)
        metrics_set(r, &problems, &counts);
    problems_log(&problems);
    problems_free(&problems);
    file_remove_tree(dir, NULL);
    free(dir);
    free(path);
    return rc;
}
