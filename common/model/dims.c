/* dims: bounds and the flat layout. Names are those of Hugging Face's LlamaForCausalLM, order as in dims.h. */
#include "model/dims.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

static int int_check(const char *name, int32_t value, int32_t low, int32_t high, struct err *e)
{
    if (value < low || value > high)
        return err_set(e, ERR_INVALID, "%s is %d, must be %d..%d", name, value, low, high);
    return 0;
}

int dims_check(const struct dims *d, struct err *e)
{
    const struct {
        const char *name;
        int32_t value, low, high;
    } row[] = {
        {"vocab", d->vocab, 1, 1 << 20},   {"width", d->width, 1, 16384},
        {"layers", d->layers, 1, 256},     {"heads", d->heads, 1, 256},
        {"kv_heads", d->kv_heads, 1, 256}, {"head_dim", d->head_dim, 2, 512},
        {"ffn", d->ffn, 1, 65536},         {"context", d->context, 1, 1 << 20},
    };

    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        int rc = int_check(row[i].name, row[i].value, row[i].low, row[i].high, e);
        if (rc != 0)
            return rc;
    }
    if (d->heads % d->kv_heads != 0)
        return err_set(e, ERR_INVALID, "heads is %d, must be a multiple of kv_heads %d", d->heads,
                       d->kv_heads);
    if (d->head_dim % 2 != 0)
        return err_set(e, ERR_INVALID, "head_dim is %d, must be even", d->head_dim);
    if (!(d->norm_eps >= 0.0f && d->norm_eps <= 1.0f))
        return err_set(e, ERR_INVALID, "norm_eps is %g, must be 0..1", (double)d->norm_eps);
    if (!(d->rope_theta >= 1.0f && d->rope_theta <= 1e12f))
        return err_set(e, ERR_INVALID, "rope_theta is %g, must be 1..1e12", (double)d->rope_theta);
    if (d->head != HEAD_LM && d->head != HEAD_REGRESSION)
        return err_set(e, ERR_INVALID, "head is %d, must be %d (lm) or %d (regression)",
                       (int)d->head, HEAD_LM, HEAD_REGRESSION);
    if (d->head == HEAD_REGRESSION) {
        if (d->tied)
            return err_set(e, ERR_INVALID, "a regression head cannot be tied to the embedding");
        return int_check("head_out", d->head_out, 1, 1024, e);
    }
    return int_check("head_out", d->head_out, 0, 0, e);
}

void dims_offsets(const struct dims *d, struct offsets *o)
{
    size_t c = (size_t)d->width, f = (size_t)d->ffn, v = (size_t)d->vocab;
    size_t hd = (size_t)d->heads * (size_t)d->head_dim,
           gd = (size_t)d->kv_heads * (size_t)d->head_dim;
    size_t head = d->head == HEAD_REGRESSION ? (size_t)d->head_out * c : d->tied ? 0 : v * c;

    memset(o, 0, sizeof *o);
    o->layers = v * c;
    o->qkv = o->norm1 + c;
    o->o = o->qkv + (hd + 2 * gd) * c;
    o->norm2 = o->o + c * hd;
    o->gate_up = o->norm2 + c;
    o->down = o->gate_up + 2 * f * c;
    o->layer_size = o->down + c * f;
    o->final_norm = o->layers + (size_t)d->layers * o->layer_size;
    o->head = head == 0 ? o->embed : o->final_norm + c;
    o->count = o->final_norm + c + head;
}

size_t dims_params(const struct dims *d)
{
    struct offsets o;

    dims_offsets(d, &o);
    return o.count;
}

static void tensor_add(struct layout *l, int32_t rows, int32_t cols, const char *name)
{
    struct tensor *t = &l->tensor[l->tensors++];

    snprintf(t->name, sizeof t->name, "%s", name);
    t->begin = l->count;
    t->rows = rows;
    t->cols = cols;
    t->decay = cols != 0;
    l->count += tensor_count(t);
}

static void layer_add(struct layout *l, const struct dims *d, int32_t layer)
{
    int32_t c = d->width, hd = d->heads * d->head_dim, gd = d->kv_heads * d->head_dim;
    const struct {
        const char *name;
        int32_t rows, cols;
    } part[] = {
        {"input_layernorm", c, 0},    {"self_attn.q_proj", hd, c},
        {"self_attn.k_proj", gd, c},  {"self_attn.v_proj", gd, c},
        {"self_attn.o_proj", c, hd},  {"post_attention_layernorm", c, 0},
        {"mlp.gate_proj", d->ffn, c}, {"mlp.up_proj", d->ffn, c},
        {"mlp.down_proj", c, d->ffn},
    };
    char name[LAYOUT_NAME_MAX];

    for (size_t i = 0; i < sizeof part / sizeof part[0]; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, part[i].name);
        tensor_add(l, part[i].rows, part[i].cols, name);
    }
}

void layout_init(struct layout *l, const struct dims *d)
{
    memset(l, 0, sizeof *l);
    l->tensor = mem_zalloc((size_t)d->layers * 9 + 3, sizeof *l->tensor);
    tensor_add(l, d->vocab, d->width, "model.embed_tokens.weight");
    for (int32_t i = 0; i < d->layers; i++)
        layer_add(l, d, i);
    tensor_add(l, d->width, 0, "model.norm.weight");
    if (d->head == HEAD_REGRESSION)
        tensor_add(l, d->head_out, d->width, "score.weight");
    else if (!d->tied)
        tensor_add(l, d->vocab, d->width, "lm_head.weight");
    CHECK(l->count == dims_params(d));
}

void layout_fini(struct layout *l)
{
    free(l->tensor);
    memset(l, 0, sizeof *l);
}

const struct tensor *layout_find(const struct layout *l, const char *name)
{
    for (int32_t i = 0; i < l->tensors; i++)
        if (strcmp(l->tensor[i].name, name) == 0)
            return &l->tensor[i];
    return NULL;
}

size_t tensor_count(const struct tensor *t)
{
    return (size_t)t->rows * (t->cols != 0 ? (size_t)t->cols : 1);
}
