"""What every data source offers: ids, strata for the split, and one study at a time."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from pathlib import Path

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.study import Study
from data_modules.code_key import code_digest, modules_of
from data_modules.split import Split


class Source(ABC):
    """Files, or formulas, to studies. Subclasses keep their settings as plain attributes."""

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
            raise CmrvlmError(
                f"there is no study '{study_id}'", field="study_id", remedy="See the source's ids."
            )
        return int(self._positions[study_id])

    def files(self, study_id: str) -> list[Path]:
        """Files that the study is read from; their sizes and times are part of the cache key."""
        return []

    def fingerprint(self) -> str:
        """Return a hash of this source's settings and of all code of ours that makes its studies."""
        settings = {}
        for name, value in sorted(vars(self).items()):
            if not name.startswith("_"):
                settings[name] = (
                    value if isinstance(value, (int, float, str, list, tuple, dict)) else str(value)
                )
        content = [type(self).__qualname__, settings, code_digest(modules_of(self))]
        return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()
