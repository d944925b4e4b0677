"""Train MONAI's DynUNet as nnU-Net plans it, on images, augmentation and split of our model.

What differs from nnU-Net: images, augmentation and the time of training are those of the
comparison, and nothing is mirrored when masks are made. What lies outside the image is background
for its loss, and nothing for ours. A third of the 3D patches is not forced to hold foreground:
every stack here is centred on a heart. Its optimizer is made for a quarter of a million steps; in
the minutes of this comparison AdamW does better.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from cmrvlm.losses.segmentation import scale_weights
from cmrvlm.study.study import Series
from cmrvlm.study.vocabulary import NOT_ANNOTATED, STRUCTURES
from experiments.segmentation.scores import LabelMap

# That of nnU-Net (Isensee et al., Nature Methods 2021), and that of our model.
_OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5),
    "adamw": partial(torch.optim.AdamW, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.02),
}
# Studies of a batch, by the number of dimensions.
_STUDIES = {2: 4, 3: 2}
# Slices of each study of a batch in 2D.
_SLICES = 3
# Levels of the decoder with a loss of their own beside the finest.
_DEEP_LEVELS = 3
# Fewest voxels that are left of an axis that is halved together with others, and by itself.
_FEWEST_VOXELS = 4
_FEWEST_VOXELS_ALONE = 6
# Factor within which spacings count as alike.
_ALIKE_FACTOR = 2
# Filters of the finest level, and the most of any level by the number of dimensions.
_FIRST_FILTERS = 32
_MOST_FILTERS = {2: 512, 3: 320}


def planned(
    size: Sequence[int], spacing_mm: Sequence[float]
) -> tuple[list[list[int]], list[list[int]]]:
    """Return kernels and strides of the levels that nnU-Net's rules give for a size and spacing.

    An axis is halved while at least four voxels are left of it (six, if none goes with it) and its
    spacing is less than twice the finest among those. It takes part in convolutions from the level
    on where its spacing is less than twice the finest of all.

    Args:
        size: (H, W) or (Z, H, W).
        spacing_mm: Spacing along the same axes.
    """
    voxels = np.array(size)
    spacing = np.array(spacing_mm, dtype=float)
    convolved = np.zeros(len(size), dtype=bool)
    kernels: list[list[int]] = []
    strides = [[1] * len(size)]
    while True:
        halved = voxels >= 2 * _FEWEST_VOXELS
        if not halved.any():
            break
        halved &= spacing < _ALIKE_FACTOR * spacing[halved].min()
        if halved.sum() == 1 and voxels[halved].item() < 2 * _FEWEST_VOXELS_ALONE:
            break
        convolved |= spacing < _ALIKE_FACTOR * spacing.min()
        kernels.append(np.where(convolved, 3, 1).tolist())
        strides.append(np.where(halved, 2, 1).tolist())
        # Odd sizes are rounded up, as by a convolution with padding.
        voxels = np.where(halved, -(-voxels // 2), voxels)
        spacing = np.where(halved, 2 * spacing, spacing)
    return [*kernels, [3] * len(size)], strides


class Baseline:
    """A DynUNet that trains for a given time and labels series.

    Args:
        dimensions: 2 for slices, 3 for stacks.
        size: (Z, H, W) of the median stack.
        spacing_mm: Spacing of the median stack along (Z, H, W).
        structures: Names of the structures, in the order of the classes behind the background.
        optimizer: `sgd` as in nnU-Net, or `adamw` as for our model.
        seed: Seed of weights and draws.
    """

    def __init__(
        self,
        dimensions: int,
        size: Sequence[int],
        spacing_mm: Sequence[float],
        structures: Sequence[str],
        optimizer: str = "sgd",
        seed: int = 0,
    ) -> None:
        """Plan and build the network."""
        torch.manual_seed(seed)
        self.dimensions = dimensions
        self.values = [STRUCTURES[name] for name in structures]
        kernels, strides = planned(size[-dimensions:], spacing_mm[-dimensions:])
        multiple = np.prod(strides, axis=0)
        # The patch is the median image, rounded up to a size that all strides divide.
        steps = -(-np.array(size[-dimensions:]) // multiple)
        self.patch = tuple((steps * multiple).tolist())
        most = _MOST_FILTERS[dimensions]
        filters = [min(_FIRST_FILTERS * 2**level, most) for level in range(len(kernels))]
        self.network = DynUNet(
            dimensions,
            1,
            1 + len(structures),
            kernels,
            strides,
            strides[1:],
            filters=filters,
            deep_supervision=True,
            deep_supr_num=_DEEP_LEVELS,
        )
        self.optimizer: torch.optim.Optimizer = _OPTIMIZERS[optimizer](self.network.parameters())
        self.rng = np.random.default_rng(seed)
        self.loss = DiceCELoss(
            to_onehot_y=True, softmax=True, batch=dimensions == 2, include_background=False
        )

    @property
    def slices(self) -> int | None:
        """Slices to take of a stack; None for all."""
        if self.dimensions == 2:
            return _SLICES
        return None

    def train(self, frames: Iterator[Series], minutes: float) -> list[tuple[float, float]]:
        """Train on augmented frames as they come, until the time is over.

        Returns:
            Minutes and loss, every ten steps.
        """
        started = time.monotonic()
        curve: list[tuple[float, float]] = []
        losses: list[float] = []
        first_rate = self.optimizer.param_groups[0]["lr"]
        self.network.train()
        while True:
            share = (time.monotonic() - started) / (60 * minutes)
            if share >= 1:
                break
            # The polynomial schedule of nnU-Net, over time in place of epochs.
            for group in self.optimizer.param_groups:
                group["lr"] = first_rate * (1 - share) ** 0.9
            images, labels = self._batch(frames)
            with torch.autocast("cpu", torch.bfloat16):
                scales = self.network(images)
            loss = self._total(scales.float(), labels)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 12.0)
            self.optimizer.step()
            losses.append(loss.item())
            if len(losses) % 10 == 0:
                curve.append((share * minutes, float(np.mean(losses[-10:]))))
        return curve

    def _total(self, scales: Tensor, labels: Tensor) -> Tensor:
        """Sum the loss over the scales, which DynUNet gives at full size.

        Args:
            scales: (B, S, C, ...) logits of S scales.
            labels: (B, 1, ...) classes.

        Returns:
            Loss, a scalar.
        """
        shares = scale_weights(scales.shape[1])
        losses = []
        for share, logits in zip(shares, scales.unbind(1), strict=True):
            losses.append(share * self.loss(logits, labels))
        return torch.stack(losses).sum()

    def _batch(self, frames: Iterator[Series]) -> tuple[Tensor, Tensor]:
        """Return images and classes (B, 1, H, W) in 2D, or (B, 1, Z, H, W) in 3D.

        In 3D the stacks are cut at random, or padded, to the depth Z of the patch.
        """
        images: list[Tensor] = []
        labels: list[Tensor] = []
        for _ in range(_STUDIES[self.dimensions]):
            image, classes = self._stack(next(frames), 0)
            if self.dimensions == 2:
                images.append(image[:, None])
                labels.append(classes[:, None])
                continue
            depth = self.patch[0]
            start = int(self.rng.integers(max(0, len(image) - depth) + 1))
            missing = max(0, depth - len(image))
            # Padded as the sliding window pads.
            pad = (0, 0, 0, 0, missing // 2, missing - missing // 2)
            images.append(nn.functional.pad(image[start : start + depth], pad)[None, None])
            labels.append(nn.functional.pad(classes[start : start + depth], pad)[None, None])
        return torch.cat(images), torch.cat(labels)

    def _stack(self, series: Series, frame: int) -> tuple[Tensor, Tensor]:
        """Return image (Z, H, W) and classes (Z, H, W) of a frame."""
        assert series.mask is not None
        image = torch.from_numpy(np.ascontiguousarray(series.image[:, frame], dtype=np.float32))
        mask = torch.from_numpy(np.ascontiguousarray(series.mask[:, frame]))
        classes = torch.zeros_like(image)
        for number, value in enumerate(self.values, start=1):
            classes[mask == value] = number
        return image, classes

    @torch.no_grad()
    def label(self, series: Series) -> LabelMap:
        """Return a label map (Z, T, H, W) of a series; frames without annotation are 255."""
        self.network.eval()
        result = np.full(series.image.shape, NOT_ANNOTATED, dtype=np.uint8)
        table = np.array([0, *self.values], dtype=np.uint8)
        for frame in series.annotated_frames():
            image, _ = self._stack(series, frame)
            if self.dimensions == 2:
                classes = self.network(image[:, None]).argmax(dim=1)
            else:
                scores = sliding_window_inference(
                    image[None, None], self.patch, 1, self.network, 0.5, "gaussian"
                )
                classes = scores.argmax(dim=1)[0]
            result[:, frame] = table[classes.numpy()]
        return result
