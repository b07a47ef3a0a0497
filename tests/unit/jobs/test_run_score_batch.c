#include "tests/unit/jobs/jobs_fixture.h"

#include "jobs/run_score_batch.h"

static void answer_count(void *self, size_t id, int target, const float *out, int n)
{
    (void)id;
    (void)target;
    assert_int_equal(n, 2);
    assert_true(isfinite(out[0]) && isfinite(out[1]));
    ++*(int *)self;
}

/* What a batch must hold is what is read with the model, however long its context. */
static void test_any_sequence_that_may_come_fits(void **state)
{
    struct model m;
    struct template_target target = {.row = 0, .lo = 5, .hi = 7};
    struct score_batch *b;
    size_t longest;
    int32_t *ids;
    int answers = 0;

    (void)state;
    assert_int_equal(model_load("models/stories260K", MODEL_ALL, &m, NULL), 0);
    assert_int_equal(score_sequence_max(&m, 64), m.dims.context);
    m.dims.context = 1 << 20;
    assert_int_equal(score_sequence_max(&m, 64), SCORE_ROWS_MAX);
    m.steer.template_config.max_length = 3500;
    longest = score_sequence_max(&m, 64);
    assert_int_equal(longest, 3564);
    ids = mem_zalloc(longest, sizeof(*ids));
    b = score_batch_new(&m, longest, 2, NULL, &answers, answer_count);
    target.row = (uint32_t)longest - 1;
    score_batch_add(b, 0, ids, longest, &target, 1);
    target.row = 0;
    score_batch_add(b, 1, ids, 1, &target, 1);
    score_batch_flush(b);
    assert_int_equal(answers, 2);
    assert_int_equal(score_batch_rows(b), longest + 1);
    score_batch_free(b);
    free(ids);
    model_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_any_sequence_that_may_come_fits)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
