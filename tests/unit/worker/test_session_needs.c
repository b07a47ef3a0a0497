/* What a session refuses to start with: examples that its model can't read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "data/examples.h"
#include "worker/session_inner.h"

enum { LENGTH = 40 };

/* A session whose cache has its only input: examples of one sequence. */
struct world {
    char dir[64];
    struct blob_store *cache;
    struct session s;
    struct control open;
};

static void world_init(struct world *w)
{
    char path[128], checkout[128];
    struct err e = {0};

    memset(w, 0, sizeof *w);
    snprintf(w->dir, sizeof w->dir, "/tmp/steer-needs-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(path, sizeof path, "%s/blobs", w->dir);
    snprintf(checkout, sizeof checkout, "%s/trees", w->dir);
    assert_int_equal(file_make_dirs(checkout, &e), 0);
    assert_int_equal(blob_open(path, &w->cache, &e), 0);
    assert_int_equal(
        artifact_client_new("http://127.0.0.1:1", w->cache, checkout, &w->s.env.artifacts, &e), 0);
    w->s.open = &w->open;
    w->s.spec = spec_new();
    w->s.model.dims = (struct dims){.vocab = 300, .context = LENGTH};
}

static void world_fini(struct world *w)
{
    examples_close(w->s.examples);
    spec_free(w->s.spec);
    artifact_client_free(w->s.env.artifacts);
    blob_close(w->cache);
    file_remove_tree(w->dir, NULL);
}

static void examples_make(struct world *w)
{
    struct template_config c = {.name = TEMPLATE_PLAIN, .head = TEMPLATE_POLICY};
    struct sequence *s = calloc(1, sizeof *s);
    struct examples_writer *writer = NULL;
    struct tokenizer *tok = NULL;
    struct err e = {0};
    char path[128];

    for (int32_t i = 0; i < LENGTH; i++)
        ids_push(&s->ids, 100 + i);
    s->piece[s->pieces++] = (struct piece){.kind = PIECE_TOKENS, .end = LENGTH, .weight = 1.0f};
    snprintf(path, sizeof path, "%s/examples", w->dir);
    assert_int_equal(tokenizer_load("synthetic:300", &tok, &e), 0);
    assert_int_equal(examples_writer_new(&c, tok, 300, &writer, &e), 0);
    assert_true(examples_write(writer, s));
    assert_int_equal(examples_writer_end(&writer, path, &e), 0);
    assert_int_equal(blob_put_file(w->cache, path, &w->open.examples, &e), 0);
    tokenizer_free(tok);
    sequence_free(s);
    free(s);
}

static void test_examples_that_the_model_cannot_read_are_refused(void **state)
{
    struct world w;
    struct err e = {0};

    (void)state;
    world_init(&w);
    examples_make(&w);
    if (session_examples(&w.s, &e) != 0) /* as long as the context: fits */
        fail_msg("%s", e.msg);
    examples_close(w.s.examples);
    w.s.examples = NULL;
    w.s.model.dims.context = LENGTH - 1;
    assert_int_equal(session_examples(&w.s, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "a sequence of 40 tokens, the model's context is 39"));
    examples_close(w.s.examples);
    w.s.examples = NULL;
    w.s.model.dims = (struct dims){.vocab = 299, .context = LENGTH};
    assert_int_equal(session_examples(&w.s, &e), ERR_INVALID);
    assert_non_null(strstr(e.msg, "use 300 tokens, the model has 299"));
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples_that_the_model_cannot_read_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
