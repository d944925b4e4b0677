"""Several processes, one for each GPU, that share the studies of an evaluation: each study is asked once."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import distributed

from cmrvlm.evaluation.asking import Asked


def join_processes() -> None:
    """Meet the other processes that `torchrun` started, if it did."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        distributed.init_process_group(
            "gloo"
        )  # answers are gathered from the main memory, whatever computes them


def rank_and_count() -> tuple[int, int]:
    """Number of this process and of all of them."""
    return (
        (distributed.get_rank(), distributed.get_world_size())
        if distributed.is_initialized()
        else (0, 1)
    )


def own_device(device: torch.device) -> torch.device:
    """The GPU of this process where GPUs are used."""
    return (
        torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0")))
        if device.type == "cuda"
        else device
    )


def own_share(studies: Sequence[str]) -> list[str]:
    """The studies that this process asks about; none is padded in or asked about twice."""
    rank, count = rank_and_count()
    return list(studies[rank::count])


def gathered(asked: Asked, order: Sequence[str]) -> Asked:
    """The answers of all processes, on each of them, in the order of the studies."""
    _, count = rank_and_count()
    if count == 1:
        return asked
    parts: list[Asked | None] = [None] * count
    distributed.all_gather_object(parts, asked)
    place = {study: index for index, study in enumerate(order)}
    whole = Asked(asked.condition)
    rows = [
        (answer, patient, part.changed[row])
        for part in parts
        if part is not None
        for row, (answer, patient) in enumerate(zip(part.answers, part.patients, strict=True))
    ]
    rows.sort(key=lambda row: place[row[0].instruction.study_id])
    whole.answers = [row[0] for row in rows]
    whole.patients = [row[1] for row in rows]
    whole.changed = [row[2] for row in rows]
    failures = {
        study: reason
        for part in parts
        if part is not None
        for study, reason in part.failures.items()
    }
    whole.failures = {study: failures[study] for study in order if study in failures}
    return whole
