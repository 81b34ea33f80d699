"""`spacy qlora inspect`: what it prints, saves and draws, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from click.testing import Result
from spacy.cli._util import app
from transformers import MistralForCausalLM
from typer.testing import CliRunner

import spacy_qlora.cli  # noqa: F401
from spacy_qlora.engine import embedded
from spacy_qlora.engine.base import load_base
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.settings import LINEARS, ClassifierSettings, LoRASettings
from tests.conftest import file_size_limit

CONFIG = Path(__file__).parents[2] / "configs" / "default.cfg"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["qlora", "inspect", *map(str, arguments)], prog_name="spacy")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(embedded, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("SPACY_QLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPACY_QLORA_BASE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def other(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint of the same shape and other weights."""
    folder = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    model = MistralForCausalLM.from_pretrained(folder)
    model.model.layers[1].mlp.up_proj.weight.data.mul_(2)
    model.save_pretrained(folder)
    return folder


def test_all_figures_are_saved(base: Path, checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "base.json"
    result = run(base, "--float", checkpoint, "--output", output)
    assert result.exit_code == 0, result.output
    found = json.loads(output.read_text())
    assert found["base"]["fingerprint"] == json.loads((base / "base.json").read_text())["fingerprint"]
    assert [layer["layer"] for layer in found["layers"]] == [0, 1, 2]
    for row in (found, *found["layers"], *found["linears"].values()):
        assert 0.05 < row["nf4_error"] < row["uniform_error"] < 0.15
        assert 4 < row["bits_per_weight"] < 10  # the tables weigh more on tiny linears
    assert set(found["linears"]) == set(found["layers"][0]["linears"]) == set(LINEARS)
    layer = found["layers"][0]["linears"].values()
    total = sum(row["weights"] * row["bits_per_weight"] for row in layer) / sum(row["weights"] for row in layer)
    assert found["layers"][0]["bits_per_weight"] == pytest.approx(total)
    largest = [row["largest"] for row in found["outliers"]]
    assert largest == sorted(largest, reverse=True)
    assert largest[0] == found["largest"] == max(layer["largest"] for layer in found["layers"])
    assert found["trained"] is None
    assert [path.name for path in output.parent.iterdir()] == ["base.json"]


def test_the_screen_shows_layers_linears_and_memory(base: Path, checkpoint: Path, tmp_path: Path) -> None:
    result = run(base, "--float", checkpoint, "--output", tmp_path / "base.json")
    found = json.loads((tmp_path / "base.json").read_text())
    rows = [line.split() for line in result.stdout.splitlines()]
    for i, layer in enumerate(found["layers"]):
        figures = [f"{layer['bits_per_weight']:.3f}", f"{layer['nf4_error']:.4f}", f"{layer['uniform_error']:.4f}"]
        assert any(row[:4] == [str(i), *figures] for row in rows)
    assert all(any(row[:1] == [name] for row in rows) for name in (*LINEARS, "attention", "MLP", "embedding", "norms"))


@pytest.mark.parametrize(("name", "start"), [("errors.svg", b"<?xml"), ("errors.PNG", b"\x89PNG")])
def test_the_plot(base: Path, checkpoint: Path, tmp_path: Path, name: str, start: bytes) -> None:
    result = run(base, "--float", checkpoint, "--plot", tmp_path / name)
    assert result.exit_code == 0, result.output
    data = (tmp_path / name).read_bytes()
    assert data.startswith(start)
    if name.endswith("svg"):
        text = data.decode()
        assert all(f"<!-- {label}" in text for label in ("layer", "relative root mean square error", "NF4", "uniform"))


def test_a_config_shows_what_it_would_train(base: Path, checkpoint: Path, tmp_path: Path) -> None:
    changed = CONFIG.read_text().replace("\nr = 16", "\nr = 4").replace("adapted_layers = null", "adapted_layers = 2")
    (tmp_path / "changed.cfg").write_text(changed)
    result = run(base, "--float", checkpoint, "--config", tmp_path / "changed.cfg", "--output", tmp_path / "base.json")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "base.json").read_text())["trained"]
    settings = ClassifierSettings(LoRASettings(4), adapted_layers=2, pooling="first_last")
    tags = 2 * found["labels_assumed"] + 1
    count, total = TokenClassifier(load_base(base, torch.device("cpu"), torch.bfloat16), tags, settings).count()
    assert (found["parameters"], found["share"]) == (count, count / total)
    assert found["layers"] == [1, 2]
    assert 2 * sum(found["of_each_layer"].values()) + found["head"] == count
    assert f"{count:,} parameters, {count / total:.2%} of all, are trained." in result.stdout


