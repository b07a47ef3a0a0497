#!/usr/bin/env python3
"""The first row of bench_train, by PyTorch and transformers on one thread: forward, loss and backward of 6 x 66 tokens.

usage: pip install torch transformers; python3 tests/bench/torch_train.py [seconds]
"""
import sys
import time

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    torch.set_num_threads(1)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=172, num_hidden_layers=5, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True))
    tokens = torch.randint(512, (6, 66))
    best, spent = float("inf"), 0.0
    while spent < seconds:
        start = time.perf_counter()
        model.zero_grad()
        logits = model(input_ids=tokens).logits
        torch.nn.functional.cross_entropy(logits.reshape(-1, 512), tokens.reshape(-1)).backward()
        took = time.perf_counter() - start
        spent += took
        best = min(best, took)
    print(f"figure: train stories260K, every row a target: {tokens.numel() / best:.0f} rows/s, one thread, "
          f"PyTorch {torch.__version__}, transformers {transformers.__version__}")


if __name__ == "__main__":
    main()
