"""What the comparisons share: arguments, both sides as processes, figures in a file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import torch
from transformers import MistralModel, PreTrainedTokenizerFast

from spacy_qlora.engine.base import dequantize, load_base

HERE = Path(__file__).parent
VERSIONS = ("spacy-qlora", "torch", "transformers", "peft", "bitsandbytes", "spacy")


def parse(description: str | None, data: bool = True) -> argparse.Namespace:
    """data: Whether the program reads a corpus."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="a folder that `python -m spacy qlora base` made")
    if data:
        parser.add_argument(
            "--data", type=Path, required=True, help="a folder of train.jsonl and dev.jsonl, in BIO-JSON"
        )
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument(
        "--quick", action="store_true", help="few texts, one round: shows that it runs, measures nothing"
    )
    return parser.parse_args()


@contextmanager
def stock_checkpoint(base: Path) -> Iterator[Path]:
    """A checkpoint for the stock libraries, in a temporary folder: the weights of a base, no longer in 4 bits."""
    loaded = load_base(base, torch.device("cpu"), torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        with torch.device("meta"):
            model = MistralModel(loaded.config)
        model.load_state_dict({f"{name}.weight": dequantize(leaf) for name, leaf in loaded.leaves.items()}, assign=True)
        model.save_pretrained(folder)
        first = loaded.tokenizer.id_to_token(loaded.config.bos_token_id or 0)
        PreTrainedTokenizerFast(tokenizer_object=loaded.tokenizer, pad_token=first).save_pretrained(folder)
        yield Path(folder)


@dataclass(frozen=True)
class Side:
    """One program of a comparison.  name: For the file.  arguments: Of the program, which prints a line of JSON."""

    name: str
    arguments: tuple[object, ...]

    def run(self) -> dict[str, float]:
        """What the program prints in the end. Raises CalledProcessError where it fails."""
        print(f"{self.name} ...", end=" ", flush=True)
        command = [sys.executable, *map(str, self.arguments)]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(found, flush=True)
        return found


def depth(base: Path) -> int:
    """Layers of a base."""
    return json.loads((base / "config.json").read_text())["num_hidden_layers"]


def ours(command: str, *arguments: object) -> Side:
    return Side(f"ours {command}", (HERE / "own.py", command, *arguments))


def peer(name: str, command: str, *arguments: object) -> Side:
    return Side(name, (HERE / "hf_peer.py", command, *arguments))


def alternate(own: Side, others: list[Side], rounds: int) -> tuple[list[dict[str, float]], list[list[dict]]]:
    """Runs our side before each of the others, so often. RETURNS: What ours printed, and each of the others."""
    mine: list[dict[str, float]] = []
    theirs: list[list[dict[str, float]]] = [[] for _ in others]
    for _ in range(rounds):
        for side, runs in zip(others, theirs, strict=True):
            mine.append(own.run())
            runs.append(side.run())
    return mine, theirs


def compare(name: str, mine: list[dict[str, float]], theirs: list[dict[str, float]], key: str, unit: str) -> dict:
    """RETURNS: A row of results: the medians of `key`, and ours as a multiple of the peer's."""
    own, other = (round(median(run[key] for run in runs), 2) for runs in (mine, theirs))
    return {"name": name, "ours": own, "peer": other, "ratio": round(own / other, 2), "unit": unit}


def save(output: Path, results: list[dict], runs: dict[str, list]) -> None:
    """Writes the figures with the machine and the versions they were measured on, and prints them."""
    machine = {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }
    versions = {name: find_version(name) for name in VERSIONS}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(
        json.dumps({"machine": machine, "versions": versions, "results": results, "runs": runs}, indent=1) + "\n"
    )
    for row in results:
        compared = f" against {row['peer']:,}, {row['ratio']} times" if row["peer"] else ""
        print(f"{row['name']}: {row['ours']:,} {row['unit']}{compared}")


def find_version(name: str) -> str | None:
    """None where it is not installed: the programs for a GPU need no spaCy."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
