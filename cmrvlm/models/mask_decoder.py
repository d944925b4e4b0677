"""Mask decoder: <SEG> or <DET> in an answer is a query over the pyramid of an encoder."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cmrvlm.encoders.base import frames_as_batch, frames_to_volume
from cmrvlm.encoders.stem import conv_block

# Scale of the initial weights on the words, chosen by the runs of experiments/segmentation.
_WORDS_GAIN = 3.0


class LanguageQuery(nn.Module):
    """Weights over pixel features, from the hidden state of a mark and the words of its answer.

    The same word follows a mark whatever the question was, and its hidden state is trained to
    predict that word: until the language model has learned more, the state hardly tells one
    structure from another. The embeddings of the words do.

    Args:
        width: Width of the language model's hidden states and embeddings.
        out: Number of weights.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.mark = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, out),
        )
        projection = nn.Linear(width, out)
        with torch.no_grad():
            projection.weight.mul_(_WORDS_GAIN)
        self.words = nn.Sequential(
            nn.LayerNorm(width),
            projection,
        )

    def forward(self, marks: Tensor, words: Tensor) -> Tensor:
        """Compute the weights of M queries.

        Args:
            marks: Hidden states (M, D) of the marks.
            words: Mean embeddings (M, D) of the answers that the marks stand in.

        Returns:
            Weights (M, out).
        """
        weights: Tensor = self.mark(marks) + self.words(words)
        return weights


class MaskDecoder(nn.Module):
    """Upsample the pyramid to the resolution of the images, and compare each pixel with queries.

    Each picture (one slice in one frame) is decoded by itself.

    Args:
        pyramid_channels: Channels of the pyramid, finest first.
        pyramid_strides: Stride of each of its levels; the first is 1.
        query_width: Width of the language model's hidden states.
        channels: Channels of the decoder at strides 1, 2, and those of the pyramid; the last value
            serves all coarser ones.
        scales: Finest levels at which masks are compared with the truth in training (deep
            supervision, Lee et al., AISTATS 2015); 1 for the finest alone.
    """

    def __init__(
        self,
        pyramid_channels: tuple[int, ...],
        pyramid_strides: tuple[int, ...],
        query_width: int,
        channels: tuple[int, ...] = (16, 24, 32, 48),
        scales: int = 1,
    ) -> None:
        super().__init__()
        in_channels = list(pyramid_channels)
        self.detail: nn.Module | None = None
        if 2 not in pyramid_strides:
            # The pyramid has nothing between the images and stride 4: the decoder makes stride 2
            # itself, for the frames that it decodes.
            width = channels[1]
            self.detail = conv_block(in_channels[0], width, stride=2)
            in_channels.insert(1, width)

        levels = len(in_channels)
        coarsest = len(channels) - 1
        widths = [channels[min(level, coarsest)] for level in range(levels)]
        self.entry = nn.Conv2d(in_channels[-1], widths[-1], 1)
        self.blocks = nn.ModuleList()
        for level in reversed(range(levels - 1)):
            joined = widths[level + 1] + in_channels[level]
            block = conv_block(joined, widths[level])
            self.blocks.append(block)

        # One layer for each scale brings its features to the width of the queries.
        width = widths[0]
        self.pixel = nn.Conv2d(width, width, 1)
        self.coarse = nn.ModuleList()
        for level in range(1, min(scales, levels - 1)):
            head = nn.Conv2d(widths[level], width, 1)
            self.coarse.append(head)
        # A weight for each feature, and a bias.
        self.query = LanguageQuery(query_width, width + 1)
        self.box_query = LanguageQuery(query_width, width + 1)

    def pixels(self, pyramid: list[Tensor]) -> list[Tensor]:
        """Compute pixel features, at the resolution of the images or, in training, at all scales.

        Args:
            pyramid: Levels (G, C_i, Z, F, H / s_i, W / s_i), finest first, of the frames to decode.

        Returns:
            Features (G, C, Z, F, H / s, W / s), finest first.
        """
        groups, _, slices, frames, _, _ = pyramid[0].shape
        levels = [frames_as_batch(level) for level in pyramid]
        if self.detail is not None:
            levels.insert(1, self.detail(levels[0]))

        coarsest = levels.pop()
        x = self.entry(coarsest)
        decoded = []
        for level, block in zip(reversed(levels), self.blocks, strict=True):
            upsampled = interpolate(
                x,
                size=level.shape[-2:],
                mode="bilinear",
                align_corners=False,
            )
            skip = level.to(upsampled.dtype)
            x = block(torch.cat([upsampled, skip], dim=1))
            decoded.append(x)

        finest = decoded.pop()
        features = [self.pixel(finest)]
        if self.training:
            for head in self.coarse:
                features.append(head(decoded.pop()))
        return [frames_to_volume(pixels, groups, slices, frames) for pixels in features]

    def forward(
        self,
        pixels: Tensor,
        group_index: Tensor,
        marks: Tensor,
        words: Tensor,
        as_box: Tensor,
    ) -> Tensor:
        """Compute logits of M masks, or of maps whose extents along the axes are boxes.

        Args:
            pixels: Pixel features (G, C, Z, F, H, W) of one scale, for each study and set of frames
                once.
            group_index: Index (M,) into the pixel features for each mark; each occurs.
            marks: Hidden states (M, D) of <SEG> or <DET>.
            words: Mean embeddings (M, D) of the answers that they stand in.
            as_box: True (M,) for marks of boxes.

        Returns:
            Logits (M, Z, F, H, W).
        """
        mask_weights = self.query(marks, words)
        box_weights = self.box_query(marks, words)
        weights = torch.where(as_box[:, None], box_weights, mask_weights)  # (M, C + 1)

        # All queries of a group at once: a copy of its features for each of them would cost more
        # than the product.
        queries = []
        logits = []
        for group, features in enumerate(pixels):
            rows = (group_index == group).nonzero()[:, 0]
            products = torch.einsum(
                "mc,czfhw->mzfhw",
                weights[rows, :-1],
                features,
            )
            queries.append(rows)
            logits.append(products)

        # Back to the order of the queries.
        order = torch.cat(queries).argsort()
        bias = rearrange(weights[:, -1], "m -> m 1 1 1 1")
        return torch.cat(logits)[order] + bias
