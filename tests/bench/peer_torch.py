#!/usr/bin/env python3
"""Training by PyTorch, any version from 1.13 on: forward, loss, backward and AdamW of B x T random tokens of the same Llama that ours trains.

usage: peer_torch.py SHAPE [--threads N] [--seconds S] [--bf16] [--compile] [--world N --tokens T]
SHAPE: 260k (6 x 66), 15m (4 x 256), 124m (4 x 64), 124m-512 (1 x 512). Prints one line: version, the MiB that the process had at most,
then tokens/s of every step. --world 2: that many processes of N threads train on T tokens a step together, gradients
summed by gloo over loopback, each a share of the micro-batches of B x T. Written without transformers, because Debian has none.
"""
import argparse
import os
import resource
import time

import torch
import torch.nn.functional as F
from torch import nn

SHAPES = {  # vocabulary, width, layers, heads, key heads, ffn, batch, length
    "260k": (512, 64, 5, 8, 4, 172, 6, 66),
    "15m": (32000, 288, 6, 6, 6, 768, 4, 256),
    "124m": (50257, 768, 12, 12, 12, 2048, 4, 64),
    "124m-512": (50257, 768, 12, 12, 12, 2048, 1, 512),
}
FUSED = hasattr(F, "scaled_dot_product_attention")


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        if hasattr(F, "rms_norm"):
            return F.rms_norm(x, self.weight.shape, self.weight, 1e-5)
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Block(nn.Module):
    def __init__(self, width, heads, kv_heads, ffn):
        super().__init__()
        self.heads, self.kv, self.dim = heads, kv_heads, width // heads
        self.norm1, self.norm2 = Norm(width), Norm(width)
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * self.dim, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * ffn, bias=False)
        self.down = nn.Linear(ffn, width, bias=False)

    def attend(self, q, k, v):
        if FUSED:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        t = q.shape[-2]
        s = q @ k.transpose(-1, -2) * self.dim ** -0.5
        s = s.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), float("-inf"))
        return torch.softmax(s, -1) @ v

    def forward(self, x, cos, sin):
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).split([self.heads * self.dim, self.kv * self.dim, self.kv * self.dim], -1)
        q, k, v = (y.reshape(b, t, -1, self.dim).transpose(1, 2) for y in (q, k, v))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if self.kv != self.heads:
            k, v = (y.repeat_interleave(self.heads // self.kv, 1) for y in (k, v))
        x = x + self.out(self.attend(q, k, v).transpose(1, 2).reshape(b, t, c))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Llama(nn.Module):
    def __init__(self, vocab, width, layers, heads, kv_heads, ffn):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(Block(width, heads, kv_heads, ffn) for _ in range(layers))
        self.norm = Norm(width)
        nn.init.normal_(self.embed.weight, std=0.02)
        half = width // heads // 2
        angle = torch.arange(1024).float()[:, None] * 10000.0 ** (-torch.arange(half).float() / half)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, tokens, targets):
        t = tokens.shape[1]
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.cos[:t], self.sin[:t])
        logits = F.linear(self.norm(x), self.embed.weight)
        return F.cross_entropy(logits.float().reshape(-1, logits.shape[-1]), targets.reshape(-1))


def optimizer_of(model):
    for options in ({"fused": True}, {"foreach": True}, {}):
        try:
            return torch.optim.AdamW(model.parameters(), lr=1e-4, **options)
        except (TypeError, RuntimeError):
            continue


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("shape", choices=SHAPES)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seconds", type=float, default=4.0)
    p.add_argument("--bf16", action="store_true")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--world", type=int, default=1)
    p.add_argument("--tokens", type=int, default=0)
    p.add_argument("--rank", type=int, default=0)
    return p.parse_args()


def train(a):
    vocab, width, layers, heads, kv_heads, ffn, batch, length = SHAPES[a.shape]
    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    model = Llama(vocab, width, layers, heads, kv_heads, ffn)
    optimizer = optimizer_of(model)
    run = torch.compile(model) if a.compile else model
    tokens = torch.randint(vocab, (batch, length + 1))
    micro = max(1, a.tokens // (batch * length * a.world))

    def step():
        optimizer.zero_grad(set_to_none=a.world == 1)
        for _ in range(micro):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.bf16):
                loss = run(tokens[:, :-1], tokens[:, 1:])
            loss.backward()
        if a.world > 1:
            grads = [p.grad for p in model.parameters()]
            flat = torch.cat([g.reshape(-1) for g in grads])
            torch.distributed.all_reduce(flat)
            at = 0
            for g in grads:
                g.copy_(flat[at:at + g.numel()].view_as(g))
                at += g.numel()
        optimizer.step()

    step()
    if micro == 1:  # long steps are warm after one
        step()
    least = 3 if micro == 1 else 2
    rates, end = [], time.perf_counter() + a.seconds
    while len(rates) < least or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        rates.append(batch * length * micro * a.world / (time.perf_counter() - start))
        if a.world > 1:  # all stop at the same step
            go = torch.tensor([1.0 if len(rates) < least or time.perf_counter() < end else 0.0])
            torch.distributed.all_reduce(go, op=torch.distributed.ReduceOp.MIN)
            if go.item() == 0.0:
                break
    if a.rank == 0:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(torch.__version__, f"{peak:.0f}", " ".join(f"{r:.1f}" for r in rates), flush=True)


def main():
    a = arguments()
    if a.world > 1:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "29511")
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        for rank in range(1, a.world):
            if os.fork() == 0:
                a.rank = rank
                break
        torch.distributed.init_process_group("gloo", rank=a.rank, world_size=a.world)
    train(a)


if __name__ == "__main__":
    main()
