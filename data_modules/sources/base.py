"""Base class of all data sources."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from cmrvlm.errors import CmrvlmError
from cmrvlm.runs.code_key import code_digest, modules_of
from cmrvlm.study.study import Study
from data_modules.split import Split

log = logging.getLogger(__name__)


class Source(ABC):
    """A data source, which reads or makes one study at a time.

    Subclasses keep their settings as public attributes: these are part of `fingerprint`, except
    those that `not_in_fingerprint` names.
    """

    not_in_fingerprint: ClassVar[frozenset[str]] = frozenset()

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
        """Return the files that a study alone is read from; see `table_row` for tables."""
        return []

    def table_row(self, study_id: str) -> Mapping[str, str]:
        """Return what a table of the whole source states of a study, empty without such a table.

        The table itself is none of the study's `files`: a row that is added to it, or a saved copy
        of it, changes no other study.
        """
        return {}

    def notes(self, study_id: str) -> list[str]:
        """Return what the data states of a study and cannot be right, so that it counts as unknown.

        Sources of files that their users can correct refuse such values instead.
        """
        return []

    def log_notes(self, study_ids: Sequence[str]) -> None:
        """Log how many values of some studies count as unknown; see `notes`."""
        notes = [f"{study_id}: {note}" for study_id in study_ids for note in self.notes(study_id)]
        if notes:
            log.warning("%d values cannot be right and count as unknown; %s", len(notes), notes[0])

    def study_fingerprint(self, study_id: str) -> str:
        """Compute a hash of a study's files, by names, sizes and times, and of its table's row.

        Raises:
            CmrvlmError: One of the files is missing.
        """
        states = [_file_state(file) for file in self.files(study_id)]
        row = sorted(self.table_row(study_id).items())
        return hashlib.sha256(json.dumps([study_id, states, row]).encode()).hexdigest()

    def settings(self) -> dict[str, Any]:
        """Return the settings that change what this source's studies are."""
        settings = {}
        for name, value in sorted(vars(self).items()):
            if name.startswith("_") or name in self.not_in_fingerprint:
                continue
            if not isinstance(value, (int, float, str, list, tuple, dict)):
                value = str(value)
            settings[name] = value
        return settings

    def fingerprint(self) -> str:
        """Compute a hash of this source's settings and of all code that makes its studies."""
        content = [type(self).__qualname__, self.settings(), code_digest(modules_of(self))]
        return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


def _file_state(file: Path) -> tuple[str, int, int]:
    """Return name, size in bytes and time in ns of a file.

    Raises:
        CmrvlmError: It cannot be found.
    """
    try:
        status = file.stat()
    except OSError as error:
        problem = "there is no such file"
        if not isinstance(error, FileNotFoundError):
            problem = f"the file cannot be reached ({error.strerror})"
        raise CmrvlmError(problem, file=file, remedy="Restore it.") from error
    return file.name, status.st_size, status.st_mtime_ns
