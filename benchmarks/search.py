"""Hyper-parameter search on the demo corpus: 12 trials by two processes, one of them killed and started anew.

    python benchmarks/search.py --base BASE --output benchmarks/results/search.json

5,000 made-up sentences. The trials vary configs/default.cfg; then that config and best.cfg are trained by themselves.
Each process has one thread, so that two cores do: 30 minutes are allowed for the search.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import HERE, parse, save

from spacy_qlora.training.history import read_history

ROOT = HERE.parent
DEFAULT = ROOT / "configs" / "default.cfg"
ALLOWED = 30  # minutes


def main() -> None:
    args = parse(__doc__, data=False)
    sentences, trials, pause = (100, 4, 1) if args.quick else (5000, 12, 10)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        paths = [*make_corpus(folder, sentences), "--paths.base", args.base.resolve()]
        begun = time.perf_counter()
        search([DEFAULT, "--output", folder / "search", "--trials", trials, *paths], pause)
        minutes = (time.perf_counter() - begun) / 60
        with (folder / "search" / "trials.csv").open() as file:
            rows = list(csv.DictReader(file))
        best = json.loads((folder / "search" / "search.json").read_text())["best"]["score"]
        runs = {"given": [DEFAULT, *paths], "again": [folder / "search" / "best.cfg"]}
        given, again = train(folder, runs)
    results = [
        row(f"dev F1, best of {trials} trials against the config as given", best, given, "strict F1"),
        row("dev F1, best.cfg trained again against its trial", again, best, "strict F1"),
        row("the search, against what is allowed", minutes, ALLOWED, "minutes"),
    ]
    save(args.output, results, {"trials": rows})


def row(name: str, ours: float, other: float, unit: str) -> dict:
    ratio = round(ours / other, 4) if other else 0.0
    return {"name": name, "ours": round(ours, 4), "peer": round(other, 4), "ratio": ratio, "unit": unit}


def make_corpus(folder: Path, sentences: int) -> list[object]:
    """RETURNS: The arguments that name it."""
    program = ROOT / "scripts" / "make_corpus.py"
    subprocess.run([sys.executable, program, folder / "demo", "--sentences", str(sentences)], check=True)
    splits = [part for name in ("train", "dev", "test") for part in (f"--{name}", folder / "demo" / f"{name}.json")]
    finish(spacy("convert", *splits, folder / "corpus"))
    return ["--paths.train", folder / "corpus" / "train.spacy", "--paths.dev", folder / "corpus" / "dev.spacy"]


def search(arguments: list[object], pause: float) -> None:
    """By two processes; the first is killed so many seconds after it has finished a trial, within its next."""
    first, second = (spacy("search", *arguments) for _ in range(2))
    assert first.stdout is not None
    next(line for line in first.stdout if line.startswith("Trial "))
    time.sleep(pause)
    first.kill()
    first.wait()
    print("killed one of two processes", flush=True)
    finish(spacy("search", *arguments), second)


def train(folder: Path, runs: dict[str, list[object]]) -> list[float]:
    """All at the same time. RETURNS: The best F1 of each on the dev split, without a threshold, as of the trials."""
    finish(*(spacy("train", *given, "--output", folder / name) for name, given in runs.items()))
    return [max(each.score for each in read_history(folder / name / "history.jsonl")) for name in runs]


def spacy(command: str, *arguments: object) -> subprocess.Popen[str]:
    """Begins `python -m spacy qlora COMMAND`, on one thread."""
    words = [sys.executable, "-m", "spacy", "qlora", command, *map(str, arguments)]
    return subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True)


def finish(*processes: subprocess.Popen[str]) -> None:
    """Waits for all and shows what they print, one after another. Raises CalledProcessError where one fails."""
    for process in processes:
        output, _ = process.communicate()
        print(output, flush=True)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)


if __name__ == "__main__":
    main()
