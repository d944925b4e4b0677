"""Windows of features (Z, T, H, W): where they lie, what they mask, and how they are cut out.

A window is four lengths, one for each axis, and 0 stands for the whole axis. Sizes that windows do
not divide are padded and the padding is masked. Shifted windows do not see across the border (Liu
et al., Swin Transformer, ICCV 2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad

# Lengths along (Z, T, H, W).
Window = tuple[int, int, int, int]
Shape = tuple[int, int, int, int]

# Axes of (N, Z, T, H, W, C) that windows divide, and of a window the one along time.
WINDOWED_AXES = (1, 2, 3, 4)
TIME_AXIS = 1


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

    time = offset[..., [TIME_AXIS]]
    phase = 2 * math.pi * time / max(frames, 1)
    features = [log_space, phase.sin(), phase.cos()]
    return torch.cat(features, dim=-1)


def pad_and_shift(x: Tensor, layout: WindowLayout) -> Tensor:
    """Pad features (N, Z, T, H, W, C) with zeros to multiples of the window, and shift them."""
    if layout.padded != layout.shape:
        sizes = zip(layout.padded, layout.shape, strict=True)
        z, t, h, w = (padded - size for padded, size in sizes)
        # `pad` takes the axes from the last to the first: channels, then W, H, T and Z.
        x = pad(x, (0, 0, 0, w, 0, h, 0, t, 0, z))
    if any(layout.shift):
        backwards = [-length for length in layout.shift]
        x = x.roll(backwards, dims=WINDOWED_AXES)
    return x
