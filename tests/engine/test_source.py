from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from spacy_qlora.engine.base import load_base
from spacy_qlora.engine.info import BaseInfo
from spacy_qlora.engine.source import cache_folder, find_base, make_base
from spacy_qlora.errors import InputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def own_checkpoint(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(checkpoint, tmp_path / "checkpoint")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SPACY_QLORA_BASE", raising=False)
    monkeypatch.setenv("SPACY_QLORA_CACHE", str(tmp_path / "cache"))


def change_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_local_folder_gives_its_name_alone(checkpoint: Path, base: Path) -> None:
    """Its whole path would travel with every pipeline."""
    info = BaseInfo.from_folder(base)
    assert (info.id, info.revision) == (checkpoint.name, "")


def test_shards_are_one_checkpoint(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    shutil.copy(checkpoint / "tokenizer.json", tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 3
    assert make_base(str(tmp_path / "sharded"), tmp_path / "base").fingerprint == BaseInfo.from_folder(base).fingerprint
    next((tmp_path / "sharded").glob("model-00002-*")).unlink()
    with pytest.raises(InputError, match="Q212"):
        make_base(str(tmp_path / "sharded"), tmp_path / "cut")
    assert not (tmp_path / "cut").exists()


@pytest.mark.parametrize("index", [["a"], {"weight_map": {"a": 5}}, {"weight_map": {"a": "../b"}}, {}])
def test_a_damaged_index_of_shards(own_checkpoint: Path, tmp_path: Path, index: object) -> None:
    (own_checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="Q214"):
        make_base(str(own_checkpoint), tmp_path / "base")


def test_a_llama_without_biases_is_a_mistral(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=320,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    model.load_state_dict(AutoModelForCausalLM.from_pretrained(checkpoint).state_dict())
    model.save_pretrained(tmp_path / "llama")
    shutil.copy(checkpoint / "tokenizer.json", tmp_path / "llama")
    make_base(str(tmp_path / "llama"), tmp_path / "base")
    one, other = (load_base(folder, torch.device("cpu"), torch.bfloat16) for folder in (base, tmp_path / "base"))
    assert (tmp_path / "base" / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    assert torch.equal(one.rotary.inv_freq, other.rotary.inv_freq)


def test_where_nothing_begins_a_text_no_piece_is_put_there(own_checkpoint: Path, base: Path, tmp_path: Path) -> None:
    change_config(own_checkpoint, bos_token_id=None)
    make_base(str(own_checkpoint), tmp_path / "base")
    found = [load_base(folder, torch.device("cpu"), torch.bfloat16).config for folder in (base, tmp_path / "base")]
    assert [config.bos_token_id for config in found] == [0, None]


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "gpt2"},
        {"model_type": "mixtral"},
        {"model_type": "qwen2"},
        {"model_type": "llama", "attention_bias": True},
        {"model_type": "llama", "mlp_bias": True},
        {"model_type": "mistral", "hidden_act": "gelu"},
    ],
    ids=str,
)
def test_other_architectures_are_refused(own_checkpoint: Path, tmp_path: Path, fields: dict[str, object]) -> None:
    change_config(own_checkpoint, **fields)
    with pytest.raises(InputError, match="Q213"):
        make_base(str(own_checkpoint), tmp_path / "base")
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_incomplete_folder_is_refused(own_checkpoint: Path, tmp_path: Path, name: str) -> None:
    (own_checkpoint / name).unlink()
    with pytest.raises(InputError, match="Q212"):
        make_base(str(own_checkpoint), tmp_path / "base")


def test_pickles_are_not_read(own_checkpoint: Path, tmp_path: Path) -> None:
    weights = load_file(own_checkpoint / "model.safetensors")
    torch.save(weights, own_checkpoint / "pytorch_model.bin")
    (own_checkpoint / "model.safetensors").unlink()
    with pytest.raises(InputError, match="Q212"):
        make_base(str(own_checkpoint), tmp_path / "base")


def test_mistrals_own_format_beside_it_is_not_read(own_checkpoint: Path, base: Path, tmp_path: Path) -> None:
    save_file({"model.norm.weight": torch.zeros(64)}, own_checkpoint / "consolidated.safetensors")
    info = make_base(str(own_checkpoint), tmp_path / "base")
    assert info.fingerprint == BaseInfo.from_folder(base).fingerprint


def test_a_cut_file_is_refused(own_checkpoint: Path, tmp_path: Path) -> None:
    path = own_checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match="Q214") as caught:
        make_base(str(own_checkpoint), tmp_path / "base")
    assert caught.value.where["path"] == path


def test_a_base_is_no_checkpoint(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Q208"):
        make_base(str(base), tmp_path / "base")


@pytest.mark.parametrize("name", ["no such folder", "a/b/c", "../x"])
def test_a_name_that_can_be_nothing_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="Q001"):
        make_base(name, tmp_path / "base")


# The hub's cache, in a process of its own: huggingface_hub reads its environment when it is imported.

OFFLINE = """
import socket, sys
from pathlib import Path

def refuse(*_):
    raise AssertionError("asked the network")

socket.socket.connect = socket.getaddrinfo = refuse
from spacy_qlora.engine.info import BaseInfo
from spacy_qlora.engine.source import find_base, make_base
from spacy_qlora.errors import QLoRAError

out, commit = Path(sys.argv[1]), sys.argv[2]
print(make_base("org/tiny", out / "base").revision)
print(make_base("org/tiny", out / "base", commit).fingerprint)
found = find_base("org/tiny", None, None)
print(found.name, find_base("org/tiny", None, None) == found)
print(find_base("org/tiny", None, BaseInfo.from_folder(found)) == found)
print(find_base("elsewhere/gone", None, BaseInfo(id="org/tiny", revision=commit)).name)
for name, revision in (("org/other", None), ("org/tiny", "v2"), ("smollm2-135m", None)):
    try:
        make_base(name, out / "none", revision)
    except QLoRAError as error:
        print(error.code, type(error).__name__, str(error).count(chr(10)), (out / "none").exists())
"""


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
def test_the_hub_cache_is_enough_offline(checkpoint: Path, base: Path, tmp_path: Path, variable: str) -> None:
    hub = tmp_path / "hf" / "hub"
    repository = hub / "models--org--tiny"
    snapshot = repository / "snapshots" / COMMIT
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for i, path in enumerate(checkpoint.iterdir()):
        shutil.copy(path, repository / "blobs" / str(i))
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", str(i)))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    where = {"HF_HOME": hub.parent, "HF_HUB_CACHE": hub}[variable]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(tmp_path), COMMIT],
        env={**clean, variable: str(where), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        COMMIT,
        BaseInfo.from_folder(base).fingerprint,
        "org--tiny@main True",
        "True",
        f"org--tiny@{COMMIT}",
        "Q211 InputError 0 False",
        "Q211 InputError 0 False",
        "Q216 RunError 0 False",
    ]


# Where a pipeline looks for its base.


def test_the_environment_comes_first(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (shutil.copytree(base, tmp_path / name) for name in ("first", "second", "third"))
    trained_on = BaseInfo.from_folder(base)
    assert find_base(str(second), None, None) == second
    assert find_base(str(second), third, trained_on) == second
    monkeypatch.setenv("SPACY_QLORA_BASE", str(first))
    assert find_base(str(second), third, trained_on) == first


def test_another_base_where_the_setting_points_does_not_stand_before_the_carried_one(
    base: Path, tmp_path: Path
) -> None:
    other, carried = (shutil.copytree(base, tmp_path / name) for name in ("other", "carried"))
    BaseInfo(id="other").to_folder(other)
    assert find_base(str(other), carried, BaseInfo.from_folder(base)) == carried


@pytest.mark.parametrize("name", ["nowhere", "empty", "component"])
def test_the_environment_is_not_overruled_by_what_else_is_there(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    component = shutil.copytree(base, tmp_path / "component")
    (component / "head.safetensors").touch()  # as beside the base.json of a trained component
    monkeypatch.setenv("SPACY_QLORA_BASE", str(tmp_path / name))
    with pytest.raises(InputError, match="Q218"):
        find_base(str(base), base, None)


def test_a_carried_base_comes_before_one_that_must_be_made(base: Path, checkpoint: Path) -> None:
    info = BaseInfo.from_folder(base)
    for setting in ("smollm2-135m", "org/unknown", str(checkpoint)):
        assert find_base(setting, base, info) == base


def test_a_checkpoint_is_quantised_once_into_the_cache(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    found = find_base(str(checkpoint), None, None)
    assert found.is_relative_to(tmp_path / "cache")
    before = (found / "model.safetensors").stat().st_mtime_ns
    assert find_base(str(checkpoint), None, None) == found
    assert (found / "model.safetensors").stat().st_mtime_ns == before
    assert BaseInfo.from_folder(found).fingerprint == BaseInfo.from_folder(base).fingerprint
    load_base(found, torch.device("cpu"), torch.bfloat16)


def test_what_a_pipeline_was_trained_on_stands_in_for_a_folder_that_is_gone(
    checkpoint: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline trained on a base made in assets/base/ and used on another machine."""
    monkeypatch.chdir(checkpoint.parent)
    found = find_base("assets/base", None, BaseInfo(id=checkpoint.name))
    assert BaseInfo.from_folder(found).fingerprint == BaseInfo.from_folder(base).fingerprint


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("SPACY_QLORA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "spacy-qlora"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "spacy-qlora"