# The float weights


def test_without_floats_all_but_the_errors_is_shown(base: Path, checkpoint: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "with.json", tmp_path / "without.json"
    run(base, "--float", checkpoint, "--output", outputs[0])
    result = run(base, "--output", outputs[1])
    assert result.exit_code == 0, result.output
    assert "No errors (Q211): no checkpoint" in " ".join(result.output.split())
    assert "--float" in result.output
    known, unknown = (json.loads(path.read_text()) for path in outputs)
    assert unknown["nf4_error"] is unknown["uniform_error"] is unknown["layers"][0]["nf4_error"] is None
    for key in ("bits_per_weight", "largest", "outliers", "memory"):
        assert unknown[key] == known[key]


def test_the_source_that_base_json_names_is_found(
    base: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    assert "No errors" not in run(base).output


def test_another_model_of_that_name_is_not_taken_for_it(base: Path, checkpoint: Path, other: Path) -> None:
    other.rename(other.parent / checkpoint.name)
    result = run(base)
    assert result.exit_code == 0
    assert "No errors (Q220)" in result.output


def test_a_checkpoint_is_inspected_as_find_base_makes_it(checkpoint: Path, tmp_path: Path) -> None:
    result = run(checkpoint, "--float", checkpoint)
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.slow
def test_nf4_is_better_on_every_layer_of_the_embedded_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "HF_HUB_OFFLINE", False)
    result = run("smollm2-135m", "--output", tmp_path / "base.json")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "base.json").read_text())
    linears = [row for layer in found["layers"] for row in layer["linears"].values()]
    assert (len(found["layers"]), len(linears)) == (30, 210)
    assert all(row["nf4_error"] < row["uniform_error"] for row in (*found["layers"], *linears))


# Wrong input


def assert_one_line(result: Result, code: str, named: object) -> None:
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert result.exit_code == 1, result.output
    assert len(lines) == 1
    assert lines[0].startswith(f"Error: [{code}] ")
    assert str(named) in lines[0]
    assert "Traceback" not in result.output


def test_floats_of_another_model(base: Path, other: Path, tmp_path: Path) -> None:
    result = run(base, "--float", other, "--output", tmp_path / "base.json")
    assert_one_line(result, "Q220", "model.layers.1.mlp.up_proj.weight")
    assert not (tmp_path / "base.json").exists()


def test_a_plot_without_floats(base: Path, tmp_path: Path) -> None:
    assert_one_line(run(base, "--plot", tmp_path / "errors.svg"), "Q221", "errors.svg")
    assert not (tmp_path / "errors.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["no where"], "Q001"),
        (["no-such/base"], "Q211"),
        (["smollm2-135m"], "Q216"),
        (["BASE", "--float", "no-such/base"], "Q211"),
        (["BASE", "--float", "smollm2-135m"], "Q216"),
        (["BASE", "--float", "BASE"], "Q208"),
        (["BASE", "--config", "none.cfg"], "Q001"),
    ],
)
def test_wrong_names(base: Path, arguments: list[str], code: str) -> None:
    result = run(*(str(base) if argument == "BASE" else argument for argument in arguments))
    assert_one_line(result, code, "")


def test_more_layers_than_there_are(base: Path, tmp_path: Path) -> None:
    (tmp_path / "deep.cfg").write_text(CONFIG.read_text().replace("\nlayers = null", "\nlayers = 99"))
    assert_one_line(run(base, "--config", tmp_path / "deep.cfg"), "Q210", "layers = 99")


def test_a_damaged_base(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "base")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert_one_line(run(folder), "Q203", folder)


@pytest.mark.parametrize("option", ["--output", "--plot"])
def test_where_nothing_can_be_written(base: Path, checkpoint: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "folder.svg").mkdir()
    assert_one_line(run(base, option, tmp_path / "folder.svg"), "Q003", "folder.svg")
    with file_size_limit(100):
        assert_one_line(run(base, "--float", checkpoint, option, tmp_path / "full.svg"), "Q002", "full.svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.svg"]


def test_a_plot_of_another_format(base: Path, tmp_path: Path) -> None:
    assert run(base, "--plot", tmp_path / "errors.docx").exit_code == 2


def test_help_names_the_options() -> None:
    result = CliRunner().invoke(app, ["qlora", "inspect", "--help"], prog_name="spacy", env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("--config", "--float", "--output", "--plot", "NF4"))
