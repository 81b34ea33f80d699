from __future__ import annotations

from collections.abc import Callable
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
from spacy_qlora.engine.lora import LoRALinears, draw, save_adapter, zero
from spacy_qlora.engine.settings import LINEARS, ClassifierSettings, LoRASettings
from spacy_qlora.engine.window import Window
from spacy_qlora.errors import InputError
from tests.conftest import stock_4bit

CPU = torch.device("cpu")
IDS = np.array([5, 80, 301, 17, 17, 250, 44, 9, 123, 64])
SIZE = 64  # of a hidden state
WEIGHTS = "adapter_model.safetensors"
TARGETS = [LINEARS, ("q_proj", "k_proj", "v_proj", "o_proj"), ("down_proj",)]


def causal_classifier(base: Path, lora: LoRASettings, **settings: int) -> TokenClassifier:
    """Its scores are the hidden states themselves, since its head passes them on."""
    settings = ClassifierSettings(lora, bidirectional_from=None, **settings)
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
    save_adapter(tmp_path, classifier.settings, classifier.trained()[0], BaseInfo(id="tiny"))
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


@pytest.mark.parametrize(
    "settings", [{"adapted_layers": 1}, {"layers": 2}, {"layers": 2, "adapted_layers": 1}], ids=str
)
def test_peft_adapts_the_same_layers(base: Path, tmp_path: Path, settings: dict[str, int]) -> None:
    classifier = causal_classifier(base, LoRASettings(r=4, alpha=12), **settings)
    save_adapter(tmp_path, classifier.settings, classifier.trained()[0], BaseInfo(id="tiny"))
    stock = stock_4bit(base)
    del stock.layers[settings.get("layers", 3) :]
    torch.testing.assert_close(
        states(classifier), stock_states(PeftModel.from_pretrained(stock, tmp_path)), atol=1e-5, rtol=0
    )


def test_peft_reads_what_we_save(base: Path, tmp_path: Path) -> None:
    lora = LoRASettings(r=8, alpha=16, dropout=0.1, target_modules=("v_proj", "q_proj"))
    classifier = TokenClassifier(load_base(base, CPU, torch.bfloat16), 3, ClassifierSettings(lora))
    save_adapter(tmp_path / "adapter", classifier.settings, classifier.trained()[0], BaseInfo("org/tiny", "v1"))
    config = PeftConfig.from_pretrained(str(tmp_path / "adapter"))
    assert isinstance(config, LoraConfig)
    assert (config.r, config.lora_alpha, config.lora_dropout) == (8, 16, 0.1)
    assert config.target_modules == {"q_proj", "v_proj"}
    assert (config.base_model_name_or_path, config.revision) == ("org/tiny", "v1")
    assert config.task_type == "FEATURE_EXTRACTION"
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {"adapter_config.json", WEIGHTS}
    saved = load_file(tmp_path / "adapter" / WEIGHTS)
    assert all(torch.equal(value, classifier.adapter[name]) for name, value in saved.items())
    assert {value.dtype for value in saved.values()} == {torch.float32}


def test_an_adapter_that_peft_wrote_fits(base: Path, tmp_path: Path) -> None:
    config = LoraConfig(r=4, lora_alpha=12, target_modules=list(LINEARS), task_type="FEATURE_EXTRACTION")
    reference = get_peft_model(stock_4bit(base), config).eval()
    for name, parameter in reference.named_parameters():
        if ".lora_" in name:
            nn.init.normal_(parameter, std=0.1)
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


def plain(*names: str, dtype: torch.dtype = torch.float32, width: int = 64, **settings: object) -> LoRALinears:
    linears = {name: nn.Linear(width, 32, bias=False, dtype=dtype).requires_grad_(False) for name in names}
    return LoRALinears(linears, LoRASettings(**settings))


def test_new_weights_are_drawn_as_peft_does() -> None:
    """Uniformly within 1 / sqrt(in): Kaiming's with a = sqrt(5)."""
    drawn = plain("mlp.up_proj", r=256).masters["mlp.up_proj.lora_A.weight"].detach()
    assert 0.99 / 8 < float(drawn.abs().max()) <= 1 / 8
    assert float(drawn.std()) == pytest.approx(1 / 8 / 3**0.5, rel=0.02)


