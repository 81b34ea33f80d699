"""What a Mistral layer does between its linears, with gradients written out by hand.

The stock modules make a dozen passes over the hidden states where a few do, and keep float32 copies for the backward
pass. Each function here gives the stock result, up to the rounding of the compute type, and keeps what it must.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import batch_norm, silu


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


@Fused
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return silu(gate) * up


@Fused
def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.aten.silu_backward(grad * up, gate), silu(gate).mul_(grad)


class ToHeads(Function):
    """Heads before pieces, turned by the rotary position embedding where it is given.

    x: [rows, heads * size], of which the first batch * pieces rows count.  shape: batch, pieces.
    rotary: Cosines and sines, [pieces, size] each, the second half as the first.
    RETURNS: [batch, heads, pieces, size], contiguous.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: tuple[int, int], size: int, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        ctx.rows, ctx.rotary = len(x), rotary
        heads = _by_head(x, shape, size)
        out = x.new_empty(heads.shape)
        return out.copy_(heads) if rotary is None else rotate(heads, *rotary, out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        if ctx.rotary is None:
            return to_rows(grad, ctx.rows), None, None, None
        cos, sin = ctx.rotary
        out, heads = _empty_rows(grad, ctx.rows)
        rotate(grad, cos, -sin, heads)
        return out, None, None, None


class ToRows(Function):
    """The way back from `ToHeads`, with zeros in the rows that do not count.

    x: [batch, heads, pieces, size]. RETURNS: [rows, heads * size].
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: int) -> Tensor:
        ctx.shape, ctx.size = (x.shape[0], x.shape[2]), x.shape[3]
        return to_rows(x, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _by_head(grad, ctx.shape, ctx.size).contiguous(), None


def to_rows(x: Tensor, rows: int) -> Tensor:
    out, heads = _empty_rows(x, rows)
    heads.copy_(x)
    return out


def _empty_rows(like: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """RETURNS: New rows, and the view of them that is shaped as `like`, to be filled."""
    batch, heads, pieces, size = like.shape
    out = like.new_empty(rows, heads * size)
    out[batch * pieces :] = 0
    return out, _by_head(out, (batch, pieces), size)


def _by_head(x: Tensor, shape: tuple[int, int], size: int) -> Tensor:
    """A view of rows: [batch, heads, pieces, size]."""
    batch, pieces = shape
    return x[: batch * pieces].view(batch, pieces, -1, size).transpose(1, 2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> Tensor:
    """Turns the pairs (x[i], x[i + size / 2]) by their angles, into `out`, which must not be x."""
    torch.mul(x, cos, out=out)
    half = x.shape[-1] // 2
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out
