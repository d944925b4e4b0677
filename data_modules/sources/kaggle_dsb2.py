"""`data=kaggle_dsb2`: Second Annual Data Science Bowl, DICOM cines with volumes and no masks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.file_names import without_clutter
from cmrvlm.study.measurements import check_plausible, check_volumes
from cmrvlm.study.orientation import study_to_layout
from cmrvlm.study.plain_text import checked_names
from cmrvlm.study.study import Study, StudyLabels
from data_modules.dicom.recognise import recognise
from data_modules.dicom.scan import read_file
from data_modules.dicom.stacks import stacks_of
from data_modules.dicom.volumes import series_of
from data_modules.sources.base import Source
from data_modules.sources.rows_by_id import rows_by_id
from data_modules.sources.stated_numbers import StatedNumbers
from data_modules.tables.read_table import read_table
from data_modules.tables.rows import Row

_COLUMNS = {"lvesv_ml": "Systole", "lvedv_ml": "Diastole"}


class KaggleDsb2Source(Source):
    """Studies `<id>/study/{sax,4ch,2ch}_*/*.dcm`, with left ventricular volumes in a table.

    Args:
        root: Folder with the numbered studies.
        table: CSV with Id, Systole and Diastole in ml; None when volumes are unknown.
    """

    # What it states of a study is part of that study's key; see `table_row`.
    not_in_fingerprint: ClassVar[frozenset[str]] = frozenset({"table"})

    def __init__(self, root: str, table: str | None = None) -> None:
        self.root = Path(root)
        self.table = Path(table) if table else None
        self._ids = sorted(
            (
                path.name
                for path in without_clutter(self.root.glob("*"))
                if (path / "study").is_dir()
            ),
            key=_numeric,
        )
        checked_names(self._ids, self.root)
        if not self._ids:
            raise CmrvlmError(
                "no <id>/study here",
                file=self.root,
                field="data.root",
                remedy="Set data.root to train, validate or test.",
            )
        rows = []
        if self.table:
            rows = read_table(self.table, needed=("Id", "Systole", "Diastole"))
        self._rows: dict[str, Row] = rows_by_id(rows, "Id")

    def study_ids(self) -> list[str]:
        """Return the numbers of the studies, as text."""
        return list(self._ids)

    def files(self, study_id: str) -> list[Path]:
        """Return all DICOM files of the study."""
        return without_clutter((self.root / study_id / "study").rglob("*.dcm"))

    def table_row(self, study_id: str) -> Mapping[str, str]:
        """Return the study's row of the table, empty where there is none."""
        return self._rows.get(study_id, {})

    def notes(self, study_id: str) -> list[str]:
        """Return the volumes of the table that cannot be right and count as unknown."""
        return self._stated_numbers(study_id).notes

    def load(self, study_id: str) -> Study:
        """Load the cines that are recognised, with the volumes of the table.

        Series are told apart by folder, because their UIDs were removed.

        Raises:
            CmrvlmError: No cine was recognised.
        """
        images = []
        for number, path in enumerate(self.files(study_id)):
            frames = read_file(path, number)
            if isinstance(frames, list):
                images += frames
        series = {
            decision.sequence: series_of(decision.stack)[0]
            for decision in recognise(stacks_of(images).stacks)
            if decision.sequence
        }
        if not series:
            raise CmrvlmError("no cine was recognised", file=self.root / study_id)

        labels = StudyLabels(measurements=self._stated_numbers(study_id).values)
        return study_to_layout(Study(study_id, study_id, series, labels))

    def _stated_numbers(self, study_id: str) -> StatedNumbers:
        """Return the volumes in ml of the table, and the ejection fraction in % that follows."""
        numbers = StatedNumbers()
        row = self._rows.get(study_id)
        if row is None:
            return numbers
        for name, column in _COLUMNS.items():
            numbers.add(name, partial(row.read_number, column, name))
        numbers.check_together(tuple(_COLUMNS), _check_ejection)
        if len(numbers.values) == len(_COLUMNS):
            numbers.values["lvef_percent"] = _ejection_fraction_percent(numbers.values)
        return numbers


def _check_ejection(volumes: Mapping[str, float]) -> None:
    """Refuse volumes in ml between which no heart ejects.

    Raises:
        CmrvlmError: They are swapped, equal, or all but equal.
    """
    check_volumes(volumes)
    check_plausible("lvef_percent", _ejection_fraction_percent(volumes))


def _ejection_fraction_percent(volumes: Mapping[str, float]) -> float:
    """Return the ejection fraction that follows from volumes in ml."""
    return 100 * (1 - volumes["lvesv_ml"] / volumes["lvedv_ml"])


def _numeric(name: str) -> tuple[int, str]:
    """Return a sort key by which `2` comes before `10`."""
    number = int(name) if name.isdecimal() else 0
    return number, name
