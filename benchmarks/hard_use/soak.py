"""Memory while many docs pass through nlp.pipe, and for one long doc against a short one.

python benchmarks/hard_use/soak.py --base BASE --data DATA [--docs 50000]
"""

from __future__ import annotations

import subprocess
import sys
from itertools import cycle, islice
from pathlib import Path

import torch
from common import finish, make_pipeline, parse, read_docs
from tqdm import tqdm

from spacy_qlora.engine.memory import MIB, peak_memory

WARM, EVERY = 0.1, 500  # share of the docs that may still let memory grow; docs between two looks
GROWTH, LONG = 1.05, 2.0


def main() -> None:
    args = parse(
        __doc__,
        docs={"type": int, "default": 50_000},
        words={"type": int, "help": "one doc of so many, and its memory"},
    )
    gold = read_docs(args.data / "bc5cdr" / "train.jsonl")
    nlp = make_pipeline(args.base, gold, layers=2 if args.quick else None)
    if args.words:
        words = cycle(token.text for doc in gold for token in doc)
        nlp.max_length = 10**8
        nlp(" ".join(islice(words, args.words)))
        print(round(peak_memory(torch.device("cpu")) / MIB))
        return
    count = 2000 if args.quick else args.docs
    texts = islice(cycle(doc.text for doc in gold), count)
    sizes = []
    for i, _ in enumerate(nlp.pipe(tqdm(texts, total=count, unit=" docs"))):
        if i % EVERY == EVERY - 1:
            sizes.append(resident())
    warm = sizes[max(1, int(len(sizes) * WARM)) - 1]
    short, long = (measured(words) for words in (1000, 10_000 if args.quick else 100_000))
    passed = max(sizes) <= GROWTH * warm and long <= LONG * short
    finish(
        passed,
        docs=count,
        warm_mib=warm,
        most_mib=max(sizes),
        last_mib=sizes[-1],
        mib=sizes[:: max(1, len(sizes) // 10)],
        short_mib=short,
        long_mib=long,
    )


def resident() -> int:
    """MiB of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // MIB


def measured(words: int) -> int:
    """The highest memory of a process of its own that reads one doc, in MiB."""
    done = subprocess.run(
        [sys.executable, *sys.argv, "--words", str(words)], stdout=subprocess.PIPE, text=True, check=True
    )
    return int(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
