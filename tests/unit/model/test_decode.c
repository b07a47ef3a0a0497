#include "model/decode.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "tests/unit/model/stories.h"

#define N 40
#define LEN_MAX 64

static struct dims stories;
static float *stories_weights;
static struct dims odd = {.vocab = 97,
                          .width = 40,
                          .layers = 2,
                          .heads = 6,
                          .kv_heads = 3,
                          .head_dim = 10,
                          .ffn = 51,
                          .context = 64,
                          .norm_eps = 1e-5f,
                          .rope_theta = 10000.0f,
                          .tied = false,
                          .head = HEAD_LM};
static float *odd_weights;

/* Requests in an order, answers by key. */
struct script {
    struct decode_request request[N];
    int32_t order[N], n, next;
    int32_t prompt[N][LEN_MAX], uncond[N][LEN_MAX];
    int done[N], done_total, cancel_after;
    size_t len[N], text_len[N], sampled[N];
    int32_t tokens[N][512];
    double logprob[N];
    enum decode_end end[N];
};

static bool script_next(void *self, struct decode_request *out)
{
    struct script *s = self;

    if (s->next >= s->n)
        return false;
    *out = s->request[s->order[s->next++]];
    return true;
}

static void script_done(void *self, const struct decode_result *r)
{
    struct script *s = self;
    size_t i = (size_t)r->key & 0xff;

    assert_int_equal(r->sample, s->request[i].sample);
    assert_int_equal(r->key, s->request[i].key);
    s->done[i]++;
    s->done_total++;
    s->len[i] = r->len;
    s->text_len[i] = r->text_len;
    s->sampled[i] = r->sampled;
    memcpy(s->tokens[i], r->tokens, r->len * sizeof(int32_t));
    s->logprob[i] = r->logprob_sum;
    s->end[i] = r->end;
}

static bool script_cancelled(void *self)
{
    struct script *s = self;

    return s->cancel_after > 0 && s->done_total >= s->cancel_after;
}

static struct decode_source source_of(struct script *s)
{
    struct decode_source source = {s, script_next, script_done, script_cancelled};

    return source;
}

/* Uneven prompts, lengths and settings; every third is guided. */
static struct script *script_new(const struct dims *d)
{
    struct script *s = mem_zalloc(1, sizeof(*s));

    s->n = N;
    for (uint32_t i = 0; i < N; i++) {
        struct decode_request *q = &s->request[i];
        s->order[i] = (int32_t)i;
        q->key = (uint64_t)i | (uint64_t)(i % 5) << 40;
        q->sample = i % 4;
        q->prompt = s->prompt[i];
        q->prompt_len = 1 + rng_below(1, RNG_TEST, 0, 0, i, 30);
        for (size_t t = 0; t < LEN_MAX; t++) {
            s->prompt[i][t] =
                (int32_t)rng_below(1, RNG_TEST, 1, i, (uint32_t)t, (uint32_t)d->vocab);
            s->uncond[i][t] =
                (int32_t)rng_below(1, RNG_TEST, 2, i, (uint32_t)t, (uint32_t)d->vocab);
        }
        q->sampling = (struct sampling){
            0.9f, 0, 1.0f, 1.0f, 3.9f, (int32_t)(1 + rng_below(1, RNG_TEST, 3, 0, i, 28))};
        if (i % 3 == 0) {
            q->uncond = s->uncond[i];
            q->uncond_len = 1 + rng_below(1, RNG_TEST, 4, 0, i, 30);
            q->sampling.guidance = 1.5f;
        }
        if (i % 4 == 1)
            q->sampling.top_k = 7;
        if (i % 4 == 2)
            q->sampling.top_p = 0.8f;
        if (i % 7 == 3)
            q->sampling.temperature = 0.0f;
    }
    return s;
}

static void run(struct script *s, const struct dims *d, const float *params, int32_t slots,
                int32_t context, const struct decode_vocab *vocab,
                const struct decode_grammar *grammar, struct decode_stats *stats)
{
    struct decoder *x = decoder_new(d, slots, context, DECODE_FP32);
    struct decode_source source = source_of(s);

    decode_run(x, params, vocab, grammar, 17, &source, stats);
    decoder_free(x);
}

