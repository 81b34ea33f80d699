"""Training, evaluating and predicting open no socket, and no output holds a word of a text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
from spacy.tokens import DocBin

from tests.conftest import file_size_limit

DEFAULT = Path(__file__).parent.parent / "configs" / "default.cfg"
# Run before anything else of a process: whatever connects or looks up a name ends it.
NO_SOCKETS = """
import runpy, socket, sys
def refuse(*args, **kwargs):
    raise SystemExit(f"a socket was asked for: {args}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
MARK = "ZQXPATIENT"


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", NO_SOCKETS, "spacy", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **variables})


def train(corpus: Path, base: Path | str, output: Path, *more: object, **variables: str) -> subprocess.CompletedProcess:
    paths = ["--paths.train", corpus / "train.spacy", "--paths.dev", corpus / "dev.spacy", "--paths.base", base]
    limits = ["--training.max_epochs", 0, "--training.max_steps", 2]
    return run("qlora", "train", DEFAULT, "--output", output, *paths, *limits, *more, **variables)


def test_no_socket_is_opened(corpus: Path, base: Path, tmp_path: Path) -> None:
    done = train(corpus, base, tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = tmp_path / "metrics.json"
    done = run("qlora", "evaluate", tmp_path / "model-best", corpus / "dev.spacy", "--output", metrics)
    assert done.returncode == 0, done.stderr
    done = train(corpus, "some/checkpoint", tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "[Q211]" in done.stderr
    assert "a socket" in train(corpus, "some/checkpoint", tmp_path).stderr, "which shows that this test can fail"


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """A corpus in which each word carries a mark, and a long one among them."""
    nlp = spacy.blank("en")
    docs = []
    for length in (3, 5, 400):
        doc = nlp.make_doc(" ".join(f"{MARK}{i}" for i in range(length)))
        doc.ents = [doc.char_span(0, len(MARK) + 1, label="Drug")]
        docs.append(doc)
    for name in ("train", "dev"):
        DocBin(docs=docs).to_disk(tmp_path / f"{name}.spacy")
    return tmp_path


def test_no_output_holds_a_text(marked: Path, base: Path) -> None:
    output = marked / "output"
    code = marked / "functions.py"
    code.write_text("""
from spacy.util import registry

@registry.callbacks("test_offline.fail.v1")
def make():
    def fail(nlp):
        text = "".join(["ZQX", "PATIENT"])
        raise KeyError(len(text))
    return fail
""")
    callback = ["--training.before_to_disk", '{"@callbacks": "test_offline.fail.v1"}']
    unexpected = train(marked, base, marked / "fails", "--code", code, *callback)
    assert "KeyError: 10" in unexpected.stderr
    runs = [
        unexpected,
        train(marked, base, output),
        train(marked, base, output, "--qlora.memory_budget", "1MB"),
        train(marked, base, output, "--training.optimizer.adapter_lr", 1e30),
        train(marked, base, output, "--resume", "--components.qlora_ner.r", 3),
        train(marked, marked, output),
        run("qlora", "evaluate", output / "model-best", marked / "dev.spacy", "--output", marked / "metrics.json"),
        run("qlora", "calibrate", output / "model-best", marked / "dev.spacy"),
        run("qlora", "convert", marked / "train.spacy", marked / "corpus"),
    ]
    with file_size_limit(20_000):
        runs.append(train(marked, base, marked / "full"))
    (marked / "dev.spacy").write_bytes((marked / "dev.spacy").read_bytes()[:-9])
    runs.append(run("qlora", "evaluate", output / "model-best", marked / "dev.spacy", "--output", marked / "m.json"))
    assert [done.returncode for done in runs] == [1, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1]
    for done in runs:
        assert MARK not in done.stdout + done.stderr
    for path in output.rglob("*"):
        assert path.is_dir() or MARK.encode() not in path.read_bytes(), path
