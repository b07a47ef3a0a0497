/* What a decoder saves (prefixes that were read before, forced tokens, weights of 8 bits, threads)
 * must not show in what it writes. */
#include "model/decode.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "model/cached.h"
#include "model/panel_q8.h"
#include "tests/unit/model/stories.h"

#define N 48
#define LEN_MAX 96

static struct dims stories;
static float *weights;
static const struct decode_vocab no_words = {0};

struct answer { /* without holes, so that bytes can be compared */
    uint64_t key, len, sampled, end;
    double logprob_sum;
};
struct script {
    struct decode_request request[N];
    int32_t prompt[N][LEN_MAX], n, next;
    struct answer result[N];
    int32_t tokens[N][LEN_MAX];
};

static bool script_next(void *self, struct decode_request *out)
{
    struct script *s = self;

    if (s->next >= s->n)
        return false;
    *out = s->request[s->next++];
    return true;
}

static void script_done(void *self, const struct decode_result *r)
{
    struct script *s = self;

    struct answer *a = &s->result[r->tag];

    a->key = r->key;
    a->len = r->len;
    a->sampled = r->sampled;
    a->logprob_sum = r->logprob_sum;
    a->end = (uint64_t)r->end;
    memcpy(s->tokens[r->tag], r->tokens, r->sampled * sizeof(int32_t));
}

/* Prompts that share beginnings of 0, 20, 40 ... tokens, four samples of each; some are guided by the
 * common beginning alone. */
static struct script *script_new(void)
{
    struct script *s = mem_zalloc(1, sizeof(*s));

    s->n = N;
    for (uint32_t i = 0; i < N; i++) {
        uint32_t group = i / 4;
        size_t len = 3 + 5 * (group % 8), common = group < 9 ? 20 * (group % 3) : 0;
        s->prompt[i][0] = 1;
        for (uint32_t t = 1; t < LEN_MAX; t++)
            s->prompt[i][t] =
                (int32_t)(259 + rng_below(4, RNG_TEST, t <= common ? 0 : 1 + group, 0, t, 250));
        s->request[i] = (struct decode_request){.key = group,
                                                .sample = i % 4,
                                                .tag = i,
                                                .prompt = s->prompt[i],
                                                .prompt_len = len,
                                                .sampling = {0.9f, 0, 1.0f, 1.0f, 3.9f, 24}};
        if (group % 4 == 3) {
            s->request[i].uncond = s->prompt[i];
            s->request[i].uncond_len = len > 22 ? 21 : 2;
            s->request[i].sampling.guidance = 1.4f;
        }
    }
    return s;
}

static void run(struct decoder *x, const float *params, struct script *s,
                const struct decode_grammar *grammar, struct decode_stats *stats)
{
    struct decode_source source = {s, script_next, script_done, NULL};

    s->next = 0;
    decode_run(x, params, &no_words, grammar, 17, &source, stats);
}

static void assert_same(const struct script *a, const struct script *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->result, b->result, sizeof(a->result)); /* log-probabilities too */
    assert_memory_equal(a->tokens, b->tokens, sizeof(a->tokens));
}

/* Each request by a decoder of its own: nothing can be shared. */
static struct script *alone(enum decode_weights kind)
{
    struct script *all = script_new();

    for (int32_t i = 0; i < N; i++) {
        struct script *one = script_new();
        struct decoder *x = decoder_new(&stories, 2, LEN_MAX, kind);
        struct decode_stats stats;
        one->n = 1;
        one->request[0] = all->request[i];
        run(x, weights, one, NULL, &stats);
        assert_true(stats.shared_rows == 0 || all->request[i].uncond != NULL);
        all->result[i] = one->result[i];
        memcpy(all->tokens[i], one->tokens[i], sizeof(one->tokens[i]));
        decoder_free(x);
        free(one);
    }
    return all;
}

