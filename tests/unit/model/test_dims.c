/* Bounds of a shape, and the flat layout. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "model/dims.h"

static const struct dims good = {512, 64, 5, 8, 4, 8, 172, 512, 1e-5f, 1e4f, true, HEAD_LM, 0};

static void refused(struct dims d, const char *message)
{
    struct err e;

    assert_int_equal(dims_check(&d, &e), ERR_INVALID);
    assert_string_equal(e.msg, message);
}

static void test_bad_shapes_are_named(void **state)
{
    struct dims d;

    (void)state;
#define BAD(field, value, message) d = good, d.field = value, refused(d, message)
    BAD(vocab, 0, "vocab is 0, must be 1..1048576");
    BAD(vocab, (1 << 20) + 1, "vocab is 1048577, must be 1..1048576");
    BAD(width, 0, "width is 0, must be 1..16384");
    BAD(width, 16385, "width is 16385, must be 1..16384");
    BAD(layers, -1, "layers is -1, must be 1..256");
    BAD(layers, 257, "layers is 257, must be 1..256");
    BAD(heads, 0, "heads is 0, must be 1..256");
    BAD(heads, 260, "heads is 260, must be 1..256");
    BAD(kv_heads, 0, "kv_heads is 0, must be 1..256");
    BAD(kv_heads, 3, "heads is 8, must be a multiple of kv_heads 3");
    BAD(kv_heads, 16, "heads is 8, must be a multiple of kv_heads 16");
    BAD(head_dim, 7, "head_dim is 7, must be even");
    BAD(head_dim, 0, "head_dim is 0, must be 2..512");
    BAD(head_dim, 514, "head_dim is 514, must be 2..512");
    BAD(ffn, 0, "ffn is 0, must be 1..65536");
    BAD(ffn, 65537, "ffn is 65537, must be 1..65536");
    BAD(context, 0, "context is 0, must be 1..1048576");
    BAD(norm_eps, -1e-5f, "norm_eps is -1e-05, must be 0..1");
    BAD(norm_eps, NAN, "norm_eps is nan, must be 0..1");
    BAD(rope_theta, 0.0f, "rope_theta is 0, must be 1..1e12");
    BAD(rope_theta, INFINITY, "rope_theta is inf, must be 1..1e12");
    BAD(head_out, 2, "head_out is 2, must be 0..0");
    BAD(head, HEAD_REGRESSION, "a regression head cannot be tied to the embedding");
    BAD(head, (enum head_kind)7, "head is 7, must be 0 (lm) or 1 (regression)");
#undef BAD
    d = good;
    d.head = HEAD_REGRESSION;
    d.tied = false;
    refused(d, "head_out is 0, must be 1..1024");
    d.head_out = 1025;
    refused(d, "head_out is 1025, must be 1..1024");
}

static void test_good_shapes(void **state)
{
    struct dims d = good, largest = {1 << 20, 16384, 256,  256,   256,     512, 65536,
                                     1 << 20, 1e-5f, 1e4f, false, HEAD_LM, 0};
    struct err e;

    (void)state;
    assert_int_equal(dims_check(&d, &e), 0);
    assert_int_equal(dims_check(&largest, &e), 0);
    assert_true(dims_params(&largest) > (size_t)1 << 40); /* no overflow */
    d.head = HEAD_REGRESSION;
    d.tied = false;
    d.head_out = 5;
    assert_int_equal(dims_check(&d, &e), 0);
}

static void test_layout_is_contiguous_and_named(void **state)
{
    struct layout l;
    size_t at = 0;

    (void)state;
    layout_init(&l, &good);
    assert_int_equal(l.tensors, 5 * 9 + 2);
    assert_int_equal(l.count, 260032);
    assert_int_equal(l.count, dims_params(&good));
    for (int32_t i = 0; i < l.tensors; i++) {
        assert_int_equal(l.tensor[i].begin, at);
        assert_true(layout_find(&l, l.tensor[i].name) == &l.tensor[i]);
        assert_true(l.tensor[i].decay == (strstr(l.tensor[i].name, "norm") == NULL));
        at += tensor_count(&l.tensor[i]);
    }
    assert_int_equal(at, l.count);
    assert_string_equal(l.tensor[1].name, "model.layers.0.input_layernorm.weight");
    assert_string_equal(l.tensor[46].name, "model.norm.weight");
    assert_int_equal(layout_find(&l, "model.layers.4.self_attn.k_proj.weight")->rows, 32);
    assert_int_equal(layout_find(&l, "model.layers.4.mlp.down_proj.weight")->cols, 172);
    assert_null(layout_find(&l, "lm_head.weight"));
    assert_null(layout_find(&l, ""));
    layout_fini(&l);
}

static void offsets_agree(const struct dims *d, const char *head)
{
    struct layout l;
    struct offsets o;
    size_t last = (size_t)d->layers - 1, base;

    layout_init(&l, d);
    dims_offsets(d, &o);
    base = o.layers + last * o.layer_size;
    assert_int_equal(o.count, l.count);
    assert_int_equal(layout_find(&l, "model.layers.4.input_layernorm.weight")->begin,
                     base + o.norm1);
    assert_int_equal(layout_find(&l, "model.layers.4.self_attn.q_proj.weight")->begin,
                     base + o.qkv);
    assert_int_equal(layout_find(&l, "model.layers.4.self_attn.o_proj.weight")->begin, base + o.o);
    assert_int_equal(layout_find(&l, "model.layers.4.post_attention_layernorm.weight")->begin,
                     base + o.norm2);
    assert_int_equal(layout_find(&l, "model.layers.4.mlp.gate_proj.weight")->begin,
                     base + o.gate_up);
    assert_int_equal(layout_find(&l, "model.layers.4.mlp.down_proj.weight")->begin, base + o.down);
    assert_int_equal(layout_find(&l, "model.norm.weight")->begin, o.final_norm);
    assert_int_equal(layout_find(&l, head)->begin, o.head);
    layout_fini(&l);
}

static void test_offsets_are_the_layout(void **state)
{
    struct dims d = good;

    (void)state;
    offsets_agree(&d, "model.embed_tokens.weight");
    d.tied = false;
    offsets_agree(&d, "lm_head.weight");
    d.head = HEAD_REGRESSION;
    d.head_out = 3;
    offsets_agree(&d, "score.weight");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_shapes_are_named),
        cmocka_unit_test(test_good_shapes),
        cmocka_unit_test(test_layout_is_contiguous_and_named),
        cmocka_unit_test(test_offsets_are_the_layout),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
