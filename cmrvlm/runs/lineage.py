"""Whom a run and the runs that it began from were trained on, by hashes of the patients' ids."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.atomic_files import write_json

LINEAGE, TRAIN = "lineage.json", "train"
_PARTS = (TRAIN, "val", "test")
SPLIT = "split.json"
Parts = dict[str, str]  # hash of a patient to the part of the split
log = logging.getLogger(__name__)


def patient_hash(patient_id: str) -> str:
    """Return what stands for a patient in run folders: the same in every data set that has the same id."""
    return hashlib.sha256(f"cmrvlm patient {patient_id}".encode()).hexdigest()[:24]


def parts_of(split: Mapping[str, Iterable[str]], patient_of: Mapping[str, str]) -> Parts:
    """Return the part of each patient of a split.

    Args:
        split: Part to studies.
        patient_of: Study to patient; a study that is not in it is taken for its own patient.
    """
    return {
        patient_hash(patient_of.get(study, study)): part
        for part, studies in split.items()
        for study in studies
    }


def joined(earlier: Parts, later: Parts) -> Parts:
    """Return the parts of the patients of two runs; who was trained on once was trained on for good."""
    both = earlier | later
    return both | {
        patient: TRAIN
        for parts in (earlier, later)
        for patient, part in parts.items()
        if part == TRAIN
    }


def read_lineage(run: Path, patient_of: Mapping[str, str]) -> Parts:
    """Return the part of each patient that a run, or one that it began from, knew.

    A run of an earlier version has its split alone, which says nothing of the runs that it began from; that is said.

    Args:
        run: Run folder.
        patient_of: Study to patient in the data at hand, for a run that has its split alone.

    Raises:
        CmrvlmError: The file is none of this kind.
    """
    path = run / LINEAGE
    if path.is_file():
        told = json.loads(path.read_text())
        if not isinstance(told, dict) or set(told) != set(_PARTS):
            raise CmrvlmError(
                "this is no list of patients by part", file=path, remedy="Train the run again."
            )
        return {str(patient): part for part in _PARTS for patient in told[part]}
    if not (run / SPLIT).is_file():
        log.warning(
            "%s: this run does not say whom it was trained on: nobody can be left out", run.name
        )
        return {}
    log.warning(
        "%s: this run does not say whom the runs that it began from were trained on; its own patients are known by its "
        "split",
        run.name,
    )
    return parts_of(json.loads((run / SPLIT).read_text()), patient_of)


def write_lineage(run: Path, parts: Parts) -> None:
    """Write the patients of a run and of those that it began from, by part."""
    write_json(
        run / LINEAGE,
        {
            name: sorted(patient for patient, part in parts.items() if part == name)
            for name in _PARTS
        },
    )


def trained_on(parts: Parts, studies: Iterable[str], patient_of: Mapping[str, str]) -> list[str]:
    """Return those of some studies whose patients were trained on."""
    return [study for study in studies if parts.get(patient_hash(patient_of[study])) == TRAIN]
