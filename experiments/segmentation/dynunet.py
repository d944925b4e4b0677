"""The baseline: MONAI's DynUNet as nnU-Net plans it, on the very images, augmentation and split of our model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from cmrvlm.labels import NOT_ANNOTATED, STRUCTURES
from cmrvlm.losses.segmentation import scale_weights
from cmrvlm.study import Series, Study
from experiments.segmentation.scores import LabelMap

_LEARNING_RATE, _MOMENTUM, _DECAY = 1e-2, 0.99, 3e-5  # of nnU-Net (Isensee et al., Nature Methods 2021)
_BATCH = {2: 12, 3: 2}
_SLICES_MULTIPLE = 4  # the 3D plan halves the slices twice


def planned(dimensions: int, classes: int) -> DynUNet:
    """The network: five stages, 32 to 320 filters, in 3D without pooling across the thick slices at first."""
    if dimensions == 2:
        kernels: list[Any] = [3] * 5
        strides: list[Any] = [1, 2, 2, 2, 2]
    else:
        kernels = [(1, 3, 3), (1, 3, 3), 3, 3, 3]
        strides = [1, (1, 2, 2), (1, 2, 2), 2, 2]
    return DynUNet(dimensions, 1, classes, kernels, strides, strides[1:], filters=[32, 64, 128, 256, 320],
                   deep_supervision=True, deep_supr_num=2)  # fmt: skip


class Baseline:
    """Trains for a time and labels series.

    Args:
        dimensions: 2 for slices, 3 for stacks.
        structures: Names of the structures, in the order of the classes behind the background.
        seed: Of weights and draws.
    """

    def __init__(self, dimensions: int, structures: Sequence[str], seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.dimensions, self.values = dimensions, [STRUCTURES[name] for name in structures]
        self.network = planned(dimensions, 1 + len(structures))
        self.rng = np.random.default_rng(seed)
        self.loss = DiceCELoss(to_onehot_y=True, softmax=True, batch=dimensions == 2, include_background=False)

    def train(self, studies: Iterator[Study], sequence: str, minutes: float) -> list[tuple[float, float]]:
        """Train on augmented studies as they come, until the time is over.

        Returns:
            Minutes and loss, every twenty steps.
        """
        optimizer = torch.optim.SGD(self.network.parameters(), _LEARNING_RATE, _MOMENTUM, weight_decay=_DECAY,
                                    nesterov=True)  # fmt: skip
        started, curve, losses = time.monotonic(), [], list[float]()
        self.network.train()
        while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * (1 - share) ** 0.9
            images, labels = self._batch(studies, sequence)
            with torch.autocast("cpu", torch.bfloat16):
                scales = self.network(images)
            loss = self._total(scales.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 12.0)
            optimizer.step()
            losses.append(loss.item())
            if len(losses) % 20 == 0:
                curve.append((share * minutes, float(np.mean(losses[-20:]))))
        return curve

    def _total(self, scales: Tensor, labels: Tensor) -> Tensor:
        """Loss over the scales (B, S, C, ...), which DynUNet gives at full size."""
        shares = scale_weights(scales.shape[1])
        return torch.stack([share * self.loss(one, labels) for share, one in zip(shares, scales.unbind(1), strict=True)]
                           ).sum()  # fmt: skip

    def _batch(self, studies: Iterator[Study], sequence: str) -> tuple[Tensor, Tensor]:
        images, labels = [], []
        while len(images) < _BATCH[self.dimensions]:
            series = next(studies).series[sequence]
            frame = int(self.rng.choice(series.annotated_frames()))
            image, mask = self._stack(series, frame)
            if self.dimensions == 3:
                images.append(image[None])
                labels.append(mask[None])
                continue
            for index in self.rng.choice(len(image), size=3, replace=False):
                images.append(image[index][None])
                labels.append(mask[index][None])
        return torch.stack(images), torch.stack(labels)

    def _stack(self, series: Series, frame: int) -> tuple[Tensor, Tensor]:
        """Image (Z, H, W) and classes (Z, H, W) of a frame, in 3D padded to a number of slices that can be halved."""
        assert series.mask is not None
        image = torch.from_numpy(np.ascontiguousarray(series.image[:, frame], dtype=np.float32))
        mask = torch.from_numpy(np.ascontiguousarray(series.mask[:, frame]))
        labels = torch.zeros_like(image)
        for number, value in enumerate(self.values, start=1):
            labels[mask == value] = number
        more = -len(image) % _SLICES_MULTIPLE if self.dimensions == 3 else 0
        pad = (0, 0, 0, 0, 0, more)
        return nn.functional.pad(image, pad), nn.functional.pad(labels, pad)

    @torch.no_grad()
    def label(self, series: Series) -> LabelMap:
        """Canonical values (Z, T, H, W); frames without annotation are 255."""
        self.network.eval()
        result = np.full(series.image.shape, NOT_ANNOTATED, dtype=np.uint8)
        table = np.array([0, *self.values], dtype=np.uint8)
        for frame in series.annotated_frames():
            image, _ = self._stack(series, frame)
            batch = image[:, None] if self.dimensions == 2 else image[None, None]
            with torch.autocast("cpu", torch.bfloat16):
                logits = self.network(batch)
            classes = logits.argmax(dim=1).squeeze(0) if self.dimensions == 3 else logits.argmax(dim=1)
            result[:, frame] = table[classes.numpy()][: len(series.image)]
        return result
