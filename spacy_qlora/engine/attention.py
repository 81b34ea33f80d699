"""Causal or unmasked attention, chosen for each layer, in both lines of transformers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ATTENTION = "spacy_qlora"
SHORT = 256  # pieces; beyond, the square of scores that plain products keep would cost too much memory


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
    mask = None if causal else attention_mask
    if query.requires_grad and query.device.type == "cpu" and query.shape[2] <= SHORT:
        mixed = attend_by_products(query, key, value, mask, causal, scaling)
    elif mask is not None and query.device.type == "cuda":  # grouped heads with a mask have no fused kernel there
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    else:
        mixed = scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=causal, scale=scaling, enable_gqa=True
        )
    return mixed.transpose(1, 2), None


def attend_by_products(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scaling: float
) -> Tensor:
    """The same by plain matrix products: on a CPU, PyTorch's fused attention takes 2.5 times as long to train."""
    batch, heads, length, size = query.shape
    grouped = (batch, key.shape[1], -1, size)  # query heads that share a key head, one after another
    scores = (query * scaling).reshape(grouped) @ key.transpose(-1, -2)
    scores = scores.view(batch, heads, length, length)
    if causal:
        mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1).view(batch, key.shape[1], -1, length)
    return (weights @ value).view(batch, heads, length, size)


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
