"""The baseline: MONAI's DynUNet as nnU-Net plans it, on the very images, augmentation and split of our model.

What differs from nnU-Net: images, augmentation and the time of training are those of the comparison, and nothing is
mirrored when masks are made. What lies outside the image is background for its loss, and nothing for ours. A third of
the 3D patches is not forced to hold foreground: every stack here is centred on a heart. Its optimizer is made for a
quarter of a million steps; in the minutes of this comparison AdamW does better.
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

_OPTIMIZERS = {  # that of nnU-Net (Isensee et al., Nature Methods 2021), and that of our model
    "sgd": partial(torch.optim.SGD, lr=1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5),
    "adamw": partial(torch.optim.AdamW, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.02),
}
_STUDIES = {2: 4, 3: 2}  # of a batch
_SLICES = 3  # of each study of a batch in 2D
_DEEP = 3  # of the decoder's levels, those with a loss of their own beside the finest
_LEFT, _LEFT_ALONE = (
    4,
    6,
)  # voxels that are left at least of an axis that is halved, with others or by itself
_ALIKE = 2  # the factor within which spacings count as alike
_FIRST, _MOST = 32, {2: 512, 3: 320}  # filters


def planned(
    size: Sequence[int], spacing_mm: Sequence[float]
) -> tuple[list[list[int]], list[list[int]]]:
    """Kernels and strides of the levels that nnU-Net's rules give for images of a size and spacing.

    An axis is halved while at least four voxels are left of it (six, if none goes with it) and its spacing is less than
    twice the finest among those. It takes part in convolutions from the level on where its spacing is less than twice
    the finest of all.

    Args:
        size: (H, W) or (Z, H, W).
        spacing_mm: The same axes.
    """
    left, spacing = np.array(size), np.array(spacing_mm, dtype=float)
    convolved = np.zeros(len(size), dtype=bool)
    kernels, strides = [], [[1] * len(size)]
    while (halved := left >= 2 * _LEFT).any():
        halved &= spacing < _ALIKE * spacing[halved].min()
        if halved.sum() == 1 and left[halved].item() < 2 * _LEFT_ALONE:
            break
        convolved |= spacing < _ALIKE * spacing.min()
        kernels.append(np.where(convolved, 3, 1).tolist())
        strides.append(np.where(halved, 2, 1).tolist())
        left, spacing = (
            np.where(halved, -(-left // 2), left),
            np.where(halved, 2 * spacing, spacing),
        )
    return [*kernels, [3] * len(size)], strides


class Baseline:
    """Trains for a time and labels series.

    Args:
        dimensions: 2 for slices, 3 for stacks.
        size: (Z, H, W) of the median stack.
        spacing_mm: Along (Z, H, W).
        structures: Names of the structures, in the order of the classes behind the background.
        optimizer: `sgd` as in nnU-Net, or `adamw` as for our model.
        seed: Of weights and draws.
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
        torch.manual_seed(seed)
        self.dimensions, self.values = dimensions, [STRUCTURES[name] for name in structures]
        kernels, strides = planned(size[-dimensions:], spacing_mm[-dimensions:])
        multiple = np.prod(strides, axis=0)
        self.patch = tuple((-(-np.array(size[-dimensions:]) // multiple) * multiple).tolist())
        filters = [min(_FIRST * 2**level, _MOST[dimensions]) for level in range(len(kernels))]
        self.network = DynUNet(
            dimensions,
            1,
            1 + len(structures),
            kernels,
            strides,
            strides[1:],
            filters=filters,
            deep_supervision=True,
            deep_supr_num=_DEEP,
        )
        self.optimizer: torch.optim.Optimizer = _OPTIMIZERS[optimizer](self.network.parameters())
        self.rng = np.random.default_rng(seed)
        self.loss = DiceCELoss(
            to_onehot_y=True, softmax=True, batch=dimensions == 2, include_background=False
        )

    @property
    def slices(self) -> int | None:
        """Slices to take of a stack; None for all."""
        return _SLICES if self.dimensions == 2 else None

    def train(self, frames: Iterator[Series], minutes: float) -> list[tuple[float, float]]:
        """Train on augmented frames as they come, until the time is over.

        Returns:
            Minutes and loss, every ten steps.
        """
        started, curve, losses = time.monotonic(), [], list[float]()
        first = self.optimizer.param_groups[0]["lr"]
        self.network.train()
        while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
            for group in self.optimizer.param_groups:
                group["lr"] = first * (1 - share) ** 0.9
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
        """Loss over the scales (B, S, C, ...), which DynUNet gives at full size."""
        shares = scale_weights(scales.shape[1])
        return torch.stack(
            [
                share * self.loss(one, labels)
                for share, one in zip(shares, scales.unbind(1), strict=True)
            ]
        ).sum()

    def _batch(self, frames: Iterator[Series]) -> tuple[Tensor, Tensor]:
        """Images and classes (B, 1, H, W), or (B, 1, Z, H, W) of the patch's depth, cut out at random or padded."""
        images, labels = [], []
        for _ in range(_STUDIES[self.dimensions]):
            image, classes = self._stack(next(frames), 0)
            if self.dimensions == 2:
                images.append(image[:, None])
                labels.append(classes[:, None])
                continue
            depth = self.patch[0]
            start = int(self.rng.integers(max(0, len(image) - depth) + 1))
            missing = max(0, depth - len(image))
            pad = (0, 0, 0, 0, missing // 2, missing - missing // 2)  # as the sliding window pads
            images.append(nn.functional.pad(image[start : start + depth], pad)[None, None])
            labels.append(nn.functional.pad(classes[start : start + depth], pad)[None, None])
        return torch.cat(images), torch.cat(labels)

    def _stack(self, series: Series, frame: int) -> tuple[Tensor, Tensor]:
        """Image (Z, H, W) and classes (Z, H, W) of a frame."""
        assert series.mask is not None
        image = torch.from_numpy(np.ascontiguousarray(series.image[:, frame], dtype=np.float32))
        mask = torch.from_numpy(np.ascontiguousarray(series.mask[:, frame]))
        classes = torch.zeros_like(image)
        for number, value in enumerate(self.values, start=1):
            classes[mask == value] = number
        return image, classes

    @torch.no_grad()
    def label(self, series: Series) -> LabelMap:
        """Canonical values (Z, T, H, W); frames without annotation are 255."""
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
