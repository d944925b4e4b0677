"""Indices to samples. Randomness is an argument: a sample depends on seed, epoch and index and on nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
from torch.utils.data import Dataset, Sampler

from cmrvlm.errors import ends_loudly
from cmrvlm.instructions.instruction import Instruction
from cmrvlm.study.study import Study
from cmrvlm.tasks.mixture import Mixture
from cmrvlm.transforms.augment import Augment
from data_modules.storage.store import StudyStore

Sample = tuple[Study, list[Instruction]]


class TrainingSet(Dataset[Sample]):
    """Augmented studies with drawn instructions.

    Args:
        cache: Preprocessed studies.
        study_ids: Studies of the training split.
        mixture: Draws the instructions.
        augment: Changes the images, or None.
        seed: Seed of all draws.
        sequences: Sequences that may be shown; None shows all.
    """

    def __init__(
        self,
        cache: StudyStore,
        study_ids: Sequence[str],
        mixture: Mixture,
        augment: Augment | None,
        seed: int,
        sequences: Collection[str] | None = None,
    ) -> None:
        self.cache, self.study_ids, self.sequences = cache, list(study_ids), sequences
        self.mixture, self.augment, self.seed = mixture, augment, seed

    def __len__(self) -> int:
        return len(self.study_ids)

    @ends_loudly
    def __getitem__(self, at: tuple[int, int]) -> Sample:
        """The sample at (epoch, index)."""
        epoch, index = at
        rng = np.random.default_rng([self.seed, epoch, index])
        study = self.cache.load(self.study_ids[index], self.sequences)
        instructions = self.mixture.draw(study, rng)
        return (self.augment(study, rng) if self.augment else study), instructions


class EvaluationSet(Dataset[Sample]):
    """Unchanged studies with all their instructions.

    Args:
        cache: Preprocessed studies.
        study_ids: Studies to evaluate.
        mixture: Lists the instructions.
        shown: Sequences to show; None shows all.
        paraphrased: Ask in wordings that training never shows.
    """

    def __init__(
        self,
        cache: StudyStore,
        study_ids: Sequence[str],
        mixture: Mixture,
        shown: Sequence[str] | None = None,
        *,
        paraphrased: bool = False,
    ) -> None:
        self.cache, self.study_ids, self.mixture, self.shown = (
            cache,
            list(study_ids),
            mixture,
            shown,
        )
        self.paraphrased = paraphrased

    def __len__(self) -> int:
        return len(self.study_ids)

    @ends_loudly
    def __getitem__(self, index: int) -> Sample:
        """The study at `index` with every instruction about it."""
        study = self.cache.load(self.study_ids[index])
        return study, self.mixture.all(study, self.shown, paraphrased=self.paraphrased)


class EpochSampler(Sampler[tuple[int, int]]):
    """Order of an epoch as a function of seed and epoch, from any batch on, divided over processes.

    Args:
        size: Number of samples.
        seed: Seed of the order.
        batch_size: Samples in a batch.
        position: Epoch and number of its batches that are done, asked when an iteration starts; after a restart the
            epoch goes on from there.
        rank: This process.
        world: Number of processes.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        batch_size: int,
        position: Callable[[], tuple[int, int]],
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.size, self.seed, self.batch_size, self.position = size, seed, batch_size, position
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return self.size // self.world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, done = self.position()
        order = np.random.default_rng([self.seed, epoch, 1]).permutation(self.size)
        own = order[self.rank :: self.world][: len(self)]
        if done < len(own) // self.batch_size:
            own = own[done * self.batch_size :]
        return iter([(epoch, int(index)) for index in own])
