"""Every block of code in README and docs/ runs, page by page, in a copy of the project with a tiny base."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import spacy

from spacy_qlora.training.save import save_pipeline
from tests.hub.server import WRITER, Hub, Repository

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What a block prints is compared where a block of this kind follows it.
OUTPUT = "text"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
TESTS = "python -m pytest"  # README's second block: .ci/run runs it


@dataclass(frozen=True)
class Block:
    kind: str
    code: str
    line: int
    output: str | None = None


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf8")
    blocks: list[Block] = []
    for match in BLOCK.finditer(text):
        kind, code = match.groups()
        if kind == OUTPUT:
            last = blocks.pop()
            blocks.append(Block(last.kind, last.code, last.line, code))
        else:
            blocks.append(Block(kind, code, text.count("\n", 0, match.start()) + 2))
    return blocks


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_names_its_kind(page: Path) -> None:
    assert {block.kind for block in read_blocks(page)} <= {"python", "bash", "json", "ini"}


def with_shell(slow: bool) -> list[Path]:
    """The pages on which something is run from the shell, or those on which nothing is."""
    return [page for page in PAGES if any(block.kind == "bash" for block in read_blocks(page)) == slow]


@pytest.mark.parametrize("page", with_shell(False), ids=lambda page: page.stem)
def test_blocks(page: Path, project: Path) -> None:
    run_page(page, project)


@pytest.mark.slow
@pytest.mark.parametrize("page", with_shell(True), ids=lambda page: page.stem)
def test_blocks_with_commands(page: Path, project: Path) -> None:
    run_page(page, project)


def run_page(page: Path, project: Path) -> None:
    if page.stem == "transformers":
        pytest.importorskip("spacy_transformers")
    names: dict[str, Any] = {}
    for block in read_blocks(page):
        place = f"{page.relative_to(ROOT)}:{block.line}"
        printed = {"python": run_python, "bash": run_bash, "json": read_json, "ini": read_config}[block.kind](
            block, place, names
        )
        if block.output is not None:
            assert printed == block.output, place


def run_python(block: Block, place: str, names: dict[str, Any]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile("\n" * (block.line - 1) + block.code, place, "exec"), names)
    return printed.getvalue()


def run_bash(block: Block, place: str, names: dict[str, Any]) -> str:
    if TESTS in block.code:
        return ""
    done = subprocess.run(["bash", "-e"], input=block.code, capture_output=True, text=True)
    assert done.returncode == 0, f"{place}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def read_json(block: Block, place: str, names: dict[str, Any]) -> str:
    assert json.loads(block.code), place
    return ""


def read_config(block: Block, place: str, names: dict[str, Any]) -> str:
    parser = ConfigParser()
    parser.read_string(block.code, source=place)
    assert all(json.loads(value) for section in parser.sections() for value in parser[section].values())
    return ""


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[Hub]:
    """A hub on this machine that has the tiny checkpoint under the name of a large one."""
    hub = Hub()
    hub.repositories["mistralai/Mistral-7B-v0.3"] = repository = Repository()
    repository.commit({path.name: path.read_bytes() for path in checkpoint.iterdir()})
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield hub
    hub.shutdown()
    hub.server_close()


@pytest.fixture(scope="session")
def prepared(checkpoint: Path, trained: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project as after its main job: small data, a tiny base, a pipeline that learned a few texts."""
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "results")
    made = {"assets", "corpus", "training", "metrics", "packages", "search", "site"}  # by the project's own runs

    def ignore(place: str, names: list[str]) -> set[str]:
        return ignored(place, names) | (made if Path(place) == ROOT else set())

    folder = shutil.copytree(ROOT, tmp_path_factory.mktemp("prepared") / "project", ignore=ignore)
    save_pipeline(spacy.load(trained), folder / "training" / "model-best")
    shutil.copytree(base, folder / "assets" / "base")
    make_corpora(folder)
    shrink(folder, checkpoint)
    return folder


@pytest.fixture
def project(prepared: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is prepared, to be changed, and an environment in which nothing is fetched or installed."""
    folder = shutil.copytree(prepared, tmp_path / "project")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    places = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "SPACY_QLORA_CACHE": str(tmp_path / "cache")}
    for name, value in {**places, "HF_TOKEN": WRITER, "HF_HUB_DISABLE_XET": "1"}.items():
        monkeypatch.setenv(name, value)
    # The environment is there already: pip shows that it would install, without the network.
    for name in ("DRY_RUN", "NO_DEPS", "NO_INDEX", "DISABLE_PIP_VERSION_CHECK"):
        monkeypatch.setenv(f"PIP_{name}", "1")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # pip takes the value for that of build isolation
    return folder


def make_corpora(folder: Path) -> None:
    """notes.json as a user has it; corpus/ as converted from it; BC5CDR's files, in its columns."""

    def run(*command: str) -> None:
        subprocess.run([sys.executable, *command], cwd=folder, check=True)

    run("scripts/make_corpus.py", "assets/demo", "--sentences", "60")
    for path in (folder / "assets" / "demo").glob("*.json"):  # with the labels that the pipeline knows
        text = path.read_text(encoding="utf8").replace("-Medication", "-Drug")
        path.write_text(re.sub("[BI]-(Procedure|LabTest)", "O", text), encoding="utf8")
    shutil.copy(folder / "assets" / "demo" / "train.json", folder / "notes.json")
    splits = [part for name in ("train", "dev", "test") for part in (f"--{name}", f"assets/demo/{name}.json")]
    run("-m", "spacy", "qlora", "convert", *splits, "corpus")
    (folder / "assets" / "bc5cdr").mkdir()
    for source, name in (("train", "train"), ("dev", "devel"), ("test", "test")):
        records = json.loads((folder / "assets" / "demo" / f"{source}.json").read_text(encoding="utf8"))
        rows = [[f"{label['word']}\t{label['entity']}\n" for label in record["labels"]] for record in records]
        text = "\n".join("".join(lines) for lines in rows)
        (folder / "assets" / "bc5cdr" / f"{name}.tsv").write_text(text, encoding="utf8")


def shrink(folder: Path, checkpoint: Path) -> None:
    """Makes the project's own runs short: its default base, its made-up corpus, its epochs; no download."""
    path = folder / "project.yml"
    text = path.read_text(encoding="utf8").replace("base: smollm2-135m", f"base: {checkpoint}")
    text = re.sub(r"sentences: \d+", "sentences: 60", text)
    text = re.sub(r"url: https.*/(\w+.tsv)\n    checksum: .*\n", rf"url: file://{folder}/assets/bc5cdr/\1\n", text)
    path.write_text(text, encoding="utf8")
    for config in (folder / "configs").glob("*.cfg"):
        settings = config.read_text(encoding="utf8")
        config.write_text(re.sub(r"max_epochs = \d+", "max_epochs = 1", settings), encoding="utf8")
