#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "types/tree.h"

static void test_cover_is_exact_and_smallest_for_every_span(void **state)
{
    (void)state;
    for (uint32_t m = 1; m <= 37; m++)
        for (uint32_t a = 0; a < m; a++)
            for (uint32_t b = a + 1; b <= m; b++) {
                struct tree_node n[TREE_COVER_MAX];
                size_t count = tree_cover(m, (struct tree_span){a, b}, n, TREE_COVER_MAX);
                uint32_t at = a;
                for (size_t i = 0; i < count; i++) {
                    struct tree_span s = tree_leaves(m, n[i]);
                    assert_true(tree_node_is_valid(m, n[i]));
                    assert_int_equal(s.begin, at);
                    at = s.end;
                    if (i > 0) { /* two neighbours never make one aligned node */
                        struct tree_node p = tree_parent(n[i]);
                        assert_false(n[i - 1].level == n[i].level &&
                                     tree_parent(n[i - 1]).index == p.index);
                    }
                }
                assert_int_equal(at, b);
            }
}

static void test_whole_span_is_the_root(void **state)
{
    (void)state;
    for (uint32_t m = 1; m <= 70; m++) {
        struct tree_node n[TREE_COVER_MAX];
        assert_int_equal(tree_cover(m, (struct tree_span){0, m}, n, TREE_COVER_MAX), 1);
        assert_int_equal(n[0].level, tree_height(m));
        assert_int_equal(n[0].index, 0);
    }
}

static void test_right_edge_without_a_right_child(void **state)
{
    (void)state;
    /* m = 5: node (1, 2) covers leaf 4 alone, so it has no right child and equals (0, 4). */
    assert_true(tree_node_is_valid(5, (struct tree_node){1, 2}));
    assert_false(tree_has_right(5, (struct tree_node){1, 2}));
    assert_true(tree_has_right(5, (struct tree_node){3, 0}));
    assert_false(tree_has_right(5, (struct tree_node){2, 1}));
    assert_false(tree_node_is_valid(5, (struct tree_node){1, 3}));
    assert_false(tree_node_is_valid(5, (struct tree_node){4, 0}));
    assert_int_equal(tree_sibling((struct tree_node){2, 5}).index, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cover_is_exact_and_smallest_for_every_span),
        cmocka_unit_test(test_whole_span_is_the_root),
        cmocka_unit_test(test_right_edge_without_a_right_child),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
