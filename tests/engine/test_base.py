from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, has_avx512bf16, quantize_4bit
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, MistralModel

from spacy_qlora.engine import heap
from spacy_qlora.engine.base import Base, fingerprint, load_base, read_config
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.optimizer import AdapterOptimizer
from spacy_qlora.engine.settings import ClassifierSettings, OptimizerSettings
from spacy_qlora.engine.source import make_base
from spacy_qlora.engine.window import Window
from spacy_qlora.errors import InputError
from tests.conftest import stock_4bit

CPU = torch.device("cpu")
CAUSAL = ClassifierSettings(bidirectional_from=None)
IDS = np.array([5, 80, 301, 17, 17, 250, 44, 9])


@pytest.fixture
def own_base(base: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(base, tmp_path / "base")


def dequantized(base: Path, checkpoint: Path) -> dict[str, Tensor]:
    """The checkpoint's weights as bitsandbytes itself rounds them, by the names of MistralModel."""
    weights = {}
    for name, weight in load_file(checkpoint / "model.safetensors").items():
        if name.endswith("_proj.weight"):
            weight = dequantize_4bit(*quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4"))
        else:
            weight = weight.to(torch.bfloat16).float()
        weights[name.removeprefix("model.")] = weight
    weights.pop("lm_head.weight", None)
    return weights


def hidden_states(classifier: TokenClassifier) -> Tensor:
    """The last hidden state of each piece of IDS behind begin-of-text, by a head that passes it on."""
    size = classifier.base.config.hidden_size
    adapter, _ = classifier.trained()
    classifier.load_trained(adapter, {"weight": torch.eye(size), "bias": torch.zeros(size)})
    places = np.arange(len(IDS))
    return torch.from_numpy(classifier.predict([Window(IDS, places, places)], budget=64)[0])


def stock_states(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(torch.tensor([[0, *IDS]]), use_cache=False).last_hidden_state[0, 1:].float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_those_of_bitsandbytes_bit_for_bit(base: Path, checkpoint: Path, dtype: torch.dtype) -> None:
    leaves = load_base(base, CPU, dtype).leaves
    expected = dequantized(base, checkpoint)
    assert {f"{name}.weight" for name in leaves} == expected.keys()
    for name, leaf in leaves.items():
        weight = leaf.weight
        if isinstance(leaf, Linear4bit):
            weight = dequantize_4bit(weight, weight.quant_state)
            assert leaf.weight.dtype == torch.uint8
        assert weight.dtype == dtype
        assert torch.equal(weight, expected[f"{name}.weight"].to(dtype)), name
        assert not leaf.weight.requires_grad


@pytest.mark.parametrize("layers", [None, 1, 2])
def test_hidden_states_are_those_of_a_plain_mistral(base: Path, checkpoint: Path, layers: int | None) -> None:
    config = AutoConfig.from_pretrained(checkpoint)
    config.num_hidden_layers = layers or config.num_hidden_layers
    plain = MistralModel(config).float()
    weights = dequantized(base, checkpoint)
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    settings = ClassifierSettings(layers=layers, bidirectional_from=None)
    ours = hidden_states(TokenClassifier(load_base(base, CPU, torch.float32), config.hidden_size, settings))
    torch.testing.assert_close(ours, stock_states(plain), atol=1e-5, rtol=0)


def test_transformers_reads_a_base(base: Path) -> None:
    stock = stock_4bit(base)
    assert sum(isinstance(module, Linear4bit) for module in stock.modules()) == 21
    ours = hidden_states(TokenClassifier(load_base(base, CPU, torch.float32), 64, CAUSAL))
    torch.testing.assert_close(ours, stock_states(stock), atol=1e-5, rtol=0)


def test_one_copy_in_memory(base: Path) -> None:
    one = load_base(base, CPU, torch.bfloat16)
    assert load_base(base / ".." / base.name, CPU, torch.bfloat16) is one
    assert load_base(base, CPU, torch.float32) is not one
    first, second = TokenClassifier(one, 3, CAUSAL), TokenClassifier(one, 5, ClassifierSettings(layers=2))
    assert [len(first.layers), len(second.layers)] == [3, 2]
    frozen = {value.data_ptr() for value in first.parameters() if not value.requires_grad}
    assert all(value.data_ptr() in frozen for value in second.parameters() if not value.requires_grad)
    assert first.layers[0] is not second.layers[0]


def test_threads_that_open_it_at_once_share_one_copy(own_base: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: load_base(own_base, CPU, torch.bfloat16), range(8)))
    assert len(set(map(id, found))) == 1


def test_memory_is_given_back(own_base: Path) -> None:
    loaded = load_base(own_base, CPU, torch.bfloat16)
    gone = weakref.ref(loaded)
    del loaded
    gc.collect()
    assert gone() is None


def test_a_base_made_anew_is_read_anew(own_base: Path, checkpoint: Path) -> None:
    before = load_base(own_base, CPU, torch.bfloat16)
    make_base(str(checkpoint), own_base)
    assert load_base(own_base, CPU, torch.bfloat16) is not before


def test_a_model_of_fewer_layers_than_asked_is_refused(base: Path) -> None:
    with pytest.raises(InputError, match=r"Q210.*layers = 4"):
        TokenClassifier(load_base(base, CPU, torch.bfloat16), 3, ClassifierSettings(layers=4))


def cut_weights(base: Path) -> None:
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def change_weights(base: Path) -> None:
    path = base / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut_info(base: Path) -> None:
    (base / "base.json").write_text('{"id": "x", "rev')


def other_info(base: Path) -> None:
    (base / "base.json").write_text('{"id": "x", "colour": "blue"}')


def no_list(base: Path) -> None:
    (base / "base.json").write_text("[1, 2]")


def other_fingerprint(base: Path) -> None:
    info = json.loads((base / "base.json").read_text())
    (base / "base.json").write_text(json.dumps({**info, "fingerprint": "0" * 64}))


def other_depth(base: Path) -> None:
    fields = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**fields, "num_hidden_layers": 4}))


