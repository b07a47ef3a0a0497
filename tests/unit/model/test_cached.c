#include "model/cached.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/model/stories.h"

/* Losses and last logits of five texts against an independent implementation (numpy, float32,
 * 1e-4). `at_once`: rows a step. */
static void check_case(const struct dims *d, const float *params, const cJSON *one, int at_once)
{
    const cJSON *ids = json_get(one, "ids"), *nll = json_get(one, "next_token_nll"), *top;
    int n = cJSON_GetArraySize(ids);
    struct cached *x = cached_new(d, 64, 512, 128, false); /* 64: so many rows of a step may want logits */
    struct cached_row rows[64];
    double sum = 0.0;

    cached_load(x, params);
    for (int i = 0; i < n; i += at_once) {
        int take = n - i < at_once ? n - i : at_once;
        for (int j = 0; j < take; j++)
            rows[j] = (struct cached_row){.slot = 5,
                                          .position = i + j,
                                          .token = cJSON_GetArrayItem(ids, i + j)->valueint,
                                          .logits = j};
        cached_step(x, rows, (size_t)take);
        for (int j = 0; j < take && i + j + 1 < n; j++) {
            const real *logits = cached_logits(x, j);
            int next = cJSON_GetArrayItem(ids, i + j + 1)->valueint;
            double all = 0.0;
            for (int v = 0; v < d->vocab; v++)
                all += exp((double)logits[v] - (double)logits[next]);
            assert_true(fabs(log(all) - cJSON_GetArrayItem(nll, i + j)->valuedouble) < 1e-4);
        }
    }
    cJSON_ArrayForEach(top, json_get(one, "last_logits_top10"))
    {
        double got =
            (double)cached_logits(x, (n - 1) % at_once)[cJSON_GetArrayItem(top, 0)->valueint];
        assert_true(fabs(got - cJSON_GetArrayItem(top, 1)->valuedouble) < 1e-3);
    }
    for (int v = 0; v < d->vocab; v++)
        sum += (double)cached_logits(x, (n - 1) % at_once)[v];
    assert_true(fabs(sum - json_number_or(one, "last_logits_sum", 0.0)) < 0.05);
    cached_free(x);
}

static void test_numbers_of_another_implementation(void **state)
{
    static const int at_once[] = {1, 7, 64};
    struct dims d = stories_dims();
    float *params = stories_params(&d);
    struct buf text = BUF_INIT;
    cJSON *reference = NULL;
    const cJSON *one;
    int cases = 0;

    (void)state;
    assert_int_equal(file_read("tests/data/stories260K/reference.json", 1u << 20, &text, NULL), 0);
    assert_int_equal(json_parse(text.data, text.len, JSON_LIMITS_LINE, &reference, NULL), 0);
    cJSON_ArrayForEach(one, json_get(reference, "cases"))
    {
        for (size_t i = 0; i < 3; i++)
            check_case(&d, params, one, at_once[i]);
        cases++;
    }
    assert_int_equal(cases, 5);
    cJSON_Delete(reference);
    buf_free(&text);
    free(params);
}

static void test_a_slot_used_again_remembers_nothing(void **state)
{
    struct dims d = stories_dims();
    float *params = stories_params(&d);
    struct cached *x = cached_new(&d, 2, 32, 40, false);
    struct cached_row rows[20];
    float first[512];

    (void)state;
    cached_load(x, params);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 10; i++)
            rows[i] = (struct cached_row){
                .slot = 1, .position = i, .token = 300 + 7 * i, .logits = i == 9 ? 0 : -1};
        cached_step(x, rows, 10);
        if (round == 0)
            memcpy(first, cached_logits(x, 0), sizeof(first));
        else
            assert_memory_equal(first, cached_logits(x, 0), sizeof(first));
        for (int i = 0; i < 20; i++) /* a longer text in between */
            rows[i] =
                (struct cached_row){.slot = 1, .position = i, .token = 100 + 11 * i, .logits = -1};
        cached_step(x, rows, 20);
    }
    cached_free(x);
    free(params);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_of_another_implementation),
        cmocka_unit_test(test_a_slot_used_again_remembers_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
