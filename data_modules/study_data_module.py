"""The data module: split by patient, cache, and data loaders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.collate import Collator
from cmrvlm.runs.lineage import Parts
from cmrvlm.study.atomic_files import write_json
from cmrvlm.study.study import Study
from cmrvlm.tasks.mixture import Mixture
from cmrvlm.transforms.preprocessing import Preprocessing
from data_modules.loading.accumulation import AccumulationLoader
from data_modules.loading.class_shares import class_shares_of
from data_modules.loading.dataset import EpochSampler, EvaluationSet, TrainingSet
from data_modules.loading.foreign_samples import intensity_of
from data_modules.loading.workers import end_workers_at_exit, leave_signals_to_the_parent
from data_modules.sources.base import Source
from data_modules.split import Split, check_earlier, check_leak, read_split, split_with_earlier
from data_modules.storage.cache import StudyCache
from data_modules.storage.shards import ShardSource
from data_modules.storage.store import StudyStore
from data_modules.trial import shares_with_validation

if TYPE_CHECKING:
    # Loads TorchIO, which a configuration without augmentation does without.
    from cmrvlm.transforms.augment import Augment

# As many studies hold every word of the prompts and answers.
_CORPUS_STUDIES = 200


class StudyDataModule(LightningDataModule):
    """A data module of the studies of one source.

    `prepare_data` (or `setup`) makes the split and fills the cache. Loaders of batches need a
    collator, which depends on the model: set `collator` before they are called.

    Args:
        source: Source of the studies.
        preprocessing: Steps that bring a native study to the model's grid.
        mixture: Mixture of the instructions.
        cache_dir: Folder of preprocessed studies.
        augmentation: Augmentation of training images, or None.
        shares: Share of the patients by part (`val`, `test`); the rest is for training.
        split_file: A split to use instead, for example that of an earlier run.
        batch_size: Studies in a training batch.
        evaluation_batch_size: Studies in an evaluation batch.
        num_workers: Loader processes; results do not depend on it.
        seed: Seed of split, order, augmentation and instructions.
        allowed_failures: Broken studies that may be left out before it is an error.
        cache_workers: Studies that are preprocessed at once; None takes one a core, eight at most.
        sequences: Sequences that the model reads; others are never shown. None shows all.
        trial: Make do with few studies: smaller batches, and a patient for validation.

    Attributes:
        source: As given; so are `preprocessing`, `mixture`, `augmentation`, `batch_size`, `trial`,
            `evaluation_batch_size`, `num_workers`, `seed`, `allowed_failures` and `sequences`.
        shares: As given, or a tenth each for validation and test.
        split_file: Path of the split to use, or None.
        cache: Store of the preprocessed studies.
        collator: Collator of batches; None until the caller sets it.
        split: Study ids by part, without broken studies; empty until `prepare_data`.
        full_split: Study ids by part, broken studies included; empty until `prepare_data`.
        failures: Reason by id of each study that is left out of the split.
        earlier: Part by hash of the patient, for patients of earlier runs; see `begin_from`.
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
        cache_workers: int | None = None,
        sequences: Sequence[str] | None = None,
        trial: bool = False,
    ) -> None:
        super().__init__()
        self.source = source
        self.preprocessing = preprocessing
        self.mixture = mixture
        self.augmentation = augmentation
        self.shares = dict(shares or {"val": 0.1, "test": 0.1})
        self.split_file = Path(split_file) if split_file else None
        self.batch_size = batch_size
        self.evaluation_batch_size = evaluation_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.allowed_failures = allowed_failures
        self.sequences = sequences
        self.trial = trial
        self.cache: StudyStore
        if isinstance(source, ShardSource):
            # Shards are preprocessed already.
            self.cache = source.store(preprocessing)
        else:
            self.cache = StudyCache(Path(cache_dir), source, preprocessing, cache_workers)
        self.collator: Collator | None = None
        self.split: Split = {}
        self.full_split: Split = {}
        self.failures: dict[str, str] = {}
        self.earlier: Parts = {}

    def patient_of(self) -> dict[str, str]:
        """Return the patient of each study of the source."""
        return dict(zip(self.source.study_ids(), self.source.patient_ids(), strict=True))

    def begin_from(self, parts: Parts) -> None:
        """Keep patients of earlier runs in the part that they had there; only new ones are split.

        Args:
            parts: Part by hash of the patient; see `cmrvlm.runs.lineage`.
        """
        self.earlier = dict(parts)

    def prepare_data(self) -> None:
        """Make the split and fill the cache; a second call does nothing.

        Raises:
            CmrvlmError: A patient is in several parts, or is held out though earlier runs were
                trained on it; too many studies are broken; or none is left.
        """
        if self.split:
            return
        patient_of = self.patient_of()
        full_split = self._make_split(patient_of)
        check_leak(full_split, patient_of)
        check_earlier(full_split, patient_of, self.earlier)
        study_ids = [study_id for members in full_split.values() for study_id in members]
        self.failures = self.cache.fill(study_ids, self.allowed_failures)
        self.failures |= self._find_unreadable(study_ids)
        self.full_split = full_split
        self.split = {
            part: [study_id for study_id in members if study_id not in self.failures]
            for part, members in full_split.items()
        }
        self.source.log_notes([study_id for part in self.split.values() for study_id in part])
        if self.trial:
            self.batch_size = min(self.batch_size, max(1, len(self.split["train"])))
        if not self.split["train"] and not self.split["test"]:
            raise CmrvlmError(
                "the data holds no study", field="data", remedy="Check the root and the split."
            )

    def _make_split(self, patient_of: Mapping[str, str]) -> Split:
        """Return the split of a file, else the one that the data declares, else a new one."""
        if self.split_file:
            return read_split(self.split_file)
        declared = self.source.declared_split()
        if declared is not None:
            return declared
        shares = self.shares
        if self.trial:
            shares = shares_with_validation(shares, patient_of)
        return split_with_earlier(patient_of, self.source.strata(), shares, self.seed, self.earlier)

    def _find_unreadable(self, study_ids: Sequence[str]) -> dict[str, str]:
        """Return the reason by study for studies without a sequence that the model reads."""
        if self.sequences is None:
            return {}
        reason = f"none of {', '.join(self.sequences)}"
        return {
            study_id: f"{study_id} has {reason}"
            for study_id in study_ids
            if study_id not in self.failures
            and set(self.sequences).isdisjoint(self.cache.sequences(study_id))
        }

    def failures_of(self, part: str) -> dict[str, str]:
        """Return the reason by study for the studies that are left out of a part of the split."""
        return {
            study_id: self.failures[study_id]
            for study_id in self.full_split.get(part, [])
            if study_id in self.failures
        }

    def use_collator(self, collator: Collator) -> None:
        """Set what makes batches of samples, once the model is known."""
        self.collator = collator

    def load_study(self, study_id: str) -> Study:
        """Return a preprocessed study with all its series."""
        return self.cache.load(study_id)

    def content_hash(self, study_ids: Iterable[str]) -> str:
        """Return a hash of studies, images and labels."""
        return self.cache.content_hash(study_ids)

    def setup(self, stage: str | None = None) -> None:
        """Make the split in every process, as Lightning asks for."""
        self.prepare_data()

    def save_split(self, path: Path) -> None:
        """Write the split to a file of a run folder."""
        write_json(path, self.split)

    def corpus(self) -> Iterator[str]:
        """Yield questions and answers of training studies in all languages, for a tokenizer."""
        for number, study_id in enumerate(self.split["train"][:_CORPUS_STUDIES]):
            study = self.cache.load(study_id, self.sequences)
            for task in self.mixture.tasks.values():
                for case in task.cases(study, list(study.series)):
                    for language in self.mixture.languages_of(case):
                        # The study's number goes through the wordings of a task.
                        instruction = task.make_instruction(study, case, language, number)
                        yield instruction.prompt
                        yield instruction.reference

    def class_shares(self) -> dict[str, Tensor]:
        """Return the share of positives of each class among the training studies, by read-out."""
        return class_shares_of(self.cache.labels(study_id) for study_id in self.split["train"])

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of training batches; after a restart it continues within the epoch.

        Raises:
            CmrvlmError: There are fewer studies than a batch holds, or no collator was set.
        """
        study_ids = self.split["train"]
        if len(study_ids) < self.batch_size:
            raise CmrvlmError(
                f"{len(study_ids)} training studies are fewer than one batch of {self.batch_size}",
                field="data.batch_size",
                remedy="Use a smaller batch or more studies.",
            )
        data = TrainingSet(
            self.cache,
            study_ids,
            self.mixture,
            self.augmentation,
            self.seed,
            self.sequences,
            intensity_of(self.preprocessing),
        )
        rank, world, accumulated = 0, 1, 1
        if self.trainer:
            rank = self.trainer.global_rank
            world = self.trainer.world_size
            accumulated = self.trainer.accumulate_grad_batches
        sampler = EpochSampler(len(data), self.seed, self.batch_size, self._position, rank, world)
        return self._make_loader(
            data, self.batch_size, sampler=sampler, drop_last=True, accumulated=accumulated
        )

    def _position(self) -> tuple[int, int]:
        """Return the epoch of the next batch and the number of its batches that are done.

        Both follow from the number of batches that were ever trained on. The trainer's own counters
        of an epoch change while a run is resumed, and workers ask before they are settled.
        """
        if not self.trainer:
            return 0, 0
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        done = progress.total.processed  # type: ignore[attr-defined]
        return divmod(done, self._batches_in_epoch(self.trainer))

    def _batches_in_epoch(self, trainer: Trainer) -> int:
        """Return how many batches each process trains on in an epoch."""
        batches = len(self.split["train"]) // trainer.world_size // self.batch_size
        limit = trainer.limit_train_batches
        if isinstance(limit, int):
            return max(1, min(batches, limit))
        # A fraction of the epoch.
        return max(1, int(batches * limit))

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return the loader of the validation part, or an empty list when that part is empty."""
        if not self.split["val"]:
            return []
        return self.evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the loader of the test part."""
        return self.evaluation_loader("test")

    def question_loader(
        self,
        studies: Sequence[str],
        shown: Sequence[str] | None = None,
        *,
        paraphrased: bool = False,
    ) -> DataLoader[Any]:
        """Return a loader of lists of (study, instructions) with all questions, nothing drawn.

        Args:
            studies: Ids of the studies, in the order in which they come.
            shown: Sequences to show; None shows all that the model reads.
            paraphrased: Whether to ask in wordings that training never shows.
        """
        data = EvaluationSet(
            self.cache, studies, self.mixture, shown or self.sequences, paraphrased=paraphrased
        )
        return DataLoader(
            data, self.evaluation_batch_size, collate_fn=list, num_workers=self.num_workers
        )

    def evaluation_loader(self, part: str) -> DataLoader[Any]:
        """Return a loader of batches of a part of the split with all questions, nothing drawn."""
        data = EvaluationSet(self.cache, self.split[part], self.mixture, self.sequences)
        return self._make_loader(data, self.evaluation_batch_size)

    def _make_loader(
        self,
        data: Dataset[Any],
        batch_size: int,
        *,
        sampler: Sampler[Any] | None = None,
        drop_last: bool = False,
        accumulated: int = 1,
    ) -> DataLoader[Any]:
        """Return a loader of collated batches, of which some are `accumulated` for a step.

        Raises:
            CmrvlmError: No collator was set.
        """
        if self.collator is None:
            raise CmrvlmError(
                "no collator was set", field="collator", remedy="Set it after the model was built."
            )
        end_workers_at_exit()
        make: Callable[..., DataLoader[Any]] = DataLoader
        if accumulated > 1:
            make = partial(AccumulationLoader, accumulated)
        return make(
            data,
            batch_size,
            sampler=sampler,
            collate_fn=self.collator,
            num_workers=self.num_workers,
            drop_last=drop_last,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=leave_signals_to_the_parent,
        )