def cut_tokenizer(base: Path) -> None:
    (base / "tokenizer.json").write_text('{"version": "1.0"')


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (cut_weights, "Q202"),
        (change_weights, "Q203"),
        (cut_info, "Q201"),
        (other_info, "Q201"),
        (no_list, "Q201"),
        (other_fingerprint, "Q203"),
        (cut_tokenizer, "Q202"),
        (lambda base: (base / "tokenizer.json").unlink(), "Q202"),
        (lambda base: (base / "model.safetensors").unlink(), "Q202"),
        (lambda base: (base / "base.json").unlink(), "Q201"),
        (lambda base: (base / "config.json").write_text("{"), "Q202"),
        (other_depth, "Q203"),
        (shutil.rmtree, "Q201"),
    ],
)
def test_a_damaged_base_is_refused(own_base: Path, damage, code: str) -> None:
    damage(own_base)
    with pytest.raises(InputError, match=code) as caught:
        load_base(own_base, CPU, torch.bfloat16)
    assert caught.value.code == code
    assert str(own_base) in str(caught.value)
    assert "\n" not in str(caught.value)


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}


@pytest.mark.parametrize("scaling", [None, LLAMA3], ids=["plain", "llama3"])
@pytest.mark.parametrize("line", [4, 5])
def test_rotary_settings_survive(checkpoint: Path, tmp_path: Path, line: int, scaling: dict | None) -> None:
    """In a config.json as either line of transformers writes it, read here and by transformers."""
    changed = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    fields = json.loads((changed / "config.json").read_text())
    for name in ("rope_theta", "rope_parameters", "rope_scaling"):
        fields.pop(name, None)
    if line == 4:
        fields |= {"rope_theta": 54321.0, "rope_scaling": scaling}
    else:
        fields["rope_parameters"] = {"rope_type": "default", **(scaling or {}), "rope_theta": 54321.0}
    (changed / "config.json").write_text(json.dumps(fields))
    make_base(str(changed), tmp_path / "base")
    frequencies = load_base(tmp_path / "base", CPU, torch.float32).rotary.inv_freq
    plain = 1 / 54321.0 ** (torch.arange(0, 16, 2) / 16)
    assert torch.allclose(frequencies, plain) == (scaling is None)
    assert torch.allclose(frequencies[:2], plain[:2]), "fast turns are not scaled"
    stock = AutoModel.from_config(AutoConfig.from_pretrained(tmp_path / "base"))
    assert torch.equal(stock.rotary_emb.inv_freq, frequencies)


def test_the_sliding_window_is_left_out() -> None:
    """Windows of pieces are shorter than it, and unmasked attention knows none."""
    assert read_config({"hidden_size": 64, "sliding_window": 4096}).sliding_window is None


# The trap: a CPU with AVX512-BF16, on which bitsandbytes repacks 4-bit weights at the first forward without gradients.


