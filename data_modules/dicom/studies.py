"""Group the files of an archive into studies, and tell whose study each is."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_modules.dicom.image import Image

# Words that tools and people write for a patient whose identifier they took away. With a number
# behind it a word is an identifier.
_NOBODY = re.compile(
    r"(anon[^\W\d]*|unknown|none|null|nan|n/?a|no[ _-]?name|patient|subject|removed|deleted|hidden"
    r"|de-?identified|pseudonym[^\W\d]*|test|x+|0+|-+|\.+|\?+|\*+)",
    re.IGNORECASE,
)
_NUMBER_BEHIND = re.compile(r"[\W_]*\d+")


@dataclass(frozen=True)
class StudyFiles:
    """Files of one study.

    Attributes:
        patient: Value by which the patient is told from others.
        study: Value that the headers state for the study.
        file_numbers: Numbers of its files among the sorted files of the archive.
        paths: Its files, in the same order.
        images: Its images.
        notes: Doubts about whose study it is, in words.
    """

    patient: str
    study: str
    file_numbers: list[int] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def studies_of(files: Iterable[Sequence[Image]]) -> list[StudyFiles]:
    """Group files by study, and the studies by patient.

    Files belong to a study by its identifier; a patient's identifier that some of them lack or
    state otherwise parts no study. An identifier that stands for nobody, such as ANONYMOUS, or
    that has several birth dates or sexes, is no patient's: each of its studies then has a patient
    of its own, so that nobody is split over training and test as somebody else.

    Args:
        files: Images of each file, all of one study.

    Returns:
        Studies in the order of their first files.
    """
    by_study: dict[str, list[Sequence[Image]]] = defaultdict(list)
    for images in files:
        if images:
            by_study[images[0].study].append(images)
    stated = {study: _stated_patients(own) for study, own in by_study.items()}
    people = _people_by_patient(by_study, stated)
    return [_study(study, own, stated[study], people) for study, own in by_study.items()]


def _stated_patients(files: Sequence[Sequence[Image]]) -> list[str]:
    """Return the identifiers that the files of a study state, the most frequent first."""
    counts = Counter(images[0].patient for images in files if images[0].patient)
    return [patient for patient, _ in counts.most_common()]


def _people_by_patient(
    by_study: dict[str, list[Sequence[Image]]], stated: dict[str, list[str]]
) -> dict[str, set[tuple[str, str, str]]]:
    """Return birth dates, sexes and names that studies state of each identifier, or blank ones."""
    people: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for study, files in by_study.items():
        if stated[study]:
            people[stated[study][0]] |= {images[0].person for images in files}
    return people


def _study(
    study: str,
    files: Sequence[Sequence[Image]],
    patients: Sequence[str],
    people: dict[str, set[tuple[str, str, str]]],
) -> StudyFiles:
    """Build a study of its files."""
    patient, notes = study, []
    if len(patients) > 1:
        notes.append(f"its files state {len(patients)} patients; most of them state the one kept")
    if not patients:
        notes.append("no file states a patient; the study is taken for a patient of its own")
    elif _NOBODY.fullmatch(patients[0]):
        notes.append("the patient's identifier stands for nobody; the study is a patient's own")
    elif _are_several(patients[0], people[patients[0]]):
        notes.append("several people have this patient's identifier; the study is a patient's own")
    else:
        patient = patients[0]
    if not files[0][0].has_study_identifier:
        notes.append("no file states a study; files of one patient and one day are taken for one")
    result = StudyFiles(patient, study, notes=tuple(notes))
    for images in files:
        result.file_numbers.append(images[0].file_number)
        result.paths.append(images[0].path)
        result.images.extend(images)
    return result


def _are_several(patient: str, people: set[tuple[str, str, str]]) -> bool:
    """Return whether birth dates or sexes differ, those that are not stated aside.

    Names are written in many ways, so that they count only where the identifier is such a word
    with a number, which a tool may have given to everybody.
    """
    birth_dates = {birth_date for birth_date, _, _ in people if birth_date}
    sexes = {sex for _, sex, _ in people if sex in ("M", "F")}
    names = set()
    if _NOBODY.fullmatch(_NUMBER_BEHIND.sub("", patient)):
        words = [re.findall(r"\w+", name.casefold().replace("_", " ")) for _, _, name in people]
        names = {tuple(sorted(name)) for name in words if name}
    return len(birth_dates) > 1 or len(sexes) > 1 or len(names) > 1
