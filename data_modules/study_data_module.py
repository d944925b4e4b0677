"""The data module: split by patient, cache, and one loader factory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from numpy import ma
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.collate import Collator
from cmrvlm.instructions.targets import study_targets
from cmrvlm.runs.lineage import Parts
from cmrvlm.study.atomic_files import write_json
from cmrvlm.tasks.mixture import Mixture
from cmrvlm.transforms.augment import Augment
from cmrvlm.transforms.preprocessing import Preprocessing
from data_modules.loading.accumulation import AccumulationWindows
from data_modules.loading.dataset import EpochSampler, EvaluationSet, TrainingSet
from data_modules.sources.base import Source
from data_modules.split import Split, check_earlier, check_leak, read_split, split_with_earlier
from data_modules.storage.cache import StudyCache
from data_modules.storage.shards import ShardSource
from data_modules.storage.store import StudyStore

_CORPUS_STUDIES = 200  # enough for a vocabulary


class StudyDataModule(LightningDataModule):
    """Studies of one source as batches.

    Args:
        source: Where studies come from.
        preprocessing: Native study to the model's grid.
        mixture: Instructions.
        cache_dir: Folder of preprocessed studies.
        augmentation: Changes training images, or None.
        shares: Part to share of the patients; what is left over is for training.
        split_file: A split to use instead, for example that of an earlier run.
        batch_size: Studies in a training batch.
        evaluation_batch_size: Studies in an evaluation batch.
        num_workers: Loader processes; results do not depend on it.
        seed: Seed of split, order, augmentation and instructions.
        allowed_failures: Broken studies that may be left out before it is an error.
        sequences: Sequences that the model reads; others are never shown. None shows all.
    """

    def __init__(
        self,
        source: Source,
        preprocessing: Preprocessing,
        mixture: Mixture,
        cache_dir: str,
        augmentation: Augment | None = None,
        shares: Mapping[str, float] | None = None,
        split_file: str | None = None,
        batch_size: int = 4,
        evaluation_batch_size: int = 4,
        num_workers: int = 0,
        seed: int = 0,
        allowed_failures: int = 0,
        sequences: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.source, self.preprocessing, self.mixture, self.augmentation = (
            source,
            preprocessing,
            mixture,
            augmentation,
        )
        self.cache: StudyStore = (
            source.store(preprocessing)
            if isinstance(source, ShardSource)
            else StudyCache(Path(cache_dir), source, preprocessing)
        )
        self.shares = dict(shares or {"val": 0.1, "test": 0.1})
        self.split_file = Path(split_file) if split_file else None
        self.batch_size, self.evaluation_batch_size = batch_size, evaluation_batch_size
        self.num_workers, self.seed, self.allowed_failures = num_workers, seed, allowed_failures
        self.sequences = sequences
        self.collator: Collator | None = None
        self.split: Split = {}
        self.full_split: Split = {}  # broken studies included
        self.failures: dict[str, str] = {}
        self.earlier: Parts = {}

    def patient_of(self) -> dict[str, str]:
        """Return the patient of each study of the source."""
        return dict(zip(self.source.study_ids(), self.source.patient_ids(), strict=True))

    def begin_from(self, parts: Parts) -> None:
        """Let patients whom earlier runs knew stay in the part that they had there; new ones alone are divided.

        Args:
            parts: Hash of a patient to the part; see `cmrvlm.runs.lineage`.
        """
        self.earlier = dict(parts)

    def prepare_data(self) -> None:
        """Make the split and fill the cache; safe to call twice.

        Raises:
            CmrvlmError: Patients are in several parts, or in another than training though earlier runs were trained on
                them; or too many studies are broken.
        """
        if self.split:
            return
        patient_of = self.patient_of()
        declared = self.source.declared_split()
        if self.split_file:
            split = read_split(self.split_file)
        elif declared is not None:
            split = declared
        else:
            split = split_with_earlier(
                patient_of, self.source.strata(), self.shares, self.seed, self.earlier
            )
        check_leak(split, patient_of)
        check_earlier(split, patient_of, self.earlier)
        wanted = [study for part in split.values() for study in part]
        self.failures = self.cache.fill(wanted, self.allowed_failures)
        for study in wanted if self.sequences is not None else []:
            if study not in self.failures and not set(self.cache.sequences(study)) & set(
                self.sequences or ()
            ):
                self.failures[study] = f"{study} has none of {', '.join(self.sequences or ())}"
        self.full_split = split
        self.split = {
            part: [s for s in studies if s not in self.failures] for part, studies in split.items()
        }
        if not self.split["train"] and not self.split["test"]:
            raise CmrvlmError(
                "the data holds no study", field="data", remedy="Check the root and the split."
            )

    def failures_of(self, part: str) -> dict[str, str]:
        """Broken studies of a part of the split, with reasons."""
        return {
            study: self.failures[study]
            for study in self.full_split.get(part, [])
            if study in self.failures
        }

    def setup(self, stage: str | None = None) -> None:
        """Lightning's hook; every process needs the split."""
        self.prepare_data()

    def save_split(self, path: Path) -> None:
        """Write the split for the run folder."""
        write_json(path, self.split)

    def corpus(self) -> Iterator[str]:
        """Questions and answers of the training split in all languages: what a tokenizer may be trained on."""
        for number, study_id in enumerate(self.split["train"][:_CORPUS_STUDIES]):
            study = self.cache.load(study_id, self.sequences)
            for task in self.mixture.tasks.values():
                for case in task.cases(study, list(study.series)):
                    for language in self.mixture.languages:
                        one = task.word(study, case, language, wording=number)
                        yield one.prompt
                        yield one.reference

    def class_shares(self) -> dict[str, Tensor]:
        """Read-out to the share of each class among the training studies in which it is known; NaN where in none."""
        each = [study_targets(self.cache.labels(study)) for study in self.split["train"]]
        names = ("disease", "findings", "hazard") if each else ()
        stacked = {name: np.stack([one[name] for one in each]) for name in names}
        return {
            name: torch.from_numpy(
                ma.masked_invalid(values).mean(axis=0).filled(np.nan).astype(np.float32)
            )
            for name, values in stacked.items()
        }

    def train_dataloader(self) -> DataLoader[Any] | AccumulationWindows:
        """Training batches; after a restart the epoch goes on where it was stopped."""
        if len(self.split["train"]) < self.batch_size:
            problem = f"{len(self.split['train'])} training studies are fewer than one batch of {self.batch_size}"
            raise CmrvlmError(
                problem, field="data.batch_size", remedy="Use a smaller batch or more studies."
            )
        data = TrainingSet(
            self.cache,
            self.split["train"],
            self.mixture,
            self.augmentation,
            self.seed,
            self.sequences,
        )
        rank, world = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        sampler = EpochSampler(len(data), self.seed, self.batch_size, self._position, rank, world)
        loader = self._loader(data, self.batch_size, sampler=sampler, drop_last=True)
        accumulated = self.trainer.accumulate_grad_batches if self.trainer else 1
        return loader if accumulated == 1 else AccumulationWindows(loader, accumulated)

    def _position(self) -> tuple[int, int]:
        """Return the epoch of the next batch and the number of its batches that are done.

        Both follow from the number of batches that were ever trained on. The trainer's own counters of an epoch are in
        flux while a run is resumed, and workers ask before they are settled.
        """
        if not self.trainer:
            return 0, 0
        done = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        return divmod(done, self._batches_in_epoch(self.trainer))

    def _batches_in_epoch(self, trainer: Trainer) -> int:
        """Return how many batches each process trains on in an epoch."""
        batches = len(self.split["train"]) // trainer.world_size // self.batch_size
        limit = trainer.limit_train_batches
        limited = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        return max(1, limited)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Every instruction of the validation split; none when the split has no validation part."""
        return self.evaluation_loader("val") if self.split["val"] else []

    def test_dataloader(self) -> DataLoader[Any]:
        """Every instruction of the test split."""
        return self.evaluation_loader("test")

    def question_loader(
        self,
        studies: Sequence[str],
        shown: Sequence[str] | None = None,
        *,
        paraphrased: bool = False,
    ) -> DataLoader[Any]:
        """Lists of (study, instructions) with all questions, nothing drawn.

        Args:
            studies: Ids of the studies, in the order in which they come.
            shown: Sequences to show; None shows all that the model reads.
            paraphrased: Ask in wordings that training never shows.
        """
        data = EvaluationSet(
            self.cache, studies, self.mixture, shown or self.sequences, paraphrased=paraphrased
        )
        return DataLoader(
            data, self.evaluation_batch_size, collate_fn=list, num_workers=self.num_workers
        )

    def evaluation_loader(self, part: str) -> DataLoader[Any]:
        """Batches of a part of the split with all questions, nothing drawn."""
        data = EvaluationSet(self.cache, self.split[part], self.mixture, self.sequences)
        return self._loader(data, self.evaluation_batch_size)

    def _loader(
        self,
        data: Dataset[Any],
        batch_size: int,
        *,
        sampler: Sampler[Any] | None = None,
        drop_last: bool = False,
    ) -> DataLoader[Any]:
        if self.collator is None:
            raise CmrvlmError(
                "no collator was set", field="collator", remedy="Set it after the model was built."
            )
        return DataLoader(
            data,
            batch_size,
            sampler=sampler,
            collate_fn=self.collator,
            num_workers=self.num_workers,
            drop_last=drop_last,
            persistent_workers=self.num_workers > 0,
        )
