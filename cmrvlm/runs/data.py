"""Declare the interface of a data module that training and evaluation use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from cmrvlm.instructions.collate import Collator
from cmrvlm.runs.lineage import Parts
from cmrvlm.study.study import Study
from cmrvlm.tasks.mixture import Mixture
from cmrvlm.transforms.preprocessing import Preprocessing

Split = Mapping[str, Sequence[str]]


class DataModule(Protocol):
    """A data module that gives the studies of one source as batches.

    No other code writes its attributes.

    Attributes:
        preprocessing: Steps from a native study to the model's grid.
        mixture: Tasks and their sampling.
        split: Part (`train`, `val`, `test`) to study ids without broken studies. It is empty before
            `prepare_data`.
        full_split: Part to study ids with the broken studies.
        failures: Id of each broken study to the reason.
    """

    preprocessing: Preprocessing
    mixture: Mixture
    split: Split
    full_split: Split
    failures: Mapping[str, str]

    def patient_of(self) -> dict[str, str]:
        """Return study id to patient id, for all studies of the source."""

    def begin_from(self, parts: Parts) -> None:
        """Keep patients of earlier runs in their part of the split; see `cmrvlm.runs.lineage`."""

    def prepare_data(self) -> None:
        """Make the split and fill the cache; safe to call twice."""

    def use_collator(self, collator: Collator) -> None:
        """Set the collator, which depends on the model."""

    def corpus(self) -> Iterator[str]:
        """Yield the texts of the training part, for the training of a tokenizer."""

    def class_shares(self) -> dict[str, Tensor]:
        """Return read-out to the share of each class among the training studies, (classes,)."""

    def failures_of(self, part: str) -> dict[str, str]:
        """Return broken study id to reason, for one part of the split."""

    def save_split(self, path: Path) -> None:
        """Write the split as JSON."""

    def load_study(self, study_id: str) -> Study:
        """Return a preprocessed study with all its series."""

    def content_hash(self, study_ids: Iterable[str]) -> str:
        """Return a hash of the ids, images and labels of some studies."""

    def train_dataloader(self) -> Any:
        """Return a loader of training batches."""

    def question_loader(
        self,
        studies: Sequence[str],
        shown: Sequence[str] | None = None,
        *,
        paraphrased: bool = False,
    ) -> Any:
        """Return a loader of lists of (study, instructions) with all questions.

        Args:
            studies: Ids of the studies, in the order in which they come.
            shown: Sequences to show; None shows all that the model reads.
            paraphrased: Use wordings that training never shows.
        """
