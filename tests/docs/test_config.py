"""docs/config.md names every setting, with its default."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest

from spacy_qlora.engine.settings import LoopSettings
from spacy_qlora.factory import DEFAULTS
from spacy_qlora.optimizer import make_adamw

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "config.md").read_text(encoding="utf8")


def rows(heading: str) -> dict[str, str]:
    """The first and second column of the table under a heading."""
    section = PAGE.split(f"## {heading}")[1].split("\n## ")[0]
    cells = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip().strip("`"): row[1].strip().strip("`") for row in cells}


def test_component() -> None:
    assert list(rows("[components.qlora_ner]")) == list(DEFAULTS)


def test_optimizer() -> None:
    defaults = {name: p.default for name, p in inspect.signature(make_adamw).parameters.items()}
    shown = {name: value.strip('"') for name, value in rows("[training.optimizer]").items()}
    assert list(shown) == list(defaults)
    assert all(str(value) == shown[name] or float(shown[name]) == value for name, value in defaults.items())


def test_loop() -> None:
    assert rows("[qlora]") == {field.name: str(field.default).lower() for field in dataclasses.fields(LoopSettings)}


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.cfg")), ids=lambda path: path.stem)
def test_configs_are_named_in_readme(config: Path) -> None:
    assert f"`configs/{config.name}`" in (ROOT / "README.md").read_text(encoding="utf8")
