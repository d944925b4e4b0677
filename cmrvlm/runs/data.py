"""Declare what runs need of a data module."""

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
    """Studies of one source as batches, as training and evaluation use them.

    Nothing outside writes its attributes.

    Attributes:
        preprocessing: Steps from a native study to the model's grid.
        mixture: Tasks and how they are drawn.
        split: Part (`train`, `val`, `test`) to study ids, without broken studies; empty before `prepare_data`.
        full_split: The same with the broken studies.
        failures: Broken study to reason.
    """

    preprocessing: Preprocessing
    mixture: Mixture
    split: Split
    full_split: Split
    failures: Mapping[str, str]

    def patient_of(self) -> dict[str, str]:
        """Return the patient of each study of the source."""

    def begin_from(self, parts: Parts) -> None:
        """Let patients of earlier runs stay in their part; see `cmrvlm.runs.lineage`."""

    def prepare_data(self) -> None:
        """Make the split and fill the cache; safe to call twice."""

    def use_collator(self, collator: Collator) -> None:
        """Set what makes batches of samples, once the model is known."""

    def corpus(self) -> Iterator[str]:
        """Yield the texts of the training part, which a tokenizer may be trained on."""

    def class_shares(self) -> dict[str, Tensor]:
        """Return for each read-out of classes the share (classes,) of each among the training studies."""

    def failures_of(self, part: str) -> dict[str, str]:
        """Return the broken studies of a part, with reasons."""

    def save_split(self, path: Path) -> None:
        """Write the split."""

    def load_study(self, study_id: str) -> Study:
        """Return a preprocessed study with all its series."""

    def content_hash(self, study_ids: Iterable[str]) -> str:
        """Return a hash of studies, images and labels."""

    def train_dataloader(self) -> Any:
        """Return a loader of training batches."""

    def question_loader(
        self,
        studies: Sequence[str],
        shown: Sequence[str] | None = None,
        *,
        paraphrased: bool = False,
    ) -> Any:
        """Return a loader of lists of (study, instructions) with all questions, nothing drawn."""
