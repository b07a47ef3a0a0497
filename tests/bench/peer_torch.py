#!/usr/bin/env python3
"""The rows of bench_train by PyTorch: forward, loss and backward (and AdamW with --step) of B x T tokens on all threads given.

usage: peer_torch.py SHAPE [--threads N] [--seconds S] [--bf16] [--compile] [--step]
SHAPE: 260k (6 x 66), 15m (4 x 256), gpt2 (4 x 64), gpt2-512 (1 x 512). Prints one JSON line. Needs torch and transformers (a
virtual environment of yours; the product never does).
"""
import argparse
import json
import statistics
import time

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

SHAPES = {
    "260k": (dict(vocab_size=512, hidden_size=64, intermediate_size=172, num_hidden_layers=5, num_attention_heads=8,
                  num_key_value_heads=4), 6, 66),
    "15m": (dict(vocab_size=32000, hidden_size=288, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6), 4, 256),
    "gpt2": (dict(vocab_size=50257, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12), 4, 64),
    "gpt2-512": (dict(vocab_size=50257, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12), 1, 512),
}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("shape", choices=SHAPES)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seconds", type=float, default=4.0)
    p.add_argument("--bf16", action="store_true")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--step", action="store_true")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    dims, batch, length = SHAPES[a.shape]
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(max_position_embeddings=1024, tie_word_embeddings=True, **dims))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True) if a.step else None
    run = torch.compile(model) if a.compile else model
    tokens = torch.randint(dims["vocab_size"], (batch, length))

    def work():
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.bf16):
            logits = run(input_ids=tokens).logits
        torch.nn.functional.cross_entropy(logits.float().reshape(-1, dims["vocab_size"]), tokens.reshape(-1)).backward()
        if optimizer:
            optimizer.step()

    work()
    work()
    rates, end = [], time.perf_counter() + a.seconds
    while time.perf_counter() < end or len(rates) < 3:
        start = time.perf_counter()
        work()
        rates.append(tokens.numel() / (time.perf_counter() - start))
    print(json.dumps({"name": f"torch {a.shape}{' bf16' if a.bf16 else ''}{' compile' if a.compile else ''}{' step' if a.step else ''}",
                      "median": statistics.median(rates), "high": max(rates), "runs": len(rates), "unit": "tokens/s",
                      "threads": a.threads, "torch": torch.__version__, "transformers": transformers.__version__}))


if __name__ == "__main__":
    main()
