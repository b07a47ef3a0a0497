/*
 * tree: the canonical binary tree over the m units of a step (DESIGN: units and tree).
 * Node (level, index) covers leaves [index * 2^level, min((index + 1) * 2^level, m)). A node without a right child
 * equals its left child, unchanged. The root is (tree_height(m), 0). All pure.
 */
#ifndef TYPES_TREE_H
#define TYPES_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TREE_UNITS_MAX 65536u
#define TREE_COVER_MAX 40 /* nodes that tree_cover() may give */

struct tree_node {
    uint32_t level;
    uint32_t index;
};

struct tree_span {
    uint32_t begin, end; /* leaves [begin, end) */
};

uint32_t tree_height(uint32_t m);                        /* least h with 2^h >= m; m >= 1 */
bool tree_node_is_valid(uint32_t m, struct tree_node n); /* exists and covers at least one leaf */
struct tree_span tree_leaves(uint32_t m, struct tree_node n);
struct tree_node tree_parent(struct tree_node n);
struct tree_node tree_sibling(struct tree_node n);
bool tree_has_right(uint32_t m,
                    struct tree_node n); /* level > 0 and the right child covers a leaf */
/* The fewest aligned nodes that cover exactly [span.begin, span.end), in leaf order; returns how many (<= cap). */
size_t tree_cover(uint32_t m, struct tree_span span, struct tree_node *out, size_t cap);

#endif
