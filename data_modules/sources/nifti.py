"""`data=nifti`: a folder of studies, each a folder of NIfTI series."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.codec import labels_from_json, series_meta
from cmrvlm.study.file_names import without_clutter
from cmrvlm.study.plain_text import checked_names
from cmrvlm.study.reading_settings import ReadingSettings, ThirdAxis
from cmrvlm.study.series_files import find_series, holds_series, read_series
from cmrvlm.study.study import Series, Study, StudyLabels
from cmrvlm.study.study_json import is_synthetic, read_study_json
from cmrvlm.study.vocabulary import SEQUENCES
from data_modules.sources.base import Source
from data_modules.sources.masks import (
    check_label_map,
    read_mask_of,
    remap_partial_labels,
    with_findings_of_masks,
)

log = logging.getLogger(__name__)


class NiftiSource(Source):
    """Folders `<root>/<study>/` with any of `sax`, `lax_4ch`, `lge`, and masks `<sequence>_mask`.

    A series is one file (x, y, z, t), or a folder with one file (x, y, z) for each frame, in the
    order of the numbers in their names. A file `study.json` may state labels, ED and ES, times and
    patient.

    Args:
        root: Folder with the studies.
        third_axis: What the third axis of a cine in one file with three axes is, `z` or `t`; None
            refuses such files where neither header nor affine says it.
        label_map: Structure by label value, for masks with other values than those of `STRUCTURES`,
            such as `{1: rv, 2: myo, 3: lv}`.
        spacing_mm: Distance of slices, rows and columns in mm, for files whose header states none.
    """

    def __init__(
        self,
        root: str,
        third_axis: ThirdAxis | None = None,
        label_map: Mapping[int, str] | None = None,
        spacing_mm: Sequence[float] | None = None,
    ) -> None:
        self.root = Path(root)
        self.third_axis = third_axis
        self.label_map = dict(label_map or {})
        check_label_map(self.label_map)
        self.spacing_mm = spacing_mm
        self._settings = ReadingSettings(third_axis, spacing_mm)
        names = [
            folder.name
            for folder in without_clutter(self.root.glob("*"))
            if folder.is_dir() and holds_series(folder)
        ]
        self._ids = checked_names(names, self.root)
        if not self._ids:
            raise CmrvlmError(
                f"no folder with {', '.join(SEQUENCES)} as NIfTI here",
                file=self.root,
                field="data.root",
                remedy="Give a folder that holds one folder for each study.",
            )

    def study_ids(self) -> list[str]:
        """Return the names of the folders."""
        return list(self._ids)

    def patient_ids(self) -> list[str]:
        """Return the patient that each `study.json` names, else the study's own id."""
        return [self._patient_id(study) for study in self._ids]

    def _patient_id(self, study_id: str) -> str:
        """Return the patient of a study; its own id where its `study.json` cannot be read."""
        try:
            meta = read_study_json(self.root / study_id)
        except CmrvlmError as error:
            # It is a fault of this study, which loading it names, and none of all the others.
            log.warning("%s: %s", study_id, error)
            return study_id
        return str(meta.get("patient_id", study_id))

    def files(self, study_id: str) -> list[Path]:
        """Return all files of the study's folder."""
        return [p for p in without_clutter((self.root / study_id).rglob("*")) if p.is_file()]

    def load(self, study_id: str) -> Study:
        """Load the series of a study, their masks, and what `study.json` states.

        Raises:
            CmrvlmError: There is no such study, or a file does not fit the others.
        """
        self.index_of(study_id)
        folder = self.root / study_id
        meta = read_study_json(folder)
        series = {}
        for sequence in SEQUENCES:
            path = find_series(folder, sequence)
            if path:
                series[sequence] = self._load_series(sequence, path, meta)
        labels = labels_from_json(meta["labels"]) if "labels" in meta else StudyLabels()
        labels = with_findings_of_masks(labels, series)
        return Study(study_id, str(meta.get("patient_id", study_id)), series, labels)

    def _load_series(self, sequence: str, path: Path, meta: Mapping[str, Any]) -> Series:
        """Load a series with its mask.

        Args:
            sequence: The sequence.
            path: File or folder of the series.
            meta: Content of `study.json`.
        """
        series = read_series(
            path,
            sequence,
            self._settings,
            series_meta(meta, path),
            is_synthetic=is_synthetic(meta),
        )
        mask_path = find_series(path.parent, f"{sequence}_mask")
        if mask_path is None:
            return series
        values = read_mask_of(series, mask_path, sequence, self._settings)
        return replace(series, mask=remap_partial_labels(values, self.label_map, mask_path))