static void assert_same_answers(const struct script *a, const struct script *b)
{
    for (size_t i = 0; i < N; i++) {
        if (b->done[i] == 0)
            continue;
        assert_int_equal(b->done[i], 1);
        assert_int_equal(a->len[i], b->len[i]);
        assert_int_equal(a->end[i], b->end[i]);
        assert_memory_equal(a->tokens[i], b->tokens[i], a->len[i] * sizeof(int32_t));
        assert_memory_equal(&a->logprob[i], &b->logprob[i], sizeof(double)); /* bits, not about */
    }
}

static const struct decode_vocab no_words = {0};

/* ---- the numbers ----------------------------------------------------------------------------- */

static void test_greedy_text_of_a_real_model(void **state)
{
    struct buf text = BUF_INIT;
    cJSON *want = NULL;
    const cJSON *ids;
    static struct script s;
    int n;

    (void)state;
    assert_int_equal(file_read("tests/data/stories260K/reference.json", 1u << 20, &text, NULL), 0);
    assert_int_equal(json_parse(text.data, text.len, JSON_LIMITS_LINE, &want, NULL), 0);
    ids = json_get(want, "greedy_from_bos");
    n = cJSON_GetArraySize(ids);
    assert_int_equal(n, 257);
    s.n = 1;
    s.prompt[0][0] = 1;
    s.request[0] = (struct decode_request){
        .prompt = s.prompt[0], .prompt_len = 1, .sampling = {0.0f, 0, 1.0f, 1.0f, 0.0f, n}};
    run(&s, &stories, stories_weights, 1, 512, &no_words, NULL, NULL);
    assert_int_equal(s.len[0], n);
    assert_int_equal(s.end[0], DECODE_LENGTH);
    for (int i = 0; i < n; i++)
        assert_int_equal(s.tokens[0][i], cJSON_GetArrayItem(ids, i)->valueint);
    cJSON_Delete(want);
    buf_free(&text);
}

/* A grammar that allows one id at a time: those of a text. */
static size_t force_next(void *self, uint64_t key, const int32_t *generated, size_t n, int32_t *ids,
                         size_t cap)
{
    const cJSON *want = self;

    (void)key, (void)generated, (void)cap;
    if (n + 1 >= (size_t)cJSON_GetArraySize(want))
        return 0;
    ids[0] = cJSON_GetArrayItem(want, (int)n + 1)->valueint;
    return 1;
}

static void test_a_grammar_forces_its_ids_and_ends(void **state)
{
    struct buf text = BUF_INIT;
    cJSON *want = NULL;
    const cJSON *one;

    (void)state;
    assert_int_equal(file_read("tests/data/stories260K/reference.json", 1u << 20, &text, NULL), 0);
    assert_int_equal(json_parse(text.data, text.len, JSON_LIMITS_LINE, &want, NULL), 0);
    cJSON_ArrayForEach(one, json_get(want, "cases"))
    {
        const cJSON *ids = json_get(one, "ids");
        struct decode_grammar grammar;
        struct script *s = script_new(&stories);
        cJSON *copy = cJSON_Duplicate(ids, true);
        grammar = (struct decode_grammar){copy, force_next};
        s->n = 1;
        s->prompt[0][0] = cJSON_GetArrayItem(ids, 0)->valueint;
        s->request[0] = (struct decode_request){
            .prompt = s->prompt[0], .prompt_len = 1, .sampling = {1.0f, 0, 1.0f, 1.0f, 0.0f, 500}};
        run(s, &stories, stories_weights, 1, 512, &no_words, &grammar, NULL);
        assert_int_equal(s->end[0], DECODE_GRAMMAR);
        assert_int_equal(s->len[0], cJSON_GetArraySize(ids) - 1);
        for (size_t i = 0; i < s->len[0]; i++)
            assert_int_equal(s->tokens[0][i], cJSON_GetArrayItem(ids, (int)i + 1)->valueint);
        assert_true(s->logprob[0] == 0.0); /* the only one allowed */
        cJSON_Delete(copy);
        free(s);
    }
    cJSON_Delete(want);
    buf_free(&text);
}

/* ---- nothing but seed, key, sample and model ------------------------------------------------- */

