"""Causal or unmasked attention, chosen for each layer, in both lines of transformers."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ATTENTION = "spacy_qlora"


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    causal: bool,
    scaling: float,
    **_: object,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention of one layer; transformers calls it.

    query, key, value: [batch, heads, pieces, head size], with fewer heads in key and value where the model groups them.
    attention_mask: Boolean [batch, 1, 1, pieces], True at real pieces; None where nothing is padded.
    causal: Whether a piece sees only those before it. Padding stands to the right, so that no real piece sees any.
    RETURNS: [batch, pieces, heads, head size], and no attention weights.
    """
    mixed = scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if causal else attention_mask,
        is_causal=causal,
        scale=scaling,
        enable_gqa=True,
    )
    return mixed.transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
