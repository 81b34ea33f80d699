"""One layer of a Mistral, its linears adapted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn
from transformers import MistralConfig

from spacy_qlora.engine.attention import attend, attend_apart
from spacy_qlora.engine.batching import Layout
from spacy_qlora.engine.functions import RMSNorm, SwiGLU, ToHeads, ToRows, swiglu_apart
from spacy_qlora.engine.lora import LoRALinears
from spacy_qlora.engine.settings import LoRASettings

# The linears that read the same input, and the norms before the first of each half.
GROUPS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
NORMS = ("input_layernorm", "post_attention_layernorm")
LEAVES = (*NORMS, *(name for group in GROUPS for name in group))


class Layer(nn.Module):
    """Gives what the layer of transformers gives, whose names it keeps.

    leaves (Mapping[str, nn.Module]): The frozen modules, one for each of `LEAVES`; shared with other classifiers.
    adapt (bool): Whether the layer has an adapter.
    """

    def __init__(
        self, config: MistralConfig, leaves: Mapping[str, nn.Module], lora: LoRASettings, adapt: bool = True
    ) -> None:
        super().__init__()
        self.size, self.eps, self.adapt = config.head_dim, config.rms_norm_eps, adapt
        self.norms = nn.ModuleList(leaves[name] for name in NORMS)
        groups = [LoRALinears({name: cast(nn.Linear, leaves[name]) for name in group}, lora, adapt) for group in GROUPS]
        self.groups = nn.ModuleList(groups)
        self.masters = {name: master for group in groups for name, master in group.masters.items()}

    def forward(
        self, x: Tensor, layout: Layout, rotary: tuple[Tensor, Tensor], causal: bool, read: Tensor | None = None
    ) -> Tensor:
        """x: [rows, hidden], window after window; those after the last piece are there to round their number up.
        rotary: Cosines and sines, [width of the layout, head size] each.
        causal: Whether a piece sees only those before it.
        read: The rows to return, in their order; all if not given.
        RETURNS: [rows or those read, hidden].
        """
        qkv, o, gate_up, down = self.groups
        query, key, value = qkv(self._norm(0, x))
        query, key = (ToHeads.apply(y, layout, self.size, rotary) for y in (query, key))
        apart = self.training and not self.adapt
        mix, activate = (attend_apart, swiglu_apart) if apart else (attend, SwiGLU.apply)
        mixed = mix(query, key, ToHeads.apply(value, layout, self.size, None), layout.mask, causal)
        mixed = ToRows.apply(mixed, layout, len(x))
        if read is not None:
            mixed, x = mixed.index_select(0, read), x.index_select(0, read)
        [x] = o(mixed, x)
        [x] = down(activate(*gate_up(self._norm(1, x))), x)
        return x

    def _norm(self, i: int, x: Tensor) -> Tensor:
        return RMSNorm.apply(x, self.norms[i].weight, self.eps)
