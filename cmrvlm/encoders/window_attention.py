"""Windowed attention over (Z, T, H, W) for any input size, on `scaled_dot_product_attention`.

One implementation serves every encoder: a window is four lengths, one for each axis, and 0 stands
for the whole axis. Windows over (H, W) alone see one frame, a window over T alone is attention over
time, and so on. Sizes that windows do not divide are padded and the padding is masked. Shifted
windows do not see across the border (Liu et al., Swin Transformer, ICCV 2021). Position enters as a
bias computed from relative offsets by a small network (Swin V2, CVPR 2022), so that one set of
weights serves every size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

# Lengths along (Z, T, H, W).
Window = tuple[int, int, int, int]
Shape = tuple[int, int, int, int]

# Axes of (N, Z, T, H, W, C) that windows divide, and of a window the one along time.
_WINDOWED_AXES = (1, 2, 3, 4)
_TIME_AXIS = 1


@dataclass(frozen=True)
class WindowLayout:
    """Division of one input into windows; all lengths along (Z, T, H, W).

    Attributes:
        shape: Size of the input.
        window: Size of each window.
        padded: Size of the padded input, a multiple of the window.
        shift: Cyclic shift of the padded input before it is divided.
    """

    shape: Shape
    window: Window
    padded: Shape
    shift: Shape


def lay_out(shape: Shape, window: Window, shifted: bool) -> WindowLayout:
    """Return how an input is divided into windows.

    Args:
        shape: Size of the input along (Z, T, H, W).
        window: Wanted lengths; 0 is the whole axis.
        shifted: Shift by half a window along every axis that has more than one.
    """
    fitted = fit_window(shape, window)
    padded = []
    shift = []
    for size, length in zip(shape, fitted, strict=True):
        count = math.ceil(size / length)
        padded.append(count * length)
        has_neighbours = count > 1
        shift.append(length // 2 if shifted and has_neighbours else 0)
    return WindowLayout(
        shape=shape,
        window=fitted,
        padded=_four_lengths(padded),
        shift=_four_lengths(shift),
    )


def fit_window(shape: Shape, window: Window) -> Window:
    """Return the window shrunk to the input, so that it fits each axis with the least padding.

    Args:
        shape: Size of the input along (Z, T, H, W).
        window: Wanted lengths; 0 is the whole axis.
    """
    fitted = []
    for size, length in zip(shape, window, strict=True):
        count = 1
        if length > 0:
            count = math.ceil(size / length)
        fitted.append(math.ceil(size / count))
    return _four_lengths(fitted)


def _four_lengths(lengths: list[int]) -> Window:
    """Return four lengths as a tuple."""
    z, t, h, w = lengths
    return z, t, h, w


def partition(x: Tensor, window: Window) -> Tensor:
    """Divide features into windows; undone by `unpartition`.

    Args:
        x: Features (N, Z, T, H, W, C), axes multiples of the window.
        window: Lengths (a, b, d, e) along (Z, T, H, W).

    Returns:
        Tokens (N * windows, a*b*d*e, C) of each window.
    """
    a, b, d, e = window
    pattern = "n (z a) (t b) (h d) (w e) c -> (n z t h w) (a b d e) c"
    return rearrange(x, pattern, a=a, b=b, d=d, e=e)


def unpartition(windows: Tensor, window: Window, shape: Shape) -> Tensor:
    """Put windows together again.

    Args:
        windows: Tokens (N * windows, tokens of a window, C).
        window: Lengths (a, b, d, e) along (Z, T, H, W).
        shape: Size (Z, T, H, W) of the features that were divided.

    Returns:
        Features (N, Z, T, H, W, C).
    """
    a, b, d, e = window
    z, t, h, w = (size // length for size, length in zip(shape, window, strict=True))
    pattern = "(n z t h w) (a b d e) c -> n (z a) (t b) (h d) (w e) c"
    return rearrange(windows, pattern, z=z, t=t, h=h, w=w, a=a, b=b, d=d, e=e)


@lru_cache(maxsize=64)
def window_mask(layout: WindowLayout) -> Tensor | None:
    """Return which tokens of a window may attend to each other.

    Tokens of the padding are seen by nobody else, and tokens that the cyclic shift brought together
    from opposite borders stay apart.

    Returns:
        True for allowed pairs (windows, tokens, tokens), or None where all are allowed.
    """
    if layout.shape == layout.padded and not any(layout.shift):
        return None
    region = torch.zeros(layout.padded, dtype=torch.long)
    for axis in range(4):
        along_axis = _axis_regions(layout, axis)
        view = [1, 1, 1, 1]
        view[axis] = len(along_axis)
        # Four regions an axis: numbers to the base 4 tell all combinations apart.
        region = region * 4 + along_axis.view(view)
    features = rearrange(region, "z t h w -> 1 z t h w 1")
    tokens = partition(features, layout.window)  # (windows, tokens, 1)
    return tokens == tokens.transpose(1, 2)


def _axis_regions(layout: WindowLayout, axis: int) -> Tensor:
    """Return which region each position of the shifted axis belongs to; no region sees another.

    Returns:
        Numbers (padded,): 0 to 2 for the regions that the shift separates, 3 for padding.
    """
    size = layout.shape[axis]
    padded = layout.padded[axis]
    length = layout.window[axis]
    shift = layout.shift[axis]

    index = torch.arange(padded)
    region = torch.zeros_like(index)
    if shift:
        # As in Swin: the last window holds its own positions and those from the other border.
        in_last_window = index >= padded - length
        wrapped_around = index >= padded - shift
        region = in_last_window.long() + wrapped_around.long()

    position_before_shift = (index + shift) % padded
    is_padding = position_before_shift >= size
    return region.masked_fill(is_padding, 3)


@lru_cache(maxsize=64)
def relative_offsets(window: Window, frames: int) -> Tensor:
    """Compute features of the offset between every two tokens of a window.

    Offsets in space are log-spaced; those in time are the sine and cosine of their share of the
    cycle, because the heart beats periodically: rolling the cine in time changes nothing.

    Args:
        window: Lengths along (Z, T, H, W).
        frames: Frames of a cycle.

    Returns:
        Features (tokens, tokens, 5).
    """
    # Positions in lexicographic order, as `partition` flattens a window.
    position = torch.cartesian_prod(*map(torch.arange, window)).float()  # (tokens, 4)
    offset = position[:, None] - position[None, :]  # (tokens, tokens, 4)

    space = offset[..., [0, 2, 3]]
    magnitude = torch.log2(1 + space.abs())
    log_space = torch.sign(space) * magnitude / 3

    time = offset[..., [_TIME_AXIS]]
    phase = 2 * math.pi * time / max(frames, 1)
    features = [log_space, phase.sin(), phase.cos()]
    return torch.cat(features, dim=-1)


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
        x = _pad_and_shift(x, layout)

        tokens = partition(x, layout.window)  # (N * windows, L, C)
        q, k, v = rearrange(
            self.qkv(tokens),
            "b l (three heads d) -> three b heads l d",
            three=3,
            heads=self.heads,
        )
        bias = self._attention_bias(layout, n, q)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=bias)
        mixed = rearrange(mixed, "b heads l d -> b l (heads d)")

        out = unpartition(self.out(mixed), layout.window, layout.padded)
        if any(layout.shift):
            out = out.roll(layout.shift, dims=_WINDOWED_AXES)
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
        frames = layout.shape[_TIME_AXIS]
        offsets = relative_offsets(layout.window, frames).to(q.device)
        bias = rearrange(self.bias(offsets), "l1 l2 heads -> 1 heads l1 l2")
        bias = bias.to(q.dtype)
        allowed = window_mask(layout)
        if allowed is None:
            return bias
        forbidden = rearrange(~allowed, "windows l1 l2 -> windows 1 l1 l2")
        masked = bias.masked_fill(forbidden.to(q.device), float("-inf"))
        return repeat(masked, "windows ... -> (n windows) ...", n=batch_size)


def _pad_and_shift(x: Tensor, layout: WindowLayout) -> Tensor:
    """Pad features (N, Z, T, H, W, C) with zeros to multiples of the window, and shift them."""
    if layout.padded != layout.shape:
        sizes = zip(layout.padded, layout.shape, strict=True)
        z, t, h, w = (padded - size for padded, size in sizes)
        # `pad` takes the axes from the last to the first: channels, then W, H, T and Z.
        x = pad(x, (0, 0, 0, w, 0, h, 0, t, 0, z))
    if any(layout.shift):
        backwards = [-length for length in layout.shift]
        x = x.roll(backwards, dims=_WINDOWED_AXES)
    return x


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
