"""LoRA on the frozen 4-bit linears: y = W x + (alpha / r) B A dropout(x), with peft's names and files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn.functional import linear

from spacy_qlora.engine.files import save_tensors
from spacy_qlora.engine.info import BaseInfo
from spacy_qlora.engine.settings import LoRASettings

PEFT_PREFIX = "base_model.model."
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class LoRALinear(nn.Module):
    """A frozen linear with a trained product of low rank beside it.

    Masters are float32; the product is computed in the type of the input, as the linear itself is.
    """

    def __init__(self, base_layer: nn.Linear, settings: LoRASettings) -> None:
        super().__init__()
        device = base_layer.weight.device
        self.base_layer = base_layer
        self.scaling = settings.alpha / settings.r
        self.dropout = nn.Dropout(settings.dropout)
        self.lora_A = nn.Parameter(torch.empty(settings.r, base_layer.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base_layer.out_features, settings.r, device=device))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # as in peft

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., in]. RETURNS: [..., out]."""
        low = linear(self.dropout(x), self.lora_A.to(x.dtype))
        return torch.add(self.base_layer(x), linear(low, self.lora_B.to(x.dtype)), alpha=self.scaling)


def add_lora(model: nn.Module, settings: LoRASettings) -> dict[str, nn.Parameter]:
    """Wraps the target linears of every layer. RETURNS: The new parameters by their names in peft's file."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in settings.target_modules:
            model.set_submodule(name, LoRALinear(module, settings))
    return {
        f"{PEFT_PREFIX}{name}.weight": parameter
        for name, parameter in model.named_parameters()
        if name.endswith(("lora_A", "lora_B"))
    }


def save_adapter(
    folder: Path, settings: LoRASettings, tensors: Mapping[str, Tensor], base: BaseInfo, layers: int | None
) -> None:
    """Writes the two files that peft reads: `PeftModel.from_pretrained(AutoModel.from_pretrained(base), folder)`.

    base: For peft's `base_model_name_or_path`.  layers: How many layers from the bottom are adapted; all if None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=sorted(settings.target_modules),
        task_type="FEATURE_EXTRACTION",  # the head is not part of the adapter: it lies in head.safetensors
        base_model_name_or_path=base.id,
        revision=base.revision or None,
        layers_to_transform=None if layers is None else list(range(layers)),
        inference_mode=True,
    ).save_pretrained(str(folder))
    save_tensors(tensors, folder / WEIGHTS)
