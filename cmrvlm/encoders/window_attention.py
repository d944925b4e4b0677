"""Windowed attention over (Z, T, H, W) for any input size, on `scaled_dot_product_attention`.

One implementation serves every encoder: a window is four lengths, one for each axis, and 0 stands
for the whole axis. Windows over (H, W) alone see one frame, a window over T alone is attention over
time, and so on. Sizes that windows do not divide are padded and the padding is masked. Shifted
windows do not see across the border (Liu et al., Swin Transformer, ICCV 2021). Position enters as a
bias computed from relative offsets by a small network (Swin V2, CVPR 2022), so that one set of
weights serves every size.
"""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from cmrvlm.encoders.windows import (
    TIME_AXIS,
    WINDOWED_AXES,
    Window,
    WindowLayout,
    lay_out,
    pad_and_shift,
    partition,
    relative_offsets,
    unpartition,
    window_mask,
)

# Windows in one call. Kernels of CUDA take fewer than 65,536, and fail or become slow beyond.
_MOST_WINDOWS = 32_768


class WindowAttention(nn.Module):
    """Multi-head attention within windows of (Z, T, H, W).

    Args:
        width: Channels.
        heads: Attention heads; divides `width`.
        window: Lengths along (Z, T, H, W); 0 is the whole axis.
        shifted: Shift the windows by half their length along every axis that has more than one.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        window: Window,
        shifted: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.shifted = shifted
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        # A block starts as the identity, so the stem learns from the first step.
        nn.init.zeros_(self.out.weight)
        self.bias = nn.Sequential(
            nn.Linear(5, 32),
            nn.GELU(),
            nn.Linear(32, heads, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Attend within windows of features (N, Z, T, H, W, C) and return the same shape."""
        n, z, t, h, w, _ = x.shape
        layout = lay_out((z, t, h, w), self.window, self.shifted)
        x = pad_and_shift(x, layout)

        tokens = partition(x, layout.window)  # (N * windows, L, C)
        q, k, v = rearrange(
            self.qkv(tokens),
            "b l (three heads d) -> three b heads l d",
            three=3,
            heads=self.heads,
        )
        bias = self._attention_bias(layout, n, q)
        mixed = _attend(q, k, v, bias)
        mixed = rearrange(mixed, "b heads l d -> b l (heads d)")

        out = unpartition(self.out(mixed), layout.window, layout.padded)
        if any(layout.shift):
            out = out.roll(layout.shift, dims=WINDOWED_AXES)
        return out[:, :z, :t, :h, :w]

    def _attention_bias(
        self,
        layout: WindowLayout,
        batch_size: int,
        q: Tensor,
    ) -> Tensor:
        """Return what is added to the attention logits: position bias, minus infinity if masked.

        Args:
            layout: Division into windows.
            batch_size: Number of inputs N.
            q: Queries (N * windows, heads, L, C / heads), for device and precision.

        Returns:
            Bias (1 or N * windows, heads, L, L).
        """
        frames = layout.shape[TIME_AXIS]
        offsets = relative_offsets(layout.window, frames).to(q.device)
        bias = rearrange(self.bias(offsets), "l1 l2 heads -> 1 heads l1 l2")
        bias = bias.to(q.dtype)
        allowed = window_mask(layout)
        if allowed is None:
            return bias
        forbidden = rearrange(~allowed, "windows l1 l2 -> windows 1 l1 l2")
        masked = bias.masked_fill(forbidden.to(q.device), float("-inf"))
        return repeat(masked, "windows ... -> (n windows) ...", n=batch_size)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Return what windows (N * windows, heads, L, C / heads) gather, some of them at a time.

    Args:
        q: Queries.
        k: Keys, as the queries.
        v: Values, as the queries.
        bias: Bias (1 or N * windows, heads, L, L).
    """
    mixed = []
    for start in range(0, len(q), _MOST_WINDOWS):
        rows = slice(start, start + _MOST_WINDOWS)
        own_bias = bias if len(bias) == 1 else bias[rows]
        mixed.append(scaled_dot_product_attention(q[rows], k[rows], v[rows], attn_mask=own_bias))
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


class AttentionBlock(nn.Module):
    """Pre-norm attention over one or more windows in turn, then a feed-forward layer; residual.

    Args:
        width: Channels.
        heads: Attention heads.
        windows: Windows that attend one after the other, each with its own weights.
        shifted: Shift the windows.
        ratio: Width of the feed-forward layer relative to `width`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        windows: tuple[Window, ...],
        shifted: bool,
        ratio: float = 2.0,
    ) -> None:
        super().__init__()
        self.attention = nn.ModuleList(
            WindowAttention(width, heads, window, shifted) for window in windows
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in windows)
        hidden = int(width * ratio)
        last = nn.Linear(hidden, width)
        # As in the attention: a block starts as the identity.
        nn.init.zeros_(last.weight)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform features (N, Z, T, H, W, C) and return the same shape."""
        for norm, attention in zip(self.norms, self.attention, strict=True):
            x = x + attention(norm(x))
        return x + self.feed_forward(x)
