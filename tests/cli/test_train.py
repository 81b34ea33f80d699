"""`spacy qlora train`: its options, and what it prints. Wrong input is in tests/test_bad_input.py."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import spacy
from click.testing import Result
from safetensors import safe_open
from spacy.cli._util import app
from spacy.tokens import DocBin, Span
from typer.testing import CliRunner

import spacy_qlora.cli  # noqa: F401
from spacy_qlora.engine.checkpoint import FILE
from spacy_qlora.engine.progress import StopRun
from spacy_qlora.training.stop import Stop

DEFAULT = Path(__file__).parents[2] / "configs" / "default.cfg"


def run(corpus: Path, base: Path, output: Path, *more: object) -> Result:
    paths = ["--paths.train", corpus / "train.spacy", "--paths.dev", corpus / "dev.spacy", "--paths.base", base]
    arguments = ["qlora", "train", DEFAULT, "--output", output, *paths, *more]
    return CliRunner().invoke(app, list(map(str, arguments)), prog_name="spacy")


def test_a_run_from_config_to_pipelines(corpus: Path, base: Path, tmp_path: Path) -> None:
    more = [
        "--training.max_steps=2",
        "--components.qlora_ner.r",
        4,
        "--components.qlora_ner.target_modules",
        '["v_proj"]',
        "--components.qlora_ner.device=cpu",
        "--components.qlora_ner.compute_dtype=bfloat16",
    ]
    result = run(corpus, base, tmp_path / "deep" / "output", *more, "--nlp.batch_size", 2)
    assert result.exit_code == 0, result.output
    for name in ("model-best", "model-last"):
        nlp = spacy.load(tmp_path / "deep" / "output" / name)
        settings = nlp.get_pipe("qlora_ner").settings  # type: ignore[attr-defined]
        assert (settings.classifier.lora.r, settings.classifier.lora.target_modules) == (4, ("v_proj",))
        assert nlp.batch_size == 2

    trained = 3 * 4 * (64 + 32) + 7 * (2 * 64 + 1)  # layers x r x (in + out), and the head of 7 tags
    assert f"Trained   {trained:,} of " in result.stdout
    assert " parameters, 1." in result.stdout
    assert "Labels    Disease, Drug, Symptom" in result.stdout
    assert "NF4, bfloat16 on " in result.stdout
    assert "6 windows, " in result.stdout
    assert "pieces; 2 steps" in result.stdout
    assert "ENTS_F" in result.stdout, "the table of spaCy's logger"
    assert "Training" not in result.stdout
    for shown in ("Training: 100%", "2/2", "loss=", "pieces/s=", "memory="):
        assert shown in result.stderr, "the progress bar"


def test_a_run_goes_on(corpus: Path, base: Path, tmp_path: Path) -> None:
    assert run(corpus, base, tmp_path, "--training.max_steps", 4, "--training.max_epochs", 0).exit_code == 0
    result = run(corpus, base, tmp_path, "--training.max_steps", 4, "--training.max_epochs", 0, "--resume")
    assert result.exit_code == 0, result.output
    assert "4/4" in result.stderr


def test_continue_goes_on_only_with_its_own_run(corpus: Path, base: Path, tmp_path: Path) -> None:
    steps, checkpoint = ["--training.max_steps", 4, "--training.max_epochs", 0], tmp_path / "checkpoint" / FILE

    def trains(*more: object) -> bool:
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        assert run(corpus, base, tmp_path, *steps, "--continue", *more).exit_code == 0
        assert spacy.load(tmp_path / "model-best").config == spacy.load(tmp_path / "model-last").config
        return checkpoint.stat().st_mtime_ns != before

    assert trains(), "there is no run yet"
    assert not trains(), "it is at its end"
    assert trains("--components.qlora_ner.spans_key", "found"), "the pipelines there have another setting"
    shutil.rmtree(tmp_path / "model-best")
    assert trains("--components.qlora_ner.spans_key", "found"), "the best pipeline is gone"
    checkpoint.write_bytes(b"")
    (tmp_path / "checkpoint" / "checkpoint.before.safetensors").unlink()
    assert trains("--components.qlora_ner.spans_key", "found"), "the state is damaged"


@pytest.mark.parametrize("split", ["train", "dev"])
def test_continue_starts_anew_with_another_corpus(corpus: Path, base: Path, tmp_path: Path, split: str) -> None:
    own, output = shutil.copytree(corpus, tmp_path / "corpus"), tmp_path / "output"
    steps = ["--training.max_steps", 2, "--training.max_epochs", 0]
    assert run(own, base, output, *steps).exit_code == 0
    nlp = spacy.blank("en")
    docs = list(DocBin().from_disk(own / f"{split}.spacy").get_docs(nlp.vocab))
    for doc in docs:  # the tags' numbers stay the same
        doc.ents = [Span(doc, e.start, e.end, "Medication" if e.label_ == "Drug" else e.label_) for e in doc.ents]
    DocBin(docs=docs).to_disk(own / f"{split}.spacy")
    refused = run(own, base, output, *steps, "--resume")
    assert f"changed: {'labels' if split == 'train' else 'dev'}" in refused.stderr
    again = run(own, base, output, *steps, "--continue")
    assert "Starting anew." in again.stdout
    assert ("Medication" in spacy.load(output / "model-best").get_pipe("qlora_ner").labels) == (split == "train")


def test_continue_goes_on_with_a_run_that_took_the_place_of_another(
    corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ["--training.max_epochs", 1, "--qlora.batch_size", 1]  # evaluated after six steps
    assert run(corpus, base, tmp_path, *steps).exit_code == 0
    other = [*steps, "--components.qlora_ner.spans_key", "found", "--continue"]
    seen = 0

    def stop_after_two(stop: Stop) -> None:
        nonlocal seen
        seen += 1
        if seen % 2 == 0:
            raise StopRun(signal.SIGINT)

    with monkeypatch.context() as stopped:
        stopped.setattr(Stop, "check", stop_after_two)
        for expected in (2, 4):
            assert run(corpus, base, tmp_path, *other).exit_code == 130
            with safe_open(tmp_path / "checkpoint" / FILE, framework="pt") as file:
                assert json.loads(file.metadata()["progress"])["step"] == expected


def test_continue_loses_no_run_of_a_machine_with_another_auto(
    corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ["--training.max_steps", 2, "--training.max_epochs", 0, "--continue"]
    monkeypatch.setattr("spacy_qlora.adapted.is_bfloat16_fast", lambda device: False)
    assert run(corpus, base, tmp_path, *steps).exit_code == 0
    monkeypatch.setattr("spacy_qlora.adapted.is_bfloat16_fast", lambda device: True)
    refused = run(corpus, base, tmp_path, *steps)
    assert refused.exit_code == 1
    assert "[Q405]" in refused.stderr
    assert "changed: compute_dtype" in refused.stderr
    gone_on = run(corpus, base, tmp_path, *steps, "--components.qlora_ner.compute_dtype", "float32")
    assert gone_on.exit_code == 0, "as the error says"
    assert "Starting anew" not in gone_on.stdout


def test_a_signal_while_calibrating_says_how_to_go_on(
    corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ["--training.max_steps", 2, "--training.max_epochs", 0]
    with monkeypatch.context() as stopped:
        name = "spacy_qlora.training.run.calibrate_pipeline"
        stopped.setattr(name, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        result = run(corpus, base, tmp_path, *steps)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("Stopped, and the state is saved. Go on with: ")
    assert "earlier run" not in result.stdout
    gone_on = run(corpus, base, tmp_path, *steps, "--resume")
    assert gone_on.exit_code == 0
    assert "earlier run" not in gone_on.stdout
    assert "earlier run" in run(corpus, base, tmp_path, *steps).stdout


def test_a_run_goes_on_after_a_kill_between_two_renames(corpus: Path, base: Path, tmp_path: Path) -> None:
    steps = ["--training.max_steps", 2, "--training.max_epochs", 0]
    assert run(corpus, base, tmp_path, *steps).exit_code == 0
    (tmp_path / "model-best").rename(tmp_path / ".model-best.old")
    assert run(corpus, base, tmp_path, *steps, "--resume").exit_code == 0
    assert spacy.load(tmp_path / "model-best").pipe_names == ["qlora_ner"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_saves_the_state(corpus: Path, base: Path, tmp_path: Path, number: int, code: int) -> None:
    paths = ["--paths.train", corpus / "train.spacy", "--paths.dev", corpus / "dev.spacy", "--paths.base", base]
    limits = ["--training.max_epochs", 0, "--training.max_steps"]
    command = [sys.executable, "-m", "spacy", "qlora", "train", DEFAULT, "--output", tmp_path, *paths, *limits, 10**5]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        try:
            while not (tmp_path / "checkpoint").exists():
                assert process.poll() is None
                time.sleep(0.1)
            process.send_signal(number)
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()  # of 10**5 steps, were it not for the signal
    assert process.returncode == code
    last = output.splitlines()[-1]
    assert last.startswith("Stopped, and the state is saved. Go on with: python -m spacy qlora train ")
    again = shlex.split(last.partition("with: ")[2])
    assert again == ["python", *map(str, command[1:]), "--resume"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint",
        "history.jsonl",
        "model-best",
        "model-last",
    ]
    with safe_open(tmp_path / "checkpoint" / FILE, framework="pt") as file:
        step = json.loads(file.metadata()["progress"])["step"]
    again[0], again[again.index(str(10**5))] = sys.executable, str(step + 3)
    refused = subprocess.run(again, capture_output=True, text=True, check=False)
    assert "[Q405]" in refused.stderr, "the schedule of rates would be another"


def test_registered_functions_of_a_file(corpus: Path, base: Path, tmp_path: Path) -> None:
    code = tmp_path / "functions.py"
    code.write_text("""
from spacy.util import registry

@registry.callbacks("test_train.rename.v1")
def make():
    def rename(nlp):
        nlp.meta["description"] = "renamed"
        return nlp
    return rename
""")
    callback = ["--training.before_to_disk", '{"@callbacks": "test_train.rename.v1"}']
    result = run(corpus, base, tmp_path, "--training.max_steps", 1, *callback, "--code", code)
    assert result.exit_code == 0, result.output
    assert spacy.load(tmp_path / "model-last").meta["description"] == "renamed"


def test_help_needs_no_config() -> None:
    result = CliRunner().invoke(app, ["qlora", "train", "--help"], prog_name="spacy", env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "--resume" in result.stdout
    assert "Settings of the config are overridden as in 'spacy train'" in result.stdout
