/*
 * dims: the shape of a model (a Llama decoder: RMSNorm, RoPE, grouped-query attention, SwiGLU) and the layout of its
 * parameters in one flat vector. Pure; needs no BLAS, so the coordinator may ask for sizes.
 * Letters used in this room: N rows (packed tokens), C width, H heads, G key/value heads, D head_dim, F ffn, V vocab, L layers.
 */
#ifndef MODEL_DIMS_H
#define MODEL_DIMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum head_kind {
    HEAD_LM,        /* next token over the vocabulary, or over a range of it (class tokens) */
    HEAD_REGRESSION /* score.weight [head_out, C], no bias, read at chosen positions */
};

struct dims {
    int32_t vocab, width, layers, heads, kv_heads, head_dim, ffn, context;
    float norm_eps, rope_theta;
    bool tied; /* head shares the embedding (HEAD_LM only) */
    enum head_kind head;
    int32_t head_out; /* HEAD_REGRESSION: outputs; else 0 */
};

/* Bounds: vocab 1..1<<20, width 1..16384, layers 1..256, heads 1..256 and a multiple of kv_heads, head_dim even 2..512,
 * ffn 1..65536, context 1..1<<20. The message names field, value, bound. */
int dims_check(const struct dims *d, struct err *e);

#define LAYOUT_NAME_MAX 96
struct tensor {
    char name[LAYOUT_NAME_MAX]; /* Hugging Face name, "model.layers.0.self_attn.q_proj.weight" */
    size_t begin;               /* offset in the flat vector, in elements */
    int32_t rows,
        cols;   /* [rows, cols] row-major, y = x W^T; a vector has cols == 0 (rows elements) */
    bool decay; /* weight decay applies: all matrices, no norm vectors */
};

struct layout {
    size_t count; /* elements of the flat vector */
    int32_t tensors;
    struct tensor
        *tensor; /* in flat order: embedding, layers 0..L-1, final norm, then lm_head or score */
};

/* Order inside a layer: input_layernorm, q, k, v, o, post_attention_layernorm, gate, up, down. */
void layout_init(struct layout *l, const struct dims *d); /* d passed dims_check() */
void layout_fini(struct layout *l);
const struct tensor *layout_find(const struct layout *l, const char *name); /* NULL if absent */
size_t tensor_count(const struct tensor *t);
size_t dims_params(const struct dims *d); /* layout.count without building it */

/* The same layout as offsets, for the numerics. q, k, v are one matrix [(H + 2 G) D, C], gate and up one [2 F, C].
 * Layer l begins at layers + l * layer_size; the offsets inside it are relative to that. */
struct offsets {
    size_t embed, layers, layer_size, final_norm, head; /* head: == embed if tied */
    size_t count;
    size_t norm1, qkv, o, norm2, gate_up, down; /* in a layer */
};
void dims_offsets(const struct dims *d, struct offsets *o);

#endif