def windows() -> list[Window]:
    places = np.arange(len(IDS))
    return [Window(IDS + i, places, places, (places + i) % 5) for i in range(3)]


def stored(base: Base) -> str:
    """The fingerprint of what lies in memory now."""
    return fingerprint({f"model.{name}": value for name, value in _state(base)}, {})


def _state(base: Base) -> Iterator[tuple[str, Tensor]]:
    for name, leaf in base.leaves.items():
        yield f"{name}.weight", leaf.weight.data
        if isinstance(leaf, Linear4bit):
            for key, value in leaf.weight.quant_state.as_dict(packed=True).items():
                yield f"{name}.weight.{key}", value


def gradients_of_second_step(base: Base, predict_between: bool) -> list[Tensor]:
    classifier = TokenClassifier(base, 5, ClassifierSettings())
    optimizer = AdapterOptimizer(classifier, OptimizerSettings(adapter_lr=1e-2), 0)
    _, words = classifier.accumulate(windows(), budget=64)
    optimizer.step(words)
    if predict_between:
        classifier.predict(windows(), budget=64)
    classifier.accumulate(windows(), budget=64)
    return [parameter.grad for _, parameter in classifier.named_trained() if parameter.grad is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prediction_changes_neither_weights_nor_later_gradients(own_base: Path, dtype: torch.dtype) -> None:
    loaded = load_base(own_base, CPU, dtype)
    before = stored(loaded)
    expected = gradients_of_second_step(loaded, predict_between=False)
    found = gradients_of_second_step(loaded, predict_between=True)
    assert len(found) == len(expected) == 2 * 21 + 2
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert all(float(gradient.abs().sum()) > 0 for gradient in found)
    assert stored(loaded) == before


def after_own_forward(base: Base, fixed: bool) -> str:
    """What lies in memory once bitsandbytes itself, which the engine leaves out, has multiplied by each weight."""
    for leaf in base.leaves.values():
        if isinstance(leaf, Linear4bit):
            assert not leaf.support_avx512bf16_for_cpu
            leaf.support_avx512bf16_for_cpu = not fixed
            with torch.no_grad():
                leaf.eval()(torch.ones(2, leaf.in_features, dtype=torch.bfloat16))
    return stored(base)


def test_the_forward_of_bitsandbytes_changes_no_weights(own_base: Path) -> None:
    loaded = load_base(own_base, CPU, torch.bfloat16)
    before = stored(loaded)
    assert after_own_forward(loaded, fixed=True) == before


@pytest.mark.skipif(not has_avx512bf16(), reason="this CPU has no AVX512-BF16, so nothing is repacked")
def test_it_would_without_the_fix(own_base: Path) -> None:
    loaded = load_base(own_base, CPU, torch.bfloat16)
    before = stored(loaded)
    assert after_own_forward(loaded, fixed=False) != before


# What importing costs.


def run(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_engine_runs_without_spacy() -> None:
    run(
        "import sys; sys.modules['spacy'] = None\n"
        "import importlib, pkgutil, spacy_qlora.engine as engine\n"
        "names = [module.name for module in pkgutil.walk_packages(engine.__path__, 'spacy_qlora.engine.')]\n"
        "assert len(names) > 10, names\n"
        "for name in names: importlib.import_module(name)\n"
        "assert not [name for name in sys.modules if name.startswith(('spacy.', 'thinc'))]"
    )


def test_the_factory_imports_nothing_heavy() -> None:
    run(
        "import sys, spacy; before = set(sys.modules)\n"
        "import spacy_qlora.factory\n"
        "new = {name.partition('.')[0] for name in sys.modules.keys() - before}\n"
        "heavy = {'torch', 'transformers', 'peft', 'bitsandbytes', 'datasets', 'safetensors', 'tokenizers'}\n"
        "assert not new & heavy, new & heavy"
    )


def test_loading_bounds_the_kernels_that_are_kept_unless_the_environment_does(base: Path) -> None:
    program = (
        "import os, sys, torch\nfrom pathlib import Path\nfrom spacy_qlora.engine.base import load_base\n"
        "load_base(Path(sys.argv[1]), torch.device('cpu'), torch.bfloat16)\n"
        "print(os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'], os.environ['LRU_CACHE_CAPACITY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name not in heap.KERNELS}
    environment["LRU_CACHE_CAPACITY"] = "7"
    command = [sys.executable, "-c", program, str(base)]
    found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert found.stdout.split() == ["64", "7"]
