"""Splits by patient, balanced over strata, and a check that no patient is on two sides."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.runs.lineage import Parts, patient_hash

log = logging.getLogger(__name__)

Split = dict[str, list[str]]
PARTS = ("train", "val", "test")


def split_by_patient(
    study_ids: Sequence[str],
    patient_ids: Sequence[str],
    strata: Sequence[str],
    shares: Mapping[str, float],
    seed: int,
) -> Split:
    """Divide studies so that each patient is in one part and each stratum is shared out alike.

    Args:
        study_ids: All studies.
        patient_ids: Patient of each study.
        strata: Label of each study; a patient counts with that of the first study.
        shares: Part (`train`, `val`, `test`) to share; what is left over goes to `train`.
        seed: Order within a stratum.

    Returns:
        Part to study ids, in the order of `study_ids`.
    """
    studies: dict[str, list[str]] = defaultdict(list)
    stratum: dict[str, str] = {}
    for study, patient, label in zip(study_ids, patient_ids, strata, strict=True):
        studies[patient].append(study)
        stratum.setdefault(patient, label)
    groups: dict[str, list[str]] = defaultdict(list)
    for patient, label in stratum.items():
        groups[label].append(patient)
    rng = np.random.default_rng(seed)
    part_of: dict[str, str] = {}
    owed = dict.fromkeys(("test", "val"), 0.0)  # what rounding in earlier strata left over
    for label in sorted(groups):
        order = [groups[label][i] for i in rng.permutation(len(groups[label]))]
        for part in owed:
            owed[part] += len(groups[label]) * shares.get(part, 0.0)
            count = min(int(owed[part] + 1e-9), len(order))
            owed[part] -= count
            part_of |= {study: part for patient in order[:count] for study in studies[patient]}
            order = order[count:]
        part_of |= {study: "train" for patient in order for study in studies[patient]}
    return {part: [study for study in study_ids if part_of[study] == part] for part in PARTS}


def split_with_earlier(
    patient_of: Mapping[str, str],
    strata: Sequence[str],
    shares: Mapping[str, float],
    seed: int,
    earlier: Parts,
) -> Split:
    """Divide studies as `split_by_patient` does, but for patients whom earlier runs knew: they stay where they were.

    Args:
        patient_of: Study to patient, all studies in order.
        strata: Label of each study.
        shares: Part to share of the new patients.
        seed: Order within a stratum.
        earlier: Hash of a patient to the part that it had.
    """
    hashes = {patient: patient_hash(patient) for patient in set(patient_of.values())}
    rows = list(zip(patient_of.items(), strata, strict=True))
    new = [
        ((study, patient), label)
        for (study, patient), label in rows
        if hashes[patient] not in earlier
    ]
    split = split_by_patient(
        [study for (study, _), _ in new],
        [patient for (_, patient), _ in new],
        [label for _, label in new],
        shares,
        seed,
    )
    part_of = {study: part for part, studies in split.items() for study in studies}
    for study, patient in patient_of.items():
        part_of.setdefault(study, earlier.get(hashes[patient], "train"))
    whole = {part: [study for study in patient_of if part_of[study] == part] for part in PARTS}
    for part in ("val", "test"):
        if shares.get(part, 0.0) > 0 and not whole[part] and earlier:
            log.warning(
                "no patient is left for part %s: the earlier runs knew all of them in other parts",
                part,
            )
    return whole


def check_earlier(
    split: Mapping[str, Sequence[str]], patient_of: Mapping[str, str], earlier: Parts
) -> None:
    """Refuse a split that validates or tests on patients whom the runs before were trained on.

    Raises:
        CmrvlmError: It does; how many of how many patients are named.
    """
    for part in ("val", "test"):
        patients = {patient_of[study] for study in split.get(part, ())}
        known = [patient for patient in patients if earlier.get(patient_hash(patient)) == "train"]
        if known:
            raise CmrvlmError(
                f"{len(known)} of {len(patients)} patients of part {part} are among those that the runs before were "
                "trained on",
                field="split",
                remedy="Use the split of the run that this one begins from, or leave these patients out.",
            )


def check_leak(split: Mapping[str, Sequence[str]], patient_of: Mapping[str, str]) -> None:
    """Refuse a split that shares patients.

    Raises:
        CmrvlmError: A patient is in two parts; the message names one.
    """
    seen: dict[str, str] = {}
    for part, studies in split.items():
        for study in studies:
            if study not in patient_of:
                raise CmrvlmError(
                    f"study '{study}' of part {part} is not in this data",
                    field="split",
                    remedy="Use the data that the split was made for.",
                )
            other = seen.setdefault(patient_of[study], part)
            if other != part:
                raise CmrvlmError(
                    f"patient '{patient_of[study]}' is in {other} and in {part}",
                    field="split",
                    remedy="Put all studies of a patient into one part.",
                )


def read_split(path: Path) -> Split:
    """A split saved with a run or written by hand: JSON with `train`, `val` and `test`."""
    if not path.is_file():
        raise CmrvlmError("there is no such split file", file=path, remedy="Give a split.json.")
    data = json.loads(path.read_text())
    unknown = set(data) - set(PARTS)
    if unknown:
        raise CmrvlmError(
            f"unknown parts {sorted(unknown)}", file=path, remedy=f"Parts are {', '.join(PARTS)}."
        )
    return {part: [str(study) for study in data.get(part, [])] for part in PARTS}
