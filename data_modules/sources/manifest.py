"""`data=manifest`: studies of one's own, one row each in a table that is joined by id and never by row order."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmrvlm.errors import CmrvlmError, told_in
from cmrvlm.reports.writer import split_sections
from cmrvlm.study.files import read_nifti, stored_places_mm
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.orientation import to_layout
from cmrvlm.study.study import Series, Study, StudyLabels, UserQuestion
from cmrvlm.study.vocabulary import DISEASES, FINDINGS, LANGUAGES, SEQUENCES
from data_modules.sources.base import Source
from data_modules.sources.masks import check_label_map, read_mask, remap_partial_labels
from data_modules.sources.tables import Row, read_table
from data_modules.split import PARTS, Split

DEMOGRAPHICS = ("age_years", "height_cm", "weight_kg")
PHASES = ("ed", "es")
_YES, _NO = ("1", "yes", "true", "abnormal"), ("0", "no", "false", "normal")
_EXTRA = ("date", "maker", "field_t")  # for people; nothing reads them
COLUMNS = (
    "study_id",
    "patient_id",
    "split",
    *SEQUENCES,
    *(f"{name}_mask" for name in SEQUENCES),
    *(f"{name}_{phase}_frame" for name in SEQUENCES for phase in PHASES),
    "diseases",
    *(f"finding_{code}" for code in FINDINGS),
    *MEASUREMENTS,
    "sex",
    *DEMOGRAPHICS,
    "follow_up_months",
    "event",
    *(f"{part}_{language}" for part in ("report", "impression") for language in LANGUAGES),
    "questions",
    *_EXTRA,
)


@dataclass(frozen=True)
class _Reader:
    """Values of one row, with errors that name file, row and column."""

    path: Path
    row: Row
    number: int

    def fail(self, column: str, problem: str, remedy: str) -> CmrvlmError:
        where = f"{column}, row {self.number}"
        return CmrvlmError(problem, file=self.path, field=where, remedy=remedy)

    def number_of(self, column: str) -> float | None:
        text = self.row.get(column)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            raise self.fail(
                column, f"'{text}' is no number", "Leave it blank when it is unknown."
            ) from None
        if math.isnan(
            value
        ):  # how tables that were written by programs say that a number is unknown
            return None
        if math.isinf(value):
            raise self.fail(column, f"'{text}' is not finite", "Leave it blank when it is unknown.")
        return value

    def flag(self, column: str) -> bool | None:
        text = self.row.get(column)
        if text is None:
            return None
        if text.lower() not in (*_YES, *_NO):
            raise self.fail(
                column,
                f"'{text}' is neither yes nor no",
                "Use yes or no; leave it blank when unknown.",
            )
        return text.lower() in _YES


class ManifestSource(Source):
    """Studies listed in a table.

    Args:
        path: The table; paths in it are relative to its folder.
        label_map: Mask value to structure for masks without the canonical values, such as `{1: rv, 2: myo, 3: lv}`.
    """

    def __init__(self, path: str, label_map: Mapping[int, str] | None = None) -> None:
        self.path, self.label_map = Path(path), dict(label_map or {})
        check_label_map(self.label_map)
        self._rows: dict[str, _Reader] = {}
        # The row's number is the one that a spreadsheet shows: the head is row 1.
        for number, row in enumerate(read_table(self.path), start=2):
            reader = _Reader(self.path, row, number)
            self._check(reader)
            self._rows[row["study_id"]] = reader
        if not self._rows:
            raise CmrvlmError(
                "the table has no row",
                file=self.path,
                field="data.path",
                remedy="Add a row a study.",
            )

    def _check(self, reader: _Reader) -> None:
        study = reader.row.get("study_id")
        if study is None:
            raise reader.fail("study_id", "the id is blank", "Give each study an id.")
        if study in self._rows:
            raise reader.fail(
                "study_id", f"'{study}' is there twice", "Give each study its own id."
            )
        unknown = sorted(set(reader.row) - set(COLUMNS))
        if unknown:
            raise reader.fail(
                unknown[0],
                "unknown column",
                f"Rename it or take it out; known: {', '.join(COLUMNS)}.",
            )
        if not set(SEQUENCES) & set(reader.row):
            raise reader.fail(
                "sax", "the study has no series", f"Give a path in one of {', '.join(SEQUENCES)}."
            )
        part = reader.row.get("split", "train")
        if part not in PARTS:
            raise reader.fail(
                "split", f"'{part}' is no part", f"Use {', '.join(PARTS)}, or leave all blank."
            )

    def study_ids(self) -> list[str]:
        """Ids in an order that does not depend on that of the rows."""
        return sorted(self._rows)

    def patient_ids(self) -> list[str]:
        """`patient_id`, or the study's own id where there is none."""
        return [self._rows[study].row.get("patient_id", study) for study in self.study_ids()]

    def strata(self) -> list[str]:
        """The diseases as they are written."""
        return [self._rows[study].row.get("diseases", "unknown") for study in self.study_ids()]

    def declared_split(self) -> Split | None:
        """The split that the table states; None when it states none.

        Raises:
            CmrvlmError: It is stated for some studies alone.
        """
        stated = {study: self._rows[study].row.get("split") for study in self.study_ids()}
        if not any(stated.values()):
            return None
        blank = next((study for study, part in stated.items() if part is None), None)
        if blank is not None:
            raise self._rows[blank].fail("split", "the part is blank", "Fill all rows, or none.")
        return {part: [study for study, own in stated.items() if own == part] for part in PARTS}

    def files(self, study_id: str) -> list[Path]:
        """Images and masks of a study, and the table itself: a changed label makes another study."""
        row = self._rows[self._known(study_id)].row
        named = [row[name] for one in SEQUENCES for name in (one, f"{one}_mask") if name in row]
        return [self.path, *(self.path.parent / name for name in named)]

    def _known(self, study_id: str) -> str:
        self.index_of(study_id)
        return study_id

    def load(self, study_id: str) -> Study:
        """Read the images of a row and its labels."""
        reader = self._rows[self._known(study_id)]
        series = {name: self._series(reader, name) for name in SEQUENCES if name in reader.row}
        return Study(study_id, reader.row.get("patient_id", study_id), series, self._labels(reader))

    def _series(self, reader: _Reader, name: str) -> Series:
        folder = self.path.parent
        file = folder / reader.row[name]
        stored, stored_affine = read_nifti(file)
        image, affine = to_layout(stored, stored_affine, name)
        mask = None
        if f"{name}_mask" in reader.row:
            path = folder / reader.row[f"{name}_mask"]
            mask = remap_partial_labels(
                read_mask(path, image.shape, affine, name), self.label_map, path
            )
        phases = {}
        for phase in PHASES:
            frame = reader.number_of(f"{name}_{phase}_frame")
            if frame is None:
                continue
            if not 0 <= frame < image.shape[1] or frame != int(frame):
                raise reader.fail(
                    f"{name}_{phase}_frame",
                    f"{frame:g} is none of the {image.shape[1]} frames",
                    "Frames count from 0.",
                )
            phases[phase] = int(frame)
        with told_in(file.with_name("study.json")):
            places = stored_places_mm(file, stored_affine, name)
            return Series(
                image.astype(np.float32), affine, None, mask, phases, slice_places_mm=places
            )

    def _labels(self, reader: _Reader) -> StudyLabels:
        row = reader.row
        numbers = {name: reader.number_of(name) for name in (*MEASUREMENTS, *DEMOGRAPHICS)}
        known = {name: value for name, value in numbers.items() if value is not None}
        demographics: dict[str, float | str] = {
            name: known[name] for name in DEMOGRAPHICS if name in known
        }
        if "sex" in row:
            if row["sex"].lower() not in ("m", "f"):
                raise reader.fail(
                    "sex", f"'{row['sex']}' is unknown", "Use m or f, or leave it blank."
                )
            demographics["sex"] = row["sex"].lower()
        return StudyLabels(
            diseases=self._diseases(reader),
            findings={
                code: flag
                for code in FINDINGS
                if (flag := reader.flag(f"finding_{code}")) is not None
            },
            measurements={name: known[name] for name in MEASUREMENTS if name in known},
            report={
                language: sections for language in LANGUAGES if (sections := _report(row, language))
            },
            demographics=demographics,
            follow_up=self._follow_up(reader),
            questions=self._questions(reader),
        )

    def _diseases(self, reader: _Reader) -> frozenset[str] | None:
        text = reader.row.get("diseases")
        if text is None:
            return None
        codes = [code.strip().upper() for code in text.replace(",", ";").split(";") if code.strip()]
        unknown = [code for code in codes if code not in DISEASES]
        if unknown:
            raise reader.fail(
                "diseases", f"unknown disease '{unknown[0]}'", f"Known: {', '.join(DISEASES)}."
            )
        return frozenset(codes)

    def _follow_up(self, reader: _Reader) -> dict[str, float]:
        months, event = reader.number_of("follow_up_months"), reader.flag("event")
        if (months is None) != (event is None):
            raise reader.fail(
                "follow_up_months", "follow-up needs months and event", "Fill both, or none."
            )
        return {} if months is None or event is None else {"months": months, "event": float(event)}

    def _questions(self, reader: _Reader) -> tuple[UserQuestion, ...]:
        text = reader.row.get("questions")
        if text is None:
            return ()
        try:
            return tuple(
                UserQuestion(
                    **one | {name: tuple(one.get(name, ())) for name in ("options", "sequences")}
                )
                for one in json.loads(text)
            )
        except (json.JSONDecodeError, TypeError, AttributeError) as error:
            remedy = (
                'Write [{"category": "lge", "language": "en", "prompt": "…", "answer": "…"}, …].'
            )
            raise reader.fail("questions", f"they cannot be read ({error})", remedy) from error


def _report(row: Row, language: str) -> dict[str, str]:
    """Sections of a report; a text without any of their headings is one section, `other`."""
    text, impression = row.get(f"report_{language}", ""), row.get(f"impression_{language}")
    sections = split_sections(text) or ({"other": text} if text else {})
    return sections | ({"impression": impression} if impression else {})
