#!/usr/bin/env python3
"""Random weights of 15M and 110M in the formats of the peers: GGUF (llama.cpp) and llama2.c's .bin with its tokenizer.bin.

usage: peer_models.py FOLDER     needs numpy and gguf (tests/bench/peers.sh torch)
"""
import os
import struct
import sys

import gguf
import numpy as np

SHAPES = {"15m": (32000, 288, 6, 6, 768, 1024), "110m": (32000, 768, 12, 12, 2048, 1024)}  # vocabulary, width, layers, heads, ffn, context
BYTES = [b"<unk>", b"<s>", b"</s>"] + [f"<0x{i:02X}>".encode() for i in range(256)]


def tokens_of(vocab):
    return BYTES + [f"w{i}".encode() for i in range(vocab - len(BYTES))]


def weights_of(vocab, width, layers, ffn):
    rng = np.random.default_rng(1)

    def matrix(*shape):
        return (rng.standard_normal(shape, dtype=np.float32) * 0.02).astype(np.float32)

    w = {"token_embd": matrix(vocab, width), "output_norm": np.ones(width, np.float32)}
    for i in range(layers):
        w[f"blk.{i}.attn_norm"] = w[f"blk.{i}.ffn_norm"] = np.ones(width, np.float32)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            w[f"blk.{i}.{name}"] = matrix(width, width)
        w[f"blk.{i}.ffn_gate"], w[f"blk.{i}.ffn_up"] = matrix(ffn, width), matrix(ffn, width)
        w[f"blk.{i}.ffn_down"] = matrix(width, ffn)
    return w


def gguf_write(path, shape, w):
    vocab, width, layers, heads, ffn, context = shape
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(context)
    out.add_embedding_length(width)
    out.add_block_count(layers)
    out.add_feed_forward_length(ffn)
    out.add_head_count(heads)
    out.add_head_count_kv(heads)
    out.add_rope_dimension_count(width // heads)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(vocab)
    out.add_file_type(gguf.LlamaFileType.ALL_F32)
    out.add_tokenizer_model("llama")
    tokens = tokens_of(vocab)
    out.add_token_list(tokens)
    out.add_token_scores([0.0] * vocab)
    kind = gguf.TokenType
    out.add_token_types([kind.UNKNOWN, kind.CONTROL, kind.CONTROL] + [kind.BYTE] * 256 + [kind.NORMAL] * (vocab - len(BYTES)))
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    for name, values in w.items():
        out.add_tensor(name + ".weight", values)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def llama2c_write(path, shape, w):
    vocab, width, layers, heads, ffn, context = shape
    with open(path, "wb") as f:
        f.write(struct.pack("<7i", width, ffn, layers, heads, heads, vocab, context))
        w["token_embd"].tofile(f)
        for name in ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_down", "ffn_up"):
            for i in range(layers):
                w[f"blk.{i}.{name}"].tofile(f)
        w["output_norm"].tofile(f)
        np.zeros(context * (width // heads), np.float32).tofile(f)  # tables of RoPE, not read any more


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    for name, shape in SHAPES.items():
        w = weights_of(shape[0], shape[1], shape[2], shape[4])
        gguf_write(f"{folder}/{name}-f32.gguf", shape, w)
        llama2c_write(f"{folder}/{name}.bin", shape, w)
    tokens = tokens_of(32000)
    with open(f"{folder}/tokenizer.bin", "wb") as f:
        f.write(struct.pack("<i", max(len(t) for t in tokens)))
        for t in tokens:
            f.write(struct.pack("<fi", 0.0, len(t)) + t)


if __name__ == "__main__":
    main()
