"""A share of the training shows images without a heart, and nothing of the true study with them."""

import hashlib
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.tokens import SEGMENT
from cmrvlm.study.study import StudyLabels, UserQuestion
from cmrvlm.tasks.mixture import Mixture
from cmrvlm.transforms.augment import Augment
from cmrvlm.transforms.intensity import PercentileIntensity
from cmrvlm.transforms.preprocessing import Preprocessing
from data_modules.loading.dataset import EpochSampler, EvaluationSet, TrainingSet
from data_modules.loading.foreign_samples import foreign_sample, intensity_of
from tests.conftest import composed

EPOCHS = 5
NOT_ASSESSED = {"en": "not assessed.", "zh": "未评估。"}
HEADINGS = {
    "en": "Structure: not assessed. Function: not assessed. LGE: not assessed. "
    "Other: not assessed. Impression: not assessed.",
    "zh": "结构：未评估。功能：未评估。延迟强化：未评估。其他：未评估。结论：未评估。",
}


def training_set(untrained, share, augment=None, seed=5):
    mixture = copy(untrained.data.mixture)
    mixture.foreign_share = share
    data = untrained.data
    return TrainingSet(data.cache, data.split["train"], mixture, augment, seed)


def samples_of(data, epochs=1, workers=0):
    """Return the samples of some epochs, each as (study, instructions)."""
    samples = []
    for epoch in range(epochs):
        sampler = EpochSampler(len(data), data.seed, 2, lambda epoch=epoch: (epoch, 0))
        loader = torch.utils.data.DataLoader(
            data, 2, sampler=sampler, num_workers=workers, collate_fn=list
        )
        samples += [sample for batch in loader for sample in batch]
    return samples


def pixels(study):
    """Return a hash of each series' image and of its mask."""
    return {
        name: hashlib.sha256(np.ascontiguousarray(one.image).tobytes()).hexdigest()
        for name, one in study.series.items()
    }


def is_foreign(sample):
    study, instructions = sample
    return any("not assessed." in one.answer for one in instructions if one.language == "en") or (
        study.labels == StudyLabels()
    )


@pytest.fixture(scope="module")
def hearts(untrained):
    return samples_of(training_set(untrained, 0.0), epochs=EPOCHS)


@pytest.fixture(scope="module")
def foreign(untrained):
    return samples_of(training_set(untrained, 1.0), epochs=EPOCHS)


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_the_share_is_met_and_other_samples_stay(untrained, hearts, share):
    samples = samples_of(training_set(untrained, share), epochs=EPOCHS)
    flags = [is_foreign(sample) for sample in samples]
    spread = (share * (1 - share) / len(samples)) ** 0.5
    assert np.mean(flags) == pytest.approx(share, abs=4 * spread)
    for flag, (study, instructions), (true_study, true_instructions) in zip(
        flags, samples, hearts, strict=True
    ):
        assert study.study_id == true_study.study_id
        if not flag:
            assert instructions == true_instructions
            assert pixels(study) == pixels(true_study)


def test_without_a_share_samples_are_the_drawn_ones(untrained):
    data = untrained.data
    training = training_set(untrained, 0.0, Augment())
    for epoch, index in ((0, 0), (0, 3), (2, 1), (7, 2)):
        rng = np.random.default_rng([5, epoch, index])
        study = data.cache.load(data.split["train"][index])
        drawn = data.mixture.draw(study, rng)
        study = Augment()(study, rng)
        sample, instructions = training[epoch, index]
        assert instructions == drawn
        assert pixels(sample) == pixels(study)
        assert sample.labels == study.labels


def test_mixes_show_hearts_alone_unless_they_say_so(untrained):
    assert Mixture(untrained.data.mixture.tasks).foreign_share == 0
    for mix, share in {"instruction": 0.02, "reading": 0, "texts": 0, "segmentation": 0}.items():
        settings = composed(f"mix={mix}", "out=none", "run_dir=none")["mix"]
        assert settings.get("foreign_share", 0) == share
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(CmrvlmError, match="foreign_share"):
            Mixture({}, foreign_share=wrong)


def test_samples_depend_on_seed_epoch_and_index_alone(untrained):
    data = training_set(untrained, 0.5, Augment())
    first = [(pixels(study), asked) for study, asked in samples_of(data)]
    assert first == [(pixels(study), asked) for study, asked in samples_of(data, workers=2)]
    # One sample by itself, as after a restart, is what it was in its epoch.
    order = [index for _, index in EpochSampler(len(data), 5, 2, lambda: (0, 0))]
    for position in (3, 0):
        study, asked = data[0, order[position]]
        assert (pixels(study), asked) == first[position]
    always = training_set(untrained, 1.0)
    images = [
        pixels(always[0, 0][0]),
        pixels(always[1, 0][0]),
        pixels(training_set(untrained, 1.0, seed=6)[0, 0][0]),
    ]
    assert len({str(image) for image in images}) == 3


