#!/usr/bin/env python3
"""Makes tests/data/tokenizers/variants.json: what the `tokenizers` package (0.23.3) gives for GPT-2's vocabulary under each
normalizer and pre-tokenizer that we run. Needs `pip install tokenizers` and the unpacked gpt2.tokenizer.json.

usage: make_tokenizers.py gpt2.tokenizer.json > tests/data/tokenizers/variants.json
"""
import json
import sys

from tokenizers import Tokenizer

HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(regex, prefix=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def split(regex):
    return {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}, byte_level(False)]}


VARIANTS = {
    "gpt2": (None, byte_level(True), {}),
    "gpt2 prefix": (None, byte_level(True, True), {}),
    "gpt2 NFC": ({"type": "NFC"}, byte_level(True), {}),
    "llama3": (None, split(HEAD + r"\p{N}{1,3}" + TAIL), {"ignore_merges": True}),
    "qwen2": ({"type": "NFC"}, split(HEAD + r"\p{N}" + TAIL), {}),
    "smollm2": (None, {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True}, byte_level(True)]}, {}),
    "digit runs": (None, {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": False}, byte_level(True)]}, {}),
    "no regex": (None, byte_level(False), {}),
}
TEXTS = [
    "", " ", "   ", "Hello world", " Hello  World!", "I'm here, you'RE there; we'd've gone 'S'", "it\u2019s 3,141,592.65 \u00b2\u2155 \u0663\u0664",
    "a\tb\r\n\r\n  c\n \n d   ", "x\u180ey \u3000\u00a0 z\u0085w\u2028v", "Cafe\u0301 A\u030angstrom \u212b \u1e9b\u0323", "\u1100\u1161\u11a8 \uac01",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002123456789", "\U0001f680\U0001f44d\U0001f3fd\u200d\u2642\ufe0f!!", "'\u017f \u017f's 'LL", "  5 apples  55  555  5555",
    "snake_case camelCase __init__(self, *args)", "https://example.org/a?b=c&d=%20#e", "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e9\u05dc\u05d5\u05dd",
    "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 \u0915\u094d\u0937", "<|endoftext|", "a" * 60 + "!" * 60, "\n" * 7 + " " * 9 + "\t" * 3, "e\u0301" * 9, "1\u20442 \u2160\u2161 \u2460",
]


def main():
    base = json.load(open(sys.argv[1], encoding="utf-8"))
    out = []
    for name, (normalizer, pre, model) in VARIANTS.items():
        base["normalizer"], base["pre_tokenizer"] = normalizer, pre
        base["model"].update(ignore_merges=False)
        base["model"].update(model)
        t = Tokenizer.from_str(json.dumps(base))
        out.append({"name": name, "normalizer": normalizer, "pre_tokenizer": pre, "model": model,
                    "cases": [{"text": x, "ids": t.encode(x).ids} for x in TEXTS]})
    json.dump(out, sys.stdout, ensure_ascii=True, separators=(",", ":"))
    print()


main()
