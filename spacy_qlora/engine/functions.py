"""What a Mistral layer does between its linears, with gradients written out by hand.

The stock modules make a dozen passes over the hidden states where a few do, and keep float32 copies for the backward
pass. Each function here gives the stock result, up to the rounding of the compute type, and keeps what it must.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import batch_norm, silu

from spacy_qlora.engine.batching import Layout
from spacy_qlora.engine.threads import one_thread


class Fused:
    """A function of tensors, which runs as one kernel that torch.compile makes of it, within `compiled`."""

    on = False

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.kernel: Callable[..., Any] | None = None

    def __call__(self, *values: Any) -> Any:
        if not Fused.on:
            return self.function(*values)
        if self.kernel is None:
            self.kernel = torch.compile(self.function, dynamic=True)
        return self.kernel(*values)


@contextmanager
def compiled(on: bool) -> Iterator[None]:
    """Within, the functions here run as compiled kernels if `on`, made at the first use and cached on disk."""
    before, Fused.on = Fused.on, on
    try:
        yield
    finally:
        Fused.on = before


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile works here: it needs a C++ compiler on a CPU, Triton on a GPU. Takes seconds."""
    x = torch.zeros(16, 16, device=device)
    try:
        with compiled(True):
            swiglu(x, x)
    except Exception:  # what is missing shows in many ways
        return False
    return True


class RMSNorm(Function):
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimension, with a frozen weight.

    x: [pieces, hidden].  weight: [hidden].
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, inverse = rms_norm(x, weight, eps)
        ctx.save_for_backward(x, weight, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return rms_norm_backward(grad, *ctx.saved_tensors), None, None


@Fused
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    squares = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32).square_()
    inverse = squares.div_(x.shape[-1]).add_(eps).rsqrt_()
    return scale_rows(x, inverse) * weight, inverse


@Fused
def rms_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    grad = grad * weight
    along = (grad * x).sum(-1, dtype=torch.float32).div_(x.shape[-1])  # how far the gradient points along x
    return scale_rows(grad, inverse).sub_(scale_rows(x, inverse.pow(3).mul_(along)))


def scale_rows(x: Tensor, factors: Tensor) -> Tensor:
    """x: [rows, columns].  factors: [rows], float32. RETURNS: x * factors[:, None], rounded once to the type of x."""
    if x.device.type != "cpu" or x.dtype == torch.float32 or torch.compiler.is_compiling():
        return (x * factors[:, None]).to(x.dtype)
    # A batch norm with fixed statistics scales rows in float32 in one pass; mixed products take three times as long.
    zeros, ones = torch.zeros_like(factors), torch.ones_like(factors)
    return batch_norm(x[None], zeros, ones, factors, zeros, eps=0.0)[0]


class SwiGLU(Function):
    """silu(gate) * up, of the same shape."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return swiglu(gate, up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return swiglu_backward(grad, *ctx.saved_tensors)


def swiglu_apart(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up. On a CPU, what stands beside a row changes not even how it is rounded: PyTorch's float32 kernel
    rounds otherwise where a thread's share ends.
    """
    with one_thread() if gate.device.type == "cpu" and gate.dtype == torch.float32 else nullcontext():
        return silu(gate).mul_(up)


@Fused
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return silu(gate).mul_(up)


@Fused
def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.aten.silu_backward(grad * up, gate), silu(gate).mul_(grad)


class ToHeads(Function):
    """Heads before pieces, turned by the rotary position embedding where it is given.

    x: [rows, heads * size].  rotary: Cosines and sines, [width, size] each, the second half as the first.
    RETURNS: [windows, heads, width, size], contiguous, with any finite values at padding.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layout: Layout, size: int, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        ctx.rows, ctx.layout, ctx.rotary = len(x), layout, rotary
        heads = _by_head(layout.spread(x), layout, size)
        out = x.new_empty(heads.shape)
        return out.copy_(heads) if rotary is None else rotate(heads, *rotary, out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        rectangle, heads = _empty_rectangle(grad, ctx.layout)
        if ctx.rotary is None:
            heads.copy_(grad)
        else:
            cos, sin = ctx.rotary
            rotate(grad, cos, -sin, heads)
        return ctx.layout.collect(rectangle, ctx.rows), None, None, None


class ToRows(Function):
    """The way back from `ToHeads`, with zeros in the rows after the last piece.

    x: [windows, heads, width, size]. RETURNS: [rows, heads * size].
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layout: Layout, rows: int) -> Tensor:
        ctx.layout, ctx.size = layout, x.shape[3]
        rectangle, heads = _empty_rectangle(x, layout)
        heads.copy_(x)
        return layout.collect(rectangle, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _by_head(ctx.layout.spread(grad, zero=True), ctx.layout, ctx.size).contiguous(), None, None


def _empty_rectangle(like: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """RETURNS: [windows * width, heads * size] to be filled, and the view of it that is shaped as `like`."""
    windows, heads, width, size = like.shape
    out = like.new_empty(windows * width, heads * size)
    return out, _by_head(out, layout, size)


def _by_head(rectangle: Tensor, layout: Layout, size: int) -> Tensor:
    """A view: [windows, heads, width, size]."""
    return rectangle.view(layout.windows, layout.width, -1, size).transpose(1, 2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> Tensor:
    """Turns the pairs (x[i], x[i + size / 2]) by their angles, into `out`, which must not be x."""
    torch.mul(x, cos, out=out)
    half = x.shape[-1] // 2
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out