static void check_shared(enum decode_weights kind)
{
    static const int32_t slots[] = {2, 3, 8, 17, 64};
    struct script *want = alone(kind);
    uint64_t prompts = 0;

    for (size_t i = 0; i < N; i++)
        prompts += want->request[i].prompt_len +
                   (want->request[i].uncond != NULL ? want->request[i].uncond_len : 0);
    for (size_t k = 0; k < sizeof(slots) / sizeof(slots[0]); k++) {
        struct decoder *x = decoder_new(&stories, slots[k], LEN_MAX, kind);
        struct script *s = script_new();
        struct decode_stats first, second;
        run(x, weights, s, NULL, &first);
        assert_same(want, s);
        assert_int_equal(first.prompt_rows + first.shared_rows, prompts);
        assert_true(slots[k] < 8 || first.shared_rows * 2 > prompts); /* most of it */
        memset(s->result, 0, sizeof(s->result));
        run(x, NULL, s, NULL, &second); /* what the first run left in the cache */
        assert_same(want, s);
        assert_true(second.shared_rows >= first.shared_rows);
        free(s);
        decoder_free(x);
    }
    free(want);
}

static void test_shared_prefixes_change_no_bit(void **state)
{
    (void)state;
    check_shared(DECODE_FP32);
}

static void test_nor_with_weights_of_8_bits(void **state)
{
    (void)state;
    check_shared(DECODE_INT8);
}

/* New weights: what the slots remember is of no use any more. */
static void test_a_cache_of_other_weights_is_forgotten(void **state)
{
    struct decoder *x = decoder_new(&stories, 8, LEN_MAX, DECODE_FP32);
    struct script *want = script_new(), *s = script_new();
    size_t count = dims_params(&stories);
    float *other = mem_alloc(count * sizeof(float));

    (void)state;
    for (size_t i = 0; i < count; i++)
        other[i] = weights[i] * 1.01f;
    run(x, weights, want, NULL, NULL);
    run(x, other, s, NULL, NULL);
    assert_memory_not_equal(want->result, s->result, sizeof(s->result));
    run(x, weights, s, NULL, NULL);
    assert_same(want, s);
    free(other);
    free(want);
    free(s);
    decoder_free(x);
}

static void check_team(enum decode_weights kind)
{
    struct script *want = script_new();
    struct decoder *x = decoder_new(&stories, 5, LEN_MAX, kind);

    run(x, weights, want, NULL, NULL);
    for (int threads = 1; threads <= 7; threads += 2) {
        struct team *team = team_new(threads);
        struct script *s = script_new();
        decoder_set_team(x, team);
        run(x, weights, s, NULL, NULL);
        assert_same(want, s);
        decoder_set_team(x, NULL);
        team_free(team);
        free(s);
    }
    free(want);
    decoder_free(x);
}

static void test_a_team_changes_no_bit(void **state)
{
    (void)state;
    check_team(DECODE_FP32);
    check_team(DECODE_INT8);
}

/* ---- forced tokens --------------------------------------------------------------------------- */

/* Places 3, 7, 11 ... are free choices among 40 ids, the others forced; 26 tokens in all. With
 * `plain` a second id is allowed where one is forced, which has been made impossible (BAD). */
enum { FORCED_LEN = 26, CHOICE_ID = 300, CHOICES = 40, BAD = 511 };

static size_t label_next(void *self, uint64_t key, const int32_t *generated, size_t n, int32_t *ids,
                         size_t cap)
{
    const bool *plain = self;

    (void)generated;
    assert_true(cap >= CHOICES);
    if (n == FORCED_LEN)
        return 0;
    if (n % 4 == 3) {
        for (int32_t i = 0; i < CHOICES; i++)
            ids[i] = CHOICE_ID + i;
        return CHOICES;
    }
    ids[0] = (int32_t)(259 + (key * 7 + n * 31) % 200);
    ids[1] = BAD;
    return *plain ? 2 : 1;
}

