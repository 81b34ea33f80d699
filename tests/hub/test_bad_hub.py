"""Wrong input to `push` and `pull`, and a hub that refuses: one line, and nothing half done."""

from __future__ import annotations

import json
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import spacy
import srsly
from click.testing import Result

from tests.conftest import file_size_limit
from tests.hub.conftest import contents, run
from tests.hub.server import READER, Hub, Repository

REPO = "clinic/en_notes"
BARS = ("Fetching", "Upload", "adapter_model", "head", "Download")


def assert_one_line(result: Result, code: str, named: object = "") -> None:
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if line.strip() and not line.strip().startswith(BARS)]
    assert len(lines) == 1, result.output
    assert lines[0].startswith(f"Error: [{code}] ")
    assert str(named) in lines[0]
    assert "ZQXPATIENT" not in result.output


@pytest.fixture
def own(pipeline: Path, tmp_path: Path) -> Path:
    """A copy of the pipeline that a test may change."""
    return shutil.copytree(pipeline, tmp_path / "model")


@pytest.fixture
def pushed(online: Hub, pipeline: Path) -> Hub:
    """The hub after a push."""
    assert run("push", pipeline, REPO).exit_code == 0
    return online


# What is pushed


def change_json(name: str, **values: object) -> Callable[[Path], None]:
    return lambda folder: srsly.write_json(folder / name, {**srsly.read_json(folder / name), **values})


def save_with_texts(folder: Path) -> None:
    nlp = spacy.load(folder)
    nlp("ZQXPATIENT took aspirin.")
    nlp.to_disk(folder)


def add_trained(folder: Path) -> None:
    nlp = spacy.load(folder)
    ner = nlp.add_pipe("ner")
    ner.add_label("Drug")  # type: ignore[attr-defined]
    ner.initialize(lambda: [spacy.training.Example.from_dict(nlp.make_doc("x"), {"entities": []})], nlp=nlp)
    strings = (folder / "vocab" / "strings.json").read_bytes()
    nlp.to_disk(folder)
    (folder / "vocab" / "strings.json").write_bytes(strings)


def forget_training(folder: Path) -> None:
    change_json("qlora_ner/cfg", trained=False)(folder)


def drop_component(folder: Path) -> None:
    config = (folder / "config.cfg").read_text()
    (folder / "config.cfg").write_text(config.replace('["qlora_ner"]', "[]"))


def climb(folder: Path) -> None:
    config = (folder / "config.cfg").read_text()
    (folder / "config.cfg").write_text(config.replace('["qlora_ner"]', '["qlora_ner", "../x"]'))


PIPELINES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no such folder": (shutil.rmtree, "Q800", "model"),
    "no config": (lambda folder: (folder / "config.cfg").unlink(), "Q800", "model"),
    "no meta.json": (lambda folder: (folder / "meta.json").unlink(), "Q800", "model"),
    "meta.json broken": (lambda folder: (folder / "meta.json").write_text("[]"), "Q800", "model"),
    "meta.json of another shape": (change_json("meta.json", labels=["Drug"]), "Q800", "model"),
    "no qlora_ner": (drop_component, "Q800", "model"),
    "a name that leads elsewhere": (climb, "Q800", "model"),
    "not trained": (forget_training, "Q800", "model"),
    "a part missing": (lambda folder: (folder / "qlora_ner" / "head.safetensors").unlink(), "Q305", "qlora_ner"),
    "a pickle in it": (lambda folder: (folder / "qlora_ner" / "x.bin").write_bytes(pickle.dumps(1)), "Q308", "x.bin"),
    "words of texts": (save_with_texts, "Q802", "strings.json"),
    "no strings": (lambda folder: (folder / "vocab" / "strings.json").unlink(), "Q305", "strings.json"),
    "a component that keeps other files": (add_trained, "Q801", "ner"),
}


@pytest.mark.parametrize(("damage", "code", "named"), PIPELINES.values(), ids=PIPELINES)
def test_a_wrong_pipeline(online: Hub, own: Path, damage: Callable[[Path], object], code: str, named: str) -> None:
    damage(own)
    assert_one_line(run("push", own, REPO), code, named)
    assert online.repositories == {}


