"""Masks and boxes from language: a mark, <SEG> or <DET>, and its answer are a query over an encoder's pyramid."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cmrvlm.encoders.base import frames_as_batch, frames_to_volume
from cmrvlm.encoders.stem import conv_block

_WORDS_GAIN = 3.0  # found by the single runs that experiments/segmentation tells of


class LanguageQuery(nn.Module):
    """Weights over pixel features, from the hidden state of a mark and from the words of its answer.

    Behind a mark comes the same word whatever was asked, and its hidden state is trained to predict that word: until
    the language model has learned more, it hardly tells one structure from another. The embeddings of the words do.

    Args:
        width: Of the language model's hidden states and embeddings.
        out: Number of weights.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.mark = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out))
        named = nn.Linear(width, out)
        with torch.no_grad():
            named.weight.mul_(_WORDS_GAIN)
        self.words = nn.Sequential(nn.LayerNorm(width), named)

    def forward(self, marks: Tensor, words: Tensor) -> Tensor:
        """Weights (M, out) from hidden states (M, D) of marks and mean embeddings (M, D) of their answers."""
        weights: Tensor = self.mark(marks) + self.words(words)
        return weights


class MaskDecoder(nn.Module):
    """Upsamples the pyramid to the input's resolution, frame by frame, and compares each pixel with the query.

    Args:
        pyramid_channels: Channels of the pyramid, finest first.
        pyramid_strides: Stride of each of its levels; the first is 1.
        query_width: Width of the language model's hidden states.
        channels: Channels of the decoder at strides 1, 2, and the pyramid's; the last value serves all coarser ones.
        scales: Finest levels at which masks are compared with the truth in training (deep supervision, Lee et al.,
            AISTATS 2015); 1 for the finest alone.
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
        levels, self.detail = tuple(pyramid_channels), None
        if 2 not in pyramid_strides:
            # Nothing comes between the image and stride 4: for the frames asked the decoder makes stride 2 itself.
            self.detail = conv_block(pyramid_channels[0], channels[1], stride=2)
            levels = (pyramid_channels[0], channels[1], *pyramid_channels[1:])
        count = len(levels)
        widths = [channels[min(i, len(channels) - 1)] for i in range(count)]
        self.entry = nn.Conv2d(levels[-1], widths[-1], 1)
        self.blocks = nn.ModuleList(
            conv_block(widths[i + 1] + levels[i], widths[i]) for i in reversed(range(count - 1))
        )
        self.pixel = nn.Conv2d(widths[0], widths[0], 1)
        self.coarse = nn.ModuleList(
            nn.Conv2d(widths[i], widths[0], 1) for i in range(1, min(scales, count - 1))
        )
        self.query = LanguageQuery(query_width, widths[0] + 1)
        self.box_query = LanguageQuery(query_width, widths[0] + 1)

    def pixels(self, pyramid: list[Tensor]) -> list[Tensor]:
        """Pixel features (M, C, Z, F, H / s, W / s), finest first, from levels (M, C_i, Z, F, H / s_i, W / s_i).

        Coarser ones than the finest are there in training alone.
        """
        m, _, z, f, _, _ = pyramid[0].shape
        image, *coarse = [frames_as_batch(level) for level in pyramid]
        levels = [image, *coarse] if self.detail is None else [image, self.detail(image), *coarse]
        x = self.entry(levels[-1])
        made = []
        for level, block in zip(reversed(levels[:-1]), self.blocks, strict=True):
            x = interpolate(x, size=level.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([x, level.to(x.dtype)], dim=1))
            made.append(x)
        kept = self.coarse if self.training else ()
        features = [self.pixel(made[-1]), *(head(made[-2 - i]) for i, head in enumerate(kept))]
        return [frames_to_volume(one, m, z, f) for one in features]

    def forward(
        self, pixels: Tensor, which: Tensor, marks: Tensor, words: Tensor, as_box: Tensor
    ) -> Tensor:
        """Logits of masks, or of maps whose extents along the axes are boxes.

        Args:
            pixels: (G, C, Z, F, H, W) of the pictures that are asked about, each once.
            which: (M,) picture of each mark.
            marks: (M, D) hidden states of <SEG> or <DET>.
            words: (M, D) mean embeddings of the answers that they stand in.
            as_box: (M,) true where a box is asked.

        Returns:
            (M, Z, F, H, W).
        """
        weights = torch.where(
            as_box[:, None], self.box_query(marks, words), self.query(marks, words)
        )
        # All queries of a picture at once: a copy of its features for each would cost more than the product.
        own = [(which == picture).nonzero()[:, 0] for picture in range(len(pixels))]
        logits = torch.cat(
            [
                torch.einsum("mc,czfhw->mzfhw", weights[rows, :-1], one)
                for rows, one in zip(own, pixels.unbind(), strict=True)
            ]
        )
        return logits[torch.cat(own).argsort()] + weights[:, -1, None, None, None, None]
