"""What is pushed comes back, to the byte, and predicts the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
from spacy.language import Language

from spacy_qlora.hub.contents import list_files
from tests.conftest import TEXTS
from tests.hub.conftest import contents, run
from tests.hub.server import WRITER, Hub, Repository

REPO = "clinic/en_notes"
# As its users do it, in processes of their own; then what the model card says.
THERE_AND_BACK = """
import json, re, sys
from huggingface_hub import hf_hub_download
from spacy.cli._util import app
import spacy_qlora.cli

pipeline, repo, out, texts = sys.argv[1:]
app(["qlora", "push", pipeline, repo], standalone_mode=False)
app(["qlora", "pull", repo, out], standalone_mode=False)
card = open(hf_hub_download(repo, "README.md")).read()
exec(re.search("```python\\n(.*?)```", card, re.S)[1])
print(json.dumps([[(ent.text, ent.label_) for ent in nlp(text).ents] for text in json.loads(texts)]))
"""
FROM_THE_CACHE = """
import socket, sys
def refuse(*_):
    raise SystemExit("asked the network")
socket.socket.connect = socket.getaddrinfo = refuse
from spacy.cli._util import app
import spacy_qlora.cli
app(["qlora", "pull", *sys.argv[1:]])
"""


def found(nlp: Language) -> list[list[tuple[str, str]]]:
    return [[(ent.text, ent.label_) for ent in nlp(text).ents] for text, _ in TEXTS]


def test_there_and_back_and_from_the_cache(hub: Hub, pipeline: Path, base: Path, tmp_path: Path) -> None:
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": WRITER, "HF_HUB_DISABLE_XET": "1"}
    settings["SPACY_QLORA_BASE"] = str(base)

    def execute(program: str, *arguments: object, **more: str) -> str:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        environment = {**os.environ, **settings, **more}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    texts = json.dumps([text for text, _ in TEXTS])
    printed = execute(THERE_AND_BACK, pipeline, REPO, tmp_path / "out", texts).splitlines()[-1]
    assert contents(tmp_path / "out") == contents(pipeline)
    assert hub.blobs, "large files went by LFS"
    entities = [[tuple(ent) for ent in ents] for ents in json.loads(printed)]
    assert entities == found(spacy.load(pipeline))
    assert sum(map(len, entities)) == sum(len(spans) for _, spans in TEXTS)
    execute(FROM_THE_CACHE, REPO, tmp_path / "again", HF_HUB_OFFLINE="1")
    assert contents(tmp_path / "again") == contents(pipeline)


def test_an_adapter_alone(
    online: Hub, pipeline: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACY_QLORA_BASE", str(base))
    assert run("push", pipeline, REPO, "--adapter-only").exit_code == 0
    assert run("pull", REPO, tmp_path / "out").exit_code == 0
    assert contents(tmp_path / "out") == contents(pipeline / "qlora_ner")
    code = re.search("```python\n(.*?)```", online.repositories[REPO].files["README.md"].decode(), re.S)
    assert code
    exec(code[1], scope := {})
    assert found(scope["nlp"]) == found(spacy.load(pipeline))


def test_what_is_no_part_of_the_pipeline_stays_here(online: Hub, pipeline: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(pipeline, tmp_path / "model")
    for name in ("notes.txt", "evil.pkl", ".env", "vocab/words.bin", "train.spacy", "other/adapter/x.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("ZQXPATIENT")
    result = run("push", folder, REPO)
    assert result.exit_code == 0, result.output
    assert f"{online.url}/{REPO}: {len(contents(pipeline)) + 1} files" in " ".join(result.output.split())
    pushed = online.repositories[REPO].files
    assert set(pushed) == set(contents(pipeline)) | {"README.md", ".gitattributes"}
    assert not any(b"ZQXPATIENT" in data for data in pushed.values())


def test_a_push_replaces_the_last_one_and_nothing_else(online: Hub, pipeline: Path, tmp_path: Path) -> None:
    run("push", pipeline, REPO)
    repository = online.repositories[REPO]
    repository.commit({**repository.files, "LICENSE": b"MIT"})
    first = repository.main
    assert run("push", pipeline, REPO, "--adapter-only").exit_code == 0
    adapter = contents(pipeline / "qlora_ner")
    assert set(repository.files) == {*adapter, "README.md", ".gitattributes", "LICENSE"}
    assert run("pull", REPO, tmp_path / "out").exit_code == 0
    assert contents(tmp_path / "out") == adapter
    assert run("pull", REPO, tmp_path / "out", "--revision", first).exit_code == 0
    assert contents(tmp_path / "out") == contents(pipeline), "over what an earlier pull wrote"


def test_a_pull_replaces_nothing_of_another_origin(online: Hub, pipeline: Path, tmp_path: Path) -> None:
    run("push", pipeline, REPO)
    assert run("pull", REPO, tmp_path / "out").exit_code == 0
    (tmp_path / "out" / "thesis.txt").write_text("")
    result = run("pull", REPO, tmp_path / "out")
    assert result.exit_code == 1
    assert "[Q004]" in result.stderr
    assert (tmp_path / "out" / "thesis.txt").exists()


def test_a_tokenizer_that_is_a_folder_goes_along(pipeline: Path, tmp_path: Path) -> None:
    """As that of Chinese."""
    folder = Path(shutil.copytree(pipeline, tmp_path / "model"))
    (folder / "tokenizer").unlink()
    spacy.blank("zh").tokenizer.to_disk(folder / "tokenizer")
    assert "tokenizer/cfg" in list_files(folder)


def test_other_components_and_a_carried_base_go_along(online: Hub, pipeline: Path, tmp_path: Path) -> None:
    nlp = spacy.load(pipeline, config={"components.qlora_ner.carry_base": True})
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "Drug", "pattern": "81"}])  # type: ignore[attr-defined]
    nlp.to_disk(tmp_path / "model")
    shutil.copy(pipeline / "vocab" / "strings.json", tmp_path / "model" / "vocab" / "strings.json")
    assert run("push", tmp_path / "model", REPO).exit_code == 0
    assert run("pull", REPO, tmp_path / "out").exit_code == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "model")
    assert "qlora_ner/base/model.safetensors" in contents(tmp_path / "out")
    assert found(spacy.load(tmp_path / "out"))[2][1] == ("81", "Drug")
    assert "is part of it" in online.repositories[REPO].files["README.md"].decode()
    run("push", tmp_path / "model", REPO, "--adapter-only")
    assert not any(name.startswith("base/") for name in online.repositories[REPO].files)


def test_a_name_without_an_owner_is_ones_own(online: Hub, pipeline: Path) -> None:
    assert run("push", pipeline, "en_notes").exit_code == 0
    assert 'snapshot_download("me/en_notes")' in online.repositories["me/en_notes"].files["README.md"].decode()


def test_a_repository_with_no_model_yet(online: Hub, pipeline: Path) -> None:
    online.repositories[REPO] = Repository()
    online.repositories[REPO].commit({"README.md": b"Soon.", "LICENSE": b"MIT"})
    assert run("push", pipeline, REPO).exit_code == 0
    assert "LICENSE" in online.repositories[REPO].files


def test_a_private_repository(online: Hub, pipeline: Path, tmp_path: Path) -> None:
    assert run("push", pipeline, REPO, "--private").exit_code == 0
    assert online.repositories[REPO].private
    assert run("push", pipeline, REPO, "--private").exit_code == 0
    assert run("push", pipeline, "clinic/public").exit_code == 0
    assert not online.repositories["clinic/public"].private
    commits = len(online.repositories["clinic/public"].commits)
    assert "[Q809]" in run("push", pipeline, "clinic/public", "--private").stderr
    assert len(online.repositories["clinic/public"].commits) == commits
