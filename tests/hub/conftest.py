"""A hub on this machine, and a pipeline to push there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.file_download
import huggingface_hub.utils
import pytest
import spacy
from click.testing import Result
from spacy.cli._util import app
from typer.testing import CliRunner

import spacy_qlora.cli  # noqa: F401
from spacy_qlora.training.save import save_pipeline
from tests.hub.server import WRITER, Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hub
    hub.shutdown()
    hub.server_close()
    thread.join()


@pytest.fixture
def online(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """The hub that this process talks to, with a cache of its own and a token that may write."""
    settings = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "hf"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }
    for name, value in settings.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    # A connection that is kept from an offline test would stay offline; 0.x and later name this differently.
    forget = getattr(huggingface_hub.utils, "close_session", None) or huggingface_hub.utils.reset_sessions
    forget()
    template = settings["HUGGINGFACE_CO_URL_TEMPLATE"]  # of which 0.x has a second one
    monkeypatch.setattr(huggingface_hub.file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    return hub


@pytest.fixture(scope="session")
def pipeline(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained pipeline as `spacy qlora train` saves it, without words of texts. Not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "model-best"
    save_pipeline(spacy.load(trained), folder)
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["qlora", *map(str, arguments)], prog_name="spacy")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
