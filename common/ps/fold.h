/*
 * fold: the sum of a step's gradient along the canonical tree (types/tree.h), for the chunks of one
 * host.
 *
 * A slot is one (node, chunk). It is filled by whichever comes first: the node itself being pushed,
 * or both its children being filled; then it is left + right, one fp32 addition per element and
 * tree edge, so the root's bits depend on neither the order nor the grouping of what arrives. A
 * node without a right child is its left child. What is filled twice must be equal: slots keep the
 * hash of their value after the value has moved up, so a push that comes late is recognised as a
 * duplicate or as a conflict. Pure. Different chunks may be folded on different threads at the same
 * time (fold_add, fold_lend). Buffers come from a pool that grows in the first steps and is
 * used for ever; nothing is allocated in a steady state.
 */
#ifndef PS_FOLD_H
#define PS_FOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "types/tree.h"

/* What goes with a node of chunk 0: fp64, combined along the same tree. Zero for other chunks. */
struct fold_sums {
    double loss, weight;
    uint64_t tokens;
};

enum fold_verdict {
    FOLD_ACCEPTED,
    FOLD_DUPLICATE, /* there already, by itself, by its children, or inside a bigger node */
    FOLD_CONFLICT   /* there already, with other bits: corruption or foreign numerics */
};

struct fold;
/* elems floats in chunks of chunk_elems, the last one short. m: units of a step. */
struct fold *fold_new(uint32_t m, size_t elems, size_t chunk_elems);
void fold_free(struct fold *f);
void fold_reset(struct fold *f); /* next step: every slot empty */
/* Sums are rounded to bf16 at every edge of the tree (ps/half.h), whoever makes them: then every
 * node can be pushed as bf16 without loss. Before the first value. */
void fold_use_half(struct fold *f);

uint32_t fold_chunks(const struct fold *f);
size_t fold_chunk_len(const struct fold *f, uint32_t chunk);
/* Hash that identifies a node's value: floats and sums (NULL = zero). What sender and host compare.
 */
uint64_t fold_hash(const float *values, size_t n, const struct fold_sums *sums);
/* values [fold_chunk_len] are copied. hash: fold_hash() of them. node must be valid for m
 * (CHECKed). */
enum fold_verdict fold_add(struct fold *f, uint32_t chunk, struct tree_node node,
                           const float *values, const struct fold_sums *sums, uint64_t hash);
/* The same without a copy: values are lent until fold_reset(), and may be written to meanwhile. Not
 * touched when the node is there already. */
enum fold_verdict fold_lend(struct fold *f, uint32_t chunk, struct tree_node node, float *values,
                            const struct fold_sums *sums, uint64_t hash);
bool fold_has(const struct fold *f, uint32_t chunk, struct tree_node node); /* or what is above it */
/* Who has pushed a node that was accepted; forgotten when the fold is reset. */
void fold_note(struct fold *f, uint32_t chunk, struct tree_node node, uint64_t who);
/* The hash of a node's value and who pushed it (0: its parts were added up here). False: the value
 * of this node itself was never here. */
bool fold_said(const struct fold *f, uint32_t chunk, struct tree_node node, uint64_t *hash,
               uint64_t *who);
/* The root's value, or NULL while it is not complete. Valid until fold_reset(), or as long as
 * somebody holds it (ps/floats.h) if it is not lent. sums may be NULL. */
const float *fold_root(const struct fold *f, uint32_t chunk, struct fold_sums *sums);
bool fold_root_is_lent(const struct fold *f, uint32_t chunk);
uint64_t fold_root_hash(const struct fold *f, uint32_t chunk); /* fold_hash() of a complete root */

/* Spans of units that some chunk without a root still lacks, in order; at most cap, the last one
 * then reaches to the last such unit. Returns how many. */
size_t fold_missing(struct fold *f, struct tree_span *out, size_t cap);

#endif
