#!/usr/bin/env python3
"""Makes torch.bin: what PyTorch and Hugging Face transformers compute for three tiny models.

Each model is a Llama of width 32 with random weights: `tied` and `untied` (next-token cross entropy, some rows weighted,
some without a target, one group of rows with the softmax over a range of the vocabulary) and `regression` (masked squared
error, missing scores). Recorded: parameters, logits or scores, loss sum, weight sum, every gradient of the loss sum, and
losses and parameters of 20 AdamW steps with clipping (no decay for norm vectors).

usage: pip install torch transformers; python3 make_torch.py torch.bin
File: records of int32 name length, name, int32 count, count float32, little-endian.
"""
import struct
import sys

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

LENGTHS = [9, 1, 14, 5]
VOCAB, WIDTH, HEAD_OUT, STEPS = 48, 32, 3, 20
LR, CLIP, DECAY, BETAS, EPS = 2e-3, 1.0, 0.1, (0.9, 0.98), 1e-6


def make_model(tied):
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0,
        tie_word_embeddings=tied, attention_bias=False, mlp_bias=False)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * 0.15 + (1.0 if "norm" in name else 0.0))
    return model


def targets_lm(generator):
    """row, id, lo, hi, weight"""
    rows = []
    for row in range(sum(LENGTHS)):
        if row % 3 == 0:
            continue
        lo, hi = (10, 14) if row % 7 == 0 else (0, VOCAB)
        token = lo + int(torch.randint(hi - lo, (1,), generator=generator))
        rows.append((row, token, lo, hi, 0.25 + 0.5 * (row % 4)))
    return rows


def hidden_rows(trunk, tokens):
    out, begin = [], 0
    for n in LENGTHS:
        out.append(trunk(input_ids=tokens[begin:begin + n][None]).last_hidden_state[0])
        begin += n
    return torch.cat(out)


def lm_loss(model, tokens, targets):
    logits = model.lm_head(hidden_rows(model.model, tokens))
    total = torch.zeros(())
    for row, token, lo, hi, weight in targets:
        total = total + weight * torch.nn.functional.cross_entropy(logits[row, lo:hi][None], torch.tensor([token - lo]),
                                                                   reduction="sum")
    return logits, total, sum(t[4] for t in targets)


def regression_loss(model, score, tokens, rows, wanted):
    out = score(hidden_rows(model.model, tokens)[rows])
    weight = torch.tensor([1.0 + r % 2 for r in rows])[:, None]
    present = ~torch.isnan(wanted)
    error = torch.where(present, out - torch.nan_to_num(wanted), torch.zeros(()))
    return out, (weight * error * error).sum(), float((weight * present).sum())


def record(file, name, values):
    data = torch.as_tensor(values, dtype=torch.float32).detach().reshape(-1).tolist()
    raw = name.encode()
    file.write(struct.pack("<i", len(raw)) + raw + struct.pack("<i", len(data)) + struct.pack("<%df" % len(data), *data))


def run(file, prefix, params, loss_of):
    for name, p in params:
        record(file, f"{prefix}/param/{name}", p)
    out, loss, weight = loss_of()
    loss.backward()
    record(file, f"{prefix}/out", out)
    record(file, f"{prefix}/loss", [loss.item(), weight])
    for name, p in params:
        record(file, f"{prefix}/grad/{name}", p.grad)
    groups = [{"params": [p for _, p in params if p.dim() > 1], "weight_decay": DECAY},
              {"params": [p for _, p in params if p.dim() == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        _, loss, weight = loss_of()
        (loss / weight).backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in params], CLIP)
        optimizer.step()
        losses.append(loss.item() / weight)
    record(file, f"{prefix}/losses", losses)
    for name, p in params:
        record(file, f"{prefix}/after/{name}", p)


def main():
    torch.manual_seed(7)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(11)
    tokens = torch.randint(VOCAB, (sum(LENGTHS),), generator=generator)
    targets = targets_lm(generator)
    rows = [r for r in range(sum(LENGTHS)) if r % 3 == 1]
    wanted = torch.randint(5, (len(rows), HEAD_OUT), generator=generator).float()
    for i in range(len(rows)):
        if i % 4 != 3:
            wanted[i, i % HEAD_OUT] = float("nan")
    with open(sys.argv[1], "wb") as file:
        record(file, "tokens", tokens.float())
        record(file, "targets", targets)
        record(file, "rows", [float(r) for r in rows])
        record(file, "scores", wanted)
        for prefix, tied in (("tied", True), ("untied", False)):
            model = make_model(tied)
            run(file, prefix, list(model.named_parameters()), lambda m=model: lm_loss(m, tokens, targets))
        model = make_model(True)
        score = torch.nn.Linear(WIDTH, HEAD_OUT, bias=False)
        params = [(n, p) for n, p in model.named_parameters()] + [("score.weight", score.weight)]
        run(file, "regression", params, lambda: regression_loss(model, score, tokens, rows, wanted))
    print("torch", torch.__version__, "transformers", transformers.__version__)


if __name__ == "__main__":
    main()
