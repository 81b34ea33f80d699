"""The programs under benchmarks/ run, and README shows what they left."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECORDS = [
    ("No fever today.", ["O", "B-Symptom", "O", "O"], ["No", "fever", "today", "."]),
    ("Aspirin for pain.", ["B-Drug", "O", "B-Symptom", "O"], ["Aspirin", "for", "pain", "."]),
]


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "benchmarks" / program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split in ("train", "dev", "test"):
        lines = [
            json.dumps({"text": text, "labels": [{"word": w, "entity": t} for w, t in zip(words, tags, strict=True)]})
            for text, tags, words in RECORDS * 4
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_readme_shows_the_committed_figures() -> None:
    done = run("readme.py", "--check")
    assert done.returncode == 0, done.stderr


def test_the_7b_program_at_a_tiny_size(tmp_path: Path) -> None:
    done = run("gpu_7b.py", "--output", tmp_path / "out.json", "--tiny", "--memory", "1GiB")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert [set(row) for row in found["results"]] == [{"name", "ours", "peer", "ratio", "unit"}] * 2
    assert all(row["ours"] > 0 for row in found["results"])
    assert {"machine", "versions", "results", "runs"} == found.keys()


def test_a_step_on_a_gpu_holds_what_is_planned_by_its_shapes(tmp_path: Path) -> None:
    done = run("shapes_7b.py", "--output", tmp_path / "out.json", "--tiny")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["results"]
    assert len(rows) == 4
    assert all(0.7 <= row["ratio"] <= 1.03 for row in rows)
    assert all(row["ratio"] >= 0.97 for row in rows if row["name"].startswith("kept"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", ["train.py", "infer.py", "memory.py", "prefix.py", "accuracy.py", "bridge.py", "compute_dtype.py"]
)
def test_comparisons_run(program: str, base: Path, data: Path, tmp_path: Path) -> None:
    if program == "bridge.py":
        pytest.importorskip("spacy_transformers")
    output = tmp_path / "results" / "out.json"
    done = run(program, "--base", base, "--data", data, "--output", output, "--quick")
    assert done.returncode == 0, done.stderr
    for row in json.loads(output.read_text())["results"]:
        assert row["ratio"] == (pytest.approx(row["ours"] / row["peer"], abs=0.01) if row["peer"] else 0)


@pytest.mark.slow
def test_the_search_runs(base: Path, tmp_path: Path) -> None:
    done = run("search.py", "--base", base, "--output", tmp_path / "out.json", "--quick")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    best, again, _ = found["results"]
    assert best["ours"] >= best["peer"]
    assert again["ours"] == pytest.approx(again["peer"], abs=0.01)
    assert sum(trial["state"] in ("complete", "pruned", "fail") for trial in found["runs"]["trials"]) == 4


@pytest.mark.slow
@pytest.mark.parametrize("program", ["fuzz", "roundtrip", "threads", "adapters", "soak", "kill_resume"])
def test_programs_of_hard_use_run(program: str, base: Path, data: Path, tmp_path: Path) -> None:
    corpora = tmp_path / "corpora"
    for name in ("bc5cdr", "maccrobat"):
        shutil.copytree(data, corpora / name, ignore=lambda *_: ["corpora"])
    done = run(f"hard_use/{program}.py", "--base", base, "--data", corpora, "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["passed"]
