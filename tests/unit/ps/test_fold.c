/* The fold against a plain recursion: any cover of the tree, in any order, with duplicates, gives
 * the same bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/rng.h"
#include "ps/fold.h"

#define ELEMS 100
#define CHUNK 40 /* three chunks, the last one short */

static void leaf(uint32_t u, float *out, struct fold_sums *sums)
{
    for (uint32_t i = 0; i < ELEMS; i++)
        out[i] = (float)rng_normal(1, RNG_TEST, u, 0, i) * (float)(1 + u % 3);
    *sums = (struct fold_sums){rng_unit(1, RNG_TEST, u, 1, 0), 1.0 / (u + 1), u};
}

static void node_value(uint32_t m, struct tree_node node, float *out, struct fold_sums *sums)
{
    float right[ELEMS];
    struct fold_sums more;

    if (node.level == 0) {
        leaf(node.index, out, sums);
        return;
    }
    node_value(m, (struct tree_node){node.level - 1, 2 * node.index}, out, sums);
    if (!tree_has_right(m, node))
        return;
    node_value(m, (struct tree_node){node.level - 1, 2 * node.index + 1}, right, &more);
    for (uint32_t i = 0; i < ELEMS; i++)
        out[i] += right[i];
    sums->loss += more.loss;
    sums->weight += more.weight;
    sums->tokens += more.tokens;
}

static enum fold_verdict push(struct fold *f, uint32_t m, struct tree_node node, uint32_t chunk,
                              float change)
{
    float value[ELEMS];
    struct fold_sums sums;
    size_t n = fold_chunk_len(f, chunk);

    node_value(m, node, value, &sums);
    value[chunk * CHUNK] += change;
    return fold_add(f, chunk, node, value + chunk * CHUNK, chunk == 0 ? &sums : NULL,
                    fold_hash(value + chunk * CHUNK, n, chunk == 0 ? &sums : NULL));
}

static void root_check(struct fold *f, uint32_t m)
{
    float want[ELEMS];
    struct fold_sums want_sums, sums;

    node_value(m, (struct tree_node){tree_height(m), 0}, want, &want_sums);
    for (uint32_t c = 0; c < fold_chunks(f); c++) {
        const float *root = fold_root(f, c, &sums);
        assert_non_null(root);
        assert_memory_equal(root, want + c * CHUNK, fold_chunk_len(f, c) * sizeof(float));
        if (c == 0)
            assert_memory_equal(&sums, &want_sums, sizeof sums);
    }
}

/* A random cut of [0, m) into spans, each covered by nodes, pushed in a random order. */
static void random_round(struct fold *f, uint32_t m, uint32_t round)
{
    struct tree_node node[512];
    size_t n = 0;
    uint32_t begin = 0;

    while (begin < m) {
        uint32_t end = begin + 1 + rng_below(2, RNG_TEST, m, round, begin, m - begin);
        n += tree_cover(m, (struct tree_span){begin, end}, node + n, 512 - n);
        begin = end;
    }
    for (uint32_t c = 0; c < fold_chunks(f); c++) {
        for (uint32_t i = 0; i < n; i++) {
            struct tree_node x = node[rng_permute(round + c, RNG_TEST, m, (uint32_t)n, i)];
            assert_int_equal(push(f, m, x, c, 0), FOLD_ACCEPTED);
            if (i % 3 == 0)
                assert_int_equal(push(f, m, x, c, 0), FOLD_DUPLICATE);
        }
    }
    root_check(f, m);
}

static void test_any_cover_in_any_order_gives_the_same_bits(void **state)
{
    static const uint32_t sizes[] = {1, 2, 3, 5, 7, 8, 13, 64, 100};

    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        struct fold *f = fold_new(sizes[s], ELEMS, CHUNK);
        assert_int_equal(fold_chunks(f), 3);
        assert_int_equal(fold_chunk_len(f, 2), 20);
        for (uint32_t round = 0; round < 6; round++) {
            random_round(f, sizes[s], round);
            fold_reset(f);
            assert_null(fold_root(f, 0, NULL));
        }
        fold_free(f);
    }
}

static void test_conflicts_are_seen_before_and_after_merging(void **state)
{
    struct fold *f = fold_new(4, ELEMS, ELEMS);

    (void)state;
    assert_int_equal(push(f, 4, (struct tree_node){0, 0}, 0, 0), FOLD_ACCEPTED);
    assert_int_equal(push(f, 4, (struct tree_node){0, 0}, 0, 1), FOLD_CONFLICT);
    assert_int_equal(push(f, 4, (struct tree_node){0, 1}, 0, 0), FOLD_ACCEPTED);
    assert_int_equal(push(f, 4, (struct tree_node){0, 0}, 0, 1),
                     FOLD_CONFLICT); /* its value has moved up */
    assert_int_equal(push(f, 4, (struct tree_node){0, 0}, 0, 0), FOLD_DUPLICATE);
    assert_int_equal(push(f, 4, (struct tree_node){1, 0}, 0, 0),
                     FOLD_DUPLICATE); /* made here, pushed by another */
    assert_int_equal(push(f, 4, (struct tree_node){1, 0}, 0, 1), FOLD_CONFLICT);
    assert_int_equal(push(f, 4, (struct tree_node){1, 1}, 0, 0), FOLD_ACCEPTED);
    assert_int_equal(push(f, 4, (struct tree_node){2, 0}, 0, 0), FOLD_DUPLICATE);
    fold_free(f);
}

static void test_a_whole_node_takes_the_place_of_its_parts(void **state)
{
    struct fold *f = fold_new(7, ELEMS, CHUNK);

    (void)state;
    for (uint32_t c = 0; c < 3; c++) {
        assert_int_equal(push(f, 7, (struct tree_node){0, 1}, c, 0), FOLD_ACCEPTED);
        assert_int_equal(push(f, 7, (struct tree_node){1, 1}, c, 0), FOLD_ACCEPTED);
        assert_int_equal(push(f, 7, (struct tree_node){2, 0}, c, 0),
                         FOLD_ACCEPTED); /* covers both */
        assert_int_equal(push(f, 7, (struct tree_node){0, 0}, c, 0), FOLD_DUPLICATE);
        assert_int_equal(push(f, 7, (struct tree_node){0, 6}, c, 0), FOLD_ACCEPTED);
        assert_int_equal(push(f, 7, (struct tree_node){0, 5}, c, 0), FOLD_ACCEPTED);
        assert_null(fold_root(f, c, NULL));
        assert_int_equal(push(f, 7, (struct tree_node){0, 4}, c, 0), FOLD_ACCEPTED);
    }
    root_check(f, 7);
    fold_free(f);
}

static void test_the_hash_covers_floats_and_sums(void **state)
{
    float x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct fold_sums sums = {0, 0, 0};
    uint64_t h = fold_hash(x, 8, NULL);

    (void)state;
    assert_true(fold_hash(x, 8, &sums) == h);
    sums.loss = 1e-300;
    assert_true(fold_hash(x, 8, &sums) != h);
    sums = (struct fold_sums){0, 0, 1};
    assert_true(fold_hash(x, 8, &sums) != h);
    x[7] = -8;
    assert_true(fold_hash(x, 8, NULL) != h);
    assert_true(fold_hash(x, 7, NULL) != h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_cover_in_any_order_gives_the_same_bits),
        cmocka_unit_test(test_conflicts_are_seen_before_and_after_merging),
        cmocka_unit_test(test_a_whole_node_takes_the_place_of_its_parts),
        cmocka_unit_test(test_the_hash_covers_floats_and_sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
