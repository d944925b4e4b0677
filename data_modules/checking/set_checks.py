"""Checks over all studies of a data set, and how many there are of each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cmrvlm.study.vocabulary import DISEASES, FINDINGS, SEQUENCES
from data_modules.checking.faults import ERROR, WARNING, CheckedStudy, Fault
from data_modules.checking.thumbnails import decode_thumbnail, same_images
from data_modules.split import Split


def check_set(checked: Sequence[CheckedStudy], split: Split | None) -> list[Fault]:
    """Find one image under two ids, and one patient in two parts of the split.

    Args:
        checked: Results of all studies.
        split: Part to study ids as the data set declares it, or None.
    """
    faults = []
    for sequence in SEQUENCES:
        faults += _same_image_faults(checked, sequence)
    if split is not None:
        faults += _split_faults(checked, split)
    return faults


def study_counts(checked: Sequence[CheckedStudy]) -> dict[str, dict[str, int]]:
    """Count studies by their sequences, diseases and stated findings.

    Returns:
        Name of the table to its rows: what is counted, and the number of studies that have it.
    """
    sequences = Counter(_sequences_of(study) for study in checked)
    unknown = 0
    diseases: Counter[str] = Counter()
    findings: Counter[str] = Counter()
    for study in checked:
        findings.update(study.findings)
        if study.diseases is None:
            unknown += 1
        else:
            diseases.update(study.diseases)

    disease_rows = {code: diseases[code] for code in DISEASES}
    disease_rows["unknown"] = unknown
    return {
        "sequences": dict(sequences.most_common()),
        "diseases": disease_rows,
        "findings stated": {code: findings[code] for code in FINDINGS},
    }


def _sequences_of(study: CheckedStudy) -> str:
    """Return the sequences of a study as text, such as `sax+lge`."""
    present = [sequence for sequence in SEQUENCES if sequence in study.series]
    return "+".join(present) or "none"


def _same_image_faults(checked: Sequence[CheckedStudy], sequence: str) -> list[Fault]:
    """Return a warning for each study with an image of a sequence that another has as well."""
    studies = [study for study in checked if sequence in study.series]
    thumbnails = []
    for study in studies:
        thumbnails.append(decode_thumbnail(study.series[sequence]["thumbnail"]))

    faults = []
    for first, later in same_images(thumbnails):
        study_id = studies[later].study
        other_id = studies[first].study
        text = f"{sequence} is the same image, or nearly so, as in {other_id}"
        faults.append(Fault(WARNING, "same_image", study_id, text))
    return faults


def _split_faults(checked: Sequence[CheckedStudy], split: Split) -> list[Fault]:
    """Return an error for each study whose patient is in another part of the split as well."""
    patients = {study.study: study.patient for study in checked}
    part_of_patient: dict[str, str] = {}
    faults = []
    for part, study_ids in split.items():
        for study_id in study_ids:
            # A study that was not checked counts as a patient of its own.
            patient = patients.get(study_id, study_id)
            first_part = part_of_patient.setdefault(patient, part)
            if first_part != part:
                text = f"its patient is in '{first_part}' and in '{part}'"
                faults.append(Fault(ERROR, "two_parts", study_id, text))
    return faults
