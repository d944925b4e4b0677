"""`data=manifest`: studies listed in a table, one row each, joined by id and never by row order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.codec import META_FILE, series_meta
from cmrvlm.study.file_names import without_clutter
from cmrvlm.study.reading_settings import ReadingSettings, ThirdAxis
from cmrvlm.study.series_files import read_series
from cmrvlm.study.study import Series, Study
from cmrvlm.study.study_json import is_synthetic, read_study_json
from cmrvlm.study.vocabulary import PHASES, SEQUENCES
from data_modules.sources.base import Source
from data_modules.sources.manifest_columns import COLUMNS, UNKEYED, check_columns, check_row
from data_modules.sources.manifest_row import read_labels
from data_modules.sources.masks import (
    check_label_map,
    read_mask_of,
    remap_partial_labels,
    with_findings_of_masks,
)
from data_modules.split import PARTS, Split
from data_modules.tables.numbers import shorten
from data_modules.tables.read_table import read_table
from data_modules.tables.rows import Row


class ManifestSource(Source):
    """Studies listed in a table.

    Args:
        path: The table; paths in it are relative to its folder.
        label_map: Structure by label value, for masks with other values than those of `STRUCTURES`,
            such as `{1: rv, 2: myo, 3: lv}`.
        third_axis: What the third axis of a cine in one file with three axes is, `z` or `t`; None
            refuses such files where neither header nor affine says it.
        spacing_mm: Distance of slices, rows and columns in mm, for files whose header states none.
        ignored_columns: Names, or patterns such as `lab_*`, of columns that are not ours and are
            not read; a column of ours is read all the same.
    """

    # Another table of the same folder with the same row states the same study, whatever stands
    # beside it.
    not_in_fingerprint: ClassVar[frozenset[str]] = frozenset({"path", "ignored_columns"})

    def __init__(
        self,
        path: str,
        label_map: Mapping[int, str] | None = None,
        third_axis: ThirdAxis | None = None,
        spacing_mm: Sequence[float] | None = None,
        ignored_columns: Sequence[str] = (),
    ) -> None:
        self.path = Path(path)
        self.ignored_columns = tuple(ignored_columns)
        self.folder = self.path.parent
        self.third_axis = third_axis
        self.spacing_mm = spacing_mm
        self._settings = ReadingSettings(third_axis, spacing_mm)
        self.label_map = dict(label_map or {})
        check_label_map(self.label_map)
        # The table is read once: what is saved into it later concerns later runs.
        self._rows: dict[str, Row] = {}
        rows = read_table(self.path, needed=("study_id",))
        check_columns(rows, self.ignored_columns)
        for row in rows:
            self._add(row)
        if not self._rows:
            raise CmrvlmError(
                "the table has no row",
                file=self.path,
                field="data.path",
                remedy="Add a row a study.",
            )

    def _add(self, row: Row) -> None:
        """Keep a row.

        Raises:
            CmrvlmError: Its id is missing or there already, or what it states cannot be a study.
        """
        study_id = row.read_text("study_id")
        if study_id is None:
            raise row.error("study_id", "the id is blank", "Give each study an id.")
        if study_id in self._rows:
            raise row.error(
                "study_id",
                f"'{shorten(study_id)}' is there twice, first in row {self._rows[study_id].number}",
                "Give each study its own id.",
            )
        check_row(row)
        self._rows[study_id] = row

    def study_ids(self) -> list[str]:
        """Return the ids in an order that does not depend on that of the rows."""
        return sorted(self._rows)

    def patient_ids(self) -> list[str]:
        """Return the `patient_id` of each study, or its own id where there is none."""
        return [
            self._rows[study_id].read_text("patient_id") or study_id
            for study_id in self.study_ids()
        ]

    def strata(self) -> list[str]:
        """Return the diseases of each study as they are written."""
        return [
            self._rows[study_id].read_text("diseases") or "unknown" for study_id in self.study_ids()
        ]

    def declared_split(self) -> Split | None:
        """Return the split that the table states, or None when it states none.

        Raises:
            CmrvlmError: It is stated for some studies alone.
        """
        split: Split = {part: [] for part in PARTS}
        blank = []
        for study_id in self.study_ids():
            part = self._rows[study_id].read_text("split")
            if part is None:
                blank.append(study_id)
            else:
                split[part].append(study_id)
        if not any(split.values()):
            return None
        if blank:
            raise self._rows[blank[0]].error(
                "split", "the part is blank", "Fill all rows, or none."
            )
        return split

    def files(self, study_id: str) -> list[Path]:
        """Return the files of images and masks, and each `study.json` beside an image.

        Raises:
            CmrvlmError: A path of the row leads to no file.
        """
        row = self._row(study_id)
        files = []
        for sequence in SEQUENCES:
            for column in (sequence, f"{sequence}_mask"):
                path = self._path(row, column)
                if path is not None:
                    files += _files_below(path)
            image = self._path(row, sequence)
            if image is not None and image.with_name(META_FILE).is_file():
                files.append(image.with_name(META_FILE))
        return files

    def table_row(self, study_id: str) -> dict[str, str]:
        """Return what the study's row states of it."""
        row = self._row(study_id)
        return {
            column: row[column] for column in COLUMNS if column in row and column not in UNKEYED
        }

    def _row(self, study_id: str) -> Row:
        """Return a study's row.

        Raises:
            CmrvlmError: There is no such study.
        """
        self.index_of(study_id)
        return self._rows[study_id]

    def _path(self, row: Row, column: str) -> Path | None:
        """Return the file that a column of a row names, or None where it names none.

        Raises:
            CmrvlmError: There is no such file.
        """
        text = row.read_text(column)
        if text is None:
            return None
        # Tables that were written on Windows.
        path = self.folder / text.replace("\\", "/")
        try:
            exists = path.exists()
        except OSError:
            # The name is too long, for example.
            exists = False
        if not exists:
            remedy = "Write the path relative to the table's folder."
            raise row.error(column, f"there is no such file: {shorten(text, 200)}", remedy)
        return path

    def load(self, study_id: str) -> Study:
        """Load the images and the labels of a row.

        Raises:
            CmrvlmError: A file cannot be read, or a value of the row is wrong.
        """
        row = self._row(study_id)
        series = {
            sequence: self._load_series(row, sequence)
            for sequence in SEQUENCES
            if row.read_text(sequence) is not None
        }
        patient_id = row.read_text("patient_id") or study_id
        labels = with_findings_of_masks(read_labels(row), series)
        return Study(study_id, patient_id, series, labels)

    def _load_series(self, row: Row, sequence: str) -> Series:
        """Load the image and mask that a row names for a sequence."""
        path = self._path(row, sequence)
        assert path is not None
        meta = read_study_json(path.parent)
        # What is labelled says the row alone.
        stated = {**series_meta(meta, path), "phases": {}, "levels": [], "drawn": []}
        series = read_series(
            path, sequence, self._settings, stated, is_synthetic=is_synthetic(meta)
        )
        mask = None
        mask_path = self._path(row, f"{sequence}_mask")
        if mask_path is not None:
            values = read_mask_of(series, mask_path, sequence, self._settings)
            mask = remap_partial_labels(values, self.label_map, mask_path)
        phases = _phases(row, sequence, frames=series.image.shape[1])
        return replace(series, mask=mask, phases=phases)


def _files_below(path: Path) -> list[Path]:
    """Return a file, or the files of a folder of frames."""
    return without_clutter(path.iterdir()) if path.is_dir() else [path]


def _phases(row: Row, sequence: str, frames: int) -> dict[str, int]:
    """Return the ED and ES frames of a sequence as far as a row states them.

    Args:
        row: The row.
        sequence: The sequence.
        frames: Number of its frames.

    Raises:
        CmrvlmError: It states a frame that does not exist.
    """
    phases = {}
    for phase in PHASES:
        column = f"{sequence}_{phase}_frame"
        frame = row.read_number(column)
        if frame is None:
            continue
        if not 0 <= frame < frames or frame != int(frame):
            raise row.error(
                column, f"{frame:g} is none of the {frames} frames", "Frames count from 0."
            )
        phases[phase] = int(frame)
    return phases