def test_masters_stay_float32_and_products_follow_the_input() -> None:
    group = plain("up_proj", dtype=torch.bfloat16, r=4)
    assert {master.dtype for master in group.masters.values()} == {torch.float32}
    [out] = group(torch.randn(3, 64, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert {master.grad.dtype for master in group.masters.values()} == {torch.float32}


class Reference(nn.Module):
    """The same by autograd, in float64, with the elements to drop given."""

    def __init__(self, group: LoRALinears) -> None:
        super().__init__()
        self.group = group
        self.masters = {name: master.detach().double().requires_grad_() for name, master in group.masters.items()}

    def forward(self, x: Tensor, residual: Tensor | None, hidden: Tensor | None) -> list[Tensor]:
        settings = self.group.settings
        read = x if hidden is None else x.masked_fill(hidden, 0) / (1 - settings.dropout)
        outputs, masters = [], list(self.masters.values())
        for i, module in enumerate(self.group.linears):
            y = x @ module.weight.double().T
            if i in self.group.adapted:
                down, up = masters[2 * self.group.adapted.index(i) :][:2]
                y = y + settings.alpha / settings.r * (read @ down.T @ up.T)
            outputs.append(y if residual is None else y + residual)
        return outputs


@pytest.mark.parametrize(
    ("dropout", "drawn"),
    [(0.0, None), (0.25, lambda hidden: hidden), (0.25, lambda hidden: hidden.flatten().nonzero().flatten())],
    ids=["no-dropout", "booleans", "numbers"],
)
@pytest.mark.parametrize(
    ("names", "targets"),
    [
        (("q_proj", "k_proj", "v_proj"), LINEARS),
        (("q_proj", "k_proj", "v_proj"), ("q_proj", "v_proj")),
        (("o_proj",), LINEARS),
        (("o_proj",), ("q_proj",)),
    ],
    ids=["three", "two-of-three", "residual", "frozen"],
)
def test_products_and_every_gradient_against_float64(
    names: tuple[str, ...],
    targets: tuple[str, ...],
    dropout: float,
    drawn: Callable[[Tensor], Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = plain(*names, r=4, alpha=12, dropout=dropout, target_modules=targets)
    for master in group.masters.values():
        nn.init.normal_(master, std=0.1)
    reference = Reference(group)
    hidden = torch.rand(9, 64) < dropout if dropout else None
    monkeypatch.setattr("spacy_qlora.engine.lora.draw", lambda x, dropout: drawn(hidden))
    given = [torch.randn(9, 64), *([torch.randn(9, 32)] if len(names) == 1 else [])]
    ours, theirs = [x.clone().requires_grad_() for x in given], [x.double().requires_grad_() for x in given]
    found = group(*ours)
    expected = reference(theirs[0], theirs[1] if len(given) > 1 else None, hidden)
    weights = [torch.randn(9, 32) for _ in names]
    for outputs in (found, expected):
        sum((out * weight).sum() for out, weight in zip(outputs, weights, strict=True)).backward()
    pairs = [*zip(found, expected, strict=True), *((x.grad, y.grad) for x, y in zip(ours, theirs, strict=True))]
    pairs += [(master.grad, reference.masters[name].grad) for name, master in group.masters.items()]
    for one, other in pairs:
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-5)


def test_dropout_acts_in_training_alone() -> None:
    group = plain("up_proj", r=4, dropout=0.5)
    x = torch.randn(5, 64)
    expected = x @ group.linears[0].weight.T
    torch.testing.assert_close(group(x.clone())[0], expected)  # B is zero
    nn.init.normal_(group.lora_B[0])
    assert not torch.equal(group(x.clone())[0], group(x.clone())[0])
    group.eval()
    scaling = group.settings.alpha / group.settings.r
    torch.testing.assert_close(group(x.clone())[0], expected + scaling * (x @ group.lora_A[0].T @ group.lora_B[0].T))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_folded_into_the_weights_are_as_exact(dtype: torch.dtype) -> None:
    # As wide as a real base: in short sums, the weights' own rounding shows beside that of the products.
    targets, width = ("q_proj", "v_proj"), 1536
    group = plain("q_proj", "k_proj", "v_proj", dtype=dtype, width=width, r=4, alpha=12, target_modules=targets)
    group.eval()
    for master in group.masters.values():
        nn.init.normal_(master, std=0.1)
    x = torch.randn(99, width, dtype=dtype)
    expected = Reference(group)(x.double(), None, None)
    with torch.no_grad():
        apart = group(x)
        keep_resident(group)
        folded = group(x)
    assert group.folded is not None
    for one, other, exact in zip(folded, apart, expected, strict=True):
        assert (one - exact).norm() <= 1.2 * (other - exact).norm()


def test_folded_weights_follow_the_masters_and_leave_room_for_training() -> None:
    group = plain("o_proj", r=4)
    keep_resident(group)
    group.eval()
    x, residual = torch.randn(9, 64), torch.randn(9, 32)
    with torch.no_grad():
        before = group(x, residual)[0]
        nn.init.normal_(group.lora_B[0])
        after = group(x, residual)[0]
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, group(x, residual)[0])  # with gradients, the products are apart
    group.train()
    assert group.folded is None
    group.linears[0].twice = False
    with torch.no_grad():
        torch.testing.assert_close(after, group.eval()(x, residual)[0])
    assert group.folded is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(576, 1536), (1536, 576)])
def test_without_an_adapter_a_row_is_the_same_to_the_bit_among_others(
    sizes: tuple[int, int], dtype: torch.dtype
) -> None:
    """With products so large that kernels choose their order by the number of rows."""
    linear = nn.Linear(*sizes, bias=False, dtype=dtype)
    group = LoRALinears({"down_proj": linear}, LoRASettings(), adapt=False)
    generator = torch.Generator().manual_seed(0)
    x, residual = (torch.randn(2000, size, generator=generator).to(dtype) for size in sizes)
    with torch.no_grad():
        [plain], [added] = group(x), group(x, residual)
        for rows in (slice(0, 2), slice(7, 1000), slice(1300, 1850)):
            assert torch.equal(group(x[rows])[0], plain[rows])
            assert torch.equal(group(x[rows], residual[rows])[0], added[rows])
    torch.testing.assert_close(plain, linear(x))
    torch.testing.assert_close(added, torch.addmm(residual, x, linear.weight.t()))


def keep_resident(group: LoRALinears) -> None:
    for module in group.linears:
        module.resident, module.twice = module.weight.detach(), True


@pytest.mark.parametrize("dropout", [0.05, 0.5, 0.999])
def test_elements_are_dropped_as_often_as_asked(dropout: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(501, 999)
    hidden = zero(x, draw(x, dropout)) == 0
    for share in (hidden.float().mean(), hidden[::2].float().mean(), hidden[:, 3::4].float().mean()):
        assert float(share) == pytest.approx(dropout, abs=0.005)
    agreeing = (hidden[:, 1:] == hidden[:, :-1]).float().mean()
    assert float(agreeing) == pytest.approx(dropout**2 + (1 - dropout) ** 2, abs=0.005), "neighbours are independent"


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
