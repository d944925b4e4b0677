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
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from cmrvlm.labels import NOT_ANNOTATED, STRUCTURES
from cmrvlm.losses.segmentation import scale_weights
from cmrvlm.study import Series
from experiments.segmentation.scores import LabelMap

_OPTIMIZERS = {  # that of nnU-Net (Isensee et al., Nature Methods 2021), and that of our model
    "sgd": partial(torch.optim.SGD, lr=1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5),
    "adamw": partial(torch.optim.AdamW, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.02),
}
_STUDIES = {2: 4, 3: 2}  # of a batch
_SLICES = 3  # of each study of a batch in 2D
_DEPTH = 10  # slices of a 3D patch: the median of the data
_SLICES_MULTIPLE = 2  # the 3D plan halves the slices once
_DEEP = 3  # of the five decoder levels, those with a loss of their own beside the finest


def planned(dimensions: int, classes: int) -> DynUNet:
    """The network that nnU-Net's rules give for stacks of ten slices of 128 x 128 at 1.5 x 1.5 x 10 mm.

    In the plane it halves while at least four pixels are left, five times. Slices take part in convolutions and are
    halved once the plane's spacing has come within a factor of two of theirs, and only while four of them are left.
    """
    if dimensions == 2:
        kernels: list[Any] = [3] * 6
        strides: list[Any] = [1, 2, 2, 2, 2, 2]
        filters = [32, 64, 128, 256, 512, 512]
    else:
        kernels = [(1, 3, 3), (1, 3, 3), 3, 3, 3, 3]
        strides = [1, (1, 2, 2), (1, 2, 2), 2, (1, 2, 2), (1, 2, 2)]
        filters = [32, 64, 128, 256, 320, 320]
    return DynUNet(dimensions, 1, classes, kernels, strides, strides[1:], filters=filters, deep_supervision=True,
                   deep_supr_num=_DEEP)  # fmt: skip


class Baseline:
    """Trains for a time and labels series.

    Args:
        dimensions: 2 for slices, 3 for stacks.
        structures: Names of the structures, in the order of the classes behind the background.
        optimizer: `sgd` as in nnU-Net, or `adamw` as for our model.
        seed: Of weights and draws.
    """

    def __init__(self, dimensions: int, structures: Sequence[str], optimizer: str = "sgd", seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.dimensions, self.values = dimensions, [STRUCTURES[name] for name in structures]
        self.network = planned(dimensions, 1 + len(structures))
        self.optimizer: torch.optim.Optimizer = _OPTIMIZERS[optimizer](self.network.parameters())
        self.rng = np.random.default_rng(seed)
        self.loss = DiceCELoss(to_onehot_y=True, softmax=True, batch=dimensions == 2, include_background=False)

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
        return torch.stack([share * self.loss(one, labels) for share, one in zip(shares, scales.unbind(1), strict=True)]
                           ).sum()  # fmt: skip

    def _batch(self, frames: Iterator[Series]) -> tuple[Tensor, Tensor]:
        """Images and classes (B, 1, H, W), or (B, 1, Z, H, W) of a fixed depth, cut out at random or padded."""
        images, labels = [], []
        for _ in range(_STUDIES[self.dimensions]):
            image, classes = self._stack(next(frames), 0)
            if self.dimensions == 2:
                images.append(image[:, None])
                labels.append(classes[:, None])
                continue
            start = int(self.rng.integers(max(0, len(image) - _DEPTH) + 1))
            pad = (0, 0, 0, 0, 0, max(0, _DEPTH - len(image)))
            images.append(nn.functional.pad(image[start : start + _DEPTH], pad)[None, None])
            labels.append(nn.functional.pad(classes[start : start + _DEPTH], pad)[None, None])
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
                whole = nn.functional.pad(image, (0, 0, 0, 0, 0, -len(image) % _SLICES_MULTIPLE))
                classes = self.network(whole[None, None]).argmax(dim=1)[0, : len(image)]
            result[:, frame] = table[classes.numpy()]
        return result
