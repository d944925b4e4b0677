"""Interface of a store of preprocessed studies."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping

from cmrvlm.study.study import Study, StudyLabels


class StudyStore(ABC):
    """A store of preprocessed studies, read by study id."""

    @abstractmethod
    def fill(self, study_ids: Iterable[str], allowed_failures: int = 0) -> dict[str, str]:
        """Ensure that the store holds some studies.

        Args:
            study_ids: Studies that will be read.
            allowed_failures: Studies that may be missing before it is an error.

        Returns:
            Reason by study id, for studies that could not be read.

        Raises:
            CmrvlmError: More than `allowed_failures` studies could not be read.
        """

    @abstractmethod
    def sequences(self, study_id: str) -> list[str]:
        """Return the sequences of a study without loading its images."""

    @abstractmethod
    def labels(self, study_id: str) -> StudyLabels:
        """Load the labels of a study."""

    @abstractmethod
    def load_complete(self, study_id: str) -> Study:
        """Load a study with all its series."""

    @abstractmethod
    def contents(self, study_id: str) -> Mapping[str, bytes]:
        """Return the content of each file of a study; see `cmrvlm.study.codec.study_files`."""

    def load(self, study_id: str, sequences: Collection[str] | None = None) -> Study:
        """Load a study with only some of its series.

        Args:
            study_id: The study.
            sequences: Sequences to keep; None keeps all.
        """
        study = self.load_complete(study_id)
        if sequences is None:
            return study
        kept = {name: series for name, series in study.series.items() if name in sequences}
        return study.with_series(kept)

    def content_hash(self, study_ids: Iterable[str]) -> str:
        """Compute a hash of the images and labels of some studies.

        It is equal for equal data, whichever store holds it and whichever source it came from.
        """
        digest = hashlib.sha256()
        for study_id in study_ids:
            for name, content in sorted(self.contents(study_id).items()):
                digest.update(name.encode())
                digest.update(content)
        return digest.hexdigest()[:16]
