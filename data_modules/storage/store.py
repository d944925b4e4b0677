"""What the data module needs of a place that holds preprocessed studies."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping

from cmrvlm.study.study import Study, StudyLabels


class StudyStore(ABC):
    """Preprocessed studies by id."""

    @abstractmethod
    def fill(self, study_ids: Iterable[str], allowed_failures: int = 0) -> dict[str, str]:
        """See that the studies are there.

        Returns:
            Study id to reason, for studies that could not be read.

        Raises:
            CmrvlmError: More than `allowed_failures` studies are broken.
        """

    @abstractmethod
    def sequences(self, study_id: str) -> list[str]:
        """Sequences that a study has."""

    @abstractmethod
    def labels(self, study_id: str) -> StudyLabels:
        """What is known of a study, without its images."""

    @abstractmethod
    def whole(self, study_id: str) -> Study:
        """A study with all its series."""

    @abstractmethod
    def contents(self, study_id: str) -> Mapping[str, bytes]:
        """A study as `cmrvlm.study.codec.study_files` writes it: file name to content."""

    def load(self, study_id: str, sequences: Collection[str] | None = None) -> Study:
        """A study with only the given sequences of it; None keeps all."""
        study = self.whole(study_id)
        if sequences is None:
            return study
        return study.with_series(
            {name: one for name, one in study.series.items() if name in sequences}
        )

    def content_hash(self, study_ids: Iterable[str]) -> str:
        """Hash of the studies, images and labels: equal for equal data, wherever it lies and whatever it came from."""
        digest = hashlib.sha256()
        for study in study_ids:
            for name, content in sorted(self.contents(study).items()):
                digest.update(name.encode())
                digest.update(content)
        return digest.hexdigest()[:16]
