#!/usr/bin/env python3
"""Our tokenizers against the `tokenizers` package from PyPI, on random strings; an oracle, not part of `make check`.

usage: make build/release/tests/golden/dump_tokens; check_tokenizers.py [--gguf VOCAB.gguf REFERENCE.inp REFERENCE.out]
Needs `pip install tokenizers` and zstd. --gguf: also a SentencePiece-kind vocabulary of llama.cpp with its reference ids.
"""
import json
import random
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
DUMP = ROOT / "build/release/tests/golden/dump_tokens"
PIECES = ["the ", "a", " ", "  ", "ee", "\n", "\r\n", "é", "e\u0301", "ing", ". ", "<s>", "</s>", "<unk>", "<x:1>", "<x: none>", "Lily", "🦙", "0x41", "<0x41>", "\t",
          "'s", "'LL", "don't", "’", "12345", "３", "½", "你好", "العربية", "\u00a0", "\u3000", "\u2028", "\u180e", "_", "!!", "...", "ABC", "ſ", "\u1100\u1161\u11a8",
          "\x00"[:0], "\x7f", "\u200d", "\ufeff", "Å", "\u212b", "ﬁ", "=", "====", "    ", "\t\t", "https://", "aaaa", "ababab"]


def texts(seed, count):
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        if rng.random() < 0.2:
            out.append("".join(chr(rng.choice([rng.randrange(1, 0xD800), rng.randrange(0xE000, 0x3000 + 0xE000), rng.randrange(0x10000, 0x1F000)]))
                               for _ in range(rng.randrange(30))))
        elif rng.random() < 0.5:
            out.append("".join(rng.choice(PIECES) for _ in range(rng.randrange(40))))
        else:
            words = (ROOT / "models/stories260K/README.md").read_text().split(" ")
            at = rng.randrange(len(words))
            out.append(" ".join(words[at:at + rng.randrange(60)]))
    return out


def ours(command, path, lines, *args):
    r = subprocess.run([DUMP, command, path, *args], input="\n".join(lines) + "\n", capture_output=True, text=True)
    if r.returncode != 0:
        sys.exit(f"{path}: {r.stderr}")
    return r.stdout.split("\n")[:-1]


def compare(name, path, ours_path=None, count=4000, special=False):
    reference = Tokenizer.from_file(str(path))
    lines = [t for t in texts(1, count)]
    added = [t.content for t in reference.get_added_tokens_decoder().values()]
    if not special:  # the package always looks for added tokens; ours only on request
        lines = [t for t in lines if not any(a in t for a in added)]
    start = time.time()
    got = ours("encode", ours_path or path, [json.dumps(t, ensure_ascii=False) for t in lines], "1" if special else "0")
    assert len(got) == len(lines) > count // 2
    bad = 0
    for text, line in zip(lines, got):
        want = reference.encode(text, add_special_tokens=False).ids
        if [int(x) for x in line.split()] != want:
            bad += 1
            if bad <= 3:
                print("  differs:", json.dumps(text), line.split()[:20], want[:20])
    print(f"{name}{' (special)' if special else ''}: {len(lines)} texts, {bad} differ, {time.time() - start:.1f} s")
    return bad


def read_gguf(path):
    data = open(path, "rb").read()
    at = 0

    def take(fmt):
        nonlocal at
        value = struct.unpack_from("<" + fmt, data, at)[0]
        at += struct.calcsize("<" + fmt)
        return value

    def text():
        nonlocal at
        n = take("Q")
        at += n
        return data[at - n:at]

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            inner, n = take("I"), take("Q")
            return [value(inner) for _ in range(n)]
        return take({0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}[kind])

    assert data[:4] == b"GGUF"
    at = 8
    take("Q")
    out = {}
    for _ in range(take("Q")):
        key = text().decode()
        out[key] = value(take("I"))
    return out


def check_gguf(work, path, inp, expected):
    """The vocabulary as llama2.c tokenizer.bin (without the tokens added after the first 32,000), then as our tokenizer.json."""
    g = read_gguf(path)
    tokens, scores = g["tokenizer.ggml.tokens"][:32000], g["tokenizer.ggml.scores"][:32000]
    out = bytearray(struct.pack("<I", max(map(len, tokens))))
    for i, (token, score) in enumerate(zip(tokens, scores)):
        text = token.decode().replace("\u2581", " ").encode()
        if i in (1, 2):
            text = b"\n" + text + b"\n"
        out += struct.pack("<fI", score, len(text)) + text
    bin_path = work / "gguf.bin"
    bin_path.write_bytes(out)
    subprocess.run([DUMP, "write", bin_path, work / "gguf"], check=True)
    cases = open(inp, encoding="utf-8", newline="").read().split("\n__ggml_vocab_test__\n")[:-1]
    want = [[int(x) for x in line.split()] for line in open(expected)]
    bad = 0
    for file in (bin_path, work / "gguf/tokenizer.json"):
        got = ours("encode", file, [json.dumps(c) for c in cases], "0")
        wrong = [c for c, g, w in zip(cases, got, want) if [int(x) for x in g.split()] != w]
        print(f"{file.name} against llama.cpp's reference: {len(cases)} texts, {len(wrong)} differ {wrong[:3]}")
        bad += len(wrong)
    return bad + compare("gguf written by us", work / "gguf/tokenizer.json") + compare(
        "gguf tokenizer.bin", work / "gguf/tokenizer.json", bin_path)


def main():
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        source = ROOT / "models/stories260K/tokenizer.bin"
        subprocess.run([DUMP, "write", source, work / "stories"], check=True)
        bad += compare("stories260K written by us", work / "stories/tokenizer.json")
        bad += compare("stories260K tokenizer.bin", work / "stories/tokenizer.json", source)
        subprocess.run([DUMP, "write", source, work / "added", "<x:1>", "<x: none>"], check=True)
        bad += compare("with added tokens", work / "added/tokenizer.json", special=True)
        (work / "gpt2").mkdir()
        subprocess.run(["zstd", "-qd", ROOT / "tests/data/tokenizers/gpt2.tokenizer.json.zst", "-o", work / "gpt2/tokenizer.json"], check=True)
        bad += compare("gpt2", work / "gpt2/tokenizer.json")
        subprocess.run([DUMP, "write", work / "gpt2", work / "gpt2+", "<x:1>", "<x: none>"], check=True)
        bad += compare("gpt2 with added tokens", work / "gpt2+/tokenizer.json", special=True)
        subprocess.run([DUMP, "write", "synthetic:500", work / "synthetic", "<x:1>"], check=True)
        bad += compare("synthetic", work / "synthetic/tokenizer.json", special=True)
        base = json.load(open(work / "gpt2/tokenizer.json", encoding="utf-8"))
        for v in json.load(open(ROOT / "tests/data/tokenizers/variants.json")):
            base.update(normalizer=v["normalizer"], pre_tokenizer=v["pre_tokenizer"])
            base["model"]["ignore_merges"] = v["model"].get("ignore_merges", False)
            (work / "variant.json").write_text(json.dumps(base, ensure_ascii=False))
            bad += compare(v["name"], work / "variant.json")
        for scheme in ("always", "first", "never"):
            meta = json.load(open(work / "added/tokenizer.json", encoding="utf-8"))
            meta.update(normalizer=None, pre_tokenizer={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": False})
            (work / "meta.json").write_text(json.dumps(meta, ensure_ascii=False))
            bad += compare("Metaspace " + scheme, work / "meta.json", special=True)
        if "--gguf" in sys.argv:
            bad += check_gguf(work, *sys.argv[sys.argv.index("--gguf") + 1:][:3])
    sys.exit(bad != 0)


main()
