/*
 * A really trained model: the losses of five texts, the last logits, and a greedy continuation of 257 tokens, against
 * an independent numpy forward pass (stories260K.json). The weights are read here by hand, so that a fault in the
 * loaders cannot hide one in the numerics.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/file.h"
#include "json/json.h"
#include "tests/unit/model/model_fixture.h"

static const struct dims dims = {512, 64, 5, 8, 4, 8, 172, 512, 1e-5f, 1e4f, true, HEAD_LM, 0};
static float *params;
static cJSON *reference;

static void json_read(const char *text, size_t len, cJSON **out)
{
    struct err e;

    if (json_parse(text, len, JSON_LIMITS_FILE, out, &e) != 0)
        fail_msg("%s", e.msg);
}

static void weights_read(const struct buf *file)
{
    uint64_t header;
    struct layout l;
    cJSON *index;

    memcpy(&header, file->data, 8);
    json_read(file->data + 8, header, &index);
    layout_init(&l, &dims);
    params = fixture_reals(l.count);
    for (int32_t t = 0; t < l.tensors; t++) {
        const cJSON *offsets = json_get(json_get(index, l.tensor[t].name), "data_offsets");
        size_t begin = (size_t)cJSON_GetArrayItem(offsets, 0)->valuedouble;
        size_t end = (size_t)cJSON_GetArrayItem(offsets, 1)->valuedouble;

        assert_int_equal(end - begin, 4 * tensor_count(&l.tensor[t]));
        assert_true(8 + header + end <= file->len);
        memcpy(params + l.tensor[t].begin, file->data + 8 + header + begin, end - begin);
    }
    layout_fini(&l);
    cJSON_Delete(index);
}

static int setup(void **state)
{
    struct buf weights = BUF_INIT, text = BUF_INIT;
    struct err e;

    (void)state;
    if (file_read("models/stories260K/model.safetensors", 2u << 20, &weights, &e) != 0 ||
        file_read("tests/golden/stories260K.json", 1u << 20, &text, &e) != 0) {
        print_error("%s\n", e.msg);
        return -1;
    }
    weights_read(&weights);
    json_read(text.data, text.len, &reference);
    buf_free(&weights);
    buf_free(&text);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(params);
    cJSON_Delete(reference);
    return 0;
}

/* One batch of all five texts, packed; target of every row: the next token (the last row: token 0, for its logits). */
static void cases_batch(struct batch *b)
{
    const cJSON *c, *cases = json_get(reference, "cases");
    int32_t lengths[8], seqs = 0, row = 0;

    cJSON_ArrayForEach(c, cases) lengths[seqs++] = cJSON_GetArraySize(json_get(c, "ids"));
    fixture_batch(b, &dims, lengths, seqs, 1);
    cJSON_ArrayForEach(c, cases)
    {
        const cJSON *id;

        cJSON_ArrayForEach(id, json_get(c, "ids"))
        {
            b->token[row] = id->valueint;
            fixture_target(b, row++, id->next == NULL ? 0 : id->next->valueint, 0, dims.vocab,
                           1.0f);
        }
    }
}

static void test_token_losses(void **state)
{
    struct batch b;
    struct workspace *w;
    const cJSON *c;
    float *loss;
    size_t row = 0;

    (void)state;
    cases_batch(&b);
    w = workspace_new(&dims, b.rows, b.seqs, b.targets);
    loss = fixture_reals((size_t)b.targets);
    transformer_losses(&dims, params, &b, loss, w);
    cJSON_ArrayForEach(c, json_get(reference, "cases"))
    {
        const cJSON *nll;

        cJSON_ArrayForEach(nll, json_get(c, "next_token_nll"))
        {
            assert_true(fabs((double)loss[row] - nll->valuedouble) <= 1e-3);
            row++;
        }
        row++;
    }
    assert_int_equal(row, b.targets);
    workspace_free(w);
    batch_fini(&b);
    free(loss);
}

static void test_last_logits(void **state)
{
    struct batch b;
    struct workspace *w;
    const cJSON *c;
    float *out;
    int32_t seq = 0;

    (void)state;
    cases_batch(&b);
    w = workspace_new(&dims, b.rows, b.seqs, b.targets);
    out = fixture_reals((size_t)b.targets * 512);
    transformer_outputs(&dims, params, &b, out, 512, w);
    cJSON_ArrayForEach(c, json_get(reference, "cases"))
    {
        const float *row = out + 512 * (size_t)(b.seq_begin[++seq] - 1);
        const cJSON *pair, *top = cJSON_GetArrayItem(json_get(c, "last_logits_top10"), 0);
        double shift = cJSON_GetArrayItem(top, 1)->valuedouble -
                       (double)row[cJSON_GetArrayItem(top, 0)->valueint];
        double sum = 512.0 * shift;

        cJSON_ArrayForEach(pair, json_get(c, "last_logits_top10"))
        {
            double want = cJSON_GetArrayItem(pair, 1)->valuedouble;

            assert_true(fabs((double)row[cJSON_GetArrayItem(pair, 0)->valueint] + shift - want) <=
                        1e-3);
        }
        for (size_t i = 0; i < 512; i++)
            sum += (double)row[i];
        assert_true(fabs(sum - json_number_or(c, "last_logits_sum", 0.0)) <= 0.1);
    }
    workspace_free(w);
    batch_fini(&b);
    free(out);
}

static void test_greedy_continuation(void **state)
{
    const cJSON *id, *greedy = json_get(reference, "greedy_from_bos");
    int32_t n = cJSON_GetArraySize(greedy), row = 0;
    struct batch b;
    struct workspace *w = workspace_new(&dims, n, 1, n);
    float *out = fixture_reals((size_t)n * 512);

    (void)state;
    fixture_batch(&b, &dims, &n, 1, 1);
    b.token[0] = 1; /* BOS, then the continuation without its last token */
    cJSON_ArrayForEach(id, greedy)
    {
        if (row + 1 < n)
            b.token[row + 1] = id->valueint;
        fixture_target(&b, row++, id->valueint, 0, 512, 1.0f);
    }
    transformer_outputs(&dims, params, &b, out, 512, w);
    for (int32_t r = 0; r < n; r++)
        for (size_t i = 0; i < 512; i++)
            assert_true(out[(size_t)r * 512 + i] <= out[(size_t)r * 512 + (size_t)b.target[r].id]);
    workspace_free(w);
    batch_fini(&b);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_token_losses),
        cmocka_unit_test(test_last_logits),
        cmocka_unit_test(test_greedy_continuation),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