static void test_forced_tokens_are_read_in_stretches(void **state)
{
    static const int32_t banned[] = {BAD};
    struct decode_vocab words = {.banned = banned, .banned_n = 1};
    struct decode_stats stats[2];
    struct script *s[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        bool plain = i == 1;
        struct decode_grammar grammar = {&plain, label_next};
        struct decoder *x = decoder_new(&stories, 6, LEN_MAX, DECODE_FP32);
        struct decode_source source;
        s[i] = script_new();
        s[i]->n = 24;
        for (int k = 0; k < s[i]->n; k++)
            s[i]->request[k].sampling.max_new_tokens = 60;
        source = (struct decode_source){s[i], script_next, script_done, NULL};
        decode_run(x, weights, &words, &grammar, 3, &source, &stats[i]);
        decoder_free(x);
    }
    for (int k = 0; k < s[0]->n; k++) {
        assert_int_equal(s[0]->result[k].end, DECODE_GRAMMAR);
        assert_int_equal(s[0]->result[k].len, FORCED_LEN);
        /* With a ban in place of a force the probability is exp(0) / exp(0) as well. */
        assert_true(s[0]->result[k].logprob_sum < -1.0);
    }
    assert_same(s[0], s[1]);
    assert_int_equal(stats[0].tokens, stats[1].tokens);
    assert_int_equal(stats[0].forced, (uint64_t)24 * (FORCED_LEN - FORCED_LEN / 4));
    assert_int_equal(stats[1].forced, 0);
    assert_true(stats[0].steps * 3 < stats[1].steps); /* one step for about four tokens */
    free(s[0]);
    free(s[1]);
}

/* ---- how exact int8 is ----------------------------------------------------------------------- */

/* Texts as the model writes them: what its perplexity is least flattering on. */
static struct script *own_texts(void)
{
    struct script *s = script_new();
    struct decoder *x = decoder_new(&stories, 16, LEN_MAX, DECODE_FP32);

    for (int i = 0; i < N; i++) {
        s->request[i].key = (uint64_t)i;
        s->request[i].prompt_len = 1;
        s->request[i].uncond = NULL;
        s->request[i].sampling = (struct sampling){1.0f, 0, 1.0f, 1.0f, 3.9f, LEN_MAX - 1};
    }
    run(x, weights, s, NULL, NULL);
    decoder_free(x);
    return s;
}

/* Nats a token of those texts, under one kind of weights. */
static double mean_nll(const struct script *s, bool int8, size_t *tokens)
{
    struct cached *x = cached_new(&stories, 1, LEN_MAX, 1, int8);
    double sum = 0.0;

    *tokens = 0;
    cached_load(x, weights);
    for (size_t i = 0; i < N; i++) {
        int32_t before = s->prompt[i][0];
        for (size_t t = 0; t < s->result[i].len; t++, ++*tokens) {
            struct cached_row row = {.position = (int32_t)t, .token = before};
            const real *logits = cached_logits(x, 0);
            double all = 0.0;
            cached_step(x, &row, 1);
            before = s->tokens[i][t];
            for (int v = 0; v < stories.vocab; v++)
                all += exp((double)logits[v] - (double)logits[before]);
            sum += log(all);
        }
    }
    cached_free(x);
    return sum / (double)*tokens;
}

static void test_int8_costs_little_perplexity(void **state)
{
    struct script *s = own_texts();
    size_t tokens;
    double full = mean_nll(s, false, &tokens), int8 = mean_nll(s, true, &tokens);

    (void)state;
    printf("stories260K, %zu tokens: perplexity %.4f fp32, %.4f int8 (%+.3f %%)\n", tokens,
           exp(full), exp(int8), 100.0 * (exp(int8 - full) - 1.0));
    assert_true(tokens > 3000 && int8 != full && fabs(int8 - full) < 0.01);
    free(s);
}

static int set_up(void **state)
{
    (void)state;
    stories = stories_dims();
    weights = stories_params(&stories);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(weights);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared_prefixes_change_no_bit),
        cmocka_unit_test(test_nor_with_weights_of_8_bits),
        cmocka_unit_test(test_a_cache_of_other_weights_is_forgotten),
        cmocka_unit_test(test_a_team_changes_no_bit),
        cmocka_unit_test(test_forced_tokens_are_read_in_stretches),
        cmocka_unit_test(test_int8_costs_little_perplexity),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
