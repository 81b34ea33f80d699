"""The spaCy project, README and how they hold together."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from weasel.cli.document import project_document
from weasel.util.config import load_project_config

import spacy_qlora.cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the project file: weasel makes the project's folders beside it."""
    shutil.copy(ROOT / "project.yml", tmp_path)
    return tmp_path


@pytest.fixture
def project(folder: Path) -> dict[str, Any]:
    return load_project_config(folder)


def scripts(project: dict[str, Any]) -> list[list[str]]:
    return [shlex.split(line) for command in project["commands"] for line in command["script"]]


def fenced_blocks() -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def test_workflows(project: dict[str, Any]) -> None:
    assert set(project["workflows"]) == {"all", "own", "search", "bc5cdr"}
    steps = {"base", "corpus", "convert", "debug", "train", "evaluate", "package", "visualize"}
    assert set(project["workflows"]["all"]) == steps
    assert project["workflows"]["search"] == ["base", "debug", "trials"]
    # The scores and the drawn notes are the last thing on the screen.
    training = [steps for name, steps in project["workflows"].items() if name != "search"]
    assert all(steps[-2].startswith("evaluate") for steps in training)
    assert all(steps[-1].startswith("visualize") for steps in training)


def test_scripts_call_what_exists(project: dict[str, Any]) -> None:
    commands = {command.name for command in spacy_qlora.cli.app.registered_commands}
    for line in scripts(project):
        assert line[0] == "python"
        if line[1:4] == ["-m", "spacy", "qlora"]:
            assert line[4] in commands
        elif line[1] != "-m":
            assert (ROOT / line[1]).is_file()
        for config in (word for word in line if word.endswith(".cfg")):
            assert (ROOT / config).is_file()


def test_every_input_is_an_asset_an_output_or_in_the_repository(project: dict[str, Any]) -> None:
    made = {asset["dest"] for asset in project["assets"]}
    made.update(output for command in project["commands"] for output in command.get("outputs", []))
    for command in project["commands"]:
        assert all(dep in made or (ROOT / dep).is_file() for dep in command.get("deps", [])), command["name"]


def test_weasel_never_hashes_weights(project: dict[str, Any]) -> None:
    paths = {path for command in project["commands"] for key in ("deps", "outputs") for path in command.get(key, [])}
    assert {path for path in paths if path.startswith("assets/base")} == {"assets/base/base.json"}


def test_assets_are_pinned_and_not_needed_by_default(project: dict[str, Any]) -> None:
    for asset in project["assets"]:
        assert asset["extra"]
        assert re.search(r"/[0-9a-f]{40}/", asset["url"])
        assert re.fullmatch(r"[0-9a-f]{32}", asset["checksum"])


def test_variables_reach_the_commands(folder: Path) -> None:
    overrides = {"vars.base": "some/base", "vars.config": "my.cfg", "vars.corpus": "assets/mine", "vars.gpu": "cuda:1"}
    lines = [" ".join(line) for line in scripts(load_project_config(folder, overrides=overrides))]
    assert "python -m spacy qlora base some/base assets/base" in lines
    assert any("qlora train my.cfg" in line and line.endswith("cuda:1") for line in lines)
    assert any("qlora convert --train assets/mine/train.json" in line for line in lines)
    # The generator never writes into a folder of the user's.
    assert any(line.startswith("python scripts/make_corpus.py assets/demo ") for line in lines)


def test_readme_begins_with_the_main_job_and_the_tests() -> None:
    assert fenced_blocks()[:2] == [
        'python -m pip install -e ".[demo]"\npython -m spacy project run all\n',
        'python -m pip install -e ".[dev,demo]"\npython -m pytest\n',
    ]


def test_readme_shows_the_project_file_as_it_is(folder: Path) -> None:
    shutil.copy(ROOT / "README.md", folder)
    project_document(folder, folder / "README.md")
    assert (folder / "README.md").read_text(encoding="utf8") == README
