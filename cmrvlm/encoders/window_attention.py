"""Windowed attention over (Z, T, H, W) for any input size, on `scaled_dot_product_attention`.

One implementation serves every encoder: a window is four lengths, one for each axis, and 0 stands for the whole axis.
Windows over (H, W) alone see one frame, a window over T alone is attention over time, and so on. Sizes that windows do
not divide are padded and the padding is masked, shifted windows do not see across the border (Liu et al., Swin
Transformer, ICCV 2021), and position enters as a bias computed from relative offsets by a small network (Swin V2,
CVPR 2022), so that one set of weights serves every size.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

Window = tuple[int, int, int, int]
_TIME_AXIS = 1


def fit_window(shape: tuple[int, ...], window: Window) -> Window:
    """The window for an input (Z, T, H, W): at most the axis, and shrunk so that padding is least."""
    fitted = []
    for size, wanted in zip(shape, window, strict=True):
        count = math.ceil(size / wanted) if wanted else 1
        fitted.append(math.ceil(size / count))
    return fitted[0], fitted[1], fitted[2], fitted[3]


def partition(x: Tensor, window: Window) -> Tensor:
    """(N, Z, T, H, W, C), axes multiples of the window, to (N * windows, tokens in a window, C)."""
    n, z, t, h, w, c = x.shape
    a, b, d, e = window
    x = x.view(n, z // a, a, t // b, b, h // d, d, w // e, e, c)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6, 8, 9).reshape(-1, a * b * d * e, c)


def unpartition(windows: Tensor, window: Window, shape: tuple[int, int, int, int]) -> Tensor:
    """Inverse of `partition` for padded axes `shape` (Z, T, H, W)."""
    a, b, d, e = window
    z, t, h, w = shape
    x = windows.view(-1, z // a, t // b, h // d, w // e, a, b, d, e, windows.shape[-1])
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4, 8, 9).reshape(-1, z, t, h, w, windows.shape[-1])


@lru_cache(maxsize=64)
def window_mask(
    shape: tuple[int, ...], padded: tuple[int, ...], window: Window, shift: Window
) -> Tensor | None:
    """Which tokens of a window may see each other: (windows, tokens, tokens), or None when all may.

    Tokens of the padding are seen by nobody else, and tokens that the cyclic shift brought together stay apart.
    """
    if shape == padded and not any(shift):
        return None
    region = torch.zeros(padded, dtype=torch.long)
    for axis, (size, full, length, moved) in enumerate(
        zip(shape, padded, window, shift, strict=True)
    ):
        index = torch.arange(full)
        part = (
            (index >= full - length).long() + (index >= full - moved).long()
            if moved
            else torch.zeros_like(index)
        )
        rolled_padding = (
            index + moved
        ) % full >= size  # position before the shift lies in the padding
        part = torch.where(rolled_padding, torch.full_like(part, 3), part)
        view = [1, 1, 1, 1]
        view[axis] = full
        region = region * 4 + part.view(view)
    tokens = partition(region[None, ..., None], window)[..., 0]  # (windows, tokens)
    return tokens[:, :, None] == tokens[:, None, :]


@lru_cache(maxsize=64)
def relative_offsets(window: Window, frames: int) -> Tensor:
    """Features of the offset between every two tokens of a window, (tokens, tokens, 5).

    Offsets in space are log-spaced; those in time are the sine and cosine of their share of the cycle of `frames`,
    because the heart beats periodically: turning the cine changes nothing.
    """
    axes = torch.meshgrid(*(torch.arange(n) for n in window), indexing="ij")
    position = torch.stack([axis.flatten() for axis in axes], dim=-1).float()  # (tokens, 4)
    offset = position[:, None] - position[None, :]  # (tokens, tokens, 4)
    space = offset[..., [0, 2, 3]]
    log_space = torch.sign(space) * torch.log2(1 + space.abs()) / 3
    turn = 2 * math.pi * offset[..., _TIME_AXIS] / max(frames, 1)
    return torch.cat([log_space, torch.sin(turn)[..., None], torch.cos(turn)[..., None]], dim=-1)


class WindowAttention(nn.Module):
    """Multi-head attention within windows of (Z, T, H, W).

    Args:
        width: Channels.
        heads: Attention heads; divides `width`.
        window: Lengths along (Z, T, H, W); 0 is the whole axis.
        shifted: Shift the windows by half their length along every axis that has more than one.
    """

    def __init__(self, width: int, heads: int, window: Window, shifted: bool = False) -> None:
        super().__init__()
        self.heads, self.window, self.shifted = heads, tuple(window), shifted
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(
            self.out.weight
        )  # a block starts as the identity, so the stem learns from the first step
        self.bias = nn.Sequential(nn.Linear(5, 32), nn.GELU(), nn.Linear(32, heads, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(N, Z, T, H, W, C) to the same shape."""
        n, *axes, c = x.shape
        shape = (axes[0], axes[1], axes[2], axes[3])
        window = fit_window(shape, self.window)  # type: ignore[arg-type]
        padded = tuple(
            math.ceil(size / length) * length for size, length in zip(shape, window, strict=True)
        )
        shift = tuple(
            length // 2 if self.shifted and full > length else 0
            for full, length in zip(padded, window, strict=True)
        )
        if padded != shape:
            x = pad(
                x,
                (
                    0,
                    0,
                    *(
                        v
                        for s, f in zip(shape[::-1], padded[::-1], strict=True)
                        for v in (0, f - s)
                    ),
                ),
            )
        if any(shift):
            x = x.roll([-s for s in shift], dims=(1, 2, 3, 4))
        tokens = partition(x, window)  # (N * windows, L, C)
        q, k, v = (
            self.qkv(tokens).unflatten(-1, (3, self.heads, c // self.heads)).permute(2, 0, 3, 1, 4)
        )
        bias = self._bias(window, shape, padded, shift, n, q)  # type: ignore[arg-type]
        mixed = scaled_dot_product_attention(
            q, k, v, attn_mask=bias
        )  # (N * windows, heads, L, C / heads)
        out = self.out(mixed.transpose(1, 2).flatten(2))
        out = unpartition(out, window, padded)  # type: ignore[arg-type]
        if any(shift):
            out = out.roll(list(shift), dims=(1, 2, 3, 4))
        return out[:, : shape[0], : shape[1], : shape[2], : shape[3]]

    def _bias(
        self, window: Window, shape: Window, padded: Window, shift: Window, n: int, q: Tensor
    ) -> Tensor:
        offsets = relative_offsets(window, shape[_TIME_AXIS]).to(q.device)
        bias = self.bias(offsets).permute(2, 0, 1)[None].to(q.dtype)  # (1, heads, L, L)
        mask = window_mask(shape, padded, window, shift)
        if mask is None:
            return bias
        allowed = mask.to(q.device)[:, None]  # (windows, 1, L, L)
        masked = bias.expand(len(allowed), -1, -1, -1).masked_fill(~allowed, float("-inf"))
        return masked.repeat(n, 1, 1, 1)  # (N * windows, heads, L, L)


class AttentionBlock(nn.Module):
    """Pre-norm attention over one or more windows in turn, then a feed-forward layer; all residual.

    Args:
        width: Channels.
        heads: Attention heads.
        windows: Windows that attend one after the other, each with its own weights.
        shifted: Shift the windows.
        ratio: Width of the feed-forward layer relative to `width`.
    """

    def __init__(
        self, width: int, heads: int, windows: tuple[Window, ...], shifted: bool, ratio: float = 2.0
    ) -> None:
        super().__init__()
        self.attention = nn.ModuleList(
            WindowAttention(width, heads, window, shifted) for window in windows
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in windows)
        hidden = int(width * ratio)
        last = nn.Linear(hidden, width)
        nn.init.zeros_(last.weight)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), last
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, Z, T, H, W, C) to the same shape."""
        for norm, attention in zip(self.norms, self.attention, strict=True):
            x = x + attention(norm(x))
        return x + self.feed_forward(x)
