/* read_fixture: what comes out of reading a text, compared as one line of text a conversation. */
#ifndef TESTS_READ_FIXTURE_H
#define TESTS_READ_FIXTURE_H

#include "data_fixture.h"

struct run {
    struct buf
        out; /* one line a conversation: id|turn|turn; a turn is role:text, * behind a response, labels in () */
    struct problems problems;
    struct read_counts counts;
    struct err e;
    const struct schema *schema;
    int rc;
};

static inline int emit(void *self, const struct conversation *c, struct err *e)
{
    struct run *r = self;

    (void)e;
    buf_str(&r->out, c->id);
    for (uint32_t i = 0; i < c->turns; i++) {
        const struct turn *t = &c->turn[i];
        buf_printf(&r->out, "|%c:%s%s", "sua"[t->role], t -> text, t -> respond ? "*" : "");
        for (int l = 0; l < r->schema->labels; l++)
            if (!isnan(t->human[l]))
                buf_printf(&r->out, "(%s %g)", r->schema->label[l].name, (double)t->human[l]);
    }
    buf_char(&r->out, '\n');
    return 0;
}

static inline void run_with(struct run *r, struct read_config *c, const char *text)
{
    char *dir = temp_dir(), *path = temp_file(dir, "x", text, strlen(text));
    const char *paths[1] = {path}, *names[1] = {"f"};

    memset(r, 0, sizeof *r);
    r->schema = c->schema;
    c->self = r;
    buf_str(&r->out, "");
    r->rc = read_files(c, paths, names, 1, &r->problems, &r->counts, &r->e);
    free(path);
    temp_free(dir);
}

static inline void run_end(struct run *r)
{
    buf_free(&r->out);
    problems_free(&r->problems);
}

static inline void expect(const struct schema *s, enum read_format format, const char *text,
                   const char *out)
{
    struct read_config c = read_config_of(s, emit);
    struct run r;

    c.format = format;
    run_with(&r, &c, text);
    if (r.rc != 0)
        fail_msg("%s", r.e.msg);
    if (r.problems.n > 0)
        fail_msg("%s: %s", r.problems.v[0].path, r.problems.v[0].text);
    assert_string_equal(r.out.data, out);
    run_end(&r);
}

/* The text must give one problem at this path with this in its words, and the good row behind it must be read. */
static inline void expect_problem(const struct schema *s, const char *bad, const char *good,
                           const char *path, const char *words)
{
    struct read_config c = read_config_of(s, emit);
    struct buf text = BUF_INIT;
    struct run r;

    buf_printf(&text, "%s\n%s\n%s\n", good, bad, good);
    c.format = READ_AUTO;
    run_with(&r, &c, text.data);
    if (r.rc != 0)
        fail_msg("%s: %s", bad, r.e.msg);
    if (r.problems.total != 1 &&
        r.problems.total != 2) /* the second good row may have the first one's id */
        fail_msg("%s: %zu problems", bad, r.problems.total);
    assert_int_equal(r.problems.v[0].line, 2);
    assert_string_equal(r.problems.v[0].file, "f");
    if (strcmp(r.problems.v[0].path, path) != 0 || strstr(r.problems.v[0].text, words) == NULL)
        fail_msg("%s gave %s: %s", bad, r.problems.v[0].path, r.problems.v[0].text);
    assert_int_equal(r.counts.rows, 3);
    assert_int_equal(r.counts.rows_bad, r.problems.total);
    buf_free(&text);
    run_end(&r);
}

#endif
