"""Data sets and sampler: a sample depends on seed, epoch and index and on nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Dataset, Sampler

from cmrvlm.errors import raises_on_stop_iteration
from cmrvlm.instructions.instruction import Instruction
from cmrvlm.study.study import Study
from cmrvlm.tasks.mixture import Mixture
from cmrvlm.transforms.intensity import PercentileIntensity
from data_modules.loading.foreign_samples import foreign_sample
from data_modules.storage.store import StudyStore

if TYPE_CHECKING:
    from cmrvlm.transforms.augment import Augment

Sample = tuple[Study, list[Instruction]]
# Tells the generator of images without a heart from the others of a sample, whose draws stay the
# same whatever the share of such images is.
_FOREIGN = 2


class TrainingSet(Dataset[Sample]):
    """Augmented studies with randomly drawn instructions.

    The mixture's `foreign_share` of them shows images without a heart.

    Args:
        cache: Store of preprocessed studies.
        study_ids: Studies of the training split.
        mixture: Mixture that instructions are drawn from.
        augment: Augmentation of the images, or None.
        seed: Seed of all draws.
        sequences: Sequences that may be shown; None shows all.
        intensity: Step that scales the grey values of images without a heart, as the preprocessing
            does; None for one of usual settings.
    """

    def __init__(
        self,
        cache: StudyStore,
        study_ids: Sequence[str],
        mixture: Mixture,
        augment: Augment | None,
        seed: int,
        sequences: Collection[str] | None = None,
        intensity: PercentileIntensity | None = None,
    ) -> None:
        self.cache = cache
        self.study_ids = list(study_ids)
        self.mixture = mixture
        self.augment = augment
        self.seed = seed
        self.sequences = sequences
        self.intensity = intensity or PercentileIntensity()

    def __len__(self) -> int:
        return len(self.study_ids)

    @raises_on_stop_iteration
    def __getitem__(self, epoch_and_index: tuple[int, int]) -> Sample:
        """Return the sample of an epoch at an index."""
        epoch, index = epoch_and_index
        rng = np.random.default_rng([self.seed, epoch, index])
        study = self.cache.load(self.study_ids[index], self.sequences)
        instructions = self.mixture.draw(study, rng)
        foreign_rng = np.random.default_rng([self.seed, epoch, index, _FOREIGN])
        if foreign_rng.random() < self.mixture.foreign_share:
            study, instructions = foreign_sample(study, instructions, foreign_rng, self.intensity)
        # Images without a heart are augmented too: what comes in at their borders tells nothing.
        if self.augment:
            study = self.augment(study, rng)
        return study, instructions


class EvaluationSet(Dataset[Sample]):
    """Studies without augmentation, each with all its instructions.

    Args:
        cache: Store of preprocessed studies.
        study_ids: Studies to evaluate.
        mixture: Mixture that lists the instructions.
        shown: Sequences to show; None shows all.
        paraphrased: Whether to ask in wordings that training never shows.
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
        self.cache = cache
        self.study_ids = list(study_ids)
        self.mixture = mixture
        self.shown = shown
        self.paraphrased = paraphrased

    def __len__(self) -> int:
        return len(self.study_ids)

    @raises_on_stop_iteration
    def __getitem__(self, index: int) -> Sample:
        """Return the study at an index with every instruction about it."""
        study = self.cache.load(self.study_ids[index])
        return study, self.mixture.all(study, self.shown, paraphrased=self.paraphrased)


class EpochSampler(Sampler[tuple[int, int]]):
    """A sampler of (epoch, index) pairs, shuffled by seed and epoch and divided over processes.

    An epoch can begin at any of its batches, so that a run which was stopped continues where it
    was.

    Args:
        size: Number of samples.
        seed: Seed of the order.
        batch_size: Samples in a batch.
        position: Called when an iteration starts; returns the epoch and how many of its batches are
            done.
        rank: Rank of this process.
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
        self.size = size
        self.seed = seed
        self.batch_size = batch_size
        self.position = position
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        return self.size // self.world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, done = self.position()
        order = np.random.default_rng([self.seed, epoch, 1]).permutation(self.size)
        # All processes take equally many samples: what does not divide is left out of this epoch.
        indices = order[self.rank :: self.world][: len(self)]
        if done < len(indices) // self.batch_size:
            indices = indices[done * self.batch_size :]
        return iter([(epoch, int(index)) for index in indices])
