"""`spacy qlora base`: what it writes and says. Wrong input is in tests/test_bad_input.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
from click.testing import Result
from spacy.cli._util import app
from typer.testing import CliRunner

import spacy_qlora.cli  # noqa: F401

FILES = ["base.json", "config.json", "model.safetensors", "tokenizer.json"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["qlora", "base", *map(str, arguments)], prog_name="spacy")


def test_a_checkpoint_becomes_a_base(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "base"
    result = run(checkpoint, out)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == FILES
    info = json.loads((out / "base.json").read_text())
    assert f"{out}: {checkpoint.name}, " in " ".join(result.stdout.split())
    assert f"fingerprint {info['fingerprint'][:12]}" in " ".join(result.stdout.split())
    assert "Quantising: " in result.stderr, "the progress bar"
    assert info == json.loads((base / "base.json").read_text()), "the same checkpoint always gives the same base"
    assert (out / "model.safetensors").stat().st_size < (checkpoint / "model.safetensors").stat().st_size / 3


def test_an_older_base_is_replaced(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(base, tmp_path / "base"))
    (out / "base.json").write_text("{}")
    assert run(checkpoint, out).exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert (out / "base.json").read_bytes() == (base / "base.json").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_base_that_was_fetched_stays(
    checkpoint: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    out = Path(shutil.copytree(base, tmp_path / "base"))
    info = json.loads((out / "base.json").read_text())
    (out / "base.json").write_text(json.dumps({**info, "id": "org/tiny", "revision": "abc"}))
    before = (out / "model.safetensors").stat().st_mtime_ns
    for revision in ([], ["--revision", "abc"]):
        result = run("org/tiny", out, *revision)
        assert result.exit_code == 0, result.output
        assert "made before" in " ".join(result.stdout.split())
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    assert "[Q211]" in run("org/tiny", out, "--revision", "def").stderr, "another one is fetched"
    (out / "model.safetensors").write_bytes(b"")
    assert "[Q211]" in run("org/tiny", out).stderr, "a damaged one is fetched again"


def test_a_relative_name(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    monkeypatch.chdir(tmp_path)
    assert run("checkpoint", "base").exit_code == 0
    assert json.loads((tmp_path / "base" / "base.json").read_text())["id"] == "checkpoint"