static void check_invariance(const struct dims *d, const float *params)
{
    static const int32_t slots[] = {2, 3, 5, 7, 16, 24, 40};
    struct script *want = script_new(d);
    size_t distinct = 0;

    run(want, d, params, 2, 64, &no_words, NULL, NULL);
    assert_int_equal(want->done_total, N);
    for (size_t i = 1; i < N; i++)
        distinct += want->tokens[i][0] != want->tokens[0][0];
    assert_true(distinct > 5);
    for (size_t k = 0; k < sizeof(slots) / sizeof(slots[0]); k++) {
        for (int order = 0; order < 3; order++) {
            struct script *s = script_new(d);
            for (uint32_t i = 0; i < N; i++) {
                if (order == 1)
                    s->order[i] = (int32_t)(N - 1 - i);
                if (order == 2)
                    s->order[i] = (int32_t)rng_permute(5, RNG_TEST, (uint32_t)k, N, i);
            }
            if (order == 2)
                s->n = N / 2; /* other neighbours, and fewer */
            run(s, d, params, slots[k], 64 + 13 * (int32_t)k, &no_words, NULL, NULL);
            assert_int_equal(s->done_total, s->n);
            assert_same_answers(want, s);
            free(s);
        }
    }
    free(want);
}

static void test_texts_do_not_depend_on_slots_order_and_neighbours(void **state)
{
    (void)state;
    check_invariance(&stories, stories_weights);
}

static void test_the_same_for_a_model_of_odd_shapes(void **state)
{
    (void)state;
    check_invariance(&odd, odd_weights);
}

static void *thread_run(void *arg)
{
    run(arg, &stories, stories_weights, 9, 64, &no_words, NULL, NULL);
    return NULL;
}

static void test_two_decoders_in_two_threads(void **state)
{
    struct script *want = script_new(&stories), *a = script_new(&stories),
                  *b = script_new(&stories);
    pthread_t thread[2];

    (void)state;
    run(want, &stories, stories_weights, 24, 64, &no_words, NULL, NULL);
    a->n = N / 2; /* each has a half, in opposite orders */
    b->n = N - N / 2;
    for (int32_t i = 0; i < b->n; i++)
        b->order[i] = N - 1 - i;
    assert_int_equal(pthread_create(&thread[0], NULL, thread_run, a), 0);
    assert_int_equal(pthread_create(&thread[1], NULL, thread_run, b), 0);
    assert_int_equal(pthread_join(thread[0], NULL), 0);
    assert_int_equal(pthread_join(thread[1], NULL), 0);
    assert_int_equal(a->done_total + b->done_total, N);
    assert_same_answers(want, a);
    assert_same_answers(want, b);
    free(want);
    free(a);
    free(b);
}

static void test_samples_and_seeds_differ(void **state)
{
    struct script *a = script_new(&stories), *b = script_new(&stories);
    struct decoder *x = decoder_new(&stories, 8, 64, DECODE_FP32);
    struct decode_source source;
    size_t same = 0, sampled = 0;

    (void)state;
    source = source_of(a);
    decode_run(x, stories_weights, &no_words, NULL, 1, &source, NULL);
    source = source_of(b);
    decode_run(x, stories_weights, &no_words, NULL, 2, &source, NULL); /* a decoder is used again */
    for (size_t i = 0; i < N; i++) {
        if (a->request[i].sampling.temperature <= 0.0f || a->len[i] < 8)
            continue;
        sampled++;
        same += a->len[i] == b->len[i] &&
                memcmp(a->tokens[i], b->tokens[i], a->len[i] * sizeof(int32_t)) == 0;
    }
    assert_true(sampled > 10);
    assert_int_equal(same, 0);
    decoder_free(x);
    free(a);
    free(b);
}

/* Guidance 1 ignores the second prompt; a second prompt equal to the first makes any guidance
 * plain, but for rounding and the cut. */
static void test_guidance_of_equal_prompts_is_plain(void **state)
{
    struct script *a = script_new(&stories), *b = script_new(&stories);

    (void)state;
    for (size_t i = 0; i < N; i++) {
        a->request[i].sampling.temperature = b->request[i].sampling.temperature = 0.0f;
        a->request[i].uncond = NULL;
        b->request[i].uncond = b->request[i].prompt;
        b->request[i].uncond_len = b->request[i].prompt_len;
        b->request[i].sampling.guidance = 2.0f;
    }
    run(a, &stories, stories_weights, 24, 64, &no_words, NULL, NULL);
    run(b, &stories, stories_weights, 24, 64, &no_words, NULL, NULL);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(a->len[i], b->len[i]);
        assert_memory_equal(a->tokens[i], b->tokens[i], a->len[i] * sizeof(int32_t));
    }
    free(a);
    free(b);
}

/* ---- ends ------------------------------------------------------------------------------------ */

