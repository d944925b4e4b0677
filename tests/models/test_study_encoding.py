"""Studies encoded together have the features that each has by itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cmrvlm.models.familiarity import describe
from cmrvlm.models.study_encoding import encode_studies
from cmrvlm.runs.known_images import features_of, features_of_studies


def cropped(study, **sizes):
    """Return a study whose series have fewer slices, frames, rows or columns."""
    z, t, h, w = (sizes.get(axis) for axis in "zthw")
    series = {}
    for name, whole in study.series.items():
        image = np.ascontiguousarray(whole.image[:z, :t, :h, :w])
        series[name] = replace(
            whole,
            image=image,
            mask=None,
            phases={},
            levels=(),
            frame_times_ms=None,
            slice_places_mm=None,
        )
    return study.with_series(series)


@pytest.fixture(scope="module")
def studies(untrained):
    data = untrained.data
    whole = [data.load_study(name) for name in data.split["train"][:4]]
    without = whole[1].with_series({"lge": whole[1].series["lge"]})
    return [
        whole[0],
        without,
        cropped(whole[2], z=2),
        whole[3],
        cropped(whole[0], t=1),
        cropped(whole[1], h=24, w=32),
    ]


@pytest.mark.parametrize("order", [[0, 3], [0, 1, 2, 3, 4, 5], [5, 1, 4], [2, 3, 0]])
def test_features_do_not_depend_on_the_studies_beside(untrained, studies, order):
    chosen = [studies[index] for index in order]
    together = features_of_studies(untrained.model, chosen)
    for study, features in zip(chosen, together, strict=True):
        alone = features_of(untrained.model, study)
        assert features.keys() == alone.keys() == study.series.keys()
        for sequence, row in features.items():
            assert row.shape == alone[sequence].shape
            assert torch.allclose(row, alone[sequence], rtol=1e-4, atol=1e-5)


def test_features_are_those_of_the_encoder_called_by_hand(untrained, studies):
    features = features_of_studies(untrained.model, studies)
    for study, of_study in zip(studies, features, strict=True):
        for sequence, series in study.series.items():
            encoder = untrained.model.encoder(sequence)
            images = torch.from_numpy(np.asarray(series.image, dtype=np.float32))[None, None]
            with torch.no_grad():
                expected = describe(encoder, encoder(images))
            assert torch.allclose(of_study[sequence], expected, rtol=1e-4, atol=1e-5)


def test_a_model_in_training_encodes_as_in_evaluation_and_goes_on(untrained, studies):
    expected = features_of(untrained.model, studies[0])
    untrained.model.train()
    try:
        features = features_of(untrained.model, studies[0])
        assert untrained.model.training
    finally:
        untrained.model.eval()
    assert all(torch.equal(features[name], expected[name]) for name in expected)


def test_some_sequences_of_encoded_studies_alone(untrained, studies):
    features = encode_studies(untrained.model, studies[:2])
    for kept in (["sax"], ["sax", "lge"], ["lge", "unknown"], []):
        some = features.of_sequences(kept)
        assert set(some.locations) == {key for key in features.locations if key[1] in kept}
        assert set(some.stacks) == set(some.tokens) == set(kept) & set(features.stacks)
        for study, sequence in some.locations:
            assert some.encoded(study, sequence) is features.encoded(study, sequence)
