"""Writes the tables of README's section "Measured" from the files under benchmarks/results/.

python benchmarks/readme.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
README, RESULTS = HERE.parent / "README.md", HERE / "results"
START, END = "<!-- measured: benchmarks/readme.py -->", "<!-- measured: end -->"
CORPORA = {
    "demo": ("demo (made up)", "python -m spacy project run all"),
    "bc5cdr": ("BC5CDR, both types, in texts of up to 400 words", "benchmarks/bc5cdr.sh BASE DATA OUT"),
}
COMPARED = ("train", "prefix", "infer", "infer_without_amx", "compute_dtype", "memory", "search", "bridge")


def main() -> None:
    text = README.read_text(encoding="utf8")
    before, rest = text.split(START)
    _, after = rest.split(END)
    filled = f"{before}{START}\n\n{accuracy()}\n\n{comparisons()}\n\n{END}{after}"
    if "--check" in sys.argv[1:]:
        sys.exit(0 if filled == text else "README.md: run 'python benchmarks/readme.py'")
    README.write_text(filled, encoding="utf8")


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


def comparisons() -> str:
    rows = ["| | ours | other | ratio | unit | file |", "|---|---|---|---|---|---|"]
    for name in COMPARED:
        file = RESULTS / f"{name}.json"
        for row in json.loads(file.read_text())["results"] if file.exists() else []:
            figures = f"{row['ours']:,} | {row['peer']:,} | {row['ratio']} | {row['unit']}"
            rows.append(f"| {row['name']} | {figures} | `benchmarks/results/{file.name}` |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
