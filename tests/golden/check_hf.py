#!/usr/bin/env python3
"""Models that we write, opened by PyTorch and transformers: the same weights, the same outputs; and models that they write,
opened by us. An oracle, not part of `make check`.

usage: make build/release/tests/golden/dump_logits; check_hf.py
Needs `pip install torch transformers safetensors tokenizers numpy`.
"""
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

ROOT = Path(__file__).resolve().parents[2]
DUMP = ROOT / "build/release/tests/golden/dump_logits"
STORIES = ROOT / "models/stories260K"
TOLERANCE = 2e-4  # log-probabilities and scores: ours in fp32 against theirs in fp64
failures = 0


def report(what, worst, limit=TOLERANCE):
    global failures
    ok = worst <= limit
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {what}: {worst:.3g}")


def run(*args, **kw):
    r = subprocess.run([DUMP, *map(str, args)], capture_output=True, text=True, **kw)
    if r.returncode != 0:
        sys.exit(f"dump_logits {' '.join(map(str, args))}: {r.stderr}")
    return r.stdout


def same_weights(name, path, model):
    ours = load_file(path / "model.safetensors")
    theirs = model.state_dict()
    unknown = sorted(set(ours) ^ (set(theirs) - ({"lm_head.weight"} if model.config.tie_word_embeddings else set())))
    worst = max(float(np.abs(ours[k] - theirs[k].numpy()).max()) for k in ours)
    report(f"{name}: {len(ours)} tensors, names that differ {unknown}, largest difference", worst + len(unknown), 0)


def same_outputs(name, path, model, vocab, regression=False):
    rng = random.Random(3)
    rows = [[1] + [rng.randrange(3, vocab) for _ in range(n)] for n in (0, 1, 5, 30, 120)]
    got = [np.array(line.split(), dtype=np.float64) for line in run("outputs", path, input="\n".join(" ".join(map(str, r)) for r in rows) + "\n").splitlines()]
    model = model.double()
    worst = spread = 0.0
    for row, g in zip(rows, got):
        with torch.no_grad():
            logits = model(torch.tensor([row])).logits[0]
        want = logits if regression else torch.log_softmax(logits[-1], -1)
        assert want.shape[-1] == len(g)
        worst = max(worst, float(np.abs(want.numpy() - g).max()))
        spread = max(spread, float(np.ptp(want.numpy())))
    assert len(got) == len(rows)
    report(f"{name}: outputs over {len(rows)} sequences (spread {spread:.3g}), largest difference", worst)


def check(name, path, kind, vocab):
    model, info = kind.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    model.eval()
    problems = [k for k, v in info.items() if v]
    report(f"{name}: loads as {kind.__name__}, complaints {problems}", len(problems), 0)
    same_weights(name, path, model)
    same_outputs(name, path, model, vocab, kind is LlamaForSequenceClassification)
    return model


def main():
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        check("shipped stories260K", STORIES, LlamaForCausalLM, 512)
        run("save", STORIES, work / "plain")
        check("written again", work / "plain", LlamaForCausalLM, 512)
        run("save", STORIES, work / "grown", "grow=600")
        check("grown vocabulary", work / "grown", LlamaForCausalLM, 600)
        run("save", STORIES, work / "score", "regression=5")
        model = check("regression", work / "score", LlamaForSequenceClassification, 512)
        assert model.config.num_labels == 5 and model.config.problem_type == "regression"
        for i, (dims, tied) in enumerate([("300,48,3,4,2,12,100", "untied"), ("300,48,3,4,1,20,100", "tied"), ("64,16,1,1,1,16,8", "untied")]):
            run("random", work / f"random{i}", dims, tied)
            check(f"random {dims} {tied}", work / f"random{i}", LlamaForCausalLM, int(dims.split(",")[0]))
        tok = AutoTokenizer.from_pretrained(work / "plain")
        text = "Once upon a time, there was a little girl named Lily."
        want = next(c["ids"] for c in json.load(open(ROOT / "tests/data/stories260K/reference.json"))["cases"] if c["text"] == text)
        report("AutoTokenizer of what we wrote gives the reference ids", float(tok(text)["input_ids"] != want), 0)
        report("AutoTokenizer decodes", float(tok.decode(want, skip_special_tokens=True) != text), 0)
        torch.manual_seed(1)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):  # what transformers writes, read by us; in shards too
            config = LlamaConfig(vocab_size=200, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                                 num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=dtype == torch.float16)
            model = LlamaForCausalLM(config).to(dtype)
            path = work / str(dtype)
            model.save_pretrained(path, max_shard_size="30KB" if dtype == torch.bfloat16 else "5GB")
            same_outputs(f"written by transformers as {dtype}, {len(list(path.glob('*.safetensors')))} files", path, model.eval(), 200)
    sys.exit(failures != 0)


main()
