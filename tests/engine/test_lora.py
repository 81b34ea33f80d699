from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn

from spacy_qlora.engine.base import load_base
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.info import BaseInfo
from spacy_qlora.engine.lora import LoRALinear, save_adapter
from spacy_qlora.engine.settings import LINEARS, ClassifierSettings, LoRASettings
from spacy_qlora.engine.window import Window
from spacy_qlora.errors import InputError
from tests.conftest import stock_4bit

CPU = torch.device("cpu")
IDS = np.array([5, 80, 301, 17, 17, 250, 44, 9, 123, 64])
SIZE = 64  # of a hidden state
WEIGHTS = "adapter_model.safetensors"
TARGETS = [LINEARS, ("q_proj", "k_proj", "v_proj", "o_proj"), ("down_proj",)]


def causal_classifier(base: Path, lora: LoRASettings) -> TokenClassifier:
    """Its scores are the hidden states themselves, since its head passes them on."""
    settings = ClassifierSettings(lora, bidirectional_from=None)
    classifier = TokenClassifier(load_base(base, CPU, torch.float32), SIZE, settings)
    load(classifier, random_adapter(classifier))
    return classifier


def load(classifier: TokenClassifier, adapter: dict[str, Tensor]) -> None:
    classifier.load_trained(adapter, {"weight": torch.eye(SIZE), "bias": torch.zeros(SIZE)})


def random_adapter(classifier: TokenClassifier) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: 0.1 * torch.randn(value.shape, generator=generator) for name, value in classifier.adapter.items()}


def states(classifier: TokenClassifier) -> Tensor:
    places = np.arange(len(IDS))
    return classifier(classifier.collate([Window(IDS, places, places)]))


def stock_states(model: nn.Module) -> Tensor:
    return model(input_ids=torch.tensor([[0, *IDS]]), use_cache=False).last_hidden_state[0, 1:]


@pytest.mark.parametrize("targets", TARGETS, ids=["all", "attention", "one"])
def test_outputs_and_gradients_are_those_of_peft(base: Path, tmp_path: Path, targets: tuple[str, ...]) -> None:
    lora = LoRASettings(r=4, alpha=12, target_modules=targets)
    classifier = causal_classifier(base, lora)
    save_adapter(tmp_path, lora, classifier.trained()[0], BaseInfo(id="tiny"), layers=None)
    reference = PeftModel.from_pretrained(stock_4bit(base), tmp_path, is_trainable=True)
    ours, theirs = states(classifier), stock_states(reference)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2))
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    expected = {
        name.replace(".default.", "."): parameter.grad
        for name, parameter in reference.named_parameters()
        if parameter.requires_grad
    }
    assert expected.keys() == classifier.adapter.keys()
    assert len(expected) == 2 * 3 * len(targets)
    for name, parameter in classifier.adapter.items():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-4, rtol=1e-4, msg=lambda m, n=name: n + m)


def test_peft_reads_what_we_save(base: Path, tmp_path: Path) -> None:
    lora = LoRASettings(r=8, alpha=16, dropout=0.1, target_modules=("v_proj", "q_proj"))
    classifier = TokenClassifier(load_base(base, CPU, torch.bfloat16), 3, ClassifierSettings(lora, layers=2))
    save_adapter(tmp_path / "adapter", lora, classifier.trained()[0], BaseInfo("org/tiny", "v1"), layers=2)
    config = PeftConfig.from_pretrained(str(tmp_path / "adapter"))
    assert isinstance(config, LoraConfig)
    assert (config.r, config.lora_alpha, config.lora_dropout) == (8, 16, 0.1)
    assert config.target_modules == {"q_proj", "v_proj"}
    assert (config.base_model_name_or_path, config.revision) == ("org/tiny", "v1")
    assert config.layers_to_transform == [0, 1]
    assert config.task_type == "FEATURE_EXTRACTION"
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {"adapter_config.json", WEIGHTS}
    saved = load_file(tmp_path / "adapter" / WEIGHTS)
    assert all(torch.equal(value, classifier.adapter[name]) for name, value in saved.items())
    assert {value.dtype for value in saved.values()} == {torch.float32}


def test_an_adapter_that_peft_wrote_fits(base: Path, tmp_path: Path) -> None:
    config = LoraConfig(
        r=4, lora_alpha=12, target_modules=list(LINEARS), task_type="FEATURE_EXTRACTION", init_lora_weights=False
    )
    reference = get_peft_model(stock_4bit(base), config).eval()
    reference.save_pretrained(tmp_path)
    classifier = causal_classifier(base, LoRASettings(r=4, alpha=12))
    before = states(classifier)
    load(classifier, load_file(tmp_path / WEIGHTS))
    assert not torch.allclose(states(classifier), before)
    torch.testing.assert_close(states(classifier), stock_states(reference), atol=1e-5, rtol=0)


def test_a_new_adapter_changes_nothing(base: Path) -> None:
    classifier = TokenClassifier(load_base(base, CPU, torch.float32), SIZE, ClassifierSettings(bidirectional_from=None))
    load(classifier, dict(classifier.adapter))
    torch.testing.assert_close(states(classifier), stock_states(stock_4bit(base)), atol=1e-5, rtol=0)
    for name, value in classifier.adapter.items():
        assert bool(value.any()) == ("lora_A" in name)


def test_new_weights_are_drawn_as_peft_does() -> None:
    """Uniformly within 1 / sqrt(in): Kaiming's with a = sqrt(5)."""
    drawn = LoRALinear(nn.Linear(64, 32, bias=False), LoRASettings(r=256)).lora_A.detach()
    assert 0.99 / 8 < float(drawn.abs().max()) <= 1 / 8
    assert float(drawn.std()) == pytest.approx(1 / 8 / 3**0.5, rel=0.02)


def test_masters_stay_float32_and_products_follow_the_input() -> None:
    layer = LoRALinear(nn.Linear(64, 32, bias=False).bfloat16(), LoRASettings(r=4))
    assert layer.lora_A.dtype == layer.lora_B.dtype == torch.float32
    out = layer(torch.randn(3, 64, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert layer.lora_B.grad is not None
    assert layer.lora_B.grad.dtype == torch.float32


def test_dropout_acts_on_the_adapters_input_alone() -> None:
    layer = LoRALinear(nn.Linear(64, 32, bias=False), LoRASettings(r=4, dropout=0.5))
    x = torch.randn(5, 64)
    assert torch.equal(layer(x), layer.base_layer(x)), "B is zero"
    nn.init.normal_(layer.lora_B)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    expected = layer.base_layer(x) + layer.scaling * (x @ layer.lora_A.T @ layer.lora_B.T)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"r": 0},
        {"alpha": 0},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"target_modules": ()},
        {"target_modules": ("score",)},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError, match=f"Q210.*{next(iter(wrong))}"):
        LoRASettings(**wrong)
