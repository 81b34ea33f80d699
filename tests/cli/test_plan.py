"""`spacy qlora plan`: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from spacy.cli._util import app
from typer.testing import CliRunner

import spacy_qlora.cli  # noqa: F401

CONFIGS = Path(__file__).parents[2] / "configs"
MISTRAL = {
    "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 32768, "rope_theta": 1e6,
}  # fmt: skip


def run(config: str, base: Path, *more: object) -> Result:
    arguments = ["qlora", "plan", CONFIGS / config, "--paths.base", base, *more]
    return CliRunner().invoke(app, list(map(str, arguments)), prog_name="spacy")


@pytest.fixture
def mistral(tmp_path: Path) -> Path:
    """A folder that holds the config.json of Mistral-7B and nothing else."""
    (tmp_path / "config.json").write_text(json.dumps(MISTRAL))
    return tmp_path


def rows(output: str) -> dict[str, list[str]]:
    lines = [line for line in output.splitlines() if not line.startswith("---")]
    cells = [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in lines]
    return {row[0]: row[1:] for row in cells if len(row) > 1}


def test_the_7b_config_fits_8_gib(mistral: Path) -> None:
    result = run("mistral_7b_8gb.cfg", mistral, "--components.qlora_ner.device", "cuda", "--memory", "8GiB")
    assert result.exit_code == 0, result.output
    found = rows(result.stdout)
    assert found["memory"] == ["as configured", "within 8GiB"]
    assert found["weights in 4 bits"] == ["3,328 MiB"] * 2
    assert all(int(cell.split()[0].replace(",", "")) <= 8192 for cell in found["total"])
    assert found["layers checkpointed"][0] == "32 of 32"
    assert found["device"] == ["cuda", "cuda"]
    assert f"Planned for the base {mistral}: 32 layers, 4,096 wide." in result.stdout


def test_without_a_budget(base: Path) -> None:
    found = rows(run("default.cfg", base, "--components.qlora_ner.adapted_layers", 2).stdout)
    assert found["memory"] == ["as configured"]
    assert found["layers checkpointed"] == ["0 of 2"]
    items = list(found.values())[1 : list(found).index("total")]
    total = sum(int(cells[0].split()[0].replace(",", "")) for cells in items)
    assert abs(total - int(found["total"][0].split()[0].replace(",", ""))) <= len(items)


def test_a_window_may_be_longer_than_a_micro_batch(base: Path) -> None:
    sizes = "--components.qlora_ner.max_pieces", 700, "--qlora.batch_pieces", 384
    assert rows(run("default.cfg", base, *sizes).stdout)["pieces a micro-batch"] == ["701"], "its begin-of-text counted"


def test_the_config_has_a_budget(base: Path) -> None:
    assert "within 4GiB" in run("default.cfg", base, "--qlora.memory_budget", "4GiB").stdout


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--memory", "100MiB"], "Q414"),
        (["--memory", "much"], "Q210"),
        (["--qlora.memory_budget", "much"], "Q210"),
        (["--qlora.memory_budget", "0GiB"], "Q210"),
        (["--qlora.memory_budget", "8"], "Q401"),
        (["--components.qlora_ner.r", "0"], "Q210"),
        (["--components.qlora_ner.r", "many"], "Q401"),
        (["--components.qlora_ner.adapted_layers", "99"], "Q210"),
        (["--components.qlora_ner.bidirectional_from", "99"], "Q210"),
        (["--components.qlora_ner.device", "mps"], "Q306"),
        (["--paths.base", "no where"], "Q001"),
    ],
)
def test_wrong_input_is_one_line(base: Path, more: list[str], code: str) -> None:
    result = run("default.cfg", base, *more)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: [{code}]")
    assert result.stderr.count("\n") == 1


def test_a_config_json_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    assert "[Q212]" in run("default.cfg", tmp_path).stderr


def test_a_base_of_the_environment_that_is_none(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACY_QLORA_BASE", str(tmp_path))
    assert run("default.cfg", base).stderr.startswith("Error: [Q218]")


def test_help_names_the_arguments() -> None:
    result = CliRunner().invoke(app, ["qlora", "plan", "--help"], prog_name="spacy", env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("config", "--memory", "config.json"))