static const char *letters[512];
static uint32_t letters_len[512];

/* Token i is written as "a" + i % 26, tokens divisible by 5 as two letters: the text of a run is
 * then known. */
static struct decode_vocab lettered(void)
{
    static char store[512][3];
    struct decode_vocab v = {0};

    for (int i = 0; i < 512; i++) {
        store[i][0] = store[i][1] = (char)('a' + i % 26);
        letters_len[i] = i % 5 == 0 ? 2 : 1;
        store[i][letters_len[i]] = '\0';
        letters[i] = store[i];
    }
    v.bytes = letters;
    v.bytes_len = letters_len;
    return v;
}

static void test_stop_strings_cut_the_text(void **state)
{
    struct decode_vocab v = lettered();
    struct script *free_run = script_new(&stories);
    int cut = 0;

    (void)state;
    run(free_run, &stories, stories_weights, 8, 64, &v, NULL, NULL);
    for (size_t i = 0; i < N; i++) {
        struct script *s = script_new(&stories);
        struct buf text = BUF_INIT;
        char stop[8] = {0};
        const char *stops[2] = {"#never", stop};
        size_t at, bytes = 0, whole = 0;
        for (size_t t = 0; t < free_run->len[i]; t++)
            buf_str(&text, letters[free_run->tokens[i][t]]);
        assert_int_equal(text.len, free_run->text_len[i]);
        if (text.len >= 12) {
            memcpy(stop, text.data + 7, 4); /* across tokens, often inside one */
            at = (size_t)(strstr(text.data, stop) - text.data);
            while (bytes + letters_len[free_run->tokens[i][whole]] <= at)
                bytes += letters_len[free_run->tokens[i][whole++]];
            v.stop_strings = stops;
            v.stop_strings_n = 2;
            s->order[0] = (int32_t)i;
            s->n = 1;
            run(s, &stories, stories_weights, 2, 64, &v, NULL, NULL);
            assert_int_equal(s->end[i], DECODE_STOP_STRING);
            assert_int_equal(s->text_len[i], at);
            assert_int_equal(s->len[i], whole);
            assert_true(s->sampled[i] > s->len[i]);
            cut++;
        }
        buf_free(&text);
        free(s);
    }
    assert_true(cut > 10);
    free(free_run);
}

static void test_stop_tokens_and_banned_ids(void **state)
{
    struct script *a = script_new(&stories), *b = script_new(&stories);
    struct decode_vocab v = {0};
    int32_t stop, banned[256];

    (void)state;
    run(a, &stories, stories_weights, 8, 64, &no_words, NULL, NULL);
    stop = a->tokens[5][a->len[5] - 1];
    v.stop_tokens = &stop;
    v.stop_tokens_n = 1;
    run(b, &stories, stories_weights, 8, 64, &v, NULL, NULL);
    assert_int_equal(b->end[5], DECODE_STOP_TOKEN);
    for (size_t i = 0; i < N; i++) {
        for (size_t t = 0; t < b->len[i]; t++)
            assert_int_not_equal(b->tokens[i][t], stop);
        assert_int_equal(b->sampled[i], b->len[i] + (b->end[i] == DECODE_STOP_TOKEN));
    }
    free(b);
    b = script_new(&stories);
    for (int32_t i = 0; i < 256; i++)
        banned[i] = 2 * i;
    v = (struct decode_vocab){.banned = banned, .banned_n = 256};
    run(b, &stories, stories_weights, 8, 64, &v, NULL, NULL);
    for (size_t i = 0; i < N; i++) {
        for (size_t t = 0; t < b->len[i]; t++)
            assert_int_equal(b->tokens[i][t] % 2, 1);
    }
    free(a);
    free(b);
}

