"""LoRA on the frozen 4-bit linears: y = W x + (alpha / r) B A dropout(x), with peft's names and files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import linear, pad

from spacy_qlora.engine.base import dequantize
from spacy_qlora.engine.files import save_tensors
from spacy_qlora.engine.info import ADAPTER_WEIGHTS, BaseInfo
from spacy_qlora.engine.settings import ClassifierSettings, LoRASettings

PEFT_PREFIX = "base_model.model."
BLOCK = 512  # rows


class LoRALinears(nn.Module):
    """Frozen linears that read the same input, those among the target modules with a trained product beside them.

    linears (Mapping[str, nn.Linear]): 4-bit, by name, such as "mlp.up_proj"; shared with other classifiers.
    adapt (bool): False leaves out the products of all of them.
    Masters are float32; the products are computed in the type of the input, as the linears themselves are.
    """

    def __init__(self, linears: Mapping[str, nn.Linear], settings: LoRASettings, adapt: bool = True) -> None:
        super().__init__()
        self.linears, self.settings = nn.ModuleList(linears.values()), settings
        self.masters: dict[str, nn.Parameter] = {}  # by their names in peft's file
        self.folded: tuple[list[int], list[Tensor]] | None = None  # versions of the masters, weights made of them
        self.fold = True  # keep such weights while predicting, where the base has room for them
        self.lora_A, self.lora_B = nn.ParameterList(), nn.ParameterList()
        targets = settings.target_modules if adapt else ()
        self.adapted = [i for i, name in enumerate(linears) if name.rpartition(".")[2] in targets]
        for name, module in [list(linears.items())[i] for i in self.adapted]:
            device = module.weight.device
            down, up = torch.empty(settings.r, module.in_features), torch.zeros(module.out_features, settings.r)
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))  # as in peft; on the CPU, so that any device starts alike
            self.lora_A.append(nn.Parameter(down.to(device)))
            self.lora_B.append(nn.Parameter(up.to(device)))
            self.masters |= {f"{name}.lora_A.weight": self.lora_A[-1], f"{name}.lora_B.weight": self.lora_B[-1]}

    def forward(self, x: Tensor, residual: Tensor | None = None) -> tuple[Tensor, ...]:
        """x: [pieces, in], to be read by nothing else: in training, all adapters of the group drop the same elements of
        it, which are set to 0 in place.
        residual: [pieces, out], added to the output of a group's only linear.
        RETURNS: [pieces, out] of each linear.
        """
        if not torch.is_grad_enabled():
            if self.training and not self.adapted:
                return tuple(_product_in_blocks(x, dequantize(module), residual) for module in self.linears)
            if not self.training and (weights := self._folded()):
                return tuple(_product(x, weight, residual) for weight in weights)
        drops = self.training and self.adapted and self.settings.dropout
        dropped = draw(x, self.settings.dropout) if drops else None
        return LoRAProducts.apply(x, residual, dropped, self, *self.lora_A, *self.lora_B)

    def _folded(self) -> list[Tensor]:
        """W + (alpha / r) B A of each linear, rounded to its type; none where there is no room to keep them."""
        first: Any = self.linears[0]
        if not self.fold or not self.adapted or not hasattr(first, "resident") or not first.twice:
            return []
        versions = [master._version for master in self.masters.values()]
        if self.folded is None or self.folded[0] != versions:
            weights, scaling = [dequantize(module) for module in self.linears], self.settings.alpha / self.settings.r
            for i, down, up in zip(self.adapted, self.lora_A, self.lora_B, strict=True):
                weights[i] = torch.addmm(weights[i].float(), up, down, alpha=scaling).to(weights[i].dtype)
            self.folded = versions, weights
        return self.folded[1]

    def train(self, mode: bool = True) -> LoRALinears:
        """As for any module; folded weights are kept between predictions only."""
        if mode:
            self.folded = None
        return super().train(mode)


class LoRAProducts(Function):
    """What `LoRALinears` computes. Weights are dequantised where they are used and never kept."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor | None, dropped: Tensor | None, group: LoRALinears, *masters: Tensor
    ) -> tuple[Tensor, ...]:
        scaling = group.settings.alpha / group.settings.r
        if dropped is not None:
            scaling /= 1 - group.settings.dropout
        ctx.group, ctx.scaling = group, scaling
        outputs = [_product(x, dequantize(module), residual) for module in group.linears]
        if masters:
            down, ups = _cast(group, masters, x.dtype)
            if dropped is not None:
                zero(x, dropped)
            low = x @ down.t()
            for (i, up), part in zip(ups.items(), (low * scaling).split(group.settings.r, dim=1), strict=True):
                outputs[i].addmm_(part, up.t())
            ctx.save_for_backward(x, dropped, low, *masters)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        group = ctx.group
        grad_x, grad_residual = None, grads[0] if ctx.needs_input_grad[1] else None
        grad_masters: list[Tensor] = []
        if group.adapted:
            x, dropped, low, *masters = ctx.saved_tensors
            down, ups = _cast(group, masters, x.dtype)
            adapted = [(grads[i], up) for i, up in ups.items()]
            grad_low = torch.cat([grad @ up for grad, up in adapted], dim=1).mul_(ctx.scaling)
            grad_masters += (grad_low.t() @ x).float().split(group.settings.r)
            lows = low.split(group.settings.r, dim=1)
            for part, (grad, _) in zip(lows, adapted, strict=True):
                # The short side first: this product takes half as long as its transpose.
                grad_masters.append((part.t() @ grad).t().float() * ctx.scaling)
            if ctx.needs_input_grad[0]:
                grad_x = grad_low @ down if dropped is None else zero(grad_low @ down, dropped)
        if ctx.needs_input_grad[0]:
            for module, grad in zip(group.linears, grads, strict=True):
                # Without a name for it, no weight is kept while the next is dequantised.
                grad_x = grad @ dequantize(module) if grad_x is None else grad_x.addmm_(grad, dequantize(module))
        return grad_x, grad_residual, None, None, *grad_masters


