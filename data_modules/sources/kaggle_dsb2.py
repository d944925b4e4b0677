"""`data=kaggle_dsb2`: Second Annual Data Science Bowl, DICOM cines with volumes and no masks."""

from __future__ import annotations

from pathlib import Path

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.measurements import known_numbers
from cmrvlm.study.orientation import study_to_layout
from cmrvlm.study.study import Study, StudyLabels
from data_modules.dicom.recognise import recognise
from data_modules.dicom.scan import read_file
from data_modules.dicom.stacks import stacks_of
from data_modules.dicom.volumes import series_of
from data_modules.sources.base import Source
from data_modules.sources.tables import Row, read_table


class KaggleDsb2Source(Source):
    """Studies of the bowl: `<id>/study/{sax,4ch,2ch}_*/*.dcm`, volumes of the left ventricle in a table.

    Args:
        root: Folder with the numbered studies.
        table: CSV with Id, Systole and Diastole in ml; None when volumes are unknown.
    """

    def __init__(self, root: str, table: str | None = None) -> None:
        self.root, self.table = Path(root), Path(table) if table else None
        self._ids = sorted(
            (path.name for path in self.root.glob("*") if (path / "study").is_dir()), key=_numeric
        )
        if not self._ids:
            raise CmrvlmError(
                "no <id>/study here",
                file=self.root,
                field="data.root",
                remedy="Set data.root to train, validate or test.",
            )
        rows = read_table(self.table) if self.table else []
        self._rows: dict[str, Row] = {row["Id"]: row for row in rows if "Id" in row}

    def study_ids(self) -> list[str]:
        """Numbers of the studies, as text."""
        return list(self._ids)

    def files(self, study_id: str) -> list[Path]:
        """All files of the study and the table."""
        found = sorted(path for path in (self.root / study_id / "study").rglob("*.dcm"))
        return [*found, *([self.table] if self.table else [])]

    def load(self, study_id: str) -> Study:
        """Read the cines that are recognised; series are told apart by folder where their UID is gone."""
        images = []
        for number, path in enumerate(self.files(study_id)):
            found = read_file(path, number)
            images += found if isinstance(found, list) else []
        series = {
            one.sequence: series_of(one.stack)
            for one in recognise(stacks_of(images))
            if one.sequence
        }
        if not series:
            raise CmrvlmError("no cine was recognised", file=self.root / study_id)
        row = self._rows.get(study_id, {})
        columns = {"lvesv_ml": "Systole", "lvedv_ml": "Diastole"}
        measured = known_numbers(
            {name: float(row[column]) for name, column in columns.items() if column in row}
        )
        if len(measured) == 2 and measured["lvedv_ml"] > 0:
            measured["lvef_percent"] = 100 * (1 - measured["lvesv_ml"] / measured["lvedv_ml"])
        return study_to_layout(
            Study(study_id, study_id, series, StudyLabels(measurements=measured))
        )


def _numeric(name: str) -> tuple[int, str]:
    return (int(name) if name.isdigit() else 0, name)
