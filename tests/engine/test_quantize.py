from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import QuantState, dequantize_4bit, quantize_4bit
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from spacy_qlora.engine.base import load_base
from spacy_qlora.engine.files import current_umask
from spacy_qlora.engine.info import BaseInfo
from spacy_qlora.engine.quantize import quantize, save_base
from spacy_qlora.engine.source import make_base, read_checkpoint, read_shards
from spacy_qlora.errors import InputError

INFO = BaseInfo(id="tiny")


def test_a_linear_becomes_what_bitsandbytes_makes_of_it() -> None:
    weight = torch.randn(32, 64)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors = quantize(name, weight)
    stats = {key: value for key, value in tensors.items() if key != name}
    state = QuantState.from_dict(stats, device=torch.device("cpu"))
    packed, expected = quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    assert torch.equal(tensors[name], packed)
    assert torch.equal(dequantize_4bit(tensors[name], state), dequantize_4bit(packed, expected))
    assert tensors[name].numel() == weight.numel() // 2


def test_the_number_of_threads_does_not_show() -> None:
    """PyTorch divides a sum of so many constants among them."""
    weight, before, made = torch.rand(2560, 1000), torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        made.append(quantize("up_proj.weight", weight))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*(each.values() for each in made), strict=True))


@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "model.layers.0.input_layernorm.weight", "lm_head.weight"]
)
def test_anything_else_becomes_bfloat16(name: str) -> None:
    weight = torch.randn(8, 8)
    assert torch.equal(quantize(name, weight)[name], weight.bfloat16())


def test_half_precision_checkpoints_are_read(checkpoint: Path, tmp_path: Path) -> None:
    shape, tokenizer = read_checkpoint(checkpoint)
    weights = ((name, weight.bfloat16()) for name, weight in read_shards(checkpoint))
    save_base(tmp_path / "base", INFO, shape, tokenizer, weights, "tiny")
    load_base(tmp_path / "base", torch.device("cpu"), torch.bfloat16)


def test_the_same_checkpoint_gives_the_same_base(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    info = make_base(str(checkpoint), tmp_path / "base")
    assert info == BaseInfo.from_folder(base) == BaseInfo.from_folder(tmp_path / "base")
    assert {path.name for path in base.iterdir()} == {"base.json", "config.json", "model.safetensors", "tokenizer.json"}
    for path in base.iterdir():
        assert (tmp_path / "base" / path.name).read_bytes() == path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def test_what_a_base_holds(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    assert not any(name.startswith("lm_head") for name in tensors)
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.uint8", "torch.float32", "torch.bfloat16"}
    assert json.loads((base / "config.json").read_text())["quantization_config"]["bnb_4bit_quant_type"] == "nf4"
    info = BaseInfo.from_folder(base)
    assert info.quantisation == {"type": "nf4", "double": True, "block": 64}
    assert len(info.fingerprint) == 64


def test_a_base_is_replaced_and_anything_else_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    out, other, empty = tmp_path / "base", tmp_path / "other", tmp_path / "empty"
    make_base(str(checkpoint), out)
    (out / "stale").touch()
    make_base(str(checkpoint), out)
    assert not (out / "stale").exists()
    empty.mkdir()
    make_base(str(checkpoint), empty)
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    for path in (other, other / "thesis.txt"):
        with pytest.raises(InputError, match="Q004"):
            make_base(str(checkpoint), path)
    assert (other / "thesis.txt").read_text() == "years of work"
    assert {path.name for path in tmp_path.iterdir()} == {"base", "other", "empty"}


def weights_that(checkpoint: Path, break_off: type[Exception] | None = None, drop: str = "", cut: str = "") -> Iterator:
    for i, (name, weight) in enumerate(read_shards(checkpoint)):
        if break_off is not None and i == 10:
            raise break_off
        if name != drop:
            yield name, weight[:-1] if name == cut else weight


NAME = "model.layers.1.self_attn.k_proj.weight"


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"break_off": KeyboardInterrupt}, KeyboardInterrupt),
        ({"break_off": OSError}, OSError),
        ({"drop": NAME}, InputError),
        ({"cut": NAME}, InputError),
        ({"drop": "model.norm.weight"}, InputError),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_a_conversion_that_fails_leaves_things_as_they_were(
    checkpoint: Path, tmp_path: Path, how: dict, error: type[BaseException], exists: bool
) -> None:
    shape, tokenizer = read_checkpoint(checkpoint)
    out = tmp_path / "base"
    if exists:
        make_base(str(checkpoint), out)
        before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(error) as caught:
        save_base(out, INFO, shape, tokenizer, weights_that(checkpoint, **how), "tiny")
    if error is InputError:
        assert caught.value.code == "Q204"
        assert caught.value.where["name"] == (how.get("drop") or how.get("cut"))
    assert [path.name for path in tmp_path.iterdir()] == (["base"] if exists else [])
    if exists:
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


FULL_DISK_THEN_KILLED = """
import errno, os, resource, signal, sys
from pathlib import Path
from spacy_qlora.engine.info import BaseInfo
from spacy_qlora.engine.quantize import save_base
from spacy_qlora.engine.source import make_base, read_checkpoint, read_shards

checkpoint, out = Path(sys.argv[1]), Path(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    make_base(str(checkpoint), out)
except OSError as error:
    print(errno.errorcode[error.errno], os.listdir(out.parent))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

class Killer:
    def to_str(self):  # when the weights are written already
        os.kill(os.getpid(), signal.SIGKILL)

shape, _ = read_checkpoint(checkpoint)
save_base(out, BaseInfo(id="tiny"), shape, Killer(), read_shards(checkpoint), "tiny")
"""


def test_a_full_disk_or_a_kill_leaves_no_base(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "base"
    done = run(FULL_DISK_THEN_KILLED, checkpoint, out)
    assert done.returncode == -9, done.stderr
    assert done.stdout == "EFBIG []\n"
    assert not out.exists()
    [left] = tmp_path.iterdir()
    assert not (left / "base.json").exists()
    with pytest.raises(InputError, match="Q201"):
        load_base(left, torch.device("cpu"), torch.bfloat16)
    make_base(str(checkpoint), out)
    load_base(out, torch.device("cpu"), torch.bfloat16)


def test_a_tokenizer_is_kept_as_it_is(checkpoint: Path, base: Path) -> None:
    one, other = (Tokenizer.from_file(str(folder / "tokenizer.json")).to_str() for folder in (checkpoint, base))
    assert one == other


def test_weights_may_come_in_any_order(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    shape, tokenizer = read_checkpoint(checkpoint)
    backwards: list[tuple[str, Tensor]] = list(read_shards(checkpoint))[::-1]
    info = save_base(tmp_path / "base", INFO, shape, tokenizer, [*backwards, ("extra.weight", torch.ones(1))], "tiny")
    assert info.fingerprint == BaseInfo.from_folder(base).fingerprint