def test_the_answer_is_not_assessed_in_the_language_asked(foreign, hearts):
    languages = set()
    for (_, instructions), (_, drawn) in zip(foreign, hearts, strict=True):
        shown = [one for one in drawn if one.views]
        if not shown:
            continue
        assert [one.prompt for one in instructions] == [one.prompt for one in shown]
        for one in instructions:
            expected = HEADINGS if one.outline else NOT_ASSESSED
            assert one.answer == one.reference == expected[one.language]
            languages.add(one.language)
    assert languages == {"en", "zh"}


def test_nothing_of_the_true_study_is_left(foreign, untrained):
    for study, instructions in foreign:
        assert study.labels == StudyLabels()
        for series in study.series.values():
            assert series.mask is None
            assert not series.phases
            assert not series.levels
            assert not series.drawn
            assert 0 <= series.image.min() < series.image.max() <= 1
        for one in instructions:
            assert one.truth is None
            assert one.region is None
            assert one.source is None
            assert not one.values
            assert SEGMENT not in one.answer
            assert {view.sequence for view in one.views} <= set(study.series)
    asked = [sample for sample in foreign if sample[1]]
    batch = untrained.collator(asked[:4])
    for target in batch.targets.values():
        assert target.isnan().all()
    assert batch.masks == [None] * len(batch.instructions)
    counts = batch.counts()
    assert counts.pop("tokens") > 0
    assert set(counts.values()) == {0}


def test_images_are_those_of_the_kinds_and_none_of_the_study(untrained, foreign):
    seen = {
        digest
        for name in untrained.data.split["train"]
        for digest in pixels(untrained.data.load_study(name)).values()
    }
    digests = {digest for study, _ in foreign for digest in pixels(study).values()}
    assert not digests & seen
    # Every sample has other images.
    assert len(digests) == sum(len(study.series) for study, _ in foreign)


def test_series_that_are_not_read_are_left_out(untrained, study):
    rng = np.random.default_rng(0)
    mixture = untrained.data.mixture
    for shown in (["sax"], ["lge"], ["sax", "lax_4ch"], ["lax_4ch", "sax", "lge"]):
        asked = [one for one in mixture.all(study, shown) if one.views]
        changed, _ = foreign_sample(study, asked, rng, PercentileIntensity())
        assert set(changed.series) == set(shown)


def test_questions_about_text_alone_are_left_out(untrained, study):
    asked = untrained.data.mixture.all(study)
    about_text = [one for one in asked if not one.views]
    about_images = [one for one in asked if one.views]
    assert about_text
    rng = np.random.default_rng(0)
    _, instructions = foreign_sample(study, asked, rng, PercentileIntensity())
    assert [one.prompt for one in instructions] == [one.prompt for one in about_images]
    same, instructions = foreign_sample(study, about_text, rng, PercentileIntensity())
    assert same is study
    assert instructions == about_text


def test_answers_that_come_with_the_data_do_not_leak(untrained, study):
    questions = (
        UserQuestion("structure", "en", "Is the apex thin?", "It is torn."),
        UserQuestion("lge", "zh", "强化如何？", "心尖"),
        UserQuestion("function", "en", "Which?", "worse", ("better", "worse")),
    )
    labelled = replace(study, labels=replace(study.labels, questions=questions))
    asked = [one for one in untrained.data.mixture.all(labelled) if one.source in questions]
    assert len(asked) == len(questions)
    changed, instructions = foreign_sample(
        labelled, asked, np.random.default_rng(1), PercentileIntensity()
    )
    assert not changed.labels.questions
    assert {one.answer for one in instructions} <= set(NOT_ASSESSED.values())
    assert all(one.source is None for one in instructions)


def test_the_cache_and_evaluation_are_not_affected(untrained):
    data = untrained.data
    before = data.content_hash(data.split["train"])
    stored = [pixels(data.load_study(name)) for name in data.split["train"]]
    mixture = copy(data.mixture)
    mixture.foreign_share = 1.0
    samples_of(training_set(untrained, 1.0, Augment()))
    assert [pixels(data.load_study(name)) for name in data.split["train"]] == stored
    assert data.content_hash(data.split["train"]) == before
    true = EvaluationSet(data.cache, data.split["val"], data.mixture)[0]
    shown = EvaluationSet(data.cache, data.split["val"], mixture)[0]
    assert shown[1] == true[1]
    assert pixels(shown[0]) == pixels(true[0])


def test_grey_values_are_scaled_as_the_run_scales_them():
    step = PercentileIntensity(lower=5.0, upper=95.0)
    assert intensity_of(Preprocessing({"other": None, "scale": step})) is step
    for steps in ({}, {"scale": None}):
        usual = intensity_of(Preprocessing(steps))
        assert (usual.lower, usual.upper) == (1.0, 99.0)
