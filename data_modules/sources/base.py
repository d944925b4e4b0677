"""Base class of all data sources."""

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
    """A data source, which reads or makes one study at a time.

    Subclasses keep their settings as public attributes: these are part of `fingerprint`.
    """

    @abstractmethod
    def study_ids(self) -> list[str]:
        """Return the ids of all studies in a fixed order."""

    @abstractmethod
    def load(self, study_id: str) -> Study:
        """Load one study on its native grid.

        Raises:
            CmrvlmError: A file is missing or broken; the message names it.
        """

    def strata(self) -> list[str]:
        """Return the label that splits are balanced by for each study, in the order of ids."""
        return ["all"] * len(self.study_ids())

    def patient_ids(self) -> list[str]:
        """Return the patient of each study, in the order of `study_ids`."""
        return self.study_ids()

    def declared_split(self) -> Split | None:
        """Return the split that the data itself states, or None when it states none."""
        return None

    def index_of(self, study_id: str) -> int:
        """Return the position of a study in `study_ids`.

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
        """Return the files that a study is read from.

        Their names, sizes and times are part of the cache key.
        """
        return []

    def fingerprint(self) -> str:
        """Compute a hash of this source's settings and of all code that makes its studies."""
        settings = {}
        for name, value in sorted(vars(self).items()):
            if name.startswith("_"):
                continue
            if not isinstance(value, (int, float, str, list, tuple, dict)):
                value = str(value)
            settings[name] = value
        content = [type(self).__qualname__, settings, code_digest(modules_of(self))]
        return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()
