"""Training runs killed at random moments, while they save too, and resumed until they end: byte for byte the same.

    python benchmarks/hard_use/kill_resume.py --base BASE --data DATA [--runs 20]

Two layers of the base, a state saved at nearly every step, an evaluation every few.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import finish, parse, read_docs
from spacy.tokens import DocBin

CONFIG = Path(__file__).parents[2] / "configs" / "default.cfg"
SETTINGS = {
    "components.qlora_ner.layers": 2, "training.max_epochs": 0, "training.max_steps": 60, "training.eval_frequency": 20,
    "qlora.batch_pieces": 256, "qlora.checkpoint_minutes": 1e-6,
}  # fmt: skip
WEIGHTS = ("adapter/adapter_model.safetensors", "head.safetensors")


def main() -> None:
    args = parse(__doc__, runs={"type": int, "default": 20}, seed={"type": int, "default": 0})
    chance, equal, kills = random.Random(args.seed), 0, 0
    runs = 2 if args.quick else args.runs
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("train", "dev"):
            docs = read_docs(args.data / "bc5cdr" / f"{name}.jsonl", 200 if name == "train" else 40)
            DocBin(docs=docs).to_disk(folder / f"{name}.spacy")
        start = time.monotonic()
        train(folder, "undisturbed", args.base).communicate()
        usual = time.monotonic() - start
        expected = weights(folder / "undisturbed")
        for i in range(runs):
            output = f"run{i}"
            while True:
                process = train(folder, output, args.base)
                try:
                    process.wait(timeout=chance.uniform(0.2, 1.0) * usual)
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    kills += 1
            equal += process.returncode == 0 and weights(folder / output) == expected
            print(f"run {i + 1}: {equal} equal, {kills} kills so far", flush=True)
    finish(
        equal == runs and kills >= runs / 2, runs=runs, kills=kills, equal=equal, seconds_undisturbed=round(usual, 1)
    )


def train(folder: Path, output: str, base: str) -> subprocess.Popen:
    paths = {"train": folder / "train.spacy", "dev": folder / "dev.spacy", "base": Path(base).resolve()}
    settings = {**{f"paths.{name}": path for name, path in paths.items()}, **SETTINGS}
    command = [sys.executable, "-m", "spacy", "qlora", "train", CONFIG, "--output", folder / output]
    command += [part for name, value in settings.items() for part in (f"--{name}", value)]
    state = folder / output / "checkpoint"
    command += ["--resume"] if list(state.glob("*.safetensors")) else []
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def weights(output: Path) -> list[bytes]:
    best = (output / "model-last" / "qlora_ner", output / "model-best" / "qlora_ner")
    return [(folder / name).read_bytes() for folder in best for name in WEIGHTS]


if __name__ == "__main__":
    main()
