#include "types/tree.h"

#include "base/err.h"

uint32_t tree_height(uint32_t m)
{
    uint32_t h = 0;

    CHECK(m >= 1 && m <= TREE_UNITS_MAX);
    while ((1u << h) < m)
        h++;
    return h;
}

struct tree_span tree_leaves(uint32_t m, struct tree_node n)
{
    uint64_t begin = (uint64_t)n.index << n.level;
    uint64_t end = ((uint64_t)n.index + 1) << n.level;

    return (struct tree_span){(uint32_t)(begin < m ? begin : m), (uint32_t)(end < m ? end : m)};
}

bool tree_node_is_valid(uint32_t m, struct tree_node n)
{
    struct tree_span s;

    if (n.level > tree_height(m))
        return false;
    s = tree_leaves(m, n);
    return s.begin < s.end;
}

struct tree_node tree_parent(struct tree_node n)
{
    return (struct tree_node){n.level + 1, n.index >> 1};
}

struct tree_node tree_sibling(struct tree_node n)
{
    return (struct tree_node){n.level, n.index ^ 1u};
}

bool tree_has_right(uint32_t m, struct tree_node n)
{
    if (n.level == 0)
        return false;
    return tree_node_is_valid(m, (struct tree_node){n.level - 1, 2 * n.index + 1});
}

size_t tree_cover(uint32_t m, struct tree_span span, struct tree_node *out, size_t cap)
{
    size_t count = 0;
    uint32_t at = span.begin;

    CHECK(span.end <= m);
    while (at < span.end) {
        uint32_t level = 0;
        /* Rise while the bigger node is aligned here and reaches no further than span.end (or than m, where the
         * tree itself ends: a short right edge is covered by one high node). */
        while (level < tree_height(m) && (at & ((2u << level) - 1)) == 0) {
            struct tree_span wide =
                tree_leaves(m, (struct tree_node){level + 1, at >> (level + 1)});
            if (wide.end > span.end)
                break;
            level++;
        }
        CHECK(count < cap);
        out[count] = (struct tree_node){level, at >> level};
        at = tree_leaves(m, out[count]).end;
        count++;
    }
    return count;
}
