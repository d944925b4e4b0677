"""Record the patients that a run and the runs before it were trained on, by hashes of their ids."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from cmrvlm.errors import CmrvlmError
from cmrvlm.runs.run_files import read_mapping
from cmrvlm.study.atomic_files import write_json

LINEAGE = "lineage.json"
SPLIT = "split.json"
TRAIN = "train"
_PARTS = (TRAIN, "val", "test")
# Hash of a patient to the part of the split.
Parts = dict[str, str]
log = logging.getLogger(__name__)


def patient_hash(patient_id: str) -> str:
    """Return the hash that replaces a patient's id in run folders.

    It depends on the id alone, so that a patient is known again in another data set.
    """
    return hashlib.sha256(f"cmrvlm patient {patient_id}".encode()).hexdigest()[:24]


def parts_of(split: Mapping[str, Iterable[str]], patient_of: Mapping[str, str]) -> Parts:
    """Return the part of each patient of a split.

    Args:
        split: Part to study ids.
        patient_of: Study id to patient id. A study that is missing counts as a patient.
    """
    return {
        patient_hash(patient_of.get(study, study)): part
        for part, studies in split.items()
        for study in studies
    }


def joined(earlier: Parts, later: Parts) -> Parts:
    """Return the parts of the patients of two runs.

    A patient that either run was trained on stays in `train`. Otherwise the later run decides.
    """
    both = earlier | later
    for patient, part in earlier.items():
        if part == TRAIN:
            both[patient] = TRAIN
    return both


def read_lineage(run: Path, patient_of: Mapping[str, str]) -> Parts:
    """Return the part of each patient in the splits of a run and of the runs that it began from.

    A run of an earlier version has only its split, without the patients of the runs that it began
    from. A warning says so.

    Args:
        run: Run folder.
        patient_of: Study id to patient id in the current data, for a run that has only its split.

    Raises:
        CmrvlmError: The file does not list patients by part.
    """
    path = run / LINEAGE
    if path.is_file():
        patients = read_parts(path)
        if set(patients) != set(_PARTS):
            raise CmrvlmError(
                "this is no list of patients by part", file=path, remedy="Train the run again."
            )
        return {str(patient): part for part in _PARTS for patient in patients[part]}
    if not (run / SPLIT).is_file():
        log.warning(
            "%s: this run does not say whom it was trained on: nobody can be left out", run.name
        )
        return {}
    log.warning(
        "%s: this run does not say whom the runs that it began from were trained on; "
        "its own patients are known by its split",
        run.name,
    )
    return parts_of(read_parts(run / SPLIT), patient_of)


def read_parts(path: Path, field: str = "run") -> dict[str, list[str]]:
    """Read lists of texts by part.

    Args:
        path: JSON file of a run folder, or one that somebody wrote.
        field: Setting that named it, for the error.

    Raises:
        CmrvlmError: The file is damaged, or holds something else.
    """
    parts = read_mapping(path, field)
    for part, members in parts.items():
        is_list = isinstance(members, list)
        if not (is_list and all(isinstance(member, str) for member in members)):
            raise CmrvlmError(
                "this is no list of texts", file=path, field=part, remedy="Train the run again."
            )
    return parts


def write_lineage(run: Path, parts: Parts) -> None:
    """Write the hashes of the patients of a run and of the runs before it, listed by part."""
    patients = {}
    for name in _PARTS:
        patients[name] = sorted(patient for patient, part in parts.items() if part == name)
    write_json(run / LINEAGE, patients)


def trained_on(parts: Parts, studies: Iterable[str], patient_of: Mapping[str, str]) -> list[str]:
    """Return the ids of the studies whose patients are in the training part."""
    return [study for study in studies if parts.get(patient_hash(patient_of[study])) == TRAIN]
