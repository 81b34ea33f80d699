"""Causal or unmasked attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.backends.cuda import is_flash_attention_available
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

SHORT = 256  # pieces; beyond, the square of scores that plain products keep would cost too much memory

# Without cuDNN's, which makes a plan for each new shape of a batch: half a second and more, on a Hopper or later.
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Scaled dot-product attention.

    query: [batch, heads, pieces, size].  key, value: [batch, groups, pieces, size]; so many query heads, one after
    another, share each.  mask: Boolean [batch, pieces], True at real pieces; None where nothing is padded.
    causal: Whether a piece sees only those before it. Padding stands to the right, so that no real piece sees any.
    RETURNS: [batch, heads, pieces, size].
    """
    if causal:
        mask = None
    if query.device.type == "cpu" and query.shape[2] <= SHORT:
        return ShortAttention.apply(query, key, value, mask, causal)
    if mask is not None:
        mask = mask[:, None, None, :]
    is_flash = mask is None and query.dtype == torch.bfloat16 and is_flash_attention_available()  # not so on Windows
    if query.device.type == "cuda" and not is_flash:  # no other fused kernel takes grouped heads
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    grouped = key.shape[1] != query.shape[1]
    with sdpa_kernel(KERNELS):
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=grouped)


def attend_apart(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """The same, on a CPU without the padding: what stands beside a text changes not even how its sums are rounded."""
    if mask is None or query.device.type != "cpu":
        return attend(query, key, value, mask, causal)
    out, lengths = torch.zeros_like(query), mask.sum(1)
    for length in lengths.unique().tolist():
        texts = lengths == length
        own_query, own_key, own_value = (x[texts, :, :length] for x in (query, key, value))
        out[texts, :, :length] = attend(own_query, own_key, own_value, None, causal)
    return out


class ShortAttention(Function):
    """The same by plain matrix products: on a CPU, PyTorch's fused attention takes 2.5 times as long to train."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        batch, heads, pieces, size = query.shape
        groups = key.shape[1]
        # [batch * groups, pieces of all heads of a group, size], and the keys and values that they share
        query, key, value = (x.reshape(batch * groups, -1, size) for x in (query, key, value))
        bias = query.new_zeros(1, 1, 1)
        if causal:
            unseen = torch.ones(pieces, pieces, dtype=torch.bool).triu(1).repeat(heads // groups, 1)
            bias = query.new_zeros(1, *unseen.shape).masked_fill_(unseen, -torch.inf)
        elif mask is not None:
            bias = query.new_zeros(batch, 1, pieces).masked_fill_(~mask[:, None], -torch.inf)
            bias = bias.repeat_interleave(groups, dim=0)
        ctx.scaling = size**-0.5
        scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=ctx.scaling)
        weights = scores.softmax(-1)  # in float32 inside, rounded once
        ctx.save_for_backward(query, key, value, weights)
        return (weights @ value).view(batch, heads, pieces, size)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, weights = ctx.saved_tensors
        batch, _, pieces, size = grad.shape
        grad = grad.reshape(query.shape)
        scores = torch.ops.aten._softmax_backward_data(grad @ value.transpose(1, 2), weights, -1, weights.dtype)
        zero = query.new_zeros(1, 1, 1)
        grad_query = torch.baddbmm(zero, scores, key, beta=0, alpha=ctx.scaling)
        grad_key = torch.baddbmm(zero, scores.transpose(1, 2), query, beta=0, alpha=ctx.scaling)
        grad_value = weights.transpose(1, 2) @ grad
        grads = (x.view(batch, -1, pieces, size) for x in (grad_query, grad_key, grad_value))
        return *grads, None, None