static void test_limits_of_context_and_length(void **state)
{
    static const struct {
        size_t prompt, uncond;
        int32_t most;
        size_t len;
        enum decode_end end;
    } cases[] = {
        {4, 0, 3, 3, DECODE_LENGTH},     {4, 0, 100, 13, DECODE_CONTEXT},
        {16, 0, 100, 1, DECODE_CONTEXT}, {17, 0, 100, 0, DECODE_CONTEXT},
        {4, 0, 0, 0, DECODE_LENGTH},     {4, 0, -1, 0, DECODE_LENGTH},
        {4, 10, 100, 7, DECODE_CONTEXT}, {4, 17, 100, 0, DECODE_CONTEXT},
        {4, 4, 13, 13, DECODE_LENGTH},
    };

    (void)state;
    for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
        struct script *s = script_new(&odd);
        struct decode_request *q = &s->request[0];
        s->n = 1;
        q->prompt_len = cases[k].prompt;
        q->uncond = cases[k].uncond > 0 ? s->uncond[0] : NULL;
        q->uncond_len = cases[k].uncond;
        q->sampling.max_new_tokens = cases[k].most;
        run(s, &odd, odd_weights, 3, 16, &no_words, NULL, NULL);
        assert_int_equal(s->done[0], 1);
        assert_int_equal(s->len[0], cases[k].len);
        assert_int_equal(s->end[0], cases[k].end);
        free(s);
    }
}

static void test_everything_banned_ends_the_sequence(void **state)
{
    struct script *s = script_new(&odd);
    int32_t all[97];
    struct decode_vocab v = {.banned = all, .banned_n = 97};

    (void)state;
    for (int32_t i = 0; i < 97; i++)
        all[i] = i;
    run(s, &odd, odd_weights, 5, 64, &v, NULL, NULL);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(s->end[i], DECODE_GRAMMAR);
        assert_int_equal(s->len[i], 0);
    }
    free(s);
}

static void test_cancel_stops_soon(void **state)
{
    struct script *s = script_new(&stories);

    (void)state;
    s->cancel_after = 3;
    run(s, &stories, stories_weights, 4, 64, &no_words, NULL, NULL);
    assert_in_range(s->done_total, 3, 6);
    free(s);
}

static void test_a_broken_model_is_named(void **state)
{
    struct script *s = script_new(&odd);
    size_t count = dims_params(&odd);
    float *broken = mem_alloc(count * sizeof(float));

    (void)state;
    memcpy(broken, odd_weights, count * sizeof(float));
    broken[count - 1] = NAN; /* in the head: one logit of the last id */
    run(s, &odd, broken, 5, 64, &no_words, NULL, NULL);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(s->end[i], DECODE_NUMERIC);
    free(broken);
    free(s);
}

static void test_counts_and_progress(void **state)
{
    struct script *s = script_new(&odd);
    struct decoder *x = decoder_new(&odd, 6, 64, DECODE_FP32);
    struct decode_source source = source_of(s);
    struct decode_stats stats;
    uint64_t progress = 0, drawn = 0;

    (void)state;
    decoder_set_progress(x, &progress);
    decode_run(x, odd_weights, &no_words, NULL, 17, &source, &stats);
    for (size_t i = 0; i < N; i++)
        drawn += s->sampled[i];
    assert_int_equal(stats.tokens, drawn);
    assert_int_equal(progress, stats.steps * 2); /* once a layer */
    assert_true(stats.slot_steps > stats.steps && stats.slot_steps <= stats.steps * 6);
    assert_true(decoder_bytes(&odd, 6, 64, DECODE_FP32) > decoder_bytes(&odd, 5, 64, DECODE_FP32));
    decoder_free(x);
    free(s);
}

static int set_up(void **state)
{
    size_t count = dims_params(&odd);

    (void)state;
    stories = stories_dims();
    stories_weights = stories_params(&stories);
    odd_weights = mem_alloc(count * sizeof(float));
    for (size_t i = 0; i < count; i++)
        odd_weights[i] = (float)(0.3 * rng_normal(9, RNG_TEST, 0, 0, (uint32_t)i));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(stories_weights);
    free(odd_weights);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_text_of_a_real_model),
        cmocka_unit_test(test_a_grammar_forces_its_ids_and_ends),
        cmocka_unit_test(test_texts_do_not_depend_on_slots_order_and_neighbours),
        cmocka_unit_test(test_the_same_for_a_model_of_odd_shapes),
        cmocka_unit_test(test_two_decoders_in_two_threads),
        cmocka_unit_test(test_samples_and_seeds_differ),
        cmocka_unit_test(test_guidance_of_equal_prompts_is_plain),
        cmocka_unit_test(test_stop_strings_cut_the_text),
        cmocka_unit_test(test_stop_tokens_and_banned_ids),
        cmocka_unit_test(test_limits_of_context_and_length),
        cmocka_unit_test(test_everything_banned_ends_the_sequence),
        cmocka_unit_test(test_cancel_stops_soon),
        cmocka_unit_test(test_a_broken_model_is_named),
        cmocka_unit_test(test_counts_and_progress),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
