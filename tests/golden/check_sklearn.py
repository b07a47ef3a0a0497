#!/usr/bin/env python3
"""The bag-of-words baseline of common/eval against scikit-learn, on Topical-Chat with 10 % of the conversations held out.

  python3 -m venv /tmp/venv-sk && /tmp/venv-sk/bin/pip install scikit-learn
  make build/release/tests/bench/bench_tfidf
  /tmp/venv-sk/bin/python tests/golden/check_sklearn.py data/topical-chat.jsonl.gz build/release/tests/bench/bench_tfidf

Exit 0 if accuracy, kappa, macro F1 and AUC agree within 0.003 (both solve the same convex problem; they stop at different
gradients). Printed with scikit-learn 1.9.1, Python 3.11:
  sentiment scikit-learn {'accuracy': 0.5173, 'kappa': 0.2681, 'macro_f1': 0.4343, 'auc_last': 0.7717, 'features': 62136, 'ms': 6408}
  sentiment ours {'accuracy': 0.5179, 'kappa': 0.2691, 'macro_f1': 0.4354, 'auc_last': 0.7717, 'features': 62136, 'iterations': 279, 'objective': 30918.9106, 'ms': 3977, 'fit_ms': 3859}
  personal scikit-learn {'accuracy': 0.8967, 'kappa': 0.2806, 'macro_f1': 0.6302, 'auc_last': 0.7882, 'features': 63989, 'ms': 1504}
  personal ours {'accuracy': 0.8965, 'kappa': 0.2777, 'macro_f1': 0.6286, 'auc_last': 0.789, 'features': 63989, 'iterations': 125, 'objective': 10236.4921, 'ms': 1139, 'fit_ms': 1006}
  agree
"""
import gzip
import json
import random
import re
import subprocess
import sys
import tempfile
import time

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, roc_auc_score

MOODS = {"Neutral": 0, "Curious to dive deeper": 1, "Happy": 2, "Surprised": 3}


def rows(path):
    """(held out?, mood or -1, personal?, text) of every message."""
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as f:
        talks = [json.loads(line) for line in f]
    order = sorted(range(len(talks)), key=lambda i: talks[i]["conversation_id"])
    held = set(random.Random(1).sample(order, len(talks) // 10))
    for i, talk in enumerate(talks):
        for turn in talk["content"]:
            text = turn["message"].translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'})
            text = " ".join(text.encode("ascii", "ignore").decode().split())
            yield i in held, MOODS.get(turn["sentiment"], -1), int(turn["knowledge_source"] == ["Personal Knowledge"]), text


def reference(train, test):
    start = time.time()
    vec = TfidfVectorizer(ngram_range=(1, 2), min_df=2, lowercase=True, token_pattern=r"[a-z0-9']+|[?!]")
    train = [r for r in train if r[0] >= 0]
    x = vec.fit_transform(t for _, t in train)
    model = LogisticRegression(C=1.0, max_iter=1000).fit(x, [y for y, _ in train])
    test = [r for r in test if r[0] >= 0]
    p = model.predict_proba(vec.transform(t for _, t in test))
    y = [y for y, _ in test]
    guess = p.argmax(1)
    return {"accuracy": accuracy_score(y, guess), "kappa": cohen_kappa_score(y, guess),
            "macro_f1": f1_score(y, guess, average="macro"),
            "auc_last": roc_auc_score([v == p.shape[1] - 1 for v in y], p[:, -1]),
            "features": x.shape[1], "ms": round(1000 * (time.time() - start))}


def ours(program, train, test):
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as f:
        for part, some in (("train", train), ("test", test)):
            for y, text in some:
                if y >= 0:
                    f.write(f"{part}\t{y}\t{text}\n")
        f.flush()
        return json.loads(subprocess.check_output([program, f.name]))


def main():
    data, program = sys.argv[1:3]
    every = [r for r in rows(data) if re.search(r"\S", r[3])]
    bad = 0
    for name, column in (("sentiment", 1), ("personal", 2)):
        train = [(r[column], r[3]) for r in every if not r[0]]
        test = [(r[column], r[3]) for r in every if r[0]]
        a, b = reference(train, test), ours(program, train, test)
        for who, x in (("scikit-learn", a), ("ours", b)):
            print(name, who, {k: round(v, 4) for k, v in x.items()})
        bad += a["features"] != b["features"]
        bad += sum(abs(a[k] - b[k]) > 0.003 for k in ("accuracy", "kappa", "macro_f1", "auc_last"))
    print("agree" if bad == 0 else f"{bad} differences")
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
