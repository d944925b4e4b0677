"""Samples and their order: functions of seed, epoch and index alone."""

import pytest
import torch

from cmrvlm.transforms.augment import Augment
from data_modules.loading.dataset import EpochSampler, EvaluationSet, TrainingSet
from data_modules.storage.cache import StudyCache


@pytest.fixture
def study_cache(tmp_path, tiny_source, scaling):
    source = tiny_source(count=8)
    cache = StudyCache(tmp_path, source, scaling())
    cache.fill(source.study_ids())
    return cache


def load_samples(cache, mixture, workers, epoch=0):
    """Return study, sum of an image and instructions of each sample of an epoch."""
    data = TrainingSet(cache, cache.source.study_ids(), mixture, Augment(), seed=5)
    sampler = EpochSampler(len(data), 5, 2, lambda: (epoch, 0))
    loader = torch.utils.data.DataLoader(
        data, 2, sampler=sampler, num_workers=workers, collate_fn=list
    )
    return [
        (study.study_id, float(study.series["lge"].image.sum()), instructions)
        for batch in loader
        for study, instructions in batch
    ]


def test_samples_depend_on_the_epoch_and_not_on_workers(study_cache, untrained):
    mixture = untrained.data.mixture
    samples = load_samples(study_cache, mixture, workers=0)
    assert samples == load_samples(study_cache, mixture, workers=3)
    assert samples != load_samples(study_cache, mixture, workers=0, epoch=1)


def test_an_epoch_continues_where_it_stopped():
    whole = list(EpochSampler(11, 3, 2, lambda: (4, 0)))
    assert list(EpochSampler(11, 3, 2, lambda: (4, 3))) == whole[6:]
    # After five batches the epoch is over.
    assert list(EpochSampler(11, 3, 2, lambda: (4, 5))) == whole
    assert {index for _, index in whole} == set(range(11))
    assert list(EpochSampler(11, 3, 2, lambda: (5, 0))) != whole


def test_processes_share_an_epoch_without_overlap():
    first, second = (
        {index for _, index in EpochSampler(10, 0, 2, lambda: (0, 0), rank, 2)} for rank in (0, 1)
    )
    assert first.isdisjoint(second)
    assert len(first | second) == 10


def test_evaluation_is_the_same_every_time(untrained):
    data = untrained.data
    first, second = (
        EvaluationSet(data.cache, data.split["val"], data.mixture)[0] for _ in range(2)
    )
    assert first[1] == second[1]


def test_evaluation_asks_about_shown_sequences_alone(untrained):
    data = untrained.data
    _, instructions = EvaluationSet(data.cache, data.split["val"], data.mixture, shown=["lge"])[0]
    views = [view for instruction in instructions for view in instruction.views]
    assert {view.sequence for view in views} == {"lge"}


def test_training_shows_the_given_sequences_alone(untrained):
    data = untrained.data
    training = TrainingSet(data.cache, data.split["train"], data.mixture, None, 0, ["sax"])
    study, instructions = training[(0, 0)]
    assert set(study.series) == {"sax"}
    views = [view for instruction in instructions for view in instruction.views]
    assert {view.sequence for view in views} == {"sax"}
