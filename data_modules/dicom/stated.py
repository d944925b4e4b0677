"""Gather what the headers of a study state of its patient, its day and its scanner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from data_modules.dicom.deidentify import demographics, implausible_demographics, scanner
from data_modules.dicom.studies import StudyFiles

_TAGS = (
    "SpecificCharacterSet",
    "StudyDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "Manufacturer",
    "MagneticFieldStrength",
)
_PERSON = ("sex", "age_years", "height_cm", "weight_kg")
# Nobody of this size is younger than a year.
_LEAST_GROWN_CM = 110.0
_LEAST_GROWN_KG = 20.0


@dataclass
class Stated:
    """What is stated of a study, each by the first file that states it.

    Attributes:
        person: Sex, age, height and weight that a patient can have.
        scanner: Maker and field strength, None where no file states it.
        day: DICOM date, empty where no file states one.
        doubts: What somebody should look at, in words.
    """

    person: dict[str, Any] = field(default_factory=dict)
    scanner: dict[str, Any] = field(default_factory=dict)
    day: str = ""
    doubts: list[str] = field(default_factory=list)

    @property
    def _is_complete(self) -> bool:
        """Nothing is left that another file could state."""
        values = [*map(self.person.get, _PERSON), *self.scanner.values(), self.day or None]
        return None not in values


def stated_of(files: StudyFiles) -> Stated:
    """Gather what the files of a study state; a localizer may lack what others have."""
    stated = Stated()
    implausible: dict[str, None] = {}
    for header in _headers(files):
        person = demographics(header)
        for name in implausible_demographics(person):
            del person[name]
            implausible[name] = None
        _add(stated.person, person)
        _add(stated.scanner, scanner(header))
        stated.day = stated.day or str(header.get("StudyDate") or "")
        if stated._is_complete:
            break
    stated.doubts += [
        f"the header's {name} is implausible and counts as unknown"
        for name in implausible
        if name not in stated.person
    ]
    _check_age(stated)
    return stated


def _headers(files: StudyFiles) -> Iterator[Dataset]:
    """Yield the headers of files, one of each series before all others."""
    first: dict[str, Any] = {}
    for image in files.images:
        first.setdefault(image.series, image.path)
    for path in _unique([*first.values(), *files.paths]):
        yield pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))


def _unique(items: Iterable[Any]) -> list[Any]:
    """Return items in their order, each once."""
    return list(dict.fromkeys(items))


def _add(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add values that are not known yet."""
    for name, value in more.items():
        if values.get(name) is None:
            values[name] = value


def _check_age(stated: Stated) -> None:
    """Take out an age of 0 that the size does not bear out: tools write 000Y for no age."""
    person = stated.person
    if person.get("age_years") != 0:
        return
    height_cm = person.get("height_cm")
    weight_kg = person.get("weight_kg")
    if height_cm is None and weight_kg is None:
        reason = "no size bears it out"
    elif (height_cm or 0) >= _LEAST_GROWN_CM or (weight_kg or 0) >= _LEAST_GROWN_KG:
        reason = "the patient is too large for it"
    else:
        return
    del person["age_years"]
    stated.doubts.append(f"the header's age of 0 counts as unknown: {reason}")
