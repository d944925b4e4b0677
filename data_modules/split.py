"""Splits by patient, balanced over strata, with a check that no patient is in two parts."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cmrvlm.errors import CmrvlmError
from cmrvlm.runs.lineage import Parts, patient_hash, read_parts

log = logging.getLogger(__name__)

# Study ids by part.
Split = dict[str, list[str]]
PARTS = ("train", "val", "test")

# Parts that get the share of the patients that was set; the training part gets what is left.
_HELD_OUT = ("test", "val")

# Sums of shares fall short of a whole patient by rounding.
_ROUNDING = 1e-9


def split_by_patient(
    study_ids: Sequence[str],
    patient_ids: Sequence[str],
    strata: Sequence[str],
    shares: Mapping[str, float],
    seed: int,
) -> Split:
    """Split studies so that each patient is in one part and all parts have the same mix of strata.

    Args:
        study_ids: All studies.
        patient_ids: Patient of each study.
        strata: Label of each study; a patient counts with that of the first study.
        shares: Share of the patients by part (`val`, `test`); the rest goes to `train`.
        seed: Seed of the order within a stratum.

    Returns:
        Study ids by part, in the order of `study_ids`.
    """
    studies_of: dict[str, list[str]] = defaultdict(list)
    stratum_of: dict[str, str] = {}
    for study_id, patient_id, stratum in zip(study_ids, patient_ids, strata, strict=True):
        studies_of[patient_id].append(study_id)
        stratum_of.setdefault(patient_id, stratum)

    part_of_patient = _assign_patients(stratum_of, shares, seed)
    part_of = {
        study_id: part
        for patient_id, part in part_of_patient.items()
        for study_id in studies_of[patient_id]
    }
    return _group_by_part(study_ids, part_of)


def _assign_patients(
    stratum_of: Mapping[str, str], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Draw the part of each patient.

    Args:
        stratum_of: Stratum by patient.
        shares: Share of the patients by part.
        seed: Seed of the order within a stratum.
    """
    patients_of: dict[str, list[str]] = defaultdict(list)
    for patient_id, stratum in stratum_of.items():
        patients_of[stratum].append(patient_id)

    rng = np.random.default_rng(seed)
    part_of: dict[str, str] = {}
    # Fractions of a patient that a part is owed are carried over to the next stratum, so that many
    # small strata together give the share.
    owed = dict.fromkeys(_HELD_OUT, 0.0)
    for stratum in sorted(patients_of):
        patients = patients_of[stratum]
        remaining = [patients[index] for index in rng.permutation(len(patients))]
        for part in _HELD_OUT:
            owed[part] += len(patients) * shares.get(part, 0.0)
            count = min(int(owed[part] + _ROUNDING), len(remaining))
            owed[part] -= count
            part_of |= dict.fromkeys(remaining[:count], part)
            remaining = remaining[count:]
        part_of |= dict.fromkeys(remaining, "train")
    return part_of


def _group_by_part(study_ids: Sequence[str], part_of: Mapping[str, str]) -> Split:
    """Return the studies of each part, in the order of `study_ids`."""
    return {
        part: [study_id for study_id in study_ids if part_of[study_id] == part] for part in PARTS
    }


def split_with_earlier(
    patient_of: Mapping[str, str],
    strata: Sequence[str],
    shares: Mapping[str, float],
    seed: int,
    earlier: Parts,
) -> Split:
    """Split studies as `split_by_patient` does, but keep patients of earlier runs in their part.

    Args:
        patient_of: Patient by study, for all studies in order.
        strata: Label of each study.
        shares: Share of the new patients by part.
        seed: Seed of the order within a stratum.
        earlier: Part by hash of the patient, for all patients of earlier runs.

    Returns:
        Study ids by part, in the order of `patient_of`.
    """
    hash_of = {patient_id: patient_hash(patient_id) for patient_id in set(patient_of.values())}
    new_studies: list[str] = []
    new_strata: list[str] = []
    part_of: dict[str, str] = {}
    for (study_id, patient_id), stratum in zip(patient_of.items(), strata, strict=True):
        if hash_of[patient_id] in earlier:
            part_of[study_id] = earlier[hash_of[patient_id]]
        else:
            new_studies.append(study_id)
            new_strata.append(stratum)

    new_patients = [patient_of[study_id] for study_id in new_studies]
    new_split = split_by_patient(new_studies, new_patients, new_strata, shares, seed)
    for part, members in new_split.items():
        part_of |= dict.fromkeys(members, part)

    split = _group_by_part(list(patient_of), part_of)
    for part in ("val", "test"):
        if shares.get(part, 0.0) > 0 and not split[part] and earlier:
            log.warning(
                "no patient is left for part %s: the earlier runs knew all of them in other parts",
                part,
            )
    return split


def check_earlier(
    split: Mapping[str, Sequence[str]], patient_of: Mapping[str, str], earlier: Parts
) -> None:
    """Refuse a split that validates or tests on patients whom earlier runs were trained on.

    Args:
        split: Study ids by part.
        patient_of: Patient by study.
        earlier: Part by hash of the patient, for all patients of earlier runs.

    Raises:
        CmrvlmError: There are such patients; the message counts them.
    """
    for part in ("val", "test"):
        patients = {patient_of[study_id] for study_id in split.get(part, ())}
        trained = [patient for patient in patients if earlier.get(patient_hash(patient)) == "train"]
        if trained:
            raise CmrvlmError(
                f"{len(trained)} of {len(patients)} patients of part {part} are among those that "
                "the runs before were trained on",
                field="split",
                remedy="Use the split of the run that this one begins from, or leave these "
                "patients out.",
            )


def check_leak(split: Mapping[str, Sequence[str]], patient_of: Mapping[str, str]) -> None:
    """Refuse a split that has a patient in two parts.

    Args:
        split: Study ids by part.
        patient_of: Patient by study.

    Raises:
        CmrvlmError: A patient is in two parts, or a study is not in the data; the message names it.
    """
    part_of: dict[str, str] = {}
    for part, study_ids in split.items():
        for study_id in study_ids:
            if study_id not in patient_of:
                raise CmrvlmError(
                    f"study '{study_id}' of part {part} is not in this data",
                    field="split",
                    remedy="Use the data that the split was made for.",
                )
            patient_id = patient_of[study_id]
            first_part = part_of.setdefault(patient_id, part)
            if first_part != part:
                raise CmrvlmError(
                    f"patient '{patient_id}' is in {first_part} and in {part}",
                    field="split",
                    remedy="Put all studies of a patient into one part.",
                )


def read_split(path: Path) -> Split:
    """Read a split that a run saved or somebody wrote: JSON with `train`, `val` and `test`.

    Raises:
        CmrvlmError: The file is missing, or has another part.
    """
    if not path.is_file():
        raise CmrvlmError("there is no such split file", file=path, remedy="Give a split.json.")
    content = read_parts(path, "data.split_file")
    unknown = set(content) - set(PARTS)
    if unknown:
        raise CmrvlmError(
            f"unknown parts {sorted(unknown)}", file=path, remedy=f"Parts are {', '.join(PARTS)}."
        )
    return {part: content.get(part, []) for part in PARTS}
