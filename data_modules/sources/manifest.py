"""`data=manifest`: studies listed in a table, one row each, joined by id and never by row order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.codec import series_meta
from cmrvlm.study.measurements import MEASUREMENTS
from cmrvlm.study.reading_settings import ReadingSettings, ThirdAxis
from cmrvlm.study.series_files import read_series
from cmrvlm.study.study import Series, Study
from cmrvlm.study.study_json import is_synthetic, read_study_json
from cmrvlm.study.vocabulary import FINDINGS, LANGUAGES, SEQUENCES
from data_modules.sources.base import Source
from data_modules.sources.manifest_row import DEMOGRAPHICS, RowReader, read_labels
from data_modules.sources.masks import check_label_map, read_mask_of, remap_partial_labels
from data_modules.sources.tables import read_table
from data_modules.split import PARTS, Split

PHASES = ("ed", "es")

# For people; nothing reads them.
_EXTRA = ("date", "maker", "field_t")
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
    *(f"{text}_{language}" for text in ("report", "impression") for language in LANGUAGES),
    "questions",
    *_EXTRA,
)


class ManifestSource(Source):
    """Studies listed in a table.

    Args:
        path: The table; paths in it are relative to its folder.
        label_map: Structure by label value, for masks with other values than those of `STRUCTURES`,
            such as `{1: rv, 2: myo, 3: lv}`.
        third_axis: What the third axis of a cine in one file with three axes is, `z` or `t`; None
            refuses such files where neither header nor affine says it.
        spacing_mm: Distance of slices, rows and columns in mm, for files whose header states none.
    """

    def __init__(
        self,
        path: str,
        label_map: Mapping[int, str] | None = None,
        third_axis: ThirdAxis | None = None,
        spacing_mm: Sequence[float] | None = None,
    ) -> None:
        self.path = Path(path)
        self.third_axis = third_axis
        self.spacing_mm = spacing_mm
        self._settings = ReadingSettings(third_axis, spacing_mm)
        self.label_map = dict(label_map or {})
        check_label_map(self.label_map)
        self._rows: dict[str, RowReader] = {}
        for number, row in enumerate(read_table(self.path), start=2):
            reader = RowReader(self.path, row, number)
            self._check_row(reader)
            self._rows[row["study_id"]] = reader
        if not self._rows:
            raise CmrvlmError(
                "the table has no row",
                file=self.path,
                field="data.path",
                remedy="Add a row a study.",
            )

    def _check_row(self, reader: RowReader) -> None:
        """Refuse a row with a missing or repeated id, an unknown column or part, or no series.

        Raises:
            CmrvlmError: It is such a row.
        """
        row = reader.row
        study_id = row.get("study_id")
        if study_id is None:
            raise reader.error("study_id", "the id is blank", "Give each study an id.")
        if study_id in self._rows:
            raise reader.error(
                "study_id", f"'{study_id}' is there twice", "Give each study its own id."
            )

        unknown = sorted(set(row) - set(COLUMNS))
        if unknown:
            raise reader.error(
                unknown[0],
                "unknown column",
                f"Rename it or take it out; known: {', '.join(COLUMNS)}.",
            )
        if set(SEQUENCES).isdisjoint(row):
            raise reader.error(
                "sax", "the study has no series", f"Give a path in one of {', '.join(SEQUENCES)}."
            )
        part = row.get("split", "train")
        if part not in PARTS:
            raise reader.error(
                "split", f"'{part}' is no part", f"Use {', '.join(PARTS)}, or leave all blank."
            )

    def study_ids(self) -> list[str]:
        """Return the ids in an order that does not depend on that of the rows."""
        return sorted(self._rows)

    def patient_ids(self) -> list[str]:
        """Return the `patient_id` of each study, or its own id where there is none."""
        return [
            self._rows[study_id].row.get("patient_id", study_id) for study_id in self.study_ids()
        ]

    def strata(self) -> list[str]:
        """Return the diseases of each study as they are written."""
        return [
            self._rows[study_id].row.get("diseases", "unknown") for study_id in self.study_ids()
        ]

    def declared_split(self) -> Split | None:
        """Return the split that the table states, or None when it states none.

        Raises:
            CmrvlmError: It is stated for some studies alone.
        """
        split: Split = {part: [] for part in PARTS}
        blank = []
        for study_id in self.study_ids():
            part = self._rows[study_id].row.get("split")
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
        """Return the table, and the files of images and masks.

        The table is among them because a changed label makes another study.
        """
        row = self._reader(study_id).row
        files = [self.path]
        for sequence in SEQUENCES:
            for column in (sequence, f"{sequence}_mask"):
                if column in row:
                    files += _files_below(self.path.parent / row[column])
        return files

    def _reader(self, study_id: str) -> RowReader:
        """Return the reader of a study's row.

        Raises:
            CmrvlmError: There is no such study.
        """
        self.index_of(study_id)
        return self._rows[study_id]

    def load(self, study_id: str) -> Study:
        """Load the images and the labels of a row.

        Raises:
            CmrvlmError: A file cannot be read, or a value of the row is wrong.
        """
        reader = self._reader(study_id)
        series = {
            sequence: self._load_series(reader, sequence)
            for sequence in SEQUENCES
            if sequence in reader.row
        }
        patient_id = reader.row.get("patient_id", study_id)
        return Study(study_id, patient_id, series, read_labels(reader))

    def _load_series(self, reader: RowReader, sequence: str) -> Series:
        """Load the image and mask that a row names for a sequence."""
        path = self.path.parent / reader.row[sequence]
        meta = read_study_json(path.parent)
        # What is labelled says the row alone.
        stated = {**series_meta(meta, path), "phases": {}, "levels": [], "drawn": []}
        series = read_series(
            path, sequence, self._settings, stated, is_synthetic=is_synthetic(meta)
        )
        mask = None
        if f"{sequence}_mask" in reader.row:
            mask_path = self.path.parent / reader.row[f"{sequence}_mask"]
            values = read_mask_of(series, mask_path, sequence, self._settings)
            mask = remap_partial_labels(values, self.label_map, mask_path)
        phases = _phases(reader, sequence, frames=series.image.shape[1])
        return replace(series, mask=mask, phases=phases)


def _files_below(path: Path) -> list[Path]:
    """Return a file, or the files of a folder of frames."""
    return sorted(path.iterdir()) if path.is_dir() else [path]


def _phases(reader: RowReader, sequence: str, frames: int) -> dict[str, int]:
    """Return the ED and ES frames of a sequence as far as a row states them.

    Args:
        reader: The row.
        sequence: The sequence.
        frames: Number of its frames.

    Raises:
        CmrvlmError: It states a frame that does not exist.
    """
    phases = {}
    for phase in PHASES:
        column = f"{sequence}_{phase}_frame"
        frame = reader.read_number(column)
        if frame is None:
            continue
        if not 0 <= frame < frames or frame != int(frame):
            raise reader.error(
                column, f"{frame:g} is none of the {frames} frames", "Frames count from 0."
            )
        phases[phase] = int(frame)
    return phases
