"""Strict entity F1 on BC5CDR by recipe: where the attention is unmasked, and how many layers are adapted, against time.

    python benchmarks/accuracy.py --base BASE --data DATA --output benchmarks/results/accuracy.json

Each recipe is configs/bc5cdr.cfg with a few settings changed, for three seeds. Neighbouring sentences are joined to
docs of at most 400 words, but for one recipe. The pipeline that was best on the dev split is scored on the test split,
once, and on the dev split in lone sentences. Takes hours: all recipes with one seed, then with the next. The file is
written after each run, and a run that it holds is not done again. The peer is what scispaCy 0.5.4 reports for
en_ner_bc5cdr_md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import median

from common import HERE, cpu, depth, parse, save

CONFIG = HERE.parent / "configs" / "bc5cdr.cfg"
PEER = 0.8428
JOINED = ("--join", 400, "--views", 4)
APART = "unmasked, sentences apart"
QUICK = {"training.max_steps": 2, "training.max_epochs": 0}


def recipes(base: Path) -> dict[str, dict[str, object]]:
    """What is changed in the config, by the recipe's name."""
    component = "components.qlora_ner"
    return {
        "unmasked": {},
        "causal": {f"{component}.bidirectional_from": "null"},
        "unmasked top half": {f"{component}.bidirectional_from": depth(base) // 2},
        "unmasked, top third adapted": {f"{component}.adapted_layers": depth(base) // 3},
        APART: {"training.max_epochs": 4},
    }


def main() -> None:
    args = parse(__doc__)
    runs = json.loads(args.output.read_text())["runs"] if args.output.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        joined = convert(args.data.resolve(), Path(folder) / "joined", *JOINED)
        apart = convert(args.data.resolve(), Path(folder) / "apart")
        for seed, (name, settings) in product(range(1 if args.quick else 3), recipes(args.base).items()):
            found = runs.setdefault(name, [])
            if len(found) > seed:
                continue
            overrides: dict[str, object] = {"paths.base": args.base.resolve(), "system.seed": seed}
            overrides["qlora.compile"] = "true"
            overrides |= settings | (QUICK if args.quick else {})
            found.append(score(Path(folder), apart if name == APART else joined, apart, overrides))
            save(args.output, [row(name, found) for name, found in runs.items() if found], runs)


def row(name: str, runs: list[dict]) -> dict:
    f1 = median(run["ents_f"] for run in runs)
    return {"name": name, "ours": round(f1, 4), "peer": PEER, "ratio": round(f1 / PEER, 3), "unit": "strict F1"}


def convert(data: Path, corpus: Path, *join: object) -> Path:
    splits = [part for name in ("train", "dev", "test") for part in (f"--{name}", data / f"{name}.jsonl")]
    spacy("qlora", "convert", *splits, *join, corpus)
    return corpus


def score(folder: Path, corpus: Path, apart: Path, overrides: dict[str, object]) -> dict[str, float | str]:
    """One run. RETURNS: Scores on both splits, and the seconds that training took, on which processor."""
    settings = [part for key, value in overrides.items() for part in (f"--{key}", value)]
    paths = ["--paths.train", corpus / "train.spacy", "--paths.dev", corpus / "dev.spacy"]
    start = time.perf_counter()
    spacy("qlora", "train", CONFIG, "--output", folder / "training", *paths, *settings)
    seconds = time.perf_counter() - start
    best = folder / "training" / "model-best"
    dev = json.loads((best / "meta.json").read_text())["performance"]["ents_f"]
    alone, test = (evaluate(best, data) for data in (apart / "dev.spacy", corpus / "test.spacy"))
    scores = {key: test[key] for key in ("ents_p", "ents_r", "ents_f")}
    return {"dev_f": dev, "dev_alone_f": alone["ents_f"], **scores, "train_s": round(seconds), "cpu": cpu()}


def evaluate(model: Path, data: Path) -> dict[str, float]:
    output = model.parent / "metrics.json"
    spacy("qlora", "evaluate", model, data, "--output", output)
    return json.loads(output.read_text())


def spacy(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "spacy", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
