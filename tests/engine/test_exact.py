"""The whole engine against float64: a plain Mistral with LoRA, written for reading, on the same NF4 values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot, silu

from spacy_qlora.engine.base import Base, dequantize, load_base
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.settings import ClassifierSettings, LoRASettings
from spacy_qlora.engine.window import IGNORED, Window

TAGS = 5
LENGTHS = (3, 30, 1, 17, 8, 8, 30, 2)
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


class Reference:
    """Scores and loss of one text at a time, in float64, with gradients by autograd.

    masters: The adapter's and the head's weights, by name.
    """

    def __init__(self, classifier: TokenClassifier) -> None:
        self.classifier, self.config = classifier, classifier.base.config
        self.weights = {name: dequantize(leaf).double().cpu() for name, leaf in classifier.base.leaves.items()}
        self.masters = {
            name: value.detach().double().cpu().requires_grad_() for name, value in classifier.named_trained()
        }

    def loss(self, text: Window) -> Tensor:
        x = self.weights["embed_tokens"][torch.tensor([self.config.bos_token_id, *text.pieces])]
        first = self.classifier.settings.bidirectional_from
        for i in range(len(self.classifier.layers)):
            x = x + self.attention(i, self.norm(x, f"layers.{i}.input_layernorm"), first is None or i < first)
            y = self.norm(x, f"layers.{i}.post_attention_layernorm")
            x = x + self.linear(
                i, "mlp.down_proj", silu(self.linear(i, "mlp.gate_proj", y)) * self.linear(i, "mlp.up_proj", y)
            )
        read = self.norm(x, "norm")[torch.from_numpy(text.positions) + 1].flatten(1)
        scores = read @ self.masters["head.weight"].T + self.masters["head.bias"]
        tagged = torch.from_numpy(text.tags) != IGNORED
        share, own = self.classifier.settings.label_smoothing, one_hot(torch.from_numpy(text.tags)[tagged], TAGS)
        return -((1 - share) * own + share / TAGS).mul(scores[tagged].log_softmax(-1)).sum()

    def norm(self, x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + self.config.rms_norm_eps).sqrt() * self.weights[name]

    def linear(self, layer: int, name: str, x: Tensor) -> Tensor:
        lora, name = self.classifier.settings.lora, f"layers.{layer}.{name}"
        y = x @ self.weights[name].T
        down = self.masters.get(f"base_model.model.{name}.lora_A.weight")
        if down is None:
            return y
        return y + lora.alpha / lora.r * (x @ down.T @ self.masters[f"base_model.model.{name}.lora_B.weight"].T)

    def attention(self, layer: int, x: Tensor, causal: bool) -> Tensor:
        size, groups = self.config.head_dim, self.config.num_attention_heads // self.config.num_key_value_heads
        query, key, value = (
            self.linear(layer, f"self_attn.{name}", x).unflatten(1, (-1, size)).transpose(0, 1)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        query, key = self.turned(query), self.turned(key).repeat_interleave(groups, dim=0)
        scores = query @ key.transpose(1, 2) / size**0.5
        if causal:
            scores = scores.masked_fill(torch.ones(len(x), len(x), dtype=torch.bool).triu(1), -torch.inf)
        mixed = scores.softmax(-1) @ value.repeat_interleave(groups, dim=0)
        return self.linear(layer, "self_attn.o_proj", mixed.transpose(0, 1).flatten(1))

    def turned(self, x: Tensor) -> Tensor:
        """Pairs (x[i], x[i + size / 2]) as complex numbers, turned by position times frequency."""
        half = x.shape[-1] // 2
        theta = (getattr(self.config, "rope_parameters", None) or {}).get("rope_theta") or self.config.rope_theta
        angles = torch.arange(x.shape[1])[:, None] * theta ** (-torch.arange(half, dtype=torch.float64) / half)
        turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat((turned.real, turned.imag), dim=-1)


def make(base: Base, **settings: object) -> TokenClassifier:
    lora = LoRASettings(r=4, alpha=12)
    classifier = TokenClassifier(base, TAGS, ClassifierSettings(lora, **settings))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in classifier.named_trained():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return classifier


def corpus(reads: int) -> list[Window]:
    random = np.random.default_rng(0)
    windows = []
    for length in LENGTHS:
        places = np.arange(0, length, 1 + length % 2)  # of every piece, or of every second one
        tags = random.integers(0, TAGS, len(places))
        tags[random.random(len(places)) < 0.1] = IGNORED
        read = places if reads == 1 else np.stack([np.maximum(places - 1, 0), places], axis=1)
        windows.append(Window(random.integers(2, 320, length), read, np.arange(len(places)), tags))
    return windows


@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize(
    "settings",
    [
        {"bidirectional_from": None},
        {"bidirectional_from": 0},
        {"bidirectional_from": 1},
        {"bidirectional_from": 0, "adapted_layers": 1},
        {"bidirectional_from": 2, "layers": 2, "adapted_layers": 2},
        {"bidirectional_from": 0, "pooling": "first_last", "label_smoothing": 0.1},
    ],
    ids=str,
)
def test_loss_and_every_gradient_of_an_accumulated_batch(
    base: Path, device: torch.device, settings: dict, dtype: torch.dtype
) -> None:
    """The bound is a share of the norm: of each gradient's in float32, of all of them together in bfloat16."""
    classifier = make(load_base(base, device, dtype), **settings)
    reference, windows = Reference(classifier), corpus(classifier.settings.reads)
    loss, words = classifier.accumulate(windows, budget=64)
    assert words == sum(int((window.tags != IGNORED).sum()) for window in windows)
    expected = sum(reference.loss(window) for window in windows)
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=BOUNDS[dtype])
    pairs = [(parameter.grad.cpu(), reference.masters[name].grad) for name, parameter in classifier.named_trained()]
    whole = (torch.cat([grad.flatten() for grad in grads]) for grads in zip(*pairs, strict=True))
    for found, wanted in [tuple(whole), *(pairs if dtype == torch.float32 else [])]:
        assert float((found - wanted).norm() / wanted.norm()) < BOUNDS[dtype]
