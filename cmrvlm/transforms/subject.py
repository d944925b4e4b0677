"""Series as TorchIO subjects and back, and the scope in which TorchIO draws from one seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import SimpleITK as sitk
import torch
import torchio as tio

from cmrvlm.study.study import Series

IMAGE = "image"
MASK = "mask"


def to_subject(series: Series) -> tio.Subject:
    """Build a TorchIO subject with image and mask of a series.

    The frames become channels, so that TorchIO moves all of them alike. The affine holds the
    spacing alone: world axes of the subject are columns, rows and slices, whatever the orientation
    of the patient. TorchIO rotates and shifts along world axes and takes the third axis as the one
    through a single slice.

    Args:
        series: Image and mask with axes (Z, T, H, W).

    Returns:
        Subject with a float32 `image` and, where the series has a mask, a uint8 `mask`, both
        (T, W, H, Z). They share no memory with the series.
    """
    affine = np.diag([*series.spacing_mm[::-1], 1.0])
    image = np.array(series.image, dtype=np.float32)
    channels = torch.from_numpy(image).permute(1, 3, 2, 0)  # (T, W, H, Z)
    subject = tio.Subject({IMAGE: tio.ScalarImage(tensor=channels, affine=affine)})
    if series.mask is not None:
        mask = np.array(series.mask, dtype=np.uint8)
        labels = torch.from_numpy(mask).permute(1, 3, 2, 0)  # (T, W, H, Z)
        subject.add_image(tio.LabelMap(tensor=labels, affine=affine), MASK)
    return subject


def from_subject(subject: tio.Subject, series: Series) -> Series:
    """Return a series with the image and the mask of a subject that was made from it.

    Args:
        subject: Image and mask with axes (T, W, H, Z).
        series: Series that the subject was made from.
    """
    image = subject[IMAGE].data.numpy().transpose(3, 0, 2, 1)  # (Z, T, H, W)
    changed = replace(series, image=np.ascontiguousarray(image, dtype=np.float32))
    if series.mask is None:
        return changed
    mask = subject[MASK].data.numpy().transpose(3, 0, 2, 1)  # (Z, T, H, W)
    return replace(changed, mask=np.ascontiguousarray(mask, dtype=np.uint8))


@contextmanager
def torchio_scope(seed: int) -> Iterator[None]:
    """Let TorchIO draw from a seed and work in one thread; restore global state at the end.

    Args:
        seed: Seed of the global generator of torch inside the block, from which TorchIO draws.
    """
    # TorchIO's noise seeds the GPUs too. A forked worker must not touch them, nor need it.
    devices: list[int] = []
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        devices = list(range(torch.cuda.device_count()))
    # A volume of a cine is too small for threads to help, and a loader's workers share the cores.
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        with torch.random.fork_rng(devices):
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
