"""Of images unlike those of the training nothing is said but why; hearts are answered as ever."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from cmrvlm.inference.cmrvlm import CMRVLM
from cmrvlm.inference.prepared_study import PreparedStudy
from cmrvlm.inference.study_answering import StudyAnswerer
from cmrvlm.models.study_encoding import encode_studies
from cmrvlm.runs.fingerprints import write_fingerprints
from cmrvlm.runs.known_images import familiarity_of, features_of
from cmrvlm.runs.run_folder import FAMILIARITY, load_run
from cmrvlm.runs.wiring import build_data
from cmrvlm.study.files import write_study
from cmrvlm.transforms.foreign import FOREIGN, foreign_study


@pytest.fixture(scope="module")
def data(stage3_run):
    config = load_run(stage3_run).config
    config["data"]["source"]["count"] = 48
    config["data"]["shares"] = {"val": 0.3, "test": 0.1}
    data = build_data(config)
    data.prepare_data()
    return data


@pytest.fixture(scope="module")
def gated_run(stage3_run, data, tmp_path_factory):
    """The shared run, with what its phantoms look like."""
    folder = tmp_path_factory.mktemp("gated") / "run"
    shutil.copytree(stage3_run, folder)
    run = load_run(folder)
    familiarity = familiarity_of(run.model, data)
    # Of so few studies the limits would be wide; here they are just beyond the hearts of the test.
    hearts = [features_of(run.model, data.load_study(one)) for one in data.split["test"]]
    for sequence, gate in familiarity.gates.items():
        distances = [float(gate.distance(one[sequence])) for one in hearts if sequence in one]
        limit = torch.tensor(1.1 * max(distances), dtype=torch.float64)
        familiarity.gates[sequence] = replace(gate, limit=limit)
    familiarity.save(folder / FAMILIARITY)
    write_fingerprints(folder)
    return folder


@pytest.fixture(scope="module")
def model(gated_run):
    return CMRVLM.from_pretrained(gated_run, device="cpu", max_new_tokens=8)


@pytest.fixture(scope="module")
def heart(data):
    """A study of the test part, as its source gives it."""
    return data.source.load(data.split["test"][0])


@pytest.fixture
def ventricle_everywhere(monkeypatch):
    """A network of two training steps finds no ventricle; the gate would say so."""
    label_maps = StudyAnswerer._label_maps

    def found(self, native, *rest):
        maps = label_maps(self, native, *rest)
        return {name: np.where(labels == 0, 1, labels) for name, labels in maps.items()}

    monkeypatch.setattr(StudyAnswerer, "_label_maps", found)


def test_a_heart_is_answered_as_without_the_gate(
    model, gated_run, heart, tmp_path, ventricle_everywhere
):
    without = CMRVLM.from_pretrained(gated_run, device="cpu", max_new_tokens=8, gate=False)
    write_study(heart, tmp_path / "study")
    results = [
        one.predict(tmp_path / "study", tmp_path / "out", question="Is it dilated?")
        for one in (model, without)
    ]
    assert results[0] == results[1]
    assert "not_assessed" not in results[0]


# An encoder of two steps sees a bottle's disk as a ventricle in single frames; experiments/gate
# counts trained ones.
@pytest.mark.parametrize("kind", [kind for kind in FOREIGN if kind != "bottle"])
def test_nothing_is_said_of_other_images(model, heart, tmp_path, kind):
    write_study(foreign_study(heart, kind), tmp_path / "study")
    result = model.predict(tmp_path / "study", tmp_path / "out", question="Is it dilated?")
    assert set(result["not_assessed"]) == set(heart.series)
    assert "unlike those of the training" in result["not_assessed"]["sax"]
    assert result["disease"] is None
    assert not {"probabilities", "measurements", "from_masks"} & set(result)
    assert result["report"].startswith("not assessed.")
    assert result["answer"] == result["report"]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"prediction.json"}
    assert json.loads((tmp_path / "out" / "prediction.json").read_text()) == result


def test_the_object_says_nothing_either(model, heart):
    noise = foreign_study(heart, "noise")
    answer = model.ask(noise, "What is the diagnosis?", language="zh")
    assert answer.text.startswith("未评估")
    assert not answer.probabilities
    assert not answer.measurements
    report = model.report(noise)
    assert not report.disease
    assert not report.probabilities
    assert set(report.not_assessed) == set(heart.series)
    measured = model.measure(noise)
    assert not measured.from_read_out
    assert not measured.from_masks
    assert not model.segment(noise).label_maps


def test_a_foreign_series_leaves_the_others(model, heart, ventricle_everywhere):
    noise = foreign_study(heart, "noise")
    mixed = heart.with_series({**heart.series, "lge": noise.series["lge"]})
    report = model.report(mixed)
    assert set(report.not_assessed) == {"lge"}
    assert (
        report.text
        == model.report(
            heart.with_series({name: one for name, one in heart.series.items() if name != "lge"})
        ).text
    )


def test_a_heart_without_a_ventricle_is_not_assessed(model, heart, monkeypatch):
    label_maps = StudyAnswerer._label_maps

    def nothing(self, *arguments):
        return {name: np.zeros_like(one) for name, one in label_maps(self, *arguments).items()}

    monkeypatch.setattr(StudyAnswerer, "_label_maps", nothing)
    alone = heart.with_series({"sax": heart.series["sax"]})
    measured = model.measure(alone)
    assert measured.not_assessed == {"sax": "no left ventricle was found in it"}
    assert not measured.from_masks
    assert set(model.measure(heart).not_assessed) == {"sax"}


def test_a_run_of_a_handful_turns_nothing_away(stage3_run, heart):
    model = CMRVLM.from_pretrained(stage3_run, device="cpu", max_new_tokens=8)
    assert not model.report(foreign_study(heart, "noise")).not_assessed


@pytest.fixture
def encodings(model, monkeypatch):
    """Sequence to the number of series that its encoder has encoded."""
    counts = dict.fromkeys(model.network.encoders, 0)

    def counted(sequence):
        def count(module, inputs):
            counts[sequence] += len(inputs[0])

        return count

    hooks = [
        encoder.register_forward_pre_hook(counted(name))
        for name, encoder in model.network.encoders.items()
    ]
    yield counts
    for hook in hooks:
        hook.remove()


def test_each_series_is_encoded_once_for_gate_and_answers(
    model, heart, encodings, ventricle_everywhere
):
    model.segment(heart, frames="seen")
    assert encodings == dict.fromkeys(heart.series, 1)
    model.report(heart)
    assert encodings == dict.fromkeys(heart.series, 2)


def test_known_series_beside_a_foreign_one_are_encoded_once(
    model, heart, encodings, ventricle_everywhere
):
    for name in heart.series:
        encodings.update(dict.fromkeys(encodings, 0))
        noise = foreign_study(heart, "noise").series[name]
        mixed = heart.with_series({**heart.series, name: noise})
        assert set(model.report(mixed).not_assessed) == {name}
        assert encodings == dict.fromkeys(heart.series, 1)


def test_a_heart_without_a_ventricle_is_not_encoded_again(model, heart, encodings, monkeypatch):
    def nothing(self, native, *rest):
        if "sax" not in native.series:
            return {}
        return {"sax": np.zeros(native.series["sax"].image.shape, dtype=np.uint8)}

    monkeypatch.setattr(StudyAnswerer, "_label_maps", nothing)
    assert set(model.measure(heart).not_assessed) == {"sax"}
    assert encodings == dict.fromkeys(heart.series, 1)


def test_features_are_not_kept_where_a_foreign_series_moved_the_others(model, heart):
    def centred(study):
        """Crop as a step does that looks for the heart in the short axis."""
        if "sax" in study.series:
            return study
        lge = study.series["lge"]
        return study.with_series({"lge": replace(lge, image=np.roll(lge.image, 3, axis=3))})

    two = heart.with_series({name: heart.series[name] for name in ("sax", "lge")})
    study = model.run.preprocessing(two)
    features = encode_studies(model.network, [study])
    prepared = PreparedStudy(study, study, features)
    assert prepared.without(["sax"], centred).features is None
    assert set(prepared.without(["lge"], centred).features.stacks) == {"sax"}
    assert set(prepared.without(["sax"], lambda same: same).features.stacks) == {"lge"}
    assert PreparedStudy(study, study).without(["lge"], centred).features is None