def _product(x: Tensor, weight: Tensor, residual: Tensor | None) -> Tensor:
    return linear(x, weight) if residual is None else torch.addmm(residual, x, weight.t())


def _product_in_blocks(x: Tensor, weight: Tensor, residual: Tensor | None) -> Tensor:
    """The same, on a CPU by a fixed number of rows: what stands beside a row changes not even how its sums are rounded.

    Kernels choose by the number of rows in which order they add up.
    """
    if x.device.type != "cpu":
        return _product(x, weight, residual)
    rows = len(x)
    if short := -rows % BLOCK:
        x = pad(x, (0, 0, 0, short))
        residual = None if residual is None else pad(residual, (0, 0, 0, short))
    out = x.new_empty(len(x), len(weight)) if residual is None else residual.clone()
    for part, block in zip(out.split(BLOCK), x.split(BLOCK), strict=True):
        part.addmm_(block, weight.t(), beta=residual is not None)
    return out[:rows]


def _cast(group: LoRALinears, masters: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, dict[int, Tensor]]:
    """RETURNS: All A below one another, and B by the linear's number, in the type of the products."""
    downs, ups = masters[: len(group.adapted)], masters[len(group.adapted) :]
    return torch.cat(list(downs)).to(dtype), {i: up.to(dtype) for i, up in zip(group.adapted, ups, strict=True)}


def draw(x: Tensor, dropout: float) -> Tensor:
    """Which elements of x to drop, each with the probability `dropout`: their numbers, or on a GPU a boolean each."""
    if x.device.type != "cpu":
        return torch.rand(x.shape, device=x.device) < dropout
    # A draw for each element would take a fifth of a training step; the gaps between those dropped are geometric.
    expected = x.numel() * dropout
    draws = torch.rand(int(expected + 6 * math.sqrt(expected)) + 1)
    places = draws.neg_().log1p_().div_(math.log1p(-dropout)).long().add_(1).cumsum_(0).sub_(1)
    return places[: int(torch.searchsorted(places, x.numel()))]


def zero(x: Tensor, dropped: Tensor) -> Tensor:
    """Sets the elements that `draw` gave to 0, in place."""
    if dropped.dtype == torch.bool:
        return x.masked_fill_(dropped, 0)
    x.view(-1).index_fill_(0, dropped, 0)
    return x


def save_adapter(folder: Path, settings: ClassifierSettings, tensors: Mapping[str, Tensor], base: BaseInfo) -> None:
    """Writes the two files that peft reads: `PeftModel.from_pretrained(AutoModel.from_pretrained(base), folder)`.

    tensors: By peft's names.  base: For peft's `base_model_name_or_path`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lora, targets = settings.lora, set(settings.lora.target_modules)
    if settings.layers or settings.adapted_layers:  # peft's own `layers_to_transform` finds no layers in an AutoModel
        targets = {name.removeprefix(PEFT_PREFIX).partition(".lora_")[0] for name in tensors}
    LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=sorted(targets),
        task_type="FEATURE_EXTRACTION",  # the head is not part of the adapter: it lies in head.safetensors
        base_model_name_or_path=base.id,
        revision=base.revision or None,
        inference_mode=True,
    ).save_pretrained(str(folder))
    save_tensors(tensors, folder / ADAPTER_WEIGHTS)
