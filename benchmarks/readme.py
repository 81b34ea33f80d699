"""Writes the measured tables of the two README.md and of pages under docs/ from the files under benchmarks/results/.

python benchmarks/readme.py [--check]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
RESULTS = HERE / "results"
START, END = "<!-- measured: benchmarks/readme.py -->", "<!-- measured: end -->"
CORPORA = {
    "demo": ("demo (made up)", "python -m spacy project run all"),
    "bc5cdr": ("BC5CDR, both types, in texts of up to 400 words", "benchmarks/bc5cdr.sh BASE DATA OUT"),
}
COMPARED = ("train", "train_without_amx", "infer", "infer_without_amx", "infer_amx_hidden", "memory")
MORE = ("prefix", "compute_dtype", "compute_dtype_without_amx", "search", "bridge")


def main() -> None:
    tables = {
        "README.md": f"{accuracy()}\n\n{comparisons(COMPARED)}",
        "benchmarks/README.md": comparisons(MORE),
        "docs/accuracy.md": recipes(),
        "docs/memory.md": shapes(),
    }
    for name, table in tables.items():
        page = HERE.parent / name
        text = page.read_text(encoding="utf8")
        before, rest = text.split(START)
        _, after = rest.split(END)
        filled = f"{before}{START}\n\n{table}\n\n{END}{after}"
        if "--check" not in sys.argv[1:]:
            page.write_text(filled, encoding="utf8")
        elif filled != text:
            sys.exit(f"{name}: run 'python benchmarks/readme.py'")


def accuracy() -> str:
    rows = ["| corpus | P | R | F1 | command | file |", "|---|---|---|---|---|---|"]
    for folder, (name, command) in CORPORA.items():
        found = json.loads((RESULTS / folder / "metrics.json").read_text())
        file = f"benchmarks/results/{folder}/metrics.json"
        whole = {key: found[f"ents_{key}"] for key in "prf"}
        rows.append(f"| {name} | {_figures(whole)} | `{command}` | `{file}` |")
        rows.append(f"| {name}, names unseen in training | {_figures(found['unseen'])} | the same | the same |")
    return "\n".join(rows)


def _figures(scores: dict[str, float]) -> str:
    return " | ".join(f"{scores[key]:.3f}" for key in "prf")


def comparisons(names: Sequence[str]) -> str:
    rows = ["| | ours | other | ratio | unit | processor | file |", "|---|---|---|---|---|---|---|"]
    for name in names:
        file = RESULTS / f"{name}.json"
        found = json.loads(file.read_text())
        processor = found["machine"]["cpu"].replace("(R)", "").removesuffix(" Processor")
        for row in found["results"]:
            figures = f"{row['ours']:,} | {row['peer']:,} | {row['ratio']} | {row['unit']}"
            rows.append(f"| {row['name']} | {figures} | {processor} | `benchmarks/results/{file.name}` |")
    return "\n".join(rows)


def recipes() -> str:
    """Medians over the seeds, and the time of the fastest."""
    rows = ["| recipe | P | R | F1 | F1 of each seed | dev F1 | training, minutes |", "|---|---|---|---|---|---|---|"]
    for name, runs in json.loads((RESULTS / "accuracy.json").read_text())["runs"].items():
        middle = {key: median(run[key] for run in runs) for key in runs[0] if key not in ("seed", "cpu")}
        each = ", ".join(f"{run['ents_f']:.3f}" for run in sorted(runs, key=lambda run: run["seed"]))
        whole = {key: middle[f"ents_{key}"] for key in "prf"}
        minutes = min(run["train_s"] for run in runs) / 60  # others may have shared their core
        rows.append(f"| {name} | {_figures(whole)} | {each} | {middle['dev_f']:.3f} | {minutes:.0f} |")
    return "\n".join(rows)


def shapes() -> str:
    rows = ["| MiB | by shapes | planned | ratio |", "|---|---|---|---|"]
    for row in json.loads((RESULTS / "shapes_7b.json").read_text())["results"]:
        rows.append(f"| {row['name']} | {row['ours']:,.0f} | {row['peer']:,.0f} | {row['ratio']:.2f} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
