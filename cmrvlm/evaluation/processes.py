"""Share the studies of an evaluation among several processes, one for each GPU.

Each study is asked about once.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import distributed

from cmrvlm.evaluation.asking import Asked
from cmrvlm.instructions.answer import AnswerWithTruth

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


def join_processes() -> None:
    """Meet the other processes that `torchrun` started, if it did."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1 and not distributed.is_initialized():
        # Answers are gathered from the main memory, whatever computes them.
        distributed.init_process_group("gloo")


def rank_and_count() -> tuple[int, int]:
    """Return the number of this process, from 0, and the number of processes."""
    if distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def own_device(device: torch.device) -> torch.device:
    """Return this process's GPU when GPUs are used, the given device otherwise."""
    if device.type != "cuda":
        return device
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device(device.type, local_rank)


def own_share(studies: Sequence[Item]) -> list[Item]:
    """Return the studies, or parts of them, that this process asks about.

    Unlike in Lightning's sampler none is repeated to make the shares equal.
    """
    rank, count = rank_and_count()
    return list(studies[rank::count])


def gathered(asked: Asked, order: Sequence[str]) -> Asked:
    """Gather the answers of all processes on each of them.

    Args:
        asked: Answers of this process.
        order: All studies.

    Returns:
        The answers of all processes, in the order of the studies.
    """
    _, count = rank_and_count()
    if count == 1:
        return asked
    shares: list[Asked | None] = [None] * count
    distributed.all_gather_object(shares, asked)
    rows: list[tuple[AnswerWithTruth, str, bool | None]] = []
    failures: dict[str, str] = {}
    for share in shares:
        if share is None:
            continue
        rows += zip(share.answers, share.patients, share.changed, strict=True)
        failures |= share.failures
    position_of = {study: index for index, study in enumerate(order)}
    rows.sort(key=lambda row: position_of[row[0].instruction.study_id])
    merged = Asked(asked.condition)
    for answer, patient, changed in rows:
        merged.answers.append(answer)
        merged.patients.append(patient)
        merged.changed.append(changed)
    merged.failures = {study: failures[study] for study in order if study in failures}
    return merged


def gathered_by_key(values: Mapping[Key, Item]) -> dict[Key, Item]:
    """Gather values of different keys of all processes on each of them.

    Args:
        values: Values of this process.
    """
    _, count = rank_and_count()
    if count == 1:
        return dict(values)
    shares: list[dict[Key, Item] | None] = [None] * count
    distributed.all_gather_object(shares, dict(values))
    merged: dict[Key, Item] = {}
    for share in shares:
        merged |= share or {}
    return merged