def test_two_components_have_no_single_adapter(online: Hub, own: Path) -> None:
    shutil.copytree(own / "qlora_ner", own / "second")
    config = spacy.util.load_config(own / "config.cfg")
    config["nlp"]["pipeline"] = ["qlora_ner", "second"]
    config["components"]["second"] = dict(config["components"]["qlora_ner"])
    config.to_disk(own / "config.cfg")
    assert_one_line(run("push", own, REPO, "--adapter-only"), "Q810", "2 components")
    assert run("push", own, REPO).exit_code == 0
    assert "second/head.safetensors" in online.repositories[REPO].files


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"ents_f": 1}', '{"ents_p": 1, "ents_r": 1, "ents_f": 1, "ents_per_type": {"X": {}}}', "\xff"],
)
def test_wrong_metrics(online: Hub, pipeline: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.json").write_bytes(content.encode("latin1"))
    assert_one_line(run("push", pipeline, REPO, "--metrics", tmp_path / "metrics.json"), "Q803", "metrics.json")
    assert_one_line(run("push", pipeline, REPO, "--metrics", tmp_path / "none.json"), "Q003", "none.json")


def test_a_card_that_the_hub_refuses(online: Hub, own: Path) -> None:
    change_json("meta.json", license="Proprietary")(own)
    assert_one_line(run("push", own, REPO), "Q811", REPO)
    assert list(online.repositories[REPO].files) == [".gitattributes"]


# The hub


@pytest.mark.parametrize(("token", "code"), [("", "Q804"), ("hf_unknown", "Q804"), (READER, "Q805")])
def test_no_right_to_push(online: Hub, pipeline: Path, monkeypatch: pytest.MonkeyPatch, token: str, code: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert_one_line(run("push", pipeline, REPO), code, REPO)
    assert online.repositories == {}


@pytest.mark.parametrize("repo", ["no such/id", "a/b/c", "../x"])
def test_a_name_that_is_none(online: Hub, pipeline: Path, tmp_path: Path, repo: str) -> None:
    assert_one_line(run("push", pipeline, repo), "Q001", repo)
    assert_one_line(run("pull", repo, tmp_path / "out"), "Q001", repo)


def test_what_is_not_there_or_not_for_all(
    pushed: Hub, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert_one_line(run("pull", "clinic/none", out), "Q806", "clinic/none")
    assert_one_line(run("pull", REPO, out, "--revision", "v2"), "Q806", REPO)
    run("push", pipeline, "clinic/private", "--private")
    monkeypatch.setenv("HF_TOKEN", "")
    assert_one_line(run("pull", "clinic/private", out), "Q806", "clinic/private")
    pushed.repositories[REPO].gated = True
    assert_one_line(run("pull", REPO, out), "Q209", REPO)
    assert not out.exists()


def test_no_network(online: Hub, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:  # bound, so that no one else listens there
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert_one_line(run("push", pipeline, REPO), "Q807", REPO)
        assert_one_line(run("pull", REPO, tmp_path / "out"), "Q211", REPO)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert_one_line(run("push", pipeline, REPO), "Q807", REPO)
    assert_one_line(run("pull", REPO, tmp_path / "out"), "Q211", REPO)
    assert online.asked == []


def test_a_hub_out_of_order(online: Hub, pipeline: Path, tmp_path: Path) -> None:
    online.broken = 500
    assert_one_line(run("push", pipeline, REPO), "Q807", "500")
    assert_one_line(run("pull", REPO, tmp_path / "out"), "Q211", REPO)


# What is pulled


def test_files_that_could_hold_code_are_left_there(pushed: Hub, pipeline: Path, tmp_path: Path) -> None:
    names = "setup.py x.pkl other.safetensors vocab/x.bin ner/model qlora_ner/extra.json qlora_ner/modeling.py"
    evil = dict.fromkeys([*names.split(), "qlora_ner/adapter/adapter_model.bin"], pickle.dumps(1))
    repository = pushed.repositories[REPO]
    repository.commit({**repository.files, **evil})
    assert run("pull", REPO, tmp_path / "out").exit_code == 0
    assert contents(tmp_path / "out") == contents(pipeline)


@pytest.mark.parametrize("name", ["../evil.json", "qlora_ner/../../../evil.json", "/tmp/evil.json"])
def test_a_name_that_leads_out_of_the_folder(pushed: Hub, tmp_path: Path, name: str) -> None:
    repository = pushed.repositories[REPO]
    repository.commit({**repository.files, name: b"{}"})
    result = run("pull", REPO, tmp_path / "deep" / "out")
    # The versions of the hub's library refuse such a name in ways of their own, or leave it there without a word.
    assert result.exit_code == 0 or result.stderr.splitlines()[-1].startswith("Error: [Q")
    found = [path for path in tmp_path.rglob("evil.json") if not path.is_relative_to(tmp_path / "hf")]
    assert found == [], "if anywhere, it lies in the hub's own cache"
    assert not Path("/tmp/evil.json").exists()


CHANGES: dict[str, dict[str, bytes | None]] = {
    "a pickle in place of the head": {"qlora_ner/head.safetensors": pickle.dumps([1])},
    "no adapter": {"qlora_ner/adapter/adapter_model.safetensors": None},
    "no config": {"config.cfg": None},
    "another config": {"config.cfg": b"ZQXPATIENT"},
    "cfg broken": {"qlora_ner/cfg": b"{"},
    "labels of something else": {"qlora_ner/cfg": json.dumps({"labels": ["ZQXPATIENT"]}).encode()},
    "base.json leads elsewhere": {"qlora_ner/base.json": json.dumps({"id": "../../etc"}).encode()},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_broken_there_leaves_the_folder_as_it_was(
    pushed: Hub, tmp_path: Path, change: dict[str, bytes | None]
) -> None:
    out = tmp_path / "out"
    assert run("pull", REPO, out).exit_code == 0
    before, repository = contents(out), pushed.repositories[REPO]
    files = {**repository.files, **change}
    repository.commit({name: data for name, data in files.items() if data is not None})
    assert_one_line(run("pull", REPO, out), "Q808", REPO)
    assert contents(out) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_a_repository_of_something_else(online: Hub, pipeline: Path, tmp_path: Path) -> None:
    online.repositories["org/bert"] = Repository()
    online.repositories["org/bert"].commit({"config.json": b"{}", "model.safetensors": b""})
    assert_one_line(run("pull", "org/bert", tmp_path / "out"), "Q808", "org/bert")
    assert not (tmp_path / "out").exists()
    commits = len(online.repositories["org/bert"].commits)
    for options in ((), ("--adapter-only",)):
        assert_one_line(run("push", pipeline, "org/bert", *options), "Q812", "org/bert")
    assert len(online.repositories["org/bert"].commits) == commits


def test_where_it_is_pulled_to(pushed: Hub, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work")
    asked = len(pushed.asked)
    assert_one_line(run("pull", REPO, tmp_path / "thesis"), "Q004", "thesis")
    assert len(pushed.asked) == asked
    assert run("pull", REPO, tmp_path / "first").exit_code == 0, "fills the cache"
    with file_size_limit(5_000):
        assert_one_line(run("pull", REPO, tmp_path / "out"), "Q002")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["push", "pull"])
def test_wrong_usage(command: str) -> None:
    assert run(command, "one").exit_code == 2
