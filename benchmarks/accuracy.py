"""Strict entity F1 on BC5CDR by recipe: where the attention is unmasked, and how many layers are adapted, against time.

    python benchmarks/accuracy.py --base BASE --data DATA --output benchmarks/results/accuracy.json

Each recipe is configs/bc5cdr.cfg with a few settings changed, for three seeds. So that all fit into an evening, a run
goes over the training texts once, where that config sees them joined in four ways; with the top third adapted, on
cached states, three times in about the same time. The threshold is chosen on a third of the dev split, and the test
split is scored once. One run a core, each with one thread: the seconds of training compare within the file. All recipes
with one seed, then with the next; the file is written after each run, and a run that it holds is not done again. The
peer is what scispaCy 0.5.4 reports for en_ner_bc5cdr_md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from statistics import median

import torch
from common import HERE, cpu, depth, parse, save

CONFIG = HERE.parent / "configs" / "bc5cdr.cfg"
PEER = 0.8428
ALL = {"training.max_epochs": 1, "training.eval_frequency": 0, "corpora.dev.limit": 80}
QUICK = {"training.max_epochs": 0, "training.max_steps": 2}


def recipes(base: Path) -> dict[str, dict[str, object]]:
    """What is changed in the config, by the recipe's name."""
    first, third = "components.qlora_ner.bidirectional_from", depth(base) // 3
    return {
        "causal": {first: "null"},
        "unmasked": {first: 0},
        "unmasked top half": {},
        "unmasked top third, alone adapted": {"components.qlora_ner.adapted_layers": third, "training.max_epochs": 3},
    }


def main() -> None:
    args = parse(__doc__)
    settings = {name: ALL | changed | (QUICK if args.quick else {}) for name, changed in recipes(args.base).items()}
    runs = json.loads(args.output.read_text())["runs"] if args.output.exists() else {}
    done = {(run["seed"], name) for name, found in runs.items() for run in found}
    todo = [each for each in product(range(1 if args.quick else 3), settings) if each not in done]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(torch.get_num_threads()) as jobs:
        corpus = convert(args.data.resolve(), Path(folder) / "corpus")

        def run(seed: int, name: str) -> tuple[str, dict]:
            overrides = {"paths.base": args.base.resolve(), "system.seed": seed, **settings[name]}
            with tempfile.TemporaryDirectory(dir=folder) as output:
                return name, {"seed": seed, **score(Path(output), corpus, overrides)}

        try:
            for finished in as_completed([jobs.submit(run, *each) for each in todo]):
                name, found = finished.result()
                runs.setdefault(name, []).append(found)
                save(args.output, [row(name, found) for name, found in runs.items()], runs)
        finally:
            jobs.shutdown(cancel_futures=True)  # after a failure, hours of runs would follow


def row(name: str, runs: list[dict]) -> dict:
    f1 = median(run["ents_f"] for run in runs)
    return {"name": name, "ours": round(f1, 4), "peer": PEER, "ratio": round(f1 / PEER, 3), "unit": "strict F1"}


def convert(data: Path, corpus: Path) -> Path:
    splits = [part for name in ("train", "dev", "test") for part in (f"--{name}", data / f"{name}.jsonl")]
    spacy(["qlora", "convert", *splits, "--join", 400, corpus])
    return corpus


def score(folder: Path, corpus: Path, overrides: dict[str, object]) -> dict[str, float | str]:
    """One run. RETURNS: Scores on both splits, and the seconds that training took, on which processor."""
    settings = [part for key, value in overrides.items() for part in (f"--{key}", value)]
    paths = ["--paths.train", corpus / "train.spacy", "--paths.dev", corpus / "dev.spacy"]
    environment = {"OMP_NUM_THREADS": "1", "SPACY_QLORA_CACHE": str(folder / "cache")}
    start = time.perf_counter()
    spacy(["qlora", "train", CONFIG, "--output", folder, *paths, *settings], environment)
    seconds = time.perf_counter() - start
    best, metrics = folder / "model-best", folder / "metrics.json"
    spacy(["qlora", "evaluate", best, corpus / "test.spacy", "--output", metrics], environment)
    dev = json.loads((best / "meta.json").read_text())["performance"]["ents_f"]
    test = json.loads(metrics.read_text())
    scores = {key: round(test[key], 4) for key in ("ents_p", "ents_r", "ents_f")}
    return {"dev_f": round(dev, 4), **scores, "train_s": round(seconds), "cpu": cpu()}


def spacy(arguments: Iterable[object], environment: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "spacy", *map(str, arguments)]
    subprocess.run(command, env=os.environ | (environment or {}), check=True)


if __name__ == "__main__":
    main()
