"""What every data source offers: ids, strata for the split, and one study at a time."""

from __future__ import annotations

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from pathlib import Path

import cmrvlm.orientation
import cmrvlm.study_io
from cmrvlm.errors import CmrvlmError
from cmrvlm.study import Study
from data_modules.split import Split

_PACKAGE = Path(__file__).parents[1]
# Code that all sources read with.
_SHARED = (
    _PACKAGE / "anatomy.py",
    _PACKAGE / "tables.py",
    Path(cmrvlm.study_io.__file__),
    Path(cmrvlm.orientation.__file__),
)


class Source(ABC):
    """Files, or formulas, to studies. Subclasses keep their settings as plain attributes.

    Attributes:
        reads_with: Packages beside this one whose code the source reads with; a change of it makes other studies.
    """

    reads_with: tuple[str, ...] = ()

    @abstractmethod
    def study_ids(self) -> list[str]:
        """Ids of all studies in a fixed order."""

    @abstractmethod
    def load(self, study_id: str) -> Study:
        """Read one study on its native grid.

        Raises:
            CmrvlmError: A file is missing or broken; the message names it.
        """

    def strata(self) -> list[str]:
        """A label for each study by which splits are balanced; one group unless the source knows better."""
        return ["all"] * len(self.study_ids())

    def patient_ids(self) -> list[str]:
        """The patient of each study, in the order of `study_ids`."""
        return self.study_ids()

    def declared_split(self) -> Split | None:
        """The split that the data itself states; None when it states none."""
        return None

    def index_of(self, study_id: str) -> int:
        """Position of a study.

        Raises:
            CmrvlmError: There is no such study.
        """
        if not hasattr(self, "_positions"):
            self._positions = {name: index for index, name in enumerate(self.study_ids())}
        if study_id not in self._positions:
            raise CmrvlmError(f"there is no study '{study_id}'", field="study_id", remedy="See the source's ids.")
        return int(self._positions[study_id])

    def files(self, study_id: str) -> list[Path]:
        """Files that the study is read from; their sizes and times are part of the cache key."""
        return []

    def fingerprint(self) -> str:
        """Hash of the settings and of the code that make this source's studies."""
        settings = {k: v if isinstance(v, (int, float, str, list, tuple, dict)) else str(v)
                    for k, v in sorted(vars(self).items()) if not k.startswith("_")}  # fmt: skip
        digest = hashlib.sha256(json.dumps([type(self).__qualname__, settings], default=str).encode())
        module = Path(inspect.getfile(type(self)))
        folder_is_package = module.parent.name != "sources"
        code = sorted(module.parent.glob("*.py")) if folder_is_package else [module]
        used = [path for name in self.reads_with for path in sorted((_PACKAGE / name).glob("*.py"))]
        for path in (*code, *_SHARED, *used):
            digest.update(path.read_bytes())
        return digest.hexdigest()
